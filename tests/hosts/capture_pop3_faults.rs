//! Captures over POP3 from servers that are slow, odd, broken or hostile: the server is one that
//! says what a test has it say.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::PASSWORD;
use crate::support::peer::{Answer, Peer, Served, header_end, multi_line};
use crate::support::tls::certificates;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{
    Account, CaptureOptions, Fault, Learnt, NoPace, Pace, Retrieve, Retry, Secret, Security,
    Server, Trust, capture,
};
use uidl_keep::key::{Depth, Fingerprint, Fingerprinter};
use uidl_keep::maildrop::State;

fn at(peer: &Peer) -> Server {
    let (host, port) = (peer.address().ip().to_string(), peer.address().port());
    Server { host, port, security: Security::Clear, trust: Trust::System }
}

fn alice() -> Account {
    let password = Secret::new(PASSWORD);
    Account {
        user: "alice".into(),
        login: "alice".into(),
        authorize: None,
        credential: password.into(),
    }
}

/// The usual options, in a hurry.
fn how() -> CaptureOptions<'static> {
    let (timeout, pause) = (Duration::from_secs(20), Duration::from_millis(1));
    CaptureOptions { timeout, pause, ..CaptureOptions::new(&NoPace, &|_| ()) }
}

/// Options for a server that will stall.
fn impatient() -> CaptureOptions<'static> {
    CaptureOptions { timeout: Duration::from_secs(3), ..how() }
}

fn of(peer: &Peer) -> Captured {
    capture(&at(peer), &alice(), &how()).unwrap()
}

/// Starts a server that answers as it should, except where `odd` has another answer for a session
/// and a command.
fn served(
    served: Served,
    mut odd: impl FnMut(usize, &str) -> Option<Answer> + Send + 'static,
) -> Peer {
    Peer::start(move |session, command| {
        odd(session, command).unwrap_or_else(|| served.answer(command))
    })
}

fn header_of(message: &[u8]) -> Option<Fingerprint> {
    let mut fingerprinter = Fingerprinter::new(Depth::Header);
    fingerprinter.update(message);
    fingerprinter.finish().header
}

/// Insists that every message is there, in order, with the key of its header.
#[track_caller]
fn is_whole(captured: &Captured, served: &Served) {
    assert_eq!(captured.losses, [""; 0]);
    let found: Vec<_> =
        captured.maildrop.entries.iter().map(|e| (e.uidl.to_string(), e.header)).collect();
    let wanted: Vec<_> =
        served.messages.iter().map(|(uidl, m)| (uidl.clone(), header_of(m))).collect();
    assert_eq!(found, wanted);
}

/// Counts the commands of a kind that were heard.
fn count(heard: &[String], start: &str) -> usize {
    heard.iter().filter(|command| command.starts_with(start)).count()
}

#[test]
fn many_commands_are_under_way_where_that_is_announced() {
    let mailbox = Served::of(1000);
    let peer = served(mailbox.clone(), |_, _| None);
    is_whole(&of(&peer), &mailbox);
    assert!(peer.deepest() > 50, "{} at most", peer.deepest());
    let heard = peer.heard();
    assert_eq!((heard.len(), count(&heard[0], "TOP")), (1, 1000));
    assert_eq!((count(&heard[0], "RETR"), count(&heard[0], "DELE")), (0, 0));
    assert_eq!(heard[0].last().unwrap(), "QUIT");

    // There are fewer where the answers are long.
    let peer = served(mailbox.clone(), |_, _| None);
    let always = CaptureOptions { retrieve: Retrieve::Always, ..how() };
    is_whole(&capture(&at(&peer), &alice(), &always).unwrap(), &mailbox);
    assert!((2..=16).contains(&peer.deepest()), "{} at most", peer.deepest());
}

#[test]
fn one_command_is_under_way_where_that_is_asked_for() {
    let mailbox = Served::of(60).saying(None);
    for mailbox in [mailbox, Served::of(60)] {
        let peer = served(mailbox.clone(), |_, _| None);
        let captured =
            capture(&at(&peer), &alice(), &CaptureOptions { window: 1, ..how() }).unwrap();
        is_whole(&captured, &mailbox);
        let heard = peer.heard().concat();
        assert_eq!(count(&heard, "NOOP"), 0);
        // UIDL and LIST go together if PIPELINING is announced.
        assert!(peer.deepest() <= 2, "{} at most", peer.deepest());
    }
}

#[test]
fn a_server_without_capa_is_seen_to_take_several_commands_before_it_gets_them() {
    let mailbox = Served::of(1000).saying(None);
    let peer = served(mailbox.clone(), |_, _| None);
    is_whole(&of(&peer), &mailbox);
    assert!(peer.deepest() > 50, "{} at most", peer.deepest());
    assert_eq!(count(&peer.heard()[0], "NOOP"), 2);
}

#[test]
fn a_server_that_forgets_what_it_was_sent_too_early_is_asked_one_at_a_time() {
    let mailbox = Served::of(40).saying(None);
    let answers = mailbox.clone();
    let peer = Peer::start(move |_, command| match answers.answer(command) {
        Answer::Say(said) => Answer::SayAndForget(said),
        other => other,
    });
    is_whole(&capture(&at(&peer), &alice(), &impatient()).unwrap(), &mailbox);
    let heard = peer.heard();
    assert_eq!(heard.len(), 2, "it broke once");
    assert_eq!(count(&heard[1], "NOOP"), 0, "and was not tried again");
}

