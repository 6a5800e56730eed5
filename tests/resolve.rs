//! The rules of `resolve`, by example and by random histories that model clients live through.

mod resolve_support;

use std::collections::HashMap;

use resolve_support::{Disk, Held, Mail, Server, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::{How, Record};
use uidl_keep::maildrop::Counter;
use uidl_keep::resolve::{Need, Outcome, Purpose, Refusal, first_unspent_uid};

#[test]
fn a_copy_by_file_opens_no_mail_and_keeps_the_old_order() {
    let (a, b, c) = (mail("a,S=1", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    for old in [&c, &a, &b] {
        server.copy(old, true);
    }
    assert_eq!(server.uidls(), ["U1", "U2", "U3"]);
    for need in [Need::Header, Need::Message, Need::Octets, Need::Own] {
        assert_eq!(server.asked.get(&need), None, "{need:?}");
    }
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
fn uid_and_octets_that_agree_make_no_match() {
    let (a, other) = (mail("a", 1, 1), mail("x", 9, 1));
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.uidvalidity = 17;
    server.copy(&other, false);
    assert_eq!(server.uidls(), ["0000000100000011"]);
}

#[test]
fn a_name_that_disagrees_with_the_uid_is_unknown_and_reported() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.uidvalidity = 17;
    server.copy(&b, true);
    let resolution = server.log_in();
    assert_eq!(resolution.report.conflicts, [1]);
    assert_eq!(resolution.ledger.records[0].how, How::Format);
}

#[test]
fn after_the_cutoff_an_equal_header_is_not_enough_but_a_late_file_is() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1"]);
    server.copy(&mail("new", 2, 7), false);
    server.copy(&c, true);
    assert_eq!(server.uidls(), ["U1", "U3", "0000000200000063"]);
}

#[test]
fn while_the_index_is_open_an_equal_header_still_claims() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.is_final = false;
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U1"]);
    server.copy(&b, false);
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

#[test]
fn what_comes_late_goes_behind_what_was_listed() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    server.copy(&a, true);
    server.copy(&c, true);
    assert_eq!(server.uidls(), ["U1", "U3"]);
    server.copy(&mail("new", 8, 8), true);
    assert_eq!(server.uidls(), ["U1", "U3", "0000000300000063"]);
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["U1", "U3", "0000000300000063", "U2"]);
}

#[test]
fn of_two_equal_headers_only_the_second_copied_gets_its_own() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, false);
    assert_eq!(server.uidls(), ["U2"]);
}

#[test]
fn equal_headers_without_bodies_pair_only_when_octets_tell_them_apart() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut headers_only = captured(&[("U1", &a), ("U2", &b)]);
    headers_only.entries.iter_mut().for_each(|entry| entry.message = None);
    let mut server = Server::new(headers_only.clone());
    server.copy(&b, false);
    assert_eq!(server.uidls(), ["U2"]);
    headers_only.entries[1].octets = Some(a.octets);
    let mut server = Server::new(headers_only);
    server.copy(&a, false);
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["0000000100000063", "0000000200000063"]);
}

#[test]
fn octets_tell_nothing_of_what_was_delivered_anew() {
    // Each delivery adds as much to one as to the other: the first is now as long as the second was.
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut maildrop = captured(&[("U1", &a), ("U2", &b)]);
    maildrop.entries.iter_mut().for_each(|entry| entry.message = None);
    let mut server = Server::new(maildrop);
    server.keys.origin = true;
    for old in [a, b] {
        let octets = old.octets + 1;
        server.copy(&Mail { relayed: true, octets, ..old }, false);
    }
    assert_eq!(server.uidls(), ["0000000100000063", "0000000200000063"]);
}

