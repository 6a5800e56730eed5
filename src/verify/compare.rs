//! Compares a listing with what clients know: [`Verification`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};

use crate::forecast::ForecastSign;
use crate::verify::expected::Expected;

/// What a listing makes of what clients know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// How many messages are listed.
    pub listed: usize,
    /// How many messages were to be listed.
    pub expected: usize,
    /// How many of these are listed by a UIDL that clients know them by.
    pub kept: usize,
    /// The UIDLs of the others, in the old order. They are not there, or have another UIDL.
    pub missing: Vec<Box<[u8]>>,
    /// How many listed messages only an earlier capture had.
    pub older: usize,
    /// How many listed messages are new to clients.
    pub new: usize,
    /// UIDLs of listed messages that clients may hold for another message: clients skip these.
    pub reused: Vec<Box<[u8]>>,
    /// The place in the listing, from 1, of the first message that does not stand where it should:
    /// behind one that it was before, or new and before one that clients know.
    pub out_of_order: Option<usize>,
}

impl Verification {
    /// The maildrop in one sign.
    pub fn sign(&self) -> ForecastSign {
        match () {
            () if !self.reused.is_empty() || self.out_of_order.is_some() => ForecastSign::Changed,
            () if !self.missing.is_empty() => ForecastSign::Missing,
            () if self.new > 0 || self.older > 0 => ForecastSign::NewOnly,
            () => ForecastSign::Whole,
        }
    }
}

/// Compares the UIDLs that a server lists, in its order, with what clients know.
///
/// Of messages with one UIDL the first that is listed is taken for the first that was known. Cost:
/// one pass over both.
pub fn compare<'a>(
    expected: &Expected,
    listed: impl IntoIterator<Item = &'a [u8]>,
) -> Verification {
    // The present UIDL of one message may be an earlier one of another.
    let (mut present, mut earlier) = (UidlPlaces::default(), UidlPlaces::default());
    for (place, uidls) in expected.messages.iter().enumerate() {
        for (at, uidl) in uidls.iter().enumerate() {
            let places = if at == 0 { &mut present } else { &mut earlier };
            places.entry(uidl).or_default().push_back(place);
        }
    }
    let mut is_kept = vec![false; expected.messages.len()];
    let mut found = Verification { expected: is_kept.len(), ..Verification::default() };
    let (mut last, mut first_new) = (None, None);
    for uidl in listed {
        found.listed += 1;
        let is_known = present.contains_key(uidl) || earlier.contains_key(uidl);
        let place = first_open(&mut present, uidl, &is_kept)
            .or_else(|| first_open(&mut earlier, uidl, &is_kept));
        match place {
            Some(place) => {
                is_kept[place] = true;
                let is_behind = last.is_some_and(|last| last > place);
                let wrong = first_new.or(is_behind.then_some(found.listed));
                found.out_of_order = found.out_of_order.or(wrong);
                last = last.max(Some(place));
            }
            None if !is_known && expected.older.contains(uidl) => found.older += 1,
            None if is_known || expected.is_spent(uidl) => found.reused.push(uidl.into()),
            None => {
                found.new += 1;
                first_new = first_new.or(Some(found.listed));
            }
        }
    }
    let missing = expected.messages.iter().zip(&is_kept).filter(|(_, is_kept)| !**is_kept);
    found.missing = missing.filter_map(|(uidls, _)| uidls.first().cloned()).collect();
    found.kept = found.expected - found.missing.len();
    found
}

/// The messages with each UIDL, by their places.
type UidlPlaces<'a> = HashMap<&'a [u8], VecDeque<usize>>;

