//! qmail-pop3d's Maildirs, against what it listed itself.

mod capture_support;

use std::collections::BTreeMap;

use capture_support::{Old, data, listed, remarks_on, uidls};
use uidl_keep::capture::Server;

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
        let captured = old.capture(&Server::Qmail);
        let (ours, theirs) = (uidls(&captured.maildrop), listed(&format!("qmail/uidl.{names}")));
        assert_eq!(captured.losses, [""; 0]);
        // Message by message of the same second, which is as far as qmail-pop3d itself is stable.
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
    assert_eq!(uidls(&old.capture(&Server::Qmail).maildrop), ["a", "b", "c"]);
}

/// Rule 9.
#[test]
fn a_name_that_pop3_cannot_carry_costs_that_message() {
    let old = Old::of(["cur/1.a b:2,S", "cur/2.c:2,S", "new/.hidden"]);
    let captured = old.capture(&Server::Qmail);
    assert_eq!(uidls(&captured.maildrop), ["2.c"]);
    assert_eq!(captured.losses, ["1.a b:2,S: unique-id has octet 0x20 at 3, outside 0x21-0x7e"]);
}

#[test]
fn copies_under_one_base_name_keep_the_one_uidl_that_they_had() {
    let old = Old::of(["cur/1.a:2,S", "new/1.a"]);
    let captured = old.capture(&Server::Qmail);
    assert_eq!(uidls(&captured.maildrop), ["1.a", "1.a"]);
    assert!(remarks_on(&captured, "1 messages have a unique-id that an earlier one has too"));
}
