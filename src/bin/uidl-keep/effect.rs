//! A command that changes the site, or a dry run of it: [`Effect`].

use std::fs;
use std::io;
use std::path::Path;

use tempfile::TempDir;
use uidl_keep::file::lock::SiteLock;
use uidl_keep::file::publish::Staged;
use uidl_keep::site::Site;

use crate::output::Trouble;

/// The option of commands that change the site.
#[derive(clap::Args, Clone, Copy)]
pub struct DryRunArgs {
    /// Say what would change, and change nothing. The exit status is that of the change.
    #[arg(long)]
    dry_run: bool,
}

/// The right to change a site, or a dry run, which has no such right.
pub enum Effect {
    /// No other run changes the site meanwhile.
    Real { _lock: SiteLock },
    /// Nothing is changed, and no lock is taken.
    Dry,
}

impl Effect {
    /// The effect that is asked for. `lock` takes the lock of the site, unless it is a dry run.
    pub fn of(
        args: DryRunArgs,
        lock: impl FnOnce() -> Result<SiteLock, Trouble>,
    ) -> Result<Self, Trouble> {
        if args.dry_run { Ok(Self::Dry) } else { lock().map(|lock| Self::Real { _lock: lock }) }
    }

    /// Does this, and returns the result; `None` in a dry run, which does not.
    pub fn really<T>(
        &self,
        act: impl FnOnce() -> Result<T, Trouble>,
    ) -> Result<Option<T>, Trouble> {
        match self {
            Self::Real { .. } => act().map(Some),
            Self::Dry => Ok(None),
        }
    }

    /// Begins a file for a path. That of a dry run has no name, and is never put in place.
    pub fn stage(&self, path: &Path) -> io::Result<Staged> {
        match self {
            Self::Real { .. } => Staged::create(path),
            Self::Dry => Ok(Staged::unplaced(tempfile::tempfile()?, path)),
        }
    }

    /// The word of what happens to one: "is", or "would be".
    pub fn is(&self) -> &'static str {
        match self {
            Self::Real { .. } => "is",
            Self::Dry => "would be",
        }
    }

    /// What stands before a word of what was done: nothing, or "would be ".
    pub fn would_be(&self) -> &'static str {
        match self {
            Self::Real { .. } => "",
            Self::Dry => "would be ",
        }
    }
}

impl DryRunArgs {
    /// Whether nothing is to change.
    pub fn is_dry(self) -> bool {
        self.dry_run
    }

    /// An empty site for a dry run to build upon, where none is yet; `None` otherwise. It is gone
    /// when it is dropped.
    pub fn stands_in_for(self, site: &Site) -> Result<Option<TempDir>, Trouble> {
        let parts = ["domain", "user"];
        if !self.dry_run || parts.iter().any(|part| site.dir().join(part).exists()) {
            return Ok(None);
        }
        let make = || {
            let empty = tempfile::tempdir()?;
            parts.iter().try_for_each(|part| fs::create_dir(empty.path().join(part)))?;
            Ok(empty)
        };
        make().map(Some).map_err(|error: io::Error| Trouble::at("an empty site", error))
    }

    /// Checks that a dry run finds the site that the change would need.
    pub fn find(self, site: &Site) -> Result<(), Trouble> {
        if !self.dry_run {
            return Ok(());
        }
        match site.dir().metadata() {
            Ok(_) => Ok(()),
            Err(error) => Err(Trouble::at(site.dir().display(), error)),
        }
    }
}
