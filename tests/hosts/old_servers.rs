//! The servers that people leave, each a real one: their answers to a client, word for word.

use std::net::SocketAddr;

use crate::support::courier::Courier;
use crate::support::cyrus::{self, Cyrus};
use crate::support::dovecot::{Config, Dovecot};
use crate::support::host::{Host, Line};
use crate::support::imap::Imap;
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming};
use crate::support::peer::header_end;
use crate::support::pop3::Pop3;
use crate::support::spool::{self, Program, Spool};
use uidl_keep::capture::keys::MessageRead;
use uidl_keep::capture::pop3::{
    Account, CaptureOptions, NoPace, Secret, Security, Server, Trust, capture,
};
use uidl_keep::key::Depth;

/// The number of messages that each of them has: every odd kind, and plain ones.
const COUNT: u32 = 24;

/// The answers to a client in one session.
struct Told {
    /// The capabilities before the login; none if the server knows no CAPA.
    capabilities: Option<Vec<String>>,
    uidls: Vec<String>,
    sizes: Vec<u64>,
    messages: Vec<Vec<u8>>,
    tops: Vec<Vec<u8>>,
}

fn told(address: SocketAddr, user: &str) -> Told {
    let mut session = Pop3::connect(address).expect("it greets");
    let capabilities = session
        .lines("CAPA")
        .ok()
        .map(|lines| lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect());
    session.command(&format!("USER {user}")).expect("USER");
    session.command(&format!("PASS {}", crate::support::PASSWORD)).expect("PASS");
    let uidls = session.uidl().expect("UIDL");
    let sizes = session.list().expect("LIST");
    let messages = (1..=uidls.len()).map(|at| session.retr(at).expect("RETR")).collect();
    let tops = (1..=uidls.len())
        .map(|at| {
            let mut top = session.lines(&format!("TOP {at} 0")).expect("TOP").join(&b"\r\n"[..]);
            top.extend(b"\r\n");
            top
        })
        .collect();
    session.quit().expect("QUIT");
    Told { capabilities, uidls, sizes, messages, tops }
}

/// Each message as TOP brings it with more lines than there are, as a capture asks for it.
fn whole_by_top(address: SocketAddr, user: &str, before: &[&str]) -> Vec<Vec<u8>> {
    let mut session = Pop3::connect(address).expect("it greets");
    for command in before {
        session.command(command).expect("it knows that");
    }
    session.command(&format!("USER {user}")).expect("USER");
    session.command(&format!("PASS {}", crate::support::PASSWORD)).expect("PASS");
    let count = session.uidl().expect("UIDL").len();
    let whole = |at| {
        let mut top =
            session.lines(&format!("TOP {at} 999999999")).expect("TOP").join(&b"\r\n"[..]);
        top.extend(b"\r\n");
        top
    };
    let messages = (1..=count).map(whole).collect();
    session.quit().expect("QUIT");
    messages
}

/// Returns how many messages of the INBOX have `\Seen`.
fn seen(address: SocketAddr, user: &str) -> usize {
    let mut session = Imap::login(address, user);
    session.command("EXAMINE INBOX");
    let fetched = session.command("FETCH 1:* (FLAGS)");
    session.logout();
    assert_eq!(fetched.iter().filter(|line| line.contains("FETCH")).count(), COUNT as usize);
    fetched.iter().filter(|line| line.contains("\\Seen")).count()
}

impl Told {
    /// Whether TOP shows the header that RETR shows.
    fn tops_are_headers(&self) -> bool {
        self.tops.iter().zip(&self.messages).all(|(top, message)| message.starts_with(top))
    }

    /// The UIDLs of the two copies in [`mail::maildrop`].
    fn of_copies(&self) -> (&str, &str) {
        (&self.uidls[8], &self.uidls[9])
    }

    /// The difference between LIST and the true size for each message.
    fn sizes_off(&self) -> Vec<i64> {
        let sent = self.messages.iter().map(|message| i64::try_from(message.len()).expect("small"));
        self.sizes
            .iter()
            .zip(sent)
            .map(|(&size, sent)| i64::try_from(size).expect("small") - sent)
            .collect()
    }
}

fn is_hex(uidl: &str, digits: usize) -> bool {
    uidl.len() == digits && uidl.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'))
}

/// A server of the mail spool, with mail.
fn spool(program: Program) -> Option<Spool> {
    let server = Spool::start(&Host::old_servers()?, program);
    server.deliver(&mail::maildrop(COUNT));
    Some(server)
}

