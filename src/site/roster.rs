//! The roster: the users who were migrated and may be served. [`lookup`], [`Roster`].
//!
//! A text file with one line for each maildrop, described in `docs/roster.md`. Each line carries a
//! checksum over itself and the name in the line before. So when a login finds that its user
//! belongs between two lines and is not there, the checksum proves that nothing was between them
//! when the roster was written. A login reads only the lines that a bisection meets.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::ops::Range;

use crate::encoding::{decimal, percent_decoded, push_percent_encoded};
use crate::file::read_at::ReadAt;
use crate::maildrop::{State, everybody_of};

#[cfg(feature = "capture")]
mod edit;

#[cfg(feature = "capture")]
pub use edit::{RosterEdit, lines_with_word};

/// One line of the roster: one maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterLine {
    /// The user name.
    pub user: String,
    /// The result of its capture.
    pub state: State,
    /// Whether it is served.
    pub gate: Gate,
    /// See [`RosterLine::awaits_capture`].
    awaits_capture: bool,
    /// When all that is ours was last forgotten, in seconds since 1970; 0 when it never was. A
    /// ledger that began under an earlier stamp is void, and so is everything that it baked.
    pub forgotten: u64,
    /// Whether the operator says that POP3 clients listed it before, on the old layout of this
    /// server. Then its next listing is not its first.
    pub listed: bool,
    /// When its server was last restored from a backup, so that every copy of what clients were
    /// told is old. In seconds since 1970; 0 when it never was.
    pub restored: u64,
    /// When the operator last said that it may be listed although much is missing. In seconds since
    /// 1970; 0 when he never did. It covers what is missing at that time, once.
    pub unguarded: u64,
    /// When the last rehearsal of it began, in seconds since 1970, while nobody else could list it:
    /// it has been held, and nothing new was built, ever since. 0: there was none.
    pub rehearsal: u64,
    /// Whether the last rehearsal told what was captured. A build takes this away from whoever is
    /// held.
    pub rehearsed: bool,
    /// A ledger that a rehearsal began at this time or before is void, as long as no client has
    /// listed the maildrop, and so is everything that it baked; nothing of it was told. In seconds
    /// since 1970; 0: none was undone.
    pub undone: u64,
}

/// Whether a migrated maildrop is served. A user who [awaits a capture](RosterLine::awaits_capture)
/// is refused besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// Refused: the mailbox is being moved.
    Held,
    /// Served, except for a first listing while fewer than half of the captured messages are there.
    Guarded,
    /// Served.
    Released,
    /// Served as if it had never been migrated: its clients download everything again.
    Redownload,
}

/// The reason why the roster could not give an answer. No such error means that a user is not on
/// it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RosterError {
    /// It does not start as a roster does.
    #[error("not a roster")]
    NotARoster,
    /// It has another version.
    #[error(
        "a roster of version {found}, and only version {VERSION} is read: build it again from its \
         listings, into an empty directory"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It was cut short, edited by something other than uidl-keep, or damaged.
    #[error("damaged at {offset} of {file_len} octets: {what}")]
    Corrupt {
        /// The fault.
        what: &'static str,
        /// Where that line begins.
        offset: u64,
        /// How long the file is.
        file_len: u64,
    },
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A user name that cannot be in a roster: it is empty, or longer than 1024 octets as written
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user name that is empty or longer than {MAX_NAME_OCTETS} octets as a roster writes it")]
pub struct BadName;

/// The version of the form that is written, and the only one that is read.
pub const VERSION: u32 = 1;
const MAGIC_OF_ANY_VERSION: &str = "uidl-keep-roster ";
const MAGIC: &str = "uidl-keep-roster 1 ";
const MAX_NAME_OCTETS: usize = 1024;
/// No line is longer than this: a name, the longest state, gate and notes, a checksum, and the
/// blanks between them.
const MAX_LINE_OCTETS: u64 = MAX_NAME_OCTETS as u64
    + (" captured".len()
        + " held-forgotten".len()
        + " forgotten=18446744073709551615".len()
        + " listed=yes".len()
        + " rehearsal=18446744073709551615".len()
        + " rehearsed=yes".len()
        + " restored=18446744073709551615".len()
        + " undone=18446744073709551615".len()
        + " unguarded=18446744073709551615".len()
        + " 01234567\n".len()) as u64;
/// `. 01234567` and its line feed: the last line, which always has this length.
const END_OCTETS: u64 = 11;
/// As far to each side a line is looked for first: most lines are shorter.
const NEAR_OCTETS: u64 = 200;
/// A bisection reads the rest when no more than this is left, and goes on in memory.
const BLOCK_OCTETS: u64 = 8192;

/// The line of the roster for a user; `None` when the roster does not name him.
///
/// Cost, with n lines of usual length: a read of 400 octets for each time that n is halved until
/// 8 KB are left, and three more; the checksum of one line.
///
/// # Errors
///
/// Any [`RosterError`]: could not tell.
pub fn lookup<S: ReadAt + ?Sized>(
    source: &S,
    user: &str,
) -> Result<Option<RosterLine>, RosterError> {
    let lines = RosterEnds::open(source)?;
    let Ok(wanted) = written(user) else { return Ok(None) };
    Ok(find(source, &lines, &wanted)?.line)
}

/// Where the line of a user stands, or would stand. A login wants the line alone.
#[cfg_attr(not(feature = "capture"), allow(dead_code))]
struct Position {
    /// The name in the line before, or the whole first line of the file.
    before: String,
    /// Where it begins.
    start: u64,
    /// Where the next one begins.
    end: u64,
    /// The line.
    line: Option<RosterLine>,
}

