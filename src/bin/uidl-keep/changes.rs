//! `changes.log` of a site: each change of a gate, with its author and time.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uidl_keep::file::safe_open;
use uidl_keep::site::Site;
use uidl_keep::site::roster::escaped;

use crate::output::Trouble;

/// The most octets that are shown of a name from the environment.
const MOST_NAME_OCTETS: usize = 128;

/// The log, with the words that all lines of this run have in common.
pub struct ChangesLog {
    path: PathBuf,
    at: SystemTime,
    command: &'static str,
    /// The name of whoever ran it.
    by: String,
}

impl ChangesLog {
    /// The log of a site, for the changes that a command makes now. This opens nothing yet.
    pub fn new(site: &Site, command: &'static str, at: SystemTime) -> Self {
        let mut by = format!("uid={}", rustix::process::getuid().as_raw());
        if let Some(name) = env::var_os("SUDO_USER") {
            let name = name.as_bytes();
            by += &format!(" sudo={}", escaped(&name[..name.len().min(MOST_NAME_OCTETS)]));
        }
        Self { path: site.dir().join("changes.log"), at, command, by }
    }

    /// The line of one change.
    pub fn line(&self, user: &str, before: &str, after: &str) -> String {
        let user = escaped(user.as_bytes());
        let Self { at, command, by, .. } = self;
        let at = humantime::format_rfc3339_seconds(*at);
        format!("{at} {command} {user} {before} -> {after} {by}\n")
    }

    /// The line that is added when changes were announced and then failed.
    pub fn line_of_failure(&self, roster: &Path, error: &io::Error) -> String {
        let roster = escaped(roster.as_os_str().as_bytes());
        let Self { at, command, by, .. } = self;
        let at = humantime::format_rfc3339_seconds(*at);
        format!("{at} {command} not done in {roster} {by}: {error}\n")
    }

    /// Appends all lines, or none, and waits until they are on the disk.
    pub fn append(&self, lines: &str) -> Result<(), Trouble> {
        self.try_append(lines).map_err(|error| {
            Trouble::at(
                self.path.display(),
                format_args!("{error}; nothing is changed that cannot be logged"),
            )
        })
    }

    fn try_append(&self, lines: &str) -> io::Result<()> {
        let mut options = safe_open::options();
        options.read(true).append(true).create(true).mode(0o600);
        let (file, metadata) = safe_open::regular(options.open(&self.path))?;
        let end = metadata.len();
        if end == 0 {
            // The file may be new: its name must be on the disk too.
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
            File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let written = write_from(&file, end, lines);
        if written.is_err() {
            // A line that was cut short would run into the next.
            let _ = file.set_len(end);
        }
        written
    }
}

fn write_from(mut file: &File, end: u64, lines: &str) -> io::Result<()> {
    let mut last = [b'\n'];
    if end > 0 {
        file.read_exact_at(&mut last, end - 1)?;
    }
    // A power cut can leave a line without its end.
    let lines = if last == [b'\n'] { lines.to_owned() } else { format!("\n{lines}") };
    file.write_all(lines.as_bytes())?;
    file.sync_all()
}
