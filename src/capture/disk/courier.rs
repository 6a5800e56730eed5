//! Courier's POP3 state: `courierpop3dsizelist`, versions 0 to 3.
//!
//! Learnt from courier-libs `imap/pop3dserver.c` (`readpop3dlist`, `cmpmsgs`, `sortmsgs`,
//! `print_uidl`) and, for the versions that it no longer reads, from lists that older servers left
//! behind:
//!
//! | header | line | UIDL |
//! |---|---|---|
//! | `/3 NEXT UIDV` | `NAME SIZE N:UIDV:UTF8` | `UIDN-UIDV` |
//! | `/2 NEXT UIDV` | `NAME SIZE N:UIDV` | `UIDN-UIDV` |
//! | `/1 NEXT` | `NAME SIZE N` | `UIDN` |
//! | none (version 0) | `NAME SIZE` | the base file name, escaped |
//!
//! `UIDV` 0 gives `UIDN` in each version, and `N` 0 gives the escaped base file name. A name may
//! hold blanks, so that a line is split from its right end.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::capture::disk::dovecot;
use crate::capture::disk::maildir::{Folder, Snapshot, base_name};
use crate::capture::disk::traits::DiskTraits;
use crate::capture::error::CaptureError;
use crate::capture::plan::{Plan, Planned};
use crate::encoding::decimal;
use crate::format::UidlFormat;
use crate::maildrop::Counter;
use crate::text::printable;
use crate::uidl::Uidl;

/// Courier's state file, in the Maildir.
pub const STATE_FILE: &str = "courierpop3dsizelist";

pub(super) const TRAITS: DiskTraits = DiskTraits {
    programs: &[
        "/usr/lib/courier/courier/courierpop3d",
        "/usr/libexec/courier/courierpop3d",
        "/usr/lib/courier-imap/bin/pop3d",
        "/usr/lib64/courier-imap/bin/pop3d",
        "/usr/bin/pop3d",
    ],
    arguments: &["{maildir}"],
    ..DiskTraits::of_maildir("courier", Some(STATE_FILE))
};

/// A parsed `courierpop3dsizelist`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeList {
    /// 0 to 3.
    pub version: u8,
    /// The next number to give, from the header.
    pub next: Option<u64>,
    /// The second half of the UIDLs to give, from the header.
    pub uidv: Option<u64>,
    /// The lines, in the order of the file.
    pub lines: Vec<SizeListLine>,
    /// The lines that could not be made out: their number in the file, from 1, and what they said.
    pub odd: Vec<(usize, Box<[u8]>)>,
}

/// One message of a [`SizeList`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeListLine {
    /// The file name, which had its flags when the list was written.
    pub name: Box<[u8]>,
    /// The number of the message, 0 when its file name is its UIDL.
    pub n: u64,
    /// The second half of the UIDL, 0 when it has none.
    pub uidv: u64,
}

impl SizeListLine {
    /// The UIDL that Courier answers for this line (`print_uidl`).
    fn uidl(&self) -> Vec<u8> {
        match (self.n, self.uidv) {
            (0, _) => escaped(base_name(&self.name)),
            (n, 0) => format!("UID{n}").into_bytes(),
            (n, uidv) => format!("UID{n}-{uidv}").into_bytes(),
        }
    }
}

impl SizeList {
    /// Parses the file. One pass; a line that cannot be made out is in [`SizeList::odd`] and costs
    /// nothing else. As with Courier, a last line without its LF is not a line: it may have been
    /// cut in the middle of a number.
    ///
    /// # Errors
    ///
    /// [`CaptureError::StateVersion`] when a header names a version that is not known.
    pub fn parse(octets: &[u8]) -> Result<Self, CaptureError> {
        let mut list =
            Self { version: 0, next: None, uidv: None, lines: Vec::new(), odd: Vec::new() };
        for (at, line) in octets.split_inclusive(|&octet| octet == b'\n').enumerate() {
            // A copy may have made CR LF of it. Courier writes LF, and reads the numbers before a
            // CR.
            let whole =
                line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            if at == 0 && line.starts_with(b"/") {
                list.take_header(whole.unwrap_or(line))?;
                continue;
            }
            match whole.and_then(|whole| list.line(whole)) {
                Some(line) => list.lines.push(line),
                None => list.odd.push((at + 1, whole.unwrap_or(line).into())),
            }
        }
        Ok(list)
    }

    /// `/VERSION NEXT [UIDV]`.
    fn take_header(&mut self, line: &[u8]) -> Result<(), CaptureError> {
        let refused = || CaptureError::StateVersion { file: STATE_FILE, header: printable(line) };
        let mut fields = line[1..].split(|&octet| octet == b' ').filter(|field| !field.is_empty());
        self.version = match fields.next() {
            Some(b"1") => 1,
            Some(b"2") => 2,
            Some(b"3") => 3,
            _ => return Err(refused()),
        };
        self.next = Some(fields.next().and_then(decimal).ok_or_else(refused)?);
        if self.version > 1 {
            self.uidv = fields.next().and_then(decimal);
        }
        Ok(())
    }

