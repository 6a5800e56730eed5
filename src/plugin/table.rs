//! A table of answers for one view of the mailbox, and how it comes about: from the ledger alone, or by
//! the rules.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::bake::{Baked, bake, is_baked};
use super::host::{Level, Mailbox, OwnMail, Transaction, View};
use super::standing::{Kept, Refusal};
use super::survey::{Expunged, Look, Sizes, Survey};
use crate::control::{self, Control, Lock, LockError};
use crate::format::UidlFormat;
use crate::index::Index;
use crate::key::FileKey;
use crate::ledger::{Answers, How, Ledger, Mark};
use crate::maildrop::Maildrop;
use crate::map::Mapped;
use crate::prints::Prints;
use crate::read_at::ReadAt;
use crate::remedy::Remedy;
use crate::resolve::{self, Outcome, Past, Purpose, Report, Resolution, Situation};
use crate::roster::Gate;

/// How long a login waits for another that resolves the same mailbox.
const PATIENCE: Duration = Duration::from_secs(20);

/// The answers for one view of the mailbox. Nothing in it changes or moves.
pub struct Table {
    /// What they hold for.
    pub view: View,
    answers: Answers,
    /// For this session only.
    passing: HashMap<u32, (CString, u32)>,
    /// Messages of which nothing can be told beyond this session.
    undecided: Vec<u32>,
    /// Where to look first: a listing goes up by UID.
    cursor: Cell<usize>,
}

/// What is answered for a message.
pub struct Answer<'a> {
    /// Its UIDL.
    pub uidl: &'a CStr,
    /// Its place in the POP3 order, from 1.
    pub order: u32,
}

/// Why there is no table.
pub enum NoTable {
    /// Could not tell.
    Refused(Refusal),
    /// A message went while we looked.
    Expunged,
    /// Another session, which saw the mailbox as it is now, has recorded what it was told.
    Stale,
}

impl From<Refusal> for NoTable {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Expunged> for NoTable {
    fn from(Expunged: Expunged) -> Self {
        Self::Expunged
    }
}

/// A first ledger that could not be written when its listing was made.
pub struct Unwritten {
    control: Control,
    file: Vec<u8>,
    mark: Mark,
}

impl Unwritten {
    /// Tries once more, when the session is over: what the client deleted may have made room. Without
    /// a trace of this listing the next login might be taken for the first one.
    pub fn write(self, mailbox: Mailbox) {
        let write = || -> Option<()> {
            let lock = self.control.lock(Duration::ZERO).ok()?;
            // Another session may have written one.
            if self.control.answers().ok()?.is_some() {
                return None;
            }
            let begun = self.control.begin(&lock).ok()?;
            begun.publish(&self.file, self.mark).ok()
        };
        if write().is_some() {
            let path = self.control.ledger_path();
            mailbox.log(Level::UIDL_KEEP_LOG_INFO, &format!("{}: written now", path.display()));
        }
    }
}

impl Table {
    /// The answers for POP3, which are for ever. `stale_before` is the view that was found to be
    /// stale at the last try.
    pub fn for_listing(
        kept: &Kept,
        transaction: Transaction,
        sizes: Sizes,
        stale_before: Option<View>,
    ) -> Result<(Self, Option<Unwritten>), NoTable> {
        let mailbox = transaction.mailbox();
        let control = control_of(kept, mailbox)?;
        if let Some(table) = Self::warm(kept, &control, transaction, stale_before)? {
            return Ok((table, None));
        }
        let locked = control.lock(PATIENCE);
        if let Err(LockError::Busy) = locked {
            let log = format!("{}: {}", control.ledger_path().display(), LockError::Busy);
            return Err(Refusal::fault(log).into());
        }
        // Another login may have resolved it while we waited.
        if let Some(table) = Self::warm(kept, &control, transaction, stale_before)? {
            return Ok((table, None));
        }
        Self::cold(kept, &control, transaction, sizes, locked)
    }

