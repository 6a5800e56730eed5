//! The record of what was told is the join of ledger, mark and storage: each can be lost, put back
//! from an older backup, or travel alone. The operator can also say something of it: `restored`,
//! `forget`.

use super::{is_derived, listed_once, native, provenance};
use crate::support::rules::{Mail, Server, Storage, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::{Mark, Provenance, Told};
use uidl_keep::maildrop::Counter;
use uidl_keep::resolve::{COUNTS_ON, Undecidable};

const STORAGES: [Storage; 2] = [Storage::Maildir, Storage::Dbox];

/// A server that listed once, then once more with a new message, which has UID 3; and the server as
/// it was before that listing.
fn listed_twice(storage: Storage, bakes: bool) -> (Server, Server) {
    let (mut server, _) = listed_once();
    (server.storage, server.bakes) = (storage, bakes);
    server.log_in();
    let before = server.clone();
    server.put(mail("later", 9, 9), "later".into());
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
    (server, before)
}

/// The same with one message more, and both deleted: the mailbox has counted to 5.
fn listed_thrice_and_deleted(storage: Storage) -> (Server, Server) {
    let (mut server, before) = listed_twice(storage, true);
    server.put(mail("last", 9, 8), "last".into());
    assert_eq!(server.uidls()[3], native(4));
    (3..=4).for_each(|uid| server.delete(uid));
    (server, before)
}

/// Ledger and UIDs are put back from one backup, the lock is not.
#[test]
fn a_number_that_only_a_newer_mark_knows_is_told_to_no_new_message() {
    for storage in STORAGES {
        let (mut server, before) = listed_thrice_and_deleted(storage);
        (server.ledger, server.next_uid) = (before.ledger, before.next_uid);
        server.put(mail("new", 8, 8), "new".into());
        let uidls = server.uidls();
        assert_eq!(uidls[..2], ["U1", "U2"]);
        assert!(is_derived(&uidls[2]), "{storage:?}: {uidls:?}");
    }
}

/// The same on a dbox, and as many mails come as there were: it has counted as far as before.
#[test]
fn a_number_that_only_a_newer_mark_knows_is_not_told_to_a_message_of_another_name() {
    let (mut server, before) = listed_twice(Storage::Dbox, false);
    server.delete(3);
    (server.ledger, server.next_uid) = (before.ledger, before.next_uid);
    server.put(mail("new", 8, 8), "new".into());
    let uidls = server.uidls();
    assert!(is_derived(&uidls[2]), "a client knows this one for another mail: {uidls:?}");
}

#[test]
fn a_number_that_only_a_newer_ledger_knows_is_told_to_no_new_message() {
    for storage in STORAGES {
        for mark_is_older in [true, false] {
            let (mut server, before) = listed_thrice_and_deleted(storage);
            server.next_uid = before.next_uid;
            server.mark = before.mark.filter(|_| mark_is_older);
            server.put(mail("new", 8, 8), "new".into());
            let uidls = server.uidls();
            assert!(is_derived(&uidls[2]), "{storage:?}: {uidls:?}");
        }
    }
}

#[test]
fn what_an_older_ledger_lacks_is_told_its_own_number_again_where_its_uid_holds() {
    let whole = ["U1".to_owned(), "U2".to_owned(), native(3)];
    for (storage, bakes, is_index_new, is_another, holds) in [
        (Storage::Dbox, false, false, false, true),
        (Storage::Dbox, false, true, false, true),
        (Storage::Dbox, false, true, true, false),
        (Storage::Maildir, true, true, false, true),
        (Storage::Maildir, false, false, false, true),
        (Storage::Maildir, false, false, true, false),
    ] {
        for is_lost in [false, true] {
            let (mut server, before) = listed_twice(storage, bakes);
            server.ledger = before.ledger.filter(|_| !is_lost);
            server.index_id += u32::from(is_index_new);
            if is_another {
                server.held[2].name = "another".to_owned();
            }
            let uidls = server.uidls();
            let what = format!("{storage:?}, {bakes}, {is_index_new}, {is_another}, {is_lost}");
            assert_eq!(uidls == whole, holds, "{what}: {uidls:?}");
            assert!(holds || is_derived(&uidls[2]), "{what}: {uidls:?}");
        }
    }
}

/// Dovecot's index was lost after the ledger of the backup was written.
#[test]
fn what_an_older_ledger_of_another_uidvalidity_lacks_is_told_its_own_number_again() {
    let (mut server, _) = listed_once();
    server.next_uid = 50;
    let before = server.log_in().ledger;
    server.uidvalidity = 100;
    server.number_anew(1);
    server.put(mail("new", 9, 9), "new".into());
    let told = server.uidls();
    assert_eq!(told[2], "0000000300000064");
    server.ledger = Some(before);
    assert_eq!(server.uidls(), told);
}

/// The message that went and came back would stand where no client looks: behind the last message
/// that is known to a client that searches by halves, with new mail before it.
#[test]
fn where_only_a_mark_remembers_no_guid_is_told_to_what_came_since() {
    let (mut server, _) = listed_once();
    server.native = UidlFormat::parse("%g").unwrap();
    for name in ["x", "y"] {
        server.put(mail(name, 9, 9), name.into());
    }
    assert_eq!(server.uidls(), ["U1", "U2", "x", "y"]);
    server.ledger = None;
    server.delete(3);
    server.put(mail("new", 8, 8), "new".into());
    server.put(mail("x", 9, 9), "x".into());
    let uidls = server.uidls();
    assert_eq!(uidls[..3], ["U1", "U2", "y"]);
    assert!(uidls[3..].iter().all(|uidl| is_derived(uidl)), "{uidls:?}");
}

#[test]
fn nobody_is_locked_out_for_a_lost_ledger_and_claims_go_by_evidence_as_ever() {
    for storage in STORAGES {
        let (mut server, _) = listed_twice(storage, false);
        server.ledger = None;
        server.put(mail("c", 3, 3), "copy3".into());
        let resolution = server.log_in();
        let came = [1, 2, 4].map(|uid| provenance(&resolution, uid));
        assert_eq!(came, [Provenance::File, Provenance::Header, Provenance::Header]);
    }
}

#[test]
fn where_the_mark_is_damaged_any_number_may_have_been_told() {
    for is_ledger_lost in [false, true] {
        let (mut server, _) = listed_once();
        if is_ledger_lost {
            server.ledger = None;
        }
        server.mark = Some(Mark::damaged());
        server.put(mail("new", 9, 9), "new".into());
        let uidls = server.uidls();
        assert_eq!(uidls[..2], ["U1", "U2"]);
        assert!(is_derived(&uidls[2]), "{uidls:?}");
        server.put(mail("newer", 9, 8), "newer".into());
        assert!(is_derived(&server.uidls()[3]), "nor is it known later");
    }
}

#[test]
fn where_the_mark_is_lost_the_ledger_alone_serves() {
    let (mut server, _) = listed_twice(Storage::Dbox, false);
    server.mark = None;
    server.put(mail("new", 8, 8), "new".into());
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3), native(4)]);
}

