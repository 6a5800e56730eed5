//! Putting a file in its place whole: [`Staged`], [`Sealed`], and one run at a time: [`lock`].
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A file that is being written beside its place. Whoever opens the place meanwhile finds the old
/// file, or none. Dropped, it is gone.
///
/// The name beside it is always the same, so that what a killed run left is taken away by the next;
/// therefore only the holder of a [`lock`] on the directory makes one.
#[derive(Debug)]
pub struct Staged {
    file: File,
    names: Names,
}

/// A file that is whole, on the disk and closed, still beside its place. Dropped, it is gone.
#[derive(Debug)]
pub struct Sealed {
    names: Names,
}

#[derive(Debug)]
struct Names {
    beside: PathBuf,
    path: PathBuf,
    published: bool,
}

/// Who may read a published file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its permissions.
    pub mode: u32,
    /// Its owner and group; `None` leaves those of this process.
    pub owner: Option<(u32, u32)>,
}

impl Staged {
    /// Begins a file for `path`, readable by nobody else yet.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut beside = name.to_owned();
        beside.push(".new");
        let beside = path.with_file_name(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&beside)?;
        Ok(Self { file, names: Names { beside, path: path.into(), published: false } })
    }

    /// The file, to write and to read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Sets owner and permissions, waits until all of it is on the disk, and closes it. With several
    /// files, this is done for all of them before the first is published.
    ///
    /// # Errors
    ///
    /// What the system says. A full disk shows here at the latest: what `close` could still tell is
    /// about octets that were not yet on the disk.
    pub fn seal(self, access: Access) -> io::Result<Sealed> {
        if let Some((uid, gid)) = access.owner {
            fchown(&self.file, Some(uid), Some(gid))?;
        }
        // After the owner: changing that may take permissions away.
        self.file.set_permissions(Permissions::from_mode(access.mode))?;
        self.file.sync_all()?;
        Ok(Sealed { names: self.names })
    }
}

impl Sealed {
    /// The place it is for.
    pub fn path(&self) -> &Path {
        &self.names.path
    }

    /// Puts it in its place, over whatever is there.
    ///
    /// # Errors
    ///
    /// What the system says. When the last step, `fsync` of the directory, fails, the file is in its
    /// place, and may not be after a power cut.
    pub fn publish(mut self) -> io::Result<()> {
        fs::rename(&self.names.beside, &self.names.path)?;
        self.names.published = true;
        let dir = self.names.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// The right to change the files of a site, until it is dropped or its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the right to change the files of the site in `dir`; `None` when another process has it.
///
/// # Errors
///
/// What the system says.
pub fn lock(dir: &Path) -> io::Result<Option<Lock>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(dir.join(".lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::fs::symlink;

    use super::*;

    const PRIVATE: Access = Access { mode: 0o640, owner: None };

    fn names(dir: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.idx");
        let staged = Staged::create(&path).unwrap();
        staged.file().write_all(b"new").unwrap();
        assert!(!path.exists());
        drop(staged);
        assert_eq!(names(dir.path()), [""; 0]);

        fs::write(&path, "old").unwrap();
        let staged = Staged::create(&path).unwrap();
        staged.file().write_all(b"new").unwrap();
        let sealed = staged.seal(PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        sealed.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(names(dir.path()), ["a.idx"]);
    }

    #[test]
    fn what_a_killed_run_left_does_not_trip_the_next_nor_is_it_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.idx");
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, dir.path().join("a.idx.new")).unwrap();
        let staged = Staged::create(&path).unwrap();
        staged.file().write_all(b"new").unwrap();
        staged.seal(PRIVATE).unwrap().publish().unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn one_process_at_a_time_changes_a_site() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(dir.path()).unwrap().is_none());
        drop(first);
        assert!(lock(dir.path()).unwrap().is_some());
    }
}
