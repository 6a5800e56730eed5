//! A Dovecot whose POP3 loads what packages put in the plugin's place, at the places of the
//! packages: [`Loaded`].

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uidl_keep::abi::{Abi, PLUGIN_FILE};

use super::dovecot::Config;
use super::helper;
use super::host::{Host, Line, Scratch, unix_mode};
use super::mail::Message;
use super::maildir::{Maildir, Naming};
use super::pop3::{Pop3, Refused};
use super::scenario::{Scenario, USER};

/// How long a line of the log is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A user who was never migrated.
pub const STRANGER: &str = "erin@example.net";

/// The server, with a site at `/var/lib/uidl-keep`, plugins at `/usr/lib/uidl-keep`, and a
/// directory of modules in which a test puts what it likes.
pub struct Loaded {
    /// The server; three messages of its user were captured.
    pub server: Scenario,
    host: Host,
    place: Scratch,
}

impl Loaded {
    /// Starts one with nothing in the plugin's place and none at hand. Only POP3 loads the plugin.
    pub fn start(host: &Host, config: Config) -> Option<Self> {
        let place = host.scratch();
        for dir in ["uidl-keep/abi", "lib/uidl-keep", "modules", "site"] {
            fs::create_dir_all(place.path().join(dir)).expect("our directory");
        }
        let stock = Path::new("/usr/lib/dovecot/modules");
        for entry in fs::read_dir(host.outside("/usr/lib/dovecot/modules")).expect("modules") {
            let name = entry.expect("modules").file_name();
            if !name.to_string_lossy().contains("uidl_keep") {
                symlink(stock.join(&name), place.path().join("modules").join(&name)).unwrap();
            }
        }
        let host = host.clone().with(&place.path().join("site"), "/var/lib/uidl-keep");
        // A place to mount it, for what is put there later is seen only in what is mounted so.
        let host = host.beside(&place.path().join("lib"), "/usr/lib");
        let host = host.with(&place.path().join("uidl-keep"), "/usr/lib/uidl-keep");
        // The loader looks there at the process of auth, and a tree lacks it.
        let host = match host.outside("/") == Path::new("/") {
            true => host,
            false => host.with(Path::new("/proc"), "/proc"),
        };
        let modules = place.inside().join("modules");
        let loading = match host.line() {
            Line::V23 => "mail_plugins = $mail_plugins uidl_keep",
            Line::V24 => "mail_plugins {\n    uidl_keep = yes\n  }",
        };
        let extra = format!(
            "{}mail_plugin_dir = {}\nprotocol pop3 {{\n  {loading}\n}}\n",
            config.extra,
            modules.display()
        );
        // What is told before anybody logs in needs the plugin's settings.
        let server = Scenario::migrated_at(&host, 3, Config { extra, ..config })?;
        let site = place.path().join("site");
        for entry in fs::read_dir(server.dovecot.site()).expect("the site") {
            let entry = entry.expect("the site");
            fs::rename(entry.path(), site.join(entry.file_name())).expect("our directories");
        }
        fs::set_permissions(&site, unix_mode(0o711)).expect("our directory");
        fs::remove_dir(server.dovecot.site()).expect("empty");
        symlink(&site, server.dovecot.site()).expect("our directory");
        let loaded = Self { server, host, place };
        let stranger = Maildir::create(loaded.server.dovecot.mail(STRANGER));
        stranger.deliver(&Message::plain(1), Naming::Qmail, 1);
        Some(loaded)
    }

    /// The site, as this process sees it.
    pub fn site(&self) -> PathBuf {
        self.place.path().join("site")
    }

    /// The place of the plugin that POP3 loads.
    pub fn module(&self) -> PathBuf {
        self.place.path().join("modules").join(PLUGIN_FILE)
    }

    /// The place of the plugin for an ABI, which the loader loads.
    pub fn at_hand(&self, abi: &str) -> PathBuf {
        self.place.path().join("uidl-keep/abi").join(abi).join(PLUGIN_FILE)
    }

    /// The ABI of its Dovecot.
    pub fn abi(&self) -> String {
        abi_of(&self.host)
    }

    /// Puts the loader where POP3 looks for the plugin.
    pub fn with_loader(self) -> Self {
        put(loader(), &self.module());
        self
    }

    /// Puts the plugin that was built for this release line of Dovecot there.
    pub fn with_plugin(self) -> Option<Self> {
        put(&helper::plugin(self.host.line())?, &self.module());
        Some(self)
    }

    /// Puts the same plugin at hand, for the ABI that it is for. `None`: it was not built.
    pub fn with_plugin_at_hand(self) -> Option<Self> {
        let module = helper::plugin(self.host.line())?;
        let abi = Abi::of_plugin(&module).expect("built for one");
        put(&module, &self.at_hand(abi.as_str()));
        Some(self)
    }

    /// The helper, run in the same host with this Dovecot's doveadm.
    pub fn helper(&self, args: &[&str]) -> Output {
        let conf = self.server.dovecot.inside(&self.server.dovecot.conf());
        let mut command = self.server.dovecot.helper();
        command.args(args).arg("--doveadm-args").arg(format!("-c {}", conf.display()));
        command.output().expect("the helper")
    }

    /// The UIDLs that a POP3 client of a user is told, or what it is told in their place.
    pub fn uidls_of(&self, user: &str) -> Result<Vec<String>, Refused> {
        let mut session = Pop3::login(self.server.dovecot.pop3(), user)?;
        let uidls = session.uidl()?;
        session.quit()?;
        Ok(uidls)
    }

