//! Mail that is equal to the last octet: mail that scripts and devices send, and mail that was
//! copied twice.

use super::client::Client as Reader;
use super::copies::is_warm;
use super::scenario::{
    Listing, Scenario, USER, by_file, by_header, by_message, header_of, uidl, uidl_of, uidlist,
};
use crate::support::clients::{Client, Program};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line};
use crate::support::imap::Imap;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// Dovecot's own quota-warning script sends this.
fn warning() -> Message {
    let text =
        "From: postmaster@example.com\nSubject: quota warning\n\nYour mailbox is now 80% full.\n";
    Message { octets: text.as_bytes().to_vec() }
}

/// The time at which the warning is deleted on the new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deleted {
    BeforeTheFirstListing,
    AfterIt,
}

fn format(line: Line) -> &'static str {
    if line == Line::V23 { "UID%u-%v" } else { "UID%{uid}-%{uidvalidity}" }
}

/// A warning was captured, and deleted by IMAP on the new server. The next one is equal to it,
/// and is another mail: fetchmail must fetch it, and it has the old one.
fn the_next_warning_is_fetched(line: Line, keys: &[&str], deleted: Deleted) {
    let way = format!("{line:?} {keys:?} {deleted:?}");
    let Some(fetchmail) = Client::new(Program::Fetchmail, USER) else { return };
    let Some(host) = Host::dovecot(line) else { return };
    let old = Dovecot::start(&host, Config::default().uidl_format(format(line)));
    let old = old.expect("needs no plugin");
    let old_maildir = Maildir::create(old.mail(USER));
    for number in 1..=4 {
        old_maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let warned = old_maildir.deliver(&warning(), Naming::Qmail, 5);
    old_maildir.write_state("dovecot-uidlist", &uidlist(17, &old_maildir.files()));
    assert_eq!(fetchmail.poll(old.pop3()), 5);

    let Some(moved) = Scenario::begin_with(line, Config::default().with_plugin()) else { return };
    old_maildir.copy_mail_to(&moved.dovecot.mail(USER));
    let files: Vec<_> = (1..=4).map(Message::plain).collect();
    let listing = files.iter().zip(1..).fold(Listing::new(), |listing, (message, number)| {
        listing.message(&uidl(number), &by_header(message))
    });
    let keys = keys.iter().map(|key| match *key {
        "file" => by_file(&warned),
        "header" => header_of(&warning()),
        _ => by_message(&warning()),
    });
    let keys: Vec<String> = keys.collect();
    let taken = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let listing = listing.message(&uidl(5), &keys.join(" ")).field(&format!("taken {taken}"));
    moved.capture(&listing);

    if deleted == Deleted::AfterIt {
        fetchmail.poll(moved.dovecot.pop3());
    }
    let mut imap = Imap::login(moved.dovecot.imap(), USER);
    for command in ["SELECT INBOX", "STORE 5 +FLAGS (\\Deleted)", "EXPUNGE"] {
        imap.command(command);
    }
    imap.logout();
    let before = fetchmail.downloaded();
    moved.dovecot.deliver(USER, &warning().octets);
    assert_eq!(fetchmail.poll(moved.dovecot.pop3()), 1, "{way}: the second warning");
    moved.dovecot.deliver(USER, &warning().octets);
    assert_eq!(fetchmail.poll(moved.dovecot.pop3()), 1, "{way}: the third warning");
    assert_eq!(fetchmail.downloaded(), before + 2);
    assert_eq!(moved.uidls()[..4], uidl_of(1..=4), "{way}");
    is_warm(&moved);
}

#[test]
fn the_second_of_two_equal_quota_warnings_is_fetched() {
    for deleted in [Deleted::BeforeTheFirstListing, Deleted::AfterIt] {
        for keys in [&["header"][..], &["message"], &["file", "message"]] {
            the_next_warning_is_fetched(Line::subject(), keys, deleted);
        }
        the_next_warning_is_fetched(Line::V24, &["message"], deleted);
    }
}

/// A message that was here well before any capture is the captured one, for nothing that came since
/// is so old.
#[test]
fn a_warning_that_was_here_before_any_capture_is_kept() {
    for line in Line::asked() {
        let Some(moved) = Scenario::begin_with(line, Config::default().with_plugin()) else {
            continue;
        };
        let maildir = moved.maildir();
        let taken = "taken 1714990000";
        for (days, kept) in [(2, true), (0, false)] {
            for file in maildir.files() {
                std::fs::remove_file(file).expect("root");
            }
            let _ = std::fs::remove_file(moved.ledger());
            let _ = std::fs::remove_file(moved.ledger().with_extension("lock"));
            let _ = std::fs::remove_file(maildir.path().join("dovecot-uidlist"));
            moved.capture(&Listing::new().message(&uidl(1), &by_message(&warning())).field(taken));
            let release = ["release", "--site"];
            crate::support::helper::run(
                crate::support::helper::uidl_keep()
                    .args(release)
                    .arg(moved.dovecot.site())
                    .arg(USER),
            );
            crate::support::helper::give_to_reader(&moved.dovecot.site());
            let file = maildir.deliver(&warning(), Naming::Dovecot, 1);
            maildir.set_mtime(&file, 1_714_990_000 - days * 86_400);
            let told = moved.uidls();
            assert_eq!(told == [uidl(1)], kept, "{line:?}: {days} days before: {told:?}");
        }
    }
}

/// An IMAP copy ran twice: it costs its own extra copies, once.
fn copied_twice(line: Line, store: Store, keys: fn(&Message) -> String) {
    let config = Config::default().store(store).with_plugin();
    let Some(moved) = Scenario::begin_with(line, config) else { return };
    let messages: Vec<Message> = (1..=12).map(Message::plain).collect();
    let mut session = moved.imap();
    for message in messages.iter().chain(&messages) {
        session.append(&message.on_the_wire());
    }
    session.logout();
    let listing = (1..).zip(&messages).fold(Listing::new(), |listing, (number, message)| {
        listing.message(&uidl(number), &keys(message))
    });
    moved.capture(&listing);
    let mut client = Reader::of_the_old_server(1..=12);
    assert_eq!(client.poll(&moved), (1..=12).collect::<Vec<_>>(), "{line:?} {store:?}");
    assert_eq!(moved.uidls()[..12], uidl_of(1..=12));
    is_warm(&moved);
    assert_eq!(client.poll(&moved), [0; 0]);
}

#[test]
fn a_copy_that_ran_twice_costs_its_extra_copies_once() {
    for keys in [by_header as fn(&Message) -> String, by_message] {
        for store in [Store::Maildir, Store::Mdbox, Store::Sdbox] {
            copied_twice(Line::subject(), store, keys);
        }
        copied_twice(Line::V24, Store::Mdbox, keys);
    }
}

/// Two of three were captured, and all three are there.
#[test]
fn of_three_equal_messages_two_that_were_captured_are_kept() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    for _ in 0..3 {
        moved.receive(&Message::plain(1));
    }
    let keys = by_message(&Message::plain(1));
    moved.capture(&Listing::new().message(&uidl(1), &keys).message(&uidl(2), &keys));
    let told = moved.uidls();
    assert_eq!(told[..2], uidl_of(1..=2));
    assert_eq!(told.len(), 3);
    is_warm(&moved);
    // The command gives entries in old order for messages by UID: the third is the one too many.
    let fetch = ["-f", "flow", "fetch", "-u", USER, "pop3.uidl", "mailbox", "INBOX", "all"];
    let by_uid = moved.dovecot.doveadm_with_us_ok(fetch);
    let by_uid: Vec<&str> =
        by_uid.lines().map(|line| line.trim().trim_start_matches("pop3.uidl=")).collect();
    assert_eq!(by_uid, told);
}
