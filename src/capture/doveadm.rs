//! The output of `doveadm`, piped in: Dovecot itself says what its maildrops have, whatever it
//! keeps them in.
//!
//! mdbox and sdbox keep UIDLs, orders and GUIDs in files that only Dovecot should read. So Dovecot
//! is asked, twice, in JSON, in which no message can pretend to be two:
//!
//! ```text
//! doveadm -f json mailbox status -A 'messages uidvalidity uidnext' INBOX
//! doveadm -f json fetch -A 'uid guid pop3.uidl pop3.order size.virtual hdr' mailbox INBOX
//! ```
//!
//! Both print an array of objects whose values are all strings, with a `username` in each when
//! asked of several users. The first one says whose maildrops there are and how many messages each
//! has, so that we see what the second one lacks. An array that is cut short is no JSON.
//!
//! A UIDL is what Dovecot saved (`pop3.uidl`), else `pop3_uidl_format` makes it (`pop3-commands.c`,
//! `pop3_get_uid`). Messages are sorted by `pop3.order`; those without one come last, by UID
//! (`index-sort.c`, `index_sort_get_pop3_order`). With `text` in place of `hdr` whole messages are
//! fingerprinted, too. JSON is UTF-8, and doveadm puts U+FFFD for anything else. The fingerprint of
//! a header does not see that; a message that has it gets no fingerprint of the whole message.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};

use crate::capture::disk::weight::Unusable;
use crate::capture::draft::{Captured, Draft};
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::keys::{Headers, Keys, MessageRead};
use crate::capture::told_here::{
    Known, MailboxNow, MemoryFault, MemoryFiles, MessageNow, Recorded, ToldBy, names_of,
    say_told_here,
};
use crate::encoding::decimal;
use crate::format::{Fields, UidlFormat};
use crate::key::{Depth, is_guid_a_name};
use crate::ledger::{FIRST_ORDER, Told};
use crate::maildrop::{Counter, Entry, Name};
use crate::text::printable;
use crate::uidl::Uidl;

/// How the output is read.
#[derive(Debug, Clone)]
pub struct DoveadmRequest {
    /// Whose maildrop it is, where no object has a `username`.
    pub user: Option<String>,
    /// Everybody whose maildrop there should be; empty where that is not known.
    pub users: Vec<String>,
    /// The `pop3_uidl_format`.
    pub format: UidlFormat,
    /// Which keys to take.
    pub keys: Keys,
    /// Where the ledgers of users lie whom our plugin may have answered.
    pub control: BTreeMap<String, Source>,
}

/// Why the input is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoveadmError {
    /// It could not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no JSON, or ends too early.
    #[error("not what doveadm -f json prints, or cut short: {0}")]
    Json(String),
    /// There was nothing.
    #[error("no output of doveadm: it prints an array even of nothing, so it has failed")]
    Nothing,
    /// An object of a message before the one of its maildrop.
    #[error(
        "messages of {user} before the status of the maildrop: give the output of \"doveadm \
         mailbox status\" first"
    )]
    NoStatus {
        /// Whose, printable.
        user: String,
    },
    /// A second status, or messages of a user whose maildrop is finished.
    #[error("{user} comes twice")]
    Twice {
        /// Whose, printable.
        user: String,
    },
    /// An object that does not say whose it is.
    #[error("no username in it: ask with -A, or say --user")]
    NoUser,
    /// An object without a field, or with one that is no number.
    #[error("{user}: no {field} in what doveadm printed")]
    NoField {
        /// Whose, printable.
        user: String,
        /// Which.
        field: &'static str,
    },
    /// A block could not be handed on.
    #[error("{0}")]
    Emit(String),
}

