//! Evidence 4, 5 and 7: content that names itself, and content that does not.

use super::{derived_uidl, native, provenance};
use crate::support::rules::{CAPTURED_AT, DAY, HEADERLESS, Mail, NAMELESS, Server};
use crate::support::rules::{capture, captured, mail};
use uidl_keep::ledger::Provenance;
use uidl_keep::maildrop::Maildrop;
use uidl_keep::resolve::Need;

/// A maildrop of which only the headers of these two were captured.
fn headers_only(old: &[(&str, &Mail)]) -> Maildrop {
    let mut maildrop = captured(old);
    maildrop.entries.iter_mut().for_each(|entry| entry.message = None);
    maildrop
}

#[test]
fn a_copy_by_content_is_known_by_its_header_and_reads_whole_only_what_repeats() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 2, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    for old in [&c, &a, &b] {
        server.copy(old, false);
    }
    assert_eq!(server.uidls(), ["U1", "U2", "U3"]);
    assert_eq!(server.asked[&Need::Message], 2);
}

#[test]
fn of_two_equal_headers_only_the_second_copied_gets_its_own() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, false);
    let resolution = server.log_in();
    assert_eq!(provenance(&resolution, 1), Provenance::Message);
    assert_eq!(server.uidls(), ["U2"]);
}

#[test]
fn an_entry_that_was_read_whole_is_not_claimed_by_its_header_over_another_text() {
    let a = mail("a", 1, 1);
    for message_may_match in [true, false] {
        let mut server = Server::new(captured(&[("U1", &a)]));
        server.captured.entries[0].message = Some(a.message_print());
        server.keys.message = message_may_match;
        server.put(Mail { octets: a.octets, ..mail("x", 1, 9) }, "x".into());
        let told = if message_may_match { native(1) } else { "U1".to_owned() };
        assert_eq!(server.uidls(), [told]);
    }
}

#[test]
fn equal_contents_go_in_the_old_order_to_messages_by_uid_and_further_copies_are_new() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &a), ("U3", &mail("b", 2, 2))]));
    server.captured.entries.iter_mut().for_each(|entry| entry.file = None);
    (0..3).for_each(|_| _ = server.copy(&a, false));
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
}

#[test]
fn of_equal_contents_an_entry_beyond_the_messages_stays_for_a_later_copy() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &a)]));
    server.copy(&a, false);
    assert_eq!(server.log_in().report.unclaimed, 1);
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

#[test]
fn a_header_that_names_its_message_claims_the_one_entry_that_has_it() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, false);
    assert_eq!(provenance(&server.log_in(), 1), Provenance::Header);
    assert_eq!(server.uidls(), ["U1"]);
    assert_eq!(server.asked.get(&Need::Message), None);
}

#[test]
fn a_header_claims_only_where_headers_may_match() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.keys.header = false;
    server.copy(&a, false);
    assert_eq!(server.uidls(), [native(1)]);
}

#[test]
fn a_header_that_does_not_name_its_message_claims_nothing() {
    let a = mail("a", NAMELESS, 1);
    let mut server = Server::new(headers_only(&[("U1", &a)]));
    server.copy(&a, false);
    assert_eq!(server.uidls(), [native(1)]);
}

/// Rule 5: there is no cutoff.
#[test]
fn what_is_copied_after_the_last_capture_and_after_a_listing_is_still_known_by_its_header() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U1"]);
    server.copy(&b, false);
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

#[test]
fn of_two_messages_of_one_content_the_first_has_the_header_of_the_one_entry() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    (0..2).for_each(|_| _ = server.copy(&a, false));
    assert_eq!(server.uidls(), ["U1".to_owned(), native(2)]);
    assert_eq!(server.asked[&Need::Message], 2);
}

#[test]
fn a_header_of_two_messages_of_two_contents_names_neither() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, false);
    server.put(Mail { octets: a.octets, ..mail("x", 1, 9) }, "x".into());
    assert_eq!(server.uidls(), [native(1), native(2)]);
}

#[test]
fn a_message_that_has_its_answer_does_not_stand_in_the_way_of_a_header() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.put(mail("x", 1, 9), "x".into());
    server.held[0].stored = Some(derived_uidl());
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U1".to_owned(), derived_uidl().to_string()]);
}

#[test]
fn a_header_that_two_entries_have_names_neither_whatever_their_sizes() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut server = Server::new(headers_only(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, false);
    assert_eq!(server.uidls(), [native(1)]);
}

