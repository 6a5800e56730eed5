//! A new server as the rules see it: what is in the maildrop, what was captured, what was recorded, and
//! everything that can be lost of it.
#![allow(dead_code)]

use std::collections::{HashMap, HashSet};

use arrayvec::ArrayVec;
use uidl_keep::format::{Fields, UidlFormat};
use uidl_keep::key::{FileKey, Fingerprint};
use uidl_keep::ledger::{Ledger, Mark, NAME_OCTETS};
use uidl_keep::maildrop::{Entry, Maildrop, Name, State};
use uidl_keep::resolve::{
    Fact, Match, Message, Need, Outcome, Past, Purpose, Refusal, Resolution, Situation,
    first_unspent_uid, resolve,
};
use uidl_keep::uidl::Uidl;

/// A message as it is, whatever anybody knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mail {
    pub name: String,
    pub header: u8,
    pub body: u8,
    pub octets: u64,
    /// It came by way of a relay, which added a line to its header.
    pub relayed: bool,
}

pub fn mail(name: &str, header: u8, body: u8) -> Mail {
    let octets = 100 + u64::from(body);
    Mail { name: name.to_owned(), header, body, octets, relayed: false }
}

impl Mail {
    /// What a user sees of it.
    pub fn content(&self) -> (u8, u8) {
        (self.header, self.body)
    }

    fn print(&self, last: [u8; 3]) -> Fingerprint {
        let mut print = [self.header; 16];
        print[..3].copy_from_slice(&last);
        Fingerprint(print)
    }

    pub fn header_print(&self) -> Fingerprint {
        self.print([1, 0, u8::from(self.relayed)])
    }

    fn origin_print(&self) -> Fingerprint {
        self.print([2, 0, 0])
    }

    pub fn message_print(&self) -> Fingerprint {
        self.print([3, self.body, u8::from(self.relayed)])
    }
}

/// Where a message lies on the new server.
#[derive(Debug, Clone)]
pub struct Held {
    pub uid: u32,
    pub mail: Mail,
    /// Under which name: Maildir's base file name, or dbox's GUID. Under both, with a space between
    /// them, or under none.
    pub name: String,
    pub readable: bool,
}

/// What can be written beside the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Writable,
    /// Neither a ledger nor mail.
    Full,
    /// Mail, but not a ledger.
    NotOurs,
}

/// A new server, and everything that a POP3 login does there.
pub struct Server {
    pub captured: Maildrop,
    pub is_final: bool,
    pub forgotten: u64,
    pub ledger: Option<Ledger>,
    pub mark: Option<Mark>,
    pub disk: Disk,
    pub own: UidlFormat,
    pub uidvalidity: u32,
    pub next_uid: u32,
    pub index_id: u32,
    pub held: Vec<Held>,
    /// `P` and `O` by name, where the storage is one that keeps them.
    pub baked: Option<HashMap<String, (Uidl, u32)>>,
    pub keys: Match,
    pub guarded: bool,
    pub asked: HashMap<Need, usize>,
    /// Names are never given twice, as Maildir wants it.
    copies: usize,
}

fn names_of(held: &Held) -> ArrayVec<FileKey, 2> {
    held.name.split_whitespace().map(|name| FileKey::of_name(name.as_bytes())).collect()
}

fn name_of(held: &Held) -> Option<[u8; NAME_OCTETS]> {
    names_of(held).first().copied().map(Ledger::name_of)
}

pub fn uidl(text: &str) -> Uidl {
    Uidl::new(text.as_bytes()).unwrap()
}

/// What the old server's capture says: the header always, the message where the header repeats.
pub fn captured(old: &[(&str, &Mail)]) -> Maildrop {
    let repeated = |header: u8| old.iter().filter(|(_, m)| m.header == header).count() > 1;
    let entries = old.iter().enumerate().map(|(at, (uidl_text, mail))| Entry {
        uid: Some(at as u32 + 1),
        octets: Some(mail.octets),
        file: Some(Name::Spelled(mail.name.as_bytes().into())),
        header: Some(mail.header_print()),
        message: repeated(mail.header).then(|| mail.message_print()),
        origin: Some(mail.origin_print()),
        ..Entry::new(uidl(uidl_text))
    });
    Maildrop {
        user: "alice@example.com".into(),
        state: State::Captured,
        captures: Vec::new(),
        source: "test".into(),
        uidvalidity: Some(17),
        counter: None,
        entries: entries.collect(),
        spent: Vec::new(),
        remarks: Vec::new(),
    }
}

