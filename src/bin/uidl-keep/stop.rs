//! `auth/stop-pop3` of a site names the held users in a passwd-file, by which Dovecot's auth
//! refuses them at POP3 before any process of theirs starts, whether or not the plugin is loaded.
//!
//! While the [`Guard`] is on, it names everybody who was migrated, and its first line tells the
//! loader so.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use uidl_keep::file::publish::{Access, Staged};
use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::roster::{Gate, RosterLine, is_domain};
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

/// The first words of the first line while the guard is on. `dovecot-plugin/loader.c` reads it: `1`
/// where the file names everybody, `0` where it may not, the socket of auth, and a name that is in
/// this file alone, by which the loader asks auth whether it still reads the file.
const GUARD: &str = "# uidl-keep-guard";

/// The longest socket and the longest name that the loader takes.
const MOST_SOCKET_OCTETS: usize = 107;
const MOST_NAME_OCTETS: usize = 255;

/// The user part of the name that is in this file alone.
const CANARY: &str = "uidl-keep-guard";

/// How long it takes until auth has surely seen a new file.
const UNTIL_SEEN: Duration = Duration::from_millis(1100);

/// Everybody who was migrated is refused, and not only who is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Where auth answers.
    socket: String,
    /// A name that nobody has.
    pub canary: String,
}

impl Guard {
    /// A guard whose canary lives in that domain, or in none.
    pub fn new(socket: PathBuf, domain: Option<&str>) -> Result<Self, Trouble> {
        let canary = domain.map_or(CANARY.to_owned(), |domain| format!("{CANARY}@{domain}"));
        let is_word = |word: &str, most| {
            word.len() <= most && !word.contains(|char: char| char == ' ' || char.is_control())
        };
        let socket = socket.into_os_string().into_string().ok();
        match socket.filter(|socket| is_word(socket, MOST_SOCKET_OCTETS)) {
            Some(socket) if is_word(&canary, MOST_NAME_OCTETS) => Ok(Self { socket, canary }),
            _ => Err(Trouble::new(format!(
                "the socket of auth, base_dir with /auth-client, or the name {canary} has a blank \
                 or is too long for the loader; set another base_dir"
            ))),
        }
    }

    /// The guard of a first line, if that is one.
    fn of_line(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.strip_prefix(GUARD)?.split(' ').collect();
        match words[..] {
            ["", "0" | "1", socket, canary] => {
                Some(Self { socket: socket.to_owned(), canary: canary.to_owned() })
            }
            _ => None,
        }
    }
}

/// How many users auth is asked about before the guard is believed: the canary is the first.
const MOST_PROVEN: usize = 4;

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
    /// Whether everybody is to be named.
    guard: Option<Guard>,
}

