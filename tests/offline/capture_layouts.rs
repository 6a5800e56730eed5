//! `uidl-keep capture`, of one Maildir and of whole servers.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::shared::capture::{Ran, make, message};
use crate::shared::program::{copy_helper, write_program};
use crate::shared::uidl_keep;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::State;

impl Ran {
    /// The listing that it wrote to stdout, without the lines that say when.
    fn untimed(&self) -> Vec<u8> {
        let lines = self.stdout.split_inclusive(|&octet| octet == b'\n');
        lines.filter(|line| !line.starts_with(b"taken ")).flatten().copied().collect()
    }

    fn users(&self) -> Vec<String> {
        self.blocks().into_iter().map(|maildrop| maildrop.user).collect()
    }
}

/// The root of a server that is not there.
struct Server {
    root: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Makes a Courier Maildir of one message, which is known as UID7-17.
    fn maildir(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        make(&path);
        fs::write(path.join("cur/1.a:2,S"), message("one")).unwrap();
        fs::write(path.join("courierpop3dsizelist"), "/3 9 17\n1.a:2,S 10 7:17:0\n").unwrap();
        path
    }

    fn capture(&self, arguments: &[&str]) -> Ran {
        let mut command = uidl_keep();
        command.args(["capture", "courier", "--root"]).arg(self.root.path()).args(arguments);
        Ran::of(command)
    }
}

#[test]
fn each_panel_is_found_where_it_keeps_its_mail() {
    for (layout, path, user) in [
        ("plesk", "var/qmail/mailnames/ex.com/al/Maildir", "al@ex.com"),
        ("cpanel", "home/acct/mail/ex.com/al", "al@ex.com"),
        ("cpanel", "home/acct/mail", "acct"),
        ("vpopmail", "home/vpopmail/domains/ex.com/al/Maildir", "al@ex.com"),
        ("vpopmail", "home/vpopmail/domains/0/ex.com/al/Maildir", "al@ex.com"),
        ("vpopmail", "home/vpopmail/domains/ex.com/A/al/Maildir", "al@ex.com"),
        ("vpopmail", "home/vpopmail/domains/0/ex.com/A/al/Maildir", "al@ex.com"),
    ] {
        let server = Server::new();
        let maildir = server.maildir(path);
        fs::write(maildir.parent().unwrap().join("vpasswd"), "not a maildrop").unwrap();
        let ran = server.capture(&["--layout", layout]);
        assert_eq!((ran.status, &ran.stderr[..]), (0, ""), "{layout} {path}");
        let blocks = ran.blocks();
        assert_eq!(blocks.len(), 1, "{layout} {path}");
        assert_eq!(blocks[0].user, user);
        assert_eq!(blocks[0].entries[0].uidl.to_string(), "UID7-17");
        assert!(blocks[0].source.ends_with(path), "{}", blocks[0].source);
    }
}

#[test]
fn mailboxes_that_only_imap_ever_read_are_empty_and_no_news() {
    let server = Server::new();
    for local in ["al", "bo", "cy"] {
        let maildir = server.path(&format!("srv/ex.com/{local}"));
        make(&maildir);
        fs::write(maildir.join("courierimapuiddb"), "1 17 19\n").unwrap();
        for n in 0..18 {
            fs::write(maildir.join(format!("cur/{n}.a:2,S")), message("one")).unwrap();
        }
    }
    // This one has mail that its owner has not fetched yet.
    let listed = server.maildir("srv/ex.com/di");
    fs::write(listed.join("new/2.b"), message("two")).unwrap();
    let ran = server.capture(&["--pattern", "/srv/{domain}/{local}"]);
    assert_eq!((ran.status, &ran.stderr[..]), (0, ""));
    let blocks = ran.blocks();
    let states: Vec<State> = blocks.iter().map(|block| block.state).collect();
    assert_eq!(states, [State::Empty, State::Empty, State::Empty, State::Captured]);
    let said = "no courierpop3dsizelist: no POP3 client was ever told of the 18 messages here";
    assert_eq!(blocks[0].remarks, [said]);
    assert_eq!(blocks[3].remarks, ["1 message not listed to any POP3 client yet: no unique-id"]);

    // A maildrop that somebody should look at is named.
    fs::write(listed.join("dovecot-uidlist"), "3 V1 N1\n").unwrap();
    let ran = server.capture(&["--pattern", "/srv/{domain}/{local}"]);
    assert_eq!(ran.status, 0);
    let said = "uidl-keep: di@ex.com: 1 of 4 maildrops have something unusual about them: see the \
                lines \"remark\" of the listing\n";
    assert_eq!(ran.stderr, said);
}

