//! Reading a Maildir that is in use, or another directory with a file a message, without changing
//! it.
//!
//! Mail arrives while we read, `new` becomes `cur`, flags change. A Maildir is read until two
//! [snapshots](Snapshot) of it agree.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;

use crate::capture::error::CaptureError;
use crate::capture::told_here::MemoryFiles;
use crate::capture::users_files::{names, open_directory, open_mail, read_state};

/// A file name up to the first `:`: what stays when flags change.
pub fn base_name(name: &[u8]) -> &[u8] {
    name.iter().position(|&octet| octet == b':').map_or(name, |at| &name[..at])
}

/// Where the base name ended in a file name whose `:2,FLAGS` a copy has spelled otherwise: `;2,S`
/// as mbsync does on Windows, `_2,S`, ` 2,S` or `%3A2,S` as archivers and file systems do that take
/// no colon. `None` for any other name.
///
/// This only serves to say what has happened: Dovecot and qmail-pop3d both take the whole name for
/// a base name.
pub fn end_before_changed_info(name: &[u8]) -> Option<usize> {
    if name.contains(&b':') {
        return None;
    }
    let flags = name.iter().rev().take_while(|octet| octet.is_ascii_alphabetic()).count();
    let before = name[..name.len() - flags].strip_suffix(b"2,")?;
    let escaped = [b"%3A", b"%3a", b"=3A", b"=3a"];
    let end = if let Some(base) = escaped.iter().find_map(|it| before.strip_suffix(*it)) {
        base.len()
    } else {
        match before.last()? {
            // The name has a size there, or just ends so.
            b',' | b'=' => return None,
            last if last.is_ascii_alphanumeric() => return None,
            last if last.is_ascii() => before.len() - 1,
            // Samba makes U+F022 of the colon; others do the like.
            _ => before.iter().rposition(u8::is_ascii).map_or(0, |at| at + 1),
        }
    };
    (end > 0).then_some(end)
}

/// When a message arrived, in seconds since 1970, where its file name begins with that.
pub fn arrival(name: &[u8]) -> Option<u64> {
    let end = name.iter().position(|octet| !octet.is_ascii_digit()).unwrap_or(name.len());
    // Nine digits are a time in 1973 or later; fewer are a number of another kind.
    let digits = name.get(..end).filter(|digits| (9..=11).contains(&digits.len()))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
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

/// A message file, as a snapshot found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageFile {
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

/// A Maildir as it was at one moment, or nearly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The octets of the state file; `None` when there is none.
    pub state: Option<Vec<u8>>,
    /// The messages, sorted by base file name.
    pub messages: Vec<MessageFile>,
    /// Whether their mtimes were asked for.
    pub has_mtimes: bool,
    /// The other names in the Maildir, apart from those that start with a dot.
    pub others: Vec<Box<[u8]>>,
    /// The octets of ledger and mark, where they were asked for and there are any.
    pub memory: MemoryFiles,
}

impl Snapshot {
    /// Whether nothing that a capture goes by has changed between two snapshots. Flags may have,
    /// and `new` may have become `cur`. Mtimes are compared where both have them.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let has_mtimes = self.has_mtimes && other.has_mtimes;
        let agree = |(a, b): (&MessageFile, &MessageFile)| {
            a.base == b.base && a.inode == b.inode && (a.mtime == b.mtime || !has_mtimes)
        };
        self.state == other.state
            && self.memory == other.memory
            && self.messages.len() == other.messages.len()
            && self.messages.iter().zip(&other.messages).all(agree)
    }

    /// Whether the state file ends in the middle of a line: it may be growing at this moment.
    pub fn ends_in_a_line(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.last().is_some_and(|&last| last != b'\n'))
    }
}

/// The parts that a snapshot has to have.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotParts {
    /// The name of the state file, where the server has one.
    pub state: Option<&'static str>,
    /// Whether the messages' mtimes are needed.
    pub mtimes: bool,
    /// Whether ledger and mark are needed.
    pub memory: bool,
}

/// Where a server keeps its own files of a maildrop, `dovecot-uidlist` for one.
#[derive(Debug)]
pub enum ControlDir {
    /// With the mail.
    Itself,
    /// In that directory.
    Elsewhere(OwnedFd),
    /// In another, which is not there: the server has not made it yet.
    NotThere,
}

