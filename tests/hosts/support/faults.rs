//! A file of ours that is made wrong, in every way that a file can be, and right again.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::OWNER;
use super::host::unix_mode;
use super::scenario::Scenario;

/// The uid of somebody who owns nothing here.
pub const STRANGER: u32 = 12_345;

/// Takes a file away from the account: it becomes root's, and nobody may read it.
pub fn lock_away(file: &Path) {
    chown(file, Some(0), Some(0)).expect("root");
    fs::set_permissions(file, unix_mode(0o000)).expect("root");
}

/// A file as it should be.
#[derive(Debug, Clone)]
pub struct Whole {
    path: PathBuf,
    /// Its content.
    pub octets: Vec<u8>,
    owner: (u32, u32),
    mode: u32,
}

impl Whole {
    /// Takes note of a file.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let octets = fs::read(&path).expect("a file of ours");
        let meta = path.metadata().expect("just read");
        Self { path, octets, owner: (meta.uid(), meta.gid()), mode: meta.mode() & 0o7777 }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file that is there now, and a file beside it.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
    }

    /// Puts other octets in its place, by a rename; owner and mode stay as they were.
    pub fn replace(&self, octets: &[u8]) {
        let beside = self.path.with_extension("beside");
        fs::write(&beside, octets).expect("root");
        chown(&beside, Some(self.owner.0), Some(self.owner.1)).expect("root");
        fs::set_permissions(&beside, unix_mode(self.mode)).expect("root");
        if self.path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            self.remove();
        }
        fs::rename(&beside, &self.path).expect("root");
    }

    /// Puts all of it right.
    pub fn put_back(&self) {
        self.replace(&self.octets);
    }

    /// The octets with a bit of the one at `at` turned over.
    pub fn damaged(&self, at: usize) -> Vec<u8> {
        let mut octets = self.octets.clone();
        octets[at] ^= 0x01;
        octets
    }

    /// The octets with others from `at` on.
    pub fn with(&self, at: usize, octets: &[u8]) -> Vec<u8> {
        let mut whole = self.octets.clone();
        whole[at..at + octets.len()].copy_from_slice(octets);
        whole
    }
}

/// One way to be wrong.
pub struct Fault {
    /// The name of the fault.
    pub name: String,
    /// Brings it about.
    pub bring: Box<dyn Fn(&Whole)>,
    /// The words that the log must have on it, beside the file's path.
    pub words: Vec<&'static str>,
}

impl Fault {
    /// Makes a fault that something is done for.
    pub fn new(name: &str, words: &[&'static str], bring: impl Fn(&Whole) + 'static) -> Self {
        Self { name: name.to_owned(), bring: Box::new(bring), words: words.to_vec() }
    }

    /// Makes a fault by other octets in the file.
    pub fn content(name: &str, octets: Vec<u8>, words: &[&'static str]) -> Self {
        Self::new(name, words, move |file| file.replace(&octets))
    }
}

/// Faults that make a file none of ours, whatever it holds.
pub fn no_file_of_ours() -> Vec<Fault> {
    vec![
        Fault::new("unreadable", &["Permission denied"], |file| lock_away(file.path())),
        Fault::new("another's", &["uid 12345"], |file| {
            chown(file.path(), Some(STRANGER), Some(OWNER)).expect("root");
            fs::set_permissions(file.path(), unix_mode(0o644)).expect("root");
        }),
        Fault::new("a directory", &["not a regular file"], |file| {
            file.remove();
            fs::create_dir(file.path()).expect("root");
            fs::set_permissions(file.path(), unix_mode(0o755)).expect("root");
        }),
        Fault::new("a FIFO", &["not a regular file"], |file| {
            file.remove();
            mknodat(CWD, file.path(), FileType::Fifo, Mode::from(0o666), 0).expect("root");
            fs::set_permissions(file.path(), unix_mode(0o644)).expect("root");
            chown(file.path(), Some(file.owner.0), Some(file.owner.1)).expect("root");
        }),
        Fault::new("a symbolic link to it", &["symbolic link"], |file| {
            let target = file.path().with_extension("elsewhere");
            fs::rename(file.path(), &target).expect("root");
            symlink(&target, file.path()).expect("root");
        }),
        Fault::new("a symbolic link to nothing", &["symbolic link"], |file| {
            file.remove();
            symlink("nowhere", file.path()).expect("root");
        }),
        Fault::new("empty", &[], |file| file.replace(b"")),
        Fault::new("a terabyte of nothing behind it", &["1099511627776"], |file| {
            let grown = File::options().write(true).open(file.path()).expect("root");
            grown.set_len(1 << 40).expect("a file system with sparse files");
        }),
        Fault::new("a terabyte of nothing", &[], |file| {
            file.replace(b"");
            let grown = File::options().write(true).open(file.path()).expect("root");
            grown.set_len(1 << 40).expect("a file system with sparse files");
        }),
    ]
}

/// Brings about one fault after another, each with a new message to list, and insists that the
/// login is refused while it lasts and served once it is gone.
pub fn refused_until_mended(server: &mut Scenario, captured: u32, file: &Whole, faults: &[Fault]) {
    for Fault { name, bring, words } in faults {
        server.deliver();
        bring(file);
        let path = file.path().file_name().expect("a name").to_str().expect("ASCII");
        server.refuses(name, &[&words[..], &[path]].concat());
        file.put_back();
        server.serves(captured, name);
    }
}
