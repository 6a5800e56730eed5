//! A ledger is read as it was written, and nothing else is read.

use super::checksum::{CHECKSUM_OCTETS, Checksum};
use super::epoch::{Epoch, MAX_TOLD, TOLD_OCTETS, Told, join_told};
use super::front::LedgerFront;
use super::in_file::{Growth, KeptRun};
use super::layout::{
    ANSWER_OCTETS, FRONT_RECORD_OCTETS, HEADER_OCTETS, LedgerError, Lengths, MAX_OCTETS,
};
use super::listed_names::ListedNames;
use super::mark::Mark;
use super::record::{NAME_OCTETS, NameHash, NameHashes, Provenance, Record};
use super::unclaimed::UnclaimedKeys;
use super::whole::{AnyLedger, Ledger, LedgerHead, Noted, encode};
use crate::key::{Depth, Fingerprint};
use crate::uidl::Uidl;
use proptest::prelude::*;

fn name(octet: u8) -> NameHash {
    [octet; NAME_OCTETS]
}

fn record(uid: u32, order: u32, uidl: &str, provenance: Provenance) -> Record {
    Record {
        uid,
        order,
        uidl: Uidl::new(uidl.as_bytes()).unwrap(),
        provenance,
        names: [uid as u8, order as u8].into_iter().take(uid as usize % 3).map(name).collect(),
        entry: provenance.is_kept().then_some(order - 1),
    }
}

fn sample() -> Ledger {
    Ledger {
        user: "alice".to_owned(),
        begun_after: 0x0123_4567_89AB_CDEF,
        epoch: Epoch { uidvalidity: 1_714_990_000, next_uid: 13, index_id: 77 },
        next_order: 6,
        told: vec![
            Told { uidvalidity: 3, below: 9 },
            Told { uidvalidity: 1_714_990_000, below: 13 },
        ],
        restored: 5,
        unguarded: 6,
        rehearsal: 7,
        index: Noted { uidls: 4, next: 12, is_final: true, basis: [7; 16] },
        native_from: Some(13),
        unclaimed: UnclaimedKeys::new(vec![[9; 8], [0; 8], [9; 8]], Some(Depth::Header)),
        records: vec![
            record(0, 5, "UID9-17", Provenance::File),
            record(3, 1, "UID3-17", Provenance::File),
            record(7, 2, "~x", Provenance::Derived),
            record(8, 4, "000000086638afc0", Provenance::Native),
            record(12, 3, "UID3-17", Provenance::Header),
        ],
    }
}

fn least() -> Ledger {
    Ledger {
        next_order: 1,
        told: Vec::new(),
        index: Noted::default(),
        native_from: None,
        unclaimed: UnclaimedKeys::default(),
        records: Vec::new(),
        ..sample()
    }
}

#[test]
fn decode_is_the_inverse_of_encode() {
    for ledger in [sample(), least()] {
        assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
    }
}

#[test]
fn what_a_warm_login_looks_at_is_what_was_written() {
    for ledger in [sample(), least()] {
        let mut front = ledger.encode();
        let start = &front[..LedgerFront::HEADER_OCTETS];
        front.truncate(LedgerFront::front_len(start, front.len() as u64).unwrap());
        let front = LedgerFront::read(front).unwrap();
        let LedgerHead { epoch, begun_after, .. } = front.head();
        assert_eq!((epoch, begun_after), (ledger.epoch, ledger.begun_after));
        let LedgerHead { next_order, restored, unguarded, index, native_from, .. } = front.head();
        assert_eq!((next_order, restored), (ledger.next_order, ledger.restored));
        assert_eq!((unguarded, index), (ledger.unguarded, ledger.index));
        assert_eq!(native_from, ledger.native_from);
        assert_eq!(front.user(), ledger.user);
        assert_eq!(front.told().collect::<Vec<_>>(), ledger.told);
        assert_eq!(front.answers().len(), ledger.records.len());
        assert_eq!(front.answers().is_empty(), ledger.records.is_empty());
        for (i, record) in ledger.records.iter().enumerate() {
            assert_eq!(front.names(i).collect::<NameHashes>(), record.names);
            assert_eq!(front.answers().uid(i), record.uid);
        }
    }
}

