//! Evidence 3, names; and rule 3, which compares them before any mail is opened.

use super::{captured_all, native, provenance, several};
use crate::support::rules::{Server, captured, mail};
use uidl_keep::ledger::Provenance;
use uidl_keep::resolve::Need;

#[test]
fn a_copy_by_file_opens_no_mail_and_keeps_the_old_order() {
    let (a, b, c) = (mail("a,S=1", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    for old in [&c, &a, &b] {
        server.copy(old, true);
    }
    assert_eq!(server.uidls(), ["U1", "U2", "U3"]);
    for need in [Need::Header, Need::Message, Need::Octets, Need::Received, Need::Native] {
        assert_eq!(server.asked.get(&need), None, "{need:?}");
    }
}

#[test]
fn a_name_claims_only_where_names_may_match() {
    let a = mail("a", 1, 1);
    for may_match in [true, false] {
        let mut server = Server::new(captured(&[("U1", &a)]));
        server.keys.file = may_match;
        server.put(mail("other", 9, 9), "a".into());
        assert_eq!(server.uidls(), [if may_match { "U1".to_owned() } else { native(1) }]);
    }
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
fn a_uid_that_disagrees_does_not_outvote_a_name_that_only_one_entry_has() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.uidvalidity = 17;
    server.copy(&b, true);
    let resolution = server.log_in();
    assert_eq!(resolution.report.conflicts, [0; 0]);
    assert_eq!(provenance(&resolution, 1), Provenance::File);
    assert_eq!(server.uidls(), ["U2"]);
}

#[test]
fn a_uid_chooses_among_entries_that_one_name_fits() {
    let (a, b) = (mail("a,S=1", 1, 1), mail("a,S=2", 2, 2));
    for (uidvalidity, chosen) in [(17, "U2"), (99, "U1")] {
        let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
        server.uidvalidity = uidvalidity;
        server.next_uid = 2;
        server.put(b.clone(), "a".into());
        assert_eq!(server.uidls(), [chosen], "under UIDVALIDITY {uidvalidity}");
        assert_eq!(server.asked.get(&Need::Header), None);
    }
}

#[test]
fn names_that_differ_behind_the_comma_only_are_told_apart_by_the_whole() {
    let (a, b) = (mail("a,S=1", 1, 1), mail("a,S=2", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["U2"]);
}

#[test]
fn a_file_and_a_guid_that_name_two_entries_name_neither_and_that_is_reported() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.put(a, "a b".into());
    assert_eq!(server.log_in().report.conflicts, [1]);
    assert_eq!(server.uidls(), [native(1)], "and no content claims for it either");
}

#[test]
fn a_guid_of_no_entry_says_nothing_against_a_file_name() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.put(a, "a new-guid".into());
    assert_eq!(server.uidls(), ["U1"]);
}

#[test]
fn entries_of_one_name_go_in_their_order_to_messages_by_uid_and_further_messages_are_new() {
    let old = [mail("a", 1, 1), mail("a", 2, 2)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
    for body in [2, 1, 1] {
        server.put(mail("a", body, body), "a".into());
    }
    assert_eq!(server.uidls(), ["U1".to_owned(), "U2".to_owned(), native(3)]);
}

#[test]
fn what_only_one_entry_fits_is_not_taken_by_what_several_fit() {
    let (a, b) = (mail("a,S=1", 1, 1), mail("a,S=2", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.put(b.clone(), "a".into());
    server.put(a, "a,S=1".into());
    let told: Vec<_> =
        server.listing().into_iter().map(|(uidl, held)| (uidl.to_string(), held.uid)).collect();
    assert_eq!(told, [("U1".to_owned(), 2), ("U2".to_owned(), 1)]);
}

#[test]
fn a_name_that_many_share_up_to_the_comma_says_nothing() {
    for (many, asked) in [(64, None), (65, Some(&65))] {
        let mut mails = several(many);
        mails.iter_mut().enumerate().for_each(|(n, mail)| mail.name = format!("a,{n}"));
        let mut server = Server::new(captured_all(&mails));
        mails.iter().rev().for_each(|mail| _ = server.copy(mail, true));
        let names: Vec<String> = (0..many).map(|n| format!("U{n}")).collect();
        assert_eq!(server.uidls(), names);
        assert_eq!(server.asked.get(&Need::Header), asked, "of {many}");
    }
}

#[test]
fn the_better_evidence_has_the_entry_whichever_message_comes_first() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, false);
    server.copy(&a, true);
    let resolution = server.log_in();
    assert_eq!(provenance(&resolution, 1), Provenance::Native);
    assert_eq!(provenance(&resolution, 2), Provenance::File);
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
fn mail_is_opened_only_while_an_entry_is_left_that_it_could_claim() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&a, true);
    server.put(mail("new", 9, 9), "new".into());
    server.uidls();
    assert_eq!(server.asked[&Need::Header], 1);
    server.copy(&b, true);
    server.asked.clear();
    server.put(mail("newer", 8, 8), "newer".into());
    assert_eq!(server.uidls().len(), 4);
    assert_eq!(server.asked.get(&Need::Header), None);
}

#[test]
fn what_no_key_that_may_match_can_tell_is_not_read() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.captured.entries[0].header = None;
    server.put(mail("new", 9, 9), "new".into());
    assert_eq!(server.uidls(), [native(1)]);
    assert_eq!(server.asked.get(&Need::Header), None, "for its origin, which is not to match");
}