/// An open Maildir, or another directory with a file a message.
#[derive(Debug)]
pub struct Maildir {
    top: OwnedFd,
    control: ControlDir,
    /// The folders, in the order in which mail moves through them.
    folders: Vec<(Folder, OwnedFd)>,
    is_message: fn(&[u8]) -> bool,
}

impl Maildir {
    /// Opens the `cur` and `new` of the directory `top`. A Maildir without `new` is taken: some
    /// copies leave empty directories out.
    ///
    /// # Errors
    ///
    /// [`CaptureError::NotMaildir`] when there is no `cur`, [`CaptureError::Link`],
    /// [`CaptureError::Io`].
    pub fn open(top: OwnedFd) -> Result<Self, CaptureError> {
        let mut folders = Vec::new();
        for folder in [Folder::New, Folder::Cur] {
            match open_directory(top.as_fd(), OsStr::from_bytes(folder.name())) {
                Ok(directory) => folders.push((folder, directory)),
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error),
            }
        }
        if !folders.iter().any(|(folder, _)| *folder == Folder::Cur) {
            return Err(CaptureError::NotMaildir);
        }
        Ok(Self { top, control: ControlDir::Itself, folders, is_message: |_| true })
    }

    /// Takes the directory `top` for one that has the messages in itself: the files whose names are
    /// those of messages.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Io`].
    pub fn of_files(top: OwnedFd, is_message: fn(&[u8]) -> bool) -> Result<Self, CaptureError> {
        let itself =
            top.try_clone().map_err(|error| CaptureError::io(Folder::Top.name(), error))?;
        Ok(Self {
            top,
            control: ControlDir::Itself,
            folders: vec![(Folder::Top, itself)],
            is_message,
        })
    }

    /// The same, where the server keeps its own files in that directory.
    #[must_use]
    pub fn with_control(self, control: ControlDir) -> Self {
        Self { control, ..self }
    }

    /// The directory that has the server's own files; `None` where it is not there.
    pub fn control(&self) -> Option<BorrowedFd<'_>> {
        match &self.control {
            ControlDir::Itself => Some(self.top.as_fd()),
            ControlDir::Elsewhere(directory) => Some(directory.as_fd()),
            ControlDir::NotThere => None,
        }
    }

    /// The directory itself.
    pub fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// One of the directories that have the messages; `None` where it is not there.
    pub fn folder(&self, folder: Folder) -> Option<BorrowedFd<'_>> {
        let found = self.folders.iter().find(|(there, _)| *there == folder);
        found.map(|(_, directory)| directory.as_fd())
    }

    /// Looks once. Lists the directories and reads the state file; opens no message.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Io`], [`CaptureError::Link`] and [`CaptureError::NotRegular`] for the state
    /// file.
    pub fn snapshot(&self, parts: SnapshotParts) -> Result<Snapshot, CaptureError> {
        let state = parts.state.map(|name| self.read_beside(name)).transpose()?.flatten();
        let memory = match self.control() {
            Some(control) if parts.memory => MemoryFiles::read(control)?,
            _ => MemoryFiles::default(),
        };
        let mut messages = Vec::new();
        // `new` comes first: a message that moves to `cur` meanwhile is then seen twice and not
        // missed.
        for (folder, directory) in &self.folders {
            let found = names(directory.as_fd()).map_err(|e| CaptureError::io(folder.name(), e))?;
            for (name, inode) in found {
                if !(self.is_message)(&name) {
                    continue;
                }
                let mut mtime = 0;
                if parts.mtimes {
                    let name = OsStr::from_bytes(&name);
                    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => mtime = stat.st_mtime,
                        Err(Errno::NOENT) => continue,
                        Err(errno) => return Err(CaptureError::io(name.as_bytes(), errno.into())),
                    }
                }
                let base = base_name(&name).into();
                messages.push(MessageFile { base, name, folder: *folder, inode, mtime });
            }
        }
        messages.sort_by(|a, b| (&a.base, a.inode, &a.name).cmp(&(&b.base, b.inode, &b.name)));
        // One file was seen under one base name before and after it moved, or its flags changed.
        messages.dedup_by(|b, a| a.base == b.base && a.inode == b.inode);
        messages.sort();
        let others = names(self.top.as_fd()).map_err(|error| CaptureError::io(b".", error))?;
        let others = others.into_iter().map(|(name, _)| name).collect();
        Ok(Snapshot { state, messages, has_mtimes: parts.mtimes, others, memory })
    }

    /// Reads another file that a server keeps beside its state file. `None` when there is none.
    ///
    /// # Errors
    ///
    /// As for the state file of [`Maildir::snapshot`].
    pub fn read_beside(&self, name: &'static str) -> Result<Option<Vec<u8>>, CaptureError> {
        match self.control() {
            Some(control) => read_state(control, name),
            None => Ok(None),
        }
    }

    /// The owner of the directory, and its group.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Io`].
    pub fn owner(&self) -> Result<(u32, u32), CaptureError> {
        let stat = rustix::fs::fstat(&self.top);
        let stat = stat.map_err(|errno| CaptureError::io(b".", errno.into()))?;
        Ok((stat.st_uid, stat.st_gid))
    }

    /// Looks at a message where the snapshot found it, and follows no link. `None`: it is there no
    /// more.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Io`].
    pub fn stat(&self, message: &MessageFile) -> Result<Option<Stat>, CaptureError> {
        let directory = self.folders.iter().find(|(folder, _)| *folder == message.folder);
        let Some((_, directory)) = directory else { return Ok(None) };
        let name = OsStr::from_bytes(&message.name);
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(CaptureError::io(&message.name, errno.into())),
        }
    }

    /// Opens a message, also when it has moved or its flags have changed since the snapshot.
    ///
    /// `None` when it is gone. Lists the directories again when it is not where it was.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Link`] and [`CaptureError::NotRegular`] for what is no message;
    /// [`CaptureError::Io`].
    pub fn open_message(&self, message: &MessageFile) -> Result<Option<File>, CaptureError> {
        Ok(self.open_and_stat(message)?.map(|(file, _)| file))
    }

    /// The same, and what was seen of the file that was opened.
    pub(super) fn open_and_stat(
        &self,
        message: &MessageFile,
    ) -> Result<Option<(File, Stat)>, CaptureError> {
        let there = self.folders.iter().find(|(folder, _)| *folder == message.folder);
        if let Some((_, directory)) = there {
            match open_mail(directory.as_fd(), &message.name) {
                Err(error) if error.is_absence() => {}
                opened => return opened.map(Some),
            }
        }
        for (folder, directory) in &self.folders {
            let directory = directory.as_fd();
            let found = names(directory).map_err(|error| CaptureError::io(folder.name(), error))?;
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

/// The error for mail that somebody has read and a state file that is not there, unless one of the
/// other files of that server shows that the directory is complete.
pub(super) fn missing_state(
    snapshot: &Snapshot,
    file: &'static str,
    others: &[&[u8]],
) -> Option<CaptureError> {
    let read = snapshot.messages.iter().filter(|message| message.folder == Folder::Cur).count();
    let complete =
        snapshot.others.iter().any(|name| others.iter().any(|other| name.starts_with(other)));
    (read > 0 && !complete).then_some(CaptureError::StateMissing { file, read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_that_a_copy_has_changed_is_told_from_what_names_have_anyway() {
        for name in ["x.h;2,S", "x.h_2,", "x.h 2,RS", "x.h!2,S", "x.h%3A2,S", "x.h=3a2,S"] {
            assert_eq!(end_before_changed_info(name.as_bytes()), Some(3), "{name}");
        }
        assert_eq!(end_before_changed_info("x.h\u{f022}2,S".as_bytes()), Some(3));
        assert_eq!(end_before_changed_info(b"x.h,S=12,W=13;2,S"), Some(13));
        for name in [
            "x.h:2,S",
            "x.h:2,;2,S",
            "x.h",
            "x.h,S=2,W=3",
            "x.h,S=2,",
            "x.h2,S",
            ";2,S",
            "x.h;1,S",
            "",
        ] {
            assert_eq!(end_before_changed_info(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_time_of_arrival_is_as_long_as_one() {
        assert_eq!(arrival(b"1714990000.M1.host"), Some(1_714_990_000));
        assert_eq!(arrival(b"1714990000"), Some(1_714_990_000));
        for name in ["12345678.a", "123456789012.a", "x1714990000", ""] {
            assert_eq!(arrival(name.as_bytes()), None, "{name}");
        }
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
