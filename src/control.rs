//! Where a maildrop's ledger lies: Dovecot's control directory of the mailbox.
//!
//! The directory and the files in it belong to the account, so that each is opened without following
//! a link or waiting for a pipe, and looked at before it is read. What is absent is an answer; what
//! cannot be read is an [`Error`].
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::index::publish::{Access, Staged};
use crate::ledger::{self, Answers, Ledger};

/// The ledger's name.
pub const LEDGER: &str = "uidl-keep.ledger";
/// The lock's name. The file is empty and stays: taking it away would let two hold the lock.
pub const LOCK: &str = "uidl-keep.lock";

/// How long to sleep between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the ledger could not be read: could not tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no regular file, or not this account's.
    #[error("not a regular file of uid {expected_uid}: type {file_type:o}, uid {uid}")]
    Foreign {
        /// The type bits of its mode.
        file_type: u32,
        /// Whose it is.
        uid: u32,
        /// Whose it should be.
        expected_uid: u32,
    },
    /// What was read is not a ledger.
    #[error("{0}")]
    Ledger(#[from] ledger::Error),
}

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another login holds it, and went on for longer than we wait.
    #[error("another session is resolving this mailbox")]
    Busy,
    /// There can be no lock here: read-only, over quota, disk full. Nothing can be written either.
    #[error("{0}")]
    Unavailable(io::Error),
}

/// A mailbox's control directory.
#[derive(Debug, Clone)]
pub struct Control {
    dir: PathBuf,
}

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Control {
    /// Names the directory. Nothing is opened.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The ledger's path, for messages.
    pub fn ledger_path(&self) -> PathBuf {
        self.dir.join(LEDGER)
    }

    /// What a warm login answers from: only the front is read. `None`: nothing was ever listed.
    ///
    /// # Errors
    ///
    /// [`Error`]: could not tell.
    pub fn answers(&self) -> Result<Option<Answers>, Error> {
        let Some((mut file, len)) = self.open_ledger()? else { return Ok(None) };
        let mut start = vec![0; Answers::HEADER_OCTETS];
        file.read_exact(&mut start).map_err(cut_short(len))?;
        let front_len = Answers::front_len(&start, len)?;
        let mut front = start;
        front.resize(front_len, 0);
        file.read_exact(&mut front[Answers::HEADER_OCTETS..]).map_err(cut_short(len))?;
        Ok(Some(Answers::read(front)?))
    }

    /// The whole ledger and when it was written. `None`: nothing was ever listed.
    ///
    /// # Errors
    ///
    /// [`Error`]: could not tell.
    pub fn ledger(&self) -> Result<Option<(Ledger, SystemTime)>, Error> {
        let Some((mut file, len)) = self.open_ledger()? else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact(&mut bytes).map_err(cut_short(len))?;
        Ok(Some((Ledger::decode(&bytes)?, file.metadata()?.modified()?)))
    }

    fn open_ledger(&self) -> Result<Option<(File, u64)>, Error> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.ledger_path())
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        let expected_uid = rustix::process::geteuid().as_raw();
        if !metadata.is_file() || ![0, expected_uid].contains(&metadata.uid()) {
            let (file_type, uid) = (metadata.mode() & libc::S_IFMT, metadata.uid());
            return Err(Error::Foreign { file_type, uid, expected_uid });
        }
        if metadata.len() > ledger::MAX_OCTETS {
            let (len, expected) = (metadata.len(), ledger::MAX_OCTETS);
            return Err(ledger::Error::Length { len, expected }.into());
        }
        Ok(Some((file, metadata.len())))
    }

    /// Takes the lock under which ledgers are written. A dead process holds none.
    ///
    /// # Errors
    ///
    /// [`LockError::Busy`] after `patience`; [`LockError::Unavailable`] at once.
    pub fn lock(&self, patience: Duration) -> Result<Lock, LockError> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(self.dir.join(LOCK)).map_err(LockError::Unavailable)?;
        let deadline = Instant::now() + patience;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                    return Err(LockError::Busy);
                }
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(Errno::INTR) => {}
                Err(error) => return Err(LockError::Unavailable(error.into())),
            }
        }
    }

    /// Puts a ledger in the place of the one before. Who reads sees the old one or the new one.
    ///
    /// # Errors
    ///
    /// Why it could not be written; the old one stands.
    pub fn publish(&self, _lock: &Lock, ledger: &[u8]) -> io::Result<()> {
        let staged = Staged::create(&self.ledger_path())?;
        staged.file().write_all(ledger)?;
        staged.seal(Access { mode: 0o600, owner: None })?.publish()
    }
}

/// A file that ends before its own size was cut while we read it.
fn cut_short(len: u64) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            ledger::Error::Length { len, expected: Answers::HEADER_OCTETS as u64 }.into()
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(next_order: u32) -> Vec<u8> {
        Ledger { uidvalidity: 7, cutoff: None, next_order, records: Vec::new() }.encode()
    }

    #[test]
    fn what_is_published_is_read_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path());
        assert!(control.answers().unwrap().is_none());
        let lock = control.lock(Duration::ZERO).unwrap();
        std::fs::write(dir.path().join("uidl-keep.ledger.new"), "half").unwrap();
        for next_order in [1, 2] {
            control.publish(&lock, &ledger(next_order)).unwrap();
            assert_eq!(control.ledger().unwrap().unwrap().0.next_order, next_order);
            assert_eq!(control.answers().unwrap().unwrap().uidvalidity(), 7);
        }
        let mut left: Vec<_> =
            dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LEDGER, LOCK]);
    }

    #[test]
    fn a_ledger_that_is_there_but_cannot_be_read_is_never_taken_for_absent() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path());
        let path = control.ledger_path();
        let refused = |what: &str| {
            assert!(control.answers().is_err(), "{what}");
            assert!(control.ledger().is_err(), "{what}");
        };
        std::fs::create_dir(&path).unwrap();
        refused("a directory");
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
        refused("a dangling link");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        refused("a FIFO");
        std::fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        refused("a sparse terabyte");
        let whole = ledger(1);
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            refused("cut short");
        }
    }

    #[test]
    fn the_lock_is_had_by_one_at_a_time_and_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path());
        let held = control.lock(Duration::ZERO).unwrap();
        assert!(matches!(control.lock(Duration::ZERO), Err(LockError::Busy)));
        let waiting = {
            let control = control.clone();
            std::thread::spawn(move || control.lock(Duration::from_secs(60)))
        };
        std::thread::sleep(LOCK_PAUSE * 3);
        drop(held);
        assert!(waiting.join().unwrap().is_ok());
        let nowhere = Control::new(dir.path().join("absent"));
        assert!(matches!(nowhere.lock(Duration::ZERO), Err(LockError::Unavailable(_))));
    }
}
