//! The ledger: what one maildrop's clients have been told, and how each answer came about.
//!
//! It is the truth about a maildrop after its first POP3 listing. It lies in Dovecot's control
//! directory of the mailbox, belongs to the account, and is only ever replaced whole: written
//! beside itself and renamed. A login whose messages are all in it needs neither index nor mail.
//!
//! # The file
//!
//! Little-endian. A *front*, which is all a warm login reads, and a *back*, which only a login that
//! has something to resolve reads. `n` is the record count; records ascend by UID, then order.
//!
//! ```text
//! offset       size  field
//! 0            8     magic: 89 55 4B 4C 0D 0A 1A 0A
//! 8            4     version: 2
//! 12           4     UIDVALIDITY of the mailbox when this was written
//! 16           4     cutoff UID; 0xFFFFFFFF: none yet
//! 20           4     next order number: above every number ever given, from 1
//! 24           4     next UID of the mailbox when this was written
//! 28           4     told below: see [`Ledger::told_below`]
//! 32           8     begun after: see [`Ledger::begun_after`]
//! 40           8     BLAKE3 of the user's name, cut to 64 bits
//! 48           4     index id: see [`Ledger::index_id`]
//! 52           4     n
//! 56           4     heap length in octets
//! 60           4n    UID of each record; 0: its message was not there when this was written
//! 60+4n        4n    order number, from 1
//! 60+8n        4n    where the record's UIDL starts in the heap
//! 60+12n       16n   BLAKE3 of the message's name (see [`FileKey`]) cut to 128 bits; zeros: none
//! 60+28n       n     how the UIDL came about, a letter: see [`How`]
//! 60+29n       heap  the UIDLs, each closed by a NUL
//! then         16    BLAKE3 of all before it, cut to 128 bits: the end of the front
//! then         4n    the entry it claims, as its place in the index block; 0xFFFFFFFF: none
//! then         16    BLAKE3 of the front's digest and the back before this, cut to 128 bits
//! ```
#![forbid(unsafe_code)]

use crate::key::FileKey;
use crate::uidl::Uidl;

const MAGIC: [u8; 8] = *b"\x89UKL\r\n\x1a\n";
const VERSION: u32 = 2;
const HEADER_OCTETS: usize = 60;
const DIGEST_OCTETS: usize = 16;
/// The octets of a record's name.
pub const NAME_OCTETS: usize = 16;
const FRONT_RECORD_OCTETS: usize = 3 * 4 + NAME_OCTETS + 1;
const BACK_RECORD_OCTETS: usize = 4;
const NO_ENTRY: u32 = u32::MAX;
/// No cutoff: no message was ever above it, for the next UID is.
const NO_CUTOFF: u32 = u32::MAX;

/// No maildrop lists so many messages, and what is counted on from it does not overflow.
const MAX_NEXT_ORDER: u32 = 1 << 31;

/// The largest ledger accepted, in octets: a maildrop of a million messages with long UIDLs.
pub const MAX_OCTETS: u64 = 128 << 20;

/// How a message came by its UIDL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
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
    Format,
    /// Unknown to the index, and what `pop3_uidl_format` gives is spent.
    Derived,
}

impl How {
    const LETTERS: [(Self, u8); 7] = [
        (Self::File, b'f'),
        (Self::Message, b'm'),
        (Self::Header, b'h'),
        (Self::Origin, b'o'),
        (Self::Stored, b'p'),
        (Self::Format, b'u'),
        (Self::Derived, b'd'),
    ];

    /// Whether the UIDL is one that the old server gave, as far as its keys or Dovecot's storage
    /// could tell. Records of messages that came later are dropped once the message is gone.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::Format | Self::Derived)
    }

    fn letter(self) -> u8 {
        Self::LETTERS.iter().find(|(how, _)| *how == self).map_or(0, |(_, letter)| *letter)
    }

    fn of_letter(letter: u8) -> Option<Self> {
        Self::LETTERS.iter().find(|(_, l)| *l == letter).map(|(how, _)| *how)
    }
}

