//! A message has more than one name, and a UID is none.

use std::collections::HashSet;
use std::fs;

use super::EVERY_STORE;
use super::client::Client;
use super::copies::is_warm;
use super::scenario::{Listing, Scenario, USER, base, by_file, uidl, uidl_of, uidlist};
use crate::support::dovecot::{Config, Store};
use crate::support::host::{Line, asked};
use crate::support::mail::Message;
use crate::support::maildir::Naming;

/// Four messages of the old server, copied by name, and a client that has polled here once.
fn begin(line: Line, store: Store) -> Option<(Scenario, Client)> {
    let moved = Scenario::begin_with(line, Config::default().store(store).with_plugin())?;
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&old.files()));
    let mut client = Client::of_the_old_server(1..=4);
    assert_eq!(client.poll(&moved), [0; 0]);
    Some((moved, client))
}

fn imap<'a>(moved: &Scenario, commands: impl IntoIterator<Item = &'a str>) {
    let mut session = moved.imap();
    for command in commands {
        session.command(command);
    }
    session.logout();
}

/// Rule 2. On Maildir its new file has the old name as GUID: it has two names, and the list of UIDs
/// has the first of them.
#[test]
fn what_went_to_junk_and_back_is_known_by_either_name() {
    for (line, store) in asked(EVERY_STORE) {
        let Some((moved, mut client)) = begin(line, store) else { continue };
        imap(&moved, ["CREATE Junk", "SELECT INBOX", "MOVE 2 Junk", "SELECT Junk", "MOVE 1 INBOX"]);
        assert_eq!(client.poll(&moved), [0; 0], "{line:?} {store:?}");
        let told = moved.uidls();
        is_warm(&moved);
        is_baked(&moved, &told);
        // A login that comes finds UIDs that hold, and the next login is warm again.
        moved.receive(&Message::plain(5));
        assert_eq!(client.poll(&moved), [5]);
        is_warm(&moved);
        assert_eq!(moved.uidls()[..4], told);
    }
}

/// Names are looked at by transactions of ours of some hundred messages, and the login and dsync
/// see the same mail through all of them.
#[test]
fn names_of_more_messages_than_one_transaction_of_ours_takes_are_found() {
    const MANY: u32 = 600;
    for (line, store) in asked(EVERY_STORE) {
        let config = Config::default().store(store).with_plugin();
        let Some(moved) = Scenario::begin_with(line, config) else { continue };
        let old = moved.old_maildir(1..=MANY);
        moved.copy_files(&old);
        moved.capture(&Listing::of_files(&old.files()));
        assert_eq!(moved.uidls(), uidl_of(1..=MANY), "{line:?} {store:?}");
        is_warm(&moved);
        let guids = moved.dovecot.doveadm_ok(["fetch", "-u", USER, "guid", "all"]);
        let guids: HashSet<&str> = guids.lines().filter(|line| line.starts_with("guid")).collect();
        assert_eq!(guids.len(), MANY as usize, "{line:?} {store:?}");
        moved.receive(&Message::plain(MANY + 1));
        assert_eq!(moved.uidls()[..MANY as usize], uidl_of(1..=MANY), "{line:?} {store:?}");
    }
}

/// On Maildir each message's UIDL stands where Dovecot alone finds it.
#[track_caller]
fn is_baked(moved: &Scenario, told: &[String]) {
    if moved.store() == Store::Maildir {
        let list = fs::read_to_string(moved.maildir().path().join("dovecot-uidlist")).unwrap();
        for uidl in told {
            assert!(list.contains(&format!(" P{uidl} O")), "{uidl}: {list}");
        }
    }
}

