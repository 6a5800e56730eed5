//! The checksum of a ledger's parts: [`Checksum`].
#![forbid(unsafe_code)]

use twox_hash::XxHash3_128;

/// The octets of a checksum.
pub(super) const CHECKSUM_OCTETS: usize = 16;

/// XXH3 of 128 bits, written as its authors do: the highest octet first.
///
/// It finds damage, and is no proof against who can write the file: the account's owner could
/// compute any other, too. The same goes for the names that are compared by it
/// ([`ListedNames`](super::ListedNames)): he writes that too, and no sender names a file. It takes
/// a quarter of what BLAKE3 does, and every login computes it over all that it reads.
#[derive(Clone)]
pub(super) struct Checksum(XxHash3_128);

impl Checksum {
    /// The checksum of nothing yet.
    pub(super) fn new() -> Self {
        Self(XxHash3_128::new())
    }

    /// The checksum of one run of octets.
    pub(super) fn of(octets: &[u8]) -> [u8; CHECKSUM_OCTETS] {
        XxHash3_128::oneshot(octets).to_be_bytes()
    }

    /// The same of two runs, one behind the other.
    pub(super) fn of_two(first: &[u8], second: &[u8]) -> [u8; CHECKSUM_OCTETS] {
        let mut checksum = Self::new();
        checksum.add(first);
        checksum.add(second);
        checksum.octets()
    }

    /// Adds octets behind those before.
    pub(super) fn add(&mut self, octets: &[u8]) {
        self.0.write(octets);
    }

    /// The checksum of all that was added.
    pub(super) fn octets(&self) -> [u8; CHECKSUM_OCTETS] {
        self.0.finish_128().to_be_bytes()
    }
}
