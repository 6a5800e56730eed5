//! An adversary of the rules found these histories: each test is the shortest history that broke a
//! promise of `docs/design.md` once.

use crate::support::rules::{CAPTURED_AT, Mail, Server, Storage, capture, captured, mail};
use uidl_keep::format::UidlFormat;
use uidl_keep::index::merge::merge;
use uidl_keep::ledger::FIRST_ORDER;
use uidl_keep::maildrop::Counter;

fn format(text: &str) -> UidlFormat {
    UidlFormat::parse(text).unwrap()
}

fn native(uid: u32) -> String {
    format!("{uid:08x}00000063")
}

/// Two accounts were migrated from one old server whose UIDLs are numbers, and both were listed. A
/// mail of the other account is copied into this INBOX, with its `P` and `O` (sdbox links the file,
/// dsync carries both).
#[test]
fn a_mail_of_another_account_brings_a_uidl_that_was_told_to_others() {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("1", &old[0]), ("2", &old[1])]));
    server.copy(&old[0], true);
    // "b" was deleted on the old server after its capture, or by IMAP on this one.
    server.copy(&mail("c", 3, 3), true);
    server.store("c", "2", Some(FIRST_ORDER + 1));
    let uidls = server.uidls();
    assert!(!uidls.contains(&"2".to_owned()), "{uidls:?}");
}

/// Both mailboxes were made in one second, and so have one UIDVALIDITY.
#[test]
fn a_native_uidl_of_another_account_is_no_evidence_of_ours() {
    let mut server = Server::new(captured(&[]));
    server.put(mail("n1", 11, 1), "n1".into());
    server.put(mail("n2", 12, 1), "n2".into());
    assert_eq!(server.uidls(), [native(1), native(2)]);
    server.delete(2);
    server.put(mail("n3", 14, 1), "n3".into());
    assert_eq!(server.uidls(), [native(1), native(3)]);
    server.put(mail("c", 13, 3), "c".into());
    server.store("c", &native(2), Some(FIRST_ORDER + 9));
    let uidls = server.uidls();
    assert!(!uidls.contains(&native(2)), "{uidls:?}");
}

/// The maildrop is settled under Dovecot's default format. Then the operator sets
/// `pop3_uidl_format` to that of the old server, which has the same UIDVALIDITY and counts on.
#[test]
fn a_settled_maildrop_is_settled_for_one_format_only() {
    let old = mail("a", 1, 1);
    let mut drop = captured(&[("UID1-17", &old)]);
    drop.counter = Some(Counter { format: format("UID%u-%v"), next: 3 });
    drop.captures = vec![capture(CAPTURED_AT, Some(3))];
    let mut server = Server::new(drop);
    (server.uidvalidity, server.is_final) = (17, false);
    server.copy(&old, true);
    assert_eq!(server.uidls(), ["UID1-17"]);
    assert_eq!(server.ledger.as_ref().unwrap().native_from, Some(2));
    server.native = format("UID%u-%v");
    server.put(mail("n", 9, 9), "n".into());
    let uidls = server.uidls();
    // A client polled the old server after the capture; that server had given UID2-17 to a mail of
    // its own.
    assert!(!uidls.contains(&"UID2-17".to_owned()), "{uidls:?}");
}

/// On dbox a message had a derived UIDL since its native one stood at another message as `P`. That
/// message was deleted, and then the ledger is lost.
#[test]
fn what_had_a_derived_uidl_has_it_still_when_the_ledger_is_lost() {
    let mut server = Server::new(captured(&[]));
    server.put(mail("q", 1, 1), "q".into());
    server.put(mail("n", 2, 2), "n".into());
    // This `P` is from an earlier conversion under the same UIDVALIDITY.
    server.store("q", &native(2), None);
    let before = server.uidls();
    assert_eq!(before[0], native(2));
    server.delete(1);
    server.ledger = None;
    // A second client, which knows "q" by this UIDL and has not seen "n", would skip it.
    assert_eq!(server.uidls(), before[1..]);
}

