//! What the rules are asked: [`Situation`], [`Memory`] and [`Message`].
#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};

use arrayvec::ArrayVec;

use crate::format::UidlFormat;
use crate::key::{FileKey, Fingerprint, Match};
use crate::ledger::{Epoch, Ledger, Mark, NameHash};
use crate::maildrop::CapturedMaildrop;
use crate::uidl::Uidl;

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

/// One message of the new maildrop, as far as is known.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its UID.
    pub uid: u32,
    /// Its name in `dovecot-uidlist`, where the maildrop is a Maildir. It costs nothing.
    pub uidlist_name: Option<NameHash>,
    /// Its base file name and its GUID, as far as the storage has them; asked for as
    /// [`Need::Names`].
    pub names: Fact<ArrayVec<FileKey, 2>>,
    /// The UIDL that Dovecot's storage holds for it (`P`); asked for as [`Need::Names`].
    pub stored: Option<Uidl>,
    /// The order number that Dovecot's storage holds for it (`O`); asked for as [`Need::Names`].
    pub stored_order: Option<u32>,
    /// What was found out beyond its names.
    pub details: Details,
    /// It could not be read, and cannot be downloaded either.
    pub unreadable: bool,
}

/// What was found out about a message beyond its names.
///
/// Most messages of a large maildrop are known by their names alone. So it takes room only once
/// something was found.
#[derive(Debug, Clone, Default)]
pub struct Details(Option<Box<Detail>>);

/// The facts of [`Details`].
#[derive(Debug, Clone, Default)]
pub struct Detail {
    /// Asked for as [`Need::Header`].
    pub header: Fact<Fingerprint>,
    /// Whether its header names it: see [`Fingerprints`](crate::key::Fingerprints). Goes with
    /// `header`.
    pub names_itself: bool,
    /// Asked for as [`Need::Header`].
    pub origin: Fact<Fingerprint>,
    /// Whether its header names it without what relays add. Goes with `origin`.
    pub origin_names_itself: bool,
    /// Its size with CRLF line ends; asked for as [`Need::Octets`].
    pub octets: Fact<u64>,
    /// Asked for as [`Need::Message`].
    pub message: Fact<Fingerprint>,
    /// Its body alone: what redelivery leaves as it is. Asked for as [`Need::Message`].
    pub body: Fact<Fingerprint>,
    /// When the new server received it, in seconds since 1970; asked for as [`Need::Received`].
    pub received: Fact<i64>,
    /// What Dovecot alone would give; asked for as [`Need::Native`].
    pub native: Fact<Uidl>,
}

impl Detail {
    const NONE: Self = Self {
        header: Fact::NotAsked,
        names_itself: false,
        origin: Fact::NotAsked,
        origin_names_itself: false,
        octets: Fact::NotAsked,
        message: Fact::NotAsked,
        body: Fact::NotAsked,
        received: Fact::NotAsked,
        native: Fact::NotAsked,
    };
}

impl From<Detail> for Details {
    fn from(detail: Detail) -> Self {
        Self(Some(Box::new(detail)))
    }
}

impl Deref for Details {
    type Target = Detail;

    fn deref(&self) -> &Detail {
        self.0.as_deref().unwrap_or(&Detail::NONE)
    }
}

impl DerefMut for Details {
    fn deref_mut(&mut self) -> &mut Detail {
        self.0.get_or_insert_with(|| Box::new(Detail::NONE))
    }
}

impl Message {
    pub(super) fn names(&self) -> &[FileKey] {
        self.names.get().map_or(&[], ArrayVec::as_slice)
    }

    /// Its names as records have them.
    pub(super) fn name_hashes(&self) -> impl Iterator<Item = NameHash> + '_ {
        self.names().iter().copied().map(Ledger::name_of)
    }
}

/// What is known of the maildrop as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What the old server said. `None`: it was not looked up yet, and need not be where the ledger
    /// says that nothing is left to claim.
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
