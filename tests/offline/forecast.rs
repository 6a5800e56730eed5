//! The forecast of a site over Maildirs, without Dovecot.

use std::fs;
use std::path::{Path, PathBuf};

use uidl_keep::key::{Depth, Fingerprinter, NORMALISER_VERSION};

use crate::shared::tree::below;
use crate::support::cli::{Here, Ran};

const COMMAND: &str = "forecast --site site --maildir /mail/{domain}/{local} --format %08Xu%08Xv";

/// A message whose header names it.
fn mail(number: u32) -> String {
    format!(
        "Received: from a by b; Mon, 6 May 2024 10:00:{number:02} +0000\nMessage-ID: <{number}@a>\n\
         Date: Mon, 6 May 2024 10:00:{number:02} +0000\nSubject: {number}\n\nText {number}.\n"
    )
}

/// A message of a device: its header is that of every other.
fn warning(text: &str) -> String {
    format!("Subject: 80 % full\n\n{text}\n")
}

fn keys_of(mail: &str) -> (String, String) {
    let mut printer = Fingerprinter::new(Depth::Message);
    printer.update(mail.as_bytes());
    let prints = printer.finish();
    let header = format!("header={}", prints.header.unwrap());
    (format!("message={}", prints.message.unwrap()), header)
}

fn base(number: u32) -> String {
    format!("17149900{number:02}.{number}.old")
}

/// One line of a listing: `UIDn-17` is the message with that number.
fn line(number: u32, keys: &str) -> String {
    format!("{number} UID{number}-17 {keys}\n")
}

fn by_file(number: u32) -> String {
    line(number, &format!("file={} {}", base(number), keys_of(&mail(number)).1))
}

fn by_header(number: u32) -> String {
    line(number, &keys_of(&mail(number)).1)
}

fn block(user: &str, lines: &[String]) -> String {
    let version = NORMALISER_VERSION;
    let fields = format!("state captured\nkeys {version}\nuidvalidity 17\n");
    format!("uidl-keep-listing 1\nmaildrop {user}\n{fields}{}.\n", lines.concat())
}

/// A directory with a site and Maildirs.
struct Moved {
    here: Here,
}

impl Moved {
    fn to_site(listing: &str) -> Self {
        let here = Here::new();
        here.write("first.listing", listing);
        here.quiet("build --final -o site first.listing");
        Self { here }
    }

    fn maildir(&self, user: &str) -> PathBuf {
        self.here.maildir(user)
    }

    fn deliver(&self, user: &str, name: &str, mail: &str) {
        fs::write(self.maildir(user).join("cur").join(format!("{name}:2,S")), mail).unwrap();
    }

    fn copy(&self, user: &str, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.deliver(user, &base(number), &mail(number));
        }
    }

    fn forecast(&self, more: &str) -> Ran {
        let mail = self.here.path("mail");
        let command = COMMAND.replace("/mail", mail.to_str().unwrap());
        self.here.run(&format!("{command} {more}"))
    }

    /// What is printed of the one user there is, and of the total.
    fn line(&self) -> String {
        let ran = self.forecast("");
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), 2, "{} {}", ran.stdout, ran.stderr);
        assert_eq!(ran.status, i32::from(!lines[0].starts_with(['=', '+'])), "{}", lines[0]);
        lines[0].to_owned()
    }
}

const ALICE: &str = "alice@a.org";

fn alice(lines: &[String]) -> Moved {
    let moved = Moved::to_site(&block(ALICE, lines));
    moved.maildir(ALICE);
    moved
}

#[test]
fn a_copy_by_files_is_whole() {
    let moved = alice(&[by_file(1), by_file(2), by_file(3)]);
    moved.copy(ALICE, 1..=3);
    assert_eq!(moved.line(), "= alice@a.org: 3 of 3 kept (3 file)");
}

#[test]
fn a_copy_by_imap_is_kept_by_header() {
    let moved = alice(&[by_file(1), by_file(2), by_header(3)]);
    for number in 1..=3 {
        moved.deliver(ALICE, &format!("1800000000.M{number}.new"), &mail(number));
    }
    assert_eq!(moved.line(), "= alice@a.org: 3 of 3 kept (3 header)");
}

#[test]
fn new_mail_beside_what_was_captured_is_no_fault() {
    let moved = alice(&[by_file(1)]);
    moved.copy(ALICE, 1..=2);
    assert_eq!(moved.line(), "+ alice@a.org: 1 of 1 kept (1 file), 1 new");
}

#[test]
fn a_half_finished_copy_lacks_messages() {
    let moved = alice(&[by_file(1), by_file(2), by_file(3)]);
    moved.copy(ALICE, [2]);
    let refused = "; a login is refused until half of them are here";
    assert_eq!(moved.line(), format!("- alice@a.org: 1 of 3 kept (1 file), 2 not copied{refused}"));
    moved.copy(ALICE, [3]);
    assert_eq!(moved.line(), "- alice@a.org: 2 of 3 kept (2 file), 1 not copied");
    fs::remove_dir_all(moved.maildir(ALICE)).unwrap();
    assert_eq!(moved.line(), format!("- alice@a.org: 0 of 3 kept, 3 not copied{refused}"));
}

