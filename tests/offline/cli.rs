//! The commands that make a site and look after it: their output, the files that they leave, and
//! their exit status.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::shared::program::write_program;
use crate::support::cli::{ALICE, BOB, CAROL, DAVE, Here, ROOT, Ran, with_listings};

#[test]
fn build_makes_a_site_of_an_index_and_a_roster_for_each_domain() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    assert_eq!(
        here.files("site"),
        [
            "domain/example.com.idx",
            "domain/example.com.roster",
            "domain/example.net.idx",
            "domain/example.net.roster",
            "user/eve.idx",
            "user/eve.roster",
        ]
    );
    assert_eq!(
        here.roster("site/domain/example.com.roster"),
        ["alice@example.com captured guarded", "bob@example.com empty guarded"]
    );
    assert_eq!(here.mode("site"), 0o711);
    assert_eq!(here.mode("site/domain"), 0o711);
    assert_eq!(here.mode("site/domain/example.com.idx"), 0o640);
    assert_eq!(here.mode("site/domain/example.com.roster"), 0o640);
    here.quiet("check site");
    here.quiet("check site/user/eve.idx site/user/eve.roster");
}

#[test]
fn the_same_listings_in_any_order_make_the_same_bytes() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    here.quiet("build -o other two.listing one.listing");
    here.write("all.listing", &[ALICE, BOB, ROOT, DAVE].concat());
    here.quiet("build -o third all.listing");
    for file in here.files("site") {
        for other in ["other", "third"] {
            let (ours, others) = (format!("site/{file}"), format!("{other}/{file}"));
            assert!(here.read(&ours) == here.read(&others), "{ours} {others}");
        }
    }
    assert_eq!(here.files("site"), here.files("third"));
}

#[test]
fn a_build_of_a_dump_is_the_same_index() {
    let here = with_listings();
    here.write("three.listing", CAROL);
    let ran = here.run("build --final -o site one.listing two.listing three.listing");
    assert_eq!(ran.status, 0);
    assert!(ran.stderr.contains("1 failed maildrops") && ran.stderr.contains("carol"));
    let dump = here.run("dump site");
    assert_eq!((dump.status, &*dump.stderr), (0, ""));
    let built = here.run_with("build --final -o again -", &dump.stdout);
    assert_eq!(built.status, 0, "{}", built.stderr);
    for file in here.files("site") {
        assert!(
            here.read(&format!("site/{file}")) == here.read(&format!("again/{file}")),
            "{file}"
        );
    }
    let of_one = here.run("dump site/domain/example.net.idx");
    assert_eq!(of_one.stdout, DAVE);
}

#[test]
fn nothing_is_built_of_listings_of_which_one_is_wrong() {
    let here = with_listings();
    here.write("cut.listing", &BOB[..BOB.len() - 2]);
    here.write("again.listing", &[CAROL, BOB].concat());
    here.write("crlf.listing", &DAVE.replace("dave", "dora").replace("0155aa", "\u{7f}55aa"));
    here.write("slash.listing", &DAVE.replace("example.net", "../x"));
    here.write("not.listing", "hello\n");
    for (arguments, said) in [
        ("cut.listing", "cut.listing:3: "),
        (
            "again.listing",
            "again.listing:6: second maildrop of bob@example.com (first at one.listing:6)",
        ),
        ("crlf.listing", "crlf.listing:4: "),
        ("slash.listing", "slash.listing:1: "),
        ("not.listing", "not.listing:1: "),
        ("missing.listing", "missing.listing: "),
        ("one.listing", "one.listing:6: second maildrop"),
    ] {
        let trouble = here.trouble(&format!("build -o site one.listing {arguments}"));
        assert!(trouble.contains(said), "{arguments}: {trouble}");
        assert!(!here.path("site").exists(), "{arguments}");
    }
    assert!(here.trouble("build -o site").contains("no listing"));

    // What is left out of a listing must be right, too.
    let trouble = here.trouble("build -o site --only @example.com one.listing crlf.listing");
    assert!(trouble.starts_with("uidl-keep: crlf.listing:4: "), "{trouble}");
    assert!(!here.path("site").exists());
}

