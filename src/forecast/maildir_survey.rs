//! Finds out what the rules ask about the messages of a Maildir, from its files alone:
//! [`MaildirSurvey`].
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;

use arrayvec::ArrayVec;
use rustix::fs::{FileType, Mode, Stat};

use crate::capture::disk::dovecot::{STATE_FILE, UidList, UidListRecord};
use crate::capture::disk::maildir::{
    ControlDir, Maildir, MessageFile, SnapshotParts, arrival, base_name, octets_in_name,
};
use crate::capture::doveadm::DoveadmError;
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::keys::{MessageRead, Packed};
use crate::dovecot::DovecotError;
use crate::encoding::decimal;
use crate::format::{Fields, UidlFormat};
use crate::key::{Depth, FileKey, is_guid_a_name};
use crate::ledger::{Epoch, Ledger, LedgerError, Mark, control};
use crate::resolve::{Fact, Message, Need, most_unreadable};
use crate::text::printable;
use crate::uidl::Uidl;

/// The log of Dovecot's index files. Each INBOX that was opened has one.
pub(super) const INDEX_LOG: &str = "dovecot.index.log";

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
    /// Dovecot takes two files for one message.
    #[error("two files are {file} up to the colon, and Dovecot takes them for one: rename one")]
    Twice {
        /// The base file name, printable.
        file: String,
    },
    /// A message is a link.
    #[error("{file} is a symbolic link, which is not followed: put the file itself in its place")]
    Linked {
        /// Its name, printable.
        file: String,
    },
    /// Dovecot will give a file a name.
    #[error("{file} has no name before the colon, and Dovecot will give it one: rename it")]
    Nameless {
        /// Its name, printable.
        file: String,
    },
    /// Dovecot would throw its list away from that line on.
    #[error(
        "{STATE_FILE}:{line} repeats a UID or a name, or goes back, and Dovecot makes such a list \
         anew: take the list away, or put it back from a backup"
    )]
    Disordered {
        /// Which line, from 1.
        line: usize,
    },
    /// The user cannot read his own mail.
    #[error(
        "{count} messages cannot be read by uid {uid}, whose the Maildir is (first: {file}): give \
         them to it, or let it read them"
    )]
    NotReadable {
        /// How many.
        count: usize,
        /// The first of them, printable.
        file: String,
        /// The owner of the Maildir.
        uid: u32,
    },
    /// There is no list, and an index that goes with one.
    #[error(
        "{INDEX_LOG} is there and no {STATE_FILE}: where Dovecot keeps that elsewhere (CONTROL=), \
         say --control; where it was lost, Dovecot goes by its index, so leave out --maildir"
    )]
    NoList,
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
        "{file} is compressed or encrypted, and only Dovecot can tell what is in it: leave out \
         --maildir on a machine that has Dovecot"
    )]
    Packed {
        /// Its name, printable.
        file: String,
    },
    /// Dovecot does not say what it has.
    #[error("{0}")]
    Dovecot(#[from] DovecotError),
    /// Dovecot says something that is no answer.
    #[error("doveadm: {0}")]
    Doveadm(#[from] DoveadmError),
    /// Dovecot's answer, or one of its files, lacks something.
    #[error("doveadm: {0}")]
    NoAnswer(String),
    /// Messages went while they were read.
    #[error("it changed while it was read; forecast it again")]
    Changed,
}

impl Unsurveyed {
    /// Whether it is something of the files alone, so that Dovecot may tell.
    pub(super) fn may_be_told_by_dovecot(&self) -> bool {
        use CaptureError::{Io, Link, LinkOfUser, NotMaildir};
        match self {
            Self::Packed { .. } | Self::NoList => true,
            Self::Capture(error) => {
                matches!(error, NotMaildir | Link { .. } | LinkOfUser { .. } | Io { .. })
            }
            _ => false,
        }
    }
}

/// What Dovecot knows of a message beside its content.
#[derive(Debug)]
struct ListedFile {
    file: MessageFile,
    /// Its line of the list, if it has one.
    record: UidListRecord,
    /// The size with CRLF line ends that the list has for it.
    octets: Option<u64>,
}

impl ListedFile {
    /// The size that Dovecot goes by without a look at the message, if it has one.
    fn known_octets(&self) -> Option<u64> {
        octets_in_name(&self.file.base).or(self.octets)
    }
}

/// Where Dovecot keeps the list and the ledger of a Maildir.
#[derive(Debug, Clone, Copy)]
pub enum ControlPlace<'a> {
    /// Beside the mail.
    Beside,
    /// There.
    At(&'a Source),
    /// Elsewhere, where nothing is yet.
    Nowhere,
}

impl ControlPlace<'_> {
    fn open(self) -> Result<ControlDir, CaptureError> {
        match self {
            Self::Beside => Ok(ControlDir::Itself),
            Self::At(control) => match control.open() {
                Ok(directory) => Ok(ControlDir::Elsewhere(directory)),
                Err(error) if error.is_absence() => Ok(ControlDir::NotThere),
                Err(error) => Err(error),
            },
            Self::Nowhere => Ok(ControlDir::NotThere),
        }
    }
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
    /// `dovecot-uidlist` as it was read. `None`: there is none.
    pub list: Option<Vec<u8>>,
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
    pub fn begin(
        source: &Source,
        control: ControlPlace<'_>,
        made_at: u32,
    ) -> Result<Self, Unsurveyed> {
        let maildir = Maildir::open(source.open()?)?.with_control(control.open()?);
        let parts = SnapshotParts { state: Some(STATE_FILE), mtimes: false, memory: false };
        let mut snapshot = maildir.snapshot(parts)?;
        // Without its list, Dovecot goes by its index.
        let has_index = snapshot.others.iter().any(|name| &**name == INDEX_LOG.as_bytes());
        if has_index && snapshot.state.is_none() {
            return Err(Unsurveyed::NoList);
        }
        let messages = as_dovecot_sees(&maildir, snapshot.messages.split_off(0))?;
        let is_growing = snapshot.ends_in_a_line();
        let mut listed_octets = HashMap::new();
        let list = match &snapshot.state {
            Some(octets) if !octets.is_empty() => {
                if !has_right_guid(octets) {
                    return Err(Unsurveyed::BadList { line: 1 });
                }
                listed_octets = octets_by_name(octets)?;
                Some(UidList::parse(octets)?)
            }
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
        for file in messages {
            match records.remove(&file.base) {
                Some((uid, record)) => {
                    let octets = listed_octets.get(&file.base).copied();
                    listed.push((uid, ListedFile { file, record, octets }));
                }
                // Dovecot takes no notice of such a file.
                None if file.base.iter().any(|octet| matches!(octet, b'\n' | b'\r')) => {}
                None => unlisted.push(file),
            }
        }
        unlisted.sort_by(|a, b| by_arrival(&a.base, &b.base));
        for file in unlisted {
            let record = UidListRecord { file: file.base.clone(), ..UidListRecord::default() };
            listed.push((next_uid, ListedFile { file, record, octets: None }));
            next_uid = next_uid.saturating_add(1);
        }
        listed.sort_by_key(|(uid, _)| *uid);
        let message = |(uid, listed): &(u32, ListedFile)| {
            let mut message = Message::new(*uid);
            let cut = FileKey::cut_of(&listed.file.base);
            message.set_uidlist_name(Some(Ledger::name_of_cut(&cut)));
            message
        };
        Ok(Self {
            messages: listed.iter().map(message).collect(),
            files: listed.into_iter().map(|(_, listed)| listed).collect(),
            maildir,
            epoch: Epoch { uidvalidity, next_uid, index_id: 0 },
            list: snapshot.state,
            first_fault: None,
        })
    }

    /// The Maildir.
    pub fn maildir(&self) -> &Maildir {
        &self.maildir
    }

    /// Reads what clients of this user were told here already: ledger and mark, where they lie
    /// beside the list.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`]: it is there, and cannot be used.
    pub fn memory(&self, user: &str) -> Result<(Option<Ledger>, Option<Mark>), Unsurveyed> {
        memory_at(user, &mut |name| self.maildir.read_beside(name))
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
                Need::Octets => match self.files[at].known_octets() {
                    Some(octets) => {
                        self.messages[at].details.octets = Fact::Is(octets);
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
        let ListedFile { file, record, .. } = &self.files[at];
        let mut names = ArrayVec::new();
        names.push(FileKey::of_name(&file.base));
        // The GUID is the base file name, unless dsync brought another.
        let guid =
            record.guid.as_ref().filter(|guid| is_guid_a_name(guid) && ***guid != *file.base);
        names.extend(guid.map(|guid| FileKey::of_name(guid)));
        let message = &mut self.messages[at];
        message.set_names(Fact::Is(names));
        // An empty `P` stands for the base file name.
        let stored = record.uidl.as_ref().map(|uidl| match uidl.is_empty() {
            true => file.base.clone(),
            false => uidl.clone(),
        });
        let stored = stored.and_then(|uidl| Uidl::new(uidl).ok());
        let order = record.order.as_ref().and_then(|order| std::str::from_utf8(order).ok());
        message.set_stored(stored, order.and_then(|order| order.parse().ok()));
    }

    fn find_native(&mut self, at: usize, native: Option<&UidlFormat>) {
        let ListedFile { file, record, .. } = &self.files[at];
        let message = &mut self.messages[at];
        let fields = Fields {
            uid: message.uid,
            uidvalidity: self.epoch.uidvalidity,
            file: Some(&file.base),
            guid: Some(record.guid.as_ref().unwrap_or(&file.base)),
        };
        message.details.native = Fact::found(native.and_then(|format| format.render(&fields).ok()));
    }

    fn open(&self, at: usize) -> Result<std::fs::File, Unsurveyed> {
        self.maildir.open_message(&self.files[at].file)?.ok_or(Unsurveyed::Changed)
    }

    fn find_received(&mut self, at: usize) -> Result<(), Unsurveyed> {
        let metadata = self.open(at)?.metadata();
        let metadata = metadata.map_err(|e| CaptureError::io(&self.files[at].file.name, e))?;
        self.messages[at].details.received = Fact::Is(metadata.mtime());
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
        message.details.header = Fact::found(read.of.header);
        message.details.origin = Fact::found(read.of.origin);
        message.details.names_itself = read.of.names_itself;
        message.details.origin_names_itself = read.of.origin_names_itself;
        if depth == Depth::Message {
            message.details.body = Fact::found(read.of.body);
            message.details.message = Fact::found(read.of.message);
            message.details.octets = Fact::found(self.files[at].known_octets().or(read.octets));
        }
        Ok(())
    }
}

/// The files that Dovecot takes for messages. A directory is none.
fn as_dovecot_sees(
    maildir: &Maildir,
    files: Vec<MessageFile>,
) -> Result<Vec<MessageFile>, Unsurveyed> {
    // They are sorted by base file name.
    if let Some(pair) = files.windows(2).find(|pair| pair[0].base == pair[1].base) {
        return Err(Unsurveyed::Twice { file: printable(&pair[0].base) });
    }
    let (uid, gid) = maildir.owner()?;
    let mut messages = Vec::with_capacity(files.len());
    let mut not_readable: Option<(usize, String)> = None;
    for file in files {
        let stat = maildir.stat(&file)?.ok_or(Unsurveyed::Changed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let name = || printable(&file.name);
        match kind {
            FileType::Directory => continue,
            FileType::Symlink => return Err(Unsurveyed::Linked { file: name() }),
            _ if file.base.is_empty() => return Err(Unsurveyed::Nameless { file: name() }),
            _ => {}
        }
        // Nobody knows as whom Dovecot reads what is root's.
        if kind == FileType::RegularFile && uid != 0 && !may_read(&stat, uid, gid) {
            not_readable.get_or_insert_with(|| (0, printable(&file.name))).0 += 1;
        }
        messages.push(file);
    }
    match not_readable {
        Some((count, file)) => Err(Unsurveyed::NotReadable { count, file, uid }),
        None => Ok(messages),
    }
}

/// Whether a user of that uid and gid may read it, by its mode alone.
fn may_read(stat: &Stat, uid: u32, gid: u32) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let bit = match (stat.st_uid == uid, stat.st_gid == gid) {
        (true, _) => Mode::RUSR,
        (false, true) => Mode::RGRP,
        (false, false) => Mode::ROTH,
    };
    mode.contains(bit)
}

/// The sizes (`W`) that a list has, by base file name. Its lines are in the order of their UIDs,
/// and name each file once.
fn octets_by_name(list: &[u8]) -> Result<HashMap<Box<[u8]>, u64>, Unsurveyed> {
    let (mut last, mut seen) = (0, HashSet::new());
    let mut octets = HashMap::new();
    for (line, text) in list.split(|&octet| octet == b'\n').enumerate().skip(1) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // The other lines are none, and found elsewhere.
        let Some(at) = text.iter().position(|&octet| octet == b' ') else { continue };
        let Some(uid) = decimal(&text[..at]) else { continue };
        let colon = text[at..].windows(2).position(|pair| pair == b" :");
        let (fields, name) = match colon {
            Some(colon) => (&text[at..at + colon], &text[at + colon + 2..]),
            None => (&text[..0], &text[at + 1..]),
        };
        let base = base_name(name);
        if uid <= last || !seen.insert(base) {
            return Err(Unsurveyed::Disordered { line: line + 1 });
        }
        last = uid;
        let mut sizes = fields.split(|&octet| octet == b' ').filter_map(|f| f.strip_prefix(b"W"));
        if let Some(size) = sizes.next().and_then(decimal) {
            octets.insert(base.into(), size);
        }
    }
    Ok(octets)
}

/// Whether a list has no GUID of the mailbox in its header, or one that is one. Dovecot throws the
/// list away for another (`maildir_uidlist_read_extended`).
fn has_right_guid(list: &[u8]) -> bool {
    let header = list.split(|&octet| octet == b'\n').next().unwrap_or_default();
    let header = header.strip_suffix(b"\r").unwrap_or(header);
    let guids = header.split(|&octet| octet == b' ').filter_map(|field| field.strip_prefix(b"G"));
    let is_guid = |guid: &[u8]| guid.len() == 32 && guid.iter().all(u8::is_ascii_hexdigit);
    guids.into_iter().all(is_guid)
}

/// Ledger and mark, from the directory whose files `read` reads.
///
/// # Errors
///
/// [`Unsurveyed`]: they are there, and cannot be used.
pub(super) fn memory_at(
    user: &str,
    read: &mut dyn FnMut(&'static str) -> Result<Option<Vec<u8>>, CaptureError>,
) -> Result<(Option<Ledger>, Option<Mark>), Unsurveyed> {
    let ledger = match read(control::LEDGER)? {
        Some(file) => {
            let ledger = Ledger::decode(&file).map_err(|error| Unsurveyed::BadLedger { error })?;
            if ledger.user != user {
                return Err(Unsurveyed::OtherUser { owner: ledger.user });
            }
            Some(ledger)
        }
        None => None,
    };
    // As the plugin takes one that it cannot read.
    let mark = read(control::LOCK).map_or(Some(Mark::damaged()), |file| Mark::of_file(&file?));
    Ok((ledger, mark))
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
        let list = "3 V7 N20\n4 P18 O1048577 :1714990001.b\n9 P :1714990001.a:2,S\n";
        fs::write(dir.path().join("dovecot-uidlist"), list).unwrap();
        let source = Source::named("alice", dir.path());
        let mut survey = MaildirSurvey::begin(&source, ControlPlace::Beside, 1).unwrap();
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
        assert_eq!(first.stored(), Some(&Uidl::new(*b"18").unwrap()));
        assert_eq!((first.stored_order(), second.stored_order()), (Some(1_048_577), None));
        assert_eq!(second.stored(), Some(&Uidl::new(*b"1714990001.a").unwrap()));
        assert_eq!(first.details.native, Fact::Is(Uidl::new(*b"7.4").unwrap()));
        assert_eq!(first.details.octets, Fact::Is(8));
        assert!(matches!(first.details.received, Fact::Is(1_600_000_000..)), "{first:?}");
    }

    #[test]
    fn a_name_with_a_line_end_is_no_message_as_dovecot_has_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cur")).unwrap();
        for name in ["cur/1.h:2,", "cur/2\n3 :h:2,", "cur/3\r.h"] {
            fs::write(dir.path().join(name), "A: b\n\n").unwrap();
        }
        let source = Source::named("alice", dir.path());
        let survey = MaildirSurvey::begin(&source, ControlPlace::Beside, 1).unwrap();
        assert_eq!(names(&survey), [(1, "1.h".to_owned())]);
    }

    #[test]
    fn list_ledger_and_mark_are_read_in_the_control_directory() {
        let (dir, control) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(dir.path().join("cur")).unwrap();
        fs::write(dir.path().join("cur/1.h:2,"), "A: b\n\n").unwrap();
        fs::write(dir.path().join("dovecot-uidlist"), "3 V8 N9\n8 :1.h\n").unwrap();
        fs::write(control.path().join("dovecot-uidlist"), "3 V7 N6\n5 :1.h\n").unwrap();
        fs::write(control.path().join("uidl-keep.ledger"), "none").unwrap();
        let mailbox = Source::named("alice", dir.path());
        let control = Source::named("alice", control.path());
        let survey = MaildirSurvey::begin(&mailbox, ControlPlace::At(&control), 1).unwrap();
        assert_eq!(names(&survey), [(5, "1.h".to_owned())]);
        assert_eq!(survey.epoch.uidvalidity, 7);
        let memory = survey.memory("alice");
        assert!(matches!(memory, Err(Unsurveyed::BadLedger { .. })), "{memory:?}");
    }

    #[test]
    fn a_message_that_cannot_be_read_is_an_answer_and_one_that_went_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cur")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("cur/1.h:2,"), 0o600.into()).unwrap();
        fs::write(dir.path().join("cur/2.h:2,"), "A: b\n\n").unwrap();
        let source = Source::named("alice", dir.path());
        let mut survey = MaildirSurvey::begin(&source, ControlPlace::Beside, 1).unwrap();
        survey.find_out(&[(0, Need::Header)], None).unwrap();
        assert!(survey.messages[0].unreadable && survey.first_fault.is_some());
        fs::remove_file(dir.path().join("cur/2.h:2,")).unwrap();
        let found = survey.find_out(&[(1, Need::Header)], None);
        assert!(matches!(found, Err(Unsurveyed::Changed)), "{found:?}");
    }
}
