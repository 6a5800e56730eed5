//! Equal mailboxes on two servers, one of which has the plugin.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::measure::{Callgrind, median, processor_time, status_kib};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::helper;
use crate::support::host::{Host, Scratch};
use crate::support::imap;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// The one user.
pub const USER: &str = "alice@example.com";

/// How the mail lies on the new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A Maildir whose files have such names.
    Maildir(Naming),
    /// An mdbox into which a Maildir was imported: the names are GUIDs.
    Mdbox,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Maildir(Naming::Dovecot),
        Self::Maildir(Naming::Courier),
        Self::Maildir(Naming::Qmail),
        Self::Mdbox,
    ];

    /// The word for it in the name of a figure.
    pub fn word(self) -> &'static str {
        match self {
            Self::Maildir(Naming::Dovecot) => "dovecot",
            Self::Maildir(Naming::Courier) => "courier",
            Self::Maildir(Naming::Qmail) => "qmail",
            Self::Mdbox => "mdbox",
        }
    }

    /// The words for it in the table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Maildir(Naming::Dovecot) => "Maildir, named by Dovecot",
            Self::Maildir(Naming::Courier) => "Maildir, named by Courier",
            Self::Maildir(Naming::Qmail) => "Maildir, named by qmail",
            Self::Mdbox => "mdbox",
        }
    }

    /// How the files are named in the Maildir of the old server.
    fn naming(self) -> Naming {
        match self {
            Self::Maildir(naming) => naming,
            Self::Mdbox => Naming::Qmail,
        }
    }

    fn store(self) -> Store {
        match self {
            Self::Maildir(_) => Store::Maildir,
            Self::Mdbox => Store::Mdbox,
        }
    }
}

/// The messages of a mailbox.
#[derive(Clone, Copy)]
pub enum Mail {
    /// Each is a file of its own.
    Each(fn(u32) -> Message),
    /// One message under very many names, which say how large it is: nobody needs to read it.
    OneFile,
}

/// The two servers.
pub struct Sides {
    /// The server that has the plugin.
    pub with: Dovecot,
    /// The server that has none.
    pub without: Dovecot,
    shape: Shape,
    messages: u32,
    /// The number of the last message that was delivered to either.
    last: Cell<u32>,
    /// It lies over the place of sites on the other server too, so that both start alike.
    _no_site: Scratch,
}

impl Sides {
    /// Makes both, with messages of everyday size, and captures them by these keys.
    pub fn new(host: &Host, shape: Shape, keys: &str, messages: u32) -> Option<Self> {
        Self::with_mail(host, shape, keys, messages, Mail::Each(Message::everyday))
    }

    /// Makes both, with that mail.
    pub fn with_mail(
        host: &Host,
        shape: Shape,
        keys: &str,
        messages: u32,
        mail: Mail,
    ) -> Option<Self> {
        Self::with_gone(host, shape, keys, messages, mail, 0)
    }

    /// Does so, and captures more messages, so many, that are gone since.
    pub fn with_gone(
        host: &Host,
        shape: Shape,
        keys: &str,
        messages: u32,
        mail: Mail,
        gone: u32,
    ) -> Option<Self> {
        let config = Config::default().store(shape.store());
        let (host, no_site) = (with_proc(host), host.scratch());
        let with = Dovecot::start(&host, config.clone().with_plugin())?;
        let without = Dovecot::start(&host.with(no_site.path(), "/var/lib"), config)?;
        let last = Cell::new(messages + gone);
        let sides = Self { with, without, shape, messages, last, _no_site: no_site };
        let old = sides.fill(mail);
        let gone: Vec<PathBuf> = (messages..messages + gone)
            .map(|number| old.deliver(&Message::everyday(number), shape.naming(), number))
            .collect();
        build_site(&sides.with, old.path(), keys);
        for file in gone {
            fs::remove_file(file).expect("root");
        }
        Some(sides)
    }

    /// Puts the same mail on both; gives the Maildir that was captured.
    fn fill(&self, mail: Mail) -> Maildir {
        let (with, without) = (self.with.mail(USER), self.without.mail(USER));
        let old = match self.shape {
            Shape::Maildir(_) => with.clone(),
            Shape::Mdbox => self.with.dir().join("old"),
        };
        let maildir = Maildir::create(&old);
        match mail {
            Mail::Each(message) => {
                for number in 0..self.messages {
                    maildir.deliver(&message(number), self.shape.naming(), number);
                }
            }
            Mail::OneFile => deliver_one_file(&maildir, self.messages),
        }
        if self.shape == Shape::Mdbox {
            self.with.import(USER, &old);
            for server in [&self.with, &self.without] {
                copy_but(&with, &pristine(server), "storage/m.*");
            }
            copy(&with, &without, "-a");
        } else {
            // The servers rename files, and write into none.
            copy(&with, &without, "-al");
        }
        maildir
    }

