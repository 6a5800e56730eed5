//! What several of these tests start from.

pub mod cli;
pub mod maildir;
