//! A record of what was told was put back from a backup, and is older than what clients hold.

use std::fs;

use super::DBOXES;
use super::EVERY_STORE;
use super::client::Client;
use super::copies::{Backup, LEDGER, MARK, is_warm};
use super::scenario::{Listing, Scenario, USER, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::faults::Whole;
use crate::support::helper;
use crate::support::host::{Line, asked};
use crate::support::mail::Message;
use crate::support::maildir::Naming;

/// Four messages of the old server, copied by name, and a client that has polled here once.
fn begin(line: Line, store: Store) -> Option<(Scenario, Client)> {
    let moved = Scenario::begin_with(line, Config::default().store(store).with_plugin())?;
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    let mut client = Client::of_the_old_server(1..=4);
    assert_eq!(client.poll(&moved), [0; 0]);
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    Some((moved, client))
}

/// The UIDL that Dovecot alone gives to a message. The client must hold it already, or this test
/// tests nothing.
fn would_be_hidden(moved: &Scenario, client: &Client) {
    let alone = moved.uidls_without_us(None);
    assert!(client.holds(alone.last().expect("mail")), "{alone:?}, {client:?}");
}

/// Number 5 was told; then its mail and all else, except the mark, was put back to before.
fn all_but_the_mark(line: Line, store: Store) {
    let Some((moved, mut client)) = begin(line, store) else { return };
    let backup = Backup::of(&moved);
    moved.receive(&Message::plain(5));
    assert_eq!(client.poll(&moved), [5]);
    backup.put_back_but(&[MARK]);
    moved.receive(&Message::plain(6));
    would_be_hidden(&moved, &client);
    assert_eq!(client.poll(&moved), [6]);
    is_warm(&moved);
    moved.receive(&Message::plain(7));
    assert_eq!(client.poll(&moved), [7]);
    assert_eq!(moved.uidls()[..4], uidl_of(1..=4));
}

#[test]
fn an_older_ledger_beside_a_newer_mark_hides_no_new_mail_on_maildir() {
    for line in Line::asked() {
        all_but_the_mark(line, Store::Maildir);
    }
}

#[test]
fn an_older_ledger_beside_a_newer_mark_hides_no_new_mail_on_dbox() {
    for (line, store) in asked(DBOXES) {
        all_but_the_mark(line, store);
    }
}

/// If the mark knows more than the ledger, the messages that it knows stand before those that come
/// late.
#[test]
fn what_only_the_mark_knows_of_keeps_its_place() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some(moved) = Scenario::begin(store) else { return };
        let old = moved.old_maildir(1..=5);
        moved.capture(&Listing::of_files(&old.files()));
        let late = moved.dovecot.dir().join("late");
        fs::rename(&old.files()[4], &late).expect("root");
        moved.copy_files(&old);
        let mut client = Client::of_the_old_server(1..=4);
        assert_eq!(client.poll(&moved), [0; 0]);
        let ledger = Whole::of(moved.ledger());
        moved.receive(&Message::plain(6));
        assert_eq!(client.poll(&moved), [6]);
        let told = moved.uidls();
        ledger.put_back();
        for file in old.files() {
            fs::remove_file(file).expect("root");
        }
        old.deliver(&Message::plain(5), Naming::Qmail, 5);
        moved.copy_files(&old);
        assert_eq!(client.poll(&moved), [5], "{store:?}");
        assert_eq!(moved.uidls(), [told, uidl_of([5])].concat(), "{store:?}");
        is_warm(&moved);
    }
}

/// The same where the ledger and `dovecot-uidlist` were put back, and Dovecot's indexes left or
/// lost. The log of a damaged ledger says to restore it.
#[test]
fn an_older_ledger_and_uidlist_beside_a_newer_mark_hide_no_new_mail() {
    for indexes_are_lost in [false, true] {
        let Some((moved, mut client)) = begin(Line::subject(), Store::Maildir) else { return };
        let ledger = Whole::of(moved.ledger());
        let uidlist = Whole::of(moved.maildir().path().join("dovecot-uidlist"));
        moved.receive(&Message::plain(5));
        assert_eq!(client.poll(&moved), [5]);
        moved.delete(5);
        ledger.put_back();
        uidlist.put_back();
        if indexes_are_lost {
            moved.dovecot.remove_index_files(USER);
        }
        moved.receive(&Message::plain(6));
        assert_eq!(client.poll(&moved), [6], "{indexes_are_lost}");
        is_warm(&moved);
    }
}

/// Nobody is refused for it, and nobody downloads again: a UIDL that only the mark knows is told
/// again as it was, for it is a function of the message.
fn the_ledger_alone(line: Line, store: Store) {
    let Some((moved, mut client)) = begin(line, store) else { return };
    let ledger = Whole::of(moved.ledger());
    moved.receive(&Message::plain(5));
    moved.receive(&Message::plain(6));
    assert_eq!(client.poll(&moved), [5, 6]);
    let told = moved.uidls();
    ledger.put_back();
    assert_eq!(moved.uidls(), told);
    is_warm(&moved);
    // A lost ledger gives the same.
    ledger.remove();
    assert_eq!(moved.uidls()[4..], told[4..]);
    assert_eq!(client.poll(&moved), [0; 0]);
    moved.delete(5);
    moved.receive(&Message::plain(7));
    assert_eq!(client.poll(&moved), [7]);
}

