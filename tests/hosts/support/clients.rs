//! Real POP3 clients that leave mail on the server, each with a memory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::client_state::ClientState;
use super::host::unix_mode;
use super::{PASSWORD, lacking};
use crate::shared::program::write_program;

/// A client program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// fetchmail with `keep`.
    Fetchmail,
    /// fetchmail with `keep` and `fastuidl 1`: it searches the listing by halves for the first new
    /// message.
    FetchmailByHalves,
    /// mpop with `keep on`.
    Mpop,
    /// getmail6 with `delete = false`, which adds nothing to a header.
    Getmail,
    /// getmail6 with `delete = false`: it adds `Return-Path`, `Delivered-To` and `Received`.
    GetmailWithTraces,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Fetchmail | Program::FetchmailByHalves => "fetchmail",
            Program::Mpop => "mpop",
            Program::Getmail | Program::GetmailWithTraces => "getmail",
        }
    }
}

/// One client of one user: its memory outlives its runs.
pub struct Client {
    program: Program,
    user: String,
    dir: tempfile::TempDir,
}

impl Client {
    /// A client that has never polled; `None`, having said why, when the program is not installed.
    pub fn new(program: Program, user: &str) -> Option<Self> {
        let installed = Command::new(program.name())
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if installed.is_err() {
            lacking(&format!("{} is not installed: run `make deps`", program.name()));
            return None;
        }
        let dir =
            tempfile::Builder::new().prefix("uidl-keep-client-").tempdir().expect("a directory");
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir_all(dir.path().join("mail").join(sub)).expect("our directory");
        }
        Some(Self { program, user: user.to_owned(), dir })
    }

    /// Polls the server. Returns how many messages it downloaded: files that were not there before.
    pub fn poll(&self, server: SocketAddr) -> usize {
        let before = self.downloaded();
        let command = match self.program {
            Program::Fetchmail => self.fetchmail(server, ""),
            Program::FetchmailByHalves => self.fetchmail(server, "fastuidl 1"),
            Program::Mpop => self.mpop(server),
            Program::Getmail => self.getmail(server, "delivered_to = false\nreceived = false\n"),
            Program::GetmailWithTraces => self.getmail(server, ""),
        };
        self.run(command);
        self.downloaded() - before
    }

    /// Fetches the messages that are new to it, and hands each to that command instead of keeping
    /// it. No address is given a domain.
    pub fn hand_over(&self, server: SocketAddr, agent: &str) {
        assert_eq!(self.program, Program::Fetchmail, "the others have other words for it");
        self.run(self.fetchmail_to(server, "no rewrite", agent));
    }

    fn run(&self, mut command: Command) {
        command.env("HOME", self.path()).stdin(Stdio::null());
        let is_getmail = self.program.name() == "getmail";
        let before = is_getmail.then(|| {
            let before = tempfile::tempdir().expect("a directory");
            copy_all(self.path(), before.path());
            before
        });
        let mut output = command.output().expect("a client");
        // getmail forks for each message, and only then asks to be told when the child ends: if the
        // child has ended already, it waits in vain and gives up. Its earlier memory is put back.
        for before in before.iter().cycle().take(3) {
            if !String::from_utf8_lossy(&output.stderr).contains("waiting child pid") {
                break;
            }
            for entry in fs::read_dir(self.path()).expect("our directory") {
                let path = entry.expect("our directory").path();
                fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).expect("root");
            }
            copy_all(before.path(), self.path());
            output = command.output().expect("a client");
        }
        // fetchmail says 1 when there was nothing to fetch.
        let nothing = self.program.name() == "fetchmail" && output.status.code() == Some(1);
        assert!(
            output.status.success() || nothing,
            "{}: {}\n{}{}",
            self.program.name(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The Maildir in which it keeps what it has downloaded.
    pub fn mail(&self) -> PathBuf {
        self.path().join("mail")
    }

    /// Returns how often it has downloaded the message that has this text in it.
    pub fn times_downloaded(&self, text: &str) -> usize {
        let downloaded = fs::read_dir(self.mail().join("new")).expect("our directory");
        let octets = downloaded.map(|entry| fs::read(entry.expect("ours").path()).expect("ours"));
        octets.filter(|octets| String::from_utf8_lossy(octets).contains(text)).count()
    }

    /// What it remembers now, by its own file, of the server with this address.
    pub fn state(&self, server: SocketAddr) -> ClientState {
        let name = match self.program {
            Program::Fetchmail | Program::FetchmailByHalves => "fetchids".to_owned(),
            Program::Mpop => "uidls".to_owned(),
            Program::Getmail | Program::GetmailWithTraces => {
                let mut names = fs::read_dir(self.path()).expect("our directory");
                let name = names.find_map(|entry| {
                    let name = entry.expect("ours").file_name().into_string().expect("ASCII");
                    name.starts_with("oldmail-").then_some(name)
                });
                name.expect("it has polled")
            }
        };
        let octets = fs::read(self.path().join(name)).expect("it has polled");
        ClientState::of(self.program, &octets, &self.user, &server.ip().to_string())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns how many messages it has downloaded in all.
    pub fn downloaded(&self) -> usize {
        fs::read_dir(self.mail().join("new")).expect("our directory").count()
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("our directory");
        fs::set_permissions(&path, unix_mode(mode)).expect("our file");
        path
    }

    fn fetchmail(&self, server: SocketAddr, option: &str) -> Command {
        let mail = self.mail().join("new");
        let deliver =
            format!("#!/bin/sh\nexec cat > \"$(mktemp '{}'/XXXXXXXXXX)\"\n", mail.display());
        let program = self.path().join("deliver");
        write_program(&program, &deliver);
        self.fetchmail_to(server, option, &program.display().to_string())
    }

    fn fetchmail_to(&self, server: SocketAddr, option: &str, agent: &str) -> Command {
        let rc = format!(
            "poll {} service {} protocol pop3 no dns uidl\n  \
             username \"{}\" password \"{PASSWORD}\" keep {option} sslproto '' mda \"{agent}\"\n",
            server.ip(),
            server.port(),
            self.user,
        );
        let rc = self.write("fetchmailrc", &rc, 0o600);
        let mut command = Command::new("fetchmail");
        command.env("FETCHMAILHOME", self.path()).args(["--nosyslog", "-f"]).arg(rc);
        command.arg("-i").arg(self.path().join("fetchids"));
        // Root's fetchmails would all take the same one for their lock.
        command.arg("--pidfile").arg(self.path().join("pid"));
        command
    }

    fn mpop(&self, server: SocketAddr) -> Command {
        let rc = format!(
            "account a\nhost {}\nport {}\nuser {}\npassword {PASSWORD}\nauth user\ntls off\n\
             keep on\nonly_new on\nuidls_file {dir}/uidls\ndelivery maildir {dir}/mail\n",
            server.ip(),
            server.port(),
            self.user,
            dir = self.path().display()
        );
        let rc = self.write("mpoprc", &rc, 0o600);
        let mut command = Command::new("mpop");
        command.arg("-C").arg(rc).arg("a");
        command
    }

    /// getmail refuses to deliver as root, and has the port in the name of its memory: a server
    /// that moves keeps its port, so here the memory is renamed.
    fn getmail(&self, server: SocketAddr, options: &str) -> Command {
        let rc = format!(
            "[retriever]\ntype = SimplePOP3Retriever\ntimeout = 60\nserver = {}\nport = {}\n\
             username = {}\npassword = {PASSWORD}\n[destination]\ntype = Maildir\n\
             path = {}/mail/\n[options]\ndelete = false\nread_all = false\n{options}",
            server.ip(),
            server.port(),
            self.user,
            self.path().display()
        );
        let rc = self.write("getmailrc", &rc, 0o644);
        for entry in fs::read_dir(self.path()).expect("our directory") {
            let entry = entry.expect("our directory");
            if entry.file_name().to_string_lossy().starts_with("oldmail-") {
                let name = format!("oldmail-{}-{}-{}", server.ip(), server.port(), self.user);
                fs::rename(entry.path(), self.path().join(name)).expect("our directory");
            }
        }
        // It also insists on a name in passwd for the user who runs it.
        let owner = "nobody";
        let chowned = Command::new("chown").args(["-R", owner]).arg(self.path()).status();
        assert!(chowned.expect("chown").success());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", owner, "--regid", "65534", "--clear-groups", "getmail"]);
        command.arg(format!("--getmaildir={}", self.path().display()));
        command.arg(format!("--rcfile={}", rc.display()));
        command
    }
}

/// Copies the content of a directory as `cp -a`.
fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--"]).arg(from.join(".")).arg(to).status();
    assert!(copied.expect("cp").success(), "{} to {}", from.display(), to.display());
}
