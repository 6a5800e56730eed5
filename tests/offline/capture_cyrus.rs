//! A Cyrus mailbox, compared with what Cyrus itself listed and gave.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shared::capture::{listed, remarks_on, spent, uidls};
use crate::shared::uidl_keep;
use proptest::prelude::*;
use uidl_keep::capture::disk::cyrus::{CyrusIndex, MailboxOwner};
use uidl_keep::capture::disk::server::{ServerKind, capture};
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::{Keys, MessageRead};
use uidl_keep::format::UidlFormat;
use uidl_keep::key::Depth;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::State;

fn cyrus(format: &str) -> ServerKind {
    ServerKind::Cyrus { format: UidlFormat::parse(format).unwrap() }
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cyrus")
}

fn capture_at(path: &Path, server: &ServerKind, keys: Keys) -> Captured {
    capture(server, keys, &Source::named("alice@example.com", path))
}

/// A record of an index that is made here.
#[derive(Debug, Clone, Copy)]
struct Record {
    uid: u32,
    flags: u32,
    arrived: u32,
}

const fn record(uid: u32) -> Record {
    Record { uid, flags: 0, arrived: 1000 }
}

const EXPUNGED: u32 = 1 << 31;
const VERSIONS: [u32; 14] = [6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20];

/// An index of that version, by the table at the head of `src/capture/disk/cyrus.rs`.
fn index(
    version: u32,
    options: u32,
    show_after: u32,
    last_uid: u32,
    records: &[Record],
) -> Vec<u8> {
    let (header_octets, record_octets) = match version {
        6 => (76, 60),
        7 => (76, 72),
        8 => (92, 80),
        9 => (96, 80),
        10 => (96, 88),
        12 => (128, 96),
        13 => (128, 104),
        14 | 15 => (160, 104),
        16..=19 => (160, 112),
        _ => (192, 144),
    };
    let put = |octets: &mut [u8], at: usize, word: u32| {
        octets[at..at + 4].copy_from_slice(&word.to_be_bytes());
    };
    let put_wide = |octets: &mut [u8], at: usize, number: u64| {
        octets[at..at + 8].copy_from_slice(&number.to_be_bytes());
    };
    let nanoseconds = |seconds: u32| u64::from(seconds) * 1_000_000_000;
    let seal = |octets: &mut [u8]| {
        let crc = octets.len() - 4;
        if version >= 12 {
            let sum = crc32fast::hash(&octets[..crc]);
            put(octets, crc, sum);
        }
    };
    let exists = records.iter().filter(|record| record.flags & EXPUNGED == 0).count() as u32;
    let mut header = vec![0; header_octets];
    for (at, word) in [
        (8, version),
        (12, header_octets as u32),
        (16, record_octets as u32),
        (20, records.len() as u32),
    ] {
        put(&mut header, at, word);
    }
    let (uid_at, validity_at) = if version == 20 { (88, 92) } else { (28, 44) };
    put(&mut header, uid_at, last_uid);
    put(&mut header, validity_at, 17);
    put(&mut header, if version >= 19 { 64 } else { 60 }, options);
    match version {
        ..12 => {}
        12..=18 => put(&mut header, 84, exists),
        _ => put(&mut header, 60, exists),
    }
    match version {
        ..13 => {}
        20 => put_wide(&mut header, 112, nanoseconds(show_after)),
        _ => put(&mut header, 112, show_after),
    }
    seal(&mut header);
    for one in records {
        let mut octets = vec![0; record_octets];
        put(&mut octets, 0, one.uid);
        if version == 20 {
            put_wide(&mut octets, 8, nanoseconds(one.arrived));
            put_wide(&mut octets, 24, 400 + u64::from(one.uid));
            put(&mut octets, 36, one.flags);
        } else {
            put(&mut octets, 4, one.arrived);
            put(&mut octets, 12, 400 + one.uid);
            put(&mut octets, 32, one.flags);
        }
        seal(&mut octets);
        header.extend(octets);
    }
    header
}

/// A mailbox of that index, with these messages.
fn mailbox(index: &[u8], uids: &[u32]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cyrus.index"), index).unwrap();
    for uid in uids {
        let message = format!("Subject: {uid}\r\n\r\nbody of {uid}\r\n");
        fs::write(dir.path().join(format!("{uid}.")), message).unwrap();
    }
    dir
}

