//! Which messages one session asks for, and by which command: [`Reading`].
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use super::fault::{Fault, Refusal};
use super::fetch::{Ask, Fetcher};
use super::found::Findings;
use super::session::Session;
use super::{How, Retrieve};
use crate::capture::Keys;

/// With as many messages TOP is tried before it is said that there is none.
const PROBES: usize = 3;

/// What brings a header: some servers do not take 0, or cut the header short at it.
const TOPS: [Ask; 2] = [Ask::Top { lines: 0 }, Ask::Top { lines: 1 }];

/// With more messages than these it is worth finding out whether several commands may be under way.
const WORTH_TRYING: usize = 8;

/// What the server allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Whether messages may be retrieved that need it.
    pub retrieve: bool,
    /// Whether it says PIPELINING.
    pub pipelining: bool,
    /// Whether several commands under way were seen to go wrong.
    pub one_at_a_time: bool,
    /// Whether those may be retrieved of which TOP is refused: not before it was refused twice, for
    /// Dovecot hangs up on who asks twice for what has been deleted.
    pub insist: bool,
}

/// The reading of one session.
pub(super) struct Reading<'a> {
    how: &'a How<'a>,
    allowed: Allowed,
    pub findings: &'a mut Findings,
    pub fetcher: Fetcher<'a>,
    /// What is being asked.
    pub ask: Ask,
    /// Answers had.
    pub gained: u32,
}

impl<'a> Reading<'a> {
    pub fn new(how: &'a How<'a>, allowed: Allowed, findings: &'a mut Findings) -> Self {
        let fetcher = if allowed.pipelining && !allowed.one_at_a_time {
            Fetcher::several_at_once(how)
        } else {
            Fetcher::one_at_a_time(how)
        };
        let ask = TOPS[0];
        Self { how, allowed, findings, fetcher, ask, gained: 0 }
    }

    /// Reads what is not known yet. That messages are refused is no fault.
    pub fn read<S: Read + Write>(&mut self, session: &mut Session<S>) -> Result<(), Fault> {
        let Keys { header, message, origin, .. } = self.how.keys;
        if self.how.retrieve == Retrieve::Always || message && self.allowed.retrieve {
            self.retrieve(session, |_| true)?;
        } else if header || origin || message {
            self.top(session)?;
            if header && self.allowed.retrieve {
                let says_little = self.findings.saying_little();
                let insist = self.allowed.insist;
                self.retrieve(session, |at| says_little[at].unwrap_or(insist))?;
            }
        }
        Ok(())
    }

    /// Reads headers; by RETR where there is no TOP.
    fn top<S: Read + Write>(&mut self, session: &mut Session<S>) -> Result<(), Fault> {
        let missing = self.findings.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let top = match self.probe(session, &missing)? {
            Ok(top) => top,
            Err(_) if self.allowed.retrieve => return self.retrieve(session, |_| true),
            Err(refusal) => return Err(Fault::NoTop(refusal)),
        };
        if !self.allowed.pipelining && !self.allowed.one_at_a_time && self.how.window > 1 {
            let print = self.findings.found[missing[0].0].print();
            if let Some(known) = print.filter(|_| missing.len() > WORTH_TRYING) {
                let known = known.of;
                self.fetcher.try_several(session, missing[0], top, &known)?;
            }
        }
        let missing = self.findings.missing();
        self.fetch(session, &missing, top)?;
        // Where only a line of the body makes the header end, it was not cut short.
        let cut_short = self.findings.cut_short();
        self.fetch(session, &cut_short, TOPS[1]).map(drop)
    }

    /// Finds out with the first few messages how TOP wants to be asked; what is said where there is none.
    fn probe<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        missing: &[(usize, u32)],
    ) -> Result<Result<Ask, Refusal>, Fault> {
        let mut refusal = None;
        for top in TOPS {
            for one in missing.iter().take(PROBES) {
                refusal = self.fetch(session, std::slice::from_ref(one), top)?;
                if refusal.is_none() {
                    if top != TOPS[0] {
                        self.findings.forget_refused();
                    }
                    return Ok(Ok(top));
                }
            }
        }
        match refusal {
            Some(refusal) if !session.capabilities().top => Ok(Err(refusal)),
            // It may be that these messages are broken.
            _ => Ok(Ok(TOPS[0])),
        }
    }

    fn retrieve<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<(), Fault> {
        let wanted = self.findings.retrievable(wanted);
        self.fetch(session, &wanted, Ask::Retr).map(drop)
    }

    /// Asks for each of `wanted`; the last refusal, if there was one.
    fn fetch<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        wanted: &[(usize, u32)],
        ask: Ask,
    ) -> Result<Option<Refusal>, Fault> {
        self.ask = ask;
        let mut last = None;
        let Self { how, findings, gained, .. } = self;
        self.fetcher.fetch(session, wanted, ask, |at, answer| {
            last = answer.as_ref().err().cloned().or(last.take());
            let is_first = findings.take(at, ask, answer);
            *gained += u32::from(is_first || ask == Ask::Retr);
            (how.progress)(u64::from(is_first));
        })?;
        Ok(last)
    }
}
