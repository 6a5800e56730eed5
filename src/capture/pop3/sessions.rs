//! One account, in as many sessions as it takes: [`capture_over`].
//!
//! A new session is opened
//!
//! (a) after a dropped connection: what the session before it told is kept as
//!     [`so_far`](crate::capture::pop3::so_far) says, and [`RetryPolicy`] knows when to stop;
//! (b) if UIDL changed during the session;
//! (c) once, to retry refused messages, for they may have been deleted in between; and once, to
//!     retrieve before any TOP what came shorter than LIST says when it was retrieved after TOP.
//!     The second answer is believed.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::thread;
use std::time::Instant;

use crate::capture::draft::{Captured, Remarks};
use crate::capture::pop3::account::{Account, source};
use crate::capture::pop3::connect::log_in;
use crate::capture::pop3::fault::Fault;
use crate::capture::pop3::fetch::{Ask, Break, Fetcher, UnderWay};
use crate::capture::pop3::findings::{DoubtedMessages, Unread};
use crate::capture::pop3::learnt::{Learnt, ServerSoFar};
use crate::capture::pop3::listing::{self, Numbered};
use crate::capture::pop3::options::{CaptureOptions, Retrieve};
use crate::capture::pop3::reading::{Allowed, Reading};
use crate::capture::pop3::retry::{Lesson, RetryPolicy};
use crate::capture::pop3::server::Server;
use crate::capture::pop3::session::{Allowance, Session};
use crate::capture::pop3::so_far::{AccountSoFar, LastTold, SessionStart, is_told_again};

/// Captures one account: [`log_in`], and then all of [`capture_over`].
///
/// # Errors
///
/// [`Fault`]; [`Fault::next_step`] says whether to try again. Nothing is kept of a capture that
/// failed.
pub fn capture(
    server: &Server,
    account: &Account,
    options: &CaptureOptions<'_>,
) -> Result<Captured, Fault> {
    let source = source(server, account);
    let learnt_here = Learnt::default();
    let learnt = options.learnt.unwrap_or(&learnt_here);
    let options = CaptureOptions { learnt: Some(learnt), ..*options };
    let open = || log_in(server, account, options.timeout, learnt);
    capture_over(open, &account.user, source, &options)
}

/// Captures what one session after another tells of a maildrop.
///
/// `open` gives a session that is logged in; it is called again where one broke. `user` and
/// `source` are those of the block.
///
/// # Errors
///
/// [`Fault`]: that of the last session, where no more could be had.
pub fn capture_over<S: Read + Write>(
    mut open: impl FnMut() -> Result<Session<S>, Fault>,
    user: &str,
    source: String,
    options: &CaptureOptions<'_>,
) -> Result<Captured, Fault> {
    let mut capture = AccountCapture::new(options);
    loop {
        match open().and_then(|session| capture.session(session)) {
            Ok(Step::Done) => return Ok(capture.finish(user.to_owned(), source)),
            Ok(Step::Again) => {}
            Err(fault) => {
                capture.retry.go_on_after(fault, capture.account.knows_something())?;
            }
        }
        thread::sleep(capture.retry.pause(capture.server.login_delay()));
    }
}

enum Step {
    Done,
    Again,
}

/// The capture of one account.
struct AccountCapture<'a> {
    options: &'a CaptureOptions<'a>,
    retry: RetryPolicy,
    account: AccountSoFar,
    server: ServerSoFar,
    /// What may still come in all sessions.
    allowance: Allowance,
}

impl<'a> AccountCapture<'a> {
    fn new(options: &'a CaptureOptions<'a>) -> Self {
        let CaptureOptions { most_time, most_octets, .. } = *options;
        Self {
            options,
            retry: RetryPolicy::new(options.pause),
            account: AccountSoFar::default(),
            server: ServerSoFar::default(),
            allowance: Allowance {
                until: Instant::now().checked_add(most_time).map(|end| (end, most_time)),
                octets: Some((most_octets, most_octets)),
            },
        }
    }

    /// Has one session tell all that it can, within the allowance of the account.
    fn session<S: Read + Write>(&mut self, mut session: Session<S>) -> Result<Step, Fault> {
        self.retry.begin();
        if let Some(learnt) = self.options.learnt {
            self.server.traits = learnt.known();
        }
        session.set_limits(self.allowance);
        let listed = self.converse(&mut session);
        self.allowance = session.limits();
        // QUIT may delete what was retrieved.
        let may_delete = self.server.expires_at_once() && self.account.findings.is_any_whole();
        if listed.is_ok() && !may_delete {
            session.quit();
        }
        let step = listed.and_then(|at_end| self.judge(&at_end));
        self.server.settle();
        if let (Some(learnt), Ok(_)) = (self.options.learnt, &step) {
            learnt.learn(&self.server.traits);
        }
        step
    }

