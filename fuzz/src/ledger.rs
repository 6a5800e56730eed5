//! The ledger: the half that a login reads agrees with the whole, and it is written as it was read.

use uidl_keep::ledger::{Answers, Head, Ledger, MAX_TOLD, Mark, Names};

use super::forge;
use super::{check_message, check_uidl};

/// Checks the input as it is, and with right checksums.
pub fn check(octets: &[u8]) {
    check_file(octets);
    check_mark(octets);
    check_mark(&forge::mark(octets));
    for right in [forge::Ledger::AsItIs, forge::Ledger::Counts, forge::Ledger::Starts] {
        check_file(&forge::ledger(octets, right));
    }
}

fn check_file(file: &[u8]) {
    let answers = answers(file);
    if let Some(answers) = &answers {
        check_answers(answers);
    }
    let ledger = match Ledger::decode(file) {
        Ok(ledger) => ledger,
        Err(error) => return check_message(error),
    };
    let answers = answers.expect("a whole ledger has a front");
    assert_eq!(answers.len(), ledger.records.len());
    check_head(&answers, &ledger);
    assert!(ledger.records.is_sorted_by_key(|record| (record.uid, record.order)));
    for (at, record) in ledger.records.iter().enumerate() {
        assert_eq!(answers.uid(at), record.uid);
        assert_eq!(answers.uidl(at), record.uidl.as_bytes());
        assert_eq!(answers.order_number(at), record.order);
        assert_eq!(answers.provenance(at), record.provenance);
        assert_eq!(answers.names(at).collect::<Names>(), record.names);
        if record.uid != 0 {
            for guess in [0, at, at + 1, usize::MAX] {
                assert_eq!(answers.find(record.uid, guess), Some(at));
            }
        }
    }
    check_written_again(&ledger, file);
    let mark = Mark::of(&ledger.borrowed(), ledger.records.len() as u32);
    assert_eq!(Mark::of_file(&mark.to_file()), Some(mark));
}

/// Checks that the part that a login reads beside its messages agrees with the whole.
fn check_head(answers: &Answers, ledger: &Ledger) {
    let Head { begun_after, uidvalidity, next_uid, index_id, next_order, .. } = answers.head();
    assert_eq!((begun_after, uidvalidity), (ledger.begun_after, ledger.uidvalidity));
    assert_eq!((next_uid, index_id), (ledger.next_uid, ledger.index_id));
    assert_eq!(next_order, ledger.next_order);
    let Head { restored, unguarded, index, native_from, .. } = answers.head();
    assert_eq!((restored, unguarded), (ledger.restored, ledger.unguarded));
    assert_eq!((index, native_from), (ledger.index, ledger.native_from));
    assert_eq!(answers.user(), ledger.user);
    assert!(answers.told().eq(ledger.told.iter().copied()));
}

/// Checks that it is written as it was read. There is one exception: only a forger writes a second
/// name without a first, and it is written as the first.
fn check_written_again(ledger: &Ledger, file: &[u8]) {
    let count = ledger.records.len();
    let start = Answers::HEADER_OCTETS + ledger.user.len() + 8 * ledger.told.len() + 12 * count;
    let (first, second) = file[start..start + 16 * count].split_at(8 * count);
    let names = || [first, second].map(|names| names.chunks(8).map(|name| name != [0; 8]));
    let read: usize = ledger.records.iter().map(|record| record.names.len()).sum();
    assert_eq!(names().into_iter().flatten().filter(|is_name| *is_name).count(), read);
    let [mut first, mut second] = names();
    let again = ledger.encode();
    if first.by_ref().zip(second.by_ref()).all(|(first, second)| first || !second) {
        assert_eq!(again, file);
    } else {
        assert_eq!(Ledger::decode(&again).as_ref(), Ok(ledger));
    }
}

/// Checks the content of the lock's file: nothing, or a mark. A mark may say that anything may have
/// been told. It is kept as it was read, except for UIDVALIDITYs that it has no room for.
fn check_mark(file: &[u8]) {
    let Some(mark) = Mark::of_file(file) else {
        return assert!(file.trim_ascii_end().is_empty());
    };
    let written = mark.to_file();
    assert_eq!(written.len(), Mark::OCTETS);
    if mark.told.as_ref().is_none_or(|told| told.len() <= MAX_TOLD) {
        assert_eq!(Mark::of_file(&written), Some(mark));
    }
}

/// The part that a warm login reads: the front, by the lengths that its start gives.
fn answers(file: &[u8]) -> Option<Answers> {
    let front_len = match Answers::front_len(file, file.len() as u64) {
        Ok(front_len) => front_len,
        Err(error) => {
            check_message(error);
            return None;
        }
    };
    assert!(front_len <= file.len(), "more than there is");
    Answers::read(file[..front_len].to_vec()).map_err(check_message).ok()
}

fn check_answers(answers: &Answers) {
    assert!(!answers.user().is_empty());
    assert!(answers.told().count() <= MAX_TOLD);
    for at in 0..answers.len() {
        let (uidl, with_nul) = (answers.uidl(at), answers.uidl_with_nul(at));
        check_uidl(uidl);
        assert_eq!(with_nul.split_last(), Some((&0, uidl)));
        assert!(answers.order_number(at) > 0);
    }
    for uid in [0, 1, 2, 1 << 31, u32::MAX] {
        if let Some(at) = answers.find(uid, 0) {
            assert!(uid != 0 && at < answers.len());
        }
    }
}
