//! Where an old server answers POP3, and how the line to it is kept secret: [`Server`].
#![forbid(unsafe_code)]

use crate::capture::pop3::pin::Pin;

/// Where an old server answers POP3, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port: 110, or 995 for [`Security::Tls`].
    pub port: u16,
    /// How the line is kept secret.
    pub security: Security,
    /// Whose certificate is taken; of no account with [`Security::Clear`].
    pub trust: Trust,
}

/// How the line to a server is kept secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// TLS from the first octet.
    Tls,
    /// STLS (RFC 2595 section 4). A server that does not offer it is told no password.
    StartTls,
    /// Not at all: everybody on the way can read the password.
    Clear,
}

/// Which certificate of a server is taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// One for the host's name that leads to a root of this machine.
    System,
    /// This one and no other, whatever name and dates it has.
    Pinned(Pin),
    /// Any: everybody on the way who takes the trouble can read the password.
    Anything,
}
