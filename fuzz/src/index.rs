//! The index: look-ups, the full read and the writer agree, and no look-up reads more than it
//! needs.

use std::io::Cursor;

use uidl_keep::index::{Index, IndexError, Writer};
use uidl_keep::maildrop::{Entry, Maildrop};

use super::forge;
use super::{Watched, check_message, check_uidl};

/// The most reads that a look-up makes: a node of each level, and the block.
const READS_OF_A_LOOKUP: u32 = 34;

/// Checks the input as it is, then with right checksums, then its blocks alone in a new index.
pub fn check(octets: &[u8]) {
    check_file(octets);
    check_file(&forge::index(octets));
    check_file(&forge::index_of_blocks(octets));
}

fn check_file(file: &[u8]) {
    let watched = Watched::new(file);
    let index = match Index::open(&watched) {
        Ok(index) => index,
        Err(error) => return check_error(error),
    };
    let mut all = Vec::new();
    let mut is_whole = true;
    for read in index.maildrops() {
        match read {
            Ok(maildrop) => {
                check_maildrop(&maildrop);
                all.push(maildrop);
            }
            Err(error) => {
                check_error(error);
                is_whole = false;
            }
        }
    }
    let verified = index.verify();
    let is_right = verified.is_ok();
    if let Err(error) = verified {
        check_error(error);
    }
    assert!(is_whole || !is_right, "verify misses what reading finds");

    for maildrop in &all {
        let reads = watched.reads.get();
        let found = index.maildrop(&maildrop.user);
        assert!(watched.reads.get() - reads <= READS_OF_A_LOOKUP);
        match found {
            Ok(Some(found)) => {
                check_maildrop(&found);
                assert_eq!(found.user, maildrop.user);
                assert!(!is_right || found == *maildrop);
            }
            Ok(None) => assert!(!is_right, "not found: {:?}", maildrop.user),
            Err(error) => {
                assert!(!is_right);
                check_error(error);
            }
        }
    }
    // The octets of the file make names that may be near to some in it.
    let text = String::from_utf8_lossy(&file[file.len() / 2..]);
    for absent in text.split(['\0', '@']).take(8).filter(|name| name.len() < 400) {
        match index.maildrop(absent) {
            Ok(Some(found)) => {
                assert_eq!(found.user, absent);
                assert!(!is_right || all.contains(&found));
            }
            Ok(None) => {}
            Err(error) => assert!(!is_right, "{error}"),
        }
    }
    if is_whole {
        let again = written(&all, index.is_final());
        let anew = Index::open(&again[..]).expect("ours");
        anew.verify().expect("ours");
        let read: Vec<_> = anew.maildrops().map(Result::unwrap).collect();
        assert_eq!(read, all);
        assert_eq!(forge::index(&again), again, "the forger follows the format");
        assert_eq!(written(&read, index.is_final()), again);
        if index.is_final() {
            assert_eq!(forge::index_of_blocks(&again), again, "the forger follows the format");
        }
    }
}

fn check_maildrop(maildrop: &Maildrop) {
    for uidl in maildrop.entries.iter().flat_map(Entry::uidls).chain(&maildrop.spent) {
        check_uidl(uidl.as_bytes());
    }
    let captures = maildrop.captures.len().max(1);
    for entry in &maildrop.entries {
        assert!(entry.first_capture <= entry.last_capture);
        assert!((entry.last_capture as usize) < captures);
    }
    assert!(maildrop.remarks.is_empty());
}

fn check_error(error: IndexError) {
    assert!(!matches!(error, IndexError::Io(_)), "{error}");
    check_message(error);
}

fn written(maildrops: &[Maildrop], is_final: bool) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), is_final).expect("memory");
    for maildrop in maildrops {
        writer.push(maildrop).expect("what was read can be written");
    }
    writer.finish().expect("memory").0.into_inner()
}
