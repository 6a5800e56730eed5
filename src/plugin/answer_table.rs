//! A table of answers for one view of the mailbox, and how it comes about: from the ledger alone,
//! or by the rules.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file::map::Mapped;
use crate::file::read_at::ReadAt;
use crate::format::UidlFormat;
use crate::index::Index;
use crate::key::FileKey;
use crate::ledger::control::{self, Control, ControlError, ControlLock, LockError, PublishError};
use crate::ledger::fingerprint_cache::FingerprintCache;
use crate::ledger::{Ledger, LedgerFront, Mark, Provenance};
use crate::maildrop::Maildrop;
use crate::plugin::bake::{Baked, bake, is_baked};
use crate::plugin::host::{Frame, Level, Mailbox, OwnMail, Transaction, View};
use crate::plugin::standing::{Kept, Refusal, Stranger, Uncaptured};
use crate::plugin::survey::{self, Expunged, Look, Sizes, Survey, names_of};
use crate::resolve::{self, Grown, Match, Memory, Outcome, Purpose, Report, Resolution, Situation};
use crate::site::remedy::Remedy;

/// How long a login waits for another that resolves the same mailbox.
const PATIENCE: Duration = Duration::from_secs(20);

/// The answers for one view of the mailbox. Nothing in it changes or moves.
pub struct Table {
    /// What they hold for.
    pub view: View,
    answers: LedgerFront,
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
    /// Its place in the POP3 order.
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

/// What the ledger alone says of a view.
enum Warm {
    /// All answers.
    Table(Box<Table>),
    /// All but those of messages that came since.
    AllButNew(Box<LedgerFront>),
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
    /// Tries once more, when the session is over: what the client deleted may have made room.
    /// Without a trace of this listing the next login might be taken for the first one.
    pub fn write(self, mailbox: Mailbox) {
        let write = || -> Option<()> {
            let lock = self.control.lock(Duration::ZERO).ok()?;
            // Another session may have written one.
            if self.control.front().ok()?.is_some() {
                return None;
            }
            let begun = self.control.begin(&lock).ok()?;
            begun.publish(&self.file, &self.mark).ok()
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
        let control = control_of(&kept.user, mailbox)?;
        let seen = control.ledger_state();
        let mut warm = Self::warm(kept, &control, transaction, stale_before)?;
        if let Warm::Table(table) = warm {
            return Ok((*table, None));
        }
        let locked = control.lock(PATIENCE);
        if let Err(LockError::Busy) = locked {
            let log = format!("{}: {}", control.ledger_path().display(), LockError::Busy);
            return Err(Refusal::fault(log).into());
        }
        // Another login may have resolved it while we waited.
        if seen.is_none() || control.ledger_state() != seen {
            warm = Self::warm(kept, &control, transaction, stale_before)?;
        }
        match (warm, &locked) {
            (Warm::Table(table), _) => return Ok((*table, None)),
            (Warm::AllButNew(answers), Ok(lock)) => {
                if let Some(table) = Self::grown(kept, &control, &answers, transaction, lock)? {
                    return Ok((table, None));
                }
            }
            (Warm::AllButNew(_), Err(_)) | (Warm::No, _) => {}
        }
        Self::cold(kept, &control, transaction, sizes, locked)
    }

    /// The answers of the ledger alone, if it has all: neither index nor mail is looked at.
    fn warm(
        kept: &Kept,
        control: &Control,
        transaction: Transaction,
        stale_before: Option<View>,
    ) -> Result<Warm, NoTable> {
        let view = transaction.view();
        let Some(answers) = control.front().map_err(|why| ledger_fault(control, &why))? else {
            return Ok(Warm::No);
        };
        let head = answers.head();
        if head.epoch.uidvalidity != view.epoch.uidvalidity
            || head.begun_after < kept.stamps.forgotten
            || head.restored < kept.stamps.restored
        {
            return Ok(Warm::No);
        }
        // Of another session's listing, this one saw too little, or what has gone meanwhile. If the
        // next try sees the same, then it is so: the mailbox counts anew, or nothing was recorded
        // of a message.
        let look_again_once =
            || if stale_before == Some(view) { Ok(Warm::No) } else { Err(NoTable::Stale) };
        if head.epoch.next_uid > view.epoch.next_uid {
            return look_again_once();
        }
        match holds(&answers, transaction)? {
            Holds::All => {}
            Holds::AllButNew => return Ok(Warm::AllButNew(Box::new(answers))),
            Holds::No => return Ok(Warm::No),
            Holds::NotYet => return look_again_once(),
        }
        if kept.settings.bake {
            bake_anew_if_gone(&answers, transaction, kept.settings.order);
        }
        Ok(Warm::Table(Box::new(Self::from_answers(view, answers))))
    }

    /// The answers of a settled maildrop to which nothing came but new mail: the ledger says what
    /// it gets, and neither what was captured nor any other message is looked at. `None`: the rules
    /// must look, or what they are to say cannot be written.
    ///
    /// What new messages are told is not baked yet: Dovecot would write its whole list anew, and
    /// says the same of them without us. The last of them are in the mark one by one, and what
    /// falls out of it must stand in the list.
    fn grown(
        kept: &Kept,
        control: &Control,
        answers: &LedgerFront,
        transaction: Transaction,
        lock: &ControlLock,
    ) -> Result<Option<Self>, NoTable> {
        let (mailbox, view) = (transaction.mailbox(), transaction.view());
        if answers.head().native_from.is_none() {
            return Ok(None);
        }
        let back = control.back(lock, answers).map_err(|why| ledger_fault(control, &why))?;
        let ledger = answers.ledger(&back).map_err(|why| ledger_fault(control, &why.into()))?;
        let mark = control.mark();
        let prints = FingerprintCache::none(control, view.epoch.uidvalidity);
        let look = Look { mailbox, sizes: Sizes::NotWanted, prints };
        let mut survey =
            Survey::begin_from(look, ledger.head.epoch.next_uid).map_err(uidlist_fault)?;
        let uids: Vec<u32> = transaction.uids().collect();
        let (format, index) = (mailbox.uidl_format(), UserIndex::open(kept, mailbox)?);
        let native = UidlFormat::parse(&format).ok();
        let memory = Memory { ledger: None, mark: mark.as_ref() };
        let asker = Asker { kept, index: &index, format: &format, native: native.as_ref(), memory };
        let situation = asker.situation(&survey, None, Purpose::Listing { guarded: true });
        let grown = loop {
            let asked = match resolve::grow(&situation, &ledger, &uids, &survey.messages) {
                Grown::Ask(asked) => asked,
                Grown::Ledger(grown) => break grown,
                Grown::NotSettled => return Ok(None),
            };
            survey.find_out(&asked)?;
        };
        let in_mark: Vec<u32> = Mark::natives_of(&grown).map(|record| record.uid).collect();
        let is_there = |uid: u32| uids.binary_search(&uid).is_ok();
        let mut falls_out = Mark::natives_of(&ledger)
            .filter(|record| is_there(record.uid) && !in_mark.contains(&record.uid));
        if kept.settings.bake && !falls_out.all(|record| is_baked(mailbox, &record.into())) {
            return Ok(None);
        }
        let file = grown.encode();
        let mark = Mark::of(&grown, view.messages);
        let Ok(answers) = LedgerFront::of_encoded(file.clone()) else { return Ok(None) };
        let published = control.begin(lock).map_err(PublishError::from);
        match published.and_then(|begun| begun.publish(&file, &mark)) {
            Ok(()) => Ok(Some(Self::from_answers(view, answers))),
            // What was published and not marked is marked by the rules, who say why they cannot.
            Err(PublishError::Unwritten(_) | PublishError::Unmarked(_)) => Ok(None),
        }
    }

    fn from_answers(view: View, answers: LedgerFront) -> Self {
        let (passing, undecided) = (HashMap::new(), Vec::new());
        Self { view, answers, passing, undecided, cursor: Cell::new(0) }
    }

    /// Rule 12: the answers for a user who is on no roster, from the ledger that lies in his INBOX:
    /// it has another name than he, or his line is gone. `None`: there is none, and he is none of
    /// our business.
    pub fn for_stranger(
        stranger: &Stranger,
        transaction: Transaction,
    ) -> Result<Option<Self>, Refusal> {
        let (name, mailbox) = (&stranger.name, transaction.mailbox());
        // Storage that has no place for a ledger has none.
        let Ok(Some(dir)) = mailbox.control_dir() else { return Ok(None) };
        let control = Control::new(dir, name);
        let answers = control.front_of_anybody().map_err(|why| ledger_fault(&control, &why))?;
        let Some(answers) = answers else { return Ok(None) };
        let Some(owner) = stranger.owner(answers.user())? else { return Ok(None) };
        let (view, head) = (transaction.view(), answers.head());
        let counts_on = head.begun_after >= owner.forgotten && head.epoch.goes_on_in(view.epoch);
        if counts_on && matches!(holds(&answers, transaction)?, Holds::All) {
            return Ok(Some(Self::from_answers(view, answers)));
        }
        let (user, path) = (answers.user(), control.ledger_path());
        Err(Refusal::fault(if user == name {
            format!(
                "{name} is on no roster, and {} says what was told to him: build his index and roster \
                 again, or take that file and {} away",
                path.display(),
                control::LOCK,
            )
        } else {
            format!(
                "{name} is on no roster, and his INBOX is that of {user} ({}), who must list its new \
                 messages first: let {user} log in by POP3, or make {name} log in as {user}",
                path.display(),
            )
        }))
    }

    /// What the ledger alone says, for a copy of the mail of a user of whom nothing else is known.
    /// `None`: nothing was listed, or what was does not hold any more.
    pub fn of_listed(uncaptured: &Uncaptured, mailbox: Mailbox) -> Result<Option<Self>, Refusal> {
        let Uncaptured { user, stamps, .. } = uncaptured;
        let control = control_of(user, mailbox)?;
        let answers = match control.front() {
            Ok(answers) => answers,
            // What another was told says nothing of him.
            Err(ControlError::OtherUser { .. }) => None,
            Err(why) => return Err(ledger_fault(&control, &why)),
        };
        let Some(answers) = answers else { return Ok(None) };
        let own = OwnMail::open(mailbox);
        let (view, head) = (own.transaction().view(), answers.head());
        let counts_on = head.begun_after >= stamps.forgotten
            && head.restored >= stamps.restored
            && head.epoch.goes_on_in(view.epoch);
        let holds = counts_on
            && matches!(holds(&answers, own.transaction())?, Holds::All | Holds::AllButNew);
        Ok(holds.then(|| Self::from_answers(view, answers)))
    }

    fn cold(
        kept: &Kept,
        control: &Control,
        transaction: Transaction,
        sizes: Sizes,
        locked: Result<ControlLock, LockError>,
    ) -> Result<(Self, Option<Unwritten>), NoTable> {
        let (mailbox, view) = (transaction.mailbox(), transaction.view());
        let place = control.ledger_path();
        let begun = match &locked {
            Ok(lock) => control.begin(lock).map_err(|why| why.to_string()),
            Err(LockError::Unavailable(why)) => Err(format!(
                "{}: {why}; let the mail's user write it, and the directory it is in",
                control::LOCK
            )),
            Err(LockError::Busy) => unreachable!("the caller has refused it"),
        };
        let ledger = read_ledger(control)?;
        let written = ledger.as_ref().map(|(_, written)| *written);
        let (ledger, mark) = (ledger.map(|(ledger, _)| ledger), control.mark());
        // Where there is no lock either, that is said below.
        if locked.is_ok() && mark.as_ref().is_some_and(|mark| mark.told.is_none()) {
            mailbox.log(
                Level::UIDL_KEEP_LOG_WARNING,
                &format!(
                    "{} beside {}: the mark in it is damaged or cannot be read, and any number may have \
                     been told: new mail gets UIDLs of ours as long as UIDVALIDITY is the same",
                    control::LOCK,
                    place.display(),
                ),
            );
        }
        let memory = Memory { ledger: ledger.as_ref(), mark: mark.as_ref() };
        let prints = FingerprintCache::open(
            control,
            locked.as_ref().ok(),
            view.epoch.uidvalidity,
            view.messages,
        );
        let look = Look { mailbox, sizes, prints };
        let purpose = Purpose::Listing { guarded: true };
        let resolved = resolve(kept, look, purpose, memory, written);
        if let (Err(NoTable::Refused(_)), Ok(lock)) = (&resolved, &locked) {
            // What was read may have been wrong, if Dovecot could not decompress it for instance.
            control.remove_fingerprints(lock);
        }
        let resolution = resolved?;

        let file = resolution.ledger.encode();
        let mark = Mark::of(&resolution.ledger.borrowed(), view.messages);
        // What could not be read again must not be written.
        let table = Self::of(view, file.clone())?.and_passing(&resolution);
        let written = match begun {
            Ok(begun) => begun.publish(&file, &mark),
            Err(why) => Err(PublishError::Unwritten(std::io::Error::other(why))),
        };
        let is_written = !matches!(written, Err(PublishError::Unwritten(_)));
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
                let first = Unwritten { control: control.clone(), file: file.clone(), mark };
                unwritten = ledger.is_none().then_some(first);
            }
        }
        if is_written {
            // What a stamp of the operator adds must not be added again at every login.
            raise_next_uid(mailbox, resolution.first_unspent_uid, view);
        }
        // Where not even a ledger can be written, it is no use to try.
        if kept.settings.bake && is_written {
            let records = resolution.ledger.records.iter().filter(|record| record.uid != 0);
            let records = records.map(Baked::from).filter(|record| !is_baked(mailbox, record));
            bake(mailbox, kept.settings.order, records);
        }
        log_report(mailbox, &resolution.report);
        Ok((table, unwritten))
    }

