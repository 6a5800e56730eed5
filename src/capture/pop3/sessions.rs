//! One account, in as many sessions as it takes: [`capture_over`].
//!
//! One where all goes well. Another follows where the line broke: then what was read before counts
//! only while the listing has lost no message, for else the numbers may have moved before it broke,
//! and where the last answer is the same again, for else commands were lost, or answered twice, and
//! the answers were those of other messages.
//! Another where a message that was retrieved after TOP came shorter than LIST says: there it is
//! retrieved before any TOP, and what comes then is believed.
//! Another where the listing was not the same at the end. And once another where messages were
//! refused, for they may have been deleted in between.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::capture::draft::{Captured, Remarks};
use crate::capture::pop3::fault::{Fault, Retry};
use crate::capture::pop3::fetch::{Ask, Break, Fetcher};
use crate::capture::pop3::findings::{Findings, Found, Why};
use crate::capture::pop3::learnt::Known;
use crate::capture::pop3::listing::{self, Listed};
use crate::capture::pop3::reading::{Allowed, Reading};
use crate::capture::pop3::session::{Limits, Session};
use crate::capture::pop3::{How, Retrieve};

/// The most sessions for one account, however little each brings.
const MOST_SESSIONS: u32 = 100;

/// So many sessions in a row may break and bring nothing new, and so many may end with another
/// listing than they began with.
const TRIES: u32 = 4;

/// So often the line breaks at one message before that is passed over.
const BREAKS: u32 = 3;

/// The longest LOGIN-DELAY that is waited for within a capture.
const MAX_LOGIN_DELAY: Duration = Duration::from_secs(300);

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
    how: &How<'_>,
) -> Result<Captured, Fault> {
    let mut take = Take::new(how);
    loop {
        match open().and_then(|session| take.session(session)) {
            Ok(Step::Done) => return Ok(take.finish(user.to_owned(), source)),
            Ok(Step::Again) => thread::sleep(take.pause()),
            Err(fault) => take.go_on_after(fault)?,
        }
    }
}

enum Step {
    Done,
    Again,
}

/// What was found out so far, and what was learnt of the server.
struct Take<'a> {
    how: &'a How<'a>,
    /// Of the last session.
    findings: Findings,
    /// Whether that session broke, so that nobody knows whether its numbers had moved.
    broke: bool,
    /// From sessions that ended well, by UIDL.
    known: HashMap<Box<[u8]>, Found>,
    /// What any session but the last listed.
    seen: HashSet<Box<[u8]>>,
    remarks: Remarks,
    sessions: u32,
    /// Messages that this session brought.
    gained: u32,
    /// Sessions in a row that broke and brought nothing.
    in_vain: u32,
    /// Sessions that ended with another listing.
    changes: u32,
    /// Whether messages that were refused have been asked for again.
    asked_again: bool,
    /// The UIDLs of messages that are retrieved before TOP is said, for what came after it is
    /// doubtful; `None` until one is.
    first: Option<HashMap<Box<[u8]>, Option<u64>>>,
    /// At which message the line broke last, and how often.
    broke_at: Option<(Box<[u8]>, u32)>,
    /// The last message that the last session told of, and what was asked: the one that shows
    /// whether its answers were in step with the commands.
    last: Option<(usize, Ask)>,
    /// Whether a session was out of step.
    was_out_of_step: bool,
    /// Whether several commands under way were seen to go wrong here.
    one_at_a_time: bool,
    /// Whether the last session broke for that.
    is_window_to_blame: bool,
    login_delay: Duration,
    /// Whether the last session came to its end, and QUIT deletes nothing.
    may_quit: bool,
    /// What is known of the server.
    server: Known,
    /// What may still come.
    limits: Limits,
    /// Whether the server says that it may delete what is retrieved.
    expires: bool,
}

impl<'a> Take<'a> {
    fn new(how: &'a How<'a>) -> Self {
        Self {
            how,
            findings: Findings::default(),
            broke: false,
            known: HashMap::new(),
            seen: HashSet::new(),
            remarks: Remarks::default(),
            sessions: 0,
            gained: 0,
            in_vain: 0,
            changes: 0,
            asked_again: false,
            first: None,
            broke_at: None,
            last: None,
            was_out_of_step: false,
            one_at_a_time: false,
            is_window_to_blame: false,
            login_delay: Duration::ZERO,
            may_quit: false,
            server: Known::default(),
            limits: Limits {
                until: Instant::now().checked_add(how.most_time).map(|end| (end, how.most_time)),
                octets: Some((how.most_octets, how.most_octets)),
            },
            expires: false,
        }
    }

