//! A later capture of a maildrop upon an earlier one: [`merge`], and upon one that is not to be
//! believed: [`spend_entries`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::format::Fields;
use crate::maildrop::{Counter, Entry, Maildrop, State};
use crate::uidl::Uidl;

/// The most numbers of an abandoned counter that are written out as spent UIDLs.
const MOST_SPELLED_OUT: u32 = 1 << 18;

/// What an operator should know of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remark {
    /// A message of the later capture has the UIDL of an earlier one, and keys that say that it is
    /// another message. Both are kept.
    Contradiction {
        /// The UIDL.
        uidl: Uidl,
    },
    /// The later capture failed. What was captured before is kept, and the state is failed.
    Failed,
    /// The old server counts anew, under another UIDVALIDITY or in another format: the UIDLs of its
    /// earlier numbers were written out.
    CountsAnew {
        /// How many.
        numbers: u32,
    },
}

/// Two captures that cannot stand together: the old server began to count anew after so many
/// numbers that they cannot be written out as spent UIDLs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the old server counts anew after {next} numbers in form {format}, more than {MOST_SPELLED_OUT}"
)]
pub struct CannotMerge {
    /// The form it had counted in before.
    pub format: String,
    /// How far it had counted.
    pub next: u32,
}

/// The maildrop that two captures of one old maildrop make together. Nothing of the earlier one is
/// lost:
///
/// * Its entries keep their number and order. An entry of the later capture with the same UIDL and no
///   key that contradicts is the same message, and adds the keys that were missing; where a UIDL
///   stands several times, the first such entry not yet taken. Any other is appended.
/// * Spent UIDLs are united, and the higher next number counts. When the server has begun to count
///   anew (another UIDVALIDITY or format), the numbers it had given before become spent UIDLs.
/// * A failed later capture makes the maildrop failed, whatever was captured before: messages that
///   came between would be given to clients twice.
///
/// # Errors
///
/// [`CannotMerge`].
pub fn merge(old: Maildrop, new: Maildrop) -> Result<(Maildrop, Vec<Remark>), CannotMerge> {
    let mut remarks = Vec::new();
    let uidvalidity = new.uidvalidity.or(old.uidvalidity);
    let (old_uidvalidity, new_uidvalidity) = (old.uidvalidity, new.uidvalidity);
    // A UID means nothing without its UIDVALIDITY.
    let under = |of: Option<u32>| {
        move |mut entry: Entry| {
            entry.uid = entry.uid.filter(|_| of == uidvalidity);
            entry
        }
    };
    let mut entries: Vec<Entry> = old.entries.into_iter().map(under(old_uidvalidity)).collect();
    let mut by_uidl: HashMap<Uidl, Vec<usize>> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        by_uidl.entry(entry.uidl.clone()).or_default().push(at);
    }
    let mut appended = Vec::new();
    for entry in new.entries.into_iter().map(under(new_uidvalidity)) {
        let untaken = by_uidl.get_mut(&entry.uidl);
        let same = untaken
            .as_ref()
            .and_then(|untaken| untaken.iter().position(|&at| !contradict(&entries[at], &entry)));
        match (same, untaken) {
            (Some(same), Some(untaken)) => add_keys(&mut entries[untaken.remove(same)], entry),
            (_, untaken) => {
                if untaken.is_some_and(|untaken| !untaken.is_empty()) {
                    remarks.push(Remark::Contradiction { uidl: entry.uidl.clone() });
                }
                appended.push(entry);
            }
        }
    }
    entries.append(&mut appended);

    let mut seen: HashSet<Uidl> = entries.iter().map(|entry| entry.uidl.clone()).collect();
    let mut spent = Vec::new();
    let mut spend = |uidl: Uidl| {
        if seen.insert(uidl.clone()) {
            spent.push(uidl);
        }
    };
    old.spent.into_iter().chain(new.spent).for_each(&mut spend);
    let counter = match (old.counter, new.counter) {
        (Some(old), Some(new))
            if old.format == new.format
                && (!old.format.has_uidvalidity() || old_uidvalidity == new_uidvalidity) =>
        {
            Some(Counter { next: old.next.max(new.next), ..new })
        }
        (Some(old), None) if !old.format.has_uidvalidity() || old_uidvalidity == uidvalidity => {
            Some(old)
        }
        (Some(old), new) => {
            spell_out(&old, old_uidvalidity, &mut spend)?;
            remarks.push(Remark::CountsAnew { numbers: old.next.saturating_sub(1) });
            new
        }
        (None, new) => new,
    };

    let state = match new.state {
        State::Failed => {
            remarks.push(Remark::Failed);
            State::Failed
        }
        _ if !entries.is_empty() => State::Captured,
        state => state,
    };
    let source = if new.source.is_empty() { old.source } else { new.source };
    let merged = Maildrop {
        user: old.user,
        state,
        captures: Vec::new(),
        source,
        uidvalidity,
        counter,
        entries,
        spent,
        remarks: new.remarks,
    };
    Ok((merged, remarks))
}

