//! One open INBOX: its answers, found once a login and then only looked up.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::rc::Rc;

use super::answer_table::{self, AnswerTable, Unanswered, Unwritten};
use super::events::{self, ListingEvent, ListingKind, Reason};
use super::host::{Level, Mail, Mailbox, Transaction, View};
use super::standing::{RefusedLogin, Standing, Stranger, Uncaptured};
use super::survey::Sizes;

/// What is kept with an INBOX while it is open.
pub struct Inbox {
    standing: Rc<Standing>,
    /// Every table that gave answers. A caller may still hold a UIDL of an older one.
    tables: RefCell<Vec<Rc<AnswerTable>>>,
    /// Why this session is refused. Dovecot tries three times. The reason is found and logged once.
    refusal: RefCell<Option<RefusedLogin>>,
    /// Whether the mailbox changed while we looked. This try fails, and the next may not.
    try_again: Cell<bool>,
    /// The last view that was found stale.
    stale: Cell<Option<View>>,
    /// Whether a mail of ours asks, through the same methods. Then Dovecot answers.
    is_surveying: Cell<bool>,
    /// The ledger that is tried once more when the session is over.
    unwritten: RefCell<Option<Unwritten>>,
    /// By UID, the GUIDs that dsync gets for messages that share theirs with an earlier one.
    guids: OnceCell<HashMap<u32, CString>>,
    /// The listed answers of a user of whom nothing else is known.
    listed: OnceCell<Result<Option<AnswerTable>, RefusedLogin>>,
}

/// What `get_special` is to do.
pub enum FieldReply {
    /// Give this value.
    Value(*const c_char),
    /// Ask the storage.
    AskStorage,
    /// Fail: we could not tell.
    Fail,
}

/// The fields that we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredField {
    /// The UIDL.
    Uidl,
    /// The place in the POP3 order.
    Order,
    /// The GUID: for dsync alone, where several messages have one.
    Guid,
}

impl Inbox {
    /// The state of an INBOX that was just allocated.
    pub fn new(standing: Rc<Standing>) -> Self {
        Self {
            standing,
            tables: RefCell::default(),
            refusal: RefCell::default(),
            try_again: Cell::default(),
            stale: Cell::default(),
            is_surveying: Cell::default(),
            unwritten: RefCell::default(),
            guids: OnceCell::new(),
            listed: OnceCell::new(),
        }
    }

    /// The session is over, and the mailbox about to be closed.
    pub fn close(&self, mailbox: Mailbox) {
        let last = self.tables.borrow().last().cloned();
        if let (Standing::Kept(kept), Some(table)) = (&*self.standing, last) {
            // A rehearsal changes nothing of what clients were told.
            if kept.rehearsal == 0 {
                // No client of this session has seen what came meanwhile.
                let left = table.view.messages.min(mailbox.messages());
                answer_table::note_left(&kept.user, mailbox, left);
            }
            table.bake(kept, mailbox);
        }
    }

    /// The session is over, and the mailbox about to go.
    pub fn end(&self, mailbox: Mailbox) {
        if let Some(unwritten) = self.unwritten.take() {
            unwritten.write(mailbox);
        }
    }

    fn surveying<T>(&self, survey: impl FnOnce() -> T) -> T {
        self.is_surveying.set(true);
        let _surveying = Finally(|| self.is_surveying.set(false));
        survey()
    }

    /// Makes sure, before POP3 lists it, that there are answers for what the transaction sees. Only
    /// here can a client still be refused cleanly.
    pub fn prepare_listing(&self, transaction: Transaction, sizes: Sizes) {
        self.try_again.set(false);
        if self.refusal.borrow().is_some() || self.table_for(transaction.view()).is_some() {
            return;
        }
        let kept = match &*self.standing {
            Standing::Kept(kept) => kept,
            Standing::Refused(refusal) => return self.refuse(transaction.mailbox(), refusal),
            Standing::Uncaptured(uncaptured) => {
                return self.refuse(transaction.mailbox(), &uncaptured.refusal);
            }
            Standing::Inert => return,
            Standing::Stranger(stranger) => return self.prepare_stranger(stranger, transaction),
        };
        if let Some(refusal) = kept.held() {
            return self.refuse(transaction.mailbox(), &refusal);
        }
        let event = ListingEvent::begin(transaction.mailbox());
        match self
            .surveying(|| AnswerTable::for_listing(kept, transaction, sizes, self.stale.get()))
        {
            Ok((table, unwritten)) => {
                event.send(&table.kind, table.view.messages);
                self.tables.borrow_mut().push(Rc::new(table));
                *self.unwritten.borrow_mut() = unwritten;
            }
            Err(Unanswered::Expunged) => self.try_again.set(true),
            Err(Unanswered::Stale) => {
                self.stale.set(Some(transaction.view()));
                self.try_again.set(true);
            }
            Err(Unanswered::Refused(refusal)) => self.refuse(transaction.mailbox(), &refusal),
        }
    }