#[test]
fn a_server_that_answers_the_same_to_all_is_not_taken_for_one_that_keeps_up() {
    let mailbox = Served::of(40).saying(None);
    let wrong = mailbox.clone();
    let mut tops = 0;
    let peer = served(mailbox.clone(), move |_, command| {
        if command == "TOP 1 0" {
            tops += 1;
            return (tops == 2).then(|| wrong.answer("TOP 2 0"));
        }
        None
    });
    is_whole(&of(&peer), &mailbox);
    assert!(peer.deepest() <= 3, "{} at most", peer.deepest());
}

#[test]
fn answers_that_were_out_of_step_with_the_commands_are_nobodys() {
    for mailbox in [Served::of(40), Served::of(40).saying(None)] {
        // A command is lost; and one is answered twice, which shows only at the end.
        let (answers, other) = (mailbox.clone(), mailbox.clone());
        let losing = served(mailbox.clone(), |session, command| {
            (session == 0 && command == "TOP 20 0").then(|| Answer::Say(Vec::new()))
        });
        let doubling = served(answers, move |session, command| {
            let Answer::Say(said) = other.answer(command) else { return None };
            let twice = [said, b"-ERR what else?\r\n".to_vec()].concat();
            (session == 0 && command == "TOP 20 0").then_some(Answer::Say(twice))
        });
        for peer in [losing, doubling] {
            is_whole(&capture(&at(&peer), &alice(), &impatient()).unwrap(), &mailbox);
            assert_eq!(peer.heard().len(), 2);
        }
    }
}