/// Dovecot's index of a dbox is put back alone, and counts as far as before. The last message that
/// bears a UID of the ledger cannot be read.
#[test]
fn a_message_that_cannot_be_read_does_not_vouch_for_the_others() {
    let old: Vec<Mail> = (1..6).map(|n| mail(&format!("m{n}"), n, n)).collect();
    let texts: Vec<String> = (1..6).map(|n| format!("U{n}")).collect();
    let listed: Vec<(&str, &Mail)> = texts.iter().map(String::as_str).zip(&old).collect();
    let mut server = Server::new(captured(&listed));
    old.iter().for_each(|mail| _ = server.copy(mail, true));
    assert_eq!(server.uidls(), texts);
    // The backup has three of them.
    server.held.truncate(3);
    server.next_uid = 4;
    server.put(mail("new4", 44, 4), "new4".into());
    server.put(mail("new5", 45, 5), "new5".into());
    server.held.last_mut().unwrap().readable = false;
    let listing = server.listing();
    let hidden = listing
        .iter()
        .find(|(uidl, held)| held.mail.name == "new4" && texts.contains(&uidl.to_string()));
    assert!(hidden.is_none(), "{hidden:?}");
}

/// A user was forgotten once, long ago. Later the ledger is lost; mark and `O` are there.
#[test]
fn order_numbers_count_also_after_a_forget_of_long_ago() {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("1", &old[0]), ("2", &old[1])]));
    server.storage = Storage::Maildir;
    server.stamps.forgotten = 5;
    server.copy(&old[1], true);
    assert_eq!(server.uidls(), ["2"]);
    server.copy(&old[0], true);
    assert_eq!(server.uidls(), ["2", "1"]);
    server.ledger = None;
    assert_eq!(server.uidls(), ["2", "1"]);
}

/// The old server counts: 5 is its next number at the first capture. It gives 5, which a client
/// polls, then loses its list of UIDs and counts anew under another UIDVALIDITY, and is captured
/// again. The new mailbox has the first UIDVALIDITY, and nobody has listed it yet.
#[test]
fn numbers_that_were_given_after_the_last_capture_of_a_counter_are_spent_too() {
    let old = mail("a", 1, 1);
    let counted = |uidl_text: &str, uidvalidity, next, taken| {
        let mut drop = captured(&[(uidl_text, &old)]);
        drop.uidvalidity = Some(uidvalidity);
        drop.counter = Some(Counter { format: format("UID%u-%v"), next });
        drop.captures = vec![capture(taken, Some(next))];
        drop.captures[0].uidvalidity = Some(uidvalidity);
        drop
    };
    let first = counted("UID4-17", 17, 5, CAPTURED_AT);
    let second = counted("UID1-18", 18, 3, CAPTURED_AT + 9);
    let mut server = Server::new(merge(first, second).unwrap().maildrop);
    (server.uidvalidity, server.native) = (17, format("UID%u-%v"));
    server.next_uid = 4;
    server.copy(&old, true);
    server.put(mail("n", 9, 9), "n".into());
    let uidls = server.uidls();
    assert_eq!(uidls[0], "UID1-18");
    assert!(!uidls.contains(&"UID5-17".to_owned()), "{uidls:?}");
}

/// The maildrop was captured over POP3 while it was empty, because its user downloads and deletes:
/// no UIDL says how the old server counts. dsync kept UIDVALIDITY and next UID, both servers are in
/// Dovecot's default format, and the old one gives its next mail the next number, which a client
/// polls there.
#[test]
fn an_old_server_of_which_no_counter_is_known_may_count_as_the_new_one_does() {
    let mut drop = captured(&[]);
    (drop.uidvalidity, drop.state) = (None, uidl_keep::maildrop::State::Empty);
    let mut server = Server::new(drop);
    server.is_final = false;
    server.next_uid = 500;
    server.put(mail("n", 9, 9), "n".into());
    let uidls = server.uidls();
    assert!(!uidls.contains(&native(500)), "{uidls:?}");
}

