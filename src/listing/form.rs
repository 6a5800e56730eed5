//! The words of a block, which reader and writer share.
#![forbid(unsafe_code)]

use crate::maildrop::{Entry, Maildrop, State};

/// The first word of a block's first line.
pub(super) const MAGIC: &str = "uidl-keep-listing";

/// The version of the form that is written, and the only one that is read.
pub const VERSION: &str = "1";

/// The longest line read or written, in octets, its line end not counted.
pub const MAX_LINE_OCTETS: usize = 64 * 1024;

pub(super) fn word_of(state: State) -> &'static str {
    match state {
        State::Captured => "captured",
        State::Empty => "empty",
        State::Failed => "failed",
    }
}

/// The number, from 0, of the last capture of a maildrop.
pub(super) fn last_capture(maildrop: &Maildrop) -> u32 {
    maildrop.captures.len().saturating_sub(1) as u32
}

pub(super) fn has_fingerprint(entry: &Entry) -> bool {
    [entry.header, entry.message, entry.origin].iter().any(Option::is_some)
}
