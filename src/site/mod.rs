//! The site directory: where the index and roster of a user are. [`Site`].
//!
//! ```text
//! /var/lib/uidl-keep/            root, 0711
//!     domain/example.com.idx     what was captured of all of example.com
//!     domain/example.com.roster  who of example.com was migrated
//!     user/alice.idx             the same for a login without a domain
//!     user/alice.roster
//!     user/bob@example.org.idx   for a user of a domain that shares no group: 0400, his own
//!     user/bob@example.org.roster
//! ```
//!
//! Files of a user's own go before those of his domain, and he is in one of the two.
//!
//! A user who is not on a roster is none of our business, and finding that out costs one open that
//! fails. That answer must not come from a file system that is not mounted, nor from a roster that was
//! lost: so when there is no roster, the directory that would hold it must be there all the same, and
//! no index be in it that goes with it. `uidl-keep build` makes both
//! directories; `install -d -m 0711 /var/lib/uidl-keep /var/lib/uidl-keep/domain
//! /var/lib/uidl-keep/user` makes an empty site. A directory that has nothing of a site is an empty
//! site too, as long as nothing is to be mounted there: see [`Site::open_roster`].
//!
//! A process that has left its root directory by chroot finds the site from a [`Root`] that it took
//! hold of before.
#![forbid(unsafe_code)]

pub mod remedy;
pub mod roster;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A site directory.
#[derive(Debug, Clone)]
pub struct Site {
    dir: PathBuf,
    root: Option<&'static Root>,
}

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
    fn walk(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
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

/// Whose files: those of a domain, or of one login that has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All users of this domain.
    Domain(String),
    /// This user alone.
    User(String),
}

/// The files of a [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The index.
    pub index: PathBuf,
    /// The roster.
    pub roster: PathBuf,
}

/// Why a file of a site could not be opened. None of these means that a user was not migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no site here: not made, or not mounted.
    #[error("no directory {}: make the site, or mount it", dir.display())]
    NoSite {
        /// The directory that is not there.
        dir: PathBuf,
    },
    /// There is no roster, and the index that goes with it is there: the roster was lost.
    #[error("not there, but its index is: {}", index.display())]
    NoRoster {
        /// The index.
        index: PathBuf,
    },
    /// A symbolic link.
    #[error("a symbolic link, and links are not followed here")]
    Link,
    /// Something else than a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// It belongs to somebody who may not write it.
    #[error("owned by uid {uid}, and should be by root")]
    Owner {
        /// Whose it is.
        uid: u32,
    },
    /// Others than its owner may write it.
    #[error("mode {mode:04o} lets group or others write it")]
    Writable {
        /// Its permissions.
        mode: u32,
    },
    /// Larger than anything of ours.
    #[error("{len_octets} octets, more than {most}")]
    TooLarge {
        /// Its size.
        len_octets: u64,
        /// The most it may have.
        most: u64,
    },
    /// Could not be opened, for this reason.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The longest name of a domain or user that makes a file name, with room for what is added to it:
/// `NAME.roster.new` within the 255 octets of NAME_MAX.
const MAX_STEM_OCTETS: usize = 255 - ".roster.new".len();

impl Scope {
    /// Where `user` belongs: the domain is what follows the last `@`.
    ///
    /// `None` when no file can have that name (it is empty, starts with a dot, has a `/` or NUL, or
    /// is too long): such a user cannot be in any site.
    pub fn of(user: &str) -> Option<Self> {
        let (stem, place): (_, fn(String) -> Self) = match user.rsplit_once('@') {
            Some((_, domain)) => (domain, Self::Domain),
            None => (user, Self::User),
        };
        is_stem(stem).then(|| place(stem.to_owned()))
    }

    /// The files that a user of a domain may have for himself. `None` for a login without a domain,
    /// which has none but these, and where no file can have that name.
    pub fn own(user: &str) -> Option<Self> {
        (user.contains('@') && is_stem(user)).then(|| Self::User(user.to_owned()))
    }

    /// Whether a user can be there.
    pub fn fits(&self, user: &str) -> bool {
        [Self::own(user), Self::of(user)].iter().any(|place| place.as_ref() == Some(self))
    }

    /// The domain's or the user's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Domain(name) | Self::User(name) => name,
        }
    }

    /// The directory of the site that has its files.
    pub fn directory(&self) -> &'static str {
        match self {
            Self::Domain(_) => "domain",
            Self::User(_) => "user",
        }
    }
}

/// Whether files can be named after it.
fn is_stem(stem: &str) -> bool {
    !stem.is_empty()
        && stem.len() <= MAX_STEM_OCTETS
        && !stem.starts_with('.')
        && !stem.contains(['/', '\0'])
}

impl Site {
    /// Where a site is unless the operator says otherwise.
    pub const DEFAULT_DIR: &str = "/var/lib/uidl-keep";

