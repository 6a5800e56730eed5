//! What one account shows of a server, for all others there: [`Learnt`].
#![forbid(unsafe_code)]

use parking_lot::Mutex;

use super::capabilities::Capabilities;
use super::fault::Refusal;
use super::fetch::Ask;

/// What is known of a server: what it was asked once and need not be asked with each account.
/// Shared by all that are captured there.
#[derive(Debug, Default)]
pub struct Learnt(Mutex<Known>);

impl Learnt {
    /// What is known so far.
    pub(super) fn known(&self) -> Known {
        self.0.lock().clone()
    }

    /// Takes what a session showed that ended well.
    pub(super) fn learn(&self, known: &Known) {
        self.0.lock().learn(known);
    }
}

/// What is known of a server; `None` of what has not come up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What it says before a login that it can.
    pub capabilities: Option<Capabilities>,
    /// Whether several commands may be under way, though it does not say so.
    pub several: Option<bool>,
    /// By which TOP it brings headers.
    pub top: Option<Ask>,
    /// What it says in the place of any TOP.
    pub no_top: Option<Refusal>,
    /// Whether TOP brings whole messages.
    pub whole_by_top: Option<bool>,
    /// Whether RETR brings less in a session that has said TOP.
    pub is_retr_short_after_top: Option<bool>,
}

impl Known {
    /// What was learnt first stays: it went well with it.
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
