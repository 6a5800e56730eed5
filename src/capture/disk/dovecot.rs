//! Dovecot's Maildir state: `dovecot-uidlist`, versions 1 and 3, with `pop3_uidl_format`.
//!
//! Learnt from dovecot core `src/lib-storage/index/maildir/maildir-uidlist.c`
//! (`maildir_uidlist_read_header`, `maildir_uidlist_next`), `maildir-mail.c`
//! (`maildir_mail_get_special`), `src/pop3/pop3-commands.c` (`pop3_get_uid`) and
//! `src/lib-storage/index/index-sort.c` (`index_sort_get_pop3_order`):
//!
//! ```text
//! 1 UIDVALIDITY NEXTUID                 3 VUIDVALIDITY NNEXTUID GMAILBOXGUID
//! UID NAME                              UID [WSIZE] [SSIZE] [PUIDL] [OORDER] [GGUID] :NAME
//! ```
//!
//! `P` is the UIDL, empty for the base file name; without it the format says. `O` is the place in
//! the POP3 listing; messages without it come after those with it, by UID. Sizes are not taken:
//! `W` may come from another server, which counted in another way.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use crate::capture::disk::courier;
use crate::capture::disk::maildir::{Snapshot, base_name};
use crate::capture::disk::traits::DiskTraits;
use crate::capture::error::CaptureError;
use crate::capture::plan::{Plan, Planned};
use crate::capture::told_here::{
    MailboxNow, MemoryFault, MessageNow, Recorded, ToldBy, ToldHere, names_of, say_told_here,
};
use crate::encoding::decimal;
use crate::format::{Fields, NotRendered, UidlFormat};
use crate::ledger::FIRST_ORDER;
use crate::maildrop::{Counter, Name};
use crate::text::printable;
use crate::uidl::Uidl;

/// Dovecot's state file, in the Maildir.
pub const STATE_FILE: &str = "dovecot-uidlist";

pub(super) const TRAITS: DiskTraits = DiskTraits {
    programs: &["/usr/lib/dovecot/pop3", "/usr/libexec/dovecot/pop3"],
    has_our_plugin: true,
    arguments: &["-o", "mail_home={home}", "-o", "log_path=/dev/stderr"],
    ..DiskTraits::of_maildir("dovecot", Some(STATE_FILE))
};

/// A parsed `dovecot-uidlist`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UidList {
    /// The mailbox's UIDVALIDITY.
    pub uidvalidity: u32,
    /// The first UID not given yet: the header's, or what follows the highest UID, for Dovecot
    /// appends lines without touching the header.
    pub next: u32,
    /// The messages by UID. The last line counts where several have one UID or one file name.
    pub messages: BTreeMap<u32, UidListRecord>,
    /// Lines that a later line for the same file has replaced: their UIDLs are spent.
    pub replaced: Vec<(u32, UidListRecord)>,
    /// The lines that could not be made out: their number in the file, from 1, and what they said.
    pub odd: Vec<(usize, Box<[u8]>)>,
}

/// One line of a [`UidList`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UidListRecord {
    /// The base file name.
    pub file: Box<[u8]>,
    /// `P`: the UIDL, empty when it is the base file name.
    pub uidl: Option<Box<[u8]>>,
    /// `O`: the place in the POP3 listing.
    pub order: Option<Box<[u8]>>,
    /// `G`: the GUID, where it is not the base file name.
    pub guid: Option<Box<[u8]>>,
}

impl UidListRecord {
    /// The number by which Dovecot sorts a POP3 listing, before the UID. An order that is absent or
    /// no number counts as 2^32 - 1 (`index_sort_get_pop3_order`).
    fn place(&self) -> u64 {
        self.order.as_deref().and_then(decimal).unwrap_or(u64::from(u32::MAX))
    }
}

impl UidList {
    /// The list of a mailbox of which nothing is known.
    fn empty() -> Self {
        Self {
            uidvalidity: 0,
            next: 1,
            messages: BTreeMap::new(),
            replaced: Vec::new(),
            odd: Vec::new(),
        }
    }

