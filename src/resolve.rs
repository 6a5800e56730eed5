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
//!    alone with it in the maildrop, may take it again.
//! 3. **Cheap first.** Names, and the UID where UIDVALIDITY is the captured one, are compared first and
//!    together. If they disagree the message is unknown, and said to be in [`Report::conflicts`]. A
//!    fingerprint is asked for only while an unclaimed entry remains that it could decide.
//! 4. **Copies.** Entries with equal `message` keys pair with their messages in maildrop order. Equal
//!    `header` or `origin` keys alone pair only when one entry and one message are left, or where
//!    octets single out one of each.
//! 5. **Cutoff.** Once a final index was resolved completely, what has a UID above the cutoff may be
//!    claimed by `file` and `message` only.
//! 6. **Spent.** A message that is unknown gets what Dovecot alone would give, unless some client may
//!    hold that UIDL for another message; then a derived one, in a form no server uses.
//! 7. **Append only.** What is listed for the first time goes behind all that ever was: first the old
//!    order, then by UID. Order numbers are never given twice.
//! 8. **Few is a fault.** A message that alone cannot be read gets a derived UIDL for this session and
//!    nothing is recorded of it; more than a hundredth of them (and more than three) is
//!    [`Refusal::Unreadable`]. A first listing with fewer than half of the captured messages is
//!    [`Refusal::HalfCopied`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use arrayvec::ArrayVec;

use crate::format::{Fields, UidlFormat};
use crate::key::{FileKey, Fingerprint};
use crate::ledger::{How, Ledger, Record};
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
    /// What clients were told, if they ever were.
    pub ledger: Option<&'a Ledger>,
    /// The mailbox's UIDVALIDITY.
    pub uidvalidity: u32,
    /// The UID that the next message will get.
    pub next_uid: u32,
    /// Which keys may match.
    pub keys: Match,
    /// What the answer is for.
    pub purpose: Purpose,
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
    Resolved(Resolution),
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
    #[error("{unreadable} of {messages} messages cannot be read: mend the mailbox")]
    Unreadable {
        /// Messages that could not be read.
        unreadable: usize,
        /// Messages in the maildrop.
        messages: usize,
    },
}

/// What clients are told, and what the operator may want to know of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The ledger from now on. For [`Purpose::Look`] it holds only what was listed or is kept.
    pub ledger: Ledger,
    /// Answers for this session only: messages that could not be read.
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
    /// UIDs of messages that could not be read.
    pub unreadable: Vec<u32>,
    /// Entries with a key that no message has claimed yet.
    pub unclaimed: usize,
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
    /// By message: its record in the old ledger.
    listed: Vec<Option<&'a Record>>,
    /// By message: an answer found now.
    found: Vec<Option<Found>>,
    /// By message: its cheap keys disagree, or name what another message has: no further key may
    /// decide.
    settled_unknown: Vec<bool>,
    /// By entry: taken by a message listed before, by one long gone, or by one in this run.
    claimed: Vec<bool>,
    /// By entry: the record that claimed it, if its message is gone.
    claimed_by_gone: Vec<bool>,
    /// Old records whose message is not there, or not under this UIDVALIDITY.
    gone: Vec<&'a Record>,
    /// By order number of an old record: the entry that it claims.
    claim_of: HashMap<u32, usize>,
    conflicts: Vec<u32>,
}

impl<'a> Run<'a> {
    fn new(situation: &'a Situation<'a>, messages: &'a [Message]) -> Self {
        let entries = &situation.captured.entries[..];
        let mut run = Self {
            situation,
            entries,
            messages,
            listed: vec![None; messages.len()],
            found: vec![None; messages.len()],
            settled_unknown: vec![false; messages.len()],
            claimed: vec![false; entries.len()],
            claimed_by_gone: vec![false; entries.len()],
            gone: Vec::new(),
            claim_of: HashMap::new(),
            conflicts: Vec::new(),
        };
        run.find_listed_by_uid();
        run
    }

    /// Whether the ledger's UIDs still mean what they meant.
    fn same_uidvalidity(&self) -> bool {
        self.situation.ledger.is_some_and(|l| l.uidvalidity == self.situation.uidvalidity)
    }

    fn find_listed_by_uid(&mut self) {
        if let (Some(ledger), true) = (self.situation.ledger, self.same_uidvalidity()) {
            let by_uid: HashMap<u32, &Record> =
                ledger.records.iter().filter(|r| r.uid != 0).map(|r| (r.uid, r)).collect();
            for (listed, message) in self.listed.iter_mut().zip(self.messages) {
                *listed = by_uid.get(&message.uid).copied();
            }
        }
    }

