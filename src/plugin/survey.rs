//! Finds out what the rules ask about a mailbox's messages, with a mail of our own.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;

use arrayvec::ArrayVec;

use super::dovecot::mail_fetch_field as field;
use super::host::{Failed, Frame, Level, Mail, Mailbox, OwnMail, Uidlist, View};
use crate::key::{Depth, FileKey, Fingerprinter, Wants, is_guid_a_name};
use crate::ledger::fingerprint_cache::{
    CacheKey, CachedFingerprints, FingerprintCache, MessageKey,
};
use crate::ledger::{Epoch, Ledger, ListedNames, NameHash};
use crate::resolve::{Fact, Message, Need, most_unreadable};
use crate::uidl::Uidl;

/// A message went while we looked. It is no fault, but a reason to look at all again.
#[derive(Debug)]
pub struct Expunged;

/// What a survey starts from.
pub struct SurveyInput<'a> {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Whether sizes are found on the way.
    pub sizes: Sizes,
    /// Whether anything was listed before. Then names in `dovecot-uidlist` tell what it was, and
    /// are taken at once. At a first listing they come with the other names.
    pub was_listed: bool,
    /// The fingerprints from before.
    pub fingerprints: FingerprintCache<'a>,
}

/// Whether the caller will ask Dovecot for each message's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// It will, right after. Sizes that are found while the message is open cost no second reading.
    Wanted,
    /// It will not.
    NotWanted,
}

/// The messages of a mailbox, as far as they were asked about.
pub struct Survey<'a> {
    mail: OwnMail,
    input: SurveyInput<'a>,
    /// `dovecot-uidlist`, where Maildir itself answers from it.
    uidlist: Option<Uidlist>,
    /// What the survey sees.
    pub view: View,
    /// All messages of the view by UID, or the last of them.
    pub messages: Vec<Message>,
    /// How many messages of the view stand before them.
    before: usize,
    /// The first message that could not be read, by its UID, and why.
    pub first_fault: Option<(u32, String)>,
    /// Whether `pop3_uidl_format` cannot be expanded, so that it is said once.
    is_format_bad: bool,
    taken: TakenNames,
}

/// The names that were taken from `dovecot-uidlist`.
struct TakenNames {
    listed: ListedNames,
    /// The place of the message whose name comes next.
    next: usize,
    /// Whether each message before it has the name there that the rules know, and no other.
    are_all: bool,
}

impl TakenNames {
    /// Takes the name of the message at that place, perhaps once more.
    fn take(&mut self, m: usize, message: &mut Message, name: &[u8], hash: NameHash) {
        match message.uidlist_name() {
            Some(before) => self.are_all &= before == hash,
            None => {
                self.are_all &= m == self.next;
                self.next = m + 1;
                self.listed.add(message.uid, FileKey::until_cut(name));
            }
        }
        message.set_uidlist_name(Some(hash));
    }
}

impl<'a> Survey<'a> {
    /// Lists the messages. Only their UIDs are known yet.
    ///
    /// # Errors
    ///
    /// Why the list of a Maildir cannot be read.
    pub fn begin(input: SurveyInput<'a>) -> Result<Self, String> {
        let mail = OwnMail::open(input.mailbox);
        let uids = mail.transaction().uids();
        Self::of(input, mail, 0, uids, ListedNames::default())
    }

    /// The same for those of all messages that have this UID or a higher one. `listed` are the
    /// names of those before.
    ///
    /// # Errors
    ///
    /// As [`Survey::begin`].
    pub fn begin_from(
        input: SurveyInput<'a>,
        all: &[u32],
        from: u32,
        listed: ListedNames,
    ) -> Result<Self, String> {
        let before = all.partition_point(|uid| *uid < from);
        let (mail, uids) = (OwnMail::open(input.mailbox), all[before..].iter().copied());
        Self::of(input, mail, before, uids, listed)
    }