    /// One line below the header, by the version of the list.
    fn line(&self, line: &[u8]) -> Option<SizeListLine> {
        let (rest, last) = split_last_blank(line)?;
        if self.version == 0 {
            decimal(last)?;
            return Some(SizeListLine { name: rest.into(), n: 0, uidv: 0 });
        }
        let (name, size) = split_last_blank(rest)?;
        decimal(size)?;
        let (n, uidv) = if self.version == 1 {
            (decimal(last)?, 0)
        } else {
            let mut parts = last.split(|&octet| octet == b':');
            let pair = (decimal(parts.next()?)?, decimal(parts.next()?)?);
            // The third, whether the header has 8-bit text, came with version 3.
            parts.next().map_or(Some(0), decimal)?;
            if parts.next().is_some() {
                return None;
            }
            pair
        };
        Some(SizeListLine { name: name.into(), n, uidv })
    }
}

/// `line` before and after its last blank; neither may be empty.
fn split_last_blank(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().rposition(|&octet| octet == b' ')?;
    let (before, after) = (&line[..at], &line[at + 1..]);
    (!before.is_empty() && !after.is_empty()).then_some((before, after))
}

/// A base file name as a UIDL (`print_uidl`, "VERSION 0"): what POP3 cannot carry, both quotes and
/// the plus sign become `+XX`.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut uidl = Vec::with_capacity(name.len());
    for &octet in name {
        match octet {
            b'\'' | b'"' | b'+' => uidl.extend(format!("+{octet:02X}").bytes()),
            0x21..=0x7E => uidl.push(octet),
            _ => uidl.extend(format!("+{octet:02X}").bytes()),
        }
    }
    uidl
}

/// Courier's order (`cmpmsgs`): the number at the start of the name, then the names octet by octet
/// until both have come to their flags. Octets compare as signed, as `char` is where Courier's
/// servers run. Names are as they lie in `cur/`.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    leading_number(a).cmp(&leading_number(b)).then_with(|| {
        let mut rest = (a.iter(), b.iter());
        loop {
            let pair = (rest.0.next(), rest.1.next());
            match pair {
                (None, None) | (Some(b':'), Some(b':')) => return Ordering::Equal,
                // The end of a C string is an octet 0.
                (x, y) => {
                    let (x, y) = (x.map_or(0, |x| *x as i8), y.map_or(0, |y| *y as i8));
                    if x != y {
                        return x.cmp(&y);
                    }
                    if pair.0.is_none() || pair.1.is_none() {
                        return Ordering::Equal;
                    }
                }
            }
        }
    })
}