/// The hazard that docs/dovecot.md names, and its end.
#[test]
fn only_origin_takes_a_mail_of_the_same_origin_for_one_that_did_not_come() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 1));
    let maildrop = captured(&[("U1", &a), ("U2", &b)]);
    let next = |old: &Mail| Mail { relayed: true, body: 9, ..old.clone() };
    let mut server = Server::new(maildrop.clone());
    server.copy(&next(&a), false);
    assert_eq!(server.uidls(), ["0000000100000063"]);

    let mut server = Server::new(maildrop);
    server.keys.origin = true;
    server.copy(&next(&a), false);
    assert_eq!(server.uidls(), ["U1"]);
    server.copy(&next(&b), false);
    assert_eq!(server.uidls(), ["U1", "0000000200000063"], "after the first listing no more");
}

#[test]
fn a_spent_uidl_is_never_given_to_a_new_message() {
    let a = mail("a", 1, 1);
    let mut maildrop = captured(&[("0000000500000063", &a)]);
    maildrop.spent = vec![uidl("0000000100000063")];
    maildrop.uidvalidity = Some(99);
    let format = UidlFormat::parse("%08Xu%08Xv").unwrap();
    maildrop.counter = Some(Counter { format: format.clone(), next: 4 });
    assert_eq!(first_unspent_uid(&maildrop, &format, 99), 6);
    assert_eq!(first_unspent_uid(&maildrop, &format, 98), 1);
    let mut server = Server::new(maildrop);
    for n in 0..6 {
        server.copy(&mail(&format!("n{n}"), 100 + n, n), true);
    }
    let uidls = server.uidls();
    assert!(uidls[..3].iter().all(|uidl| uidl.starts_with('~')), "{uidls:?}");
    assert_eq!(uidls[3], "0000000400000063");
    assert!(uidls[4].starts_with('~'), "{uidls:?}");
    assert_eq!(uidls[5], "0000000600000063");
}

#[test]
fn a_claim_outlives_its_message_and_only_its_file_takes_it_again() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.is_final = false;
    let uid = server.copy(&a, true);
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["U1", "U2"]);
    server.delete(uid);
    assert_eq!(server.uidls(), ["U2"]);
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U2", "0000000300000063"]);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U2", "0000000300000063", "U1"]);
}

#[test]
fn a_file_that_came_back_twice_takes_nothing() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    let uid = server.copy(&a, true);
    server.copy(&b, true);
    server.uidls();
    server.delete(uid);
    server.uidls();
    server.copy(&a, true);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U2", "0000000300000063", "0000000400000063"]);
}

#[test]
fn a_changed_uidvalidity_loses_no_answer_that_a_name_can_tell() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, true);
    server.copy(&a, true);
    server.copy(&mail("new", 7, 7), true);
    let before = server.uidls();
    server.uidvalidity = 100;
    server.held.reverse();
    for (uid, held) in (50..).zip(&mut server.held) {
        held.uid = uid;
    }
    server.next_uid = 60;
    assert_eq!(server.uidls(), before);
}

#[test]
fn a_half_copied_maildrop_is_refused_until_it_is_released() {
    let mails: Vec<Mail> = (0..10).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let names: Vec<String> = (0..10).map(|n| format!("U{n}")).collect();
    let old: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&mails).collect();
    let mut server = Server::new(captured(&old));
    server.guarded = true;
    for mail in &mails[..4] {
        server.copy(mail, true);
    }
    let refused = server.outcome(Purpose::Listing { guarded: true });
    let few = Refusal::HalfCopied { found: 4, captured: 10 };
    assert!(matches!(refused, Outcome::Refused(refusal) if refusal == few));
    server.copy(&mails[4], true);
    assert_eq!(server.uidls().len(), 5);
    server.delete(1);
    server.delete(2);
    assert_eq!(server.uidls().len(), 3, "only a first listing is refused");
}

