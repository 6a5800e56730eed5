//! An old server's own POP3 program on one end of a socket pair, for a maildrop whose password
//! nobody knows: [`Program`].
//!
//! The server itself runs this program once a client has logged in, and tells it by its environment
//! who that was. It runs as the owner of the maildrop, never as root, and does to the maildrop what
//! any login does.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType};

use crate::account::AccountIds;
use crate::capture::child::{RunningProgram, last_line};
use crate::capture::disk::server::ServerKind;
use crate::capture::disk::traits::DiskTraits;
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::pop3::{Fault, Listed, Session, listing};
use crate::text::printable;

/// Why a program told nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoListing {
    /// The maildrop could not be opened.
    #[error(transparent)]
    Maildrop(#[from] CaptureError),
    /// The maildrop belongs to root, as whom no such program runs.
    #[error("it belongs to root, and no POP3 program is run as root")]
    OfRoot,
    /// The maildrop has no directory above it.
    #[error("it has no directory above it")]
    NoHome,
    /// It could not be started.
    #[error("{program}: {error}")]
    NotStarted {
        /// Its path, printable.
        program: String,
        /// What the system says.
        error: io::Error,
    },
    /// It did not tell.
    #[error("{program}: {fault}{said}")]
    Fault {
        /// Its path, printable.
        program: String,
        /// What went wrong.
        fault: Fault,
        /// The last line that it said on stderr, after a `; `, or nothing.
        said: String,
    },
}

/// A POP3 program and its arguments, in which `{home}`, `{maildir}` and `{user}` stand for those of
/// a maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    words: Vec<String>,
    /// The helper, by which root starts it.
    helper: PathBuf,
}

impl Program {
    /// Finds the program of that server here; `None` when there is none in its usual places.
    pub fn of(server: &ServerKind, helper: &Path) -> Option<Self> {
        let DiskTraits { programs, arguments, .. } = server.traits();
        let found = programs.iter().find(|place| Path::new(place).is_file())?;
        let words = [found].into_iter().chain(arguments).map(|&word| word.to_owned());
        Some(Self { words: words.collect(), helper: helper.to_owned() })
    }

    /// Takes a program and its arguments, separated by blanks. `None` when there is no word.
    pub fn named(words: &str, helper: &Path) -> Option<Self> {
        let words: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
        (!words.is_empty()).then(|| Self { words, helper: helper.to_owned() })
    }

    /// Its path, printable.
    pub fn name(&self) -> String {
        printable(self.words[0].as_bytes())
    }

    /// Asks the program for its listing of a maildrop, in one session from its greeting to its
    /// QUIT. The program runs in the directory above the Maildir.
    ///
    /// # Errors
    ///
    /// [`NoListing`]. The program has ended in any case.
    pub fn listing(&self, source: &Source, patience: Duration) -> Result<Vec<Listed>, NoListing> {
        let not_started = |error| NoListing::NotStarted { program: self.name(), error };
        let (uid, gid) = owner(source)?;
        if uid == 0 {
            return Err(NoListing::OfRoot);
        }
        let mut said = tempfile::tempfile().map_err(not_started)?;
        let (ours, theirs) = UnixStream::pair().map_err(not_started)?;
        ours.set_read_timeout(Some(patience)).map_err(not_started)?;
        ours.set_write_timeout(Some(patience)).map_err(not_started)?;
        let account = AccountIds { uid, gid };
        let mut command = self.command(source.place(), source.login(), account)?;
        command
            .stdin(OwnedFd::from(theirs.try_clone().map_err(not_started)?))
            .stdout(OwnedFd::from(theirs))
            .stderr(said.try_clone().map_err(not_started)?);
        let running = RunningProgram::new(command.spawn().map_err(not_started)?);
        // The child has the only other end now: we notice when it goes.
        drop(command);
        let listed = Session::join(ours, patience).and_then(|mut session| {
            let listed = listing(&mut session)?;
            session.quit();
            Ok(listed)
        });
        running.end(patience, listed.is_ok());
        listed.map_err(|fault| NoListing::Fault {
            program: self.name(),
            fault,
            said: last_line(&mut said),
        })
    }

    /// How it is called for a maildrop.
    fn command(&self, place: &Path, user: &str, account: AccountIds) -> Result<Command, NoListing> {
        let (Some(home), Some(maildir)) = (place.parent(), place.file_name()) else {
            return Err(NoListing::NoHome);
        };
        let mut words = self.words.iter().map(|word| filled(word, home.as_os_str(), maildir, user));
        let mut command = if rustix::process::geteuid().is_root() {
            // Its owner can trace it. So it must not have a terminal of root's.
            account.start(&self.helper, home)
        } else {
            let mut command = Command::new(words.next().expect("there is a first word"));
            command.current_dir(home);
            command
        };
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", home)
            .env("USER", user)
            // doveconf, by which Dovecot 2.4 reads its configuration, clears the rest away.
            .env("DOVECOT_PRESERVE_ENVS", "USER HOME")
            // courierpop3login tells courierpop3d so.
            .env("AUTHENTICATED", user)
            .env("AUTHADDR", user)
            .env("TCPREMOTEIP", "127.0.0.1");
        Ok(command)
    }
}

/// The uid and gid of a maildrop, be it a directory or a file.
fn owner(source: &Source) -> Result<(u32, u32), CaptureError> {
    let stat = match source.open() {
        Err(error) if error.is_absence() => {
            let (directory, name) = source.open_holder()?;
            rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        }
        opened => rustix::fs::fstat(opened?),
    };
    let name = source.place().as_os_str().as_bytes();
    let stat = stat.map_err(|errno| CaptureError::io(name, errno.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::RegularFile => Ok((stat.st_uid, stat.st_gid)),
        FileType::Symlink => Err(CaptureError::Link { name: printable(name) }),
        _ => Err(CaptureError::NotRegular { name: printable(name) }),
    }
}

/// A word with the names in it that its variables stand for.
fn filled(word: &str, home: &OsStr, maildir: &OsStr, user: &str) -> OsString {
    let (mut filled, mut rest) = (OsString::new(), word);
    while !rest.is_empty() {
        let variables = [("{home}", home), ("{maildir}", maildir), ("{user}", OsStr::new(user))];
        if let Some((variable, value)) = variables.iter().find(|(name, _)| rest.starts_with(name)) {
            filled.push(value);
            rest = &rest[variable.len()..];
        } else {
            let next = rest.char_indices().skip(1).find(|&(_, char)| char == '{');
            let end = next.map_or(rest.len(), |(at, _)| at);
            filled.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_for_the_maildrop_wherever_they_are_in_a_word() {
        let filled = |word: &str| filled(word, OsStr::new("/h/{user}"), OsStr::new("M"), "al");
        assert_eq!(filled("mail_home={home}"), "mail_home=/h/{user}");
        assert_eq!(filled("{user}:{maildir}{x}{"), "al:M{x}{");
        assert_eq!(filled("plain"), "plain");
        assert_eq!(Program::named(" \t", Path::new("uidl-keep")), None);
    }
}