impl Server {
    pub fn new(captured: Maildrop) -> Self {
        Self {
            captured,
            is_final: true,
            forgotten: 0,
            ledger: None,
            mark: None,
            disk: Disk::Writable,
            own: UidlFormat::parse("%08Xu%08Xv").unwrap(),
            uidvalidity: 99,
            next_uid: 1,
            index_id: 1,
            held: Vec::new(),
            baked: None,
            keys: Match::default(),
            guarded: false,
            asked: HashMap::new(),
            copies: 0,
        }
    }

    /// Puts a message there under that name.
    pub fn put(&mut self, mail: Mail, name: String) -> u32 {
        let uid = self.next_uid;
        self.held.push(Held { uid, mail, name, readable: true });
        self.next_uid += 1;
        uid
    }

    pub fn new_name(&mut self) -> String {
        self.copies += 1;
        format!("copy{}", self.copies)
    }

    /// By file: the name stays. By content: a new one.
    pub fn copy(&mut self, mail: &Mail, by_file: bool) -> u32 {
        let name = if by_file { mail.name.clone() } else { self.new_name() };
        self.put(mail.clone(), name)
    }

    pub fn delete(&mut self, uid: u32) {
        self.held.retain(|held| held.uid != uid);
    }

    /// UIDs begin anew at `from`: the list of them was lost, or an older one was put back. What was
    /// baked into it goes with it.
    pub fn number_anew(&mut self, from: u32) {
        let start = self.held.iter().position(|held| held.uid >= from);
        let renumbered = self.held.iter_mut().skip(start.unwrap_or(usize::MAX));
        for (uid, held) in (from..).zip(renumbered) {
            held.uid = uid;
        }
        self.next_uid = self.held.last().map_or(from, |held| held.uid + 1);
        self.index_id += 1;
        self.baked.iter_mut().for_each(HashMap::clear);
    }

    /// A list of UIDs from elsewhere is put in the place of this one, where that is a file: from UID
    /// `from` on, other messages have them.
    pub fn list_from_elsewhere(&mut self, from: u32) {
        if self.baked.is_some() {
            let start = self.held.partition_point(|held| held.uid < from);
            self.held[start..].reverse();
            let index_id = self.index_id;
            self.number_anew(from);
            self.index_id = index_id;
        }
    }

