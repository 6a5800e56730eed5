//! User names without their domain: [`shorten`].
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::capture::find::source::Source;
use crate::maildrop::everybody_of;
use crate::text::printable;

/// Takes the domain off every user name that is not another's then. Returns a sentence for each
/// name that several users would have: these keep their full names.
pub fn shorten(sources: &mut Vec<Source>) -> Vec<String> {
    let mut clashes = Vec::new();
    let local = |user: &str| user.rsplit_once('@').map_or(user, |(local, _)| local).to_owned();
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (gaps, named): (Vec<_>, Vec<_>) =
        std::mem::take(sources).into_iter().partition(Source::is_gap);
    for source in &named {
        users.entry(local(source.user())).or_default().push(source.user().to_owned());
    }
    for (short, users) in users.iter().filter(|(_, users)| users.len() > 1) {
        clashes.push(format!(
            "{} may be any of {}: they keep their full names",
            printable(short.as_bytes()),
            printable(users.join(", ").as_bytes())
        ));
    }
    for source in named {
        let short = local(source.user());
        let is_single = users[&short].len() == 1;
        sources.push(if is_single { source.called(short) } else { source });
    }
    // A user who lives there has no domain either, and a name that may be another's.
    if let Some(first) = gaps.first() {
        let faults: Vec<&str> = gaps.iter().filter_map(Source::fault).collect();
        sources.push(Source::missed(everybody_of(None), first.place(), faults.join("; also ")));
    }
    sources.sort_by(|a, b| a.user().cmp(b.user()));
    clashes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_two_domains_have_keeps_them() {
        let users = ["al@a.org", "al@b.org", "bo@b.org"];
        let mut sources: Vec<Source> = users.map(|user| Source::named(user, "/m")).into();
        let clashes = shorten(&mut sources);
        assert_eq!(clashes, ["al may be any of al@a.org, al@b.org: they keep their full names"]);
        let left: Vec<&str> = sources.iter().map(Source::user).collect();
        assert_eq!(left, ["al@a.org", "al@b.org", "bo"]);
        assert_eq!(sources[2].login(), "bo@b.org");
    }

    #[test]
    fn a_place_that_nobody_searched_may_have_anybody_then() {
        let gap =
            |domain: &str| Source::missed(everybody_of(Some(domain)), "/m", domain.to_owned());
        let mut sources = vec![gap("a.org"), gap("b.org"), Source::named("bo@b.org", "/m/bo")];
        assert!(shorten(&mut sources).is_empty());
        let left: Vec<&str> = sources.iter().map(Source::user).collect();
        assert_eq!(left, [everybody_of(None).as_str(), "bo"]);
        assert_eq!(sources[0].fault(), Some("a.org; also b.org"));
        assert!(sources[0].is_gap());
    }
}
