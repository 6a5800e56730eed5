//! docs/exit-status.md: each status of each command, brought about.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::cli::{ALICE, CAROL, Here, with_listings};

const DOC: &str = include_str!("../../docs/exit-status.md");

/// The statuses that the table has for each command.
fn table() -> BTreeMap<&'static str, BTreeSet<i32>> {
    let rows = DOC.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &'static str| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        let statuses = (0..3).filter(|&status| cells[status as usize + 1] != "-").collect();
        (cells[0].trim_end_matches('`'), statuses)
    };
    rows.map(row).collect()
}

#[test]
fn every_command_has_a_row() {
    let here = Here::new();
    let help = here.command_with_summary("help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("\nCommands:\n").nth(1).unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let commands: BTreeSet<&str> = commands.filter(|command| *command != "help").collect();
    let rows: BTreeSet<&str> = table().into_keys().collect();
    assert_eq!(commands, rows);
}

#[test]
fn each_status_in_the_table_comes_about() {
    let here = with_listings();
    here.write("three.listing", CAROL);
    here.write("cut.listing", &ALICE[..ALICE.len() - 2]);
    let built = here.run("build -o site one.listing two.listing three.listing");
    assert_eq!(built.status, 0, "{}", built.stderr);
    here.write("damaged.idx", "damaged");
    for part in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(here.path("Maildir").join(part)).unwrap();
    }
    here.write("Maildir/cur/1.a:2,S", "Subject: 1\n\nbody\n");
    std::fs::create_dir_all(here.path("mail/eve/cur")).unwrap();
    std::fs::create_dir_all(here.path("mail/eve/new")).unwrap();
    here.write("mail/eve/cur/1:2,S", "Subject: 1\n\nbody\n");
    here.write("mail/eve/cur/2:2,S", "Subject: 2\n\nbody\n");
    let maildir = format!("{}/mail/{{user}}", here.0.path().display());
    let forecast = format!("forecast --site site --maildir {maildir} --format %u --match file");

    let mut seen: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    let capture = "capture courier --user al Maildir";
    for (status, args) in [
        (0, "build -o other one.listing".to_owned()),
        (1, "build -o third one.listing --except @example.net".into()),
        (2, "build -o fourth cut.listing".into()),
        (0, "capture qmail --user al Maildir".into()),
        (1, format!("{capture} -o lost.listing")),
        (2, "capture courier --user al nowhere".into()),
        (0, "check site".into()),
        (2, "check damaged.idx".into()),
        (0, "dump site".into()),
        (2, "dump damaged.idx".into()),
        (0, format!("explain --site site --no-check --maildir {maildir} eve")),
        (1, format!("explain --site site --no-check --maildir {maildir} zoe@example.com")),
        (2, format!("explain --site nowhere --no-check --maildir {maildir} eve")),
        (0, format!("{forecast} --only eve")),
        (1, forecast),
        (2, format!("forecast --site nowhere --maildir {maildir}")),
        (0, "forget --site site bob@example.com".into()),
        (1, "forget --site site zoe@example.com".into()),
        (2, "forget --site nowhere bob@example.com".into()),
        (0, "get site alice@example.com".into()),
        (1, "get site zoe@example.com".into()),
        (2, "get damaged.idx alice@example.com".into()),
        (0, "hold --site site alice@example.com".into()),
        (1, "hold --site site zoe@example.com".into()),
        (2, "hold --site site".into()),
        (0, "inspect site".into()),
        (2, "inspect damaged.idx".into()),
        (0, "listed --site site alice@example.com".into()),
        (1, "listed --site site zoe@example.com".into()),
        (2, "listed --site site --list nowhere".into()),
        (0, "release --site site alice@example.com".into()),
        (1, "release --site site carol@example.com".into()),
        (2, "release --site nowhere alice@example.com".into()),
        (0, "restored --site site alice@example.com".into()),
        (1, "restored --site site example.org".into()),
        (2, "restored --site nowhere alice@example.com".into()),
        (0, "settings --site site alice@example.com".into()),
        (2, "settings --file nowhere".into()),
        (0, "status --site site --no-check --no-ledgers".into()),
        (1, "status --site site --no-check --no-ledgers example.org".into()),
        (2, "status --site nowhere --no-check --no-ledgers".into()),
    ] {
        if args.starts_with(capture) {
            here.write("Maildir/courierpop3dsizelist", "");
        }
        let ran = here.run(&args);
        assert_eq!(ran.status, status, "{args}: {}{}", ran.stdout, ran.stderr);
        assert!(status == 0 || !ran.stderr.is_empty() || !ran.stdout.is_empty(), "{args}");
        seen.entry(args.split(' ').next().unwrap().to_owned().leak()).or_default().insert(status);
    }
    let table = table();
    for (command, statuses) in seen {
        assert_eq!(table.get(command), Some(&statuses), "{command}");
    }
}

#[test]
fn a_reader_that_goes_away_does_not_hide_that_somebody_was_not_held() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    let mut command = here.command("hold --site site eve zoe@example.com");
    let stdio = std::process::Stdio::piped;
    let mut child = command.stdout(stdio()).stderr(stdio()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
