//! Whether a capture holds what it claims. The lines of the state file are weighed against the mail
//! that lies there, and against the messages that are in both.
//!
//! A maildrop of which next to nothing was captured would be served all the same, and its clients
//! would download each message again. So the capture fails where it has surely lost more than it
//! has. Mail that came after the last listing is no loss, nor are lines whose mail clients have
//! deleted since.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::capture::disk::maildir::{
    Folder, MessageFile, Snapshot, arrival, end_before_changed_info,
};
use crate::capture::disk::traits::DiskTraits;
use crate::capture::error::CaptureError;
use crate::capture::plan::Plan;
use crate::text::printable;
use crate::uidl::Uidl;

/// The lines of a state file that no capture can use: how many, and why the first one is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unusable {
    count: usize,
    first: String,
}

impl Unusable {
    /// Counts one more.
    pub(in crate::capture) fn add(&mut self, why: &str) {
        if self.count == 0 {
            self.first = why.to_owned();
        }
        self.count += 1;
    }

    /// Checks that these cost no more messages than were captured. `captured` counts those, and
    /// `left` the messages that are there and were not captured.
    pub(in crate::capture) fn weigh(
        self,
        captured: usize,
        left: usize,
    ) -> Result<(), CaptureError> {
        if self.count.min(left) <= captured {
            return Ok(());
        }
        let (unusable, lines) = (self.count, self.count + captured);
        Err(CaptureError::Unusable { unusable, lines, first: self.first })
    }
}

/// Checks that `plan` holds what the snapshot and its state file, where the server has one, have.
/// Remarks on what is missing.
///
/// # Errors
///
/// [`CaptureError::NamesChanged`], [`CaptureError::StateOfOther`], [`CaptureError::Unusable`]: more
/// was lost than captured.
pub(super) fn weigh(
    server: &DiskTraits,
    snapshot: &Snapshot,
    plan: &mut Plan,
) -> Result<(), CaptureError> {
    let state = server.state;
    let met: HashSet<usize> = plan.entries.iter().map(|entry| entry.at).collect();
    let gone: HashSet<&[u8]> = plan.gone.iter().map(|name| &name[..]).collect();
    let left = || (0..).zip(&snapshot.messages).filter(|(at, _)| !met.contains(at));
    let mail = snapshot.messages.len();

    let changed: Vec<(&MessageFile, &[u8])> = (0..)
        .zip(&snapshot.messages)
        .filter(|(_, message)| message.folder == Folder::Cur)
        // A name that the state file has in this form was not changed later.
        .filter(|(at, _)| state.is_none() || !met.contains(at))
        .filter_map(|(_, message)| {
            let end = end_before_changed_info(&message.name)?;
            Some((message, &message.name[..end]))
        })
        .filter(|(_, base)| state.is_none() || gone.contains(base))
        .collect();
    if let Some((first, _)) = changed.first() {
        let unchanged = if state.is_some() { met.len() } else { mail - changed.len() };
        let (changed, first) = (changed.len(), printable(&first.name));
        if changed >= unchanged {
            return Err(CaptureError::NamesChanged { changed, mail, first });
        }
        plan.remarks.loss(format!(
            "{changed} of {mail} messages have a name that a copy has changed, such as {first}: \
             the unique-ids of these are spent; capture the server itself, or a copy that keeps \
             names"
        ));
    }

    if let Some(file) = state {
        let newest = plan.entries.iter().map(|entry| &*snapshot.messages[entry.at].base);
        let newest = newest.chain(gone.iter().copied()).filter_map(arrival).max();
        // As far as can be told, it was there when the list was written.
        let is_older = |message: &MessageFile| {
            message.folder == Folder::Cur
                && match (arrival(&message.base), newest) {
                    (Some(arrived), Some(newest)) => arrived <= newest,
                    _ => true,
                }
        };
        let older = left().filter(|(_, message)| is_older(message)).count();
        let lacks_all = server.lists_only_what_is_there && met.is_empty() && !gone.is_empty();
        if lacks_all || plan.gone.len() > met.len() && older > met.len() {
            let lines = plan.gone.len() + met.len();
            return Err(CaptureError::StateOfOther { file, lines, mail, met: met.len() });
        }
        if older > 0 && !plan.gone.is_empty() && changed.is_empty() {
            plan.remarks.note(format!(
                "{older} messages are not in {file} although they came before others that are, \
                 and {} in it are not here: if names were changed in a copy, capture the server \
                 itself",
                plan.gone.len()
            ));
        }
    }
    std::mem::take(&mut plan.unusable).weigh(met.len(), mail - met.len())?;
    if state.is_none() {
        // The name was the UIDL.
        plan.spent.extend(changed.iter().filter_map(|(_, base)| Uidl::new(*base).ok()));
    }
    Ok(())
}
