//! `plugin guard`: the file that it writes for Dovecot's auth and for the loader, asked of programs
//! that play Dovecot's. [tests/hosts/loader.rs] has the guard in real Dovecots.

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use uidl_keep::dovecot::guard::name_of_process;
use uidl_keep::maildrop::State;
use uidl_keep::site::roster::{Gate, Roster, RosterLine};

use crate::shared::program::write_program;
use crate::support::cli::{Here, with_listings};

/// Auth refuses whom the file names, as long as a file `reads` is there.
const DOVEADM: &str = r#"#!/bin/sh
for user; do :; done
case "$*" in
*"auth test"*)
    user=$(echo "$*" | sed 's/.*-- \(.*\) any$/\1/')
    cp SITE/auth/stop-pop3 HERE/asked
    [ ! -e HERE/die ] || kill -9 $PPID
    [ -e HERE/small ] && user=$(echo "$user" | tr A-Z a-z)
    [ -e HERE/reads ] && grep -q "^$user:" SITE/auth/stop-pop3 &&
        printf 'passdb: %s auth succeeded\nextra fields:\n  user=%s\n  nologin\n' "$user" "$user" &&
        echo '  reason=[SYS/TEMP]' || { echo "passdb: $user auth failed"; exit 77; }
    ;;
*"user -f user"*) ;;
*) exit 1 ;;
esac
"#;

const DOVECONF: &str = r#"#!/bin/sh
case "$*" in
*passdb) printf 'passdb {\n  args = SITE/auth/stop-%%s\n  driver = passwd-file\n}\n' ;;
*auth_mechanisms) echo 'auth_mechanisms = plain' ;;
*-n) echo '# 2.3.19 (0000000000): HERE/dovecot.conf' ;;
*base_dir) echo 'base_dir = HERE/run' ;;
*) exit 1 ;;
esac
"#;

/// A site, and what plays Dovecot beside it.
struct Guarded {
    here: Here,
    /// The process that auth says it is.
    auth: Arc<AtomicU32>,
    /// The processes that played auth.
    played: RefCell<Vec<Child>>,
    /// The socket at which POP3 processes take whoever has logged in.
    pop3: UnixListener,
}

impl Deref for Guarded {
    type Target = Here;

    fn deref(&self) -> &Here {
        &self.here
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        for child in self.played.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Guarded {
    /// Reloads Dovecot: auth is another process from now on.
    fn reload(&self) {
        // The start of a process is known to some hundredths of a second.
        thread::sleep(Duration::from_millis(100));
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        self.auth.store(child.id(), Ordering::SeqCst);
        self.played.borrow_mut().push(child);
        thread::sleep(Duration::from_millis(100));
    }

    /// The first line of the file, of a guard that is proven for the auth that runs.
    fn first_line(&self, is_whole: &str, canary: &str) -> String {
        let process = name_of_process(self.auth.load(Ordering::SeqCst)).unwrap();
        let socket = self.path("run/auth-client");
        format!("# uidl-keep-guard {is_whole} {} {process} {canary}", socket.display())
    }
}

/// Greets whoever asks auth, as that process.
fn greet(socket: &Path, process: Arc<AtomicU32>) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.take(2).for_each(|line| assert!(line.unwrap().contains('\t')));
            let process = process.load(Ordering::SeqCst);
            let greeting = format!("VERSION\t1\t2\nMECH\tPLAIN\nSPID\t{process}\nDONE\n");
            let _ = stream.write_all(greeting.as_bytes());
        }
    });
}

