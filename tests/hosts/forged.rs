//! Ledgers and indexes as the owner of an account could forge them, with checksums that are right,
//! in a real Dovecot: a well-formed listing, or one clean error line, and nothing else.
//!
//! `make asan` runs this with a plugin that AddressSanitizer watches.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fuzz::forge;
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Refused;
use uidl_keep::capture::disk::maildir::base_name;
use uidl_keep::capture::keys::MessageRead;
use uidl_keep::format::UidlFormat;
use uidl_keep::index::{Index, Writer};
use uidl_keep::key::{Depth, Fingerprint};
use uidl_keep::ledger::{self, Ledger, NameHashes, Provenance, Record};
use uidl_keep::listing::write_maildrop;
use uidl_keep::maildrop::{Counter, Entry, Maildrop, Name, State};
use uidl_keep::uidl::Uidl;

const USER: &str = "alice@example.com";

/// The number of captured messages, and of all messages: the last one is new.
const CAPTURED: u32 = 5;
const MESSAGES: u32 = CAPTURED + 1;

/// AddressSanitizer ends a process with this status; nothing else does.
const ASAN_STATUS: &str = "99";

/// Dovecot ends a process that is out of memory with this status: `FATAL_OUTOFMEM`.
const OUT_OF_MEMORY: i32 = 83;

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Listing(Vec<String>),
    Error(String),
}

/// A maildrop, its good files, and the command under which its server runs.
struct Attacked {
    dovecot: Dovecot,
    mail: PathBuf,
    under: Vec<String>,
    /// The ledger of a first listing, which lacks the last message.
    ledger: Vec<u8>,
    /// The one after it, which has all that a warm login asks for.
    whole_ledger: Vec<u8>,
    index: Vec<u8>,
    /// Dovecot's files and ours as they are after a first listing.
    listed: Vec<(PathBuf, Vec<u8>)>,
}

impl Attacked {
    fn start() -> Option<Self> {
        let under = sanitizer()?;
        let host = Host::dovecot(Line::subject())?;
        let dovecot = Dovecot::start(&host, Config::default().with_plugin())?;
        let maildir = Maildir::create(dovecot.mail(USER));
        for number in 1..=CAPTURED {
            maildir.deliver(&Message::plain(number), Naming::Qmail, number);
        }
        let listing = dovecot.dir().join("listing");
        let mut text = Vec::new();
        write_maildrop(&mut text, &captured(&maildir)).unwrap();
        fs::write(&listing, text).unwrap();
        helper::build_site(&dovecot.site(), &listing);

        let mail = maildir.path().to_owned();
        let index = fs::read(dovecot.site().join("domain/example.com.idx")).unwrap();
        let (ledger, whole_ledger, listed) = (Vec::new(), Vec::new(), Vec::new());
        let mut attacked = Self { dovecot, mail, under, ledger, whole_ledger, index, listed };
        let first = attacked.session("the good index");
        assert_eq!(first, Told::Listing((1..=CAPTURED).map(|n| format!("UID{n}-17")).collect()));
        attacked.ledger = fs::read(attacked.ledger_path()).unwrap();
        maildir.deliver(&Message::plain(MESSAGES), Naming::Qmail, MESSAGES);
        attacked.listed = attacked.state_files();
        attacked.session("the good ledger");
        attacked.whole_ledger = fs::read(attacked.ledger_path()).unwrap();
        Some(attacked)
    }

    fn ledger_path(&self) -> PathBuf {
        self.mail.join("uidl-keep.ledger")
    }

