//! What a session answers from: [`LedgerFront`].
#![forbid(unsafe_code)]

use super::epoch::{TOLD_OCTETS, Told};
use super::layout::{
    DIGEST_OCTETS, FRONT_RECORD_OCTETS, HEADER_OCTETS, LedgerError, LedgerHeader, NO_ENTRY, digest,
    digest_of_back, length, u32_at,
};
use super::mark::Mark;
use super::record::{NAME_OCTETS, NO_NAME, NameHash, Provenance, RecordRef};
use super::whole::{LedgerHead, LedgerRef};
use crate::uidl::Uidl;

/// What a session answers from: the front of a ledger, checked once, then only looked up.
///
/// UIDLs stay where they lie in the buffer, each closed by a NUL, so that a C caller gets the very
/// octets. The buffer never changes and never moves.
#[derive(Debug)]
pub struct LedgerFront {
    octets: Box<[u8]>,
    header: LedgerHeader,
}

impl LedgerFront {
    /// The length of the front, from the first [`LedgerFront::HEADER_OCTETS`] of the file.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when they are not the start of a ledger of a size we accept.
    pub fn front_len(start: &[u8], file_len: u64) -> Result<usize, LedgerError> {
        let LedgerHeader { lengths, .. } = LedgerHeader::parse(start)?;
        let expected = (lengths.front() + lengths.back()) as u64;
        if file_len != expected {
            return Err(LedgerError::Length { len: file_len, expected });
        }
        Ok(lengths.front())
    }

    /// How many octets [`LedgerFront::front_len`] needs.
    pub const HEADER_OCTETS: usize = HEADER_OCTETS;

    /// Takes the front of a ledger, after a check of every octet.
    ///
    /// # Errors
    ///
    /// As [`Ledger::decode`](super::Ledger::decode).
    pub fn read(front: Vec<u8>) -> Result<Self, LedgerError> {
        let header = LedgerHeader::parse(&front)?;
        if front.len() != header.lengths.front() {
            return Err(length(front.len(), header.lengths.front()));
        }
        let (body, found) = front.split_at(front.len() - DIGEST_OCTETS);
        if digest(body) != found {
            return Err(LedgerError::Checksum { part: "front" });
        }
        let front = Self { octets: front.into_boxed_slice(), header };
        front.check()?;
        Ok(front)
    }

    /// Takes the front of a ledger that was encoded just now. Its digest need not be computed
    /// again.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] where there is too much of it, or it could not be read again.
    pub fn of_encoded(mut file: Vec<u8>) -> Result<Self, LedgerError> {
        file.truncate(Self::front_len(&file, file.len() as u64)?);
        let header = LedgerHeader::parse(&file)?;
        let front = Self { octets: file.into_boxed_slice(), header };
        front.check()?;
        Ok(front)
    }

    /// The place of the back in the file, and its length.
    pub fn back_range(&self) -> (u64, usize) {
        (self.octets.len() as u64, self.header.lengths.back())
    }

    /// The whole ledger, from this front and its back.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the back is not the one of this front, or is damaged.
    pub fn ledger(&self, back: &[u8]) -> Result<LedgerRef<'_>, LedgerError> {
        if back.len() != self.header.lengths.back() {
            return Err(length(back.len(), self.header.lengths.back()));
        }
        let front_digest = &self.octets[self.octets.len() - DIGEST_OCTETS..];
        let (body, back_digest) = back.split_at(back.len() - DIGEST_OCTETS);
        if digest_of_back(front_digest, body) != back_digest {
            return Err(LedgerError::Checksum { part: "back" });
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

    /// The account's owner can write the file and its checksum. So nothing that is served later may
    /// lean on a field that was not checked here.
    fn check(&self) -> Result<(), LedgerError> {
        let bad = |record, field| Err(LedgerError::Field { record, field });
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
    pub fn head(&self) -> LedgerHead {
        self.header.head
    }

    /// As [`Ledger::user`](super::Ledger::user).
    pub fn user(&self) -> &str {
        std::str::from_utf8(self.user_octets()).expect("checked by LedgerFront::read")
    }

    /// As [`Ledger::told`](super::Ledger::told).
    pub fn told(&self) -> impl Iterator<Item = Told> + '_ {
        let start = HEADER_OCTETS + self.header.lengths.user;
        (0..self.header.lengths.told).map(move |at| {
            let at = start + TOLD_OCTETS * at;
            Told { uidvalidity: u32_at(&self.octets, at), below: u32_at(&self.octets, at + 4) }
        })
    }

    /// How many messages clients were told of, those that are long gone too.
    pub fn len(&self) -> usize {
        self.header.lengths.records
    }

    /// Says whether nothing was ever listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the message with this UID, if it was listed. It looks at `guess` first: callers
    /// give one past the last answer, for a listing goes up by UID.
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
        u32_at(&self.octets, self.records_at() + 4 * (self.len() + i))
    }

    /// How the record at `i` came by its UIDL.
    pub fn provenance(&self, i: usize) -> Provenance {
        Provenance::of_letter(self.letter(i)).expect("checked by LedgerFront::read")
    }

    /// The names of the message of the record at `i`, as [`Record::names`](super::Record::names).
    pub fn names(&self, i: usize) -> impl Iterator<Item = NameHash> + '_ {
        [0, 1].into_iter().map(move |place| self.name_at(place, i)).filter(|name| *name != NO_NAME)
    }

    /// Says whether the record at `i` is one of the last new messages. These are not baked at once,
    /// for the mark has them.
    pub fn may_be_unbaked(&self, i: usize) -> bool {
        let is_native = |i: &usize| self.provenance(*i) == Provenance::Native && self.uid(*i) != 0;
        is_native(&i) && (i + 1..self.len()).filter(is_native).nth(Mark::NATIVES - 1).is_none()
    }

    fn name_at(&self, place: usize, i: usize) -> NameHash {
        let start = self.records_at() + 12 * self.len() + NAME_OCTETS * (place * self.len() + i);
        self.octets[start..start + NAME_OCTETS].try_into().expect("8 octets")
    }

    /// The UID of the record at `i`; 0: its message was gone.
    pub fn uid(&self, i: usize) -> u32 {
        u32_at(&self.octets, self.records_at() + 4 * i)
    }

    fn user_octets(&self) -> &[u8] {
        &self.octets[HEADER_OCTETS..HEADER_OCTETS + self.header.lengths.user]
    }

    fn records_at(&self) -> usize {
        HEADER_OCTETS + self.header.lengths.user + TOLD_OCTETS * self.header.lengths.told
    }

    fn start(&self, i: usize) -> usize {
        u32_at(&self.octets, self.records_at() + 4 * (2 * self.len() + i)) as usize
    }

    fn letter(&self, i: usize) -> u8 {
        self.octets[self.records_at() + (FRONT_RECORD_OCTETS - 1) * self.len() + i]
    }

    fn heap(&self) -> &[u8] {
        let start = self.records_at() + FRONT_RECORD_OCTETS * self.len();
        &self.octets[start..start + self.header.lengths.heap]
    }
}
