//! Capture from disk: what an old server's POP3 clients know of its Maildirs.
//!
//! One module a kind of server ([`courier`], [`dovecot`], [`qmail`]): each makes a [`Plan`] of a
//! [`Look`] and knows nothing of files. [`maildir`] reads Maildirs that are in use,
//! [`layout`] finds them. [`capture`] brings them together, for one maildrop.
//!
//! Nothing is changed on the old server. A maildrop that cannot be captured becomes a block that
//! says so ([`State::Failed`](crate::maildrop::State::Failed)), and a line of a state file that cannot be made out costs that line.
#![forbid(unsafe_code)]

pub mod courier;
pub mod dovecot;
mod draft;
pub mod layout;
pub mod maildir;
pub mod pop3;
pub mod qmail;

pub use draft::{Captured, Draft, Remarks};

use std::collections::HashMap;
use std::io;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use crate::format::UidlFormat;
use crate::key::{Depth, Fingerprint};
use crate::maildrop::{Counter, Entry, Name};
use crate::uidl::Uidl;
use layout::Source;
use maildir::{Folder, Look, Maildir, Message, Prints, Wanted};

/// Courier's state file, in the Maildir.
pub const COURIER_STATE: &str = "courierpop3dsizelist";
/// Dovecot's state file, in the Maildir.
pub const DOVECOT_STATE: &str = "dovecot-uidlist";

/// How often a maildrop is read before it is called unstable.
pub const TRIES: u32 = 6;

/// The pause after the first try, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// What answered POP3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Courier's `courierpop3d`.
    Courier,
    /// Dovecot, with its `pop3_uidl_format`.
    Dovecot {
        /// The format of the UIDLs that no `P` field gives.
        format: UidlFormat,
    },
    /// qmail-pop3d, also notqmail's and netqmail's.
    Qmail,
}

impl Server {
    /// Its name, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Courier => "courier",
            Self::Dovecot { .. } => "dovecot",
            Self::Qmail => "qmail",
        }
    }

    fn wanted(&self) -> Wanted {
        match self {
            Self::Courier => Wanted { state: Some(COURIER_STATE), mtimes: false },
            Self::Dovecot { .. } => Wanted { state: Some(DOVECOT_STATE), mtimes: false },
            Self::Qmail => Wanted { state: None, mtimes: true },
        }
    }

    fn plan(&self, look: &Look) -> Result<Plan, Error> {
        match self {
            Self::Courier => courier::plan(look),
            Self::Dovecot { format } => dovecot::plan(look, format),
            Self::Qmail => Ok(qmail::plan(look)),
        }
    }
}

/// Which keys to take of each message.
///
/// With `header`, `message` is also taken where a header repeats within the maildrop, or has no end: only
/// then are bodies read. The size is taken of messages that were read to their end, and of file names
/// that have it in `,W=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Base file names and GUIDs.
    pub file: bool,
    /// Fingerprints of headers: reads each message up to the end of its header.
    pub header: bool,
    /// Fingerprints of messages: reads each message to its end.
    pub message: bool,
    /// Fingerprints of headers without what relays add.
    pub origin: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self { file: true, header: true, message: false, origin: false }
    }
}

impl FromStr for Keys {
    type Err = BadKeys;

    fn from_str(text: &str) -> Result<Self, BadKeys> {
        let mut keys = Self { file: false, header: false, message: false, origin: false };
        for word in text.split(',') {
            match word {
                "file" => keys.file = true,
                "header" => keys.header = true,
                "message" => keys.message = true,
                "origin" => keys.origin = true,
                _ => return Err(BadKeys { word: word.to_owned() }),
            }
        }
        Ok(keys)
    }
}

/// A word that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such key: {word:?}; there are file, header, message and origin")]
pub struct BadKeys {
    word: String,
}