    /// The costs of the two sides in turns, the side with the plugin first.
    pub fn take_turns<T>(&self, rounds: usize, cost: impl Fn(&Dovecot) -> T) -> (Vec<T>, Vec<T>) {
        (0..rounds).map(|_| (cost(&self.with), cost(&self.without))).unzip()
    }

    /// Gives the server without the plugin what the other has made of its Maildir, with all that
    /// was written to `dovecot-uidlist`. Our own files stay behind.
    pub fn bake_without(&self) {
        let (with, without) = (self.with.mail(USER), self.without.mail(USER));
        fs::remove_dir_all(&without).expect("root");
        copy(&with, &without, "-al");
        for entry in fs::read_dir(&with).expect("a Maildir") {
            let (path, copied) = entry.map(|e| (e.path(), without.join(e.file_name()))).unwrap();
            if path.is_file() {
                // It is one of those that the servers write into.
                fs::remove_file(&copied).expect("root");
                if !path.file_name().unwrap().to_string_lossy().starts_with("uidl-keep") {
                    copy(&path, &copied, "-a");
                }
            }
        }
    }

    /// Brings in one more message, as this kind of server does, a while after the last.
    pub fn receive(&self, server: &Dovecot) {
        match self.shape {
            Shape::Maildir(naming) => {
                // Each fifth is one that waits in `new`.
                let number = self.last.get() / 5 * 5 + 9;
                self.last.set(number);
                let maildir = Maildir::open(server.mail(USER));
                settle(server, &maildir);
                maildir.deliver(&Message::everyday(number), naming, number);
            }
            Shape::Mdbox => {
                let number = self.last.get() + 1;
                self.last.set(number);
                let message = Message::everyday(number).on_the_wire();
                imap::append(server.imap(), USER, [message.as_slice()]);
            }
        }
    }
}

/// Delivers one message under many names, as Dovecot names files.
fn deliver_one_file(maildir: &Maildir, messages: u32) {
    /// A file system has room for some ten thousand names of a file, and two servers have these.
    const NAMES: u32 = 30_000;
    let (mut file, mut size) = (PathBuf::new(), String::new());
    for number in 0..messages {
        if number % NAMES == 0 {
            file = maildir.deliver(&Message::plain(0), Naming::Dovecot, number);
            let name = file.file_name().expect("a file").to_str().expect("ASCII");
            let (_, rest) = name.split_once(',').expect("a size");
            size = rest.split(':').next().unwrap_or_default().to_owned();
            continue;
        }
        let time = 1_714_990_000 + number;
        let name = format!("cur/{time}.M{number}P20000.old.example.com,{size}:2,S");
        fs::hard_link(&file, maildir.path().join(name)).expect("room for a name");
    }
}

/// The same host with /proc, which valgrind reads, and a tree lacks.
fn with_proc(host: &Host) -> Host {
    match host.outside("/") == Path::new("/") {
        true => host.clone(),
        false => host.clone().with(Path::new("/proc"), "/proc"),
    }
}

/// Has Dovecot look at a Maildir a while after its last change. Before that, it takes what it saw
/// for something that may have changed within the same second, and reads all names again.
fn settle(server: &Dovecot, maildir: &Maildir) {
    for sub in ["new", "cur"] {
        let changed = maildir.path().join(sub).metadata().and_then(|meta| meta.modified());
        let ago = changed.expect("a Maildir").elapsed().unwrap_or_default();
        std::thread::sleep(Duration::from_millis(2_100).saturating_sub(ago));
    }
    session(server, 0);
}

/// Copies a directory in the place of one that is not there.
fn copy(from: &Path, to: &Path, how: &str) {
    let copied = Command::new("cp").args([how, "--"]).args([from, to]).status();
    assert!(copied.expect("cp").success(), "{}", to.display());
}

/// Copies a directory, but for the files of that pattern in it.
fn copy_but(from: &Path, to: &Path, but: &str) {
    let pipe = "mkdir \"$2\" && tar -C \"$1\" -cf - --exclude \"$3\" . | tar -C \"$2\" -xpf -";
    let copied = Command::new("sh").args(["-c", pipe, "-"]).args([from, to]).arg(but).status();
    assert!(copied.expect("tar").success(), "{}", to.display());
}

