//! The commonest login: new mail in a settled maildrop, answered without what was captured and
//! without the rules.
//!
//! The ledger says from which UID on no client can hold the native UIDL ([`Ledger::native_from`]),
//! and by which keys a new message could claim ([`Ledger::unclaimed`]). A message that has none of
//! these is unknown. Then the rules would change the ledger only a little: [`grow`] says how.
#![forbid(unsafe_code)]

use super::message::Message;
use super::question::{Fact, Need, Situation};
use super::spent::NEVER_REACHED;
use crate::key::{Depth, Match};
use crate::ledger::{
    AnyLedger, Growth, KeptRun, KeyStart, Ledger, LedgerFile, LedgerHead, MAX_NEXT_ORDER, Mark,
    Provenance, Record, UnclaimedKeys, join_told,
};
use crate::maildrop::CapturedEntry;

/// What [`grow`] says.
#[derive(Debug)]
pub enum Grown {
    /// These facts are needed, each of the message at that place in the slice; call again with
    /// them.
    Ask(Vec<(usize, Need)>),
    /// What new mail changes in the ledger.
    Growth(Growth),
    /// The rules must look at all messages.
    NotSettled,
}

/// Says what changes in the ledger of a maildrop to which only new mail came. The new one is the
/// very one that [`resolve`](super::resolve) would make of `ledger`, which stands here for the
/// situation's own.
///
/// `uids` are those of all messages there, and `new` those of them that the ledger does not have,
/// both ascending by UID. The caller has seen that the others are the messages that the ledger
/// means. The cost is a pass over the records for each of `new`, which are at most
/// [`Mark::NATIVES`].
///
/// Why the rules would claim nothing: what is there and was listed stays, and its records claim the
/// entries that they did (`is_settled`: the index is the same). So only the other entries are
/// free. Each evidence claims a free entry, for a message that has its UIDL stored (1, and such a
/// message is for the rules) or that has a key of it: a name (3), the whole content (4 and 7), the
/// header or the origin (5). [`Ledger::unclaimed`] has all these keys, and no message of `new` has
/// one. Evidence that takes an entry which is not free, or names that disagree, leave the
/// message unknown, too. Evidence 2 and 6 want a stored UIDL.
pub fn grow(
    situation: &Situation<'_>,
    ledger: &LedgerFile<'_>,
    uids: &[u32],
    new: &[Message],
) -> Grown {
    if !is_settled(situation, ledger, new) {
        return Grown::NotSettled;
    }
    let asked: Vec<(usize, Need)> = (new.iter().enumerate())
        .filter(|(_, message)| !message.unreadable)
        .flat_map(|(m, message)| {
            let names = (!message.has_asked_names()).then_some((m, Need::Names));
            let native = (!message.details.native.is_asked()).then_some((m, Need::Native));
            names.into_iter().chain(native)
        })
        .collect();
    if !asked.is_empty() {
        return Grown::Ask(asked);
    }
    if new.iter().any(|message| has_unclaimed(ledger.unclaimed(), message)) {
        return Grown::NotSettled;
    }
    // Names are known to claim nothing before anything is read.
    let unread = new.iter().enumerate();
    let unread =
        unread.filter_map(|(m, message)| Some((m, unread_of(ledger.unclaimed(), message)?)));
    let unread: Vec<(usize, Need)> = unread.collect();
    if !unread.is_empty() {
        return Grown::Ask(unread);
    }
    growth(situation, ledger, uids, new).map_or(Grown::NotSettled, Grown::Growth)
}

/// The keys by which the evidence may claim one of these entries. `None`: they are too many for a
/// ledger.
pub(super) fn unclaimed_keys<'a>(
    may_match: Match,
    entries: impl Iterator<Item = CapturedEntry<'a>>,
) -> Option<UnclaimedKeys> {
    let mut keys: Vec<KeyStart> = Vec::new();
    let (mut is_header_read, mut is_whole_read) = (false, false);
    for entry in entries {
        if may_match.file {
            keys.extend(entry.file_keys().map(Ledger::name_of));
        }
        let message = entry.message().filter(|_| may_match.message);
        // A message is read whole where its header is that of such an entry, or that has none.
        let header = entry.header().filter(|_| may_match.header || message.is_some());
        let origin = entry.origin().filter(|_| may_match.origin);
        is_whole_read |= message.is_some() && header.is_none();
        is_header_read |= header.is_some() || origin.is_some();
        keys.extend([message, header, origin].iter().flatten().map(UnclaimedKeys::start_of));
    }
    let reads = match (is_whole_read, is_header_read) {
        (true, _) => Some(Depth::Message),
        (false, true) => Some(Depth::Header),
        (false, false) => None,
    };
    Some(UnclaimedKeys::new(keys, reads)).filter(|keys| keys.len() <= UnclaimedKeys::MOST)
}

