//! `hold --auth`: Dovecot's auth refuses the held at POP3, without the plugin, and nobody else.

mod cli_support;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cli_support::{Here, ROOT, with_listings};
use support::dovecot::{Config, Dovecot};
use support::helper;
use support::host::{Host, Line};
use support::imap::Imap;
use support::mail::Message;
use support::maildir::{Maildir, Naming};
use support::pop3::{Pop3, Refused};

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
/// Never migrated.
const ERIN: &str = "erin@example.net";

/// What a client is told who is held.
const STOPPED: &str = "-ERR [SYS/TEMP]";

/// A Dovecot without the plugin, set up as the documentation says.
struct Server {
    dovecot: Dovecot,
    line: Line,
}

impl Server {
    fn start(line: Line) -> Option<Self> {
        let host = Host::dovecot(line)?;
        let mut dovecot = Dovecot::start(&host, Config::default())?;
        let site = dovecot.inside(&dovecot.site());
        let first = example(line).replace("/var/lib/uidl-keep", site.to_str().unwrap());
        dovecot.reconfigure(|config| config.first = first);
        let server = Self { dovecot, line };
        for user in [ALICE, BOB, ERIN] {
            Maildir::create(server.dovecot.mail(user)).deliver(
                &Message::plain(1),
                Naming::Qmail,
                1,
            );
        }
        let listing = server.dovecot.dir().join("listing");
        fs::write(&listing, [empty(ALICE), empty(BOB)].concat()).unwrap();
        let mut build = helper::uidl_keep();
        helper::run(build.args(["build", "-o"]).arg(server.dovecot.site()).arg(&listing));
        // Auth runs there as an account of the tree, which this machine does not have.
        if line == Line::V24 {
            let groups = fs::read_to_string(host.outside("/etc/group")).unwrap();
            let group = groups.lines().find(|line| line.starts_with("dovecot:")).unwrap();
            let gid = group.split(':').nth(2).unwrap().parse().unwrap();
            let dir = server.dovecot.site().join("auth");
            fs::create_dir(&dir).unwrap();
            chown(&dir, Some(0), Some(gid)).unwrap();
            fs::set_permissions(&dir, Permissions::from_mode(0o750)).unwrap();
        }
        Some(server)
    }

    fn stop(&self) -> PathBuf {
        self.dovecot.site().join("auth/stop-pop3")
    }

    /// Runs the helper, and waits until auth looks at its files again: once a second.
    fn say(&self, words: &[&str]) {
        let mut command = helper::uidl_keep();
        helper::run(command.args(words).arg("--site").arg(self.dovecot.site()));
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let said = now();
        while now() <= said {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Insists that these are refused at POP3, and only these; and nobody by IMAP. Each refusal is
    /// a line in the log, and no mail process.
    #[track_caller]
    fn stops(&self, stopped: &[&str], when: &str) {
        for user in [ALICE, BOB, ERIN] {
            let before = self.dovecot.log().len();
            if stopped.contains(&user) {
                let refused = Pop3::login(self.dovecot.pop3(), user).err();
                assert_eq!(refused, Some(Refused(STOPPED.into())), "{when}: {user}");
                let said = self.line_about(user, before);
                let why = match self.line {
                    Line::V23 => "(internal failure, 1 successful auths)",
                    Line::V24 => "(login_disabled)",
                };
                assert!(said.contains("pop3-login: Info: ") && said.contains(why), "{said}");
            } else {
                assert_eq!(self.dovecot.uidl(user).len(), 1, "{when}: {user}");
            }
            let mut imap = Imap::login(self.dovecot.imap(), user);
            let selected = imap.command("SELECT INBOX").concat();
            assert!(selected.contains("* 1 EXISTS"), "{when}: {user}: {selected}");
            imap.logout();
        }
    }

    /// The one line that was logged since about a user.
    fn line_about(&self, user: &str, since: usize) -> String {
        loop {
            let log = self.dovecot.log().split_off(since);
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(user)).collect();
            match lines[..] {
                // It comes when the client has gone.
                [] => std::thread::sleep(Duration::from_millis(5)),
                [line] => return line.to_owned(),
                _ => panic!("more than one line: {lines:#?}"),
            }
        }
    }
}

fn empty(user: &str) -> String {
    format!("uidl-keep-listing 1\nmaildrop {user}\nstate empty\n.\n")
}

/// The example for that release line, out of the documentation.
fn example(line: Line) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dovecot.md"));
    let text = text.unwrap();
    let (_, section) = text.split_once("\n## Held by Dovecot's auth").expect("the section");
    let wanted = match line {
        Line::V23 => "stop-%s",
        Line::V24 => "stop-%{protocol}",
    };
    let mut examples = section.split("\n\n").filter(|block| block.starts_with("    passdb"));
    let example = examples.find(|block| block.contains(wanted)).expect("an example");
    format!("{example}\n")
}

#[test]
fn the_held_are_refused_by_auth_and_all_others_log_in() {
    for line in [Line::V23, Line::V24] {
        let Some(server) = Server::start(line) else { continue };
        server.stops(&[], "there is no such file");
        server.say(&["hold", "--auth", ALICE]);
        server.stops(&[ALICE], "alice is held");
        // What is held later is so at once, whatever was said.
        server.say(&["hold", "example.com"]);
        server.stops(&[ALICE, BOB], "all are held");
        server.say(&["release", BOB]);
        server.stops(&[ALICE], "bob is released");
        let doveadm = server.dovecot.doveadm(["auth", "test", "-x", "service=pop3", ALICE, "any"]);
        let said = String::from_utf8_lossy(&doveadm.stdout).into_owned();
        assert!(said.contains("nologin") && said.contains("reason=[SYS/TEMP]"), "{doveadm:?}");
        server.say(&["release", "--redownload", ALICE]);
        server.stops(&[], "alice downloads again");
        assert!(!server.dovecot.log().contains("Error: "), "{}", server.dovecot.log());
    }
}

#[test]
fn a_file_that_auth_cannot_read_keeps_nobody_out() {
    for line in [Line::V23, Line::V24] {
        let Some(server) = Server::start(line) else { continue };
        server.say(&["hold", "--auth", ALICE]);
        server.stops(&[ALICE], "held");
        fs::set_permissions(server.stop(), Permissions::from_mode(0o600)).unwrap();
        // Without a change auth would not open it again.
        server.say(&["hold", BOB]);
        server.stops(&[ALICE, BOB], "it has its permissions again");
        fs::set_permissions(server.stop().parent().unwrap(), Permissions::from_mode(0o700))
            .unwrap();
        server.say(&["release", BOB]);
        server.stops(&[], "auth may not look into the directory");
        assert!(server.dovecot.log().contains("stop-pop3) failed: Permission denied"));
        fs::remove_dir_all(server.stop().parent().unwrap()).unwrap();
        server.say(&["release", BOB]);
        server.stops(&[], "there is no directory");
    }
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
        // Auth takes a file of one size and one second for the same.
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
    // Nor does it keep what was said of another place from auth.
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
    let ran = here.run("build -o site --upon other eve.listing");
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
    assert_eq!(here.run("build -o site --upon site alice.listing bob.listing").status, 0);
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
