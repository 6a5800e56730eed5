//! What clients were told by this very server, where our plugin answered them: [`ToldHere`].
//!
//! The next migration is from a server that has our ledgers. Its clients hold what the ledger
//! says, and no capture may say anything else. A ledger alone can be behind what clients were told:
//! it was lost, put back from a backup, or could not be written. The mark beside it shows that.
//! Then the maildrop is not captured ([`MemoryFault`]), for the next POP3 login makes the ledger
//! whole again.
//!
//! A message that the ledger does not have was told to nobody while the plugin answered. Where it
//! is sure what Dovecot and the plugin would say of it, it is listed with that UIDL, and else it
//! has none, and the UIDL that Dovecot alone gives is spent.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};

use crate::capture::draft::Remarks;
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::capture::users_files::read_state;
use crate::format::UidlFormat;
use crate::key::FileKey;
use crate::ledger::control::{LEDGER, LOCK};
use crate::ledger::{
    FIRST_ORDER, Ledger, LedgerError, Mark, NameHash, NameHashes, Record, Told, is_rehearsal,
    join_told,
};
use crate::uidl::Uidl;

/// How far an old server may have counted on after its last capture: the margin of rule 6.
const COUNTS_ON: u32 = 65_536;

/// A name that more messages share is none.
const MOST_OF_A_NAME: usize = 64;

/// By whom the clients of a captured maildrop were told what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToldBy {
    /// By the old server itself.
    #[default]
    Server,
    /// By what our plugin, or a bake, stored with the mail; there is no ledger.
    Stored,
    /// By our ledger.
    Ledger {
        /// As [`Ledger::begun_after`].
        begun_after: u64,
        /// As [`Ledger::restored`].
        restored: u64,
    },
    /// By nobody: it was only rehearsed here.
    Nobody,
    /// It could not be captured.
    NotKnown,
}

/// Why nobody can say what clients were told here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryFault {
    /// The ledger is damaged.
    #[error("{LEDGER}: {error}; put it back from a backup, and capture the maildrop again")]
    Damaged {
        /// What is wrong with it.
        error: LedgerError,
    },
    /// The ledger is another user's.
    #[error(
        "{LEDGER}: it is the ledger of {owner:?}: capture the maildrop as the one of that user"
    )]
    OtherUser {
        /// Whose it is.
        owner: String,
    },
    /// There is a mark and no ledger.
    #[error(
        "{LEDGER} is lost, for {LOCK} has its mark: log in here as this user by POP3 and ask for \
         UIDL, which makes it again, and capture the maildrop again"
    )]
    Lost,
    /// The mark knows more than the ledger.
    #[error(
        "{LEDGER} is older than its mark in {LOCK}: log in here as this user by POP3 and ask for \
         UIDL, which makes it whole, and capture the maildrop again"
    )]
    Older,
    /// The mark is damaged.
    #[error(
        "{LOCK} is damaged, so that clients may have been told anything: log in here as this user \
         by POP3 and ask for UIDL, and capture the maildrop again"
    )]
    BadMark,
    /// Only a rehearsal was here.
    #[error(
        "it was rehearsed here and no client has listed it: its clients know what was captured of \
         the server before; name the site that has that with --site"
    )]
    Rehearsed,
}

/// The octets of ledger and mark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryFiles {
    ledger: Option<Vec<u8>>,
    mark: Option<Vec<u8>>,
}

impl MemoryFiles {
    /// Reads both, where they are, from a control directory. Follows no link.
    ///
    /// # Errors
    ///
    /// [`CaptureError`]: one is there and cannot be read.
    pub(in crate::capture) fn read(control: BorrowedFd<'_>) -> Result<Self, CaptureError> {
        let (ledger, mark) = (read_state(control, LEDGER)?, read_state(control, LOCK)?);
        Ok(Self { ledger, mark })
    }

