//! Users of Dovecot's whose INBOX is that of a user on a roster, and who are on none themselves.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::doctor::facts::SiteFacts;
use crate::doctor::finding::DoctorFinding;
use crate::doctor::subject::Subject;
use crate::dovecot::{DovecotError, InboxPath};
use crate::site::roster::Gate;

const SECOND_NAMES: &str = "second_names";

/// Looks for them among the users whom Dovecot can list. Without an end to the number of users,
/// among all; else among those who have the name of a migrated one in another domain, as where one
/// domain is the alias of another.
pub fn check(subject: &Subject<'_>, facts: &SiteFacts, found: &mut Vec<DoctorFinding>) {
    let finding = match look(subject, facts) {
        Ok(None) => DoctorFinding::notice(
            SECOND_NAMES,
            "not looked for: the user database lists nobody",
            "whoever reads a migrated maildrop by a name that no roster has, such as that of an \
             alias of its domain, gets new UIDLs",
            "doveadm user NAME, for a name of each alias: home must not be that of a migrated user",
        ),
        Ok(Some(pairs)) => match pairs.first() {
            None => DoctorFinding::fine(
                SECOND_NAMES,
                "nobody reads a migrated maildrop by another \
                name",
            ),
            Some((second, first)) => DoctorFinding::trouble(
                SECOND_NAMES,
                format_args!(
                    "{} users are on no roster and read a migrated maildrop; the first: {second} \
                     reads that of {first}",
                    pairs.len()
                ),
                "until that maildrop was listed by its own name, POP3 gives the second name new \
                 UIDLs; after, it serves it from that ledger or refuses it",
                format_args!(
                    "let the passdb return user={first} for {second}, or hold {first} and \
                    list it by that name before clients come"
                ),
            ),
        },
        Err(error) => DoctorFinding::could_not_tell(SECOND_NAMES, error, "doveadm user '*@*'"),
    };
    found.push(finding);
}

/// Pairs of a second name and the name that is on a roster. `None`: Dovecot lists nobody.
fn look(
    subject: &Subject<'_>,
    facts: &SiteFacts,
) -> Result<Option<Vec<(String, String)>>, DovecotError> {
    let listed = subject.dovecot.users("*")?;
    let Some(listed) = listed else { return Ok(None) };
    let migrated: BTreeSet<&str> = facts.lines().map(|line| line.user.as_str()).collect();
    let local = |user: &str| user.rsplit_once('@').map_or(user, |(local, _)| local).to_owned();
    let strangers: Vec<String> =
        listed.into_iter().filter(|user| !migrated.contains(user.as_str())).collect();
    let is_all = subject.most_users == usize::MAX;
    let strange: BTreeSet<String> = strangers.iter().map(|user| local(user)).collect();
    let ours = facts.lines().filter(|line| line.gate != Gate::Redownload);
    let ours: Vec<String> = ours
        .map(|line| line.user.clone())
        .filter(|user| is_all || strange.contains(&local(user)))
        .take(subject.most_users)
        .collect();
    let names: BTreeSet<String> = ours.iter().map(|user| local(user)).collect();
    let strangers: Vec<String> = strangers
        .into_iter()
        .filter(|user| is_all || names.contains(&local(user)))
        .take(subject.most_users)
        .collect();
    if ours.is_empty() || strangers.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let paths = subject.dovecot.inbox_paths(&ours, InboxPath::Mailbox)?;
    let owners: BTreeMap<PathBuf, String> =
        paths.into_iter().map(|(user, path)| (path, user)).collect();
    let seconds = subject.dovecot.inbox_paths(&strangers, InboxPath::Mailbox)?;
    let pairs =
        seconds.into_iter().filter_map(|(user, path)| Some((user, owners.get(&path)?.clone())));
    Ok(Some(pairs.collect()))
}
