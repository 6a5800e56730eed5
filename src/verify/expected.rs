//! What clients know of a maildrop: [`Expected`].
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use crate::file::map::Mapped;
use crate::format::UidlFormat;
use crate::index::Index;
use crate::maildrop::{Maildrop, State};
use crate::site::remedy::Remedy;
use crate::site::roster::{self, Gate, RosterLine};
use crate::site::{Paths, Site};

/// What clients know of one maildrop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The messages that are to be listed, in the old order: each with every UIDL that a client may
    /// know it by, the present one first.
    pub messages: Vec<Vec<Box<[u8]>>>,
    /// The UIDLs of messages that only earlier captures had.
    pub older: HashSet<Box<[u8]>>,
    /// Other UIDLs that a client may hold. No message may be listed by one.
    pub spent: HashSet<Box<[u8]>>,
    /// How the old server counted: the format, the UIDVALIDITY, and the first number not given.
    pub counter: Option<(UidlFormat, u32, u32)>,
}

impl Expected {
    /// What clients know of a maildrop that was captured.
    ///
    /// # Errors
    ///
    /// A sentence: its capture failed, so that nobody knows.
    pub fn of(captured: &Maildrop) -> Result<Self, String> {
        if captured.state == State::Failed {
            return Err("its capture failed: nobody knows what its clients know".to_owned());
        }
        let octets = |uidl: &crate::uidl::Uidl| Box::<[u8]>::from(uidl.as_bytes());
        let last = captured.captures.len().saturating_sub(1);
        let (mut messages, mut older) = (Vec::new(), HashSet::new());
        for entry in &captured.entries {
            let uidls = entry.uidls().map(octets);
            if entry.last_capture as usize >= last {
                messages.push(uidls.collect());
            } else {
                older.extend(uidls);
            }
        }
        let counter = captured.counter.as_ref();
        let counter = counter.map(|counter| {
            (counter.format.clone(), captured.uidvalidity.unwrap_or(0), counter.next)
        });
        let spent = captured.spent.iter().map(octets).collect();
        Ok(Self { messages, older, spent, counter })
    }

    /// What clients know after a listing of the old server.
    pub fn of_listing(uidls: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let messages = uidls.into_iter().map(|uidl| vec![uidl]).collect();
        Self { messages, ..Self::default() }
    }

    /// Whether a client may hold this UIDL for another message than those that are to be listed.
    pub fn is_spent(&self, uidl: &[u8]) -> bool {
        self.spent.contains(uidl)
            || self.counter.as_ref().is_some_and(|(format, uidvalidity, next)| {
                format.number_of(uidl, *uidvalidity).is_some_and(|number| number < *next)
            })
    }
}

/// What a site says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfSite {
    /// Clients know this.
    Expected(Expected),
    /// The operator has given the UIDLs up: clients download everything again.
    Redownload,
}

/// What a site has of a user, found by the steps of a login.
///
/// # Errors
///
/// A sentence that says why that could not be told, and what to do: he is on no roster, was
/// forgotten, is held, his capture failed, or a file of the site cannot be read.
pub fn of_site(site: &Site, user: &str) -> Result<OfSite, String> {
    let not_there = || format!("not on a roster of {}", site.dir().display());
    let paths = site.paths(user).ok_or_else(not_there)?;
    let file = site.open_roster(user).map_err(|why| fault(&paths.roster, &why))?;
    let file = file.ok_or_else(not_there)?;
    let line = roster::lookup(&file, user).map_err(|why| fault(&paths.roster, &why))?;
    let line = line.ok_or_else(not_there)?;
    if line.gate == Gate::Redownload {
        return Ok(OfSite::Redownload);
    }
    if line.awaits_capture() {
        return Err("it was forgotten, and is refused: capture it again and build".to_owned());
    }
    if line.gate == Gate::Held {
        return Err("it is held, and POP3 refuses it: release it first".to_owned());
    }
    captured(site, &line, &paths).and_then(|it| Expected::of(&it)).map(OfSite::Expected)
}

fn captured(site: &Site, line: &RosterLine, paths: &Paths) -> Result<Maildrop, String> {
    let at_index = |why: &dyn Remedy| fault(&paths.index, why);
    let file = site.open_index(&line.user).map_err(|why| at_index(&why))?;
    let file: File = file.ok_or_else(|| at_index(&"no index, but its roster names the user"))?;
    let mapped = Mapped::new(file).map_err(|why| at_index(&why))?;
    let index = Index::open(mapped).map_err(|why| at_index(&why))?;
    let captured = index.maildrop(&line.user).map_err(|why| at_index(&why))?;
    captured.ok_or_else(|| at_index(&"its roster names the user, the index does not"))
}

fn fault(path: &Path, why: &dyn Remedy) -> String {
    format!("{}: {why}; {}", path.display(), why.remedy())
}
