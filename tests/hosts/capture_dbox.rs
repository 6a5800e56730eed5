//! mdbox and sdbox, which only Dovecot can read: doveadm's output, compared with the POP3 listing.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use crate::shared::capture::{remarks_on, uidls};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::helper::uidl_keep;
use crate::support::host::{Host, Line};
use crate::support::imap;
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming};
use proptest::prelude::*;
use uidl_keep::capture::doveadm::{DoveadmError, DoveadmRequest, read};
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::keys::{Keys, MessageRead};
use uidl_keep::format::UidlFormat;
use uidl_keep::key::Depth;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::{Maildrop, State};

const USER: &str = "alice@example.com";

/// The output of the commands in `man uidl-keep`, for one user.
fn ask(server: &Dovecot, message: &str) -> String {
    let status =
        ["-f", "json", "mailbox", "status", "-u", USER, "messages uidvalidity uidnext", "INBOX"];
    let fields = format!("uid guid pop3.uidl pop3.order size.virtual {message}");
    let fetch = ["-f", "json", "fetch", "-u", USER, &fields, "mailbox", "INBOX"];
    server.doveadm_ok(status) + &server.doveadm_ok(fetch)
}

fn run(input: &str, args: &[&str]) -> Output {
    let mut helper = uidl_keep()
        .args(["capture", "doveadm", "--format", "%08Xu%08Xv"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The helper may have ended at the first octets.
    let _ = helper.stdin.take().unwrap().write_all(input.as_bytes());
    helper.wait_with_output().unwrap()
}

fn only_block(ran: &Output) -> Maildrop {
    let mut blocks = Reader::new(&ran.stdout[..]);
    let block = blocks.next().expect("a block").unwrap();
    assert!(blocks.next().is_none());
    block
}

/// Compares a capture with what POP3 lists and gives: UIDLs, order, sizes and fingerprints.
fn assert_captured(server: &Dovecot, message: &str) -> Maildrop {
    let mut session = server.login(USER).expect("the one password");
    let (listed, sizes) = (session.uidl().unwrap(), session.list().unwrap());
    let given: Vec<_> = (1..=listed.len()).map(|number| session.retr(number).unwrap()).collect();
    session.quit().unwrap();
    let ran = run(&ask(server, message), &["--user", USER, "--keys", "file,header,message,origin"]);
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    let maildrop = only_block(&ran);
    assert_eq!(uidls(&maildrop), listed);
    for ((entry, size), given) in maildrop.entries.iter().zip(sizes).zip(given) {
        let of = MessageRead::read(&given[..], Depth::Message).unwrap().of;
        assert_eq!((entry.header, entry.origin), (of.header, of.origin), "{}", entry.uidl);
        assert_eq!(entry.octets, Some(size), "{}", entry.uidl);
        if message == "hdr" {
            assert_eq!(entry.message, None);
        } else if entry.message.is_some() {
            assert_eq!(entry.message, of.message, "{}", entry.uidl);
        }
        assert!(entry.guid.is_some() && entry.uid.is_some());
    }
    maildrop
}

#[test]
fn what_doveadm_prints_is_captured_as_pop3_lists_it() {
    for line in Line::asked() {
        let Some(host) = Host::dovecot(line) else { continue };
        for store in [Store::Mdbox, Store::Sdbox] {
            let server = Dovecot::start(&host, Config::default().store(store)).unwrap();
            let messages: Vec<Vec<u8>> =
                mail::maildrop(24).iter().map(Message::on_the_wire).collect();
            imap::append(server.imap(), USER, messages.iter().map(Vec::as_slice));
            let by_header = assert_captured(&server, "hdr");
            assert_eq!(by_header.entries.len(), 24);
            assert_eq!(by_header.counter.as_ref().unwrap().next, 25);
            assert!(by_header.remarks.iter().any(|remark| remark.contains("fetch text")));
            let whole = assert_captured(&server, "text");
            let without = whole.entries.iter().filter(|entry| entry.message.is_none()).count();
            // The body in ISO 8859-1 does not come through JSON as it is.
            assert!(without <= 2, "{without} of {line:?}");
            let remark = format!("{without} messages have octets that doveadm does not print");
            assert!(without == 0 || remarks_of(&whole, &remark), "{:?}", whole.remarks);
        }
    }
}

#[test]
fn saved_uidls_and_their_order_are_taken_before_the_format() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    for store in [Store::Mdbox, Store::Sdbox] {
        let server = Dovecot::start(&host, Config::default().store(store)).unwrap();
        let old = Maildir::create(server.home(USER).join("old"));
        let mut list = "3 V17 N9\n".to_owned();
        let fields = [" PUID1-9 O3", "", " PUID3-9 O1", " Pother", " O2"];
        for (uid, fields) in (1..).zip(fields) {
            let file = old.deliver(&Message::plain(uid), Naming::Dovecot, uid);
            let name = file.file_name().unwrap().to_str().unwrap();
            let base = name.split(':').next().unwrap();
            list += &format!("{uid}{fields} :{base}\n");
        }
        old.write_state("dovecot-uidlist", &list);
        server.doveadm_ok(["backup", "-R", "-u", USER, "maildir:~/old"]);
        let maildrop = assert_captured(&server, "hdr");
        let hex = |uid: u32| format!("{uid:08x}00000011");
        let wanted = ["UID3-9".to_owned(), hex(5), "UID1-9".to_owned(), hex(2), "other".to_owned()];
        assert_eq!(uidls(&maildrop), wanted, "{store:?}");
    }
}

const STATUS: &str = concat!(
    r#"[{"username":"alice","mailbox":"INBOX","messages":"2","uidnext":"3","uidvalidity":"17"},"#,
    "\n    ",
    r#"{"username":"carol","mailbox":"INBOX","messages":"0","uidnext":"1","uidvalidity":"18"}]"#
);

fn remarks_of(maildrop: &Maildrop, start: &str) -> bool {
    maildrop.remarks.iter().any(|remark| remark.starts_with(start))
}

fn message(user: &str, uid: u32) -> String {
    format!(
        concat!(
            r#"{{"username":"{user}","uid":"{uid}","guid":"g{uid}","pop3.uidl":"","#,
            r#""pop3.order":"","size.virtual":"78","hdr":"Subject: {uid}\n\n"}}"#
        ),
        user = user,
        uid = uid
    )
}

fn asked(users: &[&str]) -> DoveadmRequest {
    DoveadmRequest {
        user: None,
        users: users.iter().map(|&user| user.to_owned()).collect(),
        format: UidlFormat::parse("%v.%u").unwrap(),
        keys: Keys::default(),
        control: std::collections::BTreeMap::new(),
    }
}

fn blocks(input: &str, asked: &DoveadmRequest) -> Result<Vec<Captured>, DoveadmError> {
    let mut blocks = Vec::new();
    read(input.as_bytes(), asked, &mut |captured| {
        blocks.push(captured);
        Ok(())
    })?;
    Ok(blocks)
}

#[test]
fn everybody_gets_a_block_and_who_is_missing_a_failed_one() {
    let input = format!("{STATUS}\n[{},{}]", message("alice", 1), message("alice", 2));
    let blocks = blocks(&input, &asked(&["alice", "bob", "carol"])).unwrap();
    let states: Vec<_> =
        blocks.iter().map(|block| (&block.maildrop.user[..], block.maildrop.state)).collect();
    let wanted = [("alice", State::Captured), ("carol", State::Empty), ("bob", State::Failed)];
    assert_eq!(states, wanted);
    assert_eq!(uidls(&blocks[0].maildrop), ["17.1", "17.2"]);
    assert!(remarks_on(&blocks[2], "said nothing of this maildrop"));
}

#[test]
fn what_doveadm_printed_into_a_file_was_taken_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("printed");
    let input = format!("{STATUS}\n[{},{}]", message("alice", 1), message("alice", 2));
    std::fs::write(&path, &input).unwrap();
    let printed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_990_000);
    std::fs::File::open(&path).unwrap().set_modified(printed).unwrap();
    std::fs::write(dir.path().join("users"), "alice\n").unwrap();
    let users = dir.path().join("users").to_str().unwrap().to_owned();
    let taken = |block: &[u8]| Reader::new(block).next().unwrap().unwrap().captures[0].taken;
    let ran = uidl_keep()
        .args(["capture", "doveadm", "--format", "%v.%u", "--users", &users])
        .stdin(std::fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert_eq!(taken(&ran.stdout), Some(1_714_990_000));
    let piped = run(&input, &["--users", &users]);
    assert!(taken(&piped.stdout) > Some(1_780_000_000));
}

