//! `uidl-keep capture ... --prove`: captures compared with the old servers' own listings.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shared::capture::Ran;
use crate::shared::program::{copy_helper, write_program};
use crate::support::PASSWORD;
use crate::support::courier::Courier;
use crate::support::dovecot::{Config, Dovecot, passdb};
use crate::support::host::{Host, Line, Scratch, Unfit, mounting, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming, give_to_owner};

const USERS: [&str; 3] = ["al@ex.com", "bo@ex.com", "cy@ex.org"];

/// The helper, to be run inside that host and told what to do. It is put into `here`.
fn inside(host: &Host, here: &Scratch) -> Option<Command> {
    let tree = host.outside("/");
    let mut command = mounting(Path::new("/proc"), &tree.join("proc"))?;
    copy_helper(&here.path().join("uidl-keep"));
    command.arg("chroot").arg(&tree).arg(here.inside().join("uidl-keep"));
    Some(command)
}

/// A Courier that has been in use, and a machine of its own for the helper to run on.
struct Old {
    host: Host,
    courier: Courier,
    here: Scratch,
}

impl Old {
    /// Starts one with mail for each user, some of it not listed yet; the last one has never had
    /// any.
    fn courier() -> Option<Self> {
        let host = Host::courier()?;
        let (courier, here) = (Courier::new(&host), host.scratch());
        inside(&host, &here)?;
        let old = Self { host, courier, here };
        for (user, count) in USERS.iter().zip([7, 4, 0]) {
            let maildir = old.maildir(user);
            for number in 0..count {
                maildir.deliver(&Message::plain(number), Naming::Courier, number);
            }
            old.courier.uidl(user);
            if count > 0 {
                maildir.deliver(&Message::plain(90), Naming::Courier, 90);
            }
        }
        Some(old)
    }

    fn maildir(&self, user: &str) -> Maildir {
        self.courier.maildir(user)
    }

    /// Runs the helper on the old server.
    fn capture(&self, arguments: &[&str]) -> Ran {
        let mut command = inside(&self.host, &self.here).expect("tried before");
        command.args(["capture"]).args(arguments);
        let root = self.host.inside(&self.courier.root());
        let pattern =
            format!("{}/var/qmail/mailnames/{{domain}}/{{local}}/Maildir", root.display());
        command.args(["--pattern", &pattern]);
        Ran::of(command)
    }

    /// A program that does something before Courier's own, and something after it, as the value of
    /// `--prove-program`.
    fn program(&self, before: &str, after: &str) -> String {
        let script = self.here.path().join("pop3d");
        let text =
            format!("#!/bin/sh\n{before}\n/usr/lib/courier/courier/courierpop3d \"$1\"\n{after}\n");
        write_program(&script, &text);
        format!("{}/pop3d {{maildir}}", self.here.inside().display())
    }
}

#[test]
fn a_capture_of_courier_is_proven_by_its_own_program() {
    let Some(old) = Old::courier() else { return };
    let ran = old.capture(&["courier", "--prove", "9"]);
    let by = "by /usr/lib/courier/courier/courierpop3d";
    for (user, messages) in USERS.iter().zip([8, 5, 0]) {
        ran.says(&format!("proven: {user}: {messages} messages, {by}\n"));
        // A message that the proof made Courier list for the first time is captured, too.
        assert_eq!(ran.uidls(user), old.courier.uidl(user));
        assert_eq!(ran.uidls(user).len(), messages);
    }
    ran.says("proven: 3 of 3 maildrops, seed ");
    let listing = String::from_utf8(ran.stdout).unwrap();
    assert!(listing.starts_with("# proven: "), "{listing}");
    // No file belongs to another than before.
    let list = old.maildir(USERS[0]).path().join("courierpop3dsizelist");
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&list.metadata().unwrap()),
        crate::support::OWNER
    );
}

#[test]
fn full_maildrops_come_first_and_a_seed_chooses_the_same_again() {
    let Some(old) = Old::courier() else { return };
    let proven = |ran: &Ran| -> Vec<String> {
        let users = ran.stderr.lines().filter_map(|line| line.split_once(": proven: "));
        users.map(|(_, rest)| rest.split(": ").next().unwrap().to_owned()).collect()
    };
    for seed in ["1", "2", "3", "4"] {
        let seeded = ["courier", "--prove", "1", "--prove-seed", seed];
        let (first, again) = (old.capture(&seeded), old.capture(&seeded));
        first.says(&format!("proven: 1 of 3 maildrops, seed {seed}\n"));
        assert_eq!(proven(&first), proven(&again));
        assert_ne!(proven(&first)[0], USERS[2], "the empty one");
    }
}

