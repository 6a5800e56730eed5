//! Faults in the middle of a login: files that change under it, memory that ends, a bug of ours.
//! The listing is right, or there is none; no process ends by a signal; the next login is served.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::dovecot::Config;
use crate::support::faults::Whole;
use crate::support::host::Unfit;
use crate::support::pop3::Refused;
use crate::support::scenario::{
    LATER, Scenario, USER, complaints_in, is_right, larger_than_new_mail,
};

/// The number of captured messages that are here.
const HERE: u32 = 20;

/// A server that leaves its answers nowhere but in the ledger: nothing else can tell them.
fn unbaked() -> Option<Scenario> {
    let plugin = Some(vec!["bake no"]);
    Scenario::migrated_with(HERE, Config { plugin, ..Config::default() })
}

/// The same with an index that has many more messages than were copied, each with a UIDL of so many
/// octets.
fn with_index_of(entries: u32, octets: usize) -> Option<Scenario> {
    let server = unbaked()?;
    let file = server.dovecot.dir().join("alice.uidl");
    let mut listing = fs::read_to_string(&file).unwrap().strip_suffix(".\n").unwrap().to_owned();
    // New messages may be some of them, as far as headers tell.
    let headers = HERE + 1..=HERE + 99;
    listing += &larger_than_new_mail(headers.clone());
    for number in *headers.end() + 1..=entries {
        let file = format!("1600000000.{number}.never.copied");
        listing += &format!("{number} {number:0octets$} file={file}\n");
    }
    server.build(&(listing + ".\n"));
    // Far fewer than half of them are here.
    server.gate(&["release", "--unguarded"]);
    Some(server)
}

/// Whether that is a listing of so many captured messages and so many in all.
type IsRight = fn(&[String], u32, u32) -> bool;

/// Does as [`is_right`]; but new messages may also have UIDLs of ours, and may stand before the
/// old. After an older ledger was put back, the mark says how far UIDs were told. On a Maildir only
/// what is baked says to whom: only the last new messages are surely known, and stand before those
/// that may be new.
fn is_right_or_ours(uidls: &[String], captured: u32, delivered: u32) -> bool {
    let is_ours = |uidl: &str| uidl.len() == 34 && uidl.starts_with('~') && uidl.ends_with('~');
    let own = |uidl: &String| if is_ours(uidl) { uidl[1..17].to_owned() } else { uidl.clone() };
    let (old, new): (Vec<String>, Vec<String>) =
        uidls.iter().map(own).partition(|uidl| uidl.starts_with("UID"));
    is_right(&[old, new].concat(), captured, delivered)
}

/// Lists while `meddle` does something to a file over and over: each login has the right listing or
/// the clean refusal, and one line in the log for the latter. Returns how many were refused.
fn served_or_refused(
    server: &mut Scenario,
    file: &Whole,
    meddle: impl Fn(&Whole) + Sync,
    is_right: IsRight,
) -> usize {
    let before = server.dovecot.settled_log().len();
    let stop = AtomicBool::new(false);
    let (mut logins, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                meddle(file);
            }
            file.put_back();
        });
        let _stop = Finally(|| stop.store(true, Ordering::Relaxed));
        for _ in 0..4 {
            // A new message has to be resolved, by the session that comes first.
            server.deliver();
            let login = || server.dovecot.login(USER).and_then(|mut session| session.uidl());
            let listings: Vec<_> = thread::scope(|clients| {
                let clients: Vec<_> = (0..3).map(|_| clients.spawn(login)).collect();
                clients.into_iter().map(|client| client.join().unwrap()).collect()
            });
            for listing in listings {
                logins += 1;
                match listing {
                    Ok(uidls) => assert!(is_right(&uidls, HERE, server.delivered), "{uidls:?}"),
                    Err(Refused(line)) => {
                        assert_eq!(line, LATER);
                        refused += 1;
                    }
                }
            }
        }
    });
    let uidls = server.uidls();
    assert!(is_right(&uidls, HERE, server.delivered), "left in peace: {uidls:?}");
    let log = server.dovecot.settled_log().split_off(before);
    let complaints = complaints_in(&log);
    assert_eq!(complaints.len(), refused, "{complaints:#?}");
    refused
}

/// It runs when it goes, also in a panic.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Writes over a file as `cp` writes over a file that is there.
fn write_over(file: &Whole) {
    let mut open = File::options().write(true).truncate(true).open(file.path()).unwrap();
    let (first, rest) = file.octets.split_at(file.octets.len() / 3);
    thread::sleep(Duration::from_millis(1));
    open.write_all(first).unwrap();
    thread::sleep(Duration::from_millis(1));
    open.write_all(rest).unwrap();
    thread::sleep(Duration::from_millis(2));
}

