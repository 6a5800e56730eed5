//! Capturing a store that has a file a message, while it is in use.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::capture::disk::cyrus;
use crate::capture::disk::maildir::{self, Maildir, MessageFile, Snapshot, SnapshotParts};
use crate::capture::disk::steady::until_steady;
use crate::capture::disk::traits::DiskTraits;
use crate::capture::disk::weight::weigh;
use crate::capture::draft::Draft;
use crate::capture::error::CaptureError;
use crate::capture::find::source::{Holds, Source};
use crate::capture::keys::{Headers, Keys, MessageRead, Packed};
use crate::capture::plan::Plan;
use crate::key::Depth;
use crate::maildrop::{Entry, Name};
use crate::text::printable;

/// Captures the maildrop at `source`, but for its name and place. The server's `plan` says who is
/// known by what in a snapshot.
///
/// Reads the directory and the state file twice, or more often while they change; a message at
/// most twice.
pub(super) fn capture(
    server: &DiskTraits,
    keys: Keys,
    source: &Source,
    plan: impl Fn(&Snapshot) -> Result<Plan, CaptureError>,
) -> Result<Draft, CaptureError> {
    let top = source.open()?;
    let maildir = match server.holds {
        Holds::CyrusMailbox => Maildir::of_files(top, cyrus::is_message)?,
        Holds::Directory | Holds::File => Maildir::open(top)?,
    };
    let maildir = maildir.with_control(source.open_control()?);
    let keys = Keys { file: keys.file && server.has_file_names(), ..keys };
    let parts = SnapshotParts {
        state: server.state,
        mtimes: server.orders_by_mtime,
        memory: server.has_our_plugin,
    };
    let is_text = server.holds != Holds::CyrusMailbox;
    let mut cache = MessageCache::new();
    let (snapshot, plan) = until_steady(|is_last| {
        let snapshot = maildir.snapshot(parts)?;
        // A line that is cut now may be complete a moment later.
        if is_text && snapshot.ends_in_a_line() && !is_last {
            return Ok(None);
        }
        let planned = plan(&snapshot).and_then(|mut plan| {
            weigh(server, &snapshot, &mut plan)?;
            let all_there = read_keys(&maildir, &snapshot, &plan, keys, &mut cache)?;
            Ok((plan, all_there))
        });
        if !maildir.snapshot(parts)?.agrees_with(&snapshot) {
            return Ok(None);
        }
        let (plan, all_there) = planned?;
        Ok(all_there.then_some((snapshot, plan)))
    })?;
    Ok(draft(keys, &snapshot, plan, &cache))
}

/// The messages that were read, by base file name and inode number. They are kept from try to try,
/// for a message file does not change.
type MessageCache = HashMap<(Box<[u8]>, u64), Result<MessageRead, String>>;

fn known_as(message: &MessageFile) -> (Box<[u8]>, u64) {
    (message.base.clone(), message.inode)
}

/// Reads what the keys need. `false` when a message went away meanwhile.
fn read_keys(
    maildir: &Maildir,
    snapshot: &Snapshot,
    plan: &Plan,
    keys: Keys,
    cache: &mut MessageCache,
) -> Result<bool, CaptureError> {
    let Some(depth) = keys.depth().filter(|_| !plan.entries.is_empty()) else { return Ok(true) };
    for entry in &plan.entries {
        if !read_one(maildir, &snapshot.messages[entry.at], depth, cache)? {
            return Ok(false);
        }
    }
    if !keys.header || keys.message {
        return Ok(true);
    }
    // A header also repeats when its twin has not been listed yet: both are there after the move.
    let mut headers = Headers::default();
    for message in &snapshot.messages {
        if !read_one(maildir, message, Depth::Header, cache)? {
            return Ok(false);
        }
        if let Some(Ok(prints)) = cache.get(&known_as(message)) {
            headers.count(&prints.of);
        }
    }
    for entry in &plan.entries {
        let message = &snapshot.messages[entry.at];
        let Some(Ok(prints)) = cache.get(&known_as(message)) else { continue };
        if headers.say_little_of(&prints.of) && !read_one(maildir, message, Depth::Message, cache)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads one message to `depth`, unless that was done before. `false` when it has gone. A message
/// that cannot be read is remembered as such: it loses its fingerprints, and the maildrop nothing
/// else.
fn read_one(
    maildir: &Maildir,
    message: &MessageFile,
    depth: Depth,
    cache: &mut MessageCache,
) -> Result<bool, CaptureError> {
    let name = known_as(message);
    match cache.get(&name) {
        Some(Ok(prints)) if depth == Depth::Header || prints.depth == Depth::Message => {
            return Ok(true);
        }
        Some(Err(_)) => return Ok(true),
        _ => {}
    }
    let read = match maildir.open_message(message) {
        Ok(None) => return Ok(false),
        Ok(Some(file)) => {
            MessageRead::read(file, depth).map_err(|e| CaptureError::io(&message.name, e))
        }
        Err(error) => Err(error),
    };
    cache.insert(name, read.map_err(|error| error.to_string()));
    Ok(true)
}

fn draft(keys: Keys, snapshot: &Snapshot, plan: Plan, cache: &MessageCache) -> Draft {
    let Plan { entries, spent, uidvalidity, counter, remarks, told, told_by, .. } = plan;
    let mut draft =
        Draft { uidvalidity, counter, spent, remarks, told, told_by, ..Draft::default() };
    let mut packed: Option<(usize, &MessageFile, Packed)> = None;
    for planned in entries {
        let message = &snapshot.messages[planned.at];
        let prints = match cache.get(&known_as(message)) {
            Some(Ok(prints)) => Some(prints),
            Some(Err(fault)) => {
                draft.remarks.loss(format!("{fault}; it has no fingerprints"));
                None
            }
            None => None,
        };
        if let Some(how) = prints.and_then(|prints| prints.packed) {
            packed.get_or_insert((0, message, how)).0 += 1;
        }
        let entry = Entry {
            uid: planned.uid,
            octets: prints
                .and_then(|prints| prints.octets)
                .or(planned.octets)
                .or_else(|| maildir::octets_in_name(&message.base)),
            file: keys.file.then(|| Name::Spelled(message.base.clone())),
            guid: planned.guid.filter(|_| keys.file),
            ..Entry::new(planned.uidl)
        };
        draft.push(match prints {
            Some(prints) => keys.with_prints(entry, &prints.of),
            None => entry,
        });
    }
    if let Some((count, first, how)) = packed {
        let how = match how {
            Packed::Compressed => "compressed (zlib)",
            Packed::Encrypted => "encrypted (mail_crypt)",
        };
        draft.remarks.loss(format!(
            "{count} messages have no fingerprints, for their files are {how} (first: {}): \
             capture this maildrop by doveadm or over POP3, or with --keys file if files are \
             copied as they are",
            printable(&first.name)
        ));
    }
    draft
}
