//! A captured maildrop in little room: [`CapturedMaildrop`].
#![forbid(unsafe_code)]

use super::{EntryRef, Maildrop, NameRef};
use crate::key::{FileKey, Fingerprint};
use crate::uidl::UidlRef;

/// A [`Maildrop`] as the rules look at it while a client waits.
///
/// Maildrops are large, and the address space of a login is not. So all UIDLs lie together, and
/// each field of the entries is a column of its own, which is not there where no entry has the
/// field. Names are kept as their keys. No remarks are kept.
#[derive(Debug)]
pub struct CapturedMaildrop {
    /// All but its entries and its spent UIDLs.
    head: Maildrop,
    uidl: UidlColumn,
    /// The earlier UIDLs of all entries, in the order of these.
    earlier: UidlColumn,
    /// Which entry has each of the earlier UIDLs, ascending.
    has_earlier: Vec<u32>,
    spent: UidlColumn,
    /// Which fields each entry has.
    fields: Vec<u8>,
    file: Vec<FileKey>,
    guid: Vec<FileKey>,
    header: Vec<Fingerprint>,
    message: Vec<Fingerprint>,
    origin: Vec<Fingerprint>,
    uid: Vec<u32>,
    octets: Vec<u64>,
    /// The last capture that has it, where that is not the last of all.
    last_capture: Vec<u32>,
}

/// The fields of an entry, as bits of [`CapturedMaildrop::fields`].
mod field {
    pub const FILE: u8 = 1;
    pub const GUID: u8 = 2;
    pub const HEADER: u8 = 4;
    pub const MESSAGE: u8 = 8;
    pub const ORIGIN: u8 = 16;
    pub const UID: u8 = 32;
    pub const OCTETS: u8 = 64;
    pub const LAST_CAPTURE: u8 = 128;
}

/// How much a [`CapturedMaildrop`] will have. It is told before, so that nothing is copied while it
/// grows.
#[derive(Debug, Clone, Copy, Default)]
pub struct CapturedLen {
    uidl: UidlLen,
    earlier: UidlLen,
    spent: UidlLen,
    /// The octets of an entry in the columns of fields that some entry has.
    columns: [usize; 7],
}

impl CapturedLen {
    /// Counts an entry.
    pub fn add_entry(&mut self, entry: &EntryRef<'_>) {
        self.uidl.add(entry.uidl);
        entry.earlier.iter().for_each(|uidl| self.earlier.add(*uidl));
        let has = [
            entry.file.as_ref().map(|_| size_of::<FileKey>()),
            entry.guid.as_ref().map(|_| size_of::<FileKey>()),
            entry.header.map(|_| size_of::<Fingerprint>()),
            entry.message.map(|_| size_of::<Fingerprint>()),
            entry.origin.map(|_| size_of::<Fingerprint>()),
            entry.uid.map(|_| size_of::<u32>()),
            entry.octets.map(|_| size_of::<u64>()),
        ];
        for (column, octets) in self.columns.iter_mut().zip(has) {
            *column = octets.unwrap_or(*column);
        }
    }

    /// The room that it takes, in octets.
    pub fn octets(&self) -> usize {
        let an_entry = size_of::<u8>() + self.columns.iter().sum::<usize>();
        let uidls = [self.uidl, self.earlier, self.spent].map(|len| len.octets + 4 * len.uidls);
        let has_earlier = 4 * self.earlier.uidls;
        uidls.iter().sum::<usize>() + has_earlier + an_entry * self.uidl.uidls
    }

    /// Counts a spent UIDL.
    pub fn add_spent(&mut self, uidl: UidlRef<'_>) {
        self.spent.add(uidl);
    }
}

impl CapturedMaildrop {
    /// Begins with all but the entries and spent UIDLs of `head`. So many will be added.
    pub fn begin(head: Maildrop, len: CapturedLen) -> Self {
        Self {
            head: Maildrop { entries: Vec::new(), spent: Vec::new(), remarks: Vec::new(), ..head },
            uidl: UidlColumn::with_room(len.uidl),
            earlier: UidlColumn::with_room(len.earlier),
            has_earlier: Vec::with_capacity(len.earlier.uidls),
            spent: UidlColumn::with_room(len.spent),
            fields: Vec::with_capacity(len.uidl.uidls),
            file: Vec::new(),
            guid: Vec::new(),
            header: Vec::new(),
            message: Vec::new(),
            origin: Vec::new(),
            uid: Vec::new(),
            octets: Vec::new(),
            last_capture: Vec::new(),
        }
    }