    /// The answers for doveadm and dsync: what was listed or is kept, made in memory. What was
    /// found out about the messages on the way is not saved: doveadm may be set up otherwise than
    /// POP3, and would keep logins waiting.
    pub fn for_preview(kept: &Kept, mailbox: Mailbox) -> Result<Self, NoTable> {
        let control = control_of(&kept.user, mailbox)?;
        let ledger = read_ledger(&control)?.map(|(ledger, _)| ledger);
        let mark = control.mark();
        let memory = Memory { ledger: ledger.as_ref(), mark: mark.as_ref() };
        let view = OwnMail::open(mailbox).transaction().view();
        let prints = FingerprintCache::open(&control, None, view.epoch.uidvalidity, view.messages);
        let look = Look { mailbox, sizes: Sizes::NotWanted, prints };
        let resolution = resolve(kept, look, Purpose::Preview, memory, Some(SystemTime::now()))?;
        Ok(Self::of(view, resolution.ledger.encode())?.and_passing(&resolution))
    }

    /// Takes the answers from a ledger as it is written.
    fn of(view: View, mut file: Vec<u8>) -> Result<Self, Refusal> {
        let answers = LedgerFront::front_len(&file, file.len() as u64).and_then(|front_len| {
            file.truncate(front_len);
            LedgerFront::read(file)
        });
        let answers = answers.map_err(|why| {
            Refusal::fault(format!(
                "the ledger cannot go on: {why}; take it away and `uidl-keep forget` the user"
            ))
        })?;
        Ok(Self::from_answers(view, answers))
    }

