//! Any old server, moved to Dovecot: captured from disk and over POP3, both the same; copied
//! message by message, or delivered anew; and served with every UIDL kept.

use std::any::Any;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::net::SocketAddr;
use std::process::Command;

use crate::support::clients::{self, Client};
use crate::support::courier::Courier;
use crate::support::cyrus::{self, Cyrus};
use crate::support::dovecot::{Config, Dovecot, Store, mail_at};
use crate::support::foretold::ForetoldUser;
use crate::support::helper;
use crate::support::host::{Host, Line, asked};
use crate::support::imap::{self, Imap};
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming, give_to_owner};
use crate::support::pop3::Pop3;
use crate::support::spool::{self, Program, Spool};
use uidl_keep::key::{Depth, Fingerprinter, Fingerprints};
use uidl_keep::listing;
use uidl_keep::maildrop::{Entry, Maildrop};

/// The user of servers whose users are named by domain.
const USER: &str = "alice@example.com";

/// The messages of each of them: every odd kind twice, plain ones, and a message that has been in
/// an mbox before.
fn messages() -> Vec<Message> {
    let mut messages = mail::maildrop(48);
    let bookkeeping = "Status: RO\nX-Status: A\nX-UID: 999\nX-Keywords: foo\nContent-Length: 5\n\
                       X-IMAPbase: 1234567890 0000000999\nSubject: kept before\n\nNo Message-ID.\n";
    messages.push(Message { octets: bookkeeping.as_bytes().to_vec() });
    messages
}

/// An old server with mail.
struct Old {
    user: &'static str,
    pop3: SocketAddr,
    /// The arguments after `uidl-keep capture` that capture it from disk. Empty if we do not read
    /// its store.
    disk: Vec<OsString>,
    /// The input of that on stdin.
    input: Vec<u8>,
    _alive: Box<dyn Any>,
}

// --- the old servers

fn courier(messages: &[Message]) -> Option<Old> {
    let courier = Courier::new(&Host::courier()?);
    let maildir = courier.maildir(USER);
    for (number, message) in (0..).zip(messages) {
        maildir.deliver(message, Naming::Courier, number);
    }
    let server = courier.listen(USER);
    let disk = capture(&["courier", "--user", USER], &maildir);
    Some(Old {
        user: USER,
        pop3: server.pop3(),
        disk,
        input: Vec::new(),
        _alive: Box::new((server, courier)),
    })
}

fn dovecot(messages: &[Message]) -> Option<Old> {
    let server = Dovecot::start(&Host::dovecot(Line::subject())?, Config::default())?;
    let maildir = Maildir::create(server.mail(USER));
    for (number, message) in (0..).zip(messages) {
        maildir.deliver(message, Naming::Dovecot, number);
    }
    let disk = capture(&["dovecot", "--format", "%08Xu%08Xv", "--user", USER], &maildir);
    Some(Old { user: USER, pop3: server.pop3(), disk, input: Vec::new(), _alive: Box::new(server) })
}

fn cyrus(messages: &[Message]) -> Option<Old> {
    let server = Cyrus::start(&Host::old_servers()?, "");
    let mut session = Imap::login(server.imap(), cyrus::USER);
    for message in messages {
        session.append(&message.on_the_wire());
    }
    session.logout();
    let mut disk = words(&["cyrus", "--user", cyrus::USER]);
    disk.push(server.inbox().into());
    Some(Old {
        user: cyrus::USER,
        pop3: server.pop3(),
        disk,
        input: Vec::new(),
        _alive: Box::new(server),
    })
}

/// It keeps mail in a store that only Dovecot reads: it is captured from doveadm's output.
fn dovecot_on_mdbox(messages: &[Message]) -> Option<Old> {
    let config = Config::default().store(Store::Mdbox);
    let server = Dovecot::start(&Host::dovecot(Line::subject())?, config)?;
    let wire: Vec<Vec<u8>> = messages.iter().map(Message::on_the_wire).collect();
    imap::append(server.imap(), USER, wire.iter().map(Vec::as_slice));
    let status = ["mailbox", "status", "-u", USER, "messages uidvalidity uidnext", "INBOX"];
    let fields = "uid guid pop3.uidl pop3.order size.virtual text";
    let fetch = ["fetch", "-u", USER, fields, "mailbox", "INBOX"];
    let print = |args: &[&str]| server.doveadm_ok([&["-f", "json"], args].concat());
    let input = [print(&status), print(&fetch)].concat().into_bytes();
    let disk = words(&["doveadm", "--format", "%08Xu%08Xv", "--user", USER]);
    Some(Old { user: USER, pop3: server.pop3(), disk, input, _alive: Box::new(server) })
}

