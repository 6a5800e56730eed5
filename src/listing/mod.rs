//! The text form of captured maildrops: [`Reader`], [`scan`] and [`write_maildrop`].
//!
//! docs/listing.md describes it for those who write one by hand or from a database. What the writer
//! writes the reader reads back the same; what is cut short within a block the reader refuses, as
//! `qmail-newu.c` does with its lone `.`.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use crate::format::{BadFormat, UidlFormat};
use crate::key::{FileKey, Fingerprint, NORMALISER_VERSION};
use crate::maildrop::{Capture, Counter, Entry, Maildrop, Name, State};
use crate::uidl::{BadUidl, Uidl};

/// The first word of a block's first line.
const MAGIC: &str = "uidl-keep-listing";

/// The version of the form, in the same line.
const VERSION: &str = "1";

/// The longest line read or written, in octets, its line end not counted.
pub const MAX_LINE_OCTETS: usize = 64 * 1024;

/// What is wrong with a listing, and where. The file's name is added by whoever knows it.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {fault}")]
pub struct Error {
    /// The line, from 1. At an end that comes too early, the last line there is.
    pub line: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a listing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It could not be read.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// It ended before the first block.
    #[error("no maildrop in this listing; capture again")]
    Empty,
    /// It ended within a block.
    #[error(
        "no \".\" line at the end of maildrop {user}: the listing was cut short; capture again, or end the block with \".\""
    )]
    CutShort {
        /// Whose block.
        user: Excerpt,
    },
    /// A block must begin here, and does not.
    #[error("found {found} where a block must begin with \"{MAGIC} {VERSION}\"")]
    NoBlock {
        /// What stands there.
        found: Excerpt,
    },
    /// A form that this version does not know.
    #[error(
        "listing of version {found}, and only version {VERSION} is known; use the uidl-keep that wrote it"
    )]
    Version {
        /// Its version.
        found: Excerpt,
    },
    /// A line of more than [`MAX_LINE_OCTETS`].
    #[error("line of more than {MAX_LINE_OCTETS} octets; a listing has none so long: is this one?")]
    LongLine,
    /// A word that means nothing here.
    #[error("unknown field {found}; docs/listing.md has the fields")]
    UnknownField {
        /// The word.
        found: Excerpt,
    },
    /// A field that can stand once only.
    #[error("second \"{field}\"; keep the right one")]
    Twice {
        /// Its name.
        field: &'static str,
    },
    /// A field that every block has.
    #[error("no \"{field}\" line before this one; add it")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field that stands after the first message.
    #[error("\"{field}\" line behind the first message; move it before the messages")]
    Misplaced {
        /// Its name.
        field: &'static str,
    },
    /// A field without a value.
    #[error("\"{field}\" without a value; give one or leave the field out")]
    NoValue {
        /// Its name.
        field: &'static str,
    },
    /// Not a state.
    #[error("unknown state {found}; it is one of captured, empty and failed")]
    State {
        /// What stands there.
        found: Excerpt,
    },
    /// Not a number, or one too large.
    #[error("bad number {found} for \"{field}\"; it wants digits only, up to {max}")]
    Number {
        /// For which field.
        field: &'static str,
        /// What stands there.
        found: Excerpt,
        /// The largest number there.
        max: u64,
    },
    /// Order numbers must increase.
    #[error(
        "message {found} behind message {before}; list messages in their old order, numbered upwards from 1"
    )]
    Order {
        /// The number.
        found: u64,
        /// The one before it, 0 when there is none.
        before: u64,
    },
    /// A message without a UIDL.
    #[error("message {number} without a unique-id; remove the line if its client never saw one")]
    NoUidl {
        /// Its order number.
        number: u64,
    },
    /// Not a UIDL.
    #[error("{0}; no client can hold it: remove the line, or write what the client was sent")]
    Uidl(#[from] BadUidl),
    /// Not a format we can follow.
    #[error("{0}")]
    Format(#[from] BadFormat),
    /// A counter for a format that does not count.
    #[error("counter for format {format}, which has no %u; leave the line out")]
    NotCounting {
        /// The format.
        format: UidlFormat,
    },
    /// A counter without the UIDVALIDITY that its format has in it.
    #[error("counter for format {format} and no \"uidvalidity\" line; add it")]
    NoUidvalidity {
        /// The format.
        format: UidlFormat,
    },
    /// An octet that must be percent-encoded, or a `%` that encodes nothing.
    #[error(
        "bad encoding in {found} for \"{field}\"; write % and all octets outside 0x21-0x7e as % and two hexadecimal digits"
    )]
    Encoding {
        /// In which field.
        field: &'static str,
        /// What stands there.
        found: Excerpt,
    },
    /// A text that is not UTF-8.
    #[error("\"{field}\" is not UTF-8: {found}; Dovecot knows users by UTF-8 names")]
    NotUtf8 {
        /// In which field.
        field: &'static str,
        /// What stands there.
        found: Excerpt,
    },
    /// A capture out of its order.
    #[error(
        "capture {found} where capture {expected} must stand; number them from 1, oldest first"
    )]
    CaptureOrder {
        /// What stands there.
        found: Excerpt,
        /// What must.
        expected: u32,
    },
    /// A capture's time where each capture has its own.
    #[error("\"taken\" beside \"capture\" lines, each of which says when; leave it out")]
    TakenBeside,
    /// A message of a capture that there is none of.
    #[error(
        "bad number {found} for \"{field}\"; it wants one of the captures, 1 to {captures}, and \
         the last not before the first"
    )]
    OfCapture {
        /// For which field.
        field: &'static str,
        /// What stands there.
        found: Excerpt,
        /// How many captures there are.
        captures: u32,
    },
    /// Not the digits of a key.
    #[error("bad key {found} for \"{field}\"; it wants {digits} hexadecimal digits")]
    Key {
        /// In which field.
        field: &'static str,
        /// What stands there.
        found: Excerpt,
        /// How many it wants.
        digits: usize,
    },
    /// Fingerprints made by other rules than ours.
    #[error(
        "keys of version {found}, and only version {NORMALISER_VERSION} can be compared; capture again with this uidl-keep"
    )]
    KeysVersion {
        /// Their version.
        found: Excerpt,
    },
    /// A fingerprint without the version of the rules it was made by.
    #[error(
        "\"{field}\" in a block without a \"keys\" line; add \"keys {NORMALISER_VERSION}\" if uidl-keep made it, else leave it out"
    )]
    NoKeys {
        /// Which.
        field: &'static str,
    },
    /// A message that nothing names.
    #[error(
        "message {number} has no key (file, guid, header, message, origin): it can never be found; write it as \"spent {uidl}\""
    )]
    NoKey {
        /// Its order number.
        number: u64,
        /// Its UIDL.
        uidl: Uidl,
    },
    /// An empty maildrop that has messages.
    #[error("message in a maildrop of state empty; its state must be captured")]
    NotEmpty,
    /// A failed capture that does not say why.
    #[error("state failed without a \"remark\" line; add one that says why")]
    NoRemark,
}

/// Some of what stands in a listing, for a message to the operator: escaped, and cut when long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt(Box<[u8]>);

impl Excerpt {
    const MAX_OCTETS: usize = 60;

