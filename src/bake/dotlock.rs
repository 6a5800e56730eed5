//! Dovecot's own lock of `dovecot-uidlist`: [`Dotlock`].
//!
//! It is a file `dovecot-uidlist.lock` beside the list, made where none is there, with the number
//! of the process and the name of the machine in it. Whoever finds it waits. It may be taken away
//! where its process is dead on this machine, and where neither it nor the list changed for two
//! minutes and nobody knows its process. Learnt from dovecot core `src/lib/file-dotlock.c`
//! (`check_lock`, `read_local_pid`, `try_create_lock_excl`) and `maildir-uidlist.h`
//! (`MAILDIR_UIDLIST_LOCK_STALE_TIMEOUT`).
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::capture::disk::dovecot::STATE_FILE;

/// The name of the lock.
pub const LOCK_FILE: &str = "dovecot-uidlist.lock";

/// After so long without a change, a lock whose process nobody knows is nobody's.
const STALE: Duration = Duration::from_secs(120);
/// A lock that is as young is not judged by its process: that may not be written yet.
const YOUNG: Duration = Duration::from_secs(2);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause after a lock was taken away: another may have been about to do the same.
const AFTER_OVERRIDE: Duration = Duration::from_millis(150);
/// The longest text of a lock that is read.
const MOST_OCTETS: u64 = 511;

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DotlockError {
    /// Somebody else has it.
    #[error("{LOCK_FILE} is held{}: run this again when it is not", holder(*.pid))]
    Held {
        /// The process, if it is one of this machine.
        pid: Option<i32>,
    },
    /// Something else is in its place.
    #[error("{LOCK_FILE} is no file: take it away")]
    NotRegular,
    /// What the system says.
    #[error("{LOCK_FILE}: {0}")]
    Io(#[from] io::Error),
}

fn holder(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" by process {pid}")).unwrap_or_default()
}

impl From<Errno> for DotlockError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The right to change the list in a directory. Dropping it takes the lock away.
#[derive(Debug)]
pub struct Dotlock<'a> {
    directory: BorrowedFd<'a>,
    file: File,
}

impl<'a> Dotlock<'a> {
    /// Takes the lock of the list in this directory, and gives its file to that owner.
    ///
    /// # Errors
    ///
    /// [`DotlockError::Held`] after `patience`, and the others at once.
    pub fn take(
        directory: BorrowedFd<'a>,
        owner: (u32, u32),
        patience: Duration,
    ) -> Result<Self, DotlockError> {
        let deadline = Instant::now() + patience;
        loop {
            let flags =
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(directory, LOCK_FILE, flags, Mode::from_raw_mode(0o600)) {
                Ok(file) => {
                    let lock = Self { directory, file: file.into() };
                    lock.sign(owner);
                    return Ok(lock);
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let Some(seen) = look(directory)? else { continue };
            let pid = local_process(directory);
            if is_stale(directory, &seen, pid)? {
                // It may have gone meanwhile, and another be in its place.
                if look(directory)?.is_some_and(|now| is_same(&now, &seen)) {
                    remove(directory)?;
                    thread::sleep(AFTER_OVERRIDE);
                }
                continue;
            }
            if Instant::now() >= deadline {
                return Err(DotlockError::Held { pid: pid.map(|pid| pid.as_raw_nonzero().get()) });
            }
            thread::sleep(PAUSE);
        }
    }

    /// Writes into the lock who has it, as far as there is room: an empty one is nobody's sooner.
    fn sign(&self, (uid, gid): (u32, u32)) {
        let mut file = &self.file;
        let text = format!("{}:{}", std::process::id(), hostname().unwrap_or_default());
        if file.write_all(text.as_bytes()).is_err() {
            let _ = file.set_len(0);
        }
        // Dovecot reads it as the owner of the mail.
        let _ = rustix::fs::fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    }

    /// Whether nobody has taken the lock away from us.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn is_ours(&self) -> io::Result<bool> {
        let ours = rustix::fs::fstat(&self.file)?;
        let there = stat(self.directory, LOCK_FILE)?;
        Ok(there.is_some_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)))
    }
}

impl Drop for Dotlock<'_> {
    fn drop(&mut self) {
        if self.is_ours().unwrap_or(false) {
            let _ = remove(self.directory);
        }
    }
}

