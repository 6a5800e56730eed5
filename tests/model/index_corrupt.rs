//! A damaged index: every byte is flipped, the file is cut at every length. The answer is an error,
//! or the same as before.

use std::ops::Range;

use uidl_keep::index::{Index, IndexError};
use uidl_keep::maildrop::{Entry, Maildrop};
use uidl_keep::uidl::Uidl;

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

/// Writes the build id that an index has, and the checksum of its header.
fn name(index: &mut [u8]) {
    let id = blake3::hash(&[&index[104..], &index[..72]].concat());
    index[72..88].copy_from_slice(&id.as_bytes()[..16]);
    sum(index, 0..104);
}

/// The parts of a sound index that end in a checksum: header, blocks and buckets.
fn checked_parts(index: &[u8]) -> Vec<Range<usize>> {
    let u32_at = |at| u32_at(index, at);
    let (buckets_at, table_at) = (u32_at(40), u32_at(48));
    let mut parts: Vec<_> = std::iter::once(0..104).collect();
    let mut at = 104;
    while at < buckets_at {
        let end = at + u32_at(at);
        assert!(end > at, "a block of no octets");
        parts.push(at..end);
        at = end;
    }
    while at < table_at {
        parts.push(at..at + 24 + 32 * u32_at(at + 4));
        at += 24 + 32 * u32_at(at + 4);
    }
    assert_eq!(at, table_at);
    parts
}

#[test]
fn wrong_fields_under_right_checksums_end_no_process_and_ask_for_no_memory() {
    let index = small_index();
    for part in checked_parts(&index) {
        let sum_at = part.end - 16;
        for at in part.start..sum_at {
            for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
                let mut wrong = index.clone();
                wrong[at] = value;
                sum(&mut wrong, part.clone());
                for answer in answers(&wrong) {
                    assert!(!matches!(answer, Err(IndexError::Io(_))), "octet {at} = {value}");
                    for entry in answer.ok().flatten().iter().flat_map(|found| &found.entries) {
                        assert!(Uidl::check(entry.uidl.as_bytes()).is_ok());
                    }
                }
                if let Ok(opened) = Index::open(&wrong[..]) {
                    let same = wrong == index;
                    assert_eq!(opened.verify().is_ok(), same, "octet {at} = {value}");
                }
            }
        }
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
    header[8] = 2;
    assert!(matches!(Index::open(&header[..]), Err(IndexError::Version { found: 2, .. })));
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
    let block = checked_parts(&index).remove(1);
    for at in [block.start + 100, block.start + (1 << 20), block.start + (2 << 20)] {
        index[at] ^= 1;
        sum(&mut index, block.clone());
        let (_, what) = damage(Index::open(&index[..]).unwrap().verify());
        assert_eq!(what, "the content is not what the build id names", "{at}");
        index[at] ^= 1;
    }
}

#[test]
fn each_field_of_the_header_has_its_range() {
    let index = small_index();
    let (len, buckets_at, table_at) = (index.len(), u32_at(&index, 40), u32_at(&index, 48));
    for (field, values) in [
        (12, vec![2, 3, 1 << 31]),
        (16, vec![len - 1, len + 1]),
        (40, vec![0, 103, table_at + 1]),
        (48, vec![0, table_at - 8, table_at + 1, len, len + 1]),
        (56, vec![buckets_at - 104 + 1, u32::MAX as usize]),
        (60, vec![(table_at - buckets_at - 24) / 32 + 1, u32::MAX as usize]),
    ] {
        for value in values {
            let mut wrong = index.clone();
            wrong[field..field + 4].copy_from_slice(&(value as u32).to_le_bytes());
            sum(&mut wrong, 0..104);
            assert_eq!(damage(Index::open(&wrong[..])).0, field as u64, "{value}");
        }
    }
    let mut largest = index.clone();
    largest[56..60].copy_from_slice(&((buckets_at - 104) as u32).to_le_bytes());
    sum(&mut largest, 0..104);
    Index::open(&largest[..]).unwrap();
}

#[test]
fn a_table_has_31_bits_at_most() {
    use std::os::unix::fs::FileExt;
    let empty = index_of(&[], true);
    for (bits, opens) in [(31, true), (32, false), (33, false), (64, false), (255, false)] {
        let len = 128 + (8_u64 << (bits % 64));
        let mut header = empty[..104].to_vec();
        header[16..24].copy_from_slice(&len.to_le_bytes());
        header[64..68].copy_from_slice(&u32::to_le_bytes(bits));
        sum(&mut header, 0..104);
        let sparse = tempfile::tempfile().unwrap();
        sparse.write_all_at(&header, 0).unwrap();
        sparse.set_len(len).unwrap();
        assert_eq!(Index::open(sparse).is_ok(), opens, "{bits} bits");
    }
}

