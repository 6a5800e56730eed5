//! One message of the new maildrop, as far as is known: [`Message`].
#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};

use arrayvec::ArrayVec;

use super::question::Fact;
use crate::key::{FileKey, Fingerprint};
use crate::ledger::{Ledger, NameHash, NameHashes};
use crate::uidl::Uidl;

/// One message of the new maildrop, as far as is known.
///
/// Maildrops are large, and a login's memory is not. Most messages have one name and nothing else
/// that need be known: these take fifty octets. What few have takes room where it was found.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its UID.
    pub uid: u32,
    /// It could not be read, and cannot be downloaded either.
    pub unreadable: bool,
    names: NamesFact,
    uidlist_name: UidlistName,
    /// The first name; or before names were asked for, the one in `dovecot-uidlist`, as far as a
    /// record has it.
    first: FirstName,
    /// What was found out beyond its names.
    pub details: Details,
    more: Option<Box<More>>,
}

/// As [`FileKey`]. The default has no meaning.
#[derive(Debug, Clone, Copy, Default)]
struct FirstName {
    cut: [u8; 16],
    whole: [u8; 4],
}

/// Whether names were asked for, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum NamesFact {
    #[default]
    NotAsked,
    Absent,
    /// They were looked for, and there is none.
    NoName,
    One,
    Two,
}

/// Where the name in `dovecot-uidlist` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum UidlistName {
    #[default]
    Nowhere,
    /// The first octets of `first.cut`.
    First,
    More,
}

/// What few messages have.
#[derive(Debug, Clone, Default)]
struct More {
    second: Option<FileKey>,
    uidlist_name: Option<NameHash>,
    stored: Option<Uidl>,
    stored_order: Option<u32>,
}

impl Message {
    /// A message with its UID alone.
    pub fn new(uid: u32) -> Self {
        Self { uid, ..Self::default() }
    }

    /// Its base file name and its GUID, as far as the storage has them; asked for as
    /// [`Need::Names`](super::Need::Names).
    pub fn names(&self) -> Fact<ArrayVec<FileKey, 2>> {
        match self.names {
            NamesFact::NotAsked => Fact::NotAsked,
            NamesFact::Absent => Fact::Absent,
            NamesFact::NoName | NamesFact::One | NamesFact::Two => Fact::Is(self.all_names()),
        }
    }

    /// The same. There is none where none was asked for.
    pub(super) fn all_names(&self) -> ArrayVec<FileKey, 2> {
        let mut names = ArrayVec::new();
        if let NamesFact::One | NamesFact::Two = self.names {
            let FirstName { cut, whole } = self.first;
            names.push(FileKey { cut, whole });
        }
        if self.names == NamesFact::Two {
            names.extend(self.more.as_ref().and_then(|more| more.second));
        }
        names
    }

    /// Its names as records have them.
    #[inline]
    pub(super) fn name_hashes(&self) -> NameHashes {
        let mut names = NameHashes::new();
        if let NamesFact::One | NamesFact::Two = self.names {
            names.push(Ledger::name_of_cut(&self.first.cut));
        }
        if self.names == NamesFact::Two {
            let second = self.more.as_ref().and_then(|more| more.second);
            names.extend(second.map(Ledger::name_of));
        }
        names
    }

    /// Says whether names were asked for.
    pub(super) fn has_asked_names(&self) -> bool {
        self.names != NamesFact::NotAsked
    }

    /// Notes its names.
    pub fn set_names(&mut self, names: Fact<ArrayVec<FileKey, 2>>) {
        let in_list = self.uidlist_name();
        let (fact, names) = match names {
            Fact::NotAsked => (NamesFact::NotAsked, ArrayVec::new()),
            Fact::Absent => (NamesFact::Absent, ArrayVec::new()),
            Fact::Is(names) => match names.len() {
                0 => (NamesFact::NoName, names),
                1 => (NamesFact::One, names),
                _ => (NamesFact::Two, names),
            },
        };
        self.names = fact;
        let first = names.first().map(|key| FirstName { cut: key.cut, whole: key.whole });
        self.first = first.unwrap_or_default();
        let second = names.get(1).copied();
        if second.is_some() || self.more.is_some() {
            self.more().second = second;
        }
        self.set_uidlist_name(in_list);
    }

    /// Its name in `dovecot-uidlist`, where the maildrop is a Maildir. It costs nothing.
    pub fn uidlist_name(&self) -> Option<NameHash> {
        match self.uidlist_name {
            UidlistName::Nowhere => None,
            UidlistName::First => Some(Ledger::name_of_cut(&self.first.cut)),
            UidlistName::More => self.more.as_ref().and_then(|more| more.uidlist_name),
        }
    }

    /// Notes its name in `dovecot-uidlist`.
    pub fn set_uidlist_name(&mut self, name: Option<NameHash>) {
        let Some(name) = name else {
            self.uidlist_name = UidlistName::Nowhere;
            return;
        };
        let has_first = matches!(self.names, NamesFact::One | NamesFact::Two);
        if !has_first {
            self.first.cut[..name.len()].copy_from_slice(&name);
        }
        self.uidlist_name = if Ledger::name_of_cut(&self.first.cut) == name {
            UidlistName::First
        } else {
            self.more().uidlist_name = Some(name);
            UidlistName::More
        };
    }

