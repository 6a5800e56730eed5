//! Real servers and real clients for the tests, each private, started by the test and gone with it.
//!
//! A test asks for the host it needs and goes home when there is none:
//!
//! ```ignore
//! let Some(host) = Host::dovecot(Line::V23) else { return };
//! let server = Dovecot::start(&host, Config::default());
//! ```
//!
//! What a machine lacks is said on stderr. With `UIDL_KEEP_REQUIRE_HOST=1`, as `make test` sets it,
//! lacking is failing.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod clients;
pub mod courier;
pub mod cyrus;
pub mod dovecot;
pub mod faults;
pub mod helper;
pub mod host;
pub mod imap;
pub mod inetd;
pub mod mail;
pub mod maildir;
pub mod migrated;
pub mod moved;
pub mod peer;
pub mod pop3;
pub mod spool;
pub mod story;
pub mod tls;
pub mod traced;

/// Who the mail of every test belongs to: the uid and the gid. Servers refuse to serve root's mail.
pub const OWNER: u32 = 5000;

/// The one password there is.
pub const PASSWORD: &str = "pw";

/// Says why a test does not run here; fails it where the hosts were promised.
pub fn lacking(what: &str) {
    if std::env::var_os("UIDL_KEEP_REQUIRE_HOST").is_some_and(|value| value == "1") {
        panic!("UIDL_KEEP_REQUIRE_HOST=1, but {what}");
    }
    eprintln!("skipped: {what}");
}