/// What clients were told of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its UID under the ledger's UIDVALIDITY; 0 when it was not there at the last listing that was
    /// recorded: the record is then only a claim.
    pub uid: u32,
    /// Its place among all that was ever listed, from 1; never given twice.
    pub order: u32,
    /// The UIDL.
    pub uidl: Uidl,
    /// How it came by that.
    pub how: How,
    /// The message's name, as [`FileKey::cut`]: by it a message is known again when UIDs are not.
    pub name: Option<[u8; NAME_OCTETS]>,
    /// The index entry that it claims, as its place in [`Maildrop::entries`](crate::maildrop::Maildrop).
    pub entry: Option<u32>,
}

/// What clients of one maildrop have been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Whose maildrop it is, by [`user_digest`]: virtual mailboxes of several users may have one
    /// control directory.
    pub user_digest: u64,
    /// The UIDVALIDITY that the records' UIDs go with.
    pub uidvalidity: u32,
    /// Above this UID only the `file` and `message` keys may claim what is still unclaimed. Set by
    /// the first complete resolution against a final index.
    pub cutoff: Option<u32>,
    /// Above every order number ever given.
    pub next_order: u32,
    /// Which of Dovecot's index files the UIDs were looked up in: another is made with another number
    /// (`indexid` in `mail-index.h`), and may give UIDs anew where it was lost.
    pub index_id: u32,
    /// The highest next UID that the mailbox ever had at a resolution under this UIDVALIDITY: clients
    /// were told of no UID at or above it. A mailbox that counts below it has begun to count anew.
    pub next_uid: u32,
    /// Of messages that are known no more, clients were told UIDs below this one, in UIDLs that the
    /// maildrop's own format gives again for these UIDs. 0: of none.
    pub told_below: u32,
    /// When the operator had this maildrop forgotten last before this ledger was begun, as the
    /// [roster](crate::roster) says it: in seconds since 1970; 0: never.
    pub begun_after: u64,
    /// By UID, then by order.
    pub records: Vec<Record>,
}

/// What is noted of a ledger in a second place, so that one which is lost is not taken for one that
/// never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// As [`Ledger::begun_after`].
    pub begun_after: u64,
    /// As [`Ledger::uidvalidity`].
    pub uidvalidity: u32,
    /// As [`Ledger::cutoff`].
    pub cutoff: Option<u32>,
    /// As [`Ledger::index_id`].
    pub index_id: u32,
    /// As [`Ledger::next_uid`].
    pub next_uid: u32,
    /// As [`Ledger::told_below`].
    pub told_below: u32,
}

impl Mark {
    /// The longest line, in octets.
    pub const MAX_LINE_OCTETS: usize = 192;

    /// One that was damaged: anything may have been told.
    const DAMAGED: Self = Self {
        begun_after: 0,
        uidvalidity: 0,
        cutoff: Some(0),
        index_id: 0,
        next_uid: u32::MAX,
        told_below: u32::MAX,
    };

    /// As a line of text.
    pub fn to_line(self) -> String {
        let Self { begun_after, uidvalidity, index_id, next_uid, told_below, .. } = self;
        let cutoff = self.cutoff.unwrap_or(NO_CUTOFF);
        format!(
            "listed, begun after {begun_after}: UIDVALIDITY {uidvalidity}, cutoff {cutoff}, index \
             {index_id}, next UID {next_uid}, told below {told_below}.\n"
        )
    }

