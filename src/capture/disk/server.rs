//! The servers whose maildrops are captured from disk: [`ServerKind`].
#![forbid(unsafe_code)]

use crate::capture::disk::files::{Files, StoreKind};
use crate::capture::disk::{courier, cyrus, dovecot, mbox, qmail};
use crate::capture::draft::{Captured, Draft};
use crate::capture::error::CaptureError;
use crate::capture::find::source::{Holds, Source};
use crate::capture::keys::Keys;
use crate::format::UidlFormat;
use crate::text::printable_path;

/// Courier's state file, in the Maildir.
pub const COURIER_STATE: &str = "courierpop3dsizelist";
/// Cyrus's state file, in the mailbox.
pub const CYRUS_STATE: &str = "cyrus.index";
/// Where Cyrus says whose mailbox it is.
pub const CYRUS_HEADER: &str = "cyrus.header";
/// Dovecot's state file, in the Maildir.
pub const DOVECOT_STATE: &str = "dovecot-uidlist";

/// What answered POP3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerKind {
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
    Mbox(mbox::MboxServer),
}

impl ServerKind {
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
    pub fn look_for(&self, source: &Source) -> Result<(), CaptureError> {
        match self.holds() {
            Holds::Directory | Holds::CyrusMailbox => source.open().map(drop),
            Holds::File => mbox::open(source).map(drop),
        }
    }

    /// Whether the names of its files are keys: then `file` is one of the [`Keys`] to take.
    pub fn has_file_names(&self) -> bool {
        matches!(self, Self::Courier | Self::Dovecot { .. } | Self::Qmail)
    }

    fn draft(&self, keys: Keys, source: &Source) -> Result<Draft, CaptureError> {
        let maildir = |state| Files { shape: StoreKind::Maildir, state, mtimes: false };
        match self {
            Self::Courier => maildir(Some(COURIER_STATE)).capture(keys, source, courier::plan),
            Self::Dovecot { format } => {
                maildir(Some(DOVECOT_STATE))
                    .capture(keys, source, |look| dovecot::plan(look, format))
            }
            Self::Qmail => Files { mtimes: true, ..maildir(None) }
                .capture(keys, source, |look| Ok(qmail::plan(look))),
            Self::Cyrus { format } => {
                Files { shape: StoreKind::Cyrus, state: Some(CYRUS_STATE), mtimes: false }.capture(
                    keys,
                    source,
                    |look| cyrus::plan(look, format),
                )
            }
            Self::Mbox(server) => mbox::capture(server, keys, source),
        }
    }
}

/// Captures one maildrop. Whatever happens, there is a block.
pub fn capture(server: &ServerKind, keys: Keys, source: &Source) -> Captured {
    let user = source.user().to_owned();
    let place = format!("{} {}", server.name(), printable_path(source.place()));
    match server.draft(keys, source) {
        Ok(draft) => Draft { user, source: place, ..draft }.finish(),
        Err(error) => Captured::failed(user, place, error.to_string()),
    }
}
