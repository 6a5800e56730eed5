//! Writes a listing: [`write_maildrop`].
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Write};

use crate::encoding::{push_hex, push_percent_encoded};
use crate::key::{Fingerprint, NORMALISER_VERSION};
use crate::listing::check::check;
use crate::listing::error::ListingFault;
use crate::listing::form::{
    MAGIC, MAX_LINE_OCTETS, VERSION, has_fingerprint, last_capture, word_of,
};
use crate::maildrop::{Capture, Counter, Maildrop, Name};

/// Writes one block.
///
/// # Errors
///
/// The errors of `out`, and [`io::ErrorKind::InvalidInput`] for a maildrop that no reader would
/// take back (a message without a key, a failed capture without a remark, a line too long). In that
/// case nothing more of it is written than was already passed on.
pub fn write_maildrop(out: &mut impl Write, maildrop: &Maildrop) -> io::Result<()> {
    check(maildrop).map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
    let mut line = LineWriter { octets: Vec::with_capacity(256) };
    line.octets.extend_from_slice(format!("{MAGIC} {VERSION}").as_bytes());
    line.end(out)?;

    line.start("maildrop");
    line.word(maildrop.user.as_bytes());
    line.end(out)?;
    line.start("state");
    line.octets.extend_from_slice(word_of(maildrop.state).as_bytes());
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

/// Writes when it was captured. For a single capture this is one line, because the block itself
/// says the rest.
fn write_captures(
    out: &mut impl Write,
    line: &mut LineWriter,
    maildrop: &Maildrop,
) -> io::Result<()> {
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

/// A line that is being written.
struct LineWriter {
    octets: Vec<u8>,
}

impl LineWriter {
    fn start(&mut self, field: &str) {
        self.octets.extend_from_slice(field.as_bytes());
        self.octets.push(b' ');
    }

    fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.octets.len() > MAX_LINE_OCTETS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, ListingFault::LongLine));
        }
        self.octets.push(b'\n');
        out.write_all(&self.octets)?;
        self.octets.clear();
        Ok(())
    }

    fn number(&mut self, number: impl fmt::Display) {
        write!(self.octets, "{number}").expect("a Vec takes all");
    }

    /// Writes a word, which has no blanks.
    fn word(&mut self, octets: &[u8]) {
        push_percent_encoded(&mut self.octets, octets);
    }

    /// Writes a text up to the end of the line. Its blanks stay readable, except those at its ends.
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
                push_hex(&mut self.octets, &key.cut);
                push_hex(&mut self.octets, &key.whole);
            }
        }
    }

    fn fingerprint(&mut self, field: &[u8], fingerprint: Option<&Fingerprint>) {
        if let Some(fingerprint) = fingerprint {
            self.octets.extend_from_slice(field);
            push_hex(&mut self.octets, &fingerprint.0);
        }
    }
}
