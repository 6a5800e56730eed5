//! Rules 1 and 2: a message that was listed stays, and is known again.

use std::collections::HashMap;

use super::{is_derived, listed_once, native, refused};
use crate::support::rules::{Disk, Held, Server, Storage, captured, mail};
use uidl_keep::key::FileKey;
use uidl_keep::ledger::{Ledger, Provenance, Record};
use uidl_keep::resolve::{Need, Outcome, Purpose, Undecidable};

#[test]
fn doveadm_is_told_what_is_kept_and_never_what_no_client_has_seen() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&mail("new", 7, 7), true);
    server.copy(&a, true);
    let Outcome::Resolved(preview) = server.outcome(Purpose::Preview) else { panic!() };
    let told: Vec<_> = preview.ledger.records.iter().map(|r| (r.uid, r.uidl.to_string())).collect();
    assert_eq!(told, [(2, "U1".to_owned())]);
    assert_eq!(preview.ledger.told, []);
    assert_eq!(preview.ledger.native_from, None);
}

#[test]
fn a_listing_reports_how_its_uidls_came_and_what_was_not_copied_yet() {
    let (mut server, old) = listed_once();
    server.lose_memory();
    let resolution = server.log_in();
    let came = HashMap::from([(Provenance::File, 1), (Provenance::Header, 1)]);
    assert_eq!(resolution.report.by_provenance, came);
    assert_eq!(resolution.report.unclaimed, 1);
    assert!(resolution.report.is_first);
    server.copy(&old[2], true);
    let resolution = server.log_in();
    assert_eq!(resolution.report.by_provenance, HashMap::from([(Provenance::File, 1)]));
    assert_eq!(resolution.report.unclaimed, 0);
    assert!(!resolution.report.is_first);
}

#[test]
fn a_claim_outlives_its_message_and_only_its_file_takes_it_again_in_its_old_place() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    for is_gone_recorded in [false, true] {
        let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
        let uid = server.copy(&a, true);
        server.copy(&b, true);
        assert_eq!(server.uidls(), ["U1", "U2"]);
        server.delete(uid);
        if is_gone_recorded {
            server.log_in();
        }
        server.copy(&a, false);
        assert_eq!(server.uidls(), ["U2".to_owned(), native(3)]);
        server.copy(&a, true);
        assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
    }
}

#[test]
fn of_files_that_come_back_twice_the_first_takes_what_it_was_and_the_other_is_new() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    let uid = server.copy(&a, true);
    server.copy(&b, true);
    server.uidls();
    server.delete(uid);
    server.log_in();
    server.copy(&a, true);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(4)]);
}

#[test]
fn a_new_message_too_keeps_its_place_when_it_comes_back_before_a_listing_without_it() {
    let (mut server, _) = listed_once();
    let new = mail("new", 9, 9);
    let uid = server.put(new.clone(), "new".into());
    server.put(mail("newer", 8, 8), "newer".into());
    let before = server.uidls();
    server.delete(uid);
    server.put(new.clone(), "new".into());
    assert_eq!(server.uidls(), before);
    server.delete(5);
    server.log_in();
    server.put(new, "new".into());
    assert_eq!(server.uidls()[3], native(6), "its number alone is remembered");
}

#[test]
fn what_comes_back_alone_may_bear_its_name_twice() {
    let (mut server, old) = listed_once();
    server.delete(1);
    server.put(old[0].clone(), "a,S=101 a".into());
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

#[test]
fn an_entry_that_a_copy_by_content_has_is_not_given_to_its_file_as_well() {
    let (mut server, old) = listed_once();
    server.copy(&old[1], true);
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
}

#[test]
fn an_entry_whose_copy_by_content_is_gone_is_not_taken_again_by_a_name_that_nobody_listed() {
    let (mut server, old) = listed_once();
    server.put(mail("new", 9, 9), "new".into());
    server.delete(2);
    assert_eq!(server.uidls(), ["U1".to_owned(), native(3)]);
    server.copy(&old[1], true);
    server.copy(&old[1], true);
    let told = ["U1".to_owned(), native(3), native(4), native(5)];
    assert_eq!(server.uidls(), told);
}

#[test]
fn of_two_that_are_gone_the_one_that_was_listed_last_under_a_name_comes_back() {
    for is_first_gone_before in [false, true] {
        let (mut server, old) = listed_once();
        server.copy(&old[0], true);
        assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
        server.delete(1);
        if is_first_gone_before {
            server.log_in();
        }
        server.delete(3);
        server.copy(&old[0], true);
        let told = if is_first_gone_before {
            ["U2".to_owned(), native(3)]
        } else {
            ["U1", "U2"].map(str::to_owned)
        };
        assert_eq!(server.uidls(), told);
    }
}

#[test]
fn a_changed_uidvalidity_loses_no_answer_that_a_name_can_tell() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
        let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
        server.storage = storage;
        server.native = uidl_keep::format::UidlFormat::parse("%u").unwrap();
        server.copy(&b, true);
        server.copy(&a, true);
        server.copy(&mail("new", 7, 7), true);
        server.copy(&mail("newer", 7, 8), true);
        let before = server.uidls();
        assert!(is_derived(&before[2]) && is_derived(&before[3]));
        server.uidvalidity = 100;
        server.held.reverse();
        server.number_anew(50);
        for (uid, held) in (50..).zip(&mut server.held) {
            held.uid = uid;
            (held.stored, held.stored_order) = (None, None);
        }
        server.next_uid = 60;
        assert_eq!(server.uidls(), before, "{storage:?}");
    }
}