    /// The answers of the ledger alone, if it has all: no message is looked at, and of the index, as
    /// long as there is no cutoff, whether it has become final: then there must be one before the next
    /// message comes.
    fn warm(
        kept: &Kept,
        control: &Control,
        transaction: Transaction,
        stale_before: Option<View>,
    ) -> Result<Option<Self>, NoTable> {
        let view = transaction.view();
        let Some(answers) = control.answers().map_err(|why| ledger_fault(control, &why))? else {
            return Ok(None);
        };
        if answers.uidvalidity() != view.uidvalidity
            || answers.index_id() != view.index_id
            || answers.begun_after() < kept.forgotten
        {
            return Ok(None);
        }
        // Of another session's listing, this one saw too little, or what has gone meanwhile. If the next
        // try sees the same, then it is so: the mailbox counts anew, or nothing was recorded of a message.
        let look_again_once =
            || if stale_before == Some(view) { Ok(None) } else { Err(NoTable::Stale) };
        if answers.next_uid() > view.next_uid {
            return look_again_once();
        }
        let mut guess = 0;
        for uid in transaction.uids() {
            match answers.find(uid, guess) {
                Some(at) => guess = at + 1,
                None if uid < answers.next_uid() => return look_again_once(),
                None => return Ok(None),
            }
        }
        if !names_agree(&answers, transaction.mailbox()) {
            return Ok(None);
        }
        if !answers.has_cutoff() && is_final(kept) {
            return Ok(None);
        }
        if kept.settings.bake {
            bake_anew_if_gone(&answers, transaction, kept.settings.order);
        }
        Ok(Some(Self {
            view,
            answers,
            passing: HashMap::new(),
            undecided: Vec::new(),
            cursor: Cell::new(0),
        }))
    }

    fn cold(
        kept: &Kept,
        control: &Control,
        transaction: Transaction,
        sizes: Sizes,
        locked: Result<Lock, LockError>,
    ) -> Result<(Self, Option<Unwritten>), NoTable> {
        let (mailbox, view) = (transaction.mailbox(), transaction.view());
        let place = control.ledger_path();
        let begun = match &locked {
            Ok(lock) => control.begin(lock).map_err(|why| (why.kind(), why.to_string())),
            Err(LockError::Unavailable(why)) => Err((why.kind(), why.to_string())),
            Err(LockError::Busy) => unreachable!("the caller has refused it"),
        };
        let ledger = read_ledger(control)?;
        let (captured, is_final) = read_captured(kept, mailbox)?;
        if !is_final && is_new_day(ledger.as_ref().map(|(_, written)| *written)) {
            mailbox.log(
                Level::UIDL_KEEP_LOG_WARNING,
                &format!(
                    "the index of {} is not final: build it with --final once the old server is off",
                    kept.user,
                ),
            );
        }
        let ledger = ledger.map(|(ledger, _)| ledger);
        let (past, can_tell) = past(kept, control, ledger.as_ref());
        let is_unwritable = matches!(&begun, Err((kind, _)) if mail_can_come(*kind));
        let can_record = can_tell && !is_unwritable;
        let prints = Prints::open(control, locked.as_ref().ok(), view.uidvalidity, view.messages);
        let look = Look { mailbox, sizes, prints };
        let purpose = Purpose::Listing { guarded: kept.gate == Gate::Guarded };
        let resolved = resolve(kept, look, purpose, &captured, is_final, (past, can_record));
        if let (Err(NoTable::Refused(_)), Ok(lock)) = (&resolved, &locked) {
            // What was read may have been wrong, if Dovecot could not decompress it for instance.
            control.remove_prints(lock);
        }
        let resolution = resolved?;

        let file = resolution.ledger.encode();
        let mark = resolution.ledger.mark();
        // What could not be read again must not be written.
        let table = Self::of(view, file.clone(), &resolution)?;
        let written = match begun {
            Ok(begun) => begun.publish(&file, mark).map_err(|why| why.to_string()),
            Err((_, why)) => Err(why),
        };
        let is_written = written.is_ok();
        let unwritten = match written {
            Ok(()) => {
                locked.iter().for_each(|lock| control.remove_prints(lock));
                None
            }
            Err(why) => {
                mailbox.log(
                    Level::UIDL_KEEP_LOG_WARNING,
                    &format!(
                        "{}: cannot be written ({why}): served without a ledger, with answers that \
                         will be derived again at the next login",
                        place.display(),
                    ),
                );
                let first = Unwritten { control: control.clone(), file: file.clone(), mark };
                ledger.is_none().then_some(first)
            }
        };
        raise_next_uid(mailbox, &captured, &resolution.ledger, view);
        // Where not even a ledger can be written, it is no use to try.
        if kept.settings.bake && is_written {
            let records = resolution.ledger.records.iter().filter(|record| record.uid != 0);
            let records = records.map(Baked::from).filter(|record| !is_baked(mailbox, record));
            bake(mailbox, kept.settings.order, records);
        }
        log_report(mailbox, &resolution.report, past.is_first());
        Ok((table, unwritten))
    }