/// On Maildir the list of UIDs has what was told. On dbox all is as at a first listing.
#[test]
fn where_ledger_and_mark_are_lost_what_storage_has_and_what_evidence_says_is_the_same() {
    for storage in STORAGES {
        let (mut server, _) = listed_twice(storage, true);
        server.lose_memory();
        assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)], "{storage:?}");
    }
}

/// `dovecot-uidlist` is lost, one login, and a backup of it is put back.
#[test]
fn numbers_told_under_a_uidvalidity_stay_spent_when_it_comes_back() {
    for lost in ["nothing", "the ledger", "the mark"] {
        let (mut server, before) = listed_twice(Storage::Dbox, false);
        server.delete(3);
        server.uidvalidity = 100;
        server.number_anew(1);
        server.put(mail("between", 8, 8), "between".into());
        assert_eq!(server.uidls()[2], "0000000300000064");
        server.delete(3);
        (server.uidvalidity, server.next_uid) = (99, before.next_uid);
        server.ledger = server.ledger.filter(|_| lost != "the ledger");
        server.mark = server.mark.filter(|_| lost != "the mark");
        server.put(mail("new", 7, 7), "new".into());
        let resolution = server.log_in();
        assert_eq!(provenance(&resolution, 3), Provenance::Derived, "{lost} is lost");
        let told = [(100, 4), (99, 4)].map(|(uidvalidity, below)| Told { uidvalidity, below });
        assert_eq!(resolution.ledger.told, told, "the mailbox's own last");
    }
}