#[test]
fn a_name_that_can_be_read_in_two_ways_is_a_failure_of_both_users_until_a_form_says_which() {
    let server = Server::new();
    server.maildir("srv/anna-lena-2019.05.06");
    server.maildir("srv/bob-2020.01.01");
    let template = ["--user-template", "{local}"];
    let ran = server.capture(&[&["--pattern", "/srv/{local}-{stamp}"], &template[..]].concat());
    let states: Vec<_> = ran.blocks().into_iter().map(|one| (one.user, one.state)).collect();
    let wanted = [("anna", State::Failed), ("anna-lena", State::Failed), ("bob", State::Captured)];
    assert_eq!(states, wanted.map(|(user, state)| (user.to_owned(), state)));
    assert_eq!(ran.status, 1);
    ran.says(
        "srv/anna-lena-2019.05.06 can be read as anna and as anna-lena: give a variable of the \
         pattern a form, as in {stamp:[0-9]+}",
    );
    let formed = ["--pattern", "/srv/{local}-{stamp:[0-9.]+}"];
    let ran = server.capture(&[&formed, &template[..]].concat());
    assert_eq!((ran.users(), ran.status), (vec!["anna-lena".to_owned(), "bob".to_owned()], 0));

    // A user who has a maildrop of his own keeps it; one that is nobody's then is said.
    server.maildir("srv/anna-2018.01.01");
    server.maildir("srv/x-y-z-2018.01.01");
    let ran = server.capture(&[&["--pattern", "/srv/{local}-{stamp}"], &template[..]].concat());
    let captured = ran.blocks().into_iter().filter(|one| one.state == State::Captured);
    assert_eq!(captured.map(|one| one.user).collect::<Vec<_>>(), ["anna", "bob"]);
    assert_eq!(ran.users(), ["anna", "anna-lena", "bob", "x", "x-y", "x-y-z"]);
    ran.says("can be read as x and as x-y, and in other ways: ");
    for user in ["x", "x-y", "x-y-z"] {
        server.maildir(&format!("others/{user}"));
    }
    let both = ["--pattern", "/srv/{local}-{stamp}", "--pattern", "/others/{local}"];
    let ran = server.capture(&[&both, &template[..]].concat());
    ran.says("srv/x-y-z-2018.01.01 can be read as x and as x-y, and in other ways: ");
    let failed = ran.blocks().into_iter().filter(|one| one.state == State::Failed);
    assert_eq!(failed.map(|one| one.user).collect::<Vec<_>>(), ["anna-lena"]);
    assert_eq!((ran.users().len(), ran.status), (6, 1));
}

#[test]
fn cpanels_accounts_are_found_on_every_disk_and_once() {
    let server = Server::new();
    server.maildir("home/acct/mail/ex.com/al");
    server.maildir("home2/other/mail/ex.org/bo");
    server.maildir("homeless/other/mail/ex.org/cy");
    std::os::unix::fs::symlink("home2", server.path("home3")).unwrap();
    // This account was moved to another disk, and has its own maildrop there.
    server.maildir("home2/other/mail");
    symlink("../home2/other", server.path("home/other")).unwrap();
    let ran = server.capture(&["--layout", "cpanel"]);
    assert_eq!((ran.status, &ran.stderr[..]), (0, ""));
    assert_eq!(ran.users(), ["al@ex.com", "bo@ex.org", "other"]);
}

#[test]
fn vpopmail_is_looked_for_in_its_own_home() {
    let server = Server::new();
    fs::create_dir(server.path("etc")).unwrap();
    // This is the name of somebody else, in ISO 8859-1.
    let passwd = b"jm:x:7:7:J\xfcrgen:/:/bin/sh\nvpopmail:x:89:89::/srv/vpop:/bin/false\n";
    fs::write(server.path("etc/passwd"), passwd).unwrap();
    server.maildir("srv/vpop/domains/ex.com/al/Maildir");
    assert_eq!(server.capture(&["--layout", "vpopmail"]).users(), ["al@ex.com"]);
}

