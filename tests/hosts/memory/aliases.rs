//! Rule 12: a second login name of one mailbox, as a domain alias makes it.

use std::os::unix::fs::symlink;

use super::EVERY_STORE;
use super::client::{Client, listing};
use super::copies::is_warm;
use super::scenario::{Listing, Scenario, USER, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::host::{Line, asked};
use crate::support::mail::Message;

/// Another name that logs in to the mailbox of [`USER`], and is on no roster.
const ALIAS: &str = "alice@alias.example";

fn begin(line: Line, store: Store) -> Option<Scenario> {
    let moved = Scenario::begin_with(line, Config::default().store(store).with_plugin())?;
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    let home = moved.dovecot.home(USER);
    symlink(USER, home.with_file_name(ALIAS)).expect("root");
    Some(moved)
}

#[test]
fn a_second_login_name_is_told_what_the_first_was_told() {
    for (line, store) in asked(EVERY_STORE) {
        let Some(moved) = begin(line, store) else { continue };
        let mut client = Client::of_the_old_server(1..=4);
        assert_eq!(client.poll(&moved), [0; 0]);
        assert_eq!(client.poll_as(&moved, ALIAS), [0; 0], "{line:?} {store:?}");
        assert_eq!(listing(&moved, ALIAS), listing(&moved, USER));

        // Only its owner may list what the ledger has not: the other name is refused, by name, and
        // nothing is frozen.
        moved.receive(&Message::plain(5));
        let mut session = moved.dovecot.login(ALIAS).expect("greeted");
        session.uidl().expect_err("a message that is new");
        drop(session);
        let log = moved.log().pop().unwrap();
        assert!(
            log.contains(&format!("{ALIAS} is on no roster, and his INBOX is that of {USER}")),
            "{log}"
        );
        assert!(log.contains(&format!("let {USER} log in by POP3")), "{log}");
        assert_eq!(client.poll(&moved), [5]);
        assert_eq!(client.poll_as(&moved, ALIAS), [0; 0], "{line:?} {store:?}");
        is_warm(&moved);
    }
}

/// Before its owner's listing nobody can know whose mailbox it is. Whatever the other name is told
/// then, its owner is told his own, and from then on the other is, too.
#[test]
fn a_second_login_name_that_comes_first_takes_nothing_from_the_owner() {
    for (line, store) in asked(EVERY_STORE) {
        let Some(moved) = begin(line, store) else { continue };
        let mut alias = Client::default();
        assert_eq!(alias.poll_as(&moved, ALIAS), [1, 2, 3, 4]);
        let mut client = Client::of_the_old_server(1..=4);
        assert_eq!(client.poll(&moved), [0; 0], "{line:?} {store:?}");
        assert_eq!(moved.uidls(), uidl_of(1..=4));
        // It downloads again, once, and is hidden nothing.
        assert_eq!(alias.poll_as(&moved, ALIAS), [1, 2, 3, 4]);
        moved.receive(&Message::plain(5));
        assert_eq!(client.poll(&moved), [5]);
        assert_eq!(alias.poll_as(&moved, ALIAS), [5], "{line:?} {store:?}");
    }
}
