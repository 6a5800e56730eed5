//! The ledger: what one maildrop's clients have been told, and how each answer came about.
//!
//! It is the truth about a maildrop after its first POP3 listing. It lies in Dovecot's control
//! directory of the mailbox, belongs to the account, and is only ever replaced whole: written
//! beside itself and renamed. A login whose messages are all in it needs neither index nor mail.
//! The [`Mark`], in the lock's file, has a second time what must not be lost with it.
//!
//! `layout.rs` describes the file.
#![forbid(unsafe_code)]

mod answers;
mod checksum;
pub mod control;
mod epoch;
pub mod fingerprint_cache;
mod front;
mod in_file;
mod layout;
mod listed_names;
mod mark;
mod record;
mod rehearsal;
#[cfg(test)]
mod tests;
mod unclaimed;
mod whole;

pub use answers::Answers;
pub use epoch::{Epoch, MAX_TOLD, Told, join_told};
pub use front::LedgerFront;
pub use in_file::{Growth, KeptRun, LedgerFile};
pub use layout::{LedgerError, MAX_OCTETS, VERSION};
pub use listed_names::ListedNames;
pub use mark::Mark;
pub use record::{NameHash, NameHashes, Provenance, Record, RecordRef};
pub use rehearsal::is_rehearsal;
pub use unclaimed::{KeyStart, UnclaimedKeys};
pub use whole::{AnyLedger, FIRST_ORDER, Ledger, LedgerHead, MAX_NEXT_ORDER, Noted, encode, write};
