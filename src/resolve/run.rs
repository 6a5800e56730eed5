//! One application of the rules: [`resolve`].
#![forbid(unsafe_code)]

use std::cell::LazyCell;

use hashbrown::{HashMap, HashSet};

use super::answer::{Outcome, Report, Resolution, Undecidable};
use super::conclusion::Conclusion;
use super::derived::derived;
use super::message::Message;
use super::places::entries_by_uidl;
use super::question::{Fact, Memory, Need, Purpose, Situation};
use super::rank::{Group, ListingRank, WasListed, is_ours, replay_all_or_none};
use super::rehearsed::without_rehearsal;
use super::settled::{has_unclaimed, unclaimed_keys};
use super::spent::{NEVER_REACHED, Spent};
use crate::format::UidlFormat;
use crate::ledger::{
    AnyLedger, Epoch, FIRST_ORDER, Ledger, LedgerHead, MAX_NEXT_ORDER, MAX_TOLD, Mark, NameHash,
    NameHashes, Noted, Provenance, Record, Told, UnclaimedKeys, join_told,
};
use crate::maildrop::{CapturedEntry, CapturedMaildrop, few_of};
use crate::uidl::{Uidl, UidlRef};

/// How many of so many messages may be unreadable before it is no accident any more (rule 10).
pub fn most_unreadable(messages: usize) -> usize {
    few_of(messages)
}

/// Applies the rules.
///
/// `messages` are those of the maildrop, ascending by UID. The cost is a few passes over entries
/// and messages, whatever repeats in them. An [`Outcome::Ask`] names each message at most once for
/// each kind of fact.
pub fn resolve(user: &str, situation: &Situation<'_>, messages: &[Message]) -> Outcome {
    resolve_with(user, situation, messages, |conclusion| Ledger::of(conclusion))
}

/// Does the same, and takes of the new ledger what the caller makes of it: nothing else copies it.
pub fn resolve_with<L>(
    user: &str,
    situation: &Situation<'_>,
    messages: &[Message],
    take: impl FnOnce(&Conclusion<'_, '_>) -> L,
) -> Outcome<L> {
    let without = without_rehearsal(user, situation, messages);
    let messages = without.messages.as_deref().unwrap_or(messages);
    let mut run = Run::new(user, &without.situation, messages);
    run.first_order = without.first_order;
    match run.decide().and_then(|()| run.resolution(take)) {
        Ok(resolution) => Outcome::Resolved(Box::new(resolution)),
        Err(Pause::Ask(asked)) => Outcome::Ask(asked),
        Err(Pause::AskCaptured) => Outcome::AskCaptured,
        Err(Pause::Refuse(why)) => Outcome::Refused(why),
    }
}

/// Why the rules cannot go on.
pub(super) enum Pause {
    Ask(Vec<(usize, Need)>),
    AskCaptured,
    Refuse(Undecidable),
}

pub(super) fn ask(wanted: Vec<(usize, Need)>) -> Result<(), Pause> {
    if wanted.is_empty() { Ok(()) } else { Err(Pause::Ask(wanted)) }
}

/// What became of a message so far.
#[derive(Debug, Clone, Copy)]
pub(super) enum MessageState<'a> {
    /// It has no answer yet.
    Open,
    /// It is new, and no further evidence may claim for it.
    Unknown,
    /// It was listed before: UIDL and place stay.
    Listed(&'a Record),
    /// It got an answer now.
    Matched(Matched),
}

/// An answer that was found now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matched {
    pub(super) entry: Option<u32>,
    pub(super) source: UidlSource,
    pub(super) provenance: Provenance,
}

/// Where the UIDL is that a message is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UidlSource {
    /// It is that of the entry.
    Entry,
    /// Storage has it.
    Storage,
    /// Dovecot alone would give it.
    Native,
    /// It is one of ours: [`Run::derived`].
    Derived,
}

/// Who has an entry so far (rule 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Nobody: a message may claim it.
    Free,
    /// The record with this order number, whether its message is there or gone.
    OfRecord { order: u32 },
    /// A message that is not in the ledger.
    OfNew,
}

/// One application of the rules.
pub(super) struct Run<'a> {
    pub(super) user: &'a str,
    pub(super) situation: &'a Situation<'a>,
    pub(super) messages: &'a [Message],
    /// The ledger, unless it was forgotten.
    pub(super) ledger: Option<&'a Ledger>,
    /// The ledger, if it was forgotten: it counts for no message any more.
    pub(super) void: Option<&'a Ledger>,
    /// The mark, unless it was forgotten, where it knows more than the ledger.
    pub(super) newer_mark: Option<&'a Mark>,
    /// Whether the UIDs of the ledger, forgotten or not, still mean what they meant.
    uids_hold: bool,
    /// What became of each message.
    pub(super) states: Vec<MessageState<'a>>,
    /// The UIDLs of ours, by the places of their messages.
    derived: HashMap<usize, Uidl>,
    /// Who has each entry.
    claims: Vec<Claim>,
    pub(super) spent: Spent<'a>,
    /// UIDs of messages whose names disagree.
    pub(super) conflicts: Vec<u32>,
    /// No new order number is lower.
    first_order: u32,
}