    /// The UIDL that Dovecot's storage holds for it (`P`); asked for as
    /// [`Need::Names`](super::Need::Names).
    pub fn stored(&self) -> Option<&Uidl> {
        self.more.as_ref().and_then(|more| more.stored.as_ref())
    }

    /// The order number that Dovecot's storage holds for it (`O`); asked for as
    /// [`Need::Names`](super::Need::Names).
    pub fn stored_order(&self) -> Option<u32> {
        self.more.as_ref().and_then(|more| more.stored_order)
    }

    /// Notes what Dovecot's storage holds for it.
    pub fn set_stored(&mut self, uidl: Option<Uidl>, order: Option<u32>) {
        if uidl.is_some() || order.is_some() || self.more.is_some() {
            let more = self.more();
            (more.stored, more.stored_order) = (uidl, order);
        }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

/// What was found out about a message beyond its names.
///
/// Most messages of a large maildrop are known by their names alone. So it takes room only once
/// something was found.
#[derive(Debug, Clone, Default)]
pub struct Details(Option<Box<Detail>>);

/// The facts of [`Details`].
#[derive(Debug, Clone, Default)]
pub struct Detail {
    /// Asked for as [`Need::Header`](super::Need::Header).
    pub header: Fact<Fingerprint>,
    /// Whether its header names it: see [`Fingerprints`](crate::key::Fingerprints). Goes with
    /// `header`.
    pub names_itself: bool,
    /// Asked for as [`Need::Header`](super::Need::Header).
    pub origin: Fact<Fingerprint>,
    /// Whether its header names it without what relays add. Goes with `origin`.
    pub origin_names_itself: bool,
    /// Its size with CRLF line ends; asked for as [`Need::Octets`](super::Need::Octets).
    pub octets: Fact<u64>,
    /// Asked for as [`Need::Message`](super::Need::Message).
    pub message: Fact<Fingerprint>,
    /// Its body alone: what redelivery leaves as it is. Asked for as
    /// [`Need::Message`](super::Need::Message).
    pub body: Fact<Fingerprint>,
    /// When the new server received it, in seconds since 1970; asked for as
    /// [`Need::Received`](super::Need::Received).
    pub received: Fact<i64>,
    /// What Dovecot alone would give; asked for as [`Need::Native`](super::Need::Native).
    pub native: Fact<Uidl>,
}

impl Detail {
    const NONE: Self = Self {
        header: Fact::NotAsked,
        names_itself: false,
        origin: Fact::NotAsked,
        origin_names_itself: false,
        octets: Fact::NotAsked,
        message: Fact::NotAsked,
        body: Fact::NotAsked,
        received: Fact::NotAsked,
        native: Fact::NotAsked,
    };
}

impl From<Detail> for Details {
    fn from(detail: Detail) -> Self {
        Self(Some(Box::new(detail)))
    }
}

impl Deref for Details {
    type Target = Detail;

    fn deref(&self) -> &Detail {
        self.0.as_deref().unwrap_or(&Detail::NONE)
    }
}

impl DerefMut for Details {
    fn deref_mut(&mut self) -> &mut Detail {
        self.0.get_or_insert_with(|| Box::new(Detail::NONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(of: u8) -> FileKey {
        FileKey::of_name(&[of])
    }

    #[test]
    fn a_message_with_one_name_takes_fifty_octets() {
        assert!(size_of::<Message>() <= 50);
        let mut message = Message::new(1);
        message.set_uidlist_name(Some(Ledger::name_of(key(1))));
        message.set_names(Fact::Is([key(1)].into_iter().collect()));
        message.set_stored(None, None);
        assert!(message.more.is_none());
    }

    proptest! {
        #[test]
        fn says_what_was_noted_last(
            notes in prop::collection::vec((0..6u8, prop::option::of(0..3u8), 0..3u8), 0..12),
        ) {
            let mut message = Message::new(1);
            let (mut names, mut in_list) = (Fact::NotAsked, None);
            let (mut stored, mut order) = (None, None);
            for (what, some, other) in notes {
                match what {
                    0 => in_list = some.map(|of| Ledger::name_of(key(of))),
                    1 => names = Fact::Absent,
                    2 => {
                        let first = some.map(key).into_iter();
                        names = Fact::Is(first.chain((other > 0).then(|| key(other))).collect());
                    }
                    3 => names = Fact::NotAsked,
                    _ => {
                        stored = some.map(|of| Uidl::new([b'a' + of]).unwrap());
                        order = (other > 0).then_some(u32::from(other));
                    }
                }
                match what {
                    0 => message.set_uidlist_name(in_list),
                    1..=3 => message.set_names(names.clone()),
                    _ => message.set_stored(stored.clone(), order),
                }
                prop_assert_eq!(message.names(), names.clone());
                prop_assert_eq!(message.uidlist_name(), in_list);
                prop_assert_eq!(message.stored(), stored.as_ref());
                prop_assert_eq!(message.stored_order(), order);
            }
        }
    }
}
