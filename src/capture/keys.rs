//! The keys of messages: [`Keys`] says which ones a capture takes, [`MessageRead`] holds what was
//! read of a message.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Read};
use std::str::FromStr;

use crate::key::{Depth, Fingerprint, Fingerprinter, Fingerprints, Match, Wants};
use crate::maildrop::Entry;

/// Which keys to take of each message.
///
/// With `header`, `message` is also taken where a header does not name its message
/// ([`Fingerprints::names_itself`]), repeats within the maildrop, or has no end; bodies are read
/// only then. The size comes from messages that were read to their end, and from file names that
/// have it in `,W=`.
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

impl From<Keys> for Match {
    fn from(keys: Keys) -> Self {
        let Keys { file, header, message, origin } = keys;
        Self { file, message, header, origin }
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

    /// Adds the requested fingerprints; `message` whenever the whole message was read.
    ///
    /// A header that does not name its message is no evidence by itself: where nothing else is
    /// known, the entry is left without a key.
    pub(super) fn with_prints(self, entry: Entry, of: &Fingerprints) -> Entry {
        let header = of.header.filter(|_| self.header);
        let origin = of.origin.filter(|_| self.origin);
        let is_named = entry.has_key()
            || of.message.is_some()
            || header.is_some() && of.names_itself
            || origin.is_some() && of.origin_names_itself;
        if !is_named {
            return entry;
        }
        Entry { header, message: of.message, origin, ..entry }
    }
}

/// How often each header occurs in a maildrop. The whole message is read where its header says too
/// little.
#[derive(Debug, Default)]
pub(super) struct Headers {
    seen: HashMap<Fingerprint, u32>,
}

impl Headers {
    /// Counts one more message, listed or not: both are there after the move.
    pub(super) fn count(&mut self, of: &Fingerprints) {
        if let Some(header) = of.header {
            *self.seen.entry(header).or_default() += 1;
        }
    }

    /// Whether its header is not enough to name this message, which was counted: another message
    /// has the same header or a later one may get it, or the header has no end and may be cut short
    /// elsewhere.
    pub(super) fn say_little_of(&self, of: &Fingerprints) -> bool {
        let is_once = |header| self.seen[&header] == 1;
        !of.header_ended || !of.names_itself || !of.header.is_some_and(is_once)
    }
}

/// A word that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such key: {word:?}; there are file, header, message and origin")]
pub struct BadKeys {
    word: String,
}

/// One message, read as far as its keys need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRead {
    /// How much of it was to be read.
    pub depth: Depth,
    /// The fingerprints, as deep as they were asked for.
    pub of: Fingerprints,
    /// The size with CRLF line ends; `None` unless the message was read to its end.
    pub octets: Option<u64>,
    /// How the file is packed, where it is not the message itself. Nothing is known of the message
    /// then.
    pub packed: Option<Packed>,
}

/// How Dovecot's `zlib` and `mail_crypt` store a message. Clients get the unpacked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    /// Compressed.
    Compressed,
    /// Encrypted.
    Encrypted,
}

impl Packed {
    /// The most octets at the start of a file that it takes to tell.
    const OCTETS: usize = 15;

    /// Tells how a file is packed by its first octets; `None` for mail. The formats are those that
    /// Dovecot tells from mail by their first octets (`compression.c`, `istream-decrypt.c`); none
    /// of them starts like a header.
    fn of(start: &[u8]) -> Option<Self> {
        const COMPRESSED: [&[u8]; 4] =
            [b"\x1f\x8b", b"\xfd7zXZ\0", b"Dovecot-LZ4\x0d\x2a\x9b\xc5", b"\x28\xb5\x2f\xfd"];
        if start.starts_with(b"CRYPTED\x03\x07") {
            return Some(Self::Encrypted);
        }
        // Compressed text follows the level, which is a digit: that tells it from a header field.
        let is_bzip2 =
            start.starts_with(b"BZh") && start.get(4..).is_some_and(|m| m.starts_with(b"1AY&SY"));
        let is_compressed = is_bzip2 || COMPRESSED.iter().any(|magic| start.starts_with(magic));
        is_compressed.then_some(Self::Compressed)
    }
}

impl MessageRead {
    /// Reads `message` up to the end of its header, or to its end, as `depth` says. One pass.
    ///
    /// # Errors
    ///
    /// Errors of reading `message`.
    pub fn read(message: impl Read, depth: Depth) -> io::Result<Self> {
        Self::read_by(Fingerprinter::new(depth), message, depth)
    }

    /// The same, where no other fingerprints are asked for than those of `keys`.
    pub(super) fn read_for(keys: Keys, message: impl Read, depth: Depth) -> io::Result<Self> {
        let all = Fingerprinter::new(depth);
        Self::read_by(if keys.origin { all } else { all.without_origin() }, message, depth)
    }

