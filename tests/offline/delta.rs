//! A build of few maildrops upon a site of many copies the rest, and makes what a build that reads
//! everything makes.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::shared::uidl_keep;

const USERS: u32 = 700;

/// A block of a user with so many messages.
fn block(user: &str, messages: u32, taken: u32) -> String {
    let mut text = format!(
        "uidl-keep-listing 1\nmaildrop {user}\nstate captured\ntaken {taken}\nuidvalidity 7\n\
         counter {} UID%u-%v\n",
        messages + 1
    );
    for number in 1..=messages {
        writeln!(text, "{number} UID{number}-7 uid={number} file={number}.{user}").unwrap();
    }
    text + ".\n"
}

fn user(number: u32) -> String {
    format!("u{number:03}@example.com")
}

fn succeed(dir: &Path, args: &[&str]) -> Output {
    let output = uidl_keep().args(args).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    output
}

/// A directory with a site of many users in `old`: one failed, one held, one forgotten.
fn with_site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut listing = String::new();
    for number in 1..=USERS {
        match number {
            333 => {
                let failed = "state failed\nremark no such directory\n.\n";
                write!(listing, "uidl-keep-listing 1\nmaildrop {}\n{failed}", user(number)).unwrap()
            }
            _ => listing += &block(&user(number), 1 + number % 3, 1_794_749_400),
        }
    }
    fs::write(dir.path().join("old.listing"), listing).unwrap();
    succeed(dir.path(), &["build", "-o", "old", "old.listing"]);
    for change in [&["hold"][..], &["forget"]] {
        let who = user(if change == ["hold"] { 5 } else { 600 });
        succeed(dir.path(), &[change, &["--site", "old", &who]].concat());
    }
    dir
}

fn files(dir: &Path, site: &str) -> [Vec<u8>; 2] {
    ["idx", "roster"].map(|extension| {
        fs::read(dir.join(format!("{site}/domain/example.com.{extension}"))).unwrap()
    })
}

#[test]
fn what_is_built_upon_many_is_as_if_everything_were_read() {
    let dir = with_site();
    let dir = dir.path();
    let later = 1_794_839_400;
    // Before all, among them, the one who failed, the one who is forgotten, and behind all.
    for (what, users) in [
        ("changed", vec![user(1), user(44), user(USERS)]),
        ("before all", vec!["a@example.com".to_owned()]),
        ("behind all", vec!["z@example.com".to_owned(), "zz@example.com".to_owned()]),
        ("between", vec!["u100a@example.com".to_owned(), "u100b@example.com".to_owned()]),
        ("failed, forgotten and held", vec![user(5), user(333), user(600)]),
    ] {
        let delta: String = users.iter().map(|user| block(user, 5, later)).collect();
        fs::write(dir.join("delta.listing"), delta).unwrap();
        // The files in the other place may say more, so that everything is read.
        copy_site(dir, "read");
        copy_site(dir, "itself");
        let said = ["read", "kept", "itself"].map(|site| {
            let base = if site == "itself" { site } else { "old" };
            let args = ["build", "--base", base, "-o", site, "delta.listing"];
            let output = succeed(dir, &args);
            succeed(dir, &["check", site]);
            String::from_utf8(output.stderr).unwrap().replace(site, "SITE")
        });
        let [read, kept, itself] = ["read", "kept", "itself"].map(|site| files(dir, site));
        assert!(read != files(dir, "old"), "{what}");
        assert!(kept == read && itself == read, "{what}");
        assert!(said[1] == said[0] && said[2] == said[0], "{what}: {said:?}");
        for site in ["read", "kept", "itself"] {
            fs::remove_dir_all(dir.join(site)).unwrap();
        }
    }
}

#[test]
fn a_change_of_one_user_is_as_if_every_line_were_written() {
    let dir = with_site();
    let dir = dir.path();
    for change in [&["hold"][..], &["release", "--unrehearsed"], &["listed"], &["forget"]] {
        copy_site(dir, "few");
        copy_site(dir, "many");
        let who = user(44);
        succeed(dir, &[change, &["--site", "few", &who]].concat());
        // So many users are named that all lines are read; most are as they are to be already.
        let others: Vec<String> = (40..140).map(user).collect();
        let list = others.iter().filter(|it| **it != who).cloned().collect::<Vec<_>>().join("\n");
        fs::write(dir.join("list"), list).unwrap();
        let listed = [change, &["--site", "few", "--list", "list"]].concat();
        succeed(dir, &listed);
        fs::write(dir.join("list"), others.join("\n")).unwrap();
        succeed(dir, &[change, &["--site", "many", "--list", "list"]].concat());
        let without_stamps = |site| {
            let [_, roster] = files(dir, site);
            let text = String::from_utf8(roster).unwrap();
            let words = text.lines().map(|line| line.split(['=', ' ']).take(4).collect::<String>());
            words.collect::<Vec<_>>()
        };
        assert_eq!(without_stamps("few"), without_stamps("many"), "{change:?}");
        succeed(dir, &["check", "few"]);
        for site in ["few", "many"] {
            fs::remove_dir_all(dir.join(site)).unwrap();
        }
    }
}

fn copy_site(dir: &Path, to: &str) {
    for directory in ["domain", "user"] {
        fs::create_dir_all(dir.join(to).join(directory)).unwrap();
    }
    for extension in ["idx", "roster"] {
        let name = format!("domain/example.com.{extension}");
        fs::copy(dir.join("old").join(&name), dir.join(to).join(&name)).unwrap();
    }
}
