//! So many commands a second, so many logins a minute: [`SteadyPace`].
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::capture::pop3::Pace;

/// Lets through what all connections to one address send, one in each gap.
pub struct SteadyPace {
    gap: Duration,
    /// When the next may pass.
    next: Mutex<Instant>,
}

impl SteadyPace {
    /// One each `gap`; all at once when that is nothing.
    pub fn new(gap: Duration) -> Self {
        Self { gap, next: Mutex::new(Instant::now()) }
    }

    /// Returns when `count` more may pass.
    pub fn pass(&self, count: u32) {
        let now = Instant::now();
        let pause = self.reserve(count, now).saturating_duration_since(now);
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }

    /// Keeps the next `count` places, and says when the last of them comes.
    fn reserve(&self, count: u32, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let last = (*next).max(now) + self.gap * count.saturating_sub(1);
        *next = last + self.gap;
        last
    }
}

impl Pace for SteadyPace {
    fn commands(&self, count: u32) {
        self.pass(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_connections_send_keeps_its_distance() {
        let steady = SteadyPace::new(Duration::from_millis(100));
        let now = Instant::now() + Duration::from_secs(1);
        let tenths = |count: u64| now + Duration::from_millis(100 * count);
        assert_eq!(steady.reserve(1, now), now);
        assert_eq!(steady.reserve(1, now), tenths(1));
        assert_eq!(steady.reserve(5, now), tenths(6), "five are sent when the fifth may be");
        // Places that nobody used before are lost.
        assert_eq!(steady.reserve(1, tenths(50)), tenths(50));
        assert_eq!(steady.reserve(1, tenths(50)), tenths(51));
    }

    #[test]
    fn without_a_gap_nobody_waits() {
        let steady = SteadyPace::new(Duration::ZERO);
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(steady.reserve(200, now), now);
        assert_eq!(steady.reserve(200, now), now);
    }
}
