//! Faults that need not close the login: one message that cannot be read, a ledger that cannot be
//! written, a lock that nobody holds. The login is served with the kept UIDLs, and the log says
//! what an operator can mend.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::dovecot::Config;
use crate::support::faults::{STRANGER, lock_away};
use crate::support::host::unix_mode;
use crate::support::mail::Message;
use crate::support::maildir::{Naming, give_to_owner, make_owned};
use crate::support::scenario::{LATER, Scenario, USER, complaints_in, uidl_of};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// The listing, which must be served, as the operator reads it: its UIDLs, and our complaints.
#[track_caller]
fn served(server: &Scenario) -> (Vec<String>, Vec<String>) {
    let before = server.dovecot.settled_log().len();
    let uidls = server.uidls();
    (uidls, complaints_in(&server.dovecot.settled_log().split_off(before)))
}

/// Insists on one line of ours, which has all the words.
#[track_caller]
fn says(complaints: &[String], words: &[&str]) {
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    for word in words {
        assert!(complaints[0].contains(word), "no {word:?} in {}", complaints[0]);
    }
}

#[test]
fn one_unreadable_message_gets_a_uidl_for_the_session_and_its_own_when_it_can_be_read() {
    let Some(server) = Scenario::migrated_by_content(6) else { return };
    let file = server.maildir().files().remove(1);
    lock_away(&file);
    for _ in 0..2 {
        let (uidls, complaints) = served(&server);
        assert_eq!(uidls[..5], uidl_of([1, 3, 4, 5, 6]));
        let passing = &uidls[5];
        assert!(passing.starts_with('~') && passing.ends_with('~'), "{passing}");
        says(&complaints, &["UID 2 cannot be read", "Permission denied", "this session only"]);
    }
    let mut session = server.dovecot.login(USER).unwrap();
    assert_eq!(session.retr(1).unwrap(), Message::plain(1).on_the_wire());
    drop(session);
    give_to_owner(&file);
    let (uidls, complaints) = served(&server);
    // It comes behind what has been listed: no place is given twice.
    assert_eq!(uidls, uidl_of([1, 3, 4, 5, 6, 2]));
    assert_eq!(complaints, [""; 0]);
    server.ends_well();
}

#[test]
fn a_message_that_need_not_be_read_may_be_unreadable() {
    let Some(mut server) = Scenario::migrated(0) else { return };
    for number in 1..=3 {
        server.maildir().deliver(&Message::plain(number), Naming::Dovecot, number);
    }
    server.delivered = 3;
    server.capture_first(3);
    server.maildir().files().iter().for_each(|file| lock_away(file));
    assert_eq!(served(&server), (uidl_of(1..=3), Vec::new()));
    server.ends_well();
}

/// A file system of its own, with room for little. It is gone when it is dropped.
struct Small {
    at: PathBuf,
}

