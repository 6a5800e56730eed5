//! From the greeting to a session that is logged in: CAPA, STLS, and the ways to say a password.
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

use super::Account;
use super::capabilities::Capabilities;
use super::fault::{Fault, WITHHELD};
use super::session::{Reply, Session};
use crate::capture::MAX_SHOWN;

/// The longest list of capabilities, in octets.
const MAX_CAPA_OCTETS: u64 = 64 << 10;

/// The longest command line (RFC 2449 section 4), CR LF with it.
const MAX_COMMAND_OCTETS: usize = 255;

impl<S: Read + Write> Session<S> {
    /// Reads the greeting.
    pub(super) fn be_greeted(&mut self) -> Result<(), Fault> {
        match self.reply("the connection")? {
            Reply::Refused(refusal) => Err(Fault::Greeting(refusal)),
            Reply::Ok | Reply::More => Ok(()),
        }
    }

    /// Asks what the server can. One that has no CAPA any more after the login can what it could
    /// before.
    pub(super) fn ask_capabilities(&mut self) -> Result<(), Fault> {
        if self.ask("CAPA", "CAPA")? == Reply::Ok {
            let mut capabilities = Capabilities { known: true, ..Capabilities::default() };
            self.lines("CAPA", MAX_CAPA_OCTETS, |line| capabilities.take(line))?;
            self.set_capabilities(capabilities);
        }
        Ok(())
    }

    /// Says that headers may be 8-bit, where the server wants to know. One that refuses it is
    /// believed.
    pub(super) fn ask_utf8(&mut self) -> Result<(), Fault> {
        if self.capabilities().utf8 {
            self.ask("UTF8", "UTF8")?;
        }
        Ok(())
    }

    /// Asks for TLS, whether CAPA lists it or not, and gives the stream on which it begins now.
    pub(super) fn start_tls(mut self) -> Result<S, Fault> {
        match self.ask("STLS", "STLS")? {
            Reply::Ok => self.into_stream(),
            Reply::Refused(refusal) => Err(Fault::NoStartTls { said: refusal.to_string() }),
            Reply::More => Err(Fault::NoStartTls { said: "+".into() }),
        }
    }

    /// Logs in by what the server offers: SASL PLAIN, SASL LOGIN, else USER and PASS.
    ///
    /// It is tried once and one way: whoever tries again with a password that is refused has his
    /// address banned.
    pub(super) fn log_in(&mut self, account: &Account) -> Result<(), Fault> {
        for (what, octets) in [
            ("login name", account.login.as_bytes()),
            ("name to log in for", account.authorize.as_deref().unwrap_or_default().as_bytes()),
            ("password", account.password.octets()),
        ] {
            if octets.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
                return Err(Fault::Unspeakable { what });
            }
        }
        let capabilities = self.capabilities();
        let reply = match &account.authorize {
            Some(_) if capabilities.known && !capabilities.sasl_plain => Err(Fault::NoPlain),
            Some(_) => self.say_plain(account),
            None if capabilities.sasl_plain => self.say_plain(account),
            None if capabilities.sasl_login => self.say_login(account),
            None => self.say_user(account),
        };
        match reply {
            Err(Fault::Garbled { command, mut said }) if has_secret(&said, account) => {
                said.zeroize();
                Err(Fault::Garbled { command, said: WITHHELD.into() })
            }
            Err(fault) => Err(fault),
            Ok(Reply::Ok) => Ok(()),
            Ok(Reply::Refused(refusal)) if has_secret(refusal.said(), account) => {
                Err(Fault::Login(refusal.without_words()))
            }
            Ok(Reply::Refused(refusal)) => Err(Fault::Login(refusal)),
            Ok(Reply::More) => {
                Err(Fault::Garbled { command: "the login", said: "it asks for more".into() })
            }
        }
    }

    /// RFC 4616, sent with the command where that is short enough (RFC 5034 section 4).
    fn say_plain(&mut self, account: &Account) -> Result<Reply, Fault> {
        let spoken = plain_line(account, account.password.octets());
        let command = Zeroizing::new([b"AUTH PLAIN ", spoken.as_slice()].concat());
        let reply = if command.len() <= MAX_COMMAND_OCTETS {
            self.send(&command, "AUTH")?;
            self.reply("AUTH")?
        } else {
            self.ask("AUTH PLAIN", "AUTH")?
        };
        // Also what RFC 1734 has in the place of an initial response.
        if reply != Reply::More {
            return Ok(reply);
        }
        self.send(&spoken, "AUTH")?;
        self.reply("AUTH")
    }

    fn say_login(&mut self, account: &Account) -> Result<Reply, Fault> {
        let mut reply = self.ask("AUTH LOGIN", "AUTH")?;
        for answer in [account.login.as_bytes(), account.password.octets()] {
            if reply != Reply::More {
                break;
            }
            self.send(&base64_line(answer), "AUTH")?;
            reply = self.reply("AUTH")?;
        }
        Ok(reply)
    }

    fn say_user(&mut self, account: &Account) -> Result<Reply, Fault> {
        let reply = self.ask(&format!("USER {}", account.login), "USER")?;
        if reply != Reply::Ok {
            return Ok(reply);
        }
        let password = account.password.octets();
        let mut line = Zeroizing::new(Vec::with_capacity(password.len() + 7));
        line.extend_from_slice(b"PASS ");
        line.extend_from_slice(password);
        line.extend_from_slice(b"\r\n");
        self.send(&line, "PASS")?;
        self.reply("PASS")
    }
}