    fn state_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = fs::read_dir(&self.mail).unwrap().map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }

    /// Runs a session on the state after a first listing, with another ledger.
    fn with_ledger(&self, ledger: &[u8], how: &str) -> Told {
        self.forget();
        for (path, octets) in &self.listed {
            give(path, octets);
        }
        give(&self.ledger_path(), ledger);
        self.session(how)
    }

    /// Runs a session on the state before any listing, with another index.
    fn with_index(&self, index: &[u8], how: &str) -> Told {
        self.forget();
        self.put_index(index);
        self.session(how)
    }

    fn put_index(&self, index: &[u8]) {
        let path = self.dovecot.site().join("domain/example.com.idx");
        fs::write(&path, index).unwrap();
        chown(&path, Some(0), Some(crate::support::OWNER)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn forget(&self) {
        for (path, _) in self.state_files() {
            fs::remove_file(path).unwrap();
        }
    }

    /// From now on sessions have the memory that `service pop3` has unless the operator gives it
    /// more. `false` if that cannot be: AddressSanitizer needs more address space.
    fn limit_memory(&mut self) -> bool {
        let can_be = self.under.is_empty();
        self.under = vec!["prlimit".to_owned(), format!("--as={}", 256 << 20)];
        can_be
    }

    /// A session that cannot have the memory it needs ends as Dovecot's own do: by exit, without a
    /// reply, and with a line for the operator.
    fn runs_out_of_memory(&self, how: &str) {
        let (mut session, mut child) = self.dovecot.process_under(&self.under, USER);
        let told = session.lines("UIDL").expect_err(how);
        assert!(!told.0.starts_with("-ERR"), "{how}: {told:?}");
        let (status, log) = (child.wait().unwrap(), self.dovecot.process_log());
        assert_eq!(status.code(), Some(OUT_OF_MEMORY), "{how}: {status}\n{log}");
        assert!(log.contains("Fatal: uidl-keep: out of memory: "), "{how}\n{log}");
    }

    /// A session that cannot have the room that it is known to need is refused before, with a line
    /// for the operator.
    fn is_refused_for_memory(&self, how: &str) {
        let (mut session, mut child) = self.dovecot.process_under(&self.under, USER);
        let told = session.lines("UIDL").expect_err(how);
        drop(session);
        let (status, log) = (child.wait().unwrap(), self.dovecot.process_log());
        assert!(told.0.starts_with("-ERR [SYS/TEMP] "), "{how}: {told:?}, {status}\n{log}");
        assert!(log.contains("raise vsz_limit"), "{how}\n{log}");
    }

    /// Runs a session up to its listing, which must be in order: all lines well formed, or one that
    /// says why not; the process ends by itself, and nothing is wrong with its memory.
    fn session(&self, how: &str) -> Told {
        let (mut session, mut child) = self.dovecot.process_under(&self.under, USER);
        let told = match session.lines("UIDL") {
            Ok(lines) => {
                let uidls = (1..).zip(&lines).map(|(number, line)| uidl_in(number, line, how));
                let uidls = uidls.collect();
                session.quit().unwrap_or_else(|error| panic!("{how}: {error:?}"));
                Told::Listing(uidls)
            }
            Err(Refused(line)) if line.starts_with("-ERR") => Told::Error(line),
            // It had said so and gone before we asked.
            Err(Refused(ours)) => match session.be_greeted() {
                Err(Refused(line)) => Told::Error(line),
                Ok(()) => panic!("{how}: {} after {ours}", session.greeting()),
            },
        };
        let status = child.wait().unwrap();
        let log = self.dovecot.process_log();
        assert_eq!(status.signal(), None, "{how}: {status}\n{log}");
        assert_ne!(
            status.code().map(|code| code.to_string()).as_deref(),
            Some(ASAN_STATUS),
            "{how}\n{log}"
        );
        for never in ["AddressSanitizer", "panicked", "Panic:", "Fatal:", "bug:"] {
            assert!(!log.contains(never), "{how}: {told:?}\n{log}");
        }
        if let Told::Error(line) = &told {
            assert!(line.starts_with("-ERR [SYS/TEMP] "), "{how}: {line:?}\n{log}");
        }
        told
    }
}

/// The command that runs a server under AddressSanitizer, if `UIDL_KEEP_ASAN` names its runtime;
/// else an empty one. `None`, having said why, when there is no plugin.
fn sanitizer() -> Option<Vec<String>> {
    let plugin = helper::plugin(Line::subject())?;
    let Some(runtime) = std::env::var_os("UIDL_KEEP_ASAN") else { return Some(Vec::new()) };
    let symbols = Command::new("nm").arg("-D").arg(&plugin).output().expect("nm");
    let watched = String::from_utf8_lossy(&symbols.stdout).contains("__asan_report_load");
    assert!(watched, "{} was not built with AddressSanitizer", plugin.display());
    let preload = format!("LD_PRELOAD={}", Path::new(&runtime).display());
    let options = format!("ASAN_OPTIONS=exitcode={ASAN_STATUS}:detect_leaks=0:abort_on_error=0");
    // Dovecot runs itself once more, by way of doveconf, in an environment that it has cleaned.
    let preserved = "DOVECOT_PRESERVE_ENVS=LD_PRELOAD ASAN_OPTIONS USER HOME PATH".to_owned();
    Some(vec!["env".to_owned(), preload, options, preserved])
}

fn uidl_in(number: u32, line: &[u8], how: &str) -> String {
    let line = String::from_utf8(line.to_vec()).unwrap_or_else(|_| panic!("{how}: {line:?}"));
    let uidl = line.strip_prefix(&format!("{number} "));
    let uidl =
        uidl.filter(|uidl| !uidl.is_empty() && uidl.bytes().all(|o| (0x21..=0x7E).contains(&o)));
    uidl.unwrap_or_else(|| panic!("{how}: {line:?}")).to_owned()
}

fn give(path: &Path, octets: &[u8]) {
    fs::write(path, octets).unwrap();
    chown(path, Some(crate::support::OWNER), Some(crate::support::OWNER)).unwrap();
}

/// The messages as an old server knew them, by every key in turn.
fn captured(maildir: &Maildir) -> Maildrop {
    let entries = (1..).zip(maildir.files()).map(|(number, file)| {
        let name = file.file_name().unwrap().as_encoded_bytes();
        let prints = MessageRead::read(fs::File::open(&file).unwrap(), Depth::Message).unwrap();
        let has = |bit: u32| number == 1 || number % 3 == bit;
        Entry {
            uid: Some(number),
            octets: prints.octets,
            file: has(0).then(|| Name::Spelled(base_name(name).into())),
            header: prints.of.header.filter(|_| has(1)),
            message: prints.of.message.filter(|_| has(2)),
            ..Entry::new(uidl(format!("UID{number}-17").as_bytes()))
        }
    });
    Maildrop {
        user: USER.to_owned(),
        state: State::Captured,
        captures: Vec::new(),
        source: "test".to_owned(),
        uidvalidity: Some(17),
        counter: Some(Counter { format: UidlFormat::parse("UID%u-%v").unwrap(), next: 9 }),
        entries: entries.collect(),
        spent: vec![uidl(b"UID7-17"), uidl(b"gone")],
        remarks: Vec::new(),
    }
}

fn uidl(octets: &[u8]) -> Uidl {
    Uidl::new(octets).unwrap()
}

/// Numbers that look random and are the same at every run.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(name: &str) -> Self {
        Self(blake3::Hasher::new().update(name.as_bytes()).finalize_xof())
    }

    fn below(&mut self, most: usize) -> usize {
        let mut octets = [0; 8];
        self.0.fill(&mut octets);
        (u64::from_le_bytes(octets) % most.max(1) as u64) as usize
    }

    /// The file with up to four changes to its octets, fields or stretches.
    fn damaged(&mut self, file: &[u8]) -> Vec<u8> {
        const FIELDS: [u32; 8] =
            [0, 1, 2, 0x0D0A_0D0A, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, u32::MAX];
        let mut file = file.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(file.len() - 4);
            match self.below(6) {
                0 => file[at] ^= 1 << self.below(8),
                1 => file[at] = [0, 1, 9, b'\r', b'\n', b' ', 0x7F, 0x80, 0xFF][self.below(9)],
                2 => {
                    let at = at & !3;
                    file[at..at + 4].copy_from_slice(&FIELDS[self.below(8)].to_le_bytes());
                }
                3 => drop(file.drain(at..file.len().min(at + 1 + self.below(40)))),
                4 => {
                    let stretch = file[at..file.len().min(at + 1 + self.below(40))].to_vec();
                    let to = self.below(file.len());
                    file.splice(to..to, stretch);
                }
                _ => file.truncate(at + 4),
            }
            if file.len() < 160 {
                break;
            }
        }
        file
    }
}

