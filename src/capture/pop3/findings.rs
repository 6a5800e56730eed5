//! The findings of one session about the messages that it listed: [`Findings`].
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;

use crate::capture::keys::Headers;
use crate::capture::pop3::fault::ErrReply;
use crate::capture::pop3::fetch::{Ask, Fetched, Wire};
use crate::capture::pop3::listing::Listed;
use crate::maildrop::few_of;

/// What was found out about one message.
#[derive(Debug, Clone, Default)]
pub(super) enum Finding {
    /// Nothing yet.
    #[default]
    Nothing,
    /// What TOP or RETR told.
    Fetched {
        fetched: Fetched,
        /// Why it could not be retrieved.
        not_retrieved: Option<String>,
        /// Whether TOP does not bring it as it is.
        not_by_top: bool,
    },
    /// Neither told anything.
    Unread {
        /// What was asked last.
        ask: Ask,
        why: Unread,
    },
}

/// Why nothing is known of a message.
#[derive(Debug, Clone)]
pub(super) enum Unread {
    /// It was refused.
    Refused(ErrReply),
    /// It broke the session: it is not asked for again.
    Breaks(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "was refused: {refusal}"),
            Self::Breaks(how) => write!(f, "broke the session: {how}"),
        }
    }
}

impl Finding {
    /// The refusal, where it may be worth asking once more.
    pub fn refusal(&self) -> Option<(Ask, &ErrReply)> {
        match self {
            Self::Unread { ask, why: Unread::Refused(refusal) } => Some((*ask, refusal)),
            _ => None,
        }
    }

    /// How it came, if it was retrieved.
    pub fn whole(&self) -> Option<Wire> {
        self.fetched()?.whole
    }

    /// What is known of it.
    pub fn fetched(&self) -> Option<&Fetched> {
        match self {
            Self::Fetched { fetched, .. } => Some(fetched),
            Self::Nothing | Self::Unread { .. } => None,
        }
    }
}

/// Messages, by UIDL, that came shorter than LIST says, and how many octets they had, where they
/// were asked for.
pub(super) type DoubtedMessages = HashMap<Box<[u8]>, Option<u64>>;

/// What one session listed, and what was found out of each message.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub listed: Vec<Listed>,
    /// As long as `listed`.
    pub found: Vec<Finding>,
    /// Messages, by place, whose RETR is not believed yet, and how many octets it brought; `None`
    /// where RETR was not said.
    pub doubted: HashMap<usize, Option<u64>>,
}

impl Findings {
    /// Nothing found of what was listed.
    pub fn nothing_of(listed: Vec<Listed>) -> Self {
        Self { found: vec![Finding::Nothing; listed.len()], listed, doubted: HashMap::new() }
    }

    /// The messages that are so, by place, with their numbers.
    pub fn which(&self, is: impl Fn(usize, &Finding) -> bool) -> Vec<(usize, u32)> {
        let all = self.found.iter().zip(&self.listed).enumerate();
        all.filter(|(at, (found, _))| is(*at, found))
            .map(|(at, (_, listed))| (at, listed.number))
            .collect()
    }

    /// The messages of which nothing is known yet.
    pub fn missing(&self) -> Vec<(usize, u32)> {
        self.which(|_, found| matches!(found, Finding::Nothing))
    }

    /// Those of `wanted` that can still be retrieved.
    pub fn retrievable(&self, wanted: impl Fn(usize) -> bool) -> Vec<(usize, u32)> {
        self.which(|at, found| {
            let can_be = match found {
                Finding::Nothing => true,
                Finding::Fetched { fetched, not_retrieved, .. } => {
                    fetched.whole.is_none() && not_retrieved.is_none()
                }
                Finding::Unread { .. } => found.refusal().is_some_and(|(ask, _)| ask != Ask::Retr),
            };
            can_be && wanted(at)
        })
    }

    /// Those of `wanted` whose header is known, and of which TOP may bring the rest.
    pub fn not_whole(&self, wanted: impl Fn(usize) -> bool) -> Vec<(usize, u32)> {
        self.which(|at, found| match found {
            Finding::Fetched { fetched, not_by_top: false, .. } => {
                fetched.whole.is_none() && wanted(at)
            }
            _ => false,
        })
    }

    /// Whether that message came whole.
    pub fn is_whole(&self, at: usize) -> bool {
        self.found[at].whole().is_some()
    }