#[test]
fn what_is_cut_short_is_an_error_or_a_failed_maildrop_wherever_it_was_cut() {
    let whole = format!("{STATUS}\n[{},{}]", message("alice", 1), message("alice", 2));
    for end in 0..whole.len() {
        if let Ok(blocks) = blocks(&whole[..end], &asked(&[])) {
            let alice =
                &blocks.iter().find(|block| block.maildrop.user == "alice").unwrap().maildrop;
            assert_eq!(alice.state, State::Failed, "cut at {end}");
        }
    }
    let lacking = format!("{STATUS}[{}]", message("alice", 2));
    let captured = &blocks(&lacking, &asked(&[])).unwrap()[0];
    assert_eq!(captured.maildrop.state, State::Failed);
    assert!(captured.losses[0].starts_with("1 of 2 messages"), "{:?}", captured.losses);
    // The message that came meanwhile is not the one that lacks.
    let lacking = format!("{STATUS}[{},{}]", message("alice", 1), message("alice", 3));
    let captured = &blocks(&lacking, &asked(&[])).unwrap()[0];
    assert!(captured.losses[0].starts_with("1 of 2 messages"), "{:?}", captured.losses);
    // The message that came between the two questions is one more.
    let more = [1, 2, 3].map(|uid| message("alice", uid)).join(",");
    let captured = &blocks(&format!("{STATUS}[{more}]"), &asked(&[])).unwrap()[0];
    assert_eq!(captured.maildrop.counter.as_ref().unwrap().next, 4);
    assert_eq!(captured.losses, [""; 0]);
}

