//! Finding the maildrops of an old server, and which server wrote them.
//!
//! [`source`] finds maildrops by a pattern; [`panel`] knows the patterns of hosting panels. [`plesk`]
//! finds out which server answers on a Plesk machine, by the signs there and by the [`traces`] in
//! its Maildirs.
#![forbid(unsafe_code)]

pub mod panel;
pub mod plesk;
pub mod source;
pub mod traces;