/// Ledgers that are well formed and false.
fn false_ledgers(good: &Ledger) -> Vec<(String, Ledger)> {
    let mut ledgers = Vec::new();
    let mut add = |how: &str, change: &dyn Fn(&mut Ledger)| {
        let mut ledger = good.clone();
        change(&mut ledger);
        ledgers.push((how.to_owned(), ledger));
    };
    for number in [1, 2, 0x7FFF_FFFF, u32::MAX - 1, u32::MAX] {
        add(&format!("next order {number}"), &|ledger| ledger.next_order = number);
        add(&format!("UIDVALIDITY {number}"), &|ledger| ledger.epoch.uidvalidity = number);
        add(&format!("next UID {number}"), &|ledger| ledger.epoch.next_uid = number);
        add(&format!("native from {number}"), &|ledger| ledger.native_from = Some(number));
        add(&format!("told below {number}"), &|ledger| {
            let uidvalidity = ledger.epoch.uidvalidity;
            ledger.told.push(uidl_keep::ledger::Told { uidvalidity, below: number });
        });
        add(&format!("{number} UIDLs in the index"), &|ledger| ledger.index.uidls = number);
        add(&format!("old server's next number {number}"), &|ledger| ledger.index.next = number);
        add(&format!("restored and unguarded {number}"), &|ledger| {
            (ledger.restored, ledger.unguarded) = (number.into(), number.into());
        });
        add(&format!("entry {number}"), &|ledger| ledger.records[0].entry = Some(number));
        add(&format!("entry {number}, other UIDVALIDITY"), &|ledger| {
            ledger.epoch.uidvalidity += 1;
            ledger.records.iter_mut().for_each(|record| record.entry = Some(number));
        });
        add(&format!("UID {number}"), &|ledger| ledger.records[2].uid = number);
        add(&format!("order {number}"), &|ledger| {
            ledger.records[1].order = number;
            ledger.next_order = ledger.next_order.max(number.saturating_add(1));
        });
    }
    add("no record", &|ledger| ledger.records.clear());
    add("one record gone", &|ledger| drop(ledger.records.remove(1)));
    add("the same entry for all", &|ledger| {
        ledger.records.iter_mut().for_each(|record| record.entry = Some(0));
    });
    add("the same order for all", &|ledger| {
        ledger.records.iter_mut().for_each(|record| record.order = 1);
    });
    add("the same name for all", &|ledger| {
        ledger.records.iter_mut().for_each(|record| record.names = [[7; 8]].into_iter().collect());
    });
    add("the same name for all, other UIDVALIDITY", &|ledger| {
        ledger.epoch.uidvalidity += 1;
        let names = ledger.records[0].names.clone();
        ledger.records.iter_mut().for_each(|record| record.names = names.clone());
    });
    add("the same UIDL for all", &|ledger| {
        ledger.records.iter_mut().for_each(|record| record.uidl = uidl(b"one"));
    });
    add("no UID for any", &|ledger| ledger.records.iter_mut().for_each(|record| record.uid = 0));
    use Provenance::{Derived, Native, Origin, Stored};
    for provenance in [Origin, Stored, Native, Derived] {
        add(&format!("{provenance:?} for all"), &|ledger| {
            ledger.records.iter_mut().for_each(|record| record.provenance = provenance);
        });
    }
    add("the longest UIDL", &|ledger| ledger.records[0].uidl = uidl(&[b'x'; Uidl::MAX_OCTETS]));
    for uidvalidity in [good.epoch.uidvalidity, good.epoch.uidvalidity + 1] {
        add(&format!("a hundred thousand records alike, UIDVALIDITY {uidvalidity}"), &|ledger| {
            (ledger.next_order, ledger.epoch.uidvalidity) = (2_000_000, uidvalidity);
            let alike = |order| Record { order, uid: 0, ..good.records[0].clone() };
            ledger.records.splice(0..0, (100..100_000).map(alike));
        });
    }
    ledgers
}

