//! One POP3 session over any stream: commands out, replies in, both within bounds.
//!
//! No crate that speaks POP3 takes several commands under way, a reply that is not UTF-8, or one
//! that does not end. We need little of the protocol.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::capture::pop3::capabilities::Capabilities;
use crate::capture::pop3::fault::{ErrReply, Fault};
use crate::text::printable;

/// The longest status line, in octets. RFC 2449 section 4 allows 512.
const MAX_STATUS_OCTETS: usize = 4096;

/// How much of a line of a listing is kept: more than any UIDL may have.
const MAX_LINE_OCTETS: usize = 8192;

/// The most empty lines that are passed over before a status line.
const MOST_EMPTY_LINES: u32 = 16;

/// The octets of a long answer that have to come within the patience.
const STEP_OCTETS: u64 = 64 << 10;

/// A POP3 session over `S`: a TCP connection, a TLS stream, one end of a socket pair, two pipes.
///
/// The stream has read timeouts: a read that ends with `WouldBlock` or `TimedOut` means that the
/// server stalls. Nor does the session wait for an answer that trickles.
pub struct Session<S> {
    stream: BufReader<S>,
    patience: Duration,
    /// Since when the answer, or the next step of it, is waited for.
    since: Instant,
    /// Whether status lines end with CR LF, and so the lone `.` too.
    crlf: bool,
    capabilities: Capabilities,
    limits: Allowance,
    /// The last status line, without its end: it may be a challenge, or repeat a password.
    last: Zeroizing<Vec<u8>>,
    greeting: Vec<u8>,
    /// Whether nobody on the way can read along.
    is_secret: bool,
}

/// What may still come in the sessions of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Until when, and how much time that was in all.
    pub until: Option<(Instant, Duration)>,
    /// How many octets more, and how many there were in all.
    pub octets: Option<(u64, u64)>,
}

/// A status line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`
    Ok,
    /// `-ERR`
    Refused(ErrReply),
    /// `+`: more is wanted (RFC 5034).
    More,
}