/// It keeps mail in an mbox, into which it writes UIDs.
fn dovecot_on_an_mbox(messages: &[Message]) -> Option<Old> {
    let extra = mail_at(Line::subject(), "mbox", "~/mail", &[("INBOX", "~/inbox")]);
    let config = Config { extra, ..Config::default() };
    let server = Dovecot::start(&Host::dovecot(Line::subject())?, config)?;
    let mbox = server.home(USER).join("inbox");
    spool::append_to_mbox(&mbox, messages);
    give_to_owner(&mbox);
    let mut disk = words(&["mbox", "--server", "dovecot", "--format", "%08Xu%08Xv"]);
    disk.extend(["--user".into(), USER.into(), mbox.into()]);
    Some(Old { user: USER, pop3: server.pop3(), disk, input: Vec::new(), _alive: Box::new(server) })
}

fn of_the_spool(program: Program, messages: &[Message]) -> Option<(Spool, Vec<OsString>)> {
    let server = Spool::start(&Host::old_servers()?, program);
    server.deliver(messages);
    let path = vec!["--user".into(), spool::USER.into(), server.mbox().into()];
    Some((server, path))
}

fn popa3d(messages: &[Message]) -> Option<Old> {
    let (server, path) = of_the_spool(Program::Popa3d, messages)?;
    let disk = [words(&["mbox", "--server", "popa3d"]), path].concat();
    Some(Old {
        user: spool::USER,
        pop3: server.pop3(),
        disk,
        input: Vec::new(),
        _alive: Box::new(server),
    })
}

fn mailutils(messages: &[Message]) -> Option<Old> {
    let (server, path) = of_the_spool(Program::Mailutils, messages)?;
    let disk = [words(&["mbox", "--server", "mailutils"]), path].concat();
    Some(Old {
        user: spool::USER,
        pop3: server.pop3(),
        disk,
        input: Vec::new(),
        _alive: Box::new(server),
    })
}

/// Nobody knows how it makes its UIDLs: it can only be asked.
fn solid(messages: &[Message]) -> Option<Old> {
    let (server, _) = of_the_spool(Program::Solid, messages)?;
    Some(Old {
        user: spool::USER,
        pop3: server.pop3(),
        disk: Vec::new(),
        input: Vec::new(),
        _alive: Box::new(server),
    })
}

/// Its UIDLs are those that Dovecot calls `%Mf`. It refuses the login if the last line of a message
/// does not end, so here all end.
fn solid_on_maildir(messages: &[Message]) -> Option<Old> {
    let server = Spool::start(&Host::old_servers()?, Program::SolidMaildir);
    let maildir = server.maildir();
    for (number, message) in (0..).zip(messages) {
        let mut message = message.clone();
        if !message.octets.ends_with(b"\n") {
            message.octets.push(b'\n');
        }
        maildir.deliver(&message, Naming::Qmail, number);
    }
    Some(Old {
        user: spool::USER,
        pop3: server.pop3(),
        disk: Vec::new(),
        input: Vec::new(),
        _alive: Box::new(server),
    })
}

