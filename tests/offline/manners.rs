//! What all commands have in common: closing summaries, dry runs, progress for programs, and the
//! versions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::support::cli::{ALICE, BOB, CAROL, Here, Ran, with_listings};

/// Runs the helper with its closing summary.
fn run(here: &Here, args: &str) -> Ran {
    let output = here.command_with_summary(args).output().unwrap();
    Ran {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn last_line(ran: &Ran) -> &str {
    ran.stderr.lines().last().unwrap_or_default()
}

/// Each file and directory below, with its octets and the time of its last change.
fn state_of(dir: &Path) -> BTreeMap<String, (SystemTime, Vec<u8>)> {
    let mut state = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let octets = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        state.insert(path.display().to_string(), (metadata.modified().unwrap(), octets));
        if metadata.is_dir() {
            state.extend(state_of(&path));
        }
    }
    state
}

#[test]
fn a_dry_run_says_what_the_change_says_ends_as_it_does_and_changes_nothing() {
    let here = with_listings();
    here.write("three.listing", CAROL);
    here.run("build -o site one.listing two.listing three.listing");
    for setting in ["", "hold example.com", "forget alice@example.com", "release --redownload eve"]
    {
        if !setting.is_empty() {
            here.run(&format!("{setting} --site site"));
        }
        for command in [
            "hold example.com",
            "hold eve zoe@example.com",
            "hold --all",
            "release alice@example.com carol@example.com",
            "release --unguarded example.com",
            "release --redownload bob@example.com eve",
            "forget example.com",
            "listed example.com alice@example.com",
            "restored example.com eve",
            "hold example.org",
        ] {
            let fresh = Here::new();
            let copied = std::process::Command::new("cp")
                .args(["-a"])
                .arg(here.path("site"))
                .arg(fresh.path("site"))
                .status();
            assert!(copied.unwrap().success());
            let _ = fs::remove_file(fresh.path("site/.lock"));
            let before = state_of(fresh.0.path());
            let dry = run(&fresh, &format!("{command} --site site --dry-run"));
            assert!(state_of(fresh.0.path()) == before, "{command}: something is changed");
            let real = run(&fresh, &format!("{command} --site site"));
            assert_eq!(dry.status, real.status, "{command}: {}", dry.stderr);
            let as_if_done = |said: &str| said.replace("would be ", "").replace(" is ", " ");
            assert_eq!(dry.stdout.replace("would be ", ""), real.stdout, "{command}");
            assert_eq!(as_if_done(&dry.stderr), as_if_done(&real.stderr), "{command}");
            assert!(dry.stdout.is_empty() || dry.stdout.contains(" would be "), "{}", dry.stdout);
            assert_eq!(dry.stderr.matches(" would be changed, ").count(), 1, "{}", dry.stderr);
        }
    }
    assert!(here.trouble("hold --site nowhere example.com --dry-run").contains("nowhere: No such"));
    assert!(!here.path("nowhere").exists());
}

#[test]
fn gates_that_change_are_counted() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    let summary = |args: &str| {
        let ran = run(&here, args);
        last_line(&ran).to_owned()
    };
    let hold = "hold --site site alice@example.com";
    let dry = "uidl-keep: hold: 1 would be changed, 0 already were so, 0 not done";
    assert_eq!(summary(&format!("{hold} --dry-run")), dry);
    assert_eq!(summary(hold), "uidl-keep: hold: 1 changed, 0 already were so, 0 not done");
    let all = "hold --site site example.com zoe@example.com";
    assert_eq!(summary(all), "uidl-keep: hold: 1 changed, 1 already were so, 1 not done");
    here.run("forget --site site bob@example.com");
    let release = "release --site site example.com";
    let said = "uidl-keep: release: 1 changed, 0 already were so, 1 not done";
    assert_eq!(summary(release), said);
    assert_eq!(run(&here, &format!("{hold} -q")).stderr, "");
    // Errors and remarks are no manners.
    let ran = run(&here, "hold --quiet --site site zoe@example.com");
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("zoe@example.com is not on it"), "{}", ran.stderr);
}

#[test]
fn a_build_says_what_it_made_and_a_dry_one_what_it_would_make() {
    let here = with_listings();
    let build = "build --install --site site --no-check --doveadm ./doveadm";
    let fake = "#!/bin/sh\necho 0\n";
    crate::shared::program::write_program(&here.path("doveadm"), fake);
    let first = "2 maildrops added, 0 captured again, 0 failed, 1 messages, 0 messages have \
                 another UIDL than in an earlier capture, 0 gates changed";
    // Not even the site is made.
    let before = state_of(here.0.path());
    let dry = run(&here, &format!("{build} one.listing --dry-run"));
    assert_eq!(dry.status, 0, "{}", dry.stderr);
    assert_eq!(last_line(&dry), format!("uidl-keep: would be built: {first} -> site"));
    assert!(state_of(here.0.path()) == before);
    let real = run(&here, &format!("{build} one.listing"));
    assert_eq!((real.status, &*real.stdout), (0, ""), "{}", real.stderr);
    assert_eq!(last_line(&real), format!("uidl-keep: built: {first} -> site"));

    // The later capture has other UIDLs, one more maildrop, and the domain is held.
    here.run(&format!("{build} two.listing"));
    let later = ALICE.replace("UID2-1714990000 uid=2", "UID12-1714990000 uid=12");
    let later = later.replace("counter 13", "counter 14");
    here.write("later.listing", &[&*later, BOB, CAROL].concat());
    let args = format!("{build} --final --hold later.listing");
    let before = state_of(here.0.path());
    let dry = run(&here, &format!("{args} --dry-run"));
    assert!(state_of(here.0.path()) == before);
    let made = "1 maildrops added, 2 captured again, 1 failed, 2 messages, 1 messages have \
                another UIDL than in an earlier capture, 3 gates changed";
    assert_eq!(dry.stdout, format!("@example.com would be built: {made}\n"), "{}", dry.stderr);
    assert_eq!(last_line(&dry), format!("uidl-keep: would be built: {made}, final -> site"));
    let real = run(&here, &args);
    assert_eq!((dry.status, real.status), (0, 0), "{}", real.stderr);
    assert_eq!(dry.stderr.replace("would be ", ""), real.stderr);
    let log = String::from_utf8(here.read("site/changes.log")).unwrap();
    assert_eq!(log.lines().count(), 3, "{log}");

    // A dry run refuses what the build refuses.
    here.write("cut.listing", &BOB[..BOB.len() - 2]);
    assert_eq!(run(&here, &format!("{build} cut.listing --dry-run")).status, 2);
    let ran = run(&here, &format!("{build} two.listing --except eve --dry-run"));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("1 maildrops of the listings are left out"), "{}", ran.stderr);
}

