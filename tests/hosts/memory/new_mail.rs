//! The commonest login: there is new mail and nothing else, and every captured message was found.

use std::fs;

use super::client::Client;
use super::copies::is_warm;
use super::scenario::{Listing, Scenario, USER, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::faults::Whole;
use crate::support::host::{Line, asked};
use crate::support::mail::Message;
use crate::support::traced::{can_trace, lists_under_strace};

/// Five messages of the old server, copied by name, and a client that has polled here once.
fn begin(line: Line, store: Store) -> Option<(Scenario, Client)> {
    let moved = Scenario::begin_with(line, Config::default().store(store).with_plugin())?;
    let old = moved.old_maildir(1..=5);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    let mut client = Client::of_the_old_server(1..=5);
    assert_eq!(client.poll(&moved), [0; 0]);
    Some((moved, client))
}

/// Returns how many messages of `dovecot-uidlist` have no UIDL beside them.
fn unbaked(moved: &Scenario) -> usize {
    let list = fs::read_to_string(moved.maildir().path().join("dovecot-uidlist")).expect("a list");
    list.lines().skip(1).filter(|line| !line.contains(" P")).count()
}

/// A mail comes each day, and a poll for each: Dovecot alone says the same at any time, and nobody
/// notices a lost ledger.
fn mail_by_mail(line: Line, store: Store) {
    let Some((mut moved, mut client)) = begin(line, store) else { return };
    let mut most = 0;
    for number in 6..=32 {
        moved.receive(&Message::plain(number));
        assert_eq!(client.poll(&moved), [number], "{line:?}, {store:?}");
        if store == Store::Maildir {
            most = most.max(unbaked(&moved));
        }
        if number == 26 || number == 30 {
            let told = moved.uidls();
            is_warm(&moved);
            Whole::of(moved.ledger()).remove();
            assert_eq!(moved.uidls(), told, "{line:?}, {store:?}, after message {number}");
        }
    }
    let told = moved.uidls();
    assert_eq!(told[..5], uidl_of(1..=5));
    if store == Store::Maildir {
        // They are not baked one by one, and never more wait than the mark has.
        assert!((2..=16).contains(&most), "{most} at once");
        moved.take_the_plugin_out();
        assert_eq!(moved.uidls(), told, "{line:?}");
    }
}

#[test]
fn what_new_mail_was_told_stays_whatever_is_lost() {
    let cases =
        [(Line::V23, Store::Maildir), (Line::V23, Store::Mdbox), (Line::V24, Store::Maildir)];
    for (line, store) in asked(cases) {
        mail_by_mail(line, store);
    }
}

#[test]
fn a_login_with_new_mail_alone_neither_reads_the_old_mail_nor_writes_the_list_anew() {
    if !can_trace() {
        return;
    }
    let Some((moved, mut client)) = begin(Line::subject(), Store::Maildir) else { return };
    let trace = moved.dovecot.home(USER).join("trace");
    let mut look = |number: u32| -> Vec<String> {
        moved.receive(&Message::plain(number));
        let traced = ["-e", "trace=open,openat,openat2"];
        assert!(lists_under_strace(&moved.dovecot, &trace, &traced));
        let calls = fs::read_to_string(&trace).unwrap();
        assert_eq!(client.poll(&moved), [number]);
        assert!(calls.contains("uidl-keep.ledger"), "{calls}");
        calls.lines().filter(|call| call.contains("/cur/")).map(str::to_owned).collect()
    };
    assert_eq!(look(6), [""; 0]);
    assert_eq!(look(7), [""; 0]);
    assert_eq!(unbaked(&moved), 2);
}

/// A client downloads and deletes: at each login a new message is there, and the last new one is
/// gone.
#[test]
fn new_mail_is_not_baked_one_by_one_where_each_is_deleted_before_the_next() {
    let Some((moved, mut client)) = begin(Line::subject(), Store::Maildir) else { return };
    for number in 6..10 {
        moved.receive(&Message::plain(number));
        assert_eq!(client.poll(&moved), [number]);
        assert_ne!(unbaked(&moved), 0, "message {number}");
        moved.delete(6);
    }
}