/// The first message with this UIDL that is not kept yet: another of its UIDLs may have been listed
/// already.
fn first_open(places: &mut UidlPlaces<'_>, uidl: &[u8], is_kept: &[bool]) -> Option<usize> {
    let open = places.get_mut(uidl)?;
    while let Some(place) = open.pop_front() {
        if !is_kept[place] {
            return Some(place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::UidlFormat;
    use crate::maildrop::{Capture, Counter, Entry, Maildrop, State};
    use crate::uidl::Uidl;

    fn uidl(text: &str) -> Uidl {
        Uidl::new(text.as_bytes()).unwrap()
    }

    fn known(uidls: &[&str]) -> Expected {
        Expected::of_listing(uidls.iter().map(|uidl| uidl.as_bytes().into()))
    }

    fn found(expected: &Expected, listed: &[&str]) -> Verification {
        compare(expected, listed.iter().map(|uidl| uidl.as_bytes()))
    }

    #[test]
    fn a_listing_is_whole_has_more_or_lacks_messages() {
        let known = known(&["a", "b", "c"]);
        let whole = found(&known, &["a", "b", "c"]);
        assert_eq!((whole.sign(), whole.kept), (ForecastSign::Whole, 3));
        let more = found(&known, &["a", "b", "c", "d"]);
        assert_eq!((more.sign(), more.new), (ForecastSign::NewOnly, 1));
        let less = found(&known, &["a", "x", "y"]);
        assert_eq!((less.sign(), less.kept, less.new), (ForecastSign::Missing, 1, 2));
        assert_eq!(less.missing, [Box::from(&b"b"[..]), Box::from(&b"c"[..])]);
        assert_eq!(found(&known, &[]).missing.len(), 3);
        assert_eq!(found(&Expected::default(), &[]).sign(), ForecastSign::Whole);
    }

    #[test]
    fn the_first_message_in_a_wrong_place_is_named() {
        let known = known(&["a", "b", "c"]);
        for (listed, place) in [
            (&["b", "a", "c"][..], Some(2)),
            (&["a", "new", "b", "c"], Some(2)),
            (&["c", "a", "new", "b"], Some(2)),
            (&["a", "c", "new"], None),
        ] {
            let found = found(&known, listed);
            assert_eq!(found.out_of_order, place, "{listed:?}");
            assert_eq!(found.sign() == ForecastSign::Changed, place.is_some());
        }
    }

    #[test]
    fn messages_with_one_uidl_count_as_many_as_were_known() {
        let twice = known(&["a", "a", "b"]);
        assert_eq!(found(&twice, &["a", "a", "b"]).sign(), ForecastSign::Whole);
        assert_eq!(found(&twice, &["a", "b"]).missing, [Box::from(&b"a"[..])]);
        let thrice = found(&twice, &["a", "a", "b", "a"]);
        assert_eq!((thrice.reused.len(), thrice.sign()), (1, ForecastSign::Changed));
    }

    #[test]
    fn a_uidl_is_of_the_message_that_has_it_now_before_one_that_had_it() {
        let octets = |uidl: &str| Box::<[u8]>::from(uidl.as_bytes());
        let messages = vec![vec![octets("x"), octets("b")], vec![octets("b")]];
        let known = Expected { messages, ..Expected::default() };
        assert_eq!(found(&known, &["x", "b"]).sign(), ForecastSign::Whole);
        assert_eq!(found(&known, &["b"]).missing, [octets("x")]);
        let turned = found(&known, &["b", "x"]);
        assert_eq!((turned.out_of_order, turned.reused.len()), (Some(2), 0));
    }

    #[test]
    fn a_message_is_known_by_its_earlier_uidl_and_a_spent_one_is_no_new_message() {
        let mut captured = Maildrop::new("a", State::Captured);
        captured.captures = vec![Capture::of(&captured, None); 2];
        let mut entry = Entry::new(uidl("UID12-7"));
        (entry.earlier, entry.last_capture) = (vec![uidl("UID2-7")], 1);
        captured.entries = vec![Entry::new(uidl("UID1-7")), entry];
        captured.spent = vec![uidl("gone")];
        captured.uidvalidity = Some(7);
        let format = UidlFormat::parse("UID%u-%v").unwrap();
        captured.counter = Some(Counter { format, next: 20 });
        let known = Expected::of(&captured).unwrap();
        for (listed, sign) in [
            (&["UID12-7"][..], ForecastSign::Whole),
            (&["UID2-7"], ForecastSign::Whole),
            (&["UID1-7", "UID2-7"], ForecastSign::NewOnly),
            (&["UID12-7", "UID20-7"], ForecastSign::NewOnly),
            (&["UID12-7", "UID2-7"], ForecastSign::Changed),
            (&["UID12-7", "gone"], ForecastSign::Changed),
            (&["UID12-7", "UID19-7"], ForecastSign::Changed),
            (&["UID12-7", "UID19-8"], ForecastSign::NewOnly),
        ] {
            let found = found(&known, listed);
            assert_eq!(found.sign(), sign, "{listed:?}: {found:?}");
        }
        captured.state = State::Failed;
        assert!(Expected::of(&captured).is_err());
    }
}
