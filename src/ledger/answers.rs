//! What a session answers from: [`Answers`].
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::ops::Range;

use super::layout::{ANSWER_OCTETS, u32_at};

/// What a session answers from: UID, order number and UIDL of every message of a ledger.
///
/// They stay where they lie in the file that was read: 12 octets a message beside the UIDLs. Each
/// UIDL is closed by a NUL, so that a C caller gets the very octets.
#[derive(Debug)]
pub struct Answers {
    pub(super) octets: Vec<u8>,
    /// How many records there are.
    pub(super) records: usize,
    /// Where their UIDs, order numbers and starts begin in `octets`.
    pub(super) records_at: usize,
    /// The octets of the UIDLs.
    pub(super) heap: usize,
}

impl Answers {
    /// Drops all that stands behind. The little that stands before stays: nothing is moved.
    pub(super) fn alone(mut self) -> Self {
        self.octets.truncate(self.heap_end());
        self.octets.shrink_to_fit();
        self
    }

    /// The octets that it keeps.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.octets.capacity()
    }

    /// How many messages clients were told of, those that are long gone too.
    pub fn len(&self) -> usize {
        self.records
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

    /// The UID of the record at `i`; 0: its message was gone.
    pub fn uid(&self, i: usize) -> u32 {
        u32_at(&self.octets, self.records_at + 4 * i)
    }

    /// The order number of the record at `i`, from 1.
    pub fn order_number(&self, i: usize) -> u32 {
        u32_at(&self.octets, self.records_at + 4 * (self.records + i))
    }

    /// The UIDL of the record at `i`.
    pub fn uidl(&self, i: usize) -> &[u8] {
        let with_nul = self.with_nul(i);
        &with_nul[..with_nul.len() - 1]
    }

    /// The same for C.
    pub fn uidl_for_c(&self, i: usize) -> &CStr {
        CStr::from_bytes_with_nul(self.with_nul(i)).expect("one NUL, which closes it: checked")
    }

    /// The same with the one NUL that closes it.
    pub fn with_nul(&self, i: usize) -> &[u8] {
        &self.heap()[self.start(i)..self.end(i)]
    }

    /// Where the NUL of the UIDL of the record at `i` ends in the heap.
    pub(super) fn end(&self, i: usize) -> usize {
        if i + 1 < self.records { self.start(i + 1) } else { self.heap }
    }

    pub(super) fn start(&self, i: usize) -> usize {
        u32_at(&self.octets, self.records_at + 4 * (2 * self.records + i)) as usize
    }

    /// The highest UID; 0: no message was there.
    pub fn last_uid(&self) -> u32 {
        self.len().checked_sub(1).map_or(0, |last| self.uid(last))
    }

    /// Says whether a message has, or had, this UIDL.
    pub fn has_uidl(&self, uidl: &[u8]) -> bool {
        (0..self.len()).any(|i| self.uidl(i) == uidl)
    }

    /// The UIDs of all records.
    pub(super) fn uids(&self) -> &[u8] {
        &self.octets[self.records_at..][..4 * self.records]
    }

    /// Their order numbers.
    pub(super) fn order_numbers(&self) -> &[u8] {
        &self.octets[self.records_at + 4 * self.records..][..4 * self.records]
    }

    /// Where their UIDLs start in the heap.
    pub(super) fn starts(&self) -> &[u8] {
        &self.octets[self.records_at + 8 * self.records..][..4 * self.records]
    }

    /// Where the UIDLs of the records at these places lie in the heap.
    pub(super) fn heap_of(&self, places: &Range<usize>) -> Range<usize> {
        if places.is_empty() {
            return 0..0;
        }
        self.start(places.start)..self.end(places.end - 1)
    }

    pub(super) fn heap(&self) -> &[u8] {
        &self.octets[self.heap_at()..self.heap_end()]
    }

    /// Where the UIDLs begin in `octets`: right behind the columns.
    fn heap_at(&self) -> usize {
        self.records_at + ANSWER_OCTETS * self.records
    }

    /// Where they end.
    pub(super) fn heap_end(&self) -> usize {
        self.heap_at() + self.heap
    }
}
