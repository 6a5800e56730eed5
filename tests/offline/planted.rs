//! The owner of a mailbox can plant things for root to step on: links, pipes, devices, files of
//! others, files without end. None of them is followed, opened or waited for, and a capture prints
//! nothing of what they lead to.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::shared::capture::{Ran, make, message};
use crate::shared::program::write_program;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, inotify, mknodat, renameat_with};
use uidl_keep::capture::disk::server::{ServerKind, capture};
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::maildrop::{Maildrop, State};

/// The uid of the one who plants.
const EVE: u32 = 5001;

/// A server with Eve's mailbox in it, and something that is not hers.
struct Scene {
    dir: tempfile::TempDir,
    /// The fingerprints of all that is secret.
    secrets: Vec<String>,
}

/// Every printed octet of the secret begins with this.
const SECRET: &str = "canary";

const SERVERS: [&[&str]; 3] = [&["courier"], &["dovecot", "--format", "%u.%v"], &["qmail"]];

impl Scene {
    fn new() -> Self {
        let mut scene = Self { dir: tempfile::tempdir().unwrap(), secrets: Vec::new() };
        fs::set_permissions(scene.dir.path(), Permissions::from_mode(0o755)).unwrap();
        fill(&scene.path("home/eve/Maildir"), "hers");
        fill(&scene.path("secret/Maildir"), SECRET);
        scene.give_to_eve(&scene.path("home/eve"));
        scene.secrets = scene.fingerprints(&scene.path("secret/Maildir"));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives all below, if this process may.
    fn give_to_eve(&self, path: &Path) {
        if !is_root() {
            return;
        }
        lchown(path, Some(EVE), Some(EVE)).unwrap();
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.give_to_eve(&entry.unwrap().path());
            }
        }
    }

    /// Puts something else in the place of Eve's home, or of a file below it.
    fn plant(&self, name: &str, planted: impl FnOnce(&Path)) {
        let path = self.path(&self.home_and(name));
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            fs::remove_dir_all(&path).unwrap();
        } else {
            let _ = fs::remove_file(&path);
        }
        planted(&path);
        self.give_to_eve(&path);
    }

    fn home_and(&self, name: &str) -> String {
        format!("home/eve/{name}").trim_end_matches('/').to_owned()
    }

    /// Captures everybody below `home`.
    fn capture(&self, server: &[&str]) -> Ran {
        let mut args: Vec<&OsStr> = vec![OsStr::new("capture")];
        args.extend(server.iter().map(OsStr::new));
        let pattern = self.path("home/{user}/Maildir");
        args.extend([OsStr::new("--pattern"), pattern.as_os_str()]);
        run(&args)
    }

    fn capture_at(&self, path: &Path) -> Ran {
        let args = ["capture", "qmail", "--user", "eve"].map(OsStr::new);
        run(&[&args[..], &[path.as_os_str()]].concat())
    }

    fn fingerprints(&self, maildir: &Path) -> Vec<String> {
        let place = Source::named("somebody", maildir);
        let keys = Keys { message: true, ..Keys::default() };
        let captured = capture(&ServerKind::Qmail, keys, &place).maildrop;
        let prints = captured.entries.iter().flat_map(|entry| [entry.header, entry.message]);
        let prints: Vec<String> = prints.map(|print| print.unwrap().to_string()).collect();
        assert_eq!(prints.len(), 2);
        prints
    }

    fn is_told(&self, ran: &Ran, at: &str) {
        let said = String::from_utf8(ran.stdout.clone()).unwrap() + &ran.stderr;
        // Its path may be there: that was planted, and is not secret.
        let said = said.replace(self.dir.path().to_str().unwrap(), "");
        assert!(!said.contains(SECRET), "{at}: {said}");
        for print in &self.secrets {
            assert!(!said.contains(print), "{at}: {said}");
        }
    }
}

/// A Maildir of one message with the state of each server, all with this word in it.
fn fill(path: &Path, word: &str) {
    make(path);
    fs::write(path.join("cur/1.a:2,S"), message(word)).unwrap();
    fs::write(path.join("courierpop3dsizelist"), format!("/3 9 17\n1.a:2,S 10 7:17:0\n{word}\n"))
        .unwrap();
    fs::write(path.join("dovecot-uidlist"), format!("3 V17 N9\n1 P{word} :1.a\n")).unwrap();
}

