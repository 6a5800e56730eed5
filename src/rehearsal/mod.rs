//! The first login of a maildrop, made by us before any client's.
//!
//! [`Pop3Program`] is Dovecot's own `pop3`, which is run for a user as for a client, but by root
//! and on two pipes. It leaves what a first login leaves: ledger and baked UIDLs. [`compare`] holds
//! its listing against what was captured.
#![forbid(unsafe_code)]

mod agreement;
mod pop3_program;

pub use agreement::{Disagreement, compare};
pub use pop3_program::{NotListed, Pop3Program};
