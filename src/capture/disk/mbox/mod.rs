//! Mail in an mbox: one file a maildrop, and what clients know of it in the headers of its
//! messages.
//!
//! | server | UIDL | learnt from |
//! |---|---|---|
//! | Dovecot, UW ipop3d | of `X-UID`, and the UIDVALIDITY in `X-IMAPbase` of the first message | dovecot `mbox-sync-parse.c`, `istream-raw-mbox.c` |
//! | mailutils | `X-UIDL`, written when a session ends | mailutils `msguidl.c`, `mboxrd.c` |
//! | Qpopper | `X-UIDL` of 11 to 32 octets, written when a session ends | Qpopper 4 `pop_dropcopy.c`, `pop_updt.c` |
//! | popa3d | the MD5 of what stays the same in the header: [`digest`] | popa3d `mailbox.c` |
//!
//! Each also splits the file in its own way: [`from_line`]. The order is that of the file.
//!
//! The file is in use. It is read until it was the same before and after, while nobody held its
//! lock, `NAME.lock`; locked it is not, for that would change the old server.
#![forbid(unsafe_code)]

pub mod digest;
pub mod from_line;
pub mod split;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use digest::{DigestOf, HeaderDigest};
use from_line::FromLine;
use rustix::fs::AtFlags;
use split::{HeaderEnd, MOST_OF_A_NAME, MboxField, MboxMessage, Rules, Unsplit, number, split};

use crate::capture::disk::steady::until_steady;
use crate::capture::disk::traits::ServerTraits;
use crate::capture::draft::Draft;
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::keys::{Headers, Keys};
use crate::capture::safe_open::open_mbox;
use crate::format::{Fields, UidlFormat};
use crate::key::Fingerprints;
use crate::maildrop::{Counter, Entry, Name};
use crate::text::printable;
use crate::uidl::Uidl;

/// What answered POP3 from an mbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MboxServer {
    /// Dovecot, with its `pop3_uidl_format`; UW ipop3d, whose format is `%08Xv%08Xu`.
    Dovecot {
        /// The format.
        format: UidlFormat,
    },
    /// The pop3d of GNU mailutils.
    Mailutils,
    /// Qpopper.
    Qpopper,
    /// Openwall's popa3d.
    Popa3d,
}

impl MboxServer {
    /// Its traits. The POP3 programs of all of them ask for a password themselves.
    pub(super) fn traits(&self) -> ServerTraits {
        ServerTraits::of_mbox(match self {
            Self::Dovecot { .. } => "dovecot",
            Self::Mailutils => "mailutils",
            Self::Qpopper => "qpopper",
            Self::Popa3d => "popa3d",
        })
    }

    /// How it reads the file.
    pub fn rules(&self) -> Rules {
        let rules = Rules {
            from_line: FromLine::DatedAfterBlank,
            header_end: HeaderEnd::Empty,
            heeds_content_length: false,
            unquotes: false,
            gives_from_as_field: false,
            digest: None,
        };
        match self {
            Self::Dovecot { .. } => Rules {
                from_line: FromLine::Dated,
                heeds_content_length: true,
                digest: Some(DigestOf::Values),
                ..rules
            },
            Self::Mailutils => Rules {
                from_line: FromLine::DatedAfterBlankInBody,
                unquotes: true,
                gives_from_as_field: true,
                ..rules
            },
            Self::Qpopper => rules,
            Self::Popa3d => {
                let (from_line, header_end) = (FromLine::AfterBlank, HeaderEnd::BareLf);
                Rules { from_line, header_end, digest: Some(DigestOf::Lines), ..rules }
            }
        }
    }

    /// What its clients know of these messages.
    ///
    /// # Errors
    ///
    /// [`CaptureError::HeadersMissing`] when none has what the server writes, and some were opened.
    pub fn draft(&self, messages: &[MboxMessage], keys: Keys) -> Result<Draft, CaptureError> {
        let taken = Taken::new(messages, keys);
        match self {
            Self::Dovecot { format } => dovecot(&taken, format),
            Self::Mailutils => x_uidl(&taken, |_| false, |value| !value.is_empty()),
            Self::Qpopper => {
                x_uidl(&taken, is_hidden_by_qpopper, |value| (11..=32).contains(&value.len()))
            }
            Self::Popa3d => Ok(popa3d(&taken)),
        }
    }
}

/// Opens the mbox at `source`.
pub(super) fn open(source: &Source) -> Result<File, CaptureError> {
    let (directory, name) = source.open_holder()?;
    open_mbox(directory.as_fd(), name.as_bytes())
}