#[test]
fn copies_with_one_name_keep_their_uidls_when_uids_begin_anew() {
    let (mut server, old) = listed_once();
    server.put(old[0].clone(), "a".into());
    let before = server.uidls();
    assert_eq!(before[..2], ["U1", "U2"]);
    server.uidvalidity += 1;
    server.number_anew(1);
    assert_eq!(server.uidls(), before);
    server.delete(1);
    server.log_in();
    server.uidvalidity += 1;
    server.number_anew(1);
    assert_eq!(server.uidls(), before[1..], "what was listed last under the name");
}

/// Moved to Junk and back by IMAP: the new file has the old name as GUID.
#[test]
fn a_message_is_known_by_any_of_the_names_that_it_had_when_it_was_listed() {
    let a = mail("a", 1, 1);
    for storage in [Storage::Maildir, Storage::Dbox] {
        for later_name in ["a", "renamed", "a renamed", "renamed other"] {
            let mut server = Server::new(captured(&[("U1", &a)]));
            server.storage = storage;
            server.put(a.clone(), "renamed a".into());
            server.put(mail("new", 9, 9), "new".into());
            let before = server.uidls();
            server.uidvalidity += 1;
            server.held[0].name = later_name.into();
            server.held.reverse();
            server.number_anew(1);
            assert_eq!(server.uidls(), before, "{storage:?}, {later_name}");
        }
    }
}

