//! The cost of a warm login: it reads neither the index nor mail.

use std::fs;

use super::scenario::{Listing, Scenario, uidl_of};
use crate::support::dovecot::Store;
use crate::support::traced::{can_trace, lists_under_strace};

/// Whether a call opens a file of the site that has UIDLs, or one with mail in it.
fn is_costly(call: &str) -> bool {
    let opened = call.contains("open") && !call.contains("ENOENT");
    let mail = ["/cur/", "/new/", "/dbox-Mails/u.", "/storage/m."];
    opened && (call.contains(".idx\"") || mail.iter().any(|place| call.contains(place)))
}

#[test]
fn a_warm_login_opens_neither_the_index_nor_a_message() {
    if !can_trace() {
        return;
    }
    for store in [Store::Maildir, Store::Mdbox, Store::Sdbox] {
        let Some(moved) = Scenario::begin(store) else { return };
        let old = moved.old_maildir(1..=5);
        moved.copy_files(&old);
        moved.capture(&Listing::of_files(&old.files()));
        let trace = moved.dovecot.home(super::scenario::USER).join("trace");
        let opened = || {
            let traced = ["-e", "trace=open,openat,openat2"];
            assert!(lists_under_strace(&moved.dovecot, &trace, &traced), "{store:?}");
            let calls = fs::read_to_string(&trace).unwrap();
            assert!(calls.contains("uidl-keep.ledger"), "{calls}");
            let costly = calls.lines().filter(|call| is_costly(call)).map(str::to_owned);
            costly.collect::<Vec<_>>()
        };
        let first = opened();
        assert!(first.iter().any(|call| call.contains(".idx\"")), "{store:?}: {first:?}");
        assert_eq!(opened(), [""; 0], "{store:?}");
        assert_eq!(moved.uidls(), uidl_of(1..=5));
    }
}
