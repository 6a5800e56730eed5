//! `uidl-keep get`: prints the kept data of one user or of one message.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uidl_keep::file::map::Mapped;
use uidl_keep::index::Index;
use uidl_keep::listing::write_maildrop;
use uidl_keep::maildrop::Maildrop;
use uidl_keep::site::Site;
use uidl_keep::site::roster;

use crate::dump::listed;
use crate::output::{Completion, Trouble, remark};
use crate::site_files::{self, Opened};

/// Prints the kept data of a user as a listing; with a UIDL, only the lines that have it.
///
/// Example: uidl-keep get /var/lib/uidl-keep alice@example.com
///
/// Looks the user up as the plugin does. Exit status 1: the user, or the UIDL, is not there.
#[derive(clap::Args)]
pub struct GetArgs {
    /// An index or a site directory.
    #[arg(value_name = "FILE|SITE")]
    path: PathBuf,
    /// The user name, as Dovecot sees it at login.
    user: String,
    /// Only the messages that have this UIDL, or had it in an earlier capture, or its line as a
    /// spent one.
    uidl: Option<String>,
}

pub fn run(args: &GetArgs) -> Result<Completion, Trouble> {
    let maildrop = match site_files::open(&args.path)? {
        Opened::Index(index) => maildrop(&args.path, &index, &args.user)?,
        Opened::Roster(_) => {
            return Err(Trouble::at(
                args.path.display(),
                "a roster, and only an index has messages; name the site",
            ));
        }
        Opened::Site(site) => match from_site(&site, &args.user)? {
            Some(found) => found,
            None => return Ok(Completion::Partial),
        },
    };
    let Some(maildrop) = maildrop else {
        remark(format_args!("{}: no maildrop of {}", args.path.display(), args.user));
        return Ok(Completion::Partial);
    };
    let mut block = Vec::new();
    write_maildrop(&mut block, &listed(maildrop))
        .map_err(|error| Trouble::at(args.path.display(), error))?;
    let mut out = io::stdout().lock();
    let Some(uidl) = &args.uidl else {
        out.write_all(&block)?;
        return Ok(Completion::Done);
    };
    let mut outcome = Completion::Partial;
    for line in block.split_inclusive(|&octet| octet == b'\n') {
        let mut words = line.split(|octet| octet.is_ascii_whitespace());
        let first = words.next().unwrap_or_default();
        let is_of_uidl = first == b"spent" || first.first().is_some_and(u8::is_ascii_digit);
        let is_it = |word: &[u8]| word.strip_prefix(b"earlier=") == Some(uidl.as_bytes());
        if is_of_uidl && (words.next() == Some(uidl.as_bytes()) || words.any(is_it)) {
            out.write_all(line)?;
            outcome = Completion::Done;
        }
    }
    Ok(outcome)
}

/// The maildrop of a user in a site, found by the steps of a login. `None`, with a remark, when he
/// is not on a roster.
fn from_site(site: &Site, user: &str) -> Result<Option<Option<Maildrop>>, Trouble> {
    let none = || {
        remark(format_args!("{}: no roster names {user}", site.dir().display()));
        Ok(None)
    };
    let Some(paths) = site.paths(user) else { return none() };
    let at_roster = |error: &dyn std::fmt::Display| Trouble::at(paths.roster.display(), error);
    let Some(file) = site.open_roster(user).map_err(|error| at_roster(&error))? else {
        return none();
    };
    let line = roster::lookup(&file, user).map_err(|error| at_roster(&error))?;
    let Some(line) = line else { return none() };
    remark(format_args!("{user} is {}, {}", line.state_word(), line.words()));

    let at_index = |error: &dyn std::fmt::Display| Trouble::at(paths.index.display(), error);
    let file = site.open_index(user).map_err(|error| at_index(&error))?;
    let file = file.ok_or_else(|| at_index(&"no index, but the roster names the user"))?;
    let index = Mapped::new(file).map_err(|error| at_index(&error))?;
    let index = Index::open(index).map_err(|error| at_index(&error))?;
    let maildrop = index.maildrop(user).map_err(|error| at_index(&error))?;
    let maildrop =
        maildrop.ok_or_else(|| at_index(&"the roster names the user, the index does not"));
    maildrop.map(|maildrop| Some(Some(maildrop)))
}

fn maildrop(path: &Path, index: &Index<File>, user: &str) -> Result<Option<Maildrop>, Trouble> {
    index.maildrop(user).map_err(|error| Trouble::at(path.display(), error))
}
