//! Turns bytes into answers: [`Index`].
#![forbid(unsafe_code)]

use std::io;

use crate::file::read_at::ReadAt;
use crate::format::UidlFormat;
use crate::index::cursor::{Cursor, u16_at, u32_at, u64_at};
use crate::index::layout::*;
use crate::key::{FileKey, Fingerprint, NORMALISER_VERSION};
use crate::maildrop::{Capture, Counter, Entry, Maildrop, Name, State};
use crate::uidl::Uidl;

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
    buckets_offset: u64,
    table_offset: u64,
    largest_block: u32,
    largest_bucket: u32,
    table_bits: u32,
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
    #[error("index version {found}, newest known {newest_known}")]
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

/// The position of a block. It is checked: within the blocks, and not larger than the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BlockSpan {
    offset: u64,
    len: u64,
}

/// The octets of a bucket that are read at once: all of it, unless very many users share its
/// prefix.
const BUCKET_GUESS_OCTETS: u64 = 512;

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
        let mut build_id = [0; 16];
        build_id.copy_from_slice(&octets[BUILD_ID_AT..HEADER_CHECKSUM_AT]);
        let header = IndexHeader {
            is_final: flags & FLAG_FINAL != 0,
            file_len: u64_of(FILE_LEN_AT)?,
            maildrops: u64_of(MAILDROPS_AT)?,
            entries: u64_of(ENTRIES_AT)?,
            buckets_offset: u64_of(BUCKETS_OFFSET_AT)?,
            table_offset: u64_of(TABLE_OFFSET_AT)?,
            largest_block: u32_of(LARGEST_BLOCK_AT)?,
            largest_bucket: u32_of(LARGEST_BUCKET_AT)?,
            table_bits: u32_of(TABLE_BITS_AT)?,
            normaliser: u32_of(NORMALISER_AT)?,
            build_id,
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
        // From here on it is known that blocks lie between the header and the buckets, that buckets
        // lie between the blocks and the table, and that the table of 2^bits offsets fills the
        // rest. So later sums stay within the file's length.
        if header.table_bits > MAX_TABLE_BITS
            || file_len.checked_sub(header.table_offset) != Some(8 << header.table_bits)
        {
            return Err(corrupt("offset or size of the table", TABLE_OFFSET_AT));
        }
        if !(HEADER_OCTETS as u64..=header.table_offset).contains(&header.buckets_offset) {
            return Err(corrupt("offset of the buckets", BUCKETS_OFFSET_AT));
        }
        // From here on no count can ask for more memory than one block or bucket of this file
        // takes.
        if u64::from(header.largest_block) > header.buckets_offset - HEADER_OCTETS as u64 {
            return Err(corrupt("size of the largest block", LARGEST_BLOCK_AT));
        }
        if bucket_octets(header.largest_bucket) > header.table_offset - header.buckets_offset {
            return Err(corrupt("size of the largest bucket", LARGEST_BUCKET_AT));
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

    /// The maildrop of a user, with its names as [`Name::Key`]; `None` when the index has none.
    ///
    /// The whole user name is compared. Cost, however many maildrops there are: three reads (a
    /// table entry, a bucket and the block), and the block in memory beside the maildrop.
    ///
    /// # Errors
    ///
    /// [`IndexError::Corrupt`] and [`IndexError::Io`]: could not tell.
    pub fn maildrop(&self, user: &str) -> Result<Option<Maildrop>, IndexError> {
        let Some(place) = self.place_of(user)? else {
            return Ok(None);
        };
        let maildrop = self.block(place)?;
        if maildrop.user != user {
            return Err(self.corrupt("the block is another user's", place.offset));
        }
        Ok(Some(maildrop))
    }

    /// All maildrops, in the order of user names. Cost: two reads for each maildrop.
    pub fn maildrops(&self) -> Maildrops<'_, S> {
        Maildrops {
            index: self,
            offset: HEADER_OCTETS as u64,
            count: 0,
            entries: 0,
            last_user: None,
            failed: false,
        }
    }

    /// Checks everything: every octet against the build id, every block and bucket, and that every
    /// maildrop is found by its user's name. Cost: it reads everything twice or more, and keeps one
    /// block in memory.
    ///
    /// # Errors
    ///
    /// The first fault found.
    pub fn verify(&self) -> Result<(), IndexError> {
        self.verify_build_id()?;
        let mut maildrops = self.maildrops();
        loop {
            let offset = maildrops.offset;
            let Some(maildrop) = maildrops.next() else { break };
            let place = BlockSpan { offset, len: maildrops.offset - offset };
            if self.place_of(&maildrop?.user)? != Some(place) {
                return Err(self.corrupt("the table does not lead to this block", offset));
            }
        }
        let mut offset = self.header.buckets_offset;
        let mut in_buckets = 0;
        for number in 0..1_u32 << self.header.table_bits {
            if self.bucket_offset(number)? != offset {
                return Err(self.corrupt("a bucket out of its order", offset));
            }
            let bucket = self.bucket(number)?;
            offset += bucket.len() as u64;
            in_buckets += bucket_entries(&bucket).len() as u64;
        }
        if offset != self.header.table_offset {
            return Err(self.corrupt("octets between buckets and table", offset));
        }
        if in_buckets != self.header.maildrops {
            return Err(self.corrupt("number of maildrops in the buckets", offset));
        }
        Ok(())
    }

    fn verify_build_id(&self) -> Result<(), IndexError> {
        const STEP_OCTETS: usize = 1 << 20;
        let mut hasher = blake3::Hasher::new();
        let end = self.header.file_len;
        for offset in (HEADER_OCTETS as u64..end).step_by(STEP_OCTETS) {
            let step = (end - offset).min(STEP_OCTETS as u64);
            hasher.update(&self.source.read_at(offset, step as usize)?);
        }
        hasher.update(&self.source.read_at(0, BUILD_ID_AT)?);
        if cut(&hasher.finalize()) != self.header.build_id {
            return Err(
                self.corrupt("the content is not what the build id names", BUILD_ID_AT as u64)
            );
        }
        Ok(())
    }

    fn corrupt(&self, what: &'static str, offset: u64) -> IndexError {
        IndexError::Corrupt { what, offset, file_len: self.header.file_len }
    }

    /// The position of a user's block, from the table and a bucket.
    fn place_of(&self, user: &str) -> Result<Option<BlockSpan>, IndexError> {
        let hash = checksum(user.as_bytes());
        let bucket = self.bucket(bucket_number(&hash, self.header.table_bits))?;
        let mut found = bucket_entries(&bucket).filter(|entry| entry[..16] == hash);
        let Some(entry) = found.next() else {
            return Ok(None);
        };
        let [offset, len] = [16, 24].map(|at| u64_at(entry, at).expect("an entry is 32 octets"));
        let end = offset.checked_add(len);
        if offset < HEADER_OCTETS as u64
            || end.is_none_or(|end| end > self.header.buckets_offset)
            || len > self.header.largest_block.into()
        {
            return Err(self.corrupt("a bucket names a block where none can be", offset));
        }
        Ok(Some(BlockSpan { offset, len }))
    }

    /// The table's offset of a bucket, checked to be where a bucket can be.
    fn bucket_offset(&self, number: u32) -> Result<u64, IndexError> {
        let at = self.header.table_offset + 8 * u64::from(number);
        let octets = self.source.read_at(at, 8)?;
        let offset = u64_at(&octets, 0).ok_or_else(|| self.corrupt("table entry", at))?;
        let buckets = self.header.buckets_offset..self.header.table_offset;
        if !buckets.contains(&offset) {
            return Err(self.corrupt("a table entry points outside the buckets", at));
        }
        Ok(offset)
    }

    /// All octets of a bucket: it is the right one and its checksum agrees.
    fn bucket(&self, number: u32) -> Result<Vec<u8>, IndexError> {
        let offset = self.bucket_offset(number)?;
        let most = self.header.table_offset - offset;
        let start = self.source.read_at(offset, most.min(BUCKET_GUESS_OCTETS) as usize)?;
        let count = u32_at(&start, BUCKET_COUNT_AT).unwrap_or(u32::MAX);
        let len = bucket_octets(count);
        if count > self.header.largest_bucket || len > most {
            return Err(self.corrupt("number of maildrops in a bucket", offset));
        }
        let octets = match start.get(..len as usize) {
            Some(all) => all.to_vec(),
            None => self.source.read_at(offset, len as usize)?,
        };
        let (content, stored) = octets.split_at(octets.len() - CHECKSUM_OCTETS);
        if checksum(content) != stored {
            return Err(self.corrupt("checksum of a bucket", offset));
        }
        if u32_at(&octets, BUCKET_PREFIX_AT) != Some(number) {
            return Err(self.corrupt("the table leads to another bucket", offset));
        }
        Ok(octets)
    }

    fn block(&self, place: BlockSpan) -> Result<Maildrop, IndexError> {
        let octets = self.source.read_at(place.offset, place.len as usize)?;
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

/// The octets that a bucket of `count` maildrops takes.
fn bucket_octets(count: u32) -> u64 {
    (BUCKET_HEAD_OCTETS + CHECKSUM_OCTETS) as u64 + BUCKET_ENTRY_OCTETS as u64 * u64::from(count)
}

fn bucket_entries(bucket: &[u8]) -> std::slice::ChunksExact<'_, u8> {
    bucket[BUCKET_HEAD_OCTETS..bucket.len() - CHECKSUM_OCTETS].chunks_exact(BUCKET_ENTRY_OCTETS)
}

/// The maildrops of an index, in the order of user names. It ends at the first error.
#[derive(Debug)]
pub struct Maildrops<'a, S> {
    index: &'a Index<S>,
    offset: u64,
    count: u64,
    entries: u64,
    last_user: Option<String>,
    failed: bool,
}

