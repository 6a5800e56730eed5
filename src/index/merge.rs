//! [`merge`] makes two captures of one maildrop into one. [`spend_entries`] is for a capture that
//! is not to be believed.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use crate::format::Fields;
use crate::key::Fingerprint;
use crate::maildrop::{Capture, Counter, Entry, Maildrop, Name, State};
use crate::uidl::Uidl;

/// The most numbers of an abandoned counter that are written out as spent UIDLs.
const MOST_SPELLED_OUT: u32 = 1 << 18;

/// The most entries with one key that are compared with an entry of the other capture. When very
/// many have one key, they are in their old order in both captures, and the first that is left
/// fits.
const MOST_COMPARED: usize = 64;

/// Two captures of a maildrop, made into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The maildrop.
    pub maildrop: Maildrop,
    /// Facts about it that an operator should know.
    pub remarks: Vec<Remark>,
    /// The number of messages that both captures have, or have the UIDL of.
    pub in_both: usize,
    /// The messages in both captures that have another UIDL in the later one, which neither capture
    /// had for them before.
    pub changed: Vec<Changed>,
}

impl Merged {
    /// Whether so many have changed that the later capture may be of another server, of a backup,
    /// or in another format: more than three messages, and more than one in a hundred.
    pub fn is_doubtful(&self) -> bool {
        self.changed.len() > 3 && self.changed.len() * 100 > self.in_both
    }
}

/// A message with different UIDLs in two captures, or whose UIDL another message has in the later
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its file name or GUID, when a capture spells that out.
    pub name: Option<Box<[u8]>>,
    /// Its UIDL in the earlier capture.
    pub earlier: Uidl,
    /// Its UIDL in the later capture, which clients hold; `None` when the later capture gives the
    /// earlier UIDL to another message and does not have this one.
    pub later: Option<Uidl>,
}

/// A fact about a merge that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remark {
    /// The later capture gives UIDLs to other messages than the earlier one did. They now belong to
    /// those other messages. The messages that had them before, which the later capture does not
    /// have, are given up.
    Contradiction {
        /// The first of these UIDLs.
        uidl: Uidl,
        /// The number of these UIDLs.
        count: usize,
    },
    /// The later capture failed. Everything captured before is kept, and the state is failed.
    Failed,
    /// The old server counts anew, under another UIDVALIDITY or in another format. The UIDLs of its
    /// earlier numbers were written out.
    CountsAnew {
        /// The number of them.
        numbers: u32,
    },
}

/// Two captures that cannot be merged. The old server began to count anew, and it had given more
/// numbers than can be written out as spent UIDLs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the old server counts anew after {next} numbers in form {format}, more than {MOST_SPELLED_OUT}"
)]
pub struct CannotMerge {
    /// The format in which it counted before.
    pub format: String,
    /// The first number that it had not given.
    pub next: u32,
}

/// Merges two captures of one old maildrop. `old` may come from several captures already; `new` is
/// built upon it. Nothing that one of them has is lost:
///
/// * The old entries keep their order. An entry of the other capture that is the same message adds
///   the keys that were missing; any other entry is appended. These tell, in this order, that two
///   entries are the same message: UIDL and keys; names; the UIDL, when no key contradicts; the UID
///   under one UIDVALIDITY, when a content key agrees; a whole content that both have once; and
///   last, a header that both have once.
/// * Rule 7: when a message has two UIDLs, the later capture's is served, because clients hold it,
///   and the other becomes one of its earlier ones. The later capture is the one whose counter is
///   further under one UIDVALIDITY, else the one that was taken later, else `new`. So a capture
///   whose counter went back only adds.
/// * A UIDL that another message has in the later capture belongs to that message. When the later
///   capture does not have the message that had it before, that entry is removed: otherwise two
///   messages would be listed with one UIDL.
/// * Spent UIDLs are united, and the higher next number counts. When the server has begun to count
///   anew (another UIDVALIDITY or format), the numbers that it had given before become spent UIDLs.
/// * A failed `new` makes the maildrop failed, whatever was captured before. Otherwise clients
///   would get the messages that arrived in between twice.
///
/// # Errors
///
/// [`CannotMerge`].
pub fn merge(old: Maildrop, new: Maildrop) -> Result<Merged, CannotMerge> {
    let mut line = Timeline::of(&old, &new);
    let state_of_new = new.state;
    let (user, remarks_of_new) = (old.user.clone(), new.remarks.clone());
    let mut remarks = Vec::new();

    let new_is_last =
        line.new_is_last() || (line.captures.is_empty() && new.state != State::Failed);
    let (earlier, later) = if new_is_last { (&old, &new) } else { (&new, &old) };
    let uidvalidity = later.uidvalidity.or(earlier.uidvalidity);
    let source = if later.source.is_empty() { &earlier.source } else { &later.source }.clone();
    // A UID means nothing without its UIDVALIDITY.
    let under = |maildrop: &Maildrop| -> Vec<Entry> {
        let mut entries = maildrop.entries.clone();
        if maildrop.uidvalidity != uidvalidity {
            entries.iter_mut().for_each(|entry| entry.uid = None);
        }
        entries
    };
    let (of_old, of_new) = (under(&old), under(&new));
    let same_as = Pairs::of(&of_old, &of_new);
    if line.may_be_one && says_the_same(&of_old, &of_new, &same_as, &old) {
        line.unite();
    }

    let (mut entries, mut in_both, mut changed) = line.join(of_old, of_new, &same_as);
    let given_up = give_up(&mut entries);
    if let Some(first) = given_up.first().filter(|_| line.has_more) {
        remarks.push(Remark::Contradiction { uidl: first.uidl.clone(), count: given_up.len() });
        in_both += given_up.len();
        changed.extend(given_up.iter().map(|entry| Changed {
            name: spelled([&entry.file, &entry.guid]),
            earlier: entry.uidl.clone(),
            later: None,
        }));
    }
    let mut entries: Vec<Entry> = entries.into_iter().map(|joined| joined.entry).collect();
    let served: HashSet<Uidl> = entries.iter().map(|entry| entry.uidl.clone()).collect();
    // The later capture says which message has a UIDL.
    entries.iter_mut().for_each(|entry| entry.earlier.retain(|uidl| !served.contains(uidl)));

    let mut seen: HashSet<Uidl> = entries.iter().flat_map(Entry::uidls).cloned().collect();
    let mut spent = Vec::new();
    let mut spend = |uidl: Uidl| {
        if seen.insert(uidl.clone()) {
            spent.push(uidl);
        }
    };
    old.spent.iter().chain(&new.spent).cloned().for_each(&mut spend);
    given_up.into_iter().flat_map(|entry| entry.earlier).for_each(&mut spend);
    let counter = match (&earlier.counter, &later.counter) {
        (Some(was), Some(is))
            if was.format == is.format
                && (!was.format.has_uidvalidity() || earlier.uidvalidity == later.uidvalidity) =>
        {
            Some(Counter { next: was.next.max(is.next), format: is.format.clone() })
        }
        (Some(was), None)
            if !was.format.has_uidvalidity() || earlier.uidvalidity == uidvalidity =>
        {
            Some(was.clone())
        }
        (Some(was), is) => {
            spell_out(was, earlier.uidvalidity, &mut spend)?;
            remarks.push(Remark::CountsAnew { numbers: was.next.saturating_sub(1) });
            is.clone()
        }
        (None, is) => is.clone(),
    };

    let state = match state_of_new {
        State::Failed => {
            // When the maildrop was never captured, there is nothing new to say.
            if old.state != State::Failed || !entries.is_empty() {
                remarks.push(Remark::Failed);
            }
            State::Failed
        }
        _ if !entries.is_empty() => State::Captured,
        state => state,
    };
    let captures = line.captures;
    let maildrop = Maildrop {
        captures,
        source,
        uidvalidity,
        counter,
        entries,
        spent,
        remarks: remarks_of_new,
        ..Maildrop::new(user, state)
    };
    Ok(Merged { maildrop, remarks, in_both, changed })
}

