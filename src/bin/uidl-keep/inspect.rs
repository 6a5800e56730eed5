//! `uidl-keep inspect`: prints a summary of an index, a roster or a site.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uidl_keep::encoding::Hex;
use uidl_keep::index::Index;
use uidl_keep::maildrop::State;
use uidl_keep::site::roster::{GATE_WORDS, Roster, RosterLine, is_domain};
use uidl_keep::text::on_one_line;

use crate::output::{Completion, Trouble};
use crate::site_files::{self, Opened};

/// Prints one line for each index or roster, and for each of a site, saying what it holds.
///
/// Example: uidl-keep inspect /var/lib/uidl-keep
#[derive(clap::Args)]
pub struct InspectArgs {
    /// Indexes, rosters or site directories.
    #[arg(required = true, value_name = "FILE|SITE")]
    pub paths: Vec<PathBuf>,
}

pub fn run(args: &InspectArgs) -> Result<Completion, Trouble> {
    let mut out = io::stdout().lock();
    for path in &args.paths {
        match site_files::open(path)? {
            Opened::Index(index) => print_index(&mut out, path, &index)?,
            Opened::Roster(roster) => print_roster(&mut out, path, &roster)?,
            Opened::Site(site) => {
                for scope in site_files::scopes(&site)? {
                    let paths = site.paths_of(&scope);
                    let kept = site_files::open_scope(&site, &scope)?;
                    if let Some(index) = &kept.index {
                        print_index(&mut out, &paths.index, index)?;
                    }
                    if let Some(roster) = &kept.roster {
                        print_roster(&mut out, &paths.roster, roster)?;
                    }
                }
            }
        }
    }
    Ok(Completion::Done)
}

fn print_index(out: &mut impl Write, path: &Path, index: &Index<File>) -> io::Result<()> {
    write!(
        out,
        "{}: {}, {} maildrops, {} messages, {} octets, normaliser {}, build ",
        on_one_line(path.display()),
        if index.is_final() { "final" } else { "open" },
        index.maildrop_count(),
        index.entry_count(),
        index.len_octets(),
        index.normaliser(),
    )?;
    write!(out, "{}", Hex(&index.build_id()))?;
    writeln!(out)
}

fn print_roster(out: &mut impl Write, path: &Path, roster: &Roster) -> io::Result<()> {
    let lines = || roster.lines().filter(|line| !is_domain(&line.user));
    write!(out, "{}: {} maildrops", on_one_line(path.display()), lines().count())?;
    let mut before = ": ";
    for (word, state) in
        [("captured", State::Captured), ("empty", State::Empty), ("failed", State::Failed)]
    {
        let count = lines().filter(|line| line.state == state).count();
        if count > 0 {
            write!(out, "{before}{count} {word}")?;
            before = ", ";
        }
    }
    before = "; ";
    for gate in GATE_WORDS {
        let count = lines().filter(|line| line.gate_word() == gate).count();
        if count > 0 {
            write!(out, "{before}{count} {}", gate)?;
            before = ", ";
        }
    }
    before = "; ";
    type Note = fn(&RosterLine) -> bool;
    let notes: [(&str, Note); 3] = [
        ("listed", |line| line.listed),
        ("restored", |line| line.restored != 0),
        ("unguarded", |line| line.unguarded != 0),
    ];
    for (word, has_it) in notes {
        let count = lines().filter(|line| has_it(line)).count();
        if count > 0 {
            write!(out, "{before}{count} noted as {word}")?;
            before = ", ";
        }
    }
    if lines().count() < roster.len() {
        write!(out, "; the whole domain held")?;
    }
    writeln!(out)
}