impl<'a> Run<'a> {
    fn new(user: &'a str, situation: &'a Situation<'a>, messages: &'a [Message]) -> Self {
        let entries = situation.captured.map_or(0, CapturedMaildrop::len);
        let Memory { ledger, mark } = situation.memory;
        let is_void = |begun_after: u64| begun_after < situation.stamps.forgotten;
        let (void, ledger) = match ledger {
            Some(ledger) if is_void(ledger.begun_after) => (Some(ledger), None),
            ledger => (None, ledger),
        };
        let newer_mark = mark.filter(|mark| {
            let known = ledger.map_or((0, 0), |ledger| (ledger.begun_after, ledger.next_order));
            !is_void(mark.begun_after) && (mark.begun_after, mark.next_order) > known
        });
        Self {
            user,
            situation,
            messages,
            ledger,
            void,
            newer_mark,
            uids_hold: false,
            states: vec![MessageState::Open; messages.len()],
            derived: HashMap::new(),
            claims: vec![Claim::Free; entries],
            spent: Spent::new(situation, messages),
            conflicts: Vec::new(),
            first_order: FIRST_ORDER,
        }
    }

    fn decide(&mut self) -> Result<(), Pause> {
        self.refuse_older_index()?;
        self.find_listed_by_uid()?;
        self.ask_names()?;
        self.replay_listed();
        self.reclaim();
        self.ask_for_captured()?;
        self.match_all()?;
        self.refuse_unreadable()?;
        if let Purpose::Listing { guarded } = self.situation.purpose {
            self.refuse_few(guarded)?;
            self.answer_unknown()?;
        }
        Ok(())
    }

    pub(super) fn entry_count(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn entry(&self, e: usize) -> CapturedEntry<'a> {
        self.situation.captured.expect("it has entries").entry(e)
    }

    /// An index with less than the one that clients were told from was put back from a backup.
    fn refuse_older_index(&self) -> Result<(), Pause> {
        let (Some(ledger), Some(_)) = (self.ledger, self.situation.captured) else {
            return Ok(());
        };
        let (then, now) = (ledger.index, self.noted());
        let what = if now.uidls < then.uidls {
            "it has fewer UIDLs"
        } else if now.next < then.next {
            "the old server counted further"
        } else if then.is_final && !now.is_final {
            "that one was final"
        } else {
            return Ok(());
        };
        Err(Pause::Refuse(Undecidable::OlderIndex { what }))
    }

    /// Rule 2: finds listed messages by UID, as long as UIDs hold.
    ///
    /// An index of a dbox that was put back from a backup has its old id, and gives UIDs again from
    /// its old next UID on. Then another message has the UID of the last one that was listed. One
    /// name tells.
    fn find_listed_by_uid(&mut self) -> Result<(), Pause> {
        let Situation { epoch, memory, .. } = *self.situation;
        let Some(ledger) = self.ledger.or(self.void) else { return Ok(()) };
        let has_counted_back = |mark: &Mark| {
            mark.epoch.uidvalidity == epoch.uidvalidity && !mark.epoch.goes_on_in(epoch)
        };
        if !ledger.epoch.goes_on_in(epoch) || memory.mark.is_some_and(has_counted_back) {
            return Ok(());
        }
        let by_uid: HashMap<u32, &Record> =
            ledger.records.iter().filter(|r| r.uid != 0).map(|r| (r.uid, r)).collect();
        let listed: Vec<_> =
            self.messages.iter().map(|message| by_uid.get(&message.uid).copied()).collect();
        let same_index = ledger.epoch.index_id == epoch.index_id;
        let has_name = |m: &usize| listed[*m].is_some_and(|record| !record.names.is_empty());
        let mut named = (0..listed.len()).rev().filter(has_name).peekable();
        let is_any_named = named.peek().is_some();
        let last = named.find(|&m| !self.messages[m].unreadable);
        // Where none of them can be read, no name tells that it is the same index.
        let same_index = same_index && (last.is_some() || !is_any_named);
        if let Some(m) = last.filter(|_| same_index && !self.situation.is_maildir) {
            self.ask_name_of(m)?;
        }
        let (mut agree, mut disagree) = (0, 0);
        for (message, record) in self.messages.iter().zip(&listed) {
            let Some(record) = record.filter(|record| !record.names.is_empty()) else { continue };
            let bears = |name: NameHash| record.names.contains(&name);
            let agrees = match (message.uidlist_name(), message.names()) {
                (Some(name), _) if bears(name) => true,
                // If the index id is not enough, names are asked for.
                (_, Fact::NotAsked) => !self.situation.is_maildir && same_index,
                (_, Fact::Is(_) | Fact::Absent) => message.name_hashes().into_iter().any(bears),
            };
            *(if agrees { &mut agree } else { &mut disagree }) += 1;
        }
        // Where no name can agree, the list of UIDs must be the very one that was there.
        let is_list = same_index || self.situation.is_maildir;
        self.uids_hold = disagree == 0 && (agree > 0 || is_list);
        if self.uids_hold && self.ledger.is_some() {
            self.states = listed
                .into_iter()
                .map(|record| record.map_or(MessageState::Open, MessageState::Listed))
                .collect();
        }
        Ok(())
    }

    fn ask_name_of(&self, m: usize) -> Result<(), Pause> {
        let message = &self.messages[m];
        let is_known = message.unreadable || message.has_asked_names();
        ask(if is_known { Vec::new() } else { vec![(m, Need::Names)] })
    }