/// Finds the line with a name as written.
fn find<S: ReadAt + ?Sized>(
    source: &S,
    lines: &RosterEnds,
    wanted: &str,
) -> Result<Position, RosterError> {
    // Every line before `low` has a smaller name, and `before` is the last of these names. No line
    // from `high` on has one.
    let (mut low, mut high) = (lines.body_at, lines.end_at);
    let mut before = lines.header.clone();
    while high - low > BLOCK_OCTETS {
        let (line, name) = lines.line_in_the_middle(source, low..high)?;
        if name.as_str() < wanted {
            (low, before) = (line.end, name);
        } else {
            high = line.start;
        }
    }
    let to = lines.file_len.min(high + MAX_LINE_OCTETS);
    let octets = source.read_at(low, (to - low) as usize)?;
    let mut rest = Lines { lines, octets: &octets, offset: low, before };
    rest.pass_smaller((high - low) as usize, wanted)?;
    let (before, start) = (rest.before.clone(), rest.offset);
    // Its checksum is over the name before it too. So nothing was between the two.
    match rest.next_line()? {
        Some((name, _)) if name.as_str() < wanted => {
            Err(lines.corrupt("a line out of order", start))
        }
        Some((name, line)) if name == wanted => {
            Ok(Position { before, start, end: rest.offset, line: Some(line) })
        }
        _ => Ok(Position { before, start, end: start, line: None }),
    }
}

/// As [`lookup`]. When the roster does not name the user, this gives its line for
/// [everybody](everybody_of) of his domain, which is there while somebody of the domain may be
/// missing. When that is not there either, it gives the line [of the domain](name_of_domain), if
/// there is one.
///
/// Cost: three times that of [`lookup`] for a user who is not on it.
///
/// # Errors
///
/// Any [`RosterError`]: could not tell.
pub fn lookup_or_everybody<S: ReadAt + ?Sized>(
    source: &S,
    user: &str,
) -> Result<Option<RosterLine>, RosterError> {
    match (lookup(source, user)?, user.rsplit_once('@')) {
        (None, Some((_, domain))) => match lookup(source, &everybody_of(Some(domain)))? {
            Some(line) if line.gate != Gate::Redownload => Ok(Some(line)),
            settled => Ok(lookup(source, &name_of_domain(domain))?.or(settled)),
        },
        (line, _) => Ok(line),
    }
}

/// The name in a roster that says that a whole domain is held: the users on the roster, those who
/// are added to it, and those who are not on it. No login has this name: nothing stands before the
/// `@`.
pub fn name_of_domain(domain: &str) -> String {
    format!("@{domain}")
}

/// Whether a name is one of these.
pub fn is_domain(name: &str) -> bool {
    name.strip_prefix('@').is_some_and(|domain| !domain.contains('@'))
}

const NO_LINE: &str = "not a line of a roster";

/// A whole roster, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// The lines by name as written, which is the order of the file.
    lines: BTreeMap<String, RosterLine>,
}

impl Roster {
    /// A roster that names nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads and checks all of a roster.
    ///
    /// # Errors
    ///
    /// Any [`RosterError`].
    pub fn read<S: ReadAt + ?Sized>(source: &S) -> Result<Self, RosterError> {
        let lines = RosterEnds::open(source)?;
        let len = (lines.file_len - lines.body_at) as usize;
        let octets = source.read_at(lines.body_at, len)?;
        let before = lines.header.clone();
        let mut scan = Lines { lines: &lines, octets: &octets, offset: lines.body_at, before };
        let mut read = BTreeMap::new();
        while let Some((name, line)) = scan.next_line()? {
            read.insert(name, line);
        }
        if read.len() as u64 != lines.count {
            return Err(lines.corrupt("number of lines", 0));
        }
        Ok(Self { lines: read })
    }

    /// Its text, as it stands in a file.
    pub fn to_text(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory cannot fail.
        let _ = write_lines(&mut text, self.lines.len(), self.lines.iter());
        String::from_utf8(text).expect("a line is text")
    }

    /// Adds a line. It replaces the line of the same user, which is returned.
    ///
    /// # Errors
    ///
    /// [`BadName`].
    pub fn insert(&mut self, line: RosterLine) -> Result<Option<RosterLine>, BadName> {
        Ok(self.lines.insert(written(&line.user)?, line))
    }

    /// The line of a user.
    pub fn get(&self, user: &str) -> Option<&RosterLine> {
        if self.lines.is_empty() {
            return None;
        }
        self.lines.get(&written(user).ok()?)
    }

    /// Removes a user; returns his line.
    pub fn remove(&mut self, user: &str) -> Option<RosterLine> {
        self.lines.remove(&written(user).ok()?)
    }

    /// Its lines, in the order of the file.
    pub fn lines(&self) -> impl Iterator<Item = &RosterLine> {
        self.lines.values()
    }

    /// The number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl RosterLine {
    /// The line of a user; nothing else is known of him.
    pub fn new(user: impl Into<String>, state: State, gate: Gate) -> Self {
        let user = user.into();
        Self {
            user,
            state,
            gate,
            awaits_capture: false,
            forgotten: 0,
            listed: false,
            restored: 0,
            unguarded: 0,
            rehearsal: 0,
            rehearsed: false,
            undone: 0,
        }
    }

