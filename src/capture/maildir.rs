//! Reading a Maildir that is in use, without changing it and without being led elsewhere.
//!
//! The owner of a Maildir can put into it what he likes, and who captures is root. So everything
//! below the starting directory is opened one name at a time, relative to a directory that is
//! already open, and never through a symbolic link; a file is opened only when it is held, and known
//! to be a regular one.
//!
//! Mail arrives while we read, `new` becomes `cur`, flags change. A Maildir is read until two
//! [looks](Look) at it agree.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::Error;
use crate::key::{Depth, Fingerprinter, Fingerprints, Wants};

/// The largest state file that is read, in octets: some two million messages.
const MAX_STATE_OCTETS: u64 = 256 << 20;

/// A file name up to the first `:`: what stays when flags change.
pub fn base_name(name: &[u8]) -> &[u8] {
    name.iter().position(|&octet| octet == b':').map_or(name, |at| &name[..at])
}

/// The size of a message with CRLF line ends, where its file name says so in `,W=`.
pub fn octets_in_name(base: &[u8]) -> Option<u64> {
    let mut fields = base.split(|&octet| octet == b',').skip(1);
    let digits = fields.find_map(|field| field.strip_prefix(b"W="))?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Opens `path` as a directory to start from. It must not be a link itself; on the way to it links
/// are followed where the operator made them, and no user did ([`open_operators`]).
///
/// # Errors
///
/// [`Error::Link`], [`Error::LinkOfUser`], or [`Error::Io`].
pub fn open_start(path: &Path) -> Result<OwnedFd, Error> {
    open_by_trusted_links(path, LastName::IsNoLink)
}

/// As [`open_start`], where the last name may be a link of the operator's, too.
///
/// The path is the operator's, and the directories on it need not be: of `/home/alice/mail/Maildir`
/// all but `/home` are Alice's, and a link in the place of `mail` would lead root to the mail of
/// somebody else, in her name. Followed is what root or this process's user made, in a directory of
/// theirs.
///
/// # Errors
///
/// As [`open_start`].
pub fn open_operators(path: &Path) -> Result<OwnedFd, Error> {
    open_by_trusted_links(path, LastName::MayBeLink)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LastName {
    IsNoLink,
    MayBeLink,
}

/// As many links as Linux itself follows.
const MOST_LINKS: u32 = 40;

fn open_by_trusted_links(path: &Path, last: LastName) -> Result<OwnedFd, Error> {
    let io = |errno: Errno| Error::io(path.as_os_str().as_bytes(), errno.into());
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = |start: &str| rustix::fs::open(start, step, Mode::empty()).map_err(io);
    let names = |path: &Path| path.iter().rev().map(ToOwned::to_owned).collect::<Vec<_>>();
    let mut at = from(".")?;
    // The last name is the next.
    let mut ahead = names(path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == "/" {
            at = from("/")?;
            continue;
        }
        let refused = match rustix::fs::openat(&at, &name, step, Mode::empty()) {
            Ok(directory) => {
                at = directory;
                continue;
            }
            Err(errno) => errno,
        };
        let link = match rustix::fs::statat(&at, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => stat,
            _ => return Err(io(refused)),
        };
        if ahead.is_empty() && links == 0 && last == LastName::IsNoLink {
            return Err(Error::Link { name: super::printable_path(path) });
        }
        let parent = rustix::fs::fstat(&at).map_err(io)?;
        let ours = [0, rustix::process::geteuid().as_raw()];
        if let Some(&uid) = [link.st_uid, parent.st_uid].iter().find(|uid| !ours.contains(uid)) {
            return Err(Error::LinkOfUser { name: super::printable_path(path), uid });
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io(Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(&at, &name, Vec::new()).map_err(io)?;
        ahead.extend(names(Path::new(OsStr::from_bytes(target.as_bytes()))));
    }
    let read = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&at, ".", read, Mode::empty()).map_err(io)
}

/// Opens the directory `name` in `parent`, where it must not be a symbolic link.
///
/// # Errors
///
/// [`Error::Link`], or [`Error::Io`]: `ENOENT` and `ENOTDIR` are for the caller to tell.
pub fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Error> {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| {
        // Linux says "not a directory" of a link that it may not follow.
        let is_link = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if is_link {
            Error::Link { name: super::printable(name.as_bytes()) }
        } else {
            Error::io(name.as_bytes(), errno.into())
        }
    })
}

/// The names in a directory that do not start with a dot, in no order, with their inode numbers.
///
/// # Errors
///
/// [`io::Error`], without the name of the directory.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<(Box<[u8]>, u64)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !name.starts_with(b".") {
            found.push((name.into(), entry.ino()));
        }
    }
    Ok(found)
}

