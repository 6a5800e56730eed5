//! `copy-late`: what is late, what is not, and what happens when it is interrupted.

use std::collections::BTreeMap;
use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use uidl_keep::key::FileKey;
use uidl_keep::ledger::control::LEDGER;
use uidl_keep::ledger::{Epoch, Ledger, Provenance, Record};
use uidl_keep::uidl::Uidl;

use crate::shared::capture::{make, message};
use crate::shared::tree::below;
use crate::shared::{is_root, lacking};
use crate::support::cli::{Here, Ran};
use crate::support::ledger::ledger_of;

const USER: &str = "alice@example.com";
const JOURNAL: &str = "uidl-keep.late";

/// The last copy began then, and POP3 had been stopped a little before.
const COPIED: u64 = 1_714_990_200;
const STOPPED: u64 = 1_714_990_100;

/// A listing with the messages a and b, which the first copy brought.
fn listing(more: &str) -> String {
    let of = |number: u32, name: &str| format!("{number} UID{number}-4 file={name}\n");
    format!(
        "uidl-keep-listing 1\nmaildrop {USER}\nstate captured\nuidvalidity 4\ncounter 9 UID%u-%v\n\
         {}{}{more}.\n",
        of(1, &name(1, "a")),
        of(2, &name(2, "b"))
    )
}

/// The name of a message that arrived so many seconds after the first.
fn name(seconds: u64, word: &str) -> String {
    format!("{}.{word}.old", 1_714_990_000 + seconds)
}

/// Two servers on one machine.
struct Move {
    here: Here,
}

impl Move {
    fn new() -> Self {
        let moved = Self { here: Here::new() };
        moved.build(&listing(""));
        for server in ["old", "new"] {
            make(&moved.maildir(server));
            moved.add(server, &format!("cur/{}:2,S", name(1, "a")));
            moved.add(server, &format!("cur/{}:2,S", name(2, "b")));
        }
        moved
    }

    fn build(&self, listing: &str) {
        self.here.write("a.listing", listing);
        let _ = fs::remove_dir_all(self.here.path("site"));
        let built = self.here.run("build --final -o site a.listing");
        assert_eq!(built.status, 0, "{}", built.stderr);
    }

    fn maildir(&self, server: &str) -> PathBuf {
        self.here.path(&format!("{server}/example.com/alice"))
    }

