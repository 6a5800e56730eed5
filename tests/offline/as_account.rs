//! Children of root's that become an account, and what this account can do to them and by them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use uidl_keep::doctor::as_owner::{AnswerLimits, ask};

use crate::shared::capture::make;
use crate::shared::program::write_program;
use crate::support::cli::Here;

const EVE: u32 = 5001;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A child that waits for questions, once it is Eve's.
fn child(here: &Here) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
    command.args(["doctor-as-owner", "--account", "5001:5002", "--site", "site"]);
    command.current_dir(here.0.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while ids_of(child.id(), "Uid:") != ["5001"; 4] && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    child
}

fn ids_of(pid: u32, which: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

fn as_eve(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).uid(EVE).gid(5002).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// Who traces a process answers in its place, and types at its terminal.
#[test]
fn what_runs_as_an_account_has_no_terminal_of_roots_and_is_traced_by_root_alone() {
    if !is_root() {
        return;
    }
    let here = Here::new();
    let mut child = child(&here);
    let pid = child.id();
    assert_eq!(ids_of(pid, "Uid:"), ["5001"; 4]);
    assert_eq!(ids_of(pid, "Gid:"), ["5002"; 4]);
    assert_eq!(ids_of(pid, "Groups:"), [""; 0]);
    assert_eq!(ids_of(pid, "CapPrm:"), ["0000000000000000"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Its session, and the number of its terminal.
    assert_eq!((fields[3], fields[4]), (&*pid.to_string(), "0"));
    // Who may trace a process may read its environment; she may read that of her own.
    let environment = format!("/proc/{pid}/environ");
    assert!(as_eve(&["head", "-c1", "/proc/self/environ"]));
    assert!(!as_eve(&["head", "-c1", &environment]), "she can trace it");
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), &*output.stdout, &*output.stderr),
        (Some(0), &b""[..], &b""[..])
    );
}

/// She can stop it, all the same. Nobody waits for it without end, nor reads without end.
#[test]
fn a_child_that_is_stopped_or_never_ends_is_given_up() {
    let limits = AnswerLimits {
        silence: Duration::from_millis(400),
        whole: Duration::from_millis(900),
        octets: 1000,
    };
    let begun = Instant::now();
    for (script, said) in [
        ("echo a; kill -STOP $$", "no answer in 400ms: was it stopped?"),
        ("exec yes", "more than 1000 octets"),
        ("while echo a; do sleep 0.05; done", "no end in 900ms"),
        ("echo 'uidl-keep: no' >&2; exit 2", "no"),
    ] {
        let asked = ask(Command::new("sh").args(["-c", script]), b"", limits);
        assert_eq!(asked.unwrap_err().to_string(), said);
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    let asked = ask(Command::new("sh").args(["-c", "cat; echo b"]), b"a\n", limits);
    assert_eq!(asked.unwrap(), b"a\nb\n");
}

#[test]
fn a_program_that_is_started_as_an_account_has_a_session_of_its_own() {
    if !is_root() {
        return;
    }
    let here = Here::new();
    let start = |directory: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
        command.args(["start-as-account", "--account", "5001:5002", "--directory"]).arg(directory);
        let script = "echo $(id -u) $(id -G) $(pwd) $$ $(cut -d' ' -f6 /proc/$$/stat)";
        command.args(["--", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (pid, mut said, mut stderr) = (child.id(), String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (pid, child.wait().unwrap().code(), said, stderr)
    };
    let (pid, status, said, _) = start(here.0.path());
    let dir = here.0.path().display();
    assert_eq!((status, said), (Some(0), format!("5001 5002 {dir} {pid} {pid}\n")));
    // It goes nowhere where the account could not go.
    let closed = here.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let (_, status, said, stderr) = start(&closed);
    assert_eq!((status, &*said), (Some(2), ""));
    assert!(stderr.contains("closed: Permission denied"), "{stderr}");
}

/// The old server's own program must be started by an exec, so that its owner can trace it.
#[test]
fn a_program_that_proves_a_capture_has_no_terminal_of_roots() {
    if !is_root() {
        return;
    }
    let here = Here::new();
    make(&here.path("eve/Maildir"));
    for name in ["eve", "eve/Maildir", "eve/Maildir/cur", "eve/Maildir/new"] {
        chown(here.path(name), Some(EVE), Some(EVE)).unwrap();
    }
    let dir = here.0.path().display();
    let script = "echo $$ $(cut -d ' ' -f 6,7 /proc/$$/stat) $(id -u) $(id -G) $(pwd)";
    write_program(&here.path("pop3"), &format!("#!/bin/sh\n{script} >{dir}/eve/alone\n"));
    let ran = here
        .run(&format!("capture qmail --prove 1 --prove-program {dir}/pop3 --user eve eve/Maildir"));
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    let alone = here.read_text("eve/alone");
    let pid = alone.split(' ').next().unwrap();
    assert_eq!(alone, format!("{pid} {pid} 0 5001 5001 {dir}/eve\n"), "{}", ran.stderr);
}