    /// What a line says; one that [`Mark::to_line`] has not made says that anything may have been told.
    pub fn of_line(line: &[u8]) -> Self {
        let text = std::str::from_utf8(line).unwrap_or_default();
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let mut read = || {
            let begun_after = number()?;
            let mut short = || number()?.try_into().ok();
            Some(Self {
                begun_after,
                uidvalidity: short()?,
                cutoff: short().map(|cutoff| (cutoff != NO_CUTOFF).then_some(cutoff))?,
                index_id: short()?,
                next_uid: short()?,
                told_below: short()?,
            })
        };
        read().filter(|mark| mark.to_line() == text).unwrap_or(Self::DAMAGED)
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
    /// The ledger as a file, and as what [`Answers`] serves from.
    pub fn encode(&self) -> Vec<u8> {
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by_key(|record| (record.uid, record.order));
        let heap_len: usize = records.iter().map(|r| r.uidl.as_bytes().len() + 1).sum();
        let mut file =
            Vec::with_capacity(front_len(records.len(), heap_len) + back_len(records.len()));
        file.extend(MAGIC);
        let cutoff = self.cutoff.unwrap_or(NO_CUTOFF);
        let numbers = [VERSION, self.uidvalidity, cutoff, self.next_order];
        put_all(&mut file, numbers.into_iter().chain([self.next_uid, self.told_below]));
        file.extend(self.begun_after.to_le_bytes());
        file.extend(self.user_digest.to_le_bytes());
        let counts = [
            self.index_id,
            u32::try_from(records.len()).expect("fewer messages than UIDs"),
            u32::try_from(heap_len).expect("a maildrop's UIDLs fit 4 GiB"),
        ];
        put_all(&mut file, counts);
        put_all(&mut file, records.iter().map(|r| r.uid));
        put_all(&mut file, records.iter().map(|r| r.order));
        let mut start = 0u32;
        put_all(
            &mut file,
            records.iter().map(|r| {
                let at = start;
                start += r.uidl.as_bytes().len() as u32 + 1;
                at
            }),
        );
        for record in &records {
            file.extend(record.name.unwrap_or_default());
        }
        file.extend(records.iter().map(|r| r.how.letter()));
        for record in &records {
            file.extend(record.uidl.as_bytes());
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

    /// What is noted of it in a second place.
    pub fn mark(&self) -> Mark {
        let Self { begun_after, uidvalidity, cutoff, index_id, next_uid, told_below, .. } = *self;
        Mark { begun_after, uidvalidity, cutoff, index_id, next_uid, told_below }
    }

    /// Reads a whole ledger file.
    ///
    /// # Errors
    ///
    /// [`Error`] when it is cut short, too long, damaged, or of another version.
    pub fn decode(file: &[u8]) -> Result<Self, Error> {
        let (front, back) = file.split_at(Answers::front_len(file, file.len() as u64)?);
        let front_digest = &front[front.len() - DIGEST_OCTETS..];
        let answers = Answers::read(front.to_vec())?;
        let header = answers.header;
        let (body, back_digest) = back.split_at(back.len() - DIGEST_OCTETS);
        if digest_of_back(front_digest, body) != back_digest {
            return Err(Error::Checksum { part: "back" });
        }
        let records = (0..header.count).map(|i| {
            let entry = u32_at(body, 4 * i);
            Record {
                uid: answers.uid(i),
                order: answers.order_number(i),
                uidl: Uidl::new(answers.uidl(i)).expect("checked by Answers::read"),
                how: answers.how(i),
                name: answers.name(i),
                entry: (entry != NO_ENTRY).then_some(entry),
            }
        });
        Ok(Self {
            user_digest: header.user_digest,
            uidvalidity: header.uidvalidity,
            cutoff: (header.cutoff != NO_CUTOFF).then_some(header.cutoff),
            next_order: header.next_order,
            index_id: header.index_id,
            next_uid: header.next_uid,
            told_below: header.told_below,
            begun_after: header.begun_after,
            records: records.collect(),
        })
    }

    /// The name of a message as records hold it.
    pub fn name_of(key: FileKey) -> [u8; NAME_OCTETS] {
        key.cut
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
        let header = Header::parse(start)?;
        let expected = (header.front_len() + back_len(header.count)) as u64;
        if file_len != expected {
            return Err(Error::Length { len: file_len, expected });
        }
        Ok(header.front_len())
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
        if front.len() != header.front_len() {
            return Err(length(front.len(), header.front_len()));
        }
        let (body, found) = front.split_at(front.len() - DIGEST_OCTETS);
        if digest(body) != found {
            return Err(Error::Checksum { part: "front" });
        }
        let answers = Self { front: front.into_boxed_slice(), header };
        answers.check()?;
        Ok(answers)
    }

    /// A checksum is no proof against the account's owner, who can write the file: nothing that is
    /// served later may lean on a field that was not looked at here.
    fn check(&self) -> Result<(), Error> {
        let bad = |record, field| Err(Error::Field { record, field });
        let heap = self.heap();
        let mut next_start = 0;
        for i in 0..self.header.count {
            // Bisections lean on this.
            let place = |i| (self.uid(i), self.order_number(i));
            let is_one_uid = |i| self.uid(i) == self.uid(i - 1) && self.uid(i) != 0;
            let ascends = i == 0 || (place(i) > place(i - 1) && !is_one_uid(i));
            if !ascends {
                return bad(i, "UID");
            }
            if !(1..self.header.next_order).contains(&self.order_number(i)) {
                return bad(i, "order number");
            }
            if How::of_letter(self.how_letter(i)).is_none() {
                return bad(i, "letter");
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
            return bad(self.header.count, "heap length");
        }
        Ok(())
    }

    /// The UIDVALIDITY that the UIDs go with.
    pub fn uidvalidity(&self) -> u32 {
        self.header.uidvalidity
    }

    /// Whether there is a [`Ledger::cutoff`].
    pub fn has_cutoff(&self) -> bool {
        self.header.cutoff != NO_CUTOFF
    }

    /// As [`Ledger::next_uid`].
    pub fn next_uid(&self) -> u32 {
        self.header.next_uid
    }

    /// As [`Ledger::user_digest`].
    pub fn user_digest(&self) -> u64 {
        self.header.user_digest
    }

    /// As [`Ledger::index_id`].
    pub fn index_id(&self) -> u32 {
        self.header.index_id
    }

    /// As [`Ledger::begun_after`].
    pub fn begun_after(&self) -> u64 {
        self.header.begun_after
    }

    /// How many messages clients were told of, with those long gone.
    pub fn len(&self) -> usize {
        self.header.count
    }

    /// Whether nothing was ever listed.
    pub fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// Where the message with this UID stands, if it was listed. `guess` is where to look first: one
    /// past the last answer, for a listing goes up by UID.
    pub fn find(&self, uid: u32, guess: usize) -> Option<usize> {
        if uid == 0 {
            return None;
        }
        if guess < self.header.count && self.uid(guess) == uid {
            return Some(guess);
        }
        let (mut low, mut high) = (0, self.header.count);
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
        let end = if i + 1 < self.header.count { self.start(i + 1) } else { self.header.heap_len };
        &self.heap()[start..end]
    }

    /// The order number of the record at `i`, from 1.
    pub fn order_number(&self, i: usize) -> u32 {
        u32_at(&self.front, HEADER_OCTETS + 4 * (self.header.count + i))
    }

    /// How the record at `i` came by its UIDL.
    pub fn how(&self, i: usize) -> How {
        How::of_letter(self.how_letter(i)).expect("checked by Answers::read")
    }

    /// The name of the message of the record at `i`, as [`Record::name`].
    pub fn name(&self, i: usize) -> Option<[u8; NAME_OCTETS]> {
        let start = HEADER_OCTETS + 12 * self.header.count + NAME_OCTETS * i;
        let name: [u8; NAME_OCTETS] =
            self.front[start..start + NAME_OCTETS].try_into().expect("16 octets");
        (name != [0; NAME_OCTETS]).then_some(name)
    }

    fn uid(&self, i: usize) -> u32 {
        u32_at(&self.front, HEADER_OCTETS + 4 * i)
    }

    fn start(&self, i: usize) -> usize {
        u32_at(&self.front, HEADER_OCTETS + 4 * (2 * self.header.count + i)) as usize
    }

    fn how_letter(&self, i: usize) -> u8 {
        self.front[HEADER_OCTETS + (FRONT_RECORD_OCTETS - 1) * self.header.count + i]
    }

    fn heap(&self) -> &[u8] {
        let start = HEADER_OCTETS + FRONT_RECORD_OCTETS * self.header.count;
        &self.front[start..start + self.header.heap_len]
    }
}

#[derive(Debug, Clone, Copy)]
struct Header {
    uidvalidity: u32,
    cutoff: u32,
    next_order: u32,
    next_uid: u32,
    told_below: u32,
    begun_after: u64,
    user_digest: u64,
    index_id: u32,
    count: usize,
    heap_len: usize,
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
        let header = Self {
            uidvalidity: u32_at(file, 12),
            cutoff: u32_at(file, 16),
            next_order: u32_at(file, 20),
            next_uid: u32_at(file, 24),
            told_below: u32_at(file, 28),
            begun_after: u64_at(file, 32),
            user_digest: u64_at(file, 40),
            index_id: u32_at(file, 48),
            count: u32_at(file, 52) as usize,
            heap_len: u32_at(file, 56) as usize,
        };
        if !(1..=MAX_NEXT_ORDER).contains(&header.next_order) {
            return Err(Error::Field { record: header.count, field: "next order number" });
        }
        let octets = header.front_len() as u64 + back_len(header.count) as u64;
        if octets > MAX_OCTETS {
            return Err(Error::Length { len: octets, expected: MAX_OCTETS });
        }
        Ok(header)
    }

    fn front_len(&self) -> usize {
        front_len(self.count, self.heap_len)
    }
}

/// Cannot overflow: both counts come from 32 bits.
const fn front_len(count: usize, heap_len: usize) -> usize {
    HEADER_OCTETS + FRONT_RECORD_OCTETS * count + heap_len + DIGEST_OCTETS
}

const fn back_len(count: usize) -> usize {
    BACK_RECORD_OCTETS * count + DIGEST_OCTETS
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

/// BLAKE3 of a user's name, cut to 64 bits.
pub fn user_digest(user: &str) -> u64 {
    u64_at(blake3::hash(user.as_bytes()).as_bytes(), 0)
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

    fn record(uid: u32, order: u32, uidl: &str, how: How) -> Record {
        Record {
            uid,
            order,
            uidl: Uidl::new(uidl.as_bytes()).unwrap(),
            how,
            name: (uid % 2 == 1).then_some([uid as u8; 16]),
            entry: how.is_kept().then_some(order - 1),
        }
    }

    fn sample() -> Ledger {
        Ledger {
            user_digest: user_digest("alice"),
            uidvalidity: 1_714_990_000,
            cutoff: Some(12),
            next_order: 6,
            index_id: 77,
            next_uid: 13,
            told_below: 4,
            begun_after: 0x0123_4567_89AB_CDEF,
            records: vec![
                record(0, 5, "UID9-17", How::File),
                record(3, 1, "UID3-17", How::File),
                record(7, 2, "~x", How::Derived),
                record(8, 4, "000000086638afc0", How::Format),
                record(12, 3, "UID3-17", How::Header),
            ],
        }
    }

    #[test]
    fn decode_is_the_inverse_of_encode() {
        let empty = Ledger { cutoff: Some(0), next_order: 1, records: Vec::new(), ..sample() };
        for ledger in [sample(), empty] {
            assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
        }
    }

    #[test]
    fn what_a_warm_login_looks_at_is_what_was_written() {
        let uncut = Ledger { cutoff: None, next_order: 1, records: Vec::new(), ..sample() };
        for ledger in [sample(), uncut] {
            let mut front = ledger.encode();
            let start = &front[..Answers::HEADER_OCTETS];
            front.truncate(Answers::front_len(start, front.len() as u64).unwrap());
            let answers = Answers::read(front).unwrap();
            assert_eq!(answers.uidvalidity(), ledger.uidvalidity);
            assert_eq!(answers.has_cutoff(), ledger.cutoff.is_some());
            assert_eq!(answers.next_uid(), ledger.next_uid);
            assert_eq!(answers.user_digest(), ledger.user_digest);
            assert_eq!(answers.index_id(), ledger.index_id);
            assert_eq!(answers.begun_after(), ledger.begun_after);
            assert_eq!(answers.len(), ledger.records.len());
            assert_eq!(answers.is_empty(), ledger.records.is_empty());
        }
    }

    #[test]
    fn a_ledger_names_its_user_by_the_first_octets_of_a_hash() {
        let hash = blake3::hash(b"alice");
        assert_eq!(user_digest("alice").to_le_bytes(), hash.as_bytes()[..8]);
        assert_eq!(sample().encode()[40..48], hash.as_bytes()[..8]);
    }

    #[test]
    fn a_uid_is_of_one_message_and_every_place_of_one_record() {
        let decoded = |records: &[(u32, u32)]| {
            let records = records.iter().map(|&(uid, order)| record(uid, order, "U", How::Stored));
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
        let start_of = |octets: u64, count: u32| {
            let empty = Ledger { next_order: 1, records: Vec::new(), ..sample() };
            let mut start = empty.encode();
            let heap_len =
                octets - (front_len(count as usize, 0) + back_len(count as usize)) as u64;
            start[52..56].copy_from_slice(&count.to_le_bytes());
            start[56..60].copy_from_slice(&(heap_len as u32).to_le_bytes());
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
    fn a_mark_is_read_as_it_was_written_and_a_damaged_one_admits_everything() {
        let mark = sample().mark();
        let line = mark.to_line();
        assert!(line.len() <= Mark::MAX_LINE_OCTETS);
        assert_eq!(Mark::of_line(line.as_bytes()), mark);
        for at in 0..line.len() {
            assert_eq!(Mark::of_line(&line.as_bytes()[..at]), Mark::DAMAGED, "cut at {at}");
        }
        assert_eq!(Mark::of_line(b"1 2 3 4"), Mark::DAMAGED);
        assert_eq!(Mark::of_line(b"\xFF"), Mark::DAMAGED);
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
        let heap = HEADER_OCTETS + FRONT_RECORD_OCTETS * 5;
        assert!(matches!(forged(&|f| f[heap] = b'\n'), Err(Error::Field { field: "UIDL", .. })));
        assert!(matches!(forged(&|f| f[heap + 7] = b'x'), Err(Error::Field { .. })));
        let last = |f: &mut Vec<u8>| {
            let at = f.len() - 1;
            f[at] = b'x';
        };
        assert!(matches!(forged(&last), Err(Error::Field { field: "UIDL end", .. })));
        for (offset, field) in [(4 * 2, "UID"), (4 * 5, "order number"), (4 * 11, "UIDL offset")] {
            let wild = |f: &mut Vec<u8>| f[HEADER_OCTETS + offset..][..4].fill(0xFF);
            assert!(
                matches!(forged(&wild), Err(Error::Field { field: f, .. }) if f == field || offset == 8)
            );
        }
        assert!(matches!(
            forged(&|f| f[heap - 1] = b'?'),
            Err(Error::Field { field: "letter", .. })
        ));
        for count_at in [52, 56] {
            let huge = |f: &mut Vec<u8>| f[count_at..count_at + 4].fill(0xFF);
            assert!(matches!(forged(&huge), Err(Error::Length { .. })));
        }
    }
}