/// A site of alice, bob and dave, a Dovecot that reads the file, and a directory for auth.
fn with_site() -> Guarded {
    let here = with_listings();
    assert_eq!(here.run("build -o site one.listing two.listing").status, 0);
    for (name, text) in [("doveadm", DOVEADM), ("doveconf", DOVECONF)] {
        let text = text.replace("SITE", here.path("site").to_str().unwrap());
        let text = text.replace("HERE", here.0.path().to_str().unwrap());
        write_program(&here.path(name), &text);
    }
    fs::create_dir(here.path("site/auth")).unwrap();
    here.write("reads", "");
    here.write("small", "");
    fs::create_dir_all(here.path("run/login")).unwrap();
    here.write("dovecot.conf", "");
    let auth = Arc::new(AtomicU32::new(0));
    greet(&here.path("run/auth-client"), auth.clone());
    let pop3 = UnixListener::bind(here.path("run/login/pop3")).unwrap();
    let guarded = Guarded { here, auth, played: RefCell::default(), pop3 };
    guarded.reload();
    guarded
}

fn guard(here: &Guarded) -> crate::support::cli::Ran {
    let doveadm = here.path("doveadm");
    here.run(&format!("plugin guard --site site --doveadm {}", doveadm.display()))
}

const FIELDS: &str = ":::::::nopassword=y nologin=y reason=[SYS/TEMP]";

/// Whether the file says that it names everybody, and the names. The first must be one that this
/// version of the file alone has, and is replaced.
fn said(here: &Guarded) -> (&'static str, Vec<String>) {
    let text = String::from_utf8(here.read("site/auth/stop-pop3")).unwrap();
    let (head, rest) = text.split_once('\n').unwrap();
    let names = rest.lines().filter(|line| !line.starts_with('#'));
    let names = names.map(|line| line.strip_suffix(FIELDS).unwrap_or_else(|| panic!("{text}")));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    let is_whole = [ON, NOT_WHOLE].into_iter().find(|it| head == here.first_line(it, &names[0]));
    let is_whole = is_whole.unwrap_or_else(|| panic!("{head}"));
    let number = names[0].strip_prefix("uidl-keep-guard-");
    let number = number.and_then(|rest| rest.strip_suffix("@example.com")).unwrap();
    assert!(number.parse::<u64>().unwrap() > 1_700_000_000);
    names[0] = CANARY.to_owned();
    (is_whole, names)
}

const CANARY: &str = "the canary";
const ON: &str = "1";
const NOT_WHOLE: &str = "0";

/// When a file came to its place, in nanoseconds.
fn placed(here: &Here, name: &str) -> i64 {
    let metadata = here.path(name).metadata().unwrap();
    metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec()
}

#[test]
fn the_guard_names_everybody_who_does_not_download_again() {
    let here = with_site();
    here.run("release --redownload --site site dave@example.net");
    let ran = guard(&here);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let (alice, bob, dave) = ("alice@example.com", "bob@example.com", "dave@example.net");
    assert_eq!(said(&here), (ON, [CANARY, alice, bob, "eve"].map(Into::into).into()));
    assert_eq!(here.mode("site/auth/stop-pop3"), 0o640);
    here.quiet("check site");
    // While it was not proven, the file did not say so.
    let asked = String::from_utf8(here.read("asked")).unwrap();
    let is_unproven =
        asked.starts_with("# uidl-keep-guard 0 ") && asked.contains("/auth-client - ");
    assert!(is_unproven && asked.contains(&format!("\n{bob}:")), "{asked}");

    // Each change of a gate keeps it so.
    for command in ["hold --site site eve", "release --site site eve", "forget --site site eve"] {
        here.run(command);
        assert_eq!(said(&here).1, [CANARY, alice, bob, "eve"], "{command}");
    }
    // Who is to be refused again is named before the roster says so.
    let ran = here.run(&format!("hold --site site {dave}"));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(said(&here), (ON, [CANARY, alice, bob, dave, "eve"].map(Into::into).into()));
    here.quiet("check site");
    here.run(&format!("release --redownload --site site {dave}"));
    assert_eq!(said(&here).1, [CANARY, alice, bob, "eve"]);
    // Her roster is the last, so that her line is where it will stay.
    here.run("release --redownload --site site eve");
    assert_eq!(here.run("hold --site site eve").status, 0);
    let [named, held] = ["site/auth/stop-pop3", "site/user/eve.roster"].map(|it| placed(&here, it));
    assert!(held - named >= 1_000_000_000, "auth may not have seen it: {held} {named}");
}

