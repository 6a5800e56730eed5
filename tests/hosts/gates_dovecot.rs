//! `hold`, `release` and `forget` beside a running Dovecot: the answers at the next login of each
//! user.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::support::OWNER;
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line, Unfit};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Refused;

const MOVING: &str = "-ERR [SYS/TEMP] Mailbox is being moved, please try again later.";

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const DAVE: &str = "dave@example.net";
/// She was never migrated, in a domain that was.
const ERIN: &str = "erin@example.net";

/// A Dovecot with the plugin, and three messages for each user.
struct Server {
    dovecot: Dovecot,
}

impl Server {
    fn start() -> Option<Self> {
        Self::start_with(&Host::dovecot(Line::subject())?, Config::default().with_plugin())
    }

    fn start_with(host: &Host, config: Config) -> Option<Self> {
        let server = Self { dovecot: Dovecot::start(host, config)? };
        for user in [ALICE, BOB, DAVE, ERIN] {
            Maildir::create(server.dovecot.mail(user));
            (1..=3).for_each(|number| server.deliver(user, number));
        }
        Some(server)
    }

    fn maildir(&self, user: &str) -> Maildir {
        Maildir::open(self.dovecot.mail(user))
    }

    fn deliver(&self, user: &str, number: u32) {
        self.maildir(user).deliver(&Message::plain(number), Naming::Qmail, number);
    }

    /// The listing that an old server gave of the messages of these users, with this before each
    /// number.
    fn listing(&self, users: &[&str], prefix: &str) -> PathBuf {
        let block = |user: &&str| {
            let files = self.maildir(user).files();
            let names = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap());
            let messages = (1..).zip(names).map(|(number, name)| {
                format!("{number} {prefix}{number} file={}\n", name.split(':').next().unwrap())
            });
            let messages: String = messages.collect();
            format!("uidl-keep-listing 1\nmaildrop {user}\nstate captured\n{messages}.\n")
        };
        let file = self.dovecot.dir().join(format!("{prefix}.uidl"));
        fs::write(&file, users.iter().map(block).collect::<String>()).unwrap();
        file
    }

    fn build(&self, listing: &Path) {
        helper::build_site(&self.dovecot.site(), listing);
    }

    /// Builds upon the site, as `build --install` does on a server whose users doveadm knows.
    fn build_upon(&self, listing: &Path) {
        let site = self.dovecot.site();
        let mut command = helper::uidl_keep();
        command.args(["build", "--final", "-o"]).arg(&site).arg("--base").arg(&site).arg(listing);
        helper::run(&mut command);
        for entry in fs::read_dir(site.join("domain")).unwrap() {
            let path = entry.unwrap().path();
            chown(&path, Some(0), Some(OWNER)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
    }

    fn say(&self, command: &[&str], whom: &str) -> String {
        let site = self.dovecot.site();
        let printed =
            helper::run(helper::uidl_keep().args(command).arg("--site").arg(&site).arg(whom));
        String::from_utf8(printed).unwrap()
    }

    fn uidls(&self, user: &str) -> Vec<String> {
        self.dovecot.uidl(user)
    }

    /// The line that a client is told instead of its listing.
    fn refusal(&self, user: &str) -> String {
        let mut session = self.dovecot.login(user).expect("+OK comes before the mailbox is opened");
        let Err(Refused(line)) = session.uidl() else { panic!("{user} is served") };
        line
    }

    /// Lines of ours that are no mere information.
    fn complaints(&self) -> Vec<String> {
        let log = self.dovecot.settled_log();
        let ours = log.lines().filter(|l| l.contains("uidl-keep: ") && !l.contains("Info: "));
        ours.map(str::to_owned).collect()
    }

    /// All files of a user, by path, with the data in which a change of them would show.
    fn everything_of(&self, user: &str) -> BTreeMap<PathBuf, (i64, i64, Vec<u8>)> {
        let mut dirs = vec![self.dovecot.home(user)];
        let mut found = BTreeMap::new();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                if metadata.is_dir() {
                    dirs.push(path.clone());
                }
                let octets = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                found.insert(path, (metadata.ctime(), metadata.ctime_nsec(), octets));
            }
        }
        found
    }
}

