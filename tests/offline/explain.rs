//! `explain` over made sites, Maildirs and ledgers, without Dovecot.

use std::fs;

use serde_json::Value;

use crate::status::{ALICE, LISTING, Moved};

/// What is said of Alice and a message of hers, with the exit status.
fn explain(moved: &Moved, message: &str) -> (i32, String) {
    let ran = moved.run(&format!("explain --format %08Xu%08Xv {ALICE} {message}"));
    (ran.status, ran.stdout)
}

#[track_caller]
fn says(moved: &Moved, message: &str, expected: &[&str]) {
    let (status, said) = explain(moved, message);
    assert_eq!(status, 0, "{said}");
    for expected in expected {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
}

fn listed() -> Moved {
    let moved = Moved::begin("--final");
    moved.tell_all();
    moved.list_all();
    moved
}

#[test]
fn a_user_is_told_of_from_the_old_server_to_the_next_command() {
    let moved = listed();
    let (status, said) = explain(&moved, "");
    assert_eq!(status, 0);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], ALICE);
    assert_eq!(lines[1], "  roster: captured, guarded");
    let first = "  old server: capture 1, taken 2024-05-06T10:00:00Z, of courier /srv/old/alice";
    assert_eq!(lines[2], first);
    let all = "  old server: 3 messages, 3 of them in the last capture, 1 UIDLs of messages that \
               were gone; no capture follows";
    assert_eq!(lines[3], all);
    assert!(lines[4].starts_with("  here: maildir, 3 messages at the last listing"), "{said}");
    let end = ": 2 kept, 1 new, 1 that were kept have gone; Dovecot can tell it without the plugin";
    assert!(lines[4].ends_with(end), "{said}");
    assert_eq!(lines[5], "next: uidl-keep retire --check alice@a.org");
    assert_eq!(lines.len(), 6);
}

#[test]
fn a_message_is_told_of_by_its_uidl_or_its_uid() {
    let moved = listed();
    let kept = [
        "old server: kept-2, place 2 of 3, in capture 1, 433 octets, known by file",
        "here: kept-2, UID 2, place 2; kept: its header is that of the captured message",
    ];
    says(&moved, "kept-2", &kept);
    says(&moved, "2", &kept);
    says(&moved, "7", &["here: 0000000700000011, UID 7, place 3; new here: no captured message"]);
    says(&moved, "kept-3", &["place 3 of 3", "the message was gone at the last listing"]);
    says(&moved, "UID9-17", &["a message that was gone when it was captured"]);
    let (status, said) = explain(&moved, "UID77-17");
    assert_eq!(status, 1);
    assert!(said.contains("the captures do not have it, and it was not told here"), "{said}");
}

#[test]
fn a_captured_message_that_no_listing_had_is_missing() {
    let moved = listed();
    use uidl_keep::ledger::Provenance;
    moved.tell(&[(1, "1.1.old", "kept-1", Provenance::File, Some(0))]);
    says(&moved, "kept-2", &["no message was recognised as this one at the last listing"]);
}

#[test]
fn before_anybody_lists_it_the_forecast_speaks() {
    let moved = Moved::begin("--final");
    moved.list(&[(1, "1.1.old", None), (2, "2.2.old", None)]);
    says(&moved, "", &["here: no POP3 client has listed it yet", "forecast: 2 of 3 captured"]);
    says(&moved, "kept-1", &["it is there, and the first login will keep it"]);
    says(&moved, "kept-3", &["missing: no message here has a key of it: it was not copied"]);
    says(&moved, "", &["next: wait until alice@a.org has logged in by POP3"]);
}

#[test]
fn an_earlier_uidl_leads_to_the_message_that_had_it() {
    let moved = listed();
    let later = LISTING.replace("kept-2", "later-2").replace("1714989600", "1714999999");
    moved.here.write("later.listing", &later);
    let ran = moved.here.run("build --final --base site -o site2 later.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    fs::remove_dir_all(moved.here.path("site")).unwrap();
    fs::rename(moved.here.path("site2"), moved.here.path("site")).unwrap();
    let both =
        ["later-2, place 2 of 3", "in an earlier capture it had kept-2", "here: kept-2, UID 2"];
    says(&moved, "kept-2", &both);
    says(&moved, "later-2", &both);
}

#[test]
fn who_is_refused_or_on_no_roster_is_told_why_and_what_to_run() {
    let moved = Moved::begin("--final");
    let said = moved.run("explain carol@b.org").stdout;
    assert!(said.contains("POP3 refuses the user, for its capture failed"), "{said}");
    assert!(said.contains("release --redownload carol@b.org"), "{said}");
    let ran = moved.run("explain eve@a.org");
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains("no roster names this user"), "{}", ran.stdout);
    fs::write(moved.here.path("site/domain/a.org.roster"), "no roster").unwrap();
    let said = moved.here.trouble(&format!(
        "explain --site site --no-check {ALICE} --maildir {}",
        moved.here.path("mail/{domain}/{local}").display()
    ));
    assert!(said.contains("a.org.roster: not a roster"), "{said}");
}

#[test]
fn everything_that_clients_were_told_here_is_listed_for_the_way_back() {
    let moved = listed();
    let (_, said) = explain(&moved, "--told");
    let told: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("told")).collect();
    let expected = [
        "told here: place, UID, UIDL, evidence",
        "  1 1 kept-1 file",
        "  2 2 kept-2 header",
        "  3 7 0000000700000011 native",
        "  - 0 kept-3 file",
    ];
    assert_eq!(told[..5], expected);
    let (_, said) = explain(&moved, "--told --json kept-2");
    let object: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(object["told"].as_array().unwrap().len(), 4);
    assert_eq!(object["told"][1]["evidence"], "header");
    assert_eq!(object["message"]["was"][0]["place"], 2);
    assert_eq!(object["message"]["known"], true);
    assert_eq!(object["here"]["listed"], true);
    assert_eq!(object["captured"]["messages"], 3);
}
