//! A site directory, and the files in it: [`Site`].
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, StatxAttributes, StatxFlags, statat, statx};
use rustix::io::Errno;

use crate::site::root::{Follow, Root, Unreached, from_the_root, is_there, open};
use crate::site::scope::Scope;
use crate::site::trusted::{OpenError, open_trusted_below};

/// A site directory.
#[derive(Debug, Clone)]
pub struct Site {
    dir: PathBuf,
    root: Option<&'static Root>,
}

/// The files of a [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The index.
    pub index: PathBuf,
    /// The roster.
    pub roster: PathBuf,
}

impl Site {
    /// The directory in which the plugin finds the site, or a link to it.
    pub const DEFAULT_DIR: &str = "/var/lib/uidl-keep";

    /// The largest roster: tens of millions of users.
    const MOST_ROSTER_OCTETS: u64 = 1 << 32;
    /// The largest index.
    const MOST_INDEX_OCTETS: u64 = 1 << 44;
    /// More than any `/etc/fstab` has.
    const MOST_FSTAB_OCTETS: u64 = 1 << 20;
    /// The names that stand in a site. A build makes the directories; each command that changes the
    /// site makes the first two files, and the operator the last.
    const CONTENT: [&str; 5] = ["domain", "user", ".lock", "changes.log", "settings"];
    /// Those of them that no installation makes.
    const TRACES: [&str; 3] = [".lock", "changes.log", "settings"];

