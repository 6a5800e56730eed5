//! `rehearse` on both release lines: the first login of held users, before any client's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use crate::shared::program::write_program;
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line, Unfit};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Refused;
use crate::support::scenario::{LATER, MOVING};
use crate::support::traced::can_trace;
use crate::support::{OWNER, helper, lacking};
use uidl_keep::ledger::Ledger;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const DAVE: &str = "dave@example.net";
/// He was never migrated, in a domain that was.
const ERIN: &str = "erin@example.net";

/// A Dovecot with the plugin and with last_login, and three messages for each user.
struct Server {
    dovecot: Dovecot,
}

impl Server {
    fn start(line: Line) -> Option<Self> {
        Self::start_with(line, Config::default())
    }

    fn start_with(line: Line, config: Config) -> Option<Self> {
        let host = Host::dovecot(line)?;
        let mut dovecot = Dovecot::start(&host, config.with_plugin())?;
        let dir = dovecot.inside(dovecot.dir()).display().to_string();
        dovecot.restart_with(&match line {
            Line::V23 => format!(
                "plugin {{\n  last_login_dict = file:{dir}/home/%u/last-login\n}}\n\
                 protocol pop3 {{\n  mail_plugins = $mail_plugins last_login uidl_keep\n}}\n"
            ),
            Line::V24 => "last_login {\n  dict file {\n    path = ~/last-login\n  }\n}\n\
                          protocol pop3 {\n  mail_plugins {\n    last_login = yes\n  }\n}\n"
                .to_owned(),
        });
        for user in [ALICE, BOB, DAVE, ERIN] {
            let maildir = Maildir::create(dovecot.mail(user));
            for number in 1..=3 {
                maildir.deliver(&Message::plain(number), Naming::Qmail, number);
            }
        }
        // What a rehearsal heard is written down.
        for program in ["doveadm", "doveconf"] {
            let text = format!("#!/bin/sh\nexec {program} \"$@\"\n");
            write_program(&dovecot.dir().join(program), &text);
        }
        let heard = format!("{dir}/heard");
        let pop3 = format!(
            "#!/bin/sh\nfor user; do :; done\n\
             /usr/lib/dovecot/pop3 \"$@\" | tee \"{heard}.$user\"\n"
        );
        write_program(&dovecot.dir().join("pop3"), &pop3);
        Some(Self { dovecot })
    }

