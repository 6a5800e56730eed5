//! The examples of docs/listing.md, run.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use uidl_keep::listing::{Reader, write_maildrop};
use uidl_keep::maildrop::{Maildrop, State};

const DOC: &str = include_str!("../../docs/listing.md");

/// The fenced texts in `language`.
fn examples(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let ends = |rest: &'static str| rest.split_once("```").expect("a closed fence").0;
    DOC.split(&fence).skip(1).map(ends).collect()
}

fn read(listing: &str) -> Vec<Maildrop> {
    Reader::new(listing.as_bytes()).collect::<Result<_, _>>().expect("a listing without fault")
}

#[test]
fn the_listings_shown_are_what_uidl_keep_writes() {
    let examples = examples("listing");
    assert_eq!(examples.len(), 3);
    for example in &examples {
        let mut written = Vec::new();
        for maildrop in read(example) {
            write_maildrop(&mut written, &maildrop).expect("a Vec takes all");
        }
        assert_eq!(String::from_utf8(written).unwrap(), *example);
    }
    let states: Vec<_> = read(examples[0]).iter().map(|maildrop| maildrop.state).collect();
    assert_eq!(states, [State::Captured, State::Empty, State::Failed]);
}

/// Starts `sqlite3` on that database. Returns `None`, having said why, when there is none.
/// `UIDL_KEEP_REQUIRE_HOST=1` makes that a failure.
fn sqlite(database: &std::path::Path) -> Option<Child> {
    let started =
        Command::new("sqlite3").arg(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    if let Err(error) = &started {
        let required = std::env::var_os("UIDL_KEEP_REQUIRE_HOST").is_some();
        assert!(!required, "sqlite3: {error}");
        eprintln!("skipped: the queries in docs/listing.md need sqlite3: {error}");
    }
    started.ok()
}

/// Feeds it, and returns what it printed.
fn run(mut sqlite: Child, statements: &str) -> String {
    let mut stdin = sqlite.stdin.take().expect("piped");
    stdin.write_all(statements.as_bytes()).expect("sqlite3 reads its stdin");
    drop(stdin);
    let output = sqlite.wait_with_output().expect("sqlite3 ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_query_shown_gives_the_listing_shown() {
    let Some(sqlite) = sqlite(":memory:".as_ref()) else { return };
    let statements = examples("sql");
    assert_eq!(statements.len(), 3);
    assert_eq!(run(sqlite, &statements[..2].concat()), examples("listing")[2]);
}

#[test]
fn mail_out_of_a_database_is_captured_by_its_header_as_shown() {
    let dir = tempfile::tempdir().unwrap();
    let Some(sqlite) = sqlite(&dir.path().join("old.db")) else { return };
    run(sqlite, examples("sql")[2]);
    let [script] = examples("sh")[..] else { panic!("one script") };
    let script = script.replace("uidl-keep ", &format!("{} ", env!("CARGO_BIN_EXE_uidl-keep")));
    let ran = Command::new("sh").args(["-e", "-c", &script]).current_dir(dir.path()).output();
    let ran = ran.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let [alice] = &read_file(&dir.path().join("alice.listing"))[..] else { panic!("one block") };
    let uidls: Vec<_> = alice.entries.iter().map(|entry| entry.uidl.to_string()).collect();
    assert_eq!(uidls, ["7f3a-1", "7f3a-2"]);
    assert!(alice.entries.iter().all(|entry| entry.header.is_some() && entry.file.is_none()));
}

fn read_file(path: &std::path::Path) -> Vec<Maildrop> {
    read(&std::fs::read_to_string(path).unwrap())
}
