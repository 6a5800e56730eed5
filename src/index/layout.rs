//! The positions in an index: the numbers of FORMAT.md, once for reader and writer.

/// A text-mode transfer always breaks it, as it does PNG's: a high bit, CR LF, Ctrl-Z and a lone
/// LF.
pub(super) const MAGIC: [u8; 8] = *b"\x89UKI\r\n\x1a\n";
/// The version that this code writes, and the newest that it reads.
pub const VERSION: u32 = 2;

// The header: each offset is the one before plus that field's size.
pub(super) const MAGIC_AT: usize = 0;
pub(super) const VERSION_AT: usize = MAGIC_AT + 8;
pub(super) const FLAGS_AT: usize = VERSION_AT + 4;
pub(super) const FILE_LEN_AT: usize = FLAGS_AT + 4;
pub(super) const MAILDROPS_AT: usize = FILE_LEN_AT + 8;
pub(super) const ENTRIES_AT: usize = MAILDROPS_AT + 8;
pub(super) const ROOT_OFFSET_AT: usize = ENTRIES_AT + 8;
pub(super) const ROOT_CHECKSUM_AT: usize = ROOT_OFFSET_AT + 8;
pub(super) const ROOT_LEVEL_AT: usize = ROOT_CHECKSUM_AT + CHECKSUM_OCTETS;
pub(super) const NORMALISER_AT: usize = ROOT_LEVEL_AT + 4;
pub(super) const BUILD_ID_AT: usize = NORMALISER_AT + 4;
pub(super) const HEADER_CHECKSUM_AT: usize = BUILD_ID_AT + 16;
pub(super) const HEADER_OCTETS: usize = HEADER_CHECKSUM_AT + CHECKSUM_OCTETS;

/// Header flag: no more captures will follow.
pub(super) const FLAG_FINAL: u32 = 1;

/// No user begins a node of a higher level: a hash has no more digits.
pub(super) const MAX_LEVEL: u32 = 2 * CHECKSUM_OCTETS as u32;

// A block.
pub(super) const BLOCK_LEN_AT: usize = 0;
pub(super) const BLOCK_ENTRIES_AT: usize = 4;
pub(super) const BLOCK_SPENT_AT: usize = 8;
pub(super) const BLOCK_STATE_AT: usize = 12;
pub(super) const BLOCK_FLAGS_AT: usize = 13;
pub(super) const BLOCK_USER_LEN_AT: usize = 14;
pub(super) const BLOCK_UIDVALIDITY_AT: usize = 16;
pub(super) const BLOCK_NEXT_AT: usize = 20;
pub(super) const BLOCK_FORMAT_LEN_AT: usize = 24;
pub(super) const BLOCK_SOURCE_LEN_AT: usize = 26;
pub(super) const BLOCK_CAPTURES_AT: usize = 28;
pub(super) const BLOCK_HEAD_OCTETS: usize = 30;

pub(super) const STATE_CAPTURED: u8 = 0;
pub(super) const STATE_EMPTY: u8 = 1;
pub(super) const STATE_FAILED: u8 = 2;

pub(super) const BLOCK_HAS_UIDVALIDITY: u8 = 1;
pub(super) const BLOCK_HAS_COUNTER: u8 = 2;
pub(super) const BLOCK_ALL: u8 = 3;

// The flags of a capture say which fields follow, in this order.
pub(super) const CAPTURE_TAKEN: u8 = 1;
pub(super) const CAPTURE_UIDVALIDITY: u8 = 2;
pub(super) const CAPTURE_NEXT: u8 = 4;
pub(super) const CAPTURE_SOURCE: u8 = 8;
/// Set only in the last capture, where the first flag is the only other that may be set:
/// everything else is as in the block. So no source is spelled out twice, and none takes more room
/// in memory than in the file.
pub(super) const CAPTURE_AS_BLOCK: u8 = 16;
pub(super) const CAPTURE_ALL: u8 = 31;

/// The fewest octets a capture can take: its flags.
pub(super) const CAPTURE_LEAST_OCTETS: usize = 1;

// The flags of an entry say which fields follow, in this order.
pub(super) const ENTRY_FILE: u8 = 1;
pub(super) const ENTRY_GUID: u8 = 2;
pub(super) const ENTRY_HEADER: u8 = 4;
pub(super) const ENTRY_MESSAGE: u8 = 8;
pub(super) const ENTRY_ORIGIN: u8 = 16;
pub(super) const ENTRY_UID: u8 = 32;
pub(super) const ENTRY_OCTETS: u8 = 64;
pub(super) const ENTRY_HISTORY: u8 = 128;

/// The fewest octets an entry can take: its flags, the length of its UIDL, and one octet of the
/// UIDL.
pub(super) const ENTRY_LEAST_OCTETS: usize = 3;
/// The fewest octets a spent UIDL can take.
pub(super) const SPENT_LEAST_OCTETS: usize = 2;

// A node.
pub(super) const NODE_LEVEL_AT: usize = 0;
pub(super) const NODE_COUNT_AT: usize = 4;
pub(super) const NODE_HEAD_OCTETS: usize = 8;
/// The fewest octets that a node can take: it names nothing.
pub(super) const NODE_LEAST_OCTETS: u64 = (NODE_HEAD_OCTETS + CHECKSUM_OCTETS) as u64;

/// The size of every checksum, which is BLAKE3 cut to it.
pub(super) const CHECKSUM_OCTETS: usize = 16;

/// The checksum of `octets`.
pub(super) fn checksum(octets: &[u8]) -> [u8; CHECKSUM_OCTETS] {
    cut(&blake3::hash(octets))
}

/// The first octets of a BLAKE3 hash.
pub(super) fn cut(hash: &blake3::Hash) -> [u8; CHECKSUM_OCTETS] {
    let mut cut = [0; CHECKSUM_OCTETS];
    cut.copy_from_slice(&hash.as_bytes()[..CHECKSUM_OCTETS]);
    cut
}

/// The highest level at which a user begins a node: as many as his hash has zeros in front, in
/// hexadecimal.
pub(super) fn level_of(user: &[u8]) -> u32 {
    (u128::from_be_bytes(checksum(user)).leading_zeros() / 4).min(MAX_LEVEL)
}

/// The position of a record, a block or a node, and of what lies below it in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the first record below it begins, or it itself where nothing is below.
    pub start: u64,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// 0 for a block; for a node, one more than that of what it names.
    pub level: u32,
    /// The checksum in which it ends.
    pub checksum: [u8; CHECKSUM_OCTETS],
}

impl Place {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// A block, or a node with all that is below it: the maildrops of neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtree {
    /// The first of their users.
    pub(super) user: Box<[u8]>,
    pub(super) place: Place,
    /// The number of maildrops.
    pub(super) maildrops: u64,
    /// The number of entries that these have together.
    pub(super) entries: u64,
}
