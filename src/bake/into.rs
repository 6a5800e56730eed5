//! Bakes a mailbox of any store by having Dovecot copy it with the plugin loaded: [`Copier`].
//!
//! A dsync carries UIDL and order of each message, and writes them where the new store keeps them:
//! in the metadata of mdbox and sdbox, in `dovecot-uidlist` of a Maildir. What the copy then says
//! without the plugin is compared with what the source says with it.
//!
//! Only what was listed is copied. To dsync the plugin tells nothing of a message that no client
//! has seen (rule 2), and its native UIDL may be spent.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::dovecot::{Dovecot, DovecotError, InboxPath};
use crate::ledger::FIRST_ORDER;
use crate::text::printable;

/// What a mailbox says of its messages: by UID, the UIDL and the order number.
type ToldByUid = BTreeMap<u32, (String, u32)>;

/// Why a mailbox is not copied, or its copy not to be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Uncopied {
    /// Dovecot could not be asked, or could not copy.
    #[error("{0}")]
    Dovecot(#[from] DovecotError),
    /// Some messages have no UIDL of ours yet.
    #[error(
        "{count} of {messages} messages were not listed yet, the first is UID {uid}: let the user \
         log in by POP3 with the plugin loaded, and bake again"
    )]
    NotListed {
        /// How many.
        count: usize,
        /// How many messages there are.
        messages: usize,
        /// The UID of the first.
        uid: u32,
    },
    /// The copy would lie where the mailbox lies.
    #[error("{} is the user's mailbox itself: name another place", .0.display())]
    SamePlace(PathBuf),
    /// The copy says something else.
    #[error(
        "the copy is not to be used: UID {uid} is {told} here and {copied} there, as {count} \
         messages in all; take the copy away"
    )]
    Differs {
        /// How many messages differ.
        count: usize,
        /// The UID of the first.
        uid: u32,
        /// What the source says of it, printable.
        told: String,
        /// What the copy says, printable.
        copied: String,
    },
    /// The copy gives UIDs again.
    #[error(
        "the copy is not to be used: its next UID is {copied}, and {here} here; take the copy away"
    )]
    CountsLess {
        /// The source's.
        here: u32,
        /// The copy's.
        copied: u32,
    },
}

/// Has Dovecot copy mailboxes to one location, with the plugin loaded for that alone.
#[derive(Debug)]
pub struct Copier<'a> {
    location: &'a str,
    with_us: Dovecot,
    /// It answers as if there were no plugin.
    without_us: Dovecot,
    /// The same, and it looks for mail in the location.
    there: Dovecot,
}

/// How often a mailbox is copied that changes meanwhile.
const TRIES: u32 = 3;

impl<'a> Copier<'a> {
    /// Asks Dovecot how its doveadm loads plugins.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn new(dovecot: &Dovecot, location: &'a str) -> Result<Self, DovecotError> {
        let (with_us, without_us) = (dovecot.with_plugin()?, dovecot.without_plugin()?);
        let there = without_us.at(location)?;
        Ok(Self { location, with_us, without_us, there })
    }

    /// Copies the mail of a user, and compares: returns how many messages are there. `has_order`:
    /// the old order is kept for him. `is_dry`: only looks whether it may be copied.
    ///
    /// # Errors
    ///
    /// [`Uncopied`]. What was copied is not to be used then.
    pub fn copy(&self, user: &str, has_order: bool, is_dry: bool) -> Result<usize, Uncopied> {
        // Where a namespace has a location of its own, the override has no effect.
        let own = self.without_us.inbox_path(user, InboxPath::Mailbox)?;
        if self.there.inbox_path(user, InboxPath::Mailbox)? == own {
            return Err(Uncopied::SamePlace(own));
        }
        let mut tries = 1;
        loop {
            let (told, next) = self.source(user, has_order)?;
            if is_dry {
                return Ok(told.len());
            }
            self.with_us.backup(user, self.location)?;
            let copied = told_by(&self.there, user)?;
            let (after, _) = self.source(user, has_order)?;
            if after != told && tries < TRIES {
                tries += 1;
                continue;
            }
            compare(&told, &copied)?;
            let (_, copied_next) = self.there.inbox_epoch(user)?;
            if copied_next < next {
                return Err(Uncopied::CountsLess { here: next, copied: copied_next });
            }
            return Ok(told.len());
        }
    }

    /// What the source says with the plugin, and its next UID, where every message was listed.
    fn source(&self, user: &str, has_order: bool) -> Result<(ToldByUid, u32), Uncopied> {
        let told = told_by(&self.with_us, user)?;
        let is_untold =
            |(uidl, order): &(String, u32)| uidl.is_empty() || has_order && *order < FIRST_ORDER;
        let mut untold = told.iter().filter(|(_, told)| is_untold(told)).map(|(uid, _)| *uid);
        if let Some(uid) = untold.next() {
            let count = 1 + untold.count();
            return Err(Uncopied::NotListed { count, messages: told.len(), uid });
        }
        let (_, next) = self.with_us.inbox_epoch(user)?;
        Ok((told, next))
    }
}

fn told_by(dovecot: &Dovecot, user: &str) -> Result<ToldByUid, DovecotError> {
    let told = dovecot.told(user)?.into_iter();
    Ok(told.map(|message| (message.uid, (message.uidl, message.order.unwrap_or(0)))).collect())
}

fn compare(told: &ToldByUid, copied: &ToldByUid) -> Result<(), Uncopied> {
    let uids: BTreeSet<&u32> = told.keys().chain(copied.keys()).collect();
    let mut differ = uids.into_iter().filter(|uid| told.get(uid) != copied.get(uid));
    let Some(uid) = differ.next() else { return Ok(()) };
    let shown = |of: &ToldByUid| match of.get(uid) {
        None => "absent".to_owned(),
        Some((uidl, order)) => format!("{:?} ({order})", printable(uidl.as_bytes())),
    };
    Err(Uncopied::Differs {
        uid: *uid,
        told: shown(told),
        copied: shown(copied),
        count: 1 + differ.count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_says_anything_else_is_named_by_its_first_message() {
        let told = |uidls: &[(u32, &str, u32)]| -> ToldByUid {
            uidls.iter().map(|&(uid, uidl, order)| (uid, (uidl.to_owned(), order))).collect()
        };
        let source = told(&[(1, "a", 1 << 20), (2, "b", 1_048_577)]);
        assert!(compare(&source, &source).is_ok());
        for (copy, first, count) in [
            (told(&[(1, "a", 1 << 20)]), 2, 1),
            (told(&[(1, "x", 1 << 20), (2, "", 0)]), 1, 2),
            (told(&[(1, "a", 1_048_577), (2, "b", 1_048_577)]), 1, 1),
            (told(&[(1, "a", 1 << 20), (2, "b", 1_048_577), (3, "c", 0)]), 3, 1),
        ] {
            let Err(Uncopied::Differs { uid, count: found, .. }) = compare(&source, &copy) else {
                panic!("{copy:?}")
            };
            assert_eq!((uid, found), (first, count), "{copy:?}");
        }
    }
}