/// The maildrop without its entries and captures. Their UIDLs are spent: clients may know them,
/// whatever messages they really belong to.
pub fn spend_entries(maildrop: Maildrop) -> Maildrop {
    let Maildrop { entries, mut spent, .. } = maildrop;
    let mut seen: HashSet<Uidl> = spent.iter().cloned().collect();
    let uidls = entries.iter().flat_map(Entry::uidls).cloned();
    spent.extend(uidls.filter(|uidl| seen.insert(uidl.clone())));
    Maildrop { entries: Vec::new(), captures: Vec::new(), spent, ..maildrop }
}

/// Whether `one` was taken later than `other`; `None` when nothing tells. `one_format` says whether
/// both may count in one format.
fn is_later(one: &Capture, other: &Capture, one_format: bool) -> Option<bool> {
    let of_both = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) if one != other => Some(one > other),
        _ => None,
    };
    let counts_on = one_format && one.uidvalidity.is_some() && one.uidvalidity == other.uidvalidity;
    let by_counter = of_both(one.next.map(u64::from), other.next.map(u64::from));
    by_counter.filter(|_| counts_on).or_else(|| of_both(one.taken, other.taken))
}

/// The captures of two maildrops in one line, each later one behind the earlier.
#[derive(Debug)]
struct Timeline {
    captures: Vec<Capture>,
    /// The positions of the old maildrop's captures in `captures`.
    of_old: Vec<u32>,
    /// The positions of the new maildrop's.
    of_new: Vec<u32>,
    /// Whether both count in one format, as far as they say.
    one_format: bool,
    /// Whether the new maildrop has a capture that the old one does not have.
    has_more: bool,
    /// The last captures of both are neighbours, and nothing tells them apart: they may be one.
    may_be_one: bool,
}

impl Timeline {
    fn of(old: &Maildrop, new: &Maildrop) -> Self {
        // A capture that failed saw nothing. It does not count when there is another.
        let saw_nothing = |maildrop: &Maildrop| {
            maildrop.state == State::Failed
                && maildrop.entries.is_empty()
                && maildrop.captures.len() == 1
        };
        let captures_of = |maildrop: &Maildrop| {
            if maildrop.captures.is_empty() && !maildrop.entries.is_empty() {
                vec![Capture::of(maildrop, None)]
            } else {
                maildrop.captures.clone()
            }
        };
        let (mut captures, mut added) = (captures_of(old), captures_of(new));
        if saw_nothing(new) && !captures.is_empty() {
            added.clear();
        } else if saw_nothing(old) && !added.is_empty() {
            captures.clear();
        }
        let mut line = Self {
            of_old: (0..captures.len() as u32).collect(),
            of_new: Vec::with_capacity(added.len()),
            one_format: match (&old.counter, &new.counter) {
                (Some(old), Some(new)) => old.format == new.format,
                _ => true,
            },
            has_more: false,
            may_be_one: false,
            captures,
        };
        let is_alone = added.len() == 1;
        for capture in added {
            let from = line.of_new.last().map_or(0, |last| *last as usize + 1);
            let found = line.captures[from..].iter().position(|one| *one == capture);
            let is_timed = capture.taken.is_some();
            match found {
                Some(at) if is_timed || !is_alone => line.of_new.push((from + at) as u32),
                _ => {
                    line.may_be_one = line.captures.last() == Some(&capture);
                    line.insert(from, capture);
                }
            }
        }
        line
    }

    /// Puts a capture of the new maildrop behind all that are not later, and not before `from`.
    fn insert(&mut self, from: usize, capture: Capture) {
        let mut at = self.captures.len();
        while at > from && is_later(&self.captures[at - 1], &capture, self.one_format) == Some(true)
        {
            at -= 1;
        }
        self.captures.insert(at, capture);
        self.has_more = true;
        // No capture of the new maildrop is behind it yet.
        for place in self.of_old.iter_mut().filter(|place| **place as usize >= at) {
            *place += 1;
        }
        self.of_new.push(at as u32);
    }

    /// Makes the last two captures one.
    fn unite(&mut self) {
        self.captures.pop();
        let last = self.captures.len().saturating_sub(1) as u32;
        self.of_new.iter_mut().for_each(|place| *place = (*place).min(last));
    }

    /// Whether the last capture of all belongs to the new maildrop.
    fn new_is_last(&self) -> bool {
        self.of_new.last().is_some_and(|last| *last as usize + 1 == self.captures.len())
    }

    /// All entries, the old ones first; the number that both have; and the entries with another
    /// UIDL in the later capture.
    fn join(
        &self,
        of_old: Vec<Entry>,
        of_new: Vec<Entry>,
        same_as: &[Option<usize>],
    ) -> (Vec<JoinedEntry>, usize, Vec<Changed>) {
        let placed = |mut entry: Entry, places: &[u32]| {
            let place = |capture: u32| places.get(capture as usize).copied().unwrap_or(0);
            entry.first_capture = place(entry.first_capture);
            entry.last_capture = place(entry.last_capture);
            entry
        };
        let joined = |entry: Entry, is_old: bool| {
            let said = Some(entry.uidl.clone());
            let (old_said, new_said) = if is_old { (said, None) } else { (None, said) };
            JoinedEntry { entry, old_said, new_said }
        };
        let old = of_old.into_iter().map(|entry| joined(placed(entry, &self.of_old), true));
        let mut all: Vec<JoinedEntry> = old.collect();
        let (mut in_both, mut changed) = (0, Vec::new());
        for (entry, same) in of_new.into_iter().zip(same_as) {
            let entry = placed(entry, &self.of_new);
            match same {
                Some(same) => {
                    in_both += 1;
                    changed.extend(all[*same].add(entry));
                }
                None => all.push(joined(entry, false)),
            }
        }
        (all, in_both, changed)
    }
}

