//! The next step of an operator when a file of the site could not be read: [`Remedy`].
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io;

use crate::index;
use crate::site::roster::RosterError;
use crate::site::trusted::OpenError;

/// The reason why a file of the site is of no use, with what to do about it.
pub trait Remedy: Display {
    /// The next step: the end of a sentence that has named the file and the fault.
    fn remedy(&self) -> &'static str;
}

const BUILD_AGAIN: &str = "build and install it again";

/// Here the file itself has no fault. It is missing where it should be, or it lacks somebody.
impl Remedy for &str {
    fn remedy(&self) -> &'static str {
        BUILD_AGAIN
    }
}

impl Remedy for io::Error {
    fn remedy(&self) -> &'static str {
        match self.kind() {
            io::ErrorKind::PermissionDenied => {
                "let the mail's owner read it: look at its mode, at the directories above it, \
                 and at what SELinux or AppArmor allow"
            }
            io::ErrorKind::NotFound => "mount its file system, or build and install it again",
            io::ErrorKind::UnexpectedEof => BUILD_AGAIN,
            io::ErrorKind::OutOfMemory => {
                "raise vsz_limit; if that does not help, build and install it again"
            }
            _ => "look at the system's log, and mend the disk that it is on",
        }
    }
}

impl Remedy for OpenError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::NoSite { .. } => "`uidl-keep build --install` makes one",
            Self::NotMounted { .. } => {
                "mount it; if the site is what lies there, take that line out of /etc/fstab"
            }
            Self::Fstab(_) => "let the mail's owner read it, or build and install a site",
            Self::NoRoster { .. } => "put it back, or build and install both again",
            Self::Link | Self::NotAFile => "put the file itself there",
            Self::ForeignLink { .. } | Self::OpenLink { .. } => {
                "let the link and its directory be root's, and let nobody else write there"
            }
            Self::Owner { .. } => "`chown root` it, once you know that what it says is yours",
            Self::Writable { .. } => "`chmod go-w` it, once you know that what it says is yours",
            Self::TooLarge { .. } => BUILD_AGAIN,
            Self::Io(error) => error.remedy(),
        }
    }
}

impl Remedy for index::IndexError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Version { .. } => "build and install the plugin of the uidl-keep that wrote it",
            Self::Io(error) => error.remedy(),
            _ => BUILD_AGAIN,
        }
    }
}

impl Remedy for RosterError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Io(error) => error.remedy(),
            _ => BUILD_AGAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_building_again_mends_is_to_be_built_again() {
        let system = |errno| io::Error::from_raw_os_error(errno);
        for (error, word) in [
            (system(libc::EACCES), "read it"),
            (system(libc::EPERM), "read it"),
            (system(libc::ENOENT), "mount"),
            (system(libc::ENOMEM), "vsz_limit"),
            (system(libc::EIO), "system's log"),
        ] {
            let said = error.remedy();
            assert!(said.contains(word), "{error}: {said}");
            assert_eq!(index::IndexError::Io(system(error.raw_os_error().unwrap())).remedy(), said);
            assert_eq!(RosterError::Io(system(error.raw_os_error().unwrap())).remedy(), said);
            assert_eq!(OpenError::Io(error).remedy(), said);
        }
        assert_eq!(RosterError::NotARoster.remedy(), BUILD_AGAIN);
        assert_eq!(index::IndexError::NotAnIndex.remedy(), BUILD_AGAIN);
        assert!(OpenError::Owner { uid: 5 }.remedy().contains("chown"));
    }
}
