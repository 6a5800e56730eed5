//! The words on whether users are served, `hold`, `release` and `forget`, and their lines in the
//! log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;

use crate::support::cli::{ALICE, BOB, CAROL, DAVE, Here, with_listings};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use uidl_keep::maildrop::State;
use uidl_keep::site::roster::{Gate, Roster, RosterLine};

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
    let of_users = lines.filter(|line| !line.starts_with('@'));
    let gates = of_users.map(|line| line.split(' ').nth(2).unwrap().to_owned());
    gates.collect::<Vec<_>>().join(" ")
}

/// The lines of the log from `from` on, without their times, which are checked.
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

/// The output for these changes, in the order of places: a line for each domain, and one for each
/// user who is among these names or has no domain.
fn printed(names: &[&str], changes: &[(&str, &str)]) -> String {
    let mut printed = String::new();
    let domain = |user: &str| user.split_once('@').map_or(user.to_owned(), |(_, it)| it.into());
    for of_place in changes.chunk_by(|one, other| domain(one.0) == domain(other.0)) {
        let (mut outcomes, mut by_name) = (BTreeMap::new(), String::new());
        for (user, change) in of_place {
            let (_, after) = change.split_once(" -> ").unwrap();
            if user.starts_with('@') {
                outcomes.entry(after).or_insert(0);
            } else if names.contains(user) || !user.contains('@') {
                by_name += &format!("{user} {after}\n");
            } else {
                *outcomes.entry(after).or_insert(0) += 1;
            }
        }
        if outcomes.len() > 1 {
            outcomes.retain(|_, count| *count > 0);
        }
        let outcomes: Vec<_> = outcomes.iter().map(|(word, n)| format!("{word} {n}")).collect();
        if !outcomes.is_empty() {
            printed += &format!("@{} {}\n", domain(of_place[0].0), outcomes.join(", "));
        }
        printed += &by_name;
    }
    printed
}

