//! Two captures of one message with different UIDLs: clients hold the later one.

use super::copies::is_warm;
use super::scenario::{Listing, Scenario, USER, base, by_file};
use crate::support::clients::{Client, Program};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// The UIDL that Courier told of the message after its list was repaired, and before.
fn repaired(number: u32) -> String {
    format!("UID{}-17", 800 + number)
}

fn before(number: u32) -> String {
    format!("UID{number}-17")
}

/// An old server that tells what Courier told after the repair, and a client that has polled it
/// then.
fn fetchmail_of(line: Line, maildir: &Maildir) -> Option<Client> {
    let client = Client::new(Program::Fetchmail, USER)?;
    let old = Dovecot::start(&Host::dovecot(line)?, Config::default())?;
    let copy = maildir.copy_mail_to(&old.mail(USER));
    let list = (1..)
        .zip(copy.files())
        .fold("3 V17 N7 G0123456789abcdef0123456789abcdef\n".to_owned(), |list, (number, file)| {
            list + &format!("{number} P{} :{}\n", repaired(number), base(&file))
        });
    copy.write_state("dovecot-uidlist", &list);
    assert_eq!(client.poll(old.pop3()), 6);
    Some(client)
}

/// Six messages, listed anew by the old server between the two captures.
fn renumbered(store: Store, was_listed: bool) {
    let Some(moved) = Scenario::begin(store) else { return };
    let old = Maildir::create(moved.dovecot.dir().join("old/Maildir"));
    for number in 1..=6 {
        old.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let Some(client) = fetchmail_of(Line::subject(), &old) else { return };
    let files = old.files();
    let listing = |uidl: fn(u32) -> String, taken: u32| {
        let listing = Listing::new().field(&format!("taken {taken}"));
        (1..)
            .zip(&files)
            .fold(listing, |listing, (number, file)| listing.message(&uidl(number), &by_file(file)))
    };
    moved.install(&listing(before, 1_714_991_000), &[]);
    moved.copy_files(&old);
    if was_listed {
        // A UIDL that clients were told here stays.
        assert_eq!(moved.uidls(), (1..=6).map(before).collect::<Vec<_>>());
    }
    moved.install(&listing(repaired, 1_714_992_000), &["--final", "--later-wins"]);
    if was_listed {
        assert_eq!(moved.uidls(), (1..=6).map(before).collect::<Vec<_>>());
        // A copy has the name of its original, and may not have what the later capture says of
        // that.
        let mut session = moved.imap();
        for command in ["SELECT INBOX", "COPY 1 INBOX"] {
            session.command(command);
        }
        session.logout();
        moved.delete(1);
        moved.receive(&Message::plain(7));
        let told = moved.uidls();
        assert_eq!(told[..5], (2..=6).map(before).collect::<Vec<_>>());
        assert!(!(1..=6).map(repaired).any(|uidl| told.contains(&uidl)), "{told:?}");
    } else {
        assert_eq!(client.poll(moved.dovecot.pop3()), 0, "{store:?}: it has all six");
        assert_eq!(moved.uidls(), (1..=6).map(repaired).collect::<Vec<_>>());
        moved.receive(&Message::plain(7));
        assert_eq!(client.poll(moved.dovecot.pop3()), 1);
    }
    is_warm(&moved);
}

#[test]
fn what_a_later_capture_says_is_what_fetchmail_holds() {
    renumbered(Store::Maildir, false);
    renumbered(Store::Mdbox, false);
}

#[test]
fn a_later_capture_renames_nothing_that_was_listed_here() {
    renumbered(Store::Maildir, true);
    renumbered(Store::Mdbox, true);
}
