//! One captured maildrop, as a [listing](crate::listing) block describes it and an
//! [index](crate::index) block holds it.
#![forbid(unsafe_code)]

mod captured;

use std::borrow::Cow;

use crate::format::UidlFormat;
use crate::key::{FileKey, Fingerprint};
use crate::uidl::{Uidl, UidlRef};

pub use captured::{CapturedEntry, CapturedLen, CapturedMaildrop};

/// One maildrop of the old server, as far as its capture could tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maildrop {
    /// The user name on the new server, as Dovecot will see it at login (`alice@example.com`).
    pub user: String,
    /// The result of the capture.
    pub state: State,
    /// The captures that this was made of, oldest first. A block of a listing has one; a delta that
    /// was built adds more.
    pub captures: Vec<Capture>,
    /// Where it came from, for the operator: `courier
    /// /var/qmail/mailnames/example.com/alice/Maildir`.
    pub source: String,
    /// The UIDVALIDITY of the old maildrop, when it has one.
    pub uidvalidity: Option<u32>,
    /// How the old server counted, when it makes its UIDLs from counted numbers. Every number below
    /// `next` is spent, also those of messages long gone.
    pub counter: Option<Counter>,
    /// The messages that have a UIDL and at least one key, in the order of the old listing.
    pub entries: Vec<Entry>,
    /// UIDLs that a client may know, but whose message could not be found. They are never given
    /// again.
    pub spent: Vec<Uidl>,
    /// A sentence for each thing that the capture could not read or make out. The listing keeps
    /// them as the operator's evidence; an index leaves them out.
    pub remarks: Vec<String>,
}

impl Maildrop {
    /// A maildrop with only its user and the result of its capture; nothing else is known of it.
    pub fn new(user: impl Into<String>, state: State) -> Self {
        Self {
            user: user.into(),
            state,
            captures: Vec::new(),
            source: String::new(),
            uidvalidity: None,
            counter: None,
            entries: Vec::new(),
            spent: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// When the first of its captures was taken, in seconds since 1970; `None` when one of them
    /// does not say.
    pub fn first_taken(&self) -> Option<u64> {
        self.captures.iter().map(|capture| capture.taken).min().flatten()
    }

    /// The entries that its last capture had. Clients saw these last on the old server.
    pub fn last_entries(&self) -> impl Iterator<Item = &Entry> {
        let last = self.captures.len().saturating_sub(1);
        self.entries.iter().filter(move |entry| entry.last_capture as usize >= last)
    }

    /// The UIDLs that more than one message has, each once, sorted. Some servers give them so
    /// (popa3d to identical copies). They are replayed as they were. They are also reported,
    /// because getmail refuses such a maildrop.
    pub fn repeated_uidls(&self) -> Vec<&Uidl> {
        let mut uidls: Vec<_> = self.entries.iter().map(|entry| &entry.uidl).collect();
        uidls.sort_unstable();
        let mut repeated: Vec<_> =
            uidls.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        repeated
    }
}

/// The name in a listing or roster that stands for every user of a domain whom it does not name.
/// For `None`, it stands for everybody, with or without a domain. No login has this name: no user
/// name contains `*`.
pub fn everybody_of(domain: Option<&str>) -> String {
    domain.map_or_else(|| "*".to_owned(), |domain| format!("*@{domain}"))
}

/// Whether a name is one of these.
pub fn is_everybody(user: &str) -> bool {
    user.strip_prefix('*').is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

/// The result of the capture of one maildrop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its messages are listed. If some of its state was unreadable, remarks say so.
    Captured,
    /// The old server had this maildrop, and no client holds a UIDL of it: it had no message, or
    /// none that POP3 ever listed.
    Empty,
    /// It could not be captured. Its user is refused until it is, and never treated as never
    /// migrated.
    Failed,
}

/// One capture of a maildrop, as an index remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Capture {
    /// When it was taken, in seconds since 1970; `None` when the listing does not say.
    pub taken: Option<u64>,
    /// As [`Maildrop::source`].
    pub source: String,
    /// As [`Maildrop::uidvalidity`].
    pub uidvalidity: Option<u32>,
    /// As [`Counter::next`].
    pub next: Option<u32>,
}

impl Capture {
    /// The only capture of a maildrop, taken at that time.
    pub fn of(maildrop: &Maildrop, taken: Option<u64>) -> Self {
        Self {
            taken,
            source: maildrop.source.clone(),
            uidvalidity: maildrop.uidvalidity,
            next: maildrop.counter.as_ref().map(|counter| counter.next),
        }
    }
}

/// How many of so many messages may be broken by accident: three, or one in a hundred.
pub fn few_of(messages: usize) -> usize {
    3.max(messages / 100)
}

/// How a server that counts makes its UIDLs, and how far it has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// The form of the UIDL, in Dovecot 2.3's spelling: `UID%u-%v`.
    pub format: UidlFormat,
    /// The first number not given yet. It goes with the maildrop's `uidvalidity`.
    pub next: u32,
}

/// One message of the old maildrop. Its position in [`Maildrop::entries`] is its position in the
/// old order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its UIDL in the latest capture. Clients know it by this.
    pub uidl: Uidl,
    /// Its UIDLs in earlier captures, when they were different. They are spent for every other
    /// message. A client that was told one of these goes on being told it.
    pub earlier: Vec<Uidl>,
    /// The first capture that has it, as a position in [`Maildrop::captures`].
    pub first_capture: u32,
    /// The last capture that has it, as a position in [`Maildrop::captures`].
    pub last_capture: u32,
    /// Its IMAP UID under the maildrop's UIDVALIDITY: confirms or separates, never matches.
    pub uid: Option<u32>,
    /// Its size with CRLF line ends, in octets: confirms or separates, never matches.
    pub octets: Option<u64>,
    /// Its Maildir base file name.
    pub file: Option<Name>,
    /// Its Dovecot GUID, when that is not its base file name. It shares one key space with `file`.
    pub guid: Option<Name>,
    /// BLAKE3 of the normalised header.
    pub header: Option<Fingerprint>,
    /// BLAKE3 of the normalised header and body.
    pub message: Option<Fingerprint>,
    /// BLAKE3 of the normalised header without the fields that relays add.
    pub origin: Option<Fingerprint>,
}

