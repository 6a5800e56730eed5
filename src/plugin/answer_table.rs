//! The answers for one view of the mailbox, made from the ledger alone or by the rules:
//! [`AnswerTable`].

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file::map::Mapped;
use crate::file::read_at::ReadAt;
use crate::format::UidlFormat;
use crate::index::Index;
use crate::key::FileKey;
use crate::ledger::control::{
    self, Begun, Control, ControlError, ControlLock, LockError, PublishError,
};
use crate::ledger::fingerprint_cache::{CacheScope, FingerprintCache};
use crate::ledger::{
    Answers, AnyLedger, Ledger, LedgerFront, LedgerHead, ListedNames, Mark, Provenance, Record,
    encode,
};
use crate::maildrop::CapturedMaildrop;
use crate::plugin::bake::{bake, is_baked};
use crate::plugin::events::{ListingKind, Reason};
use crate::plugin::host::{Frame, Level, Mailbox, OwnMail, Transaction, View};
use crate::plugin::standing::{Kept, RefusedLogin, Stranger, Uncaptured};
use crate::plugin::survey::{self, Expunged, Sizes, Survey, SurveyInput, names_of};
use crate::resolve::{
    self, Conclusion, Grown, Match, Memory, Outcome, Purpose, Report, Resolution, Situation,
};
use crate::site::remedy::Remedy;

/// How long a login waits for another that resolves the same mailbox.
const PATIENCE: Duration = Duration::from_secs(20);

/// The answers for one view of the mailbox. Nothing in it changes or moves.
pub struct AnswerTable {
    /// The view that they are for.
    pub view: View,
    /// How they were made.
    pub kind: ListingKind,
    answers: Answers,
    /// What is baked once the client has its answers.
    to_bake: ToBake,
    /// Answers for this session only.
    passing: HashMap<u32, (CString, u32)>,
    /// UIDs of messages that have an answer for this session only.
    undecided: Vec<u32>,
    /// The place to look at first: a listing goes up by UID.
    cursor: Cell<usize>,
}

/// What is baked of a table when the session is over: see [`bake`].
#[derive(Debug, PartialEq, Eq)]
enum ToBake {
    /// Nothing: bakes are not wanted, or cannot be, or this one was done before the answers.
    Nothing,
    /// All that is not baked.
    All,
    /// The same, unless it is only new messages with these UIDs.
    AllUnlessOnly(Vec<u32>),
}

/// Why there is no table.
pub enum Unanswered {
    /// We could not tell.
    Refused(RefusedLogin),
    /// A message went while we looked.
    Expunged,
    /// Another session recorded a listing of a newer view than this one.
    Stale,
}

impl From<RefusedLogin> for Unanswered {
    fn from(refusal: RefusedLogin) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Expunged> for Unanswered {
    fn from(Expunged: Expunged) -> Self {
        Self::Expunged
    }
}

/// What the ledger alone says of a view.
enum Warm {
    /// It has all answers.
    Table(Box<AnswerTable>),
    /// The same, but a rehearsal made them, and no client was told them yet.
    Rehearsed(Box<LedgerFront>),
    /// It has all but those of messages that came since.
    AllButNew(Box<LedgerFront>, Box<ListedNames>),
    /// The rules must look.
    No,
}

/// A first ledger that could not be written when its listing was made.
pub struct Unwritten {
    control: Control,
    file: Vec<u8>,
    mark: Mark,
}

impl Unwritten {
    /// Tries once more when the session is over: the client's deletions may have made room. Without
    /// a trace of this listing the next login might be taken for the first one.
    pub fn write(self, mailbox: Mailbox) {
        let write = || -> Option<()> {
            let lock = self.control.lock(Duration::ZERO).ok()?;
            // Another session may have written one. That of a rehearsal gives way to a client's.
            let is_only_rehearsed = |front: &LedgerFront| {
                let of_mark = self.control.mark().is_none_or(|mark| mark.rehearsal != 0);
                front.head().rehearsal != 0 && of_mark && self.mark.rehearsal == 0
            };
            if !self.control.front().ok()?.iter().all(is_only_rehearsed) {
                return None;
            }
            let begun = self.control.begin(&lock).ok()?;
            begun.publish(&[&self.file], &self.mark).ok()
        };
        if write().is_some() {
            let path = self.control.ledger_path();
            mailbox.log(Level::UIDL_KEEP_LOG_INFO, &format!("{}: written now", path.display()));
        }
    }
}

impl AnswerTable {
    /// Makes the answers for POP3, which are for ever. `stale_before` is the view that the last try
    /// found stale.
    pub fn for_listing(
        kept: &Kept,
        transaction: Transaction,
        sizes: Sizes,
        stale_before: Option<View>,
    ) -> Result<(Self, Option<Unwritten>), Unanswered> {
        let mailbox = transaction.mailbox();
        let control = control_of(&kept.user, mailbox)?;
        let seen = control.ledger_state();
        let mut warm = Self::warm(kept, &control, transaction, stale_before)?;
        if let Warm::Table(table) = warm {
            return Ok((*table, None));
        }
        let locked = control.lock(PATIENCE);
        if let Err(LockError::Busy) = locked {
            let log = format!("{}: {}", control.ledger_path().display(), LockError::Busy);
            return Err(RefusedLogin::fault(Reason::Busy, log).into());
        }
        // Another login may have resolved it while we waited.
        if seen.is_none() || control.ledger_state() != seen {
            warm = Self::warm(kept, &control, transaction, stale_before)?;
        }
        match (warm, &locked) {
            (Warm::Table(table), _) => return Ok((*table, None)),
            (Warm::Rehearsed(mut front), locked) => {
                if let Ok(lock) = locked {
                    note_told(&control, transaction, lock, &mut front);
                }
                return Ok((Self::from_listed(kept, transaction.view(), *front), None));
            }
            (Warm::AllButNew(front, listed), Ok(lock)) => {
                let front = (&*front, *listed);
                if let Some(table) = Self::grown(kept, &control, front, transaction, lock)? {
                    return Ok((table, None));
                }
            }
            (Warm::AllButNew(..), Err(_)) | (Warm::No, _) => {}
        }
        Self::cold(kept, &control, transaction, sizes, locked)
    }

