//! Rule 4: order is append-only.

use super::{derived_uidl, listed_once, native};
use crate::support::rules::{Server, Storage, captured, mail};
use uidl_keep::ledger::{FIRST_ORDER, MAX_NEXT_ORDER};
use uidl_keep::resolve::{Resolution, Undecidable};

/// The order number of each message, by UID.
fn orders(resolution: &Resolution) -> Vec<u32> {
    let records = resolution.ledger.records.iter().filter(|record| record.uid != 0);
    records.map(|record| record.order).collect()
}

/// Two entries, and a message that is neither's first.
fn with_new_first() -> Server {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.put(mail("new", 9, 9), "new".into());
    server.copy(&b, true);
    server.copy(&a, true);
    server
}

#[test]
fn what_comes_late_goes_behind_what_was_listed() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    server.copy(&a, true);
    server.copy(&c, true);
    assert_eq!(server.uidls(), ["U1", "U3"]);
    server.copy(&mail("new", 8, 8), true);
    assert_eq!(server.uidls(), ["U1".to_owned(), "U3".to_owned(), native(3)]);
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["U1".to_owned(), "U3".to_owned(), native(3), "U2".to_owned()]);
}

#[test]
fn at_a_first_listing_the_old_order_goes_before_what_is_new() {
    let mut server = with_new_first();
    assert_eq!(orders(&server.log_in()), [2, 1, 0].map(|n| FIRST_ORDER + n));
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(1)]);
}

#[test]
fn an_order_number_of_ours_is_replayed_beside_what_is_told_and_new_ones_are_above_all() {
    let mut server = with_new_first();
    server.store("a", "U1", Some(FIRST_ORDER + 7));
    server.store("b", "U2", Some(FIRST_ORDER + 3));
    assert_eq!(orders(&server.log_in()), [8, 3, 7].map(|n| FIRST_ORDER + n));
    assert_eq!(server.uidls(), ["U2".to_owned(), "U1".to_owned(), native(1)]);
}

/// The new mail, as it was told on another node, came by dsync, the old mail by another way: a
/// client that searches by halves must find old mail before new.
#[test]
fn an_order_number_of_ours_says_nothing_where_old_mail_has_none() {
    let mut server = with_new_first();
    server.store("new", &native(1), Some(FIRST_ORDER));
    assert_eq!(orders(&server.log_in()), [3, 2, 1].map(|n| FIRST_ORDER + n));
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(1)]);
}

#[test]
fn an_order_number_of_ours_beside_what_is_not_told_is_not_replayed_and_not_given_again() {
    let mut server = with_new_first();
    server.store("b", "U1", Some(FIRST_ORDER + 3));
    assert_eq!(orders(&server.log_in()), [6, 5, 4].map(|n| FIRST_ORDER + n));
}

#[test]
fn an_order_number_that_two_messages_have_is_replayed_for_one() {
    let mut server = with_new_first();
    server.store("a", "U1", Some(FIRST_ORDER + 3));
    server.store("b", "U2", Some(FIRST_ORDER + 3));
    assert_eq!(orders(&server.log_in()), [5, 4, 3].map(|n| FIRST_ORDER + n));
}

/// The few were sorted before all others once, and a client that searches by halves fetched none.
#[test]
fn another_servers_order_number_is_nothing_beside_what_claims_an_entry() {
    for orders in [[1, 2], [2, 1], [0, 9]] {
        let mut server = with_new_first();
        server.store("b", "U2", Some(orders[0]));
        server.store("a", "other", Some(orders[1]));
        assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(1)], "{orders:?}");
    }
}

#[test]
fn another_servers_order_number_places_what_storage_answers_behind_claims_and_before_unknown() {
    let mut server = with_new_first();
    for (name, order) in [("x", None), ("y", Some(5)), ("z", Some(4))] {
        server.put(mail(name, 9, 9), name.into());
        server.store(name, &format!("other-{name}"), order);
    }
    server.put(mail("derived", 9, 9), "derived".into());
    server.held[6].stored = Some(derived_uidl());
    let told = ["U1", "U2", "other-z", "other-y", "other-x"].map(str::to_owned);
    let told = [&told[..], &[native(1), derived_uidl().to_string()]].concat();
    assert_eq!(server.uidls(), told);
}

#[test]
fn a_number_that_was_given_is_never_given_again() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        for is_ledger_lost in [false, true] {
            let (mut server, _) = listed_once();
            server.storage = storage;
            let uid = server.put(mail("new", 9, 9), "new".into());
            assert_eq!(orders(&server.log_in())[2], FIRST_ORDER + 2);
            server.delete(uid);
            server.log_in();
            if is_ledger_lost {
                server.ledger = None;
            }
            server.put(mail("newer", 8, 8), "newer".into());
            let orders = orders(&server.log_in());
            assert!(orders[2] > FIRST_ORDER + 2, "{storage:?}: {orders:?}");
        }
    }
}

