//! Where maildrops are found: one Maildir, or all of a server by a [`Pattern`] such as
//! `/srv/vmail/{domain}/{local}/Maildir`.
//!
//! A name that can be read in two ways, as `anna-lena-2019` by `{local}-{stamp}`, is nobody's: each
//! user that it may be of has a maildrop that could not be captured, until a variable is given a
//! form, as in `{stamp:[0-9]+}`.
//!
//! Below the part of a pattern before its first variable no symbolic link is followed: those
//! directories may belong to users.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use regex_lite::Regex;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::capture::disk::cyrus::MailboxOwner;
use crate::capture::disk::server::CYRUS_HEADER;
use crate::capture::error::CaptureError;
use crate::capture::safe_open;
use crate::maildrop::{everybody_of, is_everybody};
use crate::text::printable;

/// Where maildrops lie and who uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The directory names up to the first variable.
    start: PathBuf,
    /// The names below it.
    names: Vec<Vec<Piece>>,
    /// A panel's own: a `{domain}` has a dot, and an account's directory need not be a Maildir.
    is_panel: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    /// Its name, and the form of what it stands for.
    Variable(String, Option<Form>),
    /// `*`: any name, and no part of the user's.
    Any,
    /// `?`: a name of one octet, as a server splits large directories.
    Split,
}

/// What a variable can stand for: a regular expression for all of it.
#[derive(Debug, Clone)]
struct Form(Regex);

impl Form {
    fn new(text: &str) -> Result<Self, BadPattern> {
        // Alone too: with what stands around it here, other braces could be even.
        let regex = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        regex.map(Self).map_err(|error| BadPattern::Form(text.to_owned(), error.to_string()))
    }

    fn is_of(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Form {}

/// Why a text is not a pattern, a template or a list of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPattern {
    /// It must start at the root.
    #[error("pattern {0:?} does not start with /")]
    Relative(String),
    /// Nothing varies in it.
    #[error("pattern {0:?} has no variable such as {{domain}} or {{local}}")]
    Fixed(String),
    /// A brace without its partner, or with something else than a name in it.
    #[error("{0:?} has a brace that is not around a name, as in {{local}}")]
    Brace(String),
    /// The form of a variable is no regular expression.
    #[error("{0:?} is not a regular expression: {1}")]
    Form(String, String),
    /// A template says only what is put where.
    #[error("user template has a form for {{{0}}}: give it in the pattern")]
    FormInTemplate(String),
    /// Two variables side by side: nobody knows where one ends.
    #[error("{0:?} has two variables with nothing between them")]
    Adjacent(String),
    /// `*` and `?` stand for whole names only.
    #[error("pattern {0:?} has * or ? within a name; each stands for a whole one")]
    Wildcard(String),
    /// `.` or `..` as a name.
    #[error("pattern {0:?} has . or .. in it")]
    Dots(String),
    /// A variable that the pattern does not have.
    #[error("user template has {{{0}}}, which the pattern does not have")]
    NoSuchVariable(String),
    /// No template, and no variable that could be the user name.
    #[error("pattern has neither {{local}} nor {{user}} nor {{account}}: give a user template")]
    NoUser,
}

fn pieces(text: &str) -> Result<Vec<Piece>, BadPattern> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let literal = &rest[..rest.find(['{', '}']).unwrap_or(rest.len())];
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.as_bytes().to_vec()));
            rest = &rest[literal.len()..];
            continue;
        }
        let brace = || BadPattern::Brace(text.to_owned());
        let end = closing_brace(rest).ok_or_else(brace)?;
        let variable = rest[..end].strip_prefix('{').ok_or_else(brace)?;
        let (name, form) = match variable.split_once(':') {
            Some((name, form)) => (name, Some(Form::new(form)?)),
            None => (variable, None),
        };
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_lowercase()) {
            return Err(brace());
        }
        if matches!(pieces.last(), Some(Piece::Variable(..))) {
            return Err(BadPattern::Adjacent(text.to_owned()));
        }
        pieces.push(Piece::Variable(name.to_owned(), form));
        rest = &rest[end + 1..];
    }
    Ok(pieces)
}