    /// Takes the answers from the ledger alone, if it has all. It looks at neither index nor mail.
    fn warm(
        kept: &Kept,
        control: &Control,
        transaction: Transaction,
        stale_before: Option<View>,
    ) -> Result<Warm, Unanswered> {
        let view = transaction.view();
        let Some(front) = control.front().map_err(|why| ledger_fault(control, &why))? else {
            return Ok(Warm::No);
        };
        let head = front.head();
        if head.epoch.uidvalidity != view.epoch.uidvalidity
            || kept.voids(head)
            || head.restored < kept.stamps.restored
        {
            return Ok(Warm::No);
        }
        // Nobody was told what was only rehearsed, and index, format or keys may be others by now:
        // the roster that voids it may have been put back from a backup.
        if head.rehearsal != 0 && !is_of_now(kept, head, transaction)? {
            return Ok(Warm::No);
        }
        // Another session listed mail that we do not see, or we see mail that has gone since. Retry
        // once. If the view is still the same, then it is so: the mailbox counts anew, or nothing
        // was recorded of a message.
        let look_again_once =
            || if stale_before == Some(view) { Ok(Warm::No) } else { Err(Unanswered::Stale) };
        if head.epoch.next_uid > view.epoch.next_uid {
            return look_again_once();
        }
        match coverage(&front, transaction)? {
            // What went since a rehearsal was told to nobody, and has claimed nothing.
            Coverage::All
                if head.rehearsal != 0 && transaction.uids().count() < front.answers().len() =>
            {
                return Ok(Warm::No);
            }
            Coverage::All => {}
            Coverage::AllButNew(listed) => return Ok(Warm::AllButNew(Box::new(front), listed)),
            Coverage::No => return Ok(Warm::No),
            Coverage::NotYet => return look_again_once(),
        }
        if head.rehearsal != 0 && kept.rehearsal == 0 {
            return Ok(Warm::Rehearsed(Box::new(front)));
        }
        Ok(Warm::Table(Box::new(Self::from_listed(kept, view, front))))
    }

    /// Makes the answers of a settled maildrop to which only new mail came. The ledger says what
    /// new mail gets, so it looks at neither captured entries nor other messages. `None`: the rules
    /// must look, or the ledger cannot be written.
    ///
    /// The new messages' UIDLs are not baked yet: Dovecot would write its whole list anew, and
    /// gives them the same UIDLs without us. The mark has the last of them one by one. A message
    /// that falls out of the mark must be baked.
    fn grown(
        kept: &Kept,
        control: &Control,
        (front, listed): (&LedgerFront, ListedNames),
        transaction: Transaction,
        lock: &ControlLock,
    ) -> Result<Option<Self>, Unanswered> {
        let (mailbox, view) = (transaction.mailbox(), transaction.view());
        let is_looked_at = kept.rehearsal != 0 && front.head().rehearsal == 0;
        if front.head().native_from.is_none() || is_looked_at {
            return Ok(None);
        }
        let back = control.back(lock, front).map_err(|why| ledger_fault(control, &why))?;
        let ledger = front.ledger(&back).map_err(|why| ledger_fault(control, &why.into()))?;
        let mark = control.mark();
        let fingerprints = FingerprintCache::none(control, scope_of(kept, view));
        let sizes = Sizes::NotWanted;
        // None of the new messages was.
        let input = SurveyInput { mailbox, sizes, was_listed: false, fingerprints };
        let (uids, from) = (transaction.uids().collect::<Vec<u32>>(), front.head().epoch.next_uid);
        let mut survey = Survey::begin_from(input, &uids, from, listed).map_err(uidlist_fault)?;
        let (format, index) = (mailbox.uidl_format(), UserIndex::open(kept, mailbox)?);
        let native = UidlFormat::parse(&format).ok();
        let memory = Memory { ledger: None, mark: mark.as_ref() };
        let asker = Asker { kept, index: &index, format: &format, native: native.as_ref(), memory };
        let situation = asker.situation(&survey, None, Purpose::Listing { guarded: true });
        let growth = loop {
            let asked = match resolve::grow(&situation, &ledger, &uids, &survey.messages) {
                Grown::Ask(asked) => asked,
                Grown::Growth(growth) => break growth,
                Grown::NotSettled => return Ok(None),
            };
            survey.find_out(&asked)?;
        };
        let Ok((mut grown_front, grown_back)) = ledger.grow(&growth) else { return Ok(None) };
        survey.listed_names().into_iter().for_each(|names| grown_front.set_listed(names));
        let Ok(grown) = grown_front.ledger(&grown_back) else { return Ok(None) };
        let in_mark: Vec<u32> = grown.last_natives().map(|record| record.uid).collect();
        let is_there = |uid: u32| uids.binary_search(&uid).is_ok();
        let mut falls_out = (ledger.last_natives())
            .filter(|record| is_there(record.uid) && !in_mark.contains(&record.uid));
        if kept.settings.bake && !falls_out.all(|record| is_baked(mailbox, &record)) {
            return Ok(None);
        }
        let is_baked = kept.settings.bake && mark.is_some_and(|mark| mark.is_baked);
        let mark = Mark { is_baked, ..Mark::of(&grown, view.messages) };
        let parts = [grown_front.octets(), &grown_back];
        let begun = control.begin(lock).map_err(PublishError::from);
        match begun.and_then(|begun| begun.publish(&parts, &mark)) {
            Ok(()) => {
                let kind = ListingKind::Grown(survey.messages.len());
                Ok(Some(Self { kind, ..Self::from_listed(kept, view, grown_front) }))
            }
            // The rules write the mark of a ledger that was published, or say why they cannot.
            Err(PublishError::Unwritten(_) | PublishError::Unmarked(_)) => Ok(None),
        }
    }