#[test]
fn a_bucket_of_very_many_maildrops_is_read_whole() {
    // All but one of the 32 buckets of 100 maildrops are empty.
    let hash_starts = |name: &str| blake3::hash(name.as_bytes()).as_bytes()[0] >> 3;
    let mut names: Vec<_> = (0..10_000)
        .map(|n| n.to_string())
        .filter(|name| hash_starts(name) == 9)
        .take(100)
        .collect();
    names.sort();
    let of_user = |user: &String| Maildrop { user: user.clone(), ..maildrops().remove(1) };
    let all: Vec<_> = names.iter().map(of_user).collect();
    assert_eq!(all.len(), 100);
    let index = index_of(&all, true);
    let index = Index::open(&index[..]).unwrap();
    index.verify().unwrap();
    for maildrop in all {
        assert_eq!(index.maildrop(&maildrop.user).unwrap(), Some(maildrop));
    }
    assert_eq!(index.maildrop("alice").unwrap(), None);
}

#[test]
fn a_bucket_names_blocks_where_blocks_can_be() {
    let index = small_index();
    let (buckets_at, largest) = (u32_at(&index, 40), u32_at(&index, 56) as u64);
    let buckets: Vec<_> =
        checked_parts(&index).into_iter().filter(|part| part.start >= buckets_at).collect();
    let buckets_at = buckets_at as u64;
    for (offset, len) in [
        (0, 100),
        (103, 100),
        (104, largest + 1),
        (buckets_at - 99, 100),
        (buckets_at, 1),
        (u64::MAX, 100),
        (u64::MAX, u64::MAX),
    ] {
        let mut wrong = index.clone();
        for bucket in &buckets {
            for entry in (bucket.start + 8..bucket.end - 16).step_by(32) {
                wrong[entry + 16..entry + 24].copy_from_slice(&offset.to_le_bytes());
                wrong[entry + 24..entry + 32].copy_from_slice(&len.to_le_bytes());
            }
            sum(&mut wrong, bucket.clone());
        }
        for user in USERS {
            let answer = Index::open(&wrong[..]).and_then(|index| index.maildrop(user));
            let expected = (offset, "a bucket names a block where none can be");
            assert_eq!(damage(answer), expected, "{user:?}: {len}");
        }
        for answer in answers(&wrong).iter().skip(USERS.len()) {
            assert!(matches!(answer, Ok(None)), "{answer:?}");
        }
    }
}

/// An index in parts; one part is made anew and is sound except for what was changed.
struct Parts {
    header: Vec<u8>,
    blocks: Vec<u8>,
    /// The buckets without their checksums.
    buckets: Vec<Vec<u8>>,
    /// Octets between buckets and table.
    gap: usize,
}

impl Parts {
    fn of(index: &[u8]) -> Self {
        let buckets_at = u32_at(index, 40);
        let buckets = checked_parts(index).into_iter().filter(|part| part.start >= buckets_at);
        Self {
            header: index[..104].to_vec(),
            blocks: index[104..buckets_at].to_vec(),
            buckets: buckets.map(|part| index[part.start..part.end - 16].to_vec()).collect(),
            gap: 0,
        }
    }

    fn put_together(&self) -> Vec<u8> {
        let mut index = [&self.header[..], &self.blocks].concat();
        let buckets_at = index.len();
        let mut table = vec![0; 8 * self.buckets.len()];
        for bucket in &self.buckets {
            table[8 * u32_at(bucket, 0)..][..8].copy_from_slice(&index.len().to_le_bytes());
            index.extend(bucket);
            index.extend(&blake3::hash(bucket).as_bytes()[..16]);
        }
        index.resize(index.len() + self.gap, 0);
        let table_at = index.len();
        index.extend(table);
        let (len, largest) =
            (index.len(), self.buckets.iter().map(|bucket| u32_at(bucket, 4)).max());
        index[16..24].copy_from_slice(&len.to_le_bytes());
        index[40..48].copy_from_slice(&buckets_at.to_le_bytes());
        index[48..56].copy_from_slice(&table_at.to_le_bytes());
        index[60..64].copy_from_slice(&(largest.unwrap() as u32).to_le_bytes());
        name(&mut index);
        index
    }
}

