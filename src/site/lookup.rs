//! What a site says of one user: his line of the roster, and what was captured of him.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::file::map::Mapped;
use crate::index::Index;
use crate::maildrop::Maildrop;
use crate::site::directory::Site;
use crate::site::remedy::Remedy;
use crate::site::roster::{self, RosterLine};

impl Site {
    /// The line of the roster that a login of the user would go by; that of everybody of his domain
    /// where he is not named. `None`: he is on no roster.
    ///
    /// # Errors
    ///
    /// Could not tell: a sentence that names place, fact and next step.
    pub fn line_of(&self, user: &str) -> Result<Option<RosterLine>, String> {
        let place = || self.paths(user).map(|paths| paths.roster).unwrap_or_default();
        let file = self.open_roster(user).map_err(|why| fault(&place(), &why))?;
        let Some(file) = file else { return Ok(None) };
        roster::lookup_or_everybody(&file, user).map_err(|why| fault(&place(), &why))
    }

    /// What was captured of a user who is on a roster.
    ///
    /// # Errors
    ///
    /// As [`Site::line_of`]; it is one that the index lacks him.
    pub fn captured_of(&self, user: &str) -> Result<Maildrop, String> {
        let path = self.paths(user).map(|paths| paths.index).unwrap_or_default();
        let file = self.open_index(user).map_err(|why| fault(&path, &why))?;
        let file = file.ok_or_else(|| fault(&path, &"no index, but its roster names the user"))?;
        let mapped = Mapped::new(file).map_err(|why| fault(&path, &why))?;
        let index = Index::open(mapped).map_err(|why| fault(&path, &why))?;
        let maildrop = index.maildrop(user).map_err(|why| fault(&path, &why))?;
        maildrop.ok_or_else(|| fault(&path, &"its roster names the user, the index does not"))
    }
}

fn fault(path: &Path, why: &dyn Remedy) -> String {
    format!("{}: {why}; {}", path.display(), why.remedy())
}
