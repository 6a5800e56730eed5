//! Captures from disk, compared with the listings of the old servers themselves.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uidl_keep::capture::disk::server::{ServerKind, capture};
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::format::UidlFormat;
use uidl_keep::listing::{Reader, write_maildrop};
use uidl_keep::maildrop::{Maildrop, State};

/// The file names of the Maildir from which the samples come, with their flags.
const COURIER_NAMES: &[&str] = &[
    "1714990000.20000.old.example.com:2,S",
    "1714990060.20007.old.example.com:2,S",
    "1714990120.20014.old.example.com:2,S",
    "1714990180.20021.old.example.com:2,RS",
    "1714990240.20028.old.example.com:2,",
    "1714990240.20035.old.example.com:2,S",
    "1714990360.20042.old.example.com:2,S",
    "1714990420.20049.old.example.com:2,FS",
    "1714990480.20056.old.example.com:2,S",
    "1714990540.20063.old.example.com:2,",
    "1714990600.20070.old.example.com:2,",
    "1714990660.20077.old.example.com:2,",
];

struct OldMaildir {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl OldMaildir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Maildir");
        for folder in ["cur", "new", "tmp"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        Self { _dir: dir, path }
    }

    fn of(names: &[&str]) -> Self {
        let new = Self::new();
        for name in names {
            new.add(&format!("cur/{name}"));
        }
        new
    }

    fn add(&self, name: &str) {
        fs::write(self.path.join(name), format!("Subject: {name}\n\nbody of {name}\n")).unwrap();
    }

    fn state(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path.join(name), text).unwrap();
    }

    fn capture(&self, server: &ServerKind) -> Captured {
        capture(server, Keys::default(), &Source::named("alice@example.com", &self.path))
    }
}

