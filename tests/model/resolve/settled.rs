//! New mail in a settled maildrop: the ledger alone says the same of it as the rules, and
//! [`Server::try_to_log_in`] compares them at every login.

use super::{is_derived, listed_once, native};
use crate::support::rules::{Mail, NAMELESS, Server, Storage, captured, mail, uidl};
use uidl_keep::key::{Depth, Match};
use uidl_keep::ledger::{MAX_NEXT_ORDER, Mark};
use uidl_keep::maildrop::Entry;
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
fn while_an_old_message_may_still_come_new_mail_is_read_as_far_as_it_must_be_and_no_further() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        let (mut server, old) = listed_once();
        server.storage = storage;
        for nth in 1..4 {
            server.put(mail("new", 9, nth), format!("new{nth}"));
            server.log_in();
        }
        // A copy of what is recognised already has no key that is left.
        server.copy(&old[0], false);
        server.log_in();
        let unclaimed = &server.ledger.as_ref().unwrap().unclaimed;
        assert_eq!((unclaimed.len(), unclaimed.reads()), (2, Some(Depth::Header)), "{storage:?}");
        assert_eq!((server.grown, server.asked_captured), (4, false), "{storage:?}");
        // The rules alone, where the mark is lost, know from the index which messages need no
        // reading.
        server.mark = None;
        server.put(mail("new", 9, 9), "new9".into());
        server.log_in();
        assert_eq!((server.grown, server.asked_captured), (4, true), "{storage:?}");
    }
}

/// A way in which the last of three old messages comes late.
struct Late {
    by: &'static str,
    /// Its header.
    header: u8,
    /// What was captured of it, and which keys may match.
    captured: fn(&mut Server, &Mail),
    comes: fn(&mut Server, &Mail),
}

fn by_name(server: &mut Server, mail: &Mail) {
    server.copy(mail, true);
}

fn by_content(server: &mut Server, mail: &Mail) {
    server.copy(mail, false);
}

fn redelivered(server: &mut Server, mail: &Mail) {
    let name = server.new_name();
    server.put(Mail { relayed: 1, ..mail.clone() }, name);
}

/// Leaves out all that was captured of the last message but some keys of its content.
fn only_content(server: &mut Server, keep: impl Fn(&mut Entry)) {
    let entry = server.captured.entries.last_mut().unwrap();
    entry.file = None;
    keep(entry);
}

const LATE: [Late; 7] = [
    Late { by: "name, and others", header: 3, captured: |_, _| {}, comes: by_name },
    Late {
        by: "name",
        header: 3,
        captured: |server, _| {
            let entry = server.captured.entries.last_mut().unwrap();
            (entry.header, entry.origin) = (None, None);
        },
        comes: by_name,
    },
    Late {
        by: "header",
        header: 3,
        captured: |server, _| only_content(server, |entry| entry.origin = None),
        comes: by_content,
    },
    Late {
        by: "header and message",
        header: 3,
        captured: |server, mail| {
            only_content(server, |entry| entry.message = Some(mail.message_print()));
        },
        comes: by_content,
    },
    Late {
        by: "message",
        header: 3,
        captured: |server, mail| {
            only_content(server, |entry| {
                (entry.header, entry.message) = (None, Some(mail.message_print()));
            });
        },
        comes: by_content,
    },
    Late {
        by: "message that does not name itself",
        header: NAMELESS,
        captured: |server, _| only_content(server, |_| {}),
        comes: by_content,
    },
    Late {
        by: "origin",
        header: 3,
        captured: |server, _| {
            server.keys.origin = true;
            only_content(server, |entry| entry.header = None);
        },
        comes: redelivered,
    },
];

