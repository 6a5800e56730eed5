//! Which entries the names of a message allow: [`EntriesByName`].
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::slice;

use hashbrown::HashMap;

use super::run::{MessageState, Run};
use crate::key::FileKey;
use crate::maildrop::CapturedMaildrop;

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
    /// `None`: no name may match.
    captured: Option<&'a CapturedMaildrop>,
    /// All names, by their cut, then by their entry. It is one allocation, for maildrops are large
    /// and a login's memory is not.
    names: Vec<NamePlace>,
    /// Where in `names` those begin whose first bits are the number. Cuts are hashes, so that a few
    /// have them in common.
    first_bits: Vec<u32>,
    uids_agree: bool,
    of_uid: OnceCell<HashMap<u32, usize>>,
}

/// A name of an entry: twice the entry's place, and one more for its second name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NamePlace(u32);

impl NamePlace {
    fn entry(self) -> usize {
        (self.0 / 2) as usize
    }

    fn key(self, captured: &CapturedMaildrop) -> FileKey {
        let entry = captured.entry(self.entry());
        let key = if self.0 % 2 == 0 { entry.file() } else { entry.guid() };
        key.expect("only names that are there have a place")
    }
}

/// The names of all entries with their places. A second name that is cut like the first says
/// nothing more.
fn all_names(captured: &CapturedMaildrop) -> impl Iterator<Item = (FileKey, NamePlace)> {
    (0..).zip(captured.entries()).flat_map(|(e, entry)| {
        let file = entry.file();
        let guid = entry.guid().filter(|guid| file.is_none_or(|file| file.cut != guid.cut));
        let file = file.map(|key| (key, NamePlace(2 * e)));
        file.into_iter().chain(guid.map(|key| (key, NamePlace(2 * e + 1))))
    })
}

impl<'a> EntriesByName<'a> {
    pub(super) fn of(run: &Run<'a>) -> Self {
        let is_any_open = run.states.iter().any(|state| matches!(state, MessageState::Open));
        let is_asked = run.situation.keys.file && is_any_open;
        let captured = run.situation.captured;
        let uidvalidity = captured.and_then(|captured| captured.head().uidvalidity);
        let uids_agree = uidvalidity == Some(run.situation.epoch.uidvalidity);
        Self::new(captured.filter(|_| is_asked), uids_agree)
    }

    fn new(captured: Option<&'a CapturedMaildrop>, uids_agree: bool) -> Self {
        let all_names = || captured.into_iter().flat_map(all_names);
        let count = all_names().count();
        let numbers = (count / 4).next_power_of_two();
        let mut first_bits = vec![0; numbers + 1];
        for (key, _) in all_names() {
            first_bits[number_of(&key.cut, numbers)] += 1;
        }
        // First each number has where its names end. It goes down to where they begin.
        let mut end = 0;
        for first in &mut first_bits {
            end += *first;
            *first = end;
        }
        let mut names = vec![NamePlace(0); count];
        for (key, place) in all_names() {
            let first = &mut first_bits[number_of(&key.cut, numbers)];
            *first -= 1;
            names[*first as usize] = place;
        }
        let by_cut = |place: &NamePlace| captured.map(|captured| (place.key(captured).cut, *place));
        for near in first_bits.windows(2) {
            names[near[0] as usize..near[1] as usize].sort_unstable_by_key(by_cut);
        }
        Self { captured, names, first_bits, uids_agree, of_uid: OnceCell::new() }
    }

    /// The places of the entries with a name like this. Where too many have it, it says nothing,
    /// and there are none.
    fn like(&self, name: &FileKey) -> &[NamePlace] {
        let Some(captured) = self.captured else { return &[] };
        let number = number_of(&name.cut, self.first_bits.len() - 1);
        let [from, to] = [number, number + 1].map(|number| self.first_bits[number] as usize);
        let near = &self.names[from..to];
        let cut = |place: &NamePlace| place.key(captured).cut;
        let rest = &near[near.partition_point(|place| cut(place) < name.cut)..];
        let is_like = |place: &&NamePlace| cut(place) == name.cut;
        let len = rest.iter().take(MOST_OF_A_CUT + 1).take_while(is_like).count();
        if len > MOST_OF_A_CUT { &[] } else { &rest[..len] }
    }

    /// What one name says.
    fn named(&self, name: &FileKey) -> NamedEntries {
        let like = self.like(name);
        let Some(captured) = self.captured else { return NamedEntries::None };
        let entries = like.iter().map(|place| place.entry());
        match like {
            [] => return NamedEntries::None,
            [place] => return NamedEntries::One(place.entry()),
            _ => {}
        }
        let is_whole = |e: &usize| captured.entry(*e).file_keys().any(|key| key == *name);
        let whole: Vec<usize> = entries.clone().filter(is_whole).collect();
        NamedEntries::of(if whole.is_empty() { entries.collect() } else { whole })
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
            let entries = self.captured.into_iter().flat_map(CapturedMaildrop::entries);
            entries.enumerate().filter_map(|(e, entry)| Some((entry.uid()?, e))).collect()
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
    use crate::maildrop::{Entry, Maildrop, Name, State};
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
            let maildrop = Maildrop { entries, ..Maildrop::new("a", State::Captured) };
            let captured = CapturedMaildrop::from(&maildrop);
            let entries = maildrop.entries;
            let by_name = EntriesByName::new(Some(&captured), uids_agree);
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