#[test]
fn a_maildrop_of_any_size_is_read_from_its_place_among_others() {
    let here = Here::new();
    let block = |user: &str, messages: usize| {
        let lines = (1..=messages).map(|n| format!("{n} {n:08x} file-hash={n:040x}\n"));
        let lines: String = lines.collect();
        format!("uidl-keep-listing 1\nmaildrop {user}@example.com\nstate captured\n{lines}.\n")
    };
    // One is larger than what is read at once.
    let [few, many, one] = [("adam", 3), ("berta", 8000), ("cesar", 1)].map(|(user, messages)| {
        let block = block(user, messages);
        assert_eq!(block.len() > 1 << 18, messages == 8000);
        block
    });
    here.write("all.listing", &[&one, "# berta\n", &many, "\n", &few].concat());
    here.quiet("build -o site all.listing");
    assert!(here.run("dump site").stdout == [few.as_str(), &many, &one].concat());

    // A fault in any of them is named by its line in the listing.
    for (was, is, line) in [
        ("7999 00001f3f", "7999 00001f3f\u{7f}", 5 + 1 + 3 + 7999),
        ("3 00000003 file-hash", "3 00000003 uid", 5 + 1 + 3 + 3),
        ("cesar", "adam", 5 + 1 + 8004 + 1 + 1),
    ] {
        let text = String::from_utf8(here.read("all.listing")).unwrap();
        here.write("wrong.listing", &text.replacen(was, is, 1));
        let trouble = here.trouble("build -o wrong wrong.listing");
        assert!(trouble.starts_with(&format!("uidl-keep: wrong.listing:{line}: ")), "{trouble}");
        assert!(!here.path("wrong").exists(), "{is}");
    }
}

#[test]
fn get_finds_a_user_and_a_unique_id_as_a_login_does() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    for place in ["site", "site/domain/example.com.idx"] {
        let got = here.run(&format!("get {place} alice@example.com"));
        assert_eq!(got.status, 0);
        assert!(got.stdout.starts_with("uidl-keep-listing 1\nmaildrop alice@example.com\n"));
        let got = here.run(&format!("get {place} alice@example.com UID2-1714990000"));
        assert_eq!(got.status, 0);
        assert!(got.stdout.starts_with("2 UID2-1714990000 uid=2 octets=433 file-hash="));
        assert_eq!(got.stdout.lines().count(), 1);
        let got = here.run(&format!("get {place} alice@example.com UID9-1714990000"));
        assert_eq!((got.status, &*got.stdout), (0, "spent UID9-1714990000\n"));
        for absent in ["alice@example.com UID3", "zoe@example.com", "alice@example.org", "alice"] {
            let got = here.run(&format!("get {place} {absent}"));
            assert_eq!((got.status, &*got.stdout), (1, ""), "{place} {absent}");
        }
    }
    assert_eq!(here.run("get site eve a").stdout.lines().count(), 2);
    // She is on the roster, and the index is gone: there is no answer at all.
    fs::remove_file(here.path("site/user/eve.idx")).unwrap();
    assert!(here.trouble("get site eve").contains("eve.idx: no index"));
    assert!(here.trouble("get nowhere eve").contains("nowhere"));
}

#[test]
fn inspect_says_what_there_is() {
    let here = with_listings();
    here.quiet("build --final -o site one.listing two.listing");
    let inspected = here.run("inspect site");
    assert_eq!(inspected.status, 0);
    let lines: Vec<&str> = inspected.stdout.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[0].starts_with("site/domain/example.com.idx: final, 2 maildrops, 2 messages, "));
    assert_eq!(
        lines[1],
        "site/domain/example.com.roster: 2 maildrops: 1 captured, 1 empty; 2 guarded"
    );
    let one = here.run("inspect site/domain/example.com.roster");
    assert_eq!(one.stdout.trim_end(), lines[1]);
}

#[test]
fn check_finds_what_is_damaged_or_does_not_fit() {
    let here = with_listings();
    let path = |file: &str| here.path("site/domain").join(file);
    let fresh = || {
        let _ = fs::remove_dir_all(here.path("site"));
        here.quiet("build -o site one.listing two.listing");
    };
    for file in ["example.com.idx", "example.com.roster"] {
        fresh();
        let mut octets = fs::read(path(file)).unwrap();
        let middle = octets.len() / 2;
        octets[middle] ^= 1;
        fs::write(path(file), &octets).unwrap();
        assert!(here.trouble("check site").contains(file));
        assert!(here.trouble(&format!("check site/domain/{file}")).contains(file));
        fs::remove_file(path(file)).unwrap();
        assert!(here.trouble("check site").contains("without the other"));
    }
    fresh();
    fs::rename(path("example.net.idx"), path("example.com.idx")).unwrap();
    fs::rename(path("example.net.roster"), path("example.com.roster")).unwrap();
    assert!(here.trouble("check site").contains("dave@example.net does not belong here"));
    fresh();
    here.write("only.listing", BOB);
    here.quiet("build -o small only.listing");
    fs::copy(here.path("small/domain/example.com.idx"), path("example.com.idx")).unwrap();
    assert!(here.trouble("check site").contains("1 of its 2 maildrops are not in the index"));
    fresh();
    here.write("other.listing", &[&ALICE.replace("captured", "failed\nremark x"), BOB].concat());
    here.run("build -o failed other.listing");
    fs::copy(here.path("failed/domain/example.com.roster"), path("example.com.roster")).unwrap();
    assert!(here.trouble("check site").contains("alice@example.com is failed there"));
    fresh();
    fs::copy(here.path("small/domain/example.com.roster"), path("example.com.roster")).unwrap();
    assert!(here.trouble("check site").contains("alice@example.com is in the index and not on it"));
    // She does not stay so: her index is there to be used.
    here.quiet("build --base site -o site --final");
    here.quiet("check site");
    assert!(here.roster("site/domain/example.com.roster")[0].starts_with("alice@example.com "));
    fresh();
    fs::set_permissions(path("example.com.idx"), Permissions::from_mode(0o666)).unwrap();
    assert!(here.trouble("check site").contains("lets group or others write"));
    assert!(here.trouble("check site/domain").contains("site/domain/domain"));
}

