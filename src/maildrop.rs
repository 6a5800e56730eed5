//! One captured maildrop: what a [listing](crate::listing) block says and an
//! [index](crate::index) block holds.
#![forbid(unsafe_code)]

use crate::format::UidlFormat;
use crate::key::{FileKey, Fingerprint};
use crate::uidl::Uidl;

/// One maildrop of the old server, as far as its capture could tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maildrop {
    /// The user name on the new server, as Dovecot will see it at login (`alice@example.com`).
    pub user: String,
    /// What became of the capture.
    pub state: State,
    /// The captures that this was made of, oldest first: one for a block of a listing, more where a
    /// delta was built.
    pub captures: Vec<Capture>,
    /// Where it came from, for the operator: `courier
    /// /var/qmail/mailnames/example.com/alice/Maildir`.
    pub source: String,
    /// The UIDVALIDITY of the old maildrop, where it has one.
    pub uidvalidity: Option<u32>,
    /// How the old server counted, where its UIDLs are made of counted numbers: every number below
    /// `next` is spent, also of messages long gone.
    pub counter: Option<Counter>,
    /// The messages that have a UIDL and at least one key, in the order of the old listing.
    pub entries: Vec<Entry>,
    /// UIDLs that a client may know, but whose message could not be found: never given again.
    pub spent: Vec<Uidl>,
    /// What the capture could not read or make out, a sentence each. Kept in the listing, which is
    /// the operator's evidence; an index leaves them out.
    pub remarks: Vec<String>,
}

impl Maildrop {
    /// A maildrop of which nothing is known but whose it is and what became of its capture.
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

    /// When the first of its captures was taken, in seconds since 1970; `None` where one of them
    /// does not say.
    pub fn first_taken(&self) -> Option<u64> {
        self.captures.iter().map(|capture| capture.taken).min().flatten()
    }

    /// The entries that its last capture had: what clients saw last on the old server.
    pub fn last_entries(&self) -> impl Iterator<Item = &Entry> {
        let last = self.captures.len().saturating_sub(1);
        self.entries.iter().filter(move |entry| entry.last_capture as usize >= last)
    }

    /// The UIDLs that stand at more than one message, each once, sorted. Some servers give them so
    /// (popa3d to identical copies); they are replayed as they were, and reported, for getmail
    /// refuses such a maildrop.
    pub fn repeated_uidls(&self) -> Vec<&Uidl> {
        let mut uidls: Vec<_> = self.entries.iter().map(|entry| &entry.uidl).collect();
        uidls.sort_unstable();
        let mut repeated: Vec<_> =
            uidls.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        repeated
    }
}

/// The name by which a listing and a roster speak of everybody of a domain whom they do not name:
/// of `None`, of everybody, with or without a domain. No login has it: `*` is in no user name.
pub fn everybody_of(domain: Option<&str>) -> String {
    domain.map_or_else(|| "*".to_owned(), |domain| format!("*@{domain}"))
}

/// Whether a name is such a one.
pub fn is_everybody(user: &str) -> bool {
    user.strip_prefix('*').is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

/// What became of the capture of one maildrop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its messages are listed. Some of its state may have been unreadable: then remarks say so.
    Captured,
    /// The old server had this maildrop, and no client holds a UIDL of it: there was no message in
    /// it, or none that POP3 ever listed.
    Empty,
    /// Could not be captured: its user is refused until it is, never treated as never migrated.
    Failed,
}

/// One capture of a maildrop, as an index remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Capture {
    /// When it was taken, in seconds since 1970; `None` where the listing does not say.
    pub taken: Option<u64>,
    /// As [`Maildrop::source`].
    pub source: String,
    /// As [`Maildrop::uidvalidity`].
    pub uidvalidity: Option<u32>,
    /// As [`Counter::next`].
    pub next: Option<u32>,
}

impl Capture {
    /// The capture that a maildrop is all of, taken then.
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

/// How a server that counts makes its UIDLs, and how far it had counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// The form of the UIDL, in Dovecot 2.3's spelling: `UID%u-%v`.
    pub format: UidlFormat,
    /// The first number not given yet. Goes with the maildrop's `uidvalidity`.
    pub next: u32,
}

/// One message of the old maildrop. Its place in [`Maildrop::entries`] is its place in the old
/// order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What clients know it by: what the latest capture says of it.
    pub uidl: Uidl,
    /// What earlier captures said of it, where that was something else: spent for all others. A
    /// client that was told one of these goes on being told it.
    pub earlier: Vec<Uidl>,
    /// The first capture that has it, as its place in [`Maildrop::captures`].
    pub first_capture: u32,
    /// The last capture that has it, as its place in [`Maildrop::captures`].
    pub last_capture: u32,
    /// Its IMAP UID under the maildrop's UIDVALIDITY: confirms or separates, never matches.
    pub uid: Option<u32>,
    /// Its size with CRLF line ends, in octets: confirms or separates, never matches.
    pub octets: Option<u64>,
    /// Its Maildir base file name.
    pub file: Option<Name>,
    /// Its Dovecot GUID, where that is not its base file name. One key space with `file`.
    pub guid: Option<Name>,
    /// BLAKE3 of the normalised header.
    pub header: Option<Fingerprint>,
    /// BLAKE3 of the normalised header and body.
    pub message: Option<Fingerprint>,
    /// BLAKE3 of the normalised header without what relays add.
    pub origin: Option<Fingerprint>,
}

/// A base file name or GUID: spelled out as captured, or only its key, as an index holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// As the old server had it.
    Spelled(Box<[u8]>),
    /// What the index keeps of it.
    Key(FileKey),
}

impl Name {
    /// The key to compare by.
    pub fn key(&self) -> FileKey {
        match self {
            Self::Spelled(name) => FileKey::of_name(name),
            Self::Key(key) => *key,
        }
    }
}

impl Entry {
    /// An entry of which nothing is known but its UIDL.
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

    /// Whether anything names it after the move.
    pub fn has_key(&self) -> bool {
        self.file.is_some()
            || self.guid.is_some()
            || self.header.is_some()
            || self.message.is_some()
            || self.origin.is_some()
    }

    /// Every UIDL that a client may know it by: the one that it is served, then the earlier ones.
    pub fn uidls(&self) -> impl Iterator<Item = &Uidl> {
        std::iter::once(&self.uidl).chain(&self.earlier)
    }

    /// The keys of its names: `file`, then `guid`.
    pub fn file_keys(&self) -> impl Iterator<Item = FileKey> + '_ {
        self.file.iter().chain(&self.guid).map(Name::key)
    }
}