#[test]
fn a_forged_ledger_gives_a_listing_in_order_or_one_clean_error() {
    let Some(attacked) = Attacked::start() else { return };
    assert_eq!(forge::ledger(&attacked.ledger, forge::Ledger::Starts), attacked.ledger);
    let honest = attacked.with_ledger(&attacked.ledger, "the good ledger");
    assert_eq!(attacked.with_ledger(&attacked.whole_ledger, "the whole ledger"), honest);
    let (mut served, mut refused) = (0, 0);
    let mut count = |told: Told, how: &str| match told {
        Told::Listing(uidls) => {
            assert_eq!(uidls.len(), MESSAGES as usize, "{how}");
            served += 1;
        }
        Told::Error(_) => refused += 1,
    };
    for good in [&attacked.ledger, &attacked.whole_ledger] {
        for (how, ledger) in false_ledgers(&Ledger::decode(good).unwrap()) {
            count(attacked.with_ledger(&ledger.encode(), &how), &how);
        }
    }
    let mut dice = Dice::new("ledger");
    for round in 0..120 {
        let good = [&attacked.ledger, &attacked.whole_ledger][round % 2];
        let damaged = dice.damaged(good);
        let right = [forge::Ledger::AsItIs, forge::Ledger::Counts, forge::Ledger::Starts];
        let forged = match round % 10 {
            0 => damaged,
            kind => forge::ledger(&damaged, right[kind % 3]),
        };
        let how = format!("round {round}");
        count(attacked.with_ledger(&forged, &how), &how);
    }
    // Rule 9: it would be a line of the protocol.
    for bad in [&b"\r\n.\r\n"[..], b"a b", b"\x7F", b"\xE6"] {
        let how = format!("a UIDL with {bad:?}");
        let forged = forge::ledger(&with_uidl(&attacked.ledger, bad), forge::Ledger::Starts);
        let told = attacked.with_ledger(&forged, &how);
        assert!(matches!(told, Told::Error(_)), "{how}: {told:?}");
        let forged = forge::ledger(&with_uidl(&attacked.whole_ledger, bad), forge::Ledger::Starts);
        let told = attacked.with_ledger(&forged, &how);
        assert!(matches!(told, Told::Error(_)), "{how}: {told:?}");
    }
    assert!(served > 20 && refused > 20, "{served} served, {refused} refused");
    assert_eq!(attacked.with_ledger(&attacked.ledger, "the good one again"), honest);
}