    /// Those whose header TOP told without its end.
    pub fn cut_short(&self) -> Vec<(usize, u32)> {
        self.which(|_, found| {
            found
                .fetched()
                .is_some_and(|fetched| !fetched.of.header_ended && fetched.whole.is_none())
        })
    }

    /// For each message, whether its header says too little, as in a capture from disk: it does not
    /// name its message, stands at two, or has no end. `None` where no header is known.
    pub fn saying_little(&self) -> Vec<Option<bool>> {
        let mut headers = Headers::default();
        self.found
            .iter()
            .filter_map(Finding::fetched)
            .for_each(|fetched| headers.count(&fetched.of));
        let says_little = |fetched: &Fetched| headers.say_little_of(&fetched.of);
        self.found.iter().map(|found| found.fetched().map(says_little)).collect()
    }

    /// Whether TOP has told of a message.
    pub fn is_any_by_top(&self) -> bool {
        self.found
            .iter()
            .any(|found| found.fetched().is_some_and(|fetched| fetched.whole.is_none()))
    }

    /// Whether a message came whole.
    pub fn is_any_whole(&self) -> bool {
        self.found.iter().any(|found| found.whole().is_some())
    }

    /// Takes an answer, and says whether nothing was known of the message before.
    pub fn take(&mut self, at: usize, ask: Ask, answer: Result<Fetched, ErrReply>) -> bool {
        let is_first = matches!(self.found[at], Finding::Nothing);
        match answer {
            Ok(fetched) if ask == Ask::WholeByTop && !self.is_as_listed(at, &fetched) => {
                if let Finding::Fetched { not_by_top, .. } = &mut self.found[at] {
                    *not_by_top = true;
                }
            }
            Ok(fetched) => {
                self.found[at] =
                    Finding::Fetched { fetched, not_retrieved: None, not_by_top: false };
            }
            Err(refusal) => self.give_up(at, ask, Unread::Refused(refusal)),
        }
        is_first
    }

    /// Whether a message that came by TOP is as long as LIST says. Some servers give no more lines
    /// than they like, mailutils one more than there are.
    fn is_as_listed(&self, at: usize, fetched: &Fetched) -> bool {
        fetched.whole.is_some_and(|wire| wire.octets == self.listed[at].octets)
    }

    /// Whether a message that was retrieved is shorter than LIST says. That proves nothing: servers
    /// list sizes of files, or count otherwise.
    pub fn is_short(&self, at: usize, fetched: &Fetched) -> bool {
        fetched.whole.is_some_and(|wire| wire.octets < self.listed[at].octets)
    }

    /// The messages whose RETR is not believed yet, by UIDL.
    pub fn doubted_uidls(&self) -> DoubtedMessages {
        let doubted = self.doubted.iter();
        doubted.map(|(&at, octets)| (self.listed[at].uidl.clone(), *octets)).collect()
    }

    /// Whether messages brought more than `before` by UIDL; `None` where there is nothing to
    /// compare.
    pub fn brought_more(&self, before: &DoubtedMessages) -> Option<bool> {
        let all = self.listed.iter().zip(&self.found);
        let more = all.filter_map(|(listed, found)| {
            Some(found.whole()?.octets > (*before.get(&listed.uidl)?)?)
        });
        more.reduce(|any, more| any | more)
    }

    /// Forgets refusals, so that the messages are asked for anew.
    pub fn forget_refused(&mut self) {
        for found in self.found.iter_mut().filter(|found| found.refusal().is_some()) {
            *found = Finding::Nothing;
        }
    }

    /// The first refusal for a passing reason, where there are more of these than a mailbox has
    /// broken messages.
    pub fn refused_for_now(&self) -> Option<(Ask, &ErrReply)> {
        let passing = || {
            let refusals = self.found.iter().filter_map(Finding::refusal);
            refusals.filter(|(_, refusal)| refusal.is_temporary())
        };
        passing().next().filter(|_| passing().count() > few_of(self.found.len()))
    }

    /// Notes why no more is known of a message.
    pub fn give_up(&mut self, at: usize, ask: Ask, why: Unread) {
        match &mut self.found[at] {
            // The header is still good.
            Finding::Fetched { not_retrieved, not_by_top, .. } => match ask {
                Ask::Retr => *not_retrieved = Some(why.to_string()),
                Ask::WholeByTop => *not_by_top = true,
                Ask::Top { .. } => {}
            },
            found => *found = Finding::Unread { ask, why },
        }
    }
}
