//! `uidl-keep bake` over Maildirs, without Dovecot.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use uidl_keep::key::{Depth, Fingerprinter, NORMALISER_VERSION};
use uidl_keep::ledger::{Ledger, Mark, Provenance};

use crate::shared::is_root;
use crate::status::ledger;
use crate::support::cli::{Here, Ran};

const ALICE: &str = "alice@a.org";
/// The first order number of ours.
const FIRST: u32 = 1 << 20;
const GUID: &str = "0123456789abcdef0123456789abcdef";

fn mail(number: u32) -> String {
    format!(
        "Received: from a by b; Mon, 6 May 2024 10:00:{number:02} +0000\nMessage-ID: <{number}@a>\n\
         Date: Mon, 6 May 2024 10:00:{number:02} +0000\nSubject: {number}\n\nText {number}.\n"
    )
}

fn base(number: u32) -> String {
    format!("17149900{number:02}.{number}.old")
}

fn header_key(number: u32) -> String {
    let mut printer = Fingerprinter::new(Depth::Header);
    printer.update(mail(number).as_bytes());
    format!("header={}", printer.finish().header.unwrap())
}

/// The listing of these users, each with so many messages; `fields` are more lines of each block.
fn listing(users: &[(&str, u32)], fields: &str) -> String {
    let block = |&(user, count): &(&str, u32)| {
        let line = |n| format!("{n} UID{n}-17 file={} {}\n", base(n), header_key(n));
        let lines: String = (1..=count).map(line).collect();
        format!(
            "uidl-keep-listing 1\nmaildrop {user}\nstate captured\nkeys {NORMALISER_VERSION}\n\
             uidvalidity 17\n{fields}{lines}.\n"
        )
    };
    users.iter().map(block).collect()
}

/// A directory with a site and Maildirs.
struct Moved {
    here: Here,
}

impl Moved {
    fn with(users: &[(&str, u32)]) -> Self {
        Self::to_site(&listing(users, ""), "--final")
    }

    fn to_site(listing: &str, options: &str) -> Self {
        let here = Here::new();
        here.write("first.listing", listing);
        here.quiet(&format!("build {options} -o site first.listing"));
        Self { here }
    }

    fn maildir(&self, user: &str) -> PathBuf {
        self.here.maildir(user)
    }

    fn deliver(&self, user: &str, name: &str, number: u32) {
        fs::write(self.maildir(user).join(name), mail(number)).unwrap();
    }

