//! A made-up Maildir of an old server.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use uidl_keep::capture::disk::server::{ServerKind, capture};
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::Maildrop;

/// A Maildir in a directory of its own.
pub struct Old {
    _dir: tempfile::TempDir,
    pub path: PathBuf,
}

impl Old {
    /// With these files, each of a made-up message.
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

/// An empty Maildir.
pub fn make(path: &Path) {
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(path.join(folder)).unwrap();
    }
}

pub fn message(about: &str) -> String {
    format!("Subject: {about}\n\nbody of {about}\n")
}

pub fn data(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

/// The unique-ids of a listing as a server gave it, in its order.
pub fn listed(name: &str) -> Vec<String> {
    data(name).lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

pub fn uidls(maildrop: &Maildrop) -> Vec<String> {
    maildrop.entries.iter().map(|entry| entry.uidl.to_string()).collect()
}

pub fn spent(maildrop: &Maildrop) -> Vec<String> {
    maildrop.spent.iter().map(ToString::to_string).collect()
}

/// Whether a remark has this in it.
pub fn remarks_on(captured: &Captured, what: &str) -> bool {
    captured.maildrop.remarks.iter().any(|remark| remark.contains(what))
}

/// What the helper did.
pub struct Ran {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Runs it.
    pub fn of(mut command: Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        Self { status: status.code().unwrap(), stdout, stderr }
    }

    /// The maildrops of the listing that it wrote to stdout.
    pub fn blocks(&self) -> Vec<Maildrop> {
        Reader::new(&self.stdout[..]).map(|block| block.expect(&self.stderr)).collect()
    }

    /// The listing that it wrote to stdout, without the lines that say when.
    pub fn untimed(&self) -> Vec<u8> {
        let lines = self.stdout.split_inclusive(|&octet| octet == b'\n');
        lines.filter(|line| !line.starts_with(b"taken ")).flatten().copied().collect()
    }

    pub fn users(&self) -> Vec<String> {
        self.blocks().into_iter().map(|maildrop| maildrop.user).collect()
    }

    /// The UIDLs of a user, all being captured.
    pub fn uidls(&self, user: &str) -> Vec<String> {
        assert_eq!(self.status, 0, "{}", self.stderr);
        uidls(self.blocks().iter().find(|block| block.user == user).expect(user))
    }

    /// The UIDL of the first message of the first maildrop, which is there.
    pub fn uidl(&self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        uidls(&self.blocks()[0]).remove(0)
    }

    pub fn says(&self, what: &str) {
        assert!(self.stderr.contains(what), "{what}\n---\n{}", self.stderr);
    }

    /// Refused, with nothing written.
    pub fn is_refused(&self, because: &str) {
        assert_eq!((self.status, self.stdout.len()), (2, 0), "{}", self.stderr);
        self.says(because);
    }
}