/// Cuts it short in place, and grows it again: for a moment a map of it has no ground.
fn cut_and_grow(file: &Whole) {
    let mut open = File::options().write(true).open(file.path()).unwrap();
    for left in [0, 5000, file.octets.len() / 2] {
        open.set_len(left as u64).unwrap();
        open.seek(SeekFrom::Start(left as u64)).unwrap();
        open.write_all(&file.octets[left..]).unwrap();
        thread::sleep(Duration::from_micros(500));
    }
}

fn delete(file: &Whole) {
    file.remove();
    thread::sleep(Duration::from_millis(2));
    file.put_back();
    thread::sleep(Duration::from_millis(2));
}

/// Lists while others change a file, and while a well-behaved `mv` does; no login may notice the
/// latter.
fn meddled_with(server: &mut Scenario, file: &Whole, ways: &[fn(&Whole)], is_right: IsRight) {
    for way in ways {
        served_or_refused(server, file, way, is_right);
    }
    let refused = served_or_refused(server, file, Whole::put_back, is_right);
    assert_eq!(refused, 0, "refused while it was replaced");
}

#[test]
fn an_index_that_changes_under_logins_gives_the_right_listing_or_none() {
    let Some(mut server) = with_index_of(1000, 1000) else { return };
    let file = Whole::of(server.index());
    meddled_with(&mut server, &file, &[write_over, cut_and_grow, delete], is_right);
    server.ends_well();
}

#[test]
fn a_roster_that_changes_under_logins_gives_the_right_listing_or_none() {
    let Some(mut server) = unbaked() else { return };
    let file = Whole::of(server.roster());
    meddled_with(&mut server, &file, &[write_over, delete], is_right);
    server.ends_well();
}

#[test]
fn a_ledger_that_changes_under_logins_gives_the_right_listing_or_none() {
    let Some(mut server) = unbaked() else { return };
    server.serves(HERE, "in peace");
    let file = Whole::of(server.ledger());
    meddled_with(&mut server, &file, &[write_over, delete], is_right_or_ours);
    server.ends_well();
}

#[test]
fn what_is_baked_is_told_on_while_an_older_ledger_comes_and_goes() {
    let Some(mut server) = Scenario::migrated(HERE) else { return };
    server.serves(HERE, "in peace");
    let file = Whole::of(server.ledger());
    meddled_with(&mut server, &file, &[write_over, delete], is_right);
    server.ends_well();
}

/// An index of one maildrop that names a block of more octets than a POP3 process may have, all
/// there and all zero: its start, and its root with where that stands.
fn with_huge_block(octets: &[u8]) -> (Vec<u8>, u64, Vec<u8>) {
    const HUGE: u64 = 128 << 20;
    let cut = |hash: blake3::Hash| hash.as_bytes()[..16].to_vec();
    let root_at = u64::from_le_bytes(octets[40..48].try_into().unwrap()) as usize;
    // The name of the block: level, count and checksum, then the length in two octets.
    let old = &octets[root_at..octets.len() - 16];
    assert!(old[24] >= 0x80 && old[25] < 0x80);
    let huge = [0x80, 0x80, 0x80, (HUGE >> 21) as u8];
    let mut root = [&old[..24], &huge, &old[26..]].concat();
    root.extend(cut(blake3::hash(&root)));
    let mut head = octets[..104].to_vec();
    let root_at = 104 + HUGE;
    head[16..24].copy_from_slice(&(root_at + root.len() as u64).to_le_bytes());
    head[40..48].copy_from_slice(&root_at.to_le_bytes());
    head[48..64].copy_from_slice(&root[root.len() - 16..]);
    let checksum = cut(blake3::hash(&head[..88]));
    head[88..].copy_from_slice(&checksum);
    (head, root_at, root)
}

#[test]
fn an_index_that_asks_for_more_memory_than_there_may_be_refuses_the_login() {
    let extra = "service pop3 {\n  vsz_limit = 64M\n}\n".to_owned();
    let config = Config { extra, ..Config::default() }.with_plugin();
    let Some(server) = Scenario::migrated_with(3, config) else { return };
    let file = Whole::of(server.index());
    let (head, tail_at, tail) = with_huge_block(&file.octets);
    file.replace(&head);
    let mut huge = File::options().write(true).open(file.path()).unwrap();
    huge.seek(SeekFrom::Start(tail_at)).unwrap();
    huge.write_all(&tail).unwrap();
    server.refuses(
        "a block of more than vsz_limit",
        &["example.com.idx", "out of memory", "raise vsz_limit", "install"],
    );
    file.put_back();
    server.serves(3, "mended");
    server.ends_well();
}