#[test]
fn users_are_called_as_template_and_rename_file_say_and_come_in_their_order() {
    let server = Server::new();
    for path in ["srv/a.example/one", "srv/b.example/two", "srv/b.example/zoe"] {
        server.maildir(path);
    }
    let renames = server.path("renames");
    fs::write(&renames, "# moved\n\none.a.example  zz@c.example\n").unwrap();
    let pattern = ["--pattern", "/srv/{domain}/{local}", "--user-template", "{local}.{domain}"];
    let rename = ["--rename", renames.to_str().unwrap()];
    let ran = server.capture(&[&pattern[..], &rename].concat());
    assert_eq!(ran.users(), ["two.b.example", "zoe.b.example", "zz@c.example"]);
    assert_eq!(
        server.capture(&pattern[..2]).users(),
        ["one@a.example", "two@b.example", "zoe@b.example"]
    );
    let only = ["--only", "b.example", "--only", "one@a.example", "--only", "eve"];
    let ran = server.capture(&[&pattern[..2], &only].concat());
    assert_eq!((ran.status, ran.users().len()), (1, 3));
    assert_eq!(ran.stderr, "uidl-keep: --only eve: no such maildrop\n");
    fs::write(&renames, "one.a.example zz@c.example\neno.a.example yy@c.example\n").unwrap();
    let ran = server.capture(&[&pattern[..], &rename].concat());
    assert_eq!((ran.status, ran.users().len()), (1, 3));
    let said = "uidl-keep: --rename: no maildrop of eno.a.example, to be called yy@c.example\n";
    assert_eq!(ran.stderr, said);
    fs::write(&renames, "one two three\n").unwrap();
    let ran = server.capture(&[&pattern[..], &rename].concat());
    assert_eq!((ran.status, ran.stdout.len()), (2, 0));
    assert!(ran.stderr.contains("renames:1: not an old and a new name"), "{}", ran.stderr);
}

#[test]
fn two_maildrops_of_one_user_cost_that_user_and_not_the_run() {
    let server = Server::new();
    for path in ["srv/x/al", "srv/y/al", "srv/y/bo"] {
        server.maildir(path);
    }
    let ran = server.capture(&["--pattern", "/srv/*/{local}"]);
    let blocks = ran.blocks();
    assert_eq!(ran.status, 1);
    assert_eq!((&blocks[0].user[..], blocks[0].state), ("al", State::Failed));
    assert!(blocks[0].remarks[0].contains("two maildrops for one user"), "{:?}", blocks[0].remarks);
    assert_eq!((&blocks[1].user[..], blocks[1].state), ("bo", State::Captured));
}

#[test]
fn a_pattern_whose_directory_is_not_there_is_named_beside_those_that_are_searched() {
    let server = Server::new();
    server.maildir("disk1/alice/Maildir");
    let pattern = |disk: &str| format!("/{disk}/{{user}}/Maildir");
    let ran = server.capture(&["--pattern", &pattern("disk1"), "--pattern", &pattern("disk2")]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("disk2: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing was searched by that pattern; mount it"));
    assert!(String::from_utf8(ran.stdout).unwrap().contains("maildrop alice\n"));
}

#[test]
fn a_planted_link_is_a_failed_maildrop_and_never_followed() {
    let server = Server::new();
    let secret = server.maildir("secret/Maildir");
    server.maildir("srv/ex.com/al/Maildir");
    for user in ["eve", "mal", "tom"] {
        make(&server.path(&format!("srv/ex.com/{user}/Maildir")));
    }
    fs::remove_dir_all(server.path("srv/ex.com/eve/Maildir")).unwrap();
    symlink(&secret, server.path("srv/ex.com/eve/Maildir")).unwrap();
    fs::remove_dir(server.path("srv/ex.com/mal/Maildir/cur")).unwrap();
    symlink(secret.join("cur"), server.path("srv/ex.com/mal/Maildir/cur")).unwrap();
    let list = server.path("srv/ex.com/tom/Maildir/courierpop3dsizelist");
    symlink(secret.join("courierpop3dsizelist"), list).unwrap();
    symlink(server.path("secret"), server.path("srv/ex.com/zed")).unwrap();
    symlink(server.path("srv/ex.com"), server.path("srv/ex.org")).unwrap();
    let ran = server.capture(&["--pattern", "/srv/{domain}/{local}/Maildir"]);
    assert_eq!(ran.status, 1);
    let states: Vec<(String, State)> =
        ran.blocks().into_iter().map(|maildrop| (maildrop.user, maildrop.state)).collect();
    let failed = |user: &str| (format!("{user}@ex.com"), State::Failed);
    let captured = ("al@ex.com".to_owned(), State::Captured);
    let everybody = ("*@ex.org".to_owned(), State::Failed);
    let of_users = ["eve", "mal", "tom", "zed"].map(failed);
    assert_eq!(states[..2], [everybody, captured]);
    assert_eq!(states[2..], of_users);
    assert!(ran.stderr.contains("srv/ex.org: a symbolic link"), "{}", ran.stderr);
}

