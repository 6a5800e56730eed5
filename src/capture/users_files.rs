//! Opening files of users without being led elsewhere.
//!
//! The owner of a mailbox can put anything into it, and a capture runs as root. So everything below
//! the starting directory is opened one name at a time, relative to a directory that is already
//! open, and never through a symbolic link. A file is opened only when it is held, and known to be
//! a regular one.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::capture::error::CaptureError;

/// Opens `path` as a directory to start from. The last name must not be a link. Links on the way to
/// it are followed where the operator made them, and no user did ([`open_operators`]).
///
/// # Errors
///
/// [`CaptureError::Link`], [`CaptureError::LinkOfUser`], or [`CaptureError::Io`].
pub(super) fn open_start(path: &Path) -> Result<OwnedFd, CaptureError> {
    open_by_trusted_links(path, LastName::IsNoLink)
}

/// As [`open_start`], where the last name may be a link of the operator's, too.
///
/// The path is the operator's, but the directories on it need not be. In `/home/alice/mail/Maildir`
/// all but `/home` belong to Alice, and a link in the place of `mail` would lead root to somebody
/// else's mail, in her name. A link is followed only where root or this process's user made it, in
/// a directory of theirs.
///
/// # Errors
///
/// As [`open_start`].
pub(super) fn open_operators(path: &Path) -> Result<OwnedFd, CaptureError> {
    open_by_trusted_links(path, LastName::MayBeLink)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LastName {
    IsNoLink,
    MayBeLink,
}

/// How many links are followed: as many as Linux itself follows.
const MOST_LINKS: u32 = 40;

fn open_by_trusted_links(path: &Path, last: LastName) -> Result<OwnedFd, CaptureError> {
    let io = |errno: Errno| CaptureError::io(path.as_os_str().as_bytes(), errno.into());
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = |start: &str| rustix::fs::open(start, step, Mode::empty()).map_err(io);
    let names = |path: &Path| path.iter().rev().map(ToOwned::to_owned).collect::<Vec<_>>();
    let mut at = from(".")?;
    // The last name is the next.
    let mut ahead = names(path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == "/" {
            at = from("/")?;
            continue;
        }
        let refused = match rustix::fs::openat(&at, &name, step, Mode::empty()) {
            Ok(directory) => {
                at = directory;
                continue;
            }
            Err(errno) => errno,
        };
        let link = match rustix::fs::statat(&at, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => stat,
            _ => return Err(io(refused)),
        };
        if ahead.is_empty() && links == 0 && last == LastName::IsNoLink {
            return Err(CaptureError::Link { name: crate::text::printable_path(path) });
        }
        let parent = rustix::fs::fstat(&at).map_err(io)?;
        let ours = [0, rustix::process::geteuid().as_raw()];
        if let Some(&uid) = [link.st_uid, parent.st_uid].iter().find(|uid| !ours.contains(uid)) {
            return Err(CaptureError::LinkOfUser { name: crate::text::printable_path(path), uid });
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io(Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(&at, &name, Vec::new()).map_err(io)?;
        ahead.extend(names(Path::new(OsStr::from_bytes(target.as_bytes()))));
    }
    let read = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&at, ".", read, Mode::empty()).map_err(io)
}

/// Opens the directory `name` in `parent`, where it must not be a symbolic link.
///
/// # Errors
///
/// [`CaptureError::Link`], or [`CaptureError::Io`]: `ENOENT` and `ENOTDIR` are for the caller to
/// tell.
pub(super) fn open_directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<OwnedFd, CaptureError> {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| {
        // Linux says "not a directory" of a link that it may not follow.
        let is_link = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if is_link {
            CaptureError::Link { name: crate::text::printable(name.as_bytes()) }
        } else {
            CaptureError::io(name.as_bytes(), errno.into())
        }
    })
}

/// The names in a directory that do not start with a dot, in no order, with their inode numbers.
///
/// # Errors
///
/// [`io::Error`], without the name of the directory.
pub(super) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<(Box<[u8]>, u64)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !name.starts_with(b".") {
            found.push((name.into(), entry.ino()));
        }
    }
    Ok(found)
}

/// The largest state file that is read, in octets: some two million messages.
const MAX_STATE_OCTETS: u64 = 256 << 20;

/// Reads a state file. `None` when there is none.
pub(super) fn read_state(
    directory: BorrowedFd<'_>,
    name: &'static str,
) -> Result<Option<Vec<u8>>, CaptureError> {
    let (file, stat) = match open_regular(directory, name.as_bytes()) {
        Ok(opened) => opened,
        Err(error) if error.is_absence() => return Ok(None),
        Err(error) => return Err(error),
    };
    let too_long = Err(CaptureError::StateTooLong { file: name, max_octets: MAX_STATE_OCTETS });
    if octets_of(&stat) > MAX_STATE_OCTETS {
        return too_long;
    }
    let mut octets = Vec::new();
    let read = file.take(MAX_STATE_OCTETS + 1).read_to_end(&mut octets);
    read.map_err(|error| CaptureError::io(name.as_bytes(), error))?;
    if octets.len() as u64 > MAX_STATE_OCTETS { too_long } else { Ok(Some(octets)) }
}

