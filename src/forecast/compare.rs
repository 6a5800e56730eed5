//! Compares what will be answered with what was captured: [`Forecast`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use arrayvec::ArrayVec;

use crate::key::Fingerprint;
use crate::ledger::{Provenance, Record};
use crate::maildrop::{Entry, Maildrop};
use crate::resolve::{Fact, Message, Resolution};
use crate::uidl::Uidl;

/// What clients of one maildrop will see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// How many messages are here.
    pub messages: usize,
    /// How many messages of the last capture are expected here: those that were deleted here since
    /// they were listed are not.
    pub captured: usize,
    /// How many of these keep their UIDL.
    pub kept: usize,
    /// The messages that keep a UIDL, in the order of the POP3 listing.
    pub keeping: Vec<KeptMessage>,
    /// How many messages keep a UIDL by each kind of evidence, those that the last capture had not
    /// among them.
    pub by_provenance: HashMap<Provenance, usize>,
    /// How many messages were new here and were listed already.
    pub listed: usize,
    /// The messages of the last capture that are not recognised here.
    pub missing: Vec<Missing>,
    /// The messages that clients do not know by the UIDL that they will get.
    pub new: Vec<NewMessage>,
    /// How many messages that are kept had another UIDL in an earlier capture.
    pub other_uidl: usize,
    /// How many messages share their UIDL with another.
    pub repeated: usize,
    /// Whether the messages that are kept stand in their old order.
    pub is_in_order: bool,
    /// How many messages cannot be read.
    pub unreadable: usize,
    /// Whether a login is refused as long as so few of the captured messages are here.
    pub is_refused: bool,
}

/// A message that keeps a UIDL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// Its UID here.
    pub uid: u32,
    /// Its UIDL.
    pub uidl: Uidl,
}

/// A message of the last capture that is not recognised here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its UIDL.
    pub uidl: Uidl,
    /// Why not.
    pub because: MissingBecause,
}

/// Why a captured message is not recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MissingBecause {
    /// No message here that could be it has a key of it.
    NotCopied,
    /// A message here has a key of it, and another key differs.
    Changed,
    /// A message here has a key of it, and so may others, or the key is one that a new mail can
    /// have, too.
    Ambiguous,
}

/// A message that clients do not know by the UIDL that it will get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its place among the messages by UID.
    pub at: usize,
    /// Its UID here.
    pub uid: u32,
    /// Whether it seems to be one that was captured, so that clients download it again.
    pub is_again: bool,
}

/// A maildrop in one sign, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForecastSign {
    /// Could not tell.
    Unknown,
    /// Messages that were captured get another UIDL, or the old order does not hold.
    Changed,
    /// Messages that were captured are not here.
    Missing,
    /// There are new messages beside the captured ones.
    NewOnly,
    /// There is what was captured, and nothing else.
    Whole,
}

impl ForecastSign {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Changed, Self::Missing, Self::NewOnly, Self::Whole];

    /// The sign, as it is printed.
    pub fn as_char(self) -> char {
        match self {
            Self::Unknown => '!',
            Self::Changed => '*',
            Self::Missing => '-',
            Self::NewOnly => '+',
            Self::Whole => '=',
        }
    }
}

impl Forecast {
    /// The forecast of a user whose maildrop is not here.
    pub fn of_nothing(captured: &Maildrop) -> Self {
        let missing = captured
            .last_entries()
            .map(|entry| Missing { uidl: entry.uidl.clone(), because: MissingBecause::NotCopied });
        let missing: Vec<Missing> = missing.collect();
        Self { captured: missing.len(), missing, is_in_order: true, ..Self::default() }
    }

    /// The forecast that the rules make of these messages.
    pub(super) fn of(captured: &Maildrop, messages: &[Message], resolution: &Resolution) -> Self {
        let records = &resolution.ledger.records;
        let here: Vec<&Record> = records.iter().filter(|record| record.uid != 0).collect();
        let last = captured.captures.len().saturating_sub(1);
        let is_last = |entry: &Entry| entry.last_capture as usize >= last;
        let claimed: HashSet<usize> =
            records.iter().filter_map(|record| Some(record.entry? as usize)).collect();
        let entry_of = |record: &Record| captured.entries.get(record.entry? as usize);

        let mut forecast = Self { messages: messages.len(), ..Self::default() };
        for record in &here {
            if !record.provenance.is_kept() {
                forecast.listed += 1;
                continue;
            }
            *forecast.by_provenance.entry(record.provenance).or_default() += 1;
            let Some(entry) = entry_of(record) else { continue };
            forecast.kept += usize::from(is_last(entry));
            // A client that was told the earlier one goes on being told it.
            let is_later = record.uidl == entry.uidl && !entry.earlier.is_empty();
            forecast.other_uidl += usize::from(is_later);
        }
        let mut kept: Vec<&&Record> = here.iter().filter(|r| r.provenance.is_kept()).collect();
        kept.sort_by_key(|record| (record.order, record.uid));
        let kept =
            kept.into_iter().map(|r| KeptMessage { uid: r.uid, uidl: r.uidl.clone() }).collect();
        forecast.keeping = kept;
        forecast.is_in_order = is_in_order(&here);
        forecast.repeated = count_repeated(&here);
        forecast.unreadable = resolution.passing.len();

        let answered: HashSet<u32> =
            here.iter().copied().chain(&resolution.passing).map(|record| record.uid).collect();
        let is_unknown = |at: &usize| !answered.contains(&messages[*at].uid);
        let unknown: Vec<usize> = (0..messages.len()).filter(is_unknown).collect();
        let missing = captured.entries.iter().enumerate();
        let missing = missing.filter(|(e, entry)| is_last(entry) && !claimed.contains(e));
        let mut kin = Kin::of(messages, &unknown);
        for (_, entry) in missing {
            let because = kin.take(entry);
            forecast.missing.push(Missing { uidl: entry.uidl.clone(), because });
        }
        let is_again = |at: usize| kin.taken.contains(&at);
        let new = unknown.iter().map(|&at| {
            let uid = messages[at].uid;
            NewMessage { at, uid, is_again: is_again(at) }
        });
        forecast.new = new.collect();
        forecast.captured = forecast.kept + forecast.missing.len();
        forecast
    }