/// An entry of one or both maildrops.
#[derive(Debug)]
struct JoinedEntry {
    entry: Entry,
    /// The UIDL that the old maildrop served it by.
    old_said: Option<Uidl>,
    /// The UIDL that the new maildrop served it by.
    new_said: Option<Uidl>,
}

impl JoinedEntry {
    /// Adds the new maildrop's entry of the same message. Returns how its UIDL changed.
    fn add(&mut self, new: Entry) -> Option<Changed> {
        let old = &mut self.entry;
        let new_wins = new.last_capture >= old.last_capture;
        self.new_said = Some(new.uidl.clone());
        let knows = |entry: &Entry, uidl: &Uidl| entry.uidls().any(|one| one == uidl);
        let is_news = !knows(old, &new.uidl) && !knows(&new, &old.uidl);
        let name = spelled([&new.file, &old.file, &new.guid, &old.guid]);
        let (earlier, later) =
            if new_wins { (&old.uidl, &new.uidl) } else { (&new.uidl, &old.uidl) };
        let (earlier, later) = (earlier.clone(), later.clone());
        let mut said: Vec<Uidl> = std::mem::take(&mut old.earlier);
        said.extend(new.earlier);
        said.push(earlier.clone());
        let mut seen = HashSet::from([later.clone()]);
        said.retain(|uidl| seen.insert(uidl.clone()));
        old.earlier = said;
        old.uidl = later.clone();
        old.first_capture = old.first_capture.min(new.first_capture);
        old.last_capture = old.last_capture.max(new.last_capture);

        fn add<T>(old: &mut Option<T>, new: Option<T>, new_wins: bool) {
            if old.is_none() || (new_wins && new.is_some()) {
                *old = new;
            }
        }
        add(&mut old.octets, new.octets, false);
        add(&mut old.file, new.file, false);
        add(&mut old.guid, new.guid, false);
        // When the UIDs differ, a name has told that it is the same message all the same.
        add(&mut old.uid, new.uid, new_wins);
        add(&mut old.header, new.header, new_wins);
        add(&mut old.message, new.message, new_wins);
        add(&mut old.origin, new.origin, new_wins);
        is_news.then_some(Changed { name, earlier, later: Some(later) })
    }
}

/// The first of some names that a capture spells out.
fn spelled<const N: usize>(names: [&Option<Name>; N]) -> Option<Box<[u8]>> {
    names.into_iter().flatten().find_map(|name| match name {
        Name::Spelled(name) => Some(name.clone()),
        Name::Key(_) => None,
    })
}

/// Removes the entries whose UIDL another message has in a later capture, and returns them. UIDLs
/// that one capture itself gave to several messages stay as they were.
fn give_up(entries: &mut Vec<JoinedEntry>) -> Vec<Entry> {
    let mut by_uidl: HashMap<&Uidl, Vec<usize>> = HashMap::new();
    for (at, joined) in entries.iter().enumerate() {
        by_uidl.entry(&joined.entry.uidl).or_default().push(at);
    }
    let mut is_lost = vec![false; entries.len()];
    for (uidl, holders) in by_uidl.into_iter().filter(|(_, holders)| holders.len() > 1) {
        let last = holders.iter().map(|&at| entries[at].entry.last_capture).max();
        let is_last = |at: usize| Some(entries[at].entry.last_capture) == last;
        let old_has = |at: usize| entries[at].old_said.as_ref() == Some(uidl);
        let new_has = |at: usize| entries[at].new_said.as_ref() == Some(uidl);
        let last_in_old = holders.iter().any(|&at| is_last(at) && old_has(at));
        let last_in_new = holders.iter().any(|&at| is_last(at) && new_has(at));
        for &at in &holders {
            let is_repeated = (last_in_old && old_has(at)) || (last_in_new && new_has(at));
            is_lost[at] = !is_last(at) && !is_repeated;
        }
    }
    let (mut kept, mut given_up) = (Vec::with_capacity(entries.len()), Vec::new());
    for (joined, is_lost) in std::mem::take(entries).into_iter().zip(is_lost) {
        if is_lost {
            given_up.push(joined.entry);
        } else {
            kept.push(joined);
        }
    }
    *entries = kept;
    given_up
}

/// Whether the new capture has exactly the messages of the old maildrop's last one, with the same
/// UIDLs.
fn says_the_same(
    of_old: &[Entry],
    of_new: &[Entry],
    same_as: &[Option<usize>],
    old: &Maildrop,
) -> bool {
    let is_same = |(new, same): (&Entry, &Option<usize>)| {
        same.is_some_and(|same| of_old[same].uidl == new.uidl)
    };
    of_new.iter().zip(same_as).all(is_same) && of_new.len() == old.last_entries().count()
}

/// Finds the entries of two captures that are the same message.
struct Pairs<'a> {
    old: &'a [Entry],
    new: &'a [Entry],
    is_taken: Vec<bool>,
    /// The old entry for each new one.
    same_as: Vec<Option<usize>>,
}

impl<'a> Pairs<'a> {
    /// The old entry that is the same message, for each new one; each old entry at most once.
    fn of(old: &'a [Entry], new: &'a [Entry]) -> Vec<Option<usize>> {
        let (is_taken, same_as) = (vec![false; old.len()], vec![None; new.len()]);
        let mut pairs = Self { old, new, is_taken, same_as };
        let uidl = |entry: &'a Entry| &entry.uidl;
        let names = |entry: &'a Entry| entry.file_keys().map(|name| name.cut);
        pairs.by(|entry| names(entry).map(|name| (uidl(entry), name)), |_, _| true);
        pairs.by(
            |entry| contents(entry).map(|content| (uidl(entry), content)),
            |old, new| !contradict(old, new),
        );
        pairs.by(|entry| names(entry).filter_map(|name| Some((name, entry.uid?))), |_, _| true);
        pairs.by(names, |_, _| true);
        pairs.by(|entry| [uidl(entry)], |old, new| !contradict(old, new));
        pairs.by(
            |entry| contents(entry).filter_map(|content| Some((entry.uid?, content))),
            |old, new| !keys_contradict(old, new),
        );
        pairs.by_one_alone(|entry| entry.message);
        pairs.by_one_alone(|entry| entry.header);
        pairs.same_as
    }