/// One of the two directories that hold mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `new`.
    New,
    /// `cur`.
    Cur,
}

/// A message file, as a look found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Its base file name.
    pub base: Box<[u8]>,
    /// Its whole file name.
    pub name: Box<[u8]>,
    /// Where it lies.
    pub folder: Folder,
    /// Its inode number.
    pub inode: u64,
    /// Its time of modification, in seconds; 0 where it was not asked for.
    pub mtime: i64,
}

/// What a Maildir looked like at one moment, or nearly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// The octets of the state file; `None` when there is none.
    pub state: Option<Vec<u8>>,
    /// The messages, sorted by base file name.
    pub messages: Vec<Message>,
    /// What else lies in the Maildir, apart from names that start with a dot.
    pub others: Vec<Box<[u8]>>,
}

impl Look {
    /// Whether nothing that a capture goes by has changed between two looks. Flags may have, and
    /// `new` may have become `cur`.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let of = |message: &Message| (message.base.clone(), message.inode, message.mtime);
        self.state == other.state
            && self.messages.len() == other.messages.len()
            && self.messages.iter().zip(&other.messages).all(|(a, b)| of(a) == of(b))
    }

    /// Whether the state file ends in the middle of a line: it may be growing at this moment.
    pub fn ends_in_a_line(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.last().is_some_and(|&last| last != b'\n'))
    }
}

/// What a look has to find out.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The name of the state file, where the server has one.
    pub state: Option<&'static str>,
    /// Whether the messages' mtimes are needed.
    pub mtimes: bool,
}

/// An open Maildir.
#[derive(Debug)]
pub struct Maildir {
    top: OwnedFd,
    new: Option<OwnedFd>,
    cur: OwnedFd,
}

