//! `settings`, and the commands that go by the file of that name in a site.

use std::fs;

use crate::support::cli::{ALICE, Here};

fn site() -> Here {
    let here = Here::new();
    here.write("one.listing", ALICE);
    here.quiet("build --final -o site one.listing");
    here
}

#[test]
fn settings_are_printed_as_they_are_read_for_all_and_for_one() {
    let here = site();
    let defaults = "match file message header\nbake yes\norder yes\n";
    let all = here.run("settings --site site");
    assert_eq!((all.status, all.stdout), (0, format!("uidl-keep-settings 1\n{defaults}")));
    let own = "uidl-keep-settings 1\norder no\n@example.com match file\n@example.com order yes\n";
    here.write("site/settings", own);
    for (who, wanted) in [
        ("alice@example.com", "match file\nbake yes\norder yes\n"),
        ("example.com", "match file\nbake yes\norder yes\n"),
        ("@example.com", "match file\nbake yes\norder yes\n"),
        ("bob@example.net", "match file message header\nbake yes\norder no\n"),
        ("bob", "match file message header\nbake yes\norder no\n"),
    ] {
        let said = here.run(&format!("settings --site site {who}"));
        assert_eq!((said.status, &*said.stdout, &*said.stderr), (0, wanted, ""), "{who}");
    }
    // What is printed is a file of settings, and means the same.
    let all = here.run("settings --site site").stdout;
    here.write("again", &all);
    for who in ["alice@example.com", "bob@example.net", ""] {
        let [one, other] = ["--site site", "--file again"]
            .map(|which| here.run(&format!("settings {which} {who}")).stdout);
        assert_eq!(one, other, "{who}");
    }
    assert_eq!(here.run("check site").status, 0);
}

#[test]
fn a_file_that_cannot_be_understood_is_named_by_whoever_goes_by_it() {
    let here = site();
    here.write("site/settings", "uidl-keep-settings 1\nbake perhaps\n");
    fs::create_dir_all(here.path("mail/alice@example.com/cur")).unwrap();
    fs::create_dir_all(here.path("mail/alice@example.com/new")).unwrap();
    let place = "--site site --format %u --maildir";
    let maildir = format!("{}/mail/{{user}}", here.0.path().display());
    for command in [
        "check site".to_owned(),
        "settings --site site".into(),
        "settings --file site/settings".into(),
        format!("forecast {place} {maildir}"),
        format!("bake --all {place} {maildir}"),
        format!("explain --no-check {place} {maildir} alice@example.com"),
    ] {
        let said = here.trouble(&command);
        let why = "site/settings: line 2: bake takes yes or no, and not \"perhaps\"; correct it";
        assert!(said.contains(why), "{command}: {said}");
    }
}
