//! One run at a time: [`lock`] for the files of a site, [`open_alone`] for a file that grows.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::file::safe_open::{self, Unopened, regular};

/// The right to change the files of a site, until it is dropped or its process ends.
#[derive(Debug)]
pub struct SiteLock {
    _file: File,
}

/// The file of a site that [`lock`] locks.
pub const LOCK_NAME: &str = ".lock";

/// Takes the right to change the files of the site in `dir`; `None` when another process has it.
///
/// # Errors
///
/// The system's error.
pub fn lock(dir: &Path) -> io::Result<Option<SiteLock>> {
    let mut options = safe_open::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let (file, _) =
        regular(options.open(dir.join(LOCK_NAME))).map_err(|unopened| match unopened {
            Unopened::NotRegular(_) => io::Error::other(".lock is not a regular file; remove it"),
            unopened => unopened.into(),
        })?;
    Ok(lock_now(&file)?.then_some(SiteLock { _file: file }))
}

/// Opens a file that grows from run to run and that only one process at a time writes. While one
/// process has it open, every other gets `None`. A file that is not there is made, readable by
/// nobody else.
///
/// # Errors
///
/// The system's error; also when something other than a regular file is there, a symbolic link
/// included.
pub fn open_alone(path: &Path) -> io::Result<Option<File>> {
    // The holder may remove the file between two steps. Do not retry for ever.
    for _ in 0..16 {
        let mut options = safe_open::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let (file, _) = regular(options.open(path))?;
        if !lock_now(&file)? {
            return Ok(None);
        }
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Locks a file; `false` when another process has.
pub(super) fn lock_now(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Locks a file that is still at this path; `false` when another process has locked it, or removed
/// it.
pub(super) fn lock_at(file: &File, path: &Path) -> io::Result<bool> {
    Ok(lock_now(file)? && is_at(file, path)?)
}

/// Whether a path names this file.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes a lock that nobody means to hold, for tests. A child that another thread starts at this
/// moment has every open file, and with it the lock, until it runs its program.
#[cfg(test)]
pub(crate) fn once_free<T>(mut take: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(taken) = take() {
            return taken;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the lock is not free");
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_grows_has_one_writer_and_is_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.journal");
        let mut first = open_alone(&path).unwrap().unwrap();
        first.write_all(b"first").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert!(open_alone(&path).unwrap().is_none());
        drop(first);
        once_free(|| open_alone(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");

        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(open_alone(&link).is_err());
        assert!(open_alone(dir.path()).is_err());
    }

    #[test]
    fn the_lock_of_a_site_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let elsewhere = dir.path().join("elsewhere");
        symlink(&elsewhere, &path).unwrap();
        lock(dir.path()).unwrap_err();
        assert!(!elsewhere.exists());
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        lock(dir.path()).unwrap_err();
    }

    #[test]
    fn one_process_at_a_time_changes_a_site() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(dir.path()).unwrap().is_none());
        drop(first);
        once_free(|| lock(dir.path()).unwrap());
    }
}
