//! A UIDL that Dovecot's storage has travels, and the ledger does not: dsync to another store, to a
//! new location, to another node.

use super::DBOXES;
use super::client::Client;
use super::copies::{LEDGER, MARK, copy_whole, is_warm};
use super::scenario::{Listing, Scenario, USER, by_header, by_message, uidl, uidl_of};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::helper;
use crate::support::host::{Host, Line, asked};
use crate::support::mail::Message;

const EVERY_WAY: [(Line, Store); 4] = [
    (Line::V23, Store::Mdbox),
    (Line::V23, Store::Sdbox),
    (Line::V24, Store::Mdbox),
    (Line::V24, Store::Maildir),
];

/// A server with the plugin whose maildrop has these messages, copied by IMAP: they are known by
/// their headers alone. A client of the old server holds the first four.
fn begin(line: Line, config: Config, messages: &[u32]) -> Option<(Scenario, Client)> {
    let moved = Scenario::begin_with(line, config.with_plugin())?;
    for &number in messages {
        moved.receive(&Message::plain(number));
    }
    Some((moved, Client::of_the_old_server(1..=4)))
}

/// The old server's listing of the first so many messages.
fn listing(count: u32) -> Listing {
    (1..=count).fold(Listing::new(), |listing, number| {
        listing.message(&uidl(number), &by_header(&Message::plain(number)))
    })
}

/// Another server with the plugin, an empty maildrop and that site.
fn other(line: Line, config: Config, listing: &Listing) -> Option<Scenario> {
    let moved = Scenario::begin_with(line, config.with_plugin())?;
    moved.capture(listing);
    moved.dovecot.home(USER);
    Some(moved)
}

/// Brings the maildrop over as a panel does, whose Dovecot has never heard of us.
fn dsync(line: Line, from: &Scenario, to: &Scenario) {
    let panel = Dovecot::start(&Host::dovecot(line).expect("there before"), Config::default());
    let panel = panel.expect("needs no plugin");
    panel.home(USER);
    copy_whole(&from.dovecot.mail(USER), &panel.mail(USER));
    let place = to.dovecot.inside(&to.dovecot.mail(USER));
    let target = format!("{}:{}", to.store().word(), place.display());
    panel.doveadm_ok(["sync", "-1", "-u", USER, &target]);
}

/// Two copies of one message: the first was kept and deleted since; the second has a UIDL of its
/// own, and its header is still that of the captured one.
#[test]
fn what_storage_says_was_told_is_told_again_where_a_header_says_otherwise() {
    for (line, store) in asked(EVERY_WAY) {
        let Some((moved, mut client)) = begin(line, Config::default(), &[1, 2, 2, 3, 4]) else {
            continue;
        };
        moved.capture(&listing(4));
        assert_eq!(client.poll(&moved), [2], "the second of two copies is one too many, once");
        moved.delete(2);
        let told = moved.uidls();
        assert_eq!(told[..3], uidl_of([1, 3, 4]), "{told:?}");

        let config = Config::default().store(store);
        let Some(target) = other(line, config, &listing(4)) else { continue };
        dsync(line, &moved, &target);
        assert_eq!(target.uidls(), told, "{line:?} {store:?}");
        assert_eq!(client.poll(&target), [0; 0]);
        is_warm(&target);
        target.receive(&Message::plain(5));
        assert_eq!(client.poll(&target), [5]);
    }
}

/// The same holds after an rsync of the Maildir that left out our files.
#[test]
fn what_was_told_is_told_again_where_a_maildir_lost_our_files() {
    for line in Line::asked() {
        let Some((moved, mut client)) = begin(line, Config::default(), &[1, 2, 2, 3, 4, 5]) else {
            continue;
        };
        moved.capture(&listing(4));
        assert_eq!(client.poll(&moved), [2, 5]);
        moved.delete(2);
        let told = moved.uidls();
        for name in [LEDGER, MARK] {
            std::fs::remove_file(moved.maildir().path().join(name)).expect("root");
        }
        assert_eq!(moved.uidls(), told, "{line:?}");
        assert_eq!(client.poll(&moved), [0; 0]);
        is_warm(&moved);
        moved.receive(&Message::plain(6));
        assert_eq!(client.poll(&moved), [6]);
    }
}

/// A number alone is no UIDL of Dovecot's for us, and so every new message has one of ours.
#[test]
fn what_was_told_of_numbers_alone_is_told_again() {
    for (line, store) in asked(EVERY_WAY) {
        let format = if line == Line::V23 { "UID%u" } else { "UID%{uid}" };
        let config = Config::default().uidl_format(format);
        let Some((moved, _)) = begin(line, config.clone(), &[1, 2, 2, 3, 4, 5]) else { continue };
        let listing = (1..=4).fold(
            Listing::new().field(&format!("counter 5 {format}")),
            |listing, number| {
                let uidl = format!("UID{number}");
                listing.message(&uidl, &by_header(&Message::plain(number)))
            },
        );
        moved.capture(&listing);
        let told = moved.uidls();
        assert_eq!(told[..4], ["UID1", "UID2", "UID3", "UID4"]);
        // These are the second of two copies, and the new one.
        assert!(told[4].starts_with('~') && told[5].starts_with('~'), "{told:?}");
        moved.delete(2);
        let told = moved.uidls();

        let Some(target) = other(line, config.store(store), &listing) else { continue };
        dsync(line, &moved, &target);
        assert_eq!(target.uidls(), told, "{line:?} {store:?}");
        // Two nodes that hold the same mail answer the same, whoever is asked first.
        moved.receive(&Message::plain(6));
        let told = moved.uidls();
        dsync(line, &moved, &target);
        assert_eq!(target.uidls(), told, "{line:?} {store:?}");
    }
}

