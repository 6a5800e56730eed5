//! A damaged index: every byte flipped, every length truncated. An error, or the same answer.

use uidl_keep::index::{Error, Index};
use uidl_keep::maildrop::Maildrop;

mod index_fixture;
use index_fixture::{ABSENT, USERS, small_index};

/// What a login would be told: of each user in the index and of some who are not.
fn answers(index: &[u8]) -> Vec<Result<Option<Maildrop>, Error>> {
    let users = USERS.iter().chain(ABSENT);
    users.map(|user| Index::open(index).and_then(|index| index.maildrop(user))).collect()
}

/// Panics if any answer is neither an error nor what `sound` says.
fn assert_error_or_same(damaged: &[u8], sound: &[Option<Maildrop>], how: &str) {
    for (answer, sound) in answers(damaged).into_iter().zip(sound) {
        match answer {
            Ok(answer) => assert_eq!(&answer, sound, "{how}"),
            Err(Error::Io(error)) => panic!("{how}: read past what was checked: {error}"),
            Err(_) => {}
        }
    }
}

fn sound_answers(index: &[u8]) -> Vec<Option<Maildrop>> {
    let sound: Vec<_> = answers(index).into_iter().map(Result::unwrap).collect();
    assert_eq!(sound.iter().flatten().count(), USERS.len());
    sound
}

#[test]
fn a_flipped_byte_is_an_error_or_changes_no_answer_and_check_finds_it() {
    let index = small_index();
    let sound = sound_answers(&index);
    for at in 0..index.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = index.clone();
            damaged[at] ^= flip;
            let how = format!("octet {at} of {} ^ {flip:#x}", index.len());
            assert_error_or_same(&damaged, &sound, &how);
            let checked = Index::open(&damaged[..]).and_then(|index| index.verify());
            assert!(checked.is_err(), "check misses {how}");
            if let Ok(index) = Index::open(&damaged[..]) {
                // Ends, and with an error unless only what it does not read is damaged.
                let _ = index.maildrops().count();
            }
        }
    }
}

#[test]
fn a_truncated_or_lengthened_index_does_not_open() {
    let index = small_index();
    for len in 0..index.len() {
        assert!(Index::open(&index[..len]).is_err(), "{len} of {}", index.len());
    }
    for more in [1, 8, 4096] {
        let mut longer = index.clone();
        longer.resize(index.len() + more, 0);
        assert!(Index::open(&longer[..]).is_err(), "{more} more");
    }
}

#[test]
fn a_page_of_zeros_is_an_error_or_changes_no_answer() {
    let index = small_index();
    let sound = sound_answers(&index);
    for start in (0..index.len()).step_by(16) {
        let mut damaged = index.clone();
        let end = damaged.len().min(start + 64);
        damaged[start..end].fill(0);
        assert_error_or_same(&damaged, &sound, &format!("zeros from {start}"));
    }
}

#[test]
fn a_table_that_leads_elsewhere_never_makes_a_user_absent() {
    // Every table entry in turn takes the value of every other: each leads to a sound bucket.
    let index = small_index();
    let sound = sound_answers(&index);
    let table_at = u64::from_le_bytes(index[48..56].try_into().unwrap()) as usize;
    let entries: Vec<_> = (table_at..index.len()).step_by(8).collect();
    assert!(entries.len() > 1);
    for &to in &entries {
        for &from in &entries {
            let mut damaged = index.clone();
            damaged.copy_within(from..from + 8, to);
            assert_error_or_same(&damaged, &sound, &format!("table entry {to} as {from}"));
        }
    }
}

#[test]
fn an_index_mangled_by_a_text_mode_transfer_is_none() {
    let index = small_index();
    let to_lf: Vec<u8> = index.iter().copied().filter(|&octet| octet != b'\r').collect();
    let to_crlf: Vec<u8> = index
        .iter()
        .flat_map(|&octet| if octet == b'\n' { vec![b'\r', b'\n'] } else { vec![octet] })
        .collect();
    let to_seven_bits: Vec<u8> = index.iter().map(|octet| octet & 0x7F).collect();
    for mangled in [to_lf, to_crlf, to_seven_bits] {
        assert!(matches!(Index::open(&mangled[..]), Err(Error::NotAnIndex)));
    }
}

#[test]
fn check_finds_a_build_id_that_names_another_content() {
    let mut index = small_index();
    index[72] ^= 1;
    let sum = blake3::hash(&index[..88]);
    index[88..104].copy_from_slice(&sum.as_bytes()[..16]);
    let index = Index::open(&index[..]).unwrap();
    assert!(matches!(index.verify(), Err(Error::Corrupt { .. })));
}