#[test]
fn one_unreadable_message_costs_only_itself_and_many_cost_the_login() {
    let mails: Vec<Mail> = (0..8).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let names: Vec<String> = (0..8).map(|n| format!("U{n}")).collect();
    let old: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&mails).collect();
    let mut server = Server::new(captured(&old));
    for mail in &mails {
        server.copy(mail, false);
    }
    server.held[3].readable = false;
    let resolution = server.log_in();
    assert_eq!(resolution.report.undecided, [4]);
    assert!(resolution.passing[0].uidl.as_bytes().starts_with(b"~"));
    assert_eq!(resolution.ledger.cutoff, Some(8), "one message must not leave the door open");
    server.held[3].readable = true;
    assert_eq!(server.uidls()[7], "U3");
    (server.ledger, server.mark) = (None, None);
    server.held[..4].iter_mut().for_each(|held| held.readable = false);
    let refused = server.outcome(Purpose::Listing { guarded: false });
    assert!(matches!(
        refused,
        Outcome::Refused(Refusal::Unreadable { unreadable: 4, messages: 8 })
    ));
}

#[test]
fn doveadm_is_told_what_is_kept_and_never_what_no_client_has_seen() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&mail("new", 7, 7), true);
    server.copy(&a, true);
    let Outcome::Resolved(look) = server.outcome(Purpose::Look) else { panic!() };
    let told: Vec<_> = look.ledger.records.iter().map(|r| (r.uid, r.uidl.to_string())).collect();
    assert_eq!(told, [(2, "U1".to_owned())]);
    assert_eq!(look.ledger.cutoff, None);
}

#[test]
fn a_uidl_that_the_old_server_repeats_is_replayed_for_each() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("same", &a), ("same", &b)]));
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["same"]);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["same", "same"]);
}

/// Three old messages, of which only the first two are copied, by file and by content.
fn listed_once() -> (Server, [Mail; 3]) {
    let old = [mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1]), ("U3", &old[2])]));
    server.copy(&old[0], true);
    server.copy(&old[1], false);
    assert_eq!(server.uidls(), ["U1", "U2"]);
    (server, old)
}

fn refused(server: &mut Server) -> Refusal {
    server.try_to_list().map(|_| ()).unwrap_err()
}

#[test]
fn where_the_ledger_is_lost_what_only_a_header_can_tell_is_refused_and_the_rest_is_served() {
    let (mut server, old) = listed_once();
    server.ledger = None;
    assert_eq!(refused(&mut server), Refusal::LedgerLost { messages: 1 });
    server.delete(2);
    server.put(mail("new", 3, 9), "new".into());
    assert_eq!(server.uidls(), ["U1", "0000000300000063"], "above the cutoff a header is nothing");
    server.ledger = None;
    server.copy(&old[2], true);
    assert_eq!(server.uidls(), ["U1", "U3", "0000000300000063"]);
}

#[test]
fn what_was_baked_before_the_ledger_was_lost_comes_before_every_key() {
    let (mut server, _) = listed_once();
    server.ledger = None;
    let baked = [("a", "U1", 2), ("copy1", "U2", 1)];
    let baked = baked.map(|(name, text, order)| (name.to_owned(), (uidl(text), order)));
    server.baked = Some(HashMap::from(baked));
    assert_eq!(server.uidls(), ["U2", "U1"], "in the order that was baked");
}

#[test]
fn a_stored_order_number_of_zero_is_none() {
    let (mut server, _) = listed_once();
    server.ledger = None;
    let baked = [("a", "U1", 2), ("copy1", "U2", 0)];
    let baked = baked.map(|(name, text, order)| (name.to_owned(), (uidl(text), order)));
    server.baked = Some(HashMap::from(baked));
    assert_eq!(server.uidls(), ["U1", "U2"], "in the old order");
}

#[test]
fn where_nothing_can_be_recorded_a_header_alone_tells_nothing() {
    let (mut server, _) = listed_once();
    (server.ledger, server.mark, server.disk) = (None, None, Disk::NotOurs);
    assert_eq!(refused(&mut server), Refusal::Unrecorded { messages: 1 });
    server.delete(2);
    assert_eq!(server.uidls(), ["U1"]);
    server.disk = Disk::Full;
    server.put(mail("b", 2, 2), "again".into());
    assert_eq!(server.uidls(), ["U1", "U2"], "no mail can come either");
    assert!(server.ledger.is_none());
}

