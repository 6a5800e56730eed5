//! Cyrus's POP3: `cyrus.index`, versions 6 to 10 and 12 to 20, with `uidl_format`.
//!
//! Learnt from cyrus-imapd `imap/index_file.c` (the fields of each version), `imap/mailbox.h` of
//! releases 2.4 to 3.12, `imap/mailbox.c` (`mailbox_buf_to_index_header`: an empty mailbox becomes
//! one with `OPT_POP3_NEW_UIDL`) and `imap/pop3d.c` (`openinbox`: expunged messages are left out,
//! and those that arrived before `pop3_show_after`; `uidl_msg`):
//!
//! ```text
//! header, big-endian     versions 6 to 18   19    20       record         to 19   20
//! version                8                  8     8        UID            0       0
//! length of the header   12                 12    12       arrived        4       8 (nanoseconds)
//! length of a record     16                 16    16       size           12      24 (64 bits)
//! number of records      20                 20    20       flags          32      36
//! last UID               28                 28    88
//! UIDVALIDITY            44                 44    92
//! options                60                 64    64
//! not expunged           84 (from 12 on)    60    60
//! show after             112 (from 13 on)   112   112 (nanoseconds)
//! ```
//!
//! From version 12 on the last four octets of the header and of each record are a CRC-32 of what is
//! before them. Message `N` is the file `N.`, with CRLF line ends. The order is that of the UIDs.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use crate::capture::disk::maildir::Snapshot;
use crate::capture::disk::traits::DiskTraits;
use crate::capture::error::CaptureError;
use crate::capture::find::source::Holds;
use crate::capture::plan::{Plan, Planned};
use crate::format::{Fields, UidlFormat};
use crate::maildrop::Counter;

/// Cyrus's state file, in the mailbox.
pub const STATE_FILE: &str = "cyrus.index";
/// The file in which Cyrus says whose mailbox it is.
pub const HEADER_FILE: &str = "cyrus.header";

/// Cyrus's own POP3 program asks for a password itself.
pub(super) const TRAITS: DiskTraits = DiskTraits {
    holds: Holds::CyrusMailbox,
    lists_only_what_is_there: true,
    ..DiskTraits::of_maildir("cyrus", Some(STATE_FILE))
};

/// A parsed `cyrus.index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CyrusIndex {
    /// The mailbox's UIDVALIDITY.
    pub uidvalidity: u32,
    /// The first UID not given yet.
    pub next: u32,
    /// Whether UIDLs are made by `uidl_format`. In a mailbox from before 2.1.4 they are bare UIDs.
    pub has_new_uidls: bool,
    /// The messages that are not expunged, by UID.
    pub records: Vec<CyrusRecord>,
    /// Records that cannot be trusted, by number, from 1.
    pub odd: Vec<usize>,
}

/// One message of an [`CyrusIndex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CyrusRecord {
    /// Its UID.
    pub uid: u32,
    /// Its size with CRLF line ends.
    pub octets: u64,
    /// Whether `\Deleted` is set: not shown where `popuseimapflags` is on.
    pub is_deleted: bool,
    /// Whether the file lies in the archive partition.
    pub is_archived: bool,
    /// Whether the mailbox shows only what arrived later than it.
    pub is_too_old: bool,
}

const NEW_UIDLS: u32 = 1;
const DELETED: u32 = 1 << 2;
const ARCHIVED: u32 = 1 << 29;
const UNLINKED: u32 = 1 << 30;
const EXPUNGED: u32 = 1 << 31;

/// Where the fields of a version stand.
#[derive(Debug, Clone, Copy)]
struct IndexLayout {
    header_octets: usize,
    record_octets: usize,
    has_crc: bool,
    last_uid: usize,
    uidvalidity: usize,
    options: usize,
    exists: Option<usize>,
    show_after: Option<usize>,
    arrived: usize,
    size: usize,
    flags: usize,
    /// Times are in nanoseconds, and sizes as long.
    is_wide: bool,
}

/// `None` for a version that no release wrote.
fn layout(version: u32) -> Option<IndexLayout> {
    let (header_octets, record_octets) = match version {
        6 => (76, 60),
        7 => (76, 72),
        8 => (92, 80),
        9 => (96, 80),
        10 => (96, 88),
        12 => (128, 96),
        13 => (128, 104),
        14 | 15 => (160, 104),
        16..=19 => (160, 112),
        20 => (192, 144),
        _ => return None,
    };
    let layout = IndexLayout {
        header_octets,
        record_octets,
        has_crc: version >= 12,
        last_uid: 28,
        uidvalidity: 44,
        options: 60,
        exists: (version >= 12).then_some(84),
        show_after: (version >= 13).then_some(112),
        arrived: 4,
        size: 12,
        flags: 32,
        is_wide: false,
    };
    Some(match version {
        19 => IndexLayout { options: 64, exists: Some(60), ..layout },
        20 => IndexLayout {
            last_uid: 88,
            uidvalidity: 92,
            options: 64,
            exists: Some(60),
            arrived: 8,
            size: 24,
            flags: 36,
            is_wide: true,
            ..layout
        },
        _ => layout,
    })
}

