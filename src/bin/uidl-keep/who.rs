//! The maildrops that a command of the new server looks at: whose, and where they lie.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::maildrop::{everybody_of, is_everybody};
use uidl_keep::site::roster::is_domain;
use uidl_keep::site::{Scope, Site};

use crate::output::{Trouble, remark};
use crate::site_files;

/// Whose maildrops are looked at.
#[derive(clap::Args)]
pub struct MaildropsArgs {
    /// User names by the variables of the pattern [default: {local}@{domain}, or {local}, {user} or
    /// {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE")]
    pub user_template: Option<String>,
    /// Only this user or domain; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN")]
    pub only: Vec<String>,
    /// Only the users and domains in this file, one a line.
    #[arg(long, value_name = "FILE")]
    pub domains: Option<PathBuf>,
}

/// The users and domains that are asked for.
pub struct Wanted {
    /// `None`: everybody.
    names: Option<BTreeSet<String>>,
}

impl Wanted {
    pub fn of(args: &MaildropsArgs) -> Result<Self, Trouble> {
        let mut names: BTreeSet<String> = args.only.iter().cloned().collect();
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
pub struct Places {
    /// The maildrops by user.
    pub sources: BTreeMap<String, Source>,
    /// The places that could not be searched.
    pub gaps: Vec<Source>,
    /// Whether each pattern had a directory to search, and each maildrop a user.
    pub are_all_searched: bool,
}

/// Searches for what is asked for by patterns, which `option` named.
pub fn find_maildrops(
    patterns: &[Pattern],
    option: &str,
    args: &MaildropsArgs,
    wanted: &Wanted,
) -> Result<Places, Trouble> {
    let naming = Naming::new(args.user_template.as_deref())
        .map_err(|error| Trouble::at("--user-template", error))?;
    let found = search::find(patterns, None, &naming, Holds::Directory)
        .map_err(|error| Trouble::at(option, error))?;
    found.losses.iter().for_each(remark);
    let are_all_searched = found.losses.is_empty();
    let (gaps, sources): (Vec<Source>, Vec<Source>) =
        found.sources.into_iter().partition(Source::is_gap);
    let sources = sources.into_iter().filter(|source| wanted.has(source.user()));
    let sources = sources.map(|source| (source.user().to_owned(), source)).collect();
    Ok(Places { sources, gaps, are_all_searched })
}

/// Whether the user may live at the place that could not be searched.
pub fn may_be_of(gap: &Source, user: &str) -> bool {
    let domain = user.rsplit_once('@').map(|(_, domain)| domain);
    gap.user() == everybody_of(None) || gap.user() == everybody_of(domain)
}