    /// Adds the next entry.
    pub fn add_entry(&mut self, entry: &EntryRef<'_>) {
        let at = ColumnPlace { e: self.fields.len(), most: self.fields.capacity() };
        let [file, guid] = [&entry.file, &entry.guid].map(|name| name.as_ref().map(NameRef::key));
        let no_key = FileKey { cut: [0; 16], whole: [0; 4] };
        let no_print = Fingerprint([0; Fingerprint::OCTETS]);
        let last = Some(entry.last_capture).filter(|&last| last != self.last());
        self.fields.push(
            at.put(&mut self.file, file, no_key, field::FILE)
                | at.put(&mut self.guid, guid, no_key, field::GUID)
                | at.put(&mut self.header, entry.header, no_print, field::HEADER)
                | at.put(&mut self.message, entry.message, no_print, field::MESSAGE)
                | at.put(&mut self.origin, entry.origin, no_print, field::ORIGIN)
                | at.put(&mut self.uid, entry.uid, 0, field::UID)
                | at.put(&mut self.octets, entry.octets, 0, field::OCTETS)
                | at.put(&mut self.last_capture, last, 0, field::LAST_CAPTURE),
        );
        self.uidl.push(entry.uidl);
        for uidl in &entry.earlier {
            self.earlier.push(*uidl);
            self.has_earlier.push(at.e as u32);
        }
    }

    /// Adds a spent UIDL.
    pub fn add_spent(&mut self, uidl: UidlRef<'_>) {
        self.spent.push(uidl);
    }

    /// The number of the last capture.
    fn last(&self) -> u32 {
        u32::try_from(self.head.captures.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// All that is said of the maildrop beside entries and spent UIDLs, of which it has none.
    pub fn head(&self) -> &Maildrop {
        &self.head
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Says whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at a place in the old order.
    pub fn entry(&self, e: usize) -> CapturedEntry<'_> {
        debug_assert!(e < self.len());
        CapturedEntry { of: self, e }
    }

    /// All entries, in the old order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = CapturedEntry<'_>> + Clone {
        (0..self.len()).map(|e| self.entry(e))
    }

    /// How many UIDLs there are: those of the entries, their earlier ones, and the spent ones.
    pub fn uidl_count(&self) -> usize {
        self.uidl.len() + self.earlier.len() + self.spent.len()
    }

    /// The UIDL with that number, less than [`CapturedMaildrop::uidl_count`]: an entry's UIDL has
    /// the number of its place.
    pub fn uidl(&self, number: usize) -> UidlRef<'_> {
        let (entries, earlier) = (self.uidl.len(), self.earlier.len());
        match number {
            _ if number < entries => self.uidl.get(number),
            _ if number < entries + earlier => self.earlier.get(number - entries),
            _ => self.spent.get(number - entries - earlier),
        }
    }

    /// As [`Maildrop::last_entries`].
    pub fn last_entries(&self) -> impl Iterator<Item = CapturedEntry<'_>> {
        self.entries().filter(|entry| entry.last_capture() >= self.last())
    }
}

/// Where an entry stands, and of how many.
#[derive(Clone, Copy)]
struct ColumnPlace {
    e: usize,
    most: usize,
}

impl ColumnPlace {
    /// Adds a value to its column, if there is one, and says which field is there.
    fn put<T: Copy>(self, column: &mut Vec<T>, value: Option<T>, blank: T, field: u8) -> u8 {
        let Some(value) = value else { return 0 };
        if column.is_empty() {
            column.reserve_exact(self.most);
        }
        column.resize(self.e, blank);
        column.push(value);
        field
    }
}

impl From<&Maildrop> for CapturedMaildrop {
    fn from(maildrop: &Maildrop) -> Self {
        let Maildrop { user, state, captures, source, uidvalidity, counter, .. } = maildrop;
        let head = Maildrop {
            captures: captures.clone(),
            source: source.clone(),
            uidvalidity: *uidvalidity,
            counter: counter.clone(),
            ..Maildrop::new(user.clone(), *state)
        };
        let mut len = CapturedLen::default();
        maildrop.entries.iter().for_each(|entry| len.add_entry(&entry.into()));
        maildrop.spent.iter().for_each(|uidl| len.add_spent(uidl.into()));
        let mut captured = Self::begin(head, len);
        maildrop.entries.iter().for_each(|entry| captured.add_entry(&entry.into()));
        maildrop.spent.iter().for_each(|uidl| captured.add_spent(uidl.into()));
        captured
    }
}