/// Reads what doveadm printed, and emits a block for each maildrop: one after the other those that
/// have messages, then the others, by name.
///
/// Holds the keys of one maildrop at a time. One pass.
///
/// # Errors
///
/// [`DoveadmError`]; what was emitted before is then not to be trusted either.
pub fn read(
    input: impl Read,
    asked: &DoveadmRequest,
    emit: &mut dyn FnMut(Captured) -> Result<(), DoveadmError>,
) -> Result<(), DoveadmError> {
    let mut reading =
        BlockAssembly { asked, waiting: BTreeMap::new(), done: HashSet::new(), open: None, emit };
    each_object(input, &mut |object| reading.take(object))?;
    reading.finish()
}

/// Reads what doveadm printed, one array or several, and hands on each object, one at a time.
///
/// # Errors
///
/// [`DoveadmError`]: that of `take`, or it is not what doveadm prints.
pub fn each_object(
    input: impl Read,
    take: &mut dyn FnMut(Object) -> Result<(), DoveadmError>,
) -> Result<(), DoveadmError> {
    let mut input = BufReader::new(input);
    let mut arrays = 0;
    while !is_over(&mut input)? {
        let mut json = serde_json::Deserializer::from_reader(&mut input);
        let mut fault = None;
        let mut take = |object| take(object).map_err(|error| fault = Some(error)).is_ok();
        if let Err(error) = EachObject(&mut take).deserialize(&mut json) {
            return Err(fault
                .unwrap_or_else(|| DoveadmError::Json(printable(error.to_string().as_bytes()))));
        }
        arrays += 1;
    }
    if arrays == 0 { Err(DoveadmError::Nothing) } else { Ok(()) }
}

/// Whether nothing but blanks and line ends is left.
fn is_over(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let octets = input.fill_buf()?;
        let Some(octet) = octets.first() else { return Ok(true) };
        if !octet.is_ascii_whitespace() {
            return Ok(false);
        }
        input.consume(1);
    }
}

/// The answer of `mailbox status` for one maildrop.
#[derive(Debug, Clone, Copy)]
struct Status {
    messages: u64,
    uidvalidity: u32,
    next: u32,
}

/// One message, read.
struct PrintedMessage {
    uid: u32,
    place: u64,
    uidl: Box<[u8]>,
    guid: Box<[u8]>,
    octets: Option<u64>,
    prints: Option<MessageRead>,
}

struct BlockAssembly<'a> {
    asked: &'a DoveadmRequest,
    /// Maildrops whose messages have not come.
    waiting: BTreeMap<String, Status>,
    done: HashSet<String>,
    open: Option<(String, Status, Vec<PrintedMessage>)>,
    emit: &'a mut dyn FnMut(Captured) -> Result<(), DoveadmError>,
}