impl<S: Read + Write> Session<S> {
    /// A session in which nothing has been said yet.
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream: BufReader::with_capacity(32 << 10, stream),
            patience,
            since: Instant::now(),
            crlf: true,
            capabilities: Capabilities::default(),
            limits: Allowance { until: None, octets: None },
            last: Zeroizing::default(),
            greeting: Vec::new(),
            is_secret: false,
        }
    }

    /// The last status line.
    pub(super) fn last_line(&self) -> &[u8] {
        &self.last
    }

    /// What the server greeted with.
    pub(super) fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// Keeps what the server greeted with, be it before TLS.
    pub(super) fn set_greeting(&mut self, greeting: Vec<u8>) {
        self.greeting = greeting;
    }

    /// Whether nobody on the way can read along; whoever opened the stream says so.
    pub(super) fn is_secret(&self) -> bool {
        self.is_secret
    }

    pub(super) fn set_secret(&mut self) {
        self.is_secret = true;
    }

    /// Ends the session when it exceeds these; [`Session::limits`] tells in the end what is left.
    pub(super) fn set_limits(&mut self, limits: Allowance) {
        self.limits = limits;
    }

    pub(super) fn limits(&self) -> Allowance {
        self.limits
    }

    /// Lowers the limits by what has just come.
    fn spend(&mut self, command: &'static str) -> Result<(), Fault> {
        let come = self.stream.buffer().len() as u64;
        if let Some((left, all)) = &mut self.limits.octets {
            *left = left.checked_sub(come).ok_or_else(|| {
                let limit = format!("{all} octets");
                Fault::Endless { command, limit, option: "--most-octets" }
            })?;
        }
        match self.limits.until {
            Some((until, all)) if Instant::now() > until => {
                let limit = humantime::format_duration(all).to_string();
                Err(Fault::Endless { command, limit, option: "--most-time" })
            }
            _ => Ok(()),
        }
    }

    /// Takes up a session that is logged in already: that of a server's own program on a pipe or a
    /// socket pair, which may greet or not. Asks for capabilities, and for `UTF8` where that is
    /// offered.
    ///
    /// `patience` is how long an answer may take; give the stream that read timeout, too.
    ///
    /// # Errors
    ///
    /// [`Fault`], where it does not speak POP3.
    pub fn join(stream: S, patience: Duration) -> Result<Self, Fault> {
        let mut session = Self::new(stream, patience);
        // Every server refuses this, for messages count from 1: a `+OK` before that is the
        // greeting.
        session.send(b"LIST 0\r\n", "LIST")?;
        if session.reply("LIST")? == Reply::Ok && session.reply("LIST")? == Reply::Ok {
            return Err(Fault::Garbled { command: "LIST", said: "there is a message 0".into() });
        }
        session.ask_capabilities()?;
        session.ask_utf8()?;
        Ok(session)
    }

    /// Takes up a session of Dovecot's own program, which is told who has logged in and does not
    /// greet. Where it does not serve the user, it says so in the place of its first answer. Asks
    /// for capabilities.
    ///
    /// `patience` is how long an answer may take; give the stream that read timeout, too.
    ///
    /// # Errors
    ///
    /// [`Fault::Login`], where it does not serve the user; and other [`Fault`]s, where it does not
    /// speak POP3.
    pub fn join_logged_in(stream: S, patience: Duration) -> Result<Self, Fault> {
        let mut session = Self::new(stream, patience);
        match session.ask("NOOP", "NOOP")? {
            Reply::Ok => {}
            Reply::Refused(refusal) => return Err(Fault::Login(refusal)),
            Reply::More => return Err(Fault::Garbled { command: "NOOP", said: "+".into() }),
        }
        session.ask_capabilities()?;
        Ok(session)
    }

    /// What the server says it can, as far as it was asked.
    pub(super) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub(super) fn set_capabilities(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
    }

    /// Sends whole command lines. The caller sees to it that they fit into what a socket holds.
    pub(super) fn send(&mut self, lines: &[u8], command: &'static str) -> Result<(), Fault> {
        let stream = self.stream.get_mut();
        let sent = stream.write_all(lines).and_then(|()| stream.flush());
        sent.map_err(|error| self.broken(command, error))
    }

    /// Sends a command and reads the status line.
    pub(super) fn ask(&mut self, line: &str, command: &'static str) -> Result<Reply, Fault> {
        self.send(format!("{line}\r\n").as_bytes(), command)?;
        self.reply(command)
    }

    /// Reads a status line.
    pub(super) fn reply(&mut self, command: &'static str) -> Result<Reply, Fault> {
        self.since = Instant::now();
        for _ in 0..=MOST_EMPTY_LINES {
            let mut line = self.status_line(command)?;
            self.crlf = line.last() == Some(&b'\r');
            while line.last() == Some(&b'\r') {
                line.pop();
            }
            // Relatives of qmail-pop3d send a line end too many.
            if !line.is_empty() {
                self.last = line;
                return reply_in(&self.last)
                    .ok_or_else(|| Fault::Garbled { command, said: printable(&self.last) });
            }
        }
        Err(Fault::Garbled { command, said: "empty lines".into() })
    }

    /// A line up to its LF, which is left out.
    fn status_line(&mut self, command: &'static str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let mut line = Zeroizing::new(Vec::with_capacity(512));
        loop {
            let octets = self.octets(command)?;
            let end = memchr::memchr(b'\n', octets);
            let taken = end.unwrap_or(octets.len());
            line.extend_from_slice(&octets[..taken]);
            self.stream.consume(taken + usize::from(end.is_some()));
            if line.len() > MAX_STATUS_OCTETS {
                return Err(Fault::TooLong { command, max_octets: MAX_STATUS_OCTETS as u64 });
            }
            if end.is_some() {
                return Ok(line);
            }
        }
    }

    /// Reads what follows the status line of a multi-line answer, up to the lone `.`, and hands on
    /// its octets in slices of any size, dot-stuffing undone.
    pub(super) fn content(
        &mut self,
        command: &'static str,
        max_octets: u64,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Fault> {
        let mut content = Content::new(self.crlf);
        let (mut octets_read, mut step) = (0, STEP_OCTETS);
        self.since = Instant::now();
        loop {
            let octets = self.octets(command)?;
            let (taken, is_end) = content.take(octets, &mut each);
            self.stream.consume(taken);
            if is_end {
                return Ok(());
            }
            octets_read += taken as u64;
            if octets_read > max_octets {
                return Err(Fault::TooLong { command, max_octets });
            }
            if octets_read >= step {
                step = octets_read + STEP_OCTETS;
                self.since = Instant::now();
            }
        }
    }

    /// [`Session::content`] line by line, without line ends. A line that is longer than any can be
    /// is cut off.
    pub(super) fn lines(
        &mut self,
        command: &'static str,
        max_octets: u64,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Fault> {
        let mut line = Vec::new();
        self.content(command, max_octets, |octets| {
            for part in octets.split_inclusive(|&octet| octet == b'\n') {
                let (part, ends) = part.strip_suffix(b"\n").map_or((part, false), |p| (p, true));
                line.extend_from_slice(&part[..part.len().min(MAX_LINE_OCTETS - line.len())]);
                if ends {
                    each(line.strip_suffix(b"\r").unwrap_or(&line));
                    line.clear();
                }
            }
        })
    }

    /// Says QUIT, waits for the answer, whatever it is, and closes.
    pub fn quit(mut self) {
        let _ = self.ask("QUIT", "QUIT");
    }

    /// The stream below, unless something was read from it that nobody has asked for.
    pub(super) fn into_stream(self) -> Result<S, Fault> {
        if self.stream.buffer().is_empty() {
            Ok(self.stream.into_inner())
        } else {
            Err(Fault::Injected)
        }
    }

    /// The next octets, at least one.
    fn octets(&mut self, command: &'static str) -> Result<&[u8], Fault> {
        if self.stream.buffer().is_empty() {
            loop {
                match self.stream.fill_buf() {
                    Ok(_) => break,
                    Err(error) if error.kind() != ErrorKind::Interrupted => {
                        return Err(self.broken(command, error));
                    }
                    Err(_) if self.since.elapsed() > self.patience => {
                        return Err(Fault::Stalled { command, patience: self.patience });
                    }
                    Err(_) => {}
                }
            }
            if self.stream.buffer().is_empty() {
                return Err(Fault::Dropped { command });
            }
            if self.since.elapsed() > self.patience {
                return Err(Fault::Stalled { command, patience: self.patience });
            }
            self.spend(command)?;
        }
        Ok(self.stream.buffer())
    }

    fn broken(&self, command: &'static str, error: io::Error) -> Fault {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Fault::Stalled { command, patience: self.patience }
            }
            // TLS without a goodbye, too.
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => Fault::Dropped { command },
            _ => Fault::Broken { command, error },
        }
    }
}

