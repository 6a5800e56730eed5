//! Runs a program that may hang, and reads what it prints: [`read`].
#![forbid(unsafe_code)]

use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it said on its standard error, or the start of that.
    pub stderr: Vec<u8>,
    /// Whether it was ended because it was silent for too long.
    pub was_silent: bool,
}

/// What is kept of a standard error.
const MOST_STDERR: u64 = 64 << 10;

/// Runs a program, and hands on what it prints. A program that prints nothing for as long as
/// `patience`, and does not end, is ended with all that it has started.
///
/// # Errors
///
/// The system's, when it cannot be run.
pub fn read<T>(
    command: &mut Command,
    patience: Duration,
    read: impl FnOnce(&mut dyn Read) -> T,
) -> io::Result<(T, Ended)> {
    read_of(command.process_group(0).stdin(Stdio::null()), patience, read)
}

/// As [`read`], for a program that leaves our session by itself, which no leader of a process group
/// can, and reads `input`.
///
/// # Errors
///
/// The system's, when it cannot be run.
#[cfg(feature = "helper")]
pub(crate) fn read_apart<T>(
    command: &mut Command,
    input: std::fs::File,
    patience: Duration,
    read: impl FnOnce(&mut dyn Read) -> T,
) -> io::Result<(T, Ended)> {
    read_of(command.stdin(input), patience, read)
}

fn read_of<T>(
    command: &mut Command,
    patience: Duration,
    read: impl FnOnce(&mut dyn Read) -> T,
) -> io::Result<(T, Ended)> {
    let mut stderr = tempfile::tempfile()?;
    command.stdout(Stdio::piped()).stderr(stderr.try_clone()?);
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let heard = Mutex::new(Instant::now());
    let (ended, end) = mpsc::channel::<()>();
    let stdout = child.stdout.take().expect("a pipe");
    let (value, was_silent) = thread::scope(|scope| {
        let heard = &heard;
        let watch = scope.spawn(move || {
            loop {
                let left = patience.saturating_sub(heard.lock().elapsed());
                match end.recv_timeout(left) {
                    Err(RecvTimeoutError::Timeout) if heard.lock().elapsed() < patience => {}
                    Err(RecvTimeoutError::Timeout) => {
                        // It has not been waited for, so that the number is its own.
                        let _ = kill_process_group(pid, Signal::KILL);
                        // It may lead no group yet.
                        let _ = kill_process(pid, Signal::KILL);
                        return true;
                    }
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return false,
                }
            }
        });
        let value = read(&mut Heard { stdout, heard });
        // It ends, or it is ended, but its number stays until the watch is over.
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        drop(ended);
        (value, watch.join().expect("it does not panic"))
    });
    let status = child.wait()?;
    let mut said = Vec::new();
    stderr.rewind()?;
    stderr.take(MOST_STDERR).read_to_end(&mut said)?;
    Ok((value, Ended { status, stderr: said, was_silent }))
}

/// A standard output, and when it was last heard of.
struct Heard<'a> {
    stdout: ChildStdout,
    heard: &'a Mutex<Instant>,
}

impl Read for Heard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The time that we take ourselves is not its silence.
        *self.heard.lock() = Instant::now();
        let read = self.stdout.read(buffer);
        *self.heard.lock() = Instant::now();
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, patience: Duration) -> (String, Ended) {
        let mut command = Command::new("sh");
        let (said, ended) = read(command.args(["-c", script]), patience, |stdout| {
            let mut said = String::new();
            stdout.read_to_string(&mut said).map(|_| said)
        })
        .unwrap();
        (said.unwrap(), ended)
    }

    #[test]
    fn what_a_program_prints_is_read_and_how_it_ends() {
        let (said, ended) = run("echo a; echo b >&2; exit 3", Duration::from_secs(60));
        assert_eq!((said.as_str(), ended.status.code()), ("a\n", Some(3)));
        assert_eq!((ended.stderr.as_slice(), ended.was_silent), (&b"b\n"[..], false));
    }

    #[test]
    fn a_program_that_is_silent_is_ended_with_what_it_started() {
        let begun = Instant::now();
        let (said, ended) = run("echo a; sleep 600; echo b", Duration::from_millis(200));
        assert_eq!((said.as_str(), ended.was_silent), ("a\n", true));
        // One that has closed its output is silent, too.
        let (_, ended) = run("exec >&-; sleep 600", Duration::from_millis(200));
        assert!(ended.was_silent && begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_program_that_goes_on_talking_is_let_go_on() {
        let talk = "for n in 1 2 3 4 5 6; do echo $n; sleep 0.2; done";
        let (said, ended) = run(talk, Duration::from_millis(900));
        assert_eq!((said.len(), ended.was_silent), (12, false));
    }
}
