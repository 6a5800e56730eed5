//! The cost of a warm login: it reads neither the index nor mail.

use std::fs;
use std::ops::Range;

use uidl_keep::key::FileKey;
use uidl_keep::ledger::control::LOCK;
use uidl_keep::ledger::{Ledger, LedgerFront, ListedNames};

use super::copies::is_warm;
use super::scenario::{Listing, Scenario, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::faults::Whole;
use crate::support::host::Line;
use crate::support::mail::Message;
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

/// The place of the names in a ledger.
fn names_of(file: &[u8]) -> Range<usize> {
    let end = LedgerFront::front_len(file, file.len() as u64).expect("a ledger");
    end - 16..end
}

/// The names that `dovecot-uidlist` has.
fn listed_names(moved: &Scenario) -> ListedNames {
    let list = fs::read_to_string(moved.maildir().path().join("dovecot-uidlist")).unwrap();
    let mut names = ListedNames::default();
    for line in list.lines().skip(1) {
        let (uid, name) = (line.split(' ').next().unwrap(), line.split_once(" :").unwrap().1);
        names.add(uid.parse().unwrap(), FileKey::until_cut(name.as_bytes()));
    }
    names
}

/// The digest of names that the ledger has is made by the first login, by one that only adds new
/// mail, and by one that needs the rules; a warm login compares it, and looks at single names where
/// it is another.
#[test]
fn a_warm_login_compares_names_all_at_once_and_one_by_one_where_some_are_others() {
    for line in Line::asked() {
        let config = Config::default().with_plugin();
        let Some(moved) = Scenario::begin_with(line, config) else { continue };
        let old = moved.old_maildir(1..=5);
        moved.copy_files(&old);
        moved.capture(&Listing::of_files(&old.files()));
        let has_names = |when: &str| {
            moved.uidls();
            let file = fs::read(moved.ledger()).unwrap();
            let names = listed_names(&moved).digest();
            assert_eq!(file[names_of(&file)], names, "{line:?}, {when}");
        };
        has_names("first");
        moved.receive(&Message::plain(6));
        has_names("grown");
        fs::remove_file(moved.ledger().with_file_name(LOCK)).unwrap();
        moved.receive(&Message::plain(7));
        has_names("by the rules");
        let whole = Whole::of(moved.ledger());
        let mut ledger = Ledger::decode(&whole.octets).unwrap();
        ledger.records[2].names = [[7; 8]].into_iter().collect();
        let other_names = ledger.encode();
        let mut believed = other_names.clone();
        believed[names_of(&other_names)].copy_from_slice(&whole.octets[names_of(&whole.octets)]);
        whole.replace(&believed);
        is_warm(&moved);
        whole.replace(&other_names);
        moved.uidls();
        assert_ne!(fs::read(moved.ledger()).unwrap(), other_names, "{line:?}: the rules look");
        // Where one went, the digest is another, and the names of the others are as they were.
        whole.put_back();
        moved.delete(1);
        is_warm(&moved);
    }
}