fn reply_in(line: &[u8]) -> Option<Reply> {
    let begins = |start: &[u8]| {
        line.get(..start.len()).filter(|head| head.eq_ignore_ascii_case(start))?;
        Some(&line[start.len()..])
    };
    if begins(b"+OK").is_some() {
        Some(Reply::Ok)
    } else if let Some(said) = begins(b"-ERR") {
        Some(Reply::Refused(ErrReply::of(said)))
    } else {
        (line == b"+" || line.starts_with(b"+ ")).then_some(Reply::More)
    }
}

/// Reads what follows a status line, as it comes: looks for the lone `.`, and undoes dot-stuffing.
struct Content {
    at: LineAt,
    crlf: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineAt {
    LineStart,
    /// Behind a `.` that began a line.
    Dot,
    /// Behind such a `.` and a CR.
    DotCr,
    Line,
}

impl Content {
    /// The lone `.` ends with CR LF where status lines do (`crlf`): a `.` between two bare LFs then
    /// belongs to the message.
    fn new(crlf: bool) -> Self {
        Self { at: LineAt::LineStart, crlf }
    }

    /// Takes from `octets` what belongs to the answer; gives how many that are, and whether the
    /// answer has ended.
    fn take(&mut self, octets: &[u8], each: &mut impl FnMut(&[u8])) -> (usize, bool) {
        let mut at = 0;
        while at < octets.len() {
            match (self.at, octets[at]) {
                (LineAt::LineStart, b'.') => {
                    self.at = LineAt::Dot;
                    at += 1;
                }
                (LineAt::Dot, b'\r') => {
                    self.at = LineAt::DotCr;
                    at += 1;
                }
                (LineAt::Dot, b'\n') if !self.crlf => return (at + 1, true),
                (LineAt::DotCr, b'\n') => return (at + 1, true),
                (LineAt::DotCr, _) => {
                    each(b"\r");
                    self.at = LineAt::Line;
                }
                (LineAt::LineStart | LineAt::Dot, _) => self.at = LineAt::Line,
                (LineAt::Line, _) => {
                    let end = self.end_of_run(&octets[at..]);
                    each(&octets[at..at + end]);
                    at += end;
                }
            }
        }
        (at, false)
    }