    fn maildir(&self, user: &str) -> Maildir {
        Maildir::open(self.dovecot.mail(user))
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

    fn run(&self, words: &[&str]) -> Output {
        let mut command = self.dovecot.helper();
        command.args(words);
        if words[0] != "build" {
            let inside = |path: &Path| self.dovecot.inside(path);
            command.arg("--doveadm").arg(inside(&self.dovecot.dir().join("doveadm")));
            let conf = inside(&self.dovecot.conf());
            command.arg("--doveadm-args").arg(format!("-c {}", conf.display()));
        }
        command.output().expect("the helper")
    }

    /// Runs the helper, insists on its exit status, and returns what it printed.
    #[track_caller]
    fn say(&self, words: &[&str], status: i32) -> String {
        let ran = self.run(words);
        let said = String::from_utf8_lossy(&ran.stderr);
        let printed = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(ran.status.code(), Some(status), "{words:?}: {printed}{said}");
        printed
    }

    /// Builds a final site upon the one that is there.
    fn build_upon(&self, listing: &PathBuf) {
        let site = self.dovecot.site();
        let mut command = helper::uidl_keep();
        command.args(["build", "--final", "-o"]).arg(&site).arg("--base").arg(&site).arg(listing);
        helper::run(&mut command);
        helper::give_to_reader(&site);
    }

    /// The UIDLs that the last rehearsal of a user heard.
    fn heard(&self, user: &str) -> Vec<String> {
        let heard = fs::read_to_string(self.dovecot.dir().join(format!("heard.{user}"))).unwrap();
        let after = heard.split("\r\n.\r\n").nth(1).expect("CAPA, then UIDL");
        let lines = after.lines().filter(|line| !line.starts_with('+'));
        lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// The line that a client is told instead of its listing.
    fn refusal(&self, user: &str) -> String {
        let mut session = self.dovecot.login(user).expect("+OK comes before the mailbox is opened");
        let Err(Refused(line)) = session.uidl() else { panic!("{user} is served") };
        line
    }

    /// All files of a user, each with the time of its last change and its size.
    fn files_of(&self, user: &str) -> String {
        let mut find = Command::new("find");
        find.arg(self.dovecot.home(user)).args(["-printf", "%p %C@ %s\n"]);
        String::from_utf8(find.output().expect("find").stdout).unwrap()
    }

    fn has_logged_in(&self, user: &str) -> bool {
        self.dovecot.home(user).join("last-login").exists()
    }
}

fn kept(prefix: &str) -> Vec<String> {
    (1..=3).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn the_held_are_rehearsed_and_only_who_agrees_is_released() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE, BOB, DAVE], "kept-"));
        server.say(&["hold", "--all"], 0);
        // New mail is no difference, and a message that was not copied is one.
        server.maildir(BOB).deliver(&Message::plain(4), Naming::Qmail, 4);
        let not_copied = server.maildir(DAVE).files()[1].clone();
        let elsewhere = server.dovecot.dir().join("elsewhere");
        fs::rename(&not_copied, &elsewhere).unwrap();
        let erins = server.files_of(ERIN);
        for user in [ALICE, BOB, DAVE] {
            assert_eq!(server.refusal(user), MOVING, "{line:?} {user}");
        }
        let logins = [ALICE, BOB, DAVE].map(|user| server.has_logged_in(user));
        server.say(&["release", "--all"], 1);
        assert_eq!(server.refusal(ALICE), MOVING, "nobody is released unrehearsed");

        for user in [ALICE, BOB, DAVE] {
            let _ = fs::remove_file(server.dovecot.home(user).join("last-login"));
        }
        let printed = server.say(&["rehearse", "--all"], 1);
        let differs = "dave@example.net differs: 1 of 3 captured messages not listed (kept-2)\n";
        assert_eq!(printed, differs, "{line:?}");
        assert_eq!(server.heard(ALICE), kept("kept-"));
        let bobs = server.heard(BOB);
        assert_eq!((&bobs[..3], bobs.len()), (&kept("kept-")[..], 4));
        assert_eq!(server.files_of(ERIN), erins, "a stranger's mailbox is not touched");
        for user in [ALICE, BOB, DAVE] {
            assert!(!server.has_logged_in(user), "{line:?}: {user} is counted");
            assert!(server.dovecot.mail(user).join("uidl-keep.ledger").exists());
            assert_eq!(server.refusal(user), MOVING, "{line:?}: {user} is held for clients");
        }
        assert_eq!(logins, [true; 3], "what counts logins works");

        server.say(&["release", "--all"], 1);
        assert_eq!(server.dovecot.uidl(ALICE), kept("kept-"));
        assert_eq!(server.dovecot.uidl(BOB), bobs);
        assert!(server.has_logged_in(ALICE));
        assert_eq!(server.refusal(DAVE), MOVING, "{line:?}");
        // What the first rehearsal wrote is no hindrance to the second.
        fs::rename(&elsewhere, &not_copied).unwrap();
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        server.say(&["release", DAVE], 0);
        assert_eq!(server.dovecot.uidl(DAVE), kept("kept-"), "{line:?}");
    }
}

#[test]
fn what_was_rehearsed_and_undone_was_told_to_nobody() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        let site = server.dovecot.site();
        helper::build_site(&site, &server.listing(&[ALICE, BOB], "wrong-"));
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        assert_eq!(server.heard(ALICE), kept("wrong-"));
        assert_eq!(server.say(&["rehearse", "--undo", ALICE], 0), "alice@example.com undone\n");
        server.say(&["release", ALICE], 1);
        // Another capture undoes by itself what was built before.
        server.build_upon(&server.listing(&[ALICE, BOB], "right-"));
        server.say(&["release", ALICE, BOB], 1);
        assert_eq!(server.say(&["rehearse", "--all", "--jobs", "1"], 0), "");
        server.say(&["release", ALICE, BOB], 0);
        for user in [ALICE, BOB] {
            assert_eq!(server.dovecot.uidl(user), kept("right-"), "{line:?} {user}");
        }
        assert_eq!(server.say(&["rehearse", "--undo", "--all"], 1), "", "clients have listed");
        assert_eq!(server.dovecot.uidl(ALICE), kept("right-"));
    }
}

