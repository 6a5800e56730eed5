//! The rules: from what was captured, what is in the maildrop and what clients were told, to what
//! they are told now.
//!
//! [`resolve`] is a pure function. It does no I/O and knows nothing of Dovecot; the plugin and the
//! helper's forecast both call it. When it lacks a costly fact about a message it does not guess: it
//! answers [`Outcome::Ask`], the caller finds the facts and calls again with them. Each call starts
//! from the same inputs, so that the last one decides alone.
//!
//! # Invariants
//!
//! 1. **Once.** An entry goes to at most one message, a message takes at most one entry.
//! 2. **Listed stays.** A message in the ledger keeps its UIDL and its place. An entry that was
//!    claimed stays claimed when its message is gone; only a message with the entry's `file` key,
//!    alone with it in the maildrop, may take it again. The ledger's UIDs are believed while
//!    UIDVALIDITY is the same, the mailbox counts on, and all that was listed bears the names that it was
//!    listed under (where names cost something, it is enough that Dovecot's index is still the same);
//!    otherwise messages are known by their names.
//! 3. **Cheap first.** Names, and the UID where UIDVALIDITY is the captured one, are compared first and
//!    together. If they disagree the message is unknown, and said to be in [`Report::conflicts`]. A
//!    fingerprint is asked for only while an unclaimed entry remains that it could decide.
//! 4. **Copies.** Entries with equal `message` keys pair with their messages in maildrop order. Equal
//!    `header` or `origin` keys alone pair only when one entry and one message are left, or, for
//!    `header`, where octets single out one of each. While a message cannot be read, which might have
//!    that header too, octets must agree as well: otherwise nothing is recorded of the message that has
//!    it. With `origin` octets say nothing: each delivery adds some.
//! 5. **Cutoff.** Once a final index was resolved, what has a UID above the cutoff may be claimed by
//!    `file` and `message` only. Where clients were told something and the ledger is lost, the cutoff is
//!    too: then a message that only `header` or `origin` could tell is [`Refusal::LedgerLost`], and
//!    [`Refusal::Unrecorded`] where a cutoff could not be recorded.
//! 6. **Spent.** A message that is unknown gets what Dovecot alone would give, unless some client may
//!    hold that UIDL for another message: one that the old server had, one in the ledger, or one whose
//!    UID was given before the mailbox began to count anew. Then it gets a derived one, in a form no
//!    server uses.
//! 7. **Append only.** What is listed for the first time goes behind all that ever was: first the old
//!    order, then what clients may know from an earlier listing, then by UID. Order numbers are never
//!    given twice.
//! 8. **Few is a fault.** A message that alone cannot be read gets a derived UIDL for this session
//!    and nothing is recorded of it; more than a hundredth (and more than three) of such, and of those
//!    that cannot be told from them, is [`Refusal::Unreadable`]. A first listing with fewer than half of
//!    the captured messages is [`Refusal::HalfCopied`].
//!
//! # What no rule can hold
//!
//! A new message with the header of an old one that was never copied, which comes before the first
//! listing of a final index, is taken for it where only headers were captured. And what was told while
//! nothing could be written is not known when, before anything can be, Dovecot gives UIDs anew, or room is
//! made and mail comes.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use arrayvec::ArrayVec;

use crate::format::{Fields, UidlFormat};
use crate::key::{FileKey, Fingerprint};
use crate::ledger::{How, Ledger, Mark, NAME_OCTETS, Record, user_digest};
use crate::maildrop::{Entry, Maildrop};
use crate::uidl::Uidl;

/// Which keys may match. The default is what `uidl_keep_match` defaults to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Base file names and GUIDs.
    pub file: bool,
    /// Normalised header and body.
    pub message: bool,
    /// Normalised header.
    pub header: bool,
    /// The header without what relays add: for mail that was redelivered.
    pub origin: bool,
}

impl Default for Match {
    fn default() -> Self {
        Self { file: true, message: true, header: true, origin: false }
    }
}

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A POP3 client is about to be told: everything gets an answer, and it is for ever.
    Listing {
        /// Whether a first listing is refused while fewer than half of the messages are there.
        guarded: bool,
    },
    /// doveadm or dsync asks: only what was listed or is kept, and nothing is frozen.
    Look,
}

/// A fact about a message that may not have been looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fact<T> {
    /// Not looked for yet.
    #[default]
    NotAsked,
    /// Looked for: there is none.
    Absent,
    /// Looked for and found.
    Is(T),
}

impl<T> Fact<T> {
    /// What was found, if it was looked for.
    pub fn found(option: Option<T>) -> Self {
        option.map_or(Self::Absent, Self::Is)
    }

    fn is_asked(&self) -> bool {
        !matches!(self, Self::NotAsked)
    }

    fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::NotAsked | Self::Absent => None,
        }
    }
}

/// One message of the new maildrop, as far as is known.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its UID.
    pub uid: u32,
    /// Its name, where it is to be had for nothing: [`Ledger::name_of`] its base file name.
    pub free_name: Option<[u8; NAME_OCTETS]>,
    /// Its base file name and its GUID, as far as the storage has them; asked for as [`Need::Names`].
    pub names: Fact<ArrayVec<FileKey, 2>>,
    /// The UIDL that Dovecot's storage holds for it (`P`); asked for as [`Need::Names`].
    pub stored: Option<Uidl>,
    /// The order number that Dovecot's storage holds for it (`O`); asked for as [`Need::Names`].
    pub stored_order: Option<u32>,
    /// Asked for as [`Need::Header`].
    pub header: Fact<Fingerprint>,
    /// Asked for as [`Need::Header`].
    pub origin: Fact<Fingerprint>,
    /// Its size with CRLF line ends; asked for as [`Need::Octets`].
    pub octets: Fact<u64>,
    /// Asked for as [`Need::Message`].
    pub message: Fact<Fingerprint>,
    /// What Dovecot alone would give; asked for as [`Need::Own`].
    pub own: Fact<Uidl>,
    /// It could not be read, and cannot be downloaded either.
    pub unreadable: bool,
}