    /// Rule 3: names cost little, but not nothing. They are asked for only of messages that were
    /// not listed.
    fn ask_names(&self) -> Result<(), Pause> {
        let wanted = (0..self.messages.len())
            .filter(|&m| !matches!(self.states[m], MessageState::Listed(_)))
            .filter(|&m| !self.messages[m].unreadable && !self.messages[m].has_asked_names())
            .map(|m| (m, Need::Names));
        let wanted: Vec<_> = wanted.collect();
        if !wanted.is_empty() {
            self.refuse_unreadable()?;
        }
        ask(wanted)
    }

    /// Rule 3: without the index, only the ledger of a settled maildrop can answer.
    fn ask_for_captured(&self) -> Result<(), Pause> {
        if self.situation.captured.is_some() {
            return Ok(());
        }
        let Some(ledger) = self.ledger else { return Err(Pause::AskCaptured) };
        let is_new = |m: usize| {
            let message = &self.messages[m];
            ledger.native_from.is_some_and(|from| message.uid >= from)
                && message.stored().is_none()
                && !has_unclaimed(&ledger.unclaimed, message)
        };
        let Situation { basis, stamps, .. } = *self.situation;
        // A message that would have to be read may bear the name of an entry that is claimed. The
        // rules read none of these, and one that cannot be read would have another answer.
        let is_settled = self.uids_hold
            && ledger.index.basis == basis
            && ledger.restored >= stamps.restored
            && self.newer_mark.is_none()
            && ledger.unclaimed.reads().is_none()
            && self.open_messages().into_iter().all(is_new);
        if is_settled { Ok(()) } else { Err(Pause::AskCaptured) }
    }

    /// Rule 2: replays what was listed, by UID or, where UIDs do not hold, by name.
    fn replay_listed(&mut self) {
        let Some(ledger) = self.ledger else { return };
        if !self.uids_hold {
            self.find_listed_by_name(ledger);
        }
        let captured = self.situation.captured;
        let entries_of = LazyCell::new(|| entries_by_uidl(captured));
        // A record claims the entry at its place, if that has its UIDL. In an index that was built
        // anew it claims any free entry with its UIDL. Exact claims go first.
        let exact = |record: &Record| {
            let e = record.entry? as usize;
            let entry = captured.filter(|captured| e < captured.len())?.entry(e);
            let uidl = UidlRef::from(&record.uidl);
            let has_it = entry.uidl() == uidl
                || (entry.has_earlier() && entries_of.get(&uidl).binary_search(&e).is_ok());
            has_it.then_some(e)
        };
        let exact: Vec<Option<usize>> = ledger.records.iter().map(exact).collect();
        let mut loose = Vec::new();
        for (record, exact) in ledger.records.iter().zip(exact) {
            match exact {
                Some(e) if self.is_free(e) => self.replay_claim(record, e),
                _ => loose.push(record),
            }
        }
        let mut next: HashMap<&Uidl, usize> = HashMap::new();
        for record in loose {
            let places = entries_of.get(&UidlRef::from(&record.uidl));
            // Records with one UIDL go through its entries once, together.
            let at = next.entry(&record.uidl).or_default();
            while let Some(&e) = places.get(*at) {
                *at += 1;
                if self.is_free(e) {
                    self.replay_claim(record, e);
                    break;
                }
            }
        }
    }

    fn replay_claim(&mut self, record: &Record, e: usize) {
        self.claims[e] = Claim::OfRecord { order: record.order };
    }