impl IndexLayout {
    /// A time in seconds, or a size.
    fn number(&self, octets: &[u8], at: usize) -> u64 {
        if self.is_wide {
            u64::from_be_bytes(octets[at..at + 8].try_into().expect("eight octets"))
        } else {
            u64::from(word(octets, at))
        }
    }

    fn seconds(&self, octets: &[u8], at: usize) -> u64 {
        let time = self.number(octets, at);
        if self.is_wide { time / 1_000_000_000 } else { time }
    }

    /// Whether a header or a record is what was written.
    fn is_whole(&self, octets: &[u8]) -> bool {
        let crc = octets.len() - 4;
        !self.has_crc || crc32fast::hash(&octets[..crc]) == word(octets, crc)
    }
}

fn word(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(octets[at..at + 4].try_into().expect("four octets"))
}

impl CyrusIndex {
    /// Parses the file. One pass; a record that cannot be trusted is in [`CyrusIndex::odd`] and
    /// costs nothing else. Expunged messages are skipped.
    ///
    /// # Errors
    ///
    /// [`CaptureError::StateEmpty`]; [`CaptureError::StateVersion`] for a version that is not
    /// known; [`CaptureError::StateDamaged`] for a header that is not whole, and for a file that
    /// ends too early.
    pub fn parse(octets: &[u8]) -> Result<Self, CaptureError> {
        if octets.is_empty() {
            return Err(CaptureError::StateEmpty { file: STATE_FILE });
        }
        let damaged =
            |why: &str| CaptureError::StateDamaged { file: STATE_FILE, why: why.to_owned() };
        let version = octets.get(8..12).ok_or_else(|| damaged("it ends within its header"))?;
        let version = word(version, 0);
        let layout = layout(version).ok_or_else(|| CaptureError::StateVersion {
            file: STATE_FILE,
            header: version.to_string(),
        })?;
        let header = octets
            .get(..layout.header_octets)
            .ok_or_else(|| damaged("it ends within its header"))?;
        if word(header, 12) as usize != layout.header_octets
            || word(header, 16) as usize != layout.record_octets
        {
            return Err(damaged("its lengths are not those of its version"));
        }
        if !layout.is_whole(header) {
            return Err(damaged("the checksum of its header is wrong"));
        }
        let records = word(header, 20) as usize;
        let body = records
            .checked_mul(layout.record_octets)
            .and_then(|len| octets[layout.header_octets..].get(..len))
            .ok_or_else(|| damaged("it ends within its records"))?;
        let uidvalidity = word(header, layout.uidvalidity);
        if uidvalidity == 0 {
            return Err(damaged("its UIDVALIDITY is 0"));
        }
        let exists = layout.exists.map_or(records as u32, |at| word(header, at));
        let show_after = layout.show_after.map_or(0, |at| layout.seconds(header, at));
        let mut index = Self {
            uidvalidity,
            next: word(header, layout.last_uid).saturating_add(1),
            has_new_uidls: exists == 0 || word(header, layout.options) & NEW_UIDLS != 0,
            records: Vec::new(),
            odd: Vec::new(),
        };
        let mut last_uid = 0;
        for (number, record) in (1..).zip(body.chunks_exact(layout.record_octets)) {
            let uid = word(record, 0);
            if uid <= last_uid || uid == u32::MAX || !layout.is_whole(record) {
                index.odd.push(number);
                continue;
            }
            last_uid = uid;
            index.next = index.next.max(uid + 1);
            let flags = word(record, layout.flags);
            if flags & (EXPUNGED | UNLINKED) == 0 {
                index.records.push(CyrusRecord {
                    uid,
                    octets: layout.number(record, layout.size),
                    is_deleted: flags & DELETED != 0,
                    is_archived: flags & ARCHIVED != 0,
                    is_too_old: layout.seconds(record, layout.arrived) <= show_after
                        && show_after > 0,
                });
            }
        }
        Ok(index)
    }
}

/// Whether a file in a mailbox is a message: digits, and a dot.
pub fn is_message(name: &[u8]) -> bool {
    uid_of(name).is_some()
}

fn uid_of(name: &[u8]) -> Option<u32> {
    let digits = name.strip_suffix(b".").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let uid = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (uid > 0 && digits[0] != b'0').then_some(uid)
}

/// The owner of an INBOX, as its `cyrus.header` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxOwner {
    /// It is the INBOX of this user; a dot in the name is a dot.
    User {
        /// His name without the domain.
        local: String,
        /// The domain, where it is a virtual one.
        domain: Option<String>,
    },
    /// It is nobody's INBOX: a folder of somebody's, or a shared one.
    Nobody,
    /// The header does not say: before Cyrus 3.6 only the path did.
    Unsaid,
}

