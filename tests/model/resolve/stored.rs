//! Evidence 1, 2 and 6: Dovecot's storage holds `P`, and the order number beside it, `O`.

use super::{derived_uidl, is_derived, native, provenance};
use crate::support::rules::{Server, Storage, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::{FIRST_ORDER, Provenance};
use uidl_keep::maildrop::Counter;
use uidl_keep::resolve::{Match, Need};

/// Two entries, `U1` of the file `a` and `U2` of the file `b`, and no message yet.
fn two_entries() -> Server {
    Server::new(captured(&[("U1", &mail("a", 1, 1)), ("U2", &mail("b", 2, 2))]))
}

#[test]
fn a_stored_uidl_that_the_name_confirms_is_believed_and_no_mail_is_opened() {
    let mut server = two_entries();
    server.put(mail("a", 1, 1), "a".into());
    server.store("a", "U1", None);
    assert_eq!(provenance(&server.log_in(), 1), Provenance::Stored);
    assert_eq!(server.uidls(), ["U1"]);
    assert_eq!(server.asked.get(&Need::Header), None);
}

#[test]
fn a_stored_uidl_that_the_content_confirms_is_believed() {
    let mut server = two_entries();
    server.put(mail("x", 1, 1), "copy".into());
    server.store("copy", "U1", None);
    assert_eq!(provenance(&server.log_in(), 1), Provenance::Stored);
    assert_eq!(server.uidls(), ["U1"]);
    assert_eq!(server.asked[&Need::Header], 1);
    assert_eq!(server.asked.get(&Need::Message), None, "the entry was not read whole");
}

#[test]
fn a_stored_uidl_that_nothing_contradicts_is_believed() {
    let mut server = two_entries();
    let entry = &mut server.captured.entries[0];
    (entry.header, entry.origin) = (None, None);
    server.put(mail("x", 9, 9), "copy".into());
    server.store("copy", "U1", None);
    assert_eq!(provenance(&server.log_in(), 1), Provenance::Stored);
    assert_eq!(server.asked.get(&Need::Header), None);
}

/// The `P` is from an earlier conversion, and is now another entry's.
#[test]
fn a_stored_uidl_loses_to_a_name_that_another_entry_has() {
    let mut server = two_entries();
    server.put(mail("b", 2, 2), "b".into());
    server.store("b", "U1", None);
    assert_eq!(server.uidls(), ["U2"]);
}

#[test]
fn a_name_says_nothing_against_a_stored_uidl_where_names_may_not_match() {
    let mut server = two_entries();
    server.keys = Match { file: false, message: false, header: false, origin: false };
    server.put(mail("x", 9, 9), "b".into());
    server.store("b", "U1", None);
    assert_eq!(server.uidls(), ["U1"]);
}

#[test]
fn a_stored_uidl_loses_to_names_that_disagree() {
    let mut server = two_entries();
    server.put(mail("b", 1, 1), "a b".into());
    server.store("a b", "U1", None);
    assert_eq!(server.uidls(), [native(1)]);
}

#[test]
fn a_stored_uidl_loses_to_a_header_that_contradicts_it() {
    let mut server = two_entries();
    server.put(mail("x", 9, 9), "copy".into());
    server.store("copy", "U1", None);
    server.put(mail("y", 2, 2), "copy2".into());
    server.store("copy2", "U1", None);
    assert_eq!(server.uidls(), ["U2".to_owned(), native(1)]);
}

#[test]
fn a_stored_uidl_loses_to_a_header_whichever_content_may_match() {
    for (message, header, origin) in
        [(true, false, false), (false, true, false), (false, false, true)]
    {
        let mut server = two_entries();
        server.keys = Match { file: true, message, header, origin };
        server.put(mail("x", 9, 9), "copy".into());
        server.store("copy", "U1", None);
        assert_eq!(server.uidls(), [native(1)], "{:?}", server.keys);
    }
}

#[test]
fn a_stored_uidl_is_held_against_no_content_where_none_may_match() {
    let mut server = two_entries();
    server.keys = Match { file: true, message: false, header: false, origin: false };
    server.put(mail("x", 9, 9), "copy".into());
    server.store("copy", "U1", None);
    assert_eq!(server.uidls(), ["U1"]);
    assert_eq!(server.asked.get(&Need::Header), None);
}

#[test]
fn a_stored_uidl_loses_to_a_text_that_contradicts_it_under_an_equal_header() {
    for (body, told) in [(1, "U1".to_owned()), (9, native(1))] {
        let mut server = two_entries();
        server.captured.entries[0].message = Some(mail("a", 1, 1).message_print());
        server.put(mail("x", 1, body), "copy".into());
        server.store("copy", "U1", None);
        assert_eq!(server.uidls(), [told]);
    }
}

/// A relay adds lines to the header, and that does not contradict.
#[test]
fn a_stored_uidl_stands_over_another_header_of_the_same_origin_where_origin_may_match() {
    for (origin, came, told) in
        [(true, Provenance::Stored, "U1".to_owned()), (false, Provenance::Native, native(1))]
    {
        let mut server = two_entries();
        server.keys.origin = origin;
        let mut relayed = mail("x", 1, 1);
        relayed.relayed = 1;
        server.put(relayed, "copy".into());
        server.store("copy", "U1", None);
        assert_eq!(provenance(&server.log_in(), 1), came);
        assert_eq!(server.uidls(), [told]);
    }
}

#[test]
fn a_stored_uidl_of_a_message_that_cannot_be_read_is_not_believed_unless_its_name_confirms_it() {
    for name in ["a", "copy"] {
        let mut server = two_entries();
        server.storage = Storage::Maildir;
        server.put(mail("a", 1, 1), name.into());
        server.store(name, "U1", None);
        server.held[0].readable = false;
        assert_eq!(server.uidls()[0] == "U1", name == "a", "{name}");
    }
}

#[test]
fn of_two_messages_with_one_stored_uidl_the_one_that_its_name_confirms_has_the_entry() {
    let mut server = two_entries();
    for name in ["copy", "a"] {
        server.put(mail("a", 1, 1), name.into());
        server.store(name, "U1", None);
    }
    let told: Vec<_> =
        server.listing().into_iter().map(|(uidl, held)| (uidl.to_string(), held.uid)).collect();
    assert_eq!(told, [("U1".to_owned(), 2), (native(1), 1)]);
}

#[test]
fn of_two_copies_with_one_stored_uidl_the_first_has_the_entry() {
    let mut server = two_entries();
    for name in ["copy1", "copy2"] {
        server.put(mail("a", 1, 1), name.into());
        server.store(name, "U1", None);
    }
    assert_eq!(server.uidls(), ["U1".to_owned(), native(2)]);
}

#[test]
fn two_entries_of_one_uidl_are_both_claimed_by_what_storage_holds() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("same", &a), ("same", &b)]));
    for (name, mail) in [("copy1", &b), ("copy2", &a)] {
        server.put(mail.clone(), name.into());
        server.store(name, "same", None);
    }
    let resolution = server.log_in();
    assert_eq!([1, 2].map(|uid| provenance(&resolution, uid)), [Provenance::Stored; 2]);
    assert_eq!(resolution.report.unclaimed, 0);
}

