//! Where a maildrop's ledger lies: Dovecot's control directory of the mailbox.
//!
//! The directory and its files belong to the account. So each file is opened without following a
//! link or waiting for a pipe, and is checked before it is read. An absent file is an answer; a
//! file that cannot be read is a [`ControlError`].
#![forbid(unsafe_code)]

use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::front::LedgerFront;
use super::layout::{LedgerError, MAX_OCTETS};
use super::listed_names::ListedNames;
use super::mark::Mark;
use super::whole::{AnyLedger, Ledger};
use crate::file::publish::{Access, Staged};
use crate::file::read_at::ReadAt;
use crate::file::safe_open::{self, Unopened, regular};

/// The ledger's name.
pub const LEDGER: &str = "uidl-keep.ledger";
/// The lock's name. The file stays, for without it two could hold the lock. Once there was a
/// ledger, it has that ledger's [`Mark`].
pub const LOCK: &str = "uidl-keep.lock";

/// The name of the [`fingerprint_cache`](super::fingerprint_cache), while it is of use.
pub const FINGERPRINTS: &str = "uidl-keep.prints";

/// The name of an empty file. Its time says when a refusal that the operator meant was logged last,
/// whichever it was.
pub const SAID: &str = "uidl-keep.said";

/// How long such a refusal is not logged again.
const SAID_HOLDS: Duration = Duration::from_secs(60);

/// How long to sleep between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the ledger could not be read: could not tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The file could not be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is a symbolic link.
    #[error("a symbolic link")]
    Link,
    /// It is not a regular file, or not this account's.
    #[error("not a regular file of uid {expected_uid}: type {file_type:o}, uid {uid}")]
    Foreign {
        /// The type bits of its mode.
        file_type: u32,
        /// Whose it is.
        uid: u32,
        /// Whose it should be.
        expected_uid: u32,
    },
    /// The file is not a ledger.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// It is the ledger of another user: two users have one control directory, or one was renamed.
    #[error("it is the ledger of {user:?}")]
    OtherUser {
        /// Whose it is.
        user: String,
    },
}

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another login holds it, and went on for longer than we wait.
    #[error("another session is resolving this mailbox")]
    Busy,
    /// There can be no lock here (read-only, over quota, disk full), and nothing can be written
    /// either.
    #[error("{0}")]
    Unavailable(io::Error),
}

/// A mailbox's control directory.
#[derive(Debug, Clone)]
pub struct Control {
    dir: PathBuf,
    user: String,
}

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct ControlLock {
    file: File,
    /// Why its file has not the full length. Then a mark might not be written, so no ledger is.
    no_room: Option<String>,
}

/// One state of the ledger's file: see [`Control::ledger_state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerState {
    place: (u64, u64),
    len: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

/// A ledger that is going to be written. There is room for a file, at least.
#[derive(Debug)]
pub struct Begun<'a> {
    lock: &'a ControlLock,
    staged: Staged,
}

impl Control {
    /// Names the directory, and the user whose mailbox it is. Nothing is opened.
    pub fn new(dir: impl Into<PathBuf>, user: &str) -> Self {
        Self { dir: dir.into(), user: user.to_owned() }
    }

    /// The ledger's path, for messages.
    pub fn ledger_path(&self) -> PathBuf {
        self.dir.join(LEDGER)
    }

    /// Reads the front, from which a warm login answers. `None`: nothing was ever listed.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: could not tell.
    pub fn front(&self) -> Result<Option<LedgerFront>, ControlError> {
        let front = self.front_of_anybody()?;
        front.iter().try_for_each(|front| self.check_user(front.user()))?;
        Ok(front)
    }

    /// The same, whichever user's ledger it is.
    ///
    /// # Errors
    ///
    /// [`ControlError`], but not [`ControlError::OtherUser`].
    pub fn front_of_anybody(&self) -> Result<Option<LedgerFront>, ControlError> {
        let Some((file, len)) = self.open_ours(LEDGER, MAX_OCTETS)? else {
            return Ok(None);
        };
        read_front(&file, len).map(Some)
    }

    fn check_user(&self, user: &str) -> Result<(), ControlError> {
        if user == self.user {
            Ok(())
        } else {
            Err(ControlError::OtherUser { user: user.to_owned() })
        }
    }

