//! What a capture from disk asks of the system, counted: the calls for one message more.

use std::fs;
use std::process::{Command, Stdio};

use crate::shared::lacking;
use crate::support::maildir::Old;

/// The calls that a capture makes upon files. Those for memory and threads are left out.
const CALLS: &str = "trace=%file,%desc";

/// The number of calls that a capture of a Maildir with so many messages makes; `None` without a
/// strace.
fn calls(server: &[&str], keys: &str, messages: usize) -> Option<usize> {
    let names: Vec<String> =
        (0..messages).map(|n| format!("cur/{}.{n}.host:2,S", 1_714_990_000 + n)).collect();
    let base = |name: &String| name["cur/".len()..name.len() - ":2,S".len()].to_owned();
    let lines: String =
        (1..).zip(&names).map(|(n, name)| format!("{n} :{}\n", base(name))).collect();
    let old = Old::of([]).state("dovecot-uidlist", format!("3 V17 N{}\n{lines}", messages + 1));
    for name in &names {
        // A header that names itself: nothing else is read.
        let message = format!("Message-ID: <{name}>\nDate: Mon, 6 May 2024\n\nbody\n");
        fs::write(old.path.join(name), message).unwrap();
    }
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", CALLS, "-o"]).arg(trace.path());
    strace.arg(env!("CARGO_BIN_EXE_uidl-keep")).arg("capture").args(server);
    strace.args(["--keys", keys, "--user", "alice@example.com"]).arg(&old.path);
    let ran = strace.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    assert!(ran.success(), "{server:?}");
    let trace = fs::read_to_string(trace.path()).unwrap();
    // A line of each call; one that another thread interrupts has a second. A debug build asks of
    // each file that it closes whether that is open.
    let is_one = |line: &&str| !line.contains(" resumed>") && !line.contains(" fcntl(");
    Some(trace.lines().filter(is_one).count())
}

#[test]
fn a_message_costs_six_calls_and_only_its_order_one_more() {
    let dovecot = ["dovecot", "--format", "%v.%u"];
    for (server, keys, each) in [
        (&dovecot[..], "file", 0),
        // Held, looked at, opened, let go, read, closed.
        (&dovecot[..], "file,header", 6),
        // Its mtime says where it stands: looked at once more.
        (&["qmail"][..], "file,header", 7),
        (&["qmail"][..], "file", 2),
    ] {
        let (Some(few), Some(many)) = (calls(server, keys, 100), calls(server, keys, 300)) else {
            lacking("strace is not installed");
            return;
        };
        // The directories are longer, too, and listed twice.
        let (least, most) = (few + 200 * each, few + 200 * each + 20);
        assert!((least..=most).contains(&many), "{server:?} {keys}: {few}, then {many}");
    }
}