/// Order numbers of a rehearsal that stay beside those of a client would put an old message that
/// came in between behind all: in another place than the client was told.
#[test]
fn an_old_message_that_comes_after_a_rehearsal_keeps_its_place_when_the_ledger_is_lost() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
        server.say(&["hold", "--all"], 0);
        let (late, elsewhere) =
            (server.maildir(ALICE).files()[1].clone(), server.dovecot.dir().join("elsewhere"));
        fs::rename(&late, &elsewhere).unwrap();
        server.say(&["rehearse", "--all"], 1);
        fs::rename(&elsewhere, &late).unwrap();
        server.say(&["release", "--unrehearsed", ALICE], 0);
        assert_eq!(server.dovecot.uidl(ALICE), kept("kept-"), "{line:?}");
        fs::remove_file(server.dovecot.mail(ALICE).join("uidl-keep.ledger")).unwrap();
        assert_eq!(server.dovecot.uidl(ALICE), kept("kept-"), "{line:?}");
    }
}

#[test]
fn a_dbox_is_rehearsed_as_well() {
    for store in [Store::Mdbox, Store::Sdbox] {
        let Some(mut server) = Server::start(Line::subject()) else { return };
        let listing = server.listing(&[ALICE], "kept-");
        let maildir = server.maildir(ALICE);
        let old = maildir.copy_mail_to(&server.dovecot.dir().join("old/Maildir"));
        server.dovecot.reconfigure(|config| config.store = store);
        server.dovecot.import(ALICE, old.path());
        helper::build_site(&server.dovecot.site(), &listing);
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        server.say(&["release", ALICE], 0);
        assert_eq!(server.heard(ALICE), server.dovecot.uidl(ALICE));
        assert_eq!(server.dovecot.uidl(ALICE), kept("kept-"), "{store:?}");
    }
}

#[test]
fn a_chrooted_user_is_rehearsed_as_any_other() {
    for line in Line::asked() {
        let config = Config::default().chroot();
        let Some(server) = Server::start_with(line, config) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", ALICE], 0), "", "{line:?}");
        server.say(&["release", ALICE], 0);
        assert_eq!(server.dovecot.uidl(ALICE), kept("kept-"), "{line:?}");
    }
}

#[test]
fn a_maildrop_that_cannot_be_listed_says_why() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE, BOB], "kept-"));
        server.say(&["hold", "--all"], 0);
        // Far fewer than half are here.
        server
            .maildir(ALICE)
            .files()
            .iter()
            .skip(1)
            .for_each(|file| fs::remove_file(file).unwrap());
        let printed = server.say(&["rehearse", "--all"], 1);
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(printed.starts_with("alice@example.com could not be rehearsed: "), "{printed}");
        let why = "it refused the login: [SYS/TEMP] Mailbox is temporarily not available";
        assert!(printed.contains(why), "{printed}");
        assert!(printed.contains("messages were captured last"), "{line:?}: {printed}");
        assert_eq!(server.refusal(ALICE), MOVING);
        server.say(&["release", BOB], 0);
        assert_eq!(server.dovecot.uidl(BOB), kept("kept-"));
    }
}

/// The new server lost mail after the rehearsal: a listing of the rest would make clients forget
/// what they hold.
#[test]
fn a_maildrop_that_lost_its_mail_since_is_refused_as_if_it_were_not_rehearsed() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE, BOB], "kept-"));
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        for (user, left) in [(ALICE, 0), (BOB, 1)] {
            let files = server.maildir(user).files();
            files.iter().skip(left).for_each(|file| fs::remove_file(file).unwrap());
        }
        server.say(&["release", "--all"], 0);
        for user in [ALICE, BOB] {
            assert_eq!(server.refusal(user), LATER, "{line:?} {user}");
        }
    }
}

/// A rehearsal that comes too late would list as a client, and give new mail that no client has
/// seen its place for ever.
#[test]
fn who_is_released_before_his_rehearsal_begins_is_not_listed_by_it() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
        server.say(&["hold", "--all"], 0);
        // The last old message is not copied yet, and a new one is there.
        let late = server.maildir(ALICE).files()[2].clone();
        let elsewhere = server.dovecot.dir().join("elsewhere");
        fs::rename(&late, &elsewhere).unwrap();
        server.maildir(ALICE).deliver(&Message::plain(4), Naming::Qmail, 4);
        let pop3 = server.dovecot.dir().join("pop3");
        let program = fs::read_to_string(&pop3).unwrap();
        let release = format!(
            "{} release --unrehearsed --no-check {ALICE} >&2",
            server.dovecot.helper_program().display(),
        );
        let pop3_program = "/usr/lib/dovecot/pop3";
        let text = program.replace(pop3_program, &format!("{release}\n{pop3_program}"));
        write_program(&pop3, &text);
        let printed = server.say(&["rehearse", "--all"], 1);
        assert!(printed.contains("is served by now"), "{line:?}: {printed}");
        fs::rename(&elsewhere, &late).unwrap();
        let listed = server.dovecot.uidl(ALICE);
        assert_eq!((&listed[..3], listed.len()), (&kept("kept-")[..], 4), "{line:?}");
    }
}

