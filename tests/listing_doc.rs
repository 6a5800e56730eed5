//! docs/listing.md, its examples run.

use std::io::Write;
use std::process::{Command, Stdio};

use uidl_keep::listing::{Reader, write_maildrop};
use uidl_keep::maildrop::{Maildrop, State};

const DOC: &str = include_str!("../docs/listing.md");

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
    assert_eq!(examples.len(), 2);
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

/// Needs the `sqlite3` command, and says so where it skips; `UIDL_KEEP_REQUIRE_HOST=1` makes that a
/// failure.
#[test]
fn the_query_shown_gives_the_listing_shown() {
    let sqlite = Command::new("sqlite3")
        .arg(":memory:")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut sqlite = match sqlite {
        Ok(sqlite) => sqlite,
        Err(error) => {
            let required = std::env::var_os("UIDL_KEEP_REQUIRE_HOST").is_some();
            assert!(!required, "sqlite3: {error}");
            eprintln!("skipped: the query in docs/listing.md needs sqlite3: {error}");
            return;
        }
    };
    let statements = examples("sql");
    assert_eq!(statements.len(), 2);
    let mut stdin = sqlite.stdin.take().expect("piped");
    stdin.write_all(statements.concat().as_bytes()).expect("sqlite3 reads its stdin");
    drop(stdin);
    let output = sqlite.wait_with_output().expect("sqlite3 ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), examples("listing")[1]);
}