#[test]
fn an_old_message_that_comes_late_with_new_mail_is_recognised_by_each_of_its_keys() {
    for Late { by, header, captured: change, comes } in LATE {
        for storage in [Storage::Maildir, Storage::Dbox] {
            let old = [mail("a", 1, 1), mail("b", 2, 2), mail("c", header, 3)];
            let mut server =
                Server::new(captured(&[("U1", &old[0]), ("U2", &old[1]), ("U3", &old[2])]));
            server.storage = storage;
            change(&mut server, &old[2]);
            old[..2].iter().for_each(|mail| _ = server.copy(mail, true));
            server.log_in();
            server.put(mail("new1", 9, 1), "new1".into());
            server.log_in();
            assert_eq!(server.grown, 1, "{by}, {storage:?}");
            server.put(mail("new2", 9, 2), "new2".into());
            comes(&mut server, &old[2]);
            server.put(mail("new3", 9, 3), "new3".into());
            server.log_in();
            assert_eq!(server.grown, 1, "{by}, {storage:?}");
            let told = ["U1".into(), "U2".into(), native(3), "U3".into(), native(4), native(6)];
            assert_eq!(server.uidls(), told, "{by}, {storage:?}");
            assert!(server.ledger.as_ref().unwrap().unclaimed.is_empty(), "{by}, {storage:?}");
        }
    }
}

#[test]
fn a_key_that_may_not_match_is_not_unclaimed() {
    for (file, message, header, unclaimed) in [
        (true, true, true, (2, Some(Depth::Header))),
        (true, false, false, (1, None)),
        (false, false, true, (1, Some(Depth::Header))),
        (false, true, false, (0, None)),
        (false, false, false, (0, None)),
    ] {
        let (mut server, _) = listed_once();
        server.keys = Match { file, message, header, origin: false };
        server.put(mail("new", 9, 1), "new".into());
        let found = server.log_in().ledger.unclaimed;
        assert_eq!((found.len(), found.reads()), unclaimed, "{file}, {message}, {header}");
    }
}

/// Another build puts every entry at another place.
#[test]
fn what_went_has_its_entry_still_where_the_index_was_built_anew() {
    let (mut server, old) = listed_once();
    let added = captured(&[("U0", &mail("z", 5, 5))]).entries.remove(0);
    server.captured.entries.insert(0, added);
    server.delete(1);
    server.put(mail("new", 9, 1), "new".into());
    let ledger = server.log_in().ledger;
    let claims = ledger.records.iter().map(|record| (record.uidl.to_string(), record.entry));
    let expected = [("U1".into(), Some(1)), ("U2".into(), Some(2)), (native(3), None)];
    assert_eq!(claims.collect::<Vec<_>>(), expected);
    // Names and headers of the first and of the last entry.
    assert_eq!(ledger.unclaimed.len(), 4);
    server.copy(&old[2], false);
    assert_eq!(server.uidls().last().unwrap(), "U3");
}

/// A later capture says that the old server gave a UIDL which a new message was told here. As long
/// as that message is there, it has the entry.
#[test]
fn an_entry_that_becomes_free_when_new_mail_goes_is_for_the_rules() {
    let (mut server, _) = listed_once();
    server.keys = Match { file: true, ..Match::NONE };
    server.put(mail("new1", 9, 1), "new1".into());
    server.log_in();
    let late = mail("d", 4, 4);
    server.captured.entries.extend(captured(&[(&native(3), &late)]).entries);
    server.put(mail("new2", 9, 2), "new2".into());
    let ledger = server.log_in().ledger;
    assert_eq!((ledger.records[2].entry, ledger.unclaimed.len()), (Some(3), 1));
    server.delete(3);
    server.put(mail("new3", 9, 3), "new3".into());
    server.log_in();
    assert_eq!((server.grown, server.asked_captured), (0, false));
    // Without the index nobody knows its keys, and with it they are unclaimed.
    assert_eq!(server.ledger.as_ref().unwrap().native_from, None);
    server.put(mail("new4", 9, 4), "new4".into());
    let ledger = server.log_in().ledger;
    assert_eq!((server.asked_captured, ledger.unclaimed.len()), (true, 2));
    assert_ne!(ledger.native_from, None);
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