    /// With what holds for this session only.
    fn and_passing(self, resolution: &Resolution) -> Self {
        let passing = resolution.passing.iter().map(|record| {
            let uidl = CString::new(record.uidl.as_bytes()).expect("a Uidl has no NUL");
            (record.uid, (uidl, record.order))
        });
        let undecided = resolution.report.undecided.clone();
        Self { passing: passing.collect(), undecided, ..self }
    }

    /// The answer for a message, if there is one.
    pub fn answer(&self, uid: u32) -> Option<Answer<'_>> {
        if let Some(at) = self.answers.find(uid, self.cursor.get()) {
            self.cursor.set(at + 1);
            let uidl = CStr::from_bytes_with_nul(self.answers.uidl_with_nul(at));
            let uidl = uidl.expect("closed by its only NUL: checked by LedgerFront::read");
            return Some(Answer { uidl, order: self.answers.order_number(at) });
        }
        self.passing.get(&uid).map(|(uidl, order)| Answer { uidl, order: *order })
    }

    /// Whether nothing can be told of the message.
    pub fn is_undecided(&self, uid: u32) -> bool {
        self.undecided.contains(&uid)
    }
}

/// Whether a ledger tells all that a view has.
enum Holds {
    All,
    /// All but messages that came since.
    AllButNew,
    /// Messages are missing in it that were given their UIDs before it was written.
    NotYet,
    /// It is of other UIDs.
    No,
}