#[test]
fn a_capture_by_the_wrong_server_stops_before_anything_is_written() {
    let Some(old) = Old::courier() else { return };
    let program = "/usr/lib/courier/courier/courierpop3d {maildir}";
    let place = old.here.path().join("listing");
    fs::write(&place, "of yesterday").unwrap();
    let output = old.here.inside().join("listing");
    let wrong = ["qmail", "--prove", "1", "--prove-program", program];
    for output in [&[][..], &["-o", output.to_str().unwrap()]] {
        let ran = old.capture(&[&wrong[..], output].concat());
        ran.is_refused("nothing was written");
        ran.says("message 1: captured is 17149");
        ran.says(", and the old server lists UID1-");
        ran.says("Maildir: ");
        assert!(USERS.iter().any(|user| ran.stderr.contains(user)), "{}", ran.stderr);
    }
    assert_eq!(fs::read_to_string(place).unwrap(), "of yesterday");
    // qmail has no program here: nobody is asked in its place.
    let ran = old.capture(&["qmail", "--prove", "1"]);
    assert_eq!((ran.status, ran.stdout.len()), (2, 0));
    ran.says("no POP3 program of qmail where it usually lies");
}

#[test]
fn a_uidl_that_changes_at_the_proof_stops_it() {
    let Some(old) = Old::courier() else { return };
    // The list is as it is after a restore of an older one.
    let program = old.program(
        "sed -i 's/ \\([0-9]*\\):\\([0-9]*\\):/ 7\\1:\\2:/' \"$1/courierpop3dsizelist\"",
        "",
    );
    let ran = old.capture(&["courier", "--prove", "2", "--prove-program", &program]);
    ran.is_refused("nothing was written");
    ran.says("message 1: captured was UID1-");
    ran.says(", and UID71-");
    ran.says("after the old server had listed it");
}