#[test]
fn only_the_last_new_messages_may_be_unbaked() {
    let mut records = vec![record(0, 1, "n", Provenance::Native)];
    records.extend((1..=20).map(|n| record(n, n + 1, "n", Provenance::Native)));
    records.push(record(21, 22, "d", Provenance::Derived));
    let file = Ledger { next_order: 23, records, ..sample() }.encode();
    let front_len = LedgerFront::front_len(&file, file.len() as u64).unwrap();
    let front = LedgerFront::read(file[..front_len].to_vec()).unwrap();
    let unbaked: Vec<u32> = front.last_natives().map(|i| front.answers().uid(i)).collect();
    assert_eq!(unbaked, (5..=20).rev().collect::<Vec<_>>());
    assert_eq!(front.back_range(), (front_len as u64, file.len() - front_len));
    let whole = front.ledger(&file[front_len..]).unwrap();
    assert_eq!(encode(&whole), file);
    let natives = Mark::of(&whole, 22).natives;
    // Of those that may be unbaked the mark has each that has a name.
    let named = |uid: &u32| uid % 3 != 0;
    let uids: Vec<u32> = natives.into_iter().rev().map(|(uid, _)| uid).collect();
    assert_eq!(uids, unbaked.into_iter().filter(named).collect::<Vec<_>>());
}

#[test]
fn told_numbers_are_joined_by_the_higher_of_each_uidvalidity() {
    let told = |pairs: &[(u32, u32)]| -> Vec<Told> {
        pairs.iter().map(|&(uidvalidity, below)| Told { uidvalidity, below }).collect()
    };
    let mut known = told(&[(1, 5), (2, 9)]);
    join_told(&mut known, told(&[(2, 7), (1, 6), (3, 1)]));
    assert_eq!(known, told(&[(1, 6), (2, 9), (3, 1)]));
}

#[test]
fn of_more_uidvalidities_than_there_is_room_for_a_ledger_keeps_the_last() {
    for count in [MAX_TOLD, MAX_TOLD + 1] {
        let told = (0..count as u32).map(|n| Told { uidvalidity: n, below: n + 1 });
        let ledger = Ledger { told: told.collect(), ..sample() };
        let kept = Ledger::decode(&ledger.encode()).unwrap().told;
        assert_eq!(kept, ledger.told[count - MAX_TOLD..]);
    }
}

#[test]
fn a_uid_is_of_one_message_and_every_place_of_one_record() {
    let decoded = |records: &[(u32, u32)]| {
        let records =
            records.iter().map(|&(uid, order)| record(uid, order, "U", Provenance::Stored));
        Ledger::decode(&Ledger { records: records.collect(), ..sample() }.encode())
    };
    for sound in [&[(0, 1), (0, 2)][..], &[(0, 1), (0, 4), (7, 2), (8, 3)], &[(3, 5), (5, 1)]] {
        assert!(decoded(sound).is_ok(), "{sound:?}");
    }
    for (twice, record) in [
        (&[(7, 1), (7, 2)][..], 1),
        (&[(3, 1), (7, 2), (7, 3)], 2),
        (&[(3, 1), (7, 2), (7, 3), (8, 4)], 2),
        (&[(0, 1), (0, 1), (7, 2)], 1),
    ] {
        assert_eq!(decoded(twice), Err(LedgerError::Field { record, field: "UID" }), "{twice:?}");
    }
}

#[test]
fn a_ledger_may_be_as_large_as_the_bound_and_no_larger() {
    let start_of = |octets: u64, records: u32| {
        let mut start = least().encode();
        let (records_len, unclaimed) = (records as usize, 0);
        let lengths = Lengths { user: 5, told: 0, records: records_len, heap: 0, unclaimed };
        let heap_len = octets - (lengths.front() + lengths.back()) as u64;
        start[84..88].copy_from_slice(&records.to_le_bytes());
        start[88..92].copy_from_slice(&(heap_len as u32).to_le_bytes());
        start
    };
    for count in [0, 1 << 20] {
        assert!(LedgerFront::front_len(&start_of(MAX_OCTETS, count), MAX_OCTETS).is_ok());
        let len = MAX_OCTETS + 1;
        let refused = LedgerFront::front_len(&start_of(len, count), len);
        assert_eq!(refused, Err(LedgerError::Length { len, expected: MAX_OCTETS }));
    }
}

