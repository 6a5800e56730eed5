//! Which messages one session asks for, and by which command: [`Reading`].
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use crate::capture::keys::Keys;
use crate::capture::pop3::fault::{ErrReply, Fault};
use crate::capture::pop3::fetch::{Ask, Fetcher, UnderWay};
use crate::capture::pop3::findings::{DoubtedMessages, Findings};
use crate::capture::pop3::learnt::ServerTraits;
use crate::capture::pop3::options::{CaptureOptions, Retrieve};
use crate::capture::pop3::session::Session;

/// The two ways to ask for a header: some servers do not take 0, or cut the header short at it.
const TOPS: [Ask; 2] = [Ask::Top { lines: 0 }, Ask::Top { lines: 1 }];

/// It is worth finding out whether several commands may be under way if there are more messages
/// than these.
const WORTH_TRYING: usize = 8;

/// So many messages are asked for whole by TOP before that is given up.
const WORTH_A_TRY: usize = 3;

/// What the server allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed<'a> {
    /// Whether TOP may bring all of a message.
    pub whole_by_top: bool,
    /// Whether messages may be retrieved that need it.
    pub retrieve: bool,
    /// How many commands may be under way.
    pub under_way: UnderWay,
    /// The UIDLs of messages that are retrieved before TOP is said.
    pub first: &'a DoubtedMessages,
    /// Whether TOP was answered in this session already.
    pub has_topped: bool,
    /// Whether messages may be retrieved whose TOP is refused. Not before it was refused twice:
    /// Dovecot hangs up on a client that asks twice for what has been deleted.
    pub insist: bool,
}

/// How a server wants to be asked for headers.
enum Probed {
    Top(Ask),
    /// Its answer to TOP.
    NoTop(ErrReply),
}

/// The reading of one session.
pub(super) struct Reading<'a> {
    options: &'a CaptureOptions<'a>,
    allowed: Allowed<'a>,
    pub findings: &'a mut Findings,
    pub fetcher: Fetcher<'a>,
    /// What is being asked.
    pub ask: Ask,
    /// Answers had.
    pub gained: u32,
    /// The message that was told of last, and what was asked.
    pub last: Option<(usize, Ask)>,
    /// Whether TOP was answered in this session.
    has_topped: bool,
    /// What is known of the server, and what is learnt of it.
    server: &'a mut ServerTraits,
}

impl<'a> Reading<'a> {
    pub fn new(
        options: &'a CaptureOptions<'a>,
        allowed: Allowed<'a>,
        findings: &'a mut Findings,
        server: &'a mut ServerTraits,
    ) -> Self {
        let fetcher = Fetcher::new(options, allowed.under_way);
        let ask = TOPS[0];
        Self {
            options,
            allowed,
            findings,
            fetcher,
            ask,
            gained: 0,
            last: None,
            has_topped: allowed.has_topped,
            server,
        }
    }

    /// Reads what is not known yet. Messages that are refused are no fault.
    pub fn read<S: Read + Write>(&mut self, session: &mut Session<S>) -> Result<(), Fault> {
        let first = self.allowed.first;
        if !first.is_empty() {
            let listed = &self.findings.listed;
            let is_first: Vec<bool> =
                listed.iter().map(|one| first.contains_key(&one.uidl)).collect();
            self.retrieve(session, |at| is_first[at])?;
        }
        let Keys { header, message, origin, .. } = self.options.keys;
        if self.options.retrieve == Retrieve::Always || message && self.allowed.retrieve {
            self.retrieve(session, |_| true)?;
        } else if header || origin || message {
            self.top(session)?;
            let says_little = self.findings.saying_little();
            if self.allowed.whole_by_top && (header || message) {
                self.whole_by_top(session, |at| message || says_little[at] == Some(true))?;
            }
            if header && self.allowed.retrieve {
                let insist = self.allowed.insist;
                self.retrieve(session, |at| says_little[at].unwrap_or(insist))?;
            }
        }
        Ok(())
    }