    fn listed(&self) -> impl Iterator<Item = (usize, &'a Record)> + '_ {
        self.states.iter().enumerate().filter_map(|(m, state)| match state {
            MessageState::Listed(record) => Some((m, *record)),
            _ => None,
        })
    }

    /// Messages take the records that were listed under the very same names. Messages that share
    /// only one name with a record come later, in [`Run::reclaim`].
    fn find_listed_by_name(&mut self, ledger: &'a Ledger) {
        let records: Vec<&Record> = ledger.records.iter().collect();
        for (record, m) in self.pair_by_name(&records, PairBy::AllNames) {
            self.states[m] = MessageState::Listed(record);
        }
    }

    /// Rule 2: a message that went and came back under its name takes its UIDL and its place again,
    /// where no message that was listed bears that name, the lowest UID first.
    fn reclaim(&mut self) {
        let Some(ledger) = self.ledger else { return };
        let present: HashSet<u32> = self.listed().map(|(_, record)| record.order).collect();
        let is_gone = |record: &&Record| !present.contains(&record.order);
        let gone: Vec<&Record> = ledger.records.iter().filter(is_gone).collect();
        for (record, m) in self.pair_by_name(&gone, PairBy::AnyName) {
            self.states[m] = MessageState::Listed(record);
        }
    }

    /// Pairs records with open messages by name. Of equal names, records that were there at the
    /// last listing go first, in their order, to messages by UID.
    fn pair_by_name(&self, records: &[&'a Record], by: PairBy) -> Vec<(&'a Record, usize)> {
        let mut of_name: HashMap<[NameHash; 2], (Vec<&'a Record>, Vec<usize>)> = HashMap::new();
        for &record in records {
            for key in by.keys(record.names.iter().copied()) {
                of_name.entry(key).or_default().0.push(record);
            }
        }
        for (m, message) in self.messages.iter().enumerate() {
            if matches!(self.states[m], MessageState::Open) {
                for key in by.keys(message.name_hashes().into_iter()) {
                    if let Some((_, messages)) = of_name.get_mut(&key) {
                        messages.push(m);
                    }
                }
            }
        }
        let mut groups: Vec<_> =
            of_name.into_iter().filter(|(_, (_, messages))| !messages.is_empty()).collect();
        groups.sort_unstable_by_key(|(name, _)| *name);
        let (mut taken, mut answered) = (HashSet::new(), HashSet::new());
        let mut pairs = Vec::new();
        for (_, (mut records, messages)) in groups {
            records.retain(|record| !taken.contains(&record.order));
            let mut free = messages.into_iter().filter(|m| !answered.contains(m));
            let mut free: Vec<usize> = free.by_ref().collect();
            records.sort_unstable_by_key(|record| (record.uid == 0, record.order));
            records.truncate(free.len());
            records.sort_unstable_by_key(|record| record.order);
            free.truncate(records.len());
            for (record, m) in records.into_iter().zip(free) {
                taken.insert(record.order);
                answered.insert(m);
                pairs.push((record, m));
            }
        }
        pairs
    }

    pub(super) fn is_open(&self, m: usize) -> bool {
        matches!(self.states[m], MessageState::Open)
    }

    pub(super) fn open_messages(&self) -> Vec<usize> {
        (0..self.messages.len()).filter(|&m| self.is_open(m)).collect()
    }

    pub(super) fn is_free(&self, e: usize) -> bool {
        self.claims[e] == Claim::Free
    }

    pub(super) fn claim(&mut self, m: usize, e: usize, provenance: Provenance) {
        self.claim_as(m, e, provenance, UidlSource::Entry);
    }

    /// Rule 1: one entry, one message.
    pub(super) fn claim_as(
        &mut self,
        m: usize,
        e: usize,
        provenance: Provenance,
        source: UidlSource,
    ) {
        debug_assert!(self.is_open(m) && self.is_free(e));
        self.claims[e] = Claim::OfNew;
        let entry = Some(u32::try_from(e).expect("a block fits 32 bits"));
        self.answer(m, Matched { entry, source, provenance });
    }

    pub(super) fn answer(&mut self, m: usize, matched: Matched) {
        // An entry's UIDL is spent as it is. Only a forgotten ledger can have told it to another
        // message.
        if matched.entry.is_none() || self.void.is_some() {
            let message = &self.messages[m];
            let held = match matched.source {
                UidlSource::Storage => message.stored().cloned(),
                UidlSource::Native => message.details.native.get().cloned(),
                UidlSource::Derived => self.derived.get(&m).cloned(),
                UidlSource::Entry => None,
            };
            self.spent.answer(held.unwrap_or_else(|| self.uidl_of(m, matched).to_uidl()));
        }
        self.states[m] = MessageState::Matched(matched);
    }

    /// The UIDL of an answer that was found now.
    #[inline]
    pub(super) fn uidl_of(&self, m: usize, matched: Matched) -> UidlRef<'_> {
        let message = &self.messages[m];
        let held = match matched.source {
            UidlSource::Entry => {
                let e = matched.entry.expect("it has claimed one");
                return self.entry(e as usize).uidl();
            }
            UidlSource::Storage => message.stored(),
            UidlSource::Native => message.details.native.get(),
            UidlSource::Derived => self.derived.get(&m),
        };
        held.expect("it was found there").into()
    }

    /// Rule 10, for messages that have no answer yet.
    pub(super) fn refuse_unreadable(&self) -> Result<(), Pause> {
        let messages = self.messages.len();
        let unreadable = (0..messages).filter(|&m| self.is_undecided(m)).count();
        if unreadable > most_unreadable(messages) {
            return Err(Pause::Refuse(Undecidable::Unreadable { unreadable, messages }));
        }
        Ok(())
    }

    /// Says whether nothing can be recorded of a message.
    fn is_undecided(&self, m: usize) -> bool {
        self.messages[m].unreadable && !self.has_answer(m)
    }

    pub(super) fn has_answer(&self, m: usize) -> bool {
        matches!(self.states[m], MessageState::Listed(_) | MessageState::Matched(_))
    }

    /// Says whether this is the first listing, as far as any memory knows.
    fn is_first(&self) -> bool {
        let Memory { ledger, mark } = self.situation.memory;
        // A damaged mark may be half of anything.
        let is_marked = mark.is_some_and(|mark| mark.told.is_some());
        ledger.is_none() && !is_marked && !self.situation.stamps.listed
    }

    /// Rule 10: an empty or half-copied maildrop makes clients forget what they hold.
    fn refuse_few(&self, guarded: bool) -> Result<(), Pause> {
        let Situation { memory, stamps, captured, .. } = *self.situation;
        let used_up = memory.ledger.map_or(0, |ledger| ledger.unguarded);
        let used_up = used_up.max(memory.mark.map_or(0, |mark| mark.unguarded));
        if stamps.unguarded > used_up {
            return Ok(());
        }
        if let (true, Some(captured)) = (self.is_first(), captured) {
            let last = captured.head().captures.len().saturating_sub(1);
            let is_last = |e: usize| self.entry(e).last_capture() as usize >= last;
            let claimed = |e: &usize| is_last(*e) && !self.is_free(*e);
            let found = (0..self.entry_count()).filter(claimed).count();
            let last = captured.last_entries().filter(|entry| self.is_recognisable(*entry));
            let captured = last.count();
            if guarded && found * 2 < captured {
                let unknown = (0..self.messages.len()).find(|&m| !self.has_answer(m));
                return Err(Pause::Refuse(Undecidable::HalfCopied {
                    found,
                    captured,
                    messages: self.messages.len(),
                    first_unknown: unknown.map(|m| self.messages[m].uid),
                }));
            }
            return Ok(());
        }
        if self.uids_hold || (self.ledger.is_none() && self.mark_holds()) {
            return Ok(());
        }
        let there_before =
            |ledger: &Ledger| ledger.records.iter().filter(|record| record.uid != 0).count();
        let left = match (memory.mark, self.ledger.or(self.void)) {
            (Some(mark), _) if mark.told.is_some() => mark.left as usize,
            (_, Some(ledger)) => there_before(ledger),
            (_, None) => 0,
        };
        let found = match self.ledger.filter(|_| self.newer_mark.is_none()) {
            Some(_) => self.listed().count(),
            None => self.messages.len(),
        };
        if found * 2 < left {
            return Err(Pause::Refuse(Undecidable::MostAreGone { found, left }));
        }
        Ok(())
    }

    /// Says whether the mailbox is still the one that the mark was made for.
    fn mark_holds(&self) -> bool {
        let Situation { memory, epoch, is_maildir, .. } = *self.situation;
        memory.mark.is_some_and(|mark| {
            mark.epoch.goes_on_in(epoch) && (mark.epoch.index_id == epoch.index_id || is_maildir)
        })
    }

    /// Says whether a captured key of the entry could recognise a message.
    fn is_recognisable(&self, entry: CapturedEntry<'_>) -> bool {
        let keys = self.situation.keys;
        (keys.file && entry.file_keys().next().is_some())
            || (keys.message && entry.message().is_some())
            || (keys.header && entry.header().is_some())
            || (keys.origin && entry.origin().is_some())
    }

    /// Rule 6: every message that is not kept gets an answer that no client holds.
    fn answer_unknown(&mut self) -> Result<(), Pause> {
        let unknown: Vec<usize> = (0..self.messages.len())
            .filter(|&m| !self.has_answer(m) && !self.is_undecided(m))
            .collect();
        let wanted = unknown.iter().filter(|&&m| !self.messages[m].details.native.is_asked());
        ask(wanted.map(|&m| (m, Need::Native)).collect())?;
        for m in unknown {
            let message = &self.messages[m];
            let native =
                message.details.native.get().filter(|native| self.may_be_native(m, native));
            let (source, provenance) = match native {
                Some(_) => (UidlSource::Native, Provenance::Native),
                None => {
                    self.derived.insert(m, self.unknown_derived(message));
                    (UidlSource::Derived, Provenance::Derived)
                }
            };
            self.answer(m, Matched { entry: None, source, provenance });
        }
        Ok(())
    }

    /// The derived UIDL of a new message. A derived UIDL that is known is passed over: a copy may
    /// have the UID again that its original had.
    fn unknown_derived(&self, message: &Message) -> Uidl {
        let Epoch { uidvalidity, .. } = self.situation.epoch;
        let mut uidl = derived(self.user, uidvalidity, message, 0);
        for nth in 1.. {
            if !self.spent.is_known(&uidl) {
                break;
            }
            uidl = derived(self.user, uidvalidity, message, nth);
        }
        uidl
    }

    /// Rule 6: says whether no client can hold the native UIDL, but for this very message.
    fn may_be_native(&self, m: usize, native: &Uidl) -> bool {
        let message = &self.messages[m];
        let is_told_to_it = || {
            let void = self.void.filter(|_| self.uids_hold);
            let record = void.and_then(|ledger| record_of(ledger, message.uid));
            record.is_some_and(|record| record.uidl == *native)
        };
        let Some(format) = self.situation.native else { return false };
        // A number alone comes again under another UIDVALIDITY.
        let names_it = format.has_uidvalidity() || self.has_the_name_in(format, m);
        // Where memory is lost, the number may be another message's. A name may have gone and come
        // back, and its place is not known then.
        let may_be_told = match format.is_counting() {
            true => self.spent.is_told_uid(message.uid),
            false => self.newer_mark.is_some(),
        };
        let is_its_own = || {
            message.stored() == Some(native)
                || self.was_native(m)
                || self.was_told_by_mark(m)
                || is_told_to_it()
        };
        names_it
            && !self.is_counted_by_another(m, native)
            && !self.spent.is_borne_by_another(native, m)
            && (!self.spent.is_known(native) || is_told_to_it() && !self.spent.is_answered(native))
            && (!may_be_told || is_its_own())
    }

    /// Says whether the format has the message's own name in it, and there is one.
    fn has_the_name_in(&self, format: &UidlFormat, m: usize) -> bool {
        format.has_guid() || (format.has_file_name() && self.messages[m].uidlist_name().is_some())
    }

    /// Says whether a mark that is newer than the ledger names this very message as a new one.
    pub(super) fn was_native(&self, m: usize) -> bool {
        let message = &self.messages[m];
        self.newer_mark.is_some_and(|mark| {
            let was_native =
                |name| mark.was_native(self.situation.epoch.uidvalidity, message.uid, name);
            message.name_hashes().into_iter().any(was_native)
        })
    }

    /// Says whether only the mark knows that the message was listed, in a dbox whose UIDs can be
    /// believed. On a Maildir the stored UIDL in `dovecot-uidlist` says it, and [`Run::was_native`]
    /// says it of the last new messages.
    fn was_told_by_mark(&self, m: usize) -> bool {
        let Situation { epoch, is_maildir, .. } = *self.situation;
        let Some(mark) = self.newer_mark else { return false };
        let uid = self.messages[m].uid;
        let is_above_ledger = self
            .ledger
            .map(|ledger| ledger.epoch)
            .is_none_or(|of| of.uidvalidity != epoch.uidvalidity || uid >= of.next_uid);
        !is_maildir
            && is_above_ledger
            && mark.epoch.goes_on_in(epoch)
            && uid < mark.epoch.next_uid
            && mark.epoch.index_id == epoch.index_id
            && !mark.has_derived
            && self.last_of_mark_holds(mark)
    }

    /// The last message below the mark's next UID that is there.
    fn last_below(&self, mark: &Mark) -> Option<usize> {
        self.messages.partition_point(|message| message.uid < mark.epoch.next_uid).checked_sub(1)
    }

    /// Says whether the last message that the mark's session listed is still the last below its
    /// next UID. An index that was put back gives UIDs again from its own next UID on.
    fn last_of_mark_holds(&self, mark: &Mark) -> bool {
        let Some(m) = self.last_below(mark) else { return true };
        let message = &self.messages[m];
        message.uid == mark.last_uid
            && message.name_hashes().into_iter().any(|name| name == mark.last_name)
    }

    /// Says whether the mark names the last message below its next UID. Then no message was given a
    /// UID below that since.
    fn counts_on_since(&self, mark: &Mark) -> bool {
        self.last_of_mark_holds(mark) || self.last_below(mark).is_some_and(|m| self.was_native(m))
    }

    /// Says whether a message that the mark names has another UID now: the list of UIDs is another.
    fn has_moved_since(&self, mark: &Mark) -> bool {
        let named = mark.natives.iter().copied().chain([(mark.last_uid, mark.last_name)]);
        let uid_of: HashMap<NameHash, u32> = named.map(|(uid, name)| (name, uid)).collect();
        self.messages.iter().any(|message| {
            let uid = message.uidlist_name().and_then(|name| uid_of.get(&name));
            uid.is_some_and(|uid| *uid != message.uid)
        })
    }

    /// Rule 4: whether a message below the newer mark's next UID was listed, where neither storage
    /// nor the mark itself says it.
    fn was_listed_below(&self, mark: &Mark) -> WasListed {
        let is_maildir = self.situation.is_maildir;
        if is_maildir && (mark.is_baked || self.has_moved_since(mark)) {
            WasListed::No
        } else if self.counts_on_since(mark) {
            WasListed::Surely
        } else {
            WasListed::Perhaps
        }
    }

    /// Says whether it is known that stored UIDLs were told since the maildrop was last forgotten.
    /// Only a memory that was begun since knows.
    fn knows_since_forget(&self) -> bool {
        self.situation.stamps.forgotten == 0 || self.ledger.is_some() || self.newer_mark.is_some()
    }

    /// Rule 4: where a message that is not in the ledger stands. `below_mark` is what
    /// [`Run::was_listed_below`] says of the newer mark.
    fn rank(&self, m: usize, matched: Matched, below_mark: WasListed) -> ListingRank {
        let message = &self.messages[m];
        let is_told_stored =
            || message.stored().map(UidlRef::from) == Some(self.uidl_of(m, matched));
        let replayed = message
            .stored_order()
            .filter(|order| is_ours(*order) && is_told_stored())
            .filter(|_| self.knows_since_forget());
        let was_listed = match self.newer_mark {
            None => WasListed::No,
            Some(mark)
                if mark.epoch.uidvalidity != self.situation.epoch.uidvalidity
                    || message.uid >= mark.epoch.next_uid =>
            {
                WasListed::No
            }
            Some(_) if self.was_native(m) => WasListed::Surely,
            Some(_) if self.situation.is_maildir && message.stored().is_some() => WasListed::Surely,
            Some(_) => below_mark,
        };
        let group = match (matched.entry, matched.provenance) {
            (Some(entry), _) => Group::Captured(entry),
            (None, Provenance::Stored) => Group::Stored(message.stored_order().unwrap_or(u32::MAX)),
            (None, _) => Group::Unknown,
        };
        ListingRank { was_listed, group, uid: message.uid, replayed }
    }

    /// Rule 4, and the new ledger.
    fn resolution<L>(
        &mut self,
        take: impl FnOnce(&Conclusion<'_, '_>) -> L,
    ) -> Result<Resolution<L>, Pause> {
        let unclaimed = |e: &usize| self.is_free(*e) && self.is_recognisable(self.entry(*e));
        let mut report = Report {
            unclaimed: (0..self.entry_count()).filter(unclaimed).count(),
            is_first: self.is_first(),
            conflicts: std::mem::take(&mut self.conflicts),
            ..Report::default()
        };
        let first_unspent_uid = self.spent.first_unspent_uid();
        // What follows needs the room.
        self.spent.drop_uidls();
        let entry_of = self.entries_of_records();
        self.claims = Vec::new();
        let (orders, next_order) = self.new_orders()?;
        for (_, matched) in self.matched() {
            *report.by_provenance.entry(matched.provenance).or_default() += 1;
        }
        if report.is_first {
            report.repeated = self.count_repeated();
        }
        let passing = self.passing(next_order);
        report.undecided = passing.iter().map(|record| record.uid).collect();
        let mut conclusion = Conclusion::of(self, self.new_head(next_order), &orders, &entry_of);
        if let Some((native_from, unclaimed)) = self.settled(first_unspent_uid, &conclusion) {
            conclusion.settle(native_from, unclaimed);
        }
        let ledger = take(&conclusion);
        Ok(Resolution { ledger, passing, first_unspent_uid, report })
    }

    /// The entries that records claim, by their order numbers.
    fn entries_of_records(&self) -> HashMap<u32, u32> {
        let claims = (0..).zip(&self.claims);
        let of_records = claims.filter_map(|(e, claim)| match claim {
            Claim::OfRecord { order } => Some((*order, e)),
            Claim::Free | Claim::OfNew => None,
        });
        of_records.collect()
    }

    /// Messages that got an answer now.
    fn matched(&self) -> impl Iterator<Item = (usize, Matched)> + '_ {
        self.states.iter().enumerate().filter_map(|(m, state)| match state {
            MessageState::Matched(matched) => Some((m, *matched)),
            _ => None,
        })
    }

    /// The claims of messages that were listed and are gone, by their order. Other records of gone
    /// messages are dropped: their numbers stay spent.
    pub(super) fn gone(&self) -> Vec<&'a Record> {
        let Some(ledger) = self.ledger else { return Vec::new() };
        let present: HashSet<u32> = self.listed().map(|(_, record)| record.order).collect();
        let is_gone =
            |record: &&Record| record.provenance.is_kept() && !present.contains(&record.order);
        let mut gone: Vec<&Record> = ledger.records.iter().filter(is_gone).collect();
        gone.sort_by_key(|record| record.order);
        gone
    }

