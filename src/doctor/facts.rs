//! What the site itself says, read as root: [`SiteFacts`].
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::doctor::finding::DoctorFinding;
use crate::doctor::subject::Subject;
use crate::file::map::Mapped;
use crate::index::Index;
use crate::maildrop::{State, is_everybody};
use crate::site::remedy::Remedy;
use crate::site::roster::{Gate, Roster, RosterLine, is_domain};
use crate::site::{OpenError, Scope, Site, open_trusted};

const SITE: &str = "site";

/// A site, as far as it can be read.
#[derive(Debug, Default)]
pub struct SiteFacts {
    /// Domains that have a roster, and users who have one of their own without a domain.
    pub domains: usize,
    /// Everybody who is on a roster and named there, scope by scope.
    pub users: Vec<Vec<RosterLine>>,
    /// How many messages were captured.
    pub entries: u64,
    /// The maildrop of which most messages were captured, and how many.
    pub largest: Option<(String, usize)>,
    /// The first maildrop in which the old server repeated UIDLs, and how many it repeated.
    pub repeated: Option<(String, usize)>,
    /// The capture that was taken last: when, in seconds since 1970, and whose.
    pub newest: Option<(u64, String)>,
}

impl SiteFacts {
    /// How many users are on the rosters.
    pub fn migrated(&self) -> usize {
        self.users.iter().map(Vec::len).sum()
    }

    /// Everybody on the rosters.
    pub fn lines(&self) -> impl Iterator<Item = &RosterLine> {
        self.users.iter().flatten()
    }

    /// Users to look at one by one, at most so many: somebody of as many scopes as possible, and
    /// whose maildrop is the largest. Whoever downloads again is none of them.
    pub fn sample(&self, most: usize) -> Vec<&RosterLine> {
        let is_ours = |line: &&RosterLine| line.gate != Gate::Redownload;
        let scopes: Vec<Vec<&RosterLine>> =
            self.users.iter().map(|scope| scope.iter().filter(is_ours).collect()).collect();
        let scopes: Vec<_> = scopes.into_iter().filter(|scope| !scope.is_empty()).collect();
        let all: usize = scopes.iter().map(Vec::len).sum();
        if all <= most {
            return scopes.into_iter().flatten().collect();
        }
        let mut sample = Vec::new();
        let largest = self.largest.as_ref().map(|(user, _)| user);
        sample.extend(self.lines().filter(is_ours).find(|line| Some(&line.user) == largest));
        // One of each scope, spread over all scopes, then a second one of each.
        let stride = scopes.len().div_ceil(most.max(1));
        let longest = scopes.iter().map(Vec::len).max().unwrap_or(0);
        for place in 0..longest {
            for line in scopes.iter().step_by(stride).filter_map(|scope| scope.get(place)) {
                if sample.len() >= most {
                    return sample;
                }
                if !sample.iter().any(|known| known.user == line.user) {
                    sample.push(line);
                }
            }
        }
        sample
    }
}

