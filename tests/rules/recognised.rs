//! Which messages are recognised, and which only look as if they were.

use super::story::{
    Listing, Story, by_file, by_header, by_message, header_of, uidl, uidl_of, uidlist, with_body,
};
use super::support::dovecot::Config;
use super::support::host::Line;
use super::support::mail::Message;
use super::support::maildir::Naming;

/// A Maildir to which four messages were copied by file.
fn with_four() -> Option<(Story, Listing)> {
    with_four_on(Config::default())
}

fn with_four_on(config: Config) -> Option<(Story, Listing)> {
    let story = Story::begin_with(Line::V23, config.with_plugin())?;
    let maildir = story.maildir();
    for number in 1..=4 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let listing = Listing::of_files(&maildir.files());
    Some((story, listing))
}

/// Evidence 3 to 5: UID and octets only choose or veto, neither ever makes a match. Both servers
/// have counted to 5 under one UIDVALIDITY, and both messages are of one size.
#[test]
fn another_mail_with_the_uid_and_the_size_of_an_old_one_is_new() {
    let (old, new) = (Message::plain(5), Message::plain(6));
    assert_eq!(old.octets.len(), new.octets.len());
    let Some((story, listing)) = with_four() else { return };
    story.capture(&listing.message(&uidl(5), &format!("uid=5 {}", by_header(&old))));
    let maildir = story.maildir();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &maildir.files()));
    maildir.deliver(&new, Naming::Qmail, 6);

    let hidden = story.uidls_without_us(Some("UID%u-%v"));
    assert_eq!(hidden[4], uidl(5), "Dovecot alone, told to count on, hides it");

    let uidls = story.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert_eq!(uidls[4], "0000000500000011");
}

/// Rule 3: keys that cost nothing are compared together; if they disagree, the message is unknown and
/// logged. Here the names of two files were exchanged, and their UIDs say so.
#[test]
fn a_message_whose_name_and_uid_disagree_is_new() {
    let Some((story, _)) = with_four() else { return };
    let maildir = story.maildir();
    for number in 5..=6 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let files = maildir.files();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &files));
    let listing = (0..).zip([1, 2, 3, 4, 6, 5]).fold(Listing::new(), |listing, (at, uid)| {
        listing.message(&uidl(uid), &format!("uid={uid} {}", by_file(&files[at])))
    });
    story.capture(&listing);
    let uidls = story.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert_eq!(uidls[4..], ["0000000500000011", "0000000600000011"]);
    let told = "2 messages have names that disagree, the first is UID 5";
    assert!(story.log().iter().any(|line| line.contains(told)), "{:?}", story.log());
}

/// Rule 5: once the index is final, the first complete listing closes the header keys. The fifth message
/// was never copied; a year later comes a mail with its header, as from a robot that puts no date.
#[test]
fn an_equal_header_a_year_after_the_last_capture_is_new() {
    let old = Message::plain(5);
    let new = with_body(&old, "Another year, another text.");
    for (options, fifth) in [(&[][..], uidl(5)), (&["--final"], "00000005".to_owned())] {
        let Some((story, listing)) = with_four() else { return };
        story.install(&listing.message(&uidl(5), &header_of(&old)), options);
        assert_eq!(story.uidls(), uidl_of(1..=4));
        story.receive(&new);
        let uidls = story.uidls();
        assert_eq!(uidls[..4], uidl_of(1..=4));
        assert!(uidls[4].starts_with(&fifth), "{options:?}: {uidls:?}");
        // While more captures may follow, such a mail is taken for the old one, and that is said.
        let warned = story.log().iter().any(|line| line.contains("is not final"));
        assert_eq!(warned, options.is_empty(), "{:?}", story.log());
    }
}

/// Rule 5: what was read whole at the old server may still come, however late; rule 7: it goes behind.
#[test]
fn a_message_that_was_read_whole_is_kept_when_it_is_copied_after_the_last_capture() {
    let Some((story, listing)) = with_four() else { return };
    let late = Message::plain(5);
    story.install(&listing.message(&uidl(5), &by_message(&late)), &["--final"]);
    assert_eq!(story.uidls(), uidl_of(1..=4));
    story.receive(&with_body(&late, "Its header over another text."));
    story.receive(&late);
    let uidls = story.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    // Both are first listed now: the old order first, then by UID.
    assert_eq!(uidls[4], uidl(5));
    assert!(uidls[5].starts_with("00000005"), "{uidls:?}");
}

/// Rule 4: where the old server was asked for the whole of them, equal headers do not matter, also
/// while more captures may follow.
#[test]
fn of_two_messages_with_one_header_the_one_that_was_copied_gets_its_own_uidl() {
    let (first, second) = twins();
    let Some((story, listing)) = with_four() else { return };
    let listing = listing.message(&uidl(5), &by_message(&first));
    story.install(&listing.message(&uidl(6), &by_message(&second)), &[]);
    story.receive(&second);
    assert_eq!(story.uidls(), uidl_of([1, 2, 3, 4, 6]));
    story.receive(&with_body(&first, "A third text."));
    let uidls = story.uidls();
    assert_eq!(uidls[..5], uidl_of([1, 2, 3, 4, 6]));
    assert!(uidls[5].starts_with("00000006"), "a new one with that header: {uidls:?}");
    story.receive(&first);
    assert_eq!(story.uidls(), [uidls, vec![uidl(5)]].concat(), "the other has its own still");
}

/// Rule 4: an equal header alone pairs only one entry and one message.
#[test]
fn a_header_that_two_captured_messages_have_names_neither() {
    let (first, second) = twins();
    let Some((story, listing)) = with_four() else { return };
    let listing = listing.message(&uidl(5), &header_of(&first));
    story.capture(&listing.message(&uidl(6), &header_of(&second)));
    story.receive(&second);
    let uidls = story.uidls();
    assert!(uidls[4].starts_with("00000005"), "{uidls:?}");
}

/// Rule 4: unless octets separate them one to one.
#[test]
fn a_header_that_two_captured_messages_have_names_the_one_of_the_same_size() {
    let (first, second) = twins();
    let Some((story, listing)) = with_four() else { return };
    let listing = listing.message(&uidl(5), &by_header(&first));
    story.capture(&listing.message(&uidl(6), &by_header(&second)));
    story.receive(&second);
    assert_eq!(story.uidls(), uidl_of([1, 2, 3, 4, 6]));
}

/// Two messages with one header, and not of one size.
fn twins() -> (Message, Message) {
    let first = with_body(&Message::plain(5), "The first text.");
    (first.clone(), with_body(&first, "The second text."))
}