    /// The line with another gate, and with or without an awaited capture.
    ///
    /// A roster does not write whether a user who downloads again was built anew since he was
    /// forgotten. So this takes it that he was not: a wrong guess costs only one more build.
    #[must_use]
    pub fn with_gate(self, gate: Gate, awaits_capture: bool) -> Self {
        let (gate, awaits_capture) = match gate {
            Gate::Redownload => (gate, self.forgotten != 0),
            // Nobody is released before his awaited capture is built.
            Gate::Released if awaits_capture => (Gate::Guarded, true),
            Gate::Held | Gate::Guarded | Gate::Released => (gate, awaits_capture),
        };
        Self { gate, awaits_capture, ..self }
    }

    /// The line of a maildrop of which a rehearsal begins, at `now` in seconds since 1970. Where
    /// its user is held, the rehearsal can be undone, and its stamp is a new one whatever the clock
    /// says.
    #[must_use]
    pub fn rehearsing(self, now: u64) -> Self {
        let rehearsal = match self.gate {
            Gate::Held => now.max(self.rehearsal).max(self.undone.saturating_add(1)),
            Gate::Guarded | Gate::Released | Gate::Redownload => 0,
        };
        Self { rehearsal, rehearsed: false, ..self }
    }

    /// The line after its rehearsals were undone, at `now` in seconds since 1970. Nothing changes
    /// where there was none, or where clients may have listed the maildrop since.
    #[must_use]
    pub fn with_rehearsal_undone(self, now: u64) -> Self {
        match (self.gate, self.rehearsal) {
            (Gate::Held, 1..) => {
                let undone = now.max(self.rehearsal).max(self.undone);
                Self { rehearsal: 0, rehearsed: false, undone, ..self }
            }
            // What was built has not been rehearsed.
            (Gate::Held, 0) => Self { rehearsed: false, ..self },
            (Gate::Guarded | Gate::Released | Gate::Redownload, _) => self,
        }
    }

    /// The line after a build with a later capture of the maildrop, at `now` in seconds since 1970.
    /// No rehearsal before answers for that capture, also where its user was served meanwhile: what
    /// a client has listed is not voided by the stamp, for ledger or mark say so.
    #[must_use]
    pub fn with_later_capture(self, now: u64) -> Self {
        let undone = match self.rehearsed || self.rehearsal > 0 {
            true => now.max(self.rehearsal).max(self.undone),
            false => self.undone,
        };
        Self { undone, ..self.with_rehearsal_undone(now) }
    }

    /// Whether its UIDLs must come from a capture that is yet to be built. The index's own are not
    /// to be believed.
    pub fn awaits_capture(&self) -> bool {
        self.awaits_capture
    }

    /// Merges two sites' lines of one maildrop. The result has the gate that lets less through,
    /// except for a user who downloads again. It also has all that was said since the maildrop was
    /// last forgotten: what was said before no longer counts.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let gate = match (self.gate, other.gate) {
            (Gate::Redownload, _) | (_, Gate::Redownload) => Gate::Redownload,
            (one, other) => one.min(other),
        };
        let awaits_capture = self.awaits_capture || other.awaits_capture;
        let restored = self.restored.max(other.restored);
        let rehearsal = self.rehearsal.max(other.rehearsal);
        let rehearsed = self.rehearsed && other.rehearsed;
        let undone = self.undone.max(other.undone);
        let last = match self.forgotten.cmp(&other.forgotten) {
            Ordering::Less => other,
            Ordering::Greater => self,
            Ordering::Equal => Self {
                listed: self.listed || other.listed,
                unguarded: self.unguarded.max(other.unguarded),
                ..self
            },
        };
        let last = Self { restored, rehearsal, rehearsed, undone, ..last };
        last.with_gate(gate, awaits_capture)
    }

    /// The line after the whole domain is held. A user who is to download again has already begun
    /// to.
    #[must_use]
    pub fn held_with_domain(self) -> Self {
        let (gate, awaits_capture) = (self.gate, self.awaits_capture);
        match gate {
            Gate::Redownload => self,
            _ => self.with_gate(Gate::Held, awaits_capture),
        }
    }

    /// The roster's word for gate and awaited capture: one of [`GATE_WORDS`].
    pub fn gate_word(&self) -> &'static str {
        match (self.gate, self.awaits_capture) {
            (Gate::Held, false) => "held",
            (Gate::Held, true) => "held-forgotten",
            (Gate::Guarded, false) => "guarded",
            (Gate::Guarded | Gate::Released, true) => "forgotten",
            (Gate::Released, false) => "released",
            (Gate::Redownload, _) => "redownload",
        }
    }

    /// The roster's words for its gate and for its notes. A note without a value has no word.
    pub fn words(&self) -> String {
        let Self {
            user: _,
            state: _,
            gate: _,
            awaits_capture: _,
            forgotten,
            listed,
            restored,
            unguarded,
            rehearsal,
            rehearsed,
            undone,
        } = self;
        let flag = |flag: &bool| if *flag { "yes".to_owned() } else { String::new() };
        let stamp = |stamp: &u64| if *stamp == 0 { String::new() } else { stamp.to_string() };
        let notes = [
            ("forgotten", stamp(forgotten)),
            ("listed", flag(listed)),
            ("rehearsal", stamp(rehearsal)),
            ("rehearsed", flag(rehearsed)),
            ("restored", stamp(restored)),
            ("undone", stamp(undone)),
            ("unguarded", stamp(unguarded)),
        ];
        let mut words = self.gate_word().to_owned();
        for (key, value) in notes.iter().filter(|(_, value)| !value.is_empty()) {
            // Writing to a String cannot fail.
            let _ = write!(words, " {key}={value}");
        }
        words
    }

    /// The roster's word for its state.
    pub fn state_word(&self) -> &'static str {
        state_word(self.state)
    }
}

