//! The commands in docs/capture.md.

use std::process::Command;

const DOC: &str = include_str!("../../docs/capture.md");

/// Runs a command in a directory with nothing in it, and says what it said.
fn said_to(command: &str, nowhere: &std::path::Path) -> String {
    let helper = env!("CARGO_BIN_EXE_uidl-keep");
    let command = command.replacen("uidl-keep", helper, 1);
    let ran = Command::new("sh").args(["-c", &command]).current_dir(nowhere).output().unwrap();
    assert_eq!(ran.status.code(), Some(2), "{command}");
    String::from_utf8(ran.stderr).unwrap()
}

#[test]
fn every_command_shown_is_one_that_uidl_keep_takes() {
    let nowhere = tempfile::tempdir().unwrap();
    let is_shown =
        |line: &&str| line.starts_with("    uidl-keep capture ") && line.contains("--pattern");
    let shown = DOC.lines().filter(is_shown);
    let mut patterns = 0;
    for line in shown {
        let root = format!("{line} --root {}", nowhere.path().display());
        let said = said_to(&root, nowhere.path());
        // The error is not "error: unexpected argument"; it says that nothing is there.
        assert!(said.starts_with("uidl-keep: ") && said.contains("No such file"), "{line}: {said}");
        patterns += 1;
    }
    assert_eq!(patterns, 6);
    let piped = DOC.lines().find_map(|line| line.trim().strip_prefix("} | ")).expect("a pipe");
    std::fs::write(nowhere.path().join("users"), "").unwrap();
    let piped = piped.replace("auto", "%u") + " < /dev/null";
    assert!(said_to(&piped, nowhere.path()).contains("no output of doveadm"));
}

#[test]
fn every_capture_in_the_table_is_a_subcommand() {
    let helped = |server: &str| {
        let helper = env!("CARGO_BIN_EXE_uidl-keep");
        Command::new(helper).args(["capture", server, "--help"]).output().unwrap().status.success()
    };
    let named = DOC.split("`capture ").skip(1).map(|rest| rest.split([' ', '`']).next().unwrap());
    let named: std::collections::BTreeSet<&str> = named.collect();
    assert!(named.len() >= 6, "{named:?}");
    assert!(named.iter().all(|server| helped(server)), "{named:?}");
    assert!(!helped("nonesuch"));
}
