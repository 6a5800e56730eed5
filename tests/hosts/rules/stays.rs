//! A listed message stays, whatever becomes of the files beside it.

use std::fs;
use std::os::unix::fs::chown;

use super::scenario::LATER;
use super::scenario::{Listing, Scenario, USER, base, by_file, by_message, uidl, uidl_of, uidlist};
use crate::support::OWNER;
use crate::support::dovecot::Store;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// Rules 1 and 2: an entry goes to one message, and a listed message stays. A copy within INBOX has
/// the GUID of its original, which names both; the original goes, and the storage is rebuilt.
#[test]
fn a_copy_keeps_its_uidl_when_its_original_is_deleted_and_the_storage_rebuilt() {
    let Some(moved) = Scenario::begin(Store::Mdbox) else { return };
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    let mut session = moved.imap();
    session.command("SELECT INBOX");
    session.command("COPY 1:2 INBOX");
    session.logout();
    let guids = guids(&moved);
    assert_eq!(guids[4..], guids[..2], "nothing but the UID tells a copy from its original");

    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert!(uidls[4].starts_with("00000005") && uidls[5].starts_with("00000006"), "{uidls:?}");
    moved.delete(1);
    assert_eq!(moved.uidls(), uidls[1..]);
    moved.dovecot.doveadm_ok(["force-resync", "-u", USER, "INBOX"]);
    assert_eq!(moved.uidls(), uidls[1..]);

    // Without its indexes Dovecot begins UIDs anew, and finds one of a copy and its original.
    // Whatever it is called then, no client sees a UIDL that is new to it.
    moved.dovecot.remove_index_files(USER);
    let rebuilt = moved.uidls();
    assert_eq!(rebuilt.len(), 4);
    assert!(rebuilt.iter().all(|uidl| uidls.contains(uidl)), "{rebuilt:?} of {uidls:?}");
    assert!(uidl_of(3..=4).iter().all(|uidl| rebuilt.contains(uidl)), "{rebuilt:?}");
}

/// The GUIDs that the storage gives to IMAP, which has no plugin: dsync is told of a copy that it
/// is another message.
fn guids(moved: &Scenario) -> Vec<String> {
    let mut session = moved.imap();
    session.command("SELECT INBOX");
    let said = session.command("FETCH 1:* (X-GUID)");
    session.logout();
    let guid =
        |line: &String| Some(line.split_once("(X-GUID ")?.1.trim_end_matches(')').to_owned());
    said.iter().filter_map(guid).collect()
}

/// Rule 7: a capture that no longer has a message takes its entry from nobody. The user has deleted
/// two messages on the old server since; on the new one they are there, one of them listed.
#[test]
fn a_delta_that_lists_a_message_no_more_takes_it_from_nobody() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    deliver(&maildir, 1..=4);
    let files = maildir.files();
    moved.install(&Listing::of_files(&files), &[]);
    let away = moved.dovecot.dir().join("away");
    fs::rename(&files[0], &away).unwrap();
    assert_eq!(moved.uidls(), uidl_of(2..=4));

    let fifth = maildir.deliver(&Message::plain(5), Naming::Qmail, 5);
    let delta = [&files[2..], &[fifth]].concat();
    let delta = (3..).zip(&delta).fold(Listing::new(), |listing, (number, file)| {
        listing.message(&uidl(number), &by_file(file))
    });
    moved.install(&delta, &["--final"]);
    assert_eq!(moved.uidls(), uidl_of(2..=5));
    fs::rename(&away, &files[0]).unwrap();
    assert_eq!(moved.uidls(), uidl_of([2, 3, 4, 5, 1]));
}

/// Rule 2, when even the index was built anew, from the last listing alone: places in it are
/// others. With fewer UIDLs than clients were told from it, it is taken for an old one, and
/// refused.
#[test]
fn an_index_built_anew_without_a_message_takes_it_from_nobody_who_was_told() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    deliver(&maildir, 1..=4);
    let files = maildir.files();
    moved.capture(&Listing::of_files(&files));
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    let anew = (3..).zip(&files[2..]).fold(Listing::new(), |listing, (number, file)| {
        listing.message(&uidl(number), &by_file(file))
    });
    moved.capture(&anew);
    moved.receive(&Message::plain(5));
    assert_eq!(moved.refusal(), LATER);
    let log = moved.log().concat();
    assert!(log.contains("(it has fewer UIDLs): install the last index again"), "{log}");
    moved.capture(&anew.field("spent UID1-17").field("spent UID2-17"));
    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert!(uidls[4].starts_with("00000005"), "{uidls:?}");
}

