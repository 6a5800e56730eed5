//! Evidence: which message is which entry's, the best evidence first.
#![forbid(unsafe_code)]

use hashbrown::{HashMap, HashSet};

use super::by_name::{EntriesByName, NamedEntries};
use super::derived::is_derived;
use super::message::Message;
use super::places::{FirstFree, PlacesByKey, entries_by_uidl};
use super::question::{Fact, Need};
use super::rank::is_ours;
use super::run::{Matched, MessageState, Pause, Run, UidlSource, ask};
use crate::format::UidlFormat;
use crate::key::Fingerprint;
use crate::ledger::Provenance;
use crate::maildrop::CapturedEntry;
use crate::uidl::{Uidl, UidlRef};

/// A stored UIDL is compared with at most so many entries that have it. Some servers give copies
/// the same UIDL.
const MOST_OF_A_UIDL: usize = 64;

/// Content that does not name itself is recognised only if it was received so many seconds before
/// the first capture. A later mail may be equal to the last octet.
const A_DAY: i64 = 86_400;

/// Sizes that differ by so much are explained by a `From_` line and status fields.
const EXPLAINED_OCTETS: u64 = 512;

/// One more octet a line end is explained too, in lines of at least so many octets.
const SHORTEST_LINES: u64 = 16;

impl<'a> Run<'a> {
    /// Tries every kind of evidence, in its order. Rule 3: what costs nothing comes first, and
    /// content is asked for only while an entry is left that it could claim.
    pub(super) fn match_all(&mut self) -> Result<(), Pause> {
        let names = EntriesByName::of(self);
        self.match_stored(&names)?;
        if self.situation.keys.file {
            self.match_files(&names);
        }
        self.match_contents()?;
        self.take_other_stored();
        self.match_nameless()
    }

    /// Open messages with a stored UIDL that the operator has not had forgotten.
    fn with_stored(&self) -> Vec<(usize, &'a Uidl)> {
        let void = self.void.into_iter().flat_map(|ledger| &ledger.records);
        let void: HashSet<&Uidl> = void
            .filter(|record| record.provenance != Provenance::Stored)
            .map(|record| &record.uidl)
            .collect();
        let open = self.open_messages().into_iter();
        open.filter_map(|m| Some((m, self.messages[m].stored()?)))
            .filter(|(_, stored)| !void.contains(stored))
            .collect()
    }

    /// Evidence 1 and 2: a stored UIDL that is an entry's, or that we told.
    fn match_stored(&mut self, names: &EntriesByName<'_>) -> Result<(), Pause> {
        let stored = self.with_stored();
        if stored.is_empty() {
            return Ok(());
        }
        let entries_of = entries_by_uidl(self.situation.captured);
        let mut unconfirmed = Vec::new();
        for &(m, uidl) in &stored {
            let entries = entries_of.get(&uidl.into());
            if entries.is_empty() {
                continue;
            }
            let named = self.named_entries(names, m);
            let is_it = |e: &usize| self.is_free(*e) && entries.binary_search(e).is_ok();
            match (named.entries().iter().copied().find(is_it), &named) {
                (Some(e), _) => self.claim_stored(m, e),
                (None, NamedEntries::None) => unconfirmed.push((m, uidl)),
                // The name of another entry contradicts.
                (None, _) => {}
            }
        }
        self.refuse_unreadable()?;
        let mut free_of: HashMap<&Uidl, FirstFree<'_>> = HashMap::new();
        for (_, uidl) in &unconfirmed {
            let all = || FirstFree::of(entries_of.get(&UidlRef::from(*uidl)), MOST_OF_A_UIDL);
            free_of.entry(uidl).or_insert_with(all).find(|e| self.is_free(e));
        }
        self.ask_what_may_contradict(&unconfirmed, &free_of)?;
        for (m, uidl) in unconfirmed {
            let Some(free) = free_of.get_mut(uidl) else { continue };
            let mut free = free.find(|e| self.is_free(e)).iter().copied();
            if let Some(e) = free.find(|&e| !self.content_contradicts(m, e)) {
                self.claim_stored(m, e);
            }
        }
        for (m, uidl) in stored {
            let is_ours = is_derived(uidl)
                || (is_ours(self.messages[m].stored_order().unwrap_or(0))
                    && entries_of.get(&uidl.into()).is_empty()
                    && !self.is_counted_by_another(m, uidl)
                    && !self.is_another_messages(m, uidl));
            if is_ours && self.is_open(m) && !self.spent.is_known(uidl) {
                self.answer_stored(m, uidl);
            }
        }
        Ok(())
    }