/// The words for a gate. The words that let less through come first.
pub const GATE_WORDS: [&str; 6] =
    ["held-forgotten", "forgotten", "held", "guarded", "released", "redownload"];

/// The gate that a word stands for, and whether a capture is awaited. For `redownload`, the stamp
/// `forgotten` tells whether one is.
fn gate_of_word(word: &str) -> Option<(Gate, bool)> {
    Some(match word {
        "held-forgotten" => (Gate::Held, true),
        "forgotten" => (Gate::Guarded, true),
        "held" => (Gate::Held, false),
        "guarded" => (Gate::Guarded, false),
        "released" => (Gate::Released, false),
        "redownload" => (Gate::Redownload, false),
        _ => return None,
    })
}

/// The roster's word for a state.
fn state_word(state: State) -> &'static str {
    match state {
        State::Captured => "captured",
        State::Empty => "empty",
        State::Failed => "failed",
    }
}

fn state_of_word(word: &str) -> Option<State> {
    [State::Captured, State::Empty, State::Failed]
        .into_iter()
        .find(|&state| state_word(state) == word)
}

/// Writes a roster of so many lines, each with its name as written.
fn write_lines<'a>(
    out: &mut impl io::Write,
    count: usize,
    lines: impl Iterator<Item = (&'a String, &'a RosterLine)>,
) -> io::Result<()> {
    let header = format!("{MAGIC}{count}");
    writeln!(out, "{header}")?;
    let mut before = header.as_str();
    for (name, line) in lines {
        let content = content(name, line);
        writeln!(out, "{content} {}", check(before, &content))?;
        before = name;
    }
    writeln!(out, ". {}", check(before, "."))
}

/// A line up to its checksum.
fn content(name: &str, line: &RosterLine) -> String {
    format!("{name} {} {}", line.state_word(), line.words())
}

/// The checksum of a line: BLAKE3, cut to 32 bits, of the name in the line before, a line feed, and
/// the line itself up to its checksum.
fn check(before: &str, content: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(b"\n").update(content.as_bytes());
    let hash = hasher.finalize();
    let cut = u32::from_be_bytes([0, 1, 2, 3].map(|at| hash.as_bytes()[at]));
    format!("{cut:08x}")
}

/// A roster whose first and last lines have been read.
struct RosterEnds {
    header: String,
    count: u64,
    body_at: u64,
    end_at: u64,
    file_len: u64,
}

impl RosterEnds {
    fn open<S: ReadAt + ?Sized>(source: &S) -> Result<Self, RosterError> {
        let file_len = source.len_octets()?;
        let start = source.read_at(0, file_len.min(64) as usize)?;
        let cut_short = RosterError::Corrupt { what: "cut short", offset: 0, file_len };
        if !start.starts_with(MAGIC.as_bytes()) {
            let is_start = MAGIC.as_bytes().starts_with(&start);
            return Err(match version_of(&start) {
                _ if is_start => cut_short,
                Some(found) if found != VERSION => RosterError::Version { found },
                _ => RosterError::NotARoster,
            });
        }
        let Some(header) = first_line(&start) else { return Err(cut_short) };
        let count = number(&header[MAGIC.len()..]).ok_or(RosterError::NotARoster)?;
        let body_at = header.len() as u64 + 1;
        if file_len < body_at + END_OCTETS {
            return Err(cut_short);
        }
        let end_at = file_len - END_OCTETS;
        // This reads the line feed before it too, which shows that the last line is a line.
        let end = source.read_at(end_at - 1, END_OCTETS as usize + 1)?;
        if !end.starts_with(b"\n. ") || !end.ends_with(b"\n") {
            let what = "no last line: cut short";
            return Err(RosterError::Corrupt { what, offset: end_at, file_len });
        }
        Ok(Self { header: header.to_owned(), count, body_at, end_at, file_len })
    }

    /// The line that has the octet in the middle of these lines: its place, and its name. Nothing
    /// else in it is looked at.
    fn line_in_the_middle<S: ReadAt + ?Sized>(
        &self,
        source: &S,
        lines: Range<u64>,
    ) -> Result<(Range<u64>, String), RosterError> {
        let middle = lines.start + (lines.end - lines.start) / 2;
        for reach in [NEAR_OCTETS, MAX_LINE_OCTETS] {
            let from = lines.start.max(middle.saturating_sub(reach));
            let to = lines.end.min(middle + reach);
            let octets = source.read_at(from, (to - from) as usize)?;
            match line_around((middle - from) as usize, &octets) {
                Some((at, line)) if at > 0 || from == lines.start => {
                    let start = from + at as u64;
                    let name = name_of(line).ok_or_else(|| self.corrupt(NO_LINE, start))?;
                    return Ok((start..start + line.len() as u64 + 1, name.to_owned()));
                }
                _ => {}
            }
        }
        Err(self.corrupt("a line too long", middle))
    }

    fn corrupt(&self, what: &'static str, offset: u64) -> RosterError {
        RosterError::Corrupt { what, offset, file_len: self.file_len }
    }
}