#[test]
fn a_server_that_is_never_in_step_is_given_up() {
    let mailbox = Served::of(40);
    let other = mailbox.clone();
    let peer = served(mailbox, move |_, command| {
        let Answer::Say(said) = other.answer(command) else { return None };
        let twice = [said, b"-ERR what else?\r\n".to_vec()].concat();
        (command == "TOP 20 0").then_some(Answer::Say(twice))
    });
    let fault = capture(&at(&peer), &alice(), &how()).unwrap_err();
    assert!(matches!(fault, Fault::Garbled { .. }), "{fault:?}");
    assert_eq!(peer.heard().len(), 3);
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let mailbox = Served::of(500);
    for (breaks, how) in [
        (|| Answer::SayAndClose(b"+OK\r\nSubject: mess".to_vec()), how()),
        (|| Answer::SayAndClose(Vec::new()), how()),
        (|| Answer::Stall, impatient()),
        (|| Answer::SayAndClose(b"server going down NOW\r\n".to_vec()), how()),
    ] as [(fn() -> Answer, CaptureOptions<'static>); 4]
    {
        let peer = served(mailbox.clone(), move |session, command| {
            (command == format!("TOP {} 0", 150 * (session + 1))).then(breaks)
        });
        is_whole(&capture(&at(&peer), &alice(), &how).unwrap(), &mailbox);
        let heard = peer.heard();
        assert_eq!(heard.len(), 4);
        let asked = heard.iter().map(|heard| count(heard, "TOP")).sum::<usize>();
        assert!(asked < 500 + 3 * 201, "{asked}");
    }
}

#[test]
fn what_was_read_before_a_break_counts_for_nothing_once_the_listing_has_lost_a_message() {
    let before = Served::of(30);
    let mut after = before.clone();
    after.messages.remove(0);
    after.messages.push(("new".into(), Served::of(31).messages.remove(30).1));
    let (first, then) = (before.clone(), after.clone());
    let peer = Peer::start(move |session, command| match (session, command) {
        (0, "TOP 20 0") => Answer::SayAndClose(Vec::new()),
        (0, _) => first.answer(command),
        _ => then.answer(command),
    });
    let captured = of(&peer);
    is_whole(&captured, &after);
    assert_eq!(captured.maildrop.spent.len(), 1);
    assert_eq!(captured.maildrop.spent[0].to_string(), before.messages[0].0);
    assert_eq!(count(&peer.heard()[1], "TOP"), 30, "all were read again");
}

#[test]
fn a_message_at_which_the_connection_always_breaks_costs_that_message() {
    let mailbox = Served::of(20);
    let peer = served(mailbox, |_, command| {
        (command == "TOP 7 0").then(|| Answer::SayAndClose(Vec::new()))
    });
    let captured = of(&peer);
    assert_eq!(captured.maildrop.entries.len(), 19);
    assert_eq!(captured.maildrop.spent[0].to_string(), "uidl7");
    assert_eq!(captured.losses.len(), 1);
    assert!(captured.losses[0].starts_with("message 7, uidl7: "), "{:?}", captured.losses);
}

#[test]
fn a_server_that_is_gone_is_for_later_and_not_for_ever() {
    let mailbox = Served::of(20);
    let dead = served(mailbox.clone(), |session, command| {
        (command == "UIDL" || session > 0).then(|| Answer::SayAndClose(Vec::new()))
    });
    let fault = capture(&at(&dead), &alice(), &how()).unwrap_err();
    assert!(matches!(fault, Fault::Dropped { command: "UIDL" }), "{fault:?}");
    assert_eq!(fault.next_step(), Retry::Later);
    assert_eq!(dead.heard().len(), 1, "nothing was had, and nothing is tried again here");

    let dying = served(mailbox, |session, command| {
        (command == "TOP 9 0" || session > 0).then(|| Answer::SayAndClose(Vec::new()))
    });
    let fault = capture(&at(&dying), &alice(), &how()).unwrap_err();
    assert_eq!(fault.next_step(), Retry::Later);
    assert!((2..9).contains(&dying.heard().len()), "{}", dying.heard().len());
}

#[test]
fn a_listing_that_is_another_at_the_end_is_read_again_and_not_for_ever() {
    let before = Served::of(10);
    let mut after = before.clone();
    after.messages.remove(3);
    let (first, then) = (before, after.clone());
    let mut listings = 0;
    // The numbers of this server move in the middle of a session.
    let peer = Peer::start(move |_, command| {
        listings += usize::from(command == "UIDL");
        if listings <= 1 { first.answer(command) } else { then.answer(command) }
    });
    let captured = of(&peer);
    is_whole(&captured, &after);
    assert_eq!(captured.maildrop.spent[0].to_string(), "uidl4");

    let mut listings = 0;
    let restless = Peer::start(move |_, command| {
        listings += usize::from(command == "UIDL");
        Served::of(10 + listings).answer(command)
    });
    let fault = capture(&at(&restless), &alice(), &how()).unwrap_err();
    assert!(matches!(fault, Fault::Changing { tries: 4 }), "{fault:?}");
    assert_eq!(fault.next_step(), Retry::Later);
    assert_eq!(restless.heard().len(), 4);
}

#[test]
fn a_listing_that_changes_between_uidl_and_list_is_asked_for_again() {
    let (fewer, more) = (Served::of(9), Served::of(10));
    let all = more.clone();
    let mut uidls = 0;
    let peer = Peer::start(move |_, command| {
        uidls += usize::from(command == "UIDL");
        if uidls == 1 && command == "UIDL" { fewer.answer(command) } else { more.answer(command) }
    });
    is_whole(&of(&peer), &all);
    assert_eq!(peer.heard().len(), 1);
}

#[test]
fn a_message_that_uidl_for_ever_leaves_out_is_named_and_no_quieter_time_is_waited_for() {
    for (lacks, said) in [
        ("UIDL", "UIDL lists 9 messages and LIST 10"),
        ("LIST", "UIDL lists 10 messages and LIST 9"),
    ] {
        let mailbox = Served::of(10);
        let answers = mailbox.clone();
        let peer = served(mailbox, move |_, command| {
            let Answer::Say(all) = answers.answer(command) else { return None };
            let lines = all.split_inclusive(|&octet| octet == b'\n');
            let without =
                || lines.filter(|line| !line.starts_with(b"4 ")).flatten().copied().collect();
            (command == lacks).then(|| Answer::Say(without()))
        });
        let fault = capture(&at(&peer), &alice(), &how()).unwrap_err();
        assert_eq!(fault.next_step(), Retry::Never);
        let text = fault.to_string();
        assert!(text.starts_with(said), "{text}");
        assert!(text.contains(&format!("{lacks} leaves out message 4; have it")), "{text}");
        assert_eq!(peer.heard().len(), 1);
    }
}

#[test]
fn a_message_that_was_deleted_meanwhile_is_spent_and_no_loss() {
    let before = Served::of(20);
    let mut after = before.clone();
    after.messages.remove(11);
    let (first, then) = (before, after.clone());
    let peer = Peer::start(move |session, command| match (session, command) {
        (0, "TOP 12 0" | "TOP 12 1" | "RETR 12") => "-ERR message 12 is expunged\r\n".into(),
        (0, _) => first.answer(command),
        _ => then.answer(command),
    });
    let captured = of(&peer);
    is_whole(&captured, &after);
    assert_eq!(captured.maildrop.spent[0].to_string(), "uidl12");
    let heard = peer.heard();
    // It asks once: Dovecot hangs up on a client that asks again for an expunged message.
    assert_eq!((heard.len(), count(&heard[0], "TOP 12"), count(&heard[0], "RETR")), (2, 1, 0));
    assert_eq!(count(&heard[1], "TOP"), 0, "the others were known");
}

#[test]
fn a_message_that_top_does_not_tell_is_retrieved_and_else_said_to_be_lost() {
    // Its CAPA may say that there is a TOP, or nothing.
    for capabilities in [Served::of(0).capabilities, None] {
        let mailbox = Served::of(20).saying(capabilities);
        let peer = |can_retrieve: bool| {
            served(mailbox.clone(), move |_, command| match command {
                "TOP 12 0" | "TOP 12 1" => Some("-ERR cannot open message\r\n".into()),
                "RETR 12" if !can_retrieve => Some("-ERR cannot open message\r\n".into()),
                _ => None,
            })
        };
        let can_retrieve = peer(true);
        is_whole(&of(&can_retrieve), &mailbox);
        assert_eq!(count(&can_retrieve.heard().concat(), "RETR"), 1);
        let captured = of(&peer(false));
        assert_eq!((captured.maildrop.entries.len(), captured.losses.len()), (19, 1));
        assert!(captured.losses[0].contains("cannot open message"), "{:?}", captured.losses);
        assert_eq!(captured.maildrop.spent[0].to_string(), "uidl12");
        let how = CaptureOptions { retrieve: Retrieve::Never, ..how() };
        let never = capture(&at(&peer(true)), &alice(), &how).unwrap();
        assert_eq!((never.maildrop.entries.len(), never.losses.len()), (19, 1));
    }
}

#[test]
fn many_messages_that_cannot_be_had_just_now_are_no_capture() {
    let peer = served(Served::of(20), |_, command| {
        let number = command.strip_prefix("TOP ").or_else(|| command.strip_prefix("RETR "))?;
        let number = number.split(' ').next()?.parse::<u32>().ok()?;
        (number > 10).then(|| "-ERR [SYS/TEMP] mailbox is locked\r\n".into())
    });
    let fault = capture(&at(&peer), &alice(), &how()).unwrap_err();
    assert!(matches!(fault, Fault::Refused { command: "RETR", .. }), "{fault:?}");
    assert_eq!(fault.next_step(), Retry::Later);
    assert_eq!(peer.heard().len(), 2);
}

#[test]
fn where_there_is_no_top_messages_are_retrieved_if_that_is_allowed() {
    let mailbox = Served::of(20).saying(None);
    let peer = || {
        served(Served::of(20).saying(None), |_, command| {
            command.starts_with("TOP").then(|| "-ERR unimplemented\r\n".into())
        })
    };
    let retrieving = peer();
    let captured = of(&retrieving);
    is_whole(&captured, &mailbox);
    assert_eq!(count(&retrieving.heard()[0], "RETR"), 20);
    // They were sent as LIST counts them, so that their sizes are known.
    assert!(captured.maildrop.entries.iter().all(|e| e.octets.is_some() && e.message.is_none()));

    let how = CaptureOptions { retrieve: Retrieve::Never, ..how() };
    let fault = capture(&at(&peer()), &alice(), &how).unwrap_err();
    assert!(matches!(fault, Fault::NoTop(_)), "{fault:?}");
    assert_eq!(fault.next_step(), Retry::Never);
}

#[test]
fn top_may_count_otherwise() {
    let mailbox = Served::of(20);
    // One takes no 0, one cuts the header short at 0, and one gives all for any number.
    for odd in [
        (|_: &Served, command| {
            command_of_lines(command, "0").then(|| "-ERR bad number\r\n".into())
        }),
        |served: &Served, command| {
            let message = &served.messages[number_in(command)? - 1].1;
            let cut = &message[..header_end(message) - 2];
            command_of_lines(command, "0").then(|| Answer::Say(multi_line(cut)))
        },
        |served: &Served, command| {
            Some(Answer::Say(multi_line(&served.messages[number_in(command)? - 1].1)))
        },
    ] as [fn(&Served, &str) -> Option<Answer>; 3]
    {
        let answers = mailbox.clone();
        let peer = served(mailbox.clone(), move |_, command| odd(&answers, command));
        is_whole(&of(&peer), &mailbox);
        assert_eq!(count(&peer.heard().concat(), "RETR"), 0);
    }
}

fn command_of_lines(command: &str, lines: &str) -> bool {
    command.starts_with("TOP ") && command.ends_with(&format!(" {lines}"))
}

fn number_in(command: &str) -> Option<usize> {
    command.strip_prefix("TOP ")?.split(' ').next()?.parse().ok()
}

#[test]
fn nothing_is_retrieved_where_it_would_be_deleted() {
    let mut mailbox = Served::of(5).saying(Some("TOP\r\nUIDL\r\nEXPIRE 0\r\n"));
    mailbox.messages[1].1 = mailbox.messages[0].1.clone();
    let peer = served(mailbox.clone(), |_, _| None);
    let captured = of(&peer);
    is_whole(&captured, &mailbox);
    assert_eq!(count(&peer.heard()[0], "RETR"), 0);
    let remarks = &captured.maildrop.remarks;
    assert!(remarks[0].contains("EXPIRE 0"), "{remarks:?}");
    assert!(remarks[1].starts_with("2 messages did not come whole"), "{remarks:?}");
    assert_eq!(count(&peer.heard()[0], "TOP"), 5, "none was asked for whole by TOP");

    let peer = served(mailbox.clone(), |_, _| None);
    let always = CaptureOptions { retrieve: Retrieve::Always, ..how() };
    is_whole(&capture(&at(&peer), &alice(), &always).unwrap(), &mailbox);
    let heard = peer.heard().concat();
    assert_eq!((count(&heard, "RETR"), count(&heard, "QUIT")), (5, 0), "no QUIT, no deleting");
}

/// Messages 3 and 7 of 12 are warnings of a script, equal to the last octet.
fn with_warnings() -> Served {
    let mut mailbox = Served::of(12);
    let warning =
        format!("From: a\r\nSubject: 80 % full\r\n\r\n{}", "Delete something.\r\n".repeat(50));
    for at in [2, 6] {
        mailbox.messages[at].1 = warning.clone().into_bytes();
    }
    mailbox
}

/// Whether TOP is asked for a whole message.
fn is_for_all(command: &str) -> bool {
    command.starts_with("TOP ") && !command.ends_with(" 0") && !command.ends_with(" 1")
}

#[test]
fn what_its_header_does_not_name_is_read_whole_and_by_top_first() {
    let mailbox = with_warnings();
    let whole = |captured: &Captured| -> Vec<usize> {
        is_whole(captured, &mailbox);
        let entries = captured.maildrop.entries.iter();
        (1..).zip(entries).filter(|(_, entry)| entry.message.is_some()).map(|(at, _)| at).collect()
    };
    // TOP brings all, where RETR is not allowed too.
    for retrieve in [Retrieve::Needed, Retrieve::Never] {
        let peer = served(mailbox.clone(), |_, _| None);
        let captured =
            capture(&at(&peer), &alice(), &CaptureOptions { retrieve, ..how() }).unwrap();
        assert_eq!(whole(&captured), [3, 7]);
        assert_eq!(captured.maildrop.remarks, [""; 0]);
        let heard = peer.heard().concat();
        let asked: Vec<_> = heard.iter().filter(|command| is_for_all(command)).collect();
        assert_eq!(asked, ["TOP 3 999999999", "TOP 7 999999999"]);
        assert_eq!(count(&heard, "RETR"), 0);
    }
    // It refuses so many lines, gives no more than ten, or one too many as mailutils, or hangs up.
    let cut = |served: &Served, number: usize| {
        let message = &served.messages[number - 1].1;
        let end = header_end(message) + 10 * "Delete something.\r\n".len();
        Answer::Say(multi_line(&message[..end]))
    };
    let one_more = |served: &Served, number: usize| {
        let message = &served.messages[number - 1].1;
        let (head, body) = message.split_at(header_end(message));
        Answer::Say(multi_line(&[head, b"\r\n", body].concat()))
    };
    for odd in [
        |_: &Served, _| "-ERR too many lines\r\n".into(),
        cut,
        one_more,
        |_: &Served, _| Answer::SayAndClose(Vec::new()),
    ] as [fn(&Served, usize) -> Answer; 4]
    {
        let peer = || {
            let answers = mailbox.clone();
            served(mailbox.clone(), move |_, command| {
                is_for_all(command).then(|| odd(&answers, number_in(command).unwrap()))
            })
        };
        let retrieving = peer();
        assert_eq!(whole(&of(&retrieving)), [3, 7]);
        let heard = retrieving.heard().concat();
        assert_eq!((count(&heard, "RETR 3"), count(&heard, "RETR 7")), (1, 1));

        let how = CaptureOptions { retrieve: Retrieve::Never, ..how() };
        let captured = capture(&at(&peer()), &alice(), &how).unwrap();
        assert_eq!(captured.maildrop.entries.len(), 10);
        let spent: Vec<_> = captured.maildrop.spent.iter().map(ToString::to_string).collect();
        assert_eq!(spent, ["uidl3", "uidl7"]);
        let [loss] = &captured.losses[..] else { panic!("{:?}", captured.losses) };
        let said = "2 messages have a header that does not name them, and did not come whole \
                    (first: message 3, uidl3): their unique-ids are spent";
        assert!(loss.starts_with(said), "{loss}");
    }
}

#[test]
fn what_is_retrieved_after_top_and_is_too_short_is_retrieved_anew_before_it_is_believed() {
    let mut mailbox = with_warnings();
    let warning = mailbox.messages[2].1.clone();
    mailbox.messages.iter_mut().for_each(|message| message.1 = warning.clone());
    // The text never comes by RETR in a session that has asked for a header; or it never comes at
    // all, and LIST counts too much.
    for is_always in [false, true] {
        let answers = mailbox.clone();
        let mut topped = false;
        let peer = served(mailbox.clone(), move |_, command| {
            topped = command.starts_with("TOP") || topped && !command.is_empty();
            if is_for_all(command) {
                return Some("-ERR too many lines\r\n".into());
            }
            let number = command.strip_prefix("RETR ")?.parse::<usize>().ok()?;
            let message = &answers.messages[number - 1].1;
            let header = &message[..header_end(message)];
            (topped || is_always).then(|| Answer::Say(multi_line(header)))
        });
        let captured = of(&peer);
        is_whole(&captured, &mailbox);
        let of = |octets: &[u8]| {
            let mut fingerprinter = Fingerprinter::new(Depth::Message);
            fingerprinter.update(octets);
            fingerprinter.finish().message
        };
        let wanted = if is_always { of(&warning[..header_end(&warning)]) } else { of(&warning) };
        assert!(captured.maildrop.entries.iter().all(|entry| entry.message == wanted));
        assert_eq!(peer.heard().len(), 2);
        assert_eq!((count(&peer.heard()[1], "TOP"), count(&peer.heard()[1], "RETR")), (0, 12));
    }
}

#[test]
fn a_server_that_gives_no_whole_message_by_top_is_not_asked_for_each() {
    let mut mailbox = with_warnings();
    let warning = mailbox.messages[2].1.clone();
    mailbox.messages.iter_mut().for_each(|message| message.1 = warning.clone());
    let peer = served(mailbox.clone(), |_, command| {
        is_for_all(command).then(|| "-ERR too many lines\r\n".into())
    });
    is_whole(&of(&peer), &mailbox);
    let heard = peer.heard().concat();
    assert_eq!(heard.iter().filter(|command| is_for_all(command)).count(), 3);
    assert_eq!(count(&heard, "RETR"), 12);

    // A session that would delete them is not used, either.
    let mailbox = mailbox.saying(Some("TOP\r\nUIDL\r\nEXPIRE 0\r\n"));
    let peer = served(mailbox, |_, _| None);
    let captured = of(&peer);
    assert_eq!((captured.maildrop.entries.len(), captured.maildrop.spent.len()), (0, 12));
    assert!(captured.losses[0].starts_with("12 messages have a header"), "{:?}", captured.losses);
    let heard = peer.heard().concat();
    assert!(!heard.iter().any(|command| is_for_all(command) || command.starts_with("RETR")));
}

#[test]
fn what_one_account_shows_of_a_server_is_not_asked_with_the_next() {
    // The server has no PIPELINING, no TOP of no line, no whole message by TOP, and no text by RETR
    // after TOP.
    let mut mailbox = Served::of(12).saying(Some("TOP\r\nUIDL\r\nUSER\r\n"));
    let warning = with_warnings().messages[2].1.clone();
    mailbox.messages[2..8].iter_mut().for_each(|message| message.1 = warning.clone());
    let answers = mailbox.clone();
    let mut topped = false;
    let peer = served(mailbox.clone(), move |_, command| {
        topped = command.starts_with("TOP") || topped && !command.is_empty();
        if is_for_all(command) || command_of_lines(command, "0") {
            return Some("-ERR bad number\r\n".into());
        }
        let number = command.strip_prefix("RETR ")?.parse::<usize>().ok()?;
        let message = &answers.messages[number - 1].1;
        topped.then(|| Answer::Say(multi_line(&message[..header_end(message)])))
    });
    let learnt = Learnt::default();
    let how = CaptureOptions { learnt: Some(&learnt), ..how() };
    for _ in 0..3 {
        is_whole(&capture(&at(&peer), &alice(), &how).unwrap(), &mailbox);
    }
    let heard = peer.heard();
    assert_eq!(heard.len(), 6, "two sessions for each: the second for RETR");
    let counts = |heard: &[String]| {
        let zero = heard.iter().filter(|command| command_of_lines(command, "0")).count();
        let whole = heard.iter().filter(|command| is_for_all(command)).count();
        [count(heard, "CAPA"), count(heard, "NOOP"), zero, whole, count(heard, "RETR")]
    };
    // CAPA comes after each login, for it may say something else of each account.
    assert_eq!(counts(&heard[0]), [2, 2, 3, 3, 6]);
    assert_eq!(counts(&heard[1]), [1, 0, 0, 0, 6]);
    for session in [2, 4] {
        assert_eq!(counts(&heard[session]), [1, 0, 0, 0, 0]);
        assert_eq!(counts(&heard[session + 1]), [1, 0, 0, 0, 6]);
    }
}

#[test]
fn a_server_that_goes_on_and_on_is_left_when_its_account_has_had_enough() {
    for (most_time, most_octets, said) in [
        (Duration::from_secs(3600), 1 << 20, "more than 1048576 octets for one account, at TOP"),
        (Duration::from_millis(50), u64::MAX, "more than 50ms for one account, at "),
    ] {
        let peer = served(Served::of(20), |_, command| {
            // One short line follows another, as much as its reader takes.
            (command == "TOP 7 0")
                .then(|| Answer::Repeat(b"+OK\r\n".to_vec(), b"X: y\r\n".to_vec()))
        });
        let how = CaptureOptions { most_time, most_octets, ..how() };
        let fault = capture(&at(&peer), &alice(), &how).unwrap_err();
        assert!(fault.to_string().starts_with(said), "{fault}");
        assert_eq!(fault.next_step(), Retry::Never);
    }
    // The limit is for all sessions of an account together.
    let peer = served(Served::of(400), |session, command| {
        (command == format!("TOP {} 0", 90 * (session + 1)))
            .then(|| Answer::SayAndClose(Vec::new()))
    });
    let fault = capture(&at(&peer), &alice(), &CaptureOptions { most_octets: 40_000, ..how() })
        .unwrap_err();
    assert!(matches!(fault, Fault::Endless { .. }), "{fault:?}");
    assert!(peer.heard().len() > 1, "and it was not the first session that had so much");
}

#[test]
fn an_empty_message_has_no_key_and_that_is_said() {
    let mut mailbox = Served::of(4);
    mailbox.messages[1].1 = b"\r\n\r\n".to_vec();
    let captured = of(&served(mailbox, |_, _| None));
    assert_eq!(captured.maildrop.spent[0].to_string(), "uidl2");
    let [loss] = &captured.losses[..] else { panic!("{:?}", captured.losses) };
    assert!(loss.starts_with("1 messages have nothing that names them (first: uidl2)"), "{loss}");
}

#[test]
fn a_server_without_unique_ids_is_called_that() {
    for (said, retry) in [("-ERR unimplemented", Retry::Never), ("-ERR [SYS/TEMP] x", Retry::Later)]
    {
        let peer = served(Served::of(3), move |_, command| {
            (command == "UIDL").then(|| format!("{said}\r\n").as_str().into())
        });
        let fault = capture(&at(&peer), &alice(), &how()).unwrap_err();
        assert_eq!(fault.next_step(), retry, "{fault}");
        assert_eq!(matches!(fault, Fault::NoUidl(_)), retry == Retry::Never, "{fault:?}");
    }
}

#[test]
fn unique_ids_are_kept_as_they_are_and_none_is_dropped_in_silence() {
    let mut mailbox = Served::of(8);
    let long = "l".repeat(90);
    let uidls = ["a ", long.as_str(), "\"<>'?=+/~!", "b c", "", "same", "same", "\u{e6}"];
    for (message, uidl) in mailbox.messages.iter_mut().zip(uidls) {
        message.0 = uidl.into();
    }
    let captured = of(&served(mailbox, |_, _| None));
    let kept: Vec<_> = captured.maildrop.entries.iter().map(|e| e.uidl.to_string()).collect();
    assert_eq!(kept, ["a", &long, "\"<>'?=+/~!", "same", "same"]);
    let lost: Vec<_> = captured.losses.iter().map(|loss| loss.split(':').next().unwrap()).collect();
    assert_eq!(lost, ["message 4", "message 5", "message 8"]);
    assert!(captured.maildrop.remarks.iter().any(|remark| remark.contains("longer than the 70")));
}

#[test]
fn headers_with_odd_octets_have_the_keys_that_the_plugin_gives_them() {
    let mut mailbox = Served::of(12);
    let odd: [&[u8]; 5] = [
        b"Subject: sm\xc3\xb8r \0 x\r\nTo: a\r\n\r\nx\r\n",
        b"Subject: no CR\nTo: a\n\nbody\n",
        b"Subject: CR CR LF\r\r\nTo: b\r\r\n\r\r\nbody\r\r\n",
        b"..: dots\r\n.\x2e: more\r\nSubject: y\r\n\r\n",
        b"Subject: long\r\nX: 1\r\n \r\n 2\r\n\r\n",
    ];
    for (message, octets) in mailbox.messages.iter_mut().zip(odd) {
        message.1 = octets.to_vec();
    }
    is_whole(&of(&served(mailbox.clone(), |_, _| None)), &mailbox);
    // The same from a server that ends its own lines with LF.
    let answers = mailbox.clone();
    let unix = Peer::start(move |_, command| match answers.answer(command) {
        Answer::Say(said) => {
            Answer::Say(said.into_iter().filter(|&octet| octet != b'\r').collect())
        }
        other => other,
    });
    is_whole(&of(&unix), &mailbox);
}

#[test]
fn what_trickles_within_tls_is_not_waited_for() {
    let dir = certificates();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let pem = |name: &str| dir.path().join(name);
    let certificate = CertificateDer::from_pem_file(pem("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(pem("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let server = std::thread::spawn(move || {
        let (mut to, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(config.into()).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut to).unwrap();
        }
        // It sends one record, an octet now and then, until the client has gone.
        let mut record = Vec::new();
        tls.writer().write_all(&[b'x'; 4000]).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut record).unwrap();
        }
        for octet in record {
            if to.write_all(&[octet]).is_err() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    });
    let server_there =
        Server { host: "127.0.0.1".into(), port, security: Security::Tls, trust: Trust::Anything };
    let fault = capture(&server_there, &alice(), &impatient()).unwrap_err();
    assert!(matches!(fault, Fault::Stalled { command: "the connection", .. }), "{fault:?}");
    assert!(server.join().unwrap(), "it was hung up on before the record was whole");
}

#[test]
fn an_empty_maildrop_is_empty() {
    let captured = of(&served(Served::of(0), |_, _| None));
    assert_eq!((captured.maildrop.state, captured.losses.len()), (State::Empty, 0));
}

#[test]
fn a_hundred_thousand_messages_are_captured_in_one_session() {
    let mailbox = Served::of(100_000);
    let peer = served(mailbox.clone(), |_, _| None);
    let told = AtomicU64::new(0);
    let progress = |more| {
        told.fetch_add(more, Ordering::SeqCst);
    };
    let captured =
        capture(&at(&peer), &alice(), &CaptureOptions { progress: &progress, ..how() }).unwrap();
    is_whole(&captured, &mailbox);
    assert_eq!(peer.heard().len(), 1);
    assert_eq!(told.into_inner(), 100_000);
}

#[test]
fn a_header_without_end_costs_its_message() {
    let mailbox = Served::of(5);
    let endless: Vec<u8> = [b"+OK\r\nSubject: ".to_vec(), vec![b'x'; 65 << 20]].concat();
    let peer = served(mailbox, move |_, command| {
        (command == "TOP 3 0").then(|| Answer::Say(endless.clone()))
    });
    let captured = of(&peer);
    assert_eq!((captured.maildrop.entries.len(), captured.losses.len()), (4, 1));
    assert!(captured.losses[0].contains("more than 67108864 octets"), "{:?}", captured.losses);
}

#[test]
fn answers_that_make_no_sense_are_faults_and_shown_as_ascii() {
    let cases = [
        ("", "\x1b[2J\u{e6} who are you\r\n", "answer to the connection makes no sense: \\x1b[2J"),
        ("", "-ERR too many connections\r\n", "does not greet: too many connections"),
        ("PASS pw", "maybe\r\n", "answer to PASS makes no sense: maybe"),
        ("UIDL", "+OK\r\nx y\r\n.\r\n", "answer to UIDL makes no sense: x y"),
        ("UIDL", "+OK\r\n1 a\r\n1 b\r\n.\r\n", "message 1 twice"),
        ("UIDL", "+OK\r\n99999999999999999999 a\r\n.\r\n", "answer to UIDL makes no sense: 999"),
        ("LIST", "+OK\r\n1 many\r\n.\r\n", "answer to LIST makes no sense: 1 many"),
        ("LIST", "-ERR [SYS/TEMP] x\r\n", "refused LIST: [SYS/TEMP] x"),
        ("CAPA", "gone\r\n", "answer to CAPA makes no sense: gone"),
    ];
    for (asked, said, told) in cases {
        let peer = served(Served::of(3), move |_, command| (command == asked).then(|| said.into()));
        let fault = capture(&at(&peer), &alice(), &how()).unwrap_err();
        let text = fault.to_string();
        assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{text:?}");
        assert!(text.contains(told), "{text:?}");
        assert_eq!(fault.next_step(), Retry::Later, "{said:?}: {text}");
    }
}

#[test]
fn no_password_is_sent_where_the_line_is_not_secret() {
    let starttls = |peer: &Peer| {
        let server = Server { security: Security::StartTls, trust: Trust::Anything, ..at(peer) };
        let fault = capture(&server, &alice(), &how()).unwrap_err();
        let heard = peer.heard().concat().concat();
        assert!(!heard.contains(PASSWORD) && !heard.contains("AUTH"), "{heard}");
        fault
    };
    let peer = served(Served::of(3), |_, _| None);
    assert!(matches!(starttls(&peer), Fault::NoStartTls { .. }));
    let peer = served(Served::of(3), |_, command| {
        (command == "STLS").then(|| "+OK begin\r\n+OK logged in already\r\n".into())
    });
    assert!(matches!(starttls(&peer), Fault::Injected));
}

#[test]
fn a_login_is_tried_once_and_what_is_said_of_it_is_no_secret() {
    for said in ["-ERR [AUTH] no", "-ERR bad command PASS pw", "-ERR [IN-USE] locked"] {
        let peer = served(Served::of(3), move |_, command| {
            (command == "PASS pw").then(|| format!("{said}\r\n").as_str().into())
        });
        let fault = capture(&at(&peer), &alice(), &how()).unwrap_err();
        assert!(matches!(fault, Fault::Login(_)), "{fault:?}");
        assert!(!format!("{fault} {fault:?}").contains("PASS pw"), "{fault:?}");
        assert_eq!(peer.heard().len(), 1, "once");
        let later = said.contains("IN-USE");
        assert_eq!(fault.next_step() == Retry::Later, later, "{said}");
    }
    // It is not shown as SASL PLAIN spells the password, either.
    let plain = Served::of(3).saying(Some("TOP\r\nUIDL\r\nSASL PLAIN\r\n"));
    let peer = served(plain, |_, command| {
        let is_login = command.starts_with("AUTH PLAIN ");
        is_login.then(|| format!("-ERR unknown command: {command}\r\n").as_str().into())
    });
    let fault = capture(&at(&peer), &alice(), &how()).unwrap_err();
    assert!(matches!(fault, Fault::Login(_)), "{fault:?}");
    let spoken =
        peer.heard()[0].iter().find_map(|c| Some(c.strip_prefix("AUTH PLAIN ")?.to_owned()));
    assert!(!format!("{fault} {fault:?}").contains(&spoken.unwrap()), "{fault:?}");

    let peer = served(Served::of(3), |_, _| None);
    let account = Account { credential: Secret::new("two\nlines").into(), ..alice() };
    let fault = capture(&at(&peer), &account, &how()).unwrap_err();
    assert!(matches!(fault, Fault::Unspeakable { what: "password" }));
    assert!(!peer.heard().concat().concat().contains("two"));
}

#[test]
fn commands_wait_for_their_pace() {
    struct Counted(AtomicU64, Mutex<HashSet<u32>>);
    impl Pace for Counted {
        fn commands(&self, count: u32) {
            self.0.fetch_add(count.into(), Ordering::SeqCst);
            self.1.lock().unwrap().insert(count);
        }
    }
    let pace = Counted(AtomicU64::new(0), Mutex::default());
    let peer = served(Served::of(300), |_, _| None);
    capture(&at(&peer), &alice(), &CaptureOptions { pace: &pace, window: 10, ..how() }).unwrap();
    let heard = peer.heard().concat();
    let asked = count(&heard, "TOP") + count(&heard, "UIDL") + count(&heard, "LIST");
    assert_eq!(pace.0.into_inner(), asked as u64);
    assert!(pace.1.into_inner().unwrap().iter().all(|&count| count <= 10));
    let keys = Keys { header: false, ..Keys::default() };
    let peer = served(Served::of(3), |_, _| None);
    let captured = capture(&at(&peer), &alice(), &CaptureOptions { keys, ..how() }).unwrap();
    assert_eq!((captured.maildrop.entries.len(), captured.maildrop.spent.len()), (0, 3));
    assert_eq!(count(&peer.heard().concat(), "TOP"), 0);
}