fn kept(prefix: &str) -> Vec<String> {
    (1..=3).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn a_held_domain_is_refused_at_the_next_login_and_another_is_served_on() {
    let Some(server) = Server::start() else { return };
    server.build(&server.listing(&[ALICE, BOB, DAVE], "kept-"));
    let erins = server.uidls(ERIN);
    let served =
        |users: &[&str]| users.iter().for_each(|u| assert_eq!(server.uidls(u), kept("kept-")));
    served(&[ALICE, DAVE]);
    let mut under_way = server.dovecot.login(ALICE).unwrap();
    assert_eq!(under_way.uidl().unwrap(), kept("kept-"));

    let printed = server.say(&["hold"], "example.com");
    assert_eq!(printed, "@example.com held 2\n");
    for user in [ALICE, BOB, ALICE] {
        assert_eq!(server.refusal(user), MOVING, "{user}");
    }
    served(&[DAVE]);
    assert_eq!(server.uidls(ERIN), erins);
    let body = under_way.retr(2).unwrap();
    assert_eq!(body, Message::plain(2).on_the_wire(), "who is logged in stays so");
    under_way.quit().unwrap();
    assert_eq!(server.refusal(ALICE), MOVING);

    server.say(&["release", "--unrehearsed"], BOB);
    served(&[BOB, DAVE]);
    assert_eq!(server.refusal(ALICE), MOVING);
    server.say(&["release", "--unrehearsed"], "@example.com");
    served(&[ALICE, BOB, DAVE]);
    assert_eq!(server.uidls(ERIN), erins);

    let complaints = server.complaints();
    assert_eq!(complaints.len(), 2, "one a minute for each who is held: {complaints:?}");
    let next = |user: &str| format!("{user} is held: `uidl-keep release {user}` when");
    for (complaint, user) in complaints.iter().zip([ALICE, BOB]) {
        assert!(complaint.contains(&next(user)), "{complaints:?}");
    }
    assert!(!server.dovecot.log().contains("SIGHUP"), "nobody told Dovecot");
    let log = server.dovecot.site().join("changes.log");
    assert_eq!(log.metadata().unwrap().mode() & 0o7777, 0o600, "logins need not read it");
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 6);
}

#[test]
fn a_held_domain_refuses_also_who_is_on_no_roster_and_who_is_built_later() {
    let Some(server) = Server::start() else { return };
    server.build(&server.listing(&[ALICE, DAVE], "kept-"));
    server.uidls(BOB);
    server.say(&["hold"], "example.com");
    for user in [ALICE, BOB] {
        assert_eq!(server.refusal(user), MOVING, "{user}");
    }
    assert_eq!(server.uidls(DAVE), kept("kept-"));
    server.uidls(ERIN);
    let complaints = server.complaints();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    let next = "bob@example.com is on no roster, and example.com is held: `uidl-keep release \
                example.com` when the mailboxes have been moved";
    assert!(complaints[1].contains(next), "{complaints:?}");
    // His mailbox may be the one that is being moved.
    let fetch = ["fetch", "-u", BOB, "pop3.uidl", "mailbox", "INBOX", "all"];
    assert!(server.dovecot.doveadm_with_us_ok(fetch).contains("pop3.uidl"));

    server.build_upon(&server.listing(&[BOB], "late-"));
    assert_eq!(server.refusal(BOB), MOVING);
    server.say(&["release", "--unrehearsed"], "example.com");
    assert_eq!(server.uidls(ALICE), kept("kept-"));
    assert_eq!(server.uidls(ERIN).len(), 3);
}

/// Runs the helper on the site of a server, and asks that server. Returns what it prints on stderr.
fn asked(server: &Server, command: &[&str], status: i32) -> String {
    let mut helper = server.dovecot.helper();
    helper.arg("-q").args(command).arg(server.dovecot.doveadm_args());
    let ran = helper.output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(status), "{command:?}: {said}");
    said
}