#[test]
fn a_message_that_was_changed_on_the_way_is_downloaded_again() {
    let (message, header) = keys_of(&mail(2));
    let moved = alice(&[by_file(1), line(2, &format!("{message} {header}"))]);
    moved.copy(ALICE, [1]);
    // A scanner has put a word into the text.
    let text = mail(2).replace("Text", "[scanned] Text");
    moved.deliver(ALICE, "1800000000.2.new", &text);
    assert_eq!(moved.line(), "* alice@a.org: 1 of 2 kept (1 file), 1 changed on the way");
}

#[test]
fn a_header_that_names_nothing_is_ambiguous() {
    // A new warning may be equal to the last octet: it is no evidence of the old one.
    let (message, header) = keys_of(&warning("of today"));
    let moved = alice(&[by_file(1), line(2, &format!("{message} {header}"))]);
    moved.copy(ALICE, [1]);
    moved.deliver(ALICE, "1800000000.2.new", &warning("of today"));
    assert_eq!(moved.line(), "* alice@a.org: 1 of 2 kept (1 file), 1 ambiguous");
}

#[test]
fn a_uidl_that_two_messages_have_is_counted() {
    let same = by_file(2).replace("UID2-17", "UID1-17");
    let moved = alice(&[by_file(1), same]);
    moved.copy(ALICE, 1..=2);
    assert_eq!(moved.line(), "= alice@a.org: 2 of 2 kept (2 file), 2 share a UIDL");
}

#[test]
fn a_uidl_that_an_earlier_capture_has_otherwise_is_told() {
    let moved = alice(&[by_file(1), by_file(2)]);
    moved
        .here
        .write("second.listing", &block(ALICE, &[by_file(1), by_file(2).replace("-17", "-18")]));
    let built = moved.here.run("build --base site -o both second.listing");
    assert_eq!(built.status, 0, "{}", built.stderr);
    fs::rename(moved.here.path("site"), moved.here.path("first")).unwrap();
    fs::rename(moved.here.path("both"), moved.here.path("site")).unwrap();
    moved.copy(ALICE, 1..=2);
    let said = "* alice@a.org: 2 of 2 kept (2 file), 1 with another UIDL in an earlier capture";
    assert_eq!(moved.line(), said);
}

#[test]
fn what_cannot_be_told_is_said() {
    let failed = "uidl-keep-listing 1\nmaildrop bob@a.org\nstate failed\nremark no\n.\n";
    let here = Here::new();
    here.write("first.listing", &[block(ALICE, &[by_file(1)]).as_str(), failed].concat());
    assert_eq!(here.run("build -o site first.listing").status, 0);
    let moved = Moved { here };
    moved.copy(ALICE, [1]);
    let list = moved.maildir(ALICE).join("dovecot-uidlist");
    fs::write(&list, "3 V9 N2\nno line\n1 :x\n").unwrap();
    let ran = moved.forecast("");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(ran.status, 1);
    assert!(lines[0].starts_with("! alice@a.org: could not tell: dovecot-uidlist:2 "), "{lines:?}");
    assert!(lines[1].starts_with("! bob@a.org: could not tell: its capture failed"), "{lines:?}");
    fs::write(&list, "3 V9 N2\n1 :").unwrap();
    assert!(moved.forecast("").stdout.contains("= alice@a.org: 1 of 1 kept"));
    fs::write(moved.maildir(ALICE).join("uidl-keep.ledger"), "no ledger").unwrap();
    let ran = moved.forecast("--only alice@a.org");
    assert!(ran.stdout.starts_with("! alice@a.org: could not tell: uidl-keep.ledger: "));
}

#[test]
fn a_message_that_is_compressed_is_not_taken_for_a_new_one() {
    let moved = alice(&[by_header(1)]);
    let path = moved.maildir(ALICE).join("cur/1800000000.1.new:2,S");
    fs::write(path, b"\x1f\x8b\x08\0\0\0\0\0\0\x03 and so on").unwrap();
    assert!(moved.line().starts_with("! alice@a.org: could not tell: 1800000000.1.new"));
}

/// Three users of two domains: whole, one message missing, one message new.
fn three() -> Moved {
    let blocks = ["alice@a.org", "bob@a.org", "carol@b.org"]
        .map(|user| block(user, &[by_file(1), by_file(2), by_file(3), by_file(4)]));
    let moved = Moved::to_site(&blocks.concat());
    moved.copy("alice@a.org", 1..=4);
    moved.copy("bob@a.org", 1..=3);
    moved.copy("carol@b.org", 1..=5);
    moved.copy("dave@b.org", 1..=2);
    moved
}

