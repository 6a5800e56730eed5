//! From the greeting to a session that is logged in: CAPA, STLS, and the ways to say a password.
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use zeroize::{Zeroize, Zeroizing};

use crate::capture::pop3::account::{Account, Credential};
use crate::capture::pop3::capabilities::Capabilities;
use crate::capture::pop3::fault::{Fault, WITHHELD};
use crate::capture::pop3::secret::Secret;
use crate::capture::pop3::session::{Reply, Session};
use crate::encoding::Hex;
use crate::text::{MAX_SHOWN, printable};

/// The longest list of capabilities, in octets.
const MAX_CAPA_OCTETS: u64 = 64 << 10;

/// The longest command line (RFC 2449 section 4), CR LF with it.
const MAX_COMMAND_OCTETS: usize = 255;

impl<S: Read + Write> Session<S> {
    /// Reads the greeting.
    pub(super) fn be_greeted(&mut self) -> Result<(), Fault> {
        match self.reply("the connection")? {
            Reply::Refused(refusal) => Err(Fault::Greeting(refusal)),
            Reply::Ok | Reply::More => {
                self.set_greeting(self.last_line().to_vec());
                Ok(())
            }
        }
    }

    /// Asks for the capabilities. A server that has no CAPA after the login keeps those that it had
    /// before.
    pub(super) fn ask_capabilities(&mut self) -> Result<(), Fault> {
        match self.ask("CAPA", "CAPA")? {
            Reply::Ok => {
                let mut capabilities = Capabilities { known: true, ..Capabilities::default() };
                self.lines("CAPA", MAX_CAPA_OCTETS, |line| capabilities.take(line))?;
                self.set_capabilities(capabilities);
                Ok(())
            }
            // Dovecot lets somebody in, cannot open the maildrop, says so unasked, and hangs up.
            Reply::Refused(refusal) if refusal.is_temporary() && refusal.has_code() => {
                Err(Fault::Refused { command: "CAPA", refusal })
            }
            Reply::Refused(_) | Reply::More => Ok(()),
        }
    }

    /// Says that headers may be 8-bit, where the server wants to know. A refusal changes nothing.
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