#[test]
fn nothing_is_said_to_be_held_or_built_while_pop3_does_not_load_the_plugin() {
    let Some(mut server) = Server::start() else { return };
    let listing = server.listing(&[ALICE, DAVE], "kept-");
    let listing = server.dovecot.inside(&listing).display().to_string();
    let install = ["build", "--install", &*listing];
    assert_eq!(asked(&server, &install, 0), "");
    assert_eq!(asked(&server, &["hold", ALICE], 0), "");
    assert_eq!(server.refusal(ALICE), MOVING);
    assert_eq!(asked(&server, &["release", "--unrehearsed", ALICE], 0), "");
    assert_eq!(server.uidls(ALICE), kept("kept-"));

    // A panel writes this for a plugin of its own.
    let (plugins, says) = match Line::subject() {
        Line::V23 => ("mail_plugins = quota\n", "\"mail_plugins = quota\""),
        Line::V24 => ("mail_plugins {\n  quota = yes\n  uidl_keep = no\n  }\n", "mail_plugins"),
    };
    server.dovecot.restart_with(&format!("protocol pop3 {{\n  {plugins}}}\n"));
    let roster = server.dovecot.site().join("domain/example.com.roster");
    let before = fs::read(&roster).unwrap();
    for command in [
        &["hold", "example.com"][..],
        &["hold", "--all"],
        &["rehearse", "--all"],
        &["release", ALICE],
        &install,
    ] {
        let said = asked(&server, command, 2);
        let cause = "POP3 does not load uidl_keep, so that nobody is guarded: `doveconf -f \
                     protocol=pop3 mail_plugins` says ";
        let why = "a `protocol pop3` block that comes later may have dropped it";
        for words in [cause, says, why] {
            assert!(said.contains(words), "{said}");
        }
        assert!(said.contains("nothing is changed, and --no-check goes on"), "{said}");
        assert!(fs::read(&roster).unwrap() == before, "{command:?}");
    }
    // So it is: his UIDLs are not given, whatever the roster says.
    asked(&server, &["hold", "--no-check", DAVE], 0);
    assert_ne!(server.uidls(DAVE), kept("kept-"));
    // A user who is to download again does so without the plugin, too.
    asked(&server, &["release", "--redownload", DAVE], 0);
}

/// mailcow keeps its list of plugins in a file. What `doveconf` prints looks as if a name that is
/// put behind were a part of the file's; with `-x` it says what Dovecot makes of it.
#[test]
fn a_name_behind_a_list_of_plugins_in_a_file_is_held_as_dovecot_reads_it() {
    if Unfit::Spelling.is_asked() {
        return;
    }
    let Some(host) = Host::dovecot(Line::V23) else { return };
    let scratch = host.scratch();
    let names = scratch.path().join("names");
    let inside = scratch.inside().join("names").display().to_string();
    fs::write(&names, "notify").unwrap();
    let first = format!("mail_plugins = <{inside}\n");
    let config = Config { first, ..Config::default() }.with_plugin();
    let Some(server) = Server::start_with(&host, config) else { return };
    server.build(&server.listing(&[ALICE], "kept-"));
    assert_eq!(asked(&server, &["hold", ALICE], 0), "");
    assert_eq!(server.refusal(ALICE), MOVING);
    // Without its file the list is none.
    fs::write(&names, "").unwrap();
    let conf = fs::read_to_string(server.dovecot.conf()).unwrap();
    let list = format!("protocol pop3 {{\n  mail_plugins = <{inside}\n}}\n");
    fs::write(server.dovecot.conf(), conf + &list).unwrap();
    let said = asked(&server, &["release", "--unrehearsed", ALICE], 2);
    assert!(said.contains("POP3 does not load uidl_keep"), "{said}");
}

#[test]
fn who_has_another_name_in_dovecot_is_neither_built_nor_held() {
    let Some(mut server) = Server::start() else { return };
    let listing = server.listing(&[ALICE, BOB], "kept-");
    server.build(&listing);
    let short = match Line::subject() {
        Line::V23 => "%Ln",
        Line::V24 => "%{user | username | lower}",
    };
    server.dovecot.restart_with(&format!("auth_username_format = {short}\n"));
    let listing = server.dovecot.inside(&listing).display().to_string();
    let install = ["build", "--install", &*listing];
    for command in [&["hold", ALICE][..], &["hold", "--all"], &["release", "example.com"], &install]
    {
        let said = asked(&server, command, 2);
        let cause = "Dovecot calls alice@example.com \"alice\", so that nobody asks for \
                     alice@example.com: the cause is auth_username_format = ";
        let why = format!(
            "{short}, or the user database; change that, or name users on the rosters as Dovecot \
             does; nothing is changed"
        );
        for words in [cause, &*why] {
            assert!(said.contains(words), "{command:?}: {said}");
        }
    }
    asked(&server, &["hold", "--no-check", ALICE], 0);
    // One user of many has capital letters, and is found among the others.
    server.dovecot.restart_with("");
    let listing = server.listing(&[BOB, ALICE], "more-");
    let text = fs::read_to_string(&listing).unwrap().replace("alice@", "Alice@");
    fs::write(&listing, text).unwrap();
    let listing = server.dovecot.inside(&listing).display().to_string();
    let install = ["build", "--install", &*listing];
    let said = asked(&server, &install, 2);
    assert!(said.contains("Dovecot calls Alice@example.com \"alice@example.com\""), "{said}");
}

