//! Keys: each still names a message after the move.
//!
//! | key | is | survives |
//! |---|---|---|
//! | [`FileKey`] | the Maildir base file name, or Dovecot's GUID | rsync, cpmove, dsync |
//! | `message` [`Fingerprint`] | the normalised header and body | IMAP copy, format conversion |
//! | `header` [`Fingerprint`] | the normalised header | IMAP copy; TOP can get it |
//! | `origin` [`Fingerprint`] | the header without the fields that relays add | redelivery |
//!
//! Base file name and GUID share one key space. `header` is evidence by itself only when it [names
//! its message](Fingerprints::names_itself).
#![forbid(unsafe_code)]

mod file_key;
mod fingerprint;
mod normalise;

pub use file_key::{FileKey, is_guid_a_name};
pub use fingerprint::Fingerprint;
pub use normalise::{Depth, FieldKind, Fingerprinter, Fingerprints, NORMALISER_VERSION, Wants};

/// Which keys may match: `match` in the settings of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Base file names and GUIDs.
    pub file: bool,
    /// Normalised header and body.
    pub message: bool,
    /// Normalised header.
    pub header: bool,
    /// The header without what relays add: for mail that was redelivered.
    pub origin: bool,
}

impl Match {
    /// No key.
    pub const NONE: Self = Self { file: false, message: false, header: false, origin: false };
}

impl Default for Match {
    fn default() -> Self {
        Self { file: true, message: true, header: true, origin: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Hex;

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
    fn a_file_key_is_two_hashes_or_one_that_stands_for_both() {
        for (name, cut, whole) in [
            ("1714990000.M1P2.host", "1714990000.M1P2.host", "1714990000.M1P2.host"),
            ("a,S=4:2,S", "a", "a,S=4"),
            ("a:2,S", "a", "a"),
            ("a,", "a", "a,"),
            (",a", "", ",a"),
            (":a", "", ""),
            ("", "", ""),
        ] {
            let of = |name: &str| *blake3::hash(name.as_bytes()).as_bytes();
            let key = FileKey::of_name(name.as_bytes());
            assert_eq!(key.cut, of(cut)[..16], "{name}");
            assert_eq!(key.whole, of(whole)[..4], "{name}");
            assert_eq!(FileKey::cut_of(name.as_bytes()), key.cut);
        }
    }

    #[test]
    fn a_file_key_is_the_same_two_hashes_however_long_the_name_is() {
        let of = |name: &[u8]| *blake3::hash(name).as_bytes();
        for len in [1, 63, 64, 65, 70, 128, 1023, 1024, 1025, 3000] {
            let name: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
            for more in [&b""[..], b",", b",S=149", &b",".repeat(64), &b",x".repeat(1000)] {
                let base = [&name[..], more].concat();
                let key = FileKey::of_name(&[&base[..], b":2,S"].concat());
                assert_eq!(key.cut[..], of(&name)[..16], "{len} {}", more.len());
                assert_eq!(key.whole[..], of(&base)[..4], "{len} {}", more.len());
            }
        }
    }

    #[test]
    fn the_guid_of_an_mbox_that_is_made_of_nothing_is_no_name() {
        use md5::Digest;
        let digest = md5::Md5::digest(b"");
        let hex = Hex(&digest).to_string();
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