/// Runs a command, and insists on its output and on the lines that it appends to the log.
fn step(here: &Here, args: &str, stdin: &str, status: i32, changes: &[(&str, &str)]) -> String {
    let log_before = if here.path(LOG).exists() { log(here, 0).len() } else { 0 };
    let ran = here.run_with(args, stdin);
    let mut logged = Vec::new();
    let command: Vec<&str> = args.split(' ').take_while(|it| !it.starts_with("--site")).collect();
    for (user, change) in changes {
        logged.push(format!("{} {user} {change} uid={}", command.join(" "), uid()));
    }
    let listed = fs::read_to_string(here.path("list")).unwrap_or_default();
    let listed = if args.ends_with("--list list") { &listed } else { stdin };
    let names: Vec<&str> = args.split(' ').chain(listed.lines().map(str::trim)).collect();
    let printed = printed(&names, changes);
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
        ("forget", "guarded", "forgotten"),
        ("forget", "held", "held-forgotten"),
        ("hold", "forgotten", "held-forgotten"),
        ("release", "held-forgotten", "forgotten"),
        ("release --redownload", "held-forgotten", "redownload"),
    ] {
        let here = with_site();
        for (word, command) in [("held", "hold"), ("forgotten", "forget")] {
            if gate.contains(word) {
                here.run(&format!("{command} --site site example.com example.net eve"));
            }
        }
        assert_eq!(gates(&here), [gate; 5].join(" "));
        // A user who is forgotten is not served by a release.
        let done = if (command, gate) == ("release", "held-forgotten") { 1 } else { 0 };
        let change = format!("{gate} -> {after}");
        let of = |user: &'static str| (user, change.as_str());
        let (alice, bob) = (of("alice@example.com"), of("bob@example.com"));
        let (dave, eve) = (of("dave@example.net"), of("eve"));
        // Her capture failed; her domain is known.
        let carol = of("carol@example.com");
        let run = |names: &str, stdin: &str, status, changes: &[_]| {
            step(&here, &format!("{command} --site site {names}"), stdin, status, changes)
        };
        run("bob@example.com", "", done, &[bob]);
        // A word on a domain is noted of the domain.
        let was_held = gate.contains("held") && command.starts_with("release");
        let of_domain = match (command, was_held) {
            ("hold", _) => Some("guarded -> held"),
            (_, true) => Some("held -> guarded"),
            _ => None,
        };
        let with_domain = |domain: &'static str, rest: &[(&'static str, &'static str)]| {
            let of_domain = of_domain.map(|change| (domain, change));
            of_domain.into_iter().chain(rest.iter().copied()).collect::<Vec<_>>()
        };
        let change: &'static str = change.clone().leak();
        run("--list -", "@example.net\n", done, &with_domain("@example.net", &[(dave.0, change)]));
        here.write("list", "# those of Monday\n\n\talice@example.com \r\n  eve\n");
        run("--list list", "", done, &[alice, eve]);
        // A user who is as wished is passed over; but each time counts that one is forgotten, or
        // may be listed although much is missing.
        let again = format!("{after} -> {after}");
        let again = ["alice@example.com", "bob@example.com"].map(|user| (user, again.as_str()));
        let rest = [again[0], again[1], carol];
        let counts_again = ["forget", "release --unguarded"].contains(&command);
        let rest = rest.map(|(user, change)| (user, &*change.to_owned().leak()));
        let rest = if counts_again { &rest[..] } else { &rest[2..] };
        run("example.com", "", done, &with_domain("@example.com", rest));
        // An unknown name does not keep the others from it.
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
fn a_domain_that_is_held_holds_also_who_is_built_later() {
    let here = with_listings();
    here.quiet("build -o site two.listing");
    let changes = [("@example.com", "guarded -> held"), ("alice@example.com", "guarded -> held")];
    step(&here, "hold --site site example.com", "", 0, &changes);
    let roster = || here.roster("site/domain/example.com.roster");
    assert_eq!(roster(), ["@example.com empty held", "alice@example.com captured held"]);
    let inspected = here.run("inspect site").stdout;
    assert!(inspected.contains(": 1 maildrops: 1 captured; 1 held; the whole domain held\n"));

    // Bob was on no roster.
    assert_eq!(here.run("build --base site -o site one.listing").status, 0);
    assert_eq!(gates(&here), "held held guarded guarded");
    here.quiet("check site");
    // The same holds if the site is built elsewhere, upon this one.
    here.write("three.listing", CAROL);
    assert_eq!(here.run("build --base site -o other three.listing").status, 0);
    assert_eq!(here.roster("other/domain/example.com.roster")[3], "carol@example.com failed held");
    here.quiet("check other");

    // One of them is served before the others, and the domain is held on.
    let bob = "bob@example.com";
    step(&here, &format!("release --site site {bob}"), "", 0, &[(bob, "held -> guarded")]);
    let changes = [("@example.com", "held -> guarded"), ("alice@example.com", "held -> guarded")];
    step(&here, "release --site site example.com", "", 0, &changes);
    assert_eq!(roster().len(), 2);
    assert_eq!(here.run("build --base site -o site three.listing").status, 0);
    assert_eq!(gates(&here), "guarded guarded guarded guarded guarded");

    // No listing can say so.
    here.write("domain.listing", &BOB.replace("bob@", "@"));
    let said = here.trouble("build --base site -o site domain.listing");
    assert!(said.contains("domain.listing:1: @example.com: a domain and not a user"), "{said}");
}

