//! Seals many files at the same time: [`Sealer`].
//!
//! To wait for the disk costs much more than to write what a domain needs. Files that wait together
//! share what the file system does for each wait.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::file::publish::{Access, Sealed, Staged};

/// So many files wait for the disk at the same time.
const MOST_AT_ONCE: usize = 32;

/// So many are sealed one after the other before a thread is worth its while.
const FEW: usize = 8;

/// Files that are being sealed while others are still written.
///
/// At most a hundred of them are open. Dropping it removes them all.
#[derive(Debug)]
pub struct Sealer {
    /// `None` once no more come.
    files: Option<SyncSender<ToSeal>>,
    taken: Arc<Mutex<Receiver<ToSeal>>>,
    done: Receiver<Done>,
    to_be_done: Sender<Done>,
    threads: Vec<JoinHandle<()>>,
    given: usize,
}

/// A file, its number from 0, and who may read it.
type ToSeal = (usize, Staged, Access);
/// The number of a file, and what became of it.
type Done = (usize, Result<Sealed, (PathBuf, io::Error)>);

impl Default for Sealer {
    fn default() -> Self {
        let (files, taken) = sync_channel(MOST_AT_ONCE);
        let (to_be_done, done) = channel();
        let taken = Arc::new(Mutex::new(taken));
        Self { files: Some(files), taken, done, to_be_done, threads: Vec::new(), given: 0 }
    }
}

impl Sealer {
    /// Has a file sealed as by [`Staged::seal`]. Waits while too many wait already.
    ///
    /// # Errors
    ///
    /// The system's error: no thread could be started.
    pub fn seal(&mut self, file: Staged, access: Access) -> io::Result<()> {
        let number = self.given;
        self.given += 1;
        if number < FEW {
            // Nobody but us has the other end, and we have it still.
            let _ = self.to_be_done.send(seal(number, file, access));
            return Ok(());
        }
        if self.threads.len() < MOST_AT_ONCE {
            let (taken, to_be_done) = (Arc::clone(&self.taken), self.to_be_done.clone());
            let work = move || seal_all(&taken, &to_be_done);
            self.threads.push(thread::Builder::new().spawn(work)?);
        }
        let files = self.files.as_ref().expect("only `finish` and `drop` take it");
        let sent = files.send((number, file, access));
        sent.map_err(|_| io::Error::other("the threads that seal files have ended"))
    }

    /// Waits for all files, and returns them in the order in which they were given.
    ///
    /// # Errors
    ///
    /// The first that could not be sealed, and the system's error. All are removed, then.
    pub fn finish(mut self) -> Result<Vec<Sealed>, (PathBuf, io::Error)> {
        self.join();
        let mut all: Vec<Done> = self.done.try_iter().collect();
        all.sort_by_key(|(number, _)| *number);
        if all.len() < self.given {
            let lost = io::Error::other("a thread that seals files has ended early");
            return Err((PathBuf::from("index or roster"), lost));
        }
        all.into_iter().map(|(_, sealed)| sealed).collect()
    }

    fn join(&mut self) {
        self.files = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so, and its file is missed.
            let _ = thread.join();
        }
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.join();
        // Their names go before the caller goes on.
        self.done.try_iter().for_each(drop);
    }
}

fn seal_all(files: &Mutex<Receiver<ToSeal>>, done: &Sender<Done>) {
    loop {
        // The lock is given back before the file is sealed.
        let next = files.lock().map(|files| files.recv());
        let Ok(Ok((number, file, access))) = next else { return };
        if done.send(seal(number, file, access)).is_err() {
            return;
        }
    }
}

fn seal(number: usize, file: Staged, access: Access) -> Done {
    let path = file.path().to_owned();
    (number, file.seal(access).map_err(|error| (path, error)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::file::publish::publish_all;

    const PRIVATE: Access = Access { mode: 0o640, owner: None };

    #[test]
    fn many_files_are_sealed_in_their_order_and_few_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut sealer = Sealer::default();
        for number in 0..300 {
            let staged = Staged::create(&dir.path().join(format!("{number}"))).unwrap();
            write!(staged.file(), "{number}").unwrap();
            sealer.seal(staged, PRIVATE).unwrap();
            let open = fs::read_dir("/proc/self/fd").unwrap().count();
            assert!(open < 200, "{open}");
        }
        let sealed = sealer.finish().unwrap();
        let paths = sealed.iter().map(|it| it.path().to_owned());
        assert!(paths.eq((0..300).map(|number| dir.path().join(number.to_string()))));
        assert!(!dir.path().join("7").exists());
        publish_all(sealed).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("299")).unwrap(), "299");
    }

    #[test]
    fn one_that_cannot_be_sealed_is_named_and_none_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let bad = dir.path().join("bad");
        for (which, is_finished) in [(7, true), (7, false), (FEW + 2, true), (FEW + 2, false)] {
            let mut sealer = Sealer::default();
            for number in 0..40 {
                // No disk has a socket, so that nobody can wait for it.
                let socket = || OwnedFd::from(UnixStream::pair().unwrap().0);
                let staged = match number {
                    bad_one if bad_one == which => Staged::unplaced(socket().into(), &bad),
                    _ => Staged::create(&dir.path().join(format!("{number}"))).unwrap(),
                };
                sealer.seal(staged, PRIVATE).unwrap();
            }
            if is_finished {
                assert_eq!(sealer.finish().unwrap_err().0, bad);
            } else {
                drop(sealer);
            }
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "all are removed");
        }
    }
}