/// New mail was told numbers beyond those that the old server may have given. Another capture is
/// built, in which it has counted a little further; then the ledger is lost. `P`, `O` and mark are
/// there.
#[test]
fn what_was_told_beyond_the_counter_stays_when_the_counter_goes_on() {
    let counted = |next, taken| {
        let mut drop = captured(&[]);
        drop.counter = Some(Counter { format: format("%08Xu%08Xv"), next });
        drop.captures = vec![capture(taken, Some(next))];
        drop
    };
    let first = counted(5, CAPTURED_AT);
    {
        let storage = Storage::Maildir;
        let mut server = Server::new(first.clone());
        (server.uidvalidity, server.storage, server.is_final) = (17, storage, false);
        server.uidls();
        server.log_in();
        assert_eq!(server.next_uid, 5 + 65_536);
        server.put(mail("n", 9, 9), "n".into());
        let before = server.uidls();
        assert_eq!(before, ["0001000500000011"]);
        server.captured = merge(first.clone(), counted(8, CAPTURED_AT + 9)).unwrap().maildrop;
        assert_eq!(server.uidls(), before);
        server.ledger = None;
        assert_eq!(server.uidls(), before, "{storage:?}");
    }
}

/// An older list of UIDs is put back, and gives a UID again: to a copy, which has the GUID of its
/// original.
#[test]
fn a_copy_that_has_a_uid_again_does_not_get_the_derived_uidl_of_its_original() {
    let mut server = Server::new(captured(&[]));
    (server.storage, server.native) = (Storage::Maildir, format("%u"));
    server.put(mail("x", 11, 1), "x".into());
    server.put(mail("a", 12, 1), "a".into());
    let before = server.uidls();
    // The list that is put back knows neither: "a" is listed first now.
    server.delete(1);
    (server.held[0].uid, server.next_uid) = (1, 2);
    server.held[0].stored = None;
    server.held[0].stored_order = None;
    server.put(mail("a", 12, 1), "copy a".into());
    let uidls = server.uidls();
    assert_eq!(uidls[0], before[1], "it is known by its name");
    assert_ne!(uidls[0], uidls[1], "twice in one listing");
}

/// The backup is of the time before the first listing, which raised the next UID by 65,536 as the
/// old server counts on. All is put back, and the operator says so.
#[test]
fn restored_goes_beyond_what_the_first_listing_had_jumped_over() {
    let mut drop = captured(&[]);
    drop.counter = Some(Counter { format: format("UID%u-%v"), next: 4 });
    drop.captures = vec![capture(CAPTURED_AT, Some(4))];
    let mut server = Server::new(drop);
    (server.uidvalidity, server.native) = (17, format("UID%u-%v"));
    server.put(mail("a", 1, 1), "a".into());
    let backup = server.clone();
    server.log_in();
    server.put(mail("n", 9, 9), "n".into());
    let told = server.uidls()[1].clone();
    let mut server = backup;
    server.stamps.restored = 5;
    server.log_in();
    server.put(mail("o", 8, 8), "o".into());
    let uidls = server.uidls();
    assert!(!uidls.contains(&told), "{told} is another mail's: {uidls:?}");
}

/// "n" was moved away and back after an older list of UIDs was put back: it has the UID that "y"
/// had once, and is told what it was told before. Nothing stands with the mail, and the ledger is
/// lost.
#[test]
fn a_new_mail_that_came_back_under_anothers_uid_is_not_told_what_that_uid_gives() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        let old = mail("a", 1, 1);
        let mut server = Server::new(captured(&[("U1", &old)]));
        (server.storage, server.bakes) = (storage, false);
        server.copy(&old, true);
        server.put(mail("n", 9, 1), "n".into());
        server.log_in();
        server.put(mail("y", 9, 2), "y".into());
        let told_to_y = server.uidls()[2].clone();
        assert_eq!(told_to_y, native(3));
        server.delete(2);
        server.delete(3);
        server.next_uid = 3;
        server.put(mail("n", 9, 1), "n".into());
        assert_eq!(server.uidls(), ["U1".to_owned(), native(2)], "{storage:?}");
        server.ledger = None;
        let uidls = server.uidls();
        assert!(!uidls.contains(&told_to_y), "{storage:?}: {uidls:?}");
    }
}

/// Whether fetchmail can search the listing by halves: all that it knows comes before all that it
/// does not know.
fn is_new_behind_known(uidls: &[String], known: &[String]) -> bool {
    uidls.iter().skip_while(|uidl| known.contains(uidl)).all(|uidl| !known.contains(uidl))
}

