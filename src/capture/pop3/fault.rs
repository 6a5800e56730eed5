//! Why an account could not be captured, and whether to try again: [`Fault`].
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use crate::capture::pop3::pin::Pin;
use crate::text::printable;

/// Whether to try again after a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same may work later.
    Later,
    /// The same fails again until somebody has changed something.
    Never,
}

/// What a server said in the place of `+OK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrReply {
    /// What came after `-ERR`, printable.
    said: String,
    hint: Hint,
}

/// What a refusal says of its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    Temporary,
    Permanent,
    None,
}

/// Servers without RESP-CODES use these words, in any case, for a refusal that passes: the maildrop
/// is locked (Qpopper, popa3d, mailutils), or there are too many connections.
const TEMPORARY_WORDS: [&str; 5] = ["in use", "busy", "too many", "temporar", "another session"];

/// Whether a text in lower case says that the refusal passes. "Blocked" is a ban, and "Login
/// failed, please try again" means: with another password.
fn is_said_to_be_temporary(said: &str) -> bool {
    let is_of_login = ["password", "login", "auth"].iter().any(|word| said.contains(word));
    TEMPORARY_WORDS.iter().any(|word| said.contains(word))
        || said.split(|octet: char| !octet.is_alphanumeric()).any(|word| word.starts_with("lock"))
        || said.contains("again") && !is_of_login
}

/// Stands in place of a server's words that had the password in them.
pub(super) const WITHHELD: &str = "(what it said had the password in it)";

impl ErrReply {
    /// What came after `-ERR`, with its response code where there is one (RFC 2449 section 8, RFC
    /// 3206).
    pub(super) fn of(said: &[u8]) -> Self {
        let text = printable(said.trim_ascii());
        // The server may repeat the password in it.
        let small = Zeroizing::new(text.to_ascii_lowercase());
        let code = small.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let hint = match code.map(|(code, _)| code) {
            Some("in-use" | "login-delay") => Hint::Temporary,
            Some("auth") => Hint::Permanent,
            Some(code) if code.starts_with("sys/temp") => Hint::Temporary,
            Some(code) if code.starts_with("sys/perm") => Hint::Permanent,
            _ if is_said_to_be_temporary(&small) => Hint::Temporary,
            _ => Hint::None,
        };
        Self { said: text, hint }
    }

    /// The same without the server's words: only their meaning stays.
    pub(super) fn without_words(mut self) -> Self {
        self.said.zeroize();
        self.said = WITHHELD.into();
        self
    }

    /// Whether it says that no password is taken in this way, whatever it is.
    pub(super) fn is_of_the_way(&self) -> bool {
        let said = self.said.to_ascii_lowercase();
        said.contains("unsupported auth") || said.contains("unsupported mechanism")
    }

    /// The same, and what the server says of a token (RFC 7628 section 3.2.2).
    pub(super) fn of_token(mut self, status: Option<&str>) -> Self {
        if let Some(status) = status {
            self.said
                .push_str(&format!(" (status of the token: {})", printable(status.as_bytes())));
        }
        self
    }

    /// What came after `-ERR`, printable.
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// Whether it begins with a response code.
    pub(super) fn has_code(&self) -> bool {
        self.said.starts_with('[')
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.hint == Hint::Temporary
    }

    fn retry_or(&self, otherwise: Retry) -> Retry {
        match self.hint {
            Hint::Temporary => Retry::Later,
            Hint::Permanent => Retry::Never,
            Hint::None => otherwise,
        }
    }
}

/// As the server gave it, printable.
impl fmt::Display for ErrReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.said.is_empty() { f.write_str("no reason given") } else { f.write_str(&self.said) }
    }
}

