//! Just enough IMAP to copy mail in, as imapsync does.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PASSWORD;

/// Appends messages to the INBOX, in this order, each literally as it is.
pub fn append<'a>(address: SocketAddr, user: &str, messages: impl IntoIterator<Item = &'a [u8]>) {
    let mut to = TcpStream::connect(address).expect("IMAP server");
    to.set_nodelay(true).expect("a socket");
    to.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut from = BufReader::new(to.try_clone().expect("a socket"));
    let mut expect = |wanted: &str| loop {
        let mut line = String::new();
        from.read_line(&mut line).expect("an answer");
        if line.starts_with(wanted) {
            return;
        }
        assert!(line.starts_with("* "), "wanted {wanted:?}, got {line:?}");
    };

    expect("* OK");
    write!(to, "a LOGIN \"{user}\" {PASSWORD}\r\n").expect("IMAP server");
    expect("a OK");
    for message in messages {
        write!(to, "b APPEND INBOX {{{}}}\r\n", message.len()).expect("IMAP server");
        expect("+");
        to.write_all(message).expect("IMAP server");
        to.write_all(b"\r\n").expect("IMAP server");
        expect("b OK");
    }
    to.write_all(b"c LOGOUT\r\n").expect("IMAP server");
    expect("c OK");
}
