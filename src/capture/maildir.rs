//! Reading a Maildir that is in use, or another directory with a file a message, without changing it.
//!
//! Mail arrives while we read, `new` becomes `cur`, flags change. A Maildir is read until two
//! [looks](Look) at it agree.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::Error;
use super::opening::{names, open_directory, open_mail, read_state};

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

/// A directory that holds mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `new`.
    New,
    /// `cur`.
    Cur,
    /// The directory itself, where the server has no others.
    Top,
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

/// An open Maildir, or another directory with a file a message.
#[derive(Debug)]
pub struct Maildir {
    top: OwnedFd,
    /// In the order in which mail moves through them.
    folders: Vec<(Folder, OwnedFd)>,
    is_message: fn(&[u8]) -> bool,
}

impl Maildir {
    /// Opens the `cur` and `new` of the directory `top`. A Maildir without `new` is taken: some
    /// copies leave empty directories out.
    ///
    /// # Errors
    ///
    /// [`Error::NotMaildir`] when there is no `cur`, [`Error::Link`], [`Error::Io`].
    pub fn open(top: OwnedFd) -> Result<Self, Error> {
        let mut folders = Vec::new();
        for folder in [Folder::New, Folder::Cur] {
            match open_directory(top.as_fd(), OsStr::from_bytes(folder.name())) {
                Ok(directory) => folders.push((folder, directory)),
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error),
            }
        }
        if !folders.iter().any(|(folder, _)| *folder == Folder::Cur) {
            return Err(Error::NotMaildir);
        }
        Ok(Self { top, folders, is_message: |_| true })
    }

    /// Takes the directory `top` for one that has the messages in itself: the files whose names are
    /// those of messages.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn of_files(top: OwnedFd, is_message: fn(&[u8]) -> bool) -> Result<Self, Error> {
        let itself = top.try_clone().map_err(|error| Error::io(Folder::Top.name(), error))?;
        Ok(Self { top, folders: vec![(Folder::Top, itself)], is_message })
    }

    /// Looks once. Lists the directories and reads the state file; opens no message.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Link`] and [`Error::NotRegular`] for the state file.
    pub fn look(&self, wanted: Wanted) -> Result<Look, Error> {
        let state =
            wanted.state.map(|name| read_state(self.top.as_fd(), name)).transpose()?.flatten();
        let mut messages = Vec::new();
        // `new` first: what moves to `cur` meanwhile is then seen twice and not missed.
        for (folder, directory) in &self.folders {
            let found = names(directory.as_fd()).map_err(|e| Error::io(folder.name(), e))?;
            for (name, inode) in found {
                if !(self.is_message)(&name) {
                    continue;
                }
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
                messages.push(Message { base, name, folder: *folder, inode, mtime });
            }
        }
        messages.sort_by(|a, b| (&a.base, a.inode, &a.name).cmp(&(&b.base, b.inode, &b.name)));
        // One file under one base name, seen before and after it moved or its flags changed.
        messages.dedup_by(|b, a| a.base == b.base && a.inode == b.inode);
        messages.sort();
        let others = names(self.top.as_fd()).map_err(|error| Error::io(b".", error))?;
        Ok(Look { state, messages, others: others.into_iter().map(|(name, _)| name).collect() })
    }

    /// Opens a message, also when it has moved or its flags have changed since the look.
    ///
    /// `None` when it is gone. Lists the directories again when it is not where it was.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] and [`Error::NotRegular`] for what is no message; [`Error::Io`].
    pub fn open_message(&self, message: &Message) -> Result<Option<File>, Error> {
        let there = self.folders.iter().find(|(folder, _)| *folder == message.folder);
        if let Some((_, directory)) = there {
            match open_mail(directory.as_fd(), &message.name) {
                Err(error) if error.is_absence() => {}
                opened => return opened.map(Some),
            }
        }
        for (folder, directory) in &self.folders {
            let directory = directory.as_fd();
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
            Self::Top => b".",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