/// Dovecot's index is lost, one login, and index and ledger are put back from a backup, the lock is
/// not. The new message bears no name, and is known by its UID alone.
#[test]
fn how_far_another_uidvalidity_had_counted_says_nothing_against_uids_that_came_back() {
    let (mut server, _) = listed_once();
    server.put(mail("new", 9, 9), String::new());
    let told = server.uidls();
    let mut before = server.clone();
    server.uidvalidity = 100;
    server.number_anew(1);
    (0..3).for_each(|n| _ = server.put(mail("between", 8, n), format!("between{n}")));
    server.log_in();
    before.mark = server.mark;
    before.put(mail("newer", 7, 7), "newer".into());
    assert_eq!(before.uidls(), [&told[..], &[native(4)]].concat());
}

/// A mail comes with a UIDL of an earlier conversion, and has the UID that the UIDL is made of.
#[test]
fn a_stored_number_that_was_told_under_another_uidvalidity_is_not_the_messages_own() {
    let (mut server, _) = listed_twice(Storage::Dbox, false);
    server.delete(3);
    server.log_in();
    server.uidvalidity = 100;
    server.number_anew(1);
    for (name, number) in [("told", 3), ("not told", 4)] {
        server.put(mail(name, 9, 9), name.into());
        server.store(name, &native(number), None);
    }
    let uidls = server.uidls();
    assert!(!uidls.contains(&native(3)), "a client knows this one for another mail: {uidls:?}");
    assert!(uidls.contains(&native(4)), "{uidls:?}");
}

#[test]
fn numbers_that_begin_anew_under_another_uidvalidity_are_not_spent() {
    let (mut server, _) = listed_twice(Storage::Dbox, false);
    server.delete(3);
    server.uidvalidity += 1;
    server.number_anew(1);
    for name in ["newer", "newest"] {
        server.put(mail(name, 8, 8), name.into());
    }
    assert_eq!(server.uidls(), ["U1", "U2", "0000000300000064", "0000000400000064"]);
}

#[test]
fn the_next_uid_is_raised_past_every_number_that_was_told() {
    let (mut server, before) = listed_twice(Storage::Dbox, false);
    server.delete(3);
    (server.ledger, server.next_uid) = (before.ledger, before.next_uid);
    server.put(mail("new", 8, 8), "new".into());
    server.next_uid = 3;
    assert_eq!(server.log_in().first_unspent_uid, 4);
    server.put(mail("newest", 7, 7), "newest".into());
    assert_eq!(*server.uidls().last().unwrap(), native(4));
}

#[test]
fn a_uid_that_was_given_before_the_last_listing_gives_no_uidl() {
    let (mut server, _) = listed_twice(Storage::Dbox, false);
    server.delete(3);
    server.put(mail("newer", 8, 8), "newer".into());
    assert_eq!(server.uidls()[2], native(4));
    server.put(mail("newest", 7, 7), "newest".into());
    server.held[3].uid = 3;
    server.held.swap(2, 3);
    assert!(is_derived(&server.uidls()[3]));
}

#[test]
fn what_is_restored_has_a_next_uid_that_no_client_can_have_seen_and_that_once() {
    for is_listed_message_there in [true, false] {
        let (mut server, before) = listed_twice(Storage::Dbox, false);
        (server.ledger, server.mark) = (before.ledger, before.mark);
        server.stamps.restored = 5;
        if !is_listed_message_there {
            server.delete(3);
            server.next_uid = 3;
        }
        let next_uid = server.next_uid;
        assert!(server.warm().is_none(), "no login passes the stamp by");
        let uidls = server.uidls();
        assert_eq!(uidls[..2], ["U1", "U2"]);
        assert!(uidls[2..].iter().all(|uidl| is_derived(uidl)), "a number may be told: {uidls:?}");
        assert_eq!(server.next_uid, next_uid + COUNTS_ON);
        server.put(mail("new", 8, 8), "new".into());
        assert_eq!(*server.uidls().last().unwrap(), native(next_uid + COUNTS_ON));
        assert_eq!(server.next_uid, next_uid + COUNTS_ON + 1);
        server.ledger = None;
        server.log_in();
        assert_eq!(server.next_uid, next_uid + COUNTS_ON + 1, "the mark knows that it was heeded");
    }
}

