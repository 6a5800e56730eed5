//! Odd things in Courier's lists. tests/offline/capture.rs shows that the lists themselves are read
//! rightly.

use std::cmp::Ordering;

use crate::shared::capture::{data, remarks_on, spent, uidls};
use crate::support::maildir::Old;
use proptest::prelude::*;
use uidl_keep::capture::disk::courier::{SizeList, order};
use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::maildrop::State;

const LIST: &str = "courierpop3dsizelist";

#[test]
fn the_order_is_by_number_then_by_name_with_the_colon_among_the_letters() {
    // ':' comes after '.' and ',', so the longer name may come first.
    let old = Old::of(["cur/10.a:2,S", "cur/9.b:2,", "cur/10.a.b:2,", "cur/10.A:2,", "new/10.aa"]);
    let old = old.state(
        LIST,
        "/3 9 17\n9.b:2, 1 1:17:0\n10.a:2, 1 2:17:0\n10.aa 1 3:17:0\n10.A:2, 1 4:17:0\n\
         10.a.b:2, 1 5:17:0\n",
    );
    let maildrop = old.capture(&ServerKind::Courier).maildrop;
    assert_eq!(uidls(&maildrop), ["UID1-17", "UID4-17", "UID5-17", "UID2-17", "UID3-17"]);
}

#[test]
fn names_compare_up_to_their_flags_and_as_signed_octets() {
    for (a, b, is) in [
        ("9.b:2,", "10.a:2,", Ordering::Less),
        ("10.a:2,S", "10.a:2,F", Ordering::Equal),
        ("10.a", "10.a:2,", Ordering::Less),
        ("10.a.b:2,", "10.a:2,", Ordering::Less),
        ("10.\u{e9}:2,", "10.a:2,", Ordering::Less),
        ("-1.a", "x.a", Ordering::Less),
        ("9223372036854775807.b", "99999999999999999999.a", Ordering::Less),
    ] {
        assert_eq!(order(a.as_bytes(), b.as_bytes()), is, "{a} {b}");
        assert_eq!(order(b.as_bytes(), a.as_bytes()), is.reverse(), "{b} {a}");
    }
}

