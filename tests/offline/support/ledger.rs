//! A ledger as the plugin would have written it.

use uidl_keep::ledger::{Epoch, Ledger, Noted, Record, UnclaimedKeys};

/// The ledger of a user of whom the operator has said nothing.
pub fn ledger_of(user: &str, epoch: Epoch, next_order: u32, records: Vec<Record>) -> Ledger {
    Ledger {
        user: user.to_owned(),
        begun_after: 0,
        epoch,
        next_order,
        told: Vec::new(),
        restored: 0,
        unguarded: 0,
        rehearsal: 0,
        index: Noted::default(),
        native_from: None,
        unclaimed: UnclaimedKeys::default(),
        records,
    }
}