/// Whether the ledger has every message of the view, and its UIDs still mean what they meant: on a
/// Maildir by the names in the list of UIDs, where each must be there; elsewhere by the index that
/// says so, and by the name of the last message that was listed (rule 2).
fn holds(answers: &LedgerFront, transaction: Transaction) -> Result<Holds, Refusal> {
    let (mailbox, view, head) = (transaction.mailbox(), transaction.view(), answers.head());
    let uids: Vec<u32> = transaction.uids().collect();
    let (mut guess, mut newest) = (0, Holds::All);
    for &uid in &uids {
        match answers.find(uid, guess) {
            Some(at) => guess = at + 1,
            None if uid < head.epoch.next_uid => return Ok(Holds::NotYet),
            None => newest = Holds::AllButNew,
        }
    }
    if mailbox.uidlist().is_none() {
        let holds =
            head.epoch.index_id == view.epoch.index_id && last_name_agrees(answers, mailbox, &uids);
        return Ok(if holds { newest } else { Holds::No });
    }
    let mut left = uids.iter().copied().peekable();
    let (mut guess, mut agree) = (0, true);
    mailbox
        .for_each_name(|uid, name| {
            // A message of the view that the list lacks agrees with nothing.
            while left.next_if(|&next| next < uid).is_some() {
                agree = false;
            }
            if left.next_if_eq(&uid).is_none() {
                return;
            }
            if let Some(at) = answers.find(uid, guess) {
                guess = at + 1;
                let name = Ledger::name_of_cut(&FileKey::cut_of(name));
                let mut names = answers.names(at).peekable();
                agree &= names.peek().is_none() || names.any(|listed| listed == name);
            }
        })
        .map_err(uidlist_fault)?;
    Ok(if agree && left.next().is_none() { newest } else { Holds::No })
}

