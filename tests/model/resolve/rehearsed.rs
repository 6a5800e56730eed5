//! Rule 2: what was only rehearsed was told to nobody.

use super::{captured_all, native, refused, several};
use crate::support::rules::{Disk, Server, Storage, captured, mail, uidl};
use uidl_keep::ledger::Ledger;
use uidl_keep::resolve::Undecidable;

/// Three old messages of which the last is not copied yet, and a new one, rehearsed.
fn rehearsed(storage: Storage) -> Server {
    let old = several(3);
    let mut server = Server::new(captured_all(&old));
    server.storage = storage;
    server.copy(&old[0], true);
    server.copy(&old[1], true);
    server.copy(&mail("new", 9, 9), true);
    let listed: Vec<String> =
        server.rehearse(1).unwrap().iter().map(|(uidl, _)| uidl.to_string()).collect();
    assert_eq!(listed, ["U0".to_owned(), "U1".to_owned(), native(3)]);
    server
}

fn is_rehearsal(server: &Server) -> [bool; 2] {
    let ledger = server.ledger.as_ref().is_some_and(|ledger| ledger.rehearsal != 0);
    [ledger, server.mark.as_ref().is_some_and(|mark| mark.rehearsal != 0)]
}

const STORAGES: [Storage; 2] = [Storage::Maildir, Storage::Dbox];

#[test]
fn a_client_is_told_what_was_rehearsed_without_a_question_and_then_it_is_told() {
    for storage in STORAGES {
        let mut server = rehearsed(storage);
        assert_eq!(is_rehearsal(&server), [true, true]);
        server.asked.clear();
        let again = server.rehearse(2).unwrap();
        assert_eq!(is_rehearsal(&server), [true, true]);
        assert_eq!(server.listing(), again);
        assert!(server.asked.is_empty());
        assert_eq!(is_rehearsal(&server), [false, false]);
        // What was told is only looked at from now on.
        let told = server.ledger.clone();
        server.copy(&mail("later", 8, 8), true);
        assert_eq!(server.rehearse(3).unwrap().len(), 4);
        assert_eq!(server.ledger, told);
    }
}

#[test]
fn an_old_message_that_comes_after_the_rehearsal_stands_before_the_new_ones() {
    for storage in STORAGES {
        let mut server = rehearsed(storage);
        server.copy(&several(3)[2], true);
        let wanted = ["U0".to_owned(), "U1".to_owned(), "U2".to_owned(), native(3)];
        assert_eq!(server.uidls(), wanted);
    }
}

#[test]
fn new_mail_after_the_rehearsal_of_a_settled_maildrop_is_answered_from_its_ledger() {
    let old = several(2);
    let mut server = Server::new(captured_all(&old));
    old.iter().for_each(|mail| _ = server.copy(mail, true));
    server.rehearse(1).unwrap();
    server.copy(&mail("new", 9, 9), true);
    assert_eq!(server.uidls(), ["U0".to_owned(), "U1".to_owned(), native(3)]);
    assert_eq!(server.grown, 1);
    assert_eq!(is_rehearsal(&server), [false, false]);
}

#[test]
fn once_undone_a_later_capture_is_served_and_nothing_is_spent() {
    for storage in STORAGES {
        let mut server = rehearsed(storage);
        let old = several(3);
        server.captured = captured(&[("V0", &old[0]), ("V1", &old[1]), ("U2", &old[2])]);
        // The roster that says so may have been put back from a backup: the index tells, too.
        for undone in [0, 1] {
            let mut server = server.clone();
            server.undone = undone;
            assert_eq!(server.uidls(), ["V0".to_owned(), "V1".to_owned(), native(3)]);
        }
        // A UIDL that was rehearsed, and is another message's now.
        let mut server = rehearsed(storage);
        server.captured = captured(&[("U1", &old[0]), ("U0", &old[1])]);
        server.undone = 1;
        assert_eq!(server.uidls(), ["U1".to_owned(), "U0".to_owned(), native(3)]);
    }
}

#[test]
fn a_uidl_that_was_stored_before_the_rehearsal_is_evidence_after_it() {
    let old = several(2);
    let mut server = Server::new(captured_all(&old));
    server.storage = Storage::Maildir;
    let entry = &mut server.captured.entries[1];
    (entry.header, entry.message, entry.origin) = (None, None, None);
    server.copy(&old[0], false);
    server.put(old[1].clone(), "b".into());
    server.store("b", "U1", None);
    server.rehearse(1).unwrap();
    server.undone = 1;
    assert_eq!(server.uidls(), ["U0", "U1"]);
}

#[test]
fn the_mark_alone_says_that_a_client_has_listed() {
    for storage in STORAGES {
        let mut server = rehearsed(storage);
        server.disk = Disk::Full;
        assert_eq!(server.uidls(), ["U0".to_owned(), "U1".to_owned(), native(3)]);
        assert_eq!(is_rehearsal(&server), [true, false]);
        // It was told, so it stays, whatever is undone and whatever comes.
        server.disk = Disk::Writable;
        server.undone = 1;
        server.copy(&several(3)[2], true);
        let wanted = ["U0".to_owned(), "U1".to_owned(), native(3), "U2".to_owned()];
        assert_eq!(server.uidls(), wanted);
        assert_eq!(is_rehearsal(&server), [false, false]);
    }
}

