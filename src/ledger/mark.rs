//! A second note of what a ledger says: [`Mark`].
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::epoch::{Epoch, MAX_TOLD, Told};
use super::record::NameHash;
use super::whole::{AnyLedger, MAX_NEXT_ORDER};

/// The note of a ledger in the lock's file. With it a lost ledger is told from one that never was,
/// and a ledger that was put back from a backup from the last one.
///
/// The file has [`Mark::OCTETS`] octets from its making on, so that a mark overwrites and needs no
/// room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// As [`Ledger::begun_after`](super::Ledger::begun_after).
    pub begun_after: u64,
    /// As [`Ledger::next_order`](super::Ledger::next_order).
    pub next_order: u32,
    /// As [`Ledger::epoch`](super::Ledger::epoch).
    pub epoch: Epoch,
    /// The UID of the last message that was there when this was written; 0: none was.
    pub last_uid: u32,
    /// Its first name; zeros: none.
    pub last_name: NameHash,
    /// UID and first name of the last new messages that were there and had native UIDLs, by UID, at
    /// most [`Mark::NATIVES`]. Messages without a name are left out.
    pub natives: Vec<(u32, NameHash)>,
    /// Whether a message that was there then had a derived UIDL. Only the ledger knows which one.
    pub has_derived: bool,
    /// Whether storage has all that was listed, but for what [`Mark::natives`] has. `false`: a bake
    /// has not said so, or the storage has no place for it.
    pub is_baked: bool,
    /// How many messages the last POP3 session left in the maildrop.
    pub left: u32,
    /// As [`Ledger::restored`](super::Ledger::restored).
    pub restored: u64,
    /// As [`Ledger::unguarded`](super::Ledger::unguarded).
    pub unguarded: u64,
    /// As [`Ledger::rehearsal`](super::Ledger::rehearsal).
    pub rehearsal: u64,
    /// As [`Ledger::told`](super::Ledger::told). `None`: the mark is damaged, and any number may
    /// have been told.
    pub told: Option<Vec<Told>>,
}

impl Mark {
    /// The octets of the lock's file.
    pub const OCTETS: usize = 4096;

    /// How many new messages are remembered one by one. Their UIDLs are safe here before they stand
    /// with the mail.
    pub const NATIVES: usize = 16;

    /// The mark of a ledger that is not baked, where the last session left so many messages.
    pub fn of(ledger: &impl AnyLedger, left: u32) -> Self {
        let last = ledger.records().next_back().filter(|record| record.uid != 0);
        let mut natives: Vec<(u32, NameHash)> = ledger
            .last_natives()
            .filter_map(|record| Some((record.uid, *record.names.first()?)))
            .collect();
        natives.reverse();
        let head = ledger.head();
        Self {
            has_derived: ledger.has_derived(),
            last_uid: last.as_ref().map_or(0, |record| record.uid),
            last_name: last.and_then(|record| record.names.first().copied()).unwrap_or_default(),
            natives,
            begun_after: head.begun_after,
            next_order: head.next_order,
            epoch: head.epoch,
            is_baked: false,
            left,
            restored: head.restored,
            unguarded: head.unguarded,
            rehearsal: head.rehearsal,
            told: Some(ledger.told().to_vec()),
        }
    }

    /// Says whether the message with this UID was listed under this name as new, with its native
    /// UIDL.
    pub fn was_native(&self, uidvalidity: u32, uid: u32, name: NameHash) -> bool {
        self.epoch.uidvalidity == uidvalidity && self.natives.contains(&(uid, name))
    }

    /// A mark that was damaged or cannot be read: anything may have been told.
    pub fn damaged() -> Self {
        Self {
            begun_after: 0,
            next_order: 0,
            epoch: Epoch::default(),
            last_uid: 0,
            last_name: NameHash::default(),
            natives: Vec::new(),
            has_derived: false,
            is_baked: false,
            left: 0,
            restored: 0,
            unguarded: 0,
            rehearsal: 0,
            told: None,
        }
    }