/// One entry of a [`CapturedMaildrop`].
#[derive(Debug, Clone, Copy)]
pub struct CapturedEntry<'a> {
    of: &'a CapturedMaildrop,
    e: usize,
}

impl<'a> CapturedEntry<'a> {
    /// As [`Entry::uidl`](super::Entry::uidl).
    pub fn uidl(self) -> UidlRef<'a> {
        self.of.uidl.get(self.e)
    }

    /// As [`Entry::earlier`](super::Entry::earlier).
    pub fn earlier(self) -> impl Iterator<Item = UidlRef<'a>> {
        let Self { of, e } = self;
        let first = of.has_earlier.partition_point(|&other| (other as usize) < e);
        let its_own = of.has_earlier[first..].iter().take_while(move |&&other| other as usize == e);
        (first..).zip(its_own).map(|(number, _)| of.earlier.get(number))
    }

    /// Says whether it has earlier UIDLs.
    pub fn has_earlier(self) -> bool {
        self.of.has_earlier.binary_search(&(self.e as u32)).is_ok()
    }

    /// As [`Entry::uidls`](super::Entry::uidls).
    pub fn uidls(self) -> impl Iterator<Item = UidlRef<'a>> {
        std::iter::once(self.uidl()).chain(self.earlier())
    }

    /// As [`Entry::last_capture`](super::Entry::last_capture).
    pub fn last_capture(self) -> u32 {
        self.get(&self.of.last_capture, field::LAST_CAPTURE).unwrap_or(self.of.last())
    }

    /// As [`Entry::uid`](super::Entry::uid).
    pub fn uid(self) -> Option<u32> {
        self.get(&self.of.uid, field::UID)
    }

    /// As [`Entry::octets`](super::Entry::octets).
    pub fn octets(self) -> Option<u64> {
        self.get(&self.of.octets, field::OCTETS)
    }

    /// The key of [`Entry::file`](super::Entry::file).
    pub fn file(self) -> Option<FileKey> {
        self.get(&self.of.file, field::FILE)
    }

    /// The key of [`Entry::guid`](super::Entry::guid).
    pub fn guid(self) -> Option<FileKey> {
        self.get(&self.of.guid, field::GUID)
    }

    /// As [`Entry::file_keys`](super::Entry::file_keys).
    pub fn file_keys(self) -> impl Iterator<Item = FileKey> {
        self.file().into_iter().chain(self.guid())
    }

    /// As [`Entry::header`](super::Entry::header).
    pub fn header(self) -> Option<Fingerprint> {
        self.get(&self.of.header, field::HEADER)
    }

    /// As [`Entry::message`](super::Entry::message).
    pub fn message(self) -> Option<Fingerprint> {
        self.get(&self.of.message, field::MESSAGE)
    }

    /// As [`Entry::origin`](super::Entry::origin).
    pub fn origin(self) -> Option<Fingerprint> {
        self.get(&self.of.origin, field::ORIGIN)
    }

    fn get<T: Copy>(self, column: &[T], field: u8) -> Option<T> {
        (self.of.fields[self.e] & field != 0).then(|| column[self.e])
    }
}

/// UIDLs that lie one behind the other.
#[derive(Debug)]
struct UidlColumn {
    octets: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
}

/// How many UIDLs there are, and how many octets they have together.
#[derive(Debug, Clone, Copy, Default)]
struct UidlLen {
    uidls: usize,
    octets: usize,
}

impl UidlLen {
    fn add(&mut self, uidl: UidlRef<'_>) {
        self.uidls += 1;
        self.octets += uidl.as_bytes().len();
    }
}

