//! The ledger: what one maildrop's clients have been told, and how each answer came about.
//!
//! It is the truth about a maildrop after its first POP3 listing. It lies in Dovecot's control
//! directory of the mailbox, belongs to the account, and is only ever replaced whole: written
//! beside itself and renamed. A login whose messages are all in it needs neither index nor mail.
//! What must not be lost with it stands a second time in the lock's file: the [`Mark`].
//!
//! # The file
//!
//! Little-endian. A *front*, which is all a warm login reads, and a *back*, which only a login that
//! has something to resolve reads. `n` is the record count; records ascend by UID, then order.
//!
//! ```text
//! offset    size  field
//! 0         8     magic: 89 55 4B 4C 0D 0A 1A 0A
//! 8         4     version: 1
//! 12        4     UIDVALIDITY of the mailbox when this was written
//! 16        4     next order number: above every number ever given
//! 20        4     next UID: see [`Ledger::next_uid`]
//! 24        4     index id: see [`Ledger::index_id`]
//! 28        4     flags: 1, the index was final; 2, the maildrop is settled
//! 32        8     begun after: see [`Ledger::begun_after`]
//! 40        8     restored: see [`Ledger::restored`]
//! 48        8     unguarded: see [`Ledger::unguarded`]
//! 56        4     UIDLs that the index had: see [`Noted::uidls`]
//! 60        4     next number of the old server: see [`Noted::next`]
//! 64        4     native from: see [`Ledger::native_from`]; 0 unless flag 2
//! 68        4     length of the user's name in octets, 1 to 1024
//! 72        4     t: how many UIDVALIDITYs numbers were told under
//! 76        4     n
//! 80        4     heap length in octets
//! 84        16    what new messages were judged by: see [`Noted::basis`]
//! 100       u     the user's name, UTF-8
//! then      8t    UIDVALIDITY and told below, of 4 octets each: see [`Told`]
//! then      4n    UID of each record; 0: its message was not there when this was written
//! then      4n    order number, from 1
//! then      4n    where the record's UIDL starts in the heap
//! then      8n    the message's first name (see [`NameHash`]); zeros: none
//! then      8n    its second name; zeros: none
//! then      n     how the UIDL came about, a letter: see [`Provenance`]
//! then      heap  the UIDLs, each closed by a NUL
//! then      16    BLAKE3 of all before it, cut to 128 bits: the end of the front
//! then      4n    the entry it claims, as its place in the index block; 0xFFFFFFFF: none
//! then      16    BLAKE3 of the front's digest and the back before this, cut to 128 bits
//! ```
#![forbid(unsafe_code)]

pub mod control;
pub mod fingerprint_cache;
mod mark;

use arrayvec::ArrayVec;

pub use mark::Mark;

use crate::key::FileKey;
use crate::uidl::Uidl;

const MAGIC: [u8; 8] = *b"\x89UKL\r\n\x1a\n";
const VERSION: u32 = 1;
const HEADER_OCTETS: usize = 100;
const DIGEST_OCTETS: usize = 16;
const TOLD_OCTETS: usize = 8;
/// The octets of a record's name.
const NAME_OCTETS: usize = 8;
const FRONT_RECORD_OCTETS: usize = 3 * 4 + 2 * NAME_OCTETS + 1;
const BACK_RECORD_OCTETS: usize = 4;
const NO_ENTRY: u32 = u32::MAX;
const FLAG_FINAL: u32 = 1;
const FLAG_SETTLED: u32 = 2;
const MAX_USER_OCTETS: usize = 1024;

/// Our order numbers start here: what Dovecot's storage has from here on was baked by us.
pub const FIRST_ORDER: u32 = 1 << 20;

/// No maildrop lists so many messages, and what is counted on from it does not overflow.
pub const MAX_NEXT_ORDER: u32 = 1 << 31;

/// The most UIDVALIDITYs that are remembered. The oldest are forgotten beyond that.
pub const MAX_TOLD: usize = 128;

/// The largest ledger accepted, in octets: a maildrop of a million messages with long UIDLs.
pub const MAX_OCTETS: u64 = 128 << 20;

/// A message's name as records have it: the first 8 octets of [`FileKey::cut`].
///
/// It is compared with the names of the messages of one maildrop only: 2^64 is far more than the
/// square of the messages that any maildrop has.
pub type NameHash = [u8; NAME_OCTETS];

/// The names of a message: its base file name or GUID, and its GUID where that is another. What has
/// one name has an empty second place.
pub type Names = ArrayVec<NameHash, 2>;

/// How a message came by its UIDL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// The `file` key named the captured message.
    File,
    /// The `message` key did.
    Message,
    /// The `header` key did.
    Header,
    /// The `origin` key did.
    Origin,
    /// Dovecot's storage already had it: `P` of `dovecot-uidlist` or of dbox metadata.
    Stored,
    /// Unknown to the index: what `pop3_uidl_format` gives.
    Native,
    /// Unknown to the index, and not what `pop3_uidl_format` gives: that is spent, or the message
    /// has got another UID since.
    Derived,
}