/// The maildrop without its entries. Their UIDLs are spent: whatever messages they truly belong to,
/// clients may know them.
pub fn spend_entries(maildrop: Maildrop) -> Maildrop {
    let Maildrop { entries, mut spent, .. } = maildrop;
    let mut seen: HashSet<Uidl> = spent.iter().cloned().collect();
    spent.extend(
        entries.into_iter().map(|entry| entry.uidl).filter(|uidl| seen.insert(uidl.clone())),
    );
    Maildrop { entries: Vec::new(), spent, ..maildrop }
}

/// Whether two entries with one UIDL have keys that say that they are two messages. Sizes do not
/// count: servers disagree on them.
fn contradict(old: &Entry, new: &Entry) -> bool {
    fn differ<T: PartialEq>(old: Option<T>, new: Option<T>) -> bool {
        matches!((old, new), (Some(old), Some(new)) if old != new)
    }
    let cut = |name: &Option<crate::maildrop::Name>| name.as_ref().map(|name| name.key().cut);
    let names_differ =
        differ(cut(&old.file), cut(&new.file)) || differ(cut(&old.guid), cut(&new.guid));
    let share_a_name = old.file_keys().any(|old| new.file_keys().any(|new| old.cut == new.cut));
    (names_differ && !share_a_name)
        || differ(old.header, new.header)
        || differ(old.message, new.message)
        || differ(old.origin, new.origin)
        || differ(old.uid, new.uid)
}

fn add_keys(old: &mut Entry, new: Entry) {
    fn add<T>(old: &mut Option<T>, new: Option<T>) {
        if old.is_none() {
            *old = new;
        }
    }
    add(&mut old.uid, new.uid);
    add(&mut old.octets, new.octets);
    add(&mut old.file, new.file);
    add(&mut old.guid, new.guid);
    add(&mut old.header, new.header);
    add(&mut old.message, new.message);
    add(&mut old.origin, new.origin);
}

