//! `uidl-keep capture pop3`: what an old server tells its POP3 clients, asked for as they do.

pub mod accounts;
mod addresses;
mod fleet;
mod journal;
mod pace;
mod queue;
pub mod secrets;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{Pin, Retrieve, Security, Trust};
use uidl_keep::text::printable;

use super::block::Block;
use super::listing_file::{Asked, ListingFile};
use super::progress::Progress;
use crate::output::{Outcome, Trouble, remark};
use accounts::{Accounts, Who};
use fleet::{Manner, Settled};
use journal::{Found, Journal, Place, Wanted};
use queue::Limits;

/// Captures any server over POP3, by logging in to its accounts.
///
///   uidl-keep capture pop3 --host mail.old.example --user alice@example.com --password-file pw
///
///   uidl-keep capture pop3 --accounts accounts.csv -o old.listing
///
/// The first asks for one account. The second asks for each account in a CSV file, whose first line
/// names its columns: host,user,password,new_user. With --users and --login-template a master user
/// opens all accounts. Nothing is deleted, and messages are only read whole where their headers say
/// too little, by TOP where that does and by RETR where it is allowed (--retrieve).
/// docs/capture-pop3.md tells of servers, panels and master users.
///
/// Before you ask for many accounts: panels ban addresses that log in too often or fail to. Have
/// the address of this machine allowed there first (fail2ban, cPHulk, firewalls), or say
/// --logins-per-minute. A server that refuses the first accounts is asked no more (--max-refusals).
///
/// With many accounts FILE.journal grows beside FILE. When the run is killed, the same command goes
/// on where it was. When all accounts are settled, FILE is written as a whole and the journal
/// removed; accounts that failed are in FILE as such, with the reason. The same command then takes
/// the others from FILE and asks only for those that failed or are new in the list. Where none
/// failed, or FILE is older than a day, it asks for all again, for clients have had new mail since:
/// --afresh and --retry say which of the two you want.
///
/// Passwords are never given on the command line. Files that hold them must be readable by their
/// owner only.
///
/// Exit status 0: all is captured. 1: some account failed, or something of it was lost; stderr and
/// the listing say which and why. 2: there is no new listing.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    who: Who,
    /// Speak TLS from the first octet; the default.
    #[arg(long, group = "security")]
    tls: bool,
    /// Begin without TLS and change to it before anything is said (STLS).
    #[arg(long, group = "security")]
    starttls: bool,
    /// No TLS: everybody on the way can read the passwords. For a server on this machine, or
    /// through a tunnel.
    #[arg(long, group = "security", conflicts_with_all = ["pin", "insecure"])]
    clear: bool,
    /// Take the certificate with this SHA-256 and no other, as `openssl x509 -fingerprint -sha256`
    /// prints it: for a server that signed its own.
    #[arg(long, value_name = "SHA256")]
    pin: Option<Pin>,
    /// Take any certificate: whoever stands between can read the passwords.
    #[arg(long, conflicts_with = "pin")]
    insecure: bool,
    /// What to recognise messages by: file, header, message, origin. POP3 tells no file names, but
    /// for those that qmail-pop3d gives as unique-ids; message retrieves each message whole.
    #[arg(long, value_name = "KEYS", default_value = "file,header")]
    keys: Keys,
    /// Whether to retrieve messages whole (RETR): never, where a server hides or marks what was
    /// retrieved; needed, where the header alone says too little and TOP does not bring the rest;
    /// always.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "needed")]
    retrieve: When,
    /// How long to wait for a connection or an answer.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How long one account may take in all: a server that sends and sends is left then.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "12h",
        value_parser = humantime::parse_duration
    )]
    most_time: Duration,
    /// How many octets may come for one account in all: by default, 64 GiB.
    #[arg(long, value_name = "N", default_value = "68719476736")]
    most_octets: u64,
    /// How long to try again, with growing pauses, where an account is in use or a server does not
    /// answer.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Connections to one address at a time, whatever names it has. 3 is what cPanel allows.
    #[arg(long, value_name = "N", default_value = "3")]
    connections: NonZeroU32,
    /// Connections to all addresses together.
    #[arg(long, value_name = "N", default_value = "32")]
    jobs: NonZeroU32,
    /// Commands a second to one address, at most.
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Logins a minute at one address, at most.
    #[arg(long, value_name = "N")]
    logins_per_minute: Option<NonZeroU32>,
    /// Ask an address no more when it refuses so many accounts before it took one, or three times
    /// as many in a row after that; 0 is never.
    #[arg(long, value_name = "N", default_value = "3")]
    max_refusals: u32,
    /// Take what was captured from FILE as it is, and ask only for accounts that it lacks or has as
    /// failed: the default where there are such, and FILE is no older than a day.
    #[arg(long, requires = "output", conflicts_with = "afresh")]
    retry: bool,
    /// Ask for all accounts, whatever FILE has.
    #[arg(long, requires = "output")]
    afresh: bool,
    /// Write the listing there, as a whole or not at all, in place of stdout. Many accounts need
    /// it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum When {
    Never,
    Needed,
    Always,
}