    fn of(octets: &[u8]) -> Self {
        Self(octets[..octets.len().min(Self::MAX_OCTETS + 1)].into())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(Self::MAX_OCTETS)];
        let more = if shown.len() < self.0.len() { "..." } else { "" };
        write!(f, "\"{}{more}\"", shown.escape_ascii())
    }
}

/// Writes one block.
///
/// # Errors
///
/// Those of `out`, and [`io::ErrorKind::InvalidInput`] for a maildrop that no reader would take
/// back (a message without a key, a failed capture without a remark, a line too long); then nothing
/// of it is written but what was already passed on.
pub fn write_maildrop(out: &mut impl Write, maildrop: &Maildrop) -> io::Result<()> {
    check(maildrop).map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
    let mut line = Line { octets: Vec::with_capacity(256) };
    line.octets.extend_from_slice(format!("{MAGIC} {VERSION}").as_bytes());
    line.end(out)?;

    line.start("maildrop");
    line.word(maildrop.user.as_bytes());
    line.end(out)?;
    line.start("state");
    line.octets.extend_from_slice(name_of(maildrop.state).as_bytes());
    line.end(out)?;
    if !maildrop.source.is_empty() {
        line.start("source");
        line.text(&maildrop.source);
        line.end(out)?;
    }
    write_captures(out, &mut line, maildrop)?;
    if maildrop.entries.iter().any(has_fingerprint) {
        line.start("keys");
        line.number(NORMALISER_VERSION);
        line.end(out)?;
    }
    if let Some(uidvalidity) = maildrop.uidvalidity {
        line.start("uidvalidity");
        line.number(uidvalidity);
        line.end(out)?;
    }
    if let Some(Counter { format, next }) = &maildrop.counter {
        line.start("counter");
        write!(line.octets, "{next} {format}")?;
        line.end(out)?;
    }
    for remark in &maildrop.remarks {
        line.start("remark");
        line.text(remark);
        line.end(out)?;
    }
    for uidl in &maildrop.spent {
        line.start("spent");
        line.octets.extend_from_slice(uidl.as_bytes());
        line.end(out)?;
    }
    for (number, entry) in (1_u64..).zip(&maildrop.entries) {
        line.number(number);
        line.octets.push(b' ');
        line.octets.extend_from_slice(entry.uidl.as_bytes());
        if let Some(uid) = entry.uid {
            line.octets.extend_from_slice(b" uid=");
            line.number(uid);
        }
        if let Some(octets) = entry.octets {
            line.octets.extend_from_slice(b" octets=");
            line.number(octets);
        }
        line.name(" file", entry.file.as_ref());
        line.name(" guid", entry.guid.as_ref());
        line.fingerprint(b" header=", entry.header.as_ref());
        line.fingerprint(b" message=", entry.message.as_ref());
        line.fingerprint(b" origin=", entry.origin.as_ref());
        if entry.first_capture != 0 {
            line.octets.extend_from_slice(b" first=");
            line.number(entry.first_capture + 1);
        }
        if entry.last_capture != last_capture(maildrop) {
            line.octets.extend_from_slice(b" last=");
            line.number(entry.last_capture + 1);
        }
        for uidl in &entry.earlier {
            line.octets.extend_from_slice(b" earlier=");
            line.octets.extend_from_slice(uidl.as_bytes());
        }
        line.end(out)?;
    }
    line.octets.push(b'.');
    line.end(out)
}

/// Says when it was captured: in one line where there is one capture, which the block itself says
/// all else of.
fn write_captures(out: &mut impl Write, line: &mut Line, maildrop: &Maildrop) -> io::Result<()> {
    if let [Capture { taken, .. }] = maildrop.captures[..] {
        if maildrop.captures[0] == Capture::of(maildrop, taken) {
            if let Some(taken) = taken {
                line.start("taken");
                line.number(taken);
                line.end(out)?;
            }
            return Ok(());
        }
    }
    for (number, capture) in (1_u32..).zip(&maildrop.captures) {
        line.start("capture");
        line.number(number);
        let Capture { taken, source, uidvalidity, next } = capture;
        for known in [*taken, next.map(u64::from), uidvalidity.map(u64::from)] {
            line.octets.push(b' ');
            match known {
                Some(known) => line.number(known),
                None => line.octets.push(b'-'),
            }
        }
        if !source.is_empty() {
            line.octets.push(b' ');
            line.text(source);
        }
        line.end(out)?;
    }
    Ok(())
}

/// The number, from 0, of the last capture of a maildrop.
fn last_capture(maildrop: &Maildrop) -> u32 {
    maildrop.captures.len().saturating_sub(1) as u32
}

/// What the reader demands of a block beyond the shape of its lines.
fn check(maildrop: &Maildrop) -> Result<(), Fault> {
    if maildrop.user.is_empty() {
        return Err(Fault::NoValue { field: "maildrop" });
    }
    check_counter(maildrop)?;
    if maildrop.state == State::Empty && !maildrop.entries.is_empty() {
        return Err(Fault::NotEmpty);
    }
    if maildrop.state == State::Failed && maildrop.remarks.is_empty() {
        return Err(Fault::NoRemark);
    }
    if maildrop.remarks.iter().any(String::is_empty) {
        return Err(Fault::NoValue { field: "remark" });
    }
    let last = last_capture(maildrop);
    (1..).zip(&maildrop.entries).try_for_each(|(number, entry)| {
        check_entry(number, entry)?;
        for (field, found, most) in
            [("last", entry.last_capture, last), ("first", entry.first_capture, entry.last_capture)]
        {
            if found > most {
                let found = Excerpt::of((u64::from(found) + 1).to_string().as_bytes());
                return Err(Fault::OfCapture { field, found, captures: last + 1 });
            }
        }
        Ok(())
    })
}

fn check_counter(maildrop: &Maildrop) -> Result<(), Fault> {
    match &maildrop.counter {
        Some(Counter { format, .. }) if !format.is_counting() => {
            Err(Fault::NotCounting { format: format.clone() })
        }
        Some(Counter { format, .. })
            if format.has_uidvalidity() && maildrop.uidvalidity.is_none() =>
        {
            Err(Fault::NoUidvalidity { format: format.clone() })
        }
        _ => Ok(()),
    }
}

fn check_entry(number: u64, entry: &Entry) -> Result<(), Fault> {
    for (field, name) in [("file", &entry.file), ("guid", &entry.guid)] {
        if matches!(name, Some(Name::Spelled(name)) if name.is_empty()) {
            return Err(Fault::NoValue { field });
        }
    }
    if entry.file.is_none() && entry.guid.is_none() && !has_fingerprint(entry) {
        return Err(Fault::NoKey { number, uidl: entry.uidl.clone() });
    }
    Ok(())
}

fn has_fingerprint(entry: &Entry) -> bool {
    [entry.header, entry.message, entry.origin].iter().any(Option::is_some)
}

fn name_of(state: State) -> &'static str {
    match state {
        State::Captured => "captured",
        State::Empty => "empty",
        State::Failed => "failed",
    }
}

/// A line being written.
struct Line {
    octets: Vec<u8>,
}