    fn from_front(view: View, front: LedgerFront) -> Self {
        Self {
            view,
            kind: ListingKind::Warm,
            to_bake: ToBake::Nothing,
            answers: front.into_answers(),
            passing: HashMap::new(),
            undecided: Vec::new(),
            cursor: Cell::new(0),
        }
    }

    /// Makes the answers that a POP3 client was told before. What is not baked is what a session
    /// left that was killed, or an older `dovecot-uidlist` was put back.
    fn from_listed(kept: &Kept, view: View, front: LedgerFront) -> Self {
        let to_bake = match kept.settings.bake {
            true => {
                let uids = front.last_natives().map(|i| front.answers().uid(i));
                ToBake::AllUnlessOnly(uids.collect())
            }
            false => ToBake::Nothing,
        };
        Self { to_bake, ..Self::from_front(view, front) }
    }

    /// Bakes what the session has left to bake. The client has its answers, and does not wait.
    pub fn bake(&self, kept: &Kept, mailbox: Mailbox) {
        let may_wait: &[u32] = match &self.to_bake {
            ToBake::Nothing => return,
            ToBake::All => &[],
            ToBake::AllUnlessOnly(uids) => uids,
        };
        let Some(uidlist) = mailbox.uidlist() else { return };
        let lacks = |i: usize| {
            let (uid, uidl) = (self.answers.uid(i), self.answers.uidl(i));
            uidlist.uidl(uid) != Some(uidl)
                && uidlist.file_name(uid).is_some()
                && !may_wait.contains(&uid)
        };
        if self.to_bake != ToBake::All && !(0..self.answers.len()).any(lacks) {
            return;
        }
        let Ok(control) = control_of(&kept.user, mailbox) else { return };
        // Whoever has the lock writes a newer ledger, and bakes that.
        let lock = control.lock(Duration::ZERO);
        if let Err(LockError::Busy) = lock {
            return;
        }
        // Its names say whether the list has the messages that it tells of.
        let front = control.front().ok().flatten();
        if front.is_some_and(|front| bake(mailbox, kept.settings.order, &front)) {
            lock.iter().for_each(|lock| control.note_baked(lock));
        }
    }

    /// Rule 12: takes the answers for a user who is on no roster from the ledger in his INBOX. It
    /// has another name than he, or his line is gone. `None`: there is no ledger, and he is none of
    /// our business.
    pub fn for_stranger(
        stranger: &Stranger,
        transaction: Transaction,
    ) -> Result<Option<Self>, RefusedLogin> {
        let (name, mailbox) = (&stranger.name, transaction.mailbox());
        // A storage without a place for a ledger has none.
        let Ok(Some(dir)) = mailbox.control_dir() else { return Ok(None) };
        let control = Control::new(dir, name);
        let front = control.front_of_anybody().map_err(|why| ledger_fault(&control, &why))?;
        let Some(front) = front else { return Ok(None) };
        let Some(owner) = stranger.owner(front.user())? else { return Ok(None) };
        let (view, head) = (transaction.view(), front.head());
        let counts_on = head.begun_after >= owner.forgotten
            && head.rehearsal == 0
            && head.epoch.goes_on_in(view.epoch);
        if counts_on && matches!(coverage(&front, transaction)?, Coverage::All) {
            return Ok(Some(Self::from_front(view, front)));
        }
        let (user, path) = (front.user(), control.ledger_path());
        Err(if user == name {
            let log = format!(
                "{name} is on no roster, and {} says what was told to him: build his index and \
                 roster again, or take that file and {} away",
                path.display(),
                control::LOCK,
            );
            RefusedLogin::fault(Reason::NoRoster, log)
        } else {
            let log = format!(
                "{name} is on no roster, and his INBOX is that of {user} ({}), who must list its \
                 new messages first: let {user} log in by POP3, or make {name} log in as {user}",
                path.display(),
            );
            RefusedLogin::fault(Reason::OtherName, log)
        })
    }