    /// Logs in by what the server offers. With a password by SASL PLAIN, SASL LOGIN, or USER and
    /// PASS; where it offers or takes none of them, and nobody can read along, by SASL CRAM-MD5 or
    /// APOP. With a token by SASL OAUTHBEARER or XOAUTH2.
    ///
    /// Tries once, and one way: an address that says a refused password again gets banned.
    pub(super) fn log_in(&mut self, account: &Account, secret: &Secret) -> Result<(), Fault> {
        for (what, octets) in [
            ("login name", account.login.as_bytes()),
            ("name to log in for", account.authorize.as_deref().unwrap_or_default().as_bytes()),
            ("password", secret.octets()),
        ] {
            if octets.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
                return Err(Fault::Unspeakable { what });
            }
        }
        let capabilities = self.capabilities();
        let is_token = matches!(account.credential, Credential::Token(_));
        let has_none = capabilities.known
            && !(capabilities.user || capabilities.sasl_plain || capabilities.sasl_login);
        let reply = match &account.authorize {
            _ if is_token => self.say_token(account, secret),
            Some(_) if capabilities.known && !capabilities.sasl_plain => Err(Fault::NoPlain),
            Some(_) => self.say_plain(account, secret),
            None if capabilities.sasl_plain => self.say_plain(account, secret),
            None if capabilities.sasl_login => self.say_login(account, secret),
            None => match self.md5() {
                Some(md5) if has_none => self.say_md5(account, secret, md5),
                Some(md5) => match self.say_user(account, secret)? {
                    // Dovecot lists USER where it takes no PASS either.
                    Reply::Refused(refusal) if refusal.is_of_the_way() => {
                        self.say_md5(account, secret, md5)
                    }
                    reply => Ok(reply),
                },
                None => self.say_user(account, secret),
            },
        };
        match reply {
            Err(Fault::Garbled { command, mut said }) if has_secret(&said, account, secret) => {
                said.zeroize();
                Err(Fault::Garbled { command, said: WITHHELD.into() })
            }
            Err(fault) => Err(fault),
            Ok(Reply::Ok) => Ok(()),
            Ok(Reply::Refused(refusal)) if has_secret(refusal.said(), account, secret) => {
                Err(Fault::Login(refusal.without_words()))
            }
            Ok(Reply::Refused(refusal)) => Err(Fault::Login(refusal)),
            Ok(Reply::More) => {
                Err(Fault::Garbled { command: "the login", said: "it asks for more".into() })
            }
        }
    }

    /// RFC 4616.
    fn say_plain(&mut self, account: &Account, password: &Secret) -> Result<Reply, Fault> {
        self.say_sasl("PLAIN", &plain_line(account, password.octets()))
    }

    /// Uses the mechanism that the server has, or, where that is not known, the one that most have.
    /// A server that refuses a token says why before it says `-ERR`, and waits for a word in
    /// between.
    fn say_token(&mut self, account: &Account, token: &Secret) -> Result<Reply, Fault> {
        let capabilities = self.capabilities();
        let (mechanism, line, last_word) = if capabilities.sasl_oauthbearer {
            ("OAUTHBEARER", oauthbearer_line(&account.login, token), &b"AQ==\r\n"[..])
        } else if capabilities.sasl_xoauth2 || !capabilities.known {
            ("XOAUTH2", xoauth2_line(&account.login, token), &b"\r\n"[..])
        } else {
            return Err(Fault::NoBearer);
        };
        let reply = self.say_sasl(mechanism, &line)?;
        if reply != Reply::More {
            return Ok(reply);
        }
        let status = status_of(self.last_line());
        self.send(last_word, "AUTH")?;
        Ok(match self.reply("AUTH")? {
            Reply::Refused(refusal) => Reply::Refused(refusal.of_token(status.as_deref())),
            other => other,
        })
    }

    /// Sends the client's first words with the command where that is short enough (RFC 5034
    /// section 4).
    fn say_sasl(&mut self, mechanism: &str, line: &[u8]) -> Result<Reply, Fault> {
        let command = Zeroizing::new([b"AUTH ", mechanism.as_bytes(), b" ", line].concat());
        let reply = if command.len() <= MAX_COMMAND_OCTETS {
            self.send(&command, "AUTH")?;
            self.reply("AUTH")?
        } else {
            let reply = self.ask(&format!("AUTH {mechanism}"), "AUTH")?;
            return self.go_on_with(line, reply);
        };
        // This serves RFC 1734 as well, which has no initial response. A token is said again only
        // where the server has not refused it.
        let is_to_say = mechanism == "PLAIN" || challenge_in(self.last_line()).is_empty();
        if is_to_say { self.go_on_with(line, reply) } else { Ok(reply) }
    }

    fn go_on_with(&mut self, line: &[u8], reply: Reply) -> Result<Reply, Fault> {
        if reply != Reply::More {
            return Ok(reply);
        }
        self.send(line, "AUTH")?;
        self.reply("AUTH")
    }

    /// The MD5 by which the server takes a password.
    fn md5(&self) -> Option<ByMd5> {
        if self.capabilities().sasl_cram_md5 {
            return Some(ByMd5::Cram);
        }
        timestamp(self.greeting()).map(|timestamp| ByMd5::Apop(timestamp.to_vec()))
    }

    /// Shows the MD5 only where nobody can read along: whoever has it can try passwords at leisure.
    fn say_md5(
        &mut self,
        account: &Account,
        password: &Secret,
        md5: ByMd5,
    ) -> Result<Reply, Fault> {
        match md5 {
            ByMd5::Cram if self.is_secret() => self.say_cram_md5(account, password),
            ByMd5::Apop(timestamp) if self.is_secret() => {
                self.say_apop(account, password, &timestamp)
            }
            ByMd5::Cram => Err(Fault::WeakLogin { offered: "AUTH CRAM-MD5" }),
            ByMd5::Apop(_) => Err(Fault::WeakLogin { offered: "APOP" }),
        }
    }

    /// RFC 2195: the password is the key of an HMAC of what the server has made up.
    fn say_cram_md5(&mut self, account: &Account, password: &Secret) -> Result<Reply, Fault> {
        let reply = self.ask("AUTH CRAM-MD5", "AUTH")?;
        if reply != Reply::More {
            return Ok(reply);
        }
        let challenge = STANDARD
            .decode(challenge_in(self.last_line()))
            .map_err(|_| Fault::Garbled { command: "AUTH", said: printable(self.last_line()) })?;
        let mut hmac = Hmac::<Md5>::new_from_slice(password.octets()).expect("a key of any length");
        hmac.update(&challenge);
        let answer = format!("{} {}", account.login, Hex(&hmac.finalize().into_bytes()));
        self.send(&base64_line(answer.as_bytes()), "AUTH")?;
        self.reply("AUTH")
    }

    /// RFC 1939 section 7: the MD5 of what the server greeted with and the password.
    fn say_apop(
        &mut self,
        account: &Account,
        password: &Secret,
        timestamp: &[u8],
    ) -> Result<Reply, Fault> {
        let digest = Md5::new().chain_update(timestamp).chain_update(password.octets()).finalize();
        self.ask(&format!("APOP {} {}", account.login, Hex(&digest)), "APOP")
    }

    fn say_login(&mut self, account: &Account, password: &Secret) -> Result<Reply, Fault> {
        let mut reply = self.ask("AUTH LOGIN", "AUTH")?;
        for answer in [account.login.as_bytes(), password.octets()] {
            if reply != Reply::More {
                break;
            }
            self.send(&base64_line(answer), "AUTH")?;
            reply = self.reply("AUTH")?;
        }
        Ok(reply)
    }

    fn say_user(&mut self, account: &Account, password: &Secret) -> Result<Reply, Fault> {
        let reply = self.ask(&format!("USER {}", account.login), "USER")?;
        if reply != Reply::Ok {
            return Ok(reply);
        }
        let password = password.octets();
        let mut line = Zeroizing::new(Vec::with_capacity(password.len() + 7));
        line.extend_from_slice(b"PASS ");
        line.extend_from_slice(password);
        line.extend_from_slice(b"\r\n");
        self.send(&line, "PASS")?;
        self.reply("PASS")
    }
}

