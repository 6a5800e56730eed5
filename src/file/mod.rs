//! Files: mapped, read by offset, put in place whole.
//!
//! Nothing here knows what is in a file.

pub mod lock;
pub mod map;
pub mod publish;
pub mod read_at;
pub mod safe_open;
#[cfg(feature = "capture")]
pub mod sealer;
