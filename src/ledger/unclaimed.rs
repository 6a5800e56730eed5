//! What a new message could still claim: [`UnclaimedKeys`].
#![forbid(unsafe_code)]

use crate::key::{Depth, Fingerprint};

/// The octets of a key that are kept.
pub(super) const KEY_OCTETS: usize = 8;

/// The first octets of a key. A name's are its [`NameHash`](super::NameHash).
pub type KeyStart = [u8; KEY_OCTETS];

/// The keys of the entries that no record claims, as far as they may match. A new message that has
/// none of them can claim nothing.
///
/// They are cut short, and do not say of which kind they are: a message that seems to have one may
/// have none. So a key that is found only says that the rules must look. A key that is not found is
/// certain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnclaimedKeys {
    /// Each once, ascending.
    keys: Vec<KeyStart>,
    reads: Option<Depth>,
}

impl UnclaimedKeys {
    /// A ledger has no more of them. A maildrop of which more is unclaimed is not settled.
    pub const MOST: usize = 1 << 20;

    /// Takes the keys in any order, and what must be read of a message to know all of its own.
    pub fn new(mut keys: Vec<KeyStart>, reads: Option<Depth>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self { keys, reads }
    }

    /// The first octets of a fingerprint.
    pub fn start_of(print: &Fingerprint) -> KeyStart {
        print.0[..KEY_OCTETS].try_into().expect("a fingerprint is longer")
    }

    /// Says whether one of the keys begins so.
    pub fn has(&self, start: KeyStart) -> bool {
        self.keys.binary_search(&start).is_ok()
    }

    /// What must be read of a message to know its keys, beside its names. `None`: nothing.
    pub fn reads(&self) -> Option<Depth> {
        self.reads
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Says whether no new message can claim anything.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes them from a file. `None`: they do not ascend, and could not be searched.
    pub(super) fn of_octets(octets: &[u8], reads: Option<Depth>) -> Option<Self> {
        let keys = octets.chunks_exact(KEY_OCTETS);
        let keys: Vec<KeyStart> = keys.map(|key| key.try_into().expect("so many octets")).collect();
        keys.is_sorted_by(|a, b| a < b).then_some(Self { keys, reads })
    }

    /// The octets that a file has of them.
    pub(super) fn octets(&self) -> &[u8] {
        self.keys.as_flattened()
    }
}
