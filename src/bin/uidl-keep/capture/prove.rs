//! `uidl-keep capture ... --prove N`: some maildrops, chosen at random, are compared with what the old
//! server itself lists, before anything is written.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use uidl_keep::capture::layout::Source;
use uidl_keep::capture::pop3::{self, Account, Pin, Security, Trust};
use uidl_keep::capture::program::Program;
use uidl_keep::capture::proof::{self, Outcome};
use uidl_keep::capture::{self, Keys, Server, printable};
use uidl_keep::maildrop::{Maildrop, State};

use super::passwords::Passwords;
use super::sources::Job;
use crate::output::{Trouble, remark};

/// Whether and how the capture is proven.
#[derive(clap::Args)]
pub struct Args {
    /// Before anything is written, compare so many maildrops, chosen at random, with the old server's
    /// own listing, UIDL by UIDL; stop at any difference. By its own POP3 program, run as the owner
    /// of the maildrop, or over POP3 with --prove-accounts. Either is a login: it leaves on the
    /// server what any login leaves.
    #[arg(long, value_name = "N")]
    prove: Option<u32>,
    /// The old server's own POP3 program and its arguments, where it is not found by itself, with
    /// {home}, {maildir} and {user} for the maildrop's: '/opt/courier/pop3d {maildir}', '/usr/lib/dovecot/pop3
    /// -c /srv/dovecot.conf -o mail_home={home}'. It stands in {home}.
    #[arg(long, value_name = "PROGRAM", requires = "prove", conflicts_with = "prove_accounts")]
    prove_by: Option<String>,
    /// Ask over POP3, with the passwords in this file: a user name of the old server and a password on
    /// each line, or * and the password of a master user. Only its owner may be able to read it.
    #[arg(long, value_name = "FILE", requires = "prove")]
    prove_accounts: Option<PathBuf>,
    /// Where POP3 is answered, as HOST or HOST:PORT.
    #[arg(long, value_name = "HOST", requires = "prove_accounts", default_value = "127.0.0.1")]
    prove_server: String,
    /// How users log in there, by {user}, {local} and {domain}: '{user}*master' of a master user on
    /// Dovecot.
    #[arg(long, value_name = "TEMPLATE", requires = "prove_accounts", default_value = "{user}")]
    prove_login: String,
    /// How passwords are kept secret on the way [default: clear on this machine, else tls].
    #[arg(long, value_enum, value_name = "HOW", requires = "prove_accounts")]
    prove_security: Option<How>,
    /// Take the certificate with this SHA-256 and no other, as `openssl x509 -fingerprint -sha256`
    /// prints it.
    #[arg(long, value_name = "SHA256", requires = "prove_accounts")]
    prove_pin: Option<Pin>,
    /// Choose those that a proof with this seed chose.
    #[arg(long, value_name = "SEED", requires = "prove")]
    prove_seed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// TLS from the first octet.
    Tls,
    /// TLS after STLS.
    Starttls,
    /// No TLS: everybody on the way can read them.
    Clear,
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a maildrop is compared before mail that comes and goes is no explanation any more.
const TRIES: u32 = 4;

/// The pause after the first try, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// So many maildrops may have no listing, each for a reason of its own.
const MOST_UNHEARD: usize = 3;

/// So many maildrops are looked at for one that is not empty.
const LOOKS: usize = 100;

/// Who tells what the old server lists.
enum Witness {
    Program(Program),
    Pop3 { server: pop3::Server, login: String, passwords: Passwords },
}

/// Compares as many maildrops as are asked for, if any. What there is to say of it, for the head of the
/// listing.
pub fn prove(args: &Args, job: &Job, keys: Keys) -> Result<Vec<String>, Trouble> {
    let Some(wanted) = args.prove.map(|wanted| wanted as usize) else { return Ok(Vec::new()) };
    let witness = args.witness(&job.server, job.is_copy)?;
    // A message is followed from capture to capture by its file.
    let keys = Keys { file: true, ..keys };
    let seed = args.prove_seed.unwrap_or_else(|| fastrand::u64(..));
    let mut order: Vec<&Source> =
        job.sources.iter().filter(|source| witness.can_tell(source)).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let (mut said, mut unheard) = (Vec::new(), 0);
    let mut proven = 0;
    for source in chosen(job, keys, &order, wanted) {
        if proven == wanted {
            break;
        }
        let user = printable(source.user().as_bytes());
        match compare(&witness, job, keys, source) {
            Ok(Some(Proven { messages })) => {
                proven += 1;
                said.push(format!("proven: {user}: {messages} messages, by {witness}"));
                remark(said.last().expect("just pushed"));
            }
            Ok(None) => {}
            Err(Stop::Unheard(why)) => {
                unheard += 1;
                remark(format_args!("{user}: no listing of the old server's: {why}"));
                if unheard > MOST_UNHEARD {
                    return Err(Trouble::new(format!(
                        "{unheard} maildrops have no listing of the old server's to compare with: nothing \
                         was written; mend that, or see docs/capture-prove.md"
                    )));
                }
            }
            Err(Stop::Differs(difference)) => {
                return Err(Trouble::new(format!(
                    "{user}: {}: {difference}; nothing was written: capture by what answers POP3 there, \
                     with its own format, or over POP3 (seed {seed})",
                    printable(source.place().as_os_str().as_encoded_bytes()),
                )));
            }
        }
    }
    if proven < wanted.min(job.sources.len()) {
        return Err(Trouble::new(format!(
            "only {proven} of {wanted} maildrops could be compared with the old server's listing: nothing was \
             written; ask for fewer, or see docs/capture-prove.md"
        )));
    }
    said.push(format!("proven: {proven} of {} maildrops, seed {seed}", job.sources.len()));
    remark(said.last().expect("just pushed"));
    Ok(said)
}

/// Those to compare, in their order: first such as have messages, if some are found soon, then others.
fn chosen<'a>(job: &Job, keys: Keys, order: &[&'a Source], wanted: usize) -> Vec<&'a Source> {
    let file_only = Keys { header: false, message: false, origin: false, ..keys };
    let (mut full, mut empty) = (Vec::new(), Vec::new());
    let mut left = order.iter();
    // A few more than are wanted: some may have no listing.
    while full.len() < wanted + MOST_UNHEARD
        && full.len() + empty.len() < wanted.saturating_mul(LOOKS)
    {
        let Some(&source) = left.next() else { break };
        let maildrop = capture::capture(&job.server, file_only, source).maildrop;
        if maildrop.entries.is_empty() { empty.push(source) } else { full.push(source) }
    }
    full.into_iter().chain(empty).chain(left.copied()).collect()
}

