//! An mbox, split into its messages as a server splits it.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use crate::capture::disk::mbox::digest::{DigestOf, HeaderDigest};
use crate::capture::disk::mbox::from_line::{Before, FromLine};
use crate::encoding::decimal;
use crate::key::{Depth, Fingerprinter, Fingerprints};

/// How a server reads an mbox.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Where a message begins.
    pub from_line: FromLine,
    /// Where its header ends.
    pub header_end: HeaderEnd,
    /// Whether a `Content-Length` is heeded where a message begins behind it.
    pub heeds_content_length: bool,
    /// Whether a `>` before `From ` and further `>` is taken away.
    pub unquotes: bool,
    /// Whether a line of a header that begins with `From ` is given as a field, `From : ` and what
    /// follows: mailutils, which also writes it so when it writes the header anew, and then gives
    /// that one as `From : : `.
    pub gives_from_as_field: bool,
    /// Which digest to compute of each header.
    pub digest: Option<DigestOf>,
}

/// The line that ends a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderEnd {
    /// An empty one, whether lines end with LF or CR LF.
    Empty,
    /// A lone LF: one of CR LF is a line of the header, and fields of the body are taken for the
    /// header's until a lone LF comes.
    BareLf,
}

impl HeaderEnd {
    fn is_at(self, line: &[u8]) -> bool {
        line == b"\n" || self == Self::Empty && line == b"\r\n"
    }
}

/// A field that a server, or a program beside it, wrote into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MboxField {
    /// `X-UIDL`
    Uidl,
    /// `X-UID`
    Uid,
    /// `X-IMAPbase`
    ImapBase,
    /// `X-IMAP`
    Imap,
    /// `Status`
    Status,
    /// `Subject`
    Subject,
    /// `From`
    From,
    /// `Content-Length`
    ContentLength,
}

const FIELDS: [(&[u8], MboxField); 8] = [
    (b"X-UIDL", MboxField::Uidl),
    (b"X-UID", MboxField::Uid),
    (b"X-IMAPbase", MboxField::ImapBase),
    (b"X-IMAP", MboxField::Imap),
    (b"Status", MboxField::Status),
    (b"Subject", MboxField::Subject),
    (b"From", MboxField::From),
    (b"Content-Length", MboxField::ContentLength),
];

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MboxMessage {
    /// The values of the fields that matter, in their order: unfolded, without the blanks before
    /// them.
    pub fields: Vec<(MboxField, Box<[u8]>)>,
    /// The digest that the rules ask for; `None` also when the header has nothing that goes into
    /// it.
    pub digest: Option<[u8; 16]>,
    /// Whether it has more fields of one name than are looked at.
    pub has_more: bool,
    /// The fingerprints of the whole message.
    pub of: Fingerprints,
}

impl MboxMessage {
    /// The values of a field.
    pub fn values(&self, of: MboxField) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |(field, _)| *field == of).map(|(_, value)| &value[..])
    }

    /// Whether its `Status` says that somebody has seen it.
    pub fn is_seen(&self) -> bool {
        self.values(MboxField::Status).any(|value| value.contains(&b'R') || value.contains(&b'O'))
    }
}

/// Why a file is no mbox that can be captured.
#[derive(Debug, thiserror::Error)]
pub enum Unsplit {
    /// It does not begin with a message.
    #[error("it does not begin with a From line, so this server would refuse it")]
    NoMbox,
    /// The server lets nobody in.
    #[error(
        "it has two From lines with nothing between them, at which this server refuses the mbox"
    )]
    Refused,
    /// More messages than anybody has.
    #[error("it has more than {MOST_MESSAGES} messages")]
    TooMany,
    /// It could not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The most messages that are taken from a file: a message may have no more than six octets.
pub const MOST_MESSAGES: usize = 1 << 20;

/// The longest piece of a line that is looked at, in octets.
const PIECE_OCTETS: u64 = 64 << 10;

/// How much is kept of a value, in octets: more than a UIDL can have.
const VALUE_OCTETS: usize = 2048;

/// How many fields of one name are kept of a message. Each name has its own: whoever writes a
/// message can repeat a `Subject` as often as he likes, and the server writes its `X-UID` behind.
pub const MOST_OF_A_NAME: usize = 1024;

/// Splits an mbox. One pass; a seek to the end of a message that has a `Content-Length`, where that
/// is heeded.
///
/// # Errors
///
/// [`Unsplit`].
pub fn split(file: impl Read + Seek, rules: Rules) -> Result<Vec<MboxMessage>, Unsplit> {
    let mut file = BufReader::with_capacity(PIECE_OCTETS as usize, file);
    let mut messages: Vec<MboxMessage> = Vec::new();
    let mut open: Option<OpenMessage> = None;
    let mut before =
        Before { is_start: true, is_from_line: false, is_blank: false, is_in_body: false };
    let mut piece = Vec::new();
    let mut offset = 0;
    let mut starts_line = true;
    loop {
        piece.clear();
        file.by_ref().take(PIECE_OCTETS).read_until(b'\n', &mut piece)?;
        if piece.is_empty() {
            break;
        }
        let is_free = open.as_ref().is_none_or(|open| offset > open.content_end);
        if starts_line && rules.from_line.refuses(&piece, before) {
            return Err(Unsplit::Refused);
        }
        if starts_line && is_free && rules.from_line.begins_at(&piece, before) {
            messages.extend(open.take().map(OpenMessage::close));
            if messages.len() == MOST_MESSAGES {
                return Err(Unsplit::TooMany);
            }
            open = Some(OpenMessage::new(rules));
            before = Before {
                is_start: false,
                is_from_line: piece.ends_with(b"\n"),
                is_blank: false,
                is_in_body: false,
            };
        } else {
            let open = open.as_mut().ok_or(Unsplit::NoMbox)?;
            let was_in_body = open.is_in_body;
            open.update(&piece, starts_line);
            if open.is_in_body && !was_in_body && rules.heeds_content_length {
                open.heed_content_length(&mut file, offset + piece.len() as u64, rules)?;
            }
            let is_blank = starts_line && piece == b"\n";
            before =
                Before { is_start: false, is_from_line: false, is_blank, is_in_body: was_in_body };
        }
        offset += piece.len() as u64;
        starts_line = piece.ends_with(b"\n");
    }
    messages.extend(open.take().map(OpenMessage::close));
    Ok(messages)
}