/// Whether the last message that was listed still has the name that it had then, or had none.
fn last_name_agrees(answers: &LedgerFront, mailbox: Mailbox, uids: &[u32]) -> bool {
    let last = uids.iter().enumerate().rev().find_map(|(at, &uid)| {
        let found = answers.find(uid, 0)?;
        answers.names(found).next().is_some().then_some((at, found))
    });
    let Some((at, found)) = last else { return true };
    let _frame = Frame::push();
    let mut own = OwnMail::open(mailbox);
    let mut mail = own.turn_to(u32::try_from(at + 1).expect("fewer messages than UIDs"));
    let names = names_of(&mut mail).unwrap_or_default();
    names.into_iter().any(|key| answers.names(found).any(|name| name == Ledger::name_of(key)))
}

fn uidlist_fault(why: String) -> Refusal {
    Refusal::fault(format!("cannot read dovecot-uidlist: {why}"))
}

/// What was baked may be gone: a list of UIDs of before was put back, or a login was ended between
/// its ledger and its bake. The first and the last that was listed tell; the last new ones are not
/// baked yet, where they came to a settled maildrop.
fn bake_anew_if_gone(answers: &LedgerFront, transaction: Transaction, with_order: bool) {
    let mailbox = transaction.mailbox();
    let record = |uid| {
        let at = answers.find(uid, 0)?;
        let (uidl, order) = (answers.uidl(at), answers.order_number(at));
        Some(Baked { uid, uidl, order, names: answers.names(at).collect() })
    };
    let may_wait = |uid: &u32| answers.find(*uid, 0).is_some_and(|at| answers.may_be_unbaked(at));
    let mut uids = transaction.uids();
    let last = transaction.uids().rev().find(|uid| !may_wait(uid));
    let ends = [uids.next().filter(|uid| !may_wait(uid)), last].into_iter().flatten();
    if !ends.filter_map(record).all(|record| is_baked(mailbox, &record)) {
        bake(mailbox, with_order, transaction.uids().filter_map(record));
    }
}

fn control_of(user: &str, mailbox: Mailbox) -> Result<Control, Refusal> {
    match mailbox.control_dir() {
        Ok(Some(dir)) => Ok(Control::new(dir, user)),
        Ok(None) => {
            Err(Refusal::fault("this storage has no control directory to keep a ledger in"))
        }
        Err(why) => Err(Refusal::fault(format!("cannot tell the control directory: {why}"))),
    }
}

