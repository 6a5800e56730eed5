//! qmail-pop3d: no state of its own. The UIDL is the base file name, the order is by mtime.
//!
//! Learnt from notqmail `qmail-pop3d.c` (`getlist`, `printfn`: the name without `new/` or `cur/`,
//! up to `:`) and `maildir.c` (`maildir_scan`: whatever does not start with a dot, in a queue keyed
//! by mtime in seconds).
#![forbid(unsafe_code)]

use crate::capture::disk::maildir::Snapshot;
use crate::capture::disk::traits::DiskTraits;
use crate::capture::plan::{Plan, Planned};
use crate::text::printable;
use crate::uidl::Uidl;

pub(super) const TRAITS: DiskTraits = DiskTraits {
    orders_by_mtime: true,
    programs: &["/var/qmail/bin/qmail-pop3d", "/usr/sbin/qmail-pop3d"],
    arguments: &["{maildir}"],
    ..DiskTraits::of_maildir("qmail", None)
};

/// Plans what qmail-pop3d's clients know of this maildrop: every message, by its base file name.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    for (at, message) in snapshot.messages.iter().enumerate() {
        match Uidl::new(message.base.clone()) {
            Ok(uidl) => {
                plan.entries.push(Planned { at, uidl, uid: None, guid: None, octets: None })
            }
            Err(bad) => plan.lose(format!("{}: {bad}", printable(&message.name))),
        }
    }
    let mtime = |planned: &Planned| snapshot.messages[planned.at].mtime;
    // Stable: messages of one second stay in the order of their names.
    plan.entries.sort_by_key(mtime);
    let tied = plan.entries.windows(2).filter(|pair| mtime(&pair[0]) == mtime(&pair[1])).count();
    if tied > 0 {
        plan.remarks.fact(format!(
            "{tied} times a message has the mtime of the one before it: qmail-pop3d orders these \
             by chance, this listing by name"
        ));
    }
    plan
}
