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
    // Opening a message is a second look at its mtime.
    let again = SnapshotParts { mtimes: parts.mtimes && keys.depth().is_none(), ..parts };
    let mut earlier = HashMap::new();
    let (snapshot, plan, reads) = until_steady(|is_last| {
        let snapshot = maildir.snapshot(parts)?;
        // A line that is cut now may be complete a moment later.
        if is_text && snapshot.ends_in_a_line() && !is_last {
            return Ok(None);
        }
        let known = snapshot.messages.iter().map(|message| earlier.remove(&known_as(message)));
        let mut reads: Vec<Option<MessageOrFault>> = known.collect();
        let planned = plan(&snapshot).and_then(|mut plan| {
            weigh(server, &snapshot, &mut plan)?;
            let all_there = read_keys(&maildir, &snapshot, &plan, keys, &mut reads)?;
            Ok((plan, all_there))
        });
        let is_steady = maildir.snapshot(again)?.agrees_with(&snapshot);
        if let Some((plan, true)) = is_steady.then_some(planned).transpose()? {
            return Ok(Some((snapshot, plan, reads)));
        }
        let reads = snapshot.messages.iter().zip(reads);
        earlier.extend(reads.filter_map(|(message, read)| Some((known_as(message), read?))));
        Ok(None)
    })?;
    Ok(draft(keys, &snapshot, plan, &reads))
}

/// A message that was read; or why it cannot be: it loses its fingerprints, and the maildrop
/// nothing else.
type MessageOrFault = Result<MessageRead, String>;

/// What tells a message file from others between two tries. One that was read is not read again:
/// a message file does not change.
fn known_as(message: &MessageFile) -> (Box<[u8]>, u64, i64) {
    (message.base.clone(), message.inode, message.mtime)
}

/// Reads what the keys need. `reads` has a place for each message of the snapshot. `false` when a
/// message went away meanwhile, or changed.
fn read_keys(
    maildir: &Maildir,
    snapshot: &Snapshot,
    plan: &Plan,
    keys: Keys,
    reads: &mut [Option<MessageOrFault>],
) -> Result<bool, CaptureError> {
    let Some(depth) = keys.depth().filter(|_| !plan.entries.is_empty()) else { return Ok(true) };
    let mut read = |at: usize, depth| read_one(maildir, snapshot, at, keys, depth, &mut reads[at]);
    for entry in &plan.entries {
        if !read(entry.at, depth)? {
            return Ok(false);
        }
    }
    if !keys.header || keys.message {
        return Ok(true);
    }
    // A header also repeats when its twin has not been listed yet: both are there after the move.
    for at in 0..snapshot.messages.len() {
        if !read(at, Depth::Header)? {
            return Ok(false);
        }
    }
    let mut headers = Headers::default();
    reads.iter().flatten().flatten().for_each(|read| headers.count(&read.of));
    for entry in &plan.entries {
        let read = &mut reads[entry.at];
        let says_little = matches!(read, Some(Ok(header)) if headers.say_little_of(&header.of));
        let whole = Depth::Message;
        if says_little && !read_one(maildir, snapshot, entry.at, keys, whole, read)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads one message of the snapshot to `depth`, unless that was done before. `false` when it has
/// gone, or was changed.
fn read_one(
    maildir: &Maildir,
    snapshot: &Snapshot,
    at: usize,
    keys: Keys,
    depth: Depth,
    read: &mut Option<MessageOrFault>,
) -> Result<bool, CaptureError> {
    match read {
        Some(Ok(read)) if depth == Depth::Header || read.depth == Depth::Message => {
            return Ok(true);
        }
        Some(Err(_)) => return Ok(true),
        _ => {}
    }
    let message = &snapshot.messages[at];
    let now = match maildir.open_and_stat(message) {
        Ok(None) => return Ok(false),
        Ok(Some((_, stat))) if snapshot.has_mtimes && stat.st_mtime != message.mtime => {
            return Ok(false);
        }
        Ok(Some((file, _))) => {
            MessageRead::read_for(keys, file, depth).map_err(|e| CaptureError::io(&message.name, e))
        }
        Err(error) => Err(error),
    };
    *read = Some(now.map_err(|error| error.to_string()));
    Ok(true)
}

fn draft(keys: Keys, snapshot: &Snapshot, plan: Plan, reads: &[Option<MessageOrFault>]) -> Draft {
    let Plan { entries, spent, uidvalidity, counter, remarks, told, told_by, .. } = plan;
    let mut draft =
        Draft { uidvalidity, counter, spent, remarks, told, told_by, ..Draft::default() };
    let mut packed: Option<(usize, &MessageFile, Packed)> = None;
    for planned in entries {
        let message = &snapshot.messages[planned.at];
        let prints = match &reads[planned.at] {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::capture::disk::qmail;

    #[test]
    fn an_mtime_that_changes_while_a_maildir_is_read_is_seen() {
        for keys in [Keys { header: false, ..Keys::default() }, Keys::default()] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("cur")).unwrap();
            let second = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + n);
            let set = |name: &str, n| {
                let file = File::open(dir.path().join("cur").join(name)).unwrap();
                file.set_modified(second(n)).unwrap();
            };
            fs::write(dir.path().join("cur/a"), "Message-ID: <a>\nDate: now\n\n").unwrap();
            fs::write(dir.path().join("cur/b"), "Message-ID: <b>\nDate: now\n\n").unwrap();
            set("a", 1);
            set("b", 2);
            let plans = Cell::new(0);
            let plan = |snapshot: &Snapshot| {
                plans.set(plans.get() + 1);
                if plans.get() == 1 {
                    set("a", 3);
                }
                Ok(qmail::plan(snapshot))
            };
            let source = Source::named("alice@example.com", dir.path());
            let draft = capture(&qmail::TRAITS, keys, &source, plan).unwrap().finish();
            let uidls: Vec<&[u8]> =
                draft.maildrop.entries.iter().map(|entry| entry.uidl.as_bytes()).collect();
            assert_eq!((uidls, plans.get()), (vec![&b"b"[..], b"a"], 2), "{keys:?}");
        }
    }
}
