//! A damaged index: every byte is flipped, the file is cut at every length. The answer is an error,
//! or the same as before.

use std::ops::Range;

use uidl_keep::index::{Index, IndexError};
use uidl_keep::maildrop::{Entry, Maildrop, State};
use uidl_keep::uidl::Uidl;

use crate::forge;
use crate::support::index::{ABSENT, USERS, index_of, maildrops, small_index};

/// The answers that a login would get: for each user in the index and for some who are not.
fn answers(index: &[u8]) -> Vec<Result<Option<Maildrop>, IndexError>> {
    let users = USERS.iter().chain(ABSENT);
    users.map(|user| Index::open(index).and_then(|index| index.maildrop(user))).collect()
}

/// Panics if any answer is neither an error nor what `sound` says.
fn assert_error_or_same(damaged: &[u8], sound: &[Option<Maildrop>], how: &str) {
    for (answer, sound) in answers(damaged).into_iter().zip(sound) {
        match answer {
            Ok(answer) => assert_eq!(&answer, sound, "{how}"),
            Err(IndexError::Io(error)) => panic!("{how}: read past what was checked: {error}"),
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
                // It ends, and with an error unless only unread octets are damaged.
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
fn an_index_mangled_by_a_text_mode_transfer_is_none() {
    let index = small_index();
    let to_lf: Vec<u8> = index.iter().copied().filter(|&octet| octet != b'\r').collect();
    let to_crlf: Vec<u8> = index
        .iter()
        .flat_map(|&octet| if octet == b'\n' { vec![b'\r', b'\n'] } else { vec![octet] })
        .collect();
    let to_seven_bits: Vec<u8> = index.iter().map(|octet| octet & 0x7F).collect();
    for mangled in [to_lf, to_crlf, to_seven_bits] {
        assert!(matches!(Index::open(&mangled[..]), Err(IndexError::NotAnIndex)));
    }
}

#[test]
fn check_finds_a_build_id_that_names_another_content() {
    let mut index = small_index();
    index[72] ^= 1;
    sum(&mut index, 0..104);
    let index = Index::open(&index[..]).unwrap();
    assert!(matches!(index.verify(), Err(IndexError::Corrupt { .. })));
}

fn u32_at(index: &[u8], at: usize) -> usize {
    u32::from_le_bytes(index[at..at + 4].try_into().unwrap()) as usize
}

/// Writes the checksum that a part ends in.
fn sum(index: &mut [u8], part: Range<usize>) {
    let sum_at = part.end - 16;
    let sum = blake3::hash(&index[part.start..sum_at]);
    index[sum_at..part.end].copy_from_slice(&sum.as_bytes()[..16]);
}

/// Where the blocks and nodes of a sound index are, each behind what it names.
fn records(index: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    below(index, 104, u32_at(index, 40)..index.len(), u32_at(index, 64), &mut records);
    records
}

/// Adds a record that has this level, and all that is below it from `start` on.
fn below(
    index: &[u8],
    mut start: usize,
    record: Range<usize>,
    level: usize,
    records: &mut Vec<Range<usize>>,
) {
    let count = if level == 0 { 0 } else { u32_at(index, record.start + 4) };
    let mut at = record.start + 8;
    for _ in 0..count {
        at += 16;
        let mut number = || {
            let octets = index[at..].split_inclusive(|octet| octet & 0x80 == 0).next().unwrap();
            at += octets.len();
            octets.iter().rev().fold(0, |number, octet| number << 7 | usize::from(octet & 0x7F))
        };
        let [len, below_it, _, _, user_len] = [(); 5].map(|()| number());
        at += user_len;
        let end = start + below_it + len;
        below(index, start, start + below_it..end, level - 1, records);
        start = end;
    }
    assert_eq!(start, if level == 0 { record.end - record.len() } else { record.start });
    records.push(record);
}

/// Writes the checksum of the root, the build id and the checksum of the header.
fn name(index: &mut [u8]) {
    let (root, end) = (u32_at(index, 40), index.len());
    sum(index, root..end);
    index.copy_within(end - 16.., 48);
    let id = blake3::hash(&index[..72]);
    index[72..88].copy_from_slice(&id.as_bytes()[..16]);
    sum(index, 0..104);
}

#[test]
fn wrong_fields_under_right_checksums_end_no_process_and_ask_for_no_memory() {
    let index = small_index();
    assert_eq!(forge::index(&index), index, "the forger follows the format");
    for part in std::iter::once(12..104).chain(records(&index)) {
        for at in part.start..part.end - 16 {
            for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
                let mut wrong = index.clone();
                wrong[at] = value;
                let wrong = forge::index(&wrong);
                let answers = answers(&wrong);
                for answer in &answers {
                    assert!(!matches!(answer, Err(IndexError::Io(_))), "octet {at} = {value}");
                    let found = answer.as_ref().ok().and_then(Option::as_ref);
                    for entry in found.iter().flat_map(|found| &found.entries) {
                        assert!(Uidl::check(entry.uidl.as_bytes()).is_ok());
                    }
                }
                if Index::open(&wrong[..]).is_ok_and(|opened| opened.verify().is_ok()) {
                    assert!(answers.iter().all(Result::is_ok), "octet {at} = {value}");
                }
            }
        }
    }
}

#[test]
fn the_forger_follows_the_format_with_nodes_between_blocks() {
    let named = |n: u32| Maildrop::new(format!("user{n:03}"), State::Empty);
    for users in [0, 1, 40, 300] {
        let index = index_of(&(0..users).map(named).collect::<Vec<_>>(), true);
        assert!(users < 40 || u32_at(&index, 64) > 1, "{users} users have nodes between them");
        assert_eq!(forge::index(&index), index, "{users} users");
        assert_eq!(forge::index_of_blocks(&index), index, "{users} users");
    }
}

/// The place at which an index is said to be damaged, and how.
fn damage<T: std::fmt::Debug>(answer: Result<T, IndexError>) -> (u64, &'static str) {
    match answer {
        Err(IndexError::Corrupt { what, offset, .. }) => (offset, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_shorter_than_a_header_is_an_index_cut_short_or_none() {
    let index = small_index();
    for len in 0..104 {
        assert_eq!(damage(Index::open(&index[..len])), (0, "shorter than a header"), "{len}");
    }
    for other in [&b"x"[..], b"\x89UKL\r\n\x1a\n", &[0; 103]] {
        assert!(matches!(Index::open(other), Err(IndexError::NotAnIndex)), "{other:?}");
    }
    let mut header = index[..104].to_vec();
    for found in [1, 3] {
        header[8] = found as u8;
        let refused = Index::open(&header[..]).unwrap_err();
        assert!(matches!(refused, IndexError::Version { found: it, .. } if it == found));
        assert!(refused.to_string().contains("build it again"), "{refused}");
    }
}

#[test]
fn an_index_may_hold_one_maildrop_or_none() {
    for count in [0, 1] {
        let maildrops = &maildrops()[1..=count];
        let index = index_of(maildrops, false);
        let index = Index::open(&index[..]).unwrap();
        index.verify().unwrap();
        assert_eq!(index.maildrops().map(Result::unwrap).collect::<Vec<_>>(), maildrops);
        assert_eq!(index.maildrop(USERS[1]).unwrap().as_ref(), maildrops.first());
        assert_eq!(index.maildrop(ABSENT[0]).unwrap(), None);
    }
}

#[test]
fn check_reads_all_of_an_index_of_many_mebibytes() {
    let mut maildrop = maildrops().remove(1);
    maildrop.spent =
        (0..2500).map(|n| Uidl::new(format!("{n:01000}").into_bytes()).unwrap()).collect();
    let mut index = index_of(&[maildrop], true);
    assert!(index.len() > 2 << 20);
    Index::open(&index[..]).unwrap().verify().unwrap();
    for at in [204, 104 + (1 << 20), 104 + (2 << 20)] {
        index[at] ^= 1;
        let (offset, what) = damage(Index::open(&index[..]).unwrap().verify());
        assert_eq!((offset, what), (104, "checksum of a block"), "{at}");
        index[at] ^= 1;
    }
}

#[test]
fn each_field_of_the_header_has_its_range() {
    let index = small_index();
    let len = index.len();
    for (field, values) in [
        (12, vec![2, 3, 1 << 31]),
        (16, vec![len - 1, len + 1]),
        (40, vec![0, 103, len - 23, len, len + 1]),
        (64, vec![0, 34, u32::MAX as usize]),
    ] {
        for value in values {
            let mut wrong = index.clone();
            wrong[field..field + 4].copy_from_slice(&(value as u32).to_le_bytes());
            sum(&mut wrong, 0..104);
            assert_eq!(damage(Index::open(&wrong[..])).0, field as u64, "{value}");
        }
    }
}

#[test]
fn a_node_that_names_very_many_is_read_whole() {
    // None of them begins a node.
    let begins = |name: &str| blake3::hash(name.as_bytes()).as_bytes()[0] >> 4 == 0;
    let mut names: Vec<_> =
        (0..10_000).map(|n| n.to_string()).filter(|name| !begins(name)).take(300).collect();
    names.sort();
    let of_user = |user: &String| Maildrop { user: user.clone(), ..maildrops().remove(1) };
    let all: Vec<_> = names.iter().map(of_user).collect();
    let index = index_of(&all, true);
    assert_eq!((records(&index).len(), u32_at(&index, 64)), (301, 1));
    let index = Index::open(&index[..]).unwrap();
    index.verify().unwrap();
    for maildrop in all {
        assert_eq!(index.maildrop(&maildrop.user).unwrap(), Some(maildrop));
    }
    assert_eq!(index.maildrop("alice").unwrap(), None);
}

/// An index of one maildrop, whose root names it otherwise.
struct OfOne {
    index: Vec<u8>,
    root: usize,
    user: &'static str,
    /// The numbers of its one name, with the length of the user.
    numbers: [u64; 5],
    checksum: [u8; 16],
    names: u32,
}

impl OfOne {
    fn new() -> Self {
        let user = USERS[1];
        let index = index_of(&maildrops()[1..2], true);
        let root = u32_at(&index, 40);
        let checksum = index[root - 16..root].try_into().unwrap();
        let entries = maildrops()[1].entries.len() as u64;
        let numbers = [root as u64 - 104, 0, 1, entries, user.len() as u64];
        Self { index, root, user, numbers, checksum, names: 1 }
    }

    fn put_together(&self) -> Vec<u8> {
        let mut index = self.index[..self.root].to_vec();
        index.extend([1, 0, 0, 0]);
        index.extend(self.names.to_le_bytes());
        index.extend(self.checksum);
        for mut number in self.numbers {
            while number >= 0x80 {
                index.push(number as u8 | 0x80);
                number >>= 7;
            }
            index.push(number as u8);
        }
        index.extend(self.user.as_bytes());
        index.extend([0; 16]);
        let (len, root) = (index.len() as u64, self.root as u64);
        index[16..24].copy_from_slice(&len.to_le_bytes());
        index[40..48].copy_from_slice(&root.to_le_bytes());
        name(&mut index);
        index
    }
}

#[test]
fn each_field_of_a_node_has_its_range() {
    assert!(OfOne::new().put_together() == OfOne::new().index);
    type Change = fn(&mut OfOne);
    let changes: [(&str, Change); 11] = [
        ("a node names what lies behind it", |of| of.numbers[0] += 1),
        ("a node names what lies behind it", |of| of.numbers[0] = u64::MAX),
        ("a node names what lies behind it", |of| of.numbers[1] = 1),
        ("a node names what lies behind it", |of| of.numbers[1] = u64::MAX),
        ("octets that no node names", |of| of.numbers[0] -= 1),
        ("number of maildrops or entries", |of| of.numbers[2] += 1),
        ("number of maildrops or entries", |of| of.numbers[3] += 1),
        ("a node ends early, or has a number in no proper form", |of| of.numbers[4] += 1),
        ("octets that no node names", |of| of.numbers[4] -= 1),
        ("a node ends early, or has a number in no proper form", |of| of.names = 2),
        ("octets that no node names", |of| of.names = 0),
    ];
    for (what, change) in changes {
        let mut of = OfOne::new();
        change(&mut of);
        let wrong = of.put_together();
        let wrong = Index::open(&wrong[..]).unwrap();
        assert_eq!(damage(wrong.verify()).1, what);
        match wrong.maildrop(of.user) {
            Ok(found) => assert!(found.is_some(), "{what}"),
            Err(error) => assert!(!matches!(error, IndexError::Io(_)), "{error}"),
        }
    }
    let mut of = OfOne::new();
    of.user = "alice@example.net";
    let wrong = of.put_together();
    let wrong = Index::open(&wrong[..]).unwrap();
    let what = "the block is another user's";
    assert_eq!(damage(wrong.maildrop(of.user)).1, what);
    assert_eq!(damage(wrong.verify()).1, what);
}

#[test]
fn check_finds_what_no_checksum_and_no_build_id_tells() {
    let index = small_index();
    for counted_at in [24, 32] {
        let mut miscounted = index.clone();
        miscounted[counted_at] += 1;
        name(&mut miscounted);
        let miscounted = Index::open(&miscounted[..]).unwrap();
        assert_eq!(damage(miscounted.verify()).1, "number of maildrops or entries");
    }
    let mut higher = index.clone();
    higher[64] += 1;
    name(&mut higher);
    let higher = Index::open(&higher[..]).unwrap();
    assert_eq!(damage(higher.verify()).1, "level of a node");
    assert_eq!(damage(higher.maildrop(USERS[1])).1, "level of a node");
}

#[test]
fn all_maildrops_are_read_in_the_order_of_users_up_to_the_first_that_is_not() {
    // Both names have one length, and neither begins a node.
    let [one, other] = ["a@example.com", "b@example.com"].map(|user| {
        let begins = blake3::hash(user.as_bytes()).as_bytes()[0] >> 4 == 0;
        assert!(!begins);
        Maildrop { user: user.to_owned(), ..maildrops().remove(1) }
    });
    let index = index_of(&[one, other.clone()], true);
    let (root, at) = (u32_at(&index, 40), records(&index)[0].len() + 104 + 30);
    // The second takes the first one's name, in its block and in the node.
    let mut twice = index.clone();
    twice[at] = b'a';
    let name_at = index[root..].windows(2).position(|octets| octets == b"b@").unwrap() + root;
    twice[name_at] = b'a';
    let twice = forge::index(&twice);
    let twice = Index::open(&twice[..]).unwrap();
    let (root, what) = (root as u64, "a user out of order");
    assert_eq!(damage(twice.verify()), (root, what));
    assert_eq!(damage(twice.maildrop("b@example.com")), (root, what));
    let mut maildrops = twice.maildrops();
    assert!(maildrops.next().unwrap().is_err());
    assert!(maildrops.next().is_none());
}

#[test]
fn each_field_of_a_block_has_its_range() {
    let damage_after = |maildrop: &Maildrop, at: usize, value: u8| {
        let mut index = index_of(std::slice::from_ref(maildrop), true);
        index[104 + at] = value;
        let index = forge::index(&index);
        damage(Index::open(&index[..]).and_then(|index| index.maildrop(&maildrop.user))).1
    };
    let counted = &maildrops()[1];
    assert_eq!(counted.captures.len(), 1);
    let captures = 30 + counted.user.len() + "UID%u-%v".len() + counted.source.len();
    // Its one capture: flags, and when it was taken.
    let texts = captures + 1 + 5;
    let index = index_of(std::slice::from_ref(counted), true);
    let entries_len = u32_at(&index, 104) - 16 - texts;
    let spent_len = 1 + counted.spent[0].as_bytes().len();
    assert_eq!((counted.entries.len(), counted.spent.len()), (2, 1));
    for (at, value, what) in [
        (0, index[104] - 1, "length of a block"),
        (4, entries_len as u8 / 3 + 1, "number of entries"),
        (8, spent_len as u8 / 2 + 1, "number of spent unique-ids"),
        (8, 0, "octets after the end of a block"),
        (12, 3, "state of a maildrop"),
        (13, 3 | 4, "flag of unknown meaning"),
        (13, 2, "a UIDVALIDITY that is not there"),
        (13, 1, "a counter that is not there"),
        (captures, 0x80, "flag of unknown meaning"),
        (captures, 16 | 2, "a capture that says more, or comes earlier, than it can"),
        (captures + 5, 0, "a capture ends early, or has a number in no proper form"),
        (28, 2, "a capture that says more, or comes earlier, than it can"),
        (29, 0xFF, "number of captures"),
        (captures, 8, "a capture ends early, or has a number in no proper form"),
        (captures, 4, "number of more than 32 bits in a capture"),
    ] {
        let mut counted = counted.clone();
        if at == captures && value < 16 {
            counted.captures[0].taken = Some(u64::MAX);
        }
        assert_eq!(damage_after(&counted, at, value), what, "{at}: {value}");
    }
    // The history of a message: first and last capture, and how many earlier UIDLs.
    let bob = &maildrops()[2];
    let entry = &bob.entries[1];
    assert_eq!((bob.captures.len(), entry.first_capture, entry.last_capture), (2, 1, 1));
    let index = index_of(std::slice::from_ref(bob), true);
    let history = [1, 1, 1, 7].iter().chain(b"old-1-0").copied().collect::<Vec<u8>>();
    let at = index.windows(history.len()).position(|octets| octets == history).unwrap() - 104;
    for (at, value, what) in [
        (at, 2, "an entry of a capture that is not there"),
        (at + 1, 0, "an entry of a capture that is not there"),
        (at + 1, 2, "an entry of a capture that is not there"),
        (at + 2, 0x7F, "number of earlier unique-ids"),
        (at + 4, 0x20, "a unique-id that POP3 cannot carry"),
    ] {
        assert_eq!(damage_after(bob, at, value), what, "{at}: {value}");
    }
    let uncounted = Maildrop { counter: None, ..counted.clone() };
    assert_eq!(damage_after(&uncounted, 20, 1), "a counter that is not there");
    let mut begun = counted.clone();
    begun.counter.as_mut().unwrap().next = 0;
    assert_eq!(damage_after(&begun, 13, 1), "a counter that is not there");
}

#[test]
fn the_shortest_entries_there_can_be_are_read() {
    let uidl = |n: u8| Uidl::new([b'a' + n]).unwrap();
    let bare = |n| Entry { ..Entry::new(uidl(n)) };
    for (entries, spent) in [(0, 9), (9, 0), (9, 9)] {
        let maildrop = Maildrop {
            entries: (0..entries).map(bare).collect(),
            spent: (0..spent).map(uidl).collect(),
            ..maildrops().remove(1)
        };
        let index = index_of(std::slice::from_ref(&maildrop), true);
        let found = Index::open(&index[..]).unwrap().maildrop(&maildrop.user).unwrap();
        assert_eq!(found, Some(maildrop));
    }
}
