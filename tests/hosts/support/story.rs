//! A maildrop of an old server on a real new one, in the words of a migration.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use uidl_keep::key::{Depth, Fingerprinter, Fingerprints, NORMALISER_VERSION};

use super::dovecot::{Config, Dovecot, Store};
use super::helper;
use super::host::{Host, Line};
use super::imap::Imap;
use super::mail::Message;
use super::maildir::{Maildir, Naming};
use super::pop3::Refused;

/// The one whose mail is moved.
pub const USER: &str = "alice@example.com";

/// The UIDVALIDITY of every old maildrop.
pub const UIDVALIDITY: u32 = 17;

/// The new server, and what the old one told of its maildrop.
pub struct Story {
    /// It has the plugin.
    pub dovecot: Dovecot,
    line: Line,
    store: Store,
    extra: String,
}

impl Story {
    /// On Dovecot 2.3, with the plugin and an empty maildrop.
    pub fn begin(store: Store) -> Option<Self> {
        Self::begin_with(Line::V23, Config::default().store(store).with_plugin())
    }

    /// The same, otherwise configured.
    pub fn begin_with(line: Line, config: Config) -> Option<Self> {
        let (store, extra) = (config.store, config.extra.clone());
        let dovecot = Dovecot::start(&Host::dovecot(line)?, config)?;
        Some(Self { dovecot, line, store, extra })
    }

    /// Where it keeps mail.
    pub fn store(&self) -> Store {
        self.store
    }

    /// The Maildir of the user.
    pub fn maildir(&self) -> Maildir {
        assert_eq!(self.store, Store::Maildir);
        Maildir::create(self.dovecot.mail(USER))
    }

    /// Mail numbered so, file by file in a Maildir, else as dsync brings it: with its file name as
    /// GUID.
    pub fn copy_files(&self, old: &Maildir) {
        if self.store == Store::Maildir {
            old.copy_mail_to(&self.dovecot.mail(USER));
            return;
        }
        let source = format!("maildir:{}", self.dovecot.inside(old.path()).display());
        self.dovecot.doveadm_ok(["import", "-u", USER, &source, "", "mailbox", "INBOX", "all"]);
    }

    /// A Maildir of an old server beside the new one, with these messages in it.
    pub fn old_maildir(&self, messages: impl IntoIterator<Item = u32>) -> Maildir {
        let old = Maildir::create(self.dovecot.dir().join("old/Maildir"));
        for number in messages {
            old.deliver(&Message::plain(number), Naming::Qmail, number);
        }
        old
    }

    /// A new message comes in, by IMAP: the one way that every store has.
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
        let file = self.write(listing);
        let _ = fs::remove_dir_all(self.dovecot.site());
        fs::create_dir(self.dovecot.site()).expect("our directory");
        helper::build_site(&self.dovecot.site(), &file);
    }

    /// Builds upon the site, as an operator does.
    pub fn install(&self, listing: &Listing, options: &[&str]) {
        let file = self.write(listing);
        helper::run(self.build_install(options).arg(file));
    }

    /// Installs the site once more as it is, for whoever reads it now.
    pub fn install_again(&self) {
        helper::run(&mut self.build_install(&[]));
    }

    fn build_install(&self, options: &[&str]) -> Command {
        let mut command = helper::uidl_keep();
        let doveadm_args = format!("-c {}", self.dovecot.conf().display());
        command.args(["build", "--install", "--doveadm-args", &doveadm_args]).args(options);
        command.arg("--site").arg(self.dovecot.site());
        command
    }

    fn write(&self, listing: &Listing) -> PathBuf {
        let file = self.dovecot.dir().join("alice.listing");
        fs::write(&file, listing.text()).expect("our directory");
        file
    }

    /// What a client is told.
    pub fn uidls(&self) -> Vec<String> {
        self.dovecot.uidl(USER)
    }

    /// What a client is told instead of its listing.
    pub fn refusal(&self) -> String {
        let mut session = self.dovecot.login(USER).expect("+OK comes before the mailbox is opened");
        let Err(Refused(line)) = session.uidl() else { panic!("served") };
        line
    }

    /// Where the ledger is.
    pub fn ledger(&self) -> PathBuf {
        let mailbox = match self.store {
            Store::Maildir => PathBuf::new(),
            Store::Mdbox | Store::Sdbox => Path::new("mailboxes/INBOX/dbox-Mails").to_owned(),
        };
        self.dovecot.mail(USER).join(mailbox).join("uidl-keep.ledger")
    }

    /// The lines of ours in the log, all that POP3 sessions have written by now.
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

    /// What a client would be told by Dovecot alone, over a copy of the same mail.
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

    /// The plugin is taken out; the same mail is served by Dovecot alone.
    pub fn take_the_plugin_out(&mut self) {
        self.dovecot.reconfigure(|config| config.plugin = None);
    }
}