/// The lines of a roster one after another, each checked.
struct Lines<'a> {
    lines: &'a RosterEnds,
    octets: &'a [u8],
    offset: u64,
    /// The name in the line before, or the whole first line of the file.
    before: String,
}

impl Lines<'_> {
    /// Goes to the first line whose name is not smaller. Such lines begin in the first `len`
    /// octets, or right behind them. The lines that this passes over are not checked.
    fn pass_smaller(&mut self, mut len: usize, wanted: &str) -> Result<(), RosterError> {
        while len > 0 {
            let no_line = || self.lines.corrupt(NO_LINE, self.offset);
            let (start, line) = line_around(len / 2, self.octets).ok_or_else(no_line)?;
            let name = name_of(line).ok_or_else(no_line)?;
            if name >= wanted {
                len = start;
                continue;
            }
            let end = start + line.len() + 1;
            len = len.checked_sub(end).ok_or_else(no_line)?;
            self.before = name.to_owned();
            self.octets = &self.octets[end..];
            self.offset += end as u64;
        }
        Ok(())
    }

    /// The next line, and its name as written; `None` at the last line, which is checked as well.
    fn next_line(&mut self) -> Result<Option<(String, RosterLine)>, RosterError> {
        let bad = |what| self.lines.corrupt(what, self.offset);
        let text = first_line(self.octets).ok_or_else(|| bad(NO_LINE))?;
        let end = self.offset + text.len() as u64 + 1;
        if self.offset == self.lines.end_at {
            let stored = text.strip_prefix(". ").ok_or_else(|| bad(NO_LINE))?;
            if end != self.lines.file_len || stored != check(&self.before, ".") {
                return Err(bad("checksum of the last line"));
            }
            return Ok(None);
        }
        let fields = fields(text).ok_or_else(|| bad(NO_LINE))?;
        if fields.check != check(&self.before, fields.content) {
            return Err(bad("checksum of a line"));
        }
        if self.offset != self.lines.body_at && fields.name <= self.before.as_str() {
            return Err(bad("a line out of order"));
        }
        let user = unescaped(fields.name).ok_or_else(|| bad("a user name in no proper form"))?;
        let name = fields.name.to_owned();
        let line = RosterLine { user, ..fields.line };
        self.octets = &self.octets[text.len() + 1..];
        self.offset = end;
        self.before.clone_from(&name);
        Ok(Some((name, line)))
    }
}

/// The version in the first octets of a roster; `None` when they are not those of a roster.
fn version_of(start: &[u8]) -> Option<u32> {
    let header = first_line(start)?.strip_prefix(MAGIC_OF_ANY_VERSION)?;
    number(header.split(' ').next()?)?.try_into().ok()
}

/// The number in its only accepted spelling: without a sign, and without a zero in front.
fn number(digits: &str) -> Option<u64> {
    let number = decimal(digits.as_bytes())?;
    (digits == "0" || !digits.starts_with('0')).then_some(number)
}

/// The octets before the first line feed; `None` when there is none, or when they are not text.
fn first_line(octets: &[u8]) -> Option<&str> {
    let end = octets.iter().position(|&octet| octet == b'\n')?;
    std::str::from_utf8(&octets[..end]).ok()
}

/// The line that has the octet at `at`, and where it begins. `None` when it has no end, or is no
/// text.
fn line_around(at: usize, octets: &[u8]) -> Option<(usize, &str)> {
    let start = memchr::memrchr(b'\n', octets.get(..at)?).map_or(0, |before| before + 1);
    Some((start, first_line(&octets[start..])?))
}

/// The name in a line, which nobody has checked yet.
fn name_of(line: &str) -> Option<&str> {
    let end = memchr::memchr(b' ', line.as_bytes())?;
    Some(&line[..end])
}

struct LineFields<'a> {
    name: &'a str,
    /// The whole line, except for the name of the user.
    line: RosterLine,
    check: &'a str,
    /// The line without the checksum.
    content: &'a str,
}

fn fields(line: &str) -> Option<LineFields<'_>> {
    let (content, check) = line.rsplit_once(' ')?;
    let mut words = content.split(' ');
    let name = words.next()?;
    let state = state_of_word(words.next()?)?;
    let (gate, awaits_capture) = gate_of_word(words.next()?)?;
    let mut line = RosterLine::new("", state, gate);
    let mut before = "";
    for word in words {
        let (key, value) = word.split_once('=')?;
        // Each note has its place and comes once. A note without a value has no word.
        if key <= before {
            return None;
        }
        before = key;
        let stamp = || number(value).filter(|&stamp| stamp != 0);
        match key {
            "forgotten" => line.forgotten = stamp()?,
            "listed" if value == "yes" => line.listed = true,
            "rehearsal" => line.rehearsal = stamp()?,
            "rehearsed" if value == "yes" => line.rehearsed = true,
            "restored" => line.restored = stamp()?,
            "undone" => line.undone = stamp()?,
            "unguarded" => line.unguarded = stamp()?,
            // This may come from a later version. Leaving it out would be a guess.
            _ => return None,
        }
    }
    // This is done last, because the notes say whether a capture is awaited.
    let line = line.with_gate(gate, awaits_capture);
    Some(LineFields { name, line, check, content })
}

/// Checks that a roster can name a user.
///
/// # Errors
///
/// [`BadName`].
pub fn check_name(user: &str) -> Result<(), BadName> {
    written(user).map(drop)
}

