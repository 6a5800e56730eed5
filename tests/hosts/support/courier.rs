//! Courier's own POP3 server, as its login starts it: the old server of most Plesk machines.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::OWNER;
use super::host::{Host, Scratch, unix_mode};
use super::inetd::Inetd;
use super::maildir::Maildir;
use super::pop3::Pop3;
use super::spool::CRYPTED;

/// The longest time that a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Courier with maildrops of its own, in Plesk's layout.
pub struct Courier {
    host: Host,
    scratch: Scratch,
}

impl Courier {
    /// Makes an empty one.
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
        let (ours, child) = self.start(address, "1");
        let mut pop3 = Pop3::adopt(ours).expect("a socket");
        pop3.be_greeted().expect("courierpop3d greets");
        Session { pop3: Some(pop3), child }
    }

    /// Starts the process that follows the login of a client that did not say UTF8. Returns our end
    /// of a socket pair, and the process at the other.
    pub fn process(&self, address: &str) -> (UnixStream, Child) {
        self.start(address, "0")
    }

    /// Starts `courierpop3d`. Its environment tells it who has logged in and how, as
    /// `courierpop3login` tells it, and it stands in the user's home.
    fn start(&self, address: &str, utf8: &str) -> (UnixStream, Child) {
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
            .env("UTF8", utf8)
            .env("TCPREMOTEIP", "127.0.0.1")
            .stdin(OwnedFd::from(theirs))
            .stdout(out)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("setpriv");
        (ours, child)
    }

    /// Lets a user log in over POP3: by Courier's own login, which asks its own authdaemond, which
    /// looks into its own userdb.
    pub fn listen(&self, address: &str) -> Listening {
        let dir = self.scratch.path();
        let (etc, run) = (dir.join("etc-courier"), dir.join("run"));
        fs::create_dir(&etc).expect("our directory");
        fs::create_dir_all(run.join("courier/authdaemon")).expect("our directory");
        fs::copy(self.host.outside("/etc/courier/pop3d"), etc.join("pop3d")).expect("a tree");
        let home = self.scratch.inside().join(below_root(address));
        let entry = format!(
            "{address}\tuid={OWNER}|gid={OWNER}|home={}|systempw={CRYPTED}\n",
            home.display()
        );
        fs::write(etc.join("userdb"), entry).expect("our directory");
        fs::set_permissions(etc.join("userdb"), unix_mode(0o600)).expect("our file");
        let settings =
            "authmodulelist=authuserdb\ndaemons=1\nauthdaemonvar=/run/courier/authdaemon\n";
        fs::write(etc.join("authdaemonrc"), settings).expect("our directory");

        let machine = self.host.clone().with(&etc, "/etc/courier").with(&run, "/run");
        let made = machine.command("makeuserdb").status().expect("makeuserdb");
        assert!(made.success(), "makeuserdb");
        let authdaemond = machine
            .command("/usr/lib/courier/courier-authlib/authdaemond")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("authdaemond");
        let asked = Instant::now();
        while !run.join("courier/authdaemon/socket").exists() {
            assert!(asked.elapsed() < PATIENCE, "authdaemond does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let inetd = Inetd::start(move || {
            let mut command = machine.command("sh");
            command.args(["-c", LOGIN]);
            // couriertcpd says this of a connection.
            for (name, value) in [("REMOTE", "4711"), ("LOCAL", "110")] {
                command.env(format!("TCP{name}IP"), "127.0.0.1");
                command.env(format!("TCP{name}PORT"), value);
            }
            command
        });
        Listening { inetd, authdaemond }
    }

    /// The unique-id listing, in Courier's order, from a session of its own.
    pub fn uidl(&self, address: &str) -> Vec<String> {
        let mut session = self.session(address);
        let listing = session.pop3().uidl().expect("Courier lists");
        session.quit();
        listing
    }
}

/// Courier's own script starts it so, with its settings in the environment.
const LOGIN: &str = "set -a; . /etc/courier/pop3d; cd /usr/lib/courier/courier; \
                     exec ./courierpop3login /usr/lib/courier/courier/courierpop3d Maildir";

/// Courier's POP3 on a port. It is closed on drop.
pub struct Listening {
    inetd: Inetd,
    authdaemond: Child,
}

impl Listening {
    /// The address where clients find POP3.
    pub fn pop3(&self) -> SocketAddr {
        self.inetd.address()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let pid = i32::try_from(self.authdaemond.id()).expect("a pid");
        // SAFETY: kill touches no memory; the pid is that of a child that has not been waited for.
        // It ends its own children when it is asked to end, not when it is killed.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let _ = self.authdaemond.wait();
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