    /// A stranger's INBOX may be that of somebody who was migrated, under another name.
    fn prepare_stranger(&self, stranger: &Stranger, transaction: Transaction) {
        if let Some(refusal) = stranger.held() {
            return self.refuse(transaction.mailbox(), &refusal);
        }
        match self.surveying(|| AnswerTable::for_stranger(stranger, transaction)) {
            Ok(Some(table)) => {
                let event = ListingEvent::begin(transaction.mailbox());
                event.send(&ListingKind::OtherName, table.view.messages);
                self.tables.borrow_mut().push(Rc::new(table));
            }
            Ok(None) => {}
            Err(refusal) => self.refuse(transaction.mailbox(), &refusal),
        }
    }

    fn refuse(&self, mailbox: Mailbox, refusal: &RefusedLogin) {
        if !refusal.is_meant() || answer_table::is_to_be_said(mailbox) {
            mailbox.log(Level::UIDL_KEEP_LOG_ERROR, &refusal.log);
        }
        events::send_refused(mailbox, refusal.reason);
        *self.refusal.borrow_mut() = Some(refusal.clone());
    }

    /// What the client is told instead of a listing, if it is refused.
    pub fn why_not(&self) -> Option<&'static str> {
        if self.try_again.get() {
            return Some(super::standing::LATER);
        }
        self.refusal.borrow().as_ref().map(|refusal| refusal.client)
    }

    /// Answers for one message.
    pub fn reply(&self, mail: Mail, wanted: AnsweredField) -> FieldReply {
        if self.is_surveying.get() || mail.uid() == 0 {
            return FieldReply::AskStorage;
        }
        let mailbox = mail.mailbox();
        if wanted == AnsweredField::Guid {
            return self.reply_guid(mail);
        }
        if mailbox.is_pop3() {
            return self.reply_to_pop3(mail, wanted);
        }
        if let Standing::Uncaptured(uncaptured) = &*self.standing {
            return self.reply_uncaptured(uncaptured, mail, wanted);
        }
        match self.preview_table(mailbox, mail.uid()) {
            Ok(Some(table)) if table.is_undecided(mail.uid()) => FieldReply::Fail,
            // Do not pass on the storage's UIDL: the rules rejected it, and dsync would make it
            // permanent.
            Ok(Some(table)) => {
                self.reply_from(&table, mail, wanted).unwrap_or(FieldReply::Value(c"".as_ptr()))
            }
            Ok(None) => FieldReply::AskStorage,
            Err(()) => FieldReply::Fail,
        }
    }

    /// Answers for a user of whom nothing that holds was captured. A copy gets what was listed, for
    /// his clients have that. Other stored UIDLs cannot be judged, and are not passed on. Whoever
    /// asks for UIDLs and copies nothing wants to know what clients will see, and they are refused.
    fn reply_uncaptured(
        &self,
        uncaptured: &Uncaptured,
        mail: Mail,
        wanted: AnsweredField,
    ) -> FieldReply {
        let mailbox = mail.mailbox();
        if is_elsewhere(mailbox) {
            return FieldReply::AskStorage;
        }
        if !mailbox.user().is_dsyncing() {
            // This is logged once, also where a POP3 client was just refused.
            if self.refusal.borrow().is_none() {
                mailbox.log(Level::UIDL_KEEP_LOG_ERROR, &uncaptured.refusal.log);
                *self.refusal.borrow_mut() = Some(uncaptured.refusal.clone());
            }
            return FieldReply::Fail;
        }
        let listed = self.listed.get_or_init(|| {
            let table = self.surveying(|| AnswerTable::of_listed(uncaptured, mailbox));
            table.inspect_err(|refusal| self.refuse(mailbox, refusal)).inspect(|_| {
                let why = &uncaptured.refusal.log;
                let line = format!("{why}; its mail is copied, with no UIDL but those listed here");
                mailbox.log(Level::UIDL_KEEP_LOG_WARNING, &line);
            })
        });
        match listed {
            Ok(table) => (table.as_ref())
                .and_then(|table| self.reply_from(table, mail, wanted))
                .unwrap_or(FieldReply::Value(c"".as_ptr())),
            Err(_) => FieldReply::Fail,
        }
    }

    /// Gives each message but the first of those that share a GUID a GUID of its own. dsync takes
    /// them for one message: it sends the first, and copies it on the other side with its UIDL.
    fn reply_guid(&self, mail: Mail) -> FieldReply {
        let mailbox = mail.mailbox();
        let user = match &*self.standing {
            Standing::Kept(kept) if !mailbox.is_pop3() => &kept.user,
            Standing::Uncaptured(uncaptured) if !mailbox.is_pop3() => &uncaptured.user,
            _ => return FieldReply::AskStorage,
        };
        let find = || self.surveying(|| answer_table::guids_of_their_own(user, mailbox));
        let guids = self.guids.get_or_init(find);
        // The GUIDs stay as long as the mailbox, and every mail goes before it.
        guids
            .get(&mail.uid())
            .map_or(FieldReply::AskStorage, |guid| FieldReply::Value(guid.as_ptr()))
    }

    /// Answers a POP3 session. It takes a failed look-up for an absent UIDL, and invents one. So a
    /// message that is not in the table must end the process.
    fn reply_to_pop3(&self, mail: Mail, wanted: AnsweredField) -> FieldReply {
        if self.why_not().is_some() {
            return FieldReply::Fail;
        }
        let newest = self.tables.borrow().last().cloned();
        if let (None, Standing::Stranger(_)) = (&newest, &*self.standing) {
            return FieldReply::AskStorage;
        }
        newest.and_then(|table| self.reply_from(&table, mail, wanted)).unwrap_or_else(|| {
            super::host::die(&format!("UID {} was not there when the session began", mail.uid()))
        })
    }

    fn reply_from(
        &self,
        table: &AnswerTable,
        mail: Mail,
        wanted: AnsweredField,
    ) -> Option<FieldReply> {
        Some(match wanted {
            // The table stays as long as the mailbox, and every mail goes before it.
            AnsweredField::Uidl => FieldReply::Value(table.uidl(mail.uid())?.as_ptr().cast()),
            AnsweredField::Guid => FieldReply::AskStorage,
            AnsweredField::Order => {
                let order = table.order(mail.uid())?;
                if !self.keeps_order() {
                    return Some(FieldReply::AskStorage);
                }
                FieldReply::Value(mail.keep_text(itoa::Buffer::new().format(order)))
            }
        })
    }

    fn keeps_order(&self) -> bool {
        match &*self.standing {
            Standing::Kept(kept) => kept.settings.order,
            // The ledger's user keeps it by default.
            Standing::Stranger(_) | Standing::Uncaptured(_) => true,
            Standing::Inert | Standing::Refused(_) => false,
        }
    }

    fn table_for(&self, view: View) -> Option<Rc<AnswerTable>> {
        self.tables.borrow().iter().rev().find(|table| table.view == view).cloned()
    }

    /// The answers for doveadm and dsync, made in memory: what was listed or is kept. `Ok(None)`:
    /// Dovecot answers for this user.
    fn preview_table(&self, mailbox: Mailbox, uid: u32) -> Result<Option<Rc<AnswerTable>>, ()> {
        let kept = match &*self.standing {
            Standing::Kept(kept) => kept,
            Standing::Inert | Standing::Stranger(_) | Standing::Uncaptured(_) => return Ok(None),
            Standing::Refused(_) if is_elsewhere(mailbox) => return Ok(None),
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
        // A table is good for the messages that were there when it was made.
        if let Some(table) =
            self.tables.borrow().last().filter(|table| uid < table.view.epoch.next_uid)
        {
            return Ok(Some(table.clone()));
        }
        if is_elsewhere(mailbox) {
            return Ok(None);
        }
        match self.surveying(|| AnswerTable::for_preview(kept, mailbox)) {
            Ok(table) => {
                let table = Rc::new(table);
                self.tables.borrow_mut().push(table.clone());
                Ok(Some(table))
            }
            Err(Unanswered::Expunged | Unanswered::Stale) => {
                let log = "a message went while it was looked at: ask again";
                self.refuse(mailbox, &RefusedLogin::fault(Reason::Overtaken, log));
                Err(())
            }
            Err(Unanswered::Refused(refusal)) => {
                self.refuse(mailbox, &refusal);
                Err(())
            }
        }
    }
}

/// Says whether it is not the maildrop but a mailbox of another server, opened to pull mail from
/// it.
fn is_elsewhere(mailbox: Mailbox) -> bool {
    matches!(mailbox.control_dir(), Ok(None))
}

/// Runs the closure when it is dropped, also in a panic.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