impl Line {
    fn start(&mut self, field: &str) {
        self.octets.extend_from_slice(field.as_bytes());
        self.octets.push(b' ');
    }

    fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.octets.len() > MAX_LINE_OCTETS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, Fault::LongLine));
        }
        self.octets.push(b'\n');
        out.write_all(&self.octets)?;
        self.octets.clear();
        Ok(())
    }

    fn number(&mut self, number: impl fmt::Display) {
        write!(self.octets, "{number}").expect("a Vec takes all");
    }

    fn encoded(&mut self, octet: u8) {
        self.octets.push(b'%');
        self.hex(&[octet]);
    }

    fn hex(&mut self, octets: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for octet in octets {
            self.octets.push(DIGITS[usize::from(octet >> 4)]);
            self.octets.push(DIGITS[usize::from(octet & 15)]);
        }
    }

    /// A word, without blanks.
    fn word(&mut self, octets: &[u8]) {
        for &octet in octets {
            if octet.is_ascii_graphic() && octet != b'%' {
                self.octets.push(octet);
            } else {
                self.encoded(octet);
            }
        }
    }

    /// A text up to the end of the line. Its blanks stay readable, but for those at its ends.
    fn text(&mut self, text: &str) {
        let text = text.as_bytes();
        for (at, &octet) in text.iter().enumerate() {
            let at_end = at == 0 || at + 1 == text.len();
            if octet == b' ' && !at_end {
                self.octets.push(b' ');
            } else {
                self.word(&[octet]);
            }
        }
    }

    fn name(&mut self, field: &str, name: Option<&Name>) {
        match name {
            None => {}
            Some(Name::Spelled(name)) => {
                self.octets.extend_from_slice(field.as_bytes());
                self.octets.push(b'=');
                self.word(name);
            }
            Some(Name::Key(key)) => {
                self.octets.extend_from_slice(field.as_bytes());
                self.octets.extend_from_slice(b"-hash=");
                self.hex(&key.cut);
                self.hex(&key.whole);
            }
        }
    }

    fn fingerprint(&mut self, field: &[u8], fingerprint: Option<&Fingerprint>) {
        if let Some(fingerprint) = fingerprint {
            self.octets.extend_from_slice(field);
            self.hex(&fingerprint.0);
        }
    }
}

/// Reads a listing block by block. After an error there is no more.
///
/// Memory: one block, and one line of at most [`MAX_LINE_OCTETS`].
pub struct Reader<R> {
    blocks: Blocks<R>,
}

impl<R: BufRead> Reader<R> {
    /// Reads `input` from where it stands.
    pub fn new(input: R) -> Self {
        Self { blocks: Blocks::new(input, Keep::All, Block { line: 1, ..Block::default() }) }
    }

    /// Reads one or more blocks out of a listing, from a [`Block`] that [`scan`] found: `input`
    /// stands at its `offset`. Errors then count lines from the start of the listing.
    pub fn at_block(input: R, block: &Block) -> Self {
        Self { blocks: Blocks::new(input, Keep::All, block.clone()) }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Maildrop, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.blocks.next().map(|block| block.map(|(_, maildrop)| maildrop))
    }
}

/// Checks a listing as [`Reader`] does, but keeps no messages: for a builder who sorts more blocks
/// than fit in memory. After an error there is no more.
///
/// Memory: one line. Cost: as reading.
pub fn scan<R: BufRead>(input: R) -> Scan<R> {
    Scan { blocks: Blocks::new(input, Keep::HeadOnly, Block { line: 1, ..Block::default() }) }
}

/// See [`scan`].
pub struct Scan<R> {
    blocks: Blocks<R>,
}

impl<R: BufRead> Scan<R> {
    /// Each block with the fields that a maildrop has one of; its messages, remarks and spent UIDLs
    /// are left out.
    pub fn with_heads(self) -> impl Iterator<Item = Result<(Block, Maildrop), Error>> {
        self.blocks
    }
}

impl<R: BufRead> Iterator for Scan<R> {
    type Item = Result<Block, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.blocks.next().map(|block| block.map(|(block, _)| block))
    }
}

/// Where a block stands in its listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// Whose it is.
    pub user: String,
    /// The octet it begins at, from 0.
    pub offset: u64,
    /// Its length up to and with its lone `.` and the line end.
    pub len_octets: u64,
    /// The line it begins at, from 1.
    pub line: u64,
    /// How many messages it lists.
    pub entries: u64,
}

/// What is kept of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    /// The fields there are one of, neither messages nor remarks nor spent UIDLs.
    HeadOnly,
}

struct Blocks<R> {
    input: R,
    keep: Keep,
    line: Vec<u8>,
    /// Number of the line last read.
    line_number: u64,
    /// Octets read.
    offset: u64,
    blocks_seen: u64,
    done: bool,
}

impl<R: BufRead> Iterator for Blocks<R> {
    type Item = Result<(Block, Maildrop), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let block =
            self.read_block().map_err(|fault| Error { line: self.line_number.max(1), fault });
        match block {
            Ok(Some(block)) => Some(Ok(block)),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }
}

impl<R: BufRead> Blocks<R> {
    fn new(input: R, keep: Keep, start: Block) -> Self {
        Self {
            input,
            keep,
            line: Vec::new(),
            line_number: start.line - 1,
            offset: start.offset,
            blocks_seen: 0,
            done: false,
        }
    }

    /// Reads the next line that is neither blank nor a comment; `None` at the end of the input.
    /// What has no line end is no line: the input was cut short.
    fn next_line(&mut self) -> Result<Option<()>, Fault> {
        loop {
            self.line.clear();
            // One more for the line end, and one to see that there is too much.
            let bound = MAX_LINE_OCTETS as u64 + 2;
            let taken = self.input.by_ref().take(bound).read_until(b'\n', &mut self.line)?;
            if taken == 0 {
                return Ok(None);
            }
            self.offset += taken as u64;
            self.line_number += 1;
            let ended = self.line.last() == Some(&b'\n');
            if ended {
                self.line.pop();
            }
            if self.line.len() > MAX_LINE_OCTETS {
                return Err(Fault::LongLine);
            }
            let is_comment = self.line.starts_with(b"#");
            let blank = self.line.trim_ascii().is_empty();
            if !(ended || blank || is_comment) {
                // As if the input ended before it.
                return Ok(None);
            }
            if !blank && !is_comment {
                return Ok(Some(()));
            }
        }
    }