    /// The order numbers of messages that are not in the ledger, by their places, and the next one.
    fn new_orders(&self) -> Result<(Vec<u32>, u32), Pause> {
        let below_mark = self.newer_mark.map_or(WasListed::No, |mark| self.was_listed_below(mark));
        let mut fresh: Vec<(ListingRank, u32)> = Vec::with_capacity(self.matched().count());
        let places = (0..).zip(&self.states);
        fresh.extend(places.filter_map(|(m, state)| match state {
            MessageState::Matched(matched) => {
                Some((self.rank(m as usize, *matched, below_mark), m))
            }
            _ => None,
        }));
        if self.ledger.is_none() {
            replay_all_or_none(&mut fresh);
        }
        // No two have one rank, for it has their UID.
        fresh.sort_unstable_by_key(|(rank, _)| *rank);
        let mut used: HashSet<u32> = HashSet::new();
        if fresh.iter().any(|(rank, _)| rank.replayed.is_some()) {
            used.extend(self.listed().map(|(_, record)| record.order));
            used.extend(self.gone().iter().map(|record| record.order));
        }
        let mut next_order = self.first_new_order();
        let mut orders = vec![0; if fresh.is_empty() { 0 } else { self.messages.len() }];
        for (rank, m) in fresh {
            orders[m as usize] = match rank.replayed.filter(|order| used.insert(*order)) {
                Some(order) => order,
                None => {
                    next_order += 1;
                    next_order - 1
                }
            };
            if next_order >= MAX_NEXT_ORDER {
                return Err(Pause::Refuse(Undecidable::OrderExhausted));
            }
        }
        Ok((orders, next_order))
    }

