//! What one account shows of a server, for all others there: [`Learnt`]; and for its own next
//! session: [`ServerSoFar`].
#![forbid(unsafe_code)]

use std::time::Duration;

use parking_lot::Mutex;

use crate::capture::pop3::capabilities::Capabilities;
use crate::capture::pop3::fault::ErrReply;
use crate::capture::pop3::fetch::{Ask, UnderWay};

/// The longest LOGIN-DELAY that is waited for within a capture.
const MAX_LOGIN_DELAY: Duration = Duration::from_secs(300);

/// What is known of a server: it is asked once, and not again with each account. All accounts that
/// are captured there share it.
#[derive(Debug, Default)]
pub struct Learnt(Mutex<ServerTraits>);

impl Learnt {
    /// What is known so far.
    pub(super) fn known(&self) -> ServerTraits {
        self.0.lock().clone()
    }

    /// Takes what a session has shown that ended well.
    pub(super) fn learn(&self, known: &ServerTraits) {
        self.0.lock().learn(known);
    }
}

/// What is known of a server; `None` where something has not come up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServerTraits {
    /// What it says before a login that it can.
    pub capabilities: Option<Capabilities>,
    /// Whether several commands may be under way, though it does not say so.
    pub several: Option<bool>,
    /// The TOP by which it brings headers.
    pub top: Option<Ask>,
    /// Its answer in place of any TOP.
    pub no_top: Option<ErrReply>,
    /// Whether TOP brings whole messages.
    pub whole_by_top: Option<bool>,
    /// Whether RETR brings less in a session that has said TOP.
    pub is_retr_short_after_top: Option<bool>,
}

impl ServerTraits {
    /// Adds what was not known. What was learnt first stays, for it went well.
    fn learn(&mut self, other: &Self) {
        fn keep<T: Clone>(mine: &mut Option<T>, other: &Option<T>) {
            if mine.is_none() {
                mine.clone_from(other);
            }
        }
        keep(&mut self.capabilities, &other.capabilities);
        keep(&mut self.several, &other.several);
        keep(&mut self.top, &other.top);
        keep(&mut self.no_top, &other.no_top);
        keep(&mut self.whole_by_top, &other.whole_by_top);
        keep(&mut self.is_retr_short_after_top, &other.is_retr_short_after_top);
    }
}

/// What the sessions of one account have shown of its server so far.
#[derive(Debug, Default)]
pub(super) struct ServerSoFar {
    /// What all accounts there share.
    pub traits: ServerTraits,
    /// What it said in the last session that it can.
    pub capabilities: Capabilities,
    conduct: Conduct,
}

/// How it takes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Conduct {
    /// As it says.
    #[default]
    AsSaid,
    /// One at a time: several under way went wrong.
    OneAtATime,
    /// One at a time: answers were out of step with the commands.
    OutOfStep,
}

impl ServerSoFar {
    /// How many commands may be under way.
    pub fn under_way(&self) -> UnderWay {
        match (self.conduct, self.traits.several) {
            (Conduct::OneAtATime | Conduct::OutOfStep, _) | (_, Some(false)) => {
                UnderWay::OneAtATime
            }
            _ if self.capabilities.pipelining => UnderWay::Announced,
            (_, Some(true)) => UnderWay::SeenRight,
            (_, None) => UnderWay::Untried,
        }
    }

    /// Several commands under way went wrong.
    pub fn take_one_at_a_time(&mut self) {
        if self.conduct == Conduct::AsSaid {
            self.conduct = Conduct::OneAtATime;
        }
    }

    /// Answers were out of step with the commands. Whether that is the first time.
    pub fn is_first_out_of_step(&mut self) -> bool {
        std::mem::replace(&mut self.conduct, Conduct::OutOfStep) != Conduct::OutOfStep
    }

    /// Has the next accounts know of what went wrong here.
    pub fn settle(&mut self) {
        if self.conduct != Conduct::AsSaid {
            self.traits.several.get_or_insert(false);
        }
    }

    /// How long the server wants between two logins, as far as that is waited for.
    pub fn login_delay(&self) -> Duration {
        Duration::from_secs(self.capabilities.login_delay.into()).min(MAX_LOGIN_DELAY)
    }

    /// Whether the server says that it may delete what is retrieved.
    pub fn expires_at_once(&self) -> bool {
        self.capabilities.expires_at_once
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_outweighs_what_the_server_says() {
        let mut server = ServerSoFar::default();
        assert_eq!(server.under_way(), UnderWay::Untried);
        server.traits.several = Some(true);
        assert_eq!(server.under_way(), UnderWay::SeenRight);
        server.capabilities.pipelining = true;
        assert_eq!(server.under_way(), UnderWay::Announced);
        server.settle();
        assert_eq!(server.traits.several, Some(true));
        server.take_one_at_a_time();
        assert_eq!(server.under_way(), UnderWay::OneAtATime);
        assert!(server.is_first_out_of_step());
        server.take_one_at_a_time();
        assert!(!server.is_first_out_of_step());
        server.traits.several = None;
        server.settle();
        assert_eq!(server.traits.several, Some(false));
    }

    #[test]
    fn what_was_learnt_first_stays() {
        let learnt = Learnt::default();
        let top = Some(Ask::Top { lines: 1 });
        learnt.learn(&ServerTraits { top, ..ServerTraits::default() });
        let other = Some(Ask::Top { lines: 0 });
        let several = Some(true);
        learnt.learn(&ServerTraits { top: other, several, ..ServerTraits::default() });
        assert_eq!(learnt.known(), ServerTraits { top, several, ..ServerTraits::default() });
    }

    #[test]
    fn a_login_delay_is_waited_for_within_bounds() {
        let mut server = ServerSoFar::default();
        server.capabilities.login_delay = 10;
        assert_eq!(server.login_delay(), Duration::from_secs(10));
        server.capabilities.login_delay = 4000;
        assert_eq!(server.login_delay(), MAX_LOGIN_DELAY);
    }
}
