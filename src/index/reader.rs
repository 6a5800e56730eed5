//! Turns bytes into answers: [`Index`].
#![forbid(unsafe_code)]

use std::io;

use crate::file::read_at::{ReadAt, room_for};
use crate::format::UidlFormat;
use crate::index::cursor::{Cursor, u16_at, u32_at, u64_at};
use crate::index::layout::*;
use crate::key::{FileKey, Fingerprint, NORMALISER_VERSION};
use crate::maildrop::{
    Capture, CapturedLen, CapturedMaildrop, Counter, EntryRef, Maildrop, NameRef, State,
};
use crate::uidl::UidlRef;

/// An index, open for look-ups. Only its header has been read and checked.
#[derive(Debug)]
pub struct Index<S> {
    source: S,
    header: IndexHeader,
}

#[derive(Debug)]
struct IndexHeader {
    is_final: bool,
    file_len: u64,
    maildrops: u64,
    entries: u64,
    root: Place,
    normaliser: u32,
    build_id: [u8; 16],
}

/// The reason why an index could not give an answer. No such error means that something is not in
/// it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// It does not start as an index does.
    #[error("not an index, or mangled on its way here")]
    NotAnIndex,
    /// It has a version that we do not know.
    #[error(
        "index version {found}, and only version {newest_known} is read: build it again from its \
         listings, into an empty directory"
    )]
    Version {
        /// The version it says.
        found: u32,
        /// The newest that we can read.
        newest_known: u32,
    },
    /// Its fingerprints are from a normaliser that we do not have: no fingerprint would ever match.
    #[error(
        "fingerprints of normaliser {found}, known is {known}: build it again from its listings"
    )]
    Normaliser {
        /// The version it says.
        found: u32,
        /// Our version.
        known: u32,
    },
    /// A field points outside the file, a checksum disagrees, or two things that should agree do
    /// not.
    #[error("damaged at {offset} of {file_len} octets: {what}")]
    Corrupt {
        /// The fault.
        what: &'static str,
        /// The octet at which it begins.
        offset: u64,
        /// The length of the file.
        file_len: u64,
    },
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<S: ReadAt> Index<S> {
    /// Reads and checks the header. Cost: one read of 104 octets.
    ///
    /// # Errors
    ///
    /// Any [`IndexError`].
    pub fn open(source: S) -> Result<Self, IndexError> {
        let file_len = source.len_octets()?;
        let corrupt = |what, at: usize| IndexError::Corrupt { what, offset: at as u64, file_len };
        let short = || corrupt("shorter than a header", 0);
        if file_len < HEADER_OCTETS as u64 {
            return Err(not_an_index(&source, file_len)?);
        }
        let octets = source.read_at(0, HEADER_OCTETS)?;
        if octets[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(IndexError::NotAnIndex);
        }
        // The version comes first: another version may have its checksum elsewhere.
        let version = u32_at(&octets, VERSION_AT).ok_or_else(short)?;
        if version != VERSION {
            return Err(IndexError::Version { found: version, newest_known: VERSION });
        }
        if checksum(&octets[..HEADER_CHECKSUM_AT]) != octets[HEADER_CHECKSUM_AT..] {
            return Err(corrupt("checksum of the header", HEADER_CHECKSUM_AT));
        }
        let u32_of = |at| u32_at(&octets, at).ok_or_else(short);
        let u64_of = |at| u64_at(&octets, at).ok_or_else(short);
        let flags = u32_of(FLAGS_AT)?;
        let array_of = |at: usize| std::array::from_fn(|octet| octets[at + octet]);
        let root_offset = u64_of(ROOT_OFFSET_AT)?;
        let header = IndexHeader {
            is_final: flags & FLAG_FINAL != 0,
            file_len: u64_of(FILE_LEN_AT)?,
            maildrops: u64_of(MAILDROPS_AT)?,
            entries: u64_of(ENTRIES_AT)?,
            root: Place {
                start: HEADER_OCTETS as u64,
                offset: root_offset,
                len: file_len.saturating_sub(root_offset),
                level: u32_of(ROOT_LEVEL_AT)?,
                checksum: array_of(ROOT_CHECKSUM_AT),
            },
            normaliser: u32_of(NORMALISER_AT)?,
            build_id: array_of(BUILD_ID_AT),
        };
        if header.file_len != file_len {
            return Err(corrupt("the file is not as long as it says", FILE_LEN_AT));
        }
        if flags & !FLAG_FINAL != 0 {
            return Err(corrupt("flag of unknown meaning", FLAGS_AT));
        }
        if header.normaliser != u32::from(NORMALISER_VERSION) {
            let (found, known) = (header.normaliser, u32::from(NORMALISER_VERSION));
            return Err(IndexError::Normaliser { found, known });
        }
        // From here on it is known that the root lies behind the header and fills the rest. Each
        // record below lies before the one that names it, so that later sums stay within the file.
        let root_at = HEADER_OCTETS as u64..=file_len - NODE_LEAST_OCTETS.min(file_len);
        if !root_at.contains(&header.root.offset) {
            return Err(corrupt("offset of the root", ROOT_OFFSET_AT));
        }
        if !(1..=MAX_LEVEL + 1).contains(&header.root.level) {
            return Err(corrupt("level of the root", ROOT_LEVEL_AT));
        }
        Ok(Self { source, header })
    }

    /// Whether no more captures will follow.
    pub fn is_final(&self) -> bool {
        self.header.is_final
    }

    /// Names the content: two files have the same build id exactly when they are equal.
    pub fn build_id(&self) -> [u8; 16] {
        self.header.build_id
    }

    /// The number of maildrops that it holds.
    pub fn maildrop_count(&self) -> u64 {
        self.header.maildrops
    }

    /// The number of entries that all its maildrops hold.
    pub fn entry_count(&self) -> u64 {
        self.header.entries
    }

    /// Its size.
    pub fn len_octets(&self) -> u64 {
        self.header.file_len
    }

    /// The version of the normaliser that made its fingerprints.
    pub fn normaliser(&self) -> u32 {
        self.header.normaliser
    }

    /// The maildrop of a user, with its names as [`Name::Key`](crate::maildrop::Name::Key); `None`
    /// when the index has none.
    ///
    /// The whole user name is compared. Cost: a read of about 1 KB for each time that the number of
    /// maildrops is divided by sixteen, one of the block, and that in memory beside the maildrop.
    ///
    /// # Errors
    ///
    /// [`IndexError::Corrupt`] and [`IndexError::Io`]: could not tell.
    pub fn maildrop(&self, user: &str) -> Result<Option<Maildrop>, IndexError> {
        let Some(place) = self.place_of(user.as_bytes(), 0)? else {
            return Ok(None);
        };
        let maildrop = self.block(&place)?;
        if maildrop.user != user {
            return Err(self.corrupt("the block is another user's", place.offset));
        }
        Ok(Some(maildrop))
    }

    /// The same as the rules look at it, in little room.
    ///
    /// # Errors
    ///
    /// As [`Index::maildrop`].
    pub fn captured(&self, user: &str) -> Result<Option<CapturedMaildrop>, IndexError> {
        let Some(place) = self.place_of(user.as_bytes(), 0)? else {
            return Ok(None);
        };
        let block = self.record(&place)?;
        let corrupt = |what| self.corrupt(what, place.offset);
        let len = captured_len(&block).map_err(corrupt)?;
        // Where there is no room for it, that is an error like any other, and no end.
        drop(room_for(len.octets())?);
        let captured = captured_of(&block, len).map_err(corrupt)?;
        if captured.head().user != user {
            return Err(self.corrupt("the block is another user's", place.offset));
        }
        Ok(Some(captured))
    }

    /// All maildrops, in the order of user names. Cost: a read for each of them, and one for each
    /// node.
    pub fn maildrops(&self) -> Maildrops<'_, S> {
        Maildrops { index: self, left: vec![self.root()], failed: false }
    }

    /// Checks everything: every octet by its checksum, every count, and that a look-up finds every
    /// maildrop. Cost: it reads everything once, and keeps one block in memory.
    ///
    /// # Errors
    ///
    /// The first fault found.
    pub fn verify(&self) -> Result<(), IndexError> {
        self.verify_build_id()?;
        self.maildrops().try_for_each(|maildrop| maildrop.map(drop))
    }

    /// Checks that the build id names the content.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn verify_build_id(&self) -> Result<(), IndexError> {
        let named = self.source.read_at(0, BUILD_ID_AT)?;
        if checksum(&named) == self.header.build_id {
            return Ok(());
        }
        Err(self.corrupt("the content is not what the build id names", BUILD_ID_AT as u64))
    }

    /// Whether the other index has these maildrops too, octet by octet. Cost: as a look-up.
    ///
    /// # Errors
    ///
    /// [`IndexError`]: the other index could not tell.
    fn has(&self, subtree: &Subtree) -> Result<bool, IndexError> {
        let place = self.place_of(&subtree.user, subtree.place.level)?;
        Ok(place.is_some_and(|place| place.checksum == subtree.place.checksum))
    }

    fn root(&self) -> Subtree {
        let IndexHeader { root, maildrops, entries, .. } = self.header;
        Subtree { user: Box::default(), place: root, maildrops, entries }
    }

    /// Octets of the file as they are. Nothing in them is checked.
    pub(super) fn octets(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.source.read_at(offset, len)
    }

    fn corrupt(&self, what: &'static str, offset: u64) -> IndexError {
        IndexError::Corrupt { what, offset, file_len: self.header.file_len }
    }

    /// The position of the subtree of a level that begins with a user.
    fn place_of(&self, user: &[u8], level: u32) -> Result<Option<Place>, IndexError> {
        let mut place = self.header.root;
        let mut first = None;
        while place.level > level {
            let node = self.record(&place)?;
            let mut named_by = self.named_by(&node, &place)?;
            let mut found = None;
            let is_behind = loop {
                match named_by.next().transpose()? {
                    Some(named) if named.user <= user => found = Some(named),
                    next => break next.is_none(),
                }
            };
            if is_behind && !named_by.is_at_end() {
                return Err(self.corrupt("octets that no node names", place.offset));
            }
            let Some(named) = found else {
                return if place == self.header.root {
                    Ok(None)
                } else {
                    Err(self.corrupt("a node of other users", place.offset))
                };
            };
            first = Some(named.user == user);
            place = named.place;
        }
        Ok(first.unwrap_or(place.level == level).then_some(place))
    }

    /// The octets of a record, which end in the checksum that was said of it.
    fn record(&self, place: &Place) -> Result<Vec<u8>, IndexError> {
        let octets = self.source.read_at(place.offset, place.len as usize)?;
        let content_len = octets.len().saturating_sub(CHECKSUM_OCTETS);
        let (content, stored) = octets.split_at(content_len);
        if stored != place.checksum || checksum(content) != place.checksum {
            let what = if place.level == 0 { "checksum of a block" } else { "checksum of a node" };
            return Err(self.corrupt(what, place.offset));
        }
        Ok(octets)
    }

    /// What a node names, in the order of users.
    fn named_by<'n>(&self, node: &'n [u8], place: &Place) -> Result<NamedBy<'n>, IndexError> {
        let level = u32_at(node, NODE_LEVEL_AT);
        let left = u32_at(node, NODE_COUNT_AT);
        let content = node.get(NODE_HEAD_OCTETS..node.len() - CHECKSUM_OCTETS);
        match (left, content) {
            (Some(left), Some(content)) if level == Some(place.level) => Ok(NamedBy {
                cursor: Cursor(content),
                left,
                level: place.level - 1,
                at: place.start,
                node_at: place.offset,
                file_len: self.header.file_len,
                last_user: None,
            }),
            _ => Err(self.corrupt("level of a node", place.offset)),
        }
    }

    fn block(&self, place: &Place) -> Result<Maildrop, IndexError> {
        let octets = self.record(place)?;
        maildrop_of(&octets).map_err(|what| self.corrupt(what, place.offset))
    }
}

