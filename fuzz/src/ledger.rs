//! The ledger: a login's half of it and the whole agree, and it is written as it was read.

use uidl_keep::ledger::{Answers, Ledger, Mark};

use super::forge;
use super::{check_message, check_uidl};

/// The input as it is, and as it would be with right checksums.
pub fn check(octets: &[u8]) {
    check_file(octets);
    check_mark(octets);
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
    assert_eq!(answers.uidvalidity(), ledger.uidvalidity);
    assert!(ledger.records.is_sorted_by_key(|record| (record.uid, record.order)));
    for (at, record) in ledger.records.iter().enumerate() {
        assert_eq!(answers.uidl(at), record.uidl.as_bytes());
        assert_eq!(answers.order_number(at), record.order);
        assert_eq!(answers.how(at), record.how);
        assert_eq!(answers.name(at), record.name);
        if record.uid != 0 {
            for guess in [0, at, at + 1, usize::MAX] {
                assert_eq!(answers.find(record.uid, guess), Some(at));
            }
        }
    }
    assert_eq!(ledger.encode(), file);
}

/// What stands in the lock's file: a line as we write it, or one that says that anything may have been
/// told.
fn check_mark(line: &[u8]) {
    let mark = Mark::of_line(line);
    assert!(mark.to_line().len() <= Mark::MAX_LINE_OCTETS);
    assert!(mark.to_line().as_bytes() == line || mark == Mark::of_line(b""));
}

/// What a warm login takes: the front, read by the lengths that its start gives.
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
