//! Reading an mbox that is in use.
//!
//! The file is read until it was the same before and after, while nobody held its lock,
//! `NAME.lock`. We do not lock it, for that would change the old server.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::AtFlags;

use crate::capture::disk::mbox::server::MboxServer;
use crate::capture::disk::mbox::split::{Unsplit, split};
use crate::capture::disk::steady::until_steady;
use crate::capture::draft::Draft;
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::keys::Keys;
use crate::capture::users_files::open_mbox;
use crate::text::printable;

/// Opens the mbox at `source`.
pub(in crate::capture::disk) fn open(source: &Source) -> Result<File, CaptureError> {
    let (directory, name) = source.open_holder()?;
    open_mbox(directory.as_fd(), name.as_bytes())
}

/// Captures the mbox at `source`.
pub(in crate::capture::disk) fn capture(
    server: &MboxServer,
    keys: Keys,
    source: &Source,
) -> Result<Draft, CaptureError> {
    let (directory, name) = source.open_holder()?;
    let (directory, name) = (directory.as_fd(), name.as_os_str());
    let mut is_locked = false;
    let messages = until_steady(|_| {
        is_locked = holds_mail_back(server, directory, name)?;
        if is_locked {
            return Ok(None);
        }
        let file = open_mbox(directory, name.as_bytes())?;
        let before = stamp(&file, name)?;
        let messages = split(&file, server.rules()).map_err(|error| match error {
            Unsplit::Io(error) => CaptureError::io(name.as_bytes(), error),
            other => CaptureError::Source(format!("{}: {other}", printable(name.as_bytes()))),
        });
        let now = open_mbox(directory, name.as_bytes()).and_then(|file| stamp(&file, name))?;
        is_locked = holds_mail_back(server, directory, name)?;
        if is_locked || now != before {
            return Ok(None);
        }
        messages.map(Some)
    });
    let messages = messages.map_err(|error| match error {
        CaptureError::Unstable { .. } if is_locked => {
            CaptureError::Locked { name: printable(name.as_bytes()) }
        }
        other => other,
    })?;
    server.draft(&messages, keys)
}

/// The values that change when a file does: device, inode, size, and the times of writing and of
/// change.
type MboxStamp = (u64, u64, u64, [i64; 4]);

fn stamp(file: &File, name: &OsStr) -> Result<MboxStamp, CaptureError> {
    let metadata = file.metadata().map_err(|error| CaptureError::io(name.as_bytes(), error))?;
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    Ok((metadata.dev(), metadata.ino(), metadata.len(), times))
}

/// Whether somebody writes to the mbox, or keeps its mail elsewhere for now: the file then lacks
/// mail of the maildrop.
fn holds_mail_back(
    server: &MboxServer,
    directory: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<bool, CaptureError> {
    let size_of = |name: &[u8]| {
        let stat =
            rustix::fs::statat(directory, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW);
        match stat {
            Ok(stat) => Ok(Some(stat.st_size)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(CaptureError::io(name, errno.into())),
        }
    };
    if size_of(&[name.as_bytes(), b".lock"].concat())?.is_some() {
        return Ok(true);
    }
    // Qpopper moves the mail there for the time of a session; an empty one may stay.
    let drop = [b".", name.as_bytes(), b".pop"].concat();
    Ok(*server == MboxServer::Qpopper && size_of(&drop)?.is_some_and(|octets| octets > 0))
}