    /// Copies messages by files, as they were on the old server.
    fn copy(&self, user: &str, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.deliver(user, &format!("cur/{}:2,S", base(number)), number);
        }
    }

    fn list_path(&self, user: &str) -> PathBuf {
        self.maildir(user).join("dovecot-uidlist")
    }

    fn list(&self, user: &str) -> String {
        fs::read_to_string(self.list_path(user)).unwrap()
    }

    fn write_list(&self, user: &str, text: &str) {
        fs::write(self.list_path(user), text).unwrap();
    }

    fn command(&self, more: &str) -> Command {
        let mail = self.here.path("mail");
        self.here.command_with_summary(&format!(
            "bake --site site --maildir {}/{{domain}}/{{local}} --format %08Xu%08Xv {more}",
            mail.display()
        ))
    }

    fn bake(&self, more: &str) -> Ran {
        ran(&mut self.command(more))
    }

    /// Bakes all, and insists that it is done.
    fn bakes(&self) -> String {
        let ran = self.bake("--all");
        assert_eq!(ran.status, 0, "{} {}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Bakes all, and insists on a refusal of one, of which nothing is left.
    fn refuses(&self, why: &str) {
        let before = self.files();
        let ran = self.bake("--all");
        assert_eq!((ran.status, &*ran.stdout), (1, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "no {why:?} in {}", ran.stderr);
        assert_eq!(self.files(), before);
    }

    /// Every file below the mail, with what is in it.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = crate::shared::tree::below(&self.here.path("mail"));
        let files = paths.into_iter().filter(|path| path.is_file());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn forecast(&self) -> String {
        let mail = self.here.path("mail");
        self.here
            .run(&format!(
                "forecast --site site --maildir {}/{{domain}}/{{local}} --format %08Xu%08Xv",
                mail.display()
            ))
            .stdout
    }
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        status: output.status.code().expect("not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn alice(count: u32) -> Moved {
    let moved = Moved::with(&[(ALICE, count)]);
    moved.maildir(ALICE);
    moved
}

#[test]
fn a_mailbox_without_a_list_gets_one_and_is_then_passed_over() {
    let moved = alice(3);
    moved.copy(ALICE, 1..=3);
    moved.deliver(ALICE, "new/1800000000.M1.new", 9);
    assert_eq!(moved.bakes(), "baked alice@a.org: 4 messages (3 kept)\n");
    let list = moved.list(ALICE);
    let (header, lines) = list.split_once('\n').unwrap();
    let fields: Vec<&str> = header.split(' ').collect();
    let uidvalidity: u32 = fields[1].strip_prefix('V').unwrap().parse().unwrap();
    assert!(uidvalidity > 1_700_000_000 && fields[3].len() == 33, "{header}");
    assert_eq!((fields[0], fields[2]), ("3", "N5"), "{header}");
    let native = format!("00000004{uidvalidity:08x}");
    let expected = [(1, "UID1-17"), (2, "UID2-17"), (3, "UID3-17")]
        .map(|(uid, uidl)| format!("{uid} P{uidl} O{} :{}\n", FIRST + uid - 1, base(uid)));
    let new = format!("4 P{native} O{} :1800000000.M1.new\n", FIRST + 3);
    assert_eq!(lines, expected.concat() + &new);
    let meta = moved.list_path(ALICE).metadata().unwrap();
    let dir = moved.maildir(ALICE).metadata().unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o177),
        (dir.uid(), dir.gid(), dir.mode() & 0o66)
    );
    let forecast = moved.forecast();
    assert!(forecast.contains("alice@a.org: 3 of 3 kept"), "{forecast}");

    let ran = moved.bake("--all");
    assert_eq!((ran.status, &*ran.stdout), (0, ""));
    assert!(ran.stderr.contains("0 maildrops baked, 1 were baked before"), "{}", ran.stderr);
    assert_eq!(moved.list(ALICE), list);
}

#[test]
fn of_a_list_only_uidl_place_and_next_uid_change() {
    let moved = alice(2);
    moved.copy(ALICE, 1..=2);
    moved.deliver(ALICE, "cur/x.new:2,", 9);
    let (one, two) = (base(1), base(2));
    let list = format!(
        "3 V99 N40 G{GUID} Zfuture\n5 W200 S190 :gone\n7 Xy W118 Pold S107 O4 :{two}\n\
         8 S107 :{one}:2,S\n9 Gguid :x.new\n"
    );
    moved.write_list(ALICE, &list);
    fs::set_permissions(moved.list_path(ALICE), fs::Permissions::from_mode(0o640)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(moved.list_path(ALICE), Some(4321), Some(1234)).unwrap();
    }
    moved.bakes();
    let (first, second, third) = (FIRST, FIRST + 1, FIRST + 2);
    let baked = format!(
        "3 V99 N40 G{GUID} Zfuture\n5 W200 S190 :gone\n\
         7 Xy W118 PUID2-17 S107 O{second} :{two}\n\
         8 S107 PUID1-17 O{first} :{one}:2,S\n9 Gguid P0000000900000063 O{third} :x.new\n"
    );
    assert_eq!(moved.list(ALICE), baked);
    let meta = moved.list_path(ALICE).metadata().unwrap();
    assert_eq!(meta.mode() & 0o777, 0o640);
    if is_root() {
        assert_eq!((meta.uid(), meta.gid()), (4321, 1234));
    }
}

#[test]
fn a_spent_native_uidl_is_baked_as_a_derived_one_and_the_next_uid_is_raised_past_it() {
    let listing = listing(&[(ALICE, 2)], "counter 13 %08Xu%08Xv\n");
    let moved = Moved::to_site(&listing, "--final");
    moved.copy(ALICE, 1..=2);
    moved.deliver(ALICE, "cur/x.new:2,", 9);
    let (one, two) = (base(1), base(2));
    moved.write_list(ALICE, &format!("3 V17 N4 G{GUID}\n1 :{one}\n2 :{two}\n3 :x.new\n"));
    assert!(moved.bakes().contains("3 messages (2 kept, 1 with a UIDL of ours)"));
    let list = moved.list(ALICE);
    assert!(list.starts_with(&format!("3 V17 N{} G", 13 + 65_536)), "{list}");
    let last = list.lines().last().unwrap();
    assert!(last.starts_with("3 P~") && last.ends_with(&format!("~ O{} :x.new", FIRST + 2)));
    moved.bakes();
    assert_eq!(moved.list(ALICE), list, "a second bake says the same");
    // A later mail gets what Dovecot gives, for that is unspent now.
    moved.deliver(ALICE, "cur/y.new:2,", 8);
    moved.write_list(ALICE, &(list.clone() + "65549 :y.new\n"));
    moved.bakes();
    let native = format!("65549 P{:08x}00000011 O{} :y.new\n", 65_549, FIRST + 3);
    assert!(moved.list(ALICE).ends_with(&native), "{}", moved.list(ALICE));
}

#[test]
fn who_was_captured_empty_is_baked_once_and_new_mail_stays_dovecots() {
    let empty = "uidl-keep-listing 1\nmaildrop alice@a.org\nstate empty\n.\n";
    let moved = Moved::to_site(empty, "--final");
    moved.deliver(ALICE, "cur/x.new:2,", 9);
    moved.write_list(ALICE, &format!("3 V17 N4 G{GUID}\n3 :x.new\n"));
    moved.bakes();
    let list = moved.list(ALICE);
    assert!(list.starts_with("3 V17 N65540 G"), "{list}");
    moved.deliver(ALICE, "cur/y.new:2,", 8);
    moved.write_list(ALICE, &(list.clone() + "65540 :y.new\n"));
    assert_eq!(moved.bakes(), "");
    assert_eq!(moved.list(ALICE), list + "65540 :y.new\n");
}

#[test]
fn a_dry_run_says_what_would_be_and_writes_nothing() {
    let moved = alice(2);
    moved.copy(ALICE, 1..=2);
    let before = moved.files();
    let ran = moved.bake("--all --dry-run --undo-file undo");
    assert_eq!((ran.status, &*ran.stdout), (0, "would bake alice@a.org: 2 messages (2 kept)\n"));
    assert!(ran.stderr.contains("1 maildrops would be baked, 0 were"), "{}", ran.stderr);
    assert_eq!(moved.files(), before);
    assert!(!moved.here.path("undo").exists());
}

#[test]
fn nothing_is_baked_of_an_index_that_is_not_final_or_of_half_a_copy() {
    let moved = Moved::to_site(&listing(&[(ALICE, 3)], ""), "");
    moved.copy(ALICE, 1..=3);
    moved.refuses("alice@a.org: not baked: its index is not final");
    let moved = alice(3);
    moved.copy(ALICE, [2]);
    moved.refuses("3 messages were captured last, 1 are here, 1 of them recognised");
    // That holds of one that was baked whole, too.
    moved.copy(ALICE, [1, 3]);
    moved.bakes();
    for number in [1, 2] {
        fs::remove_file(moved.maildir(ALICE).join(format!("cur/{}:2,S", base(number)))).unwrap();
    }
    moved.refuses("3 messages were captured last, 1 are here, 1 of them recognised");
}

#[test]
fn who_is_set_to_redownload_or_has_no_maildir_is_left_alone() {
    let moved = Moved::with(&[(ALICE, 1), ("bob@a.org", 1), ("eve@b.org", 1)]);
    moved.copy(ALICE, [1]);
    moved.copy("bob@a.org", [1]);
    moved.here.run("release --site site --redownload bob@a.org");
    let ran = moved.bake("--all");
    assert_eq!((ran.status, &*ran.stdout), (1, "baked alice@a.org: 1 messages (1 kept)\n"));
    let said = "eve@b.org: not baked: no Maildir of this user is here yet";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let total = "1 maildrops baked, 0 were baked before, 1 set to redownload, 1 not baked";
    assert!(ran.stderr.contains(total), "{}", ran.stderr);
    assert!(!moved.list_path("bob@a.org").exists());
    assert_eq!(moved.bake("a.org").status, 0);
    let ran = moved.bake("a.org nobody@a.org");
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("nobody@a.org: nobody of that name is on a roster"));
    assert!(moved.bake("").stderr.contains("say --all"));
    assert_eq!(moved.bake("c.org").status, 2);
}

