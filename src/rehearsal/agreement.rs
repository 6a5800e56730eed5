//! Compares what a rehearsal listed with what was captured: [`compare`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::maildrop::Maildrop;
use crate::text::printable;

/// How many UIDLs of each kind are named.
const MOST_NAMED: usize = 5;

/// In what a listing differs from what was captured. Each has UIDLs of messages, in the order of
/// the old listing or of the new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disagreement {
    /// How many messages the last capture had.
    pub captured: usize,
    /// Messages of the last capture that are not listed.
    pub missing: Vec<Box<[u8]>>,
    /// Captured messages that are listed in another order, or behind messages that were not
    /// captured.
    pub misplaced: Vec<Box<[u8]>>,
    /// UIDLs that are listed more often than the old server listed them, each once.
    pub repeated: Vec<Box<[u8]>>,
    /// UIDLs that clients may hold for other messages.
    pub spent: Vec<Box<[u8]>>,
}

impl Disagreement {
    /// Whether there is none: clients find each captured message under its UIDL, in its old place,
    /// and take no new message for an old one.
    pub fn is_none(&self) -> bool {
        let Self { captured: _, missing, misplaced, repeated, spent } = self;
        [missing, misplaced, repeated, spent].iter().all(|uidls| uidls.is_empty())
    }
}

/// One sentence, which names the first few messages of each kind.
impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let captured = self.captured;
        let kinds = [
            (&self.missing, format!("of {captured} captured messages not listed")),
            (&self.misplaced, "captured messages out of their old order".to_owned()),
            (&self.repeated, "UIDLs listed more than once".to_owned()),
            (&self.spent, "UIDLs listed that clients may hold for other messages".to_owned()),
        ];
        let mut separator = "";
        for (uidls, what) in kinds.iter().filter(|(uidls, _)| !uidls.is_empty()) {
            write!(f, "{separator}{} {what} (", uidls.len())?;
            for (at, uidl) in uidls.iter().take(MOST_NAMED).enumerate() {
                write!(f, "{}{}", if at == 0 { "" } else { ", " }, printable(uidl))?;
            }
            f.write_str(if uidls.len() > MOST_NAMED { ", ...)" } else { ")" })?;
            separator = "; ";
        }
        Ok(())
    }
}