/// Reads a text file, as far as a server's own files are long. Octets that are not UTF-8, in a
/// comment say, cost nothing else.
pub(super) fn read_text(directory: BorrowedFd<'_>, name: &str) -> Result<String, CaptureError> {
    let mut octets = Vec::new();
    let (file, _) = open_regular(directory, name.as_bytes())?;
    let read = file.take(MAX_STATE_OCTETS).read_to_end(&mut octets);
    read.map_err(|error| CaptureError::io(name.as_bytes(), error))?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// The largest file that is taken for a message, in octets.
const MAX_MESSAGE_OCTETS: u64 = 4 << 30;

/// The largest file that is taken for an mbox, in octets.
const MAX_MBOX_OCTETS: u64 = 64 << 30;

/// From this size on a file is looked at for holes, in octets.
const MIN_HOLED_OCTETS: u64 = 1 << 20;

/// Opens a regular file that may be a message. Returns what was seen of it, too.
pub(super) fn open_mail(
    directory: BorrowedFd<'_>,
    name: &[u8],
) -> Result<(File, Stat), CaptureError> {
    open_filled(directory, name, MAX_MESSAGE_OCTETS)
}

/// Opens a regular file that may be an mbox.
pub(super) fn open_mbox(directory: BorrowedFd<'_>, name: &[u8]) -> Result<File, CaptureError> {
    open_filled(directory, name, MAX_MBOX_OCTETS).map(|(file, _)| file)
}

/// Opens a regular file of no more than `most` octets. A file of terabytes that is one hole costs
/// its owner nothing, and us a day.
fn open_filled(
    directory: BorrowedFd<'_>,
    name: &[u8],
    most: u64,
) -> Result<(File, Stat), CaptureError> {
    let (file, stat) = open_regular(directory, name)?;
    let octets = octets_of(&stat);
    let mut is_hollow = false;
    if octets >= MIN_HOLED_OCTETS && stat.st_blocks as u64 * 512 < octets / 2 {
        // A file system that compresses uses few blocks without a hole.
        is_hollow = rustix::fs::seek(&file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < octets);
        let rewound = rustix::fs::seek(&file, SeekFrom::Start(0));
        rewound.map_err(|errno| CaptureError::io(name, errno.into()))?;
    }
    if octets > most || is_hollow {
        return Err(CaptureError::NoMessage { name: crate::text::printable(name), octets });
    }
    Ok((file, stat))
}

/// The size of a file. The system gives no negative one.
fn octets_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(u64::MAX)
}

/// Opens a regular file for reading. Nothing else is opened, for whoever holds the other end of a
/// FIFO notices even that. The file is held first, then looked at, and then opened through the
/// handle, whatever its name leads to by then. So what was seen of it, which is returned too, is of
/// the file that was opened.
///
/// A second link to a file that does not belong to the directory's owner is not read: he may have
/// made it to a file that he cannot read. No second link is read in a directory where anybody can
/// make one.
fn open_regular(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(File, Stat), CaptureError> {
    let path = OsStr::from_bytes(name);
    let io = |errno: Errno| CaptureError::io(name, errno.into());
    let held = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(directory, path, held, Mode::empty()).map_err(io)?;
    let stat = rustix::fs::fstat(&held).map_err(io)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(CaptureError::Link { name: crate::text::printable(name) }),
        _ => return Err(CaptureError::NotRegular { name: crate::text::printable(name) }),
    }
    if stat.st_nlink > 1 {
        let parent = rustix::fs::fstat(directory).map_err(io)?;
        let is_anybodys = Mode::from_raw_mode(parent.st_mode).contains(Mode::WOTH);
        if is_anybodys || ![0, stat.st_uid].contains(&parent.st_uid) {
            return Err(CaptureError::Foreign {
                name: crate::text::printable(name),
                uid: stat.st_uid,
            });
        }
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
    match rustix::fs::open(&itself, flags, Mode::empty()) {
        // The name may be gone by now; we still hold the file.
        Ok(file) => Ok((File::from(file), stat)),
        Err(Errno::NOENT) if !Path::new("/proc/self/fd").exists() => {
            Err(CaptureError::Source("no /proc here: mount it, files are opened through it".into()))
        }
        Err(errno) => Err(io(errno)),
    }
}