#[test]
fn who_lives_where_nobody_can_search_has_a_block_that_says_so() {
    let server = Server::new();
    server.maildir("srv/ex.com/al");
    server.maildir("elsewhere/bo");
    symlink(server.path("elsewhere"), server.path("srv/ex.org")).unwrap();
    let pattern = ["--pattern", "/srv/{domain}/{local}"];
    let capture = |arguments: &[&str]| server.capture(&[&pattern[..], arguments].concat());
    let ran = capture(&[]);
    assert_eq!((ran.status, ran.users()), (1, vec!["*@ex.org".into(), "al@ex.com".into()]));
    let gap = &ran.blocks()[0];
    assert_eq!((gap.state, gap.remarks.len()), (State::Failed, 1));
    let said = "srv/ex.org: a symbolic link, which is not followed: whose maildrops lie there is \
                not known";
    assert!(gap.remarks[0].contains(said), "{:?}", gap.remarks);
    assert!(gap.source.ends_with("srv/ex.org"), "{}", gap.source);
    ran.says("uidl-keep: *@ex.org: ");

    // A user who is not asked for is no gap; a user who is asked for by name has a block by that.
    let ran = capture(&["--only", "ex.com"]);
    assert_eq!((ran.status, ran.users()), (0, vec!["al@ex.com".into()]));
    assert_eq!(capture(&["--only", "ex.org"]).users(), ["*@ex.org"]);
    let ran = capture(&["--only", "bo@ex.org", "--only", "al@ex.com", "--only", "cy@ex.com"]);
    assert_eq!((ran.status, ran.users()), (1, vec!["al@ex.com".into(), "bo@ex.org".into()]));
    assert_eq!(ran.blocks()[1].state, State::Failed);
    ran.says("--only cy@ex.com: no such maildrop");
    let renames = server.path("renames");
    fs::write(&renames, "bo@ex.org bo@ex.net\n").unwrap();
    let ran = capture(&["--rename", renames.to_str().unwrap()]);
    assert_eq!(ran.users(), ["*@ex.org", "al@ex.com", "bo@ex.net"]);

    // If the name has no domain, the user may be anybody.
    assert_eq!(capture(&["--user-template", "{local}"]).users(), ["*", "al"]);
}

#[test]
fn a_link_that_nobody_is_missing_behind_is_no_gap() {
    let server = Server::new();
    server.maildir("srv/a/ex.com/al");
    // The target is searched under its own name, and no name of a user has this one in it.
    symlink("a", server.path("srv/b")).unwrap();
    let mut capture = uidl_keep();
    let pattern = format!("{}/srv/?/{{domain}}/{{local}}", server.root.path().display());
    capture.args(["capture", "courier", "--pattern", &pattern]);
    symlink("nowhere", server.path("srv/c")).unwrap();
    symlink("/etc/passwd", server.path("srv/d")).unwrap();
    let ran = Ran::of(capture);
    assert_eq!((ran.status, &ran.stderr[..], ran.users()), (0, "", vec!["al@ex.com".into()]));
    // In a copy, a link that leads nowhere may have led out of it.
    let ran = server.capture(&["--pattern", "/srv/?/{domain}/{local}"]);
    assert_eq!((ran.status, ran.users()), (1, vec!["*".into(), "al@ex.com".into()]));
    // If nothing else is there at all, there is no listing.
    fs::remove_dir_all(server.path("srv/a")).unwrap();
    server.capture(&["--pattern", "/srv/?/{domain}/{local}"]).is_refused("no maildrop found");
}

