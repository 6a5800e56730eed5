//! Finds out what the rules ask about the messages of an INBOX that only Dovecot can read:
//! [`AskedSurvey`].
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Read};

use arrayvec::ArrayVec;

use crate::capture::doveadm::{DoveadmError, Object, each_object};
use crate::capture::find::source::Source;
use crate::capture::keys::MessageRead;
use crate::dovecot::{Dovecot, DovecotError, InboxPath};
use crate::forecast::maildir_survey::{INDEX_LOG, Unsurveyed, memory_at};
use crate::format::{Fields, UidlFormat};
use crate::key::{Depth, FileKey, is_guid_a_name};
use crate::ledger::{Epoch, Ledger, Mark};
use crate::resolve::{Fact, Message, Need, most_unreadable};
use crate::text::on_one_line;
use crate::uidl::Uidl;

/// The fields that name a message, and those that are stored for it.
const NAMES: &str = "uid guid storageid pop3.uidl pop3.order";

/// JSON has this in the place of octets that are not UTF-8.
const REPLACED: &[u8] = "\u{fffd}".as_bytes();

/// The names of a message, as the storage has them.
#[derive(Debug, Clone, Default)]
struct StoredNames {
    /// Its base file name; empty on a storage that has none.
    file: Box<[u8]>,
    guid: Box<[u8]>,
}

/// The messages of an INBOX, as far as Dovecot was asked about them.
#[derive(Debug)]
pub struct AskedSurvey<'a> {
    dovecot: &'a Dovecot,
    user: &'a str,
    names: Vec<StoredNames>,
    /// All messages by UID, in the order of `names`.
    pub messages: Vec<Message>,
    /// What their UIDs go with.
    pub epoch: Epoch,
    /// Whether `dovecot-uidlist` tells which UID is which name.
    pub is_maildir: bool,
    /// The first message that could not be read, and why.
    pub first_fault: Option<String>,
}

