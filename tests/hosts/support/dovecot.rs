//! A private Dovecot: the new server, and sometimes the old one.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::host::{Host, Line, Scratch, can_mount};
use super::maildir::make_owned;
use super::pop3::{Pop3, Refused};
use super::{OWNER, helper};

/// The directory in which every site lies.
const STATE: &str = "/var/lib";
/// The longest time that a start or a stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The store in which Dovecot keeps a user's mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// One file for each message, with its name.
    Maildir,
    /// One file for many messages.
    Mdbox,
    /// One file for each message, without its name.
    Sdbox,
}

impl Store {
    /// Dovecot's word for it, and for the directory below the home.
    pub fn word(self) -> &'static str {
        match self {
            Store::Maildir => "maildir",
            Store::Mdbox => "mdbox",
            Store::Sdbox => "sdbox",
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Store::Maildir => "Maildir",
            other => other.word(),
        }
    }
}

/// The properties in which one instance differs from the next.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store of the mail.
    pub store: Store,
    /// `pop3_uidl_format`, which is given as this Dovecot spells it; its default where `None`.
    pub uidl_format: Option<&'static str>,
    /// The lines of the site's settings; `None` if the plugin is not loaded.
    pub plugin: Option<Vec<&'static str>>,
    /// The uid and the gid that every user has.
    pub owner: (u32, u32),
    /// Whether each user is shut up by chroot in the directory that the homes are in.
    pub chroot: bool,
    /// Lines of dovecot.conf that come before those that say who may log in.
    pub first: String,
    /// More lines of dovecot.conf.
    pub extra: String,
}

impl Default for Config {
    /// A Maildir, and no plugin.
    fn default() -> Self {
        let (store, first, extra) = (Store::Maildir, String::new(), String::new());
        let owner = (OWNER, OWNER);
        Self { store, uidl_format: None, plugin: None, owner, chroot: false, first, extra }
    }
}

impl Config {
    /// The same with the plugin loaded, its settings at their defaults.
    pub fn with_plugin(mut self) -> Self {
        self.plugin = Some(Vec::new());
        self
    }

    /// The same with mail in that store.
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// The same with users shut up by chroot.
    pub fn chroot(mut self) -> Self {
        self.chroot = true;
        self
    }

    /// The same with that `pop3_uidl_format`, in either spelling.
    pub fn uidl_format(mut self, format: &'static str) -> Self {
        self.uidl_format = Some(format);
        self
    }
}

/// A running instance with POP3 and IMAP on 127.0.0.1, any user, one password. It is stopped on
/// drop. With the plugin it has a site of its own: a directory of the test lies over [`STATE`] for
/// its programs.
pub struct Dovecot {
    host: Host,
    scratch: Scratch,
    config: Config,
    pop3: SocketAddr,
    imap: SocketAddr,
    master: Option<Child>,
    logins: AtomicUsize,
}

