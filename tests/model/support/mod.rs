//! What several of these tests start from.

pub mod index;
pub mod rules;
