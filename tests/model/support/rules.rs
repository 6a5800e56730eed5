//! A new server as the rules see it: the mail in the maildrop, the capture, the records, and
//! everything of it that can be lost.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use arrayvec::ArrayVec;
use uidl_keep::format::{Fields, UidlFormat};
use uidl_keep::key::{FileKey, Fingerprint};
use uidl_keep::ledger::{
    AnyLedger, Epoch, Ledger, LedgerFront, Mark, NameHash, Record, UnclaimedKeys,
};
use uidl_keep::maildrop::{Capture, CapturedMaildrop, Entry, Maildrop, Name, State};
use uidl_keep::resolve::{
    Fact, Grown, Match, Memory, Message, Need, Outcome, Purpose, Resolution, Situation, Stamps,
    Undecidable, grow, most_unreadable, resolve,
};
use uidl_keep::uidl::Uidl;

/// Headers from here on do not name their message.
pub const NAMELESS: u8 = 240;

/// Headers from here on are of no kind at all: there is none.
pub const HEADERLESS: u8 = 250;

/// The time of the first capture, in seconds.
pub const CAPTURED_AT: u64 = 100 * DAY;

/// A day, in seconds.
pub const DAY: u64 = 86_400;

/// A message as it is, whatever anybody knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mail {
    pub name: String,
    pub header: u8,
    pub body: u8,
    pub octets: u64,
    /// It came by way of a relay, which added a line to its header.
    pub relayed: u8,
    /// The time at which it arrived at the server that it is on, in seconds.
    pub received: u64,
}

/// A message that arrived long before anybody thought of moving.
pub fn mail(name: &str, header: u8, body: u8) -> Mail {
    let octets = 1000 * u64::from(body) + 100;
    Mail { name: name.to_owned(), header, body, octets, relayed: 0, received: DAY }
}

impl Mail {
    /// The parts that a user sees of it.
    pub fn content(&self) -> (u8, u8) {
        (self.header, self.body)
    }

    fn print(&self, last: [u8; 3]) -> Fingerprint {
        let mut print = [self.header; 16];
        print[..3].copy_from_slice(&last);
        Fingerprint(print)
    }

    pub fn header_print(&self) -> Option<Fingerprint> {
        (self.header < HEADERLESS).then(|| self.print([1, 0, self.relayed]))
    }

    fn origin_print(&self) -> Option<Fingerprint> {
        (self.header < HEADERLESS).then(|| self.print([2, 0, 0]))
    }

    pub fn message_print(&self) -> Fingerprint {
        self.print([3, self.body, self.relayed])
    }

    fn body_print(&self) -> Fingerprint {
        Fingerprint([self.body; 16])
    }

    /// A relay writes a dated line.
    pub fn names_itself(&self) -> bool {
        self.header < NAMELESS || self.relayed > 0
    }
}

/// A message and where it lies on the new server.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub uid: u32,
    pub mail: Mail,
    /// Its name: Maildir's base file name, or dbox's GUID; or both, with a space between them; or
    /// none.
    pub name: String,
    /// The `P` that Dovecot's storage has.
    pub stored: Option<Uidl>,
    /// The `O` that it has.
    pub stored_order: Option<u32>,
    pub readable: bool,
}

/// The way in which the new server keeps mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Names cost nothing, and what is told is written beside them.
    Maildir,
    /// Names lie with the mail; what is told is written nowhere.
    Dbox,
}

/// The files that can be written beside the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Writable,
    /// Mail comes, but a ledger cannot be written.
    Full,
}

/// A new server, and everything that a POP3 login does there.
#[derive(Clone)]
pub struct Server {
    pub captured: Maildrop,
    pub is_final: bool,
    pub stamps: Stamps,
    pub ledger: Option<Ledger>,
    pub mark: Option<Mark>,
    pub disk: Disk,
    pub storage: Storage,
    /// Whether each UIDL that is told is baked, where there is a place for it.
    pub bakes: bool,
    pub native: UidlFormat,
    /// Whether it is a format that the rules can follow.
    pub is_native_followed: bool,
    pub uidvalidity: u32,
    pub next_uid: u32,
    pub index_id: u32,
    pub held: Vec<Held>,
    pub keys: Match,
    pub guarded: bool,
    /// The stamp of the rehearsal that lists; 0: a client does.
    pub rehearsal: u64,
    /// Rehearsals up to this stamp were undone.
    pub undone: u64,
    pub asked: HashMap<Need, usize>,
    /// Whether the last outcome needed what was captured.
    pub asked_captured: bool,
    /// The number of logins answered by what the ledger alone says of new mail.
    pub grown: usize,
    /// The number of those that left old messages which may still come.
    pub grown_beside_unclaimed: usize,
    /// Whether sessions are killed once the client has its listing.
    pub is_killed: bool,
    /// Whether the first listing is not baked yet.
    left_to_bake: bool,
    /// Names are never given twice, as Maildir wants it.
    copies: usize,
}

