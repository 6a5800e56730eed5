//! `status`, `explain` and `retire` over made sites, Maildirs and ledgers, without Dovecot.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use uidl_keep::key::FileKey;
use uidl_keep::ledger::{Epoch, FIRST_ORDER, Ledger, Mark, Provenance, Record};
use uidl_keep::uidl::Uidl;

use crate::shared::capture::make;
use crate::support::cli::{Here, Ran};
use crate::support::ledger::ledger_of;

pub const ALICE: &str = "alice@a.org";
pub const BOB: &str = "bob@a.org";
pub const CAROL: &str = "carol@b.org";

const UIDVALIDITY: u32 = 17;

/// Three messages of Alice's, none of Bob's, and Carol could not be captured.
pub const LISTING: &str = "uidl-keep-listing 1
maildrop alice@a.org
state captured
source courier /srv/old/alice
taken 1714989600
spent UID9-17
1 kept-1 uid=1 octets=420 file=1.1.old
2 kept-2 uid=2 octets=433 file=2.2.old
3 kept-3 uid=3 octets=500 file=3.3.old
.
uidl-keep-listing 1
maildrop bob@a.org
state empty
taken 1715076000
.
uidl-keep-listing 1
maildrop carol@b.org
state failed
remark Maildir: permission denied
.
";

/// A site, and Maildirs.
pub struct Moved {
    pub here: Here,
}

impl Moved {
    pub fn begin(build: &str) -> Self {
        let here = Here::new();
        here.write("first.listing", LISTING);
        let ran = here.run(&format!("build {build} -o site first.listing"));
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let moved = Self { here };
        for user in [ALICE, BOB, CAROL] {
            make(&moved.maildir(user));
        }
        moved
    }

    pub fn maildir(&self, user: &str) -> PathBuf {
        let (local, domain) = user.split_once('@').unwrap();
        self.here.path(&format!("mail/{domain}/{local}"))
    }

    /// Gives Alice these messages, and `P` where it says so.
    pub fn list(&self, messages: &[(u32, &str, Option<&str>)]) {
        let guid = "00112233445566778899aabbccddeeff";
        let mut list = format!("3 V17 N40 G{guid}\n");
        for (uid, file, stored) in messages {
            fs::write(self.maildir(ALICE).join("cur").join(file), "A: b\n\n").unwrap();
            let stored = stored.map(|uidl| format!("P{uidl} ")).unwrap_or_default();
            list += &format!("{uid} {stored}:{file}\n");
        }
        fs::write(self.maildir(ALICE).join("dovecot-uidlist"), list).unwrap();
    }

    /// Writes a ledger of Alice's: UID, file, UIDL, where that is from, and the entry.
    pub fn tell(&self, records: &[(u32, &str, &str, Provenance, Option<u32>)]) {
        self.tell_in(0, records);
    }

    /// Does the same as a rehearsal with that stamp.
    fn tell_in(&self, rehearsal: u64, records: &[(u32, &str, &str, Provenance, Option<u32>)]) {
        let ledger = Ledger { rehearsal, ..ledger(ALICE, records) };
        fs::write(self.maildir(ALICE).join("uidl-keep.ledger"), ledger.encode()).unwrap();
        let mark = Mark::of(&ledger, 3).to_file();
        fs::write(self.maildir(ALICE).join("uidl-keep.lock"), mark).unwrap();
    }

    /// Alice's listing: all that was captured, and a new message.
    pub fn tell_all(&self) {
        self.tell(&[
            (1, "1.1.old", "kept-1", Provenance::File, Some(0)),
            (2, "2.2.old", "kept-2", Provenance::Header, Some(1)),
            (0, "3.3.old", "kept-3", Provenance::File, Some(2)),
            (7, "7.7.new", "0000000700000011", Provenance::Native, None),
        ]);
    }

    pub fn list_all(&self) {
        self.list(&[
            (1, "1.1.old", Some("kept-1")),
            (2, "2.2.old", Some("kept-2")),
            (7, "7.7.new", None),
        ]);
    }

    pub fn run(&self, command: &str) -> Ran {
        let mail = self.here.path("mail/{domain}/{local}");
        self.here.run(&format!("{command} --site site --no-check --maildir {}", mail.display()))
    }

    fn status(&self) -> Ran {
        self.run("status")
    }

    /// What `--json` says of a domain, or of the whole.
    fn json(&self, of: &str) -> Value {
        let ran = self.run("status --json");
        let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut found = lines.filter_map(|mut line| match of {
            "total" => Some(line["total"].take()).filter(Value::is_object),
            of => (line["domain"] == of).then_some(line),
        });
        found.next().unwrap_or_else(|| panic!("{of}: {}", ran.stdout))
    }