/// Captures the mbox at `source`.
pub(super) fn capture(
    server: &MboxServer,
    keys: Keys,
    source: &Source,
) -> Result<Draft, CaptureError> {
    let (directory, name) = source.open_holder()?;
    let (directory, name) = (directory.as_fd(), name.as_os_str());
    let mut is_locked = false;
    let messages = until_steady(|_| {
        is_locked = holds_mail_back(server, directory, name)?;
        if is_locked {
            return Ok(None);
        }
        let file = open_mbox(directory, name.as_bytes())?;
        let before = stamp(&file, name)?;
        let messages = split(&file, server.rules()).map_err(|error| match error {
            Unsplit::Io(error) => CaptureError::io(name.as_bytes(), error),
            other => CaptureError::Source(format!("{}: {other}", printable(name.as_bytes()))),
        });
        let now = open_mbox(directory, name.as_bytes()).and_then(|file| stamp(&file, name))?;
        is_locked = holds_mail_back(server, directory, name)?;
        if is_locked || now != before {
            return Ok(None);
        }
        messages.map(Some)
    });
    let messages = messages.map_err(|error| match error {
        CaptureError::Unstable { .. } if is_locked => {
            CaptureError::Locked { name: printable(name.as_bytes()) }
        }
        other => other,
    })?;
    server.draft(&messages, keys)
}

/// What changes when a file does: which it is, its size, and when it was written and changed.
type MboxStamp = (u64, u64, u64, [i64; 4]);

fn stamp(file: &File, name: &OsStr) -> Result<MboxStamp, CaptureError> {
    let metadata = file.metadata().map_err(|error| CaptureError::io(name.as_bytes(), error))?;
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    Ok((metadata.dev(), metadata.ino(), metadata.len(), times))
}

/// Whether somebody writes to the mbox, or has its mail elsewhere for now: then what is in it is
/// not what it has.
fn holds_mail_back(
    server: &MboxServer,
    directory: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<bool, CaptureError> {
    let size_of = |name: &[u8]| {
        let stat =
            rustix::fs::statat(directory, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW);
        match stat {
            Ok(stat) => Ok(Some(stat.st_size)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(CaptureError::io(name, errno.into())),
        }
    };
    if size_of(&[name.as_bytes(), b".lock"].concat())?.is_some() {
        return Ok(true);
    }
    // Qpopper moves the mail there for the time of a session; an empty one may stay.
    let drop = [b".", name.as_bytes(), b".pop"].concat();
    Ok(*server == MboxServer::Qpopper && size_of(&drop)?.is_some_and(|octets| octets > 0))
}

/// The messages, and what is taken of each.
struct Taken<'a> {
    messages: &'a [MboxMessage],
    keys: Keys,
    headers: Headers,
}

impl<'a> Taken<'a> {
    fn new(messages: &'a [MboxMessage], keys: Keys) -> Self {
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
fn x_uidl(
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
            "{seen_without} messages were opened and have no X-UIDL: was that by a local reader, or does \
             another server answer POP3 here?"
        ));
    }
    Ok(draft)
}

/// What is said of a message that may have what is looked for behind all that was looked at.
fn too_many(at: usize) -> String {
    format!(
        "message {}: its header has more than {MOST_OF_A_NAME} fields of one name, and the rest \
         was not looked at: capture this maildrop over POP3",
        at + 1
    )
}

/// Whether the first message is c-client's note to itself, as Qpopper tells it: by two of three
/// marks.
fn is_hidden_by_qpopper(messages: &[MboxMessage]) -> bool {
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

fn popa3d(taken: &Taken<'_>) -> Draft {
    let mut draft = Draft::default();
    for message in taken.messages {
        let digest = message.digest.unwrap_or_else(HeaderDigest::of_nothing);
        let uidl: String = [3, 2, 1, 0, 7, 6, 5, 4].map(|at: usize| hex(&digest[at..=at])).concat();
        draft.push(taken.entry(message, Uidl::new(uidl.as_bytes()).expect("hexadecimal digits")));
    }
    draft
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn dovecot(taken: &Taken<'_>, format: &UidlFormat) -> Result<Draft, CaptureError> {
    let mut draft = Draft::default();
    let Some(base) = taken.messages.first().and_then(MboxBase::of) else {
        if let Some(error) = taken.missing("X-IMAPbase") {
            return Err(error);
        }
        if !taken.messages.is_empty() {
            draft.remarks.note(format!(
                "no X-IMAPbase: Dovecot has not opened this maildrop; messages without a unique-id: {}",
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
        let guid = hex(&message.digest.unwrap_or_else(HeaderDigest::of_nothing));
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

/// What the first message says of the whole mbox.
struct MboxBase {
    uidvalidity: u32,
    next: u32,
    /// It is c-client's note to itself, and no message.
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