/// Where the brace is closed that `text` begins with: a form may have braces, in pairs.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0;
    text.bytes().position(|octet| {
        match octet {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        open == 0
    })
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if !text.starts_with('/') {
            return Err(BadPattern::Relative(text.to_owned()));
        }
        let mut pattern = Self { start: PathBuf::from("/"), names: Vec::new(), is_panel: false };
        for name in text.split('/').filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return Err(BadPattern::Dots(text.to_owned()));
            }
            let pieces = match name {
                "*" => vec![Piece::Any],
                "?" => vec![Piece::Split],
                _ => pieces(name)?,
            };
            let has_wildcard = |piece: &Piece| match piece {
                Piece::Literal(text) => text.iter().any(|octet| b"*?".contains(octet)),
                Piece::Variable(..) | Piece::Any | Piece::Split => false,
            };
            if pieces.iter().any(has_wildcard) {
                return Err(BadPattern::Wildcard(text.to_owned()));
            }
            let is_fixed = matches!(&pieces[..], [Piece::Literal(_)]);
            if is_fixed && pattern.names.is_empty() {
                pattern.start.push(name);
            } else {
                pattern.names.push(pieces);
            }
        }
        if pattern.names.is_empty() {
            return Err(BadPattern::Fixed(text.to_owned()));
        }
        Ok(pattern)
    }
}

impl Pattern {
    pub(super) fn panel(text: &str) -> Self {
        let pattern: Self = text.parse().expect("patterns of panels are written here");
        Self { is_panel: true, ..pattern }
    }

    fn variables(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().filter_map(|piece| match piece {
            Piece::Variable(name, _) => Some(name.as_str()),
            Piece::Literal(_) | Piece::Any | Piece::Split => None,
        })
    }
}

/// How a user is called on the new server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    template: Option<Vec<Piece>>,
    renamed: HashMap<String, String>,
}

impl Naming {
    /// Names from a template such as `{local}@{domain}`.
    ///
    /// Without one it is `{local}@{domain}` where the pattern has both, else the one of `{local}`,
    /// `{user}` and `{account}` that it has.
    ///
    /// # Errors
    ///
    /// [`BadPattern::Brace`], [`BadPattern::Adjacent`], [`BadPattern::FormInTemplate`].
    pub fn new(template: Option<&str>) -> Result<Self, BadPattern> {
        let template = template.map(pieces).transpose()?;
        let with_form = template.iter().flatten().find_map(|piece| match piece {
            Piece::Variable(name, Some(_)) => Some(name.clone()),
            _ => None,
        });
        match with_form {
            Some(name) => Err(BadPattern::FormInTemplate(name)),
            None => Ok(Self { template, renamed: HashMap::new() }),
        }
    }

    /// Afterwards `old` is called `new`. `false` when `old` was renamed before.
    pub fn rename(&mut self, old: &str, new: &str) -> bool {
        self.renamed.insert(old.to_owned(), new.to_owned()).is_none()
    }

    /// Those that are renamed, and what they are called afterwards, sorted.
    pub fn renames(&self) -> BTreeMap<&str, &str> {
        self.renamed.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect()
    }

    /// The name of whoever a pattern's variables point at.
    fn user(&self, bound: &Bound) -> Result<String, BadPattern> {
        let by_default;
        let template = match &self.template {
            Some(template) => template,
            None => {
                let text = match ["local", "user", "account"].iter().find(|v| bound.has(v)) {
                    Some(&local) if bound.has("domain") => format!("{{{local}}}@{{domain}}"),
                    Some(local) => format!("{{{local}}}"),
                    None => return Err(BadPattern::NoUser),
                };
                by_default = pieces(&text)?;
                &by_default
            }
        };
        let mut user = String::new();
        for piece in template {
            match piece {
                Piece::Literal(text) => user.push_str(&String::from_utf8_lossy(text)),
                Piece::Any | Piece::Split => {}
                Piece::Variable(name, _) => user.push_str(
                    bound.0.get(name).ok_or_else(|| BadPattern::NoSuchVariable(name.clone()))?,
                ),
            }
        }
        Ok(self.renamed.get(&user).cloned().unwrap_or(user))
    }

