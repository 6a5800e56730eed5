//! Opening a file in a place where others may have put something else.
//!
//! A symbolic link is not followed, and nothing waits for whoever holds the other end of a FIFO.
//! [`regular`] then says what was found there.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// The flags of an open that nobody can lead elsewhere. It follows no link and does not wait, and
/// no program that this process starts inherits the file.
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Options with only these flags set. The caller adds the rest.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(FLAGS);
    options
}

/// The reason why there is no file to work with.
#[derive(Debug)]
pub enum Unopened {
    /// There is nothing of that name, and perhaps no such directory.
    Absent,
    /// A symbolic link.
    Link,
    /// A directory, a FIFO, a socket or a device.
    NotRegular(Box<Metadata>),
    /// The system's error.
    Io(io::Error),
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            _ if error.raw_os_error() == Some(libc::ELOOP) => Self::Link,
            _ => Self::Io(error),
        }
    }
}

impl From<Unopened> for io::Error {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            // With the system's number, and so with its words for the operator.
            Unopened::Absent => Self::from_raw_os_error(libc::ENOENT),
            Unopened::Link => Self::from_raw_os_error(libc::ELOOP),
            Unopened::NotRegular(_) => Self::other("not a regular file; remove it"),
            Unopened::Io(error) => error,
        }
    }
}

/// The file that such an open found, if it is a regular file.
///
/// # Errors
///
/// [`Unopened`].
pub fn regular(opened: io::Result<File>) -> Result<(File, Metadata), Unopened> {
    let file = opened?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(Unopened::NotRegular(Box::new(metadata)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_file_is_opened_and_what_else_is_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let open = |name: &str| regular(options().read(true).open(path(name)));
        fs::write(path("file"), "octets").unwrap();
        symlink(path("file"), path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), 0o600.into()).unwrap();
        assert_eq!(open("file").unwrap().1.len(), 6);
        assert!(matches!(open("missing"), Err(Unopened::Absent)));
        assert!(matches!(open("missing/file"), Err(Unopened::Absent)));
        assert!(matches!(open("link"), Err(Unopened::Link)));
        for other in ["directory", "fifo"] {
            assert!(matches!(open(other), Err(Unopened::NotRegular(_))), "{other}");
        }
        assert!(matches!(open("file/below"), Err(Unopened::Io(_))));
        let absent = io::Error::from(open("missing").unwrap_err());
        assert_eq!(absent.to_string(), fs::read(path("missing")).unwrap_err().to_string());
    }
}
