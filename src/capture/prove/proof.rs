//! Whether a capture says what the old server itself tells its clients: [`check`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::maildrop::{Entry, Maildrop, Name};
use crate::text::printable;
use crate::uidl::Uidl;

/// Where a capture and the server's own listing part.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The listing has something else in this place, in no try the same.
    Listing {
        /// The place, from 1.
        place: usize,
        /// The UIDL that was captured there; `None` behind the last message.
        captured: Option<Uidl>,
        /// The UIDL that the server lists there; `None` behind the last message.
        listed: Option<Box<[u8]>>,
    },
    /// A message had another UIDL after the listing than before it.
    Changed {
        /// The place in the capture before, from 1.
        place: usize,
        /// The UIDL that was captured before.
        before: Uidl,
        /// The UIDL that was captured after.
        after: Uidl,
    },
    /// Two messages had changed places after the listing.
    Moved {
        /// The place in the capture before, from 1, of the first that has moved.
        place: usize,
        /// Its UIDL.
        uidl: Uidl,
        /// The UIDL that is in its place after.
        after: Uidl,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |uidl: Option<&[u8]>| uidl.map_or("nothing".to_owned(), printable);
        match self {
            Self::Listing { place, captured, listed } => write!(
                f,
                "message {place}: captured is {}, and the old server lists {}",
                shown(captured.as_ref().map(Uidl::as_bytes)),
                shown(listed.as_deref())
            ),
            Self::Changed { place, before, after } => write!(
                f,
                "message {place}: captured was {}, and {} after the old server had listed it",
                printable(before.as_bytes()),
                printable(after.as_bytes())
            ),
            Self::Moved { place, uidl, after } => write!(
                f,
                "message {place}: captured was {}, and {} is in its place after the old server had \
                 listed them",
                printable(uidl.as_bytes()),
                printable(after.as_bytes())
            ),
        }
    }
}

/// The result of one comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Same,
    /// Not the same; mail that came or went meanwhile may be why, and then another try tells.
    Unlike(Difference),
    /// Not the same, and no mail that came or went explains it.
    Wrong(Difference),
}

/// Compares what was captured right before and right after the server listed its UIDLs, in order,
/// with that listing.
///
/// The listing has to be one of the two captures, octet for octet: mail may come and go in between.
/// No message that both captures have may have become known by another UIDL.
pub fn check(before: &Maildrop, listed: &[Box<[u8]>], after: &Maildrop) -> Comparison {
    if let Some(difference) = changed(before, after) {
        return Comparison::Wrong(difference);
    }
    let is_listed = |captured: &Maildrop| {
        captured.entries.len() == listed.len()
            && captured
                .entries
                .iter()
                .zip(listed)
                .all(|(entry, uidl)| entry.uidl.as_bytes() == &**uidl)
    };
    if is_listed(after) || is_listed(before) {
        return Comparison::Same;
    }
    let captured = || after.entries.iter().map(|entry| &entry.uidl);
    let unlike = captured().zip(listed).take_while(|(a, b)| a.as_bytes() == &***b).count();
    Comparison::Unlike(Difference::Listing {
        place: unlike + 1,
        captured: captured().nth(unlike).cloned(),
        listed: listed.get(unlike).cloned(),
    })
}

/// The mark by which a message is the same in two captures of a maildrop, a moment apart.
#[derive(PartialEq, Eq, Hash)]
enum Same<'a> {
    File(&'a Name),
    Uid(u32),
    Print(&'a crate::key::Fingerprint),
}

fn identity(entry: &Entry) -> Option<Same<'_>> {
    let file = entry.file.as_ref().map(Same::File);
    let print = entry.message.as_ref().or(entry.header.as_ref()).map(Same::Print);
    file.or(entry.uid.map(Same::Uid)).or(print)
}

/// The place of each message that can be told from all others.
fn places(maildrop: &Maildrop) -> HashMap<Same<'_>, usize> {
    let mut places = HashMap::new();
    let mut twice = HashSet::new();
    for (at, entry) in maildrop.entries.iter().enumerate() {
        let Some(same) = identity(entry) else { continue };
        if let Some(first) = places.insert(same, at) {
            twice.extend([first, at]);
        }
    }
    places.retain(|_, at| !twice.contains(at));
    places
}