    /// Names cost little, but not nothing: only what was not listed is asked for them.
    fn ask_names(&self) -> Option<Outcome> {
        let wanted = (0..self.messages.len())
            .filter(|&m| self.listed[m].is_none())
            .filter(|&m| !self.messages[m].unreadable && !self.messages[m].names.is_asked())
            .map(|m| (m, Need::Names));
        ask(wanted.collect())
    }

    /// Rule 2: what was listed, by UID or, when UIDVALIDITY has changed, by a name that only one
    /// message and one record have.
    fn replay_listed(&mut self) {
        let Some(ledger) = self.situation.ledger else { return };
        if !self.same_uidvalidity() {
            self.find_listed_by_name(ledger);
        }
        let present: HashSet<u32> = self.listed.iter().flatten().map(|r| r.order).collect();
        let mut entries_of: HashMap<&Uidl, Vec<usize>> = HashMap::new();
        for (e, entry) in self.entries.iter().enumerate() {
            entries_of.entry(&entry.uidl).or_default().push(e);
        }
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
    }

    /// Where UIDs mean nothing any more, a message is the one that was listed last under its name, if
    /// no other message bears it.
    fn find_listed_by_name(&mut self, ledger: &'a Ledger) {
        for (m, record) in self.alone_with_the_name_of(&ledger.records.iter().collect::<Vec<_>>()) {
            self.listed[m] = Some(record);
        }
    }

