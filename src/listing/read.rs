//! Reads a listing: [`Reader`], [`scan`] and [`outline`].
#![forbid(unsafe_code)]

use std::io::{self, BufRead};

use crate::encoding::{decimal, percent_decoded, percent_decoded_ref};
use crate::format::UidlFormat;
use crate::key::{FileKey, Fingerprint, NORMALISER_VERSION};
use crate::listing::check::{check_counter, check_entry};
use crate::listing::error::{Excerpt, ListingError, ListingFault};
use crate::listing::form::{MAGIC, MAX_LINE_OCTETS, VERSION, word_of};
use crate::maildrop::{Capture, Counter, EntryRef, Maildrop, NameRef, State};
use crate::uidl::{Uidl, UidlRef};

/// Reads a listing block by block. Nothing comes after an error.
///
/// Memory: one block, and one line of at most [`MAX_LINE_OCTETS`].
pub struct Reader<R> {
    blocks: Blocks<R>,
}

impl<R: BufRead> Reader<R> {
    /// Reads `input` from its current position.
    pub fn new(input: R) -> Self {
        Self { blocks: Blocks::new(input, Keep::All, Block { line: 1, ..Block::default() }) }
    }

    /// Reads one or more blocks of a listing, from a [`Block`] that [`scan`] found: `input` is at
    /// its `offset`. Errors then count lines from the start of the listing.
    pub fn at_block(input: R, block: &Block) -> Self {
        Self { blocks: Blocks::new(input, Keep::All, block.clone()) }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Maildrop, ListingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.blocks.next().map(|block| block.map(|(_, maildrop)| maildrop))
    }
}

/// Checks a listing as [`Reader`] does, but keeps no messages. It is for a builder who sorts more
/// blocks than fit in memory. Nothing comes after an error.
///
/// Memory: one line. Cost: as reading.
pub fn scan<R: BufRead>(input: R) -> BlockScan<R> {
    BlockScan { blocks: Blocks::new(input, Keep::HeadOnly, Block { line: 1, ..Block::default() }) }
}

/// Finds the blocks of a listing, their users and states. The lines of messages are counted. The
/// rest is not looked at: whoever reads a block from its place checks it. It is for a builder, who
/// reads each block so. Nothing comes after an error.
///
/// Memory: one line. Cost: a look for each line end.
pub fn outline<R: BufRead>(input: R) -> BlockScan<R> {
    BlockScan { blocks: Blocks::new(input, Keep::Place, Block { line: 1, ..Block::default() }) }
}

/// See [`scan`] and [`outline`].
pub struct BlockScan<R> {
    blocks: Blocks<R>,
}

impl<R: BufRead> BlockScan<R> {
    /// Each block with the fields that a maildrop has only one of. Its messages, remarks and spent
    /// UIDLs are left out.
    pub fn with_heads(self) -> impl Iterator<Item = Result<(Block, Maildrop), ListingError>> {
        self.blocks
    }
}

impl<R: BufRead> Iterator for BlockScan<R> {
    type Item = Result<Block, ListingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.blocks.next().map(|block| block.map(|(block, _)| block))
    }
}

/// The position of a block in its listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// Its user.
    pub user: String,
    /// The octet at which it begins, from 0.
    pub offset: u64,
    /// Its length up to and with its lone `.` and the line end.
    pub len_octets: u64,
    /// The line at which it begins, from 1.
    pub line: u64,
    /// The number of messages that it lists.
    pub entries: u64,
}

/// Room for a line. Most are shorter.
const LINE_ROOM_OCTETS: usize = 512;

/// The parts of a block that are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    /// The fields that a block has only one of: no messages, remarks or spent UIDLs.
    HeadOnly,
    /// User and state. Nothing else is even checked.
    Place,
}

struct Blocks<R> {
    input: R,
    keep: Keep,
    line: Vec<u8>,
    /// The number of the last line read.
    line_number: u64,
    /// The number of octets read.
    offset: u64,
    blocks_seen: u64,
    done: bool,
    /// The block that is being read, as far as it is known.
    block: Block,
    head: BlockHead,
    state: Option<State>,
    /// The order number of the last message.
    last_number: u64,
    /// The last line read is the first behind the head.
    is_line_left: bool,
}

impl<R: BufRead> Iterator for Blocks<R> {
    type Item = Result<(Block, Maildrop), ListingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.read_block() {
            Ok(Some(block)) => Some(Ok(block)),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(fault) => Some(Err(self.error(fault))),
        }
    }
}