#[test]
fn what_nothing_names_is_spent_and_said_once_with_the_first() {
    let [one, two] = [1, 2].map(|uid| message("alice", uid));
    // Their headers do not name them; GUIDs do.
    let input = format!("{STATUS}[{one},{two}]");
    let captured = &blocks(&input, &asked(&[])).unwrap()[0];
    assert_eq!((captured.maildrop.entries.len(), captured.losses.len()), (2, 0));
    let said = "2 messages have a header that does not name them (first: uid 1): where GUIDs";
    assert!(remarks_of(&captured.maildrop, said), "{:?}", captured.maildrop.remarks);

    let keys = Keys { file: false, ..Keys::default() };
    let captured = &blocks(&input, &DoveadmRequest { keys, ..asked(&[]) }).unwrap()[0];
    assert_eq!((captured.maildrop.entries.len(), captured.maildrop.spent.len()), (0, 2));
    let [loss] = &captured.losses[..] else { panic!("{:?}", captured.losses) };
    assert!(loss.starts_with("2 messages have nothing that names them (first: 17.1)"), "{loss}");

    // Their text does, as far as doveadm prints it.
    let whole = |message: &str, text: &str| {
        let whole = message.replace("\"hdr\":", "\"text\":");
        whole.replace("\\n\\n\"", &format!("\\n\\n{text}\""))
    };
    let input = format!("{STATUS}[{},{}]", whole(&one, "a"), whole(&two, "\u{fffd}"));
    let captured = &blocks(&input, &DoveadmRequest { keys, ..asked(&[]) }).unwrap()[0];
    assert_eq!(uidls(&captured.maildrop), ["17.1"]);
    assert!(captured.maildrop.entries[0].message.is_some());
    let said = "1 messages have octets that doveadm does not print (first: uid 2)";
    assert!(remarks_of(&captured.maildrop, said), "{:?}", captured.maildrop.remarks);
}

