//! Rule 12: a second login name of one mailbox, as a domain alias makes it.

use std::os::unix::fs::symlink;

use super::client::{Client, listing};
use super::copies::is_warm;
use super::story::{Listing, Story, USER, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::host::Line;
use crate::support::mail::Message;

/// Another name that logs in to the mailbox of [`USER`], and is on no roster.
const ALIAS: &str = "alice@alias.example";

fn begin(line: Line, store: Store) -> Option<Story> {
    let story = Story::begin_with(line, Config::default().store(store).with_plugin())?;
    let old = story.old_maildir(1..=4);
    story.copy_files(&old);
    story.capture(&Listing::of_files(&old.files()));
    let home = story.dovecot.home(USER);
    symlink(USER, home.with_file_name(ALIAS)).expect("root");
    Some(story)
}

const EVERY_STORE: [(Line, Store); 5] = [
    (Line::V23, Store::Maildir),
    (Line::V23, Store::Mdbox),
    (Line::V23, Store::Sdbox),
    (Line::V24, Store::Maildir),
    (Line::V24, Store::Mdbox),
];

#[test]
fn a_second_login_name_is_told_what_the_first_was_told() {
    for (line, store) in EVERY_STORE {
        let Some(story) = begin(line, store) else { continue };
        let mut client = Client::of_the_old_server(1..=4);
        assert_eq!(client.poll(&story), [0; 0]);
        assert_eq!(client.poll_as(&story, ALIAS), [0; 0], "{line:?} {store:?}");
        assert_eq!(listing(&story, ALIAS), listing(&story, USER));

        // What the ledger has not is for its owner to list: refused, by name, and nothing is
        // frozen.
        story.receive(&Message::plain(5));
        let mut session = story.dovecot.login(ALIAS).expect("greeted");
        session.uidl().expect_err("a message that is new");
        drop(session);
        let log = story.log().pop().unwrap();
        assert!(
            log.contains(&format!("{ALIAS} is on no roster, and his INBOX is that of {USER}")),
            "{log}"
        );
        assert!(log.contains(&format!("let {USER} log in by POP3")), "{log}");
        assert_eq!(client.poll(&story), [5]);
        assert_eq!(client.poll_as(&story, ALIAS), [0; 0], "{line:?} {store:?}");
        is_warm(&story);
    }
}

/// Before its owner's listing nobody can know whose mailbox it is. Whatever the other name is
/// told then, its owner is told his own, and from then on the other is, too.
#[test]
fn a_second_login_name_that_comes_first_takes_nothing_from_the_owner() {
    for (line, store) in EVERY_STORE {
        let Some(story) = begin(line, store) else { continue };
        let mut alias = Client::default();
        assert_eq!(alias.poll_as(&story, ALIAS), [1, 2, 3, 4]);
        let mut client = Client::of_the_old_server(1..=4);
        assert_eq!(client.poll(&story), [0; 0], "{line:?} {store:?}");
        assert_eq!(story.uidls(), uidl_of(1..=4));
        // It downloads again, once, and is hidden nothing.
        assert_eq!(alias.poll_as(&story, ALIAS), [1, 2, 3, 4]);
        story.receive(&Message::plain(5));
        assert_eq!(client.poll(&story), [5]);
        assert_eq!(alias.poll_as(&story, ALIAS), [5], "{line:?} {store:?}");
    }
}
