//! Messages that are recognised, and messages that only look like it.

use super::scenario::{
    Listing, Scenario, USER, base, by_file, by_header, by_message, header_of, uidl, uidl_of,
    uidlist, with_body,
};
use crate::support::dovecot::Config;
use crate::support::host::Line;
use crate::support::mail::Message;
use crate::support::maildir::Naming;

/// A Maildir to which four messages were copied by file.
fn with_four() -> Option<(Scenario, Listing)> {
    with_four_on(Config::default())
}

fn with_four_on(config: Config) -> Option<(Scenario, Listing)> {
    let moved = Scenario::begin_with(Line::subject(), config.with_plugin())?;
    let maildir = moved.maildir();
    for number in 1..=4 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let listing = Listing::of_files(&maildir.files());
    Some((moved, listing))
}

/// Evidence 3 to 5: UID and octets only choose or veto, neither ever makes a match. Both servers
/// have counted to 5 under one UIDVALIDITY, and both messages are of one size.
#[test]
fn another_mail_with_the_uid_and_the_size_of_an_old_one_is_new() {
    let (old, new) = (Message::plain(5), Message::plain(6));
    assert_eq!(old.octets.len(), new.octets.len());
    let Some((moved, listing)) = with_four() else { return };
    moved.capture(&listing.message(&uidl(5), &format!("uid=5 {}", by_header(&old))));
    let maildir = moved.maildir();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &maildir.files()));
    maildir.deliver(&new, Naming::Qmail, 6);

    let hidden = moved.uidls_without_us(Some("UID%u-%v"));
    assert_eq!(hidden[4], uidl(5), "Dovecot alone, told to count on, hides it");

    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert_eq!(uidls[4], "0000000500000011");
}

