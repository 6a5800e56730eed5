//! A login is killed on its way, has a full disk, or is overtaken by another one: all that was
//! told, or written to be told, is told again by the next.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::dovecot::Store;
use crate::support::lacking;
use crate::support::mail::Message;
use crate::support::maildir::Naming;
use crate::support::pop3::Pop3;
use crate::support::scenario::{Scenario, USER, uidl_of};
use crate::support::traced::{Traced, can_trace, lists_under_strace};
use rustix::process::{Signal, kill_process};
use uidl_keep::ledger::{FIRST_ORDER, Ledger, Mark};

/// A Maildir of five captured messages.
fn five() -> Option<Scenario> {
    captured(5)
}

fn captured(count: u32) -> Option<Scenario> {
    let moved = Scenario::begin(Store::Maildir)?;
    for number in 1..=count {
        moved.maildir().deliver(&Message::plain(number), Naming::Dovecot, number);
    }
    moved.capture_first(count as usize);
    Some(moved)
}

/// The calls of a login from taking our lock to putting the ledger in its place: the name, the
/// number, and strace's line of each.
fn points_of_the_ledger(trace: &str) -> Vec<(String, usize, String)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut points = Vec::new();
    for line in trace.lines() {
        let Some((call, arguments)) = line.split_once('(') else { continue };
        let number = counts.entry(call.to_owned()).or_default();
        *number += 1;
        let is_on = !points.is_empty() || line.contains("uidl-keep.lock");
        let changes = call != "openat" || arguments.contains("O_CREAT");
        if is_on && changes {
            points.push((call.to_owned(), *number, line.to_owned()));
        }
        if call.starts_with("rename") && line.contains("uidl-keep.ledger") {
            return points;
        }
    }
    panic!("no ledger was written:\n{trace}");
}

const CHANGING: &str =
    "trace=openat,write,fchmod,fsync,?rename,?renameat,?renameat2,?unlink,?unlinkat";

#[test]
fn a_login_that_is_killed_while_it_writes_the_ledger_leaves_nothing_in_the_way() {
    let Some(moved) = five() else { return };
    let dovecot = &moved.dovecot;
    let trace = dovecot.home(USER).join("trace");
    if !lists_under_strace(dovecot, &trace, &["-e", CHANGING]) {
        lacking("there is no strace, or it may not trace");
        return;
    }
    let points = points_of_the_ledger(&fs::read_to_string(&trace).unwrap());
    assert!(points.len() >= 6, "{points:?}");
    for (call, number, line) in &points {
        for fault in ["signal=KILL", "error=ENOSPC"] {
            let at = format!("{fault} at {line}");
            let moved = five().unwrap();
            let (dovecot, maildir) = (&moved.dovecot, moved.maildir());
            let inject = format!("inject={call}:{fault}:when={number}");
            let options = ["-e", &format!("trace={call}"), "-e", &inject];
            let lists = lists_under_strace(dovecot, Path::new("/dev/null"), &options);
            // A login is not refused because nothing can be written: a user who is over quota must
            // delete.
            assert_eq!(lists, fault.contains("ENOSPC"), "{at}");
            for _ in 0..2 {
                let kept = uidl_of(1..=5);
                assert_eq!(dovecot.uidl(USER), kept, "{at}");
            }
            let names = fs::read_dir(maildir.path()).unwrap();
            let mut names: Vec<String> = names
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with("uidl-keep"))
                .collect();
            names.sort();
            assert_eq!(names, ["uidl-keep.ledger", "uidl-keep.lock"], "{at}");
            Ledger::decode(&fs::read(maildir.path().join("uidl-keep.ledger")).unwrap()).unwrap();
        }
    }
}

