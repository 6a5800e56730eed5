//! How far a capture is.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::manners::{self, ProgressForm};
use crate::output::remark;

/// How far the work is: a bar on a terminal, a line now and then in a log, nothing for one
/// maildrop; or JSON lines, or nothing, where the operator says so.
pub struct Progress {
    bar: Option<ProgressBar>,
    is_json: bool,
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
/// The time between two JSON lines.
const JSON_PAUSE: Duration = Duration::from_secs(1);

impl Progress {
    pub fn new(maildrops: usize, is_single: bool, has_file: bool) -> Self {
        // A bar and a listing on one terminal would overwrite each other.
        let on_terminal = io::stderr().is_terminal() && (has_file || !io::stdout().is_terminal());
        let form = manners::progress();
        let is_json = form == ProgressForm::Json;
        let is_shown = form == ProgressForm::Bar && !is_single;
        let bar = (is_shown && on_terminal).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {msg}");
            let bar = ProgressBar::new(maildrops as u64);
            bar.set_style(style.expect("the template is written here"));
            bar
        });
        let now = Instant::now();
        let tally = Tally { maildrops, ..Tally::default() };
        let log = PeriodicLog { tally, begun: now, said: now };
        let log = (is_shown || is_json).then(|| Mutex::new(log));
        Self { bar, is_json, log }
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
        } else if self.is_json {
            if log.said.elapsed() >= JSON_PAUSE {
                log.said = Instant::now();
                print_json(&log.tally.json(log.begun.elapsed()));
            }
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

    /// The work is done: the bar is left as it is, and JSON has its last line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
        if let Some(log) = self.log().filter(|_| self.is_json) {
            print_json(&log.tally.json(log.begun.elapsed()));
        }
    }
}

/// Prints a line for programs. A reader that has gone away is not an error.
fn print_json(value: &Value) {
    let _ = writeln!(io::stderr().lock(), "{value}");
}

impl Tally {
    /// How far it is after so much time.
    fn sentence(&self, elapsed: Duration) -> String {
        let Self { maildrops, done, failed, waiting, messages, .. } = *self;
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
        if let Some(left) = self.seconds_left(elapsed).filter(|_| done < maildrops) {
            let left = humantime::format_duration(Duration::from_secs(left));
            let _ = write!(said, ", about {left} left");
        }
        said
    }

    /// The time that the rest takes, by the speed of this run; `None` while that is not known. The
    /// work of earlier runs says nothing about it.
    fn seconds_left(&self, elapsed: Duration) -> Option<u64> {
        let Self { maildrops, done_before, done, .. } = *self;
        let (left, done_now) = (maildrops.saturating_sub(done), done - done_before);
        match (left, done_now) {
            (0, _) => Some(0),
            (_, 0) => None,
            _ => {
                let seconds = elapsed.as_secs_f64().max(0.001);
                Some((seconds * left as f64 / done_now as f64).ceil() as u64)
            }
        }
    }

    /// The same for programs.
    fn json(&self, elapsed: Duration) -> Value {
        let rate = self.messages as f64 / elapsed.as_secs_f64().max(0.001);
        json!({
            "done": self.done,
            "total": self.maildrops,
            "failed": self.failed,
            "messages": self.messages,
            "rate": (rate * 10.0).round() / 10.0,
            "seconds_remaining": self.seconds_left(elapsed),
        })
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
        assert!(tally.json(second)["seconds_remaining"].is_null());
        (tally.done, tally.messages, tally.failed, tally.waiting) = (500, 2500, 3, 2);
        assert_eq!(
            tally.sentence(10 * second),
            "500 of 1000 maildrops, 2500 messages, 250 a second, 3 failed, 2 to be tried again, \
             about 50s left"
        );
        let told = concat!(
            r#"{"done":500,"failed":3,"messages":2500,"rate":250.0,"#,
            r#""seconds_remaining":50,"total":1000}"#
        );
        assert_eq!(tally.json(10 * second).to_string(), told);
        (tally.done, tally.failed, tally.waiting) = (1000, 0, 0);
        assert_eq!(tally.json(20 * second)["seconds_remaining"], 0);
        assert_eq!(
            tally.sentence(20 * second),
            "1000 of 1000 maildrops, 2500 messages, 125 a second"
        );
    }
}