/// Rule 2, if Dovecot's own file forgets the bake: the last rsync of a migration brings along the
/// file that Dovecot wrote there at an early login.
#[test]
fn a_uidlist_of_before_the_bake_copied_over_it_changes_nothing() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    deliver(&maildir, 1..=4);
    moved.capture(&Listing::of_files(&maildir.files()));
    moved.imap().command("SELECT INBOX");
    let path = maildir.path().join("dovecot-uidlist");
    let before = fs::read_to_string(&path).unwrap();
    assert!(!before.contains("UID1-17"), "{before}");
    moved.receive(&Message::plain(5));
    let uidls = moved.uidls();
    assert!(fs::read_to_string(&path).unwrap().contains("PUID1-17 O1048576 "));

    maildir.write_state("dovecot-uidlist", &before);
    let forgotten = moved.uidls_without_us(None);
    assert!(uidl_of(1..=4).iter().all(|uidl| !forgotten.contains(uidl)), "{forgotten:?}");

    assert_eq!(moved.uidls(), uidls);
    moved.receive(&Message::plain(6));
    assert_eq!(moved.uidls()[..5], uidls);
}

/// Rule 2, if UIDs begin anew: a message that alone bears its name is the one that was listed under
/// it.
#[test]
fn a_uidlist_from_elsewhere_with_other_uids_changes_nothing() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    deliver(&maildir, 1..=4);
    moved.capture(&Listing::of_files(&maildir.files()));
    deliver(&maildir, [5]);
    let uidls = moved.uidls();
    let mut files = maildir.files();
    files.reverse();
    maildir.write_state("dovecot-uidlist", &uidlist(99, &files));
    let turned = moved.uidls_without_us(None);
    assert!(turned[0].starts_with("00000001") && turned[0].ends_with("00000063"), "{turned:?}");

    assert_eq!(moved.uidls(), uidls, "also the one that came after the move");
    moved.receive(&Message::plain(6));
    let with_new = moved.uidls();
    assert_eq!(with_new[..5], uidls);
    assert_eq!(with_new[5], "0000000600000063");
}

/// Rules 1 and 2, when an rsync brings a message again after its flags changed: the same name is
/// there twice. Dovecot gives one of them another name, and a UID of its own; that one says no more
/// than its content, which was captured once.
#[test]
fn a_second_copy_of_a_file_with_other_flags_leaves_uidls_and_order_alone() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    deliver(&maildir, 1..=4);
    let files = maildir.files();
    let listing = (1..).zip(&files).fold(Listing::new(), |listing, (number, file)| {
        let keys = format!("{} {}", by_file(file), by_message(&Message::plain(number)));
        listing.message(&uidl(number), &keys)
    });
    moved.capture(&listing);
    let uidls = moved.uidls();
    assert_eq!(uidls, uidl_of(1..=4));

    let name = format!("cur/{}:2,F", base(&files[1]));
    let second = maildir.path().join(name);
    assert_ne!(second, files[1]);
    fs::copy(&files[1], &second).unwrap();
    chown(&second, Some(OWNER), Some(OWNER)).unwrap();
    // The login that meets both may be the one that renames, or the one after it.
    let listings = [moved.uidls(), moved.uidls(), moved.uidls()];
    for listing in &listings {
        assert_eq!(listing[..4], uidls);
    }
    let names: Vec<_> = maildir.files().iter().map(|file| base(file).to_owned()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    let last = listings.last().unwrap();
    assert_eq!(last.len(), 5);
    assert!(!uidls.contains(&last[4]), "{last:?}");
}

fn deliver(maildir: &Maildir, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
}

/// Rule 2 on sdbox, where both files outlive the indexes but UIDVALIDITY does not. A copy and its
/// original have one content, so either may have either UIDL; a client must see no third.
#[test]
fn a_copy_and_its_original_keep_their_uidls_when_the_storage_is_rebuilt() {
    let Some(moved) = Scenario::begin(Store::Sdbox) else { return };
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    let mut session = moved.imap();
    session.command("SELECT INBOX");
    session.command("COPY 2 INBOX");
    session.logout();
    let mut uidls = moved.uidls();
    moved.dovecot.remove_index_files(USER);
    let mut rebuilt = moved.uidls();
    uidls.sort();
    rebuilt.sort();
    assert_eq!(rebuilt, uidls);
}