#[test]
fn a_format_that_the_input_cannot_fill_fails_the_maildrop() {
    let [one, two] = [1, 2].map(|uid| message("alice", uid));
    let input = format!("{STATUS}[{one},{two}]");
    let wanting = |input: &str, format: &str| {
        let format = UidlFormat::parse(format).unwrap();
        blocks(input, &DoveadmRequest { format, ..asked(&[]) }).unwrap().remove(0)
    };
    for format in ["%f", "%u-%f"] {
        let captured = wanting(&input, format);
        assert_eq!(captured.maildrop.state, State::Failed, "{format}");
        assert_eq!((captured.maildrop.counter, captured.losses.len()), (None, 1), "{format}");
        let said = "2 of 2 unique-ids are of no use, such as uid 1: UIDL format wants a file name";
        assert!(captured.losses[0].starts_with(said), "{:?}", captured.losses);
    }
    // One is as many as the other; and a key that nobody needs is not made.
    let saved = input.replacen(r#""pop3.uidl":"""#, r#""pop3.uidl":"UID1-9""#, 1);
    let captured = wanting(&saved, "%f");
    assert_eq!((uidls(&captured.maildrop), captured.losses.len()), (vec!["UID1-9".to_owned()], 1));
    let three = STATUS.replace(r#""messages":"2""#, r#""messages":"3""#);
    let three = format!("{three}[{one},{two},{}]", message("alice", 3));
    let saved = three.replacen(r#""pop3.uidl":"""#, r#""pop3.uidl":"UID1-9""#, 1);
    assert_eq!(wanting(&saved, "%f").maildrop.state, State::Failed);
    // An empty one has nothing to lose.
    let none = STATUS.replace(r#""messages":"2""#, r#""messages":"0""#);
    assert_eq!(wanting(&none, "%f").maildrop.state, State::Empty);

    let ran = uidl_keep()
        .args(["capture", "doveadm", "--format", "%f", "--user", "alice"])
        .stdin(on_stdin(&input))
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let failed = Reader::new(&ran.stdout[..]).next().unwrap().unwrap();
    assert_eq!(failed.state, State::Failed);
}

#[test]
fn a_listing_of_everybody_is_not_replaced_by_one_of_a_single_user() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, "alice\ncarol\n").unwrap();
    let place = dir.path().join("dbox.listing");
    let place = ["-o", place.to_str().unwrap()];
    let fetched = [message("alice", 1), message("alice", 2)].join(",");
    let input = format!("{STATUS}[{fetched}]");
    let ran = run(&input, &[&["--users", users.to_str().unwrap()], &place[..]].concat());
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    let alice = r#"[{"username":"alice","messages":"2","uidnext":"3","uidvalidity":"17"}]"#;
    let ran = run(&format!("{alice}[{fetched}]"), &[&["--user", "alice"], &place[..]].concat());
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(
        said.contains("these would be lost: 1 not in the new listing (the first: carol)"),
        "{said}"
    );
    // Doveadm failed on its way.
    let ran = run(STATUS, &[&["--users", users.to_str().unwrap()], &place[..]].concat());
    assert!(String::from_utf8(ran.stderr).unwrap().contains("1 failed now (the first: alice)"));
}

/// A file to read from.
fn on_stdin(text: &str) -> std::fs::File {
    use std::io::Seek;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).unwrap();
    file
}

#[test]
fn headers_that_name_no_message_are_counted_on_standard_error() {
    let status =
        STATUS.replace(r#""messages":"0","uidnext":"1""#, r#""messages":"1","uidnext":"2""#);
    let fetched = [message("alice", 1), message("alice", 2), message("carol", 1)].join(",");
    let input = format!("{status}[{fetched}]");
    let said = |input: &str| {
        let ran = run(input, &["--user", "alice"]);
        assert_eq!(ran.status.code(), Some(0));
        String::from_utf8(ran.stderr).unwrap()
    };
    let once = "uidl-keep: 3 messages in 2 maildrops have a header that does not name them: where \
                GUIDs do not survive the move (IMAP), fetch text in place of hdr";
    assert!(said(&input).contains(once), "{}", said(&input));
    let whole = input.replace(r#""hdr":"#, r#""text":"#);
    assert_eq!(said(&whole), "");
}

#[test]
fn a_maildrop_of_many_messages_that_nothing_names_fails() {
    let fetched: Vec<String> = (1..=5).map(|uid| message("alice", uid)).collect();
    let keys = Keys { file: false, ..Keys::default() };
    let of = |n: usize| {
        let status = STATUS
            .replace(r#""messages":"2""#, &format!(r#""messages":"{n}""#))
            .replace(r#""uidnext":"3""#, r#""uidnext":"9""#);
        let input = format!("{status}[{}]", fetched[..n].join(","));
        blocks(&input, &DoveadmRequest { keys, ..asked(&[]) }).unwrap().remove(0)
    };
    assert_eq!(of(3).maildrop.state, State::Captured);
    let captured = of(4);
    assert_eq!(captured.maildrop.state, State::Failed);
    assert!(captured.losses[0].starts_with("4 of 4 messages have nothing that names them"));
}

#[test]
fn a_uid_that_comes_twice_is_a_failed_maildrop_as_other_folders_have_uids_too() {
    let sent = [1, 2, 1].map(|uid| message("alice", uid)).join(",");
    let captured = &blocks(&format!("{STATUS}[{sent}]"), &asked(&[])).unwrap()[0];
    assert_eq!(captured.maildrop.state, State::Failed);
    assert!(captured.losses[0].starts_with("uid 1 comes twice"), "{:?}", captured.losses);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_next_step() {
    let refused = |input: &str| blocks(input, &asked(&[])).unwrap_err().to_string();
    let one = message("alice", 1);
    assert!(refused("").starts_with("no output of doveadm"));
    assert!(refused("username uid\nalice 1\n").starts_with("not what doveadm -f json prints"));
    assert!(refused(&format!("[{one}]")).contains("mailbox status"));
    assert!(refused(&format!("{STATUS}{STATUS}")).contains("alice comes twice"));
    assert!(refused(&format!("{STATUS}[{one}]{STATUS}")).contains("alice comes twice"));
    let again = format!("{STATUS}[{one},{},{one}]", message("carol", 1));
    assert!(refused(&again).contains("alice comes twice"));
    assert!(refused(r#"[{"messages":"1","uidvalidity":"1","uidnext":"2"}]"#).contains("--user"));
    for field in ["uid", "guid", "pop3.uidl", "hdr"] {
        let without = one.replace(&format!("\"{field}\":"), "\"other\":");
        let error = refused(&format!("{STATUS}[{without}]"));
        assert_eq!(error, format!("alice: no {field} in what doveadm printed"));
    }
    let ran = run("[", &["--user", USER]);
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(2), 0));
}

proptest! {
    #[test]
    fn no_input_makes_the_parser_panic(
        noise in "[\\[\\]{}\",: a-z0-9\\\\]{0,80}",
        at in 0_usize..400,
    ) {
        let mut input = format!("{STATUS}[{},{}]", message("alice", 1), message("alice", 2));
        input.insert_str(at.min(input.len()), &noise);
        let _ = blocks(&input, &asked(&["alice"]));
    }
}