#[test]
fn whoever_is_built_is_named_before_he_is_on_a_roster() {
    let here = with_site();
    assert_eq!(here.run("release --redownload --site site eve").status, 0);
    assert_eq!(guard(&here).status, 0);
    // Her roster is the last, so that her line is where it will stay.
    here.write("zoe.listing", "uidl-keep-listing 1\nmaildrop zoe@zoo.example\nstate empty\n.\n");
    let ran = here.run("build -o site --base site zoe.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(said(&here).1.iter().any(|user| user == "zoe@zoo.example"));
    let [named, on_roster] =
        ["site/auth/stop-pop3", "site/domain/zoo.example.roster"].map(|name| placed(&here, name));
    assert!(on_roster - named >= 1_000_000_000, "auth may not have seen it: {on_roster} {named}");
    here.quiet("check site");
}

#[test]
fn a_guard_that_cannot_name_everybody_says_so_to_the_loader() {
    let here = with_site();
    assert_eq!(guard(&here).status, 0);
    let ran = here.run("hold --site site example.com");
    assert!(ran.stderr.contains("the line @example.com is for users whom no roster names"));
    assert!(ran.stderr.contains("POP3 refuses everybody while no plugin fits"), "{}", ran.stderr);
    assert_eq!(said(&here).0, NOT_WHOLE);
    let ran = here.run("release --site site example.com");
    assert_eq!(said(&here).0, ON, "{}", ran.stderr);
    let roster = here.path("site/domain/example.com.roster");
    let text = fs::read_to_string(&roster).unwrap();
    fs::write(&roster, text.replace("alice", "alicf")).unwrap();
    assert!(here.run("hold --site site eve").stderr.contains("POP3 refuses everybody"));
    let (head, names) = said(&here);
    assert_eq!(head, NOT_WHOLE);
    assert!(names.iter().any(|user| user == "alice@example.com"), "kept from before: {names:?}");
    assert_eq!(names.iter().filter(|user| *user == CANARY).count(), 1);
}

/// One customer's file keeps nobody else out of POP3, whatever he makes of it.
#[test]
fn what_an_account_writes_into_its_own_roster_costs_the_guard_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let here = with_site();
    assert_eq!(guard(&here).status, 0);
    let named = said(&here).1;
    let roster = here.path("site/user/eve.roster");
    let right = fs::read_to_string(&roster).unwrap();
    let mut forged = Roster::new();
    for user in ["eve", "@example.com", "*@example.com", "a:b@example.com", "bob@stranger.example"]
    {
        forged.insert(RosterLine::new(user, State::Captured, Gate::Held)).unwrap();
    }
    for (text, mode, command) in [
        (forged.to_text(), 0o400, "hold"),
        ("uidl-keep-roster 1 1\nspoilt\n".to_owned(), 0o400, "release"),
        (String::new(), 0o400, "hold"),
        (right, 0o666, "release"),
    ] {
        fs::write(&roster, text).unwrap();
        chown(&roster, Some(5001), Some(5001)).unwrap();
        fs::set_permissions(&roster, Permissions::from_mode(mode)).unwrap();
        let ran = here.run(&format!("{command} --site site bob@example.com"));
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(said(&here), (ON, named.clone()), "{}", ran.stderr);
    }
    // Before it is on, nobody knows who is on a roster that is spoilt.
    fs::remove_file(here.path("site/auth/stop-pop3")).unwrap();
    fs::write(&roster, "spoilt").unwrap();
    let ran = guard(&here);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("eve.roster"), "{}", ran.stderr);
}

