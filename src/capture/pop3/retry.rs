//! When another session follows one that broke: [`RetryPolicy`].
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::backoff::Backoff;
use crate::capture::pop3::fault::{Fault, Retry};

/// The most sessions for one account, however little each brings.
const MOST_SESSIONS: u32 = 100;

/// So many sessions in a row may break and bring nothing new, and so many may end with another
/// listing than they began with.
const TRIES: u32 = 4;

/// The sessions of one account so far, and whether another is worth it.
#[derive(Debug)]
pub(super) struct RetryPolicy {
    pauses: Backoff,
    sessions: u32,
    /// Sessions in a row that broke and brought nothing.
    in_vain: u32,
    /// Sessions that ended with another listing.
    changes: u32,
    last_reading: LastReading,
}

/// What the last reading was good for.
#[derive(Debug, Default)]
struct LastReading {
    /// Messages that it told something new of.
    gained: u32,
    lesson: Lesson,
}

/// What a break teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lesson {
    /// Nothing: the same may break again.
    #[default]
    Nothing,
    /// Several commands were too many; the next session sends one at a time.
    OneAtATime,
    /// One message breaks sessions; the next session passes it over.
    PassOver,
}

impl RetryPolicy {
    /// Waits `pause` after the first break, and doubles that while nothing new comes.
    pub fn new(pause: Duration) -> Self {
        Self {
            pauses: Backoff::without_end(pause),
            sessions: 0,
            in_vain: 0,
            changes: 0,
            last_reading: LastReading::default(),
        }
    }

    /// A session begins.
    pub fn begin(&mut self) {
        self.sessions += 1;
    }

    /// The session has read so many messages of which nothing was known.
    pub fn gained(&mut self, gained: u32) {
        self.last_reading = LastReading { gained, lesson: Lesson::Nothing };
    }

    /// The reading broke, and taught this.
    pub fn learnt(&mut self, lesson: Lesson) {
        self.last_reading.lesson = lesson;
    }

    /// Whether the last reading told something new.
    pub fn has_gained(&self) -> bool {
        self.last_reading.gained > 0
    }

    /// Whether the session before this one broke and brought nothing.
    pub fn is_in_vain(&self) -> bool {
        self.in_vain > 0
    }

    /// The listing was another one at the end of the session.
    ///
    /// # Errors
    ///
    /// [`Fault::Changing`], when that has happened too often.
    pub fn listing_changed(&mut self) -> Result<(), Fault> {
        self.changes += 1;
        if self.changes < TRIES { Ok(()) } else { Err(Fault::Changing { tries: self.changes }) }
    }

    /// Whether to go on after a session that broke or could not be had. Without anything to show
    /// for it, we do not: whoever asked can try again as well.
    ///
    /// # Errors
    ///
    /// `fault` itself, where another session does not help.
    pub fn go_on_after(&mut self, fault: Fault, knows_something: bool) -> Result<(), Fault> {
        let LastReading { gained, lesson } = std::mem::take(&mut self.last_reading);
        let has_brought = gained > 0 || lesson == Lesson::PassOver;
        self.in_vain = if has_brought { 0 } else { self.in_vain + 1 };
        let has_something = knows_something || lesson == Lesson::OneAtATime;
        let is_enough = self.in_vain >= TRIES || self.sessions >= MOST_SESSIONS;
        if may_help(&fault) && has_something && !is_enough { Ok(()) } else { Err(fault) }
    }

    /// The pause before the next session, `login_delay` at least.
    pub fn pause(&self, login_delay: Duration) -> Duration {
        match self.pauses.pause(self.in_vain) {
            Duration::ZERO => Duration::ZERO,
            pause => pause.max(login_delay),
        }
    }
}

/// Whether another session may do better.
fn may_help(fault: &Fault) -> bool {
    match fault {
        // That message is passed over.
        Fault::TooLong { command: "TOP" | "RETR", .. } => true,
        // Both were tried again already.
        Fault::Changing { .. } | Fault::Refused { command: "TOP" | "RETR", .. } => false,
        _ => fault.next_step() == Retry::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn dropped() -> Fault {
        Fault::Dropped { command: "TOP" }
    }

    #[test]
    fn a_break_that_brings_nothing_is_taken_three_times_with_pauses_that_double() {
        let mut policy = RetryPolicy::new(SECOND);
        for seconds in [2, 4, 8] {
            policy.begin();
            assert!(policy.go_on_after(dropped(), true).is_ok());
            assert_eq!(policy.pause(Duration::ZERO), seconds * SECOND);
            assert_eq!(policy.pause(10 * SECOND), 10 * SECOND);
        }
        assert!(policy.go_on_after(dropped(), true).is_err());
    }

    #[test]
    fn a_session_that_brings_something_begins_the_count_anew_up_to_the_most_sessions() {
        let mut policy = RetryPolicy::new(Duration::ZERO);
        for session in 1..=MOST_SESSIONS {
            policy.begin();
            policy.gained(u32::from(session % 3 == 0));
            assert_eq!(policy.go_on_after(dropped(), true).is_ok(), session < MOST_SESSIONS);
            assert_eq!(policy.pause(SECOND), Duration::ZERO);
        }
    }

    #[test]
    fn with_nothing_to_show_for_it_the_fault_is_given_back() {
        let mut policy = RetryPolicy::new(SECOND);
        assert!(policy.go_on_after(dropped(), false).is_err());
        policy.learnt(Lesson::OneAtATime);
        assert!(policy.go_on_after(dropped(), false).is_ok());
        assert!(policy.is_in_vain());
        policy.learnt(Lesson::PassOver);
        assert!(policy.go_on_after(dropped(), true).is_ok());
        assert!(!policy.is_in_vain());
    }

    #[test]
    fn what_fails_again_is_not_tried_again() {
        for (fault, is_tried_again) in [
            (Fault::TooLong { command: "RETR", max_octets: 1 }, true),
            (Fault::TooLong { command: "UIDL", max_octets: 1 }, false),
            (Fault::Changing { tries: 4 }, false),
            (Fault::OldTls, false),
            (dropped(), true),
        ] {
            let said = fault.to_string();
            let mut policy = RetryPolicy::new(SECOND);
            assert_eq!(policy.go_on_after(fault, true).is_ok(), is_tried_again, "{said}");
        }
    }

    #[test]
    fn a_listing_may_change_three_times() {
        let mut policy = RetryPolicy::new(SECOND);
        for _ in 1..TRIES {
            assert!(policy.listing_changed().is_ok());
        }
        assert!(matches!(policy.listing_changed(), Err(Fault::Changing { tries: TRIES })));
    }
}
