//! The guard: an empty or half-copied maildrop is listed to nobody, and whoever has all of his is
//! served.

use std::fs;

use super::client::Client;
use super::copies::is_warm;
use super::story::{Listing, Story, USER, by_file, uidl, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::helper;
use crate::support::host::Line;
use crate::support::mail::Message;

const LATER: &str = "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";

/// Dovecot takes a dbox without its index for an empty one. Nobody is told so, and nothing is
/// recorded of it; mended, all is as it was.
fn the_index_is_lost(line: Line, store: Store) {
    let config = Config::default().store(store).with_plugin();
    let Some(story) = Story::begin_with(line, config) else { return };
    let old = story.old_maildir(1..=4);
    story.copy_files(&old);
    story.capture(&Listing::of_files(&old.files()));
    let mut client = Client::of_the_old_server(1..=4);
    assert_eq!(client.poll(&story), [0; 0]);
    story.receive(&Message::plain(5));
    assert_eq!(client.poll(&story), [5]);
    let told = story.uidls();

    let inbox = story.ledger().parent().unwrap().to_owned();
    for entry in fs::read_dir(&inbox).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("dovecot.index") {
            fs::remove_file(path).unwrap();
        }
    }
    let recorded = fs::read(story.ledger()).unwrap();
    for _ in 0..2 {
        assert_eq!(story.refusal(), LATER, "{line:?} {store:?}");
    }
    assert_eq!(fs::read(story.ledger()).unwrap(), recorded);
    let log = story.log().pop().unwrap();
    assert!(log.contains("5 messages that the last POP3 session left"), "{log}");

    story.dovecot.doveadm_ok(["force-resync", "-u", USER, "INBOX"]);
    assert_eq!(client.poll(&story), [0; 0], "{line:?} {store:?}");
    assert_eq!(story.uidls(), told);
    is_warm(&story);
}

#[test]
fn a_dbox_without_its_index_is_not_listed_as_an_empty_one() {
    for store in [Store::Mdbox, Store::Sdbox] {
        the_index_is_lost(Line::V23, store);
        the_index_is_lost(Line::V24, store);
    }
}

/// What counts is what the last capture had: eight of twelve were deleted on the old server since.
#[test]
fn all_that_the_last_capture_had_is_enough() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some(story) = Story::begin(store) else { return };
        let old = story.old_maildir(1..=12);
        let files = old.files();
        story.install(&Listing::of_files(&files).field("taken 1714990100"), &[]);
        for file in &files[..8] {
            fs::remove_file(file).unwrap();
        }
        let last = (9..).zip(&files[8..]).fold(Listing::new(), |listing, (number, file)| {
            listing.message(&uidl(number), &by_file(file))
        });
        story.install(&last.field("taken 1714990200"), &["--final"]);
        story.copy_files(&old);
        assert_eq!(story.uidls(), uidl_of(9..=12), "{store:?}");
    }
}

/// And fewer than half of that are refused, until the operator says that what is missing may be
/// missing: once, for what is missing now.
#[test]
fn fewer_than_half_of_the_last_capture_are_refused_until_they_may_be_missing() {
    let Some(story) = Story::begin(Store::Maildir) else { return };
    let old = story.old_maildir(1..=12);
    let files = old.files();
    story.capture(&Listing::of_files(&files));
    for file in &files[5..] {
        fs::remove_file(file).unwrap();
    }
    story.copy_files(&old);
    assert_eq!(story.refusal(), LATER);
    let log = story.log().pop().unwrap();
    assert!(log.contains("12 messages were captured last, 5 are here"), "{log}");
    let site = story.dovecot.site();
    helper::run(
        helper::uidl_keep().args(["release", "--unguarded", "--site"]).arg(&site).arg(USER),
    );
    helper::give_to_reader(&site);
    assert_eq!(story.uidls(), uidl_of(1..=5));
    is_warm(&story);

    // It is used up: the same mailbox, made anew and without its mail, is refused.
    for file in story.maildir().files() {
        fs::remove_file(file).unwrap();
    }
    fs::remove_file(story.maildir().path().join("dovecot-uidlist")).unwrap();
    story.dovecot.remove_index_files(USER);
    assert_eq!(story.refusal(), LATER);
    story.copy_files(&old);
    assert_eq!(story.uidls(), uidl_of(1..=5));
}
