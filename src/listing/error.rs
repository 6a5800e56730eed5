//! Faults of a listing, for the operator who reads about them: [`ListingError`].
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use crate::format::{BadFormat, UidlFormat};
use crate::key::NORMALISER_VERSION;
use crate::listing::form::{MAGIC, MAX_LINE_OCTETS, VERSION};
use crate::text::printable_up_to;
use crate::uidl::{BadUidl, Uidl};

/// A fault of a listing, with its line. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {fault}")]
pub struct ListingError {
    /// The line, from 1. When the end comes too early, the last line there is.
    pub line: u64,
    /// The fault.
    pub fault: ListingFault,
}

/// A fault of a listing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListingFault {
    /// It could not be read.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// It ended before the first block.
    #[error("no maildrop in this listing; capture again")]
    Empty,
    /// It ended within a block.
    #[error(
        "no \".\" line at the end of maildrop {user}: the listing was cut short; capture again, or \
         end the block with \".\""
    )]
    CutShort {
        /// The user of the block.
        user: Excerpt,
    },
    /// A block must begin here and does not.
    #[error("found {found} where a block must begin with \"{MAGIC} {VERSION}\"")]
    NoBlock {
        /// The text found.
        found: Excerpt,
    },
    /// It has a version that is not known here.
    #[error(
        "listing of version {found}, and only version {VERSION} is known; use the uidl-keep that \
         wrote it"
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
    /// A field that may appear only once.
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
    /// A field after the first message, where it must not be.
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
        /// The text found.
        found: Excerpt,
    },
    /// Not a number, or one too large.
    #[error("bad number {found} for \"{field}\"; it wants digits only, up to {max}")]
    Number {
        /// The field.
        field: &'static str,
        /// The text found.
        found: Excerpt,
        /// The largest number allowed.
        max: u64,
    },
    /// Order numbers must increase.
    #[error(
        "message {found} behind message {before}; list messages in their old order, numbered \
         upwards from 1"
    )]
    Order {
        /// The number.
        found: u64,
        /// The number before it, 0 when there is none.
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
    /// Not a format that we can follow.
    #[error("{0}")]
    Format(#[from] BadFormat),
    /// A counter for a format that does not count.
    #[error("counter for format {format}, which has no %u; leave the line out")]
    NotCounting {
        /// The format.
        format: UidlFormat,
    },
    /// A counter without the UIDVALIDITY that its format contains.
    #[error("counter for format {format} and no \"uidvalidity\" line; add it")]
    NoUidvalidity {
        /// The format.
        format: UidlFormat,
    },
    /// An octet that must be percent-encoded, or a `%` that encodes nothing.
    #[error(
        "bad encoding in {found} for \"{field}\"; write % and all octets outside 0x21-0x7e as % \
         and two hexadecimal digits"
    )]
    Encoding {
        /// The field.
        field: &'static str,
        /// The text found.
        found: Excerpt,
    },
    /// A text that is not UTF-8.
    #[error("\"{field}\" is not UTF-8: {found}; Dovecot knows users by UTF-8 names")]
    NotUtf8 {
        /// The field.
        field: &'static str,
        /// The text found.
        found: Excerpt,
    },
    /// A capture out of its order.
    #[error(
        "capture {found} where capture {expected} must stand; number them from 1, oldest first"
    )]
    CaptureOrder {
        /// The text found.
        found: Excerpt,
        /// The number that must be here.
        expected: u32,
    },
    /// A time of capture in a block whose captures have their own times.
    #[error("\"taken\" beside \"capture\" lines, each of which says when; leave it out")]
    TakenBeside,
    /// A message of a capture that is not there.
    #[error(
        "bad number {found} for \"{field}\"; it wants one of the captures, 1 to {captures}, and \
         the last not before the first"
    )]
    OfCapture {
        /// The field.
        field: &'static str,
        /// The text found.
        found: Excerpt,
        /// The number of captures.
        captures: u32,
    },
    /// Not the digits of a key.
    #[error("bad key {found} for \"{field}\"; it wants {digits} hexadecimal digits")]
    Key {
        /// The field.
        field: &'static str,
        /// The text found.
        found: Excerpt,
        /// The number of digits that it wants.
        digits: usize,
    },
    /// Fingerprints that were made by other rules than ours.
    #[error(
        "keys of version {found}, and only version {NORMALISER_VERSION} can be compared; capture \
         again with this uidl-keep"
    )]
    KeysVersion {
        /// Their version.
        found: Excerpt,
    },
    /// A fingerprint without the version of the rules that made it.
    #[error(
        "\"{field}\" in a block without a \"keys\" line; add \"keys {NORMALISER_VERSION}\" if \
         uidl-keep made it, else leave it out"
    )]
    NoKeys {
        /// The field.
        field: &'static str,
    },
    /// A message without a key.
    #[error(
        "message {number} has no key (file, guid, header, message, origin): it can never be found; \
         write it as \"spent {uidl}\""
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
    /// A failed capture without a reason.
    #[error("state failed without a \"remark\" line; add one that says why")]
    NoRemark,
}

/// An excerpt from a listing for a message to the operator: escaped, and cut when long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt(Box<[u8]>);

impl Excerpt {
    const MAX_OCTETS: usize = 60;

    pub(super) fn of(octets: &[u8]) -> Self {
        Self(octets[..octets.len().min(Self::MAX_OCTETS + 1)].into())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", printable_up_to(&self.0, Self::MAX_OCTETS))
    }
}
