//! UIDLs that a client may hold already: never given to another message.

use std::fs;

use super::scenario::{Listing, Scenario, USER, base, by_file, uidl, uidl_of, uidlist};
use crate::support::dovecot::{Config, Store};
use crate::support::host::Line;
use crate::support::mail::Message;
use crate::support::maildir::Naming;

const COUNTING: &str = "UID%u-%v";

/// The old server's next number.
const COUNTER: u32 = 10;
/// The first number that it cannot have given: it goes on counting while DNS is slow.
const UNSPENT: u32 = COUNTER + 65_536;

/// Rule 6: every number below the old next number and 65,536 more is spent, and the mailbox's next
/// UID is raised past them. The new server counts on in the old one's form and under its
/// UIDVALIDITY, but it has only counted to 6: the old one had given out three more, and goes on.
#[test]
fn a_number_that_the_old_server_gave_is_never_given_again_with_the_plugin_or_after_it() {
    let config = Config::default().uidl_format(COUNTING).with_plugin();
    let Some(mut moved) = Scenario::begin_with(Line::subject(), config) else { return };
    let maildir = moved.maildir();
    for number in 1..=6 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let files = maildir.files();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &files));
    moved.capture(&Listing::of_files(&files).field(&format!("counter {COUNTER} {COUNTING}")));
    maildir.deliver(&Message::plain(7), Naming::Qmail, 7);

    let hidden = moved.uidls_without_us(Some(COUNTING));
    assert_eq!(hidden[6], uidl(7), "Dovecot alone gives a number that is taken");

    let uidls = moved.uidls();
    assert_eq!(uidls[..6], uidl_of(1..=6));
    assert!(uidls[6].starts_with('~') && uidls[6].ends_with('~'), "{uidls:?}");
    assert_eq!(moved.next_uid(), UNSPENT);
    moved.receive(&Message::plain(8));
    let with_new = [&uidls[..], &[uidl(UNSPENT)]].concat();
    assert_eq!(moved.uidls(), with_new);

    moved.take_the_plugin_out();
    moved.receive(&Message::plain(9));
    assert_eq!(moved.uidls(), [&with_new[..], &[uidl(UNSPENT + 1)]].concat());
}

/// Rule 6: with the file name in the format, new mail gets its native UIDL at a first listing too,
/// also where Dovecot must mend its list first: one of these has an empty GUID.
#[test]
fn new_mail_is_told_its_file_name_at_a_first_listing() {
    let config = Config::default().uidl_format("%f").with_plugin();
    let Some(moved) = Scenario::begin_with(Line::subject(), config) else { return };
    let maildir = moved.maildir();
    for number in 1..=3 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let files = maildir.files();
    let list = uidlist(17, &files).replace("\n2 :", "\n2 G :");
    maildir.write_state("dovecot-uidlist", &list);
    moved.capture(&Listing::of_files(&files[..1]));
    assert_eq!(moved.uidls(), [&uidl(1), base(&files[1]), base(&files[2])]);
}

/// The same where dsync filled an mdbox, which takes the UIDVALIDITY and the UIDs along.
fn counts_on_in_mdbox(line: Line, counting: &'static str) {
    let config = Config::default().uidl_format(counting).store(Store::Mdbox).with_plugin();
    let Some(moved) = Scenario::begin_with(line, config) else { return };
    let old = moved.old_maildir(1..=6);
    let files = old.files();
    old.write_state("dovecot-uidlist", &uidlist(17, &files));
    moved.capture(&Listing::of_files(&files).field(&format!("counter {COUNTER} {counting}")));
    let source = format!("maildir:{}", moved.dovecot.inside(old.path()).display());
    moved.dovecot.doveadm_with_us_ok(["backup", "-R", "-u", USER, &source]);
    assert_eq!(moved.next_uid(), 7);
    moved.receive(&Message::plain(7));

    let hidden = moved.uidls_without_us(Some(counting));
    assert_eq!(hidden[6], uidl(7), "Dovecot alone gives a number that is taken");

    let uidls = moved.uidls();
    assert_eq!(uidls[..6], uidl_of(1..=6));
    assert!(uidls[6].starts_with('~'), "{uidls:?}");
    assert_eq!(moved.next_uid(), UNSPENT);
    moved.receive(&Message::plain(8));
    assert_eq!(moved.uidls(), [&uidls[..], &[uidl(UNSPENT)]].concat());
}

