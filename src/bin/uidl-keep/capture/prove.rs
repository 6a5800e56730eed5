//! `uidl-keep capture ... --prove N`: some maildrops, chosen at random, are compared with what the
//! old server itself lists, before anything is written.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use uidl_keep::capture;
use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{Pin, Security, Trust};
use uidl_keep::capture::prove::program::Program;
use uidl_keep::capture::prove::proof::{self, Comparison};
use uidl_keep::maildrop::{Maildrop, State};
use uidl_keep::text::{printable, printable_path};

use super::job::Job;
use super::pop3::accounts::{self, Manner, Who};
use super::pop3::secrets;
use super::witness::{PATIENCE, Witness};
use crate::output::{Trouble, remark};

/// Whether and how the capture is proven.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("over_pop3").args(["prove_accounts", "prove_password_file"])))]
pub struct ProofArgs {
    /// Before anything is written, compare so many maildrops, chosen at random, with the old
    /// server's own listing, UIDL by UIDL; stop at any difference. By its own POP3 program, run as
    /// the owner of the maildrop; or over POP3, with --prove-accounts or --prove-password-file.
    /// Either is a login, and leaves on the server what any login leaves.
    #[arg(long, value_name = "N")]
    prove: Option<NonZeroU32>,
    /// The old server's own POP3 program and its arguments, where it is not found by itself, with
    /// {home}, {maildir} and {user} for the maildrop's: '/opt/courier/pop3d {maildir}',
    /// '/usr/lib/dovecot/pop3
    /// -c /srv/dovecot.conf -o mail_home={home}'. It stands in {home}.
    #[arg(long, value_name = "PROGRAM", requires = "prove", conflicts_with = "over_pop3")]
    prove_by: Option<String>,
    /// Ask over POP3, with the passwords of a CSV file as `capture pop3 --accounts` has it: its
    /// first line names its columns, of host, user, password and new_user. Only its owner may be
    /// able to read it.
    #[arg(long, value_name = "FILE", requires = "prove")]
    prove_accounts: Option<PathBuf>,
    /// Ask over POP3, as a master user whose password is the first line of this file.
    #[arg(long, value_name = "FILE", requires_all = ["prove", "prove_login"])]
    prove_password_file: Option<PathBuf>,
    /// SecurityArg that master user logs in, by {user}, {local} and {domain} of the maildrop's user at the
    /// old server: '{user}*master' on Dovecot.
    #[arg(long, value_name = "TEMPLATE", requires = "prove_password_file")]
    prove_login: Option<String>,
    /// Where POP3 is answered, as HOST or HOST:PORT.
    #[arg(long, value_name = "HOST", requires = "over_pop3", default_value = "127.0.0.1")]
    prove_server: String,
    /// SecurityArg passwords are kept secret on the way [default: clear to this machine itself, else tls].
    #[arg(long, value_enum, value_name = "HOW", requires = "over_pop3")]
    prove_security: Option<SecurityArg>,
    /// Take the certificate with this SHA-256 and no other, as `openssl x509 -fingerprint -sha256`
    /// prints it.
    #[arg(long, value_name = "SHA256", requires = "over_pop3")]
    prove_pin: Option<Pin>,
    /// Choose those that a proof with this seed chose.
    #[arg(long, value_name = "SEED", requires = "prove")]
    prove_seed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SecurityArg {
    /// TLS from the first octet.
    Tls,
    /// TLS after STLS.
    Starttls,
    /// No TLS: everybody on the way can read them.
    Clear,
}

/// SecurityArg often a maildrop is compared before mail that comes and goes is no explanation any more.
const TRIES: u32 = 4;

/// The pause after the first try, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// So many maildrops may have no listing, each for a reason of its own: one more, and an address
/// that fails to log in too often would be banned.
const MOST_UNHEARD: usize = 2;

/// So many maildrops are looked at for one that is not empty.
const LOOKS: usize = 100;

/// Compares as many maildrops as are asked for, if any. What there is to say of it, for the head of
/// the listing.
pub fn prove(args: &ProofArgs, job: &Job, keys: Keys) -> Result<Vec<String>, Trouble> {
    let Some(wanted) = args.prove.map(|wanted| wanted.get() as usize) else {
        return Ok(Vec::new());
    };
    let witness = args.witness(&job.server, job.is_copy)?;
    // A message is followed from capture to capture by its file.
    let keys = Keys { file: true, ..keys };
    let seed = args.prove_seed.unwrap_or_else(|| fastrand::u64(..));
    let mut order: Vec<&Source> =
        job.sources.iter().filter(|it| !it.is_gap() && witness.can_tell(it)).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let (mut said, mut unheard) = (Vec::new(), 0);
    let (mut proven, mut compared) = (0, 0);
    for source in chosen(job, keys, &order, wanted) {
        if proven == wanted {
            break;
        }
        let user = printable(source.user().as_bytes());
        match compare(&witness, job, keys, source) {
            Ok(Some(Proven { messages })) => {
                (proven, compared) = (proven + 1, compared + messages);
                said.push(format!("proven: {user}: {messages} messages, by {witness}"));
                remark(said.last().expect("just pushed"));
            }
            Ok(None) => {}
            Err(NotProven::Unheard(why)) => {
                unheard += 1;
                remark(format_args!("{user}: no listing of the old server's: {why}"));
                if unheard > MOST_UNHEARD {
                    return Err(Trouble::new(format!(
                        "{unheard} maildrops have no listing of the old server's to compare with: nothing \
                         was written; mend that, or see docs/capture-prove.md"
                    )));
                }
            }
            Err(NotProven::Differs(difference)) => {
                return Err(Trouble::new(format!(
                    "{user}: {}: {difference}; nothing was written: capture by what answers POP3 there, \
                     with its own format, or over POP3 (seed {seed})",
                    printable_path(source.place()),
                )));
            }
        }
    }
    let named = job.sources.iter().filter(|source| !source.is_gap()).count();
    if proven < wanted.min(named) {
        return Err(Trouble::new(format!(
            "only {proven} of {wanted} maildrops could be compared with the old server's listing: nothing was \
             written; ask for fewer, or see docs/capture-prove.md"
        )));
    }
    if compared == 0 {
        return Err(Trouble::new(
            "no maildrop with mail was compared, which proves nothing: nothing was written; is the mail \
             where this capture looks for it?",
        ));
    }
    said.push(format!("proven: {proven} of {} maildrops, seed {seed}", job.sources.len()));
    remark(said.last().expect("just pushed"));
    Ok(said)
}

/// Those to compare, in their order: first such as have messages, if some are found soon, then
/// others.
fn chosen<'a>(job: &Job, keys: Keys, order: &[&'a Source], wanted: usize) -> Vec<&'a Source> {
    // Where files have names of their own, no message need be read.
    let keys = if job.server.has_file_names() {
        Keys { file: true, header: false, message: false, origin: false }
    } else {
        keys
    };
    let (mut full, mut empty) = (Vec::new(), Vec::new());
    let mut left = order.iter();
    // A few more than are wanted: some may have no listing.
    while full.len() < wanted + MOST_UNHEARD
        && full.len() + empty.len() < wanted.saturating_mul(LOOKS)
    {
        let Some(&source) = left.next() else { break };
        let maildrop = capture::disk::server::capture(&job.server, keys, source).maildrop;
        if maildrop.entries.is_empty() { empty.push(source) } else { full.push(source) }
    }
    full.into_iter().chain(empty).chain(left.copied()).collect()
}

