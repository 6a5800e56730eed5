//! `uidl-keep check`: checks every checksum, and that index and roster agree.

use std::path::{Path, PathBuf};

use uidl_keep::site::roster::is_domain;
use uidl_keep::site::{Scope, Site};

use crate::install::Install;
use crate::output::{Completion, Trouble, remark};
use crate::site_files::{self, Opened};
use crate::stop::StopFile;

/// Checks every octet of indexes and rosters. In a site, it also checks that they agree, that no
/// build ended before all its files were in place, and that its settings can be understood.
///
/// Example: uidl-keep check /var/lib/uidl-keep
///
/// Prints nothing when all is well. Exit status 2: there is a fault.
#[derive(clap::Args)]
pub struct CheckArgs {
    /// Indexes, rosters or site directories.
    #[arg(required = true, value_name = "FILE|SITE")]
    pub paths: Vec<PathBuf>,
}

pub fn run(args: &CheckArgs) -> Result<Completion, Trouble> {
    let mut faults = Vec::new();
    for path in &args.paths {
        match site_files::open(path) {
            Ok(Opened::Site(site)) => match site_files::scopes(&site) {
                Ok(scopes) => {
                    faults.extend(check_install(&site).err());
                    faults.extend(site.settings().map_err(Trouble::new).err());
                    let checked = scopes.iter().map(|scope| check_place(&site, scope));
                    faults.extend(checked.filter_map(Result::err));
                    let stop =
                        StopFile::of(&site).map(|stop| stop.map_or(Ok(()), |stop| stop.check()));
                    faults.extend(stop.and_then(|checked| checked).err());
                }
                Err(fault) => faults.push(fault),
            },
            Ok(opened) => faults.extend(check_file(path, &opened).err()),
            Err(fault) => faults.push(fault),
        }
    }
    let Some(last) = faults.pop() else { return Ok(Completion::Done) };
    faults.iter().for_each(remark);
    Err(last)
}

/// Checks that no build ended before all its files were in place.
fn check_install(site: &Site) -> Result<(), Trouble> {
    match Install::of(site)? {
        Some(install) => Err(Trouble::new(install.state(site))),
        None => Ok(()),
    }
}

/// Checks one file. A roster is checked whole when it is read.
fn check_file(path: &Path, opened: &Opened) -> Result<(), Trouble> {
    match opened {
        Opened::Index(index) => index.verify().map_err(|error| Trouble::at(path.display(), error)),
        Opened::Roster(_) | Opened::Site(_) => Ok(()),
    }
}

fn check_place(site: &Site, scope: &Scope) -> Result<(), Trouble> {
    let paths = site.paths_of(scope);
    let kept = site_files::open_scope(site, scope)?;
    let at_index = |error: &dyn std::fmt::Display| Trouble::at(paths.index.display(), error);
    let (Some(index), Some(roster)) = (kept.index, kept.roster) else {
        let missing = "index or roster without the other: build and install both again";
        return Err(at_index(&missing));
    };
    if let (Some(uid), others) = (site.given_to(scope), site_files::others_named(site, scope)?) {
        if let Some(first) = others.first() {
            return Err(Trouble::at(
                paths.roster.display(),
                format_args!(
                    "uid {uid} owns it, and has written {} lines of others (the first: {first}), \
                     which count for nothing; build and install it again",
                    others.len()
                ),
            ));
        }
    }
    // All else is checked as it is read.
    index.verify_build_id().map_err(|error| at_index(&error))?;
    let mut on_roster = 0;
    for maildrop in index.maildrops() {
        let maildrop = maildrop.map_err(|error| at_index(&error))?;
        let user = &maildrop.user;
        if !scope.fits(user) {
            return Err(at_index(&format_args!("{user} does not belong here")));
        }
        match roster.get(user) {
            None => {
                return Err(Trouble::at(
                    paths.roster.display(),
                    format_args!(
                        "{user} is in the index and not on it, and served as if never migrated: \
                         build and install both again"
                    ),
                ));
            }
            Some(line) if line.state == maildrop.state => on_roster += 1,
            Some(line) => {
                return Err(Trouble::at(
                    paths.roster.display(),
                    format_args!(
                        "{user} is {} there, and not so in the index: build and install both again",
                        line.state_word()
                    ),
                ));
            }
        }
    }
    let on_it = roster.lines().filter(|line| !is_domain(&line.user)).count();
    if on_roster == on_it {
        return Ok(());
    }
    Err(Trouble::at(
        paths.roster.display(),
        format_args!(
            "{} of its {} maildrops are not in the index: build and install both again",
            on_it - on_roster,
            on_it
        ),
    ))
}
