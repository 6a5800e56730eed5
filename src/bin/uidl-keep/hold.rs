//! `uidl-keep hold` and `uidl-keep release`: whether migrated users are served.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uidl_keep::index::publish::{self, Access, Lock, Staged};
use uidl_keep::maildrop::State;
use uidl_keep::roster::{Gate, Line, Roster};
use uidl_keep::site::{Place, Site};

use crate::opened;
use crate::output::{Outcome, Trouble, on_one_line, remark};

/// Refuses migrated users at POP3, with a text that says that the mailbox is being moved.
///
/// Example: uidl-keep hold alice@example.com example.net
#[derive(clap::Args)]
pub struct HoldArgs {
    #[command(flatten)]
    who: Who,
}

/// Serves migrated users again.
///
/// Example: uidl-keep release alice@example.com
///
/// What was held is guarded again: a first listing is still refused while fewer than half of the
/// captured messages are there. A user who is guarded, and named, is released from that as well.
/// Prints each user whose gate has changed, and what it is now. Exit status 1: not for all of them.
#[derive(clap::Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    who: Who,
    /// Release them from everything, whole domains too.
    #[arg(long, conflicts_with = "redownload")]
    unguarded: bool,
    /// Give their UIDLs up: serve them as if they had never been migrated, and let their clients
    /// download everything again.
    #[arg(long)]
    redownload: bool,
}

#[derive(clap::Args)]
struct Who {
    /// The site directory.
    #[arg(long, value_name = "DIR", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    /// Users, or domains as `example.com` or `@example.com`.
    #[arg(required_unless_present = "list", value_name = "USER|DOMAIN")]
    who: Vec<String>,
    /// A file with a user or domain a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
}

/// What is to become of a gate.
#[derive(Clone, Copy)]
enum Change {
    Hold,
    Release,
    Unguard,
    Redownload,
}

/// Whom of a place.
#[derive(Default)]
struct Named {
    /// Everybody.
    all: bool,
    users: Vec<String>,
}

pub fn hold(args: &HoldArgs) -> Result<Outcome, Trouble> {
    change(&args.who, Change::Hold)
}

pub fn release(args: &ReleaseArgs) -> Result<Outcome, Trouble> {
    let change_to = if args.redownload {
        Change::Redownload
    } else if args.unguarded {
        Change::Unguard
    } else {
        Change::Release
    };
    change(&args.who, change_to)
}

fn change(who: &Who, change: Change) -> Result<Outcome, Trouble> {
    let site = Site::new(&who.site);
    let mut names = who.who.clone();
    if let Some(list) = &who.list {
        names.extend(read_list(list)?);
    }
    let lock = wait_for_lock(&site)?;
    let mut outcome = Outcome::Done;
    let mut places: BTreeMap<Place, Named> = BTreeMap::new();
    for name in names {
        let Some((place, is_all)) = place_of(&site, &name)? else {
            remark(format_args!("{}: no roster for {name}", site.dir().display()));
            outcome = Outcome::Short;
            continue;
        };
        let named = places.entry(place).or_default();
        if is_all {
            named.all = true;
        } else {
            named.users.push(name);
        }
    }
    // Printed when all is done: whoever does not read it must not stop it half way.
    let mut changed = Vec::new();
    let done = places.iter().try_for_each(|(place, named)| {
        if !change_place(&lock, &site, place, named, change, &mut changed)? {
            outcome = Outcome::Short;
        }
        Ok(())
    });
    let printed = print(&changed);
    done.and(printed.map_err(Trouble::from)).map(|()| outcome)
}

fn print(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{}", on_one_line(line)))
}

/// Where a name belongs, and whether it is the whole domain; `None` when that has no roster.
fn place_of(site: &Site, name: &str) -> Result<Option<(Place, bool)>, Trouble> {
    let with_roster = |place: Option<Place>| -> Result<Option<Place>, Trouble> {
        match place {
            Some(place) if opened::open_place(site, &place)?.roster.is_some() => Ok(Some(place)),
            _ => Ok(None),
        }
    };
    if name.trim_start_matches('@').contains('@') {
        return Ok(with_roster(Place::of(name))?.map(|place| (place, false)));
    }
    let domain = with_roster(Place::of(&format!("@{}", name.trim_start_matches('@'))))?;
    let user = if name.starts_with('@') { None } else { with_roster(Place::of(name))? };
    match (domain, user) {
        (Some(_), Some(_)) => {
            Err(Trouble::new(format!("{name} is a domain and a user here; @{name} is the domain")))
        }
        (Some(domain), None) => Ok(Some((domain, true))),
        (None, user) => Ok(user.map(|user| (user, false))),
    }
}