fn captured(index: &[u8], uids: &[u32]) -> Captured {
    capture_at(mailbox(index, uids).path(), &cyrus("%v.%u"), Keys::default())
}

#[test]
fn a_mailbox_is_captured_as_cyrus_itself_listed_it() {
    let keys = Keys { origin: true, ..Keys::default() };
    let captured = capture_at(&samples(), &cyrus("%v.%u"), keys);
    assert_eq!(captured.losses, [""; 0]);
    let maildrop = captured.maildrop;
    assert_eq!(uidls(&maildrop), listed("cyrus/uidl"));
    let sizes: Vec<String> =
        maildrop.entries.iter().map(|e| e.octets.unwrap().to_string()).collect();
    assert_eq!(sizes, listed("cyrus/list"));
    let counter = maildrop.counter.unwrap();
    assert_eq!((counter.format.to_string(), counter.next), ("%v.%u".to_owned(), 13));
    assert_eq!(maildrop.uidvalidity, Some(1_795_469_142));
    let mut whole = 0;
    for (number, entry) in (1..).zip(&maildrop.entries) {
        let given = fs::read(samples().join(format!("retr/{number:02}"))).unwrap();
        let given = MessageRead::read(&given[..], Depth::Message).unwrap().of;
        assert_eq!((entry.header, entry.origin), (given.header, given.origin), "{number}");
        assert!(entry.header.is_some() && entry.uid == Some(number) && entry.file.is_none());
        if entry.message.is_some() {
            assert_eq!(entry.message, given.message, "{number}");
            whole += 1;
        }
    }
    // These are the two identical copies, and the one that has only a header.
    assert_eq!(whole, 3);
}

#[test]
fn every_version_of_the_index_is_read_and_no_other() {
    let records = [record(3), Record { flags: EXPUNGED, ..record(5) }, record(7)];
    for version in VERSIONS {
        // Before version 12 the expunged messages were in another file.
        let records = if version < 12 { vec![records[0], records[2]] } else { records.to_vec() };
        let captured = captured(&index(version, 1, 0, 9, &records), &[3, 5, 7]);
        assert_eq!(captured.losses, [""; 0], "{version}");
        assert_eq!(uidls(&captured.maildrop), ["17.3", "17.7"], "{version}");
        assert_eq!(captured.maildrop.counter.unwrap().next, 10, "{version}");
        let old = self::captured(&index(version, 0, 0, 9, &records), &[3, 5, 7]).maildrop;
        assert_eq!(uidls(&old), ["3", "7"], "{version}");
    }
    for version in [0, 5, 11, 21, u32::MAX] {
        let mut unknown = index(17, 1, 0, 9, &records);
        unknown[8..12].copy_from_slice(&version.to_be_bytes());
        let captured = captured(&unknown, &[3, 5, 7]);
        assert_eq!(captured.maildrop.state, State::Failed, "{version}");
        assert_eq!(captured.losses, [format!("cyrus.index:1: unknown version: {version}")]);
    }
}

#[test]
fn each_uidl_format_gives_what_pop3d_prints_and_an_old_mailbox_its_bare_uids() {
    let index_of = |options| index(17, options, 0, 300, &[record(3), record(300)]);
    for (format, printed) in [
        ("%v.%u", ["17.3", "17.300"]),
        ("%u", ["3", "300"]),
        ("%08Xu%08Xv", ["0000000300000011", "0000012c00000011"]),
        ("%v-%u", ["17-3", "17-300"]),
    ] {
        let dir = mailbox(&index_of(1), &[3, 300]);
        let captured = capture_at(dir.path(), &cyrus(format), Keys::default()).maildrop;
        assert_eq!(uidls(&captured), printed, "{format}");
        assert_eq!(captured.counter.unwrap().format.to_string(), format);
    }
    let old = captured(&index_of(0), &[3, 300]);
    assert_eq!(uidls(&old.maildrop), ["3", "300"]);
    assert_eq!(old.maildrop.counter.as_ref().unwrap().format.to_string(), "%u");
    assert!(remarks_on(&old, "before Cyrus 2.1.4"));
    // Cyrus turns the option on in a mailbox that has nothing in it.
    let emptied = captured(&index(17, 0, 0, 300, &[]), &[]).maildrop;
    assert_eq!(emptied.counter.unwrap().format.to_string(), "%v.%u");
}

