//! Drafts of an mbox: the headers of its messages say what the clients of each server know.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::capture::disk::mbox::digest::HeaderDigest;
use crate::capture::disk::mbox::split::{MOST_OF_A_NAME, MboxField, MboxMessage, number};
use crate::capture::draft::Draft;
use crate::capture::error::CaptureError;
use crate::capture::keys::{Headers, Keys};
use crate::encoding::Hex;
use crate::format::{Fields, UidlFormat};
use crate::key::Fingerprints;
use crate::maildrop::{Counter, Entry, Name};
use crate::uidl::Uidl;

/// The messages, and what is taken of each.
pub(super) struct Taken<'a> {
    messages: &'a [MboxMessage],
    keys: Keys,
    headers: Headers,
}

impl<'a> Taken<'a> {
    pub(super) fn new(messages: &'a [MboxMessage], keys: Keys) -> Self {
        let mut headers = Headers::default();
        messages.iter().for_each(|message| headers.count(&message.of));
        Self { messages, keys, headers }
    }

    fn entry(&self, message: &MboxMessage, uidl: Uidl) -> Entry {
        let is_whole =
            self.keys.message || self.keys.header && self.headers.say_little_of(&message.of);
        let of = Fingerprints { message: message.of.message.filter(|_| is_whole), ..message.of };
        self.keys.with_prints(Entry::new(uidl), &of)
    }

    /// The error for messages that were opened, and none has what the server writes.
    fn missing(&self, what: &'static str) -> Option<CaptureError> {
        let opened = self.messages.iter().filter(|message| message.is_seen()).count();
        (opened > 0).then_some(CaptureError::HeadersMissing { what, opened })
    }
}

/// Takes the UIDLs from `X-UIDL`: the first value of each message that the server would take.
pub(super) fn x_uidl(
    taken: &Taken<'_>,
    is_hidden: impl Fn(&[MboxMessage]) -> bool,
    is_taken: impl Fn(&[u8]) -> bool,
) -> Result<Draft, CaptureError> {
    let mut draft = Draft::default();
    let (mut without, mut seen_without) = (0, 0);
    let is_first_hidden = is_hidden(taken.messages);
    for (at, message) in taken.messages.iter().enumerate() {
        let Some(value) = message.values(MboxField::Uidl).find(|value| is_taken(value)) else {
            if message.has_more {
                draft.remarks.loss(too_many(at));
                continue;
            }
            without += 1;
            seen_without += usize::from(message.is_seen());
            continue;
        };
        match Uidl::new(value) {
            Ok(uidl) if at == 0 && is_first_hidden => draft.spent.push(uidl),
            Ok(uidl) => draft.push(taken.entry(message, uidl)),
            Err(bad) => draft.remarks.loss(format!("message {}: X-UIDL: {bad}", at + 1)),
        }
    }
    if without == taken.messages.len() {
        if let Some(error) = taken.missing("X-UIDL") {
            return Err(error);
        }
    }
    if without > seen_without {
        let unseen = without - seen_without;
        draft.remarks.note(format!("{unseen} messages without X-UIDL yet: no unique-id"));
    }
    if seen_without > 0 {
        draft.remarks.loss(format!(
            "{seen_without} messages were opened and have no X-UIDL: was that by a local reader, \
             or does another server answer POP3 here?"
        ));
    }
    Ok(draft)
}

/// The remark on a message that may have the field behind all those that were looked at.
fn too_many(at: usize) -> String {
    format!(
        "message {}: its header has more than {MOST_OF_A_NAME} fields of one name, and the rest \
         was not looked at: capture this maildrop over POP3",
        at + 1
    )
}

/// Whether the first message is c-client's note to itself. Qpopper tells it by two of three marks.
pub(super) fn is_hidden_by_qpopper(messages: &[MboxMessage]) -> bool {
    let Some(first) = messages.first() else { return false };
    let is_subject = |value: &[u8]| {
        let has = |words: &[u8]| memchr::memmem::find(value, words).is_some();
        has(b"DO NOT DELETE") || has(b"DON'T DELETE THIS MESSAGE") || has(b"FOLDER INTERNAL DATA")
    };
    let marks = [
        first.values(MboxField::Subject).any(is_subject),
        first.values(MboxField::Imap).next().is_some(),
        first.values(MboxField::From).any(|value| value.starts_with(b"Mail System Internal Data")),
    ];
    marks.iter().filter(|&&mark| mark).count() >= 2
}