    fn add(&self, server: &str, file: &str) {
        let path = self.maildir(server).join(file);
        fs::write(&path, message(file)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    fn args(&self, more: &str) -> String {
        let pattern =
            |server: &str| format!("{}/{{domain}}/{{local}}", self.here.path(server).display());
        let (old, new) = (pattern("old"), pattern("new"));
        format!("copy-late {old} {new} --site site --copied @{COPIED} {more}")
    }

    fn copy(&self, more: &str) -> Ran {
        self.here.run(&self.args(more))
    }

    /// Runs it with POP3 stopped, and expects so many to be brought.
    #[track_caller]
    fn brings(&self, count: usize) {
        let ran = self.copy(&stopped());
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let line = format!("{USER}: {count} brought\n");
        assert_eq!(ran.stdout, if count == 0 { String::new() } else { line }, "{}", ran.stderr);
    }

    /// The messages of the new server, by their place.
    fn mail(&self) -> Vec<String> {
        let top = self.maildir("new");
        let mut mail: Vec<String> = below(&top)
            .iter()
            .filter(|path| path.is_file())
            .map(|path| path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned())
            .filter(|path| path.contains('/'))
            .collect();
        mail.sort();
        mail
    }

    fn delete(&self, file: &str) {
        fs::remove_file(self.maildir("new").join(file)).unwrap();
    }
}

fn stopped() -> String {
    format!("--pop3-stopped @{STOPPED}")
}

#[test]
fn late_mail_is_brought_as_it_was_and_nothing_else() {
    let moved = Move::new();
    let (late, seen) = (name(300, "late"), name(301, "seen"));
    moved.add("old", &format!("new/{late}"));
    moved.add("old", &format!("cur/{seen}:2,FSab"));
    // It had arrived before the copy: it was deleted on the new server.
    moved.add("old", &format!("cur/{}:2,", name(150, "before")));
    if is_root() {
        chown(moved.maildir("new").join("cur"), Some(5001), Some(5002)).unwrap();
    }
    fs::set_permissions(moved.maildir("new").join("cur"), Permissions::from_mode(0o770)).unwrap();
    let would = moved.copy(&format!("{} --dry-run", stopped()));
    assert_eq!(would.stdout, format!("{USER}: 2 would be brought\n"), "{}", would.stderr);
    assert_eq!(moved.mail().len(), 2, "nothing is written");
    assert!(!moved.maildir("new").join(JOURNAL).exists());
    let ran = moved.copy(&stopped());
    assert_eq!((ran.status, &*ran.stdout), (0, &*format!("{USER}: 2 brought\n")), "{}", ran.stderr);
    let said = "2 late messages of 1 maildrops brought; 0 maildrops had none; 1 had arrived before \
                the last copy and are not here";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    // Letters of keywords mean something else in another Maildir.
    let (late, seen) = (format!("new/{late}"), format!("cur/{seen}:2,FS"));
    let mail = moved.mail();
    assert_eq!(mail.len(), 4);
    assert!(mail.contains(&late) && mail.contains(&seen), "{mail:?}");
    for (file, from) in [(&late, late.clone()), (&seen, format!("{seen}ab"))] {
        let path = moved.maildir("new").join(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), message(&from));
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o660);
        assert_eq!(metadata.mtime(), 1_500_000_000, "its time of arrival");
        if is_root() {
            assert_eq!((metadata.uid(), metadata.gid()), (5001, 5002));
        }
    }
    moved.brings(0);
    // Where nothing came, nothing is written.
    let other = Move::new();
    other.brings(0);
    assert!(!other.maildir("new").join(JOURNAL).exists());
}

#[test]
fn two_runs_are_not_at_work_on_one_maildrop() {
    let moved = Move::new();
    moved.add("old", &format!("new/{}", name(300, "late")));
    let journal = fs::File::create(moved.maildir("new").join(JOURNAL)).unwrap();
    rustix::fs::flock(&journal, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let ran = moved.copy(&stopped());
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("another copy-late is at work on it"), "{}", ran.stderr);
    assert_eq!(moved.mail().len(), 2);
    drop(journal);
    moved.brings(1);
}

#[test]
fn what_a_client_has_deleted_does_not_come_back() {
    let moved = Move::new();
    let late = name(300, "late");
    moved.add("old", &format!("new/{late}"));
    moved.brings(1);
    moved.delete(&format!("new/{late}"));
    moved.brings(0);
    assert_eq!(moved.mail().len(), 2);
    // A message that the ledger has was here, whoever brought it; its UIDL tells it too, where it
    // came under another name.
    let (by_name, by_uidl) = (name(302, "n"), name(303, "u"));
    moved.build(&listing(&format!("3 UID3-4 file={by_uidl}\n")));
    let record = |order: u32, uidl: &str, name: &str| Record {
        uid: 0,
        order: (1 << 20) + order,
        uidl: Uidl::new(uidl.as_bytes()).unwrap(),
        provenance: Provenance::Header,
        names: [Ledger::name_of_cut(&FileKey::cut_of(name.as_bytes()))].into_iter().collect(),
        entry: None,
    };
    let epoch = Epoch { uidvalidity: 17, next_uid: 9, index_id: 3 };
    let records = vec![record(1, "x", &by_name), record(2, "UID3-4", "other")];
    let ledger = ledger_of(USER, epoch, (1 << 20) + 9, records);
    fs::write(moved.maildir("new").join(LEDGER), ledger.encode()).unwrap();
    for name in [&by_name, &by_uidl] {
        moved.add("old", &format!("new/{name}"));
    }
    moved.brings(0);
    let mut octets = ledger.encode();
    octets[120] ^= 1;
    fs::write(moved.maildir("new").join(LEDGER), octets).unwrap();
    let ran = moved.copy(&stopped());
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("put it back from a backup"), "{}", ran.stderr);
}