    /// The answers for doveadm and dsync: what was listed or is kept, made in memory. What was found
    /// out about the messages on the way is not saved: doveadm may be set up otherwise than POP3, and
    /// would keep logins waiting.
    pub fn for_look(kept: &Kept, mailbox: Mailbox) -> Result<Self, NoTable> {
        let control = control_of(kept, mailbox)?;
        let ledger = read_ledger(&control)?.map(|(ledger, _)| ledger);
        let (captured, is_final) = read_captured(kept, mailbox)?;
        let past = past(kept, &control, ledger.as_ref());
        let view = OwnMail::open(mailbox).transaction().view();
        let prints = Prints::open(&control, None, view.uidvalidity, view.messages);
        let look = Look { mailbox, sizes: Sizes::NotWanted, prints };
        let resolution = resolve(kept, look, Purpose::Look, &captured, is_final, past)?;
        Ok(Self::of(view, resolution.ledger.encode(), &resolution)?)
    }

    /// Takes the answers from a ledger as it is written.
    fn of(view: View, mut file: Vec<u8>, resolution: &Resolution) -> Result<Self, Refusal> {
        let answers = Answers::front_len(&file, file.len() as u64).and_then(|front_len| {
            file.truncate(front_len);
            Answers::read(file)
        });
        let passing = resolution.passing.iter().map(|record| {
            let uidl = CString::new(record.uidl.as_bytes()).expect("a Uidl has no NUL");
            (record.uid, (uidl, record.order))
        });
        Ok(Self {
            view,
            answers: answers.map_err(|why| {
                Refusal::fault(format!(
                    "the ledger cannot go on: {why}; take it away and `uidl-keep forget` the user"
                ))
            })?,
            passing: passing.collect(),
            undecided: resolution.report.undecided.clone(),
            cursor: Cell::new(0),
        })
    }

    /// The answer for a message, if there is one.
    pub fn answer(&self, uid: u32) -> Option<Answer<'_>> {
        if let Some(at) = self.answers.find(uid, self.cursor.get()) {
            self.cursor.set(at + 1);
            let uidl = CStr::from_bytes_with_nul(self.answers.uidl_with_nul(at));
            let uidl = uidl.expect("closed by its only NUL: checked by Answers::read");
            return Some(Answer { uidl, order: self.answers.order_number(at) });
        }
        self.passing.get(&uid).map(|(uidl, order)| Answer { uidl, order: *order })
    }

    /// Whether nothing can be told of the message.
    pub fn is_undecided(&self, uid: u32) -> bool {
        self.undecided.contains(&uid)
    }
}

/// Whether all that was listed bears the names that it was listed under, as far as they cost nothing: a
/// list of UIDs from elsewhere may have been put in the place of Dovecot's own.
fn names_agree(answers: &Answers, mailbox: Mailbox) -> bool {
    let (mut agree, mut guess) = (true, 0);
    mailbox.for_each_name(|uid, name| {
        if let Some(at) = answers.find(uid, guess) {
            guess = at + 1;
            agree = agree && answers.name(at).is_none_or(|listed| listed == FileKey::cut_of(name));
        }
    });
    agree
}

/// What was baked may be gone: a list of UIDs of before was put back, or a login was ended between its
/// ledger and its bake. The first and the last that was listed tell.
fn bake_anew_if_gone(answers: &Answers, transaction: Transaction, with_order: bool) {
    let mailbox = transaction.mailbox();
    let record = |uid| {
        let at = answers.find(uid, 0)?;
        let (uidl, order, name) = (answers.uidl(at), answers.order_number(at), answers.name(at));
        Some(Baked { uid, uidl, order, name })
    };
    let mut uids = transaction.uids();
    let ends = [uids.next(), uids.next_back()].into_iter().flatten();
    if !ends.filter_map(record).all(|record| is_baked(mailbox, &record)) {
        bake(mailbox, with_order, transaction.uids().filter_map(record));
    }
}

