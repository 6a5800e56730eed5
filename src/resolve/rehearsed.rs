//! Rule 2: what was only rehearsed was told to nobody. See [`without_rehearsal`].
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::derived::derived;
use super::question::{Memory, Message, Situation};
use super::rank::is_ours;
use crate::ledger::{Ledger, Provenance, Record, is_rehearsal};

impl Memory<'_> {
    /// Says whether a rehearsal made all of it, and no client has listed the maildrop since.
    pub fn is_rehearsal(&self) -> bool {
        is_rehearsal(self.ledger, self.mark)
    }
}

/// The question as it would be if no rehearsal had ever been. `None`: there was none.
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
) -> Option<(Situation<'a>, Vec<Message>)> {
    if !situation.memory.is_rehearsal() {
        return None;
    }
    let mut messages = messages.to_vec();
    if let Some(ledger) = situation.memory.ledger {
        take_baked(user, ledger, &mut messages);
    }
    Some((Situation { memory: Memory::default(), ..*situation }, messages))
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
        let is_baked = message.stored.as_ref() == Some(&record.uidl)
            && message.stored_order.is_none_or(is_ours)
            && !was_there_before;
        if is_baked {
            (message.stored, message.stored_order) = (None, None);
        }
    }
}