#[test]
fn mail_without_a_uid_waits_for_dovecot_where_that_has_an_index() {
    let moved = alice(2);
    moved.copy(ALICE, 1..=2);
    fs::write(moved.maildir(ALICE).join("dovecot.index.log"), "").unwrap();
    let next = "let Dovecot open the mailbox first (`doveadm mailbox status -u alice@a.org";
    moved.refuses(&format!("there is an index without a dovecot-uidlist: {next}"));
    moved.write_list(ALICE, &format!("3 V99 N3 G{GUID}\n1 :{}\n", base(1)));
    moved.refuses(&format!("1 messages are not in dovecot-uidlist yet: {next}"));
    fs::remove_file(moved.maildir(ALICE).join("dovecot.index.log")).unwrap();
    moved.bakes();
    let second = format!("3 PUID2-17 O{} :{}\n", FIRST + 1, base(2));
    assert!(moved.list(ALICE).ends_with(&second), "{}", moved.list(ALICE));
    assert!(moved.list(ALICE).starts_with("3 V99 N4 G"), "{}", moved.list(ALICE));
}

#[test]
fn a_list_that_dovecot_would_throw_away_is_not_written() {
    let moved = alice(2);
    moved.copy(ALICE, 1..=2);
    for (list, why) in [
        (
            format!("3 V99 N3 G{GUID}\n1 :{}\n1 :{}\n", base(1), base(2)),
            "dovecot-uidlist:3 repeats a UID or a name",
        ),
        (
            format!("3 V99 N3 G{GUID}\n1 :{}\n2 :{}\n", base(1), base(1)),
            "dovecot-uidlist:3 repeats a UID or a name",
        ),
        (format!("3 V99 N3 G{GUID}\n1 pold :{}\nrubbish\n", base(1)), "is not a message"),
        ("4 V99\n".to_owned(), "dovecot-uidlist"),
    ] {
        moved.write_list(ALICE, &list);
        moved.refuses(why);
    }
    moved.write_list(ALICE, &format!("3 V99 N3 G{GUID}\n1 :{}\n2 :{}", base(1), base(2)));
    moved.refuses("it changed while it was read");
    fs::remove_file(moved.list_path(ALICE)).unwrap();
    fs::write(moved.maildir(ALICE).join(format!("new/{}", base(1))), mail(1)).unwrap();
    moved.refuses(&format!("two files are called {}", base(1)));
}