#[test]
fn a_guard_is_not_turned_on_where_it_would_not_keep_everybody_out() {
    let here = with_site();
    let stop = here.path("site/auth/stop-pop3");
    let refuses = |word: &str| {
        let ran = guard(&here);
        assert_eq!(ran.status, 2, "{word}");
        assert!(ran.stderr.contains(word), "no {word:?} in {}", ran.stderr);
    };
    fs::remove_file(here.path("reads")).unwrap();
    refuses("does not say nologin and reason=[SYS/TEMP], but: passdb: uidl-keep-guard-");
    assert!(!fs::read_to_string(&stop).unwrap().contains("alice"));
    here.write("reads", "");
    fs::remove_file(here.path("small")).unwrap();
    refuses("@EXAMPLE.COM` does not say nologin");
    here.write("small", "");
    for line in ["*@example.com failed guarded", "@example.com empty held"] {
        here.run("release --site site example.com");
        if line.starts_with('@') {
            here.run("hold --site site example.com");
        } else {
            let block = "uidl-keep-listing 1\nmaildrop *@example.com\nstate failed\nremark x\n.\n";
            here.write("all.listing", block);
            here.run("build -o site --base site all.listing");
        }
        refuses("is for users whom no roster names");
        assert!(!fs::read_to_string(&stop).unwrap().contains("# uidl-keep-guard"));
        if !line.starts_with('@') {
            here.run("release --redownload --site site *@example.com");
        }
    }
    here.run("release --site site example.com");
    let odd = "uidl-keep-listing 1\nmaildrop a:b@example.com\nstate empty\n.\n";
    here.write("odd.listing", odd);
    assert_eq!(here.run("build -o site --base site odd.listing").status, 0);
    refuses("1 users have names that no passwd-file can have (the first: a:b@example.com)");
    here.run("release --redownload --site site a:b@example.com");
    assert_eq!(guard(&here).status, 0);
    let other = here.path("doveconf");
    write_program(&other, "#!/bin/sh\nprintf 'passdb {\\n  driver = pam\\n}\\n'\n");
    refuses("the first passdb of `doveconf -f protocol=pop3 passdb` is pam");
    assert_eq!(said(&here).0, ON, "it stays as it is");
}

#[test]
fn a_site_without_anybody_needs_no_guard() {
    let here = with_site();
    for user in ["example.com", "example.net", "eve"] {
        here.run(&format!("release --redownload --site site {user}"));
    }
    let ran = guard(&here);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("there is nobody to guard"), "{}", ran.stderr);
}

/// The names in the file, and what the first line says, as text.
fn text(here: &Guarded) -> String {
    fs::read_to_string(here.path("site/auth/stop-pop3")).unwrap()
}

#[test]
fn each_version_of_the_file_has_a_name_that_no_other_has() {
    let here = with_site();
    assert_eq!(guard(&here).status, 0);
    let canary = |text: &str| text.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let mut seen = vec![canary(&text(&here))];
    for command in [
        "release --redownload --site site eve",
        "hold --site site eve",
        "hold --site site example.net",
    ] {
        here.run(command);
        let now = text(&here);
        assert!(!seen.iter().any(|old| now.contains(&format!("\n{old}:"))), "{command}: {now}");
        assert!(now.contains(&format!("\n{}:", canary(&now))), "{command}: {now}");
        assert!(!seen.contains(&canary(&now)), "{command}: {now}");
        seen.push(canary(&now));
    }
}

#[test]
fn a_guard_is_proven_anew_for_an_auth_that_was_started_anew() {
    let here = with_site();
    assert_eq!(guard(&here).status, 0);
    let before = (text(&here), placed(&here, "site/auth/stop-pop3"));
    fs::remove_file(here.path("asked")).unwrap();
    let ran = guard(&here);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!((text(&here), placed(&here, "site/auth/stop-pop3")), before, "it stands");
    assert!(here.path("asked").exists(), "and is proven all the same");
    // Auth no longer heeds it.
    fs::remove_file(here.path("reads")).unwrap();
    assert_eq!(guard(&here).status, 2);
    here.write("reads", "");
    // A change of a gate proves nothing.
    let ours = name_of_process(here.auth.load(Ordering::SeqCst)).unwrap();
    here.reload();
    here.run("release --redownload --site site eve");
    assert!(text(&here).lines().next().unwrap().contains(&format!(" {ours} ")));
    let ran = guard(&here);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(said(&here).0, ON);
}