/// Why a maildrop, or one file of it, could not be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read.
    #[error("{name}: {error}")]
    Io {
        /// Its name, printable.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// A symbolic link, where its owner could make it point anywhere.
    #[error("{name} is a symbolic link, which is not followed")]
    Link {
        /// Its name, printable.
        name: String,
    },
    /// A symbolic link of a user's, on the way to a directory that the operator named.
    #[error(
        "{name} leads over a symbolic link of uid {uid}, which is not followed: name the directory itself"
    )]
    LinkOfUser {
        /// What was named, printable.
        name: String,
        /// Whose the link is, or the directory that it lies in.
        uid: u32,
    },
    /// A FIFO, a socket, a device or a directory in the place of a file.
    #[error("{name} is not a regular file and was not opened")]
    NotRegular {
        /// Its name, printable.
        name: String,
    },
    /// A second link to a file of another account.
    #[error("{name} is a hard link to a file of uid {uid} and was not read")]
    Foreign {
        /// Its name, printable.
        name: String,
        /// Whose it is.
        uid: u32,
    },
    /// Larger than any message, or a hole for the most part.
    #[error(
        "{name} has {octets} octets, too many for a message or most of them a hole, and was not read"
    )]
    NoMessage {
        /// Its name, printable.
        name: String,
        /// Its size.
        octets: u64,
    },
    /// A directory without `cur`.
    #[error("not a Maildir: it has no directory cur")]
    NotMaildir,
    /// A state file that starts with something unknown.
    #[error("{file}:1: unknown version: {header}")]
    StateVersion {
        /// The state file.
        file: &'static str,
        /// Its first line, printable.
        header: String,
    },
    /// A state file of no octets beside mail.
    #[error(
        "{file} is empty and there is mail: what clients know is lost here; let them log in at the \
         old server once more, or release the mailbox for a new download"
    )]
    StateEmpty {
        /// The state file.
        file: &'static str,
    },
    /// No line of a state file could be made out.
    #[error("{file}:1: not a list of messages: {line}")]
    StateGarbled {
        /// The state file.
        file: &'static str,
        /// Its first line, printable.
        line: String,
    },
    /// A state file that is too long to be one.
    #[error("{file} has more than {max_octets} octets")]
    StateTooLong {
        /// The state file.
        file: &'static str,
        /// The limit.
        max_octets: u64,
    },
    /// Mail that somebody has looked at, and no state of this server at all.
    #[error(
        "no {file} beside {read} messages that were opened by some server: was it left out of the \
         copy, is it kept elsewhere, or did another server answer here?"
    )]
    StateMissing {
        /// The state file.
        file: &'static str,
        /// How many messages lie in `cur`.
        read: usize,
    },
    /// Two looks never agreed.
    #[error("it changed each of the {tries} times it was read; capture it again at a quieter time")]
    Unstable {
        /// How often it was read.
        tries: u32,
    },
    /// A source that was found wanting before it was opened.
    #[error("{0}")]
    Source(String),
}

impl Error {
    pub(crate) fn io(name: &[u8], error: io::Error) -> Self {
        Self::Io { name: printable(name), error }
    }

    /// Whether it only says that there is no such file.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Io { error, .. }
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

/// What a server's module makes of a look: who is known by what, in the old order.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The messages that have a UIDL, in the order of the old listing.
    pub entries: Vec<Planned>,
    /// UIDLs whose message is gone.
    pub spent: Vec<Uidl>,
    /// As in [`Maildrop::uidvalidity`].
    pub uidvalidity: Option<u32>,
    /// As in [`Maildrop::counter`].
    pub counter: Option<Counter>,
    /// What there is to say of it.
    pub remarks: Remarks,
}

/// One message of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its place in [`Look::messages`].
    pub at: usize,
    /// What clients know it by.
    pub uidl: Uidl,
    /// As in [`Entry::uid`].
    pub uid: Option<u32>,
    /// As in [`Entry::guid`].
    pub guid: Option<Name>,
}

