//! Late mail: what the old server's MX took after the last copy, brought to the new server by
//! [`bring`].
//!
//! A late message is one that the new server never had. Four things tell that: the names of the
//! messages that are there; the journal of what was brought before; the ledger, for clients may
//! have deleted a message since; and the time of the last copy, for what had arrived by then was
//! copied, and is deleted where it is not there any more.
//!
//! A late message may be brought where its UIDL is known, for a capture has it, or where no client
//! can hold one, for it came after the old POP3 was stopped. Where neither is so, the whole
//! maildrop is left as it is.
#![forbid(unsafe_code)]

mod delivery;
mod journal;
mod not_brought;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::capture::disk::dovecot::{STATE_FILE, UidList};
use crate::capture::disk::maildir::{Maildir, MessageFile, Snapshot, SnapshotParts, arrival};
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::keys::MessageRead;
use crate::key::{Depth, FileKey, is_guid_a_name};
use crate::late::delivery::Target;
use crate::late::journal::{HowFar, LateJournal};
use crate::ledger::control::LEDGER;
use crate::ledger::{Ledger, NameHash};
use crate::maildrop::{Entry, Maildrop, State};
use crate::site::Site;
use crate::site::roster::Gate;
use crate::text::printable;
use crate::uidl::Uidl;

pub use journal::JOURNAL;
pub use not_brought::NotBrought;

/// What late mail is judged by, beside the mail.
#[derive(Debug)]
pub struct LateTerms {
    /// The site of the new server.
    pub site: Site,
    /// When the last copy of the mail began, in seconds since 1970.
    pub copied: u64,
    /// When the old server's POP3 was stopped for good, in seconds since 1970. `None`: it answers.
    pub pop3_stopped: Option<u64>,
    /// Whether to bring anything.
    pub purpose: LatePurpose,
}

/// Whether late mail is brought, or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatePurpose {
    /// It is brought.
    Bring,
    /// It is counted. Nothing is written.
    Count,
}

/// What became of one maildrop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Brought {
    /// The late messages that were brought, or would be.
    pub brought: usize,
    /// The messages that the new server had once, and that were deleted there.
    pub deleted: usize,
    /// The messages that had arrived before the last copy, and are not there: they were deleted, or
    /// that copy has missed them.
    pub not_copied: usize,
    /// The late messages that had gone from the old Maildir when their turn came.
    pub gone: usize,
}

/// Brings the late messages of one user's old Maildir into his new one. `new` is `None` where he
/// has none.
///
/// Lists both Maildirs; opens the messages that are late, and no other. A message is written
/// beside its place, synced, noted in [`JOURNAL`], and only then put in its place, so that a
/// run that was ended goes on where it was.
///
/// # Errors
///
/// [`NotBrought`].
pub fn bring(
    terms: &LateTerms,
    user: &str,
    old: &Source,
    new: Option<&Source>,
) -> Result<Brought, NotBrought> {
    let captured = captured_of(terms, user)?;
    let of_old = |error| NotBrought::Capture { side: "old", error };
    let old_maildir = old.open().and_then(Maildir::open).map_err(of_old)?;
    let parts = SnapshotParts { state: Some(STATE_FILE), mtimes: true, memory: false };
    let Some(new) = new else {
        let there = old_maildir.snapshot(parts).map_err(of_old)?;
        let is_late = |message: &&MessageFile| arrived(message) >= terms.copied;
        return match there.messages.iter().filter(is_late).count() {
            0 => Ok(Brought::default()),
            late => Err(NotBrought::NoNewMaildir(late)),
        };
    };
    let of_new = |error| NotBrought::Capture { side: "new", error };
    let new_maildir = new.open().and_then(Maildir::open).map_err(of_new)?;
    let new_maildir = new_maildir.with_control(new.open_control().map_err(of_new)?);
    let target = Target::open(new.open().map_err(of_new)?)?;
    let captures = Captures::of(&captured);
    let look = |journal: &LateJournal| {
        let here = new_maildir.snapshot(SnapshotParts { mtimes: false, ..parts });
        let known = KnownHere::of(&here.map_err(of_new)?, &new_maildir)?;
        let there = old_maildir.snapshot(parts).map_err(of_old)?;
        judged(terms, &captures, &known, there, &old_maildir, (journal, &target))
    };
    let looked = look(&LateJournal::read(&target)?)?;
    let is_done = looked.late.is_empty() && looked.finished.is_empty() && looked.unclear.is_none();
    if is_done || terms.purpose == LatePurpose::Count {
        return looked.outcome(looked.late.len());
    }
    let mut journal = LateJournal::lock(&target)?;
    // Another run may have been at work until now.
    let mut looked = look(&journal)?;
    for message in &looked.finished {
        journal.note(&message.base, HowFar::Brought, 0)?;
    }
    let mut brought = 0;
    for message in &looked.late {
        match target.deliver(&old_maildir, message, &mut journal, brought)? {
            true => brought += 1,
            false => looked.found.gone += 1,
        }
    }
    journal.close(brought)?;
    looked.outcome(brought)
}