    /// Says whether the old server may have given the UIDL. It is no reason where the message was
    /// told the UIDL under its own UID, for then it was told before the old server had counted so
    /// far.
    pub(super) fn is_counted_by_another(&self, m: usize, uidl: &Uidl) -> bool {
        let is_stored = self.messages[m].stored() == Some(uidl);
        let is_own = (is_stored || self.was_native(m)) && self.is_of_own_uid(m, uidl);
        self.spent.is_given(uidl) || (!is_own && self.spent.is_counted(uidl))
    }

    fn is_of_own_uid(&self, m: usize, uidl: &Uidl) -> bool {
        let native = self.situation.native.filter(|format| format.has_uidvalidity());
        let uidvalidity = self.situation.epoch.uidvalidity;
        let number = native.and_then(|format| format.number_of(uidl.as_bytes(), uidvalidity));
        number == Some(self.messages[m].uid)
    }

    /// Says whether the number of the UIDL was told to another message, as far as a whole memory
    /// knows. A mail of another account may bring along what was told there.
    fn is_another_messages(&self, m: usize, uidl: &Uidl) -> bool {
        // Without a UIDVALIDITY in them, none was told.
        let is_told_so = self.situation.native.is_some_and(UidlFormat::has_uidvalidity);
        is_told_so
            && self.ledger.is_some()
            && self.newer_mark.is_none()
            && self.spent.is_told_number(uidl, self.messages[m].uid)
    }

    /// Claims by a stored UIDL. If we told it, it stays, also where a later capture says otherwise.
    fn claim_stored(&mut self, m: usize, e: usize) {
        let is_told = is_ours(self.messages[m].stored_order().unwrap_or(0));
        let source = if is_told { UidlSource::Storage } else { UidlSource::Entry };
        self.claim_as(m, e, Provenance::Stored, source);
    }

    /// Answers with a stored UIDL, without a claim.
    fn answer_stored(&mut self, m: usize, stored: &Uidl) {
        let provenance = if is_derived(stored) { Provenance::Derived } else { Provenance::Stored };
        self.answer(m, Matched { source: UidlSource::Storage, provenance, entry: None });
    }

    fn ask_what_may_contradict(
        &self,
        unconfirmed: &[(usize, &Uidl)],
        free_of: &HashMap<&Uidl, FirstFree<'_>>,
    ) -> Result<(), Pause> {
        let keys = self.situation.keys;
        let mut wanted = Vec::new();
        for &(m, uidl) in unconfirmed {
            let message = &self.messages[m];
            if message.unreadable {
                continue;
            }
            // None is taken in between.
            let free = free_of.get(uidl).map_or(&[][..], FirstFree::found);
            let any = |has: fn(CapturedEntry<'_>) -> bool| {
                free.iter()
                    .filter(|&&e| !self.content_contradicts(m, e))
                    .any(|&e| has(self.entry(e)))
            };
            let wants_header = any(|entry| entry.header().is_some())
                && (keys.header || keys.message || keys.origin);
            let wants_message = keys.message && any(|entry| entry.message().is_some());
            if wants_header && !message.details.header.is_asked() {
                wanted.push((m, Need::Header));
            } else if wants_message && !message.details.message.is_asked() {
                wanted.push((m, Need::Message));
            }
        }
        ask(wanted)
    }

    /// Says whether a content key of the entry contradicts the message.
    fn content_contradicts(&self, m: usize, e: usize) -> bool {
        let (message, entry) = (&self.messages[m], self.entry(e));
        if message.unreadable {
            return true;
        }
        let keys = self.situation.keys;
        let differ = |of_entry: Option<Fingerprint>, of_message: &Fact<Fingerprint>| {
            of_entry.is_some_and(|key| of_message.is_asked() && of_message.get() != Some(&key))
        };
        let same_origin = keys.origin
            && entry.origin().is_some()
            && message.details.origin.get() == entry.origin().as_ref();
        let header_differs = differ(entry.header(), &message.details.header) && !same_origin;
        header_differs
            || (keys.message && differ(entry.message(), &message.details.message) && !same_origin)
    }