/// Captures one maildrop. Whatever happens, there is a block.
///
/// Reads the directory and the state file twice, or more often while they change; a message at most
/// twice.
pub fn capture(server: &Server, keys: Keys, source: &Source) -> Captured {
    let place = format!("{} {}", server.name(), printable_path(source.place()));
    match source.open().and_then(Maildir::open).and_then(|maildir| settle(server, keys, &maildir)) {
        Ok((look, plan, prints)) => {
            assemble(source.user().to_owned(), place, keys, &look, plan, &prints)
        }
        Err(error) => Captured::failed(source.user().to_owned(), place, error.to_string()),
    }
}

/// Looks, plans and reads until a second look agrees with the first.
fn settle(server: &Server, keys: Keys, maildir: &Maildir) -> Result<(Look, Plan, Known), Error> {
    let mut known = Known::new();
    let mut pause = FIRST_PAUSE;
    for last in (0..TRIES).rev() {
        let look = maildir.look(server.wanted())?;
        // What is cut in a line may be complete a moment later.
        if last == 0 || !look.ends_in_a_line() {
            let planned = server.plan(&look).and_then(|plan| {
                let all_there = read_keys(maildir, &look, &plan, keys, &mut known)?;
                Ok((plan, all_there))
            });
            if maildir.look(server.wanted())?.agrees_with(&look) {
                let (plan, all_there) = planned?;
                if all_there {
                    return Ok((look, plan, known));
                }
            }
        }
        if last > 0 {
            thread::sleep(pause);
            pause *= 2;
        }
    }
    Err(Error::Unstable { tries: TRIES })
}

/// What was read of each message, by base file name and inode number, kept from try to try: a
/// message file does not change.
type Known = HashMap<(Box<[u8]>, u64), Result<Prints, String>>;

fn known_as(message: &Message) -> (Box<[u8]>, u64) {
    (message.base.clone(), message.inode)
}

