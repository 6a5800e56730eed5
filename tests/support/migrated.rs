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
        let host = Host::dovecot(Line::V23)?;
        let dovecot = Dovecot::start(&host, config)?;
        let maildir = Maildir::create(dovecot.mail(USER));
        let mut server = Self { dovecot, maildir, delivered: 0 };
        for _ in 0..count {
            server.deliver();
        }
        server.capture(count as usize, "captured");
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
        listing += ".\n";
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

    /// Where its ledger is, once something was listed.
    pub fn ledger(&self) -> PathBuf {
        self.maildir.path().join("uidl-keep.ledger")
    }

    /// Where its index is.
    pub fn index(&self) -> PathBuf {
        self.dovecot.site().join("domain/example.com.idx")
    }

    /// Lines of ours that are no mere information.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.dovecot.log();
        let ours = log.lines().filter(|l| l.contains("uidl-keep: ") && !l.contains("Info: "));
        ours.map(str::to_owned).collect()
    }

    /// Runs `uidl-keep hold` or `release` for the user, as an operator does.
    pub fn gate(&self, words: &[&str]) {
        let site = self.dovecot.site();
        helper::run(helper::uidl_keep().args(words).arg("--site").arg(&site).arg(USER));
        let roster = site.join("domain/example.com.roster");
        chown(&roster, Some(0), Some(OWNER)).unwrap();
        fs::set_permissions(&roster, unix_mode(0o640)).unwrap();
    }
}

/// The UIDLs that the old server gave to these messages.
pub fn kept(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("UID{number}-17")).collect()
}