#[test]
fn what_was_seen_is_of_one_moment_however_fast_mail_comes() {
    let old = Old::of([]);
    fn name(n: usize) -> String {
        format!("{}.m", 1000 + n)
    }
    let list = |upto: usize| {
        let lines = (0..upto).map(|n| format!("{}:2, 10 {}:17:0\n", name(n), n + 1));
        format!("/3 {} 17\n{}", upto + 1, lines.collect::<String>())
    };
    let start = 400;
    (0..start).for_each(|n| old.add(&format!("cur/{}:2,", name(n))));
    let old = old.state(LIST, list(start));
    let path = old.path.clone();
    let busy = std::thread::spawn(move || {
        for n in start..start + 600 {
            std::fs::write(path.join(format!("cur/{}:2,", name(n))), "Subject: x\n\n").unwrap();
            // Courier comes after each.
            std::fs::write(path.join("tmp/list"), list(n + 1)).unwrap();
            std::fs::rename(path.join("tmp/list"), path.join(LIST)).unwrap();
            if n % 40 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    });
    let mut captured = 0;
    while !busy.is_finished() {
        let seen = old.capture(&ServerKind::Courier);
        if seen.maildrop.state == State::Captured {
            let more = seen.maildrop.remarks.iter().find(|remark| remark.contains("not listed"));
            assert!(more.is_none_or(|more| more.starts_with("1 message ")), "{more:?}");
            captured += 1;
        }
    }
    busy.join().unwrap();
    assert!(captured > 0);
}

#[test]
fn a_file_that_came_back_under_other_flags_takes_the_line_of_its_own_name_first() {
    let old = Old::of(["cur/1.a:2,RS", "cur/1.a:2,S"])
        .state(LIST, "/3 9 17\n1.a:2,S 1 4:17:0\n1.a:2,RS 1 5:17:0\n1.a:2,F 1 6:17:0\n");
    let captured = old.capture(&ServerKind::Courier);
    let by_subject = |uidl: &str| {
        captured.maildrop.entries.iter().find(|e| e.uidl.to_string() == uidl).unwrap().header
    };
    let alone = Old::of(["cur/1.a:2,S"]).state(LIST, "/3 9 17\n1.a:2,S 1 4:17:0\n");
    assert_eq!(
        by_subject("UID4-17"),
        alone.capture(&ServerKind::Courier).maildrop.entries[0].header
    );
    assert!(by_subject("UID5-17").is_some());
    assert_eq!(spent(&captured.maildrop), ["UID6-17"]);
}

#[test]
fn a_last_line_without_its_end_is_not_believed() {
    let old = Old::of(["cur/1.a:2,S", "cur/2.b:2,S"])
        .state(LIST, "/3 9 1714990000\n1.a:2,S 1 1:1714990000:0\n2.b:2,S 1 2:17149");
    let captured = old.capture(&ServerKind::Courier);
    assert_eq!(uidls(&captured.maildrop), ["UID1-1714990000"]);
    assert!(captured.losses[0].starts_with("courierpop3dsizelist:3: "), "{:?}", captured.losses);
}

#[test]
fn mail_that_courier_has_never_listed_is_empty_where_courier_has_been_and_else_a_failure() {
    let unread = Old::of(["new/1.a"]).capture(&ServerKind::Courier);
    assert_eq!((unread.maildrop.state, unread.losses.len()), (State::Empty, 0));
    assert!(
        remarks_on(&unread, "no POP3 client was ever told of the 1 message here"),
        "{:?}",
        unread.maildrop.remarks
    );

    let by_imap = Old::of(["cur/1.a:2,S"]).state("courierimapuiddb", "1 17 2\n1 1.a\n");
    assert_eq!(by_imap.capture(&ServerKind::Courier).maildrop.state, State::Empty);

    // Nobody has to act, unless Dovecot answers here by now.
    let taken_over = Old::of(["cur/1.a:2,S"]).state("courierimapuiddb", "1 17 2\n1 1.a\n");
    assert_eq!(taken_over.capture(&ServerKind::Courier).notes, [""; 0]);
    let taken_over = taken_over.state("dovecot-uidlist", "3 V17 N2\n1 :1.a\n");
    assert_eq!(taken_over.capture(&ServerKind::Courier).notes.len(), 1);

    let copied_without_state = Old::of(["cur/1.a:2,S"]).capture(&ServerKind::Courier);
    assert_eq!(copied_without_state.maildrop.state, State::Failed);
    assert!(copied_without_state.losses[0].contains("left out of the copy"));
}

#[test]
fn what_no_number_of_32_bits_can_hold_is_still_a_uidl_and_no_counter() {
    let old = Old::of(["cur/1.a:2,S"])
        .state(LIST, "/3 9 99999999999\n1.a:2,S 1 18446744073709551615:99999999999:0\n");
    let captured = old.capture(&ServerKind::Courier);
    assert_eq!(uidls(&captured.maildrop), ["UID18446744073709551615-99999999999"]);
    assert_eq!(captured.maildrop.counter, None);
    assert!(remarks_on(&captured, "exceed 32 bits"));
}

#[test]
fn a_list_that_a_newer_courier_would_throw_away_says_so() {
    for version in ["v0", "v1"] {
        let state = data(&format!("courier/courierpop3dsizelist.crafted-{version}"));
        let captured = Old::of(["cur/1714990000.20000.old.example.com:2,S"]).state(LIST, state);
        let captured = captured.capture(&ServerKind::Courier);
        assert!(remarks_on(&captured, "is of version"), "{:?}", captured.maildrop.remarks);
        assert_eq!(captured.losses, [""; 0]);
    }
}

#[test]
fn a_list_of_thousands_of_odd_lines_is_told_in_a_few() {
    let mut list = "/3 9 17\n1.a:2,S 1 1:17:0\n".to_owned();
    list.extend(std::iter::repeat_n("odd\n", 5000));
    let captured = Old::of(["cur/1.a:2,S"]).state(LIST, list).capture(&ServerKind::Courier);
    assert_eq!(captured.losses.len(), 21);
    assert_eq!(captured.losses[20], "4980 more like these");
}

/// Four messages, under these names in `cur`, and a list that has them by `:2,S`.
fn of_four(names: [&str; 4]) -> Old {
    let files: Vec<String> = names.iter().map(|name| format!("cur/{name}")).collect();
    Old::of(files.iter().map(String::as_str)).state(
        LIST,
        "/3 9 17\n1714990001.a:2,S 1 1:17:0\n1714990002.b:2,S 1 2:17:0\n\
         1714990003.c:2,S 1 3:17:0\n1714990004.d:2,S 1 4:17:0\n",
    )
}

#[test]
fn names_that_a_copy_has_changed_fail_unless_most_are_as_they_were() {
    for separator in [";", "_", " ", "%3A", "!", "\u{f022}"] {
        let name = |name: &str| format!("{name}{separator}2,S");
        let [a, b, c, d] =
            ["1714990001.a", "1714990002.b", "1714990003.c", "1714990004.d"].map(name);
        let all = of_four([&a, &b, &c, &d]).capture(&ServerKind::Courier);
        assert_eq!(all.maildrop.state, State::Failed, "{separator:?}");
        assert!(all.losses[0].starts_with("4 of 4 messages have a name that a copy has changed"));
        assert_eq!((all.maildrop.entries.len(), all.maildrop.counter), (0, None));

        let three = of_four(["1714990001.a:2,S", &b, &c, &d]).capture(&ServerKind::Courier);
        assert_eq!(three.maildrop.state, State::Failed, "{separator:?}");

        let one = of_four(["1714990001.a:2,S", "1714990002.b:2,RS", "1714990003.c", &d]);
        let one = one.capture(&ServerKind::Courier);
        assert_eq!(uidls(&one.maildrop), ["UID1-17", "UID2-17", "UID3-17"], "{separator:?}");
        assert_eq!(spent(&one.maildrop), ["UID4-17"]);
        assert!(one.losses[0].starts_with("1 of 4 messages have a name that a copy has changed"));
    }
}

#[test]
fn a_name_that_courier_itself_has_listed_is_no_changed_one() {
    let old = Old::of(["cur/1714990001.a;2,S", "cur/1714990002.b_2,"]);
    let old = old.state(LIST, "/3 9 17\n1714990001.a;2,S 1 1:17:0\n1714990002.b_2, 1 2:17:0\n");
    let captured = old.capture(&ServerKind::Courier);
    assert_eq!(uidls(&captured.maildrop), ["UID1-17", "UID2-17"]);
    assert_eq!(captured.losses, [""; 0]);
}

#[test]
fn a_list_of_another_mailbox_fails_and_one_whose_mail_is_all_deleted_does_not() {
    let of_another = "cur/171499000{}.other:2,S";
    let files: Vec<String> = (0..3).map(|n| of_another.replace("{}", &n.to_string())).collect();
    let lines = "/3 9 17\n1714990001.a:2,S 1 1:17:0\n1714990002.b:2,S 1 2:17:0\n";
    let old = Old::of(files.iter().map(String::as_str)).state(LIST, lines);
    let captured = old.capture(&ServerKind::Courier);
    assert_eq!(captured.maildrop.state, State::Failed);
    assert!(
        captured.losses[0].starts_with("courierpop3dsizelist lists 2 messages and 3 lie beside it"),
        "{:?}",
        captured.losses
    );
    // Half of the names do not match, whatever was done to them: this is said, and named at the
    // end.
    let half = Old::of(["cur/1714990001.a:2,S", "cur/1714990002.B:2,S"]);
    let half = half.state(LIST, lines).capture(&ServerKind::Courier);
    assert_eq!((uidls(&half.maildrop), half.losses.len()), (vec!["UID1-17".to_owned()], 0));
    assert!(half.notes[0].starts_with("1 messages are not in courierpop3dsizelist although they"));
    let one = Old::of(["cur/1714990002.B:2,S"]).state(LIST, lines).capture(&ServerKind::Courier);
    assert_eq!(one.maildrop.state, State::Failed);
    // Names that do not say when they came can be anybody's.
    let nameless = Old::of(["cur/x:2,S"]).state(LIST, lines).capture(&ServerKind::Courier);
    assert_eq!(nameless.maildrop.state, State::Failed);

    // The user downloaded and deleted all; since then mail has come, and a webmail has opened it.
    let later = Old::of(["cur/1714990009.z:2,S", "new/1714990000.y"]).state(LIST, lines);
    let captured = later.capture(&ServerKind::Courier);
    assert_eq!((captured.maildrop.state, captured.losses.len()), (State::Captured, 0));
    assert_eq!(captured.notes, [""; 0]);
    assert_eq!(spent(&captured.maildrop), ["UID1-17", "UID2-17"]);
    let none = Old::of([]).state(LIST, lines).capture(&ServerKind::Courier);
    assert_eq!((none.maildrop.state, none.losses.len()), (State::Captured, 0));
}

#[test]
fn a_list_that_a_copy_has_given_other_line_ends_says_the_same() {
    let names = ["1714990001.a:2,S", "1714990002.b:2,S", "1714990003.c:2,S", "1714990004.d:2,S"];
    for list in [
        "/3 9 17\r\n1714990001.a:2,S 1 1:17:0\r\n1714990002.b:2, 1 2:17:0\r\n",
        "/2 9 17\r\n1714990001.a:2,S 1 1:17\r\n1714990002.b:2, 1 2:17\r\n",
    ] {
        let captured = of_four(names).state(LIST, list).capture(&ServerKind::Courier);
        assert_eq!(uidls(&captured.maildrop), ["UID1-17", "UID2-17"], "{list:?}");
        assert_eq!(captured.losses, [""; 0]);
        assert_eq!(captured.maildrop.counter.unwrap().next, 9);
    }
    let list = "1714990001.a:2,S 1\r\n1714990002.b:2, 1\r\n";
    let captured = of_four(names).state(LIST, list).capture(&ServerKind::Courier);
    assert_eq!(uidls(&captured.maildrop), ["1714990001.a", "1714990002.b"]);
}

#[test]
fn a_list_of_which_nothing_can_be_made_out_beside_mail_fails_whatever_its_version() {
    let old = Old::of(["cur/1714990001.a:2,S"]).state(LIST, "/3 9 17\nwhat is this\n");
    let captured = old.capture(&ServerKind::Courier);
    assert_eq!(captured.maildrop.state, State::Failed);
    assert!(captured.losses[0].starts_with("1 of 1 unique-ids are of no use"));
}

proptest! {
    #[test]
    fn no_list_makes_the_parser_panic_or_lose_a_line_unsaid(
        lines in proptest::collection::vec(
            "[ -~]{0,40}|/[0-9] [0-9]{1,25}|[0-9a:,. ]{0,30}",
            0..20,
        ),
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut octets = lines.join("\n").into_bytes();
        octets.extend(noise);
        if let Ok(list) = SizeList::parse(&octets) {
            let lines = octets.split_inclusive(|&octet| octet == b'\n').count();
            let headers = usize::from(octets.starts_with(b"/"));
            prop_assert_eq!(list.lines.len() + list.odd.len() + headers, lines);
        }
    }

    #[test]
    fn the_order_of_names_is_an_order(
        names in proptest::collection::vec("[-+]?[0-9]{0,2}[:.a\u{e9}]{0,4}", 3),
    ) {
        let of = |a: usize, b: usize| order(names[a].as_bytes(), names[b].as_bytes());
        prop_assert_eq!(of(0, 1), of(1, 0).reverse());
        if of(0, 1) != Ordering::Greater && of(1, 2) != Ordering::Greater {
            prop_assert_ne!(of(0, 2), Ordering::Greater);
        }
    }
}
