//! Where passwords come from, and what is done so that they go nowhere else.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroizing;

use crate::capture::pop3::Secret;

/// The most that is read of what should be a list of passwords.
const MAX_OCTETS: usize = 64 << 20;

/// Why a password, or a file of them, is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A symbolic link of somebody else's.
    #[error("a symbolic link of uid {uid}, who can make it lead anywhere: name the file itself")]
    LinkOfOther {
        /// Whose it is.
        uid: u32,
    },
    /// A directory or a device.
    #[error("not a regular file")]
    NotRegular,
    /// Others can read it.
    #[error(
        "holds passwords, and others can read it (mode {mode:04o}): chmod 600 it, and change the \
         passwords if anybody may have"
    )]
    Readable {
        /// Its mode.
        mode: u32,
    },
    /// A second line.
    #[error("more than one line; a password is one line")]
    SeveralLines,
    /// An empty first line.
    #[error("no password in it")]
    NoPassword,
}

/// Has this process leave no core file, and lets nobody but root look into its memory or its
/// environment. To be called before any secret is read.
///
/// # Errors
///
/// Those of `setrlimit` and `prctl`.
pub fn guard_memory() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Everything in a file that holds secrets.
///
/// # Errors
///
/// [`SecretError`]: it cannot be read, or others can read it, too.
pub fn read_secrets(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    if let Ok(link) = fs::symlink_metadata(path) {
        let ours = rustix::process::geteuid().as_raw();
        if link.is_symlink() && link.uid() != ours && link.uid() != 0 {
            return Err(SecretError::LinkOfOther { uid: link.uid() });
        }
    }
    // This waits for a writer of a FIFO; a shell's <(...) has one.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() && !metadata.file_type().is_fifo() {
        return Err(SecretError::NotRegular);
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretError::Readable { mode: metadata.mode() & 0o7777 });
    }
    Ok(read_secrets_of(file)?)
}

/// Reads to the end. A buffer that grows is not left behind as it was: its octets are overwritten.
///
/// # Errors
///
/// Those of `from`, and one for more than 64 MiB.
pub fn read_secrets_of(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
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

/// The password that is the first line, and the only one.
///
/// # Errors
///
/// [`SecretError::SeveralLines`] and [`SecretError::NoPassword`].
pub fn first_line(text: &[u8]) -> Result<Secret, SecretError> {
    let mut lines = text.split(|octet| *octet == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if lines.any(|line| !line.trim_ascii().is_empty()) {
        return Err(SecretError::SeveralLines);
    }
    if line.is_empty() {
        return Err(SecretError::NoPassword);
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_and_its_blanks_are_its_own() {
        let line = |text: &str| first_line(text.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(line(" a b \r\n").unwrap().octets(), b" a b ");
        assert_eq!(line("a").unwrap().octets(), b"a");
        assert_eq!(line("a\n\n").unwrap().octets(), b"a");
        for none in ["", "\n", "\r\n"] {
            assert_eq!(line(none).unwrap_err(), "no password in it");
        }
        let said = line("hunter2\nhunter3\n").unwrap_err();
        assert_eq!(said, "more than one line; a password is one line");
    }

    #[test]
    fn more_than_one_buffer_is_read_whole() {
        let text: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(*read_secrets_of(&text[..]).unwrap(), text);
    }

    #[test]
    fn no_more_is_read_than_a_list_of_passwords_has() {
        let said = read_secrets_of(io::repeat(b'x')).unwrap_err().to_string();
        assert_eq!(said, "more than 64 MiB; is that a list of passwords?");
    }
}