/// Says whether a message seems to have one of the keys, as far as is known of it.
pub(super) fn has_unclaimed(unclaimed: &UnclaimedKeys, message: &Message) -> bool {
    let details = &message.details;
    let prints = [&details.header, &details.origin, &details.message];
    let prints = prints.into_iter().filter_map(Fact::get).map(UnclaimedKeys::start_of);
    message.name_hashes().into_iter().chain(prints).any(|key| unclaimed.has(key))
}

/// What must be read of a message before it is known that it has none of the keys.
fn unread_of(unclaimed: &UnclaimedKeys, message: &Message) -> Option<Need> {
    let details = &message.details;
    let (need, is_read) = match unclaimed.reads()? {
        Depth::Header => (Need::Header, details.header.is_asked()),
        Depth::Message => (Need::Message, details.message.is_asked()),
    };
    (!is_read && !message.unreadable).then_some(need)
}

/// Says whether nothing was said, changed or lost since the ledger was written.
fn is_settled(situation: &Situation<'_>, ledger: &LedgerFile<'_>, new: &[Message]) -> bool {
    let Situation { basis, stamps, epoch, memory, .. } = *situation;
    let head = ledger.head();
    // Two front ends may have an `INDEX=` each: on a Maildir names tell (rule 2).
    let is_index = head.epoch.index_id == epoch.index_id || situation.is_maildir;
    head.native_from.is_some_and(|from| new.iter().all(|message| message.uid >= from))
        && new.len() <= Mark::NATIVES
        // Where all memory is lost and nothing was captured, only baked UIDLs are told again (rule
        // 6).
        && head.index.uidls > 0
        && head.index.basis == basis
        && head.epoch.goes_on_in(epoch)
        && is_index
        && epoch.next_uid <= NEVER_REACHED
        && head.begun_after == stamps.forgotten
        && head.restored >= stamps.restored
        && head.unguarded >= stamps.unguarded
        && memory.mark.is_some_and(|mark| {
            *mark == Mark { is_baked: mark.is_baked, ..Mark::of(ledger, mark.left) }
        })
}

fn growth(
    situation: &Situation<'_>,
    ledger: &LedgerFile<'_>,
    uids: &[u32],
    new: &[Message],
) -> Option<Growth> {
    let epoch = situation.epoch;
    let (front, answers) = (ledger.front(), ledger.front().answers());
    let was_rehearsed = ledger.head().rehearsal != 0;
    let rehearsal = if was_rehearsed { situation.rehearsal } else { 0 };
    let mut head = LedgerHead { epoch, rehearsal, ..ledger.head() };
    head.native_from = head.native_from.map(|from| from.max(epoch.next_uid));
    let mut records = Vec::with_capacity(new.len());
    for message in new {
        let Fact::Is(native) = &message.details.native else { return None };
        let is_plain = message.stored().is_none() && message.stored_order().is_none();
        if !is_plain || message.unreadable || head.next_order >= MAX_NEXT_ORDER - 1 {
            return None;
        }
        records.push(Record {
            uid: message.uid,
            order: head.next_order,
            uidl: native.clone(),
            provenance: Provenance::Native,
            names: message.name_hashes(),
            entry: None,
        });
        head.next_order += 1;
    }
    // A message with a name that was listed may have gone and come back, or be a copy. Only in a
    // ledger that the account's owner wrote does a record stand behind new mail.
    let is_known = |new: &Record| {
        answers.last_uid() >= new.uid
            || answers.has_uidl(new.uidl.as_bytes())
            || new.names.iter().any(|name| front.has_name(*name))
    };
    if records.iter().any(is_known) {
        return None;
    }
    let mut here = uids.iter().copied().peekable();
    let (mut there, mut claims) = (Vec::new(), Vec::new());
    for i in 0..answers.len() {
        let uid = answers.uid(i);
        while here.next_if(|&other| other < uid).is_some() {}
        if uid != 0 && here.peek() == Some(&uid) {
            keep(&mut there, i, false);
        } else if was_rehearsed {
            // What was claimed in a rehearsal is free again.
            return None;
        } else if front.provenance(i).is_kept() {
            claims.push(i);
        } else if ledger.entry(i).is_some() {
            // It is dropped, and what it claimed is free again.
            return None;
        }
    }
    claims.sort_by_key(|&i| answers.order_number(i));
    let mut kept = Vec::new();
    claims.into_iter().for_each(|i| keep(&mut kept, i, true));
    kept.append(&mut there);
    let mut told = ledger.told().to_vec();
    join_told(&mut told, [epoch.told()]);
    Some(Growth { head, told, kept, new: records })
}

/// Adds the record at `i` to those that stay.
fn keep(kept: &mut Vec<KeptRun>, i: usize, is_gone: bool) {
    match kept.last_mut() {
        Some(run) if run.places.end == i => run.places.end += 1,
        _ => kept.push(KeptRun { places: i..i + 1, is_gone }),
    }
}