#[test]
fn a_later_capture_is_built_upon_the_earlier_and_drops_nothing() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    assert_eq!(here.run("hold --site site bob@example.com").status, 0);
    // Alice has got a third message and has deleted the first; Carol is new.
    let later = ALICE
        .replace("1 UID1-1714990000 uid=1", "1 UID13-1714990000 uid=13")
        .replace("1714990000.20000.old%20name", "1714999999.1.old")
        .replace("counter 13", "counter 14");
    here.write("later.listing", &[&later, CAROL].concat());

    let trouble = here.trouble("build -o site later.listing");
    assert!(
        trouble.contains("example.com.idx") && trouble.contains("would be dropped"),
        "{trouble}"
    );
    assert!(here.files("site").iter().all(|name| !name.contains(".new")));
    here.quiet("check site");

    let ran = here.run("build --base site -o new later.listing");
    assert_eq!((ran.status, &*ran.stdout), (0, ""), "{}", ran.stderr);
    assert_eq!(here.files("new"), here.files("site"), "other domains too");
    let got = here.run("get new alice@example.com").stdout;
    let uidls: Vec<&str> = got
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()))
        .map(|line| line.split(' ').nth(1).unwrap())
        .collect();
    assert_eq!(uidls, ["UID1-1714990000", "UID2-1714990000", "UID13-1714990000"]);
    assert!(got.contains("counter 14 UID%u-%v\n"));
    assert_eq!(
        here.roster("new/domain/example.com.roster"),
        [
            "alice@example.com captured guarded",
            "bob@example.com empty held",
            "carol@example.com failed guarded"
        ]
    );
    here.quiet("check new");

    // The same is done in place, which changes only what is listed; then everything is made final.
    let net = here.read("site/domain/example.net.idx");
    assert_eq!(here.run("build --base site -o site later.listing").status, 0);
    for file in ["domain/example.com.idx", "domain/example.com.roster"] {
        assert!(here.read(&format!("site/{file}")) == here.read(&format!("new/{file}")), "{file}");
    }
    assert!(here.read("site/domain/example.net.idx") == net);
    assert_eq!(here.run("build --final --base site -o site").status, 0);
    assert_eq!(here.run("inspect site").stdout.matches(": final, ").count(), 3);
    // A domain that nothing is added to stays final.
    let ran = here.run("build --base site -o more later.listing");
    assert!(ran.stderr.contains("example.com: was final, and is open again"), "{}", ran.stderr);
    assert_eq!(here.run("inspect more").stdout.matches(": final, ").count(), 2);
}

#[test]
fn a_build_over_another_site_loses_the_orders_of_neither() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    here.quiet("build -o other one.listing two.listing");
    assert_eq!(here.run("hold --site site alice@example.com").status, 0);
    assert_eq!(here.run("hold --site other bob@example.com").status, 0);
    assert_eq!(here.run("release --redownload --site other dave@example.net").status, 0);
    here.quiet("build --base site -o other");
    assert_eq!(
        here.roster("other/domain/example.com.roster"),
        ["alice@example.com captured held", "bob@example.com empty held"]
    );
    assert_eq!(
        here.roster("other/domain/example.net.roster"),
        ["dave@example.net captured redownload"]
    );
}

#[test]
fn what_a_killed_build_left_does_not_trip_the_next() {
    let here = with_listings();
    fs::create_dir_all(here.path("site/domain")).unwrap();
    here.write("site/domain/example.com.idx.new", "half");
    here.quiet("build -o site one.listing two.listing");
    assert_eq!(here.files("site").len(), 6);
    here.write("site/domain/example.org.roster.new", "half");
    here.quiet("check site");
}

