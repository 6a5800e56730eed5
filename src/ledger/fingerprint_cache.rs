//! Fingerprints of messages that were read, saved in steps. A resolution that was broken off goes
//! on where it stood.
//!
//! The file `uidl-keep.prints` lies beside the ledger, and is taken away once the ledger is
//! written. It is a cache: records that are damaged or of another version are found out again.
//! Numbers are little-endian. A head of 20 octets (magic 89 55 4B 50 0D 0A 1A 0A, version of this
//! form, version of the normaliser, UIDVALIDITY) is followed by records of 112 octets, appended as
//! they are found. To the version of the normaliser 256 is added where `origin` was not looked for:
//!
//! ```text
//! offset  size  field
//! 0       4     UID
//! 4       4     flags: 1 header, 2 origin, 4 message read whole, 8 message, 16 octets, 32 the
//!               header names the message, 64 it does without what relays add, 128 body
//! 8       8     octets, with CRLF line ends
//! 16      16    first name of the message, as [`FileKey::cut`](crate::key::FileKey); zeros: none
//! 32      16    header fingerprint
//! 48      16    origin fingerprint
//! 64      16    message fingerprint
//! 80      16    body fingerprint
//! 96      16    BLAKE3 of the head and the 96 octets before this, cut to 128 bits
//! ```
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};

use super::control::{Control, ControlLock};
use crate::key::{Fingerprint, NORMALISER_VERSION};

const MAGIC: [u8; 8] = *b"\x89UKP\r\n\x1a\n";
const VERSION: u32 = 1;
const NAME_OCTETS: usize = 16;
const HEAD_OCTETS: usize = 20;
const BODY_OCTETS: usize = 96;
const RECORD_OCTETS: usize = 112;
/// How many records are saved in one step.
const STEP: usize = 128;
/// The most records that a message can have: one of its header, one of all of it, and one that a
/// login appended before it was broken off.
const MOST_A_MESSAGE: u64 = 3;

/// What reading one message has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CachedFingerprints {
    /// The `header` key, if it has a header.
    pub header: Option<Fingerprint>,
    /// The `origin` key, if it has one.
    pub origin: Option<Fingerprint>,
    /// Whether the header names the message.
    pub names_itself: bool,
    /// Whether the header names the message without what relays add.
    pub origin_names_itself: bool,
    /// The fingerprint of the body alone, where all of it was read.
    pub body: Option<Fingerprint>,
    /// The `message` key.
    pub message: MessageKey,
    /// Its size with CRLF line ends, where that was asked for.
    pub octets: Option<u64>,
}

/// The `message` key of a message, which only reading all of it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MessageKey {
    /// Not all of the message was read.
    #[default]
    NotRead,
    /// All of it was read, and it has none.
    Absent,
    /// All of it was read.
    Is(Fingerprint),
}

impl MessageKey {
    /// What reading all of a message has told.
    pub fn found(key: Option<Fingerprint>) -> Self {
        key.map_or(Self::Absent, Self::Is)
    }

    /// Says whether all of the message was read.
    pub fn is_read(self) -> bool {
        self != Self::NotRead
    }

    /// The key, where the message was read and has one.
    pub fn get(self) -> Option<Fingerprint> {
        match self {
            Self::Is(key) => Some(key),
            Self::NotRead | Self::Absent => None,
        }
    }
}

/// The UID and the name that a message was read under.
pub type CacheKey = (u32, [u8; NAME_OCTETS]);

/// What fingerprints were made for. Those that were made for another mailbox, or without what is
/// asked for now, are of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheScope {
    /// The UIDVALIDITY of the mailbox.
    pub uidvalidity: u32,
    /// Whether they have `origin` keys.
    pub has_origin: bool,
}

/// The fingerprints of one mailbox's messages. It has those from before, and takes new ones.
/// Whoever holds the lock saves the new ones.
#[derive(Debug)]
pub struct FingerprintCache<'a> {
    control: &'a Control,
    lock: Option<&'a ControlLock>,
    /// What all its fingerprints were made for.
    pub scope: CacheScope,
    head: [u8; HEAD_OCTETS],
    known: HashMap<CacheKey, CachedFingerprints>,
    /// Whether the file is whole and of this very form, so that records can be appended.
    goes_on: bool,
    file: Option<File>,
    unsaved: Vec<u8>,
}

