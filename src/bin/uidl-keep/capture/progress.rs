//! How far a capture is.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::{Mutex, MutexGuard};

use crate::output::remark;

/// How far the work is: a bar on a terminal, a line now and then in a log, nothing for one
/// maildrop.
pub struct Progress {
    bar: Option<ProgressBar>,
    log: Option<Mutex<PeriodicLog>>,
}

struct PeriodicLog {
    tally: Tally,
    begun: Instant,
    said: Instant,
}

/// The counts.
#[derive(Default)]
struct Tally {
    maildrops: usize,
    /// How many of `done` an earlier run captured.
    done_before: usize,
    done: usize,
    failed: usize,
    waiting: usize,
    messages: u64,
}

/// The time between two lines of a log.
const LOG_PAUSE: Duration = Duration::from_secs(5);

impl Progress {
    pub fn new(maildrops: usize, is_single: bool, has_file: bool) -> Self {
        // A bar and a listing on one terminal would overwrite each other.
        let on_terminal = io::stderr().is_terminal() && (has_file || !io::stdout().is_terminal());
        let bar = (!is_single && on_terminal).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {msg}");
            let bar = ProgressBar::new(maildrops as u64);
            bar.set_style(style.expect("the template is written here"));
            bar
        });
        let now = Instant::now();
        let tally = Tally { maildrops, ..Tally::default() };
        let log = (!is_single).then(|| Mutex::new(PeriodicLog { tally, begun: now, said: now }));
        Self { bar, log }
    }

    fn log(&self) -> Option<MutexGuard<'_, PeriodicLog>> {
        self.log.as_ref().map(Mutex::lock)
    }

    fn count(&self, count: impl FnOnce(&mut Tally)) {
        if let Some(mut log) = self.log() {
            count(&mut log.tally);
        }
    }

    /// Counts maildrops that an earlier run captured.
    pub fn count_before(&self, maildrops: usize) {
        self.count(|tally| {
            tally.done_before += maildrops;
            tally.done += maildrops;
        });
    }

    /// Counts messages that were captured.
    pub fn count_messages(&self, messages: u64) {
        self.count(|tally| tally.messages += messages);
    }

    /// One maildrop is written.
    pub fn count_maildrop(&self, has_failed: bool) {
        self.count(|tally| {
            tally.done += 1;
            tally.failed += usize::from(has_failed);
        });
        self.tick();
    }

    /// Sets how many maildrops wait to be tried again.
    pub fn set_waiting(&self, maildrops: usize) {
        self.count(|tally| tally.waiting = maildrops);
    }

    /// Time has passed.
    pub fn tick(&self) {
        let Some(mut log) = self.log() else { return };
        if let Some(bar) = &self.bar {
            bar.set_position(log.tally.done as u64);
            bar.set_message(log.tally.sentence(log.begun.elapsed()));
            bar.tick();
        } else if log.said.elapsed() >= LOG_PAUSE {
            log.said = Instant::now();
            remark(log.tally.sentence(log.begun.elapsed()));
        }
    }

    /// A remark that the bar makes room for.
    pub fn say(&self, sentence: impl std::fmt::Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| remark(&sentence)),
            None => remark(sentence),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

impl Tally {
    /// How far it is after so much time.
    fn sentence(&self, elapsed: Duration) -> String {
        let Self { maildrops, done_before, done, failed, waiting, messages } = *self;
        let seconds = elapsed.as_secs_f64().max(0.001);
        let mut said = format!(
            "{done} of {maildrops} maildrops, {messages} messages, {:.0} a second",
            messages as f64 / seconds
        );
        if failed > 0 {
            let _ = write!(said, ", {failed} failed");
        }
        if waiting > 0 {
            let _ = write!(said, ", {waiting} to be tried again");
        }
        // The work of earlier runs says nothing about the speed of this one.
        let done_now = done - done_before;
        if done_now > 0 && done < maildrops {
            let left = seconds * (maildrops - done) as f64 / done_now as f64;
            let left = Duration::from_secs(left.ceil() as u64);
            let _ = write!(said, ", about {} left", humantime::format_duration(left));
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_by_what_this_run_did() {
        let mut tally = Tally { maildrops: 1000, done_before: 400, done: 400, ..Tally::default() };
        let second = Duration::from_secs(1);
        assert_eq!(tally.sentence(second), "400 of 1000 maildrops, 0 messages, 0 a second");
        (tally.done, tally.messages, tally.failed, tally.waiting) = (500, 2500, 3, 2);
        assert_eq!(
            tally.sentence(10 * second),
            "500 of 1000 maildrops, 2500 messages, 250 a second, 3 failed, 2 to be tried again, \
             about 50s left"
        );
        (tally.done, tally.failed, tally.waiting) = (1000, 0, 0);
        assert_eq!(
            tally.sentence(20 * second),
            "1000 of 1000 maildrops, 2500 messages, 125 a second"
        );
    }
}