#[test]
fn two_builds_of_one_site_at_a_time_are_refused() {
    let here = with_listings();
    here.quiet("build -o site one.listing");
    let lock = uidl_keep::file::lock::lock(&here.path("site")).unwrap();
    assert!(here.trouble("build -o site one.listing").contains("another uidl-keep"));
    drop(lock);
    here.quiet("build -o site one.listing");
}

#[test]
fn hold_and_release_change_the_gates_of_users_and_domains() {
    let here = with_listings();
    here.write("three.listing", CAROL);
    here.run("build -o site one.listing two.listing three.listing");
    let roster = || {
        let lines = here.roster("site/domain/example.com.roster");
        let lines = lines.iter().filter(|line| !line.starts_with('@'));
        let gates = lines.map(|line| line.split(' ').nth(2).unwrap().to_owned());
        gates.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(roster(), "guarded guarded guarded");
    let step = |args: &str, status, printed: &str, gates: &str| {
        let ran = here.run(args);
        assert_eq!((ran.status, &*ran.stdout), (status, printed), "{args}: {}", ran.stderr);
        assert_eq!(roster(), gates, "{args}");
        here.quiet("check site");
    };
    let held = "@example.com held 3\n";
    step("hold --site site example.com", 0, held, "held held held");
    step("hold --site site @example.com", 0, "", "held held held");
    step(
        "release --site site bob@example.com",
        0,
        "bob@example.com guarded\n",
        "held guarded held",
    );
    step(
        "release --site site @example.com",
        0,
        "@example.com guarded 2\n",
        "guarded guarded guarded",
    );
    step("release --site site example.com", 0, "", "guarded guarded guarded");
    step(
        "release --site site alice@example.com",
        0,
        "alice@example.com released\n",
        "released guarded guarded",
    );
    step("release --site site alice@example.com", 0, "", "released guarded guarded");
    // Her capture failed: she can only download again.
    step(
        "release --site site carol@example.com",
        1,
        "carol@example.com released\n",
        "released guarded released",
    );
    step(
        "release --redownload --site site carol@example.com",
        0,
        "carol@example.com redownload\n",
        "released guarded redownload",
    );
    step(
        "release --unguarded --site site example.com",
        0,
        "@example.com released 2\n",
        "released released redownload",
    );
    step("hold --site site example.com", 0, "@example.com held 2\n", "held held redownload");
    step(
        "hold --site site zoe@example.com bob@example.org example.org",
        1,
        "",
        "held held redownload",
    );

    here.write("list", "# moved\nalice@example.com\n\n example.net \neve\n");
    let ran = here.run("hold --site site --list list");
    assert_eq!((ran.status, &*ran.stdout), (0, "@example.net held 1\neve held\n"));
    let trouble = here.trouble("hold --site nowhere example.com");
    assert!(trouble.contains("nowhere/.lock"), "{trouble}");
}

#[test]
fn a_damaged_index_keeps_nobody_from_closing_a_gate() {
    let here = with_listings();
    here.quiet("build -o site one.listing two.listing");
    here.write("site/domain/example.com.idx", "damaged");
    for (command, gate) in [("hold", "held"), ("release --redownload", "redownload")] {
        let ran = here.run(&format!("{command} --site site example.com"));
        let printed = format!("@example.com {gate} 2\n");
        assert_eq!((ran.status, ran.stdout), (0, printed), "{}", ran.stderr);
    }
    here.write("site/domain/example.com.roster", "damaged");
    assert!(here.trouble("hold --site site example.com").contains("example.com.roster: "));
}

#[test]
fn a_roster_keeps_its_owner_and_mode_when_a_gate_changes() {
    let here = with_listings();
    here.quiet("build -o site one.listing");
    let roster = here.path("site/domain/example.com.roster");
    fs::set_permissions(&roster, Permissions::from_mode(0o400)).unwrap();
    let root = roster.metadata().unwrap().uid() == 0;
    if root {
        std::os::unix::fs::chown(&roster, Some(0), Some(4242)).unwrap();
    }
    assert_eq!(here.run("hold --site site example.com").status, 0);
    let metadata = roster.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o400);
    assert!(!root || metadata.gid() == 4242);
}

/// A `doveadm user -f FIELD -- USER...` that knows some users, and none else.
fn fake_doveadm(here: &Here, uid_and_gid: &str) {
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1 $2\" = '-c conf' ] || exit 64\n\
         shift 2\n\
         [ \"$*\" = 'user -- *@example.com' ] && exec echo alice@example.com\n\
         [ \"$1 $2 $4\" = 'user -f --' ] || exit 64\n\
         field=$3; shift 4; status=0\n\
         for user; do\n\
         case $user in {uid_and_gid} *) status=67\n\
         echo \"userdb lookup: user $user doesn't exist\" >&2; continue;; esac\n\
         case $field in uid) echo $uid;; gid) echo $gid;; esac\n\
         done\n\
         exit $status\n"
    );
    write_program(&here.path("doveadm"), &script);
    let doveconf = "#!/bin/sh\n\
         [ \"$1 $2\" = '-c conf' ] || exit 64\n\
         shift 2\n\
         case $* in\n\
         '-f protocol=pop3 mail_plugins') echo 'mail_plugins = quota uidl_keep';;\n\
         *) exit 64;;\n\
         esac\n";
    write_program(&here.path("doveconf"), doveconf);
}

