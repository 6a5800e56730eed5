//! UIDLs that some client may hold: [`KnownUidls`].
#![forbid(unsafe_code)]

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::ledger::Record;
use crate::maildrop::CapturedMaildrop;
use crate::uidl::UidlRef;

/// The UIDLs that were captured, and those of the ledger, each once.
///
/// It has their numbers alone, five octets each: maildrops are large, and a login's memory is not.
pub(super) struct KnownUidls<'a> {
    captured: Option<&'a CapturedMaildrop>,
    records: &'a [Record],
    /// Numbers of captured UIDLs, and above them those of records.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<'a> KnownUidls<'a> {
    /// Knows none.
    pub(super) fn none() -> Self {
        let (numbers, hasher) = (HashTable::new(), DefaultHashBuilder::default());
        Self { captured: None, records: &[], numbers, hasher }
    }

    /// Knows all of these, and says how many different ones were captured.
    pub(super) fn of(
        captured: Option<&'a CapturedMaildrop>,
        records: &'a [Record],
    ) -> (Self, usize) {
        let count = captured.map_or(0, CapturedMaildrop::uidl_count);
        let numbers = HashTable::with_capacity(count.max(records.len()));
        let mut known = Self { captured, records, numbers, ..Self::none() };
        (0..count).for_each(|number| known.add(number));
        let of_captured = known.numbers.len();
        (count..count + records.len()).for_each(|number| known.add(number));
        (known, of_captured)
    }

    fn add(&mut self, number: usize) {
        let Self { captured, records, .. } = *self;
        let uidl = |number: u32| uidl_of(captured, records, number as usize);
        let number = u32::try_from(number).expect("a maildrop fits 32 bits");
        let hash = |number: &u32| self.hasher.hash_one(uidl(*number));
        let is_it = |other: &u32| uidl(*other) == uidl(number);
        self.numbers.entry(hash(&number), is_it, hash).or_insert(number);
    }

    /// Says whether the UIDL is known.
    pub(super) fn contains(&self, uidl: UidlRef<'_>) -> bool {
        let Self { captured, records, .. } = *self;
        let is_it = |number: &u32| uidl_of(captured, records, *number as usize) == uidl;
        self.numbers.find(self.hasher.hash_one(uidl), is_it).is_some()
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = UidlRef<'a>> {
        let Self { captured, records, .. } = *self;
        self.numbers.iter().map(move |number| uidl_of(captured, records, *number as usize))
    }
}

fn uidl_of<'a>(
    captured: Option<&'a CapturedMaildrop>,
    records: &'a [Record],
    number: usize,
) -> UidlRef<'a> {
    match captured {
        Some(captured) if number < captured.uidl_count() => captured.uidl(number),
        Some(captured) => UidlRef::from(&records[number - captured.uidl_count()].uidl),
        None => UidlRef::from(&records[number].uidl),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ledger::{NameHashes, Provenance};
    use crate::maildrop::{Entry, Maildrop, State};
    use crate::uidl::Uidl;
    use proptest::prelude::*;

    fn uidl(of: u8) -> Uidl {
        Uidl::new([b'a' + of % 20]).unwrap()
    }

    proptest! {
        #[test]
        fn knows_what_a_set_knows(
            entries in prop::option::of(prop::collection::vec(0..9u8, 0..9)),
            spent in prop::collection::vec(0..12u8, 0..4),
            records in prop::collection::vec(0..15u8, 0..9),
        ) {
            let captured = entries.as_ref().map(|entries| Maildrop {
                entries: entries.iter().map(|&of| Entry {
                    earlier: (9..9 + of % 3).map(uidl).collect(),
                    ..Entry::new(uidl(of))
                }).collect(),
                spent: spent.into_iter().map(uidl).collect(),
                ..Maildrop::new("a", State::Captured)
            });
            let records: Vec<Record> = records.into_iter().map(|of| Record {
                uid: 1,
                order: 1,
                uidl: uidl(of),
                provenance: Provenance::Native,
                names: NameHashes::new(),
                entry: None,
            }).collect();
            let mut expected: HashSet<Uidl> = captured.iter().flat_map(|captured| {
                let uidls = captured.entries.iter().flat_map(Entry::uidls);
                uidls.chain(&captured.spent).cloned()
            }).collect();
            let of_captured = expected.len();
            expected.extend(records.iter().map(|record| record.uidl.clone()));
            let captured = captured.as_ref().map(CapturedMaildrop::from);
            let (known, known_of_captured) = KnownUidls::of(captured.as_ref(), &records);
            prop_assert_eq!(known_of_captured, of_captured);
            for of in 0..20 {
                let is_known = known.contains(UidlRef::from(&uidl(of)));
                prop_assert_eq!(is_known, expected.contains(&uidl(of)));
            }
            let mut all: Vec<Uidl> = known.iter().map(UidlRef::to_uidl).collect();
            all.sort();
            let mut expected: Vec<Uidl> = expected.into_iter().collect();
            expected.sort();
            prop_assert_eq!(all, expected);
        }
    }
}
