//! The files of a site and of a mailbox, opened as the account that POP3 opens them as:
//! [`questions`] asks a child process that has its uid and gid, and [`answers`] is what that does.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;
use serde_json::{Value, json};

use crate::file::map::Mapped;
use crate::file::read_at::ReadAt;
use crate::site::Site;
use crate::site::roster::Gate;

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

/// Asks the helper, run with that uid and gid and no other group.
///
/// # Errors
///
/// It could not be run, or did not answer.
pub fn questions(
    helper: &Path,
    site: &Path,
    (uid, gid): (u32, u32),
    asked: &[OwnerQuestion],
) -> io::Result<Vec<OwnerAnswer>> {
    let site = std::path::absolute(site)?;
    let mut command = Command::new(helper);
    command.arg(COMMAND).arg("--site").arg(site).current_dir("/");
    let is_another =
        rustix::process::geteuid().as_raw() != uid || rustix::process::getegid().as_raw() != gid;
    if is_another {
        command.uid(uid).gid(gid);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("a pipe");
    // It reads all before it answers.
    for question in asked {
        let control = question.control.as_ref().map(|dir| dir.to_string_lossy());
        writeln!(stdin, "{}", json!({ "user": question.user, "control": control }))?;
    }
    drop(stdin);
    let output = child.wait_with_output()?;
    let answers: Option<Vec<OwnerAnswer>> =
        String::from_utf8_lossy(&output.stdout).lines().map(answer_of).collect();
    match answers.filter(|answers| answers.len() == asked.len() && output.status.success()) {
        Some(answers) => Ok(answers),
        None => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("it says nothing");
            Err(io::Error::other(format!("uid {uid}, gid {gid}: {said}")))
        }
    }
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
    let len = mapped.len_octets().map_err(io)?.min(4096);
    mapped.read_at(0, usize::try_from(len).unwrap_or(0)).map_err(io)?;
    Ok(mapped.is_map_denied())
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
