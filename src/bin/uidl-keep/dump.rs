//! `uidl-keep dump`: an index as a listing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use uidl_keep::index::Index;
use uidl_keep::listing::write_maildrop;
use uidl_keep::maildrop::{Maildrop, State};

use crate::output::{Completion, Trouble};
use crate::site_files::{self, Opened};

/// Prints the maildrops of indexes as a listing. `build` makes the same index from it.
///
/// Example: uidl-keep dump example.com.idx | uidl-keep build -o again -
///
/// An index has only the keys of file names and GUIDs, and so does the listing. For a final index,
/// use `build --final`.
#[derive(clap::Args)]
pub struct DumpArgs {
    /// Indexes or site directories.
    #[arg(required = true, value_name = "FILE|SITE")]
    paths: Vec<PathBuf>,
}

pub fn run(args: &DumpArgs) -> Result<Completion, Trouble> {
    let mut out = BufWriter::new(io::stdout().lock());
    for path in &args.paths {
        match site_files::open(path)? {
            Opened::Index(index) => dump(&mut out, path, &index)?,
            Opened::Roster(_) => {
                return Err(Trouble::at(
                    path.display(),
                    "a roster, and only an index has messages",
                ));
            }
            Opened::Site(site) => {
                for scope in site_files::scopes(&site)? {
                    if let Some(index) = site_files::open_scope(&site, &scope)?.index {
                        dump(&mut out, &site.paths_of(&scope).index, &index)?;
                    }
                }
            }
        }
    }
    out.flush()?;
    Ok(Completion::Done)
}

fn dump(out: &mut impl Write, path: &Path, index: &Index<File>) -> Result<(), Trouble> {
    for maildrop in index.maildrops() {
        let maildrop = maildrop.map_err(|error| Trouble::at(path.display(), error))?;
        write_maildrop(out, &listed(maildrop))?;
    }
    Ok(())
}

/// A maildrop of an index in the form that a listing allows: a failed one must have a remark.
pub fn listed(mut maildrop: Maildrop) -> Maildrop {
    if maildrop.state == State::Failed {
        maildrop.remarks.push("the listing that this index was made from says why".into());
    }
    maildrop
}
