//! Finding all maildrops of a server by patterns: [`find`].
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::capture::disk::cyrus::{HEADER_FILE, MailboxOwner};
use crate::capture::error::CaptureError;
use crate::capture::find::naming::Naming;
use crate::capture::find::pattern::{Bound, MOST_READINGS, Pattern, Piece, is_plausible};
use crate::capture::find::source::{Holds, Source, Start, shown};
use crate::capture::users_files;
use crate::maildrop::{everybody_of, is_everybody};
use crate::text::printable;

/// The result of a search.
#[derive(Debug, Default)]
pub struct Search {
    /// The maildrops, sorted by user; no user twice. Where a place could not be searched, one
    /// [stands for everybody](Source::is_gap) who may live there.
    pub sources: Vec<Source>,
    /// Names that no listing can hold, and patterns of which there is nothing here to search, a
    /// sentence each.
    pub losses: Vec<String>,
}

/// Finds the maildrops of `patterns`, on this machine or in the copy of another below `root`.
///
/// Costs one listing of each directory that a variable stands for.
///
/// # Errors
///
/// [`CaptureError::Io`] or [`CaptureError::Link`] when no pattern has a directory to start from;
/// [`CaptureError::Source`] when a pattern cannot name its users.
pub fn find(
    patterns: &[Pattern],
    root: Option<&Path>,
    naming: &Naming,
    holds: Holds,
) -> Result<Search, CaptureError> {
    let mut found = Search::default();
    let mut started = false;
    let mut absent = None;
    let (mut walked, mut linked) = (HashSet::new(), Vec::new());
    // A template is for mail users: an account's own maildrop is called by the account's name.
    let by_default = naming.without_template();
    for pattern in patterns {
        let (path, top) = match open_start(pattern, root) {
            Ok(opened) => opened,
            Err(error) if error.is_absence() => {
                // A panel's patterns name more places than a machine has. The operator's own may
                // name a disk that is not mounted, and nobody knows who lives there.
                if !pattern.is_panel {
                    found.losses.push(format!(
                        "{error}: nothing was searched by that pattern; mount it, or leave the \
                         pattern out if this server has no such directory"
                    ));
                }
                absent.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let naming = match naming.check(pattern, holds) {
            Ok(()) => naming,
            Err(_) if pattern.is_panel => &by_default,
            Err(error) => return Err(CaptureError::Source(error.to_string())),
        };
        started = true;
        let mut walk = Walk {
            naming,
            holds,
            is_copy: root.is_some(),
            found: &mut found,
            walked: &mut walked,
            linked: &mut linked,
            names: Vec::new(),
        };
        let top = Arc::new(top);
        walk.below(pattern, &path, &top, top.as_fd(), &pattern.names, &[Bound::default()]);
    }
    if let Some(error) = absent.filter(|_| !started) {
        return Err(error);
    }
    let Search { sources, mut losses } = found;
    let mut sources = without_unsure(sources, &mut losses);
    // A link whose own name names nobody hides nobody: who lies behind it was found there.
    let found: HashSet<String> = sources
        .iter()
        .filter(|source| source.fault().is_none())
        .map(|source| source.user.clone())
        .chain([everybody_of(None)])
        .collect();
    let unseen = linked.into_iter().filter(|(target, missed)| {
        let is_walked = target.is_some_and(|target| walked.contains(&target));
        !is_walked || !found.contains(&missed.user)
    });
    sources.extend(unseen.map(|(_, missed)| missed));
    Ok(Search { sources: without_doubles(sources), losses })
}

/// The directory that a pattern starts from. In a copy no link is followed, as it would lead out.
fn open_start(pattern: &Pattern, root: Option<&Path>) -> Result<(PathBuf, OwnedFd), CaptureError> {
    let Some(root) = root else {
        let top = users_files::open_operators(&pattern.start)?;
        return Ok((pattern.start.clone(), top));
    };
    let mut path = root.to_path_buf();
    let mut top = users_files::open_operators(root)?;
    for name in pattern.start.iter().skip(1) {
        path.push(name);
        top = users_files::open_directory(top.as_fd(), name).map_err(|error| match error {
            CaptureError::Io { error, .. } => CaptureError::io(path.as_os_str().as_bytes(), error),
            CaptureError::Link { .. } => CaptureError::Link { name: path.display().to_string() },
            other => other,
        })?;
    }
    Ok((path, top))
}

/// The next step where a directory cannot be read.
const MEND: &str = "make it readable, and capture again";

/// A directory, by device and inode number.
type Inode = (u64, u64);

struct Walk<'a> {
    naming: &'a Naming,
    holds: Holds,
    is_copy: bool,
    found: &'a mut Search,
    /// The directories that were searched.
    walked: &'a mut HashSet<Inode>,
    /// Links to places where maildrops may lie. They are not followed: the target of each, and who
    /// is missed.
    linked: &'a mut Vec<(Option<Inode>, Source)>,
    /// The names from the start down to where the walk is.
    names: Vec<OsString>,
}

impl Walk<'_> {
    fn below(
        &mut self,
        pattern: &Pattern,
        path: &Path,
        top: &Arc<OwnedFd>,
        at: BorrowedFd<'_>,
        names: &[Vec<Piece>],
        bounds: &[Bound],
    ) {
        let Some((pieces, rest)) = names.split_first() else { return };
        let fixed = matches!(&pieces[..], [Piece::Literal(_)]);
        let mut candidates = match &pieces[..] {
            [Piece::Literal(name)] => vec![name.clone()],
            _ => match users_files::names(at) {
                Ok(found) => found.into_iter().map(|(name, _)| name.into_vec()).collect(),
                Err(error) => {
                    let gaps = self.gaps(pattern, path, bounds, &error.to_string(), MEND);
                    self.found.sources.extend(gaps);
                    return;
                }
            },
        };
        self.walked.extend(rustix::fs::fstat(at).ok().map(|stat| (stat.st_dev, stat.st_ino)));
        candidates.sort();
        for name in candidates {
            let Ok(text) = std::str::from_utf8(&name) else {
                let place = self.place(path).join(OsStr::from_bytes(&name));
                self.found.losses.push(format!("{}: not a name in UTF-8", shown(&place)));
                continue;
            };
            let mut readings: Vec<Bound> =
                bounds.iter().flat_map(|bound| bound.readings(pieces, text)).collect();
            readings.truncate(MOST_READINGS);
            if self.holds == Holds::CyrusMailbox {
                let values = readings.iter_mut().flat_map(|bound| bound.0.values_mut());
                values.for_each(|value| *value = value.replace('^', "."));
            }
            readings.retain(|bound| fixed || is_plausible(pattern, pieces, text, bound));
            if readings.is_empty() {
                continue;
            }
            self.names.push(OsString::from_vec(name));
            self.step(pattern, path, top, at, rest, &readings);
            self.names.pop();
        }
    }

    /// Goes on below the last of `self.names`, a name in the directory `at`.
    fn step(
        &mut self,
        pattern: &Pattern,
        path: &Path,
        top: &Arc<OwnedFd>,
        at: BorrowedFd<'_>,
        rest: &[Vec<Piece>],
        bounds: &[Bound],
    ) {
        let name = self.names.last().expect("pushed by the caller").clone();
        if rest.is_empty() && self.holds == Holds::File {
            if !is_lock(at, &name) {
                self.source(path, bounds, Start::Below(Arc::clone(top), self.names.clone()));
            }
            return;
        }
        let user_is_known = rest.iter().all(|pieces| matches!(&pieces[..], [Piece::Literal(_)]));
        let directory = match users_files::open_directory(at, &name) {
            Ok(directory) => directory,
            Err(error) if error.is_absence() => return,
            Err(error) if user_is_known => {
                let before = self.found.sources.len();
                self.source(path, bounds, Start::Fault(error.to_string()));
                let target = match error {
                    CaptureError::Link { .. } => {
                        rustix::fs::statat(at, &name, AtFlags::empty()).ok()
                    }
                    _ => return,
                };
                // It is no second maildrop of a user who was found behind it under the same name.
                let target = target.map(|stat| (stat.st_dev, stat.st_ino));
                let sources = self.found.sources.split_off(before);
                self.linked.extend(sources.into_iter().map(|source| (target, source)));
                return;
            }
            Err(CaptureError::Link { .. }) => {
                let why = "a symbolic link, which is not followed";
                let next = "put there what it leads to, or capture that by a pattern of its own";
                // We only look at its target. No server follows a link to something that is no
                // directory, or not there.
                let target = match rustix::fs::statat(at, &name, AtFlags::empty()) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        Some((stat.st_dev, stat.st_ino))
                    }
                    Ok(_) => return,
                    Err(Errno::NOENT) if !self.is_copy => return,
                    // Perhaps the link leads out of the copy.
                    Err(_) => None,
                };
                let gaps = self.gaps(pattern, path, bounds, why, next);
                self.linked.extend(gaps.into_iter().map(|gap| (target, gap)));
                return;
            }
            Err(error) => {
                let why = match error {
                    CaptureError::Io { error, .. } => error.to_string(),
                    other => other.to_string(),
                };
                let gaps = self.gaps(pattern, path, bounds, &why, MEND);
                self.found.sources.extend(gaps);
                return;
            }
        };
        if !rest.is_empty() {
            self.below(pattern, path, top, directory.as_fd(), rest, bounds);
            return;
        }
        if self.holds == Holds::CyrusMailbox {
            self.cyrus_mailbox(path, top, directory.as_fd(), bounds);
            return;
        }
        // `/home/ACCOUNT/mail` and the like need not be a Maildir; a directory called Maildir must.
        let ends_in_account = pattern.is_panel && !bounds.iter().any(|bound| bound.has("local"));
        let cur = users_files::open_directory(directory.as_fd(), OsStr::new("cur"));
        if ends_in_account && cur.is_err_and(|error| error.is_absence()) {
            return;
        }
        self.source(path, bounds, Start::Below(Arc::clone(top), self.names.clone()));
    }

    fn cyrus_mailbox(
        &mut self,
        path: &Path,
        top: &Arc<OwnedFd>,
        directory: BorrowedFd<'_>,
        bounds: &[Bound],
    ) {
        let mut bounds = bounds.to_vec();
        let header = users_files::read_state(directory, HEADER_FILE);
        let start = match header.map(|octets| octets.map(|octets| MailboxOwner::of_header(&octets)))
        {
            Err(error) => Start::Fault(error.to_string()),
            Ok(Some(MailboxOwner::Nobody)) => return,
            Ok(None | Some(MailboxOwner::Unsaid)) => {
                Start::Below(Arc::clone(top), self.names.clone())
            }
            Ok(Some(MailboxOwner::User { local, domain })) => {
                bounds.iter_mut().for_each(|bound| bound.set_owner(&local, domain.as_deref()));
                Start::Below(Arc::clone(top), self.names.clone())
            }
        };
        self.source(path, &bounds, start);
    }

    /// Adds the maildrop at the last of `self.names`; one for each user, where the name can be read
    /// as several.
    fn source(&mut self, path: &Path, bounds: &[Bound], start: Start) {
        let place = self.place(path);
        let mut logins: BTreeMap<String, String> = BTreeMap::new();
        for bound in bounds {
            match self.naming.user(bound) {
                Ok(user) => {
                    let login = Naming::default().user(bound).unwrap_or_else(|_| user.clone());
                    logins.entry(user).or_insert(login);
                }
                Err(error) => {
                    let why = format!("{}: {error}: give another user template", shown(&place));
                    self.found.sources.push(Source::missed(everybody_of(None), place, why));
                    return;
                }
            }
        }
        let users: Vec<&str> = logins.keys().map(String::as_str).collect();
        let start = match &users[..] {
            [one, other, more @ ..] => Start::Unsure(format!(
                "{} can be read as {} and as {}{}: give a variable of the pattern a form, as in \
                 {{stamp:[0-9]+}}",
                shown(&place),
                printable(one.as_bytes()),
                printable(other.as_bytes()),
                if more.is_empty() { "" } else { ", and in other ways" }
            )),
            _ => start,
        };
        for (user, login) in logins {
            let (place, start) = (place.clone(), start.clone());
            self.found.sources.push(Source { user, login, place, start, control: None });
        }
    }

    /// The users who may live at this place, which cannot be searched, and why. There is one for
    /// each reading.
    fn gaps(
        &self,
        pattern: &Pattern,
        path: &Path,
        bounds: &[Bound],
        why: &str,
        next: &str,
    ) -> Vec<Source> {
        let place = self.place(path);
        let users: BTreeSet<String> = (bounds.iter())
            .map(|bound| self.naming.user_or_everybody(pattern, bound, self.holds))
            .collect();
        let gap = |user: String| {
            let whose =
                if is_everybody(&user) { ": whose maildrops lie there is not known" } else { "" };
            let why = format!("{}: {why}{whose}; {next}", shown(&place));
            Source::missed(user, place.clone(), why)
        };
        users.into_iter().map(gap).collect()
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.names.iter().fold(path.to_path_buf(), |path, name| path.join(name))
    }
}

