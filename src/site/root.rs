//! The root directory that site files are looked up from: [`Root`]; and which links are followed on
//! the way.
//!
//! A site lies in one place, and a symbolic link stands there where it really lies elsewhere. So
//! links are followed, but only those that root made where nobody else can put one: both the link
//! and the directory that has it are root's, and nobody else may write that directory. To the
//! helper, links of its own user are as good, for he named the site.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A root directory that the process keeps open while a chroot gives it another.
///
/// Each open looks the name up again below this root. So it sees what was mounted, put back or
/// replaced meanwhile. It uses the rights that the process has at that time: it opens nothing that
/// these rights would not open without the chroot.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// The reason why a file of a site was not opened.
#[derive(Debug)]
pub(super) enum Unreached {
    /// The system's error.
    System(Errno),
    /// A link on the way is not followed.
    Link {
        /// Where it stands.
        link: PathBuf,
        /// Who owns the link, or its directory, and should not.
        uid: u32,
    },
    /// A link on the way is not followed: others may write the directory that it stands in.
    Writable {
        /// Where it stands.
        link: PathBuf,
    },
}

impl From<Errno> for Unreached {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Which links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// None.
    None,
    /// Those of root.
    OfRoot,
    /// Those of root, and those of whoever runs this process.
    OfRootAndOurs,
}

/// More links than this are a loop: as many as Linux follows.
const MOST_LINKS: usize = 40;

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

    /// Opens the file of this name below it. An absolute link on the way begins here too, and not
    /// at the root of a chroot, where the user could put files.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Unreached> {
        match open_without_links(self.0.as_fd(), path, flags, ResolveFlags::IN_ROOT) {
            Ok(opened) => Ok(opened),
            Err(errno) if may_walk(errno) => self.walk(path, flags, Follow::OfRoot),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same, step by step: links are looked at before they are followed, and it needs nothing
    /// of a new kernel. The last name is not followed where the flags say `NOFOLLOW`.
    pub(super) fn walk(
        &self,
        path: &Path,
        flags: OFlags,
        follow: Follow,
    ) -> Result<OwnedFd, Unreached> {
        Ok(self.walk_to(path, flags, follow)?.0)
    }

    /// The same, and the path of what was opened, without the links that were followed.
    pub(super) fn walk_to(
        &self,
        path: &Path,
        flags: OFlags,
        follow: Follow,
    ) -> Result<(OwnedFd, PathBuf), Unreached> {
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |at: BorrowedFd<'_>, name: &OsStr, flags: OFlags| {
            rustix::fs::openat(at, name, flags | OFlags::CLOEXEC, Mode::empty())
        };
        // The directories down to where we are, which has the path `place`.
        let mut dirs: Vec<OwnedFd> = Vec::new();
        let mut place = PathBuf::from("/");
        let mut left = names_of(path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                // Nothing is above the root.
                dirs.pop();
                place.pop();
                continue;
            }
            let at = dirs.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let is_last = left.is_empty();
            if is_last && (flags.contains(OFlags::NOFOLLOW) || follow == Follow::None) {
                let opened = open(at, &name, flags | OFlags::NOFOLLOW)?;
                return Ok((opened, place.join(name)));
            }
            let next = open(at, &name, step)?;
            let stat = rustix::fs::fstat(&next)?;
            place.push(&name);
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                if is_last {
                    // What stands there now is opened, and no link that came meanwhile.
                    return Ok((open(at, &name, flags | OFlags::NOFOLLOW)?, place));
                }
                dirs.push(next);
                continue;
            }
            links += 1;
            if follow == Follow::None || links > MOST_LINKS {
                return Err(if is_last { Errno::LOOP } else { Errno::NOTDIR }.into());
            }
            let dir = rustix::fs::fstat(at)?;
            for uid in [stat.st_uid, dir.st_uid] {
                if !follow.trusts(uid) {
                    return Err(Unreached::Link { link: place, uid });
                }
            }
            if dir.st_mode & 0o022 != 0 {
                return Err(Unreached::Writable { link: place });
            }
            let target = rustix::fs::readlinkat(&next, "", Vec::new())?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            place.pop();
            if target.is_absolute() {
                dirs.clear();
                place = PathBuf::from("/");
            }
            left.extend(names_of(&target));
        }
        // The path ends in a directory that we are in.
        let at = dirs.last().map_or(self.0.as_fd(), AsFd::as_fd);
        Ok((open(at, OsStr::new("."), flags)?, place))
    }
}

impl Follow {
    fn trusts(self, uid: u32) -> bool {
        match self {
            Self::None => false,
            Self::OfRoot => uid == 0,
            Self::OfRootAndOurs => uid == 0 || uid == rustix::process::geteuid().as_raw(),
        }
    }
}

