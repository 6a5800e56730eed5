//! `retire` without Dovecot: what it refuses, and how files of a site go away.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use uidl_keep::file::read_at::ReadAt;
use uidl_keep::site::roster::{self, Gate, Roster};
use uidl_keep::site::{Scope, Site};
use uidl_keep::status::away::Away;
use uidl_keep::status::{LedgerSeen, look, remove};

use crate::status::{ALICE, Moved};

#[test]
fn nothing_is_proven_without_a_dovecot_and_only_whole_domains_are_retired() {
    let moved = Moved::begin("--final");
    let nowhere = "--site site --doveadm /nowhere/doveadm";
    for command in ["retire --check", "retire a.org", "retire --dry-run a.org"] {
        let said = moved.here.trouble(&format!("{command} {nowhere}"));
        let expected = "site: nothing can be proven (the plugin: could not tell: /nowhere/doveconf";
        assert!(said.contains(expected), "{said}");
    }
    let said = moved.here.trouble(&format!("retire alice@a.org {nowhere}"));
    assert!(said.contains("alice@a.org: a user, and only whole domains are retired"), "{said}");
    assert!(moved.here.path("site/domain/a.org.roster").exists());
    assert_eq!(moved.here.run("retire --site site").status, 2, "nobody is named");
}

#[test]
fn an_index_goes_before_its_roster_and_both_are_kept() {
    let moved = Moved::begin("--final");
    let site = Site::new(moved.here.path("site"));
    let scope = Scope::Domain("a.org".into());
    let paths = site.paths_of(&scope);
    let (index, text) = (fs::read(&paths.index).unwrap(), fs::read(&paths.roster).unwrap());
    let away = Away::at(&site, UNIX_EPOCH + Duration::from_secs(1_714_989_600));
    assert!(away.dir().ends_with("site/retired/2024-05-06T100000Z"), "{}", away.dir().display());

    let roster = Roster::read(&fs::File::open(&paths.roster).unwrap()).unwrap();
    away.keep_roster(&scope, &roster).unwrap();
    away.leave_to_dovecot(&scope, &roster).unwrap();
    let left = fs::File::open(&paths.roster).unwrap();
    assert!(left.len_octets().unwrap() > 0);
    for user in [ALICE, "bob@a.org"] {
        let line = roster::lookup(&left, user).unwrap().expect("still on it");
        assert_eq!(line.gate, Gate::Redownload, "{user}");
    }
    assert_eq!(fs::read(away.dir().join("domain/a.org.roster")).unwrap(), text);
    assert_eq!(fs::read(&paths.index).unwrap(), index, "not yet");

    // A run that ended between the two left a roster that refuses nobody.
    away.take(&scope).unwrap();
    assert!(!paths.index.exists() && !paths.roster.exists());
    assert_eq!(fs::read(away.dir().join("domain/a.org.idx")).unwrap(), index);
    fs::write(&paths.roster, &text).unwrap();
    away.take(&scope).unwrap();
    assert!(!paths.roster.exists());
}

#[test]
fn all_that_the_plugin_keeps_beside_the_mail_is_removed_and_nothing_else() {
    let moved = Moved::begin("--final");
    moved.tell_all();
    moved.list_all();
    let dir = moved.maildir(ALICE);
    fs::write(dir.join("uidl-keep.prints"), "").unwrap();
    fs::write(dir.join("uidl-keep.said"), "").unwrap();
    assert!(matches!(look(ALICE, &dir), LedgerSeen::Listed(_)));
    assert_eq!(remove(ALICE, &dir, Duration::ZERO), Ok(true));
    assert_eq!(look(ALICE, &dir), LedgerSeen::Nothing);
    let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["cur", "dovecot-uidlist", "new", "tmp"]);
    assert_eq!(remove(ALICE, &dir, Duration::ZERO), Ok(false));
    assert_eq!(remove(ALICE, &dir.join("nowhere"), Duration::ZERO), Ok(false));
}

#[test]
fn a_ledger_whose_lock_a_login_holds_stays() {
    let moved = Moved::begin("--final");
    moved.tell_all();
    let dir = moved.maildir(ALICE);
    let lock = fs::File::open(dir.join("uidl-keep.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let why = remove(ALICE, &dir, Duration::ZERO).unwrap_err();
    assert!(why.contains("a login holds its lock"), "{why}");
    assert!(dir.join("uidl-keep.ledger").exists());
    drop(lock);
    assert_eq!(remove(ALICE, &dir, Duration::ZERO), Ok(true));
}
