//! A private Cyrus, under its own `master`: users who never had a Maildir.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::PASSWORD;
use super::dovecot::free_port;
use super::host::{Host, Scratch};
use super::pop3::Pop3;

/// The longest time that a start or a stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The user there is; his INBOX is made when he first logs in to IMAP.
pub const USER: &str = "alice@example.com";

/// A running instance with POP3 and IMAP on 127.0.0.1. It is stopped on drop.
pub struct Cyrus {
    host: Host,
    scratch: Scratch,
    pop3: SocketAddr,
    imap: SocketAddr,
    master: Option<Child>,
}

impl Cyrus {
    /// Starts one, with more lines of imapd.conf.
    pub fn start(host: &Host, extra: &str) -> Self {
        let scratch = host.scratch();
        let dir = scratch.path();
        let inside = scratch.inside();
        let name = inside.display();
        let configuration = format!(
            "configdirectory: {name}/conf\n\
             proc_path: {name}/conf/proc\n\
             mboxname_lockpath: {name}/conf/lock\n\
             defaultpartition: default\n\
             partition-default: {name}/spool\n\
             servername: {name}\n\
             virtdomains: userid\n\
             unixhierarchysep: yes\n\
             autocreate_quota: 0\n\
             allowplaintext: yes\n\
             sasl_mech_list: PLAIN\n\
             sasl_pwcheck_method: auxprop\n\
             sasl_auxprop_plugin: sasldb\n\
             sasl_sasldb_path: {name}/sasldb2\n\
             {extra}"
        );
        fs::write(dir.join("imapd.conf"), configuration).expect("our directory");
        for sub in ["conf", "conf/db", "conf/lock", "conf/proc", "conf/socket", "spool"] {
            fs::create_dir(dir.join(sub)).expect("our directory");
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { host: host.clone(), scratch, pop3: nowhere, imap: nowhere, master: None };
        server.remember_the_password();
        server.begin();
        server
    }

    /// The address where clients find POP3.
    pub fn pop3(&self) -> SocketAddr {
        self.pop3
    }

    /// The address where clients find IMAP.
    pub fn imap(&self) -> SocketAddr {
        self.imap
    }

    /// The directory of the user's INBOX, as this process sees it.
    pub fn inbox(&self) -> PathBuf {
        let found = self
            .as_cyrus("/usr/lib/cyrus/bin/mbpath")
            .arg("-C")
            .arg(self.inside("imapd.conf"))
            .args(["-u", USER])
            .output()
            .expect("mbpath");
        let said = String::from_utf8(found.stdout).expect("a path");
        let path = said.lines().find_map(|line| line.split_once("/spool/")).expect("an INBOX").1;
        self.scratch.path().join("spool").join(path)
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.scratch.inside().join(name)
    }

    fn remember_the_password(&self) {
        let (user, domain) = USER.split_once('@').expect("local@domain");
        let mut saslpasswd = self
            .host
            .command("saslpasswd2")
            .args(["-p", "-c", "-u", domain, "-f"])
            .arg(self.inside("sasldb2"))
            .arg(user)
            .stdin(Stdio::piped())
            .spawn()
            .expect("saslpasswd2");
        let mut stdin = saslpasswd.stdin.take().expect("piped");
        stdin.write_all(PASSWORD.as_bytes()).expect("saslpasswd2");
        drop(stdin);
        assert!(saslpasswd.wait().expect("our child").success(), "saslpasswd2");
    }

    fn begin(&mut self) {
        give_to(self.scratch.path(), self.owner());
        // Another process may take a port between our look and Cyrus's: then look again.
        for _ in 0..5 {
            (self.pop3, self.imap) = (free_port(), free_port());
            let conf = self.inside("imapd.conf");
            let conf = conf.display();
            let services = format!(
                "START {{\n  recover cmd=\"ctl_cyrusdb -C {conf} -r\"\n}}\n\
                 SERVICES {{\n  \
                 pop3 cmd=\"pop3d -C {conf}\" listen=\"{}\" proto=\"tcp4\"\n  \
                 imap cmd=\"imapd -C {conf}\" listen=\"{}\" proto=\"tcp4\"\n}}\n",
                self.pop3, self.imap
            );
            fs::write(self.scratch.path().join("cyrus.conf"), services).expect("our directory");
            let master = self
                .host
                .command("/usr/lib/cyrus/bin/master")
                .arg("-C")
                .arg(self.inside("imapd.conf"))
                .arg("-M")
                .arg(self.inside("cyrus.conf"))
                .arg("-p")
                .arg(self.inside("pid"))
                // Asked to end, it ends its whole process group, which must not be ours.
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("master");
            self.master = Some(master);
            if self.greets() {
                return;
            }
            self.end();
        }
        panic!("Cyrus did not start");
    }

    /// Whether this instance is the one that answers: a greeting names the server.
    fn greets(&mut self) -> bool {
        let name = self.scratch.inside().display().to_string();
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if Pop3::connect(self.pop3).is_ok_and(|session| session.greeting().contains(&name)) {
                return true;
            }
            if self.master.as_mut().expect("just started").try_wait().expect("ours").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn end(&mut self) {
        let Some(mut master) = self.master.take() else { return };
        let pid = i32::try_from(master.id()).expect("a pid");
        // SAFETY: kill touches no memory; the pid is that of a child that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let asked = Instant::now();
        while master.try_wait().expect("our child").is_none() {
            if asked.elapsed() > PATIENCE {
                let _ = master.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A program of Cyrus, which refuses to be root.
    fn as_cyrus(&self, program: &str) -> Command {
        let (uid, gid) = self.owner();
        let mut command = self.host.command("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
        command.arg("--clear-groups").arg(program);
        command
    }

    /// The owner of all of Cyrus's mail: the account that its package made.
    fn owner(&self) -> (u32, u32) {
        let home = self.host.outside("/var/lib/cyrus").metadata().expect("Cyrus is installed");
        (home.uid(), home.gid())
    }
}

impl Drop for Cyrus {
    fn drop(&mut self) {
        self.end();
    }
}

fn give_to(path: &Path, owner: (u32, u32)) {
    chown(path, Some(owner.0), Some(owner.1)).expect("root");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("ours") {
            give_to(&entry.expect("ours").path(), owner);
        }
    }
}