    /// Rule 8, at a first listing: how many messages have their UIDL in common with another.
    fn count_repeated(&self) -> usize {
        let captured = self.situation.captured;
        let is_each_captured_once =
            captured.is_some_and(|captured| captured.uidl_count() == self.spent.captured);
        if is_each_captured_once && self.matched().all(|(_, of)| of.source == UidlSource::Entry) {
            return 0;
        }
        let uidls = self.matched().map(|(m, matched)| self.uidl_of(m, matched));
        let mut uidls: Vec<UidlRef<'_>> = uidls.collect();
        uidls.sort_unstable();
        uidls.chunk_by(|a, b| a == b).map(<[_]>::len).filter(|&len| len > 1).sum()
    }

    /// Rule 10: the answers for this session only, of messages that could not be read.
    fn passing(&self, next_order: u32) -> Vec<Record> {
        let undecided = (0..self.messages.len()).filter(|&m| self.is_undecided(m));
        let record = |(m, order): (usize, u32)| Record {
            uid: self.messages[m].uid,
            order,
            uidl: derived(self.user, self.situation.epoch.uidvalidity, &self.messages[m], 0),
            provenance: Provenance::Derived,
            names: NameHashes::new(),
            entry: None,
        };
        undecided.zip(next_order..).map(record).collect()
    }