    /// Parses the file. One pass; a line that cannot be made out is in [`UidList::odd`] and costs
    /// nothing else, where Dovecot would throw the whole list away. A last line without its LF is
    /// still being written, and is odd.
    ///
    /// # Errors
    ///
    /// [`CaptureError::StateVersion`] when the header is neither of version 1 nor 3, or does not
    /// name a UIDVALIDITY; [`CaptureError::StateEmpty`] when there is none.
    pub fn parse(octets: &[u8]) -> Result<Self, CaptureError> {
        let mut lines = octets.split_inclusive(|&octet| octet == b'\n').enumerate();
        let (_, header) = lines.next().ok_or(CaptureError::StateEmpty { file: STATE_FILE })?;
        let header = without_line_end(header).unwrap_or(header);
        let (version, uidvalidity, next) = parse_header(header).ok_or_else(|| {
            CaptureError::StateVersion { file: STATE_FILE, header: printable(header) }
        })?;
        let mut list = Self {
            uidvalidity,
            next,
            messages: BTreeMap::new(),
            replaced: Vec::new(),
            odd: Vec::new(),
        };
        let mut uid_of_file: HashMap<Box<[u8]>, u32> = HashMap::new();
        for (at, line) in lines {
            let whole = without_line_end(line);
            let Some((uid, record)) = whole.and_then(|whole| parse_line(version, whole)) else {
                list.odd.push((at + 1, whole.unwrap_or(line).into()));
                continue;
            };
            let older = uid_of_file.insert(record.file.clone(), uid).filter(|&older| older != uid);
            if let Some(older) = older {
                if let Some(older_record) = list.messages.remove(&older) {
                    list.replaced.push((older, older_record));
                }
            }
            list.next = list.next.max(uid.saturating_add(1));
            let older = list.messages.insert(uid, record.clone());
            if let Some(older) = older.filter(|older| *older != record) {
                // The name has no second owner any more, unless the line repeats it.
                if older.file != record.file {
                    uid_of_file.remove(&older.file);
                }
                list.replaced.push((uid, older));
            }
        }
        Ok(list)
    }
}