fn control_of(kept: &Kept, mailbox: Mailbox) -> Result<Control, Refusal> {
    match mailbox.control_dir() {
        Ok(Some(dir)) => Ok(Control::new(dir, &kept.user)),
        Ok(None) => {
            Err(Refusal::fault("this storage has no control directory to keep a ledger in"))
        }
        Err(why) => Err(Refusal::fault(format!("cannot tell the control directory: {why}"))),
    }
}

fn ledger_fault(control: &Control, why: &control::Error) -> Refusal {
    let next = match why {
        control::Error::Foreign { expected_uid, .. } => {
            format!("chown it to uid {expected_uid}, if the mailbox was moved to that account")
        }
        control::Error::OtherUser => "give each user a control directory (CONTROL= in \
             mail_location); where a user was renamed, take it away and `uidl-keep forget` the new name"
            .to_owned(),
        control::Error::Link => "restore the file itself in its place".to_owned(),
        control::Error::Io(_) => "let the mail's user read it".to_owned(),
        control::Error::Ledger(_) => "restore it from a backup, or take it away and `uidl-keep \
             forget` the user"
            .to_owned(),
    };
    Refusal::fault(format!("{}: {why}; {next}", control.ledger_path().display()))
}

fn read_ledger(control: &Control) -> Result<Option<(Ledger, SystemTime)>, Refusal> {
    control.ledger().map_err(|why| ledger_fault(control, &why))
}

/// What clients were told, as far as can be told; and whether it can.
fn past<'a>(kept: &Kept, control: &Control, ledger: Option<&'a Ledger>) -> (Past<'a>, bool) {
    let mark = control.mark();
    let can_tell = ledger.is_some() || mark.is_ok();
    (Past::of(ledger, mark.ok().flatten(), kept.forgotten), can_tell)
}