impl<'a> FingerprintCache<'a> {
    /// Reads the file, unless it has more than so many messages can have.
    pub fn open(
        control: &'a Control,
        lock: Option<&'a ControlLock>,
        scope: CacheScope,
        messages: u32,
    ) -> Self {
        let head = head(scope);
        let most = HEAD_OCTETS as u64 + MOST_A_MESSAGE * RECORD_OCTETS as u64 * u64::from(messages);
        let found = control.read_fingerprints(most).ok().flatten().unwrap_or_default();
        let (known, whole) = records(&found, &head);
        let goes_on = whole * RECORD_OCTETS + HEAD_OCTETS == found.len();
        Self { control, lock, scope, head, known, goes_on, file: None, unsaved: Vec::new() }
    }

    /// An empty cache, which saves nothing.
    pub fn none(control: &'a Control, scope: CacheScope) -> Self {
        let (head, known, unsaved) = (head(scope), HashMap::new(), Vec::new());
        Self { control, lock: None, scope, head, known, goes_on: false, file: None, unsaved }
    }

    /// What is known of the message that was read under this UID and name.
    pub fn get(&self, which: CacheKey) -> Option<&CachedFingerprints> {
        self.known.get(&which)
    }

    /// Takes note of what was found out, and saves it in steps.
    pub fn put(&mut self, which: CacheKey, print: CachedFingerprints) {
        self.known.insert(which, print);
        if self.lock.is_some() {
            self.unsaved.extend(record(&self.head, which, &print));
            if self.unsaved.len() >= STEP * RECORD_OCTETS {
                self.save();
            }
        }
    }

    /// A record that cannot be saved is found out again: nothing depends on it.
    fn save(&mut self) {
        let Some(lock) = self.lock.filter(|_| !self.unsaved.is_empty()) else { return };
        if self.append(lock).is_err() {
            self.lock = None;
        }
        self.unsaved.clear();
    }

    fn append(&mut self, lock: &ControlLock) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            return file.write_all(&self.unsaved);
        }
        let mut file = self.control.append_fingerprints(lock, self.goes_on)?;
        if self.goes_on {
            file.write_all(&self.unsaved)?;
        } else {
            let known = self.known.iter().map(|(which, print)| record(&self.head, *which, print));
            file.write_all(&[&self.head[..], known.collect::<Vec<_>>().as_flattened()].concat())?;
        }
        self.file = Some(file);
        Ok(())
    }
}

impl Drop for FingerprintCache<'_> {
    fn drop(&mut self) {
        self.save();
    }
}

fn head(CacheScope { uidvalidity, has_origin }: CacheScope) -> [u8; HEAD_OCTETS] {
    let normaliser = u32::from(NORMALISER_VERSION) | u32::from(!has_origin) << 8;
    let mut head = [0; HEAD_OCTETS];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&normaliser.to_le_bytes());
    head[16..].copy_from_slice(&uidvalidity.to_le_bytes());
    head
}

fn record(
    head: &[u8; HEAD_OCTETS],
    (uid, name): CacheKey,
    print: &CachedFingerprints,
) -> [u8; RECORD_OCTETS] {
    let flags = u32::from(print.header.is_some())
        | u32::from(print.origin.is_some()) << 1
        | u32::from(print.message.is_read()) << 2
        | u32::from(print.message.get().is_some()) << 3
        | u32::from(print.octets.is_some()) << 4
        | u32::from(print.names_itself) << 5
        | u32::from(print.origin_names_itself) << 6
        | u32::from(print.body.is_some()) << 7;
    let print_of = |print: Option<Fingerprint>| print.map_or([0; 16], |print| print.0);
    let mut record = [0; RECORD_OCTETS];
    record[..4].copy_from_slice(&uid.to_le_bytes());
    record[4..8].copy_from_slice(&flags.to_le_bytes());
    record[8..16].copy_from_slice(&print.octets.unwrap_or(0).to_le_bytes());
    record[16..32].copy_from_slice(&name);
    record[32..48].copy_from_slice(&print_of(print.header));
    record[48..64].copy_from_slice(&print_of(print.origin));
    record[64..80].copy_from_slice(&print_of(print.message.get()));
    record[80..96].copy_from_slice(&print_of(print.body));
    let digest = digest(head, &record[..BODY_OCTETS]);
    record[BODY_OCTETS..].copy_from_slice(&digest);
    record
}

