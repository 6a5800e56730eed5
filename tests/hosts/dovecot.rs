//! The plugin in a real Dovecot: POP3 clients, doveadm and the log, for each standing of a user.

use std::fs;

use crate::support::dovecot::{Config, Dovecot};
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{LATER, Listing, MOVING, Scenario, USER, uidl_of};

#[test]
fn the_first_listing_is_baked_and_the_plugin_can_go() {
    let Some(mut server) = Scenario::migrated(6) else { return };
    server.deliver();
    let first = server.uidls();
    assert_eq!(first[..6], uidl_of(1..=6));
    let uidlist = fs::read_to_string(server.maildir().path().join("dovecot-uidlist")).unwrap();
    assert!(uidlist.contains("PUID6-17 O1048581 "), "{uidlist}");
    let host = Host::dovecot(Line::subject()).unwrap();
    let bare = Dovecot::start(&host, Config::default()).unwrap();
    let target = bare.mail(USER);
    Maildir::create(&target);
    let status = std::process::Command::new("cp")
        .args(["-a", "--", &format!("{}/.", server.maildir().path().display())])
        .arg(&target)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(bare.uidl(USER), first);
}

#[test]
fn doveadm_shows_what_clients_will_see_and_freezes_nothing() {
    let Some(server) = Scenario::migrated(3) else { return };
    assert_eq!(server.shown_by_doveadm(), uidl_of(1..=3));
    assert!(!server.ledger().exists());
    assert_eq!(server.uidls(), uidl_of(1..=3));
}

#[test]
fn a_user_who_is_not_on_the_roster_is_served_as_without_the_plugin() {
    let Some(server) = Scenario::migrated(2) else { return };
    let stranger = "bob@example.com";
    let maildir = Maildir::create(server.dovecot.mail(stranger));
    maildir.deliver(&Message::plain(1), Naming::Qmail, 1);
    let uidls = server.dovecot.uidl(stranger);
    assert!(uidls[0].starts_with("00000001") && uidls[0].len() == 16, "{uidls:?}");
    assert!(!maildir.path().join("uidl-keep.ledger").exists());
    assert_eq!(server.complaints(), [""; 0]);
}

#[test]
fn a_held_user_is_told_that_the_mailbox_is_being_moved_until_he_is_released() {
    let Some(server) = Scenario::migrated(2) else { return };
    server.gate(&["hold"]);
    assert_eq!(server.refusal(), MOVING);
    assert_eq!(server.complaints().len(), 1, "{:?}", server.complaints());
    // doveadm may be the program that moves the mailbox: it is told what is kept.
    assert_eq!(server.shown_by_doveadm(), uidl_of(1..=2));
    server.gate(&["release", "--unrehearsed"]);
    assert_eq!(server.uidls(), uidl_of(1..=2));
}

#[test]
fn a_failed_capture_is_refused_and_release_redownload_is_the_way_out() {
    let Some(server) = Scenario::migrated(2) else { return };
    server.capture(&Listing::failed("the disk was on fire"));
    assert_eq!(server.refusal(), LATER);
    assert!(server.complaints()[0].contains("the capture of alice@example.com failed"));
    server.gate(&["release", "--redownload"]);
    assert!(server.uidls()[0].starts_with("00000001"));
}

#[test]
fn a_half_copied_maildrop_is_refused_until_the_rest_is_there() {
    let Some(server) = Scenario::migrated(10) else { return };
    let files = server.maildir().files();
    let away = server.dovecot.dir().join("away");
    fs::create_dir(&away).unwrap();
    for file in &files[..6] {
        fs::rename(file, away.join(file.file_name().unwrap())).unwrap();
    }
    assert_eq!(server.refusal(), LATER);
    let complaints = server.complaints();
    let told = "10 messages were captured last, 4 are here, 4 of them recognised: finish the copy";
    assert!(complaints[0].contains(told), "{complaints:?}");
    assert!(!server.ledger().exists());
    for file in &files[..6] {
        fs::rename(away.join(file.file_name().unwrap()), file).unwrap();
    }
    assert_eq!(server.uidls(), uidl_of(1..=10));
}

#[test]
fn without_an_index_only_what_was_listed_is_served_and_nothing_is_invented() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    let away = server.dovecot.dir().join("index");
    fs::rename(server.index(), &away).unwrap();
    assert_eq!(server.refusal(), LATER);
    fs::rename(&away, server.index()).unwrap();
    assert_eq!(server.uidls(), uidl_of(1..=3));
    fs::rename(server.index(), &away).unwrap();
    assert_eq!(server.uidls(), uidl_of(1..=3), "the ledger has all of it");
    server.deliver();
    assert_eq!(server.refusal(), LATER);
    fs::rename(&away, server.index()).unwrap();
    assert_eq!(server.uidls()[..3], uidl_of(1..=3));
    let complaints = server.complaints();
    assert_eq!(complaints.len(), 2, "one line a refusal: {complaints:?}");
    assert!(complaints.iter().all(|line| line.contains("no index, but its roster names the user")));
}

