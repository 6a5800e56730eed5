//! What the sessions of one account have told so far: [`AccountSoFar`].
//!
//! A session that broke leaves what it told only while the next one lists the same messages, for
//! else the numbers may have moved before it broke. Its last answer must come again as well, for
//! else commands were lost, or answered twice, and the answers were those of other messages.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use crate::capture::draft::{Captured, Remarks};
use crate::capture::keys::Keys;
use crate::capture::pop3::block::block;
use crate::capture::pop3::fault::{ErrReply, Fault};
use crate::capture::pop3::fetch::{Ask, Fetched};
use crate::capture::pop3::findings::{DoubtedMessages, Finding, Findings, Unread};
use crate::capture::pop3::listing::{Listed, Numbered};

/// So often the line breaks at one message before that is passed over.
const BREAKS: u32 = 3;

/// All that is known of one account.
#[derive(Debug, Default)]
pub(super) struct AccountSoFar {
    /// Those of the last session.
    pub findings: Findings,
    last_session: LastSession,
    /// What sessions that ended well told, by UIDL.
    known: HashMap<Box<[u8]>, Finding>,
    /// What any session but the last listed.
    seen: HashSet<Box<[u8]>>,
    refused: RefusedMessages,
    /// The UIDLs of messages that are retrieved before TOP is said, because RETR after TOP brought
    /// less than LIST says; `None` until there is one.
    first: Option<DoubtedMessages>,
    broke_at: Option<BrokeAt>,
}

/// An answer that was told of: a message, by its place in the listing, and what was asked.
pub(super) type LastTold = (usize, Ask);

/// How the last session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LastSession {
    /// It told its listing twice, and its numbers did not move in between; or there was none yet.
    #[default]
    Ended,
    /// It broke, so that nobody knows whether its numbers had moved. The last answer that it gave
    /// shows whether its answers were in step with the commands.
    Broke { last_told: Option<LastTold> },
}

/// Whether messages that were refused have been asked for again, for they may have been deleted in
/// between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum RefusedMessages {
    #[default]
    AskedOnce,
    AskedAgain,
}

/// The message at which the line broke last.
#[derive(Debug)]
struct BrokeAt {
    uidl: Box<[u8]>,
    times: u32,
}

/// Where the findings of a session stand when it begins.
pub(super) enum SessionStart {
    /// All of them are good.
    Sure,
    /// Some come from a session that broke: they are good if this answer comes again.
    IfAgain(LastTold),
}

impl AccountSoFar {
    /// Begins a session with what it lists, and with what is known of that.
    pub fn begin(&mut self, listed: Vec<Listed>) -> SessionStart {
        let before = std::mem::replace(&mut self.findings, Findings::nothing_of(listed));
        let Findings { listed, found, .. } = &mut self.findings;
        let is_same =
            |(was, is): (&Listed, &Listed)| was.number == is.number && was.uidl == is.uidl;
        let has_lost_none =
            before.listed.len() <= listed.len() && before.listed.iter().zip(&*listed).all(is_same);
        let unsure = LastSession::Broke { last_told: None };
        let last_told = match std::mem::replace(&mut self.last_session, unsure) {
            LastSession::Broke { last_told } if has_lost_none => {
                found.iter_mut().zip(before.found).for_each(|(found, before)| *found = before);
                last_told
            }
            LastSession::Broke { .. } | LastSession::Ended => None,
        };
        self.seen.extend(before.listed.into_iter().map(|listed| listed.uidl));
        self.recall();
        last_told.map_or(SessionStart::Sure, SessionStart::IfAgain)
    }

    /// Takes what sessions that ended well told of the messages of which nothing is found.
    pub fn recall(&mut self) {
        let Findings { listed, found, .. } = &mut self.findings;
        let once = named_once(listed);
        for (listed, found) in listed.iter().zip(found) {
            if matches!(found, Finding::Nothing) && once.contains(&*listed.uidl) {
                *found = self.known.get(&listed.uidl).cloned().unwrap_or_default();
            }
        }
    }

    /// The session has read, and this is the last that it was told.
    pub fn has_read(&mut self, last_told: Option<LastTold>) {
        self.last_session = LastSession::Broke { last_told };
    }

    /// The session has told its listing again.
    pub fn end(&mut self) {
        self.last_session = LastSession::Ended;
    }

    /// Whether the listing is the same at the end of the session.
    pub fn is_listed_again(&self, at_end: &Numbered<Box<[u8]>>) -> bool {
        let listed = self.findings.listed.iter().map(|listed| (listed.number, &listed.uidl));
        listed.eq(at_end.iter().map(|(number, uidl)| (*number, uidl)))
    }

    /// Whether another session may tell more, where this one ended well: once for messages that
    /// were refused, and once for messages that came shorter than LIST says. Keeps what is good for
    /// it.
    pub fn wants_another_session(&mut self) -> bool {
        let is_refused = self.findings.found.iter().any(|found| found.refusal().is_some());
        let is_to_ask = is_refused && self.refused == RefusedMessages::AskedOnce;
        let is_doubted = !self.findings.doubted.is_empty() && self.first.is_none();
        if !is_to_ask && !is_doubted {
            return false;
        }
        if is_to_ask {
            self.refused = RefusedMessages::AskedAgain;
        }
        if is_doubted {
            self.first = Some(self.findings.doubted_uidls());
        }
        let found = std::mem::take(&mut self.findings.found).into_iter();
        let once = named_once(&self.findings.listed);
        let told =
            self.findings.listed.iter().zip(found).filter(|(listed, found)| {
                found.refusal().is_none() && once.contains(&*listed.uidl)
            });
        self.known = told.map(|(listed, found)| (listed.uidl.clone(), found)).collect();
        true
    }

