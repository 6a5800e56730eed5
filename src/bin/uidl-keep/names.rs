//! Which users and domains a command is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::roster::is_domain;
use uidl_keep::site::{Scope, Site};

use crate::apart;
use crate::output::Trouble;
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

impl NamesArgs {
    /// The names that the options give, and `more`.
    pub fn selected(&self, more: &[String]) -> Result<SelectedNames, Trouble> {
        let mut names: Vec<String> = self.only.iter().chain(more).cloned().collect();
        if let Some(path) = &self.domains {
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
        Ok(SelectedNames::of(&names))
    }
}

/// The users and domains that a command names; nobody: all of them.
#[derive(Default)]
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

/// The users on the rosters of a site who are selected.
pub fn users_on_rosters(site: &Site, names: &SelectedNames) -> Result<BTreeSet<String>, Trouble> {
    let mut users = BTreeSet::new();
    for scope in site_files::scopes(site)?.iter().filter(|scope| names.may_meet(scope)) {
        let Some(roster) = site_files::read_roster(site, scope)? else {
            return Err(Trouble::at(
                site.paths_of(scope).roster.display(),
                "not there, but its index is: put it back, or build and install both again",
            ));
        };
        let named = roster.lines().map(|line| &line.user);
        let named = named.filter(|user| !is_domain(user) && !is_everybody(user));
        users.extend(named.filter(|user| names.has(user)).cloned());
    }
    Ok(users)
}