/// The error for a file shorter than a header: an index that was cut short, or something else.
fn not_an_index<S: ReadAt>(source: &S, file_len: u64) -> Result<IndexError, IndexError> {
    let octets = source.read_at(0, file_len.min(MAGIC.len() as u64) as usize)?;
    Ok(if MAGIC.starts_with(&octets) {
        IndexError::Corrupt { what: "shorter than a header", offset: 0, file_len }
    } else {
        IndexError::NotAnIndex
    })
}

/// What a node names. It ends at the first error.
struct NamedBy<'n> {
    cursor: Cursor<'n>,
    left: u32,
    level: u32,
    /// Where what is named next begins.
    at: u64,
    node_at: u64,
    file_len: u64,
    last_user: Option<&'n [u8]>,
}

/// A [`Subtree`] as a node names it.
struct NamedSubtree<'n> {
    user: &'n [u8],
    place: Place,
    maildrops: u64,
    entries: u64,
}

impl<'n> NamedBy<'n> {
    fn read_next(&mut self) -> Result<NamedSubtree<'n>, &'static str> {
        let short = "a node ends early, or has a number in no proper form";
        let checksum = self.cursor.array().ok_or(short)?;
        let mut number = || self.cursor.varint().ok_or(short);
        let (len, below, maildrops, entries, user_len) =
            (number()?, number()?, number()?, number()?, number()?);
        let user = usize::try_from(user_len).ok().and_then(|len| self.cursor.take(len));
        let user = user.ok_or(short)?;
        let (start, level) = (self.at, self.level);
        let offset = start.checked_add(below);
        let end = offset.and_then(|offset| offset.checked_add(len));
        let (Some(offset), Some(end)) = (offset, end.filter(|end| *end <= self.node_at)) else {
            return Err("a node names what lies behind it");
        };
        if self.last_user.is_some_and(|last| last >= user) {
            return Err("a user out of order");
        }
        (self.at, self.last_user) = (end, Some(user));
        Ok(NamedSubtree {
            user,
            place: Place { start, offset, len, level, checksum },
            maildrops,
            entries,
        })
    }

