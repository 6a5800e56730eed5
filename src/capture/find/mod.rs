//! Finding the maildrops of an old server, and which server wrote them.
//!
//! [`search`] finds maildrops by a [`pattern`], each a [`source`], and [`naming`] says whose they
//! are; `Search::select` keeps those that are asked for; [`panel`] knows the patterns of hosting
//! panels. [`plesk`] finds out which server answers on a Plesk machine, by the signs there and by
//! the [`traces`] in its Maildirs; [`doveconf`] asks Dovecot how it makes UIDLs.
#![forbid(unsafe_code)]

pub mod doveconf;
pub mod naming;
pub mod panel;
pub mod pattern;
pub mod plesk;
pub mod search;
mod selection;
pub mod source;
pub mod traces;
