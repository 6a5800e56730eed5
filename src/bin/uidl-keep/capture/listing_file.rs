//! Where the listing goes: stdout, or a file that is written whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use uidl_keep::index::publish::{Access, Sealed, Staged};

use crate::output::Trouble;

/// Where the listing goes.
pub enum ListingFile {
    Stdout(BufWriter<io::StdoutLock<'static>>),
    /// A file that is written beside its place, and put there when it is whole.
    File(Staged, PathBuf),
}

impl ListingFile {
    /// Begins it.
    pub fn open(place: Option<&Path>) -> Result<Self, Trouble> {
        let Some(place) = place.filter(|place| *place != Path::new("-")) else {
            return Ok(Self::Stdout(BufWriter::new(io::stdout().lock())));
        };
        let at = |error: &dyn std::fmt::Display| Trouble::at(place.display(), error);
        if place.file_name().is_none() {
            return Err(at(&"not the name of a file"));
        }
        match Staged::create_alone(place).map_err(|error| at(&error))? {
            Some(staged) => Ok(Self::File(staged, place.to_path_buf())),
            None => Err(at(&"another uidl-keep writes it; wait for it, or name another file")),
        }
    }

    /// Writes more of it.
    pub fn write(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        match self {
            Self::Stdout(out) => out.write_all(octets).map_err(|error| cut_short(&error)),
            Self::File(staged, place) => {
                staged.file().write_all(octets).map_err(|e| Trouble::at(place.display(), e))
            }
        }
    }

    /// The listing is whole: flushed, on disk, and in its place.
    pub fn publish(self) -> Result<(), Trouble> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(|error| cut_short(&error)),
            Self::File(staged, place) => {
                let sealed = staged.seal(Access { mode: 0o600, owner: None });
                let published = sealed.and_then(Sealed::publish);
                published.map_err(|error| Trouble::at(place.display(), error))
            }
        }
    }
}

/// An error of stdout. Cut between two maildrops a listing looks whole: that nobody read on is no way
/// to end it well.
fn cut_short(error: &io::Error) -> Trouble {
    Trouble::at("standard output", format_args!("{error}: the listing is cut short"))
}
