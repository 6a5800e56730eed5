//! So many commands a second: [`Steady`].

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use uidl_keep::capture::pop3::Pace;

/// Lets commands pass at a steady rate, of all connections to one server together.
pub struct Steady {
    /// The time between two commands.
    gap: Duration,
    /// When the next may be sent.
    next: Mutex<Instant>,
}

impl Steady {
    /// At most `rate` commands a second; any number when there is no rate.
    pub fn new(rate: Option<u32>) -> Self {
        let gap = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1));
        Self { gap, next: Mutex::new(Instant::now()) }
    }

    /// Keeps the next `count` places, and says when the last of them comes.
    fn reserve(&self, count: u32, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let last = (*next).max(now) + self.gap * count.saturating_sub(1);
        *next = last + self.gap;
        last
    }
}

impl Pace for Steady {
    fn commands(&self, count: u32) {
        let now = Instant::now();
        let pause = self.reserve(count, now).saturating_duration_since(now);
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_all_connections_keep_their_distance() {
        let steady = Steady::new(Some(10));
        let now = Instant::now() + Duration::from_secs(1);
        let tenths = |count: u64| now + Duration::from_millis(100 * count);
        assert_eq!(steady.reserve(1, now), now);
        assert_eq!(steady.reserve(1, now), tenths(1));
        assert_eq!(steady.reserve(5, now), tenths(6), "five are sent when the fifth may be");
        // What was not used before is not made up for.
        assert_eq!(steady.reserve(1, tenths(50)), tenths(50));
        assert_eq!(steady.reserve(1, tenths(50)), tenths(51));
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let steady = Steady::new(None);
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(steady.reserve(200, now), now);
        assert_eq!(steady.reserve(200, now), now);
    }
}
