//! Which entries the names of a message allow: [`EntriesByName`].
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::collections::HashMap;
use std::slice;

use super::run::{MessageState, Run};
use crate::key::FileKey;
use crate::maildrop::Entry;

/// If more entries than this share a name up to its first comma, it identifies nothing.
const MOST_OF_A_CUT: usize = 64;

/// What a message's names say of entries.
pub(super) enum NamedEntries {
    /// No entry has one of them.
    None,
    /// They name different entries.
    Disagree,
    /// This entry alone.
    One(usize),
    /// Any of these entries, in the old order.
    Several(Vec<usize>),
}

impl NamedEntries {
    fn of(entries: Vec<usize>) -> Self {
        match entries[..] {
            [] => Self::Disagree,
            [e] => Self::One(e),
            _ => Self::Several(entries),
        }
    }

    pub(super) fn entries(&self) -> &[usize] {
        match self {
            Self::One(e) => slice::from_ref(e),
            Self::Several(entries) => entries,
            Self::None | Self::Disagree => &[],
        }
    }

    fn retain(self, also: impl Fn(usize) -> bool) -> Self {
        Self::of(self.entries().iter().copied().filter(|&e| also(e)).collect())
    }
}

/// The entries by name, and by UID where UIDVALIDITY is the captured one.
pub(super) struct EntriesByName<'a> {
    entries: &'a [Entry],
    /// By the name up to its first comma, each place once. It is one allocation, for maildrops are
    /// large and a login's memory is not.
    of_cut: Vec<([u8; 16], usize)>,
    /// Where in `of_cut` those begin whose first bits are the number. Cuts are hashes, so that a
    /// few have them in common.
    first_bits: Vec<u32>,
    uids_agree: bool,
    of_uid: OnceCell<HashMap<u32, usize>>,
}

impl<'a> EntriesByName<'a> {
    pub(super) fn of(run: &Run<'a>) -> Self {
        let is_any_open = run.states.iter().any(|state| matches!(state, MessageState::Open));
        let is_asked = run.situation.keys.file && is_any_open;
        let captured = run.situation.captured.and_then(|captured| captured.uidvalidity);
        let uids_agree = captured == Some(run.situation.epoch.uidvalidity);
        Self::new(if is_asked { run.entries } else { &[] }, uids_agree)
    }

    fn new(entries: &'a [Entry], uids_agree: bool) -> Self {
        let mut of_cut = Vec::with_capacity(entries.len());
        for (e, entry) in entries.iter().enumerate() {
            of_cut.extend(entry.file_keys().map(|key| (key.cut, e)));
        }
        of_cut.sort_unstable();
        of_cut.dedup();
        let mut first_bits = vec![0; (of_cut.len() / 4).next_power_of_two() + 1];
        let numbers = first_bits.len() - 1;
        for (cut, _) in &of_cut {
            first_bits[number_of(cut, numbers) + 1] += 1;
        }
        for number in 0..numbers {
            first_bits[number + 1] += first_bits[number];
        }
        Self { entries, of_cut, first_bits, uids_agree, of_uid: OnceCell::new() }
    }

    /// The places of the entries with a name like this. Where too many have it, it says nothing,
    /// and there are none.
    fn like(&self, name: &FileKey) -> &[([u8; 16], usize)] {
        let number = number_of(&name.cut, self.first_bits.len() - 1);
        let [from, to] = [number, number + 1].map(|number| self.first_bits[number] as usize);
        let near = &self.of_cut[from..to];
        let rest = &near[near.partition_point(|(cut, _)| *cut < name.cut)..];
        let is_like = |(cut, _): &&([u8; 16], usize)| *cut == name.cut;
        let len = rest.iter().take(MOST_OF_A_CUT + 1).take_while(is_like).count();
        if len > MOST_OF_A_CUT { &[] } else { &rest[..len] }
    }

    /// What one name says.
    fn named(&self, name: &FileKey) -> NamedEntries {
        let like = self.like(name);
        if like.is_empty() {
            return NamedEntries::None;
        }
        if let [(_, e)] = like {
            return NamedEntries::One(*e);
        }
        let is_whole = |e: usize| self.entries[e].file_keys().any(|key| key == *name);
        let whole: Vec<usize> = like.iter().map(|(_, e)| *e).filter(|&e| is_whole(e)).collect();
        let is_any_whole = !whole.is_empty();
        NamedEntries::of(if is_any_whole { whole } else { like.iter().map(|(_, e)| *e).collect() })
    }