/// Why an account could not be captured. Nothing in it is secret, and foreign octets are printable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The host has no address, or its name could not be looked up.
    #[error("no address of {host}: {error}")]
    NoAddress {
        /// The host.
        host: String,
        /// What the system says.
        error: io::Error,
    },
    /// None of the host's addresses took the connection.
    #[error("cannot connect to {at}: {error}")]
    Connect {
        /// Host or address, and port.
        at: String,
        /// What the system says of the last address.
        error: io::Error,
    },
    /// This machine has no certificates to trust.
    #[error(
        "no root certificates on this machine ({why}): install ca-certificates, or pin the \
         server's own"
    )]
    NoRoots {
        /// What was found instead.
        why: String,
    },
    /// The server's certificate is not trusted.
    #[error(
        "its certificate is not trusted ({why}): if it is the server's own, pin it by SHA-256 {pin}"
    )]
    Untrusted {
        /// The SHA-256 of the certificate that it showed.
        pin: Pin,
        /// Why not.
        why: String,
    },
    /// The server's certificate is not the one that was pinned.
    #[error("its certificate has SHA-256 {found}, and {pinned} is pinned")]
    OtherCertificate {
        /// The SHA-256 of the certificate that it showed.
        found: Pin,
        /// The SHA-256 that was asked for.
        pinned: Pin,
    },
    /// The server speaks no version of TLS that can still be spoken.
    #[error(
        "it speaks TLS 1.1 or older only, which is not spoken here: capture on its own machine, or \
         through an SSH tunnel, without TLS"
    )]
    OldTls,
    /// Some other fault of TLS.
    #[error("no TLS with it: {why}")]
    Tls {
        /// Which.
        why: String,
    },
    /// The server does not have STLS, which was asked for.
    #[error("it offers no STLS ({said}): no password was sent; try implicit TLS, port 995")]
    NoStartTls {
        /// What it said.
        said: String,
    },
    /// Something came in the clear behind the reply to STLS.
    #[error("it, or somebody between, sent more behind its reply to STLS: no password was sent")]
    Injected,
    /// It closed the door.
    #[error("it does not greet: {0}")]
    Greeting(ErrReply),
    /// It refused the login.
    #[error("it refused the login: {0}")]
    Login(ErrReply),
    /// A login for another user needs SASL PLAIN.
    #[error("it offers no AUTH PLAIN, by which a master user logs in for another")]
    NoPlain,
    /// The server takes no tokens.
    #[error("it offers neither AUTH OAUTHBEARER nor AUTH XOAUTH2: it takes passwords, not tokens")]
    NoBearer,
    /// There is no token.
    #[error("no token: {0}")]
    NoToken(String),
    /// The server takes passwords only by their MD5, and the line has no TLS.
    #[error(
        "it offers only {offered} without TLS, by which whoever listens can find out the \
         password: speak TLS with it"
    )]
    WeakLogin {
        /// What it offers.
        offered: &'static str,
    },
    /// No command can carry this login name or password.
    #[error("the {what} has a line end or NUL in it, which POP3 cannot carry")]
    Unspeakable {
        /// Which of the two.
        what: &'static str,
    },
    /// The server has no UIDL.
    #[error("it has no unique-ids ({0}), so that no client can have left mail there by them")]
    NoUidl(ErrReply),
    /// The server has no TOP, and nothing may be retrieved.
    #[error(
        "it has no TOP ({0}), and RETR is not allowed: allow it where retrieving changes nothing"
    )]
    NoTop(ErrReply),
    /// It refused a command.
    #[error("it refused {command}: {refusal}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What it said.
        refusal: ErrReply,
    },
    /// The answer is none that a POP3 server gives.
    #[error("its answer to {command} makes no sense: {said}")]
    Garbled {
        /// The command.
        command: &'static str,
        /// What it said, printable.
        said: String,
    },
    /// An answer does not end.
    #[error("its answer to {command} has more than {max_octets} octets")]
    TooLong {
        /// The command.
        command: &'static str,
        /// The limit.
        max_octets: u64,
    },
    /// One account took more than it may.
    #[error(
        "more than {limit} for one account, at {command}: look at what it sends there, and allow \
         it more with {option} if that is mail"
    )]
    Endless {
        /// The command.
        command: &'static str,
        /// The limit.
        limit: String,
        /// The option that raises it.
        option: &'static str,
    },
    /// It closed the connection in the middle.
    #[error("it closed the connection instead of answering {command}")]
    Dropped {
        /// The command.
        command: &'static str,
    },
    /// It said nothing, or next to nothing, for too long.
    #[error("no answer to {command} within {}", humantime::format_duration(*.patience))]
    Stalled {
        /// The command.
        command: &'static str,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The connection broke.
    #[error("the connection broke at {command}: {error}")]
    Broken {
        /// The command.
        command: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// Its two listings name different messages, the same ones each time.
    #[error(
        "UIDL lists {uidl} messages and LIST {list}, the same each of the {tries} times they were \
         asked for: {lacking} leaves out message {number}; have it repaired or removed there, or \
         capture on the old server's disk (docs/capture.md)"
    )]
    Unlike {
        /// How many messages UIDL lists.
        uidl: usize,
        /// How many LIST lists.
        list: usize,
        /// The first message that one of them leaves out.
        number: u32,
        /// Which one.
        lacking: &'static str,
        /// How often they were read.
        tries: u32,
    },
    /// Its listing never held still.
    #[error(
        "its listing changed each of the {tries} times it was read; capture it at a quieter time"
    )]
    Changing {
        /// How often it was read.
        tries: u32,
    },
}

