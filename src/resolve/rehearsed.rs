//! Rule 2: what was only rehearsed was told to nobody. See [`without_rehearsal`].
#![forbid(unsafe_code)]

use hashbrown::HashMap;

use super::derived::derived;
use super::message::Message;
use super::question::{Memory, Situation};
use super::rank::is_ours;
use crate::ledger::{FIRST_ORDER, Ledger, Provenance, Record, is_rehearsal};

impl Memory<'_> {
    /// Says whether a rehearsal made all of it, and no client has listed the maildrop since.
    pub fn is_rehearsal(&self) -> bool {
        is_rehearsal(self.ledger, self.mark)
    }
}

/// The question without what was only rehearsed.
pub(super) struct WithoutRehearsal<'a> {
    pub(super) situation: Situation<'a>,
    /// `None`: nothing was only rehearsed, and they are as they were.
    pub(super) messages: Option<Vec<Message>>,
    /// New order numbers begin here. Those of a rehearsal are passed over, so that its ledger is
    /// known for an older one where it comes back from a backup.
    pub(super) first_order: u32,
}

/// The question as it would be if no rehearsal had ever been.
///
/// A rehearsal serves a client that comes to the very maildrop that it listed, or to one to which
/// only new mail came ([`grow`](super::grow)). In any other case the rules begin anew: an old
/// message that comes late must stand before the new mail that no client has seen yet. The
/// UIDLs and order numbers that the rehearsal baked are not there, as far as its ledger says which
/// they are. Those that were there before are evidence as ever.
pub(super) fn without_rehearsal<'a>(
    user: &str,
    situation: &Situation<'a>,
    messages: &[Message],
) -> WithoutRehearsal<'a> {
    let memory = without_older_rehearsal(situation.memory);
    if !memory.is_rehearsal() {
        let situation = Situation { memory, ..*situation };
        return WithoutRehearsal { situation, messages: None, first_order: FIRST_ORDER };
    }
    let mut messages = messages.to_vec();
    if let Some(ledger) = memory.ledger {
        take_baked(user, ledger, &mut messages);
    }
    let of_ledger = memory.ledger.map_or(0, |ledger| ledger.next_order);
    let next_order = of_ledger.max(memory.mark.map_or(0, |mark| mark.next_order));
    WithoutRehearsal {
        situation: Situation { memory: Memory::default(), ..*situation },
        messages: Some(messages),
        first_order: FIRST_ORDER.max(next_order.saturating_add(1)),
    }
}

/// Leaves out the ledger of a rehearsal that was put back from a backup. A client has listed since,
/// for the mark knows more, and may have been told something else.
fn without_older_rehearsal(memory: Memory<'_>) -> Memory<'_> {
    let (Some(ledger), Some(mark)) = (memory.ledger, memory.mark) else { return memory };
    let is_told = mark.rehearsal == 0 && mark.told.is_some();
    let is_older = (ledger.begun_after, ledger.next_order) < (mark.begun_after, mark.next_order);
    let is_left_out = ledger.rehearsal != 0 && is_told && is_older;
    Memory { ledger: memory.ledger.filter(|_| !is_left_out), ..memory }
}

/// Takes away what the rehearsal of the ledger has baked.
fn take_baked(user: &str, ledger: &Ledger, messages: &mut [Message]) {
    let records = ledger.records.iter().map(|record| (record.uid, record));
    let records: HashMap<u32, &Record> = records.collect();
    let uidvalidity = ledger.epoch.uidvalidity;
    for message in messages {
        let Some(record) = records.get(&message.uid) else { continue };
        let was_there_before = match record.provenance {
            Provenance::Stored => true,
            Provenance::Derived => record.uidl != derived(user, uidvalidity, message, 0),
            _ => false,
        };
        let is_told =
            message.stored() == Some(&record.uidl) && message.stored_order().is_none_or(is_ours);
        // The last rehearsal found it to be no evidence: an earlier one had baked it, and the last
        // one ended before its own bake.
        let is_of_earlier = message.stored_order().is_some_and(is_ours)
            && message.name_hashes().into_iter().any(|name| record.names.contains(&name));
        if (is_told || is_of_earlier) && !was_there_before {
            message.set_stored(None, None);
        }
    }
}
