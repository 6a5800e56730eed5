//! A block of a listing, ready to be written.

use uidl_keep::capture::draft::Captured;
use uidl_keep::listing;
use uidl_keep::maildrop::State;
use uidl_keep::text::printable;

/// One block, ready to be written.
pub struct Block {
    pub octets: Vec<u8>,
    /// Why it is not the whole truth; empty when all is well.
    pub losses: Vec<String>,
    /// Whose maildrop it is.
    pub user: String,
    /// Whether somebody should look at it, though nothing was lost.
    pub is_noted: bool,
    /// As in [`Captured::nameless`].
    pub nameless: usize,
    pub messages: usize,
    /// Whether it only says that the maildrop could not be captured.
    pub has_failed: bool,
}

impl Block {
    pub fn of(captured: Captured) -> Self {
        let Captured { mut maildrop, notes, mut losses, nameless } = captured;
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
        }
    }
}

/// The maildrops that somebody should look at, though nothing was lost.
#[derive(Default)]
pub struct Unusual {
    count: usize,
    first: Vec<String>,
}

impl Unusual {
    const MOST_NAMED: usize = 5;

    pub fn add(&mut self, block: &Block) {
        if block.is_noted {
            self.count += 1;
            if self.first.len() < Self::MOST_NAMED {
                self.first.push(printable(block.user.as_bytes()));
            }
        }
    }

    /// Which they are, of so many; `None` when there are none.
    pub fn said(&self, of: usize) -> Option<String> {
        let (count, first) = (self.count, self.first.join(", "));
        let more = if count > self.first.len() { ", ..." } else { "" };
        (count > 0).then(|| {
            format!(
                "{first}{more}: {count} of {of} maildrops have something unusual about them: see \
                 the lines \"remark\" of the listing"
            )
        })
    }
}
