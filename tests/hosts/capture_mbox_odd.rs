//! Mboxes with something odd about them. Each is given to a real server and then captured from its
//! disk: the capture has what that server lists and gives, or fails if the server lets nobody in.

use std::fs;
use std::path::Path;

use crate::support::PASSWORD;
use crate::support::dovecot::{Config, Dovecot, mail_at};
use crate::support::host::{Host, Line};
use crate::support::maildir::give_to_owner;
use crate::support::pop3::Pop3;
use crate::support::spool::{self, Program, Spool};
use uidl_keep::capture;
use uidl_keep::capture::disk::mbox::server::MboxServer;
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::{Keys, MessageRead};
use uidl_keep::format::UidlFormat;
use uidl_keep::key::Depth;
use uidl_keep::maildrop::State;

/// The UIDLs and the messages that a client is told.
struct Told {
    uidls: Vec<String>,
    messages: Vec<Vec<u8>>,
}

/// Returns all of it, from one session.
fn told(mut session: Pop3) -> Told {
    let uidls = session.uidl().expect("UIDL");
    let messages = (1..=uidls.len()).map(|at| session.retr(at).expect("RETR")).collect();
    session.quit().expect("QUIT");
    Told { uidls, messages }
}

fn all_keys() -> Keys {
    Keys { file: true, header: true, message: true, origin: true }
}

fn captured(server: MboxServer, mbox: &Path) -> Captured {
    let source = Source::named("alice@example.com", mbox);
    capture::disk::server::capture(
        &capture::disk::server::ServerKind::Mbox(server),
        all_keys(),
        &source,
    )
}

/// Returns what a capture has otherwise than the client was told; nothing if the server lets nobody
/// in and the capture says that it failed.
fn unlike(captured: &Captured, told: Option<Told>) -> Option<String> {
    let maildrop = &captured.maildrop;
    let Some(told) = told else {
        let state = maildrop.state;
        return (state != State::Failed).then(|| format!("{state:?}, and nobody is let in"));
    };
    let of = |message: &[u8]| MessageRead::read(message, Depth::Message).expect("in memory").of;
    // A message that nothing names is spent, and that is said.
    let named = || told.uidls.iter().zip(&told.messages).filter(|(_, m)| of(m).message.is_some());
    let are_all_named = named().count() == told.uidls.len();
    let is_said = |loss: &String| loss.contains("have nothing that names them");
    let uidls: Vec<String> = maildrop.entries.iter().map(|entry| entry.uidl.to_string()).collect();
    if !uidls.iter().eq(named().map(|(uidl, _)| uidl))
        || !captured.losses.iter().all(is_said)
        || captured.losses.is_empty() != are_all_named
    {
        return Some(format!("{uidls:?}, told {:?}: {:?}", told.uidls, captured.losses));
    }
    maildrop.entries.iter().zip(named()).find_map(|(entry, (_, message))| {
        let of = of(message);
        let captured = (entry.header, entry.origin, entry.message);
        let shown = || format!("other keys than of:\n{}", String::from_utf8_lossy(message));
        (captured != (of.header, of.origin, of.message)).then(shown)
    })
}

/// Returns what a spool server tells of an mbox, and the capture of what it leaves. `None` if there
/// is no such server here, or it does not let the client in.
fn of_the_spool(
    program: Program,
    mbox: &[u8],
    server: MboxServer,
) -> Option<(Option<Told>, Captured)> {
    let spool = Spool::start(&Host::old_servers()?, program);
    spool.put(mbox);
    // Some write in the first session what the second lists.
    let told = [(); 2].map(|()| Pop3::login(spool.pop3(), spool::USER).ok().map(told));
    let [_, told] = told;
    Some((told, captured(server, &spool.mbox())))
}