    fn next(&self) -> String {
        self.json("a.org")["next"]["step"].as_str().unwrap().to_owned()
    }
}

pub fn ledger(user: &str, records: &[(u32, &str, &str, Provenance, Option<u32>)]) -> Ledger {
    let record = |(at, record): (usize, &(u32, &str, &str, Provenance, Option<u32>))| {
        let (uid, file, uidl, provenance, entry) = *record;
        let name = Ledger::name_of_cut(&FileKey::cut_of(file.as_bytes()));
        Record {
            uid,
            order: FIRST_ORDER + at as u32,
            uidl: Uidl::new(uidl.as_bytes()).unwrap(),
            provenance,
            names: [name].into_iter().collect(),
            entry,
        }
    };
    let epoch = Epoch { uidvalidity: UIDVALIDITY, next_uid: 8, index_id: 0 };
    ledger_of(user, epoch, FIRST_ORDER + 100, records.iter().enumerate().map(record).collect())
}

fn count(object: &Value, keys: &[&str]) -> Vec<u64> {
    keys.iter().map(|key| object[key].as_u64().unwrap_or_else(|| panic!("{key}"))).collect()
}

#[test]
fn a_domain_goes_from_held_to_listed_and_baked_and_each_time_the_next_step_is_named() {
    let moved = Moved::begin("");
    moved.here.run("hold --site site a.org");
    let a = moved.json("a.org");
    assert_eq!(count(&a, &["maildrops", "captured", "empty", "messages"]), [2, 1, 1, 3]);
    assert_eq!(count(&a, &["held", "held_domains", "waiting"]), [2, 1, 0]);
    assert_eq!((&a["final"], moved.next()), (&Value::Bool(false), "build".to_owned()));
    assert_eq!(a["oldest_capture"], 1_714_989_600);
    assert_eq!(a["newest_capture"], 1_715_076_000);

    assert_eq!(moved.here.run("build --final -o final first.listing").status, 0);
    fs::rename(moved.here.path("final/domain/a.org.idx"), moved.here.path("site/domain/a.org.idx"))
        .unwrap();
    assert_eq!(moved.next(), "rehearse");
    moved.here.run("release --site site a.org");
    assert_eq!(moved.next(), "await");
    let a = moved.json("a.org");
    assert_eq!(count(&a, &["held", "guarded", "listed", "waiting"]), [0, 2, 0, 2]);

    moved.tell_all();
    moved.list(&[(1, "1.1.old", Some("kept-1")), (2, "2.2.old", None), (7, "7.7.new", None)]);
    let a = moved.json("a.org");
    assert_eq!(count(&a, &["listed", "waiting", "baked"]), [1, 1, 0]);
    assert_eq!(a["not_baked"][0], ALICE);
    moved.here.run("release --site site --redownload bob@a.org");
    assert_eq!(moved.next(), "bake");
    moved.list_all();
    let a = moved.json("a.org");
    assert_eq!(count(&a, &["listed", "waiting", "baked", "redownload"]), [1, 0, 1, 1]);
    assert_eq!(moved.next(), "retire");
}

#[test]
fn what_only_a_rehearsal_was_told_is_not_listed() {
    let moved = Moved::begin("--final");
    let records = [(1, "1.1.old", "kept-1", Provenance::File, Some(0))];
    moved.list(&[(1, "1.1.old", Some("kept-1"))]);
    moved.tell_in(7, &records);
    let a = moved.json("a.org");
    assert_eq!(count(&a, &["listed", "only_rehearsed", "waiting", "baked"]), [0, 1, 2, 1]);
    assert!(moved.run(&format!("explain {ALICE}")).stdout.contains("only a rehearsal has listed"));
    moved.tell_in(0, &records);
    let a = moved.json("a.org");
    assert_eq!(count(&a, &["listed", "only_rehearsed", "waiting"]), [1, 0, 1]);
}