#[test]
fn what_was_forgotten_is_told_anew_and_what_it_told_stays_spent() {
    let (mut server, _) = listed_twice(Storage::Dbox, true);
    server.stamps.forgotten = 7;
    for (entry, right) in server.captured.entries.iter_mut().zip(["R1", "R2", "R3"]) {
        entry.uidl = uidl(right);
    }
    server.captured.entries.remove(0);
    server.captured.spent.push(uidl("U1"));
    assert!(server.warm().is_none(), "no login passes the stamp by");
    let uidls = server.uidls();
    assert_eq!(uidls[0], "R2", "known messages stand before unknown ones");
    assert!(is_derived(&uidls[1]), "its number is in a range that was told: {uidls:?}");
    assert_eq!(uidls[2], native(3), "this very message was told it");
    assert_eq!(server.ledger.as_ref().unwrap().begun_after, 7);
    server.put(mail("c", 3, 3), "copy3".into());
    assert_eq!(server.uidls()[3], "R3");
}

/// A number that was told is told again to the message that had it, and to no other.
#[test]
fn a_forgotten_number_stays_with_its_message_as_long_as_uids_hold() {
    for same_index in [true, false] {
        let (mut server, _) = listed_twice(Storage::Dbox, false);
        server.stamps.forgotten = 7;
        if !same_index {
            server.held[2].name = "other".into();
            server.index_id += 1;
        }
        let uidls = server.uidls();
        assert_eq!(uidls[2] == native(3), same_index, "{uidls:?}");
    }
}

/// The right index has it: the old server gave UIDLs as the new one does.
#[test]
fn a_forgotten_number_that_another_message_is_told_now_is_not_told_twice() {
    let (mut server, _) = listed_twice(Storage::Dbox, false);
    server.stamps.forgotten = 7;
    server.captured.entries[0].uidl = uidl(&native(3));
    server.captured.spent.push(uidl("U1"));
    let uidls = server.uidls();
    assert_eq!(uidls[..2], [native(3), "U2".to_owned()]);
    assert!(is_derived(&uidls[2]), "{uidls:?}");
}

#[test]
fn a_uidl_that_was_baked_by_mistake_is_not_believed_where_the_right_index_has_it_for_another() {
    let (mut server, old) = listed_once();
    server.storage = Storage::Maildir;
    server.log_in();
    server.stamps.forgotten = 1;
    server.captured = captured(&[("U1", &old[2]), ("U2", &old[1])]);
    let uidls = server.uidls();
    assert_eq!(uidls[0], "U2");
    assert!(is_derived(&uidls[1]), "{uidls:?}");
}

#[test]
fn a_uidl_that_was_baked_by_mistake_is_not_believed_where_no_key_contradicts_it() {
    let (mut server, old) = listed_once();
    server.storage = Storage::Maildir;
    server.log_in();
    server.stamps.forgotten = 1;
    server.captured = captured(&[("U1", &old[2]), ("U2", &old[1])]);
    server.captured.entries[0].header = None;
    let uidls = server.uidls();
    assert!(!uidls.contains(&"U1".to_owned()), "{uidls:?}");
}

/// The ledger is lost as well: then only content can tell which UIDLs were baked by mistake.
#[test]
fn after_forgetting_an_order_number_of_ours_says_nothing_of_a_stored_uidl() {
    let (mut server, old) = listed_once();
    server.storage = Storage::Maildir;
    server.log_in();
    server.lose_memory();
    server.stamps.forgotten = 1;
    server.captured = captured(&[("U1", &old[2]), ("U2", &old[1])]);
    let resolution = server.log_in();
    assert_eq!(resolution.ledger.records[0].uidl, uidl(&native(1)));
    assert_eq!(resolution.ledger.records[1].uidl, uidl("U2"));
}

