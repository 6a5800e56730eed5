//! The rules of `resolve`, by example and by random histories that model clients live through.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use uidl_keep::format::UidlFormat;
use uidl_keep::key::{FileKey, Fingerprint};
use uidl_keep::ledger::{How, Ledger};
use uidl_keep::maildrop::{Counter, Entry, Maildrop, Name, State};
use uidl_keep::resolve::{
    Fact, Match, Message, Need, Outcome, Purpose, Refusal, Resolution, Situation,
    first_unspent_uid, resolve,
};
use uidl_keep::uidl::Uidl;

/// A message as it is, whatever anybody knows of it.
#[derive(Debug, Clone, PartialEq)]
struct Mail {
    name: String,
    header: u8,
    body: u8,
    octets: u64,
}

fn mail(name: &str, header: u8, body: u8) -> Mail {
    Mail { name: name.to_owned(), header, body, octets: 100 + u64::from(body) }
}

impl Mail {
    fn header_print(&self) -> Fingerprint {
        Fingerprint([self.header; 16])
    }

    fn message_print(&self) -> Fingerprint {
        let mut print = [self.header; 16];
        print[0] = self.body;
        print[1] = !self.body;
        Fingerprint(print)
    }
}

/// Where a message lies on the new server.
#[derive(Debug, Clone)]
struct Held {
    uid: u32,
    mail: Mail,
    /// Under which name; a copy by content has a new one.
    name: String,
    readable: bool,
}

/// A new server, and everything that a POP3 login does there.
struct Server {
    captured: Maildrop,
    is_final: bool,
    ledger: Option<Ledger>,
    uidvalidity: u32,
    next_uid: u32,
    held: Vec<Held>,
    keys: Match,
    guarded: bool,
    asked: HashMap<Need, usize>,
    /// Names are never given twice, as Maildir wants it.
    copies: usize,
}

fn uidl(text: &str) -> Uidl {
    Uidl::new(text.as_bytes()).unwrap()
}

/// What the old server's capture says: the header always, the message where the header repeats.
fn captured(old: &[(&str, &Mail)]) -> Maildrop {
    let repeated = |header: u8| old.iter().filter(|(_, m)| m.header == header).count() > 1;
    let entries = old.iter().enumerate().map(|(at, (uidl_text, mail))| Entry {
        uidl: uidl(uidl_text),
        uid: Some(at as u32 + 1),
        octets: Some(mail.octets),
        file: Some(Name::Spelled(mail.name.as_bytes().into())),
        guid: None,
        header: Some(mail.header_print()),
        message: repeated(mail.header).then(|| mail.message_print()),
        origin: None,
    });
    Maildrop {
        user: "alice@example.com".into(),
        state: State::Captured,
        source: "test".into(),
        uidvalidity: Some(17),
        counter: None,
        entries: entries.collect(),
        spent: Vec::new(),
        remarks: Vec::new(),
    }
}

impl Server {
    fn new(captured: Maildrop) -> Self {
        Self {
            captured,
            is_final: true,
            ledger: None,
            uidvalidity: 99,
            next_uid: 1,
            held: Vec::new(),
            keys: Match::default(),
            guarded: false,
            asked: HashMap::new(),
            copies: 0,
        }
    }

    /// By file: the name stays. By content: a new one.
    fn copy(&mut self, mail: &Mail, by_file: bool) -> u32 {
        let uid = self.next_uid;
        self.copies += 1;
        let name = if by_file { mail.name.clone() } else { format!("copy{}", self.copies) };
        self.held.push(Held { uid, mail: mail.clone(), name, readable: true });
        self.next_uid += 1;
        uid
    }

    fn delete(&mut self, uid: u32) {
        self.held.retain(|held| held.uid != uid);
    }

