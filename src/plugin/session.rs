//! One open INBOX: its answers, found once a login and then only looked up.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::bake::bake;
use super::host::{Level, Mail, Mailbox, Transaction, View};
use super::standing::{Kept, Refusal, Standing};
use super::survey::{Expunged, Sizes, Survey};
use crate::control::{self, Control, LockError};
use crate::format::UidlFormat;
use crate::index::Index;
use crate::ledger::{Answers, How, Ledger, Record};
use crate::maildrop::Maildrop;
use crate::map::Mapped;
use crate::read_at::ReadAt;
use crate::resolve::{self, Outcome, Purpose, Report, Resolution, Situation};
use crate::roster::Gate;

/// How long a login waits for another that resolves the same mailbox.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is kept with an INBOX while it is open.
pub struct Inbox {
    standing: Rc<Standing>,
    /// Every table that answers were given from: a caller may still hold a UIDL of an older one.
    tables: RefCell<Vec<Rc<Table>>>,
    /// Why this session is refused. Dovecot tries three times; the reason is found and logged once.
    refusal: RefCell<Option<Refusal>>,
    /// A message went while we looked: this try fails, the next may not.
    try_again: Cell<bool>,
    /// Our own mails ask through the same methods: what they ask is for Dovecot to answer.
    is_surveying: Cell<bool>,
}

/// The answers for one view of the mailbox. Nothing in it changes or moves.
struct Table {
    view: View,
    answers: Answers,
    /// For this session only.
    passing: HashMap<u32, (CString, u32)>,
    /// Of a look: messages of which nothing can be told.
    unreadable: Vec<u32>,
    /// Where to look first: a listing goes up by UID.
    cursor: Cell<usize>,
}

/// What is answered for a message.
struct Answer<'a> {
    uidl: &'a CStr,
    order: u32,
}

/// Why there is no table.
enum NoTable {
    Refused(Refusal),
    Expunged,
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

/// What `get_special` is to do.
pub enum Reply {
    /// Give this value.
    Value(*const c_char),
    /// Ask the storage.
    AskStorage,
    /// Fail: could not tell.
    Fail,
}

/// Which of the two fields that we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The UIDL.
    Uidl,
    /// The place in the POP3 order.
    Order,
}

impl Inbox {
    /// The state of an INBOX that was just allocated.
    pub fn new(standing: Rc<Standing>) -> Self {
        Self {
            standing,
            tables: RefCell::default(),
            refusal: RefCell::default(),
            try_again: Cell::default(),
            is_surveying: Cell::default(),
        }
    }

    /// Makes sure that there are answers for what the transaction sees, before POP3 lists it: here,
    /// and only here, a client can still be refused cleanly.
    pub fn prepare_listing(&self, transaction: Transaction, sizes: Sizes) {
        self.try_again.set(false);
        if self.refusal.borrow().is_some() || self.table_for(transaction.view()).is_some() {
            return;
        }
        let kept = match &*self.standing {
            Standing::Kept(kept) => kept,
            Standing::Refused(refusal) => return self.refuse(transaction.mailbox(), refusal),
            Standing::Inert => return,
        };
        if let Some(refusal) = kept.held() {
            return self.refuse(transaction.mailbox(), &refusal);
        }
        match self.listing_table(kept, transaction, sizes) {
            Ok(table) => self.tables.borrow_mut().push(Rc::new(table)),
            Err(NoTable::Expunged) => self.try_again.set(true),
            Err(NoTable::Refused(refusal)) => self.refuse(transaction.mailbox(), &refusal),
        }
    }

    fn refuse(&self, mailbox: Mailbox, refusal: &Refusal) {
        mailbox.log(Level::UIDL_KEEP_LOG_ERROR, &refusal.log);
        *self.refusal.borrow_mut() = Some(refusal.clone());
    }

