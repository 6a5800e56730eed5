//! `data/v2.idx`, written by the first release, opens for ever, and we still write the same octets.
//!
//! It holds the maildrops of `index_fixture`. This writes it (once, for version 2):
//! `UIDL_KEEP_WRITE_GOLDEN=1 cargo test --test model index_golden`.

use uidl_keep::index::Index;

use crate::support::index::{ABSENT, maildrops, small_index};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/v2.idx");

#[test]
fn the_first_index_ever_written_still_opens_and_says_the_same() {
    if std::env::var_os("UIDL_KEEP_WRITE_GOLDEN").is_some() {
        std::fs::write(PATH, small_index()).unwrap();
    }
    let golden = std::fs::read(PATH).unwrap();
    let index = Index::open(&golden[..]).unwrap();
    assert!(index.is_final());
    assert_eq!((index.maildrop_count(), index.entry_count()), (10, 28));
    assert_eq!((index.len_octets(), index.normaliser()), (golden.len() as u64, 1));
    index.verify().unwrap();
    for maildrop in maildrops() {
        assert_eq!(index.maildrop(&maildrop.user).unwrap(), Some(maildrop));
    }
    for user in ABSENT {
        assert_eq!(index.maildrop(user).unwrap(), None);
    }
    let all: Vec<_> = index.maildrops().map(Result::unwrap).collect();
    assert_eq!(all, maildrops());
}

#[test]
fn the_same_maildrops_still_make_the_same_bytes() {
    assert!(std::fs::read(PATH).unwrap() == small_index());
}