fn changed(before: &Maildrop, after: &Maildrop) -> Option<Difference> {
    let places = places(after);
    let mut last = None;
    let once = self::places(before);
    for (at, entry) in before.entries.iter().enumerate() {
        let Some(same) = identity(entry).filter(|same| once.contains_key(same)) else { continue };
        let Some(&now) = places.get(&same) else { continue };
        let place = at + 1;
        let uidl = entry.uidl.clone();
        if after.entries[now].uidl != uidl {
            let after = after.entries[now].uidl.clone();
            return Some(Difference::Changed { place, before: uidl, after });
        }
        if let Some(last) = last.filter(|&last| now < last) {
            let after: &Entry = &after.entries[last];
            return Some(Difference::Moved { place, uidl, after: after.uidl.clone() });
        }
        last = Some(now);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::State;

    /// Messages as "file UIDL".
    fn maildrop(messages: &[&str]) -> Maildrop {
        let entry = |text: &&str| {
            let (file, uidl) = text.split_once(' ').unwrap();
            Entry {
                file: Some(Name::Spelled(file.as_bytes().into())),
                ..Entry::new(Uidl::new(uidl.as_bytes().to_vec()).unwrap())
            }
        };
        Maildrop {
            user: "al".into(),
            state: State::Captured,
            captures: Vec::new(),
            source: String::new(),
            uidvalidity: None,
            counter: None,
            entries: messages.iter().map(entry).collect(),
            spent: Vec::new(),
            remarks: Vec::new(),
        }
    }

    fn compared(before: &[&str], listed: &[&str], after: &[&str]) -> Comparison {
        let listed: Vec<Box<[u8]>> = listed.iter().map(|uidl| uidl.as_bytes().into()).collect();
        check(&maildrop(before), &listed, &maildrop(after))
    }

    fn unlike(outcome: Comparison) -> String {
        let Comparison::Unlike(difference) = outcome else { panic!("{outcome:?}") };
        difference.to_string()
    }

    fn wrong(outcome: Comparison) -> String {
        let Comparison::Wrong(difference) = outcome else { panic!("{outcome:?}") };
        difference.to_string()
    }

    #[test]
    fn mail_that_comes_or_goes_meanwhile_is_no_difference() {
        assert_eq!(compared(&["a 1", "b 2"], &["1", "2"], &["a 1", "b 2"]), Comparison::Same);
        assert_eq!(compared(&["a 1"], &["1", "2"], &["a 1", "b 2"]), Comparison::Same);
        assert_eq!(compared(&["a 1", "b 2"], &["1", "2"], &["b 2", "c 3"]), Comparison::Same);
        assert_eq!(compared(&["a 1", "b 2"], &["2"], &["b 2"]), Comparison::Same);
        assert_eq!(compared(&[], &[], &[]), Comparison::Same);
    }

    #[test]
    fn the_first_place_that_differs_is_named_with_both_uidls() {
        let both = ["a 1", "b 2"];
        assert_eq!(
            unlike(compared(&both, &["1", "x"], &both)),
            "message 2: captured is 2, and the old server lists x"
        );
        assert_eq!(
            unlike(compared(&both, &["1"], &both)),
            "message 2: captured is 2, and the old server lists nothing"
        );
        assert_eq!(
            unlike(compared(&both, &["1", "2", "3"], &both)),
            "message 3: captured is nothing, and the old server lists 3"
        );
        assert_eq!(
            unlike(compared(&both, &["2", "1"], &both)),
            "message 1: captured is 1, and the old server lists 2"
        );
    }

    #[test]
    fn a_message_that_changes_its_uidl_or_place_is_wrong_whatever_is_listed() {
        assert_eq!(
            wrong(compared(&["z 0", "a 1"], &["2"], &["a 2"])),
            "message 2: captured was 1, and 2 after the old server had listed it"
        );
        assert_eq!(
            wrong(compared(&["a 1", "b 2"], &["2", "1"], &["b 2", "a 1"])),
            "message 2: captured was 2, and 1 is in its place after the old server had listed them"
        );
        // Messages that cannot be told apart are told by the listing alone.
        assert_eq!(compared(&["a 1", "a 2"], &["2", "1"], &["a 2", "a 1"]), Comparison::Same);
    }
}