const INSTALL: &str = "build --install --site site --doveadm ./doveadm --doveadm-args -c\u{a0}conf";

/// Runs `build --install` with a listing; the blank within one argument does not split it.
fn install(here: &Here, listing: &str) -> Ran {
    install_with(here, &[listing])
}

fn install_with(here: &Here, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
    for argument in INSTALL.split(' ') {
        command.arg(argument.replace('\u{a0}', " "));
    }
    let output = command.args(args).arg("-q").current_dir(here.0.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    // The site is not where the plugin looks.
    let is_more = |line: &&str| !line.contains("not checked whether Dovecot guards these users");
    Ran {
        status: output.status.code().expect("not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: stderr.split_inclusive('\n').filter(is_more).collect(),
    }
}

fn is_root(here: &Here) -> bool {
    let is_root = here.path(".").metadata().unwrap().uid() == 0;
    if !is_root {
        eprintln!("skipped: only root can give files away");
    }
    is_root
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let metadata = path.metadata().unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[test]
fn installed_files_can_be_read_by_those_who_log_in_and_nobody_else() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    // Gid 1 is daemon's, an account with another uid, as a panel's shared group is.
    fake_doveadm(
        &here,
        "alice@*) uid=4001 gid=4001;; bob@*) uid=4001 gid=4001;; \
         dave@*) uid=4002 gid=1;; eve) uid=4003 gid=4003;;",
    );
    for (listing, times) in [("one.listing", 1), ("two.listing", 1), ("two.listing", 2)] {
        let ran = install(&here, listing);
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{listing} {times}");
    }
    for extension in ["idx", "roster"] {
        let path = |name: &str| here.path("site").join(format!("{name}.{extension}"));
        assert_eq!(owner(&path("domain/example.com")), (0, 4001, 0o640));
        assert_eq!(owner(&path("domain/example.net")), (4002, 1, 0o400));
        assert_eq!(owner(&path("user/eve")), (0, 4003, 0o640));
    }
    assert_eq!(
        here.roster("site/domain/example.com.roster"),
        ["alice@example.com captured guarded", "bob@example.com empty guarded"],
        "the second build was upon the first"
    );
}

#[test]
fn what_was_given_to_one_account_is_held_built_upon_and_checked_by_root() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    fake_doveadm(&here, "bob@*) uid=4001 gid=4001;; dave@*) uid=4002 gid=1;;");
    let roster = "site/domain/example.net.roster";
    let theirs = |when: &str| assert_eq!(owner(&here.path(roster)), (4002, 1, 0o400), "{when}");
    for when in ["built", "built upon"] {
        let ran = install(&here, "one.listing");
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{when}");
        theirs(when);
    }
    let ran = here.run("hold --site site example.net");
    assert_eq!((ran.status, &*ran.stdout), (0, "@example.net held 1\n"), "{}", ran.stderr);
    theirs("held");
    here.quiet("check site");
    assert_eq!(here.run("get site dave@example.net").status, 0);
    // It must not be somebody else's, whatever the mode.
    fs::set_permissions(here.path(roster), Permissions::from_mode(0o640)).unwrap();
    assert!(here.trouble("check site").contains("owned by uid 4002"));
}

const GAP: &str = "uidl-keep-listing 1
maildrop *@example.com
state failed
remark /srv/example.com: permission denied
.
";

#[test]
fn everybody_of_a_domain_is_on_its_roster_where_somebody_was_missed() {
    let here = with_listings();
    here.write("gap.listing", &[ALICE, GAP].concat());
    let ran = here.run("build -o site gap.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let next = "when all of it has been captured, or if nobody is missing: uidl-keep release \
                --redownload '*@example.com'";
    assert!(ran.stderr.contains(next), "{}", ran.stderr);
    assert!(!ran.stderr.contains("failed maildrops"), "{}", ran.stderr);
    let roster = "site/domain/example.com.roster";
    let gap = "*@example.com failed guarded";
    assert_eq!(here.roster(roster), [gap, "alice@example.com captured guarded"]);
    here.quiet("check site");

    // A later capture of the domain that names more of it leaves it, until somebody says so.
    here.write("bob.listing", BOB);
    here.run("build -o site --base site bob.listing");
    assert_eq!(here.roster(roster).len(), 3);
    let ran = here.run("release --site site --redownload *@example.com");
    assert_eq!((ran.status, &*ran.stdout), (0, "*@example.com redownload\n"));
    let ran = here.run("build -o site --base site bob.listing");
    assert_eq!((ran.status, &*ran.stderr), (0, ""));
    assert_eq!(here.roster(roster)[0], "*@example.com failed redownload");
}

#[test]
fn a_block_of_everybody_that_nobody_can_be_refused_by_is_refused_itself() {
    let here = with_listings();
    here.write("all.listing", &GAP.replace("*@example.com", "*"));
    let said = here.trouble("build -o site all.listing");
    let fault = "all.listing:1: the block of everybody: a place at the old server could not be";
    assert!(said.contains(fault), "{said}");
    here.write("empty.listing", &BOB.replace("bob@", "*@"));
    let said = here.trouble("build -o site empty.listing");
    assert!(said.contains("empty.listing:1: *@example.com: not failed"), "{said}");
    assert!(!here.path("site").exists());
}

#[test]
fn doveadm_is_asked_for_users_and_never_for_everybody_among_them() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    fake_doveadm(&here, "alice@*) uid=4001 gid=4001;;");
    here.write("both.listing", &[ALICE, GAP].concat());
    here.write("gap.listing", GAP);
    for listing in ["both.listing", "gap.listing"] {
        let ran = install(&here, listing);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(!ran.stderr.contains("does not know"), "{}", ran.stderr);
        assert_eq!(owner(&here.path("site/domain/example.com.roster")), (0, 4001, 0o640));
        fs::remove_dir_all(here.path("site")).unwrap();
    }

    // A domain that was not moved stops nothing.
    here.write("net.listing", &[ALICE, &GAP.replace("example.com", "example.net")].concat());
    let ran = install(&here, "net.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("example.net: doveadm lists nobody of it"), "{}", ran.stderr);
    assert_eq!(owner(&here.path("site/domain/example.net.roster")), (0, 0, 0o600));
    assert_eq!(owner(&here.path("site/domain/example.com.roster")), (0, 4001, 0o640));
}

#[test]
fn nothing_is_installed_for_users_that_dovecot_does_not_know_or_that_cannot_read_it() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    fake_doveadm(&here, "nobody) ;;");
    let ran = install(&here, "one.listing");
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("Dovecot knows none of its 1 users"), "{}", ran.stderr);
    assert!(!here.path("site").exists());

    // One user was not moved: a remark.
    here.write("both.listing", &[ALICE, BOB].concat());
    fake_doveadm(&here, "alice@*) uid=4001 gid=4001;;");
    let ran = install(&here, "both.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let said = "example.com: Dovecot does not know 1 of its users, who are on its roster all the \
                same: bob@example.com";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);

    fs::set_permissions(here.path("site"), Permissions::from_mode(0o700)).unwrap();
    let ran = install(&here, "both.listing");
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("uid 4001, gid 4001 cannot read"), "{}", ran.stderr);
}

