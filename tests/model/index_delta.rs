//! An index that is made upon another is, octet by octet, the one that is made of all maildrops at
//! once, and costs what changes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Cursor};

use proptest::prelude::*;
use uidl_keep::file::read_at::ReadAt;
use uidl_keep::index::{Index, Writer};
use uidl_keep::maildrop::{Maildrop, State};

use crate::support::index::index_of;

/// An index in memory that counts what is read of it, and how often little is read.
struct Counted<'a> {
    octets: &'a [u8],
    reads: Cell<u32>,
}

impl ReadAt for Counted<'_> {
    fn len_octets(&self) -> io::Result<u64> {
        self.octets.len_octets()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.reads.set(self.reads.get() + 1);
        self.octets.read_at(offset, len)
    }
}

fn maildrop(user: &str, source: u8) -> Maildrop {
    Maildrop { source: source.to_string(), ..Maildrop::new(user, State::Empty) }
}

/// The index of old maildrops in which some are new, made by copying the rest.
fn made_upon<S: ReadAt>(old: &Index<S>, new: &BTreeMap<String, Maildrop>) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), old.is_final()).unwrap();
    let mut left = old.maildrops();
    for (user, maildrop) in new {
        while let Some(subtree) = left.subtree_before(Some(user)).unwrap() {
            writer.copy(old, subtree).unwrap();
        }
        if let Some(before) = left.next_of(user).unwrap() {
            assert_eq!(before.user, *user);
        }
        writer.push(maildrop).unwrap();
    }
    while let Some(subtree) = left.subtree_before(None).unwrap() {
        writer.copy(old, subtree).unwrap();
    }
    writer.finish().unwrap().0.into_inner()
}

fn some_maildrops(most: usize) -> impl Strategy<Value = BTreeMap<String, Maildrop>> {
    // Hashes of such names begin with up to three zeros.
    prop::collection::btree_map(0..3000_u32, any::<u8>(), 0..most).prop_map(|all| {
        let of = |(number, source): (u32, u8)| {
            let user = format!("{number:04}");
            (user.clone(), maildrop(&user, source))
        };
        all.into_iter().map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_made_upon_another_is_as_if_made_at_once(
        old in some_maildrops(600), new in some_maildrops(30), is_final in any::<bool>(),
    ) {
        let all: Vec<Maildrop> = old.values().cloned().collect();
        let before = index_of(&all, is_final);
        let upon = made_upon(&Index::open(&before[..]).unwrap(), &new);
        let mut joined = old.clone();
        joined.extend(new.clone());
        let all: Vec<Maildrop> = joined.into_values().collect();
        prop_assert!(upon == index_of(&all, is_final));
        let upon = Index::open(&upon[..]).unwrap();
        upon.verify().unwrap();
        for (user, maildrop) in new.iter().chain(&old) {
            let kept = new.get(user).unwrap_or(maildrop);
            prop_assert_eq!(upon.maildrop(user).unwrap(), Some(kept.clone()));
        }
    }

    #[test]
    fn two_indexes_have_the_pieces_in_common_that_hold_the_same(
        old in some_maildrops(200), new in some_maildrops(10),
    ) {
        let all: Vec<Maildrop> = old.values().cloned().collect();
        let before = index_of(&all, true);
        let before = Index::open(&before[..]).unwrap();
        let upon = made_upon(&before, &new);
        let upon = Index::open(&upon[..]).unwrap();
        let mut differs = Vec::new();
        let mut left = before.maildrops();
        while let Some(maildrop) = left.next_unlike(&upon).unwrap() {
            differs.push(maildrop.user);
        }
        let changed = |(user, maildrop): (&String, &Maildrop)| {
            let is_changed = new.get(user).is_some_and(|new| new != maildrop);
            is_changed.then(|| user.clone())
        };
        prop_assert_eq!(differs, old.iter().filter_map(changed).collect::<Vec<_>>());
    }
}

#[test]
fn one_change_reads_a_few_nodes_however_many_maildrops_there_are() {
    let user = |number: u32| format!("{number:06}@example.com");
    let mut reads_of = Vec::new();
    for count in [2_000, 20_000] {
        let all: Vec<Maildrop> = (0..count).map(|number| maildrop(&user(number), 0)).collect();
        let octets = index_of(&all, true);
        let counted = Counted { octets: &octets, reads: Cell::new(0) };
        let index = Index::open(&counted).unwrap();
        let before = counted.reads.get();
        let new = BTreeMap::from([(user(777), maildrop(&user(777), 1))]);
        let upon = made_upon(&index, &new);
        assert_eq!(upon.len(), octets.len());
        reads_of.push(counted.reads.get() - before);
        let before = counted.reads.get();
        index.maildrop(&user(778)).unwrap().unwrap();
        assert!(counted.reads.get() - before <= 8);
    }
    // Each subtree that is copied is a read here, and a node names few.
    assert!(reads_of.iter().all(|reads| *reads < 300), "{reads_of:?}");
}
