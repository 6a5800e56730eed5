//! Mail that the old MX takes after the move, brought by `copy-late` while a real client goes on
//! polling.

use std::fs;
use std::process::Output;

use crate::support::clients::{Client, Program};
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper::{self, uidl_keep};
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{Scenario, USER};

/// Both servers make UIDLs of UID and UIDVALIDITY, and both have this one: nothing but the rules
/// keeps their UIDLs apart.
const LIST: &str = "3 V17 N1 G0123456789abcdef0123456789abcdef\n";

const FORMAT: &str = "%08Xu%08Xv";

/// How many messages were moved.
const COUNT: u32 = 8;

/// When the first message of the old server arrived.
const EPOCH: u64 = 1_714_990_000;

struct Moved {
    old: Dovecot,
    new: Scenario,
    client: Client,
}

impl Moved {
    /// A client that has polled the old server and then the new one, where a new message has come
    /// and been polled since.
    fn begin(line: Line) -> Option<Self> {
        let old = Dovecot::start(&Host::dovecot(Line::subject())?, Config::default())?;
        let new = Scenario::begin_with(line, Config::default().with_plugin())?;
        let client = Client::new(Program::FetchmailByHalves, USER)?;
        let moved = Self { old, new, client };
        let maildir = moved.maildir();
        maildir.write_state("dovecot-uidlist", LIST);
        for number in 1..=COUNT {
            maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
        }
        assert_eq!(moved.client.poll(moved.old.pop3()), COUNT as usize);
        moved.new.build(&moved.captured());
        moved.new.copy_files(&maildir);
        moved.new.maildir().write_state("dovecot-uidlist", LIST);
        assert_eq!(moved.client.poll(moved.new.dovecot.pop3()), 0);
        moved.new.receive(&Message::plain(50));
        assert_eq!(moved.client.poll(moved.new.dovecot.pop3()), 1);
        Some(moved)
    }

    fn maildir(&self) -> Maildir {
        Maildir::create(self.old.mail(USER))
    }

    fn captured(&self) -> String {
        let mut capture = uidl_keep();
        capture.args(["capture", "dovecot", "--format", FORMAT, "--user", USER]);
        let listing = helper::run(capture.arg(self.maildir().path()));
        String::from_utf8(listing).expect("text")
    }

    /// Runs `copy-late`, where the last copy began 1000 seconds after the first message.
    fn copy_late(&self, more: &[&str]) -> Output {
        let mut command = uidl_keep();
        command.arg("copy-late");
        for server in [&self.old, &self.new.dovecot] {
            command.arg(server.home("{local}@{domain}").join("Maildir"));
        }
        command.arg("--site").arg(self.new.dovecot.site());
        command.args(["--copied", &format!("@{}", EPOCH + 1000)]).args(more);
        command.output().expect("the helper")
    }

    #[track_caller]
    fn brings(&self, count: usize, more: &[&str]) {
        let ran = self.copy_late(more);
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains(&format!("{count} late messages of ")), "{stderr}");
    }
}

#[test]
fn late_mail_of_a_stopped_server_is_downloaded_once_and_by_no_uidl_of_its() {
    for line in Line::asked() {
        let Some(mut moved) = Moved::begin(line) else { continue };
        moved.old.pause();
        let stopped = format!("@{}", EPOCH + 900);
        let stopped = ["--pop3-stopped", &stopped];
        let listed = moved.new.uidls();
        for number in 60..63 {
            let seconds = 2000 + number;
            moved.maildir().deliver(&Message::plain(number), Naming::Dovecot, seconds);
        }
        moved.brings(3, &stopped);
        moved.brings(0, &stopped);
        let pop3 = moved.new.dovecot.pop3();
        assert_eq!(moved.client.poll(pop3), 3, "{line:?}");
        assert_eq!(moved.client.poll(pop3), 0, "{line:?}");
        let uidls = moved.new.uidls();
        assert_eq!(uidls[..listed.len()], listed, "{line:?}: they stand behind");
        assert_eq!(uidls.len(), listed.len() + 3);

        // Nobody hears what the old server would have told.
        moved.old.resume();
        let there = moved.old.uidl(USER);
        assert_eq!(there.len(), COUNT as usize + 3);
        let late = &uidls[COUNT as usize..];
        assert!(there.iter().all(|uidl| !late.contains(uidl)), "{line:?}: {there:?} {late:?}");

        // What the client deletes stays deleted, also when the ledger has forgotten it.
        moved.new.delete(listed.len() + 2);
        moved.new.receive(&Message::plain(70));
        assert_eq!(moved.client.poll(pop3), 1);
        moved.brings(0, &stopped);
        assert_eq!(moved.new.uidls().len(), listed.len() + 3);
        assert_eq!(moved.client.poll(pop3), 0);
    }
}

#[test]
fn late_mail_that_a_client_has_polled_at_the_old_server_keeps_its_uidl_by_a_delta() {
    let Some(moved) = Moved::begin(Line::subject()) else { return };
    let listed = moved.new.uidls();
    for number in 60..63 {
        moved.maildir().deliver(&Message::plain(number), Naming::Dovecot, 2000 + number);
    }
    // Its name server has not heard of the move.
    assert_eq!(moved.client.poll(moved.old.pop3()), 3);
    let there = moved.old.uidl(USER);
    let refused = moved.copy_late(&[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("3 late messages are in no capture"), "{said}");
    assert_eq!(moved.new.uidls(), listed);

    let delta = moved.new.dovecot.dir().join("delta.listing");
    fs::write(&delta, moved.captured()).expect("our directory");
    let site = moved.new.dovecot.site();
    let mut build = uidl_keep();
    build.args(["build", "--final", "--base"]).arg(&site).arg("-o").arg(&site).arg(&delta);
    helper::run(&mut build);
    helper::give_to_reader(&site);
    moved.brings(3, &[]);
    let pop3 = moved.new.dovecot.pop3();
    assert_eq!(moved.client.poll(pop3), 0, "it has them");
    let uidls = moved.new.uidls();
    assert_eq!(uidls[..listed.len()], listed);
    assert_eq!(uidls[listed.len()..], there[COUNT as usize..]);
    moved.new.delete(listed.len() + 1);
    moved.brings(0, &[]);
    assert_eq!(moved.new.uidls().len(), listed.len() + 2, "it does not come back");
    assert_eq!(moved.client.poll(pop3), 0);
}
