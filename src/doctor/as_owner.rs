//! The files of a site and of a mailbox, opened as the account that POP3 opens them as:
//! [`questions`] asks a child process that takes its uid and gid, and [`answers`] is what that
//! does. The account itself can stop that child, and end it, and nothing else: see [`AccountIds`].
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, BufRead, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::Access;
use serde_json::{Value, json};

use crate::account::AccountIds;
use crate::dovecot::watched;
use crate::file::map::Mapped;
use crate::site::Site;
use crate::site::roster::Gate;
use crate::text::on_one_line;

/// The command of the helper that answers.
pub const COMMAND: &str = "doctor-as-owner";

/// A user whose files are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerQuestion {
    /// The user.
    pub user: String,
    /// The control directory of his INBOX, where it is known.
    pub control: Option<PathBuf>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerAnswer {
    /// The user.
    pub user: String,
    /// Why a login is refused: place, fact and next step. `None`: it is not.
    pub fault: Option<String>,
    /// Whether the index may be read and not mapped.
    pub is_map_denied: bool,
    /// Why no ledger can be written there. `None`: it can, or there is no such directory yet.
    pub unwritable: Option<String>,
}

/// How long the child may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much longer it may take for each user.
const FOR_EACH: Duration = Duration::from_secs(1);
/// How much it may answer for each user, in octets.
const MOST_ANSWER_OCTETS: u64 = 64 << 10;

/// Asks the helper, which becomes that account.
///
/// # Errors
///
/// It could not be run, or did not answer.
pub fn questions(
    helper: &Path,
    site: &Path,
    account: AccountIds,
    asked: &[OwnerQuestion],
) -> io::Result<Vec<OwnerAnswer>> {
    let site = std::path::absolute(site)?;
    let mut input = String::new();
    for question in asked {
        let control = question.control.as_ref().map(|dir| dir.to_string_lossy());
        let _ = writeln!(input, "{}", json!({ "user": question.user, "control": control }));
    }
    let count = u32::try_from(asked.len()).unwrap_or(u32::MAX);
    let limits = AnswerLimits {
        silence: PATIENCE,
        whole: PATIENCE.saturating_add(FOR_EACH.saturating_mul(count)),
        octets: MOST_ANSWER_OCTETS.saturating_mul(u64::from(count)),
    };
    let mut command = Command::new(helper);
    command.args([COMMAND, "--account", &account.to_string(), "--site"]).arg(site);
    let said = ask(command.current_dir("/"), input.as_bytes(), limits)
        .map_err(|error| io::Error::other(format!("uid {}, {error}", account.uid)))?;
    let answers: Option<Vec<OwnerAnswer>> =
        String::from_utf8_lossy(&said).lines().map(answer_of).collect();
    answers.filter(|answers| answers.len() == asked.len()).ok_or_else(|| {
        io::Error::other(format!("uid {}, gid {}: no answers of ours", account.uid, account.gid))
    })
}

/// How long a child that runs as an account is waited for, and how much of it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// The longest silence.
    pub silence: Duration,
    /// The longest time in which it may begin to say something.
    pub whole: Duration,
    /// The most that it may say.
    pub octets: u64,
}

/// What a command of the helper says that [takes](AccountIds::take) an account, given that input.
///
/// # Errors
///
/// It could not be run, did not succeed, or went beyond the limits.
pub fn ask(command: &mut Command, input: &[u8], limits: AnswerLimits) -> io::Result<Vec<u8>> {
    // A pipe would have to be written while the answers are read.
    let mut stdin = tempfile::tempfile()?;
    stdin.write_all(input)?;
    stdin.rewind()?;
    let begun = Instant::now();
    let (said, ended) = watched::read_apart(command, stdin, limits.silence, |stdout| {
        let (mut said, mut some) = (Vec::new(), [0; 8192]);
        loop {
            let count = match stdout.read(&mut some) {
                Ok(0) => return Ok(said),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            said.extend_from_slice(&some[..count]);
            if said.len() as u64 > limits.octets {
                return Err(io::Error::other(format!("more than {} octets", limits.octets)));
            }
            if begun.elapsed() > limits.whole {
                return Err(io::Error::other(format!("no end in {:?}", limits.whole)));
            }
        }
    })?;
    let said = said?;
    if ended.was_silent {
        let silence = limits.silence;
        return Err(io::Error::other(format!("no answer in {silence:?}: was it stopped?")));
    }
    if !ended.status.success() {
        let stderr = String::from_utf8_lossy(&ended.stderr);
        let first = stderr.lines().next().map_or_else(|| ended.status.to_string(), on_one_line);
        return Err(io::Error::other(first.trim_start_matches("uidl-keep: ").to_owned()));
    }
    Ok(said)
}

/// Opens the files of each user as a login does, and answers.
///
/// # Errors
///
/// Those of the pipes, and a question that is none.
pub fn answers(site: &Site, questions: impl BufRead, mut out: impl Write) -> io::Result<()> {
    let questions: Vec<String> = questions.lines().collect::<io::Result<_>>()?;
    for line in questions {
        let question: Value = serde_json::from_str(&line)?;
        let user = question["user"].as_str().unwrap_or_default();
        let (fault, is_map_denied) = match open(site, user) {
            Ok(is_map_denied) => (None, is_map_denied),
            Err(fault) => (Some(fault), false),
        };
        let unwritable = question["control"].as_str().and_then(|dir| unwritable(Path::new(dir)));
        let answer = json!({
            "user": user,
            "fault": fault,
            "map_denied": is_map_denied,
            "unwritable": unwritable,
        });
        writeln!(out, "{answer}")?;
    }
    out.flush()
}

/// Looks a user up in roster and index. Returns whether the index may not be mapped.
fn open(site: &Site, user: &str) -> Result<bool, String> {
    let line = site.line_of(user)?;
    let line = line.ok_or("no roster names the user")?;
    if line.gate == Gate::Redownload {
        return Ok(false);
    }
    site.settings()?;
    site.captured_of(user)?;
    let io = |error: io::Error| error.to_string();
    let index = site.open_index(user).map_err(|error| error.to_string())?;
    let mapped = Mapped::new(index.ok_or("the index went away")?).map_err(io)?;
    mapped.is_map_denied().map_err(io)
}

/// Why this account cannot make files there.
fn unwritable(dir: &Path) -> Option<String> {
    match rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => None,
        Err(error) => Some(format!("{}: {}", dir.display(), io::Error::from(error))),
    }
}

fn answer_of(line: &str) -> Option<OwnerAnswer> {
    let answer: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    Some(OwnerAnswer {
        user: text("user")?,
        fault: text("fault"),
        is_map_denied: answer["map_denied"].as_bool()?,
        unwritable: text("unwritable"),
    })
}
