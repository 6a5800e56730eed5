//! The block of a listing, put together: [`Draft`], and what there is to say of it: [`Remarks`].
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::capture::told_here::ToldBy;
use crate::ledger::Told;
use crate::maildrop::{Capture, Counter, Entry, Maildrop, State};
use crate::text::printable;
use crate::uidl::Uidl;

/// How many losses a block spells out; the rest are counted.
const MAX_LOSSES: usize = 20;

/// How many messages may be downloaded again without a refusal.
const FEW: usize = 3;

/// The remarks of a capture on one maildrop.
#[derive(Debug, Clone, Default)]
pub struct Remarks {
    /// Facts and notes, in the order in which they were said.
    said: Vec<String>,
    notes: Vec<String>,
    losses: Vec<String>,
    unsaid: usize,
    /// As in [`Captured::nameless`].
    pub(super) nameless: usize,
}

impl Remarks {
    /// Says how things are, where nothing is wrong and nobody has anything to do.
    pub fn fact(&mut self, sentence: impl Into<String>) {
        self.said.push(sentence.into());
    }

    /// Says something that somebody should look at: a wrong server perhaps, or keys that will not
    /// do.
    pub fn note(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        self.said.push(sentence.clone());
        self.notes.push(sentence);
    }

    /// Says something that was lost: the listing is not the whole truth.
    pub fn loss(&mut self, sentence: impl Into<String>) {
        if self.losses.len() < MAX_LOSSES {
            self.losses.push(sentence.into());
        } else {
            self.unsaid += 1;
        }
    }

    /// Returns all remarks, losses last; then the notes among them; then the losses.
    pub fn into_parts(mut self) -> (Vec<String>, Vec<String>, Vec<String>) {
        if self.unsaid > 0 {
            self.losses.push(format!("{} more like these", self.unsaid));
        }
        self.said.extend(self.losses.iter().cloned());
        (self.said, self.notes, self.losses)
    }
}

/// A captured maildrop, and what was lost on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The block for the listing. Its remarks hold notes and losses too.
    pub maildrop: Maildrop,
    /// Sentences that somebody should read, though nothing was lost.
    pub notes: Vec<String>,
    /// Why the block is not the whole truth, a sentence each; empty when all is well.
    pub losses: Vec<String>,
    /// How many messages have a header that does not name them, and no other key that an IMAP copy
    /// leaves.
    pub nameless: usize,
    /// By whom clients were told what it holds.
    pub told_by: ToldBy,
}

impl Captured {
    /// The block of a maildrop that could not be captured, and why.
    pub fn failed(user: String, source: String, why: String) -> Self {
        let losses = vec![why];
        let remarks = losses.clone();
        let maildrop = Maildrop { source, remarks, ..Maildrop::new(user, State::Failed) };
        let told_by = ToldBy::NotKnown;
        Self { maildrop, notes: Vec::new(), losses, nameless: 0, told_by }.of_one_capture(&[])
    }

    /// The same block, with the time at which the capture began. A clock before 1970 says nothing.
    #[must_use]
    pub fn taken_at(mut self, began: SystemTime) -> Self {
        let taken = began.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        self.maildrop.captures.iter_mut().for_each(|capture| capture.taken = taken);
        self
    }

    /// Numbers that were told under other UIDVALIDITYs stand as captures of before: that is how an
    /// index knows of them.
    fn of_one_capture(mut self, told: &[Told]) -> Self {
        let counts = self.maildrop.counter.is_some();
        let before = told.iter().filter(|_| counts).map(|told| Capture {
            taken: None,
            source: self.maildrop.source.clone(),
            uidvalidity: Some(told.uidvalidity),
            next: Some(told.below),
        });
        let captures: Vec<Capture> = before.chain([Capture::of(&self.maildrop, None)]).collect();
        let last = captures.len() as u32 - 1;
        for entry in &mut self.maildrop.entries {
            (entry.first_capture, entry.last_capture) = (last, last);
        }
        self.maildrop.captures = captures;
        self
    }
}

