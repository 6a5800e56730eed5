//! Mail in an mbox, compared with what the servers themselves listed and gave.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::shared::capture::{listed, remarks_on, spent, uidls};
use crate::support::dovecot::{Config, Dovecot, mail_at};
use crate::support::helper::uidl_keep;
use crate::support::host::{Host, Line};
use crate::support::maildir::give_to_owner;
use uidl_keep::capture;
use uidl_keep::capture::disk::mbox::server::MboxServer;
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::{Keys, MessageRead};
use uidl_keep::format::UidlFormat;
use uidl_keep::key::Depth;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::{Maildrop, Name, State};

fn dovecot(format: &str) -> MboxServer {
    MboxServer::Dovecot { format: UidlFormat::parse(format).unwrap() }
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mbox").join(name)
}

fn capture_at(path: &Path, server: MboxServer, keys: Keys) -> Captured {
    let source = Source::named("alice@example.com", path);
    capture::disk::server::capture(&capture::disk::server::ServerKind::Mbox(server), keys, &source)
}

/// Captures an mbox of this text.
fn captured(server: MboxServer, mbox: &str) -> Captured {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alice");
    fs::write(&path, mbox).unwrap();
    capture_at(&path, server, Keys::default())
}

/// A message that an MTA has appended, with these lines in its header.
fn appended(about: &str, header: &str) -> String {
    format!(
        "From a@example.net Mon May  6 10:06:40 2024\n\
         {header}Subject: {about}\n\nbody of {about}\n\n"
    )
}

fn all_keys() -> Keys {
    Keys { file: true, header: true, message: true, origin: true }
}

/// Compares the fingerprints with those of the answers to RETR.
fn assert_keys(maildrop: &Maildrop, given: impl Fn(usize) -> Option<Vec<u8>>) {
    for (number, entry) in (1..).zip(&maildrop.entries) {
        let Some(given) = given(number) else { continue };
        let of = MessageRead::read(&given[..], Depth::Message).unwrap().of;
        assert!(entry.header.is_some(), "{number}");
        let found = (entry.header, entry.origin, entry.message);
        assert_eq!(found, (of.header, of.origin, of.message), "{number}");
    }
}

#[test]
fn what_mailutils_wrote_is_captured_as_it_listed_and_gave_it() {
    let captured = capture_at(&sample("mailutils.mbox"), MboxServer::Mailutils, all_keys());
    assert_eq!(captured.losses, [""; 0]);
    assert_eq!(uidls(&captured.maildrop), listed("mbox/mailutils.uidl"));
    let retr = |number| fs::read(sample(&format!("mailutils.retr/{number:02}"))).ok();
    assert_keys(&captured.maildrop, |number| retr(number).filter(|_| number != 7));
    let seventh = MessageRead::read(&retr(7).unwrap()[..], Depth::Header).unwrap().of;
    assert_eq!(captured.maildrop.entries[6].header, seventh.header);
}

#[test]
fn what_dovecot_wrote_is_captured_as_it_listed_and_gave_it() {
    let captured = capture_at(&sample("dovecot.mbox"), dovecot("%08Xu%08Xv"), all_keys());
    assert_eq!(captured.losses, [""; 0]);
    let maildrop = captured.maildrop;
    assert_eq!(uidls(&maildrop), listed("mbox/dovecot.uidl"));
    assert_eq!(maildrop.uidvalidity, Some(1_795_469_259));
    assert_eq!(maildrop.counter.as_ref().unwrap().next, 13);
    let uids: Vec<u32> = maildrop.entries.iter().map(|entry| entry.uid.unwrap()).collect();
    assert_eq!(uids, (1..=12).collect::<Vec<u32>>());
    assert_keys(&maildrop, |number| {
        fs::read(sample(&format!("dovecot.retr/{number:02}"))).ok().filter(|_| number != 7)
    });
    // Dovecot's own %g and %m showed these; the two identical copies have one GUID, which names
    // none.
    let guids: Vec<_> = maildrop.entries[..4].iter().map(|entry| entry.guid.clone()).collect();
    let spelled = |guid: &str| Some(Name::Spelled(guid.as_bytes().into()));
    let first = spelled("98b461ae2ba4bcbfd013680e2ed4557c");
    assert_eq!(guids, [first, None, None, spelled("5b2a522c1d7cc7df43f0e7d92ada25ac")]);
}