impl<S: ReadAt> Maildrops<'_, S> {
    fn read_next(&mut self) -> Result<Option<Maildrop>, IndexError> {
        let Index { source, header } = self.index;
        if self.offset == header.buckets_offset {
            return if (self.count, self.entries) == (header.maildrops, header.entries) {
                Ok(None)
            } else {
                Err(self.index.corrupt("number of maildrops or entries", self.offset))
            };
        }
        let bad_len = || self.index.corrupt("length of a block", self.offset);
        let left = header.buckets_offset - self.offset;
        let len = u32_at(&source.read_at(self.offset, 4)?, 0).ok_or_else(bad_len)?;
        let place = BlockSpan { offset: self.offset, len: len.into() };
        if place.len > left || len > header.largest_block {
            return Err(bad_len());
        }
        let maildrop = self.index.block(place)?;
        if self.last_user.as_ref().is_some_and(|last| *last >= maildrop.user) {
            return Err(self.index.corrupt("a user out of order", self.offset));
        }
        self.offset += place.len;
        self.count += 1;
        self.entries += maildrop.entries.len() as u64;
        self.last_user = Some(maildrop.user.clone());
        Ok(Some(maildrop))
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

/// The maildrop in a block, or its fault. The checksum comes first: nothing is believed before it.
fn maildrop_of(block: &[u8]) -> Result<Maildrop, &'static str> {
    let short = "a block ends early";
    let content_len = block.len().checked_sub(CHECKSUM_OCTETS).ok_or(short)?;
    let (content, stored) = block.split_at(content_len);
    if checksum(content) != stored {
        return Err("checksum of a block");
    }
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

    let uidvalidity = optional(flags & BLOCK_HAS_UIDVALIDITY != 0, uidvalidity, uidvalidity == 0)
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
    // The count has at most 16 bits.
    let last = capture_count.saturating_sub(1) as u32;
    if entry_count > cursor.0.len() / ENTRY_LEAST_OCTETS {
        return Err("number of entries");
    }
    let mut entries = Vec::with_capacity(entry_count);
    for _ in 0..entry_count {
        entries.push(entry(&mut cursor, last)?);
    }
    if spent_count > cursor.0.len() / SPENT_LEAST_OCTETS {
        return Err("number of spent unique-ids");
    }
    let mut spent = Vec::with_capacity(spent_count);
    for _ in 0..spent_count {
        spent.push(uidl(&mut cursor)?);
    }
    if !cursor.0.is_empty() {
        return Err("octets after the end of a block");
    }
    (maildrop.entries, maildrop.spent) = (entries, spent);
    Ok(maildrop)
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
fn entry(cursor: &mut Cursor<'_>, last: u32) -> Result<Entry, &'static str> {
    let short = "an entry ends early, or has a number in no proper form";
    let flags = cursor.u8().ok_or(short)?;
    let uidl = uidl(cursor)?;
    let mut file_key = |flag| -> Result<_, &'static str> {
        if flags & flag == 0 {
            return Ok(None);
        }
        let (cut, whole) = (cursor.array().ok_or(short)?, cursor.array().ok_or(short)?);
        Ok(Some(Name::Key(FileKey { cut, whole })))
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
    let mut entry = Entry { uid, octets, file, guid, header, message, origin, ..Entry::new(uidl) };
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
fn uidl(cursor: &mut Cursor<'_>) -> Result<Uidl, &'static str> {
    let len = cursor.varint().and_then(|len| usize::try_from(len).ok());
    let octets = len.and_then(|len| cursor.take(len)).ok_or("a unique-id ends early")?;
    Uidl::new(octets).map_err(|_| "a unique-id that POP3 cannot carry")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::index::Writer;

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
