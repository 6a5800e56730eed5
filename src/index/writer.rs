//! Turns maildrops into bytes: [`Writer`]. The same maildrops make the same bytes.
#![forbid(unsafe_code)]

use std::io::{self, Seek, SeekFrom, Write};

use crate::file::read_at::ReadAt;
use crate::index::cursor::put_varint;
use crate::index::layout::*;
use crate::index::reader::Index;
use crate::key::NORMALISER_VERSION;
use crate::maildrop::{Capture, EntryRef, Maildrop, NameRef, State};
use crate::uidl::{Uidl, UidlRef};

/// Writes an index, one maildrop at a time, in the order of user names.
///
/// It keeps in memory the block that is being written, and what the open nodes name: some hundred
/// names, however many maildrops there are.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    is_final: bool,
    offset: u64,
    last_user: Option<Box<[u8]>>,
    /// What the open nodes name, by the level of what is named. A new user ends the nodes below the
    /// level that he begins.
    open: Vec<Vec<Subtree>>,
    /// Room for the next block, which the one before has left.
    room: Vec<u8>,
}

/// The reason why an index could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A maildrop came after one whose user name is greater, or the same.
    #[error("maildrop of {user:?} after the one of {after:?}: not in order, or twice")]
    Order {
        /// The user that came too late.
        user: String,
        /// The user before.
        after: String,
    },
    /// A value is longer than the field for its length can say.
    #[error("{what} of {user:?} is {len}, more than {most}")]
    TooMuch {
        /// The value.
        what: &'static str,
        /// Its user.
        user: String,
        /// Its length.
        len: usize,
        /// The greatest length allowed.
        most: usize,
    },
    /// A message of a capture that its maildrop does not have, or with a last capture before its
    /// first.
    #[error("message {uidl} of {user:?} is of a capture that is not there")]
    NoSuchCapture {
        /// Its UIDL.
        uidl: Uidl,
        /// Its user.
        user: String,
    },
    /// It could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<W: Write + Seek> Writer<W> {
    /// Starts an index at the start of `out`, which is empty.
    ///
    /// # Errors
    ///
    /// [`WriteError::Io`].
    pub fn new(mut out: W, is_final: bool) -> Result<Self, WriteError> {
        // The file is no index until the header is there: `finish` writes it last.
        out.write_all(&[0; HEADER_OCTETS])?;
        Ok(Self {
            out,
            is_final,
            offset: HEADER_OCTETS as u64,
            last_user: None,
            open: Vec::new(),
            room: Vec::new(),
        })
    }

    /// Adds a maildrop. Its remarks are left out, and only the keys of names are kept.
    ///
    /// # Errors
    ///
    /// [`WriteError::Order`] unless its user name is greater, octet by octet, than the one before;
    /// [`WriteError::TooMuch`]; [`WriteError::Io`]. After an error the index is of no use.
    pub fn push(&mut self, maildrop: &Maildrop) -> Result<(), WriteError> {
        let mut block = self.begin_block(maildrop)?;
        maildrop.entries.iter().try_for_each(|entry| block.add(&entry.into()))?;
        self.push_block(block, &maildrop.spent)
    }

    /// The block of a maildrop, without its entries and spent UIDLs.
    ///
    /// # Errors
    ///
    /// [`WriteError::TooMuch`].
    pub fn begin_block(&mut self, maildrop: &Maildrop) -> Result<IndexBlock, WriteError> {
        IndexBlock::begin(maildrop, std::mem::take(&mut self.room))
    }

    /// Adds a maildrop whose entries are in a block already, and its spent UIDLs.
    ///
    /// # Errors
    ///
    /// As [`Writer::push`].
    pub fn push_block(&mut self, block: IndexBlock, spent: &[Uidl]) -> Result<(), WriteError> {
        self.begin(block.user.as_bytes())?;
        let entries = block.entries;
        let (user, mut octets) = block.finish(spent)?;
        let place = self.put(self.offset, 0, &octets)?;
        self.add(Subtree { user: user.into_bytes().into(), place, maildrops: 1, entries });
        if octets.capacity() <= MOST_ROOM_OCTETS {
            octets.clear();
            self.room = octets;
        }
        Ok(())
    }

    /// Adds maildrops of another index as they are: their octets are copied, and neither read nor
    /// checked. Whoever reads them checks them by the checksums that are copied too.
    ///
    /// # Errors
    ///
    /// As [`Writer::push`], but for the order of all users after the first of `subtree`, which is
    /// that of `from`; and those of reading `from`.
    pub fn copy<S: ReadAt>(&mut self, from: &Index<S>, subtree: Subtree) -> Result<(), WriteError> {
        const STEP_OCTETS: u64 = 1 << 20;
        self.begin(&subtree.user)?;
        let (mut at, end) = (subtree.place.start, subtree.place.end());
        let start = self.offset;
        while at < end {
            let octets = from.octets(at, STEP_OCTETS.min(end - at) as usize)?;
            self.out.write_all(&octets)?;
            at += octets.len() as u64;
        }
        self.offset += end - subtree.place.start;
        let offset = start + (subtree.place.offset - subtree.place.start);
        self.add(Subtree { place: Place { start, offset, ..subtree.place }, ..subtree });
        Ok(())
    }

    /// Ends the nodes that are open, and writes the header. Returns the output, flushed, and the
    /// build id.
    ///
    /// # Errors
    ///
    /// [`WriteError::Io`].
    pub fn finish(mut self) -> Result<(W, [u8; 16]), WriteError> {
        let mut level = 0;
        // The root is the one subtree of the highest level. Only a single block needs a node.
        while level == 0 || level + 1 < self.open.len() || self.open[level].len() > 1 {
            self.end_node(level)?;
            level += 1;
        }
        let root = self.open[level].pop().expect("a node was ended");

        let mut header = Vec::with_capacity(HEADER_OCTETS);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((if self.is_final { FLAG_FINAL } else { 0 }).to_le_bytes());
        header.extend(self.offset.to_le_bytes());
        header.extend(root.maildrops.to_le_bytes());
        header.extend(root.entries.to_le_bytes());
        header.extend(root.place.offset.to_le_bytes());
        header.extend(root.place.checksum);
        header.extend(root.place.level.to_le_bytes());
        header.extend(u32::from(NORMALISER_VERSION).to_le_bytes());
        let build_id = checksum(&header);
        header.extend(build_id);
        header.extend(checksum(&header));

        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        Ok((self.out, build_id))
    }

    /// Ends the nodes to which a user does not belong.
    fn begin(&mut self, user: &[u8]) -> Result<(), WriteError> {
        if let Some(last) = self.last_user.as_ref().filter(|last| &last[..] >= user) {
            let [user, after] = [user, last].map(|name| String::from_utf8_lossy(name).into_owned());
            return Err(WriteError::Order { user, after });
        }
        self.last_user = Some(user.into());
        if self.open.iter().any(|open| !open.is_empty()) {
            (0..level_of(user) as usize).try_for_each(|level| self.end_node(level))?;
        }
        Ok(())
    }

    /// Writes a node that names what is open at a level, if anything is. An index of nobody has a
    /// node all the same, which names nothing.
    fn end_node(&mut self, level: usize) -> io::Result<()> {
        let named = self.open.get_mut(level).map(std::mem::take).unwrap_or_default();
        if named.is_empty() && self.last_user.is_some() {
            return Ok(());
        }
        let start = named.first().map_or(self.offset, |first| first.place.start);
        let level = level as u32 + 1;
        let place = self.put(start, level, &node_of(level, &named))?;
        let user = named.first().map_or_else(Box::default, |first| first.user.clone());
        let maildrops = named.iter().map(|subtree| subtree.maildrops).sum();
        let entries = named.iter().map(|subtree| subtree.entries).sum();
        self.add(Subtree { user, place, maildrops, entries });
        Ok(())
    }

    fn add(&mut self, subtree: Subtree) {
        let level = subtree.place.level as usize;
        if self.open.len() <= level {
            self.open.resize_with(level + 1, Vec::new);
        }
        self.open[level].push(subtree);
    }

    /// Writes a record, and what it is below begins at `start`.
    fn put(&mut self, start: u64, level: u32, octets: &[u8]) -> io::Result<Place> {
        self.out.write_all(octets)?;
        let (offset, len) = (self.offset, octets.len() as u64);
        self.offset += len;
        let mut checksum = [0; CHECKSUM_OCTETS];
        checksum.copy_from_slice(&octets[octets.len() - CHECKSUM_OCTETS..]);
        Ok(Place { start, offset, len, level, checksum })
    }
}

