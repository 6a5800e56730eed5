//! The work of a capture from disk: [`Job`].

use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::capture::find::source::Source;

use super::listing_file::Asked;

/// The maildrops to capture, and of which server.
pub struct Job {
    pub server: ServerKind,
    pub sources: Vec<Source>,
    pub asked: Asked,
    /// Whether these are all that were asked for, each by its name.
    pub all_well: bool,
    /// Whether they lie in the copy of a server.
    pub is_copy: bool,
    /// The evidence for the head of the listing.
    pub evidence: Vec<String>,
}