    /// Reads messages whole by TOP, unless this server gives none so.
    fn whole_by_top<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<(), Fault> {
        let wanted = self.findings.not_whole(wanted);
        let (few, rest) = match self.server.whole_by_top {
            Some(true) => (&wanted[..0], &wanted[..]),
            // Each account tries some of its own messages, where nothing else brings them.
            Some(false) if self.allowed.retrieve => return Ok(()),
            _ => wanted.split_at(wanted.len().min(WORTH_A_TRY)),
        };
        self.fetch(session, few, Ask::WholeByTop)?;
        if few.iter().any(|&(at, _)| self.findings.is_whole(at)) {
            self.server.whole_by_top = Some(true);
        } else if few.len() == WORTH_A_TRY {
            self.server.whole_by_top = Some(false);
        }
        if self.server.whole_by_top == Some(true) {
            self.fetch(session, rest, Ask::WholeByTop)?;
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
            Probed::Top(top) => top,
            Probed::NoTop(_) if self.allowed.retrieve => return self.retrieve(session, |_| true),
            Probed::NoTop(refusal) => return Err(Fault::NoTop(refusal)),
        };
        let missing = self.findings.missing();
        self.fetch(session, &missing, top)?;
        // A header that ends only with a line of the body was not cut short.
        let cut_short = self.findings.cut_short();
        self.fetch(session, &cut_short, TOPS[1]).map(drop)
    }

    /// Finds out with a few messages how this server wants to be asked: by which TOP, and whether
    /// several at once.
    fn probe<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        missing: &[(usize, u32)],
    ) -> Result<Probed, Fault> {
        if let Some(refusal) = &self.server.no_top {
            return Ok(Probed::NoTop(refusal.clone()));
        }
        let tops = self.server.top.map_or(TOPS.to_vec(), |top| vec![top]);
        let mut few = vec![missing[0], missing[missing.len() / 2], missing[missing.len() - 1]];
        few.dedup();
        let has_top = session.capabilities().top
            || self.server.top.is_some()
            || self.findings.is_any_by_top();
        let mut last = None;
        for &top in &tops {
            for &one in &few {
                last = self.fetch(session, &[one], top)?;
                if last.is_some() {
                    continue;
                }
                if top != TOPS[0] {
                    self.findings.forget_refused();
                }
                self.server.top = Some(top);
                if missing.len() > WORTH_TRYING {
                    self.try_several(session, one, top)?;
                }
                return Ok(Probed::Top(top));
            }
        }
        match last {
            Some(refusal) if !has_top => {
                self.server.no_top = (few.len() > 2).then(|| refusal.clone());
                Ok(Probed::NoTop(refusal))
            }
            // It may be that these messages are broken.
            _ => Ok(Probed::Top(tops[0])),
        }
    }

    /// Tries several commands under way with a message that is known, where nobody said PIPELINING.
    fn try_several<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        one: (usize, u32),
        top: Ask,
    ) -> Result<(), Fault> {
        if self.allowed.under_way != UnderWay::Untried || self.options.window <= 1 {
            return Ok(());
        }
        let Some(known) = self.findings.found[one.0].fetched().map(|fetched| fetched.of) else {
            return Ok(());
        };
        self.fetcher.try_several(session, one, top, &known)?;
        self.server.several = Some(self.fetcher.is_several());
        Ok(())
    }

    fn retrieve<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<(), Fault> {
        let wanted = self.findings.retrievable(wanted);
        let is_too_late = self.has_topped && self.allowed.first.is_empty();
        if is_too_late && self.server.is_retr_short_after_top == Some(true) {
            self.findings.doubted.extend(wanted.iter().map(|&(at, _)| (at, None)));
            return Ok(());
        }
        self.fetch(session, &wanted, Ask::Retr).map(drop)
    }

    /// Asks for each of `wanted`; the last refusal, if there was one.
    fn fetch<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        wanted: &[(usize, u32)],
        ask: Ask,
    ) -> Result<Option<ErrReply>, Fault> {
        self.ask = ask;
        let mut last = None;
        let Self { options, findings, gained, last: told, has_topped, server, .. } = self;
        let may_be_short = ask == Ask::Retr && server.is_retr_short_after_top != Some(false);
        self.fetcher.fetch(session, wanted, ask, |at, answer| {
            *told = answer.is_ok().then_some((at, ask)).or(*told);
            *has_topped |= ask != Ask::Retr && answer.is_ok();
            // mailutils gives no text by RETR after TOP, where a line of that begins with >From.
            let short = answer.as_ref().ok().filter(|fetched| findings.is_short(at, fetched));
            if let Some(fetched) = short.filter(|_| may_be_short && *has_topped) {
                findings.doubted.insert(at, fetched.whole.map(|wire| wire.octets));
                *gained += 1;
                return;
            }
            last = answer.as_ref().err().cloned().or(last.take());
            let is_first = findings.take(at, ask, answer);
            *gained += u32::from(is_first || ask.is_of_all());
            (options.progress)(u64::from(is_first));
        })?;
        Ok(last)
    }
}