/// Spends every UIDL that a counter has given. One with a file name or GUID in its format cannot
/// be made from a number, nor would the new server make it from one.
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
            Self::Contradiction { uidl } => write!(
                f,
                "unique-id {uidl} is another message than before; both are kept, see its listings"
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
    use super::*;
    use crate::format::UidlFormat;
    use crate::key::Fingerprint;
    use crate::maildrop::Name;

    fn uidl(text: &str) -> Uidl {
        Uidl::new(text.as_bytes()).unwrap()
    }

    /// An entry with a UIDL and, where not empty, a file name.
    fn entry(text: &str, file: &str) -> Entry {
        Entry {
            file: (!file.is_empty()).then(|| Name::Spelled(file.as_bytes().into())),
            ..Entry::new(uidl(text))
        }
    }

    fn maildrop(entries: Vec<Entry>) -> Maildrop {
        Maildrop {
            user: "alice".into(),
            state: if entries.is_empty() { State::Empty } else { State::Captured },
            captures: Vec::new(),
            source: "old".into(),
            uidvalidity: Some(7),
            counter: None,
            entries,
            spent: Vec::new(),
            remarks: Vec::new(),
        }
    }

    fn counted(next: u32, uidvalidity: u32, format: &str) -> Maildrop {
        let format = UidlFormat::parse(format).unwrap();
        let counter = Some(Counter { format, next });
        Maildrop { counter, uidvalidity: Some(uidvalidity), ..maildrop(Vec::new()) }
    }

    fn uidls(uidls: &[Uidl]) -> Vec<String> {
        uidls.iter().map(Uidl::to_string).collect()
    }

    #[test]
    fn old_entries_keep_their_place_and_later_ones_follow() {
        let old = maildrop(vec![entry("a", "1"), entry("b", "2"), entry("c", "3")]);
        let new = maildrop(vec![entry("d", "4"), entry("c", "3"), entry("a", "1")]);
        let (merged, remarks) = merge(old.clone(), new).unwrap();
        assert_eq!(merged.entries[..3], old.entries);
        assert_eq!(merged.entries[3..], [entry("d", "4")]);
        assert_eq!(remarks, []);
    }

    #[test]
    fn the_same_capture_again_changes_nothing() {
        let mut old = counted(4, 7, "UID%u-%v");
        old.entries = vec![entry("a", "1"), entry("a", "1"), entry("b", "2")];
        old.state = State::Captured;
        old.spent = vec![uidl("z"), uidl("y")];
        assert_eq!(merge(old.clone(), old.clone()).unwrap(), (old, vec![]));
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
        let expected = Entry { header: Some(Fingerprint([1; 16])), uid: Some(3), ..old };
        assert_eq!(merged.entries, [expected]);
        assert_eq!(remarks, []);
    }

    #[test]
    fn a_key_that_contradicts_makes_another_entry() {
        let fingerprint = |octet| Some(Fingerprint([octet; 16]));
        let plain = || entry("a", "");
        for (old, new) in [
            (entry("a", "1"), entry("a", "2")),
            (
                Entry { header: fingerprint(1), ..plain() },
                Entry { header: fingerprint(2), ..plain() },
            ),
            (
                Entry { message: fingerprint(1), ..plain() },
                Entry { message: fingerprint(2), ..plain() },
            ),
            (
                Entry { origin: fingerprint(1), ..plain() },
                Entry { origin: fingerprint(2), ..plain() },
            ),
            (Entry { uid: Some(1), ..plain() }, Entry { uid: Some(2), ..plain() }),
        ] {
            let merged = merge(maildrop(vec![old.clone()]), maildrop(vec![new.clone()]));
            let (merged, remarks) = merged.unwrap();
            assert_eq!(merged.entries, [old, new]);
            assert_eq!(remarks, [Remark::Contradiction { uidl: uidl("a") }]);
        }
    }

    #[test]
    fn of_copies_with_one_uidl_each_is_taken_once() {
        let old = maildrop(vec![entry("a", "1"), entry("a", "2")]);
        let new = maildrop(vec![entry("a", "2"), entry("a", ""), entry("a", "")]);
        let (merged, remarks) = merge(old.clone(), new).unwrap();
        assert_eq!(merged.entries[..2], old.entries);
        assert_eq!(merged.entries[2..], [entry("a", "")]);
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
        let new = Maildrop { state: State::Failed, source: String::new(), ..maildrop(vec![]) };
        let (merged, remarks) = merge(old.clone(), new).unwrap();
        old.state = State::Failed;
        assert_eq!(merged, old);
        assert_eq!(remarks, [Remark::Failed]);
        let (again, remarks) = merge(merged, maildrop(vec![entry("a", "1")])).unwrap();
        assert_eq!((again.state, remarks), (State::Captured, vec![]));
        let (emptied, _) = merge(again, maildrop(vec![])).unwrap();
        assert_eq!((emptied.state, emptied.entries.len()), (State::Captured, 1));
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
        // The same UIDLs of other messages, in another order: nothing of the old one is left.
        let new = maildrop(vec![entry("b", "1"), entry("c", "2")]);
        let (merged, remarks) = merge(spent.clone(), new).unwrap();
        assert_eq!(merged.entries, [entry("b", "1"), entry("c", "2")]);
        assert_eq!(uidls(&merged.spent), ["x", "y", "a"]);
        assert_eq!((merged.counter.unwrap().next, merged.state), (4, State::Captured));
        assert_eq!(remarks, []);
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
        // Without %v in it, a format counts on under any UIDVALIDITY.
        let (merged, _) = merge(counted(5, 7, "%u"), counted(3, 8, "%u")).unwrap();
        assert_eq!((merged.counter.unwrap().next, merged.spent.len()), (5, 0));
        // A later capture that cannot tell the counter.
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
        let new = Maildrop { uidvalidity: Some(8), ..maildrop(vec![]) };
        assert_eq!(merge(old, new).unwrap().0.spent.len(), 3);
        let anew = || counted(2, 8, "UID%u-%v");
        let far = counted(MOST_SPELLED_OUT, 7, "UID%u-%v");
        assert_eq!(merge(far, anew()).unwrap().0.spent.len(), MOST_SPELLED_OUT as usize - 1);
        let error = merge(counted(MOST_SPELLED_OUT + 1, 7, "UID%u-%v"), anew()).unwrap_err();
        assert_eq!((error.format.as_str(), error.next), ("UID%u-%v", MOST_SPELLED_OUT + 1));
    }

    #[test]
    fn an_operator_reads_what_a_merge_made_of_it() {
        let contradiction = Remark::Contradiction { uidl: uidl("U1") }.to_string();
        assert!(contradiction.starts_with("unique-id U1 is another message than before"));
        assert!(Remark::Failed.to_string().contains("refused until it is captured again"));
        let anew = Remark::CountsAnew { numbers: 3 }.to_string();
        assert!(anew.contains("its 3 earlier numbers are spent"));
    }

    #[test]
    fn a_uid_does_not_outlive_its_uidvalidity() {
        let old = maildrop(vec![Entry { uid: Some(1), ..entry("a", "1") }]);
        let new = Entry { uid: Some(2), ..entry("a", "1") };
        let new = Maildrop { uidvalidity: Some(8), ..maildrop(vec![new]) };
        let (merged, remarks) = merge(old, new).unwrap();
        assert_eq!((merged.entries.len(), merged.entries[0].uid), (1, Some(2)));
        assert_eq!(remarks, []);
    }
}