impl Provenance {
    const LETTERS: [(Self, u8); 7] = [
        (Self::File, b'f'),
        (Self::Message, b'm'),
        (Self::Header, b'h'),
        (Self::Origin, b'o'),
        (Self::Stored, b'p'),
        (Self::Native, b'u'),
        (Self::Derived, b'd'),
    ];

    /// Whether the UIDL was not made here, as far as keys or Dovecot's storage could tell. Records
    /// of the others are dropped once the message is gone: their numbers stay spent.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::Native | Self::Derived)
    }

    fn letter(self) -> u8 {
        Self::LETTERS.iter().find(|(other, _)| *other == self).map_or(0, |(_, letter)| *letter)
    }

    fn of_letter(letter: u8) -> Option<Self> {
        Self::LETTERS.iter().find(|(_, other)| *other == letter).map(|(found, _)| *found)
    }
}

/// What clients were told of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its UID under the ledger's UIDVALIDITY; 0 when it was not there at the last listing that was
    /// recorded: the record is then only a claim.
    pub uid: u32,
    /// Its place among all that was ever listed; never given twice.
    pub order: u32,
    /// The UIDL.
    pub uidl: Uidl,
    /// How it came by that.
    pub provenance: Provenance,
    /// The names that the message had when it was listed: by any of them it is known again when
    /// UIDs are not.
    pub names: Names,
    /// The index entry that it claims, as its place in
    /// [`Maildrop::entries`](crate::maildrop::Maildrop).
    pub entry: Option<u32>,
}

/// Numbers that were told, or may have been, in UIDLs made of a UID: all below `below`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Told {
    /// Under which UIDVALIDITY.
    pub uidvalidity: u32,
    /// The first UID that was not told.
    pub below: u32,
}

/// What the index was when the ledger was written: one that is less now was put back from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted {
    /// How many different UIDLs it knew of the maildrop: no build takes one away.
    pub uidls: u32,
    /// The first number that the old server had not given, of the captures that were in it.
    pub next: u32,
    /// Whether no capture would follow.
    pub is_final: bool,
    /// Names what a new message was judged by: the index's content, `pop3_uidl_format` and the keys
    /// that may match. A settled maildrop is settled as long as this is the same.
    pub basis: [u8; 16],
}

/// What clients of one maildrop have been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Whose maildrop it is: virtual mailboxes of several users may have one control directory, and
    /// one mailbox may have several login names.
    pub user: String,
    /// When the operator had this maildrop forgotten last before this ledger was begun, as the
    /// [roster](crate::site::roster) says it: in seconds since 1970; 0: never.
    pub begun_after: u64,
    /// The UIDVALIDITY that the records' UIDs go with.
    pub uidvalidity: u32,
    /// The highest next UID that the mailbox ever had at a listing under this UIDVALIDITY. A
    /// mailbox that counts below it has begun to count anew.
    pub next_uid: u32,
    /// Which of Dovecot's index files the UIDs were looked up in: another is made with another
    /// number (`indexid` in `mail-index.h`), and may give UIDs anew where it was lost.
    pub index_id: u32,
    /// Above every order number ever given.
    pub next_order: u32,
    /// Every number told under any UIDVALIDITY that the maildrop ever had, this one too; the one
    /// that came last is last.
    pub told: Vec<Told>,
    /// The last stamp of `uidl-keep restored` that was heeded, as the roster says it.
    pub restored: u64,
    /// The last stamp of `uidl-keep release --unguarded` that was used up, as the roster says it.
    pub unguarded: u64,
    /// What the index was.
    pub index: Noted,
    /// Where the maildrop is settled: from which UID on a message that has no name of a record and
    /// no stored UIDL is unknown, and what Dovecot alone gives it is unspent. `None`: the rules
    /// must look at each.
    pub native_from: Option<u32>,
    /// By UID, then by order.
    pub records: Vec<Record>,
}

/// Joins what two memories know of told numbers: the higher of each UIDVALIDITY.
pub fn join_told(told: &mut Vec<Told>, more: impl IntoIterator<Item = Told>) {
    for Told { uidvalidity, below } in more {
        match told.iter_mut().find(|known| known.uidvalidity == uidvalidity) {
            Some(known) => known.below = known.below.max(below),
            None => told.push(Told { uidvalidity, below }),
        }
    }
}

/// Why some bytes are not a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too short for what it says it holds, or too long.
    #[error("ledger has {len} octets, not the {expected} that it should")]
    Length {
        /// Octets there are.
        len: u64,
        /// Octets there should be.
        expected: u64,
    },
    /// Not a ledger.
    #[error("not a ledger: it does not start as one")]
    Magic,
    /// Written by a version that this one does not know.
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

