//! What a server says that it can: [`Capabilities`].
#![forbid(unsafe_code)]

/// What a server says that it can, as far as it is of interest here (RFC 2449 section 6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Whether it has CAPA at all. Without CAPA nothing is known, and it may be able to do
    /// anything.
    pub known: bool,
    pub top: bool,
    pub pipelining: bool,
    /// RFC 6856. Without it Courier 5 and later wraps messages that have 8-bit headers.
    pub utf8: bool,
    /// USER and PASS.
    pub user: bool,
    pub sasl_plain: bool,
    pub sasl_login: bool,
    pub sasl_cram_md5: bool,
    /// RFC 7628.
    pub sasl_oauthbearer: bool,
    /// Google made this before RFC 7628, and Microsoft took it over.
    pub sasl_xoauth2: bool,
    /// `EXPIRE 0`: what was retrieved may be deleted at QUIT.
    pub expires_at_once: bool,
    /// How many seconds have to pass from one login to the next.
    pub login_delay: u32,
}

impl Capabilities {
    /// Takes a line of the answer to CAPA.
    pub fn take(&mut self, line: &[u8]) {
        let line = line.to_ascii_uppercase();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        match words.next().unwrap_or_default() {
            b"TOP" => self.top = true,
            b"PIPELINING" => self.pipelining = true,
            b"UTF8" => self.utf8 = true,
            b"USER" => self.user = true,
            b"SASL" => {
                for mechanism in words {
                    self.sasl_plain |= mechanism == b"PLAIN";
                    self.sasl_login |= mechanism == b"LOGIN";
                    self.sasl_cram_md5 |= mechanism == b"CRAM-MD5";
                    self.sasl_oauthbearer |= mechanism == b"OAUTHBEARER";
                    self.sasl_xoauth2 |= mechanism == b"XOAUTH2";
                }
            }
            b"EXPIRE" => self.expires_at_once = words.next() == Some(b"0"),
            b"LOGIN-DELAY" => {
                let seconds = words.next().and_then(|word| std::str::from_utf8(word).ok());
                self.login_delay = seconds.and_then(|word| word.parse().ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(lines: &[&str]) -> Capabilities {
        let mut capabilities = Capabilities::default();
        lines.iter().for_each(|line| capabilities.take(line.as_bytes()));
        capabilities
    }

    #[test]
    fn knows_what_servers_say_they_can() {
        let dovecot = capabilities(&["CAPA", "TOP", "UIDL", "PIPELINING", "SASL PLAIN LOGIN"]);
        assert!(dovecot.top && dovecot.pipelining && dovecot.sasl_plain && dovecot.sasl_login);
        assert!(!dovecot.utf8 && !dovecot.expires_at_once);
        let courier = capabilities(&["STLS", "TOP", "LOGIN-DELAY 10", "PIPELINING", "UTF8 USER"]);
        assert!(courier.utf8 && courier.login_delay == 10);
        assert!(capabilities(&["EXPIRE 0", "LOGIN-DELAY 300 USER"]).expires_at_once);
        assert!(!capabilities(&["EXPIRE NEVER", "EXPIRENEVER", "", "  "]).expires_at_once);
        assert!(!capabilities(&["SASL PLAINTEXT", "TOPS"]).sasl_plain);
        assert_eq!(capabilities(&["LOGIN-DELAY x"]).login_delay, 0);
    }
}