#[test]
fn a_link_of_the_owner_is_not_followed() {
    let moved = alice(1);
    moved.copy(ALICE, [1]);
    moved.here.write("victim", &format!("3 V99 N3 G{GUID}\n1 :{}\n", base(1)));
    let victim = moved.here.read("victim");
    symlink(moved.here.path("victim"), moved.list_path(ALICE)).unwrap();
    moved.refuses("dovecot-uidlist");
    fs::remove_file(moved.list_path(ALICE)).unwrap();
    // A temporary file that is a link is replaced, a lock that is one is not touched.
    symlink(moved.here.path("victim"), moved.maildir(ALICE).join("dovecot-uidlist.new")).unwrap();
    let lock = moved.maildir(ALICE).join("dovecot-uidlist.lock");
    symlink(moved.here.path("victim"), &lock).unwrap();
    let ran = moved.bake("--all");
    assert!(ran.stderr.contains("dovecot-uidlist.lock is no file"), "{}", ran.stderr);
    fs::remove_file(&lock).unwrap();
    moved.bakes();
    assert_eq!(moved.here.read("victim"), victim);
    assert!(moved.list_path(ALICE).symlink_metadata().unwrap().is_file());
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for() {
    let moved = alice(1);
    moved.copy(ALICE, [1]);
    let lock = moved.maildir(ALICE).join("dovecot-uidlist.lock");
    fs::write(&lock, format!("{}:{}", std::process::id(), hostname())).unwrap();
    let mut child = moved.command("--all").spawn().unwrap();
    thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none() && !moved.list_path(ALICE).exists());
    // Meanwhile its holder has written a list.
    moved.write_list(ALICE, &format!("3 V99 N8 G{GUID}\n7 :{}\n", base(1)));
    fs::remove_file(&lock).unwrap();
    assert!(child.wait().unwrap().success());
    let baked = format!("3 V99 N8 G{GUID}\n7 PUID1-17 O{FIRST} :{}\n", base(1));
    assert_eq!(moved.list(ALICE), baked);
    assert!(!lock.exists());
}

