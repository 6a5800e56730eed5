//! New mail in a settled maildrop: the ledger alone says the same of it as the rules, and
//! [`Server::try_to_log_in`] compares them at every login.

use super::{is_derived, listed_once, native};
use crate::support::rules::{Server, Storage, captured, mail, uidl};
use uidl_keep::ledger::{MAX_NEXT_ORDER, Mark};
use uidl_keep::resolve::Undecidable;

/// A settled maildrop of two old messages and a new one, and a second new one that nobody has
/// listed.
fn settled(storage: Storage) -> Server {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
    (server.storage, server.bakes) = (storage, true);
    old.iter().for_each(|mail| _ = server.copy(mail, true));
    server.log_in();
    server.put(mail("new1", 9, 1), "new1".into());
    server.log_in();
    server.put(mail("new2", 9, 2), "new2".into());
    server.grown = 0;
    server
}

#[test]
fn new_mail_in_a_settled_maildrop_is_answered_from_the_ledger_alone() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        let mut server = settled(storage);
        server.log_in();
        assert_eq!(server.grown, 1, "{storage:?}");
        assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3), native(4)]);
        assert!(server.warm().is_some());
    }
}

#[test]
fn what_went_meanwhile_is_noted_of_what_was_kept_and_dropped_of_what_was_new() {
    let mut server = settled(Storage::Maildir);
    server.delete(1);
    server.delete(3);
    server.log_in();
    assert_eq!(server.grown, 1);
    let places = server.ledger.unwrap().records.into_iter().map(|record| (record.uid, record.uidl));
    let [old, new] = [uidl("U2"), uidl(&native(4))];
    assert_eq!(places.collect::<Vec<_>>(), [(0, uidl("U1")), (2, old), (4, new)]);
}

#[test]
fn whatever_the_ledger_does_not_know_is_for_the_rules() {
    type Change = fn(&mut Server);
    let changes: [(&str, Change); 11] = [
        ("a delta was built", |server| server.captured.spent.push(uidl("delta"))),
        ("restored", |server| server.stamps.restored += 1),
        ("unguarded", |server| server.stamps.unguarded += 1),
        ("forgotten", |server| server.stamps.forgotten += 1),
        ("no mark", |server| server.mark = None),
        ("a damaged mark", |server| server.mark = Some(Mark::damaged())),
        ("a mark that knows more", |server| server.mark.as_mut().unwrap().next_order += 1),
        ("no ledger", |server| server.ledger = None),
        ("UIDs were given anew", |server| server.uidvalidity += 1),
        ("P beside it", |server| server.store("new2", "P", None)),
        ("it bears a name that was listed", |server| {
            server.delete(3);
            server.held.last_mut().unwrap().name = "new1".into();
        }),
    ];
    for (what, change) in changes {
        for storage in [Storage::Maildir, Storage::Dbox] {
            let mut server = settled(storage);
            change(&mut server);
            server.log_in();
            assert_eq!(server.grown, 0, "{what}, {storage:?}");
        }
    }
    // On a Maildir another index is another front end's.
    for (storage, grown) in [(Storage::Maildir, 1), (Storage::Dbox, 0)] {
        let mut server = settled(storage);
        server.index_id += 1;
        server.log_in();
        assert_eq!(server.grown, grown, "{storage:?}");
    }
}

#[test]
fn while_an_old_message_may_still_come_no_maildrop_is_settled() {
    let (mut server, _) = listed_once();
    for nth in 1..4 {
        server.put(mail("new", 9, nth), format!("new{nth}"));
        server.log_in();
    }
    assert_eq!(server.grown, 0);
}

#[test]
fn a_new_message_that_cannot_be_read_is_for_the_rules() {
    let mut server = settled(Storage::Dbox);
    server.held.last_mut().unwrap().readable = false;
    let resolution = server.log_in();
    assert_eq!((server.grown, resolution.passing.len()), (0, 1));
}

#[test]
fn where_order_numbers_end_the_rules_refuse() {
    let mut server = settled(Storage::Maildir);
    let ledger = server.ledger.as_mut().unwrap();
    ledger.next_order = MAX_NEXT_ORDER - 1;
    server.mark = Some(Mark::of(ledger, 3));
    assert_eq!(server.try_to_log_in().unwrap_err(), Undecidable::OrderExhausted);
}

/// Until they are baked, the mark has the last new messages one by one, so that a lost ledger
/// costs nothing.
#[test]
fn what_new_messages_were_told_is_told_again_where_the_ledger_is_lost_before_the_bake() {
    let mut server = settled(Storage::Maildir);
    for nth in 3..60 {
        server.log_in();
        let before = server.uidls();
        let mut lost = server.clone();
        lost.ledger = None;
        assert_eq!(lost.uidls(), before, "{nth} new messages");
        let unbaked = server.held.iter().filter(|held| held.stored.is_none()).count();
        assert!(unbaked <= Mark::NATIVES, "{unbaked} of {nth}");
        server.put(mail("new", 9, nth), format!("new{nth}"));
    }
    assert!(server.grown > 50, "{} of 57", server.grown);
}

#[test]
fn a_number_that_only_the_mark_has_is_told_to_no_message_of_another_name() {
    let mut server = settled(Storage::Maildir);
    server.log_in();
    server.ledger = None;
    server.delete(4);
    server.next_uid = 4;
    server.put(mail("another", 8, 8), "another".into());
    assert!(is_derived(&server.uidls()[3]));
}