#[test]
fn where_no_dovecot_can_be_asked_that_is_said() {
    let Some(mut server) = Server::start() else { return };
    server.build(&server.listing(&[ALICE], "kept-"));
    let elsewhere = |command: &[&str], more: &[&str]| {
        let mut helper = helper::uidl_keep();
        helper.args(command).arg(ALICE).arg("--site").arg(server.dovecot.site()).args(more);
        let ran = helper.output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        String::from_utf8(ran.stderr).unwrap()
    };
    let not_checked = "uidl-keep: not checked whether Dovecot guards these users: ";
    let said = elsewhere(&["hold"], &["--doveadm", "/nowhere/doveadm"]);
    assert!(said.starts_with(&format!("{not_checked}/nowhere/doveconf: No such file")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    // This machine's own is for another site.
    let said = elsewhere(&["release", "--unrehearsed"], &[]);
    assert!(said.starts_with(not_checked), "{said}");
    let another = ": the plugin looks into another site, /var/lib/uidl-keep; name the Dovecot";
    assert!(said.contains(another), "{said}");
    assert_eq!(elsewhere(&["hold"], &["--no-check"]), "");
    // It loads the plugin, and is not running.
    server.dovecot.pause();
    let said = asked(&server, &["release", "--unrehearsed", ALICE], 0);
    assert!(said.starts_with(not_checked), "{said}");
    assert!(said.contains("doveadm: "), "{said}");
    server.dovecot.resume();
}

#[test]
fn who_may_have_lived_where_nobody_could_search_is_refused_and_others_are_served() {
    const LATER: &str =
        "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";
    let Some(server) = Server::start() else { return };
    server.build(&server.listing(&[ALICE, DAVE], "kept-"));
    let (erins, bobs) = (server.uidls(ERIN), server.uidls(BOB));
    let gap = "uidl-keep-listing 1\nmaildrop *@example.com\nstate failed\nremark denied\n.\n";
    let listing = server.dovecot.dir().join("gap.uidl");
    fs::write(&listing, gap).unwrap();
    server.build_upon(&listing);
    assert_eq!(server.uidls(ALICE), kept("kept-"));
    assert_eq!(server.uidls(DAVE), kept("kept-"));
    assert_eq!(server.uidls(ERIN), erins);
    assert_eq!(server.refusal(BOB), LATER);
    let complaints = server.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("bob@example.com may be one of *@example.com, who lived"));
    assert!(complaints[0].contains("`uidl-keep release --redownload '*@example.com'`"));

    let printed = server.say(&["release", "--redownload"], "*@example.com");
    assert_eq!(printed, "*@example.com redownload\n");
    assert_eq!((server.uidls(BOB), server.uidls(ALICE)), (bobs, kept("kept-")));
    server.say(&["hold"], "*@example.com");
    assert_eq!(server.refusal(BOB), LATER);

    // He is captured later, and served whatever is said of the others.
    server.build_upon(&server.listing(&[BOB], "late-"));
    assert_eq!(server.uidls(BOB), kept("late-"));
}

#[test]
fn who_is_forgotten_is_refused_and_nothing_of_his_is_touched() {
    let Some(server) = Server::start() else { return };
    server.build(&server.listing(&[ALICE, BOB, DAVE], "wrong-"));
    for user in [ALICE, BOB, DAVE] {
        assert_eq!(server.uidls(user), kept("wrong-"));
    }
    let before = server.everything_of(ALICE);
    assert!(before.keys().any(|path| path.ends_with("uidl-keep.ledger")));
    server.say(&["forget"], ALICE);
    assert!(server.everything_of(ALICE) == before);

    assert_eq!(server.refusal(ALICE), MOVING);
    for user in [BOB, DAVE] {
        assert_eq!(server.uidls(user), kept("wrong-"), "{user}");
    }
    let complaints = server.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(
        complaints[0].contains(
            "alice@example.com was forgotten: capture it again and build upon this site, or \
             `uidl-keep release --redownload alice@example.com`"
        ),
        "{complaints:?}"
    );
    // doveadm is not told what was wrong, either: it would hand it on to another store.
    let fetch = ["fetch", "-u", ALICE, "pop3.uidl", "mailbox", "INBOX", "all"];
    let shown = server.dovecot.doveadm_with_us(fetch);
    assert!(!shown.status.success(), "{shown:?}");
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("wrong-"), "{shown:?}");
    // She is held as well, and released: she is still refused.
    server.say(&["hold"], ALICE);
    assert_eq!(server.refusal(ALICE), MOVING);
    let mut release = helper::uidl_keep();
    release.args(["release", ALICE, "--site"]).arg(server.dovecot.site());
    assert_eq!(release.status().unwrap().code(), Some(1));
    assert_eq!(server.refusal(ALICE), MOVING);
    // A build without her changes nothing for her.
    server.build_upon(&server.listing(&[BOB], "more-"));
    assert_eq!(server.refusal(ALICE), MOVING);
}

