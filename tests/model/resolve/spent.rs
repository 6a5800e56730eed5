//! Rule 6: which UIDLs some client may hold for another message.

use super::{is_derived, native, provenance};
use crate::support::rules::{Server, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::{FIRST_ORDER, Provenance, Told};
use uidl_keep::maildrop::Counter;
use uidl_keep::resolve::COUNTS_ON;

/// A new server that gives UIDLs under UIDVALIDITY 99, and an old one that gave them under this
/// UIDVALIDITY and was to give number 4 next.
fn counted(format: &str, uidvalidity: u32) -> Server {
    let mut maildrop = captured(&[("U1", &mail("a", 1, 1))]);
    maildrop.uidvalidity = Some(uidvalidity);
    maildrop.counter = Some(Counter { format: UidlFormat::parse(format).unwrap(), next: 4 });
    Server::new(maildrop)
}

#[test]
fn a_uidl_that_was_captured_is_never_given_to_a_new_message() {
    let mut maildrop = captured(&[(&native(2), &mail("a", 1, 1))]);
    maildrop.entries[0].earlier.push(uidl(&native(3)));
    maildrop.spent = vec![uidl(&native(1))];
    let mut server = Server::new(maildrop);
    for n in 0..4 {
        server.put(mail("new", 9, n), format!("new{n}"));
    }
    let uidls = server.uidls();
    assert!(uidls[..3].iter().all(|uidl| is_derived(uidl)), "{uidls:?}");
    assert_eq!(uidls[3], native(4));
}

/// The old server goes on counting while captures follow, and a client polls it there.
#[test]
fn numbers_up_to_65536_beyond_the_old_counter_are_never_given() {
    assert_eq!(COUNTS_ON, 65_536);
    let mut server = counted("%08Xu%08Xv", 99);
    server.next_uid = 3;
    server.put(mail("new", 9, 9), "new".into());
    server.next_uid = 65_539;
    for name in ["newer", "newest"] {
        server.put(mail(name, 9, 9), name.into());
    }
    let uidls = server.uidls();
    assert!(is_derived(&uidls[0]) && is_derived(&uidls[1]), "{uidls:?}");
    assert_eq!(uidls[2], native(65_540));
}

/// The mailbox could not be written when its next UID was to be raised.
#[test]
fn a_settled_maildrop_gives_no_number_that_the_old_server_may_give_yet() {
    let mut server = counted("%08Xu%08Xv", 99);
    server.copy(&mail("a", 1, 1), true);
    server.log_in();
    server.next_uid = 2;
    server.put(mail("new", 9, 9), "new".into());
    let uidls = server.uidls();
    assert!(is_derived(&uidls[1]), "{uidls:?}");
}

/// The backup has the mailbox from before its next UID was raised, and the ledger from after.
#[test]
fn what_is_restored_goes_beyond_what_the_old_server_may_give_in_a_settled_maildrop_too() {
    let mut server = counted("%08Xu%08Xv", 99);
    server.copy(&mail("a", 1, 1), true);
    server.log_in();
    let mut backup = server.clone();
    backup.next_uid = 2;
    server.put(mail("new", 9, 9), "new".into());
    let told = server.uidls()[1].clone();
    assert_eq!(told, native(65_540));
    backup.stamps.restored = 5;
    backup.log_in();
    for n in 0..3 {
        backup.put(mail("newer", 8, n), format!("newer{n}"));
    }
    let uidls = backup.uidls();
    assert!(!uidls.contains(&told), "{told} is another mail's: {uidls:?}");
}

#[test]
fn the_next_uid_is_raised_past_what_is_spent_in_the_mailboxs_own_format() {
    for (format, native, uidvalidity, first) in [
        ("%08Xu%08Xv", "%08Xu%08Xv", 99, 65_540),
        ("%08Xu%08Xv", "%08Xu%08Xv", 98, 1),
        ("UID%u-%v", "%08Xu%08Xv", 99, 1),
        ("%u", "%u", 98, 65_540),
    ] {
        let mut server = counted(format, uidvalidity);
        server.native = UidlFormat::parse(native).unwrap();
        let resolution = server.log_in();
        assert_eq!(resolution.first_unspent_uid, first, "{format}, {native}, {uidvalidity}");
    }
    let mut server = Server::new(captured(&[(&native(77), &mail("a", 1, 1))]));
    assert_eq!(server.log_in().first_unspent_uid, 78, "past what was captured");
    server.put(mail("new", 9, 9), "new".into());
    server.store("new", &native(500), None);
    assert_eq!(server.log_in().first_unspent_uid, 501, "past what storage holds");
}

#[test]
fn a_number_that_no_mailbox_reaches_does_not_raise_the_next_uid() {
    for (number, first) in [(u32::MAX - 1, 1), (1 << 31, 1), ((1 << 31) - 1, 1 << 31)] {
        let mut server = Server::new(captured(&[(&native(number), &mail("a", 1, 1))]));
        assert_eq!(server.log_in().first_unspent_uid, first, "{number}");
    }
    for (below, first) in [(u32::MAX, 1), (1 << 31, 1), ((1 << 31) - 1, (1 << 31) - 1)] {
        let mut server = Server::new(captured(&[("U1", &mail("a", 1, 1))]));
        server.log_in();
        server.ledger.as_mut().unwrap().told = vec![Told { uidvalidity: 99, below }];
        assert_eq!(server.log_in().first_unspent_uid, first, "told below {below}");
    }
}

#[test]
fn a_stored_uidl_with_a_counted_number_is_not_believed() {
    let mut server = counted("%u", 17);
    for (name, text) in [("x", "65539"), ("y", "65540")] {
        server.put(mail(name, 9, 9), name.into());
        server.store(name, text, None);
    }
    let resolution = server.log_in();
    assert_eq!(provenance(&resolution, 1), Provenance::Native);
    assert_eq!(provenance(&resolution, 2), Provenance::Stored);
}

/// The `P` is from an earlier conversion, under the same UIDVALIDITY.
#[test]
fn a_number_that_the_old_server_had_given_is_not_believed_of_the_message_that_has_it_as_uid() {
    for (uid, is_believed) in [(3, false), (4, true)] {
        let mut server = counted("%08Xu%08Xv", 99);
        server.next_uid = uid;
        server.put(mail("x", 9, 9), "x".into());
        server.store("x", &native(uid), Some(FIRST_ORDER));
        assert_eq!(server.uidls() == [native(uid)], is_believed, "{uid}");
    }
}

/// Copies share a GUID where the source is an mbox.
#[test]
fn of_two_messages_that_would_get_one_uidl_the_second_gets_a_derived_one() {
    let mut server = Server::new(captured(&[("U1", &mail("a", 1, 1))]));
    server.native = UidlFormat::parse("%g").unwrap();
    for _ in 0..2 {
        server.put(mail("new", 9, 9), "guid".into());
    }
    let uidls = server.uidls();
    assert_eq!(uidls[0], "guid");
    assert!(is_derived(&uidls[1]), "{uidls:?}");
}

#[test]
fn a_derived_uidl_is_the_messages_own() {
    let derived = |change: &dyn Fn(&mut Server)| {
        let mut server = Server::new(captured(&[("U1", &mail("a", 1, 1))]));
        server.native = UidlFormat::parse("%u").unwrap();
        server.put(mail("new", 9, 9), "new".into());
        change(&mut server);
        server.uidls().pop().unwrap()
    };
    let own = derived(&|_| ());
    assert!(is_derived(&own) && own.ends_with('~') && own.len() == 34, "{own}");
    assert_eq!(derived(&|_| ()), own, "it is the same as long as the message is");
    assert_eq!(
        own, "~9d3d8941ecf4f8d552875e7fb174132c~",
        "clients hold it: no later version gives another"
    );
    for (what, change) in [
        ("user", (|server| server.captured.user = "bob".into()) as fn(&mut Server)),
        ("UIDVALIDITY", |server| server.uidvalidity = 100),
        ("UID", |server| server.held[0].uid = 2),
        ("name", |server| server.held[0].name = "newer".into()),
    ] {
        assert_ne!(derived(&change), own, "{what}");
    }
}