#[test]
fn a_mark_that_was_forgotten_holds_no_place_and_its_numbers_stay_spent() {
    let (mut server, before) = listed_twice(Storage::Dbox, false);
    server.ledger = None;
    server.stamps.forgotten = 7;
    server.delete(3);
    server.next_uid = before.next_uid;
    server.put(mail("new", 8, 8), "new".into());
    let uidls = server.uidls();
    assert!(is_derived(&uidls[2]), "{uidls:?}");
}

#[test]
fn of_a_format_without_uidvalidity_no_number_is_told() {
    for (format, is_told) in [("%u", false), ("%g", true), ("%08Xu%08Xv", true)] {
        let (mut server, _) = listed_once();
        server.native = UidlFormat::parse(format).unwrap();
        server.put(mail("new", 9, 9), "new".into());
        let uidls = server.uidls();
        assert_eq!(!is_derived(&uidls[2]), is_told, "{format}: {uidls:?}");
    }
}

/// Nobody knows which of its UIDLs are spent.
#[test]
fn of_a_format_that_cannot_be_followed_no_uidl_is_told_to_a_new_message() {
    let (mut server, _) = listed_once();
    server.is_native_followed = false;
    server.put(mail("new", 9, 9), "new".into());
    let uidls = server.uidls();
    assert!(is_derived(&uidls[2]), "{uidls:?}");
}

/// "Settled" promises that Dovecot's own UIDLs are unspent from there on, and after a damaged mark
/// any may have been told. A ledger that is older is put back with its UIDs, and the mark is
/// damaged: at the first login all is derived, and from the second on the short way gives native
/// UIDLs again.
#[test]
fn what_had_a_damaged_mark_is_not_settled_while_any_number_may_have_been_told() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, true);
    server.uidls();
    let before = server.clone();
    for n in 0..3 {
        server.put(mail("later", 9, n), format!("later{n}"));
    }
    assert_eq!(server.uidls()[1], native(2));
    server = before;
    server.mark = Some(Mark::damaged());
    server.log_in();
    assert_eq!(server.ledger.as_ref().unwrap().native_from, None);
    let ledger = server.log_in().ledger;
    assert_eq!(ledger.told, [Told { uidvalidity: 99, below: u32::MAX }]);
    assert_eq!(
        ledger.native_from, None,
        "the rules would derive what the short way takes as it is"
    );
}

/// Dovecot's index of a dbox is put back from a backup, alone, with its id; so many mails come that
/// it has counted as far as before when the next login comes.
#[test]
fn a_new_message_on_a_dbox_is_not_taken_for_what_had_its_uid_before_the_index_was_put_back() {
    let (mut server, _) = listed_once();
    let uid = server.put(mail("later", 9, 9), "later".into());
    assert_eq!(server.uidls()[2], native(3));
    server.delete(uid);
    server.next_uid = uid;
    server.put(mail("new", 8, 8), "new".into());
    let uidls = server.uidls();
    assert!(is_derived(&uidls[2]), "a client knows this one for another mail: {uidls:?}");
}

/// `forget` undoes everything of ours. A client that polled only the old server knows R2, looks for
/// the first unknown message by halves, and never sees the messages that stand before it.
#[test]
fn after_forgetting_what_clients_know_already_stands_before_what_they_do_not_on_a_maildir_too() {
    let (mut server, old) = listed_once();
    server.storage = Storage::Maildir;
    server.delete(1);
    server.put(Mail { name: "new".into(), ..mail("new", 9, 9) }, "new".into());
    server.log_in();
    server.stamps.forgotten = 7;
    server.captured = captured(&[("R1", &old[0]), ("R2", &old[1])]);
    server.captured.spent.push(uidl("U2"));
    assert_eq!(server.uidls()[0], "R2");
}