    /// The user whose maildrops a place of `pattern` has, or all those that it may have: what is
    /// not bound there could be anything.
    fn user_or_everybody(&self, pattern: &Pattern, bound: &Bound, holds: Holds) -> String {
        // No name on a disk has it.
        const ANYTHING: &str = "\0";
        let mut filled = Bound::default();
        let variables = pattern.variables().map(ToOwned::to_owned);
        filled.0.extend(variables.map(|name| (name, ANYTHING.to_owned())));
        if holds == Holds::CyrusMailbox {
            filled.set_owner(ANYTHING, Some(ANYTHING));
        }
        filled.0.extend(bound.0.clone());
        let user = self.user(&filled).unwrap_or_else(|_| ANYTHING.to_owned());
        if !user.contains(ANYTHING) {
            return user;
        }
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        everybody_of(domain.filter(|domain| !domain.is_empty() && !domain.contains(ANYTHING)))
    }

    /// Whether this naming can name what `pattern` finds.
    ///
    /// # Errors
    ///
    /// [`BadPattern::NoSuchVariable`], [`BadPattern::NoUser`].
    pub fn check(&self, pattern: &Pattern, holds: Holds) -> Result<(), BadPattern> {
        let names = pattern.variables().map(ToOwned::to_owned);
        let mut bound = Bound(names.map(|name| (name, String::new())).collect());
        if holds == Holds::CyrusMailbox {
            bound.set_owner("", None);
        }
        self.user(&bound).map(drop)
    }
}

/// What the variables of a pattern stand for in one place.
#[derive(Debug, Clone, Default)]
struct Bound(BTreeMap<String, String>);

impl Bound {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn set_owner(&mut self, local: &str, domain: Option<&str>) {
        self.0.insert("local".to_owned(), local.to_owned());
        if let Some(domain) = domain {
            self.0.insert("domain".to_owned(), domain.to_owned());
        }
    }

    /// This and what makes `name` of `pieces`, in each way in which it can be read; at most
    /// [`MOST_READINGS`].
    fn readings(&self, pieces: &[Piece], name: &str) -> Vec<Self> {
        let mut readings = Vec::new();
        self.read(pieces, name, &mut readings);
        readings
    }

    fn read(&self, pieces: &[Piece], name: &str, readings: &mut Vec<Self>) {
        if readings.len() >= MOST_READINGS {
            return;
        }
        match pieces {
            [] if name.is_empty() => readings.push(self.clone()),
            [] => {}
            [Piece::Any, ..] => readings.push(self.clone()),
            [Piece::Split, ..] if name.len() == 1 => readings.push(self.clone()),
            [Piece::Split, ..] => {}
            [Piece::Literal(text), rest @ ..] => {
                let text = std::str::from_utf8(text).ok();
                if let Some(left) = text.and_then(|text| name.strip_prefix(text)) {
                    self.read(rest, left, readings);
                }
            }
            [Piece::Variable(variable, form), rest @ ..] => {
                let ends = name.char_indices().map(|(at, char)| at + char.len_utf8());
                // The last one stands for all that is left.
                for end in ends.filter(|&end| !rest.is_empty() || end == name.len()) {
                    let (value, left) = name.split_at(end);
                    let is_other = self.0.get(variable).is_some_and(|before| before != value);
                    if is_other || form.as_ref().is_some_and(|form| !form.is_of(value)) {
                        continue;
                    }
                    let mut bound = self.clone();
                    bound.0.insert(variable.clone(), value.to_owned());
                    bound.read(rest, left, readings);
                }
            }
        }
    }
}

/// In so many ways a name is read; whoever needs more than two of them says which is meant.
const MOST_READINGS: usize = 256;

/// A maildrop to capture.
#[derive(Debug, Clone)]
pub struct Source {
    user: String,
    login: String,
    place: PathBuf,
    start: Start,
}