/// Whether mail can be delivered where a ledger cannot be written for this reason.
fn mail_can_come(why: io::ErrorKind) -> bool {
    !matches!(
        why,
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Whether the index is known to be final.
fn is_final(kept: &Kept) -> bool {
    let index = kept.site.open_index(&kept.user).ok().flatten();
    index.is_some_and(|file| Index::open(file).is_ok_and(|index| index.is_final()))
}

/// What was captured of the user, and whether that is all.
fn read_captured(kept: &Kept, mailbox: Mailbox) -> Result<(Maildrop, bool), Refusal> {
    let path = kept.site.paths(&kept.user).map(|paths| paths.index).unwrap_or_default();
    let fault = |why: &dyn Remedy| {
        Refusal::fault(format!("{}: {why}; {}", Path::display(&path), why.remedy()))
    };
    let file = kept.site.open_index(&kept.user).map_err(|why| fault(&why))?;
    let file = file.ok_or_else(|| fault(&"no index, but its roster names the user"))?;
    let source: Box<dyn ReadAt> = if mailbox.is_mmap_disabled() {
        Box::new(file)
    } else {
        Box::new(Mapped::new(file).map_err(|why| fault(&why))?)
    };
    let index = Index::open(&*source).map_err(|why| fault(&why))?;
    let captured = index.maildrop(&kept.user).map_err(|why| fault(&why))?;
    let captured =
        captured.ok_or_else(|| fault(&"its roster names the user, the index does not"))?;
    Ok((captured, index.is_final()))
}

/// Asks the rules, and finds out what they ask, until they have decided.
fn resolve(
    kept: &Kept,
    look: Look<'_>,
    purpose: Purpose,
    captured: &Maildrop,
    is_final: bool,
    (past, can_record): (Past<'_>, bool),
) -> Result<Resolution, NoTable> {
    let mailbox = look.mailbox;
    let mut survey = Survey::begin(look);
    let own = UidlFormat::parse(&mailbox.uidl_format()).ok();
    let situation = Situation {
        captured,
        is_final,
        past,
        can_record,
        begun_after: kept.forgotten,
        uidvalidity: survey.view.uidvalidity,
        next_uid: survey.view.next_uid,
        index_id: survey.view.index_id,
        own: own.as_ref(),
        keys: kept.settings.keys,
        purpose,
    };
    let decided = loop {
        match resolve::resolve(&kept.user, &situation, &survey.messages) {
            Outcome::Ask(asked) => survey.find_out(&asked)?,
            Outcome::Resolved(resolution) => break Ok(*resolution),
            Outcome::Refused(refusal) => break Err(refusal),
        }
    };
    let first_fault =
        survey.first_fault.take().map(|(uid, why)| format!("UID {uid} cannot be read ({why})"));
    decided
        .inspect(|resolution| log_undecided(mailbox, &resolution.report, first_fault.as_deref()))
        .map_err(|refusal| {
            let because = first_fault.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            Refusal::fault(format!("{}: {refusal}{because}", kept.user)).into()
        })
}

/// Once a day is told by the day on which the ledger was written before.
fn is_new_day(written: Option<SystemTime>) -> bool {
    let day = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)
    };
    written.is_none_or(|written| day(written) != day(SystemTime::now()))
}

/// A mailbox whose UIDs come near the end of 32 bits takes no more mail, and the number comes from
/// text that another server gave.
const HIGHEST_NEXT_UID: u32 = 1 << 31;

/// So that no later message gets a number that was given before, also when we are gone.
fn raise_next_uid(mailbox: Mailbox, captured: &Maildrop, ledger: &Ledger, view: View) {
    let own = UidlFormat::parse(&mailbox.uidl_format()).ok();
    let spent = own.map(|own| resolve::first_unspent_uid(captured, &own, view.uidvalidity));
    // Where nobody knows how far it had counted, no number is far enough.
    let told_below = if ledger.told_below == u32::MAX { 0 } else { ledger.told_below };
    let first = spent.unwrap_or(0).max(told_below);
    if first <= view.next_uid {
        return;
    }
    let raised = if first > HIGHEST_NEXT_UID {
        Err("that is further than a mailbox should jump".to_owned())
    } else {
        mailbox.raise_next_uid(first)
    };
    if let Err(why) = raised {
        mailbox.log(
            Level::UIDL_KEEP_LOG_WARNING,
            &format!(
                "cannot raise the next UID from {} to {first} ({why}): do not take the plugin out \
             before the mailbox has counted that far",
                view.next_uid,
            ),
        );
    }
}

fn log_undecided(mailbox: Mailbox, report: &Report, first_fault: Option<&str>) {
    if let (count @ 1.., Some(first)) = (report.undecided.len(), first_fault) {
        let what = match count {
            1 => "it gets".to_owned(),
            _ => format!("it and {} more, unreadable or not to be told from such, get", count - 1),
        };
        mailbox.log(
            Level::UIDL_KEEP_LOG_WARNING,
            &format!("{first}: {what} a UIDL for this session only, and nothing is recorded of it"),
        );
    }
}

fn log_report(mailbox: Mailbox, report: &Report, is_first: bool) {
    let count = |how: How| report.by_how.get(&how).copied().unwrap_or_default();
    if is_first {
        mailbox.log(
            Level::UIDL_KEEP_LOG_INFO,
            &format!(
                "first listing: kept {} by file, {} by message, {} by header, {} by origin, {} as \
             stored; {} new, {} of them with a UIDL of ours; {} captured not found",
                count(How::File),
                count(How::Message),
                count(How::Header),
                count(How::Origin),
                count(How::Stored),
                count(How::Format) + count(How::Derived),
                count(How::Derived),
                report.unclaimed,
            ),
        );
    }
    if report.repeated > 0 {
        mailbox.log(
            Level::UIDL_KEEP_LOG_INFO,
            &format!(
                "{} messages share a UIDL with another, as on the old server: leave \
                 pop3_uidl_duplicates at allow; getmail refuses such a maildrop",
                report.repeated,
            ),
        );
    }
    if !report.conflicts.is_empty() {
        let (count, first) = (report.conflicts.len(), report.conflicts[0]);
        mailbox.log(
            Level::UIDL_KEEP_LOG_WARNING,
            &format!(
                "{count} messages have names that disagree, the first is UID {first}: they are \
                 treated as new"
            ),
        );
    }
}
