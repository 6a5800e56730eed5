//! A maildrop that moved: the Dovecot that serves it now, and the UIDLs of its old server.
//!
//! A [`Scenario`] is the new server with the one user who moved. The capture is a [`Listing`] that
//! a test writes by hand, or comes from an [`OldMaildrop`] by the helper's own capture.

mod listing;
mod old;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use listing::{
    Listing, base, by_file, by_header, by_message, header_of, larger_than_new_mail, uidl, uidl_of,
    uidlist, with_body,
};
pub use old::{Keys, OldMaildrop, Way, words};

use super::dovecot::{Config, Dovecot, Store};
use super::foretold::ForetoldUser;
use super::host::{Host, Line, unix_mode};
use super::imap::Imap;
use super::mail::Message;
use super::maildir::{Maildir, Naming};
use super::pop3::Refused;
use super::{OWNER, helper};

/// The user whose mail is moved.
pub const USER: &str = "alice@example.com";

/// The UIDVALIDITY of every old maildrop.
pub const UIDVALIDITY: u32 = 17;

/// A client is told this when we could not tell.
pub const LATER: &str =
    "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";
/// A client is told this while the mailbox is held.
pub const MOVING: &str = "-ERR [SYS/TEMP] Mailbox is being moved, please try again later.";

/// The new server, and the user who moved there.
pub struct Scenario {
    /// The new server, which has the plugin.
    pub dovecot: Dovecot,
    /// The number of messages that [`Scenario::deliver`] has delivered; the next one gets the
    /// number after.
    pub delivered: u32,
    line: Line,
    store: Store,
    extra: String,
}

impl Scenario {
    /// Starts one on the Dovecot that tests are run on, with the plugin and an empty maildrop.
    pub fn begin(store: Store) -> Option<Self> {
        Self::begin_with(Line::subject(), Config::default().store(store).with_plugin())
    }

    /// Starts the same, otherwise configured.
    pub fn begin_with(line: Line, config: Config) -> Option<Self> {
        Self::begin_at(&Host::dovecot(line)?, config)
    }

    /// Starts the same at a host that has a Dovecot.
    pub fn begin_at(host: &Host, config: Config) -> Option<Self> {
        let (line, store, extra) = (host.line(), config.store, config.extra.clone());
        let dovecot = Dovecot::start(host, config)?;
        Some(Self { dovecot, delivered: 0, line, store, extra })
    }

    /// Starts one on the Dovecot that tests are run on, with a Maildir of so many captured
    /// messages.
    pub fn migrated(count: u32) -> Option<Self> {
        Self::migrated_with(count, Config::default().with_plugin())
    }

    /// Starts the same, otherwise configured.
    pub fn migrated_with(count: u32, config: Config) -> Option<Self> {
        Self::migrated_on(Line::subject(), count, config)
    }

    /// Starts the same on another release line of Dovecot.
    pub fn migrated_on(line: Line, count: u32, config: Config) -> Option<Self> {
        Self::migrated_at(&Host::dovecot(line)?, count, config)
    }

    /// Starts the same at a host that has a Dovecot.
    pub fn migrated_at(host: &Host, count: u32, config: Config) -> Option<Self> {
        let mut scenario = Self::begin_at(host, config)?;
        for _ in 0..count {
            scenario.deliver();
        }
        scenario.capture_first(count as usize);
        Some(scenario)
    }

    /// Starts one whose messages have their sizes in their names, so that Dovecot itself lists them
    /// unread. They were captured by the key that needs the whole of each.
    pub fn migrated_by_content(count: u32) -> Option<Self> {
        let mut scenario = Self::begin(Store::Maildir)?;
        let messages: Vec<Message> = (1..=count).map(Message::plain).collect();
        for (number, message) in (1..).zip(&messages) {
            scenario.maildir().deliver(message, Naming::Dovecot, number);
        }
        scenario.delivered = count;
        scenario.capture(&Listing::of_contents(&messages));
        Some(scenario)
    }

    /// Delivers a message that nobody captured.
    pub fn deliver(&mut self) {
        self.delivered += 1;
        let message = Message::plain(self.delivered);
        self.maildir().deliver(&message, Naming::Qmail, self.delivered);
    }

    /// The store in which it keeps mail.
    pub fn store(&self) -> Store {
        self.store
    }

    /// The Maildir of the user.
    pub fn maildir(&self) -> Maildir {
        assert_eq!(self.store, Store::Maildir);
        Maildir::create(self.dovecot.mail(USER))
    }

    /// Copies the mail with its numbers: file by file in a Maildir, else as dsync brings it, with
    /// its file name as GUID.
    pub fn copy_files(&self, old: &Maildir) {
        if self.store == Store::Maildir {
            old.copy_mail_to(&self.dovecot.mail(USER));
            return;
        }
        self.dovecot.import(USER, old.path());
    }

    /// Makes a Maildir of an old server beside the new one, with these messages in it.
    pub fn old_maildir(&self, messages: impl IntoIterator<Item = u32>) -> Maildir {
        let old = Maildir::create(self.dovecot.dir().join("old/Maildir"));
        for number in messages {
            old.deliver(&Message::plain(number), Naming::Qmail, number);
        }
        old
    }

    /// Brings in a new message by IMAP: the one way that every store has.
    pub fn receive(&self, message: &Message) {
        let mut session = self.imap();
        session.append(&message.on_the_wire());
        session.logout();
    }