/// The records of a file that begins with `head`, and how many of them are whole. The last record
/// of a message counts.
fn records(
    file: &[u8],
    head: &[u8; HEAD_OCTETS],
) -> (HashMap<CacheKey, CachedFingerprints>, usize) {
    let (mut known, mut whole) = (HashMap::new(), 0);
    let body = file.strip_prefix(head).unwrap_or_default();
    for (which, print) in body.chunks_exact(RECORD_OCTETS).filter_map(|record| parse(record, head))
    {
        known.insert(which, print);
        whole += 1;
    }
    (known, whole)
}

fn parse(record: &[u8], head: &[u8; HEAD_OCTETS]) -> Option<(CacheKey, CachedFingerprints)> {
    let (body, found) = record.split_at(BODY_OCTETS);
    if digest(head, body) != found {
        return None;
    }
    let octets = |at: usize| -> [u8; 16] { body[at..at + 16].try_into().expect("16 octets") };
    let number = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("4 octets"));
    let size = u64::from_le_bytes(body[8..16].try_into().expect("8 octets"));
    let has = |bit: u32| number(4) & bit != 0;
    let message = match (has(4), has(8)) {
        (false, _) => MessageKey::NotRead,
        (true, false) => MessageKey::Absent,
        (true, true) => MessageKey::Is(Fingerprint(octets(64))),
    };
    let print = CachedFingerprints {
        header: has(1).then_some(Fingerprint(octets(32))),
        origin: has(2).then_some(Fingerprint(octets(48))),
        message,
        octets: has(16).then_some(size),
        names_itself: has(32),
        origin_names_itself: has(64),
        body: has(128).then_some(Fingerprint(octets(80))),
    };
    Some(((number(0), octets(16)), print))
}

fn digest(head: &[u8; HEAD_OCTETS], body: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(body);
    hasher.finalize().as_bytes()[..16].try_into().expect("a digest is longer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SCOPE: CacheScope = CacheScope { uidvalidity: 7, has_origin: true };

    fn print(n: u8) -> CachedFingerprints {
        CachedFingerprints {
            header: (n % 2 == 0).then_some(Fingerprint([n; 16])),
            origin: (n % 3 == 0).then_some(Fingerprint([n + 1; 16])),
            message: [
                MessageKey::NotRead,
                MessageKey::Absent,
                MessageKey::Is(Fingerprint([n + 2; 16])),
            ][usize::from(n) % 3],
            octets: (n % 5 == 0).then_some(u64::from(n) << 40),
            names_itself: n % 7 == 0,
            origin_names_itself: n % 11 == 0,
            body: (n % 13 == 0).then_some(Fingerprint([n + 3; 16])),
        }
    }

    fn which(n: u8) -> CacheKey {
        (u32::from(n) << 20, [n; 16])
    }

    #[test]
    fn what_was_found_out_is_there_again_after_any_end() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(dir.path(), "alice");
        let lock = control.lock(Duration::ZERO).unwrap();
        for until in [200, 30, 250] {
            let mut prints = FingerprintCache::open(&control, Some(&lock), SCOPE, 250);
            (0..until).for_each(|n| prints.put(which(n), print(n)));
            drop(prints);
            let mut again = FingerprintCache::open(&control, None, SCOPE, 250);
            for n in 0..until {
                assert_eq!(again.get(which(n)), Some(&print(n)), "{n}");
            }
            again.put(which(255), print(1));
        }
        let end = FingerprintCache::open(&control, Some(&lock), SCOPE, 250);
        assert_eq!(end.known.len(), 250, "without the lock nothing is saved");
        let known = |scope, messages| {
            FingerprintCache::open(&control, Some(&lock), scope, messages).known.len()
        };
        assert_eq!(known(CacheScope { uidvalidity: 8, ..SCOPE }, 250), 0, "another UIDVALIDITY");
        assert_eq!(known(CacheScope { has_origin: false, ..SCOPE }, 250), 0, "other keys");
        assert_eq!(known(SCOPE, 80), 0, "too many");
    }

    #[test]
    fn what_is_damaged_is_left_out_and_the_rest_is_right() {
        let head = head(SCOPE);
        let mut file = head.to_vec();
        (0..3).for_each(|n| file.extend(record(&head, which(n), &print(n))));
        assert_eq!(records(&file, &head).1, 3);
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            for (found, _) in [records(&damaged, &head), records(&file[..at], &head)] {
                assert!(found.len() < 3, "octet {at}");
                for (which_one, found) in found {
                    assert_eq!(found, print(which_one.1[0]), "octet {at}");
                }
            }
        }
    }
}