    /// The site in a directory that the user of this process has named. This looks at nothing yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), root: None }
    }

    /// The site in a directory below that root, whatever root directory the process has. Links on
    /// the way must be root's.
    pub fn below(root: &'static Root, dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), root: Some(root) }
    }

    /// Whether the plugin on this machine looks into it: it lies at the
    /// [default place](Self::DEFAULT_DIR), or a link there leads to it.
    pub fn is_of_plugin(&self) -> bool {
        let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.into());
        real(Path::new(Self::DEFAULT_DIR)) == real(&self.dir)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The scope that holds a user's maildrop, if any does. It is the user's own scope when that
    /// has files, and else the one that [`Scope::of`] gives. `None`: no site can hold him. Cost,
    /// for a user of a domain: one open of the directory, and two `stat` in it.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: could not tell.
    pub fn scope_of(&self, user: &str) -> Result<Option<Scope>, OpenError> {
        if let Some(own) = Scope::own(user) {
            let dir = self.dir.join(own.directory());
            let opened = match open(self.root, &dir, OFlags::PATH) {
                Err(Unreached::System(Errno::NOENT)) => Err(OpenError::NoSite { dir }),
                opened => Ok(opened?),
            }?;
            for extension in [ROSTER, INDEX] {
                let name = file_name(&own, extension);
                match statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => return Ok(Some(own)),
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(Unreached::from(errno).into()),
                }
            }
        }
        Ok(Scope::of(user))
    }

    /// The files of the scope that [`Site::scope_of`] gives for a user. When that cannot tell, the
    /// files of the scope that [`Scope::of`] gives.
    pub fn paths(&self, user: &str) -> Option<Paths> {
        let scope = self.scope_of(user).unwrap_or_else(|_| Scope::of(user));
        scope.map(|scope| self.paths_of(&scope))
    }

    /// The files of a scope.
    pub fn paths_of(&self, scope: &Scope) -> Paths {
        Paths { index: self.path_of(scope, INDEX), roster: self.path_of(scope, ROSTER) }
    }

    fn path_of(&self, scope: &Scope, extension: &str) -> PathBuf {
        let mut path = self.dir.join(scope.directory());
        path.push(file_name(scope, extension));
        path
    }

    /// Opens the roster that would name a user. `None` means that there is neither roster nor
    /// index, so the user was never migrated. Cost: that of [`Site::scope_of`] and one open; when
    /// that fails, a `stat` of the directory and one of the index.
    ///
    /// `None` is also the answer for a directory that exists and has nothing of a site in it. Each
    /// build makes `domain` and `user`, so both are missing there, and so is every file of the
    /// helper.
    ///
    /// A mount point looks the same while nothing is mounted on it. So does one beneath which there
    /// is an empty site of an installation, or an older one. So this looks into `/etc/fstab` before
    /// it answers `None`. Where that says that something is to be mounted there, or above, and
    /// nothing is, that is an error. Cost: one open, and a `statx` for each line that fits.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: could not tell.
    pub fn open_roster(&self, user: &str) -> Result<Option<File>, OpenError> {
        let opened = match self.open_roster_of_site(user) {
            Err(OpenError::NoSite { .. }) if self.is_bare()? => None,
            opened => opened?,
        };
        if opened.is_none() {
            self.require_mounted()?;
        }
        Ok(opened)
    }

    /// The same, for a site that is not bare, and is mounted.
    fn open_roster_of_site(&self, user: &str) -> Result<Option<File>, OpenError> {
        let Some(scope) = self.scope_of(user)? else { return Ok(None) };
        let (root, roster) = (self.root, self.path_of(&scope, ROSTER));
        let opened = open_trusted_below(root, &roster, Self::MOST_ROSTER_OCTETS)?;
        let index = opened.is_none().then(|| self.path_of(&scope, INDEX));
        match index {
            Some(index) if is_there(root, &index)? => Err(OpenError::NoRoster { index }),
            _ => Ok(opened),
        }
    }

    /// Whether its directory exists and has nothing of ours in it.
    fn is_bare(&self) -> Result<bool, OpenError> {
        if self.has_any(&Self::CONTENT)? {
            return Ok(false);
        }
        match self.reach(Follow::None) {
            Ok(_) => Ok(true),
            // A link may lead to a mount point of any name, and where it leads now is not known.
            Err(Unreached::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }

    fn has_any(&self, names: &[&str]) -> Result<bool, OpenError> {
        for name in names {
            if is_there(self.root, &self.dir.join(name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The path of its directory without links.
    fn reach(&self, follow: Follow) -> Result<PathBuf, Unreached> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let (_, place) = match self.root {
            Some(root) => root.walk_to(&self.dir, flags, follow)?,
            None => {
                let (root, dir) = from_the_root(&self.dir)?;
                root.walk_to(&dir, flags, follow)?
            }
        };
        Ok(place)
    }

    /// Fails where `/etc/fstab` names the directory, or one above it, as a mount point, and nothing
    /// is mounted there. A site that a command of the helper has written to is taken for the right
    /// one where `/etc/fstab` cannot be read.
    fn require_mounted(&self) -> Result<(), OpenError> {
        let fstab = match self.fstab() {
            Ok(fstab) => fstab,
            Err(_) if self.has_any(&Self::TRACES)? => return Ok(()),
            Err(error) => return Err(OpenError::Fstab(error)),
        };
        let follow = if self.root.is_some() { Follow::OfRoot } else { Follow::OfRootAndOurs };
        let real = match self.reach(follow) {
            Ok(real) => real,
            // Who is in no site is asked about where none is, too.
            Err(Unreached::System(Errno::NOENT)) => self.dir.clone(),
            Err(why) => return Err(why.into()),
        };
        for line in fstab.split(|&octet| octet == b'\n') {
            let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let words: Vec<&[u8]> = words.take_while(|word| word[0] != b'#').take(4).collect();
            let Some(named) = words.get(1) else { continue };
            let named = PathBuf::from(OsString::from_vec(unescaped(named)));
            // Nothing is above the root, and it is always mounted.
            let is_above = named.parent().is_some()
                && (self.dir.starts_with(&named) || real.starts_with(&named));
            let options = words.get(3).into_iter().flat_map(|word| word.split(|&o| o == b','));
            let is_bind = options.into_iter().any(|word| word == b"bind" || word == b"rbind");
            if is_above && !self.is_mounted(&named, is_bind)? {
                return Err(OpenError::NotMounted { place: named });
            }
        }
        Ok(())
    }

    /// What `/etc/fstab` has; nothing where there is none.
    fn fstab(&self) -> io::Result<Vec<u8>> {
        let mut fstab = Vec::new();
        match open(self.root, Path::new("/etc/fstab"), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => {
                File::from(file).take(Self::MOST_FSTAB_OCTETS).read_to_end(&mut fstab)?;
            }
            Err(Unreached::System(Errno::NOENT)) => {}
            Err(why) => {
                return Err(match OpenError::from(why) {
                    OpenError::Io(error) => error,
                    why => io::Error::other(why.to_string()),
                });
            }
        }
        Ok(fstab)
    }

    /// Whether something is mounted on a directory. Linux says so itself from 5.8 on. An older one
    /// shows it by the device, which is no other for a part of the same file system (`is_bind`):
    /// then this believes that it is mounted.
    fn is_mounted(&self, place: &Path, is_bind: bool) -> Result<bool, OpenError> {
        let directory = match open(self.root, place, OFlags::PATH) {
            Ok(directory) => directory,
            Err(Unreached::System(Errno::NOENT)) => return Ok(false),
            Err(why) => return Err(why.into()),
        };
        let known = statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty()).ok();
        let mark = StatxAttributes::MOUNT_ROOT;
        if let Some(known) = known.filter(|known| known.stx_attributes_mask.contains(mark)) {
            return Ok(known.stx_attributes.contains(mark));
        }
        let parent = open(self.root, place.parent().unwrap_or(place), OFlags::PATH)?;
        let device = |directory: OwnedFd| io::Result::Ok(File::from(directory).metadata()?.dev());
        Ok(is_bind || device(directory)? != device(parent)?)
    }

    /// Opens a file of it. `None`: there is no such file, and its directory is there.
    pub(super) fn open(&self, path: &Path, most: u64) -> Result<Option<File>, OpenError> {
        open_trusted_below(self.root, path, most)
    }

    /// Opens the index that holds a user's maildrop. `None` means that there is none; if a roster
    /// names the user, that is a fault.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: could not tell.
    pub fn open_index(&self, user: &str) -> Result<Option<File>, OpenError> {
        match self.scope_of(user)? {
            Some(scope) => {
                let index = self.path_of(&scope, INDEX);
                open_trusted_below(self.root, &index, Self::MOST_INDEX_OCTETS)
            }
            None => Ok(None),
        }
    }
}

const INDEX: &str = "idx";
const ROSTER: &str = "roster";

/// The name of a file of a scope.
fn file_name(scope: &Scope, extension: &str) -> String {
    [scope.name(), ".", extension].concat()
}

/// A mount point as `/etc/fstab` writes it. A slash at its end means nothing, and `\040` is a
/// blank.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::scope::MAX_STEM_OCTETS;

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
}
