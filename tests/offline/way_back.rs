//! Captures of a server whose clients our own plugin has answered: its ledgers, and its site.

use std::fs;
use std::path::Path;

use uidl_keep::capture::disk::server::{ServerKind, capture};
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::told_here::ToldBy;
use uidl_keep::format::UidlFormat;
use uidl_keep::key::FileKey;
use uidl_keep::ledger::control::{LEDGER, LOCK};
use uidl_keep::ledger::{Epoch, Ledger, Mark, Noted, Provenance, Record, Told, UnclaimedKeys};
use uidl_keep::maildrop::State;
use uidl_keep::site::Site;
use uidl_keep::uidl::Uidl;
use uidl_keep::way_back::{ControlDirectory, doubt, judge};

use crate::shared::capture::{make, message, remarks_on, spent, uidls};
use crate::support::cli::Here;
use crate::support::maildir::Old;

const LIST: &str = "dovecot-uidlist";
const USER: &str = "alice@example.com";

fn dovecot(format: &str) -> ServerKind {
    ServerKind::Dovecot { format: UidlFormat::parse(format).unwrap() }
}

fn record(uid: u32, order: u32, uidl: &str, provenance: Provenance, file: &str) -> Record {
    Record {
        uid,
        order: (1 << 20) + order,
        uidl: Uidl::new(uidl.as_bytes()).unwrap(),
        provenance,
        names: [Ledger::name_of_cut(&FileKey::cut_of(file.as_bytes()))].into_iter().collect(),
        entry: None,
    }
}

/// Clients were told of a, b and c, in another order than their UIDs; b has gone since. What d had
/// is a claim alone.
fn ledger() -> Ledger {
    Ledger {
        user: USER.to_owned(),
        begun_after: 0,
        epoch: Epoch { uidvalidity: 17, next_uid: 9, index_id: 3 },
        next_order: (1 << 20) + 9,
        told: vec![Told { uidvalidity: 17, below: 9 }, Told { uidvalidity: 5, below: 40 }],
        restored: 0,
        unguarded: 0,
        rehearsal: 0,
        index: Noted::default(),
        native_from: Some(9),
        unclaimed: UnclaimedKeys::default(),
        records: vec![
            record(0, 0, "UIDd-4", Provenance::File, "d"),
            record(2, 3, "UIDa-4", Provenance::File, "a"),
            record(3, 2, "UIDb-4", Provenance::Header, "b"),
            record(4, 1, "4.17", Provenance::Native, "c"),
        ],
    }
}

fn remember(dir: &Path, ledger: &Ledger) {
    fs::write(dir.join(LEDGER), ledger.encode()).unwrap();
    fs::write(dir.join(LOCK), Mark::of(ledger, 3).to_file()).unwrap();
}

const NOW: &str = "3 V17 N12\n2 PUIDa-4 O1048579 :a\n4 :c\n9 :e\n11 Pforeign O7 :f\n";

fn listed(ledger: &Ledger, list: &str) -> Old {
    let files = ["cur/a:2,S", "cur/c:2,S", "cur/e:2,S", "new/f", "new/g"];
    let old = Old::of(files).state(LIST, list);
    remember(&old.path, ledger);
    old
}

#[test]
fn the_ledger_says_who_was_told_what_and_in_which_order() {
    let old = listed(&ledger(), NOW);
    let captured = old.capture(&dovecot("%u.%v"));
    assert_eq!(captured.losses, [""; 0]);
    // New since, by Dovecot's own format; then a UIDL of another server's, which had its place.
    assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4", "foreign", "9.17"]);
    assert_eq!(spent(&captured.maildrop), ["UIDb-4", "UIDd-4"]);
    assert_eq!(captured.maildrop.counter.as_ref().unwrap().next, 12);
    assert!(matches!(captured.told_by, ToldBy::Ledger { begun_after: 0, restored: 0 }));
    assert!(remarks_on(&captured, "1 messages not in dovecot-uidlist yet"));
    // Numbers under a UIDVALIDITY of before are those of a capture of before.
    let before = &captured.maildrop.captures;
    assert_eq!((before[0].uidvalidity, before[0].next), (Some(5), Some(40)));
    assert_eq!(before.len(), 2);
    assert!(captured.maildrop.entries.iter().all(|entry| entry.first_capture == 1));
}

#[test]
fn what_was_told_is_never_given_again_although_dovecot_has_counted_back() {
    let mut ledger = ledger();
    ledger.told[0].below = 500;
    let old = listed(&ledger, NOW);
    let captured = old.capture(&dovecot("%u.%v"));
    assert_eq!(captured.maildrop.counter.as_ref().unwrap().next, 500);
    // Nobody knows to whom the number 9 was told.
    assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4", "foreign"]);
    assert!(spent(&captured.maildrop).contains(&"9.17".to_owned()));
    assert!(captured.notes[0].contains("1 messages have no unique-id (first: uid 9)"));
}