    /// Which file the ledger is now. A ledger that is published later has another number, time or
    /// length. `None`: there is none, or it cannot be looked at.
    pub fn ledger_state(&self) -> Option<LedgerState> {
        let metadata = self.ledger_path().symlink_metadata().ok()?;
        let written = (metadata.mtime(), metadata.mtime_nsec());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let place = (metadata.dev(), metadata.ino());
        Some(LedgerState { place, len: metadata.len(), written, changed })
    }

    /// Reads the whole ledger, and when it was written. `None`: nothing was ever listed.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: could not tell.
    pub fn ledger(&self) -> Result<Option<(Ledger, SystemTime)>, ControlError> {
        let Some((file, len)) = self.open_ours(LEDGER, MAX_OCTETS)? else {
            return Ok(None);
        };
        let len_octets = usize::try_from(len).map_err(io::Error::other)?;
        let bytes = ReadAt::read_at(&file, 0, len_octets).map_err(cut_short(len, len_octets))?;
        let ledger = Ledger::decode(&bytes)?;
        self.check_user(&ledger.user)?;
        Ok(Some((ledger, file.metadata()?.modified()?)))
    }

    /// Reads the back of the ledger that has this front. Nobody has replaced it: the caller holds
    /// the lock.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: could not tell.
    pub fn back(&self, _lock: &ControlLock, front: &LedgerFront) -> Result<Vec<u8>, ControlError> {
        let (start, len) = front.back_range();
        let Some((file, file_len)) = self.open_ours(LEDGER, MAX_OCTETS)? else {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        };
        let expected = start as usize + len;
        ReadAt::read_at(&file, start, len).map_err(cut_short(file_len, expected))
    }

    /// Reads the fingerprints that were saved, at most `most` octets. `None`: there are none.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: there are some, and they cannot be read.
    pub fn read_fingerprints(&self, most: u64) -> Result<Option<Vec<u8>>, ControlError> {
        let Some((file, len)) = self.open_ours(FINGERPRINTS, most)? else { return Ok(None) };
        Ok(Some(ReadAt::read_at(&file, 0, usize::try_from(len).map_err(io::Error::other)?)?))
    }

