//! The rules cost a few passes over entries and messages, whatever repeats in them.
//!
//! Nothing is timed: each test is done in a moment, and would take minutes if anything were
//! compared with everything that is like it.

use crate::support::rules::{CAPTURED_AT, capture, uidl};
use arrayvec::ArrayVec;
use uidl_keep::format::UidlFormat;
use uidl_keep::key::{FileKey, Fingerprint};
use uidl_keep::ledger::{Epoch, FIRST_ORDER, Ledger, Mark};
use uidl_keep::maildrop::{CapturedMaildrop, Counter, Entry, Maildrop, Name, State};
use uidl_keep::resolve::{
    Detail, Details, Fact, Match, Memory, Message, Outcome, Purpose, Resolution, Situation, Stamps,
    resolve,
};
use uidl_keep::uidl::Uidl;

/// The number of messages, and of entries.
const MANY: usize = 50_000;

/// A maildrop that moved: everything is known of every message.
struct Moved {
    captured: Maildrop,
    messages: Vec<Message>,
    ledger: Option<Ledger>,
    uidvalidity: u32,
}

fn print(kind: u8, number: usize) -> Fingerprint {
    let mut print = [kind; 16];
    print[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Fingerprint(print)
}

fn number(n: usize) -> Uidl {
    uidl(&format!("U{n}"))
}

fn names(text: &str) -> Fact<ArrayVec<FileKey, 2>> {
    Fact::Is([FileKey::of_name(text.as_bytes())].into_iter().collect())
}

impl Moved {
    /// Makes messages and entries that are alike in nothing: each entry's message is a copy by
    /// content.
    fn new() -> Self {
        let entries = (0..MANY).map(|n| Entry {
            octets: Some(n as u64 * 1000),
            file: Some(Name::Spelled(format!("old{n}").into_bytes().into())),
            header: Some(print(1, n)),
            origin: Some(print(2, n)),
            ..Entry::new(number(n))
        });
        let messages = (0..MANY).map(|n| {
            let mut message = Message::new(n as u32 + 1);
            message.set_names(names(&format!("new{n}")));
            message.details = Details::from(Detail {
                header: Fact::Is(print(1, n)),
                names_itself: true,
                origin: Fact::Is(print(2, n)),
                origin_names_itself: true,
                octets: Fact::Is(n as u64 * 1000),
                message: Fact::Is(print(3, n)),
                body: Fact::Is(print(4, n)),
                received: Fact::Is(0),
                native: Fact::Is(uidl(&format!("{:08x}00000063", n + 1))),
            });
            message
        });
        let captured = Maildrop {
            captures: vec![capture(CAPTURED_AT, None)],
            entries: entries.collect(),
            ..Maildrop::new("alice@example.com", State::Captured)
        };
        Self { captured, messages: messages.collect(), ledger: None, uidvalidity: 99 }
    }

    fn each(&mut self, change: impl Fn(usize, &mut Entry, &mut Message)) {
        let both = self.captured.entries.iter_mut().zip(&mut self.messages);
        both.enumerate().for_each(|(n, (entry, message))| change(n, entry, message));
    }

    fn list(&mut self, keys: Match) -> Resolution {
        let native = UidlFormat::parse("%08Xu%08Xv").unwrap();
        let mark = self.ledger.as_ref().map(|ledger| Mark::of(ledger, MANY as u32));
        let captured = CapturedMaildrop::from(&self.captured);
        let situation = Situation {
            captured: Some(&captured),
            basis: [0; 16],
            is_final: true,
            memory: Memory { ledger: self.ledger.as_ref(), mark: mark.as_ref() },
            stamps: Stamps::default(),
            epoch: Epoch { uidvalidity: self.uidvalidity, next_uid: MANY as u32 + 1, index_id: 1 },
            is_maildir: false,
            native: Some(&native),
            keys,
            purpose: Purpose::Listing { guarded: false },
            rehearsal: 0,
        };
        match resolve(&self.captured.user, &situation, &self.messages) {
            Outcome::Resolved(resolution) => *resolution,
            Outcome::Ask(asked) => panic!("asks for {} facts, {:?} first", asked.len(), asked[0]),
            Outcome::AskCaptured => panic!("asks for what it has"),
            Outcome::Refused(refusal) => panic!("{refusal}"),
        }
    }

    /// Lists, and says how many messages have a UIDL that was captured.
    fn kept(&mut self) -> usize {
        let resolution = self.list(Match::default());
        assert_eq!(resolution.ledger.records.len(), MANY);
        self.ledger = Some(resolution.ledger);
        let records = &self.ledger.as_ref().unwrap().records;
        records.iter().filter(|record| record.entry.is_some()).count()
    }
}

#[test]
fn messages_that_are_alike_in_nothing() {
    assert_eq!(Moved::new().kept(), MANY);
}

#[test]
fn equal_headers_of_distinct_sizes() {
    let mut moved = Moved::new();
    moved.each(|_, entry, message| {
        entry.header = Some(print(1, 0));
        message.details.header = Fact::Is(print(1, 0));
    });
    assert_eq!(moved.kept(), 0);
}

#[test]
fn equal_headers_that_were_read_whole() {
    let mut moved = Moved::new();
    moved.each(|n, entry, message| {
        (entry.header, entry.message) = (Some(print(1, 0)), Some(print(3, n)));
        message.details.header = Fact::Is(print(1, 0));
    });
    assert_eq!(moved.kept(), MANY);
}

#[test]
fn equal_contents_of_equal_entries() {
    let mut moved = Moved::new();
    moved.each(|_, entry, message| {
        (entry.header, entry.message) = (Some(print(1, 0)), Some(print(3, 0)));
        (message.details.header, message.details.message) =
            (Fact::Is(print(1, 0)), Fact::Is(print(3, 0)));
    });
    assert_eq!(moved.kept(), MANY);
}

#[test]
fn equal_contents_that_do_not_name_themselves() {
    let mut moved = Moved::new();
    moved.each(|_, entry, message| {
        (entry.header, entry.message) = (None, Some(print(3, 0)));
        (message.details.header, message.details.message) = (Fact::Absent, Fact::Is(print(3, 0)));
        message.details.names_itself = false;
    });
    assert_eq!(moved.kept(), MANY);
}

#[test]
fn equal_contents_of_one_entry() {
    let mut moved = Moved::new();
    moved.each(|_, _, message| {
        (message.details.header, message.details.message) =
            (Fact::Is(print(1, 0)), Fact::Is(print(3, 0)));
    });
    moved.captured.entries[0].octets = None;
    assert_eq!(moved.kept(), 1);
}

#[test]
fn equal_origins_and_bodies() {
    let mut moved = Moved::new();
    moved.each(|n, entry, message| {
        (entry.origin, entry.message) = (Some(print(2, 0)), Some(print(3, MANY)));
        (message.details.origin, message.details.body) =
            (Fact::Is(print(2, 0)), Fact::Is(print(4, 0)));
        message.details.header = Fact::Is(print(5, n));
    });
    let keys = Match { origin: true, ..Match::default() };
    let resolution = moved.list(keys);
    let came = resolution.report.by_provenance.into_iter().collect::<Vec<_>>();
    assert_eq!(came, [(uidl_keep::ledger::Provenance::Origin, MANY)]);
}

#[test]
fn equal_names_of_equal_entries_now_and_when_uids_begin_anew() {
    let mut moved = Moved::new();
    moved.each(|_, entry, message| {
        entry.file = Some(Name::Spelled(b"name".as_slice().into()));
        message.set_names(names("name"));
    });
    assert_eq!(moved.kept(), MANY, "by the headers");
    moved.uidvalidity += 1;
    let before = moved.ledger.clone().unwrap();
    assert_eq!(moved.kept(), MANY);
    assert_eq!(moved.ledger.unwrap().records, before.records);
}

#[test]
fn names_that_are_equal_up_to_the_comma() {
    for share in [64, MANY] {
        let mut moved = Moved::new();
        moved.each(|n, entry, message| {
            let name = format!("name{},{n}", n / share);
            message.set_names(names(&name));
            entry.file = Some(Name::Spelled(name.into_bytes().into()));
        });
        assert_eq!(moved.kept(), MANY);
    }
}

#[test]
fn equal_names_of_messages_that_went_and_come_back() {
    let mut moved = Moved::new();
    moved.each(|_, _, message| message.set_names(names("name")));
    assert_eq!(moved.kept(), MANY);
    let before = moved.ledger.clone().unwrap();
    let gone = &mut moved.ledger.as_mut().unwrap().records;
    gone.iter_mut().for_each(|record| record.uid = 0);
    assert_eq!(moved.kept(), MANY);
    assert_eq!(moved.ledger.unwrap().records, before.records);
}

#[test]
fn equal_uidls_in_storage_that_are_an_entrys() {
    for order in [None, Some(FIRST_ORDER)] {
        for of_entries in [1, MANY] {
            for is_confirmed in [false, true] {
                let mut moved = Moved::new();
                moved.each(|n, entry, message| {
                    if n < of_entries {
                        entry.uidl = number(0);
                    }
                    message.set_stored(Some(number(0)), order);
                    if is_confirmed {
                        message.set_names(names(&format!("old{}", MANY - 1 - n)));
                    }
                });
                moved.kept();
            }
        }
    }
}

#[test]
fn equal_uidls_in_storage_that_content_contradicts() {
    let mut moved = Moved::new();
    moved.each(|n, entry, message| {
        entry.uidl = number(0);
        message.set_stored(Some(number(0)), None);
        message.details.header = Fact::Is(print(9, n));
    });
    assert_eq!(moved.kept(), 0);
}

#[test]
fn equal_uidls_in_storage_that_are_no_entrys() {
    for text in ["other", "~0123456789abcdef0123456789abcdef~"] {
        let mut moved = Moved::new();
        moved.each(|_, _, message| message.set_stored(Some(uidl(text)), None));
        assert!(moved.kept() >= MANY - 1, "{text}");
    }
}

#[test]
fn equal_uidls_of_entries_in_an_index_that_was_built_anew() {
    let mut moved = Moved::new();
    moved.each(|_, entry, _| entry.uidl = number(0));
    assert_eq!(moved.kept(), MANY);
    let records = &mut moved.ledger.as_mut().unwrap().records;
    records.iter_mut().for_each(|record| record.entry = None);
    assert_eq!(moved.kept(), MANY);
}

#[test]
fn equal_uidls_in_storage_that_content_contradicts_of_the_first_entry_alone() {
    let mut moved = Moved::new();
    moved.each(|n, entry, message| {
        (entry.uidl, entry.octets) = (number(0), None);
        entry.header = Some(print(1, usize::from(n > 0)));
        message.set_stored(Some(number(0)), None);
        message.details.header = Fact::Is(print(1, 1));
    });
    assert_eq!(moved.kept(), MANY - 1);
}

#[test]
fn names_of_an_entry_with_many_earlier_uidls() {
    let mut moved = Moved::new();
    moved.each(|n, _, message| {
        message.set_names(names("old0"));
        message.set_stored(Some(number((n + 1) % MANY)), None);
    });
    moved.captured.entries[0].earlier = (0..MANY).map(|n| uidl(&format!("E{n}"))).collect();
    // The header names them, but the last message has the name and the UIDL of the first entry.
    assert_eq!(moved.kept(), 1);
}

#[test]
fn records_that_claim_an_entry_with_many_earlier_uidls() {
    let mut moved = Moved::new();
    assert_eq!(moved.kept(), MANY);
    moved.captured.entries[0].earlier = (0..MANY).map(|n| uidl(&format!("E{n}"))).collect();
    let records = &mut moved.ledger.as_mut().unwrap().records;
    records.iter_mut().for_each(|record| record.entry = Some(0));
    assert_eq!(moved.kept(), MANY, "by their UIDLs");
}

#[test]
fn captures_that_saw_the_old_server_count() {
    let mut moved = Moved::new();
    moved.each(|_, entry, _| (entry.header, entry.file, entry.octets) = (None, None, None));
    moved.captured.counter =
        Some(Counter { format: UidlFormat::parse("%08Xu%08Xv").unwrap(), next: 1 });
    let captures = (0..MANY).map(|n| capture(CAPTURED_AT, Some(n as u32)));
    moved.captured.captures = captures.collect();
    assert_eq!(moved.kept(), 0);
}

#[test]
fn messages_most_of_which_cannot_be_read() {
    let mut moved = Moved::new();
    assert_eq!(moved.kept(), MANY);
    moved.each(|_, _, message| {
        let names = message.names();
        *message = Message::new(message.uid);
        message.set_names(names);
        message.unreadable = true;
    });
    assert_eq!(moved.kept(), MANY, "they have their answers");
}