#[test]
fn answers_are_found_by_uid_wherever_the_guess_points() {
    let ledger = sample();
    let file = ledger.encode();
    let front = || LedgerFront::of_encoded(file.clone()).unwrap().0;
    let (whole, alone) = (front(), front().into_answers());
    for answers in [whole.answers(), &alone] {
        assert_eq!(answers.len(), ledger.records.len());
        for guess in 0..7 {
            for record in &ledger.records[1..] {
                let at = answers.find(record.uid, guess).unwrap();
                assert_eq!(answers.uidl(at), record.uidl.as_bytes());
                assert_eq!(answers.order_number(at), record.order);
            }
            // 5 is an order number, and stands where a guess past the end would look for a UID.
            for uid in [0, 1, 4, 5, 13, u32::MAX] {
                assert_eq!(answers.find(uid, guess), None, "UID {uid}, guess {guess}");
            }
        }
        assert_eq!(answers.uidl_for_c(4), c"UID3-17");
    }
}

#[test]
fn a_session_keeps_twelve_octets_a_message_beside_the_uidls() {
    let records = (1..=1000).map(|n| record(n, n, "twelve", Provenance::File));
    let ledger = Ledger { next_order: 1001, records: records.collect(), ..sample() };
    let answers = LedgerFront::of_encoded(ledger.encode()).unwrap().0.into_answers();
    let uidls: usize = ledger.records.iter().map(|record| record.uidl.as_bytes().len() + 1).sum();
    // The head, the user's name and two told numbers stay before them.
    let before = HEADER_OCTETS + 5 + 2 * TOLD_OCTETS;
    assert_eq!(answers.octets(), before + 12 * 1000 + uidls);
}

#[test]
fn unclaimed_keys_are_known_by_their_first_octets_alone() {
    let print = Fingerprint(*b"0123456789abcdef");
    let unclaimed = UnclaimedKeys::new(vec![name(7), UnclaimedKeys::start_of(&print)], None);
    assert!(unclaimed.has(*b"01234567") && unclaimed.has(name(7)));
    assert!(!unclaimed.has(*b"01234568") && !unclaimed.has(name(0)));
}

/// They are searched by halves.
#[test]
fn unclaimed_keys_that_do_not_ascend_are_refused_with_right_checksums_too() {
    let read = |keys: [NameHash; 2]| {
        let unclaimed = UnclaimedKeys::new(vec![name(1), name(2)], None);
        let mut file = Ledger { unclaimed, ..sample() }.encode();
        let front = LedgerFront::front_len(&file, file.len() as u64).unwrap();
        let end = file.len() - CHECKSUM_OCTETS;
        file[end - 16..end].copy_from_slice(keys.as_flattened());
        let front_checksum = &file[front - 2 * CHECKSUM_OCTETS..][..CHECKSUM_OCTETS];
        let found = Checksum::of_two(front_checksum, &file[front..end]);
        file[end..].copy_from_slice(&found);
        Ledger::decode(&file).map(|_| ())
    };
    assert_eq!(read([name(1), name(2)]), Ok(()));
    for bad in [[name(2), name(1)], [name(1), name(1)]] {
        let why = LedgerError::Field { record: 5, field: "order of unclaimed keys" };
        assert_eq!(read(bad), Err(why));
    }
}

#[test]
fn a_head_says_which_part_of_new_mail_is_read_and_of_how_many_keys() {
    for reads in [None, Some(Depth::Header), Some(Depth::Message)] {
        let unclaimed = UnclaimedKeys::new(vec![name(1)], reads);
        let ledger = Ledger { unclaimed, ..sample() };
        assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
    }
    let forged = |at: usize, number: u32| {
        let mut start = sample().encode();
        start[at..at + 4].copy_from_slice(&number.to_le_bytes());
        LedgerFront::front_len(&start, start.len() as u64).unwrap_err()
    };
    let bad = |field| LedgerError::Field { record: 5, field };
    assert_eq!(forged(28, 4 | 8), bad("flag"));
    assert_eq!(forged(28, 16), bad("flag"));
    assert_eq!(forged(108, 1 << 20 | 1), bad("number of unclaimed keys"));
    assert!(matches!(forged(108, 1 << 20), LedgerError::Length { .. }));
}