    /// Checks that nothing is left of the node, nor before it.
    fn is_at_end(&self) -> bool {
        self.left == 0 && self.cursor.0.is_empty() && self.at == self.node_at
    }
}

impl<'n> Iterator for NamedBy<'n> {
    type Item = Result<NamedSubtree<'n>, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.read_next().map_err(|what| {
            self.left = 0;
            IndexError::Corrupt { what, offset: self.node_at, file_len: self.file_len }
        }))
    }
}

/// The maildrops of an index, in the order of user names. It ends at the first error.
#[derive(Debug)]
pub struct Maildrops<'a, S> {
    index: &'a Index<S>,
    /// What is left of it, the next at the end.
    left: Vec<Subtree>,
    failed: bool,
}

impl<S: ReadAt> Maildrops<'_, S> {
    /// The next maildrops up to a user, as large a subtree as has nobody else and as no maildrop in
    /// this place would change; `None` when the next maildrop is that user's or a later one's.
    /// Nothing in the subtree is read. Without a user, that is all that is left.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn subtree_before(&mut self, user: Option<&str>) -> Result<Option<Subtree>, IndexError> {
        while let Some(subtree) = self.left.pop() {
            let Some(user) = user.map(str::as_bytes) else { return Ok(Some(subtree)) };
            // Before the next one, another maildrop would stand in it, or at its end.
            let is_apart = self.left.last().is_some_and(|next| &next.user[..] <= user);
            if is_apart || (subtree.place.level == 0 && &subtree.user[..] < user) {
                return Ok(Some(subtree));
            }
            // The first subtree of all begins where no user of its level does.
            let begins = level_of(&subtree.user) >= subtree.place.level;
            if subtree.place.level == 0 || (begins && &subtree.user[..] >= user) {
                self.left.push(subtree);
                return Ok(None);
            }
            self.open(&subtree)?;
        }
        Ok(None)
    }

    /// The user whose maildrop is the next.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn next_user(&mut self) -> Result<Option<&[u8]>, IndexError> {
        let root = self.index.header.root;
        if let Some(subtree) = self.left.last().filter(|next| next.place == root).cloned() {
            self.left.pop();
            self.open(&subtree)?;
        }
        Ok(self.left.last().map(|next| &*next.user))
    }

    /// The maildrop of a user, when it is the next.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn next_of(&mut self, user: &str) -> Result<Option<Maildrop>, IndexError> {
        match self.next_user()? {
            Some(next) if next == user.as_bytes() => self.next().transpose(),
            _ => Ok(None),
        }
    }

    /// The next maildrop that the other index has not, or has otherwise. Cost: what both have alike
    /// is not read.
    ///
    /// # Errors
    ///
    /// [`IndexError`], of either.
    pub fn next_unlike<T: ReadAt>(
        &mut self,
        other: &Index<T>,
    ) -> Result<Option<Maildrop>, IndexError> {
        while let Some(subtree) = self.left.pop() {
            if subtree.place == self.index.header.root {
                self.open(&subtree)?;
            } else if !other.has(&subtree)? {
                if subtree.place.level == 0 {
                    self.left.push(subtree);
                    return self.read_next();
                }
                self.open(&subtree)?;
            }
        }
        Ok(None)
    }

    /// Puts what a node names in its place.
    fn open(&mut self, subtree: &Subtree) -> Result<(), IndexError> {
        let Self { index, left, .. } = self;
        let (node, first) = (index.record(&subtree.place)?, left.len());
        let (mut maildrops, mut entries) = (0_u64, 0_u64);
        let mut named_by = index.named_by(&node, &subtree.place)?;
        for named in &mut named_by {
            let NamedSubtree { user, place, maildrops: some, entries: of_them } = named?;
            (maildrops, entries) =
                (maildrops.saturating_add(some), entries.saturating_add(of_them));
            left.push(Subtree { user: user.into(), place, maildrops: some, entries: of_them });
        }
        let corrupt = |what| Err(index.corrupt(what, subtree.place.offset));
        if !named_by.is_at_end() {
            return corrupt("octets that no node names");
        }
        let is_root = subtree.place == index.header.root;
        match left.get(first) {
            Some(next) if is_root || next.user == subtree.user => {}
            None if is_root => {}
            _ => return corrupt("a node of other users"),
        }
        if (maildrops, entries) != (subtree.maildrops, subtree.entries) {
            return corrupt("number of maildrops or entries");
        }
        // A look-up would not find who stands behind the first user of the next piece.
        let next = first.checked_sub(1).map(|next| &left[next].user);
        let last = left[first..].last().map(|last| &last.user);
        if next.zip(last).is_some_and(|(next, last)| last >= next) {
            return corrupt("a user out of order");
        }
        left[first..].reverse();
        Ok(())
    }

    fn read_next(&mut self) -> Result<Option<Maildrop>, IndexError> {
        while let Some(subtree) = self.left.pop() {
            if subtree.place.level > 0 {
                self.open(&subtree)?;
                continue;
            }
            let maildrop = self.index.block(&subtree.place)?;
            let corrupt = |what| Err(self.index.corrupt(what, subtree.place.offset));
            if maildrop.user.as_bytes() != &*subtree.user {
                return corrupt("the block is another user's");
            }
            if subtree.place.offset != subtree.place.start {
                return corrupt("octets that no node names");
            }
            if (subtree.maildrops, subtree.entries) != (1, maildrop.entries.len() as u64) {
                return corrupt("number of maildrops or entries");
            }
            return Ok(Some(maildrop));
        }
        Ok(None)
    }
}

