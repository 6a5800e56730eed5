//! The form of a ledger's file, its only description.
//!
//! Numbers are little-endian. A warm login reads the *front* alone. Only a login that has something
//! to resolve reads the *back*. `n` is the record count; records ascend by UID, then by order.
//!
//! ```text
//! offset    size  field
//! 0         8     magic: 89 55 4B 4C 0D 0A 1A 0A
//! 8         4     version: 1
//! 12        4     UIDVALIDITY of the mailbox when this was written
//! 16        4     next order number: above every number ever given
//! 20        4     next UID: see [`Epoch::next_uid`]
//! 24        4     index id: see [`Epoch::index_id`]
//! 28        4     flags: 1, the index was final; 2, the maildrop is settled; 4 or 8, the header or
//!                 the whole of a new message must be read to know its keys
//! 32        8     begun after: see [`LedgerHead::begun_after`]
//! 40        8     restored: see [`LedgerHead::restored`]
//! 48        8     unguarded: see [`LedgerHead::unguarded`]
//! 56        8     rehearsal: see [`LedgerHead::rehearsal`]
//! 64        4     UIDLs that the index had: see [`Noted::uidls`]
//! 68        4     next number of the old server: see [`Noted::next`]
//! 72        4     native from: see [`LedgerHead::native_from`]; 0 unless flag 2
//! 76        4     length of the user's name in octets, 1 to 1024
//! 80        4     t: how many UIDVALIDITYs numbers were told under
//! 84        4     n
//! 88        4     heap length in octets
//! 92        16    what new messages were judged by: see [`Noted::basis`]
//! 108       4     k: how many keys are unclaimed, at most 2^20
//! 112       u     the user's name, UTF-8
//! then      8t    UIDVALIDITY and told below, of 4 octets each: see [`Told`]
//! then      4n    UID of each record; 0: its message was not there when this was written
//! then      4n    order number, from 1
//! then      4n    where the record's UIDL starts in the heap
//! then      heap  the UIDLs, each closed by a NUL: so far it is what a session answers from
//! then      8n    the message's first name (see [`NameHash`]); zeros: none
//! then      8n    its second name; zeros: none
//! then      n     how the UIDL came about, a letter: see [`Provenance`]
//! then      16    XXH3 of 128 bits of all before it, the highest octet first
//! then      16    names of the messages that were there, see [`ListedNames`]; zeros: not known
//!                 (the end of the front)
//! then      4n    the entry it claims, as its place in the index block; 0xFFFFFFFF: none
//! then      8k    the keys that no record claims, ascending: see [`UnclaimedKeys`]
//! then      16    the same of the front's checksum and the back before this
//! ```
#![forbid(unsafe_code)]

use std::ops::Range;

use super::checksum::CHECKSUM_OCTETS;
use super::epoch::{Epoch, MAX_TOLD, TOLD_OCTETS};
use super::record::NAME_OCTETS;
use super::unclaimed::{KEY_OCTETS, UnclaimedKeys};
use super::whole::{LedgerHead, MAX_NEXT_ORDER, Noted};
use crate::key::Depth;

pub(super) const MAGIC: [u8; 8] = *b"\x89UKL\r\n\x1a\n";
/// The version of the form that is written, and the only one that is read.
pub const VERSION: u32 = 1;
pub(super) const HEADER_OCTETS: usize = 112;
/// The place of the stamp of the rehearsal.
pub(super) const REHEARSAL: Range<usize> = 56..64;
/// UID, order number and start of a record: what an answer needs beside its UIDL.
pub(super) const ANSWER_OCTETS: usize = 3 * 4;
pub(super) const FRONT_RECORD_OCTETS: usize = ANSWER_OCTETS + 2 * NAME_OCTETS + 1;
pub(super) const BACK_RECORD_OCTETS: usize = 4;
pub(super) const NO_ENTRY: u32 = u32::MAX;
pub(super) const FLAG_FINAL: u32 = 1;
pub(super) const FLAG_SETTLED: u32 = 2;
pub(super) const FLAG_READS_HEADER: u32 = 4;
pub(super) const FLAG_READS_MESSAGE: u32 = 8;
pub(super) const MAX_USER_OCTETS: usize = 1024;

/// The largest ledger accepted, in octets: a maildrop of a million messages with long UIDLs, and
/// [`UnclaimedKeys::MOST`].
pub const MAX_OCTETS: u64 = (128 + 8) << 20;

