//! A machine that is administered over SSH: a tree with sshd in it, and files of its own.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::host::{Host, Scratch, unix_mode};

/// The longest time that a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine with sshd on an address of its own. It ends on drop, and its `/root` goes with it.
pub struct Machine {
    scratch: Scratch,
    address: SocketAddr,
    sshd: Child,
}

impl Machine {
    /// Starts one at 127.0.0.`number`, where the owner of that public key is root. It has each
    /// directory at the place that stands beside it.
    pub fn start(host: &Host, number: u8, key: &str, mounts: &[(&Path, &str)]) -> Self {
        let scratch = host.scratch();
        let dir = scratch.path();
        for name in ["root/.ssh", "etc-ssh", "run/sshd"] {
            fs::create_dir_all(dir.join(name)).expect("our directory");
        }
        let keys = dir.join("root/.ssh/authorized_keys");
        fs::write(&keys, key).expect("our directory");
        fs::set_permissions(&keys, unix_mode(0o600)).expect("our file");
        let own = [("root", "/root"), ("etc-ssh", "/etc/ssh"), ("run", "/run")];
        let mut machine = host.clone().with(Path::new("/proc"), "/proc");
        for (name, place) in own {
            machine = machine.with(&dir.join(name), place);
        }
        for (from, place) in mounts {
            machine = machine.with(from, place);
        }
        make_key(machine.command("ssh-keygen"), Path::new("/etc/ssh/host_key"));

        // Another process may take a port between our look and sshd's: then look again.
        for _ in 0..5 {
            let address = free_port(number);
            fs::write(dir.join("etc-ssh/sshd_config"), configuration(address)).expect("ours");
            let mut sshd = machine
                .command("/usr/sbin/sshd")
                .args(["-D", "-e"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(dir.join("log")).expect("our directory"))
                .spawn()
                .expect("sshd");
            if greets(address, &mut sshd) {
                return Self { scratch, address, sshd };
            }
            end(&mut sshd);
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("sshd did not start:\n{log}");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its line of a `known_hosts`.
    pub fn known_host(&self) -> String {
        let key = fs::read_to_string(self.scratch.path().join("etc-ssh/host_key.pub"));
        let key = key.expect("made at the start");
        format!("[{}]:{} {key}", self.address.ip(), self.address.port())
    }

    /// The directory that is `/root` there.
    pub fn root_home(&self) -> PathBuf {
        self.scratch.path().join("root")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.sshd);
    }
}

/// Makes a pair of keys, by `ssh-keygen` of this machine or another.
pub fn make_key(mut keygen: Command, path: &Path) {
    let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path);
    let made = made.stdin(Stdio::null()).status().expect("ssh-keygen");
    assert!(made.success(), "ssh-keygen: {made}");
}

fn configuration(address: SocketAddr) -> String {
    format!(
        "ListenAddress {address}\n\
         HostKey /etc/ssh/host_key\n\
         AuthenticationMethods publickey\n\
         PermitRootLogin prohibit-password\n\
         UsePAM no\n\
         StrictModes no\n\
         PidFile none\n\
         Subsystem sftp /usr/lib/openssh/sftp-server\n"
    )
}

fn free_port(number: u8) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, number], 0));
    let listener = TcpListener::bind(address).expect("a free port");
    listener.local_addr().expect("an address")
}

fn greets(address: SocketAddr, sshd: &mut Child) -> bool {
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        if let Ok(mut connection) = TcpStream::connect(address) {
            let mut start = [0; 4];
            let _ = connection.set_read_timeout(Some(PATIENCE));
            return connection.read_exact(&mut start).is_ok() && start == *b"SSH-";
        }
        if sshd.try_wait().expect("our child").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Ends it. The sessions of clients that have gone end by themselves.
fn end(sshd: &mut Child) {
    let pid = i32::try_from(sshd.id()).expect("a pid");
    // SAFETY: kill touches no memory; the pid is that of a child that has not been waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let _ = sshd.wait();
}