/// Whether a first listing that is lost before it is baked is made again with the same UIDLs.
fn is_found_again(ledger: &Ledger, mark: &Mark) -> bool {
    let is_new = |record: &&Record| record.uid != 0 && !record.provenance.is_kept();
    ledger.records.iter().filter(is_new).count() == mark.natives.len()
}

fn names_of(held: &Held) -> ArrayVec<FileKey, 2> {
    held.name.split_whitespace().map(|name| FileKey::of_name(name.as_bytes())).collect()
}

fn name_of(held: &Held) -> Option<NameHash> {
    names_of(held).first().copied().map(Ledger::name_of)
}

pub fn uidl(text: &str) -> Uidl {
    Uidl::new(text.as_bytes()).unwrap()
}

/// The old server's capture: the header always, the message where the header repeats or does not
/// name it.
pub fn captured(old: &[(&str, &Mail)]) -> Maildrop {
    let repeated = |header: u8| old.iter().filter(|(_, m)| m.header == header).count() > 1;
    let entries = old.iter().enumerate().map(|(at, (uidl_text, mail))| Entry {
        uid: Some(at as u32 + 1),
        octets: Some(mail.octets),
        file: Some(Name::Spelled(mail.name.as_bytes().into())),
        header: mail.header_print(),
        message: (repeated(mail.header) || !mail.names_itself()).then(|| mail.message_print()),
        origin: mail.origin_print(),
        ..Entry::new(uidl(uidl_text))
    });
    Maildrop {
        captures: vec![capture(CAPTURED_AT, None)],
        uidvalidity: Some(17),
        entries: entries.collect(),
        ..Maildrop::new("alice@example.com", State::Captured)
    }
}

pub fn capture(taken: u64, next: Option<u32>) -> Capture {
    Capture { taken: Some(taken), source: "test".into(), uidvalidity: Some(17), next }
}

impl Server {
    pub fn new(captured: Maildrop) -> Self {
        Self {
            captured,
            is_final: true,
            stamps: Stamps::default(),
            ledger: None,
            mark: None,
            disk: Disk::Writable,
            storage: Storage::Dbox,
            bakes: true,
            native: UidlFormat::parse("%08Xu%08Xv").unwrap(),
            is_native_followed: true,
            uidvalidity: 99,
            next_uid: 1,
            index_id: 1,
            held: Vec::new(),
            keys: Match::default(),
            guarded: false,
            rehearsal: 0,
            undone: 0,
            asked: HashMap::new(),
            asked_captured: false,
            grown: 0,
            grown_beside_unclaimed: 0,
            is_killed: false,
            left_to_bake: false,
            copies: 0,
        }
    }

    /// Puts a message there under that name.
    pub fn put(&mut self, mail: Mail, name: String) -> u32 {
        let uid = self.next_uid;
        let (stored, stored_order) = (None, None);
        self.held.push(Held { uid, mail, name, stored, stored_order, readable: true });
        self.next_uid += 1;
        uid
    }

    pub fn new_name(&mut self) -> String {
        self.copies += 1;
        format!("copy{}", self.copies)
    }

    /// Copies a message. By file the name stays; by content there is a new one.
    pub fn copy(&mut self, mail: &Mail, by_file: bool) -> u32 {
        let name = if by_file { mail.name.clone() } else { self.new_name() };
        self.put(mail.clone(), name)
    }

    pub fn delete(&mut self, uid: u32) {
        self.held.retain(|held| held.uid != uid);
    }

    /// Gives the message of that name this `P` and `O`.
    pub fn store(&mut self, name: &str, text: &str, order: Option<u32>) {
        let held = self.held.iter_mut().find(|held| held.name == name).unwrap();
        (held.stored, held.stored_order) = (Some(uidl(text)), order);
    }

