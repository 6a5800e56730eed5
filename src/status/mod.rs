//! How far each migrated maildrop has come, seen from outside and without a login.
//!
//! A [`MaildropStatus`] has what roster, index and ledger say of one maildrop, and whether Dovecot
//! has the kept UIDLs itself. A [`StatusTally`] counts those of a domain, and [`next_step`] names
//! what an operator does next. A [`Story`] says what became of one user's messages. A [`proof`]
//! shows that Dovecot alone tells clients the same; only then may [`away`] take the files of a
//! domain away.
//!
//! Root looks into directories of users here: each file is opened without following a link, and is
//! of bounded size. "Not looked at" and "could not tell" are answers of their own.
#![forbid(unsafe_code)]

pub mod away;
mod ledger;
pub mod proof;
mod step;
mod story;
mod tally;

pub use ledger::{Bake, LedgerSeen, ListedHere, StoreKind, look, remove};
pub use step::{NextStep, Plugin, next_step};
pub use story::{HereBefore, MessageStory, Story, WasThere};
pub use tally::{MaildropStatus, Refused, StatusTally};