    /// Takes the answers from the ledger alone, for a copy of the mail of a user of whom nothing
    /// else is known. `None`: nothing was listed, or its UIDs do not hold any more.
    pub fn of_listed(
        uncaptured: &Uncaptured,
        mailbox: Mailbox,
    ) -> Result<Option<Self>, RefusedLogin> {
        let Uncaptured { user, stamps, .. } = uncaptured;
        let control = control_of(user, mailbox)?;
        let front = match control.front() {
            Ok(front) => front,
            // Another user's ledger says nothing of him.
            Err(ControlError::OtherUser { .. }) => None,
            Err(why) => return Err(ledger_fault(&control, &why)),
        };
        let Some(front) = front else { return Ok(None) };
        let own = OwnMail::open(mailbox);
        let (view, head) = (own.transaction().view(), front.head());
        let counts_on = head.begun_after >= stamps.forgotten
            && head.rehearsal == 0
            && head.restored >= stamps.restored
            && head.epoch.goes_on_in(view.epoch);
        let is_held = counts_on
            && !matches!(coverage(&front, own.transaction())?, Coverage::No | Coverage::NotYet);
        Ok(is_held.then(|| Self::from_front(view, front)))
    }

    fn cold(
        kept: &Kept,
        control: &Control,
        transaction: Transaction,
        sizes: Sizes,
        locked: Result<ControlLock, LockError>,
    ) -> Result<(Self, Option<Unwritten>), Unanswered> {
        let (mailbox, view) = (transaction.mailbox(), transaction.view());
        let place = control.ledger_path();
        let begun = match &locked {
            Ok(lock) => control.begin(lock),
            Err(LockError::Unavailable(why)) => Err(std::io::Error::other(format!(
                "{}: {why}; let the mail's user write it, and the directory it is in",
                control::LOCK
            ))),
            Err(LockError::Busy) => unreachable!("the caller has refused it"),
        };
        let ledger = read_ledger(control)?;
        let written = ledger.as_ref().map(|(_, written)| *written);
        let (ledger, mark) = (ledger.map(|(ledger, _)| ledger), control.mark());
        // Where there is no lock, another line says so below.
        if locked.is_ok() && mark.as_ref().is_some_and(|mark| mark.told.is_none()) {
            mailbox.log(
                Level::UIDL_KEEP_LOG_WARNING,
                &format!(
                    "{} beside {}: the mark in it is damaged or cannot be read, and any number may \
                     have been told: new mail gets UIDLs of ours as long as UIDVALIDITY is \
                     the same",
                    control::LOCK,
                    place.display(),
                ),
            );
        }
        let memory = Memory { ledger: ledger.as_ref(), mark: mark.as_ref() };
        let is_first = ledger.is_none() || memory.is_rehearsal();
        let (lock, scope) = (locked.as_ref().ok(), scope_of(kept, view));
        let fingerprints = FingerprintCache::open(control, lock, scope, view.messages);
        let was_listed = memory.ledger.is_some() || memory.mark.is_some();
        let input = SurveyInput { mailbox, sizes, was_listed, fingerprints };
        let purpose = Purpose::Listing { guarded: true };
        let mut begun = Some(begun);
        let draft = |new: &Conclusion<'_, '_>, names: Option<&ListedNames>| {
            let begun = begun.take().expect("the rules decide once");
            (NewFile::of(new, names, begun), Mark::of(new, view.messages))
        };
        let resolved = resolve(kept, input, purpose, memory, written, draft);
        if let (Err(Unanswered::Refused(_)), Ok(lock)) = (&resolved, &locked) {
            // The fingerprints may be wrong, for instance where Dovecot could not decompress a
            // mail.
            control.remove_fingerprints(lock);
        }
        let resolution = resolved?;
        let first_unspent_uid = resolution.first_unspent_uid;

        let Resolution { ledger: (draft, mark), passing, report, .. } = resolution;
        let marked = mark.natives.len();
        // A ledger that could not be read again must not be published.
        let (front, back, begun) = match draft {
            NewFile::Written(begun) => {
                let (front, back) = begun.read().map_err(|why| ledger_fault(control, &why))?;
                (front, back, Ok(begun))
            }
            NewFile::Unwritten(file, why) => {
                let (front, back) = parts_of(file)?;
                (front, back, Err(PublishError::Unwritten(why)))
            }
        };
        // A rehearsal only looks at a maildrop that clients have listed: they will hear of its new
        // mail in the order that it has when they come.
        if kept.rehearsal != 0 && mark.rehearsal == 0 {
            return Ok((Self::from_front(view, front).and_passing(&passing, &report), None));
        }
        let written = begun.and_then(|begun| begun.publish(&[], &mark));
        let is_written = !matches!(written, Err(PublishError::Unwritten(_)));
        let is_marked = written.is_ok();
        if is_written {
            locked.iter().for_each(|lock| control.remove_fingerprints(lock));
        }
        let mut unwritten = None;
        match written {
            Ok(()) => {}
            Err(PublishError::Unmarked(why)) => {
                let why = PublishError::Unmarked(why);
                let line = format!("{}: {why}", place.display());
                mailbox.log(Level::UIDL_KEEP_LOG_WARNING, &line);
            }
            Err(PublishError::Unwritten(why)) => {
                mailbox.log(
                    Level::UIDL_KEEP_LOG_WARNING,
                    &format!(
                        "{}: cannot be written ({why}): served without a ledger, with answers that \
                         will be derived again at the next login",
                        place.display(),
                    ),
                );
                let first = Unwritten {
                    control: control.clone(),
                    file: [front.octets(), &back].concat(),
                    mark,
                };
                unwritten = is_first.then_some(first);
            }
        }
        if is_written {
            // Without a ledger, every login would add again what a stamp of the operator adds.
            raise_next_uid(mailbox, first_unspent_uid, view);
        }
        // Where not even a ledger can be written, it is no use to try.
        let to_bake = match kept.settings.bake && is_written {
            false => ToBake::Nothing,
            true if is_first && is_marked && is_found_again(&front, marked, &report) => ToBake::All,
            true => {
                if bake(mailbox, kept.settings.order, &front) {
                    locked.iter().for_each(|lock| control.note_baked(lock));
                }
                ToBake::Nothing
            }
        };
        log_report(mailbox, &report);
        let table = Self::from_front(view, front).and_passing(&passing, &report);
        Ok((Self { kind: ListingKind::Cold(report), to_bake, ..table }, unwritten))
    }