#[test]
fn a_damaged_index_or_ledger_refuses_the_session_instead_of_inventing_uidls() {
    let Some(server) = Scenario::migrated(3) else { return };
    let whole = fs::read(server.index()).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x20;
    for bad in [&whole[..whole.len() - 1], &damaged[..], b""] {
        fs::write(server.index(), bad).unwrap();
        assert_eq!(server.refusal(), LATER);
    }
    fs::write(server.index(), &whole).unwrap();
    assert_eq!(server.uidls(), uidl_of(1..=3));
    let whole = fs::read(server.ledger()).unwrap();
    for at in [0, 9, 13, 40, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        fs::write(server.ledger(), &damaged).unwrap();
        assert_eq!(server.refusal(), LATER, "octet {at}");
    }
    fs::write(server.ledger(), &whole).unwrap();
    assert_eq!(server.uidls(), uidl_of(1..=3));
    assert_eq!(server.complaints().len(), 8);
}

#[test]
fn a_control_directory_that_cannot_be_written_still_serves_and_answers_alike() {
    let Some(server) = Scenario::migrated(3) else { return };
    // A directory lies in the lock's place: neither lock nor ledger can be had, whoever asks.
    fs::create_dir(server.maildir().path().join("uidl-keep.lock")).unwrap();
    for _ in 0..2 {
        assert_eq!(server.uidls(), uidl_of(1..=3));
        assert!(!server.ledger().exists());
    }
    assert!(server.complaints()[0].contains("cannot be written"));
}

#[test]
fn without_order_the_uidls_are_kept_and_dovecots_own_order_too() {
    let plugin = Some(vec!["order no"]);
    let Some(server) = Scenario::migrated_with(3, Config { plugin, ..Config::default() }) else {
        return;
    };
    assert_eq!(server.uidls(), uidl_of(1..=3));
    let uidlist = fs::read_to_string(server.maildir().path().join("dovecot-uidlist")).unwrap();
    assert!(uidlist.contains(" PUID3-17 ") && !uidlist.contains(" O"), "{uidlist}");
}

#[test]
fn where_mmap_is_disabled_the_index_is_read() {
    let config = Config { extra: "mmap_disable = yes\n".into(), ..Config::default() };
    let Some(server) = Scenario::migrated_with(3, config.with_plugin()) else { return };
    assert_eq!(server.uidls(), uidl_of(1..=3));
}

#[test]
fn what_storage_holds_against_the_rules_is_not_told_on_to_doveadm() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    assert_eq!(server.uidls(), uidl_of(1..=3));
    server.deliver();
    let doubled = fs::read_to_string(server.maildir().path().join("dovecot-uidlist")).unwrap();
    let name = server.maildir().files().into_iter().find(|f| !doubled.contains(base(f))).unwrap();
    let doubled = doubled.replacen(" N4 ", " N5 ", 1) + &format!("4 PUID1-17 :{}\n", base(&name));
    server.maildir().write_state("dovecot-uidlist", &doubled);
    assert_eq!(server.shown_by_doveadm(), ["UID1-17", "UID2-17", "UID3-17", ""]);
    assert_ne!(server.uidls()[3], "UID1-17");
}

fn base(file: &std::path::Path) -> &str {
    file.file_name().unwrap().to_str().unwrap().split(':').next().unwrap()
}

#[test]
fn new_mail_goes_behind_and_a_senders_x_uidl_is_not_obeyed() {
    let config = Config { extra: "pop3_reuse_xuidl = yes\n".into(), ..Config::default() };
    let Some(mut server) = Scenario::migrated_with(2, config.with_plugin()) else {
        return;
    };
    assert_eq!(server.uidls(), uidl_of(1..=2));
    server.delivered += 1;
    let mut message = Message::plain(server.delivered);
    message.octets = [b"X-UIDL: UID1-17\n".to_vec(), message.octets].concat();
    server.maildir().deliver(&message, Naming::Qmail, server.delivered);
    let uidls = server.uidls();
    assert_eq!(uidls[..2], uidl_of(1..=2));
    assert!(uidls[2].starts_with("00000003"), "{uidls:?}");
}
