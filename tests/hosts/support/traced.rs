//! Programs under strace, which sees their system calls and makes some of them fail.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use super::dovecot::Dovecot;
use super::scenario::USER;
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
    Traced::start(dovecot, trace, options).lists()
}

/// Dovecot's own `pop3`, as after a login, that is asked for a listing under strace.
pub struct Traced {
    child: Child,
    ours: UnixStream,
}

impl Traced {
    /// Starts it. It writes into `trace` what strace's `options` say.
    pub fn start(dovecot: &Dovecot, trace: &Path, options: &[&str]) -> Self {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let out = OwnedFd::from(theirs.try_clone().unwrap());
        let home = dovecot.inside(&dovecot.home(USER));
        let mut strace: Vec<OsString> = ["strace", "-qq", "-o"].map(OsString::from).into();
        strace.push(trace.into());
        let mut is_path = false;
        for option in options {
            strace.push(option.into());
            if is_path {
                let others = dovecot.other_names(Path::new(option));
                strace.extend(others.into_iter().flat_map(|name| ["-P".into(), name.into()]));
            }
            is_path = *option == "-P";
        }
        let child = dovecot
            .watched(&strace, OWNER, "/usr/lib/dovecot/pop3")
            .arg("-c")
            .arg(dovecot.inside(&dovecot.conf()))
            .arg("-o")
            .arg(format!("mail_home={}", home.display()))
            .args(["-o", "log_path=/dev/stderr", "-o", "stats_writer_socket_path="])
            .env("USER", USER)
            .env("HOME", &home)
            .env("DOVECOT_PRESERVE_ENVS", "USER HOME")
            .stdin(OwnedFd::from(theirs))
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        ours.write_all(b"UIDL\r\nQUIT\r\n").unwrap();
        Self { child, ours }
    }

    /// Waits until it ends. Returns whether it listed, among others, five captured messages.
    pub fn lists(mut self) -> bool {
        let said = BufReader::new(self.ours).lines().map_while(Result::ok);
        let lists = said.into_iter().any(|line| line == "5 UID5-17");
        self.child.wait().unwrap();
        lists
    }

    /// Waits until a SIGSTOP that the options inject has stopped it, and returns the process that
    /// is stopped. The options must have `-f`, so that the trace names processes.
    pub fn stopped(&mut self, trace: &Path) -> Pid {
        loop {
            let text = fs::read_to_string(trace).unwrap_or_default();
            let stop = text.lines().find(|line| line.ends_with("--- stopped by SIGSTOP ---"));
            if let Some(line) = stop {
                let number = line.split(' ').next().and_then(|pid| pid.parse().ok());
                return number.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{line}"));
            }
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it ended, and never stopped:\n{text}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}