    /// Loses everything that was told except what storage has.
    pub fn lose_memory(&mut self) {
        (self.ledger, self.mark) = (None, None);
    }

    /// Numbers from `from` on: the list of UIDs was lost, or an older one was put back. The UIDLs
    /// that were baked into it go with it.
    pub fn number_anew(&mut self, from: u32) {
        let start = self.held.iter().position(|held| held.uid >= from);
        let is_list = self.storage == Storage::Maildir;
        let renumbered = self.held.iter_mut().skip(start.unwrap_or(usize::MAX));
        for (uid, held) in (from..).zip(renumbered) {
            held.uid = uid;
            if is_list {
                (held.stored, held.stored_order) = (None, None);
            }
        }
        self.next_uid = self.held.last().map_or(from, |held| held.uid + 1).max(from);
        self.index_id += 1;
    }

    /// A list of UIDs from elsewhere is put in the place of this one, where that is a file: from
    /// UID `from` on, other messages have them.
    pub fn list_from_elsewhere(&mut self, from: u32) {
        if self.storage == Storage::Maildir {
            let start = self.held.partition_point(|held| held.uid < from);
            self.held[start..].reverse();
            let (index_id, next_uid) = (self.index_id, self.next_uid);
            self.number_anew(from);
            self.index_id = index_id;
            self.next_uid = self.next_uid.max(next_uid);
        }
    }

    pub fn outcome(&mut self, purpose: Purpose) -> Outcome {
        let (decided, asked_captured, counts) = self.decide(purpose, false);
        self.asked_captured = asked_captured;
        for (need, count) in counts {
            *self.asked.entry(need).or_default() += count;
        }
        decided
    }

    /// What the rules decide, whether they needed what was captured, and how much they asked. With
    /// `captured`, they have it from the beginning.
    fn decide(
        &self,
        purpose: Purpose,
        mut captured: bool,
    ) -> (Outcome, bool, HashMap<Need, usize>) {
        let mut messages: Vec<Message> = self.held.iter().map(|held| self.message(held)).collect();
        let mut counts: HashMap<Need, usize> = HashMap::new();
        let columns = CapturedMaildrop::from(&self.captured);
        let whole = self.situation(Some(&columns), purpose);
        let decided = loop {
            let situation = Situation { captured: whole.captured.filter(|_| captured), ..whole };
            match resolve(&self.captured.user, &situation, &messages) {
                Outcome::Ask(asked) => {
                    assert!(!asked.is_empty(), "asks for nothing");
                    let mut seen = HashSet::new();
                    let mut unreadable = 0;
                    for (m, need) in asked {
                        assert!(seen.insert((m, need)), "asked twice at once");
                        *counts.entry(need).or_default() += 1;
                        self.tell(&self.held[m], &mut messages[m], need);
                        // The plugin does the same, and then lets the rules refuse it all.
                        unreadable += usize::from(messages[m].unreadable);
                        if unreadable > most_unreadable(messages.len()) {
                            break;
                        }
                    }
                    let most = messages.len() * 7;
                    assert!(counts.values().sum::<usize>() <= most, "asks for ever");
                }
                Outcome::AskCaptured => {
                    assert!(!captured, "asks for ever");
                    captured = true;
                }
                decided => break decided,
            }
        };
        (decided, captured, counts)
    }

    /// Insists that the rules make this very ledger of what was captured, too. Without it they may
    /// know too little for a maildrop to stay settled.
    fn check_without_captured(&self, ledger: &Ledger) {
        let purpose = Purpose::Listing { guarded: self.guarded };
        let (Outcome::Resolved(mut whole), ..) = self.decide(purpose, true) else {
            panic!("with what was captured, the login is refused");
        };
        if ledger.native_from.is_none() {
            (whole.ledger.native_from, whole.ledger.unclaimed) = (None, UnclaimedKeys::default());
        }
        assert_eq!(*ledger, whole.ledger, "what was captured makes another ledger");
    }

    fn epoch(&self) -> Epoch {
        let Self { uidvalidity, next_uid, index_id, .. } = *self;
        Epoch { uidvalidity, next_uid, index_id }
    }

