//! Capture over POP3: what an old server tells of one account that we can log in to.
//!
//! UIDL tells the unique-ids, TOP the headers by which messages are recognised after the move.
//! Where a header says too little TOP is asked for more lines than there are, which marks nothing
//! where RETR does, and then RETR, where it is allowed. [`capture`] does one account and keeps
//! nothing. The files:
//!
//! | module | knows |
//! |---|---|
//! | `capabilities` | what a server says that it can |
//! | `connect` | TCP, TLS, and which certificate to trust |
//! | `session` | commands, replies, and the octets of both |
//! | `login` | CAPA, STLS, and the ways to say a password or a token |
//! | `token` | who gives tokens |
//! | `listing` | UIDL and LIST |
//! | `fetch` | TOP and RETR, several under way |
//! | `read` | which messages one session asks for |
//! | `take` | how many sessions an account takes, and what to do when the line breaks |
//! | `found` | what was found out, and the block it makes |
//! | `learnt` | what one account shows of a server for all others there |
//! | `shape` | what the form of the UIDLs gives away |
//!
//! # What is never done
//!
//! DELE is never sent, and a password never in the clear unless that was asked for
//! ([`Security::Clear`]). RETR is sent where it is needed, not where the server says `EXPIRE 0`
//! (RFC 2449 section 6.7: it may delete what was retrieved, as Gmail does), and never when
//! [`Retrieve::Never`] says so.
//!
//! A session ends with QUIT, as every client's does: mailutils writes down only there which UIDLs
//! it gave. qmail-pop3d then moves mail from `new` to `cur`, as it does after each client.
//!
//! # One moment
//!
//! A block is the maildrop at the login of its last session. UIDL is asked for again at the end:
//! where it says something else, the numbers may have moved under TOP, and what was read is thrown
//! away. What an earlier session listed and the last does not is spent.
#![forbid(unsafe_code)]

mod account;
mod capabilities;
mod connect;
mod fault;
mod fetch;
mod findings;
mod learnt;
mod listing;
mod login;
mod reading;
mod secret;
mod session;
mod shape;
mod token;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use account::capture_over;
pub use connect::{Stream, log_in};
pub use fault::{Fault, Refusal, Retry};
pub use learnt::Learnt;
pub use listing::{Listed, listing};
pub use secret::Secret;
pub use session::Session;
pub use token::{TokenCommand, Tokens};

use crate::capture::draft::Captured;
use crate::capture::keys::Keys;
use crate::text::printable;

/// Captures one account: [`log_in`], and then all of [`capture_over`].
///
/// # Errors
///
/// [`Fault`]; [`Fault::next_step`] says whether to try again. Nothing is kept of a capture that
/// failed.
pub fn capture(server: &Server, account: &Account, how: &How<'_>) -> Result<Captured, Fault> {
    let source = source(server, account);
    let own = Learnt::default();
    let how = How { learnt: Some(how.learnt.unwrap_or(&own)), ..*how };
    let learnt = how.learnt.unwrap_or(&own);
    capture_over(|| log_in(server, account, how.timeout, learnt), &account.user, source, &how)
}

/// What the block of an account has for [`Maildrop::source`](crate::maildrop::Maildrop::source):
/// the server and the login name there.
pub fn source(server: &Server, account: &Account) -> String {
    let login = account.authorize.as_ref().unwrap_or(&account.login);
    let host = printable(server.host.as_bytes());
    format!("pop3 {host}:{} {}", server.port, printable(login.as_bytes()))
}

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

/// The SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

/// 64 digits, in pairs with `:` between or not, of either case.
impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|&octet| octet != ':')
            .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
            .collect::<Option<_>>()
            .ok_or(BadPin)?;
        if digits.len() != 64 {
            return Err(BadPin);
        }
        let mut pin = [0; 32];
        for (octet, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            *octet = pair[0] * 16 + pair[1];
        }
        Ok(Self(pin))
    }
}

/// In lower case, without `:`.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// Not the SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256: it has 64 hexadecimal digits")]
pub struct BadPin;

