//! Maildrops that move again: to another account.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::scenario::{Listing, Scenario, USER, uidl_of};
use crate::support::OWNER;
use crate::support::dovecot::Store;
use crate::support::mail::Message;

/// The uid and the gid of the other account.
const OTHER: u32 = OWNER + 1;
const LATER: &str = "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";

fn begin(store: Store) -> Option<Scenario> {
    let moved = Scenario::begin(store)?;
    let old = moved.old_maildir(1..=4);
    moved.copy_files(&old);
    moved.install(&Listing::of_files(&old.files()), &["--final"]);
    moved.receive(&Message::plain(5));
    assert_eq!(moved.uidls()[..4], uidl_of(1..=4));
    Some(moved)
}

/// All users get this uid and gid, and their files with them, but for one that is forgotten.
fn move_to(moved: &mut Scenario, owner: (u32, u32), forgotten: Option<&Path>) {
    moved.dovecot.reconfigure(|config| config.owner = owner);
    give(&moved.dovecot.home(USER), owner, forgotten);
}

fn give(path: &Path, owner: (u32, u32), forgotten: Option<&Path>) {
    if forgotten == Some(path) {
        return;
    }
    lchown(path, Some(owner.0), Some(owner.1)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), owner, forgotten);
        }
    }
}

/// Insists that nothing of the listing has changed, and that new mail goes behind it.
fn is_kept(moved: &Scenario, uidls: &[String]) {
    assert_eq!(moved.uidls(), uidls);
    moved.receive(&Message::plain(6));
    let with_new = moved.uidls();
    assert_eq!((&with_new[..uidls.len()], with_new.len()), (uidls, uidls.len() + 1));
    assert!(!uidls.contains(&with_new[uidls.len()]));
    assert_eq!(moved.ledger().metadata().unwrap().uid(), OTHER);
}

/// Rule 2: the ledger goes with the mail. A user gets another uid; his group reads the site as
/// before.
#[test]
fn one_who_gets_another_uid_keeps_all() {
    let Some(mut moved) = begin(Store::Maildir) else { return };
    let uidls = moved.uidls();
    move_to(&mut moved, (OTHER, OWNER), None);
    is_kept(&moved, &uidls);
}

/// Rule 10: index and roster are for the group that `doveadm user` names. If a user cannot read the
/// roster, everybody may be migrated for him: he is refused until the site is installed again.
#[test]
fn a_domain_that_moves_to_another_account_keeps_all_once_its_site_is_installed_again() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some(mut moved) = begin(store) else { return };
        let uidls = moved.uidls();
        move_to(&mut moved, (OTHER, OTHER), None);
        let roster = moved.dovecot.site().join("domain/example.com.roster");
        is_refused_for(&moved, &roster, "Permission denied");

        moved.install_again();
        assert_eq!(roster.metadata().unwrap().gid(), OTHER);
        is_kept(&moved, &uidls);
    }
}

/// Rule 10: a ledger that cannot be read, or is not the account's, is not one that is absent.
#[test]
fn a_ledger_that_was_not_given_to_the_other_account_refuses_the_login() {
    let Some(mut moved) = begin(Store::Maildir) else { return };
    let uidls = moved.uidls();
    let ledger = moved.ledger();
    move_to(&mut moved, (OTHER, OTHER), Some(&ledger));
    moved.install_again();
    is_refused_for(&moved, &ledger, "Permission denied");
    fs::set_permissions(&ledger, fs::Permissions::from_mode(0o644)).unwrap();
    is_refused_for(&moved, &ledger, &format!("uid {OWNER}"));
    lchown(&ledger, Some(OTHER), Some(OTHER)).unwrap();
    is_kept(&moved, &uidls);
}

/// Insists that the client is told to come back, and that the log says once which file it was and
/// what was wrong with it.
fn is_refused_for(moved: &Scenario, file: &Path, why: &str) {
    let before = moved.log().len();
    assert_eq!(moved.refusal(), LATER);
    let log = moved.log();
    let [line] = &log[before..] else { panic!("{:?}", &log[before..]) };
    assert!(line.contains("Error: ") && line.contains(why), "{line}");
    let seen = moved.dovecot.seen(file);
    assert!(line.contains(&format!("uidl-keep: {}: ", seen.display())), "{line}");
}
