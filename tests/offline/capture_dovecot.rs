//! Odd things in Dovecot's lists. tests/offline/capture.rs shows that the lists themselves are read
//! rightly.

use crate::shared::capture::{data, listed, remarks_on, spent, uidls};
use crate::support::maildir::Old;
use proptest::prelude::*;
use uidl_keep::capture::disk::dovecot::UidList;
use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::format::UidlFormat;
use uidl_keep::maildrop::State;

const LIST: &str = "dovecot-uidlist";

fn dovecot(format: &str) -> ServerKind {
    ServerKind::Dovecot { format: UidlFormat::parse(format).unwrap() }
}

#[test]
fn every_format_gives_what_dovecot_gave_for_the_same_maildir() {
    let list = data("dovecot/dovecot-uidlist.default");
    let files: Vec<String> =
        list.lines().skip(1).map(|line| line.split_once(" :").unwrap().1.to_owned()).collect();
    let old = Old::of(
        files
            .iter()
            .map(|file| format!("cur/{file}:2,S"))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str),
    )
    .state(LIST, &list);
    let uidvalidity = list.split([' ', '\n']).nth(1).unwrap().strip_prefix('V').unwrap();
    let mut compared = 0;
    for line in data("dovecot/uidl-formats.txt").lines() {
        let fields: Vec<&str> = line.split(" | ").collect();
        if fields[0] != "maildir-dovecot" || fields[2].contains("Error") || !fields[1].contains('%')
        {
            continue;
        }
        let said: Vec<&str> = fields[2].split_whitespace().skip(1).step_by(2).collect();
        let captured = old.capture(&dovecot(fields[1])).maildrop;
        assert_eq!(captured.uidvalidity.unwrap().to_string(), uidvalidity);
        assert_eq!(uidls(&captured)[..4], said[..], "{}", fields[1]);
        compared += 1;
    }
    assert_eq!(compared, 9, "formats compared");
    assert_eq!(
        uidls(&old.capture(&dovecot("%08Xu%08Xv")).maildrop),
        listed("dovecot/uidl.default")
    );
}

#[test]
fn a_message_without_a_place_comes_after_those_with_one_and_by_uid() {
    let old = Old::of(["cur/a:2,S", "cur/b:2,S", "cur/c:2,S", "cur/d:2,S", "cur/e:2,S"])
        .state(LIST, "3 V17 N9\n1 :a\n2 O7 :b\n3 Oodd :c\n4 O4294967296 :d\n5 O0 :e\n");
    // An odd place is no place, and no place is 2^32 - 1: only a larger number comes behind it.
    assert_eq!(uidls(&old.capture(&dovecot("%u")).maildrop), ["5", "2", "1", "3", "4"]);
}

#[test]
fn a_file_that_came_back_under_a_new_uid_is_listed_by_it_and_the_old_is_spent() {
    let old =
        Old::of(["cur/a:2,S", "cur/b:2,S"]).state(LIST, "3 V17 N9\n1 :a\n2 :b\n3 :gone\n4 :a\n");
    let captured = old.capture(&dovecot("%u.%v"));
    assert_eq!(uidls(&captured.maildrop), ["2.17", "4.17"]);
    assert_eq!(spent(&captured.maildrop), ["1.17", "3.17"]);
    assert_eq!(captured.losses, [""; 0]);
}

#[test]
fn the_next_uid_is_beyond_every_line_whatever_the_header_says() {
    let old = Old::of(["cur/a:2,S"]).state(LIST, "3 V17 N1\n41 :a\n");
    assert_eq!(old.capture(&dovecot("%u-%v")).maildrop.counter.unwrap().next, 42);
    assert_eq!(old.capture(&dovecot("%f")).maildrop.counter, None);
}

#[test]
fn one_odd_line_costs_that_line_where_dovecot_would_begin_anew() {
    for odd in ["x :b", "2 :", "2 w7 :b", "2", "0 :b", "4294967295 :b", "2 :new/b", "2 Wx", ""] {
        let old = Old::of(["cur/a:2,S", "cur/b:2,S", "cur/c:2,S"])
            .state(LIST, format!("3 V17 N9\n1 :a\n{odd}\n3 :c\n"));
        let captured = old.capture(&dovecot("%u"));
        assert_eq!(uidls(&captured.maildrop), ["1", "3"], "{odd:?}");
        assert!(
            captured.losses[0].starts_with("dovecot-uidlist:3: "),
            "{odd:?}: {:?}",
            captured.losses
        );
    }
}

#[test]
fn a_saved_uidl_that_pop3_cannot_carry_is_refused_and_said() {
    let old = Old::of(["cur/a:2,S", "cur/b:2,S"]).state(LIST, "3 V17 N9\n1 PUID\u{7f} :a\n2 :b\n");
    let captured = old.capture(&dovecot("%u"));
    assert_eq!(uidls(&captured.maildrop), ["2"]);
    assert!(
        captured.losses[0].contains("uid 1: unique-id has octet 0x7f"),
        "{:?}",
        captured.losses
    );
}

