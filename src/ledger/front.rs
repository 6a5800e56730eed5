//! What a login needs of a ledger: [`LedgerFront`].
#![forbid(unsafe_code)]

use super::answers::Answers;
use super::checksum::{CHECKSUM_OCTETS, Checksum};
use super::epoch::{TOLD_OCTETS, Told};
use super::in_file::LedgerFile;
use super::layout::{
    BACK_RECORD_OCTETS, HEADER_OCTETS, LedgerError, LedgerHeader, Lengths, REHEARSAL, length,
    u32_at,
};
use super::listed_names::ListedNames;
use super::mark::Mark;
use super::record::{NAME_OCTETS, NO_NAME, NameHash, Provenance};
use super::unclaimed::UnclaimedKeys;
use super::whole::LedgerHead;
use crate::uidl::Uidl;

/// What a login needs of a ledger: its front, checked once, then only looked up.
#[derive(Debug)]
pub struct LedgerFront {
    answers: Answers,
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
        let (body, found) = front.split_at(front.len() - 2 * CHECKSUM_OCTETS);
        if Checksum::of(body) != found[..CHECKSUM_OCTETS] {
            return Err(LedgerError::Checksum { part: "front" });
        }
        Self::checked(front, header)
    }

    /// Takes the front of a ledger that was encoded just now, and the back. Its checksum need not
    /// be computed again.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] where there is too much of it, or it could not be read again.
    pub fn of_encoded(mut file: Vec<u8>) -> Result<(Self, Vec<u8>), LedgerError> {
        let back = file.split_off(Self::front_len(&file, file.len() as u64)?);
        Ok((Self::with_its_checksum(file)?, back))
    }

    /// Takes a front whose checksum was computed just now. Its fields are checked.
    pub(super) fn with_its_checksum(front: Vec<u8>) -> Result<Self, LedgerError> {
        let header = LedgerHeader::parse(&front)?;
        Self::checked(front, header)
    }

    fn checked(octets: Vec<u8>, header: LedgerHeader) -> Result<Self, LedgerError> {
        let Lengths { user, told, records, heap, .. } = header.lengths;
        let records_at = HEADER_OCTETS + user + TOLD_OCTETS * told;
        let front = Self { answers: Answers { octets, records, records_at, heap }, header };
        front.check()?;
        Ok(front)
    }

    /// What a session answers from.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// The same alone: all else is dropped.
    pub fn into_answers(self) -> Answers {
        self.answers.alone()
    }

    /// The place of the back in the file, and its length.
    pub fn back_range(&self) -> (u64, usize) {
        (self.octets().len() as u64, self.header.lengths.back())
    }

    /// The whole ledger, from this front and its back.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the back is not the one of this front, or is damaged.
    pub fn ledger<'a>(&'a self, back: &'a [u8]) -> Result<LedgerFile<'a>, LedgerError> {
        let body = self.body_of(back)?;
        let count = self.answers.len();
        let (entries, keys) = body.split_at(BACK_RECORD_OCTETS * count);
        let unclaimed = UnclaimedKeys::of_octets(keys, self.header.reads)
            .ok_or(LedgerError::Field { record: count, field: "order of unclaimed keys" })?;
        Ok(LedgerFile { front: self, told: self.told().collect(), entries, unclaimed })
    }

    /// What stands in the back before its checksum, which must be right.
    fn body_of<'b>(&self, back: &'b [u8]) -> Result<&'b [u8], LedgerError> {
        if back.len() != self.header.lengths.back() {
            return Err(length(back.len(), self.header.lengths.back()));
        }
        let front_checksum = &self.octets()[self.body_len()..][..CHECKSUM_OCTETS];
        let (body, back_checksum) = back.split_at(back.len() - CHECKSUM_OCTETS);
        if Checksum::of_two(front_checksum, body) != back_checksum {
            return Err(LedgerError::Checksum { part: "back" });
        }
        Ok(body)
    }

    /// Says in both parts that a client was told what only a rehearsal had listed
    /// ([`LedgerHead::rehearsal`]). All else stays, octet for octet, but for the checksums.
    ///
    /// # Errors
    ///
    /// As [`LedgerFront::ledger`]. Then nothing was changed.
    pub fn end_rehearsal(&mut self, back: &mut [u8]) -> Result<(), LedgerError> {
        let back_body = self.body_of(back)?.len();
        self.header.head.rehearsal = 0;
        let front_body = self.body_len();
        let octets = &mut self.answers.octets;
        octets[REHEARSAL].fill(0);
        let front_checksum = Checksum::of(&octets[..front_body]);
        octets[front_body..][..CHECKSUM_OCTETS].copy_from_slice(&front_checksum);
        let back_checksum = Checksum::of_two(&front_checksum, &back[..back_body]);
        back[back_body..].copy_from_slice(&back_checksum);
        Ok(())
    }

    /// The account's owner can write the file and its checksum. So nothing that is served later may
    /// lean on a field that was not checked here.
    fn check(&self) -> Result<(), LedgerError> {
        let bad = |record, field| Err(LedgerError::Field { record, field });
        if std::str::from_utf8(self.user_octets()).is_err() {
            return bad(0, "user name");
        }
        let (answers, heap) = (&self.answers, self.answers.heap());
        // Column by column, and no record is put together.
        let (uids, orders) = (numbers(answers.uids()), numbers(answers.order_numbers()));
        let mut before = (0, 0);
        for (i, place @ (uid, order)) in uids.zip(orders).enumerate() {
            // Bisections lean on this.
            let is_one_uid = uid == before.0 && uid != 0;
            if place <= before || is_one_uid {
                return bad(i, "UID");
            }
            if !(1..self.header.head.next_order).contains(&order) {
                return bad(i, "order number");
            }
            before = place;
        }
        let is_bad = |letter: &u8| Provenance::of_letter(*letter).is_none();
        if let Some(i) = self.letters().iter().position(is_bad) {
            return bad(i, "letter");
        }
        let [first, second] =
            [0, 1].map(|place| self.names_column(place).chunks_exact(NAME_OCTETS));
        let is_bad = |(first, second): (&[u8], &[u8])| first == NO_NAME && second != NO_NAME;
        if let Some(i) = first.zip(second).position(is_bad) {
            return bad(i, "name");
        }
        let ends = numbers(answers.starts()).skip(1).map(|start| start as usize);
        let mut next_start = 0;
        for (i, (start, end)) in numbers(answers.starts()).zip(ends.chain([heap.len()])).enumerate()
        {
            let start = start as usize;
            if start != next_start || !(start + 1..=heap.len()).contains(&end) {
                return bad(i, "UIDL offset");
            }
            if heap[end - 1] != 0 {
                return bad(i, "UIDL end");
            }
            if !(1..=Uidl::MAX_OCTETS).contains(&(end - 1 - start)) {
                return bad(i, "UIDL length");
            }
            next_start = end;
        }
        if next_start != heap.len() {
            return bad(answers.len(), "heap length");
        }
        // Each UIDL is closed by an octet that no UIDL has, and there are no more of these.
        if not_of_uidls(heap) != answers.len() {
            let is_bad = |i: &usize| Uidl::check(answers.uidl(*i)).is_err();
            return bad((0..answers.len()).find(is_bad).unwrap_or(answers.len()), "UIDL");
        }
        Ok(())
    }

    /// Where the checksum begins.
    fn body_len(&self) -> usize {
        self.octets().len() - 2 * CHECKSUM_OCTETS
    }

    /// Says whether the messages that were there have these UIDs and names still. If not, their
    /// names must be compared one by one, or a message has gone.
    pub fn has_listed(&self, names: &ListedNames) -> bool {
        self.octets().ends_with(&names.digest())
    }

    /// Notes the names of the messages that are there.
    pub fn set_listed(&mut self, names: &ListedNames) {
        let at = self.octets().len() - CHECKSUM_OCTETS;
        self.answers.octets[at..].copy_from_slice(&names.digest());
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
            Told { uidvalidity: u32_at(self.octets(), at), below: u32_at(self.octets(), at + 4) }
        })
    }

    /// How the record at `i` came by its UIDL.
    pub fn provenance(&self, i: usize) -> Provenance {
        Provenance::of_letter(self.letter(i)).expect("checked by LedgerFront::read")
    }

    /// The names of the message of the record at `i`, as [`Record::names`](super::Record::names).
    pub fn names(&self, i: usize) -> impl Iterator<Item = NameHash> + '_ {
        [0, 1].into_iter().map(move |place| self.name_at(place, i)).filter(|name| *name != NO_NAME)
    }

    /// Says whether a record has this name.
    pub fn has_name(&self, name: NameHash) -> bool {
        let has = |column: &[u8]| column.chunks_exact(NAME_OCTETS).any(|other| other == name);
        [0, 1].into_iter().any(|place| has(self.names_column(place)))
    }

    /// The places of the last new messages, the newest first. These are not baked at once, for the
    /// mark has them.
    pub fn last_natives(&self) -> impl Iterator<Item = usize> + '_ {
        memchr::memrchr_iter(Provenance::Native.letter(), self.letters())
            .take_while(|i| self.answers.uid(*i) != 0)
            .take(Mark::NATIVES)
    }

    fn name_at(&self, place: usize, i: usize) -> NameHash {
        let start = self.answers.heap_end() + NAME_OCTETS * (place * self.answers.len() + i);
        self.octets()[start..start + NAME_OCTETS].try_into().expect("8 octets")
    }

    /// The first names of all records, or the second ones.
    pub(super) fn names_column(&self, place: usize) -> &[u8] {
        let octets = NAME_OCTETS * self.answers.len();
        &self.octets()[self.answers.heap_end() + octets * place..][..octets]
    }

    fn user_octets(&self) -> &[u8] {
        &self.octets()[HEADER_OCTETS..HEADER_OCTETS + self.header.lengths.user]
    }

    fn letter(&self, i: usize) -> u8 {
        let letters = self.body_len() - self.answers.len();
        self.octets()[letters + i]
    }

    /// The letters of all records.
    pub(super) fn letters(&self) -> &[u8] {
        &self.octets()[self.body_len() - self.answers.len()..self.body_len()]
    }

    /// The octets of the file up to the back.
    pub fn octets(&self) -> &[u8] {
        &self.answers.octets
    }
}

/// The numbers of a column.
fn numbers(column: &[u8]) -> impl Iterator<Item = u32> + '_ {
    column.chunks_exact(4).map(|octets| u32::from_le_bytes(octets.try_into().expect("4 octets")))
}

/// How many of these octets no UIDL has. They are counted many in a step.
fn not_of_uidls(octets: &[u8]) -> usize {
    let count = |few: &[u8]| -> u8 {
        few.iter().map(|octet| u8::from(!matches!(octet, 0x21..=0x7E))).sum()
    };
    octets.chunks(u8::MAX.into()).map(|few| usize::from(count(few))).sum()
}