#[test]
fn a_build_holds_from_the_first_moment() {
    let here = with_listings();
    here.quiet("build --hold -o site one.listing two.listing");
    assert_eq!(gates(&here), "held held held held");
    let first = format!("build --hold @example.com guarded -> held uid={}", uid());
    assert!(log(&here, 0).contains(&first), "{:?}", log(&here, 0));
    here.quiet("check site");
    // A user who was served is held as well; one who is to download again goes on.
    let here = with_site();
    here.run("release --redownload --site site dave@example.net");
    here.run("forget --site site alice@example.com bob@example.com");
    let logged = log(&here, 0).len();
    let ran = here.run("build --hold --base site -o site one.listing two.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(gates(&here), "held held held redownload held");
    let changes = [
        "@example.com guarded -> held",
        "carol@example.com guarded -> held",
        "@example.net guarded -> held",
        "eve guarded -> held",
    ];
    let expected = changes.map(|change| format!("build --hold {change} uid={}", uid()));
    assert_eq!(log(&here, logged), expected);
    here.quiet("check site");
}

#[test]
fn nobody_is_said_to_be_refused_or_captured_before_who_is_not() {
    let here = with_site();
    // She never was captured.
    let ran = here.run("build --base site -o site three.listing");
    assert!(ran.stderr.contains("example.com: 1 failed maildrops"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("captured before"), "{}", ran.stderr);
    let carol = "carol@example.com";
    here.run(&format!("release --redownload --site site {carol}"));
    here.write("failed.listing", &CAROL.replace("carol", "alice"));
    here.run("release --redownload --site site alice@example.com");
    let ran = here.run("build --base site -o site three.listing failed.listing");
    assert_eq!((ran.status, &*ran.stderr), (0, ""));
    // Nothing of hers is kept to which she could go back.
    let ran = here.run(&format!("release --site site {carol}"));
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains("and the capture failed; to have kept unique-ids"),
        "{}",
        ran.stderr
    );
}

#[test]
fn everybody_of_a_site_is_held_and_released_at_once() {
    let here = with_site();
    let changes = [
        ("@example.com", "guarded -> held"),
        ("alice@example.com", "guarded -> held"),
        ("bob@example.com", "guarded -> held"),
        ("carol@example.com", "guarded -> held"),
        ("@example.net", "guarded -> held"),
        ("dave@example.net", "guarded -> held"),
        ("eve", "guarded -> held"),
    ];
    let printed = "@example.com held 3\n@example.net held 1\neve held\n";
    let ran = here.run("hold --all --site site");
    assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (0, printed, ""));
    assert_eq!(gates(&here), ["held"; 5].join(" "));
    let expected = changes.map(|(user, change)| format!("hold {user} {change} uid={}", uid()));
    assert_eq!(log(&here, 0), expected);
    let ran = here.run("hold --all --site site");
    assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (0, "", ""));

    let ran = here.run("release --all --site site");
    assert_eq!((ran.status, &*ran.stderr), (0, ""));
    assert_eq!(ran.stdout, "@example.com guarded 3\n@example.net guarded 1\neve guarded\n");
    assert_eq!(gates(&here), ["guarded"; 5].join(" "));
    for args in ["hold --all eve", "release --all --redownload", "forget --all", "hold"] {
        assert_eq!(here.run(&format!("{args} --site site")).status, 2, "{args}");
    }
}

#[test]
fn a_name_that_is_said_twice_is_one_name() {
    let here = with_site();
    step(&here, "hold --site site eve", "", 0, &[("eve", "guarded -> held")]);
    // After a second release she would not even be guarded.
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
    here.run("build --base site -o site odd.listing");
    let odd = here.command("hold --site site").arg("a b\nc@example.com").output().unwrap();
    assert!(odd.status.success(), "{odd:?}");
    assert!(log(&here, 2)[0].starts_with("hold a%20b%0ac@example.com guarded -> held "));
    // It is not taken for a file of the site, either.
    here.run("build --base site -o site --final");
    here.quiet("check site");
    assert_eq!(here.run("inspect site").stdout.lines().count(), 6);
    assert_eq!(here.run("dump site").status, 0);
    // It does not matter that it is moved away, either.
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
        ("Is a directory", &|| fs::create_dir(&log).unwrap()),
        ("Too many levels of symbolic links", &|| symlink(here.path("precious"), &log).unwrap()),
        ("not a regular file", &|| {
            mknodat(CWD, &log, FileType::Fifo, Mode::from(0o600), 0).unwrap()
        }),
    ];
    for (what, plant) in plant {
        plant();
        let trouble = here.trouble("release --redownload --site site eve");
        assert!(trouble.contains(&format!("changes.log: {what}")), "{trouble}");
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
    let output = here.unread("hold --site site example.com example.net eve");
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    assert_eq!(gates(&here), "held held held held held");
}

