//! A whole ledger: [`Ledger`], and [`LedgerRef`] where it lies in the file that was read.
#![forbid(unsafe_code)]

use super::epoch::{Epoch, MAX_TOLD, Told};
use super::front::LedgerFront;
use super::layout::{
    DIGEST_OCTETS, FLAG_FINAL, FLAG_READS_HEADER, FLAG_READS_MESSAGE, FLAG_SETTLED, LedgerError,
    Lengths, MAGIC, NO_ENTRY, VERSION, digest, digest_of_back, put_all,
};
use super::record::{NAME_OCTETS, NameHash, Record, RecordRef};
use super::unclaimed::UnclaimedKeys;
use crate::key::{Depth, FileKey};
use crate::uidl::Uidl;

/// The lowest order number of ours: an order number in Dovecot's storage that is not below it was
/// baked by us.
pub const FIRST_ORDER: u32 = 1 << 20;

/// The bound of order numbers. No maildrop lists so many messages, and counting on from it does not
/// overflow.
pub const MAX_NEXT_ORDER: u32 = 1 << 31;

/// What the index was when the ledger was written. An index that has less now was put back from a
/// backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted {
    /// How many different UIDLs it knew of the maildrop. No build takes one away.
    pub uidls: u32,
    /// The first number that the old server had not given, of the captures that were in it.
    pub next: u32,
    /// Whether no capture would follow.
    pub is_final: bool,
    /// A digest of what a new message was judged by: the index's content, `pop3_uidl_format` and
    /// the keys that may match. A settled maildrop is settled as long as this is the same.
    pub basis: [u8; 16],
}

/// What clients of one maildrop have been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// The user whose maildrop it is. Virtual mailboxes of several users may have one control
    /// directory, and one mailbox may have several login names.
    pub user: String,
    /// When the operator had this maildrop forgotten last before this ledger was begun, as the
    /// [roster](crate::site::roster) says it: in seconds since 1970; 0: never.
    pub begun_after: u64,
    /// What the records' UIDs go with.
    pub epoch: Epoch,
    /// Above every order number ever given.
    pub next_order: u32,
    /// Every number told under any UIDVALIDITY that the maildrop ever had, this one too. The one
    /// that came last is last.
    pub told: Vec<Told>,
    /// The last stamp of `uidl-keep restored` that was heeded, as the roster says it.
    pub restored: u64,
    /// The last stamp of `uidl-keep release --unguarded` that was used up, as the roster says it.
    pub unguarded: u64,
    /// The stamp of the rehearsal that began this ledger, as the roster says it. No client has
    /// listed the maildrop since, so that nothing in it was told. 0: clients were told it.
    pub rehearsal: u64,
    /// What the index was then.
    pub index: Noted,
    /// Only in a settled maildrop: from this UID on, a message that has no name of a record, no
    /// unclaimed key and no stored UIDL is unknown, and its native UIDL is unspent. `None`: the
    /// rules must look at each message.
    pub native_from: Option<u32>,
    /// What a new message could claim. It says so only in a settled maildrop.
    pub unclaimed: UnclaimedKeys,
    /// By UID, then by order.
    pub records: Vec<Record>,
}

/// What a ledger says beside its records. Each field is as that of [`Ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LedgerHead {
    pub begun_after: u64,
    pub epoch: Epoch,
    pub next_order: u32,
    pub restored: u64,
    pub unguarded: u64,
    pub rehearsal: u64,
    pub index: Noted,
    pub native_from: Option<u32>,
}

/// A ledger that lies elsewhere: in a [`Ledger`], or in the file that was read. Each field is as
/// that of [`Ledger`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct LedgerRef<'a> {
    pub user: &'a str,
    pub head: LedgerHead,
    pub told: Vec<Told>,
    pub unclaimed: UnclaimedKeys,
    pub records: Vec<RecordRef<'a>>,
}

/// A ledger, wherever its records lie.
pub trait AnyLedger {
    /// The user whose maildrop it is.
    fn user(&self) -> &str;

    /// What it says beside its records.
    fn head(&self) -> LedgerHead;

    /// As [`Ledger::told`].
    fn told(&self) -> &[Told];

    /// As [`Ledger::unclaimed`].
    fn unclaimed(&self) -> &UnclaimedKeys;

    /// Its records, by UID and then by order.
    fn records(&self) -> impl DoubleEndedIterator<Item = RecordRef<'_>> + Clone;
}

impl AnyLedger for Ledger {
    fn user(&self) -> &str {
        &self.user
    }

    fn head(&self) -> LedgerHead {
        LedgerHead {
            begun_after: self.begun_after,
            epoch: self.epoch,
            next_order: self.next_order,
            restored: self.restored,
            unguarded: self.unguarded,
            rehearsal: self.rehearsal,
            index: self.index,
            native_from: self.native_from,
        }
    }

    fn told(&self) -> &[Told] {
        &self.told
    }

    fn unclaimed(&self) -> &UnclaimedKeys {
        &self.unclaimed
    }

    fn records(&self) -> impl DoubleEndedIterator<Item = RecordRef<'_>> + Clone {
        self.records.iter().map(RecordRef::from)
    }
}

impl AnyLedger for LedgerRef<'_> {
    fn user(&self) -> &str {
        self.user
    }

    fn head(&self) -> LedgerHead {
        self.head
    }

    fn told(&self) -> &[Told] {
        &self.told
    }

    fn unclaimed(&self) -> &UnclaimedKeys {
        &self.unclaimed
    }

    fn records(&self) -> impl DoubleEndedIterator<Item = RecordRef<'_>> + Clone {
        self.records.iter().cloned()
    }
}