    /// An IMAP session of the user.
    pub fn imap(&self) -> Imap {
        Imap::login(self.dovecot.imap(), USER)
    }

    /// Builds a site of this listing alone, and says that no more will follow.
    pub fn capture(&self, listing: &Listing) {
        self.build(&listing.text());
    }

    /// Does the same with a listing of the first so many files, by name.
    pub fn capture_first(&self, count: usize) {
        self.capture(&Listing::of_files(&self.maildir().files()[..count]));
    }

    /// Does the same with the text of a listing.
    pub fn build(&self, listing: &str) {
        let file = self.dovecot.dir().join("alice.uidl");
        fs::write(&file, listing).expect("our directory");
        self.dovecot.empty_site();
        helper::build_site(&self.dovecot.site(), &file);
    }

    /// Builds upon the site, as an operator does.
    pub fn install(&self, listing: &Listing, options: &[&str]) {
        let file = self.dovecot.dir().join("alice.uidl");
        fs::write(&file, listing.text()).expect("our directory");
        helper::run(self.build_install(options).arg(self.dovecot.inside(&file)));
    }

    /// Installs the site once more as it is, for its present readers.
    pub fn install_again(&self) {
        helper::run(&mut self.build_install(&[]));
    }

    fn build_install(&self, options: &[&str]) -> Command {
        let mut command = self.dovecot.helper();
        command.args(["build", "--install"]).arg(self.dovecot.doveadm_args()).args(options);
        command
    }

    /// The UIDLs that a client is told. The first listing is what was foretold.
    #[track_caller]
    pub fn uidls(&self) -> Vec<String> {
        let is_first = !self.ledger().exists();
        let foretold = is_first.then(|| ForetoldUser::of(&self.dovecot, USER)).flatten();
        let uidls = self.dovecot.uidl(USER);
        if let Some(foretold) = foretold {
            foretold.comes_true(&self.dovecot, &uidls, self.dovecot.keeps_order());
        }
        uidls
    }

    /// The line that a client is told instead of its listing.
    pub fn refusal(&self) -> String {
        let mut session = self.dovecot.login(USER).expect("+OK comes before the mailbox is opened");
        let Err(Refused(line)) = session.uidl() else { panic!("served") };
        line
    }

    /// The path of the ledger.
    pub fn ledger(&self) -> PathBuf {
        let mailbox = match self.store {
            Store::Maildir => PathBuf::new(),
            Store::Mdbox | Store::Sdbox => Path::new("mailboxes/INBOX/dbox-Mails").to_owned(),
        };
        self.dovecot.mail(USER).join(mailbox).join("uidl-keep.ledger")
    }

    /// Our lines in the log: all that POP3 sessions have written by now.
    pub fn log(&self) -> Vec<String> {
        let log = self.dovecot.settled_log();
        log.lines().filter(|line| line.contains("uidl-keep: ")).map(str::to_owned).collect()
    }

    /// Deletes the message that is listed at this place, counting from 1.
    pub fn delete(&self, number: usize) {
        let mut session = self.dovecot.login(USER).expect("served");
        session.dele(number).expect("DELE");
        session.quit().expect("QUIT");
    }

    /// The UID that the mailbox gives next.
    pub fn next_uid(&self) -> u32 {
        let status = ["mailbox", "status", "-u", USER, "uidnext", "INBOX"];
        let said = self.dovecot.doveadm_ok(status);
        let number = said.trim().rsplit('=').next().expect("INBOX uidnext=N");
        number.parse().unwrap_or_else(|_| panic!("{said}"))
    }

    /// The UIDLs that Dovecot alone would tell a client, over a copy of the same mail.
    pub fn uidls_without_us(&self, uidl_format: Option<&'static str>) -> Vec<String> {
        let config = Config { uidl_format, extra: self.extra.clone(), ..Config::default() };
        let host = Host::dovecot(self.line).expect("there a moment ago");
        let bare = Dovecot::start(&host, config.store(self.store)).expect("no plugin to miss");
        let status = Command::new("cp")
            .args(["-a", "--"])
            .arg(self.dovecot.mail(USER))
            .arg(bare.home(USER))
            .status();
        assert!(status.expect("cp").success());
        bare.uidl(USER)
    }

    /// Takes the plugin out; Dovecot alone serves the same mail.
    pub fn take_the_plugin_out(&mut self) {
        self.dovecot.reconfigure(|config| config.plugin = None);
    }

    /// The UIDLs that doveadm says clients will see, by UID.
    pub fn shown_by_doveadm(&self) -> Vec<String> {
        let fetch = ["fetch", "-u", USER, "pop3.uidl", "mailbox", "INBOX", "all"];
        let shown = self.dovecot.doveadm_with_us_ok(fetch);
        shown.lines().filter_map(|l| l.strip_prefix("pop3.uidl: ")).map(str::to_owned).collect()
    }

    /// Logs in and asks nothing, because the login is not to be served. Returns what the client
    /// hears after the `+OK` of its password until the connection is closed, and our complaints of
    /// that session.
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
        // The fault may leave no file at all.
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

    /// The path of its roster.
    pub fn roster(&self) -> PathBuf {
        self.dovecot.site().join("domain/example.com.roster")
    }

    /// The path of its index.
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
    old == uidl_of(1..=captured)
        && uidls.len() == delivered as usize
        && new.iter().all(is_own)
        && distinct.len() == new.len()
}