#[test]
fn the_mark_of_a_rehearsal_whose_ledger_is_lost_was_told_to_nobody() {
    let mut server = rehearsed(Storage::Dbox);
    server.ledger = None;
    server.copy(&several(3)[2], true);
    let wanted = ["U0".to_owned(), "U1".to_owned(), "U2".to_owned(), native(3)];
    assert_eq!(server.uidls(), wanted);
}

#[test]
fn what_was_told_is_no_rehearsal_whatever_is_rehearsed_later() {
    let mut server = rehearsed(Storage::Maildir);
    server.uidls();
    for (ledger, mark) in [(true, false), (false, true)] {
        let mut server = server.clone();
        server.ledger = server.ledger.filter(|_| ledger);
        server.mark = server.mark.filter(|_| mark);
        server.copy(&mail("later", 8, 8), true);
        let before = server.ledger.clone();
        server.rehearse(7).unwrap();
        assert_eq!(server.ledger, before);
        server.undone = 7;
        assert_eq!(server.uidls()[..3], ["U0".to_owned(), "U1".to_owned(), native(3)]);
    }
}

#[test]
fn a_derived_uidl_that_was_there_before_the_rehearsal_stays() {
    let old = several(1);
    let mut server = Server::new(captured_all(&old));
    server.storage = Storage::Maildir;
    server.copy(&old[0], true);
    server.put(mail("told", 7, 7), "told".into());
    let derived = super::derived_uidl();
    server.store("told", &derived.to_string(), None);
    server.rehearse(1).unwrap();
    server.undone = 1;
    assert_eq!(server.uidls(), ["U0".to_owned(), derived.to_string()]);
    assert_eq!(uidl(&derived.to_string()), derived);
    let read = |ledger: &Ledger| Ledger::decode(&ledger.encode()).unwrap();
    assert_eq!(server.ledger.as_ref().map(read), server.ledger);
}

#[test]
fn a_message_that_went_since_the_rehearsal_has_claimed_nothing() {
    for storage in STORAGES {
        let old = several(2);
        let mut server = Server::new(captured_all(&old));
        server.storage = storage;
        let gone = server.copy(&old[0], false);
        server.copy(&old[1], true);
        server.rehearse(1).unwrap();
        server.delete(gone);
        assert_eq!(server.uidls(), ["U1"]);
        server.copy(&old[0], false);
        assert_eq!(server.uidls(), ["U1", "U0"], "{storage:?}");
    }
}

#[test]
fn the_guard_of_the_first_listing_stands_after_a_rehearsal() {
    for storage in STORAGES {
        let old = several(4);
        let mut server = Server::new(captured_all(&old));
        (server.storage, server.guarded) = (storage, true);
        old.iter().for_each(|mail| _ = server.copy(mail, true));
        server.rehearse(1).unwrap();
        (2..=4).for_each(|uid| server.delete(uid));
        let refused = refused(&mut server);
        assert!(matches!(refused, Undecidable::HalfCopied { found: 1, .. }), "{refused:?}");
    }
}

#[test]
fn a_rehearsed_ledger_that_comes_back_does_not_stand_for_what_a_client_was_told() {
    for storage in STORAGES {
        let old = several(2);
        let mut server = Server::new(captured_all(&old));
        server.storage = storage;
        old.iter().for_each(|mail| _ = server.copy(mail, true));
        server.rehearse(1).unwrap();
        let rehearsed = server.ledger.clone();
        server.captured = captured(&[("V0", &old[0]), ("V1", &old[1])]);
        server.undone = 1;
        assert_eq!(server.uidls(), ["V0", "V1"]);
        server.ledger = rehearsed;
        assert_eq!(server.uidls(), ["V0", "V1"], "{storage:?}");
    }
}

#[test]
fn what_an_earlier_rehearsal_baked_is_no_evidence_where_the_last_one_ended_before_its_bake() {
    let old = several(3);
    let mut server = Server::new(captured_all(&old));
    server.storage = Storage::Maildir;
    old[..2].iter().for_each(|mail| _ = server.copy(mail, true));
    server.rehearse(1).unwrap();
    server.captured = captured(&[("V0", &old[0]), ("V1", &old[1]), ("V2", &old[2])]);
    server.undone = 1;
    server.bakes = false;
    server.rehearse(2).unwrap();
    server.bakes = true;
    server.copy(&old[2], true);
    assert_eq!(server.uidls(), ["V0", "V1", "V2"]);
}

#[test]
fn another_rehearsal_heeds_what_was_captured_and_set_since() {
    for storage in STORAGES {
        let mut server = rehearsed(storage);
        let old = several(3);
        server.captured = captured(&[("V0", &old[0]), ("V1", &old[1]), ("U2", &old[2])]);
        server.rehearse(2).unwrap();
        assert_eq!(server.uidls(), ["V0".to_owned(), "V1".to_owned(), native(3)]);
    }
}
