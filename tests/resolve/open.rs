//! What the rules promise and the code does not hold yet: each fails.

use crate::resolve_support::{Mail, Server, Storage, captured, mail, uidl};
use crate::{is_derived, listed_once, native};
use uidl_keep::ledger::{Mark, Told};

/// "Settled" promises that Dovecot's own UIDLs are unspent from there on, and after a damaged mark
/// any may have been told. A ledger that is older is put back with its UIDs, and the mark is
/// damaged: at the first login all is derived, and from the second on the short way gives native
/// UIDLs again.
#[test]
fn what_had_a_damaged_mark_is_not_settled_while_any_number_may_have_been_told() {
    let a = mail("a", 1, 1);
    let mut server = Server::new(captured(&[("U1", &a)]));
    server.copy(&a, true);
    server.uidls();
    let before = server.clone();
    for n in 0..3 {
        server.put(mail("later", 9, n), format!("later{n}"));
    }
    assert_eq!(server.uidls()[1], native(2));
    server = before;
    server.mark = Some(Mark::damaged());
    server.log_in();
    assert_eq!(server.ledger.as_ref().unwrap().native_from, None);
    let ledger = server.log_in().ledger;
    assert_eq!(ledger.told, [Told { uidvalidity: 99, below: u32::MAX }]);
    assert_eq!(
        ledger.native_from, None,
        "the rules would derive what the short way takes as it is"
    );
}

/// Dovecot's index of a dbox is put back from a backup, alone, with its id; so many mails come that
/// it has counted as far as before when the next login comes.
#[test]
fn a_new_message_on_a_dbox_is_not_taken_for_what_had_its_uid_before_the_index_was_put_back() {
    let (mut server, _) = listed_once();
    let uid = server.put(mail("later", 9, 9), "later".into());
    assert_eq!(server.uidls()[2], native(3));
    server.delete(uid);
    server.next_uid = uid;
    server.put(mail("new", 8, 8), "new".into());
    let uidls = server.uidls();
    assert!(is_derived(&uidls[2]), "a client knows this one for another mail: {uidls:?}");
}

/// `forget` undoes everything of ours. A client that polled only the old server knows R2, looks for
/// the first unknown message by halves, and never sees what stands before it.
#[test]
fn after_forgetting_what_clients_know_already_stands_before_what_they_do_not_on_a_maildir_too() {
    let (mut server, old) = listed_once();
    server.storage = Storage::Maildir;
    server.delete(1);
    server.put(Mail { name: "new".into(), ..mail("new", 9, 9) }, "new".into());
    server.log_in();
    server.stamps.forgotten = 7;
    server.captured = captured(&[("R1", &old[0]), ("R2", &old[1])]);
    server.captured.spent.push(uidl("U2"));
    assert_eq!(server.uidls()[0], "R2");
}
