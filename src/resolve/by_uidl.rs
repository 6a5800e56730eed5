//! Which entries a client may know by a UIDL: [`EntriesByUidl`].
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ops::Range;
use std::slice;

use crate::maildrop::Entry;
use crate::uidl::Uidl;

/// The entries by each UIDL that a client may know them by.
///
/// It is two allocations, for maildrops are large and a login's memory is not.
pub(super) struct EntriesByUidl<'a> {
    ranges: HashMap<&'a Uidl, Range<usize>>,
    /// The places of all entries with one UIDL stand together, in the old order.
    places: Vec<usize>,
}

impl<'a> EntriesByUidl<'a> {
    pub(super) fn of(entries: &'a [Entry]) -> Self {
        let uidls = || {
            let entries = entries.iter().enumerate();
            entries.flat_map(|(e, entry)| entry.uidls().map(move |uidl| (uidl, e)))
        };
        let mut ranges: HashMap<&Uidl, Range<usize>> = HashMap::with_capacity(entries.len());
        for (uidl, _) in uidls() {
            ranges.entry(uidl).or_default().end += 1;
        }
        let mut start = 0;
        for range in ranges.values_mut() {
            let len = range.len();
            *range = start..start;
            start += len;
        }
        let mut places = vec![0; start];
        for (uidl, e) in uidls() {
            let range = ranges.get_mut(uidl).expect("each was counted");
            places[range.end] = e;
            range.end += 1;
        }
        Self { ranges, places }
    }

    /// The places of the entries with the UIDL, ascending. An entry that has it twice is there
    /// twice.
    pub(super) fn get(&self, uidl: &Uidl) -> &[usize] {
        self.ranges.get(uidl).map_or(&[], |range| &self.places[range.clone()])
    }

    /// Says whether the entry at `e` has the UIDL.
    pub(super) fn has(&self, uidl: &Uidl, e: usize) -> bool {
        self.get(uidl).binary_search(&e).is_ok()
    }
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
            let by_uidl = EntriesByUidl::of(&entries);
            for number in 0..6 {
                let mut expected = Vec::new();
                for (e, of) in uidls.iter().enumerate() {
                    let times = of.iter().filter(|&&other| other == number).count();
                    expected.extend(vec![e; times]);
                    prop_assert_eq!(by_uidl.has(&uidl(number), e), times > 0);
                }
                prop_assert_eq!(by_uidl.get(&uidl(number)), expected);
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