#[test]
fn each_format_gives_what_dovecot_gave_for_the_same_mbox() {
    let mut compared = 0;
    for line in crate::shared::capture::data("dovecot/uidl-formats.txt").lines() {
        let fields: Vec<&str> = line.split(" | ").collect();
        let Ok(format) = UidlFormat::parse(fields[1]) else { continue };
        if fields[0] != "mbox" || fields[2].contains("Error") {
            continue;
        }
        let said: Vec<&str> = fields[2].split_whitespace().skip(1).step_by(2).collect();
        let server = MboxServer::Dovecot { format };
        let captured = capture_at(&sample("dovecot.mbox"), server, Keys::default()).maildrop;
        assert_eq!(uidls(&captured)[..4], said[..], "{}", fields[1]);
        compared += 1;
    }
    assert_eq!(compared, 7, "formats compared");
}

#[test]
fn popa3d_is_recomputed_as_popa3d_itself_computes_it() {
    for (mbox, list) in [("arrived.mbox", "popa3d.uidl"), ("odd.mbox", "odd.popa3d")] {
        let captured = capture_at(&sample(mbox), MboxServer::Popa3d, all_keys());
        assert_eq!(captured.losses, [""; 0]);
        assert_eq!(uidls(&captured.maildrop), listed(&format!("mbox/{list}")), "{mbox}");
        assert!(remarks_on(&captured, "have a unique-id that an earlier one has too"));
    }
}

/// The real one reads the odd mbox, and the mbox is captured with what the server wrote into it.
#[test]
fn dovecot_on_an_odd_mbox_lists_and_gives_what_is_captured() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    for mbox in ["odd.mbox", "arrived.mbox"] {
        let extra = mail_at(Line::subject(), "mbox", "~/mail", &[("INBOX", "~/inbox")]);
        let server = Dovecot::start(&host, Config { extra, ..Config::default() }).unwrap();
        let inbox = server.home("alice").join("inbox");
        fs::copy(sample(mbox), &inbox).unwrap();
        give_to_owner(&inbox);
        let mut session = server.login("alice").expect("the one password");
        let listed = session.uidl().unwrap();
        let given: Vec<Vec<u8>> =
            (1..=listed.len()).map(|number| session.retr(number).unwrap()).collect();
        session.quit().unwrap();
        let captured = capture_at(&inbox, dovecot("%08Xu%08Xv"), all_keys());
        assert_eq!(captured.losses, [""; 0]);
        assert_eq!(uidls(&captured.maildrop), listed, "{mbox}");
        assert_keys(&captured.maildrop, |number| Some(given[number - 1].clone()));
    }
}

#[test]
fn qpopper_takes_the_first_x_uidl_that_could_be_its_own() {
    let mbox = [
        appended("one", "X-UIDL: tooshort\nX-UIDL: !!\"#long.enough~\nX-UIDL: and.another.one\n"),
        appended("two", "X-UIDL: 0123456789abcdef0123456789abcdef\n"),
        appended("three", "X-UIDL: 0123456789abcdef0123456789abcdef0\n"),
        appended("four", ""),
    ];
    let captured = captured(MboxServer::Qpopper, &mbox.concat());
    assert_eq!(
        uidls(&captured.maildrop),
        ["!!\"#long.enough~", "0123456789abcdef0123456789abcdef"]
    );
    assert!(remarks_on(&captured, "2 messages without X-UIDL yet"));
}

#[test]
fn mailutils_takes_the_first_x_uidl_whatever_it_is() {
    let mbox = [
        appended("one", "X-UIDL: from.the.sender\nX-UIDL: another\n"),
        appended("two", "X-UIDL:\n folded\n"),
        appended("three", "X-UIDL: with a blank\n"),
    ];
    let captured = captured(MboxServer::Mailutils, &mbox.concat());
    assert_eq!(uidls(&captured.maildrop), ["from.the.sender", "folded"]);
    assert_eq!(captured.losses.len(), 1);
    assert!(captured.losses[0].starts_with("message 3: X-UIDL: "), "{:?}", captured.losses);
}

