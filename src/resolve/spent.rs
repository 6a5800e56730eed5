//! Rule 6: which UIDLs a client may hold for another message: [`Spent`].
#![forbid(unsafe_code)]

use hashbrown::{HashMap, HashSet};

use super::known::KnownUidls;
use super::message::Message;
use super::question::Situation;
use crate::format::{Fields, UidlFormat};
use crate::ledger::{Epoch, Told, join_told};
use crate::maildrop::CapturedMaildrop;
use crate::uidl::{Uidl, UidlRef};

/// So many numbers beyond the captured next one are taken for given. The old server goes on
/// counting while captures follow and DNS is slow.
pub const COUNTS_ON: u32 = 65_536;

/// What is spent, whoever asks.
pub(super) struct Spent<'a> {
    situation: &'a Situation<'a>,
    /// UIDLs that were captured, and those of the ledger, forgotten or not.
    known: KnownUidls<'a>,
    /// How many different UIDLs were captured.
    pub(super) captured: usize,
    /// UIDLs that were answered in this run.
    answered: HashSet<Uidl>,
    /// How many messages bear a stored UIDL, and the place of the first.
    stored: HashMap<&'a Uidl, (usize, usize)>,
    /// How far the old server had counted under each UIDVALIDITY, at the capture that saw it
    /// furthest.
    counted: Vec<(u32, u32)>,
    /// Every number told, under any UIDVALIDITY.
    told: Vec<Told>,
}

impl<'a> Spent<'a> {
    pub(super) fn new(situation: &'a Situation<'a>, messages: &'a [Message]) -> Self {
        let records = situation.memory.ledger.map_or(&[][..], |ledger| &ledger.records);
        let (known, captured) = KnownUidls::of(situation.captured, records);
        let mut stored: HashMap<&Uidl, (usize, usize)> = HashMap::new();
        for (m, message) in messages.iter().enumerate() {
            if let Some(uidl) = message.stored() {
                stored.entry(uidl).or_insert((0, m)).0 += 1;
            }
        }
        let told = remembered(situation);
        let counted = situation.captured.map_or_else(Vec::new, furthest_counted);
        let answered = HashSet::new();
        let mut spent = Self { situation, known, captured, answered, stored, counted, told };
        spent.heed_restored();
        spent.heed_unknown_counter();
        spent
    }

    /// After `uidl-keep restored` every memory may be older than what clients hold, and nobody
    /// knows how far the mailbox had counted. So [`COUNTS_ON`] numbers beyond all that is known are
    /// taken for told. A forgotten listing may have raised the next UID for another
    /// `pop3_uidl_format`.
    fn heed_restored(&mut self) {
        let Situation { memory, stamps, epoch, .. } = *self.situation;
        let heeded = memory.ledger.map_or(0, |ledger| ledger.restored);
        if stamps.restored > heeded.max(memory.mark.map_or(0, |mark| mark.restored)) {
            let first = self.first_unspent_uid().max(self.first_uncounted_number());
            let below = epoch.next_uid.max(first).saturating_add(COUNTS_ON);
            join_told(&mut self.told, [Told { below, ..epoch.told() }]);
        }
    }

    /// The first number above every one that the old server gave or counted, whatever it means
    /// here.
    fn first_uncounted_number(&self) -> u32 {
        let Some(captured) = self.situation.captured else { return 1 };
        let given = captured.head().counter.iter().flat_map(|counter| {
            let uidvalidity = captured.head().uidvalidity.unwrap_or(0);
            let number =
                move |uidl: UidlRef<'_>| counter.format.number_of(uidl.as_bytes(), uidvalidity);
            self.known.iter().filter_map(number)
        });
        let counted = counted(captured).map(|(_, next)| next.saturating_add(COUNTS_ON));
        let reached = given.map(|number| number.saturating_add(1)).chain(counted);
        reached.filter(|&number| number < NEVER_REACHED).max().unwrap_or(1)
    }