impl When {
    fn retrieve(self) -> Retrieve {
        match self {
            Self::Never => Retrieve::Never,
            Self::Needed => Retrieve::Needed,
            Self::Always => Retrieve::Always,
        }
    }
}

impl Args {
    fn servers(&self) -> accounts::Manner {
        let security = match (self.starttls, self.clear) {
            (true, _) => Security::StartTls,
            (_, true) => Security::Clear,
            _ => Security::Tls,
        };
        let trust = match self.pin {
            Some(pin) => Trust::Pinned(pin),
            None if self.insecure => Trust::Anything,
            None => Trust::System,
        };
        accounts::Manner { security, trust, patience: self.timeout }
    }

    fn manner(&self) -> Manner {
        let second = Duration::from_secs(1);
        Manner {
            keys: self.keys,
            retrieve: self.retrieve.retrieve(),
            timeout: self.timeout,
            most_time: self.most_time,
            most_octets: self.most_octets,
            command_gap: self.rate.map_or(Duration::ZERO, |rate| second / rate.get()),
            login_gap: self.logins_per_minute.map_or(Duration::ZERO, |n| 60 * second / n.get()),
            limits: Limits {
                connections: self.connections.get(),
                max_refusals: self.max_refusals,
                patience: self.patience,
            },
            jobs: usize::try_from(self.jobs.get()).unwrap_or(usize::MAX),
        }
    }

    /// What a journal says of how its blocks were captured.
    fn settings(&self) -> String {
        let Keys { file, header, message, origin } = self.keys;
        let words = [(file, "file"), (header, "header"), (message, "message"), (origin, "origin")];
        let words: Vec<_> =
            words.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| *word).collect();
        let retrieve = match self.retrieve {
            When::Never => "never",
            When::Needed => "needed",
            When::Always => "always",
        };
        format!("--keys {} --retrieve {retrieve}", words.join(","))
    }
}

/// Captures, and writes the listing.
pub fn run(args: &Args) -> Result<Outcome, Trouble> {
    secrets::guard_memory()?;
    let accounts = args.who.accounts(&args.servers())?;
    match &args.output {
        Some(output) if !accounts.is_single => many(args, &accounts, output),
        output => single(args, &accounts, output.as_deref()),
    }
}

/// One account: its block is the listing.
fn single(args: &Args, accounts: &Accounts, output: Option<&Path>) -> Result<Outcome, Trouble> {
    if args.retry || args.afresh {
        return Err(Trouble::new("--retry and --afresh are for --users and --accounts"));
    }
    let mut output = ListingFile::open(output)?;
    let progress = Progress::new(1, true, false);
    let (mut all_well, mut has_failed) = (true, false);
    fleet::capture(accounts, [0], &args.manner(), &progress, |Settled { at, block }| {
        all_well &= say_losses(accounts, at, &block, &progress);
        has_failed |= block.has_failed;
        output.write(&block.octets)
    })?;
    if let (true, ListingFile::File(_, place)) = (has_failed, &output) {
        // Not in the place of a listing that has something.
        return Err(Trouble::at(
            place.display(),
            "not written: the account could not be captured, for the reason above",
        ));
    }
    output.publish(Asked::Listed)?;
    Ok(if all_well { Outcome::Done } else { Outcome::Short })
}

/// Many accounts: what is captured is kept in a journal until the listing is whole.
fn many(args: &Args, accounts: &Accounts, output: &Path) -> Result<Outcome, Trouble> {
    if output == Path::new("-") || output.is_dir() {
        return Err(Trouble::at(
            output.display(),
            "not a file; with many accounts -o names one, which is written as a whole",
        ));
    }
    let by_user: HashMap<&str, usize> =
        (0..).zip(&accounts.all).map(|(at, account)| (account.user.as_str(), at)).collect();
    let wanted = Wanted { by_user: &by_user, sources: &|at| accounts.source(at) };
    let (mut journal, mut captured) = begin(args, &wanted, output)?;
    let left: Vec<usize> =
        (0..accounts.all.len()).filter(|at| !captured.contains_key(at)).collect();
    if !left.is_empty() {
        warn_of_bans(accounts, left.len());
    }
    let progress = Progress::new(accounts.all.len(), false, true);
    progress.count_before(captured.len());
    let mut failed: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut all_well = true;
    fleet::capture(accounts, left, &args.manner(), &progress, |Settled { at, block }| {
        all_well &= say_losses(accounts, at, &block, &progress);
        progress.count_maildrop(block.has_failed);
        if block.has_failed {
            failed.insert(at, block.octets);
        } else {
            captured.insert(at, journal.append(&block.octets)?);
        }
        Ok(())
    })?;
    progress.finish();
    if captured.is_empty() {
        // Not in the place of a listing that has something.
        journal.remove()?;
        return Err(Trouble::at(
            output.display(),
            "not written: no account could be captured, for the reasons above",
        ));
    }
    let listed = journal::listed_in(output, &wanted).captured;
    let would_go = failed.keys().filter(|at| listed.contains_key(at)).count();
    if would_go > 0 {
        return Err(Trouble::at(
            output.display(),
            format_args!(
                "not replaced: it has {would_go} accounts that could not be captured now; say the same with \
                 --retry to keep them, or move it away and say the same again"
            ),
        ));
    }
    publish(accounts, &journal, &captured, &failed, output)?;
    journal.remove()?;
    if !failed.is_empty() {
        remark(format_args!(
            "{}: {} accounts are captured, {} failed; the same command asks for these again",
            output.display(),
            captured.len(),
            failed.len()
        ));
    }
    Ok(if all_well { Outcome::Done } else { Outcome::Short })
}

