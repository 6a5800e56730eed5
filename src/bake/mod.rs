//! Baking without the plugin: the answers for clients are written where Dovecot itself keeps such
//! things, so that Dovecot alone gives them.
//!
//! On a Maildir that is `dovecot-uidlist`: [`bake`] asks the plugin's own rules what the first
//! listing would tell, and writes it there as `P` and `O`, under Dovecot's own lock. [`undo`] takes
//! back what is still as it was baked. For mdbox and sdbox, where only Dovecot can write,
//! [`into`](mod@into) has Dovecot copy the mailbox with the plugin loaded, and compares the copy.
//!
//! A bake is no memory. It tells nobody anything, so it writes no ledger: a plugin that comes later
//! finds `P` and `O`, which are evidence 1 and 2, and tells the same.
#![forbid(unsafe_code)]

mod control;
mod dotlock;
pub mod into;
mod maildir;
mod uidlist;
mod undo;

pub use dotlock::{Dotlock, DotlockError, LOCK_FILE};
pub use maildir::{BakeOutcome, BakePlace, BakeRun, BakedMaildrop, Unbaked, bake, baked_listing};
pub use uidlist::{BadList, BakedList, ListLine, StoredUidl, can_be_listed};
pub use undo::{BadUndo, Undone, UndoneMessage, UndoneRecord, undo};
