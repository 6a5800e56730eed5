#![doc = include_str!("FORMAT.md")]
#![forbid(unsafe_code)]

mod cursor;
mod layout;
#[cfg(feature = "capture")]
pub mod merge;
pub mod reader;
pub mod writer;

pub use layout::{Subtree, VERSION};
pub use reader::{Index, IndexError};
pub use writer::{IndexBlock, WriteError, Writer};
