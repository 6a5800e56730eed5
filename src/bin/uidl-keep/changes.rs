//! `changes.log` of a site: who changed which gate, and when.

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

/// What is shown of a name that the environment gave.
const MOST_NAME_OCTETS: usize = 128;

/// The log, and what all lines of this run have in common.
pub struct ChangesLog {
    path: PathBuf,
    at: SystemTime,
    command: &'static str,
    /// Who ran it.
    by: String,
}

impl ChangesLog {
    /// That of a site, for the changes that a command makes now. Opens nothing yet.
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

    /// The line that follows when the changes that were announced failed.
    pub fn line_of_failure(&self, roster: &Path, error: &io::Error) -> String {
        let roster = escaped(roster.as_os_str().as_bytes());
        let Self { at, command, by, .. } = self;
        let at = humantime::format_rfc3339_seconds(*at);
        format!("{at} {command} not done in {roster} {by}: {error}\n")
    }

    /// Appends lines, and waits until they are on the disk: all of them, or none.
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
            // Perhaps made just now: its name must be on the disk, too.
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
            File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let written = write_from(&file, end, lines);
        if written.is_err() {
            // A line cut short would run into the next.
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