/// Why some octets are not a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// It is too short for what it says it holds, or too long.
    #[error("ledger has {len} octets, not the {expected} that it should")]
    Length {
        /// Octets there are.
        len: u64,
        /// Octets there should be.
        expected: u64,
    },
    /// It is not a ledger.
    #[error("not a ledger: it does not start as one")]
    Magic,
    /// A version wrote it that this one does not know.
    #[error("ledger version {found}, newest known {VERSION}")]
    Version {
        /// The version it names.
        found: u32,
    },
    /// A checksum disagrees.
    #[error("ledger checksum of its {part} disagrees")]
    Checksum {
        /// `front` or `back`.
        part: &'static str,
    },
    /// A field has a value that no ledger has.
    #[error("ledger record {record} has a bad {field}")]
    Field {
        /// Which record, from 0.
        record: usize,
        /// Which field.
        field: &'static str,
    },
}

/// The lengths of the parts that vary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) user: usize,
    pub(super) told: usize,
    pub(super) records: usize,
    pub(super) heap: usize,
    pub(super) unclaimed: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LedgerHeader {
    pub(super) head: LedgerHead,
    pub(super) lengths: Lengths,
    /// As [`UnclaimedKeys::reads`].
    pub(super) reads: Option<Depth>,
}

impl LedgerHeader {
    pub(super) fn parse(file: &[u8]) -> Result<Self, LedgerError> {
        if file.len() < HEADER_OCTETS {
            return Err(length(file.len(), HEADER_OCTETS));
        }
        if file[..8] != MAGIC {
            return Err(LedgerError::Magic);
        }
        let version = u32_at(file, 8);
        if version != VERSION {
            return Err(LedgerError::Version { found: version });
        }
        let flags = u32_at(file, 28);
        let native_from = u32_at(file, 72);
        let head = LedgerHead {
            epoch: Epoch {
                uidvalidity: u32_at(file, 12),
                next_uid: u32_at(file, 20),
                index_id: u32_at(file, 24),
            },
            next_order: u32_at(file, 16),
            begun_after: u64_at(file, 32),
            restored: u64_at(file, 40),
            unguarded: u64_at(file, 48),
            rehearsal: u64_at(file, REHEARSAL.start),
            index: Noted {
                uidls: u32_at(file, 64),
                next: u32_at(file, 68),
                is_final: flags & FLAG_FINAL != 0,
                basis: file[92..108].try_into().expect("16 octets"),
            },
            native_from: (flags & FLAG_SETTLED != 0).then_some(native_from),
        };
        let [user, told, records, heap, unclaimed] =
            [76, 80, 84, 88, 108].map(|at| u32_at(file, at) as usize);
        let lengths = Lengths { user, told, records, heap, unclaimed };
        let bad = |field| Err(LedgerError::Field { record: records, field });
        let reads = match flags & !(FLAG_FINAL | FLAG_SETTLED) {
            0 => None,
            FLAG_READS_HEADER => Some(Depth::Header),
            FLAG_READS_MESSAGE => Some(Depth::Message),
            _ => return bad("flag"),
        };
        if head.native_from.is_none() && native_from != 0 {
            return bad("native from");
        }
        if !(1..=MAX_NEXT_ORDER).contains(&head.next_order) {
            return bad("next order number");
        }
        if !(1..=MAX_USER_OCTETS).contains(&user) {
            return bad("length of the user's name");
        }
        if told > MAX_TOLD {
            return bad("number of UIDVALIDITYs");
        }
        if unclaimed > UnclaimedKeys::MOST {
            return bad("number of unclaimed keys");
        }
        let octets = (lengths.front() + lengths.back()) as u64;
        if octets > MAX_OCTETS {
            return Err(LedgerError::Length { len: octets, expected: MAX_OCTETS });
        }
        Ok(Self { head, lengths, reads })
    }
}

impl Lengths {
    /// It cannot overflow: all counts come from 32 bits.
    pub(super) const fn front(self) -> usize {
        HEADER_OCTETS
            + self.user
            + TOLD_OCTETS * self.told
            + FRONT_RECORD_OCTETS * self.records
            + self.heap
            + 2 * CHECKSUM_OCTETS
    }

    pub(super) const fn back(self) -> usize {
        BACK_RECORD_OCTETS * self.records + KEY_OCTETS * self.unclaimed + CHECKSUM_OCTETS
    }
}

pub(super) fn length(len: usize, expected: usize) -> LedgerError {
    LedgerError::Length { len: len as u64, expected: expected as u64 }
}

pub(super) fn put_all(file: &mut Vec<u8>, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        file.extend(number.to_le_bytes());
    }
}

/// The number at `offset`. The caller has compared the offset with the length.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 octets"))
}

/// As [`u32_at`].
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 octets"))
}