#[test]
fn a_header_whose_entry_has_its_message_already_claims_nothing() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1"]);
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U1".to_owned(), native(2)]);
}

#[test]
fn a_size_that_line_ends_and_status_fields_do_not_explain_is_a_veto() {
    let a = mail("a", 1, 1);
    assert_eq!(a.octets, 1100);
    // The limit is 512, and one for each 16 octets of the smaller.
    for (octets, is_explained) in [(1680, true), (1681, false), (554, true), (553, false)] {
        let mut server = Server::new(captured(&[("U1", &a)]));
        server.copy(&Mail { octets, ..a.clone() }, false);
        let told = if is_explained { "U1".to_owned() } else { native(1) };
        assert_eq!(server.uidls(), [told], "{octets} octets");
    }
}

#[test]
fn a_size_that_was_not_counted_is_not_asked_for_and_is_no_veto() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.captured.entries[0].octets = None;
    server.copy(&Mail { octets: 1 << 20, ..a }, false);
    assert_eq!(server.uidls(), ["U1"]);
    assert_eq!(server.asked.get(&Need::Octets), None);
}

/// The hazard that docs/dovecot.md names.
#[test]
fn only_origin_knows_a_redelivered_message_and_takes_another_of_its_origin_for_it() {
    let a = mail("a", 1, 1);
    for (origin, body) in [(false, 1), (true, 1), (true, 9)] {
        let mut server = Server::new(captured(&[("U1", &a)]));
        server.keys.origin = origin;
        server.copy(&Mail { relayed: 1, body, ..a.clone() }, false);
        let resolution = server.log_in();
        let expected = if origin { Provenance::Origin } else { Provenance::Native };
        assert_eq!(provenance(&resolution, 1), expected, "origin {origin}, body {body}");
    }
}

#[test]
fn an_origin_that_names_its_message_only_by_what_relays_add_claims_nothing() {
    let a = mail("a", NAMELESS, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.keys.origin = true;
    server.copy(&Mail { relayed: 1, ..a }, false);
    assert_eq!(server.uidls(), [native(1)]);
}

/// Each copy that was delivered anew has a header of its own.
#[test]
fn copies_of_one_origin_are_interchangeable_where_the_body_says_that_they_are_one_content() {
    let a = mail("a", 1, 1);
    for (bodies, told) in [([1, 1], ["U1", "U2"].map(str::to_owned)), ([1, 9], [1, 2].map(native))]
    {
        let mut server = Server::new(captured(&[("U1", &a), ("U2", &a)]));
        server.keys.origin = true;
        for (relayed, body) in (1..).zip(bodies) {
            server.copy(&Mail { relayed, body, ..a.clone() }, false);
        }
        assert_eq!(server.uidls(), told, "bodies {bodies:?}");
    }
}

#[test]
fn an_origin_that_two_entries_have_which_were_not_read_whole_names_neither() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut server = Server::new(headers_only(&[("U1", &a), ("U2", &b)]));
    server.keys.origin = true;
    // Each delivery adds as much to one as to the other: sizes tell nothing.
    for old in [a, b] {
        server.copy(&Mail { relayed: 1, octets: old.octets + 1, ..old }, false);
    }
    assert_eq!(server.uidls(), [native(1), native(2)]);
}

#[test]
fn an_origin_of_two_entries_of_two_contents_names_neither() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.keys.origin = true;
    server.copy(&Mail { relayed: 1, ..b }, false);
    assert_eq!(server.uidls(), [native(1)]);
}

/// A script sends "80 % full" by a local delivery.
#[test]
fn content_that_does_not_name_itself_claims_if_it_was_received_a_day_before_the_first_capture() {
    for header in [NAMELESS, HEADERLESS] {
        for (received, is_old) in [(CAPTURED_AT - DAY, true), (CAPTURED_AT - DAY + 1, false)] {
            let a = mail("a", header, 1);
            let mut server = Server::new(captured(&[("U1", &a)]));
            server.copy(&Mail { received, ..a }, false);
            let provenance = provenance(&server.log_in(), 1);
            let expected = if is_old { Provenance::Message } else { Provenance::Native };
            assert_eq!(provenance, expected, "header {header}, received {received}");
        }
    }
}

