//! Rule 4: where messages stand that are listed for the first time.
#![forbid(unsafe_code)]

use crate::ledger::{FIRST_ORDER, MAX_NEXT_ORDER};

/// Whether a message that is not in the ledger was listed, as far as the mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WasListed {
    Surely,
    /// A dbox may have given its UID anew.
    Perhaps,
    No,
}

/// Where a message that is not in the ledger stands in a listing. A lower rank stands before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListingRank {
    pub(super) was_listed: WasListed,
    pub(super) group: Group,
    pub(super) uid: u32,
    /// An order number of ours that storage has beside what the message is told.
    pub(super) replayed: Option<u32>,
}

/// Some messages may claim an entry without a number of ours, while others have one. Then the
/// others came here from another server that told them, and the old mail came by another way. So
/// the numbers do not say what stands before the old mail. They only order what was told.
pub(super) fn replay_all_or_none<T>(fresh: &mut [(ListingRank, T)]) {
    let lacks = |(rank, _): &(ListingRank, T)| {
        matches!(rank.group, Group::Captured(_)) && rank.replayed.is_none()
    };
    if fresh.iter().any(lacks) {
        for (rank, _) in fresh {
            if let (Some(order), Group::Unknown) = (rank.replayed.take(), rank.group) {
                rank.group = Group::Stored(order);
            }
        }
    }
}

/// The groups of messages that are listed for the first time, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// It claims an entry: by the place of that, in the old order.
    Captured(u32),
    /// A stored UIDL answers it: by the number that another server gave it.
    Stored(u32),
    Unknown,
}

/// Whether an order number that storage has was given by us.
pub(super) fn is_ours(order: u32) -> bool {
    (FIRST_ORDER..LAST_STORED_ORDER).contains(&order)
}

/// A stored number beyond this is no number of ours, and leaves room for those to come.
const LAST_STORED_ORDER: u32 = MAX_NEXT_ORDER / 2;
