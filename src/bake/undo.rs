//! What a bake has changed, and how it is taken back: [`UndoneRecord`], [`undo`].
//!
//! An undo file has a JSON object a line, one for each list that was written, in the order in which
//! they were. UIDLs and file names are percent-encoded, for they may have any octets.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bake::control::ListDir;
use crate::bake::dotlock::Dotlock;
use crate::bake::maildir::Unbaked;
use crate::bake::uidlist::{BadList, BakedList, StoredUidl};
use crate::capture::disk::dovecot::STATE_FILE;
use crate::capture::disk::maildir::Maildir;
use crate::capture::find::source::Source;
use crate::encoding::{percent_decoded, push_percent_encoded};

/// The version of an undo file's lines.
const VERSION: u64 = 1;
/// How long another's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one bake changed in one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoneRecord {
    /// Whose mail it is.
    pub user: String,
    /// The directory of the list.
    pub directory: PathBuf,
    /// The mailbox's UIDVALIDITY.
    pub uidvalidity: u32,
    /// The messages that were changed.
    pub messages: Vec<UndoneMessage>,
}

/// What a bake changed of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoneMessage {
    /// Its UID.
    pub uid: u32,
    /// Its base file name.
    pub file: Box<[u8]>,
    /// What the list had before.
    pub was: StoredUidl,
    /// What was written.
    pub baked: StoredUidl,
}

/// Why a line of an undo file is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a line of an undo file of uidl-keep bake, version {VERSION}")]
pub struct BadUndo;

impl UndoneRecord {
    /// The line, with its LF.
    pub fn line(&self) -> String {
        let messages = self.messages.iter().map(|message| {
            let UndoneMessage { uid, file, was, baked } = message;
            json!([uid, word(file), pair(was), pair(baked)])
        });
        let line = json!({
            "uidl-keep-bake": VERSION,
            "user": self.user,
            "directory": word(self.directory.as_os_str().as_encoded_bytes()),
            "uidvalidity": self.uidvalidity,
            "messages": messages.collect::<Vec<_>>(),
        });
        format!("{line}\n")
    }

    /// Reads a line.
    ///
    /// # Errors
    ///
    /// [`BadUndo`].
    pub fn parse(line: &str) -> Result<Self, BadUndo> {
        let value: Value = serde_json::from_str(line).map_err(|_| BadUndo)?;
        let read = || {
            (value.get("uidl-keep-bake")?.as_u64()? == VERSION).then_some(())?;
            let messages = value.get("messages")?.as_array()?.iter().map(message);
            let directory = octets(value.get("directory")?)?;
            let directory = String::from_utf8(directory.into_vec()).map(PathBuf::from);
            Some(Self {
                user: value.get("user")?.as_str()?.to_owned(),
                directory: directory.ok()?,
                uidvalidity: u32::try_from(value.get("uidvalidity")?.as_u64()?).ok()?,
                messages: messages.collect::<Option<_>>()?,
            })
        };
        read().ok_or(BadUndo)
    }
}

fn message(value: &Value) -> Option<UndoneMessage> {
    let [uid, file, was, baked] = &value.as_array()?[..] else { return None };
    Some(UndoneMessage {
        uid: u32::try_from(uid.as_u64()?).ok()?,
        file: octets(file)?,
        was: stored(was)?,
        baked: stored(baked)?,
    })
}

fn word(octets: &[u8]) -> String {
    let mut word = Vec::new();
    push_percent_encoded(&mut word, octets);
    String::from_utf8(word).expect("ASCII")
}

fn octets(value: &Value) -> Option<Box<[u8]>> {
    percent_decoded(value.as_str()?.as_bytes()).map(Into::into)
}

fn pair(stored: &StoredUidl) -> Value {
    let value = |field: &Option<Box<[u8]>>| field.as_ref().map_or(Value::Null, |f| word(f).into());
    json!([value(&stored.uidl), value(&stored.order)])
}

