//! How far a mailbox has given UIDs, and which of them were told: [`Epoch`], [`Told`].
#![forbid(unsafe_code)]

/// The most UIDVALIDITYs that are remembered. The oldest are forgotten beyond that.
pub const MAX_TOLD: usize = 128;

/// The octets of a [`Told`] in a ledger.
pub(super) const TOLD_OCTETS: usize = 8;

/// What UIDs go with, and how far the mailbox has given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epoch {
    /// The mailbox's UIDVALIDITY.
    pub uidvalidity: u32,
    /// The UID that the next message gets. A ledger and a mark have the highest that the mailbox
    /// ever had at a listing under this UIDVALIDITY. A mailbox that counts below it has begun to
    /// count anew.
    pub next_uid: u32,
    /// The number of Dovecot's index files (`indexid` in `mail-index.h`). An index that is made
    /// anew has another, and may give UIDs anew where the old one was lost.
    pub index_id: u32,
}

impl Epoch {
    /// Says whether the mailbox, as it is `now`, has the same UIDVALIDITY and has not counted back.
    pub fn goes_on_in(self, now: Self) -> bool {
        self.uidvalidity == now.uidvalidity && self.next_uid <= now.next_uid
    }

    /// The numbers that are told once all messages of this epoch are.
    pub fn told(self) -> Told {
        Told { uidvalidity: self.uidvalidity, below: self.next_uid }
    }
}

/// All numbers below `below`: they were told, or may have been, in UIDLs that are made of a UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Told {
    /// The UIDVALIDITY that they were told under.
    pub uidvalidity: u32,
    /// The first UID that was not told.
    pub below: u32,
}

/// Joins what two memories know of told numbers: the higher bound of each UIDVALIDITY counts.
pub fn join_told(told: &mut Vec<Told>, more: impl IntoIterator<Item = Told>) {
    for Told { uidvalidity, below } in more {
        match told.iter_mut().find(|known| known.uidvalidity == uidvalidity) {
            Some(known) => known.below = known.below.max(below),
            None => told.push(Told { uidvalidity, below }),
        }
    }
}
