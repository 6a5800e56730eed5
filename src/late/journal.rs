//! What was brought: a file in the new Maildir, so that nothing is brought twice.
//!
//! ```text
//! uidl-keep-late 1
//! +KEY        the message with this name is in tmp, whole, and is about to be put in its place
//! =KEY        it was
//! ```
//!
//! `KEY` is the [`FileKey`] of its base file name. The ledger does not remember a new message that
//! a client has deleted; without this file it would come back with the next run. A line that a
//! power cut has torn is none.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use crate::key::FileKey;
use crate::late::delivery::Target;
use crate::late::not_brought::NotBrought;

/// Its name in the Maildir.
pub const JOURNAL: &str = "uidl-keep.late";

const HEAD: &str = "uidl-keep-late 1\n";

/// The longest that is read, in octets.
const MOST_OCTETS: u64 = 64 << 20;

/// How far a message was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HowFar {
    /// It was about to be put in its place.
    Begun,
    /// It was.
    Brought,
}

/// The file, locked as long as this lives.
pub(super) struct LateJournal {
    /// `None`: nothing is written, for it is only counted.
    file: Option<File>,
    noted: HashMap<FileKey, HowFar>,
    is_synced: bool,
}

impl LateJournal {
    /// Reads what it says, to write nothing.
    pub(super) fn read(target: &Target) -> Result<Self, NotBrought> {
        match open(target, OFlags::RDONLY)? {
            Some(file) => Ok(Self { file: None, ..Self::of(file)?.0 }),
            None => Ok(Self { file: None, noted: HashMap::new(), is_synced: true }),
        }
    }

    /// Opens it, makes it where there is none, and locks it.
    pub(super) fn lock(target: &Target) -> Result<Self, NotBrought> {
        let file = open(target, OFlags::RDWR | OFlags::CREATE | OFlags::APPEND)?;
        let file = file.ok_or(NotBrought::BadJournal)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(NotBrought::Busy),
            Err(errno) => return Err(fault(errno.into(), 0)),
        }
        let (uid, gid) = target.owner;
        fchown(&file, Some(uid), Some(gid)).map_err(|error| fault(error, 0))?;
        let (mut journal, last) = Self::of(file)?;
        match last {
            None => journal.append(HEAD, 0)?,
            Some(b'\n') => {}
            // It was torn. What comes is a line of its own.
            Some(_) => journal.append("\n", 0)?,
        }
        Ok(journal)
    }

    /// Reads the file. Returns its last octet, too.
    fn of(mut file: File) -> Result<(Self, Option<u8>), NotBrought> {
        let mut octets = Vec::new();
        let read = Read::by_ref(&mut file).take(MOST_OCTETS).read_to_end(&mut octets);
        read.map_err(|error| fault(error, 0))?;
        let mut noted = HashMap::new();
        for line in octets.split(|&octet| octet == b'\n') {
            let (key, how) = match line.split_first() {
                Some((b'+', key)) => (key, HowFar::Begun),
                Some((b'=', key)) => (key, HowFar::Brought),
                _ => continue,
            };
            noted.extend(FileKey::from_hex(key).map(|key| (key, how)));
        }
        Ok((Self { file: Some(file), noted, is_synced: true }, octets.last().copied()))
    }

    /// How far the message with this base file name was brought.
    pub(super) fn noted(&self, base: &[u8]) -> Option<HowFar> {
        self.noted.get(&FileKey::of_name(base)).copied()
    }

    /// Notes how far a message is. What is begun is on the disk when this returns.
    pub(super) fn note(
        &mut self,
        base: &[u8],
        how: HowFar,
        brought: usize,
    ) -> Result<(), NotBrought> {
        let key = FileKey::of_name(base);
        let sign = if how == HowFar::Begun { '+' } else { '=' };
        self.append(&format!("{sign}{key}\n"), brought)?;
        if how == HowFar::Begun {
            self.sync(brought)?;
        }
        self.noted.insert(key, how);
        Ok(())
    }

    /// Waits until all of it is on the disk.
    pub(super) fn close(mut self, brought: usize) -> Result<(), NotBrought> {
        self.sync(brought)
    }

    fn append(&mut self, text: &str, brought: usize) -> Result<(), NotBrought> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.is_synced = false;
        file.write_all(text.as_bytes()).map_err(|error| fault(error, brought))
    }

    fn sync(&mut self, brought: usize) -> Result<(), NotBrought> {
        if let Some(file) = self.file.as_ref().filter(|_| !self.is_synced) {
            file.sync_data().map_err(|error| fault(error, brought))?;
            self.is_synced = true;
        }
        Ok(())
    }
}

/// Opens the file; `None` where there is none. Nothing that its directory's owner has put there
/// leads elsewhere.
fn open(target: &Target, how: OFlags) -> Result<Option<File>, NotBrought> {
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(&target.top, JOURNAL, flags, Mode::RUSR | Mode::WUSR);
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        // A link, or a pipe.
        Err(Errno::LOOP | Errno::NXIO) => return Err(NotBrought::BadJournal),
        Err(errno) => return Err(fault(errno.into(), 0)),
    };
    let metadata = file.metadata().map_err(|error| fault(error, 0))?;
    let ours = [target.owner.0, rustix::process::geteuid().as_raw()];
    if !metadata.is_file() || metadata.nlink() != 1 || !ours.contains(&metadata.uid()) {
        return Err(NotBrought::BadJournal);
    }
    Ok(Some(file))
}

fn fault(error: io::Error, brought: usize) -> NotBrought {
    NotBrought::Write { name: JOURNAL.to_owned(), error, brought }
}
