//! The commonest login: new mail, and nothing else, where every captured message was found.

use std::fs;

use super::client::Client;
use super::copies::is_warm;
use super::story::{Listing, Story, USER, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::faults::Whole;
use crate::support::host::Line;
use crate::support::mail::Message;
use crate::support::traced::{can_trace, lists_under_strace};

/// Five messages of the old server, copied by name, and a client that has polled here once.
fn begin(line: Line, store: Store) -> Option<(Story, Client)> {
    let story = Story::begin_with(line, Config::default().store(store).with_plugin())?;
    let old = story.old_maildir(1..=5);
    story.copy_files(&old);
    story.capture(&Listing::of_files(&old.files()));
    let mut client = Client::of_the_old_server(1..=5);
    assert_eq!(client.poll(&story), [0; 0]);
    Some((story, client))
}

/// How many messages of `dovecot-uidlist` have no UIDL beside them.
fn unbaked(story: &Story) -> usize {
    let list = fs::read_to_string(story.maildir().path().join("dovecot-uidlist")).expect("a list");
    list.lines().skip(1).filter(|line| !line.contains(" P")).count()
}

/// A mail a day, and a poll for each: Dovecot alone says the same at any time, and a lost ledger is
/// noticed by nobody.
fn mail_by_mail(line: Line, store: Store) {
    let Some((mut story, mut client)) = begin(line, store) else { return };
    let mut most = 0;
    for number in 6..=32 {
        story.receive(&Message::plain(number));
        assert_eq!(client.poll(&story), [number], "{line:?}, {store:?}");
        if store == Store::Maildir {
            most = most.max(unbaked(&story));
        }
        if number == 26 || number == 30 {
            let told = story.uidls();
            is_warm(&story);
            Whole::of(story.ledger()).remove();
            assert_eq!(story.uidls(), told, "{line:?}, {store:?}, after message {number}");
        }
    }
    let told = story.uidls();
    assert_eq!(told[..5], uidl_of(1..=5));
    if store == Store::Maildir {
        // Not one by one, and never more than the mark has.
        assert!((2..=16).contains(&most), "{most} at once");
        story.take_the_plugin_out();
        assert_eq!(story.uidls(), told, "{line:?}");
    }
}

#[test]
fn what_new_mail_was_told_stays_whatever_is_lost() {
    mail_by_mail(Line::V23, Store::Maildir);
    mail_by_mail(Line::V23, Store::Mdbox);
    mail_by_mail(Line::V24, Store::Maildir);
}

#[test]
fn a_login_with_new_mail_alone_neither_reads_the_old_mail_nor_writes_the_list_anew() {
    if !can_trace() {
        return;
    }
    let Some((story, mut client)) = begin(Line::V23, Store::Maildir) else { return };
    let trace = story.dovecot.home(USER).join("trace");
    let mut look = |number: u32| -> Vec<String> {
        story.receive(&Message::plain(number));
        let traced = ["-e", "trace=open,openat,openat2"];
        assert!(lists_under_strace(&story.dovecot, &trace, &traced));
        let calls = fs::read_to_string(&trace).unwrap();
        assert_eq!(client.poll(&story), [number]);
        assert!(calls.contains("uidl-keep.ledger"), "{calls}");
        calls.lines().filter(|call| call.contains("/cur/")).map(str::to_owned).collect()
    };
    assert_eq!(look(6), [""; 0]);
    assert_eq!(look(7), [""; 0]);
    assert_eq!(unbaked(&story), 2);
}

/// A client that downloads and deletes: at each login a new message is there, and the last new one
/// is gone.
#[test]
fn new_mail_is_not_baked_one_by_one_where_each_is_deleted_before_the_next() {
    let Some((story, mut client)) = begin(Line::V23, Store::Maildir) else { return };
    for number in 6..10 {
        story.receive(&Message::plain(number));
        assert_eq!(client.poll(&story), [number]);
        assert_ne!(unbaked(&story), 0, "message {number}");
        story.delete(6);
    }
}
