//! Whether the clock is later than what it must be later than.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::doctor::facts::SiteFacts;
use crate::doctor::finding::DoctorFinding;

const CLOCK: &str = "clock";

/// 2026-01-01: nothing of ours is older.
const EARLIEST: u64 = 1_767_225_600;

/// Two clocks may differ by so many seconds.
const SLACK: u64 = 300;

/// Compares the clock with the captures.
pub fn check(facts: &SiteFacts, now: SystemTime, found: &mut Vec<DoctorFinding>) {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let date = |seconds: u64| {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        time.map_or_else(String::new, |time| humantime::format_rfc3339_seconds(time).to_string())
    };
    let why = "the first capture says which mail is older than it: new mail could be taken for \
               captured mail, and hidden";
    let finding = match &facts.newest {
        _ if now < EARLIEST => DoctorFinding::trouble(
            CLOCK,
            format_args!("the clock says {}", date(now)),
            why,
            "set the clock, before anybody logs in",
        ),
        Some((taken, user)) if *taken > now.saturating_add(SLACK) => DoctorFinding::trouble(
            CLOCK,
            format_args!(
                "{user} was captured at {}, and the clock says {}",
                date(*taken),
                date(now)
            ),
            why,
            "set the clock that is wrong, here or on the old server; capture again where it was \
             that one, and build",
        ),
        _ => DoctorFinding::fine(CLOCK, format_args!("the clock says {}", date(now))),
    };
    found.push(finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Weight;

    #[test]
    fn a_capture_that_is_yet_to_come_is_trouble_and_so_is_a_clock_that_begins_anew() {
        let at = |taken: Option<u64>, now: u64| {
            let newest = taken.map(|taken| (taken, "a@b".to_owned()));
            let facts = SiteFacts { newest, ..SiteFacts::default() };
            let mut found = Vec::new();
            check(&facts, UNIX_EPOCH + Duration::from_secs(now), &mut found);
            found.remove(0).weight
        };
        let now = EARLIEST + 1_000_000;
        assert_eq!(at(None, now), Weight::Fine);
        assert_eq!(at(Some(now + SLACK), now), Weight::Fine);
        assert_eq!(at(Some(now + SLACK + 1), now), Weight::Trouble);
        assert_eq!(at(None, 1_000), Weight::Trouble);
    }
}