    /// Whether refused messages have been asked for again.
    pub fn has_asked_again(&self) -> bool {
        self.refused == RefusedMessages::AskedAgain
    }

    /// The messages that are retrieved before TOP is said, and what they brought after it; `None`
    /// where none was doubted.
    pub fn first(&self) -> Option<&DoubtedMessages> {
        self.first.as_ref()
    }

    /// What a reading fills, and [`AccountSoFar::first`].
    pub fn reading(&mut self) -> (&mut Findings, Option<&DoubtedMessages>) {
        (&mut self.findings, self.first.as_ref())
    }

    /// Whether anything is known of any message.
    pub fn knows_something(&self) -> bool {
        !self.known.is_empty() || self.findings.found.iter().any(|found| found.fetched().is_some())
    }

    /// As [`Findings::refused_for_now`].
    pub fn refused_for_now(&self) -> Option<(Ask, &ErrReply)> {
        self.findings.refused_for_now()
    }

    /// The line broke at this message. Whether that has happened so often that it is passed over;
    /// `has_gained` says whether the session told anything else.
    pub fn broke_at(&mut self, at: usize, ask: Ask, fault: &Fault, has_gained: bool) -> bool {
        let Some(listed) = self.findings.listed.get(at) else { return false };
        let times = match self.broke_at.take() {
            Some(BrokeAt { uidl, times }) if uidl == listed.uidl && !has_gained => times + 1,
            _ => 1,
        };
        if times < BREAKS {
            self.broke_at = Some(BrokeAt { uidl: listed.uidl.clone(), times });
            return false;
        }
        self.findings.give_up(at, ask, Unread::Breaks(format!("{times} times {fault}")));
        true
    }

    /// Takes all findings out, until an answer shows whether they are good.
    pub fn put_aside(&mut self) -> Vec<Finding> {
        let before = std::mem::take(&mut self.findings.found);
        self.findings.found.resize(before.len(), Finding::Nothing);
        before
    }

    /// Makes the block of it.
    pub fn finish(self, user: String, source: String, keys: Keys, remarks: Remarks) -> Captured {
        block(&self.findings, (user, source), keys, self.seen, remarks)
    }
}

/// Whether an answer is what was told before.
pub(super) fn is_told_again(before: &Finding, now: Result<Fetched, ErrReply>) -> bool {
    now.ok().as_ref() == before.fetched()
}

/// The UIDLs that name one message. Copies may share theirs, which then does not say which is
/// which.
fn named_once(listed: &[Listed]) -> HashSet<&[u8]> {
    let mut times: HashMap<&[u8], u32> = HashMap::new();
    listed.iter().for_each(|listed| *times.entry(&listed.uidl).or_default() += 1);
    times.into_iter().filter(|(_, times)| *times == 1).map(|(uidl, _)| uidl).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(uidls: &[&str]) -> Vec<Listed> {
        let one = |(number, uidl): (u32, &&str)| Listed {
            number,
            uidl: uidl.as_bytes().into(),
            octets: 7,
        };
        (1..).zip(uidls).map(one).collect()
    }

    fn broken_after(uidls: &[&str]) -> AccountSoFar {
        let mut account = AccountSoFar::default();
        assert!(matches!(account.begin(listed(uidls)), SessionStart::Sure));
        let refused = Unread::Refused(ErrReply::of(b"no"));
        account.findings.give_up(0, Ask::Retr, refused);
        account.has_read(Some((0, Ask::Retr)));
        account
    }

    #[test]
    fn a_session_that_broke_counts_while_the_listing_has_lost_none() {
        for (now, counts) in [(&["a", "b"][..], true), (&["a", "b", "c"], true), (&["b"], false)] {
            let mut account = broken_after(&["a", "b"]);
            let start = account.begin(listed(now));
            assert_eq!(matches!(start, SessionStart::IfAgain((0, Ask::Retr))), counts, "{now:?}");
            assert_eq!(account.findings.found[0].refusal().is_some(), counts, "{now:?}");
            assert_eq!(account.seen.len(), 2);
        }
    }

    #[test]
    fn a_session_that_ended_counts_by_uidl_and_refusals_are_asked_for_once_more() {
        let mut account = broken_after(&["a", "b"]);
        account.end();
        assert!(account.is_listed_again(&vec![(1, b"a"[..].into()), (2, b"b"[..].into())]));
        assert!(!account.is_listed_again(&vec![(1, b"a"[..].into())]));
        assert!(account.wants_another_session());
        assert!(matches!(account.begin(listed(&["a", "b"])), SessionStart::Sure));
        account.findings.give_up(0, Ask::Retr, Unread::Refused(ErrReply::of(b"no")));
        account.end();
        assert!(!account.wants_another_session());
        assert!(account.has_asked_again());
    }

    #[test]
    fn a_message_at_which_three_sessions_in_a_row_break_is_passed_over() {
        let fault = Fault::Dropped { command: "RETR" };
        let mut account = broken_after(&["a", "b"]);
        let mut breaks = |at, gained| account.broke_at(at, Ask::Retr, &fault, gained);
        assert_eq!([breaks(1, false), breaks(1, false), breaks(1, true)], [false; 3]);
        assert_eq!([breaks(1, false), breaks(0, false), breaks(1, false)], [false; 3]);
        assert_eq!([breaks(1, false), breaks(1, false), breaks(9, false)], [false, true, false]);
        assert!(matches!(&account.findings.found[1], Finding::Unread { .. }));
    }
}