/// A base file name or GUID. A capture has it spelled out; an index holds only its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// The name as the old server had it.
    Spelled(Box<[u8]>),
    /// The key that the index keeps of it.
    Key(FileKey),
}

impl Name {
    /// The key that names are compared by.
    pub fn key(&self) -> FileKey {
        match self {
            Self::Spelled(name) => FileKey::of_name(name),
            Self::Key(key) => *key,
        }
    }
}

/// An [`Entry`] whose octets are elsewhere: in the line of a listing, say.
#[derive(Debug, Clone)]
pub struct EntryRef<'a> {
    /// As [`Entry::uidl`].
    pub uidl: UidlRef<'a>,
    /// As [`Entry::earlier`].
    pub earlier: Vec<UidlRef<'a>>,
    /// As [`Entry::first_capture`].
    pub first_capture: u32,
    /// As [`Entry::last_capture`].
    pub last_capture: u32,
    /// As [`Entry::uid`].
    pub uid: Option<u32>,
    /// As [`Entry::octets`].
    pub octets: Option<u64>,
    /// As [`Entry::file`].
    pub file: Option<NameRef<'a>>,
    /// As [`Entry::guid`].
    pub guid: Option<NameRef<'a>>,
    /// As [`Entry::header`].
    pub header: Option<Fingerprint>,
    /// As [`Entry::message`].
    pub message: Option<Fingerprint>,
    /// As [`Entry::origin`].
    pub origin: Option<Fingerprint>,
}

/// A [`Name`] whose octets are elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameRef<'a> {
    /// As [`Name::Spelled`].
    Spelled(Cow<'a, [u8]>),
    /// As [`Name::Key`].
    Key(FileKey),
}

impl NameRef<'_> {
    /// As [`Name::key`].
    pub fn key(&self) -> FileKey {
        match self {
            Self::Spelled(name) => FileKey::of_name(name),
            Self::Key(key) => *key,
        }
    }

    /// The same, with octets of its own.
    pub fn to_name(&self) -> Name {
        match self {
            Self::Spelled(name) => Name::Spelled(name[..].into()),
            Self::Key(key) => Name::Key(*key),
        }
    }
}

impl<'a> From<&'a Name> for NameRef<'a> {
    fn from(name: &'a Name) -> Self {
        match name {
            Name::Spelled(name) => Self::Spelled(Cow::Borrowed(name)),
            Name::Key(key) => Self::Key(*key),
        }
    }
}

impl<'a> EntryRef<'a> {
    /// An entry with its UIDL alone; nothing else is known of it.
    pub fn new(uidl: UidlRef<'a>) -> Self {
        Self {
            uidl,
            earlier: Vec::new(),
            first_capture: 0,
            last_capture: 0,
            uid: None,
            octets: None,
            file: None,
            guid: None,
            header: None,
            message: None,
            origin: None,
        }
    }

    /// As [`Entry::has_key`].
    pub fn has_key(&self) -> bool {
        self.file.is_some()
            || self.guid.is_some()
            || self.header.is_some()
            || self.message.is_some()
            || self.origin.is_some()
    }

    /// The same, with octets of its own.
    pub fn to_entry(&self) -> Entry {
        Entry {
            uidl: self.uidl.to_uidl(),
            earlier: self.earlier.iter().map(|uidl| uidl.to_uidl()).collect(),
            first_capture: self.first_capture,
            last_capture: self.last_capture,
            uid: self.uid,
            octets: self.octets,
            file: self.file.as_ref().map(NameRef::to_name),
            guid: self.guid.as_ref().map(NameRef::to_name),
            header: self.header,
            message: self.message,
            origin: self.origin,
        }
    }
}

impl<'a> From<&'a Entry> for EntryRef<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            uidl: (&entry.uidl).into(),
            earlier: entry.earlier.iter().map(UidlRef::from).collect(),
            first_capture: entry.first_capture,
            last_capture: entry.last_capture,
            uid: entry.uid,
            octets: entry.octets,
            file: entry.file.as_ref().map(NameRef::from),
            guid: entry.guid.as_ref().map(NameRef::from),
            header: entry.header,
            message: entry.message,
            origin: entry.origin,
        }
    }
}

impl Entry {
    /// An entry with its UIDL alone; nothing else is known of it.
    pub fn new(uidl: Uidl) -> Self {
        Self {
            uidl,
            earlier: Vec::new(),
            first_capture: 0,
            last_capture: 0,
            uid: None,
            octets: None,
            file: None,
            guid: None,
            header: None,
            message: None,
            origin: None,
        }
    }

    /// Whether it has a key by which its message can be found after the move.
    pub fn has_key(&self) -> bool {
        EntryRef::from(self).has_key()
    }

    /// Every UIDL that a client may know it by: first the one that it is served, then the earlier
    /// ones.
    pub fn uidls(&self) -> impl Iterator<Item = &Uidl> {
        std::iter::once(&self.uidl).chain(&self.earlier)
    }

    /// The keys of its names: `file`, then `guid`.
    pub fn file_keys(&self) -> impl Iterator<Item = FileKey> + '_ {
        self.file.iter().chain(&self.guid).map(Name::key)
    }
}