    /// Where nothing was captured of a maildrop, nothing says how the old server counts. It may
    /// count as this server does, under the same UIDVALIDITY, and go on.
    fn heed_unknown_counter(&mut self) {
        let Situation { captured, memory, epoch, .. } = *self.situation;
        let is_unknown = captured.is_some_and(|captured| {
            captured.head().counter.is_none()
                && captured.head().uidvalidity.is_none_or(|known| known == epoch.uidvalidity)
                && captured.uidl_count() == 0
        });
        if is_unknown && memory.ledger.is_none() && memory.mark.is_none() {
            let below = epoch.next_uid.saturating_add(COUNTS_ON);
            join_told(&mut self.told, [Told { below, ..epoch.told() }]);
        }
    }

    /// Every number told, under any UIDVALIDITY.
    pub(super) fn told(&self) -> &[Told] {
        &self.told
    }

    pub(super) fn answer(&mut self, uidl: Uidl) {
        self.answered.insert(uidl);
    }

    /// Says whether the UIDL was captured, told, or answered to another message in this run.
    pub(super) fn is_known(&self, uidl: &Uidl) -> bool {
        self.known.contains(uidl.into()) || self.answered.contains(uidl)
    }

    /// Says whether the UIDL was answered in this run.
    pub(super) fn is_answered(&self, uidl: &Uidl) -> bool {
        self.answered.contains(uidl)
    }

    /// Says whether storage has the UIDL for another message than the one at `m`.
    pub(super) fn is_borne_by_another(&self, uidl: &Uidl, m: usize) -> bool {
        self.stored.get(uidl).is_some_and(|&(count, first)| count > 1 || first != m)
    }

    /// Says whether the old server had given its number at a capture.
    pub(super) fn is_given(&self, uidl: &Uidl) -> bool {
        self.is_below_next(uidl, 0)
    }

    /// Says whether the old server has given its number, or may have by now.
    pub(super) fn is_counted(&self, uidl: &Uidl) -> bool {
        self.is_below_next(uidl, COUNTS_ON)
    }

    fn is_below_next(&self, uidl: &Uidl, more: u32) -> bool {
        let Some(captured) = self.situation.captured else { return false };
        let Some(counter) = &captured.head().counter else { return false };
        self.counted.iter().any(|&(uidvalidity, next)| {
            let number = counter.format.number_of(uidl.as_bytes(), uidvalidity);
            number.is_some_and(|number| number < next.saturating_add(more))
        })
    }

    /// Says whether the UIDL is made of a number that was told. The number `own_uid` under the
    /// mailbox's own UIDVALIDITY does not count.
    pub(super) fn is_told_number(&self, uidl: &Uidl, own_uid: u32) -> bool {
        let Some(native) = self.situation.native else { return false };
        self.told.iter().any(|told| {
            let number = native.number_of(uidl.as_bytes(), told.uidvalidity);
            let is_own =
                told.uidvalidity == self.situation.epoch.uidvalidity && number == Some(own_uid);
            number.is_some_and(|number| number < told.below) && !is_own
        })
    }

    /// Says whether the UID was told under the mailbox's UIDVALIDITY, to whichever message.
    pub(super) fn is_told_uid(&self, uid: u32) -> bool {
        uid < native_told_below(&self.told, self.situation.epoch.uidvalidity)
    }

    /// Drops what is known of single UIDLs, once every message has its answer. A large maildrop's
    /// records need the room.
    pub(super) fn drop_uidls(&mut self) {
        (self.answered, self.stored) = Default::default();
        self.known = KnownUidls::none();
    }

