//! qmail-pop3d's Maildirs, compared with its own listings.

use std::collections::BTreeMap;

use crate::shared::capture::{data, listed, remarks_on, spent, uidls};
use crate::support::maildir::Old;
use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::maildrop::State;

#[test]
fn a_maildir_is_captured_as_qmail_pop3d_itself_listed_it() {
    for names in ["names-qmail", "names-courier"] {
        let old = Old::of([]);
        let mut mtimes = BTreeMap::new();
        for line in data(&format!("qmail/files.{names}")).lines() {
            let (mtime, file) = line.split_once(' ').unwrap();
            old.add_at(file, mtime.parse().unwrap());
            let base = file.rsplit('/').next().unwrap().split(':').next().unwrap();
            mtimes.insert(base.to_owned(), mtime.to_owned());
        }
        let captured = old.capture(&ServerKind::Qmail);
        let (ours, theirs) = (uidls(&captured.maildrop), listed(&format!("qmail/uidl.{names}")));
        assert_eq!(captured.losses, [""; 0]);
        // The order is compared by seconds: qmail-pop3d itself is not stable within one second.
        let seconds =
            |uidls: &[String]| uidls.iter().map(|u| mtimes[u].clone()).collect::<Vec<_>>();
        assert_eq!(seconds(&ours), seconds(&theirs));
        let sorted = |mut uidls: Vec<String>| {
            uidls.sort();
            uidls
        };
        assert_eq!(sorted(ours), sorted(theirs));
        assert!(remarks_on(&captured, "1 times a message has the mtime of the one before"));
        assert_eq!(remarks_on(&captured, "longer than the 70 octets"), names == "names-courier");
    }
}

#[test]
fn mail_of_one_second_is_in_the_order_of_names_each_time() {
    let old = Old::of([]);
    for name in ["c", "a", "b"] {
        old.add_at(&format!("new/{name}"), 1_700_000_000);
    }
    assert_eq!(uidls(&old.capture(&ServerKind::Qmail).maildrop), ["a", "b", "c"]);
}

/// Rule 9.
#[test]
fn a_name_that_pop3_cannot_carry_costs_that_message() {
    let old = Old::of(["cur/1.a b:2,S", "cur/2.c:2,S", "new/.hidden"]);
    let captured = old.capture(&ServerKind::Qmail);
    assert_eq!(uidls(&captured.maildrop), ["2.c"]);
    assert_eq!(captured.losses, ["1.a b:2,S: unique-id has octet 0x20 at 3, outside 0x21-0x7e"]);
}

#[test]
fn a_unique_id_is_no_name_that_only_a_copy_has() {
    for separator in [";", "_", " "] {
        let name = |n: usize| format!("cur/171499000{n}.a{separator}2,S");
        let (one, two) = (name(1), name(2));
        let all = Old::of([&*one, &*two]).capture(&ServerKind::Qmail);
        assert_eq!(all.maildrop.state, State::Failed, "{separator:?}");
        assert!(all.losses[0].starts_with("2 of 2 messages have a name that a copy has changed"));

        let some = Old::of([&*one, "cur/1714990008.b:2,S", "cur/1714990009.c:2,"]);
        let some = some.capture(&ServerKind::Qmail);
        assert_eq!(some.maildrop.state, State::Captured, "{separator:?}");
        assert!(some.losses.iter().any(|it| it.starts_with("1 of 3 messages have a name")));
        // Clients may know it by the name that it had.
        assert_eq!(spent(&some.maildrop), ["1714990001.a"]);
    }
    // Files in `new` have no flags: a name there is as it was delivered.
    let new = Old::of(["new/1714990001.a;2,S"]).capture(&ServerKind::Qmail);
    assert_eq!(uidls(&new.maildrop), ["1714990001.a;2,S"]);
}

#[test]
fn a_maildrop_of_names_that_pop3_cannot_carry_fails() {
    let old = Old::of(["cur/1.a b:2,S", "cur/2.c d:2,S", "cur/3.e:2,S"]);
    let captured = old.capture(&ServerKind::Qmail);
    assert_eq!(captured.maildrop.state, State::Failed);
    assert!(captured.losses[0].starts_with("2 of 3 unique-ids are of no use"));
}

#[test]
fn copies_under_one_base_name_keep_the_one_uidl_that_they_had() {
    let old = Old::of(["cur/1.a:2,S", "new/1.a"]);
    let captured = old.capture(&ServerKind::Qmail);
    assert_eq!(uidls(&captured.maildrop), ["1.a", "1.a"]);
    assert!(remarks_on(&captured, "1 messages have a unique-id that an earlier one has too"));
}