/// Opens the journal, and says what is there already.
fn begin(
    args: &Args,
    wanted: &Wanted,
    output: &Path,
) -> Result<(Journal, HashMap<usize, Place>), Trouble> {
    let (mut journal, mut found) = Journal::open(output, &args.settings(), wanted)?;
    let asked = wanted.by_user.len();
    let begun = found.begun.take();
    if let Some(begun) = &begun {
        remark(format_args!(
            "{}: begun {begun}, and {} of {asked} accounts are captured: going on there; remove it to \
             ask for all again",
            journal.path().display(),
            found.captured.len()
        ));
    }
    // A run that was killed may not have come as far as a listing.
    let takes_over = match (args.retry, args.afresh) {
        (true, _) => begun.is_none() || output.exists(),
        (_, true) => false,
        _ => begun.is_none() && is_to_be_finished(output, wanted),
    };
    if takes_over {
        let older = match journal.take_over(output, wanted, &found.captured) {
            Ok(older) => older,
            Err(trouble) if begun.is_none() => {
                journal.remove()?;
                return Err(trouble);
            }
            Err(trouble) => return Err(trouble),
        };
        remark(format_args!(
            "{}: has {} of {asked} accounts, the last of them captured {}: these are not asked \
             again; --afresh asks for all",
            output.display(),
            older.captured.len(),
            said_of(older.newest)
        ));
        found.captured.extend(older.captured);
        found.dropped += older.dropped;
    }
    if found.dropped > 0 {
        remark(format_args!(
            "{} maildrops that were captured are not in the list of accounts any more, or of another \
             server or login: dropped",
            found.dropped
        ));
    }
    Ok((journal, found.captured))
}

/// A listing is gone on with so long after its last account was captured.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether the listing of an earlier run lacks accounts that this one is for, and is young enough
/// to be completed. Says why all accounts are asked again where it is not.
fn is_to_be_finished(output: &Path, wanted: &Wanted) -> bool {
    let Found { captured, newest, .. } = journal::listed_in(output, wanted);
    if captured.is_empty() {
        return false;
    }
    let asked = wanted.by_user.len();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_young = newest.is_some_and(|newest| newest + DAY.as_secs() >= since_1970);
    if captured.len() < asked && is_young {
        return true;
    }
    remark(format_args!(
        "{}: has {} of {asked} accounts, the last of them captured {}: all are asked again, for \
         mail that has come since; --retry keeps what it has",
        output.display(),
        captured.len(),
        said_of(newest)
    ));
    false
}

/// A time of a listing, for people.
fn said_of(seconds: Option<u64>) -> String {
    let time = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    time.map_or("at no time that it says".into(), |time| {
        humantime::format_rfc3339_seconds(time).to_string()
    })
}

/// Writes the listing, in the order of the accounts.
fn publish(
    accounts: &Accounts,
    journal: &Journal,
    captured: &HashMap<usize, Place>,
    failed: &HashMap<usize, Vec<u8>>,
    output: &Path,
) -> Result<(), Trouble> {
    let mut listing = ListingFile::open(Some(output))?;
    for at in 0..accounts.all.len() {
        match (captured.get(&at), failed.get(&at)) {
            (Some(place), _) => journal.copy(*place, &mut listing)?,
            (None, Some(octets)) => listing.write(octets)?,
            (None, None) => {
                let user = printable(accounts.all[at].user.as_bytes());
                return Err(Trouble::at(user, "was never settled; nothing is to be trusted"));
            }
        }
    }
    listing.publish(Asked::Listed)
}

/// Says what a block lacks; whether it lacks nothing.
fn say_losses(accounts: &Accounts, at: usize, block: &Block, progress: &Progress) -> bool {
    for loss in &block.losses {
        let user = printable(accounts.all[at].user.as_bytes());
        progress.say(format_args!("{user}: {loss}"));
    }
    block.losses.is_empty() && !block.has_failed
}

fn warn_of_bans(accounts: &Accounts, logins: usize) {
    remark(format_args!(
        "{logins} logins at {} servers follow: panels ban addresses that log in too often or fail to; \
         have this machine's allowed there (fail2ban, cPHulk, firewalls), or say --logins-per-minute",
        accounts.servers.len()
    ));
}