#[test]
fn a_ledger_without_order_numbers_to_give_is_one_clean_error() {
    let Some(attacked) = Attacked::start() else { return };
    for next_order in [0, u32::MAX] {
        let mut ledger = Ledger::decode(&attacked.ledger).unwrap();
        ledger.next_order = next_order;
        if next_order == 0 {
            ledger.records.clear();
        }
        let told = attacked.with_ledger(&ledger.encode(), &format!("next order {next_order}"));
        assert!(matches!(told, Told::Error(_)), "{told:?}");
    }
}

#[test]
fn a_ledger_too_large_for_the_memory_there_is_says_so_in_the_log() {
    let Some(mut attacked) = Attacked::start() else { return };
    let good = Ledger::decode(&attacked.ledger).unwrap();
    let long = uidl(&[b'x'; Uidl::MAX_OCTETS]);
    // UID, order, start, names, letter and entry.
    let record_octets = Uidl::MAX_OCTETS as u64 + 1 + 3 * 4 + 2 * 8 + 1 + 4;
    let count = ((ledger::MAX_OCTETS - attacked.ledger.len() as u64) / record_octets) as u32;
    let gone = |order| Record {
        uid: 0,
        order,
        uidl: long.clone(),
        provenance: Provenance::File,
        names: NameHashes::new(),
        entry: None,
    };
    let mut large = good.clone();
    large.next_order = good.next_order.max(1000 + count);
    large.records.splice(0..0, (1000..1000 + count).map(gone));
    if !attacked.limit_memory() {
        return;
    }
    give(&attacked.ledger_path(), &large.encode());
    attacked.runs_out_of_memory("the largest ledger");
}

