//! A file of passwords for a proof over POP3: [`Passwords`].

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use uidl_keep::capture::pop3::Secret;
use zeroize::Zeroizing;

use crate::output::Trouble;

/// The largest file that is taken for one, in octets.
const MAX_OCTETS: u64 = 64 << 20;

/// Who has which password. Nothing of it is ever printed.
pub struct Passwords {
    own: HashMap<String, Secret>,
    /// For everybody else.
    master: Option<Secret>,
}

impl Passwords {
    /// Reads a file with a user name, a blank and a password on each line; `*` stands for everybody who
    /// is not named. Blank lines and those that begin with `#` are skipped.
    pub fn read(path: &Path) -> Result<Self, Trouble> {
        let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| at(&error))?;
        let metadata = file.metadata().map_err(|error| at(&error))?;
        if !metadata.is_file() {
            return Err(at(&"not a regular file"));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(at(&format_args!(
                "holds passwords, and others can read it (mode {:04o}): chmod 600 it, and change the \
                 passwords if anybody may have",
                metadata.mode() & 0o7777
            )));
        }
        if metadata.len() > MAX_OCTETS {
            return Err(at(&"more than 64 MiB; is that a list of passwords?"));
        }
        // Of its size from the start: a buffer that grows leaves what it held behind.
        let mut text = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
        file.take(metadata.len()).read_to_end(&mut text).map_err(|error| at(&error))?;
        let mut passwords = Self { own: HashMap::new(), master: None };
        for (number, line) in (1..).zip(text.split(|&octet| octet == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line[0] == b'#' {
                continue;
            }
            // What it says holds nothing of the line: any word of it may be a password.
            let place = |fact: &str| Trouble::at(format!("{}:{number}", path.display()), fact);
            let blank = line.iter().position(|&octet| octet == b' ' || octet == b'\t');
            let (user, password) = blank.map_or((line, &line[..0]), |at| line.split_at(at));
            let password = password.get(1..).filter(|password| !password.is_empty());
            let (Ok(user), Some(password)) = (std::str::from_utf8(user), password) else {
                return Err(place("not a user name and a password, with a blank between"));
            };
            let secret = Secret::new(password);
            let before = match user {
                "*" => passwords.master.replace(secret),
                user => passwords.own.insert(user.to_owned(), secret),
            };
            if before.is_some() {
                return Err(place("a second password for this user"));
            }
        }
        Ok(passwords)
    }

    /// The password by which this user's maildrop is opened.
    pub fn of(&self, user: &str) -> Option<&Secret> {
        self.own.get(user).or(self.master.as_ref())
    }
}
