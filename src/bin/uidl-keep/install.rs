//! `installing` in a site directory: names the files that a build is putting in place.
//!
//! Files are put in place one after the other. If somebody ends a build of many domains in between,
//! some of them are new and some old. This file is written before the first of them and removed
//! after the last. So `check` and the next build know what was interrupted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use uidl_keep::encoding::Hex;
use uidl_keep::file::publish::{Access, Staged};
use uidl_keep::index::Index;
use uidl_keep::site::Site;
use uidl_keep::site::roster::{escaped, unescaped};

use crate::output::Trouble;

/// A build that is being put in place, or that ended before all of it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Install {
    /// The indexes, by their paths in the site, and their build ids, as `inspect` shows them.
    indexes: BTreeMap<String, String>,
}

const FIRST_LINE: &str = "uidl-keep-installing 1";
/// The line after the last index. Without it the file was cut short.
const LAST_LINE: &str = ".";

impl Install {
    /// The files that an ended build was putting in place; `None` when no build ended so.
    pub fn of(site: &Site) -> Result<Option<Self>, Trouble> {
        let path = path_in(site);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Trouble::at(path.display(), error)),
        };
        let mut lines = text.lines();
        let (first, last) = (lines.next(), lines.next_back());
        let indexes: Option<BTreeMap<_, _>> = lines
            .map(|line| line.split_once(' ').map(|(id, path)| (path.to_owned(), id.to_owned())))
            .collect();
        match indexes {
            Some(indexes) if first == Some(FIRST_LINE) && last == Some(LAST_LINE) => {
                Ok(Some(Self { indexes }))
            }
            _ => Err(Trouble::at(
                path.display(),
                "not what uidl-keep writes there; remove it, and run the last `build` again",
            )),
        }
    }

    /// Adds an index that is to be put in place.
    pub fn add(&mut self, site: &Site, index: &Path, build_id: [u8; 16]) {
        self.indexes.insert(name_in(site, index), Hex(&build_id).to_string());
    }

    /// Adds the files that an earlier build did not put in place, unless this build does.
    pub fn add_missing_of(&mut self, earlier: &Self, site: &Site) {
        for (name, id) in earlier.missing(site) {
            self.indexes.entry(name.to_owned()).or_insert_with(|| id.to_owned());
        }
    }

    /// Writes the note into the site.
    pub fn begin(&self, site: &Site) -> Result<(), Trouble> {
        let path = path_in(site);
        let mut text = format!("{FIRST_LINE}\n");
        for (name, id) in &self.indexes {
            text += &format!("{id} {name}\n");
        }
        text += &format!("{LAST_LINE}\n");
        let write = || {
            let staged = Staged::create(&path)?;
            staged.file().write_all(text.as_bytes())?;
            staged.seal(Access { mode: 0o600, owner: None })?.publish()
        };
        write().map_err(|error: io::Error| Trouble::at(path.display(), error))
    }

    /// Removes the note when all of it is in place. Otherwise the note keeps the rest, which is
    /// returned.
    pub fn end(mut self, site: &Site) -> Result<Option<Self>, Trouble> {
        let missing: Vec<String> = self.missing(site).map(|(name, _)| name.to_owned()).collect();
        self.indexes.retain(|name, _| missing.contains(name));
        if !self.indexes.is_empty() {
            self.begin(site)?;
            return Ok(Some(self));
        }
        let path = path_in(site);
        let removed = fs::remove_file(&path).and_then(|()| File::open(site.dir())?.sync_all());
        removed.map_err(|error| Trouble::at(path.display(), error))?;
        Ok(None)
    }

    /// The indexes that are not in place: another index is there, or none.
    fn missing<'a>(&'a self, site: &'a Site) -> impl Iterator<Item = (&'a str, &'a str)> {
        let is_there = |name: &str, id: &str| {
            let path = unescaped(name).map(|name| site.dir().join(name));
            let index = path.and_then(|path| Index::open(File::open(path).ok()?).ok());
            index.is_some_and(|index| Hex(&index.build_id()).to_string() == id)
        };
        let all = self.indexes.iter().map(|(name, id)| (name.as_str(), id.as_str()));
        all.filter(move |(name, id)| !is_there(name, id))
    }

    /// How much of it is in place, and what to do.
    pub fn state(&self, site: &Site) -> String {
        let missing: Vec<&str> = self.missing(site).map(|(name, _)| name).collect();
        let (all, there) = (self.indexes.len(), self.indexes.len() - missing.len());
        let first = missing.first().map_or_else(String::new, |name| {
            let name = name.split_once('/').map_or(*name, |(_, name)| name);
            format!(" (the first that is not: {})", name.strip_suffix(".idx").unwrap_or(name))
        });
        format!(
            "{}: a build was ended while it was put in place: {there} of {all} domains and users \
             are{first}; run the same `build` again, or remove that file if the rest is not \
             wanted",
            path_in(site).display()
        )
    }
}

fn path_in(site: &Site) -> PathBuf {
    site.dir().join("installing")
}

/// The name of a file below the site, written as a roster writes user names, because a name can
/// have a line feed.
fn name_in(site: &Site, path: &Path) -> String {
    escaped(path.strip_prefix(site.dir()).unwrap_or(path).as_os_str().as_bytes())
}
