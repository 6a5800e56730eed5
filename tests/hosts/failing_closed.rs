//! The third answer, could not tell. If anything is wrong with what an answer rests on, a POP3
//! login is refused with one clean line, the log says once what to do, nothing is invented, and the
//! next login after the fault is served.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::dovecot::{Config, Dovecot, mail_at};
use crate::support::faults::{Fault, Whole, lock_away, no_file_of_ours, refused_until_mended};
use crate::support::host::{Host, Line, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::give_to_owner;
use crate::support::scenario::{
    LATER, Listing, Scenario, USER, complaints_in, larger_than_new_mail, uidl_of,
};
use crate::support::{helper, imap};

/// The places in an index: `src/index/FORMAT.md`.
mod index {
    pub const VERSION: usize = 8;
    pub const FLAGS: usize = 12;
    pub const FILE_LENGTH: usize = 16;
    pub const ROOT: usize = 40;
    pub const ROOT_LEVEL: usize = 64;
    pub const NORMALISER: usize = 68;
    pub const CHECKSUM: usize = 88;
    pub const BLOCKS: usize = 104;
}

fn u64_at(octets: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(octets[at..at + 8].try_into().unwrap())).unwrap()
}

/// An index with something else in its header, and the checksum that goes with it.
fn with_header(file: &Whole, at: usize, octets: &[u8]) -> Vec<u8> {
    let mut changed = file.with(at, octets);
    let checksum = blake3::hash(&changed[..index::CHECKSUM]);
    changed[index::CHECKSUM..index::BLOCKS].copy_from_slice(&checksum.as_bytes()[..16]);
    changed
}

fn index_content(file: &Whole) -> Vec<Fault> {
    let root = u64_at(&file.octets, index::ROOT);
    let len = file.octets.len();
    let mut faults = vec![
        Fault::content("the start of something else", file.damaged(1), &["not an index"]),
        Fault::content("version 0", file.with(index::VERSION, &[0; 4]), &["version 0"]),
        Fault::content(
            "a later version",
            file.with(index::VERSION, &[3, 0, 0, 0]),
            &["version 3, and only version 2 is read"],
        ),
        Fault::content(
            "another normaliser",
            with_header(file, index::NORMALISER, &[77]),
            &["normaliser 77", "build it again"],
        ),
        Fault::content(
            "an unknown flag",
            with_header(file, index::FLAGS, &[2]),
            &["damaged at 12"],
        ),
        Fault::content(
            "a root outside the file",
            with_header(file, index::ROOT, &[0xFF; 8]),
            &["damaged at 40"],
        ),
        Fault::content(
            "a root of no level",
            with_header(file, index::ROOT_LEVEL, &[0; 4]),
            &["damaged at 64"],
        ),
        Fault::content(
            "a length that is not the file's",
            with_header(file, index::FILE_LENGTH, &[0xFF; 4]),
            &["damaged at 16"],
        ),
        Fault::content("an octet too many", [&file.octets[..], b"\n"].concat(), &["damaged at 16"]),
    ];
    for at in [16, 24, 56, 64, 72, index::CHECKSUM] {
        let name = format!("header, octet {at}");
        faults.push(Fault::content(&name, file.damaged(at), &["checksum of the header"]));
    }
    for at in [0, 4, 12, 14, 16, 28, root - index::BLOCKS - 40, root - index::BLOCKS - 1] {
        let name = format!("block, octet {at}");
        let octets = file.damaged(index::BLOCKS + at);
        faults.push(Fault::content(&name, octets, &["damaged at 104"]));
    }
    for at in [0, 4, 8, 24, 28, 32, len - root - 17, len - root - 1] {
        let octets = file.damaged(root + at);
        faults.push(Fault::content(&format!("root, octet {at}"), octets, &["damaged at "]));
    }
    for left in [1, 7, 8, 103, 104, 150, root - 1, root, root + 24, len - 16, len - 1] {
        let octets = file.octets[..left].to_vec();
        faults.push(Fault::content(&format!("cut to {left}"), octets, &["damaged at ", "install"]));
    }
    faults
}

