//! Makes a file name or GUID into a key: [`FileKey`].
#![forbid(unsafe_code)]

use std::fmt;

use crate::encoding::{Hex, octets_of_hex};

/// A Maildir base file name, or a Dovecot GUID, as a key.
///
/// Names are compared whole, and also cut at the first `,`, because MTAs, Dovecot and conversions
/// add and drop `,S=` and `,W=`. Two keys with the same `cut` name the same message, unless several
/// messages have it; then `whole` tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// BLAKE3 of the name up to the first `,`, cut to 128 bits.
    pub cut: [u8; 16],
    /// BLAKE3 of the whole name, cut to 32 bits. It only separates names with an equal `cut`.
    pub whole: [u8; 4],
}

/// The MD5 of nothing. Dovecot gives this GUID to every message of an mbox that has none of the
/// fields `Date`, `Delivered-To`, `Message-ID`, `Received` and `X-Delivery-ID`
/// (`mbox-md5-apop3d.c`). dsync carries it on. It names no message.
const GUID_OF_NOTHING: &[u8] = b"d41d8cd98f00b204e9800998ecf8427e";

/// Whether a GUID names a message.
pub fn is_guid_a_name(guid: &[u8]) -> bool {
    !guid.is_empty() && guid != GUID_OF_NOTHING
}

impl FileKey {
    /// Its size, in octets.
    pub const OCTETS: usize = 20;

    /// The key of a base file name or of a GUID. Anything from the first `:` on is not part of a
    /// base file name and is left out.
    pub fn of_name(name: &[u8]) -> Self {
        let cut = &name[..memchr::memchr2(b':', b',', name).unwrap_or(name.len())];
        let more = until(&name[cut.len()..], b':');
        let (of_cut, of_whole) = if more.is_empty() {
            // Most names have no comma.
            let hash = blake3::hash(cut);
            (hash, hash)
        } else {
            // What both begin with is hashed once.
            let mut hasher = blake3::Hasher::new();
            let of_cut = hasher.update(cut).finalize();
            (of_cut, hasher.update(more).finalize())
        };
        let mut key = Self { cut: [0; 16], whole: [0; 4] };
        key.cut.copy_from_slice(&of_cut.as_bytes()[..16]);
        key.whole.copy_from_slice(&of_whole.as_bytes()[..4]);
        key
    }

    /// The `cut` of [`FileKey::of_name`], of a name with a comma at half the price.
    pub fn cut_of(name: &[u8]) -> [u8; 16] {
        let hash = blake3::hash(Self::until_cut(name));
        hash.as_bytes()[..16].try_into().expect("a digest is longer")
    }

    /// The part of a name that [`FileKey::cut`] is made of.
    pub fn until_cut(name: &[u8]) -> &[u8] {
        memchr::memchr2(b':', b',', name).map_or(name, |at| &name[..at])
    }

    /// The key printed as `hex`, in 40 digits of either case. `None` when this is not a key.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let octets: [u8; Self::OCTETS] = octets_of_hex(hex)?;
        let mut key = Self { cut: [0; 16], whole: [0; 4] };
        key.cut.copy_from_slice(&octets[..16]);
        key.whole.copy_from_slice(&octets[16..]);
        Some(key)
    }
}

/// Prints 40 digits in lower case: `cut`, then `whole`.
impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Hex(&self.cut), Hex(&self.whole))
    }
}

/// The part of `name` before the first `end`, or all of it.
fn until(name: &[u8], end: u8) -> &[u8] {
    memchr::memchr(end, name).map_or(name, |at| &name[..at])
}