#[test]
fn mail_that_comes_or_goes_during_the_proof_stops_nothing() {
    let Some(old) = Old::courier() else { return };
    for (before, after) in [
        ("cp \"$(ls -d \"$1\"/cur/* | head -n 1)\" \"$1/new/1799999999.$$.x\"", ""),
        ("", "rm \"$(ls -d \"$1\"/cur/* | head -n 1)\""),
        ("rm \"$(ls -d \"$1\"/cur/* | head -n 1)\"", "date > \"$1/new/1799999998.$$.x\""),
    ] {
        let program = old.program(before, after);
        let ran = old.capture(&["courier", "--prove", "2", "--prove-program", &program]);
        ran.says("proven: 2 of 3 maildrops");
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
}

#[test]
fn a_program_that_tells_nothing_proves_nothing() {
    let Some(old) = Old::courier() else { return };
    let script = old.here.path().join("pop3d");
    write_program(&script, "#!/bin/sh\necho no such thing >&2\n");
    let program = format!("{}/pop3d", old.here.inside().display());
    let ran = old.capture(&["courier", "--prove", "1", "--prove-program", &program]);
    ran.is_refused("nothing was written");
    ran.says("; no such thing");
    ran.says("3 maildrops have no listing of the old server's to compare with");
    // No program is run on root's own mail.
    for user in USERS {
        std::os::unix::fs::chown(old.maildir(user).path(), Some(0), Some(0)).unwrap();
    }
    let ran = old.capture(&["courier", "--prove", "1"]);
    ran.is_refused("nothing was written");
    ran.says("it belongs to root, and no POP3 program is run as root");
}

#[test]
fn maildrops_without_mail_prove_nothing() {
    let Some(old) = Old::courier() else { return };
    let ran = old.capture(&["courier", "--prove", "1", "--only", USERS[2]]);
    ran.is_refused("nothing was written");
    ran.says("no maildrop with mail was compared, which proves nothing");
}

/// A Dovecot that has been in use, and its users' Maildirs.
struct Dove {
    dovecot: Dovecot,
}

impl Dove {
    /// It is this machine's, for its program is run beside the helper. (Another is in a test of its
    /// own.)
    fn of_this_machine() -> Option<Self> {
        if Unfit::ThisMachine.is_asked() { None } else { Self::start("") }
    }

    fn start(extra: &str) -> Option<Self> {
        let host = Host::dovecot(Line::subject())?;
        let config = Config { extra: extra.to_owned(), ..Config::default() };
        let dovecot = Dovecot::start(&host, config.uidl_format("UID%u-%v"))?;
        for (user, count) in USERS.iter().zip([7, 4, 0]) {
            let maildir = Maildir::create(dovecot.mail(user));
            for number in 0..count {
                maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
            }
            dovecot.uidl(user);
        }
        Some(Self { dovecot })
    }

    fn capture(&self, format: &str, arguments: &[&str]) -> Ran {
        let pattern = format!("{}/home/{{user}}/Maildir", self.dovecot.dir().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
        command.args(["capture", "dovecot", "--format", format, "--pattern", &pattern]);
        command.args(arguments);
        Ran::of(command)
    }

    fn program(&self) -> String {
        let conf = self.dovecot.conf();
        format!("/usr/lib/dovecot/pop3 -c {} -o mail_home={{home}}", conf.display())
    }

    /// A file of passwords.
    fn accounts(&self, lines: &str) -> PathBuf {
        let path = self.dovecot.dir().join("accounts");
        fs::write(&path, lines).unwrap();
        fs::set_permissions(&path, unix_mode(0o600)).unwrap();
        path
    }

    fn over_pop3<'a>(&self, accounts: &'a Path, server: &'a str) -> Vec<&'a str> {
        let accounts = accounts.to_str().unwrap();
        vec!["--prove", "2", "--prove-accounts", accounts, "--prove-server", server]
    }
}

#[test]
fn a_capture_of_dovecot_is_proven_by_its_own_program_and_a_wrong_format_is_not() {
    let Some(dove) = Dove::of_this_machine() else { return };
    let proof = ["--prove", "3", "--prove-program", &dove.program()];
    let ran = dove.capture("UID%u-%v", &proof);
    for (user, messages) in USERS.iter().zip([7, 4, 0]) {
        ran.says(&format!("proven: {user}: {messages} messages, by /usr/lib/dovecot/pop3\n"));
        assert_eq!(ran.uidls(user), dove.dovecot.uidl(user));
    }
    let ran = dove.capture("%08Xu%08Xv", &proof);
    ran.is_refused("nothing was written");
    ran.says("message 1: captured is 00000001");
    ran.says(", and the old server lists UID1-");
}

#[test]
fn mboxes_are_proven_by_a_program_that_is_told_where_they_are() {
    let Some(dove) = Dove::of_this_machine() else { return };
    let home = dove.dovecot.home(USERS[0]);
    let mbox = home.join("mbox");
    let from = b"From al@ex.com Mon May  6 10:06:40 2024\n";
    let messages: Vec<Vec<u8>> = (0..5).map(|number| Message::plain(number).octets).collect();
    let text: Vec<u8> =
        messages.iter().flat_map(|octets| [from, &octets[..], b"\n"].concat()).collect();
    fs::write(&mbox, text).unwrap();
    give_to_owner(&mbox);
    let place = "-o mail_location=mbox:{home}/mail:INBOX={home}/mbox";
    let program = format!("{} {place}", dove.program());
    let capture = |server: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
        command.args(["capture", "mbox", "--server"]).args(server);
        command.args(["--prove", "1", "--prove-program", &program, "--user", USERS[0]]).arg(&mbox);
        Ran::of(command)
    };
    let ran = capture(&["dovecot", "--format", "UID%u-%v"]);
    ran.says("proven: al@ex.com: 5 messages, by /usr/lib/dovecot/pop3\n");
    assert_eq!(ran.uidls(USERS[0]).len(), 5);
    let ran = capture(&["popa3d"]);
    ran.is_refused("nothing was written");
    ran.says(", and the old server lists UID1-");
}

#[test]
fn the_program_of_dovecot_24_tells_as_well() {
    let Some(host) = Host::dovecot(Line::V24) else { return };
    let here = host.scratch();
    let Some(mut command) = inside(&host, &here) else { return };
    let config = Config::default().uidl_format("UID%{uid}-%{uidvalidity}");
    let dovecot = Dovecot::start(&host, config).unwrap();
    let maildir = Maildir::create(dovecot.mail(USERS[0]));
    for number in 0..7 {
        maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
    }
    let listed = dovecot.uidl(USERS[0]);
    let home = dovecot.inside(&dovecot.home(USERS[0]));
    let conf = dovecot.inside(&dovecot.conf());
    let program = format!("/usr/lib/dovecot/pop3 -c {} -o mail_home={{home}}", conf.display());
    command.args(["capture", "dovecot", "--format", "UID%u-%v", "--user", USERS[0]]);
    command.args(["--prove", "1", "--prove-program", &program]).arg(home.join("Maildir"));
    let ran = Ran::of(command);
    ran.says("proven: al@ex.com: 7 messages");
    assert_eq!(ran.uidls(USERS[0]), listed);
}

#[test]
fn dovecots_program_is_found_and_reads_what_the_mails_owner_may_not() {
    let Some(dove) = Dove::of_this_machine() else { return };
    // A configuration is in its usual place, with a key that is root's, as every server has.
    let etc = dove.dovecot.dir().join("etc");
    fs::create_dir_all(etc.join("dovecot")).unwrap();
    let key = etc.join("dovecot/key.pem");
    fs::write(&key, "secret").unwrap();
    fs::set_permissions(&key, unix_mode(0o600)).unwrap();
    let tls = "ssl = yes\nssl_cert = </etc/dovecot/key.pem\nssl_key = </etc/dovecot/key.pem\n";
    let conf = fs::read_to_string(dove.dovecot.conf()).unwrap().replace("ssl = no\n", tls);
    fs::write(etc.join("dovecot/dovecot.conf"), conf).unwrap();
    for file in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(file), etc.join(file)).unwrap();
    }
    let Some(mut command) = mounting(&etc, Path::new("/etc")) else { return };
    command.arg(env!("CARGO_BIN_EXE_uidl-keep"));
    let pattern = format!("{}/home/{{user}}/Maildir", dove.dovecot.dir().display());
    command.args(["capture", "dovecot", "--format", "UID%u-%v", "--prove", "3"]);
    command.args(["--pattern", &pattern]);
    let ran = Ran::of(command);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    ran.says("proven: 3 of 3 maildrops");
}

