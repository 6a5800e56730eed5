//! Backups, and the results of putting a maildrop back in part.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::scenario::{Scenario, USER};
use crate::shared::tree::below;

/// The record of all that was told.
pub const LEDGER: &str = "uidl-keep.ledger";

/// The lock, and the mark in it.
pub const MARK: &str = "uidl-keep.lock";

/// A copy of all that lies beside a user's mail, and of the mail.
pub struct Backup {
    mail: PathBuf,
    copy: tempfile::TempDir,
}

impl Backup {
    /// Takes one.
    pub fn of(moved: &Scenario) -> Self {
        let copy = tempfile::tempdir().expect("a directory");
        let mail = moved.dovecot.mail(USER);
        copy_whole(&mail, &copy.path().join("mail"));
        Self { mail, copy }
    }

    /// Puts all back except files of these names: those stay as they are now.
    pub fn put_back_but(&self, names: &[&str]) {
        let is_kept = |file: &Path| names.iter().any(|name| file.ends_with(name));
        let now: Vec<PathBuf> =
            below(&self.mail).into_iter().filter(|file| is_kept(file)).collect();
        let aside = tempfile::tempdir().expect("a directory");
        for (number, file) in now.iter().enumerate() {
            copy_whole(file, &aside.path().join(number.to_string()));
        }
        fs::remove_dir_all(&self.mail).expect("root");
        copy_whole(&self.copy.path().join("mail"), &self.mail);
        for file in below(&self.mail).iter().filter(|file| is_kept(file)) {
            fs::remove_file(file).expect("root");
        }
        for (number, file) in now.iter().enumerate() {
            copy_whole(&aside.path().join(number.to_string()), file);
        }
    }
}

/// Copies as `cp -a`.
pub fn copy_whole(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--"]).arg(from).arg(to).status();
    assert!(copied.expect("cp").success(), "{} to {}", from.display(), to.display());
}

/// Panics unless the next login is a warm one: nothing is resolved and nothing written.
#[track_caller]
pub fn is_warm(moved: &Scenario) {
    let state = || {
        let meta = moved.ledger().metadata().expect("a ledger");
        (meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    let before = state();
    moved.uidls();
    assert_eq!(state(), before, "the ledger was written anew");
}
