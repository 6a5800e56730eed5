//! A maildrop after its move: a Dovecot with the plugin, and a site that knows what was captured.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use super::dovecot::{Config, Dovecot};
use super::host::{Host, Line, unix_mode};
use super::mail::Message;
use super::maildir::{Maildir, Naming};
use super::pop3::Refused;
use super::{OWNER, helper};
use uidl_keep::key::{Depth, Fingerprinter};

/// The one who was migrated.
pub const USER: &str = "alice@example.com";
/// What a client is told when we could not tell.
pub const LATER: &str =
    "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";
/// What a client is told while the mailbox is held.
pub const MOVING: &str = "-ERR [SYS/TEMP] Mailbox is being moved, please try again later.";

/// A Dovecot with the plugin and a Maildir of `count` captured messages.
pub struct Server {
    /// The new server.
    pub dovecot: Dovecot,
    /// Its mail.
    pub maildir: Maildir,
    /// How many messages were ever delivered; the next one gets the number after.
    pub delivered: u32,
}

impl Server {
    /// Starts one on Dovecot 2.3; `None`, having said why, where there is none.
    pub fn start(count: u32) -> Option<Self> {
        Self::start_with(count, Config::default().with_plugin())
    }

    /// The same with another configuration.
    pub fn start_with(count: u32, config: Config) -> Option<Self> {
        Self::start_on(Line::V23, count, config)
    }

    /// The same on another release line of Dovecot.
    pub fn start_on(line: Line, count: u32, config: Config) -> Option<Self> {
        let host = Host::dovecot(line)?;
        let dovecot = Dovecot::start(&host, config)?;
        let maildir = Maildir::create(dovecot.mail(USER));
        let mut server = Self { dovecot, maildir, delivered: 0 };
        for _ in 0..count {
            server.deliver();
        }
        server.capture(count as usize, "captured");
        Some(server)
    }

    /// One whose messages have their sizes in their names, so that Dovecot itself lists them
    /// unread, and were captured by the key that needs the whole of each.
    pub fn captured_by_content(count: u32) -> Option<Self> {
        let mut server = Self::start(0)?;
        let messages: Vec<Message> = (1..=count).map(Message::plain).collect();
        for (number, message) in (1..).zip(&messages) {
            server.maildir.deliver(message, Naming::Dovecot, number);
        }
        server.delivered = count;
        server.build(&listing_by_content(&messages));
        Some(server)
    }

    /// Delivers a message that nobody captured.
    pub fn deliver(&mut self) {
        self.delivered += 1;
        let message = Message::plain(self.delivered);
        self.maildir.deliver(&message, Naming::Qmail, self.delivered);
    }

    /// Builds a site that knows the first `count` messages, as if an old server had listed them.
    pub fn capture(&self, count: usize, state: &str) {
        let mut names: Vec<String> = (self.maildir.files().iter())
            .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        let mut listing = format!(
            "uidl-keep-listing 1\nmaildrop {USER}\nstate {state}\nsource test\nuidvalidity 17\n"
        );
        if state == "failed" {
            listing += "remark the disk was on fire\n";
        }
        for (number, name) in (1..).zip(names.iter().take(count)) {
            let base = name.split(':').next().unwrap();
            listing += &format!("{number} UID{number}-17 file={base}\n");
        }
        self.build(&(listing + ".\n"));
    }

    /// Builds its site anew, of one listing.
    pub fn build(&self, listing: &str) {
        let file = self.dovecot.dir().join("alice.uidl");
        fs::write(&file, listing).unwrap();
        let _ = fs::remove_dir_all(self.dovecot.site());
        fs::create_dir(self.dovecot.site()).unwrap();
        helper::build_site(&self.dovecot.site(), &file);
    }

    /// The unique-id listing, from a session of its own.
    pub fn uidls(&self) -> Vec<String> {
        self.dovecot.uidl(USER)
    }

    /// What doveadm says that clients will see, by UID.
    pub fn shown_by_doveadm(&self) -> Vec<String> {
        let fetch = ["fetch", "-u", USER, "pop3.uidl", "mailbox", "INBOX", "all"];
        let shown = self.dovecot.doveadm_ok(fetch);
        shown.lines().filter_map(|l| l.strip_prefix("pop3.uidl: ")).map(str::to_owned).collect()
    }

    /// What a client is told instead of its listing.
    pub fn refusal(&self) -> String {
        let mut session = self.dovecot.login(USER).expect("+OK comes before the mailbox is opened");
        let Err(Refused(line)) = session.uidl() else { panic!("served") };
        line
    }