struct Proven {
    messages: usize,
}

enum NotProven {
    /// There is no listing to compare with.
    Unheard(String),
    Differs(proof::Difference),
}

/// Compares one maildrop. `None` where it cannot be captured at all, as its block will say.
fn compare(
    witness: &Witness,
    job: &Job,
    keys: Keys,
    source: &Source,
) -> Result<Option<Proven>, NotProven> {
    let capture = || -> Option<Maildrop> {
        let maildrop = capture::disk::server::capture(&job.server, keys, source).maildrop;
        (maildrop.state != State::Failed).then_some(maildrop)
    };
    let mut pause = FIRST_PAUSE;
    let mut difference = None;
    for _ in 0..TRIES {
        if difference.is_some() {
            thread::sleep(pause);
            pause *= 2;
        }
        let Some(before) = capture() else { return Ok(None) };
        let listed = witness.listing(source).map_err(NotProven::Unheard)?;
        let Some(after) = capture() else { return Ok(None) };
        match proof::check(&before, &listed, &after) {
            Comparison::Same => return Ok(Some(Proven { messages: listed.len() })),
            Comparison::Wrong(difference) => return Err(NotProven::Differs(difference)),
            Comparison::Unlike(unlike) => difference = Some(unlike),
        }
    }
    Err(NotProven::Differs(difference.expect("each try that goes on leaves one")))
}