/// The messages of an old Maildir, judged.
struct LateMail {
    /// What is found of those that are not late.
    found: Brought,
    /// Those that are, in the order in which they arrived.
    late: Vec<MessageFile>,
    /// Those that an ended run has put in their place without noting it.
    finished: Vec<MessageFile>,
    /// One of which nobody knows whether an ended run has brought it.
    unclear: Option<MessageFile>,
}

impl LateMail {
    fn outcome(&self, brought: usize) -> Result<Brought, NotBrought> {
        match &self.unclear {
            Some(message) => Err(NotBrought::NotKnown {
                name: printable(&message.name),
                key: FileKey::of_name(&message.base),
                brought,
            }),
            None => Ok(Brought { brought, ..self.found }),
        }
    }
}

/// Says which messages of the old Maildir are late.
fn judged(
    terms: &LateTerms,
    captures: &Captures<'_>,
    known: &KnownHere,
    there: Snapshot,
    old_maildir: &Maildir,
    (journal, target): (&LateJournal, &Target),
) -> Result<LateMail, NotBrought> {
    let guids = guids_by_file(&there);
    let mut judged = LateMail {
        found: Brought::default(),
        late: Vec::new(),
        finished: Vec::new(),
        unclear: None,
    };
    let mut unknown: Option<(usize, String)> = None;
    for message in there.messages {
        let cuts = cuts_of(&message, &guids);
        let noted = journal.noted(&message.base);
        if known.has(&cuts) {
            if noted == Some(HowFar::Begun) {
                judged.finished.push(message);
            }
            continue;
        }
        match noted {
            Some(HowFar::Brought) => {
                judged.found.deleted += 1;
                continue;
            }
            Some(HowFar::Begun) if target.has_in_tmp(&message)? => {
                judged.late.push(message);
                continue;
            }
            Some(HowFar::Begun) => {
                judged.unclear.get_or_insert(message);
                continue;
            }
            None => {}
        }
        let entry = captures.entry_of(&cuts, old_maildir, &message);
        let entry = entry.map_err(|error| NotBrought::Unreadable { error, brought: 0 })?;
        let is_after = |time: u64| arrived(&message) >= time;
        if known.had(&cuts) || entry.is_some_and(|entry| known.told(entry)) {
            judged.found.deleted += 1;
        } else if !is_after(terms.copied) {
            judged.found.not_copied += 1;
        } else if entry.is_some() || terms.pop3_stopped.is_some_and(is_after) {
            judged.late.push(message);
        } else {
            let first = unknown.get_or_insert_with(|| (0, printable(&message.name)));
            first.0 += 1;
        }
    }
    if let Some((count, first)) = unknown {
        return Err(match terms.pop3_stopped {
            Some(_) => NotBrought::MayBeListed { count, first },
            None => NotBrought::Uncaptured { count, first },
        });
    }
    judged.late.sort_by(|a, b| (arrived(a), &a.base).cmp(&(arrived(b), &b.base)));
    Ok(judged)
}

/// What was captured of a user whose mail may be brought.
fn captured_of(terms: &LateTerms, user: &str) -> Result<Maildrop, NotBrought> {
    let line = terms.site.line_of(user).map_err(NotBrought::Site)?.ok_or(NotBrought::Stranger)?;
    if line.user != user {
        return Err(NotBrought::Stranger);
    }
    if line.gate != Gate::Redownload && (line.state == State::Failed || line.awaits_capture()) {
        return Err(NotBrought::NotCaptured);
    }
    terms.site.captured_of(user).map_err(NotBrought::Site)
}