#[test]
fn mail_that_was_opened_and_is_in_no_list_is_a_failure_and_new_mail_is_not() {
    let copied_without_list = Old::of(["cur/a:2,S"]).capture(&dovecot("%u"));
    assert_eq!(copied_without_list.maildrop.state, State::Failed);
    let never_opened = Old::of(["new/a"]).capture(&dovecot("%u"));
    assert_eq!(never_opened.maildrop.state, State::Empty);
    let behind = Old::of(["cur/a:2,S", "new/b"]).state(LIST, "3 V17 N2\n1 :a\n");
    let behind = behind.capture(&dovecot("%u"));
    assert_eq!(uidls(&behind.maildrop), ["1"]);
    assert!(remarks_on(&behind, "not in dovecot-uidlist yet"));
}

#[test]
fn line_ends_of_cr_lf_are_read_as_dovecot_reads_them() {
    for list in ["3 V17 N9 Gabc\r\n1 PUID7-9 :a\r\n2 :b\r\n", "1 17 9\r\n1 a\r\n2 b\r\n"] {
        let old = Old::of(["cur/a:2,S", "cur/b:2,S"]).state(LIST, list);
        let captured = old.capture(&dovecot("%u.%v"));
        assert_eq!(captured.losses, [""; 0], "{list:?}");
        let first = if list.starts_with('3') { "UID7-9" } else { "1.17" };
        assert_eq!(uidls(&captured.maildrop), [first, "2.17"], "{list:?}");
    }
}

#[test]
fn a_uidlist_that_names_other_mail_than_lies_there_fails() {
    for separator in [";", "_", " "] {
        let name = |name: &str| format!("cur/{name}{separator}2,S");
        let (b, c) = (name("b"), name("c"));
        let old = Old::of(["cur/a:2,S", &*b, &*c]).state(LIST, "3 V17 N9\n1 :a\n2 :b\n3 :c\n");
        let captured = old.capture(&dovecot("%u"));
        assert_eq!(captured.maildrop.state, State::Failed, "{separator:?}");
        assert!(captured.losses[0].starts_with("2 of 3 messages have a name that a copy"));
    }
    let old = Old::of(["cur/a:2,S", "cur/b:2,S"]).state(LIST, "3 V17 N9\n1 :x\n2 :y\n");
    let captured = old.capture(&dovecot("%u"));
    assert!(captured.losses[0].starts_with("dovecot-uidlist lists 2 messages and 2 lie beside it"));
    assert_eq!(captured.maildrop.state, State::Failed);
}

#[test]
fn a_format_whose_unique_ids_pop3_cannot_carry_fails_the_maildrop() {
    let list = "3 V17 N9\n1 :a b\n2 :c d\n3 :e\n";
    let old = Old::of(["cur/a b:2,S", "cur/c d:2,S", "cur/e:2,S"]).state(LIST, list);
    let captured = old.capture(&dovecot("%f"));
    assert_eq!(captured.maildrop.state, State::Failed);
    let said = "2 of 3 unique-ids are of no use, such as dovecot-uidlist: uid 1: unique-id has \
                octet 0x20";
    assert!(captured.losses[0].starts_with(said), "{:?}", captured.losses);
    assert_eq!(uidls(&old.capture(&dovecot("%u")).maildrop), ["1", "2", "3"]);
}

#[test]
fn a_header_that_dovecot_would_not_take_fails_the_maildrop() {
    for header in ["", "2 17 9", "3 N9", "3 V0 N9", "3 Vx N9", "1 17", "9 V1 N1", "3", "/3 1 2"] {
        let old = Old::of(["cur/a:2,S"]).state(LIST, format!("{header}\n1 :a\n"));
        let captured = old.capture(&dovecot("%u"));
        assert_eq!(captured.maildrop.state, State::Failed, "{header:?}");
    }
}

proptest! {
    #[test]
    fn no_list_makes_the_parser_panic_or_lose_a_line_unsaid(
        lines in proptest::collection::vec(
            "[0-9]{1,11} ([A-Z][ -~]{0,5} ){0,3}:[a-c:/]{0,3}|[ -~]{0,30}",
            0..20,
        ),
        version in "3 V7 N9|1 7 9",
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut octets = format!("{version}\n{}\n", lines.join("\n")).into_bytes();
        octets.extend(noise);
        let list = UidList::parse(&octets).unwrap();
        let lines = octets.split_inclusive(|&octet| octet == b'\n').count() - 1;
        // The same line twice is one.
        prop_assert!(list.messages.len() + list.odd.len() + list.replaced.len() <= lines);
        prop_assert!(list.messages.keys().all(|&uid| uid < list.next));
        prop_assert!(UidList::parse(&octets[version.len()..]).is_err());
    }
}