#[test]
fn a_capture_is_proven_over_pop3_with_the_users_own_passwords() {
    let Some(dove) = Dove::start("") else { return };
    let server = dove.dovecot.pop3().to_string();
    let lines = format!("user,password\n{},{PASSWORD}\n{},{PASSWORD}\n", USERS[0], USERS[1]);
    let accounts = dove.accounts(&lines);
    let proof = dove.over_pop3(&accounts, &server);
    let ran = dove.capture("UID%u-%v", &proof);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    ran.says(&format!("proven: {}: 7 messages, by POP3\n", USERS[0]));
    ran.says(&format!("proven: {}: 4 messages, by POP3\n", USERS[1]));
    let ran = dove.capture("%v-%u", &proof);
    ran.is_refused("nothing was written");
    ran.says(", and the old server lists UID1-");
    // A user without a password cannot be chosen.
    let three = [&proof[..], &["--prove-seed", "1"]].concat();
    let three: Vec<&str> = three.iter().map(|word| if *word == "2" { "3" } else { word }).collect();
    let ran = dove.capture("UID%u-%v", &three);
    ran.is_refused("nothing was written");
    ran.says("only 2 of 3 maildrops could be compared");
}

#[test]
fn a_master_user_opens_all_maildrops_for_the_proof() {
    let Some(mut dove) = Dove::start("") else { return };
    let users = dove.dovecot.dir().join("masters");
    fs::write(&users, "root:{PLAIN}of the master\n").unwrap();
    let users = dove.dovecot.inside(&users).display().to_string();
    let master = passdb(Line::subject(), "passwd-file", &users, "  master = yes\n");
    dove.dovecot.restart_with(&format!("auth_master_user_separator = *\n{master}"));
    let server = dove.dovecot.pop3().to_string();
    let password = dove.accounts("of the master\n");
    let mut proof = dove.over_pop3(&password, &server);
    proof[2] = "--prove-password-file";
    proof.extend(["--prove-login", "{user}*root"]);
    let ran = dove.capture("UID%u-%v", &proof);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    ran.says("proven: 2 of 3 maildrops");
}

#[test]
fn passwords_are_read_from_what_only_their_owner_can_read_and_shown_to_nobody() {
    let Some(dove) = Dove::start("auth_failure_delay = 0\n") else { return };
    let server = dove.dovecot.pop3().to_string();
    let accounts = dove.accounts("user,password\nal@ex.com,Sesame-1\nbo@ex.com,Sesame-2\n");
    let proof = dove.over_pop3(&accounts, &server);
    let ran = dove.capture("UID%u-%v", &proof);
    ran.is_refused("nothing was written");
    ran.says("only 0 of 2 maildrops could be compared");
    assert!(!ran.stderr.contains("Sesame"), "{}", ran.stderr);
    fs::set_permissions(&accounts, PermissionsExt::from_mode(0o640)).unwrap();
    let ran = dove.capture("UID%u-%v", &proof);
    assert_eq!((ran.status, ran.stdout.len()), (2, 0));
    ran.says("holds passwords, and others can read it (mode 0640)");
}

#[test]
fn a_copy_is_proven_only_by_what_is_named() {
    let Some(dove) = Dove::of_this_machine() else { return };
    let root = dove.dovecot.dir();
    let capture = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
        command.args(["capture", "dovecot", "--format", "UID%u-%v", "--root"]).arg(root);
        command.args(["--pattern", "/home/{user}/Maildir", "--prove", "2"]).args(arguments);
        Ran::of(command)
    };
    let ran = capture(&[]);
    assert_eq!((ran.status, ran.stdout.len()), (2, 0));
    ran.says("--root is a copy, and the server is elsewhere");
    let ran = capture(&["--prove-program", &dove.program()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}
