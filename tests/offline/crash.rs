//! `kill -9` and a full disk at any point of a command that writes: the output is the old one or
//! the new one, whole, and nothing is left over which the next run trips.
//!
//! Each story is run once to see by which system calls it changes the file system, and then once
//! for each of them and each fault: killed at the call, which is then not made, and told by the
//! system that the disk is full. Between two such calls nothing changes on disk, so these are all
//! points there are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::shared::is_root;
use crate::shared::lacking;
use crate::shared::program::write_program;
use crate::shared::tree::below;
use tempfile::TempDir;
use uidl_keep::index::Index;
use uidl_keep::site::roster::{Gate, Roster, is_domain};

/// The calls that change a file system, except for opening.
const CHANGING: [&str; 22] = [
    "write",
    "pwrite64",
    "writev",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "chmod",
    "fchmod",
    "fchown",
];

/// A command in a directory of its own.
struct Story {
    /// Makes the files that are there before.
    before: fn(&Path),
    args: &'static [&'static str],
    umask: &'static str,
    /// An error has to name one of these.
    places: &'static [&'static str],
}

/// One call of the run without a fault.
struct Point {
    call: String,
    /// Its number among the calls of this name.
    number: usize,
    /// The line as strace wrote it.
    line: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    DiskFull,
}

/// Everything below a directory: mode, owner and content; for directories the first two.
type Tree = BTreeMap<String, (u32, u32, u32, Option<Vec<u8>>)>;

fn tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    for path in below(dir) {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        // The log is appended to, and says when.
        if name.ends_with("changes.log") {
            continue;
        }
        let content = metadata.is_file().then(|| undated(&fs::read(&path).unwrap()));
        tree.insert(name, (metadata.mode(), metadata.uid(), metadata.gid(), content));
    }
    tree
}

/// A listing says when it was taken: each of two that are equal in all else has its own time.
fn undated(content: &[u8]) -> Vec<u8> {
    let taken = b"\ntaken ";
    let Some(at) = memchr::memmem::find(content, taken) else { return content.to_vec() };
    let (before, after) = content.split_at(at + taken.len());
    let digits = after.iter().take_while(|octet| octet.is_ascii_digit()).count();
    [before, &after[digits..]].concat()
}

impl Story {
    /// Makes a directory with the files that are there before, at the same path each time: a
    /// listing says where it is from.
    fn scene(&self, home: &Path) -> PathBuf {
        let dir = home.join("scene");
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        (self.before)(&dir);
        dir
    }