impl<R: BufRead> Blocks<R> {
    fn new(input: R, keep: Keep, start: Block) -> Self {
        Self {
            input,
            keep,
            line: Vec::with_capacity(LINE_ROOM_OCTETS),
            line_number: start.line - 1,
            offset: start.offset,
            blocks_seen: 0,
            done: false,
            block: Block::default(),
            head: BlockHead::default(),
            state: None,
            last_number: 0,
            is_line_left: false,
        }
    }

    /// Reads the next line that is neither blank nor a comment; `None` at the end of the input.
    /// Text without a line end is no line: the input was cut short.
    fn next_line(&mut self) -> Result<Option<()>, ListingFault> {
        loop {
            self.line.clear();
            self.read_line()?;
            if self.line.is_empty() {
                return Ok(None);
            }
            self.offset += self.line.len() as u64;
            self.line_number += 1;
            let ended = self.line.last() == Some(&b'\n');
            if ended {
                self.line.pop();
            }
            if self.line.len() > MAX_LINE_OCTETS {
                return Err(ListingFault::LongLine);
            }
            let is_comment = self.line.starts_with(b"#");
            let blank = self.line.trim_ascii().is_empty();
            if !(ended || blank || is_comment) {
                // This is treated as if the input ended before it.
                return Ok(None);
            }
            if !blank && !is_comment {
                return Ok(Some(()));
            }
        }
    }

