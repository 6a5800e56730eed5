//! What the rules have decided, as the new ledger: [`Conclusion`].
#![forbid(unsafe_code)]

use hashbrown::HashMap;

use super::question::Fact;
use super::run::{Matched, MessageState, Run};
use crate::ledger::{AnyLedger, LedgerHead, Provenance, Record, RecordRef, Told, UnclaimedKeys};

/// The new ledger of a maildrop. Nothing is copied of messages, entries and the old ledger: each
/// record is made as it is looked at.
pub struct Conclusion<'r, 'a> {
    run: &'r Run<'a>,
    head: LedgerHead,
    told: Vec<Told>,
    unclaimed: UnclaimedKeys,
    /// The claims of messages that are gone, by their order.
    gone: Vec<&'a Record>,
    /// The order numbers of messages that were not in the old ledger, by their places.
    orders: &'r [u32],
    /// The entries that records of the old ledger claim, by their order numbers.
    entry_of: &'r HashMap<u32, u32>,
}

impl<'r, 'a> Conclusion<'r, 'a> {
    pub(super) fn of(
        run: &'r Run<'a>,
        head: LedgerHead,
        orders: &'r [u32],
        entry_of: &'r HashMap<u32, u32>,
    ) -> Self {
        let unclaimed = UnclaimedKeys::default();
        Self { run, head, told: run.all_told(), unclaimed, gone: run.gone(), orders, entry_of }
    }

    /// Says that the maildrop is settled.
    pub(super) fn settle(&mut self, native_from: u32, unclaimed: UnclaimedKeys) {
        self.head.native_from = Some(native_from);
        self.unclaimed = unclaimed;
    }

    /// The record of the message at `m`. `None`: nothing is recorded of it.
    #[inline]
    fn record(&self, m: usize) -> Option<RecordRef<'_>> {
        match self.run.states[m] {
            MessageState::Listed(record) => Some(self.listed(m, record)),
            MessageState::Matched(matched) => Some(self.matched(m, matched)),
            MessageState::Open | MessageState::Unknown => None,
        }
    }

    #[inline]
    fn matched(&self, m: usize, matched: Matched) -> RecordRef<'_> {
        let message = &self.run.messages[m];
        RecordRef {
            uid: message.uid,
            order: self.orders[m],
            uidl: self.run.uidl_of(m, matched).as_bytes(),
            provenance: matched.provenance,
            names: message.name_hashes(),
            entry: matched.entry,
        }
    }

    /// A listed message's record, with the names that it bears now. It was known by UID or by a
    /// name.
    fn listed(&self, m: usize, record: &'a Record) -> RecordRef<'_> {
        let message = &self.run.messages[m];
        let names = match message.names() {
            Fact::Is(_) => message.name_hashes(),
            Fact::NotAsked | Fact::Absent => record.names.clone(),
        };
        // A memory with nothing but UIDs must not take another message's native UIDL for this
        // one's.
        let epoch = self.run.situation.epoch;
        let moved = message.uid != record.uid
            || self.run.ledger.is_some_and(|ledger| ledger.epoch.uidvalidity != epoch.uidvalidity);
        let provenance = match record.provenance {
            Provenance::Native if moved => Provenance::Derived,
            provenance => provenance,
        };
        let (uid, entry) = (message.uid, self.entry_now(record));
        RecordRef { uid, names, entry, provenance, ..RecordRef::from(record) }
    }

    /// The record of a message that is gone.
    fn gone(&self, record: &'a Record) -> RecordRef<'a> {
        RecordRef { uid: 0, entry: self.entry_now(record), ..RecordRef::from(record) }
    }

    /// The entry that a record of the old ledger claims, as its place in the index of now.
    fn entry_now(&self, record: &Record) -> Option<u32> {
        match self.run.situation.captured {
            Some(_) => self.entry_of.get(&record.order).copied(),
            None => record.entry,
        }
    }
}

impl AnyLedger for Conclusion<'_, '_> {
    fn user(&self) -> &str {
        self.run.user
    }

    fn head(&self) -> LedgerHead {
        self.head
    }

    fn told(&self) -> &[Told] {
        &self.told
    }

    fn unclaimed(&self) -> &UnclaimedKeys {
        &self.unclaimed
    }

    fn records(&self) -> impl DoubleEndedIterator<Item = RecordRef<'_>> + Clone {
        let gone = self.gone.iter().map(|record| self.gone(record));
        gone.chain((0..self.run.messages.len()).filter_map(|m| self.record(m)))
    }
}