/// A line before its LF or CR LF, as Dovecot cuts lines (`i_stream_next_line`); `None` without one.
fn without_line_end(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Version, UIDVALIDITY and next UID.
fn parse_header(line: &[u8]) -> Option<(u8, u32, u32)> {
    let (version, rest) = line.split_first()?;
    let mut fields = rest.strip_prefix(b" ")?.split(|&octet| octet == b' ');
    let (mut uidvalidity, mut next) = (None, None);
    match version {
        b'1' => {
            uidvalidity = decimal(fields.next()?);
            next = decimal(fields.next()?);
        }
        b'3' => {
            for field in fields {
                match field.split_first() {
                    Some((b'V', value)) => uidvalidity = decimal(value),
                    Some((b'N', value)) => next = decimal(value),
                    _ => {}
                }
            }
        }
        _ => return None,
    }
    let uidvalidity = u32::try_from(uidvalidity?).ok().filter(|&value| value != 0)?;
    let next = u32::try_from(next?).ok().filter(|&value| value != 0)?;
    Some((version - b'0', uidvalidity, next))
}

/// UID and the rest of a line.
fn parse_line(version: u8, line: &[u8]) -> Option<(u32, UidListRecord)> {
    let blank = line.iter().position(|&octet| octet == b' ')?;
    let uid = u32::try_from(decimal(&line[..blank])?).ok()?;
    if uid == 0 || uid == u32::MAX {
        return None;
    }
    let mut rest = trim_blanks(&line[blank..]);
    let mut record = UidListRecord::default();
    if version == 3 {
        while !rest.is_empty() && rest[0] != b':' {
            let end = rest.iter().position(|&octet| octet == b' ').unwrap_or(rest.len());
            let (key, value) = (rest[0], Box::from(&rest[1..end]));
            match key {
                b'P' => record.uidl = Some(value),
                b'O' => record.order = Some(value),
                b'G' => record.guid = Some(value).filter(|guid| !guid.is_empty()),
                b'A'..=b'Z' => {}
                _ => return None,
            }
            rest = trim_blanks(&rest[end..]);
        }
        rest = rest.strip_prefix(b":")?;
    }
    record.file = base_name(rest).into();
    let usable = !record.file.is_empty() && !record.file.contains(&b'/');
    usable.then_some((uid, record))
}

/// `line` from the first octet on that is not a blank.
fn trim_blanks(line: &[u8]) -> &[u8] {
    &line[line.iter().take_while(|&&octet| octet == b' ').count()..]
}

/// Plans what Dovecot's clients know of this maildrop, when `format` is its `pop3_uidl_format`.
/// Where our plugin has answered them, the ledger says it; it must be that of one of `users`.
///
/// # Errors
///
/// As [`UidList::parse`]; [`CaptureError::Memory`]; [`CaptureError::StateMissing`] when there is
/// mail in `cur`, where Dovecot would not have put it without a list (`CONTROL=` may keep that
/// elsewhere).
pub fn plan(
    snapshot: &Snapshot,
    format: &UidlFormat,
    users: &[&str],
) -> Result<Plan, CaptureError> {
    let mut plan = Plan::default();
    let here = match Recorded::of(&snapshot.memory, users)? {
        Recorded::Nothing => None,
        Recorded::Rehearsal => return Err(MemoryFault::Rehearsed.into()),
        Recorded::Told(here) => Some(here),
    };
    if snapshot.others.iter().any(|name| &**name == courier::STATE_FILE.as_bytes()) {
        plan.remarks
            .note("a courierpop3dsizelist lies here too: if Courier answers POP3, capture courier");
    }
    let Some(octets) = &snapshot.state else {
        if let Some(here) = here {
            // Dovecot makes the list anew. What was told is found again by name.
            let nothing = UidList::empty();
            plan_told_here(&mut plan, snapshot, &nothing, format, &here);
            return Ok(plan);
        }
        if let Some(error) = crate::capture::disk::maildir::missing_state(snapshot, STATE_FILE, &[])
        {
            return Err(error);
        }
        if !snapshot.messages.is_empty() {
            plan.remarks.fact(format!(
                "no {STATE_FILE}: Dovecot has not opened this maildrop; messages without a \
                 unique-id: {}",
                snapshot.messages.len()
            ));
        }
        return Ok(plan);
    };
    let list = UidList::parse(octets)?;
    for (at, line) in &list.odd {
        plan.lose(format!("{STATE_FILE}:{at}: not a message: {}", printable(line)));
    }
    plan.uidvalidity = Some(list.uidvalidity);
    for (uid, record) in &list.replaced {
        plan.spent.extend(uidl(format, list.uidvalidity, *uid, record).ok());
    }
    if let Some(here) = here {
        plan_told_here(&mut plan, snapshot, &list, format, &here);
        return Ok(plan);
    }
    let is_ours = |record: &UidListRecord| {
        record.uidl.is_some() && (FIRST_ORDER.into()..u32::MAX.into()).contains(&record.place())
    };
    if list.messages.values().any(is_ours) {
        plan.told_by = ToldBy::Stored;
    }
    plan.counter =
        format.is_counting().then(|| Counter { format: format.clone(), next: list.next });

    let mut open: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, message) in snapshot.messages.iter().enumerate().rev() {
        open.entry(&message.base).or_default().push(at);
    }
    let mut records: Vec<(u32, &UidListRecord)> =
        list.messages.iter().map(|(&u, r)| (u, r)).collect();
    records.sort_by_key(|(uid, record)| (record.place(), *uid));
    for (uid, record) in records {
        let uidl = match uidl(format, list.uidvalidity, uid, record) {
            Ok(uidl) => uidl,
            Err(why) => {
                plan.lose(format!("{STATE_FILE}: uid {uid}: {why}"));
                continue;
            }
        };
        match open.get_mut(&record.file[..]).and_then(Vec::pop) {
            Some(at) => plan.entries.push(Planned {
                at,
                uidl,
                uid: Some(uid),
                guid: record.guid.clone().map(Name::Spelled),
                octets: None,
            }),
            None => {
                plan.gone.push(record.file.clone());
                plan.spent.push(uidl);
            }
        }
    }
    let unlisted: usize = open.values().map(Vec::len).sum();
    if unlisted > 0 {
        plan.remarks.fact(format!("{unlisted} messages not in {STATE_FILE} yet: no unique-id"));
    }
    Ok(plan)
}

