//! Proving a capture: what it says of a maildrop against what the server itself lists.
//!
//! [`proof`] compares the two. The listing comes over POP3, or from the server's own [`program`].
#![forbid(unsafe_code)]

pub mod program;
pub mod proof;
