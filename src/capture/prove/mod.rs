//! Proving a capture: what it says of a maildrop against what the server itself lists.
//!
//! [`proof`] compares the two, and [`sample`] does so for some maildrops. A [`witness`] tells what
//! the server lists, over POP3 or by the server's own [`program`].
#![forbid(unsafe_code)]

pub mod program;
pub mod proof;
pub mod sample;
pub mod witness;