impl Ran {
    fn only(&self) -> Maildrop {
        let mut blocks = self.blocks();
        assert_eq!(blocks.len(), 1, "{}", self.stderr);
        blocks.remove(0)
    }
}

/// Runs the helper. A run that would hang is killed, and has no exit status then.
fn run(args: &[&OsStr]) -> Ran {
    run_by(&[], args)
}

fn run_by(wrapper: &[&str], args: &[&OsStr]) -> Ran {
    let output = Command::new("timeout")
        .args(["-s", "KILL", "100"])
        .args(wrapper)
        .arg(env!("CARGO_BIN_EXE_uidl-keep"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let status = output.status.code().filter(|&code| code != 137);
    let status = status.unwrap_or_else(|| panic!("{args:?} hung: {stderr}"));
    Ran { status, stdout: output.stdout, stderr }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// Says that it is done when it goes, also in a panic: somebody waits for that.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the file that lies at a path now was opened or read while `work` went on. (To hold it,
/// as by `O_PATH`, is not to open it.)
///
/// If the path is a link, the file is the one that it leads to.
fn is_felt_at(path: &Path, work: impl FnOnce()) -> bool {
    let bell = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let rings = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
    inotify::add_watch(&bell, path, rings).unwrap();
    work();
    rustix::io::read(&bell, &mut [0; 4096]).is_ok()
}

/// The places below Eve's home that a capture looks at; for directories, those that suffice for a
/// failure.
const PLACES: [&str; 7] = [
    "",
    "Maildir",
    "Maildir/cur",
    "Maildir/new",
    "Maildir/courierpop3dsizelist",
    "Maildir/dovecot-uidlist",
    "Maildir/cur/1.a:2,S",
];

#[test]
fn a_link_in_any_place_leads_nowhere() {
    for place in PLACES {
        let scene = Scene::new();
        let secret = scene.path("secret").join(place);
        for target in [&*secret, Path::new("/nonexistent"), Path::new("/dev/zero")] {
            if place == "Maildir/new" {
                fs::create_dir_all(&secret).unwrap();
            }
            scene.plant(place, |path| symlink(target, path).unwrap());
            for server in SERVERS {
                let at = format!("{server:?}: {place:?} to {}", target.display());
                let ran = scene.capture(server);
                scene.is_told(&ran, &at);
                let state_of_another = match server[0] {
                    "courier" => place.ends_with("uidlist"),
                    "dovecot" => place.ends_with("sizelist"),
                    _ => place.ends_with("list"),
                };
                if state_of_another {
                    assert_eq!(ran.only().entries.len(), 1, "{at}");
                    continue;
                }
                assert!(ran.stderr.contains("symbolic link"), "{at}: {}", ran.stderr);
                if place.contains("1.a") {
                    let maildrop = ran.only();
                    assert_eq!((ran.status, maildrop.entries[0].header), (1, None), "{at}");
                } else {
                    assert_eq!((ran.status, ran.only().state), (1, State::Failed), "{at}");
                }
            }
        }
    }
}

#[test]
fn a_pipe_or_device_in_any_place_is_neither_opened_nor_waited_for() {
    for place in PLACES {
        for device in [None, Some(rustix::fs::makedev(1, 5))] {
            let scene = Scene::new();
            let mut is_made = true;
            scene.plant(place, |path| match device {
                None => fifo(path),
                Some(zero) => {
                    let made = mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, zero);
                    is_made = made.is_ok();
                }
            });
            if !is_made {
                eprintln!("skipped: only root can make devices");
                return;
            }
            for server in SERVERS {
                let at = format!("{server:?}: {place:?}, device {device:?}");
                let planted = scene.path(&scene.home_and(place));
                let mut ran = None;
                let felt = is_felt_at(&planted, || ran = Some(scene.capture(server)));
                let ran = ran.unwrap();
                assert!(!felt, "{at}: opened");
                match place {
                    "Maildir/cur/1.a:2,S" => {
                        assert_eq!(ran.only().entries[0].header, None, "{at}");
                        assert!(ran.stderr.contains("is not a regular file"), "{at}");
                    }
                    // The state of one server is nothing to the others.
                    "Maildir/courierpop3dsizelist" | "Maildir/dovecot-uidlist" => {
                        let blocks = ran.blocks();
                        let is_failed = blocks[0].state == State::Failed;
                        let is_its_own = ran.stderr.contains("is not a regular file");
                        assert_eq!(is_failed, is_its_own, "{at}: {}", ran.stderr);
                        assert!(is_failed || blocks[0].entries.len() == 1, "{at}");
                    }
                    // The same is said of an account that has no Maildir.
                    "" | "Maildir" | "Maildir/new" => {}
                    _ => assert_eq!(ran.only().state, State::Failed, "{at}"),
                }
            }
        }
    }
}

#[test]
fn where_a_search_starts_a_pipe_is_not_waited_for() {
    let scene = Scene::new();
    scene.plant("Maildir", fifo);
    let ran = scene.capture_at(&scene.path("home/eve/Maildir"));
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    let pattern = scene.path("home/eve/Maildir/{user}");
    let ran = run(&["capture", "qmail", "--pattern", pattern.to_str().unwrap()].map(OsStr::new));
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    let root = scene.path("home/eve/Maildir");
    let root = ["capture", "qmail", "--layout", "plesk", "--root", root.to_str().unwrap()];
    assert_eq!(run(&root.map(OsStr::new)).status, 2);
}

#[test]
fn on_the_way_to_a_named_directory_only_the_operators_links_are_followed() {
    let scene = Scene::new();
    if !is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    fill(&scene.path("home/eve/mail/Maildir"), "hers");
    fill(&scene.path("secret/mail/Maildir"), SECRET);
    scene.give_to_eve(&scene.path("home/eve"));
    // Root has moved the homes, and says so by a link; a relative one.
    fs::create_dir(scene.path("srv")).unwrap();
    symlink("../home", scene.path("srv/users")).unwrap();
    let named = scene.path("srv/users/eve/mail/Maildir");
    let pattern = scene.path("srv/users/eve/mail/{user}");
    let pattern = ["capture", "qmail", "--pattern", pattern.to_str().unwrap()].map(OsStr::new);
    assert_eq!(scene.capture_at(&named).only().entries.len(), 1);
    assert_eq!(run(&pattern).only().entries.len(), 1);

    scene.plant("mail", |path| symlink(scene.path("secret/mail"), path).unwrap());
    for ran in [scene.capture_at(&named), run(&pattern)] {
        scene.is_told(&ran, "named");
        assert_eq!((ran.status, ran.stdout.len()), (2, 0), "{}", ran.stderr);
        assert!(ran.stderr.contains("a symbolic link of uid 5001"), "{}", ran.stderr);
    }
    // A link of root's leads to one of Eve's.
    symlink(scene.path("home/eve/mail/Maildir"), scene.path("srv/eve")).unwrap();
    let pattern = scene.path("srv/eve/{user}");
    let ran = run(&["capture", "qmail", "--pattern", pattern.to_str().unwrap()].map(OsStr::new));
    assert!(ran.stderr.contains("a symbolic link of uid 5001"), "{}", ran.stderr);
    // Root made this one, in a directory where Eve could have put it.
    fs::remove_file(scene.path("home/eve/mail")).unwrap();
    symlink(scene.path("secret/mail"), scene.path("home/eve/mail")).unwrap();
    assert_eq!(scene.capture_at(&named).status, 2);
    // This one leads in circles.
    symlink("round", scene.path("srv/round")).unwrap();
    assert_eq!(scene.capture_at(&scene.path("srv/round/Maildir")).status, 2);
}

#[test]
fn what_is_exchanged_while_it_is_looked_at_is_not_read_either() {
    // Each opening is kept waiting, so that there is time between any two steps.
    let slowly = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=openat"];
    let slowly = [&slowly[..], &["-e", "inject=openat:delay_enter=3000"]].concat();
    let can = Command::new(slowly[0]).args(&slowly[1..]).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        crate::shared::lacking("there is no strace, or it may not trace");
        return;
    }
    for planted in ["pipe", "link to a message", "link to a Maildir"] {
        let here = Scene::new();
        let hers = here.path("home/eve/Maildir");
        let (place, beside) = match planted {
            "link to a Maildir" => (hers, here.path("home/eve/beside")),
            _ => (hers.join("cur/1.a:2,S"), here.path("home/eve/beside")),
        };
        match planted {
            "pipe" => fifo(&beside),
            "link to a message" => {
                symlink(here.path("secret/Maildir/cur/1.a:2,S"), &beside).unwrap()
            }
            _ => symlink(here.path("secret/Maildir"), &beside).unwrap(),
        }
        here.give_to_eve(&beside);
        let (done, is_watched) = (AtomicBool::new(false), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                is_watched.wait();
                while !done.load(Ordering::Relaxed) {
                    renameat_with(CWD, &place, CWD, &beside, RenameFlags::EXCHANGE).unwrap();
                    thread::sleep(Duration::from_micros(500));
                }
            });
            let _looking = Done(&done);
            let is_felt = is_felt_at(&beside, || {
                is_watched.wait();
                for round in 0..6 {
                    let args = ["capture", SERVERS[round % 3][0], "--keys", "file,header,message"];
                    let format = if round % 3 == 1 { &["--format", "%u"][..] } else { &[] };
                    let pattern = here.path("home/{user}/Maildir");
                    let mut args: Vec<&OsStr> = args.iter().chain(format).map(OsStr::new).collect();
                    args.extend([OsStr::new("--pattern"), pattern.as_os_str()]);
                    let ran = run_by(&slowly, &args);
                    here.is_told(&ran, planted);
                }
            });
            assert!(!is_felt, "opened: the {planted}");
        });
    }
}

