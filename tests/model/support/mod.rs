//! The things from which several of these tests start.

pub mod index;
pub mod rules;
