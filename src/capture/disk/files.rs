//! Capturing a store that has a file a message, while it is in use.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::capture::disk::cyrus;
use crate::capture::disk::maildir::{self, Look, Maildir, Message, Wanted};
use crate::capture::disk::steady::until_steady;
use crate::capture::disk::weight::weigh;
use crate::capture::draft::Draft;
use crate::capture::error::Error;
use crate::capture::find::source::Source;
use crate::capture::keys::{Headers, Keys, Packed, Prints};
use crate::capture::plan::Plan;
use crate::key::Depth;
use crate::maildrop::{Entry, Name};
use crate::text::printable;

/// A server's way to keep a file a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    /// Where the messages are.
    pub shape: Shape,
    /// The name of its state file.
    pub state: Option<&'static str>,
    /// Whether it goes by the messages' mtimes.
    pub mtimes: bool,
}

/// Where messages are, and whether their names mean something elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// In `new` and `cur`; state files are lines of text.
    Maildir,
    /// Beside a state file that is no text, under numbers.
    Cyrus,
}

impl Files {
    /// What there is to say of the maildrop at `source`, but for its name and place; the server's
    /// `plan` makes it of a look.
    ///
    /// Reads the directory and the state file twice, or more often while they change; a message at
    /// most twice.
    pub fn capture(
        self,
        keys: Keys,
        source: &Source,
        plan: impl Fn(&Look) -> Result<Plan, Error>,
    ) -> Result<Draft, Error> {
        let top = source.open()?;
        let maildir = match self.shape {
            Shape::Maildir => Maildir::open(top)?,
            Shape::Cyrus => Maildir::of_files(top, cyrus::is_message)?,
        };
        let keys = Keys { file: keys.file && self.shape == Shape::Maildir, ..keys };
        let wanted = Wanted { state: self.state, mtimes: self.mtimes };
        let mut known = Known::new();
        let (look, plan) = until_steady(|is_last| {
            let look = maildir.look(wanted)?;
            // What is cut in a line may be complete a moment later.
            if self.shape == Shape::Maildir && look.ends_in_a_line() && !is_last {
                return Ok(None);
            }
            let planned = plan(&look).and_then(|mut plan| {
                weigh(self.state, &look, &mut plan)?;
                let all_there = read_keys(&maildir, &look, &plan, keys, &mut known)?;
                Ok((plan, all_there))
            });
            if !maildir.look(wanted)?.agrees_with(&look) {
                return Ok(None);
            }
            let (plan, all_there) = planned?;
            Ok(all_there.then_some((look, plan)))
        })?;
        Ok(draft(keys, &look, plan, &known))
    }
}

/// What was read of each message, by base file name and inode number, kept from try to try: a
/// message file does not change.
type Known = HashMap<(Box<[u8]>, u64), Result<Prints, String>>;

fn known_as(message: &Message) -> (Box<[u8]>, u64) {
    (message.base.clone(), message.inode)
}

/// Reads what the keys need. `false` when a message went away meanwhile.
fn read_keys(
    maildir: &Maildir,
    look: &Look,
    plan: &Plan,
    keys: Keys,
    known: &mut Known,
) -> Result<bool, Error> {
    let Some(depth) = keys.depth().filter(|_| !plan.entries.is_empty()) else { return Ok(true) };
    for entry in &plan.entries {
        if !read_one(maildir, &look.messages[entry.at], depth, known)? {
            return Ok(false);
        }
    }
    if !keys.header || keys.message {
        return Ok(true);
    }
    // A header repeats also when its twin has not been listed yet: after the move both are there.
    let mut headers = Headers::default();
    for message in &look.messages {
        if !read_one(maildir, message, Depth::Header, known)? {
            return Ok(false);
        }
        if let Some(Ok(prints)) = known.get(&known_as(message)) {
            headers.count(&prints.of);
        }
    }
    for entry in &plan.entries {
        let message = &look.messages[entry.at];
        let Some(Ok(prints)) = known.get(&known_as(message)) else { continue };
        if headers.say_little_of(&prints.of) && !read_one(maildir, message, Depth::Message, known)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads one message to `depth`, unless that is known. `false` when it has gone. What cannot be
/// read is known as such: it costs its fingerprints, not the maildrop.
fn read_one(
    maildir: &Maildir,
    message: &Message,
    depth: Depth,
    known: &mut Known,
) -> Result<bool, Error> {
    let name = known_as(message);
    match known.get(&name) {
        Some(Ok(prints)) if depth == Depth::Header || prints.depth == Depth::Message => {
            return Ok(true);
        }
        Some(Err(_)) => return Ok(true),
        _ => {}
    }
    let read = match maildir.open_message(message) {
        Ok(None) => return Ok(false),
        Ok(Some(file)) => Prints::read(file, depth).map_err(|e| Error::io(&message.name, e)),
        Err(error) => Err(error),
    };
    known.insert(name, read.map_err(|error| error.to_string()));
    Ok(true)
}

fn draft(keys: Keys, look: &Look, plan: Plan, known: &Known) -> Draft {
    let Plan { entries, spent, uidvalidity, counter, remarks, gone: _, unusable: _ } = plan;
    let mut draft = Draft { uidvalidity, counter, spent, remarks, ..Draft::default() };
    let mut packed: Option<(usize, &Message, Packed)> = None;
    for planned in entries {
        let message = &look.messages[planned.at];
        let prints = match known.get(&known_as(message)) {
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
            "{count} messages have no fingerprints, for their files are {how} (first: {}): capture this \
             maildrop by doveadm or over POP3, or with --keys file if files are copied as they are",
            printable(&first.name)
        ));
    }
    draft
}
