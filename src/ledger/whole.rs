//! A whole ledger: [`Ledger`], and [`AnyLedger`] wherever its records lie.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use super::checksum::{CHECKSUM_OCTETS, Checksum};
use super::epoch::{Epoch, MAX_TOLD, Told};
use super::front::LedgerFront;
use super::layout::{
    FLAG_FINAL, FLAG_READS_HEADER, FLAG_READS_MESSAGE, FLAG_SETTLED, LedgerError, Lengths, MAGIC,
    NO_ENTRY, VERSION, put_all,
};
use super::listed_names::ListedNames;
use super::mark::Mark;
use super::record::{NAME_OCTETS, NO_NAME, NameHash, Provenance, Record, RecordRef};
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

    /// The records of the last new messages that are there and have native UIDLs, the newest first,
    /// at most [`Mark::NATIVES`].
    fn last_natives(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let records = self.records().rev().take_while(|record| record.uid != 0);
        records.filter(|record| record.provenance == Provenance::Native).take(Mark::NATIVES)
    }

    /// Says whether a message that is there has a derived UIDL.
    fn has_derived(&self) -> bool {
        let is_derived = |record: RecordRef<'_>| record.provenance == Provenance::Derived;
        self.records().any(|record| record.uid != 0 && is_derived(record))
    }
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

    /// Copies a ledger that lies elsewhere.
    pub fn of(ledger: &impl AnyLedger) -> Self {
        let LedgerHead { begun_after, epoch, next_order, .. } = ledger.head();
        let LedgerHead { restored, unguarded, rehearsal, index, native_from, .. } = ledger.head();
        let records = ledger.records().map(|record| Record {
            uid: record.uid,
            order: record.order,
            uidl: Uidl::new(record.uidl).expect("a ledger has none but checked UIDLs"),
            provenance: record.provenance,
            names: record.names,
            entry: record.entry,
        });
        Self {
            user: ledger.user().to_owned(),
            begun_after,
            epoch,
            next_order,
            told: ledger.told().to_vec(),
            restored,
            unguarded,
            rehearsal,
            index,
            native_from,
            unclaimed: ledger.unclaimed().clone(),
            records: records.collect(),
        }
    }

    /// Reads a whole ledger file.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when it is cut short, too long, damaged, or of another version.
    pub fn decode(file: &[u8]) -> Result<Self, LedgerError> {
        let (front, back) = file.split_at(LedgerFront::front_len(file, file.len() as u64)?);
        Ok(Self::of(&LedgerFront::read(front.to_vec())?.ledger(back)?))
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

/// Makes the file of a ledger, whose records are in their order.
pub fn encode(ledger: &impl AnyLedger) -> Vec<u8> {
    let answers = AnswerColumns::of(ledger);
    let lengths = answers.lengths(ledger);
    let mut file = Vec::with_capacity(lengths.front() + lengths.back());
    write_all(ledger, answers, None, &mut file).expect("memory takes all that there is room for");
    file
}

/// Writes the same file in pieces, so that it is never in memory whole, with the names of the
/// messages that are there.
///
/// # Errors
///
/// What the writer says.
pub fn write(
    ledger: &impl AnyLedger,
    names: Option<&ListedNames>,
    to: &mut impl Write,
) -> io::Result<()> {
    write_all(ledger, AnswerColumns::of(ledger), names, to)
}

/// Records are made as they are looked at. So they are looked at twice, and not once for each
/// column: first for what stands before the UIDLs, then for these and what stands behind.
fn write_all(
    ledger: &impl AnyLedger,
    answers: AnswerColumns,
    names: Option<&ListedNames>,
    to: &mut impl Write,
) -> io::Result<()> {
    let lengths = answers.lengths(ledger);
    let mut file = Pieces { to, held: Vec::new(), checksum: Checksum::new() };
    put_head(&mut file.held, &ledger.head(), ledger.unclaimed().reads(), lengths);
    file.put(ledger.user().as_bytes())?;
    for told in &ledger.told()[ledger.told().len() - lengths.told..] {
        file.put(&told.uidvalidity.to_le_bytes())?;
        file.put(&told.below.to_le_bytes())?;
    }
    for column in [answers.uids, answers.orders, answers.starts] {
        file.put_large(&column)?;
    }
    let mut evidence = EvidenceColumns::with_room(lengths.records);
    for record in ledger.records() {
        file.put(record.uidl)?;
        file.put(&[0])?;
        evidence.add(&record);
    }
    for column in &evidence.names {
        file.put_large(column)?;
        let more = lengths.records - column.len() / NAME_OCTETS;
        (0..more).try_for_each(|_| file.put(&NO_NAME))?;
    }
    file.put_large(&evidence.letters)?;
    let front_checksum = file.close()?;
    file.to.write_all(&names.map_or([0; CHECKSUM_OCTETS], ListedNames::digest))?;
    // The back's checksum is of that of the front too, which was written just now.
    file.checksum.add(&front_checksum);
    file.put_large(&evidence.entries)?;
    file.put_large(ledger.unclaimed().octets())?;
    file.close().map(drop)
}

/// The columns that stand before the UIDLs, as the file has them.
struct AnswerColumns {
    records: usize,
    /// The octets of all UIDLs, with their NULs.
    heap: usize,
    uids: Vec<u8>,
    orders: Vec<u8>,
    starts: Vec<u8>,
}

impl AnswerColumns {
    fn of(ledger: &impl AnyLedger) -> Self {
        debug_assert!(ledger.records().is_sorted_by_key(|record| (record.uid, record.order)));
        let most = ledger.records().size_hint().1.unwrap_or(0);
        let [uids, orders, starts] = [(); 3].map(|()| Vec::with_capacity(4 * most));
        let mut all = Self { records: 0, heap: 0, uids, orders, starts };
        for record in ledger.records() {
            all.uids.extend(record.uid.to_le_bytes());
            all.orders.extend(record.order.to_le_bytes());
            all.starts.extend((all.heap as u32).to_le_bytes());
            all.heap += record.uidl.len() + 1;
            all.records += 1;
        }
        all
    }

    fn lengths(&self, ledger: &impl AnyLedger) -> Lengths {
        Lengths {
            user: ledger.user().len(),
            told: ledger.told().len().min(MAX_TOLD),
            records: self.records,
            heap: self.heap,
            unclaimed: ledger.unclaimed().len(),
        }
    }
}

/// The columns that stand behind the UIDLs, as the file has them.
struct EvidenceColumns {
    records: usize,
    /// Each ends with the last name that there is: mostly there are no second ones.
    names: [Vec<u8>; 2],
    letters: Vec<u8>,
    entries: Vec<u8>,
}

impl EvidenceColumns {
    fn with_room(records: usize) -> Self {
        Self {
            records: 0,
            names: [Vec::with_capacity(NAME_OCTETS * records), Vec::new()],
            letters: Vec::with_capacity(records),
            entries: Vec::with_capacity(4 * records),
        }
    }

    fn add(&mut self, record: &RecordRef<'_>) {
        for (column, name) in self.names.iter_mut().zip(&record.names) {
            column.resize(NAME_OCTETS * self.records, 0);
            column.extend(name);
        }
        self.letters.push(record.provenance.letter());
        self.entries.extend(record.entry.unwrap_or(NO_ENTRY).to_le_bytes());
        self.records += 1;
    }
}

/// Takes a file in small pieces, and writes and hashes it in large ones.
struct Pieces<'w, W> {
    to: &'w mut W,
    held: Vec<u8>,
    /// The checksum of all that was written since the last one was closed.
    checksum: Checksum,
}