    /// Runs the command, under `wrapper` if that is not empty.
    fn run(&self, dir: &Path, wrapper: &[OsString]) -> Output {
        Command::new("sh")
            .args(["-c", "umask \"$1\"; shift; exec \"$@\"", "sh", self.umask])
            .args(wrapper)
            .arg(env!("CARGO_BIN_EXE_uidl-keep"))
            .args(self.args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The calls that change something, in the order of the run.
    fn points(&self, home: &Path) -> Vec<Point> {
        let scene = self.scene(home);
        let trace = tempfile::NamedTempFile::new().unwrap();
        let mut wrapper = strace(trace.path());
        // `?` is there since not every machine has every one of them.
        wrapper.push(format!("trace=openat,?{}", CHANGING.join(",?")).into());
        let output = self.run(&scene, &wrapper);
        assert!(output.status.success(), "{}", said(&output));
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut points = Vec::new();
        for line in fs::read_to_string(trace.path()).unwrap().lines() {
            let Some((call, arguments)) = line.split_once('(') else { continue };
            let number = counts.entry(call.to_owned()).or_default();
            *number += 1;
            let opens = call == "openat";
            if !opens || arguments.contains("O_CREAT") || arguments.contains("O_TRUNC") {
                let (call, number, line) = (call.to_owned(), *number, line.to_owned());
                points.push(Point { call, number, line });
            }
        }
        points
    }

    /// Runs it with a fault at every point, and again without one.
    fn survives_every_fault(&self) {
        if !can_inject() {
            return;
        }
        let home = home();
        let scene = self.scene(home.path());
        let old = tree(&scene);
        let output = self.run(&scene, &[]);
        assert!(output.status.success(), "{}", said(&output));
        let new = tree(&scene);
        assert_ne!(old, new, "the story changes nothing");
        let points = self.points(home.path());
        assert!(points.len() >= 5, "this run changes more than {} calls do", points.len());
        for point in &points {
            for fault in [Fault::Killed, Fault::DiskFull] {
                // A message on stderr may get lost.
                if fault == Fault::DiskFull && point.line.starts_with("write(2,") {
                    continue;
                }
                let at = format!("{fault:?} at {}", point.line);
                self.survives(home.path(), point, fault, &at, (&old, &new));
            }
        }
    }

    fn survives(
        &self,
        home: &Path,
        point: &Point,
        fault: Fault,
        at: &str,
        (old, new): (&Tree, &Tree),
    ) {
        let scene = self.scene(home);
        let mut wrapper = strace(Path::new("/dev/null"));
        wrapper.push(format!("trace={}", point.call).into());
        wrapper.push("-e".into());
        let what = match fault {
            Fault::Killed => "signal=KILL",
            Fault::DiskFull => "error=ENOSPC",
        };
        wrapper.push(format!("inject={}:{what}:when={}", point.call, point.number).into());
        let output = self.run(&scene, &wrapper);
        let stderr = said(&output);
        match fault {
            Fault::Killed => assert_eq!(output.status.signal(), Some(9), "{at}: {stderr}"),
            Fault::DiskFull => {
                assert_eq!(output.status.code(), Some(2), "{at}: {stderr}");
                assert!(stderr.contains("No space left on device"), "{at}: {stderr}");
                let names_it = |place: &&str| stderr.contains(place);
                assert!(self.places.iter().any(names_it), "{at}: {stderr}");
            }
        }
        is_old_or_new(&tree(&scene), (old, new), fault, at);
        agrees(&scene.join("site"), at);

        let output = self.run(&scene, &[]);
        assert!(output.status.success(), "the run after {at}: {}", said(&output));
        let (after, new) = (tree(&scene), new);
        let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(new), "after {at}, and a run without");
        assert!(&after == new, "after {at}, and a run without, something differs");
    }
}

impl Story {
    /// Runs it on a disk with no room left, with a page, with two, and so on until it is enough.
    fn survives_a_full_disk(&self) {
        let Some(disk) = Disk::mount() else { return };
        let scene = self.scene(disk.path());
        let old = tree(&scene);
        let output = self.run(&scene, &[]);
        assert!(output.status.success(), "{}", said(&output));
        let new = tree(&scene);
        for pages in 0.. {
            let at = format!("a disk with {pages} pages");
            let scene = self.scene(disk.path());
            disk.fill(pages);
            let output = self.run(&scene, &[]);
            disk.empty();
            let (found, stderr) = (tree(&scene), said(&output));
            is_old_or_new(&found, (&old, &new), Fault::DiskFull, &at);
            agrees(&scene.join("site"), &at);
            if output.status.success() {
                assert!(found == new, "{at}");
                assert!(pages >= 1, "that was no full disk");
                return;
            }
            assert_eq!(output.status.code(), Some(2), "{at}: {stderr}");
            assert!(stderr.contains("No space left on device"), "{at}: {stderr}");
            assert!(self.places.iter().any(|place| stderr.contains(place)), "{at}: {stderr}");
            let output = self.run(&scene, &[]);
            assert!(output.status.success(), "the run after {at}: {}", said(&output));
            assert!(tree(&scene) == new, "after {at}, and a run with room, something differs");
        }
    }
}

/// A file system of our own, small enough to be filled.
struct Disk(TempDir);

impl Disk {
    /// `None`, having said so, if nothing may be mounted.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=755", "none"]).arg(dir.path());
        let mounted = mount.stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("skipped: no file system may be mounted here");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves room for so many pages.
    fn fill(&self, pages: u64) {
        let room = rustix::fs::statvfs(self.path()).unwrap();
        let fill = room.f_bavail.checked_sub(pages).expect("more pages than there are");
        fs::write(self.path().join("fill"), vec![1; (fill * room.f_bsize) as usize]).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.path().join("fill")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Insists that every file is as it was before or as it is after; and that nobody can be on a
/// roster who is not in the index.
fn is_old_or_new(found: &Tree, (old, new): (&Tree, &Tree), fault: Fault, at: &str) {
    for (name, file) in old {
        let same = |tree: &Tree| tree.get(name) == found.get(name);
        assert!(
            same(old) || same(new),
            "{at}: {name} is neither the old nor the new one: {file:?}"
        );
    }
    for (name, file) in found {
        if old.contains_key(name) {
            continue;
        }
        match new.get(name) {
            Some(whole) => assert!(whole == file, "{at}: {name} is not whole: {file:?}"),
            // A process that is killed cannot clean up. `installing` tells how far a build came.
            None if name.ends_with("/installing") => {}
            None => assert!(fault == Fault::Killed, "{at}: {name} is left"),
        }
    }
    for (name, roster) in new.iter().filter(|(name, _)| name.ends_with(".roster")) {
        let index = name.replace(".roster", ".idx");
        if old.get(name) != Some(roster) && found.get(name) == Some(roster) {
            assert!(found.get(&index) == new.get(&index), "{at}: {name} before its index");
        }
    }
}

/// Insists that all rosters and indexes can be read, and that each user on a roster is in the
/// index.
fn agrees(site: &Path, at: &str) {
    for place in ["domain", "user"] {
        let Ok(entries) = fs::read_dir(site.join(place)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("idx") => {
                    let index = Index::open(File::open(&path).unwrap());
                    index.and_then(|index| index.verify()).unwrap_or_else(|error| {
                        panic!("{at}: {}: {error}", path.display());
                    });
                }
                Some("roster") => {
                    let roster = Roster::read(&File::open(&path).unwrap()).unwrap();
                    let index = File::open(path.with_extension("idx")).expect(at);
                    let index = Index::open(index).expect(at);
                    for line in roster.lines().filter(|line| !is_domain(&line.user)) {
                        let maildrop = index.maildrop(&line.user).expect(at);
                        assert!(maildrop.is_some(), "{at}: {} is not in the index", line.user);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A directory for the scenes of a story, which other accounts can get into.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    home
}

fn strace(trace: &Path) -> Vec<OsString> {
    vec!["strace".into(), "-qq".into(), "-o".into(), trace.into(), "-e".into()]
}

/// Whether faults can be injected here.
fn can_inject() -> bool {
    let status = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    let can = status.is_ok_and(|status| status.success());
    if !can {
        lacking("there is no strace, or it may not trace");
    }
    can
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// --- the files that are there before

fn message(number: u32) -> String {
    format!("Subject: message {number}\n\nbody\n")
}

fn maildir(dir: &Path) {
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(dir.join("Maildir").join(sub)).unwrap();
    }
    let mut list = "/3 9 17\n".to_owned();
    for number in 1..=3 {
        fs::write(dir.join(format!("Maildir/cur/{number}.a:2,S")), message(number)).unwrap();
        list += &format!("{number}.a:2,S 10 {number}:17:0\n");
    }
    fs::write(dir.join("Maildir/courierpop3dsizelist"), list).unwrap();
}

fn maildir_and_listing(dir: &Path) {
    maildir(dir);
    // It is a listing of her alone: a listing that has more than the new one is not replaced.
    let (alices, _) = EARLIER.split_once("\n.\n").unwrap();
    fs::write(dir.join("old.listing"), format!("{alices}\n.\n")).unwrap();
}

const EARLIER: &str = "uidl-keep-listing 1
maildrop alice@example.com
state captured
uidvalidity 17
counter 13 UID%u-%v
spent UID9-17
1 UID1-17 uid=1 file=1.a
2 UID2-17 uid=2 file=2.a
.
uidl-keep-listing 1
maildrop bob@example.com
state empty
.
uidl-keep-listing 1
maildrop dave@example.net
state captured
1 d1 file=1.d
.
uidl-keep-listing 1
maildrop eve
state captured
1 e1 file=1.e
.
";

/// Alice has more mail, and a UIDL that is another message now; her server counts anew. Bob has
/// mail, Carol is new, Dave's capture failed, Eve is not in it.
const LATER: &str = "uidl-keep-listing 1
maildrop alice@example.com
state captured
uidvalidity 18
counter 3 UID%u-%v
1 UID1-17 file=7.a
2 UID2-18 uid=2 file=8.a
.
uidl-keep-listing 1
maildrop bob@example.com
state captured
1 b1 file=1.b
.
uidl-keep-listing 1
maildrop carol@example.com
state empty
.
uidl-keep-listing 1
maildrop dave@example.net
state failed
remark the disk was on fire
.
";

fn listings(dir: &Path) {
    fs::write(dir.join("earlier.listing"), EARLIER).unwrap();
    fs::write(dir.join("later.listing"), LATER).unwrap();
}

/// A listing of some pages.
fn many(user: &str) -> String {
    let lines = (1..=300).map(|number| format!("{number} a-unique-id-{number} file={number}.a\n"));
    let lines: String = lines.collect();
    format!("uidl-keep-listing 1\nmaildrop {user}\nstate captured\n{lines}.\n")
}

fn site_and_large_listing(dir: &Path) {
    site(dir);
    let large = [many("alice@example.com"), many("dave@example.net")].concat();
    fs::write(dir.join("large.listing"), large).unwrap();
}

fn large_maildir_and_listing(dir: &Path) {
    maildir_and_listing(dir);
    let list = fs::read_to_string(dir.join("Maildir/courierpop3dsizelist")).unwrap();
    let mut list = list.replacen("/3 9 17", "/3 400 17", 1);
    for number in 4..=300 {
        list += &format!("{number}.gone:2,S 10 {number}:17:0\n");
    }
    fs::write(dir.join("Maildir/courierpop3dsizelist"), list).unwrap();
}

fn site(dir: &Path) {
    listings(dir);
    helper(dir, &["build", "--final", "-o", "site", "earlier.listing"]);
    helper(dir, &["hold", "--no-check", "--site", "site", "bob@example.com"]);
}

fn held_site(dir: &Path) {
    site(dir);
    helper(dir, &["hold", "--no-check", "--site", "site", "example.com", "example.net", "eve"]);
}

/// A site that Dovecot's users can read, and a doveadm that knows them.
fn installed_site(dir: &Path) {
    let script = "#!/bin/sh\n[ \"$3\" = user ] && exit 0\nshift 4\nfor user; do echo 4001; done\n";
    write_program(&dir.join("doveadm"), script);
    listings(dir);
    let install = ["build", "--install", "--no-check", "--site", "site", "--doveadm", "./doveadm"];
    helper(dir, &[&install[..], &["earlier.listing"]].concat());
}

fn helper(dir: &Path, args: &[&str]) {
    let ran = crate::shared::uidl_keep().args(args).current_dir(dir).output().unwrap();
    assert!(ran.status.success(), "{args:?}: {}", said(&ran));
}

// --- the stories

const CAPTURE: &[&str] =
    &["capture", "courier", "--user", "alice@example.com", "-o", "old.listing", "Maildir"];

#[test]
fn a_first_capture_is_a_whole_listing_or_none() {
    let places = &["old.listing"];
    let args = CAPTURE;
    Story { before: maildir, args, umask: "022", places }.survives_every_fault();
}

#[test]
fn a_capture_over_an_earlier_one_is_the_old_listing_or_the_new() {
    let places = &["old.listing"];
    let before = maildir_and_listing;
    Story { before, args: CAPTURE, umask: "022", places }.survives_every_fault();
}

#[test]
fn a_first_build_can_be_done_again_whatever_became_of_it() {
    // This umask would keep every account out of what a killed build has begun.
    let args = &["build", "--final", "-o", "site", "earlier.listing"];
    Story { before: listings, args, umask: "077", places: &["site"] }.survives_every_fault();
}

#[test]
fn a_build_upon_a_site_leaves_each_place_old_or_new() {
    let args = &["build", "--base", "site", "-o", "site", "later.listing"];
    Story { before: site, args, umask: "022", places: &["site"] }.survives_every_fault();
}

#[test]
fn a_site_that_is_made_final_is_old_or_new() {
    let args = &["build", "--final", "--base", "site", "-o", "new", "later.listing"];
    Story { before: site, args, umask: "022", places: &["new"] }.survives_every_fault();
}

#[test]
fn an_installed_site_is_old_or_new() {
    if !is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    const ARGS: &[&str] = &[
        "build",
        "--install",
        "--no-check",
        "--site",
        "site",
        "--doveadm",
        "./doveadm",
        "later.listing",
    ];
    let before = installed_site;
    Story { before, args: ARGS, umask: "022", places: &["site"] }.survives_every_fault();
}

#[test]
fn an_install_that_was_killed_halfway_is_known_and_can_be_gone_on_with() {
    if !can_inject() {
        return;
    }
    const ARGS: &[&str] = &["build", "-o", "site", "--base", "site", "later.listing"];
    let story = Story { before: site, args: ARGS, umask: "022", places: &[] };
    let home = home();
    let renames = story.points(home.path());
    let renames = renames.iter().filter(|point| point.call == "rename").count();
    assert!(renames >= 5, "what is noted, and two files of each of two places: {renames}");
    let check = |scene: &Path| {
        let mut check = crate::shared::uidl_keep();
        check.args(["check", "site"]).current_dir(scene).output().unwrap()
    };
    for number in 2..=renames {
        let scene = story.scene(home.path());
        let mut wrapper = strace(Path::new("/dev/null"));
        wrapper.push("trace=rename".into());
        wrapper.push("-e".into());
        wrapper.push(format!("inject=rename:signal=KILL:when={number}").into());
        assert_eq!(story.run(&scene, &wrapper).status.signal(), Some(9), "{number}");
        let ended = "uidl-keep: site/installing: a build was ended while it was put in place: ";
        let checked = check(&scene);
        assert_eq!(checked.status.code(), Some(2), "{number}");
        assert!(said(&checked).contains(ended), "{number}: {}", said(&checked));
        assert!(said(&checked).contains("domains and users are"), "{}", said(&checked));
        // Hold says nothing of it, and does what it is told.
        helper(&scene, &["hold", "--no-check", "--site", "site", "bob@example.com"]);

        let again = story.run(&scene, &[]);
        assert_eq!(again.status.code(), Some(0), "{number}: {}", said(&again));
        assert!(said(&again).starts_with(ended), "{number}: {}", said(&again));
        let checked = check(&scene);
        assert_eq!((checked.status.code(), &*said(&checked)), (Some(0), ""), "{number}");
        assert!(!scene.join("site/installing").exists());
    }
}

#[test]
fn who_is_held_is_held_or_not_and_can_be_held_again() {
    let args = &["hold", "--no-check", "--site", "site", "example.com", "example.net", "eve"];
    let places = &["site", "standard output"];
    Story { before: site, args, umask: "022", places }.survives_every_fault();
}

#[test]
fn who_is_released_is_released_or_not_and_can_be_released_again() {
    let args = &[
        "release",
        "--no-check",
        "--unrehearsed",
        "--site",
        "site",
        "@example.com",
        "@example.net",
    ];
    let places = &["site", "standard output"];
    Story { before: held_site, args, umask: "022", places }.survives_every_fault();
}

#[test]
fn on_a_disk_that_is_really_full_what_was_there_stays() {
    let places = &["old.listing"];
    let before = large_maildir_and_listing;
    Story { before, args: CAPTURE, umask: "022", places }.survives_a_full_disk();
    let args = &["build", "--base", "site", "-o", "site", "large.listing"];
    let before = site_and_large_listing;
    Story { before, args, umask: "022", places: &["site"] }.survives_a_full_disk();
    let args = &["hold", "--no-check", "--site", "site", "example.com", "example.net", "eve"];
    Story { before: site, args, umask: "022", places: &["site"] }.survives_a_full_disk();
}

#[test]
fn a_listing_that_nobody_reads_to_its_end_is_no_success() {
    let home = home();
    maildir(home.path());
    let mut child = crate::shared::uidl_keep()
        .args(["capture", "courier", "--user", "alice@example.com", "Maildir"])
        .current_dir(home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("standard output: "), "{}", said(&output));
    assert!(said(&output).contains("the listing is cut short"), "{}", said(&output));
}

#[test]
fn everybody_is_held_also_when_nobody_reads_who() {
    let home = home();
    site(home.path());
    let mut child = crate::shared::uidl_keep()
        .args(["hold", "--no-check", "--site", "site", "example.com", "example.net", "eve"])
        .current_dir(home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*said(&output)), (Some(0), ""));
    // Each domain has a line of its own.
    for (roster, lines) in [("domain/example.com", 3), ("domain/example.net", 2), ("user/eve", 1)] {
        let file = File::open(home.path().join(format!("site/{roster}.roster"))).unwrap();
        let roster = Roster::read(&file).unwrap();
        assert_eq!(roster.lines().filter(|line| line.gate == Gate::Held).count(), lines);
    }
}
