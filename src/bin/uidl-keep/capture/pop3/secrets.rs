//! Where passwords come from, and what is done so that they go nowhere else.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use uidl_keep::capture::pop3::{Credential, Secret, TokenCommand};
use zeroize::Zeroizing;

use crate::output::Trouble;

/// The most that is read of what should be a list of passwords.
const MAX_OCTETS: usize = 64 << 20;

/// Has this process leave no core file, and lets nobody but root look into its memory or its
/// environment. To be called before any secret is read.
pub fn guard_memory() -> Result<(), Trouble> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| Trouble::at("keeping passwords out of core files", io::Error::from(error)))
}

/// Everything in a file that holds secrets.
///
/// # Errors
///
/// It cannot be read, or others can read it, too.
pub fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
    if let Ok(link) = fs::symlink_metadata(path) {
        let ours = rustix::process::geteuid().as_raw();
        if link.is_symlink() && link.uid() != ours && link.uid() != 0 {
            return Err(at(&format_args!(
                "a symbolic link of uid {}, who can make it lead anywhere: name the file itself",
                link.uid()
            )));
        }
    }
    // A FIFO without a writer would be waited for; what a shell puts in the place of <(...) has
    // one.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| at(&error))?;
    let metadata = file.metadata().map_err(|error| at(&error))?;
    if !metadata.is_file() && !metadata.file_type().is_fifo() {
        return Err(at(&"not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(at(&format_args!(
            "holds passwords, and others can read it (mode {:04o}): chmod 600 it, and change the \
             passwords if anybody may have",
            metadata.mode() & 0o7777
        )));
    }
    read_all(file).map_err(|error| at(&error))
}

/// All of standard input.
pub fn read_stdin() -> Result<Zeroizing<Vec<u8>>, Trouble> {
    read_all(io::stdin().lock()).map_err(|error| Trouble::at("standard input", error))
}

/// Reads to the end. A buffer that grows is not left behind as it was: its octets are overwritten.
fn read_all(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut all = Zeroizing::new(vec![0; 8192]);
    let mut len = 0;
    loop {
        match from.read(&mut all[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if len == all.len() {
            if len >= MAX_OCTETS {
                return Err(io::Error::other("more than 64 MiB; is that a list of passwords?"));
            }
            let mut larger = Zeroizing::new(vec![0; 2 * len]);
            larger[..len].copy_from_slice(&all);
            all = larger;
        }
    }
    all.truncate(len);
    Ok(all)
}

/// Where the one password comes from.
#[derive(clap::Args, Default)]
#[group(multiple = false)]
pub struct PasswordFrom {
    /// The password is the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
    /// The password is the first line of this file, which nobody else may be able to read.
    #[arg(long, value_name = "FILE")]
    password_file: Option<std::path::PathBuf>,
    /// The password is in this environment variable. Root can read it there as long as this runs.
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// In place of a password an access token, which this command prints as its first line, for
    /// servers that take no passwords any more: '/usr/local/bin/token {user}'. {user} is the login
    /// name, the last argument where it is not named. No shell reads it. It is run for each
    /// account, and once more where its token is refused: it may have expired.
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
}

impl PasswordFrom {
    /// Whether one is named at all.
    pub fn is_given(&self) -> bool {
        self.password_stdin || self.password_file.is_some() || self.password_env.is_some()
    }

    /// Who gives tokens, where that is named.
    pub fn tokens(&self, patience: Duration) -> Result<Option<Credential>, Trouble> {
        let Some(words) = &self.token_command else { return Ok(None) };
        let command = TokenCommand::named(words, patience)
            .ok_or_else(|| Trouble::at("--token-command", "it is empty"))?;
        Ok(Some(Credential::Token(Arc::new(command))))
    }

    /// Whether it is read from standard input.
    pub fn is_stdin(&self) -> bool {
        self.password_stdin
    }

    /// Reads it.
    pub fn read(&self) -> Result<Secret, Trouble> {
        if self.password_stdin {
            return first_line("standard input", &read_stdin()?);
        }
        if let Some(path) = &self.password_file {
            return password_in(path);
        }
        if let Some(name) = &self.password_env {
            use std::os::unix::ffi::OsStringExt;
            let value = std::env::var_os(name)
                .ok_or_else(|| Trouble::at(format!("--password-env {name}"), "no such variable"))?;
            return first_line(
                &format!("--password-env {name}"),
                &Zeroizing::new(value.into_vec()),
            );
        }
        Err(Trouble::new(
            "no password: say --password-stdin, --password-file or --password-env, or \
             --token-command where the server wants a token; there is no way to give it on the \
             command line, where every user of this machine can read it",
        ))
    }
}

/// The password that is the first line of a file.
pub fn password_in(path: &Path) -> Result<Secret, Trouble> {
    first_line(&path.display().to_string(), &read_file(path)?)
}

fn first_line(place: &str, text: &[u8]) -> Result<Secret, Trouble> {
    let mut lines = text.split(|octet| *octet == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if lines.any(|line| !line.trim_ascii().is_empty()) {
        return Err(Trouble::at(place, "more than one line; a password is one line"));
    }
    if line.is_empty() {
        return Err(Trouble::at(place, "no password in it"));
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_and_its_blanks_are_its_own() {
        let line = |text: &str| first_line("here", text.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(line(" a b \r\n").unwrap().octets(), b" a b ");
        assert_eq!(line("a").unwrap().octets(), b"a");
        assert_eq!(line("a\n\n").unwrap().octets(), b"a");
        for none in ["", "\n", "\r\n"] {
            assert_eq!(line(none).unwrap_err(), "here: no password in it");
        }
        let said = line("hunter2\nhunter3\n").unwrap_err();
        assert_eq!(said, "here: more than one line; a password is one line");
    }

    #[test]
    fn more_than_one_buffer_is_read_whole() {
        let text: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(*read_all(&text[..]).unwrap(), text);
    }
}
