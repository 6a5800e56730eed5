//! `auth/stop-pop3` of a site names the held users in a passwd-file, by which Dovecot's auth
//! refuses them at POP3 before any process of theirs starts, whether or not the plugin is loaded.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use uidl_keep::file::publish::{Access, Staged};
use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::roster::{Gate, is_domain};
use uidl_keep::site::{OpenError, Site, open_trusted};

use crate::accounts;
use crate::output::{Trouble, remark};
use crate::site_files;

/// The account that Dovecot's auth runs as, unless `default_internal_user` names another.
const AUTH_ACCOUNT: &str = "dovecot";

/// The first line. Auth reads it as a comment.
const HEADER: &str =
    "# Who is held at POP3, by `uidl-keep hold`; see its manual, not for editing\n";

/// The fields behind each name. Auth splits them at blanks, so the reason, which the client is
/// told, can have none.
const FIELDS: &str = ":::::::nopassword=y nologin=y reason=[SYS/TEMP]\n";

/// The largest file that is read: millions of users.
const MOST_OCTETS: u64 = 1 << 30;

/// The file of a site that has one.
pub struct StopFile<'a> {
    site: &'a Site,
    path: PathBuf,
    /// The group that reads it.
    gid: u32,
    /// Its text before.
    before: String,
    /// The time at which that was written.
    modified: Option<SystemTime>,
}

impl<'a> StopFile<'a> {
    /// The file of a site; `None` when `hold --auth` was never used.
    pub fn of(site: &'a Site) -> Result<Option<Self>, Trouble> {
        let path = site.dir().join("auth/stop-pop3");
        let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
        let file = match open_trusted(&path, MOST_OCTETS) {
            Ok(Some(file)) => file,
            Ok(None) | Err(OpenError::NoSite { .. }) => return Ok(None),
            Err(error) => return Err(at(&error)),
        };
        let metadata = file.metadata().map_err(|error| at(&error))?;
        let before = io::read_to_string(file).map_err(|error| at(&error))?;
        let (gid, modified) = (metadata.gid(), metadata.modified().ok());
        Ok(Some(Self { site, path, gid, before, modified }))
    }

    /// The same. When there is none, it makes the directory, which auth's group may search, unless
    /// that is there already.
    pub fn begin(site: &'a Site) -> Result<Self, Trouble> {
        if let Some(stop) = Self::of(site)? {
            return Ok(stop);
        }
        let dir = site.dir().join("auth");
        let at = |error: &dyn std::fmt::Display| Trouble::at(dir.display(), error);
        if !dir.is_dir() {
            let gid = accounts::gid_of_account(AUTH_ACCOUNT)?.ok_or_else(|| {
                at(&format_args!(
                    "no account {AUTH_ACCOUNT} here; make the directory for the group of the user \
                     that Dovecot's auth runs as, which `doveconf default_internal_user` names: \
                     install -d -m 0750 -o root -g GROUP {}",
                    dir.display()
                ))
            })?;
            // It has another name until it is right, so that a killed run leaves no directory that
            // auth cannot search.
            let made = dir.with_file_name("auth.new");
            let make = || {
                let there = made.is_dir();
                let dirs = DirBuilder::new().mode(0o700).recursive(there).create(&made);
                dirs.and_then(|()| chown(&made, None, Some(gid)))?;
                fs::set_permissions(&made, Permissions::from_mode(0o750))?;
                fs::rename(&made, &dir)
            };
            make().map_err(|error| at(&error))?;
        }
        let gid = dir.metadata().map_err(|error| at(&error))?.gid();
        let path = dir.join("stop-pop3");
        Ok(Self { site, path, gid, before: String::new(), modified: None })
    }

    /// Writes the file anew when the rosters differ from its text.
    pub fn refresh(&self) -> Result<(), Trouble> {
        let text = self.text()?;
        if text == self.before {
            return Ok(());
        }
        let write = || {
            let staged = Staged::create(&self.path)?;
            staged.file().write_all(text.as_bytes())?;
            self.date(staged.file())?;
            staged.seal(Access { mode: 0o640, owner: Some((0, self.gid)) })?.publish()
        };
        write().map_err(|error| {
            Trouble::at(
                self.path.display(),
                format_args!("{error}; Dovecot's auth still uses the old file: run this again"),
            )
        })
    }

    /// Checks that it says the same as the rosters.
    pub fn check(&self) -> Result<(), Trouble> {
        if self.text()? == self.before {
            return Ok(());
        }
        Err(Trouble::at(
            self.path.display(),
            "its users are not those that the rosters hold; to write it anew, run `uidl-keep hold \
             --auth` for a user who is held, or `release` for one who is released",
        ))
    }

    /// Auth reads the file again when its size changes, or the second in which it was written. So
    /// two versions never have the same second.
    fn date(&self, file: &File) -> io::Result<()> {
        let Some(before) = self.modified else { return Ok(()) };
        file.set_modified(SystemTime::now().max(before + Duration::from_secs(1)))
    }

    /// The text that it should have. For a scope whose roster cannot be read, it keeps the lines
    /// from before.
    fn text(&self) -> Result<String, Trouble> {
        let mut text = HEADER.to_owned();
        let mut unsaid = Vec::new();
        for scope in site_files::scopes(self.site)? {
            match site_files::read_roster(self.site, &scope) {
                Ok(None) => {}
                Ok(Some(roster)) => {
                    let held = roster.lines().filter(|line| line.gate == Gate::Held);
                    for line in
                        held.filter(|line| !is_everybody(&line.user) && !is_domain(&line.user))
                    {
                        if can_be_said(&line.user) {
                            let _ = write!(text, "{}{FIELDS}", line.user);
                        } else {
                            unsaid.push(line.user.clone());
                        }
                    }
                }
                Err(trouble) => {
                    remark(format_args!(
                        "{trouble}; auth/stop-pop3 keeps its lines of {}",
                        scope.name()
                    ));
                    let is_of_place = |line: &&str| {
                        let user = line.split(':').next().unwrap_or_default();
                        self.site.scope_of(user).is_ok_and(|its| its.as_ref() == Some(&scope))
                    };
                    let lines = self.before.split_inclusive('\n').skip(1);
                    text.extend(lines.filter(is_of_place));
                }
            }
        }
        if let Some(first) = unsaid.first() {
            remark(format_args!(
                "{} held users have names that no passwd-file can have; only the plugin refuses \
                 them (the first: {first})",
                unsaid.len()
            ));
        }
        Ok(text)
    }
}

/// Whether a passwd-file can name a user without changing the meaning of any line.
fn can_be_said(user: &str) -> bool {
    !user.is_empty()
        && !user.starts_with('#')
        && user.trim() == user
        && !user.contains(|char: char| char == ':' || char.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_read_as_something_else_is_not_said() {
        for user in ["", "#a@x", "a:b@x", "a\nb@x", "a\r@x", " a@x", "a@x\t", "a\0@x"] {
            assert!(!can_be_said(user), "{user:?}");
        }
        assert!(can_be_said("o'neill+x y@example.com"));
    }
}
