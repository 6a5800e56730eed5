//! Opens a file of a site, if it can be trusted: [`open_trusted`].
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::file::safe_open::{Unopened, regular};
use crate::site::root::{self, Root, open};

/// The reason why a file of a site could not be opened. No such error means that a user was not
/// migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no site here: it was not made, or is not mounted.
    #[error("no directory {}: make the site, or mount it", dir.display())]
    NoSite {
        /// The directory that is not there.
        dir: PathBuf,
    },
    /// The directory is there, and what is to be mounted there, or above it, is not.
    #[error("/etc/fstab says that something is mounted on {}, and nothing is", place.display())]
    NotMounted {
        /// The mount point.
        place: PathBuf,
    },
    /// Nothing was ever put into the site, and nothing says that it is to be mounted or is not.
    #[error("no roster, and /etc/fstab, which says what is to be mounted, cannot be read: {0}")]
    Fstab(#[source] io::Error),
    /// There is no roster, but the index that goes with it is there: the roster was lost.
    #[error("not there, but its index is: {}", index.display())]
    NoRoster {
        /// The index.
        index: PathBuf,
    },
    /// A symbolic link.
    #[error("a symbolic link, and links are not followed here")]
    Link,
    /// A symbolic link on the way is not followed.
    #[error("{} is a symbolic link, and uid {uid} could put another there", link.display())]
    ForeignLink {
        /// Where it stands.
        link: PathBuf,
        /// Who owns the link, or the directory that has it.
        uid: u32,
    },
    /// A symbolic link on the way is not followed.
    #[error("{} is a symbolic link, in a directory that others may write", link.display())]
    OpenLink {
        /// Where it stands.
        link: PathBuf,
    },
    /// Something other than a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// It belongs to somebody who may not write it.
    #[error("owned by uid {uid}, and should be by root")]
    Owner {
        /// Its owner.
        uid: u32,
    },
    /// Users other than its owner may write it.
    #[error("mode {mode:04o} lets group or others write it")]
    Writable {
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than any file of ours.
    #[error("{len_octets} octets, more than {most}")]
    TooLarge {
        /// Its size.
        len_octets: u64,
        /// The most it may have.
        most: u64,
    },
    /// It could not be opened, for this reason.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<root::Unreached> for OpenError {
    fn from(why: root::Unreached) -> Self {
        match why {
            root::Unreached::System(errno) => Self::Io(errno.into()),
            root::Unreached::Link { link, uid } => Self::ForeignLink { link, uid },
            root::Unreached::Writable { link } => Self::OpenLink { link },
        }
    }
}

/// Opens a file of a site to read it, without waiting for anything. It is no link itself, and links
/// on the way are followed only where nobody else could have put them.
///
/// The opened file is then checked. It must be a regular file that belongs to root or to us, that
/// nobody else may write, and that is not larger than `most` octets. Root also accepts a file that
/// root gave to one account, mode 0400: other users put nothing into a site. A user who changed his
/// own file must lie only about himself, so whoever reads it takes the lines of others out
/// ([`Site::take_others_out`](crate::site::Site::take_others_out)). `None` when there is no such
/// file but its directory is there.
///
/// # Errors
///
/// [`OpenError`]: could not tell.
pub fn open_trusted(path: &Path, most: u64) -> Result<Option<File>, OpenError> {
    open_trusted_below(None, path, most)
}

pub(super) fn open_trusted_below(
    root: Option<&Root>,
    path: &Path,
    most: u64,
) -> Result<Option<File>, OpenError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let opened = match open(root, path, flags) {
        Ok(opened) => Ok(File::from(opened)),
        Err(root::Unreached::System(errno)) => Err(io::Error::from(errno)),
        Err(why) => return Err(why.into()),
    };
    let (file, metadata) = match regular(opened) {
        Ok(opened) => opened,
        Err(Unopened::Absent) => return absent(root, path),
        Err(Unopened::Link) => return Err(OpenError::Link),
        Err(Unopened::NotRegular(_)) => return Err(OpenError::NotAFile),
        Err(Unopened::Io(error)) => return Err(error.into()),
    };
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let reader = rustix::process::geteuid().as_raw();
    if uid != 0 && uid != reader && (reader != 0 || mode != 0o400) {
        return Err(OpenError::Owner { uid });
    }
    if mode & 0o022 != 0 {
        return Err(OpenError::Writable { mode });
    }
    if metadata.len() > most {
        return Err(OpenError::TooLarge { len_octets: metadata.len(), most });
    }
    Ok(Some(file))
}

/// The meaning of `path` not being there.
fn absent(root: Option<&Root>, path: &Path) -> Result<Option<File>, OpenError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    match open(root, dir, OFlags::PATH) {
        Ok(_) => Ok(None),
        Err(root::Unreached::System(Errno::NOENT)) => Err(OpenError::NoSite { dir: dir.into() }),
        Err(why) => Err(why.into()),
    }
}
