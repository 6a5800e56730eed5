//! The rules of `resolve`, by example and by random histories that model clients live through.

mod resolve_support;

use resolve_support::{Mail, Server, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::How;
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
