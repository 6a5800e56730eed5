//! Keys: what still names a message after the move.
//!
//! | key | is | survives |
//! |---|---|---|
//! | [`FileKey`] | the Maildir base file name, or Dovecot's GUID, which is the same key space | rsync, cpmove, dsync |
//! | `message` [`Fingerprint`] | the normalised header and body | IMAP copy, format conversion |
//! | `header` [`Fingerprint`] | the normalised header; evidence by itself only where it [names its message](Fingerprints::names_itself) | IMAP copy; what TOP can get |
//! | `origin` [`Fingerprint`] | the header without what relays add | redelivery |
#![forbid(unsafe_code)]

mod normalise;

use std::fmt;

pub use normalise::{Depth, Fingerprinter, Fingerprints, Kind, NORMALISER_VERSION, Wants};

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
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// A Maildir base file name, or a Dovecot GUID, as a key.
///
/// Names are compared whole and also cut at the first `,`: MTAs, Dovecot and conversions add and
/// drop `,S=` and `,W=`. Two keys with the same `cut` name the same message unless several do, and
/// then `whole` tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// BLAKE3 of the name up to the first `,`, cut to 128 bits.
    pub cut: [u8; 16],
    /// BLAKE3 of the whole name, cut to 32 bits: it only separates names with an equal `cut`.
    pub whole: [u8; 4],
}

/// The GUID that Dovecot gives to every message of an mbox that has none of the fields `Date`,
/// `Delivered-To`, `Message-ID`, `Received` and `X-Delivery-ID` (`mbox-md5-apop3d.c`): the MD5 of nothing.
/// dsync carries it on. It names no message.
const GUID_OF_NOTHING: &[u8] = b"d41d8cd98f00b204e9800998ecf8427e";

/// Whether a GUID names a message.
pub fn is_guid_a_name(guid: &[u8]) -> bool {
    !guid.is_empty() && guid != GUID_OF_NOTHING
}

impl FileKey {
    /// Its size, in octets.
    pub const OCTETS: usize = 20;

    /// The key of a base file name (anything from the first `:` on is not part of it and is left
    /// out) or of a GUID.
    pub fn of_name(name: &[u8]) -> Self {
        let mut key = Self { cut: Self::cut_of(name), whole: [0; 4] };
        key.whole.copy_from_slice(&blake3::hash(until(name, b':')).as_bytes()[..4]);
        key
    }

    /// The `cut` of [`FileKey::of_name`], at half the price.
    pub fn cut_of(name: &[u8]) -> [u8; 16] {
        let hash = blake3::hash(until(until(name, b':'), b','));
        hash.as_bytes()[..16].try_into().expect("a digest is longer")
    }

    /// The key printed as `hex`, in 40 digits of either case. `None` when it is not one.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let octets: [u8; Self::OCTETS] = octets_of_hex(hex)?;
        let mut key = Self { cut: [0; 16], whole: [0; 4] };
        key.cut.copy_from_slice(&octets[..16]);
        key.whole.copy_from_slice(&octets[16..]);
        Some(key)
    }
}

/// In 40 digits, lower case: `cut`, then `whole`.
impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cut.iter().chain(&self.whole).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The `N` octets that `hex` spells, or `None`.
fn octets_of_hex<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    if hex.len() != 2 * N {
        return None;
    }
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let mut octets = [0; N];
    for (octet, pair) in octets.iter_mut().zip(hex.chunks_exact(2)) {
        *octet = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(octets)
}

/// `name` up to the first `end`, or all of it.
fn until(name: &[u8], end: u8) -> &[u8] {
    name.iter().position(|&octet| octet == end).map_or(name, |at| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_keeps_its_key_when_flags_and_sizes_change() {
        let bare = FileKey::of_name(b"1714990000.20000.old");
        let sized = FileKey::of_name(b"1714990000.20000.old,S=407,W=420");
        assert_eq!(FileKey::of_name(b"1714990000.20000.old:2,RS"), bare);
        assert_eq!(FileKey::of_name(b"1714990000.20000.old,S=407,W=420:2,"), sized);
        assert_eq!(bare.cut, sized.cut);
        assert_ne!(bare.whole, sized.whole);
        assert_ne!(FileKey::of_name(b"1714990000.20001.old").cut, bare.cut);
    }

    #[test]
    fn the_guid_of_an_mbox_that_is_made_of_nothing_is_no_name() {
        use md5::Digest;
        let digest = md5::Md5::digest(b"");
        let hex: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        assert!(!is_guid_a_name(hex.as_bytes()));
        assert!(!is_guid_a_name(b""));
        assert!(is_guid_a_name(b"1714990000.20000.old"));
    }

    #[test]
    fn keys_are_read_as_they_are_printed() {
        let fingerprint = Fingerprint(*b"\x00\x01\x7f\x80\xff\xabcdefghijkl");
        assert_eq!(fingerprint.to_string(), "00017f80ffab636465666768696a6b6c");
        let key = FileKey::of_name(b"a");
        assert_eq!(FileKey::from_hex(key.to_string().as_bytes()), Some(key));
        let hex = fingerprint.to_string();
        assert_eq!(Fingerprint::from_hex(hex.as_bytes()), Some(fingerprint));
        assert_eq!(Fingerprint::from_hex(hex.to_uppercase().as_bytes()), Some(fingerprint));
        for bad in
            [&hex[1..], "", &format!("{hex}0"), &hex.replace('0', "g"), &hex.replace('0', "+")]
        {
            assert_eq!(Fingerprint::from_hex(bad.as_bytes()), None, "{bad}");
            assert_eq!(FileKey::from_hex(bad.as_bytes()), None, "{bad}");
        }
    }
}
