//! One maildrop of the old server, and how it is opened: [`Source`].
//!
//! Below the part of a pattern before its first variable no symbolic link is followed: those
//! directories may belong to users.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capture::disk::maildir::ControlDir;
use crate::capture::error::CaptureError;
use crate::capture::users_files;
use crate::maildrop::is_everybody;
use crate::text::printable;

/// A maildrop to capture.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) user: String,
    pub(super) login: String,
    pub(super) place: PathBuf,
    pub(super) start: Start,
    pub(super) control: Option<Box<Source>>,
}

#[derive(Debug, Clone)]
pub(super) enum Start {
    /// A directory that the operator named.
    Named,
    /// Names below a directory that is open.
    Below(Arc<OwnedFd>, Vec<OsString>),
    /// The search found a fault: it is not opened.
    Fault(String),
    /// It is not opened either: nobody knows whether it is this user's.
    Unsure(String),
}

impl Source {
    /// The maildrop at `path`, of `user`.
    pub fn named(user: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let user = user.into();
        Self { login: user.clone(), user, place: path.into(), start: Start::Named, control: None }
    }

    /// One of `user` that could not even be looked for, and why; where it would lie.
    pub fn missed(user: impl Into<String>, place: impl Into<PathBuf>, why: String) -> Self {
        let user = user.into();
        Self {
            login: user.clone(),
            user,
            place: place.into(),
            start: Start::Fault(why),
            control: None,
        }
    }

    /// Whether it stands for everybody who lives at a place that could not be searched: then its
    /// user is [everybody](is_everybody) of a domain, or of all.
    pub fn is_gap(&self) -> bool {
        is_everybody(&self.user) && matches!(self.start, Start::Fault(_))
    }

    /// Why there is no maildrop to open, where the search has found that.
    pub fn fault(&self) -> Option<&str> {
        match &self.start {
            Start::Fault(fault) | Start::Unsure(fault) => Some(fault),
            Start::Named | Start::Below(..) => None,
        }
    }

    /// The same maildrop under another user name.
    pub fn called(self, user: impl Into<String>) -> Self {
        Self { user: user.into(), ..self }
    }

    /// The same maildrop, whose server keeps its own files at that place.
    #[must_use]
    pub fn with_control(self, control: Source) -> Self {
        Self { control: Some(Box::new(control)), ..self }
    }

    /// Opens the directory that has the server's own files, as [`Source::open`] opens one.
    ///
    /// # Errors
    ///
    /// As [`Source::open`], but not that it is not there.
    pub fn open_control(&self) -> Result<ControlDir, CaptureError> {
        match self.control.as_ref().map(|control| control.open()) {
            None => Ok(ControlDir::Itself),
            Some(Ok(directory)) => Ok(ControlDir::Elsewhere(directory)),
            Some(Err(error)) if error.is_absence() => Ok(ControlDir::NotThere),
            Some(Err(error)) => Err(error),
        }
    }

    /// The user name on the new server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The user name at the old server, as far as the names of directories tell; else the new one.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// Where it lies.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Opens its directory, through no symbolic link below where the search for it started.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Io`], [`CaptureError::Link`], and [`CaptureError::Source`] when the search
    /// found it wanting.
    pub fn open(&self) -> Result<OwnedFd, CaptureError> {
        match &self.start {
            Start::Named => users_files::open_start(&self.place),
            Start::Fault(fault) | Start::Unsure(fault) => Err(CaptureError::Source(fault.clone())),
            Start::Below(top, names) => open_below(top, names),
        }
    }

    /// Reads a file that a server keeps in its directory. `None`: there is none, or no such
    /// directory.
    ///
    /// # Errors
    ///
    /// As [`Source::open`], and as for a state file of a Maildir.
    pub fn read_file(&self, name: &'static str) -> Result<Option<Vec<u8>>, CaptureError> {
        let directory = match self.open() {
            Ok(directory) => directory,
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(error),
        };
        users_files::read_state(directory.as_fd(), name)
    }

    /// Opens the directory that its file is in, as [`Source::open`] opens one; and the name of the
    /// file there.
    ///
    /// # Errors
    ///
    /// As [`Source::open`].
    pub fn open_holder(&self) -> Result<(OwnedFd, OsString), CaptureError> {
        match &self.start {
            Start::Named => {
                let no_file =
                    || CaptureError::Source(format!("{} is not a file", shown(&self.place)));
                let name = self.place.file_name().ok_or_else(no_file)?;
                let parent = self.place.parent().ok_or_else(no_file)?;
                let parent = if parent == Path::new("") { Path::new(".") } else { parent };
                Ok((users_files::open_operators(parent)?, name.to_owned()))
            }
            Start::Fault(fault) | Start::Unsure(fault) => Err(CaptureError::Source(fault.clone())),
            Start::Below(top, names) => {
                let (name, directories) = names.split_last().expect("a pattern has a name");
                Ok((open_below(top, directories)?, name.clone()))
            }
        }
    }
}

fn open_below(top: &OwnedFd, names: &[OsString]) -> Result<OwnedFd, CaptureError> {
    let mut at = users_files::open_directory(top.as_fd(), OsStr::new("."))?;
    for name in names {
        at = users_files::open_directory(at.as_fd(), name)?;
    }
    Ok(at)
}

/// The kind of place that stands at the end of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A directory that has a maildrop.
    Directory,
    /// A mailbox of Cyrus: a directory, in whose name, and in those above, `^` stands for a dot.
    /// Its header, where it says whose the mailbox is, decides `{local}` and `{domain}`. A mailbox
    /// that is no INBOX is left out.
    CyrusMailbox,
    /// A file that is a maildrop.
    File,
}

/// A path as a remark shows it.
pub(super) fn shown(path: &Path) -> impl fmt::Display {
    printable(path.as_os_str().as_bytes())
}