/// A first login that is killed once the client has its answers: the ledger is in its place, and
/// nothing is baked. `begin` makes the maildrop, once to look when that is.
fn killed_before_its_bake(begin: impl Fn() -> Option<Scenario>) -> Option<Scenario> {
    let looked_at = begin()?;
    let trace = looked_at.dovecot.home(USER).join("trace");
    if !lists_under_strace(&looked_at.dovecot, &trace, &["-e", "trace=openat"]) {
        lacking("there is no strace, or it may not trace");
        return None;
    }
    // The list of UIDs is about to be locked.
    let opened = fs::read_to_string(&trace).unwrap();
    let opened: Vec<&str> = opened.lines().filter(|line| line.starts_with("openat(")).collect();
    let locks = opened.iter().rposition(|line| line.contains("dovecot-uidlist.lock")).unwrap();
    let kill = format!("inject=openat:signal=KILL:when={}", locks + 1);
    let options = ["-e", "trace=openat", "-e", &kill];
    let killed = begin()?;
    assert!(lists_under_strace(&killed.dovecot, Path::new("/dev/null"), &options));
    assert!(killed.maildir().path().join("uidl-keep.ledger").exists());
    assert!(!uidlist_of(&killed).contains("PUID"), "{}", uidlist_of(&killed));
    Some(killed)
}

fn uidlist_of(moved: &Scenario) -> String {
    fs::read_to_string(moved.maildir().path().join("dovecot-uidlist")).unwrap()
}

#[test]
fn what_a_killed_session_did_not_bake_is_baked_by_the_next() {
    let Some(moved) = killed_before_its_bake(five) else { return };
    assert_eq!(moved.dovecot.uidl(USER).len(), 5);
    let uidlist = uidlist_of(&moved);
    for number in 1..=5 {
        let order = FIRST_ORDER + number - 1;
        assert!(uidlist.contains(&format!("PUID{number}-17 O{order} ")), "{uidlist}");
    }
}

/// The ledger is lost, too, and an old message comes late: a client that searches by halves looks
/// for it behind all that it knows.
#[test]
fn what_a_killed_session_told_stands_before_a_late_message_also_once_its_ledger_is_lost() {
    let all_but_the_sixth = || {
        let moved = captured(7)?;
        fs::remove_file(&moved.maildir().files()[5]).unwrap();
        Some(moved)
    };
    let Some(moved) = killed_before_its_bake(all_but_the_sixth) else { return };
    let maildir = moved.maildir();
    fs::remove_file(maildir.path().join("uidl-keep.ledger")).unwrap();
    maildir.deliver(&Message::plain(6), Naming::Dovecot, 6);
    let listed = moved.dovecot.uidl(USER);
    assert_eq!(listed, uidl_of([1, 2, 3, 4, 5, 7, 6]));
}

/// The results of reading messages are saved in steps: the next login goes on where the killed one
/// stood.
#[test]
fn what_a_killed_login_has_read_need_not_be_read_again() {
    const COUNT: u32 = 300;
    const READ: usize = 200;
    let Some(server) = Scenario::migrated_by_content(COUNT) else { return };
    let trace = server.dovecot.home(USER).join("trace");
    if !lists_under_strace(&server.dovecot, &trace, &["-e", "trace=openat"]) {
        lacking("there is no strace, or it may not trace");
        return;
    }
    let opened = fs::read_to_string(&trace).unwrap();
    let opened = opened.lines().filter(|line| line.starts_with("openat(")).enumerate();
    let mails = opened.filter(|(_, line)| line.contains("/Maildir/cur/") && line.contains(".old."));
    let (at, _) = mails.clone().nth(READ).unwrap();
    assert_eq!(mails.count(), COUNT as usize, "each is read once");

    let server = Scenario::migrated_by_content(COUNT).unwrap();
    let kill = format!("inject=openat:signal=KILL:when={}", at + 1);
    let options = ["-e", "trace=openat", "-e", &kill];
    assert!(!lists_under_strace(&server.dovecot, Path::new("/dev/null"), &options));
    let prints = server.maildir().path().join("uidl-keep.prints");
    assert!(prints.exists() && !server.ledger().exists());
    let again = server.dovecot.home(USER).join("again");
    assert!(lists_under_strace(&server.dovecot, &again, &["-e", "trace=openat"]));
    let again = fs::read_to_string(&again).unwrap();
    let read = again.lines().filter(|l| l.contains("/Maildir/cur/") && l.contains(".old.")).count();
    assert!(read <= COUNT as usize - 128, "{read} are read again");
    assert!(!prints.exists() && server.ledger().exists());
    server.serves(COUNT, "in the end");
}