/// A listing of the old server, made by hand.
#[derive(Debug, Clone)]
pub struct Listing {
    fields: String,
    messages: String,
    count: u32,
}

impl Listing {
    /// Of a maildrop that has no messages yet.
    pub fn new() -> Self {
        let fields = format!("uidvalidity {UIDVALIDITY}\n");
        Self { fields, messages: String::new(), count: 0 }
    }

    /// With one more field.
    pub fn field(mut self, line: &str) -> Self {
        let _ = writeln!(self.fields, "{line}");
        self
    }

    /// With one more message.
    pub fn message(mut self, uidl: &str, keys: &str) -> Self {
        self.count += 1;
        let _ = writeln!(self.messages, "{} {uidl} {keys}", self.count);
        self
    }

    /// Of these files, `UID1-17` the first by name.
    pub fn of_files(files: &[PathBuf]) -> Self {
        (1..).zip(files).fold(Self::new(), |listing, (number, file)| {
            listing.message(&uidl(number), &by_file(file))
        })
    }

    fn text(&self) -> String {
        format!(
            "uidl-keep-listing 1\nmaildrop {USER}\nstate captured\nkeys {NORMALISER_VERSION}\n{}{}.\n",
            self.fields, self.messages
        )
    }
}

/// The UIDL that the old server gave the message with that number.
pub fn uidl(number: u32) -> String {
    format!("UID{number}-{UIDVALIDITY}")
}

/// Those of several.
pub fn uidl_of(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(uidl).collect()
}

/// A file's base name.
pub fn base(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap().split(':').next().unwrap()
}

/// The key of a capture that saw the file.
pub fn by_file(file: &Path) -> String {
    format!("file={}", base(file))
}

/// The key of a capture that saw the header, as TOP gives it.
pub fn header_of(message: &Message) -> String {
    format!("header={}", fingerprints(message).header.unwrap())
}

/// The same with what LIST says.
pub fn by_header(message: &Message) -> String {
    format!("{} octets={}", header_of(message), message.on_the_wire().len())
}

/// The keys of a capture that also saw the body.
pub fn by_message(message: &Message) -> String {
    format!("{} message={}", by_header(message), fingerprints(message).message.unwrap())
}

fn fingerprints(message: &Message) -> Fingerprints {
    let mut printer = Fingerprinter::new(Depth::Message);
    printer.update(&message.on_the_wire());
    printer.finish()
}

/// The same header over another body.
pub fn with_body(message: &Message, body: &str) -> Message {
    let text = std::str::from_utf8(&message.octets).expect("ASCII");
    let (header, _) = text.split_once("\n\n").expect("a header and a body");
    Message { octets: format!("{header}\n\n{body}\n").into_bytes() }
}

/// A `dovecot-uidlist` that counts these files from 1 under that UIDVALIDITY.
pub fn uidlist(uidvalidity: u32, files: &[PathBuf]) -> String {
    let next = files.len() + 1;
    let header = format!("3 V{uidvalidity} N{next} G0123456789abcdef0123456789abcdef\n");
    (1..).zip(files).fold(header, |list, (uid, file)| list + &format!("{uid} :{}\n", base(file)))
}