#[test]
fn a_number_that_the_old_server_gave_is_never_given_again_in_mdbox() {
    counts_on_in_mdbox(Line::subject(), COUNTING);
}

#[test]
fn a_number_that_the_old_server_gave_is_never_given_again_on_dovecot_2_4() {
    counts_on_in_mdbox(Line::V24, "UID%{uid}-%{uidvalidity}");
}

/// Rule 6: every single UIDL that a client may know is spent as well, also of messages long gone.
#[test]
fn a_uidl_of_a_message_long_gone_is_never_given_again() {
    let config = Config::default().uidl_format(COUNTING).with_plugin();
    let Some(moved) = Scenario::begin_with(Line::subject(), config) else { return };
    let maildir = moved.maildir();
    maildir.deliver(&Message::plain(1), Naming::Qmail, 1);
    let files = maildir.files();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &files));
    // There is no `counter`: only single UIDLs of the server are known.
    moved.capture(&Listing::of_files(&files).field("spent UID2-17").field("spent UID40-17"));
    maildir.deliver(&Message::plain(2), Naming::Qmail, 2);

    assert_eq!(moved.uidls_without_us(Some(COUNTING))[1], uidl(2));

    let uidls = moved.uidls();
    assert!(uidls[1].starts_with('~'), "{uidls:?}");
    assert_eq!(moved.next_uid(), 41);
}

/// Rule 6: a sender's `X-UIDL` is never obeyed. A sender who knows another's UIDLs could hide a
/// mail from him, and the message that has the UIDL and is copied late would be lost.
fn obeys_no_x_uidl(line: Line, store: Store) {
    let extra = "pop3_reuse_xuidl = yes\n".to_owned();
    let config = Config { extra, ..Config::default() }.store(store).with_plugin();
    let Some(moved) = Scenario::begin_with(line, config) else { return };
    let old = moved.old_maildir(1..=2);
    let files = old.files();
    // The second is not copied.
    fs::remove_file(&files[1]).unwrap();
    moved.copy_files(&old);
    moved.capture(&Listing::of_files(&files));
    moved.receive(&from_sender(3, "UID2-17"));
    moved.receive(&from_sender(4, "UID1-17"));

    let obeyed = moved.uidls_without_us(None);
    assert_eq!(obeyed[1..], ["UID2-17", "UID1-17"], "Dovecot alone obeys");

    let uidls = moved.uidls();
    assert_eq!(uidls[0], "UID1-17");
    assert!(uidls[1].starts_with("00000002") && uidls[2].starts_with("00000003"), "{uidls:?}");
    moved.receive(&from_sender(5, "UID2-17"));
    let with_new = moved.uidls();
    assert_eq!(with_new[..3], uidls);
    assert!(with_new[3].starts_with("00000004"), "{with_new:?}");
}

#[test]
fn a_senders_x_uidl_is_not_obeyed_on_maildir() {
    obeys_no_x_uidl(Line::subject(), Store::Maildir);
}

#[test]
fn a_senders_x_uidl_is_not_obeyed_on_mdbox() {
    obeys_no_x_uidl(Line::subject(), Store::Mdbox);
}

#[test]
fn a_senders_x_uidl_is_not_obeyed_on_dovecot_2_4() {
    obeys_no_x_uidl(Line::V24, Store::Maildir);
    obeys_no_x_uidl(Line::V24, Store::Mdbox);
}

/// None is obeyed once the plugin is out, either, for what was listed was baked.
#[test]
fn an_x_uidl_that_was_not_obeyed_is_not_obeyed_after_the_plugin() {
    let extra = "pop3_reuse_xuidl = yes\n".to_owned();
    let config = Config { extra, ..Config::default() }.with_plugin();
    let Some(mut moved) = Scenario::begin_with(Line::subject(), config) else { return };
    let maildir = moved.maildir();
    let file = maildir.deliver(&Message::plain(1), Naming::Qmail, 1);
    moved.capture(&Listing::new().message(&uidl(1), &by_file(&file)));
    maildir.deliver(&from_sender(2, "UID1-17"), Naming::Qmail, 2);
    let uidls = moved.uidls();
    assert_ne!(uidls[1], "UID1-17");
    moved.take_the_plugin_out();
    assert_eq!(moved.uidls(), uidls);
    assert_eq!(moved.dovecot.uidl(USER), uidls);
}

fn from_sender(number: u32, uidl: &str) -> Message {
    let octets = [format!("X-UIDL: {uidl}\n").into_bytes(), Message::plain(number).octets].concat();
    Message { octets }
}