#[test]
fn a_block_too_large_for_the_memory_there_is_says_so_in_the_log() {
    let Some(mut attacked) = Attacked::start() else { return };
    let mut many = Index::open(&attacked.index[..]).unwrap().maildrop(USER).unwrap().unwrap();
    let least = Entry { ..Entry::new(uidl(b"x")) };
    many.entries.extend(std::iter::repeat_n(least, 3_000_000));
    // One entry with each field makes room for each field of all.
    let print = Some(Fingerprint([7; Fingerprint::OCTETS]));
    let name = |name: &[u8]| Some(Name::Spelled(name.into()));
    let (file, guid) = (name(b"y"), name(b"z"));
    let of_message = Entry { octets: Some(1), file, guid, ..Entry::new(uidl(b"y")) };
    many.entries.push(Entry { header: print, message: print, origin: print, ..of_message });
    let mut writer = Writer::new(Cursor::new(Vec::new()), true).unwrap();
    writer.push(&many).unwrap();
    let index = writer.finish().unwrap().0.into_inner();
    if !attacked.limit_memory() {
        return;
    }
    attacked.forget();
    attacked.put_index(&index);
    attacked.is_refused_for_memory("three million entries, each thirty times as large as there");
}

/// The file with other octets in place of the first it has of its first UIDL.
fn with_uidl(file: &[u8], octets: &[u8]) -> Vec<u8> {
    let at = file.windows(7).position(|window| window == b"UID1-17").expect("a UIDL");
    let mut file = file.to_vec();
    file.splice(at..at + octets.len(), octets.iter().copied());
    file
}

#[test]
fn a_forged_index_gives_a_listing_in_order_or_one_clean_error() {
    let Some(attacked) = Attacked::start() else { return };
    assert_eq!(forge::index(&attacked.index), attacked.index);
    assert_eq!(forge::index_of_blocks(&attacked.index), attacked.index);
    let honest = attacked.with_index(&attacked.index, "the good index");
    let (mut served, mut refused) = (0, 0);
    let mut count = |told: Told, how: &str| match told {
        Told::Listing(uidls) => {
            assert_eq!(uidls.len(), MESSAGES as usize, "{how}");
            served += 1;
        }
        Told::Error(_) => refused += 1,
    };
    for (how, index) in false_indexes(&attacked.index) {
        count(attacked.with_index(&index, &how), &how);
    }
    let mut dice = Dice::new("index");
    for round in 0..120 {
        let how = format!("round {round}");
        // Its one block lies between the header and the bucket.
        let block = dice.damaged(&attacked.index[104..]);
        let forged = match round % 10 {
            0 => dice.damaged(&attacked.index),
            1..4 => forge::index(&dice.damaged(&attacked.index)),
            4..7 => forge::index(&[&attacked.index[..104], &block].concat()),
            _ => forge::index_of_blocks(&with_lengths(&attacked.index, block)),
        };
        count(attacked.with_index(&forged, &how), &how);
    }
    // Rule 9: it would be a line of the protocol.
    for bad in [&b"\r\n.\r\n"[..], b"a b", b"\x7F", b"\xE6"] {
        let how = format!("a UIDL with {bad:?}");
        let told = attacked.with_index(&forge::index(&with_uidl(&attacked.index, bad)), &how);
        assert!(matches!(told, Told::Error(_)), "{how}: {told:?}");
    }
    assert!(served > 20 && refused > 20, "{served} served, {refused} refused");
    // The last one has the UIDVALIDITY in it, which is made of the time.
    let again = attacked.with_index(&attacked.index, "the good one again");
    assert_eq!(kept_of(&again), kept_of(&honest));
}

