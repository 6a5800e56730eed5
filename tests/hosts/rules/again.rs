//! UIDs that Dovecot gives a second time: an rsync brought the `dovecot-uidlist` of before, which
//! has not counted as far, and took away or left Dovecot's indexes, which had.

use super::scenario::{Listing, Scenario, USER, by_file, uidl, uidl_of, uidlist};
use crate::support::dovecot::Store;
use crate::support::mail::Message;
use crate::support::maildir::Naming;

/// Four messages are copied and captured, a fifth is captured and not copied yet; with the uidlist
/// of now.
fn begin() -> Option<(Scenario, String)> {
    let moved = Scenario::begin(Store::Maildir)?;
    let maildir = moved.maildir();
    for number in 1..=4 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let listing = Listing::of_files(&maildir.files());
    let late = moved.old_maildir([5]).files().remove(0);
    moved.capture(&listing.message(&uidl(5), &by_file(&late)));
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    let uidlist = std::fs::read_to_string(maildir.path().join("dovecot-uidlist")).unwrap();
    assert!(uidlist.contains(" N5 "), "{uidlist}");
    Some((moved, uidlist))
}

impl Scenario {
    /// Copies the fifth old message late.
    fn copy_late(&self) {
        self.maildir().deliver(&Message::plain(5), Naming::Qmail, 5);
    }

    fn restore(&self, uidlist: &str) {
        self.maildir().write_state("dovecot-uidlist", uidlist);
    }
}

/// Rule 6: a login never gives a UIDL that a client may hold. The late copy had UID 5, and was
/// deleted.
#[test]
fn a_new_message_with_the_uid_of_a_deleted_one_does_not_get_its_kept_uidl() {
    let Some((moved, uidlist)) = begin() else { return };
    moved.copy_late();
    assert_eq!(moved.uidls(), uidl_of(1..=5));
    moved.delete(5);
    moved.restore(&uidlist);
    moved.dovecot.remove_index_files(USER);
    moved.receive(&Message::plain(6));
    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert_ne!(uidls[4], uidl(5));
}

/// Rule 6 for a message that came after the move: its UIDL is in the new server's form.
#[test]
fn a_new_message_with_the_uid_of_a_deleted_one_does_not_get_its_new_uidl() {
    let Some((moved, uidlist)) = begin() else { return };
    moved.receive(&Message::plain(6));
    let told = moved.uidls().remove(4);
    moved.delete(5);
    moved.restore(&uidlist);
    moved.dovecot.remove_index_files(USER);
    moved.receive(&Message::plain(7));
    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert_ne!(uidls[4], told);
}

/// Rules 2 and 6: the UIDs of two messages are exchanged, one that was listed and one that is new.
#[test]
fn a_message_that_was_listed_keeps_its_uidl_when_a_new_one_gets_its_uid() {
    let Some((moved, uidlist)) = begin() else { return };
    let maildir = moved.maildir();
    maildir.deliver(&Message::plain(7), Naming::Qmail, 7);
    let told = moved.uidls();
    moved.restore(&uidlist);
    moved.dovecot.remove_index_files(USER);
    // It is older by its name; so it gets the lower UID.
    maildir.deliver(&Message::plain(6), Naming::Qmail, 6);
    let uidls = moved.uidls();
    assert_eq!(uidls[..5], told);
    assert!(!told.contains(&uidls[5]), "{uidls:?}");
    let mut session = moved.dovecot.login(USER).unwrap();
    let listed = String::from_utf8(session.retr(5).unwrap()).unwrap();
    assert!(listed.contains("<message.7@"), "{listed}");
}

/// Rule 4: a listed message keeps its place. Dovecot's indexes are left, and know that UID 5 was
/// given: the listed one has a higher UID now than the old message that is copied late.
#[test]
fn a_message_that_was_listed_keeps_its_place_when_it_gets_another_uid() {
    let Some((moved, uidlist)) = begin() else { return };
    let maildir = moved.maildir();
    maildir.deliver(&Message::plain(6), Naming::Qmail, 6);
    let told = moved.uidls();
    moved.restore(&uidlist);
    moved.copy_late();
    assert_eq!(moved.uidls(), [told, vec![uidl(5)]].concat());
}

/// Rules 2 and 6, in the last rsync of a move from Dovecot to Dovecot. Each server has given UID 5:
/// this one to a message that came in here and was listed, the other to a message that came in
/// there. The rsync brings that message and that uidlist; Dovecot, whose own indexes name no file,
/// takes its word.
fn an_rsync_brings_another_message_with_that_uid(brings_index: bool) {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    for number in 1..=4 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let files = maildir.files();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &files));
    moved.install(&Listing::of_files(&files), &[]);
    moved.receive(&Message::plain(6));
    let told = moved.uidls();
    assert_eq!(told[4], "0000000500000011");

    let fifth = maildir.deliver(&Message::plain(5), Naming::Qmail, 5);
    let files = [&files[..], &[fifth]].concat();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &files));
    if brings_index {
        moved.dovecot.remove_index_files(USER);
    }
    moved.install(&Listing::of_files(&files), &["--final"]);
    assert_eq!(moved.uidls(), [told, vec![uidl(5)]].concat());
    let mut session = moved.dovecot.login(USER).unwrap();
    for (place, message) in [(5, "<message.6@"), (6, "<message.5@")] {
        let listed = String::from_utf8(session.retr(place).unwrap()).unwrap();
        assert!(listed.contains(message), "{place}: {listed}");
    }
}

#[test]
fn a_message_that_the_last_rsync_brings_has_its_own_uidl() {
    an_rsync_brings_another_message_with_that_uid(false);
}

#[test]
fn a_message_that_the_last_rsync_brings_has_its_own_uidl_when_indexes_are_made_anew() {
    an_rsync_brings_another_message_with_that_uid(true);
}