    fn outcome(&mut self, purpose: Purpose) -> Outcome {
        let ledger = self.ledger.clone();
        let situation = Situation {
            captured: &self.captured,
            is_final: self.is_final,
            ledger: ledger.as_ref(),
            uidvalidity: self.uidvalidity,
            next_uid: self.next_uid,
            keys: self.keys,
            purpose,
        };
        let mut messages: Vec<Message> =
            self.held.iter().map(|h| Message { uid: h.uid, ..Message::default() }).collect();
        for _ in 0..10 {
            match resolve(&self.captured.user, &situation, &messages) {
                Outcome::Ask(asked) => {
                    let mut seen = HashSet::new();
                    for (m, need) in asked {
                        assert!(seen.insert((m, need)), "asked twice at once");
                        *self.asked.entry(need).or_default() += 1;
                        self.held[m].tell(&mut messages[m], need, self.uidvalidity);
                    }
                }
                decided => return decided,
            }
        }
        panic!("asks for ever");
    }

    fn log_in(&mut self) -> Resolution {
        match self.outcome(Purpose::Listing { guarded: self.guarded }) {
            Outcome::Resolved(resolution) => {
                let file = resolution.ledger.encode();
                self.ledger = Some(Ledger::decode(&file).unwrap());
                resolution
            }
            other => panic!("{other:?}"),
        }
    }

    /// What a client sees: (UIDL, mail) in POP3 order.
    fn listing(&mut self) -> Vec<(Uidl, Mail)> {
        let resolution = self.log_in();
        let records: HashMap<u32, _> =
            (resolution.ledger.records.iter().chain(&resolution.passing))
                .map(|record| (record.uid, record))
                .collect();
        let mut listing: Vec<_> = (self.held.iter())
            .map(|held| {
                let record = records[&held.uid];
                (record.order, record.uidl.clone(), held.mail.clone())
            })
            .collect();
        listing.sort_by_key(|(order, ..)| *order);
        listing.windows(2).for_each(|pair| assert_ne!(pair[0].0, pair[1].0, "order given twice"));
        listing.into_iter().map(|(_, uidl, mail)| (uidl, mail)).collect()
    }

    fn uidl_listed(&self, name: &str) -> Option<Uidl> {
        let name = Some(FileKey::of_name(name.as_bytes()).cut);
        let mut records = self.ledger.iter().flat_map(|ledger| &ledger.records);
        records.find(|record| record.name == name).map(|record| record.uidl.clone())
    }

    fn uidls(&mut self) -> Vec<String> {
        self.listing().into_iter().map(|(uidl, _)| uidl.to_string()).collect()
    }
}

fn own_uidl(uid: u32, uidvalidity: u32) -> Uidl {
    uidl(&format!("{uid:08x}{uidvalidity:08x}"))
}

impl Held {
    fn tell(&self, message: &mut Message, need: Need, uidvalidity: u32) {
        if !self.readable && need != Need::Names && need != Need::Own {
            message.unreadable = true;
            return;
        }
        match need {
            Need::Names => {
                message.names =
                    Fact::Is([FileKey::of_name(self.name.as_bytes())].into_iter().collect());
            }
            Need::Header => {
                message.header = Fact::Is(self.mail.header_print());
                message.origin = Fact::Absent;
            }
            Need::Octets => message.octets = Fact::Is(self.mail.octets),
            Need::Message => message.message = Fact::Is(self.mail.message_print()),
            Need::Own => message.own = Fact::Is(own_uidl(self.uid, uidvalidity)),
        }
    }
}

#[test]
fn a_copy_by_file_opens_no_mail_and_keeps_the_old_order() {
    let (a, b, c) = (mail("a,S=1", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    for old in [&c, &a, &b] {
        server.copy(old, true);
    }
    assert_eq!(server.uidls(), ["U1", "U2", "U3"]);
    for need in [Need::Header, Need::Message, Need::Octets, Need::Own] {
        assert_eq!(server.asked.get(&need), None, "{need:?}");
    }
}

#[test]
fn a_copy_by_content_is_known_by_its_header_and_reads_whole_only_what_repeats() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 2, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    for old in [&c, &a, &b] {
        server.copy(old, false);
    }
    assert_eq!(server.uidls(), ["U1", "U2", "U3"]);
    assert_eq!(server.asked[&Need::Message], 2);
}

#[test]
fn uid_and_octets_that_agree_make_no_match() {
    let (a, other) = (mail("a", 1, 1), mail("x", 9, 1));
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.uidvalidity = 17;
    server.copy(&other, false);
    assert_eq!(server.uidls(), ["0000000100000011"]);
}

#[test]
fn a_name_that_disagrees_with_the_uid_is_unknown_and_reported() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.uidvalidity = 17;
    server.copy(&b, true);
    let resolution = server.log_in();
    assert_eq!(resolution.report.conflicts, [1]);
    assert_eq!(resolution.ledger.records[0].how, How::Format);
}

