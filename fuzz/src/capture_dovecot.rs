//! `dovecot-uidlist` beside the messages of a Maildir.

use uidl_keep::bake::{BakedList, StoredUidl};
use uidl_keep::capture::disk::dovecot::{UidList, UidListRecord, plan};
use uidl_keep::format::UidlFormat;

use super::{check_message, check_plan, parts, snapshot};

/// A `pop3_uidl_format`, a NUL, the list, a NUL, then one file name on each line.
pub fn check(octets: &[u8]) {
    let [format, list, names] = parts(octets);
    let format = std::str::from_utf8(format).ok().and_then(|text| UidlFormat::parse(text).ok());
    let format = format.unwrap_or_else(|| UidlFormat::parse("%08Xu%08Xv").expect("the default"));
    let parsed = UidList::parse(list);
    match &parsed {
        Ok(parsed) => check_list(list, parsed),
        Err(error) => check_message(error),
    }
    match BakedList::parse(list, [7; 16]) {
        Ok(baked) => check_baked(list, baked),
        Err(error) => check_message(error),
    }
    for state in [Some(list), None] {
        let snapshot = snapshot(state, names);
        match plan(&snapshot, &format, &["alice"]) {
            Ok(plan) => {
                if let (Some(_), Ok(list)) = (state, &parsed) {
                    assert_eq!(plan.uidvalidity, Some(list.uidvalidity));
                    assert_eq!(plan.counter.is_some(), format.is_counting());
                    for entry in &plan.entries {
                        let uid = entry.uid.expect("Dovecot gives every message one");
                        assert_eq!(list.messages[&uid].file, snapshot.messages[entry.at].base);
                    }
                }
                check_plan(plan, &snapshot);
            }
            Err(error) => check_message(error),
        }
    }
}

/// What can be baked is read by the other reader in the same way, and comes out as it went in.
fn check_baked(octets: &[u8], mut list: BakedList) {
    let read = UidList::parse(octets).expect("it is less strict");
    assert_eq!((read.uidvalidity, read.next), (list.uidvalidity(), list.next()));
    assert!(read.odd.is_empty() && read.replaced.is_empty());
    let lines: Vec<(u32, Box<[u8]>)> =
        list.lines().iter().map(|line| (line.uid(), line.base().into())).collect();
    assert!(lines.iter().zip(&read.messages).all(|(line, (uid, _))| line.0 == *uid));
    assert_eq!(lines.len(), read.messages.len());
    let again = BakedList::parse(&list.encode(), [0; 16]).expect("what we wrote");
    assert_eq!(again, list);
    for (uid, file) in &lines {
        let stored = StoredUidl::baked(b"told", *uid);
        assert!(list.set(*uid, file, &stored));
        assert_eq!(list.find(*uid, file).expect("set").stored(), stored);
    }
    let again = BakedList::parse(&list.encode(), [0; 16]).expect("what we wrote");
    assert_eq!(again, list);
}

fn check_list(octets: &[u8], list: &UidList) {
    let lines = octets.split_inclusive(|&octet| octet == b'\n').count() - 1;
    // A line that comes twice counts once.
    assert!(list.messages.len() + list.replaced.len() + list.odd.len() <= lines);
    assert!(list.uidvalidity > 0);
    let mut again = format!("3 V{} N{}\n", list.uidvalidity, list.next).into_bytes();
    let mut files: Vec<&[u8]> = Vec::new();
    for (uid, record) in &list.messages {
        assert!(*uid > 0 && *uid < list.next);
        files.push(&record.file);
        again.extend(line(*uid, record));
    }
    files.sort_unstable();
    assert!(files.windows(2).all(|pair| pair[0] != pair[1]), "two messages of one file");
    let read = UidList::parse(&again).expect("a right header");
    assert_eq!(read, UidList { replaced: Vec::new(), odd: Vec::new(), ..list.clone() });
}

fn line(uid: u32, record: &UidListRecord) -> Vec<u8> {
    let mut line = format!("{uid} ").into_bytes();
    for (key, value) in [(b'P', &record.uidl), (b'O', &record.order), (b'G', &record.guid)] {
        if let Some(value) = value {
            line.push(key);
            line.extend(value.iter());
            line.push(b' ');
        }
    }
    line.push(b':');
    line.extend(record.file.iter());
    // A CR at the end of the name is its own.
    line.extend(b"\r\n");
    line
}
