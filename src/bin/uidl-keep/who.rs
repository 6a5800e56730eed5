//! The maildrops that a command of the new server looks at: whose, and where they lie.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::dovecot::{Dovecot, DovecotError, InboxPath};
use uidl_keep::forecast::{ControlPlace, MailPlace};
use uidl_keep::maildrop::{everybody_of, is_everybody};
use uidl_keep::site::roster::is_domain;
use uidl_keep::site::{Scope, Site};

use crate::output::{Trouble, remark};
use crate::site_files;

/// Whose maildrops are looked at.
#[derive(clap::Args)]
pub struct NamesArgs {
    /// Only this user or domain; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN")]
    pub only: Vec<String>,
    /// Only the users and domains in this file, one a line.
    #[arg(long, value_name = "FILE")]
    pub domains: Option<PathBuf>,
}

/// Where the mail lies.
#[derive(clap::Args)]
pub struct PlaceArgs {
    /// Where the Maildirs lie, such as '/srv/vmail/{domain}/{local}/Maildir' or
    /// '/home/{user}/Maildir'; may be repeated. A name of * stands for any, of ? for any of one
    /// character [default: where Dovecot says].
    #[arg(long, value_name = "PATTERN")]
    pub maildir: Vec<Pattern>,
    /// Where Dovecot keeps dovecot-uidlist and the ledger of INBOX, if not in the Maildir
    /// (CONTROL=); may be repeated.
    #[arg(long, value_name = "PATTERN", requires = "maildir")]
    pub control: Vec<Pattern>,
    /// User names by the variables of the pattern [default: {local}@{domain}, or {local}, {user} or
    /// {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE")]
    pub user_template: Option<String>,
    /// The doveadm program that knows the users.
    #[arg(long, value_name = "PATH", default_value = "doveadm")]
    pub doveadm: PathBuf,
    /// Arguments for doveadm, separated by blanks: `-c /etc/dovecot/other.conf`.
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub doveadm_args: String,
    /// How many seconds a doveadm may say nothing before it is ended.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
}

impl PlaceArgs {
    /// The Dovecot that serves the mail.
    pub fn dovecot(&self) -> Dovecot {
        let args = self.doveadm_args.split_whitespace().map(str::to_owned);
        Dovecot::new(&self.doveadm, args).within(Duration::from_secs(self.timeout.max(1)))
    }
}

/// The users and domains that are asked for.
pub struct Wanted {
    /// `None`: everybody.
    names: Option<BTreeSet<String>>,
}

impl Wanted {
    /// `more`: beside those that the options name.
    pub fn of(args: &NamesArgs, more: &[String]) -> Result<Self, Trouble> {
        let mut names: BTreeSet<String> = args.only.iter().chain(more).cloned().collect();
        if let Some(path) = &args.domains {
            let text =
                fs::read_to_string(path).map_err(|error| Trouble::at(path.display(), error))?;
            let lines = text.lines().map(str::trim);
            names.extend(
                lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(ToOwned::to_owned),
            );
            if names.is_empty() {
                return Err(Trouble::at(path.display(), "it names no user and no domain"));
            }
        }
        let names = names.into_iter().map(|name| match name.strip_prefix('@') {
            Some(domain) => domain.to_owned(),
            None => name,
        });
        let names: BTreeSet<String> = names.collect();
        Ok(Self { names: (!names.is_empty()).then_some(names) })
    }

    /// Whether nobody is named.
    pub fn is_everybody(&self) -> bool {
        self.names.is_none()
    }

    pub fn has(&self, user: &str) -> bool {
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        self.names.as_ref().is_none_or(|names| {
            names.contains(user) || domain.is_some_and(|domain| names.contains(domain))
        })
    }

    /// The names that are those of none of these users.
    pub fn unmet<'a>(&self, users: impl Iterator<Item = &'a str>) -> Vec<&String> {
        let mut met: BTreeSet<&str> = users.collect();
        let domains = met.iter().filter_map(|user| user.rsplit_once('@'));
        let domains: Vec<&str> = domains.map(|(_, domain)| domain).collect();
        met.extend(domains);
        self.names.iter().flatten().filter(|name| !met.contains(name.as_str())).collect()
    }

    /// Whether somebody who is asked for may be in a scope.
    fn may_meet(&self, scope: &Scope) -> bool {
        let Scope::Domain(domain) = scope else { return self.has(scope.name()) };
        let is_of = |name: &String| {
            name == domain || name.rsplit_once('@').is_some_and(|(_, of)| of == domain)
        };
        self.names.as_ref().is_none_or(|names| names.iter().any(is_of))
    }
}

/// The users on the rosters of a site who are asked for.
pub fn users_on_rosters(site: &Site, wanted: &Wanted) -> Result<BTreeSet<String>, Trouble> {
    let mut users = BTreeSet::new();
    for scope in site_files::scopes(site)?.iter().filter(|scope| wanted.may_meet(scope)) {
        let Some(roster) = site_files::read_roster(site, scope)? else {
            return Err(Trouble::at(
                site.paths_of(scope).roster.display(),
                "not there, but its index is: put it back, or build and install both again",
            ));
        };
        let named = roster.lines().map(|line| &line.user);
        let named = named.filter(|user| !is_domain(user) && !is_everybody(user));
        users.extend(named.filter(|user| wanted.has(user)).cloned());
    }
    Ok(users)
}