    /// Makes the whole content of the lock's file: a line of text, and blanks up to a last line
    /// end. A damaged mark stays damaged.
    pub fn to_file(&self) -> Vec<u8> {
        let mut line = String::with_capacity(Self::OCTETS);
        let Self { begun_after, next_order, last_uid, left, restored, .. } = self;
        let Self { unguarded, rehearsal, .. } = self;
        let Epoch { uidvalidity, next_uid, index_id } = self.epoch;
        let last_name = u64::from_be_bytes(self.last_name);
        let (has_derived, is_baked) = (u8::from(self.has_derived), u8::from(self.is_baked));
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "listed, begun after {begun_after}, next order {next_order}: UIDVALIDITY \
             {uidvalidity}, next UID {next_uid}, index {index_id}, last UID {last_uid} \
             named {last_name}, derived {has_derived}, baked {is_baked}, left {left}, restored \
             {restored}, unguarded {unguarded}, rehearsal {rehearsal}, new",
        );
        for (uid, name) in &self.natives[self.natives.len().saturating_sub(Self::NATIVES)..] {
            let _ = write!(line, " {uid}:{}", u64::from_be_bytes(*name));
        }
        line.push_str(", told");
        match &self.told {
            Some(told) => {
                for Told { uidvalidity, below } in &told[told.len().saturating_sub(MAX_TOLD)..] {
                    let _ = write!(line, " {uidvalidity}:{below}");
                }
            }
            None => line.push_str(" anything"),
        }
        let check = check(&line);
        let _ = write!(line, " {check:016x}");
        let mut file = line.into_bytes();
        file.resize(Self::OCTETS - 1, b' ');
        file.push(b'\n');
        file
    }

    /// Reads the lock's file. `None`: nothing was noted yet. Where [`Mark::to_file`] has not made
    /// it, anything may have been told.
    pub fn of_file(file: &[u8]) -> Option<Self> {
        let text = file.trim_ascii_end();
        if text.is_empty() {
            return None;
        }
        Some(Self::parse(text).unwrap_or_else(Self::damaged))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (line, stored) = text.rsplit_once(' ')?;
        if format!("{:016x}", check(line)) != stored {
            return None;
        }
        let (line, told) = line.split_once(", told")?;
        let (head, natives) = line.split_once(", new")?;
        let mut numbers = head.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let mut long = || number();
        let begun_after = long()?;
        let mut short = || u32::try_from(number()?).ok();
        let next_order = short()?;
        let epoch = Epoch { uidvalidity: short()?, next_uid: short()?, index_id: short()? };
        let last_uid = short()?;
        let last_name = number()?.to_be_bytes();
        let (has_derived, is_baked) = (number()? != 0, number()? != 0);
        let left = u32::try_from(number()?).ok()?;
        let (restored, unguarded, rehearsal) = (number()?, number()?, number()?);
        let pairs =
            |text: &str| text.split_ascii_whitespace().map(pair).collect::<Option<Vec<_>>>();
        let natives = pairs(natives)?.into_iter().map(|(uid, name)| (uid, name.to_be_bytes()));
        let told = match told {
            " anything" => None,
            told => Some(pairs(told)?.into_iter().map(as_told).collect::<Option<_>>()?),
        };
        if next_order > MAX_NEXT_ORDER {
            return None;
        }
        Some(Self {
            begun_after,
            next_order,
            epoch,
            last_uid,
            last_name,
            natives: natives.collect(),
            has_derived,
            is_baked,
            left,
            restored,
            unguarded,
            rehearsal,
            told,
        })
    }
}

fn pair(word: &str) -> Option<(u32, u64)> {
    let (left, right) = word.split_once(':')?;
    Some((left.parse().ok()?, right.parse().ok()?))
}

fn as_told((uidvalidity, below): (u32, u64)) -> Option<Told> {
    Some(Told { uidvalidity, below: u32::try_from(below).ok()? })
}

/// BLAKE3 of the line, cut to 64 bits. A write that was broken off must not be believed.
fn check(line: &str) -> u64 {
    let hash = blake3::hash(line.as_bytes());
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("a digest is longer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(told: usize) -> Mark {
        let told = (0..told as u32).map(|n| Told { uidvalidity: u32::MAX - n, below: u32::MAX });
        Mark {
            begun_after: u64::MAX,
            next_order: 1 << 31,
            epoch: Epoch { uidvalidity: 17, next_uid: 9, index_id: 3 },
            last_uid: 8,
            last_name: *b"\xFF1234567",
            natives: vec![(u32::MAX, *b"\xFF1234567"); Mark::NATIVES],
            has_derived: true,
            is_baked: true,
            left: 4,
            restored: 5,
            unguarded: u64::MAX,
            rehearsal: u64::MAX,
            told: Some(told.collect()),
        }
    }

    #[test]
    fn a_mark_is_read_as_it_was_written_and_always_as_long() {
        for told in [0, 1, MAX_TOLD] {
            let mark = mark(told);
            let file = mark.to_file();
            assert_eq!(file.len(), Mark::OCTETS);
            assert_eq!(Mark::of_file(&file), Some(mark));
        }
        let damaged = Mark::damaged();
        assert_eq!(Mark::of_file(&damaged.to_file()), Some(damaged));
    }

    #[test]
    fn of_more_uidvalidities_than_there_is_room_for_the_last_are_kept() {
        let kept = Mark::of_file(&mark(MAX_TOLD + 1).to_file()).unwrap().told.unwrap();
        assert_eq!(kept[..], mark(MAX_TOLD + 1).told.unwrap()[1..]);
    }

    #[test]
    fn a_damaged_mark_admits_everything_and_a_blank_file_says_nothing() {
        let file = mark(2).to_file();
        let text = file.trim_ascii_end();
        for at in 0..text.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert_eq!(Mark::of_file(&damaged), Some(Mark::damaged()), "octet {at}");
            let cut = Mark::of_file(&file[..at]);
            assert_eq!(cut, (at > 0).then(Mark::damaged), "cut at {at}");
        }
        assert_eq!(Mark::of_file(&vec![b' '; Mark::OCTETS]), None);
        assert_eq!(Mark::of_file(b"\xFF"), Some(Mark::damaged()));
    }
}
