//! The root directory that site files are looked up from: [`Root`].
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A root directory, held on to while a chroot gives the process another.
///
/// What is opened from it is looked up by its name each time, so that what is mounted, put back or
/// replaced meanwhile is seen, and with the rights that the process has then: it opens nothing that
/// they would not, were there no chroot.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Takes hold of a directory, to begin with `/`.
    ///
    /// # Errors
    ///
    /// Why it cannot be opened.
    pub fn hold(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(dir, flags, Mode::empty())?))
    }

    /// Whether the process has another root directory by now.
    pub fn is_left(&self) -> bool {
        let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let (held, now) = (rustix::fs::fstat(&self.0), rustix::fs::stat("/"));
        held.map(place).ok() != now.map(place).ok()
    }

    /// Opens what has this name below it. An absolute link on the way begins here too, not where a
    /// chroot ends: what lies there is the user's.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // Linux before 5.6, and containers whose filter has never heard of it.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags),
            opened => opened,
        }
    }

    /// The same, where the kernel cannot: then no link is followed on the way.
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

/// Whether there is something of this name. A link is not followed.
pub(super) fn is_there(root: Option<&Root>, path: &Path) -> io::Result<bool> {
    match open(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