/// The line of a user, without the name and the checksum.
fn line(here: &Here, user: &str) -> String {
    let place =
        user.split_once('@').map_or(format!("user/{user}"), |(_, it)| format!("domain/{it}"));
    let lines = here.roster(&format!("site/{place}.roster"));
    let found = lines.iter().find_map(|line| line.strip_prefix(user)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{user}: {lines:?}")).to_owned()
}

fn stamp(here: &Here, user: &str) -> u64 {
    let line = line(here, user);
    let stamp = line.split(' ').find_map(|word| word.strip_prefix("forgotten="));
    stamp.map_or(0, |stamp| stamp.parse().unwrap())
}

/// The UIDLs that the index gives a user's messages, in order, and those that are spent, sorted.
fn uidls(here: &Here, user: &str) -> (String, String) {
    let got = here.run(&format!("get site {user}")).stdout;
    let words: Vec<Vec<&str>> = got.lines().map(|line| line.split(' ').collect()).collect();
    let is_message = |words: &&Vec<&str>| words[0].parse::<u32>().is_ok();
    let messages: Vec<&str> = words.iter().filter(is_message).map(|words| words[1]).collect();
    let spent = words.iter().filter(|words| words[0] == "spent").map(|words| words[1]);
    let mut spent: Vec<&str> = spent.collect();
    spent.sort_unstable();
    (messages.join(" "), spent.join(" "))
}

#[test]
fn who_is_forgotten_is_built_anew_of_a_listing_and_the_old_unique_ids_are_spent() {
    let here = with_site();
    let alice = "alice@example.com";
    let right = ALICE.replace("UID1-", "right.1.").replace("UID2-", "right.2.");
    here.write("right.listing", &right);
    let before = here.read("site/domain/example.com.idx");
    step(&here, &format!("forget --site site {alice}"), "", 0, &[(alice, "guarded -> forgotten")]);
    assert!(here.read("site/domain/example.com.idx") == before, "the roster alone is changed");
    let since = stamp(&here, alice);
    assert!(since > 1_700_000_000);

    // A build with no listing of hers does not end it.
    let ran = here.run("build --base site -o site one.listing");
    assert!(ran.stderr.contains("1 maildrops are still forgotten"), "{}", ran.stderr);
    assert!(ran.stderr.contains("(the first: alice@example.com)"), "{}", ran.stderr);
    assert_eq!(line(&here, alice), format!("captured forgotten forgotten={since}"));
    // A listing that says that the capture failed does not end it.
    here.write("failed.listing", &CAROL.replace("carol", "alice"));
    let ran = here.run("build --base site -o site failed.listing");
    assert!(ran.stderr.contains("still forgotten"), "{}", ran.stderr);
    assert_eq!(line(&here, alice), format!("failed forgotten forgotten={since}"));
    // A build without the files that were there does not help.
    let trouble = here.trouble("build -o site right.listing one.listing");
    assert!(trouble.contains("unique-ids of alice@example.com would be dropped"), "{trouble}");

    let ran = here.run("build --base site -o site right.listing");
    assert_eq!(
        ran.stderr.lines().next(),
        Some(
            "uidl-keep: example.com: 1 failed maildrops, their users are refused until they are \
             captured again (the first: carol@example.com)"
        )
    );
    assert_eq!(
        ran.stderr.lines().nth(1),
        Some(
            "uidl-keep: example.com: 1 forgotten maildrops are built anew and guarded; their \
             earlier unique-ids are spent (the first: alice@example.com)"
        ),
        "{}",
        ran.stderr
    );
    assert_eq!(line(&here, alice), format!("captured guarded forgotten={since}"));
    let spent = "UID1-1714990000 UID2-1714990000 UID9-1714990000";
    let expected = ("right.1.1714990000 right.2.1714990000".into(), spent.into());
    assert_eq!(uidls(&here, alice), expected);
    assert!(here.run(&format!("get site {alice}")).stdout.contains("counter 13 UID%u-%v\n"));
    here.quiet("check site");

    // From now on it is built upon as any other, and the stamp stays.
    let ran = here.run("build --base site -o site right.listing");
    assert!(!ran.stderr.contains("forgotten"), "{}", ran.stderr);
    assert_eq!(line(&here, alice), format!("captured guarded forgotten={since}"));
    assert_eq!(uidls(&here, alice), expected);
    // She is forgotten again at once: the stamp is later.
    here.run(&format!("forget --site site {alice}"));
    here.run(&format!("forget --site site {alice}"));
    assert!(stamp(&here, alice) >= since + 2);
}

#[test]
fn a_wrong_counter_is_spent_number_by_number_or_said_to_be_too_long_for_that() {
    let here = with_site();
    let alice = "alice@example.com";
    let right = ALICE.replace("counter 13 UID%u-%v", "counter 13 %v.%u").replace("UID", "right.");
    here.write("right.listing", &right);
    here.run(&format!("forget --site site {alice}"));
    assert_eq!(here.run("build --base site -o site right.listing").status, 0);
    let (_, spent) = uidls(&here, alice);
    assert!(spent.contains("UID9-1714990000") && spent.contains("UID12-1714990000"), "{spent}");

    let far = ALICE.replace("counter 13", "counter 300000");
    here.write("far.listing", &far.replace("alice", "zoe"));
    here.write("right.listing", &right.replace("alice", "zoe"));
    assert_eq!(here.run("build --base site -o site far.listing").status, 0);
    here.run("forget --site site zoe@example.com");
    let trouble = here.trouble("build --base site -o site right.listing");
    assert!(
        trouble
            .ends_with("leave its later listing out, and `release --redownload zoe@example.com`\n"),
        "{trouble}"
    );
    assert_eq!(line(&here, "zoe@example.com").split(' ').nth(1), Some("forgotten"));
}

#[test]
fn a_roster_of_another_form_is_refused_with_what_to_do() {
    let here = with_site();
    let old = "uidl-keep-roster 2 1\neve captured guarded b74d9cc6\n. 84699a83\n";
    here.write("site/user/eve.roster", old);
    for args in [
        "forget --site site eve",
        "hold --site site eve",
        "check site",
        "build --final --base site -o site",
    ] {
        let trouble = here.trouble(args);
        let said =
            "eve.roster: a roster of version 2, and only version 1 is read: build it again from";
        assert!(trouble.contains(said), "{args}: {trouble}");
        assert_eq!(here.read("site/user/eve.roster"), old.as_bytes());
    }
    assert!(!here.path(LOG).exists());
}

#[test]
fn a_stamp_grows_also_when_the_clock_was_set_back() {
    let here = with_site();
    let future = 4_000_000_000_u64;
    let mut roster = Roster::new();
    let mut eve = RosterLine::new("eve", State::Captured, Gate::Released);
    eve.forgotten = future;
    roster.insert(eve).unwrap();
    fs::write(here.path("site/user/eve.roster"), roster.to_text()).unwrap();
    for times in 1..=3 {
        here.run("forget --site site eve");
        assert_eq!(stamp(&here, "eve"), future + times);
    }
}

#[test]
fn who_was_held_is_held_after_he_was_forgotten_and_built() {
    let here = with_site();
    let (dave, eve) = ("dave@example.net", "eve");
    let held = "guarded -> held";
    let hold = format!("hold --site site {dave} {eve}");
    step(&here, &hold, "", 0, &[(dave, held), (eve, held)]);
    let forgotten = "held -> held-forgotten";
    let forget = format!("forget --site site {dave} {eve}");
    let said = step(&here, &forget, "", 0, &[(dave, forgotten), (eve, forgotten)]);
    assert!(said.contains("dave@example.net is forgotten and held"), "{said}");
    // Eve is still refused after the release; dave is held on.
    let said =
        step(&here, "release --site site eve", "", 1, &[(eve, "held-forgotten -> forgotten")]);
    assert!(said.contains("eve is still refused, as forgotten: capture again and build"), "{said}");
    step(&here, "release --unguarded --site site eve", "", 1, &[]);
    let ran = here.run("build --base site -o site one.listing two.listing");
    assert_eq!(gates(&here), "guarded guarded guarded held guarded");
    assert!(ran.stderr.contains("example.net: 1 forgotten maildrops are built anew and held;"));
    assert!(ran.stderr.contains("eve: 1 forgotten maildrops are built anew and guarded;"));
    // The UIDLs are the same again: they are those of the listing now, and nothing is spent.
    assert_eq!(uidls(&here, eve), ("a a".into(), String::new()));
}

#[test]
fn a_domain_that_is_released_says_who_of_it_is_still_forgotten() {
    let here = with_site();
    here.run("hold --site site example.com");
    here.run("forget --site site alice@example.com bob@example.com");
    let changes = [
        ("@example.com", "held -> guarded"),
        ("alice@example.com", "held-forgotten -> forgotten"),
        ("bob@example.com", "held-forgotten -> forgotten"),
        ("carol@example.com", "held -> guarded"),
    ];
    let said = step(&here, "release --site site example.com", "", 1, &changes);
    assert!(
        said.contains("example.com: 2 of its users are still refused, as forgotten: capture again"),
        "{said}"
    );
    assert!(said.contains("(the first: alice@example.com)"), "{said}");
}

#[test]
fn who_downloads_again_is_brought_back_by_name_only_and_not_to_what_was_forgotten() {
    let here = with_site();
    let dave = "dave@example.net";
    let step = |command: &str, whom: &str, status, changes: &[_]| {
        step(&here, &format!("{command} --site site {whom}"), "", status, changes)
    };
    let redownload = "release --redownload";
    step(redownload, dave, 0, &[(dave, "guarded -> redownload")]);
    let said = step("hold", "example.net", 0, &[("@example.net", "guarded -> held")]);
    assert!(said.contains("example.net: 1 of its users download again, as told before"), "{said}");
    assert_eq!(step("release", "example.net", 0, &[("@example.net", "held -> guarded")]), "");
    assert_eq!(step("release --unguarded", "example.net", 0, &[]), "");
    for command in ["release", "release --unguarded"] {
        let said = step(command, dave, 1, &[]);
        assert!(said.contains("downloads again, as told before"), "{said}");
    }
    let said = step("hold", dave, 0, &[(dave, "redownload -> held")]);
    assert!(said.contains("was to download again; that is taken back"), "{said}");
    step(redownload, dave, 0, &[(dave, "held -> redownload")]);

    // The whole domain is forgotten: he downloads on, and there is nothing to go back to.
    step("forget", "example.net", 0, &[(dave, "redownload -> redownload")]);
    let since = stamp(&here, dave);
    assert!(since > 0);
    step("hold", dave, 0, &[(dave, "redownload -> held-forgotten")]);
    step(redownload, dave, 0, &[(dave, "held-forgotten -> redownload")]);
    // Maildrops that are built meanwhile are built anew, too.
    here.write("right.listing", &DAVE.replace("0000000155aa", "right"));
    assert_eq!(here.run("build --base site -o site right.listing").status, 0);
    assert_eq!(line(&here, dave), format!("captured redownload forgotten={since}"));
    assert_eq!(uidls(&here, dave), ("right".into(), "0000000155aa".into()));
    let said = step("forget", dave, 0, &[(dave, "redownload -> forgotten")]);
    assert!(said.contains("was to download again; that is taken back"), "{said}");
}

const USERS: [&str; 3] = ["alice@example.com", "bob@example.com", "dave@example.net"];

/// One command that an operator may give.
#[derive(Debug, Clone)]
enum Step {
    /// A word that is given, the names it is given for, and who of [`USERS`] is meant by name, and
    /// who by domain.
    Say { command: &'static str, names: &'static str, named: [bool; 3], of_domain: [bool; 3] },
    /// The users for whom a listing is built upon the site, and whether the capture went well.
    Build { listed: [bool; 3], is_good: bool },
}

fn any_step() -> impl Strategy<Value = Step> {
    let commands =
        ["hold", "release", "release --unguarded", "release --redownload", "forget", "forget"];
    let whom = [
        ("alice@example.com", [true, false, false], [false; 3]),
        ("bob@example.com dave@example.net", [false, true, true], [false; 3]),
        ("example.com", [false; 3], [true, true, false]),
        ("@example.net", [false; 3], [false, false, true]),
        ("example.com bob@example.com", [false, true, false], [true, true, false]),
        ("@example.com example.net", [false; 3], [true; 3]),
    ];
    let say = (prop::sample::select(commands.to_vec()), prop::sample::select(whom.to_vec()));
    let say = say.prop_map(|(command, (names, named, of_domain))| Step::Say {
        command,
        names,
        named,
        of_domain,
    });
    let build = (any::<[bool; 3]>(), prop::bool::weighted(0.7));
    let build = build.prop_map(|(listed, is_good)| Step::Build { listed, is_good });
    prop_oneof![3 => say, 2 => build]
}

/// The facts on which an operator may rely for one user, whatever came in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    held: bool,
    downloads_again: bool,
    awaits_capture: bool,
    forgotten: u64,
    /// The UIDLs that the index gives to messages, and all that it ever gave.
    entries: BTreeSet<String>,
    ever: BTreeSet<String>,
}