#[test]
fn the_note_that_c_client_keeps_is_no_message_to_dovecot_and_hidden_by_qpopper() {
    let note = "From MAILER-DAEMON Mon May  6 10:00:00 2024\n\
        From: Mail System Internal Data <a@b>\n\
        Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 17 0000000009\n\
        X-UIDL: of.the.note.itself\nStatus: RO\n\nThis text is part of the internal format.\n\n";
    let mbox = note.to_owned() + &appended("one", "X-UID: 3\nX-UIDL: of.the.message\n");
    let by_dovecot = captured(dovecot("%v.%u"), &mbox);
    assert_eq!(by_dovecot.losses, [""; 0]);
    assert_eq!(uidls(&by_dovecot.maildrop), ["17.3"]);
    assert_eq!(by_dovecot.maildrop.counter.unwrap().next, 10);
    let by_qpopper = captured(MboxServer::Qpopper, &mbox).maildrop;
    assert_eq!(uidls(&by_qpopper), ["of.the.message"]);
    assert_eq!(spent(&by_qpopper), ["of.the.note.itself"]);
    assert_eq!(captured(MboxServer::Popa3d, &mbox).maildrop.entries.len(), 2);
}

#[test]
fn a_uid_that_dovecot_would_not_take_is_none() {
    let base = "X-IMAPbase: 17 0000000009\n";
    let mbox = |uids: &[&str]| -> String {
        let uid = |at: usize, uid: &&str| {
            let header = format!("{}{uid}", if at == 0 { base } else { "" });
            appended(&at.to_string(), &header)
        };
        uids.iter().enumerate().map(|(at, value)| uid(at, value)).collect()
    };
    let captured_of = |uids: &[&str]| captured(dovecot("%u"), &mbox(uids));
    // The one after the last is taken; a larger one is a sender's.
    let pushed = captured_of(&["X-UID: 4  \n", "X-UID: 10\n", "X-UID: 99\n"]);
    assert_eq!(uidls(&pushed.maildrop), ["4", "10"]);
    assert_eq!(pushed.maildrop.counter.unwrap().next, 11);
    let second = captured_of(&["X-UID: 4\n", "X-UID: x\nX-UID: 5\n", "X-UID: 99\nX-UID: 6\n"]);
    assert_eq!(uidls(&second.maildrop), ["4", "5", "6"]);
    // UIDs grow; Dovecot never leaves a message without one before a message that has one.
    let falling = captured_of(&["X-UID: 4\n", "X-UID: 3\n", "X-UID: 5\n", ""]);
    assert_eq!(uidls(&falling.maildrop), ["4", "5"]);
    assert_eq!(falling.losses.len(), 1);
    assert!(falling.losses[0].starts_with("message 2: no X-UID"), "{:?}", falling.losses);
    assert!(remarks_on(&falling, "1 messages without X-UID yet"));
}

#[test]
fn mail_that_was_opened_by_another_server_is_a_failure_and_new_mail_is_not() {
    for server in [dovecot("%u"), MboxServer::Mailutils, MboxServer::Qpopper] {
        let new = captured(server.clone(), &appended("new", ""));
        assert_eq!((new.maildrop.state, new.losses.len()), (State::Empty, 0), "{server:?}");
        assert_eq!(new.maildrop.remarks.len(), 1);
        let seen = captured(server.clone(), &appended("seen", "Status: RO\n"));
        assert_eq!(seen.maildrop.state, State::Failed, "{server:?}");
        assert!(seen.losses[0].contains("did another server answer here"), "{:?}", seen.losses);
        let empty = captured(server.clone(), "");
        assert_eq!((empty.maildrop.state, empty.losses.len()), (State::Empty, 0), "{server:?}");
    }
}

#[test]
fn mail_that_was_opened_beside_mail_with_a_uidl_is_a_loss() {
    let other = "X-UIDL: of.its-sender\nStatus: RO\n";
    let mbox = [appended("has", other), appended("seen", "Status: RO\n"), appended("new", "")];
    let captured = captured(MboxServer::Mailutils, &mbox.concat());
    assert_eq!(captured.maildrop.entries.len(), 1);
    assert_eq!(captured.losses.len(), 1, "{:?}", captured.losses);
    assert!(captured.losses[0].starts_with("1 messages were opened and have no X-UIDL"));
}

