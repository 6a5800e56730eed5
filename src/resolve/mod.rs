//! The rules: they say what clients are told now, from what was captured, what is in the maildrop
//! and what clients were told before. `docs/design.md` has them in words, with numbers that
//! comments and tests cite.
//!
//! [`resolve`] is a pure function. It does no I/O and knows nothing of Dovecot. When it lacks a
//! costly fact about a message it does not guess: it answers [`Outcome::Ask`], and the caller finds
//! the facts and calls again with them. Each call starts from the same inputs, so that the last one
//! decides alone.
//!
//! An entry is claimed only on evidence that a new mail cannot have. Memory decides numbers and
//! places, never claims.
#![forbid(unsafe_code)]

mod answer;
mod by_name;
mod conclusion;
mod derived;
mod known;
mod matching;
mod message;
mod places;
mod question;
mod rank;
mod rehearsed;
mod run;
mod settled;
mod spent;

pub use crate::key::Match;
pub use answer::{Outcome, Report, Resolution, Undecidable};
pub use conclusion::Conclusion;
pub use message::{Detail, Details, Message};
pub use question::{Fact, Memory, Need, Purpose, Situation, Stamps};
pub use run::{most_unreadable, resolve, resolve_with};
pub use settled::{Grown, grow};
pub use spent::{COUNTS_ON, first_unspent_uid};
