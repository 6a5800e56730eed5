//! Who is known by what, before mail is read for keys: [`Plan`].
#![forbid(unsafe_code)]

use crate::capture::disk::weight::Unusable;
use crate::capture::draft::Remarks;
use crate::capture::told_here::ToldBy;
use crate::ledger::Told;
use crate::maildrop::{Counter, Name};
use crate::uidl::Uidl;

/// Which messages are known by which UIDL, in the old order. A server's module makes it of a
/// snapshot.
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
    /// The base file names of messages that the state file lists and that have no file.
    pub gone: Vec<Box<[u8]>>,
    /// The lines of the state file that no capture can use.
    pub unusable: Unusable,
    /// As in [`Draft::told`](crate::capture::draft::Draft::told).
    pub told: Vec<Told>,
    /// As in [`Captured::told_by`](crate::capture::draft::Captured::told_by).
    pub told_by: ToldBy,
    /// The remarks on the maildrop.
    pub remarks: Remarks,
}

impl Plan {
    /// Counts a line of the state file that no capture can use, and says why.
    pub fn lose(&mut self, why: String) {
        self.unusable.add(&why);
        self.remarks.loss(why);
    }
}

/// One message of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its place in [`Snapshot::messages`](crate::capture::disk::maildir::Snapshot::messages).
    pub at: usize,
    /// The UIDL by which clients know it.
    pub uidl: Uidl,
    /// As in [`Entry::uid`](crate::maildrop::Entry::uid).
    pub uid: Option<u32>,
    /// As in [`Entry::guid`](crate::maildrop::Entry::guid).
    pub guid: Option<Name>,
    /// As in [`Entry::octets`](crate::maildrop::Entry::octets), where the server keeps it.
    pub octets: Option<u64>,
}