#[test]
fn a_message_under_a_longer_name_or_a_guid_is_there_already() {
    let moved = Move::new();
    for word in ["sized", "guid"] {
        moved.add("old", &format!("new/{}", name(300, word)));
    }
    let sized = format!("{},S=9,W=10", name(300, "sized"));
    moved.add("new", &format!("cur/{sized}:2,S"));
    moved.add("new", "cur/1800000000.M1P1.new:2,S");
    let list = format!("3 V17 N9\n7 G{} :1800000000.M1P1.new:2,S\n", name(300, "guid"));
    fs::write(moved.maildir("new").join("dovecot-uidlist"), list).unwrap();
    moved.brings(0);
}

#[test]
fn where_a_client_may_know_the_uidl_and_we_do_not_the_maildrop_is_left_alone() {
    let moved = Move::new();
    let (early, late) = (name(210, "early"), name(300, "late"));
    moved.add("old", &format!("cur/{early}:2,S"));
    moved.add("old", &format!("new/{late}"));
    // It answers: both may have been listed.
    let ran = moved.copy("");
    assert_eq!((ran.status, &*ran.stdout), (1, ""));
    assert!(ran.stderr.contains("2 late messages are in no capture"), "{}", ran.stderr);
    assert!(ran.stderr.contains("say when with --pop3-stopped"), "{}", ran.stderr);
    // It was stopped in between: only the first may have been.
    let between = format!("--pop3-stopped @{}", 1_714_990_250);
    let ran = moved.copy(&between);
    assert_eq!((ran.status, &*ran.stdout), (1, ""));
    assert!(ran.stderr.contains("1 late messages are in no capture, and had"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&early), "{}", ran.stderr);
    assert_eq!(moved.mail().len(), 2, "nothing of it");
    // A delta that has it makes it known.
    moved.build(&listing(&format!("3 UID3-4 file={early}\n")));
    let ran = moved.copy(&between);
    assert_eq!((ran.status, &*ran.stdout), (0, &*format!("{USER}: 2 brought\n")), "{}", ran.stderr);
}

#[test]
fn a_capture_without_names_knows_a_message_by_what_is_in_it() {
    let moved = Move::new();
    let text = "Received: from a by b; Mon, 6 May 2024 10:00:01 +0000\nSubject: x\n\nbody\n";
    let late = moved.maildir("old").join(format!("new/{}", name(300, "late")));
    fs::write(late, text).unwrap();
    assert_eq!(moved.copy("").status, 1);
    let mut printer = uidl_keep::key::Fingerprinter::new(uidl_keep::key::Depth::Header);
    printer.update(text.as_bytes());
    let header = printer.finish().header.unwrap();
    let version = uidl_keep::key::NORMALISER_VERSION;
    let by_header = listing(&format!("3 UID3-4 header={header}\n"));
    moved.build(
        &by_header.replace("state captured\n", &format!("state captured\nkeys {version}\n")),
    );
    let ran = moved.copy("");
    assert_eq!((ran.status, &*ran.stdout), (0, &*format!("{USER}: 1 brought\n")), "{}", ran.stderr);
}