impl Small {
    /// `None`, having said so, if nothing may be mounted.
    fn mount(at: PathBuf) -> Option<Self> {
        make_owned(&at);
        let options = format!("size=128k,mode=755,uid={0},gid={0}", crate::support::OWNER);
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at }),
            other => {
                eprintln!("skipped: no tmpfs can be mounted here: {other:?}");
                None
            }
        }
    }

    fn fill(&self) -> PathBuf {
        let filler = self.at.join("filler");
        let mut file = File::create(&filler).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        filler
    }

    fn ledgers(&self) -> usize {
        let found =
            Command::new("find").arg(&self.at).args(["-name", "*.ledger*"]).output().unwrap();
        found.stdout.iter().filter(|&&octet| octet == b'\n').count()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn a_full_disk_serves_the_kept_uidls_and_lets_mail_be_deleted() {
    let extra = "mail_location = maildir:~/Maildir:CONTROL=~/small/control:INDEX=~/small/index\n";
    let config = Config { extra: extra.into(), ..Config::default() }.with_plugin();
    let Some(mut server) = Scenario::migrated_with(5, config) else { return };
    let Some(small) = Small::mount(server.dovecot.home(USER).join("small")) else { return };
    // What is mounted is seen by what starts from now on.
    server.dovecot.restart_with(extra);
    // Dovecot numbers the messages while it can.
    assert_eq!(server.shown_by_doveadm(), uidl_of(1..=5));
    let filler = small.fill();
    for _ in 0..2 {
        let (uidls, complaints) = served(&server);
        assert_eq!(uidls, uidl_of(1..=5));
        let unwritten = |line: &&String| {
            let what =
                "uidl-keep.ledger: cannot be written (no room for its mark: No space left on";
            line.contains(what)
        };
        assert_eq!(complaints.iter().filter(unwritten).count(), 1, "{complaints:#?}");
    }
    let mut session = server.dovecot.login(USER).unwrap();
    session.dele(2).unwrap();
    session.quit().unwrap();
    assert_eq!(served(&server).0, uidl_of([1, 3, 4, 5]));
    assert_eq!(small.ledgers(), 0);
    fs::remove_file(filler).unwrap();
    assert_eq!(served(&server), (uidl_of([1, 3, 4, 5]), Vec::new()));
    assert_eq!(small.ledgers(), 1);
    // It goes before the directory in which it is mounted.
    drop(small);
    server.ends_well();
}

#[test]
fn over_quota_the_kept_uidls_are_served_and_mail_can_be_deleted() {
    let extra = "protocol pop3 {\n  mail_plugins = quota uidl_keep\n}\n\
                 protocol doveadm {\n  mail_plugins = quota\n}\n\
                 plugin {\n  quota = maildir:User quota\n  quota_rule = *:storage=1K\n}\n";
    let config = Config { extra: extra.into(), ..Config::default() }.with_plugin();
    let Some(server) = Scenario::migrated_with(5, config) else { return };
    let message = server.dovecot.dir().join("message");
    fs::write(&message, Message::plain(6).octets).unwrap();
    let saved = server.dovecot.doveadm(["save", "-u", USER, message.to_str().unwrap()]);
    let said = String::from_utf8(saved.stderr).unwrap();
    assert!(!saved.status.success() && said.to_lowercase().contains("quota"), "{said}");
    assert_eq!(served(&server), (uidl_of(1..=5), Vec::new()));
    assert!(server.ledger().exists());
    let mut session = server.dovecot.login(USER).unwrap();
    session.dele(2).unwrap();
    session.quit().unwrap();
    assert_eq!(served(&server), (uidl_of([1, 3, 4, 5]), Vec::new()));
    server.ends_well();
}

#[test]
fn a_directory_that_the_account_may_not_write_serves_the_kept_uidls() {
    let Some(server) = Scenario::migrated(4) else { return };
    assert_eq!(server.shown_by_doveadm(), uidl_of(1..=4));
    fs::set_permissions(server.maildir().path(), unix_mode(0o555)).unwrap();
    for _ in 0..2 {
        let (uidls, complaints) = served(&server);
        assert_eq!(uidls, uidl_of(1..=4));
        says(&complaints, &["uidl-keep.ledger", "Permission denied", "served without a ledger"]);
    }
    assert!(!server.ledger().exists());
    fs::set_permissions(server.maildir().path(), unix_mode(0o755)).unwrap();
    assert_eq!(served(&server), (uidl_of(1..=4), Vec::new()));
    assert!(server.ledger().exists());
    server.ends_well();
}

#[test]
fn a_ledger_that_cannot_be_replaced_serves_the_kept_uidls() {
    let Some(mut server) = Scenario::migrated(4) else { return };
    assert_eq!(served(&server), (uidl_of(1..=4), Vec::new()));
    let chattr = |how: &str| Command::new("chattr").arg(how).arg(server.ledger()).output();
    if !chattr("+i").is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file can be made immutable here");
        return;
    }
    let ledger = server.ledger();
    let mutable = Finally(|| {
        let _ = Command::new("chattr").arg("-i").arg(&ledger).status();
    });
    server.deliver();
    let mut listings = Vec::new();
    for _ in 0..2 {
        let (uidls, complaints) = served(&server);
        says(&complaints, &["uidl-keep.ledger", "cannot be written", "Operation not permitted"]);
        listings.push(uidls);
    }
    assert_eq!(listings[0][..4], uidl_of(1..=4));
    drop(mutable);
    let (uidls, complaints) = served(&server);
    listings.push(uidls);
    assert_eq!(complaints, [""; 0]);
    assert!(listings.iter().all(|listing| *listing == listings[0]), "{listings:?}");
    let left = fs::read_dir(server.maildir().path()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("uidl-keep.ledger.")
    });
    assert_eq!(left.count(), 0, "nothing half-written stays");
    server.ends_well();
}

