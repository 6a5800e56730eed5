//! The POP3 servers of system users, as inetd starts them: most machines had these before Maildir.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use super::OWNER;
use super::host::{Host, Scratch, unix_mode};
use super::inetd::Inetd;
use super::mail::Message;
use super::maildir::{Maildir, make_owned};

/// The one user.
pub const USER: &str = "alice";

/// [`super::PASSWORD`], as a password file has it.
pub const CRYPTED: &str = "$6$uidlkeep$9HOFbFuYzpED8p4yiuQejKqHvbIkysBHMCQx.i7SMPuQYEAaXlJs9S.1LC\
    eEyoOVt3VslTa8Hvx7.ZTsI1eEh1";

/// The group that may write into a mail spool, on every Debian.
const MAIL_GROUP: u32 = 8;

/// A server, and the place where it looks for mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Openwall's popa3d, on `/var/mail`.
    Popa3d,
    /// The pop3d of GNU mailutils, on `/var/mail`; it writes its UIDLs into the mbox.
    Mailutils,
    /// Solid POP3, on `/var/mail`.
    Solid,
    /// Solid POP3, on a Maildir in the user's home.
    SolidMaildir,
}

impl Program {
    fn words(self) -> &'static [&'static str] {
        match self {
            Program::Popa3d => &["/usr/sbin/popa3d"],
            Program::Mailutils => &["/usr/sbin/pop3d", "--inetd"],
            Program::Solid => &["/usr/sbin/solid-pop3d"],
            Program::SolidMaildir => {
                &["/usr/sbin/solid-pop3d", "-t", "maildir", "-n", "/home/%s/Maildir"]
            }
        }
    }
}

/// A machine with one user and one of these servers.
pub struct Spool {
    inetd: Inetd,
    scratch: Scratch,
}

impl Spool {
    /// Starts one; the user has no mail yet.
    pub fn start(host: &Host, program: Program) -> Self {
        let scratch = host.scratch();
        let dir = scratch.path();
        // A server gives up its rights to an account that its package makes when it is installed.
        let mut passwd = fs::read_to_string(host.outside("/etc/passwd")).expect("a Debian tree");
        for (uid, account) in [(200, "popa3d"), (201, "spop3d")] {
            let _ = writeln!(passwd, "{account}:x:{uid}:65534::/nonexistent:/bin/false");
        }
        let _ = writeln!(passwd, "{USER}:{CRYPTED}:{OWNER}:{OWNER}::/home/{USER}:/bin/sh");
        fs::write(dir.join("passwd"), passwd).expect("our directory");
        for sub in ["home", "mail"] {
            fs::create_dir(dir.join(sub)).expect("our directory");
            fs::set_permissions(dir.join(sub), unix_mode(0o1777)).expect("our directory");
        }
        make_owned(&dir.join("home").join(USER));

        let machine = host
            .clone()
            .with(&dir.join("passwd"), "/etc/passwd")
            .with(&dir.join("home"), "/home")
            .with(&dir.join("mail"), "/var/mail");
        let inetd = Inetd::start(move || {
            let [name, args @ ..] = program.words() else { unreachable!("each has a name") };
            let mut command = machine.command(name);
            command.args(args);
            command
        });
        Self { inetd, scratch }
    }

    /// The address where clients find POP3.
    pub fn pop3(&self) -> SocketAddr {
        self.inetd.address()
    }

    /// The user's mbox.
    pub fn mbox(&self) -> PathBuf {
        self.scratch.path().join("mail").join(USER)
    }

    /// The user's Maildir, made when it is not there.
    pub fn maildir(&self) -> Maildir {
        Maildir::create(self.scratch.path().join("home").join(USER).join("Maildir"))
    }

    /// Appends messages to the user's mbox.
    pub fn deliver(&self, messages: &[Message]) {
        append_to_mbox(&self.mbox(), messages);
        self.give_mbox();
    }

    /// Makes the user's mbox of these octets.
    pub fn put(&self, mbox: &[u8]) {
        fs::write(self.mbox(), mbox).expect("our directory");
        self.give_mbox();
    }

    fn give_mbox(&self) {
        chown(self.mbox(), Some(OWNER), Some(MAIL_GROUP)).expect("root");
        fs::set_permissions(self.mbox(), unix_mode(0o660)).expect("root");
    }
}

/// Appends as a delivery agent does: a line that says when, LF alone at the ends of lines, an end
/// of the header, `>` before what would look like the first line, and a blank line after.
pub fn append_to_mbox(mbox: &Path, messages: &[Message]) {
    let mut octets = fs::read(mbox).unwrap_or_default();
    for message in messages {
        octets.extend(b"From sender@sender.example.net Mon May  6 10:00:00 2024\n");
        let start = octets.len();
        for line in message.octets.split(|&octet| octet == b'\n') {
            let quotes = line.iter().take_while(|&&octet| octet == b'>').count();
            if line[quotes..].starts_with(b"From ") {
                octets.push(b'>');
            }
            octets.extend(line.strip_suffix(b"\r").unwrap_or(line));
            octets.push(b'\n');
        }
        // A message that ended with a line end has been given one more.
        if octets.ends_with(b"\n\n") {
            octets.pop();
        }
        if !octets[start..].windows(2).any(|pair| pair == b"\n\n") {
            octets.push(b'\n');
        }
        octets.push(b'\n');
    }
    fs::write(mbox, octets).unwrap_or_else(|error| panic!("{}: {error}", mbox.display()));
}
