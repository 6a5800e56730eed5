//! A whole ledger where it lies in its file, [`LedgerFile`], and how it grows there, [`Growth`].
#![forbid(unsafe_code)]

use std::iter::repeat_n;
use std::ops::Range;

use super::checksum::{CHECKSUM_OCTETS, Checksum};
use super::epoch::{MAX_TOLD, Told};
use super::front::LedgerFront;
use super::layout::{BACK_RECORD_OCTETS, LedgerError, Lengths, NO_ENTRY, put_all, u32_at};
use super::record::{NAME_OCTETS, NO_NAME, Provenance, Record, RecordRef};
use super::unclaimed::UnclaimedKeys;
use super::whole::{AnyLedger, LedgerHead, put_head};

/// A whole ledger where it lies in the file that was read. A record is made as it is looked at.
#[derive(Debug)]
pub struct LedgerFile<'a> {
    pub(super) front: &'a LedgerFront,
    pub(super) told: Vec<Told>,
    /// The entries of the records.
    pub(super) entries: &'a [u8],
    pub(super) unclaimed: UnclaimedKeys,
}

/// What new mail changes in a ledger. All else of it stays: the user, the unclaimed keys, and the
/// records that are kept.
#[derive(Debug)]
pub struct Growth {
    /// The new head.
    pub head: LedgerHead,
    /// As [`Ledger::told`](super::Ledger::told).
    pub told: Vec<Told>,
    /// The records that stay, in their new order.
    pub kept: Vec<KeptRun>,
    /// The records of the new messages, by UID. They stand behind all others.
    pub new: Vec<Record>,
}

/// Records that stay, and have no other between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRun {
    /// Their places.
    pub places: Range<usize>,
    /// Whether their messages are gone: then they are only claims from now on.
    pub is_gone: bool,
}

impl AnyLedger for LedgerFile<'_> {
    fn user(&self) -> &str {
        self.front.user()
    }

    fn head(&self) -> LedgerHead {
        self.front.head()
    }

    fn told(&self) -> &[Told] {
        &self.told
    }

    fn unclaimed(&self) -> &UnclaimedKeys {
        &self.unclaimed
    }

    fn records(&self) -> impl DoubleEndedIterator<Item = RecordRef<'_>> + Clone {
        (0..self.front.answers().len()).map(|i| self.record(i))
    }

    fn last_natives(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.front.last_natives().map(|i| self.record(i))
    }

    fn has_derived(&self) -> bool {
        let letter = Provenance::Derived.letter();
        memchr::memrchr_iter(letter, self.front.letters()).any(|i| self.front.answers().uid(i) != 0)
    }
}

impl<'a> LedgerFile<'a> {
    /// Its front.
    pub fn front(&self) -> &'a LedgerFront {
        self.front
    }

    /// The entry that the record at `i` claims, as [`Record::entry`].
    pub fn entry(&self, i: usize) -> Option<u32> {
        Some(u32_at(self.entries, BACK_RECORD_OCTETS * i)).filter(|entry| *entry != NO_ENTRY)
    }

    fn record(&self, i: usize) -> RecordRef<'_> {
        let answers = self.front.answers();
        RecordRef {
            uid: answers.uid(i),
            order: answers.order_number(i),
            uidl: answers.uidl(i),
            provenance: self.front.provenance(i),
            names: self.front.names(i).collect(),
            entry: self.entry(i),
        }
    }

    /// Makes front and back of the ledger with new mail. What stays is copied octet by octet. Which
    /// names the messages have is not noted yet.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] where there is too much of it, or its records do not ascend.
    ///
    /// # Panics
    ///
    /// Where a run goes beyond the records.
    pub fn grow(&self, growth: &Growth) -> Result<(LedgerFront, Vec<u8>), LedgerError> {
        let (old, answers, Growth { kept, new, .. }) = (self.front, self.front.answers(), growth);
        let told = &growth.told[growth.told.len().saturating_sub(MAX_TOLD)..];
        let uidls = new.iter().map(|record| record.uidl.as_bytes());
        let heaps = || kept.iter().map(|run| &answers.heap()[answers.heap_of(&run.places)]);
        let lengths = Lengths {
            user: old.user().len(),
            told: told.len(),
            records: kept.iter().map(|run| run.places.len()).sum::<usize>() + new.len(),
            heap: heaps().map(<[u8]>::len).sum::<usize>()
                + uidls.clone().map(|uidl| uidl.len() + 1).sum::<usize>(),
            unclaimed: self.unclaimed.len(),
        };
        // Copies what a column has of the records that stay.
        let copy = |to: &mut Vec<u8>, column: &[u8], octets: usize| {
            for KeptRun { places, .. } in kept {
                to.extend_from_slice(&column[octets * places.start..octets * places.end]);
            }
        };

        let mut front = Vec::with_capacity(lengths.front());
        put_head(&mut front, &growth.head, self.unclaimed.reads(), lengths);
        front.extend_from_slice(old.user().as_bytes());
        put_all(&mut front, told.iter().flat_map(|told| [told.uidvalidity, told.below]));
        for KeptRun { places, is_gone } in kept {
            match is_gone {
                true => front.extend(repeat_n(0, 4 * places.len())),
                false => front.extend_from_slice(&answers.uids()[4 * places.start..4 * places.end]),
            }
        }
        put_all(&mut front, new.iter().map(|record| record.uid));
        copy(&mut front, answers.order_numbers(), 4);
        put_all(&mut front, new.iter().map(|record| record.order));
        let mut start = 0;
        for KeptRun { places, .. } in kept {
            let heap = answers.heap_of(places);
            put_all(
                &mut front,
                places.clone().map(|i| (answers.start(i) - heap.start + start) as u32),
            );
            start += heap.len();
        }
        for uidl in uidls.clone() {
            put_all(&mut front, [start as u32]);
            start += uidl.len() + 1;
        }
        heaps().for_each(|heap| front.extend_from_slice(heap));
        for uidl in uidls {
            front.extend_from_slice(uidl);
            front.push(0);
        }
        for place in [0, 1] {
            copy(&mut front, old.names_column(place), NAME_OCTETS);
            for record in new {
                front.extend(record.names.get(place).unwrap_or(&NO_NAME));
            }
        }
        copy(&mut front, old.letters(), 1);
        front.extend(new.iter().map(|record| record.provenance.letter()));
        let front_checksum = Checksum::of(&front);
        front.extend(front_checksum);
        front.extend([0; CHECKSUM_OCTETS]);

        let mut back = Vec::with_capacity(lengths.back());
        copy(&mut back, self.entries, BACK_RECORD_OCTETS);
        put_all(&mut back, new.iter().map(|record| record.entry.unwrap_or(NO_ENTRY)));
        back.extend_from_slice(self.unclaimed.octets());
        back.extend(Checksum::of_two(&front_checksum, &back));
        Ok((LedgerFront::with_its_checksum(front)?, back))
    }
}