#[test]
fn a_message_that_the_rules_must_look_at_has_no_uidl_where_the_old_server_may_have_given_it() {
    // An old message may still come and get its own.
    let unclaimed = UnclaimedKeys::new(vec![*b"somekeys"], None);
    let open = Ledger { unclaimed, index: Noted { next: 3, ..Noted::default() }, ..ledger() };
    let mut ledger = Ledger { native_from: None, ..open.clone() };
    for ledger in [&open, &ledger] {
        let captured = listed(ledger, NOW).capture(&dovecot("%u.%v"));
        assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4", "foreign"]);
        assert!(spent(&captured.maildrop).contains(&"9.17".to_owned()));
    }
    // Beyond its numbers, and the margin, nothing can be of the old server.
    let list = NOW.replace("9 :e", "65539 :e").replace("N12", "N65540");
    let captured = listed(&ledger, &list).capture(&dovecot("%u.%v"));
    assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4", "foreign", "65539.17"]);
    // A number alone is never given by the plugin.
    ledger.index.next = 0;
    let captured = listed(&ledger, NOW).capture(&dovecot("%u"));
    assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4", "foreign"]);
}

#[test]
fn records_are_found_by_name_where_uids_do_not_hold() {
    for list in
        ["3 V18 N9\n1 :c\n2 :a\n3 :d\n", "3 V17 N20\n4 :a\n2 :c\n9 :d\n", "3 V17 N5\n1 :a\n2 :c\n"]
    {
        let old = Old::of(["cur/a:2,S", "cur/c:2,S", "cur/d:2,S"]).state(LIST, list);
        remember(&old.path, &ledger());
        let captured = old.capture(&dovecot("%u.%v"));
        // What came back takes its own place.
        assert_eq!(uidls(&captured.maildrop)[..3], ["UIDd-4", "4.17", "UIDa-4"], "{list}");
        assert!(spent(&captured.maildrop).contains(&"UIDb-4".to_owned()), "{list}");
    }
    // The list is lost, and Dovecot will make another UIDVALIDITY.
    let old = Old::of(["cur/a:2,S", "cur/c:2,S"]);
    remember(&old.path, &ledger());
    let captured = old.capture(&dovecot("%u.%v"));
    assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4"]);
    assert_eq!(captured.maildrop.counter, None);
}

#[test]
fn two_messages_under_one_uidl_are_none_where_only_one_was_told() {
    // Somebody gave e the UIDL of a, both g and h one that is nobody's, and i a number that was
    // told.
    let list = "3 V17 N13\n2 :a\n4 :c\n9 PUIDa-4 :e\n10 Px :g\n11 Px :h\n12 P6.17 :i\n";
    let files = ["cur/a:2,", "cur/c:2,", "cur/e:2,", "cur/g:2,", "cur/h:2,", "cur/i:2,"];
    let old = Old::of(files);
    let old = old.state(LIST, list);
    remember(&old.path, &ledger());
    let captured = old.capture(&dovecot("%u.%v"));
    assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4"]);
    let spent = spent(&captured.maildrop);
    for uidl in ["9.17", "10.17", "11.17", "x", "12.17", "6.17"] {
        assert!(spent.contains(&uidl.to_owned()), "{uidl}: {spent:?}");
    }
}

fn fails(old: &Old, because: &str) -> Captured {
    let captured = old.capture(&dovecot("%u.%v"));
    assert_eq!(captured.maildrop.state, State::Failed, "{because}");
    assert!(captured.losses[0].contains(because), "{because}: {:?}", captured.losses);
    captured
}