struct Proven {
    messages: usize,
}

enum Stop {
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
) -> Result<Option<Proven>, Stop> {
    let capture = || -> Option<Maildrop> {
        let maildrop = capture::capture(&job.server, keys, source).maildrop;
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
        let listed = witness.listing(source).map_err(Stop::Unheard)?;
        let Some(after) = capture() else { return Ok(None) };
        match proof::check(&before, &listed, &after) {
            Outcome::Same => return Ok(Some(Proven { messages: listed.len() })),
            Outcome::Wrong(difference) => return Err(Stop::Differs(difference)),
            Outcome::Unlike(unlike) => difference = Some(unlike),
        }
    }
    Err(Stop::Differs(difference.expect("each try that goes on leaves one")))
}

impl Args {
    fn witness(&self, server: &Server, is_copy: bool) -> Result<Witness, Trouble> {
        if let Some(file) = &self.prove_accounts {
            return self.over_pop3(file);
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

    fn over_pop3(&self, file: &Path) -> Result<Witness, Trouble> {
        let bad = || {
            Trouble::at("--prove-server", format!("not HOST or HOST:PORT: {}", self.prove_server))
        };
        let (host, port) = match self.prove_server.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => {
                (host, Some(port.parse().map_err(|_| bad())?))
            }
            // An IPv6 address, whose port is in no doubt only with brackets.
            _ => (self.prove_server.as_str(), None),
        };
        let is_here =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let security = self.prove_security.unwrap_or(if is_here { How::Clear } else { How::Tls });
        if security == How::Clear && self.prove_pin.is_some() {
            return Err(Trouble::new("--prove-pin: there is no certificate without TLS"));
        }
        let server = pop3::Server {
            host: host.to_owned(),
            port: port.unwrap_or(if security == How::Tls { 995 } else { 110 }),
            security: match security {
                How::Tls => Security::Tls,
                How::Starttls => Security::StartTls,
                How::Clear => Security::Clear,
            },
            trust: self.prove_pin.map_or(Trust::System, Trust::Pinned),
        };
        let passwords = Passwords::read(file)?;
        Ok(Witness::Pop3 { server, login: self.prove_login.clone(), passwords })
    }
}

impl Witness {
    /// Whether it can be asked about this maildrop.
    fn can_tell(&self, source: &Source) -> bool {
        match self {
            Self::Program(_) => true,
            Self::Pop3 { passwords, .. } => passwords.of(source.login()).is_some(),
        }
    }

    /// What the old server lists. The error is for people.
    fn listing(&self, source: &Source) -> Result<Vec<Box<[u8]>>, String> {
        let user = source.login();
        let listed = match self {
            Self::Program(program) => {
                program.listing(source, PATIENCE).map_err(|error| error.to_string())?
            }
            Self::Pop3 { server, login, passwords } => {
                let password = passwords.of(user).ok_or("no password")?.clone();
                let login = filled(login, user);
                let account = Account { user: user.to_owned(), login, authorize: None, password };
                let listed = pop3::log_in(server, &account, PATIENCE).and_then(|mut session| {
                    let listed = pop3::listing(&mut session)?;
                    session.quit();
                    Ok(listed)
                });
                listed.map_err(|fault| fault.to_string())?
            }
        };
        Ok(listed.into_iter().map(|listed| listed.uidl).collect())
    }
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Program(program) => f.write_str(&program.name()),
            Self::Pop3 { server, .. } => {
                write!(f, "POP3 at {}:{}", printable(server.host.as_bytes()), server.port)
            }
        }
    }
}

fn filled(template: &str, user: &str) -> String {
    let (local, domain) = user.rsplit_once('@').unwrap_or((user, ""));
    template.replace("{user}", user).replace("{local}", local).replace("{domain}", domain)
}
