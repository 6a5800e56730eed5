//! The servers whose maildrops are captured from disk: [`ServerKind`].
#![forbid(unsafe_code)]

use crate::capture::disk::maildir::Snapshot;
use crate::capture::disk::traits::DiskTraits;
use crate::capture::disk::{courier, cyrus, dovecot, files, mbox, qmail};
use crate::capture::draft::{Captured, Draft};
use crate::capture::error::CaptureError;
use crate::capture::find::source::{Holds, Source};
use crate::capture::keys::Keys;
use crate::capture::plan::Plan;
use crate::capture::told_here::{MemoryFault, ToldBy};
use crate::format::UidlFormat;
use crate::text::printable_path;

/// The server that answered POP3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerKind {
    /// Courier's `courierpop3d`.
    Courier,
    /// Cyrus's `pop3d`, with its `uidl_format`.
    Cyrus {
        /// The format, as mailboxes of 2.1.4 and later have it.
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
    Mbox(mbox::server::MboxServer),
}

impl ServerKind {
    /// The traits that every maildrop of this server has.
    pub(in crate::capture) fn traits(&self) -> DiskTraits {
        match self {
            Self::Courier => courier::TRAITS,
            Self::Cyrus { .. } => cyrus::TRAITS,
            Self::Dovecot { .. } => dovecot::TRAITS,
            Self::Qmail => qmail::TRAITS,
            Self::Mbox(server) => server.traits(),
        }
    }

    fn draft(&self, keys: Keys, source: &Source) -> Result<Draft, CaptureError> {
        let by = |plan: &dyn Fn(&Snapshot) -> Result<Plan, CaptureError>| {
            files::capture(&self.traits(), keys, source, plan)
        };
        match self {
            Self::Courier => by(&courier::plan),
            Self::Cyrus { format } => by(&|snapshot| cyrus::plan(snapshot, format)),
            Self::Dovecot { format } => {
                by(&|snapshot| dovecot::plan(snapshot, format, &[source.login(), source.user()]))
            }
            Self::Qmail => by(&|snapshot| Ok(qmail::plan(snapshot))),
            Self::Mbox(server) => mbox::reading::capture(server, keys, source),
        }
    }

    /// The server's name, as on the command line.
    pub fn name(&self) -> &'static str {
        self.traits().name
    }

    /// The kind of place that its maildrops are.
    pub fn holds(&self) -> Holds {
        self.traits().holds
    }

    /// Whether the names of its files are keys: then `file` is one of the [`Keys`] to take.
    pub fn has_file_names(&self) -> bool {
        self.traits().has_file_names()
    }

    /// Checks that there is something at `source` at all: a mistyped path is no maildrop that
    /// failed.
    ///
    /// # Errors
    ///
    /// Errors of [`Source::open`], and of opening a file.
    pub fn look_for(&self, source: &Source) -> Result<(), CaptureError> {
        match self.holds() {
            Holds::Directory | Holds::CyrusMailbox => source.open().map(drop),
            Holds::File => mbox::reading::open(source).map(drop),
        }
    }
}

/// Captures one maildrop. There is a block, whatever happens.
pub fn capture(server: &ServerKind, keys: Keys, source: &Source) -> Captured {
    let user = source.user().to_owned();
    let place = format!("{} {}", server.name(), printable_path(source.place()));
    match server.draft(keys, source) {
        Ok(draft) => Draft { user, source: place, ..draft }.finish(),
        Err(error) => {
            let told_by = match &error {
                CaptureError::Memory(MemoryFault::Rehearsed) => ToldBy::Nobody,
                // Nor was there a ledger.
                CaptureError::StateMissing { .. } => ToldBy::Server,
                _ => ToldBy::NotKnown,
            };
            Captured { told_by, ..Captured::failed(user, place, error.to_string()) }
        }
    }
}