    /// The same from the control directory at `source`. There are none where that is not there.
    ///
    /// # Errors
    ///
    /// [`CaptureError`]: one is there and cannot be read.
    pub fn read_at(source: &Source) -> Result<Self, CaptureError> {
        match source.open() {
            Ok(control) => Self::read(control.as_fd()),
            Err(error) if error.is_absence() => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

/// What the plugin has written down of one maildrop.
#[derive(Debug)]
pub enum Recorded {
    /// Nothing, ever.
    Nothing,
    /// What a rehearsal told to nobody.
    Rehearsal,
    /// What clients were told.
    Told(Box<ToldHere>),
}

/// What clients of one maildrop were told, the last of them included.
#[derive(Debug)]
pub struct ToldHere {
    ledger: Ledger,
    /// Every number told, as ledger and mark know it.
    told: Vec<Told>,
}

/// A mailbox as it is now.
#[derive(Debug, Clone, Default)]
pub struct MailboxNow {
    /// Its UIDVALIDITY. `None`: its list is lost.
    pub uidvalidity: Option<u32>,
    /// The UID that it gives next.
    pub next: u32,
    /// Its messages.
    pub messages: Vec<MessageNow>,
}

/// A message that is there.
#[derive(Debug, Clone, Default)]
pub struct MessageNow {
    /// Its UID; 0 where Dovecot has not given one yet.
    pub uid: u32,
    /// Its file name, and its GUID where that is another.
    pub names: NameHashes,
    /// The UIDL that is stored with it.
    pub stored: Option<Uidl>,
    /// The order number that is stored with it.
    pub order: Option<u32>,
    /// What Dovecot's own format gives. `None`: that cannot be made.
    pub native: Option<Uidl>,
}

/// What clients know of a mailbox that our plugin has answered for.
#[derive(Debug, Default)]
pub struct Known {
    /// The messages that have a UIDL, as places in [`MailboxNow::messages`], in the order of POP3.
    pub listed: Vec<(usize, Uidl)>,
    /// The messages that have none, although Dovecot has seen them.
    pub unlisted: Vec<usize>,
    /// UIDLs that clients may hold for something else.
    pub spent: Vec<Uidl>,
    /// The first number that was not told under the mailbox's UIDVALIDITY.
    pub next: u32,
    /// The numbers that were told under others.
    pub told: Vec<Told>,
}

/// How to see that a format gives the same UIDL only to one message of all times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NativeForm {
    /// It has UID and UIDVALIDITY.
    Numbered,
    /// It has the message's own name.
    Named,
    /// It has neither, so that the plugin never gives it.
    Ambiguous,
}

/// The form of a `pop3_uidl_format`.
fn native_form(format: &UidlFormat) -> NativeForm {
    if format.has_guid() || format.has_file_name() {
        NativeForm::Named
    } else if format.is_counting() && format.has_uidvalidity() {
        NativeForm::Numbered
    } else {
        NativeForm::Ambiguous
    }
}

/// Remarks on a maildrop that was captured by its ledger; `unlisted` are the UIDs of messages that
/// have no UIDL.
pub(in crate::capture) fn say_told_here(remarks: &mut Remarks, unlisted: &[u32]) {
    remarks.fact(format!("{LEDGER} says what clients were told here"));
    if let Some(first) = unlisted.iter().min() {
        remarks.note(format!(
            "{} messages have no unique-id (first: uid {first}): no POP3 client has listed them \
             while our plugin answered here, and what Dovecot alone gives them is spent; if \
             clients of this maildrop had them without our plugin, let the user log in by POP3 \
             with it, and capture the maildrop again",
            unlisted.len()
        ));
    }
}

impl Recorded {
    /// Reads what the files say of the maildrop of one who has one of these names.
    ///
    /// # Errors
    ///
    /// [`MemoryFault`]: could not tell. [`MemoryFault::Rehearsed`] is none of them here.
    pub fn of(files: &MemoryFiles, users: &[&str]) -> Result<Self, MemoryFault> {
        let mark = files.mark.as_deref().and_then(Mark::of_file);
        let ledger = files.ledger.as_deref().map(Ledger::decode).transpose();
        let ledger = ledger.map_err(|error| MemoryFault::Damaged { error })?;
        if let Some(owner) = ledger.as_ref().map(|ledger| &ledger.user) {
            if !users.contains(&owner.as_str()) {
                return Err(MemoryFault::OtherUser { owner: owner.clone() });
            }
        }
        if is_rehearsal(ledger.as_ref(), mark.as_ref()) {
            return Ok(Self::Rehearsal);
        }
        let of_mark = match &mark {
            Some(Mark { told: None, .. }) => return Err(MemoryFault::BadMark),
            Some(Mark { told: Some(told), epoch, .. }) => [&told[..], &[epoch.told()]].concat(),
            None => Vec::new(),
        };
        let ledger = match (ledger, &mark) {
            (Some(ledger), _) => ledger,
            (None, Some(_)) => return Err(MemoryFault::Lost),
            (None, None) => return Ok(Self::Nothing),
        };
        let age = (ledger.begun_after, ledger.next_order);
        if mark.is_some_and(|mark| (mark.begun_after, mark.next_order) > age) {
            return Err(MemoryFault::Older);
        }
        let mut told = ledger.told.clone();
        join_told(&mut told, of_mark.into_iter().chain([ledger.epoch.told()]));
        Ok(Self::Told(Box::new(ToldHere { ledger, told })))
    }
}

/// The names of a message as a record has them: `file` or GUID first, and the GUID where that is
/// another.
pub fn names_of(file: Option<&[u8]>, guid: Option<&[u8]>) -> NameHashes {
    let hash = |name: &[u8]| Ledger::name_of_cut(&FileKey::cut_of(name));
    let mut names: NameHashes = file.map(hash).into_iter().collect();
    if let Some(guid) = guid.map(hash).filter(|guid| !names.contains(guid)) {
        names.push(guid);
    }
    names
}

impl ToldHere {
    /// By whom clients were told.
    pub fn told_by(&self) -> ToldBy {
        let Ledger { begun_after, restored, .. } = self.ledger;
        ToldBy::Ledger { begun_after, restored }
    }

    /// Says what clients know of the mailbox as it is now. `format` makes the native UIDLs.
    pub fn known(&self, mailbox: &MailboxNow, format: &UidlFormat) -> Known {
        let form = native_form(format);
        let records = &self.ledger.records;
        let (of_message, has_message) = self.assign(mailbox);
        let mut known: HashSet<&Uidl> = records.iter().map(|record| &record.uidl).collect();
        let mut borne: HashMap<&Uidl, usize> = HashMap::new();
        for uidl in mailbox.messages.iter().filter_map(|message| message.stored.as_ref()) {
            *borne.entry(uidl).or_default() += 1;
        }
        let mut plan = Known::default();
        let mut placed: Vec<(u8, u32, u32, usize, &Uidl)> = Vec::new();
        for (at, message) in mailbox.messages.iter().enumerate() {
            if let Some(record) = of_message[at].map(|record| &records[record]) {
                placed.push((0, record.order, message.uid, at, &record.uidl));
                continue;
            }
            if message.uid == 0 {
                continue;
            }
            let stored = message.stored.as_ref();
            match (stored, &message.native) {
                (Some(uidl), _)
                    if borne[uidl] == 1
                        && !self.is_told_number(uidl, message.uid, mailbox, format)
                        && known.insert(uidl) =>
                {
                    let order = message.order.unwrap_or(u32::MAX);
                    let class = if (FIRST_ORDER..u32::MAX).contains(&order) { 0 } else { 1 };
                    placed.push((class, order, message.uid, at, uidl));
                }
                (None, Some(uidl))
                    if self.would_be_told(message.uid, mailbox, form)
                        && !borne.contains_key(uidl)
                        && known.insert(uidl) =>
                {
                    placed.push((2, 0, message.uid, at, uidl));
                }
                _ => {
                    plan.unlisted.push(at);
                    plan.spent.extend(message.native.iter().chain(stored).cloned());
                }
            }
        }
        placed.sort_by_key(|&(class, order, uid, at, _)| (class, order, uid, at));
        plan.listed = placed.into_iter().map(|(.., at, uidl)| (at, uidl.clone())).collect();
        let gone = (0..records.len()).filter(|&at| !has_message[at]);
        plan.spent.extend(gone.map(|at| records[at].uidl.clone()));
        let is_of_now = |told: &&Told| mailbox.uidvalidity == Some(told.uidvalidity);
        plan.next = mailbox.next.max(self.told_below(mailbox));
        plan.told = self.told.iter().filter(|told| !is_of_now(told)).copied().collect();
        plan
    }

    /// The first UID that was not told under the mailbox's UIDVALIDITY.
    fn told_below(&self, mailbox: &MailboxNow) -> u32 {
        let of_now = self.told.iter().filter(|t| mailbox.uidvalidity == Some(t.uidvalidity));
        of_now.map(|told| told.below).max().unwrap_or(0)
    }

    /// Says whether a UIDL is made of a number that was told, and not of the message's own.
    fn is_told_number(
        &self,
        uidl: &Uidl,
        own_uid: u32,
        mailbox: &MailboxNow,
        format: &UidlFormat,
    ) -> bool {
        self.told.iter().any(|told| {
            let number = format.number_of(uidl.as_bytes(), told.uidvalidity);
            let is_own = mailbox.uidvalidity == Some(told.uidvalidity) && number == Some(own_uid);
            number.is_some_and(|number| number < told.below) && !is_own
        })
    }

    /// Says whether the plugin, and Dovecot without it, surely give a message with this UID that is
    /// on no record its native UIDL.
    fn would_be_told(&self, uid: u32, mailbox: &MailboxNow, form: NativeForm) -> bool {
        let is_new = uid >= self.told_below(mailbox);
        let old_server_is_far = match self.ledger.index.next {
            0 => true,
            next => uid >= next.saturating_add(COUNTS_ON),
        };
        match (form, self.ledger.native_from) {
            (NativeForm::Ambiguous, _) => false,
            (NativeForm::Numbered, Some(from))
                if self.ledger.unclaimed.is_empty() && self.holds_by_number(mailbox) =>
            {
                is_new && uid >= from
            }
            (NativeForm::Numbered, _) => is_new && old_server_is_far,
            (NativeForm::Named, _) => is_new,
        }
    }

    fn holds_by_number(&self, mailbox: &MailboxNow) -> bool {
        let epoch = self.ledger.epoch;
        mailbox.uidvalidity == Some(epoch.uidvalidity) && epoch.next_uid <= mailbox.next
    }

    /// Finds the messages of the records (rule 2): by UID, where UIDs hold, and else by name. A
    /// message that was told of and went may have come back under one of its names. Returns the
    /// record of each message, and whether each record has one.
    fn assign(&self, mailbox: &MailboxNow) -> (Vec<Option<usize>>, Vec<bool>) {
        let records = &self.ledger.records;
        let mut of_message = vec![None; mailbox.messages.len()];
        let mut has_message = vec![false; records.len()];
        let mut hold = self.holds_by_number(mailbox);
        if hold {
            let uids = (0..records.len()).filter(|&at| records[at].uid != 0);
            let by_uid: HashMap<u32, usize> = uids.map(|at| (records[at].uid, at)).collect();
            for (at, message) in mailbox.messages.iter().enumerate() {
                let Some(&record) = by_uid.get(&message.uid) else { continue };
                hold &= agree(&records[record].names, &message.names);
                (of_message[at], has_message[record]) = (Some(record), true);
            }
        }
        if !hold {
            of_message.fill(None);
            has_message.fill(false);
        }
        let mut bearers: HashMap<NameHash, Vec<usize>> = HashMap::new();
        let mut by_place: Vec<usize> = (0..mailbox.messages.len()).collect();
        by_place.sort_by_key(|&at| (mailbox.messages[at].uid.wrapping_sub(1), at));
        for at in by_place.into_iter().filter(|&at| of_message[at].is_none()) {
            for name in &mailbox.messages[at].names {
                bearers.entry(*name).or_default().push(at);
            }
        }
        bearers.retain(|_, bearers| bearers.len() <= MOST_OF_A_NAME);
        // Those that were there at the last listing go first, in their order.
        let mut waiting: Vec<usize> = (0..records.len())
            .filter(|&at| !has_message[at] && (!hold || records[at].provenance.is_kept()))
            .collect();
        waiting.sort_by_key(|&at| (records[at].uid == 0, records[at].order));
        for is_enough in [bears_all, bears_one] {
            for &record in &waiting {
                if has_message[record] {
                    continue;
                }
                let may_be = records[record].names.iter().flat_map(|name| bearers.get(name));
                let found = may_be.flatten().find(|&&at| {
                    of_message[at].is_none()
                        && is_enough(&records[record], &mailbox.messages[at].names)
                });
                if let Some(&at) = found {
                    (of_message[at], has_message[record]) = (Some(record), true);
                }
            }
        }
        (of_message, has_message)
    }
}

/// Says whether no name is against it that both are of one message.
fn agree(one: &NameHashes, other: &NameHashes) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|name| other.contains(name))
}

fn bears_all(record: &Record, names: &NameHashes) -> bool {
    !record.names.is_empty() && record.names.iter().all(|name| names.contains(name))
}

fn bears_one(record: &Record, names: &NameHashes) -> bool {
    record.names.iter().any(|name| names.contains(name))
}