    /// All that one session can tell, within the limits of the account.
    fn session<S: Read + Write>(&mut self, mut session: Session<S>) -> Result<Step, Fault> {
        self.sessions += 1;
        if let Some(learnt) = self.how.learnt {
            self.server = learnt.known();
        }
        session.set_limits(self.limits);
        self.may_quit = false;
        let told = self.told(&mut session);
        self.limits = session.limits();
        if self.may_quit {
            session.quit();
        }
        if self.one_at_a_time {
            self.server.several.get_or_insert(false);
        }
        if let (Some(learnt), Ok(_)) = (self.how.learnt, &told) {
            learnt.learn(&self.server);
        }
        told
    }

    fn told<S: Read + Write>(&mut self, session: &mut Session<S>) -> Result<Step, Fault> {
        let capabilities = session.capabilities();
        let delay = Duration::from_secs(capabilities.login_delay.into());
        self.login_delay = delay.min(MAX_LOGIN_DELAY);
        self.expires = capabilities.expires_at_once;

        self.how.pace.commands(2);
        let listed = listing::listing(session)?;
        let is_doubtful = self.begin(listed);
        self.broke = true;
        let mut has_topped = false;
        if let Some((at, ask)) = self.last.take().filter(|_| is_doubtful) {
            has_topped = ask != Ask::Retr;
            self.see_whether_in_step(session, at, ask)?;
        }
        self.read(session, has_topped)?;
        self.how.pace.commands(1);
        let at_end = listing::uidls(session)?;
        self.broke = false;
        self.may_quit = !(self.expires && self.findings.is_any_whole());

        let listed = self.findings.listed.iter().map(|listed| (listed.number, &listed.uidl));
        if !listed.eq(at_end.iter().map(|(number, uidl)| (*number, uidl))) {
            self.changes += 1;
            let tries = self.changes;
            return if tries < TRIES { Ok(Step::Again) } else { Err(Fault::Changing { tries }) };
        }
        if let (Some(first), None) = (&self.first, self.server.is_retr_short_after_top) {
            self.server.is_retr_short_after_top = self.findings.brought_more(first);
        }
        let is_refused = self.findings.found.iter().any(|found| found.refusal().is_some());
        let is_to_ask = is_refused && !self.asked_again;
        let is_doubted = !self.findings.doubted.is_empty() && self.first.is_none();
        if is_to_ask || is_doubted {
            self.asked_again |= is_to_ask;
            if is_doubted {
                self.first = Some(self.findings.doubted_uidls());
            }
            let found = std::mem::take(&mut self.findings.found).into_iter();
            let once = named_once(&self.findings.listed);
            let told = self.findings.listed.iter().zip(found).filter(|(listed, found)| {
                found.refusal().is_none() && once.contains(&*listed.uidl)
            });
            self.known = told.map(|(listed, found)| (listed.uidl.clone(), found)).collect();
            return Ok(Step::Again);
        }
        if let Some((ask, refusal)) = self.findings.refused_for_now() {
            return Err(Fault::Refused { command: ask.command(), refusal: refusal.clone() });
        }
        Ok(Step::Done)
    }

    /// Begins with what is listed now, and what is known of it. Whether any of that is from the
    /// session that broke.
    fn begin(&mut self, listed: Vec<Listed>) -> bool {
        let before = std::mem::replace(&mut self.findings, Findings::nothing_of(listed));
        let Findings { listed, found, .. } = &mut self.findings;
        let is_same =
            |(was, is): (&Listed, &Listed)| was.number == is.number && was.uidl == is.uidl;
        let has_lost_none =
            before.listed.len() <= listed.len() && before.listed.iter().zip(&*listed).all(is_same);
        let is_doubtful = self.broke && has_lost_none;
        if is_doubtful {
            found.iter_mut().zip(before.found).for_each(|(found, before)| *found = before);
        }
        self.seen.extend(before.listed.into_iter().map(|listed| listed.uidl));
        self.recall();
        is_doubtful
    }

    /// Takes what sessions that ended well told of the messages of which nothing is found.
    fn recall(&mut self) {
        let Findings { listed, found, .. } = &mut self.findings;
        let once = named_once(listed);
        for (listed, found) in listed.iter().zip(found) {
            if matches!(found, Found::Nothing) && once.contains(&*listed.uidl) {
                *found = self.known.get(&listed.uidl).cloned().unwrap_or_default();
            }
        }
    }