fn capture(how: &[&str], maildir: &Maildir) -> Vec<OsString> {
    let mut capture = words(how);
    capture.push(maildir.path().into());
    capture
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

// --- the facts about it

impl Old {
    /// Every UIDL and every message, in a session of a client that understands 8-bit headers.
    fn mail(&self) -> (Vec<String>, Vec<Vec<u8>>) {
        let mut session = Pop3::connect(self.pop3).expect("it greets");
        let capabilities = session.lines("CAPA").unwrap_or_default();
        if capabilities.iter().any(|line| line.starts_with(b"UTF8")) {
            session.command("UTF8").expect("UTF8");
        }
        session.command(&format!("USER {}", self.user)).expect("USER");
        session.command(&format!("PASS {}", crate::support::PASSWORD)).expect("PASS");
        let uidls = session.uidl().expect("UIDL");
        let mail = (1..=uidls.len()).map(|at| session.retr(at).expect("RETR")).collect();
        session.quit().expect("QUIT");
        (uidls, mail)
    }

    /// Captures it over POP3.
    fn asked(&self, keys: &str) -> Vec<u8> {
        let mut asking = helper::uidl_keep();
        asking
            .args(["capture", "pop3", "--clear", "--password-stdin", "--keys", keys])
            .arg(format!("--host={}", self.pop3.ip()))
            .arg(format!("--port={}", self.pop3.port()))
            .arg(format!("--user={}", self.user));
        captured(&mut asking, format!("{}\n", crate::support::PASSWORD).as_bytes())
    }

    /// Captures it from disk.
    fn read(&self, keys: &str) -> Vec<u8> {
        let mut reading = helper::uidl_keep();
        captured(reading.arg("capture").args(&self.disk).args(["--keys", keys]), &self.input)
    }
}

/// Returns the output of a capture that says no more than that its listing has remarks: on copies,
/// perhaps, to which the old server gave one UIDL.
fn captured(capture: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(input).and_then(|()| file.rewind()).expect("our file");
    let output = capture.stdin(file).output().expect("the helper");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{capture:?}: {}: {said}", output.status);
    let summary = " have something unusual about them: see the lines \"remark\" of the listing";
    let advice = "or they are downloaded again";
    let is_more = said.lines().any(|line| !line.ends_with(summary) && !line.ends_with(advice));
    assert!(!is_more, "{capture:?}: {said}");
    output.stdout
}

fn parsed(listing: &[u8]) -> Maildrop {
    let maildrops: Result<Vec<Maildrop>, _> = listing::Reader::new(listing).collect();
    let [maildrop] = maildrops.expect("a listing").try_into().expect("one maildrop");
    maildrop
}

fn uidls(maildrop: &Maildrop) -> Vec<String> {
    maildrop
        .entries
        .iter()
        .map(|entry| String::from_utf8(entry.uidl.as_bytes().to_vec()).expect("ASCII"))
        .collect()
}

fn prints(message: &[u8]) -> Fingerprints {
    let mut fingerprinter = Fingerprinter::new(Depth::Message);
    fingerprinter.update(message);
    fingerprinter.finish()
}

// --- the checks

/// Insists that both captures of what a client's session has left are the same.
fn captures_agree(old: &Old) {
    let (_, mail) = old.mail();
    let asked = parsed(&old.asked("header,message,origin"));
    let read = parsed(&old.read("header,message,origin"));
    assert_eq!(uidls(&read), uidls(&asked), "UIDLs, in order");
    for (at, (read, asked)) in read.entries.iter().zip(&asked.entries).enumerate() {
        let keys = |entry: &Entry| (entry.header, entry.origin);
        assert_eq!(keys(read), keys(asked), "message {}", at + 1);
        // In JSON, as doveadm prints it, an octet that is not UTF-8 is not what it was.
        let is_mangled = !old.input.is_empty() && std::str::from_utf8(&mail[at]).is_err();
        let message = asked.message.filter(|_| !is_mangled);
        assert_eq!(read.message, message, "message {}", at + 1);
        assert!(read.header.is_some() && asked.message.is_some(), "message {}", at + 1);
    }
    assert_eq!(read.uidvalidity, asked.uidvalidity.or(read.uidvalidity));
}

/// Copies it message by message, in another order, as imapsync copies: every UIDL is kept and in
/// its place, and the header of every copy has the key that was captured.
fn copies_are_kept(old: &Old, line: Line, store: Store) {
    let (uidls, mail) = old.mail();
    assert_eq!(uidls.len(), messages().len());
    let listing = old.asked("header");
    let captured = parsed(&listing);
    assert_eq!(self::uidls(&captured), uidls);

    let Some(host) = Host::dovecot(line) else { return };
    let Some(new) = Dovecot::start(&host, Config::default().store(store).with_plugin()) else {
        return;
    };
    build(&new, &listing);
    let mut copied: Vec<&[u8]> = mail.iter().map(Vec::as_slice).collect();
    copied.sort_by_cached_key(|message| blake3::hash(message).to_string());
    imap::append_old(new.imap(), old.user, copied);

    let foretold = ForetoldUser::of(&new, old.user).expect("he is on the roster");
    assert_eq!(new.uidl(old.user), uidls, "the first listing");
    assert_eq!((foretold.sign(), foretold.count("kept") as usize), ("=", uidls.len()));
    foretold.comes_true(&new, &uidls, true);
    assert_eq!(new.uidl(old.user), uidls, "the second listing");
    let is_any_repeated = uidls.iter().collect::<HashSet<_>>().len() < uidls.len();
    assert_eq!(new.settled_log().contains(" messages share a UIDL "), is_any_repeated);
    let mut session = new.login(old.user).expect("served");
    for (at, entry) in (1..).zip(&captured.entries) {
        let copy = prints(&session.retr(at).expect("RETR"));
        assert_eq!(copy.header, entry.header, "message {at}");
        if entry.message.is_some() {
            assert_eq!(copy.message, entry.message, "message {at}");
        }
    }
    session.quit().expect("QUIT");
}

fn build(new: &Dovecot, listing: &[u8]) {
    let file = new.dir().join("old.listing");
    fs::write(&file, listing).expect("our directory");
    helper::build_site(&new.site(), &file);
}

/// Fetches and delivers it anew. A message keeps its UIDL if its origin names it, if it has that
/// origin alone or with copies of one content, and if it was given on as it was. The others get
/// UIDLs that nobody has seen.
fn redelivered_is_kept(
    old: fn(&[Message]) -> Option<Old>,
    store: Store,
    deliver: impl FnOnce(&Old, &Dovecot) -> Option<()>,
    arrives_changed: fn(&Message) -> bool,
) {
    let mut messages = messages();
    messages.extend([warning(1), warning(2), Message { octets: TO_ROOT.to_vec() }]);
    let Some(old) = old(&messages) else { return };
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let mut config = Config::default().store(store);
    config.plugin = Some(vec!["match file header origin"]);
    let Some(new) = Dovecot::start(&host, config) else { return };
    let listing = old.asked("header,origin");
    let captured = parsed(&listing);
    build(&new, &listing);
    let Some(()) = deliver(&old, &new) else { return };

    let is_told = |at: usize| {
        let Entry { origin, message, .. } = &captured.entries[at];
        let alike = captured.entries.iter().filter(|other| other.origin == *origin);
        // Copies of one content are as good as one message.
        let is_one = alike.clone().count() == 1
            || (message.is_some() && alike.clone().all(|other| other.message == *message));
        let names_it = prints(&messages[at].on_the_wire()).origin_names_itself;
        is_one && names_it && !arrives_changed(&messages[at])
    };
    let before = uidls(&captured);
    let (told, untold): (Vec<usize>, Vec<usize>) = (0..before.len()).partition(|&at| is_told(at));
    assert!(untold.len() >= 3, "warnings and what names nobody at least");

    let foretold = ForetoldUser::of(&new, old.user).expect("he is on the roster");
    let served = new.uidl(old.user);
    foretold.comes_true(&new, &served, true);
    assert_eq!(served.len(), messages.len());
    let (kept, others) = served.split_at(told.len());
    assert_eq!(kept, told.iter().map(|&at| before[at].clone()).collect::<Vec<_>>());
    assert!(others.iter().all(|uidl| !before.contains(uidl)), "{others:?}");
    let mut session = new.login(old.user).expect("served");
    for (at, &from) in (1..).zip(&told) {
        let copy = prints(&session.retr(at).expect("RETR"));
        assert_eq!(copy.origin, captured.entries[from].origin, "message {at}");
        assert_ne!(copy.header, captured.entries[from].header, "message {at} was delivered anew");
    }
    session.quit().expect("QUIT");
}

/// Fetches with fetchmail, and delivers with dovecot-lda.
fn by_fetchmail(old: &Old, new: &Dovecot) -> Option<()> {
    let client = Client::new(clients::Program::Fetchmail, old.user)?;
    // Delivery knows nothing of a site.
    let lda = Host::dovecot(Line::subject())?.command("/usr/lib/dovecot/dovecot-lda");
    let words = [lda.get_program()].into_iter().chain(lda.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().expect("ASCII")).collect();
    let conf = new.inside(&new.conf());
    let agent = format!("{} -c {} -d {}", words.join(" "), conf.display(), old.user);
    client.hand_over(old.pop3, &agent);
    Some(())
}

/// Fetches with getmail, into the Maildir itself.
fn by_getmail(old: &Old, new: &Dovecot) -> Option<()> {
    let client = Client::new(clients::Program::GetmailWithTraces, old.user)?;
    client.poll(old.pop3);
    let fetched = Maildir::open(client.mail());
    fetched.files().iter().for_each(|file| give_to_owner(file));
    fetched.copy_mail_to(&new.mail(old.user));
    Some(())
}

/// A device sends this again and again: only the lines that relays add tell one from the next, and
/// the text.
fn warning(number: u32) -> Message {
    let octets = format!(
        "Received: from printer by old.example.com id {number}\n\
         From: printer@example.com\nSubject: Out of paper\n\nTray {number}.\n"
    );
    Message { octets: octets.into_bytes() }
}

/// fetchmail gives such addresses a domain, if it is told to, or not told otherwise.
const TO_ROOT: &[u8] =
    b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@old> backup\n\nDone.\n";

/// fetchmail does not take the stuffed dot from a header line that begins with one.
fn begins_a_header_line_with_a_dot(message: &Message) -> bool {
    header(message).windows(2).any(|pair| pair == b"\n.")
}

/// fetchmail does not say `UTF8`, and is given such messages wrapped in one of Courier's own.
fn is_wrapped_by_courier(message: &Message) -> bool {
    begins_a_header_line_with_a_dot(message) || !header(message).is_ascii()
}

fn header(message: &Message) -> Vec<u8> {
    let mut header = message.on_the_wire();
    let end = header.windows(4).position(|ends| ends == b"\r\n\r\n");
    header.truncate(end.unwrap_or(header.len()));
    header
}

fn is_moved(old: fn(&[Message]) -> Option<Old>) {
    let Some(old) = old(&messages()) else { return };
    if !old.disk.is_empty() {
        captures_agree(&old);
    }
    let ways = [
        (Line::V23, Store::Maildir),
        (Line::V23, Store::Mdbox),
        (Line::V24, Store::Maildir),
        (Line::V24, Store::Sdbox),
    ];
    for (line, store) in asked(ways) {
        copies_are_kept(&old, line, store);
    }
}

#[test]
fn courier_is_moved() {
    is_moved(courier);
}

#[test]
fn dovecot_is_moved() {
    is_moved(dovecot);
}

#[test]
fn dovecot_on_mdbox_is_moved() {
    is_moved(dovecot_on_mdbox);
}

#[test]
fn dovecot_on_an_mbox_is_moved() {
    is_moved(dovecot_on_an_mbox);
}

#[test]
fn cyrus_is_moved() {
    is_moved(cyrus);
}

#[test]
fn popa3d_is_moved() {
    is_moved(popa3d);
}

#[test]
fn mailutils_is_moved() {
    is_moved(mailutils);
}

#[test]
fn solid_pop3d_is_moved() {
    is_moved(solid);
}

#[test]
fn solid_pop3d_on_maildirs_is_moved() {
    is_moved(solid_on_maildir);
}

#[test]
fn courier_is_delivered_anew() {
    redelivered_is_kept(courier, Store::Mdbox, by_fetchmail, is_wrapped_by_courier);
}

#[test]
fn dovecot_is_delivered_anew() {
    redelivered_is_kept(dovecot, Store::Maildir, by_fetchmail, begins_a_header_line_with_a_dot);
}

#[test]
fn dovecot_on_an_mbox_is_delivered_anew() {
    redelivered_is_kept(
        dovecot_on_an_mbox,
        Store::Mdbox,
        by_fetchmail,
        begins_a_header_line_with_a_dot,
    );
}

#[test]
fn cyrus_is_delivered_anew() {
    redelivered_is_kept(cyrus, Store::Mdbox, by_fetchmail, begins_a_header_line_with_a_dot);
}

#[test]
fn popa3d_is_delivered_anew() {
    redelivered_is_kept(popa3d, Store::Maildir, by_fetchmail, begins_a_header_line_with_a_dot);
}

#[test]
fn mailutils_is_delivered_anew() {
    redelivered_is_kept(mailutils, Store::Mdbox, by_fetchmail, begins_a_header_line_with_a_dot);
}

#[test]
fn solid_pop3d_is_delivered_anew() {
    redelivered_is_kept(solid, Store::Maildir, by_fetchmail, begins_a_header_line_with_a_dot);
}

#[test]
fn solid_pop3d_on_maildirs_is_delivered_anew() {
    redelivered_is_kept(
        solid_on_maildir,
        Store::Mdbox,
        by_fetchmail,
        begins_a_header_line_with_a_dot,
    );
}

#[test]
fn what_getmail_fetches_is_delivered_anew() {
    redelivered_is_kept(dovecot, Store::Maildir, by_getmail, |_| false);
}