/// An order number of ours stands beside it; but it may have been told to another account's
/// clients.
#[test]
fn a_stored_uidl_is_held_against_the_content_whoever_told_it() {
    for order in [FIRST_ORDER, FIRST_ORDER - 1] {
        let mut server = two_entries();
        server.put(mail("x", 9, 9), "copy".into());
        server.store("copy", "U1", Some(order));
        assert_eq!(server.uidls(), [native(1)], "O{order}");
        assert!(server.asked.contains_key(&Need::Header), "O{order}");
    }
}

#[test]
fn a_stored_uidl_that_we_told_loses_to_a_name_of_another_entry() {
    let mut server = two_entries();
    server.put(mail("b", 2, 2), "b".into());
    server.store("b", "U1", Some(FIRST_ORDER));
    assert_eq!(server.uidls(), ["U2"]);
}

/// Rule 7: the entry keeps as its own the UIDLs that earlier captures gave it.
#[test]
fn an_earlier_uidl_of_an_entry_claims_it_and_is_told_on_only_where_it_was_told() {
    for (order, told) in [(None, "U1"), (Some(3), "U1"), (Some(FIRST_ORDER), "early")] {
        let mut server = two_entries();
        server.captured.entries[0].earlier.push(uidl("early"));
        server.put(mail("a", 1, 1), "copy".into());
        server.store("copy", "early", order);
        server.copy(&mail("a", 1, 1), true);
        assert_eq!(server.uidls(), [told.to_owned(), native(2)], "O{order:?}");
    }
}

#[test]
fn a_derived_uidl_in_storage_was_told_and_stays_and_claims_nothing() {
    let mut server = two_entries();
    server.put(mail("x", 9, 9), "x".into());
    server.held[0].stored = Some(derived_uidl());
    let resolution = server.log_in();
    assert_eq!(provenance(&resolution, 1), Provenance::Derived);
    assert_eq!(resolution.ledger.records[0].uidl, derived_uidl());
    assert_eq!(resolution.ledger.records[0].entry, None);
    assert_eq!(server.asked.get(&Need::Header), None, "it has its answer");
}

/// A copy within the new server took it along.
#[test]
fn a_derived_uidl_in_storage_is_told_to_one_message_only() {
    let mut server = two_entries();
    for name in ["x", "y"] {
        server.put(mail(name, 9, 9), name.into());
    }
    server.held.iter_mut().for_each(|held| held.stored = Some(derived_uidl()));
    assert_eq!(server.uidls(), [derived_uidl().to_string(), native(2)]);
}

#[test]
fn what_only_looks_like_a_derived_uidl_is_another_servers() {
    for text in ["~0123456789abcdef~", "~0123456789ABCDEF0123456789ABCDEF~"] {
        let mut server = two_entries();
        server.put(mail("x", 9, 9), "x".into());
        server.store("x", text, None);
        assert_eq!(provenance(&server.log_in(), 1), Provenance::Stored, "{text}");
    }
}