#[test]
fn after_the_cutoff_an_equal_header_is_not_enough_but_a_late_file_is() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U1"]);
    server.copy(&mail("new", 2, 7), false);
    server.copy(&c, true);
    assert_eq!(server.uidls(), ["U1", "U3", "0000000200000063"]);
}

#[test]
fn while_the_index_is_open_an_equal_header_still_claims() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.is_final = false;
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U1"]);
    server.copy(&b, false);
    assert_eq!(server.uidls(), ["U1", "U2"]);
}

#[test]
fn what_comes_late_goes_behind_what_was_listed() {
    let (a, b, c) = (mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b), ("U3", &c)]));
    server.copy(&a, true);
    server.copy(&c, true);
    assert_eq!(server.uidls(), ["U1", "U3"]);
    server.copy(&mail("new", 8, 8), true);
    assert_eq!(server.uidls(), ["U1", "U3", "0000000300000063"]);
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["U1", "U3", "0000000300000063", "U2"]);
}

#[test]
fn of_two_equal_headers_only_the_second_copied_gets_its_own() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, false);
    assert_eq!(server.uidls(), ["U2"]);
}

#[test]
fn equal_headers_without_bodies_pair_only_when_octets_tell_them_apart() {
    let (a, b) = (mail("a", 1, 1), mail("b", 1, 2));
    let mut headers_only = captured(&[("U1", &a), ("U2", &b)]);
    headers_only.entries.iter_mut().for_each(|entry| entry.message = None);
    let mut server = Server::new(headers_only.clone());
    server.copy(&b, false);
    assert_eq!(server.uidls(), ["U2"]);
    headers_only.entries[1].octets = Some(a.octets);
    let mut server = Server::new(headers_only);
    server.copy(&a, false);
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["0000000100000063", "0000000200000063"]);
}

#[test]
fn a_spent_uidl_is_never_given_to_a_new_message() {
    let a = mail("a", 1, 1);
    let mut maildrop = captured(&[("0000000500000063", &a)]);
    maildrop.spent = vec![uidl("0000000100000063")];
    maildrop.uidvalidity = Some(99);
    let format = UidlFormat::parse("%08Xu%08Xv").unwrap();
    maildrop.counter = Some(Counter { format: format.clone(), next: 4 });
    assert_eq!(first_unspent_uid(&maildrop, &format, 99), 6);
    assert_eq!(first_unspent_uid(&maildrop, &format, 98), 1);
    let mut server = Server::new(maildrop);
    for n in 0..6 {
        server.copy(&mail(&format!("n{n}"), 100 + n, n), true);
    }
    let uidls = server.uidls();
    assert!(uidls[..3].iter().all(|uidl| uidl.starts_with('~')), "{uidls:?}");
    assert_eq!(uidls[3], "0000000400000063");
    assert!(uidls[4].starts_with('~'), "{uidls:?}");
    assert_eq!(uidls[5], "0000000600000063");
}

#[test]
fn a_claim_outlives_its_message_and_only_its_file_takes_it_again() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.is_final = false;
    let uid = server.copy(&a, true);
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["U1", "U2"]);
    server.delete(uid);
    assert_eq!(server.uidls(), ["U2"]);
    server.copy(&a, false);
    assert_eq!(server.uidls(), ["U2", "0000000300000063"]);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U2", "0000000300000063", "U1"]);
}

#[test]
fn a_file_that_came_back_twice_takes_nothing() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    let uid = server.copy(&a, true);
    server.copy(&b, true);
    server.uidls();
    server.delete(uid);
    server.uidls();
    server.copy(&a, true);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["U2", "0000000300000063", "0000000400000063"]);
}

#[test]
fn a_changed_uidvalidity_loses_no_answer_that_a_name_can_tell() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("U1", &a), ("U2", &b)]));
    server.copy(&b, true);
    server.copy(&a, true);
    server.copy(&mail("new", 7, 7), true);
    let before = server.uidls();
    server.uidvalidity = 100;
    server.held.reverse();
    for (uid, held) in (50..).zip(&mut server.held) {
        held.uid = uid;
    }
    server.next_uid = 60;
    assert_eq!(server.uidls(), before);
}