#[test]
fn a_directory_that_may_not_be_listed_is_a_gap_and_a_maildir_a_failed_maildrop() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let server = Server::new();
    let mode = |path: &str, mode| {
        fs::set_permissions(server.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    server.maildir("srv/ex.com/al");
    server.maildir("srv/ex.com/bo");
    server.maildir("srv/ex.org/cy");
    mode("", 0o755);
    mode("srv/ex.com/bo", 0);
    mode("srv/ex.org", 0);
    // Perhaps only root may reach the one that was built.
    let helper = server.path("uidl-keep");
    copy_helper(&helper);
    let mut capture = Command::new(helper);
    capture.args(["capture", "courier", "--pattern", "/srv/{domain}/{local}", "--root"]);
    capture.arg(server.root.path());
    if rustix::process::geteuid().is_root() {
        capture.uid(65534).gid(65534);
    }
    let ran = Ran::of(capture);
    let states: Vec<(String, State)> =
        ran.blocks().into_iter().map(|block| (block.user, block.state)).collect();
    let state = |user: &str, state| (user.to_owned(), state);
    let wanted = [
        state("*@ex.org", State::Failed),
        state("al@ex.com", State::Captured),
        state("bo@ex.com", State::Failed),
    ];
    assert_eq!((ran.status, &states[..]), (1, &wanted[..]));
    ran.says("srv/ex.org: Permission denied (os error 13): whose maildrops lie there is not known");
    mode("srv/ex.com/bo", 0o755);
    mode("srv/ex.org", 0o755);
}

#[test]
fn in_a_copy_no_link_leads_to_the_machine_that_holds_it() {
    let server = Server::new();
    let elsewhere = Server::new();
    elsewhere.maildir("mailnames/ex.com/al/Maildir");
    fs::create_dir_all(server.path("var/qmail")).unwrap();
    symlink(elsewhere.path("mailnames"), server.path("var/qmail/mailnames")).unwrap();
    let ran = server.capture(&["--layout", "plesk"]);
    assert_eq!((ran.status, ran.stdout.len()), (2, 0));
    assert!(ran.stderr.contains("is a symbolic link"), "{}", ran.stderr);
}

/// Names, sizes, times, modes and contents, atimes aside.
fn everything(path: &Path) -> Vec<(PathBuf, u64, i64, i64, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut next = vec![path.to_owned()];
    while let Some(path) = next.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            next.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times =
            (metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(), metadata.ctime_nsec());
        all.push((path, metadata.len(), times.0, times.1, metadata.mode(), content));
    }
    all.sort();
    all
}

#[test]
fn a_whole_server_is_captured_alike_by_any_number_of_threads_and_left_as_it_was() {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // Files have the time of a clock that ticks less often.
    let began = since(SystemTime::now() - Duration::from_secs(1));
    let server = Server::new();
    for n in 0..200 {
        let path = format!("srv/d{}.example/u{n}", n % 7);
        server.maildir(&path);
        fs::write(server.path(&path).join(format!("new/{n}.x")), message("new")).unwrap();
    }
    let before = everything(server.root.path());
    let layout = ["--pattern", "/srv/{domain}/{local}", "--keys", "file,header,message,origin"];
    let one = server.capture(&[&layout[..], &["--jobs", "1"]].concat());
    let many = server.capture(&[&layout[..], &["--jobs", "9"]].concat());
    assert_eq!((one.status, many.status), (0, 0), "{}", one.stderr);
    assert_eq!(one.untimed(), many.untimed());
    let times = began..=since(SystemTime::now());
    for block in one.blocks() {
        assert!(times.contains(&block.captures[0].taken.expect("a time")), "{block:?}");
    }
    let users = one.users();
    assert_eq!(users.len(), 200);
    assert!(users.is_sorted());
    assert_eq!(everything(server.root.path()), before);
}

#[test]
fn a_copy_was_captured_when_it_was_made_and_a_server_when_it_was_asked() {
    let server = Server::new();
    let path = "srv/al";
    server.maildir(path);
    fs::write(server.path(path).join("new/1.x"), message("one")).unwrap();
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_990_000);
    for (part, later) in [("", 0), ("cur", 7), ("new", 3), ("tmp", 9)] {
        let dir = fs::File::open(server.path(path).join(part)).unwrap();
        dir.set_modified(made + Duration::from_secs(later)).unwrap();
    }
    let ran = server.capture(&["--pattern", "/srv/{local}"]);
    assert_eq!(ran.blocks()[0].captures[0].taken, Some(1_714_990_007));
    let mut itself = uidl_keep();
    itself.args(["capture", "qmail", "--user", "al"]).arg(server.path(path));
    let taken = Ran::of(itself).blocks()[0].captures[0].taken;
    assert!(taken > Some(1_780_000_000), "{taken:?}");
}

