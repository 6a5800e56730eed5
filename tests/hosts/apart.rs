//! Dovecot gives the users of one domain different groups: each has files of his own in the site,
//! which a login of nobody else can read.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Refused;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
/// She was never migrated.
const ERIN: &str = "erin@example.com";

/// Their uids, and their gids.
const ACCOUNTS: [(&str, u32); 3] = [(ALICE, 5001), (BOB, 5002), (ERIN, 5003)];

const MOVING: &str = "-ERR [SYS/TEMP] Mailbox is being moved, please try again later.";
const LATER: &str = "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";

/// A Dovecot with the plugin that has an account for each user, and two messages for each.
struct Server {
    dovecot: Dovecot,
    host: Host,
}

impl Server {
    fn start(line: Line) -> Option<Self> {
        let host = Host::dovecot(line)?;
        let mut dovecot = Dovecot::start(&host, Config::default().with_plugin())?;
        let mut accounts = String::new();
        for (user, id) in ACCOUNTS {
            let maildir = Maildir::create(dovecot.mail(user));
            for number in 1..=2 {
                maildir.deliver(&Message::plain(number), Naming::Qmail, number);
            }
            let home = dovecot.home(user);
            give(&home, id);
            let _ = writeln!(accounts, "{user}::{id}:{id}::{}::", dovecot.inside(&home).display());
        }
        let file = dovecot.dir().join("accounts");
        fs::write(&file, accounts).unwrap();
        let file = dovecot.inside(&file);
        let first = match line {
            Line::V23 => format!("userdb {{\n  driver = passwd-file\n  args = {file:?}\n}}\n"),
            Line::V24 => format!("userdb passwd-file {{\n  passwd_file_path = {file:?}\n}}\n"),
        };
        dovecot.reconfigure(|config| config.first = first.replace('"', ""));
        Some(Self { dovecot, host })
    }

    /// The listing that an old server gave of the messages of these users.
    fn listing(&self, users: &[&str]) -> String {
        let mut listing = String::new();
        for user in users {
            let _ = write!(listing, "uidl-keep-listing 1\nmaildrop {user}\nstate captured\n");
            let files = Maildir::open(self.dovecot.mail(user)).files();
            for (number, file) in (1..).zip(files) {
                let name = file.file_name().unwrap().to_str().unwrap();
                let name = name.split(':').next().unwrap();
                let _ = writeln!(listing, "{number} {} file={name}", kept(user, number));
            }
            listing += ".\n";
        }
        listing
    }

    /// `build --install`, which asks this Dovecot.
    fn install(&self, listing: &str) {
        let file = self.dovecot.dir().join("listing");
        fs::write(&file, listing).unwrap();
        let conf = self.dovecot.inside(&self.dovecot.conf());
        let (doveadm, args) = match self.host.line() {
            Line::V23 => ("doveadm", format!("-c {}", conf.display())),
            Line::V24 => {
                let root = self.host.outside("/");
                ("chroot", format!("{} doveadm -c {}", root.display(), conf.display()))
            }
        };
        let mut command = helper::uidl_keep();
        command.args(["build", "--final", "--install", "--doveadm", doveadm, "--doveadm-args"]);
        helper::run(command.arg(args).arg("--site").arg(self.dovecot.site()).arg(&file));
    }

    fn serves_both(&self, when: &str) {
        for user in [ALICE, BOB] {
            assert_eq!(self.dovecot.uidl(user), [kept(user, 1), kept(user, 2)], "{when}");
        }
    }

    /// The line that a client is told instead of its listing.
    fn refusal(&self, user: &str) -> String {
        let mut session = self.dovecot.login(user).expect("+OK comes before the mailbox is opened");
        let Err(Refused(line)) = session.uidl() else { panic!("{user} is served") };
        line
    }
}

fn kept(user: &str, number: u32) -> String {
    format!("kept-{user}-{number}")
}

/// Gives all below a directory to that account.
fn give(path: &Path, id: u32) {
    chown(path, Some(id), Some(id)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), id));
    }
}

/// Whether an account can read a file.
fn can_read(id: u32, path: &Path) -> bool {
    let id = id.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "cat"]).arg(path);
    command.output().expect("setpriv").status.success()
}

#[test]
fn users_of_one_domain_and_different_groups_are_served_and_see_nothing_of_each_other() {
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        server.install(&server.listing(&[ALICE, BOB]));
        let erins = server.dovecot.uidl(ERIN);
        server.serves_both("installed");
        server.serves_both("the second time");
        for (user, id) in ACCOUNTS[..2].iter().copied() {
            for extension in ["idx", "roster"] {
                let file = server.dovecot.site().join(format!("user/{user}.{extension}"));
                let metadata = file.metadata().unwrap();
                assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (id, 0o400));
                for (_, other) in ACCOUNTS {
                    assert_eq!(can_read(other, &file), other == id, "{other}: {file:?}");
                }
            }
        }
        let domain = server.dovecot.site().join("domain");
        // Anybody may read a file that names nobody.
        let roster = domain.join("example.com.roster").metadata().unwrap();
        assert_eq!((roster.uid(), roster.mode() & 0o7777), (0, 0o644));

        let say = |words: &[&str]| {
            helper::run(helper::uidl_keep().args(words).arg("--site").arg(server.dovecot.site()))
        };
        say(&["hold", "example.com"]);
        assert_eq!([server.refusal(ALICE), server.refusal(BOB)], [MOVING, MOVING]);
        assert_eq!(server.refusal(ERIN), MOVING);
        say(&["release", "--unrehearsed", "example.com"]);
        assert_eq!(server.dovecot.uidl(ERIN), erins);
        server.serves_both("released");

        // A user of the old server may have lived where it could not be searched, and be anybody's
        // neighbour.
        let gap = "uidl-keep-listing 1\nmaildrop *@example.com\nstate failed\nremark denied\n.\n";
        server.install(&(server.listing(&[BOB]) + gap));
        server.serves_both("somebody was missed");
        assert_eq!(server.refusal(ERIN), LATER);
        say(&["release", "--redownload", "*@example.com"]);
        assert_eq!(server.dovecot.uidl(ERIN), erins);
        server.serves_both("nobody was missed");
    }
}

#[test]
fn files_of_ones_own_that_were_lost_are_missed() {
    let Some(server) = Server::start(Line::subject()) else { return };
    server.install(&server.listing(&[ALICE, BOB]));
    server.serves_both("installed");
    let user = server.dovecot.site().join("user");
    let [roster, index] = ["roster", "idx"].map(|it| user.join(format!("{ALICE}.{it}")));
    let elsewhere = server.dovecot.dir().join("elsewhere");
    for (lost, what) in [(&roster, "the roster"), (&index, "the index"), (&user, "all of them")] {
        fs::rename(lost, &elsewhere).unwrap();
        // A listing is remembered; a first listing needs the index.
        let _ = fs::remove_file(server.dovecot.mail(ALICE).join("uidl-keep.ledger"));
        let _ = fs::remove_file(server.dovecot.mail(ALICE).join("uidl-keep.lock"));
        assert_eq!(server.refusal(ALICE), LATER, "{what}");
        let log = server.dovecot.settled_log();
        let said = log.lines().rfind(|line| line.contains("uidl-keep: ")).unwrap();
        let place = if *lost == user { "no directory " } else { "user/alice@example.com." };
        assert!(said.contains(place), "{what}: {said}");
        fs::rename(&elsewhere, lost).unwrap();
        server.serves_both(what);
    }
}