#[test]
fn who_is_not_ready_is_named_and_the_others_get_their_mail() {
    let moved = Move::new();
    moved.add("old", &format!("new/{}", name(300, "late")));
    for user in ["bob", "carol", "dave"] {
        let maildir = moved.here.path(&format!("old/example.com/{user}"));
        make(&maildir);
        fs::write(maildir.join(format!("new/{}", name(300, user))), message(user)).unwrap();
    }
    let block = |user: &str, state: &str| {
        format!("uidl-keep-listing 1\nmaildrop {user}@example.com\nstate {state}.\n")
    };
    let others = [block("bob", "failed\nremark gone\n"), block("carol", "empty\n")];
    moved.build(&(listing("") + &others.concat()));
    let ran = moved.copy(&stopped());
    assert_eq!((ran.status, &*ran.stdout), (1, &*format!("{USER}: 1 brought\n")), "{}", ran.stderr);
    for said in [
        "bob@example.com: POP3 refuses him, for his capture failed",
        "carol@example.com: 1 late messages, and no Maildir of his on the new server",
        "dave@example.com: on no roster",
        "3 maildrops are not done",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    let only = moved.copy(&format!("{} --only {USER}", stopped()));
    assert_eq!(only.status, 0, "{}", only.stderr);
}

#[test]
fn a_wrong_word_is_trouble_before_anything_is_written() {
    let moved = Move::new();
    moved.add("old", &format!("new/{}", name(300, "late")));
    let old = format!("{}/{{domain}}/{{local}}", moved.here.path("old").display());
    let says = |args: &str, what: &str| {
        let ran = moved.here.run(args);
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{args}: {}", ran.stderr);
        assert!(ran.stderr.contains(what), "{args}: {}", ran.stderr);
    };
    says(&format!("copy-late {old} {old} --site site --copied yesterday"), "not a time such as");
    says(&format!("copy-late {old} {old} --site site --copied @99999999999"), "yet to come");
    says(&format!("copy-late {old} {old} --site site"), "--copied");
    says(&format!("copy-late {old} {old} --site no --copied @1"), "is --site right?");
    says(&format!("copy-late {old} /no/{{user}} --site site --copied @1"), "NEW-PATTERN: /no");
    assert_eq!(moved.mail().len(), 2);
    let utc = "--pop3-stopped 2024-05-06T10:08:20Z";
    assert_eq!(moved.copy(utc).status, 0, "that is STOPPED");
    assert_eq!(moved.mail().len(), 3);
}

/// A name in a Maildir, and what makes a trap of that name.
type Plant = (&'static str, fn(&Path));

#[test]
fn nothing_that_a_user_plants_leads_elsewhere() {
    let plants: [Plant; 5] = [
        (JOURNAL, |path| symlink("/etc/passwd", path).unwrap()),
        (JOURNAL, |path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap();
        }),
        (JOURNAL, |path| fs::hard_link(path.with_file_name("dovecot-keywords"), path).unwrap()),
        ("tmp", |path| symlink("/tmp", path).unwrap()),
        ("new", |path| symlink("/tmp", path).unwrap()),
    ];
    for (name_of_plant, plant) in plants {
        let moved = Move::new();
        moved.add("old", &format!("new/{}", name(300, "late")));
        fs::write(moved.maildir("new").join("dovecot-keywords"), "secret").unwrap();
        let path = moved.maildir("new").join(name_of_plant);
        let _ = fs::remove_dir(&path);
        plant(&path);
        let ran = moved.copy(&stopped());
        assert_eq!((ran.status, &*ran.stdout), (1, ""), "{name_of_plant}: {}", ran.stderr);
        assert_eq!(fs::read(moved.maildir("new").join("dovecot-keywords")).unwrap(), b"secret");
    }
    // A link in tmp under our own name is taken away, and not written through.
    let moved = Move::new();
    let late = name(300, "late");
    moved.add("old", &format!("new/{late}"));
    let victim = moved.here.path("victim");
    fs::write(&victim, "precious").unwrap();
    let beside = format!("tmp/uidl-keep.{}", FileKey::of_name(late.as_bytes()));
    symlink(&victim, moved.maildir("new").join(beside)).unwrap();
    // Nor is one in the old Maildir followed.
    symlink(&victim, moved.maildir("old").join(format!("new/{}", name(301, "link")))).unwrap();
    let ran = moved.copy(&stopped());
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("is a symbolic link"), "{}", ran.stderr);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(moved.mail().len(), 3);
}

/// Everything that the new server has: by path its content.
fn content(moved: &Move) -> BTreeMap<String, Vec<u8>> {
    let top = moved.maildir("new");
    moved.mail().into_iter().map(|file| (file.clone(), fs::read(top.join(file)).unwrap())).collect()
}

fn with_three_late() -> Move {
    let moved = Move::new();
    for (number, folder) in [(300, "new"), (301, "cur"), (302, "new")] {
        let info = if folder == "cur" { ":2,S" } else { "" };
        moved.add("old", &format!("{folder}/{}{info}", name(number, "late")));
    }
    moved
}