    /// What the names of a message with this UID say together.
    pub(super) fn entries_of(&self, names: &[FileKey], uid: u32) -> NamedEntries {
        let mut agreed = NamedEntries::None;
        for name in names {
            let named = self.named(name);
            agreed = match (agreed, named) {
                (agreed, NamedEntries::None) => agreed,
                (NamedEntries::None, named) => named,
                (agreed, named) => agreed.retain(|e| named.entries().contains(&e)),
            };
            if let NamedEntries::Disagree = agreed {
                break;
            }
        }
        // The UID chooses among entries that the name fits. It never outvotes the name.
        match self.entry_of_uid(uid, &agreed) {
            Some(e) => NamedEntries::One(e),
            None => agreed,
        }
    }

    fn entry_of_uid(&self, uid: u32, agreed: &NamedEntries) -> Option<usize> {
        let NamedEntries::Several(entries) = agreed else { return None };
        if !self.uids_agree {
            return None;
        }
        let of_uid = self.of_uid.get_or_init(|| {
            self.entries.iter().enumerate().filter_map(|(e, entry)| Some((entry.uid?, e))).collect()
        });
        of_uid.get(&uid).copied().filter(|e| entries.contains(e))
    }
}

/// The first bits of a cut: one of so many numbers, a power of two.
fn number_of(cut: &[u8; 16], numbers: usize) -> usize {
    let first = u32::from_be_bytes([cut[0], cut[1], cut[2], cut[3]]);
    ((u64::from(first) * numbers as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::Name;
    use crate::uidl::Uidl;
    use proptest::prelude::*;

    /// What the names say, by the words of evidence 3: each name is compared with each entry's.
    fn slowly(entries: &[Entry], names: &[FileKey], uid: Option<u32>) -> Option<Vec<usize>> {
        let mut agreed: Option<Vec<usize>> = None;
        for name in names {
            let fits = |alike: &dyn Fn(FileKey) -> bool| -> Vec<usize> {
                let fits = |e: &usize| entries[*e].file_keys().any(alike);
                (0..entries.len()).filter(fits).collect()
            };
            let like = fits(&|key| key.cut == name.cut);
            if like.is_empty() || like.len() > MOST_OF_A_CUT {
                continue;
            }
            let whole = fits(&|key| key == *name);
            let mut named = if whole.is_empty() { like } else { whole };
            named.retain(|e| agreed.as_ref().is_none_or(|before| before.contains(e)));
            if named.is_empty() {
                return Some(named);
            }
            agreed = Some(named);
        }
        let of_uid = uid.and_then(|uid| entries.iter().rposition(|entry| entry.uid == Some(uid)));
        let chosen = of_uid.filter(|e| agreed.as_ref().is_some_and(|named| named.contains(e)));
        chosen.map_or(agreed, |e| Some(vec![e]))
    }

    fn key(of: u8) -> FileKey {
        let (base, size) = (of / 4, of % 4);
        let whole = if size == 0 { format!("{base}") } else { format!("{base},S={size}") };
        FileKey::of_name(whole.as_bytes())
    }

    proptest! {
        #[test]
        fn names_say_what_each_comparison_says(
            repeats in prop_oneof![3 => Just(1), 1 => 30..80usize, 1 => 64..66usize],
            names in 1..64u8,
            entries in prop::collection::vec((any::<[u8; 2]>(), 0..3usize, 0..6u32), 0..8),
            messages in prop::collection::vec((any::<[u8; 2]>(), 0..3usize, 0..6u32), 0..20),
            uids_agree: bool,
        ) {
            let some = |of: [u8; 2], count: usize| -> Vec<FileKey> {
                of[..count].iter().map(|of| key(of % names)).collect()
            };
            let entries: Vec<Entry> = (entries.iter().cycle().take(entries.len() * repeats))
                .map(|&(of, count, uid)| {
                    let mut names = some(of, count).into_iter().map(Name::Key);
                    let (file, guid) = (names.next(), names.next());
                    Entry { uid: Some(uid), file, guid, ..Entry::new(Uidl::new(*b"U").unwrap()) }
                })
                .collect();
            let by_name = EntriesByName::new(&entries, uids_agree);
            for (of, count, uid) in messages {
                let names = some(of, count);
                let expected = slowly(&entries, &names, Some(uid).filter(|_| uids_agree));
                let said = by_name.entries_of(&names, uid);
                match &said {
                    NamedEntries::None => prop_assert_eq!(expected, None),
                    NamedEntries::Disagree => prop_assert_eq!(expected, Some(Vec::new())),
                    NamedEntries::One(e) => prop_assert_eq!(expected, Some(vec![*e])),
                    NamedEntries::Several(said) => prop_assert_eq!(expected.as_ref(), Some(said)),
                }
            }
        }
    }
}