/// Plans what clients know of a maildrop that our ledger is of.
fn plan_told_here(
    plan: &mut Plan,
    snapshot: &Snapshot,
    list: &UidList,
    format: &UidlFormat,
    here: &ToldHere,
) {
    let of_list = list.uidvalidity;
    let mut open: HashMap<&[u8], (u32, &UidListRecord)> = HashMap::new();
    open.extend(list.messages.iter().map(|(&uid, record)| (&record.file[..], (uid, record))));
    let mut messages = Vec::with_capacity(snapshot.messages.len());
    for file in &snapshot.messages {
        let Some((uid, record)) = open.remove(&file.base[..]) else {
            let names = names_of(Some(&file.base), None);
            messages.push(MessageNow { names, ..MessageNow::default() });
            continue;
        };
        let stored = record.uidl.is_some().then(|| uidl(format, of_list, uid, record));
        let without = UidListRecord { uidl: None, ..record.clone() };
        messages.push(MessageNow {
            uid,
            names: names_of(Some(&file.base), record.guid.as_deref()),
            stored: stored.and_then(Result::ok),
            order: u32::try_from(record.place()).ok().filter(|&place| place != u32::MAX),
            native: uidl(format, of_list, uid, &without).ok(),
        });
    }
    for (uid, record) in open.into_values() {
        plan.gone.push(record.file.clone());
        plan.spent.extend(uidl(format, of_list, uid, record).ok());
    }
    let uids: Vec<u32> = messages.iter().map(|message| message.uid).collect();
    let uidvalidity = Some(of_list).filter(|&uidvalidity| uidvalidity != 0);
    let known = here.known(&MailboxNow { uidvalidity, next: list.next, messages }, format);
    let guid = |at: usize| list.messages.get(&uids[at]).and_then(|record| record.guid.clone());
    for (at, uidl) in known.listed {
        plan.entries.push(Planned {
            at,
            uidl,
            uid: Some(uids[at]).filter(|&uid| uid != 0),
            guid: guid(at).map(Name::Spelled),
            octets: None,
        });
    }
    plan.spent.extend(known.spent);
    plan.told = known.told;
    plan.told_by = here.told_by();
    let may_count = uidvalidity.is_some() || !format.has_uidvalidity();
    if format.is_counting() && may_count {
        plan.counter = Some(Counter { format: format.clone(), next: known.next });
    }
    let seen = uids.iter().filter(|&&uid| uid != 0).count();
    say_told_here(
        &mut plan.remarks,
        &known.unlisted.iter().map(|&at| uids[at]).collect::<Vec<_>>(),
    );
    if seen < uids.len() {
        plan.remarks.fact(format!(
            "{} messages not in {STATE_FILE} yet; what was told of them is known by name alone",
            uids.len() - seen
        ));
    }
}

/// The UIDL that Dovecot answers for one message (`pop3_get_uid`, without `pop3_reuse_xuidl`).
fn uidl(
    format: &UidlFormat,
    uidvalidity: u32,
    uid: u32,
    record: &UidListRecord,
) -> Result<Uidl, NotRendered> {
    match &record.uidl {
        Some(saved) if saved.is_empty() => Ok(Uidl::new(record.file.clone())?),
        Some(saved) => Ok(Uidl::new(saved.clone())?),
        None => format.render(&Fields {
            uid,
            uidvalidity,
            file: Some(&record.file),
            guid: Some(record.guid.as_ref().unwrap_or(&record.file)),
        }),
    }
}