#[test]
fn a_message_that_came_back_under_a_new_file_name_is_warm_again_and_known_by_that_name_too() {
    let (mut server, old) = listed_once();
    server.storage = Storage::Maildir;
    server.log_in();
    server.delete(1);
    server.put(old[0].clone(), "junked a".into());
    assert_eq!(server.uidls(), ["U1", "U2"]);
    assert!(server.warm().is_some(), "names are recorded as they are now");
    let record = server.ledger.as_ref().unwrap().records.iter().find(|record| record.uid == 3);
    let names = [&b"junked"[..], b"a"].map(|name| Ledger::name_of(FileKey::of_name(name)));
    assert_eq!(record.unwrap().names[..], names);
    server.uidvalidity += 1;
    server.held[1].name = "junked".into();
    server.number_anew(1);
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

#[test]
fn who_bears_all_names_of_a_record_goes_before_who_bears_one() {
    // The first of the names by its hash may be any of them.
    for file in ["a", "b", "c", "d", "e", "f"] {
        let old = mail(file, 1, 1);
        let mut server = Server::new(captured(&[("U1", &old)]));
        let names = format!("{file} guid");
        server.put(old, names.clone());
        server.uidls();
        server.uidvalidity += 1;
        server.held.insert(0, Held { name: "other guid".into(), ..server.held[0].clone() });
        server.number_anew(1);
        let (uidl, held) = server.listing().swap_remove(0);
        assert_eq!((uidl.to_string(), held.name), ("U1".to_owned(), names));
    }
}

#[test]
fn another_index_is_believed_when_all_names_agree_and_else_none_of_its_uids() {
    let (mut server, _) = listed_once();
    server.index_id += 1;
    server.asked.clear();
    assert_eq!(server.uidls(), ["U1", "U2"]);
    assert_eq!(server.asked[&Need::Names], 2);
    server.asked.clear();
    assert_eq!(server.uidls(), ["U1", "U2"]);
    assert!(server.asked.is_empty(), "the ledger tells all: {:?}", server.asked);
    // UID 2 is another message's now.
    let moved = server.held.pop().unwrap();
    server.held.push(Held { mail: mail("new", 9, 9), name: "new".into(), ..moved.clone() });
    server.put(moved.mail, moved.name);
    server.index_id += 1;
    let uidls = server.uidls();
    assert_eq!(uidls[..2], ["U1", "U2"]);
    assert!(is_derived(&uidls[2]), "{uidls:?}");
}

#[test]
fn a_list_of_uids_from_elsewhere_is_noticed_where_names_cost_nothing() {
    let (mut server, _) = listed_once();
    server.storage = Storage::Maildir;
    server.put(mail("new", 9, 9), "new".into());
    let before = server.uidls();
    server.list_from_elsewhere(2);
    assert_eq!(server.uidls(), before);
}

/// UIDs agree with a name or with an index that was there; without either, nothing follows.
#[test]
fn a_new_message_that_alone_is_there_under_another_index_is_not_taken_for_what_had_its_uid() {
    for name in ["new", ""] {
        let a = mail("a", 1, 1);
        let mut server = Server::new(captured(&[("U1", &a)]));
        server.put(a, name.replace("new", "a"));
        server.uidls();
        server.delete(1);
        server.number_anew(1);
        server.put(mail("new", 9, 9), name.into());
        server.next_uid += 1;
        assert_eq!(refused(&mut server), Undecidable::MostAreGone { found: 0, left: 1 });
        server.mark.as_mut().unwrap().left = 0;
        let uidls = server.uidls();
        assert!(is_derived(&uidls[0]), "{uidls:?}");
    }
}

#[test]
fn only_what_was_not_listed_is_asked_for_its_names() {
    // In a dbox, the last one that was listed is asked as well.
    for (storage, asked) in [(Storage::Maildir, 1), (Storage::Dbox, 2)] {
        let (mut server, _) = listed_once();
        server.storage = storage;
        server.log_in();
        server.asked.clear();
        server.put(mail("new", 9, 9), "new".into());
        server.uidls();
        assert_eq!(server.asked[&Need::Names], asked, "{storage:?}");
    }
}

/// Names lie with the mail in a dbox.
#[test]
fn a_message_that_cannot_say_its_name_under_another_index_is_not_taken_for_what_had_its_uid() {
    let (mut server, _) = listed_once();
    server.delete(2);
    server.index_id += 1;
    server.next_uid = 2;
    server.put(mail("new", 9, 9), "new".into());
    server.held[1].readable = false;
    assert_eq!(server.log_in().report.undecided, [2]);
    server.held[1].readable = true;
    assert!(is_derived(&server.uidls()[1]));
}

#[test]
fn an_index_that_was_built_in_another_order_knows_what_is_claimed() {
    let (mut server, old) = listed_once();
    server.captured.entries.rotate_right(1);
    server.copy(&old[0], false);
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
    let places: Vec<_> = server.ledger.unwrap().records.iter().map(|record| record.entry).collect();
    assert_eq!(places, [Some(1), Some(2), None], "where they are in this index");
}

/// Rule 7: a delta changed the UIDL that clients know, and a client was told the earlier one here.
#[test]
fn a_record_of_an_earlier_uidl_claims_its_entry_and_keeps_it() {
    let (mut server, old) = listed_once();
    for entry in &mut server.captured.entries {
        entry.earlier.push(std::mem::replace(&mut entry.uidl, super::uidl("later")));
    }
    server.captured.entries.rotate_right(1);
    server.copy(&old[0], false);
    server.copy(&old[2], false);
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), "later".to_owned(), native(3)]);
}

/// A ledger lies where the account's owner can write.
#[test]
fn two_records_of_one_entry_claim_two_entries_of_its_uidl() {
    let old = [mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3)];
    let mut server =
        Server::new(captured(&[("same", &old[0]), ("same", &old[1]), ("U3", &old[2])]));
    server.copy(&old[0], true);
    server.copy(&mail("new", 9, 9), true);
    server.uidls();
    let forged = &mut server.ledger.as_mut().unwrap().records;
    let (order, names) = (forged[1].order, forged[1].names.clone());
    forged[1] = Record { uid: 2, order, names, ..forged[0].clone() };
    server.copy(&old[1], true);
    assert_eq!(server.uidls(), ["same".to_owned(), "same".to_owned(), native(3)]);
}

/// Rule 11: the user is over quota, the disk is full, or it is read-only.
#[test]
fn where_nothing_can_be_recorded_everything_is_told_as_it_would_be_and_again() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        let (mut server, old) = listed_once();
        server.lose_memory();
        (server.storage, server.disk) = (storage, Disk::Full);
        server.put(mail("new", 9, 9), "new".into());
        let told = ["U1".to_owned(), "U2".to_owned(), native(3)];
        assert_eq!(server.uidls(), told);
        assert!(server.ledger.is_none());
        server.put(mail("newer", 1, 9), "newer".into());
        assert_eq!(server.uidls(), [&told[..], &[native(4)]].concat(), "no header claims for it");
        server.disk = Disk::Writable;
        server.copy(&old[2], true);
        let told = ["U1".to_owned(), "U2".to_owned(), "U3".to_owned(), native(3), native(4)];
        assert_eq!(server.uidls(), told);
    }
}