/// What is known of the maildrop as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What the old server said.
    pub captured: &'a Maildrop,
    /// Whether more captures may follow.
    pub is_final: bool,
    /// What clients were told.
    pub past: Past<'a>,
    /// Whether what is told now will be known at the next login, or no mail can come until then.
    pub can_record: bool,
    /// When the operator had the maildrop forgotten last: see [`Ledger::begun_after`].
    pub begun_after: u64,
    /// The mailbox's UIDVALIDITY.
    pub uidvalidity: u32,
    /// The UID that the next message will get.
    pub next_uid: u32,
    /// Which of Dovecot's index files says so: see [`Ledger::index_id`].
    pub index_id: u32,
    /// `pop3_uidl_format`, where it is one that we can follow.
    pub own: Option<&'a UidlFormat>,
    /// Which keys may match.
    pub keys: Match,
    /// What the answer is for.
    pub purpose: Purpose,
}

/// What clients of the maildrop were told before.
#[derive(Debug, Clone, Copy)]
pub enum Past<'a> {
    /// Nothing: this would be the first listing.
    New,
    /// This.
    Listed(&'a Ledger),
    /// This, as far as it is still there, and the operator has had it forgotten: it counts for no
    /// message any more, but clients may hold it. A cutoff stays: what came after it is new, whatever
    /// was wrong.
    Forgotten(Mark, Option<&'a Ledger>),
    /// Something, and what it was is lost.
    Lost(Mark),
}

impl<'a> Past<'a> {
    /// The past of a maildrop which the operator had forgotten last at `forgotten`, and which has this
    /// ledger and this mark, if any.
    pub fn of(ledger: Option<&'a Ledger>, mark: Option<Mark>, forgotten: u64) -> Self {
        match (ledger.map(Ledger::mark).or(mark), ledger) {
            (None, _) => Self::New,
            (Some(mark), _) if mark.begun_after < forgotten => Self::Forgotten(mark, ledger),
            (Some(_), Some(ledger)) => Self::Listed(ledger),
            (Some(mark), None) => Self::Lost(mark),
        }
    }

    /// The ledger that holds.
    fn listed(self) -> Option<&'a Ledger> {
        match self {
            Self::Listed(ledger) => Some(ledger),
            Self::New | Self::Forgotten(..) | Self::Lost(_) => None,
        }
    }

    /// The ledger that holds no more.
    fn forgotten(self) -> Option<&'a Ledger> {
        match self {
            Self::Forgotten(_, ledger) => ledger,
            Self::New | Self::Listed(_) | Self::Lost(_) => None,
        }
    }

    /// The ledger, whether it holds or not.
    fn ledger(self) -> Option<&'a Ledger> {
        self.listed().or(self.forgotten())
    }

    fn mark(self) -> Option<Mark> {
        match self {
            Self::Listed(ledger) => Some(ledger.mark()),
            Self::Forgotten(mark, _) | Self::Lost(mark) => Some(mark),
            Self::New => None,
        }
    }

    /// Whether this is the first listing that counts, as far as can be told.
    pub fn is_first(self) -> bool {
        !matches!(self, Self::Listed(_) | Self::Lost(_))
    }
}

/// What must be found out about a message before the rules can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Its names, `stored` and `stored_order`.
    Names,
    /// `header` and `origin`.
    Header,
    /// `octets`.
    Octets,
    /// `message`, and with it all that [`Need::Header`] asks for.
    Message,
    /// `own`.
    Own,
}

/// What [`resolve`] says.
#[derive(Debug)]
pub enum Outcome {
    /// These facts are needed, each of the message at that place; call again with them.
    Ask(Vec<(usize, Need)>),
    /// Every rule was applied.
    Resolved(Box<Resolution>),
    /// The rules forbid an answer now.
    Refused(Refusal),
}

/// Why the rules forbid an answer: could not tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A client that sees a half-copied maildrop forgets the rest.
    #[error(
        "{found} of {captured} captured messages are here, fewer than half: finish the copy, or \
         `uidl-keep release` the user if that is all"
    )]
    HalfCopied {
        /// Captured messages recognised here.
        found: usize,
        /// Captured messages that can be recognised.
        captured: usize,
    },
    /// More messages than can be an accident.
    #[error(
        "{unreadable} of {messages} messages, or more, cannot be read, or told from such: mend the mailbox"
    )]
    Unreadable {
        /// Messages that could not be read, or not be told from one that could not.
        unreadable: usize,
        /// Messages in the maildrop.
        messages: usize,
    },
    /// What clients were told is lost, and with it what later messages may not be taken for.
    #[error(
        "clients were told something, the ledger is gone, and {messages} messages can be told by their \
         headers only: restore the ledger, or `uidl-keep forget` the user"
    )]
    LedgerLost {
        /// Messages that a header would settle, were this the first listing.
        messages: usize,
    },
    /// The same, as nothing can be recorded.
    #[error(
        "{messages} messages can be told by their headers only, and that cannot be recorded: let the \
         mail's user write into the control directory"
    )]
    Unrecorded {
        /// Messages that a header would settle, were it recorded.
        messages: usize,
    },
}

/// What clients are told, and what the operator may want to know of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The ledger from now on. For [`Purpose::Look`] it holds only what was listed or is kept.
    pub ledger: Ledger,
    /// Answers for this session only: messages of which nothing is recorded. What cannot be read stands
    /// behind all others: a client that stops there has got the rest. What can be read, and was not
    /// told from it, stands before all others, with the order number 0: it will be known tomorrow, and
    /// what is new then must not have it behind itself.
    pub passing: Vec<Record>,
    /// Places in `ledger.records` of what was not in the old ledger.
    pub news: Vec<usize>,
    /// For the log.
    pub report: Report,
}

/// How the messages that were not listed before came by their UIDLs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// By how many keys of each kind.
    pub by_how: HashMap<How, usize>,
    /// UIDs of messages whose keys disagree.
    pub conflicts: Vec<u32>,
    /// UIDs of messages of which nothing is recorded: they could not be read, or could not be told from
    /// one that could not be read.
    pub undecided: Vec<u32>,
    /// Entries with a key that may match, which no message has claimed yet.
    pub unclaimed: usize,
    /// At a first listing: messages that have their UIDL in common with another, as the old server
    /// gave it.
    pub repeated: usize,
}

/// Of so many messages, how many may be unreadable before that is no accident any more.
pub fn most_unreadable(messages: usize) -> usize {
    3.max(messages / 100)
}