impl Ledger {
    /// The ledger, borrowed.
    pub fn borrowed(&self) -> LedgerRef<'_> {
        let records = self.records.iter().map(|record| RecordRef {
            uid: record.uid,
            order: record.order,
            uidl: record.uidl.as_bytes(),
            provenance: record.provenance,
            names: record.names.clone(),
            entry: record.entry,
        });
        LedgerRef {
            user: &self.user,
            head: Head {
                begun_after: self.begun_after,
                uidvalidity: self.uidvalidity,
                next_uid: self.next_uid,
                index_id: self.index_id,
                next_order: self.next_order,
                restored: self.restored,
                unguarded: self.unguarded,
                index: self.index,
                native_from: self.native_from,
            },
            told: self.told.clone(),
            records: records.collect(),
        }
    }

    /// The ledger as a file, and as what [`Answers`] serves from.
    pub fn encode(&self) -> Vec<u8> {
        self.borrowed().encode()
    }

    /// Reads a whole ledger file.
    ///
    /// # Errors
    ///
    /// [`Error`] when it is cut short, too long, damaged, or of another version.
    pub fn decode(file: &[u8]) -> Result<Self, Error> {
        let (front, back) = file.split_at(Answers::front_len(file, file.len() as u64)?);
        let answers = Answers::read(front.to_vec())?;
        Ok(answers.ledger(back)?.to_ledger())
    }

    /// The name of a message as records have it.
    pub fn name_of(key: FileKey) -> NameHash {
        Self::name_of_cut(&key.cut)
    }

    /// The same, of the [`FileKey::cut_of`] a name.
    pub fn name_of_cut(cut: &[u8; 16]) -> NameHash {
        cut[..NAME_OCTETS].try_into().expect("a cut is longer")
    }
}

/// A ledger that lies elsewhere: in a [`Ledger`], or in the file that was read. Each field is as
/// that of [`Ledger`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct LedgerRef<'a> {
    pub user: &'a str,
    pub head: Head,
    pub told: Vec<Told>,
    pub records: Vec<RecordRef<'a>>,
}

/// A record that lies elsewhere. Each field is as that of [`Record`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct RecordRef<'a> {
    pub uid: u32,
    pub order: u32,
    pub uidl: &'a [u8],
    pub provenance: Provenance,
    pub names: Names,
    pub entry: Option<u32>,
}

impl LedgerRef<'_> {
    /// As [`Ledger::encode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut records: Vec<&RecordRef<'_>> = self.records.iter().collect();
        records.sort_by_key(|record| (record.uid, record.order));
        let told = &self.told[self.told.len().saturating_sub(MAX_TOLD)..];
        let heap_len: usize = records.iter().map(|r| r.uidl.len() + 1).sum();
        let lengths = Lengths {
            user: self.user.len(),
            told: told.len(),
            records: records.len(),
            heap: heap_len,
        };
        let mut file = Vec::with_capacity(lengths.front() + lengths.back());
        file.extend(MAGIC);
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let Head { index, native_from, .. } = self.head;
        let flags = flag(index.is_final, FLAG_FINAL) | flag(native_from.is_some(), FLAG_SETTLED);
        let Head { uidvalidity, next_order, next_uid, index_id, .. } = self.head;
        put_all(&mut file, [VERSION, uidvalidity, next_order, next_uid, index_id, flags]);
        for stamp in [self.head.begun_after, self.head.restored, self.head.unguarded] {
            file.extend(stamp.to_le_bytes());
        }
        let count = |len: usize| u32::try_from(len).expect("a maildrop fits 32 bits");
        let Noted { uidls, next, .. } = index;
        put_all(&mut file, [uidls, next, native_from.unwrap_or(0)]);
        put_all(&mut file, [lengths.user, lengths.told, lengths.records, heap_len].map(count));
        file.extend(index.basis);
        file.extend(self.user.as_bytes());
        put_all(&mut file, told.iter().flat_map(|told| [told.uidvalidity, told.below]));
        put_all(&mut file, records.iter().map(|r| r.uid));
        put_all(&mut file, records.iter().map(|r| r.order));
        let mut start = 0u32;
        put_all(
            &mut file,
            records.iter().map(|r| {
                let at = start;
                start += r.uidl.len() as u32 + 1;
                at
            }),
        );
        for place in 0..2 {
            for record in &records {
                file.extend(record.names.get(place).copied().unwrap_or_default());
            }
        }
        file.extend(records.iter().map(|r| r.provenance.letter()));
        for record in &records {
            file.extend(record.uidl);
            file.push(0);
        }
        let front_digest = digest(&file);
        file.extend(front_digest);
        let back_start = file.len();
        put_all(&mut file, records.iter().map(|r| r.entry.unwrap_or(NO_ENTRY)));
        let back_digest = digest_of_back(&front_digest, &file[back_start..]);
        file.extend(back_digest);
        file
    }

    fn to_ledger(&self) -> Ledger {
        let records = self.records.iter().map(|record| Record {
            uid: record.uid,
            order: record.order,
            uidl: Uidl::new(record.uidl).expect("checked by Answers::read"),
            provenance: record.provenance,
            names: record.names.clone(),
            entry: record.entry,
        });
        let head = self.head;
        Ledger {
            user: self.user.to_owned(),
            begun_after: head.begun_after,
            uidvalidity: head.uidvalidity,
            next_uid: head.next_uid,
            index_id: head.index_id,
            next_order: head.next_order,
            told: self.told.clone(),
            restored: head.restored,
            unguarded: head.unguarded,
            index: head.index,
            native_from: head.native_from,
            records: records.collect(),
        }
    }
}

