//! Finds out what the rules ask about the messages of a Maildir, from its files alone:
//! [`MaildirSurvey`].
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

use arrayvec::ArrayVec;

use crate::capture::disk::dovecot::{STATE_FILE, UidList, UidListRecord};
use crate::capture::disk::maildir::{Maildir, MessageFile, SnapshotParts, arrival, octets_in_name};
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::keys::{MessageRead, Packed};
use crate::format::{Fields, UidlFormat};
use crate::key::{Depth, FileKey, is_guid_a_name};
use crate::ledger::{Epoch, Ledger, LedgerError, Mark, control};
use crate::resolve::{Fact, Message, Need, most_unreadable};
use crate::text::printable;
use crate::uidl::Uidl;

/// Why a survey cannot tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsurveyed {
    /// The Maildir cannot be read.
    #[error("{0}")]
    Capture(#[from] CaptureError),
    /// Dovecot would throw its list away.
    #[error(
        "{STATE_FILE}:{line} is not a message, and Dovecot makes such a list anew: take the list \
         away, or put it back from a backup"
    )]
    BadList {
        /// Which line, from 1.
        line: usize,
    },
    /// The ledger is there and cannot be used.
    #[error("{}: {error}; restore it from a backup, or take it away", control::LEDGER)]
    BadLedger {
        /// What is wrong with it.
        error: LedgerError,
    },
    /// The ledger is another user's.
    #[error("{}: it is the ledger of {owner:?}", control::LEDGER)]
    OtherUser {
        /// Whose it is.
        owner: String,
    },
    /// Only Dovecot can unpack a message, and the rules ask what is in it.
    #[error(
        "{file} is compressed or encrypted, and only Dovecot can tell what is in it: ask `doveadm \
         fetch` for pop3.uidl, with the plugin loaded"
    )]
    Packed {
        /// Its name, printable.
        file: String,
    },
    /// Messages went while they were read.
    #[error("it changed while it was read; forecast it again")]
    Changed,
}

/// What Dovecot knows of a message beside its content.
#[derive(Debug)]
struct ListedFile {
    file: MessageFile,
    /// Its line of the list, if it has one.
    record: UidListRecord,
}

/// The messages of a Maildir, as far as they were asked about.
#[derive(Debug)]
pub struct MaildirSurvey {
    maildir: Maildir,
    files: Vec<ListedFile>,
    /// All messages by UID, in the order of `files`.
    pub messages: Vec<Message>,
    /// What their UIDs go with. Dovecot will make a UIDVALIDITY where there is no list yet.
    pub epoch: Epoch,
    /// The first message that could not be read, and why.
    pub first_fault: Option<String>,
}

impl MaildirSurvey {
    /// Lists the messages, and gives those that are not in `dovecot-uidlist` the UIDs that Dovecot
    /// will give them. `made_at` is the UIDVALIDITY of a list that is not there yet. Opens no
    /// message.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`].
    pub fn begin(source: &Source, made_at: u32) -> Result<Self, Unsurveyed> {
        let maildir = Maildir::open(source.open()?)?;
        let parts = SnapshotParts { state: Some(STATE_FILE), mtimes: false, memory: false };
        let snapshot = maildir.snapshot(parts)?;
        let is_growing = snapshot.ends_in_a_line();
        let list = match &snapshot.state {
            Some(octets) if !octets.is_empty() => Some(UidList::parse(octets)?),
            Some(_) | None => None,
        };
        let mut odd = list.iter().flat_map(|list| &list.odd).map(|(line, _)| *line);
        // The last line may be growing at this moment.
        match (odd.next(), odd.next()) {
            (None, _) => {}
            (Some(_), None) if is_growing => {}
            (Some(line), _) => return Err(Unsurveyed::BadList { line }),
        }
        let (mut next_uid, uidvalidity) =
            list.as_ref().map_or((1, made_at), |list| (list.next, list.uidvalidity));
        let mut records: HashMap<Box<[u8]>, (u32, UidListRecord)> = HashMap::new();
        for (uid, record) in list.into_iter().flat_map(|list| list.messages) {
            records.insert(record.file.clone(), (uid, record));
        }
        let (mut listed, mut unlisted) = (Vec::new(), Vec::new());
        for file in snapshot.messages {
            match records.remove(&file.base) {
                Some((uid, record)) => listed.push((uid, ListedFile { file, record })),
                None => unlisted.push(file),
            }
        }
        unlisted.sort_by(|a, b| by_arrival(&a.base, &b.base));
        for file in unlisted {
            let record = UidListRecord { file: file.base.clone(), ..UidListRecord::default() };
            listed.push((next_uid, ListedFile { file, record }));
            next_uid = next_uid.saturating_add(1);
        }
        listed.sort_by_key(|(uid, _)| *uid);
        let message = |(uid, listed): &(u32, ListedFile)| Message {
            uid: *uid,
            uidlist_name: Some(Ledger::name_of_cut(&FileKey::cut_of(&listed.file.base))),
            ..Message::default()
        };
        Ok(Self {
            messages: listed.iter().map(message).collect(),
            files: listed.into_iter().map(|(_, listed)| listed).collect(),
            maildir,
            epoch: Epoch { uidvalidity, next_uid, index_id: 0 },
            first_fault: None,
        })
    }