/// Applies the rules.
///
/// `messages` are those of the maildrop, ascending by UID. The cost is a few passes over entries and
/// messages; an [`Outcome::Ask`] names each message at most once a kind of fact.
pub fn resolve(user: &str, situation: &Situation<'_>, messages: &[Message]) -> Outcome {
    let mut run = Run::new(situation, messages);
    if let Some(asked) = run.ask_names() {
        return asked;
    }
    run.replay_listed();
    run.take_again();
    run.take_stored_after_first_listing();
    run.match_files();
    if let Some(asked) = run.match_contents() {
        return asked;
    }
    run.take_stored();
    run.finish(user)
}

/// Where more entries share a name up to the first comma, it says nothing.
const MOST_OF_A_CUT: usize = 64;

/// A message's own answer: derived, so that it is the same as long as the message is.
///
/// The form `~` 32 hex digits `~` is used by no server.
fn derived(user: &str, uidvalidity: u32, message: &Message) -> Uidl {
    let mut hasher = blake3::Hasher::new_derive_key("uidl-keep 2026-11 derived UIDL");
    hasher.update(&(user.len() as u64).to_le_bytes()).update(user.as_bytes());
    hasher.update(&uidvalidity.to_le_bytes()).update(&message.uid.to_le_bytes());
    if let Some(name) = message.names().last() {
        hasher.update(&name.cut);
    }
    let hex = hasher.finalize().to_hex();
    Uidl::new(format!("~{}~", &hex[..32]).into_bytes()).expect("printable and short")
}

/// An answer found for a message.
#[derive(Debug, Clone)]
struct Found {
    uidl: Uidl,
    how: How,
    entry: Option<usize>,
    /// The order number of the record that it takes again.
    again: Option<u32>,
}

/// One application of the rules.
struct Run<'a> {
    situation: &'a Situation<'a>,
    entries: &'a [Entry],
    messages: &'a [Message],
    /// Whether the ledger's UIDs still mean what they meant.
    uids_hold: bool,
    /// Whether only names can tell that, of all that was listed.
    names_must_agree: bool,
    /// By message: its record in the old ledger.
    listed: Vec<Option<&'a Record>>,
    /// By message: an answer found now.
    found: Vec<Option<Found>>,
    /// By message: its cheap keys disagree, or name what another message has: no further key may
    /// decide.
    settled_unknown: Vec<bool>,
    /// By message: it cannot be told from one that cannot be read.
    doubtful: Vec<bool>,
    /// Messages that a header would settle, were it known what clients were told.
    untold: usize,
    /// By entry: taken by a message listed before, by one long gone, or by one in this run.
    claimed: Vec<bool>,
    /// By entry: the record that claimed it, if its message is gone.
    claimed_by_gone: Vec<bool>,
    /// Old records whose message is not there, or not under this UIDVALIDITY.
    gone: Vec<&'a Record>,
    /// By order number of an old record: the entry that it claims.
    claim_of: HashMap<u32, usize>,
    /// By entry: the order number of the old record that claims it, if its message is gone.
    gone_claim_of: HashMap<usize, u32>,
    conflicts: Vec<u32>,
}

impl<'a> Run<'a> {
    fn new(situation: &'a Situation<'a>, messages: &'a [Message]) -> Self {
        let entries = &situation.captured.entries[..];
        let mut run = Self {
            situation,
            entries,
            messages,
            uids_hold: false,
            names_must_agree: false,
            listed: vec![None; messages.len()],
            found: vec![None; messages.len()],
            settled_unknown: vec![false; messages.len()],
            doubtful: vec![false; messages.len()],
            untold: 0,
            claimed: vec![false; entries.len()],
            claimed_by_gone: vec![false; entries.len()],
            gone: Vec::new(),
            claim_of: HashMap::new(),
            gone_claim_of: HashMap::new(),
            conflicts: Vec::new(),
        };
        run.find_listed_by_uid();
        run
    }

    /// Rule 2: by UID, as long as UIDs mean what they meant.
    fn find_listed_by_uid(&mut self) {
        let Situation { past, uidvalidity, next_uid, index_id, .. } = *self.situation;
        let Some(mark) = past.mark() else { return };
        let counts_on = mark.uidvalidity == uidvalidity && mark.next_uid <= next_uid;
        let same_index = mark.index_id == index_id;
        let Some(ledger) = past.ledger().filter(|_| counts_on) else {
            self.uids_hold = counts_on && same_index;
            return;
        };
        let by_uid: HashMap<u32, &Record> =
            ledger.records.iter().filter(|r| r.uid != 0).map(|r| (r.uid, r)).collect();
        let listed: Vec<_> =
            self.messages.iter().map(|message| by_uid.get(&message.uid).copied()).collect();
        self.names_must_agree = !same_index;
        self.uids_hold = listed.iter().zip(self.messages).all(|(record, message)| {
            let Some(name) = record.and_then(|record| record.name) else { return true };
            match (message.free_name, &message.names) {
                (Some(free), _) => free == name,
                // Where this is not enough, names are asked for; one that cannot be read has not said it.
                (None, Fact::NotAsked) => same_index,
                (None, Fact::Is(_) | Fact::Absent) => {
                    message.names().iter().any(|known| known.cut == name)
                }
            }
        });
        if self.uids_hold && past.listed().is_some() {
            self.listed = listed;
        }
    }

    /// Names cost little, but not nothing: only what was not listed is asked for them.
    fn ask_names(&self) -> Option<Outcome> {
        let wanted = (0..self.messages.len())
            .filter(|&m| self.listed[m].is_none())
            .filter(|&m| !self.messages[m].unreadable && !self.messages[m].names.is_asked())
            .map(|m| (m, Need::Names));
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() { None } else { self.refuse_unreadable().or_else(|| ask(wanted)) }
    }

    /// Rule 2: what was listed, by UID or, where UIDs mean nothing any more, by name.
    fn replay_listed(&mut self) {
        let Some(ledger) = self.situation.past.listed() else { return };
        if !self.uids_hold {
            self.find_listed_by_name(ledger);
        }
        let present: HashSet<u32> = self.listed.iter().flatten().map(|r| r.order).collect();
        let entries_of = entries_by_uidl(self.entries);
        // A record's entry is the one at its place if that has its UIDL; in an index that was built
        // anew, any unclaimed one with its UIDL. First those that are exact.
        let exact = |r: &Record| {
            let e = r.entry? as usize;
            (self.entries.get(e)?.uidl == r.uidl).then_some(e)
        };
        let mut loose = Vec::new();
        for record in &ledger.records {
            let is_gone = !present.contains(&record.order);
            if is_gone {
                self.gone.push(record);
            }
            match exact(record) {
                Some(e) if !self.claimed[e] => self.replay_claim(record, e, is_gone),
                _ => loose.push((record, is_gone)),
            }
        }
        for (record, is_gone) in loose {
            let free = entries_of.get(&record.uidl).into_iter().flatten();
            if let Some(&e) = free.into_iter().find(|&&e| !self.claimed[e]) {
                self.replay_claim(record, e, is_gone);
            }
        }
    }