impl<S: ReadAt> Iterator for Maildrops<'_, S> {
    type Item = Result<Maildrop, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read_next().transpose();
        self.failed = matches!(next, None | Some(Err(_)));
        next
    }
}

/// The maildrop in a block whose checksum agrees, or its fault.
fn maildrop_of(block: &[u8]) -> Result<Maildrop, &'static str> {
    let mut rest = BlockRest::of(block)?;
    let mut entries = Vec::with_capacity(rest.entries);
    rest.for_each_entry(|entry| entries.push(entry.to_entry()))?;
    let mut spent = Vec::with_capacity(rest.spent);
    rest.for_each_spent(|uidl| spent.push(uidl.to_uidl()))?;
    Ok(Maildrop { entries, spent, ..rest.end()? })
}

/// How much there is in a block whose checksum agrees.
fn captured_len(block: &[u8]) -> Result<CapturedLen, &'static str> {
    let mut rest = BlockRest::of(block)?;
    let mut len = CapturedLen::default();
    rest.for_each_entry(|entry| len.add_entry(entry))?;
    rest.for_each_spent(|uidl| len.add_spent(uidl))?;
    rest.end().map(|_| len)
}

/// The maildrop in such a block as the rules look at it.
fn captured_of(block: &[u8], len: CapturedLen) -> Result<CapturedMaildrop, &'static str> {
    let mut rest = BlockRest::of(block)?;
    let mut captured = CapturedMaildrop::begin(rest.maildrop.clone(), len);
    rest.for_each_entry(|entry| captured.add_entry(entry))?;
    rest.for_each_spent(|uidl| captured.add_spent(uidl))?;
    Ok(captured)
}