#[test]
fn what_was_not_looked_at_is_unknown_and_no_number_of_anything_else() {
    let moved = Moved::begin("--final");
    moved.tell_all();
    let ran = moved.here.run("status --site site --no-check --no-ledgers");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let first = ran.stdout.lines().next().unwrap();
    assert!(
        first.contains("; 2 guarded; 2 not looked at; next: uidl-keep status a.org"),
        "{first}"
    );
    assert!(ran.stdout.ends_with("plugin: not looked at\n"), "{}", ran.stdout);

    // There is no Dovecot, and no other way.
    let ran = moved.here.run("status --site site --no-check --doveadm /nowhere/doveadm");
    assert!(
        ran.stderr.contains("not looked at ledgers: /nowhere/doveadm: No such"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.starts_with(first), "{}", ran.stdout);
}

#[test]
fn who_is_refused_and_of_whom_it_could_not_tell_is_named_with_the_reason() {
    let moved = Moved::begin("--final");
    moved.tell_all();
    let path = moved.maildir(ALICE).join("uidl-keep.ledger");
    let mut octets = fs::read(&path).unwrap();
    let last = octets.len() - 1;
    octets[last] ^= 1;
    fs::write(&path, octets).unwrap();
    let ran = moved.status();
    assert_eq!(ran.status, 1);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].contains("1 could not tell"), "{}", lines[0]);
    assert!(lines[0].contains("alice@a.org ("), "{}", lines[0]);
    assert!(lines[0].contains("uidl-keep.ledger: "), "{}", lines[0]);
    assert!(lines[0].ends_with("next: uidl-keep explain alice@a.org"), "{}", lines[0]);
    assert!(lines[1].contains("1 refused: carol@b.org (its capture failed)"), "{}", lines[1]);
    assert!(lines[2].starts_with("total: 3 maildrops (1 captured, 1 empty, 1 failed)"));

    // A lost ledger is told from one that never was.
    fs::remove_file(path).unwrap();
    let ran = moved.status();
    assert!(ran.stdout.contains("uidl-keep.lock says that it was"), "{}", ran.stdout);
}

#[test]
fn a_ledger_that_the_owner_made_a_link_or_another_users_says_nothing() {
    let moved = Moved::begin("--final");
    moved.tell_all();
    let path = moved.maildir(ALICE).join("uidl-keep.ledger");
    let other = moved.here.path("other");
    fs::rename(&path, &other).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    let ran = moved.status();
    assert!(ran.stdout.contains("uidl-keep.ledger: a symbolic link"), "{}", ran.stdout);

    fs::remove_file(&path).unwrap();
    fs::write(&path, ledger(BOB, &[]).encode()).unwrap();
    let ran = moved.status();
    assert!(ran.stdout.contains("it is the ledger of \"bob@a.org\""), "{}", ran.stdout);
}

#[test]
fn a_list_that_dovecot_would_throw_away_is_no_bake() {
    let moved = Moved::begin("--final");
    moved.tell_all();
    moved.list_all();
    let list = moved.maildir(ALICE).join("dovecot-uidlist");
    let text = fs::read_to_string(&list).unwrap();
    for (bad, why) in [
        (text.replace("V17", "V18"), "UIDVALIDITY is 18 now, and was 17"),
        (text.replace("\n2 ", "\nx "), "dovecot-uidlist:3 is not a message"),
    ] {
        fs::write(&list, bad).unwrap();
        let a = moved.json("a.org");
        assert_eq!(count(&a, &["listed", "baked"]), [1, 0]);
        let said = a["bake_not_told"][0]["why"].as_str().unwrap();
        assert!(said.contains(why), "{said}");
    }
    fs::remove_file(list).unwrap();
    assert_eq!(moved.json("a.org")["baked"], 0);
}

#[test]
fn kept_uidls_of_mdbox_are_in_the_ledger_alone() {
    let moved = Moved::begin("--final");
    let root = moved.here.path("mail/a.org/alice");
    fs::remove_dir_all(&root).unwrap();
    let control = root.join("mailboxes/INBOX/dbox-Mails");
    fs::create_dir_all(&control).unwrap();
    fs::create_dir(root.join("storage")).unwrap();
    let records = [
        (1, "1.1.old", "kept-1", Provenance::File, Some(0)),
        (2, "2.2.old", "kept-2", Provenance::Stored, Some(1)),
        (7, "7.7.new", "0000000700000011", Provenance::Native, None),
    ];
    fs::write(control.join("uidl-keep.ledger"), ledger(ALICE, &records).encode()).unwrap();
    let pattern = moved.here.path("mail/{domain}/{local}/mailboxes/INBOX/dbox-Mails");
    let command = format!("status --site site --no-check --maildir {} a.org", pattern.display());
    let ran = moved.here.run(&command);
    let said = "1 maildrops on mdbox or sdbox have 1 UIDLs in the ledger alone (the first: \
                alice@a.org): a panel's dsync, the replicator and capture doveadm without the \
                plugin lose them";
    assert!(ran.stdout.lines().next().unwrap().contains(said), "{}", ran.stdout);
}

#[test]
fn a_roster_that_was_lost_costs_the_other_domains_nothing() {
    let moved = Moved::begin("--final");
    fs::remove_file(moved.here.path("site/domain/b.org.roster")).unwrap();
    let ran = moved.status();
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains("a.org: 2 maildrops"), "{}", ran.stdout);
    assert!(ran.stdout.contains("b.org.roster: not there, but its index is"), "{}", ran.stdout);
    let ran = moved.run("status nobody.org");
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("nobody.org: nobody of that name"), "{}", ran.stderr);
}
