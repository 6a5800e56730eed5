//! A block of a listing, ready to be written.

use uidl_keep::capture::Captured;
use uidl_keep::listing;
use uidl_keep::maildrop::State;

/// One block, ready to be written.
pub struct Block {
    pub octets: Vec<u8>,
    /// Why it is not the whole truth; empty when all is well.
    pub losses: Vec<String>,
    /// How much there is to say of it, losses included.
    pub remarks: usize,
    pub messages: usize,
    /// Whether it only says that the maildrop could not be captured.
    pub has_failed: bool,
}

impl Block {
    pub fn of(captured: Captured) -> Self {
        let Captured { mut maildrop, mut losses } = captured;
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
        Self { octets, losses, remarks: maildrop.remarks.len(), messages, has_failed }
    }
}
