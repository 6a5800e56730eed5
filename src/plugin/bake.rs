//! Writes what was listed where Dovecot itself keeps such things, so that the plugin can go.

use super::host::{Level, Mailbox};
use crate::key::FileKey;
use crate::ledger::{Ledger, NameHashes, Record, RecordRef};

/// What is written of a message.
pub struct Baked<'a> {
    /// Its UID.
    pub uid: u32,
    /// Its UIDL: `P`.
    pub uidl: &'a [u8],
    /// Its order number: `O`.
    pub order: u32,
    /// The names that it was listed under, as [`Record::names`].
    pub names: NameHashes,
}

impl<'a> From<&'a Record> for Baked<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { uid, order, ref names, .. } = *record;
        Self { uid, uidl: record.uidl.as_bytes(), order, names: names.clone() }
    }
}

impl<'a> From<&RecordRef<'a>> for Baked<'a> {
    fn from(record: &RecordRef<'a>) -> Self {
        let RecordRef { uid, uidl, order, ref names, .. } = *record;
        Self { uid, uidl, order, names: names.clone() }
    }
}

/// On Maildir, writes the UIDLs of `records` into `dovecot-uidlist` as `P`, and their order as `O`
/// where it is kept. Elsewhere there is no such place: `doveadm backup` to a new location takes the
/// answers along.
///
/// The ledger is written already. A bake that fails is logged, and costs only the freedom to take
/// the plugin out.
pub fn bake<'a>(mailbox: Mailbox, with_order: bool, records: impl Iterator<Item = Baked<'a>>) {
    let Some(uidlist) = mailbox.uidlist() else { return };
    let baked = uidlist.update_locked(|uidlist| {
        // Before we had the lock, a message may have gone, or another server's list may have come.
        let is_there = |record: &Baked<'_>| {
            let name = uidlist.file_name(record.uid).map(FileKey::cut_of);
            let name = name.map(|cut| Ledger::name_of_cut(&cut));
            name.is_some_and(|name| record.names.is_empty() || record.names.contains(&name))
        };
        for record in records.filter(is_there) {
            uidlist.set(record.uid, record.uidl, with_order.then_some(record.order));
        }
    });
    if let Err(what) = baked {
        let why = mailbox.last_error();
        mailbox.log(
            Level::UIDL_KEEP_LOG_WARNING,
            &format!("{what} ({why}): the ledger keeps the UIDLs; do not take the plugin out yet"),
        );
    }
}

/// Says whether the UIDL of the record is where [`bake`] writes it, if there is such a place.
pub fn is_baked(mailbox: Mailbox, record: &Baked<'_>) -> bool {
    let uidlist = mailbox.uidlist();
    uidlist.is_none_or(|uidlist| uidlist.uidl(record.uid) == Some(record.uidl))
}
