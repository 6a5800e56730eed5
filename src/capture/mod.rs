//! Capture: what an old server's POP3 clients know of its maildrops.
//!
//! From disk, one module a kind of server. [`courier`], [`dovecot`], [`qmail`] and [`cyrus`] have a
//! file a message: each makes a [`Plan`] of a [`Look`] and knows nothing of files, which
//! [`maildir`] reads while they are in use. [`mbox`] is for the servers that have a file a
//! maildrop. [`layout`] finds maildrops, those of a [`panel`] too, and [`capture`] brings it all
//! together, for one of them.
//!
//! Without its disk, [`pop3`] asks the server as its clients do, and [`doveadm`] takes what
//! Dovecot's own tool prints. [`plesk`] finds out which server answers on a Plesk machine, by the
//! signs there and by the [`traces`] in its Maildirs. [`proof`] compares a capture with what the
//! server itself lists, over POP3 or by its own [`program`].
//!
//! Nothing is changed on the old server. A maildrop that cannot be captured becomes a block that
//! says so ([`State::Failed`](crate::maildrop::State::Failed)), and a line of a state file that
//! cannot be made out costs that line.
#![forbid(unsafe_code)]

pub mod courier;
pub mod cyrus;
pub mod doveadm;
pub mod dovecot;
mod draft;
mod files;
mod keys;
pub mod layout;
pub mod maildir;
pub mod mbox;
mod opening;
pub mod panel;
pub mod plesk;
pub mod pop3;
pub mod program;
pub mod proof;
pub mod qmail;
pub mod traces;
mod weight;

pub use draft::{Captured, Draft, Remarks};
pub use keys::{BadKeys, Keys, Packed, Prints};
pub use weight::Unusable;

use std::io;
use std::thread;
use std::time::Duration;

use crate::format::UidlFormat;
use crate::maildrop::{Counter, Name};
use crate::uidl::Uidl;
use files::{Files, Shape};
use layout::{Holds, Source};
use maildir::{Folder, Look};

/// Courier's state file, in the Maildir.
pub const COURIER_STATE: &str = "courierpop3dsizelist";
/// Cyrus's state file, in the mailbox.
pub const CYRUS_STATE: &str = "cyrus.index";
/// Where Cyrus says whose mailbox it is.
pub const CYRUS_HEADER: &str = "cyrus.header";
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
    /// Cyrus's `pop3d`, with its `uidl_format`.
    Cyrus {
        /// That format, as it is in mailboxes of 2.1.4 and later.
        format: UidlFormat,
    },
    /// Dovecot on Maildirs, with its `pop3_uidl_format`.
    Dovecot {
        /// The format of the UIDLs that no `P` field gives.
        format: UidlFormat,
    },
    /// qmail-pop3d, also notqmail's and netqmail's.
    Qmail,
    /// One that keeps mail in mboxes.
    Mbox(mbox::Server),
}

