//! Why a maildrop could not be captured: [`CaptureError`].
#![forbid(unsafe_code)]

use std::io;

use crate::capture::told_here::MemoryFault;
use crate::text::printable;

/// Why a maildrop, or one file of it, could not be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
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
        "{name} leads over a symbolic link of uid {uid}, which is not followed: name the \
         directory itself"
    )]
    LinkOfUser {
        /// The path that was named, printable.
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
    /// A state file lists other messages than lie beside it.
    #[error(
        "{file} lists {lines} messages and {mail} lie beside it, {met} of them in the list: it is \
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
        /// How many it lists.
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
        "no {what} in any message, and {opened} were opened by some server: did another server \
         answer here?"
    )]
    HeadersMissing {
        /// The header field that the server writes.
        what: &'static str,
        /// How many messages were opened.
        opened: usize,
    },
    /// Somebody writes to an mbox, or has moved its mail away for a while.
    #[error(
        "{name} is in use: beside it is its lock, {name}.lock, or the mail of a session, \
         .{name}.pop; capture it again, or take those away if nothing uses them"
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
    /// What clients were told here cannot be known.
    #[error("{0}")]
    Memory(#[from] MemoryFault),
    /// A source that was found wanting before it was opened.
    #[error("{0}")]
    Source(String),
}

impl CaptureError {
    pub(crate) fn io(name: &[u8], error: io::Error) -> Self {
        Self::Io { name: printable(name), error }
    }

    /// Whether it only says that there is no such file.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Io { error, .. }
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}