#[test]
fn an_index_that_is_no_file_of_ours_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    let file = Whole::of(server.index());
    let missing = Fault::new("missing", &["no index, but its roster names"], Whole::remove);
    let mut faults = vec![missing];
    faults.extend(no_file_of_ours());
    refused_until_mended(&mut server, 3, &file, &faults);
    server.ends_well();
}

/// For each new message one was captured with its header, which was far larger and will never be
/// copied: as long as a new message may be it, each login reads what was captured.
fn expect_larger_ones(server: &Scenario) {
    let listing = fs::read_to_string(server.dovecot.dir().join("alice.uidl")).unwrap();
    let listing = listing.strip_suffix(".\n").unwrap().to_owned();
    server.build(&(listing + &larger_than_new_mail(4..=99) + ".\n"));
    // Far fewer than half of them are here.
    server.gate(&["release", "--unguarded"]);
}

/// Once every captured message was found, no answer rests on the rest of the index: new mail is
/// listed without it. A header that cannot be believed is no index at all.
#[test]
fn an_index_of_which_nothing_is_left_to_find_is_not_read() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    server.serves(3, "before any fault");
    let file = Whole::of(server.index());
    file.replace(&file.damaged(index::BLOCKS + 4));
    server.deliver();
    server.serves(3, "its block is damaged");
    let fault = Fault::content("its header is", file.damaged(24), &["checksum of the header"]);
    refused_until_mended(&mut server, 3, &file, &[fault]);
    server.ends_well();
}

/// Returns how many UIDLs `dovecot-uidlist` has.
fn baked(server: &Scenario) -> usize {
    let list = server.maildir().path().join("dovecot-uidlist");
    fs::read_to_string(list).unwrap().matches(" P").count()
}

/// The same goes where old messages may still come, for new mail that is none of them.
#[test]
fn while_old_messages_are_missing_new_mail_is_listed_without_the_index_and_a_late_one_with_it() {
    for line in Line::asked() {
        let config = Config::default().with_plugin();
        let Some(mut server) = Scenario::migrated_on(line, 4, config) else { continue };
        let [.., last] = &server.maildir().files()[..] else { panic!("four files") };
        let late = Whole::of(last);
        late.remove();
        assert_eq!(server.uidls(), uidl_of(1..=3), "{line:?}");
        assert_eq!(baked(&server), 3, "{line:?}");
        let index = Whole::of(server.index());
        index.replace(&index.damaged(index::BLOCKS + 4));
        server.deliver();
        let uidls = server.uidls();
        assert_eq!((&uidls[..3], uidls.len()), (&uidl_of(1..=3)[..], 4), "{line:?}: {uidls:?}");
        // Dovecot's list was not written anew either.
        assert_eq!(baked(&server), 3, "{line:?}");
        late.put_back();
        server.refuses("an old message came, and nobody can tell which", &["damaged at 104"]);
        index.put_back();
        let uidls = server.uidls();
        assert_eq!((uidls.len(), &uidls[4]), (5, &uidl_of(4..=4)[0]), "{line:?}: {uidls:?}");
        server.ends_well();
    }
}

#[test]
fn an_index_damaged_anywhere_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    expect_larger_ones(&server);
    let file = Whole::of(server.index());
    refused_until_mended(&mut server, 3, &file, &index_content(&file));
    server.ends_well();
}

#[test]
fn an_index_that_does_not_have_the_user_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    let file = Whole::of(server.index());
    let listing = server.dovecot.dir().join("bob.uidl");
    fs::write(&listing, "uidl-keep-listing 1\nmaildrop bob@example.com\nstate empty\n.\n").unwrap();
    let other = server.dovecot.dir().join("other");
    fs::create_dir(&other).unwrap();
    helper::build_site(&other, &listing);
    let octets = fs::read(other.join("domain/example.com.idx")).unwrap();
    let fault = Fault::content("another index", octets, &["the index does not", "install"]);
    refused_until_mended(&mut server, 3, &file, &[fault]);
    server.ends_well();
}