impl<W: Write> Pieces<'_, W> {
    const OCTETS: usize = 64 << 10;

    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.held.len() + octets.len() > Self::OCTETS {
            self.pass_on()?;
        }
        self.held.extend_from_slice(octets);
        Ok(())
    }

    /// The same of octets that are in one piece already.
    fn put_large(&mut self, octets: &[u8]) -> io::Result<()> {
        octets.chunks(Self::OCTETS).try_for_each(|piece| self.put(piece))
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.checksum.add(&self.held);
        self.to.write_all(&self.held)?;
        self.held.clear();
        Ok(())
    }

    /// Closes a part with the checksum of all that is in it before.
    fn close(&mut self) -> io::Result<[u8; CHECKSUM_OCTETS]> {
        self.pass_on()?;
        let checksum = std::mem::replace(&mut self.checksum, Checksum::new()).octets();
        self.to.write_all(&checksum)?;
        Ok(checksum)
    }
}

pub(super) fn put_head(
    file: &mut Vec<u8>,
    head: &LedgerHead,
    reads: Option<Depth>,
    lengths: Lengths,
) {
    file.extend(MAGIC);
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let LedgerHead { epoch, next_order, index, native_from, .. } = *head;
    let Epoch { uidvalidity, next_uid, index_id } = epoch;
    let reads = match reads {
        None => 0,
        Some(Depth::Header) => FLAG_READS_HEADER,
        Some(Depth::Message) => FLAG_READS_MESSAGE,
    };
    let flags = flag(index.is_final, FLAG_FINAL) | flag(native_from.is_some(), FLAG_SETTLED);
    let flags = flags | reads;
    put_all(file, [VERSION, uidvalidity, next_order, next_uid, index_id, flags]);
    let LedgerHead { begun_after, restored, unguarded, rehearsal, .. } = *head;
    for stamp in [begun_after, restored, unguarded, rehearsal] {
        file.extend(stamp.to_le_bytes());
    }
    let count = |len: usize| u32::try_from(len).expect("a maildrop fits 32 bits");
    let Noted { uidls, next, basis, .. } = index;
    put_all(file, [uidls, next, native_from.unwrap_or(0)]);
    put_all(file, [lengths.user, lengths.told, lengths.records, lengths.heap].map(count));
    file.extend(basis);
    put_all(file, [count(lengths.unclaimed)]);
}
