//! What clients were told of one message: [`Record`].
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use crate::uidl::Uidl;

/// The octets of a record's name.
pub(super) const NAME_OCTETS: usize = 8;

pub(super) const NO_NAME: NameHash = [0; NAME_OCTETS];

/// A message's name as records have it: the first 8 octets of
/// [`FileKey::cut`](crate::key::FileKey::cut).
///
/// Only names of one maildrop's messages are compared: 2^64 is far more than the square of the
/// messages that any maildrop has.
pub type NameHash = [u8; NAME_OCTETS];

/// The names of a message: its base file name or GUID, and its GUID where that is another. A
/// message with one name has an empty second place.
pub type NameHashes = ArrayVec<NameHash, 2>;

/// How a message came by its UIDL. The number of each is the letter that a ledger has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Provenance {
    /// The `file` key named the captured message.
    File = b'f',
    /// The `message` key did.
    Message = b'm',
    /// The `header` key did.
    Header = b'h',
    /// The `origin` key did.
    Origin = b'o',
    /// Dovecot's storage had it already: `P` of `dovecot-uidlist` or of dbox metadata.
    Stored = b'p',
    /// The index does not know the message: it has what `pop3_uidl_format` gives.
    Native = b'u',
    /// The index does not know the message, and it has a UIDL of ours: what `pop3_uidl_format`
    /// gives is spent, or the message has got another UID since.
    Derived = b'd',
}

impl Provenance {
    const ALL: [Self; 7] = [
        Self::File,
        Self::Message,
        Self::Header,
        Self::Origin,
        Self::Stored,
        Self::Native,
        Self::Derived,
    ];

    /// Says whether the UIDL was made elsewhere, as far as keys or Dovecot's storage could tell.
    /// Records of other UIDLs are dropped once the message is gone: their numbers stay spent.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::Native | Self::Derived)
    }

    pub(super) fn letter(self) -> u8 {
        self as u8
    }

    pub(super) fn of_letter(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|provenance| provenance.letter() == letter)
    }
}

/// What clients were told of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its UID under the ledger's UIDVALIDITY; 0 when it was not there at the last listing that was
    /// recorded: the record is then only a claim.
    pub uid: u32,
    /// Its place among all that was ever listed. No place is given twice.
    pub order: u32,
    /// The UIDL.
    pub uidl: Uidl,
    /// How it came by its UIDL.
    pub provenance: Provenance,
    /// The names that the message had when it was listed. Any of them recognises it when UIDs do
    /// not hold.
    pub names: NameHashes,
    /// The index entry that it claims, as its place in
    /// [`Maildrop::entries`](crate::maildrop::Maildrop).
    pub entry: Option<u32>,
}

impl<'a> From<&'a Record> for RecordRef<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { uid, order, provenance, entry, .. } = *record;
        let names = record.names.clone();
        Self { uid, order, uidl: record.uidl.as_bytes(), provenance, names, entry }
    }
}

/// A record that lies elsewhere. Each field is as that of [`Record`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct RecordRef<'a> {
    pub uid: u32,
    pub order: u32,
    pub uidl: &'a [u8],
    pub provenance: Provenance,
    pub names: NameHashes,
    pub entry: Option<u32>,
}
