//! State files that servers left in Maildirs: [`Traces`]. They help to tell which server answered.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use rustix::fs::AtFlags;

use crate::capture::disk::{courier, dovecot};
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::users_files;

/// State files one server left in a set of maildrops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Maildrops with any file of this server.
    pub maildrops: usize,
    /// When the youngest state of POP3 was written; `None` when there is none.
    pub newest: Option<SystemTime>,
}

/// State files that servers left in a set of maildrops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traces {
    /// Courier's.
    pub courier: Left,
    /// Dovecot's.
    pub dovecot: Left,
    /// When the youngest message arrived, by the seconds that its file name begins with: its mtime
    /// may be that of a copy.
    pub newest_mail: Option<SystemTime>,
}

impl Traces {
    /// Adds what lies in one more maildrop. Lists three directories, and opens no file.
    ///
    /// # Errors
    ///
    /// As [`Source::open`]; [`CaptureError::Io`] where it cannot be listed.
    pub fn add(&mut self, source: &Source) -> Result<(), CaptureError> {
        let top = source.open()?;
        let listed = |directory: BorrowedFd<'_>| {
            users_files::names(directory).map_err(|error| CaptureError::io(b".", error))
        };
        let found = listed(top.as_fd())?;
        for (left, prefix, state) in [
            (&mut self.courier, "courier", courier::STATE_FILE),
            (&mut self.dovecot, "dovecot", dovecot::STATE_FILE),
        ] {
            if found.iter().any(|(name, _)| name.starts_with(prefix.as_bytes())) {
                left.maildrops += 1;
                left.newest = left.newest.max(written(top.as_fd(), state));
            }
        }
        for folder in ["new", "cur"] {
            let folder = match users_files::open_directory(top.as_fd(), OsStr::new(folder)) {
                Err(error) if error.is_absence() => continue,
                opened => opened?,
            };
            let arrived =
                listed(folder.as_fd())?.iter().filter_map(|(name, _)| arrival(name)).max();
            self.newest_mail = self.newest_mail.max(arrived);
        }
        Ok(())
    }
}

fn written(maildir: BorrowedFd<'_>, state: &str) -> Option<SystemTime> {
    let stat = rustix::fs::statat(maildir, state, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(stat.st_mtime).ok()?))
}

fn arrival(name: &[u8]) -> Option<SystemTime> {
    let digits = &name[..name.iter().position(|&octet| octet == b'.')?];
    let seconds: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
