//! Compares what a server lists to POP3 clients with what clients know: [`compare()`].
//!
//! This asks nobody. [`Expected`] is what clients know of a maildrop: from a listing, from a site,
//! or from the old server as it lists it now.
#![forbid(unsafe_code)]

mod compare;
mod expected;

pub use compare::{Verification, compare};
pub use expected::{Expected, OfSite, of_site};