#[test]
fn a_lock_of_a_dead_process_is_taken_away() {
    let moved = alice(1);
    moved.copy(ALICE, [1]);
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let lock = moved.maildir(ALICE).join("dovecot-uidlist.lock");
    fs::write(&lock, format!("{}:{}", child.id(), hostname())).unwrap();
    moved.bakes();
    assert!(!lock.exists());
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim_end().to_owned()
}

#[test]
fn where_there_is_no_room_the_old_list_stays_and_nothing_else() {
    let moved = alice(60);
    moved.copy(ALICE, 1..=60);
    let lines: String = (1..=60).map(|n| format!("{n} :{}\n", base(n))).collect();
    moved.write_list(ALICE, &format!("3 V99 N61 G{GUID}\n{lines}"));
    let before = moved.files();
    let helper = moved.command("--all");
    let mut limited = Command::new("sh");
    limited.current_dir(helper.get_current_dir().unwrap());
    // A file may have no more than two blocks; the signal for that is ignored.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$@\"", "-"]);
    limited.arg(helper.get_program()).args(helper.get_args());
    let ran = ran(&mut limited);
    assert_eq!((ran.status, &*ran.stdout), (1, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("not baked: dovecot-uidlist: File too large"), "{}", ran.stderr);
    assert_eq!(moved.files(), before);
    moved.bakes();
}

#[test]
fn the_list_lies_in_a_control_directory_where_one_is_named() {
    let moved = alice(1);
    moved.copy(ALICE, [1]);
    fs::create_dir_all(moved.here.path("control/a.org/alice")).unwrap();
    let control = moved.here.path("control");
    let pattern = format!("--all --control {}/{{domain}}/{{local}}", control.display());
    let ran = moved.bake(&pattern);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!moved.list_path(ALICE).exists());
    let list = fs::read_to_string(control.join("a.org/alice/dovecot-uidlist")).unwrap();
    assert!(list.contains("1 PUID1-17 O1048576 :"), "{list}");
    fs::remove_dir_all(control.join("a.org/alice")).unwrap();
    let ran = moved.bake(&pattern);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("no control directory of this user"), "{}", ran.stderr);
}

#[test]
fn what_only_a_rehearsal_has_baked_is_not_passed_over() {
    let moved = alice(2);
    moved.copy(ALICE, 1..=2);
    // Rule 2: a rehearsal by an index that another has replaced told the first message so.
    let list = format!(
        "3 V99 N200000 G{GUID}\n1 Pearlier O{FIRST} :{}\n2 PUID2-17 O{} :{}\n",
        base(1),
        FIRST + 1,
        base(2)
    );
    moved.write_list(ALICE, &list);
    assert_eq!(moved.bakes(), "", "all of it is baked");
    let told = [
        (1, &*base(1), "earlier", Provenance::File, None),
        (2, &*base(2), "UID2-17", Provenance::File, None),
    ];
    let ledger = Ledger { rehearsal: 7, ..ledger(ALICE, &told) };
    fs::write(moved.maildir(ALICE).join("uidl-keep.ledger"), ledger.encode()).unwrap();
    let mark = Mark::of(&ledger, 2).to_file();
    fs::write(moved.maildir(ALICE).join("uidl-keep.lock"), mark).unwrap();
    assert_eq!(moved.bakes(), "baked alice@a.org: 2 messages (2 kept)\n");
    assert!(moved.list(ALICE).contains("1 PUID1-17 O"), "{}", moved.list(ALICE));
    assert_eq!(moved.bakes(), "", "once is enough");
}