#[test]
fn a_second_link_to_a_file_of_somebody_else_is_not_read() {
    if !is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    for place in ["cur/1.a:2,S", "courierpop3dsizelist", "dovecot-uidlist"] {
        let scene = Scene::new();
        let secret = scene.path("secret/Maildir").join(place);
        scene.plant(&format!("Maildir/{place}"), |path| {
            fs::hard_link(&secret, path).unwrap();
        });
        // It is as it was made: still root's.
        for path in [secret, scene.path("home/eve/Maildir").join(place)] {
            chown(path, Some(0), Some(0)).unwrap();
        }
        for server in SERVERS {
            let at = format!("{server:?}: {place}");
            let ran = scene.capture(server);
            scene.is_told(&ran, &at);
            let maildrop = ran.only();
            if place.starts_with("cur") {
                assert_eq!((ran.status, maildrop.entries[0].header), (1, None), "{at}");
                assert!(ran.stderr.contains("is a hard link to a file of uid 0"), "{at}");
            } else {
                let its_own = matches!(
                    (server[0], place),
                    ("courier", "courierpop3dsizelist") | ("dovecot", "dovecot-uidlist")
                );
                assert_eq!(maildrop.state == State::Failed, its_own, "{at}");
            }
        }
    }
    // A copy that her own server made in this way is read.
    let scene = Scene::new();
    let cur = scene.path("home/eve/Maildir/cur");
    fs::hard_link(cur.join("1.a:2,S"), cur.join("2.b:2,S")).unwrap();
    let maildrop = scene.capture(&["qmail"]).only();
    assert_eq!(maildrop.entries.iter().filter(|entry| entry.header.is_some()).count(), 2);
}

