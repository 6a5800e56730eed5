//! A control directory that cannot be written: each answer that can be derived is derived.

use std::fs;

use super::scenario::{Listing, Scenario, base, header_of, uidl, uidl_of, with_body};
use crate::support::dovecot::Store;
use crate::support::mail::Message;
use crate::support::maildir::Naming;

/// Without the first, neither lock nor ledger can be had; without the other, no ledger.
const LOCK: &str = "uidl-keep.lock";
const NEW_LEDGER: &str = "uidl-keep.ledger.new";

/// Four messages that were copied, and the old server's listing of them.
fn begin() -> Option<(Scenario, Listing)> {
    let moved = Scenario::begin(Store::Maildir)?;
    let maildir = moved.maildir();
    for number in 1..=4 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let listing = Listing::of_files(&maildir.files());
    Some((moved, listing))
}

impl Scenario {
    /// From now on this file cannot be had, whoever asks: a directory is in its way.
    fn write_no_more(&self, what: &str) {
        let what = self.maildir().path().join(what);
        let _ = fs::remove_file(&what);
        fs::create_dir(&what).unwrap();
    }

    fn write_again(&self, what: &str) {
        fs::remove_dir(self.maildir().path().join(what)).unwrap();
    }
}

/// Rule 11: each answer can be derived again, and a late copy has its UIDL all the same. Its place
/// is among the old ones: nothing recorded that it came late.
#[test]
fn what_could_not_be_recorded_is_derived_again() {
    let Some((moved, listing)) = begin() else { return };
    let late = moved.maildir().files().remove(3);
    let away = moved.dovecot.dir().join(base(&late));
    fs::rename(&late, &away).unwrap();
    moved.capture(&listing);
    assert_eq!(moved.uidls(), uidl_of(1..=3));
    moved.write_no_more(LOCK);
    moved.receive(&Message::plain(5));
    moved.receive(&Message::plain(6));
    let told = moved.uidls();
    assert_eq!(moved.uidls(), told);
    fs::rename(&away, &late).unwrap();
    assert_eq!(moved.uidls(), [uidl_of(1..=4), told[3..].to_vec()].concat());
}

/// Evidence 5 and rule 11: a header that claims an entry is no later mail's, so nobody is refused
/// if nothing could be recorded while mail came, and nothing is hidden: neither a mail with the
/// header of an old one that names nothing, nor the old one that is copied late and is known by its
/// header.
#[test]
fn an_equal_header_is_never_taken_for_the_old_one_where_nothing_could_be_recorded() {
    for in_the_way in [NEW_LEDGER, LOCK] {
        let Some((moved, listing)) = begin() else { return };
        let (old, late) = (Message::of_a_robot("80 % full"), Message::plain(6));
        let listing = listing.message(&uidl(5), &header_of(&old));
        moved.capture(&listing.message(&uidl(6), &header_of(&late)));
        moved.write_no_more(in_the_way);
        assert_eq!(moved.uidls(), uidl_of(1..=4));
        moved.receive(&with_body(&old, "Another year, another text."));
        let told = moved.uidls();
        assert_eq!(told[..4], uidl_of(1..=4));
        assert_eq!(told.len(), 5);
        assert_ne!(told[4], uidl(5));
        assert_eq!(moved.uidls(), told, "derived again");
        let log = moved.log().concat();
        assert!(log.contains("served without a ledger"), "{log}");
        moved.receive(&late);
        let with_late = [&told[..4], &uidl_of([6])[..], &told[4..]].concat();
        assert_eq!(moved.uidls(), with_late, "its place was not recorded");
        moved.write_again(in_the_way);
        let recorded = moved.uidls();
        assert_eq!(recorded[..5], with_late[..5]);
        assert_ne!(recorded[5], uidl(5));
        // The thing in the place of the lock may be anything: while it is there, any number may
        // have been told.
        if in_the_way == NEW_LEDGER {
            assert_eq!(recorded, with_late);
        }
        assert_eq!(moved.uidls(), recorded);
    }
}