    /// The head of the new ledger, which says nothing yet of a settled maildrop.
    fn new_head(&self, next_order: u32) -> LedgerHead {
        let Situation { stamps, epoch, memory, .. } = *self.situation;
        let of_ledger = memory.ledger.map_or((0, 0), |l| (l.restored, l.unguarded));
        let of_mark = memory.mark.map_or((0, 0), |mark| (mark.restored, mark.unguarded));
        LedgerHead {
            begun_after: stamps.forgotten,
            epoch,
            next_order,
            restored: of_ledger.0.max(of_mark.0).max(stamps.restored),
            unguarded: of_ledger.1.max(of_mark.1).max(stamps.unguarded),
            rehearsal: self.rehearsal(),
            index: self.noted(),
            native_from: None,
        }
    }

    /// The stamp of the rehearsal that makes this ledger. A maildrop that clients were told of,
    /// forgotten since or not, cannot be rehearsed in this sense: what it tells now is told (rule
    /// 2).
    fn rehearsal(&self) -> u64 {
        let Situation { memory, rehearsal, .. } = *self.situation;
        if memory.ledger.is_none() && memory.mark.is_none() { rehearsal } else { 0 }
    }

    /// Above every order number that was ever given, as far as any memory knows.
    fn first_new_order(&self) -> u32 {
        let stored = self.messages.iter().filter_map(|message| message.stored_order());
        let stored = stored.filter(|order| is_ours(*order)).max().map_or(0, |order| order + 1);
        let ledger = self.ledger.map_or(0, |ledger| ledger.next_order);
        let mark = self.newer_mark.map_or(0, |mark| mark.next_order);
        self.first_order.max(stored).max(ledger).max(mark)
    }

