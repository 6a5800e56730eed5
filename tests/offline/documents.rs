//! Help, man pages and completions: they all say the same of an option.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../../docs/uidl-keep.1");

/// The commands, `capture pop3` among them, each with its help.
fn commands() -> Vec<(String, String)> {
    let names = |of: &str| -> Vec<String> {
        let help = help(of);
        let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        let lines = listed.lines().take_while(|line| !line.is_empty() || line.starts_with(' '));
        let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(|name| format!("{of} {name}")).collect()
    };
    let (mut commands, all) = (Vec::new(), names(""));
    assert!(all.len() > 9, "{all:?}");
    for name in all {
        let below = names(&name);
        for name in if below.is_empty() { vec![name] } else { below } {
            commands.push((name.trim().to_owned(), help(&name)));
        }
    }
    commands
}

fn help(command: &str) -> String {
    let mut helper = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
    let output = helper.arg("help").args(command.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).unwrap()
}

/// The options, by their long names, of which a text speaks.
fn options(text: &str) -> BTreeSet<&str> {
    let is_name =
        |octet: char| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == '-';
    let ends = |rest: &str| rest.find(|octet| !is_name(octet)).unwrap_or(rest.len());
    let rest = text.split("--").skip(1).map(|rest| &rest[..ends(rest)]);
    rest.filter(|name| name.starts_with(|octet: char| octet.is_ascii_lowercase())).collect()
}

/// The options that a help explains at the beginning of a line.
fn told(help: &str) -> BTreeSet<&str> {
    let lines = help.lines().map(str::trim_start);
    let lines = lines.filter(|line| line.starts_with('-'));
    lines.flat_map(|line| options(line).into_iter().next()).filter(|name| *name != "help").collect()
}

fn made(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.replace("\\-", "-")
}

#[test]
fn each_option_of_each_command_is_on_its_page_and_completed() {
    let dir = tempfile::tempdir().unwrap();
    let helper = env!("CARGO_BIN_EXE_uidl-keep");
    let ran = Command::new(helper).arg("documents").arg(dir.path()).output().unwrap();
    assert!(ran.status.success() && ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");

    let shells = ["uidl-keep.bash", "uidl-keep.fish", "_uidl-keep"];
    let shells = shells.map(|file| (file, made(dir.path(), file)));
    let mut pages = 0;
    for (command, help) in commands() {
        let name = format!("uidl-keep-{}.1", command.replace(' ', "-"));
        let page = made(dir.path(), &name);
        let on_page = options(&page);
        for option in told(&help) {
            assert!(on_page.contains(option), "{name} says nothing of --{option}");
            for (file, completions) in &shells {
                assert!(completions.contains(option), "{file} does not know --{option}");
            }
        }
        pages += 1;
    }
    assert_eq!(pages, 32);
    // Nobody runs `documents` by hand.
    assert!(!dir.path().join("uidl-keep-documents.1").exists());
    for (file, completions) in &shells {
        assert!(!completions.contains("documents"), "{file}");
    }
}

#[test]
fn the_page_written_by_hand_knows_no_option_that_is_not_there() {
    let commands = commands();
    let of_the_helper = help("");
    let there = commands.iter().map(|(_, help)| help).chain([&of_the_helper]);
    let there: BTreeSet<&str> = there.flat_map(|help| told(help)).collect();
    let page = PAGE.replace("\\-", "-");
    let spoken_of = options(&page);
    assert!(spoken_of.len() > 20, "{spoken_of:?}");
    for option in spoken_of {
        assert!(there.contains(option), "no command has --{option}");
    }
}