/// A message that is being read.
struct OpenMessage {
    fields: Vec<(MboxField, Vec<u8>)>,
    header_end: HeaderEnd,
    /// How many fields of each name it has.
    counts: [usize; FIELDS.len()],
    has_more: bool,
    /// Whether the field that is being read is the last of `fields`.
    is_kept: bool,
    is_in_body: bool,
    /// Where its body ends by its `Content-Length`; 0 where that says nothing.
    content_end: u64,
    unquotes: bool,
    gives_from_as_field: bool,
    digest: Option<HeaderDigest>,
    fingerprinter: Fingerprinter,
}

impl OpenMessage {
    fn new(rules: Rules) -> Self {
        Self {
            fields: Vec::new(),
            header_end: rules.header_end,
            counts: [0; FIELDS.len()],
            has_more: false,
            is_kept: false,
            is_in_body: false,
            content_end: 0,
            unquotes: rules.unquotes,
            gives_from_as_field: rules.gives_from_as_field,
            digest: rules.digest.map(HeaderDigest::new),
            fingerprinter: Fingerprinter::new(Depth::Message),
        }
    }

    fn update(&mut self, piece: &[u8], starts_line: bool) {
        if self.is_in_body {
            let is_quoted = self.unquotes && starts_line && is_quoted_from(piece);
            self.fingerprinter.update(&piece[usize::from(is_quoted)..]);
            return;
        }
        match piece.strip_prefix(b"From ") {
            Some(rest) if starts_line && self.gives_from_as_field => {
                self.fingerprinter.update(b"From : ");
                self.fingerprinter.update(rest);
            }
            _ => {
                self.fingerprinter.update(piece);
            }
        }
        if starts_line && self.header_end.is_at(piece) {
            self.is_in_body = true;
            return;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(piece, starts_line);
        }
        if starts_line && !piece.starts_with(b" ") && !piece.starts_with(b"\t") {
            self.begin_field(piece);
        } else if self.is_kept {
            self.extend_value(piece);
        }
    }

    fn begin_field(&mut self, line: &[u8]) {
        self.is_kept = false;
        let Some(colon) = memchr::memchr(b':', line) else { return };
        let name = line[..colon].trim_ascii_end();
        let Some(known) = FIELDS.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))
        else {
            return;
        };
        let count = &mut self.counts[known];
        *count += 1;
        if *count > MOST_OF_A_NAME {
            self.has_more = true;
            return;
        }
        self.fields.push((FIELDS[known].1, Vec::new()));
        self.is_kept = true;
        self.extend_value(line[colon + 1..].trim_ascii_start());
    }

    /// More of a value, without the end of its line.
    fn extend_value(&mut self, piece: &[u8]) {
        let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
        let piece = piece.strip_suffix(b"\r").unwrap_or(piece);
        if let Some((_, value)) = self.fields.last_mut() {
            let room = VALUE_OCTETS.saturating_sub(value.len());
            value.extend(&piece[..piece.len().min(room)]);
        }
    }

    /// Takes the body to be as long as `Content-Length` says, if the next message or the end of the
    /// file is there. Reads a line, and leaves the file where it was.
    fn heed_content_length<R: Read + Seek>(
        &mut self,
        file: &mut BufReader<R>,
        body: u64,
        rules: Rules,
    ) -> io::Result<()> {
        let value = self.fields.iter().find(|(field, _)| *field == MboxField::ContentLength);
        let Some(end) = value.and_then(|(_, value)| body.checked_add(number(value)?)) else {
            return Ok(());
        };
        let mut there = Vec::new();
        file.seek(SeekFrom::Start(end))?;
        file.by_ref().take(PIECE_OCTETS).read_until(b'\n', &mut there)?;
        let is_line_end = matches!(&there[..], b"\n" | b"\r\n");
        there.clear();
        file.by_ref().take(PIECE_OCTETS).read_until(b'\n', &mut there)?;
        let before =
            Before { is_start: false, is_from_line: false, is_blank: true, is_in_body: true };
        if is_line_end && (there.is_empty() || rules.from_line.begins_at(&there, before)) {
            self.content_end = end;
        }
        file.seek(SeekFrom::Start(body)).map(drop)
    }

    fn close(self) -> MboxMessage {
        let fields = self.fields.into_iter();
        MboxMessage {
            fields: fields.map(|(field, value)| (field, value.trim_ascii().into())).collect(),
            digest: self.digest.and_then(HeaderDigest::finish),
            has_more: self.has_more,
            of: self.fingerprinter.finish(),
        }
    }
}

/// Whether a line is `From `, quoted.
fn is_quoted_from(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|&&octet| octet == b'>').count();
    quotes > 0 && line[quotes..].starts_with(b"From ")
}

/// A decimal number with blanks behind it.
pub fn number(value: &[u8]) -> Option<u64> {
    decimal(value.trim_ascii_end())
}
