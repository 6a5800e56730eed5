//! Users of a domain who have files of their own, because the whole domain shares no group.

use std::collections::{BTreeMap, BTreeSet};

use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::roster::{Roster, is_domain, name_of_domain};
use uidl_keep::site::{Scope, Site};

use crate::accounts::Doveadm;
use crate::output::Trouble;
use crate::site_files;

/// Finds which of these users of a domain have files of their own, or get them now.
///
/// A user who is already in one of the sites stays in the same scope. Every other user gets files
/// of his own in two cases. First, Dovecot is asked, and gives several groups to these users and
/// those on the domain's roster. Second, others of the domain have files of their own, and its
/// roster names nobody.
///
/// Each site comes with the scopes of users who have files of their own there, by domain.
pub fn who(
    domain: &Scope,
    users: &[&str],
    sites: &[(&Site, BTreeMap<String, Vec<Scope>>)],
    doveadm: Option<&Doveadm>,
) -> Result<BTreeSet<String>, Trouble> {
    let mut together = BTreeSet::new();
    for (site, _) in sites {
        let roster = site_files::read_lines_of(site, domain, users.iter().copied())?;
        let lines = roster.iter().flat_map(|roster| roster.lines());
        together.extend(lines.map(|line| line.user.clone()));
    }
    let (mut apart, mut new) = (BTreeSet::new(), Vec::new());
    for user in users.iter().filter(|user| is_user(user) && !together.contains(**user)) {
        let Some(own) = Scope::own(user) else { continue };
        let mut has_files = false;
        for (site, apart) in sites {
            let of_domain = apart.get(domain.name());
            if of_domain.is_some_and(|scopes| scopes.binary_search(&own).is_ok()) {
                let there = site_files::open_scope(site, &own)?;
                has_files |= there.index.is_some() || there.roster.is_some();
            }
        }
        if has_files {
            apart.insert((*user).to_owned());
        } else {
            new.push((*user).to_owned());
        }
    }
    if let (Some(doveadm), false) = (doveadm, new.is_empty()) {
        for (site, _) in sites {
            let roster = site_files::read_roster(site, domain)?;
            let lines = roster.iter().flat_map(|roster| roster.lines());
            together.extend(lines.map(|line| line.user.clone()));
        }
        let asked: Vec<String> = together.into_iter().filter(|user| is_user(user)).collect();
        // A user cannot join the others of the domain when its roster has none.
        let mut is_apart = asked.is_empty() && !apart.is_empty();
        let others_are_apart = sites.iter().any(|(_, apart)| apart.contains_key(domain.name()));
        is_apart |= asked.is_empty() && others_are_apart;
        let asked: Vec<String> = asked.into_iter().chain(new.iter().cloned()).collect();
        if is_apart || doveadm.gives_several_groups(&asked)? {
            apart.extend(new);
        }
    }
    Ok(apart)
}

/// Whether a name is a user's, and not the name of a domain or of users who were missed in it.
fn is_user(name: &str) -> bool {
    !is_everybody(name) && !is_domain(name)
}

/// Whether a roster speaks of its domain alone and names no user.
pub fn names_nobody(roster: &Roster) -> bool {
    !roster.lines().any(|line| is_user(&line.user))
}

/// The domain of a user who has files of his own; `None` for any other scope.
pub fn domain_of(scope: &Scope) -> Option<Scope> {
    match scope {
        Scope::User(user) => Some(Scope::Domain(user.rsplit_once('@')?.1.to_owned())),
        Scope::Domain(_) => None,
    }
}

/// Finds which of these domains are held in one of the sites.
pub fn held(domains: &BTreeSet<Scope>, sites: &[&Site]) -> Result<BTreeSet<Scope>, Trouble> {
    let mut held = BTreeSet::new();
    for domain in domains {
        for site in sites {
            let roster = site_files::read_roster(site, domain)?;
            if roster.is_some_and(|roster| roster.get(&name_of_domain(domain.name())).is_some()) {
                held.insert(domain.clone());
            }
        }
    }
    Ok(held)
}

/// The domains in which somebody has files of his own, among these scopes or in one of the sites.
pub fn domains(scopes: &BTreeSet<Scope>, sites: &[&Site]) -> Result<BTreeSet<Scope>, Trouble> {
    let mut domains: BTreeSet<Scope> = scopes.iter().filter_map(domain_of).collect();
    for site in sites {
        domains.extend(by_domain(site)?.into_keys().map(Scope::Domain));
    }
    Ok(domains)
}

/// The scopes of users who have files of their own, by domain, in order.
pub fn by_domain(site: &Site) -> Result<BTreeMap<String, Vec<Scope>>, Trouble> {
    let mut found: BTreeMap<String, Vec<Scope>> = BTreeMap::new();
    if !["domain", "user"].iter().all(|directory| site.dir().join(directory).is_dir()) {
        return Ok(found);
    }
    for scope in site_files::scopes(site)? {
        if let (Scope::User(_), Some((_, domain))) = (&scope, scope.name().rsplit_once('@')) {
            found.entry(domain.to_owned()).or_default().push(scope);
        }
    }
    Ok(found)
}
