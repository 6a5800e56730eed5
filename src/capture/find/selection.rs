//! The maildrops that are asked for, of those that a search found.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::capture::find::naming::Naming;
use crate::capture::find::search::Search;
use crate::capture::find::source::Source;
use crate::maildrop::everybody_of;
use crate::text::printable;

impl Search {
    /// Keeps the users and domains in `only`, or everybody where there are none, sorted by user. A
    /// user who is renamed or asked for and may live at a place that could not be searched has a
    /// maildrop that says so; one whom nothing explains is a loss.
    #[must_use]
    pub fn select(self, naming: &Naming, only: &[String]) -> Self {
        let Self { mut sources, mut losses } = self;
        let users: HashSet<&str> = sources.iter().map(Source::user).collect();
        let mut missed = Vec::new();
        for (old, new) in naming.renames().into_iter().filter(|(_, new)| !users.contains(new)) {
            if let Some(gap) = gap_of(&sources, old) {
                missed.push(Source::missed(new, gap.place(), fault_of(gap)));
                continue;
            }
            let (old, new) = (printable(old.as_bytes()), printable(new.as_bytes()));
            losses.push(format!("--rename: no maildrop of {old}, to be called {new}"));
        }
        let user_of = |source: &Source| source.user().to_owned();
        sources.extend(missed);
        sources.sort_by_key(user_of);
        if !only.is_empty() {
            let gaps: Vec<Source> =
                sources.iter().filter(|source| source.is_gap()).cloned().collect();
            let names: HashSet<&str> = only.iter().map(String::as_str).collect();
            let mut met = HashSet::new();
            sources.retain(|source| {
                let domain = source.user().rsplit_once('@').map(|(_, domain)| domain);
                let by = names.get(source.user()).or_else(|| names.get(domain?));
                by.is_some_and(|by| {
                    met.insert(*by);
                    true
                })
            });
            for name in only.iter().filter(|name| !met.contains(name.as_str())) {
                // A domain of which nothing at all was found, or a user.
                let everybody = everybody_of(Some(name));
                let whole = gaps.iter().find(|gap| gap.user() == everybody_of(None));
                match (name.contains('@'), gap_of(&gaps, name), whole) {
                    (true, Some(gap), _) => {
                        sources.push(Source::missed(name, gap.place(), fault_of(gap)));
                    }
                    (false, _, Some(gap)) => {
                        sources.push(Source::missed(everybody, gap.place(), fault_of(gap)));
                    }
                    _ => {
                        let name = printable(name.as_bytes());
                        losses.push(format!("--only {name}: no such maildrop"));
                    }
                }
            }
            // Some of a domain that is asked for may lie there, too.
            let asks_for_domains = only.iter().any(|name| !name.contains('@'));
            let is_known = sources.iter().any(|source| source.user() == everybody_of(None));
            if asks_for_domains && !is_known {
                sources.extend(gaps.into_iter().filter(|gap| gap.user() == everybody_of(None)));
            }
            sources.sort_by_key(user_of);
        }
        Self { sources, losses }
    }
}

/// The place that could not be searched in which a user may live.
fn gap_of<'a>(sources: &'a [Source], user: &str) -> Option<&'a Source> {
    let domain = user.rsplit_once('@').map(|(_, domain)| domain);
    let names = [domain.map(|domain| everybody_of(Some(domain))), Some(everybody_of(None))];
    let mut gaps = sources.iter().filter(|source| source.is_gap());
    gaps.find(|gap| names.iter().flatten().any(|name| name == gap.user()))
}

fn fault_of(gap: &Source) -> String {
    gap.fault().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(users: &[&str], renames: &str, only: &[&str]) -> (Vec<String>, Vec<String>) {
        let source = |user: &&str| match user.strip_suffix('*') {
            Some(domain) => {
                let domain = Some(domain.trim_end_matches('@')).filter(|it| !it.is_empty());
                Source::missed(everybody_of(domain), "/m", "not searched".to_owned())
            }
            None => Source::named(*user, "/m"),
        };
        let found = Search { sources: users.iter().map(source).collect(), losses: Vec::new() };
        let mut naming = Naming::default();
        naming.read_renames(renames).unwrap();
        let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
        let Search { sources, losses } = found.select(&naming, &only);
        let shown = |source: &Source| match source.fault() {
            Some(fault) => format!("{}: {fault}", source.user()),
            None => source.user().to_owned(),
        };
        (sources.iter().map(shown).collect(), losses)
    }

    #[test]
    fn users_and_domains_are_kept_and_the_others_are_not() {
        let all = ["al@a.org", "bo@a.org", "bo@b.org"];
        assert_eq!(selected(&all, "", &[]).0, all);
        assert_eq!(selected(&all, "", &["bo@b.org", "a.org"]).0, all);
        assert_eq!(selected(&all, "", &["b.org"]).0, ["bo@b.org"]);
        let (kept, lost) = selected(&all, "", &["al@a.org", "x@a.org", "c.org"]);
        assert_eq!(kept, ["al@a.org"]);
        assert_eq!(lost, ["--only x@a.org: no such maildrop", "--only c.org: no such maildrop"]);
    }

    #[test]
    fn who_may_live_where_nobody_could_look_is_there_with_the_reason() {
        let found = ["a.org*", "bo@b.org"];
        let (kept, lost) = selected(&found, "al@a.org al\n", &[]);
        assert!(kept.contains(&"al: not searched".to_owned()), "{kept:?}");
        assert_eq!(lost, [""; 0]);
        let (_, lost) = selected(&found, "x@b.org x\n", &[]);
        assert_eq!(lost, ["--rename: no maildrop of x@b.org, to be called x"]);
        assert_eq!(selected(&found, "", &["al@a.org"]).0, ["al@a.org: not searched"]);
        // Where nothing is known of a place, a whole domain may lie there.
        let found = ["*", "bo@b.org"];
        let everybody = |domain| format!("{}: not searched", everybody_of(domain));
        let (kept, lost) = selected(&found, "", &["c.org", "bo@b.org"]);
        assert_eq!(lost, [""; 0]);
        for user in [everybody(None), everybody(Some("c.org")), "bo@b.org".to_owned()] {
            assert!(kept.contains(&user), "{user}: {kept:?}");
        }
        assert_eq!(selected(&found, "", &["bo@b.org"]).0, ["bo@b.org"]);
    }
}