    /// The same of a user for whom the old order is not kept: no order is held against another, and
    /// who keeps his UIDL is listed by UID.
    pub(super) fn forget_order(&mut self) {
        self.is_in_order = true;
        self.keeping.sort_by_key(|kept| kept.uid);
    }

    /// How many messages are missing for that reason.
    pub fn missing_because(&self, because: MissingBecause) -> usize {
        self.missing.iter().filter(|missing| missing.because == because).count()
    }

    /// How many captured messages clients will download again.
    pub fn again(&self) -> usize {
        self.new.iter().filter(|new| new.is_again).count()
    }

    /// The maildrop in one sign.
    pub fn sign(&self) -> ForecastSign {
        let is_changed = self.missing.len() > self.missing_because(MissingBecause::NotCopied)
            || self.other_uidl > 0
            || !self.is_in_order;
        match () {
            () if self.unreadable > 0 => ForecastSign::Unknown,
            () if is_changed => ForecastSign::Changed,
            () if !self.missing.is_empty() => ForecastSign::Missing,
            () if !self.new.is_empty() => ForecastSign::NewOnly,
            () => ForecastSign::Whole,
        }
    }
}

/// Whether the captured messages stand in the order that they had on the old server.
fn is_in_order(here: &[&Record]) -> bool {
    let kept = here.iter().filter_map(|record| Some((record.order, record.entry?)));
    let mut kept: Vec<(u32, u32)> = kept.collect();
    kept.sort_unstable();
    kept.is_sorted_by_key(|(_, entry)| *entry)
}

fn count_repeated(here: &[&Record]) -> usize {
    let mut uidls: Vec<&Uidl> = here.iter().map(|record| &record.uidl).collect();
    uidls.sort_unstable();
    uidls.chunk_by(|a, b| a == b).map(<[_]>::len).filter(|&len| len > 1).sum()
}

/// The unknown messages by the keys that they may have in common with a missing one.
struct Kin<'a> {
    messages: &'a [Message],
    by_name: HashMap<[u8; 16], Vec<usize>>,
    by_print: HashMap<Fingerprint, Vec<usize>>,
    /// The messages that a missing one was found in.
    taken: HashSet<usize>,
}

impl<'a> Kin<'a> {
    fn of(messages: &'a [Message], unknown: &[usize]) -> Self {
        let (mut by_name, mut by_print) = (HashMap::new(), HashMap::new());
        // Each list is taken from its end: the lowest UID goes first.
        for &at in unknown.iter().rev() {
            let message = &messages[at];
            let names = match message.names() {
                Fact::Is(names) => names,
                Fact::NotAsked | Fact::Absent => ArrayVec::new(),
            };
            for name in names {
                by_name.entry(name.cut).or_insert_with(Vec::new).push(at);
            }
            for print in [message.details.message, message.details.header, message.details.origin] {
                if let Fact::Is(print) = print {
                    by_print.entry(print).or_insert_with(Vec::new).push(at);
                }
            }
        }
        Self { messages, by_name, by_print, taken: HashSet::new() }
    }

    /// Takes a message that has a key of the entry. No message is taken twice.
    fn take(&mut self, entry: &Entry) -> MissingBecause {
        let names = entry.file_keys().map(|key| key.cut);
        let found = names.into_iter().find_map(|cut| pop(self.by_name.get_mut(&cut), &self.taken));
        let found = found.or_else(|| {
            let prints = [entry.message, entry.header, entry.origin];
            let mut prints = prints.into_iter().flatten();
            prints.find_map(|print| pop(self.by_print.get_mut(&print), &self.taken))
        });
        let Some(at) = found else { return MissingBecause::NotCopied };
        self.taken.insert(at);
        let message = &self.messages[at];
        let differs = |captured: Option<Fingerprint>, here: Fact<Fingerprint>| match here {
            Fact::Is(here) => captured.is_some_and(|captured| captured != here),
            Fact::NotAsked | Fact::Absent => false,
        };
        if differs(entry.header, message.details.header)
            || differs(entry.message, message.details.message)
        {
            MissingBecause::Changed
        } else {
            MissingBecause::Ambiguous
        }
    }
}

fn pop(places: Option<&mut Vec<usize>>, taken: &HashSet<usize>) -> Option<usize> {
    let places = places?;
    while let Some(at) = places.pop() {
        if !taken.contains(&at) {
            return Some(at);
        }
    }
    None
}