/// Reads the site. `is_whole`: the indexes, too, from end to end. A site that is not there is no
/// trouble as long as POP3 does not load the plugin.
pub fn read(
    subject: &Subject<'_>,
    loads: Option<bool>,
    is_whole: bool,
    found: &mut Vec<DoctorFinding>,
) -> SiteFacts {
    let mut facts = SiteFacts::default();
    let dir = subject.site.dir();
    if let Err(error) = fs::metadata(dir) {
        let what = format!("{}: {error}", dir.display());
        let why = "with the plugin loaded POP3 refuses everybody: nobody can be told from a \
                   migrated user";
        let run = "mount it, or make it: uidl-keep build --install LISTING";
        found.push(match error.kind() {
            io::ErrorKind::NotFound if loads == Some(false) => {
                DoctorFinding::notice(SITE, what, why, run)
            }
            io::ErrorKind::NotFound => DoctorFinding::trouble(SITE, what, why, run),
            _ => DoctorFinding::could_not_tell(SITE, what, run),
        });
        return facts;
    }
    check_modes(subject, found);
    let scopes = match scopes(subject) {
        Ok(scopes) => scopes,
        Err(why) => {
            found.push(DoctorFinding::could_not_tell(SITE, why, "uidl-keep check SITE"));
            return facts;
        }
    };
    let (mut failed, mut others) = (Vec::new(), Vec::new());
    for scope in &scopes {
        let read = read_scope(subject, scope, is_whole, &mut facts, &mut failed, &mut others);
        if let Err(why) = read {
            let paths = subject.site.paths_of(scope);
            let dir = paths.roster.parent().unwrap_or(dir).display().to_string();
            let what = format!("{dir}: {why}");
            let is_ours = !what.contains("Permission denied");
            found.push(match is_ours || rustix::process::geteuid().is_root() {
                true => {
                    let why = "POP3 refuses all users of it";
                    DoctorFinding::trouble(SITE, what, why, "uidl-keep check SITE")
                }
                false => DoctorFinding::could_not_tell(SITE, what, "run doctor as root"),
            });
        }
    }
    if let Some(first) = failed.first() {
        found.push(DoctorFinding::notice(
            SITE,
            format_args!("the capture of {} maildrops failed; the first: {first}", failed.len()),
            "POP3 refuses them until they are captured, or given up",
            format_args!("uidl-keep status; uidl-keep release --redownload {first}"),
        ));
    }
    if let Some(first) = others.first() {
        found.push(DoctorFinding::notice(
            SITE,
            format_args!("{} accounts wrote lines of others; the first: {first}", others.len()),
            "these count for nothing, and somebody has tried",
            "uidl-keep check SITE; then build and install it again",
        ));
    }
    let (domains, users) = (facts.domains, facts.migrated());
    let what = format!("{}: {domains} domains, {users} users", dir.display());
    found.push(DoctorFinding::fine(SITE, what));
    facts
}

/// Others who may write the directories could put files of their own into them.
fn check_modes(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) {
    for name in ["", "domain", "user"] {
        let dir = subject.site.dir().join(name);
        let Ok(metadata) = fs::metadata(&dir) else { continue };
        let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if uid == 0 && mode & 0o022 == 0 {
            continue;
        }
        found.push(DoctorFinding::notice(
            SITE,
            format_args!("{} is of uid {uid}, mode {mode:04o}", dir.display()),
            "others than root could take a roster away, so that its users are refused",
            format_args!("chown root: {dir}; chmod go-w {dir}", dir = dir.display()),
        ));
    }
}

fn scopes(subject: &Subject<'_>) -> Result<Vec<Scope>, String> {
    let mut scopes = Vec::new();
    let kinds = [("domain", Scope::Domain as fn(String) -> Scope), ("user", Scope::User)];
    for (name, scope) in kinds {
        let dir = subject.site.dir().join(name);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{}: {error}", dir.display())),
        };
        for entry in entries {
            let name = entry.map_err(|error| format!("{}: {error}", dir.display()))?.file_name();
            let name = name.to_string_lossy().into_owned();
            let stem = name.strip_suffix(".roster").or_else(|| name.strip_suffix(".idx"));
            if let Some(stem) = stem.filter(|stem| !stem.starts_with('.')) {
                scopes.push(scope(stem.to_owned()));
            }
        }
    }
    scopes.sort();
    scopes.dedup();
    Ok(scopes)
}

