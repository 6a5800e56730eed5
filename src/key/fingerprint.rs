//! A digest of the parts of a message that stay when it moves: [`Fingerprint`].
#![forbid(unsafe_code)]

use std::fmt;

use crate::encoding::{Hex, octets_of_hex};

/// A BLAKE3 digest of the parts of a message that stay when it moves, cut to 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; Fingerprint::OCTETS]);

impl Fingerprint {
    /// Its size, in octets.
    pub const OCTETS: usize = 16;

    /// The fingerprint printed as `hex`, in 32 digits of either case. `None` when this is not one.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        octets_of_hex(hex).map(Self)
    }
}

/// Prints 32 digits in lower case.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}
