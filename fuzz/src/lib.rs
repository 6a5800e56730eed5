//! What must hold of whatever a reader is given: one module a fuzz target, each with its `check`.
//!
//! libFuzzer calls these (`make fuzz`), and so does `tests/hosts/fuzz_corpus.rs`, which includes this file
//! and feeds them the whole corpus and every input that once broke something.

pub mod capture_courier;
pub mod capture_cyrus;
pub mod capture_doveadm;
pub mod capture_dovecot;
pub mod capture_mbox;
pub mod capture_pop3;
pub mod capture_qmail;
pub mod forge;
pub mod format;
pub mod index;
pub mod ledger;
pub mod listing;
pub mod normaliser;
pub mod roster;

use std::cell::Cell;
use std::io;

use uidl_keep::capture::Plan;
use uidl_keep::capture::maildir::{Folder, Look, Message, base_name};
use uidl_keep::read_at::ReadAt;

/// What a fuzz target does with an input: panics when something does not hold.
pub type Check = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Check); 13] = [
    ("ledger", ledger::check),
    ("index", index::check),
    ("roster", roster::check),
    ("listing", listing::check),
    ("normaliser", normaliser::check),
    ("capture_courier", capture_courier::check),
    ("capture_cyrus", capture_cyrus::check),
    ("capture_doveadm", capture_doveadm::check),
    ("capture_dovecot", capture_dovecot::check),
    ("capture_mbox", capture_mbox::check),
    ("capture_pop3", capture_pop3::check),
    ("capture_qmail", capture_qmail::check),
    ("format", format::check),
];

/// What an operator sees is one line of ASCII, and not a long one.
fn check_message(error: impl std::fmt::Display) {
    let message = error.to_string();
    assert!(message.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{message:?}");
    assert!(message.len() < 8192, "a message of {} octets", message.len());
}

/// Octets that no POP3 line can be made of: the range that RFC 1939 gives a unique-id.
fn check_uidl(uidl: &[u8]) {
    assert!(!uidl.is_empty() && uidl.iter().all(|octet| (0x21..=0x7E).contains(octet)));
}

/// A file whose reader must stay within it, and counts what it reads.
struct Watched<'a> {
    file: &'a [u8],
    reads: Cell<u32>,
}

impl<'a> Watched<'a> {
    fn new(file: &'a [u8]) -> Self {
        Self { file, reads: Cell::new(0) }
    }
}

impl ReadAt for Watched<'_> {
    fn len_octets(&self) -> io::Result<u64> {
        self.file.len_octets()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.reads.set(self.reads.get() + 1);
        Ok(self.file.read_at(offset, len).expect("nothing is wanted from outside the file"))
    }
}

/// An input of several parts, each closed by a NUL but the last, which is closed by the end.
fn parts<const N: usize>(octets: &[u8]) -> [&[u8]; N] {
    let mut parts = octets.splitn(N, |&octet| octet == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The lines of `octets` that can be names in a directory.
fn file_names(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = octets.split(|&octet| octet == b'\n');
    lines.filter(|name| {
        !name.is_empty() && !name.starts_with(b".") && !name.contains(&b'/') && !name.contains(&0)
    })
}

/// A Maildir with this state file, and messages of these names, one a line, as `look` would find it.
fn look(state: Option<&[u8]>, names: &[u8]) -> Look {
    let mut messages: Vec<Message> = (1..)
        .zip(file_names(names))
        .map(|(inode, name)| {
            let folder = if name.contains(&b':') { Folder::Cur } else { Folder::New };
            let mtime = name.last().map_or(0, |&last| i64::from(last % 4));
            Message { base: base_name(name).into(), name: name.into(), folder, inode, mtime }
        })
        .collect();
    messages.sort();
    let others = vec![Box::from(&b"courierpop3dsizelist"[..]), Box::from(&b"dovecot-uidlist"[..])];
    Look { state: state.map(<[u8]>::to_vec), messages, others }
}

/// What holds of every plan: its messages are there, each once, and nothing in it can break a line.
fn check_plan(plan: Plan, look: &Look) {
    let mut taken: Vec<usize> = plan.entries.iter().map(|entry| entry.at).collect();
    taken.sort_unstable();
    assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "a message takes two entries");
    assert!(taken.last().is_none_or(|&at| at < look.messages.len()));
    for uidl in plan.entries.iter().map(|entry| &entry.uidl).chain(&plan.spent) {
        check_uidl(uidl.as_bytes());
    }
    let (said, ..) = plan.remarks.into_parts();
    for remark in &said {
        assert!(!remark.is_empty());
        check_message(remark);
    }
}
