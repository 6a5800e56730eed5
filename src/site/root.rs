//! The root directory that site files are looked up from: [`Root`].
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A root directory that the process keeps open while a chroot gives it another.
///
/// Each open looks the name up again below this root. So it sees what was mounted, put back or
/// replaced meanwhile. It uses the rights that the process has at that time: it opens nothing that
/// these rights would not open without the chroot.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens a directory and keeps it open, for example `/`.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be opened.
    pub fn hold(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(dir, flags, Mode::empty())?))
    }

    /// Whether the process now has another root directory.
    pub fn is_left(&self) -> bool {
        let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let (held, now) = (rustix::fs::fstat(&self.0), rustix::fs::stat("/"));
        held.map(place).ok() != now.map(place).ok()
    }

    /// Opens the file of this name below it. An absolute link on the way begins here too, and not
    /// at the root of a chroot, where the user could put files.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // Linux before 5.6 says the one; containers with a filter that does not know the call
            // say the other.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags),
            opened => opened,
        }
    }

    /// The same, for a kernel that cannot do it. No link is followed on the way.
    pub(super) fn walk(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut names = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            Component::ParentDir => Some("..".as_ref()),
            _ => None,
        });
        let last = names.next_back().unwrap_or(".".as_ref());
        let mut at = rustix::fs::openat(&self.0, ".", step, Mode::empty())?;
        for name in names {
            at = rustix::fs::openat(&at, name, step, Mode::empty())?;
        }
        rustix::fs::openat(&at, last, flags | OFlags::NOFOLLOW, Mode::empty())
    }
}

pub(super) fn open(root: Option<&Root>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    match root {
        Some(root) => root.open(path, flags),
        None => rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
    }
}

/// Whether something has this name. A link is not followed.
pub(super) fn is_there(root: Option<&Root>, path: &Path) -> io::Result<bool> {
    match open(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