/// It runs when it goes, also in a panic.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A process that holds the lock, until SIGKILL ends it.
struct Holder(Child);

impl Holder {
    fn of(lock: &Path) -> Self {
        let mut holder = Command::new("flock")
            .args(["--no-fork", "--exclusive"])
            .arg(lock)
            .args(["sh", "-c", "echo held; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
        Self(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_lock_is_waited_for_while_its_holder_lives_and_no_longer() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    assert_eq!(served(&server), (uidl_of(1..=3), Vec::new()));
    server.deliver();
    let holder = Holder::of(&server.maildir().path().join("uidl-keep.lock"));
    let (heard, complaints) = server.turned_away("the lock is held");
    // SIGKILL ends it: it lets go of nothing by itself.
    drop(holder);
    assert!(
        heard == format!("{LATER}\r\n") || heard.starts_with("-ERR [IN-USE] "),
        "one clean line: {heard}"
    );
    assert_eq!(heard.lines().count(), 1);
    says(&complaints, &["uidl-keep.l", "another session"]);
    let (uidls, complaints) = served(&server);
    assert_eq!((&uidls[..3], uidls.len(), complaints), (&uidl_of(1..=3)[..], 4, Vec::new()));
    server.ends_well();
}

#[test]
fn a_lock_that_cannot_be_had_serves_the_kept_uidls() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    let lock = server.maildir().path().join("uidl-keep.lock");
    type Way = (&'static str, fn(&Path));
    let ways: [Way; 5] = [
        ("another's", |lock| {
            fs::write(lock, "").unwrap();
            chown(lock, Some(STRANGER), Some(STRANGER)).unwrap();
            fs::set_permissions(lock, unix_mode(0o600)).unwrap();
        }),
        ("unreadable", |lock| {
            fs::write(lock, "").unwrap();
            fs::set_permissions(lock, unix_mode(0o000)).unwrap();
        }),
        ("a directory", |lock| fs::create_dir(lock).unwrap()),
        ("a symbolic link", |lock| symlink("/etc/passwd", lock).unwrap()),
        ("a FIFO of root's", |lock| {
            mknodat(CWD, lock, FileType::Fifo, Mode::from(0o600), 0).unwrap();
        }),
    ];
    for (name, bring) in ways {
        let _ = fs::remove_file(&lock);
        bring(&lock);
        server.deliver();
        for _ in 0..2 {
            let (uidls, complaints) = served(&server);
            assert_eq!(
                (&uidls[..3], uidls.len()),
                (&uidl_of(1..=3)[..], server.delivered as usize)
            );
            assert_eq!(complaints.len(), 1, "{name}: {complaints:#?}");
            assert!(complaints[0].contains("served without a ledger"), "{name}: {complaints:?}");
        }
        let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
        let (uidls, complaints) = served(&server);
        assert_eq!((uidls.len(), complaints), (server.delivered as usize, Vec::new()), "{name}");
    }
    server.ends_well();
}
