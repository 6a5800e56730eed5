//! The directory in which `dovecot-uidlist` lies, held open: [`ListDir`].
//!
//! It belongs to a user, and root works in it. So everything in it is opened by its name in the
//! directory that is held, and nothing follows a link.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::bake::dotlock::Dotlock;
use crate::capture::disk::dovecot::STATE_FILE;
use crate::file::publish::{Access, Staged};
use crate::ledger::control::LOCK;

/// How long a login that resolves the same mailbox is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// The directory of a list.
#[derive(Debug, Clone, Copy)]
pub struct ListDir<'a>(pub BorrowedFd<'a>);

impl ListDir<'_> {
    /// Who owns what is written here, and who may read it: as the list that is there, or as the
    /// directory itself.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn access(self) -> io::Result<Access> {
        let stat = match rustix::fs::statat(self.0, STATE_FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => stat,
            Ok(_) => return Err(io::Error::other(format!("{STATE_FILE} is no file"))),
            Err(Errno::NOENT) => rustix::fs::fstat(self.0)?,
            Err(errno) => return Err(errno.into()),
        };
        let mode = (stat.st_mode & 0o666) | 0o600;
        Ok(Access { mode, owner: Some((stat.st_uid, stat.st_gid)) })
    }

    /// Puts a list in the place of the one that is there, whole, unless `lock` was lost.
    ///
    /// # Errors
    ///
    /// What the system says. The old list is there still, and nothing else is left, unless only the
    /// last step failed: to make sure that a power cut does not undo it.
    pub fn publish(self, lock: &Dotlock<'_>, list: &[u8], access: Access) -> io::Result<()> {
        // The directory that is held, whatever its name leads to by now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        let staged = Staged::create(&path.join(STATE_FILE))?;
        staged.file().write_all(list)?;
        let sealed = staged.seal(access)?;
        if !lock.is_ours()? {
            return Err(io::Error::other("the lock of the list was taken away; run this again"));
        }
        sealed.publish()
    }

    /// Keeps logins that have the plugin from resolving the mailbox, where they have ever done so.
    /// It holds until the file is dropped.
    ///
    /// # Errors
    ///
    /// What the system says; also where a login goes on for longer than 20 seconds.
    pub fn keep_logins_waiting(self) -> io::Result<Option<File>> {
        // Only a file that may be written can be locked on NFS.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.0, LOCK, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                    return Err(io::Error::other("a POP3 session is resolving this mailbox"));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => thread::sleep(PAUSE),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