/// Reads what the keys need. `false` when a message went away meanwhile.
fn read_keys(
    maildir: &Maildir,
    look: &Look,
    plan: &Plan,
    keys: Keys,
    known: &mut Known,
) -> Result<bool, Error> {
    let depth = match keys {
        Keys { message: true, .. } => Depth::Message,
        Keys { header: true, .. } | Keys { origin: true, .. } => Depth::Header,
        _ => return Ok(true),
    };
    if plan.entries.is_empty() {
        return Ok(true);
    }
    for entry in &plan.entries {
        if !read_one(maildir, &look.messages[entry.at], depth, known)? {
            return Ok(false);
        }
    }
    if !keys.header || keys.message {
        return Ok(true);
    }
    // A header repeats also when its twin has not been listed yet: after the move both are there.
    let mut seen: HashMap<Fingerprint, u32> = HashMap::new();
    for message in &look.messages {
        if !read_one(maildir, message, Depth::Header, known)? {
            return Ok(false);
        }
        if let Some(header) = header_of(known, message) {
            *seen.entry(header).or_default() += 1;
        }
    }
    for entry in &plan.entries {
        let message = &look.messages[entry.at];
        let Some(Ok(prints)) = known.get(&known_as(message)) else { continue };
        // A header without its end may be cut short elsewhere, and one without a field is none.
        let says_little =
            !prints.of.header_ended || prints.of.header.is_none_or(|header| seen[&header] > 1);
        if says_little && !read_one(maildir, message, Depth::Message, known)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn header_of(known: &Known, message: &Message) -> Option<Fingerprint> {
    known.get(&known_as(message))?.as_ref().ok()?.of.header
}

/// Reads one message to `depth`, unless that is known. `false` when it has gone. What cannot be
/// read is known as such: it costs its fingerprints, not the maildrop.
fn read_one(
    maildir: &Maildir,
    message: &Message,
    depth: Depth,
    known: &mut Known,
) -> Result<bool, Error> {
    let name = known_as(message);
    match known.get(&name) {
        Some(Ok(prints)) if depth == Depth::Header || prints.depth == Depth::Message => {
            return Ok(true);
        }
        Some(Err(_)) => return Ok(true),
        _ => {}
    }
    let read = match maildir.open_message(message) {
        Ok(None) => return Ok(false),
        Ok(Some(file)) => Prints::read(file, depth).map_err(|e| Error::io(&message.name, e)),
        Err(error) => Err(error),
    };
    known.insert(name, read.map_err(|error| error.to_string()));
    Ok(true)
}

/// Puts the block together.
fn assemble(
    user: String,
    source: String,
    keys: Keys,
    look: &Look,
    mut plan: Plan,
    known: &Known,
) -> Captured {
    let mut entries = Vec::with_capacity(plan.entries.len());
    for planned in std::mem::take(&mut plan.entries) {
        let message = &look.messages[planned.at];
        let prints = match known.get(&known_as(message)) {
            Some(Ok(prints)) => Some(prints),
            Some(Err(fault)) => {
                plan.remarks.loss(format!("{fault}; it has no fingerprints"));
                None
            }
            None => None,
        };
        let print = |wanted: bool, of: fn(&Prints) -> Option<Fingerprint>| {
            prints.filter(|_| wanted).and_then(of)
        };
        let entry = Entry {
            uidl: planned.uidl,
            uid: planned.uid,
            octets: prints
                .and_then(|prints| prints.octets)
                .or_else(|| maildir::octets_in_name(&message.base)),
            file: keys.file.then(|| Name::Spelled(message.base.clone())),
            guid: planned.guid.filter(|_| keys.file),
            header: print(keys.header, |prints| prints.of.header),
            message: print(true, |prints| prints.of.message),
            origin: print(keys.origin, |prints| prints.of.origin),
        };
        let has_key =
            entry.file.is_some() || entry.header.or(entry.message).or(entry.origin).is_some();
        if has_key {
            entries.push(entry);
        } else {
            plan.spent.push(entry.uidl);
        }
    }
    let Plan { spent, uidvalidity, counter, remarks, .. } = plan;
    Draft { user, source, uidvalidity, counter, entries, spent, remarks }.finish()
}

/// The error for mail that somebody has read and a state file that is not there, unless one of the
/// other files of that server shows that the directory is complete.
fn missing_state(look: &Look, file: &'static str, others: &[&[u8]]) -> Option<Error> {
    let read = look.messages.iter().filter(|message| message.folder == Folder::Cur).count();
    let complete =
        look.others.iter().any(|name| others.iter().any(|other| name.starts_with(other)));
    (read > 0 && !complete).then_some(Error::StateMissing { file, read })
}

/// The longest piece of a foreign file that is shown, in octets.
const MAX_SHOWN: usize = 120;

/// Octets from a file that we did not write, for a line that somebody reads on a terminal: ASCII
/// only, on one line, and not too long.
pub fn printable(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len().min(MAX_SHOWN));
    for &octet in octets.iter().take(MAX_SHOWN) {
        match octet {
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7E => text.push(char::from(octet)),
            _ => text.push_str(&format!("\\x{octet:02x}")),
        }
    }
    if octets.len() > MAX_SHOWN {
        text.push_str("...");
    }
    text
}

fn printable_path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    // The path is ours to show whole: the operator has to find it.
    path.as_os_str().as_bytes().chunks(MAX_SHOWN).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_foreign_octets_as_ascii_and_not_at_length() {
        assert_eq!(printable(b"a b\\\x1b[31m\xe6\n"), "a b\\\\\\x1b[31m\\xe6\\x0a");
        assert_eq!(printable(&[b'x'; 121]).len(), 123);
        assert_eq!(printable(&[b'x'; 120]).len(), 120);
    }

    #[test]
    fn takes_the_keys_that_are_named_and_no_other_word() {
        let keys: Keys = "file,header".parse().unwrap();
        assert_eq!(keys, Keys::default());
        assert!("origin".parse::<Keys>().unwrap().origin);
        assert_eq!(
            "file,heder".parse::<Keys>().unwrap_err().to_string(),
            "no such key: \"heder\"; there are file, header, message and origin"
        );
        assert!("".parse::<Keys>().is_err());
    }
}
