//! Just enough IMAP to copy mail in, as imapsync does, and to move it about, as people do.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PASSWORD;

/// A session that has logged in.
pub struct Imap {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Imap {
    /// Connects and logs in.
    pub fn login(address: SocketAddr, user: &str) -> Self {
        let to = TcpStream::connect(address).expect("IMAP server");
        to.set_nodelay(true).expect("a socket");
        to.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let from = BufReader::new(to.try_clone().expect("a socket"));
        let mut session = Self { to, from };
        session.until("* OK");
        session.command(&format!("LOGIN \"{user}\" {PASSWORD}"));
        session
    }

    /// Sends a command and insists on OK. Returns what was said untagged before it.
    pub fn command(&mut self, command: &str) -> Vec<String> {
        write!(self.to, "a {command}\r\n").expect("IMAP server");
        self.until("a OK")
    }

    /// Appends a message to the INBOX, literally as it is.
    pub fn append(&mut self, message: &[u8]) {
        self.append_with("", message);
    }

    /// Does the same, with a date and a blank before the message.
    fn append_with(&mut self, date: &str, message: &[u8]) {
        write!(self.to, "a APPEND INBOX {date}{{{}}}\r\n", message.len()).expect("IMAP server");
        self.until("+");
        self.to.write_all(message).expect("IMAP server");
        self.to.write_all(b"\r\n").expect("IMAP server");
        self.until("a OK");
    }

    /// Ends the session.
    pub fn logout(mut self) {
        self.command("LOGOUT");
    }

    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut untagged = Vec::new();
        loop {
            let mut line = String::new();
            self.from.read_line(&mut line).expect("an answer");
            if line.starts_with(wanted) {
                return untagged;
            }
            assert!(line.starts_with("* "), "wanted {wanted:?}, got {line:?}");
            untagged.push(line.trim_end().to_owned());
        }
    }
}

/// Appends messages to the INBOX as copying programs do: each has the time at which it came to the
/// old server, which is long ago.
pub fn append_old<'a>(
    address: SocketAddr,
    user: &str,
    messages: impl IntoIterator<Item = &'a [u8]>,
) {
    let mut session = Imap::login(address, user);
    for message in messages {
        session.append_with("\"01-Jan-2020 00:00:00 +0000\" ", message);
    }
    session.logout();
}

/// Appends messages to the INBOX, in this order, each literally as it is.
pub fn append<'a>(address: SocketAddr, user: &str, messages: impl IntoIterator<Item = &'a [u8]>) {
    let mut session = Imap::login(address, user);
    for message in messages {
        session.append(message);
    }
    session.logout();
}