/// A node that names these.
fn node_of(level: u32, named: &[Subtree]) -> Vec<u8> {
    let mut node = Vec::new();
    node.extend(level.to_le_bytes());
    // So many names are in one node only if their hashes all begin alike.
    node.extend((named.len() as u32).to_le_bytes());
    for Subtree { user, place, maildrops, entries } in named {
        node.extend(place.checksum);
        let below = place.offset - place.start;
        for number in [place.len, below, *maildrops, *entries, user.len() as u64] {
            put_varint(&mut node, number);
        }
        node.extend(user);
    }
    node.extend(checksum(&node));
    node
}

/// No more room than this is left for the next block.
const MOST_ROOM_OCTETS: usize = 1 << 20;

/// The block of one maildrop, which takes its entries one by one.
#[derive(Debug)]
pub struct IndexBlock {
    octets: Vec<u8>,
    user: String,
    entries: u64,
    /// The number of its last capture, from 0.
    last: u32,
}

impl IndexBlock {
    /// See [`Writer::begin_block`]. `block` is empty.
    fn begin(maildrop: &Maildrop, mut block: Vec<u8>) -> Result<Self, WriteError> {
        let user = &maildrop.user;
        let u16_of = |what, len: usize| match u16::try_from(len) {
            Ok(len) => Ok(len.to_le_bytes()),
            Err(_) => Err(too_much(what, user, len, u16::MAX.into())),
        };
        let format = maildrop.counter.as_ref().map(|counter| counter.format.to_string());
        let format = format.unwrap_or_default();
        let mut flags = 0;
        if maildrop.uidvalidity.is_some() {
            flags |= BLOCK_HAS_UIDVALIDITY;
        }
        if maildrop.counter.is_some() {
            flags |= BLOCK_HAS_COUNTER;
        }
        block.extend([0; BLOCK_STATE_AT]); // its length, entries and spent, when they are known
        block.push(match maildrop.state {
            State::Captured => STATE_CAPTURED,
            State::Empty => STATE_EMPTY,
            State::Failed => STATE_FAILED,
        });
        block.push(flags);
        block.extend(u16_of("the length of the user name", user.len())?);
        block.extend(maildrop.uidvalidity.unwrap_or(0).to_le_bytes());
        block.extend(maildrop.counter.as_ref().map_or(0, |counter| counter.next).to_le_bytes());
        block.extend(u16_of("the length of the UIDL format", format.len())?);
        block.extend(u16_of("the length of the source", maildrop.source.len())?);
        block.extend(u16_of("the number of captures", maildrop.captures.len())?);
        block.extend(user.as_bytes());
        block.extend(format.as_bytes());
        block.extend(maildrop.source.as_bytes());
        for (at, capture) in maildrop.captures.iter().enumerate() {
            let is_last = at + 1 == maildrop.captures.len();
            let as_block = is_last && *capture == Capture::of(maildrop, capture.taken);
            u16_of("the length of the source of a capture", capture.source.len())?;
            put_capture(&mut block, capture, as_block);
        }
        let last = maildrop.captures.len().saturating_sub(1) as u32;
        Ok(Self { octets: block, user: user.clone(), entries: 0, last })
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`WriteError::NoSuchCapture`].
    pub fn add(&mut self, entry: &EntryRef<'_>) -> Result<(), WriteError> {
        if entry.first_capture > entry.last_capture || entry.last_capture > self.last {
            let (uidl, user) = (entry.uidl.to_uidl(), self.user.clone());
            return Err(WriteError::NoSuchCapture { uidl, user });
        }
        put_entry(&mut self.octets, entry, self.last);
        self.entries += 1;
        Ok(())
    }