    fn replay_claim(&mut self, record: &Record, e: usize, is_gone: bool) {
        self.claimed[e] = true;
        self.claimed_by_gone[e] = is_gone;
        self.claim_of.insert(record.order, e);
        if is_gone {
            self.gone_claim_of.insert(e, record.order);
        }
    }

    /// Messages take the records that were listed last under their names, in order: what bears one name
    /// has one content. Names that lead to two records say nothing.
    fn find_listed_by_name(&mut self, ledger: &'a Ledger) {
        let mut listed_as: HashMap<[u8; NAME_OCTETS], (Vec<&'a Record>, Vec<usize>)> =
            HashMap::new();
        for record in &ledger.records {
            if let Some(name) = record.name {
                listed_as.entry(name).or_default().0.push(record);
            }
        }
        for (m, message) in self.messages.iter().enumerate() {
            let mut cuts: ArrayVec<_, 2> = message.names().iter().map(|name| name.cut).collect();
            cuts.retain(|cut| listed_as.contains_key(cut));
            if let [cut] | [cut, _] = cuts[..] {
                if cuts.iter().all(|other| *other == cut) {
                    listed_as.entry(cut).or_default().1.push(m);
                }
            }
        }
        for (mut records, messages) in listed_as.into_values() {
            records.sort_unstable_by_key(|record| record.order);
            let more_records = records.len().saturating_sub(messages.len());
            for (record, m) in records.into_iter().skip(more_records).zip(messages) {
                self.listed[m] = Some(record);
            }
        }
    }

    /// Rule 2: what went and came back under its name, alone with it, takes its UIDL again, and where no
    /// listing was recorded without it, its place.
    fn take_again(&mut self) {
        for (m, record) in self.alone_with_the_name_of(&self.gone) {
            let entry = self.claim_of.get(&record.order).copied();
            if let Some(e) = entry {
                self.claimed_by_gone[e] = false;
            }
            if record.uid != 0 {
                self.listed[m] = Some(record);
                continue;
            }
            let (uidl, how) = (record.uidl.clone(), record.how);
            self.found[m] = Some(Found { uidl, how, entry, again: Some(record.order) });
        }
    }

    /// Open messages that alone in the maildrop bear the name of one of the records, each with the one
    /// of them that was listed last.
    fn alone_with_the_name_of(&self, records: &[&'a Record]) -> Vec<(usize, &'a Record)> {
        if records.is_empty() {
            return Vec::new();
        }
        let mut in_order = records.to_vec();
        in_order.sort_unstable_by_key(|record| record.order);
        let newest: HashMap<[u8; NAME_OCTETS], &'a Record> =
            in_order.into_iter().filter_map(|record| Some((record.name?, record))).collect();
        let bearers = self.bearers();
        let pairs = self.open_messages().into_iter().filter_map(|m| {
            let names = self.messages[m].names();
            let mut named: Vec<&'a Record> = (names.iter())
                .filter(|name| bearers.get(&name.cut).len() == 1)
                .filter_map(|name| newest.get(&name.cut).copied())
                .collect();
            named.dedup_by_key(|record| record.order);
            // Names that lead to two records say nothing.
            if let [record] = named[..] { Some((m, record)) } else { None }
        });
        pairs.collect()
    }

    /// The messages of the whole maildrop by the names that they bear, and those that they were listed
    /// under.
    fn bearers(&self) -> Multimap {
        let mut bearers = Vec::with_capacity(self.messages.len());
        for (m, (message, listed)) in self.messages.iter().zip(&self.listed).enumerate() {
            bearers.extend(message.names().iter().map(|name| (name.cut, m)));
            bearers.extend(listed.and_then(|record| record.name).map(|name| (name, m)));
        }
        Multimap::new(bearers)
    }

    fn is_open(&self, m: usize) -> bool {
        self.listed[m].is_none() && self.found[m].is_none() && !self.settled_unknown[m]
    }

    fn open_messages(&self) -> Vec<usize> {
        (0..self.messages.len()).filter(|&m| self.is_open(m)).collect()
    }

    fn claim(&mut self, m: usize, e: usize, how: How) {
        debug_assert!(self.is_open(m));
        self.claimed[e] = true;
        self.claimed_by_gone[e] = false;
        self.found[m] =
            Some(Found { uidl: self.entries[e].uidl.clone(), how, entry: Some(e), again: None });
    }

    /// Rules 1 to 3 for what costs nothing: names, with the UID beside them.
    fn match_files(&mut self) {
        if !self.situation.keys.file {
            return;
        }
        let mut named_entries = Vec::with_capacity(self.entries.len());
        for (e, entry) in self.entries.iter().enumerate() {
            named_entries.extend(entry.file_keys().map(|key| (key.cut, e)));
        }
        if named_entries.is_empty() {
            return;
        }
        let entries_of = Multimap::new(named_entries);
        let uids_agree = self.situation.captured.uidvalidity == Some(self.situation.uidvalidity);
        let entry_of_uid: HashMap<u32, usize> = if uids_agree {
            self.entries.iter().enumerate().filter_map(|(e, n)| Some((n.uid?, e))).collect()
        } else {
            HashMap::new()
        };
        // Messages by the set of entries that their names allow, in UID order. Nearly every set is of
        // one entry, and of one message.
        let mut bearing: Vec<(Vec<usize>, usize)> = Vec::new();
        for m in self.open_messages() {
            match self.entries_named(m, &entries_of, &entry_of_uid) {
                Named::None => {}
                Named::Disagree => {
                    self.conflicts.push(self.messages[m].uid);
                    self.settled_unknown[m] = true;
                }
                Named::Entries(named) => bearing.push((named, m)),
            }
        }
        // Narrow sets first: what only one entry fits must not be taken by what several fit.
        bearing.sort_by(|(a, m), (b, n)| (a.len(), a, m).cmp(&(b.len(), b, n)));
        let mut bearers = None;
        for group in bearing.chunk_by(|(a, _), (b, _)| a == b) {
            let named = &group[0].0;
            let mut free: Vec<usize> =
                named.iter().copied().filter(|&e| !self.claimed[e]).collect();
            if let ([e], [(_, m)], []) = (&named[..], group, &free[..]) {
                let is_back = self.claimed_by_gone[*e] && {
                    let bearers = bearers.get_or_insert_with(|| self.bearers());
                    self.entries[*e].file_keys().all(|key| bearers.get(&key.cut).len() <= 1)
                };
                if is_back {
                    let again = self.gone_claim_of.get(e).copied();
                    self.claim(*m, *e, How::File);
                    if let Some(found) = &mut self.found[*m] {
                        found.again = again;
                    }
                    continue;
                }
            }
            free.reverse();
            for (_, m) in group {
                match free.pop() {
                    Some(e) => self.claim(*m, e, How::File),
                    // Its name is an entry's that another message has: a copy made here.
                    None => self.settled_unknown[*m] = true,
                }
            }
        }
    }

    fn entries_named(
        &self,
        m: usize,
        entries_of: &Multimap,
        entry_of_uid: &HashMap<u32, usize>,
    ) -> Named {
        let message = &self.messages[m];
        let mut agreed: Option<Vec<usize>> = None;
        for name in message.names() {
            let cut_equal = || entries_of.get(&name.cut).iter().map(|(_, e)| *e);
            // Names that so many have in common up to the comma are somebody's joke, and say nothing.
            if !(1..=MOST_OF_A_CUT).contains(&cut_equal().len()) {
                continue;
            }
            let is_whole = |e: &usize| self.entries[*e].file_keys().any(|key| key == *name);
            let any_whole = cut_equal().any(|e| is_whole(&e));
            let named = cut_equal().filter(|e| !any_whole || is_whole(e));
            let both: Vec<usize> = match agreed {
                None => named.collect(),
                Some(before) => named.filter(|e| before.contains(e)).collect(),
            };
            if both.is_empty() {
                return Named::Disagree;
            }
            agreed = Some(both);
        }
        let Some(named) = agreed else { return Named::None };
        match entry_of_uid.get(&message.uid) {
            None => Named::Entries(named),
            Some(e) if named.contains(e) => Named::Entries(vec![*e]),
            Some(_) => Named::Disagree,
        }
    }

    /// Rule 8, for messages that have no answer yet.
    fn refuse_unreadable(&self) -> Option<Outcome> {
        let messages = self.messages.len();
        let unanswered = |m: &usize| self.listed[*m].is_none() && self.found[*m].is_none();
        let unreadable = (0..messages).filter(unanswered).filter(|&m| self.is_undecided(m)).count();
        let refusal = Refusal::Unreadable { unreadable, messages };
        (unreadable > most_unreadable(messages)).then_some(Outcome::Refused(refusal))
    }

    /// Rules 3 to 5 for what must be read.
    fn match_contents(&mut self) -> Option<Outcome> {
        if let Some(refused) = self.refuse_unreadable() {
            return Some(refused);
        }
        let keys = self.situation.keys;
        if let Some(asked) = self.ask_headers() {
            return Some(asked);
        }
        if keys.message {
            if let Some(asked) = self.ask_messages() {
                return Some(asked);
            }
            self.match_messages();
        }
        if keys.header {
            if let Some(asked) = self.match_alone(How::Header, |e| e.header, |m| m.header) {
                return Some(asked);
            }
        }
        if keys.origin {
            return self.match_alone(How::Origin, |e| e.origin, |m| m.origin);
        }
        None
    }

    fn unclaimed(&self) -> impl Iterator<Item = &'a Entry> + '_ {
        self.entries.iter().zip(&self.claimed).filter(|(_, claimed)| !**claimed).map(|(e, _)| e)
    }

    /// Whether `header` or `origin` alone may claim for this message (rule 5).
    fn is_below_cutoff(&self, m: usize) -> bool {
        match self.situation.past.mark() {
            None => true,
            // UIDs begin anew: all that was there before the change is known by name.
            Some(mark) if !self.uids_hold => mark.cutoff.is_none(),
            Some(mark) => mark.cutoff.is_none_or(|cutoff| {
                // Where UIDs may have been given anew, one that the last listing did not have is new.
                let message = &self.messages[m];
                let may_be_new = self.names_must_agree || message.free_name.is_some();
                message.uid <= cutoff && !(may_be_new && self.is_out_of_turn(message.uid))
            }),
        }
    }

    fn ask_headers(&self) -> Option<Outcome> {
        let keys = self.situation.keys;
        let any_alone = (0..self.entries.len()).any(|e| {
            let entry = &self.entries[e];
            self.may_claim_alone(e)
                && ((keys.header && entry.header.is_some())
                    || (keys.origin && entry.origin.is_some()))
        });
        let any_copies =
            keys.message && self.unclaimed().any(|e| e.message.is_some() && e.header.is_some());
        let wanted = (self.open_messages().into_iter())
            .filter(|&m| any_copies || (any_alone && self.is_below_cutoff(m)))
            .filter(|&m| !self.messages[m].unreadable && !self.messages[m].header.is_asked())
            .map(|m| (m, Need::Header));
        ask(wanted.collect())
    }

    /// Whole messages are read only where the header leaves it open: where an unclaimed entry with a
    /// `message` key has the same header, or none.
    fn ask_messages(&self) -> Option<Outcome> {
        let mut headers = HashSet::new();
        let mut any_without_header = false;
        for entry in self.unclaimed().filter(|e| e.message.is_some()) {
            match entry.header {
                Some(header) => _ = headers.insert(header),
                None => any_without_header = true,
            }
        }
        let wanted = (self.open_messages().into_iter())
            .filter(|&m| {
                any_without_header
                    || self.messages[m].header.get().is_some_and(|h| headers.contains(h))
            })
            .filter(|&m| !self.messages[m].unreadable && !self.messages[m].message.is_asked())
            .map(|m| (m, Need::Message));
        ask(wanted.collect())
    }

    /// Rule 4, first half: equal contents pair in maildrop order.
    fn match_messages(&mut self) {
        let mut entries_of: HashMap<Fingerprint, Vec<usize>> = HashMap::new();
        for (e, entry) in self.entries.iter().enumerate().rev() {
            if let (Some(key), false) = (entry.message, self.claimed[e]) {
                entries_of.entry(key).or_default().push(e);
            }
        }
        for m in self.open_messages() {
            let key = self.messages[m].message.get();
            if let Some(e) = key.and_then(|key| entries_of.get_mut(key)).and_then(Vec::pop) {
                self.claim(m, e, How::Message);
            }
        }
    }

    /// Rule 4, second half: an equal header or origin pairs only what is alone, an equal header also what
    /// is alone in its size.
    fn match_alone(
        &mut self,
        how: How,
        of_entry: impl Fn(&Entry) -> Option<Fingerprint>,
        of_message: impl Fn(&Message) -> Fact<Fingerprint>,
    ) -> Option<Outcome> {
        let mut groups: HashMap<Fingerprint, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for (e, entry) in self.entries.iter().enumerate() {
            if let (Some(key), true) = (of_entry(entry), self.may_claim_alone(e)) {
                groups.entry(key).or_default().0.push(e);
            }
        }
        for m in self.open_messages() {
            if let Fact::Is(key) = of_message(&self.messages[m]) {
                if let Some(group) = groups.get_mut(&key) {
                    group.1.push(m);
                }
            }
        }
        let any_unreadable = self.open_messages().iter().any(|&m| self.messages[m].unreadable);
        let mut sizes_wanted = Vec::new();
        for (entries, messages) in groups.into_values() {
            let is_alone = entries.len() == 1 && messages.len() == 1;
            if is_alone && !any_unreadable {
                self.claim_alone(messages[0], entries[0], how);
                continue;
            }
            if how == How::Header && entries.iter().any(|&e| self.entries[e].octets.is_some()) {
                let unsized_messages = messages.iter().filter(|&&m| {
                    !self.messages[m].unreadable && !self.messages[m].octets.is_asked()
                });
                sizes_wanted.extend(unsized_messages.map(|&m| (m, Need::Octets)));
                for (e, m) in self.alone_in_size(&entries, &messages) {
                    self.claim_alone(m, e, how);
                }
            }
            if is_alone && self.is_open(messages[0]) && self.is_below_cutoff(messages[0]) {
                self.doubtful[messages[0]] = true;
            }
        }
        sizes_wanted.sort_unstable_by_key(|(m, _)| *m);
        ask(sizes_wanted)
    }

    fn claim_alone(&mut self, m: usize, e: usize, how: How) {
        if !self.is_below_cutoff(m) {
            return;
        }
        let Situation { past, is_final, can_record, .. } = *self.situation;
        let has_cutoff = past.mark().is_some_and(|mark| mark.cutoff.is_some());
        match past {
            Past::Lost(_) => self.untold += 1,
            // The next message with this header would be taken for it.
            _ if is_final && !can_record && !has_cutoff => self.untold += 1,
            Past::New | Past::Listed(_) | Past::Forgotten(..) => self.claim(m, e, how),
        }
    }

    /// Entry and message of one size, where no other entry and no other message could be of that size.
    fn alone_in_size(&self, entries: &[usize], messages: &[usize]) -> Vec<(usize, usize)> {
        let fits_entry = |e: usize, octets: u64| self.entries[e].octets.is_none_or(|o| o == octets);
        let fits_message =
            |m: usize, octets: u64| self.messages[m].octets.get().is_none_or(|&o| o == octets);
        let mut pairs = Vec::new();
        for &e in entries {
            let Some(octets) = self.entries[e].octets else { continue };
            let mut same_entries = entries.iter().filter(|&&e| fits_entry(e, octets));
            let mut same_messages = messages.iter().filter(|&&m| fits_message(m, octets));
            let (Some(_), None) = (same_entries.next(), same_entries.next()) else { continue };
            let (Some(&m), None) = (same_messages.next(), same_messages.next()) else { continue };
            if self.messages[m].octets.get().is_some() {
                pairs.push((e, m));
            }
        }
        pairs
    }

    /// An entry with a `message` key was read and told apart at the old server: where that key may
    /// match, its header alone says nothing more.
    fn may_claim_alone(&self, e: usize) -> bool {
        let told_apart = self.situation.keys.message && self.entries[e].message.is_some();
        !self.claimed[e] && !told_apart
    }

    /// After the first listing what Dovecot's storage holds comes before the keys.
    fn take_stored_after_first_listing(&mut self) {
        if !self.situation.past.is_first() {
            self.take_stored();
        }
    }

    /// `P` that nobody else holds: of an unclaimed entry, or of none and not spent.
    fn take_stored(&mut self) {
        let mut open = self.open_messages();
        open.retain(|&m| self.messages[m].stored.is_some());
        if open.is_empty() {
            return;
        }
        let forgotten = self.forgotten_uidls();
        let entries_of = entries_by_uidl(self.entries);
        let mut held = self.held_uidls();
        for m in open {
            let stored = self.messages[m].stored.clone().expect("retained");
            if forgotten.contains(&stored) {
                continue;
            }
            let entries = entries_of.get(&stored).map_or(&[][..], Vec::as_slice);
            if let Some(e) = entries.iter().copied().find(|&e| !self.claimed[e]) {
                self.claim(m, e, How::Stored);
            } else if entries.is_empty() && !self.is_spent(&stored, m, &held) {
                held.insert(stored.clone());
                self.found[m] =
                    Some(Found { uidl: stored, how: How::Stored, entry: None, again: None });
            }
        }
    }

    /// What we baked as `P`, and what was forgotten since.
    fn forgotten_uidls(&self) -> HashSet<&'a Uidl> {
        let records =
            self.situation.past.forgotten().into_iter().flat_map(|ledger| &ledger.records);
        records.filter(|record| record.how != How::Stored).map(|record| &record.uidl).collect()
    }

    /// Every UIDL that some client may hold for a message that is not the one asked about.
    fn held_uidls(&self) -> HashSet<Uidl> {
        let captured = self.entries.iter().map(|e| &e.uidl).chain(&self.situation.captured.spent);
        let past = self.situation.past;
        let listed = past.listed().into_iter().flat_map(|ledger| &ledger.records);
        // What new messages were told before they were forgotten, they are told again.
        let forgotten = past.forgotten().into_iter().flat_map(|ledger| &ledger.records);
        let told = listed.chain(forgotten.filter(|record| record.how.is_kept()));
        let found = self.found.iter().flatten().map(|found| &found.uidl);
        captured.chain(told.map(|record| &record.uidl)).chain(found).cloned().collect()
    }

    /// Rule 6: whether some client may hold this UIDL, which is to be the message's, for another.
    fn is_spent(&self, uidl: &Uidl, m: usize, held: &HashSet<Uidl>) -> bool {
        let Situation { captured, uidvalidity, next_uid, own, .. } = *self.situation;
        let uid = self.messages[m].uid;
        let is_counted = || {
            let counter = captured.counter.as_ref()?;
            let number =
                counter.format.number_of(uidl.as_bytes(), captured.uidvalidity.unwrap_or(0))?;
            (number < counter.next).then_some(())
        };
        // In the maildrop's own format: what another message was or may have been told.
        let is_of_another = || {
            let number = match own {
                Some(own) => own.number_of(uidl.as_bytes(), uidvalidity)?,
                None => uid,
            };
            let is_another = number != uid && number < next_uid;
            (is_another || number < self.told_below() || self.is_out_of_turn(number)).then_some(())
        };
        held.contains(uidl) || is_counted().is_some() || is_of_another().is_some()
    }

    /// Whether a message that is not listed has a UID that was given before the last listing: then it
    /// may have been another's, which is known no more.
    fn is_out_of_turn(&self, uid: u32) -> bool {
        let Some(ledger) = self.situation.past.ledger().filter(|_| self.uids_hold) else {
            return false;
        };
        let is_known = ledger.records.binary_search_by_key(&uid, |record| record.uid).is_ok();
        uid < ledger.next_uid && !is_known
    }

    /// Below which UID the maildrop's own format may give again what clients were told.
    fn told_below(&self) -> u32 {
        let Situation { past, uidvalidity, own, .. } = *self.situation;
        let Some(mark) = past.mark() else { return 0 };
        if self.uids_hold || mark.told_below == u32::MAX {
            mark.told_below
        } else if mark.uidvalidity != uidvalidity && own.is_some_and(UidlFormat::has_uidvalidity) {
            0
        } else {
            mark.told_below.max(mark.next_uid)
        }
    }

    fn finish(mut self, user: &str) -> Outcome {
        let messages = self.messages;
        match (self.untold, self.situation.past) {
            (0, _) => {}
            (messages, Past::Lost(_)) => return Outcome::Refused(Refusal::LedgerLost { messages }),
            (messages, _) => return Outcome::Refused(Refusal::Unrecorded { messages }),
        }
        if let Some(refused) = self.refuse_unreadable() {
            return refused;
        }
        let unanswered = |m: usize| self.listed[m].is_none() && self.found[m].is_none();
        if let Purpose::Listing { guarded } = self.situation.purpose {
            if guarded && self.situation.past.is_first() {
                let found = self.found.iter().flatten().filter(|f| f.entry.is_some()).count();
                let captured = self.entries.iter().filter(|e| self.is_recognisable(e)).count();
                if found * 2 < captured {
                    return Outcome::Refused(Refusal::HalfCopied { found, captured });
                }
            }
            let wanted = (0..messages.len())
                .filter(|&m| unanswered(m) && !self.is_undecided(m))
                .filter(|&m| !messages[m].own.is_asked())
                .map(|m| (m, Need::Own));
            if let Some(asked) = ask(wanted.collect()) {
                return asked;
            }
            self.answer_unknown(user);
        }
        Outcome::Resolved(Box::new(self.resolution(user)))
    }

    /// Whether a message can be known by what was captured of the entry.
    fn is_recognisable(&self, entry: &Entry) -> bool {
        let keys = self.situation.keys;
        (keys.file && entry.file_keys().next().is_some())
            || (keys.message && entry.message.is_some())
            || (keys.header && entry.header.is_some())
            || (keys.origin && entry.origin.is_some())
    }

    /// Whether nothing can be recorded of a message that has no answer yet.
    fn is_undecided(&self, m: usize) -> bool {
        self.messages[m].unreadable || self.doubtful[m]
    }

    /// Rule 6: every message that is not kept gets an answer that no client holds.
    fn answer_unknown(&mut self, user: &str) {
        if self.open_messages().is_empty() && !self.settled_unknown.contains(&true) {
            return;
        }
        let mut held = self.held_uidls();
        for m in 0..self.messages.len() {
            let message = &self.messages[m];
            if self.listed[m].is_some() || self.found[m].is_some() || self.is_undecided(m) {
                continue;
            }
            let found = match message.own.get() {
                Some(own) if !self.is_spent(own, m, &held) => {
                    Found { uidl: own.clone(), how: How::Format, entry: None, again: None }
                }
                _ => Found {
                    uidl: derived(user, self.situation.uidvalidity, message),
                    how: How::Derived,
                    entry: None,
                    again: None,
                },
            };
            held.insert(found.uidl.clone());
            self.found[m] = Some(found);
        }
    }

    /// Rule 7, and the new ledger.
    fn resolution(self, user: &str) -> Resolution {
        let undecided: Vec<usize> = (0..self.messages.len())
            .filter(|&m| self.listed[m].is_none() && self.found[m].is_none())
            .filter(|&m| self.is_undecided(m))
            .collect();
        let told_below = self.told_below();
        let recognisable = self.entries.iter().zip(&self.claimed);
        let unclaimed = recognisable.filter(|(e, claimed)| !**claimed && self.is_recognisable(e));
        let mut report = Report { unclaimed: unclaimed.count(), ..Report::default() };
        let Self { situation, uids_hold, messages, listed, found, gone, conflicts, .. } = self;
        let old = situation.past.listed();
        let mut next_order = old.map_or(1, |ledger| ledger.next_order);
        let mut records: Vec<Record> = (listed.iter().zip(messages))
            .filter_map(|(record, message)| {
                record.map(|record| Record { uid: message.uid, ..record.clone() })
            })
            .collect();
        // What is gone stays a claim; of messages that came later nothing need be remembered.
        let again = found.iter().flatten().filter_map(|found| found.again);
        let back: HashSet<u32> = again.chain(listed.iter().flatten().map(|r| r.order)).collect();
        let claims = gone.into_iter().filter(|r| r.how.is_kept() && !back.contains(&r.order));
        records.extend(claims.map(|record| Record { uid: 0, ..record.clone() }));
        let mut fresh: Vec<(usize, Found)> =
            found.into_iter().enumerate().filter_map(|(m, found)| Some((m, found?))).collect();
        let agrees = |(m, found): &(usize, Found)| {
            let message = &messages[*m];
            message.stored_order.is_some_and(|order| order > 0)
                && message.stored.as_ref() == Some(&found.uidl)
        };
        let has_order = |(m, _): &(usize, Found)| messages[*m].stored_order.is_some();
        // A ledger that was lost is made again from what was baked, if nothing speaks against it.
        let replays = old.is_none() && fresh.iter().filter(|f| has_order(f)).all(&agrees);
        let told: HashSet<&Uidl> = situation
            .past
            .ledger()
            .into_iter()
            .flat_map(|ledger| &ledger.records)
            .map(|r| &r.uidl)
            .collect();
        fresh.sort_by_key(|f| {
            let (m, found) = f;
            let stored = messages[*m].stored_order.filter(|_| replays && agrees(f));
            (
                stored.map_or(u64::MAX, u64::from),
                found.entry.map_or(u64::MAX, |e| e as u64),
                !told.contains(&found.uidl),
                messages[*m].uid,
            )
        });
        report.conflicts = conflicts;
        let mut news = Vec::with_capacity(fresh.len());
        for (m, found) in fresh {
            *report.by_how.entry(found.how).or_default() += 1;
            news.push(messages[m].uid);
            records.push(Record {
                uid: messages[m].uid,
                order: next_order,
                uidl: found.uidl,
                how: found.how,
                name: messages[m].names().first().copied().map(Ledger::name_of),
                entry: found.entry.and_then(|e| u32::try_from(e).ok()),
            });
            next_order += 1;
        }
        records.sort_by_key(|record| (record.uid, record.order));
        let is_new: HashSet<u32> = news.into_iter().collect();
        let news = (0..records.len()).filter(|&r| is_new.contains(&records[r].uid)).collect();
        let passing: Vec<Record> = (undecided.into_iter().zip(next_order..))
            .map(|(m, behind_all)| Record {
                uid: messages[m].uid,
                order: if messages[m].unreadable { behind_all } else { 0 },
                uidl: derived(user, situation.uidvalidity, &messages[m]),
                how: How::Derived,
                name: None,
                entry: None,
            })
            .collect();
        report.undecided = passing.iter().map(|record| record.uid).collect();
        if situation.past.is_first() {
            report.repeated = count_repeated(&records, messages);
        }
        let old_cutoff = situation.past.mark().and_then(|mark| mark.cutoff);
        let cutoff = match (old_cutoff, situation.purpose) {
            // UIDs that mean nothing any more say nothing: all are above.
            (Some(cutoff), _) => Some(if uids_hold { cutoff } else { 0 }),
            (None, Purpose::Listing { .. }) if situation.is_final => {
                Some(situation.next_uid.saturating_sub(1))
            }
            (None, _) => None,
        };
        let mark = situation.past.mark().filter(|_| uids_hold);
        let old_next_uid = mark.map_or(0, |mark| mark.next_uid);
        let ledger = Ledger {
            user_digest: user_digest(user),
            uidvalidity: situation.uidvalidity,
            cutoff,
            next_order,
            index_id: situation.index_id,
            next_uid: situation.next_uid.max(old_next_uid),
            told_below,
            begun_after: situation.begun_after,
            records,
        };
        Resolution { ledger, passing, news, report }
    }
}

/// The places of the entries with each UIDL.
fn entries_by_uidl(entries: &[Entry]) -> HashMap<&Uidl, Vec<usize>> {
    let mut places: HashMap<&Uidl, Vec<usize>> = HashMap::with_capacity(entries.len());
    for (e, entry) in entries.iter().enumerate() {
        places.entry(&entry.uidl).or_default().push(e);
    }
    places
}

/// How many of the messages have their UIDL in common with another of them.
fn count_repeated(records: &[Record], messages: &[Message]) -> usize {
    let is_there = |uid: u32| messages.binary_search_by_key(&uid, |message| message.uid).is_ok();
    let mut uidls: Vec<&Uidl> =
        records.iter().filter(|record| is_there(record.uid)).map(|record| &record.uidl).collect();
    uidls.sort_unstable();
    uidls.chunk_by(|a, b| a == b).map(<[_]>::len).filter(|&len| len > 1).sum()
}

/// Places by name, in one allocation: maildrops are large, and a login's memory is not.
struct Multimap(Vec<([u8; NAME_OCTETS], usize)>);

impl Multimap {
    /// What has one name twice has it once.
    fn new(mut pairs: Vec<([u8; NAME_OCTETS], usize)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        Self(pairs)
    }