    /// The largest roster: tens of millions of users.
    const MOST_ROSTER_OCTETS: u64 = 1 << 32;
    /// The largest index.
    const MOST_INDEX_OCTETS: u64 = 1 << 44;
    /// More than any `/etc/fstab` has.
    const MOST_FSTAB_OCTETS: u64 = 1 << 20;
    /// What the helper makes in a site: builds the directories, and what changes it the files.
    const CONTENT: [&str; 4] = ["domain", "user", ".lock", "changes.log"];

    /// The site in a directory. Looks at nothing yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), root: None }
    }

    /// The site in a directory below that root, wherever the process's own is.
    pub fn below(root: &'static Root, dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), root: Some(root) }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a user's maildrop is, if it is: in files of his own where there is one, and else in
    /// those of [`Scope::of`]; `None` when it cannot be in any site. Cost, for a user of a domain:
    /// two `stat`, and one of the directory.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: could not tell.
    pub fn place_of(&self, user: &str) -> Result<Option<Scope>, OpenError> {
        if let Some(own) = Scope::own(user) {
            let Paths { index, roster } = self.paths_of(&own);
            let root = self.root;
            for path in [&roster, &index] {
                if is_there(root, path)? {
                    return Ok(Some(own));
                }
            }
            absent(root, &roster)?;
        }
        Ok(Scope::of(user))
    }

    /// The files that a user's maildrop is in, as [`Site::place_of`] says; as [`Scope::of`] says,
    /// where that cannot tell.
    pub fn paths(&self, user: &str) -> Option<Paths> {
        let place = self.place_of(user).unwrap_or_else(|_| Scope::of(user));
        place.map(|place| self.paths_of(&place))
    }

    /// The files of a place.
    pub fn paths_of(&self, place: &Scope) -> Paths {
        let dir = self.dir.join(place.directory());
        let path = |extension| dir.join(format!("{}.{extension}", place.name()));
        Paths { index: path("idx"), roster: path("roster") }
    }

    /// Opens the roster that would name a user. `None` means that there is neither roster nor
    /// index, and so that the user was never migrated. Cost: that of [`Site::place_of`] and one
    /// open; when that fails, a `stat` of the directory and one of the index.
    ///
    /// There is nobody either in a directory that is there and has nothing of a site in it, neither
    /// `domain` nor `user`, both of which each build makes, nor a file of the helper's. Such is a
    /// mount point too, while nothing is mounted; where `/etc/fstab` says that something is to be,
    /// that is told apart.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: could not tell.
    pub fn open_roster(&self, user: &str) -> Result<Option<File>, OpenError> {
        match self.open_roster_of_site(user) {
            Err(OpenError::NoSite { .. }) if self.is_bare()? && !self.awaits_mount()? => Ok(None),
            opened => opened,
        }
    }

    /// The same in a site that has what a site has.
    fn open_roster_of_site(&self, user: &str) -> Result<Option<File>, OpenError> {
        let Some(place) = self.place_of(user)? else { return Ok(None) };
        let Paths { index, roster } = self.paths_of(&place);
        let root = self.root;
        match open_trusted_below(root, &roster, Self::MOST_ROSTER_OCTETS) {
            Ok(None) if is_there(root, &index)? => Err(OpenError::NoRoster { index }),
            opened => opened,
        }
    }

    /// Whether its directory is there, and nothing of ours in it.
    fn is_bare(&self) -> io::Result<bool> {
        for name in Self::CONTENT {
            if is_there(self.root, &self.dir.join(name))? {
                return Ok(false);
            }
        }
        let own;
        let root = match self.root {
            Some(root) => root,
            None => {
                own = Root::hold(Path::new("/"))?;
                &own
            }
        };
        match root.walk(&self.dir, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => Ok(true),
            // By a link it may be anywhere, and `/etc/fstab` names it otherwise.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `/etc/fstab` has the directory, or one above it, for a mount point on which nothing
    /// is mounted.
    fn awaits_mount(&self) -> io::Result<bool> {
        let root = self.root;
        let mut fstab = Vec::new();
        match open(root, Path::new("/etc/fstab"), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => {
                File::from(file).take(Self::MOST_FSTAB_OCTETS).read_to_end(&mut fstab)?;
            }
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let device = |path: &Path| -> io::Result<u64> {
            let place = open(root, path, OFlags::PATH)?;
            Ok(File::from(place).metadata()?.dev())
        };
        for dir in self.dir.ancestors() {
            let Some(parent) = dir.parent() else { break };
            let is_named = fstab.split(|&octet| octet == b'\n').any(|line| {
                let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                let mut words = words.take_while(|word| word[0] != b'#');
                words.nth(1).is_some_and(|place| unescaped(place) == dir.as_os_str().as_bytes())
            });
            if is_named && device(dir)? == device(parent)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens the index that holds a user's maildrop. `None` means that there is none; if a roster
    /// names the user, that is a fault.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: could not tell.
    pub fn open_index(&self, user: &str) -> Result<Option<File>, OpenError> {
        match self.place_of(user)? {
            Some(place) => {
                let index = self.paths_of(&place).index;
                open_trusted_below(self.root, &index, Self::MOST_INDEX_OCTETS)
            }
            None => Ok(None),
        }
    }
}

/// A mount point as `/etc/fstab` has it: a slash at its end says nothing, and a blank is `\040`.
fn unescaped(place: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut left = place;
    while let [first, rest @ ..] = left {
        let octal = rest.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(octet) => {
                plain.push(octet);
                left = &rest[3..];
            }
            None => {
                plain.push(*first);
                left = rest;
            }
        }
    }
    while plain.len() > 1 && plain.ends_with(b"/") {
        plain.pop();
    }
    plain
}

fn open(root: Option<&Root>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    match root {
        Some(root) => root.open(path, flags),
        None => rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
    }
}

/// Whether there is something of this name. A link is not followed.
fn is_there(root: Option<&Root>, path: &Path) -> io::Result<bool> {
    match open(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file of a site to read it, without following a link and without waiting for anything.
///
/// What is opened is then looked at: a regular file of root's or our own, which nobody else may
/// write, not larger than `most` octets. Root also takes what root gave to one account, 0400:
/// others put nothing into a site, and whoever changed his own file could lie about himself alone.
/// `None` when there is no such file but its directory is there.
///
/// # Errors
///
/// [`OpenError`]: could not tell.
pub fn open_trusted(path: &Path, most: u64) -> Result<Option<File>, OpenError> {
    open_trusted_below(None, path, most)
}

fn open_trusted_below(
    root: Option<&Root>,
    path: &Path,
    most: u64,
) -> Result<Option<File>, OpenError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = match open(root, path, flags).map_err(io::Error::from) {
        Ok(file) => File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return absent(root, path),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(OpenError::Link),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(OpenError::NotAFile);
    }
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let reader = rustix::process::geteuid().as_raw();
    if uid != 0 && uid != reader && (reader != 0 || mode != 0o400) {
        return Err(OpenError::Owner { uid });
    }
    if mode & 0o022 != 0 {
        return Err(OpenError::Writable { mode });
    }
    if metadata.len() > most {
        return Err(OpenError::TooLarge { len_octets: metadata.len(), most });
    }
    Ok(Some(file))
}

/// What it means that `path` is not there.
fn absent(root: Option<&Root>, path: &Path) -> Result<Option<File>, OpenError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    match open(root, dir, OFlags::PATH) {
        Ok(_) => Ok(None),
        Err(Errno::NOENT) => Err(OpenError::NoSite { dir: dir.into() }),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_belongs_to_what_follows_the_last_at_sign() {
        let domain = |name: &str| Some(Scope::Domain(name.into()));
        assert_eq!(Scope::of("alice@example.com"), domain("example.com"));
        assert_eq!(Scope::of("odd@local@example.com"), domain("example.com"));
        assert_eq!(Scope::of("a/../b@example.com"), domain("example.com"));
        assert_eq!(Scope::of("alice"), Some(Scope::User("alice".into())));
        let site = Site::new("/s");
        assert_eq!(
            site.paths("alice@example.com").unwrap(),
            Paths {
                index: "/s/domain/example.com.idx".into(),
                roster: "/s/domain/example.com.roster".into()
            }
        );
        assert_eq!(site.paths("alice").unwrap().roster, Path::new("/s/user/alice.roster"));
    }

    #[test]
    fn a_name_that_no_file_can_have_is_in_no_site() {
        let long = "x".repeat(MAX_STEM_OCTETS + 1);
        for name in ["", ".", "..", ".x", "a/b", "/", "a\0b", &long] {
            assert_eq!(Scope::of(name), None, "{name:?}");
            assert_eq!(Scope::of(&format!("alice@{name}")), None, "alice@{name:?}");
        }
        assert!(Scope::of(&long[1..]).is_some());
        let name = format!("{}.roster.new", &long[1..]);
        assert_eq!(name.len(), 255);
    }

    #[test]
    fn without_openat2_links_are_refused_and_the_rest_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink("/a/b", dir.path().join("link")).unwrap();
        let root = Root::hold(dir.path()).unwrap();
        for path in ["/a/b/file", "/a/b", "/a/../a/b/file", "/"] {
            root.walk(Path::new(path), OFlags::PATH).unwrap();
        }
        let walk = |path: &str| root.walk(Path::new(path), OFlags::RDONLY).unwrap_err();
        assert_eq!(walk("/link/file"), Errno::NOTDIR);
        assert_eq!(walk("/link"), Errno::LOOP);
        assert_eq!(walk("/a/none/file"), Errno::NOENT);
    }
}