#[test]
fn all_whom_dovecot_does_not_know_are_named_and_the_others_can_be_built() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    fake_doveadm(&here, "alice@*|zoe@*) uid=4001 gid=4001;;");
    let zoe = BOB.replace("bob@example.com", "zoe@example.org");
    here.write("all.listing", &[ALICE, BOB, DAVE, ROOT, &zoe].concat());
    let unknown = "uidl-keep: example.net: Dovecot knows none of its 1 users (the first: \
                   dave@example.net)\n";
    let ran = install(&here, "all.listing");
    assert_eq!(ran.status, 2);
    for said in [
        unknown,
        "uidl-keep: eve: Dovecot knows none of its 1 users (the first: eve)\n",
        "users, who are on its roster all the same: bob@example.com\n",
        "uidl-keep: Dovecot does not know 2 domains or users, named above, and nothing is changed",
    ] {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    assert!(!here.path("site").exists());

    // Left out, they are on no roster.
    let left_out = "2 maildrops of the listings are left out (the first: dave@example.net): \
                    those on no roster are served as if never migrated\n";
    for args in [
        &["--except", "@example.net", "--except", "eve"][..],
        &["--only", "@example.com", "--only", "zoe@example.org"],
    ] {
        let ran = install_with(&here, &[args, &["all.listing"]].concat());
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(left_out), "{}", ran.stderr);
        assert_eq!(here.files("site").len(), 4);
        assert_eq!(here.roster("site/domain/example.com.roster").len(), 2);
        fs::remove_dir_all(here.path("site")).unwrap();
    }
    let ran = install_with(&here, &["--except", "example.net", "all.listing"]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("no listing has example.net; name users, and domains as @"));

    // Skipped, they are there, and refused until somebody can read them.
    let ran = install_with(&here, &["--skip-unknown", "all.listing"]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(unknown), "{}", ran.stderr);
    for name in ["domain/example.net", "user/eve"] {
        assert_eq!(owner(&here.path(&format!("site/{name}.roster"))), (0, 0, 0o600));
    }
    assert_eq!(owner(&here.path("site/domain/example.com.roster")), (0, 4001, 0o640));
    fake_doveadm(&here, "alice@*|zoe@*|dave@*|eve) uid=4001 gid=4001;;");
    let ran = install_with(&here, &[]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(owner(&here.path("site/user/eve.roster")), (0, 4001, 0o640));
}

