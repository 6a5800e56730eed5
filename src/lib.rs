//! Keeps POP3 UIDLs across a mail-server migration.
//!
//! A POP3 client that leaves mail on the server remembers each message by its UIDL (RFC 1939
//! section 7). A migration gives every message a new one, and every client downloads years of mail
//! again. uidl-keep asks the old server for its UIDLs before it goes, recognises each message on
//! the new server, and answers with the UIDL that the client already knows.
//!
//! The way of the data, which is also the module list:
//!
//! ```text
//! capture  ->  listing  ->  index + roster  ->  resolve  ->  ledger  ->  POP3 client
//! (helper)     (text)       (site directory)    (plugin)                 (plugin)
//! ```
//!
//! Every look-up has three answers: *kept*, *unknown*, and *could not tell*. The third is an error
//! and is never folded into the second.

#[cfg(feature = "helper")]
pub mod abi;
#[cfg(feature = "capture")]
pub mod account;
#[cfg(feature = "capture")]
pub mod backoff;
#[cfg(feature = "capture")]
pub mod bake;
#[cfg(feature = "capture")]
pub mod capture;
#[cfg(feature = "helper")]
pub mod doctor;
#[cfg(feature = "capture")]
pub mod dovecot;
pub mod encoding;
pub mod file;
#[cfg(feature = "capture")]
pub mod forecast;
pub mod format;
pub mod index;
pub mod key;
#[cfg(feature = "capture")]
pub mod late;
pub mod ledger;
#[cfg(feature = "capture")]
pub mod listing;
pub mod maildrop;
#[cfg(feature = "plugin")]
mod plugin;
#[cfg(feature = "capture")]
pub mod rehearsal;
#[cfg(feature = "helper")]
pub mod report;
pub mod resolve;
pub mod site;
#[cfg(feature = "capture")]
pub mod status;
#[cfg(feature = "capture")]
pub mod text;
pub mod uidl;
#[cfg(feature = "capture")]
pub mod verify;
#[cfg(feature = "capture")]
pub mod way_back;