impl BlockAssembly<'_> {
    fn take(&mut self, object: Object) -> Result<(), DoveadmError> {
        let user = match object.text("username").or_else(|| self.asked.user.clone()) {
            Some(user) => user,
            None => return Err(DoveadmError::NoUser),
        };
        let shown = printable(user.as_bytes());
        let number = |field: &'static str| {
            object.number(field).ok_or_else(|| DoveadmError::NoField { user: shown.clone(), field })
        };
        let small = |field: &'static str| {
            let number = number(field)?;
            u32::try_from(number).map_err(|_| DoveadmError::NoField { user: shown.clone(), field })
        };
        if object.0.contains_key("messages") {
            let status = Status {
                messages: number("messages")?,
                uidvalidity: small("uidvalidity")?,
                next: small("uidnext")?,
            };
            let is_known = self.done.contains(&user)
                || self.open.as_ref().is_some_and(|(open, ..)| *open == user);
            if is_known || self.waiting.insert(user, status).is_some() {
                return Err(DoveadmError::Twice { user: shown });
            }
            return Ok(());
        }
        let uid = small("uid")?;
        let text = |field: &'static str| {
            let value = object.0.get(field).map(|value| Box::from(&value[..]));
            value.ok_or_else(|| DoveadmError::NoField { user: shown.clone(), field })
        };
        let message = PrintedMessage {
            uid,
            // A message without an order comes behind those with one, as in `dovecot-uidlist`.
            place: object.number("pop3.order").unwrap_or(u64::from(u32::MAX)),
            uidl: text("pop3.uidl")?,
            guid: text("guid")?,
            octets: object.number("size.virtual"),
            prints: object.prints(self.asked.keys),
        };
        if self.asked.keys.depth().is_some() && message.prints.is_none() {
            return Err(DoveadmError::NoField { user: shown, field: "hdr" });
        }
        if self.open.as_ref().is_none_or(|(open, ..)| *open != user) {
            self.close()?;
            let status = self.waiting.remove(&user);
            let status = match status {
                Some(status) => status,
                None if self.done.contains(&user) => {
                    return Err(DoveadmError::Twice { user: shown });
                }
                None => return Err(DoveadmError::NoStatus { user: shown }),
            };
            self.open = Some((user, status, Vec::new()));
        }
        let (.., messages) = self.open.as_mut().expect("opened just now");
        messages.push(message);
        Ok(())
    }

    fn close(&mut self) -> Result<(), DoveadmError> {
        let Some((user, status, messages)) = self.open.take() else { return Ok(()) };
        self.done.insert(user.clone());
        (self.emit)(captured(self.asked, user, status, messages))
    }

    fn finish(mut self) -> Result<(), DoveadmError> {
        self.close()?;
        for (user, status) in std::mem::take(&mut self.waiting) {
            self.done.insert(user.clone());
            (self.emit)(captured(self.asked, user, status, Vec::new()))?;
        }
        for user in &self.asked.users {
            if !self.done.contains(user) {
                let why =
                    "doveadm said nothing of this maildrop; it said why on its stderr".to_owned();
                (self.emit)(Captured::failed(user.clone(), SOURCE.to_owned(), why))?;
            }
        }
        Ok(())
    }
}

const SOURCE: &str = "doveadm";