    /// Opens the file that takes more fingerprints: the one there, or a new one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn append_fingerprints(&self, lock: &ControlLock, goes_on: bool) -> io::Result<File> {
        if !goes_on {
            self.remove_fingerprints(lock);
        }
        let mut options = safe_open::options();
        options.append(true).create(true).mode(0o600);
        options.open(self.dir.join(FINGERPRINTS))
    }

    /// Takes the fingerprints away, as far as that can be done. They are of no more use.
    pub fn remove_fingerprints(&self, _lock: &ControlLock) {
        let _ = std::fs::remove_file(self.dir.join(FINGERPRINTS));
    }

    /// Opens a file of this account's, and finds its length. `None`: there is none.
    fn open_ours(&self, name: &str, most: u64) -> Result<Option<(File, u64)>, ControlError> {
        let expected_uid = rustix::process::geteuid().as_raw();
        let foreign = |metadata: &Metadata| {
            let (file_type, uid) = (metadata.mode() & libc::S_IFMT, metadata.uid());
            ControlError::Foreign { file_type, uid, expected_uid }
        };
        let opened = regular(safe_open::options().read(true).open(self.dir.join(name)));
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            Err(Unopened::Absent) => return Ok(None),
            // There is none either where the directory is a file, as beside an mbox.
            Err(Unopened::Io(error)) if error.kind() == io::ErrorKind::NotADirectory => {
                return Ok(None);
            }
            Err(Unopened::Link) => return Err(ControlError::Link),
            Err(Unopened::NotRegular(metadata)) => return Err(foreign(&metadata)),
            Err(Unopened::Io(error)) => return Err(error.into()),
        };
        if ![0, expected_uid].contains(&metadata.uid()) {
            return Err(foreign(&metadata));
        }
        if metadata.len() > most {
            return Err(LedgerError::Length { len: metadata.len(), expected: most }.into());
        }
        Ok(Some((file, metadata.len())))
    }

    /// Takes the lock under which ledgers are written. A dead process holds none.
    ///
    /// # Errors
    ///
    /// [`LockError::Busy`] after `patience`; [`LockError::Unavailable`] at once.
    pub fn lock(&self, patience: Duration) -> Result<ControlLock, LockError> {
        let mut options = safe_open::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let open = || options.open(self.dir.join(LOCK));
        let opened = open().or_else(|error| match error.kind() {
            // Where control files have a directory of their own, dbox itself never makes it.
            io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                open()
            }
            _ => Err(error),
        });
        let file = opened.map_err(LockError::Unavailable)?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(LockError::Unavailable(io::Error::other("not a regular file")));
        }
        let deadline = Instant::now() + patience;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(ControlLock::filled(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                    return Err(LockError::Busy);
                }
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(Errno::INTR) => {}
                Err(error) => return Err(LockError::Unavailable(error.into())),
            }
        }
    }

    /// Reads the mark of the last ledger that was here, lost or not. `None`: there never was one.
    /// It takes no lock. A mark that cannot be read is [`Mark::damaged`]: anything may have been
    /// told.
    pub fn mark(&self) -> Option<Mark> {
        match self.open_ours(LOCK, u64::MAX) {
            Ok(Some((file, _))) => read_mark(&file).unwrap_or_else(|_| Some(Mark::damaged())),
            Ok(None) => None,
            Err(_) => Some(Mark::damaged()),
        }
    }

    /// Notes how many messages a POP3 session left. It notes nothing where there was no mark, where
    /// another session holds the lock (it will note its own number), or where the file cannot be
    /// written: the number only guards.
    pub fn note_left(&self, left: u32) {
        let Some(mark) = self.mark().filter(|mark| mark.left != left && mark.told.is_some()) else {
            return;
        };
        let Ok(lock) = self.lock(Duration::ZERO) else { return };
        if self.mark().as_ref() == Some(&mark) {
            // It only guards: the next session writes it again if it is lost with the power.
            let _ = lock.overwrite(&Mark { left, ..mark });
        }
    }

    /// Notes that storage has all that was listed. Where that cannot be noted, the mark goes on to
    /// say less than there is.
    pub fn note_baked(&self, lock: &ControlLock) {
        if let Some(mark) = self.mark().filter(|mark| !mark.is_baked && mark.told.is_some()) {
            let _ = lock.overwrite(&Mark { is_baked: true, ..mark });
        }
    }

    /// Says whether a refusal that the operator meant is to be logged now. Once a minute is enough.
    /// Where that cannot be noted, as before the mailbox is made, it is logged always.
    pub fn is_to_be_said(&self) -> bool {
        let mut options = safe_open::options();
        options.write(true).mode(0o600);
        let path = self.dir.join(SAID);
        let Err(error) = options.clone().create_new(true).open(&path) else { return true };
        if error.kind() != io::ErrorKind::AlreadyExists {
            return true;
        }
        let now = SystemTime::now();
        let note_again = || -> io::Result<bool> {
            let file = options.open(&path)?;
            // A time in the future says nothing.
            let age = now.duration_since(file.metadata()?.modified()?);
            let is_new = age.is_ok_and(|age| age < SAID_HOLDS);
            if !is_new {
                file.set_modified(now)?;
            }
            Ok(!is_new)
        };
        note_again().unwrap_or(true)
    }

    /// Begins a ledger before there is anything to write into it, so that we know early what
    /// prevents it.
    ///
    /// # Errors
    ///
    /// Why none can be written: there is no room for it, or for its mark.
    pub fn begin<'a>(&self, lock: &'a ControlLock) -> io::Result<Begun<'a>> {
        if let Some(why) = &lock.no_room {
            return Err(io::Error::other(format!("no room for its mark: {why}")));
        }
        Ok(Begun { lock, staged: Staged::create(&self.ledger_path())? })
    }
}

impl ControlLock {
    /// Gives the lock's file its full length, if it is shorter. From then on a mark overwrites.
    fn filled(file: File) -> Self {
        let fill = || -> io::Result<()> {
            let len = file.metadata()?.len();
            if len < Mark::OCTETS as u64 {
                let blanks = vec![b' '; Mark::OCTETS - len as usize];
                file.write_all_at(&blanks, len)?;
                file.sync_data()?;
            }
            Ok(())
        };
        let no_room = fill().err().map(|why| why.to_string());
        Self { file, no_room }
    }

    /// Puts a mark in the place of the one before. It needs no room.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn write(&self, mark: &Mark) -> io::Result<()> {
        self.overwrite(mark)?;
        self.file.sync_data()
    }

    fn overwrite(&self, mark: &Mark) -> io::Result<()> {
        self.file.write_all_at(&mark.to_file(), 0)
    }
}