#[test]
fn old_content_that_does_not_name_itself_claims_where_it_may_match_and_nothing_was_forgotten() {
    for (may_match, forgotten, is_known) in [(true, 0, true), (false, 0, false), (true, 1, false)] {
        let a = mail("a", NAMELESS, 1);
        let mut server = Server::new(captured(&[("U1", &a)]));
        (server.keys.message, server.stamps.forgotten) = (may_match, forgotten);
        server.copy(&a, false);
        let told = if is_known { "U1".to_owned() } else { native(1) };
        assert_eq!(server.uidls(), [told], "may match {may_match}, forgotten {forgotten}");
    }
}

#[test]
fn a_warning_that_comes_after_the_move_is_new_though_it_is_equal_to_one_that_was_deleted() {
    let a = mail("a", NAMELESS, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    let uid = server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1"]);
    server.delete(uid);
    server.put(Mail { received: 2 * CAPTURED_AT, ..a }, "new".into());
    assert_eq!(server.uidls(), [native(2)]);
}

#[test]
fn where_a_capture_does_not_say_when_it_was_taken_content_must_name_itself() {
    let a = mail("a", NAMELESS, 1);
    for taken in [Some(CAPTURED_AT + DAY), None] {
        let mut server = Server::new(captured(&[("U1", &a)]));
        let undated = uidl_keep::maildrop::Capture { taken, ..capture(CAPTURED_AT, None) };
        server.captured.captures.push(undated);
        server.copy(&a, false);
        let told = taken.map_or_else(|| native(1), |_| "U1".to_owned());
        assert_eq!(server.uidls(), [told], "taken {taken:?}");
        assert_eq!(server.asked.contains_key(&Need::Received), taken.is_some());
    }
}

#[test]
fn it_is_the_first_capture_that_content_must_be_older_than() {
    let a = mail("a", NAMELESS, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.captured.captures.push(capture(CAPTURED_AT + 10 * DAY, None));
    server.copy(&Mail { received: CAPTURED_AT, ..a }, false);
    assert_eq!(server.uidls(), [native(1)]);
}

/// It has a stored UIDL, and was read for that.
#[test]
fn what_was_read_whole_for_another_reason_must_be_old_enough_all_the_same() {
    let (a, b) = (mail("a", NAMELESS, 1), mail("b", NAMELESS, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.put(Mail { received: 2 * CAPTURED_AT, ..b }, "new".into());
    server.store("new", "U1", None);
    assert_eq!(server.uidls(), [native(1)]);
    assert_eq!(server.asked[&Need::Message], 1);
}

#[test]
fn only_what_may_be_an_entry_that_does_not_name_itself_is_asked_when_it_was_received() {
    let a = mail("a", NAMELESS, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.put(mail("x", 9, 9), "x".into());
    server.put(mail("y", NAMELESS + 1, 9), "y".into());
    assert_eq!(server.uidls(), [native(1), native(2)]);
    assert_eq!(server.asked.get(&Need::Received), None);
    assert_eq!(server.asked.get(&Need::Message), None);
}

#[test]
fn old_content_that_does_not_name_itself_is_interchangeable_too() {
    let a = mail("a", NAMELESS, 1);
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &a)]));
    server.captured.entries.iter_mut().for_each(|entry| entry.file = None);
    (0..3).for_each(|_| _ = server.copy(&a, false));
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
}

#[test]
fn an_entry_whose_message_is_gone_is_not_given_to_a_mail_with_an_equal_header() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1"]);
    server.delete(1);
    server.put(mail("new", 8, 8), "new".into());
    assert_eq!(server.uidls(), [native(2)], "a listing without it is recorded");
    server.put(Mail { octets: a.octets, ..mail("newer", 1, 9) }, "newer".into());
    assert_eq!(server.uidls()[1], native(3));
}

/// Rule 8.
#[test]
fn a_uidl_that_the_old_server_repeats_is_replayed_for_each() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("same", &a), ("same", &b)]));
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["same"]);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["same", "same"]);
}

#[test]
fn uidls_that_the_old_server_repeats_are_reported_at_the_first_listing() {
    let old = [mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3), mail("d", 4, 4)];
    let [a, b, c, d] = &old;
    let mut server = Server::new(captured(&[("same", a), ("same", b), ("same", c), ("U4", d)]));
    old.iter().for_each(|old| _ = server.copy(old, true));
    assert_eq!(server.log_in().report.repeated, 3);
    assert_eq!(server.log_in().report.repeated, 0);
}
