//! The files of the machine that is looked at: [`Machine`].
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The most octets of a file that are read: no configuration is larger.
const MOST_OCTETS: u64 = 4 << 20;

/// A machine by its root directory. What is read of it is root's: configuration, `/proc`, `/sys`.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine whose root directory is there; `/` is this one.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The place of one of its files, as this process sees it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether something has this name.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// The text of a file. `None`: there is none.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<Option<String>> {
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(self.path(path));
        let file: File = match open {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.is_dir() {
            return Ok(None);
        }
        let mut octets = Vec::new();
        file.take(MOST_OCTETS).read_to_end(&mut octets)?;
        Ok(Some(String::from_utf8_lossy(&octets).into_owned()))
    }

    /// The names in a directory that end so, in order. A directory that is not there has none.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn names(&self, dir: impl AsRef<Path>, end: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(dir)) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(end) && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