/// A UIDL that storage had, and no entry, was told. A later capture brings its entry: that entry is
/// the message's, and no copy of it takes it.
#[test]
fn an_entry_that_comes_later_is_its_whose_uidl_was_told() {
    let Some((moved, mut client)) = begin(Line::subject(), Config::default(), &[1, 2, 3, 4]) else {
        return;
    };
    let uidlist = moved.maildir().path().join("dovecot-uidlist");
    moved.capture(&listing(3));
    moved.imap().command("SELECT INBOX");
    // dsync brought it along from the old server, as Dovecot's migration plugin has it.
    let list = std::fs::read_to_string(&uidlist).unwrap();
    let list = list.replace("\n4 ", &format!("\n4 P{} ", uidl(4)));
    moved.maildir().write_state("dovecot-uidlist", &list);
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    assert_eq!(client.poll(&moved), [0; 0]);

    moved.receive(&Message::plain(4));
    moved.install(&listing(4), &["--final"]);
    assert_eq!(client.poll(&moved), [4], "a second copy is a message of its own");
    assert_eq!(moved.uidls()[..4], uidl_of(1..=4));
    moved.delete(4);
    moved.receive(&Message::plain(5));
    assert_eq!(client.poll(&moved), [5]);
    assert!(!moved.uidls().contains(&uidl(4)), "its message is gone");
}

/// The guard looks for captured messages, and here most of them are gone because their user deleted
/// them: only a person who knows that clients have listed the maildrop before can say so. UIDLs in
/// storage say nothing, for a half-copied Dovecot has them too.
#[test]
fn who_had_deleted_most_is_served_after_dsync_once_he_is_noted_as_listed() {
    for (line, store) in asked(EVERY_WAY) {
        let Some((moved, _)) = begin(line, Config::default(), &[1, 2, 3, 4, 5, 6]) else {
            continue;
        };
        let listing = listing(6);
        moved.capture(&listing);
        assert_eq!(moved.uidls(), uidl_of(1..=6));
        for number in [6, 5, 3, 2] {
            moved.delete(number);
        }
        let Some(target) = other(line, Config::default().store(store), &listing) else { continue };
        dsync(line, &moved, &target);
        target.refusal();
        let site = target.dovecot.site();
        helper::run(helper::uidl_keep().args(["listed", "--site"]).arg(&site).arg(USER));
        helper::give_to_reader(&site);
        assert_eq!(target.uidls(), uidl_of([1, 4]), "{line:?} {store:?}");
        is_warm(&target);
    }
}

/// A `P` of an earlier conversion that is another entry's loses to the content that contradicts it.
#[test]
fn a_stored_uidl_of_another_entry_loses_to_the_content() {
    let Some((moved, mut client)) = begin(Line::subject(), Config::default(), &[1, 2, 3, 4]) else {
        return;
    };
    let listing = (1..=4).fold(Listing::new(), |listing, number| {
        listing.message(&uidl(number), &by_message(&Message::plain(number)))
    });
    moved.capture(&listing);
    moved.imap().command("SELECT INBOX");
    let uidlist = moved.maildir().path().join("dovecot-uidlist");
    let list = std::fs::read_to_string(&uidlist).unwrap();
    let list = list
        .replace("\n1 ", &format!("\n1 P{} ", uidl(2)))
        .replace("\n2 ", &format!("\n2 P{} ", uidl(1)));
    moved.maildir().write_state("dovecot-uidlist", &list);
    assert_eq!(client.poll(&moved), [0; 0]);
    assert_eq!(moved.uidls(), uidl_of(1..=4));
}

/// A copy made by IMAP has the GUID of its original. dsync takes both for one message, and makes a
/// copy of the one that an earlier pass brought, `P` and all.
#[test]
fn a_copy_that_shares_a_guid_goes_out_with_its_own_uidl() {
    for (line, store) in asked(DBOXES) {
        let config = Config::default().store(Store::Mdbox);
        let Some((moved, _)) = begin(line, config, &[1, 2, 3]) else { continue };
        moved.capture(&listing(3));
        assert_eq!(moved.uidls(), uidl_of(1..=3), "{line:?} {store:?}");
        let host = Host::dovecot(line).expect("there before");
        let target = Dovecot::start(&host, Config::default().store(store));
        let target = target.expect("needs no plugin");
        target.home(USER);
        let place = target.inside(&target.mail(USER));
        let place = format!("{}:{}", store.word(), place.display());
        let backup = || moved.dovecot.doveadm_with_us_ok(["backup", "-u", USER, &place]);
        backup();

        let mut session = moved.imap();
        session.command("SELECT INBOX");
        session.command("UID COPY 2 INBOX");
        session.logout();
        let uidls = moved.uidls();
        for pass in ["with the copy", "and again"] {
            backup();
            assert_eq!(target.uidl(USER), uidls, "{line:?} {store:?}: {pass}");
        }
        // The GUID that dsync was told of the copy stays when the original goes.
        moved.delete(2);
        let left = moved.uidls();
        assert_eq!(left, [&uidls[..1], &uidls[2..]].concat(), "{line:?} {store:?}");
        backup();
        assert_eq!(target.uidl(USER), left, "{line:?} {store:?}: the original is deleted");
    }
}