    /// Makes the answers for doveadm and dsync in memory: what was listed or is kept. It does not
    /// save fingerprints: doveadm may be set up otherwise than POP3, and would keep logins waiting.
    pub fn for_preview(kept: &Kept, mailbox: Mailbox) -> Result<Self, Unanswered> {
        let control = control_of(&kept.user, mailbox)?;
        let ledger = read_ledger(&control)?.map(|(ledger, _)| ledger);
        let mark = control.mark();
        let memory = Memory { ledger: ledger.as_ref(), mark: mark.as_ref() };
        let view = OwnMail::open(mailbox).transaction().view();
        let fingerprints =
            FingerprintCache::open(&control, None, scope_of(kept, view), view.messages);
        let sizes = Sizes::NotWanted;
        let input = SurveyInput { mailbox, sizes, was_listed: true, fingerprints };
        let (purpose, now) = (Purpose::Preview, Some(SystemTime::now()));
        let Resolution { ledger: file, passing, report, .. } =
            resolve(kept, input, purpose, memory, now, |new, _| encode(new))?;
        let (front, _) = parts_of(file)?;
        Ok(Self::from_front(view, front).and_passing(&passing, &report))
    }

    /// Adds the answers for this session only.
    fn and_passing(self, passing: &[Record], report: &Report) -> Self {
        let passing = passing.iter().map(|record| {
            let uidl = CString::new(record.uidl.as_bytes()).expect("a Uidl has no NUL");
            (record.uid, (uidl, record.order))
        });
        let undecided = report.undecided.clone();
        Self { passing: passing.collect(), undecided, ..self }
    }

    fn find(&self, uid: u32) -> Option<usize> {
        let at = self.answers.find(uid, self.cursor.get())?;
        self.cursor.set(at + 1);
        Some(at)
    }

    /// The UIDL of a message, closed by one NUL, if there is an answer.
    pub fn uidl(&self, uid: u32) -> Option<&[u8]> {
        let passing = || self.passing.get(&uid).map(|(uidl, _)| uidl.as_bytes_with_nul());
        self.find(uid).map(|at| self.answers.with_nul(at)).or_else(passing)
    }

    /// The place of a message in the POP3 order, if there is an answer.
    pub fn order(&self, uid: u32) -> Option<u32> {
        let passing = || self.passing.get(&uid).map(|(_, order)| *order);
        self.find(uid).map(|at| self.answers.order_number(at)).or_else(passing)
    }

