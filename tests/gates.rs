//! Whether users are served: `hold`, `release` and `forget`, and what they leave in the log.

mod cli_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use cli_support::{BOB, CAROL, Here, with_listings};
use rustix::fs::{CWD, FileType, Mode, mknodat};

const LOG: &str = "site/changes.log";

/// A site with alice, bob and carol (whose capture failed) of example.com, dave of example.net, and
/// eve without a domain.
fn with_site() -> Here {
    let here = with_listings();
    here.write("three.listing", CAROL);
    let ran = here.run("build -o site one.listing two.listing three.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    here
}

/// The gates of example.com, then of dave and eve.
fn gates(here: &Here) -> String {
    let rosters = ["domain/example.com", "domain/example.net", "user/eve"];
    let lines = rosters.iter().flat_map(|place| here.roster(&format!("site/{place}.roster")));
    let gates = lines.map(|line| line.split(' ').nth(2).unwrap().to_owned());
    gates.collect::<Vec<_>>().join(" ")
}

/// The lines of the log from one on, without their times, which are checked to be such.
fn log(here: &Here, from: usize) -> Vec<String> {
    let text = String::from_utf8(here.read(LOG)).unwrap();
    assert!(text.ends_with('\n'));
    let lines = text.lines().map(|line| {
        let (time, rest) = line.split_once(' ').unwrap();
        humantime::parse_rfc3339(time).unwrap();
        rest.to_owned()
    });
    lines.skip(from).collect()
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// What a run prints, and what it appends to the log.
fn step(here: &Here, args: &str, stdin: &str, status: i32, changes: &[(&str, &str)]) -> String {
    let log_before = if here.path(LOG).exists() { log(here, 0).len() } else { 0 };
    let ran = here.run_with(args, stdin);
    let (mut printed, mut logged) = (String::new(), Vec::new());
    let command: Vec<&str> = args.split(' ').take_while(|it| !it.starts_with("--site")).collect();
    for (user, change) in changes {
        let (_, after) = change.split_once(" -> ").unwrap();
        printed += &format!("{user} {after}\n");
        logged.push(format!("{} {user} {change} uid={}", command.join(" "), uid()));
    }
    assert_eq!((ran.status, &*ran.stdout), (status, &*printed), "{args}: {}", ran.stderr);
    if changes.is_empty() {
        assert!(log_before == 0 || log(here, log_before).is_empty(), "{args}");
    } else {
        assert_eq!(log(here, log_before), logged, "{args}");
    }
    here.quiet("check site");
    ran.stderr
}

#[test]
fn every_command_takes_users_and_domains_from_arguments_lists_and_standard_input() {
    for (command, gate, after) in [
        ("hold", "guarded", "held"),
        ("release", "held", "guarded"),
        ("release --unguarded", "guarded", "released"),
        ("release --redownload", "guarded", "redownload"),
    ] {
        let here = with_site();
        if gate == "held" {
            here.run("hold --site site example.com example.net eve");
        }
        let change = format!("{gate} -> {after}");
        let of = |user: &'static str| (user, change.as_str());
        let (alice, bob) = (of("alice@example.com"), of("bob@example.com"));
        let (dave, eve) = (of("dave@example.net"), of("eve"));
        // Her capture failed; in a domain that is known.
        let carol = of("carol@example.com");
        let run = |names: &str, stdin: &str, status, changes: &[_]| {
            step(&here, &format!("{command} --site site {names}"), stdin, status, changes)
        };
        run("bob@example.com", "", 0, &[bob]);
        run("@example.net", "", 0, &[dave]);
        here.write("list", "# those of Monday\n\n\talice@example.com \r\n  eve\n");
        run("--list list", "", 0, &[alice, eve]);
        run("--list -", "example.com\n", 0, &[carol]);
        // Nobody is on it twice; nobody unknown keeps the others from it.
        let said = run("--list - zoe@example.com frank", "example.org\nbob@example.org\n", 1, &[]);
        for name in ["zoe@example.com", "frank", "example.org", "bob@example.org"] {
            assert!(said.contains(&format!(" {name}")), "{command}: {name}: {said}");
        }
        assert_eq!(said.lines().count(), 4, "{said}");
        assert!(here.trouble(&format!("{command} --site site --list missing")).contains("missing"));
        let ran = here.run(&format!("{command} --site site"));
        assert_eq!(ran.status, 2, "nobody named: {}", ran.stderr);
    }
}

#[test]
fn a_name_that_is_said_twice_is_one_name() {
    let here = with_site();
    step(&here, "hold --site site eve", "", 0, &[("eve", "guarded -> held")]);
    // Released twice she would not even be guarded.
    step(&here, "release --site site eve eve", "", 0, &[("eve", "held -> guarded")]);
    let twice = "release --site site --list - eve";
    step(&here, twice, "eve\neve\n", 0, &[("eve", "guarded -> released")]);
    step(
        &here,
        "hold --site site dave@example.net",
        "",
        0,
        &[("dave@example.net", "guarded -> held")],
    );
    let both = "release --site site example.net dave@example.net";
    step(&here, both, "", 0, &[("dave@example.net", "held -> guarded")]);
}

#[test]
fn the_log_says_who_did_it_and_is_roots_alone() {
    let here = with_site();
    let mut command = here.command("hold --site site eve");
    assert!(command.env("SUDO_USER", "er in\n%\u{e9}").status().unwrap().success());
    assert_eq!(
        log(&here, 0),
        [format!("hold eve guarded -> held uid={} sudo=er%20in%0a%25%c3%a9", uid())]
    );
    assert_eq!(here.mode(LOG), 0o600);
    let mut command = here.command("release --site site eve");
    assert!(command.env("SUDO_USER", "x".repeat(5000)).status().unwrap().success());
    assert!(log(&here, 1)[0].len() < 250, "{:?}", log(&here, 1));
    // A user name is written as the roster writes it.
    here.write("odd.listing", &BOB.replace("bob@example.com", "a%20b%0ac@example.com"));
    here.run("build --upon site -o site odd.listing");
    let odd = here.command("hold --site site").arg("a b\nc@example.com").output().unwrap();
    assert!(odd.status.success(), "{odd:?}");
    assert!(log(&here, 2)[0].starts_with("hold a%20b%0ac@example.com guarded -> held "));
    // Neither is it taken for a file of the site.
    here.run("build --upon site -o site --final");
    here.quiet("check site");
    assert_eq!(here.run("inspect site").stdout.lines().count(), 6);
    assert_eq!(here.run("dump site").status, 0);
    // Nor does it matter that it is moved away.
    fs::rename(here.path(LOG), here.path("site/changes.log.1")).unwrap();
    here.quiet("check site");
    step(&here, "hold --site site eve", "", 0, &[("eve", "guarded -> held")]);
}

#[test]
fn what_cannot_be_logged_is_not_done() {
    let here = with_site();
    let roster = here.read("site/user/eve.roster");
    let log = here.path(LOG);
    here.write("precious", "precious");
    let plant: [(&str, &dyn Fn()); 3] = [
        ("a directory", &|| fs::create_dir(&log).unwrap()),
        ("a link", &|| symlink(here.path("precious"), &log).unwrap()),
        ("a FIFO", &|| mknodat(CWD, &log, FileType::Fifo, Mode::from(0o600), 0).unwrap()),
    ];
    for (what, plant) in plant {
        plant();
        let trouble = here.trouble("release --redownload --site site eve");
        assert!(trouble.contains("changes.log: "), "{what}: {trouble}");
        assert!(trouble.contains("nothing is changed"), "{what}: {trouble}");
        assert!(here.read("site/user/eve.roster") == roster, "{what}");
        assert_eq!(here.files("site").len(), 6, "{what}: nothing is left beside it");
        fs::remove_file(&log).or_else(|_| fs::remove_dir(&log)).unwrap();
    }
    assert_eq!(here.read("precious"), b"precious");
}

#[test]
fn a_line_that_a_power_cut_left_does_not_run_into_the_next() {
    let here = with_site();
    here.write(LOG, "2026-11-15T09:30:00Z hold ev");
    assert_eq!(here.run("hold --site site eve").status, 0);
    let text = String::from_utf8(here.read(LOG)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "2026-11-15T09:30:00Z hold ev"));
    assert!(lines[1].contains(" hold eve guarded -> held uid="), "{text}");
}

#[test]
fn a_full_disk_leaves_roster_and_log_as_they_were() {
    let here = with_site();
    here.run("hold --site site eve");
    let (roster, log) = (here.read("site/domain/example.com.roster"), here.read(LOG));
    // Files may have so many octets: enough for the new roster, and not for the longer log.
    let most = log.len().max(roster.len() + 60) + 20;
    here.write(LOG, &"x".repeat(most - 30));
    let log = here.read(LOG);
    let out = std::process::Command::new("prlimit")
        .arg(format!("--fsize={most}"))
        .args(["sh", "-c", "trap '' XFSZ; exec \"$0\" hold --site site example.com"])
        .arg(env!("CARGO_BIN_EXE_uidl-keep"))
        .current_dir(here.path("."))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("changes.log: File too large"), "{said}");
    assert!(here.read("site/domain/example.com.roster") == roster);
    assert!(here.read(LOG) == log, "no half line");
    assert_eq!(here.files("site").len(), 6);
}

#[test]
fn a_change_that_fails_after_its_line_is_followed_by_one_that_says_so() {
    let here = with_site();
    let roster = here.path("site/user/eve.roster");
    let chattr = |flag: &str| {
        let made = std::process::Command::new("chattr").arg(flag).arg(&roster).output();
        made.is_ok_and(|made| made.status.success())
    };
    if !chattr("+i") {
        eprintln!("skipped: no file can be made immutable here");
        return;
    }
    let ran = here.run("hold --site site eve dave@example.net");
    assert!(chattr("-i"));
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    let lines = log(&here, 0);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("hold dave@example.net guarded -> held "));
    assert!(lines[1].starts_with("hold eve guarded -> held "));
    assert!(lines[2].starts_with("hold not done in site/user/eve.roster uid="), "{lines:?}");
    assert_eq!(ran.stdout, "dave@example.net held\n");
    assert_eq!(gates(&here), "guarded guarded guarded held guarded");
    assert_eq!(here.files("site").len(), 6);
}

#[test]
fn all_that_were_named_are_held_when_nobody_reads_what_is_printed() {
    let here = with_site();
    let mut child = here
        .command("hold --site site example.com example.net eve")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    assert_eq!(gates(&here), "held held held held held");
}