/// The block of one maildrop.
fn captured(
    asked: &DoveadmRequest,
    user: String,
    status: Status,
    mut messages: Vec<PrintedMessage>,
) -> Captured {
    if status.uidvalidity == 0 {
        return Captured::failed(user, SOURCE.to_owned(), "its UIDVALIDITY is 0".to_owned());
    }
    // A message that came after the status does not make up for one that is missing.
    let counted = messages.iter().filter(|message| message.uid < status.next).count();
    if (counted as u64) < status.messages {
        let why = format!(
            "{counted} of {} messages: doveadm failed, or some were deleted meanwhile; ask it \
             again",
            status.messages
        );
        return Captured::failed(user, SOURCE.to_owned(), why);
    }
    let mut uids = HashSet::new();
    if let Some(twice) = messages.iter().find(|message| !uids.insert(message.uid)) {
        let why = format!(
            "uid {} comes twice: more than INBOX was fetched, or all of it twice; ask with \
             \"mailbox INBOX\", once",
            twice.uid
        );
        return Captured::failed(user, SOURCE.to_owned(), why);
    }
    let known = match known_here(asked, &user, status, &messages) {
        Ok(known) => known,
        Err(error) => {
            let is_rehearsal = matches!(error, CaptureError::Memory(MemoryFault::Rehearsed));
            let failed = Captured::failed(user, SOURCE.to_owned(), error.to_string());
            let told_by = if is_rehearsal { ToldBy::Nobody } else { failed.told_by };
            return Captured { told_by, ..failed };
        }
    };
    messages.sort_by_key(|message| (message.place, message.uid));
    let is_ours = |message: &PrintedMessage| {
        !message.uidl.is_empty() && (FIRST_ORDER.into()..u32::MAX.into()).contains(&message.place)
    };
    let stored = messages.iter().any(is_ours);
    let mut draft = Draft {
        told_by: if stored { ToldBy::Stored } else { ToldBy::Server },
        user,
        source: SOURCE.to_owned(),
        uidvalidity: Some(status.uidvalidity),
        ..Draft::default()
    };
    let mut headers = Headers::default();
    messages
        .iter()
        .flat_map(|message| &message.prints)
        .for_each(|prints| headers.count(&prints.of));
    let mut unusable = Unusable::default();
    let mut alike: Option<(usize, u32)> = None;
    let mut unprintable: Option<(usize, u32)> = None;
    let mut next = status.next;
    let mut uidls: Option<HashMap<u32, (usize, Uidl)>> = None;
    if let Some((known, told_by)) = known {
        draft.told_by = told_by;
        draft.spent.extend(known.spent);
        draft.told = known.told;
        next = next.max(known.next);
        let uids: Vec<u32> = known.unlisted;
        say_told_here(&mut draft.remarks, &uids);
        let places: HashMap<u32, (usize, Uidl)> = known.listed;
        messages.sort_by_key(|message| places.get(&message.uid).map(|(place, _)| *place));
        uidls = Some(places);
    }
    for message in messages {
        next = next.max(message.uid.saturating_add(1));
        let found = match &mut uidls {
            None => uidl(asked, status, &message),
            Some(uidls) => match uidls.remove(&message.uid) {
                Some((_, uidl)) => Ok(uidl),
                None => continue,
            },
        };
        let uidl = match found {
            Ok(uidl) => uidl,
            Err(why) => {
                let why = format!("uid {}: {why}", message.uid);
                unusable.add(&why);
                draft.remarks.loss(why);
                continue;
            }
        };
        let PrintedMessage { uid, guid, octets, prints, .. } = message;
        let guid = (asked.keys.file && is_guid_a_name(&guid)).then_some(Name::Spelled(guid));
        let mut entry = Entry { uid: Some(uid), octets, guid, ..Entry::new(uidl) };
        if let Some(mut prints) = prints {
            let says_little = asked.keys.header && headers.say_little_of(&prints.of);
            let wants_message = asked.keys.message || says_little;
            let counted = match (wants_message, prints.of.message) {
                (true, None) if prints.depth == Depth::Header => Some(&mut alike),
                (true, None) if prints.of.body.is_none() => Some(&mut unprintable),
                _ => None,
            };
            if let Some(counted) = counted {
                counted.get_or_insert((0, uid)).0 += 1;
            }
            if !wants_message {
                prints.of.message = None;
            }
            entry = asked.keys.with_prints(entry, &prints.of);
        }
        draft.push(entry);
    }
    if let Err(error) = unusable.weigh(draft.entries.len(), usize::MAX) {
        return Captured::failed(draft.user, draft.source, error.to_string());
    }
    draft.counter =
        asked.format.is_counting().then(|| Counter { format: asked.format.clone(), next });
    if let Some((count, first)) = alike {
        draft.remarks.nameless = count;
        draft.remarks.note(format!(
            "{count} messages have a header that does not name them (first: uid {first}): where \
             GUIDs do not survive the move, fetch text in place of hdr"
        ));
    }
    if let Some((count, first)) = unprintable {
        draft.remarks.note(format!(
            "{count} messages have octets that doveadm does not print (first: uid {first}), so \
             that their text is not known: where GUIDs do not survive the move, capture them over \
             POP3"
        ));
    }
    draft.finish()
}

/// What clients know by our ledger, by UID.
struct KnownByUid {
    listed: HashMap<u32, (usize, Uidl)>,
    unlisted: Vec<u32>,
    spent: Vec<Uidl>,
    next: u32,
    told: Vec<Told>,
}