#[test]
fn check_finds_what_no_checksum_and_no_build_id_tells() {
    let index = small_index();
    assert!(Parts::of(&index).put_together() == index);
    let damage_after = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&index);
        change(&mut parts);
        let wrong = parts.put_together();
        damage(Index::open(&wrong[..]).unwrap().verify()).1
    };
    for counted_at in [24, 32] {
        let miscount = |parts: &mut Parts| parts.header[counted_at] += 1;
        assert_eq!(damage_after(&miscount), "number of maildrops or entries");
    }
    // The first octet of the offset of a block, and of its length.
    for place_at in [8 + 16, 8 + 24] {
        let elsewhere = |parts: &mut Parts| {
            let holding = parts.buckets.iter_mut().find(|bucket| u32_at(bucket, 4) > 0);
            holding.unwrap()[place_at] -= 1;
        };
        assert_eq!(damage_after(&elsewhere), "the table does not lead to this block");
    }
    assert_eq!(damage_after(&|parts| parts.buckets.reverse()), "a bucket out of its order");
    assert_eq!(damage_after(&|parts| parts.gap = 8), "octets between buckets and table");
    let one_more = |parts: &mut Parts| {
        parts.buckets[0].extend([0; 32]);
        parts.buckets[0][4] += 1;
    };
    assert_eq!(damage_after(&one_more), "number of maildrops in the buckets");
}

#[test]
fn all_maildrops_are_read_in_the_order_of_users_up_to_the_first_that_is_not() {
    let index = small_index();
    let mut parts = Parts::of(&index);
    let first = parts.blocks[..u32_at(&parts.blocks, 0)].to_vec();
    parts.blocks.splice(0..0, first.clone());
    let twice = parts.put_together();
    let twice = Index::open(&twice[..]).unwrap();
    let mut maildrops = twice.maildrops();
    assert_eq!(maildrops.next().unwrap().unwrap().user, USERS[0]);
    let second_at = 104 + first.len() as u64;
    assert_eq!(damage(maildrops.next().unwrap()), (second_at, "a user out of order"));
    assert!(maildrops.next().is_none());
}

#[test]
fn nothing_is_larger_than_the_header_says() {
    let index = small_index();
    for (largest_at, what) in
        [(56, "a bucket names a block where none can be"), (60, "number of maildrops in a bucket")]
    {
        let mut wrong = index.clone();
        wrong[largest_at] -= 1;
        name(&mut wrong);
        let wrong = Index::open(&wrong[..]).unwrap();
        let answers = USERS.iter().map(|user| wrong.maildrop(user));
        let refused: Vec<_> = answers.filter(Result::is_err).map(damage).collect();
        assert!(!refused.is_empty());
        assert!(refused.iter().all(|refused| refused.1 == what), "{refused:?}");
        let all = wrong.maildrops().last().unwrap();
        assert_eq!(all.is_err(), largest_at == 56);
    }
}

#[test]
fn a_block_ends_before_the_buckets() {
    let index = small_index();
    let (buckets_at, largest) = (u32_at(&index, 40), u32_at(&index, 56));
    let blocks = checked_parts(&index).into_iter().skip(1).take(USERS.len());
    let blocks: Vec<_> = blocks.collect();
    let last = &blocks[USERS.len() - 1];
    assert_eq!(last.end, buckets_at);
    for (block, len) in [(&blocks[0], largest + 1), (last, last.len() + 1), (last, 0), (last, 15)] {
        let mut wrong = index.clone();
        wrong[block.start..block.start + 4].copy_from_slice(&(len as u32).to_le_bytes());
        let answer = Index::open(&wrong[..]).unwrap().maildrops().last().unwrap();
        let what = if len < 16 { "a block ends early" } else { "length of a block" };
        assert_eq!(damage(answer), (block.start as u64, what), "{len}");
    }
}

#[test]
fn the_table_leads_to_buckets_and_they_end_before_it() {
    let index = small_index();
    let (buckets_at, largest) = (u32_at(&index, 40) as u64, u32_at(&index, 60) as u32);
    let mut parts = Parts::of(&index);
    parts.gap = 8;
    let mut longer = parts.put_together();
    let table_at = u32_at(&longer, 48);
    longer[table_at - 4..table_at].copy_from_slice(&largest.to_le_bytes());
    for to in [0, buckets_at - 1, table_at as u64 - 8, table_at as u64, u64::MAX] {
        for entry in (table_at..longer.len()).step_by(8) {
            longer[entry..entry + 8].copy_from_slice(&to.to_le_bytes());
        }
        let (_, what) = damage(Index::open(&longer[..]).and_then(|index| index.maildrop(USERS[1])));
        let expected = if to == table_at as u64 - 8 {
            "number of maildrops in a bucket"
        } else {
            "a table entry points outside the buckets"
        };
        assert_eq!(what, expected, "{to}");
    }
}

#[test]
fn each_field_of_a_block_has_its_range() {
    let damage_after = |maildrop: &Maildrop, at: usize, value: u8| {
        let mut index = index_of(std::slice::from_ref(maildrop), true);
        let block = checked_parts(&index).remove(1);
        index[block.start + at] = value;
        sum(&mut index, block);
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