#[test]
fn a_memory_that_is_not_whole_is_no_capture() {
    let old = listed(&ledger(), NOW);
    let mark = Mark::of(&ledger(), 3);
    let write_mark = |mark: &Mark| fs::write(old.path.join(LOCK), mark.to_file()).unwrap();
    write_mark(&Mark { next_order: mark.next_order + 1, ..mark.clone() });
    fails(&old, "is older than its mark");
    write_mark(&Mark { begun_after: 1, next_order: 1, ..mark.clone() });
    fails(&old, "is older than its mark");
    write_mark(&Mark::damaged());
    fails(&old, "uidl-keep.lock is damaged");
    write_mark(&mark);
    let mut octets = ledger().encode();
    octets[200] ^= 1;
    fs::write(old.path.join(LEDGER), &octets).unwrap();
    fails(&old, "put it back from a backup");
    let of_bob = Ledger { user: "bob@example.com".to_owned(), ..ledger() };
    fs::write(old.path.join(LEDGER), of_bob.encode()).unwrap();
    fails(&old, "it is the ledger of \"bob@example.com\"");
    fs::remove_file(old.path.join(LEDGER)).unwrap();
    fails(&old, "uidl-keep.ledger is lost");
    std::os::unix::fs::symlink("/etc/passwd", old.path.join(LEDGER)).unwrap();
    fails(&old, "symbolic link");
    // A mark that is behind takes nothing away, and no mark neither; a blank lock is no mark.
    fs::remove_file(old.path.join(LEDGER)).unwrap();
    fs::write(old.path.join(LEDGER), ledger().encode()).unwrap();
    write_mark(&Mark { next_order: 1, ..mark });
    assert_eq!(uidls(&old.capture(&dovecot("%u.%v")).maildrop).len(), 4);
    fs::write(old.path.join(LOCK), " ".repeat(Mark::OCTETS)).unwrap();
    assert_eq!(uidls(&old.capture(&dovecot("%u.%v")).maildrop).len(), 4);
    fs::remove_file(old.path.join(LEDGER)).unwrap();
    let without = old.capture(&dovecot("%u.%v"));
    assert_eq!(uidls(&without.maildrop), ["foreign", "UIDa-4", "4.17", "9.17"]);
    assert_eq!(without.told_by, ToldBy::Stored);
}

#[test]
fn a_rehearsal_was_told_to_nobody() {
    let rehearsed = Ledger { rehearsal: 7, ..ledger() };
    let old = listed(&rehearsed, NOW);
    assert_eq!(fails(&old, "it was rehearsed here").told_by, ToldBy::Nobody);
    // A client has listed it since, and the ledger could not be written then.
    fs::write(old.path.join(LOCK), Mark::of(&ledger(), 3).to_file()).unwrap();
    assert_eq!(uidls(&old.capture(&dovecot("%u.%v")).maildrop).len(), 4);
}

#[test]
fn the_ledger_is_looked_for_where_the_control_files_are() {
    let old = Old::of(["cur/a:2,S", "cur/c:2,S", "cur/e:2,S", "new/f", "new/g"]);
    let control = tempfile::tempdir().unwrap();
    fs::write(control.path().join(LIST), NOW).unwrap();
    remember(control.path(), &ledger());
    let control = Source::named(USER, control.path());
    let source = Source::named(USER, &old.path).with_control(control);
    let captured = capture(&dovecot("%u.%v"), Keys::default(), &source);
    assert_eq!(uidls(&captured.maildrop), ["4.17", "UIDa-4", "foreign", "9.17"]);
    // The list that an rsync has left with the mail is nobody's.
    let old = old.state(LIST, NOW);
    let nowhere = Source::named(USER, old.path.join("not-there"));
    let source = Source::named(USER, &old.path).with_control(nowhere);
    let captured = capture(&dovecot("%u.%v"), Keys::default(), &source);
    assert!(captured.losses[0].contains("no dovecot-uidlist"), "{:?}", captured.losses);
    // What is in the way is no absence.
    let link = old.path.join("link");
    std::os::unix::fs::symlink("/", &link).unwrap();
    let source = Source::named(USER, &old.path).with_control(Source::named(USER, link));
    let captured = capture(&dovecot("%u.%v"), Keys::default(), &source);
    assert!(captured.losses[0].contains("symbolic link"), "{:?}", captured.losses);
}

const BLOCK: &str = "uidl-keep-listing 1
maildrop alice@example.com
state captured
uidvalidity 4
counter 9 UID%u-%v
spent UID8-4
1 UID1-4 file=a
2 UID2-4 file=b
.
uidl-keep-listing 1
maildrop bob@example.com
state failed
remark permission denied
.
";

/// The server of a site, with a Maildir of alice's in mail/example.com/alice.
fn server() -> Here {
    let here = Here::new();
    here.write("first.listing", BLOCK);
    let built = here.run("build --final -o site first.listing");
    assert_eq!(built.status, 0, "{}", built.stderr);
    let maildir = here.path("mail/example.com/alice");
    make(&maildir);
    for file in ["cur/a:2,S", "cur/b:2,S"] {
        fs::write(maildir.join(file), message(file)).unwrap();
    }
    fs::write(maildir.join(LIST), "3 V17 N3\n1 :a\n2 :b\n").unwrap();
    here
}

fn run(here: &Here, more: &str) -> (i32, String, String) {
    let mail = here.path("mail");
    let pattern = format!("{}/{{domain}}/{{local}}", mail.display());
    let ran = here.run(&format!("capture dovecot --format %u.%v --pattern {pattern} {more}"));
    (ran.status, ran.stdout, ran.stderr)
}