    /// What the client is told instead of a listing, if it must be told something.
    pub fn why_not(&self) -> Option<&'static str> {
        if self.try_again.get() {
            return Some(super::standing::LATER);
        }
        self.refusal.borrow().as_ref().map(|refusal| refusal.client)
    }

    /// Answers for one message.
    pub fn reply(&self, mail: Mail, wanted: Wanted) -> Reply {
        if self.is_surveying.get() || mail.uid() == 0 {
            return Reply::AskStorage;
        }
        let mailbox = mail.mailbox();
        if mailbox.is_pop3() {
            return self.reply_to_pop3(mail, wanted);
        }
        match self.look_table(mailbox, mail.uid()) {
            Ok(Some(table)) if table.unreadable.contains(&mail.uid()) => Reply::Fail,
            // What the storage holds for a message that is not in the table was found wanting: told
            // on, it would be what a client is told once we are gone.
            Ok(Some(table)) => {
                self.reply_from(&table, mail, wanted).unwrap_or(Reply::Value(c"".as_ptr()))
            }
            Ok(None) => Reply::AskStorage,
            Err(()) => Reply::Fail,
        }
    }

    /// In a POP3 session a failed lookup is taken for an absent UIDL, and one is invented: what is not
    /// in the table must end the process.
    fn reply_to_pop3(&self, mail: Mail, wanted: Wanted) -> Reply {
        if self.why_not().is_some() {
            return Reply::Fail;
        }
        let newest = self.tables.borrow().last().cloned();
        newest.and_then(|table| self.reply_from(&table, mail, wanted)).unwrap_or_else(|| {
            super::host::die(&format!("UID {} was not there when the session began", mail.uid()))
        })
    }

    fn reply_from(&self, table: &Table, mail: Mail, wanted: Wanted) -> Option<Reply> {
        let answer = table.answer(mail.uid())?;
        Some(match wanted {
            // The table stays as long as the mailbox, and every mail goes before it.
            Wanted::Uidl => Reply::Value(answer.uidl.as_ptr()),
            Wanted::Order if !self.keeps_order() => Reply::AskStorage,
            Wanted::Order => {
                let mut digits = *b"4294967295\0";
                Reply::Value(mail.keep_text(decimal(answer.order, &mut digits)))
            }
        })
    }

    fn keeps_order(&self) -> bool {
        matches!(&*self.standing, Standing::Kept(kept) if kept.settings.order)
    }

    fn table_for(&self, view: View) -> Option<Rc<Table>> {
        self.tables.borrow().iter().rev().find(|table| table.view == view).cloned()
    }

    /// The answers for POP3, which are for ever.
    fn listing_table(
        &self,
        kept: &Kept,
        transaction: Transaction,
        sizes: Sizes,
    ) -> Result<Table, NoTable> {
        let mailbox = transaction.mailbox();
        let control = control_of(mailbox)?;
        let view = transaction.view();
        if let Some(table) = warm_table(&control, transaction)? {
            return Ok(table);
        }
        let lock = match control.lock(PATIENCE) {
            Ok(lock) => Some(lock),
            Err(LockError::Busy) => {
                let log = format!("{}: {}", control.ledger_path().display(), LockError::Busy);
                return Err(Refusal::fault(log).into());
            }
            // Nothing can be written: what is answered can be derived again at the next login.
            Err(LockError::Unavailable(why)) => {
                mailbox.log(
                    Level::UIDL_KEEP_LOG_WARNING,
                    &format!(
                        "{}: cannot be locked ({why}): served without a ledger",
                        control.ledger_path().display(),
                    ),
                );
                None
            }
        };
        // Another login may have resolved it while we waited.
        if let Some(table) = warm_table(&control, transaction)? {
            return Ok(table);
        }
        let ledger = read_ledger(&control)?;
        let (captured, is_final) = read_captured(kept, mailbox)?;
        if !is_final && is_new_day(ledger.as_ref().map(|(_, written)| *written)) {
            mailbox.log(Level::UIDL_KEEP_LOG_WARNING, &format!(
                "the index of {} is not final: build it with --final once the old server is off",
                kept.user,
            ));
        }
        let purpose = Purpose::Listing { guarded: kept.gate == Gate::Guarded };
        let ledger = ledger.map(|(ledger, _)| ledger);
        let resolution =
            self.resolve(kept, mailbox, purpose, sizes, &captured, is_final, ledger.as_ref())?;
        let file = resolution.ledger.encode();
        let published = lock.as_ref().map_or(Ok(()), |lock| control.publish(lock, &file));
        if let Err(why) = published {
            mailbox.log(Level::UIDL_KEEP_LOG_WARNING, &format!(
                "{}: cannot be written ({why}): the answers will be derived again at the next login",
                control.ledger_path().display(),
            ));
        }
        raise_next_uid(mailbox, &captured, view);
        if kept.settings.bake && lock.is_some() {
            bake(
                mailbox,
                kept.settings.order,
                resolution.news.iter().map(|&r| &resolution.ledger.records[r]),
            );
        }
        log_report(mailbox, &resolution.report, ledger.is_none());
        Table::new(view, file, &resolution.passing)
            .map_err(|why| Refusal::fault(format!("bug: {why}")).into())
    }

    /// The answers for doveadm and dsync: what was listed or is kept, made in memory. `Ok(None)`: for
    /// this user Dovecot answers.
    fn look_table(&self, mailbox: Mailbox, uid: u32) -> Result<Option<Rc<Table>>, ()> {
        let kept = match &*self.standing {
            Standing::Kept(kept) => kept,
            Standing::Inert => return Ok(None),
            Standing::Refused(refusal) => {
                if self.refusal.borrow().is_none() {
                    self.refuse(mailbox, refusal);
                }
                return Err(());
            }
        };
        if self.refusal.borrow().is_some() {
            return Err(());
        }
        // They hold for what was there when they were made.
        if let Some(table) = self.tables.borrow().last().filter(|table| uid < table.view.next_uid) {
            return Ok(Some(table.clone()));
        }
        // A mailbox of another server, opened to pull mail from it: not the maildrop.
        if let Ok(None) = mailbox.control_dir() {
            return Ok(None);
        }
        let looked = self.look(kept, mailbox);
        match looked {
            Ok(table) => {
                let table = Rc::new(table);
                self.tables.borrow_mut().push(table.clone());
                Ok(Some(table))
            }
            Err(NoTable::Expunged) => Err(()),
            Err(NoTable::Refused(refusal)) => {
                self.refuse(mailbox, &refusal);
                Err(())
            }
        }
    }

    fn look(&self, kept: &Kept, mailbox: Mailbox) -> Result<Table, NoTable> {
        let control = control_of(mailbox)?;
        let ledger = read_ledger(&control)?.map(|(ledger, _)| ledger);
        let (captured, is_final) = read_captured(kept, mailbox)?;
        let sizes = Sizes::NotWanted;
        let resolution = self.resolve(
            kept,
            mailbox,
            Purpose::Look,
            sizes,
            &captured,
            is_final,
            ledger.as_ref(),
        )?;
        let view = super::host::OwnMail::open(mailbox).transaction().view();
        let table = Table::new(view, resolution.ledger.encode(), &[]);
        let mut table = table.map_err(|why| Refusal::fault(format!("bug: {why}")))?;
        table.unreadable = resolution.report.unreadable;
        Ok(table)
    }

    /// Asks the rules, and finds out what they ask, until they have decided.
    #[allow(clippy::too_many_arguments)]
    fn resolve(
        &self,
        kept: &Kept,
        mailbox: Mailbox,
        purpose: Purpose,
        sizes: Sizes,
        captured: &Maildrop,
        is_final: bool,
        ledger: Option<&Ledger>,
    ) -> Result<Resolution, NoTable> {
        self.is_surveying.set(true);
        let _surveying = Finally(|| self.is_surveying.set(false));
        let mut survey = Survey::begin(mailbox, sizes);
        let situation = Situation {
            captured,
            is_final,
            ledger,
            uidvalidity: survey.view.uidvalidity,
            next_uid: survey.view.next_uid,
            keys: kept.settings.keys,
            purpose,
        };
        loop {
            match resolve::resolve(&kept.user, &situation, &survey.messages) {
                Outcome::Ask(asked) => survey.find_out(&asked)?,
                Outcome::Resolved(resolution) => return Ok(resolution),
                Outcome::Refused(refusal) => {
                    return Err(Refusal::fault(format!("{}: {refusal}", kept.user)).into());
                }
            }
        }
    }
}