/// What a session answers from: the front of a ledger, checked once, then only looked up.
///
/// UIDLs stay where they lie in the buffer, each closed by a NUL, so that a C caller can be handed
/// the bytes themselves. The buffer never changes and never moves.
#[derive(Debug)]
pub struct Answers {
    front: Box<[u8]>,
    header: Header,
}

impl Answers {
    /// The octets to read for the front, from the first [`Answers::HEADER_OCTETS`] of the file.
    ///
    /// # Errors
    ///
    /// [`Error`] when they are not the start of a ledger of a size we accept.
    pub fn front_len(start: &[u8], file_len: u64) -> Result<usize, Error> {
        let Header { lengths, .. } = Header::parse(start)?;
        let expected = (lengths.front() + lengths.back()) as u64;
        if file_len != expected {
            return Err(Error::Length { len: file_len, expected });
        }
        Ok(lengths.front())
    }

    /// How many octets [`Answers::front_len`] wants.
    pub const HEADER_OCTETS: usize = HEADER_OCTETS;

    /// Takes the front of a ledger after checking every octet of it.
    ///
    /// # Errors
    ///
    /// As [`Ledger::decode`].
    pub fn read(front: Vec<u8>) -> Result<Self, Error> {
        let header = Header::parse(&front)?;
        if front.len() != header.lengths.front() {
            return Err(length(front.len(), header.lengths.front()));
        }
        let (body, found) = front.split_at(front.len() - DIGEST_OCTETS);
        if digest(body) != found {
            return Err(Error::Checksum { part: "front" });
        }
        let answers = Self { front: front.into_boxed_slice(), header };
        answers.check()?;
        Ok(answers)
    }