/// What our ledger says of these messages; `None` where there is none.
fn known_here(
    asked: &DoveadmRequest,
    user: &str,
    status: Status,
    messages: &[PrintedMessage],
) -> Result<Option<(KnownByUid, ToldBy)>, CaptureError> {
    let Some(control) = asked.control.get(user) else { return Ok(None) };
    let here = match Recorded::of(&MemoryFiles::read_at(control)?, &[user])? {
        Recorded::Nothing => return Ok(None),
        Recorded::Rehearsal => return Err(MemoryFault::Rehearsed.into()),
        Recorded::Told(here) => here,
    };
    let Status { uidvalidity, next, .. } = status;
    let now = |message: &PrintedMessage| {
        let guid = Some(&message.guid[..]).filter(|guid| is_guid_a_name(guid));
        let fields = Fields { uid: message.uid, uidvalidity, file: None, guid };
        MessageNow {
            uid: message.uid,
            names: names_of(None, guid),
            stored: Uidl::new(message.uidl.clone()).ok(),
            order: u32::try_from(message.place).ok().filter(|&place| place != u32::MAX),
            native: asked.format.render(&fields).ok(),
        }
    };
    let mailbox = MailboxNow {
        uidvalidity: Some(uidvalidity),
        next: messages.iter().map(|message| message.uid.saturating_add(1)).fold(next, u32::max),
        messages: messages.iter().map(now).collect(),
    };
    let Known { listed, unlisted, spent, next, told } = here.known(&mailbox, &asked.format);
    let places = (0..).zip(listed);
    let known = KnownByUid {
        listed: places.map(|(place, (at, uidl))| (messages[at].uid, (place, uidl))).collect(),
        unlisted: unlisted.into_iter().map(|at| messages[at].uid).collect(),
        spent,
        next,
        told,
    };
    Ok(Some((known, here.told_by())))
}

fn uidl(asked: &DoveadmRequest, status: Status, message: &PrintedMessage) -> Result<Uidl, String> {
    if !message.uidl.is_empty() {
        return Uidl::new(message.uidl.clone()).map_err(|error| error.to_string());
    }
    let Status { uidvalidity, .. } = status;
    let guid = Some(&message.guid[..]).filter(|guid| !guid.is_empty());
    let fields = Fields { uid: message.uid, uidvalidity, file: None, guid };
    asked.format.render(&fields).map_err(|error| error.to_string())
}

/// An object as doveadm prints it: every value is a string.
#[derive(Debug)]
pub struct Object(HashMap<String, Vec<u8>>);

impl Object {
    /// The value of a field. `None`: it has no such field.
    pub fn octets(&self, field: &str) -> Option<&[u8]> {
        self.0.get(field).map(Vec::as_slice)
    }

    /// The same, where it is UTF-8.
    pub fn text(&self, field: &str) -> Option<String> {
        self.octets(field).and_then(|value| String::from_utf8(value.to_vec()).ok())
    }

    /// The same, where it is a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        decimal(self.octets(field)?)
    }

    /// What was read of the message, by its `text`, or else its `hdr`. Octets that doveadm does not
    /// print leave no fingerprint of the text. `None`: it has neither.
    pub fn message(&self) -> Option<MessageRead> {
        let read =
            |octets: &[u8], depth| MessageRead::read(octets, depth).expect("memory can be read");
        if let Some(text) = self.0.get("text") {
            let mut prints = read(text, Depth::Message);
            // The message has other octets there.
            if memchr::memmem::find(text, "\u{fffd}".as_bytes()).is_some() {
                (prints.of.message, prints.of.body) = (None, None);
            }
            return Some(prints);
        }
        Some(read(self.0.get("hdr")?, Depth::Header))
    }

    fn prints(&self, keys: Keys) -> Option<MessageRead> {
        keys.depth().and_then(|_| self.message())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = HashMap::new();
                while let Some((name, Octets(value))) = map.next_entry::<String, Octets>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field comes twice"));
                    }
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// A string that need not be UTF-8.
struct Octets(Vec<u8>);

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OctetsVisitor;
        impl Visitor<'_> for OctetsVisitor {
            type Value = Octets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, octets: &[u8]) -> Result<Octets, E> {
                Ok(Octets(octets.to_vec()))
            }
        }
        deserializer.deserialize_bytes(OctetsVisitor)
    }
}

/// An array whose objects are taken one by one, until one of them is refused.
struct EachObject<'a>(&'a mut dyn FnMut(Object) -> bool);

impl<'de> DeserializeSeed<'de> for EachObject<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EachObject<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(object) = array.next_element()? {
            if !(self.0)(object) {
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