    /// Pairs entries that have a key in common and fit. The first that are left are taken.
    fn by<K: Hash + Eq, I: IntoIterator<Item = K>>(
        &mut self,
        keys: impl Fn(&'a Entry) -> I,
        fit: impl Fn(&Entry, &Entry) -> bool,
    ) {
        if self.same_as.iter().all(Option::is_some) {
            return;
        }
        let mut by_key: HashMap<K, Vec<usize>> = HashMap::new();
        for (at, entry) in self.old.iter().enumerate().rev() {
            if !self.is_taken[at] {
                keys(entry).into_iter().for_each(|key| by_key.entry(key).or_default().push(at));
            }
        }
        for (new_at, new) in self.new.iter().enumerate() {
            if self.same_as[new_at].is_some() {
                continue;
            }
            for key in keys(new) {
                let Some(left) = by_key.get_mut(&key) else { continue };
                // The list is in reverse: its first entry stands last.
                while left.last().is_some_and(|&at| self.is_taken[at]) {
                    left.pop();
                }
                let untaken = left.iter().rev().take(MOST_COMPARED);
                let found =
                    untaken.copied().find(|&at| !self.is_taken[at] && fit(&self.old[at], new));
                if let Some(at) = found {
                    self.is_taken[at] = true;
                    self.same_as[new_at] = Some(at);
                    break;
                }
            }
        }
    }

    /// Pairs entries with a content that each capture has only once, when their keys do not
    /// contradict.
    fn by_one_alone(&mut self, content: impl Fn(&Entry) -> Option<Fingerprint>) {
        let alone = |entries: &[Entry]| {
            let mut alone: HashMap<Fingerprint, Option<usize>> = HashMap::new();
            for (at, entry) in entries.iter().enumerate() {
                if let Some(content) = content(entry) {
                    alone.entry(content).and_modify(|one| *one = None).or_insert(Some(at));
                }
            }
            alone
        };
        let old = alone(self.old);
        for (content, new_at) in alone(self.new) {
            let (Some(new_at), Some(Some(at))) = (new_at, old.get(&content).copied()) else {
                continue;
            };
            let is_left = !self.is_taken[at] && self.same_as[new_at].is_none();
            if is_left && !keys_contradict(&self.old[at], &self.new[new_at]) {
                self.is_taken[at] = true;
                self.same_as[new_at] = Some(at);
            }
        }
    }
}

/// The fingerprints of an entry, each with the number of its kind.
fn contents(entry: &Entry) -> impl Iterator<Item = (u8, Fingerprint)> {
    let all = [(0, entry.message), (1, entry.header), (2, entry.origin)];
    all.into_iter().filter_map(|(which, content)| Some((which, content?)))
}

/// Whether two entries with one UIDL have keys that say that they are two messages. Sizes do not
/// count: servers disagree on them.
fn contradict(old: &Entry, new: &Entry) -> bool {
    keys_contradict(old, new) || differ(old.uid, new.uid)
}

/// The same, for two entries whose UIDL and UID may differ.
fn keys_contradict(old: &Entry, new: &Entry) -> bool {
    let cut = |name: &Option<Name>| name.as_ref().map(|name| name.key().cut);
    let names_differ =
        differ(cut(&old.file), cut(&new.file)) || differ(cut(&old.guid), cut(&new.guid));
    let share_a_name = old.file_keys().any(|old| new.file_keys().any(|new| old.cut == new.cut));
    (names_differ && !share_a_name)
        || differ(old.header, new.header)
        || differ(old.message, new.message)
        || differ(old.origin, new.origin)
}

fn differ<T: PartialEq>(old: Option<T>, new: Option<T>) -> bool {
    matches!((old, new), (Some(old), Some(new)) if old != new)
}

/// Spends every UIDL that a counter has given. A format with a file name or GUID is left out:
/// neither we nor the new server can make such a UIDL from a number.
fn spell_out(
    counter: &Counter,
    uidvalidity: Option<u32>,
    mut spend: impl FnMut(Uidl),
) -> Result<(), CannotMerge> {
    if counter.next > MOST_SPELLED_OUT {
        return Err(CannotMerge { format: counter.format.to_string(), next: counter.next });
    }
    for uid in 1..counter.next {
        let uidvalidity = uidvalidity.unwrap_or(0);
        let fields = Fields { uid, uidvalidity, file: None, guid: None };
        if let Ok(uidl) = counter.format.render(&fields) {
            spend(uidl);
        }
    }
    Ok(())
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradiction { uidl, count } => write!(
                f,
                "{count} unique-ids are other messages' in the later capture (the first: {uidl}); \
                 the messages that had them before are given up, and are downloaded again where \
                 they are still there"
            ),
            Self::Failed => {
                f.write_str("captured before, and now failed: refused until it is captured again")
            }
            Self::CountsAnew { numbers } => {
                write!(f, "the old server counts anew; its {numbers} earlier numbers are spent")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::format::UidlFormat;
    use crate::key::FileKey;

    fn uidl(text: &str) -> Uidl {
        Uidl::new(text.as_bytes()).unwrap()
    }

    /// An entry with a UIDL and a file name, unless that is empty.
    fn entry(text: &str, file: &str) -> Entry {
        Entry {
            file: (!file.is_empty()).then(|| Name::Spelled(file.as_bytes().into())),
            ..Entry::new(uidl(text))
        }
    }

    fn maildrop(entries: Vec<Entry>) -> Maildrop {
        let state = if entries.is_empty() { State::Empty } else { State::Captured };
        let source = "old".into();
        captured(Maildrop {
            source,
            uidvalidity: Some(7),
            entries,
            ..Maildrop::new("alice", state)
        })
    }

    /// The same, for the only capture, which describes itself.
    fn captured(maildrop: Maildrop) -> Maildrop {
        let taken = maildrop.captures.first().and_then(|capture| capture.taken);
        Maildrop { captures: vec![Capture::of(&maildrop, taken)], ..maildrop }
    }

    /// The same, taken at that time.
    fn taken(seconds: u64, mut maildrop: Maildrop) -> Maildrop {
        maildrop.captures[0].taken = Some(seconds);
        maildrop
    }

    /// A capture that is built upon another.
    fn merge(old: Maildrop, new: Maildrop) -> Result<(Maildrop, Vec<Remark>), CannotMerge> {
        super::merge(old, new).map(|Merged { maildrop, remarks, .. }| (maildrop, remarks))
    }

    /// The facts of an entry, in short: its UIDL, its earlier ones, its first and last capture.
    fn short(maildrop: &Maildrop) -> Vec<String> {
        let short = |entry: &Entry| {
            let uidls: Vec<String> = entry.uidls().map(Uidl::to_string).collect();
            format!("{} {}-{}", uidls.join("<"), entry.first_capture, entry.last_capture)
        };
        maildrop.entries.iter().map(short).collect()
    }

    fn counted(next: u32, uidvalidity: u32, format: &str) -> Maildrop {
        let format = UidlFormat::parse(format).unwrap();
        let counter = Some(Counter { format, next });
        captured(Maildrop { counter, uidvalidity: Some(uidvalidity), ..maildrop(Vec::new()) })
    }

    fn uidls(uidls: &[Uidl]) -> Vec<String> {
        uidls.iter().map(Uidl::to_string).collect()
    }

    #[test]
    fn old_entries_keep_their_place_and_later_ones_follow() {
        let old = maildrop(vec![entry("a", "1"), entry("b", "2"), entry("c", "3")]);
        let new = maildrop(vec![entry("d", "4"), entry("c", "3"), entry("a", "1")]);
        let (merged, remarks) = merge(old.clone(), new).unwrap();
        assert_eq!(short(&merged), ["a 0-1", "b 0-0", "c 0-1", "d 1-1"]);
        assert_eq!(merged.captures.len(), 2);
        assert_eq!(merged.last_entries().count(), 3);
        assert_eq!(remarks, []);
    }

    #[test]
    fn the_same_capture_again_changes_nothing() {
        let mut old = counted(4, 7, "UID%u-%v");
        old.entries = vec![entry("a", "1"), entry("a", "1"), entry("b", "2")];
        old.state = State::Captured;
        old.spent = vec![uidl("z"), uidl("y")];
        assert_eq!(merge(old.clone(), old.clone()).unwrap(), (old.clone(), vec![]));
        let old = taken(5, old);
        assert_eq!(merge(old.clone(), old.clone()).unwrap(), (old.clone(), vec![]));
        // The first of two adds nothing either, nor does the dump of both.
        let new = taken(6, maildrop(vec![entry("a", "1"), entry("c", "2")]));
        let (both, _) = merge(old.clone(), new.clone()).unwrap();
        for again in [&old, &new, &both] {
            assert_eq!(merge(both.clone(), again.clone()).unwrap(), (both.clone(), vec![]));
        }
    }

    #[test]
    fn a_later_capture_adds_the_keys_that_were_missing_and_changes_none() {
        let old = Entry { octets: Some(5), ..entry("a", "1,S=5") };
        let new = Entry {
            header: Some(Fingerprint([1; 16])),
            uid: Some(3),
            octets: Some(6),
            ..entry("a", "1,S=5,W=6")
        };
        let (merged, remarks) = merge(maildrop(vec![old.clone()]), maildrop(vec![new])).unwrap();
        let (header, uid) = (Some(Fingerprint([1; 16])), Some(3));
        assert_eq!(merged.entries, [Entry { header, uid, ..old }]);
        assert_eq!(remarks, []);
    }

    #[test]
    fn a_uidl_that_is_another_messages_later_is_that_messages() {
        let fingerprint = |octet| Some(Fingerprint([octet; 16]));
        let plain = || Entry { earlier: vec![uidl("older")], ..entry("a", "") };
        for (old, new) in [
            (Entry { earlier: vec![uidl("older")], ..entry("a", "1") }, entry("a", "2")),
            (
                Entry { header: fingerprint(1), ..plain() },
                Entry { header: fingerprint(2), ..entry("a", "") },
            ),
            (
                Entry { message: fingerprint(1), ..plain() },
                Entry { message: fingerprint(2), ..entry("a", "") },
            ),
            (
                Entry { origin: fingerprint(1), ..plain() },
                Entry { origin: fingerprint(2), ..entry("a", "") },
            ),
            (Entry { uid: Some(1), ..plain() }, Entry { uid: Some(2), ..entry("a", "") }),
        ] {
            let (old, new) = (maildrop(vec![old]), taken(1, maildrop(vec![new])));
            let (merged, remarks) = merge(old.clone(), new.clone()).unwrap();
            assert_eq!(short(&merged), ["a 1-1"]);
            assert_eq!(merged.entries[0].header, new.entries[0].header);
            assert_eq!(uidls(&merged.spent), ["older"]);
            assert_eq!(remarks, [Remark::Contradiction { uidl: uidl("a"), count: 1 }]);
            // When it is built the other way round, the old one adds nothing.
            let (old, new) = (taken(1, old), taken(2, new));
            let (merged, remarks) = merge(new.clone(), old).unwrap();
            assert_eq!((merged.entries.len(), merged.entries[0].uid), (1, new.entries[0].uid));
            assert_eq!((uidls(&merged.spent), remarks.len()), (vec!["older".to_owned()], 1));
        }
    }

    #[test]
    fn a_message_with_another_uidl_in_the_later_capture_is_served_that() {
        let fingerprint = |octet| Some(Fingerprint([octet; 16]));
        let with_uid = |text, uid, octet| Entry {
            uid: Some(uid),
            message: fingerprint(octet),
            ..entry(text, "")
        };
        for (old, new) in [
            (entry("a", "1,S=5"), entry("b", "1,S=5:2,S")),
            (
                entry("a", "g"),
                Entry { guid: Some(Name::Spelled((*b"g").into())), ..entry("b", "") },
            ),
            // This holds under one UIDVALIDITY, although the content is not the only one.
            (with_uid("a", 3, 1), with_uid("b", 3, 1)),
            (
                Entry { message: fingerprint(1), ..entry("a", "") },
                Entry { message: fingerprint(1), uid: Some(9), ..entry("b", "") },
            ),
            (
                Entry { header: fingerprint(1), ..entry("a", "") },
                Entry { header: fingerprint(1), ..entry("b", "2") },
            ),
        ] {
            let (one, other) =
                (entry("x", "8"), Entry { message: fingerprint(9), ..entry("y", "9") });
            let old = taken(1, maildrop(vec![one.clone(), old, other.clone()]));
            let new = taken(2, maildrop(vec![other, new, one]));
            let Merged { maildrop, remarks, in_both, changed } =
                super::merge(old.clone(), new.clone()).unwrap();
            assert_eq!(short(&maildrop), ["x 0-1", "b<a 0-1", "y 0-1"]);
            assert_eq!((in_both, remarks.len(), changed.len()), (3, 0, 1));
            assert_eq!((&changed[0].earlier, &changed[0].later), (&uidl("a"), &Some(uidl("b"))));
            // When they are built in the other order, the same is right.
            let other_way = super::merge(new, old).unwrap();
            assert_eq!(short(&other_way.maildrop), ["y 0-1", "b<a 0-1", "x 0-1"]);
            assert_eq!((other_way.in_both, other_way.changed.len()), (3, 1));
            assert_eq!(other_way.maildrop.captures, maildrop.captures);
        }
    }

    #[test]
    fn what_is_only_like_another_message_is_none_of_its_captures() {
        let fingerprint = |octet| Some(Fingerprint([octet; 16]));
        let message = |text, file| Entry { message: fingerprint(1), ..entry(text, file) };
        for (old, new) in [
            // Two have one content; others have other names; one has another body behind the same
            // header.
            (vec![message("a", ""), message("b", "")], vec![message("c", "")]),
            (vec![message("a", "")], vec![message("b", ""), message("c", "")]),
            (vec![message("a", "1")], vec![message("b", "2")]),
            (
                vec![Entry { header: fingerprint(3), ..message("a", "") }],
                vec![Entry { header: fingerprint(3), message: fingerprint(2), ..entry("b", "") }],
            ),
            // A UID alone names nothing.
            (
                vec![Entry { uid: Some(1), header: fingerprint(3), ..entry("a", "") }],
                vec![Entry { uid: Some(1), header: fingerprint(4), ..entry("b", "") }],
            ),
        ] {
            let count = old.len() + new.len();
            let merged = super::merge(maildrop(old), maildrop(new)).unwrap();
            assert_eq!((merged.maildrop.entries.len(), merged.in_both), (count, 0));
        }
    }

    #[test]
    fn uidls_that_changed_places_are_each_served_once() {
        let old = vec![entry("a", "1"), entry("b", "2"), entry("c", "3"), entry("d", "4")];
        let new = vec![entry("b", "1"), entry("a", "2"), entry("d", "3"), entry("e", "5")];
        let merged = super::merge(maildrop(old.clone()), maildrop(new.clone())).unwrap();
        // The message that had d is gone, and only the third has c.
        assert_eq!(short(&merged.maildrop), ["b 0-1", "a 0-1", "d<c 0-1", "e 1-1"]);
        assert_eq!(merged.remarks, [Remark::Contradiction { uidl: uidl("d"), count: 1 }]);
        assert_eq!((merged.in_both, merged.changed.len()), (4, 4));
        assert_eq!((&merged.changed[3].earlier, &merged.changed[3].later), (&uidl("d"), &None));
        assert!(merged.is_doubtful());
        let again = super::merge(merged.maildrop.clone(), maildrop(new)).unwrap();
        assert_eq!((again.maildrop, again.changed.len()), (merged.maildrop, 0));
    }

    #[test]
    fn a_capture_whose_counter_went_back_only_adds() {
        let counted = |next, seconds, entries| {
            let mut maildrop = counted(next, 7, "UID%u-%v");
            (maildrop.entries, maildrop.state) = (entries, State::Captured);
            taken(seconds, captured(maildrop))
        };
        let first = counted(10, 100, vec![entry("UID8-7", "1"), entry("UID9-7", "2")]);
        // The old server was restored from a backup: it gives UID9 again, to another message.
        let back =
            counted(9, 200, vec![entry("UID5-7", "1"), entry("UID9-7", "3"), entry("z", "4")]);
        let merged = super::merge(first.clone(), back.clone()).unwrap();
        assert_eq!(short(&merged.maildrop), ["UID8-7<UID5-7 0-1", "UID9-7 1-1", "z 0-0"]);
        assert_eq!(merged.maildrop.captures[1].next, Some(10));
        assert_eq!(merged.maildrop.counter.as_ref().unwrap().next, 10);
        assert_eq!(merged.maildrop.last_entries().count(), 2);
        // Under another UIDVALIDITY, the time decides.
        let anew = Maildrop { uidvalidity: Some(8), ..back };
        let anew = taken(200, captured(anew));
        let merged = super::merge(first, anew).unwrap();
        assert_eq!(short(&merged.maildrop)[0], "UID5-7<UID8-7 0-1");
    }

    #[test]
    fn a_capture_of_another_server_that_counts_alike_is_doubtful() {
        let entries = |server: &str| -> Vec<Entry> {
            (1..9).map(|n| entry(&n.to_string(), &format!("{server}{n}"))).collect()
        };
        let (old, new) = (taken(1, maildrop(entries("a"))), taken(2, maildrop(entries("b"))));
        let merged = super::merge(old.clone(), new).unwrap();
        assert_eq!((merged.in_both, merged.changed.len()), (8, 8));
        assert!(merged.is_doubtful());
        assert_eq!(merged.changed[0].name.as_deref(), Some(&b"a1"[..]));
        // Once it was taken, the first is no news.
        let again = super::merge(merged.maildrop.clone(), old).unwrap();
        assert_eq!((again.maildrop, again.changed), (merged.maildrop, vec![]));
        assert_eq!(again.remarks, []);
    }

    #[test]
    fn much_that_changes_is_doubtful_and_little_is_not() {
        let entries = |count: usize, changed: usize| -> Vec<Entry> {
            let uidl_of = |n| format!("{n}{}", if n < changed { "-new" } else { "" });
            (0..count).map(|n| entry(&uidl_of(n), &format!("f{n}"))).collect()
        };
        for (count, changed, is_doubtful) in
            [(3, 3, false), (4, 4, true), (399, 4, true), (400, 4, false), (1000, 11, true)]
        {
            let (old, new) = (maildrop(entries(count, 0)), maildrop(entries(count, changed)));
            let merged = super::merge(old, new).unwrap();
            assert_eq!((merged.in_both, merged.changed.len()), (count, changed));
            assert_eq!(merged.is_doubtful(), is_doubtful, "{changed} of {count}");
        }
        let merged = super::merge(maildrop(entries(4, 0)), maildrop(entries(4, 4))).unwrap();
        assert_eq!(merged.changed[0].name.as_deref(), Some(&b"f0"[..]));
    }

    #[test]
    fn of_copies_with_one_uidl_each_is_taken_once() {
        let old = maildrop(vec![entry("a", "1"), entry("a", "2")]);
        let new = maildrop(vec![entry("a", "2"), entry("a", ""), entry("a", "")]);
        let (merged, remarks) = merge(old.clone(), new).unwrap();
        assert_eq!(short(&merged), ["a 0-1", "a 0-1", "a 1-1"]);
        assert_eq!(
            merged.entries[..2].iter().map(|entry| &entry.file).collect::<Vec<_>>(),
            old.entries.iter().map(|entry| &entry.file).collect::<Vec<_>>()
        );
        assert_eq!(remarks, [], "a third copy contradicts nothing");
    }

    #[test]
    fn a_name_that_was_a_guid_before_is_the_same_name() {
        let old = Entry { guid: Some(Name::Spelled((*b"g").into())), ..entry("a", "1") };
        let (merged, remarks) =
            merge(maildrop(vec![old]), maildrop(vec![entry("a", "g")])).unwrap();
        assert_eq!((merged.entries.len(), remarks), (1, vec![]));
    }

    #[test]
    fn a_failed_capture_loses_nothing_and_is_still_failed() {
        let mut old = maildrop(vec![entry("a", "1")]);
        let new = captured(Maildrop::new("alice", State::Failed));
        let (merged, remarks) = merge(old.clone(), taken(9, new.clone())).unwrap();
        old.state = State::Failed;
        assert_eq!(merged, old, "not even its captures");
        assert_eq!(remarks, [Remark::Failed]);
        let good = taken(1, maildrop(vec![entry("a", "1")]));
        assert_eq!(merge(taken(2, new.clone()), good.clone()).unwrap().0, good);
        let (twice, _) = merge(taken(2, new.clone()), taken(3, new)).unwrap();
        assert_eq!((twice.state, twice.captures.len()), (State::Failed, 1));
        let (again, remarks) = merge(merged, maildrop(vec![entry("a", "1")])).unwrap();
        assert_eq!((again.state, remarks), (State::Captured, vec![]));
        let (emptied, _) = merge(again, maildrop(vec![])).unwrap();
        assert_eq!((emptied.state, emptied.entries.len()), (State::Captured, 1));
        assert_eq!(emptied.last_entries().count(), 0);
    }

    #[test]
    fn what_is_spent_stays_spent_unless_its_message_turns_up() {
        let old = Maildrop { spent: vec![uidl("x"), uidl("y")], ..maildrop(vec![entry("a", "1")]) };
        let new = Maildrop {
            spent: vec![uidl("z"), uidl("x"), uidl("a")],
            ..maildrop(vec![entry("y", "2")])
        };
        let (merged, _) = merge(old, new).unwrap();
        assert_eq!(uidls(&merged.spent), ["x", "z"]);
        assert_eq!(merged.entries.len(), 2);
    }

    #[test]
    fn what_is_not_to_be_believed_is_spent_but_where_the_new_capture_has_it() {
        let mut old = counted(4, 7, "UID%u-%v");
        old.entries = vec![entry("a", "1"), entry("b", "2"), entry("b", "3"), entry("x", "4")];
        old.spent = vec![uidl("x"), uidl("y")];
        old.state = State::Captured;
        let spent = spend_entries(old);
        assert_eq!(spent.entries, []);
        assert_eq!(uidls(&spent.spent), ["x", "y", "a", "b"]);
        // Other messages have the same UIDLs, in another order: nothing of the old one is left.
        let new = maildrop(vec![entry("b", "1"), entry("c", "2")]);
        let (merged, remarks) = merge(spent.clone(), new).unwrap();
        assert_eq!(merged.entries, [entry("b", "1"), entry("c", "2")]);
        assert_eq!(uidls(&merged.spent), ["x", "y", "a"]);
        assert_eq!((merged.counter.unwrap().next, merged.state), (4, State::Captured));
        assert_eq!(remarks, []);
        assert_eq!(merged.captures.len(), 1);
        let (merged, _) = merge(spent, maildrop(vec![])).unwrap();
        assert_eq!((merged.spent.len(), merged.state), (4, State::Empty));
    }

    #[test]
    fn the_higher_next_number_counts() {
        for (old, new) in [(5, 3), (3, 5)] {
            let (old, new) = (counted(old, 7, "UID%u-%v"), counted(new, 7, "UID%u-%v"));
            let (merged, remarks) = merge(old, new).unwrap();
            assert_eq!(merged.counter.unwrap().next, 5);
            assert_eq!(remarks, []);
        }
        // A format without %v counts on under any UIDVALIDITY.
        let (merged, _) = merge(counted(5, 7, "%u"), counted(3, 8, "%u")).unwrap();
        assert_eq!((merged.counter.unwrap().next, merged.spent.len()), (5, 0));
        // This is a later capture that cannot tell the counter.
        let (merged, _) = merge(counted(5, 7, "UID%u-%v"), maildrop(vec![])).unwrap();
        assert_eq!(merged.counter.unwrap().next, 5);
    }

    #[test]
    fn numbers_of_a_counter_that_was_given_up_are_spent() {
        let old = counted(4, 7, "UID%u-%v");
        for new in [counted(2, 8, "UID%u-%v"), counted(2, 7, "%08Xu%08Xv")] {
            let (merged, remarks) = merge(old.clone(), new.clone()).unwrap();
            assert_eq!(uidls(&merged.spent), ["UID1-7", "UID2-7", "UID3-7"]);
            assert_eq!((merged.counter, merged.uidvalidity), (new.counter, new.uidvalidity));
            assert_eq!(remarks, [Remark::CountsAnew { numbers: 3 }]);
        }
        let new = captured(Maildrop { uidvalidity: Some(8), ..maildrop(vec![]) });
        assert_eq!(merge(old, new).unwrap().0.spent.len(), 3);
        let anew = || counted(2, 8, "UID%u-%v");
        let far = counted(MOST_SPELLED_OUT, 7, "UID%u-%v");
        assert_eq!(merge(far, anew()).unwrap().0.spent.len(), MOST_SPELLED_OUT as usize - 1);
        let error = merge(counted(MOST_SPELLED_OUT + 1, 7, "UID%u-%v"), anew()).unwrap_err();
        assert_eq!((error.format.as_str(), error.next), ("UID%u-%v", MOST_SPELLED_OUT + 1));
    }

    #[test]
    fn an_operator_reads_what_a_merge_made_of_it() {
        let contradiction = Remark::Contradiction { uidl: uidl("U1"), count: 7 }.to_string();
        assert!(
            contradiction.starts_with(
                "7 unique-ids are other messages' in the later capture (the first: U1);"
            )
        );
        assert!(Remark::Failed.to_string().contains("refused until it is captured again"));
        let anew = Remark::CountsAnew { numbers: 3 }.to_string();
        assert!(anew.contains("its 3 earlier numbers are spent"));
    }

    #[test]
    fn a_uid_does_not_outlive_its_uidvalidity() {
        let old = maildrop(vec![Entry { uid: Some(1), ..entry("a", "1") }]);
        let new = Entry { uid: Some(2), ..entry("a", "1") };
        let new = captured(Maildrop { uidvalidity: Some(8), ..maildrop(vec![new]) });
        let (merged, remarks) = merge(old, new).unwrap();
        assert_eq!((merged.entries.len(), merged.entries[0].uid), (1, Some(2)));
        assert_eq!(remarks, []);
    }

    fn some_uidl() -> impl Strategy<Value = Uidl> {
        prop::sample::select(vec!["a", "b", "c", "d", "e", "f", "UID1-7", "UID2-7", "UID3-8"])
            .prop_map(uidl)
    }

    prop_compose! {
        /// The keys are so few that they repeat, and some agree with nothing.
        fn some_entry()(
            uidl in some_uidl(),
            file in of(0..5_u8), guid in of(3..7_u8), uid in of(1..5_u32),
            prints in any::<[Option<bool>; 3]>(),
        ) -> Entry {
            let name = |name: u8| Name::Spelled(vec![b'0' + name].into());
            let [header, message, origin] =
                prints.map(|print| print.map(|print| Fingerprint([print.into(); 16])));
            let (file, guid) = (file.map(name), guid.map(name));
            Entry { file, guid, uid, header, message, origin, ..Entry::new(uidl) }
        }
    }

    prop_compose! {
        fn some_maildrop()(
            entries in prop::collection::vec(some_entry(), 0..6),
            spent in prop::collection::vec(some_uidl(), 0..3),
            uidvalidity in of(7..9_u32), next in of(1..6_u32), taken in of(1..4_u64),
            format in prop::sample::select(vec!["UID%u-%v", "%u"]),
            is_failed in prop::bool::weighted(0.1),
        ) -> Maildrop {
            let format = UidlFormat::parse(format).unwrap();
            let next = next.filter(|_| uidvalidity.is_some() || !format.has_uidvalidity());
            let mut made = maildrop(entries);
            let held: Vec<Uidl> = made.entries.iter().map(|entry| entry.uidl.clone()).collect();
            made.uidvalidity = uidvalidity;
            made.counter = next.map(|next| Counter { format, next });
            let mut seen = HashSet::new();
            let is_new = |uidl: &Uidl| !held.contains(uidl) && seen.insert(uidl.clone());
            made.spent = spent.into_iter().filter(is_new).collect();
            if is_failed {
                made.state = State::Failed;
            }
            let mut made = captured(made);
            made.captures[0].taken = taken;
            made
        }
    }

    /// Every UIDL of a maildrop.
    fn named(maildrop: &Maildrop) -> HashSet<Uidl> {
        let held = maildrop.entries.iter().flat_map(Entry::uidls);
        held.chain(&maildrop.spent).cloned().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nothing_that_a_capture_said_is_lost_and_no_capture_is_news_twice(
            captures in prop::collection::vec(some_maildrop(), 2..5),
        ) {
            let mut all = captures[0].clone();
            let mut named_before = named(&all);
            for capture in &captures[1..] {
                let captures_before = all.captures.len();
                let merged = super::merge(all, capture.clone()).unwrap().maildrop;
                named_before.extend(named(capture));
                let now = named(&merged);
                prop_assert!(named_before.is_subset(&now), "{:?}", named_before.difference(&now));
                prop_assert!(merged.captures.len() <= captures_before + 1);
                // Each UIDL is served, was served before, or is spent: exactly one of these.
                let served: HashSet<&Uidl> =
                    merged.entries.iter().map(|entry| &entry.uidl).collect();
                let earlier: HashSet<&Uidl> =
                    merged.entries.iter().flat_map(|entry| &entry.earlier).collect();
                prop_assert!(served.is_disjoint(&earlier));
                let is_held = |uidl: &Uidl| served.contains(uidl) || earlier.contains(uidl);
                prop_assert!(!merged.spent.iter().any(is_held));
                for entry in &merged.entries {
                    prop_assert!(entry.first_capture <= entry.last_capture);
                    prop_assert!((entry.last_capture as usize) < merged.captures.len());
                }
                let itself = super::merge(merged.clone(), merged.clone()).unwrap();
                prop_assert_eq!(&itself.maildrop, &merged);
                prop_assert_eq!(itself.changed.len(), 0);
                all = merged;
            }
        }

        #[test]
        fn what_the_later_capture_has_once_is_served_once_and_as_it_says(
            one in some_maildrop(), other in some_maildrop(), other_is_built_first in any::<bool>(),
        ) {
            let good = |seconds, capture: Maildrop| {
                // Only the time tells.
                let state = if capture.entries.is_empty() { State::Empty } else { State::Captured };
                taken(seconds, captured(Maildrop { state, counter: None, ..capture }))
            };
            let (earlier, later) = (good(1, one), good(2, other));
            let merged = if other_is_built_first {
                super::merge(later.clone(), earlier.clone())
            } else {
                super::merge(earlier.clone(), later.clone())
            };
            let merged = merged.unwrap().maildrop;
            prop_assert_eq!(merged.captures.len(), 2);
            prop_assert_eq!(merged.captures[1].taken, Some(2));
            prop_assert_eq!(merged.last_entries().count(), later.entries.len());
            let count = |maildrop: &Maildrop, uidl: &Uidl| {
                maildrop.entries.iter().filter(|entry| entry.uidl == *uidl).count()
            };
            let last: Vec<&Uidl> = merged.last_entries().map(|entry| &entry.uidl).collect();
            for entry in &later.entries {
                let here = count(&later, &entry.uidl);
                let in_last = last.iter().filter(|uidl| **uidl == &entry.uidl).count();
                prop_assert_eq!(in_last, here, "{}", entry.uidl);
                if count(&earlier, &entry.uidl) <= 1 {
                    prop_assert_eq!(count(&merged, &entry.uidl), here, "{}", entry.uidl);
                }
            }
        }

        #[test]
        fn a_message_that_its_name_tells_ends_alike_in_either_order_of_building(
            earlier in prop::collection::btree_map(0..8_u8, some_uidl(), 0..8),
            later in prop::collection::btree_map(0..8_u8, some_uidl(), 0..8),
        ) {
            let capture_of = |seconds, said: &std::collections::BTreeMap<u8, Uidl>| {
                let entry_of =
                    |(name, uidl): (&u8, &Uidl)| entry(&uidl.to_string(), &name.to_string());
                taken(seconds, maildrop(said.iter().map(entry_of).collect()))
            };
            let (one, other) = (capture_of(1, &earlier), capture_of(2, &later));
            let short_of = |merged: Merged| {
                let mut entries = merged.maildrop.entries;
                entries.sort_by_key(|entry| entry.file.as_ref().map(Name::key));
                let mut spent = merged.maildrop.spent;
                spent.sort();
                (entries, merged.maildrop.captures, spent, merged.in_both, merged.changed.len())
            };
            let built = short_of(super::merge(one.clone(), other.clone()).unwrap());
            prop_assert_eq!(&built, &short_of(super::merge(other, one).unwrap()));
            for entry in &built.0 {
                let name = entry.file.as_ref().unwrap();
                let is_it = |at: u8| name.key() == FileKey::of_name(at.to_string().as_bytes());
                let said = later.iter().find(|(at, _)| is_it(**at));
                if let Some((_, uidl)) = said {
                    prop_assert_eq!(&entry.uidl, uidl);
                }
            }
        }
    }
}