/// Whether a refusal that the operator meant is to be logged now.
pub fn is_to_be_said(mailbox: Mailbox) -> bool {
    // No ledger is looked at: nobody's name is needed.
    control_of("", mailbox).map_or(true, |control| control.is_to_be_said())
}

/// Notes how many messages the session has left, for the guard of a mailbox that is made anew.
pub fn note_left(user: &str, mailbox: Mailbox, left: u32) {
    if let Ok(control) = control_of(user, mailbox) {
        control.note_left(left);
    }
}

/// The GUIDs that dsync is told in place of those that messages share, by UID. A mailbox of another
/// server, opened to pull mail from it, has none.
pub fn guids_of_their_own(user: &str, mailbox: Mailbox) -> HashMap<u32, CString> {
    let Ok(control) = control_of(user, mailbox) else { return HashMap::new() };
    let ledger = read_ledger(&control).ok().flatten().map(|(ledger, _)| ledger);
    survey::guids_of_their_own(mailbox, ledger.as_ref())
}

fn ledger_fault(control: &Control, why: &ControlError) -> Refusal {
    let next = match why {
        ControlError::Foreign { expected_uid, .. } => {
            format!("chown it to uid {expected_uid}, if the mailbox was moved to that account")
        }
        ControlError::OtherUser { .. } => "give each user a control directory (CONTROL= in \
             mail_location); where a user was renamed, take it away and `uidl-keep forget` the new name"
            .to_owned(),
        ControlError::Link => "restore the file itself in its place".to_owned(),
        ControlError::Io(_) => "let the mail's user read it".to_owned(),
        ControlError::Ledger(_) => "restore it from a backup, or take it away: what was told is \
             found again as far as its mark and what was baked say"
            .to_owned(),
    };
    Refusal::fault(format!("{}: {why}; {next}", control.ledger_path().display()))
}

fn read_ledger(control: &Control) -> Result<Option<(Ledger, SystemTime)>, Refusal> {
    control.ledger().map_err(|why| ledger_fault(control, &why))
}

/// The index of a user, of which as yet the header was read.
struct UserIndex {
    index: Index<Box<dyn ReadAt>>,
    path: PathBuf,
}

impl UserIndex {
    fn open(kept: &Kept, mailbox: Mailbox) -> Result<Self, Refusal> {
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

    /// What was captured of the user.
    fn captured(&self, user: &str) -> Result<Maildrop, Refusal> {
        let captured = self.index.maildrop(user).map_err(|why| index_fault(&self.path, &why))?;
        captured.ok_or_else(|| {
            index_fault(&self.path, &"its roster names the user, the index does not")
        })
    }
}

fn index_fault(path: &Path, why: &dyn Remedy) -> Refusal {
    Refusal::fault(format!("{}: {why}; {}", path.display(), why.remedy()))
}

/// What the rules are asked with, whatever the messages are.
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
        captured: Option<&'a Maildrop>,
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
        }
    }
}

/// Asks the rules, and finds out what they ask, until they have decided. `written` is when the
/// ledger was, if there is one.
fn resolve(
    kept: &Kept,
    look: Look<'_>,
    purpose: Purpose,
    memory: Memory<'_>,
    written: Option<SystemTime>,
) -> Result<Resolution, NoTable> {
    let mailbox = look.mailbox;
    let mut survey = Survey::begin(look).map_err(uidlist_fault)?;
    let (format, index) = (mailbox.uidl_format(), UserIndex::open(kept, mailbox)?);
    let native = UidlFormat::parse(&format).ok();
    let asker = Asker { kept, index: &index, format: &format, native: native.as_ref(), memory };
    let mut captured = None;
    let decided = loop {
        let situation = asker.situation(&survey, captured.as_ref(), purpose);
        match resolve::resolve(&kept.user, &situation, &survey.messages) {
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
            Refusal::fault(format!("{}: {why}{because}", kept.user)).into()
        })
}

/// Names what a new message is judged by.
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
    let count =
        |provenance: Provenance| report.by_provenance.get(&provenance).copied().unwrap_or_default();
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
