//! Programs that copy mail: every message keeps the keys that were captured.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line, unix_mode};
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming};
use crate::support::{PASSWORD, lacking};
use uidl_keep::capture;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::{Keys, MessageRead};
use uidl_keep::format::UidlFormat;
use uidl_keep::key::{Depth, Fingerprint};

const USER: &str = "alice";

/// Every odd kind, and messages that do not name themselves: two mails of a script that are equal
/// to the last octet, one of cron's, one with neither a field nor an empty line.
fn messages() -> Vec<Message> {
    let warning = "From: quota@example.com\nSubject: 80 % full\n\nDelete something.\n";
    let cron = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@old> backup\n\nDone.\n";
    let mut messages = mail::maildrop(24);
    for text in [warning, warning, cron, "No header, and no empty line.\n"] {
        messages.push(Message { octets: text.into() });
    }
    messages
}

/// A Dovecot with these messages, and one without any.
fn old_and_new(more: &str) -> Option<(Dovecot, Dovecot)> {
    let host = Host::dovecot(Line::subject())?;
    let old = Dovecot::start(&host, Config::default())?;
    let maildir = Maildir::create(old.mail(USER));
    for (number, message) in (0..).zip(messages()) {
        maildir.deliver(&message, Naming::Dovecot, number);
    }
    assert_eq!(old.uidl(USER).len(), messages().len());
    let config = Config { extra: more.to_owned(), ..Config::default() }.store(Store::Mdbox);
    Some((old, Dovecot::start(&host, config)?))
}

/// Whether a program of that package is here.
fn is_there(program: &str, package: &str) -> bool {
    let version = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    if version.is_err() {
        lacking(&format!("{program} is not installed (Debian has {package}): run `make deps`"));
    }
    version.is_ok()
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("it is installed");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes a file that only we can read: it has a password in it.
fn write(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("our directory");
    fs::set_permissions(&path, unix_mode(0o600)).expect("our file");
    path
}

/// Insists that each message that was copied has its captured keys on the new server, and that the
/// messages are there as they are.
#[track_caller]
fn keys_are_kept(old: &Dovecot, new: &Dovecot, is_copied: fn(&Message) -> bool) -> Vec<Vec<u8>> {
    let format = UidlFormat::parse("%08Xu%08Xv").expect("a format");
    let source = Source::named(USER, old.mail(USER));
    let captured = capture::disk::server::capture(
        &capture::disk::server::ServerKind::Dovecot { format },
        Keys::default(),
        &source,
    );
    assert_eq!(captured.losses, [""; 0]);
    let mut session = new.login(USER).expect("served");
    let count = session.uidl().expect("UIDL").len();
    let copies: Vec<_> = (1..=count).map(|at| session.retr(at).expect("RETR")).collect();
    session.quit().expect("QUIT");

    // They are in no order: some copy the newest first.
    let mut left: Vec<_> = copies
        .iter()
        .map(|copy| MessageRead::read(&copy[..], Depth::Message).expect("memory can be read").of)
        .collect();
    let messages = messages();
    assert_eq!(messages.len(), captured.maildrop.entries.len());
    let mut by_message = 0;
    for (entry, message) in captured.maildrop.entries.iter().zip(&messages) {
        by_message += usize::from(entry.message.is_some());
        if !is_copied(message) {
            continue;
        }
        let is_copy = |header: Option<Fingerprint>, message: Option<Fingerprint>| {
            header == entry.header && (entry.message.is_none() || message == entry.message)
        };
        let copy = left.iter().position(|of| is_copy(of.header, of.message));
        let copy = copy.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&message.octets)));
        left.swap_remove(copy);
    }
    assert_eq!(left.len(), 0, "more than was copied");
    // These are the copies, the one without an end of its header, and those that do not name
    // themselves.
    assert_eq!(by_message, 2 + 1 + 4);
    copies
}

fn have(copies: &[Vec<u8>], field: &str) -> usize {
    let field = format!("\n{field}: ");
    let with_field =
        |copy: &&Vec<u8>| format!("\n{}", String::from_utf8_lossy(copy)).contains(&field);
    copies.iter().filter(with_field).count()
}

#[test]
fn isync_writes_a_field_of_its_own_into_each_message() {
    let Some((old, new)) = old_and_new("") else { return };
    if !is_there("mbsync", "isync") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = |name: &str, at: SocketAddr| {
        format!(
            "IMAPAccount {name}\nHost {}\nPort {}\nUser {USER}\nPass {PASSWORD}\nSSLType None\n\
             AuthMechs LOGIN\n\nIMAPStore {name}\nAccount {name}\n\n",
            at.ip(),
            at.port()
        )
    };
    let channel = format!(
        "Channel move\nFar :old:\nNear :new:\nPatterns INBOX\nSync Pull New\nSyncState {}/\n",
        dir.path().display()
    );
    let rc = store("old", old.imap()) + &store("new", new.imap()) + &channel;
    let rc = write(dir.path(), "mbsyncrc", &rc);
    run(Command::new("mbsync").arg("-c").arg(rc).arg("move"));
    // It calls a header incomplete that has no end, and leaves such a message where it is.
    let copies = keys_are_kept(&old, &new, |message| {
        message.on_the_wire().windows(4).any(|four| four == b"\r\n\r\n")
    });
    assert_eq!((have(&copies, "X-TUID"), copies.len()), (26, 26));
}

fn by_offlineimap(old: &Dovecot, new: &Dovecot) {
    let dir = tempfile::tempdir().expect("a directory");
    let repository = |name: &str, at: SocketAddr| {
        format!(
            "[Repository {name}]\ntype = IMAP\nremotehost = {}\nremoteport = {}\n\
             remoteuser = {USER}\nremotepass = {PASSWORD}\nssl = no\nstarttls = no\n\
             folderfilter = lambda folder: folder == 'INBOX'\n\n",
            at.ip(),
            at.port()
        )
    };
    let general = format!(
        "[general]\naccounts = move\nmetadata = {}/state\nui = basic\n\n\
         [Account move]\nlocalrepository = new\nremoterepository = old\n\n",
        dir.path().display()
    );
    let rc = general + &repository("new", new.imap()) + &repository("old", old.imap());
    let rc = write(dir.path(), "offlineimaprc", &rc);
    run(Command::new("offlineimap").arg("-o").arg("-c").arg(rc).env("HOME", dir.path()));
}

#[test]
fn offlineimap_writes_one_where_the_new_server_has_no_uidplus() {
    if !is_there("offlineimap", "offlineimap3") {
        return;
    }
    let Some((old, new)) = old_and_new("") else { return };
    by_offlineimap(&old, &new);
    assert_eq!(have(&keys_are_kept(&old, &new, |_| true), "X-OfflineIMAP"), 0);

    let without = "protocol imap {\n  imap_capability = IMAP4rev1 LITERAL+\n}\n";
    let Some((old, new)) = old_and_new(without) else { return };
    by_offlineimap(&old, &new);
    let copies = keys_are_kept(&old, &new, |_| true);
    assert_eq!(have(&copies, "X-OfflineIMAP"), copies.len());
}
