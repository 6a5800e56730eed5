//! The findings of one session about the messages that it listed, and their block: [`Findings`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::capture::draft::{Captured, Draft, Remarks};
use crate::capture::keys::Headers;
use crate::capture::keys::Keys;
use crate::capture::pop3::fault::ErrReply;
use crate::capture::pop3::fetch::{Ask, Fetched, Wire};
use crate::capture::pop3::listing::Listed;
use crate::capture::pop3::uidl_shape::UidlShape;
use crate::key::Fingerprints;
use crate::maildrop::{Entry, Name, few_of};
use crate::text::printable;
use crate::uidl::Uidl;

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
    fn whole(&self) -> Option<Wire> {
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

    /// Makes the block of it. `seen` is every UIDL that was ever listed.
    pub fn finish(
        self,
        user: String,
        source: String,
        keys: Keys,
        seen: HashSet<Box<[u8]>>,
        mut remarks: Remarks,
    ) -> Captured {
        let says_little = self.saying_little();
        let uidls: Vec<Option<Uidl>> = self
            .listed
            .iter()
            .map(|listed| match Uidl::new(listed.uidl.clone()) {
                Ok(uidl) => Some(uidl),
                Err(bad) => {
                    remarks.loss(format!(
                        "message {}: {bad}: {}",
                        listed.number,
                        printable(&listed.uidl)
                    ));
                    None
                }
            })
            .collect();
        let mut spent: Vec<Uidl> =
            seen.into_iter().filter_map(|uidl| Uidl::new(uidl).ok()).collect();
        spent.sort_unstable();
        let known: Vec<Uidl> = uidls.iter().flatten().chain(&spent).cloned().collect();
        let shape = UidlShape::of(&known);

        let mut draft = Draft { user, source, spent, ..Draft::default() };
        let mut too_little = 0;
        let mut nameless: Option<(usize, String)> = None;
        for (at, (listed, uidl)) in self.listed.iter().zip(uidls).enumerate() {
            let Some(uidl) = uidl else { continue };
            let found = &self.found[at];
            let fetched = found.fetched();
            let wants_message = keys.message || (keys.header && says_little[at] == Some(true));
            let entry = Entry {
                uid: shape.uid_of(&uidl),
                octets: found.whole().and_then(|wire| octets(wire, listed)),
                file: (keys.file && shape.are_file_names)
                    .then(|| Name::Spelled(uidl.as_bytes().into())),
                ..Entry::new(uidl)
            };
            let entry = match fetched {
                Some(fetched) => {
                    let message = fetched.of.message.filter(|_| wants_message);
                    keys.with_prints(entry, &Fingerprints { message, ..fetched.of })
                }
                None => entry,
            };
            match found {
                Finding::Unread { ask, why } => {
                    let why = format!("{} {why}", ask.command());
                    let what = if entry.file.is_some() { "it has no fingerprints" } else { NO_KEY };
                    remarks
                        .loss(format!("message {}, {}: {why}; {what}", listed.number, entry.uidl));
                }
                Finding::Fetched { not_retrieved: Some(why), .. } => {
                    remarks.note(format!("message {}, {}: RETR {why}", listed.number, entry.uidl));
                }
                Finding::Fetched { .. } | Finding::Nothing => {}
            }
            let is_half_known = fetched.is_some() && found.whole().is_none();
            let Some(keyless) = draft.keep(entry) else {
                too_little += usize::from(wants_message && is_half_known);
                continue;
            };
            if is_half_known {
                let first = || (0, format!("message {}, {keyless}", listed.number));
                nameless.get_or_insert_with(first).0 += 1;
            } else if fetched.is_some() {
                draft.keyless.get_or_insert((0, keyless)).0 += 1;
            }
        }
        if let Some((count, first)) = nameless {
            remarks.loss(format!(
                "{count} messages have a header that does not name them, and did not come whole \
                 (first: {first}): their unique-ids are spent, and they will be downloaded again, \
                 unless you allow RETR (--retrieve) or capture them on the old server's disk"
            ));
        }
        if too_little > 0 {
            remarks.note(format!(
                "{too_little} messages did not come whole and have a header that does not tell \
                 them apart, or no end of it: what is known by nothing else there may be \
                 downloaded again"
            ));
        }
        let UidlShape { uidvalidity, counter, .. } = shape;
        Draft { uidvalidity, counter, remarks, ..draft }.finish()
    }
}

const NO_KEY: &str = "nothing is known to recognise it by, and it will be downloaded again";

/// The size of a message that was retrieved, where it is as LIST has it: servers list sizes of
/// files, add what they add to the mail, and end the last line where the message does not.
fn octets(wire: Wire, listed: &Listed) -> Option<u64> {
    (wire.octets == listed.octets && !wire.has_cr_cr_lf).then_some(wire.octets)
}
