//! Courier's own POP3 server, as its login starts it: the old server of most Plesk machines.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;

use super::OWNER;
use super::host::{Host, Scratch};
use super::maildir::Maildir;
use super::pop3::Pop3;

/// A Courier with maildrops of its own, in Plesk's layout.
pub struct Courier {
    host: Host,
    scratch: Scratch,
}

impl Courier {
    /// An empty one.
    pub fn new(host: &Host) -> Self {
        Self { host: host.clone(), scratch: host.scratch() }
    }

    /// The directory that stands for `/` of the old server.
    pub fn root(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }

    /// The Maildir of `local@domain`, made when it is not there.
    pub fn maildir(&self, address: &str) -> Maildir {
        Maildir::create(self.scratch.path().join(below_root(address)).join("Maildir"))
    }

    /// A session that is logged in.
    pub fn session(&self, address: &str) -> Session {
        let (ours, child) = self.process(address);
        let mut pop3 = Pop3::adopt(ours).expect("a socket");
        pop3.be_greeted().expect("courierpop3d greets");
        Session { pop3: Some(pop3), child }
    }

    /// What follows a login: `courierpop3d`, told by its environment who has logged in, as
    /// `courierpop3login` tells it, and standing in the user's home. Our end of a socket pair, and the
    /// process at the other.
    pub fn process(&self, address: &str) -> (UnixStream, Child) {
        let home = self.scratch.inside().join(below_root(address));
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let out = OwnedFd::from(theirs.try_clone().expect("a socket"));
        let owner = OWNER.to_string();
        let child = self
            .host
            .command("env")
            .arg("-C")
            .arg(&home)
            .args(["setpriv", "--reuid", &owner, "--regid", &owner, "--clear-groups"])
            .args(["/usr/lib/courier/courier/courierpop3d", "Maildir"])
            .env("HOME", &home)
            .env("AUTHENTICATED", address)
            .env("AUTHADDR", address)
            .env("TCPREMOTEIP", "127.0.0.1")
            .stdin(OwnedFd::from(theirs))
            .stdout(out)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("setpriv");
        (ours, child)
    }

    /// The unique-id listing, in Courier's order, from a session of its own.
    pub fn uidl(&self, address: &str) -> Vec<String> {
        let mut session = self.session(address);
        let listing = session.pop3().uidl().expect("Courier lists");
        session.quit();
        listing
    }
}

/// A session with a process of its own.
pub struct Session {
    pop3: Option<Pop3>,
    child: Child,
}

impl Session {
    /// The client's side.
    pub fn pop3(&mut self) -> &mut Pop3 {
        self.pop3.as_mut().expect("not yet quit")
    }

    /// Says QUIT and waits for the server to be done.
    pub fn quit(mut self) {
        self.pop3.take().expect("not yet quit").quit().expect("Courier says goodbye");
        assert!(self.child.wait().expect("our child").success(), "courierpop3d");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closing the socket ends the server; without a wait it would stay as a zombie.
        self.pop3 = None;
        let _ = self.child.wait();
    }
}

fn below_root(address: &str) -> PathBuf {
    let (local, domain) = address.split_once('@').expect("local@domain");
    ["var/qmail/mailnames", domain, local].iter().collect()
}
