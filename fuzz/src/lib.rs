//! The facts that must hold for any input of a reader: one module for each fuzz target, with its
//! `check`.
//!
//! libFuzzer calls these (`make fuzz`), and so does `tests/hosts/fuzz_corpus.rs`. The test includes
//! this file, and feeds them the whole corpus and every input that once broke something.

pub mod capture_courier;
pub mod capture_cyrus;
pub mod capture_doveadm;
pub mod capture_dovecot;
pub mod capture_mbox;
pub mod capture_pop3;
pub mod capture_qmail;
pub mod doveconf;
pub mod fleet_accounts;
pub mod fleet_journal;
pub mod forge;
pub mod format;
pub mod index;
pub mod ledger;
pub mod listing;
pub mod normaliser;
pub mod pattern;
pub mod plesk;
pub mod roster;
pub mod settings;

use std::cell::Cell;
use std::io;

use uidl_keep::capture::disk::maildir::{Folder, MessageFile, Snapshot, base_name};
use uidl_keep::capture::plan::Plan;
use uidl_keep::file::read_at::ReadAt;

/// The check of a fuzz target: it panics when something does not hold for an input.
pub type Check = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Check); 19] = [
    ("ledger", ledger::check),
    ("index", index::check),
    ("roster", roster::check),
    ("settings", settings::check),
    ("listing", listing::check),
    ("normaliser", normaliser::check),
    ("capture_courier", capture_courier::check),
    ("capture_cyrus", capture_cyrus::check),
    ("capture_doveadm", capture_doveadm::check),
    ("capture_dovecot", capture_dovecot::check),
    ("capture_mbox", capture_mbox::check),
    ("capture_pop3", capture_pop3::check),
    ("capture_qmail", capture_qmail::check),
    ("fleet_accounts", fleet_accounts::check),
    ("fleet_journal", fleet_journal::check),
    ("format", format::check),
    ("doveconf", doveconf::check),
    ("pattern", pattern::check),
    ("plesk", plesk::check),
];

/// An operator sees one line of ASCII, and not a long one.
fn check_message(error: impl std::fmt::Display) {
    let message = error.to_string();
    assert!(message.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{message:?}");
    assert!(message.len() < 8192, "a message of {} octets", message.len());
}

/// A UIDL has no octet that breaks a POP3 line: RFC 1939 gives the range of a unique-id.
fn check_uidl(uidl: &[u8]) {
    assert!(!uidl.is_empty() && uidl.iter().all(|octet| (0x21..=0x7E).contains(octet)));
}

/// A file whose reader must stay within it. It counts the reads.
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

/// An input of several parts. A NUL ends each part but the last, which the end closes.
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

/// A Maildir with this state file and with messages of these names, one on each line, as a snapshot
/// would have it.
fn snapshot(state: Option<&[u8]>, names: &[u8]) -> Snapshot {
    let mut messages: Vec<MessageFile> = (1..)
        .zip(file_names(names))
        .map(|(inode, name)| {
            let folder = if name.contains(&b':') { Folder::Cur } else { Folder::New };
            let mtime = name.last().map_or(0, |&last| i64::from(last % 4));
            MessageFile { base: base_name(name).into(), name: name.into(), folder, inode, mtime }
        })
        .collect();
    messages.sort();
    let others = vec![Box::from(&b"courierpop3dsizelist"[..]), Box::from(&b"dovecot-uidlist"[..])];
    Snapshot { state: state.map(<[u8]>::to_vec), messages, others, ..Snapshot::default() }
}

/// These hold for every plan: its messages are there, each once, and nothing in it can break a
/// line.
fn check_plan(plan: Plan, snapshot: &Snapshot) {
    let mut taken: Vec<usize> = plan.entries.iter().map(|entry| entry.at).collect();
    taken.sort_unstable();
    assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "a message takes two entries");
    assert!(taken.last().is_none_or(|&at| at < snapshot.messages.len()));
    for uidl in plan.entries.iter().map(|entry| &entry.uidl).chain(&plan.spent) {
        check_uidl(uidl.as_bytes());
    }
    let (said, ..) = plan.remarks.into_parts();
    for remark in &said {
        assert!(!remark.is_empty());
        check_message(remark);
    }
}
