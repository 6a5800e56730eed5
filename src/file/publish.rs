//! Putting a file in its place whole: [`Staged`], then [`Sealed`].
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::file::lock::{is_at, lock_at, lock_now};
use crate::file::safe_open;

/// A file that is being written beside its place. Until it is published, a reader finds the old
/// file there, or none. Dropping this removes it.
///
/// The temporary name is always the same, so the next run removes what a killed run left. Therefore
/// only the holder of a [`lock`] on the directory calls [`Staged::create`].
///
/// [`lock`]: crate::file::lock::lock
#[derive(Debug)]
pub struct Staged {
    file: File,
    names: StagedNames,
}

/// A file that is whole, on the disk and closed, still beside its place. Dropping this removes it.
#[derive(Debug)]
pub struct Sealed {
    names: StagedNames,
}

#[derive(Debug)]
struct StagedNames {
    /// `None`: it has no name, and is never put in place.
    beside: Option<PathBuf>,
    path: PathBuf,
    published: bool,
    /// The lock of a file that [`Staged::create_alone`] made, held until the file has its final
    /// name.
    _lock: Option<File>,
}

/// Who may read a published file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its permissions.
    pub mode: u32,
    /// Its owner and group; `None` keeps those of this process.
    pub owner: Option<(u32, u32)>,
}

impl Staged {
    /// Begins a file for `path`, readable by nobody else yet.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn create(path: &Path) -> io::Result<Self> {
        let beside = beside(path, "", ".new")?;
        remove_if_there(&beside)?;
        let file = create_new(&beside)?;
        Ok(Self {
            file,
            names: StagedNames {
                beside: Some(beside),
                path: path.into(),
                published: false,
                _lock: None,
            },
        })
    }

    /// A file without a name, as a dry run writes it. It is for `path` and cannot be published: it
    /// is gone when it is closed.
    pub fn unplaced(file: File, path: &Path) -> Self {
        let names = StagedNames { beside: None, path: path.into(), published: false, _lock: None };
        Self { file, names }
    }

    /// As [`Staged::create`], for directories without a site [`lock`]. The temporary file itself is
    /// locked, so that a file left by a killed run can be told from one that another run is
    /// writing. `None`: another run is writing.
    ///
    /// # Errors
    ///
    /// The system's error.
    ///
    /// [`lock`]: crate::file::lock::lock
    pub fn create_alone(path: &Path) -> io::Result<Option<Self>> {
        let beside = beside(path, ".", ".uidl-keep")?;
        // Another run may remove the file between two steps. Do not retry for ever.
        for _ in 0..16 {
            let file = match create_new(&beside) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !remove_if_dead(&beside)? {
                        return Ok(None);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if lock_at(&file, &beside)? {
                // Both descriptors share one lock: it holds until both are closed.
                let names = StagedNames {
                    beside: Some(beside),
                    path: path.into(),
                    published: false,
                    _lock: Some(file.try_clone()?),
                };
                return Ok(Some(Self { file, names }));
            }
        }
        Ok(None)
    }

    /// The path that it is for.
    pub fn path(&self) -> &Path {
        &self.names.path
    }

    /// The file, to write and to read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Sets owner and permissions, waits until all of it is on the disk, and closes it. When there
    /// are several files, all are sealed before the first is published.
    ///
    /// # Errors
    ///
    /// The system's error. A full disk shows here at the latest: `close` could only report octets
    /// that were not yet on the disk.
    pub fn seal(self, access: Access) -> io::Result<Sealed> {
        if let Some((uid, gid)) = access.owner {
            fchown(&self.file, Some(uid), Some(gid))?;
        }
        // This comes after the owner, because changing the owner may take permissions away.
        self.file.set_permissions(Permissions::from_mode(access.mode))?;
        self.file.sync_all()?;
        Ok(Sealed { names: self.names })
    }
}

impl Sealed {
    /// The path that it is for.
    pub fn path(&self) -> &Path {
        &self.names.path
    }

    /// Puts it in its place, over whatever is there.
    ///
    /// # Errors
    ///
    /// The system's error. When only the last step fails, `fsync` of the directory, the file is in
    /// its place, but a power cut may still undo that.
    pub fn publish(self) -> io::Result<()> {
        let dir = self.dir();
        self.rename()?;
        File::open(dir)?.sync_all()
    }

    fn dir(&self) -> PathBuf {
        dir_of(self.path()).to_owned()
    }

    fn rename(mut self) -> io::Result<()> {
        let beside = self.names.beside.as_ref();
        let beside = beside.ok_or_else(|| io::Error::other("a file of a dry run has no place"))?;
        fs::rename(beside, &self.names.path)?;
        self.names.published = true;
        Ok(())
    }
}

/// Puts files in their places, one after the other, and syncs each directory once.
///
/// # Errors
///
/// As [`Sealed::publish`], with the path. The files before that one are in place; those after it
/// are removed.
pub fn publish_all(files: impl IntoIterator<Item = Sealed>) -> Result<(), (PathBuf, io::Error)> {
    let mut dirs = BTreeSet::new();
    for file in files {
        let path = file.path().to_owned();
        dirs.insert(file.dir());
        file.rename().map_err(|error| (path, error))?;
    }
    for dir in dirs {
        let synced = File::open(&dir).and_then(|opened| opened.sync_all());
        synced.map_err(|error| (dir, error))?;
    }
    Ok(())
}