    /// Reads the listing, the messages, and the UIDLs once more, which it gives.
    fn converse<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
    ) -> Result<Numbered<Box<[u8]>>, Fault> {
        self.server.capabilities = session.capabilities().clone();
        self.options.pace.commands(2);
        let listed = listing::listing(session)?;
        let mut has_topped = false;
        if let SessionStart::IfAgain(told) = self.account.begin(listed) {
            has_topped = told.1 != Ask::Retr;
            self.see_whether_in_step(session, told)?;
        }
        self.read(session, has_topped)?;
        self.options.pace.commands(1);
        let at_end = listing::uidls(session)?;
        self.account.end();
        Ok(at_end)
    }

    /// Judges a session that has come to its end.
    fn judge(&mut self, at_end: &Numbered<Box<[u8]>>) -> Result<Step, Fault> {
        if !self.account.is_listed_again(at_end) {
            return self.retry.listing_changed().map(|()| Step::Again);
        }
        if let (Some(first), None) =
            (self.account.first(), self.server.traits.is_retr_short_after_top)
        {
            self.server.traits.is_retr_short_after_top = self.account.findings.brought_more(first);
        }
        if self.account.wants_another_session() {
            return Ok(Step::Again);
        }
        match self.account.refused_for_now() {
            Some((ask, refusal)) => {
                Err(Fault::Refused { command: ask.command(), refusal: refusal.clone() })
            }
            None => Ok(Step::Done),
        }
    }

    /// Asks once more for the message that was told of last before a session broke. Where the
    /// answer is another now, that session's answers were those of other messages, and count for
    /// nothing.
    fn see_whether_in_step<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        (at, ask): LastTold,
    ) -> Result<(), Fault> {
        let before = self.account.put_aside();
        let one = [(at, self.account.findings.listed[at].number)];
        let mut is_same = false;
        Fetcher::new(self.options, UnderWay::OneAtATime).fetch(
            session,
            &one,
            ask,
            |at, answer| {
                is_same = is_told_again(&before[at], answer);
            },
        )?;
        if is_same {
            self.account.findings.found = before;
            return Ok(());
        }
        if !self.server.is_first_out_of_step() {
            let said = "another message than before".into();
            return Err(Fault::Garbled { command: ask.command(), said });
        }
        self.account.recall();
        Ok(())
    }

    /// Reads what is not known yet of the messages that are listed.
    fn read<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        has_topped: bool,
    ) -> Result<(), Fault> {
        let expires = self.server.expires_at_once();
        let under_way = self.server.under_way();
        let insist = self.account.has_asked_again();
        let (findings, first) = self.account.reading();
        let no_first = DoubtedMessages::new();
        let allowed = Allowed {
            whole_by_top: !expires,
            retrieve: match self.options.retrieve {
                Retrieve::Never => false,
                Retrieve::Needed => !expires,
                Retrieve::Always => true,
            },
            under_way,
            first: first.unwrap_or(&no_first),
            has_topped,
            insist,
        };
        let traits = &mut self.server.traits;
        let mut reading = Reading::new(self.options, allowed, findings, traits);
        let result = reading.read(session);
        let (broke, ask) = (reading.fetcher.broke(), reading.ask);
        let (gained, last_told) = (reading.gained, reading.last);
        self.retry.gained(gained);
        self.account.has_read(last_told);
        if let Err(fault) = &result {
            let lesson = self.learn_from(fault, broke, ask, under_way);
            self.retry.learnt(lesson);
        }
        result
    }

    /// Learns from where a session broke.
    fn learn_from(&mut self, fault: &Fault, broke: Break, ask: Ask, under_way: UnderWay) -> Lesson {
        if let Fault::TooLong { command: "TOP" | "RETR", .. } = fault {
            self.account.findings.give_up(broke.at, ask, Unread::Breaks(fault.to_string()));
            return Lesson::PassOver;
        }
        if !fault.is_of_the_line() {
            return Lesson::Nothing;
        }
        if broke.several && (under_way == UnderWay::Untried || self.retry.is_in_vain()) {
            self.server.take_one_at_a_time();
            return Lesson::OneAtATime;
        }
        let has_gained = self.retry.has_gained();
        if self.account.broke_at(broke.at, ask, fault, has_gained) {
            Lesson::PassOver
        } else {
            Lesson::Nothing
        }
    }

    fn finish(self, user: String, source: String) -> Captured {
        let mut remarks = Remarks::default();
        if self.server.expires_at_once() && self.options.retrieve == Retrieve::Needed {
            remarks.note(
                "the server says EXPIRE 0, by which it may delete what is retrieved: nothing was",
            );
        }
        self.account.finish(user, source, self.options.keys, remarks)
    }
}