#[test]
fn a_stopped_run_goes_on_where_it_was() {
    let moved = Moved::with(&[(ALICE, 1), ("bob@a.org", 1)]);
    moved.copy(ALICE, [1]);
    moved.copy("bob@a.org", [1]);
    moved.here.write("stop", "");
    let ran = moved.bake("--all --stop-file stop");
    assert_eq!((ran.status, &*ran.stdout), (1, ""));
    assert!(ran.stderr.contains("2 left: stopped"), "{}", ran.stderr);
    fs::remove_file(moved.here.path("stop")).unwrap();
    moved.bake(ALICE);
    let ran = moved.bake("--all --jobs 2 --stop-file stop");
    assert_eq!((ran.status, &*ran.stdout), (0, "baked bob@a.org: 1 messages (1 kept)\n"));
}

#[test]
fn an_undo_gives_back_what_is_still_as_it_was_baked_of_users_who_are_held() {
    let moved = Moved::with(&[(ALICE, 3)]);
    moved.copy(ALICE, 1..=3);
    let line = |uid: u32, fields: &str| format!("{uid} {fields}:{}\n", base(uid));
    let header = format!("3 V99 N9 G{GUID}\n");
    let before = format!("{header}{}{}{}", line(1, "W9 Px O3 "), line(2, "P "), line(3, ""));
    moved.write_list(ALICE, &before);
    let ran = moved.bake("--all --undo-file undo");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(moved.here.mode("undo"), 0o600);
    let baked = moved.list(ALICE);

    let undo = |more: &str| moved.here.run(&format!("bake --site site --undo undo {more}"));
    let ran = undo("");
    assert_eq!((ran.status, &*ran.stdout), (1, ""));
    assert!(ran.stderr.contains("`uidl-keep hold` him first"), "{}", ran.stderr);
    assert_eq!(moved.list(ALICE), baked);
    moved.here.run("hold --site site alice@a.org");
    let ran = undo("--dry-run");
    let would = "would take back alice@a.org: 3 messages, 0 gone\n";
    assert_eq!((ran.status, &*ran.stdout), (0, would), "{}", ran.stderr);
    assert_eq!(moved.list(ALICE), baked);
    assert_eq!(undo("--only bob@a.org").stdout, "");

    // One has got another UIDL since, and one is gone.
    let changed = baked.replace("PUID1-17", "Pother").replace(&line(2, &fields_of(&baked, 2)), "");
    moved.write_list(ALICE, &changed);
    let ran = undo("");
    let back = "took back alice@a.org: 1 messages, 1 gone\n";
    assert_eq!((ran.status, &*ran.stdout), (1, back), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 messages have got another UIDL"), "{}", ran.stderr);
    let first = line(1, &format!("W9 Pother O{FIRST} "));
    assert_eq!(moved.list(ALICE), format!("{header}{first}{}", line(3, "")));

    moved.write_list(ALICE, &baked);
    assert_eq!(undo("").status, 0);
    assert_eq!(moved.list(ALICE), before);
    assert_eq!(undo("").status, 0, "a second time changes nothing");
    assert_eq!(moved.list(ALICE), before);
    moved.here.write("undo", "rubbish\n");
    assert!(undo("").stderr.contains("undo: line 1: not a line of an undo file"));
}

fn fields_of(list: &str, uid: u32) -> String {
    let line = list.lines().find(|line| line.starts_with(&format!("{uid} "))).unwrap();
    let fields = line.split_once(' ').unwrap().1;
    fields[..fields.find(':').unwrap()].to_owned()
}

#[test]
fn where_the_change_cannot_be_noted_nothing_is_changed() {
    let moved = alice(1);
    moved.copy(ALICE, [1]);
    let before = moved.files();
    let ran = moved.bake("--all --undo-file /dev/full");
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    let ran = moved.bake("--all --undo-file site/none/undo");
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert_eq!(moved.files(), before);
    symlink("victim", moved.here.path("undo")).unwrap();
    assert_eq!(moved.bake("--all --undo-file undo").status, 2);
    assert!(!Path::new(&moved.here.path("victim")).exists());
}