impl Ledger {
    /// Makes the file, of which [`LedgerFront`] serves. Records that are not in their order are put
    /// into it.
    pub fn encode(&self) -> Vec<u8> {
        let place = |record: &Record| (record.uid, record.order);
        if self.records.is_sorted_by_key(place) {
            return encode(self);
        }
        let mut records = self.records.clone();
        records.sort_by_key(place);
        encode(&Self { records, ..self.clone() })
    }

    /// Borrows the ledger.
    pub fn borrowed(&self) -> LedgerRef<'_> {
        LedgerRef {
            user: &self.user,
            head: self.head(),
            told: self.told.clone(),
            unclaimed: self.unclaimed.clone(),
            records: self.records().collect(),
        }
    }

    /// Reads a whole ledger file.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when it is cut short, too long, damaged, or of another version.
    pub fn decode(file: &[u8]) -> Result<Self, LedgerError> {
        let (front, back) = file.split_at(LedgerFront::front_len(file, file.len() as u64)?);
        Ok(LedgerFront::read(front.to_vec())?.ledger(back)?.to_ledger())
    }

    /// The name of a message, as records have it.
    pub fn name_of(key: FileKey) -> NameHash {
        Self::name_of_cut(&key.cut)
    }

    /// The same from the [`FileKey::cut_of`] of a name.
    pub fn name_of_cut(cut: &[u8; 16]) -> NameHash {
        cut[..NAME_OCTETS].try_into().expect("a cut is longer")
    }
}

impl LedgerRef<'_> {
    /// Makes the file, as [`Ledger::encode`].
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    fn to_ledger(&self) -> Ledger {
        let records = self.records.iter().map(|record| Record {
            uid: record.uid,
            order: record.order,
            uidl: Uidl::new(record.uidl).expect("checked by LedgerFront::read"),
            provenance: record.provenance,
            names: record.names.clone(),
            entry: record.entry,
        });
        let head = self.head;
        Ledger {
            user: self.user.to_owned(),
            begun_after: head.begun_after,
            epoch: head.epoch,
            next_order: head.next_order,
            told: self.told.clone(),
            restored: head.restored,
            unguarded: head.unguarded,
            rehearsal: head.rehearsal,
            index: head.index,
            native_from: head.native_from,
            unclaimed: self.unclaimed.clone(),
            records: records.collect(),
        }
    }
}

fn encode(ledger: &impl AnyLedger) -> Vec<u8> {
    debug_assert!(ledger.records().is_sorted_by_key(|record| (record.uid, record.order)));
    let (records, user, told) = (ledger.records(), ledger.user(), ledger.told());
    let told = &told[told.len().saturating_sub(MAX_TOLD)..];
    let heap_len: usize = records.clone().map(|r| r.uidl.len() + 1).sum();
    let lengths = Lengths {
        user: user.len(),
        told: told.len(),
        records: records.clone().count(),
        heap: heap_len,
        unclaimed: ledger.unclaimed().len(),
    };
    let mut file = Vec::with_capacity(lengths.front() + lengths.back());
    file.extend(MAGIC);
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let LedgerHead { epoch, next_order, index, native_from, .. } = ledger.head();
    let Epoch { uidvalidity, next_uid, index_id } = epoch;
    let reads = match ledger.unclaimed().reads() {
        None => 0,
        Some(Depth::Header) => FLAG_READS_HEADER,
        Some(Depth::Message) => FLAG_READS_MESSAGE,
    };
    let flags = flag(index.is_final, FLAG_FINAL) | flag(native_from.is_some(), FLAG_SETTLED);
    let flags = flags | reads;
    put_all(&mut file, [VERSION, uidvalidity, next_order, next_uid, index_id, flags]);
    let LedgerHead { begun_after, restored, unguarded, rehearsal, .. } = ledger.head();
    for stamp in [begun_after, restored, unguarded, rehearsal] {
        file.extend(stamp.to_le_bytes());
    }
    let count = |len: usize| u32::try_from(len).expect("a maildrop fits 32 bits");
    let Noted { uidls, next, .. } = index;
    put_all(&mut file, [uidls, next, native_from.unwrap_or(0)]);
    put_all(&mut file, [lengths.user, lengths.told, lengths.records, heap_len].map(count));
    file.extend(index.basis);
    put_all(&mut file, [count(lengths.unclaimed)]);
    file.extend(user.as_bytes());
    put_all(&mut file, told.iter().flat_map(|told| [told.uidvalidity, told.below]));
    put_all(&mut file, records.clone().map(|r| r.uid));
    put_all(&mut file, records.clone().map(|r| r.order));
    let mut start = 0u32;
    put_all(
        &mut file,
        records.clone().map(|r| {
            let at = start;
            start += r.uidl.len() as u32 + 1;
            at
        }),
    );
    for record in records.clone() {
        file.extend(record.uidl);
        file.push(0);
    }
    for place in 0..2 {
        for record in records.clone() {
            file.extend(record.names.get(place).copied().unwrap_or_default());
        }
    }
    file.extend(records.clone().map(|r| r.provenance.letter()));
    let front_digest = digest(&file);
    file.extend(front_digest);
    file.extend([0; DIGEST_OCTETS]);
    let back_start = file.len();
    put_all(&mut file, records.map(|r| r.entry.unwrap_or(NO_ENTRY)));
    file.extend(ledger.unclaimed().octets());
    let back_digest = digest_of_back(&front_digest, &file[back_start..]);
    file.extend(back_digest);
    file
}