#[test]
fn what_was_forgotten_is_told_anew_and_neither_its_baked_uidls_nor_its_numbers_are_believed() {
    let (mut server, old) = listed_once();
    server.baked = Some(HashMap::from([("a".to_owned(), (uidl("U1"), 1))]));
    server.put(mail("new", 9, 9), "new".into());
    assert_eq!(server.uidls(), ["U1", "U2", "0000000300000063"]);
    server.forgotten = 7;
    for (entry, right) in server.captured.entries.iter_mut().zip(["R1", "R2", "R3"]) {
        entry.uidl = uidl(right);
    }
    server.captured.entries.remove(0);
    server.captured.spent.push(uidl("U1"));
    // What clients know already stands before what they do not.
    assert_eq!(server.uidls(), ["R2", "0000000300000063", "0000000100000063"]);
    assert_eq!(server.ledger.as_ref().unwrap().begun_after, 7);
    // The cutoff stays: an equal header that came after it is new.
    server.forgotten = 8;
    server.put(mail("other", 3, 9), "other".into());
    let uidls = server.uidls();
    assert!(!uidls.contains(&"R3".to_owned()), "{uidls:?}");
    server.copy(&old[2], true);
    assert!(server.uidls().contains(&"R3".to_owned()));
}

#[test]
fn numbers_that_begin_anew_are_spent_unless_the_uidvalidity_is_told_with_them() {
    for (format, is_spent) in [("%u", true), ("%08Xu%08Xv", false)] {
        let (mut server, _) = listed_once();
        server.own = UidlFormat::parse(format).unwrap();
        let new = [3, 4, 5, 6].map(|n| server.put(mail("new", 9, n), format!("new{n}")));
        server.uidls();
        new.iter().for_each(|&uid| server.delete(uid));
        server.uidvalidity += 1;
        server.number_anew(1);
        server.put(mail("newer", 8, 8), "newer".into());
        let uidls = server.uidls();
        assert_eq!(uidls[..2], ["U1", "U2"]);
        assert_eq!(uidls[2].starts_with('~'), is_spent, "{format}: {uidls:?}");
        let next_uid = if is_spent { 7 } else { 4 };
        assert_eq!(server.next_uid, next_uid, "{format}: the next UID is raised where it must be");
        server.put(mail("newest", 7, 7), "newest".into());
        let uidls = server.uidls();
        assert!(!uidls[3].starts_with('~'), "{format}: no further than it must be: {uidls:?}");
    }
}

#[test]
fn a_uid_that_was_given_before_the_last_listing_gives_no_uidl() {
    let (mut server, _) = listed_once();
    let uid = server.put(mail("new", 9, 9), "new".into());
    assert_eq!(server.uidls()[2], "0000000300000063");
    server.delete(uid);
    server.put(mail("newer", 8, 8), "newer".into());
    assert_eq!(server.uidls()[2], "0000000400000063");
    let (mail, name) = (mail("newest", 7, 7), "newest".to_owned());
    server.held.insert(2, Held { uid, mail, name, readable: true });
    assert!(server.uidls()[3].starts_with('~'));
}

#[test]
fn a_stored_uidl_with_the_number_of_another_message_is_not_believed() {
    let (mut server, _) = listed_once();
    server.baked = Some(HashMap::from([
        ("new".to_owned(), (uidl("0000000100000063"), 9)),
        ("newer".to_owned(), (uidl("0000000400000063"), 9)),
        ("newest".to_owned(), (uidl("of-another-server"), 9)),
    ]));
    for name in ["new", "newer", "newest"] {
        server.put(mail(name, 9, 9), name.into());
    }
    let stored = ["U1", "U2", "0000000300000063", "0000000400000063", "of-another-server"];
    assert_eq!(server.uidls(), stored);
}

