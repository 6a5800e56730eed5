//! The work of a capture from disk: [`Job`].

use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::capture::find::source::Source;

use super::here::{Here, HereArgs};
use super::listing_file::Asked;
use super::sources::WholeServerArgs;
use crate::output::Trouble;

/// The maildrops to capture, and of which server.
pub struct Job {
    pub server: ServerKind,
    pub sources: Vec<Source>,
    pub asked: Asked,
    /// Whether these are all that were asked for, each by its name.
    pub all_well: bool,
    /// Whether they lie in the copy of a server.
    pub is_copy: bool,
    /// Where uidl-keep may serve them, and where its ledgers lie then.
    pub here: Option<Here>,
    /// The evidence for the head of the listing.
    pub evidence: Vec<String>,
}

impl Job {
    /// The same of a server that uidl-keep may serve.
    pub fn served(mut self, args: &HereArgs, whole: &WholeServerArgs) -> Result<Self, Trouble> {
        let real = self.sources.iter().filter(|source| !source.is_gap());
        let logins: Vec<String> = real.map(|source| source.login().to_owned()).collect();
        let here = args.here(whole.root.as_deref(), &whole.naming()?, &logins)?;
        self.sources = self.sources.into_iter().map(|source| here.with_control(source)).collect();
        self.here = Some(here);
        Ok(self)
    }
}