/// A copy of all that is beside the messages of an mdbox.
fn pristine(server: &Dovecot) -> PathBuf {
    server.dir().join("pristine")
}

/// Builds a site of that Maildir, captured by these keys.
pub fn build_site(server: &Dovecot, maildir: &Path, keys: &str) {
    let mut capture = helper::uidl_keep();
    capture.args(["capture", "qmail", "--keys", keys, "--user", USER]).arg(maildir);
    let listing = server.dir().join("listing");
    fs::write(&listing, helper::run(&mut capture)).expect("our directory");
    server.empty_site();
    helper::build_site(&server.site(), &listing);
}

/// Makes the next login the first: all is removed that Dovecot and we wrote beside the mail. Of an
/// mdbox, the index comes back that the import made.
pub fn forget_all_but_mail(server: &Dovecot) {
    let mail = server.mail(USER);
    if pristine(server).exists() {
        for entry in fs::read_dir(mail.join("storage")).expect("an mdbox") {
            let entry = entry.expect("an mdbox");
            if !entry.file_name().to_string_lossy().starts_with("m.") {
                fs::remove_file(entry.path()).expect("root");
            }
        }
        fs::remove_dir_all(mail.join("mailboxes")).expect("root");
        copy(&pristine(server).join("."), &mail, "-a");
        return;
    }
    for entry in fs::read_dir(mail).expect("a Maildir") {
        let entry = entry.expect("a Maildir");
        if entry.file_type().expect("a type").is_file() {
            fs::remove_file(entry.path()).expect("root");
        }
    }
}

/// The cost of one session, in seconds or in instructions.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Up to the answer to STAT.
    pub login: f64,
    /// A UIDL.
    pub uidl: f64,
    /// All but the UIDLs, QUIT and what comes after it too. 0 where it was not measured.
    pub whole: f64,
    /// The memory of the process itself before QUIT.
    pub anonymous_kib: f64,
    /// The most address space until then.
    pub space_kib: f64,
}

/// What a session with so many UIDLs costs in processor time.
pub fn session(server: &Dovecot, uidls: u32) -> Cost {
    let (mut pop3, child) = server.process(USER);
    let failed = |refused| -> String { panic!("{refused:?}\n{}", server.process_log()) };
    pop3.command("STAT").unwrap_or_else(failed);
    let login = processor_time(&child);
    for _ in 0..uidls {
        pop3.uidl().expect("UIDL");
    }
    let all = match uidls {
        0 => login,
        _ => processor_time(&child),
    };
    let [anonymous_kib, space_kib] =
        ["RssAnon", "VmPeak"].map(|field| status_kib(&child, field) as f64);
    pop3.quit().expect("QUIT");
    let ended = super::measure::wait_for(child).processor;
    Cost {
        login: login.as_secs_f64(),
        uidl: ((all - login) / uidls.max(1)).as_secs_f64(),
        whole: (ended.saturating_sub(all - login)).as_secs_f64(),
        anonymous_kib,
        space_kib,
    }
}

/// What a session with so many UIDLs costs in user instructions.
pub fn counted(server: &Dovecot, uidls: u32) -> Cost {
    let callgrind = Callgrind::of(server);
    let (mut pop3, child) = server.process_under(&callgrind.under, USER);
    let failed = |refused| -> String { panic!("{refused:?}\n{}", server.process_log()) };
    pop3.command("STAT").unwrap_or_else(failed);
    let after_login = callgrind.begun();
    for _ in 0..uidls {
        pop3.uidl().expect("UIDL");
    }
    let after_uidls = callgrind.begun();
    pop3.quit().expect("QUIT");
    super::measure::wait_for(child);
    let parts = callgrind.instructions();
    assert!(parts.len() > after_uidls, "{parts:?}: {}", server.process_log());
    let of = |parts: &[f64]| parts.iter().sum::<f64>();
    let of_uidls = of(&parts[after_login..after_uidls]);
    Cost {
        login: of(&parts[..after_login]),
        uidl: of_uidls / f64::from(uidls.max(1)),
        whole: of(&parts) - of_uidls,
        anonymous_kib: 0.0,
        space_kib: 0.0,
    }
}

/// The middle of a part of several costs.
pub fn middle(costs: &[Cost], part: fn(&Cost) -> f64) -> f64 {
    median(costs.iter().map(part))
}

/// A time as the table has it.
pub fn milliseconds(seconds: f64) -> String {
    format!("{:.1}", Duration::from_secs_f64(seconds).as_secs_f64() * 1e3)
}