#[test]
fn a_stored_uidl_that_the_next_message_would_get_is_believed_and_not_given_twice() {
    let (mut server, _) = listed_once();
    server.baked = Some(HashMap::from([("new".to_owned(), (uidl("0000000400000063"), 9))]));
    server.put(mail("new", 9, 9), "new".into());
    assert_eq!(server.uidls()[2], "0000000400000063");
    server.put(mail("newer", 8, 8), "newer".into());
    assert!(server.uidls()[3].starts_with('~'));
}

#[test]
fn while_one_cannot_be_read_a_header_is_believed_only_if_octets_agree() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    server.copy(&a, false);
    server.copy(&Mail { octets: 7, ..b }, false);
    server.copy(&c, false);
    server.held[2].readable = false;
    let resolution = server.log_in();
    assert_eq!(resolution.ledger.records.len(), 1);
    assert_eq!(resolution.ledger.records[0].uidl, uidl("U1"));
    assert_eq!(resolution.report.undecided, [2, 3]);
    let orders: Vec<u32> = resolution.passing.iter().map(|record| record.order).collect();
    assert_eq!(orders[0], 0, "what can be read stands before all");
    assert!(orders[1] >= resolution.ledger.next_order, "what cannot be read behind all");
    server.held[2].readable = true;
    let uidls = server.uidls();
    assert_eq!(uidls, ["U1", "U2", "U3"]);
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
    server.uidls();
    server.uidvalidity += 1;
    server.number_anew(1);
    assert_eq!(server.uidls(), before[1..], "what was listed last under the name");
}

#[test]
fn another_index_is_believed_when_all_names_agree_and_else_none_of_its_uids() {
    let (mut server, _) = listed_once();
    server.index_id += 1;
    server.asked.clear();
    assert_eq!(server.uidls(), ["U1", "U2"]);
    assert_eq!(server.asked[&Need::Names], 2);
    assert_eq!(server.ledger.as_ref().unwrap().cutoff, Some(2), "so are those above the cutoff");
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
    assert!(uidls[2].starts_with('~'), "{uidls:?}");
}

#[test]
fn a_list_of_uids_from_elsewhere_is_noticed_where_names_cost_nothing() {
    let (mut server, _) = listed_once();
    server.baked = Some(HashMap::new());
    server.put(mail("new", 9, 9), "new".into());
    let before = server.uidls();
    server.list_from_elsewhere(2);
    assert_eq!(server.uidls(), before);
}

#[test]
fn what_was_in_the_last_listing_keeps_its_place_when_it_comes_back() {
    let (mut server, old) = listed_once();
    server.put(mail("new", 9, 9), "new".into());
    let before = server.uidls();
    server.delete(1);
    server.copy(&old[0], true);
    assert_eq!(server.uidls(), before);
    server.delete(4);
    server.put(mail("newer", 8, 8), "newer".into());
    assert_eq!(server.uidls()[2], "0000000500000063", "a listing without it is recorded");
    server.copy(&old[0], true);
    assert_eq!(server.uidls().last().unwrap(), "U1");
}

#[test]
fn an_entry_whose_message_is_gone_is_not_given_to_a_mail_with_an_equal_header() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.is_final = false;
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1"]);
    server.delete(1);
    server.put(mail("new", 8, 8), "new".into());
    assert_eq!(server.uidls(), ["0000000200000063"], "a listing without it is recorded");
    server.put(Mail { octets: a.octets, ..mail("newer", 1, 9) }, "newer".into());
    assert_eq!(server.uidls()[1], "0000000300000063");
}

#[test]
fn an_index_that_has_become_final_closes_at_the_next_login() {
    let (mut server, _) = listed_once();
    (server.ledger, server.mark, server.is_final) = (None, None, false);
    server.uidls();
    assert_eq!(server.ledger.as_ref().unwrap().cutoff, None);
    server.is_final = true;
    server.uidls();
    assert_eq!(server.ledger.as_ref().unwrap().cutoff, Some(2));
    server.put(mail("new", 3, 9), "new".into());
    assert_eq!(server.uidls()[2], "0000000300000063");
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
    let resolution = server.log_in();
    assert_eq!(resolution.report.unclaimed, 0);
    server.keys.origin = true;
    server.ledger = None;
    server.mark = None;
    assert_eq!(refused(&mut server), Refusal::HalfCopied { found: 1, captured: 3 });
}