impl Drop for StagedNames {
    fn drop(&mut self) {
        if let Some(beside) = self.beside.as_ref().filter(|_| !self.published) {
            let _ = fs::remove_file(beside);
        }
    }
}

/// The temporary name of a file: its own name between `before` and `after`.
fn beside(path: &Path, before: &str, after: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let beside: OsString = [OsStr::new(before), name, OsStr::new(after)].into_iter().collect();
    Ok(path.with_file_name(beside))
}

/// The directory that holds this path.
fn dir_of(path: &Path) -> &Path {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

/// Creates a file. It follows no link: the call fails when anything is there, a link included.
fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the temporary file of a killed run. `false` when another run is writing it.
fn remove_if_dead(path: &Path) -> io::Result<bool> {
    // Not a regular file: not ours, remove it unopened.
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return remove_if_there(path).map(|()| true);
    }
    let file = match safe_open::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    if !lock_now(&file)? {
        return Ok(false);
    }
    // Its writer may have published it meanwhile, and another may have begun.
    if is_at(&file, path)? {
        remove_if_there(path)?;
    }
    Ok(true)
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
    fn a_file_of_a_dry_run_is_never_put_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.idx");
        fs::write(&path, "old").unwrap();
        let staged = Staged::unplaced(tempfile::tempfile().unwrap(), &path);
        staged.file().write_all(b"new").unwrap();
        let sealed = staged.seal(PRIVATE).unwrap();
        assert_eq!(sealed.path(), path);
        sealed.publish().unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.idx"]);
    }

    #[test]
    fn when_one_cannot_be_put_in_place_those_after_it_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = ["a", "b", "c"]
            .map(|name| Staged::create(&dir.path().join(name)).unwrap().seal(PRIVATE).unwrap());
        fs::create_dir(dir.path().join("b")).unwrap();
        let (path, _) = publish_all(sealed).unwrap_err();
        assert_eq!(path, dir.path().join("b"));
        assert_eq!(names(dir.path()), ["a", "b"]);
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
    fn of_a_file_without_a_lock_what_is_being_written_is_told_from_what_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.listing");
        let create = || Staged::create_alone(&path).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, dir.path().join(".a.listing.uidl-keep")).unwrap();
        let first = create().unwrap();
        first.file().write_all(b"first").unwrap();
        assert!(create().is_none());
        let sealed = first.seal(PRIVATE).unwrap();
        assert!(create().is_none(), "whole, and not in its place yet");
        sealed.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");

        fs::write(dir.path().join(".a.listing.uidl-keep"), "half").unwrap();
        let second = create().unwrap();
        second.file().write_all(b"second").unwrap();
        drop(second);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["a.listing", "victim"]);
    }

    #[test]
    fn a_file_is_had_by_who_locks_it_while_it_is_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let create = || create_new(&path).unwrap();
        let ours = create();
        assert!(lock_at(&ours, &path).unwrap());
        let again = File::open(&path).unwrap();
        assert!(!lock_at(&again, &path).unwrap(), "locked by another");
        fs::remove_file(&path).unwrap();
        assert!(!lock_at(&ours, &path).unwrap(), "taken away");
        let other = create();
        assert!(!lock_at(&ours, &path).unwrap(), "another is in its place");
        assert!(lock_at(&other, &path).unwrap());
        assert!(lock_at(&other, &path.join("below")).is_err(), "cannot tell");
    }

    #[test]
    fn what_a_killed_run_left_may_be_gone_already_and_what_is_no_file_is_no_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("left");
        assert!(remove_if_dead(&path).unwrap());
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        assert!(remove_if_dead(&path).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
        fs::write(&path, "half").unwrap();
        remove_if_dead(&path.join("below")).unwrap_err();
        assert_eq!(names(dir.path()), ["left"]);
    }

    #[test]
    fn what_prevents_a_file_is_an_error_and_not_another_run() {
        let dir = tempfile::tempdir().unwrap();
        Staged::create_alone(&dir.path().join("missing/a")).unwrap_err();
        Staged::create(&dir.path().join("missing/a")).unwrap_err();
        for beside in [".a.uidl-keep", "a.new"] {
            fs::create_dir(dir.path().join(beside)).unwrap();
        }
        let is_dir = |error: io::Error| error.kind() == io::ErrorKind::IsADirectory;
        assert!(is_dir(Staged::create_alone(&dir.path().join("a")).unwrap_err()));
        assert!(is_dir(Staged::create(&dir.path().join("a")).unwrap_err()));
    }

    #[test]
    fn the_directory_that_is_synced_is_the_one_that_the_file_is_in() {
        assert_eq!(dir_of(Path::new("/site/a.idx")), Path::new("/site"));
        assert_eq!(dir_of(Path::new("site/a.idx")), Path::new("site"));
        assert_eq!(dir_of(Path::new("a.idx")), Path::new("."));
    }
}
