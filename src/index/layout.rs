//! The positions in an index: the numbers of FORMAT.md, once for reader and writer.

/// A text-mode transfer always breaks it, as it does PNG's: a high bit, CR LF, Ctrl-Z and a lone
/// LF.
pub(super) const MAGIC: [u8; 8] = *b"\x89UKI\r\n\x1a\n";
/// The version that this code writes, and the newest that it reads.
pub const VERSION: u32 = 1;

// The header: each offset is the one before plus that field's size.
pub(super) const MAGIC_AT: usize = 0;
pub(super) const VERSION_AT: usize = MAGIC_AT + 8;
pub(super) const FLAGS_AT: usize = VERSION_AT + 4;
pub(super) const FILE_LEN_AT: usize = FLAGS_AT + 4;
pub(super) const MAILDROPS_AT: usize = FILE_LEN_AT + 8;
pub(super) const ENTRIES_AT: usize = MAILDROPS_AT + 8;
pub(super) const BUCKETS_OFFSET_AT: usize = ENTRIES_AT + 8;
pub(super) const TABLE_OFFSET_AT: usize = BUCKETS_OFFSET_AT + 8;
pub(super) const LARGEST_BLOCK_AT: usize = TABLE_OFFSET_AT + 8;
pub(super) const LARGEST_BUCKET_AT: usize = LARGEST_BLOCK_AT + 4;
pub(super) const TABLE_BITS_AT: usize = LARGEST_BUCKET_AT + 4;
pub(super) const NORMALISER_AT: usize = TABLE_BITS_AT + 4;
pub(super) const BUILD_ID_AT: usize = NORMALISER_AT + 4;
pub(super) const HEADER_CHECKSUM_AT: usize = BUILD_ID_AT + 16;
pub(super) const HEADER_OCTETS: usize = HEADER_CHECKSUM_AT + CHECKSUM_OCTETS;

/// Header flag: no more captures will follow.
pub(super) const FLAG_FINAL: u32 = 1;

/// More bits would make a table of more than 16 GiB.
pub(super) const MAX_TABLE_BITS: u32 = 31;
/// With this, a bucket holds at most four maildrops on average.
pub(super) const MAILDROPS_PER_BUCKET: u64 = 4;

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

// A bucket.
pub(super) const BUCKET_PREFIX_AT: usize = 0;
pub(super) const BUCKET_COUNT_AT: usize = 4;
pub(super) const BUCKET_HEAD_OCTETS: usize = 8;
pub(super) const BUCKET_ENTRY_OCTETS: usize = 32;

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

/// The number of the bucket for a user whose name has this hash: its first `bits` bits.
pub(super) fn bucket_number(hash: &[u8; CHECKSUM_OCTETS], bits: u32) -> u32 {
    let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    first.checked_shr(u32::BITS - bits).unwrap_or(0)
}