#[test]
fn a_file_that_is_no_mbox_is_a_failure() {
    for server in [dovecot("%u"), MboxServer::Mailutils, MboxServer::Qpopper, MboxServer::Popa3d] {
        let captured = captured(server.clone(), "Subject: alone\n\nbody\n");
        assert_eq!(captured.maildrop.state, State::Failed, "{server:?}");
        assert!(captured.losses[0].contains("does not begin with a From line"));
    }
}

#[test]
fn an_mbox_is_not_captured_while_its_lock_or_a_session_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alice");
    fs::write(&path, appended("one", "X-UIDL: !!\"#long.enough~\n")).unwrap();
    let state = |server| capture_at(&path, server, Keys::default()).maildrop.state;
    let beside = dir.path().join(".alice.pop");
    fs::write(&beside, "").unwrap();
    assert_eq!(state(MboxServer::Qpopper), State::Captured);
    fs::write(&beside, "mail").unwrap();
    assert_eq!(
        (state(MboxServer::Qpopper), state(MboxServer::Popa3d)),
        (State::Failed, State::Captured)
    );
    fs::remove_file(beside).unwrap();
    symlink("4711", dir.path().join("alice.lock")).unwrap();
    let locked = capture_at(&path, MboxServer::Popa3d, Keys::default());
    assert!(locked.losses[0].starts_with("alice is in use: "), "{:?}", locked.losses);
    fs::remove_file(dir.path().join("alice.lock")).unwrap();
    assert_eq!(
        (state(MboxServer::Qpopper), state(MboxServer::Popa3d)),
        (State::Captured, State::Captured)
    );
}

fn run(args: &[&str]) -> Output {
    uidl_keep().args(["capture", "mbox"]).args(args).output().unwrap()
}

#[test]
fn a_whole_spool_is_captured_and_its_locks_are_no_users() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("var/mail");
    fs::create_dir_all(&spool).unwrap();
    for user in ["alice", "bob", "carol.lock"] {
        fs::write(spool.join(user), appended(user, "")).unwrap();
    }
    fs::write(spool.join("bob.lock"), "4711").unwrap();
    fs::create_dir(spool.join("dave")).unwrap();
    let ran = run(&[
        "--server",
        "popa3d",
        "--root",
        dir.path().to_str().unwrap(),
        "--pattern",
        "/var/mail/{user}",
        "--user-template",
        "{user}@example.com",
    ]);
    let blocks: Vec<Maildrop> = Reader::new(&ran.stdout[..]).map(|block| block.unwrap()).collect();
    let states: Vec<_> = blocks.iter().map(|block| (&block.user[..], block.state)).collect();
    assert_eq!(
        states,
        [
            ("alice@example.com", State::Captured),
            ("bob@example.com", State::Failed),
            ("carol.lock@example.com", State::Captured),
            ("dave@example.com", State::Failed),
        ]
    );
    assert_eq!(ran.status.code(), Some(1));
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(said.contains("dave is not a regular file"), "{said}");
}

#[test]
fn what_cannot_be_asked_for_is_refused_with_the_reason() {
    let path = sample("arrived.mbox");
    let path = path.to_str().unwrap();
    let refused = |args: &[&str]| {
        let ran = run(&[args, &["--user", "alice", path]].concat());
        assert_eq!(ran.status.code(), Some(2), "{args:?}");
        assert!(ran.stdout.is_empty());
        String::from_utf8(ran.stderr).unwrap()
    };
    assert!(refused(&["--server", "dovecot"]).contains("--format"));
    assert!(refused(&["--server", "popa3d", "--format", "%u"]).contains("--server dovecot"));
    assert!(refused(&["--server", "popa3d", "--keys", "file"]).contains("take header"));
    assert!(refused(&[]).contains("--server"));
    let mistyped = run(&["--server", "popa3d", "--user", "alice", "/var/empty/none/alice"]);
    assert_eq!(mistyped.status.code(), Some(2));
}