#[test]
fn a_later_capture_is_served_also_where_the_user_was_released_before_it() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE, BOB], "wrong-"));
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        server.say(&["release", "--all"], 0);
        server.say(&["hold", BOB], 0);
        server.build_upon(&server.listing(&[ALICE, BOB], "right-"));
        server.say(&["release", "--unrehearsed", BOB], 0);
        for user in [ALICE, BOB] {
            assert_eq!(server.dovecot.uidl(user), kept("right-"), "{line:?} {user}");
        }
    }
}

#[test]
fn a_later_capture_is_served_also_where_the_roster_of_before_comes_back() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "wrong-"));
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        server.say(&["release", "--all"], 0);
        let (_, domain) = ALICE.split_once('@').unwrap();
        let roster = server.dovecot.site().join(format!("domain/{domain}.roster"));
        let before = fs::read(&roster).unwrap();
        server.build_upon(&server.listing(&[ALICE], "right-"));
        fs::write(&roster, before).unwrap();
        assert_eq!(server.dovecot.uidl(ALICE), kept("right-"), "{line:?}");
    }
}

#[test]
fn what_clients_were_told_is_only_looked_at() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
        server.say(&["release", "--unrehearsed", ALICE], 0);
        assert_eq!(server.dovecot.uidl(ALICE), kept("kept-"));
        server.say(&["hold", ALICE], 0);
        fs::remove_file(&server.maildir(ALICE).files()[2]).unwrap();
        let memory = || {
            ["uidl-keep.ledger", "uidl-keep.lock"]
                .map(|name| fs::read(server.dovecot.mail(ALICE).join(name)).unwrap())
        };
        let before = memory();
        server.say(&["rehearse", ALICE], 1);
        assert!(memory() == before, "{line:?}");
    }
}

/// He is over quota, and deletes what he has downloaded. That makes room, and the next login must
/// not take what he has left for a maildrop that is half copied.
#[test]
fn a_client_that_deletes_all_where_only_the_rehearsal_could_be_recorded_is_served_again() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        server.say(&["release", "--all"], 0);
        server.maildir(ALICE).deliver(&Message::plain(4), Naming::Qmail, 4);
        let staged = server.dovecot.mail(ALICE).join("uidl-keep.ledger.new");
        fs::create_dir_all(staged.join("in the way")).unwrap();
        let mut session = server.dovecot.login(ALICE).unwrap();
        assert_eq!(session.uidl().unwrap()[..3], kept("kept-"));
        (1..=4).for_each(|number| session.dele(number).unwrap());
        fs::remove_dir_all(&staged).unwrap();
        session.quit().unwrap();
        server.maildir(ALICE).deliver(&Message::plain(5), Naming::Qmail, 5);
        let mut session = server.dovecot.login(ALICE).unwrap();
        assert_eq!(session.uidl().map(|uidls| uidls.len()).ok(), Some(1), "{line:?}");
    }
}

/// A rehearsal is killed at each of its steps, from our lock to its end. Then an old message comes,
/// and a client lists.
#[test]
fn a_rehearsal_that_is_killed_on_its_way_is_as_if_it_had_never_been() {
    if !can_trace() {
        lacking("there is no strace, or it may not trace");
        return;
    }
    if Unfit::NoTools.is_asked() {
        return;
    }
    let Some(server) = Server::start(Line::subject()) else { return };
    helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
    let (dir, mail) = (server.dovecot.dir(), server.dovecot.mail(ALICE));
    let (trace, elsewhere) = (dir.join("trace"), dir.join("elsewhere"));
    let late = server.maildir(ALICE).files()[2].clone();
    server.maildir(ALICE).deliver(&Message::plain(4), Naming::Qmail, 4);
    const CHANGES: &str = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,link";
    let rehearse = |inject: &str, status: i32| {
        let pop3 = format!(
            "#!/bin/sh\nexec strace -f -qq -o {} -e trace={CHANGES} {inject} \\\n\
             /usr/lib/dovecot/pop3 \"$@\"\n",
            trace.display()
        );
        write_program(&dir.join("pop3"), &pop3);
        server.say(&["hold", "--all"], 0);
        for entry in fs::read_dir(&mail).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        fs::rename(&late, &elsewhere).unwrap();
        server.say(&["rehearse", "--again", "--all"], status);
        fs::rename(&elsewhere, &late).unwrap();
        // Dovecot waits a while for the lock of a dead process, and then takes it.
        let _ = fs::remove_file(mail.join("dovecot-uidlist.lock"));
        server.say(&["release", "--all", "--unrehearsed"], 0);
        let listed = server.dovecot.uidl(ALICE);
        assert_eq!((&listed[..3], listed.len()), (&kept("kept-")[..], 4), "{inject}");
    };
    // One old message is missing.
    rehearse("", 1);
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut points = Vec::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let Some((call, arguments)) = line.split_once('(') else { continue };
        let call = call.rsplit(' ').next().unwrap().to_owned();
        let number = numbers.entry(call.clone()).or_default();
        *number += 1;
        let changes = call != "openat" || arguments.contains("O_CREAT");
        if changes && (!points.is_empty() || arguments.contains("uidl-keep.lock")) {
            points.push(format!("-e inject={call}:signal=KILL:when={number}"));
        }
    }
    assert!(points.len() >= 8, "{points:?}");
    points.iter().for_each(|point| rehearse(point, 1));
}

