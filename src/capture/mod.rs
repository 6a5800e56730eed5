//! Capture: what POP3 clients know of the maildrops of an old server.
//!
//! ```text
//! find      which maildrops there are, and which server answered for them
//! disk      a maildrop, read from the server's own files   \
//! pop3      a maildrop, asked as its client asks            > plan -> keys -> draft -> listing
//! doveadm   a maildrop, from what Dovecot's tool prints    /
//! fleet     many accounts over POP3, and what is kept of them until the listing is whole
//! prove     a capture, compared with what the server itself lists
//! ```
//!
//! [`plan`] says who is known by what; [`keys`] are what names a message after the move; a
//! [`draft`] becomes a [`block`] of a listing, and [`replacement`] says whether that may take an
//! older one's place. [`told_here`] is for servers whose clients our own plugin has answered.
//! [`workers`] capture several maildrops at a time.
//!
//! A capture changes nothing on the old server. A maildrop that cannot be captured becomes a block
//! that says so ([`State::Failed`](crate::maildrop::State::Failed)). A line of a state file that
//! cannot be read costs that line.
#![forbid(unsafe_code)]

pub mod block;
pub(crate) mod child;
pub mod disk;
pub mod doveadm;
pub mod draft;
pub mod error;
pub mod find;
pub mod fleet;
pub mod keys;
pub mod plan;
pub mod pop3;
pub mod prove;
pub mod replacement;
pub mod told_here;
mod users_files;
pub mod workers;
