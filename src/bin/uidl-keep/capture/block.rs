//! The maildrops of a capture that somebody should look at: [`Unusual`].

pub use uidl_keep::capture::block::ReadyBlock as Block;
use uidl_keep::text::printable;

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

    /// Says which maildrops these are, among `of`; `None` when there are none.
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