#[test]
fn an_older_ledger_or_none_tells_again_what_the_mark_knows_of() {
    for (line, store) in asked(EVERY_STORE) {
        the_ledger_alone(line, store);
    }
}

/// UIDVALIDITY is V1, V2, and V1 again: each UIDL that was told under V1 is known for ever.
fn back_to_the_first_uidvalidity(line: Line, store: Store) {
    let Some((moved, mut client)) = begin(line, store) else { return };
    let backup = Backup::of(&moved);
    moved.receive(&Message::plain(5));
    assert_eq!(client.poll(&moved), [5]);
    let of_the_first = uidvalidity(&moved);
    if store == Store::Maildir {
        fs::remove_file(moved.maildir().path().join("dovecot-uidlist")).expect("root");
        moved.dovecot.remove_index_files(USER);
        // It is made of the time, in seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    } else {
        let update = ["mailbox", "update", "--uid-validity", "99", "-u", USER, "INBOX"];
        moved.dovecot.doveadm_ok(update);
    }
    assert_eq!(client.poll(&moved), [0; 0]);
    assert_ne!(uidvalidity(&moved), of_the_first);
    moved.delete(5);
    // This lets the next listing be recorded, and leaves nothing of 5 but its number.
    moved.receive(&Message::plain(6));
    assert_eq!(client.poll(&moved), [6]);

    backup.put_back_but(&[LEDGER, MARK]);
    assert_eq!(uidvalidity(&moved), of_the_first);
    moved.receive(&Message::plain(7));
    would_be_hidden(&moved, &client);
    assert_eq!(client.poll(&moved), [7]);
    is_warm(&moved);
    assert_eq!(moved.uidls()[..4], uidl_of(1..=4));
}

fn uidvalidity(moved: &Scenario) -> String {
    let status = ["mailbox", "status", "-u", USER, "uidvalidity", "INBOX"];
    moved.dovecot.doveadm_ok(status)
}

#[test]
fn a_uidvalidity_that_comes_back_brings_no_number_back() {
    for (line, store) in asked(EVERY_STORE) {
        back_to_the_first_uidvalidity(line, store);
    }
}

/// Every copy is old: only the person who put them back can know. `uidl-keep restored` says so.
fn all_is_old(line: Line, store: Store) {
    let Some((moved, mut client)) = begin(line, store) else { return };
    let backup = Backup::of(&moved);
    moved.receive(&Message::plain(5));
    assert_eq!(client.poll(&moved), [5]);
    backup.put_back_but(&[]);
    let site = moved.dovecot.site();
    helper::run(helper::uidl_keep().args(["restored", "--site"]).arg(&site).arg(USER));
    helper::give_to_reader(&site);
    moved.receive(&Message::plain(6));
    would_be_hidden(&moved, &client);
    assert_eq!(client.poll(&moved), [6]);
    assert!(moved.next_uid() > 65_536, "{}", moved.next_uid());
    is_warm(&moved);
    // The word is heeded once.
    let next = moved.next_uid();
    moved.receive(&Message::plain(7));
    assert_eq!(client.poll(&moved), [7]);
    assert_eq!(moved.next_uid(), next + 1);
}

/// The next login raises the UID also if it finds nothing new: the plugin may be taken out after
/// it.
#[test]
fn what_was_put_back_is_heeded_by_the_next_login() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some((moved, _)) = begin(Line::subject(), store) else { return };
        let site = moved.dovecot.site();
        helper::run(helper::uidl_keep().args(["restored", "--site"]).arg(&site).arg(USER));
        helper::give_to_reader(&site);
        assert_eq!(moved.uidls(), uidl_of(1..=4));
        assert!(moved.next_uid() > 65_536, "{store:?}: {}", moved.next_uid());
        is_warm(&moved);
    }
}

#[test]
fn what_was_put_back_whole_hides_no_new_mail_once_the_operator_has_said_so() {
    for (line, store) in asked(EVERY_STORE) {
        all_is_old(line, store);
    }
}

/// Mail and index were put back from a backup, but not our files: they lie in a place of their own,
/// or the backup was made without them.
fn the_mail_alone(line: Line, store: Store) {
    let Some((moved, mut client)) = begin(line, store) else { return };
    let backup = Backup::of(&moved);
    moved.receive(&Message::plain(5));
    assert_eq!(client.poll(&moved), [5]);
    backup.put_back_but(&[LEDGER, MARK]);
    moved.receive(&Message::plain(6));
    would_be_hidden(&moved, &client);
    assert_eq!(client.poll(&moved), [6]);
    is_warm(&moved);
    assert_eq!(moved.uidls()[..4], uidl_of(1..=4));
}

#[test]
fn older_mail_beside_a_newer_ledger_hides_no_new_mail_on_maildir() {
    for line in Line::asked() {
        the_mail_alone(line, Store::Maildir);
    }
}

#[test]
fn older_mail_beside_a_newer_ledger_hides_no_new_mail_on_dbox() {
    for (line, store) in asked(DBOXES) {
        the_mail_alone(line, store);
    }
}