    /// The end of what can be handed on in one: up to a line that begins with a `.`, or all.
    fn end_of_run(&mut self, octets: &[u8]) -> usize {
        for line_end in memchr::memchr_iter(b'\n', octets) {
            let next = line_end + 1;
            if octets.get(next).is_none_or(|&octet| octet == b'.') {
                self.at = LineAt::LineStart;
                return next;
            }
        }
        octets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server that says what it was given, in reads of `step`, and hears nothing.
    struct Scripted<'a>(&'a [u8], usize);

    impl Read for Scripted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(len);
            buffer[..len].copy_from_slice(now);
            self.0 = later;
            Ok(len)
        }
    }

    impl Write for Scripted<'_> {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn session(said: &[u8], step: usize) -> Session<Scripted<'_>> {
        Session::new(Scripted(said, step), Duration::from_secs(60))
    }

    /// The content of one answer, and whether a `+OK` follows it.
    fn content(said: &[u8], step: usize) -> Result<(Vec<u8>, bool), Fault> {
        let mut session = session(said, step);
        assert_eq!(session.reply("TOP")?, Reply::Ok);
        let mut content = Vec::new();
        session.content("TOP", 1 << 20, |octets| content.extend_from_slice(octets))?;
        Ok((content, session.reply("NOOP").is_ok_and(|reply| reply == Reply::Ok)))
    }

    #[test]
    fn an_answer_ends_at_its_lone_dot_and_is_otherwise_the_message() {
        let cases: [(&[u8], &[u8]); 9] = [
            (b"+OK\r\n.\r\n+OK\r\n", b""),
            (b"+OK\r\nA: b\r\n\r\n.\r\n+OK\r\n", b"A: b\r\n\r\n"),
            (b"+OK\r\n..\r\n...x\r\n.y\r\n.\r\n+OK\r\n", b".\r\n..x\r\ny\r\n"),
            (b"+OK\r\nA: b\n\n.\r\n+OK\r\n", b"A: b\n\n"),
            // Between bare LFs it is of the message where lines end with CR LF.
            (b"+OK\r\na\n.\nb\r\n.\r\n+OK\r\n", b"a\n\nb\r\n"),
            (b"+OK\na\n.\n+OK\n", b"a\n"),
            (b"+OK\na\n.\r\n+OK\n", b"a\n"),
            (b"+OK\r\n.\rx\r\n.\r\n\r\n\r\n+OK\r\n", b"\rx\r\n"),
            (b"+OK\r\na\0\xff.\r\n.\r\n+OK\r\n", b"a\0\xff.\r\n"),
        ];
        for (said, wanted) in cases {
            for step in 1..=said.len() {
                let found = content(said, step).unwrap();
                assert_eq!(found, (wanted.to_vec(), true), "{}", said.escape_ascii());
            }
        }
    }

    #[test]
    fn a_status_line_is_one_of_three_or_an_error() {
        let reply = |said: &[u8]| session(said, 99).reply("PASS");
        assert_eq!(reply(b"+OK\r\n").unwrap(), Reply::Ok);
        assert_eq!(reply(b"+ok hello\n").unwrap(), Reply::Ok);
        assert_eq!(reply(b"+ VXNlcm5hbWU6\r\n").unwrap(), Reply::More);
        assert_eq!(reply(b"+\r\n").unwrap(), Reply::More);
        let refused = reply(b"-ERR [AUTH] no\r\n").unwrap();
        assert_eq!(refused, Reply::Refused(ErrReply::of(b"[AUTH] no")));
        assert!(matches!(reply(b"HTTP/1.1 400\r\n"), Err(Fault::Garbled { .. })));
        assert!(matches!(reply(b"+OK"), Err(Fault::Dropped { command: "PASS" })));
        assert!(matches!(reply(&[b'x'; 9000]), Err(Fault::TooLong { .. })));
        assert!(matches!(reply(&[b'\n'; 9000]), Err(Fault::Garbled { .. })));
    }

    #[test]
    fn what_does_not_end_is_not_read_to_the_end() {
        let endless = [b"+OK\r\n".to_vec(), vec![b'x'; 2 << 20]].concat();
        assert!(matches!(
            content(&endless, 4096),
            Err(Fault::TooLong { max_octets: 1_048_576, .. })
        ));
        assert!(matches!(content(b"+OK\r\nA: b\r\n", 9), Err(Fault::Dropped { .. })));
        let mut lines = Vec::new();
        let said = [&b"1 "[..], &[b'u'; 100_000], b"\r\n2 b\r\n.\r\n"].concat();
        session(&said, 999).lines("UIDL", 1 << 20, |line| lines.push(line.len())).unwrap();
        assert_eq!(lines, [MAX_LINE_OCTETS, 3]);
    }

    #[test]
    fn a_program_is_taken_up_whether_it_greets_or_not() {
        for said in ["+OK hello\r\n-ERR no\r\n-ERR no CAPA\r\n", "-ERR no\r\n-ERR no CAPA\r\n"] {
            assert!(Session::join(Scripted(said.as_bytes(), 7), Duration::from_secs(60)).is_ok());
        }
        let said = "+OK hello\r\n+OK 0 octets\r\n";
        assert!(Session::join(Scripted(said.as_bytes(), 7), Duration::from_secs(60)).is_err());
    }

    #[test]
    fn a_program_that_serves_nobody_has_refused_the_login() {
        let join = |said: &[u8]| {
            Session::join_logged_in(Scripted(said, 7), Duration::from_secs(60)).map(drop)
        };
        assert!(join(b"+OK\r\n+OK\r\nPIPELINING\r\n.\r\n").is_ok());
        let said = "[SYS/TEMP] Mailbox is being moved.";
        match join(format!("-ERR {said}\r\n").as_bytes()) {
            Err(Fault::Login(refusal)) => assert_eq!(refusal.said(), said),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_trickles_is_not_waited_for() {
        struct Trickle;
        impl Read for Trickle {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_millis(1));
                buffer[0] = b'x';
                Ok(1)
            }
        }
        impl Write for Trickle {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                Ok(octets.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut session = Session::new(Trickle, Duration::from_millis(30));
        assert!(matches!(session.reply("NOOP"), Err(Fault::Stalled { .. })));
        assert!(matches!(
            session.content("TOP", 1 << 20, |_| ()),
            Err(Fault::Stalled { command: "TOP", .. })
        ));
    }

    proptest! {
        #[test]
        fn an_answer_is_the_same_however_it_is_sliced(
            said in proptest::collection::vec("[.a\r\n]{0,6}|\r\n\\.{1,2}\r?\n", 0..12),
            step in 1_usize..9,
        ) {
            let said = format!("+OK\r\n{}\r\n.\r\n", said.concat());
            let whole = content(said.as_bytes(), usize::MAX).unwrap();
            prop_assert_eq!(content(said.as_bytes(), step).unwrap(), whole);
        }

        #[test]
        fn a_message_that_was_stuffed_comes_out_whole(
            lines in proptest::collection::vec("[.a-c\r\u{e4}]{0,5}", 0..12),
            step in 1_usize..9,
        ) {
            let (mut message, mut said) = (String::new(), "+OK\r\n".to_owned());
            for line in lines {
                let stuffing = if line.starts_with('.') { "." } else { "" };
                message.push_str(&format!("{line}\r\n"));
                said.push_str(&format!("{stuffing}{line}\r\n"));
            }
            said.push_str(".\r\n+OK\r\n");
            prop_assert_eq!(content(said.as_bytes(), step).unwrap(), (message.into_bytes(), true));
        }
    }
}
