//! What a command of the operator makes of a roster line: [`Change`].
#![forbid(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::maildrop::State;
use crate::site::roster::{Gate, RosterLine};

/// A change of roster lines, as one command makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Refuse at POP3.
    Hold,
    /// Serve again: what was held is guarded, and what was guarded, and named, is released.
    Release,
    /// Release from everything.
    Unguard,
    /// Give the UIDLs up.
    Redownload,
    /// Take back all that clients were told.
    Forget,
    /// Note that POP3 clients listed the maildrop before.
    Listed,
    /// Note that the mailbox was put back from a backup.
    Restored,
    /// Take back what a rehearsal has written.
    UndoRehearsal,
}

impl Change {
    /// The name of its command.
    pub fn command(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Unguard => "release --unguarded",
            Self::Redownload => "release --redownload",
            Self::Forget => "forget",
            Self::Listed => "listed",
            Self::Restored => "restored",
            Self::UndoRehearsal => "rehearse --undo",
        }
    }

    /// The word that is printed behind the user's name.
    pub fn outcome(self, after: &RosterLine) -> &'static str {
        match self {
            Self::Listed | Self::Restored => self.command(),
            Self::UndoRehearsal => "undone",
            _ => after.gate_word(),
        }
    }

    /// The line after this change, which names the user or only the whole domain. A user who is to
    /// download again has already begun to, and a change of a whole domain does not take that back.
    pub fn after(self, before: &RosterLine, is_named: bool, now: SystemTime) -> RosterLine {
        let gate = match (self, before.gate) {
            (Self::Redownload, _) => Gate::Redownload,
            (Self::Listed | Self::Restored | Self::UndoRehearsal, gate) => gate,
            (Self::Hold | Self::Forget, Gate::Redownload) if !is_named => Gate::Redownload,
            (Self::Hold, _) | (Self::Forget, Gate::Held) => Gate::Held,
            (Self::Forget, _) => Gate::Guarded,
            (Self::Release | Self::Unguard, Gate::Redownload) => Gate::Redownload,
            (Self::Release | Self::Unguard, _) if before.awaits_capture() => Gate::Guarded,
            (Self::Release, Gate::Held) => Gate::Guarded,
            (Self::Release, Gate::Guarded) if is_named => Gate::Released,
            (Self::Release, gate) => gate,
            (Self::Unguard, _) => Gate::Released,
        };
        let mut after = before.clone();
        // The clock may have been set back. If a stamp came twice, a void ledger would become good
        // again, and the second order would undo nothing.
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let stamp = |before: u64| now.max(before.saturating_add(1));
        match self {
            Self::Forget => {
                after.forgotten = stamp(before.forgotten);
                // These notes are about what clients were told, which no longer counts.
                (after.listed, after.unguarded) = (false, 0);
                after = after.with_rehearsal_undone(now);
                (after.rehearsal, after.rehearsed) = (0, false);
            }
            Self::Unguard if gate == Gate::Released => after.unguarded = stamp(before.unguarded),
            // A user who is served already, and is named, is released once more: for what is
            // missing.
            Self::Release if before.gate == Gate::Guarded && gate == Gate::Released => {
                after.unguarded = stamp(before.unguarded);
            }
            Self::Listed => after.listed = true,
            Self::Restored => after.restored = stamp(before.restored),
            Self::UndoRehearsal => after = after.with_rehearsal_undone(now),
            // From now on clients may have listed it.
            Self::Hold if before.gate != Gate::Held => after.rehearsal = 0,
            Self::Hold | Self::Release | Self::Unguard | Self::Redownload => {}
        }
        let awaits_capture = before.awaits_capture() || self == Self::Forget;
        after.with_gate(gate, awaits_capture)
    }

    /// Whether the change has brought the user to the wanted state.
    pub fn is_done(self, after: &RosterLine) -> bool {
        match self {
            Self::Hold
            | Self::Redownload
            | Self::Forget
            | Self::Listed
            | Self::Restored
            | Self::UndoRehearsal => true,
            Self::Release | Self::Unguard => {
                matches!(after.gate, Gate::Guarded | Gate::Released)
                    && !after.awaits_capture()
                    && after.state != State::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The gate after a change of one who is named, and of one who is not.
    type GateAfter = [&'static str; 2];

    /// The gate before, and after `hold`, `release`, `release --unguarded` and `forget`.
    const GATES: [(&str, [GateAfter; 4]); 7] = [
        ("held", [["held"; 2], ["guarded"; 2], ["released"; 2], ["held-forgotten"; 2]]),
        ("guarded", [["held"; 2], ["released", "guarded"], ["released"; 2], ["forgotten"; 2]]),
        ("released", [["held"; 2], ["released"; 2], ["released"; 2], ["forgotten"; 2]]),
        (
            "forgotten",
            [["held-forgotten"; 2], ["forgotten"; 2], ["forgotten"; 2], ["forgotten"; 2]],
        ),
        (
            "held-forgotten",
            [["held-forgotten"; 2], ["forgotten"; 2], ["forgotten"; 2], ["held-forgotten"; 2]],
        ),
        (
            "redownload",
            [
                ["held", "redownload"],
                ["redownload"; 2],
                ["redownload"; 2],
                ["forgotten", "redownload"],
            ],
        ),
        (
            "redownload of one who was forgotten",
            [
                ["held-forgotten", "redownload"],
                ["redownload"; 2],
                ["redownload"; 2],
                ["forgotten", "redownload"],
            ],
        ),
    ];

    fn line(before: &str) -> RosterLine {
        let mut line = RosterLine::new("a", State::Captured, Gate::Guarded);
        let (gate, awaits_capture) = match before {
            "held" => (Gate::Held, false),
            "guarded" => (Gate::Guarded, false),
            "released" => (Gate::Released, false),
            "forgotten" => (Gate::Guarded, true),
            "held-forgotten" => (Gate::Held, true),
            _ => (Gate::Redownload, false),
        };
        line.forgotten = u64::from(before.ends_with("forgotten"));
        line.with_gate(gate, awaits_capture)
    }

    #[test]
    fn each_gate_becomes_what_the_command_asks_for() {
        let now = UNIX_EPOCH + Duration::from_secs(7);
        for (before, [hold, release, unguard, forget]) in GATES {
            let before_change = line(before);
            for (change, wanted) in [
                (Change::Hold, hold),
                (Change::Release, release),
                (Change::Unguard, unguard),
                (Change::Forget, forget),
                (Change::Redownload, ["redownload"; 2]),
                (Change::Listed, [before_change.gate_word(); 2]),
                (Change::Restored, [before_change.gate_word(); 2]),
            ] {
                for (is_named, wanted) in [(true, wanted[0]), (false, wanted[1])] {
                    let after = change.after(&before_change, is_named, now);
                    assert_eq!(after.gate_word(), wanted, "{before}: {change:?} {is_named}");
                    let is_served = ["guarded", "released"].contains(&wanted);
                    let is_release = matches!(change, Change::Release | Change::Unguard);
                    assert_eq!(change.is_done(&after), !is_release || is_served);
                }
            }
        }
        let failed = RosterLine::new("a", State::Failed, Gate::Released);
        assert!(!Change::Unguard.is_done(&failed));
    }

    #[test]
    fn a_stamp_is_new_whatever_the_clock_says_and_notes_go_with_what_they_are_about() {
        let mut before = line("guarded");
        (before.forgotten, before.restored, before.unguarded) = (9, 9, 9);
        before.listed = true;
        let after = |change: Change, named| change.after(&before, named, UNIX_EPOCH);
        let forgotten = after(Change::Forget, false);
        assert_eq!((forgotten.forgotten, forgotten.listed, forgotten.unguarded), (10, false, 0));
        assert_eq!(after(Change::Restored, false).restored, 10);
        assert_eq!(after(Change::Unguard, false).unguarded, 10);
        assert_eq!(after(Change::Release, true).unguarded, 10);
        assert_eq!(after(Change::Release, false).unguarded, 9);
        assert_eq!(after(Change::Hold, true).unguarded, 9);
        before.listed = false;
        assert!(Change::Listed.after(&before, true, UNIX_EPOCH).listed);
    }
    #[test]
    fn a_rehearsal_is_undone_only_while_nobody_else_could_list_the_maildrop() {
        let held = line("held").rehearsing(100);
        let mut rehearsed = held.clone();
        rehearsed.rehearsed = true;
        assert_eq!(held.rehearsal, 100);
        let undo = |line: &RosterLine| {
            Change::UndoRehearsal.after(line, true, UNIX_EPOCH + Duration::from_secs(7))
        };
        let undone = undo(&rehearsed);
        assert_eq!((undone.rehearsal, undone.rehearsed, undone.undone), (0, false, 100));
        assert_eq!(undo(&undone).undone, 100, "there is nothing to undo");
        assert_eq!(undone.clone().rehearsing(7).rehearsal, 101, "a later one is not undone");

        let released = Change::Release.after(&rehearsed, true, UNIX_EPOCH);
        assert_eq!(undo(&released), released);
        let held_again = Change::Hold.after(&released, true, UNIX_EPOCH);
        assert!(held_again.rehearsed);
        assert_eq!(undo(&held_again).undone, 0, "clients may have listed it");
        assert_eq!(line("guarded").rehearsing(100).rehearsal, 0);
        let forgotten = Change::Forget.after(&rehearsed, true, UNIX_EPOCH);
        assert_eq!((forgotten.rehearsal, forgotten.undone), (0, 100));
        assert_eq!(undo(&forgotten).undone, 100);
    }
}
