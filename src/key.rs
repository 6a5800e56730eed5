//! Keys: what still names a message after the move.
//!
//! | key | is | survives |
//! |---|---|---|
//! | [`FileKey`] | the Maildir base file name, or Dovecot's GUID, which is the same key space | rsync, cpmove, dsync |
//! | `message` [`Fingerprint`] | the normalised header and body | IMAP copy, format conversion |
//! | `header` [`Fingerprint`] | the normalised header | IMAP copy; what TOP can get |
//! | `origin` [`Fingerprint`] | the header without what relays add | redelivery |
#![forbid(unsafe_code)]

/// A BLAKE3 digest of what a message keeps when it moves, cut to 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; Fingerprint::OCTETS]);

impl Fingerprint {
    /// Its size, in octets.
    pub const OCTETS: usize = 16;
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

impl FileKey {
    /// Its size, in octets.
    pub const OCTETS: usize = 20;

    /// The key of a base file name (anything from the first `:` on is not part of it and is left
    /// out) or of a GUID.
    pub fn of_name(name: &[u8]) -> Self {
        let base = until(name, b':');
        let (cut, whole) = (blake3::hash(until(base, b',')), blake3::hash(base));
        let mut key = Self { cut: [0; 16], whole: [0; 4] };
        key.cut.copy_from_slice(&cut.as_bytes()[..16]);
        key.whole.copy_from_slice(&whole.as_bytes()[..4]);
        key
    }
}

/// `name` up to the first `end`, or all of it.
fn until(name: &[u8], end: u8) -> &[u8] {
    name.iter().position(|&octet| octet == end).map_or(name, |at| &name[..at])
}