impl MailboxOwner {
    /// Reads the octets of `cyrus.header`. From 3.6 on it has `%(T TYPE N NAME ...`, the name being
    /// `user.LOCAL` or `DOMAIN!user.LOCAL` (`imap/mailbox.c`, `mailbox_commit_header`).
    pub fn of_header(octets: &[u8]) -> Self {
        let name = octets.split(|&octet| octet == b'\n').find_map(|line| {
            let mut words = line.strip_prefix(b"%(")?.split(|&octet| octet == b' ');
            let is_named = words.next()? == b"T" && words.next().is_some() && words.next()? == b"N";
            let name = std::str::from_utf8(words.next()?).ok().filter(|_| is_named)?;
            let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            Some(quoted.unwrap_or(name))
        });
        let Some(name) = name else { return Self::Unsaid };
        let (domain, name) = match name.split_once('!') {
            Some((domain, name)) => (Some(domain.to_owned()), name),
            None => (None, name),
        };
        match name.strip_prefix("user.") {
            Some(local) if !local.is_empty() && !local.contains('.') => {
                Self::User { local: local.replace('^', "."), domain }
            }
            _ => Self::Nobody,
        }
    }
}

/// Plans what Cyrus's clients know of this mailbox, when `format` is what its `uidl_format` means.
///
/// # Errors
///
/// As [`CyrusIndex::parse`]; [`CaptureError::StateMissing`], or [`CaptureError::Source`] when there
/// is nothing at all.
pub fn plan(snapshot: &Snapshot, format: &UidlFormat) -> Result<Plan, CaptureError> {
    let Some(octets) = &snapshot.state else {
        return Err(match snapshot.messages.len() {
            0 => CaptureError::Source(format!("not a Cyrus mailbox: it has no {STATE_FILE}")),
            read => CaptureError::StateMissing { file: STATE_FILE, read },
        });
    };
    let index = CyrusIndex::parse(octets)?;
    let mut plan = Plan { uidvalidity: Some(index.uidvalidity), ..Plan::default() };
    let bare;
    let format = if index.has_new_uidls {
        format
    } else {
        plan.remarks.fact("made before Cyrus 2.1.4: its unique-ids are bare UIDs");
        bare = UidlFormat::parse("%u").expect("a format");
        &bare
    };
    plan.counter = Some(Counter { format: format.clone(), next: index.next });
    for number in &index.odd {
        plan.lose(format!("{STATE_FILE}: record {number} is damaged"));
    }
    let mut files: HashMap<u32, usize> =
        (0..).zip(&snapshot.messages).filter_map(|(at, m)| Some((uid_of(&m.name)?, at))).collect();
    for record in &index.records {
        let CyrusRecord { uid, octets, .. } = *record;
        let fields = Fields { uid, uidvalidity: index.uidvalidity, file: None, guid: None };
        let uidl = match format.render(&fields) {
            Ok(uidl) => uidl,
            Err(why) => {
                plan.lose(format!("{STATE_FILE}: uid {uid}: {why}"));
                continue;
            }
        };
        match files.remove(&uid) {
            Some(at) => plan.entries.push(Planned {
                at,
                uidl,
                uid: Some(uid),
                guid: None,
                octets: Some(octets),
            }),
            None => {
                let why = if record.is_archived { "in the archive partition" } else { "gone" };
                plan.remarks.loss(format!("{uid}. is {why}; its unique-id is spent"));
                plan.gone.push(format!("{uid}.").into_bytes().into());
                plan.spent.push(uidl);
            }
        }
    }
    remark(&index, &files.into_keys().collect(), &mut plan);
    Ok(plan)
}

/// Remarks on messages that the old listing may have left out, and on those that are not in the
/// index.
fn remark(index: &CyrusIndex, unlisted: &HashSet<u32>, plan: &mut Plan) {
    let count =
        |is: fn(&CyrusRecord) -> bool| index.records.iter().filter(|record| is(record)).count();
    let deleted = count(|record| record.is_deleted);
    if deleted > 0 {
        plan.remarks.note(format!(
            "{deleted} messages are \\Deleted: listed here, and not by a Cyrus with popuseimapflags"
        ));
    }
    let old = count(|record| record.is_too_old);
    if old > 0 {
        plan.remarks.note(format!(
            "{old} messages arrived before the mailbox's pop3showafter: listed here, not by Cyrus"
        ));
    }
    // An expunged message stays as a file until Cyrus cleans up.
    let new = unlisted.iter().filter(|&&uid| uid >= index.next).count();
    if new > 0 {
        plan.remarks.fact(format!("{new} messages not in {STATE_FILE} yet: no unique-id"));
    }
}