/// Rewrites the roster of a place, and adds a line to `changed` for each gate that is another now.
/// Returns whether all that were named are on it, and could be changed.
fn change_place(
    _lock: &Lock,
    site: &Site,
    place: &Place,
    named: &Named,
    change: Change,
    changed: &mut Vec<String>,
) -> Result<bool, Trouble> {
    let path = site.paths_of(place).roster;
    let Some(mut roster) = opened::open_place(site, place)?.roster else {
        return Err(Trouble::at(path.display(), "gone meanwhile"));
    };
    let mut all_done = true;
    let mut changes = Vec::new();
    let everybody = roster.lines().map(|line| line.user.clone()).filter(|_| named.all);
    let everybody: Vec<(String, bool)> = everybody.map(|user| (user, false)).collect();
    for (user, is_named) in
        everybody.into_iter().chain(named.users.iter().map(|user| (user.clone(), true)))
    {
        let Some(line) = roster.get(&user) else {
            remark(format_args!("{}: {user} is not on it", path.display()));
            all_done = false;
            continue;
        };
        let gate = gate_after(change, line.gate, is_named);
        if let Some(why) = still(change, line.state, gate).filter(|_| is_named) {
            remark(format_args!("{user} {why}"));
            all_done = false;
        }
        if gate != line.gate {
            changes.push(format!("{user} {}", gate.word()));
            let line = Line { gate, ..line.clone() };
            roster.insert(line).map_err(|error| Trouble::at(path.display(), error))?;
        }
    }
    if !changes.is_empty() {
        write_roster(&path, &roster).map_err(|error| Trouble::at(path.display(), error))?;
    }
    changed.append(&mut changes);
    Ok(all_done)
}

/// What becomes of a gate. Who is to download again has begun to: what is said of a whole domain
/// does not take that back.
fn gate_after(change: Change, gate: Gate, is_named: bool) -> Gate {
    match (change, gate) {
        (Change::Redownload, _) => Gate::Redownload,
        (_, Gate::Redownload) if !is_named => Gate::Redownload,
        (Change::Hold, _) => Gate::Held,
        (Change::Release, Gate::Held) => Gate::Guarded,
        (Change::Release, Gate::Guarded) if is_named => Gate::Released,
        (Change::Release, gate) => gate,
        (Change::Unguard, _) => Gate::Released,
    }
}

/// Why a user who was to be released is not served, or not as kept, all the same.
fn still(change: Change, state: State, gate: Gate) -> Option<&'static str> {
    match (change, state, gate) {
        (Change::Hold | Change::Redownload, ..) => None,
        (_, _, Gate::Redownload) => Some(
            "downloads again, as told before; to go back to the kept unique-ids: `hold`, then \
             `release`",
        ),
        (_, State::Failed, _) => Some(
            "is still refused, for the capture failed: capture it again and build upon this site, \
             or `release --redownload`",
        ),
        _ => None,
    }
}

/// Puts a roster in the place of the old one, with its owner and permissions.
fn write_roster(path: &Path, roster: &Roster) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let staged = Staged::create(path)?;
    staged.file().write_all(roster.to_text().as_bytes())?;
    let mode = metadata.mode() & 0o7777;
    staged.seal(Access { mode, owner: Some((metadata.uid(), metadata.gid())) })?.publish()
}

/// Waits a little for another run of uidl-keep that changes the site.
fn wait_for_lock(site: &Site) -> Result<Lock, Trouble> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let lock = publish::lock(site.dir());
        match lock.map_err(|error| Trouble::at(site.dir().join(".lock").display(), error))? {
            Some(lock) => return Ok(lock),
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
            None => {
                return Err(Trouble::at(
                    site.dir().display(),
                    "another uidl-keep changes this site; try again when it is done",
                ));
            }
        }
    }
}

fn read_list(path: &Path) -> Result<Vec<String>, Trouble> {
    let at = |error: io::Error| Trouble::at(path.display(), error);
    let text = if path == Path::new("-") {
        io::read_to_string(io::stdin().lock()).map_err(at)?
    } else {
        io::read_to_string(File::open(path).map_err(at)?).map_err(at)?
    };
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(names.filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}