    /// Reads what clients of this user were told here already: ledger and mark, where they lie in
    /// the Maildir.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`]: it is there, and cannot be used.
    pub fn memory(&self, user: &str) -> Result<(Option<Ledger>, Option<Mark>), Unsurveyed> {
        let ledger = match self.maildir.read_beside(control::LEDGER)? {
            Some(file) => {
                let ledger =
                    Ledger::decode(&file).map_err(|error| Unsurveyed::BadLedger { error })?;
                if ledger.user != user {
                    return Err(Unsurveyed::OtherUser { owner: ledger.user });
                }
                Some(ledger)
            }
            None => None,
        };
        let mark = self.maildir.read_beside(control::LOCK)?.and_then(|file| Mark::of_file(&file));
        Ok((ledger, mark))
    }

    /// The base file name of the message at that place.
    pub fn file_name(&self, at: usize) -> &[u8] {
        &self.files[at].file.base
    }

    /// Finds out what is asked. A message that cannot be read is marked so, and that is an answer.
    /// When so many cannot be read that the rules refuse, the rest is left.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed::Changed`], [`Unsurveyed::Packed`].
    pub fn find_out(
        &mut self,
        asked: &[(usize, Need)],
        native: Option<&UidlFormat>,
    ) -> Result<(), Unsurveyed> {
        let mut unreadable = 0;
        for &(at, need) in asked {
            let found = match need {
                Need::Names => {
                    self.find_names(at);
                    Ok(())
                }
                Need::Native => {
                    self.find_native(at, native);
                    Ok(())
                }
                Need::Header => self.read(at, Depth::Header),
                Need::Message => self.read(at, Depth::Message),
                Need::Octets => match octets_in_name(&self.files[at].file.base) {
                    Some(octets) => {
                        self.messages[at].octets = Fact::Is(octets);
                        Ok(())
                    }
                    None => self.read(at, Depth::Message),
                },
                Need::Received => self.find_received(at),
            };
            match found {
                Ok(()) => {}
                Err(Unsurveyed::Capture(error)) => {
                    self.messages[at].unreadable = true;
                    self.first_fault.get_or_insert_with(|| error.to_string());
                    unreadable += 1;
                    if unreadable > most_unreadable(self.messages.len()) {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn find_names(&mut self, at: usize) {
        let ListedFile { file, record } = &self.files[at];
        let mut names = ArrayVec::new();
        names.push(FileKey::of_name(&file.base));
        // The GUID is the base file name, unless dsync brought another.
        let guid =
            record.guid.as_ref().filter(|guid| is_guid_a_name(guid) && ***guid != *file.base);
        names.extend(guid.map(|guid| FileKey::of_name(guid)));
        let message = &mut self.messages[at];
        message.names = Fact::Is(names);
        // An empty `P` stands for the base file name.
        let stored = record.uidl.as_ref().map(|uidl| match uidl.is_empty() {
            true => file.base.clone(),
            false => uidl.clone(),
        });
        message.stored = stored.and_then(|uidl| Uidl::new(uidl).ok());
        let order = record.order.as_ref().and_then(|order| std::str::from_utf8(order).ok());
        message.stored_order = order.and_then(|order| order.parse().ok());
    }

    fn find_native(&mut self, at: usize, native: Option<&UidlFormat>) {
        let ListedFile { file, record } = &self.files[at];
        let message = &mut self.messages[at];
        let fields = Fields {
            uid: message.uid,
            uidvalidity: self.epoch.uidvalidity,
            file: Some(&file.base),
            guid: Some(record.guid.as_ref().unwrap_or(&file.base)),
        };
        message.native = Fact::found(native.and_then(|format| format.render(&fields).ok()));
    }

    fn open(&self, at: usize) -> Result<std::fs::File, Unsurveyed> {
        self.maildir.open_message(&self.files[at].file)?.ok_or(Unsurveyed::Changed)
    }

    fn find_received(&mut self, at: usize) -> Result<(), Unsurveyed> {
        let metadata = self.open(at)?.metadata();
        let metadata = metadata.map_err(|e| CaptureError::io(&self.files[at].file.name, e))?;
        self.messages[at].received = Fact::Is(metadata.mtime());
        Ok(())
    }

    fn read(&mut self, at: usize, depth: Depth) -> Result<(), Unsurveyed> {
        let name = &self.files[at].file.name;
        let read = MessageRead::read(self.open(at)?, depth);
        let read = read.map_err(|error| CaptureError::io(name, error))?;
        if let Some(Packed::Compressed | Packed::Encrypted) = read.packed {
            return Err(Unsurveyed::Packed { file: printable(name) });
        }
        let message = &mut self.messages[at];
        message.header = Fact::found(read.of.header);
        message.origin = Fact::found(read.of.origin);
        message.names_itself = read.of.names_itself;
        message.origin_names_itself = read.of.origin_names_itself;
        if depth == Depth::Message {
            message.body = Fact::found(read.of.body);
            message.message = Fact::found(read.of.message);
            message.octets = Fact::found(octets_in_name(&self.files[at].file.base).or(read.octets));
        }
        Ok(())
    }
}

/// The order in which Dovecot gives UIDs to files that are new to it: by the time in the name, the
/// microseconds after `M`, and the name (`maildir_filename_sort_cmp`).
fn by_arrival(one: &[u8], other: &[u8]) -> Ordering {
    let time = |name: &[u8]| (arrival(name).unwrap_or(0), microseconds(name));
    time(one).cmp(&time(other)).then_with(|| one.cmp(other))
}

fn microseconds(name: &[u8]) -> u64 {
    let after = name.iter().position(|&octet| octet == b'.').map_or(&[][..], |at| &name[at + 1..]);
    let Some(digits) = after.strip_prefix(b"M") else { return 0 };
    let digits = digits.iter().take_while(|octet| octet.is_ascii_digit()).take(18);
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(survey: &MaildirSurvey) -> Vec<(u32, String)> {
        let name = |at| String::from_utf8_lossy(survey.file_name(at)).into_owned();
        survey.messages.iter().enumerate().map(|(at, message)| (message.uid, name(at))).collect()
    }

    #[test]
    fn what_is_not_in_the_list_gets_uids_after_it_in_the_order_of_dovecot() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cur", "new"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let late = ["new/1714990009.M5.h", "cur/1714990009.M40.h:2,S", "cur/999999999.h", "cur/x"];
        for name in
            ["cur/1714990001.b:2,S", "cur/1714990001.a:2,", late[0], late[1], late[2], late[3]]
        {
            fs::write(dir.path().join(name), "A: b\n\n").unwrap();
        }
        let list = "3 V7 N20 G00\n4 P18 O1048577 :1714990001.b\n9 P :1714990001.a:2,S\n";
        fs::write(dir.path().join("dovecot-uidlist"), list).unwrap();
        let source = Source::named("alice", dir.path());
        let mut survey = MaildirSurvey::begin(&source, 1).unwrap();
        let expected = [
            (4, "1714990001.b"),
            (9, "1714990001.a"),
            (20, "x"),
            (21, "999999999.h"),
            (22, "1714990009.M5.h"),
            (23, "1714990009.M40.h"),
        ];
        assert_eq!(names(&survey), expected.map(|(uid, name)| (uid, name.to_owned())));
        assert_eq!(survey.epoch, Epoch { uidvalidity: 7, next_uid: 24, index_id: 0 });

        let format = UidlFormat::parse("%v.%u").unwrap();
        for need in [Need::Names, Need::Native, Need::Octets, Need::Received] {
            survey.find_out(&[(0, need), (1, need)], Some(&format)).unwrap();
        }
        let [first, second] = &survey.messages[..2] else { panic!("two") };
        assert_eq!(first.stored, Some(Uidl::new(*b"18").unwrap()));
        assert_eq!((first.stored_order, second.stored_order), (Some(1_048_577), None));
        assert_eq!(second.stored, Some(Uidl::new(*b"1714990001.a").unwrap()));
        assert_eq!(first.native, Fact::Is(Uidl::new(*b"7.4").unwrap()));
        assert_eq!(first.octets, Fact::Is(8));
        assert!(matches!(first.received, Fact::Is(1_600_000_000..)), "{first:?}");
    }

    #[test]
    fn a_message_that_cannot_be_read_is_an_answer_and_one_that_went_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cur")).unwrap();
        fs::create_dir(dir.path().join("cur/1.h:2,")).unwrap();
        fs::write(dir.path().join("cur/2.h:2,"), "A: b\n\n").unwrap();
        let source = Source::named("alice", dir.path());
        let mut survey = MaildirSurvey::begin(&source, 1).unwrap();
        survey.find_out(&[(0, Need::Header)], None).unwrap();
        assert!(survey.messages[0].unreadable && survey.first_fault.is_some());
        fs::remove_file(dir.path().join("cur/2.h:2,")).unwrap();
        let found = survey.find_out(&[(1, Need::Header)], None);
        assert!(matches!(found, Err(Unsurveyed::Changed)), "{found:?}");
    }
}
