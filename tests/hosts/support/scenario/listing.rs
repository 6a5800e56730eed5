//! The listing of an old server, written by hand.

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use uidl_keep::key::{Depth, Fingerprinter, Fingerprints, NORMALISER_VERSION};

use super::{UIDVALIDITY, USER};
use crate::support::mail::Message;

/// A listing of the old server, made by hand.
#[derive(Debug, Clone)]
pub struct Listing {
    state: &'static str,
    fields: String,
    messages: String,
    count: u32,
}

impl Listing {
    /// The listing of a maildrop that has no messages yet.
    pub fn new() -> Self {
        let fields = format!("uidvalidity {UIDVALIDITY}\n");
        Self { state: "captured", fields, messages: String::new(), count: 0 }
    }

    /// Adds one more field.
    pub fn field(mut self, line: &str) -> Self {
        let _ = writeln!(self.fields, "{line}");
        self
    }

    /// Adds one more message.
    pub fn message(mut self, uidl: &str, keys: &str) -> Self {
        self.count += 1;
        let _ = writeln!(self.messages, "{} {uidl} {keys}", self.count);
        self
    }

    /// The listing of these files; `UID1-17` is the first by name.
    pub fn of_files(files: &[PathBuf]) -> Self {
        (1..).zip(files).fold(Self::new(), |listing, (number, file)| {
            listing.message(&uidl(number), &by_file(file))
        })
    }

    /// The listing of these messages, by the whole of each and by nothing else.
    pub fn of_contents(messages: &[Message]) -> Self {
        (1..).zip(messages).fold(Self::new(), |listing, (number, message)| {
            listing.message(&uidl(number), &by_content(message))
        })
    }

    /// The listing of a maildrop that could not be captured.
    pub fn failed(why: &str) -> Self {
        Self { state: "failed", ..Self::new() }.field(&format!("remark {why}"))
    }

    /// The text as the helper reads it.
    pub fn text(&self) -> String {
        format!(
            "uidl-keep-listing 1\nmaildrop {USER}\nstate {}\nkeys {NORMALISER_VERSION}\n{}{}.\n",
            self.state, self.fields, self.messages
        )
    }
}

/// The UIDL that the old server gave the message with that number.
pub fn uidl(number: u32) -> String {
    format!("UID{number}-{UIDVALIDITY}")
}

/// The UIDLs of several.
pub fn uidl_of(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(uidl).collect()
}

/// A file's base name.
pub fn base(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap().split(':').next().unwrap()
}

/// The key of a capture that saw the file.
pub fn by_file(file: &Path) -> String {
    format!("file={}", base(file))
}

/// The key of a capture that saw the header, as TOP gives it.
pub fn header_of(message: &Message) -> String {
    format!("header={}", fingerprints(message).header.unwrap())
}

/// The same with the size that LIST says.
pub fn by_header(message: &Message) -> String {
    format!("{} octets={}", header_of(message), message.on_the_wire().len())
}

/// The key of a capture that saw the whole, alone.
fn by_content(message: &Message) -> String {
    format!("message={}", fingerprints(message).message.unwrap())
}

/// The keys of a capture that also saw the body.
pub fn by_message(message: &Message) -> String {
    format!("{} {}", by_header(message), by_content(message))
}

fn fingerprints(message: &Message) -> Fingerprints {
    let mut printer = Fingerprinter::new(Depth::Message);
    printer.update(&message.on_the_wire());
    printer.finish()
}

/// Lines of messages that were captured with the headers of new mail, and were far larger. Nothing
/// but the sizes tells that new mail is none of them.
pub fn larger_than_new_mail(numbers: RangeInclusive<u32>) -> String {
    let line = |number: u32| {
        let header = header_of(&Message::plain(number));
        format!("{number} {} {header} octets=9999999\n", uidl(number))
    };
    numbers.map(line).collect()
}

/// The same header over another body.
pub fn with_body(message: &Message, body: &str) -> Message {
    let text = std::str::from_utf8(&message.octets).expect("ASCII");
    let (header, _) = text.split_once("\n\n").expect("a header and a body");
    Message { octets: format!("{header}\n\n{body}\n").into_bytes() }
}

/// A `dovecot-uidlist` that counts these files from 1 under that UIDVALIDITY.
pub fn uidlist(uidvalidity: u32, files: &[PathBuf]) -> String {
    let next = files.len() + 1;
    let header = format!("3 V{uidvalidity} N{next} G0123456789abcdef0123456789abcdef\n");
    (1..).zip(files).fold(header, |list, (uid, file)| list + &format!("{uid} :{}\n", base(file)))
}