    /// Every number that was told so far, and now. The mailbox's own UIDVALIDITY is last.
    pub(super) fn all_told(&self) -> Vec<Told> {
        let epoch = self.situation.epoch;
        let mut told = self.spent.told().to_vec();
        if let Purpose::Listing { .. } = self.situation.purpose {
            join_told(&mut told, [epoch.told()]);
        }
        told.sort_by_key(|told| told.uidvalidity == epoch.uidvalidity);
        told.drain(..told.len().saturating_sub(MAX_TOLD));
        told
    }

    /// What the ledger notes of the index.
    fn noted(&self) -> Noted {
        let Some(captured) = self.situation.captured else {
            return self.ledger.map_or(Noted::default(), |ledger| ledger.index);
        };
        let head = captured.head();
        let counted = head.captures.iter().filter_map(|capture| capture.next);
        let next = counted.chain(head.counter.as_ref().map(|counter| counter.next)).max();
        Noted {
            uidls: u32::try_from(self.spent.captured).unwrap_or(u32::MAX),
            next: next.unwrap_or(0),
            is_final: self.situation.is_final,
            basis: self.situation.basis,
        }
    }

    /// [`Ledger::native_from`] and [`Ledger::unclaimed`]: a maildrop is settled when every message
    /// has its answer, and all that a new one could claim is known.
    fn settled(&self, unspent: u32, new: &Conclusion<'_, '_>) -> Option<(u32, UnclaimedKeys)> {
        let Situation { native, epoch, purpose, .. } = *self.situation;
        let is_native = native.is_some_and(|f| f.is_counting() && f.has_uidvalidity());
        let is_settled = (0..self.messages.len()).all(|m| self.has_answer(m))
            && is_native
            && purpose != Purpose::Preview
            && !self.spent.is_told_uid(NEVER_REACHED);
        let unclaimed = if is_settled { self.unclaimed(new)? } else { return None };
        let before = self.ledger.and_then(|ledger| ledger.native_from).unwrap_or(0);
        Some((before.max(unspent).max(epoch.next_uid), unclaimed))
    }

    /// The keys of all entries that no record of the new ledger claims. `None`: nobody knows them,
    /// or they are too many.
    fn unclaimed(&self, new: &Conclusion<'_, '_>) -> Option<UnclaimedKeys> {
        let Some(captured) = self.situation.captured else {
            let ledger = self.ledger.filter(|ledger| ledger.native_from.is_some())?;
            // Without the index, nobody knows the keys of an entry that becomes free again.
            let is_claim = |record: &Record| record.provenance.is_kept() || record.entry.is_none();
            let is_known = ledger.records.iter().all(is_claim);
            return is_known.then(|| ledger.unclaimed.clone());
        };
        let mut is_claimed = vec![false; captured.len()];
        for entry in new.records().filter_map(|record| record.entry) {
            is_claimed[entry as usize] = true;
        }
        let free = captured.entries().zip(is_claimed).filter(|(_, is_claimed)| !is_claimed);
        unclaimed_keys(self.situation.keys, free.map(|(entry, _)| entry))
    }
}

/// How records and messages are paired.
#[derive(Clone, Copy)]
enum PairBy {
    AllNames,
    AnyName,
}

impl PairBy {
    /// What must be equal: all names together, or one of them.
    fn keys(self, names: impl Iterator<Item = NameHash>) -> Vec<[NameHash; 2]> {
        let mut names: Vec<NameHash> = names.collect();
        names.sort_unstable();
        names.dedup();
        match (self, &names[..]) {
            (_, []) => Vec::new(),
            (Self::AllNames, [first, rest @ ..]) => {
                vec![[*first, rest.first().copied().unwrap_or_default()]]
            }
            (Self::AnyName, names) => names.iter().map(|name| [*name, *name]).collect(),
        }
    }
}

fn record_of(ledger: &Ledger, uid: u32) -> Option<&Record> {
    let at = ledger.records.binary_search_by_key(&uid, |record| record.uid).ok()?;
    ledger.records.get(at).filter(|record| record.uid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A first login of half a million messages has no more room than this: see `limit-first` in
    /// docs/performance.md.
    #[test]
    fn little_is_kept_of_each_message_and_each_entry() {
        assert!(size_of::<MessageState<'_>>() <= 16);
        assert!(size_of::<Claim>() <= 8);
        assert!(size_of::<(ListingRank, u32)>() <= 28);
    }
}
