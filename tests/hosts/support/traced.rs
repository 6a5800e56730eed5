//! Programs under strace, which sees their system calls and makes some of them fail.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::dovecot::Dovecot;
use super::migrated::USER;
use super::{OWNER, lacking};

/// Whether there is a strace that may trace; says so where there is none.
pub fn can_trace() -> bool {
    let tried = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        lacking("there is no strace, or it may not trace");
    }
    can
}

/// Runs Dovecot's own `pop3`, as after a login, under strace, and asks it for a listing. Returns
/// whether there was one, of five captured messages.
pub fn lists_under_strace(dovecot: &Dovecot, trace: &Path, options: &[&str]) -> bool {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let out = OwnedFd::from(theirs.try_clone().unwrap());
    let (home, owner) = (dovecot.home(USER), OWNER.to_string());
    let mut child = Command::new("setpriv")
        .args(["--reuid", &owner, "--regid", &owner, "--clear-groups", "strace", "-qq", "-o"])
        .arg(trace)
        .args(options)
        .args(["/usr/lib/dovecot/pop3", "-c"])
        .arg(dovecot.conf())
        .arg("-o")
        .arg(format!("mail_home={}", home.display()))
        .args(["-o", "log_path=/dev/stderr", "-o", "stats_writer_socket_path="])
        .env("USER", USER)
        .env("HOME", &home)
        .stdin(OwnedFd::from(theirs))
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    ours.write_all(b"UIDL\r\nQUIT\r\n").unwrap();
    let said = BufReader::new(ours).lines().map_while(Result::ok);
    let lists = said.into_iter().any(|line| line == "5 UID5-17");
    child.wait().unwrap();
    lists
}
