//! The guard: an empty or half-copied maildrop is listed to nobody, and a user who has all of his
//! is served.

use std::fs;

use super::client::Client;
use super::copies::is_warm;
use super::scenario::{Listing, Scenario, USER, by_file, uidl, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::helper;
use crate::support::host::Line;
use crate::support::mail::Message;

const LATER: &str = "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";

/// Dovecot takes a dbox without its index for an empty one. Nobody is told so, and nothing is
/// recorded of it; mended, all is as it was.
fn the_index_is_lost(line: Line, store: Store) {
    let config = Config::default().store(store).with_plugin();
    let Some(moved) = Scenario::begin_with(line, config) else { return };
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    let mut client = Client::of_the_old_server(1..=4);
    assert_eq!(client.poll(&moved), [0; 0]);
    moved.receive(&Message::plain(5));
    assert_eq!(client.poll(&moved), [5]);
    let told = moved.uidls();

    let inbox = moved.ledger().parent().unwrap().to_owned();
    for entry in fs::read_dir(&inbox).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("dovecot.index") {
            fs::remove_file(path).unwrap();
        }
    }
    let recorded = fs::read(moved.ledger()).unwrap();
    for _ in 0..2 {
        assert_eq!(moved.refusal(), LATER, "{line:?} {store:?}");
    }
    assert_eq!(fs::read(moved.ledger()).unwrap(), recorded);
    let log = moved.log().pop().unwrap();
    assert!(log.contains("5 messages that the last POP3 session left"), "{log}");

    moved.dovecot.doveadm_ok(["force-resync", "-u", USER, "INBOX"]);
    assert_eq!(client.poll(&moved), [0; 0], "{line:?} {store:?}");
    assert_eq!(moved.uidls(), told);
    is_warm(&moved);
}

#[test]
fn a_dbox_without_its_index_is_not_listed_as_an_empty_one() {
    for line in Line::asked() {
        for store in [Store::Mdbox, Store::Sdbox] {
            the_index_is_lost(line, store);
        }
    }
}

/// The last capture counts: eight of twelve were deleted on the old server since.
#[test]
fn all_that_the_last_capture_had_is_enough() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some(moved) = Scenario::begin(store) else { return };
        let old = moved.old_maildir(1..=12);
        let files = old.files();
        moved.install(&Listing::of_files(&files).field("taken 1714990100"), &[]);
        for file in &files[..8] {
            fs::remove_file(file).unwrap();
        }
        let last = (9..).zip(&files[8..]).fold(Listing::new(), |listing, (number, file)| {
            listing.message(&uidl(number), &by_file(file))
        });
        moved.install(&last.field("taken 1714990200"), &["--final"]);
        moved.copy_files(&old);
        assert_eq!(moved.uidls(), uidl_of(9..=12), "{store:?}");
    }
}

/// Fewer than half of that are refused, until the operator says that the missing mail may be
/// missing: once, for the mail that is missing now.
#[test]
fn fewer_than_half_of_the_last_capture_are_refused_until_they_may_be_missing() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let old = moved.old_maildir(1..=12);
    let files = old.files();
    moved.capture(&Listing::of_files(&files));
    for file in &files[5..] {
        fs::remove_file(file).unwrap();
    }
    moved.copy_files(&old);
    assert_eq!(moved.refusal(), LATER);
    let log = moved.log().pop().unwrap();
    assert!(log.contains("12 messages were captured last, 5 are here"), "{log}");
    let site = moved.dovecot.site();
    helper::run(
        helper::uidl_keep().args(["release", "--unguarded", "--site"]).arg(&site).arg(USER),
    );
    helper::give_to_reader(&site);
    assert_eq!(moved.uidls(), uidl_of(1..=5));
    is_warm(&moved);

    // The word is used up: the same mailbox, made anew and without its mail, is refused.
    for file in moved.maildir().files() {
        fs::remove_file(file).unwrap();
    }
    fs::remove_file(moved.maildir().path().join("dovecot-uidlist")).unwrap();
    moved.dovecot.remove_index_files(USER);
    assert_eq!(moved.refusal(), LATER);
    moved.copy_files(&old);
    assert_eq!(moved.uidls(), uidl_of(1..=5));
}
