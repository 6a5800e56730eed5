//! Away and back: Trash, and copies.

use super::scenario::{Listing, Scenario, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::host::Line;
use crate::support::mail::Message;

/// Four messages, copied by file or by dsync, and listed once.
fn begin(line: Line, store: Store) -> Option<Scenario> {
    let moved = Scenario::begin_with(line, Config::default().store(store).with_plugin())?;
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    Some(moved)
}

/// Runs IMAP commands in one session.
fn imap<'a>(moved: &Scenario, commands: impl IntoIterator<Item = &'a str>) {
    let mut session = moved.imap();
    for command in commands {
        session.command(command);
    }
    session.logout();
}

const MOVED_AWAY: &[&str] = &["CREATE Trash", "SELECT INBOX", "MOVE 2 Trash"];
const MOVED_BACK: &[&str] = &["SELECT Trash", "MOVE 1 INBOX"];
/// Clients that know nothing of MOVE do it so.
const COPIED_AWAY: &[&str] =
    &["CREATE Trash", "SELECT INBOX", "COPY 2 Trash", "STORE 2 +FLAGS (\\Deleted)", "EXPUNGE"];
const COPIED_BACK: &[&str] =
    &["SELECT Trash", "COPY 1 INBOX", "STORE 1 +FLAGS (\\Deleted)", "EXPUNGE"];

/// Rule 2: a message that comes back under its name takes its UIDL again, and its place, also if a
/// listing was recorded without it.
fn comes_back_with_its_uidl(line: Line, store: Store) {
    for (away, back) in [(MOVED_AWAY, MOVED_BACK), (COPIED_AWAY, COPIED_BACK)] {
        for is_listed_between in [true, false] {
            let Some(moved) = begin(line, store) else { return };
            imap(&moved, away.iter().copied());
            if is_listed_between {
                assert_eq!(moved.uidls(), uidl_of([1, 3, 4]));
            }
            imap(&moved, back.iter().copied());
            if store == Store::Maildir {
                // The baked UIDL went with the old UID: Dovecot alone shows the message a second
                // time.
                let alone = moved.uidls_without_us(None);
                assert_eq!(alone[..3], uidl_of([1, 3, 4]));
                assert!(alone[3].starts_with("00000005"), "{alone:?}");
            }
            assert_eq!(moved.uidls(), uidl_of(1..=4), "{away:?} {is_listed_between}");
            assert_eq!(moved.uidls(), uidl_of(1..=4));
        }
    }
    let Some(moved) = begin(line, store) else { return };
    imap(&moved, MOVED_AWAY.iter().copied());
    moved.receive(&Message::plain(5));
    let without = moved.uidls();
    assert_eq!(without[..3], uidl_of([1, 3, 4]));
    imap(&moved, MOVED_BACK.iter().copied());
    assert_eq!(moved.uidls(), [&uidl_of(1..=4)[..], &without[3..]].concat(), "in its old place");
}

#[test]
fn what_comes_back_from_trash_has_its_uidl_on_maildir() {
    comes_back_with_its_uidl(Line::subject(), Store::Maildir);
}

#[test]
fn what_comes_back_from_trash_has_its_uidl_on_mdbox() {
    comes_back_with_its_uidl(Line::subject(), Store::Mdbox);
}

#[test]
fn what_comes_back_from_trash_has_its_uidl_on_dovecot_2_4() {
    comes_back_with_its_uidl(Line::V24, Store::Maildir);
    comes_back_with_its_uidl(Line::V24, Store::Mdbox);
}

/// Rule 1: an entry goes to at most one message. A copy is a message of its own to every client, or
/// it would be deleted with its original.
fn a_copy_has_its_own(line: Line, store: Store) {
    let Some(moved) = begin(line, store) else { return };
    imap(&moved, ["CREATE Trash", "SELECT INBOX", "COPY 2 INBOX", "COPY 2 Trash"]);
    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert!(uidls[4].starts_with("00000005"), "{uidls:?}");
    imap(&moved, MOVED_BACK.iter().copied());
    let with_third = moved.uidls();
    assert_eq!(with_third[..5], uidls);
    assert!(with_third[5].starts_with("00000006"), "{with_third:?}");

    // The original goes: the copy listed beside it keeps its UIDL.
    moved.delete(2);
    let left = [&with_third[..1], &with_third[2..]].concat();
    assert_eq!(moved.uidls(), left);
}

#[test]
fn a_copy_beside_its_original_has_a_uidl_of_its_own_on_maildir() {
    a_copy_has_its_own(Line::subject(), Store::Maildir);
}

#[test]
fn a_copy_beside_its_original_has_a_uidl_of_its_own_on_mdbox() {
    a_copy_has_its_own(Line::subject(), Store::Mdbox);
}

#[test]
fn a_copy_beside_its_original_has_a_uidl_of_its_own_on_dovecot_2_4() {
    a_copy_has_its_own(Line::V24, Store::Maildir);
    a_copy_has_its_own(Line::V24, Store::Mdbox);
}

/// Rule 2 again: if two come back under one name, one is a copy of the other, and equal to it. The
/// one with the lowest UID takes the UIDL.
#[test]
fn of_two_that_come_back_the_first_takes_the_uidl() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some(moved) = begin(Line::subject(), store) else { return };
        imap(&moved, ["CREATE Trash", "SELECT INBOX", "COPY 2 Trash"]);
        imap(&moved, MOVED_AWAY[1..].iter().copied());
        assert_eq!(moved.uidls(), uidl_of([1, 3, 4]));
        imap(&moved, ["SELECT Trash", "MOVE 1:2 INBOX"]);
        let uidls = moved.uidls();
        assert_eq!(uidls[..4], uidl_of(1..=4));
        assert_eq!(uidls.len(), 5);
        assert!(uidls[4].starts_with("00000006"), "{uidls:?}");
        assert_eq!(moved.uidls(), uidls);
    }
}