    /// The first UID whose native UIDL no client can hold, as far as UIDLs have numbers.
    pub(super) fn first_unspent_uid(&self) -> u32 {
        let Situation { captured, epoch: Epoch { uidvalidity, .. }, native, .. } = *self.situation;
        let Some(native) = native else { return 1 };
        let number = |uidl: UidlRef<'_>| native.number_of(uidl.as_bytes(), uidvalidity);
        let stored = self.stored.keys().map(|uidl| UidlRef::from(*uidl));
        let known = self.known.iter().chain(stored).filter_map(number);
        let above_known = known.filter(|&number| number < NEVER_REACHED).map(|number| number + 1);
        let below = native_told_below(&self.told, uidvalidity);
        let told = [below].into_iter().filter(|&below| below < NEVER_REACHED);
        let counted = captured.and_then(|c| first_uncounted_uid(c, native, uidvalidity));
        above_known.chain(told).chain(counted).max().unwrap_or(1).max(1)
    }
}

/// The lowest next UID that the mailbox may have, as far as these messages' stored UIDLs are known:
/// [`Resolution::first_unspent_uid`](super::Resolution::first_unspent_uid), without an answer for
/// any message. A `situation` without what was captured gives too low a one.
pub fn first_unspent_uid(situation: &Situation<'_>, messages: &[Message]) -> u32 {
    Spent::new(situation, messages).first_unspent_uid()
}

/// No mailbox counts so far in its life. A number in text that another server gave may be anything.
pub(super) const NEVER_REACHED: u32 = 1 << 31;

fn native_told_below(told: &[Told], uidvalidity: u32) -> u32 {
    told.iter()
        .filter(|told| told.uidvalidity == uidvalidity)
        .map(|told| told.below)
        .max()
        .unwrap_or(0)
}

/// The UID below which the new server's native UIDLs are numbers that the old server has counted,
/// or may have by now.
fn first_uncounted_uid(
    captured: &CapturedMaildrop,
    native: &UidlFormat,
    uidvalidity: u32,
) -> Option<u32> {
    let format = &captured.head().counter.as_ref()?.format;
    let first = |(counted_under, next): (u32, u32)| {
        let uid = next.saturating_add(COUNTS_ON).checked_sub(1)?;
        let fields = Fields { uid, uidvalidity: counted_under, file: None, guid: None };
        let uidl = format.render(&fields).ok()?;
        native.number_of(uidl.as_bytes(), uidvalidity)?.checked_add(1)
    };
    counted(captured).filter_map(first).max()
}

/// The UIDVALIDITY and the next number of the old server, at each capture.
fn counted(captured: &CapturedMaildrop) -> impl Iterator<Item = (u32, u32)> + '_ {
    let captured = captured.head();
    let now = captured.counter.iter().map(|counter| (captured.uidvalidity, counter.next));
    let then = captured.captures.iter().filter_map(|c| Some((c.uidvalidity, c.next?)));
    now.chain(then).map(|(uidvalidity, next)| (uidvalidity.unwrap_or(0), next))
}

/// The highest number next of each UIDVALIDITY. Where no UIDL has one in it, all count as one.
fn furthest_counted(captured: &CapturedMaildrop) -> Vec<(u32, u32)> {
    let Some(counter) = &captured.head().counter else { return Vec::new() };
    let has_uidvalidity = counter.format.has_uidvalidity();
    let mut furthest: HashMap<u32, u32> = HashMap::new();
    for (uidvalidity, next) in counted(captured) {
        let known = furthest.entry(if has_uidvalidity { uidvalidity } else { 0 }).or_default();
        *known = next.max(*known);
    }
    furthest.into_iter().collect()
}

/// Every number that any memory knows as told. A damaged mark says: any number under the mailbox's
/// UIDVALIDITY.
fn remembered(situation: &Situation<'_>) -> Vec<Told> {
    let Situation { memory, epoch, .. } = *situation;
    let mut told = Vec::new();
    if let Some(ledger) = memory.ledger {
        join_told(&mut told, ledger.told.iter().copied().chain([ledger.epoch.told()]));
    }
    if let Some(mark) = memory.mark {
        let anything = Told { below: u32::MAX, ..epoch.told() };
        match &mark.told {
            Some(known) => join_told(&mut told, known.iter().copied().chain([mark.epoch.told()])),
            None => join_told(&mut told, [anything]),
        }
    }
    told
}
