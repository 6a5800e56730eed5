//! Delivery into a Maildir that a user owns: [`Target`].
//!
//! A message is written to `tmp`, synced, and moved into `new` or `cur` under the very name that it
//! had, over nothing. No link of the user's is followed: each directory is held open from the
//! start.
#![forbid(unsafe_code)]

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, fchown};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, linkat, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::capture::disk::maildir::{Folder, Maildir, MessageFile};
use crate::capture::error::CaptureError;
use crate::key::FileKey;
use crate::late::journal::{HowFar, LateJournal};
use crate::late::not_brought::NotBrought;
use crate::text::printable;

/// The beginning of a name in `tmp`.
const IN_TMP: &str = "uidl-keep.";

/// A Maildir that mail is brought into.
pub(super) struct Target {
    pub(super) top: OwnedFd,
    tmp: OwnedFd,
    new: OwnedFd,
    cur: OwnedFd,
    /// The account that everything in it belongs to.
    pub(super) owner: (u32, u32),
    mode: u32,
}

impl Target {
    /// Opens its directories, and sees whose they are.
    pub(super) fn open(top: OwnedFd) -> Result<Self, NotBrought> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |name: &str| {
            openat(&top, name, flags, Mode::empty()).map_err(|errno| {
                let error = CaptureError::io(name.as_bytes(), errno.into());
                NotBrought::Capture { side: "new", error }
            })
        };
        let (tmp, new, cur) = (open("tmp")?, open("new")?, open("cur")?);
        let stat = rustix::fs::fstat(&cur).map_err(|errno| fault(b"cur", errno.into(), 0))?;
        // As Dovecot gives a message the mode of its directory.
        let mode = stat.st_mode & 0o666 | 0o600;
        Ok(Self { owner: (stat.st_uid, stat.st_gid), mode, top, tmp, new, cur })
    }

    /// Brings one message. `false`: it has gone from where it was. `brought` is for errors: how
    /// many have been.
    pub(super) fn deliver(
        &self,
        from: &Maildir,
        message: &MessageFile,
        journal: &mut LateJournal,
        brought: usize,
    ) -> Result<bool, NotBrought> {
        let at = |error| fault(&message.name, error, brought);
        let beside = beside(message);
        // Where it is noted, the run that was ended had written all of it.
        if journal.noted(&message.base) != Some(HowFar::Begun) {
            let opened = from.open_message(message);
            let opened = opened.map_err(|error| NotBrought::Unreadable { error, brought })?;
            let Some(file) = opened else { return Ok(false) };
            if let Err(error) = self.write(&beside, file) {
                let _ = unlinkat(&self.tmp, &*beside, AtFlags::empty());
                return Err(at(error));
            }
            journal.note(&message.base, HowFar::Begun, brought)?;
        }
        let (folder, name) = match message.folder {
            Folder::Cur => (self.cur.as_fd(), with_own_flags(&message.name)),
            Folder::New | Folder::Top => (self.new.as_fd(), message.name.to_vec()),
        };
        match self.put(&beside, folder, &name) {
            Ok(()) => {}
            // Somebody has brought it meanwhile.
            Err(Errno::EXIST) => {
                unlinkat(&self.tmp, &*beside, AtFlags::empty()).map_err(|e| at(e.into()))?;
            }
            Err(errno) => return Err(at(errno.into())),
        }
        rustix::fs::fsync(folder).map_err(|errno| at(errno.into()))?;
        journal.note(&message.base, HowFar::Brought, brought)?;
        Ok(true)
    }

    /// Says whether a message lies in `tmp` that an ended run was about to put in its place.
    pub(super) fn has_in_tmp(&self, message: &MessageFile) -> Result<bool, NotBrought> {
        let beside = beside(message);
        match rustix::fs::statat(&self.tmp, &*beside, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(fault(&message.name, errno.into(), 0)),
        }
    }

    /// Writes a message to `tmp`, whole.
    fn write(&self, beside: &str, mut from: File) -> io::Result<()> {
        match unlinkat(&self.tmp, beside, AtFlags::empty()) {
            // A run that was ended has left it.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&self.tmp, beside, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let metadata = from.metadata()?;
        let copied = io::copy(&mut from, &mut file)?;
        if copied != metadata.len() {
            let why = format!("{copied} of {} octets could be read", metadata.len());
            return Err(io::Error::other(why));
        }
        let (uid, gid) = self.owner;
        fchown(&file, Some(uid), Some(gid))?;
        file.set_permissions(Permissions::from_mode(self.mode))?;
        // IMAP shows it as the time of arrival.
        file.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        file.sync_all()?;
        rustix::fs::fsync(&self.tmp)?;
        Ok(())
    }

    /// Moves it to its place, over nothing.
    fn put(&self, beside: &str, folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let name = std::ffi::OsStr::from_bytes(name);
        match renameat_with(&self.tmp, beside, folder, name, RenameFlags::NOREPLACE) {
            // NFS, for one, cannot. A link does not replace anything either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(&self.tmp, beside, folder, name, AtFlags::empty())?;
                unlinkat(&self.tmp, beside, AtFlags::empty())
            }
            renamed => renamed,
        }
    }
}

/// The name of a message in `tmp`. It is always the same, so that the next run finds it.
fn beside(message: &MessageFile) -> String {
    format!("{IN_TMP}{}", FileKey::of_name(&message.base))
}

/// A file name in `cur` without the flags that mean another keyword in each Maildir: the letters
/// from `a` to `z`, which Dovecot explains in `dovecot-keywords`.
fn with_own_flags(name: &[u8]) -> Vec<u8> {
    let info = memchr::memmem::find(name, b":2,").map_or(name.len(), |at| at + 3);
    let flags = name[info..].iter().filter(|flag| !flag.is_ascii_lowercase());
    name[..info].iter().chain(flags).copied().collect()
}

fn fault(name: &[u8], error: io::Error, brought: usize) -> NotBrought {
    NotBrought::Write { name: printable(name), error, brought }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_mean_the_same_everywhere_are_kept() {
        assert_eq!(with_own_flags(b"1.a.host,S=3:2,FRSab"), b"1.a.host,S=3:2,FRS");
        assert_eq!(with_own_flags(b"1.a.host:2,"), b"1.a.host:2,");
        assert_eq!(with_own_flags(b"1.a.host"), b"1.a.host");
    }
}