#[test]
fn what_a_build_did_not_put_in_place_is_said_until_it_is_there() {
    let here = with_listings();
    here.quiet("build -o site one.listing");
    assert!(!here.path("site/installing").exists());
    let ended = "uidl-keep-installing 1\n0123456789abcdef domain/example.org.idx\n.\n";
    here.write("site/installing", ended);
    let said = "uidl-keep: site/installing: a build was ended while it was put in place: 0 of 1 \
                domains and users are (the first that is not: example.org); run the same `build` \
                again, or remove that file if the rest is not wanted\n";
    assert_eq!(here.trouble("check site"), said);
    // Another build does its work, and forgets nothing of it.
    let ran = here.run("build -o site --base site two.listing");
    assert_eq!((ran.status, ran.stderr), (1, [said, said].concat()));
    assert_eq!(here.read("site/installing"), ended.as_bytes());
    here.write("org.listing", &BOB.replace(".com", ".org"));
    let ran = here.run("build -o site --base site org.listing");
    assert_eq!((ran.status, &*ran.stderr), (0, said));
    assert!(!here.path("site/installing").exists());
    here.quiet("check site");

    here.write("site/installing", "uidl-keep-installing 1\n0123 dom");
    let trouble = here.trouble("build -o site --base site org.listing");
    assert!(trouble.contains("site/installing: not what uidl-keep writes there; remove it"));
    assert!(here.trouble("check site").contains("site/installing: not what uidl-keep writes"));
}

#[test]
fn users_of_a_domain_who_share_no_group_have_files_of_their_own() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    let all = [ALICE, BOB, CAROL].concat();
    here.write("all.listing", &[&all, GAP].concat());
    // Dovecot does not know carol.
    fake_doveadm(&here, "alice@*) uid=4001 gid=4001;; bob@*) uid=4002 gid=4002;;");
    let script = String::from_utf8(here.read("doveadm")).unwrap();
    let both = "exec echo 'alice@example.com\nbob@example.com'";
    here.write("doveadm", &script.replace("exec echo alice@example.com", both));
    for when in ["at first", "again"] {
        let ran = install(&here, "all.listing");
        assert_eq!(ran.status, 0, "{when}: {}", ran.stderr);
        let unknown =
            "carol@example.com: Dovecot does not know this user, so only root can read his";
        assert!(ran.stderr.contains(unknown), "{when}: {}", ran.stderr);
        let (alice, bob) = ("user/alice@example.com", "user/bob@example.com");
        for (place, access) in [
            (alice, (4001, 4001, 0o400)),
            (bob, (4002, 4002, 0o400)),
            ("user/carol@example.com", (0, 0, 0o600)),
            // Nobody stands there, and anybody may have to know.
            ("domain/example.com", (0, 0, 0o644)),
        ] {
            for extension in ["idx", "roster"] {
                let path = here.path(&format!("site/{place}.{extension}"));
                assert_eq!(owner(&path), access, "{when}: {place}.{extension}");
            }
        }
        let everybody = ["*@example.com failed guarded"];
        assert_eq!(here.roster("site/domain/example.com.roster"), everybody);
        assert_eq!(here.roster("site/user/bob@example.com.roster").len(), 1);
        here.quiet("check site");
    }

    // A word on the domain is said of them all, and one on a user is said of that one alone.
    let hold = here.run("hold --site site example.com");
    assert_eq!((hold.status, &*hold.stdout), (0, "@example.com held 4\n"), "{}", hold.stderr);
    let release = here.run("release --site site bob@example.com");
    assert_eq!((release.status, &*release.stdout), (0, "bob@example.com guarded\n"));
    assert_eq!(here.run("hold --site site zoe@example.com").status, 1);
    let get = here.run("get site alice@example.com");
    assert!(get.stdout.contains("UID2-1714990000"), "{}", get.stderr);
    // They are built elsewhere upon it and without Dovecot, and stay who they are.
    here.write("bob.listing", BOB);
    let ran = here.run("build -o new --base site --final bob.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(here.run("build -o new --base site --final").status, 0);
    assert_eq!(here.files("new"), here.files("site"));
    assert_eq!(here.roster("new/user/alice@example.com.roster")[0].split(' ').nth(2), Some("held"));
}