    /// Rule 2: what went and came back under its name, alone with it, takes its UIDL again.
    fn take_again(&mut self) {
        for (m, record) in self.alone_with_the_name_of(&self.gone) {
            let entry = self.claim_of.get(&record.order).copied();
            if let Some(e) = entry {
                self.claimed_by_gone[e] = false;
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
        let mut newest: HashMap<[u8; 16], &'a Record> = HashMap::new();
        for &record in records {
            if let Some(name) = record.name {
                let newest = newest.entry(name).or_insert(record);
                if newest.order < record.order {
                    *newest = record;
                }
            }
        }
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

    /// The names that messages of the whole maildrop bear, once a message.
    fn bearers(&self) -> Multimap<()> {
        let mut bearers = Vec::with_capacity(self.messages.len());
        for (listed, message) in self.listed.iter().zip(self.messages) {
            let mut cuts: ArrayVec<[u8; 16], 3> = message.names().iter().map(|n| n.cut).collect();
            cuts.extend(listed.and_then(|record| record.name));
            cuts.sort_unstable();
            let repeats = |at: usize| at > 0 && cuts[at - 1] == cuts[at];
            bearers.extend((0..cuts.len()).filter(|&at| !repeats(at)).map(|at| (cuts[at], ())));
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
        let mut entries_of = Multimap::new(named_entries);
        // An entry may have one name twice.
        entries_of.0.dedup();
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
            if free.is_empty()
                && let ([e], [(_, m)]) = (&named[..], group)
                && self.claimed_by_gone[*e]
                && {
                    let bearers = bearers.get_or_insert_with(|| self.bearers());
                    self.entries[*e].file_keys().all(|key| bearers.get(&key.cut).len() <= 1)
                }
            {
                let mut gone = self.gone.iter().map(|record| record.order);
                let again = gone.find(|order| self.claim_of.get(order) == Some(e));
                self.claim(*m, *e, How::File);
                if let Some(found) = &mut self.found[*m] {
                    found.again = again;
                }
                continue;
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
        entries_of: &Multimap<usize>,
        entry_of_uid: &HashMap<u32, usize>,
    ) -> Named {
        let message = &self.messages[m];
        let mut agreed: Option<Vec<usize>> = None;
        for name in message.names() {
            let cut_equal = || entries_of.get(&name.cut).iter().map(|(_, e)| *e);
            if cut_equal().next().is_none() {
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

    /// Rules 3 to 5 for what must be read.
    fn match_contents(&mut self) -> Option<Outcome> {
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
        if keys.header
            && let Some(asked) = self.match_alone(How::Header, |e| e.header, |m| m.header)
        {
            return Some(asked);
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
        match self.situation.ledger {
            None => true,
            // UIDs begin anew: all that was there before the change is known by name.
            Some(ledger) if !self.same_uidvalidity() => ledger.cutoff.is_none(),
            Some(ledger) => ledger.cutoff.is_none_or(|cutoff| self.messages[m].uid <= cutoff),
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

    /// Rule 4, second half: an equal header or origin pairs only what is alone, or alone in its size.
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
            if let Fact::Is(key) = of_message(&self.messages[m])
                && let Some(group) = groups.get_mut(&key)
            {
                group.1.push(m);
            }
        }
        let mut sizes_wanted = Vec::new();
        for (entries, messages) in groups.into_values() {
            if let ([e], [m]) = (&entries[..], &messages[..]) {
                if self.is_below_cutoff(*m) {
                    self.claim(*m, *e, how);
                }
                continue;
            }
            if entries.iter().all(|&e| self.entries[e].octets.is_none()) {
                continue;
            }
            let unsized_messages = messages
                .iter()
                .filter(|&&m| !self.messages[m].unreadable && !self.messages[m].octets.is_asked());
            sizes_wanted.extend(unsized_messages.map(|&m| (m, Need::Octets)));
            for (e, m) in self.alone_in_size(&entries, &messages) {
                if self.is_below_cutoff(m) {
                    self.claim(m, e, how);
                }
            }
        }
        sizes_wanted.sort_unstable_by_key(|(m, _)| *m);
        ask(sizes_wanted)
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
            if let (Some(_), None) = (same_entries.next(), same_entries.next())
                && let (Some(&m), None) = (same_messages.next(), same_messages.next())
                && self.messages[m].octets.get().is_some()
            {
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
        if self.situation.ledger.is_some() {
            self.take_stored();
        }
    }

    /// `P` that nobody else holds: of an unclaimed entry, or of none and not spent.
    fn take_stored(&mut self) {
        let open: Vec<usize> = self
            .open_messages()
            .into_iter()
            .filter(|&m| self.messages[m].stored.is_some())
            .collect();
        if open.is_empty() {
            return;
        }
        let mut held = self.held_uidls();
        for m in open {
            let stored = self.messages[m].stored.clone().expect("filtered");
            let mut entries = (0..self.entries.len()).filter(|&e| self.entries[e].uidl == stored);
            if let Some(e) = entries.clone().find(|&e| !self.claimed[e]) {
                self.claim(m, e, How::Stored);
            } else if entries.next().is_none() && !self.is_spent(&stored, &held) {
                held.insert(stored.clone());
                self.found[m] =
                    Some(Found { uidl: stored, how: How::Stored, entry: None, again: None });
            }
        }
    }

    /// Every UIDL that some client may hold for a message that is not the one asked about.
    fn held_uidls(&self) -> HashSet<Uidl> {
        let captured = self.entries.iter().map(|e| &e.uidl).chain(&self.situation.captured.spent);
        let listed = self.situation.ledger.into_iter().flat_map(|l| &l.records).map(|r| &r.uidl);
        let found = self.found.iter().flatten().map(|f| &f.uidl);
        captured.chain(listed).chain(found).cloned().collect()
    }

    /// Rule 6.
    fn is_spent(&self, uidl: &Uidl, held: &HashSet<Uidl>) -> bool {
        let captured = self.situation.captured;
        held.contains(uidl)
            || captured.counter.as_ref().is_some_and(|counter| {
                (counter.format)
                    .number_of(uidl.as_bytes(), captured.uidvalidity.unwrap_or(0))
                    .is_some_and(|number| number < counter.next)
            })
    }

    fn finish(mut self, user: &str) -> Outcome {
        let messages = self.messages;
        let unreadable: Vec<usize> =
            (0..messages.len()).filter(|&m| self.is_open(m) && messages[m].unreadable).collect();
        if unreadable.len() > 3.max(messages.len() / 100) {
            let unreadable = unreadable.len();
            return Outcome::Refused(Refusal::Unreadable { unreadable, messages: messages.len() });
        }
        if let Purpose::Listing { guarded } = self.situation.purpose {
            if guarded && self.situation.ledger.is_none() {
                let found = self.found.iter().flatten().filter(|f| f.entry.is_some()).count();
                if found * 2 < self.entries.len() {
                    let captured = self.entries.len();
                    return Outcome::Refused(Refusal::HalfCopied { found, captured });
                }
            }
            let unanswered = |m: &usize| {
                self.listed[*m].is_none() && self.found[*m].is_none() && !messages[*m].unreadable
            };
            let wanted = (0..messages.len())
                .filter(unanswered)
                .filter(|&m| !messages[m].own.is_asked())
                .map(|m| (m, Need::Own));
            if let Some(asked) = ask(wanted.collect()) {
                return asked;
            }
            self.answer_unknown(user);
        }
        Outcome::Resolved(self.resolution(user, &unreadable))
    }

    /// Rule 6: every message that is not kept gets an answer that no client holds.
    fn answer_unknown(&mut self, user: &str) {
        if self.open_messages().is_empty() && !self.settled_unknown.contains(&true) {
            return;
        }
        let mut held = self.held_uidls();
        for m in 0..self.messages.len() {
            let message = &self.messages[m];
            if self.listed[m].is_some() || self.found[m].is_some() || message.unreadable {
                continue;
            }
            let found = match message.own.get() {
                Some(own) if !self.is_spent(own, &held) => {
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
    fn resolution(self, user: &str, unreadable: &[usize]) -> Resolution {
        let Self { situation, messages, listed, found, claimed, gone, conflicts, .. } = self;
        let mut next_order = situation.ledger.map_or(1, |ledger| ledger.next_order);
        let mut records: Vec<Record> = (listed.iter().zip(messages))
            .filter_map(|(record, message)| {
                record.map(|record| Record { uid: message.uid, ..record.clone() })
            })
            .collect();
        // What is gone stays a claim; of messages that came later nothing need be remembered.
        let same_uidvalidity =
            situation.ledger.is_some_and(|l| l.uidvalidity == situation.uidvalidity);
        let again: HashSet<u32> = found.iter().flatten().filter_map(|f| f.again).collect();
        let claims = gone.into_iter().filter(|r| r.how.is_kept() && !again.contains(&r.order));
        records.extend(claims.map(|record| {
            let uid = if same_uidvalidity { record.uid } else { 0 };
            Record { uid, ..record.clone() }
        }));
        let mut fresh: Vec<(usize, Found)> =
            found.into_iter().enumerate().filter_map(|(m, found)| Some((m, found?))).collect();
        let agrees = |(m, found): &(usize, Found)| {
            let message = &messages[*m];
            message.stored_order.is_some_and(|order| order > 0)
                && message.stored.as_ref() == Some(&found.uidl)
        };
        let has_order = |(m, _): &(usize, Found)| messages[*m].stored_order.is_some();
        // A ledger that was lost is made again from what was baked, if nothing speaks against it.
        let replays =
            situation.ledger.is_none() && fresh.iter().filter(|f| has_order(f)).all(&agrees);
        fresh.sort_by_key(|f| {
            let (m, found) = f;
            let stored = messages[*m].stored_order.filter(|_| replays && agrees(f));
            (
                stored.map_or(u64::MAX, u64::from),
                found.entry.map_or(u64::MAX, |e| e as u64),
                messages[*m].uid,
            )
        });
        let mut report = Report { conflicts, ..Report::default() };
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
        let passing: Vec<Record> = (unreadable.iter().zip(next_order..))
            .map(|(&m, order)| Record {
                uid: messages[m].uid,
                order,
                uidl: derived(user, situation.uidvalidity, &messages[m]),
                how: How::Derived,
                name: None,
                entry: None,
            })
            .collect();
        report.unreadable = passing.iter().map(|record| record.uid).collect();
        report.unclaimed = claimed.iter().filter(|claimed| !**claimed).count();
        let old_cutoff = situation.ledger.and_then(|ledger| ledger.cutoff);
        let cutoff = match situation.purpose {
            Purpose::Listing { .. } if situation.is_final && passing.is_empty() => {
                let now = situation.next_uid.saturating_sub(1);
                Some(if same_uidvalidity { old_cutoff.unwrap_or(now) } else { now })
            }
            // UIDs of another UIDVALIDITY say nothing: all are above.
            _ => old_cutoff.map(|cutoff| if same_uidvalidity { cutoff } else { 0 }),
        };
        let ledger = Ledger { uidvalidity: situation.uidvalidity, cutoff, next_order, records };
        Resolution { ledger, passing, news, report }
    }
}

/// Values by name, in one allocation: maildrops are large, and a login's memory is not.
struct Multimap<T>(Vec<([u8; 16], T)>);

impl<T: Ord> Multimap<T> {
    fn new(mut pairs: Vec<([u8; 16], T)>) -> Self {
        pairs.sort_unstable();
        Self(pairs)
    }

    /// The pairs of that name, by value.
    fn get(&self, name: &[u8; 16]) -> &[([u8; 16], T)] {
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
