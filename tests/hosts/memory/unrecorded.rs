//! Recording fails while mail comes: each UIDL that can be derived is derived, and nothing is
//! guessed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use super::client::Client;
use super::copies::{MARK, is_warm};
use super::scenario::{Listing, Scenario, USER, by_message, header_of, uidl, uidl_of};
use crate::support::dovecot::{Config, Store};
use crate::support::host::{Line, Unfit};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, give_to_owner, make_owned};
use crate::support::traced::can_trace;
use crate::support::{OWNER, lacking};

/// A file system of its own, with room for little. It is gone when it is dropped.
struct Small {
    at: PathBuf,
}

impl Small {
    /// `None`, having said so, if nothing may be mounted.
    fn mount(at: PathBuf) -> Option<Self> {
        make_owned(&at);
        let options = format!("size=8m,nr_inodes=100,mode=755,uid={OWNER},gid={OWNER}");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            lacking("no tmpfs can be mounted here");
            return None;
        }
        Some(Self { at })
    }

    fn use_up_inodes(&self) {
        for number in 0.. {
            if File::create(self.at.join(format!("filler-{number}"))).is_err() {
                return;
            }
        }
    }

    fn give_inodes_back(&self) {
        for entry in fs::read_dir(&self.at).expect("root") {
            let path = entry.expect("root").path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"filler")) {
                fs::remove_file(path).expect("root");
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A device sends this again and again, equal to the last octet.
fn from_the_printer() -> Message {
    let text = "From: printer@example.com\nSubject: message 5\n\nToner is low.\n";
    Message { octets: text.as_bytes().to_vec() }
}

/// Four messages are known by name; a fifth was captured a moment ago and is not copied: it is
/// known by a header that says nothing, or whole.
fn capture(moved: &Scenario, old: &Maildir, keys: fn(&Message) -> String) -> Client {
    let listing = Listing::of_files(&old.files());
    let taken = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let listing = listing.message(&uidl(5), &keys(&from_the_printer()));
    moved.capture(&listing.field(&format!("taken {taken}")));
    moved.copy_files(old);
    Client::of_the_old_server(1..=5)
}

/// Insists that each message that comes then is downloaded, whatever it is equal to; and nothing
/// else, also once there is room.
fn hides_nothing(moved: &Scenario, mut client: Client, make_room: impl FnOnce()) {
    assert_eq!(client.poll(moved), [0; 0]);
    assert_eq!(moved.uidls(), uidl_of(1..=4));
    let log = moved.log().concat();
    assert!(log.contains("uidl-keep.ledger: cannot be written ("), "{log}");
    assert!(!moved.ledger().exists());
    moved.receive(&from_the_printer());
    assert_eq!(client.poll(moved), [5], "it may be another");
    moved.receive(&Message::plain(6));
    assert_eq!(client.poll(moved), [6]);
    let told = moved.uidls();
    make_room();
    assert_eq!(moved.uidls(), told);
    is_warm(moved);
    moved.receive(&from_the_printer());
    assert_eq!(client.poll(moved), [5], "it may be another");
}

const KEYS: [fn(&Message) -> String; 2] = [header_of, by_message];

/// Mail goes into a file that is there already, and the ledger would be a new one.
#[test]
fn an_mdbox_with_no_inode_left_hides_no_new_mail() {
    for line in Line::asked() {
        for keys in KEYS {
            let config = Config::default().store(Store::Mdbox).with_plugin();
            let Some(mut moved) = Scenario::begin_with(line, config) else { continue };
            let Some(small) = Small::mount(moved.dovecot.mail(USER)) else { return };
            // Its programs see what was mounted before they were started.
            moved.dovecot.reconfigure(|_| ());
            let client = capture(&moved, &moved.old_maildir(1..=4), keys);
            // The files that Dovecot itself makes on the way are there then.
            moved.receive(&Message::plain(9));
            let mut session = moved.imap();
            for command in ["SELECT INBOX", "STORE 5 +FLAGS (\\Deleted)", "EXPUNGE"] {
                session.command(command);
            }
            session.logout();
            small.use_up_inodes();
            hides_nothing(&moved, client, || small.give_inodes_back());
        }
    }
}

/// This is on a Maildir; no ledger can be written, for a directory is in its way.
#[test]
fn a_maildir_where_nothing_can_be_recorded_hides_no_new_mail() {
    for line in Line::asked() {
        for keys in KEYS {
            let Some(moved) = Scenario::begin_with(line, Config::default().with_plugin()) else {
                continue;
            };
            let client = capture(&moved, &moved.old_maildir(1..=4), keys);
            let staged = moved.ledger().with_extension("ledger.new");
            fs::create_dir_all(staged.join("in the way")).expect("root");
            hides_nothing(&moved, client, || fs::remove_dir_all(&staged).expect("root"));
        }
    }
}

/// The ledger is in its place by then, and knows all: a gap in the mark adds nothing and takes
/// nothing away. It is said, and the next listing that is recorded writes it.
#[test]
fn a_mark_that_cannot_be_written_is_said_and_costs_nothing() {
    if !can_trace() || Unfit::NoTools.is_asked() {
        return;
    }
    for store in [Store::Maildir, Store::Mdbox] {
        let Some(moved) = Scenario::begin(store) else { return };
        let old = moved.old_maildir(1..=4);
        moved.copy_files(&old);
        moved.capture(&Listing::of_files(&old.files()));
        assert_eq!(moved.uidls(), uidl_of(1..=4));
        let lock = moved.ledger().with_file_name(MARK);
        let before = fs::read(&lock).unwrap();
        moved.receive(&Message::plain(5));
        let trace = moved.dovecot.dir().join("trace").display().to_string();
        let on_lock = lock.display().to_string();
        File::create(&trace).unwrap();
        give_to_owner(trace.as_ref());
        let inject = "inject=pwrite64:error=EIO";
        let under = ["strace", "-qq", "-o", &trace, "-P", &on_lock, "-e", inject];
        let (mut session, mut process) = moved.dovecot.process_under(&under, USER);
        let told = session.uidl().expect("served");
        session.quit().unwrap();
        process.wait().unwrap();
        assert_eq!(fs::read(&lock).unwrap(), before, "{store:?}");
        let log = moved.dovecot.process_log();
        assert!(log.contains("its mark in uidl-keep.lock cannot be written ("), "{log}");

        assert_eq!(moved.uidls(), told);
        is_warm(&moved);
        moved.receive(&Message::plain(6));
        assert_eq!(moved.uidls()[..5], told);
        let mark = fs::read_to_string(&lock).unwrap();
        assert!(mark.contains("next UID 7, ") && mark.contains("left 6, "), "{mark}");
    }
}

/// The mark would have said what the first listing told, should its ledger be lost before the bake.
#[test]
fn a_first_listing_without_its_mark_is_baked_before_it_is_told() {
    if !can_trace() || Unfit::NoTools.is_asked() {
        return;
    }
    for is_marked in [true, false] {
        let Some(moved) = Scenario::begin(Store::Maildir) else { return };
        let old = moved.old_maildir(1..=4);
        moved.copy_files(&old);
        moved.capture(&Listing::of_files(&old.files()));
        let lock = moved.ledger().with_file_name(MARK);
        fs::write(&lock, [b' '; 4096]).unwrap();
        let trace = moved.dovecot.dir().join("trace").display().to_string();
        File::create(&trace).unwrap();
        [lock.as_ref(), trace.as_ref()].into_iter().for_each(give_to_owner);
        let on_lock = lock.display().to_string();
        let inject = if is_marked { "trace=pwrite64" } else { "inject=pwrite64:error=EIO" };
        let under = ["strace", "-qq", "-o", &trace, "-P", &on_lock, "-e", inject];
        let (mut session, mut process) = moved.dovecot.process_under(&under, USER);
        assert_eq!(session.uidl().expect("served"), uidl_of(1..=4));
        let list = fs::read_to_string(moved.maildir().path().join("dovecot-uidlist")).unwrap();
        let is_baked = list.contains(&format!(" P{} ", uidl_of(1..=4)[0]));
        assert_eq!(is_baked, !is_marked, "{list}");
        session.quit().unwrap();
        process.wait().unwrap();
    }
}
