//! A program of another's that we started, and what it says on stderr: [`RunningProgram`].
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use crate::text::printable_up_to;

/// How much of such a line is shown, in octets.
const MAX_SHOWN_OCTETS: usize = 400;

/// How much of what a program says on stderr is looked at, in octets.
const MAX_SAID_OCTETS: u64 = 64 << 10;

/// A child that does not outlive us.
pub(crate) struct RunningProgram(Child);

impl RunningProgram {
    /// Takes it over.
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Where it is to go by itself, after QUIT say, waits until it has written its state and gone.
    /// Otherwise, and where it does not go, ends it.
    pub(crate) fn end(mut self, patience: Duration, goes: bool) {
        let until = Instant::now() + patience;
        while goes && Instant::now() < until {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last line of what a program has said, after a `; `.
pub(crate) fn last_line(said: &mut File) -> String {
    let text = text_of(said);
    shown(text.trim_ascii().split(|&octet| octet == b'\n').next_back())
}

/// The last sentence of our plugin's or, where there is none, the last complaint of Dovecot's own,
/// after a `; `: Dovecot says more behind them.
pub(crate) fn complaint(said: &mut File) -> String {
    const COMPLAINTS: [&[u8]; 3] = [b"Error: ", b"Fatal: ", b"Panic: "];
    let text = text_of(said);
    let from = |line: &[u8], word: &[u8]| memchr::memmem::find(line, word);
    let lines = || text.split(|&octet| octet == b'\n').rev();
    let ours = lines().find_map(|line| Some(&line[from(line, b"uidl-keep: ")?..]));
    let first = |line: &[u8]| COMPLAINTS.iter().filter_map(|word| from(line, word)).min();
    let theirs = || lines().find_map(|line| Some(&line[first(line)?..]));
    shown(ours.or_else(theirs))
}

fn text_of(said: &mut File) -> Vec<u8> {
    let mut text = Vec::new();
    let read = said
        .seek(SeekFrom::Start(0))
        .and_then(|_| said.take(MAX_SAID_OCTETS).read_to_end(&mut text));
    read.map_or_else(|_| Vec::new(), |_| text)
}

fn shown(line: Option<&[u8]>) -> String {
    let line = line.map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    line.map_or(String::new(), |line| format!("; {}", printable_up_to(line, MAX_SHOWN_OCTETS)))
}