impl<'a> AskedSurvey<'a> {
    /// Lists the messages with their names, and what is stored for them. `dovecot` is one
    /// [without our plugin](Dovecot::without_plugin).
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`].
    pub fn begin(dovecot: &'a Dovecot, user: &'a str) -> Result<Self, Unsurveyed> {
        let mut status = None;
        dovecot.status(user, |said| {
            each_object(said, &mut |object| {
                let count = object.number("messages");
                let validity = object.number("uidvalidity").and_then(|n| u32::try_from(n).ok());
                let next = object.number("uidnext").and_then(|n| u32::try_from(n).ok());
                status = count.zip(validity).zip(next);
                Ok(())
            })
        })??;
        let Some(((count, uidvalidity), next_uid)) = status else {
            return Err(Unsurveyed::NoAnswer("no status of INBOX".to_owned()));
        };
        let epoch = Epoch { uidvalidity, next_uid, index_id: 0 };
        let (names, messages, first_fault) = (Vec::new(), Vec::new(), None);
        let mut survey =
            Self { dovecot, user, names, messages, epoch, is_maildir: false, first_fault };
        survey.list(count)?;
        survey.is_maildir = survey.names.iter().any(|names| !names.file.is_empty());
        Ok(survey)
    }

    /// Lists the messages, `count` before any that came since.
    fn list(&mut self, count: u64) -> Result<(), Unsurveyed> {
        let mut listed: Vec<(u32, Option<(StoredNames, Message)>)> = Vec::new();
        let found = self.fetch(NAMES, None, &mut |uid, object| {
            listed.push((uid, Some(named(uid, object)?)));
            Some(())
        });
        // Where a message cannot be read, it is looked for by halves.
        let is_by_halves = matches!(&found, Err(Unsurveyed::Dovecot(DovecotError::Answer { .. })));
        if is_by_halves {
            listed.clear();
            self.fetch("uid", None, &mut |uid, _| {
                listed.push((uid, None));
                Some(())
            })?;
        } else {
            found?;
        }
        listed.sort_by_key(|(uid, _)| *uid);
        if listed.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Unsurveyed::NoAnswer("a UID comes twice".to_owned()));
        }
        // A message that came after the status does not make up for one that is missing.
        let counted = listed.iter().filter(|(uid, _)| *uid < self.epoch.next_uid).count();
        if counted as u64 != count {
            return Err(Unsurveyed::Changed);
        }
        if let Some((last, _)) = listed.last() {
            self.epoch.next_uid = self.epoch.next_uid.max(last.saturating_add(1));
        }
        for (uid, named) in listed {
            let unnamed = || (StoredNames::default(), Message::new(uid));
            let (names, message) = named.unwrap_or_else(unnamed);
            self.names.push(names);
            self.messages.push(message);
        }
        if is_by_halves {
            let places: Vec<usize> = (0..self.messages.len()).collect();
            let mut left = most_unreadable(places.len());
            self.find(&places, Need::Names, &mut left)?;
        }
        let is_mangled = |name: &[u8]| memchr::memmem::find(name, REPLACED).is_some();
        if self.names.iter().any(|names| is_mangled(&names.guid) || is_mangled(&names.file)) {
            let why = "a file name or a GUID has octets that doveadm does not print".to_owned();
            return Err(Unsurveyed::NoAnswer(why));
        }
        Ok(())
    }

    /// Reads what clients of this user were told here already: ledger and mark, where they lie in
    /// `control`. Finds the number of the index files, where there is something that it goes with.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`]: it is there, and cannot be used.
    pub fn memory(
        &mut self,
        control: &Source,
    ) -> Result<(Option<Ledger>, Option<Mark>), Unsurveyed> {
        let (ledger, mark) = memory_at(self.user, &mut |name| control.read_file(name))?;
        if !self.is_maildir && (ledger.is_some() || mark.is_some()) {
            let index = self.dovecot.inbox_path(self.user, InboxPath::Index)?;
            let log = Source::named(self.user, index).read_file(INDEX_LOG)?;
            let id = log.as_deref().and_then(index_id_of);
            self.epoch.index_id = id.ok_or_else(|| {
                Unsurveyed::NoAnswer(format!("no {INDEX_LOG} that says which index it is of"))
            })?;
        }
        Ok((ledger, mark))
    }

    /// Finds out what is asked. A message that cannot be read is marked so, and that is an answer.
    /// When so many cannot be read that the rules refuse, the rest is left.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`].
    pub fn find_out(
        &mut self,
        asked: &[(usize, Need)],
        native: Option<&UidlFormat>,
    ) -> Result<(), Unsurveyed> {
        for &(at, need) in asked {
            if need == Need::Native {
                self.find_native(at, native);
            }
        }
        let mut left = most_unreadable(self.messages.len());
        for need in [Need::Octets, Need::Received, Need::Header, Need::Message] {
            let of_need = asked.iter().filter(|(_, asked)| *asked == need).map(|(at, _)| *at);
            let mut places: Vec<usize> = of_need.collect();
            places.sort_unstable();
            if !self.find(&places, need, &mut left)? {
                break;
            }
        }
        Ok(())
    }

    /// Asks for one kind of fact. Where Dovecot has none of some message, that is looked for by
    /// halves. Returns whether to go on: too many are unreadable.
    fn find(&mut self, places: &[usize], need: Need, left: &mut usize) -> Result<bool, Unsurveyed> {
        if places.is_empty() {
            return Ok(true);
        }
        match self.find_all(places, need) {
            Err(Unsurveyed::Dovecot(DovecotError::Answer { said, .. })) => {
                if let [at] = *places {
                    self.messages[at].unreadable = true;
                    let uid = self.messages[at].uid;
                    self.first_fault.get_or_insert_with(|| format!("UID {uid}: {said}"));
                    let has_more = *left > 0;
                    *left = left.saturating_sub(1);
                    return Ok(has_more);
                }
                let (one, other) = places.split_at(places.len() / 2);
                Ok(self.find(one, need, left)? && self.find(other, need, left)?)
            }
            found => found.map(|()| true),
        }
    }

    fn find_all(&mut self, places: &[usize], need: Need) -> Result<(), Unsurveyed> {
        let fields = match need {
            Need::Octets => "uid size.virtual",
            Need::Received => "uid date.received.unixtime",
            Need::Header => "uid hdr",
            Need::Message => "uid size.virtual text",
            Need::Names => NAMES,
            // It is made of what is known.
            Need::Native => return Ok(()),
        };
        let uids: Vec<u32> = places.iter().map(|&at| self.messages[at].uid).collect();
        let at_of: HashMap<u32, usize> = uids.iter().copied().zip(places.iter().copied()).collect();
        let mut found: Vec<(usize, Found)> = Vec::with_capacity(places.len());
        self.fetch(fields, Some(&uids), &mut |uid, object| {
            // Others may have been printed beside them.
            if let Some(&at) = at_of.get(&uid) {
                found.push((at, Found::of(need, uid, object)?));
            }
            Some(())
        })?;
        if found.len() != places.len() {
            return Err(Unsurveyed::Changed);
        }
        for (at, found) in found {
            let message = &mut self.messages[at];
            match found {
                Found::Named(named) => (self.names[at], *message) = *named,
                Found::Octets(octets) => message.details.octets = Fact::Is(octets),
                Found::Received(received) => message.details.received = Fact::Is(received),
                Found::Read(read, octets) => {
                    let is_whole = read.depth == Depth::Message;
                    // JSON has other octets in the place of some.
                    let is_mangled = is_whole && read.of.body.is_none();
                    let read = if is_mangled { self.read_raw(at)? } else { *read };
                    let message = &mut self.messages[at];
                    message.details.header = Fact::found(read.of.header);
                    message.details.origin = Fact::found(read.of.origin);
                    message.details.names_itself = read.of.names_itself;
                    message.details.origin_names_itself = read.of.origin_names_itself;
                    if is_whole {
                        message.details.body = Fact::found(read.of.body);
                        message.details.message = Fact::found(read.of.message);
                        message.details.octets = Fact::found(octets);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads one message octet by octet.
    fn read_raw(&self, at: usize) -> Result<MessageRead, Unsurveyed> {
        let read = |said: &mut dyn Read| -> io::Result<Option<MessageRead>> {
            let mut octets = Vec::new();
            said.read_to_end(&mut octets)?;
            let text = octets.strip_prefix(b"text=").and_then(|text| text.strip_suffix(b"\n"));
            text.map(|text| MessageRead::read(text, Depth::Message)).transpose()
        };
        let read = self.dovecot.fetch_raw(self.user, self.messages[at].uid, read)?;
        let read = read.map_err(|error| Unsurveyed::NoAnswer(error.to_string()))?;
        read.ok_or(Unsurveyed::Changed)
    }

    fn find_native(&mut self, at: usize, native: Option<&UidlFormat>) {
        let StoredNames { file, guid } = &self.names[at];
        let message = &mut self.messages[at];
        let some = |name: &'_ [u8]| (!name.is_empty()).then(|| name.to_vec());
        let (file, guid) = (some(file), some(guid));
        let fields = Fields {
            uid: message.uid,
            uidvalidity: self.epoch.uidvalidity,
            file: file.as_deref(),
            guid: guid.as_deref(),
        };
        message.details.native = Fact::found(native.and_then(|format| format.render(&fields).ok()));
    }

    /// Hands on each message that is printed. `None` of `take`: it lacks a field.
    fn fetch(
        &self,
        fields: &str,
        uids: Option<&[u32]>,
        take: &mut dyn FnMut(u32, &Object) -> Option<()>,
    ) -> Result<(), Unsurveyed> {
        let no_field = || DoveadmError::NoField { user: on_one_line(self.user), field: "uid" };
        self.dovecot.fetch(self.user, fields, uids, |said| {
            each_object(said, &mut |object| {
                let uid = object.number("uid").and_then(|uid| u32::try_from(uid).ok());
                uid.and_then(|uid| take(uid, &object)).ok_or_else(no_field)
            })
        })??;
        Ok(())
    }
}

/// What was found of one message.
enum Found {
    Named(Box<(StoredNames, Message)>),
    Octets(u64),
    Received(i64),
    Read(Box<MessageRead>, Option<u64>),
}

impl Found {
    /// `None`: it was not printed.
    fn of(need: Need, uid: u32, object: &Object) -> Option<Self> {
        let octets = || object.number("size.virtual");
        Some(match need {
            Need::Octets => Self::Octets(octets()?),
            Need::Received => Self::Received(object.text("date.received.unixtime")?.parse().ok()?),
            Need::Message => Self::Read(Box::new(object.message()?), Some(octets()?)),
            Need::Header => Self::Read(Box::new(object.message()?), None),
            Need::Names => Self::Named(Box::new(named(uid, object)?)),
            Need::Native => return None,
        })
    }
}

/// A message with its names, and what is stored for it. `None`: that was not printed.
fn named(uid: u32, object: &Object) -> Option<(StoredNames, Message)> {
    let octets = |field: &str| object.octets(field).map(Box::from);
    let names = StoredNames { file: octets("storageid")?, guid: octets("guid")? };
    let StoredNames { file, guid } = &names;
    let mut keys = ArrayVec::new();
    if !file.is_empty() {
        keys.push(FileKey::of_name(file));
    }
    // On Maildir the GUID is the base file name, unless dsync brought another.
    if is_guid_a_name(guid) && guid != file {
        keys.push(FileKey::of_name(guid));
    }
    let mut message = Message::new(uid);
    let in_list = (!file.is_empty()).then(|| Ledger::name_of_cut(&FileKey::cut_of(file)));
    message.set_uidlist_name(in_list);
    message.set_names(Fact::Is(keys));
    let stored = Uidl::new(object.octets("pop3.uidl")?).ok();
    message.set_stored(stored, object.text("pop3.order").and_then(|order| order.parse().ok()));
    Some((names, message))
}

/// The number of the index files, in the header of their log (`mail-transaction-log.h`), in the
/// order of octets of this machine.
fn index_id_of(log: &[u8]) -> Option<u32> {
    let id = u32::from_ne_bytes(*log.get(4..8)?.first_chunk()?);
    (log[0] == 1 && id != 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_index_is_in_its_log() {
        let log = [&[1, 3, 40, 0][..], &1_796_023_896_u32.to_ne_bytes(), &[2, 0, 0, 0]].concat();
        assert_eq!(index_id_of(&log), Some(1_796_023_896));
        assert_eq!(index_id_of(&log[..7]), None);
        assert_eq!(index_id_of(&[&[9, 3, 40, 0][..], &log[4..]].concat()), None);
    }
}