#[test]
fn a_directory_that_lets_nobody_in_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    for dir in [server.dovecot.site(), server.dovecot.site().join("domain")] {
        fs::set_permissions(&dir, unix_mode(0o640)).unwrap();
        let words = ["example.com.roster", "Permission denied", "let the mail's owner read it"];
        server.refuses("no search permission", &words);
        fs::set_permissions(&dir, unix_mode(0o750)).unwrap();
        server.serves(3, "let in again");
        let away = server.dovecot.dir().join("away");
        fs::rename(&dir, &away).unwrap();
        server.refuses("not mounted", &["example.com.roster", "no directory", "mount it"]);
        fs::rename(&away, &dir).unwrap();
        server.deliver();
        server.serves(3, "mounted again");
    }
    server.ends_well();
}

fn roster_content(file: &Whole) -> Vec<Fault> {
    let text = String::from_utf8(file.octets.clone()).unwrap();
    let (len, user) = (text.len(), text.find(USER).unwrap());
    let replaced = |from: &str, to: &str| text.replacen(from, to, 1).into_bytes();
    let mut faults = vec![
        Fault::content("the start of something else", file.damaged(1), &["not a roster"]),
        Fault::content("version 0", replaced("roster 1 ", "roster 0 "), &["version 0"]),
        Fault::content("a later version", replaced("roster 1 ", "roster 3 "), &["version 3"]),
        Fault::content("a user fewer", replaced("alice", "alicf"), &["checksum of a line"]),
        Fault::content("an edited gate", replaced("guarded", "released"), &["checksum of a line"]),
        Fault::content("a word that no gate has", replaced("guarded", "open"), &["not a line"]),
        Fault::content("a line too many", [&file.octets[..], b"x\n"].concat(), &["damaged"]),
        Fault::content("CR LF", replaced("\n", "\r\n"), &["not a roster"]),
    ];
    // The checksum of the last line is for a name that is not found before it.
    for at in [len - 12, len - 11, len - 1, user - 2] {
        faults.push(Fault::content(&format!("octet {at}"), file.damaged(at), &[]));
    }
    for left in [1, 10, 19, 20, user - 1, user, user + 9, len - 12, len - 11, len - 10, len - 1] {
        let octets = file.octets[..left].to_vec();
        faults.push(Fault::content(
            &format!("cut to {left}"),
            octets,
            &["damaged at ", "cut short"],
        ));
    }
    faults
}

#[test]
fn a_roster_that_is_no_file_of_ours_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    let file = Whole::of(server.roster());
    let lost = Fault::new("lost", &["not there, but its index is", "put it back"], Whole::remove);
    let mut faults = vec![lost];
    faults.extend(no_file_of_ours());
    refused_until_mended(&mut server, 3, &file, &faults);
    server.ends_well();
}

#[test]
fn a_roster_damaged_anywhere_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    let file = Whole::of(server.roster());
    refused_until_mended(&mut server, 3, &file, &roster_content(&file));
    server.ends_well();
}

#[test]
fn a_damaged_roster_refuses_whom_it_may_name_and_nobody_else() {
    let Some(server) = Scenario::migrated(3) else { return };
    let file = Whole::of(server.roster());
    let (neighbour, other) = ("bob@example.com", "bob@example.net");
    for user in [neighbour, other] {
        server.maildir().copy_mail_to(&server.dovecot.mail(user));
    }
    // Dovecot numbers them so: the UIDVALIDITY is the time of the first look.
    let own = [neighbour, other].map(|user| server.dovecot.uidl(user));
    for octets in [&file.octets[..40], b"", &file.damaged(file.octets.len() - 2)] {
        file.replace(octets);
        let heard = server.dovecot.login(neighbour).unwrap().hear_out().unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), format!("{LATER}\r\n"));
        assert_eq!(server.dovecot.uidl(other), own[1]);
    }
    file.put_back();
    assert_eq!(server.dovecot.uidl(neighbour), own[0]);
    let complaints = complaints_in(&server.dovecot.settled_log());
    assert_eq!(complaints.len(), 3, "{complaints:#?}");
    server.ends_well();
}