    /// Reads a line with its end, or as much of it as shows that it is too long.
    fn read_line(&mut self) -> io::Result<()> {
        // One more for the line end, and one to see that there is too much.
        const BOUND: usize = MAX_LINE_OCTETS + 2;
        loop {
            let octets = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                octets => octets?,
            };
            let octets = &octets[..octets.len().min(BOUND - self.line.len())];
            let end = memchr::memchr(b'\n', octets).map(|at| at + 1);
            let taken = end.unwrap_or(octets.len());
            self.line.extend_from_slice(&octets[..taken]);
            self.input.consume(taken);
            if taken == 0 || end.is_some() {
                return Ok(());
            }
        }
    }

    /// Reads up to the first message of the next block, or its end: the maildrop without messages.
    /// `None` at the end of the input.
    fn read_head(&mut self) -> Result<Option<Maildrop>, ListingFault> {
        if self.next_line()?.is_none() {
            // This is either the end, or the start of a line.
            return match (self.line.is_empty(), self.blocks_seen) {
                (true, 0) => Err(ListingFault::Empty),
                (true, _) => Ok(None),
                (false, _) => Err(ListingFault::CutShort { user: Excerpt::of(b"") }),
            };
        }
        self.blocks_seen += 1;
        let len_octets = self.line.len() as u64 + 1;
        self.block =
            Block { offset: self.offset - len_octets, line: self.line_number, ..Block::default() };
        match words(&self.line) {
            (magic, version) if magic == MAGIC.as_bytes() => {
                if version != VERSION.as_bytes() {
                    return Err(ListingFault::Version { found: Excerpt::of(version) });
                }
            }
            _ => return Err(ListingFault::NoBlock { found: Excerpt::of(&self.line) }),
        }

        (self.head, self.last_number) = (BlockHead::default(), 0);
        loop {
            self.next_line_of_block()?;
            let line = self.line.trim_ascii();
            if line == b"." || line[0].is_ascii_digit() {
                self.is_line_left = true;
                break;
            }
            self.head.take_line(line, self.keep, false)?;
        }
        let maildrop = self.head.finish()?;
        self.block.user.clone_from(&maildrop.user);
        self.state = Some(maildrop.state);
        Ok(Some(maildrop))
    }

    /// Reads the next message of the block; `None` at its end.
    fn read_entry(&mut self) -> Result<Option<EntryRef<'_>>, ListingFault> {
        if !self.read_line_of_entry()? {
            return Ok(None);
        }
        // No word of a message has a blank, so that one kind of them will do.
        if memchr::memchr3(b'\t', b'\r', b'\x0C', &self.line).is_some() {
            let blanks = self.line.iter_mut().filter(|octet| octet.is_ascii_whitespace());
            blanks.for_each(|octet| *octet = b' ');
        }
        let line = self.line.trim_ascii();
        let (number, entry) = entry_of(line, self.head.keys, self.head.capture_count.max(1))?;
        if number <= self.last_number {
            return Err(ListingFault::Order { found: number, before: self.last_number });
        }
        self.last_number = number;
        self.block.entries += 1;
        Ok(Some(entry))
    }

    /// Reads the line of the next message of the block; `false` at its end.
    fn read_line_of_entry(&mut self) -> Result<bool, ListingFault> {
        if !std::mem::take(&mut self.is_line_left) {
            self.next_line_of_block()?;
        }
        loop {
            match self.line.trim_ascii() {
                [b'.'] => {
                    self.block.len_octets = self.offset - self.block.offset;
                    return Ok(false);
                }
                [b'0'..=b'9', ..] if self.state == Some(State::Empty) => {
                    return Err(ListingFault::NotEmpty);
                }
                [b'0'..=b'9', ..] => return Ok(true),
                other => self.head.take_line(other, self.keep, true)?,
            }
            self.next_line_of_block()?;
        }
    }

    /// Goes to the end of the block, and counts its messages.
    fn pass_entries(&mut self) -> Result<(), ListingFault> {
        while self.read_line_of_entry()? {
            self.block.entries += 1;
            self.pass_lines_of_entries()?;
        }
        Ok(())
    }

    /// Passes over lines that begin with a digit, as far as the buffer has them whole.
    fn pass_lines_of_entries(&mut self) -> io::Result<()> {
        let octets = match self.input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            octets => octets?,
        };
        let (mut taken, mut lines) = (0, 0);
        while octets.get(taken).is_some_and(u8::is_ascii_digit) {
            match memchr::memchr(b'\n', &octets[taken..]) {
                Some(len) if len <= MAX_LINE_OCTETS => taken += len + 1,
                _ => break,
            }
            lines += 1;
        }
        self.input.consume(taken);
        self.offset += taken as u64;
        self.line_number += lines;
        self.block.entries += lines;
        Ok(())
    }

    /// The next line of a block that has begun.
    fn next_line_of_block(&mut self) -> Result<(), ListingFault> {
        self.next_line()?.ok_or_else(|| {
            let user = self.head.user.as_deref().unwrap_or_default();
            ListingFault::CutShort { user: Excerpt::of(user.as_bytes()) }
        })
    }

    fn read_block(&mut self) -> Result<Option<(Block, Maildrop)>, ListingFault> {
        let Some(mut maildrop) = self.read_head()? else { return Ok(None) };
        match self.keep {
            Keep::All => {
                while let Some(entry) = self.read_entry()? {
                    maildrop.entries.push(entry.to_entry());
                }
            }
            Keep::HeadOnly => while self.read_entry()?.is_some() {},
            Keep::Place => self.pass_entries()?,
        }
        Ok(Some((self.block.clone(), maildrop)))
    }

    /// The error of a fault in the last line that was read. Nothing comes after it.
    fn error(&mut self, fault: ListingFault) -> ListingError {
        self.done = true;
        ListingError { line: self.line_number.max(1), fault }
    }
}

/// Reads a listing message by message, and keeps none: for whoever puts each into a form of his
/// own. Nothing comes after an error.
///
/// Memory: one line, and the head of a block.
pub struct BlockReader<R> {
    blocks: Blocks<R>,
}

impl<R: BufRead> BlockReader<R> {
    /// As [`Reader::at_block`].
    pub fn at_block(input: R, block: &Block) -> Self {
        Self { blocks: Blocks::new(input, Keep::All, block.clone()) }
    }

    /// The next maildrop without its messages. Those of the one before must have been read.
    ///
    /// # Errors
    ///
    /// [`ListingError`].
    pub fn next_head(&mut self) -> Result<Option<Maildrop>, ListingError> {
        if self.blocks.done {
            return Ok(None);
        }
        self.blocks.read_head().map_err(|fault| self.blocks.error(fault))
    }

    /// The next message of that maildrop; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`ListingFault`], in the line of [`BlockReader::line`].
    pub fn next_entry(&mut self) -> Result<Option<EntryRef<'_>>, ListingFault> {
        self.blocks.read_entry()
    }

    /// The number of the last line that was read, from 1.
    pub fn line(&self) -> u64 {
        self.blocks.line_number.max(1)
    }

    /// Where the last line that was read ends, in octets from the start of the listing.
    pub fn offset(&self) -> u64 {
        self.blocks.offset
    }
}