#[test]
fn what_is_hidden_is_listed_and_said_and_what_has_no_file_is_spent() {
    let records = [
        Record { arrived: 500, ..record(1) },
        Record { flags: 1 << 2, ..record(2) },
        Record { flags: 1 << 29, ..record(3) },
        Record { flags: 1 << 30, ..record(4) },
        record(5),
    ];
    for version in [13, 19, 20] {
        let captured = captured(&index(version, 1, 999, 9, &records), &[1, 2, 4, 10]);
        assert_eq!(uidls(&captured.maildrop), ["17.1", "17.2"], "{version}");
        assert_eq!(spent(&captured.maildrop), ["17.3", "17.5"], "{version}");
        assert_eq!(captured.losses.len(), 2, "{:?}", captured.losses);
        assert!(captured.losses[0].starts_with("3. is in the archive partition"));
        assert!(
            remarks_on(&captured, "1 messages are \\Deleted"),
            "{:?}",
            captured.maildrop.remarks
        );
        assert!(remarks_on(&captured, "1 messages arrived before"));
        assert!(remarks_on(&captured, "1 messages not in cyrus.index yet"));
    }
}

#[test]
fn a_changed_octet_costs_a_record_or_the_mailbox_and_gives_no_other_uidl() {
    let whole = index(17, 1, 0, 9, &[record(3), record(7)]);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        match CyrusIndex::parse(&damaged) {
            Ok(index) => {
                assert!(at >= 160, "octet {at} of the header");
                assert_eq!(index.odd, [1 + (at - 160) / 112], "octet {at}");
                assert_eq!(index.records.len(), 1);
            }
            Err(_) => assert!(at < 160, "octet {at}"),
        }
        assert!(CyrusIndex::parse(&whole[..at]).is_err(), "cut at {at}");
    }
    let mut damaged = whole;
    damaged[170] ^= 1;
    let captured = captured(&damaged, &[3, 7]);
    assert_eq!(uidls(&captured.maildrop), ["17.7"]);
    assert_eq!(captured.losses, ["cyrus.index: record 1 is damaged"]);
}

#[test]
fn an_index_of_other_mail_than_lies_there_fails() {
    let of = |uids: &[u32]| captured(&index(13, 1, 0, 9, &[record(3), record(4)]), uids);
    for uids in [&[7, 8][..], &[]] {
        let other = of(uids);
        assert_eq!(other.maildrop.state, State::Failed, "{uids:?}");
        let said = format!("cyrus.index lists 2 messages and {} lie beside it", uids.len());
        assert!(other.losses[0].starts_with(&said), "{:?}", other.losses);
    }
    let half = of(&[4, 8]);
    let listed = uidls(&half.maildrop);
    assert!(listed.len() == 1 && listed[0].ends_with(".4"), "{listed:?}");
    assert_eq!(half.losses.len(), 1);
    let expunged = Record { flags: EXPUNGED, ..record(3) };
    let none = captured(&index(13, 1, 0, 9, &[expunged]), &[3]);
    assert_eq!((none.maildrop.state, none.losses.len()), (State::Captured, 0));
}

#[test]
fn a_directory_without_an_index_is_a_failure_and_not_an_empty_maildrop() {
    for uids in [&[1, 2][..], &[]] {
        let dir = mailbox(b"", uids);
        fs::remove_file(dir.path().join("cyrus.index")).unwrap();
        let captured = capture_at(dir.path(), &cyrus("%v.%u"), Keys::default());
        assert_eq!(captured.maildrop.state, State::Failed);
        assert!(captured.losses[0].contains("no cyrus.index"), "{:?}", captured.losses);
    }
    let empty = captured(&index(17, 1, 0, 0, &[]), &[]).maildrop;
    assert_eq!(empty.state, State::Empty);
}