/// When a message arrived, in seconds since 1970: as its name says, else as its file was written.
fn arrived(message: &MessageFile) -> u64 {
    arrival(&message.base).unwrap_or_else(|| u64::try_from(message.mtime).unwrap_or(0))
}

/// Names are compared up to the first comma, for servers add sizes behind it and take them away.
type Cut = [u8; 16];

fn guids_by_file(snapshot: &Snapshot) -> BTreeMap<Box<[u8]>, Box<[u8]>> {
    let list = snapshot.state.as_deref().and_then(|octets| UidList::parse(octets).ok());
    let records = list.into_iter().flat_map(|list| list.messages.into_values());
    records
        .filter_map(|record| Some((record.file, record.guid.filter(|guid| is_guid_a_name(guid))?)))
        .collect()
}

fn cuts_of(message: &MessageFile, guids: &BTreeMap<Box<[u8]>, Box<[u8]>>) -> Vec<Cut> {
    let guid = guids.get(&message.base);
    let names = [Some(&message.base), guid].into_iter().flatten();
    names.map(|name| FileKey::cut_of(name)).collect()
}

/// What was captured, by name.
struct Captures<'a> {
    by_name: HashMap<Cut, &'a Entry>,
    nameless: Vec<&'a Entry>,
}

impl<'a> Captures<'a> {
    fn of(captured: &'a Maildrop) -> Self {
        let (mut by_name, mut nameless) = (HashMap::new(), Vec::new());
        for entry in &captured.entries {
            if entry.file_keys().next().is_none() {
                nameless.push(entry);
            }
            by_name.extend(entry.file_keys().map(|key| (key.cut, entry)));
        }
        Self { by_name, nameless }
    }

    /// The entry that is this message: by name, and where an entry has no name, by what is in it.
    fn entry_of(
        &self,
        cuts: &[Cut],
        maildir: &Maildir,
        message: &MessageFile,
    ) -> Result<Option<&'a Entry>, CaptureError> {
        if let Some(entry) = cuts.iter().find_map(|cut| self.by_name.get(cut)) {
            return Ok(Some(entry));
        }
        if self.nameless.is_empty() {
            return Ok(None);
        }
        let Some(file) = maildir.open_message(message)? else { return Ok(None) };
        let read = MessageRead::read(file, Depth::Message);
        let of = read.map_err(|error| CaptureError::io(&message.name, error))?.of;
        let is_it = |entry: &&&Entry| match entry.message {
            Some(_) => entry.message == of.message,
            None => entry.header.is_some() && entry.header == of.header && of.names_itself,
        };
        Ok(self.nameless.iter().find(is_it).copied())
    }
}

/// What the new server has, and what it is known to have had.
struct KnownHere {
    /// The names of the messages that are there.
    here: HashSet<Cut>,
    /// The names of the messages that clients were told of.
    names: HashSet<NameHash>,
    /// What they were told.
    uidls: HashSet<Uidl>,
}

impl KnownHere {
    fn of(snapshot: &Snapshot, maildir: &Maildir) -> Result<Self, NotBrought> {
        let guids = guids_by_file(snapshot);
        let here = snapshot.messages.iter().flat_map(|message| cuts_of(message, &guids)).collect();
        let file = maildir.read_beside(LEDGER);
        let file = file.map_err(|error| NotBrought::Capture { side: "new", error })?;
        let ledger = file.map(|file| Ledger::decode(&file)).transpose();
        let ledger = ledger.map_err(|error| NotBrought::Ledger { error })?;
        let records = || ledger.iter().flat_map(|ledger| &ledger.records);
        let names = records().flat_map(|record| record.names.iter().copied()).collect();
        Ok(Self { here, names, uidls: records().map(|record| record.uidl.clone()).collect() })
    }

    fn has(&self, cuts: &[Cut]) -> bool {
        cuts.iter().any(|cut| self.here.contains(cut))
    }

    /// Says whether clients were told of a message with one of these names.
    fn had(&self, cuts: &[Cut]) -> bool {
        cuts.iter().any(|cut| self.names.contains(&Ledger::name_of_cut(cut)))
    }

    /// Says whether a message of the new server was told a UIDL of the entry, under whatever name.
    fn told(&self, entry: &Entry) -> bool {
        entry.uidls().any(|uidl| self.uidls.contains(uidl))
    }
}
