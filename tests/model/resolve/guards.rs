//! Rule 10, and the other things that the rules refuse.

use super::{captured_all, is_derived, listed_once, native, refused, several};
use crate::support::rules::{CAPTURED_AT, Server, Storage, capture, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::{FIRST_ORDER, Mark};
use uidl_keep::maildrop::Counter;
use uidl_keep::resolve::{Need, Undecidable};

/// Ten captured messages behind a guard, of which so many were copied.
fn half_copied(copied: usize) -> Server {
    let mails = several(10);
    let mut server = Server::new(captured_all(&mails));
    server.guarded = true;
    mails[..copied].iter().for_each(|mail| _ = server.copy(mail, true));
    server
}

#[test]
fn a_first_listing_of_fewer_than_half_of_what_was_captured_is_refused() {
    let mut server = half_copied(4);
    server.put(mail("new", 99, 9), "new".into());
    let few =
        Undecidable::HalfCopied { found: 4, captured: 10, messages: 5, first_unknown: Some(5) };
    assert_eq!(refused(&mut server), few);
    server.guarded = false;
    assert!(server.try_to_list().is_ok());
    assert!(half_copied(5).try_to_list().is_ok());
}

#[test]
fn a_refused_first_listing_says_whether_to_copy_on_or_to_look_why_nothing_was_recognised() {
    for (copied, others, says) in [
        (4, 0, "finish the copy"),
        (2, 2, "finish the copy"),
        (4, 1, "the others, the first is UID 5, have no name"),
    ] {
        let mut server = half_copied(copied);
        (0..others).for_each(|n| _ = server.put(mail("other", 99, n), format!("other{n}")));
        let told = refused(&mut server).to_string();
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn only_a_first_listing_is_refused_for_what_was_captured() {
    let mut server = half_copied(5);
    server.uidls();
    (1..=4).for_each(|uid| server.delete(uid));
    server.put(mail("new", 99, 9), "new".into());
    assert_eq!(server.uidls(), ["U4".to_owned(), native(6)]);
}

/// Clients saw these last on the old server; they had deleted the others before.
#[test]
fn the_entries_of_the_last_capture_are_those_that_must_be_there() {
    let mut server = half_copied(0);
    server.captured.captures.push(capture(2 * CAPTURED_AT, None));
    server.captured.entries[6..].iter_mut().for_each(|entry| entry.last_capture = 1);
    let mails = several(10);
    mails[..7].iter().for_each(|mail| _ = server.copy(mail, true));
    let few = Undecidable::HalfCopied { found: 1, captured: 4, messages: 7, first_unknown: None };
    assert_eq!(refused(&mut server), few);
    server.copy(&mails[7], true);
    assert_eq!(server.uidls().len(), 8);
}

#[test]
fn a_ledger_a_mark_or_the_roster_lifts_the_guard_of_the_first_listing() {
    let listed = {
        let mut server = half_copied(5);
        server.uidls();
        (1..=4).for_each(|uid| server.delete(uid));
        server
    };
    for (what, keep) in [
        ("ledger", (|server| server.mark = None) as fn(&mut Server)),
        ("mark", |server| server.ledger = None),
        ("listed", |server| {
            server.lose_memory();
            server.stamps.listed = true;
        }),
    ] {
        let mut server = listed.clone();
        keep(&mut server);
        server.log_in();
        assert_eq!(server.uidls(), ["U4"], "{what}");
    }
    let mut server = listed;
    server.lose_memory();
    assert!(matches!(refused(&mut server), Undecidable::HalfCopied { found: 1, .. }));
}

/// A half-copied Dovecot has them.
#[test]
fn what_storage_holds_does_not_lift_the_guard_of_the_first_listing() {
    let mut server = half_copied(4);
    for n in 0..4 {
        server.store(&format!("m{n}"), &format!("U{n}"), Some(FIRST_ORDER + n));
    }
    assert!(matches!(refused(&mut server), Undecidable::HalfCopied { found: 4, .. }));
}

#[test]
fn what_the_operator_says_may_be_missing_lifts_each_guard_once() {
    let mut server = half_copied(4);
    server.stamps.unguarded = 5;
    assert_eq!(server.uidls().len(), 4);
    for ledger_is_lost in [false, true] {
        let mut server = server.clone();
        server.held.truncate(1);
        server.index_id += 1;
        server.uidvalidity += 1;
        if ledger_is_lost {
            server.ledger = None;
        }
        let gone = Undecidable::MostAreGone { found: 1, left: 4 };
        assert_eq!(refused(&mut server), gone, "it was used up at the first listing");
        server.stamps.unguarded = 6;
        assert_eq!(server.uidls(), ["U0"]);
        server.held.clear();
        server.index_id += 1;
        server.uidvalidity += 1;
        server.mark.as_mut().unwrap().left = 4;
        assert_eq!(refused(&mut server), Undecidable::MostAreGone { found: 0, left: 4 });
    }
}

#[test]
fn where_uids_mean_nothing_fewer_than_half_of_what_the_last_session_left_is_refused() {
    for (storage, there) in [(Storage::Dbox, 1), (Storage::Dbox, 2), (Storage::Maildir, 1)] {
        let mut server = half_copied(4);
        (server.storage, server.guarded) = (storage, false);
        server.uidls();
        server.held.drain(..4 - there);
        server.uidvalidity += 1;
        server.number_anew(1);
        if there < 2 {
            let gone = Undecidable::MostAreGone { found: there, left: 4 };
            assert_eq!(refused(&mut server), gone, "{storage:?}");
        } else {
            assert_eq!(server.uidls().len(), there);
        }
    }
}

/// INBOX's index is lost on a dbox.
#[test]
fn an_empty_listing_under_another_index_is_refused_on_a_dbox_and_a_maildir_says_what_is_there() {
    for (storage, ledger_is_lost) in [
        (Storage::Dbox, false),
        (Storage::Dbox, true),
        (Storage::Maildir, false),
        (Storage::Maildir, true),
    ] {
        let (mut server, _) = listed_once();
        server.storage = storage;
        server.log_in();
        server.held.clear();
        server.index_id += 1;
        if ledger_is_lost {
            server.ledger = None;
        }
        match storage {
            Storage::Maildir => assert_eq!(server.uidls(), [""; 0]),
            Storage::Dbox => {
                let gone = Undecidable::MostAreGone { found: 0, left: 2 };
                assert_eq!(refused(&mut server), gone);
            }
        }
    }
}

/// A client that deletes after download leaves nothing.
#[test]
fn what_the_last_session_left_is_what_must_be_there_and_not_what_it_listed() {
    let (mut server, _) = listed_once();
    server.mark.as_mut().unwrap().left = 0;
    server.held.clear();
    server.index_id += 1;
    assert_eq!(server.uidls(), [""; 0]);
}

#[test]
fn where_no_mark_can_be_read_the_ledger_says_what_the_last_session_left() {
    for mark in [None, Some(Mark::damaged())] {
        let mut server = half_copied(10);
        server.uidls();
        (1..=6).for_each(|uid| server.delete(uid));
        server.log_in();
        server.mark = mark;
        server.uidvalidity += 1;
        server.number_anew(1);
        assert_eq!(server.clone().uidls(), ["U6", "U7", "U8", "U9"]);
        server.held.truncate(1);
        assert_eq!(refused(&mut server), Undecidable::MostAreGone { found: 1, left: 4 });
    }
}

#[test]
fn what_no_key_can_tell_counts_neither_as_missing_nor_as_half_of_a_copy() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut maildrop = captured(&[("U1", &a), ("U2", &b), ("U3", &c)]);
    for entry in &mut maildrop.entries[1..] {
        (entry.file, entry.header) = (None, None);
    }
    let mut server = Server::new(maildrop);
    server.guarded = true;
    server.copy(&a, true);
    assert_eq!(server.log_in().report.unclaimed, 0);
    server.keys.origin = true;
    server.lose_memory();
    let few = Undecidable::HalfCopied { found: 1, captured: 3, messages: 1, first_unknown: None };
    assert_eq!(refused(&mut server), few);
}

#[test]
fn what_any_one_key_can_tell_counts_as_missing() {
    let old = several(4);
    let mut maildrop = captured_all(&old);
    for (n, entry) in maildrop.entries.iter_mut().enumerate() {
        entry.file = entry.file.take().filter(|_| n == 0);
        entry.message = (n == 1).then(|| old[n].message_print());
        entry.header = entry.header.filter(|_| n == 2);
        entry.origin = entry.origin.filter(|_| n == 3);
    }
    let mut server = Server::new(maildrop);
    server.guarded = true;
    for (origin, count) in [(false, 3), (true, 4)] {
        server.keys.origin = origin;
        let Undecidable::HalfCopied { captured, .. } = refused(&mut server) else { panic!() };
        assert_eq!(captured, count);
    }
}

#[test]
fn an_index_with_less_than_clients_were_told_from_is_refused() {
    let whole = {
        let (mut server, _) = listed_once();
        server.captured.captures[0].next = Some(9);
        let format = UidlFormat::parse("UID%u-%v").unwrap();
        server.captured.counter = Some(Counter { format, next: 9 });
        server.log_in();
        server.put(mail("new", 9, 9), "new".into());
        server
    };
    for (what, change) in [
        ("it has fewer UIDLs", (|s| drop(s.captured.entries.pop())) as fn(&mut Server)),
        ("the old server counted further", |s| {
            s.captured.captures[0].next = Some(8);
            s.captured.counter.as_mut().unwrap().next = 8;
        }),
        ("that one was final", |s| s.is_final = false),
    ] {
        let mut server = whole.clone();
        change(&mut server);
        assert_eq!(refused(&mut server), Undecidable::OlderIndex { what });
        server.ledger = None;
        assert_eq!(server.uidls().len(), 3, "{what}: no ledger knows of another");
        let mut server = whole.clone();
        change(&mut server);
        server.stamps.forgotten = 1;
        assert_eq!(server.uidls().len(), 3, "{what}: a forgotten one was another's");
    }
    let mut server = whole;
    server.captured.entries.push(uidl_keep::maildrop::Entry::new(uidl("more")));
    assert_eq!(server.uidls().len(), 3, "more is no fault");
}

#[test]
fn one_unreadable_message_costs_only_itself_and_many_cost_the_login() {
    let mails = several(8);
    let mut server = Server::new(captured_all(&mails));
    mails.iter().for_each(|mail| _ = server.copy(mail, false));
    server.held[3].readable = false;
    let resolution = server.log_in();
    assert_eq!(resolution.report.undecided, [4]);
    assert!(is_derived(&resolution.passing[0].uidl.to_string()));
    assert!(resolution.passing[0].order >= resolution.ledger.next_order, "behind all others");
    assert_eq!(resolution.ledger.records.len(), 7, "nothing is recorded of it");
    server.held[3].readable = true;
    assert_eq!(server.uidls()[7], "U3");
    server.lose_memory();
    server.held[..4].iter_mut().for_each(|held| held.readable = false);
    let unreadable = Undecidable::Unreadable { unreadable: 4, messages: 8 };
    assert_eq!(refused(&mut server), unreadable);
}

/// The disk is failing: each further message is another wait for it.
#[test]
fn a_mailbox_that_cannot_be_read_is_refused_before_the_rest_of_it_is_tried() {
    for (storage, need) in [(Storage::Dbox, Need::Names), (Storage::Maildir, Need::Header)] {
        let mut server = Server::new(captured(&[("U1", &mail("a", 1, 1))]));
        server.storage = storage;
        (0..20).for_each(|n| _ = server.put(mail("new", 9, 9), format!("new{n}")));
        server.held.iter_mut().for_each(|held| held.readable = false);
        let unreadable = Undecidable::Unreadable { unreadable: 4, messages: 20 };
        assert_eq!(refused(&mut server), unreadable);
        assert_eq!(server.asked[&need], 4, "{storage:?}");
    }
}

#[test]
fn three_unreadable_messages_may_be_odd() {
    let mails = several(8);
    let mut server = Server::new(captured_all(&mails));
    mails.iter().for_each(|mail| _ = server.copy(mail, false));
    server.held[..3].iter_mut().for_each(|held| held.readable = false);
    assert_eq!(server.uidls()[..5], ["U3", "U4", "U5", "U6", "U7"]);
}

#[test]
fn of_many_messages_one_in_a_hundred_may_be_odd() {
    for (unreadable, is_refused) in [(4, false), (5, true)] {
        let mut server = Server::new(captured(&[("U1", &mail("a", 1, 1))]));
        (0..400).for_each(|n| _ = server.put(mail("new", 9, 9), format!("new{n}")));
        server.held[..unreadable].iter_mut().for_each(|held| held.readable = false);
        assert_eq!(server.try_to_list().is_err(), is_refused, "{unreadable}");
    }
}

/// A message that was listed without a name is known by its UID alone, and has its answer.
#[test]
fn unreadable_messages_that_were_listed_cost_nothing() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, true);
    for n in 0..5 {
        server.put(mail(&format!("new{n}"), 9, n), String::new());
    }
    let before = server.uidls();
    server.index_id += 1;
    server.held[1..].iter_mut().for_each(|held| held.readable = false);
    assert_eq!(server.uidls(), before);
}
