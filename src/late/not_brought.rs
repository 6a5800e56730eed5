//! Why late mail stays where it is: [`NotBrought`].
#![forbid(unsafe_code)]

use std::io;

use crate::capture::error::CaptureError;
use crate::key::FileKey;
use crate::late::journal::JOURNAL;
use crate::ledger::LedgerError;
use crate::ledger::control::LEDGER;

/// Why the late mail of a maildrop was not brought, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotBrought {
    /// The site cannot tell.
    #[error("{0}")]
    Site(String),
    /// He is on no roster.
    #[error(
        "on no roster, so that nobody knows what his clients hold: is that his name on the new \
         server? say --user-template, or leave him out with --only"
    )]
    Stranger,
    /// Nobody knows what was captured.
    #[error("POP3 refuses him, for his capture failed: capture him again and build upon the site")]
    NotCaptured,
    /// There is no new Maildir.
    #[error("{0} late messages, and no Maildir of his on the new server: copy his mail first")]
    NoNewMaildir(usize),
    /// One of the Maildirs cannot be read.
    #[error("{side} Maildir: {error}")]
    Capture {
        /// `old` or `new`.
        side: &'static str,
        /// Why not.
        error: CaptureError,
    },
    /// The ledger is there and cannot be used.
    #[error("{LEDGER}: {error}; put it back from a backup, or let a POP3 login make it again")]
    Ledger {
        /// What is wrong with it.
        error: LedgerError,
    },
    /// A client may know the UIDL of a late message, and we do not.
    #[error(
        "{count} late messages are in no capture, and had arrived before POP3 was stopped there \
         (first: {first}): a client may have listed them; capture the old server again, build that \
         upon the site, and run this again; nothing of this maildrop was brought"
    )]
    MayBeListed {
        /// How many.
        count: usize,
        /// The file name of one, printable.
        first: String,
    },
    /// The same, where POP3 was not stopped.
    #[error(
        "{count} late messages are in no capture (first: {first}): capture the old server again \
         and build that upon the site, or stop its POP3 and say when with --pop3-stopped; nothing \
         of this maildrop was brought"
    )]
    Uncaptured {
        /// How many.
        count: usize,
        /// The file name of one, printable.
        first: String,
    },
    /// Another run is at work.
    #[error("another copy-late is at work on it, by the lock on {JOURNAL}; wait for its end")]
    Busy,
    /// The journal is no file of the mail's owner.
    #[error("{JOURNAL} is not a regular file of the Maildir's owner: look who put it there")]
    BadJournal,
    /// A run was ended while it brought a message, and nobody knows whether the user had it.
    #[error(
        "nobody knows whether {name} was brought: a run was ended there, and the message is \
         neither in tmp nor in the mailbox; ask the user, copy it by hand if he never had it, and \
         write = in place of + before {key} in {JOURNAL}; {brought} other messages were brought"
    )]
    NotKnown {
        /// Its file name, printable.
        name: String,
        /// Its key in the journal.
        key: FileKey,
        /// How many others had been brought.
        brought: usize,
    },
    /// Something could not be written.
    #[error("{name}: {error}; {brought} messages were brought; mend that, and run this again")]
    Write {
        /// What.
        name: String,
        /// What the system says.
        error: io::Error,
        /// How many had been brought.
        brought: usize,
    },
    /// A message could not be read.
    #[error("old Maildir: {error}; {brought} messages were brought; mend that, and run this again")]
    Unreadable {
        /// Why not.
        error: CaptureError,
        /// How many had been brought.
        brought: usize,
    },
}