impl Facts {
    fn said(&mut self, command: &str, is_named: bool) {
        // A word on a domain does not touch those who have begun to download again.
        let is_for_him = is_named || !self.downloads_again;
        match command {
            "release --redownload" => {
                (self.held, self.downloads_again) = (false, true);
                // His line does not say any more whether he was built anew.
                self.awaits_capture = self.forgotten != 0;
            }
            "hold" if is_for_him => (self.held, self.downloads_again) = (true, false),
            "forget" if is_for_him => (self.awaits_capture, self.downloads_again) = (true, false),
            "forget" => self.awaits_capture = true,
            "release" | "release --unguarded" if !self.downloads_again => self.held = false,
            _ => {}
        }
    }

    /// Notes that a capture with one message was built upon the site.
    fn built(&mut self, uidl: &str, is_good: bool) {
        if is_good {
            if self.awaits_capture {
                self.entries.clear();
            }
            self.entries.insert(uidl.to_owned());
            self.ever.insert(uidl.to_owned());
            self.awaits_capture &= self.downloads_again;
        }
    }

    fn gate_fits(&self, gate: &str) -> bool {
        match (self.downloads_again, self.awaits_capture, self.held) {
            (true, ..) => gate == "redownload",
            (_, true, true) => gate == "held-forgotten",
            (_, true, false) => gate == "forgotten",
            (_, false, true) => gate == "held",
            (_, false, false) => gate == "guarded" || gate == "released",
        }
    }
}