    /// Logs in and asks nothing, because the login is not to be served: what the client hears after
    /// the `+OK` of its password until the connection is closed, and our complaints of that
    /// session.
    #[track_caller]
    pub fn turned_away(&self, fault: &str) -> (String, Vec<String>) {
        let before = self.dovecot.settled_log().len();
        let session = self.dovecot.login(USER).expect("+OK comes before the mailbox is opened");
        let heard = session.hear_out();
        let heard = heard.unwrap_or_else(|why| panic!("{fault}: served, or hanging: {why:?}"));
        let log = self.dovecot.settled_log().split_off(before);
        (String::from_utf8(heard).expect("ASCII"), complaints_in(&log))
    }

    /// Insists that a login is refused as it is when we could not tell: one clean line, the
    /// connection closed, one line in the log that has all `words`, and nothing recorded.
    #[track_caller]
    pub fn refuses(&self, fault: &str, words: &[&str]) {
        // What the fault is may be no file at all.
        let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.is_file());
        let small = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.len() < 1 << 20);
        let recorded = || {
            Some(self.ledger()).filter(is_file).filter(small).map(|path| fs::read(path).unwrap())
        };
        let before = recorded();
        let (heard, complaints) = self.turned_away(fault);
        assert_eq!(heard, format!("{LATER}\r\n"), "{fault}: {complaints:?}");
        assert_eq!(complaints.len(), 1, "{fault}: one line a login: {complaints:#?}");
        for word in words {
            assert!(complaints[0].contains(word), "{fault}: no {word:?} in {}", complaints[0]);
        }
        assert!(recorded() == before, "{fault}: the ledger has changed");
    }

    /// Insists that all messages are listed: the first `captured` as the old server did, then those
    /// delivered since as Dovecot lists them.
    #[track_caller]
    pub fn serves(&self, captured: u32, when: &str) {
        let uidls = self.uidls();
        assert!(is_right(&uidls, captured, self.delivered), "{when}: {uidls:?}");
    }

    /// Stops Dovecot, and insists that no POP3 process ended by a signal or gave up.
    #[track_caller]
    pub fn ends_well(mut self) {
        self.dovecot.pause();
        let log = self.dovecot.log();
        let ends = ["killed with signal", "Panic: ", "Fatal: "];
        let bad = |line: &&str| line.contains("pop3") && ends.iter().any(|end| line.contains(end));
        assert_eq!(log.lines().find(bad), None);
    }

    /// Where its ledger is, once something was listed.
    pub fn ledger(&self) -> PathBuf {
        self.maildir.path().join("uidl-keep.ledger")
    }

    /// Where its roster is.
    pub fn roster(&self) -> PathBuf {
        self.dovecot.site().join("domain/example.com.roster")
    }

    /// Where its index is.
    pub fn index(&self) -> PathBuf {
        self.dovecot.site().join("domain/example.com.idx")
    }

    /// Lines of ours that are no mere information.
    pub fn complaints(&self) -> Vec<String> {
        complaints_in(&self.dovecot.settled_log())
    }

    /// Runs `uidl-keep hold` or `release` for the user, as an operator does.
    pub fn gate(&self, words: &[&str]) {
        let (site, roster) = (self.dovecot.site(), self.roster());
        helper::run(helper::uidl_keep().args(words).arg("--site").arg(&site).arg(USER));
        chown(&roster, Some(0), Some(OWNER)).unwrap();
        fs::set_permissions(&roster, unix_mode(0o640)).unwrap();
    }
}

/// The listing of a capture that knows messages by the whole of each, and by nothing else.
pub fn listing_by_content(messages: &[Message]) -> String {
    let mut listing =
        format!("uidl-keep-listing 1\nmaildrop {USER}\nstate captured\nsource test\nkeys 2\n");
    for (number, message) in (1..).zip(messages) {
        let mut printer = Fingerprinter::new(Depth::Message);
        printer.update(&message.octets);
        let key = printer.finish().message.expect("a message with a header");
        listing += &format!("{number} UID{number}-17 message={key}\n");
    }
    listing + ".\n"
}

/// Lines of ours that are no mere information.
pub fn complaints_in(log: &str) -> Vec<String> {
    let ours = log.lines().filter(|l| l.contains("uidl-keep: ") && !l.contains("Info: "));
    ours.map(str::to_owned).collect()
}

/// Whether that is a listing of `delivered` messages, of which the first `captured` are kept and
/// the others have what Dovecot's default `pop3_uidl_format` gives, each once.
pub fn is_right(uidls: &[String], captured: u32, delivered: u32) -> bool {
    let (old, new) = uidls.split_at(uidls.len().min(captured as usize));
    let is_own = |uidl: &String| uidl.len() == 16 && uidl.bytes().all(|o| o.is_ascii_hexdigit());
    let distinct: std::collections::BTreeSet<&String> = new.iter().collect();
    old == kept(1..=captured)
        && uidls.len() == delivered as usize
        && new.iter().all(is_own)
        && distinct.len() == new.len()
}

/// The UIDLs that the old server gave to these messages.
pub fn kept(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("UID{number}-17")).collect()
}