#[test]
fn a_number_that_only_storage_knows_is_not_given_again() {
    let (mut server, _) = listed_once();
    server.storage = Storage::Maildir;
    server.put(mail("new", 9, 9), "new".into());
    server.log_in();
    server.lose_memory();
    server.put(mail("newer", 8, 8), "newer".into());
    assert_eq!(orders(&server.log_in()), [0, 1, 2, 3].map(|n| FIRST_ORDER + n));
}

#[test]
fn what_the_mark_knows_was_listed_goes_before_an_old_message_that_comes_later() {
    for is_ledger_lost in [false, true] {
        let (mut server, old) = listed_once();
        let ledger = server.ledger.clone();
        server.put(mail("new", 9, 9), "new".into());
        let mut told = server.uidls();
        server.ledger = ledger.filter(|_| !is_ledger_lost);
        server.copy(&old[2], true);
        told.push("U3".to_owned());
        assert_eq!(server.uidls(), told, "lost: {is_ledger_lost}");
    }
}

#[test]
fn a_maildrop_whose_order_numbers_are_used_up_is_refused() {
    let mut server = with_new_first();
    server.store("a", "U1", Some(MAX_NEXT_ORDER - 1));
    let listed = ["U1".to_owned(), "U2".to_owned(), native(1)];
    assert_eq!(server.uidls(), listed, "one that storage has uses nothing up");
    server.ledger.as_mut().unwrap().next_order = MAX_NEXT_ORDER - 1;
    server.put(mail("newer", 8, 8), "newer".into());
    assert_eq!(super::refused(&mut server), Undecidable::OrderExhausted);
    server.stamps.forgotten = 1;
    assert_eq!(server.uidls().len(), 4, "forgotten, they begin anew");
}

/// A conversion brought order numbers of the old server: none of them is ours.
#[test]
fn an_order_number_of_another_server_does_not_outvote_the_captured_order() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&a, true);
    server.copy(&b, true);
    for (name, uidl, order) in [("a", "U1", 9), ("b", "U2", 4)] {
        server.store(name, uidl, Some(order));
    }
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

/// The ledger is lost; the old mail is known by what was baked, or on dbox by its UID.
#[test]
fn a_late_copy_stands_behind_what_was_listed_where_the_ledger_is_lost() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        let old = [mail("a", 1, 1), mail("b", 2, 2)];
        let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
        server.storage = storage;
        server.copy(&old[1], true);
        assert_eq!(server.uidls(), ["U2"]);
        server.ledger = None;
        server.copy(&old[0], true);
        assert_eq!(server.uidls(), ["U2", "U1"], "{storage:?}");
    }
}

/// The last message that was listed has gone since, and the mark names the one before it: no UID
/// was given anew.
#[test]
fn old_mail_keeps_its_place_before_new_mail_where_the_last_has_gone_and_the_ledger_is_lost() {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
    server.storage = Storage::Dbox;
    server.copy(&old[0], true);
    server.put(mail("n", 9, 1), "n".into());
    server.put(mail("y", 9, 2), "y".into());
    assert_eq!(server.uidls(), ["U1".to_owned(), native(2), native(3)]);
    server.delete(3);
    server.ledger = None;
    server.copy(&old[1], true);
    assert_eq!(server.uidls(), ["U1".to_owned(), native(2), "U2".to_owned()]);
}

/// A first session is killed before its bake, and the ledger is lost. A message that could not be
/// read was told to nobody, so it comes behind what was; that is baked at once for its sake.
#[test]
fn what_could_not_be_read_stands_behind_what_was_told_also_where_the_session_was_killed() {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
    (server.storage, server.is_killed) = (Storage::Maildir, true);
    server.copy(&old[0], true);
    server.put(mail("new1", 8, 8), "new1".into());
    server.held.last_mut().unwrap().readable = false;
    server.put(mail("new2", 9, 9), "new2".into());
    server.uidls();
    server.is_killed = false;
    server.held.iter_mut().for_each(|held| held.readable = true);
    server.ledger = None;
    assert_eq!(server.uidls()[..2], ["U1".to_owned(), native(3)]);
}

/// An older list of UIDs is put back where nothing is baked, and the ledger is lost: new mail takes
/// a UID below the mark's next one, and a message that was told one above.
#[test]
fn a_uid_that_was_given_anew_says_of_no_message_that_it_was_listed() {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
    (server.storage, server.bakes) = (Storage::Maildir, false);
    old.iter().for_each(|mail| _ = server.copy(mail, true));
    assert_eq!(server.uidls(), ["U1", "U2"]);
    server.put(mail("new", 9, 9), "new".into());
    server.list_from_elsewhere(2);
    server.ledger = None;
    let uids: Vec<(String, u32)> =
        server.listing().into_iter().map(|(_, held)| (held.name, held.uid)).collect();
    assert_eq!(uids, [("a".to_owned(), 1), ("b".to_owned(), 3), ("new".to_owned(), 2)]);
}