#[test]
fn a_half_copied_maildrop_is_refused_until_it_is_released() {
    let mails: Vec<Mail> = (0..10).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let names: Vec<String> = (0..10).map(|n| format!("U{n}")).collect();
    let old: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&mails).collect();
    let mut server = Server::new(captured(&old));
    server.guarded = true;
    for mail in &mails[..4] {
        server.copy(mail, true);
    }
    let refused = server.outcome(Purpose::Listing { guarded: true });
    let few = Refusal::HalfCopied { found: 4, captured: 10 };
    assert!(matches!(refused, Outcome::Refused(refusal) if refusal == few));
    server.copy(&mails[4], true);
    assert_eq!(server.uidls().len(), 5);
    server.delete(1);
    server.delete(2);
    assert_eq!(server.uidls().len(), 3, "only a first listing is refused");
}

#[test]
fn one_unreadable_message_costs_only_itself_and_many_cost_the_login() {
    let mails: Vec<Mail> = (0..8).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let names: Vec<String> = (0..8).map(|n| format!("U{n}")).collect();
    let old: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&mails).collect();
    let mut server = Server::new(captured(&old));
    for mail in &mails {
        server.copy(mail, false);
    }
    server.held[3].readable = false;
    let resolution = server.log_in();
    assert_eq!(resolution.report.unreadable, [4]);
    assert!(resolution.passing[0].uidl.as_bytes().starts_with(b"~"));
    assert_eq!(resolution.ledger.cutoff, None, "not complete");
    server.held[3].readable = true;
    assert_eq!(server.uidls()[7], "U3");
    server.ledger = None;
    server.held[..4].iter_mut().for_each(|held| held.readable = false);
    let refused = server.outcome(Purpose::Listing { guarded: false });
    assert!(matches!(
        refused,
        Outcome::Refused(Refusal::Unreadable { unreadable: 4, messages: 8 })
    ));
}

#[test]
fn doveadm_is_told_what_is_kept_and_never_what_no_client_has_seen() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&mail("new", 7, 7), true);
    server.copy(&a, true);
    let Outcome::Resolved(look) = server.outcome(Purpose::Look) else { panic!() };
    let told: Vec<_> = look.ledger.records.iter().map(|r| (r.uid, r.uidl.to_string())).collect();
    assert_eq!(told, [(2, "U1".to_owned())]);
    assert_eq!(look.ledger.cutoff, None);
}

#[test]
fn a_uidl_that_the_old_server_repeats_is_replayed_for_each() {
    let (a, b) = (mail("a", 1, 1), mail("b", 2, 2));
    let mut server = Server::new(captured(&[("same", &a), ("same", &b)]));
    server.copy(&b, true);
    assert_eq!(server.uidls(), ["same"]);
    server.copy(&a, true);
    assert_eq!(server.uidls(), ["same", "same"]);
}