#[test]
fn who_was_forgotten_before_his_first_login_can_be_given_up_or_built_anew() {
    let Some(server) = Server::start() else { return };
    server.build(&server.listing(&[ALICE, BOB, DAVE], "wrong-"));
    server.say(&["forget"], "example.com");
    for user in [ALICE, BOB] {
        assert_eq!(server.refusal(user), MOVING, "{user}");
    }
    server.say(&["release", "--redownload"], ALICE);
    let uidls = server.uidls(ALICE);
    assert!(uidls.len() == 3 && uidls[0].starts_with("00000001"), "{uidls:?}");
    assert_eq!(server.refusal(BOB), MOVING);
    server.build_upon(&server.listing(&[BOB], "right-"));
    assert_eq!(server.uidls(BOB), kept("right-"));
    assert_eq!(server.uidls(DAVE), kept("wrong-"));
}

#[test]
fn a_wrong_index_is_forgotten_and_the_right_one_is_served_in_order() {
    let Some(server) = Server::start() else { return };
    let right = server.listing(&[ALICE, DAVE], "right-");
    server.build(&server.listing(&[ALICE, BOB, DAVE], "wrong-"));
    // This is new mail, before anything was noticed.
    server.deliver(ALICE, 9);
    let wrong = server.uidls(ALICE);
    assert_eq!(wrong[..3], kept("wrong-"));
    assert_eq!(server.uidls(BOB), kept("wrong-"));
    let uidlist = server.dovecot.mail(ALICE).join("dovecot-uidlist");
    assert!(fs::read_to_string(&uidlist).unwrap().contains(" Pwrong-3"), "it was baked");

    server.say(&["forget"], ALICE);
    server.say(&["forget"], DAVE);
    assert_eq!(server.refusal(ALICE), MOVING);
    server.build_upon(&right);
    let shown = ["fetch", "-u", ALICE, "pop3.uidl", "mailbox", "INBOX", "all"];
    let shown = server.dovecot.doveadm_with_us_ok(shown);
    assert!(!shown.contains("wrong-"), "{shown}");

    let now = server.uidls(ALICE);
    assert_eq!(now[..3], kept("right-"));
    assert_eq!(now[3..], wrong[3..], "new mail was told right");
    assert_eq!(server.uidls(ALICE), now, "also when it was remembered");
    let baked = fs::read_to_string(&uidlist).unwrap();
    assert!(baked.contains(" Pright-3") && !baked.contains("wrong-"), "{baked}");
    server.deliver(ALICE, 10);
    let later = server.uidls(ALICE);
    assert_eq!((later.len(), &later[..4]), (5, &now[..]));
    assert!(!wrong.contains(&later[4]), "{later:?}");
    // He had not logged in, and she was not forgotten.
    assert_eq!(server.uidls(DAVE), kept("right-"));
    assert_eq!(server.uidls(BOB), kept("wrong-"));
}

#[test]
fn unique_ids_that_were_at_the_wrong_messages_are_at_the_right_ones_after_forget() {
    let Some(server) = Server::start() else { return };
    let right = server.listing(&[ALICE], "kept-");
    let text = fs::read_to_string(&right).unwrap();
    let turned = text.replace("kept-1", "x").replace("kept-3", "kept-1").replace(" x ", " kept-3 ");
    let wrong = server.dovecot.dir().join("wrong.uidl");
    fs::write(&wrong, turned).unwrap();
    server.build(&wrong);
    assert_eq!(server.uidls(ALICE), ["kept-3", "kept-2", "kept-1"]);
    for _ in 0..2 {
        server.say(&["forget"], ALICE);
        assert_eq!(server.refusal(ALICE), MOVING);
        server.build_upon(&right);
        assert_eq!(server.uidls(ALICE), kept("kept-"));
    }
}
