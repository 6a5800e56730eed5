//! Where the INBOX of each user lies, and which users and domains a command is about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::dovecot::{Dovecot, InboxPath};
use uidl_keep::maildrop::everybody_of;
use uidl_keep::site::{Scope, Site};

use crate::apart;
use crate::output::{Trouble, remark};
use crate::site_files;

/// Where mail lies, for a server without a Dovecot that runs.
#[derive(clap::Args)]
pub struct InboxArgs {
    /// Where the Maildirs lie, such as '/srv/vmail/{domain}/{local}/Maildir', in place of what
    /// Dovecot says; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    maildir: Vec<Pattern>,
    /// User names by the variables of the pattern [default: {local}@{domain}, or {local}, {user} or
    /// {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE", requires = "maildir")]
    user_template: Option<String>,
}

/// What is known of the place of an INBOX: its control directory, or why it is not known.
pub type InboxPlace = Result<PathBuf, String>;

/// Finds the INBOX of users.
pub enum Inboxes {
    /// By patterns.
    Found { places: BTreeMap<String, PathBuf>, gaps: Vec<Source> },
    /// By Dovecot.
    Dovecot(Dovecot),
}

/// Users in one question: Dovecot opens the mail of each.
pub const USERS_AT_A_TIME: usize = 500;

impl InboxArgs {
    /// Searches the Maildirs, where patterns are given.
    pub fn inboxes(&self, dovecot: Dovecot) -> Result<Inboxes, Trouble> {
        if self.maildir.is_empty() {
            return Ok(Inboxes::Dovecot(dovecot));
        }
        let naming = Naming::new(self.user_template.as_deref())
            .map_err(|error| Trouble::at("--user-template", error))?;
        let found = search::find(&self.maildir, None, &naming, Holds::Directory)
            .map_err(|error| Trouble::at("--maildir", error))?;
        found.losses.iter().for_each(remark);
        let (gaps, sources): (Vec<Source>, Vec<Source>) =
            found.sources.into_iter().partition(Source::is_gap);
        let place = |source: Source| (source.user().to_owned(), source.place().to_owned());
        Ok(Inboxes::Found { places: sources.into_iter().map(place).collect(), gaps })
    }
}

impl Inboxes {
    /// The INBOX of each of these users.
    ///
    /// # Errors
    ///
    /// Dovecot cannot be asked.
    pub fn of(&self, users: &[String]) -> Result<BTreeMap<String, InboxPlace>, String> {
        let inbox = |user: &String| -> InboxPlace {
            let Self::Found { places, gaps } = self else { unreachable!("asked below") };
            let domain = user.rsplit_once('@').map(|(_, domain)| domain);
            let everybody = [everybody_of(None), everybody_of(domain)];
            let gap = gaps.iter().find(|gap| everybody.iter().any(|name| name == gap.user()));
            places.get(user).cloned().ok_or_else(|| {
                let fault = gap.and_then(Source::fault);
                fault.unwrap_or("no Maildir that --maildir finds is this user's").to_owned()
            })
        };
        let dovecot = match self {
            Self::Found { .. } => {
                return Ok(users.iter().map(|user| (user.clone(), inbox(user))).collect());
            }
            Self::Dovecot(dovecot) => dovecot,
        };
        let asked = dovecot.inbox_paths(users, InboxPath::Control);
        let mut paths = asked.map_err(|error| error.to_string())?;
        let found = users.iter().map(|user| {
            let unknown = || "Dovecot does not know the user, or cannot open the mail".to_owned();
            (user.clone(), paths.remove(user).ok_or_else(unknown))
        });
        Ok(found.collect())
    }
}

/// The users and domains that a command names; nobody: all of them.
pub struct SelectedNames {
    names: BTreeSet<String>,
}

impl SelectedNames {
    pub fn of(names: &[String]) -> Self {
        let name = |name: &String| match name.strip_prefix('@') {
            Some(domain) => domain.to_owned(),
            None => name.clone(),
        };
        Self { names: names.iter().map(name).collect() }
    }

    pub fn is_all(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a name on a roster is selected.
    pub fn has(&self, user: &str) -> bool {
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        self.is_all()
            || self.names.contains(user)
            || domain.is_some_and(|domain| self.names.contains(domain))
    }

    fn may_meet(&self, scope: &Scope) -> bool {
        let Scope::Domain(domain) = scope else { return self.has(scope.name()) };
        let is_of = |name: &String| {
            name == domain || name.rsplit_once('@').is_some_and(|(_, of)| of == domain)
        };
        self.is_all() || self.names.iter().any(is_of)
    }

    /// The scopes that are selected, by domain. Users without a domain are those of `""`.
    pub fn scopes(&self, site: &Site) -> Result<BTreeMap<String, Vec<Scope>>, Trouble> {
        let mut by_domain: BTreeMap<String, Vec<Scope>> = BTreeMap::new();
        for scope in site_files::scopes(site)?.into_iter().filter(|scope| self.may_meet(scope)) {
            let domain = match &scope {
                Scope::Domain(domain) => domain.clone(),
                Scope::User(_) => apart::domain_of(&scope)
                    .map_or_else(String::new, |domain| domain.name().to_owned()),
            };
            by_domain.entry(domain).or_default().push(scope);
        }
        Ok(by_domain)
    }

    /// The names that are those of nobody among these.
    pub fn unmet<'a>(&self, users: impl IntoIterator<Item = &'a str>) -> Vec<&String> {
        let mut met = BTreeSet::new();
        for user in users {
            met.insert(user);
            met.extend(user.rsplit_once('@').map(|(_, domain)| domain));
        }
        self.names.iter().filter(|name| !met.contains(name.as_str())).collect()
    }
}
