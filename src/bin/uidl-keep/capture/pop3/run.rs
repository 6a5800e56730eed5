//! Captures accounts over POP3, and writes the listing: [`run`].

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uidl_keep::capture::fleet::{
    self, Accounts, BlockAt, Event, Journal, Resumed, Settled, WantedAccounts, Watch, listed_in,
};
use uidl_keep::text::printable;

use super::args::Pop3Args;
use super::password::guard_memory;
use crate::capture::block::Block;
use crate::capture::listing_file::{Asked, ListingFile};
use crate::capture::progress::Progress;
use crate::capture::summary::CaptureSummary;
use crate::output::{Completion, Trouble, remark};

/// Captures, and writes the listing.
pub fn run(args: &Pop3Args) -> Result<Completion, Trouble> {
    guard_memory()?;
    let accounts = args.accounts()?;
    match &args.output {
        Some(output) if !args.accounts.is_single() => many(args, &accounts, output),
        output => single(args, &accounts, output.as_deref()),
    }
}

/// One account: its block is the listing.
fn single(
    args: &Pop3Args,
    accounts: &Accounts,
    output: Option<&Path>,
) -> Result<Completion, Trouble> {
    if args.retry || args.afresh {
        return Err(Trouble::new("--retry and --afresh are for --users and --accounts"));
    }
    let mut output = ListingFile::open(output)?;
    let progress = Progress::new(1, true, false);
    let (mut all_well, mut has_failed) = (true, false);
    let mut summary = CaptureSummary::default();
    fleet::capture(accounts, [0], &args.options(), &progress, Block::of, |settled| {
        let Settled { at, block } = settled;
        all_well &= say_losses(accounts, at, &block, &progress);
        has_failed |= block.has_failed;
        summary.add(&block);
        progress.count_maildrop(block.has_failed);
        output.write(&block.octets)
    })?;
    progress.finish();
    let place = args.output.as_deref();
    if let (true, ListingFile::File(_, place)) = (has_failed, &output) {
        // Not in the place of a listing that has something.
        return Err(Trouble::at(
            place.display(),
            "not written: the account could not be captured, for the reason above",
        ));
    }
    output.publish(Asked::Listed)?;
    summary.say(place);
    Ok(if all_well { Completion::Done } else { Completion::Partial })
}

/// Many accounts: what is captured is kept in a journal until the listing is whole.
fn many(args: &Pop3Args, accounts: &Accounts, output: &Path) -> Result<Completion, Trouble> {
    if output == Path::new("-") || output.is_dir() {
        return Err(Trouble::at(
            output.display(),
            "not a file; with many accounts -o names one, which is written as a whole",
        ));
    }
    let by_user: HashMap<&str, usize> =
        (0..).zip(&accounts.all).map(|(at, account)| (account.user.as_str(), at)).collect();
    let wanted = WantedAccounts { by_user: &by_user, sources: &|at| accounts.source(at) };
    let (mut journal, mut captured) = begin(args, &wanted, output)?;
    let left: Vec<usize> =
        (0..accounts.all.len()).filter(|at| !captured.contains_key(at)).collect();
    if !left.is_empty() {
        warn_of_bans(accounts, left.len());
    }
    let progress = Progress::new(accounts.all.len(), false, true);
    progress.count_before(captured.len());
    let mut failed: HashMap<usize, Vec<u8>> = HashMap::new();
    let (mut all_well, mut summary) = (true, CaptureSummary::default());
    summary.add_before(captured.len());
    fleet::capture(accounts, left, &args.options(), &progress, Block::of, |settled| {
        let Settled { at, block } = settled;
        all_well &= say_losses(accounts, at, &block, &progress);
        progress.count_maildrop(block.has_failed);
        summary.add(&block);
        if block.has_failed {
            failed.insert(at, block.octets);
        } else {
            captured.insert(at, journal.append(&block.octets)?);
        }
        Ok::<_, Trouble>(())
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
    let listed = listed_there(output, &wanted).captured;
    let would_go = failed.keys().filter(|at| listed.contains_key(at)).count();
    if would_go > 0 {
        return Err(Trouble::at(
            output.display(),
            format_args!(
                "not replaced: it has {would_go} accounts that could not be captured now; say the \
                 same with --retry to keep them, or move it away and say the same again"
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
    summary.say(Some(output));
    Ok(if all_well { Completion::Done } else { Completion::Partial })
}

/// Opens the journal, and says what is there already.
fn begin(
    args: &Pop3Args,
    wanted: &WantedAccounts<'_>,
    output: &Path,
) -> Result<(Journal, HashMap<usize, BlockAt>), Trouble> {
    let (mut journal, mut found) = Journal::open(output, &args.settings(), wanted)?;
    remark_on_cut(journal.path(), &found);
    let asked = wanted.by_user.len();
    let begun = found.begun.take();
    if let Some(begun) = &begun {
        remark(format_args!(
            "{}: begun {begun}, and {} of {asked} accounts are captured: going on there; remove it \
             to ask for all again",
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
            Err(error) => {
                if begun.is_none() {
                    journal.remove()?;
                }
                return Err(error.into());
            }
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
            "{} maildrops that were captured are not in the list of accounts any more, or of \
             another server or login: dropped",
            found.dropped
        ));
    }
    Ok((journal, found.captured))
}

/// What the listing of an earlier run has.
fn listed_there(output: &Path, wanted: &WantedAccounts<'_>) -> Resumed {
    let found = listed_in(output, wanted);
    remark_on_cut(output, &found);
    found
}

fn remark_on_cut(path: &Path, found: &Resumed) {
    if let Some(user) = &found.cut_short {
        remark(format_args!(
            "{}: the last block, of {user}, is not whole: that account is captured again",
            path.display()
        ));
    }
}

/// A listing is gone on with so long after its last account was captured.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether the listing of an earlier run lacks accounts that this one is for, and is young enough
/// to be completed. Says why all accounts are asked again where it is not.
fn is_to_be_finished(output: &Path, wanted: &WantedAccounts<'_>) -> bool {
    let Resumed { captured, newest, .. } = listed_there(output, wanted);
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
    captured: &HashMap<usize, BlockAt>,
    failed: &HashMap<usize, Vec<u8>>,
    output: &Path,
) -> Result<(), Trouble> {
    let mut listing = ListingFile::open(Some(output))?;
    for at in 0..accounts.all.len() {
        match (captured.get(&at), failed.get(&at)) {
            (Some(block), _) => journal.copy(*block, |octets| listing.write(octets))?,
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
        "{logins} logins at {} servers follow: panels ban addresses that log in too often or fail \
         to; have this machine's allowed there (fail2ban, cPHulk, firewalls), or say \
         --logins-per-minute",
        accounts.servers.len()
    ));
}

impl Watch for Progress {
    fn messages(&self, more: u64) {
        self.count_messages(more);
    }

    fn waiting(&self, accounts: usize) {
        self.set_waiting(accounts);
    }

    fn event(&self, event: &Event<'_>) {
        self.say(event);
    }

    fn tick(&self) {
        Progress::tick(self);
    }
}
