//! An order that storage has for some messages only, and a client that searches the listing by
//! halves: it never fetches a message that stands before one that it has.

use std::fs;

use super::scenario::{Listing, Scenario, USER, base, uidl, uidlist};
use crate::support::clients::{Client, Program};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line, asked};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// fetchmail, which has polled the old server before its last messages came.
fn fetchmail_of(line: Line, numbers: std::ops::RangeInclusive<u32>) -> Option<Client> {
    let client = Client::new(Program::FetchmailByHalves, USER)?;
    let format = if line == Line::V23 { "UID%u-%v" } else { "UID%{uid}-%{uidvalidity}" };
    let server = Dovecot::start(&Host::dovecot(line)?, Config::default().uidl_format(format))?;
    let maildir = Maildir::create(server.mail(USER));
    let count = numbers.clone().count();
    deliver(&maildir, numbers);
    maildir.write_state("dovecot-uidlist", &uidlist(17, &maildir.files()));
    assert_eq!(client.poll(server.pop3()), count);
    Some(client)
}

fn deliver(maildir: &Maildir, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
}

const EVERY_WAY: [(Line, Store); 4] = [
    (Line::V23, Store::Mdbox),
    (Line::V23, Store::Maildir),
    (Line::V24, Store::Mdbox),
    (Line::V24, Store::Maildir),
];

/// A source with the plugin that has six messages, and a target that has them from a dsync without
/// it. Nine were captured; three of them are copied late, to the source.
fn begin(line: Line, store: Store) -> Option<(Client, Scenario, Scenario)> {
    let client = fetchmail_of(line, 1..=6)?;
    let source = Scenario::begin_with(line, Config::default().with_plugin())?;
    let all = source.old_maildir(1..=9).files();
    deliver(&source.maildir(), 1..=6);
    source.capture(&Listing::of_files(&all));
    let target = Scenario::begin_with(line, Config::default().store(store).with_plugin())?;
    target.capture(&Listing::of_files(&all));
    target.dovecot.home(USER);
    let bare = Dovecot::start(&Host::dovecot(line)?, Config::default())?;
    source.maildir().copy_mail_to(&bare.mail(USER));
    bare.doveadm_ok(["sync", "-1", "-u", USER, &location(&target)]);
    Some((client, source, target))
}

fn location(moved: &Scenario) -> String {
    let place = moved.dovecot.inside(&moved.dovecot.mail(USER));
    format!("{}:{}", moved.store().word(), place.display())
}

/// Insists that the client downloads these, each once, and then those that come.
#[track_caller]
fn downloads(
    client: &Client,
    target: &Scenario,
    numbers: std::ops::RangeInclusive<u32>,
    way: &str,
) {
    client.poll(target.dovecot.pop3());
    let next = numbers.end() + 1;
    target.receive(&Message::plain(next));
    client.poll(target.dovecot.pop3());
    let listed = super::client::listing(target, USER);
    for number in numbers.clone().chain([next]) {
        let times = client.times_downloaded(&format!("<message.{number}@"));
        assert_eq!(times, 1, "{way}: message {number} of {listed:?}");
    }
    assert_eq!(client.downloaded(), 6 + numbers.count() + 1, "{way}: and nothing twice");
}

/// Rule 4. The three were never listed anywhere: the source would list them seventh, but that says
/// nothing of their place here.
#[test]
fn what_a_later_dsync_brings_with_an_order_does_not_stand_before_what_has_none() {
    for (line, store) in asked(EVERY_WAY) {
        let Some((client, source, target)) = begin(line, store) else { continue };
        deliver(&source.maildir(), 7..=9);
        source.dovecot.doveadm_with_us_ok(["sync", "-1", "-u", USER, &location(&target)]);
        downloads(&client, &target, 7..=9, &format!("{line:?} {store:?}"));
    }
}

/// The same holds if another client has listed them on the source.
#[test]
fn what_was_listed_elsewhere_does_not_stand_before_what_was_not() {
    for (line, store) in asked(EVERY_WAY) {
        let Some((client, source, target)) = begin(line, store) else { continue };
        source.uidls();
        deliver(&source.maildir(), 7..=9);
        source.uidls();
        source.dovecot.doveadm_with_us_ok(["sync", "-1", "-u", USER, &location(&target)]);
        downloads(&client, &target, 7..=9, &format!("{line:?} {store:?}"));
    }
}

/// New mail came to the target before any listing there, and a two-way dsync brings the messages
/// that were listed on the source. If both had given a UID, both messages get another, and Dovecot
/// drops the baked UIDLs: only the order of the last three is left.
#[test]
fn what_a_two_way_dsync_brings_is_fetched_and_so_is_what_was_there() {
    for line in Line::asked() {
        let Some(client) = fetchmail_of(line, 1..=6) else { continue };
        let Some(source) = Scenario::begin_with(line, Config::default().with_plugin()) else {
            continue;
        };
        deliver(&source.maildir(), 1..=6);
        let listing = Listing::of_files(&source.maildir().files());
        source.capture(&listing);
        source.uidls();
        deliver(&source.maildir(), 7..=9);
        source.uidls();
        let config = Config::default().store(Store::Mdbox).with_plugin();
        let Some(target) = Scenario::begin_with(line, config) else { continue };
        target.capture(&listing);
        for number in 10..=15 {
            target.receive(&Message::plain(number));
        }
        // A panel does so too, for it says 2 when something changed meanwhile.
        for _ in 0..3 {
            source.dovecot.doveadm_with_us(["sync", "-u", USER, &location(&target)]);
        }
        downloads(&client, &target, 7..=15, &format!("{line:?}"));
    }
}

/// Three new messages have another server's order, as its own dsync brought it.
#[test]
fn an_order_of_another_server_places_nothing_before_what_was_captured() {
    let Some(client) = fetchmail_of(Line::subject(), 1..=6) else { return };
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    deliver(&maildir, 1..=6);
    moved.capture(&Listing::of_files(&maildir.files()));
    deliver(&maildir, 7..=9);
    let files = maildir.files();
    let mut list = uidlist(18, &files);
    for (place, number) in [(3, 7), (2, 8), (1, 9)] {
        let end = format!(" :{}\n", base(&files[number - 1]));
        list = list.replace(&end, &format!(" Pof-another-{number} O{place}{end}"));
    }
    maildir.write_state("dovecot-uidlist", &list);
    assert!(fs::read_to_string(maildir.path().join("dovecot-uidlist")).unwrap().contains(" O3 "));
    downloads(&client, &moved, 7..=9, "Maildir");
    let uidls = moved.uidls();
    assert_eq!(uidls[6..9], ["of-another-9", "of-another-8", "of-another-7"], "{uidls:?}");
    assert_eq!(uidls[5], uidl(6));
}
