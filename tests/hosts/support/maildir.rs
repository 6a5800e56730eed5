//! Maildirs as different servers leave them behind.

use std::fs::{self, FileTimes};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::mail::Message;
use super::{OWNER, host::unix_mode};

/// The moment at which the first message of every maildrop arrived.
const EPOCH: u64 = 1_714_990_000;

/// The way in which a server names the files it delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `time.pid.host`
    Qmail,
    /// `time.MusecPpidVdevIino_0.host,S=size`
    Courier,
    /// `time.MusecPpid.host,S=size,W=size with CRLF`
    Dovecot,
}

/// A Maildir on disk, owned by the owner of all mail here.
#[derive(Debug, Clone)]
pub struct Maildir {
    path: PathBuf,
}

impl Maildir {
    /// Makes an empty one, and the directories above it.
    pub fn create(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        for sub in ["cur", "new", "tmp"] {
            make_owned(&path.join(sub));
        }
        Self { path }
    }

    /// Opens the one that is there already.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        assert!(path.join("cur").is_dir(), "{}: not a Maildir", path.display());
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Delivers a message that arrived so many seconds after the first. Every fifth waits in `new`;
    /// the others have been seen, some answered.
    pub fn deliver(&self, message: &Message, naming: Naming, seconds: u32) -> PathBuf {
        let octets = &message.octets;
        let time = EPOCH + u64::from(seconds);
        let (usec, pid) = (u64::from(seconds) * 31_337 % 1_000_000, 20_000 + seconds * 7);
        let base = match naming {
            Naming::Qmail => format!("{time}.{pid}.old.example.com"),
            Naming::Courier => format!(
                "{time}.M{usec}P{pid}V0000000000000803I{seconds:016X}_0.old.example.com,S={}",
                octets.len()
            ),
            Naming::Dovecot => format!(
                "{time}.M{usec}P{pid}.old.example.com,S={},W={}",
                octets.len(),
                message.on_the_wire().len()
            ),
        };
        let name = match seconds % 5 {
            4 => format!("new/{base}"),
            3 => format!("cur/{base}:2,RS"),
            _ => format!("cur/{base}:2,S"),
        };
        let path = self.path.join(name);
        let mut file =
            fs::File::create_new(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        file.write_all(octets).expect("room for a message");
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_secs(time);
        file.set_times(FileTimes::new().set_accessed(arrived).set_modified(arrived))
            .expect("our file");
        chown(&path, Some(OWNER), Some(OWNER)).expect("root");
        path
    }

    /// Writes a server's own file beside the mail.
    pub fn write_state(&self, name: &str, text: &str) {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        chown(&path, Some(OWNER), Some(OWNER)).expect("root");
    }

    /// Gives a message another time of arrival than its name says.
    pub fn set_mtime(&self, file: &Path, seconds: u64) {
        let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = fs::File::options().write(true).open(file).expect("our file");
        file.set_times(FileTimes::new().set_modified(mtime)).expect("our file");
    }

    /// Copies the mail, and nothing else, as `rsync -a` copies `cur` and `new`.
    pub fn copy_mail_to(&self, target: &Path) -> Maildir {
        let copy = Maildir::create(target);
        for sub in ["cur", "new"] {
            for entry in fs::read_dir(self.path.join(sub)).expect("a Maildir") {
                let entry = entry.expect("a Maildir");
                copy_file(&entry.path(), &target.join(sub).join(entry.file_name()));
            }
        }
        copy
    }

    /// Every message file, by base file name.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = ["cur", "new"]
            .iter()
            .flat_map(|sub| fs::read_dir(self.path.join(sub)).expect("a Maildir"))
            .map(|entry| entry.expect("a Maildir").path())
            .collect();
        files.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
        files
    }
}

/// Makes a directory and its parents; gives it, and those it made, to the owner of the mail.
pub fn make_owned(dir: &Path) {
    if dir.is_dir() {
        return;
    }
    make_owned(dir.parent().expect("below the root"));
    fs::create_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    fs::set_permissions(dir, unix_mode(0o755)).expect("our directory");
    chown(dir, Some(OWNER), Some(OWNER)).expect("root");
}

/// Gives a file to the owner of the mail, who may read and write it.
pub fn give_to_owner(file: &Path) {
    chown(file, Some(OWNER), Some(OWNER)).expect("root");
    fs::set_permissions(file, unix_mode(0o600)).expect("root");
}

fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    let meta = from.metadata().expect("just copied");
    chown(to, Some(meta.uid()), Some(meta.gid())).expect("root");
    let times = FileTimes::new().set_modified(meta.modified().expect("Linux"));
    fs::File::options()
        .write(true)
        .open(to)
        .and_then(|file| file.set_times(times))
        .expect("our file");
}