/// What happens on the new server between two polls.
#[derive(Debug, Clone)]
enum Step {
    Copy { old: usize, by_file: bool },
    Deliver { header: u8, body: u8 },
    Delete { held: usize },
    TrashAndBack { held: usize },
    Poll,
    Finalise,
    LoseUidvalidity,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12usize, any::<bool>()).prop_map(|(old, by_file)| Step::Copy { old, by_file }),
        3 => (0..4u8, 0..3u8).prop_map(|(header, body)| Step::Deliver { header, body }),
        2 => (0..20usize).prop_map(|held| Step::Delete { held }),
        1 => (0..20usize).prop_map(|held| Step::TrashAndBack { held }),
        5 => Just(Step::Poll),
        1 => Just(Step::Finalise),
        1 => Just(Step::LoseUidvalidity),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A client that remembers every UIDL it ever saw, and with it the message, never meets that UIDL
    /// on a message with other content; and what it has seen stays where it was.
    #[test]
    fn no_uidl_that_a_client_holds_is_ever_seen_on_another_message(
        old in prop::collection::vec((0..6u8, 0..3u8), 1..12),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let old: Vec<Mail> = (old.iter().enumerate())
            .map(|(n, &(header, body))| mail(&format!("old{n}"), header, body))
            .collect();
        let names: Vec<String> = (0..old.len()).map(|n| format!("UID{}-17", n + 1)).collect();
        let listed: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&old).collect();
        let mut server = Server::new(captured(&listed));
        server.is_final = false;
        // The old server's clients saw all of it.
        let mut seen: HashMap<Uidl, Mail> =
            listed.iter().map(|(text, mail)| (uidl(text), (*mail).clone())).collect();
        let mut last: Vec<Uidl> = Vec::new();
        let mut moved: HashSet<Uidl> = HashSet::new();
        let mut copied = HashSet::new();
        let mut delivered = 0;
        for step in steps {
            match step {
                Step::Copy { old: which, by_file } => {
                    let which = which % old.len();
                    if copied.insert(which) {
                        server.copy(&old[which], by_file);
                    }
                }
                // A new message's header is its own, but for what a copy of an old one would have
                // after the index is final: then even that must not hide it.
                Step::Deliver { header, body } => {
                    delivered += 1;
                    let header = if server.ledger.as_ref().is_some_and(|l| l.cutoff.is_some()) {
                        header
                    } else {
                        200
                    };
                    let mut new = mail(&format!("new{delivered}"), header, body);
                    new.octets += 7;
                    // Bodies of new mail differ from every old one.
                    new.body = 100 + body;
                    server.copy(&new, true);
                }
                Step::Delete { held } => {
                    if !server.held.is_empty() {
                        let at = held % server.held.len();
                        let gone = server.held.remove(at);
                        moved.extend(server.uidl_listed(&gone.name));
                    }
                }
                Step::TrashAndBack { held } => {
                    if !server.held.is_empty() {
                        let at = held % server.held.len();
                        let mut back = server.held.remove(at);
                        moved.extend(server.uidl_listed(&back.name));
                        back.uid = server.next_uid;
                        server.next_uid += 1;
                        server.held.push(back);
                    }
                }
                Step::Finalise => server.is_final = true,
                Step::LoseUidvalidity => {
                    server.uidvalidity += 1;
                    for (uid, held) in (1..).zip(&mut server.held) {
                        held.uid = uid;
                    }
                    server.next_uid = server.held.len() as u32 + 1;
                }
                Step::Poll => {
                    let listing = server.listing();
                    for (uidl, mail) in &listing {
                        let before = seen.entry(uidl.clone()).or_insert_with(|| mail.clone());
                        prop_assert_eq!(
                            (before.header, before.body), (mail.header, mail.body),
                            "{} was seen on another message", uidl
                        );
                    }
                    let now: Vec<Uidl> = listing.into_iter().map(|(uidl, _)| uidl).collect();
                    // What was there all the time stays in its order.
                    let in_order = |of: &[Uidl]| -> Vec<Uidl> {
                        of.iter().filter(|u| last.contains(u) && now.contains(u)).filter(|u| !moved.contains(u)).cloned().collect()
                    };
                    prop_assert_eq!(in_order(&last), in_order(&now));
                    moved.clear();
                    last = now;
                }
            }
        }
    }

    /// What the keys can tell is kept: distinct old messages, copied in any order and any way while
    /// the index is open, all keep their UIDLs.
    #[test]
    fn every_message_that_its_keys_can_tell_keeps_its_uidl(
        count in 1..30usize,
        seed in any::<u64>(),
        late in 0..30usize,
    ) {
        let old: Vec<Mail> =
            (0..count).map(|n| mail(&format!("old{n}"), n as u8, n as u8)).collect();
        let names: Vec<String> = (0..count).map(|n| format!("UID{}-17", n + 1)).collect();
        let listed: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&old).collect();
        let mut server = Server::new(captured(&listed));
        server.is_final = false;
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&n| (n as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        for (nth, &n) in order.iter().enumerate() {
            if nth == late {
                server.log_in();
            }
            server.copy(&old[n], (seed >> (n % 64)) & 1 == 0);
        }
        let listing = server.listing();
        prop_assert_eq!(listing.len(), count);
        for (uidl, mail) in listing {
            let n = old.iter().position(|m| *m == mail).unwrap();
            prop_assert_eq!(uidl.to_string(), &names[n][..]);
        }
    }
}