    fn of(
        input: SurveyInput<'a>,
        mail: OwnMail,
        before: usize,
        uids: impl Iterator<Item = u32>,
        listed: ListedNames,
    ) -> Result<Self, String> {
        let uidlist = input.mailbox.uidlist().filter(|_| mail.is_of_maildir());
        let takes_names = input.was_listed || uidlist.is_none();
        let mut messages: Vec<Message> = uids.map(Message::new).collect();
        let mut taken = TakenNames { listed, next: 0, are_all: true };
        let mut left = messages.iter_mut().enumerate().peekable();
        let take = |uid, name: &[u8]| {
            while left.next_if(|(_, message)| message.uid < uid).is_some() {}
            if let Some((m, message)) = left.next_if(|(_, message)| message.uid == uid) {
                taken.take(m, message, name, Ledger::name_of_cut(&FileKey::cut_of(name)));
            }
        };
        match takes_names {
            true => input.mailbox.for_each_name(take)?,
            false => input.mailbox.refresh_names()?,
        }
        Ok(Self {
            view: mail.transaction().view(),
            uidlist,
            mail,
            input,
            messages,
            before,
            first_fault: None,
            is_format_bad: false,
            taken,
        })
    }

    /// Says whether `dovecot-uidlist` tells which UID is which name.
    pub fn is_maildir(&self) -> bool {
        self.input.mailbox.uidlist().is_some()
    }

    /// The names of all messages, and of those before them, as the rules know them. `None`: not all
    /// are of `dovecot-uidlist`.
    pub fn listed_names(&self) -> Option<&ListedNames> {
        let TakenNames { listed, next, are_all } = &self.taken;
        (*are_all && *next == self.messages.len()).then_some(listed)
    }

