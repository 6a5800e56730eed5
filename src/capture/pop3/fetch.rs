//! TOP and RETR for many messages, several commands under way: [`Fetcher`].
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use crate::capture::pop3::fault::{ErrReply, Fault};
use crate::capture::pop3::options::CaptureOptions;
use crate::capture::pop3::session::{Reply, Session};
use crate::key::{Depth, Fingerprinter, Fingerprints, Wants};

/// The longest header that TOP may bring, in octets, and with it what some servers add of the body.
const MAX_TOP_OCTETS: u64 = 64 << 20;

/// The longest message, in octets.
const MAX_RETR_OCTETS: u64 = 4 << 30;

/// More lines than any message has: nine digits, for some servers count in 32 bits with a sign.
const MORE_LINES_THAN_ANY: u32 = 999_999_999;

/// The widest window for whole messages: they are long, and a server need not be given more work
/// than that.
const RETR_WINDOW: usize = 16;

/// The first window of a server that was seen to take several commands without saying PIPELINING.
const FIRST_WINDOW: u32 = 4;

/// What is asked for of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Its header, and so many lines of its body.
    Top { lines: u8 },
    /// All of it, as its header and more lines than there are. This marks nothing where RETR does.
    WholeByTop,
    /// All of it.
    Retr,
}

impl Ask {
    pub fn command(self) -> &'static str {
        match self {
            Self::Top { .. } | Self::WholeByTop => "TOP",
            Self::Retr => "RETR",
        }
    }

    /// Whether all of the message is wanted.
    pub fn is_of_all(self) -> bool {
        matches!(self, Self::WholeByTop | Self::Retr)
    }

    /// At most 20 octets where many are sent at once, so that [`CaptureOptions::MOST_WINDOW`] of
    /// them are less than 4 KiB.
    fn line(self, number: u32) -> String {
        match self {
            Self::Top { lines } => format!("TOP {number} {lines}\r\n"),
            Self::WholeByTop => format!("TOP {number} {MORE_LINES_THAN_ANY}\r\n"),
            Self::Retr => format!("RETR {number}\r\n"),
        }
    }

    fn window(self, window: u32) -> usize {
        match self {
            Self::Top { .. } => window as usize,
            Self::WholeByTop | Self::Retr => RETR_WINDOW.min(window as usize),
        }
    }

    fn max_octets(self) -> u64 {
        match self {
            Self::Top { .. } => MAX_TOP_OCTETS,
            Self::WholeByTop | Self::Retr => MAX_RETR_OCTETS,
        }
    }
}

/// What was read of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetched {
    pub of: Fingerprints,
    /// How it came, where it came whole.
    pub whole: Option<Wire>,
}

/// A whole message on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wire {
    pub octets: u64,
    /// Whether it has CR CR LF in it. Courier and qmail-pop3d make that of a stored CR LF, and no
    /// two servers count it alike.
    pub has_cr_cr_lf: bool,
    last: [u8; 2],
}

impl Wire {
    fn take(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        for line_end in memchr::memchr_iter(b'\n', octets) {
            let before = match line_end {
                0 => self.last,
                1 => [self.last[1], octets[0]],
                _ => [octets[line_end - 2], octets[line_end - 1]],
            };
            self.has_cr_cr_lf |= before == *b"\r\r";
        }
        match octets {
            [] => {}
            [one] => self.last = [self.last[1], *one],
            [.., a, b] => self.last = [*a, *b],
        }
    }
}

/// Where a session broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Break {
    /// The message whose answer we waited for, as the caller names it.
    pub at: usize,
    /// Whether other commands were under way behind it.
    pub several: bool,
}

/// Asks, within a window of commands under way.
pub(super) struct Fetcher<'a> {
    options: &'a CaptureOptions<'a>,
    /// How many commands may be under way now, and at most.
    window: u32,
    most: u32,
    /// Right answers since the window last grew.
    right: u32,
    waiting: Break,
}

/// How many commands may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnderWay {
    /// One: several went wrong here.
    OneAtATime,
    /// Several: the server says PIPELINING.
    Announced,
    /// More and more: several went right, though the server does not say PIPELINING.
    SeenRight,
    /// One, until it was tried.
    Untried,
}

impl<'a> Fetcher<'a> {
    /// Has as many commands under way as `options` allows, while all goes well.
    pub fn new(options: &'a CaptureOptions<'a>, under_way: UnderWay) -> Self {
        let waiting = Break { at: 0, several: false };
        let mut fetcher = Self { options, window: 1, most: 1, right: 0, waiting };
        match under_way {
            UnderWay::OneAtATime | UnderWay::Untried => {}
            UnderWay::SeenRight => fetcher.open(),
            UnderWay::Announced => {
                fetcher.open();
                fetcher.window = fetcher.most;
            }
        }
        fetcher
    }