/// A way to show that one knows a password.
enum ByMd5 {
    Cram,
    /// With what the server greeted.
    Apop(Vec<u8>),
}

/// The line of SASL PLAIN for an account.
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

/// RFC 7628 section 3.1.
fn oauthbearer_line(login: &str, token: &Secret) -> Zeroizing<Vec<u8>> {
    // RFC 5801 section 4 spells names so.
    let login = login.replace('=', "=3D").replace(',', "=2C");
    bearer_line(&format!("n,a={login},\x01auth=Bearer "), token)
}

/// developers.google.com/gmail/imap/xoauth2-protocol, "The SASL XOAUTH2 Mechanism".
fn xoauth2_line(login: &str, token: &Secret) -> Zeroizing<Vec<u8>> {
    bearer_line(&format!("user={login}\x01auth=Bearer "), token)
}

fn bearer_line(before: &str, token: &Secret) -> Zeroizing<Vec<u8>> {
    base64_line(&Zeroizing::new([before.as_bytes(), token.octets(), b"\x01\x01"].concat()))
}

/// The status of a token that the server refuses, from the JSON within its challenge (RFC 7628
/// section 3.2.2).
fn status_of(line: &[u8]) -> Option<String> {
    let json = STANDARD.decode(challenge_in(line)).ok()?;
    let said: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let status = said.get("status")?;
    Some(status.as_str().map_or_else(|| status.to_string(), str::to_owned))
}

/// What follows the `+` of a challenge.
fn challenge_in(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"+").unwrap_or(line).trim_ascii()
}

/// The message-id in the greeting of a server that knows APOP, brackets and all.
fn timestamp(greeting: &[u8]) -> Option<&[u8]> {
    let start = memchr::memchr(b'<', greeting)?;
    let end = start + memchr::memchr(b'>', &greeting[start..])?;
    let timestamp = &greeting[start..=end];
    timestamp.contains(&b'@').then_some(timestamp)
}

fn base64_line(octets: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut line = Zeroizing::new(vec![0; octets.len().div_ceil(3) * 4 + 2]);
    let written = STANDARD.encode_slice(octets, &mut line).expect("4 octets for each 3");
    line.truncate(written);
    line.extend_from_slice(b"\r\n");
    line
}

