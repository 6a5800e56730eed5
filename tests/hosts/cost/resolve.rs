//! The rules over the shapes that cost most: many messages that are alike.

use std::fs;
use std::time::Duration;

use arrayvec::ArrayVec;
use uidl_keep::format::UidlFormat;
use uidl_keep::key::{FileKey, Fingerprint};
use uidl_keep::ledger::Epoch;
use uidl_keep::maildrop::{Capture, CapturedMaildrop, Entry, Maildrop, Name, State};
use uidl_keep::resolve::{
    Detail, Details, Fact, Match, Memory, Message, Outcome, Purpose, Situation, Stamps, resolve,
};
use uidl_keep::uidl::Uidl;

use super::Bench;
use super::table::{Goal, Row, Unit};

const USER: &str = "alice@example.com";

/// Makes a maildrop of so many messages, with their entries.
type Shape = fn(usize) -> (Entry, Message);

/// All of them.
pub fn all(bench: &Bench) {
    let shapes: [(&str, &str, Shape); 2] = [
        ("resolve/headers", "equal headers of distinct sizes", equal_headers),
        ("resolve/names", "equal names", equal_names),
    ];
    let (few, many) = (bench.messages as usize / 2, bench.messages as usize * 5);
    for (name, what, shape) in shapes {
        if !bench.asks(name) {
            continue;
        }
        let what = format!("the rules: growth from {few} to {many} messages with {what}");
        let mut row = Row::new(name, what, Unit::Ratio, Goal::AtMost(15.0));
        let (few, many) = (cost(few, shape), cost(many, shape));
        row.add("", many.as_secs_f64() / few.as_secs_f64());
        row.beside(format!("{:.3} s, {:.3} s", few.as_secs_f64(), many.as_secs_f64()));
        row.print();
    }
}

fn print(kind: u8, number: usize) -> Fingerprint {
    let mut print = [kind; 16];
    print[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Fingerprint(print)
}

fn uidl(text: String) -> Uidl {
    Uidl::new(text.into_bytes()).expect("it can be one")
}

fn names(text: &str) -> Fact<ArrayVec<FileKey, 2>> {
    Fact::Is([FileKey::of_name(text.as_bytes())].into_iter().collect())
}

fn equal_headers(n: usize) -> (Entry, Message) {
    let octets = n as u64 + 1000;
    let entry = Entry {
        octets: Some(octets),
        header: Some(print(1, 0)),
        ..Entry::new(uidl(format!("U{n}")))
    };
    let mut message = everything_of(n);
    message.set_names(names(&format!("new{n}")));
    message.details.header = Fact::Is(print(1, 0));
    message.details.names_itself = true;
    message.details.octets = Fact::Is(octets);
    (entry, message)
}

fn equal_names(n: usize) -> (Entry, Message) {
    let name = || Name::Spelled(b"one".to_vec().into());
    let entry = Entry { file: Some(name()), ..Entry::new(uidl(format!("U{n}"))) };
    let mut message = everything_of(n);
    message.set_names(names("one"));
    (entry, message)
}

/// Whatever else could be asked of a message.
fn everything_of(n: usize) -> Message {
    let mut message = Message::new(u32::try_from(n).expect("few") + 1);
    message.details = Details::from(Detail {
        header: Fact::Is(print(2, n)),
        origin: Fact::Is(print(3, n)),
        octets: Fact::Is(1000),
        message: Fact::Is(print(4, n)),
        body: Fact::Is(print(5, n)),
        received: Fact::Is(0),
        native: Fact::Is(uidl(format!("{:08x}00000063", n + 1))),
        ..Detail::default()
    });
    message
}

/// The processor time of the rules.
fn cost(messages: usize, shape: Shape) -> Duration {
    let (entries, found): (Vec<Entry>, Vec<Message>) = (0..messages).map(shape).unzip();
    let captured = Maildrop {
        captures: vec![Capture::of(&Maildrop::new(USER, State::Captured), Some(1_700_000_000))],
        entries,
        ..Maildrop::new(USER, State::Captured)
    };
    let native = UidlFormat::parse("%08Xu%08Xv").expect("Dovecot's own");
    let next_uid = u32::try_from(messages).expect("few") + 1;
    let captured = CapturedMaildrop::from(&captured);
    let situation = Situation {
        captured: Some(&captured),
        basis: [0; 16],
        is_final: true,
        memory: Memory::default(),
        stamps: Stamps::default(),
        epoch: Epoch { uidvalidity: 99, next_uid, index_id: 1 },
        is_maildir: false,
        native: Some(&native),
        keys: Match::default(),
        purpose: Purpose::Listing { guarded: false },
        rehearsal: 0,
    };
    // The kernel counts in ticks, of which once takes one or two.
    let rounds = u32::try_from(500_000 / messages).expect("few").max(1);
    let before = own_time();
    for _ in 0..rounds {
        let outcome = resolve(USER, &situation, &found);
        assert!(matches!(outcome, Outcome::Resolved(_)), "all is known that could be asked");
    }
    (own_time() - before) / rounds
}

/// The processor time of this thread so far, to a tick.
fn own_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("ours");
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}