#[test]
fn what_any_one_key_can_tell_counts_as_missing() {
    let old: Vec<Mail> = (0..4).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let mut maildrop =
        captured(&[("U0", &old[0]), ("U1", &old[1]), ("U2", &old[2]), ("U3", &old[3])]);
    for (n, entry) in maildrop.entries.iter_mut().enumerate() {
        entry.file = entry.file.take().filter(|_| n == 0);
        entry.message = (n == 1).then(|| old[n].message_print());
        entry.header = entry.header.filter(|_| n == 2);
        entry.origin = entry.origin.filter(|_| n == 3);
    }
    let mut server = Server::new(maildrop);
    server.guarded = true;
    assert_eq!(refused(&mut server), Refusal::HalfCopied { found: 0, captured: 3 });
    server.keys.origin = true;
    assert_eq!(refused(&mut server), Refusal::HalfCopied { found: 0, captured: 4 });
}

#[test]
fn a_listing_reports_how_its_uidls_came_and_what_was_not_copied_yet() {
    let (mut server, old) = listed_once();
    (server.ledger, server.mark) = (None, None);
    let report = server.log_in().report;
    assert_eq!(report.by_how, HashMap::from([(How::File, 1), (How::Header, 1)]));
    assert_eq!(report.unclaimed, 1);
    server.copy(&old[2], true);
    let report = server.log_in().report;
    assert_eq!(report.by_how, HashMap::from([(How::File, 1)]));
    assert_eq!(report.unclaimed, 0);
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

#[test]
fn a_cutoff_that_cannot_be_recorded_is_no_cutoff() {
    let (mut server, _) = listed_once();
    (server.ledger, server.mark, server.is_final) = (None, None, false);
    server.uidls();
    assert_eq!(server.ledger.as_ref().unwrap().cutoff, None);
    (server.disk, server.is_final) = (Disk::NotOurs, true);
    assert_eq!(server.uidls(), ["U1", "U2"]);
    server.put(mail("new", 3, 9), "new".into());
    assert_eq!(refused(&mut server), Refusal::Unrecorded { messages: 1 });
    server.is_final = false;
    assert_eq!(server.uidls(), ["U1", "U2", "U3"], "while the index is open, it may be late");
}

#[test]
fn more_than_may_be_odd_that_cannot_be_told_from_an_unreadable_message_refuse_the_login() {
    let mails: Vec<Mail> = (0..9).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let names: Vec<String> = (0..9).map(|n| format!("U{n}")).collect();
    let old: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&mails).collect();
    let mut headers_only = captured(&old);
    headers_only.entries.iter_mut().for_each(|entry| entry.octets = None);
    let mut server = Server::new(headers_only);
    mails.iter().for_each(|mail| _ = server.copy(mail, false));
    server.held[4].readable = false;
    assert_eq!(refused(&mut server), Refusal::Unreadable { unreadable: 9, messages: 9 });
}

#[test]
fn a_name_that_many_share_up_to_the_comma_says_nothing() {
    let mails: Vec<Mail> = (0..70).map(|n| mail(&format!("a,{n}"), n, n)).collect();
    let names: Vec<String> = (0..70).map(|n| format!("U{n}")).collect();
    let old: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&mails).collect();
    let mut server = Server::new(captured(&old));
    mails.iter().rev().for_each(|mail| _ = server.copy(mail, true));
    assert_eq!(server.uidls(), names, "by the headers");
    assert_eq!(server.asked[&Need::Header], 70);
}