/// What SASL PLAIN says of an account.
fn plain_line(account: &Account, password: &[u8]) -> Zeroizing<Vec<u8>> {
    let authorize = account.authorize.as_deref().unwrap_or_default().as_bytes();
    let login = account.login.as_bytes();
    let len = authorize.len() + login.len() + password.len() + 2;
    let mut plain = Zeroizing::new(Vec::with_capacity(len));
    for (part, end) in [(authorize, &b"\0"[..]), (login, b"\0"), (password, b"")] {
        plain.extend_from_slice(part);
        plain.extend_from_slice(end);
    }
    base64_line(&plain)
}

fn base64_line(octets: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut line = Zeroizing::new(vec![0; octets.len().div_ceil(3) * 4 + 2]);
    let written = STANDARD.encode_slice(octets, &mut line).expect("4 octets for each 3");
    line.truncate(written);
    line.extend_from_slice(b"\r\n");
    line
}

/// Whether an answer has the password in it: some servers repeat the line that they did not like, or the
/// beginning of it. Nothing of the password is left behind for it.
fn has_secret(said: &str, account: &Account) -> bool {
    let password = account.password.octets();
    let spoken = base64_line(password);
    // What SASL PLAIN begins with before the password: how the password goes on from there depends
    // on the length of that, and the end of a long line is not shown.
    let plain = plain_line(account, b"");
    let before = plain.trim_ascii_end().strip_suffix(b"=").unwrap_or(plain.trim_ascii_end());
    let before = &before[..before.len() / 4 * 4];
    let said = said.as_bytes();
    is_spelled_in(said, password)
        || [password, spoken.trim_ascii_end(), before]
            .iter()
            .any(|what| !what.is_empty() && memchr::memmem::find(said, what).is_some())
}

/// Whether `said`, which is printable, has `secret` in it as [`printable`](crate::capture::printable)
/// spells it; or, at its end, what was shown of that.
fn is_spelled_in(said: &[u8], secret: &[u8]) -> bool {
    let whole = said.strip_suffix(b"...").filter(|shown| shown.len() >= MAX_SHOWN).unwrap_or(said);
    (0..whole.len()).any(|at| {
        let mut left = &whole[at..];
        for (count, &octet) in secret.iter().enumerate() {
            if left.is_empty() && count > 0 && whole.len() < said.len() {
                return true;
            }
            match strip_spelled(left, octet) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        !secret.is_empty()
    })
}

/// What follows an octet that is spelled as in [`printable`](crate::capture::printable).
fn strip_spelled(text: &[u8], octet: u8) -> Option<&[u8]> {
    let digit = |digit: u8| char::from_digit(digit.into(), 16).map_or(0, |digit| digit as u8);
    match octet {
        b'\\' => text.strip_prefix(b"\\\\"),
        0x20..=0x7E => text.strip_prefix(&[octet]),
        _ => text.strip_prefix(&[b'\\', b'x', digit(octet >> 4), digit(octet & 15)]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;

    #[test]
    fn a_password_that_the_server_repeats_is_not_shown() {
        let of = |login: &str, password: &str| Account {
            user: login.into(),
            login: login.into(),
            authorize: None,
            password: Secret::new(password),
        };
        let password = of("bob", "hunter 2\u{e6}");
        for said in [
            "unknown: PASS hunter 2\u{e6}",
            "unknown: PASS hunter 2\\xc3\\xa6",
            "bad base64 aHVudGVyIDLDpg==",
            "unknown: AUTH PLAIN AGJvYgBodW50ZXIgMsOm",
            "unknown: AUTH PLAIN AGJvYgBodW5...",
        ] {
            assert!(has_secret(said, &password), "{said}");
        }
        assert!(!has_secret("[AUTH] wrong", &password));
        assert!(!has_secret("[AUTH] wrong", &of("bob", "")));
        assert!(!has_secret("unknown...", &password));
    }

    #[test]
    fn a_secret_is_found_as_it_is_printed_and_where_the_end_of_it_is_not_shown() {
        for secret in [&b"hunter2"[..], b"a\\b", b"\xe6\x00\x7f~", &[b'x'; 200], &[0xe6; 200]] {
            for before in ["", "unknown: PASS ", "hunt ", "\\"] {
                let said = crate::capture::printable(&[before.as_bytes(), secret].concat());
                assert!(is_spelled_in(said.as_bytes(), secret), "{said}");
            }
        }
        for (said, secret) in [("hunter", "hunter2"), ("", "x"), ("x", ""), ("\\xe", "\u{e6}")] {
            assert!(!is_spelled_in(said.as_bytes(), secret.as_bytes()), "{said}");
        }
    }
}
