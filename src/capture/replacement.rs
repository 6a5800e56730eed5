//! Whether a new listing may take the place of an older one: [`what_is_lost`].
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::BufRead;

use crate::listing;
use crate::maildrop::{State, everybody_of, few_of};
use crate::text::printable;

/// Whom a capture was asked for. It decides who may be missing from the new listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Everybody that it finds: maildrops may have been deleted since.
    Everybody,
    /// Some of the maildrops: the others are still there.
    Some,
    /// The users in a list, from which others were taken off.
    Listed,
}

/// The part of a block that another listing may lose.
struct ListedState {
    state: State,
    /// Which capture it is of.
    kind: String,
}

/// Says which maildrops of the old listing the new one lacks; `None` when the new one may take its
/// place.
pub fn what_is_lost(old: impl BufRead, new: impl BufRead, asked: Asked) -> Option<String> {
    let (old, new) = (heads_of(old), heads_of(new));
    let (mut failed, mut missing, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for (user, said) in old.iter().filter(|(_, said)| said.state != State::Failed) {
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        let is_in_gap = || new.contains_key(&everybody_of(domain));
        match new.get(user) {
            Some(now) if now.state == State::Failed => failed.push(user),
            // It is perhaps a capture of the wrong server, which has never opened the maildrop.
            Some(now) if now.state == State::Empty && said.state == State::Captured => {
                if now.kind != said.kind {
                    other.push(user);
                }
            }
            Some(_) => {}
            None if is_in_gap() => failed.push(user),
            None => missing.push(user),
        }
    }
    let may_miss = match asked {
        Asked::Everybody => few_of(old.len()),
        Asked::Some => 0,
        Asked::Listed => usize::MAX,
    };
    if missing.len() <= may_miss {
        missing.clear();
    }
    let mut lost = Vec::new();
    for (mut users, what) in [
        (failed, "failed now"),
        (other, "empty to this server"),
        (missing, "not in the new listing"),
    ] {
        users.sort();
        if let Some(first) = users.first() {
            let (count, first) = (users.len(), printable(first.as_bytes()));
            lost.push(format!("{count} {what} (the first: {first})"));
        }
    }
    let captured = old.values().filter(|said| said.state != State::Failed).count();
    (!lost.is_empty()).then(|| {
        format!("of {captured} maildrops that it has, these would be lost: {}", lost.join(", "))
    })
}

/// The maildrops of a listing, up to where it is none.
fn heads_of(listing: impl BufRead) -> HashMap<String, ListedState> {
    let blocks = listing::scan(listing).with_heads();
    let blocks = blocks.map_while(Result::ok).map(|(block, head)| {
        let kind = head.source.split(' ').next().unwrap_or_default().to_owned();
        (block.user, ListedState { state: head.state, kind })
    });
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::block::ReadyBlock;
    use crate::capture::draft::{Captured, Draft};
    use crate::maildrop::{Entry, Name};
    use crate::uidl::Uidl;

    fn captured(user: &str, server: &str) -> Captured {
        let entry = Entry {
            file: Some(Name::Spelled((*b"1.h").into())),
            ..Entry::new(Uidl::new(b"1".to_vec()).unwrap())
        };
        let (user, source) = (user.to_owned(), format!("{server} /m"));
        Draft { user, source, entries: vec![entry], ..Draft::default() }.finish()
    }

    fn empty(user: &str, server: &str) -> Captured {
        let (user, source) = (user.to_owned(), format!("{server} /m"));
        Draft { user, source, ..Draft::default() }.finish()
    }

    fn failed(user: &str) -> Captured {
        Captured::failed(user.to_owned(), "x".to_owned(), "why".to_owned())
    }

    fn lost(old: Vec<Captured>, new: Vec<Captured>, asked: Asked) -> Option<String> {
        let listing = |all: Vec<Captured>| all.into_iter().flat_map(|it| ReadyBlock::of(it).octets);
        let (old, new): (Vec<u8>, Vec<u8>) = (listing(old).collect(), listing(new).collect());
        what_is_lost(&old[..], &new[..], asked)
    }

    #[test]
    fn what_was_captured_is_not_replaced_by_a_failure_nor_by_another_servers_nothing() {
        let old = || vec![captured("a", "courier"), captured("b", "courier"), failed("c")];
        assert_eq!(lost(old(), old(), Asked::Some), None);
        let all =
            || vec![captured("a", "courier"), empty("b", "courier"), captured("c", "courier")];
        assert_eq!(lost(old(), all(), Asked::Some), None);
        let worse = vec![failed("a"), empty("b", "dovecot")];
        assert_eq!(
            lost(old(), worse, Asked::Everybody).unwrap(),
            "of 2 maildrops that it has, these would be lost: 1 failed now (the first: a), 1 empty \
             to this server (the first: b)"
        );
        let gap = vec![captured("a", "courier"), failed(&everybody_of(None))];
        let said = lost(old(), gap, Asked::Listed).unwrap();
        assert!(said.ends_with("1 failed now (the first: b)"), "{said}");
    }

    #[test]
    fn a_few_may_be_gone_from_a_whole_server_and_none_from_some_of_it() {
        let users = |from: usize, to: usize| -> Vec<Captured> {
            (from..to).map(|n| captured(&format!("u{n:03}"), "qmail")).collect()
        };
        assert_eq!(lost(users(0, 9), users(3, 9), Asked::Everybody), None);
        let said = lost(users(0, 9), users(4, 9), Asked::Everybody).unwrap();
        assert!(said.ends_with("4 not in the new listing (the first: u000)"), "{said}");
        assert_eq!(lost(users(0, 400), users(4, 400), Asked::Everybody), None);
        assert!(lost(users(0, 400), users(5, 400), Asked::Everybody).is_some());
        assert!(lost(users(0, 9), users(1, 9), Asked::Some).is_some());
        assert_eq!(lost(users(0, 9), Vec::new(), Asked::Listed), None);
    }
}
