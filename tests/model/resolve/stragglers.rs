//! Late mail: what the old MX took after the last copy, brought when clients have listed long
//! since.

use super::native;
use crate::support::rules::{Server, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::maildrop::{Counter, Entry, Maildrop, Name};
use uidl_keep::resolve::COUNTS_ON;

/// Two messages that the old server counted as this one counts, under the same UIDVALIDITY: it was
/// to give the number 3 next.
fn counted() -> Maildrop {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut maildrop = captured(&[(&native(1), &a), (&native(2), &b)]);
    maildrop.uidvalidity = Some(99);
    maildrop.counter = Some(Counter { format: UidlFormat::parse("%08Xu%08Xv").unwrap(), next: 3 });
    maildrop
}

/// Rule 6, and rule 4: POP3 had been stopped there. Whoever brings that mail, by whatever way, it
/// gets UIDLs that the old server will never have given, and stands behind all.
#[test]
fn late_mail_of_a_stopped_server_is_new_to_everybody_and_stands_behind_what_was_listed() {
    for by_file in [true, false] {
        let mut server = Server::new(counted());
        server.copy(&mail("a", 1, 1), by_file);
        server.copy(&mail("b", 2, 2), by_file);
        assert_eq!(server.uidls(), [native(1), native(2)]);
        server.copy(&mail("new", 8, 8), true);
        let listed = server.uidls();
        for late in 0..3 {
            server.copy(&mail(&format!("late{late}"), 20 + late, late), by_file);
        }
        let uidls = server.uidls();
        assert_eq!(uidls[..3], listed);
        assert_eq!(uidls.len(), 6);
        // The old server has given each of them a number by now.
        let given: Vec<String> = (1..3 + COUNTS_ON).map(native).collect();
        assert!(uidls[2..].iter().all(|uidl| !given.contains(uidl)), "{uidls:?}");
    }
}

/// Its POP3 still answers: a client has listed the late message there. The delta comes first.
#[test]
fn late_mail_that_a_delta_has_keeps_its_uidl_and_stands_behind_what_was_listed() {
    for by_file in [true, false] {
        let mut server = Server::new(counted());
        server.copy(&mail("a", 1, 1), by_file);
        server.copy(&mail("b", 2, 2), by_file);
        server.copy(&mail("new", 8, 8), true);
        let listed = server.uidls();
        let late = mail("late", 20, 20);
        server.captured.entries.push(Entry {
            file: Some(Name::Spelled(late.name.as_bytes().into())),
            header: late.header_print(),
            ..Entry::new(uidl(&native(3)))
        });
        server.captured.counter.as_mut().unwrap().next = 4;
        server.copy(&late, by_file);
        let uidls = server.uidls();
        assert_eq!(uidls[..3], listed);
        assert_eq!(uidls[3], native(3));
    }
}