impl UidlColumn {
    fn with_room(len: UidlLen) -> Self {
        Self { octets: Vec::with_capacity(len.octets), ends: Vec::with_capacity(len.uidls) }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn push(&mut self, uidl: UidlRef<'_>) {
        self.octets.extend_from_slice(uidl.as_bytes());
        self.ends.push(u32::try_from(self.octets.len()).expect("a block fits 32 bits"));
    }

    fn get(&self, number: usize) -> UidlRef<'_> {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        UidlRef::of_checked(&self.octets[start..self.ends[number] as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::{Capture, Entry, Name, State};
    use crate::uidl::Uidl;
    use proptest::prelude::*;

    impl CapturedMaildrop {
        fn octets_taken(&self) -> usize {
            let uidls = [&self.uidl, &self.earlier, &self.spent];
            let uidls = uidls.map(|of| of.octets.capacity() + 4 * of.ends.capacity());
            let names = self.file.capacity() + self.guid.capacity();
            let prints = [&self.header, &self.message, &self.origin].map(Vec::capacity);
            uidls.iter().sum::<usize>()
                + 4 * self.has_earlier.capacity()
                + self.fields.capacity()
                + 20 * names
                + 16 * prints.iter().sum::<usize>()
                + 4 * (self.uid.capacity() + self.last_capture.capacity())
                + 8 * self.octets.capacity()
        }
    }

    fn uidl(of: u8) -> Uidl {
        Uidl::new(vec![b'!' + of % 90; 1 + usize::from(of) % 5]).unwrap()
    }

    fn entry(of: &[u8; 12]) -> Entry {
        let some = |at: usize| (of[at] % 3 != 0).then_some(of[at]);
        let name = |at| some(at).map(|of| Name::Spelled(vec![of].into()));
        let print = |at| some(at).map(|of| Fingerprint([of; Fingerprint::OCTETS]));
        Entry {
            earlier: (0..of[1] % 3).map(|nth| uidl(of[0] / 2 + nth)).collect(),
            last_capture: (of[2] % 4).into(),
            uid: some(3).map(u32::from),
            octets: some(4).map(u64::from),
            file: name(5),
            guid: name(6),
            header: print(7),
            message: print(8),
            origin: print(9),
            ..Entry::new(uidl(of[0]))
        }
    }

    proptest! {
        #[test]
        fn columns_say_what_the_entries_say(
            of in prop::collection::vec(any::<[u8; 12]>(), 0..12),
            spent in prop::collection::vec(any::<u8>(), 0..4),
            captures in 0..4usize,
        ) {
            let capture = Maildrop::new("a", State::Captured);
            let capture = Capture::of(&capture, None);
            let maildrop = Maildrop {
                captures: vec![capture; captures],
                entries: of.iter().map(entry).collect(),
                spent: spent.into_iter().map(uidl).collect(),
                ..Maildrop::new("a", State::Captured)
            };
            let captured = CapturedMaildrop::from(&maildrop);
            prop_assert_eq!(captured.len(), maildrop.entries.len());
            for (column, entry) in captured.entries().zip(&maildrop.entries) {
                let uidls: Vec<Uidl> = column.uidls().map(UidlRef::to_uidl).collect();
                prop_assert_eq!(uidls, entry.uidls().cloned().collect::<Vec<_>>());
                prop_assert_eq!(column.has_earlier(), !entry.earlier.is_empty());
                prop_assert_eq!(column.last_capture(), entry.last_capture);
                prop_assert_eq!((column.uid(), column.octets()), (entry.uid, entry.octets));
                prop_assert_eq!(column.file(), entry.file.as_ref().map(Name::key));
                prop_assert_eq!(column.guid(), entry.guid.as_ref().map(Name::key));
                prop_assert_eq!(column.header(), entry.header);
                prop_assert_eq!(column.message(), entry.message);
                prop_assert_eq!(column.origin(), entry.origin);
            }
            let last = captured.last_entries().map(|entry| entry.uidl().to_uidl());
            let expected = maildrop.last_entries().map(|entry| entry.uidl.clone());
            prop_assert_eq!(last.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            let all = (0..captured.uidl_count()).map(|number| captured.uidl(number).to_uidl());
            let entries = &maildrop.entries;
            let expected = entries.iter().map(|entry| &entry.uidl)
                .chain(entries.iter().flat_map(|entry| &entry.earlier))
                .chain(&maildrop.spent);
            prop_assert_eq!(all.collect::<Vec<_>>(), expected.cloned().collect::<Vec<_>>());
            let mut len = CapturedLen::default();
            maildrop.entries.iter().for_each(|entry| len.add_entry(&entry.into()));
            maildrop.spent.iter().for_each(|uidl| len.add_spent(uidl.into()));
            let without_last = captured.octets_taken() - 4 * captured.last_capture.capacity();
            prop_assert_eq!(without_last, len.octets(), "nothing grew");
        }
    }
}
