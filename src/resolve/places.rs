//! The places of what has a key: [`PlacesByKey`].
#![forbid(unsafe_code)]

use std::hash::Hash;
use std::slice;

use hashbrown::HashMap;

use crate::maildrop::CapturedMaildrop;
use crate::uidl::UidlRef;

/// The places of all entries, or messages, that have a key.
///
/// There is no allocation for each key, for maildrops are large and a login's memory is not.
pub(super) struct PlacesByKey<K> {
    /// The keys, numbered as they come.
    numbers: HashMap<K, usize>,
    /// Where in `places` those of each key end.
    ends: Vec<usize>,
    /// The places of all that has one key stand together, in their order.
    places: Vec<usize>,
}

impl<K: Eq + Hash> PlacesByKey<K> {
    /// Takes places with their keys, in their order.
    pub(super) fn of(with_keys: impl Iterator<Item = (K, usize)>) -> Self {
        let mut numbers: HashMap<K, usize> = HashMap::new();
        let mut ends: Vec<usize> = Vec::new();
        let mut numbered: Vec<(usize, usize)> = Vec::new();
        for (key, place) in with_keys {
            let number = *numbers.entry(key).or_insert(ends.len());
            if number == ends.len() {
                ends.push(0);
            }
            ends[number] += 1;
            numbered.push((number, place));
        }
        // First each ends where it begins.
        let mut start = 0;
        for end in &mut ends {
            (*end, start) = (start, start + *end);
        }
        let mut places = vec![0; start];
        for (number, place) in numbered {
            places[ends[number]] = place;
            ends[number] += 1;
        }
        Self { numbers, ends, places }
    }

    /// The places of what has the key. What has it twice is there twice.
    pub(super) fn get(&self, key: &K) -> &[usize] {
        self.numbers.get(key).map_or(&[], |&number| self.numbered(number))
    }

    fn numbered(&self, number: usize) -> &[usize] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.places[start..self.ends[number]]
    }

    /// Each key with the places of what has it, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &[usize])> {
        self.numbers.iter().map(|(key, &number)| (key, self.numbered(number)))
    }

    /// Says whether nothing has a key.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// The entries by each UIDL that a client may know them by.
pub(super) fn entries_by_uidl(captured: Option<&CapturedMaildrop>) -> PlacesByKey<UidlRef<'_>> {
    let entries = captured.into_iter().flat_map(|captured| captured.entries().enumerate());
    PlacesByKey::of(entries.flat_map(|(e, entry)| entry.uidls().map(move |uidl| (uidl, e))))
}

/// The first of some entries that are free, while they are claimed one by one.
pub(super) struct FirstFree<'p> {
    most: usize,
    first: Vec<usize>,
    rest: slice::Iter<'p, usize>,
}

impl<'p> FirstFree<'p> {
    /// Finds at most so many of these.
    pub(super) fn of(places: &'p [usize], most: usize) -> Self {
        Self { most, first: Vec::new(), rest: places.iter() }
    }

    /// The first that are free now. An entry that is not free any more never becomes free again, so
    /// that all calls together pass over the entries once.
    pub(super) fn find(&mut self, is_free: impl Fn(usize) -> bool) -> &[usize] {
        self.first.retain(|&e| is_free(e));
        let free = self.rest.by_ref().copied().filter(|&e| is_free(e));
        self.first.extend(free.take(self.most - self.first.len()));
        &self.first
    }

    /// Those that were found last.
    pub(super) fn found(&self) -> &[usize] {
        &self.first
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::maildrop::{Entry, Maildrop, State};
    use crate::uidl::Uidl;
    use proptest::prelude::*;

    fn uidl(number: u8) -> Uidl {
        Uidl::new([b'a' + number]).unwrap()
    }

    #[test]
    fn claims_of_all_entries_but_the_first_ask_of_each_a_few_times() {
        const MOST: usize = 4;
        const MANY: usize = 1_000;
        let places: Vec<usize> = (0..MANY).collect();
        let mut first_free = FirstFree::of(&places, MOST);
        let (mut claimed, asked) = (0, Cell::new(0));
        loop {
            let is_free = |e: usize| {
                asked.set(asked.get() + 1);
                e == 0 || e > claimed
            };
            let [_, next, ..] = first_free.find(is_free)[..] else { break };
            claimed = next;
        }
        assert_eq!(claimed, MANY - 1);
        assert!(asked.get() <= (MOST + 1) * MANY, "{} times", asked.get());
    }

    proptest! {
        #[test]
        fn finds_the_entries_that_have_a_uidl(
            uidls in prop::collection::vec(prop::collection::vec(0..6u8, 1..4), 0..12),
        ) {
            let entries: Vec<Entry> = (uidls.iter())
                .map(|of| Entry {
                    earlier: of[1..].iter().map(|&number| uidl(number)).collect(),
                    ..Entry::new(uidl(of[0]))
                })
                .collect();
            let maildrop = Maildrop { entries, ..Maildrop::new("a", State::Captured) };
            let captured = CapturedMaildrop::from(&maildrop);
            let by_uidl = entries_by_uidl(Some(&captured));
            prop_assert_eq!(by_uidl.is_empty(), captured.is_empty());
            for number in 0..6 {
                let mut expected = Vec::new();
                for (e, of) in uidls.iter().enumerate() {
                    let times = of.iter().filter(|&&other| other == number).count();
                    expected.extend(vec![e; times]);
                }
                let uidl = uidl(number);
                prop_assert_eq!(by_uidl.get(&UidlRef::from(&uidl)), expected);
            }
        }

        #[test]
        fn the_first_that_are_free_are_those_that_a_search_from_the_start_finds(
            entries in 0..20usize,
            most in 1..5usize,
            claims in prop::collection::vec(0..20usize, 0..20),
        ) {
            let places: Vec<usize> = (0..entries).collect();
            let mut first_free = FirstFree::of(&places, most);
            for claimed in (0..=claims.len()).map(|until| &claims[..until]) {
                let is_free = |e: usize| !claimed.contains(&e);
                let searched: Vec<usize> =
                    places.iter().copied().filter(|&e| is_free(e)).take(most).collect();
                prop_assert_eq!(first_free.find(is_free), searched);
            }
        }
    }
}