    fn read_by(
        mut fingerprinter: Fingerprinter,
        mut message: impl Read,
        depth: Depth,
    ) -> io::Result<Self> {
        // Most headers fit.
        let mut buffer = [0; 8 * 1024];
        let (mut octets, mut last) = (0u64, 0u8);
        let mut start = Vec::with_capacity(Packed::OCTETS);
        let whole = loop {
            let read = match message.read(&mut buffer) {
                Ok(0) => break true,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if start.len() < Packed::OCTETS {
                start.extend(read.iter().take(Packed::OCTETS - start.len()));
                let packed = Packed::of(&start);
                if packed.is_some() {
                    let of = Fingerprinter::new(Depth::Header).finish();
                    return Ok(Self { depth: Depth::Message, of, octets: None, packed });
                }
            }
            if fingerprinter.update(read) == Wants::Nothing {
                break false;
            }
            octets += read.len() as u64;
            for at in memchr::memchr_iter(b'\n', read) {
                let before = at.checked_sub(1).map_or(last, |at| read[at]);
                octets += u64::from(before != b'\r');
            }
            last = read[read.len() - 1];
        };
        let octets = whole.then_some(octets);
        Ok(Self { depth, of: fingerprinter.finish(), octets, packed: None })
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
            let prints = MessageRead::read(Slow(mixed, step), Depth::Message).unwrap();
            assert_eq!(prints.octets, Some(mixed.len() as u64 + 3), "reads of {step}");
        }
        assert_eq!(MessageRead::read(&mixed[..], Depth::Header).unwrap().octets, None);
    }

    #[test]
    fn what_is_packed_is_told_from_mail() {
        for (file, packed) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], Some(Packed::Compressed)),
            (b"BZh91AY&SY\0", Some(Packed::Compressed)),
            (b"\xfd7zXZ\0\0", Some(Packed::Compressed)),
            (b"Dovecot-LZ4\x0d\x2a\x9b\xc5\0", Some(Packed::Compressed)),
            (b"\x28\xb5\x2f\xfd\x04", Some(Packed::Compressed)),
            (b"CRYPTED\x03\x07\0", Some(Packed::Encrypted)),
            (b"BZh: a\n\nb", None),
            (b"BZh91: a\n\nb", None),
            (b"Dovecot-LZ4: a\n\nb", None),
            (b"CRYPTED: a\n\nb", None),
            (b"a: b\n\n\x1f\x8b", None),
            (b"\x1f", None),
            (b"", None),
        ] {
            for depth in [Depth::Header, Depth::Message] {
                let prints = MessageRead::read(file, depth).unwrap();
                assert_eq!(prints.packed, packed, "{file:?}");
                let is_known = prints.octets.is_some() || prints.of.message.is_some();
                assert!(packed.is_none() || !is_known, "{file:?}");
            }
        }
    }

    #[test]
    fn a_header_that_does_not_name_its_message_is_no_key_by_itself() {
        let entry = || Entry::new(crate::uidl::Uidl::new(b"1".to_vec()).unwrap());
        let keys = Keys { origin: true, ..Keys::default() };
        let of = |message: &[u8], depth| MessageRead::read(message, depth).unwrap().of;
        let warning = b"From: a\nSubject: 80 % full\n\nDelete something.\n";
        assert!(!keys.with_prints(entry(), &of(warning, Depth::Header)).has_key());
        let whole = keys.with_prints(entry(), &of(warning, Depth::Message));
        assert!(whole.header.is_some() && whole.message.is_some() && whole.origin.is_some());
        let named =
            Entry { file: Some(crate::maildrop::Name::Spelled((*b"1.2.h").into())), ..entry() };
        assert!(keys.with_prints(named, &of(warning, Depth::Header)).header.is_some());
        let received = b"Received: by x; 6 May\nSubject: y\n\n";
        assert!(keys.with_prints(entry(), &of(received, Depth::Header)).header.is_some());
        let origin = Keys { header: false, ..keys };
        assert!(!origin.with_prints(entry(), &of(received, Depth::Header)).has_key());
        let sent = b"Message-ID: <x>\nDate: 6 May\n\n";
        assert!(origin.with_prints(entry(), &of(sent, Depth::Header)).origin.is_some());
    }

    #[test]
    fn a_key_that_nobody_asks_for_is_not_made_and_no_other_is_another() {
        let entry = || Entry::new(crate::uidl::Uidl::new(b"1".to_vec()).unwrap());
        for message in [
            &b"From: a\nSubject: 80 % full\n\nDelete something.\n"[..],
            b"Received: by x; 6 May\nSubject: y\n\n",
            b"Message-ID: <x>\nDate: 6 May\n\nbody\n",
        ] {
            for (depth, origin) in
                [Depth::Header, Depth::Message].map(|it| [(it, false), (it, true)]).as_flattened()
            {
                let keys = Keys { origin: *origin, ..Keys::default() };
                let asked = MessageRead::read_for(keys, message, *depth).unwrap();
                let all = MessageRead::read(message, *depth).unwrap();
                assert_eq!(asked.of.origin, all.of.origin.filter(|_| keys.origin));
                assert_eq!(asked.octets, all.octets);
                let keyed = |of| keys.with_prints(entry(), of);
                assert_eq!(keyed(&asked.of), keyed(&all.of));
            }
        }
    }

    #[test]
    fn a_header_says_little_that_another_message_has_or_may_have() {
        let of = |message: &[u8]| MessageRead::read(message, Depth::Header).unwrap().of;
        let named = of(b"Received: by x; 6 May\nSubject: y\n\n");
        let twin = of(b"Received: by x; 7 May\nSubject: y\n\n");
        let endless = of(b"Received: by x; 8 May\nSubject: y\n");
        let nameless = of(b"Subject: y\n\n");
        let mut headers = Headers::default();
        for of in [&named, &twin, &twin, &endless, &nameless] {
            headers.count(of);
        }
        assert!(!headers.say_little_of(&named));
        for of in [&twin, &endless, &nameless, &of(b"\nbody")] {
            assert!(headers.say_little_of(of), "{of:?}");
        }
    }
}
