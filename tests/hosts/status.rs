//! `status`, `explain` and `retire` beside a real Dovecot: what they say of a maildrop is what its
//! clients are told, with the plugin and without.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::dovecot::{Config, Store};
use crate::support::host::Line;
use crate::support::mail::Message;
use crate::support::scenario::{LATER, Scenario, USER, uidl, uidl_of};

/// What the helper said, run where Dovecot is.
struct Said {
    status: i32,
    stdout: String,
    stderr: String,
}

/// Runs the helper beside the Dovecot of a release line, in its root directory.
fn run(moved: &Scenario, words: &[&str]) -> Said {
    let mut command = moved.dovecot.helper();
    let output =
        command.args(words).arg(moved.dovecot.doveadm_args()).output().expect("the helper");
    let text = |octets| String::from_utf8(octets).expect("text");
    Said {
        status: output.status.code().expect("not killed"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// What `status --json` says of the domain.
fn status(moved: &Scenario) -> Value {
    let said = run(moved, &["status", "--json"]);
    let first = said.stdout.lines().next().unwrap_or_else(|| panic!("{}", said.stderr));
    serde_json::from_str(first).expect("JSON")
}

/// Insists on what a check says, and on its exit status.
#[track_caller]
fn checks(moved: &Scenario, expected: &str) {
    let said = run(moved, &["retire", "--check"]);
    let is_proven = expected.contains("can be retired");
    assert!(said.stdout.contains(expected), "no {expected:?} in: {}{}", said.stdout, said.stderr);
    assert_eq!(said.status, i32::from(!is_proven), "{}", said.stdout);
}

const PROVEN: &str =
    "example.com: can be retired: Dovecot alone tells clients of 1 maildrops the same";

/// Takes a domain away, and insists that clients are told the same, and new mail is served, with
/// the plugin and without.
fn retires(mut moved: Scenario) {
    let before = moved.uidls();
    let said = run(&moved, &["retire", "--dry-run", "example.com"]);
    assert_eq!(said.status, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("example.com: would be retired: "), "{}", said.stdout);
    assert!(moved.roster().exists() && moved.ledger().exists());
    // With the guard on, auth is told, too.
    let stop = moved.dovecot.site().join("auth/stop-pop3");
    fs::create_dir(stop.parent().unwrap()).unwrap();
    let guard = "# uidl-keep-guard 1 /run/auth-client ";
    let head = format!("{guard}7:8:9 uidl-keep-guard-1700000000@example.com\n");
    fs::write(&stop, format!("{head}alice@example.com:::::::nopassword=y nologin=y\n")).unwrap();

    let said = run(&moved, &["retire", "example.com"]);
    assert_eq!(said.status, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("example.com: is retired: "), "{}", said.stdout);
    assert!(said.stderr.contains("nobody is left here: take uidl_keep out"), "{}", said.stderr);
    let named = fs::read_to_string(&stop).unwrap();
    assert!(named.starts_with(guard) && !named.contains("alice@"), "{named}");
    for path in [moved.roster(), moved.index(), moved.ledger()] {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(!moved.ledger().with_file_name("uidl-keep.lock").exists());
    let retired = fs::read_dir(moved.dovecot.site().join("retired")).expect("made").next();
    let retired = retired.expect("one").expect("readable").path();
    assert_eq!(retired.metadata().expect("there").mode() & 0o7777, 0o700);
    for name in ["domain/example.com.idx", "domain/example.com.roster"] {
        assert!(retired.join(name).exists(), "{name}");
    }
    let roster = fs::read_to_string(retired.join("domain/example.com.roster")).expect("kept");
    assert!(roster.contains("alice@example.com captured guarded "), "{roster}");
    let log = fs::read_to_string(moved.dovecot.site().join("changes.log")).expect("kept");
    assert!(log.contains(" retire alice@example.com guarded -> retired "), "{log}");

    // The plugin is still loaded, and a user of no roster is none of its business.
    assert_eq!(moved.uidls(), before);
    moved.receive(&Message::plain(90));
    let with = moved.uidls();
    assert_eq!(with[..before.len()], before);
    assert_eq!(with.len(), before.len() + 1);
    assert_eq!(moved.complaints(), [""; 0]);
    moved.take_the_plugin_out();
    assert_eq!(moved.uidls(), with);
}

fn maildir_is_listed_proven_and_retired(line: Line) {
    let config = Config::default().with_plugin();
    let Some(mut moved) = Scenario::migrated_on(line, 4, config) else { return };
    let before = status(&moved);
    assert_eq!((&before["waiting"], &before["listed"]), (&1.into(), &0.into()));
    assert_eq!(before["next"]["step"], "await");
    checks(&moved, "alice@example.com was listed by no client yet");
    assert!(!moved.ledger().exists(), "a check lists for nobody");

    moved.deliver();
    moved.serves(4, "a first login");
    let after = status(&moved);
    assert_eq!((&after["waiting"], &after["listed"]), (&0.into(), &1.into()));
    assert_eq!((&after["baked"], &after["next"]["step"]), (&1.into(), &"retire".into()));
    let said = run(&moved, &["explain", USER, &uidl(2)]);
    assert!(said.stdout.contains("place 2; kept: its file name, or its GUID,"), "{}", said.stdout);
    let said = run(&moved, &["explain", USER, "5"]);
    assert!(said.stdout.contains("UID 5, place 5; new here: no captured"), "{}", said.stdout);
    checks(&moved, PROVEN);

    // One UIDL is gone from the list, and named. The check logs in, and a session would bake it.
    let settings = moved.dovecot.site().join("settings");
    fs::write(&settings, "uidl-keep-settings 1\nbake no\n").expect("a site");
    let list = moved.dovecot.mail(USER).join("dovecot-uidlist");
    let text = fs::read_to_string(&list).expect("a list");
    let third = format!(" P{}", uidl(3));
    assert!(text.contains(&third), "{text}");
    moved.dovecot.pause();
    moved.maildir().write_state("dovecot-uidlist", &text.replace(&third, ""));
    moved.dovecot.resume();
    let unbaked =
        format!("1 messages lack their UIDL in dovecot-uidlist, the first is UID 3 ({})", uidl(3));
    checks(&moved, &unbaked);
    assert_eq!(status(&moved)["not_baked"][0], USER);
    let said = run(&moved, &["retire", "example.com"]);
    assert_eq!((said.status, moved.roster().exists()), (1, true), "{}", said.stdout);
    moved.maildir().write_state("dovecot-uidlist", &text);

    fs::remove_file(&settings).expect("written above");

    // The order alone is another, which no comparison of UIDLs shows.
    let (one, two) = (" O1048576 ", " O1048577 ");
    let turned = text.replace(one, " O1 ").replace(two, one).replace(" O1 ", two);
    assert_ne!(turned, text);
    moved.maildir().write_state("dovecot-uidlist", &turned);
    let differs = format!("without the plugin message 1 has {}, and with it {}", uidl(2), uidl(1));
    checks(&moved, &differs);
    moved.maildir().write_state("dovecot-uidlist", &text);
    checks(&moved, PROVEN);

    moved.gate(&["hold", "--no-check"]);
    checks(&moved, "alice@example.com is held: release first");
    assert_eq!(status(&moved)["next"]["step"], "release");
    moved.gate(&["release", "--no-check", "--unrehearsed"]);
    retires(moved);
}

#[test]
fn a_maildir_of_2_3_is_listed_proven_and_retired() {
    maildir_is_listed_proven_and_retired(Line::subject());
}

#[test]
fn a_maildir_of_2_4_is_listed_proven_and_retired() {
    maildir_is_listed_proven_and_retired(Line::V24);
}

/// Nobody must log in: a bake is proof enough, while it is whole.
#[test]
fn a_bake_is_proof_where_nobody_has_listed() {
    let line = Line::subject();
    let config = Config::default().with_plugin();
    let Some(mut moved) = Scenario::migrated_on(line, 4, config) else { return };
    let bakes = |moved: &Scenario, expected: &str| {
        let maildirs = moved.dovecot.home("{local}@{domain}").join("Maildir");
        let mut bake = crate::support::helper::uidl_keep();
        bake.args(["bake", "--all", "--format", "%08Xu%08Xv", "--maildir"]).arg(maildirs);
        let output = bake.arg("--site").arg(moved.dovecot.site()).output().expect("the helper");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    };
    bakes(&moved, "baked alice@example.com: 4 messages (4 kept)\n");
    checks(&moved, PROVEN);
    assert_eq!(moved.uidls_without_us(None), uidl_of(1..=4));

    let list = moved.dovecot.mail(USER).join("dovecot-uidlist");
    let text = fs::read_to_string(&list).expect("a list");
    let third = format!(" P{}", uidl(3));
    assert!(text.contains(&third), "{text}");
    moved.maildir().write_state("dovecot-uidlist", &text.replace(&third, ""));
    checks(&moved, "was listed by no client yet (not baked whole: ");
    moved.maildir().write_state("dovecot-uidlist", &text);
    checks(&moved, PROVEN);

    moved.deliver();
    checks(&moved, "was listed by no client yet (1 messages are not in dovecot-uidlist yet");
    moved.dovecot.doveadm_ok(["mailbox", "status", "-u", USER, "uidnext", "INBOX"]);
    checks(&moved, "was listed by no client yet (not baked whole: 1 messages lack");
    bakes(&moved, "baked alice@example.com: 5 messages (4 kept)\n");
    checks(&moved, PROVEN);
    assert!(!moved.ledger().exists(), "a check lists for nobody");
}

/// A mailbox whose next UID is not past the numbers that the old server had counted.
fn next_uid_is_not_raised(line: Line) {
    let config = Config::default().with_plugin();
    let Some(moved) = Scenario::migrated_on(line, 4, config) else { return };
    moved.serves(4, "a first login");
    checks(&moved, PROVEN);
    // The old server counted on, in the format and under the UIDVALIDITY of this one.
    let list =
        fs::read_to_string(moved.dovecot.mail(USER).join("dovecot-uidlist")).expect("a list");
    let words = list.split_whitespace().find_map(|word| word.strip_prefix('V'));
    let uidvalidity: u32 = words.and_then(|digits| digits.parse().ok()).expect("V and a number");
    let listing = fs::read_to_string(moved.dovecot.dir().join("alice.uidl")).expect("kept");
    let counter = format!("uidvalidity {uidvalidity}\ncounter 500 %08Xu%08Xv\n");
    let counted = listing.replacen("uidvalidity 17\n", &counter, 1);
    assert_ne!(counted, listing);
    moved.build(&counted);
    let expected =
        format!("its next UID is 5, and clients may hold UIDLs of numbers below {}", 500 + 65_536);
    checks(&moved, &expected);
}

#[test]
fn a_next_uid_that_was_not_raised_on_2_3_is_named() {
    next_uid_is_not_raised(Line::subject());
}

#[test]
fn a_next_uid_that_was_not_raised_on_2_4_is_named() {
    next_uid_is_not_raised(Line::V24);
}

/// An mdbox has its UIDLs in the ledger alone; a copy by dsync with the plugin has them itself.
fn mdbox_is_proven_only_once_it_was_copied(line: Line) {
    let config = Config::default().store(Store::Mdbox).with_plugin();
    let Some(moved) = Scenario::begin_with(line, config) else { return };
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.capture(&crate::support::scenario::Listing::of_files(&old.files()));
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    let seen = status(&moved);
    assert_eq!((&seen["listed"], &seen["baked"]), (&1.into(), &0.into()));
    assert_eq!((&seen["ledger_alone"][0], &seen["ledger_alone_uidls"]), (&USER.into(), &4.into()));
    assert_eq!(seen["next"]["step"], "bake_into");
    let said = run(&moved, &["explain", USER, &uidl(4)]);
    assert!(said.stdout.contains("mdbox, 4 messages at the last listing"), "{}", said.stdout);
    let alone = format!("and with it {}: its UIDLs are in the ledger alone", uidl(1));
    checks(&moved, &alone);

    let baked = moved.dovecot.inside(&moved.dovecot.home(USER)).join("baked");
    let target = format!("mdbox:{}", baked.display());
    moved.dovecot.doveadm_with_us_ok(["backup", "-u", USER, &target]);
    fs::remove_dir_all(moved.dovecot.mail(USER)).expect("root");
    fs::rename(moved.dovecot.home(USER).join("baked"), moved.dovecot.mail(USER)).expect("moved");
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    let seen = status(&moved);
    assert_eq!((&seen["baked"], &seen["ledger_alone_uidls"]), (&1.into(), &0.into()));
    checks(&moved, PROVEN);
    retires(moved);
}

#[test]
fn an_mdbox_of_2_3_is_proven_only_once_it_was_copied() {
    mdbox_is_proven_only_once_it_was_copied(Line::subject());
}

#[test]
fn an_mdbox_of_2_4_is_proven_only_once_it_was_copied() {
    mdbox_is_proven_only_once_it_was_copied(Line::V24);
}

#[test]
fn a_retirement_that_was_broken_off_refuses_nobody_and_is_finished_by_the_next() {
    let Some(mut moved) = Scenario::migrated(4) else { return };
    moved.serves(4, "a first login");
    let told = moved.uidls();
    // Something of ours cannot be removed: the roster is left to Dovecot, and the index stays.
    let odd = moved.ledger().with_file_name("uidl-keep.prints");
    fs::create_dir(&odd).expect("root");
    let said = run(&moved, &["retire", "example.com"]);
    assert_eq!(said.status, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("uidl-keep.prints: Is a directory"), "{}", said.stderr);
    assert!(said.stderr.contains("is left to Dovecot"), "{}", said.stderr);
    assert!(moved.roster().exists() && moved.index().exists());
    fs::remove_dir(odd).expect("root");
    assert_eq!(moved.uidls(), told);
    moved.deliver();
    moved.serves(4, "new mail in between");
    assert_eq!(moved.complaints(), [""; 0]);
    let said = run(&moved, &["retire", "example.com"]);
    assert_eq!(said.status, 0, "{}{}", said.stdout, said.stderr);
    assert!(!moved.roster().exists() && !moved.index().exists() && !moved.ledger().exists());
    moved.serves(4, "after it");
}

#[test]
fn what_lies_in_an_inbox_after_its_roster_went_would_refuse_new_mail() {
    let Some(mut moved) = Scenario::migrated(4) else { return };
    moved.serves(4, "a first login");
    // This is why a retirement takes the ledgers away.
    fs::remove_file(moved.index()).expect("root");
    fs::remove_file(moved.roster()).expect("root");
    moved.deliver();
    assert_eq!(moved.refusal(), LATER);
}
