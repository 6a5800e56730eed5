//! Where a server keeps its Maildirs, and whose each is.
//!
//! What leads to the first `{...}` of a pattern belongs to the server and may hold links; below it
//! everything may belong to users, and no link is followed (see [`maildir`](super::maildir)).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::maildir::{names, open_directory, open_start};
use super::{Error, printable};

/// Plesk: popuser's tree.
const PLESK: &[&str] = &["/var/qmail/mailnames/{domain}/{local}/Maildir"];
/// cPanel: the mailbox's directory is the Maildir itself.
const CPANEL: &[&str] = &["/home/{account}/mail/{domain}/{local}"];
/// vpopmail: a domain, and in a large one a user, may lie one level deeper.
const VPOPMAIL: &[&str] = &[
    "/home/vpopmail/domains/{domain}/{local}/Maildir",
    "/home/vpopmail/domains/?/{domain}/{local}/Maildir",
    "/home/vpopmail/domains/{domain}/?/{local}/Maildir",
];

/// Where Maildirs are: one or more patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    patterns: Vec<Pattern>,
}

/// A path of components, from the first placeholder on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    start: PathBuf,
    below: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(OsString),
    Domain,
    Local,
    /// `{account}` or `*`: anything, and no part of the name.
    Any,
    /// `?`: a name of one octet, as a server splits large directories.
    Split,
}

/// Why a pattern or a list of new names is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadLayout {
    /// It does not start at the root.
    #[error("pattern {0:?} does not start with /")]
    Relative(String),
    /// No placeholder tells one maildrop from another.
    #[error("pattern {0:?} has no {{local}}: it would give every maildrop the same name")]
    NoLocal(String),
    /// A component that is neither a name nor one of our placeholders.
    #[error(
        "pattern component {0:?}: a component is a name, {{domain}}, {{local}}, {{account}}, * or ?"
    )]
    Component(String),
    /// A template for user names that does not say whose.
    #[error("user template {0:?} has no {{local}}")]
    Template(String),
    /// A line of a rename file that is not two names.
    #[error("{line}: not an old name, one blank and a new name: {text:?}")]
    Rename {
        /// Its number, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

impl Layout {
    /// A panel's own layout: `plesk`, `cpanel` or `vpopmail`. `None` for any other word.
    pub fn named(word: &str) -> Option<Self> {
        let patterns = match word {
            "plesk" => PLESK,
            "cpanel" => CPANEL,
            "vpopmail" => VPOPMAIL,
            _ => return None,
        };
        let parse = |text: &&str| Pattern::parse(text).expect("our own patterns are patterns");
        Some(Self { patterns: patterns.iter().map(parse).collect() })
    }

    /// A layout of one pattern, such as `/srv/vmail/{domain}/{local}/Maildir`.
    ///
    /// # Errors
    ///
    /// [`BadLayout`].
    pub fn pattern(text: &str) -> Result<Self, BadLayout> {
        Ok(Self { patterns: vec![Pattern::parse(text)?] })
    }

    /// Finds all maildrops of the layout below `root`, sorted by user name. What is no Maildir is
    /// passed over; what cannot be looked into, or would lead elsewhere, is in [`Found::faults`].
    ///
    /// # Errors
    ///
    /// [`Error`] when the place that the layout starts from cannot be read.
    pub fn find(&self, root: &Path, names: &Names) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut missing = None;
        for pattern in &self.patterns {
            let relative = pattern.start.strip_prefix("/").unwrap_or(&pattern.start);
            let start = root.join(relative);
            let place = start.as_os_str().as_bytes();
            let opened = rustix::fs::open(
                &start,
                rustix::fs::OFlags::RDONLY
                    | rustix::fs::OFlags::DIRECTORY
                    | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            );
            match opened {
                Ok(directory) => {
                    let mut walk = Walk { start: &start, names, found: &mut found };
                    walk.step(&directory, &pattern.below, &Who::default(), &[]);
                }
                Err(errno) => missing = Some(Error::io(place, io::Error::from(errno))),
            }
        }
        if found.sources.is_empty() && found.faults.is_empty() {
            if let Some(error) = missing {
                return Err(error);
            }
        }
        found.sources.sort_by(|a, b| (&a.user, &a.below).cmp(&(&b.user, &b.below)));
        Ok(found)
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, BadLayout> {
        let Some(relative) = text.strip_prefix('/') else {
            return Err(BadLayout::Relative(text.to_owned()));
        };
        let parts = relative.split('/').filter(|part| !part.is_empty()).map(|part| match part {
            "{domain}" => Ok(Part::Domain),
            "{local}" => Ok(Part::Local),
            "{account}" | "*" => Ok(Part::Any),
            "?" => Ok(Part::Split),
            _ if part.contains(['{', '}', '*', '?']) || part == ".." => {
                Err(BadLayout::Component(part.to_owned()))
            }
            _ => Ok(Part::Literal(part.into())),
        });
        let parts = parts.collect::<Result<Vec<Part>, _>>()?;
        if !parts.contains(&Part::Local) {
            return Err(BadLayout::NoLocal(text.to_owned()));
        }
        let fixed = parts.iter().take_while(|part| matches!(part, Part::Literal(_))).count();
        let (start, below) = parts.split_at(fixed);
        let start = start.iter().fold(PathBuf::from("/"), |path, part| match part {
            Part::Literal(name) => path.join(name),
            _ => path,
        });
        Ok(Self { start, below: below.to_vec() })
    }
}

/// How the users of found maildrops are called on the new server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    template: Option<String>,
    renamed: HashMap<String, String>,
}

