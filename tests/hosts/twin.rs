//! The same maildrop on the old server and on the new one: both unique-id listings, byte for byte
//! and in the same order.
//!
//! Each twin then lives on: new mail arrives, mail is deleted, Dovecot's index files are removed;
//! the kept UIDLs stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::shared::tree::below;
use crate::support::clients::{Client, Program};
use crate::support::courier::Courier;
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line};
use crate::support::imap;
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{OldMaildrop, USER, Way, words};

/// The number of messages of the old maildrop, before some are deleted there.
const COUNT: u32 = 220;

// --- the old servers

/// Courier, in Plesk's layout. Its order is by time; its numbers are not, for mail moved in late.
fn courier() -> Option<OldMaildrop> {
    let courier = Courier::new(&Host::courier()?);
    let maildir = courier.maildir(USER);
    live_with(&maildir, Naming::Courier, || {
        let mut session = courier.session(USER);
        session.pop3().uidl().expect("Courier lists");
        for number in [3, 77, 78] {
            session.pop3().dele(number).expect("DELE");
        }
        session.quit();
    });
    let uidls = courier.uidl(USER);
    assert!(uidls.iter().all(|uidl| uidl.starts_with("UID")), "{uidls:?}");
    // The admin of a Plesk server captures all of it so.
    let mut capture = words("courier --layout plesk --root");
    capture.push(courier.root().into());
    Some(OldMaildrop::new(uidls, maildir, capture, courier))
}

/// Dovecot with a format that counts, and a UIDVALIDITY that the new server will not have.
fn dovecot(format: &'static str) -> Option<OldMaildrop> {
    let host = Host::dovecot(Line::subject())?;
    let mut server = Dovecot::start(&host, Config::default().uidl_format(format))?;
    let maildir = Maildir::create(server.mail(USER));
    let uidlist = "3 V1234567890 N1 G0123456789abcdef0123456789abcdef\n";
    maildir.write_state("dovecot-uidlist", uidlist);
    live_with(&maildir, Naming::Dovecot, || {
        let mut session = server.login(USER).expect("served");
        for number in [3, 77, 78] {
            session.dele(number).expect("DELE");
        }
        session.quit().expect("QUIT");
    });
    let uidls = server.uidl(USER);
    server.pause();
    let mut capture = words("dovecot --format");
    capture.extend([format.into(), "--user".into(), USER.into(), maildir.path().into()]);
    Some(OldMaildrop::new(uidls, maildir, capture, server))
}

fn qmail() -> Option<OldMaildrop> {
    Some(OldMaildrop::qmail(COUNT))
}

/// Makes two deliveries with a session after the first; the second brings mail from before the
/// first.
fn live_with(maildir: &Maildir, naming: Naming, session: impl FnOnce()) {
    let messages = mail::maildrop(COUNT);
    let (early, late) = messages.split_at(160);
    for (number, message) in (0..).zip(early) {
        maildir.deliver(message, naming, 1000 + number);
    }
    session();
    for (number, message) in (0..).zip(late) {
        maildir.deliver(message, naming, if number % 2 == 0 { number } else { 2000 + number });
    }
}

// --- the move

/// Tells the whole story of one twin.
fn twin(old: Option<OldMaildrop>, line: Line, store: Store, way: Way) {
    let Some(old) = old else { return };
    let Some(host) = Host::dovecot(line) else { return };
    let Some(new) = Dovecot::start(&host, Config::default().store(store).with_plugin()) else {
        return;
    };
    old.move_to(&new, way);

    same(&new.uidl(USER), &old.uidls, "the first listing");
    same(&new.uidl(USER), &old.uidls, "the second listing");
    let fetched = new.doveadm_with_us_ok([
        "-f",
        "flow",
        "fetch",
        "-u",
        USER,
        "pop3.uidl",
        "mailbox",
        "INBOX",
        "all",
    ]);
    let fetched: BTreeSet<&str> =
        fetched.lines().map(|line| line.trim_start_matches("pop3.uidl=")).collect();
    assert_eq!(fetched, old.uidls.iter().map(String::as_str).collect(), "doveadm sees the same");

    arrives(&new, store, 1001);
    let with_new = new.uidl(USER);
    let (kept, arrived) = with_new.split_at(old.uidls.len());
    same(kept, &old.uidls, "after new mail");
    assert_eq!(arrived.len(), 1);
    assert!(!old.uidls.contains(&arrived[0]), "{} is taken", arrived[0]);

    let mut session = new.login(USER).expect("served");
    for number in [200, 100, 5] {
        session.dele(number).expect("DELE");
    }
    session.quit().expect("QUIT");
    let mut left = with_new;
    for number in [200, 100, 5] {
        left.remove(number - 1);
    }
    same(&new.uidl(USER), &left, "after mail was deleted");

    if store == Store::Mdbox {
        // A deleted message stays in mdbox files until then, and a rebuild would bring it back.
        new.doveadm_ok(["purge", "-u", USER]);
    }
    new.remove_index_files(USER);
    let again = new.uidl(USER);
    let kept = &left[..left.len() - 1];
    same(&again[..again.len() - 1], kept, "without Dovecot's index files");
    assert!(!old.uidls.contains(&again[again.len() - 1]), "{} is taken", again[again.len() - 1]);

    if store == Store::Maildir {
        same(&without_plugin(&host, &new), &again, "after the plugin was taken out");
    }
}