impl ProofArgs {
    fn witness(&self, server: &ServerKind, is_copy: bool) -> Result<Witness, Trouble> {
        if self.prove_accounts.is_some() || self.prove_password_file.is_some() {
            return self.over_pop3();
        }
        if let Some(words) = &self.prove_by {
            let program = Program::named(words);
            return program
                .map(Witness::Program)
                .ok_or_else(|| Trouble::new("--prove-by is empty"));
        }
        if is_copy {
            return Err(Trouble::new(
                "--prove: --root is a copy, and the server is elsewhere: say where with \
                 --prove-accounts and --prove-server, or which program to take with --prove-by",
            ));
        }
        Program::of(server).map(Witness::Program).ok_or_else(|| {
            Trouble::new(format!(
                "--prove: no POP3 program of {} where it usually lies: name it with --prove-by, or say \
                 --prove-accounts",
                server.name()
            ))
        })
    }

    fn over_pop3(&self) -> Result<Witness, Trouble> {
        secrets::guard_memory()?;
        let manner = self.manner()?;
        let host = &self.prove_server;
        let server =
            accounts::server(host, None, &manner).map_err(|e| Trouble::at("--prove-server", e))?;
        if let Some(file) = &self.prove_password_file {
            let login = self.prove_login.clone().expect("required with it");
            // A template that is wrong is so before anybody is asked.
            accounts::filled(&login, "").map_err(|error| Trouble::at("--prove-login", error))?;
            return Ok(Witness::Master { server, login, password: secrets::password_in(file)? });
        }
        let table = self.prove_accounts.as_ref().expect("one of the two is there");
        let accounts = Who::of_table(table, host).accounts(&manner)?;
        let servers = accounts.server_of.iter().map(|&at| accounts.servers[at].clone());
        let by_user = accounts.all.iter().zip(servers);
        let by_user = by_user.map(|(one, server)| (one.user.clone(), (server, one.clone())));
        Ok(Witness::Accounts(by_user.collect()))
    }

    fn manner(&self) -> Result<Manner, Trouble> {
        let host = self.prove_server.split(':').next().unwrap_or_default();
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let security = match self.prove_security.unwrap_or(if is_here {
            SecurityArg::Clear
        } else {
            SecurityArg::Tls
        }) {
            SecurityArg::Tls => Security::Tls,
            SecurityArg::Starttls => Security::StartTls,
            SecurityArg::Clear => Security::Clear,
        };
        if security == Security::Clear && self.prove_pin.is_some() {
            return Err(Trouble::new("--prove-pin: there is no certificate without TLS"));
        }
        let trust = self.prove_pin.map_or(Trust::System, Trust::Pinned);
        Ok(Manner { security, trust, patience: PATIENCE })
    }
}