/// Evidence 3: the UID never outvotes a name that only one entry has. The list of UIDs travelled,
/// both servers counted on, and the last rsync brought two files that have each other's UID here.
#[test]
fn a_name_that_one_message_has_stands_against_the_uid() {
    let Some((moved, _)) = with_four() else { return };
    let maildir = moved.maildir();
    for number in 5..=6 {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let files = maildir.files();
    maildir.write_state("dovecot-uidlist", &uidlist(17, &files));
    let listing = (0..).zip([1, 2, 3, 4, 6, 5]).fold(Listing::new(), |listing, (at, uid)| {
        listing.message(&uidl(uid), &format!("uid={uid} {}", by_file(&files[at])))
    });
    moved.capture(&listing);
    assert_eq!(moved.uidls(), uidl_of([1, 2, 3, 4, 6, 5]), "in the order of the capture");
    let mut session = moved.dovecot.login(USER).unwrap();
    for (place, message) in [(5, "<message.5@"), (6, "<message.6@")] {
        let listed = String::from_utf8(session.retr(place).unwrap()).unwrap();
        assert!(listed.contains(message), "{place}: {listed}");
    }
}

/// Evidence 3: it chooses among entries that one name fits. Two were captured under one name, and
/// the second of them was copied.
#[test]
fn of_two_captured_under_one_name_the_uid_chooses() {
    for (uidvalidity, fifth) in [(17, 6), (18, 5)] {
        let Some((moved, listing)) = with_four() else { return };
        let maildir = moved.maildir();
        let file = maildir.deliver(&Message::plain(6), Naming::Qmail, 6);
        let listing = (5..=6).fold(listing, |listing, uid| {
            listing.message(&uidl(uid), &format!("uid={uid} {}", by_file(&file)))
        });
        moved.capture(&listing);
        let list = uidlist(uidvalidity, &maildir.files()).replace(" N6 ", " N7 ");
        maildir.write_state("dovecot-uidlist", &list.replace("\n5 :", "\n6 :"));
        assert_eq!(moved.uidls(), uidl_of([1, 2, 3, 4, fifth]), "UIDVALIDITY {uidvalidity}");
    }
}

/// Evidence 3: names that name different entries name none, and that is logged. One file is called
/// like the fifth message, and its GUID is the name of the sixth.
#[test]
fn a_message_whose_names_disagree_is_new() {
    let Some((moved, listing)) = with_four() else { return };
    let maildir = moved.maildir();
    let fifth = maildir.deliver(&Message::plain(5), Naming::Qmail, 5);
    let sixth = moved.old_maildir([6]).files().remove(0);
    let listing = listing.message(&uidl(5), &by_file(&fifth));
    moved.capture(&listing.message(&uidl(6), &by_file(&sixth)));
    let guid = format!("\n5 G{} :", base(&sixth));
    let list = uidlist(17, &maildir.files()).replace("\n5 :", &guid);
    maildir.write_state("dovecot-uidlist", &list);
    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    assert_eq!(uidls[4..], ["0000000500000011"]);
    let told = "1 messages have names that disagree, the first is UID 5";
    assert!(moved.log().iter().any(|line| line.contains(told)), "{:?}", moved.log());
}

/// Evidence 5: a header that names its message is no later mail's, and a late copy is kept, also
/// after the last capture.
#[test]
fn a_header_that_names_its_message_is_evidence_however_late_the_copy() {
    for options in [&[][..], &["--final"]] {
        let Some((moved, listing)) = with_four() else { return };
        let late = Message::plain(5);
        moved.install(&listing.message(&uidl(5), &by_header(&late)), options);
        assert_eq!(moved.uidls(), uidl_of(1..=4));
        moved.receive(&Message::plain(6));
        let told = moved.uidls();
        moved.receive(&late);
        assert_eq!(moved.uidls(), [told, vec![uidl(5)]].concat(), "{options:?}");
    }
}

/// Evidence 5: a header that does not name its message is none. The fifth message was never copied;
/// a year later comes a mail with its header, as from a robot that puts no date.
#[test]
fn an_equal_header_that_names_nothing_is_new() {
    let old = Message::of_a_robot("80 % full");
    let new = with_body(&old, "Another year, another text.");
    let fifth = "00000005";
    for options in [&[][..], &["--final"]] {
        let Some((moved, listing)) = with_four() else { return };
        moved.install(&listing.message(&uidl(5), &header_of(&old)), options);
        assert_eq!(moved.uidls(), uidl_of(1..=4));
        moved.receive(&new);
        let uidls = moved.uidls();
        assert_eq!(uidls[..4], uidl_of(1..=4));
        assert!(uidls[4].starts_with(fifth), "{options:?}: {uidls:?}");
        // The log says that more captures may follow.
        let warned = moved.log().iter().any(|line| line.contains("is not final"));
        assert_eq!(warned, options.is_empty(), "{:?}", moved.log());
    }
}

/// Evidence 4: a message that was read whole at the old server may still come, however late; rule
/// 4: it goes behind.
#[test]
fn a_message_that_was_read_whole_is_kept_when_it_is_copied_after_the_last_capture() {
    let Some((moved, listing)) = with_four() else { return };
    let late = Message::plain(5);
    moved.install(&listing.message(&uidl(5), &by_message(&late)), &["--final"]);
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    moved.receive(&with_body(&late, "Its header over another text."));
    moved.receive(&late);
    let uidls = moved.uidls();
    assert_eq!(uidls[..4], uidl_of(1..=4));
    // Both are first listed now: the old order first, then by UID.
    assert_eq!(uidls[4], uidl(5));
    assert!(uidls[5].starts_with("00000005"), "{uidls:?}");
}

/// Evidence 4: if the old server was asked for the whole of them, equal headers do not matter, also
/// while more captures may follow.
#[test]
fn of_two_messages_with_one_header_the_one_that_was_copied_gets_its_own_uidl() {
    let (first, second) = twins();
    let Some((moved, listing)) = with_four() else { return };
    let listing = listing.message(&uidl(5), &by_message(&first));
    moved.install(&listing.message(&uidl(6), &by_message(&second)), &[]);
    moved.receive(&second);
    assert_eq!(moved.uidls(), uidl_of([1, 2, 3, 4, 6]));
    moved.receive(&with_body(&first, "A third text."));
    let uidls = moved.uidls();
    assert_eq!(uidls[..5], uidl_of([1, 2, 3, 4, 6]));
    assert!(uidls[5].starts_with("00000006"), "a new one with that header: {uidls:?}");
    moved.receive(&first);
    assert_eq!(moved.uidls(), [uidls, vec![uidl(5)]].concat(), "the other has its own still");
}

/// Evidence 5: a header is evidence if one entry has it. Sizes make no match, also if they would
/// separate the two: servers disagree on them.
#[test]
fn a_header_that_two_captured_messages_have_names_neither() {
    let (first, second) = twins();
    for key in [header_of, by_header] {
        let Some((moved, listing)) = with_four() else { return };
        let listing = listing.message(&uidl(5), &key(&first));
        moved.capture(&listing.message(&uidl(6), &key(&second)));
        moved.receive(&second);
        let uidls = moved.uidls();
        assert_eq!(uidls[..4], uidl_of(1..=4));
        assert!(uidls[4].starts_with("00000005"), "{uidls:?}");
    }
}

/// Evidence 5: sizes that differ by more than line ends, a `From_` line and status fields explain
/// are a veto.
#[test]
fn a_header_beside_quite_another_size_is_new() {
    let old = Message::plain(5);
    for (octets, is_kept) in [(old.on_the_wire().len() + 200, true), (100_000, false)] {
        let Some((moved, listing)) = with_four() else { return };
        moved.capture(&listing.message(&uidl(5), &format!("{} octets={octets}", header_of(&old))));
        moved.receive(&old);
        let uidls = moved.uidls();
        assert_eq!(uidls[..4], uidl_of(1..=4));
        assert_eq!(uidls[4] == uidl(5), is_kept, "{octets}: {uidls:?}");
    }
}

/// Two messages with one header, and not of one size.
fn twins() -> (Message, Message) {
    let first = with_body(&Message::plain(5), "The first text.");
    (first.clone(), with_body(&first, "The second text."))
}