impl Fault {
    /// Whether the line broke, or brought something that is no answer.
    pub(super) fn is_of_the_line(&self) -> bool {
        matches!(
            self,
            Self::Dropped { .. }
                | Self::Stalled { .. }
                | Self::Broken { .. }
                | Self::Garbled { .. }
        )
    }

    /// Whether to try the same again.
    pub fn next_step(&self) -> Retry {
        match self {
            Self::NoAddress { .. }
            | Self::Connect { .. }
            | Self::Garbled { .. }
            | Self::Dropped { .. }
            | Self::Stalled { .. }
            | Self::Broken { .. }
            | Self::Changing { .. } => Retry::Later,
            Self::Greeting(refusal) | Self::Refused { refusal, .. } => {
                refusal.retry_or(Retry::Later)
            }
            // A wrong password that is tried again gets the address banned.
            Self::Login(refusal) => refusal.retry_or(Retry::Never),
            Self::NoRoots { .. }
            | Self::Untrusted { .. }
            | Self::OtherCertificate { .. }
            | Self::OldTls
            | Self::Tls { .. }
            | Self::NoStartTls { .. }
            | Self::Injected
            | Self::NoPlain
            | Self::NoBearer
            | Self::NoToken(_)
            | Self::WeakLogin { .. }
            | Self::Unspeakable { .. }
            | Self::NoUidl(_)
            | Self::NoTop(_)
            | Self::Unlike { .. }
            | Self::Endless { .. }
            | Self::TooLong { .. } => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_for_ever_only_where_it_may_be() {
        let retry = |said: &str| Fault::Login(ErrReply::of(said.as_bytes())).next_step();
        for later in [
            "[IN-USE] Do you have another POP session running?",
            "[LOGIN-DELAY] minimum 300 seconds",
            "[SYS/TEMP] Temporary authentication failure.",
            "[sys/temp] x",
            "/var/mail/alice lock busy!  Is another session active? (11)",
            "Too many connections from your address",
            "Mailbox locked, please try again",
            "Server restarts, come again",
        ] {
            assert_eq!(retry(later), Retry::Later, "{later}");
        }
        for never in [
            "[AUTH] Authentication failed.",
            "[SYS/PERM] no",
            "Login failed.",
            "Login failed, please try again",
            "Your address is blocked",
            "",
        ] {
            assert_eq!(retry(never), Retry::Never, "{never}");
        }
        // The code counts, whatever words follow it.
        assert_eq!(retry("[AUTH] wrong, try again"), Retry::Never);
        assert_eq!(Fault::Greeting(ErrReply::of(b"go away")).next_step(), Retry::Later);
    }

    #[test]
    fn what_a_server_said_is_shown_as_ascii() {
        let refusal = ErrReply::of(b" [AUTH] \x1b[31m\xe6 \r");
        assert_eq!(refusal.to_string(), "[AUTH] \\x1b[31m\\xe6");
        assert_eq!(ErrReply::of(b"").to_string(), "no reason given");
    }
}