/// A copy that was listed beside its original keeps UIDL and place when the original goes: its
/// names alone fit either.
#[test]
fn a_listed_copy_keeps_its_own_when_its_original_goes() {
    for (line, store) in asked(EVERY_STORE) {
        let Some((moved, mut client)) = begin(line, store) else { continue };
        imap(&moved, ["SELECT INBOX", "COPY 2 INBOX"]);
        assert_eq!(client.poll(&moved), [2], "{line:?} {store:?}");
        let told = moved.uidls();
        is_warm(&moved);
        moved.delete(2);
        let left = [&told[..1], &told[2..]].concat();
        assert_eq!(moved.uidls(), left, "{line:?} {store:?}");
        moved.receive(&Message::plain(5));
        assert_eq!(client.poll(&moved), [5]);
        assert_eq!(moved.uidls()[..4], left);
        is_warm(&moved);
    }
}

/// Only we have read the list of UIDs when a warm login begins. In it two names are exchanged, and
/// the baked UIDLs are gone; the files are as they were.
#[test]
fn names_that_were_exchanged_in_the_uidlist_exchange_no_uidls() {
    for line in Line::asked() {
        let Some((moved, mut client)) = begin(line, Store::Maildir) else { continue };
        is_warm(&moved);
        let path = moved.maildir().path().join("dovecot-uidlist");
        let list = fs::read_to_string(&path).unwrap();
        let (head, messages) = list.split_once('\n').expect("a header");
        let mut names: Vec<&str> =
            messages.lines().map(|line| line.split_once(" :").expect("a name").1).collect();
        names.swap(0, 1);
        let exchanged = (1..).zip(names).map(|(uid, name)| format!("{uid} :{name}\n"));
        let exchanged = format!("{head}\n{}", exchanged.collect::<String>());
        moved.maildir().write_state("dovecot-uidlist", &exchanged);
        assert_eq!(client.poll(&moved), [0; 0], "{line:?}");
        assert_eq!(moved.uidls(), uidl_of(1..=4));
        assert_eq!(client.poll(&moved), [0; 0], "{line:?}: at every later login too");
        is_warm(&moved);
    }
}

/// Evidence 3. The list of UIDs travelled, then both servers counted on; the last pass of rsync
/// took the newer of the two files. Three messages have UIDs of others, and names that one entry
/// has.
#[test]
fn a_uid_that_disagrees_does_not_outvote_a_name_that_one_entry_has() {
    for line in Line::asked() {
        let Some(moved) = Scenario::begin_with(line, Config::default().with_plugin()) else {
            continue;
        };
        let maildir = moved.maildir();
        for number in 1..=8 {
            maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
        }
        let files = maildir.files();
        let listing = (1..).zip(&files).fold(Listing::new(), |listing, (number, file)| {
            listing.message(&uidl(number), &format!("uid={number} {}", by_file(file)))
        });
        moved.capture(&listing);
        let mut other = files.clone();
        other[5..].rotate_left(1);
        maildir.write_state("dovecot-uidlist", &uidlist(17, &other));
        let mut client = Client::of_the_old_server(1..=8);
        assert_eq!(client.poll(&moved), [0; 0], "{line:?}");
        assert_eq!(moved.uidls(), uidl_of(1..=8));
        let log = moved.log().concat();
        assert!(!log.contains("disagree"), "{log}");
    }
}

/// If one name fits two entries, the UID says which.
#[test]
fn a_uid_chooses_between_entries_that_one_name_fits() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let maildir = moved.maildir();
    for number in 1..=2 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let files = maildir.files();
    // Two names differ after the first comma, and the copy has lost that part.
    let cut = base(&files[0]);
    let listing = Listing::new()
        .message(&uidl(3), &format!("uid=3 file={cut},S=1"))
        .message(&uidl(1), &format!("uid=1 file={cut},S=2"))
        .message(&uidl(2), &format!("uid=2 {}", by_file(&files[1])));
    moved.capture(&listing);
    maildir.write_state("dovecot-uidlist", &uidlist(17, &files));
    let listed = super::client::listing(&moved, USER);
    assert_eq!(listed, [(uidl(1), 1), (uidl(2), 2)]);
}