#[test]
fn whom_no_client_has_listed_here_is_taken_from_the_index() {
    let here = server();
    let pattern = format!("{}/{{domain}}/{{local}}", here.path("mail").display());
    let said = format!("--site {} --control {pattern}", here.path("site").display());
    let (status, listing, stderr) = run(&here, &said);
    assert_eq!(status, 0, "{stderr}");
    for line in ["1 UID1-4 ", "2 UID2-4 ", "spent UID8-4", "counter 9 UID%u-%v"] {
        assert!(listing.contains(&format!("\n{line}")), "{line}: {listing}");
    }
    assert!(listing.contains("remark no POP3 client has listed it on this server"), "{listing}");
    // The next server's index is then what this server's was.
    here.write("next.listing", &listing);
    here.quiet("build --final -o next next.listing");
    let dumped = |site: &str| here.run(&format!("dump {site}")).stdout;
    assert_eq!(dumped("next"), dumped("site").split_inclusive(".\n").next().unwrap());

    // Dovecot has not even opened it since the move.
    fs::remove_file(here.path("mail/example.com/alice").join(LIST)).unwrap();
    let (status, again, stderr) = run(&here, &said);
    assert_eq!((status, again), (0, listing), "{stderr}");

    // Once clients have listed it, the ledger says what they know.
    remember(&here.path("mail/example.com/alice"), &Ledger { told: Vec::new(), ..ledger() });
    let (status, listing, _) = run(&here, &said);
    assert_eq!(status, 0);
    assert!(listing.contains("UIDa-4 "), "{listing}");
}

#[test]
fn where_nobody_can_tell_the_maildrop_fails() {
    let here = server();
    let site = here.path("site").display().to_string();
    // Nobody answers there, and no pattern says where the ledger would lie.
    let (status, listing, stderr) = run(&here, &format!("--site {site} --doveadm /bin/false"));
    assert_eq!(status, 1);
    assert!(listing.contains("state failed"), "{listing}");
    assert!(stderr.contains("where its ledger would lie is not known"), "{stderr}");
    let elsewhere = here.path("control/example.com/bob");
    fs::create_dir_all(elsewhere).unwrap();
    let control = format!("{}/{{domain}}/{{local}}", here.path("control").display());
    let (status, _, stderr) = run(&here, &format!("--site {site} --control {control}"));
    assert_eq!(status, 1);
    assert!(stderr.contains("nor a pattern"), "{stderr}");
    fs::remove_dir_all(here.path("control/example.com")).unwrap();
    let (status, _, stderr) = run(&here, &format!("--site {site} --control {control}"));
    assert_eq!(status, 1);
    assert!(stderr.contains("nor a pattern"), "{stderr}");

    let pattern = format!("{}/{{domain}}/{{local}}", here.path("mail").display());
    let said = format!("--site {site} --control {pattern}");
    here.run(&format!("listed --site {site} {USER}"));
    let (status, _, stderr) = run(&here, &said);
    assert_eq!(status, 1);
    assert!(stderr.contains("and there is no ledger: log in here"), "{stderr}");
    remember(&here.path("mail/example.com/alice"), &ledger());
    assert_eq!(run(&here, &said).0, 0);
    let ran = here.run(&format!("restored --site {site} {USER}"));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let (status, _, stderr) = run(&here, &said);
    assert_eq!(status, 1);
    assert!(stderr.contains("was restored from a backup"), "{stderr}");
    here.run(&format!("forget --site {site} {USER}"));
    let (status, _, stderr) = run(&here, &said);
    assert_eq!(status, 1);
    assert!(stderr.contains("POP3 refuses this user here"), "{stderr}");
    assert!(
        here.trouble("capture dovecot --format %u --pattern /x/{user} --site /no").contains("/x")
    );
}

#[test]
fn a_site_of_this_machine_is_a_reason_to_ask_whose_server_it_is() {
    let here = server();
    let site = Site::new(here.path("site"));
    let source = Source::named(USER, here.path("mail/example.com/alice"));
    let captured = |format: &str| capture(&dovecot(format), Keys::default(), &source);
    let why = doubt(&site, USER, &captured("%u.%v")).unwrap();
    assert!(why.contains("say --site none"), "{why}");
    // A capture of the server before knows the same UIDLs, or some.
    assert_eq!(doubt(&site, USER, &captured("UID%u-4")), None);
    assert_eq!(doubt(&site, "carol@example.com", &captured("%u.%v")), None);
    assert_eq!(doubt(&site, "bob@example.com", &captured("%u.%v")), None);
    // The site itself, asked: who was not captured when he came stays failed.
    let judged = judge(&site, "bob@example.com", &ControlDirectory::Known, captured("%u.%v"));
    assert_eq!(judged.maildrop.state, State::Failed);
    let stranger = captured("%u.%v");
    let judged = judge(&site, "carol@example.com", &ControlDirectory::Known, stranger.clone());
    assert_eq!(judged, stranger);
}