    /// Takes the front of a ledger that was encoded just now: its digest need not be computed
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error`] where there is too much of it, or it could not be read again.
    pub fn of_encoded(mut file: Vec<u8>) -> Result<Self, Error> {
        file.truncate(Self::front_len(&file, file.len() as u64)?);
        let header = Header::parse(&file)?;
        let answers = Self { front: file.into_boxed_slice(), header };
        answers.check()?;
        Ok(answers)
    }

    /// Where in the file the back begins, and how many octets it has.
    pub fn back_range(&self) -> (u64, usize) {
        (self.front.len() as u64, self.header.lengths.back())
    }

    /// The whole ledger, of its back.
    ///
    /// # Errors
    ///
    /// [`Error`] when the back is not the one of this front, or is damaged.
    pub fn ledger(&self, back: &[u8]) -> Result<LedgerRef<'_>, Error> {
        if back.len() != self.header.lengths.back() {
            return Err(length(back.len(), self.header.lengths.back()));
        }
        let front_digest = &self.front[self.front.len() - DIGEST_OCTETS..];
        let (body, back_digest) = back.split_at(back.len() - DIGEST_OCTETS);
        if digest_of_back(front_digest, body) != back_digest {
            return Err(Error::Checksum { part: "back" });
        }
        let records = (0..self.len()).map(|i| {
            let entry = u32_at(body, 4 * i);
            RecordRef {
                uid: self.uid(i),
                order: self.order_number(i),
                uidl: self.uidl(i),
                provenance: self.provenance(i),
                names: self.names(i).collect(),
                entry: (entry != NO_ENTRY).then_some(entry),
            }
        });
        Ok(LedgerRef {
            user: self.user(),
            head: self.head(),
            told: self.told().collect(),
            records: records.collect(),
        })
    }

    /// A checksum is no proof against the account's owner, who can write the file: nothing that is
    /// served later may lean on a field that was not looked at here.
    fn check(&self) -> Result<(), Error> {
        let bad = |record, field| Err(Error::Field { record, field });
        if std::str::from_utf8(self.user_octets()).is_err() {
            return bad(0, "user name");
        }
        let heap = self.heap();
        let mut next_start = 0;
        for i in 0..self.len() {
            // Bisections lean on this.
            let place = |i| (self.uid(i), self.order_number(i));
            let is_one_uid = |i| self.uid(i) == self.uid(i - 1) && self.uid(i) != 0;
            let ascends = i == 0 || (place(i) > place(i - 1) && !is_one_uid(i));
            if !ascends {
                return bad(i, "UID");
            }
            if !(1..self.header.head.next_order).contains(&self.order_number(i)) {
                return bad(i, "order number");
            }
            if Provenance::of_letter(self.letter(i)).is_none() {
                return bad(i, "letter");
            }
            if self.name_at(0, i) == NO_NAME && self.name_at(1, i) != NO_NAME {
                return bad(i, "name");
            }
            if self.start(i) != next_start {
                return bad(i, "UIDL offset");
            }
            let Some(len) = heap[next_start..].iter().position(|&octet| octet == 0) else {
                return bad(i, "UIDL end");
            };
            if Uidl::check(&heap[next_start..next_start + len]).is_err() {
                return bad(i, "UIDL");
            }
            next_start += len + 1;
        }
        if next_start != heap.len() {
            return bad(self.len(), "heap length");
        }
        Ok(())
    }

    /// What the ledger says beside its records.
    pub fn head(&self) -> Head {
        self.header.head
    }

    /// As [`Ledger::user`].
    pub fn user(&self) -> &str {
        std::str::from_utf8(self.user_octets()).expect("checked by Answers::read")
    }

    /// As [`Ledger::told`].
    pub fn told(&self) -> impl Iterator<Item = Told> + '_ {
        let start = HEADER_OCTETS + self.header.lengths.user;
        (0..self.header.lengths.told).map(move |at| {
            let at = start + TOLD_OCTETS * at;
            Told { uidvalidity: u32_at(&self.front, at), below: u32_at(&self.front, at + 4) }
        })
    }

    /// How many messages clients were told of, with those long gone.
    pub fn len(&self) -> usize {
        self.header.lengths.records
    }

    /// Whether nothing was ever listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the message with this UID stands, if it was listed. `guess` is where to look first:
    /// one past the last answer, for a listing goes up by UID.
    pub fn find(&self, uid: u32, guess: usize) -> Option<usize> {
        if uid == 0 {
            return None;
        }
        if guess < self.len() && self.uid(guess) == uid {
            return Some(guess);
        }
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.uid(middle).cmp(&uid) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The UIDL of the record at `i`.
    pub fn uidl(&self, i: usize) -> &[u8] {
        let with_nul = self.uidl_with_nul(i);
        &with_nul[..with_nul.len() - 1]
    }

    /// The UIDL of the record at `i`, with the NUL that closes it.
    pub fn uidl_with_nul(&self, i: usize) -> &[u8] {
        let start = self.start(i);
        let end = if i + 1 < self.len() { self.start(i + 1) } else { self.header.lengths.heap };
        &self.heap()[start..end]
    }

    /// The order number of the record at `i`, from 1.
    pub fn order_number(&self, i: usize) -> u32 {
        u32_at(&self.front, self.records_at() + 4 * (self.len() + i))
    }

    /// How the record at `i` came by its UIDL.
    pub fn provenance(&self, i: usize) -> Provenance {
        Provenance::of_letter(self.letter(i)).expect("checked by Answers::read")
    }

    /// The names of the message of the record at `i`, as [`Record::names`].
    pub fn names(&self, i: usize) -> impl Iterator<Item = NameHash> + '_ {
        [0, 1].into_iter().map(move |place| self.name_at(place, i)).filter(|name| *name != NO_NAME)
    }

    /// Whether the record at `i` is one of the last new messages, which are not baked at once: the
    /// mark has them.
    pub fn may_be_unbaked(&self, i: usize) -> bool {
        let is_native = |i: &usize| self.provenance(*i) == Provenance::Native && self.uid(*i) != 0;
        is_native(&i) && (i + 1..self.len()).filter(is_native).nth(Mark::NATIVES - 1).is_none()
    }

    fn name_at(&self, place: usize, i: usize) -> NameHash {
        let start = self.records_at() + 12 * self.len() + NAME_OCTETS * (place * self.len() + i);
        self.front[start..start + NAME_OCTETS].try_into().expect("8 octets")
    }

    /// The UID of the record at `i`, 0 where its message was gone.
    pub fn uid(&self, i: usize) -> u32 {
        u32_at(&self.front, self.records_at() + 4 * i)
    }

    fn user_octets(&self) -> &[u8] {
        &self.front[HEADER_OCTETS..HEADER_OCTETS + self.header.lengths.user]
    }

    fn records_at(&self) -> usize {
        HEADER_OCTETS + self.header.lengths.user + TOLD_OCTETS * self.header.lengths.told
    }

    fn start(&self, i: usize) -> usize {
        u32_at(&self.front, self.records_at() + 4 * (2 * self.len() + i)) as usize
    }

    fn letter(&self, i: usize) -> u8 {
        self.front[self.records_at() + (FRONT_RECORD_OCTETS - 1) * self.len() + i]
    }

    fn heap(&self) -> &[u8] {
        let start = self.records_at() + FRONT_RECORD_OCTETS * self.len();
        &self.front[start..start + self.header.lengths.heap]
    }
}

const NO_NAME: NameHash = [0; NAME_OCTETS];

/// What a ledger says beside its records, each as the field of [`Ledger`] of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Head {
    pub begun_after: u64,
    pub uidvalidity: u32,
    pub next_uid: u32,
    pub index_id: u32,
    pub next_order: u32,
    pub restored: u64,
    pub unguarded: u64,
    pub index: Noted,
    pub native_from: Option<u32>,
}

/// How much there is of what varies.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    user: usize,
    told: usize,
    records: usize,
    heap: usize,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    head: Head,
    lengths: Lengths,
}

impl Header {
    fn parse(file: &[u8]) -> Result<Self, Error> {
        if file.len() < HEADER_OCTETS {
            return Err(length(file.len(), HEADER_OCTETS));
        }
        if file[..8] != MAGIC {
            return Err(Error::Magic);
        }
        let version = u32_at(file, 8);
        if version != VERSION {
            return Err(Error::Version { found: version });
        }
        let flags = u32_at(file, 28);
        let native_from = u32_at(file, 64);
        let head = Head {
            uidvalidity: u32_at(file, 12),
            next_order: u32_at(file, 16),
            next_uid: u32_at(file, 20),
            index_id: u32_at(file, 24),
            begun_after: u64_at(file, 32),
            restored: u64_at(file, 40),
            unguarded: u64_at(file, 48),
            index: Noted {
                uidls: u32_at(file, 56),
                next: u32_at(file, 60),
                is_final: flags & FLAG_FINAL != 0,
                basis: file[84..HEADER_OCTETS].try_into().expect("16 octets"),
            },
            native_from: (flags & FLAG_SETTLED != 0).then_some(native_from),
        };
        let [user, told, records, heap] = [68, 72, 76, 80].map(|at| u32_at(file, at) as usize);
        let lengths = Lengths { user, told, records, heap };
        let bad = |field| Err(Error::Field { record: records, field });
        if flags & !(FLAG_FINAL | FLAG_SETTLED) != 0 {
            return bad("flag");
        }
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
        let octets = (lengths.front() + lengths.back()) as u64;
        if octets > MAX_OCTETS {
            return Err(Error::Length { len: octets, expected: MAX_OCTETS });
        }
        Ok(Self { head, lengths })
    }
}

impl Lengths {
    /// Cannot overflow: all counts come from 32 bits.
    const fn front(self) -> usize {
        HEADER_OCTETS
            + self.user
            + TOLD_OCTETS * self.told
            + FRONT_RECORD_OCTETS * self.records
            + self.heap
            + DIGEST_OCTETS
    }

    const fn back(self) -> usize {
        BACK_RECORD_OCTETS * self.records + DIGEST_OCTETS
    }
}

fn length(len: usize, expected: usize) -> Error {
    Error::Length { len: len as u64, expected: expected as u64 }
}

fn put_all(file: &mut Vec<u8>, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        file.extend(number.to_le_bytes());
    }
}

/// The number at `offset`, which the caller has compared with the length.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 octets"))
}

/// As [`u32_at`].
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 octets"))
}

fn digest(bytes: &[u8]) -> [u8; DIGEST_OCTETS] {
    cut(blake3::hash(bytes))
}

fn digest_of_back(front_digest: &[u8], back: &[u8]) -> [u8; DIGEST_OCTETS] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(front_digest).update(back);
    cut(hasher.finalize())
}

fn cut(hash: blake3::Hash) -> [u8; DIGEST_OCTETS] {
    hash.as_bytes()[..DIGEST_OCTETS].try_into().expect("a digest is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(octet: u8) -> NameHash {
        [octet; NAME_OCTETS]
    }

    fn record(uid: u32, order: u32, uidl: &str, provenance: Provenance) -> Record {
        Record {
            uid,
            order,
            uidl: Uidl::new(uidl.as_bytes()).unwrap(),
            provenance,
            names: [uid as u8, order as u8].into_iter().take(uid as usize % 3).map(name).collect(),
            entry: provenance.is_kept().then_some(order - 1),
        }
    }

    fn sample() -> Ledger {
        Ledger {
            user: "alice".to_owned(),
            begun_after: 0x0123_4567_89AB_CDEF,
            uidvalidity: 1_714_990_000,
            next_uid: 13,
            index_id: 77,
            next_order: 6,
            told: vec![
                Told { uidvalidity: 3, below: 9 },
                Told { uidvalidity: 1_714_990_000, below: 13 },
            ],
            restored: 5,
            unguarded: 6,
            index: Noted { uidls: 4, next: 12, is_final: true, basis: [7; 16] },
            native_from: Some(13),
            records: vec![
                record(0, 5, "UID9-17", Provenance::File),
                record(3, 1, "UID3-17", Provenance::File),
                record(7, 2, "~x", Provenance::Derived),
                record(8, 4, "000000086638afc0", Provenance::Native),
                record(12, 3, "UID3-17", Provenance::Header),
            ],
        }
    }

    fn least() -> Ledger {
        Ledger {
            next_order: 1,
            told: Vec::new(),
            index: Noted::default(),
            native_from: None,
            records: Vec::new(),
            ..sample()
        }
    }

    #[test]
    fn decode_is_the_inverse_of_encode() {
        for ledger in [sample(), least()] {
            assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
        }
    }

    #[test]
    fn what_a_warm_login_looks_at_is_what_was_written() {
        for ledger in [sample(), least()] {
            let mut front = ledger.encode();
            let start = &front[..Answers::HEADER_OCTETS];
            front.truncate(Answers::front_len(start, front.len() as u64).unwrap());
            let answers = Answers::read(front).unwrap();
            let Head { uidvalidity, next_uid, index_id, begun_after, .. } = answers.head();
            assert_eq!((uidvalidity, next_uid), (ledger.uidvalidity, ledger.next_uid));
            assert_eq!((index_id, begun_after), (ledger.index_id, ledger.begun_after));
            let Head { next_order, restored, unguarded, index, native_from, .. } = answers.head();
            assert_eq!((next_order, restored), (ledger.next_order, ledger.restored));
            assert_eq!((unguarded, index), (ledger.unguarded, ledger.index));
            assert_eq!(native_from, ledger.native_from);
            assert_eq!(answers.user(), ledger.user);
            assert_eq!(answers.told().collect::<Vec<_>>(), ledger.told);
            assert_eq!(answers.len(), ledger.records.len());
            assert_eq!(answers.is_empty(), ledger.records.is_empty());
            for (i, record) in ledger.records.iter().enumerate() {
                assert_eq!(answers.names(i).collect::<Names>(), record.names);
                assert_eq!(answers.uid(i), record.uid);
            }
        }
    }

    #[test]
    fn only_the_last_new_messages_may_be_unbaked() {
        let mut records = vec![record(0, 1, "n", Provenance::Native)];
        records.extend((1..=20).map(|n| record(n, n + 1, "n", Provenance::Native)));
        records.push(record(21, 22, "d", Provenance::Derived));
        let file = Ledger { next_order: 23, records, ..sample() }.encode();
        let front = Answers::front_len(&file, file.len() as u64).unwrap();
        let answers = Answers::read(file[..front].to_vec()).unwrap();
        let unbaked = (0..answers.len()).filter(|&i| answers.may_be_unbaked(i));
        let unbaked: Vec<u32> = unbaked.map(|i| answers.uid(i)).collect();
        assert_eq!(unbaked, (5..=20).collect::<Vec<_>>());
        assert_eq!(answers.back_range(), (front as u64, file.len() - front));
        let whole = answers.ledger(&file[front..]).unwrap();
        assert_eq!(whole.encode(), file);
        let natives = Mark::of(&whole, 22).natives;
        // Of those that may be unbaked the mark has each that has a name.
        let named = |uid: &u32| uid % 3 != 0;
        let uids: Vec<u32> = natives.into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(uids, unbaked.into_iter().filter(named).collect::<Vec<_>>());
    }

    #[test]
    fn told_numbers_are_joined_by_the_higher_of_each_uidvalidity() {
        let told = |pairs: &[(u32, u32)]| -> Vec<Told> {
            pairs.iter().map(|&(uidvalidity, below)| Told { uidvalidity, below }).collect()
        };
        let mut known = told(&[(1, 5), (2, 9)]);
        join_told(&mut known, told(&[(2, 7), (1, 6), (3, 1)]));
        assert_eq!(known, told(&[(1, 6), (2, 9), (3, 1)]));
    }

    #[test]
    fn of_more_uidvalidities_than_there_is_room_for_a_ledger_keeps_the_last() {
        for count in [MAX_TOLD, MAX_TOLD + 1] {
            let told = (0..count as u32).map(|n| Told { uidvalidity: n, below: n + 1 });
            let ledger = Ledger { told: told.collect(), ..sample() };
            let kept = Ledger::decode(&ledger.encode()).unwrap().told;
            assert_eq!(kept, ledger.told[count - MAX_TOLD..]);
        }
    }

    #[test]
    fn a_uid_is_of_one_message_and_every_place_of_one_record() {
        let decoded = |records: &[(u32, u32)]| {
            let records =
                records.iter().map(|&(uid, order)| record(uid, order, "U", Provenance::Stored));
            Ledger::decode(&Ledger { records: records.collect(), ..sample() }.encode())
        };
        for sound in [&[(0, 1), (0, 2)][..], &[(0, 1), (0, 4), (7, 2), (8, 3)], &[(3, 5), (5, 1)]] {
            assert!(decoded(sound).is_ok(), "{sound:?}");
        }
        for (twice, record) in [
            (&[(7, 1), (7, 2)][..], 1),
            (&[(3, 1), (7, 2), (7, 3)], 2),
            (&[(3, 1), (7, 2), (7, 3), (8, 4)], 2),
            (&[(0, 1), (0, 1), (7, 2)], 1),
        ] {
            assert_eq!(decoded(twice), Err(Error::Field { record, field: "UID" }), "{twice:?}");
        }
    }

    #[test]
    fn a_ledger_may_be_as_large_as_the_bound_and_no_larger() {
        let start_of = |octets: u64, records: u32| {
            let mut start = least().encode();
            let lengths = Lengths { user: 5, told: 0, records: records as usize, heap: 0 };
            let heap_len = octets - (lengths.front() + lengths.back()) as u64;
            start[76..80].copy_from_slice(&records.to_le_bytes());
            start[80..84].copy_from_slice(&(heap_len as u32).to_le_bytes());
            start
        };
        for count in [0, 1 << 20] {
            assert!(Answers::front_len(&start_of(MAX_OCTETS, count), MAX_OCTETS).is_ok());
            let len = MAX_OCTETS + 1;
            let refused = Answers::front_len(&start_of(len, count), len);
            assert_eq!(refused, Err(Error::Length { len, expected: MAX_OCTETS }));
        }
    }

    #[test]
    fn answers_are_found_by_uid_wherever_the_guess_points() {
        let ledger = sample();
        let file = ledger.encode();
        let front = Answers::front_len(&file, file.len() as u64).unwrap();
        let answers = Answers::read(file[..front].to_vec()).unwrap();
        for guess in 0..7 {
            for record in &ledger.records[1..] {
                let at = answers.find(record.uid, guess).unwrap();
                assert_eq!(answers.uidl(at), record.uidl.as_bytes());
                assert_eq!(answers.order_number(at), record.order);
            }
            // 5 is an order number, and stands where a guess past the end would look for a UID.
            for uid in [0, 1, 4, 5, 13, u32::MAX] {
                assert_eq!(answers.find(uid, guess), None, "UID {uid}, guess {guess}");
            }
        }
        assert_eq!(answers.uidl_with_nul(4), b"UID3-17\0");
    }

    #[test]
    fn every_flipped_bit_and_every_length_is_an_error() {
        let file = sample().encode();
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                assert!(Ledger::decode(&damaged).is_err(), "bit {bit} of octet {at}");
            }
            assert!(Ledger::decode(&file[..at]).is_err(), "length {at}");
        }
        assert!(Ledger::decode(&[&file[..], b"\0"].concat()).is_err());
    }

    /// The account's owner can write a ledger and its checksum.
    #[test]
    fn a_forged_ledger_with_right_checksums_cannot_carry_a_line_end_or_a_bad_offset() {
        let forged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = sample().encode();
            let front = Answers::front_len(&file, file.len() as u64).unwrap();
            file.truncate(front - DIGEST_OCTETS);
            change(&mut file);
            let found = digest(&file);
            file.extend(found);
            Answers::read(file).map(|_| ())
        };
        assert_eq!(forged(&|_| ()), Ok(()));
        let records = HEADER_OCTETS + 5 + 2 * TOLD_OCTETS;
        let heap = records + FRONT_RECORD_OCTETS * 5;
        assert!(matches!(forged(&|f| f[heap] = b'\n'), Err(Error::Field { field: "UIDL", .. })));
        assert!(matches!(forged(&|f| f[heap + 7] = b'x'), Err(Error::Field { .. })));
        let last = |f: &mut Vec<u8>| {
            let at = f.len() - 1;
            f[at] = b'x';
        };
        assert!(matches!(forged(&last), Err(Error::Field { field: "UIDL end", .. })));
        for (offset, field) in [(4 * 2, "UID"), (4 * 5, "order number"), (4 * 11, "UIDL offset")] {
            let wild = |f: &mut Vec<u8>| f[records + offset..][..4].fill(0xFF);
            assert!(
                matches!(forged(&wild), Err(Error::Field { field: f, .. }) if f == field || offset == 8)
            );
        }
        assert!(matches!(
            forged(&|f| f[heap - 1] = b'?'),
            Err(Error::Field { field: "letter", .. })
        ));
        for count_at in [76, 80] {
            let huge = |f: &mut Vec<u8>| f[count_at..count_at + 4].fill(0xFF);
            assert!(matches!(forged(&huge), Err(Error::Length { .. })));
        }
    }
}
