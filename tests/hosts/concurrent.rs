//! Many at once on a real Dovecot: logins at a first resolution, while mail arrives and goes;
//! clients that give up and come back. Each gets the whole right listing, or one clean line that
//! says later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::{Pop3, Refused};
use uidl_keep::ledger::Ledger;

const USER: &str = "alice@example.com";

/// The lines that a client may be told in place of a listing.
const LATER: [&str; 2] = [
    "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.",
    "-ERR [IN-USE] Mailbox is temporarily not available, please try again later.",
];

/// A login on a busy machine may go on for so long after its client has left.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client that was told to come back does so at most this often.
const TRIES: usize = 20;

/// A Dovecot with the plugin, and a Maildir of captured messages that no client has listed yet.
struct Server {
    dovecot: Dovecot,
    maildir: Maildir,
    /// The captured UIDLs in the old order, which is not that of arrival.
    kept: Vec<String>,
    /// The base file name of each captured message on the new server, by its UIDL.
    files: BTreeMap<String, String>,
}

/// The keys by which the captured messages can be known on the new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    File,
    Header,
}

fn tiny(number: u32) -> Message {
    let text = format!(
        "Message-ID: <{number}@example.com>\nDate: Mon, 06 May 2024 10:00:00 +0000\n\
         Subject: message {number}\n\nbody\n"
    );
    Message { octets: text.into_bytes() }
}

impl Server {
    fn start(count: u32, key: Key) -> Option<Self> {
        let host = Host::dovecot(Line::subject())?;
        let dovecot = Dovecot::start(&host, Config::default().with_plugin())?;
        let maildir = Maildir::create(dovecot.mail(USER));
        let (mut kept, mut files) = (Vec::new(), BTreeMap::new());
        let mut old_names = BTreeMap::new();
        let one = maildir.deliver(&tiny(0), Naming::Dovecot, 0);
        for number in 1..=count {
            // 20,000 names are made quickly, 20,000 files are not.
            let file = match key {
                Key::Header => maildir.deliver(&tiny(number), Naming::Dovecot, number),
                Key::File => another_name(&one, number),
            };
            let uidl = format!("UID{number}-17");
            files.insert(uidl.clone(), base(&file));
            old_names.insert(uidl.clone(), format!("file={}", base(&file)));
            kept.push(uidl);
        }
        fs::remove_file(one).unwrap();
        // The old server listed the younger half first.
        kept.rotate_left(count as usize / 2);
        if key == Key::Header {
            for (uidl, number) in (1..=count).map(|number| (format!("UID{number}-17"), number)) {
                old_names.insert(uidl, format!("header={}", header_print(&tiny(number))));
            }
        }
        let mut listing = format!(
            "uidl-keep-listing 1\nmaildrop {USER}\nstate captured\nuidvalidity 17\n{}",
            if key == Key::Header { "keys 1\n" } else { "" }
        );
        for (number, uidl) in (1..).zip(&kept) {
            listing += &format!("{number} {uidl} {}\n", old_names[uidl]);
        }
        let path = dovecot.dir().join("alice.listing");
        fs::write(&path, listing + ".\n").unwrap();
        helper::build_site(&dovecot.site(), &path);
        Some(Self { dovecot, maildir, kept, files })
    }

    /// Lets Dovecot find the mail, so that the first login has only to resolve it.
    fn is_known_to_dovecot(&self) {
        let status = ["mailbox", "status", "-u", USER, "messages", "INBOX"];
        let status = self.dovecot.doveadm_ok(status);
        assert!(status.contains(&format!("messages={}", self.kept.len())), "{status}");
        assert!(!self.maildir.path().join("uidl-keep.ledger").exists());
    }

    /// Returns the listing of one session.
    fn listing(&self) -> Result<Vec<String>, Refused> {
        let mut session = self.dovecot.login(USER)?;
        let listing = session.uidl()?;
        session.quit()?;
        Ok(listing)
    }

    /// Returns the listing of a client that comes back as often as it is told to, and hears nothing
    /// else.
    fn listing_at_last(&self) -> Vec<String> {
        for _ in 0..TRIES {
            match self.listing() {
                Ok(listing) => return listing,
                Err(refused) => self.is_clean(&refused),
            }
        }
        panic!("told to come back {TRIES} times; the log:\n{}", self.dovecot.log());
    }

    fn is_clean(&self, refused: &Refused) {
        let Refused(line) = refused;
        // The client's own patience ended, on a busy machine: it has given up, and comes back too.
        if line.contains("(os error 11)") {
            return;
        }
        assert!(LATER.contains(&&**line), "{line:?}; the log:\n{}", self.dovecot.log());
    }

    /// Brings in a new message, by one of two ways.
    fn deliver(&self, number: u32) {
        let (program, args) = match number % 2 {
            0 => ("doveadm", ["save", "-u", USER]),
            _ => ("/usr/lib/dovecot/dovecot-lda", ["-d", USER, "-e"]),
        };
        let mut child = self
            .dovecot
            .program(program)
            .args(args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("Subject: new {number}\r\n\r\nbody\r\n");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}\n{}", self.dovecot.log());
    }