#[test]
fn the_worst_stand_first_and_the_total_last() {
    let moved = three();
    let ran = moved.forecast("--jobs 2");
    assert_eq!(
        ran.stdout,
        "- bob@a.org: 3 of 4 kept (3 file), 1 not copied\n\
         + carol@b.org: 4 of 4 kept (4 file), 1 new\n\
         = alice@a.org: 4 of 4 kept (4 file)\n\
         total: 3 maildrops (0 !, 0 *, 1 -, 1 +, 1 =): 11 of 12 messages kept (91.66 %), 1 not \
         copied, 0 to be downloaded again, 1 new; 1 maildrops here are on no roster\n"
    );
    assert_eq!((ran.status, &*ran.stderr), (1, ""));
}

#[test]
fn the_exit_status_goes_by_the_share_that_is_asked_for() {
    let moved = three();
    assert_eq!(moved.forecast("--fail-under 91.6").status, 0);
    assert_eq!(moved.forecast("--fail-under 91.7").status, 1);
    assert_eq!(moved.forecast("--fail-under 101").status, 2);
    assert_eq!(moved.forecast("--only b.org").status, 0);
}

#[test]
fn a_disk_that_is_not_there_is_no_answer_though_nothing_else_is_amiss() {
    let moved = Moved::to_site(&block(ALICE, &[by_file(1)]));
    moved.copy(ALICE, 1..=1);
    let other = moved.here.path("disk2/{domain}/{local}");
    let ran = moved.forecast(&format!("--maildir {}", other.display()));
    assert!(ran.stdout.starts_with("= alice@a.org: 1 of 1 kept"), "{}", ran.stdout);
    assert!(ran.stderr.contains("nothing was searched by that pattern"), "{}", ran.stderr);
    assert_eq!(ran.status, 1);
}

#[test]
fn only_the_users_and_domains_that_are_named_are_looked_at() {
    let moved = three();
    let users = |more: &str| -> Vec<String> {
        let ran = moved.forecast(more);
        let lines = ran.stdout.lines().filter(|line| !line.starts_with("total"));
        lines.map(|line| line[2..].split(':').next().unwrap().to_owned()).collect()
    };
    assert_eq!(users("--only b.org"), ["carol@b.org"]);
    moved.here.write("names", "# tonight\n@b.org\n\nbob@a.org\n");
    assert_eq!(users("--domains names"), ["bob@a.org", "carol@b.org"]);
    let ran = moved.forecast("--only alice@a.org --only eve@a.org");
    assert_eq!((ran.status, ran.stdout.lines().count()), (1, 2));
    assert!(ran.stderr.starts_with("uidl-keep: eve@a.org: nobody of that name"), "{}", ran.stderr);
    moved.here.write("names", "c.org\n");
    assert!(moved.forecast("--domains names").stderr.contains("nobody who is asked for is on a"));
}

#[test]
fn json_has_an_object_for_each_maildrop_and_one_for_the_total() {
    let ran = three().forecast("--json");
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!((&lines[0]["user"], &lines[0]["sign"]), (&"bob@a.org".into(), &"-".into()));
    assert_eq!(lines[0]["not_copied"], serde_json::json!(["UID4-17"]));
    assert_eq!(lines[0]["kept_by"]["file"], 3);
    assert_eq!((&lines[1]["new"], &lines[1]["again"]), (&1.into(), &0.into()));
    assert_eq!(lines[3]["total"]["maildrops"]["-"], 1);
    assert_eq!(lines[3]["total"]["kept"], 11);
}

#[test]
fn csv_has_a_row_for_each_maildrop_under_the_names_of_its_columns() {
    let ran = three().forecast("--csv");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "sign,user,messages,captured,kept,not_copied,changed,ambiguous,again,new,listed,\
             other_uidl,repeated,unreadable,in_order,refused,why",
            "-,bob@a.org,3,4,3,1,0,0,0,0,0,0,0,0,yes,no,",
        ]
    );
    assert_eq!(lines.len(), 4);
    let columns = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{lines:?}");
}

#[test]
fn a_forecast_changes_nothing() {
    let moved = three();
    let state = |dir: &Path| -> Vec<(PathBuf, Option<Vec<u8>>)> {
        below(dir).into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect()
    };
    let before = state(moved.here.0.path());
    assert_eq!(moved.forecast("").status, 1);
    assert!(before == state(moved.here.0.path()));
}

#[test]
fn a_roster_that_was_lost_hides_nobody() {
    let moved = three();
    fs::remove_file(moved.here.path("site/domain/b.org.roster")).unwrap();
    let ran = moved.forecast("");
    assert_eq!((ran.status, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("b.org.roster: not there, but its index is"), "{}", ran.stderr);
    assert_eq!(moved.forecast("--only a.org").status, 1);
}

#[test]
fn a_pattern_that_finds_nothing_is_trouble() {
    let moved = alice(&[by_file(1)]);
    let said = moved.here.trouble("forecast --site site --format %u.%v --maildir /none/{user}");
    assert!(said.contains("--maildir"), "{said}");
}