/// Whether a file is the lock of the one beside it.
fn is_lock(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    let locked = name.as_bytes().strip_suffix(b".lock");
    locked.is_some_and(|locked| {
        let locked = OsStr::from_bytes(locked);
        rustix::fs::statat(directory, locked, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    })
}

/// Leaves out maildrops that may be a user's, where that user has one that surely is. `losses` says
/// so of a place that is left to nobody then.
fn without_unsure(sources: Vec<Source>, losses: &mut Vec<String>) -> Vec<Source> {
    let is_sure = |source: &Source| !matches!(source.start, Start::Unsure(_));
    let sure = sources.iter().filter(|source| is_sure(source));
    let sure: HashSet<String> = sure.map(|source| source.user.clone()).collect();
    let (kept, gone): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|source| is_sure(source) || !sure.contains(&source.user));
    let places: HashSet<&Path> = kept.iter().map(|source| source.place.as_path()).collect();
    let of_nobody = gone.into_iter().filter(|source| !places.contains(source.place.as_path()));
    losses.extend(of_nobody.filter_map(|source| match source.start {
        Start::Unsure(why) => Some(why),
        _ => None,
    }));
    losses.dedup();
    kept
}

/// Sorts by user. A user with several maildrops gets one that says so: we cannot tell which of them
/// is in use, and a listing that names a user twice would be refused as a whole.
fn without_doubles(mut sources: Vec<Source>) -> Vec<Source> {
    sources.sort_by(|a, b| (&a.user, &a.place).cmp(&(&b.user, &b.place)));
    let mut single: Vec<Source> = Vec::with_capacity(sources.len());
    for source in sources {
        match single.last_mut() {
            // Two patterns lead to the same place.
            Some(last)
                if last.is_gap() && last.user == source.user && last.place == source.place => {}
            Some(last) if last.user == source.user => {
                let also = shown(&source.place);
                last.start = Start::Fault(match &last.start {
                    Start::Fault(fault) if source.is_gap() => {
                        format!("{fault}; also {}", source.fault().unwrap_or_default())
                    }
                    Start::Fault(fault) | Start::Unsure(fault) => format!("{fault}; also {also}"),
                    _ => format!(
                        "two maildrops for one user, also {also}: rename one, or capture only one"
                    ),
                });
            }
            _ => single.push(source),
        }
    }
    single
}
