//! One maildrop behind more than one front end, and an INBOX that is renamed.

use std::thread;

use super::DBOXES;
use super::client::Client;
use super::copies::is_warm;
use super::scenario::{Listing, Scenario, USER, uidl_of};
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line, asked};
use crate::support::mail::Message;
use crate::support::pop3::Refused;

/// Two front ends on one Maildir, each with indexes of its own.
fn begin(line: Line) -> Option<(Scenario, Dovecot)> {
    let at = |index: &str, home: &str| match line {
        Line::V23 => format!("mail_location = maildir:{home}/Maildir:INDEX={home}/{index}\n"),
        Line::V24 => format!("mail_path = {home}/Maildir\nmail_index_path = {home}/{index}\n"),
    };
    let config = Config { extra: at("index-a", "~"), ..Config::default() }.with_plugin();
    let first = Scenario::begin_with(line, config)?;
    let old = first.old_maildir(1..=4);
    first.copy_files(&old);
    first.capture(&Listing::of_files(&old.files()));
    let host = Host::dovecot(line)?;
    let inside = first.dovecot.inside(&first.dovecot.home(USER));
    let site = host.inside(&first.dovecot.site());
    let extra = at("index-b", &inside.display().to_string());
    let config = Config { extra, ..Config::default() }.with_plugin();
    let second = Dovecot::start(&host, config)?;
    second.home(USER);
    std::fs::remove_dir(second.site()).unwrap();
    std::os::unix::fs::symlink(site, second.site()).unwrap();
    Some((first, second))
}

/// On a Maildir names say whether UIDs hold, not whose index it is.
#[test]
fn every_front_end_of_a_maildir_is_warm() {
    for line in Line::asked() {
        let Some((first, second)) = begin(line) else { continue };
        assert_eq!(first.uidls(), uidl_of(1..=4));
        let ledger = || std::fs::metadata(first.ledger()).unwrap().modified().unwrap();
        let written = ledger();
        for _ in 0..2 {
            assert_eq!(second.uidl(USER), uidl_of(1..=4), "{line:?}");
            assert_eq!(first.uidls(), uidl_of(1..=4), "{line:?}");
        }
        assert_eq!(ledger(), written, "{line:?}: a login was cold");
        // A message that one front end lists the other tells, too.
        let mut client = Client::of_the_old_server(1..=4);
        first.receive(&Message::plain(5));
        let told = second.uidl(USER);
        assert_eq!(client.poll(&first), [5]);
        assert_eq!(first.uidls(), told, "{line:?}");
        is_warm(&first);
    }
}

/// Both log in at once, while mail comes: there is one order and one UIDL for each message, whoever
/// asks.
#[test]
fn two_front_ends_at_once_tell_the_same() {
    for line in Line::asked() {
        let Some((first, second)) = begin(line) else { continue };
        let mut told = uidl_of(1..=4);
        for number in 5..=9 {
            first.receive(&Message::plain(number));
            let listed = |server: &Dovecot| -> Result<Vec<String>, Refused> {
                let mut session = server.login(USER)?;
                let listed = session.uidl()?;
                session.quit()?;
                Ok(listed)
            };
            let listings: Vec<_> = thread::scope(|scope| {
                let servers = [&first.dovecot, &second, &first.dovecot, &second];
                let clients = servers.map(|server| scope.spawn(move || listed(server)));
                clients.into_iter().map(|client| client.join().unwrap()).collect()
            });
            let now = first.uidls();
            assert_eq!(now[..told.len()], told);
            assert_eq!(now.len(), told.len() + 1);
            for listing in listings.into_iter().flatten() {
                // A session that began before the message came there has not seen it.
                assert!(now.starts_with(&listing), "{line:?}: {listing:?}, {now:?}");
            }
            assert_eq!(second.uidl(USER), now, "{line:?}");
            told = now;
        }
    }
}

/// The mail goes into another folder, with its UIDLs, and INBOX is made anew: to any look it has
/// lost its mail. The user is refused until the operator says that it may be missing; then he has
/// his new mail, and the mail that he moves back has its UIDL.
#[test]
fn who_renames_his_inbox_is_refused_until_his_old_mail_may_be_missing() {
    // A Maildir's INBOX is not renamed.
    for (line, store) in asked(DBOXES) {
        let config = Config::default().store(store).with_plugin();
        let Some(moved) = Scenario::begin_with(line, config) else { continue };
        let old = moved.old_maildir(1..=4);
        moved.copy_files(&old);
        moved.capture(&Listing::of_files(&old.files()));
        let mut client = Client::of_the_old_server(1..=4);
        assert_eq!(client.poll(&moved), [0; 0]);
        moved.receive(&Message::plain(5));
        assert_eq!(client.poll(&moved), [5]);
        let mut session = moved.imap();
        session.command("RENAME INBOX Old");
        session.logout();
        moved.receive(&Message::plain(6));
        moved.refusal();
        let log = moved.log().pop().unwrap();
        assert!(log.contains("`uidl-keep release --unguarded` the user"), "{log}");
        let site = moved.dovecot.site();
        let mut release = helper::uidl_keep();
        helper::run(release.args(["release", "--unguarded", "--site"]).arg(&site).arg(USER));
        helper::give_to_reader(&site);
        assert_eq!(client.poll(&moved), [6], "{line:?} {store:?}");
        is_warm(&moved);
        let mut session = moved.imap();
        for command in ["SELECT Old", "MOVE 1:4 INBOX"] {
            session.command(command);
        }
        session.logout();
        assert_eq!(client.poll(&moved), [0; 0], "{line:?} {store:?}");
        assert_eq!(moved.uidls()[1..], uidl_of(1..=4));
    }
}