#[test]
fn popa3d_tells_16_digits_and_the_same_of_copies() {
    let Some(server) = spool(Program::Popa3d) else { return };
    let before = std::fs::read(server.mbox()).expect("an mbox");
    let by_top = whole_by_top(server.pop3(), spool::USER, &[]);
    let told = told(server.pop3(), spool::USER);
    assert!(by_top == told.messages);
    assert_eq!(told.capabilities, None);
    assert_eq!(told.uidls.len(), COUNT as usize);
    assert!(told.uidls.iter().all(|uidl| is_hex(uidl, 16)), "{:?}", told.uidls);
    let (one, other) = told.of_copies();
    assert_eq!(one, other);
    assert!(told.tops_are_headers());
    assert_eq!(told.sizes_off(), [0; COUNT as usize]);
    assert_eq!(std::fs::read(server.mbox()).expect("an mbox"), before, "it writes nothing");
}

#[test]
fn solid_pop3d_tells_32_digits_and_the_same_of_copies() {
    let Some(server) = spool(Program::Solid) else { return };
    let by_top = whole_by_top(server.pop3(), spool::USER, &[]);
    let told = told(server.pop3(), spool::USER);
    assert!(by_top == told.messages);
    assert_eq!(told.capabilities, None);
    assert_eq!(told.uidls.len(), COUNT as usize);
    assert!(told.uidls.iter().all(|uidl| is_hex(uidl, 32)), "{:?}", told.uidls);
    let (one, other) = told.of_copies();
    assert_eq!(one, other);
    assert!(told.tops_are_headers());
    // RETR sends the line between two messages of the mbox too.
    assert!(told.messages.iter().all(|message| message.ends_with(b"\r\n\r\n")));
    assert_eq!(told.sizes_off(), [0; COUNT as usize]);
}