/// Makes faults only in what stands at the same place in every version: the magic, and the version
/// at octet 8.
fn ledger_content(file: &Whole) -> Vec<Fault> {
    let len = file.octets.len();
    let next = ["restore it"];
    let mut faults = vec![
        Fault::content("the start of something else", file.damaged(1), &["not a ledger"]),
        Fault::content("version 0", file.with(8, &[0; 4]), &["version 0"]),
        Fault::content("a later version", file.with(8, &[77, 0, 0, 0]), &["version 77"]),
        Fault::content("an octet too many", [&file.octets[..], b"\0"].concat(), &next),
    ];
    for eighth in 1..16 {
        let at = 12 + (len - 12) * eighth / 16;
        faults.push(Fault::content(&format!("octet {at} of {len}"), file.damaged(at), &next));
    }
    for left in [1, 8, 12, 31, 32, 40, len / 2, len - 17, len - 16, len - 1] {
        let octets = file.octets[..left].to_vec();
        faults.push(Fault::content(&format!("cut to {left}"), octets, &next));
    }
    faults
}

/// Does as [`refused_until_mended`]; but a ledger grows with each listing, and is another file each
/// time.
fn ledger_refused_until_mended(server: &mut Scenario, faults: impl Fn(&Whole) -> Vec<Fault>) {
    server.serves(3, "before any fault");
    for number in 0..faults(&Whole::of(server.ledger())).len() {
        let file = Whole::of(server.ledger());
        let fault = faults(&file).remove(number);
        refused_until_mended(server, 3, &file, &[fault]);
    }
}

#[test]
fn a_ledger_that_is_no_file_of_the_accounts_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    ledger_refused_until_mended(&mut server, |_| no_file_of_ours());
    server.ends_well();
}

#[test]
fn a_ledger_damaged_anywhere_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    ledger_refused_until_mended(&mut server, ledger_content);
    server.ends_well();
}

#[test]
fn more_unreadable_messages_than_may_be_odd_refuse_the_login() {
    let Some(server) = Scenario::migrated_by_content(6) else { return };
    let files = server.maildir().files();
    files[..4].iter().for_each(|file| lock_away(file));
    let (heard, complaints) = server.turned_away("four of six");
    assert_eq!(heard, format!("{LATER}\r\n"));
    let errors: Vec<&String> = complaints.iter().filter(|line| line.contains("Error: ")).collect();
    assert_eq!(errors.len(), 1, "{complaints:#?}");
    for words in ["4 of 6 messages, or more, cannot be read", "mend the mailbox"] {
        assert!(errors[0].contains(words), "{errors:?}");
    }
    assert!(!server.ledger().exists());
    // Dovecot has moved the new ones.
    server.maildir().files().iter().for_each(|file| give_to_owner(file));
    server.serves(6, "readable again");
    server.ends_well();
}

/// On mdbox nothing but our ledger lies in the control directory.
#[test]
fn a_control_directory_that_lets_nobody_in_refuses_the_login() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let places = [("CONTROL", "~/control")];
    let extra = mail_at(Line::subject(), "mdbox", "~/mdbox", &places);
    let config = Config { extra, ..Config::default() }.with_plugin();
    let Some(dovecot) = Dovecot::start(&host, config) else { return };
    dovecot.home(USER);
    let messages = [1, 2, 3].map(Message::plain);
    imap::append(dovecot.imap(), USER, messages.each_ref().map(|m| m.octets.as_slice()));
    let listing = dovecot.dir().join("alice.uidl");
    fs::write(&listing, Listing::of_contents(&messages).text()).unwrap();
    helper::build_site(&dovecot.site(), &listing);
    assert_eq!(dovecot.uidl(USER), uidl_of(1..=3));
    let control = dovecot.home(USER).join("control");
    let ledger = find(&control, "uidl-keep.ledger").expect("a ledger");
    let dir = ledger.parent().unwrap();
    fs::set_permissions(dir, unix_mode(0o000)).unwrap();
    let heard = dovecot.login(USER).unwrap().hear_out().unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), format!("{LATER}\r\n"));
    fs::set_permissions(dir, unix_mode(0o700)).unwrap();
    assert_eq!(dovecot.uidl(USER), uidl_of(1..=3));
    let complaints = complaints_in(&dovecot.settled_log());
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    let place = dovecot.inside(&ledger).display().to_string();
    for word in [&*place, "Permission denied", "let the mail's user read it"] {
        assert!(complaints[0].contains(word), "no {word:?} in {complaints:?}");
    }
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

