//! Late messages go behind.

use std::fs;
use std::path::{Path, PathBuf};

use super::scenario::{Listing, Scenario, USER, base, uidl, uidl_of, uidlist};
use crate::support::clients::{Client, Program};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// Rule 4: a message that comes later, an old message copied late too, goes behind everything ever
/// listed.
#[test]
fn a_message_copied_late_is_fetched_once_and_so_is_the_next_new_one() {
    let Some(client) = client_of_six() else { return };
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    let late = deliver(&maildir, 1..=7).pop().unwrap();
    moved.capture(&Listing::of_files(&maildir.files()));
    fs::remove_file(&late).unwrap();

    live_on(&client, &moved.dovecot, &maildir, |_| {});
    assert_eq!(client.times_downloaded("<message.7@"), 1);
    assert_eq!(client.times_downloaded("<message.16@"), 1);
    assert_eq!(client.downloaded(), 16, "and nothing twice");
    let uidls = moved.uidls();
    assert_eq!([&uidls[..6], &uidls[14..15]].concat(), uidl_of(1..=7));
}

/// Without it: a careful operator bakes the old UIDLs and the old order by hand, and does so for
/// the late message too. It then stands among the messages that the client has, and is never
/// fetched.
#[test]
fn a_message_copied_late_into_its_old_place_would_never_be_fetched() {
    let Some(client) = client_of_six() else { return };
    let Some(dovecot) = Dovecot::start(&Host::dovecot(Line::subject()).unwrap(), Config::default())
    else {
        return;
    };
    let maildir = Maildir::create(dovecot.mail(USER));
    deliver(&maildir, 1..=6);
    maildir.write_state("dovecot-uidlist", &uidlist(17, &maildir.files()));
    for (number, file) in (1..).zip(maildir.files()) {
        bake(&maildir, &file, number);
    }

    live_on(&client, &dovecot, &maildir, |late| {
        dovecot.uidl(USER);
        bake(&maildir, late, 7);
    });
    assert_eq!(client.times_downloaded("<message.7@"), 0);
    let uidls = dovecot.uidl(USER);
    assert_eq!(uidls[..7], uidl_of(1..=7));
    assert_eq!(client.times_downloaded("<message.16@"), 1);
}

/// A client that searches the listing by halves, as fetchmail's daemon does in three of four polls.
/// It polled the old server before its seventh and last message came.
fn client_of_six() -> Option<Client> {
    let client = Client::new(Program::FetchmailByHalves, USER)?;
    let config = Config::default().uidl_format("UID%u-%v");
    let server = Dovecot::start(&Host::dovecot(Line::subject())?, config)?;
    let maildir = Maildir::create(server.mail(USER));
    deliver(&maildir, 1..=6);
    maildir.write_state("dovecot-uidlist", &uidlist(17, &maildir.files()));
    assert_eq!(client.poll(server.pop3()), 6);
    Some(client)
}

/// Eight new messages, the late one, one more; the client polls after each of these.
fn live_on(client: &Client, dovecot: &Dovecot, maildir: &Maildir, take_care: impl Fn(&Path)) {
    assert_eq!(client.poll(dovecot.pop3()), 0, "all six are kept");
    deliver(maildir, 8..=15);
    assert_eq!(client.poll(dovecot.pop3()), 8);
    let late = deliver(maildir, 7..=7).pop().unwrap();
    take_care(&late);
    client.poll(dovecot.pop3());
    deliver(maildir, 16..=16);
    client.poll(dovecot.pop3());
}

fn deliver(maildir: &Maildir, numbers: impl IntoIterator<Item = u32>) -> Vec<PathBuf> {
    let deliver = |number| maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    numbers.into_iter().map(deliver).collect()
}

/// Writes UIDL and old place of a message into `dovecot-uidlist`, where it has a UID already.
fn bake(maildir: &Maildir, file: &Path, number: u32) {
    let list = fs::read_to_string(maildir.path().join("dovecot-uidlist")).unwrap();
    let (end, baked) = (format!(" :{}\n", base(file)), format!(" P{} O{number}", uidl(number)));
    assert_eq!(list.matches(&end).count(), 1, "{list}");
    maildir.write_state("dovecot-uidlist", &list.replace(&end, &(baked + &end)));
}
