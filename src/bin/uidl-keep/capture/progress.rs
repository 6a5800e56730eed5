//! How far a capture is.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::remark;

/// How far the work is: a bar on a terminal, a line now and then in a log, nothing for one maildrop.
pub struct Progress {
    bar: Option<ProgressBar>,
    log: Option<Mutex<Log>>,
}

struct Log {
    maildrops: usize,
    done: usize,
    messages: usize,
    said: Instant,
}

/// The time between two lines of a log.
const LOG_PAUSE: Duration = Duration::from_secs(5);

impl Progress {
    pub fn new(maildrops: usize, is_single: bool, has_file: bool) -> Self {
        // A bar and a listing on one terminal would overwrite each other.
        let on_terminal = io::stderr().is_terminal() && (has_file || !io::stdout().is_terminal());
        let bar = (!is_single && on_terminal).then(|| {
            let style = ProgressStyle::with_template(
                "{bar:40} {pos} of {len} maildrops, {msg} messages, {eta} left",
            );
            let bar = ProgressBar::new(maildrops as u64);
            bar.set_style(style.expect("the template is written here"));
            bar.with_message("0")
        });
        let log = (!is_single)
            .then(|| Mutex::new(Log { maildrops, done: 0, messages: 0, said: Instant::now() }));
        Self { bar, log }
    }

    fn log(&self) -> Option<MutexGuard<'_, Log>> {
        self.log.as_ref().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One maildrop of `messages` is written.
    pub fn count(&self, messages: usize) {
        if let Some(mut log) = self.log() {
            log.done += 1;
            log.messages += messages;
            if let Some(bar) = &self.bar {
                bar.set_message(log.messages.to_string());
                bar.set_position(log.done as u64);
            }
        }
        self.tick();
    }

    /// Time has passed.
    pub fn tick(&self) {
        if let Some(bar) = &self.bar {
            bar.tick();
        } else if let Some(mut log) = self.log().filter(|log| log.said.elapsed() >= LOG_PAUSE) {
            log.said = Instant::now();
            remark(format_args!(
                "{} of {} maildrops, {} messages",
                log.done, log.maildrops, log.messages
            ));
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