    /// Insists that POP3 refuses a user for now.
    #[track_caller]
    pub fn refuses(&self, user: &str, when: &str) {
        match self.uidls_of(user) {
            Err(Refused(line)) if line.starts_with("-ERR [SYS/TEMP]") => {}
            other => panic!("{when}: {user}: {other:?}\n{}", self.server.dovecot.log()),
        }
    }

    /// Insists that a user who was never migrated is served what Dovecot gives.
    #[track_caller]
    pub fn serves_the_stranger(&self, when: &str) {
        let uidls = self.uidls_of(STRANGER);
        let own = |uidl: &String| uidl.len() == 16 && uidl.bytes().all(|o| o.is_ascii_hexdigit());
        let is_own = |uidls: &Vec<String>| !uidls.is_empty() && uidls.iter().all(own);
        assert!(
            uidls.as_ref().is_ok_and(is_own),
            "{when}: {uidls:?}\n{}",
            self.server.dovecot.log()
        );
    }

    /// Insists that whatever is not POP3 goes on for everybody: IMAP, `doveadm user`, and LMTP, if
    /// this Dovecot has that.
    #[track_caller]
    pub fn all_else_goes_on(&self, when: &str) {
        for user in [USER, STRANGER] {
            let mut imap = super::imap::Imap::login(self.server.dovecot.imap(), user);
            let selected = imap.command("SELECT INBOX").concat();
            assert!(selected.contains(" EXISTS"), "{when}: {user}: {selected}");
            imap.logout();
            let said = self.server.dovecot.doveadm(["user", user]);
            assert!(said.status.success(), "{when}: {said:?}");
            let said =
                self.server.dovecot.doveadm(["mailbox", "status", "-u", user, "uidnext", "INBOX"]);
            assert!(said.status.success(), "{when}: {said:?}");
            if self.has_lmtp() {
                self.deliver_by_lmtp(user);
            }
        }
    }

    /// Lines of dovecot.conf with which it has LMTP, if its host has that.
    pub fn lmtp(host: &Host) -> String {
        if !host.outside("/usr/lib/dovecot/lmtp").exists() {
            return String::new();
        }
        let listener = "service lmtp {\n  unix_listener lmtp {\n    mode = 0666\n  }\n}\n";
        format!("protocols = pop3 imap lmtp\n{listener}")
    }

    fn has_lmtp(&self) -> bool {
        self.server.dovecot.dir().join("run/lmtp").exists()
    }

    #[track_caller]
    fn deliver_by_lmtp(&self, user: &str) {
        let socket = self.server.dovecot.dir().join("run/lmtp");
        let mut to = UnixStream::connect(socket).expect("LMTP");
        let mut lines = BufReader::new(to.try_clone().expect("a socket")).lines();
        let mut said = |wanted: &str| loop {
            let line = lines.next().expect("an answer").expect("an answer");
            if line.as_bytes().get(3) == Some(&b' ') {
                assert!(line.starts_with(wanted), "{line}\n{}", self.server.dovecot.log());
                return;
            }
        };
        said("220");
        for (command, wanted) in [
            ("LHLO test".to_owned(), "250"),
            ("MAIL FROM:<>".to_owned(), "250"),
            (format!("RCPT TO:<{user}>"), "250"),
            ("DATA".to_owned(), "354"),
            ("Subject: late\r\n\r\nbody\r\n.".to_owned(), "250"),
            ("QUIT".to_owned(), "221"),
        ] {
            write!(to, "{command}\r\n").expect("LMTP");
            said(wanted);
        }
    }

    /// The log from an octet on, once it has so many lines with all these words: it is written a
    /// little later than clients are answered.
    #[track_caller]
    pub fn log_since(&self, since: usize, count: usize, words: &[&str]) -> String {
        let asked = Instant::now();
        loop {
            let log = self.server.dovecot.log().split_off(since);
            let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
            if log.lines().filter(has_all).count() >= count {
                return log;
            }
            assert!(asked.elapsed() < PATIENCE, "not {count} lines with {words:?}: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until auth looks at its files again, which it does once a second.
    pub fn auth_has_seen_it(&self) {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let begun = now();
        while now() <= begun {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Puts a copy of a file, which only its owner may write, in a place.
pub fn put(file: &Path, place: &Path) {
    fs::create_dir_all(place.parent().expect("in a directory")).expect("our directory");
    let beside = place.with_extension("new");
    fs::copy(file, &beside).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    fs::set_permissions(&beside, unix_mode(0o644)).expect("ours");
    fs::rename(&beside, place).expect("ours");
}

/// The loader, as `make` builds it for packages.
pub fn loader() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, loader) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let loader = dir.path().join("loader.so");
        let mut make = Command::new("make");
        make.args(["-s", "-C", env!("CARGO_MANIFEST_DIR"), "loader"]);
        make.arg(format!("LOADER={}", loader.display()));
        let output = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().expect("make");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (dir, loader)
    });
    loader
}

/// The ABI of a host's Dovecot.
pub fn abi_of(host: &Host) -> String {
    let library = host.outside("/usr/lib/dovecot/libdovecot.so.0");
    Abi::of_library(&library).expect("a Dovecot").as_str().to_owned()
}