/// The lines before the messages of a block.
#[derive(Default)]
struct BlockHead {
    user: Option<String>,
    state: Option<State>,
    source: Option<String>,
    keys: bool,
    taken: Option<u64>,
    /// The number of lines that describe a capture.
    capture_count: u32,
    captures: Vec<Capture>,
    uidvalidity: Option<u32>,
    counter: Option<Counter>,
    has_remark: bool,
    remarks: Vec<String>,
    spent: Vec<Uidl>,
}

impl BlockHead {
    fn take_line(&mut self, line: &[u8], keep: Keep, behind: bool) -> Result<(), ListingFault> {
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
        let field = field.ok_or_else(|| ListingFault::UnknownField { found: Excerpt::of(word) })?;
        if behind {
            return Err(ListingFault::Misplaced { field });
        }
        if value.is_empty() {
            return Err(ListingFault::NoValue { field });
        }
        if keep == Keep::Place && !matches!(field, "maildrop" | "state") {
            self.has_remark |= field == "remark";
            return Ok(());
        }
        match field {
            "maildrop" => once(&mut self.user, field, utf8(field, decoded_word(field, value)?)?),
            "state" => {
                let states = [State::Captured, State::Empty, State::Failed];
                let state = states.into_iter().find(|&state| word_of(state).as_bytes() == value);
                let state =
                    state.ok_or_else(|| ListingFault::State { found: Excerpt::of(value) })?;
                once(&mut self.state, field, state)
            }
            "source" => once(&mut self.source, field, decoded_text(field, value)?),
            "taken" => once(&mut self.taken, field, number_of(field, value, u64::MAX)?),
            "capture" => {
                let (number, rest) = words(value);
                let expected = self.capture_count.saturating_add(1);
                if number_of(field, number, u32::MAX.into()).ok() != Some(expected.into()) {
                    return Err(ListingFault::CaptureOrder {
                        found: Excerpt::of(number),
                        expected,
                    });
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
                    return Err(ListingFault::KeysVersion { found: Excerpt::of(value) });
                }
                if self.keys {
                    return Err(ListingFault::Twice { field });
                }
                self.keys = true;
                Ok(())
            }
            "uidvalidity" => once(&mut self.uidvalidity, field, u32_of(field, value)?),
            "counter" => {
                let (next, format) = words(value);
                let next = u32_of(field, next)?;
                if format.is_empty() {
                    return Err(ListingFault::NoValue { field });
                }
                let plain = |octet: &u8| matches!(octet, b' '..=b'~');
                let format = std::str::from_utf8(format).ok().filter(|_| format.iter().all(plain));
                let bad = || ListingFault::Encoding { field, found: Excerpt::of(value) };
                let format = UidlFormat::parse(format.ok_or_else(bad)?)?;
                once(&mut self.counter, field, Counter { format, next })
            }
            "remark" => {
                let remark = decoded_text(field, value)?;
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

    /// The maildrop without its messages. The kept parts are moved out.
    fn finish(&mut self) -> Result<Maildrop, ListingFault> {
        let mut maildrop = Maildrop {
            user: self.user.clone().ok_or(ListingFault::Missing { field: "maildrop" })?,
            state: self.state.ok_or(ListingFault::Missing { field: "state" })?,
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
            (_, Some(_)) => return Err(ListingFault::TakenBeside),
            (_, None) => {}
        }
        check_counter(&maildrop)?;
        if maildrop.state == State::Failed && !self.has_remark {
            return Err(ListingFault::NoRemark);
        }
        Ok(maildrop)
    }
}

fn once<T>(place: &mut Option<T>, field: &'static str, value: T) -> Result<(), ListingFault> {
    match place {
        Some(_) => Err(ListingFault::Twice { field }),
        None => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// The first word of a line and the rest, without the blanks between them and at the ends.
fn words(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

/// As [`words`], of a line whose only blanks are spaces.
fn spaced_words(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii_start();
    let end = memchr::memchr(b' ', line).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

fn number_of(field: &'static str, digits: &[u8], max: u64) -> Result<u64, ListingFault> {
    let bad = || ListingFault::Number { field, found: Excerpt::of(digits), max };
    decimal(digits).filter(|&number| number <= max).ok_or_else(bad)
}

fn u32_of(field: &'static str, digits: &[u8]) -> Result<u32, ListingFault> {
    number_of(field, digits, u32::MAX.into()).map(|number| number as u32)
}

/// The octets of a word.
fn decoded_word(field: &'static str, word: &[u8]) -> Result<Vec<u8>, ListingFault> {
    let bad = || ListingFault::Encoding { field, found: Excerpt::of(word) };
    percent_decoded(word).ok_or_else(bad)
}

/// The text in the rest of a line, where blanks need no encoding.
fn decoded_text(field: &'static str, text: &[u8]) -> Result<String, ListingFault> {
    // Most text has nothing that is encoded.
    let is_plain = |octet: &u8| matches!(octet, b' '..=b'~') && *octet != b'%';
    if text.iter().fold(true, |all, octet| all & is_plain(octet)) {
        return utf8(field, text.to_vec());
    }
    let mut decoded = Vec::with_capacity(text.len());
    for word in text.split(|&octet| octet == b' ') {
        let bad = || ListingFault::Encoding { field, found: Excerpt::of(text) };
        decoded.extend_from_slice(&percent_decoded_ref(word).ok_or_else(bad)?);
        decoded.push(b' ');
    }
    decoded.pop();
    utf8(field, decoded)
}

fn utf8(field: &'static str, octets: Vec<u8>) -> Result<String, ListingFault> {
    String::from_utf8(octets)
        .map_err(|not| ListingFault::NotUtf8 { field, found: Excerpt::of(not.as_bytes()) })
}

/// The capture that a line describes behind its number.
fn capture_of(line: &[u8]) -> Result<Capture, ListingFault> {
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
        source: decoded_text(field, source)?,
    })
}

/// A message's line, whose only blanks are spaces, in a block with so many captures: its order
/// number and the rest.
fn entry_of(line: &[u8], keys: bool, captures: u32) -> Result<(u64, EntryRef<'_>), ListingFault> {
    let (number, mut rest) = spaced_words(line);
    let number = number_of("order number", number, u64::MAX)?;
    let uidl;
    (uidl, rest) = spaced_words(rest);
    if uidl.is_empty() {
        return Err(ListingFault::NoUidl { number });
    }
    let mut entry = EntryRef::new(UidlRef::new(uidl)?);
    let (mut first, mut last) = (None, None);
    while !rest.is_empty() {
        let word;
        (word, rest) = spaced_words(rest);
        let unknown = || ListingFault::UnknownField { found: Excerpt::of(word) };
        let equals = memchr::memchr(b'=', word).ok_or_else(unknown)?;
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
            b"earlier" => entry.earlier.push(UidlRef::new(value)?),
            _ => return Err(unknown()),
        }
    }
    entry.first_capture = first.unwrap_or(0);
    entry.last_capture = last.unwrap_or(captures - 1);
    if entry.first_capture > entry.last_capture {
        let found = Excerpt::of((entry.first_capture + 1).to_string().as_bytes());
        return Err(ListingFault::OfCapture { field: "first", found, captures });
    }
    check_entry(number, &entry)?;
    Ok((number, entry))
}

/// The number of a capture, written from 1, returned from 0.
fn of_capture(field: &'static str, value: &[u8], captures: u32) -> Result<u32, ListingFault> {
    let number = number_of(field, value, captures.into()).ok().filter(|&number| number > 0);
    let number = number.ok_or_else(|| ListingFault::OfCapture {
        field,
        found: Excerpt::of(value),
        captures,
    })?;
    Ok(number as u32 - 1)
}

fn spelled<'a>(field: &'static str, value: &'a [u8]) -> Result<NameRef<'a>, ListingFault> {
    let bad = || ListingFault::Encoding { field, found: Excerpt::of(value) };
    percent_decoded_ref(value).map(NameRef::Spelled).ok_or_else(bad)
}

fn hashed<'a>(field: &'static str, value: &'a [u8]) -> Result<NameRef<'a>, ListingFault> {
    let bad =
        || ListingFault::Key { field, found: Excerpt::of(value), digits: 2 * FileKey::OCTETS };
    FileKey::from_hex(value).map(NameRef::Key).ok_or_else(bad)
}

fn fingerprint(field: &'static str, value: &[u8], keys: bool) -> Result<Fingerprint, ListingFault> {
    if !keys {
        return Err(ListingFault::NoKeys { field });
    }
    let bad =
        || ListingFault::Key { field, found: Excerpt::of(value), digits: 2 * Fingerprint::OCTETS };
    Fingerprint::from_hex(value).ok_or_else(bad)
}