#[test]
fn who_stands_on_the_roster_of_his_domain_stays_there() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    let knows = "alice@*) uid=4001 gid=4001;; bob@*) uid=4002 gid=4002;;";
    fake_doveadm(&here, knows);
    here.write("alice.listing", ALICE);
    here.write("both.listing", &[ALICE, BOB].concat());
    assert_eq!(install(&here, "alice.listing").status, 0);
    let ran = install(&here, "both.listing");
    assert_eq!((ran.status, &*ran.stderr), (0, ""));
    assert_eq!(owner(&here.path("site/domain/example.com.idx")), (0, 4001, 0o640));
    assert_eq!(owner(&here.path("site/user/bob@example.com.idx")), (4002, 4002, 0o400));
    here.quiet("check site");

    // They are given groups of their own later: those who stand together cannot all be let read.
    fs::remove_dir_all(here.path("site")).unwrap();
    fake_doveadm(&here, "alice@*|bob@*) uid=4001 gid=4001;;");
    assert_eq!(install(&here, "both.listing").status, 0);
    fake_doveadm(&here, knows);
    let ran = install(&here, "both.listing");
    assert_eq!(ran.status, 2);
    let next = "its users are on one roster and have several gids, or none";
    assert!(ran.stderr.contains(next), "{}", ran.stderr);
    assert_eq!(here.files("site").len(), 2);
}

#[test]
fn a_domain_whose_users_have_files_of_their_own_is_held_whole() {
    let here = with_listings();
    if !is_root(&here) {
        return;
    }
    fake_doveadm(&here, "alice@*) uid=4001 gid=4001;; bob@*|carol@*) uid=4002 gid=4002;;");
    here.write("both.listing", &[ALICE, BOB].concat());
    let ran = install(&here, "both.listing");
    assert_eq!((ran.status, &*ran.stderr), (0, ""));
    let roster = "site/domain/example.com.roster";
    assert!(here.roster(roster).is_empty());
    let gate_of = |name: &str| {
        let lines = here.roster(&format!("site/user/{name}@example.com.roster"));
        assert_eq!(lines.len(), 1);
        lines[0].split(' ').nth(2).unwrap().to_owned()
    };
    let hold = here.run("hold --site site example.com");
    assert_eq!((hold.status, &*hold.stdout), (0, "@example.com held 2\n"), "{}", hold.stderr);
    // A stranger is refused by it, and a newcomer held.
    assert_eq!(here.roster(roster), ["@example.com empty held"]);
    assert_eq!(owner(&here.path(roster)), (0, 0, 0o644));
    here.write("carol.listing", CAROL);
    assert_eq!(install(&here, "carol.listing").status, 0);
    assert_eq!(["alice", "bob", "carol"].map(gate_of), ["held"; 3]);
    assert_eq!(here.roster(roster), ["@example.com empty held"]);
    assert_eq!(owner(&here.path(roster)), (0, 0, 0o644));
    here.quiet("check site");
    let release = here.run("release --site site example.com");
    assert_eq!((release.status, &*release.stdout), (0, "@example.com guarded 3\n"));
    assert!(here.roster(roster).is_empty());

    // A build that holds does so too.
    assert_eq!(install_with(&here, &["--hold", "carol.listing"]).status, 0);
    assert_eq!(["alice", "bob", "carol"].map(gate_of), ["held"; 3]);
    assert_eq!(here.roster(roster), ["@example.com empty held"]);
    let release = here.run("release --site site --all");
    assert_eq!((release.status, &*release.stdout), (0, "@example.com guarded 3\n"));
    here.quiet("check site");
}

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let here = with_listings();
    let many: Vec<String> = (1..20_000).map(|n| format!("{n} uidl{n} file=f{n}\n")).collect();
    let many = many.concat();
    here.write("many.listing", &ROOT.replace("1 a file=1\n2 a file=2\n", &many));
    here.quiet("build -o site many.listing");
    let output = here.unread("dump site");
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn help_opens_with_a_sentence_and_an_example() {
    let here = Here::new();
    for command in ["build", "check", "dump", "forget", "get", "hold", "inspect", "release"] {
        let help = here.run(&format!("{command} --help"));
        assert_eq!(help.status, 0);
        let example = format!("\nExample: uidl-keep {command} ");
        assert!(help.stdout.contains(&example), "{}", help.stdout);
    }
}