#[test]
fn every_flipped_bit_and_every_length_is_an_error() {
    let file = sample().encode();
    // The names only say whether a comparison can be left out.
    let names = LedgerFront::front_len(&file, file.len() as u64).unwrap() - CHECKSUM_OCTETS;
    let is_checked = |at: &usize| !(names..names + CHECKSUM_OCTETS).contains(at);
    for at in (0..file.len()).filter(is_checked) {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(Ledger::decode(&damaged).is_err(), "bit {bit} of octet {at}");
        }
        assert!(Ledger::decode(&file[..at]).is_err(), "length {at}");
    }
    assert!(Ledger::decode(&[&file[..], b"\0"].concat()).is_err());
}

/// A front with its checksum, and with names that are not known.
fn sealed(mut front: Vec<u8>) -> Vec<u8> {
    let found = Checksum::of(&front);
    front.extend(found);
    front.extend([0; CHECKSUM_OCTETS]);
    front
}

#[test]
fn a_front_has_the_names_that_it_was_given_and_no_others() {
    let listed = |messages: &[(u32, &str)]| {
        let mut names = ListedNames::default();
        messages.iter().for_each(|(uid, name)| names.add(*uid, name.as_bytes()));
        names
    };
    let (mut front, back) = LedgerFront::of_encoded(sample().encode()).unwrap();
    let told = [(3, "a"), (7, "bc"), (8, "d")];
    assert!(!front.has_listed(&listed(&told)) && !front.has_listed(&listed(&[])));
    front.set_listed(&listed(&told));
    let front = LedgerFront::read(front.octets().to_vec()).unwrap();
    assert!(front.has_listed(&listed(&told)));
    for others in [
        &[(3, "a"), (7, "bc")][..],
        &[(3, "a"), (7, "bc"), (8, "d"), (9, "e")],
        &[(3, "a"), (7, "b"), (8, "cd")],
        &[(3, "ab"), (7, "c"), (8, "d")],
        &[(3, "a"), (7, "bc"), (9, "d")],
        &[(3, "bc"), (7, "a"), (8, "d")],
        &[],
    ] {
        assert!(!front.has_listed(&listed(others)), "{others:?}");
    }
    assert_eq!(encode(&front.ledger(&back).unwrap()), sample().encode());
}

/// However many are hashed at a time.
#[test]
fn names_are_digested_as_one_run_of_octets() {
    let mut names = ListedNames::default();
    let mut run = Vec::new();
    for uid in 1..2000u32 {
        let name = format!("1714990000.M{uid}P1.host");
        names.add(uid, name.as_bytes());
        run.extend(uid.to_le_bytes());
        run.extend([name.as_bytes(), b"\0"].concat());
        assert!(uid % 97 != 0 || names.digest() == Checksum::of(&run), "{uid}");
    }
}

/// The account's owner can write a ledger and its checksum.
#[test]
fn a_forged_ledger_with_right_checksums_cannot_carry_a_line_end_or_a_bad_offset() {
    let forged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = sample().encode();
        let front = LedgerFront::front_len(&file, file.len() as u64).unwrap();
        file.truncate(front - 2 * CHECKSUM_OCTETS);
        change(&mut file);
        LedgerFront::read(sealed(file)).map(|_| ())
    };
    assert_eq!(forged(&|_| ()), Ok(()));
    let records = HEADER_OCTETS + 5 + 2 * TOLD_OCTETS;
    let heap = records + ANSWER_OCTETS * 5;
    assert!(matches!(forged(&|f| f[heap] = b'\n'), Err(LedgerError::Field { field: "UIDL", .. })));
    assert!(matches!(forged(&|f| f[heap + 7] = b'x'), Err(LedgerError::Field { .. })));
    let last = |f: &mut Vec<u8>| {
        let behind = FRONT_RECORD_OCTETS - ANSWER_OCTETS;
        let at = f.len() - behind * 5 - 1;
        f[at] = b'x';
    };
    assert!(matches!(forged(&last), Err(LedgerError::Field { field: "UIDL end", .. })));
    for (offset, field) in [(4 * 2, "UID"), (4 * 5, "order number"), (4 * 11, "UIDL offset")] {
        let wild = |f: &mut Vec<u8>| f[records + offset..][..4].fill(0xFF);
        let Err(LedgerError::Field { field: found, .. }) = forged(&wild) else {
            panic!("{field}: no field is bad");
        };
        assert!(found == field || offset == 8, "{field}: {found}");
    }
    assert!(matches!(
        forged(&|f| *f.last_mut().unwrap() = b'?'),
        Err(LedgerError::Field { field: "letter", .. })
    ));
    for count_at in [84, 88] {
        let huge = |f: &mut Vec<u8>| f[count_at..count_at + 4].fill(0xFF);
        assert!(matches!(forged(&huge), Err(LedgerError::Length { .. })));
    }
}

