//! The hosts themselves, before anything of ours is in them: tests/hosts/twin.rs stands on what
//! these tests see.

use std::collections::BTreeSet;

use crate::support::clients::{Client, Program};
use crate::support::courier::Courier;
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line};
use crate::support::imap;
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming};

#[test]
fn courier_lists_by_time_and_keeps_its_uidls_in_its_own_file() {
    let Some(host) = Host::courier() else { return };
    let courier = Courier::new(&host);
    let maildir = courier.maildir("alice@example.com");
    for (number, message) in mail::maildrop(24).iter().enumerate() {
        maildir.deliver(message, Naming::Courier, 100 + number as u32);
    }
    let first = courier.uidl("alice@example.com");
    assert_eq!(first.len(), 24);
    assert!(maildir.path().join("courierpop3dsizelist").exists());

    maildir.deliver(&Message::plain(500), Naming::Courier, 50);
    let second = courier.uidl("alice@example.com");
    assert!(second[0].starts_with("UID25-"), "an older file comes first: {}", second[0]);
    assert_eq!(second[1..], first);
}

#[test]
fn dovecot_serves_mail_that_was_copied_into_its_maildir() {
    each_line_serves(|line| {
        let host = Host::dovecot(line)?;
        let server = Dovecot::start(&host, Config::default())?;
        let maildir = Maildir::create(server.mail("alice@example.com"));
        for (number, message) in mail::maildrop(24).iter().enumerate() {
            maildir.deliver(message, Naming::Courier, number as u32);
        }
        Some(server)
    });
}

#[test]
fn dovecot_serves_mail_that_was_appended_to_its_mdbox() {
    each_line_serves(|line| {
        let host = Host::dovecot(line)?;
        let server = Dovecot::start(&host, Config::default().store(Store::Mdbox))?;
        let wire: Vec<Vec<u8>> = mail::maildrop(24).iter().map(Message::on_the_wire).collect();
        imap::append(server.imap(), "alice@example.com", wire.iter().map(Vec::as_slice));
        Some(server)
    });
}

#[test]
fn dovecot_serves_mail_that_was_imported_to_its_sdbox() {
    each_line_serves(|line| {
        let host = Host::dovecot(line)?;
        let server = Dovecot::start(&host, Config::default().store(Store::Sdbox))?;
        let maildir = Maildir::create(server.dir().join("old/Maildir"));
        for (number, message) in mail::maildrop(24).iter().enumerate() {
            maildir.deliver(message, Naming::Qmail, number as u32);
        }
        server.import("alice@example.com", maildir.path());
        Some(server)
    });
}

/// Insists on 24 messages, each with a UIDL of its own, each retrieved with the size that was
/// listed; twice the same.
fn each_line_serves(server: impl Fn(Line) -> Option<Dovecot>) {
    for line in Line::asked() {
        let Some(server) = server(line) else { continue };
        let listing = server.uidl("alice@example.com");
        assert_eq!(listing.iter().collect::<BTreeSet<_>>().len(), 24);

        let mut session = server.login("alice@example.com").expect("served");
        let sizes = session.list().expect("LIST");
        for (at, &size) in sizes.iter().enumerate() {
            let message = session.retr(at + 1).expect("RETR");
            // A message without an end of its last line is sent with one.
            let sent = message.len() as u64;
            assert!(sent == size || sent == size + 2, "{line:?}: message {}", at + 1);
        }
        session.quit().expect("QUIT");

        server.remove_index_files("alice@example.com");
        assert_eq!(server.uidl("alice@example.com").len(), 24);
    }
}

#[test]
fn clients_download_everything_once_and_again_when_the_uidls_change() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let Some(old) = Dovecot::start(&host, Config::default()) else { return };
    let Some(new) = Dovecot::start(&host, Config::default().uidl_format("new-%08Xu")) else {
        return;
    };
    let maildir = Maildir::create(old.mail("alice"));
    for (number, message) in mail::maildrop(24).iter().enumerate() {
        maildir.deliver(message, Naming::Dovecot, number as u32);
    }
    maildir.copy_mail_to(&new.mail("alice"));

    for program in [Program::Fetchmail, Program::Mpop, Program::Getmail] {
        let Some(client) = Client::new(program, "alice") else { continue };
        assert_eq!(client.poll(old.pop3()), 24, "{program:?}: the first poll");
        assert_eq!(client.poll(old.pop3()), 0, "{program:?}: nothing new");
        assert_eq!(client.poll(new.pop3()), 24, "{program:?}: other UIDLs");
    }
}