    /// Finds out what is asked. A message that cannot be read is marked so, and that is an answer.
    /// When so many cannot be read that the rules refuse, the rest is left for the next time that
    /// they ask.
    ///
    /// # Errors
    ///
    /// [`Expunged`]: the survey is out of date.
    pub fn find_out(&mut self, asked: &[(usize, Need)]) -> Result<(), Expunged> {
        let mut unreadable = 0;
        for &(m, need) in asked {
            let list = self.uidlist.filter(|_| need == Need::Names);
            let (message, taken) = (&mut self.messages[m], &mut self.taken);
            if list.is_some_and(|list| take_names(list, m, message, taken)) {
                continue;
            }
            self.mail.renew_if_full();
            let _frame = Frame::push();
            let seq = self.before + m + 1;
            let seq = u32::try_from(seq).expect("fewer messages than sequence numbers");
            let mut mail = self.mail.turn_to(seq);
            let message = &mut self.messages[m];
            let found = match need {
                Need::Names => {
                    self.taken.are_all = false;
                    find_names(&mut mail, message)
                }
                Need::Header => {
                    find_fingerprints(&mut mail, message, Depth::Header, &mut self.input)
                }
                Need::Message => {
                    find_fingerprints(&mut mail, message, Depth::Message, &mut self.input)
                }
                Need::Octets => {
                    mail.virtual_size().map(|size| message.details.octets = Fact::Is(size))
                }
                Need::Received => mail.received().map(|at| message.details.received = Fact::Is(at)),
                Need::Native => {
                    let (uidvalidity, mailbox) = (self.view.epoch.uidvalidity, self.input.mailbox);
                    find_native(&mut mail, message, uidvalidity, mailbox, &mut self.is_format_bad)
                }
            };
            if found.is_err() {
                if mail.is_expunged() {
                    return Err(Expunged);
                }
                message.unreadable = true;
                let fault = || (message.uid, self.input.mailbox.last_error());
                self.first_fault.get_or_insert_with(fault);
                unreadable += 1;
                if unreadable > most_unreadable(self.messages.len()) {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// By UID, a GUID of its own for each message that shares its GUID with an earlier one. Earlier is
/// the one with the lower order number in `ledger`, or where it has not both, the one with the
/// lower UID. So a message keeps the GUID that dsync got when the earlier one goes.
pub fn guids_of_their_own(mailbox: Mailbox, ledger: Option<&Ledger>) -> HashMap<u32, CString> {
    let mut own = OwnMail::open(mailbox);
    let Epoch { uidvalidity, .. } = own.transaction().view().epoch;
    let uids: Vec<u32> = own.transaction().uids().collect();
    let records = ledger.filter(|ledger| ledger.epoch.uidvalidity == uidvalidity);
    let records = records.map_or(&[][..], |ledger| &ledger.records);
    let mut first_of: HashMap<NameHash, u32> = HashMap::new();
    for record in records {
        for &name in &record.names {
            let first = first_of.entry(name).or_insert(record.order);
            *first = record.order.min(*first);
        }
    }
    let (mut seen, mut guids) = (HashSet::new(), HashMap::new());
    for (seq, uid) in (1..).zip(uids) {
        own.renew_if_full();
        let _frame = Frame::push();
        let mut mail = own.turn_to(seq);
        // A message that cannot be read has no GUID that anybody could send.
        let Ok(guid) = mail.special(field::MAIL_FETCH_GUID) else { continue };
        if guid.is_empty() {
            continue;
        }
        let record = records.binary_search_by_key(&uid, |record| record.uid).ok();
        let is_first_listed = record.is_none_or(|at| {
            let first = first_of.get(&Ledger::name_of(FileKey::of_name(guid)));
            first.is_none_or(|first| *first == records[at].order)
        });
        let is_first_here = seen.insert(guid.to_vec());
        let is_shared = if record.is_some() { !is_first_listed } else { !is_first_here };
        if is_shared {
            let mut hasher = blake3::Hasher::new_derive_key("uidl-keep 2026-11 GUID of a copy");
            hasher.update(guid).update(&uid.to_le_bytes());
            let hex = hasher.finalize().to_hex();
            guids.insert(uid, CString::new(&hex[..32]).expect("hex has no NUL"));
        }
    }
    guids
}

/// The names of a message: its base file name, where the storage has one, and its GUID.
///
/// # Errors
///
/// As [`Mail::special`].
pub fn names_of(mail: &mut Mail) -> Result<ArrayVec<FileKey, 2>, Failed> {
    let mut names = ArrayVec::new();
    let file = mail.special(field::MAIL_FETCH_STORAGE_ID)?.to_vec();
    let guid = mail.special(field::MAIL_FETCH_GUID)?;
    if !file.is_empty() {
        names.push(FileKey::of_name(&file));
    }
    // On Maildir the GUID is the base file name, unless dsync brought another.
    if is_guid_a_name(guid) && guid != file {
        names.push(FileKey::of_name(guid));
    }
    Ok(names)
}

fn find_names(mail: &mut Mail, message: &mut Message) -> Result<(), Failed> {
    message.set_names(Fact::Is(names_of(mail)?));
    let stored = Uidl::new(mail.special(field::MAIL_FETCH_UIDL_BACKEND)?).ok();
    message.set_stored(stored, order_of(mail.special(field::MAIL_FETCH_POP3_ORDER)?));
    Ok(())
}

/// Takes from `dovecot-uidlist` what [`find_names`] would find by Maildir's own `get_special`
/// (`maildir-mail.c`), for less. It takes nothing where Dovecot would mend the list first.
fn take_names(uidlist: Uidlist, m: usize, message: &mut Message, taken: &mut TakenNames) -> bool {
    let Some(name) = uidlist.file_name(message.uid) else { return false };
    let name = memchr::memchr(b':', name).map_or(name, |end| &name[..end]);
    let key = FileKey::of_name(name);
    taken.take(m, message, name, Ledger::name_of(key));
    let guid = uidlist.guid(message.uid);
    if name.is_empty() || guid.is_some_and(<[u8]>::is_empty) {
        return false;
    }
    let mut names = ArrayVec::from_iter([key]);
    names.extend(guid.filter(|guid| is_guid_a_name(guid) && *guid != name).map(FileKey::of_name));
    let stored = uidlist.uidl(message.uid).map(|uidl| if uidl.is_empty() { name } else { uidl });
    message.set_names(Fact::Is(names));
    let stored = stored.and_then(|stored| Uidl::new(stored).ok());
    message.set_stored(stored, uidlist.order(message.uid).and_then(order_of));
    true
}

/// The order number that storage has, if that is one.
pub fn order_of(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Takes the fingerprints from before, or reads the message.
fn find_fingerprints(
    mail: &mut Mail,
    message: &mut Message,
    depth: Depth,
    input: &mut SurveyInput<'_>,
) -> Result<(), Failed> {
    let whole = depth == Depth::Message;
    let which = which(message);
    let known =
        input.fingerprints.get(which).copied().filter(|print| print.message.is_read() || !whole);
    let print = match known {
        Some(print) => print,
        None => {
            let printer = Fingerprinter::new(depth);
            let has_origin = input.fingerprints.scope.has_origin;
            let mut printer = if has_origin { printer } else { printer.without_origin() };
            mail.read(whole, |piece| printer.update(piece) == Wants::More)?;
            let found = printer.finish();
            let octets = match input.sizes {
                Sizes::Wanted => Some(mail.virtual_size()?),
                Sizes::NotWanted => None,
            };
            let print = CachedFingerprints {
                header: found.header,
                names_itself: found.names_itself,
                origin: found.origin,
                origin_names_itself: found.origin_names_itself,
                body: found.body,
                message: match depth {
                    Depth::Header => MessageKey::NotRead,
                    Depth::Message => MessageKey::found(found.message),
                },
                octets,
            };
            input.fingerprints.put(which, print);
            print
        }
    };
    message.details.header = Fact::found(print.header);
    message.details.origin = Fact::found(print.origin);
    message.details.names_itself = print.names_itself;
    message.details.origin_names_itself = print.origin_names_itself;
    if whole {
        message.details.body = Fact::found(print.body);
        message.details.message = Fact::found(print.message.get());
    }
    if let Some(octets) = print.octets {
        message.details.octets = Fact::Is(octets);
    }
    Ok(())
}

/// The UID and the name of a message. UIDs may be given anew, names are not.
fn which(message: &Message) -> CacheKey {
    let name = match message.names() {
        Fact::Is(names) => names.first().map(|name| name.cut),
        Fact::NotAsked | Fact::Absent => None,
    };
    (message.uid, name.unwrap_or_default())
}

/// Finds the native UIDL. A format that cannot be expanded gives none. Dovecot alone would refuse
/// the whole listing for it.
fn find_native(
    mail: &mut Mail,
    message: &mut Message,
    uidvalidity: u32,
    mailbox: Mailbox,
    is_format_bad: &mut bool,
) -> Result<(), Failed> {
    let format = mailbox.uidl_format();
    let filename = mail.special(field::MAIL_FETCH_STORAGE_ID)?.to_vec();
    let guid = mail.special(field::MAIL_FETCH_GUID)?.to_vec();
    // Only this one may have to read the message.
    let md5 = if format.contains("%m") || format.contains("md5") {
        mail.special(field::MAIL_FETCH_HEADER_MD5)?.to_vec()
    } else {
        Vec::new()
    };
    message.details.native =
        Fact::found(match mail.native_uidl(uidvalidity, &filename, &guid, &md5) {
            Ok(native) => Uidl::new(native).ok(),
            Err(why) => {
                if !std::mem::replace(is_format_bad, true) {
                    let line = format!("pop3_uidl_format={format}: {why}");
                    mailbox.log(Level::UIDL_KEEP_LOG_WARNING, &line);
                }
                None
            }
        });
    Ok(())
}