/// A panel's dsync carries `P` and `O`, and no ledger.
#[test]
fn what_we_told_a_new_message_stays_where_only_storage_remembers_it() {
    let mut server = two_entries();
    server.put(mail("x", 9, 9), "x".into());
    server.store("x", "0000000700000011", Some(FIRST_ORDER + 5));
    let resolution = server.log_in();
    assert_eq!(resolution.ledger.records[0].uidl, uidl("0000000700000011"));
    assert_eq!(resolution.ledger.records[0].order, FIRST_ORDER + 5);
    assert_eq!(server.asked.get(&Need::Header), None, "it has its answer");
}

/// Its own number would be spent: the numbers below 3 were told here.
#[test]
fn a_number_that_we_told_stays_with_its_message_on_another_node() {
    let mut server = two_entries();
    server.native = UidlFormat::parse("%u").unwrap();
    server.put(mail("y", 8, 8), "y".into());
    server.put(mail("z", 8, 9), "z".into());
    server.uidls();
    for (name, order) in [("v", Some(FIRST_ORDER + 9)), ("w", None)] {
        server.put(mail(name, 9, 9), name.into());
        server.store(name, if name == "v" { "1" } else { "2" }, order);
    }
    let uidls = server.uidls();
    assert!(uidls.contains(&"1".to_owned()), "{uidls:?}");
    assert!(!uidls.contains(&"2".to_owned()), "{uidls:?}");
}

/// The old server may give it to a mail of its own yet: rule 6.
#[test]
fn a_counted_uidl_is_not_ours_for_an_order_number_beside_it() {
    let mut server = two_entries();
    server.captured.counter = Some(Counter { format: UidlFormat::parse("%u").unwrap(), next: 4 });
    for (name, text) in [("x", "65539"), ("y", "65540")] {
        server.put(mail(name, 9, 9), name.into());
        server.store(name, text, Some(FIRST_ORDER));
    }
    let uidls = server.uidls();
    assert!(!uidls.contains(&"65539".to_owned()), "{uidls:?}");
    assert!(uidls.contains(&"65540".to_owned()), "{uidls:?}");
}

#[test]
fn any_other_stored_uidl_is_an_answer_and_no_claim() {
    let mut server = two_entries();
    server.put(mail("x", 9, 9), "x".into());
    server.store("x", "of-another-server", None);
    let resolution = server.log_in();
    assert_eq!(provenance(&resolution, 1), Provenance::Stored);
    assert_eq!(resolution.ledger.records[0].entry, None);
    assert_eq!(server.uidls(), ["of-another-server"]);
}

#[test]
fn any_other_stored_uidl_yields_to_a_name_and_to_content() {
    let mut server = two_entries();
    server.put(mail("a", 1, 1), "a".into());
    server.put(mail("b", 2, 2), "copy".into());
    server.store("a", "other1", None);
    server.store("copy", "other2", None);
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

#[test]
fn any_other_stored_uidl_goes_before_content_that_does_not_name_itself() {
    let a = mail("a", crate::support::rules::NAMELESS, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, false);
    server.held[0].stored = Some(uidl("other"));
    assert_eq!(server.uidls(), ["other"]);
}

#[test]
fn a_stored_uidl_of_two_messages_answers_neither() {
    let mut server = two_entries();
    for name in ["x", "y"] {
        server.put(mail(name, 9, 9), name.into());
        server.store(name, "other", None);
    }
    assert_eq!(server.uidls(), [native(1), native(2)]);
}

#[test]
fn a_stored_uidl_that_was_captured_without_its_message_answers_none() {
    let mut server = two_entries();
    server.captured.spent.push(uidl("gone-long-ago"));
    server.put(mail("x", 9, 9), "x".into());
    server.store("x", "gone-long-ago", None);
    assert_eq!(server.uidls(), [native(1)]);
}

#[test]
fn a_stored_uidl_with_the_number_of_another_message_is_not_believed() {
    let mut server = two_entries();
    server.copy(&mail("a", 1, 1), true);
    server.copy(&mail("b", 2, 2), true);
    server.uidls();
    for (name, text) in [("new", native(1)), ("newer", native(4)), ("newest", "other".to_owned())] {
        server.put(mail(name, 9, 9), name.into());
        server.store(name, &text, None);
    }
    let told = ["U1".to_owned(), "U2".to_owned(), native(4), "other".to_owned(), native(3)];
    assert_eq!(server.uidls(), told);
}

#[test]
fn a_stored_uidl_that_the_next_message_would_get_is_believed_and_not_given_twice() {
    let mut server = two_entries();
    server.put(mail("new", 9, 9), "new".into());
    server.store("new", &native(2), None);
    assert_eq!(server.uidls(), [native(2)]);
    server.next_uid = 2;
    server.put(mail("newer", 8, 8), "newer".into());
    assert!(is_derived(&server.uidls()[1]));
}
