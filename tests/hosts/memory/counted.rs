//! A move from Dovecot to Dovecot in one counting format, under one UIDVALIDITY: both count on.

use std::path::PathBuf;

use super::DBOXES;
use super::client::Client;
use super::copies::is_warm;
use super::scenario::{Listing, Scenario, UIDVALIDITY, USER, by_file, uidlist};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line, asked};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// The UIDL by Dovecot's default format, on both servers.
fn counted(number: u32) -> String {
    format!("{number:08x}{UIDVALIDITY:08x}")
}

fn format(line: Line) -> &'static str {
    match line {
        Line::V23 => "%08Xu%08Xv",
        Line::V24 => "%{uid | hex(8)}%{uidvalidity | hex(8)}",
    }
}

/// Entries for these files, numbered from 1, captured when the old server would give that number
/// next.
fn listing(files: &[PathBuf], next: u32, line: Line, taken: u32) -> Listing {
    let listing = Listing::new()
        .field(&format!("counter {next} {}", format(line)))
        .field(&format!("taken {}", 1_714_990_000 + taken));
    (1..).zip(files).fold(listing, |listing, (number, file)| {
        listing.message(&counted(number), &format!("uid={number} {}", by_file(file)))
    })
}

fn deliver(maildir: &Maildir, number: u32) -> PathBuf {
    maildir.deliver(&Message::plain(number), Naming::Dovecot, number)
}

/// The old maildrop was captured at next number 8. The new server gives a mail its own number 8; on
/// the old one, where a client polls until DNS is through, another mail has number 8. It follows
/// with the last capture.
fn both_count_on(line: Line, store: Store) {
    let Some(host) = Host::dovecot(line) else { return };
    let Some(old) = Dovecot::start(&host, Config::default()) else { return };
    let old_maildir = Maildir::create(old.mail(USER));
    for number in 1..=7 {
        deliver(&old_maildir, number);
    }
    let files = old_maildir.files();
    old_maildir.write_state("dovecot-uidlist", &uidlist(UIDVALIDITY, &files));
    assert_eq!(old.uidl(USER), (1..=7).map(counted).collect::<Vec<_>>());

    let config = Config::default().store(store).with_plugin();
    let Some(moved) = Scenario::begin_with(line, config) else { return };
    let copy = old_maildir.copy_mail_to(&moved.dovecot.dir().join("copy/Maildir"));
    let first = listing(&files, 8, line, 100);
    moved.capture(&first);
    if store == Store::Maildir {
        moved.copy_files(&copy);
        moved.maildir().write_state("dovecot-uidlist", &uidlist(UIDVALIDITY, &files));
    } else {
        copy.write_state("dovecot-uidlist", &uidlist(UIDVALIDITY, &files));
        let source = format!("maildir:{}", moved.dovecot.inside(copy.path()).display());
        moved.dovecot.doveadm_with_us_ok(["backup", "-R", "-u", USER, &source]);
    }
    moved.receive(&Message::plain(9));
    let alone = moved.uidls_without_us(None);
    assert_eq!(alone.last(), Some(&counted(8)), "Dovecot alone gives the same number");

    // This is the client's last poll of the old server.
    deliver(&old_maildir, 8);
    assert_eq!(old.uidl(USER).last(), Some(&counted(8)));
    let mut client = Client::that_holds((1..=8).map(|number| (counted(number), number)));

    assert_eq!(client.poll(&moved), [9], "{line:?} {store:?}");
    assert_eq!(moved.next_uid(), 8 + 65_536);
    is_warm(&moved);
    moved.receive(&Message::plain(10));
    assert_eq!(client.poll(&moved), [10]);

    // The delta brings the other number 8.
    let late = old_maildir.files().remove(7);
    let all = [&files[..], std::slice::from_ref(&late)].concat();
    if line == Line::V23 {
        moved.install(&listing(&all, 9, line, 200), &["--final"]);
        let delta = Maildir::create(moved.dovecot.dir().join("delta/Maildir"));
        let octets = std::fs::read(&late).expect("mail");
        delta.deliver(&Message { octets }, Naming::Dovecot, 8);
        moved.copy_files(&delta);
        assert_eq!(client.poll(&moved), [0; 0], "{store:?}: it has that");
        let uidls = moved.uidls();
        assert_eq!(uidls.iter().filter(|uidl| **uidl == counted(8)).count(), 1, "{uidls:?}");
        assert_eq!(uidls.last(), Some(&counted(8)));
    }
}

#[test]
fn two_servers_that_count_on_from_one_number_hide_no_mail_on_maildir() {
    for line in Line::asked() {
        both_count_on(line, Store::Maildir);
    }
}

#[test]
fn two_servers_that_count_on_from_one_number_hide_no_mail_on_dbox() {
    for (line, store) in asked(DBOXES) {
        both_count_on(line, store);
    }
}