/// The UIDLs of popa3d: it computes each from the header.
pub(super) fn popa3d(taken: &Taken<'_>) -> Draft {
    let mut draft = Draft::default();
    for message in taken.messages {
        let digest = message.digest.unwrap_or_else(HeaderDigest::of_nothing);
        let uidl: String =
            [3, 2, 1, 0, 7, 6, 5, 4].map(|at: usize| Hex(&digest[at..=at]).to_string()).concat();
        draft.push(taken.entry(message, Uidl::new(uidl.as_bytes()).expect("hexadecimal digits")));
    }
    draft
}

/// The UIDLs of Dovecot, by `X-IMAPbase` and `X-UID`.
pub(super) fn dovecot(taken: &Taken<'_>, format: &UidlFormat) -> Result<Draft, CaptureError> {
    let mut draft = Draft::default();
    let Some(base) = taken.messages.first().and_then(MboxBase::of) else {
        if let Some(error) = taken.missing("X-IMAPbase") {
            return Err(error);
        }
        if !taken.messages.is_empty() {
            draft.remarks.note(format!(
                "no X-IMAPbase: Dovecot has not opened this maildrop; messages without a \
                 unique-id: {}",
                taken.messages.len()
            ));
        }
        return Ok(draft);
    };
    let messages = &taken.messages[usize::from(base.is_pseudo)..];
    let mut next = base.next;
    let uids = uids(messages, &mut next);
    draft.uidvalidity = Some(base.uidvalidity);
    draft.counter = format.is_counting().then(|| Counter { format: format.clone(), next });
    let mut alike: HashMap<_, u32> = HashMap::new();
    messages.iter().for_each(|message| *alike.entry(message.digest).or_default() += 1);
    let listed = uids.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if listed < messages.len() {
        draft
            .remarks
            .note(format!("{} messages without X-UID yet: no unique-id", messages.len() - listed));
    }
    for (at, _) in messages.iter().enumerate().skip(listed).filter(|(_, one)| one.has_more) {
        draft.remarks.loss(too_many(at));
    }
    for (at, (message, uid)) in messages.iter().zip(uids).enumerate().take(listed) {
        let Some(uid) = uid else {
            draft.remarks.loss(format!(
                "message {}: no X-UID that Dovecot would take, and there is one behind it: capture \
                 this maildrop by doveadm",
                at + 1
            ));
            continue;
        };
        let guid = Hex(&message.digest.unwrap_or_else(HeaderDigest::of_nothing)).to_string();
        let fields =
            Fields { uid, uidvalidity: base.uidvalidity, file: None, guid: Some(guid.as_bytes()) };
        match format.render(&fields) {
            Ok(uidl) => {
                // A GUID that several messages have names none of them.
                let is_unique = message.digest.is_some() && alike[&message.digest] == 1;
                let guid =
                    (taken.keys.file && is_unique).then(|| Name::Spelled(guid.into_bytes().into()));
                draft.push(Entry { uid: Some(uid), guid, ..taken.entry(message, uidl) });
            }
            Err(why) => draft.remarks.loss(format!("message {}: {why}", at + 1)),
        }
    }
    Ok(draft)
}

/// The facts of a whole mbox that its first message says.
struct MboxBase {
    uidvalidity: u32,
    next: u32,
    /// The first message is c-client's note to itself, and no mail.
    is_pseudo: bool,
}

impl MboxBase {
    /// `parse_x_imap_base`: UIDVALIDITY, a blank, the last UID.
    fn of(first: &MboxMessage) -> Option<Self> {
        first.fields.iter().find_map(|(field, value)| {
            let is_pseudo = match field {
                MboxField::ImapBase => false,
                MboxField::Imap => true,
                _ => return None,
            };
            let mut words =
                value.split(|octet| octet.is_ascii_whitespace()).filter(|w| !w.is_empty());
            let uidvalidity =
                u32::try_from(number(words.next()?)?).ok().filter(|&value| value > 0)?;
            let last = u32::try_from(number(words.next()?)?).ok()?;
            Some(Self { uidvalidity, next: last.saturating_add(1), is_pseudo })
        })
    }
}

/// `parse_x_uid`: the UID of each message, where Dovecot would take it. UIDs grow, and do not pass
/// `next`, which they may push on by one.
fn uids(messages: &[MboxMessage], next: &mut u32) -> Vec<Option<u32>> {
    let mut last = 0;
    let mut uid_of = |message: &MboxMessage| {
        let mut numbers =
            message.values(MboxField::Uid).filter_map(|value| number(value)?.try_into().ok());
        let uid = numbers.find(|&uid: &u32| uid > last && uid <= *next)?;
        *next = (*next).max(uid.saturating_add(1));
        last = uid;
        Some(uid)
    };
    messages.iter().map(&mut uid_of).collect()
}
