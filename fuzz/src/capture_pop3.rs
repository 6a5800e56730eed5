//! A POP3 server that says anything.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::time::Duration;

use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{CaptureOptions, Fault, NoPace, Retrieve, Session, capture_over};
use uidl_keep::listing::{Reader, write_maildrop};

use super::{check_message, check_uidl};

/// Longer than any input takes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Separates the server's words in one session from those in the next.
const HANG_UP: &[u8] = b"\0\xff";

/// An octet that says how to capture, then the server's words, one session after another.
pub fn check(octets: &[u8]) {
    let Some((&how, said)) = octets.split_first() else { return };
    let whole = capture(how, said, usize::MAX);
    match &whole {
        Ok(captured) => check_captured(captured),
        Err(fault) => check_message(fault),
    }
    let sliced = capture(how, said, 3);
    assert_eq!(whole.map_err(|fault| fault.to_string()), sliced.map_err(|fault| fault.to_string()));
}

fn capture(how: u8, said: &[u8], step: usize) -> Result<Captured, Fault> {
    let keys = Keys { message: how & 1 != 0, origin: how & 2 != 0, ..Keys::default() };
    let retrieve = [Retrieve::Never, Retrieve::Needed, Retrieve::Needed, Retrieve::Always];
    let answered = Cell::new(0_u64);
    let progress = |more| answered.set(answered.get() + more);
    let how = CaptureOptions {
        keys,
        retrieve: retrieve[usize::from(how >> 2 & 3)],
        window: if how & 16 != 0 { 1 } else { CaptureOptions::MOST_WINDOW },
        timeout: PATIENCE,
        pause: Duration::ZERO,
        most_time: Duration::from_secs(60),
        most_octets: 1 << 30,
        learnt: None,
        pace: &NoPace,
        progress: &progress,
    };
    let mut sessions = sessions(said);
    let heard = RefCell::new(Vec::new());
    let open = || {
        let said = sessions.next().ok_or(Fault::Dropped { command: "the connection" })?;
        Session::join(Line { said, step, heard: &heard }, PATIENCE)
    };
    let captured = capture_over(open, "alice", "pop3 old.example.com:110 alice".into(), &how);
    let heard = heard.into_inner();
    assert!(heard.is_empty() || heard.ends_with(b"\r\n"), "a command without its end");
    for command in heard.split(|&octet| octet == b'\n') {
        let verb = command.split(|octet| b" \r".contains(octet)).next().unwrap_or_default();
        let may_say = [&b""[..], b"LIST", b"CAPA", b"UTF8", b"UIDL", b"TOP", b"NOOP", b"QUIT"];
        let may_retrieve = how.retrieve != Retrieve::Never && verb == b"RETR";
        assert!(may_say.contains(&verb) || may_retrieve, "{}", command.escape_ascii());
    }
    captured
}

fn sessions(mut said: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = said.windows(HANG_UP.len()).position(|window| window == HANG_UP);
        let (now, later) = end.map_or((said, &b""[..]), |end| (&said[..end], &said[end + 2..]));
        said = later;
        (!now.is_empty()).then_some(now)
    })
}

fn check_captured(captured: &Captured) {
    let maildrop = &captured.maildrop;
    for uidl in maildrop.entries.iter().map(|entry| &entry.uidl).chain(&maildrop.spent) {
        check_uidl(uidl.as_bytes());
    }
    for remark in maildrop.remarks.iter().chain(&captured.losses) {
        assert!(!remark.is_empty());
        check_message(remark);
    }
    let mut written = Vec::new();
    write_maildrop(&mut written, maildrop).expect("a block that can be written");
    let read: Vec<_> = Reader::new(&written[..]).collect();
    assert!(matches!(&read[..], [Ok(read)] if read == maildrop), "{read:?}");
    assert_eq!(uidl_keep::text::printable(maildrop.source.as_bytes()), maildrop.source);
}

/// The server's words in one session, in reads of `step`, and all that was said to it.
struct Line<'a> {
    said: &'a [u8],
    step: usize,
    heard: &'a RefCell<Vec<u8>>,
}

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (now, later) = self.said.split_at(self.said.len().min(self.step).min(buffer.len()));
        buffer[..now.len()].copy_from_slice(now);
        self.said = later;
        Ok(now.len())
    }
}

impl Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.heard.borrow_mut().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