impl Server {
    /// Its name, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Courier => "courier",
            Self::Cyrus { .. } => "cyrus",
            Self::Dovecot { .. } => "dovecot",
            Self::Qmail => "qmail",
            Self::Mbox(server) => server.name(),
        }
    }

    /// What its maildrops are.
    pub fn holds(&self) -> Holds {
        match self {
            Self::Courier | Self::Dovecot { .. } | Self::Qmail => Holds::Directory,
            Self::Cyrus { .. } => Holds::CyrusMailbox,
            Self::Mbox(_) => Holds::File,
        }
    }

    /// Looks whether there is something at `source` at all: a mistyped path is no maildrop that
    /// failed.
    ///
    /// # Errors
    ///
    /// Those of [`Source::open`], and of opening a file.
    pub fn look_for(&self, source: &Source) -> Result<(), Error> {
        match self.holds() {
            Holds::Directory | Holds::CyrusMailbox => source.open().map(drop),
            Holds::File => mbox::open(source).map(drop),
        }
    }

    /// Whether the names of its files are keys: then `file` is one of the [`Keys`] to take.
    pub fn has_file_names(&self) -> bool {
        matches!(self, Self::Courier | Self::Dovecot { .. } | Self::Qmail)
    }

    fn draft(&self, keys: Keys, source: &Source) -> Result<Draft, Error> {
        let maildir = |state| Files { shape: Shape::Maildir, state, mtimes: false };
        match self {
            Self::Courier => maildir(Some(COURIER_STATE)).capture(keys, source, courier::plan),
            Self::Dovecot { format } => {
                maildir(Some(DOVECOT_STATE))
                    .capture(keys, source, |look| dovecot::plan(look, format))
            }
            Self::Qmail => Files { mtimes: true, ..maildir(None) }
                .capture(keys, source, |look| Ok(qmail::plan(look))),
            Self::Cyrus { format } => {
                Files { shape: Shape::Cyrus, state: Some(CYRUS_STATE), mtimes: false }.capture(
                    keys,
                    source,
                    |look| cyrus::plan(look, format),
                )
            }
            Self::Mbox(server) => mbox::capture(server, keys, source),
        }
    }
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
    /// Larger than any message or mbox, or a hole for the most part.
    #[error(
        "{name} has {octets} octets, too many for mail or most of them a hole, and was not read"
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
    /// A state file that is not whole, or not what its version says.
    #[error("{file}: {why}; if this is a copy, copy it anew while the server rests")]
    StateDamaged {
        /// The state file.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
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
    /// What a state file lists is not what lies beside it.
    #[error(
        "{file} lists {lines} messages and {mail} lie beside it, of which it lists {met}: it is \
         perhaps another mailbox's, or names were changed in a copy; capture the server itself, \
         or copy list and mail together, with names as they are"
    )]
    StateOfOther {
        /// The state file.
        file: &'static str,
        /// How many messages it lists.
        lines: usize,
        /// How many messages there are.
        mail: usize,
        /// How many of these it lists.
        met: usize,
    },
    /// A copy has changed the names of messages.
    #[error(
        "{changed} of {mail} messages have a name that a copy has changed, such as {first}: where \
         something else stands in place of its last colon, no client was told of it by that name; \
         capture the server itself, or a copy that keeps names (tar, rsync)"
    )]
    NamesChanged {
        /// How many messages.
        changed: usize,
        /// How many messages there are.
        mail: usize,
        /// One of them, printable.
        first: String,
    },
    /// Most of what a state file lists cannot be used.
    #[error(
        "{unusable} of {lines} unique-ids are of no use, such as {first}; if format and server \
         are the right ones, capture over POP3, or give them up (uidl-keep release --redownload)"
    )]
    Unusable {
        /// How many.
        unusable: usize,
        /// Of how many.
        lines: usize,
        /// Why the first is not.
        first: String,
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
    /// Messages that somebody has looked at, and in none what this server writes into them.
    #[error(
        "no {what} in any message, and {opened} were opened by some server: did another server answer \
         here?"
    )]
    HeadersMissing {
        /// What it writes.
        what: &'static str,
        /// How many messages were opened.
        opened: usize,
    },
    /// Somebody writes to an mbox, or has moved its mail away for a while.
    #[error(
        "{name} is in use: beside it is its lock, {name}.lock, or the mail of a session, .{name}.pop; \
         capture it again, or take those away if nothing uses them"
    )]
    Locked {
        /// Its name, printable.
        name: String,
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
    /// As in [`Maildrop::uidvalidity`](crate::maildrop::Maildrop::uidvalidity).
    pub uidvalidity: Option<u32>,
    /// As in [`Maildrop::counter`](crate::maildrop::Maildrop::counter).
    pub counter: Option<Counter>,
    /// The base file names of messages that its state lists and that are not there.
    pub gone: Vec<Box<[u8]>>,
    /// What its state lists and no capture can use.
    pub unusable: Unusable,
    /// What there is to say of it.
    pub remarks: Remarks,
}

impl Plan {
    /// A message of the state, or what should be one, that no capture can use.
    fn lose(&mut self, why: String) {
        self.unusable.add(&why);
        self.remarks.loss(why);
    }
}

/// One message of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its place in [`Look::messages`].
    pub at: usize,
    /// What clients know it by.
    pub uidl: Uidl,
    /// As in [`Entry::uid`](crate::maildrop::Entry::uid).
    pub uid: Option<u32>,
    /// As in [`Entry::guid`](crate::maildrop::Entry::guid).
    pub guid: Option<Name>,
    /// As in [`Entry::octets`](crate::maildrop::Entry::octets), where the server keeps it.
    pub octets: Option<u64>,
}

/// Captures one maildrop. Whatever happens, there is a block.
pub fn capture(server: &Server, keys: Keys, source: &Source) -> Captured {
    let user = source.user().to_owned();
    let place = format!("{} {}", server.name(), printable_path(source.place()));
    match server.draft(keys, source) {
        Ok(draft) => Draft { user, source: place, ..draft }.finish(),
        Err(error) => Captured::failed(user, place, error.to_string()),
    }
}

/// Reads what is in use until something comes of it, with pauses that double; is told when a try is
/// the last one.
///
/// # Errors
///
/// Those of a try, and [`Error::Unstable`] when nothing has come of any.
fn until_steady<T>(mut attempt: impl FnMut(bool) -> Result<Option<T>, Error>) -> Result<T, Error> {
    let mut pause = FIRST_PAUSE;
    for left in (0..TRIES).rev() {
        if let Some(steady) = attempt(left == 0)? {
            return Ok(steady);
        }
        if left > 0 {
            thread::sleep(pause);
            pause *= 2;
        }
    }
    Err(Error::Unstable { tries: TRIES })
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

/// A path with names in it that others chose, fit for a terminal.
pub fn printable_path(path: &std::path::Path) -> String {
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
}