/// The number that `atol` makes of the start of `name`.
fn leading_number(name: &[u8]) -> i64 {
    let name = &name[name.iter().take_while(|octet| b" \t\n\x0b\x0c\r".contains(octet)).count()..];
    let (negative, digits) = match name {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    digits.iter().take_while(|octet| octet.is_ascii_digit()).fold(0i64, |value, digit| {
        let digit = i64::from(digit - b'0');
        let value = value.saturating_mul(10);
        if negative { value.saturating_sub(digit) } else { value.saturating_add(digit) }
    })
}

/// Plans what Courier's clients know of this maildrop.
///
/// A message is known by the line of the list that has its base file name. Courier itself gives a
/// new number to a message whose flags appeared since the list was written (`cmpmsgs` wants a `:`
/// in both names or in neither); clients were last told what the list says, so the list counts.
///
/// # Errors
///
/// [`CaptureError::StateVersion`]; [`CaptureError::StateEmpty`] or [`CaptureError::StateGarbled`]
/// when there is mail and the list says nothing; [`CaptureError::StateMissing`] when somebody has
/// moved mail to `cur` and there is no trace of Courier, so that it cannot have been the one.
pub fn plan(snapshot: &Snapshot) -> Result<Plan, CaptureError> {
    let mut plan = Plan::default();
    if snapshot.others.iter().any(|name| &**name == dovecot::STATE_FILE.as_bytes()) {
        plan.remarks
            .note("a dovecot-uidlist lies here too: if Dovecot answers POP3, capture dovecot");
    }
    let Some(octets) = &snapshot.state else {
        if let Some(error) = crate::capture::disk::maildir::missing_state(
            snapshot,
            STATE_FILE,
            &[b"courier", b"sqwebmail"],
        ) {
            return Err(error);
        }
        if !snapshot.messages.is_empty() {
            // It stays so where IMAP alone reads the mail.
            plan.remarks.fact(format!(
                "no {STATE_FILE}: no POP3 client was ever told of the {} here",
                messages(snapshot.messages.len())
            ));
        }
        return Ok(plan);
    };
    if octets.is_empty() && !snapshot.messages.is_empty() {
        return Err(CaptureError::StateEmpty { file: STATE_FILE });
    }
    let list = SizeList::parse(octets)?;
    if list.lines.is_empty() && list.version == 0 && !list.odd.is_empty() {
        return Err(CaptureError::StateGarbled {
            file: STATE_FILE,
            line: printable(&list.odd[0].1),
        });
    }
    for (at, line) in &list.odd {
        plan.lose(format!("{STATE_FILE}:{at}: not a message: {}", printable(line)));
    }
    if list.version < 2 {
        plan.remarks.note(format!(
            "{STATE_FILE} is of version {}: a Courier of 2004 or later did not go by it; if one \
             answered here, its clients know other unique-ids",
            list.version
        ));
    }
    set_counter(&mut plan, &list);
    pair(&mut plan, &list, snapshot);
    Ok(plan)
}

/// `n` messages, in words.
fn messages(n: usize) -> String {
    format!("{n} message{}", if n == 1 { "" } else { "s" })
}

/// Every number below the next one of the header is spent.
fn set_counter(plan: &mut Plan, list: &SizeList) {
    let (form, uidv) = match (list.version, list.uidv) {
        (0, _) => return,
        (1, _) => ("UID%u", 0),
        (_, Some(uidv)) if uidv != 0 => ("UID%u-%v", uidv),
        _ => {
            plan.remarks
                .note(format!("{STATE_FILE}: its header does not say how its unique-ids end"));
            return;
        }
    };
    let listed = list.lines.iter().filter(|line| line.uidv == uidv).map(|line| line.n).max();
    let next = list.next.unwrap_or(0).max(listed.map_or(0, |n| n.saturating_add(1)));
    let counter = u32::try_from(next).ok().zip(u32::try_from(uidv).ok());
    let (Some((next, uidv)), Ok(format)) = (counter, UidlFormat::parse(form)) else {
        plan.remarks.note(format!("{STATE_FILE}: its numbers, {next} and {uidv}, exceed 32 bits"));
        return;
    };
    plan.uidvalidity = (uidv != 0).then_some(uidv);
    plan.counter = Some(Counter { format, next });
}

/// Brings the lines of the list and the messages of the Maildir together.
fn pair(plan: &mut Plan, list: &SizeList, snapshot: &Snapshot) {
    // The messages of each base file name that no line has taken yet; the first to be taken stands
    // last.
    let mut open: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, message) in snapshot.messages.iter().enumerate().rev() {
        open.entry(&message.base).or_default().push(at);
    }
    for (line, taken) in list.lines.iter().zip(exact_first(&list.lines, snapshot, &mut open)) {
        let uidl = match Uidl::new(line.uidl()) {
            Ok(uidl) => uidl,
            Err(bad) => {
                plan.lose(format!("{STATE_FILE}: {}: {bad}", printable(&line.name)));
                continue;
            }
        };
        match taken {
            Some(at) => {
                plan.entries.push(Planned { at, uidl, uid: None, guid: None, octets: None });
            }
            None => {
                plan.gone.push(base_name(&line.name).into());
                plan.spent.push(uidl);
            }
        }
    }
    let unlisted: usize = open.values().map(Vec::len).sum();
    if unlisted > 0 {
        plan.remarks.fact(format!(
            "{} not listed to any POP3 client yet: no unique-id",
            messages(unlisted)
        ));
    }
    let in_cur = |planned: &Planned| {
        let message = &snapshot.messages[planned.at];
        let mut name = message.name.to_vec();
        // `maildir_getnew` brings new mail into `cur/` before Courier sorts.
        if message.folder == Folder::New && !name.contains(&b':') {
            name.extend(b":2,");
        }
        name
    };
    plan.entries.sort_by_cached_key(|planned| Placed(in_cur(planned)));
}

/// Finds the message of each line. Where two messages share a base file name, a line first takes
/// the one with its whole name, then the others in order.
fn exact_first(
    lines: &[SizeListLine],
    snapshot: &Snapshot,
    open: &mut HashMap<&[u8], Vec<usize>>,
) -> Vec<Option<usize>> {
    let mut taken = vec![None; lines.len()];
    for exact in [true, false] {
        for (line, taken) in lines.iter().zip(&mut taken).filter(|(_, taken)| taken.is_none()) {
            let Some(candidates) = open.get_mut(base_name(&line.name)) else { continue };
            let which = if exact {
                candidates.iter().rposition(|&at| snapshot.messages[at].name == line.name)
            } else {
                candidates.len().checked_sub(1)
            };
            *taken = which.map(|which| candidates.remove(which));
        }
    }
    taken
}

/// A file name that sorts by [`order`].
struct Placed(Vec<u8>);

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        // Names that Courier's order leaves equal are sorted too, so that two captures are alike.
        order(&self.0, &other.0).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Placed {}