impl Table {
    /// Takes the answers from a ledger as it is written.
    fn new(
        view: View,
        mut file: Vec<u8>,
        passing: &[Record],
    ) -> Result<Self, crate::ledger::Error> {
        let front_len = Answers::front_len(&file, file.len() as u64)?;
        file.truncate(front_len);
        let passing = passing.iter().map(|record| {
            let uidl = CString::new(record.uidl.as_bytes()).expect("a Uidl has no NUL");
            (record.uid, (uidl, record.order))
        });
        Ok(Self {
            view,
            answers: Answers::read(file)?,
            passing: passing.collect(),
            unreadable: Vec::new(),
            cursor: Cell::new(0),
        })
    }

    fn answer(&self, uid: u32) -> Option<Answer<'_>> {
        if let Some(at) = self.answers.find(uid, self.cursor.get()) {
            self.cursor.set(at + 1);
            let uidl = CStr::from_bytes_with_nul(self.answers.uidl_with_nul(at));
            let uidl = uidl.expect("closed by its only NUL: checked by Answers::read");
            return Some(Answer { uidl, order: self.answers.order_number(at) });
        }
        self.passing.get(&uid).map(|(uidl, order)| Answer { uidl, order: *order })
    }
}

/// The answers of the ledger alone, if it has all: neither index nor mail is looked at.
fn warm_table(control: &Control, transaction: Transaction) -> Result<Option<Table>, NoTable> {
    let answers = control.answers().map_err(|why| ledger_fault(control, &why))?;
    let view = transaction.view();
    let Some(answers) = answers.filter(|answers| answers.uidvalidity() == view.uidvalidity) else {
        return Ok(None);
    };
    let mut guess = 0;
    for uid in transaction.uids() {
        match answers.find(uid, guess) {
            Some(at) => guess = at + 1,
            None => return Ok(None),
        }
    }
    Ok(Some(Table {
        view,
        answers,
        passing: HashMap::new(),
        unreadable: Vec::new(),
        cursor: Cell::new(0),
    }))
}

