//! What a server's module makes of a maildrop before mail is read for keys: [`Plan`].
#![forbid(unsafe_code)]

use crate::capture::disk::weight::Unusable;
use crate::capture::draft::Remarks;
use crate::maildrop::{Counter, Name};
use crate::uidl::Uidl;

/// What a server's module makes of a snapshot: who is known by what, in the old order.
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
    /// What clients know it by.
    pub uidl: Uidl,
    /// As in [`Entry::uid`](crate::maildrop::Entry::uid).
    pub uid: Option<u32>,
    /// As in [`Entry::guid`](crate::maildrop::Entry::guid).
    pub guid: Option<Name>,
    /// As in [`Entry::octets`](crate::maildrop::Entry::octets), where the server keeps it.
    pub octets: Option<u64>,
}
