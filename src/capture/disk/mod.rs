//! Capture from the disk of the old server, one module a kind of server.
//!
//! [`courier`], [`dovecot`], [`qmail`] and [`cyrus`] have a file a message: each makes a
//! [`Plan`](crate::capture::plan::Plan) of a [`Snapshot`](maildir::Snapshot) and knows nothing of
//! files, which [`maildir`] reads while they are in use. [`mbox`] is for the servers that have a
//! file a maildrop. A constant `TRAITS` in each module says what else the maildrops of its server
//! have in common. [`server::capture`] brings it together for one maildrop.
#![forbid(unsafe_code)]

pub mod courier;
pub mod cyrus;
pub mod dovecot;
mod files;
pub mod maildir;
pub mod mbox;
pub mod qmail;
pub mod server;
mod steady;
pub(in crate::capture) mod traits;
pub mod weight;
