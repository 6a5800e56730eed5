//! `cyrus.index` beside the messages of a mailbox.

use uidl_keep::capture::disk::cyrus::{CyrusIndex, MailboxOwner, plan};
use uidl_keep::capture::disk::maildir::{Folder, MessageFile, Snapshot};
use uidl_keep::format::UidlFormat;

use super::{check_message, check_plan};

/// An index: as it is, and with the lengths and checksums of its version. The same input is also
/// read as a header.
pub fn check(octets: &[u8]) {
    if let MailboxOwner::User { local, domain } = MailboxOwner::of_header(octets) {
        assert!(!local.is_empty() && !local.contains('^'));
        assert!(domain.is_none_or(|domain| !domain.contains('!')));
    }
    check_index(octets);
    check_index(&forged(octets));
}

fn check_index(octets: &[u8]) {
    let messages = (1..8_u32).map(|uid| {
        let name: Box<[u8]> = format!("{uid}.").into_bytes().into();
        let inode = uid.into();
        MessageFile { base: name.clone(), name, folder: Folder::Top, inode, mtime: 0 }
    });
    let snapshot = Snapshot {
        state: Some(octets.to_vec()),
        messages: messages.collect(),
        ..Snapshot::default()
    };
    let parsed = CyrusIndex::parse(octets);
    match &parsed {
        Ok(index) => {
            assert!(index.uidvalidity > 0);
            assert!(index.records.iter().all(|record| record.uid > 0 && record.uid < index.next));
            assert!(index.records.windows(2).all(|pair| pair[0].uid < pair[1].uid));
        }
        Err(error) => check_message(error),
    }
    let plan = plan(&snapshot, &UidlFormat::parse("%v.%u").expect("a format"));
    match (plan, parsed) {
        (Ok(plan), Ok(index)) => {
            assert_eq!(plan.entries.len() + plan.spent.len(), index.records.len());
            for (entry, record) in plan.entries.iter().zip(&index.records) {
                assert!(entry.uid.is_some_and(|uid| uid <= record.uid || uid < 8));
            }
            check_plan(plan, &snapshot);
        }
        (Err(error), Err(_)) => check_message(error),
        _ => panic!("a plan of no index, or none of one"),
    }
}

/// The lengths of header and record, by version, from `imap/index_file.c`.
const LENGTHS: [(usize, usize); 14] = [
    (76, 60),
    (76, 72),
    (92, 80),
    (96, 80),
    (96, 88),
    (128, 96),
    (128, 104),
    (160, 104),
    (160, 104),
    (160, 112),
    (160, 112),
    (160, 112),
    (160, 112),
    (192, 144),
];
const VERSIONS: [u32; 14] = [6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20];

fn forged(octets: &[u8]) -> Vec<u8> {
    let at = octets.get(11).map_or(0, |&version| usize::from(version) % VERSIONS.len());
    let (version, (header, record)) = (VERSIONS[at], LENGTHS[at]);
    let mut octets = octets.to_vec();
    octets.resize(octets.len().max(header), 0);
    let records = (octets.len() - header) / record;
    octets.truncate(header + records * record);
    let put = |octets: &mut [u8], at: usize, word: u32| {
        octets[at..at + 4].copy_from_slice(&word.to_be_bytes());
    };
    for (at, word) in [(8, version), (12, header as u32), (16, record as u32), (20, records as u32)]
    {
        put(&mut octets, at, word);
    }
    if version >= 12 {
        let (head, body) = octets.split_at_mut(header);
        for part in std::iter::once(head).chain(body.chunks_exact_mut(record)) {
            let crc = part.len() - 4;
            let sum = crc32fast::hash(&part[..crc]);
            put(part, crc, sum);
        }
    }
    octets
}
