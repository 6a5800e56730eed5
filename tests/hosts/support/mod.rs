//! Real servers and real clients for the tests, each private, started by the test and gone with it.
//!
//! A test asks for the host it needs and goes home when there is none:
//!
//! ```ignore
//! let Some(host) = Host::dovecot(Line::subject()) else { return };
//! let server = Dovecot::start(&host, Config::default());
//! ```
//!
//! A test says on stderr what the machine lacks. With `UIDL_KEEP_REQUIRE_HOST=1`, as `make test`
//! sets it, a lack is a failure.

pub mod client_state;
pub mod clients;
pub mod courier;
pub mod cyrus;
pub mod dovecot;
pub mod faults;
pub mod foretold;
pub mod helper;
pub mod host;
pub mod imap;
pub mod inetd;
pub mod loaded;
pub mod machine;
pub mod mail;
pub mod maildir;
pub mod peer;
pub mod pop3;
mod ran;
pub mod scenario;
pub mod spool;
pub mod tls;
pub mod traced;

pub use crate::shared::lacking;

/// The owner of the mail of every test: this is the uid and the gid. Servers refuse to serve root's
/// mail.
pub const OWNER: u32 = 5000;

/// The one password there is.
pub const PASSWORD: &str = "pw";