    /// Adds the spent UIDLs, and returns the user and the octets.
    fn finish(self, spent: &[Uidl]) -> Result<(String, Vec<u8>), WriteError> {
        let Self { octets: mut block, user, entries, .. } = self;
        spent.iter().for_each(|uidl| put_uidl(&mut block, uidl.into()));
        let len = block.len() + CHECKSUM_OCTETS;
        for (at, what, number) in [
            (BLOCK_ENTRIES_AT, "the number of entries", entries as usize),
            (BLOCK_SPENT_AT, "the number of spent unique-ids", spent.len()),
            (BLOCK_LEN_AT, "the size", len),
        ] {
            let number = u32::try_from(number)
                .map_err(|_| too_much(what, &user, number, u32::MAX as usize))?;
            block[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        block.extend(checksum(&block));
        Ok((user, block))
    }
}

fn too_much(what: &'static str, user: &str, len: usize, most: usize) -> WriteError {
    WriteError::TooMuch { what, user: user.to_owned(), len, most }
}

fn put_capture(block: &mut Vec<u8>, capture: &Capture, as_block: bool) {
    let flags_at = block.len();
    let mut flags = 0;
    block.push(0);
    let Capture { taken, source, uidvalidity, next } = capture;
    let numbers = [
        (*taken, CAPTURE_TAKEN),
        (uidvalidity.filter(|_| !as_block).map(u64::from), CAPTURE_UIDVALIDITY),
        (next.filter(|_| !as_block).map(u64::from), CAPTURE_NEXT),
    ];
    for (number, flag) in numbers {
        if let Some(number) = number {
            flags |= flag;
            put_varint(block, number);
        }
    }
    if as_block {
        flags |= CAPTURE_AS_BLOCK;
    } else if !source.is_empty() {
        flags |= CAPTURE_SOURCE;
        put_varint(block, source.len() as u64);
        block.extend(source.as_bytes());
    }
    block[flags_at] = flags;
}

/// Writes an entry of a maildrop whose last capture has this number, from 0.
fn put_entry(block: &mut Vec<u8>, entry: &EntryRef<'_>, last: u32) {
    let flags_at = block.len();
    let mut flags = 0;
    block.push(0);
    put_uidl(block, entry.uidl);
    let mut put_name = |name: &Option<NameRef<'_>>, flag| {
        if let Some(name) = name {
            let key = name.key();
            flags |= flag;
            block.extend(key.cut);
            block.extend(key.whole);
        }
    };
    put_name(&entry.file, ENTRY_FILE);
    put_name(&entry.guid, ENTRY_GUID);
    for (fingerprint, flag) in
        [(entry.header, ENTRY_HEADER), (entry.message, ENTRY_MESSAGE), (entry.origin, ENTRY_ORIGIN)]
    {
        if let Some(fingerprint) = fingerprint {
            flags |= flag;
            block.extend(fingerprint.0);
        }
    }
    for (number, flag) in [(entry.uid.map(u64::from), ENTRY_UID), (entry.octets, ENTRY_OCTETS)] {
        if let Some(number) = number {
            flags |= flag;
            put_varint(block, number);
        }
    }
    if (entry.first_capture, entry.last_capture) != (0, last) || !entry.earlier.is_empty() {
        flags |= ENTRY_HISTORY;
        put_varint(block, entry.first_capture.into());
        put_varint(block, entry.last_capture.into());
        put_varint(block, entry.earlier.len() as u64);
        for uidl in &entry.earlier {
            put_uidl(block, *uidl);
        }
    }
    block[flags_at] = flags;
}

fn put_uidl(block: &mut Vec<u8>, uidl: UidlRef<'_>) {
    put_varint(block, uidl.as_bytes().len() as u64);
    block.extend(uidl.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::Entry;

    fn maildrop(user: &str) -> Maildrop {
        Maildrop::new(user, State::Empty)
    }

    fn writer() -> Writer<io::Cursor<Vec<u8>>> {
        Writer::new(io::Cursor::new(Vec::new()), false).unwrap()
    }

    #[test]
    fn a_user_who_comes_twice_or_too_late_is_refused() {
        for late in ["bob", "alice"] {
            let mut writer = writer();
            writer.push(&maildrop("bob")).unwrap();
            let refused = writer.push(&maildrop(late));
            assert!(matches!(refused, Err(WriteError::Order { .. })), "{late}: {refused:?}");
        }
    }

    #[test]
    fn what_no_length_field_can_say_is_refused() {
        let long = Maildrop { source: "x".repeat(65_536), ..maildrop("bob") };
        let refused = writer().push(&long);
        assert!(matches!(refused, Err(WriteError::TooMuch { most: 65_535, .. })), "{refused:?}");
    }

    #[test]
    fn a_message_of_a_capture_that_is_not_there_is_refused() {
        let entry = Entry::new(Uidl::new(*b"x").unwrap());
        for (first_capture, last_capture, captures) in [(0, 1, 0), (0, 1, 1), (1, 0, 2), (2, 2, 2)]
        {
            let mut bob = maildrop("bob");
            bob.captures = vec![Capture::of(&bob, None); captures];
            bob.entries = vec![Entry { first_capture, last_capture, ..entry.clone() }];
            let refused = writer().push(&bob);
            assert!(matches!(refused, Err(WriteError::NoSuchCapture { .. })), "{refused:?}");
        }
    }

    #[test]
    fn history_costs_only_where_there_is_one() {
        let size_of = |bob: &Maildrop| {
            let mut block = IndexBlock::begin(bob, Vec::new()).unwrap();
            bob.entries.iter().for_each(|entry| block.add(&entry.into()).unwrap());
            block.finish(&bob.spent).unwrap().1.len()
        };
        let mut bob = maildrop("bob");
        bob.entries = vec![Entry::new(Uidl::new(*b"x").unwrap())];
        let without = size_of(&bob);
        bob.captures = vec![Capture::of(&bob, None)];
        assert_eq!(size_of(&bob), without + 1);
        // Two captures: the messages that both have, and those that only the second has.
        bob.captures.push(Capture::of(&bob, None));
        bob.entries[0].last_capture = 1;
        assert_eq!(size_of(&bob), without + 2);
        bob.entries[0].first_capture = 1;
        assert_eq!(size_of(&bob), without + 5);
    }

    #[test]
    fn a_node_names_few_however_many_maildrops_there_are() {
        let mut writer = writer();
        for n in 0..5000 {
            writer.push(&maildrop(&format!("{n:04}"))).unwrap();
        }
        let most = writer.open.iter().map(Vec::len).max().unwrap();
        assert!(most < 150, "{most}");
        let octets = writer.finish().unwrap().0.into_inner();
        let index = Index::open(&octets[..]).unwrap();
        index.verify().unwrap();
        for n in 0..5000 {
            assert!(index.maildrop(&format!("{n:04}")).unwrap().is_some());
            assert!(index.maildrop(&format!("{n:05}")).unwrap().is_none());
        }
    }
}