fn listing(user: &str, uidl: &str, is_good: bool) -> String {
    let what = if is_good {
        format!("state captured\n1 {uidl} file={uidl}")
    } else {
        "state failed\nremark the disk was on fire".into()
    };
    format!("uidl-keep-listing 1\nmaildrop {user}\n{what}\n.\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_order_of_commands_nothing_that_was_said_is_lost(
        steps in prop::collection::vec(any_step(), 1..14),
    ) {
        let here = Here::new();
        let first: String = USERS.iter().map(|user| listing(user, "first", true)).collect();
        here.write("first.listing", &first);
        here.quiet("build -o site first.listing");
        let mut facts: [Facts; 3] = std::array::from_fn(|_| Facts::default());
        facts.iter_mut().for_each(|facts| facts.built("first", true));
        let lines_of = |here: &Here| USERS.map(|user| line(here, user));
        let gate_of = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
        for (number, step) in steps.iter().enumerate() {
            let before = lines_of(&here);
            let logged = if here.path(LOG).exists() { log(&here, 0).len() } else { 0 };
            let mut changes = Vec::new();
            match step {
                Step::Say { command, names, named, of_domain } => {
                    let ran = here.run(&format!("{command} --site site {names}"));
                    prop_assert!(ran.status < 2, "{}", ran.stderr);
                    for (at, facts) in facts.iter_mut().enumerate() {
                        if named[at] || of_domain[at] {
                            facts.said(command, named[at]);
                        }
                    }
                    for (at, after) in lines_of(&here).iter().enumerate() {
                        if *after != before[at] {
                            let (before, after) = (gate_of(&before[at]), gate_of(after));
                            let user = USERS[at];
                            let change = format!("{before} -> {after} uid={}", uid());
                            changes.push(format!("{command} {user} {change}"));
                        }
                    }
                }
                Step::Build { listed, is_good } => {
                    let uidl = format!("n{number}");
                    let users = USERS.iter().zip(&mut facts).zip(listed);
                    let listed = users.filter(|(_, listed)| **listed);
                    let mut text = String::new();
                    for ((user, facts), _) in listed {
                        text += &listing(user, &uidl, *is_good);
                        facts.built(&uidl, *is_good);
                    }
                    if !text.is_empty() {
                        here.write("new.listing", &text);
                        let ran = here.run("build --base site -o site new.listing");
                        prop_assert_eq!(ran.status, 0, "{}", ran.stderr);
                    }
                }
            }
            let mut new_in_log =
                if here.path(LOG).exists() { log(&here, logged) } else { Vec::new() };
            // These are lines of whole domains.
            new_in_log.retain(|line| !line.contains(" @"));
            prop_assert_eq!(new_in_log, changes, "{} {:?}", number, step);
            for (at, user) in USERS.iter().enumerate() {
                let facts = &mut facts[at];
                let now = line(&here, user);
                let is_forget = matches!(
                    step,
                    Step::Say { command: "forget", named, of_domain, .. }
                        if named[at] || of_domain[at]
                );
                let stamp = stamp(&here, user);
                prop_assert_eq!(stamp > facts.forgotten, is_forget, "{} {}", number, now);
                prop_assert!(stamp >= facts.forgotten);
                facts.forgotten = stamp;
                prop_assert!(
                    facts.gate_fits(&gate_of(&now)),
                    "{} {:?}: {} {:?}",
                    number,
                    step,
                    now,
                    facts
                );
                let (entries, spent) = uidls(&here, user);
                let set = |text: &str| text.split_whitespace().map(str::to_owned).collect();
                let entries: BTreeSet<String> = set(&entries);
                let spent: BTreeSet<String> = set(&spent);
                prop_assert_eq!(&entries, &facts.entries, "{} {:?}", number, step);
                let ever: BTreeSet<String> = entries.union(&spent).cloned().collect();
                prop_assert_eq!(&ever, &facts.ever, "{} {:?}", number, step);
            }
        }
        here.quiet("check site");
    }
}
