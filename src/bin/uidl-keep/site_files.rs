//! Opens what a path names: an index, a roster, or the site that has many of both.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use uidl_keep::file::read_at::ReadAt;
use uidl_keep::index::Index;
use uidl_keep::site::roster::{Roster, RosterEdit};
use uidl_keep::site::{self, OpenError, Scope, Site};

use crate::output::Trouble;

/// The thing that was found at a path.
pub enum Opened {
    Index(Index<File>),
    Roster(Roster),
    Site(Site),
}

/// Opens an index or a roster, which differ in how they begin, or a site.
pub fn open(path: &Path) -> Result<Opened, Trouble> {
    let scope = path.display();
    let file = File::open(path).map_err(|error| Trouble::at(&scope, error))?;
    let metadata = file.metadata().map_err(|error| Trouble::at(&scope, error))?;
    if metadata.is_dir() {
        return Ok(Opened::Site(Site::new(path)));
    }
    let starts_as_roster =
        file.read_at(0, metadata.len().min(16) as usize).map_err(|e| Trouble::at(&scope, e))?;
    if starts_as_roster == b"uidl-keep-roster" {
        Roster::read(&file).map(Opened::Roster).map_err(|error| Trouble::at(&scope, error))
    } else {
        Index::open(file).map(Opened::Index).map_err(|error| Trouble::at(&scope, error))
    }
}

/// The files of a scope, as far as they are there.
pub struct ScopeFiles {
    pub index: Option<Index<File>>,
    pub roster: Option<Roster>,
}

/// Opens both files of a scope as a login would, and reads the roster.
pub fn open_scope(site: &Site, scope: &Scope) -> Result<ScopeFiles, Trouble> {
    Ok(ScopeFiles { index: open_index(site, scope)?, roster: read_roster(site, scope)? })
}

/// Opens the index of a scope as a login would.
pub fn open_index(site: &Site, scope: &Scope) -> Result<Option<Index<File>>, Trouble> {
    let path = site.paths_of(scope).index;
    let index = trusted(&path, u64::MAX)?.map(Index::open).transpose();
    index.map_err(|error| Trouble::at(path.display(), error))
}

/// Reads the roster of a scope, whether or not its index is there. It has no line of users who are
/// not of that scope, whatever the account says that root gave the file to.
pub fn read_roster(site: &Site, scope: &Scope) -> Result<Option<Roster>, Trouble> {
    Ok(read_given(site, scope)?.map(|(roster, _)| roster))
}

/// The lines of these users on the roster of a scope, and perhaps others, as [`read_roster`] gives
/// them.
pub fn read_lines_of<'u>(
    site: &Site,
    scope: &Scope,
    users: impl ExactSizeIterator<Item = &'u str>,
) -> Result<Option<Roster>, Trouble> {
    let Some(edit) = edit_roster(site, scope)? else { return Ok(None) };
    let lines = edit.lines_of(users);
    lines.map(Some).map_err(|error| Trouble::at(site.paths_of(scope).roster.display(), error))
}

/// The roster of a scope, to change some lines of it. As [`read_roster`], it has no line of users
/// who are not of that scope.
pub fn edit_roster(site: &Site, scope: &Scope) -> Result<Option<RosterEdit<File>>, Trouble> {
    if site.given_to(scope).is_some() {
        return Ok(read_roster(site, scope)?.map(RosterEdit::of));
    }
    Ok(trusted(&site.paths_of(scope).roster, u64::MAX)?.map(RosterEdit::upon))
}

/// The users who are not of that scope, and whom the account that owns its roster has named there.
pub fn others_named(site: &Site, scope: &Scope) -> Result<Vec<String>, Trouble> {
    Ok(read_given(site, scope)?.map_or_else(Vec::new, |(_, others)| others))
}

fn read_given(site: &Site, scope: &Scope) -> Result<Option<(Roster, Vec<String>)>, Trouble> {
    let path = site.paths_of(scope).roster;
    let is_given = site.given_to(scope).is_some();
    let most = if is_given { Site::MOST_GIVEN_OCTETS } else { u64::MAX };
    let Some(file) = trusted(&path, most)? else { return Ok(None) };
    let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
    let mut roster = Roster::read(&file).map_err(|error| at(&error))?;
    let others = match is_given {
        true => site.take_others_out(scope, &mut roster).map_err(|error| at(&error))?,
        false => Vec::new(),
    };
    Ok(Some((roster, others)))
}

/// Whether a scope has a roster.
pub fn has_roster(site: &Site, scope: &Scope) -> Result<bool, Trouble> {
    trusted(&site.paths_of(scope).roster, u64::MAX).map(|file| file.is_some())
}

/// [`site::open_trusted`], but a site that is not there has no file either.
fn trusted(path: &Path, most: u64) -> Result<Option<File>, Trouble> {
    match site::open_trusted(path, most) {
        Err(OpenError::NoSite { .. }) => Ok(None),
        opened => opened.map_err(|error| Trouble::at(path.display(), error)),
    }
}

/// All scopes of a site that have an index or a roster, in order.
///
/// # Errors
///
/// A directory without the two directories of a site is no site.
pub fn scopes(site: &Site) -> Result<Vec<Scope>, Trouble> {
    let mut scopes = Vec::new();
    for (directory, scope) in
        [("domain", Scope::Domain as fn(String) -> Scope), ("user", Scope::User)]
    {
        let directory = site.dir().join(directory);
        let at = |error: io::Error| Trouble::at(directory.display(), error);
        for entry in fs::read_dir(&directory).map_err(at)? {
            let name = PathBuf::from(entry.map_err(at)?.file_name());
            let is_ours =
                matches!(name.extension().and_then(OsStr::to_str), Some("idx" | "roster"));
            // No name that `Scope::of` gives begins with a dot. Files that are being written do not
            // count either.
            match name.file_stem().and_then(OsStr::to_str) {
                Some(stem) if is_ours && !stem.starts_with('.') => scopes.push(scope(stem.into())),
                _ => {}
            }
        }
    }
    scopes.sort();
    scopes.dedup();
    Ok(scopes)
}