    /// Asks once more for the message that was told of last before a session broke. Where the
    /// answer is another now, that session's answers were those of other messages, and count for
    /// nothing.
    fn see_whether_in_step<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        at: usize,
        ask: Ask,
    ) -> Result<(), Fault> {
        let before = std::mem::take(&mut self.findings.found);
        self.findings.found.resize(before.len(), Found::Nothing);
        let one = [(at, self.findings.listed[at].number)];
        let mut is_same = false;
        Fetcher::one_at_a_time(self.how).fetch(session, &one, ask, |at, answer| {
            is_same = answer.ok().as_ref() == before[at].print();
        })?;
        if is_same {
            self.findings.found = before;
            return Ok(());
        }
        if self.was_out_of_step {
            let said = "another message than before".into();
            return Err(Fault::Garbled { command: ask.command(), said });
        }
        (self.was_out_of_step, self.one_at_a_time) = (true, true);
        self.recall();
        Ok(())
    }

    /// Reads what is not known yet of the messages that are listed.
    fn read<S: Read + Write>(
        &mut self,
        session: &mut Session<S>,
        has_topped: bool,
    ) -> Result<(), Fault> {
        let none = HashMap::new();
        let allowed = Allowed {
            whole_by_top: !self.expires,
            retrieve: match self.how.retrieve {
                Retrieve::Never => false,
                Retrieve::Needed => !self.expires,
                Retrieve::Always => true,
            },
            pipelining: session.capabilities().pipelining,
            several: self.server.several == Some(true),
            one_at_a_time: self.one_at_a_time || self.server.several == Some(false),
            first: self.first.as_ref().unwrap_or(&none),
            has_topped,
            insist: self.asked_again,
        };
        let mut reading = Reading::new(self.how, allowed, &mut self.findings, &mut self.server);
        let result = reading.read(session);
        let (broke, ask) = (reading.fetcher.broke(), reading.ask);
        (self.gained, self.last) = (reading.gained, reading.last);
        if let Err(fault) = &result {
            self.learn_from(fault, broke, ask, allowed.pipelining || allowed.several);
        }
        result
    }

    /// Learns what not to do again from where a session broke.
    fn learn_from(&mut self, fault: &Fault, broke: Break, ask: Ask, is_announced: bool) {
        if let Fault::TooLong { command: "TOP" | "RETR", .. } = fault {
            self.findings.give_up(broke.at, ask, Why::Breaks(fault.to_string()));
            self.gained += 1;
            return;
        }
        if !fault.is_of_the_line() {
            return;
        }
        if broke.several && (!is_announced || self.in_vain > 0) {
            self.one_at_a_time = true;
            self.is_window_to_blame = true;
            return;
        }
        let Some(listed) = self.findings.listed.get(broke.at) else { return };
        let times = match self.broke_at.take() {
            Some((uidl, times)) if uidl == listed.uidl && self.gained == 0 => times + 1,
            _ => 1,
        };
        if times < BREAKS {
            self.broke_at = Some((listed.uidl.clone(), times));
        } else {
            let why = format!("{times} times {fault}");
            self.findings.give_up(broke.at, ask, Why::Breaks(why));
            self.gained += 1;
        }
    }

    /// Whether to go on after a session that broke or could not be had: not without anything to
    /// show for it, for whoever asked can try again as well.
    fn go_on_after(&mut self, fault: Fault) -> Result<(), Fault> {
        let may_help = match fault {
            // That message is passed over.
            Fault::TooLong { command: "TOP" | "RETR", .. } => true,
            // Was tried again already.
            Fault::Changing { .. } | Fault::Refused { command: "TOP" | "RETR", .. } => false,
            _ => fault.next_step() == Retry::Later,
        };
        let has_something = self.is_window_to_blame
            || !self.known.is_empty()
            || self.findings.found.iter().any(|found| found.print().is_some());
        self.in_vain = if self.gained > 0 { 0 } else { self.in_vain + 1 };
        (self.gained, self.is_window_to_blame) = (0, false);
        if !may_help || !has_something || self.in_vain >= TRIES || self.sessions >= MOST_SESSIONS {
            return Err(fault);
        }
        thread::sleep(self.pause());
        Ok(())
    }

    fn pause(&self) -> Duration {
        if self.how.pause.is_zero() {
            return Duration::ZERO;
        }
        Backoff::without_end(self.how.pause).pause(self.in_vain).max(self.login_delay)
    }

    fn finish(mut self, user: String, source: String) -> Captured {
        if self.expires && self.how.retrieve == Retrieve::Needed {
            self.remarks.note(
                "the server says EXPIRE 0, by which it may delete what is retrieved: nothing was",
            );
        }
        self.findings.finish(user, source, self.how.keys, self.seen, self.remarks)
    }
}

/// The UIDLs that name one message: copies may share theirs, and then it does not say which is
/// which.
fn named_once(listed: &[Listed]) -> HashSet<&[u8]> {
    let mut times: HashMap<&[u8], u32> = HashMap::new();
    listed.iter().for_each(|listed| *times.entry(&listed.uidl).or_default() += 1);
    times.into_iter().filter(|(_, times)| *times == 1).map(|(uidl, _)| uidl).collect()
}
