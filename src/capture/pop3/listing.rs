//! UIDL and LIST: what a maildrop holds, as its server tells its clients.
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use crate::capture::pop3::fault::Fault;
use crate::capture::pop3::session::{Reply, Session};
use crate::encoding::decimal;
use crate::text::printable;

/// The longest listing that is read, in octets: some two million messages.
const MAX_LISTING_OCTETS: u64 = 256 << 20;

/// How often UIDL and LIST are asked for until they speak of the same messages.
const TRIES: u32 = 3;

/// A listing, by message-number.
pub(super) type Numbered<T> = Vec<(u32, T)>;

/// One message, as UIDL and LIST tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number in this session.
    pub number: u32,
    /// Its unique-id without the blanks behind it, whatever else is in it.
    pub uidl: Box<[u8]>,
    /// Its size in octets, as this server counts: few count what they send.
    pub octets: u64,
}

/// Lists the maildrop by message-number. Asks for UIDL and LIST, and for nothing else.
///
/// Memory: all of it, some hundred octets a message.
///
/// # Errors
///
/// [`Fault::NoUidl`]; [`Fault::Changing`] where the two never name the same messages;
/// [`Fault::Unlike`] where they differ in the same way each time; [`Fault::Garbled`] where a line
/// makes no sense; and the faults of every command.
pub fn listing<S: Read + Write>(session: &mut Session<S>) -> Result<Vec<Listed>, Fault> {
    let (mut last, mut is_always_same) = (None, true);
    for _ in 0..TRIES {
        let together = session.capabilities().pipelining;
        session.send(if together { b"UIDL\r\nLIST\r\n" } else { b"UIDL\r\n" }, "UIDL")?;
        let uidls = read_uidls(session)?;
        if !together {
            session.send(b"LIST\r\n", "LIST")?;
        }
        let sizes = read_sizes(session)?;
        let numbers = (numbers_of(&uidls), numbers_of(&sizes));
        if numbers.0 == numbers.1 {
            let listed = uidls.into_iter().zip(sizes);
            return Ok(listed
                .map(|((number, uidl), (_, octets))| Listed { number, uidl, octets })
                .collect());
        }
        is_always_same &= last.is_none_or(|last| last == numbers);
        last = Some(numbers);
    }
    let changing = Fault::Changing { tries: TRIES };
    Err(last
        .filter(|_| is_always_same)
        .and_then(|(uidl, list)| unlike(&uidl, &list))
        .unwrap_or(changing))
}

fn numbers_of<T>(listed: &Numbered<T>) -> Vec<u32> {
    listed.iter().map(|(number, _)| *number).collect()
}

/// The fault of two listings that differ, by the first message that only one of them has.
fn unlike(uidl: &[u32], list: &[u32]) -> Option<Fault> {
    let is_in = |numbers: &[u32], number: &u32| numbers.binary_search(number).is_ok();
    let only_list = list.iter().find(|number| !is_in(uidl, number));
    let only_uidl = uidl.iter().find(|number| !is_in(list, number));
    let (&number, lacking) = match (only_list, only_uidl) {
        (Some(number), _) => (number, "UIDL"),
        (None, number) => (number?, "LIST"),
    };
    Some(Fault::Unlike { uidl: uidl.len(), list: list.len(), number, lacking, tries: TRIES })
}

/// Message-numbers and unique-ids, by number.
pub(super) fn uidls<S: Read + Write>(
    session: &mut Session<S>,
) -> Result<Numbered<Box<[u8]>>, Fault> {
    session.send(b"UIDL\r\n", "UIDL")?;
    read_uidls(session)
}

fn read_uidls<S: Read + Write>(session: &mut Session<S>) -> Result<Numbered<Box<[u8]>>, Fault> {
    match session.reply("UIDL")? {
        Reply::Ok => read_numbered(session, "UIDL", |rest| Some(rest.into())),
        Reply::Refused(refusal) if refusal.is_temporary() => {
            Err(Fault::Refused { command: "UIDL", refusal })
        }
        Reply::Refused(refusal) => Err(Fault::NoUidl(refusal)),
        Reply::More => Err(Fault::Garbled { command: "UIDL", said: "+".into() }),
    }
}

fn read_sizes<S: Read + Write>(session: &mut Session<S>) -> Result<Numbered<u64>, Fault> {
    match session.reply("LIST")? {
        Reply::Ok => read_numbered(session, "LIST", |rest| {
            let digits = rest.split(u8::is_ascii_whitespace).next()?;
            decimal(digits)
        }),
        Reply::Refused(refusal) => Err(Fault::Refused { command: "LIST", refusal }),
        Reply::More => Err(Fault::Garbled { command: "LIST", said: "+".into() }),
    }
}

/// Reads lines of a message-number and something, by number. A number that stands there twice is an
/// error.
fn read_numbered<S: Read + Write, T>(
    session: &mut Session<S>,
    command: &'static str,
    value: impl Fn(&[u8]) -> Option<T>,
) -> Result<Numbered<T>, Fault> {
    let (mut listed, mut odd) = (Vec::new(), None);
    session.lines(command, MAX_LISTING_OCTETS, |line| match numbered(line) {
        Some((number, rest)) => match value(rest) {
            Some(value) => listed.push((number, value)),
            None => odd = odd.take().or_else(|| Some(printable(line))),
        },
        None => odd = odd.take().or_else(|| Some(printable(line))),
    })?;
    listed.sort_by_key(|(number, _)| *number);
    if let Some(pair) = listed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        odd = odd.or_else(|| Some(format!("message {} twice", pair[0].0)));
    }
    match odd {
        None => Ok(listed),
        Some(said) => Err(Fault::Garbled { command, said }),
    }
}

/// A message-number, and what comes after it without the blanks around it.
fn numbered(line: &[u8]) -> Option<(u32, &[u8])> {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let number = decimal(&line[..end]).and_then(|number| u32::try_from(number).ok());
    Some((number.filter(|&number| number > 0)?, line[end..].trim_ascii_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_number_and_all_that_follows_it() {
        assert_eq!(numbered(b"1 UID1-17"), Some((1, &b"UID1-17"[..])));
        assert_eq!(numbered(b" 12  a b \t"), Some((12, &b"a b"[..])));
        assert_eq!(numbered(b"7"), Some((7, &b""[..])));
        assert_eq!(numbered(b"7 "), Some((7, &b""[..])));
        assert_eq!(numbered(b"4294967295 \xff\0"), Some((u32::MAX, &b"\xff\0"[..])));
        for bad in ["", " ", "x 1", "-1 a", "+1 a", "0 a", "4294967296 a", "1a b"] {
            assert_eq!(numbered(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
