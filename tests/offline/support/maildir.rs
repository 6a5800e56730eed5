//! A made-up Maildir of an old server.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use uidl_keep::capture::disk::server::{ServerKind, capture};
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;

use crate::shared::capture::{make, message};

/// A Maildir in a directory of its own.
pub struct Old {
    _dir: tempfile::TempDir,
    pub path: PathBuf,
}

impl Old {
    /// Makes one with these files, each of a made-up message.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Maildir");
        make(&path);
        let old = Self { _dir: dir, path };
        files.into_iter().for_each(|file| old.add(file));
        old
    }

    pub fn add(&self, file: &str) {
        fs::write(self.path.join(file), message(file)).unwrap();
    }

    pub fn add_at(&self, file: &str, mtime: u64) {
        self.add(file);
        let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime);
        fs::File::open(self.path.join(file)).unwrap().set_modified(mtime).unwrap();
    }

    pub fn state(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.path.join(name), text).unwrap();
        self
    }

    pub fn capture(&self, server: &ServerKind) -> Captured {
        capture(server, Keys::default(), &Source::named("alice@example.com", &self.path))
    }
}