impl Dovecot {
    /// Starts one.
    ///
    /// `None`, having said why, when it is to load the plugin and there is none that fits.
    pub fn start(host: &Host, config: Config) -> Option<Self> {
        let (scratch, mut host) = (host.scratch(), host.clone());
        for dir in ["run", "lib/uidl-keep"] {
            fs::create_dir_all(scratch.path().join(dir)).expect("our directory");
        }
        if config.plugin.is_some() {
            if !can_mount() || !install_plugin(&host, scratch.path()) {
                return None;
            }
            host = host.with(&scratch.path().join("lib"), STATE);
        }
        make_owned(&scratch.path().join("home"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            host,
            scratch,
            config,
            pop3: nowhere,
            imap: nowhere,
            master: None,
            logins: AtomicUsize::new(0),
        };
        server.write_settings();
        server.resume();
        Some(server)
    }

    /// Starts it again, as it was, after [`Dovecot::pause`].
    pub fn resume(&mut self) {
        // Another process may take a port between our look and Dovecot's: then look again.
        for _ in 0..5 {
            (self.pop3, self.imap) = (free_port(), free_port());
            fs::write(self.scratch.path().join("dovecot.conf"), self.configuration())
                .expect("ours");
            let started = self
                .host
                .command("dovecot")
                .args(["-F", "-c"])
                .arg(self.scratch.inside().join("dovecot.conf"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(self.scratch.path().join("stderr")).expect("ours"))
                .spawn()
                .expect("dovecot");
            self.master = Some(started);
            if self.greets() {
                return;
            }
            self.pause();
        }
        panic!("Dovecot did not start:\n{}", self.log());
    }

    /// Starts it again with other lines of dovecot.conf in the place of [`Config::extra`].
    pub fn restart_with(&mut self, extra: &str) {
        self.pause();
        extra.clone_into(&mut self.config.extra);
        self.resume();
    }

    /// Stops it. Mail, log and site stay.
    pub fn pause(&mut self) {
        let Some(mut master) = self.master.take() else { return };
        let pid = i32::try_from(master.id()).expect("a pid");
        // SAFETY: kill touches no memory; the pid is that of a child that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let asked = Instant::now();
        let mut logs = None;
        while master.try_wait().expect("our child").is_none() {
            // The last process that is left writes the log. Dovecot gives it a second for that. It
            // needs none, for it ends when nothing is left to write.
            let left = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let left = left.unwrap_or_default();
            let only =
                left.split_whitespace().next().filter(|only| only.len() == left.trim().len());
            logs = only.map(str::to_owned);
            if logs.is_some() || asked.elapsed() > PATIENCE {
                let _ = master.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let stat = logs.map(|pid| format!("/proc/{pid}/stat"));
        let writes =
            |stat: &String| fs::read_to_string(stat).is_ok_and(|stat| !stat.contains(") Z "));
        while stat.as_ref().is_some_and(writes) && asked.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Another process may have that number when it starts again.
        let _ = fs::remove_file(self.scratch.path().join("run/master.pid"));
    }

    /// Connects and logs in.
    pub fn login(&self, user: &str) -> Result<Pop3, Refused> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        Pop3::login(self.pop3, user)
    }

    /// Starts it again over the same mail, as it was except for this change. The plugin can be
    /// taken out of a configuration, not put in.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        self.pause();
        change(&mut self.config);
        self.resume();
    }

    /// Makes its site anew, with nothing in it but the settings.
    pub fn empty_site(&self) {
        let _ = fs::remove_dir_all(self.site());
        fs::create_dir(self.site()).expect("our directory");
        self.write_settings();
    }

    fn write_settings(&self) {
        let lines: Vec<&str> = self.config.plugin.iter().flatten().copied().collect();
        if !lines.is_empty() {
            let text = format!("uidl-keep-settings 1\n{}\n", lines.join("\n"));
            fs::write(self.site().join("settings"), text).expect("our directory");
        }
    }

    /// Starts the process that follows a login: Dovecot's own `pop3`, already told who has logged
    /// in, on a socket pair. It does not greet.
    pub fn process(&self, user: &str) -> (Pop3, Child) {
        self.process_under::<&str>(&[], user)
    }

    /// The same with that many octets of address space, as `vsz_limit` gives it.
    pub fn process_within(&self, user: &str, octets: u64) -> (Pop3, Child) {
        self.process_under(&["prlimit", &format!("--as={octets}")], user)
    }

    /// Does as [`Dovecot::process`] with a command before it that runs it: `env`, `prlimit`,
    /// `valgrind`. The output of that is in [`Dovecot::process_log`].
    pub fn process_under<A: AsRef<std::ffi::OsStr>>(
        &self,
        under: &[A],
        user: &str,
    ) -> (Pop3, Child) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let out = OwnedFd::from(theirs.try_clone().expect("a socket"));
        let home = self.scratch.inside().join("home").join(user);
        let owner = OWNER.to_string();
        let child = self
            .host
            .command("setpriv")
            .args(["--reuid", &owner, "--regid", &owner, "--clear-groups"])
            .args(under)
            .args(["/usr/lib/dovecot/pop3", "-c"])
            .arg(self.scratch.inside().join("dovecot.conf"))
            .arg("-o")
            .arg(format!("mail_home={}", home.display()))
            .args(["-o", "log_path=/dev/stderr", "-o", "stats_writer_socket_path="])
            .env("USER", user)
            .env("HOME", &home)
            // doveconf, by which Dovecot 2.4 reads its configuration, clears the rest away.
            .env("DOVECOT_PRESERVE_ENVS", "USER HOME")
            .stdin(OwnedFd::from(theirs))
            .stdout(out)
            .stderr(fs::File::create(self.scratch.path().join("process")).expect("ours"))
            .spawn()
            .expect("setpriv");
        (Pop3::adopt(ours).expect("a socket"), child)
    }

    /// The stderr of the last [`Dovecot::process`], with its log.
    pub fn process_log(&self) -> String {
        let log = fs::read(self.scratch.path().join("process")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The unique-id listing, in this server's order, from a session of its own.
    pub fn uidl(&self, user: &str) -> Vec<String> {
        let listing = || {
            let mut session = self.login(user)?;
            let listing = session.uidl()?;
            session.quit()?;
            Ok(listing)
        };
        listing().unwrap_or_else(|refused: Refused| {
            panic!("no unique-id listing for {user}: {refused:?}; the log:\n{}", self.log())
        })
    }

    /// The processor time of all sessions that have ended, and of what else its master has started
    /// and seen end.
    pub fn time_of_children(&self) -> Duration {
        let pid = self.master.as_ref().expect("it runs").id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let (_, after_name) = stat.rsplit_once(") ").expect("a name in parentheses");
        let fields = after_name.split(' ').skip(13).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// The address where clients find POP3.
    pub fn pop3(&self) -> SocketAddr {
        self.pop3
    }

    /// The address where clients find IMAP.
    pub fn imap(&self) -> SocketAddr {
        self.imap
    }

    /// A user's home, as this process sees it; made when it is not there.
    pub fn home(&self, user: &str) -> PathBuf {
        let home = self.scratch.path().join("home").join(user);
        make_owned(&home);
        home
    }

    /// The directory of a user's mail.
    pub fn mail(&self, user: &str) -> PathBuf {
        self.home(user).join(self.config.store.directory())
    }

    /// Its site, as this process sees it. Its own programs find it at `/var/lib/uidl-keep`.
    pub fn site(&self) -> PathBuf {
        self.scratch.path().join("lib/uidl-keep")
    }

    /// The directory that lies over `/var/lib` for its programs, as this process sees it, and that
    /// place.
    pub fn state(&self) -> (PathBuf, &'static str) {
        (self.scratch.path().join("lib"), STATE)
    }

    /// A program, run where its Dovecot runs.
    pub fn command(&self, program: &str) -> Command {
        self.host.command(program)
    }

    /// This instance's own directory.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// A path below [`Dovecot::dir`], as this Dovecot sees it.
    pub fn inside(&self, path: &Path) -> PathBuf {
        let (state, place) = self.state();
        if let Some(rest) = path.strip_prefix(state).ok().filter(|_| self.has_plugin()) {
            return Path::new(place).join(rest);
        }
        self.scratch.inside().join(path.strip_prefix(self.dir()).expect("below its directory"))
    }

    /// The names that a file of its own has beside this one: as its programs say it to the system,
    /// and as the system says it of an open file to who is outside of a tree.
    pub fn other_names(&self, path: &Path) -> Vec<PathBuf> {
        let is_outside = path.starts_with(self.dir());
        let inside = if is_outside { self.inside(path) } else { path.to_owned() };
        let outside = self.host.outside(inside.to_str().expect("UTF-8"));
        [inside, outside].into_iter().filter(|name| name != path).collect()
    }

    /// Its configuration file, as this process sees it.
    pub fn conf(&self) -> PathBuf {
        self.scratch.path().join("dovecot.conf")
    }

    /// The log so far.
    pub fn log(&self) -> String {
        let read = |name| fs::read(self.scratch.path().join(name)).unwrap_or_default();
        [read("stderr"), read("log"), read("process")]
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .concat()
    }

    /// The log once every session that was begun by [`Dovecot::login`] has ended there, too: a
    /// client sees the end of one before the log does. Panics if one is still open.
    pub fn settled_log(&self) -> String {
        let (asked, logins) = (Instant::now(), self.logins.load(Ordering::SeqCst));
        loop {
            let log = self.log();
            // The second is of 2.3.13, where INBOX cannot be opened.
            let ends = ["Info: Disconnected: ", "Info: Couldn't ", "Fatal: ", "Panic: "];
            let is_end = |line: &&str| {
                line.contains(" pop3(")
                    && ends.iter().any(|end| line.contains(end))
                    && !line.contains("Fatal: master: ")
            };
            if log.lines().filter(is_end).count() >= logins {
                return log;
            }
            assert!(asked.elapsed() < 3 * PATIENCE, "not all of {logins} sessions ended:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One of Dovecot's programs, with its configuration.
    pub fn program(&self, program: &str) -> Command {
        let mut command = self.host.command(program);
        command.arg("-c").arg(self.scratch.inside().join("dovecot.conf"));
        command
    }

    /// A program that runs as that uid under another, which sees the whole system.
    pub fn watched(&self, watcher: &[OsString], uid: u32, program: &str) -> Command {
        self.host.watched(watcher, uid, program)
    }

    /// Runs doveadm on this instance.
    pub fn doveadm<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.doveadm_on(self, args)
    }

    /// Runs doveadm and insists on success. Returns what it printed.
    pub fn doveadm_ok<A: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> String {
        self.text_of(self.doveadm(args))
    }

    /// Runs doveadm on another instance, where programs of this one find their site.
    pub fn doveadm_on<A: AsRef<std::ffi::OsStr>>(
        &self,
        other: &Self,
        args: impl IntoIterator<Item = A>,
    ) -> Output {
        let conf = other.inside(&other.conf());
        self.host.command("doveadm").arg("-c").arg(conf).args(args).output().expect("doveadm")
    }

    /// Runs doveadm with the plugin loaded for that alone.
    pub fn doveadm_with_us<A: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Output {
        let args: Vec<A> = args.into_iter().collect();
        let args = args.iter().map(AsRef::as_ref);
        self.doveadm(self.loading_us().into_iter().map(AsRef::as_ref).chain(args))
    }

    /// Runs doveadm with the plugin loaded for that alone, and insists on success. Returns what it
    /// printed.
    pub fn doveadm_with_us_ok<A: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> String {
        self.text_of(self.doveadm_with_us(args))
    }

    /// Whether POP3 loads the plugin.
    pub fn has_plugin(&self) -> bool {
        self.config.plugin.is_some()
    }

    /// The arguments by which doveadm loads the plugin.
    pub fn loading_us(&self) -> [&'static str; 2] {
        match self.host.line() {
            Line::V23 => ["-o", "mail_plugins=uidl_keep"],
            Line::V24 => ["-o", "mail_plugins/uidl_keep=yes"],
        }
    }

    fn text_of(&self, output: Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "doveadm: {said}\n{}", self.log());
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The helper's forecast of this instance's site, run where its Dovecot runs.
    pub fn forecast(&self, args: &[&str]) -> Command {
        let conf = self.scratch.inside().join("dovecot.conf");
        let mut command = self.helper();
        command.args(["forecast", "--doveadm-args", &format!("-c {}", conf.display())]);
        command.arg("--site").arg(self.inside(&self.site())).args(args);
        command
    }

    /// Whether its plugin gives the old order.
    pub fn keeps_order(&self) -> bool {
        !self.config.plugin.iter().flatten().any(|setting| *setting == "order no")
    }

    /// The argument that tells the helper of that host how to ask this instance.
    pub fn doveadm_args(&self) -> String {
        format!("--doveadm-args=-c {}", self.inside(&self.conf()).display())
    }

    /// The helper, run where its Dovecot runs. So the plugin in what it starts finds the site.
    pub fn helper(&self) -> Command {
        let program = self.helper_program();
        let program = program.to_str().expect("UTF-8");
        if self.scratch.inside() == self.scratch.path() {
            return self.host.command(program);
        }
        // It opens files through /proc, which a tree lacks.
        self.host.clone().with(Path::new("/proc"), "/proc").command(program)
    }

    /// The program of the helper, as this Dovecot sees it.
    pub fn helper_program(&self) -> PathBuf {
        if self.scratch.inside() == self.scratch.path() {
            return PathBuf::from(env!("CARGO_BIN_EXE_uidl-keep"));
        }
        let (helper, beside) = (helper::for_trees(), self.dir().join("uidl-keep"));
        if !beside.exists() {
            fs::hard_link(&helper, &beside)
                .or_else(|_| fs::copy(&helper, &beside).map(drop))
                .expect("our directory");
        }
        self.inside(&beside)
    }

    /// Imports the mail of a Maildir below [`Dovecot::dir`]: it is saved anew, and the names are
    /// kept as GUIDs.
    pub fn import(&self, user: &str, maildir: &Path) {
        let source = format!("maildir:{}", self.inside(maildir).display());
        self.doveadm_ok(["import", "-u", user, &source, "", "mailbox", "INBOX", "all"]);
    }

    /// Delivers a message as scripts and devices do: by `dovecot-lda`, which adds nothing to it.
    pub fn deliver(&self, user: &str, message: &[u8]) {
        let mut lda = self
            .program("/usr/lib/dovecot/dovecot-lda")
            .args(["-d", user])
            .stdin(Stdio::piped())
            .spawn()
            .expect("dovecot-lda");
        lda.stdin.take().expect("a pipe").write_all(message).expect("dovecot-lda");
        assert!(lda.wait().expect("our child").success(), "{}", self.log());
    }

    /// Deletes Dovecot's index files of a user, which Dovecot can make again from the mail: for a
    /// Maildir by itself, for dbox when asked.
    pub fn remove_index_files(&self, user: &str) {
        let mut dirs = vec![self.mail(user)];
        let mut removed = 0;
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).expect("mail") {
                let path = entry.expect("mail").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                if path.is_dir() {
                    dirs.push(path);
                } else if name.starts_with("dovecot.index") || name.starts_with("dovecot.map.index")
                {
                    fs::remove_file(&path).expect("root");
                    removed += 1;
                }
            }
        }
        assert!(removed > 0, "no index files of {user}");
        if self.config.store != Store::Maildir {
            self.doveadm_ok(["force-resync", "-u", user, "INBOX"]);
        }
    }

    fn greets(&mut self) -> bool {
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            // If APOP is offered, more follows.
            let is_ours = |session: Pop3| session.greeting().starts_with(&self.name());
            if Pop3::connect(self.pop3).is_ok_and(is_ours) {
                return true;
            }
            let master = self.master.as_mut().expect("just started");
            if master.try_wait().expect("our child").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Its greeting, which no other has: between our look at a port and its own, another Dovecot
    /// may have taken it.
    fn name(&self) -> String {
        format!("{} ready", self.scratch.inside().display())
    }

    fn configuration(&self) -> String {
        let dir = self.scratch.inside();
        let dir = dir.display();
        let name = self.name();
        let Config { store, owner: (uid, gid), .. } = self.config;
        let line = self.host.line();
        let homes = if self.config.chroot { "home/." } else { "home" };
        let mut conf = String::new();
        if line == Line::V24 {
            conf.push_str("dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n");
        }
        let _ = write!(
            conf,
            "base_dir = {dir}/run\n\
             state_dir = {dir}/run\n\
             log_path = {dir}/log\n\
             instance_name = {dir}\n\
             login_greeting = {name}\n\
             protocols = pop3 imap\n\
             listen = 127.0.0.1\n\
             ssl = no\n\
             auth_mechanisms = plain login\n\
             first_valid_uid = {OWNER}\n\
             first_valid_gid = {OWNER}\n\
             mail_uid = {uid}\n\
             mail_gid = {gid}\n\
             mail_fsync = never\n\
             mail_max_userip_connections = 1000\n\
             namespace inbox {{\n  inbox = yes\n  separator = /\n}}\n"
        );
        conf.push_str(&self.config.first);
        conf.push_str(&match line {
            Line::V23 => format!(
                "disable_plaintext_auth = no\n\
                 mail_location = {}:~/{}\n\
                 passdb {{\n  driver = static\n  args = password={}\n}}\n\
                 userdb {{\n  driver = static\n  \
                 args = uid={uid} gid={gid} home={dir}/{homes}/%u allow_all_users=yes\n}}\n",
                store.word(),
                store.directory(),
                super::PASSWORD
            ),
            Line::V24 => format!(
                "auth_allow_cleartext = yes\n\
                 mail_driver = {}\n\
                 mail_path = ~/{}\n\
                 passdb static {{\n  password = {}\n}}\n\
                 userdb static {{\n  fields {{\n    uid = {uid}\n    gid = {gid}\n    \
                 home = {dir}/{homes}/%{{user}}\n  }}\n  allow_all_users = yes\n}}\n",
                store.word(),
                store.directory(),
                super::PASSWORD
            ),
        });
        for (name, port) in [("pop3", self.pop3.port()), ("imap", self.imap.port())] {
            let _ = write!(
                conf,
                "service {name}-login {{\n  inet_listener {name} {{\n    port = {port}\n  }}\n  \
                 inet_listener {name}s {{\n    port = 0\n  }}\n  chroot =\n}}\n"
            );
        }
        if self.config.chroot {
            let _ = writeln!(conf, "valid_chroot_dirs = {dir}/home");
        }
        conf.push_str("service anvil {\n  chroot =\n}\nservice stats {\n  chroot =\n}\n");
        if let Some(format) = self.config.uidl_format {
            let _ = writeln!(conf, "pop3_uidl_format = {}", spelled(format, line));
        }
        if self.config.plugin.is_some() {
            let _ = writeln!(conf, "mail_plugin_dir = {dir}/modules");
            let loading = match line {
                Line::V23 => "mail_plugins = $mail_plugins uidl_keep",
                Line::V24 => "mail_plugins {\n    uidl_keep = yes\n  }",
            };
            let _ = writeln!(conf, "protocol pop3 {{\n  {loading}\n}}");
        }
        conf.push_str(&self.config.extra);
        conf
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.pause();
        if std::thread::panicking() {
            eprintln!("--- the log of {}:\n{}---", self.dir().display(), self.log());
        }
    }
}

/// Makes `modules` below `dir`: the stock ones, and ours beside them under its installed name.
fn install_plugin(host: &Host, dir: &Path) -> bool {
    let Some(plugin) = helper::plugin(host.line()) else { return false };
    let stock = ["/usr/lib/dovecot/modules", "/usr/lib64/dovecot"]
        .into_iter()
        .find(|stock| host.outside(stock).is_dir())
        .expect("a Dovecot with modules");
    let modules = dir.join("modules");
    fs::create_dir(&modules).expect("our directory");
    for entry in fs::read_dir(host.outside(stock)).expect("modules") {
        let name = entry.expect("modules").file_name();
        if !name.to_string_lossy().contains("uidl_keep") {
            symlink(Path::new(stock).join(&name), modules.join(&name)).expect("our directory");
        }
    }
    let module = modules.join("lib95_uidl_keep_plugin.so");
    // It is large with all that a debugger wants, and there are hundreds of servers.
    fs::hard_link(&plugin, &module)
        .or_else(|_| fs::copy(&plugin, &module).map(drop))
        .expect("our directory");
    true
}

/// That `pop3_uidl_format`, as this line spells it.
fn spelled(format: &str, line: Line) -> String {
    if line == Line::V23 || format.contains("%{") {
        return format.to_owned();
    }
    [("%08Xu", "%{uid | hex(8)}"), ("%08Xv", "%{uidvalidity | hex(8)}"), ("%u", "%{uid}")]
        .into_iter()
        .chain([("%v", "%{uidvalidity}"), ("%f", "%{filename}"), ("%g", "%{guid}")])
        .fold(format.to_owned(), |format, (old, new)| format.replace(old, new))
}

/// The lines by which that Dovecot finds mail at this path: the word for the store, and further
/// places by the words that 2.3 has for them (`CONTROL`, `INDEX`, `INBOX`, `ALT`).
pub fn mail_at(line: Line, store: &str, path: &str, places: &[(&str, &str)]) -> String {
    let places = places.iter();
    match line {
        Line::V23 => {
            let places: String = places.map(|(name, at)| format!(":{name}={at}")).collect();
            format!("mail_location = {store}:{path}{places}\n")
        }
        Line::V24 => {
            let place = |(name, at): &(&str, &str)| {
                format!("mail_{}_path = {at}\n", name.to_ascii_lowercase())
            };
            let places: String = places.map(place).collect();
            format!("mail_driver = {store}\nmail_path = {path}\n{places}")
        }
    }
}

/// The lines by which all programs that open mail load that plugin of Dovecot's, beside those that
/// they load anyway.
pub fn loads(line: Line, plugin: &str) -> String {
    match line {
        Line::V23 => format!("mail_plugins = $mail_plugins {plugin}\n"),
        Line::V24 => format!("mail_plugins {{\n  {plugin} = yes\n}}\n"),
    }
}

/// The lines of a password database of that driver, with the one argument that the driver has.
pub fn passdb(line: Line, driver: &str, argument: &str, more: &str) -> String {
    match (line, driver) {
        (Line::V23, "static") => {
            format!("passdb {{\n  driver = static\n  args = password={argument}\n{more}}}\n")
        }
        (Line::V23, _) => {
            format!("passdb {{\n  driver = {driver}\n  args = {argument}\n{more}}}\n")
        }
        (Line::V24, "static") => {
            format!("passdb more {{\n  driver = static\n  static_password = {argument}\n{more}}}\n")
        }
        (Line::V24, _) => format!(
            "passdb more {{\n  driver = {driver}\n  passwd_file_path = {argument}\n{more}}}\n"
        ),
    }
}

/// An address of 127.0.0.1 that nobody listens on, at this moment.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
