//! `hold --auth`: the file that it writes for Dovecot's auth.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use uidl_keep::maildrop::State;
use uidl_keep::site::roster::{Gate, Roster, RosterLine};

use crate::support::cli::{Here, ROOT, with_listings};

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

fn empty(user: &str) -> String {
    format!("uidl-keep-listing 1\nmaildrop {user}\nstate empty\n.\n")
}

/// The names in the file, and that auth can read nothing else out of it.
fn names(here: &Here) -> Vec<String> {
    let text = String::from_utf8(here.read("site/auth/stop-pop3")).unwrap();
    let (comment, lines) = text.split_once('\n').unwrap();
    assert!(comment.starts_with('#'));
    let name = |line: &str| {
        let name = line.strip_suffix(":::::::nopassword=y nologin=y reason=[SYS/TEMP]");
        name.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    lines.lines().map(name).collect()
}

/// A site of alice, bob, dave and eve, with a directory for auth.
fn with_site() -> Here {
    let here = with_listings();
    here.write("odd.listing", &empty("a:b@example.com"));
    assert_eq!(here.run("build -o site one.listing two.listing odd.listing").status, 0);
    fs::create_dir(here.path("site/auth")).unwrap();
    here
}

#[test]
fn the_file_names_whom_the_rosters_hold_and_is_never_of_the_same_second() {
    let here = with_site();
    here.run("hold --site site eve");
    assert!(!here.path("site/auth/stop-pop3").exists(), "nobody asked for it");
    let mut written = 0;
    for (command, held) in [
        ("hold --auth dave@example.net", &["dave@example.net", "eve"][..]),
        ("hold bob@example.com", &["bob@example.com", "dave@example.net", "eve"]),
        ("forget eve", &["bob@example.com", "dave@example.net", "eve"]),
        ("release dave@example.net", &["bob@example.com", "eve"]),
        ("release eve", &["bob@example.com"]),
        ("release bob@example.com", &[]),
        ("hold bob@example.com", &["bob@example.com"]),
    ] {
        let ran = here.run(&format!("{command} --site site"));
        assert!(ran.status < 2, "{}", ran.stderr);
        let before = written;
        assert_eq!(names(&here), held, "{command}");
        written = here.path("site/auth/stop-pop3").metadata().unwrap().mtime();
        // Auth takes a file of one size and one second for the same file.
        assert!(written > before || command == "forget eve", "{command}");
        assert_eq!(here.mode("site/auth/stop-pop3"), 0o640);
        here.quiet("check site");
    }
}

#[test]
fn a_name_that_no_such_file_can_have_is_left_to_the_plugin() {
    let here = with_site();
    let ran = here.run("hold --auth --site site example.com");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(names(&here), ["alice@example.com", "bob@example.com"]);
    assert!(ran.stderr.contains("1 held users have") && ran.stderr.contains("a:b@example.com"));
}

#[test]
fn a_roster_that_cannot_be_read_releases_nobody() {
    let here = with_site();
    here.run("hold --auth --site site example.com eve");
    let all = ["alice@example.com", "bob@example.com", "eve"];
    assert_eq!(names(&here), all);
    let roster = here.path("site/domain/example.com.roster");
    let text = fs::read_to_string(&roster).unwrap();
    fs::write(&roster, text.replace("alice", "alicf")).unwrap();
    let ran = here.run("release --site site eve");
    assert!(ran.stderr.contains("auth/stop-pop3 keeps its lines of"), "{}", ran.stderr);
    assert_eq!(names(&here), all[..2]);
    // An error about another place does not keep from auth what was said.
    let trouble = here.run("hold --site site bob@example.com dave@example.net").stderr;
    assert!(trouble.contains("example.com.roster: "), "{trouble}");
    assert_eq!(here.run("hold --site site dave@example.net").status, 0);
    assert_eq!(names(&here), ["alice@example.com", "bob@example.com", "dave@example.net"]);
}

#[test]
fn who_is_held_by_the_site_that_is_built_upon_is_held_by_auth() {
    let here = with_site();
    here.run("hold --auth --site site dave@example.net");
    here.write("eve.listing", ROOT);
    assert_eq!(here.run("build -o other eve.listing").status, 0);
    here.run("hold --site other eve");
    let ran = here.run("build -o site --base other eve.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(names(&here), ["dave@example.net", "eve"]);
}

#[test]
fn who_has_files_of_his_own_is_no_part_of_his_domains_roster() {
    let here = Here::new();
    here.write("alice.listing", &empty(ALICE));
    here.write("bob.listing", &empty(BOB));
    assert_eq!(here.run("build -o site alice.listing").status, 0);
    for extension in ["idx", "roster"] {
        let domain = here.path(&format!("site/domain/example.com.{extension}"));
        let own = here.path(&format!("site/user/{ALICE}.{extension}"));
        fs::rename(domain, own).unwrap();
    }
    assert_eq!(here.run("build -o site --base site alice.listing bob.listing").status, 0);
    assert_eq!(here.files("site").len(), 4);
    fs::create_dir(here.path("site/auth")).unwrap();
    here.run("hold --auth --site site example.com");
    assert_eq!(names(&here), [BOB, ALICE]);
    here.quiet("check site");
    let roster = here.path("site/domain/example.com.roster");
    let text = fs::read_to_string(&roster).unwrap();
    fs::write(&roster, text.replace("bob", "bab")).unwrap();
    assert_eq!(here.run(&format!("release --site site {ALICE}")).status, 0);
    assert_eq!(names(&here), [BOB]);
}

#[test]
fn a_file_that_cannot_be_written_is_trouble_and_the_rosters_count() {
    let here = with_site();
    here.run("hold --auth --site site eve");
    fs::create_dir(here.path("site/auth/stop-pop3.new")).unwrap();
    let ran = here.run("hold --site site dave@example.net");
    assert_eq!((ran.status, &*ran.stdout), (2, "dave@example.net held\n"));
    assert!(ran.stderr.contains("auth/stop-pop3: ") && ran.stderr.contains("run this again"));
    fs::remove_dir(here.path("site/auth/stop-pop3.new")).unwrap();
    assert_eq!(here.run("hold --site site dave@example.net").status, 0);
    assert_eq!(names(&here), ["dave@example.net", "eve"]);
}

#[test]
fn check_finds_a_file_that_is_not_as_the_rosters_are() {
    let here = with_site();
    here.run("hold --auth --site site eve");
    let stop = here.path("site/auth/stop-pop3");
    let text = fs::read_to_string(&stop).unwrap();
    fs::write(&stop, text.replace("eve", "eva")).unwrap();
    assert!(here.trouble("check site").contains("auth/stop-pop3: its users are not those"));
    here.run("hold --auth --site site eve");
    here.quiet("check site");
}

/// Gives a file of the site to an account alone, as a build does where users share no group.
fn give_away(here: &Here, name: &str) {
    chown(here.path(name), Some(5001), Some(5001)).unwrap();
    fs::set_permissions(here.path(name), Permissions::from_mode(0o400)).unwrap();
}

/// The owner of a roster may write it, and make lines of it that have the right checksums.
#[test]
fn who_owns_his_roster_says_nothing_of_others() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let here = with_site();
    here.run("hold --auth --site site dave@example.net");
    let mut roster = Roster::new();
    let others =
        ["bob@stranger.example", ALICE, "*@example.com", "@example.com", "dave@example.net", "*"];
    for user in others.into_iter().chain(["eve"]) {
        let gate = if user == "eve" { Gate::Guarded } else { Gate::Held };
        roster.insert(RosterLine::new(user, State::Captured, gate)).unwrap();
    }
    here.write("site/user/eve.roster", &roster.to_text());
    give_away(&here, "site/user/eve.roster");
    assert_eq!(here.run("hold --site site bob@example.com").status, 0);
    assert_eq!(names(&here), [BOB, "dave@example.net"]);
    let found = here.trouble("check site");
    assert!(found.contains("eve.roster: uid 5001 owns it"), "{found}");
    assert!(found.contains("6 lines of others (the first: *)"), "{found}");
    // A change of hers writes none of it anew, and those whose lines these are stay as they were.
    assert_eq!(here.run("hold --site site eve").status, 0);
    assert_eq!(here.roster("site/user/eve.roster"), ["eve captured held"]);
    assert_eq!(names(&here), [BOB, "dave@example.net", "eve"]);
    here.quiet("check site");
    // An index of hers puts nobody on a roster either.
    here.write("other.listing", &[ROOT, &empty("eva")].concat());
    assert_eq!(here.run("build -o other other.listing").status, 0);
    here.write("bob.listing", &empty("bob@stranger.example"));
    assert_eq!(here.run("build -o strange bob.listing").status, 0);
    fs::copy(here.path("strange/domain/stranger.example.idx"), here.path("site/user/eve.idx"))
        .unwrap();
    give_away(&here, "site/user/eve.idx");
    let ran = here.run("build -o site --base site other.listing");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(here.roster("site/user/eve.roster"), ["eve captured held"]);
    // A hole of a size that no account's roster has is not read.
    let file = fs::File::create(here.path("site/user/eve.roster")).unwrap();
    file.set_len(1 << 30).unwrap();
    give_away(&here, "site/user/eve.roster");
    let found = here.trouble("check site");
    assert!(found.contains("1073741824 octets, more than 67108864"), "{found}");
}
