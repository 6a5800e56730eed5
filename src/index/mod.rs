#![doc = include_str!("FORMAT.md")]
#![forbid(unsafe_code)]

mod cursor;
mod layout;
pub mod reader;
pub mod writer;

pub use reader::{Error, Index};
pub use writer::Writer;

/// The version of the normaliser behind the fingerprints of an index.
const NORMALISER: u32 = 1;