    fn read_block(&mut self) -> Result<Option<(Block, Maildrop)>, Fault> {
        if self.next_line()?.is_none() {
            // Either nothing more, or the start of a line.
            return match (self.line.is_empty(), self.blocks_seen) {
                (true, 0) => Err(Fault::Empty),
                (true, _) => Ok(None),
                (false, _) => Err(Fault::CutShort { user: Excerpt::of(b"") }),
            };
        }
        self.blocks_seen += 1;
        let len_octets = self.line.len() as u64 + 1;
        let mut block =
            Block { offset: self.offset - len_octets, line: self.line_number, ..Block::default() };
        match words(&self.line) {
            (magic, version) if magic == MAGIC.as_bytes() => {
                if version != VERSION.as_bytes() {
                    return Err(Fault::Version { found: Excerpt::of(version) });
                }
            }
            _ => return Err(Fault::NoBlock { found: Excerpt::of(&self.line) }),
        }

        let mut head = Head::default();
        let mut maildrop: Option<Maildrop> = None;
        let mut last_number = 0;
        loop {
            if self.next_line()?.is_none() {
                let user = head.user.as_deref().unwrap_or_default();
                return Err(Fault::CutShort { user: Excerpt::of(user.as_bytes()) });
            }
            let line = self.line.trim_ascii();
            if line == b"." {
                break;
            }
            if !line[0].is_ascii_digit() {
                head.take_line(line, self.keep, maildrop.is_some())?;
                continue;
            }
            let maildrop = match &mut maildrop {
                Some(maildrop) => maildrop,
                none => none.insert(head.finish()?),
            };
            if maildrop.state == State::Empty {
                return Err(Fault::NotEmpty);
            }
            let (number, entry) = entry_of(line, head.keys, head.capture_count.max(1))?;
            if number <= last_number {
                return Err(Fault::Order { found: number, before: last_number });
            }
            last_number = number;
            block.entries += 1;
            if self.keep == Keep::All {
                maildrop.entries.push(entry);
            }
        }
        let maildrop = match maildrop {
            Some(maildrop) => maildrop,
            None => head.finish()?,
        };
        block.len_octets = self.offset - block.offset;
        block.user.clone_from(&maildrop.user);
        Ok(Some((block, maildrop)))
    }
}

/// What stands before the messages of a block.
#[derive(Default)]
struct Head {
    user: Option<String>,
    state: Option<State>,
    source: Option<String>,
    keys: bool,
    taken: Option<u64>,
    /// How many lines say of a capture.
    capture_count: u32,
    captures: Vec<Capture>,
    uidvalidity: Option<u32>,
    counter: Option<Counter>,
    has_remark: bool,
    remarks: Vec<String>,
    spent: Vec<Uidl>,
}

impl Head {
    fn take_line(&mut self, line: &[u8], keep: Keep, behind: bool) -> Result<(), Fault> {
        let (word, value) = words(line);
        let known = [
            "maildrop",
            "state",
            "source",
            "taken",
            "capture",
            "keys",
            "uidvalidity",
            "counter",
            "remark",
            "spent",
        ];
        let field = known.into_iter().find(|field| field.as_bytes() == word);
        let field = field.ok_or_else(|| Fault::UnknownField { found: Excerpt::of(word) })?;
        if behind {
            return Err(Fault::Misplaced { field });
        }
        if value.is_empty() {
            return Err(Fault::NoValue { field });
        }
        match field {
            "maildrop" => {
                once(&mut self.user, field, utf8(field, decoded(field, value, Blanks::Encoded)?)?)
            }
            "state" => {
                let states = [State::Captured, State::Empty, State::Failed];
                let state = states.into_iter().find(|&state| name_of(state).as_bytes() == value);
                let state = state.ok_or_else(|| Fault::State { found: Excerpt::of(value) })?;
                once(&mut self.state, field, state)
            }
            "source" => {
                once(&mut self.source, field, utf8(field, decoded(field, value, Blanks::Plain)?)?)
            }
            "taken" => once(&mut self.taken, field, number_of(field, value, u64::MAX)?),
            "capture" => {
                let (number, rest) = words(value);
                let expected = self.capture_count.saturating_add(1);
                if number_of(field, number, u32::MAX.into()).ok() != Some(expected.into()) {
                    return Err(Fault::CaptureOrder { found: Excerpt::of(number), expected });
                }
                self.capture_count = expected;
                let capture = capture_of(rest)?;
                if keep == Keep::All {
                    self.captures.push(capture);
                }
                Ok(())
            }
            "keys" => {
                if number_of(field, value, u64::from(u8::MAX))? != u64::from(NORMALISER_VERSION) {
                    return Err(Fault::KeysVersion { found: Excerpt::of(value) });
                }
                if self.keys {
                    return Err(Fault::Twice { field });
                }
                self.keys = true;
                Ok(())
            }
            "uidvalidity" => once(&mut self.uidvalidity, field, u32_of(field, value)?),
            "counter" => {
                let (next, format) = words(value);
                let next = u32_of(field, next)?;
                if format.is_empty() {
                    return Err(Fault::NoValue { field });
                }
                let plain = |octet: &u8| matches!(octet, b' '..=b'~');
                let format = std::str::from_utf8(format).ok().filter(|_| format.iter().all(plain));
                let bad = || Fault::Encoding { field, found: Excerpt::of(value) };
                let format = UidlFormat::parse(format.ok_or_else(bad)?)?;
                once(&mut self.counter, field, Counter { format, next })
            }
            "remark" => {
                let remark = utf8(field, decoded(field, value, Blanks::Plain)?)?;
                self.has_remark = true;
                if keep == Keep::All {
                    self.remarks.push(remark);
                }
                Ok(())
            }
            _ => {
                Uidl::check(value)?;
                if keep == Keep::All {
                    self.spent.push(Uidl::new(value)?);
                }
                Ok(())
            }
        }
    }

    /// The maildrop without its messages; what was kept is moved out.
    fn finish(&mut self) -> Result<Maildrop, Fault> {
        let mut maildrop = Maildrop {
            user: self.user.clone().ok_or(Fault::Missing { field: "maildrop" })?,
            state: self.state.ok_or(Fault::Missing { field: "state" })?,
            captures: std::mem::take(&mut self.captures),
            source: self.source.take().unwrap_or_default(),
            uidvalidity: self.uidvalidity,
            counter: self.counter.take(),
            entries: Vec::new(),
            spent: std::mem::take(&mut self.spent),
            remarks: std::mem::take(&mut self.remarks),
        };
        match (self.capture_count, self.taken) {
            (0, taken) => maildrop.captures = vec![Capture::of(&maildrop, taken)],
            (_, Some(_)) => return Err(Fault::TakenBeside),
            (_, None) => {}
        }
        check_counter(&maildrop)?;
        if maildrop.state == State::Failed && !self.has_remark {
            return Err(Fault::NoRemark);
        }
        Ok(maildrop)
    }
}