    /// Insists that all is in order when all have gone: the ledger has each message once, and
    /// nothing of Dovecot broke.
    fn is_in_order(&self, listing: &[String]) {
        let ledger = fs::read(self.maildir.path().join("uidl-keep.ledger")).unwrap();
        let ledger = Ledger::decode(&ledger).unwrap();
        let living: BTreeSet<&str> = listing.iter().map(String::as_str).collect();
        assert_eq!(living.len(), listing.len(), "a unique-id stands twice");
        let mut uids = BTreeSet::new();
        let mut uidls = BTreeSet::new();
        for record in &ledger.records {
            let uidl = record.uidl.to_string();
            assert!(record.uid == 0 || uids.insert(record.uid), "UID {} twice", record.uid);
            assert!(uidls.insert(uidl.clone()), "{uidl} twice");
        }
        for uidl in living {
            assert!(uidls.contains(uidl), "{uidl} is listed, and not in the ledger");
        }
        // doveadm is told this of each message, by its file name.
        let fetch = ["-f", "tab", "fetch", "-u", USER, "pop3.uidl guid", "mailbox", "INBOX", "all"];
        for line in self.dovecot.doveadm_with_us_ok(fetch).lines().skip(1) {
            let (uidl, file) = line.split_once('\t').unwrap();
            match self.files.get(uidl) {
                Some(captured) => assert_eq!(captured, file, "{uidl} is another message"),
                None => assert!(!self.files.values().any(|old| old == file), "{file} as {uidl}"),
            }
        }
        // A login that resolved it tells others by the ledger, and the log when all is written.
        let resolved = "uidl-keep: first listing: ";
        let asked = Instant::now();
        while !self.dovecot.log().contains(resolved) && asked.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        let log = self.dovecot.log();
        for word in ["Panic", "Fatal", "signal", "bug:", "panicked", "Corrupted", "Error: "] {
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(word)).collect();
            let lines: Vec<&&str> = lines.iter().filter(|line| !is_refusal(line)).collect();
            assert!(lines.is_empty(), "{lines:#?}");
        }
        let first = log.lines().filter(|line| line.contains(resolved)).count();
        assert_eq!(first, 1, "one login resolves it, and the others wait for that");
        let warning = log.lines().find(|l| l.contains("Warning: ") && l.contains("uidl-keep: "));
        assert_eq!(warning, None);
    }
}

/// The log has this line, of ours or of Dovecot's, for a login that waited for another and was
/// refused.
fn is_refusal(line: &str) -> bool {
    line.contains("another session is resolving this mailbox")
        || line.contains("Couldn't init INBOX: Mailbox is temporarily not available")
}

fn base(file: &Path) -> String {
    let name = file.file_name().unwrap().to_str().unwrap();
    name.split(':').next().unwrap().to_owned()
}

/// Makes another name for a message, in `cur`.
fn another_name(file: &Path, number: u32) -> PathBuf {
    let name = base(file);
    let (_, rest) = name.split_once('.').unwrap();
    let name = format!("{}.{number}{rest}:2,S", 1_715_000_000 + number);
    let path = file.parent().unwrap().with_file_name("cur").join(name);
    fs::hard_link(file, &path).unwrap();
    path
}

fn header_print(message: &Message) -> String {
    use uidl_keep::key::{Depth, Fingerprinter};
    let mut printer = Fingerprinter::new(Depth::Header);
    printer.update(&message.octets);
    printer.finish().header.unwrap().to_string()
}

/// Runs `session` so many times at once.
fn at_once<T: Send>(count: usize, session: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let session = &session;
        let running: Vec<_> = (0..count).map(|at| scope.spawn(move || session(at))).collect();
        running.into_iter().map(|running| running.join().unwrap()).collect()
    })
}

/// Lets many log in at the same moment.
fn all_at_once(logins: usize, count: u32, key: Key) {
    let Some(server) = Server::start(count, key) else { return };
    if logins > 2 {
        server.is_known_to_dovecot();
    }
    for listing in at_once(logins, |_| server.listing_at_last()) {
        assert!(listing == server.kept, "not the old listing");
    }
    assert!(server.listing_at_last() == server.kept);
    server.is_in_order(&server.kept);
}

#[test]
fn two_logins_at_once_at_a_first_resolution_get_the_same_old_listing() {
    all_at_once(2, 20_000, Key::File);
}

#[test]
fn twenty_logins_at_once_at_a_first_resolution_get_the_same_old_listing() {
    all_at_once(20, 20_000, Key::File);
}

#[test]
fn twenty_logins_at_once_wait_for_the_one_that_reads_every_header() {
    all_at_once(20, 3000, Key::Header);
}

#[test]
fn mail_comes_and_goes_in_the_middle_of_a_first_resolution_by_files() {
    mail_comes_and_goes(20_000, Key::File);
}

