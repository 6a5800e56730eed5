//! `hold --auth`: Dovecot's auth refuses the held at POP3, without the plugin, and nobody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::imap::Imap;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::{Pop3, Refused};

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
/// She was never migrated.
const ERIN: &str = "erin@example.net";

/// A client of a held user is told this.
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
        if host.outside("/") != Path::new("/") {
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

    /// The one line that was logged since then about a user.
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
pub fn example(line: Line) -> String {
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
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        server.stops(&[], "there is no such file");
        server.say(&["hold", "--auth", ALICE]);
        server.stops(&[ALICE], "alice is held");
        // A user who is held later is held at once, whatever was said.
        server.say(&["hold", "example.com"]);
        server.stops(&[ALICE, BOB], "all are held");
        server.say(&["release", "--unrehearsed", BOB]);
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
    for line in Line::asked() {
        let Some(server) = Server::start(line) else { continue };
        server.say(&["hold", "--auth", ALICE]);
        server.stops(&[ALICE], "held");
        fs::set_permissions(server.stop(), Permissions::from_mode(0o600)).unwrap();
        // Without a change auth would not open it again.
        server.say(&["hold", BOB]);
        server.stops(&[ALICE, BOB], "it has its permissions again");
        fs::set_permissions(server.stop().parent().unwrap(), Permissions::from_mode(0o700))
            .unwrap();
        server.say(&["release", "--unrehearsed", BOB]);
        server.stops(&[], "auth may not look into the directory");
        assert!(server.dovecot.log().contains("stop-pop3) failed: Permission denied"));
        fs::remove_dir_all(server.stop().parent().unwrap()).unwrap();
        server.say(&["release", "--unrehearsed", BOB]);
        server.stops(&[], "there is no directory");
    }
}