#[derive(Debug, Clone)]
enum Start {
    /// A directory that the operator named.
    Named,
    /// Names below a directory that is open.
    Below(Arc<OwnedFd>, Vec<OsString>),
    /// It is not even to be opened.
    Fault(String),
    /// Nor this, of which nobody knows whether it is this user's.
    Unsure(String),
}

impl Source {
    /// The maildrop at `path`, of `user`.
    pub fn named(user: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let user = user.into();
        Self { login: user.clone(), user, place: path.into(), start: Start::Named }
    }

    /// One of `user` that could not even be looked for, and why; where it would lie.
    pub fn missed(user: impl Into<String>, place: impl Into<PathBuf>, why: String) -> Self {
        let user = user.into();
        Self { login: user.clone(), user, place: place.into(), start: Start::Fault(why) }
    }

    /// Whether it stands for everybody who lives at a place that could not be searched: then its
    /// user is [everybody](is_everybody) of a domain, or of all.
    pub fn is_gap(&self) -> bool {
        is_everybody(&self.user) && matches!(self.start, Start::Fault(_))
    }

    /// Why there is no maildrop to open, where the search has found that.
    pub fn fault(&self) -> Option<&str> {
        match &self.start {
            Start::Fault(fault) | Start::Unsure(fault) => Some(fault),
            Start::Named | Start::Below(..) => None,
        }
    }

    /// The same maildrop under another user name.
    pub fn called(self, user: impl Into<String>) -> Self {
        Self { user: user.into(), ..self }
    }

    /// The user name on the new server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The user name at the old server, as far as the names of directories tell; else the new one.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// Where it lies.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Opens its directory, through no symbolic link below where the search for it started.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Io`], [`CaptureError::Link`], and [`CaptureError::Source`] when the search found it wanting.
    pub fn open(&self) -> Result<OwnedFd, CaptureError> {
        match &self.start {
            Start::Named => safe_open::open_start(&self.place),
            Start::Fault(fault) | Start::Unsure(fault) => Err(CaptureError::Source(fault.clone())),
            Start::Below(top, names) => open_below(top, names),
        }
    }

    /// Opens the directory that its file is in, as [`Source::open`] opens one; and the name of the
    /// file there.
    ///
    /// # Errors
    ///
    /// As [`Source::open`].
    pub fn open_holder(&self) -> Result<(OwnedFd, OsString), CaptureError> {
        match &self.start {
            Start::Named => {
                let no_file =
                    || CaptureError::Source(format!("{} is not a file", shown(&self.place)));
                let name = self.place.file_name().ok_or_else(no_file)?;
                let parent = self.place.parent().ok_or_else(no_file)?;
                let parent = if parent == Path::new("") { Path::new(".") } else { parent };
                Ok((safe_open::open_operators(parent)?, name.to_owned()))
            }
            Start::Fault(fault) | Start::Unsure(fault) => Err(CaptureError::Source(fault.clone())),
            Start::Below(top, names) => {
                let (name, directories) = names.split_last().expect("a pattern has a name");
                Ok((open_below(top, directories)?, name.clone()))
            }
        }
    }
}