#[test]
fn a_file_gets_the_whole_listing_or_is_left_alone() {
    let server = Server::new();
    server.maildir("srv/al");
    let place = server.path("old.listing");
    let output = ["-o", place.to_str().unwrap()];
    let ran = server.capture(&[&["--pattern", "/srv/{local}"], &output[..]].concat());
    assert_eq!((ran.status, ran.stdout.len()), (0, 0));
    let listing = fs::read(&place).unwrap();
    assert!(listing.ends_with(b"\n.\n"));
    let ran = server.capture(&[&["--pattern", "/nowhere/{local}"], &output[..]].concat());
    assert_eq!(ran.status, 2);
    assert_eq!(fs::read(&place).unwrap(), listing);
    let directory = server.path("srv");
    let ran = server.capture(&["--pattern", "/srv/{local}", "-o", directory.to_str().unwrap()]);
    assert_eq!(ran.status, 2, "a directory is not overwritten");
    let left: Vec<_> =
        fs::read_dir(server.root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_listing_is_never_replaced_by_a_worse_one() {
    let server = Server::new();
    for n in 0..5 {
        server.maildir(&format!("srv/ex.com/u{n}"));
    }
    server.maildir("srv/ex.org/v");
    let place = server.path("old.listing");
    let output = ["-o", place.to_str().unwrap()];
    let capture = |server_kind: &[&str], arguments: &[&str]| {
        let mut command = uidl_keep();
        command.arg("capture").args(server_kind).arg("--root").arg(server.root.path());
        command.args(["--pattern", "/srv/{domain}/{local}"]).args(arguments).args(output);
        Ran::of(command)
    };
    assert_eq!(capture(&["courier"], &[]).status, 0);
    let before = fs::read(&place).unwrap();
    let worse = server.path("old.listing.worse");
    let is_kept = |ran: &Ran, because: &str| {
        assert_eq!(ran.status, 2, "{}", ran.stderr);
        ran.says(&format!("old.listing: not replaced: of 6 maildrops that it has, {because}"));
        assert!(fs::read(&place).unwrap() == before);
        assert!(fs::read(&worse).unwrap().ends_with(b"\n.\n"));
        fs::remove_file(&worse).unwrap();
    };
    let would = |what: &str| format!("these would be lost: {what}; the new listing is ");

    // The wrong server was named, so they have failed, or are empty if nothing was opened.
    let ran = capture(&["dovecot", "--format", "%u"], &[]);
    is_kept(&ran, &would("6 failed now (the first: u0@ex.com)"));
    let cur = server.path("srv/ex.com/u0/cur/1.a:2,S");
    fs::rename(&cur, server.path("srv/ex.com/u0/new/1.a")).unwrap();
    let ran = capture(&["dovecot", "--format", "%u"], &[]);
    is_kept(
        &ran,
        &would(
            "5 failed now (the first: u1@ex.com), 1 empty to this server (the first: u0@ex.com)",
        ),
    );
    fs::rename(server.path("srv/ex.com/u0/new/1.a"), &cur).unwrap();
    // Only some of them are asked for.
    let ran = capture(&["courier"], &["--only", "ex.com"]);
    is_kept(&ran, &would("1 not in the new listing (the first: v@ex.org)"));
    // Nobody can search there any more.
    let aside = server.path("aside");
    fs::rename(server.path("srv/ex.com"), &aside).unwrap();
    symlink(&aside, server.path("srv/ex.com")).unwrap();
    is_kept(&capture(&["courier"], &[]), &would("5 failed now (the first: u0@ex.com)"));
    // Or nothing is there: too many to have been deleted.
    fs::remove_file(server.path("srv/ex.com")).unwrap();
    is_kept(&capture(&["courier"], &[]), &would("5 not in the new listing (the first: u0@ex.com)"));
    fs::rename(&aside, server.path("srv/ex.com")).unwrap();

    // Three of them may have been deleted; those that failed may fail again; and stdout takes all.
    for n in 0..3 {
        fs::remove_dir_all(server.path(&format!("srv/ex.com/u{n}"))).unwrap();
    }
    assert_eq!(capture(&["courier"], &[]).status, 0);
    fs::remove_file(&place).unwrap();
    let dovecot = ["dovecot", "--format", "%u"];
    assert_eq!((capture(&dovecot, &[]).status, capture(&dovecot, &[]).status), (1, 1));
    assert_eq!(capture(&["courier"], &[]).status, 0);
    assert!(!worse.exists());
}

#[test]
fn dovecots_format_is_asked_for_and_never_guessed() {
    let server = Server::new();
    let maildir = server.path("al");
    make(&maildir);
    fs::write(maildir.join("cur/a:2,S"), message("a")).unwrap();
    fs::write(maildir.join("dovecot-uidlist"), "3 V17 N9\n1 :a\n").unwrap();
    let bin = server.path("bin");
    fs::create_dir(&bin).unwrap();
    let capture = |arguments: &[&str]| {
        let mut command = uidl_keep();
        command.env("PATH", &bin).args(["capture", "dovecot", "--user", "al"]).args(arguments);
        Ran::of(command)
    };
    let path = maildir.to_str().unwrap();
    let ran = capture(&[path]);
    assert_eq!((ran.status, ran.stdout.len()), (2, 0));
    assert!(ran.stderr.contains("doveconf -f protocol=pop3 -h pop3_uidl_format"), "{}", ran.stderr);
    assert_eq!(capture(&["--format", "auto", path]).status, 2);
    assert_eq!(capture(&["--format", "%q", path]).status, 2);

    let doveconf = |reuse: &str| {
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n'-f protocol=pop3 -h pop3_uidl_format') echo 'UID%u-%v';;\n\
             *pop3_reuse_xuidl) echo {reuse};;\n*) echo allow;;\nesac\n"
        );
        write_program(&bin.join("doveconf"), &script);
    };
    doveconf("no");
    let ran = capture(&["--format", "auto", path]);
    assert_eq!((ran.status, &ran.stderr[..]), (0, ""));
    assert_eq!(ran.blocks()[0].entries[0].uidl.to_string(), "UID1-17");
    doveconf("yes");
    let ran = capture(&["--format", "auto", path]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("pop3_reuse_xuidl is on"), "{}", ran.stderr);

    let mut copy = uidl_keep();
    copy.args(["capture", "dovecot", "--format", "auto", "--pattern", "/{local}", "--root"]);
    copy.env("PATH", &bin).arg(server.root.path());
    let ran = Ran::of(copy);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--root is a copy of another"), "{}", ran.stderr);
}