/// What is left of a block behind its head and captures.
struct BlockRest<'b> {
    /// What the block says before: the maildrop without entries and spent UIDLs.
    maildrop: Maildrop,
    cursor: Cursor<'b>,
    entries: usize,
    spent: usize,
}

impl<'b> BlockRest<'b> {
    fn of(block: &'b [u8]) -> Result<Self, &'static str> {
        let short = "a block ends early";
        let content_len = block.len().checked_sub(CHECKSUM_OCTETS).ok_or(short)?;
        let content = &block[..content_len];
        if u32_at(block, BLOCK_LEN_AT) != u32::try_from(block.len()).ok() {
            return Err("length of a block");
        }
        let u16_of = |at| u16_at(content, at).ok_or(short);
        let u32_of = |at| u32_at(content, at).ok_or(short);
        let entry_count = u32_of(BLOCK_ENTRIES_AT)? as usize;
        let spent_count = u32_of(BLOCK_SPENT_AT)? as usize;
        let capture_count = usize::from(u16_of(BLOCK_CAPTURES_AT)?);
        let state = match *content.get(BLOCK_STATE_AT).ok_or(short)? {
            STATE_CAPTURED => State::Captured,
            STATE_EMPTY => State::Empty,
            STATE_FAILED => State::Failed,
            _ => return Err("state of a maildrop"),
        };
        let flags = *content.get(BLOCK_FLAGS_AT).ok_or(short)?;
        if flags & !BLOCK_ALL != 0 {
            return Err("flag of unknown meaning");
        }
        let uidvalidity = u32_of(BLOCK_UIDVALIDITY_AT)?;
        let next = u32_of(BLOCK_NEXT_AT)?;

        let mut cursor = Cursor(content.get(BLOCK_HEAD_OCTETS..).ok_or(short)?);
        let mut text = |len: u16| {
            let octets = cursor.take(len.into()).ok_or(short)?;
            std::str::from_utf8(octets).map_err(|_| "text that is not UTF-8")
        };
        let user = text(u16_of(BLOCK_USER_LEN_AT)?)?.to_owned();
        let format = text(u16_of(BLOCK_FORMAT_LEN_AT)?)?;
        let source = text(u16_of(BLOCK_SOURCE_LEN_AT)?)?.to_owned();

        let uidvalidity =
            optional(flags & BLOCK_HAS_UIDVALIDITY != 0, uidvalidity, uidvalidity == 0)
                .ok_or("a UIDVALIDITY that is not there")?;
        let counter = if flags & BLOCK_HAS_COUNTER != 0 {
            let format = UidlFormat::parse(format).map_err(|_| "form of counted unique-ids")?;
            Some(Counter { format, next })
        } else if format.is_empty() && next == 0 {
            None
        } else {
            return Err("a counter that is not there");
        };

        let mut maildrop = Maildrop { source, uidvalidity, counter, ..Maildrop::new(user, state) };
        // Each count is checked against the octets there are, before room is made for so many.
        if capture_count > cursor.0.len() / CAPTURE_LEAST_OCTETS {
            return Err("number of captures");
        }
        let mut captures = Vec::with_capacity(capture_count);
        for number in 1..=capture_count {
            captures.push(capture(&mut cursor, &maildrop, number == capture_count)?);
        }
        maildrop.captures = captures;
        // Each count is checked against the octets there are, before room is made for so many.
        if entry_count > cursor.0.len() / ENTRY_LEAST_OCTETS {
            return Err("number of entries");
        }
        Ok(Self { maildrop, cursor, entries: entry_count, spent: spent_count })
    }

    /// Gives all entries. They are what comes first.
    fn for_each_entry(&mut self, mut take: impl FnMut(&EntryRef<'b>)) -> Result<(), &'static str> {
        // The count has at most 16 bits.
        let last = self.maildrop.captures.len().saturating_sub(1) as u32;
        for _ in 0..self.entries {
            take(&entry(&mut self.cursor, last)?);
        }
        if self.spent > self.cursor.0.len() / SPENT_LEAST_OCTETS {
            return Err("number of spent unique-ids");
        }
        Ok(())
    }

    /// Gives all spent UIDLs. They come after the entries.
    fn for_each_spent(&mut self, mut take: impl FnMut(UidlRef<'b>)) -> Result<(), &'static str> {
        (0..self.spent).try_for_each(|_| uidl(&mut self.cursor).map(&mut take))
    }

    /// The maildrop, once all was given and nothing is left.
    fn end(self) -> Result<Maildrop, &'static str> {
        if !self.cursor.0.is_empty() {
            return Err("octets after the end of a block");
        }
        Ok(self.maildrop)
    }
}

/// The value of a field when its flag is set. Without the flag the field must be blank; the outer
/// `None` says that it is not.
fn optional<T>(is_there: bool, value: T, is_blank: bool) -> Option<Option<T>> {
    if is_there { Some(Some(value)) } else { is_blank.then_some(None) }
}

/// A capture of a maildrop. The fields that come before the captures in the block are known
/// already.
fn capture(
    cursor: &mut Cursor<'_>,
    maildrop: &Maildrop,
    is_last: bool,
) -> Result<Capture, &'static str> {
    let short = "a capture ends early, or has a number in no proper form";
    let flags = cursor.u8().ok_or(short)?;
    if flags & !CAPTURE_ALL != 0 {
        return Err("flag of unknown meaning");
    }
    let mut number = |flag| -> Result<_, &'static str> {
        if flags & flag == 0 {
            return Ok(None);
        }
        cursor.varint().ok_or(short).map(Some)
    };
    let taken = number(CAPTURE_TAKEN)?;
    if flags & CAPTURE_AS_BLOCK != 0 {
        return if is_last && flags & !(CAPTURE_TAKEN | CAPTURE_AS_BLOCK) == 0 {
            Ok(Capture::of(maildrop, taken))
        } else {
            Err("a capture that says more, or comes earlier, than it can")
        };
    }
    let long = |_| "number of more than 32 bits in a capture";
    let uidvalidity = number(CAPTURE_UIDVALIDITY)?.map(u32::try_from).transpose().map_err(long)?;
    let next = number(CAPTURE_NEXT)?.map(u32::try_from).transpose().map_err(long)?;
    let len = number(CAPTURE_SOURCE)?.unwrap_or(0);
    let len = usize::try_from(len).map_err(|_| short)?;
    let source = std::str::from_utf8(cursor.take(len).ok_or(short)?);
    let source = source.map_err(|_| "text that is not UTF-8")?.to_owned();
    Ok(Capture { taken, source, uidvalidity, next })
}

/// An entry of a maildrop whose last capture has this number, from 0.
#[inline]
fn entry<'b>(cursor: &mut Cursor<'b>, last: u32) -> Result<EntryRef<'b>, &'static str> {
    let short = "an entry ends early, or has a number in no proper form";
    let flags = cursor.u8().ok_or(short)?;
    let uidl = uidl(cursor)?;
    let mut file_key = |flag| -> Result<_, &'static str> {
        if flags & flag == 0 {
            return Ok(None);
        }
        let (cut, whole) = (cursor.array().ok_or(short)?, cursor.array().ok_or(short)?);
        Ok(Some(NameRef::Key(FileKey { cut, whole })))
    };
    let (file, guid) = (file_key(ENTRY_FILE)?, file_key(ENTRY_GUID)?);
    let mut fingerprint = |flag| -> Result<_, &'static str> {
        if flags & flag == 0 {
            return Ok(None);
        }
        Ok(Some(Fingerprint(cursor.array().ok_or(short)?)))
    };
    let (header, message, origin) =
        (fingerprint(ENTRY_HEADER)?, fingerprint(ENTRY_MESSAGE)?, fingerprint(ENTRY_ORIGIN)?);
    let mut number = |flag| -> Result<_, &'static str> {
        if flags & flag == 0 {
            return Ok(None);
        }
        cursor.varint().ok_or(short).map(Some)
    };
    let (uid, octets) = (number(ENTRY_UID)?, number(ENTRY_OCTETS)?);
    let uid = uid.map(u32::try_from).transpose().map_err(|_| "UID of more than 32 bits")?;
    let of_message = EntryRef { uid, octets, file, guid, ..EntryRef::new(uidl) };
    let mut entry = EntryRef { header, message, origin, ..of_message };
    entry.last_capture = last;
    if flags & ENTRY_HISTORY != 0 {
        let mut count = || cursor.varint().ok_or(short);
        let (first_of_all, last_of_all, earlier_count) = (count()?, count()?, count()?);
        if first_of_all > last_of_all || last_of_all > last.into() {
            return Err("an entry of a capture that is not there");
        }
        // Both were checked just now.
        (entry.first_capture, entry.last_capture) = (first_of_all as u32, last_of_all as u32);
        if earlier_count > (cursor.0.len() / SPENT_LEAST_OCTETS) as u64 {
            return Err("number of earlier unique-ids");
        }
        entry.earlier.reserve_exact(earlier_count as usize);
        for _ in 0..earlier_count {
            entry.earlier.push(self::uidl(cursor)?);
        }
    }
    Ok(entry)
}