fn once<T>(place: &mut Option<T>, field: &'static str, value: T) -> Result<(), Fault> {
    match place {
        Some(_) => Err(Fault::Twice { field }),
        None => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// The first word of a line, and what follows it, without the blanks between and at the ends.
fn words(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

fn number_of(field: &'static str, digits: &[u8], max: u64) -> Result<u64, Fault> {
    let bad = || Fault::Number { field, found: Excerpt::of(digits), max };
    if digits.is_empty() {
        return Err(bad());
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.filter(|&number| number <= max).ok_or_else(bad)
}

fn u32_of(field: &'static str, digits: &[u8]) -> Result<u32, Fault> {
    number_of(field, digits, u32::MAX.into()).map(|number| number as u32)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blanks {
    Plain,
    Encoded,
}

/// The octets that `encoded` stands for.
fn decoded(field: &'static str, encoded: &[u8], blanks: Blanks) -> Result<Vec<u8>, Fault> {
    let bad = || Fault::Encoding { field, found: Excerpt::of(encoded) };
    let digit = |octet: Option<&u8>| char::from(*octet?).to_digit(16);
    let mut octets = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter();
    while let Some(&octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let pair = digit(rest.next()).zip(digit(rest.next()));
                let (high, low) = pair.ok_or_else(bad)?;
                (high * 16 + low) as u8
            }
            b' ' if blanks == Blanks::Plain => octet,
            0x21..=0x7E => octet,
            _ => return Err(bad()),
        });
    }
    Ok(octets)
}

fn utf8(field: &'static str, octets: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(octets)
        .map_err(|not| Fault::NotUtf8 { field, found: Excerpt::of(not.as_bytes()) })
}

/// What a line says of a capture behind its number.
fn capture_of(line: &[u8]) -> Result<Capture, Fault> {
    let field = "capture";
    let known = |word: &[u8], max| match word {
        b"-" => Ok(None),
        digits => number_of(field, digits, max).map(Some),
    };
    let (taken, rest) = words(line);
    let (next, rest) = words(rest);
    let (uidvalidity, source) = words(rest);
    let u32_of = |word| known(word, u32::MAX.into()).map(|known| known.map(|known| known as u32));
    Ok(Capture {
        taken: known(taken, u64::MAX)?,
        next: u32_of(next)?,
        uidvalidity: u32_of(uidvalidity)?,
        source: utf8(field, decoded(field, source, Blanks::Plain)?)?,
    })
}

/// A message's line, in a block of so many captures: its order number and the rest.
fn entry_of(line: &[u8], keys: bool, captures: u32) -> Result<(u64, Entry), Fault> {
    let (number, mut rest) = words(line);
    let number = number_of("order number", number, u64::MAX)?;
    let uidl;
    (uidl, rest) = words(rest);
    if uidl.is_empty() {
        return Err(Fault::NoUidl { number });
    }
    let mut entry = Entry::new(Uidl::new(uidl)?);
    let (mut first, mut last) = (None, None);
    while !rest.is_empty() {
        let word;
        (word, rest) = words(rest);
        let unknown = || Fault::UnknownField { found: Excerpt::of(word) };
        let equals = word.iter().position(|&octet| octet == b'=').ok_or_else(unknown)?;
        let (field, value) = (&word[..equals], &word[equals + 1..]);
        match field {
            b"uid" => once(&mut entry.uid, "uid", u32_of("uid", value)?)?,
            b"octets" => once(&mut entry.octets, "octets", number_of("octets", value, u64::MAX)?)?,
            b"file" => once(&mut entry.file, "file", spelled("file", value)?)?,
            b"guid" => once(&mut entry.guid, "guid", spelled("guid", value)?)?,
            b"file-hash" => once(&mut entry.file, "file", hashed("file-hash", value)?)?,
            b"guid-hash" => once(&mut entry.guid, "guid", hashed("guid-hash", value)?)?,
            b"header" => once(&mut entry.header, "header", fingerprint("header", value, keys)?)?,
            b"message" => {
                once(&mut entry.message, "message", fingerprint("message", value, keys)?)?
            }
            b"origin" => once(&mut entry.origin, "origin", fingerprint("origin", value, keys)?)?,
            b"first" => once(&mut first, "first", of_capture("first", value, captures)?)?,
            b"last" => once(&mut last, "last", of_capture("last", value, captures)?)?,
            b"earlier" => entry.earlier.push(Uidl::new(value)?),
            _ => return Err(unknown()),
        }
    }
    entry.first_capture = first.unwrap_or(0);
    entry.last_capture = last.unwrap_or(captures - 1);
    if entry.first_capture > entry.last_capture {
        let found = Excerpt::of((entry.first_capture + 1).to_string().as_bytes());
        return Err(Fault::OfCapture { field: "first", found, captures });
    }
    check_entry(number, &entry)?;
    Ok((number, entry))
}

/// The number of a capture as it is written, from 1; counted from 0.
fn of_capture(field: &'static str, value: &[u8], captures: u32) -> Result<u32, Fault> {
    let number = number_of(field, value, captures.into()).ok().filter(|&number| number > 0);
    let number =
        number.ok_or_else(|| Fault::OfCapture { field, found: Excerpt::of(value), captures })?;
    Ok(number as u32 - 1)
}

fn spelled(field: &'static str, value: &[u8]) -> Result<Name, Fault> {
    Ok(Name::Spelled(decoded(field, value, Blanks::Encoded)?.into()))
}

fn hashed(field: &'static str, value: &[u8]) -> Result<Name, Fault> {
    let bad = || Fault::Key { field, found: Excerpt::of(value), digits: 2 * FileKey::OCTETS };
    FileKey::from_hex(value).map(Name::Key).ok_or_else(bad)
}

fn fingerprint(field: &'static str, value: &[u8], keys: bool) -> Result<Fingerprint, Fault> {
    if !keys {
        return Err(Fault::NoKeys { field });
    }
    let bad = || Fault::Key { field, found: Excerpt::of(value), digits: 2 * Fingerprint::OCTETS };
    Fingerprint::from_hex(value).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One of everything, as the writer writes it.
    const ALICE: &str = "\
uidl-keep-listing 1
maildrop alice@example.com
state captured
source courier /var/qmail/mailnames/example.com/alice/Maildir
keys 2
uidvalidity 1714990000
counter 13 UID%u-%v
remark line 3 of courierpop3dsizelist: no number: 1714...
spent UID9-1714990000
1 UID1-1714990000 uid=1 octets=420 file=1714990000.20000.old%20name guid=d35d6b0a header=000102030405060708090a0b0c0d0e0f message=ffffffffffffffffffffffffffffffff origin=101112131415161718191a1b1c1d1e1f
2 UID2-1714990000 file-hash=000102030405060708090a0b0c0d0e0f10111213 guid-hash=ffffffffffffffffffffffffffffffffffffffff
.
";

    fn read(text: &[u8]) -> Result<Vec<Maildrop>, Error> {
        Reader::new(text).collect()
    }

    fn written(maildrop: &Maildrop) -> Vec<u8> {
        let mut out = Vec::new();
        write_maildrop(&mut out, maildrop).unwrap();
        out
    }

    /// The error of `text`, which a scan must find too.
    fn error_in(text: &str) -> String {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        let scanned: Result<Vec<_>, _> = scan(text.as_bytes()).collect();
        assert_eq!(scanned.unwrap_err().to_string(), error);
        error
    }

    #[test]
    fn reads_a_block_and_writes_it_the_same() {
        let read = read(ALICE.as_bytes()).unwrap();
        let [maildrop] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(String::from_utf8(written(maildrop)).unwrap(), ALICE);
        let entry = &maildrop.entries[0];
        assert_eq!(maildrop.user, "alice@example.com");
        assert_eq!(maildrop.counter.as_ref().map(|counter| counter.next), Some(13));
        assert_eq!(maildrop.spent, [Uidl::new(*b"UID9-1714990000").unwrap()]);
        assert_eq!((entry.uid, entry.octets), (Some(1), Some(420)));
        assert_eq!(entry.file, Some(Name::Spelled((*b"1714990000.20000.old name").into())));
        assert_eq!(entry.message, Some(Fingerprint([0xFF; 16])));
        assert_eq!(
            maildrop.entries[1].guid,
            Some(Name::Key(FileKey { cut: [0xFF; 16], whole: [0xFF; 4] }))
        );
    }

    /// A maildrop of two captures, as the writer writes it.
    const MERGED: &str = "\
uidl-keep-listing 1
maildrop alice@example.com
state captured
source dovecot /home/alice/Maildir
capture 1 1714990000 - - courier /home/alice/Maildir
capture 2 - 13 1714990000
uidvalidity 1714990000
counter 13 UID%u-%v
1 UID1-1714990000 file=a last=1
2 UID2-1714990000 file=b first=2
3 UID3-1714990000 file=c earlier=UID9=1 earlier=UID8%20
.
";

    #[test]
    fn a_block_says_when_it_was_captured_and_needs_not() {
        let text = ALICE.replace("keys 2", "taken 1794749400\nkeys 2");
        let maildrop = read(text.as_bytes()).unwrap().remove(0);
        assert_eq!(String::from_utf8(written(&maildrop)).unwrap(), text);
        assert_eq!(maildrop.captures, [Capture::of(&maildrop, Some(1_794_749_400))]);
        assert_eq!(maildrop.captures[0].next, Some(13));
        assert_eq!(maildrop.last_entries().count(), 2);
        let untimed = read(ALICE.as_bytes()).unwrap().remove(0);
        assert_eq!(untimed.captures, [Capture::of(&untimed, None)]);
    }

    #[test]
    fn several_captures_stand_in_a_block_with_what_each_said() {
        let maildrop = read(MERGED.as_bytes()).unwrap().remove(0);
        assert_eq!(String::from_utf8(written(&maildrop)).unwrap(), MERGED);
        let [first, second] = &maildrop.captures[..] else { panic!("{maildrop:?}") };
        assert_eq!((first.taken, first.next, first.uidvalidity), (Some(1_714_990_000), None, None));
        assert_eq!(first.source, "courier /home/alice/Maildir");
        assert_eq!((second.taken, second.next), (None, Some(13)));
        assert_eq!((second.uidvalidity, second.source.as_str()), (Some(1_714_990_000), ""));
        let of = |entry: &Entry| (entry.first_capture, entry.last_capture);
        assert_eq!(maildrop.entries.iter().map(of).collect::<Vec<_>>(), [(0, 0), (1, 1), (0, 1)]);
        let earlier: Vec<_> = maildrop.entries[2].earlier.iter().map(Uidl::to_string).collect();
        assert_eq!(earlier, ["UID9=1", "UID8%20"]);
        assert_eq!(maildrop.last_entries().count(), 2);
    }

    #[test]
    fn a_fault_in_what_is_said_of_captures_names_line_and_next_step() {
        for (was, is, error) in [
            ("capture 2", "capture 3", "6: capture \"3\" where capture 2 must stand; number them"),
            ("capture 1", "capture x", "5: capture \"x\" where capture 1 must stand"),
            ("capture 1 1714990000 - -", "capture 1 1714990000 -", "5: bad number \"courier\""),
            ("- 13 1714990000", "- 4294967296 1714990000", "6: bad number \"4294967296\" for \"ca"),
            ("- 13 1714990000", "", "6: bad number \"\" for \"capture\""),
            ("capture 1", "taken 1\ncapture 1", "10: \"taken\" beside \"capture\" lines"),
            (
                "last=1",
                "last=0",
                "9: bad number \"0\" for \"last\"; it wants one of the captures, 1 to 2",
            ),
            ("last=1", "last=3", "9: bad number \"3\" for \"last\""),
            ("last=1", "first=2 last=1", "9: bad number \"2\" for \"first\""),
            ("last=1", "last=1 last=1", "9: second \"last\""),
            ("earlier=UID9=1", "earlier=", "11: "),
        ] {
            assert!(MERGED.contains(was), "{was}");
            let found = error_in(&MERGED.replacen(was, is, 1));
            assert!(found.starts_with(error), "{was:?} -> {is:?}: {found}");
        }
        for (is, error) in
            [("taken x", "5: bad number \"x\""), ("taken 1\ntaken 2", "6: second \"taken\"")]
        {
            let found = error_in(&ALICE.replacen("keys 2", is, 1));
            assert!(found.starts_with(error), "{is:?}: {found}");
        }
        let mut maildrop = read(MERGED.as_bytes()).unwrap().remove(0);
        maildrop.entries[0].last_capture = 2;
        let refused = write_maildrop(&mut Vec::new(), &maildrop).unwrap_err();
        assert!(refused.to_string().starts_with("bad number \"3\" for \"last\""), "{refused}");
    }

    #[test]
    fn only_fingerprints_need_the_version_of_the_rules() {
        let text = "uidl-keep-listing 1\nmaildrop a\nstate captured\n1 x file=a\n.\n";
        let maildrop = read(text.as_bytes()).unwrap().remove(0);
        assert_eq!(String::from_utf8(written(&maildrop)).unwrap(), text);
    }

    #[test]
    fn takes_what_people_write_by_hand() {
        let by_hand = "# from the old billing system\r\n\r\n  uidl-keep-listing   1\r\nstate\tcaptured\n\n\
            maildrop m%C3%BCller@example.com  \n# a remark to ourselves\n\
            10  a  file=x%3d  uid=7\n30 b guid=y\n\t.\r\n\n# the end";
        let read = read(by_hand.as_bytes()).unwrap();
        assert_eq!(read[0].user, "m\u{fc}ller@example.com");
        assert_eq!(read[0].entries[0].file, Some(Name::Spelled((*b"x=").into())));
        assert_eq!(read[0].entries.len(), 2);
        assert_eq!(read[0].source, "");
    }

    #[test]
    fn each_fault_names_line_and_next_step() {
        let with = |was: &str, is: &str| {
            assert!(ALICE.contains(was), "{was}");
            error_in(&ALICE.replacen(was, is, 1))
        };
        let long = "x".repeat(MAX_LINE_OCTETS);
        for (was, is, error) in [
            (
                "uidl-keep-listing 1\n",
                "",
                "1: found \"maildrop alice@example.com\" where a block must begin",
            ),
            ("uidl-keep-listing 1", "uidl-keep-listing 2", "1: listing of version \"2\", and only"),
            ("uidl-keep-listing 1", "uidl-keep-listing", "1: listing of version \"\", and only"),
            ("uidl-keep-listing 1", "+OK\u{1b}[2J", "1: found \"+OK\\x1b[2J\" where a block"),
            (
                "\n.\n",
                "\n",
                "11: no \".\" line at the end of maildrop \"alice@example.com\": the listing was cut short",
            ),
            ("\n.\n", "\n.", "12: no \".\" line at the end"),
            ("maildrop alice@example.com\n", "", "9: no \"maildrop\" line before this one"),
            ("state captured\n", "", "9: no \"state\" line before this one"),
            ("maildrop alice@example.com", "maildrop", "2: \"maildrop\" without a value"),
            ("maildrop alice@example.com", "maildrop al ice", "2: bad encoding in \"al ice\""),
            (
                "maildrop alice@example.com",
                "maildrop %ff",
                "2: \"maildrop\" is not UTF-8: \"\\xff\"",
            ),
            ("state captured", "state Captured", "3: unknown state \"Captured\""),
            ("state captured", "state empty", "10: message in a maildrop of state empty"),
            ("source ", "origin ", "4: unknown field \"origin\""),
            ("source courier", "state empty\nsource", "4: second \"state\""),
            ("source courier", "source %2", "4: bad encoding in \"%2 /var"),
            (
                "keys 2",
                "keys 1",
                "5: keys of version \"1\", and only version 2 can be compared; capture again",
            ),
            ("keys 2", "keys 2\nkeys 2", "6: second \"keys\""),
            ("keys 2\n", "", "9: \"header\" in a block without a \"keys\" line"),
            (
                "uidvalidity 1714990000",
                "uidvalidity 4294967296",
                "6: bad number \"4294967296\" for \"uidvalidity\"",
            ),
            ("uidvalidity 1714990000", "uidvalidity -1", "6: bad number \"-1\""),
            (
                "uidvalidity 1714990000\n",
                "",
                "9: counter for format UID%u-%v and no \"uidvalidity\"",
            ),
            ("UID%u-%v", "%f", "10: counter for format %f, which has no %u"),
            ("UID%u-%v", "%m%u", "7: unknown variable %m in UIDL format"),
            ("UID%u-%v", "\u{e9}%u", "7: bad encoding in \"13 \\xc3\\xa9%u\" for \"counter\""),
            ("counter 13 UID%u-%v", "counter 13", "7: \"counter\" without a value"),
            ("remark ", "remark \u{e9}", "8: bad encoding in "),
            ("remark ", "remark \u{7}", "8: bad encoding in "),
            ("spent UID9-1714990000", "spent UID9 1714990000", "9: unique-id has octet 0x20 at 4"),
            ("2 UID2-1714990000", "1 UID2-1714990000", "11: message 1 behind message 1;"),
            ("1 UID1-1714990000", "0 UID1-1714990000", "10: message 0 behind message 0;"),
            (
                "1 UID1-1714990000",
                "1x UID1-1714990000",
                "10: bad number \"1x\" for \"order number\"",
            ),
            (
                "1 UID1-1714990000",
                "99999999999999999999 x",
                "10: bad number \"99999999999999999999\"",
            ),
            ("2 UID2-1714990000", "2 \u{e9}", "11: unique-id has octet 0xc3 at 0"),
            ("2 UID2-1714990000 ", "2\n3 b ", "11: message 2 without a unique-id"),
            (
                "2 UID2-1714990000 ",
                "2 UID2\n3 b ",
                "11: message 2 has no key (file, guid, header, message, origin): it can never be found; write it as \"spent UID2\"",
            ),
            ("2 UID2-1714990000 ", "2 UID2 uid=7 octets=9\n3 b ", "11: message 2 has no key"),
            ("uid=1 ", "uid=4294967296 ", "10: bad number \"4294967296\" for \"uid\""),
            ("uid=1 ", "uid=1 uid=1 ", "10: second \"uid\""),
            ("uid=1 ", "uid= ", "10: bad number \"\" for \"uid\""),
            ("uid=1 ", "Uid=1 ", "10: unknown field \"Uid=1\""),
            ("uid=1 ", "uid ", "10: unknown field \"uid\""),
            ("file=1714990000.20000.old%20name", "file=", "10: \"file\" without a value"),
            (
                "old%20name",
                "old%2gname",
                "10: bad encoding in \"1714990000.20000.old%2gname\" for \"file\"",
            ),
            (
                "guid=d35d6b0a",
                "file-hash=d35d",
                "10: bad key \"d35d\" for \"file-hash\"; it wants 40",
            ),
            (
                "header=00",
                "header=0g",
                "10: bad key \"0g0102030405060708090a0b0c0d0e0f\" for \"header\"; it wants 32",
            ),
            ("file-hash=", "file=x file-hash=", "11: second \"file\""),
            ("\n.\n", "\nspent x\n.\n", "12: \"spent\" line behind the first message; move it"),
            ("\n.\n", "\n.\n.\n", "13: found \".\" where a block must begin"),
            ("\n.\n", "\nuidl-keep-listing 1\n.\n", "12: unknown field \"uidl-keep-listing\""),
            ("remark line", &format!("remark {long}"), "8: line of more than 65536 octets"),
        ] {
            let found = with(was, is);
            assert!(found.starts_with(error), "{was:?} -> {is:?}: {found}");
        }
        let cut = error_in(&ALICE.replacen("captured", &"x".repeat(300), 1));
        assert!(cut.starts_with(&format!("3: unknown state \"{}...\";", "x".repeat(60))), "{cut}");
        assert_eq!(error_in(""), "1: no maildrop in this listing; capture again");
        assert_eq!(error_in("\n# nothing\n"), "2: no maildrop in this listing; capture again");
        let failed = "uidl-keep-listing 1\nmaildrop a\nstate failed\n.\n";
        assert!(error_in(failed).starts_with("4: state failed without a \"remark\" line"));
        assert!(error_in(&format!("{ALICE}uidl-keep")).starts_with("13: no \".\" line"));
    }

    #[test]
    fn a_line_may_be_as_long_as_it_may_be() {
        let mut alice = read(ALICE.as_bytes()).unwrap().remove(0);
        alice.source = "x".repeat(MAX_LINE_OCTETS - "source ".len());
        let text = written(&alice);
        assert_eq!(read(&text).unwrap(), std::slice::from_ref(&alice));
        let longer = String::from_utf8(text).unwrap().replacen("xx", "xxx", 1);
        assert!(error_in(&longer).starts_with("4: line of more than 65536 octets"));
        alice.source.push('x');
        assert!(write_maildrop(&mut Vec::new(), &alice).is_err());
    }

    #[test]
    fn a_failed_read_is_not_an_end() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("bad disk"))
            }
        }
        let input = io::BufReader::new(ALICE.as_bytes().chain(Broken));
        let mut reader = Reader::new(input);
        assert!(reader.next().unwrap().is_ok());
        assert_eq!(reader.next().unwrap().unwrap_err().to_string(), "12: cannot read: bad disk");
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_block_found_by_a_scan_is_read_from_its_place() {
        let bob = "# bob\n\nuidl-keep-listing 1\r\nmaildrop bob\nstate empty\nspent x\n.\n\n";
        let text = [ALICE, bob, ALICE].concat();
        let blocks: Vec<_> = scan(text.as_bytes()).collect::<Result<_, _>>().unwrap();
        let users: Vec<_> =
            blocks.iter().map(|block| (block.user.as_str(), block.entries)).collect();
        assert_eq!(users, [("alice@example.com", 2), ("bob", 0), ("alice@example.com", 2)]);
        for (block, maildrop) in blocks.iter().zip(read(text.as_bytes()).unwrap()) {
            let start = block.offset as usize;
            let alone = &text.as_bytes()[start..start + block.len_octets as usize];
            assert!(alone.starts_with(b"uidl-keep-listing") && alone.ends_with(b"\n.\n"));
            assert_eq!(Reader::at_block(alone, block).next().unwrap().unwrap(), maildrop);
            let cut = &alone[..alone.len() - 3];
            let error = Reader::at_block(cut, block).next().unwrap().unwrap_err();
            assert_eq!(
                error.line,
                block.line + cut.iter().filter(|&&octet| octet == b'\n').count() as u64
            );
        }
    }

    #[test]
    fn nothing_is_written_that_no_reader_takes() {
        let alice = read(ALICE.as_bytes()).unwrap().remove(0);
        let keyless = Entry { uid: Some(1), ..Entry::new(Uidl::new(*b"x").unwrap()) };
        for (bad, error) in [
            (Maildrop { user: String::new(), ..alice.clone() }, "\"maildrop\" without a value"),
            (
                Maildrop { state: State::Empty, ..alice.clone() },
                "message in a maildrop of state empty",
            ),
            (
                Maildrop { state: State::Failed, remarks: vec![], ..alice.clone() },
                "state failed without",
            ),
            (
                Maildrop { remarks: vec![String::new()], ..alice.clone() },
                "\"remark\" without a value",
            ),
            (Maildrop { uidvalidity: None, ..alice.clone() }, "counter for format UID%u-%v and no"),
            (Maildrop { entries: vec![keyless.clone()], ..alice.clone() }, "message 1 has no key"),
            (
                Maildrop { source: "x".repeat(MAX_LINE_OCTETS), ..alice.clone() },
                "line of more than",
            ),
        ] {
            let refused = write_maildrop(&mut Vec::new(), &bad).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert!(refused.to_string().starts_with(error), "{refused}");
        }
    }

    #[test]
    fn a_repeated_uidl_is_taken_and_told() {
        let text = "uidl-keep-listing 1\nmaildrop a\nstate captured\n\
            1 x file=a\n2 y file=b\n3 x file=c\n4 x file=d\n.\n";
        let maildrop = read(text.as_bytes()).unwrap().remove(0);
        let repeated: Vec<_> = maildrop.repeated_uidls().iter().map(ToString::to_string).collect();
        assert_eq!(repeated, ["x"]);
    }

    fn uidl() -> impl Strategy<Value = Uidl> {
        "[!-~]{1,20}".prop_map(|text| Uidl::new(text.into_bytes()).unwrap())
    }

    fn name() -> impl Strategy<Value = Option<Name>> {
        let spelled = prop::collection::vec(any::<u8>(), 1..20);
        prop::option::of(prop_oneof![
            spelled.prop_map(|name| Name::Spelled(name.into())),
            any::<[u8; 20]>().prop_map(|octets| {
                let (cut, whole) = octets.split_at(16);
                Name::Key(FileKey {
                    cut: cut.try_into().unwrap(),
                    whole: whole.try_into().unwrap(),
                })
            }),
        ])
    }

    fn key() -> impl Strategy<Value = Option<Fingerprint>> {
        prop::option::of(any::<[u8; 16]>().prop_map(Fingerprint))
    }

    prop_compose! {
        fn entry()(
            uidl in uidl(), uid in any::<Option<u32>>(), octets in any::<Option<u64>>(),
            file in name(), guid in name(), header in key(), message in key(), origin in key(),
            otherwise in any::<[u8; 16]>(), earlier in prop::collection::vec(uidl(), 0..3),
        ) -> Entry {
            let of_message = Entry { uid, octets, file, guid, ..Entry::new(uidl) };
            let mut entry = Entry { earlier, header, message, origin, ..of_message };
            if check_entry(1, &entry).is_err() {
                entry.header = Some(Fingerprint(otherwise));
            }
            entry
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[ -~]{1,20}", any::<String>().prop_map(|text| text + "\n")]
    }

    fn capture() -> impl Strategy<Value = Capture> {
        let source = prop_oneof![text(), Just(String::new())];
        (any::<Option<u64>>(), source, any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
            |(taken, source, uidvalidity, next)| Capture { taken, source, uidvalidity, next },
        )
    }

    prop_compose! {
        fn maildrop()(
            user in text(), source in prop_oneof![text(), Just(String::new())],
            state in prop_oneof![Just(State::Captured), Just(State::Empty), Just(State::Failed)],
            uidvalidity in any::<Option<u32>>(), next in any::<Option<u32>>(),
            format in prop_oneof!["UID%u-%v", "%08Xu%08Xv", "%u", "%%%u[!-$&-~]{0,5}"],
            entries in prop::collection::vec(entry(), 0..5),
            spent in prop::collection::vec(uidl(), 0..3),
            remarks in prop::collection::vec(text(), 0..3),
            captures in prop::collection::vec(capture(), 0..4), taken in any::<Option<u64>>(),
            seen in prop::collection::vec(any::<[u32; 2]>(), 5),
        ) -> Maildrop {
            let format = UidlFormat::parse(&format).unwrap();
            let counter = next.map(|next| Counter { format, next });
            let made = Maildrop { source, uidvalidity, counter, ..Maildrop::new(user, state) };
            let mut maildrop = Maildrop { entries, spent, remarks, ..made };
            match state {
                State::Captured => {}
                State::Empty => maildrop.entries.clear(),
                State::Failed => maildrop.remarks.push("no such directory".into()),
            }
            if check_counter(&maildrop).is_err() {
                maildrop.counter = None;
            }
            maildrop.captures = captures;
            if maildrop.captures.is_empty() {
                maildrop.captures = vec![Capture::of(&maildrop, taken)];
            }
            let count = maildrop.captures.len() as u32;
            for (entry, [one, other]) in maildrop.entries.iter_mut().zip(seen) {
                let (one, other) = (one % count, other % count);
                (entry.first_capture, entry.last_capture) = (one.min(other), one.max(other));
            }
            maildrop
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(maildrops in prop::collection::vec(maildrop(), 1..4)) {
            let text: Vec<u8> = maildrops.iter().flat_map(written).collect();
            prop_assert!(text.iter().all(|octet| matches!(octet, b'\n' | b' '..=b'~')));
            let scanned = scan(text.as_slice()).collect::<Result<Vec<_>, _>>().unwrap();
            prop_assert_eq!(scanned.iter().map(|block| block.len_octets).sum::<u64>(), text.len() as u64);
            prop_assert_eq!(read(&text).unwrap(), maildrops);
        }

        #[test]
        fn what_is_cut_short_is_refused(
            before in prop::option::of(maildrop()), last in maildrop(), cut in any::<prop::sample::Index>(),
        ) {
            let mut text: Vec<u8> = before.iter().flat_map(written).collect();
            let start = text.len();
            text.extend(written(&last));
            // Between two blocks nothing shows; anywhere else it does.
            text.truncate(start + cut.index(text.len() - start));
            prop_assert_eq!(read(&text).is_err(), text.len() > start || start == 0);
        }

        #[test]
        fn no_text_panics(
            random in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(), len in 0..20_usize,
        ) {
            let _ = read(&random).map_err(|error| error.to_string());
            let mut text = ALICE.as_bytes().to_vec();
            let start = at.index(text.len());
            text.splice(start..(start + len).min(ALICE.len()), random);
            let scanned: Result<Vec<_>, _> = scan(text.as_slice()).collect();
            let scanned = scanned.map(|blocks| blocks.len()).map_err(|error| error.to_string());
            prop_assert_eq!(read(&text).map(|read| read.len()).map_err(|error| error.to_string()), scanned);
        }
    }
}