/// Whether an answer has the password in it: some servers repeat the line that they did not like,
/// or its beginning. Looking for it leaves nothing of the password behind.
fn has_secret(said: &str, account: &Account, secret: &Secret) -> bool {
    let password = secret.octets();
    let spoken = base64_line(password);
    // The beginning of SASL PLAIN before the password. Its length decides how the password is
    // spelled, and the end of a long line is not shown.
    let plain = plain_line(account, b"");
    let before = plain.trim_ascii_end().strip_suffix(b"=").unwrap_or(plain.trim_ascii_end());
    let before = &before[..before.len() / 4 * 4];
    let said = said.as_bytes();
    is_spelled_in(said, password)
        || [password, spoken.trim_ascii_end(), before]
            .iter()
            .any(|what| !what.is_empty() && memchr::memmem::find(said, what).is_some())
}

/// Whether `said`, which is printable, has `secret` in it as
/// [`printable`] spells it; or, at its end, what was shown of that.
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

/// The text behind an octet that is spelled as in [`printable`].
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
    use super::*;
    use crate::capture::pop3::secret::Secret;

    #[test]
    fn tokens_are_said_as_the_mechanisms_have_it() {
        let said = |line: Zeroizing<Vec<u8>>| {
            String::from_utf8(STANDARD.decode(line.trim_ascii_end()).unwrap()).unwrap()
        };
        let token = Secret::new("vF9dft4qmT");
        let xoauth2 = said(xoauth2_line("someuser@example.com", &token));
        assert_eq!(xoauth2, "user=someuser@example.com\x01auth=Bearer vF9dft4qmT\x01\x01");
        let bearer = said(oauthbearer_line("a=b,c@example.com", &token));
        assert_eq!(bearer, "n,a=a=3Db=2Cc@example.com,\x01auth=Bearer vF9dft4qmT\x01\x01");
        let refused = b"+ eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=";
        assert_eq!(status_of(refused).as_deref(), Some("invalid_token"));
        assert_eq!(status_of(b"+ "), None);
    }

    #[test]
    fn a_greeting_may_have_a_timestamp() {
        let stamp = b"<1896.697170952@dbc.mtview.ca.us>";
        let greeting = [b"+OK POP3 server ready ", &stamp[..]].concat();
        assert_eq!(timestamp(&greeting), Some(&stamp[..]));
        for none in ["+OK ready", "+OK <ready>", "+OK a@b>", "+OK <a@b"] {
            assert_eq!(timestamp(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_password_that_the_server_repeats_is_not_shown() {
        let bob = Account {
            user: "bob".into(),
            login: "bob".into(),
            authorize: None,
            credential: Secret::new("").into(),
        };
        let has_secret =
            |said: &str, password: &str| has_secret(said, &bob, &Secret::new(password));
        let password = "hunter 2\u{e6}";
        for said in [
            "unknown: PASS hunter 2\u{e6}",
            "unknown: PASS hunter 2\\xc3\\xa6",
            "bad base64 aHVudGVyIDLDpg==",
            "unknown: AUTH PLAIN AGJvYgBodW50ZXIgMsOm",
            "unknown: AUTH PLAIN AGJvYgBodW5...",
        ] {
            assert!(has_secret(said, password), "{said}");
        }
        assert!(!has_secret("[AUTH] wrong", password));
        assert!(!has_secret("[AUTH] wrong", ""));
        assert!(!has_secret("unknown...", password));
    }

    #[test]
    fn a_secret_is_found_as_it_is_printed_and_where_the_end_of_it_is_not_shown() {
        for secret in [&b"hunter2"[..], b"a\\b", b"\xe6\x00\x7f~", &[b'x'; 200], &[0xe6; 200]] {
            for before in ["", "unknown: PASS ", "hunt ", "\\"] {
                let said = crate::text::printable(&[before.as_bytes(), secret].concat());
                assert!(is_spelled_in(said.as_bytes(), secret), "{said}");
            }
        }
        for (said, secret) in [("hunter", "hunter2"), ("", "x"), ("x", ""), ("\\xe", "\u{e6}")] {
            assert!(!is_spelled_in(said.as_bytes(), secret.as_bytes()), "{said}");
        }
    }
}