/// The text that the file should have.
struct StopText {
    text: String,
    /// Why it does not name everybody who must be refused.
    doubt: Option<String>,
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
        let guard = before.lines().next().and_then(Guard::of_line);
        Ok(Some(Self { site, path, gid, before, modified, guard }))
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
        Ok(Self { site, path, gid, before: String::new(), modified: None, guard: None })
    }

    /// The guard, if it is on.
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Whether the file says of itself that it names everybody who was migrated.
    pub fn is_whole(&self) -> bool {
        self.guard.is_some() && self.before.starts_with(&format!("{GUARD} 1 "))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file anew when the rosters differ from its text.
    pub fn refresh(&mut self) -> Result<(), Trouble> {
        let StopText { text, doubt } = self.text(self.guard.as_ref(), &BTreeSet::new())?;
        if let Some(doubt) = doubt.filter(|_| self.guard.is_some()) {
            remark(format_args!(
                "{doubt}: auth/stop-pop3 does not name everybody who must be refused, so that POP3 \
                 refuses everybody while no plugin fits"
            ));
        }
        self.write(text)
    }

    /// Adds these users while the guard is on, before a roster names them: who is on a roster must
    /// be refused. It then waits until auth has seen it.
    pub fn cover<'u>(&mut self, users: impl Iterator<Item = &'u str>) -> Result<(), Trouble> {
        if self.guard.is_none() {
            return Ok(());
        }
        let users = users.filter(|user| !is_everybody(user) && !is_domain(user));
        let StopText { text, .. } = self.text(self.guard.as_ref(), &users.collect())?;
        if text != self.before {
            self.write(text)?;
            thread::sleep(UNTIL_SEEN);
        }
        Ok(())
    }

    /// Turns the guard on, if it can be whole, and if `prove` finds that auth refuses these: the
    /// canary, some who were migrated, and the canary in capitals. Where it finds a fault, all is
    /// as it was. Returns how many users are named.
    pub fn turn_on(
        &mut self,
        guard: Guard,
        prove: impl FnOnce(&[&str]) -> Result<(), Trouble>,
    ) -> Result<usize, Trouble> {
        let StopText { text, doubt } = self.text(Some(&guard), &BTreeSet::new())?;
        if let Some(doubt) = doubt {
            return Err(Trouble::new(format!(
                "{doubt}: the guard would not keep out everybody who was migrated; nothing is \
                 changed"
            )));
        }
        let names = text.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<String> = names.map(|line| name_of(line).to_owned()).collect();
        let before = self.before.clone();
        // Until it is proven, the loader must not believe it.
        let unproven = text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned());
        self.write(unproven)?;
        thread::sleep(UNTIL_SEEN);
        // Where auth did not make names small, who writes his own in capitals would pass the file.
        let capitals = guard.canary.to_ascii_uppercase();
        let first = names.iter().take(MOST_PROVEN).map(String::as_str);
        let first: Vec<&str> = first.chain([capitals.as_str()]).collect();
        if let Err(trouble) = prove(&first) {
            self.write(if before.is_empty() { HEADER.to_owned() } else { before })?;
            return Err(trouble);
        }
        self.write(text)?;
        self.guard = Some(guard);
        // The canary is nobody.
        Ok(names.len() - 1)
    }

    /// Turns the guard off: only who is held is named.
    pub fn turn_off(&mut self) -> Result<(), Trouble> {
        self.guard = None;
        self.refresh()
    }

    fn write(&mut self, text: String) -> Result<(), Trouble> {
        if text == self.before {
            return Ok(());
        }
        let write = || {
            let staged = Staged::create(&self.path)?;
            staged.file().write_all(text.as_bytes())?;
            let modified = self.date(staged.file())?;
            staged.seal(Access { mode: 0o640, owner: Some((0, self.gid)) })?.publish()?;
            Ok(modified)
        };
        let modified = write().map_err(|error: io::Error| {
            Trouble::at(
                self.path.display(),
                format_args!("{error}; Dovecot's auth still uses the old file: run this again"),
            )
        })?;
        (self.before, self.modified) = (text, Some(modified));
        Ok(())
    }

    /// Checks that it says the same as the rosters.
    pub fn check(&self) -> Result<(), Trouble> {
        if self.text(self.guard.as_ref(), &BTreeSet::new())?.text == self.before {
            return Ok(());
        }
        let what = match self.guard {
            Some(_) => {
                "its users are not those of the rosters, and the guard is on; to write it anew, \
                 run `uidl-keep plugin guard`"
            }
            None => {
                "its users are not those that the rosters hold; to write it anew, run `uidl-keep \
                 hold --auth` for a user who is held, or `release` for one who is released"
            }
        };
        Err(Trouble::at(self.path.display(), what))
    }

    /// Auth reads the file again when its size changes, or the second in which it was written. So
    /// two versions never have the same second.
    fn date(&self, file: &File) -> io::Result<SystemTime> {
        let now = SystemTime::now();
        let Some(before) = self.modified else { return Ok(now) };
        let later = now.max(before + Duration::from_secs(1));
        file.set_modified(later).map(|()| later)
    }

    /// The text that it should have, with `more` users. For a scope whose roster cannot be read, it
    /// keeps the lines from before.
    fn text(&self, guard: Option<&Guard>, more: &BTreeSet<&str>) -> Result<StopText, Trouble> {
        let mut text = HEADER.to_owned();
        let (mut unsaid, mut doubt) = (Vec::new(), None);
        let mut said = BTreeSet::new();
        if let Some(Guard { canary, .. }) = guard {
            let _ = write!(text, "{canary}{FIELDS}");
        }
        for scope in site_files::scopes(self.site)? {
            match site_files::read_roster(self.site, &scope) {
                Ok(None) => {
                    doubt.get_or_insert_with(|| {
                        format!("{}: no roster beside its index", scope.name())
                    });
                }
                Ok(Some(roster)) => {
                    let is_named = |line: &&RosterLine| match guard {
                        Some(_) => line.gate != Gate::Redownload,
                        None => line.gate == Gate::Held,
                    };
                    for line in roster.lines().filter(is_named) {
                        if is_everybody(&line.user) || is_domain(&line.user) {
                            doubt.get_or_insert_with(|| {
                                let who = "is for users whom no roster names";
                                format!("{}: the line {} {who}", scope.name(), line.user)
                            });
                        } else if !can_be_said(&line.user) {
                            unsaid.push(line.user.clone());
                        } else {
                            let _ = write!(text, "{}{FIELDS}", line.user);
                            if !more.is_empty() {
                                said.insert(line.user.clone());
                            }
                        }
                    }
                }
                Err(trouble) => {
                    remark(format_args!(
                        "{trouble}; auth/stop-pop3 keeps its lines of {}",
                        scope.name()
                    ));
                    let is_of_place = |line: &&str| {
                        let user = name_of(line);
                        let is_canary = self.guard.as_ref().is_some_and(|it| it.canary == user);
                        !line.starts_with('#')
                            && !is_canary
                            && self
                                .site
                                .scope_of(user)
                                .is_ok_and(|its| its.as_ref() == Some(&scope))
                    };
                    let lines = self.before.split_inclusive('\n');
                    text.extend(lines.filter(is_of_place));
                    // Its owner may have spoilt it. All its users were named, and still are.
                    let is_kept = self.is_whole() && self.site.given_to(&scope).is_some();
                    if !is_kept {
                        doubt.get_or_insert_with(|| trouble.to_string());
                    }
                }
            }
        }
        for user in more.iter().filter(|user| !said.contains(**user)) {
            if can_be_said(user) {
                let _ = write!(text, "{user}{FIELDS}");
            } else {
                unsaid.push((*user).to_owned());
            }
        }
        if let Some(first) = unsaid.first() {
            let names = "have names that no passwd-file can have";
            let count = unsaid.len();
            match guard {
                Some(_) => {
                    doubt.get_or_insert(format!("{count} users {names} (the first: {first})"));
                }
                None => remark(format_args!(
                    "{count} held users {names}; only the plugin refuses them (the first: {first})"
                )),
            }
        }
        if let Some(Guard { socket, canary }) = guard {
            text.insert_str(
                0,
                &format!("{GUARD} {} {socket} {canary}\n", u8::from(doubt.is_none())),
            );
        }
        Ok(StopText { text, doubt })
    }
}

/// The user whom a line names.
fn name_of(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
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

    #[test]
    fn a_guard_is_what_the_loader_can_read() {
        let guard = Guard::new("/run/dovecot/auth-client".into(), Some("example.com")).unwrap();
        let line = |n| format!("{GUARD} {n} /run/dovecot/auth-client uidl-keep-guard@example.com");
        assert_eq!(Guard::of_line(&line(0)).as_ref(), Some(&guard));
        assert_eq!(Guard::of_line(&line(1)).as_ref(), Some(&guard));
        for other in [line(2), line(1) + " x", HEADER.trim().to_owned(), format!("{GUARD} 1 /x")] {
            assert_eq!(Guard::of_line(&other), None, "{other}");
        }
        assert_eq!(Guard::new("/run/x".into(), None).unwrap().canary, "uidl-keep-guard");
        let long = "/".repeat(MOST_SOCKET_OCTETS + 1);
        for socket in ["/run/a b", "/run/a\n", &long] {
            assert!(Guard::new(socket.into(), None).is_err(), "{socket:?}");
        }
        assert!(Guard::new("/run/x".into(), Some(&"x".repeat(MOST_NAME_OCTETS))).is_err());
    }
}