fn data(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

/// The unique-ids of a listing as a server gave it, in its order.
fn listed(name: &str) -> Vec<String> {
    let text = String::from_utf8(data(name)).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

fn uidls(maildrop: &Maildrop) -> Vec<String> {
    maildrop.entries.iter().map(|entry| entry.uidl.to_string()).collect()
}

fn dovecot(format: &str) -> ServerKind {
    ServerKind::Dovecot { format: UidlFormat::parse(format).unwrap() }
}

#[test]
fn courier_lists_are_captured_as_courier_itself_lists_them() {
    for version in ["crafted-v0", "crafted-v1", "crafted-v2", "crafted-v2b", "crafted-v3", "v3"] {
        let maildir = OldMaildir::of(COURIER_NAMES);
        let state = version.replace("crafted", "after");
        maildir
            .state("courierpop3dsizelist", data(&format!("courier/courierpop3dsizelist.{state}")));
        let captured = maildir.capture(&ServerKind::Courier);
        assert_eq!(captured.losses, [""; 0], "{version}");
        assert_eq!(
            uidls(&captured.maildrop),
            listed(&format!("courier/uidl.{version}")),
            "{version}"
        );
    }
}

#[test]
fn older_courier_lists_are_captured_as_the_servers_of_their_time_listed_them() {
    for version in ["v2", "v2b", "v3"] {
        let maildir = OldMaildir::of(COURIER_NAMES);
        maildir.state(
            "courierpop3dsizelist",
            data(&format!("courier/courierpop3dsizelist.crafted-{version}")),
        );
        let captured = maildir.capture(&ServerKind::Courier).maildrop;
        let listed = listed(&format!("courier/uidl.crafted-{version}"));
        assert_eq!(uidls(&captured)[..9], listed[..9], "{version}");
        assert_eq!(captured.entries.len(), 10, "two were never listed: {version}");
    }
    for (version, first, tenth) in [
        ("v0", "1714990000.20000.old.example.com", "1714990540.20063.old.example.com"),
        ("v1", "UID20", "UID29"),
    ] {
        let maildir = OldMaildir::of(COURIER_NAMES);
        maildir.state(
            "courierpop3dsizelist",
            data(&format!("courier/courierpop3dsizelist.crafted-{version}")),
        );
        let captured = maildir.capture(&ServerKind::Courier).maildrop;
        assert_eq!((&uidls(&captured)[0][..], &uidls(&captured)[9][..]), (first, tenth));
    }
}

#[test]
fn one_odd_line_costs_that_line_and_not_the_mailbox() {
    let maildir = OldMaildir::of(&["1.a b:2,S", "2.c:2,S", "3.d:2,S"]);
    maildir.state(
        "courierpop3dsizelist",
        "/3 9 1714990000\n1.a b:2,S 10 1:1714990000:0\n2.c:2,S ten\x1b[31m x\n\
         3.d:2,S 10 3:1714990000:0\n",
    );
    let captured = maildir.capture(&ServerKind::Courier);
    assert_eq!(uidls(&captured.maildrop), ["UID1-1714990000", "UID3-1714990000"]);
    assert_eq!(captured.losses.len(), 1);
    assert!(captured.losses[0].starts_with("courierpop3dsizelist:3: "), "{:?}", captured.losses);
    assert!(captured.losses[0].contains("\\x1b[31m"), "{:?}", captured.losses);
}

#[test]
fn a_name_with_odd_octets_gives_the_uidl_that_courier_escapes_it_to() {
    let maildir = OldMaildir::of(&["1.a+b'c d\"e%f:2,S"]);
    maildir.state("courierpop3dsizelist", "/3 9 17\n1.a+b'c d\"e%f:2,S 10 0:0:0\n");
    let captured = maildir.capture(&ServerKind::Courier).maildrop;
    assert_eq!(uidls(&captured), ["1.a+2Bb+27c+20d+22e%f"]);
}

#[test]
fn a_uidl_whose_file_is_gone_is_spent_and_mail_not_yet_listed_has_none() {
    let maildir = OldMaildir::of(&["2.b:2,S"]);
    maildir.add("new/3.c");
    maildir.state("courierpop3dsizelist", "/3 7 17\n1.a:2,S 10 1:17:0\n2.b:2, 10 2:17:0\n");
    let captured = maildir.capture(&ServerKind::Courier);
    assert_eq!(captured.losses, [""; 0]);
    let maildrop = captured.maildrop;
    assert_eq!(uidls(&maildrop), ["UID2-17"]);
    assert_eq!(maildrop.spent.iter().map(ToString::to_string).collect::<Vec<_>>(), ["UID1-17"]);
    let counter = maildrop.counter.unwrap();
    assert_eq!((counter.format.to_string(), counter.next), ("UID%u-%v".to_owned(), 7));
    assert!(
        maildrop.remarks.iter().any(|r| r.contains("1 message not listed")),
        "{:?}",
        maildrop.remarks
    );
}

#[test]
fn a_list_with_only_its_header_is_an_empty_maildrop_with_spent_numbers() {
    let maildir = OldMaildir::new();
    maildir.state("courierpop3dsizelist", "/3 12 17\n");
    let maildrop = maildir.capture(&ServerKind::Courier).maildrop;
    assert_eq!(maildrop.entries, []);
    assert_eq!(maildrop.counter.unwrap().next, 12);
}

#[test]
fn a_state_file_that_says_nothing_beside_mail_is_a_failure_and_not_an_empty_maildrop() {
    for state in ["", "what is this\nand this\n", "/9 1 2\n"] {
        let maildir = OldMaildir::of(&["1.a:2,S"]);
        maildir.state("courierpop3dsizelist", state);
        let captured = maildir.capture(&ServerKind::Courier);
        assert_eq!(captured.maildrop.state, State::Failed, "{state:?}");
        assert!(!captured.losses.is_empty() && !captured.maildrop.remarks.is_empty());
    }
}

#[test]
fn a_dovecot_uidlist_is_captured_as_dovecot_itself_listed_it() {
    let text = String::from_utf8(data("dovecot/dovecot-uidlist.default")).unwrap();
    let names: Vec<String> =
        text.lines().skip(1).map(|l| format!("{}:2,S", l.split_once(" :").unwrap().1)).collect();
    let maildir = OldMaildir::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    maildir.state("dovecot-uidlist", &text);
    for format in ["%08Xu%08Xv", "%{uid | hex(8)}%{uidvalidity | hex(8)}"] {
        let captured = maildir.capture(&dovecot(format));
        assert_eq!(captured.losses, [""; 0]);
        assert_eq!(uidls(&captured.maildrop), listed("dovecot/uidl.default"));
        assert_eq!(captured.maildrop.counter.unwrap().next, 13);
    }
}

#[test]
fn what_dovecot_saved_for_a_message_comes_before_the_format() {
    let maildir = OldMaildir::of(&["1.a:2,S", "2.b:2,S", "3.c:2,S", "4.d:2,S"]);
    maildir.state(
        "dovecot-uidlist",
        "3 V17 N9 G0123456789abcdef0123456789abcdef\n\
         1 O2 PUID1-99 :1.a\n2 P O1 :2.b\n3 Gelsewhere :3.c\n4 W10 :4.d\n4 PLATER :4.d\n",
    );
    let captured = maildir.capture(&dovecot("UID%u-%v"));
    assert_eq!(uidls(&captured.maildrop), ["2.b", "UID1-99", "UID3-17", "LATER"]);
    assert!(captured.maildrop.entries[2].guid.is_some());
    let saved = String::from_utf8(data("dovecot/dovecot-uidlist.save_uidl")).unwrap();
    let names: Vec<&str> = saved.lines().skip(1).map(|l| l.split_once(" :").unwrap().1).collect();
    let maildir = OldMaildir::of(&names);
    maildir.state("dovecot-uidlist", &saved);
    let captured = maildir.capture(&dovecot("%08Xu%08Xv")).maildrop;
    assert_eq!(uidls(&captured)[0], "UID1-1795469258");
}

#[test]
fn the_first_version_of_a_uidlist_is_read_too() {
    let maildir = OldMaildir::of(&["1.a:2,S", "2.b:2,S"]);
    maildir.state("dovecot-uidlist", "1 17 9\n3 1.a\n5 2.b\n");
    let captured = maildir.capture(&dovecot("%v.%u"));
    assert_eq!(uidls(&captured.maildrop), ["17.3", "17.5"]);
}

#[test]
fn qmail_lists_by_mtime_and_names_by_file() {
    let maildir = OldMaildir::of(&["3.c,S=7:2,S", "1.a:2,S"]);
    maildir.add("new/2.b");
    let second = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + n);
    for (at, name) in [(3, "new/2.b"), (1, "cur/3.c,S=7:2,S"), (2, "cur/1.a:2,S")] {
        fs::File::open(maildir.path.join(name)).unwrap().set_modified(second(at)).unwrap();
    }
    let captured = maildir.capture(&ServerKind::Qmail);
    assert_eq!(uidls(&captured.maildrop), ["3.c,S=7", "1.a", "2.b"]);
}

/// Names, sizes, times, modes and contents, atimes aside.
fn everything(path: &Path) -> Vec<(PathBuf, u64, i64, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut next = vec![path.to_owned()];
    while let Some(path) = next.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let changed = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        all.push((path.clone(), metadata.len(), changed, metadata.mode(), content));
        if metadata.is_dir() {
            next.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

#[test]
fn nothing_below_the_source_is_changed() {
    let maildir = OldMaildir::of(COURIER_NAMES);
    maildir.add("new/9.z");
    maildir.state("courierpop3dsizelist", data("courier/courierpop3dsizelist.v3"));
    maildir.state("dovecot-uidlist", "3 V17 N9\n1 :1714990000.20000.old.example.com\n");
    let before = everything(&maildir.path);
    for server in [ServerKind::Courier, dovecot("%08Xu%08Xv"), ServerKind::Qmail] {
        assert_ne!(maildir.capture(&server).maildrop.entries, []);
    }
    assert_eq!(everything(&maildir.path), before);
}

#[test]
fn planted_links_and_pipes_are_told_of_and_never_opened() {
    let maildir = OldMaildir::of(&["1.a:2,S"]);
    let secret = maildir.path.join("secret");
    fs::write(&secret, "Subject: not for you\n\n").unwrap();
    symlink(&secret, maildir.path.join("cur/2.link:2,S")).unwrap();
    let fifo = maildir.path.join("cur/3.fifo:2,S");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let captured = maildir.capture(&ServerKind::Qmail);
    let prints = |at: usize| captured.maildrop.entries[at].header.is_some();
    assert_eq!((prints(0), prints(1), prints(2)), (true, false, false));
    assert!(captured.losses.iter().any(|loss| loss.contains("2.link:2,S is a symbolic link")));
    assert!(captured.losses.iter().any(|loss| loss.contains("3.fifo:2,S is not a regular file")));
    fs::remove_dir_all(maildir.path.join("new")).unwrap();
    symlink("/etc", maildir.path.join("new")).unwrap();
    assert_eq!(maildir.capture(&ServerKind::Qmail).maildrop.state, State::Failed);
}

#[test]
fn a_live_maildrop_is_captured_whole_or_called_unstable() {
    let maildir = OldMaildir::new();
    let total = 200;
    let mut list = "/3 500 17\n".to_owned();
    for n in 0..total {
        maildir.add(&format!("new/{}.m{n}", 1000 + n));
        list += &format!("{}.m{n} 10 {}:17:0\n", 1000 + n, n + 1);
    }
    maildir.state("courierpop3dsizelist", &list);
    let path = maildir.path.clone();
    let busy = std::thread::spawn(move || {
        for n in 0..total {
            let name = format!("{}.m{n}", 1000 + n);
            fs::rename(path.join("new").join(&name), path.join(format!("cur/{name}:2,S"))).unwrap();
            if n % 20 == 0 {
                fs::write(
                    path.join("list.new"),
                    list.replacen("/3 500", &format!("/3 {}", 501 + n), 1),
                )
                .unwrap();
                fs::rename(path.join("list.new"), path.join("courierpop3dsizelist")).unwrap();
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    while !busy.is_finished() {
        let maildrop = maildir.capture(&ServerKind::Courier).maildrop;
        match maildrop.state {
            State::Captured => assert_eq!(maildrop.entries.len(), total),
            State::Failed => {
                assert!(maildrop.remarks[0].contains("changed each of"), "{:?}", maildrop.remarks)
            }
            State::Empty => panic!("mail was overlooked"),
        }
    }
    busy.join().unwrap();
    assert_eq!(maildir.capture(&ServerKind::Courier).maildrop.entries.len(), total);
}

#[test]
fn where_a_header_repeats_or_does_not_name_it_the_message_is_taken_too() {
    let maildir = OldMaildir::new();
    let dated = "Received: by x; 6 May 2024\nSubject: ";
    for (name, text) in [
        ("1.a:2,S", format!("{dated}same\n\none\n")),
        ("2.b:2,S", format!("{dated}same\n\ntwo\n")),
        ("3.c:2,S", format!("{dated}other\n\nthree\n")),
        ("4.d:2,S", "Subject: 80 % full\n\nfour\n".into()),
        ("5.e:2,S", "five\n".into()),
        ("6.f:2,S", String::new()),
    ] {
        fs::write(maildir.path.join("cur").join(name), text).unwrap();
    }
    let captured = maildir.capture(&ServerKind::Qmail);
    let entries = captured.maildrop.entries;
    assert_eq!(entries[0].header, entries[1].header);
    assert!(entries[0].message.is_some() && entries[0].message != entries[1].message);
    assert_eq!(entries[0].octets, Some(50));
    assert!(entries[2].header.is_some() && entries[2].message.is_none());
    assert!(entries[3].header.is_some() && entries[3].message.is_some());
    // Octets that are no header are content, and an empty file has its file name.
    assert!(entries[4].header.is_none() && entries[4].message.is_some());
    assert!(entries[5].header.is_none() && entries[5].message.is_none());
    assert_eq!(captured.losses, [""; 0]);
}

#[test]
fn what_dovecot_compressed_or_encrypted_is_counted_and_its_size_not_taken() {
    let maildir = OldMaildir::new();
    let cur = maildir.path.join("cur");
    let mail = b"Received: by x; 6 May 2024\nSubject: plain\n\none\n".to_vec();
    for (name, octets) in [
        ("1.a:2,S", mail.clone()),
        ("2.b,S=91:2,S", [&b"\x1f\x8b\x08\0"[..], &mail].concat()),
        ("3.c,S=91,W=97:2,S", [&b"\x1f\x8b\x08\0"[..], &mail].concat()),
        ("4.d:2,S", [&b"\x28\xb5\x2f\xfd"[..], &mail].concat()),
    ] {
        fs::write(cur.join(name), octets).unwrap();
    }
    let captured = maildir.capture(&ServerKind::Qmail);
    let entries = &captured.maildrop.entries;
    assert!(entries[0].header.is_some());
    assert!(entries[1..].iter().all(|e| e.header.is_none() && e.message.is_none() && e.has_key()));
    let sizes: Vec<_> = entries[1..].iter().map(|entry| entry.octets).collect();
    assert_eq!(sizes, [None, Some(97), None]);
    let [loss] = &captured.losses[..] else { panic!("{:?}", captured.losses) };
    let said = "3 messages have no fingerprints, for their files are compressed (zlib) (first: \
                2.b,S=91:2,S): capture this maildrop by doveadm";
    assert!(loss.starts_with(said), "{loss}");

    // Nobody asked for more than names.
    let keys = Keys { header: false, ..Keys::default() };
    let source = Source::named("alice@example.com", &maildir.path);
    assert_eq!(capture(&ServerKind::Qmail, keys, &source).losses, [""; 0]);

    fs::write(cur.join("5.e:2,S"), b"CRYPTED\x03\x07\0").unwrap();
    let keys = Keys { message: true, ..Keys::default() };
    let [loss] = &capture(&ServerKind::Qmail, keys, &source).losses[..] else { panic!("one loss") };
    assert!(loss.starts_with("4 messages have no fingerprints"), "{loss}");
}

#[test]
fn every_block_that_is_captured_can_be_written_and_read_again() {
    let maildir = OldMaildir::of(COURIER_NAMES);
    maildir.state("courierpop3dsizelist", data("courier/courierpop3dsizelist.v3"));
    let nowhere = Source::named("bob@example.com", "/nonexistent");
    for captured in [
        maildir.capture(&ServerKind::Courier),
        capture(&ServerKind::Qmail, Keys::default(), &nowhere),
    ] {
        let mut text = Vec::new();
        write_maildrop(&mut text, &captured.maildrop).unwrap();
        let read: Vec<Maildrop> = Reader::new(&text[..]).map(Result::unwrap).collect();
        assert_eq!(read, [captured.maildrop]);
    }
}