fn arrives(new: &Dovecot, store: Store, number: u32) {
    let message = Message::plain(number);
    if store == Store::Maildir {
        // It stands before all others, by its name: no place in the old order is free for it.
        Maildir::open(new.mail(USER)).deliver(&message, Naming::Dovecot, 900);
    } else {
        imap::append(new.imap(), USER, [message.on_the_wire().as_slice()]);
    }
}

/// The UIDLs that a Dovecot that has never heard of us gives the same Maildir.
fn without_plugin(host: &Host, new: &Dovecot) -> Vec<String> {
    let plain = Dovecot::start(host, Config::default()).expect("needs no plugin");
    let copy = Maildir::open(new.mail(USER)).copy_mail_to(&plain.mail(USER));
    let uidlist = fs::read_to_string(new.mail(USER).join("dovecot-uidlist")).expect("a uidlist");
    copy.write_state("dovecot-uidlist", &uidlist);
    plain.uidl(USER)
}

#[track_caller]
fn same(new: &[String], old: &[String], when: &str) {
    let lines = new.iter().zip(old).enumerate();
    let differing: Vec<String> = lines
        .filter(|(_, (new, old))| new != old)
        .map(|(at, (new, old))| format!("  {}: {new} instead of {old}", at + 1))
        .collect();
    assert!(
        differing.is_empty() && new.len() == old.len(),
        "{when}: {} of {} lines differ, {} listed:\n{}",
        differing.len(),
        old.len(),
        new.len(),
        differing[..differing.len().min(10)].join("\n")
    );
}

// --- the twins

#[test]
fn courier_moves_to_a_maildir_by_files() {
    twin(courier(), Line::subject(), Store::Maildir, Way::Files);
}

#[test]
fn courier_moves_to_an_mdbox_by_import() {
    twin(courier(), Line::subject(), Store::Mdbox, Way::Import);
}

#[test]
fn courier_moves_to_an_sdbox_by_append() {
    twin(courier(), Line::subject(), Store::Sdbox, Way::Append);
}

#[test]
fn courier_moves_to_a_maildir_of_dovecot_24() {
    twin(courier(), Line::V24, Store::Maildir, Way::Files);
}

#[test]
fn courier_moves_to_an_mdbox_of_dovecot_24() {
    twin(courier(), Line::V24, Store::Mdbox, Way::Append);
}

#[test]
fn dovecot_with_its_default_format_moves_to_a_maildir_by_files() {
    twin(dovecot("%08Xu%08Xv"), Line::subject(), Store::Maildir, Way::Files);
}

#[test]
fn dovecot_with_its_default_format_moves_to_an_mdbox_by_append() {
    twin(dovecot("%08Xu%08Xv"), Line::subject(), Store::Mdbox, Way::Append);
}

#[test]
fn dovecot_with_its_default_format_moves_to_an_sdbox_by_import() {
    twin(dovecot("%08Xu%08Xv"), Line::subject(), Store::Sdbox, Way::Import);
}

#[test]
fn dovecot_with_couriers_format_moves_to_a_maildir_by_files() {
    twin(dovecot("UID%u-%v"), Line::subject(), Store::Maildir, Way::Files);
}

#[test]
fn dovecot_with_couriers_format_moves_to_an_mdbox_by_import() {
    twin(dovecot("UID%u-%v"), Line::subject(), Store::Mdbox, Way::Import);
}