fn control_of(mailbox: Mailbox) -> Result<Control, Refusal> {
    match mailbox.control_dir() {
        Ok(Some(dir)) => Ok(Control::new(dir)),
        Ok(None) => {
            Err(Refusal::fault("this storage has no control directory to keep a ledger in"))
        }
        Err(why) => Err(Refusal::fault(format!("cannot tell the control directory: {why}"))),
    }
}

fn ledger_fault(control: &Control, why: &control::Error) -> Refusal {
    Refusal::fault(format!(
        "{}: {why}; restore it, or take it away if this mailbox was never listed",
        control.ledger_path().display(),
    ))
}

fn read_ledger(control: &Control) -> Result<Option<(Ledger, SystemTime)>, Refusal> {
    control.ledger().map_err(|why| ledger_fault(control, &why))
}

/// What was captured of the user, and whether that is all.
fn read_captured(kept: &Kept, mailbox: Mailbox) -> Result<(Maildrop, bool), Refusal> {
    let path = kept.site.paths(&kept.user).map(|paths| paths.index).unwrap_or_default();
    let fault = |why: &dyn std::fmt::Display| {
        Refusal::fault(format!("{}: {why}; build and install it again", Path::display(&path)))
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

/// So that no later message gets a number that the old server gave, also when we are gone.
fn raise_next_uid(mailbox: Mailbox, captured: &Maildrop, view: View) {
    let Ok(own) = UidlFormat::parse(&mailbox.uidl_format()) else { return };
    let first = resolve::first_unspent_uid(captured, &own, view.uidvalidity);
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
    if !report.conflicts.is_empty() {
        let (count, first) = (report.conflicts.len(), report.conflicts[0]);
        mailbox.log(Level::UIDL_KEEP_LOG_WARNING, &format!(
            "{count} messages have names that disagree, the first is UID {first}: they are treated \
             as new"
        ));
    }
}

/// `number` in decimal, written into `digits` from its end.
fn decimal(mut number: u32, digits: &mut [u8; 11]) -> &CStr {
    let mut at = 10;
    digits[at] = 0;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return CStr::from_bytes_with_nul(&digits[at..]).expect("one NUL, at the end");
        }
    }
}

/// Runs when it goes, also in a panic.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_prints_every_length() {
        for number in [0, 7, 10, 4_294_967, u32::MAX] {
            let mut digits = [b'x'; 11];
            assert_eq!(decimal(number, &mut digits).to_str().unwrap(), number.to_string());
        }
    }
}