    /// Evidence 3: names. A name that several entries have is settled by the UID where it can be,
    /// and otherwise by order: entries in old order, messages by UID.
    fn match_files(&mut self, names: &EntriesByName<'_>) {
        // Messages by the set of entries that their names allow. Nearly every set has one entry and
        // one message.
        let mut bearing: Vec<(NamedEntries, usize)> = Vec::new();
        for m in 0..self.messages.len() {
            if !self.is_open(m) {
                continue;
            }
            match self.named_entries(names, m) {
                NamedEntries::None => {}
                NamedEntries::Disagree => {
                    self.conflicts.push(self.messages[m].uid);
                    self.states[m] = MessageState::Unknown;
                }
                NamedEntries::One(e) => self.claim_named(m, e),
                named @ NamedEntries::Several(_) => bearing.push((named, m)),
            }
        }
        // Narrow sets go first, and the narrowest went before: a message that fits several entries
        // must not take the only entry of another.
        fn set((named, _): &(NamedEntries, usize)) -> (usize, &[usize]) {
            (named.entries().len(), named.entries())
        }
        bearing.sort_by(|a, b| (set(a), a.1).cmp(&(set(b), b.1)));
        for group in bearing.chunk_by(|a, b| set(a) == set(b)) {
            let mut named = group[0].0.entries().iter().copied();
            for (_, m) in group {
                match named.find(|&e| self.is_free(e)) {
                    Some(e) => self.claim(*m, e, Provenance::File),
                    None => self.states[*m] = MessageState::Unknown,
                }
            }
        }
    }

    /// Claims the only entry that the names of a message allow. If another message has, or had, the
    /// entry of this name, this one is a copy that was made here.
    fn claim_named(&mut self, m: usize, e: usize) {
        match self.is_free(e) {
            true => self.claim(m, e, Provenance::File),
            false => self.states[m] = MessageState::Unknown,
        }
    }

    fn named_entries(&self, names: &EntriesByName<'_>, m: usize) -> NamedEntries {
        let message = &self.messages[m];
        names.entries_of(&message.all_names(), message.uid)
    }

    /// Evidence 4 and 5: content that names itself.
    fn match_contents(&mut self) -> Result<(), Pause> {
        self.refuse_unreadable()?;
        let keys = self.situation.keys;
        self.ask_headers()?;
        if keys.message {
            self.ask_messages()?;
            self.match_messages(|message| message.details.names_itself);
        }
        if keys.header {
            self.match_headers()?;
        }
        if keys.origin {
            self.match_origins()?;
        }
        Ok(())
    }