    /// The pairs of that name, by place.
    fn get(&self, name: &[u8; NAME_OCTETS]) -> &[([u8; NAME_OCTETS], usize)] {
        let start = self.0.partition_point(|(other, _)| other < name);
        let len = self.0[start..].iter().take_while(|(other, _)| other == name).count();
        &self.0[start..start + len]
    }
}

/// What a message's names say.
enum Named {
    /// No entry has one of them.
    None,
    /// They, or the UID beside them, name different entries.
    Disagree,
    /// Any of these entries.
    Entries(Vec<usize>),
}

impl Message {
    fn names(&self) -> &[FileKey] {
        self.names.get().map_or(&[], ArrayVec::as_slice)
    }
}

/// The UID below which the new server's own format would give a UIDL that is spent: the mailbox's
/// next UID is raised to it, so that rule 6 stays true without us. 1 when there is none.
pub fn first_unspent_uid(captured: &Maildrop, own: &UidlFormat, uidvalidity: u32) -> u32 {
    let known = captured.entries.iter().map(|e| &e.uidl).chain(&captured.spent);
    let above_known = known
        .filter_map(|uidl| own.number_of(uidl.as_bytes(), uidvalidity))
        .map(|number| number.saturating_add(1));
    // The counter speaks of every number below its next: the highest of them tells for all.
    let above_counted = captured.counter.as_ref().and_then(|counter| {
        let last = counter.next.checked_sub(1)?;
        let fields = Fields {
            uid: last,
            uidvalidity: captured.uidvalidity.unwrap_or(0),
            file: None,
            guid: None,
        };
        let uidl = counter.format.render(&fields).ok()?;
        own.number_of(uidl.as_bytes(), uidvalidity)?.checked_add(1)
    });
    above_known.chain(above_counted).max().unwrap_or(1)
}

fn ask(wanted: Vec<(usize, Need)>) -> Option<Outcome> {
    (!wanted.is_empty()).then_some(Outcome::Ask(wanted))
}
