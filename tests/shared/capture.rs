//! A capture, with its entries and the messages of the helper.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use uidl_keep::capture::draft::Captured;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::Maildrop;

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

/// The outcome of a run of the helper.
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

    pub fn says(&self, what: &str) {
        assert!(self.stderr.contains(what), "{what}\n---\n{}", self.stderr);
    }

    /// Insists that it refused, for this reason, and wrote nothing.
    pub fn is_refused(&self, because: &str) {
        assert_eq!((self.status, self.stdout.len()), (2, 0), "{}", self.stderr);
        self.says(because);
    }
}