/// Whose maildrop is captured, and who logs in for it.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user name on the new server, as in [`Maildrop::user`](crate::maildrop::Maildrop::user).
    pub user: String,
    /// Who logs in at the old server: the user, or a master user.
    pub login: String,
    /// Whom a master user logs in for: the authorization identity of SASL PLAIN (RFC 4616).
    pub authorize: Option<String>,
    /// The password of `login`, or who gives tokens for it.
    pub credential: Credential,
}

/// By what somebody logs in.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A password.
    Password(Secret),
    /// An access token: SASL OAUTHBEARER or XOAUTH2.
    Token(Arc<dyn Tokens>),
}

impl From<Secret> for Credential {
    fn from(password: Secret) -> Self {
        Self::Password(password)
    }
}

/// Whether messages are retrieved whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Retrieve {
    /// Never: on a server that hides, marks or deletes what was retrieved. TOP may still bring
    /// whole messages, unless the server says `EXPIRE 0`. What the block lacks for it, a remark
    /// says.
    Never,
    /// Those that TOP tells too little of: where there is no TOP, and where a header has no end,
    /// stands at two messages or does not name its own, and TOP did not bring the whole message in
    /// the size that LIST has; and all where [`Keys::message`] is wanted. None on a server that
    /// says `EXPIRE 0`.
    #[default]
    Needed,
    /// Each: for sizes, and where TOP is not to be trusted. A server that says `EXPIRE 0` is left
    /// without QUIT then, so that it deletes nothing.
    Always,
}

/// How a maildrop is captured.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// Which keys to take. `file` is taken where all UIDLs are Maildir file names (qmail-pop3d).
    pub keys: Keys,
    /// Whether to retrieve.
    pub retrieve: Retrieve,
    /// The most commands under way unanswered; 1 is one at a time, and more than
    /// [`How::MOST_WINDOW`] is that. Without PIPELINING it is reached step by step, while all goes
    /// well.
    pub window: u32,
    /// How long a connection may take, and an answer; a long answer, each 64 KiB of it.
    pub timeout: Duration,
    /// How long to wait before a broken session is taken up again, doubled each time it does not
    /// get further; longer where the server says LOGIN-DELAY. Zero waits for nothing.
    pub pause: Duration,
    /// How long one account may take, in all its sessions and the pauses between them, and how many
    /// octets it may bring. A server that goes on and on is left then.
    pub most_time: Duration,
    /// See [`How::most_time`].
    pub most_octets: u64,
    /// What is known of the server, and what is learnt of it here; `None` for one account alone.
    pub learnt: Option<&'a Learnt>,
    /// Who says when a command may be sent.
    pub pace: &'a dyn Pace,
    /// Told how many more messages were asked about and answered. What has to be asked again is not
    /// taken back, so that the sum may exceed the messages that there are.
    pub progress: &'a dyn Fn(u64),
}

impl<'a> How<'a> {
    /// The widest window. So many commands take less than 4 KiB: a server that is itself busy
    /// sending never leaves us waiting to send.
    pub const MOST_WINDOW: u32 = 200;

    /// The usual: as fast as the line allows, patient for a minute.
    pub fn new(pace: &'a dyn Pace, progress: &'a dyn Fn(u64)) -> Self {
        Self {
            keys: Keys::default(),
            retrieve: Retrieve::default(),
            window: Self::MOST_WINDOW,
            timeout: Duration::from_secs(60),
            pause: Duration::from_secs(2),
            most_time: Duration::from_secs(12 * 60 * 60),
            most_octets: 64 << 30,
            learnt: None,
            pace,
            progress,
        }
    }
}

/// Holds commands back, so that a server is not overrun.
pub trait Pace: Sync {
    /// Returns when `count` more commands may be sent, `count` being at most [`How::MOST_WINDOW`].
    fn commands(&self, count: u32);
}

/// No pace: a command is sent when there is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPace;

impl Pace for NoPace {
    fn commands(&self, _count: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_openssl_prints_it_and_as_we_do() {
        let pin = Pin(std::array::from_fn(|at| at as u8 * 8));
        let colons: Vec<String> = pin.0.iter().map(|octet| format!("{octet:02X}")).collect();
        assert_eq!(colons.join(":").parse(), Ok(pin));
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for bad in ["", "00", &pin.to_string()[1..], &pin.to_string().replace('8', "g")] {
            assert_eq!(bad.parse::<Pin>(), Err(BadPin), "{bad}");
        }
    }
}