/// A UIDL. Its range is checked again: a CR LF in it would be a protocol injection.
fn uidl<'b>(cursor: &mut Cursor<'b>) -> Result<UidlRef<'b>, &'static str> {
    let len = cursor.varint().and_then(|len| usize::try_from(len).ok());
    let octets = len.and_then(|len| cursor.take(len)).ok_or("a unique-id ends early")?;
    UidlRef::new(octets).map_err(|_| "a unique-id that POP3 cannot carry")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::index::Writer;
    use crate::maildrop::{Entry, Name};
    use crate::uidl::Uidl;

    fn uidl() -> impl Strategy<Value = Uidl> {
        "[!-~]{1,80}".prop_map(|text| Uidl::new(text.into_bytes()).unwrap())
    }

    prop_compose! {
        fn entry()(
            uidl in uidl(),
            uid in of(any::<u32>()),
            octets in of(any::<u64>()),
            names in any::<[Option<([u8; 16], [u8; 4])>; 2]>(),
            fingerprints in any::<[Option<[u8; 16]>; 3]>(),
            earlier in prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(uidl(), 0..4)],
        ) -> Entry {
            let [file, guid] =
                names.map(|name| name.map(|(cut, whole)| Name::Key(FileKey { cut, whole })));
            let [header, message, origin] = fingerprints.map(|octets| octets.map(Fingerprint));
            let of_message = Entry { uid, octets, file, guid, ..Entry::new(uidl) };
            Entry { earlier, header, message, origin, ..of_message }
        }
    }

    fn capture() -> impl Strategy<Value = Capture> {
        (of(any::<u64>()), "\\PC{0,12}", of(any::<u32>()), of(any::<u32>())).prop_map(
            |(taken, source, uidvalidity, next)| Capture { taken, source, uidvalidity, next },
        )
    }

    prop_compose! {
        fn maildrop()(
            user in "\\PC{0,12}",
            state in prop::sample::select(vec![State::Captured, State::Empty, State::Failed]),
            source in "\\PC{0,12}",
            uidvalidity in of(any::<u32>()),
            next in of(any::<u32>()),
            format in prop::sample::select(vec!["%08Xu%08Xv", "UID%u-%v", "%u"]),
            entries in prop::collection::vec(entry(), 0..9),
            spent in prop::collection::vec(uidl(), 0..4),
            captures in prop::collection::vec(capture(), 0..4),
            last in of(of(any::<u64>())),
            seen in prop::collection::vec(any::<[u32; 2]>(), 9),
        ) -> Maildrop {
            let format = UidlFormat::parse(format).unwrap();
            let counter = next.map(|next| Counter { format, next });
            let made = Maildrop { captures, source, uidvalidity, ..Maildrop::new(user, state) };
            let mut maildrop = Maildrop { counter, entries, spent, ..made };
            if let Some(taken) = last {
                maildrop.captures.push(Capture::of(&maildrop, taken));
            }
            let count = maildrop.captures.len().max(1) as u32;
            for (entry, [one, other]) in maildrop.entries.iter_mut().zip(seen) {
                let (one, other) = (one % count, other % count);
                (entry.first_capture, entry.last_capture) = (one.min(other), one.max(other));
            }
            maildrop
        }
    }

    /// An index of the users with these numbers.
    fn index_of(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
        let mut writer = Writer::new(Cursor::new(Vec::new()), true).unwrap();
        for number in numbers {
            writer.push(&Maildrop::new(format!("{number:04}"), State::Empty)).unwrap();
        }
        writer.finish().unwrap().0.into_inner()
    }

    /// Nodes of level 1 that have several maildrops, but for the first node of all.
    fn nodes(index: &Index<&[u8]>) -> Vec<Subtree> {
        let (mut all, mut nodes) = (index.maildrops(), Vec::new());
        while let Some(piece) = all.left.pop() {
            if piece.place.level > 1 {
                all.open(&piece).unwrap();
            } else if piece.maildrops > 1 {
                nodes.push(piece);
            }
        }
        nodes.split_off(1)
    }

    /// An index of pieces that do not belong together. Each checksum in it agrees.
    fn spliced(pieces: [(&Index<&[u8]>, Subtree); 2]) -> Vec<u8> {
        let mut writer = Writer::new(Cursor::new(Vec::new()), true).unwrap();
        for (from, piece) in pieces {
            writer.copy(from, piece).unwrap();
        }
        writer.finish().unwrap().0.into_inner()
    }

    #[test]
    fn a_node_with_users_of_the_next_one_is_an_error_for_whoever_reads_all() {
        let (even, odd) = (index_of((0..400).step_by(2)), index_of((1..400).step_by(2)));
        let [even, odd] = [&even, &odd].map(|octets| Index::open(&octets[..]).unwrap());
        let first = nodes(&even).swap_remove(0);
        let of_first = Maildrops { index: &even, left: vec![first.clone()], failed: false };
        let last = of_first.last().unwrap().unwrap().user;
        let is_between = |next: &Subtree| first.user < next.user && &*next.user < last.as_bytes();
        let second = nodes(&odd).into_iter().find(is_between).expect("nodes name as many");
        let octets = spliced([(&even, first), (&odd, second)]);
        let index = Index::open(&octets[..]).unwrap();
        assert!(index.maildrop(&last).unwrap().is_none(), "the second node is looked at");
        let found = index.verify();
        assert!(matches!(found, Err(IndexError::Corrupt { .. })), "{found:?}");
    }

    #[test]
    fn a_node_that_begins_later_than_was_said_of_it_is_an_error_and_no_absent_user() {
        let octets = index_of(0..200);
        let index = Index::open(&octets[..]).unwrap();
        let mut nodes = nodes(&index).into_iter();
        let (first, second) = (nodes.next().unwrap(), nodes.next().unwrap());
        let first = Subtree { user: Box::default(), ..first };
        let octets = spliced([(&index, first), (&index, second)]);
        let found = Index::open(&octets[..]).unwrap().maildrop("00");
        assert!(matches!(found, Err(IndexError::Corrupt { .. })), "{found:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(
            mut maildrops in prop::collection::vec(maildrop(), 0..40),
            is_final in any::<bool>(),
        ) {
            maildrops.sort_by(|a, b| a.user.cmp(&b.user));
            maildrops.dedup_by(|a, b| a.user == b.user);
            let mut writer = Writer::new(Cursor::new(Vec::new()), is_final).unwrap();
            for maildrop in &maildrops {
                writer.push(maildrop).unwrap();
            }
            let (octets, build_id) = writer.finish().unwrap();
            let octets = octets.into_inner();
            let index = Index::open(&octets[..]).unwrap();
            prop_assert_eq!((index.is_final(), index.build_id()), (is_final, build_id));
            index.verify().unwrap();
            for maildrop in &maildrops {
                let found = index.maildrop(&maildrop.user).unwrap();
                prop_assert_eq!(found.as_ref(), Some(maildrop));
            }
            let all: Vec<_> = index.maildrops().map(Result::unwrap).collect();
            prop_assert_eq!(all, maildrops);
        }
    }
}