    fn past(&self) -> Past<'_> {
        Past::of(self.ledger.as_ref(), self.mark, self.forgotten)
    }

    pub fn outcome(&mut self, purpose: Purpose) -> Outcome {
        // A Maildir's names are to be had for nothing.
        let free_name = |held: &Held| self.baked.as_ref().and_then(|_| name_of(held));
        let mut messages: Vec<Message> = (self.held.iter())
            .map(|held| Message { uid: held.uid, free_name: free_name(held), ..Message::default() })
            .collect();
        let mut counts: HashMap<Need, usize> = HashMap::new();
        let decided = loop {
            let situation = Situation {
                captured: &self.captured,
                is_final: self.is_final,
                past: self.past(),
                can_record: self.disk != Disk::NotOurs,
                begun_after: self.forgotten,
                uidvalidity: self.uidvalidity,
                next_uid: self.next_uid,
                index_id: self.index_id,
                own: Some(&self.own),
                keys: self.keys,
                purpose,
            };
            match resolve(&self.captured.user, &situation, &messages) {
                Outcome::Ask(asked) => {
                    assert!(!asked.is_empty(), "asks for nothing");
                    let mut seen = HashSet::new();
                    for (m, need) in asked {
                        assert!(seen.insert((m, need)), "asked twice at once");
                        *counts.entry(need).or_default() += 1;
                        self.tell(&self.held[m], &mut messages[m], need);
                    }
                    let most = messages.len() * 6;
                    assert!(counts.values().sum::<usize>() <= most, "asks for ever");
                }
                decided => break decided,
            }
        };
        for (need, count) in counts {
            *self.asked.entry(need).or_default() += count;
        }
        decided
    }

    fn tell(&self, held: &Held, message: &mut Message, need: Need) {
        // A Maildir is not read for names; a dbox has them with the mail.
        let is_read = match need {
            Need::Names => self.baked.is_none(),
            Need::Header | Need::Octets | Need::Message => true,
            Need::Own => false,
        };
        if is_read && !held.readable {
            message.unreadable = true;
            return;
        }
        let mail = &held.mail;
        match need {
            Need::Names => {
                message.names = Fact::found(Some(names_of(held)).filter(|names| !names.is_empty()));
                let baked = self.baked.as_ref().and_then(|baked| baked.get(&held.name));
                message.stored = baked.map(|(uidl, _)| uidl.clone());
                message.stored_order = baked.map(|(_, order)| *order);
            }
            Need::Header => {
                message.header = Fact::Is(mail.header_print());
                message.origin = Fact::Is(mail.origin_print());
            }
            Need::Octets => message.octets = Fact::Is(mail.octets),
            Need::Message => message.message = Fact::Is(mail.message_print()),
            Need::Own => {
                let (uid, uidvalidity) = (held.uid, self.uidvalidity);
                let fields =
                    Fields { uid, uidvalidity, file: None, guid: Some(held.name.as_bytes()) };
                message.own = Fact::Is(self.own.render(&fields).unwrap());
            }
        }
    }

    /// What [`Server::outcome`] says for a listing, recorded as far as it can be.
    pub fn try_to_log_in(&mut self) -> Result<Resolution, Refusal> {
        let resolution = match self.outcome(Purpose::Listing { guarded: self.guarded }) {
            Outcome::Resolved(resolution) => *resolution,
            Outcome::Refused(refusal) => return Err(refusal),
            Outcome::Ask(_) => unreachable!(),
        };
        if self.disk == Disk::Writable {
            self.ledger = Some(Ledger::decode(&resolution.ledger.encode()).unwrap());
            self.mark = Some(Mark::of_line(resolution.ledger.mark().to_line().as_bytes()));
            for record in resolution.news.iter().map(|&r| &resolution.ledger.records[r]) {
                let held = self.held.iter().find(|held| held.uid == record.uid).unwrap();
                if let Some(baked) = &mut self.baked {
                    baked.insert(held.name.clone(), (record.uidl.clone(), record.order));
                }
            }
            let unspent = first_unspent_uid(&self.captured, &self.own, self.uidvalidity);
            let told_below = resolution.ledger.told_below;
            self.next_uid = self.next_uid.max(unspent).max(told_below);
        }
        Ok(resolution)
    }

    pub fn log_in(&mut self) -> Resolution {
        self.try_to_log_in().unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// What a warm login answers from, if it can: nothing is asked.
    fn warm(&self) -> Option<&Ledger> {
        let ledger = self.ledger.as_ref()?;
        let counts_on = ledger.uidvalidity == self.uidvalidity && ledger.next_uid <= self.next_uid;
        let record_of = |held: &Held| ledger.records.iter().find(|r| r.uid == held.uid);
        let all = self.held.iter().all(|held| record_of(held).is_some());
        let counts_on = counts_on && ledger.index_id == self.index_id;
        let names_agree = self.baked.is_none()
            || self.held.iter().all(|held| {
                record_of(held).and_then(|r| r.name).is_none_or(|name| Some(name) == name_of(held))
            });
        let is_open = ledger.cutoff.is_none() && self.is_final;
        (!is_open && counts_on && names_agree && all && ledger.begun_after >= self.forgotten)
            .then_some(ledger)
    }

    /// What a client sees, in POP3 order, or why it sees nothing.
    pub fn try_to_list(&mut self) -> Result<Vec<(Uidl, Held)>, Refusal> {
        let records = match self.warm() {
            Some(ledger) => ledger.records.clone(),
            None => {
                let resolution = self.try_to_log_in()?;
                [resolution.ledger.records, resolution.passing].concat()
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
            assert!(pair[0].0 < pair[1].0 || pair[1].0 == 0, "order given twice");
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
