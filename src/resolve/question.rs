//! What the rules are asked: [`Situation`] and [`Memory`].
#![forbid(unsafe_code)]

use crate::format::UidlFormat;
use crate::key::Match;
use crate::ledger::{Epoch, Ledger, Mark};
use crate::maildrop::CapturedMaildrop;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A POP3 client is about to be told: every message gets an answer, for ever.
    Listing {
        /// Whether a first listing is refused while fewer than half of the messages are there.
        guarded: bool,
    },
    /// doveadm or dsync asks: they are told only what was listed or is kept, and nothing is frozen.
    Preview,
}

/// A fact about a message that may not have been looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fact<T> {
    /// Not looked for yet.
    #[default]
    NotAsked,
    /// Looked for: there is none.
    Absent,
    /// Looked for and found.
    Is(T),
}

impl<T> Fact<T> {
    /// What was found, if it was looked for.
    pub fn found(option: Option<T>) -> Self {
        option.map_or(Self::Absent, Self::Is)
    }

    pub(super) fn is_asked(&self) -> bool {
        !matches!(self, Self::NotAsked)
    }

    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::NotAsked | Self::Absent => None,
        }
    }
}

/// What is known of the maildrop as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What the old server said. `None`: it was not looked up yet, and need not be where the ledger
    /// says that no message there could claim any of it.
    pub captured: Option<&'a CapturedMaildrop>,
    /// A digest of what a new message is judged by, whether `captured` was looked up or not: see
    /// [`Noted::basis`](crate::ledger::Noted::basis).
    pub basis: [u8; 16],
    /// Whether no more captures will follow. Goes with `captured`.
    pub is_final: bool,
    /// What is remembered of what clients were told.
    pub memory: Memory<'a>,
    /// What the operator has said of the maildrop.
    pub stamps: Stamps,
    /// What the mailbox's UIDs go with.
    pub epoch: Epoch,
    /// Whether it is a Maildir. Then `dovecot-uidlist` says which UID is which name.
    pub is_maildir: bool,
    /// `pop3_uidl_format`, where it is one that we can follow.
    pub native: Option<&'a UidlFormat>,
    /// Which keys may match.
    pub keys: Match,
    /// What the answer is for.
    pub purpose: Purpose,
    /// The stamp of the rehearsal that lists, as the roster has it. 0: a client lists.
    pub rehearsal: u64,
}

/// What is remembered of what clients of the maildrop were told. Each memory may be lost, or older
/// than the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory<'a> {
    /// The ledger.
    pub ledger: Option<&'a Ledger>,
    /// Its mark, in the lock's file.
    pub mark: Option<&'a Mark>,
}

/// What the roster says of the maildrop beside its gate, each in seconds since 1970, 0 for never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamps {
    /// When all that is ours was last forgotten. A ledger that was begun before is void, and its
    /// UIDLs stay spent.
    pub forgotten: u64,
    /// When the operator said that all there is was put back from a backup.
    pub restored: u64,
    /// When the operator said that what is missing now may be missing.
    pub unguarded: u64,
    /// Whether it was listed before, on another storage.
    pub listed: bool,
}

/// What must be found out about a message before the rules can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Its names, `stored` and `stored_order`.
    Names,
    /// `header` and `origin`, and whether they name it.
    Header,
    /// `octets`.
    Octets,
    /// `message` and `body`, and with them all that [`Need::Header`] asks for.
    Message,
    /// `received`.
    Received,
    /// `native`.
    Native,
}