    fn situation<'a>(
        &'a self,
        captured: Option<&'a CapturedMaildrop>,
        purpose: Purpose,
    ) -> Situation<'a> {
        Situation {
            captured,
            basis: self.basis(),
            is_final: self.is_final,
            memory: self.memory(),
            stamps: self.stamps,
            epoch: self.epoch(),
            is_maildir: self.storage == Storage::Maildir,
            native: Some(&self.native).filter(|_| self.is_native_followed),
            keys: self.keys,
            purpose,
            rehearsal: self.rehearsal,
        }
    }

    fn memory(&self) -> Memory<'_> {
        Memory { ledger: self.ledger.as_ref(), mark: self.mark.as_ref() }
    }

    /// The facts that are known of a message before anything is asked.
    fn message(&self, held: &Held) -> Message {
        let uidlist_name = name_of(held).filter(|_| self.storage == Storage::Maildir);
        let mut message = Message::new(held.uid);
        message.set_uidlist_name(uidlist_name);
        message
    }

    /// The basis, named as a plugin names it.
    fn basis(&self) -> [u8; 16] {
        let mut hasher = DefaultHasher::new();
        let native = Some(&self.native).filter(|_| self.is_native_followed);
        format!("{:?} {} {native:?} {:?}", self.captured, self.is_final, self.keys)
            .hash(&mut hasher);
        [hasher.finish().to_le_bytes(); 2].concat().try_into().unwrap()
    }

    fn tell(&self, held: &Held, message: &mut Message, need: Need) {
        // A Maildir is not read for names; a dbox has them with the mail.
        let is_read = match need {
            Need::Names => self.storage == Storage::Dbox,
            Need::Header | Need::Octets | Need::Message => true,
            Need::Received | Need::Native => false,
        };
        if is_read && !held.readable {
            message.unreadable = true;
            return;
        }
        let mail = &held.mail;
        match need {
            Need::Names => {
                message.set_names(Fact::Is(names_of(held)));
                message.set_stored(held.stored.clone(), held.stored_order);
            }
            Need::Header | Need::Message => {
                message.details.header = Fact::found(mail.header_print());
                message.details.names_itself = mail.names_itself();
                message.details.origin = Fact::found(mail.origin_print());
                message.details.origin_names_itself = mail.header < NAMELESS;
                if need == Need::Message {
                    message.details.message = Fact::Is(mail.message_print());
                    message.details.body = Fact::Is(mail.body_print());
                }
            }
            Need::Octets => message.details.octets = Fact::Is(mail.octets),
            Need::Received => message.details.received = Fact::Is(mail.received as i64),
            Need::Native => message.details.native = Fact::Is(self.native_uidl(held)),
        }
    }

    /// The UIDL that Dovecot alone gives.
    pub fn native_uidl(&self, held: &Held) -> Uidl {
        let guid = held.name.split_whitespace().last().unwrap_or("none").as_bytes();
        let (uid, uidvalidity) = (held.uid, self.uidvalidity);
        let fields = Fields { uid, uidvalidity, file: None, guid: Some(guid) };
        self.native.render(&fields).unwrap()
    }

    /// The resolution of [`Server::outcome`] for a listing, recorded as far as it can be.
    pub fn try_to_log_in(&mut self) -> Result<Resolution, Undecidable> {
        let grown = self.grow();
        let mut resolution = match self.outcome(Purpose::Listing { guarded: self.guarded }) {
            Outcome::Resolved(resolution) => *resolution,
            Outcome::Refused(refusal) => {
                assert!(grown.is_none(), "a refused login does not grow: {refusal:?}");
                return Err(refusal);
            }
            Outcome::Ask(_) | Outcome::AskCaptured => unreachable!(),
        };
        if !self.asked_captured && !self.memory().is_rehearsal() {
            self.check_without_captured(&resolution.ledger);
        }
        // What clients were told is only looked at.
        if self.rehearsal != 0 && resolution.ledger.rehearsal == 0 {
            return Ok(resolution);
        }
        self.next_uid = self.next_uid.max(resolution.first_unspent_uid);
        if let Some(grown) = &grown {
            self.grown += 1;
            self.asked_captured = false;
            self.grown_beside_unclaimed += usize::from(!grown.unclaimed.is_empty());
            if self.ledger.as_ref().is_some_and(|ledger| ledger.rehearsal != 0) {
                // The rules begin anew, and a message that came since may have better evidence.
                resolution.ledger = grown.clone();
                resolution.passing.clear();
            }
            assert_eq!(*grown, resolution.ledger, "the grown ledger is that of the rules");
        }
        if self.disk == Disk::Writable {
            let ledger = Ledger::decode(&resolution.ledger.encode()).unwrap();
            let is_first = self.ledger.as_ref().is_none_or(|ledger| ledger.rehearsal != 0);
            let mark = Mark::of(&ledger, self.held.len() as u32);
            let may_wait = match grown {
                Some(_) => self.is_safe_unbaked(&ledger),
                None => is_first && is_found_again(&ledger, &mark) && resolution.passing.is_empty(),
            };
            let is_baked = grown.is_some() && self.mark.as_ref().is_some_and(|mark| mark.is_baked);
            self.mark = Mark::of_file(&Mark { is_baked, ..mark }.to_file());
            self.ledger = Some(ledger);
            self.left_to_bake = may_wait && grown.is_none();
            if !may_wait {
                self.bake();
            }
        }
        Ok(resolution)
    }

    /// Writes what the ledger says beside the mail, where that is wanted and there is a place.
    fn bake(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        if self.storage != Storage::Maildir || !self.bakes {
            return;
        }
        for record in &ledger.records {
            if let Some(held) = self.held.iter_mut().find(|held| held.uid == record.uid) {
                held.stored = Some(record.uidl.clone());
                held.stored_order = Some(record.order);
            }
        }
        self.left_to_bake = false;
        if let Some(mark) = &mut self.mark {
            mark.is_baked = true;
        }
    }

    /// Ends a session: a first listing is baked, and what an earlier session left that was killed.
    fn end_session(&mut self) {
        let Some(ledger) = self.ledger.as_ref().filter(|_| self.disk == Disk::Writable) else {
            return;
        };
        if self.left_to_bake || !self.is_safe_unbaked(ledger) {
            self.bake();
        }
    }

    /// Whether everything that was told stands with the mail or is in the mark one by one.
    pub fn is_baked(&self) -> bool {
        self.ledger.as_ref().is_none_or(|ledger| self.is_safe_unbaked(ledger))
    }

    /// Whether everything of the ledger stands with the mail or is in its mark one by one.
    fn is_safe_unbaked(&self, ledger: &Ledger) -> bool {
        let natives: HashSet<u32> = ledger.last_natives().map(|record| record.uid).collect();
        self.held.iter().all(|held| held.stored.is_some() || natives.contains(&held.uid))
    }

    pub fn log_in(&mut self) -> Resolution {
        let resolution = self.try_to_log_in().unwrap_or_else(|refusal| panic!("{refusal:?}"));
        self.end_session();
        resolution
    }

    /// The ledger from which a warm login answers, if it can: nothing is asked.
    pub fn warm(&self) -> Option<&Ledger> {
        let ledger = self.ledger.as_ref().filter(|ledger| self.holds(ledger, &self.held))?;
        // What was only rehearsed answers for the very maildrop, index and format alone.
        let is_whole = ledger.rehearsal == 0 || ledger.records.len() == self.held.len();
        let is_of_now = ledger.rehearsal == 0 || ledger.index.basis == self.basis();
        (is_whole && is_of_now && !self.held.is_empty()).then_some(ledger)
    }

    /// Whether the ledger has all that is `held`, and its UIDs mean what they meant.
    fn holds(&self, ledger: &Ledger, held: &[Held]) -> bool {
        let counts_on = ledger.epoch.goes_on_in(self.epoch());
        let holds = held.iter().all(|held| {
            let record = ledger.records.iter().find(|record| record.uid == held.uid);
            record.is_some_and(|record| match self.storage {
                Storage::Maildir => name_of(held).is_none_or(|name| record.names.contains(&name)),
                Storage::Dbox => ledger.epoch.index_id == self.index_id,
            })
        });
        // An index that was put back has its old id: the name of the last listed message tells.
        let named = held.iter().rev().find_map(|held| {
            let record = ledger.records.iter().find(|record| record.uid == held.uid)?;
            (!record.names.is_empty()).then_some((held, record))
        });
        // A dbox has names with the mail: a mail that cannot be read tells none.
        let tells_names = |held: &Held| held.readable || self.storage == Storage::Maildir;
        let last_holds = named.is_none_or(|(held, record)| {
            let mut names = names_of(held).into_iter().filter(|_| tells_names(held));
            names.any(|name| record.names.contains(&Ledger::name_of(name)))
        });
        let heeds = ledger.begun_after >= self.stamps.forgotten
            && ledger.restored >= self.stamps.restored
            && !(1..=self.undone).contains(&ledger.rehearsal);
        counts_on && holds && last_holds && heeds
    }

    /// The ledger that a login with nothing but new mail makes of a settled one, if it can.
    fn grow(&self) -> Option<Ledger> {
        let ledger = self.ledger.as_ref()?;
        let known = self.held.partition_point(|held| held.uid < ledger.epoch.next_uid);
        let (known, new) = self.held.split_at(known);
        if new.is_empty() || !self.holds(ledger, known) {
            return None;
        }
        let situation = self.situation(None, Purpose::Listing { guarded: true });
        let uids: Vec<u32> = self.held.iter().map(|held| held.uid).collect();
        let mut messages: Vec<Message> = new.iter().map(|held| self.message(held)).collect();
        let (front, back) = LedgerFront::of_encoded(ledger.encode()).unwrap();
        let file = front.ledger(&back).unwrap();
        loop {
            let asked = match grow(&situation, &file, &uids, &messages) {
                Grown::Ask(asked) => asked,
                Grown::Growth(growth) => {
                    let (front, back) = file.grow(&growth).unwrap();
                    let grown = Ledger::decode(&[front.octets(), &back].concat()).unwrap();
                    assert_eq!([front.octets(), &back].concat(), grown.encode());
                    break Some(grown);
                }
                Grown::NotSettled => break None,
            };
            for (m, need) in asked {
                self.tell(&new[m], &mut messages[m], need);
            }
        }
    }

    /// Notes that a client lists what was only rehearsed, if it is a client. The mark needs no
    /// room.
    fn note_told(&mut self) {
        let Some(ledger) = self.ledger.as_mut().filter(|_| self.rehearsal == 0) else { return };
        if ledger.rehearsal != 0 {
            let told = Ledger { rehearsal: 0, ..ledger.clone() };
            let is_baked = self.mark.as_ref().is_some_and(|mark| mark.is_baked);
            self.mark = Some(Mark { is_baked, ..Mark::of(&told, self.held.len() as u32) });
            if self.disk == Disk::Writable {
                self.ledger = Some(told);
            }
        }
    }

    /// Lists as a rehearsal with this stamp.
    pub fn rehearse(&mut self, stamp: u64) -> Result<Vec<(Uidl, Held)>, Undecidable> {
        self.rehearsal = stamp;
        let listed = self.try_to_list();
        self.rehearsal = 0;
        listed
    }

    /// Returns the listing of a client, in POP3 order, or the reason why it gets none.
    pub fn try_to_list(&mut self) -> Result<Vec<(Uidl, Held)>, Undecidable> {
        let (records, is_recorded) = match self.warm() {
            Some(ledger) => {
                let records = ledger.records.clone();
                self.note_told();
                (records, true)
            }
            None => {
                let resolution = self.try_to_log_in()?;
                let is_recorded = self.ledger.as_ref() == Some(&resolution.ledger);
                ([resolution.ledger.records, resolution.passing].concat(), is_recorded)
            }
        };
        let of_uid: HashMap<u32, _> = records.iter().map(|record| (record.uid, record)).collect();
        let mut listing: Vec<_> = (self.held.iter())
            .map(|held| {
                let record = of_uid[&held.uid];
                (record.order, record.uidl.clone(), held.clone())
            })
            .collect();
        listing.sort_by_key(|(order, ..)| *order);
        for pair in listing.windows(2) {
            assert!(pair[0].0 < pair[1].0, "order given twice");
        }
        // A rehearsal only looks at what clients were told.
        if is_recorded && !self.is_killed {
            self.end_session();
        }
        Ok(listing.into_iter().map(|(_, uidl, held)| (uidl, held)).collect())
    }

    pub fn listing(&mut self) -> Vec<(Uidl, Held)> {
        self.try_to_list().unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    pub fn uidls(&mut self) -> Vec<String> {
        self.listing().into_iter().map(|(uidl, _)| uidl.to_string()).collect()
    }
}