/// What is at a name, itself. `None`: nothing.
fn stat(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn look(directory: BorrowedFd<'_>) -> Result<Option<Stat>, DotlockError> {
    let stat = stat(directory, LOCK_FILE)?;
    let is_file = |s: &Stat| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile;
    match stat {
        Some(stat) if !is_file(&stat) => Err(DotlockError::NotRegular),
        stat => Ok(stat),
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    let of = |s: &Stat| (s.st_dev, s.st_ino, s.st_mtime, s.st_mtime_nsec, s.st_size);
    of(one) == of(other)
}

fn remove(directory: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, LOCK_FILE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The process that made the lock, where it is one of this machine.
fn local_process(directory: BorrowedFd<'_>) -> Option<Pid> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, LOCK_FILE, flags, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).take(MOST_OCTETS).read_to_string(&mut text).ok()?;
    let (pid, host) = text.strip_suffix('\n').unwrap_or(&text).split_once(':')?;
    if host != hostname()? {
        return None;
    }
    pid.parse().ok().filter(|&pid| pid > 0).and_then(Pid::from_raw)
}

/// The name of this machine, as the kernel has it.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_owned())
}

/// Whether a lock is nobody's.
fn is_stale(directory: BorrowedFd<'_>, seen: &Stat, pid: Option<Pid>) -> io::Result<bool> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = |stat: &Stat| {
        let seconds = u64::try_from(stat.st_mtime.max(stat.st_ctime)).unwrap_or(0);
        now.saturating_sub(Duration::from_secs(seconds))
    };
    if let Some(pid) = pid {
        let is_dead = test_kill_process(pid) == Err(Errno::SRCH);
        return Ok(is_dead && age(seen) > YOUNG);
    }
    let list = stat(directory, STATE_FILE)?;
    Ok(age(seen) > STALE && list.is_none_or(|list| age(&list) > STALE))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// A process that was there and is not any more.
    fn dead_process() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    fn age_by(path: &Path, age: Duration) {
        // A test cannot set the time of the last change of an inode: only a lock that is aged by
        // both times is old.
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn take(dir: &File, patience: u64) -> Result<Dotlock<'_>, DotlockError> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        Dotlock::take(dir.as_fd(), (uid, gid), Duration::from_millis(patience))
    }

    #[test]
    fn it_is_there_while_it_is_held_and_says_who_has_it() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, path) = (File::open(temp.path()).unwrap(), temp.path().join(LOCK_FILE));
        let lock = take(&dir, 0).unwrap();
        let host = hostname().unwrap();
        let said = format!("{}:{host}", std::process::id());
        assert_eq!(fs::read_to_string(&path).unwrap(), said);
        assert!(lock.is_ours().unwrap());
        let held = take(&dir, 0).unwrap_err().to_string();
        assert!(held.contains(&format!("by process {}", std::process::id())), "{held}");
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_that_was_taken_from_us_is_not_taken_away_by_us() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, path) = (File::open(temp.path()).unwrap(), temp.path().join(LOCK_FILE));
        let lock = take(&dir, 0).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        assert!(!lock.is_ours().unwrap());
        drop(lock);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }

    #[test]
    fn a_lock_of_a_dead_process_is_nobodys_once_it_is_no_longer_young() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, path) = (File::open(temp.path()).unwrap(), temp.path().join(LOCK_FILE));
        fs::write(&path, format!("{}:{}", dead_process(), hostname().unwrap())).unwrap();
        let held = take(&dir, 0);
        assert!(matches!(held, Err(DotlockError::Held { .. })), "{held:?}");
        assert!(take(&dir, 5000).unwrap().is_ours().unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_of_another_machine_or_of_nobody_is_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, path) = (File::open(temp.path()).unwrap(), temp.path().join(LOCK_FILE));
        for text in [format!("{}:elsewhere.example.com", dead_process()), String::new()] {
            fs::write(&path, &text).unwrap();
            age_by(&path, 2 * STALE);
            let held = take(&dir, 200);
            assert!(matches!(held, Err(DotlockError::Held { pid: None })), "{text:?}: {held:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn only_after_two_minutes_without_a_change_of_lock_or_list_it_is_nobodys() {
        let temp = tempfile::tempdir().unwrap();
        let dir = File::open(temp.path()).unwrap();
        fs::write(temp.path().join(LOCK_FILE), "").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let mut seen = look(dir.as_fd()).unwrap().unwrap();
        (seen.st_mtime, seen.st_ctime) = (now - 200, now - 200);
        assert!(is_stale(dir.as_fd(), &seen, None).unwrap());
        seen.st_ctime = now - 100;
        assert!(!is_stale(dir.as_fd(), &seen, None).unwrap());
        seen.st_ctime = now - 200;
        assert!(!is_stale(dir.as_fd(), &seen, Some(rustix::process::getpid())).unwrap());
        fs::write(temp.path().join(STATE_FILE), "3 V1 N1\n").unwrap();
        assert!(!is_stale(dir.as_fd(), &seen, None).unwrap());
    }

    #[test]
    fn a_link_or_a_directory_in_its_place_is_not_touched() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, path) = (File::open(temp.path()).unwrap(), temp.path().join(LOCK_FILE));
        fs::write(temp.path().join("victim"), "precious").unwrap();
        symlink("victim", &path).unwrap();
        assert!(matches!(take(&dir, 0), Err(DotlockError::NotRegular)));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(take(&dir, 0), Err(DotlockError::NotRegular)));
        assert_eq!(fs::read_to_string(temp.path().join("victim")).unwrap(), "precious");
    }
}
