//! Ends a long command early, between two pieces of its work: at a signal, or for a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::output::Trouble;

/// Knows whether the work is to end.
pub struct Interrupt {
    is_asked: Arc<AtomicBool>,
    file: Option<PathBuf>,
}

impl Interrupt {
    /// Listens to SIGINT and SIGTERM from now on, and looks for that file. A second signal ends the
    /// program at once.
    pub fn new(file: Option<PathBuf>) -> Result<Self, Trouble> {
        let is_asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 2, Arc::clone(&is_asked))
                .and_then(|_| flag::register(signal, Arc::clone(&is_asked)))
                .map_err(|error| Trouble::at("signals", error))?;
        }
        Ok(Self { is_asked, file })
    }

    /// Whether no other piece of the work is to be begun. Once it is so, it stays so. Cost: a
    /// `stat` of the file.
    pub fn is_asked(&self) -> bool {
        if self.file.as_ref().is_some_and(|file| file.exists()) {
            self.is_asked.store(true, Ordering::Relaxed);
        }
        self.is_asked.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use uidl_keep::capture::workers::{AsTheyCome, Next, Schedule};

    use super::*;

    #[test]
    fn a_stop_file_ends_the_work_after_what_is_at_hand() {
        let dir = tempfile::tempdir().unwrap();
        let stop = dir.path().join("stop");
        let interrupt = Interrupt::new(Some(stop.clone())).unwrap();
        let mut queue: AsTheyCome<(), _> = AsTheyCome::until(3, || interrupt.is_asked());
        let now = Instant::now();
        assert_eq!(queue.next(now), Next::Go(0));
        fs::write(&stop, "").unwrap();
        assert!(matches!(queue.next(now), Next::Wait(Some(_))));
        assert!(queue.is_over());
    }
}