impl Names {
    /// `template`, of `{local}` and `{domain}`; without one `{local}@{domain}`, or `{local}` where
    /// the layout has no domain. `rename` has a line for each user who is called otherwise: the name
    /// that the template gives, one blank, the new one.
    ///
    /// # Errors
    ///
    /// [`BadLayout::Template`], [`BadLayout::Rename`].
    pub fn new(template: Option<String>, rename: &str) -> Result<Self, BadLayout> {
        if let Some(bad) = template.as_ref().filter(|template| !template.contains("{local}")) {
            return Err(BadLayout::Template(bad.clone()));
        }
        let lines = (1..).zip(rename.lines());
        let lines = lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
        let renamed =
            lines.map(|(line, text)| match text.split([' ', '\t']).collect::<Vec<_>>()[..] {
                [old, new] if !old.is_empty() && !new.is_empty() => {
                    Ok((old.to_owned(), new.to_owned()))
                }
                _ => Err(BadLayout::Rename { line, text: printable(text.as_bytes()) }),
            });
        Ok(Self { template, renamed: renamed.collect::<Result<_, _>>()? })
    }

    fn user(&self, who: &Who) -> Option<String> {
        let text = |name: &OsString| name.to_str().map(str::to_owned);
        let local = text(who.local.as_ref()?)?;
        let domain = match &who.domain {
            Some(domain) => Some(text(domain)?),
            None => None,
        };
        let user = match (&self.template, domain) {
            (Some(template), domain) => template
                .replace("{domain}", domain.as_deref().unwrap_or_default())
                .replace("{local}", &local),
            (None, Some(domain)) => format!("{local}@{domain}"),
            (None, None) => local,
        };
        Some(self.renamed.get(&user).cloned().unwrap_or(user))
    }
}

/// What a layout leads to.
#[derive(Debug, Default)]
pub struct Found {
    /// The maildrops.
    pub sources: Vec<Source>,
    /// What could not be looked into, a sentence each.
    pub faults: Vec<String>,
}

/// One maildrop to capture: whose it is, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    user: String,
    start: PathBuf,
    /// Below `start`: each opened without following a link.
    below: Vec<OsString>,
    place: PathBuf,
}

impl Source {
    /// A Maildir that the operator named himself.
    pub fn named(user: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { user: user.into(), start: path.clone(), below: Vec::new(), place: path }
    }

    /// The user name on the new server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where it lies, for messages.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Opens its directory.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] where a link lies on the way, [`Error::Io`].
    pub fn open(&self) -> Result<OwnedFd, Error> {
        let Some((first, rest)) = self.below.split_first() else { return open_start(&self.start) };
        // The start is the server's own and may be reached through links.
        let mut directory = open_start(&self.start.join(first))?;
        for name in rest {
            directory = open_directory(directory.as_fd(), name)?;
        }
        Ok(directory)
    }
}

/// What the placeholders stood for on the way.
#[derive(Debug, Clone, Default)]
struct Who {
    domain: Option<OsString>,
    local: Option<OsString>,
}

/// A walk along one pattern.
struct Walk<'a> {
    start: &'a Path,
    names: &'a Names,
    found: &'a mut Found,
}