    /// Says whether nothing can be told of the message beyond this session.
    pub fn is_undecided(&self, uid: u32) -> bool {
        self.undecided.contains(&uid)
    }
}

/// What fingerprints are made for.
fn scope_of(kept: &Kept, view: View) -> CacheScope {
    let has_origin = kept.settings.keys.origin;
    CacheScope { uidvalidity: view.epoch.uidvalidity, has_origin }
}

/// A new ledger that is not in its place yet.
enum NewFile<'a> {
    /// It is in the file that was begun.
    Written(Begun<'a>),
    /// It is here: no file could be written, for this reason.
    Unwritten(Vec<u8>, std::io::Error),
}

impl<'a> NewFile<'a> {
    /// Writes a ledger where that can be done: then it is not in memory beside all that the rules
    /// look at.
    fn of(
        ledger: &impl AnyLedger,
        names: Option<&ListedNames>,
        begun: std::io::Result<Begun<'a>>,
    ) -> Self {
        let written = begun.and_then(|begun| begun.write(ledger, names).map(|()| begun));
        match written {
            Ok(begun) => Self::Written(begun),
            Err(why) => Self::Unwritten(encode(ledger), why),
        }
    }
}

/// Takes the front and the back of a ledger that was encoded just now.
fn parts_of(file: Vec<u8>) -> Result<(LedgerFront, Vec<u8>), RefusedLogin> {
    LedgerFront::of_encoded(file).map_err(|why| {
        let next = "take it away and `uidl-keep forget` the user";
        RefusedLogin::fault(Reason::Ledger, format!("the ledger cannot go on: {why}; {next}"))
    })
}

/// Notes that a client is told what was only rehearsed, before it is told. The mark alone says it,
/// too, and needs no room.
fn note_told(
    control: &Control,
    transaction: Transaction,
    lock: &ControlLock,
    front: &mut LedgerFront,
) {
    let rehearsal = front.head().rehearsal;
    let mut note = || -> Result<(), String> {
        let mut back = control.back(lock, front).map_err(|why| why.to_string())?;
        front.end_rehearsal(&mut back).map_err(|why| why.to_string())?;
        let ledger = front.ledger(&back).map_err(|why| why.to_string())?;
        let is_its_own = |mark: &Mark| mark.rehearsal == rehearsal;
        let is_baked = control.mark().filter(is_its_own).is_some_and(|mark| mark.is_baked);
        let mark = Mark { is_baked, ..Mark::of(&ledger, transaction.view().messages) };
        lock.write(&mark).map_err(|why| why.to_string())?;
        let begun = control.begin(lock).map_err(|why| why.to_string())?;
        begun.publish(&[front.octets(), &back], &mark).map_err(|why| why.to_string())
    };
    if let Err(why) = note() {
        let path = control.ledger_path();
        let line = format!(
            "{}: cannot note that a client has listed what was rehearsed ({why})",
            path.display()
        );
        transaction.mailbox().log(Level::UIDL_KEEP_LOG_WARNING, &line);
    }
}

/// Says whether a first listing that is lost before it is baked is made again with the same UIDLs:
/// from the index, from Dovecot's storage, or from the mark, which has `marked` new messages. A
/// message that could not be read was not listed, and only what is baked says so.
fn is_found_again(front: &LedgerFront, marked: usize, report: &Report) -> bool {
    let is_new = |i: &usize| front.answers().uid(*i) != 0 && !front.provenance(*i).is_kept();
    let new = (0..front.answers().len()).filter(is_new).count();
    new == marked && report.undecided.is_empty()
}

/// Says whether a ledger was made by what a new message is judged by now.
fn is_of_now(
    kept: &Kept,
    head: LedgerHead,
    transaction: Transaction,
) -> Result<bool, RefusedLogin> {
    let mailbox = transaction.mailbox();
    let build_id = UserIndex::open(kept, mailbox)?.index.build_id();
    Ok(head.index.basis == basis_of(&build_id, &mailbox.uidl_format(), kept.settings.keys))
}

/// How much of a view a ledger tells.
enum Coverage {
    All,
    /// All but messages that came since. These are the names of the others.
    AllButNew(Box<ListedNames>),
    /// It lacks messages that got their UIDs before it was written.
    NotYet,
    /// Nothing: its UIDs do not hold.
    No,
}

/// Says how much of the view the ledger has, and whether its UIDs hold (rule 2). On a Maildir the
/// names in `dovecot-uidlist` tell, and each must be there: by a digest of all, or one by one where
/// that is another. Elsewhere the index id tells, and the name of the last message that was listed.
fn coverage(front: &LedgerFront, transaction: Transaction) -> Result<Coverage, RefusedLogin> {
    let (mailbox, view, head) = (transaction.mailbox(), transaction.view(), front.head());
    let uids: Vec<u32> = transaction.uids().collect();
    let (mut guess, mut is_any_new) = (0, false);
    for &uid in &uids {
        match front.answers().find(uid, guess) {
            Some(at) => guess = at + 1,
            None if uid < head.epoch.next_uid => return Ok(Coverage::NotYet),
            None => is_any_new = true,
        }
    }
    let mut listed = ListedNames::default();
    let is_held = if mailbox.uidlist().is_some() {
        let add = |uid, name: &[u8]| {
            if uid < head.epoch.next_uid {
                listed.add(uid, FileKey::until_cut(name));
            }
        };
        for_each_name_of(mailbox, &uids, add).map_err(uidlist_fault)?
            && (front.has_listed(&listed)
                || names_agree(front, mailbox, &uids).map_err(uidlist_fault)?)
    } else {
        head.epoch.index_id == view.epoch.index_id && last_name_agrees(front, mailbox, &uids)
    };
    Ok(match (is_held, is_any_new) {
        (false, _) => Coverage::No,
        (true, false) => Coverage::All,
        (true, true) => Coverage::AllButNew(Box::new(listed)),
    })
}

/// Gives the name in `dovecot-uidlist` of each of these messages to `take`. Returns whether the
/// list has them all. If it does not, nothing agrees with it.
fn for_each_name_of(
    mailbox: Mailbox,
    uids: &[u32],
    mut take: impl FnMut(u32, &[u8]),
) -> Result<bool, String> {
    let (mut left, mut has_all) = (uids.iter().copied().peekable(), true);
    mailbox.for_each_name(|uid, name| {
        while left.next_if(|&next| next < uid).is_some() {
            has_all = false;
        }
        if left.next_if_eq(&uid).is_some() {
            take(uid, name);
        }
    })?;
    Ok(has_all && left.next().is_none())
}

/// Says whether each of these messages that was listed has one of its names of then, or had none.
fn names_agree(front: &LedgerFront, mailbox: Mailbox, uids: &[u32]) -> Result<bool, String> {
    let (mut guess, mut agree) = (0, true);
    let has_all = for_each_name_of(mailbox, uids, |uid, name| {
        if let Some(at) = front.answers().find(uid, guess) {
            guess = at + 1;
            let name = Ledger::name_of_cut(&FileKey::cut_of(name));
            let mut names = front.names(at).peekable();
            agree &= names.peek().is_none() || names.any(|listed| listed == name);
        }
    })?;
    Ok(has_all && agree)
}

/// Says whether the last message that was listed still has its name of then, or had none.
fn last_name_agrees(front: &LedgerFront, mailbox: Mailbox, uids: &[u32]) -> bool {
    let last = uids.iter().enumerate().rev().find_map(|(at, &uid)| {
        let found = front.answers().find(uid, 0)?;
        front.names(found).next().is_some().then_some((at, found))
    });
    let Some((at, found)) = last else { return true };
    let _frame = Frame::push();
    let mut own = OwnMail::open(mailbox);
    let mut mail = own.turn_to(u32::try_from(at + 1).expect("fewer messages than UIDs"));
    let names = names_of(&mut mail).unwrap_or_default();
    names.into_iter().any(|key| front.names(found).any(|name| name == Ledger::name_of(key)))
}

fn uidlist_fault(why: String) -> RefusedLogin {
    RefusedLogin::fault(Reason::Mailbox, format!("cannot read dovecot-uidlist: {why}"))
}

fn control_of(user: &str, mailbox: Mailbox) -> Result<Control, RefusedLogin> {
    let log = match mailbox.control_dir() {
        Ok(Some(dir)) => return Ok(Control::new(dir, user)),
        Ok(None) => "this storage has no control directory to keep a ledger in".to_owned(),
        Err(why) => format!("cannot tell the control directory: {why}"),
    };
    Err(RefusedLogin::fault(Reason::Mailbox, log))
}

/// Says whether a refusal that the operator meant is to be logged now.
pub fn is_to_be_said(mailbox: Mailbox) -> bool {
    // No ledger is looked at: nobody's name is needed.
    control_of("", mailbox).map_or(true, |control| control.is_to_be_said())
}

/// Notes how many messages the session left, for the guard of a mailbox that is made anew.
pub fn note_left(user: &str, mailbox: Mailbox, left: u32) {
    if let Ok(control) = control_of(user, mailbox) {
        control.note_left(left);
    }
}

/// By UID, the GUIDs that dsync gets in place of those that messages share. There are none in a
/// mailbox of another server, which is opened to pull mail from it.
pub fn guids_of_their_own(user: &str, mailbox: Mailbox) -> HashMap<u32, CString> {
    let Ok(control) = control_of(user, mailbox) else { return HashMap::new() };
    let ledger = read_ledger(&control).ok().flatten().map(|(ledger, _)| ledger);
    survey::guids_of_their_own(mailbox, ledger.as_ref())
}

fn ledger_fault(control: &Control, why: &ControlError) -> RefusedLogin {
    let next = match why {
        ControlError::Foreign { expected_uid, .. } => {
            format!("chown it to uid {expected_uid}, if the mailbox was moved to that account")
        }
        ControlError::OtherUser { .. } => "give each user a control directory (CONTROL= in \
             mail_location); where a user was renamed, take it away and `uidl-keep forget` the \
             new name"
            .to_owned(),
        ControlError::Link => "restore the file itself in its place".to_owned(),
        ControlError::Io(why) if why.kind() == std::io::ErrorKind::OutOfMemory => {
            "raise vsz_limit of service pop3".to_owned()
        }
        ControlError::Io(_) => "let the mail's user read it".to_owned(),
        ControlError::Ledger(_) => "restore it from a backup, or take it away: what was told is \
             found again as far as its mark and what was baked say"
            .to_owned(),
    };
    let path = control.ledger_path();
    RefusedLogin::fault(Reason::Ledger, format!("{}: {why}; {next}", path.display()))
}

fn read_ledger(control: &Control) -> Result<Option<(Ledger, SystemTime)>, RefusedLogin> {
    control.ledger().map_err(|why| ledger_fault(control, &why))
}

/// The index that has a user. Only its header was read.
struct UserIndex {
    index: Index<Box<dyn ReadAt>>,
    path: PathBuf,
}

impl UserIndex {
    fn open(kept: &Kept, mailbox: Mailbox) -> Result<Self, RefusedLogin> {
        let path = kept.site.paths(&kept.user).map(|paths| paths.index).unwrap_or_default();
        let fault = |why: &dyn Remedy| index_fault(&path, why);
        let file = kept.site.open_index(&kept.user).map_err(|why| fault(&why))?;
        let file = file.ok_or_else(|| fault(&"no index, but its roster names the user"))?;
        let source: Box<dyn ReadAt> = if mailbox.is_mmap_disabled() {
            Box::new(file)
        } else {
            Box::new(Mapped::new(file).map_err(|why| fault(&why))?)
        };
        let index = Index::open(source).map_err(|why| fault(&why))?;
        Ok(Self { index, path })
    }