#[test]
fn a_run_that_is_killed_anywhere_brings_nothing_twice_and_loses_nothing() {
    const CALLS: [&str; 9] = [
        "write",
        "copy_file_range",
        "fsync",
        "fdatasync",
        "renameat2",
        "unlinkat",
        "fchown",
        "fchmod",
        "sendfile",
    ];
    let strace = |moved: &Move, arguments: &[String]| {
        let command = moved.here.command(&moved.args(&stopped()));
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-o", "trace"]).args(arguments).arg(command.get_program());
        traced.args(command.get_args()).current_dir(moved.here.0.path());
        traced.output()
    };
    let moved = with_three_late();
    let Ok(ran) = strace(&moved, &["-e".into(), format!("trace={}", CALLS.join(","))]) else {
        lacking("strace is not installed");
        return;
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let whole = content(&moved);
    assert_eq!(whole.len(), 5);
    let trace = fs::read_to_string(moved.here.path("trace")).unwrap();
    let mut points = 0;
    for call in CALLS {
        let count = trace.lines().filter(|line| line.contains(&format!("{call}("))).count();
        for number in 1..=count {
            for fault in ["signal=KILL", "error=ENOSPC"] {
                let moved = with_three_late();
                let at = format!("{fault} at {call} {number}");
                let inject = format!("inject={call}:{fault}:when={number}");
                let ran =
                    strace(&moved, &["-e".into(), format!("trace={call}"), "-e".into(), inject])
                        .expect("strace");
                let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
                let found = content(&moved);
                let is_mail = |file: &&String| !file.starts_with("tmp/");
                for file in found.keys().filter(is_mail) {
                    assert!(found[file] == whole[file], "{at}: {file} is not whole");
                }
                if fault == "signal=KILL" {
                    assert_eq!(ran.status.signal(), Some(9), "{at}: {stderr}");
                    // A client deletes one that it has got.
                    let late = found.keys().find(|file| file.contains("late") && is_mail(file));
                    if let Some(late) = late.cloned() {
                        moved.delete(&late);
                        let again = moved.copy(&stopped());
                        let after = content(&moved);
                        assert!(!after.contains_key(&late), "{at}: {late} came back");
                        // Of one message nobody can tell, if the run was ended in that moment.
                        let is_named = again.stderr.contains("nobody knows whether");
                        assert_eq!(again.status, i32::from(is_named), "{at}: {}", again.stderr);
                        assert_eq!(after.len(), 4, "{at}: {after:?}");
                        points += 1;
                        continue;
                    }
                }
                let again = moved.copy(&stopped());
                assert_eq!(again.status, 0, "{at}: {stderr}: {}", again.stderr);
                assert!(content(&moved) == whole, "after {at}");
                points += 1;
            }
        }
    }
    assert!(points > 40, "{points}");
}

#[test]
fn a_disk_that_is_really_full_is_named_and_gets_the_rest_later() {
    if !is_root() {
        lacking("root may mount");
        return;
    }
    let moved = with_three_late();
    let whole = "x".repeat(300_000);
    let late = moved.maildir("old").join(format!("new/{}", name(301, "large")));
    fs::write(late, &whole).unwrap();
    let tmp = moved.maildir("new").join("tmp");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m,mode=755", "none"])
        .arg(moved.here.path("new"))
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        lacking("nothing may be mounted here");
        return;
    }
    make(&moved.maildir("new"));
    let filler = moved.here.path("new/filler");
    fs::write(&filler, "x".repeat(850_000)).unwrap();
    let ran = moved.copy(&stopped());
    let left = fs::read_dir(&tmp).unwrap().count();
    fs::remove_file(filler).unwrap();
    let again = moved.copy(&stopped());
    let mail = content(&moved);
    let unmounted = Command::new("umount").arg(moved.here.path("new")).status();
    assert!(unmounted.unwrap().success());
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    assert_eq!(left, 0, "nothing half-written stays");
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert_eq!(mail.len(), 4, "{:?}", mail.keys());
    assert!(mail.values().any(|octets| *octets == whole.as_bytes()));
}
