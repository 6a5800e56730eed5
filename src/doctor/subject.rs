//! The server that is looked at, and what every check wants to know of it: [`Subject`].
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use crate::doctor::machine::Machine;
use crate::dovecot::{AboutDovecot, Dovecot};
use crate::site::Site;

/// A server.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Its Dovecot.
    pub dovecot: &'a Dovecot,
    /// What Dovecot says of itself.
    pub about: AboutDovecot,
    /// Its files.
    pub machine: &'a Machine,
    /// Its site.
    pub site: &'a Site,
    /// The process of Dovecot that has started all others. `None`: Dovecot does not run.
    pub master: Option<u32>,
    /// The most users of whom is asked one by one.
    pub most_users: usize,
    /// This program, to be run as others.
    pub helper: &'a Path,
}

impl Subject<'_> {
    /// Whether it is Dovecot 2.4, or later.
    pub fn is_2_4(&self) -> bool {
        !self.about.version.starts_with("2.3.")
    }

    /// The place where the site lies in truth, behind all links.
    ///
    /// # Errors
    ///
    /// What the system says; it is not there, among others.
    pub fn real_site(&self) -> io::Result<PathBuf> {
        self.site.dir().canonicalize()
    }
}