    /// Reads what was captured of the user.
    fn captured(&self, user: &str) -> Result<CapturedMaildrop, RefusedLogin> {
        let captured = self.index.captured(user).map_err(|why| index_fault(&self.path, &why))?;
        captured.ok_or_else(|| {
            index_fault(&self.path, &"its roster names the user, the index does not")
        })
    }
}

fn index_fault(path: &Path, why: &dyn Remedy) -> RefusedLogin {
    RefusedLogin::fault(Reason::Index, format!("{}: {why}; {}", path.display(), why.remedy()))
}

/// The question to the rules, but for the messages.
struct Asker<'a> {
    kept: &'a Kept,
    index: &'a UserIndex,
    format: &'a str,
    native: Option<&'a UidlFormat>,
    memory: Memory<'a>,
}

impl<'a> Asker<'a> {
    fn situation(
        &self,
        survey: &Survey<'_>,
        captured: Option<&'a CapturedMaildrop>,
        purpose: Purpose,
    ) -> Situation<'a> {
        let Self { kept, index, native, memory, .. } = *self;
        Situation {
            captured,
            basis: basis_of(&index.index.build_id(), self.format, kept.settings.keys),
            is_final: index.index.is_final(),
            memory,
            stamps: kept.stamps,
            epoch: survey.view.epoch,
            is_maildir: survey.is_maildir(),
            native,
            keys: kept.settings.keys,
            purpose,
            rehearsal: kept.rehearsal,
        }
    }
}

