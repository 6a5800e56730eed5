//! What the rules say: [`Outcome`].
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::question::Need;
use crate::ledger::{Ledger, Provenance, Record};

/// What [`resolve`](super::resolve) says.
#[derive(Debug)]
pub enum Outcome<L = Ledger> {
    /// These facts are needed, each of the message at that place; call again with them.
    Ask(Vec<(usize, Need)>),
    /// What was captured is needed; call again with it.
    AskCaptured,
    /// Every rule was applied.
    Resolved(Box<Resolution<L>>),
    /// The rules forbid an answer now.
    Refused(Undecidable),
}

/// Why the rules forbid an answer: they could not tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecidable {
    /// A client that sees a half-copied maildrop forgets the rest.
    #[error(
        "{captured} messages were captured last, {messages} are here, {found} of them recognised: \
         {}", half_copied(*captured, *messages, *first_unknown)
    )]
    HalfCopied {
        /// Messages of the last capture that were recognised here.
        found: usize,
        /// Messages of the last capture that can be recognised.
        captured: usize,
        /// Messages in the maildrop.
        messages: usize,
        /// The UID of the first message that was not recognised.
        first_unknown: Option<u32>,
    },
    /// UIDs do not hold, and most of what clients hold is not there.
    #[error(
        "the mailbox was made anew, and of {left} messages that the last POP3 session left {found} \
         are here: restore the mailbox (its index, if its mail files are there: doveadm \
         force-resync); if the others were deleted, `uidl-keep release --unguarded` the user"
    )]
    MostAreGone {
        /// Messages that are here.
        found: usize,
        /// Messages that the last POP3 session left.
        left: usize,
    },
    /// More messages cannot be read than can be an accident.
    #[error("{unreadable} of {messages} messages, or more, cannot be read: mend the mailbox")]
    Unreadable {
        /// Messages that could not be read.
        unreadable: usize,
        /// Messages in the maildrop.
        messages: usize,
    },
    /// The index is older than the one that clients were told from.
    #[error(
        "its index is older than the one it was listed from ({what}): install the last index again"
    )]
    OlderIndex {
        /// What it has less of.
        what: &'static str,
    },
    /// Every order number is used up.
    #[error("all order numbers are used up: `uidl-keep forget` the user")]
    OrderExhausted,
}

fn half_copied(captured: usize, messages: usize, first_unknown: Option<u32>) -> String {
    match first_unknown {
        Some(uid) if messages * 2 >= captured => format!(
            "the others, the first is UID {uid}, have no name, header or content that was \
             captured. Was the copy changed on its way, or is this another mailbox's capture? \
             Compare one with `uidl-keep get`, and capture or copy again"
        ),
        _ => "finish the copy; if the others were deleted since, `uidl-keep release --unguarded` \
              the user"
            .to_owned(),
    }
}

/// What clients are told, and what the operator may want to know of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolution<L = Ledger> {
    /// The ledger from now on. For [`Purpose::Preview`](super::Purpose) it holds only what was
    /// listed or is kept.
    pub ledger: L,
    /// Answers for this session only, of messages that could not be read. Nothing is recorded of
    /// them. They stand last, so that a client that stops there has the rest.
    pub passing: Vec<Record>,
    /// The lowest next UID that the mailbox may have. A UID below it may make a UIDL that is spent.
    pub first_unspent_uid: u32,
    /// For the log.
    pub report: Report,
}

/// How the messages that were not listed before came by their UIDLs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many there are of each provenance.
    pub by_provenance: HashMap<Provenance, usize>,
    /// UIDs of messages whose names disagree.
    pub conflicts: Vec<u32>,
    /// UIDs of messages that could not be read: nothing is recorded of them.
    pub undecided: Vec<u32>,
    /// Entries with a key that may match, which no message has claimed yet.
    pub unclaimed: usize,
    /// Whether this was the first listing.
    pub is_first: bool,
    /// At a first listing: how many messages have their UIDL in common with another, as the old
    /// server gave it.
    pub repeated: usize,
}

impl Report {
    /// How many there are of a provenance.
    pub fn count(&self, provenance: Provenance) -> usize {
        self.by_provenance.get(&provenance).copied().unwrap_or_default()
    }
}