#[test]
fn mail_comes_and_goes_in_the_middle_of_a_first_resolution_by_headers() {
    mail_comes_and_goes(1000, Key::Header);
}

/// The answers that one session saw.
struct Seen {
    listing: Vec<String>,
    /// The subjects of the new messages, with their UIDLs.
    subjects: Vec<(String, String)>,
}

/// Runs a session that also looks at the new messages.
fn look(server: &Server) -> Result<Seen, Refused> {
    let mut session = server.dovecot.login(USER)?;
    let listing = session.uidl()?;
    let is_new = |at: &usize| !server.files.contains_key(&listing[*at]);
    let mut subjects = Vec::new();
    for at in (0..listing.len()).filter(is_new) {
        // The message is gone meanwhile: the session ends.
        let Ok(top) = session.lines(&format!("TOP {} 0", at + 1)) else {
            return Ok(Seen { listing, subjects });
        };
        let subject = top.iter().find_map(|line| line.strip_prefix(b"Subject: ")).unwrap();
        subjects.push((listing[at].clone(), String::from_utf8(subject.to_vec()).unwrap()));
    }
    let _ = session.quit();
    Ok(Seen { listing, subjects })
}

/// The number of messages that arrive.
const NEW: u32 = 10;

fn mail_comes_and_goes(count: u32, key: Key) {
    let Some(server) = Server::start(count, key) else { return };
    if key == Key::File {
        server.is_known_to_dovecot();
    }
    let is_quiet = AtomicBool::new(false);
    let seen = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_quiet.load(Ordering::Relaxed) {
                    match look(&server) {
                        Ok(looked) => seen.lock().unwrap().push(looked),
                        Err(refused) => server.is_clean(&refused),
                    }
                }
            });
        }
        let arriving = scope.spawn(|| (0..NEW).for_each(|number| server.deliver(number)));
        let going = scope.spawn(|| {
            for first in (1..count).step_by(count as usize / 6).take(6) {
                let uids = format!("{first}:{}", first + 3);
                server
                    .dovecot
                    .doveadm_ok(["expunge", "-u", USER, "mailbox", "INBOX", "uid", &uids]);
            }
        });
        let done = [arriving.join(), going.join()];
        is_quiet.store(true, Ordering::Relaxed);
        done.into_iter().for_each(Result::unwrap);
    });
    let last = server.listing_at_last();

    // The old messages that are left are listed in the old order, and new ones behind them.
    let left: BTreeSet<String> = server.maildir.files().iter().map(|file| base(file)).collect();
    let is_left = |uidl: &&String| left.contains(&server.files[*uidl]);
    let expected: Vec<&String> = server.kept.iter().filter(is_left).collect();
    let gone: BTreeSet<&String> = server.kept.iter().filter(|uidl| !is_left(uidl)).collect();
    assert!(gone.len() == 24, "{} were expunged", gone.len());
    let (old, new) = last.split_at(expected.len());
    assert!(old.iter().eq(expected), "not what is left of the old listing");
    assert_eq!(new.len(), NEW as usize);

    let mut uidl_of: BTreeMap<String, String> = BTreeMap::new();
    let all = seen.into_inner().unwrap();
    assert!(!all.is_empty(), "nobody was served meanwhile");
    for Seen { listing, subjects } in &all {
        let old_len = listing.iter().take_while(|uidl| server.files.contains_key(*uidl)).count();
        let (old, new) = listing.split_at(old_len);
        let there: BTreeSet<&String> = old.iter().collect();
        let expected = server.kept.iter().filter(|uidl| there.contains(uidl));
        assert!(old.iter().eq(expected), "not in the old order");
        let missing = server.kept.iter().filter(|uidl| !there.contains(uidl));
        assert!(missing.clone().all(|uidl| gone.contains(uidl)), "one is hidden");
        assert!(new.iter().all(|uidl| !server.files.contains_key(uidl)), "old after new");
        for (uidl, subject) in subjects {
            assert!(subject.starts_with("new "), "{subject} is shown again as {uidl}");
            let before = uidl_of.insert(subject.clone(), uidl.clone());
            assert!(before.is_none_or(|before| before == *uidl), "{subject} twice");
        }
    }
    assert!(uidl_of.values().all(|uidl| new.contains(uidl)), "a told UIDL is told no more");
    server.is_in_order(&last);
}

#[test]
fn who_gives_up_in_the_middle_of_a_first_resolution_and_comes_back_is_served_right() {
    for (count, key) in [(20_000, Key::File), (1000, Key::Header)] {
        let Some(server) = Server::start(count, key) else { return };
        for round in 0..6 {
            // It has logged in, and does not wait for the rest. Some do not even wait for the
            // login.
            let session = Pop3::connect(server.dovecot.pop3()).unwrap();
            drop(if round % 2 == 0 { Ok(session) } else { server.dovecot.login(USER) });
        }
        assert!(server.listing_at_last() == server.kept, "{key:?}: not the old listing");
        server.is_in_order(&server.kept);
    }
}