/// Asks the rules, and finds out what they ask, until they have decided. `written` is the time when
/// the ledger was written, if there is one. `take` is what is made of the new ledger, and of the
/// names by which the rules know all messages, if these are of `dovecot-uidlist`.
fn resolve<L>(
    kept: &Kept,
    input: SurveyInput<'_>,
    purpose: Purpose,
    memory: Memory<'_>,
    written: Option<SystemTime>,
    mut take: impl FnMut(&Conclusion<'_, '_>, Option<&ListedNames>) -> L,
) -> Result<Resolution<L>, Unanswered> {
    let mailbox = input.mailbox;
    let mut survey = Survey::begin(input).map_err(uidlist_fault)?;
    let (format, index) = (mailbox.uidl_format(), UserIndex::open(kept, mailbox)?);
    let native = UidlFormat::parse(&format).ok();
    let asker = Asker { kept, index: &index, format: &format, native: native.as_ref(), memory };
    let mut captured = None;
    let decided = loop {
        let situation = asker.situation(&survey, captured.as_ref(), purpose);
        let take = |new: &Conclusion<'_, '_>| take(new, survey.listed_names());
        match resolve::resolve_with(&kept.user, &situation, &survey.messages, take) {
            Outcome::Ask(asked) => survey.find_out(&asked)?,
            Outcome::AskCaptured => {
                if !index.index.is_final() && is_new_day(written) {
                    warn_not_final(kept, mailbox);
                }
                captured = Some(index.captured(&kept.user)?);
            }
            Outcome::Resolved(resolution) => break Ok(*resolution),
            Outcome::Refused(why) => break Err(why),
        }
    };
    let first_fault =
        survey.first_fault.take().map(|(uid, why)| format!("UID {uid} cannot be read ({why})"));
    decided
        .inspect(|resolution| log_undecided(mailbox, &resolution.report, first_fault.as_deref()))
        .map_err(|why| {
            let because = first_fault.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let log = format!("{}: {why}{because}", kept.user);
            RefusedLogin::fault(Reason::from(&why), log).into()
        })
}

/// A digest of what a new message is judged by.
fn basis_of(build_id: &[u8; 16], format: &str, keys: Match) -> [u8; 16] {
    let Match { file, message, header, origin } = keys;
    let keys = [file, message, header, origin].map(u8::from);
    let mut hasher = blake3::Hasher::new_derive_key("uidl-keep 2026-11 basis");
    hasher.update(build_id).update(&keys).update(format.as_bytes());
    hasher.finalize().as_bytes()[..16].try_into().expect("a digest is longer")
}

fn warn_not_final(kept: &Kept, mailbox: Mailbox) {
    mailbox.log(
        Level::UIDL_KEEP_LOG_WARNING,
        &format!(
            "the index of {} is not final: build it with --final once the old server is off",
            kept.user,
        ),
    );
}

/// Says whether the ledger was last written on another day, so that we warn once a day.
fn is_new_day(written: Option<SystemTime>) -> bool {
    let day = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)
    };
    written.is_none_or(|written| day(written) != day(SystemTime::now()))
}

/// No next UID is raised further. A mailbox whose UIDs come near the end of 32 bits takes no more
/// mail, and the number comes from text that another server gave.
const HIGHEST_NEXT_UID: u32 = 1 << 31;

/// Raises the next UID, so that no later message gets a spent number, also when we are gone.
fn raise_next_uid(mailbox: Mailbox, first: u32, view: View) {
    if first <= view.epoch.next_uid {
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
                view.epoch.next_uid,
            ),
        );
    }
}

fn log_undecided(mailbox: Mailbox, report: &Report, first_fault: Option<&str>) {
    if let (count @ 1.., Some(first)) = (report.undecided.len(), first_fault) {
        let what = match count {
            1 => "it gets".to_owned(),
            _ => format!("it and {} more unreadable ones get", count - 1),
        };
        mailbox.log(
            Level::UIDL_KEEP_LOG_WARNING,
            &format!("{first}: {what} a UIDL for this session only, and nothing is recorded of it"),
        );
    }
}

fn log_report(mailbox: Mailbox, report: &Report) {
    let count = |provenance| report.count(provenance);
    if report.is_first {
        mailbox.log(
            Level::UIDL_KEEP_LOG_INFO,
            &format!(
                "first listing: kept {} by file, {} by message, {} by header, {} by origin, {} as \
             stored; {} new, {} of them with a UIDL of ours; {} captured not found",
                count(Provenance::File),
                count(Provenance::Message),
                count(Provenance::Header),
                count(Provenance::Origin),
                count(Provenance::Stored),
                count(Provenance::Native) + count(Provenance::Derived),
                count(Provenance::Derived),
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