/// The names of a path, the last one first.
fn names_of(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

/// Opens a file, if there is no link on the way to it.
fn open_without_links(
    at: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = resolve | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(at, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Whether another try step by step may open what was not opened at once. There is a link; or the
/// kernel is older than 5.6; or a container has a filter that does not know the call.
fn may_walk(errno: Errno) -> bool {
    [Errno::LOOP, Errno::NOSYS, Errno::PERM].contains(&errno)
}

/// Opens a file of a site. Without a root, the path is one of this process, and the site is one
/// that its user has named.
pub(super) fn open(root: Option<&Root>, path: &Path, flags: OFlags) -> Result<OwnedFd, Unreached> {
    if let Some(root) = root {
        return root.open(path, flags);
    }
    match open_without_links(CWD, path, flags, ResolveFlags::empty()) {
        Ok(opened) => Ok(opened),
        Err(errno) if may_walk(errno) => {
            let (root, path) = from_the_root(path)?;
            root.walk(&path, flags, Follow::OfRootAndOurs)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The root directory of this process, and a path from there.
pub(super) fn from_the_root(path: &Path) -> Result<(Root, PathBuf), Errno> {
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let root = Root::hold(Path::new("/")).map_err(errno)?;
    Ok((root, std::path::absolute(path).map_err(errno)?))
}

/// Whether something has this name. A link is not followed.
pub(super) fn is_there(root: Option<&Root>, path: &Path) -> Result<bool, Unreached> {
    match open(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Unreached::System(Errno::NOENT)) => Ok(false),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A root with a file in `a/b`, and links to it.
    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "").unwrap();
        for (link, target) in [
            ("link", "/a/b"),
            ("relative", "a/../a/b"),
            ("a/up", "../../../a/b"),
            ("twice", "relative"),
            ("to-file", "a/b/file"),
            ("dangling", "/a/none"),
            ("loop", "loop"),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        let root = Root::hold(dir.path()).unwrap();
        (dir, root)
    }

    fn errno(opened: Result<OwnedFd, Unreached>) -> Errno {
        match opened.unwrap_err() {
            Unreached::System(errno) => errno,
            why => panic!("{why:?}"),
        }
    }

    #[test]
    fn a_walk_that_follows_nothing_refuses_links_and_finds_the_rest() {
        let (_dir, root) = tree();
        let walk = |path: &str, flags| root.walk(Path::new(path), flags, Follow::None);
        for path in ["/a/b/file", "/a/b", "/a/../a/b/file", "/", "/a/.."] {
            walk(path, OFlags::PATH).unwrap();
        }
        assert_eq!(errno(walk("/link/file", OFlags::RDONLY)), Errno::NOTDIR);
        assert_eq!(errno(walk("/link", OFlags::RDONLY)), Errno::LOOP);
        assert_eq!(errno(walk("/a/none/file", OFlags::RDONLY)), Errno::NOENT);
    }

    /// The test's own user made the links.
    #[test]
    fn a_walk_follows_the_links_of_ours_from_the_root_that_is_held() {
        let (_dir, root) = tree();
        let walk = |path: &str, flags| root.walk(Path::new(path), flags, Follow::OfRootAndOurs);
        for path in ["/link/file", "/relative/file", "/a/up/file", "/twice/file", "/to-file"] {
            let file = fs::File::from(walk(path, OFlags::RDONLY).unwrap());
            assert!(file.metadata().unwrap().is_file(), "{path}");
        }
        for path in ["/link", "/twice/..", "/a/up"] {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            walk(path, flags).unwrap_or_else(|why| panic!("{path}: {why:?}"));
        }
        assert_eq!(errno(walk("/dangling/file", OFlags::RDONLY)), Errno::NOENT);
        assert_eq!(errno(walk("/dangling", OFlags::PATH)), Errno::NOENT);
        assert_eq!(errno(walk("/loop/file", OFlags::RDONLY)), Errno::NOTDIR);
        assert_eq!(errno(walk("/to-file/file", OFlags::RDONLY)), Errno::NOTDIR);
        // Whoever opens the file itself does not want a link.
        let last = OFlags::RDONLY | OFlags::NOFOLLOW;
        assert_eq!(errno(walk("/to-file", last)), Errno::LOOP);
        walk("/link/file", last).unwrap();
    }

    #[test]
    fn what_others_could_have_put_there_is_not_followed() {
        let (dir, root) = tree();
        let open = |path: &str| root.walk(Path::new(path), OFlags::PATH, Follow::OfRootAndOurs);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        match open("/link/file").unwrap_err() {
            Unreached::Writable { link } => assert_eq!(link, Path::new("/link")),
            why => panic!("{why:?}"),
        }
        open("/a/b/file").expect("no link is on the way");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        open("/link/file").unwrap();
        if !rustix::process::geteuid().is_root() {
            let ours = rustix::process::geteuid().as_raw();
            match root.walk(Path::new("/link/file"), OFlags::PATH, Follow::OfRoot).unwrap_err() {
                Unreached::Link { link, uid } => assert_eq!((link, uid), ("/link".into(), ours)),
                why => panic!("{why:?}"),
            }
            return;
        }
        root.walk(Path::new("/link/file"), OFlags::PATH, Follow::OfRoot).unwrap();
        for (path, is_link) in [(dir.path().join("link"), true), (dir.path().to_owned(), false)] {
            let (stranger, root_again) = (Some(12_345), Some(0));
            std::os::unix::fs::lchown(&path, stranger, None).unwrap();
            for follow in [Follow::OfRoot, Follow::OfRootAndOurs] {
                match root.walk(Path::new("/link/file"), OFlags::PATH, follow).unwrap_err() {
                    Unreached::Link { link, uid } => {
                        assert_eq!((link, uid), ("/link".into(), 12_345), "{is_link}");
                    }
                    why => panic!("{why:?}"),
                }
            }
            std::os::unix::fs::lchown(&path, root_again, None).unwrap();
        }
    }
}
