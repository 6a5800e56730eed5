//! One POP3 session with Dovecot's own program, for a user whose password nobody knows:
//! [`Dovecot::pop3_listing`].
//!
//! `pop3 -u USER` runs as root on two pipes: it asks the user database who the user is, and then
//! does what it does after a login. On one socket it would refuse root.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::{Dovecot, DovecotError, PLUGIN};

/// The largest listing that is read: tens of millions of messages.
const MOST_OCTETS: u64 = 1 << 30;
/// How much of what the program says on stderr is looked at.
const MOST_SAID_OCTETS: u64 = 64 << 10;
/// A plugin that counts logins. A session of ours is none of the user's.
const COUNTS_LOGINS: &str = "last_login";

/// The mail plugins of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugins {
    /// Those that POP3 loads.
    OfPop3,
    /// The same without uidl_keep.
    OfPop3WithoutUs,
}

impl Dovecot {
    /// The mail plugins that POP3 loads, in Dovecot's order.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn pop3_plugins(&self) -> Result<Vec<String>, DovecotError> {
        self.plugins_of("pop3")
    }

    /// The UIDLs that a POP3 client of the user is told now, by message-number. This is a session
    /// as any other: with uidl_keep, a first one is recorded. It stores no UIDL of its own
    /// (`pop3_save_uidl`), and counts as no login.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]; its sentence is what a client was told in place of the listing, if it was
    /// refused.
    pub fn pop3_listing(
        &self,
        user: &str,
        plugins: Plugins,
        patience: Duration,
    ) -> Result<Vec<Vec<u8>>, DovecotError> {
        let loaded = self.pop3_plugins()?;
        let is_wanted = |plugin: &&String| {
            *plugin != COUNTS_LOGINS && (plugins == Plugins::OfPop3 || *plugin != PLUGIN)
        };
        let loaded: Vec<&str> = loaded.iter().filter(is_wanted).map(String::as_str).collect();
        let program = self.pop3_program()?;
        let not_run = |error| DovecotError::Program { program: program.clone(), error };
        let mut said = tempfile::tempfile().map_err(not_run)?;
        let mut command = Command::new(&program);
        command
            .args(self.configuration())
            .args(["-u", user, "-o", "pop3_save_uidl=no", "-o"])
            .arg(format!("mail_plugins={}", loaded.join(" ")))
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("USER", user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said.try_clone().map_err(not_run)?);
        let mut running = Running(command.spawn().map_err(not_run)?);
        let mut ours = running.0.stdin.take().expect("piped");
        let theirs = running.0.stdout.take().expect("piped");
        // Who is refused has gone, and reads nothing.
        let _ = ours.write_all(b"UIDL\r\nQUIT\r\n");
        let (heard, hear) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut octets = Vec::new();
            let read = theirs.take(MOST_OCTETS).read_to_end(&mut octets);
            // Nobody waits any more after the time is over.
            let _ = heard.send(read.map(|_| octets));
        });
        let octets = match hear.recv_timeout(patience) {
            Ok(octets) => octets.map_err(not_run),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(not_run(io::Error::from(io::ErrorKind::TimedOut)))
            }
        };
        drop(ours);
        drop(running);
        // Its end closed the pipe.
        let _ = reader.join();
        let octets = octets?;
        parse(&octets).map_err(|told| {
            let log = last_line(&mut said);
            DovecotError::Answer { program: program.clone(), said: format!("{told}{log}") }
        })
    }

    /// UIDVALIDITY and next UID of the user's INBOX, as Dovecot itself says.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn inbox_epoch(&self, user: &str) -> Result<(u32, u32), DovecotError> {
        let mut command = Command::new(&self.doveadm);
        command.args(&self.args);
        command.args(["mailbox", "status", "-u", user, "uidvalidity uidnext", "INBOX"]);
        let output = super::output_of(&mut command, self.patience)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let number = |key: &str| {
            let word = said.split_whitespace().find_map(|word| word.strip_prefix(key));
            word.and_then(|digits| digits.parse::<u32>().ok())
        };
        match (number("uidvalidity="), number("uidnext=")) {
            (Some(uidvalidity), Some(next_uid)) => Ok((uidvalidity, next_uid)),
            _ => Err(super::no_answer(&command, &output)),
        }
    }
}

/// A child that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The UIDLs in what a session of `UIDL` and `QUIT` has said; else the last line that a client
/// heard.
fn parse(octets: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut lines = octets.split(|&octet| octet == b'\n').map(<[u8]>::trim_ascii_end);
    let shown = |line: &[u8]| crate::text::printable(line);
    let mut uidls = Vec::new();
    let mut has_begun = false;
    for line in lines.by_ref() {
        if line.starts_with(b"-ERR") {
            return Err(shown(line));
        }
        if line == b"." {
            // A listing that has an end, and a session that has one.
            return match lines.next().is_some_and(|line| line.starts_with(b"+OK")) {
                true if has_begun => Ok(uidls),
                _ => Err("it ended before its QUIT".to_owned()),
            };
        }
        if line.starts_with(b"+OK") && uidls.is_empty() {
            has_begun = true;
            continue;
        }
        let mut words = line.splitn(2, |&octet| octet == b' ');
        let number = words.next().and_then(|word| std::str::from_utf8(word).ok());
        match (number.and_then(|number| number.parse::<usize>().ok()), words.next()) {
            (Some(number), Some(uidl)) if uidls.len() + 1 == number => uidls.push(uidl.to_vec()),
            _ => return Err(format!("no line of a listing: {}", shown(line))),
        }
    }
    Err("it ended before the listing did".to_owned())
}

/// The last error that the program has logged, after a `; `.
fn last_line(said: &mut File) -> String {
    let mut text = Vec::new();
    let read = said
        .seek(SeekFrom::Start(0))
        .and_then(|_| said.take(MOST_SAID_OCTETS).read_to_end(&mut text));
    let mut lines = read.ok().into_iter().flat_map(|_| text.split(|&octet| octet == b'\n'));
    let is_error = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line);
        ["Error: ", "Fatal: ", "Panic: "].iter().any(|word| line.contains(word))
    };
    let line = lines.find(is_error);
    line.map_or(String::new(), |line| format!("; {}", crate::text::printable_up_to(line, 400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_session_tells_a_listing() {
        let told = |text: &str| parse(text.as_bytes());
        let kept = vec![b"kept-1".to_vec(), b"kept 2".to_vec()];
        let whole = "+OK\r\n1 kept-1\r\n2 kept 2\r\n.\r\n+OK Logging out.\r\n";
        assert_eq!(told(whole), Ok(kept));
        assert_eq!(told("+OK greeting\r\n+OK\r\n.\r\n+OK\r\n"), Ok(vec![]));
        for end in 0..whole.len() - "OK Logging out.\r\n".len() {
            assert!(told(&whole[..end]).is_err(), "cut at {end}");
        }
        let refused = "+OK\r\n-ERR [SYS/TEMP] Later.\r\n";
        assert_eq!(told(refused), Err("-ERR [SYS/TEMP] Later.".to_owned()));
        assert!(told("+OK\r\n2 a\r\n.\r\n+OK\r\n").is_err());
    }
}