#[test]
fn whom_auth_has_let_in_before_is_waited_for() {
    let here = with_site();
    let connect = || {
        let client = UnixStream::connect(here.path("run/login/pop3")).unwrap();
        (client, here.pop3.accept().unwrap())
    };
    let wait = Duration::from_secs(4);
    let (client, since) = (connect(), Instant::now());
    let gone = thread::spawn(move || {
        thread::sleep(wait);
        drop(client);
    });
    assert_eq!(guard(&here).status, 0);
    assert!(since.elapsed() >= wait, "{:?}", since.elapsed());
    gone.join().unwrap();
    // Nobody on a roster is served as a stranger who was let in before.
    here.write("zoe.listing", "uidl-keep-listing 1\nmaildrop zoe@zoo.example\nstate empty\n.\n");
    let (client, since) = (connect(), Instant::now());
    let gone = thread::spawn(move || {
        thread::sleep(wait);
        drop(client);
    });
    assert_eq!(here.run("build -o site --base site zoe.listing").status, 0);
    assert!(since.elapsed() >= wait, "{:?}", since.elapsed());
    gone.join().unwrap();
    assert_eq!(said(&here).0, ON);
}

#[test]
fn a_line_of_nobody_in_particular_is_told_before_it_is_on_a_roster() {
    let block = "uidl-keep-listing 1\nmaildrop *@example.com\nstate failed\nremark x\n.\n";
    for (command, roster) in [
        ("hold --site site example.com", "site/domain/example.com.roster"),
        ("build -o site --base site all.listing", "site/domain/example.com.roster"),
        ("build -o site --base site --hold bob.listing", "site/domain/example.com.roster"),
    ] {
        let here = with_site();
        here.write("all.listing", block);
        here.write("bob.listing", crate::support::cli::BOB);
        assert_eq!(guard(&here).status, 0);
        here.run(command);
        assert_eq!(said(&here).0, NOT_WHOLE, "{command}");
        let [told, on_roster] = ["site/auth/stop-pop3", roster].map(|name| placed(&here, name));
        assert!(on_roster > told, "{command}: {on_roster} {told}");
    }
}

#[test]
fn a_guard_that_was_killed_on_its_way_can_be_ended() {
    let here = with_site();
    here.write("die", "");
    let doveadm = here.path("doveadm");
    let mut run =
        here.command(&format!("plugin guard --site site --doveadm {}", doveadm.display()));
    assert_eq!(run.output().unwrap().status.code(), None, "killed");
    fs::remove_file(here.path("die")).unwrap();
    assert!(text(&here).contains("\nalice@example.com:"));
    // Nothing that happens later proves it.
    here.run("release --redownload --site site eve");
    assert!(text(&here).starts_with("# uidl-keep-guard 0 "), "{}", text(&here));
    assert_eq!(guard(&here).status, 0);
    assert_eq!(said(&here).0, ON);
}

#[test]
fn an_auth_that_is_older_than_the_configuration_proves_nothing() {
    let here = with_site();
    here.write("more.conf", "");
    here.write("dovecot.conf", "!include *.conf\n");
    let ran = guard(&here);
    assert_eq!(ran.status, 2);
    let word = "dovecot.conf was changed after Dovecot's auth was started";
    assert!(ran.stderr.contains(word), "{}", ran.stderr);
    here.reload();
    assert_eq!(guard(&here).status, 0);
    here.write("more.conf", "# another\n");
    let ran = guard(&here);
    assert!(ran.status == 2 && ran.stderr.contains("more.conf was changed"), "{}", ran.stderr);
    assert_eq!(said(&here).0, ON, "it stays as it was");
    here.reload();
    assert_eq!(guard(&here).status, 0);
}
