//! Maildrops that move again: to another account.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::story::{Listing, Story, USER, uidl_of};
use crate::support::OWNER;
use crate::support::dovecot::Store;
use crate::support::mail::Message;

/// The uid and the gid of the other account.
const OTHER: u32 = OWNER + 1;
const LATER: &str = "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";

fn begin(store: Store) -> Option<Story> {
    let story = Story::begin(store)?;
    let old = story.old_maildir(1..=4);
    story.copy_files(&old);
    story.install(&Listing::of_files(&old.files()), &["--final"]);
    story.receive(&Message::plain(5));
    assert_eq!(story.uidls()[..4], uidl_of(1..=4));
    Some(story)
}

/// All users get this uid and gid, and their files with them, but for one that is forgotten.
fn move_to(story: &mut Story, owner: (u32, u32), forgotten: Option<&Path>) {
    story.dovecot.reconfigure(|config| config.owner = owner);
    give(&story.dovecot.home(USER), owner, forgotten);
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

/// Nothing of the listing has changed, and new mail goes behind it.
fn is_kept(story: &Story, uidls: &[String]) {
    assert_eq!(story.uidls(), uidls);
    story.receive(&Message::plain(6));
    let with_new = story.uidls();
    assert_eq!((&with_new[..uidls.len()], with_new.len()), (uidls, uidls.len() + 1));
    assert!(!uidls.contains(&with_new[uidls.len()]));
    assert_eq!(story.ledger().metadata().unwrap().uid(), OTHER);
}

/// Rule 2: the ledger goes with the mail. A user gets another uid; his group reads the site as
/// before.
#[test]
fn one_who_gets_another_uid_keeps_all() {
    let Some(mut story) = begin(Store::Maildir) else { return };
    let uidls = story.uidls();
    move_to(&mut story, (OTHER, OWNER), None);
    is_kept(&story, &uidls);
}

/// Rule 10: index and roster are for the group that `doveadm user` names. To one who cannot read
/// the roster everybody may be migrated: he is refused until the site is installed again.
#[test]
fn a_domain_that_moves_to_another_account_keeps_all_once_its_site_is_installed_again() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some(mut story) = begin(store) else { return };
        let uidls = story.uidls();
        move_to(&mut story, (OTHER, OTHER), None);
        let roster = story.dovecot.site().join("domain/example.com.roster");
        is_refused_for(&story, &roster, "Permission denied");

        story.install_again();
        assert_eq!(roster.metadata().unwrap().gid(), OTHER);
        is_kept(&story, &uidls);
    }
}

/// Rule 10: a ledger that cannot be read, or is not the account's, is not one that is absent.
#[test]
fn a_ledger_that_was_not_given_to_the_other_account_refuses_the_login() {
    let Some(mut story) = begin(Store::Maildir) else { return };
    let uidls = story.uidls();
    let ledger = story.ledger();
    move_to(&mut story, (OTHER, OTHER), Some(&ledger));
    story.install_again();
    is_refused_for(&story, &ledger, "Permission denied");
    fs::set_permissions(&ledger, fs::Permissions::from_mode(0o644)).unwrap();
    is_refused_for(&story, &ledger, &format!("uid {OWNER}"));
    lchown(&ledger, Some(OTHER), Some(OTHER)).unwrap();
    is_kept(&story, &uidls);
}

/// The client is told to come back, and the log, once, which file it was and what was wrong with
/// it.
fn is_refused_for(story: &Story, file: &Path, why: &str) {
    let before = story.log().len();
    assert_eq!(story.refusal(), LATER);
    let log = story.log();
    let [line] = &log[before..] else { panic!("{:?}", &log[before..]) };
    assert!(line.contains("Error: ") && line.contains(why), "{line}");
    assert!(line.contains(&format!("uidl-keep: {}: ", file.display())), "{line}");
}