#[test]
fn a_hole_of_a_terabyte_costs_nothing() {
    for place in ["cur/1.a:2,S", "courierpop3dsizelist", "dovecot-uidlist"] {
        let scene = Scene::new();
        let path = scene.path("home/eve/Maildir").join(place);
        fs::write(&path, "Subject: hers\n").unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        for server in SERVERS {
            let at = format!("{server:?}: {place}");
            let ran = scene.capture(server);
            let maildrop = ran.only();
            if place.starts_with("cur") {
                assert_eq!((ran.status, maildrop.entries.len()), (1, 1), "{at}");
                assert!(
                    ran.stderr.contains("has 1099511627776 octets, too many"),
                    "{}",
                    ran.stderr
                );
            } else {
                let its_own = ran.stderr.contains("has more than 268435456 octets");
                assert_eq!(maildrop.state == State::Failed, its_own, "{at}: {}", ran.stderr);
            }
        }
    }
    // A large message is read, and one with a hole that is smaller than itself.
    let scene = Scene::new();
    let large = message("large") + &"A line of it.\n".repeat(300_000);
    fs::write(scene.path("home/eve/Maildir/cur/2.b:2,S"), &large).unwrap();
    let holed = scene.path("home/eve/Maildir/cur/3.c:2,S");
    fs::write(&holed, message("holed")).unwrap();
    OpenOptions::new().write(true).open(&holed).unwrap().set_len(600_000).unwrap();
    let ran = scene.capture(&["qmail", "--keys", "file,message"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.only().entries.iter().all(|entry| entry.message.is_some()));
}

#[test]
fn no_line_or_name_of_theirs_is_printed_as_it_is_or_at_length() {
    let scene = Scene::new();
    let maildir = scene.path("home/eve/Maildir");
    let odd = b"\x1b[2J\x07\xff\r\nuidl-keep: all is well\x9b\n".as_slice();
    let long = "x".repeat(300_000);
    let state: Vec<u8> = [b"odd ", odd, long.as_bytes(), b"\n"].concat();
    let header = |first: &str| [first.as_bytes(), &state].concat();
    fs::write(maildir.join("courierpop3dsizelist"), header("/3 9 17\n")).unwrap();
    fs::write(maildir.join("dovecot-uidlist"), header("3 V17 N9\n")).unwrap();
    let name = OsStr::from_bytes(b"cur/2.\x1b]0;odd\x07\n\xff:2,S");
    symlink("/etc/passwd", maildir.join(name)).unwrap();
    for user in [&b"\x1b[31mred"[..], b"two\nlines", b"no\xffutf8"] {
        fill(&scene.path("home").join(OsStr::from_bytes(user)).join("Maildir"), "hers");
        let other = scene.path("home").join(OsStr::from_bytes(&[user, b"2"].concat()));
        fs::create_dir(&other).unwrap();
        symlink("/etc", other.join("Maildir")).unwrap();
    }
    let is_plain = |text: &[u8], at: &str| {
        for line in text.split(|&octet| octet == b'\n') {
            let shown = String::from_utf8_lossy(line);
            assert!(line.len() < 1000, "{at}: {} octets: {}", line.len(), &shown[..200]);
            let plain = |octet: &u8| (0x20..0x7f).contains(octet);
            assert!(line.iter().all(plain), "{at}: {shown:?}");
        }
    };
    for server in SERVERS {
        let at = format!("{server:?}");
        let ran = scene.capture(server);
        assert_eq!(ran.status, 1);
        assert!(ran.stderr.lines().count() >= 3, "{at}: {}", ran.stderr);
        assert!(ran.stderr.lines().all(|line| line.starts_with("uidl-keep: ")), "{at}");
        is_plain(ran.stderr.as_bytes(), &at);
        is_plain(&ran.stdout, &at);
        // The version is unknown: its first line is shown.
        for list in ["courierpop3dsizelist", "dovecot-uidlist"] {
            fs::write(maildir.join(list), [b"/", odd, long.as_bytes()].concat()).unwrap();
        }
        is_plain(scene.capture(server).stderr.as_bytes(), &at);
        for (list, first) in
            [("courierpop3dsizelist", "/3 9 17\n"), ("dovecot-uidlist", "3 V17 N9\n")]
        {
            fs::write(maildir.join(list), header(first)).unwrap();
        }
    }

    // These users are in what comes after the capture.
    let listing = scene.path("all.listing");
    let ran = scene.capture(&["qmail"]);
    fs::write(&listing, &ran.stdout).unwrap();
    fs::OpenOptions::new().append(true).open(&listing).unwrap();
    let more = "uidl-keep-listing 1\nmaildrop %1b[31mRED%0a\nstate failed\nremark no\n.\n";
    fs::write(&listing, [&ran.stdout[..], more.as_bytes()].concat()).unwrap();
    let site = scene.path("site");
    let (site, listing) = (site.to_str().unwrap(), listing.to_str().unwrap());
    let red = "\u{1b}[31mred";
    for args in [
        &["build", "-o", site, listing][..],
        &["hold", "--site", site, red, "\u{1b}[31mnobody"],
        &["inspect", site],
        &["get", site, red],
        &["check", site],
    ] {
        let ran = run(&args.iter().map(OsStr::new).collect::<Vec<_>>());
        assert!(ran.status < 2 && ran.status >= 0, "{args:?}: {}", ran.stderr);
        assert!(args[0] == "check" || !ran.stdout.is_empty() || !ran.stderr.is_empty(), "{args:?}");
        is_plain(ran.stderr.as_bytes(), args[0]);
        is_plain(&ran.stdout, args[0]);
    }
}

// --- stores that are no Maildir

/// Eve's mbox and her Cyrus mailbox, and the same of somebody else.
fn fill_others(scene: &Scene) {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cyrus/cyrus.index");
    for (place, word) in [("home/eve", "hers"), ("secret", SECRET)] {
        let mbox = format!("From a Mon May  6 10:06:40 2024\n{}", message(word));
        fs::write(scene.path(place).join("mbox"), mbox).unwrap();
        let cyrus = scene.path(place).join("cyrus");
        fs::create_dir(&cyrus).unwrap();
        fs::copy(&index, cyrus.join("cyrus.index")).unwrap();
        fs::write(cyrus.join("1."), message(word)).unwrap();
    }
    scene.give_to_eve(&scene.path("home/eve"));
}

/// Captures everybody's mbox, or Cyrus mailbox.
fn capture_others(scene: &Scene, name: &str) -> Ran {
    let pattern = scene.path("home/{user}").join(name);
    let server = if name == "mbox" { &["mbox", "--server", "popa3d"][..] } else { &["cyrus"] };
    let args = [&["capture"], server, &["--pattern", pattern.to_str().unwrap()]].concat();
    run(&args.iter().map(OsStr::new).collect::<Vec<_>>())
}

#[test]
fn what_is_planted_in_an_mbox_or_a_cyrus_mailbox_is_neither_followed_nor_opened() {
    let names = ["mbox", "cyrus", "cyrus/cyrus.index", "cyrus/1."];
    for name in names {
        for planted in ["link", "pipe", "hole", "second link"] {
            if planted == "second link" && !is_root() || planted == "hole" && name == "cyrus" {
                continue;
            }
            let scene = Scene::new();
            fill_others(&scene);
            let secret = scene.path("secret").join(name);
            match planted {
                "link" => scene.plant(name, |path| symlink(&secret, path).unwrap()),
                "pipe" => scene.plant(name, fifo),
                "hole" => scene.plant(name, |path| {
                    fs::copy(&secret, path).unwrap();
                    OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
                }),
                _ if name == "cyrus" => continue,
                _ => {
                    scene.plant(name, |path| fs::hard_link(&secret, path).unwrap());
                    chown(scene.path("home/eve").join(name), Some(0), Some(0)).unwrap();
                }
            }
            let at = format!("{name}: {planted}");
            let path = scene.path("home/eve").join(name);
            let mut ran = None;
            let felt = is_felt_at(&path, || ran = Some(capture_others(&scene, store_of(name))));
            let ran = ran.unwrap();
            assert!(planted == "hole" || !felt, "{at}: opened");
            scene.is_told(&ran, &at);
            match name {
                "cyrus/1." => assert_eq!(ran.only().entries.len(), 0, "{at}: {}", ran.stderr),
                // The same is said of an account that has no mailbox.
                "cyrus" if planted == "pipe" => assert_eq!(ran.status, 2, "{at}"),
                _ => assert_eq!(ran.only().state, State::Failed, "{at}: {}", ran.stderr),
            }
            if planted != "pipe" || name != "cyrus" {
                assert_eq!(ran.status, 1, "{at}");
            }
        }
    }
    let scene = Scene::new();
    fill_others(&scene);
    for name in ["mbox", "cyrus"] {
        assert_eq!(capture_others(&scene, name).only().entries.len(), 1, "{name}");
    }
}

/// The name of the mailbox that this is in.
fn store_of(name: &str) -> &str {
    name.split('/').next().unwrap()
}

#[test]
fn where_anybody_may_make_links_a_second_one_to_an_mbox_is_not_read() {
    let scene = Scene::new();
    fill_others(&scene);
    let spool = scene.path("spool");
    fs::create_dir(&spool).unwrap();
    fs::hard_link(scene.path("secret/mbox"), spool.join("eve")).unwrap();
    let pattern = spool.join("{user}");
    let args = ["capture", "mbox", "--server", "popa3d", "--pattern", pattern.to_str().unwrap()];
    let args = args.map(OsStr::new);
    // It is root's alone: a copy by hard links, as of a backup.
    fs::set_permissions(&spool, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(&args).only().entries.len(), 1);
    fs::set_permissions(&spool, Permissions::from_mode(0o1777)).unwrap();
    let ran = run(&args);
    scene.is_told(&ran, "1777");
    assert_eq!((ran.status, ran.only().state), (1, State::Failed));
    assert!(ran.stderr.contains("is a hard link"), "{}", ran.stderr);
}

// --- build --install

/// A listing of Eve's, a doveadm that knows her, and a site that has her.
fn installed(scene: &Scene) -> [PathBuf; 3] {
    let [site, listing, doveadm] = ["site", "eve.listing", "doveadm"].map(|name| scene.path(name));
    fs::write(&listing, "uidl-keep-listing 1\nmaildrop eve@ex.com\nstate empty\n.\n").unwrap();
    let knows_her = "[ \"$3\" = user ] && exit 0";
    let script = format!("#!/bin/sh\n{knows_her}\nshift 4\nfor user; do echo {EVE}; done\n");
    write_program(&doveadm, &script);
    let ran = install(&site, &listing, &doveadm);
    assert_eq!((ran.status, &*ran.stderr), (0, ""));
    [site, listing, doveadm]
}

fn install(site: &Path, listing: &Path, doveadm: &Path) -> Ran {
    let args = ["build", "-q", "--install", "--no-check", "--site"].map(OsStr::new);
    let more =
        [site.as_os_str(), OsStr::new("--doveadm"), doveadm.as_os_str(), listing.as_os_str()];
    run(&[&args[..], &more].concat())
}

#[test]
fn nothing_that_is_planted_in_a_site_is_followed_or_waited_for_by_an_install() {
    let scene = Scene::new();
    if !is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let [site, listing, doveadm] = installed(&scene);
    let secret = scene.path("secret/file");
    for name in [".lock", "domain/ex.com.idx", "domain/ex.com.roster"] {
        for suffix in ["", ".new"] {
            for is_fifo in [false, true] {
                fs::write(&secret, SECRET).unwrap();
                fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
                let path = site.join(format!("{name}{suffix}"));
                let before = fs::read(&path);
                let _ = fs::remove_file(&path);
                if is_fifo {
                    fifo(&path);
                } else {
                    symlink(&secret, &path).unwrap();
                }
                let ran = install(&site, &listing, &doveadm);
                let at = format!("{}, FIFO: {is_fifo}: {}", path.display(), ran.stderr);
                assert!(!ran.stderr.contains(SECRET), "{at}");
                let metadata = secret.metadata().unwrap();
                assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (0, 0o600), "{at}");
                assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET, "{at}");
                let is_beside = suffix == ".new";
                assert_eq!(ran.status, if is_beside { 0 } else { 2 }, "{at}");
                if !is_beside {
                    assert!(ran.stderr.contains("site"), "{at}");
                }
                if let Some(before) = before.ok().filter(|_| !is_beside) {
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, before).unwrap();
                } else {
                    let _ = fs::remove_file(&path);
                }
            }
        }
    }
}

#[test]
fn a_site_that_a_user_can_write_is_not_installed_to() {
    let scene = Scene::new();
    if !is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let [site, listing, doveadm] = installed(&scene);
    for name in ["", "domain", "user"] {
        let dir = site.join(name);
        chown(&dir, Some(EVE), None).unwrap();
        let ran = install(&site, &listing, &doveadm);
        assert_eq!(ran.status, 2, "{name}");
        assert!(ran.stderr.contains("owned by uid 5001, and should be by root"), "{}", ran.stderr);
        chown(&dir, Some(0), None).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o775)).unwrap();
        let ran = install(&site, &listing, &doveadm);
        assert!(ran.stderr.contains("mode 0775 lets group or others write it"), "{}", ran.stderr);
        fs::set_permissions(&dir, Permissions::from_mode(0o711)).unwrap();
    }
    assert_eq!(install(&site, &listing, &doveadm).status, 0);
}