impl Maildir {
    /// Opens the `cur` and `new` of the directory `top`. A Maildir without `new` is taken: some
    /// copies leave empty directories out.
    ///
    /// # Errors
    ///
    /// [`Error::NotMaildir`] when there is no `cur`, [`Error::Link`], [`Error::Io`].
    pub fn open(top: OwnedFd) -> Result<Self, Error> {
        let open = |name: &str| match open_directory(top.as_fd(), OsStr::new(name)) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        };
        let cur = open("cur")?;
        let new = open("new")?;
        let cur = cur.ok_or(Error::NotMaildir)?;
        Ok(Self { top, new, cur })
    }

    fn folder(&self, folder: Folder) -> Option<BorrowedFd<'_>> {
        match folder {
            Folder::New => self.new.as_ref().map(AsFd::as_fd),
            Folder::Cur => Some(self.cur.as_fd()),
        }
    }

    /// Looks once. Lists both directories and reads the state file; opens no message.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Link`] and [`Error::NotRegular`] for the state file.
    pub fn look(&self, wanted: Wanted) -> Result<Look, Error> {
        let state = wanted.state.map(|name| self.read_state(name)).transpose()?.flatten();
        let mut messages = Vec::new();
        // `new` first: what moves to `cur` meanwhile is then seen twice and not missed.
        for folder in [Folder::New, Folder::Cur] {
            let Some(directory) = self.folder(folder) else { continue };
            let found = names(directory).map_err(|error| Error::io(folder.name(), error))?;
            for (name, inode) in found {
                let mut mtime = 0;
                if wanted.mtimes {
                    let name = OsStr::from_bytes(&name);
                    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => mtime = stat.st_mtime,
                        Err(Errno::NOENT) => continue,
                        Err(errno) => return Err(Error::io(name.as_bytes(), errno.into())),
                    }
                }
                let base = base_name(&name).into();
                messages.push(Message { base, name, folder, inode, mtime });
            }
        }
        messages.sort_by(|a, b| (&a.base, a.inode, &a.name).cmp(&(&b.base, b.inode, &b.name)));
        // One file under one base name, seen before and after it moved or its flags changed.
        messages.dedup_by(|b, a| a.base == b.base && a.inode == b.inode);
        messages.sort();
        let others = names(self.top.as_fd()).map_err(|error| Error::io(b".", error))?;
        Ok(Look { state, messages, others: others.into_iter().map(|(name, _)| name).collect() })
    }

    fn read_state(&self, name: &'static str) -> Result<Option<Vec<u8>>, Error> {
        let file = match open_regular(self.top.as_fd(), name.as_bytes()) {
            Ok(file) => file,
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(error),
        };
        let io = |error| Error::io(name.as_bytes(), error);
        let too_long = Err(Error::StateTooLong { file: name, max_octets: MAX_STATE_OCTETS });
        if file.metadata().map_err(io)?.len() > MAX_STATE_OCTETS {
            return too_long;
        }
        let mut octets = Vec::new();
        file.take(MAX_STATE_OCTETS + 1).read_to_end(&mut octets).map_err(io)?;
        if octets.len() as u64 > MAX_STATE_OCTETS { too_long } else { Ok(Some(octets)) }
    }

    /// Opens a message, also when it has moved or its flags have changed since the look.
    ///
    /// `None` when it is gone. Lists the directories again when it is not where it was.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] and [`Error::NotRegular`] for what is no message; [`Error::Io`].
    pub fn open_message(&self, message: &Message) -> Result<Option<File>, Error> {
        let Some(directory) = self.folder(message.folder) else { return Ok(None) };
        match open_mail(directory, &message.name) {
            Err(error) if error.is_absence() => {}
            opened => return opened.map(Some),
        }
        for folder in [Folder::New, Folder::Cur] {
            let Some(directory) = self.folder(folder) else { continue };
            let found = names(directory).map_err(|error| Error::io(folder.name(), error))?;
            for (name, inode) in found {
                if inode == message.inode && base_name(&name) == &*message.base {
                    match open_mail(directory, &name) {
                        Err(error) if error.is_absence() => {}
                        opened => return opened.map(Some),
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Folder {
    fn name(self) -> &'static [u8] {
        match self {
            Self::New => b"new",
            Self::Cur => b"cur",
        }
    }
}

/// Reads a file of text, as far as a server's own files are long.
pub(super) fn read_text(directory: BorrowedFd<'_>, name: &str) -> Result<String, Error> {
    let mut text = String::new();
    let file = open_regular(directory, name.as_bytes())?;
    let read = file.take(MAX_STATE_OCTETS).read_to_string(&mut text);
    read.map_err(|error| Error::io(name.as_bytes(), error))?;
    Ok(text)
}

/// The largest file that is taken for a message, in octets.
const MAX_MESSAGE_OCTETS: u64 = 4 << 30;

/// From this size on a file is looked at for holes, in octets.
const MIN_HOLED_OCTETS: u64 = 1 << 20;

/// Opens a regular file that may be a message. A file of terabytes costs its owner nothing when it is
/// one hole, and us a day.
fn open_mail(directory: BorrowedFd<'_>, name: &[u8]) -> Result<File, Error> {
    let file = open_regular(directory, name)?;
    let metadata = file.metadata().map_err(|error| Error::io(name, error))?;
    let octets = metadata.len();
    let mut is_hollow = false;
    if octets >= MIN_HOLED_OCTETS && metadata.blocks() * 512 < octets / 2 {
        // A file system that compresses has few blocks, and no hole for them.
        is_hollow = rustix::fs::seek(&file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < octets);
        let rewound = rustix::fs::seek(&file, SeekFrom::Start(0));
        rewound.map_err(|errno| Error::io(name, errno.into()))?;
    }
    if octets > MAX_MESSAGE_OCTETS || is_hollow {
        return Err(Error::NoMessage { name: super::printable(name), octets });
    }
    Ok(file)
}

/// Opens a regular file for reading. Nothing else is opened, as even that can be felt by whoever
/// holds the other end of a FIFO: what the name leads to is held first, then looked at, and then
/// opened itself, whatever the name leads to by then.
///
/// A second link to a file that is not of the directory's owner is not read: he may have made it where
/// he could not read.
fn open_regular(directory: BorrowedFd<'_>, name: &[u8]) -> Result<File, Error> {
    let path = OsStr::from_bytes(name);
    let io = |errno: Errno| Error::io(name, errno.into());
    let held = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(directory, path, held, Mode::empty()).map_err(io)?;
    let stat = rustix::fs::fstat(&held).map_err(io)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(Error::Link { name: super::printable(name) }),
        _ => return Err(Error::NotRegular { name: super::printable(name) }),
    }
    if stat.st_nlink > 1 {
        let owner = rustix::fs::fstat(directory).map_err(io)?.st_uid;
        if ![0, stat.st_uid].contains(&owner) {
            return Err(Error::Foreign { name: super::printable(name), uid: stat.st_uid });
        }
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
    match rustix::fs::open(&itself, flags, Mode::empty()) {
        // Gone meanwhile, and still there for us.
        Ok(file) => Ok(File::from(file)),
        Err(Errno::NOENT) if !Path::new("/proc/self/fd").exists() => {
            Err(Error::Source("no /proc here: mount it, files are opened through it".into()))
        }
        Err(errno) => Err(io(errno)),
    }
}

/// What was read of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prints {
    /// How much of it was to be read.
    pub depth: Depth,
    /// The fingerprints, as deep as they were asked for.
    pub of: Fingerprints,
    /// The size with CRLF line ends; `None` unless the message was read to its end.
    pub octets: Option<u64>,
}

impl Prints {
    /// Reads `message` up to the end of its header, or to its end, as `depth` says. One pass.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn read(mut message: impl Read, depth: Depth) -> io::Result<Self> {
        let mut fingerprinter = Fingerprinter::new(depth);
        let mut buffer = [0; 16 * 1024];
        let (mut octets, mut last) = (0u64, 0u8);
        let whole = loop {
            let read = match message.read(&mut buffer) {
                Ok(0) => break true,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            octets += read.len() as u64;
            for at in memchr::memchr_iter(b'\n', read) {
                let before = at.checked_sub(1).map_or(last, |at| read[at]);
                octets += u64::from(before != b'\r');
            }
            last = read[read.len() - 1];
            if fingerprinter.update(read) == Wants::Nothing {
                break false;
            }
        };
        Ok(Self { depth, of: fingerprinter.finish(), octets: whole.then_some(octets) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_counts_every_line_end_as_two_octets_however_the_reads_fall() {
        /// Gives its octets in reads of `step`.
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let len = self.1.min(self.0.len());
                let (now, later) = self.0.split_at(len);
                buffer[..len].copy_from_slice(now);
                self.0 = later;
                Ok(len)
            }
        }
        let mixed = b"A: b\nC: d\r\n\r\nbody\n\nlast";
        for step in 1..=mixed.len() {
            let prints = Prints::read(Slow(mixed, step), Depth::Message).unwrap();
            assert_eq!(prints.octets, Some(mixed.len() as u64 + 3), "reads of {step}");
        }
        assert_eq!(Prints::read(&mixed[..], Depth::Header).unwrap().octets, None);
    }

    #[test]
    fn takes_the_size_that_a_name_gives_and_no_other() {
        assert_eq!(octets_in_name(b"1.M2.host,S=407,W=420"), Some(420));
        assert_eq!(octets_in_name(b"1.M2.host,W=420,S=407"), Some(420));
        assert_eq!(octets_in_name(b"W=7.host"), None);
        assert_eq!(octets_in_name(b"1.host,S=407"), None);
        assert_eq!(octets_in_name(b"1.host,W="), None);
        assert_eq!(octets_in_name(b"1.host,W=12x"), None);
        assert_eq!(octets_in_name(b"1.host,W=99999999999999999999999"), None);
    }
}