/// A Maildir that Courier served, with that many messages.
fn maildir(here: &Here, path: &str, messages: usize) {
    let mut list = format!("/3 {} 17\n", messages + 1);
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(here.path(path).join(part)).unwrap();
    }
    for at in 1..=messages {
        here.write(&format!("{path}/cur/{at}.a:2,S"), &format!("Subject: {at}\n\nbody\n"));
        list += &format!("{at}.a:2,S 18 {at}:17:0\n");
    }
    if messages > 0 {
        here.write(&format!("{path}/courierpop3dsizelist"), &list);
    }
}

#[test]
fn a_capture_says_how_much_it_has_and_where_it_is() {
    let here = Here::new();
    maildir(&here, "example.com/alice", 1200);
    maildir(&here, "example.com/bob", 0);
    here.write("example.com/carol", "no directory");
    let pattern = format!("{}/{{domain}}/{{local}}", here.0.path().display());
    let whole = format!("capture courier --keys file --pattern {pattern}");
    let ran = run(&here, &format!("{whole} -o a.listing"));
    let said = "uidl-keep: 1 captured, 1 never polled, 0 failed, 1,200 messages -> a.listing";
    assert_eq!((ran.status, last_line(&ran)), (0, said), "{}", ran.stderr);
    let ran = run(&here, &whole);
    let said = said.replace("a.listing", "standard output");
    assert_eq!((ran.status, last_line(&ran)), (0, &*said), "{}", ran.stderr);
    assert!(!ran.stdout.contains("never polled"));
    let quiet = run(&here, &format!("-q {whole}"));
    assert_eq!((quiet.status, &*quiet.stderr), (0, ""));

    here.write("example.com/alice/courierpop3dsizelist", "");
    let ran = run(&here, &whole);
    let said = "uidl-keep: 0 captured, 1 never polled, 1 failed, 0 messages -> standard output";
    assert_eq!((ran.status, last_line(&ran)), (1, said), "{}", ran.stderr);
}

#[test]
fn progress_for_programs_is_json_lines_of_which_the_last_is_the_end() {
    let here = Here::new();
    maildir(&here, "example.com/alice", 3);
    maildir(&here, "example.com/bob", 2);
    let pattern = format!("{}/{{domain}}/{{local}}", here.0.path().display());
    let capture = format!("capture courier --keys file --pattern {pattern} -o a.listing");
    let json = |args: &str| -> Vec<serde_json::Value> {
        let ran = run(&here, &format!("{capture} {args}"));
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let lines = ran.stderr.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for args in ["--progress json", "--progress json -q"] {
        let lines = json(args);
        let last = lines.last().expect("a last one");
        let keys = ["done", "total", "failed", "messages", "seconds_remaining"];
        assert_eq!(keys.map(|key| last[key].as_u64()), [2, 2, 0, 5, 0].map(Some), "{last}");
        assert!(last["rate"].as_f64().unwrap() > 0.0, "{last}");
    }
    assert!(json("--progress none").is_empty() && json("").is_empty());
    assert_eq!(run(&here, &format!("{capture} --progress all")).status, 2);
}

#[test]
fn the_version_has_those_of_the_formats_beneath_it() {
    let here = Here::new();
    let long = run(&here, "--version");
    let lines: Vec<&str> = long.stdout.lines().collect();
    let version = format!("uidl-keep {}", env!("CARGO_PKG_VERSION"));
    assert_eq!((long.status, lines[0]), (0, &*version));
    for (line, what) in [
        (1, "listing 1, index 2, roster 1, ledger 1"),
        (2, "normaliser 1"),
        (3, "Dovecot 2.3 and 2.4"),
    ] {
        assert!(lines[line].contains(what), "{}", long.stdout);
    }
    assert_eq!(run(&here, "-V").stdout, format!("{version}\n"));
    // The listing is what the version says.
    assert!(ALICE.starts_with(&format!("uidl-keep-listing {}\n", uidl_keep::listing::VERSION)));
    let shim = include_str!("../../dovecot-plugin/shim.c");
    assert!(shim.contains("knows the plugin interface of Dovecot 2.3 and 2.4;"));
}
