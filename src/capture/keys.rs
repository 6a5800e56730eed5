//! What a capture takes of each message: [`Keys`] says what, [`Prints`] is what was read.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Read};
use std::str::FromStr;

use crate::key::{Depth, Fingerprint, Fingerprinter, Fingerprints, Wants};
use crate::maildrop::Entry;

/// Which keys to take of each message.
///
/// With `header`, `message` is also taken where a header repeats within the maildrop, or has no end: only
/// then are bodies read. The size is taken of messages that were read to their end, and of file names
/// that have it in `,W=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Base file names and GUIDs.
    pub file: bool,
    /// Fingerprints of headers: reads each message up to the end of its header.
    pub header: bool,
    /// Fingerprints of messages: reads each message to its end.
    pub message: bool,
    /// Fingerprints of headers without what relays add.
    pub origin: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self { file: true, header: true, message: false, origin: false }
    }
}

impl FromStr for Keys {
    type Err = BadKeys;

    fn from_str(text: &str) -> Result<Self, BadKeys> {
        let mut keys = Self { file: false, header: false, message: false, origin: false };
        for word in text.split(',') {
            match word {
                "file" => keys.file = true,
                "header" => keys.header = true,
                "message" => keys.message = true,
                "origin" => keys.origin = true,
                _ => return Err(BadKeys { word: word.to_owned() }),
            }
        }
        Ok(keys)
    }
}

impl Keys {
    /// How much of each message to read; `None` for nothing.
    pub(super) fn depth(self) -> Option<Depth> {
        match self {
            Self { message: true, .. } => Some(Depth::Message),
            Self { header: true, .. } | Self { origin: true, .. } => Some(Depth::Header),
            _ => None,
        }
    }

    /// The entry with the fingerprints of its message, as far as they were asked for; with that of all of
    /// it where it was read to its end.
    pub(super) fn with_prints(self, entry: Entry, of: &Fingerprints) -> Entry {
        Entry {
            header: of.header.filter(|_| self.header),
            message: of.message,
            origin: of.origin.filter(|_| self.origin),
            ..entry
        }
    }
}

/// How often each header occurs in a maildrop. Where one says too little, the whole message is read.
#[derive(Debug, Default)]
pub(super) struct Headers {
    seen: HashMap<Fingerprint, u32>,
}

impl Headers {
    /// One more message, listed or not: after the move both are there.
    pub(super) fn count(&mut self, of: &Fingerprints) {
        if let Some(header) = of.header {
            *self.seen.entry(header).or_default() += 1;
        }
    }

    /// Whether its header does not name this message, which was counted: it repeats, or has no field, or
    /// no end, and then it may be cut short elsewhere.
    pub(super) fn say_little_of(&self, of: &Fingerprints) -> bool {
        !of.header_ended || of.header.is_none_or(|header| self.seen[&header] > 1)
    }
}

/// A word that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such key: {word:?}; there are file, header, message and origin")]
pub struct BadKeys {
    word: String,
}

/// What was read of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prints {
    /// How much of it was to be read.
    pub depth: Depth,
    /// The fingerprints, as deep as they were asked for.
    pub of: Fingerprints,
    /// The size with CRLF line ends; `None` unless the message was read to its end.
    pub octets: Option<u64>,
}

impl Prints {
    /// Reads `message` up to the end of its header, or to its end, as `depth` says. One pass.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn read(mut message: impl Read, depth: Depth) -> io::Result<Self> {
        let mut fingerprinter = Fingerprinter::new(depth);
        let mut buffer = [0; 16 * 1024];
        let (mut octets, mut last) = (0u64, 0u8);
        let whole = loop {
            let read = match message.read(&mut buffer) {
                Ok(0) => break true,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            octets += read.len() as u64;
            for at in memchr::memchr_iter(b'\n', read) {
                let before = at.checked_sub(1).map_or(last, |at| read[at]);
                octets += u64::from(before != b'\r');
            }
            last = read[read.len() - 1];
            if fingerprinter.update(read) == Wants::Nothing {
                break false;
            }
        };
        Ok(Self { depth, of: fingerprinter.finish(), octets: whole.then_some(octets) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_keys_that_are_named_and_no_other_word() {
        let keys: Keys = "file,header".parse().unwrap();
        assert_eq!(keys, Keys::default());
        assert!("origin".parse::<Keys>().unwrap().origin);
        assert_eq!(
            "file,heder".parse::<Keys>().unwrap_err().to_string(),
            "no such key: \"heder\"; there are file, header, message and origin"
        );
        assert!("".parse::<Keys>().is_err());
    }

    #[test]
    fn a_size_counts_every_line_end_as_two_octets_however_the_reads_fall() {
        /// Gives its octets in reads of `step`.
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let len = self.1.min(self.0.len());
                let (now, later) = self.0.split_at(len);
                buffer[..len].copy_from_slice(now);
                self.0 = later;
                Ok(len)
            }
        }
        let mixed = b"A: b\nC: d\r\n\r\nbody\n\nlast";
        for step in 1..=mixed.len() {
            let prints = Prints::read(Slow(mixed, step), Depth::Message).unwrap();
            assert_eq!(prints.octets, Some(mixed.len() as u64 + 3), "reads of {step}");
        }
        assert_eq!(Prints::read(&mixed[..], Depth::Header).unwrap().octets, None);
    }
}
