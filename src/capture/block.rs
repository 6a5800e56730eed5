//! A block of a listing, ready to be written: [`ReadyBlock`].
#![forbid(unsafe_code)]

use crate::capture::draft::Captured;
use crate::listing;
use crate::maildrop::State;

/// One block, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyBlock {
    /// Its text; empty where not even the failure can be written.
    pub octets: Vec<u8>,
    /// Why it is not the whole truth; empty when all is well.
    pub losses: Vec<String>,
    /// Whose maildrop it is.
    pub user: String,
    /// Whether somebody should look at it, though nothing was lost.
    pub is_noted: bool,
    /// As in [`Captured::nameless`].
    pub nameless: usize,
    /// How many messages it has.
    pub messages: usize,
    /// Whether it only says that the maildrop could not be captured.
    pub has_failed: bool,
    /// Whether no client holds a UIDL of it.
    pub is_empty: bool,
}

impl ReadyBlock {
    /// The block of a captured maildrop. One that no listing can hold becomes a failed one.
    pub fn of(captured: Captured) -> Self {
        let Captured { mut maildrop, notes, mut losses, nameless, told_by: _ } = captured;
        let mut octets = Vec::new();
        if let Err(error) = listing::write_maildrop(&mut octets, &maildrop) {
            // It would make the whole listing unreadable.
            octets.clear();
            let fault = format!("no listing can hold this maildrop: {error}");
            maildrop.state = State::Failed;
            (maildrop.uidvalidity, maildrop.counter) = (None, None);
            maildrop.entries.clear();
            maildrop.spent.clear();
            maildrop.remarks = vec![fault.clone()];
            losses.push(fault);
            if listing::write_maildrop(&mut octets, &maildrop).is_err() {
                octets.clear();
            }
        }
        let (messages, has_failed) = (maildrop.entries.len(), maildrop.state == State::Failed);
        Self {
            octets,
            losses,
            user: maildrop.user,
            is_noted: !notes.is_empty(),
            nameless,
            messages,
            has_failed,
            is_empty: maildrop.state == State::Empty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::Reader;
    use crate::maildrop::Entry;
    use crate::uidl::Uidl;

    #[test]
    fn a_maildrop_that_no_listing_can_hold_is_a_failed_one() {
        let failed = Captured::failed("al".to_owned(), "x".to_owned(), "why".to_owned());
        let mut keyless = failed.clone();
        keyless.maildrop.state = State::Captured;
        keyless.maildrop.entries = vec![Entry::new(Uidl::new(b"1".to_vec()).unwrap())];
        for (captured, losses) in [(failed, 1), (keyless, 2)] {
            let block = ReadyBlock::of(captured);
            assert!(block.has_failed && block.messages == 0, "{block:?}");
            assert_eq!(block.losses.len(), losses);
            let blocks: Vec<_> = Reader::new(&block.octets[..]).map(Result::unwrap).collect();
            assert_eq!(blocks[0].state, State::Failed);
        }
    }
}