impl Begun<'_> {
    /// Writes a ledger in pieces, with the names of the messages that are there. It is not in its
    /// place before it is published.
    ///
    /// # Errors
    ///
    /// Why it cannot be written.
    pub fn write(&self, ledger: &impl AnyLedger, names: Option<&ListedNames>) -> io::Result<()> {
        super::whole::write(ledger, names, &mut self.staged.file())
    }

    /// Reads again what was written: the front, after a check of every octet, and the back.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: it cannot be read again.
    pub fn read(&self) -> Result<(LedgerFront, Vec<u8>), ControlError> {
        let file = self.staged.file();
        let len = file.metadata()?.len();
        let front = read_front(file, len)?;
        let (start, back_len) = front.back_range();
        let back = ReadAt::read_at(file, start, back_len);
        Ok((front, back.map_err(cut_short(len, start as usize + back_len))?))
    }

    /// Rule 11: puts a ledger in the place of the one before, and then its mark in the lock. What
    /// was not written before is in these parts. A reader sees the old ledger or the new one. A
    /// mark that is older than its ledger adds nothing and takes nothing away: the next listing
    /// that is recorded writes it again.
    ///
    /// # Errors
    ///
    /// Why the ledger could not be written, and the old one stands; or [`PublishError::Unmarked`].
    pub fn publish(self, ledger: &[&[u8]], mark: &Mark) -> Result<(), PublishError> {
        for part in ledger {
            self.staged.file().write_all(part)?;
        }
        self.staged.seal(Access { mode: 0o600, owner: None })?.publish()?;
        self.lock.write(mark).map_err(PublishError::Unmarked)
    }
}

/// Why a ledger was not published whole.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The ledger could not be written; the old one stands.
    #[error("{0}")]
    Unwritten(#[from] io::Error),
    /// The ledger is in its place; its mark could not be written.
    #[error("its mark in {LOCK} cannot be written ({0}): let the mail's user write that file")]
    Unmarked(io::Error),
}

fn read_front(file: &File, len: u64) -> Result<LedgerFront, ControlError> {
    let start = ReadAt::read_at(file, 0, LedgerFront::HEADER_OCTETS)
        .map_err(cut_short(len, LedgerFront::HEADER_OCTETS))?;
    let front_len = LedgerFront::front_len(&start, len)?;
    let front = ReadAt::read_at(file, 0, front_len).map_err(cut_short(len, front_len))?;
    Ok(LedgerFront::read(front)?)
}