#[test]
fn a_rehearsal_ends_where_it_stands_in_the_file_and_all_else_stays() {
    let ledger = sample();
    assert_ne!(ledger.rehearsal, 0);
    let (mut front, mut back) = LedgerFront::of_encoded(ledger.encode()).unwrap();
    let mut damaged = back.clone();
    damaged[0] ^= 1;
    assert_eq!(front.end_rehearsal(&mut damaged), Err(LedgerError::Checksum { part: "back" }));
    assert_eq!(front.head().rehearsal, ledger.rehearsal);
    front.end_rehearsal(&mut back).unwrap();
    assert_eq!(front.head().rehearsal, 0);
    let told = Ledger { rehearsal: 0, ..ledger };
    assert_eq!([front.octets(), &back].concat(), told.encode());
}

#[test]
fn a_front_has_no_uidl_that_is_empty_or_too_long() {
    let long = "x".repeat(Uidl::MAX_OCTETS);
    let read = |uidls: [&str; 2], heap: &str, second: u32| {
        let record = |uid, uidl: &str| record(uid, uid, uidl, Provenance::Stored);
        let records = vec![record(1, uidls[0]), record(2, uidls[1])];
        let file = Ledger { records, next_order: 3, ..least() }.encode();
        let len = LedgerFront::front_len(&file, file.len() as u64).unwrap();
        let mut front = file[..len - 2 * CHECKSUM_OCTETS].to_vec();
        let starts = HEADER_OCTETS + 5 + 8 * 2;
        let heap_at = starts + 4 * 2;
        front[heap_at..heap_at + heap.len()].copy_from_slice(heap.as_bytes());
        front[starts + 4..starts + 8].copy_from_slice(&second.to_le_bytes());
        LedgerFront::read(sealed(front)).map(|_| ())
    };
    let bad = |record| Err(LedgerError::Field { record, field: "UIDL length" });
    assert_eq!(read(["ab", "c"], "ab\0c\0", 3), Ok(()));
    assert_eq!(read(["ab", "c"], "abc\0\0", 4), bad(1));
    assert_eq!(read([&long, "yz"], &format!("{long}\0yz\0"), 1025), Ok(()));
    assert_eq!(read([&long, "yz"], &format!("{long}x\0z\0"), 1026), bad(0));
}

/// Whether the records of a front of five records are sound, by the words of `layout.rs`: each
/// field for itself, and the end of each UIDL by a look at its octets.
fn is_sound(front: &[u8]) -> bool {
    const N: usize = 5;
    let records = HEADER_OCTETS + 5 + 2 * TOLD_OCTETS;
    let number = |at: usize| u32::from_le_bytes(front[at..at + 4].try_into().unwrap());
    let [uids, orders, starts] = [0, 1, 2]
        .map(|column| (0..N).map(|i| number(records + 4 * (N * column + i))).collect::<Vec<u32>>());
    let names = front.len() - 2 * CHECKSUM_OCTETS - (8 + 8 + 1) * N;
    let name = |place: usize, i: usize| &front[names + 8 * (N * place + i)..][..8];
    let heap = &front[records + 12 * N..names];
    let letters = &front[names + 16 * N..][..N];
    let ascends = (1..N).all(|i| {
        (uids[i - 1], orders[i - 1]) < (uids[i], orders[i])
            && (uids[i] == 0 || uids[i] != uids[i - 1])
    });
    let mut left = heap;
    let mut is_uidl = |i: usize| {
        let starts_there = starts[i] as usize == heap.len() - left.len();
        let Some(len) = left.iter().position(|octet| *octet == 0) else { return false };
        let (uidl, rest) = (&left[..len], &left[len + 1..]);
        left = rest;
        starts_there && Uidl::check(uidl).is_ok()
    };
    ascends
        && orders.iter().all(|order| (1..number(16)).contains(order))
        && letters.iter().all(|letter| b"fmhopud".contains(letter))
        && (0..N).all(|i| name(0, i) != [0; 8] || name(1, i) == [0; 8])
        && (0..N).all(&mut is_uidl)
        && left.is_empty()
}