fn stored(value: &Value) -> Option<StoredUidl> {
    // A field of the list has no blank and no line end in it.
    let field = |value: &Value| match value {
        Value::Null => Some(None),
        value => octets(value).filter(|octets| octets.iter().all(is_of_field)).map(Some),
    };
    let [uidl, order] = &value.as_array()?[..] else { return None };
    Some(StoredUidl { uidl: field(uidl)?, order: field(order)? })
}

fn is_of_field(octet: &u8) -> bool {
    !matches!(octet, b' ' | b'\n' | b'\r' | 0)
}

/// What was taken back of one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Undone {
    /// Messages that have again what they had before.
    pub back: usize,
    /// Messages that are in the list and have something else than was baked. They keep that.
    pub changed: usize,
    /// Messages that are gone from the list.
    pub gone: usize,
}

/// Takes back what a bake wrote into one list, message by message, as far as it is there still as
/// it was baked. The next UID stays raised. `is_dry`: only says what would be.
///
/// # Errors
///
/// [`Unbaked`]: nothing was taken back of this list.
pub fn undo(record: &UndoneRecord, is_dry: bool) -> Result<Undone, Unbaked> {
    let source = Source::named(&record.user, &record.directory);
    // No message is looked at.
    let directory = Maildir::of_files(source.open()?, |_| false)?;
    let dir = ListDir(directory.top());
    let access = dir.access()?;
    let lock = match is_dry {
        true => None,
        false => Some(Dotlock::take(dir.0, access.owner.unwrap_or_default(), PATIENCE)?),
    };
    let mut undone = Undone::default();
    let Some(octets) = directory.read_beside(STATE_FILE)? else {
        undone.gone = record.messages.len();
        return Ok(undone);
    };
    let mut list = BakedList::parse(&octets, [0; 16]).map_err(|BadList { line, what }| {
        Unbaked::Unwritten(io::Error::other(format!(
            "line {line}: {what}; let Dovecot open the mailbox, and run this again"
        )))
    })?;
    for message in &record.messages {
        let UndoneMessage { uid, file, was, baked } = message;
        let line = list.find(*uid, file).filter(|_| list.uidvalidity() == record.uidvalidity);
        match line.map(|line| line.stored()) {
            None => undone.gone += 1,
            Some(stored) if stored == *baked => {
                list.set(*uid, file, was);
                undone.back += 1;
            }
            Some(stored) if stored == *was => undone.back += 1,
            Some(_) => undone.changed += 1,
        }
    }
    let octets_now = list.encode();
    if let Some(lock) = lock.filter(|_| octets_now != octets) {
        dir.publish(&lock, &octets_now, access)?;
    }
    Ok(undone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> UndoneRecord {
        let bare = StoredUidl { uidl: Some(Box::from(&b""[..])), order: None };
        let message = |uid, file: &[u8], was| UndoneMessage {
            uid,
            file: file.into(),
            was,
            baked: StoredUidl::baked(b"UID1-17", 1_048_576),
        };
        UndoneRecord {
            user: "j\u{fc}rgen@a.org".to_owned(),
            directory: "/srv/a b".into(),
            uidvalidity: 17,
            messages: vec![message(3, b"a\xff b", bare), message(4, b"c", StoredUidl::default())],
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let record = record();
        let line = record.line();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(UndoneRecord::parse(&line), Ok(record));
    }

    #[test]
    fn a_line_that_would_break_a_list_is_none() {
        let line = record().line();
        for (what, with) in [
            ("UID1-17", "UID1%2017"),
            ("UID1-17", "UID1%0a4%20:x"),
            ("\"uidl-keep-bake\":1", "\"uidl-keep-bake\":2"),
            ("\"uidvalidity\":17", "\"uidvalidity\":4294967296"),
            ("[3,", "[-3,"),
            ("null", "7"),
            ("}", ""),
        ] {
            assert!(line.contains(what), "{what}");
            assert_eq!(UndoneRecord::parse(&line.replace(what, with)), Err(BadUndo), "{with}");
        }
    }
}