fn read_mark(file: &File) -> io::Result<Option<Mark>> {
    let mut octets = vec![0; Mark::OCTETS];
    let mut len = 0;
    loop {
        match FileExt::read_at(file, &mut octets[len..], len as u64) {
            Ok(0) => return Ok(Mark::of_file(&octets[..len])),
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that ends before its own size was cut while we read it.
fn cut_short(len: u64, expected: usize) -> impl Fn(io::Error) -> ControlError {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            LedgerError::Length { len, expected: expected as u64 }.into()
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::lock::once_free;
    use crate::ledger::epoch::Epoch;
    use crate::ledger::unclaimed::UnclaimedKeys;
    use crate::ledger::whole::Noted;

    fn ledger(next_order: u32) -> Ledger {
        Ledger {
            user: "alice".to_owned(),
            begun_after: 5,
            epoch: Epoch { uidvalidity: 7, next_uid: 1, index_id: 1 },
            next_order,
            told: Vec::new(),
            restored: 0,
            unguarded: 0,
            rehearsal: 0,
            index: Noted::default(),
            native_from: None,
            unclaimed: UnclaimedKeys::default(),
            records: Vec::new(),
        }
    }

    #[test]
    fn what_is_published_is_read_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path(), "alice");
        assert!(control.front().unwrap().is_none());
        let lock = control.lock(Duration::ZERO).unwrap();
        std::fs::write(dir.path().join("uidl-keep.ledger.new"), "half").unwrap();
        for next_order in [1, 2] {
            control
                .begin(&lock)
                .unwrap()
                .publish(&[&ledger(next_order).encode()], &Mark::of(&ledger(1), 0))
                .unwrap();
            assert_eq!(control.ledger().unwrap().unwrap().0.next_order, next_order);
            assert_eq!(control.front().unwrap().unwrap().head().epoch.uidvalidity, 7);
            let other = Control::new(dir.path(), "bob");
            assert!(matches!(other.front(), Err(ControlError::OtherUser { .. })));
            assert!(matches!(other.ledger(), Err(ControlError::OtherUser { .. })));
        }
        let mut left: Vec<_> =
            dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LEDGER, LOCK]);
    }

    #[test]
    fn a_lost_ledger_is_told_from_one_that_never_was() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path(), "alice");
        assert_eq!(control.mark(), None);
        let lock = control.lock(Duration::ZERO).unwrap();
        assert_eq!(control.mark(), None, "a lock alone says nothing");
        let len = || std::fs::metadata(dir.path().join(LOCK)).unwrap().len();
        assert_eq!(len(), Mark::OCTETS as u64);
        let mut mark = Mark::of(&ledger(1), 3);
        control.begin(&lock).unwrap().publish(&[&ledger(1).encode()], &mark).unwrap();
        std::fs::remove_file(control.ledger_path()).unwrap();
        assert_eq!(control.mark(), Some(mark.clone()));
        for next_uid in [u32::MAX, 1] {
            mark.epoch.next_uid = next_uid;
            control.begin(&lock).unwrap().publish(&[], &mark).unwrap();
            assert_eq!(control.mark(), Some(mark.clone()));
            assert_eq!(len(), Mark::OCTETS as u64);
        }
        control.note_baked(&lock);
        mark.is_baked = true;
        assert_eq!(control.mark(), Some(mark.clone()));
        drop(lock);
        let noted = Some(Mark { left: 9, ..mark.clone() });
        once_free(|| {
            control.note_left(9);
            (control.mark() == noted).then_some(())
        });
        std::fs::remove_file(dir.path().join(LOCK)).unwrap();
        control.note_left(9);
        assert_eq!(control.mark(), None, "what was never told is not noted");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(LOCK)).unwrap();
        assert_eq!(control.mark(), Some(Mark::damaged()));
    }

    #[test]
    fn what_the_operator_meant_is_said_once_a_minute_and_where_that_cannot_be_noted_always() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path(), "alice");
        let heard: Vec<bool> = (0..3).map(|_| control.is_to_be_said()).collect();
        assert_eq!(heard, [true, false, false]);
        let file = File::options().write(true).open(dir.path().join(SAID)).unwrap();
        for (seconds, is_old) in [(61, true), (30, false)] {
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
            assert_eq!(control.is_to_be_said(), is_old, "{seconds} seconds ago");
        }
        file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).unwrap();
        assert!(control.is_to_be_said(), "the clock went back");
        let nowhere = Control::new(dir.path().join("not/made"), "alice");
        assert!(nowhere.is_to_be_said() && nowhere.is_to_be_said());
        assert!(!nowhere.dir.exists(), "a mailbox that is being moved is not made by us");
        std::fs::remove_file(dir.path().join(SAID)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(SAID)).unwrap();
        assert!(control.is_to_be_said(), "nothing is followed");
    }

    #[test]
    fn where_there_is_no_room_for_a_mark_no_ledger_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path(), "alice");
        let path = dir.path().join(LOCK);
        std::fs::write(&path, "short").unwrap();
        let file = File::open(&path).unwrap();
        let lock = ControlLock::filled(file);
        let why = control.begin(&lock).unwrap_err().to_string();
        assert!(why.starts_with("no room for its mark: "), "{why}");
    }

    #[test]
    fn a_ledger_that_is_there_but_cannot_be_read_is_never_taken_for_absent() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path(), "alice");
        let path = control.ledger_path();
        let refused = |what: &str| {
            assert!(control.front().is_err(), "{what}");
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
        let whole = ledger(1).encode();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            refused("cut short");
        }
    }

    #[test]
    fn the_lock_is_had_by_one_at_a_time_and_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path(), "alice");
        let held = control.lock(Duration::ZERO).unwrap();
        assert!(matches!(control.lock(Duration::ZERO), Err(LockError::Busy)));
        let waiting = {
            let control = control.clone();
            std::thread::spawn(move || control.lock(Duration::from_secs(60)))
        };
        std::thread::sleep(LOCK_PAUSE * 3);
        drop(held);
        assert!(waiting.join().unwrap().is_ok());
        let new = Control::new(dir.path().join("control/INBOX"), "alice");
        assert!(new.lock(Duration::ZERO).is_ok(), "a directory that was never made is made");
        let nowhere = Control::new(control.dir.join(LOCK), "alice");
        assert!(matches!(nowhere.lock(Duration::ZERO), Err(LockError::Unavailable(_))));
    }
}