#[test]
fn solid_pop3d_tells_32_digits_of_maildir_names() {
    let Some(host) = Host::old_servers() else { return };
    let server = Spool::start(&host, Program::SolidMaildir);
    for number in 0..COUNT {
        server.maildir().deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let by_top = whole_by_top(server.pop3(), spool::USER, &[]);
    let told = told(server.pop3(), spool::USER);
    assert!(by_top == told.messages);
    assert_eq!(told.uidls.len(), COUNT as usize);
    assert!(told.uidls.iter().all(|uidl| is_hex(uidl, 32)), "{:?}", told.uidls);
}

#[test]
fn mailutils_tells_what_it_has_written_into_the_mbox() {
    let Some(server) = spool(Program::Mailutils) else { return };
    let mbox =
        || String::from_utf8_lossy(&std::fs::read(server.mbox()).expect("an mbox")).into_owned();
    let is_read = |line: &&str| line.starts_with("Status: ") && line.contains('R');
    let read = || mbox().lines().filter(is_read).count();
    // One was in another mbox before. A message that a session lists is old then, O, and not read.
    assert_eq!(read(), 1);
    whole_by_top(server.pop3(), spool::USER, &[]);
    assert_eq!(read(), 1, "TOP marks nothing");
    let first = told(server.pop3(), spool::USER);
    assert_eq!(read(), COUNT as usize, "RETR does");
    let second = told(server.pop3(), spool::USER);
    let by_top = whole_by_top(server.pop3(), spool::USER, &[]);
    // It has one empty line too many there, so that its size is not the one that LIST tells.
    for (by_top, message) in by_top.iter().zip(&second.messages) {
        let header = header_end(message);
        let (head, body) = message.split_at(header);
        assert!(*by_top == [head, b"\r\n", body].concat());
    }
    let capabilities = first.capabilities.as_ref().expect("it knows CAPA");
    assert!(capabilities.iter().any(|line| line == "UIDL"));
    assert_eq!(first.uidls.len(), COUNT as usize);
    assert_eq!(first.uidls, second.uidls);
    assert_eq!(first.uidls[12], "from.the.sender");
    let (one, other) = first.of_copies();
    assert_ne!(one, other);
    assert_eq!(one.split('.').next(), other.split('.').next());
    let mbox = mbox();
    for uidl in &first.uidls {
        assert!(mbox.contains(&format!("\nX-UIDL: {uidl}\n")), "{uidl}");
    }
    assert!(second.tops_are_headers());
    assert_eq!(second.sizes_off(), [0; COUNT as usize]);
}

/// Messages that nothing names, equal except for copies, with a line in them that begins with
/// `>From `.
fn warnings(count: usize) -> Vec<u8> {
    let from = "From sender@example.net Mon May  6 10:00:00 2024\n";
    format!("{from}From: root\nSubject: full\n\n>From now on\nthere is no room\n\n")
        .repeat(count)
        .into()
}

#[test]
fn mailutils_gives_no_text_after_top_and_all_of_it_is_captured() {
    let Some(host) = Host::old_servers() else { return };
    let server = Spool::start(&host, Program::Mailutils);
    server.put(&warnings(6));
    Pop3::login(server.pop3(), spool::USER).expect("it lets in").quit().expect("QUIT");
    let whole = told(server.pop3(), spool::USER).messages;
    let mut session = Pop3::login(server.pop3(), spool::USER).expect("it lets in");
    session.lines("TOP 6 0").expect("TOP");
    assert!(session.retr(6).expect("RETR").len() < whole[5].len(), "mailutils is as it was");
    session.quit().expect("QUIT");

    let account = Account {
        user: "alice".into(),
        login: spool::USER.into(),
        authorize: None,
        credential: Secret::new(crate::support::PASSWORD).into(),
    };
    let address = server.pop3();
    let (host, port) = (address.ip().to_string(), address.port());
    let there = Server { host, port, security: Security::Clear, trust: Trust::System };
    let captured =
        capture(&there, &account, &CaptureOptions::new(&NoPace, &|_| ())).expect("a capture");
    assert_eq!(captured.losses, [""; 0]);
    let keys: Vec<_> = captured.maildrop.entries.iter().map(|entry| entry.message).collect();
    let of =
        |message: &Vec<u8>| MessageRead::read(&message[..], Depth::Message).expect("in memory").of;
    let wanted: Vec<_> = whole.iter().map(|message| of(message).message).collect();
    assert_eq!(keys, wanted);
}

#[test]
fn cyrus_tells_uidvalidity_and_uid() {
    let Some(host) = Host::old_servers() else { return };
    let server = Cyrus::start(&host, "");
    let mut session = Imap::login(server.imap(), cyrus::USER);
    for message in mail::maildrop(COUNT) {
        session.append(&message.on_the_wire());
    }
    session.logout();
    let by_top = whole_by_top(server.pop3(), cyrus::USER, &[]);
    let told = told(server.pop3(), cyrus::USER);
    assert!(by_top == told.messages);
    assert_eq!(seen(server.imap(), cyrus::USER), 0, "neither marks anything");
    assert!(server.inbox().join("cyrus.index").exists());
    let uidvalidity = told.uidls[0].split_once('.').expect("UIDVALIDITY.UID").0;
    let expected: Vec<String> = (1..=COUNT).map(|uid| format!("{uidvalidity}.{uid}")).collect();
    assert_eq!(told.uidls, expected);
    assert!(told.tops_are_headers());
    // It counts no end for a last line that has none, and sends one.
    let mut off = [0; COUNT as usize];
    (off[7], off[17]) = (-2, -2);
    assert_eq!(told.sizes_off(), off);
}

#[test]
fn dovecot_marks_what_is_retrieved_and_not_what_top_brings() {
    for line in Line::asked() {
        let Some(host) = Host::dovecot(line) else { continue };
        let Some(server) = Dovecot::start(&host, Config::default()) else { continue };
        let maildir = Maildir::create(server.mail("alice"));
        for (number, message) in (0..).zip(mail::maildrop(COUNT)) {
            maildir.deliver(&message, Naming::Dovecot, number);
        }
        let before = seen(server.imap(), "alice");
        assert!(before < COUNT as usize);
        let by_top = whole_by_top(server.pop3(), "alice", &[]);
        assert_eq!(seen(server.imap(), "alice"), before, "TOP marks nothing");
        let told = told(server.pop3(), "alice");
        assert!(by_top == told.messages);
        assert_eq!(seen(server.imap(), "alice"), COUNT as usize, "RETR does");
    }
}

#[test]
fn courier_lets_users_log_in_and_wraps_what_has_an_8_bit_header() {
    let Some(host) = Host::courier() else { return };
    let user = "alice@example.com";
    let courier = Courier::new(&host);
    let maildir = courier.maildir(user);
    for (number, message) in (0..).zip(mail::maildrop(COUNT)) {
        maildir.deliver(&message, Naming::Courier, number);
    }
    let server = courier.listen(user);
    let names = || -> Vec<String> {
        let cur = std::fs::read_dir(maildir.path().join("cur")).expect("a Maildir");
        cur.map(|file| file.expect("a file").file_name().into_string().expect("ASCII")).collect()
    };
    let is_seen =
        |name: &&String| name.split_once(":2,").is_some_and(|(_, flags)| flags.contains('S'));
    let before = names().iter().filter(is_seen).count();
    assert!(before < COUNT as usize);
    let by_top = whole_by_top(server.pop3(), user, &["UTF8"]);
    assert_eq!(names().iter().filter(is_seen).count(), before, "TOP marks nothing");
    let told = told(server.pop3(), user);
    assert_eq!(names().iter().filter(is_seen).count(), COUNT as usize, "RETR does");
    for (at, (by_top, message)) in by_top.iter().zip(&told.messages).enumerate() {
        assert!(by_top == message || [2, 3].contains(&at), "message {}", at + 1);
    }
    assert_eq!(told.uidls, courier.uidl(user));
    assert!(told.uidls.iter().all(|uidl| uidl.starts_with("UID")), "{:?}", told.uidls);
    let wrapped = |message: &[u8]| {
        String::from_utf8_lossy(message).contains("Subject: Cannot display Unicode content")
    };
    let found: Vec<usize> =
        (0..told.messages.len()).filter(|&at| wrapped(&told.messages[at])).collect();
    assert_eq!(found, [2, 3]);
}