    /// Whether several commands may be under way.
    pub fn is_several(&self) -> bool {
        self.most > 1
    }

    /// Lets the window grow from now on.
    fn open(&mut self) {
        self.most = self.options.window.clamp(1, CaptureOptions::MOST_WINDOW);
        (self.window, self.right) = (self.most.min(FIRST_WINDOW), 0);
    }

    /// Where the session broke, after a fault.
    pub fn broke(&self) -> Break {
        self.waiting
    }

    /// Asks for each of `wanted`, the caller's name of a message with its number, and tells `each`
    /// of the answers, in the same order.
    pub fn fetch<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        wanted: &[(usize, u32)],
        ask: Ask,
        mut each: impl FnMut(usize, Result<Fetched, ErrReply>),
    ) -> Result<(), Fault> {
        let mut sent = 0;
        for (got, &(at, _)) in wanted.iter().enumerate() {
            let (mut under_way, window) = (sent - got, ask.window(self.window));
            // Commands go in bunches: a packet for each would cost more than it carries.
            if under_way <= window / 2 && sent < wanted.len() {
                let more = (window - under_way).min(wanted.len() - sent);
                self.waiting = Break { at, several: under_way + more > 1 };
                self.options.pace.commands(more as u32);
                let lines = wanted[sent..sent + more].iter().map(|&(_, number)| ask.line(number));
                session.send(lines.collect::<String>().as_bytes(), ask.command())?;
                (sent, under_way) = (sent + more, under_way + more);
            }
            self.waiting = Break { at, several: under_way > 1 };
            each(at, answer(session, ask)?);
            self.went_right();
        }
        Ok(())
    }

    /// Tries several commands under way with a message that is known, where the server does not say
    /// PIPELINING. If none is lost and each is answered in its turn, the window grows from then on
    /// while all goes well.
    pub fn try_several<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        (at, number): (usize, u32),
        ask: Ask,
        known: &Fingerprints,
    ) -> Result<(), Fault> {
        self.waiting = Break { at, several: true };
        self.options.pace.commands(3);
        let lines = format!("NOOP\r\n{}NOOP\r\n", ask.line(number));
        session.send(lines.as_bytes(), "NOOP")?;
        let first = session.reply("NOOP")?;
        let second = answer(session, ask)?;
        let third = session.reply("NOOP")?;
        let is_right = first == Reply::Ok
            && second.is_ok_and(|print| print.of == *known)
            && third == Reply::Ok;
        if is_right {
            self.open();
        }
        Ok(())
    }

    fn went_right(&mut self) {
        self.right += 1;
        if self.right >= self.window {
            (self.window, self.right) = (self.most.min(self.window * 2), 0);
        }
    }
}

/// Reads the answer to `ask`.
fn answer<S: Read + Write>(
    session: &mut Session<S>,
    ask: Ask,
) -> Result<Result<Fetched, ErrReply>, Fault> {
    match session.reply(ask.command())? {
        Reply::Refused(refusal) => return Ok(Err(refusal)),
        Reply::More => return Err(Fault::Garbled { command: ask.command(), said: "+".into() }),
        Reply::Ok => {}
    }
    let depth = if ask.is_of_all() { Depth::Message } else { Depth::Header };
    let mut fingerprinter = Fingerprinter::new(depth);
    let (mut wire, mut wants) = (Wire::default(), Wants::More);
    session.content(ask.command(), ask.max_octets(), |octets| {
        wire.take(octets);
        if wants == Wants::More {
            wants = fingerprinter.update(octets);
        }
    })?;
    let whole = ask.is_of_all().then_some(wire);
    Ok(Ok(Fetched { of: fingerprinter.finish(), whole }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_on_the_wire_is_the_same_however_it_is_sliced() {
        for (message, has_cr_cr_lf) in
            [(&b"a\r\n\r\nb\r\r\nc\r\n"[..], true), (b"\r\r.\n\r\n", false)]
        {
            for step in 1..=message.len() {
                let mut wire = Wire::default();
                message.chunks(step).for_each(|slice| wire.take(slice));
                let found = (wire.octets, wire.has_cr_cr_lf);
                assert_eq!(found, (message.len() as u64, has_cr_cr_lf), "in slices of {step}");
            }
        }
    }
}
