//! Where the listing goes: stdout, or a file that is written whole or not at all, and never over a
//! listing that has more.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub use uidl_keep::capture::replacement::Asked;
use uidl_keep::capture::replacement::what_is_lost;
use uidl_keep::file::publish::{Access, Sealed, Staged};

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

    /// The listing is whole: flushed, on disk, and in its place, unless what lies there has
    /// maildrops that it has not. Then it goes beside that.
    pub fn publish(self, asked: Asked) -> Result<(), Trouble> {
        let (staged, place) = match self {
            Self::Stdout(mut out) => return out.flush().map_err(|error| cut_short(&error)),
            Self::File(staged, place) => (staged, place),
        };
        let at = |error: io::Error| Trouble::at(place.display(), error);
        if let Ok(old) = File::open(&place) {
            let mut new = staged.file();
            new.seek(SeekFrom::Start(0)).map_err(at)?;
            let lost = what_is_lost(BufReader::new(old), BufReader::new(new), asked);
            if let Some(lost) = lost {
                let beside = beside(&staged, &place).map_err(at)?;
                return Err(Trouble::at(
                    place.display(),
                    format_args!(
                        "not replaced: {lost}; the new listing is {}: if that one is right, move \
                         it there by hand",
                        beside.display()
                    ),
                ));
            }
        }
        staged.seal(ACCESS).and_then(Sealed::publish).map_err(at)
    }
}

const ACCESS: Access = Access { mode: 0o600, owner: None };

/// Puts a listing beside the place that it may not have.
fn beside(staged: &Staged, place: &Path) -> io::Result<PathBuf> {
    let mut name = place.as_os_str().to_owned();
    name.push(".worse");
    let beside = PathBuf::from(name);
    let copy = Staged::create(&beside)?;
    staged.file().seek(SeekFrom::Start(0))?;
    io::copy(&mut staged.file(), &mut copy.file())?;
    copy.seal(ACCESS)?.publish()?;
    Ok(beside)
}

/// An error of stdout. A listing that is cut between two maildrops looks whole, so a reader that
/// goes away is an error here.
fn cut_short(error: &io::Error) -> Trouble {
    Trouble::at("standard output", format_args!("{error}: the listing is cut short"))
}