/// The facts of one maildrop, not yet a block.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// As in [`Maildrop::user`].
    pub user: String,
    /// As in [`Maildrop::source`].
    pub source: String,
    /// As in [`Maildrop::uidvalidity`].
    pub uidvalidity: Option<u32>,
    /// As in [`Maildrop::counter`].
    pub counter: Option<Counter>,
    /// The messages that have a key, in the order of the old listing.
    pub entries: Vec<Entry>,
    /// UIDLs whose message is gone or has no key, in any order, some of them more than once
    /// perhaps.
    pub spent: Vec<Uidl>,
    /// The remarks.
    pub remarks: Remarks,
    /// Numbers that clients were told under other UIDVALIDITYs than that of now.
    pub told: Vec<Told>,
    /// As in [`Captured::told_by`].
    pub told_by: ToldBy,
    /// How many messages had no key, and the unique-id of the first.
    pub keyless: Option<(usize, Uidl)>,
}

impl Draft {
    /// Adds the next message of the old listing. The UIDL of a message without a key is spent.
    pub fn push(&mut self, entry: Entry) {
        if let Some(keyless) = self.keep(entry) {
            self.keyless.get_or_insert((0, keyless)).0 += 1;
        }
    }

    /// The same, where the caller says why an entry has no key: gives the UIDL that is spent then.
    pub fn keep(&mut self, entry: Entry) -> Option<Uidl> {
        if entry.has_key() {
            self.entries.push(entry);
            return None;
        }
        self.spent.push(entry.uidl.clone());
        Some(entry.uidl)
    }

    /// Makes the block. Remarks where the old server's UIDLs are unusual; they are replayed as
    /// they were.
    pub fn finish(mut self) -> Captured {
        self.remark_on_uidls();
        if let Some((count, first)) = self.keyless.take() {
            if count > self.entries.len().max(FEW) {
                let why = format!(
                    "{count} of {} messages have nothing that names them (first: {first}), and \
                     would be downloaded again: take more --keys, or another way to capture, that \
                     reads their text",
                    count + self.entries.len()
                );
                return Captured::failed(self.user, self.source, why);
            }
            self.remarks.loss(format!(
                "{count} messages have nothing that names them (first: {first}): their unique-ids \
                 are spent, and they will be downloaded again"
            ));
        }
        let held: HashSet<&Uidl> = self.entries.iter().map(|entry| &entry.uidl).collect();
        let spent: BTreeSet<Uidl> = self.spent.into_iter().collect();
        let spent: Vec<Uidl> = spent.into_iter().filter(|uidl| !held.contains(uidl)).collect();
        let knows_nothing = self.entries.is_empty()
            && spent.is_empty()
            && self.counter.as_ref().is_none_or(|counter| counter.next <= 1);
        let (nameless, told_by) = (self.remarks.nameless, self.told_by);
        let (remarks, notes, losses) = self.remarks.into_parts();
        let state = match (knows_nothing, losses.is_empty()) {
            (false, _) => State::Captured,
            (true, true) => State::Empty,
            // The loss may have been a UIDL: a capture of nothing would be served all the same.
            (true, false) => {
                let maildrop = Maildrop {
                    source: self.source,
                    remarks,
                    ..Maildrop::new(self.user, State::Failed)
                };
                let told_by = ToldBy::NotKnown;
                return Captured { maildrop, notes, losses, nameless, told_by }.of_one_capture(&[]);
            }
        };
        let maildrop = Maildrop {
            source: self.source,
            uidvalidity: self.uidvalidity,
            counter: self.counter,
            entries: self.entries,
            spent,
            remarks,
            ..Maildrop::new(self.user, state)
        };
        Captured { maildrop, notes, losses, nameless, told_by }.of_one_capture(&self.told)
    }

    fn remark_on_uidls(&mut self) {
        let mut seen = HashSet::new();
        let repeated: Vec<&Uidl> = self
            .entries
            .iter()
            .map(|entry| &entry.uidl)
            .filter(|uidl| !seen.insert(*uidl))
            .collect();
        if let Some(first) = repeated.first() {
            self.remarks.fact(format!(
                "{} messages have a unique-id that an earlier one has too, {} for one: kept as \
                 the old server gave it",
                repeated.len(),
                printable(first.as_bytes())
            ));
        }
        let long = self.entries.iter().filter(|entry| entry.uidl.is_longer_than_rfc()).count();
        if long > 0 {
            self.remarks
                .fact(format!("{long} unique-ids are longer than the 70 octets of RFC 1939: kept"));
        }
    }
}