/// Nothing is baked, the ledger is lost, and a late copy comes.
#[test]
fn a_late_copy_stands_behind_the_new_mail_that_the_mark_alone_remembers() {
    for storage in [Storage::Maildir, Storage::Dbox] {
        let old = [mail("a", 1, 1), mail("b", 2, 2)];
        let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
        (server.storage, server.bakes) = (storage, false);
        server.copy(&old[0], true);
        server.put(mail("n", 9, 1), "n".into());
        let known = server.uidls();
        server.ledger = None;
        server.copy(&old[1], true);
        let uidls = server.uidls();
        assert!(is_new_behind_known(&uidls, &known), "{storage:?}: {uidls:?} to {known:?}");
    }
}

/// The same where all is baked in time, but the list of UIDs is put back older with the ledger
/// lost: the copy is counted first, for its name is older.
#[test]
fn a_late_copy_stands_behind_new_mail_also_where_the_list_was_put_back() {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
    server.storage = Storage::Maildir;
    server.copy(&old[0], true);
    server.put(mail("m", 9, 1), "m".into());
    server.put(mail("n", 9, 2), "n".into());
    server.log_in();
    server.held.retain(|held| held.mail.name != "m");
    let known = server.uidls();
    assert_eq!(known, ["U1".to_owned(), native(3)]);
    server.ledger = None;
    // The list that is put back has "a" alone; "b" and "n" are found beside it.
    let mut n = server.held.pop().unwrap();
    server.next_uid = 2;
    server.copy(&old[1], true);
    (n.uid, n.stored, n.stored_order) = (3, None, None);
    server.held.push(n);
    server.next_uid = 4;
    let uidls = server.uidls();
    assert!(is_new_behind_known(&uidls, &known), "{uidls:?} to {known:?}");
}

/// The index of a dbox is put back as it was before "y" came, the ledger is lost, and the late copy
/// has the UID of "y".
#[test]
fn a_late_copy_stands_behind_new_mail_also_where_a_dbox_counts_anew() {
    let old = [mail("a", 1, 1), mail("b", 2, 2)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1])]));
    server.copy(&old[0], true);
    server.put(mail("n", 9, 1), "n".into());
    server.put(mail("y", 9, 2), "y".into());
    let known = server.uidls();
    server.ledger = None;
    server.delete(3);
    server.next_uid = 3;
    server.copy(&old[1], true);
    let uidls = server.uidls();
    assert!(is_new_behind_known(&uidls, &known), "{uidls:?} to {known:?}");
}

/// A Maildir is copied without uidl-keep's own files. Nothing was captured of the maildrop: it was
/// empty.
#[test]
fn new_mail_that_is_not_baked_yet_keeps_its_uidl_where_ledger_and_mark_are_lost() {
    let mut drop = captured(&[]);
    (drop.uidvalidity, drop.state) = (None, uidl_keep::maildrop::State::Empty);
    let mut server = Server::new(drop);
    server.storage = Storage::Maildir;
    server.log_in();
    for nth in 1..4 {
        server.put(mail("n", 9, nth), format!("n{nth}"));
        server.log_in();
    }
    let before = server.uidls();
    server.lose_memory();
    assert_eq!(server.uidls(), before);
}

/// Two front ends have an `INDEX=` each: on a Maildir the names tell.
#[test]
fn new_mail_is_answered_from_the_ledger_alone_whichever_front_end_asks() {
    let old = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &old)]));
    server.storage = Storage::Maildir;
    server.copy(&old, true);
    server.log_in();
    for nth in 1..4 {
        server.put(mail("n", 9, nth), format!("n{nth}"));
        server.index_id += 1;
        server.log_in();
    }
    assert_eq!(server.grown, 3);
}

/// The account's owner writes a ledger with a record beyond its next UID.
#[test]
fn a_ledger_that_has_a_record_beyond_its_next_uid_does_not_grow() {
    let old = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &old)]));
    server.copy(&old, true);
    server.put(mail("n", 9, 1), "n".into());
    server.log_in();
    let forged = server.ledger.as_mut().unwrap();
    (forged.epoch.next_uid, forged.native_from) = (2, Some(2));
    forged.records[1].names.clear();
    forged.records[1].uidl = crate::support::rules::uidl("forged");
    server.mark = Some(uidl_keep::ledger::Mark::of(forged, 2));
    server.put(mail("o", 8, 8), "o".into());
    server.log_in();
    assert_eq!(server.grown, 0);
    let ledger = server.ledger.unwrap();
    assert!(uidl_keep::ledger::Ledger::decode(&ledger.encode()).is_ok());
}
