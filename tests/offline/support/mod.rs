//! The things from which several of these tests start.

pub mod cli;
pub mod ledger;
pub mod maildir;