fn kept_of(told: &Told) -> &[String] {
    match told {
        Told::Listing(uidls) => &uidls[..CAPTURED as usize],
        Told::Error(line) => panic!("{line}"),
    }
}

/// A block that says how long it is, behind a header's worth of octets, as the forger takes it.
fn with_lengths(index: &[u8], mut block: Vec<u8>) -> Vec<u8> {
    let len = block.len() as u32;
    block[..4].copy_from_slice(&len.to_le_bytes());
    [&index[..104], &block].concat()
}

/// Indexes that are well formed and false.
fn false_indexes(good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let good = Index::open(good).unwrap().maildrop(USER).unwrap().unwrap();
    let mut indexes = Vec::new();
    let mut add = |how: &str, change: &dyn Fn(&mut Maildrop)| {
        let mut maildrop = good.clone();
        change(&mut maildrop);
        let mut writer = Writer::new(Cursor::new(Vec::new()), true).unwrap();
        writer.push(&maildrop).unwrap();
        indexes.push((how.to_owned(), writer.finish().unwrap().0.into_inner()));
    };
    for number in [0, 1, 0x7FFF_FFFF, u32::MAX - 1, u32::MAX] {
        add(&format!("counter at {number}"), &|maildrop| {
            maildrop.counter.as_mut().unwrap().next = number;
        });
        add(&format!("a counter of Dovecot's own, at {number}"), &|maildrop| {
            let format = UidlFormat::parse("%08Xu%08Xv").unwrap();
            maildrop.counter = Some(Counter { format, next: number });
        });
        add(&format!("UIDVALIDITY {number}"), &|maildrop| maildrop.uidvalidity = Some(number));
        add(&format!("UID {number}"), &|maildrop| {
            maildrop.entries.iter_mut().for_each(|entry| entry.uid = Some(number));
        });
        add(&format!("{number} octets and a little"), &|maildrop| {
            let octets = Some(u64::MAX - u64::from(number));
            maildrop.entries.iter_mut().for_each(|entry| entry.octets = octets);
        });
    }
    add("no entry", &|maildrop| maildrop.entries.clear());
    add("every entry a thousand times", &|maildrop| {
        maildrop.entries = maildrop.entries.iter().cycle().take(5000).cloned().collect();
    });
    add("entries without a key", &|maildrop| {
        for entry in &mut maildrop.entries {
            (entry.file, entry.header, entry.message) = (None, None, None);
        }
    });
    add("one UIDL for all", &|maildrop| {
        maildrop.entries.iter_mut().for_each(|entry| entry.uidl = uidl(b"one"));
    });
    add("the longest UIDL", &|maildrop| {
        maildrop.entries[0].uidl = uidl(&[b'~'; Uidl::MAX_OCTETS]);
    });
    for state in [State::Empty, State::Failed] {
        add(&format!("{state:?}"), &|maildrop| maildrop.state = state);
    }
    add("the longest format", &|maildrop| {
        let format = UidlFormat::parse(&format!("{}%064u%v", "x".repeat(900))).unwrap();
        maildrop.counter = Some(Counter { format, next: 9 });
    });
    add("ten thousand spent", &|maildrop| {
        maildrop.spent = (0..10_000).map(|n| uidl(format!("UID{n}-17").as_bytes())).collect();
    });
    indexes
}
