//! Writes what was listed where Dovecot itself keeps such things, so that the plugin can go.

use super::host::{Level, Mailbox, Uidlist};
use super::survey::order_of;
use crate::key::FileKey;
use crate::ledger::{FIRST_ORDER, Ledger, LedgerFront, RecordRef};

/// On Maildir, writes the UIDLs of a ledger's messages into `dovecot-uidlist` as `P`, and their
/// order as `O` where it is kept, as far as they do not stand there. Elsewhere there is no such
/// place: `doveadm backup` to a new location takes the answers along.
///
/// The ledger is written already. A bake that fails is logged, and costs only the freedom to take
/// the plugin out. Returns whether all of it stands there now.
pub fn bake(mailbox: Mailbox, with_order: bool, front: &LedgerFront) -> bool {
    let Some(uidlist) = mailbox.uidlist() else { return false };
    // Dovecot has the list in memory as this session saw it last. Another may have listed since.
    if mailbox.refresh_names().is_err() {
        return false;
    }
    let answers = front.answers();
    let lacks = |uidlist, i| lacks(uidlist, front, i, with_order);
    if !(0..answers.len()).any(|i| lacks(uidlist, i)) {
        return true;
    }
    // Before we had the lock, a message may have gone, or another server's list may have come.
    let baked = uidlist.update_locked(|uidlist| {
        for i in (0..answers.len()).filter(|&i| lacks(uidlist, i)) {
            let order = with_order.then_some(answers.order_number(i));
            uidlist.set(answers.uid(i), answers.uidl_for_c(i), order);
        }
    });
    if let Err(what) = &baked {
        let why = mailbox.last_error();
        mailbox.log(
            Level::UIDL_KEEP_LOG_WARNING,
            &format!("{what} ({why}): the ledger keeps the UIDLs; do not take the plugin out yet"),
        );
    }
    baked.is_ok()
}

/// Says whether the list has the message of the record at `i`, and not its UIDL; or beside it an
/// order number of ours that is another: a ledger gave it that was forgotten or only rehearsed.
fn lacks(uidlist: Uidlist, front: &LedgerFront, i: usize, with_order: bool) -> bool {
    let (uid, uidl) = (front.answers().uid(i), front.answers().uidl(i));
    let is_stale = |order: u32| order >= FIRST_ORDER && order != front.answers().order_number(i);
    let is_baked = || {
        let order = uidlist.order(uid).and_then(order_of).filter(|_| with_order);
        uidlist.uidl(uid) == Some(uidl) && !order.is_some_and(is_stale)
    };
    if uid == 0 || is_baked() {
        return false;
    }
    let name = uidlist.file_name(uid).map(FileKey::cut_of);
    let name = name.map(|cut| Ledger::name_of_cut(&cut));
    let mut names = front.names(i).peekable();
    name.is_some_and(|name| names.peek().is_none() || names.any(|listed| listed == name))
}

/// Says whether the UIDL of the record is where [`bake`] writes it, if there is such a place.
pub fn is_baked(mailbox: Mailbox, record: &RecordRef<'_>) -> bool {
    let uidlist = mailbox.uidlist();
    uidlist.is_none_or(|uidlist| uidlist.uidl(record.uid) == Some(record.uidl))
}
