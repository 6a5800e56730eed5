//! The bytes a POP3 client saw: [`Uidl`].
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

/// A POP3 unique-id: the bytes the old server sent, untouched (rule 9 of `docs/design.md`).
///
/// RFC 1939 section 7 allows 1 to 70 octets from 0x21 to 0x7E. We enforce the range, because a CR
/// LF in a UIDL would be a protocol injection. We do not enforce the 70: qmail-pop3d sends base
/// file names of any length, and clients have stored them. [`Uidl::MAX_OCTETS`] is the limit.
///
/// A clone shares the octets: entries, answers and records of large maildrops have them once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uidl(Arc<[u8]>);

impl Uidl {
    /// The longest UIDL accepted, in octets. The longest seen are Courier's escaped file names.
    /// They reach three octets for each of the 255 that a file name can have.
    pub const MAX_OCTETS: usize = 1024;

    /// The longest UIDL that RFC 1939 section 7 allows, in octets.
    pub const RFC_OCTETS: usize = 70;

    /// Takes `octets` as a UIDL.
    ///
    /// # Errors
    ///
    /// [`BadUidl`] when there are no octets, when there are more than [`Uidl::MAX_OCTETS`], or when
    /// one is outside 0x21-0x7E.
    pub fn new(octets: impl Into<Arc<[u8]>>) -> Result<Self, BadUidl> {
        let octets = octets.into();
        Self::check(&octets)?;
        Ok(Self(octets))
    }

    /// The check that [`Uidl::new`] makes, for octets that need not be owned.
    ///
    /// # Errors
    ///
    /// As [`Uidl::new`].
    pub fn check(octets: &[u8]) -> Result<(), BadUidl> {
        if octets.is_empty() {
            return Err(BadUidl::Empty);
        }
        if octets.len() > Self::MAX_OCTETS {
            return Err(BadUidl::TooLong { len_octets: octets.len() });
        }
        // All of them first, eight or more in a step.
        if octets.iter().fold(true, |all, octet| all & matches!(octet, 0x21..=0x7E)) {
            return Ok(());
        }
        match octets.iter().position(|octet| !matches!(octet, 0x21..=0x7E)) {
            Some(at) => Err(BadUidl::Octet { at, octet: octets[at] }),
            None => Ok(()),
        }
    }

    /// The octets, as the client saw them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is longer than RFC 1939 allows. It is kept all the same, with a warning.
    pub fn is_longer_than_rfc(&self) -> bool {
        self.0.len() > Self::RFC_OCTETS
    }
}

/// A [`Uidl`] whose octets are elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UidlRef<'a>(&'a [u8]);

impl<'a> UidlRef<'a> {
    /// Takes `octets` as a UIDL.
    ///
    /// # Errors
    ///
    /// As [`Uidl::new`].
    pub fn new(octets: &'a [u8]) -> Result<Self, BadUidl> {
        Uidl::check(octets).map(|()| Self(octets))
    }

    /// Takes octets that were checked before.
    pub(crate) fn of_checked(octets: &'a [u8]) -> Self {
        debug_assert_eq!(Uidl::check(octets), Ok(()));
        Self(octets)
    }

    /// The octets, as the client saw them.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The same, with octets of its own.
    pub fn to_uidl(self) -> Uidl {
        Uidl(self.0.into())
    }
}

impl<'a> From<&'a Uidl> for UidlRef<'a> {
    fn from(uidl: &'a Uidl) -> Self {
        Self(&uidl.0)
    }
}

impl fmt::Display for Uidl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every octet is printable ASCII: checked in `new`.
        self.0.iter().try_for_each(|&octet| fmt::Write::write_char(f, char::from(octet)))
    }
}

impl fmt::Debug for Uidl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uidl({self})")
    }
}

/// The reason why some octets are not a UIDL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadUidl {
    /// No octets at all.
    #[error("empty unique-id")]
    Empty,
    /// An octet that POP3 cannot carry in a unique-id.
    #[error("unique-id has octet 0x{octet:02x} at {at}, outside 0x21-0x7e")]
    Octet {
        /// The position, from 0.
        at: usize,
        /// The octet.
        octet: u8,
    },
    /// More than [`Uidl::MAX_OCTETS`].
    #[error("unique-id of {len_octets} octets, more than {}", Uidl::MAX_OCTETS)]
    TooLong {
        /// Its length.
        len_octets: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_octet_that_pop3_can_carry_and_no_other() {
        for octet in 0..=u8::MAX {
            let taken = Uidl::new([b'a', octet]);
            assert_eq!(taken.is_ok(), (0x21..=0x7E).contains(&octet), "octet 0x{octet:02x}");
            if let Err(refused) = taken {
                assert_eq!(refused, BadUidl::Octet { at: 1, octet });
            }
        }
    }

    #[test]
    fn refuses_nothing_for_being_longer_than_the_rfc_until_the_bound() {
        assert_eq!(Uidl::new([]), Err(BadUidl::Empty));
        assert!(!Uidl::new([b'x'; 70]).unwrap().is_longer_than_rfc());
        assert!(Uidl::new([b'x'; 71]).unwrap().is_longer_than_rfc());
        assert!(Uidl::new([b'x'; Uidl::MAX_OCTETS]).is_ok());
        assert_eq!(Uidl::new([b'x'; 1025]), Err(BadUidl::TooLong { len_octets: 1025 }));
    }

    #[test]
    fn prints_as_the_client_saw_it() {
        let uidl = Uidl::new(*b"UID7-<\"'>").unwrap();
        assert_eq!(uidl.to_string(), "UID7-<\"'>");
        assert_eq!(format!("{uidl:?}"), "Uidl(UID7-<\"'>)");
    }
}
