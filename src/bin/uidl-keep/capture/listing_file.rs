//! Where the listing goes: stdout, or a file that is written whole or not at all, and never over a
//! listing that has more.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use uidl_keep::file::publish::{Access, Sealed, Staged};
use uidl_keep::listing;
use uidl_keep::maildrop::{State, everybody_of};
use uidl_keep::text::printable;

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
            if let Some(lost) = what_is_lost(&old, staged.file(), asked).map_err(at)? {
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

/// Whom a capture was asked for: who else is in a listing that it would replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Everybody that it finds: maildrops may have been deleted since.
    Everybody,
    /// Some of the maildrops: the others are still there.
    Some,
    /// Those in a list, which others were taken off.
    Listed,
}

/// What a listing says of one maildrop, as far as another may say less.
struct ListedState {
    state: State,
    /// Which capture it is of.
    kind: String,
}

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

/// What a new listing lacks of an old one, in words; `None` when it may take its place.
fn what_is_lost(mut old: &File, mut new: &File, asked: Asked) -> io::Result<Option<String>> {
    new.seek(SeekFrom::Start(0))?;
    let (old, new) = (said_in(&mut old), said_in(&mut new));
    let (mut failed, mut missing, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for (user, said) in old.iter().filter(|(_, said)| said.state != State::Failed) {
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        let is_in_gap = || new.contains_key(&everybody_of(domain));
        match new.get(user) {
            Some(now) if now.state == State::Failed => failed.push(user),
            // Of the wrong server perhaps, which has never opened it.
            Some(now) if now.state == State::Empty && said.state == State::Captured => {
                if now.kind != said.kind {
                    other.push(user);
                }
            }
            Some(_) => {}
            None if is_in_gap() => failed.push(user),
            None => missing.push(user),
        }
    }
    let may_miss = match asked {
        Asked::Everybody => (old.len() / 100).max(3),
        Asked::Some => 0,
        Asked::Listed => usize::MAX,
    };
    if missing.len() <= may_miss {
        missing.clear();
    }
    let mut lost = Vec::new();
    for (mut users, what) in [
        (failed, "failed now"),
        (other, "empty to this server"),
        (missing, "not in the new listing"),
    ] {
        users.sort();
        if let Some(first) = users.first() {
            let (count, first) = (users.len(), printable(first.as_bytes()));
            lost.push(format!("{count} {what} (the first: {first})"));
        }
    }
    let captured = old.values().filter(|said| said.state != State::Failed).count();
    Ok((!lost.is_empty()).then(|| {
        format!("of {captured} maildrops that it has, these would be lost: {}", lost.join(", "))
    }))
}

/// The maildrops of a listing, up to where it is none.
fn said_in(file: &mut &File) -> HashMap<String, ListedState> {
    let blocks = listing::scan(BufReader::new(file)).with_heads();
    let blocks = blocks.map_while(Result::ok).map(|(block, head)| {
        let kind = head.source.split(' ').next().unwrap_or_default().to_owned();
        (block.user, ListedState { state: head.state, kind })
    });
    blocks.collect()
}

/// An error of stdout. Cut between two maildrops a listing looks whole: that nobody read on is no way
/// to end it well.
fn cut_short(error: &io::Error) -> Trouble {
    Trouble::at("standard output", format_args!("{error}: the listing is cut short"))
}
