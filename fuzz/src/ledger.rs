//! The ledger: the half that a login reads agrees with the whole, and it is written as it was read.

use uidl_keep::ledger::{
    AnyLedger, Growth, KeptRun, Ledger, LedgerFront, LedgerHead, MAX_TOLD, Mark, NameHashes,
    UnclaimedKeys,
};

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
    let front = front(file);
    if let Some(front) = &front {
        check_front(front);
    }
    let ledger = match Ledger::decode(file) {
        Ok(ledger) => ledger,
        Err(error) => return check_message(error),
    };
    let front = front.expect("a whole ledger has a front");
    assert_eq!(front.answers().len(), ledger.records.len());
    check_head(&front, &ledger);
    assert!(ledger.unclaimed.len() <= UnclaimedKeys::MOST);
    assert!(ledger.records.is_sorted_by_key(|record| (record.uid, record.order)));
    for (at, record) in ledger.records.iter().enumerate() {
        assert_eq!(front.answers().uid(at), record.uid);
        assert_eq!(front.answers().uidl(at), record.uidl.as_bytes());
        assert_eq!(front.answers().order_number(at), record.order);
        assert_eq!(front.provenance(at), record.provenance);
        assert_eq!(front.names(at).collect::<NameHashes>(), record.names);
        if record.uid != 0 {
            for guess in [0, at, at + 1, usize::MAX] {
                assert_eq!(front.answers().find(record.uid, guess), Some(at));
            }
        }
    }
    check_written_again(&ledger, file);
    check_in_file(&ledger, file);
    let mark = Mark::of(&ledger, ledger.records.len() as u32);
    assert_eq!(Mark::of_file(&mark.to_file()), Some(mark));
}

/// Checks that the ledger is the same where it lies in its file, and that what grows there can be
/// read again, or does not grow.
fn check_in_file(ledger: &Ledger, file: &[u8]) {
    let front_len = LedgerFront::front_len(file, file.len() as u64).expect("it was read");
    let (front, back) = file.split_at(front_len);
    let front = LedgerFront::read(front.to_vec()).expect("it was read");
    let in_file = front.ledger(back).expect("it was read");
    assert_eq!(Mark::of(&in_file, 1), Mark::of(ledger, 1));
    assert_eq!(Ledger::of(&in_file), *ledger);
    for is_gone in [false, true] {
        let run = KeptRun { places: 0..ledger.records.len(), is_gone };
        let kept = Vec::from_iter(Some(run).filter(|run| !run.places.is_empty()));
        let (head, told, new) = (in_file.head(), ledger.told.clone(), Vec::new());
        match in_file.grow(&Growth { head, told, kept, new }) {
            Ok((front, back)) => {
                let grown = Ledger::decode(&[front.octets(), &back].concat()).expect("ours");
                let mut records = ledger.records.clone();
                records.iter_mut().filter(|_| is_gone).for_each(|record| record.uid = 0);
                assert_eq!(grown, Ledger { records, ..ledger.clone() });
            }
            // As claims they ascend by their order alone.
            Err(error) => {
                assert!(is_gone && !ledger.records.is_sorted_by(|a, b| a.order < b.order));
                check_message(error);
            }
        }
    }
}

/// Checks that the part that a login reads beside its messages agrees with the whole.
fn check_head(front: &LedgerFront, ledger: &Ledger) {
    let LedgerHead { begun_after, epoch, next_order, .. } = front.head();
    assert_eq!((begun_after, epoch), (ledger.begun_after, ledger.epoch));
    assert_eq!(next_order, ledger.next_order);
    let LedgerHead { restored, unguarded, index, native_from, .. } = front.head();
    assert_eq!((restored, unguarded), (ledger.restored, ledger.unguarded));
    assert_eq!((index, native_from), (ledger.index, ledger.native_from));
    assert_eq!(front.user(), ledger.user);
    assert!(front.told().eq(ledger.told.iter().copied()));
}

/// Checks that it is written as it was read. There is one exception: only a forger writes a second
/// name without a first, and it is written as the first.
fn check_written_again(ledger: &Ledger, file: &[u8]) {
    let count = ledger.records.len();
    let heap: usize = ledger.records.iter().map(|record| record.uidl.as_bytes().len() + 1).sum();
    let answers = 8 * ledger.told.len() + 12 * count + heap;
    let start = LedgerFront::HEADER_OCTETS + ledger.user.len() + answers;
    let (first, second) = file[start..start + 16 * count].split_at(8 * count);
    let names = || [first, second].map(|names| names.chunks(8).map(|name| name != [0; 8]));
    let read: usize = ledger.records.iter().map(|record| record.names.len()).sum();
    assert_eq!(names().into_iter().flatten().filter(|is_name| *is_name).count(), read);
    let [mut first, mut second] = names();
    let again = ledger.encode();
    if first.by_ref().zip(second.by_ref()).all(|(first, second)| first || !second) {
        // The names of the listing are no part of what was told.
        let names_end = LedgerFront::front_len(file, file.len() as u64).expect("read");
        let mut file = file.to_vec();
        file[names_end - 16..names_end].fill(0);
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
fn front(file: &[u8]) -> Option<LedgerFront> {
    let front_len = match LedgerFront::front_len(file, file.len() as u64) {
        Ok(front_len) => front_len,
        Err(error) => {
            check_message(error);
            return None;
        }
    };
    assert!(front_len <= file.len(), "more than there is");
    LedgerFront::read(file[..front_len].to_vec()).map_err(check_message).ok()
}

fn check_front(front: &LedgerFront) {
    assert!(!front.user().is_empty());
    assert!(front.told().count() <= MAX_TOLD);
    let answers = front.answers();
    for at in 0..answers.len() {
        let uidl = answers.uidl(at);
        check_uidl(uidl);
        assert_eq!(answers.uidl_for_c(at).to_bytes(), uidl);
        assert!(answers.order_number(at) > 0);
    }
    for uid in [0, 1, 2, 1 << 31, u32::MAX] {
        if let Some(at) = answers.find(uid, 0) {
            assert!(uid != 0 && at < answers.len());
        }
    }
}