#[test]
fn dovecot_with_couriers_format_moves_to_an_sdbox_by_append() {
    twin(dovecot("UID%u-%v"), Line::subject(), Store::Sdbox, Way::Append);
}

#[test]
fn qmail_moves_to_a_maildir_by_files() {
    twin(qmail(), Line::subject(), Store::Maildir, Way::Files);
}

#[test]
fn qmail_moves_to_an_mdbox_by_append() {
    twin(qmail(), Line::subject(), Store::Mdbox, Way::Append);
}

#[test]
fn qmail_moves_to_an_sdbox_by_import() {
    twin(qmail(), Line::subject(), Store::Sdbox, Way::Import);
}

#[test]
fn real_clients_download_nothing_again_and_new_mail_once() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let Some(old) = dovecot("%08Xu%08Xv") else { return };
    // The old server itself has been stopped: its Maildir, state included, in one that answers.
    let answering = Dovecot::start(&host, Config::default()).expect("needs no plugin");
    let copy = old.maildir.copy_mail_to(&answering.mail(USER));
    let uidlist =
        fs::read_to_string(old.maildir.path().join("dovecot-uidlist")).expect("a uidlist");
    copy.write_state("dovecot-uidlist", &uidlist);

    let Some(new) = Dovecot::start(&host, Config::default().with_plugin()) else { return };
    old.move_to(&new, Way::Files);

    let programs = [Program::Fetchmail, Program::Mpop, Program::Getmail];
    let clients: Vec<(Program, Client)> = programs
        .into_iter()
        .filter_map(|program| Some((program, Client::new(program, USER)?)))
        .collect();
    for (program, client) in &clients {
        assert_eq!(client.poll(answering.pop3()), old.uidls.len(), "{program:?}: the old server");
        assert_eq!(client.poll(new.pop3()), 0, "{program:?}: the new server");
    }
    arrives(&new, Store::Maildir, 1001);
    for (program, client) in &clients {
        assert_eq!(client.poll(new.pop3()), 1, "{program:?}: one new message");
        assert_eq!(client.poll(new.pop3()), 0, "{program:?}: nothing new");
    }
}

#[test]
fn who_is_not_on_the_roster_is_served_as_without_the_plugin() {
    for line in Line::asked() {
        let Some(host) = Host::dovecot(line) else { continue };
        let Some(with) = Dovecot::start(&host, Config::default().with_plugin()) else { continue };
        let without = Dovecot::start(&host, Config::default()).expect("needs no plugin");
        // Somebody else of the same domain is on the roster.
        let Some(old) = qmail() else { continue };
        old.build_site(&with);

        for user in ["bob@example.com", "carol@example.org", "dave"] {
            let said: Vec<Vec<String>> =
                [&with, &without].map(|server| transcript(server, user)).into();
            assert_eq!(said[0], said[1], "{line:?}: {user}");
            let files = [&with, &without].map(|server| names_below(&server.home(user)));
            assert_eq!(files[0], files[1], "{line:?}: what lies in the home of {user}");
        }
    }
}

/// Everything that a client of a fresh maildrop sees in two sessions, with a message deleted.
fn transcript(server: &Dovecot, user: &str) -> Vec<String> {
    let maildir = Maildir::create(server.mail(user));
    let uidlist = "3 V1234567890 N1 G0123456789abcdef0123456789abcdef\n";
    maildir.write_state("dovecot-uidlist", uidlist);
    for (number, message) in (0..).zip(mail::maildrop(48)) {
        maildir.deliver(&message, Naming::Qmail, number);
    }
    let mut said = Vec::new();
    for _ in 0..2 {
        let mut session = server.login(user).expect("served");
        for command in ["CAPA", "LIST", "UIDL", "RETR 3", "RETR 4", "TOP 5 2"] {
            for line in session.lines(command).expect(command) {
                said.push(format!("{command}: {}", String::from_utf8_lossy(&line)));
            }
        }
        said.push(session.command("STAT").expect("STAT"));
        said.push(session.command("UIDL 7").expect("UIDL 7"));
        said.push(session.command("DELE 7").expect("DELE 7"));
        session.quit().expect("QUIT");
    }
    said
}

fn names_below(dir: &Path) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.strip_prefix(dir).expect("below").display().to_string();
    below(dir).iter().map(name).collect()
}