/// # Errors
///
/// A sentence that names file, fact and next step.
fn read_scope(
    subject: &Subject<'_>,
    scope: &Scope,
    is_whole: bool,
    facts: &mut SiteFacts,
    failed: &mut Vec<String>,
    others: &mut Vec<String>,
) -> Result<(), String> {
    let paths = subject.site.paths_of(scope);
    let name = |path: &std::path::Path| {
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let fault =
        |path, why: &dyn Remedy| -> String { format!("{}: {why}; {}", name(path), why.remedy()) };
    let given_to = subject.site.given_to(scope);
    let most = if given_to.is_some() { Site::MOST_GIVEN_OCTETS } else { u64::MAX };
    let roster = open_trusted(&paths.roster, most)
        .map_err(|error| fault(&paths.roster, &error))?
        .ok_or_else(|| {
        fault(&paths.roster, &OpenError::NoRoster { index: paths.index.clone() })
    })?;
    let mut roster = Roster::read(&roster).map_err(|error| fault(&paths.roster, &error))?;
    if let Some(uid) = given_to {
        let named = subject.site.take_others_out(scope, &mut roster);
        let named = named.map_err(|error| fault(&paths.roster, &error))?;
        let first = named.first().map(|user| format!("uid {uid}: {user}"));
        others.extend(first);
    }
    let is_user = |line: &&RosterLine| !is_domain(&line.user) && !is_everybody(&line.user);
    let lines: Vec<RosterLine> = roster.lines().filter(is_user).cloned().collect();
    let is_failed =
        |line: &&RosterLine| line.state == State::Failed && line.gate != Gate::Redownload;
    failed.extend(lines.iter().filter(is_failed).map(|line| line.user.clone()));
    facts.domains += usize::from(matches!(scope, Scope::Domain(_)));
    facts.users.push(lines);

    let index = open_trusted(&paths.index, u64::MAX)
        .map_err(|error| fault(&paths.index, &error))?
        .ok_or_else(|| fault(&paths.index, &"not there, but its roster is"))?;
    let mapped = Mapped::new(index).map_err(|error| fault(&paths.index, &error))?;
    let index = Index::open(mapped).map_err(|error| fault(&paths.index, &error))?;
    if !is_whole {
        return Ok(());
    }
    facts.entries += index.entry_count();
    for captured in index.maildrops() {
        let captured = captured.map_err(|error| fault(&paths.index, &error))?;
        let count = captured.entries.len();
        if facts.largest.as_ref().is_none_or(|(_, most)| count > *most) {
            facts.largest = Some((captured.user.clone(), count));
        }
        let repeated = captured.repeated_uidls().len();
        if repeated > 0 && facts.repeated.is_none() {
            facts.repeated = Some((captured.user.clone(), repeated));
        }
        let taken = captured.captures.iter().filter_map(|capture| capture.taken).max();
        if let Some(taken) = taken {
            if facts.newest.as_ref().is_none_or(|(newest, _)| taken > *newest) {
                facts.newest = Some((taken, captured.user.clone()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_largest_and_somebody_of_each_scope_and_nobody_twice() {
        let line = |user: String| RosterLine::new(user, State::Captured, Gate::Guarded);
        let scope = |name: usize, users: usize| -> Vec<RosterLine> {
            (0..users).map(|user| line(format!("u{user}@d{name}"))).collect()
        };
        let mut facts = SiteFacts {
            users: (0..10).map(|name| scope(name, 5)).collect(),
            largest: Some(("u4@d7".to_owned(), 9)),
            ..SiteFacts::default()
        };
        facts.users[3][0] = line("u0@d3".to_owned()).with_gate(Gate::Redownload, false);
        let names = |most: usize| -> Vec<String> {
            facts.sample(most).into_iter().map(|line| line.user.clone()).collect()
        };
        let few = names(11);
        assert_eq!(few[0], "u4@d7");
        let domains: std::collections::BTreeSet<&str> =
            few[1..].iter().map(|user| user.split_once('@').unwrap().1).collect();
        assert_eq!((few.len(), domains.len()), (11, 10), "{few:?}");
        assert!(!few.contains(&"u0@d3".to_owned()));
        assert_eq!(names(3).len(), 3);
        let mut all = names(1000);
        assert_eq!(all.len(), 49);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 49);
    }
}