/// Here Dovecot itself knows that it cannot tell; nothing of ours may make a listing of that.
#[test]
fn a_mailbox_that_cannot_be_read_refuses_the_login() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    for dir in ["cur", "new", "."] {
        server.deliver();
        let dir = server.maildir().path().join(dir);
        fs::set_permissions(&dir, unix_mode(0o000)).unwrap();
        let before = server.dovecot.settled_log().len();
        let (heard, complaints) = server.turned_away("no search permission");
        assert!(heard.starts_with("-ERR [SYS/TEMP] "), "{heard}");
        assert!(heard.ends_with("\r\n") && heard.lines().count() == 1, "{heard}");
        assert!(complaints.len() <= 1, "{complaints:#?}");
        let log = server.dovecot.settled_log().split_off(before);
        assert!(log.contains("Permission denied"), "{log}");
        fs::set_permissions(&dir, unix_mode(0o755)).unwrap();
        server.serves(3, "readable again");
    }
    server.ends_well();
}

/// doveadm must not be told a wrong UIDL: a backup bakes it into another mailbox for ever.
#[test]
fn doveadm_is_told_of_no_uidl_that_we_cannot_tell() {
    let Some(mut server) = Scenario::migrated(3) else { return };
    expect_larger_ones(&server);
    server.serves(3, "before any fault");
    server.deliver();
    let files = [server.index(), server.roster(), server.ledger()].map(Whole::of);
    for file in &files {
        file.replace(&file.damaged(file.octets.len() / 2));
        let place = server.dovecot.inside(file.path()).display().to_string();
        let fetched = server.dovecot.doveadm_with_us([
            "fetch",
            "-u",
            USER,
            "pop3.uidl",
            "mailbox",
            "INBOX",
            "all",
        ]);
        let target = server.dovecot.home(USER).join("backup");
        let to = format!("mdbox:{}", server.dovecot.inside(&target).display());
        let backed_up = server.dovecot.doveadm_with_us(["backup", "-u", USER, &to]);
        for (what, output) in [("fetch", &fetched), ("backup", &backed_up)] {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{what} with {place}: {said}");
            let lines: Vec<&str> = said.lines().filter(|l| l.contains("uidl-keep: /")).collect();
            assert_eq!(lines.len(), 1, "{what} with {place}: {said}");
            assert!(lines[0].contains(&place), "{what}: {said}");
        }
        let told = String::from_utf8(fetched.stdout).unwrap();
        assert_eq!(told.lines().find(|line| line.len() > "pop3.uidl: ".len()), None);
        file.put_back();
        fs::remove_dir_all(&target).unwrap();
        assert_eq!(server.shown_by_doveadm().len(), 4);
    }
}

#[test]
fn dovecot_24_refuses_alike() {
    let config = Config::default().with_plugin();
    let Some(mut server) = Scenario::migrated_on(Line::V24, 3, config) else { return };
    expect_larger_ones(&server);
    let index = Whole::of(server.index());
    let faults = [
        Fault::new("missing", &["no index, but its roster names"], Whole::remove),
        Fault::content("damaged", index.damaged(110), &["damaged at 104"]),
        Fault::content("cut short", index.octets[..200].to_vec(), &["install"]),
    ];
    refused_until_mended(&mut server, 3, &index, &faults);
    let roster = Whole::of(server.roster());
    let faults = [
        Fault::new("lost", &["not there, but its index is"], Whole::remove),
        Fault::content("cut short", roster.octets[..30].to_vec(), &["cut short"]),
    ];
    refused_until_mended(&mut server, 3, &roster, &faults);
    let ledger = Whole::of(server.ledger());
    let half = ledger.octets.len() / 2;
    let faults = [Fault::content("damaged", ledger.damaged(half), &["restore it"])];
    refused_until_mended(&mut server, 3, &ledger, &faults);
    server.ends_well();
}
