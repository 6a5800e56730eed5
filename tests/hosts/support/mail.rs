//! Made-up mail, the same on every run, with everything in it on which servers disagree.

use std::fmt::Write;

/// One message as a server stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The stored octets, line ends as they are.
    pub octets: Vec<u8>,
}

impl Message {
    /// A message like any other; the number makes it unlike all of them.
    pub fn plain(number: u32) -> Self {
        Self::new(number, "", "Good morning.\n\nNothing to report.\n")
    }

    /// A message of everyday size: a header of two kilobytes, and four of text.
    pub fn everyday(number: u32) -> Self {
        let header = format!(
            "X-Scanned: {}\nX-Spam-Report: {}\n",
            "clean ".repeat(60),
            "\n\tpoint".repeat(120)
        );
        Self::new(
            number,
            &header,
            &"Sixty-three octets of text and a line end, as mail has them.\n".repeat(66),
        )
    }

    /// A message as a device or a script sends it through a local delivery that adds nothing: its
    /// header is that of every other with this subject.
    pub fn of_a_robot(subject: &str) -> Self {
        let text = format!("From: robot@example.com\nSubject: {subject}\n\nSee for yourself.\n");
        Self { octets: text.into_bytes() }
    }

    /// The message as an IMAP client that copies mail is given it and hands it on: every line end
    /// is CR LF.
    pub fn on_the_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.octets.len() + self.octets.len() / 32);
        for &octet in &self.octets {
            if octet == b'\n' && wire.last() != Some(&b'\r') {
                wire.push(b'\r');
            }
            wire.push(octet);
        }
        wire
    }

    /// The message as RETR gives it on a Dovecot that saved it anew: CR CR LF has become CR LF, and
    /// the last line ends.
    pub fn saved_and_retrieved(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.octets.len() + self.octets.len() / 32);
        for octet in self.on_the_wire() {
            if octet == b'\n' && wire.ends_with(b"\r\r") {
                wire.pop();
            }
            wire.push(octet);
        }
        if !wire.ends_with(b"\r\n") {
            wire.extend(b"\r\n");
        }
        wire
    }

    /// The text after the header, if a blank line ends that.
    fn new(number: u32, more_header: &str, body: &str) -> Self {
        let mut text = header(number, more_header);
        text.push('\n');
        text.push_str(body);
        Self { octets: text.into_bytes() }
    }

    fn with_crlf(mut self) -> Self {
        self.octets = self.on_the_wire();
        self
    }
}

/// A maildrop of at least 24 messages: every odd kind several times, plain ones between.
///
/// One message has a megabyte. Copies are pairs: equal in every octet.
pub fn maildrop(count: u32) -> Vec<Message> {
    assert!(count >= 24, "every kind is to be in it");
    let mut messages: Vec<Message> = (0..count).map(kind).collect();
    messages[23] = big(23);
    messages
}

/// Every kind there is, by number; 24 and above begin again with other words in them.
fn kind(number: u32) -> Message {
    match number % 24 {
        1 => Message::new(number, "", "Stored with CRLF.\n\nSecond line.\n").with_crlf(),
        2 => Message::new(number, "X-Greeting: sm\u{f8}rrebr\u{f8}d\n", "8-bit header, UTF-8.\n"),
        3 => latin1(number),
        4 => Message::new(number, ".X-Odd: a header like that\n", ".\n..\n.leading\nno . dot\n.\n"),
        5 => Message::new(number, "", ""),
        6 => Message { octets: header(number, "").into_bytes() },
        7 => Message::new(number, "", "the last line has no end"),
        8 | 9 => Message::new(number - number % 24 + 8, "", "The same twice.\n"),
        10 => without_message_id(number),
        11 => mixed_line_ends(number),
        12 => Message::new(number, "X-UIDL: from.the.sender\n", "It names a UIDL of its own.\n"),
        13 => Message::new(number, "Status: RO\nX-UID: 999\nContent-Length: 3\n", "From mbox.\n"),
        14 => Message::new(number, &format!("X-Long: {}\n", "word ".repeat(400)), "Long header.\n"),
        15 => Message::new(number, "X-Folded: one\n\ttwo\n \n   three\n", "Folded header.\n"),
        16 => Message::new(number, "", "From here on\n>From there on\n"),
        17 => Message::new(number, "", "8-bit, no line end \u{e6}\u{f8}\u{e5}").with_crlf(),
        _ => Message::plain(number),
    }
}

fn header(number: u32, more: &str) -> String {
    let mut header = received(number);
    let _ = writeln!(header, "Message-ID: <message.{number}@sender.example.net>");
    header.push_str(more);
    header.push_str("MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n");
    header
}

fn received(number: u32) -> String {
    let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
    let at = format!("Mon, 06 May 2024 {hour:02}:{minute:02}:{second:02} +0000");
    format!(
        "Return-Path: <sender{number}@sender.example.net>\n\
         Received: from mx.example.net (mx.example.net [192.0.2.1])\n\
         \tby old.example.com (Postfix) with ESMTP id 4F{number:06}\n\
         \tfor <alice@example.com>; {at} (UTC)\n\
         From: Sender {number} <sender{number}@sender.example.net>\n\
         To: alice@example.com\n\
         Subject: message {number}\n\
         Date: {at}\n"
    )
}

fn latin1(number: u32) -> Message {
    let mut message =
        Message::new(number, "X-Greeting: R?ksm?rg?s\n", "8-bit header, ISO 8859-1.\n");
    let mut letters = [0xe4, 0xf6, 0xe5].into_iter();
    for octet in message.octets.iter_mut().filter(|octet| **octet == b'?') {
        *octet = letters.next().expect("three letters");
    }
    message
}

fn without_message_id(number: u32) -> Message {
    let header = received(number);
    Message { octets: format!("{header}\nWithout a Message-ID.\n").into_bytes() }
}

fn mixed_line_ends(number: u32) -> Message {
    let mut message = Message::new(number, "", "").with_crlf();
    message.octets.extend(b"CRLF here\r\nLF here\na lone CR \r inside\r\nCR CR LF\r\r\nend\n");
    message
}

fn big(number: u32) -> Message {
    let line = "0123456789 ".repeat(6);
    let body: String =
        (0..).map(|at| format!("{at:06} {line}\n")).take(1_048_576 / 74 + 1).collect();
    Message::new(number, "", &body)
}