    fn free_entries(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.entry_count()).filter(|&e| self.is_free(e))
    }

    /// Messages that are open and can be read.
    fn readable(&self) -> Vec<usize> {
        let mut open = self.open_messages();
        open.retain(|&m| !self.messages[m].unreadable);
        open
    }

    fn ask_headers(&self) -> Result<(), Pause> {
        let keys = self.situation.keys;
        let any = self.free_entries().any(|e| {
            let entry = self.entry(e);
            (keys.message && entry.message().is_some())
                || (keys.header && entry.header().is_some())
                || (keys.origin && entry.origin().is_some())
        });
        if !any {
            return Ok(());
        }
        // Where no header tells what to read whole, each message is opened once and not twice.
        let is_whole = |e: usize| {
            let entry = self.entry(e);
            keys.message && entry.message().is_some() && entry.header().is_none()
        };
        let need = if self.free_entries().any(is_whole) { Need::Message } else { Need::Header };
        let wanted =
            self.readable().into_iter().filter(|&m| !self.messages[m].details.header.is_asked());
        ask(wanted.map(|m| (m, need)).collect())
    }

    /// Says which messages must be read whole: those with the header of a free entry that has a
    /// `message` key, or all where such an entry has no header key.
    fn may_be_a_message(&self) -> impl Fn(&Message) -> bool + use<> {
        let mut headers = HashSet::new();
        let mut any_without_header = false;
        for e in self.free_entries() {
            let entry = self.entry(e);
            match (entry.message(), entry.header()) {
                (Some(_), Some(header)) => _ = headers.insert(header),
                (Some(_), None) => any_without_header = true,
                (None, _) => {}
            }
        }
        move |message| {
            any_without_header || message.details.header.get().is_some_and(|h| headers.contains(h))
        }
    }

    fn ask_messages(&self) -> Result<(), Pause> {
        let may_be = self.may_be_a_message();
        let wanted = self.readable().into_iter().filter(|&m| {
            let message = &self.messages[m];
            message.details.names_itself && !message.details.message.is_asked() && may_be(message)
        });
        ask(wanted.map(|m| (m, Need::Message)).collect())
    }

    /// Rule 1: equal contents are interchangeable: entries in old order go to messages by UID.
    fn match_messages(&mut self, counts: impl Fn(&Message) -> bool) {
        let mut entries_of: HashMap<Fingerprint, Vec<usize>> = HashMap::new();
        for e in self.free_entries().collect::<Vec<_>>().into_iter().rev() {
            if let Some(key) = self.entry(e).message() {
                entries_of.entry(key).or_default().push(e);
            }
        }
        for m in self.open_messages() {
            let message = &self.messages[m];
            let key = message.details.message.get().filter(|_| counts(message));
            if let Some(e) = key.and_then(|key| entries_of.get_mut(key)).and_then(Vec::pop) {
                self.claim(m, e, Provenance::Message);
            }
        }
    }

    /// Evidence 5: a header that names its message, where one entry has it, and all messages that
    /// have it are of one content.
    fn match_headers(&mut self) -> Result<(), Pause> {
        let keys = self.situation.keys;
        let groups = self.groups(
            |entry| entry.header(),
            |message| {
                message.details.header.get().copied().filter(|_| message.details.names_itself)
            },
        );
        let mut wanted = Vec::new();
        let mut pairs = Vec::new();
        for (entries, messages) in groups.iter() {
            let ([e], [first, ..]) = (entries, messages) else { continue };
            // An entry with a `message` key is recognised by that, where it may match.
            let told_apart = keys.message && self.entry(*e).message().is_some();
            if !self.is_free(*e) || told_apart {
                continue;
            }
            if !self.are_one_content(messages, &mut wanted, |message| &message.details.message) {
                continue;
            }
            match (self.entry(*e).octets(), self.messages[*first].details.octets) {
                (Some(_), Fact::NotAsked) => wanted.push((*first, Need::Octets)),
                (Some(counted), Fact::Is(octets)) if !is_explained(counted, octets) => {}
                _ => pairs.push((*first, *e)),
            }
        }
        wanted.sort_unstable_by_key(|(m, _)| *m);
        ask(wanted)?;
        for (m, e) in pairs {
            self.claim(m, e, Provenance::Header);
        }
        Ok(())
    }

    /// Evidence 5 without what relays add. Copies that were delivered anew have a header each, so
    /// the bodies must say that they are of one content.
    fn match_origins(&mut self) -> Result<(), Pause> {
        let groups = self.groups(
            |entry| entry.origin(),
            |message| {
                message
                    .details
                    .origin
                    .get()
                    .copied()
                    .filter(|_| message.details.origin_names_itself)
            },
        );
        let mut wanted = Vec::new();
        let mut pairs = Vec::new();
        for (entries, messages) in groups.iter() {
            let whole = self.entry(entries[0]).message();
            let are_one = entries.len() == 1
                || (whole.is_some() && entries.iter().all(|&e| self.entry(e).message() == whole));
            let free: Vec<usize> = entries.iter().copied().filter(|&e| self.is_free(e)).collect();
            if free.is_empty() || !are_one {
                continue;
            }
            if !self.are_one_content(messages, &mut wanted, |message| &message.details.body) {
                continue;
            }
            pairs.extend(messages.iter().copied().zip(free));
        }
        wanted.sort_unstable_by_key(|(m, _)| *m);
        ask(wanted)?;
        for (m, e) in pairs {
            self.claim(m, e, Provenance::Origin);
        }
        Ok(())
    }

    /// All entries and the open, readable messages, by a key.
    fn groups(
        &self,
        of_entry: impl Fn(CapturedEntry<'_>) -> Option<Fingerprint>,
        of_message: impl Fn(&Message) -> Option<Fingerprint>,
    ) -> Groups {
        let readable = self.readable().into_iter();
        let messages =
            PlacesByKey::of(readable.filter_map(|m| Some((of_message(&self.messages[m])?, m))));
        let captured = self.situation.captured.filter(|_| !messages.is_empty());
        let entries = captured.into_iter().flat_map(|captured| captured.entries().enumerate());
        let entries = PlacesByKey::of(entries.filter_map(|(e, entry)| Some((of_entry(entry)?, e))));
        Groups { entries, messages }
    }

    /// Says whether messages that share a header are copies of one content, as far as is known. It
    /// adds to `wanted` what must be read to tell.
    fn are_one_content(
        &self,
        messages: &[usize],
        wanted: &mut Vec<(usize, Need)>,
        of: impl Fn(&Message) -> &Fact<Fingerprint>,
    ) -> bool {
        if messages.len() == 1 {
            return true;
        }
        let is_unread = |m: &&usize| !self.messages[**m].details.message.is_asked();
        let wanted_before = wanted.len();
        wanted.extend(messages.iter().filter(is_unread).map(|&m| (m, Need::Message)));
        wanted.len() == wanted_before && self.are_equal(messages, of)
    }

    fn are_equal(&self, messages: &[usize], of: impl Fn(&Message) -> &Fact<Fingerprint>) -> bool {
        let first = of(&self.messages[messages[0]]).get();
        first.is_some() && messages.iter().all(|&m| of(&self.messages[m]).get() == first)
    }

    /// Evidence 6: any other stored UIDL that no other client can hold.
    fn take_other_stored(&mut self) {
        for (m, uidl) in self.with_stored() {
            let is_free = !self.spent.is_known(uidl)
                && !self.spent.is_counted(uidl)
                && !self.spent.is_borne_by_another(uidl, m)
                && !self.spent.is_told_number(uidl, self.messages[m].uid);
            if is_free {
                self.answer_stored(m, uidl);
            }
        }
    }

    /// Evidence 7: whole content that does not name itself, and was here well before any capture.
    fn match_nameless(&mut self) -> Result<(), Pause> {
        let taken = self.situation.captured.and_then(|captured| captured.head().first_taken());
        let Some(taken) = taken else { return Ok(()) };
        // When the first capture before a `forget` was is not known any more.
        if !self.situation.keys.message || self.situation.stamps.forgotten != 0 {
            return Ok(());
        }
        let latest = i64::try_from(taken).unwrap_or(i64::MAX).saturating_sub(A_DAY);
        let may_be = self.may_be_a_message();
        let mut candidates = self.readable();
        candidates.retain(|&m| {
            let message = &self.messages[m];
            message.details.header.is_asked() && !message.details.names_itself && may_be(message)
        });
        let unasked = candidates.iter().filter(|&&m| !self.messages[m].details.received.is_asked());
        ask(unasked.map(|&m| (m, Need::Received)).collect())?;
        let is_old =
            |message: &Message| message.details.received.get().is_some_and(|at| *at <= latest);
        candidates.retain(|&m| is_old(&self.messages[m]));
        let unread = candidates.iter().filter(|&&m| !self.messages[m].details.message.is_asked());
        ask(unread.map(|&m| (m, Need::Message)).collect())?;
        self.match_messages(|message| !message.details.names_itself && is_old(message));
        Ok(())
    }
}

/// Entries and messages by a key.
struct Groups {
    entries: PlacesByKey<Fingerprint>,
    messages: PlacesByKey<Fingerprint>,
}

impl Groups {
    /// The places of the entries and of the messages with each key that both have.
    fn iter(&self) -> impl Iterator<Item = (&[usize], &[usize])> {
        let groups = self.messages.iter().map(|(key, messages)| (self.entries.get(key), messages));
        groups.filter(|(entries, _)| !entries.is_empty())
    }
}

/// Says whether line ends, a `From_` line and status fields explain the difference.
fn is_explained(counted: u64, octets: u64) -> bool {
    counted.abs_diff(octets) <= EXPLAINED_OCTETS + counted.min(octets) / SHORTEST_LINES
}
