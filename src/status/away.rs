//! Takes the roster and the index of a scope away, once Dovecot alone tells its clients the same:
//! [`Away`].
//!
//! A login may come between any two steps, and a power cut, too. So the roster first says
//! `redownload` of everybody: from then on the plugin leaves these users to Dovecot, with or
//! without ledger and index. The ledgers go next: one that stayed would make the plugin refuse new
//! mail to a user who is on no roster (rule 12). Then goes the index, and the roster last, for an
//! index without a roster is a roster that was lost. Whoever begins again finishes it.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::file::publish::{Access, Staged};
use crate::site::roster::{Gate, Roster, RosterLine};
use crate::site::{Scope, Site};

/// Where files go that are taken away: `retired/DATE` in the site. Only root reads it.
#[derive(Debug)]
pub struct Away<'a> {
    site: &'a Site,
    dir: PathBuf,
}

impl<'a> Away<'a> {
    /// Names the place for what goes at that time. Nothing is made yet.
    pub fn at(site: &'a Site, now: SystemTime) -> Self {
        let date = humantime::format_rfc3339_seconds(now).to_string().replace(':', "");
        Self { site, dir: site.dir().join("retired").join(date) }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts a copy of the roster there, as it is now.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn keep_roster(&self, scope: &Scope, roster: &Roster) -> io::Result<()> {
        let place = self.place(&self.site.paths_of(scope).roster)?;
        let staged = Staged::create(&place)?;
        staged.file().write_all(roster.to_text().as_bytes())?;
        staged.seal(Access { mode: 0o600, owner: None })?.publish()
    }

    /// Rewrites the roster so that Dovecot alone answers everybody on it.
    ///
    /// # Errors
    ///
    /// What the system says; the roster before is in its place.
    pub fn leave_to_dovecot(&self, scope: &Scope, roster: &Roster) -> io::Result<()> {
        let path = self.site.paths_of(scope).roster;
        let mut left = roster.clone();
        for line in roster.lines() {
            left.insert(left_to_dovecot(line)).map_err(io::Error::other)?;
        }
        let metadata = fs::symlink_metadata(&path)?;
        let staged = Staged::create(&path)?;
        staged.file().write_all(left.to_text().as_bytes())?;
        let owner = Some((metadata.uid(), metadata.gid()));
        staged.seal(Access { mode: metadata.mode() & 0o7777, owner })?.publish()
    }

    /// Takes the index away, and then the roster.
    ///
    /// # Errors
    ///
    /// What the system says. The roster is there as long as the index is.
    pub fn take(&self, scope: &Scope) -> io::Result<()> {
        let paths = self.site.paths_of(scope);
        match fs::rename(&paths.index, self.place(&paths.index)?) {
            Ok(()) => {}
            // A run before was broken off here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let live = paths.index.parent().unwrap_or(self.site.dir());
        File::open(live)?.sync_all()?;
        fs::remove_file(&paths.roster)?;
        File::open(live)?.sync_all()
    }

    /// The place of a file of the site, in a directory that is there.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let below = path.strip_prefix(self.site.dir()).map_err(io::Error::other)?;
        let place = self.dir.join(below);
        if let Some(dir) = place.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(place)
    }
}

/// The line of a user whom Dovecot alone answers.
fn left_to_dovecot(line: &RosterLine) -> RosterLine {
    line.clone().with_gate(Gate::Redownload, false)
}