#[test]
fn a_uid_below_the_cutoff_that_is_given_anew_lets_no_header_claim() {
    for (is_maildir, is_gone_recorded) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let (mut server, _) = listed_once();
        server.baked = is_maildir.then(HashMap::new);
        let uid = server.put(mail("new", 9, 9), "new".into());
        (server.ledger, server.mark) = (None, None);
        server.uidls();
        assert_eq!(server.ledger.as_ref().unwrap().cutoff, Some(uid));
        server.delete(uid);
        if is_gone_recorded {
            let later = server.put(mail("later", 7, 7), "later".into());
            server.uidls();
            server.delete(later);
        }
        server.next_uid = uid;
        server.index_id += u32::from(!is_maildir);
        server.put(mail("newer", 3, 9), "newer".into());
        server.next_uid += 2;
        let uidls = server.uidls();
        let claims = uidls.contains(&"U3".to_owned());
        assert!(!claims, "Maildir: {is_maildir}, recorded: {is_gone_recorded}: {uidls:?}");
    }
}

#[test]
fn a_message_without_a_name_is_known_by_its_header() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.put(a, String::new());
    assert_eq!(server.uidls(), ["U1"]);
    assert_eq!(server.asked[&Need::Names], 1, "and is not asked for it again");
}

#[test]
fn only_what_was_not_listed_is_asked_for_its_names() {
    let (mut server, _) = listed_once();
    server.asked.clear();
    server.put(mail("new", 9, 9), "new".into());
    server.uidls();
    assert_eq!(server.asked[&Need::Names], 1);
}

/// Dovecot's index is put back from a backup: it has its old id, and what came after it is not in it.
#[test]
fn an_index_from_a_backup_gives_a_new_message_no_uidl_of_one_that_came_after_the_backup() {
    for is_lost in [false, true] {
        let (mut server, _) = listed_once();
        let later = ["new", "newer"].map(|name| server.put(mail(name, 9, 9), name.into()));
        assert_eq!(server.uidls()[2..], ["0000000300000063", "0000000400000063"]);
        later.iter().for_each(|&uid| server.delete(uid));
        server.next_uid = later[0];
        server.put(mail("newest", 8, 8), "newest".into());
        if is_lost {
            server.ledger = None;
            server.delete(2);
        }
        let uidls = server.uidls();
        assert!(uidls.last().unwrap().starts_with('~'), "{uidls:?}");
    }
}

#[test]
fn a_new_message_that_alone_is_there_under_another_index_is_not_taken_for_what_had_its_uid() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1"]);
    server.delete(1);
    server.number_anew(1);
    server.put(mail("new", 9, 9), "new".into());
    server.next_uid += 1;
    let uidls = server.uidls();
    assert!(uidls[0].starts_with('~'), "{uidls:?}");
}

#[test]
fn numbers_that_begin_anew_and_get_further_than_before_are_not_spent_if_the_uidvalidity_is_told() {
    let (mut server, _) = listed_once();
    let uid = server.put(mail("new", 9, 9), "new".into());
    server.uidls();
    server.delete(uid);
    server.uidvalidity += 1;
    server.number_anew(1);
    for name in ["newer", "newest"] {
        server.put(mail(name, 8, 8), name.into());
    }
    assert_eq!(server.uidls(), ["U1", "U2", "0000000300000064", "0000000400000064"]);
}

#[test]
fn an_index_that_was_built_in_another_order_knows_what_is_claimed() {
    let (mut server, old) = listed_once();
    server.captured.entries.rotate_right(1);
    (server.is_final, server.ledger.as_mut().unwrap().cutoff) = (false, None);
    server.copy(&old[0], false);
    assert_eq!(server.uidls(), ["U1", "U2", "0000000300000063"]);
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
    forged[1] = Record { uid: 2, order: 2, ..forged[0].clone() };
    server.copy(&old[1], true);
    assert_eq!(server.uidls(), ["same", "same", "0000000300000063"]);
}