fn open_below(top: &OwnedFd, names: &[OsString]) -> Result<OwnedFd, CaptureError> {
    let mut at = safe_open::open_directory(top.as_fd(), OsStr::new("."))?;
    for name in names {
        at = safe_open::open_directory(at.as_fd(), name)?;
    }
    Ok(at)
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Search {
    /// The maildrops, sorted by user; no user twice. Where a place could not be searched, one
    /// [stands for everybody](Source::is_gap) who may live there.
    pub sources: Vec<Source>,
    /// Names that no listing can hold, a sentence each.
    pub losses: Vec<String>,
}

/// What stands at the end of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A directory that has a maildrop.
    Directory,
    /// A mailbox of Cyrus: a directory, in whose name, and in those above, `^` stands for a dot.
    /// Where its header says whose it is, that decides, as `{local}` and `{domain}`; what is no
    /// INBOX is left out.
    CyrusMailbox,
    /// A file that is a maildrop.
    File,
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
    let by_default = Naming { template: None, renamed: naming.renamed.clone() };
    for pattern in patterns {
        let (path, top) = match open_start(pattern, root) {
            Ok(opened) => opened,
            Err(error) if error.is_absence() => {
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
    // Where a link's own name names nobody, whoever lies behind it was found there.
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
        let top = safe_open::open_operators(&pattern.start)?;
        return Ok((pattern.start.clone(), top));
    };
    let mut path = root.to_path_buf();
    let mut top = safe_open::open_operators(root)?;
    for name in pattern.start.iter().skip(1) {
        path.push(name);
        top = safe_open::open_directory(top.as_fd(), name).map_err(|error| match error {
            CaptureError::Io { error, .. } => CaptureError::io(path.as_os_str().as_bytes(), error),
            CaptureError::Link { .. } => CaptureError::Link { name: path.display().to_string() },
            other => other,
        })?;
    }
    Ok((path, top))
}

/// What to do where a directory cannot be read.
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
    /// Links to where maildrops may lie, which are not followed: what each leads to, and who is
    /// missed.
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
            _ => match safe_open::names(at) {
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
        let directory = match safe_open::open_directory(at, &name) {
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
                // Of who was found behind it under his name, it is no second maildrop.
                let target = target.map(|stat| (stat.st_dev, stat.st_ino));
                let sources = self.found.sources.split_off(before);
                self.linked.extend(sources.into_iter().map(|source| (target, source)));
                return;
            }
            Err(CaptureError::Link { .. }) => {
                let why = "a symbolic link, which is not followed";
                let next = "put there what it leads to, or capture that by a pattern of its own";
                // Only looked at: to what is no directory, or not there, no server follows it
                // either.
                let target = match rustix::fs::statat(at, &name, AtFlags::empty()) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        Some((stat.st_dev, stat.st_ino))
                    }
                    Ok(_) => return,
                    Err(Errno::NOENT) if !self.is_copy => return,
                    // It leads out of the copy, perhaps.
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
        // `/home/ACCOUNT/mail` and the like need not be a Maildir; what is called Maildir must.
        let ends_in_account = pattern.is_panel && !bounds.iter().any(|bound| bound.has("local"));
        let cur = safe_open::open_directory(directory.as_fd(), OsStr::new("cur"));
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
        let header = safe_open::read_state(directory, CYRUS_HEADER);
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

    /// The maildrop at the last of `self.names`; where that can be read as several users, one of
    /// each.
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
            self.found.sources.push(Source { user, login, place, start });
        }
    }

    /// Who may live where the walk is, which cannot be searched, and why: of each reading one.
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

/// Whether a name that was found can be what the variables in it say.
fn is_plausible(pattern: &Pattern, pieces: &[Piece], name: &str, bound: &Bound) -> bool {
    let here = |variable: &str| {
        pieces.iter().any(|piece| matches!(piece, Piece::Variable(name, _) if name == variable))
    };
    // Where an account's own Maildir lies beside its domains.
    let is_of_maildir = matches!(name, "cur" | "new" | "tmp");
    if here("domain") && is_of_maildir {
        return false;
    }
    if !pattern.is_panel {
        return true;
    }
    !here("domain") || bound.0.get("domain").is_some_and(|domain| domain.contains('.'))
}

/// Without maildrops that may be a user's where that user has one that is his. Of a place that is
/// left to nobody then, `losses` says so.
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

/// Sorted by user. A user with several maildrops has one that says so: which of them is his cannot
/// be told from here, and a listing that names him twice would be refused as a whole.
fn without_doubles(mut sources: Vec<Source>) -> Vec<Source> {
    sources.sort_by(|a, b| (&a.user, &a.place).cmp(&(&b.user, &b.place)));
    let mut single: Vec<Source> = Vec::with_capacity(sources.len());
    for source in sources {
        match single.last_mut() {
            // Two patterns lead to one place.
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

fn shown(path: &Path) -> impl fmt::Display {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_of(pieces_of: &str, name: &str, template: Option<&str>) -> Option<String> {
        users_of(pieces_of, name, template).pop()
    }

    /// All that a name can be read as.
    fn users_of(pieces_of: &str, name: &str, template: Option<&str>) -> Vec<String> {
        let readings = Bound::default().readings(&pieces(pieces_of).unwrap(), name);
        let naming = Naming::new(template).unwrap();
        let mut users: Vec<_> = readings.iter().map(|bound| naming.user(bound).unwrap()).collect();
        users.dedup();
        users
    }

    #[test]
    fn a_name_gives_its_parts_to_the_variables() {
        assert_eq!(user_of("{local}@{domain}", "al@ex@x.org", None).unwrap(), "al@ex@x.org");
        assert_eq!(user_of("u-{user}", "u-alice", None).unwrap(), "alice");
        assert_eq!(user_of("u-{user}", "v-alice", None), None);
        assert_eq!(user_of("{user}.box", "alice.box", None).unwrap(), "alice");
        assert_eq!(user_of("{a}-{a}", "x-x", Some("{a}")).unwrap(), "x");
        assert_eq!(user_of("{a}-{a}", "x-y", Some("{a}")), None);
        assert_eq!(user_of("{local}", "", None), None);
    }

    #[test]
    fn a_name_is_read_in_each_way_in_which_it_can_be_unless_a_form_says_which() {
        let stamped = |pattern: &str| users_of(pattern, "anna-lena-2019.05.06", Some("{local}"));
        assert_eq!(stamped("{local}-{stamp}"), ["anna", "anna-lena"]);
        assert_eq!(stamped("{local}-{stamp:[0-9.]+}"), ["anna-lena"]);
        assert_eq!(stamped(r"{local}-{stamp:\d{4}\.\d\d\.\d\d}"), ["anna-lena"]);
        assert_eq!(stamped("{local:[a-z]+}-{stamp}"), ["anna"]);
        assert_eq!(stamped("{local:x|y}-{stamp}"), [""; 0]);
        let by_account =
            |pattern: &str| users_of(pattern, "first.last.acme", Some("{local}@{account}"));
        assert_eq!(by_account("{local}.{account}"), ["first@last.acme", "first.last@acme"]);
        assert_eq!(by_account("{local}.{account:[^.]+}"), ["first.last@acme"]);
        let by_domain = |pattern: &str| users_of(pattern, "a-b.org-c-d", None);
        assert_eq!(by_domain("{domain}-{local}").len(), 3);
        assert_eq!(by_domain(r"{domain:[^.]+\.[a-z]+}-{local}"), ["c-d@a-b.org"]);
        // What no user's name has in it may be read as anything.
        assert_eq!(users_of("{a}-{local}-{b}", "1-x-2", Some("{local}")), ["x"]);
        assert_eq!(
            Bound::default().readings(&pieces("{a}-{b}").unwrap(), &"-".repeat(999)).len(),
            256
        );
    }

    #[test]
    fn a_pattern_that_cannot_be_walked_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(refused("srv/{local}"), "pattern \"srv/{local}\" does not start with /");
        assert!(refused("/srv/mail").contains("no variable"));
        assert!(refused("/srv/{local").contains("brace"));
        assert!(refused("/srv/}x{").contains("brace"));
        assert!(refused("/srv/{a}{b}").contains("nothing between"));
        assert!(refused("/srv/{a:[}").contains("\"[\" is not a regular expression"));
        assert!(refused("/srv/{a:)(}").contains("is not a regular expression"));
        assert!(refused("/srv/{a:x{2}").contains("brace"));
        assert!(refused("/srv/a*{a:b*}").contains("* or ?"));
        let template = Naming::new(Some("{local:x}")).unwrap_err().to_string();
        assert_eq!(template, "user template has a form for {local}: give it in the pattern");
        assert!(refused("/srv/../{local}").contains(".."));
        let pattern: Pattern = "/srv/{x}".parse().unwrap();
        assert_eq!(Naming::default().check(&pattern, Holds::Directory), Err(BadPattern::NoUser));
    }
}
