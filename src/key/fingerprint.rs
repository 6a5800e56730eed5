//! A digest of what a message keeps when it moves: [`Fingerprint`].
#![forbid(unsafe_code)]

use std::fmt;

use crate::encoding::{Hex, octets_of_hex};

/// A BLAKE3 digest of what a message keeps when it moves, cut to 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; Fingerprint::OCTETS]);

impl Fingerprint {
    /// Its size, in octets.
    pub const OCTETS: usize = 16;

    /// The fingerprint printed as `hex`, in 32 digits of either case. `None` when it is not one.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        octets_of_hex(hex).map(Self)
    }
}

/// In 32 digits, lower case.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}