/// The records at these places and the new ones, as they stand in the ledger that grew.
fn grown_by_hand(ledger: &Ledger, gone: &[usize], there: &[usize], new: &[Record]) -> Ledger {
    let at = |i: &usize| ledger.records[*i].clone();
    let mut records: Vec<Record> =
        gone.iter().map(|i| Record { uid: 0, ..at(i) }).chain(there.iter().map(at)).collect();
    records.extend_from_slice(new);
    let epoch = Epoch { next_uid: 40, ..ledger.epoch };
    let mut told = ledger.told.clone();
    join_told(&mut told, [epoch.told()]);
    let (next_order, native_from) = (ledger.next_order + 5, Some(40));
    Ledger { records, epoch, told, next_order, native_from, rehearsal: 0, ..ledger.clone() }
}

/// The account's owner can give two records one order number: as claims they would not ascend.
#[test]
fn a_ledger_does_not_grow_into_one_that_could_not_be_read_again() {
    let grown = |order: u32| {
        let mut ledger = sample();
        ledger.records[1].order = order;
        let (front, back) = LedgerFront::of_encoded(ledger.encode()).unwrap();
        let kept = [1..2, 2..3].map(|places| KeptRun { places, is_gone: true });
        let (head, told) = (ledger.head(), ledger.told);
        let growth = Growth { head, told, kept: kept.to_vec(), new: Vec::new() };
        front.ledger(&back).unwrap().grow(&growth).map(|_| ())
    };
    assert_eq!(grown(1), Ok(()));
    assert_eq!(grown(2), Err(LedgerError::Field { record: 1, field: "UID" }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever runs stay, and whichever of them are only claims from now on.
    #[test]
    fn a_ledger_that_grew_is_the_one_that_is_encoded_anew(
        fates in prop::collection::vec(0..3, 5),
        new in 0..4_u32,
        uidl_octets in 1..40_usize,
    ) {
        let ledger = sample();
        let with_fate = |fate: i32| {
            let places = (0..5).filter(|i| fates[*i] == fate);
            // The first is a claim already.
            places.filter(|i| *i > 0 || fate != 2).collect::<Vec<usize>>()
        };
        let (mut gone, there) = (with_fate(1), with_fate(2));
        gone.sort_by_key(|i| ledger.records[*i].order);
        let uidl = "u".repeat(uidl_octets);
        let new: Vec<Record> = (0..new)
            .map(|n| record(20 + n, 6 + n, &format!("{uidl}{n}"), Provenance::Native))
            .collect();
        let by_hand = grown_by_hand(&ledger, &gone, &there, &new);

        let kept = |i: &usize, is_gone: bool| KeptRun { places: *i..*i + 1, is_gone };
        let gone = gone.iter().map(|i| kept(i, true));
        let mut all: Vec<KeptRun> = gone.chain(there.iter().map(|i| kept(i, false))).collect();
        all.dedup_by(|next, run| {
            let follows = next.places.start == run.places.end && next.is_gone == run.is_gone;
            run.places.end += usize::from(follows);
            follows
        });
        let growth = Growth { head: by_hand.head(), told: by_hand.told.clone(), kept: all, new };
        let (front, back) = LedgerFront::of_encoded(ledger.encode()).unwrap();
        let (front, back) = front.ledger(&back).unwrap().grow(&growth).unwrap();
        prop_assert_eq!([front.octets(), &back].concat(), by_hand.encode());
        prop_assert!(LedgerFront::read(front.octets().to_vec()).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// The account's owner can write any front, with its checksum.
    #[test]
    fn a_front_is_read_where_every_record_of_it_is_sound(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                Just(0), Just(1), Just(b'\n'), Just(b'!'), Just(b'~'), Just(0x7F), any::<u8>(),
            ]),
            1..4,
        ),
    ) {
        let mut file = sample().encode();
        let len = LedgerFront::front_len(&file, file.len() as u64).unwrap();
        let records = HEADER_OCTETS + 5 + 2 * TOLD_OCTETS..len - 2 * CHECKSUM_OCTETS;
        file.truncate(records.end);
        for (at, octet) in changes {
            file[records.start + at.index(records.len())] = octet;
        }
        let file = sealed(file);
        prop_assert_eq!(LedgerFront::read(file.clone()).is_ok(), is_sound(&file));
    }
}
