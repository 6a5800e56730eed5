//! Pauses that double: [`Backoff`].
#![forbid(unsafe_code)]

use std::time::Duration;

/// Pauses before tries: each is twice the one before, and none exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Begins with `first`, and never exceeds `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// Begins with `first`, and goes on doubling.
    pub const fn without_end(first: Duration) -> Self {
        Self::new(first, Duration::MAX)
    }

    /// The pause after `before` others.
    pub fn pause(&self, before: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(before)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_twice_the_one_before_it_up_to_the_longest() {
        let pauses = Backoff::new(Duration::from_secs(5), Duration::from_secs(33));
        let seconds: Vec<u64> = (0..5).map(|before| pauses.pause(before).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 33, 33]);
        assert_eq!(pauses.pause(u32::MAX), Duration::from_secs(33));
        let endless = Backoff::without_end(Duration::from_millis(20));
        assert_eq!(endless.pause(5), Duration::from_millis(640));
        assert_eq!(Backoff::without_end(Duration::ZERO).pause(40), Duration::ZERO);
    }
}