impl Walk<'_> {
    fn step(&mut self, directory: &OwnedFd, parts: &[Part], who: &Who, way: &[OsString]) {
        let Some((part, rest)) = parts.split_first() else {
            return self.arrive(directory, who, way);
        };
        let here = match part {
            Part::Literal(name) => vec![name.clone()],
            _ => match names(directory.as_fd()) {
                Ok(names) => sorted(names),
                Err(error) => return self.fault(way, &error),
            },
        };
        for name in here {
            let mut who = who.clone();
            match part {
                Part::Domain => who.domain = Some(name.clone()),
                Part::Local => who.local = Some(name.clone()),
                Part::Split if name.len() != 1 => continue,
                Part::Literal(_) | Part::Any | Part::Split => {}
            }
            let way: Vec<OsString> = way.iter().cloned().chain([name.clone()]).collect();
            match open_directory(directory.as_fd(), &name) {
                Ok(below) => self.step(&below, rest, &who, &way),
                // A file, or a mailbox of another kind: not one of the layout's Maildirs.
                Err(error) if error.is_absence() => {}
                Err(error) => self.fault(&way, &error),
            }
        }
    }

    fn arrive(&mut self, directory: &OwnedFd, who: &Who, way: &[OsString]) {
        match open_directory(directory.as_fd(), OsStr::new("cur")) {
            Err(error) if error.is_absence() => return,
            // A link in the place of `cur`: the capture says so in the user's own block.
            _ => {}
        }
        let place = self.place(way);
        match self.names.user(who) {
            Some(user) => {
                let (start, below) = (self.start.to_owned(), way.to_vec());
                self.found.sources.push(Source { user, start, below, place });
            }
            None => self.fault(way, &"its name is not UTF-8: no user of the new server has it"),
        }
    }

    fn place(&self, way: &[OsString]) -> PathBuf {
        way.iter().fold(self.start.to_owned(), |path, name| path.join(name))
    }

    fn fault(&mut self, way: &[OsString], error: &dyn std::fmt::Display) {
        let place = printable(self.place(way).as_os_str().as_bytes());
        self.found.faults.push(format!("{place}: {error}"));
    }
}

fn sorted(names: Vec<(Box<[u8]>, u64)>) -> Vec<OsString> {
    let mut names: Vec<OsString> =
        names.into_iter().map(|(name, _)| OsString::from_vec(name.into())).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn users(found: &Found) -> Vec<&str> {
        found.sources.iter().map(Source::user).collect()
    }

    fn maildir(root: &Path, path: &str) {
        for folder in ["cur", "new", "tmp"] {
            fs::create_dir_all(root.join(path).join(folder)).unwrap();
        }
    }

    #[test]
    fn each_panel_is_found_where_it_keeps_its_mail() {
        for (layout, path) in [
            ("plesk", "var/qmail/mailnames/ex.com/al/Maildir"),
            ("cpanel", "home/acct/mail/ex.com/al"),
            ("vpopmail", "home/vpopmail/domains/ex.com/al/Maildir"),
            ("vpopmail", "home/vpopmail/domains/0/ex.com/al/Maildir"),
            ("vpopmail", "home/vpopmail/domains/ex.com/A/al/Maildir"),
        ] {
            let root = tempfile::tempdir().unwrap();
            maildir(root.path(), path);
            let found = Layout::named(layout).unwrap().find(root.path(), &Names::default());
            let found = found.unwrap();
            assert_eq!(users(&found), ["al@ex.com"], "{layout} {path}");
            assert!(found.sources[0].open().is_ok());
        }
        assert_eq!(Layout::named("exim"), None);
    }

    #[test]
    fn names_come_from_the_template_and_the_rename_list() {
        let root = tempfile::tempdir().unwrap();
        maildir(root.path(), "srv/a.example/one/M");
        maildir(root.path(), "srv/b.example/two/M");
        let layout = Layout::pattern("/srv/{domain}/{local}/M").unwrap();
        let template = Some("{local}.{domain}".to_owned());
        let names = Names::new(template, "# moved\none.a.example uno@c.example\n").unwrap();
        let found = layout.find(root.path(), &names).unwrap();
        assert_eq!(users(&found), ["two.b.example", "uno@c.example"]);
        assert!(matches!(Names::new(None, "a  b\n"), Err(BadLayout::Rename { line: 1, .. })));
        assert!(matches!(Names::new(Some("{domain}".into()), ""), Err(BadLayout::Template(_))));
    }

    #[test]
    fn a_planted_link_is_told_of_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        maildir(root.path(), "secret/Maildir");
        maildir(root.path(), "srv/ex.com/al/Maildir");
        fs::create_dir_all(root.path().join("srv/ex.com/mallory")).unwrap();
        symlink(root.path().join("secret/Maildir"), root.path().join("srv/ex.com/mallory/Maildir"))
            .unwrap();
        let layout = Layout::pattern("/srv/{domain}/{local}/Maildir").unwrap();
        let found = layout.find(root.path(), &Names::default()).unwrap();
        assert_eq!(users(&found), ["al@ex.com"]);
        assert_eq!(found.faults.len(), 1);
        assert!(found.faults[0].contains("mallory/Maildir: Maildir is a symbolic link"));
    }

    #[test]
    fn a_pattern_must_be_able_to_tell_maildrops_apart() {
        assert!(matches!(Layout::pattern("srv/{local}"), Err(BadLayout::Relative(_))));
        assert!(matches!(Layout::pattern("/srv/{domain}/M"), Err(BadLayout::NoLocal(_))));
        assert!(matches!(Layout::pattern("/srv/{lokal}/{local}"), Err(BadLayout::Component(_))));
        assert!(
            Layout::pattern("/nowhere/{local}")
                .unwrap()
                .find(Path::new("/"), &Names::default())
                .is_err()
        );
    }
}