/// Returns the answer to UIDL of a POP3 process within so much address space, and the signal that
/// ended it.
fn listing_within(
    server: &Scenario,
    user: &str,
    octets: u64,
) -> (Result<Vec<String>, Refused>, Option<i32>) {
    let _ = fs::remove_file(server.ledger());
    let (mut session, mut child) = server.dovecot.process_within(user, octets);
    let listing = session.uidl();
    drop(session);
    (listing, child.wait().unwrap().signal())
}

/// The least address space in which a user is served, within `step`.
fn least(server: &Scenario, user: &str, step: u64) -> u64 {
    let mut limits = (1 << 20, 1 << 30);
    while limits.1 - limits.0 > step {
        let middle = u64::midpoint(limits.0, limits.1);
        match listing_within(server, user, middle).0 {
            Ok(_) => limits.1 = middle,
            Err(_) => limits.0 = middle,
        }
    }
    limits.1
}

#[test]
fn address_space_that_ends_anywhere_gives_the_right_listing_or_none() {
    const STEP: u64 = 64 << 10;
    let Some(server) = with_index_of(24_000, 12) else { return };
    // We need not serve with less than a stranger needs, nor with more than alice needs.
    let stranger = "bob@example.com";
    server.maildir().copy_mail_to(&server.dovecot.mail(stranger));
    let (low, high) = (least(&server, stranger, STEP), least(&server, USER, STEP));
    assert!(low + 8 * STEP < high, "{low} {high}");
    let mut ours = 0;
    for octets in (low..=high).step_by(STEP as usize) {
        let (listing, signal) = listing_within(&server, USER, octets);
        let log = server.dovecot.log();
        let complaints = complaints_in(&log);
        assert_eq!(signal, None, "within {octets} octets: {log}");
        assert!(complaints.len() <= 1, "{log}");
        match listing {
            Ok(uidls) => assert!(is_right(&uidls, HERE, HERE), "{uidls:?}"),
            Err(Refused(line)) if line.starts_with("-ERR") => {
                assert!(line.starts_with("-ERR [SYS/TEMP] "), "{line}");
            }
            Err(dropped) => assert!(log.contains("ut of memory"), "{dropped:?}: {log}"),
        }
        ours += complaints.len();
    }
    assert!(ours > 0, "memory never ended in our hands");
    server.serves(HERE, "with all the room there is");
}

/// A directory that all may read, and the configuration that lets a file in it ask for faults: only
/// a debug build reads it.
#[cfg(debug_assertions)]
fn requests() -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), crate::support::host::unix_mode(0o755)).unwrap();
    let file = dir.path().join("fault");
    let extra = format!("import_environment = TZ UIDL_KEEP_FAULT={}\n", file.display());
    (dir, Config { extra, ..Config::default() }.with_plugin())
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_or_exhausted_memory_drops_the_session_by_exit_and_after_one_line() {
    if Unfit::NoFaults.is_asked() {
        return;
    }
    let (dir, config) = requests();
    let Some(mut server) = Scenario::migrated_with(3, config) else { return };
    let request = dir.path().join("fault");
    for (kind, words) in [
        ("panic", "Fatal: uidl-keep: bug: UIDL_KEEP_FAULT asks for it at src/plugin/fault.rs:"),
        ("memory", "Fatal: uidl-keep: out of memory: cannot have 9223372036854775807 octets more"),
    ] {
        for door in ["mail_user_created", "search_init", "uidl 1", "uidl 3"] {
            server.deliver();
            fs::write(&request, format!("{kind} {door}\n")).unwrap();
            let before = server.dovecot.settled_log().len();
            let heard = server.dovecot.login(USER).and_then(|mut session| {
                session.ask("UIDL")?;
                session.hear_out()
            });
            // Or there is no `+OK` after the password, or the connection is reset.
            assert_eq!(heard.unwrap_or_default(), b"", "{kind} {door}: half an answer");
            let log = server.dovecot.settled_log().split_off(before);
            let complaints = complaints_in(&log);
            assert_eq!(complaints.len(), 1, "{kind} {door}:\n{log}");
            assert!(complaints[0].contains(words), "{kind} {door}: {complaints:?}");
            assert!(!log.contains("panicked at"), "{log}");
            fs::remove_file(&request).unwrap();
            server.serves(3, &format!("after {kind} {door}"));
        }
    }
    server.dovecot.pause();
    let log = server.dovecot.log();
    assert!(!log.contains("killed with signal") && !log.contains("Panic: "), "{log}");
    assert!(log.contains("returned error 83"), "as Dovecot's own processes say it: {log}");
}