/// Compares a listing, by message-number, with what was captured of the maildrop: UIDLs byte for
/// byte, and their order.
///
/// Each message of the last capture must be listed. Messages that only an earlier capture had may
/// be: the old server had lost them meanwhile, and the copy here has not. All of these come first,
/// in the old order. Behind them may be any new messages, whose UIDLs no client holds.
pub fn compare(captured: &Maildrop, listed: &[Box<[u8]>]) -> Disagreement {
    let mut listings: HashMap<&[u8], usize> = HashMap::new();
    for uidl in listed {
        *listings.entry(uidl).or_default() += 1;
    }
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, entry) in captured.entries.iter().enumerate() {
        places.entry(entry.uidl.as_bytes()).or_default().push(at);
    }
    let mut difference = Disagreement::default();

    let mut left = listings.clone();
    for entry in captured.last_entries() {
        difference.captured += 1;
        match left.get_mut(entry.uidl.as_bytes()) {
            Some(left @ 1..) => *left -= 1,
            _ => difference.missing.push(entry.uidl.as_bytes().into()),
        }
    }

    let earlier = captured.entries.iter().flat_map(|entry| &entry.earlier);
    let spent: HashSet<&[u8]> =
        captured.spent.iter().chain(earlier).map(|uidl| uidl.as_bytes()).collect();
    let mut seen = HashSet::new();
    // The place in the old order from which the next captured message may be.
    let mut next = 0;
    let mut is_behind_new = false;
    for uidl in listed {
        let of_uidl = places.get(&**uidl);
        let is_first = seen.insert(&**uidl);
        if is_first && listings[&**uidl] > of_uidl.map_or(1, Vec::len) {
            difference.repeated.push(uidl.clone());
        }
        let Some(of_uidl) = of_uidl else {
            is_behind_new = true;
            if is_first && spent.contains(&**uidl) {
                difference.spent.push(uidl.clone());
            }
            continue;
        };
        let place = of_uidl.get(of_uidl.partition_point(|&place| place < next));
        match place.filter(|_| !is_behind_new) {
            Some(place) => next = place + 1,
            None => difference.misplaced.push(uidl.clone()),
        }
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::{Capture, Entry, State};
    use crate::uidl::Uidl;

    /// A maildrop whose last capture had these messages, but for those behind a `-`, which only an
    /// earlier one had.
    fn captured(uidls: &str) -> Maildrop {
        let mut maildrop = Maildrop::new("alice@example.com", State::Captured);
        let capture = Capture { taken: None, source: String::new(), uidvalidity: None, next: None };
        maildrop.captures = vec![capture.clone(), capture];
        let entry = |word: &str| {
            let name = word.trim_start_matches('-');
            let last_capture = u32::from(name == word);
            Entry { last_capture, ..Entry::new(Uidl::new(name.as_bytes()).unwrap()) }
        };
        maildrop.entries = uidls.split_whitespace().map(entry).collect();
        maildrop
    }

    fn boxed(uidls: &str) -> Vec<Box<[u8]>> {
        uidls.split_whitespace().map(|uidl| uidl.as_bytes().into()).collect()
    }

    #[test]
    fn a_listing_agrees_when_all_is_there_in_its_order_and_new_mail_comes_last() {
        for (old, new) in [
            ("", ""),
            ("", "x y"),
            ("a b c", "a b c"),
            ("a b c", "a b c x y"),
            ("a -b c", "a c"),
            ("a -b c", "a b c x"),
            // The old server repeated a UIDL, and one of these messages is gone.
            ("a b a", "a b a"),
            ("-a b a", "b a"),
            ("a b -a", "a b x"),
        ] {
            let difference = compare(&captured(old), &boxed(new));
            assert!(difference.is_none(), "{old:?} {new:?}: {difference}");
        }
    }

    #[test]
    fn each_kind_of_difference_names_its_messages() {
        let nothing = Vec::new;
        for (old, new, [missing, misplaced, repeated]) in [
            ("a b c", "a c", ["b", "", ""]),
            ("a b c", "", ["a b c", "", ""]),
            ("a b c", "x y z", ["a b c", "", ""]),
            ("a b a", "a b", ["a", "", ""]),
            ("a b c", "a c b", ["", "b", ""]),
            ("a b c", "a x b c", ["", "b c", ""]),
            ("-a b c", "b c a", ["", "a", ""]),
            ("a b", "a b b", ["", "b", "b"]),
            ("a b", "a b x x", ["", "", "x"]),
            ("a A", "a a", ["A", "a", "a"]),
        ] {
            let found = compare(&captured(old), &boxed(new));
            let [missing, misplaced, repeated] = [missing, misplaced, repeated].map(boxed);
            let captured = found.captured;
            let wanted = Disagreement { captured, missing, misplaced, repeated, spent: nothing() };
            assert_eq!(found, wanted, "{old:?} {new:?}");
            assert!(!found.is_none());
        }
    }

    #[test]
    fn a_new_message_must_not_have_a_uidl_that_a_client_may_hold() {
        let mut old = captured("a b");
        old.spent.push(Uidl::new(&b"gone"[..]).unwrap());
        old.entries[0].earlier.push(Uidl::new(&b"was"[..]).unwrap());
        assert_eq!(compare(&old, &boxed("a b gone")).spent, boxed("gone"));
        assert_eq!(compare(&old, &boxed("a b was x")).spent, boxed("was"));
        assert!(compare(&old, &boxed("a b x")).is_none());
    }

    #[test]
    fn a_sentence_names_five_and_counts_all() {
        let found = compare(&captured("a b c d e f g"), &boxed("g f x x"));
        assert_eq!(
            found.to_string(),
            "5 of 7 captured messages not listed (a, b, c, d, e); 1 captured messages out of their \
             old order (f); 1 UIDLs listed more than once (x)"
        );
        let found = compare(&captured("a b c d e f"), &[]);
        assert!(found.to_string().ends_with("(a, b, c, d, e, ...)"), "{found}");
    }
}