/// Between Dovecot's look at the mailbox and ours at the ledger, mail comes, and another session
/// lists and records it: the UIDLs that it told are told on.
#[test]
fn a_login_that_saw_less_than_another_has_recorded_takes_nothing_back() {
    let Some(moved) = five() else { return };
    let (dovecot, maildir) = (&moved.dovecot, moved.maildir());
    assert_eq!(dovecot.uidl(USER).len(), 5);
    if !can_trace() {
        return;
    }
    let trace = dovecot.home(USER).join("trace");
    let file = |name: &str| maildir.path().join(name).display().to_string();
    let (lock, ledger) = (file("dovecot-uidlist.lock"), file("uidl-keep.ledger"));
    // It has looked at the mailbox once it gives this lock back.
    let stop = "inject=unlink:signal=STOP:when=1";
    let options = ["-f", "-P", &lock, "-P", &ledger, "-e", "trace=openat,unlink", "-e", stop];
    let mut slow = Traced::start(dovecot, &trace, &options);
    let pid = slow.stopped(&trace);
    let so_far = fs::read_to_string(&trace).unwrap();
    assert!(!so_far.contains("uidl-keep.ledger"), "too late to show anything:\n{so_far}");

    maildir.deliver(&Message::plain(6), Naming::Dovecot, 6);
    let told = dovecot.uidl(USER);
    kill_process(pid, Signal::CONT).unwrap();
    assert!(slow.lists());
    assert!(fs::read_to_string(&trace).unwrap().contains("uidl-keep.ledger"));
    assert_eq!(told.len(), 6);
    assert_eq!(dovecot.uidl(USER), told);
    let ledger = Ledger::decode(&fs::read(maildir.path().join("uidl-keep.ledger")).unwrap());
    let there = ledger.unwrap().records.iter().filter(|record| record.uid != 0).count();
    assert_eq!(there, 6);
}

/// The mark says that all is baked only where it is. A session that began before knows the list as
/// it was then: another has listed late messages since, and could not bake them.
#[test]
fn a_session_that_ends_late_does_not_say_that_what_another_listed_is_baked() {
    let Some(moved) = captured(8) else { return };
    let (dovecot, maildir) = (&moved.dovecot, moved.maildir());
    if !can_trace() {
        return;
    }
    for file in &maildir.files()[5..8] {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(dovecot.uidl(USER), uidl_of(1..=5));
    // The mail was copied with its list, and without what is ours.
    for name in ["uidl-keep.ledger", "uidl-keep.lock"] {
        fs::remove_file(maildir.path().join(name)).unwrap();
    }
    let mut first = Pop3::login(dovecot.pop3(), USER).unwrap();
    assert_eq!(first.uidl().unwrap(), uidl_of(1..=5));
    for number in [6, 8] {
        maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
    }
    // They get their UIDs under the first lock, and are baked under the second.
    let lock = maildir.path().join("dovecot-uidlist.lock");
    let (lock, fail) = (lock.to_str().unwrap(), "inject=openat:error=ENOSPC:when=2+");
    let options = ["-P", lock, "-e", "trace=openat", "-e", fail];
    assert!(lists_under_strace(dovecot, Path::new("/dev/null"), &options));
    let is_baked = || {
        let mark = fs::read(maildir.path().join("uidl-keep.lock")).unwrap();
        Mark::of_file(&mark).unwrap().is_baked
    };
    assert!(!is_baked(), "{}", uidlist_of(&moved));
    first.quit().unwrap();
    let list = uidlist_of(&moved);
    assert_eq!(is_baked(), list.contains("PUID6-17"), "{list}");
}