#[test]
fn of_two_that_are_gone_the_one_that_was_listed_last_under_a_name_comes_back() {
    let (mut server, old) = listed_once();
    server.copy(&old[0], true);
    assert_eq!(server.uidls(), ["U1", "U2", "0000000300000063"]);
    server.delete(1);
    server.delete(3);
    server.copy(&old[0], true);
    assert_eq!(server.uidls(), ["U2", "0000000300000063"]);
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
    assert_eq!(server.uidls(), ["U1", "U2", "0000000300000063"]);
}

#[test]
fn an_entry_whose_copy_by_content_is_gone_is_taken_again_by_its_file() {
    let (mut server, old) = listed_once();
    server.put(mail("new", 9, 9), "new".into());
    server.delete(2);
    assert_eq!(server.uidls(), ["U1", "0000000300000063"]);
    server.copy(&old[1], true);
    assert_eq!(server.uidls(), ["U1", "0000000300000063", "U2"]);
}

#[test]
fn an_entry_whose_copy_by_content_is_gone_is_not_taken_by_one_file_of_several() {
    let (mut server, old) = listed_once();
    server.put(mail("new", 9, 9), "new".into());
    server.delete(2);
    server.uidls();
    for _ in 0..2 {
        server.copy(&old[1], true);
    }
    let without = ["U1", "0000000300000063", "0000000400000063", "0000000500000063"];
    assert_eq!(server.uidls(), without);
    server.copy(&old[1], true);
    assert_eq!(server.uidls()[4], "0000000600000063", "the others are still there");
}

#[test]
fn names_that_differ_behind_the_comma_only_are_told_apart_by_the_whole_or_by_the_uid() {
    let (a, b) = (mail("a,S=1", 1, 1), mail("a,S=2", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["U2"]);
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.uidvalidity = 17;
    server.next_uid = 2;
    server.put(b, "a".into());
    assert_eq!(server.uidls(), ["U2"]);
    assert_eq!(server.asked.get(&Need::Header), None);
}

#[test]
fn what_no_key_that_may_match_can_tell_is_not_read() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.captured.entries[0].header = None;
    server.is_final = false;
    server.put(mail("new", 9, 9), "new".into());
    assert_eq!(server.uidls(), ["0000000100000063"]);
    assert_eq!(server.asked.get(&Need::Header), None, "for its origin, which is not to match");
}

#[test]
fn above_the_cutoff_nothing_is_read_for_its_header_alone() {
    let (mut server, _) = listed_once();
    server.asked.clear();
    server.put(mail("new", 3, 9), "new".into());
    assert_eq!(server.uidls()[2], "0000000300000063");
    assert_eq!(server.asked.get(&Need::Header), None);
}

#[test]
fn a_uidl_that_was_baked_by_mistake_is_not_believed_where_the_right_index_has_it_for_another() {
    let (mut server, old) = listed_once();
    server.baked = Some(HashMap::from([("a".to_owned(), (uidl("U1"), 1))]));
    server.forgotten = 1;
    server.captured = captured(&[("U1", &old[2]), ("U2", &old[1])]);
    let uidls = server.uidls();
    assert_eq!(uidls.len(), 2);
    assert!(!uidls.contains(&"U1".to_owned()), "{uidls:?}");
}

#[test]
fn three_unreadable_messages_may_be_odd() {
    let mails: Vec<Mail> = (0..8).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let names: Vec<String> = (0..8).map(|n| format!("U{n}")).collect();
    let old: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&mails).collect();
    let mut server = Server::new(captured(&old));
    mails.iter().for_each(|mail| _ = server.copy(mail, false));
    server.held[..3].iter_mut().for_each(|held| held.readable = false);
    assert_eq!(server.uidls()[..5], ["U3", "U4", "U5", "U6", "U7"]);
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
    let resolution = server.log_in();
    assert_eq!(resolution.report.undecided, [2]);
    server.held[1].readable = true;
    assert!(server.uidls()[1].starts_with('~'));
}

/// What was listed without a name is known by its UID alone, and has its answer.
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