/// A user name as the roster writes it, and a listing too: octets outside 0x21-0x7E, and `%`,
/// become `%` and two hexadecimal digits.
fn written(user: &str) -> Result<String, BadName> {
    let name = escaped(user.as_bytes());
    if name.is_empty() || name.len() > MAX_NAME_OCTETS { Err(BadName) } else { Ok(name) }
}

/// Any octets, written as a roster writes those of a user name: one word, fit to be shown.
pub fn escaped(octets: &[u8]) -> String {
    let mut name = Vec::with_capacity(octets.len());
    push_percent_encoded(&mut name, octets);
    String::from_utf8(name).expect("percent-encoding is ASCII")
}

/// The text that [`escaped`] wrote; `None` when it is no user name, or when [`escaped`] writes it
/// otherwise.
pub fn unescaped(name: &str) -> Option<String> {
    let user = String::from_utf8(percent_decoded(name.as_bytes())?).ok()?;
    (written(&user).as_deref() == Ok(name)).then_some(user)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    pub(super) fn line() -> impl Strategy<Value = RosterLine> {
        let user = prop_oneof!["[a-e%. \u{e9}]{1,4}(@[ab])?", "[a-z]{150,200}"];
        let state = prop::sample::select(vec![State::Captured, State::Empty, State::Failed]);
        let gate = prop::sample::select(GATE_WORDS.to_vec());
        let stamp = || prop_oneof![Just(0), Just(u64::MAX), 1..2_000_000_000_u64];
        let notes = (stamp(), any::<bool>(), stamp(), stamp(), stamp(), any::<bool>(), stamp());
        (user, state, gate, notes).prop_map(|(user, state, gate, notes)| {
            let (forgotten, listed, restored, unguarded, rehearsal, rehearsed, undone) = notes;
            let (gate, awaits_capture) = gate_of_word(gate).unwrap();
            let line = RosterLine {
                forgotten,
                listed,
                restored,
                unguarded,
                rehearsal,
                rehearsed,
                undone,
                ..RosterLine::new(user, state, gate)
            };
            line.with_gate(gate, awaits_capture)
        })
    }

    fn guarded(user: &str) -> RosterLine {
        RosterLine::new(user, State::Captured, Gate::Guarded)
    }

    pub(super) fn roster(lines: usize) -> impl Strategy<Value = Roster> {
        prop::collection::vec(line(), 0..lines).prop_map(|lines| {
            let mut roster = Roster::new();
            for line in lines {
                roster.insert(line).unwrap();
            }
            roster
        })
    }

    #[test]
    fn who_is_not_named_is_one_of_everybody_of_his_domain_where_that_is_there() {
        let mut roster = Roster::new();
        for user in ["*@example.com", "alice@example.com", "*@example.net.example.com", "eve"] {
            roster.insert(RosterLine::new(user, State::Failed, Gate::Guarded)).unwrap();
        }
        let text = roster.to_text().into_bytes();
        let found = |user: &str| lookup_or_everybody(&text[..], user).unwrap().map(|it| it.user);
        assert_eq!(found("alice@example.com").unwrap(), "alice@example.com");
        assert_eq!(found("bob@example.com").unwrap(), "*@example.com");
        assert_eq!(found("a@b@example.com").unwrap(), "*@example.com");
        assert_eq!(found("bob@example.net"), None);
        assert_eq!(found("bob"), None);
    }

    #[test]
    fn who_is_not_named_is_held_with_his_domain_unless_he_may_be_missing() {
        let mut roster = Roster::new();
        roster
            .insert(RosterLine::new("alice@example.com", State::Captured, Gate::Guarded))
            .unwrap();
        roster.insert(RosterLine::new("@example.com", State::Empty, Gate::Held)).unwrap();
        let found = |roster: &Roster, user: &str| {
            let text = roster.to_text().into_bytes();
            lookup_or_everybody(&text[..], user).unwrap().map(|it| it.user)
        };
        assert_eq!(found(&roster, "alice@example.com").unwrap(), "alice@example.com");
        assert_eq!(found(&roster, "bob@example.com").unwrap(), "@example.com");
        assert_eq!(found(&roster, "bob@example.net"), None);
        roster.insert(RosterLine::new("*@example.com", State::Failed, Gate::Guarded)).unwrap();
        assert_eq!(found(&roster, "bob@example.com").unwrap(), "*@example.com");
        // Nobody is missing any more.
        roster.insert(RosterLine::new("*@example.com", State::Failed, Gate::Redownload)).unwrap();
        assert_eq!(found(&roster, "bob@example.com").unwrap(), "@example.com");
        roster.remove("@example.com");
        assert_eq!(found(&roster, "bob@example.com").unwrap(), "*@example.com");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn lookup_finds_what_is_there_and_nothing_else(
            roster in roster(300),
            others in prop::collection::vec(line(), 20),
        ) {
            let text = roster.to_text();
            prop_assert_eq!(&Roster::read(text.as_bytes()).unwrap(), &roster);
            for line in roster.lines().chain(&others) {
                let found = lookup(text.as_bytes(), &line.user).unwrap();
                prop_assert_eq!(found.as_ref(), roster.get(&line.user));
            }
        }

        #[test]
        fn a_damaged_roster_never_changes_an_answer(
            roster in roster(120),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
            bits in 1..=u8::MAX,
            absent in line(),
        ) {
            let text = roster.to_text().into_bytes();
            let mut flipped = text.clone();
            flipped[flip.index(text.len())] ^= bits;
            for damaged in [&text[..cut.index(text.len())], &flipped] {
                prop_assert!(Roster::read(damaged).is_err());
                for line in roster.lines().chain([&absent]) {
                    if let Ok(found) = lookup(damaged, &line.user) {
                        prop_assert_eq!(found.as_ref(), roster.get(&line.user));
                    }
                }
            }
        }
    }

    #[test]
    fn of_two_gates_no_order_is_lost() {
        let line_of = |word: &str| {
            let (gate, awaits_capture) = gate_of_word(word).unwrap();
            RosterLine::new("a", State::Captured, gate).with_gate(gate, awaits_capture)
        };
        let refuses = |line: &RosterLine| line.gate == Gate::Held || line.awaits_capture;
        for one in GATE_WORDS.map(line_of) {
            assert_eq!(one.clone().joined(one.clone()), one);
            assert_eq!(line_of(one.gate_word()), one);
            for other in GATE_WORDS.map(line_of) {
                let both = one.clone().joined(other.clone());
                assert_eq!(other.clone().joined(one.clone()), both);
                let any = |gate| one.gate == gate || other.gate == gate;
                if any(Gate::Redownload) {
                    assert_eq!(both.gate_word(), "redownload");
                    continue;
                }
                assert_eq!(refuses(&both), refuses(&one) || refuses(&other), "{one:?} {other:?}");
                assert_eq!(both.gate == Gate::Held, any(Gate::Held));
                assert_eq!(both.awaits_capture, one.awaits_capture || other.awaits_capture);
                assert_eq!(both.gate == Gate::Released, !any(Gate::Guarded) && !any(Gate::Held));
            }
        }
    }

    #[test]
    fn who_downloads_again_awaits_a_capture_once_he_was_forgotten() {
        let forgotten = |stamp, gate| {
            let line = RosterLine::new("a", State::Captured, gate);
            RosterLine { forgotten: stamp, ..line }.with_gate(gate, false)
        };
        assert!(!forgotten(0, Gate::Redownload).awaits_capture());
        assert!(forgotten(5, Gate::Redownload).awaits_capture());
        assert!(
            forgotten(0, Gate::Redownload).joined(forgotten(5, Gate::Guarded)).awaits_capture()
        );
        let released = RosterLine::new("a", State::Captured, Gate::Released);
        assert_eq!(released.with_gate(Gate::Released, true).gate_word(), "forgotten");
    }

    #[test]
    fn reads_as_documented() {
        let mut roster = Roster::new();
        for (user, state, gate) in [
            ("bob@example.com", State::Failed, Gate::Held),
            ("alice@example.com", State::Captured, Gate::Guarded),
            ("a b%@example.com", State::Empty, Gate::Redownload),
        ] {
            roster.insert(RosterLine::new(user, state, gate)).unwrap();
        }
        let carol = RosterLine::new("carol@example.com", State::Captured, Gate::Guarded);
        let carol = RosterLine { forgotten: 1_794_749_400, ..carol };
        roster.insert(carol.with_gate(Gate::Guarded, true)).unwrap();
        let dave = RosterLine::new("dave@example.com", State::Captured, Gate::Released);
        let (restored, unguarded) = (1_794_749_400, 1_794_750_000);
        roster.insert(RosterLine { listed: true, restored, unguarded, ..dave }).unwrap();
        let text = roster.to_text();
        let documented = include_str!("../../docs/roster.md");
        let example: String = documented
            .lines()
            .skip_while(|line| !line.starts_with("    uidl-keep-roster"))
            .map_while(|line| line.strip_prefix("    "))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_eq!(text, example);
    }

    /// A source that counts what is read of it.
    struct Counted<'a>(&'a [u8], Cell<(u32, usize)>);

    impl ReadAt for Counted<'_> {
        fn len_octets(&self) -> io::Result<u64> {
            self.0.len_octets()
        }

        fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            let (reads, octets) = self.1.get();
            self.1.set((reads + 1, octets + len));
            self.0.read_at(offset, len)
        }
    }

    #[test]
    fn ten_times_the_users_cost_a_look_up_four_reads_more() {
        let most_of = |users: u32| {
            let mut roster = Roster::new();
            for number in 0..users {
                roster.insert(guarded(&format!("user{number}@example.com"))).unwrap();
            }
            let text = roster.to_text();
            let looked = (0..200).map(|round| {
                let source = Counted(text.as_bytes(), Cell::default());
                let user = format!("user{}@example.com", round * 617 % users);
                assert!(lookup(&source, &user).unwrap().is_some(), "{user}");
                assert!(lookup(&source, &format!("{user}.")).unwrap().is_none(), "{user}.");
                source.1.get()
            });
            let (reads, octets): (Vec<u32>, Vec<usize>) = looked.unzip();
            (reads.into_iter().max().unwrap(), octets.into_iter().max().unwrap())
        };
        let (few, many) = (most_of(1000), most_of(10_000));
        // For two look-ups each: the two ends, the last block, and halvings of 46 KB to 8 KB.
        assert!(few.0 <= 2 * 6, "{few:?}");
        assert!(many.0 <= few.0 + 2 * 4, "{few:?} {many:?}");
        assert!(few.1.max(many.1) < 2 * 13_000, "{few:?} {many:?}");
    }

    #[test]
    fn a_lost_line_is_an_error_and_no_absent_user() {
        let mut roster = Roster::new();
        for user in ["alice", "bob", "carol"] {
            roster.insert(guarded(user)).unwrap();
        }
        let text = roster.to_text();
        for user in ["alice", "bob", "carol"] {
            let lost = text.split_inclusive('\n').filter(|line| !line.starts_with(user));
            let lost: String = lost.collect();
            assert!(lookup(lost.as_bytes(), user).is_err(), "{user}");
            assert!(Roster::read(lost.as_bytes()).is_err(), "{user}");
        }
        let counted = text.replace("roster 1 3", "roster 1 4");
        assert!(Roster::read(counted.as_bytes()).is_err());
    }

    #[test]
    fn a_count_of_lines_is_read_only_as_it_is_written() {
        for (count, is_right) in [("1", true), ("01", false), ("+1", false)] {
            let (header, content) = (format!("{MAGIC}{count}"), "alice captured held");
            let (line, end) = (check(&header, content), check("alice", "."));
            let text = format!("{header}\n{content} {line}\n. {end}\n");
            assert_eq!(Roster::read(text.as_bytes()).is_ok(), is_right, "{count}");
            assert_eq!(lookup(text.as_bytes(), "alice").is_ok(), is_right, "{count}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_on_a_roster_is_not_on_one() {
        let text = Roster::new().to_text();
        for user in ["", &"x".repeat(1025)] {
            assert!(lookup(text.as_bytes(), user).unwrap().is_none());
            assert_eq!(Roster::new().insert(guarded(user)), Err(BadName));
        }
    }

    #[test]
    fn the_last_octet_and_every_other_counts() {
        let mut roster = Roster::new();
        for user in ["alice", "bob", "carol"] {
            roster.insert(guarded(user)).unwrap();
        }
        let text = roster.to_text().into_bytes();
        for at in 0..text.len() {
            for user in ["alice", "bob", "carol", "al", "bobb", "zoe"] {
                let cut = lookup(&text[..at], user);
                assert!(cut.is_err(), "{user} {at}: {cut:?}");
                for bit in 0..8 {
                    let mut flipped = text.clone();
                    flipped[at] ^= 1 << bit;
                    if let Ok(found) = lookup(&flipped[..], user) {
                        assert_eq!(found.as_ref(), roster.get(user), "{user} {at} {bit}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_longest_line_is_found_among_the_longest() {
        let mut roster = Roster::new();
        let users = (0..40).map(|number| format!("{number:03}{}", "x".repeat(1021)));
        for user in users.clone() {
            let (forgotten, restored, unguarded) = (u64::MAX, u64::MAX, u64::MAX);
            let line = RosterLine::new(&user, State::Captured, Gate::Held);
            let line = line.with_gate(Gate::Held, true);
            roster
                .insert(RosterLine { forgotten, listed: true, restored, unguarded, ..line })
                .unwrap();
        }
        let text = roster.to_text();
        for user in users {
            assert_eq!(lookup(text.as_bytes(), &user).unwrap().as_ref(), roster.get(&user));
        }
    }

    #[test]
    fn a_line_in_any_other_form_is_refused_also_with_its_checksum() {
        let text_with = |fields: &str| {
            let (header, content) = (format!("{MAGIC}1"), format!("alice {fields}"));
            let (first, last) = (check(&header, &content), check("alice", "."));
            format!("{header}\n{content} {first}\n. {last}\n")
        };
        let good = text_with("captured guarded forgotten=10 listed=yes restored=11 unguarded=12");
        let line = lookup(good.as_bytes(), "alice").unwrap().unwrap();
        assert_eq!((line.forgotten, line.listed), (10, true));
        assert_eq!((line.restored, line.unguarded), (11, 12));
        assert!(Roster::read(text_with("captured guarded").as_bytes()).is_ok());
        for fields in [
            "captured",
            "captured guarded ",
            "captured guarded 10",
            "captured guarded forgotten",
            "captured guarded forgotten=",
            "captured guarded forgotten=0",
            "captured guarded forgotten=010",
            "captured guarded forgotten=+10",
            "captured guarded forgotten=-1",
            "captured guarded forgotten=18446744073709551616",
            "captured guarded forgotten=10 forgotten=10",
            "captured guarded restored=10 forgotten=10",
            "captured guarded listed=no",
            "captured guarded listed=1",
            "captured guarded =10",
            "captured guarded zeal=10",
            "captured  guarded",
            "captured Guarded",
            "lost guarded",
        ] {
            let text = text_with(fields);
            assert!(Roster::read(text.as_bytes()).is_err(), "{fields}");
            assert!(lookup(text.as_bytes(), "alice").is_err(), "{fields}");
        }
    }

    #[test]
    fn another_version_is_named_and_read_as_nothing() {
        let mut roster = Roster::new();
        roster.insert(guarded("alice")).unwrap();
        for found in [0, 2, 10, u32::MAX] {
            let text = roster.to_text().replace("roster 1 ", &format!("roster {found} "));
            let read = [Roster::read(text.as_bytes()).err(), lookup(text.as_bytes(), "bob").err()];
            for error in read {
                assert!(matches!(error, Some(RosterError::Version { found: it }) if it == found));
            }
        }
        for other in [
            "roster 01 1",
            "roster +1 1",
            "roster x 1",
            "roster 4294967297 1",
            "rooster 1 1",
            "roster 1 +1",
            "roster 1 01",
            "roster 1 ",
        ] {
            let text = roster.to_text().replace("roster 1 1", other);
            let read = Roster::read(text.as_bytes());
            assert!(matches!(read, Err(RosterError::NotARoster)), "{other}: {read:?}");
        }
    }
}