/// Captures a spool by these patterns, and returns how many messages each user has.
fn captured_spool(
    spool: &Path,
    patterns: &[&str],
    more: &[&str],
) -> (Vec<(String, usize)>, String) {
    let mut helper = uidl_keep();
    helper.args(["capture", "cyrus", "--root"]).arg(spool).args(more);
    for pattern in patterns {
        helper.args(["--pattern", pattern]);
    }
    let ran = helper.output().unwrap();
    let blocks = Reader::new(&ran.stdout[..]).map(|block| block.unwrap());
    let users = blocks.map(|block| (block.user, block.entries.len())).collect();
    (users, String::from_utf8(ran.stderr).unwrap())
}

#[test]
fn a_whole_spool_is_captured_by_what_its_paths_or_its_headers_say() {
    let dir = tempfile::tempdir().unwrap();
    let make = |place: &str, name: Option<&str>, uids: &[u32]| {
        let path = dir.path().join("mail").join(place);
        fs::create_dir_all(&path).unwrap();
        let records: Vec<Record> = uids.iter().map(|&uid| record(uid)).collect();
        fs::write(path.join("cyrus.index"), index(17, 1, 0, 9, &records)).unwrap();
        for uid in uids {
            fs::write(path.join(format!("{uid}.")), format!("Subject: {uid}\r\n\r\n")).unwrap();
        }
        let mut header = fs::read(samples().join("cyrus.header")).unwrap();
        let line = header.windows(2).position(|two| two == b"%(").unwrap();
        header.truncate(line);
        header.extend(match name {
            Some(name) => format!("%(T e N {name} I abc A %(u1 lrs))").into_bytes(),
            None => b"user.whoever\tabc\n\nu1\tlrs\t\n".to_vec(),
        });
        fs::write(path.join("cyrus.header"), header).unwrap();
    };
    make("a/user/alice", None, &[1, 2]);
    make("a/user/alice/Sent", None, &[1]);
    make("j/user/john^doe", None, &[1]);
    make("domain/e/example.com/b/user/bob", None, &[3]);
    make("uuid/h/w/one", Some("user.carol"), &[1]);
    make("uuid/h/w/two", Some("user.carol.Sent"), &[1]);
    make("uuid/h/w/three", Some("shared"), &[1]);
    make("uuid/x/y/four", Some("\"example.com!user.dave^d\""), &[1, 2, 3]);
    let by_path = captured_spool(
        dir.path(),
        &["/mail/?/user/{user}", "/mail/domain/?/{domain}/?/user/{local}"],
        &[],
    );
    let wanted = [("alice", 2), ("bob@example.com", 1), ("john.doe", 1)];
    let wanted = wanted.map(|(user, count)| (user.to_owned(), count)).to_vec();
    assert_eq!(by_path, (wanted, String::new()));
    let by_header = captured_spool(dir.path(), &["/mail/uuid/?/?/*"], &["--only", "example.com"]);
    assert_eq!(by_header, (vec![("dave.d@example.com".to_owned(), 3)], String::new()));
    let (users, said) = captured_spool(dir.path(), &["/mail/uuid/?/?/*"], &[]);
    assert_eq!(
        users.iter().map(|(user, _)| &user[..]).collect::<Vec<_>>(),
        ["carol", "dave.d@example.com"]
    );
    assert_eq!(said, "");
    // The header that the real one wrote.
    let header = fs::read(samples().join("cyrus.header")).unwrap();
    let owner = MailboxOwner::User { local: "u1".to_owned(), domain: None };
    assert_eq!(MailboxOwner::of_header(&header), owner);
}

proptest! {
    #[test]
    fn no_index_makes_the_parser_panic(
        version in 0_u32..22,
        mut octets in proptest::collection::vec(any::<u8>(), 0..700),
        records in 0_u32..9,
    ) {
        let real = index(VERSIONS[version as usize % VERSIONS.len()], 1, 0, 9, &[]);
        let lengths = real[12..20].to_vec();
        if octets.len() >= 24 {
            octets[8..12].copy_from_slice(&version.to_be_bytes());
            octets[12..20].copy_from_slice(&lengths);
            octets[20..24].copy_from_slice(&records.to_be_bytes());
        }
        if let Ok(index) = CyrusIndex::parse(&octets) {
            prop_assert!(index.records.windows(2).all(|pair| pair[0].uid < pair[1].uid));
            prop_assert!(index.records.iter().all(|record| record.uid < index.next));
        }
    }
}