/// The same where the message that clients know has kept its UIDL, and came after a new one.
#[test]
fn after_forgetting_what_was_copied_late_stands_before_what_was_new() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.storage = Storage::Maildir;
    server.put(mail("new", 9, 9), "new".into());
    server.log_in();
    server.copy(&a, true);
    assert_eq!(server.uidls(), [native(1), "U1".to_owned()]);
    server.stamps.forgotten = 7;
    assert_eq!(server.uidls(), ["U1".to_owned(), native(1)]);
}

/// Ledger and mailbox are put back, and the mark knows of ten messages: the UIDs of the ledger are
/// all there, but this says nothing of the eight that are not.
#[test]
fn a_newer_mark_guards_what_an_older_ledger_never_listed() {
    for storage in STORAGES {
        let (mut server, _) = listed_once();
        server.storage = storage;
        server.log_in();
        let mut before = server.clone();
        for n in 0..8 {
            server.put(mail("later", 9, n), format!("later{n}"));
        }
        server.log_in();
        before.mark = server.mark;
        let refusal = before.try_to_log_in().unwrap_err();
        assert!(matches!(refusal, Undecidable::MostAreGone { found: 2, left: 10 }), "{refusal:?}");
    }
}

/// A settled maildrop knows from which number on none is spent, and knows nothing of names.
#[test]
fn a_maildrop_is_settled_only_under_a_format_with_uid_and_uidvalidity() {
    for (format, is_settled) in [("%08Xu%08Xv", true), ("%u", false), ("%v-%g", false)] {
        let a = mail("a", 1, 1);
        let mut server = Server::new(captured(&[("U1", &a)]));
        server.captured.spent.push(uidl("99-gone"));
        server.native = UidlFormat::parse(format).unwrap();
        server.copy(&a, true);
        assert_eq!(server.log_in().ledger.native_from.is_some(), is_settled, "{format}");
        server.put(mail("gone", 9, 9), "gone".into());
        assert_ne!(server.uidls()[1], "99-gone");
    }
}

/// A settled maildrop answers a new message without the index, except for one that bears a UIDL:
/// that UIDL may be an entry's.
#[test]
fn a_settled_maildrop_looks_up_what_was_captured_for_a_message_that_bears_a_uidl() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, true);
    server.log_in();
    server.put(mail("new", 8, 8), "new".into());
    server.log_in();
    assert!(!server.asked_captured);
    server.put(mail("told", 9, 9), "told".into());
    server.store("told", "P1", None);
    server.log_in();
    assert!(server.asked_captured);
}

/// At the first listing the mailbox jumped past what the old server counts, for a format that
/// counts as that one does. All memory of it is put back to before, and the format is another by
/// now.
#[test]
fn after_a_restore_no_number_is_given_that_the_mailbox_had_reached_under_another_format() {
    for (counter, spent) in [(70_000, "1"), (2, "70000")] {
        let mut server = Server::new(captured(&[("1", &mail("a", 1, 1))]));
        server.captured.spent.push(uidl(spent));
        let format = UidlFormat::parse("%u").unwrap();
        server.captured.counter = Some(Counter { format: format.clone(), next: counter });
        server.copy(&mail("a", 1, 1), true);
        let (native, next_uid) = (std::mem::replace(&mut server.native, format), server.next_uid);
        server.log_in();
        server.native = native;
        let told = server.put(mail("new", 9, 9), "new".into());
        server.log_in();
        server.delete(told);
        server.lose_memory();
        server.next_uid = next_uid;
        server.stamps.restored = 7;
        server.log_in();
        assert!(server.next_uid > told, "{} after {told}", server.next_uid);
    }
}

/// The mark names the last 16; its last message tells for those before them that UIDs hold.
#[test]
fn more_new_messages_than_the_mark_names_are_told_again_on_a_dbox() {
    let (mut server, _) = listed_once();
    server.storage = Storage::Dbox;
    for nth in 0..20 {
        server.put(mail("new", 9, nth), format!("new{nth}"));
    }
    let told = server.uidls();
    assert_eq!(told[21], native(22));
    server.ledger = None;
    assert_eq!(server.uidls(), told);
}