#[test]
fn what_is_lost_is_said_with_its_place_and_with_the_status() {
    let server = Server::new();
    let maildir = server.maildir("srv/al");
    let list = "/3 9 17\n1.a:2,S 10 7:17:0\nodd\x1b[2J line\n";
    fs::write(maildir.join("courierpop3dsizelist"), list).unwrap();
    let ran = server.capture(&["--pattern", "/srv/{local}"]);
    assert_eq!(ran.status, 1);
    let said = "al: courierpop3dsizelist:3: not a message: odd\\x1b[2J line";
    assert_eq!(ran.stderr, format!("uidl-keep: {said}\n"));
    assert_eq!(ran.blocks()[0].entries.len(), 1);
    assert_eq!(server.capture(&["--pattern", "/nowhere/{local}"]).status, 2);
    let mut mistyped = uidl_keep();
    mistyped.args(["capture", "courier", "--user", "al"]).arg(server.path("srv/la"));
    let ran = Ran::of(mistyped);
    assert_eq!((ran.status, ran.stdout.len()), (2, 0));
}

#[test]
fn the_example_that_help_begins_with_works() {
    let server = Server::new();
    server.maildir("Maildir");
    let mut help = uidl_keep();
    help.args(["capture", "--help"]);
    let help = String::from_utf8(Ran::of(help).stdout).unwrap();
    let example = help.lines().nth(2).unwrap().trim();
    assert!(example.starts_with("uidl-keep capture "), "{help}");
    let bin = Path::new(env!("CARGO_BIN_EXE_uidl-keep")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", example]).env("PATH", path).current_dir(server.root.path());
    let ran = Ran::of(shell);
    let said = "uidl-keep: 1 captured, 0 never polled, 0 failed, 1 messages -> standard output\n";
    assert_eq!((ran.status, &ran.stderr[..]), (0, said));
    let listing = fs::read(server.path("alice.listing")).unwrap();
    assert_eq!(Reader::new(&listing[..]).map(Result::unwrap).count(), 1);
}
