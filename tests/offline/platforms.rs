//! docs/platforms.md names every ABI that packages have a plugin for, and no other as one of them;
//! what its table says was run is what `make test-packages` runs.

use std::collections::BTreeSet;

const DOC: &str = include_str!("../../docs/platforms.md");
const LIST: &str = include_str!("../../packaging/abi.list");
const CASES: &str = include_str!("../packages/run");

/// The rows of the table, as cells.
fn rows() -> Vec<Vec<&'static str>> {
    let rows = DOC.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The names of ABIs in a text; `ABIv2` alone is of the line of the one before it.
fn abis(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| c.is_whitespace() || ",;".contains(c));
    let mut line = "";
    let mut found = BTreeSet::new();
    for word in words {
        if let Some((before, number)) = word.split_once("ABIv") {
            if !before.is_empty() {
                line = before;
            }
            found.insert(format!("{line}ABIv{number}"));
        }
    }
    found
}

#[test]
fn every_abi_that_is_packaged_is_in_the_table_and_no_other() {
    let listed: BTreeSet<String> = LIST
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.split(' ').next().expect("a word").to_owned())
        .collect();
    assert_eq!(listed.len(), 7, "packaging/abi.list");
    let told: BTreeSet<String> = rows().iter().flat_map(|cells| abis(cells[2])).collect();
    assert_eq!(told, listed);
}

#[test]
fn the_table_says_run_of_those_dovecots_alone_that_packages_are_tested_on() {
    let run: BTreeSet<&str> = rows()
        .into_iter()
        .filter(|cells| cells[5].starts_with("**run**"))
        .map(|cells| cells[1])
        .collect();
    let tested: BTreeSet<String> = CASES
        .lines()
        .filter_map(|line| line.strip_prefix("case_deb_")?.strip_suffix("() { deb_life; }"))
        .map(|version| version.replace('_', "."))
        .collect();
    assert_eq!(run, tested.iter().map(String::as_str).collect::<BTreeSet<_>>());
}