/// What names a rehearsal is believed of root alone.
#[test]
fn a_stamp_that_the_user_himself_hands_over_opens_nothing() {
    let Some(server) = Server::start(Line::subject()) else { return };
    helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
    server.say(&["hold", "--all"], 0);
    assert_eq!(server.say(&["rehearse", "--all"], 0), "");
    let roster = server.dovecot.site().join("domain/example.com.roster");
    let roster = fs::read_to_string(roster).unwrap();
    let stamp = roster.split("rehearsal=").nth(1).unwrap().split([' ', '\n']).next().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (owner, home) = (OWNER.to_string(), server.dovecot.inside(&server.dovecot.home(ALICE)));
    let preserved = "USER HOME UIDL_KEEP_REHEARSAL";
    let mut session = server
        .dovecot
        .command("setpriv")
        .args(["--reuid", &owner, "--regid", &owner, "--clear-groups"])
        .args(["/usr/lib/dovecot/pop3", "-c"])
        .arg(server.dovecot.inside(&server.dovecot.conf()))
        .args(["-o", "log_path=/dev/null", "-o", "stats_writer_socket_path=", "-o"])
        .arg(format!("mail_home={}", home.display()))
        .envs([("USER", ALICE), ("HOME", home.to_str().unwrap())])
        .envs([("UIDL_KEEP_REHEARSAL", stamp), ("DOVECOT_PRESERVE_ENVS", preserved)])
        .stdin(OwnedFd::from(theirs.try_clone().unwrap()))
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Who is served hears nothing before his first command.
    ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut said = String::new();
    let heard = BufReader::new(ours).read_line(&mut said);
    let _ = session.kill();
    session.wait().unwrap();
    assert!(heard.is_ok(), "he is served");
    assert!(said.starts_with(MOVING), "{said}");
}

/// Both wait for the lock when his user is released. Whichever has it first, the client is told
/// what stays.
#[test]
fn a_client_that_comes_while_he_is_rehearsed_is_told_what_stays() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        helper::build_site(&server.dovecot.site(), &server.listing(&[ALICE], "kept-"));
        server.say(&["hold", "--all"], 0);
        assert_eq!(server.say(&["rehearse", "--all"], 0), "");
        server.say(&["rehearse", "--undo", "--all"], 0);
        server.maildir(ALICE).deliver(&Message::plain(4), Naming::Qmail, 4);
        let mail = server.dovecot.mail(ALICE);
        let lock = fs::File::open(mail.join("uidl-keep.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let listed = thread::scope(|scope| {
            let rehearsal = scope.spawn(|| server.run(&["rehearse", "--all"]));
            thread::sleep(Duration::from_secs(2));
            server.say(&["release", "--all", "--unrehearsed"], 0);
            let client = scope.spawn(|| server.dovecot.uidl(ALICE));
            thread::sleep(Duration::from_secs(1));
            drop(lock);
            rehearsal.join().unwrap();
            client.join().unwrap()
        });
        assert_eq!((&listed[..3], listed.len()), (&kept("kept-")[..], 4), "{line:?}");
        let ledger = Ledger::decode(&fs::read(mail.join("uidl-keep.ledger")).unwrap()).unwrap();
        assert_eq!((ledger.rehearsal, ledger.records.len()), (0, 4), "{line:?}");
        assert_eq!(server.dovecot.uidl(ALICE), listed);
    }
}