fn of_dovecot(mbox: &[u8]) -> Option<(Option<Told>, Captured)> {
    let host = Host::dovecot(Line::subject())?;
    let extra = mail_at(Line::subject(), "mbox", "~/mail", &[("INBOX", "~/inbox")]);
    let server = Dovecot::start(&host, Config { extra, ..Config::default() })?;
    let inbox = server.home("alice").join("inbox");
    fs::write(&inbox, mbox).expect("our directory");
    give_to_owner(&inbox);
    let told = told(server.login("alice").unwrap_or_else(|e| panic!("{PASSWORD}: {e:?}")));
    let format = UidlFormat::parse("%08Xu%08Xv").expect("a format");
    Some((Some(told), captured(MboxServer::Dovecot { format }, &inbox)))
}

const FROM: &str = "From sender@example.net Mon May  6 10:00:00 2024\n";

fn plain(n: u32) -> String {
    format!("{FROM}From: p{n}@example.net\nDate: {n} May\nMessage-ID: <p{n}>\n\nhello {n}\n\n")
}

/// Odd mboxes, by name.
fn odd() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mbox/odd");
    let mut odd: Vec<_> = fs::read_dir(dir)
        .expect("it is there")
        .map(|entry| entry.expect("a file"))
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    for (name, octets) in odd.iter_mut().filter(|(name, _)| name.ends_with(".eml")) {
        *octets = [FROM.as_bytes(), octets, b"\n\n", plain(1).as_bytes()].concat();
        name.push_str(", delivered");
    }
    let mut add = |name: &str, text: String| odd.push((name.to_owned(), text.into_bytes()));
    let crlf = |text: &str| text.replace('\n', "\r\n");
    // A header ends at CR LF, and fields behind it belong to the body.
    let body =
        "Message-ID: <of-the-body@example.net>\nReceived: x; 1 May\nX-UIDL: of.the.body.itself\n";
    add("crlf", {
        let header = crlf("From: c@example.net\nDate: 7 May\nMessage-ID: <c>\nSubject: c\n\n");
        format!("{}{FROM}{header}{}\n{}", plain(1), crlf(body), plain(2))
    });
    add("from-lines-within", {
        let header = "Date: 7 May\nMessage-ID: <f>\n";
        format!("{}{FROM}{FROM}{header}{FROM}{header}\nx\n\n{}", plain(1), plain(2))
    });
    for field in ["Subject", "From", "Status", "X-UIDL", "X-UID", "Content-Length"] {
        let many = format!("{field}: x\n").repeat(100);
        let header = format!("Date: 7 May\nMessage-ID: <c>\n{many}");
        add(&format!("100-{field}"), format!("{}{FROM}{header}\nx\n\n{}", plain(1), plain(2)));
    }
    for line in
        ["From x", "From x: y", "From x y Tue May  7 11:00:00 2024", ">From x: y", "no colon"]
    {
        let header = format!("Date: 7 May\nMessage-ID: <c>\n{line}\nTo: a\n");
        add(
            &format!("in a header: {line}"),
            format!("{}{FROM}{header}\nx\n\n{}", plain(1), plain(2)),
        );
    }
    odd.sort();
    odd
}

/// Captures each of them with what a server tells of it, and insists that both are alike.
fn compare(of: impl Fn(&[u8]) -> Option<(Option<Told>, Captured)>) {
    let mut wrong = Vec::new();
    for (name, mbox) in odd() {
        let Some((told, captured)) = of(&mbox) else { return };
        wrong.extend(unlike(&captured, told).map(|why| format!("{name}: {why}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_popa3d_reads_oddly_is_captured_as_it_lists_and_gives_it() {
    compare(|mbox| of_the_spool(Program::Popa3d, mbox, MboxServer::Popa3d));
}

#[test]
fn what_mailutils_reads_oddly_is_captured_as_it_lists_and_gives_it() {
    compare(|mbox| of_the_spool(Program::Mailutils, mbox, MboxServer::Mailutils));
}

#[test]
fn what_dovecot_reads_oddly_is_captured_as_it_lists_and_gives_it() {
    compare(of_dovecot);
}