/// What was found where Maildirs should lie.
pub struct FoundPlaces {
    /// The Maildirs by user.
    mail: BTreeMap<String, Source>,
    /// The control directories by user; `None`: they are the Maildirs.
    control: Option<BTreeMap<String, Source>>,
    /// The places that could not be searched.
    gaps: Vec<Source>,
    /// Whether each pattern had a directory to search, and each maildrop a user.
    pub are_all_searched: bool,
}

impl FoundPlaces {
    /// Searches by the patterns.
    pub fn of(args: &PlaceArgs, wanted: &Wanted) -> Result<Self, Trouble> {
        let naming = Naming::new(args.user_template.as_deref())
            .map_err(|error| Trouble::at("--user-template", error))?;
        let (mut gaps, mut are_all_searched) = (Vec::new(), true);
        let mut find = |option: &str, patterns: &[Pattern]| {
            let found = search::find(patterns, None, &naming, Holds::Directory)
                .map_err(|error| Trouble::at(option, error))?;
            found.losses.iter().for_each(remark);
            are_all_searched &= found.losses.is_empty();
            let (not_searched, sources): (Vec<Source>, Vec<Source>) =
                found.sources.into_iter().partition(Source::is_gap);
            gaps.extend(not_searched);
            let sources = sources.into_iter().filter(|source| wanted.has(source.user()));
            Ok::<_, Trouble>(sources.map(|source| (source.user().to_owned(), source)).collect())
        };
        let mail = find("--maildir", &args.maildir)?;
        let control = (!args.control.is_empty()).then(|| find("--control", &args.control));
        let control = control.transpose()?;
        Ok(Self { mail, control, gaps, are_all_searched })
    }

    /// The users whose Maildirs were found.
    pub fn users(&self) -> impl Iterator<Item = &String> {
        self.mail.keys()
    }

    pub fn place(&self, user: &str) -> MailPlace<'_> {
        let gap = self.gaps.iter().find(|gap| may_be_of(gap, user));
        let mail = self.mail.get(user);
        let control = self.control.as_ref().map(|control| control.get(user));
        match (mail, control, gap) {
            (None, _, Some(gap)) | (_, Some(None), Some(gap)) => {
                MailPlace::Unknown(gap.fault().unwrap_or_default())
            }
            (None, _, None) => MailPlace::Nowhere,
            (Some(mail), control, _) => MailPlace::Maildir {
                mail,
                control: match control {
                    None => ControlPlace::Beside,
                    Some(Some(control)) => ControlPlace::At(control),
                    Some(None) => ControlPlace::Nowhere,
                },
            },
        }
    }
}

/// Whether the user may live at the place that could not be searched.
fn may_be_of(gap: &Source, user: &str) -> bool {
    let domain = user.rsplit_once('@').map(|(_, domain)| domain);
    gap.user() == everybody_of(None) || gap.user() == everybody_of(domain)
}

/// What Dovecot says of where mail lies.
pub struct AskedPlaces {
    /// It does not load our plugin.
    pub dovecot: Dovecot,
    /// What it has said of many users at once: by directory and user.
    paths: Vec<(InboxPath, BTreeMap<String, PathBuf>)>,
}

/// The users in one question. Where it fails, each is asked for alone.
const USERS_AT_A_TIME: usize = 200;

impl AskedPlaces {
    /// Asks for these directories.
    pub fn of(
        dovecot: &Dovecot,
        users: &[String],
        directories: &[InboxPath],
    ) -> Result<Self, Trouble> {
        let trouble = |error: DovecotError| {
            Trouble::new(format!(
                "{error}; is that the Dovecot of this server (--doveadm, --doveadm-args), and does \
                 it run? Where the store is a Maildir, --maildir does without it"
            ))
        };
        let dovecot = dovecot.without_plugin().map_err(trouble)?;
        let ask = |&directory: &InboxPath| {
            let chunks = users.chunks(USERS_AT_A_TIME);
            let said = chunks.filter_map(|users| dovecot.inbox_paths(users, directory).ok());
            (directory, said.flatten().collect::<BTreeMap<String, PathBuf>>())
        };
        let paths: Vec<_> = directories.iter().map(ask).collect();
        let is_silent = paths.iter().all(|(_, paths)| paths.is_empty());
        if let (true, Some(user)) = (is_silent, users.first()) {
            // It may know none of them. Then it says so.
            dovecot.names(std::slice::from_ref(user)).map_err(trouble)?;
        }
        Ok(Self { dovecot, paths })
    }

    /// The directory of a user, whether it is there or not.
    pub fn path(&self, user: &str, directory: InboxPath) -> Result<PathBuf, DovecotError> {
        let said = self.paths.iter().find(|(asked, _)| *asked == directory);
        match said.and_then(|(_, paths)| paths.get(user)) {
            Some(path) => Ok(path.clone()),
            None => self.dovecot.inbox_path(user, directory),
        }
    }

    /// Where the mail of those lies of whom all was told at once.
    pub fn mailboxes(&self) -> impl Iterator<Item = &PathBuf> {
        let asked = self.paths.iter().filter(|(asked, _)| *asked == InboxPath::Mailbox);
        asked.flat_map(|(_, paths)| paths.values())
    }
}
