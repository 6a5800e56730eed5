//! `uidl-keep capture`: what an old server's POP3 clients know, as a listing.

mod block;
mod command;
mod cyrus;
mod disk;
mod doveadm;
mod doveconf;
mod here;
mod job;
mod listing_file;
mod mbox;
mod plesk;
pub mod pop3;
pub mod progress;
pub mod prove;
mod sources;
mod summary;
mod witness;

pub use command::{CaptureArgs, run};
