//! A control directory that cannot be written: what can be derived is derived.

use std::fs;

use super::story::{Listing, Story, USER, base, header_of, uidl, uidl_of, with_body};
use super::support::dovecot::Store;
use super::support::mail::Message;
use super::support::maildir::Naming;

/// Four messages copied, and what the old server said of them.
fn begin() -> Option<(Story, Listing)> {
    let story = Story::begin(Store::Maildir)?;
    let maildir = story.maildir();
    for number in 1..=4 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let listing = Listing::of_files(&maildir.files());
    Some((story, listing))
}

impl Story {
    /// From now on neither lock nor ledger can be had, whoever asks: a directory is in their way.
    fn write_no_more(&self) {
        let lock = self.maildir().path().join("uidl-keep.lock");
        let _ = fs::remove_file(&lock);
        fs::create_dir(&lock).unwrap();
    }
}

/// Rule 11: what is answered can be derived again, and a late copy has its UIDL all the same. Its place
/// it has among the old ones: that it came late was not recorded.
#[test]
fn what_could_not_be_recorded_is_derived_again() {
    let Some((story, listing)) = begin() else { return };
    let late = story.maildir().files().remove(3);
    let away = story.dovecot.dir().join(base(&late));
    fs::rename(&late, &away).unwrap();
    story.capture(&listing);
    assert_eq!(story.uidls(), uidl_of(1..=3));
    story.write_no_more();
    story.receive(&Message::plain(5));
    story.receive(&Message::plain(6));
    let told = story.uidls();
    assert_eq!(story.uidls(), told);
    fs::rename(&away, &late).unwrap();
    assert_eq!(story.uidls(), [uidl_of(1..=4), told[3..].to_vec()].concat());
}

/// Rules 5 and 11: the index is final, and the first listing could not record the cutoff. What only a
/// header could tell is refused then: it may be a new message.
#[test]
fn an_equal_header_is_never_taken_for_the_old_one_where_the_cutoff_could_not_be_recorded() {
    let Some((story, listing)) = begin() else { return };
    let old = Message::plain(5);
    story.capture(&listing.message(&uidl(5), &header_of(&old)));
    story.write_no_more();
    assert_eq!(story.uidls(), uidl_of(1..=4));
    story.receive(&with_body(&old, "Another year, another text."));
    let refused = story.dovecot.login(USER).unwrap().uidl();
    assert!(refused.is_err(), "{refused:?}");
    let log = story.log().concat();
    assert!(log.contains("1 messages can be told by their headers only"), "{log}");
    fs::remove_dir(story.maildir().path().join("uidl-keep.lock")).unwrap();
    assert_eq!(story.uidls()[..4], uidl_of(1..=4));
}
