//! The role in `contrib/ansible`, run by Ansible against machines with sshd: two old servers, and a
//! new one with Dovecot 2.4.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::shared::program::copy_helper;
use crate::support::courier::Courier;
use crate::support::dovecot::{Config, Dovecot};
use crate::support::host::{Host, Line};
use crate::support::machine::{Machine, make_key};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Refused;
use crate::support::scenario::MOVING;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
/// He has another name on the old server.
const CAROL: &str = "carol@example.net";
const CAROLINE: &str = "caroline@example.net";
const DAVE: &str = "dave@example.org";

/// Stands in a file that the role keeps secret.
const SECRET: &str = "swordfish";

/// The tools of `tests/hosts/setup.sh python ansible`.
///
/// `None`, having said so, where they are not installed: PyPI is not to be had everywhere. With
/// `UIDL_KEEP_REQUIRE_ANSIBLE=1` that is a failure.
fn tools() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/ansible/bin");
    if !tools.join("ansible-lint").exists() {
        let lack = format!("no Ansible in {}: run `make deps`", tools.display());
        let is_required = std::env::var_os("UIDL_KEEP_REQUIRE_ANSIBLE");
        assert!(is_required.is_none_or(|value| value != "1"), "{lack}");
        eprintln!("skipped: {lack}");
        return None;
    }
    Some(tools)
}

/// A program of these, which finds the others, and no configuration of this machine's.
fn tool(tools: &Path, name: &str, home: &Path) -> Command {
    let mut command = Command::new(tools.join(name));
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/ansible"))
        .env_clear()
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display()))
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .env("NO_COLOR", "1");
    command
}

/// The servers, and the machine from which they are administered.
struct Night {
    tools: PathBuf,
    control: TempDir,
    courier: Courier,
    old: Dovecot,
    new: Dovecot,
    machines: [Machine; 3],
}

/// The outcome of a run of playbooks.
struct Played {
    is_well: bool,
    said: String,
}

impl Played {
    /// The number that the recap gives of a host; `None` where it has not the host.
    fn recap(&self, host: &str, what: &str) -> Option<u32> {
        let (_, recap) = self.said.split_once("PLAY RECAP").expect("a recap");
        let line = recap.lines().find(|line| line.split_whitespace().next() == Some(host))?;
        let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == what).map(|(_, number)| number.parse().expect("a number"))
    }

    #[track_caller]
    fn says(&self, what: &str) {
        assert!(self.said.contains(what), "{what}\n---\n{}", self.said);
    }
}

impl Night {
    fn begin() -> Option<Self> {
        let tools = tools()?;
        let (courier, ssh) = (Host::courier()?, Host::ssh()?);
        let courier = Courier::new(&courier);
        let old = Dovecot::start(&Host::dovecot(Line::subject())?, Config::default())?;
        let new = Dovecot::start(&ssh, Config::default().with_plugin())?;
        let control = tempfile::tempdir().expect("a directory");
        make_key(Command::new("ssh-keygen"), &control.path().join("key"));
        let key = fs::read_to_string(control.path().join("key.pub")).expect("just made");
        let mailnames = courier.root().join("var/qmail/mailnames");
        fs::create_dir_all(&mailnames).expect("our directory");
        let homes = old.dir().join("home");
        let (state, place) = new.state();
        let machines = [
            Machine::start(&ssh, 2, &key, &[(&mailnames, "/srv")]),
            Machine::start(&ssh, 3, &key, &[(&homes, "/srv")]),
            Machine::start(&ssh, 4, &key, &[(&state, place)]),
        ];
        copy_helper(&machines[2].root_home().join("uidl-keep-program"));
        let night = Self { tools, control, courier, old, new, machines };
        night.write_inventory();
        for (number, user) in (1..).zip([ALICE, BOB, CAROL, DAVE]) {
            for at in 0..4 {
                night.deliver(user, number * 10 + at);
            }
        }
        Some(night)
    }

    fn write_inventory(&self) {
        let dir = self.control.path();
        let known: String = self.machines.iter().map(Machine::known_host).collect();
        fs::write(dir.join("known_hosts"), known).expect("our directory");
        fs::write(dir.join("names"), format!("{CAROLINE} {CAROL}\n# {SECRET}\n")).expect("ours");
        let host = |at: usize, name: &str| {
            let address = self.machines[at].address();
            let (ip, port) = (address.ip(), address.port());
            format!("{name}:\n          ansible_host: {ip}\n          ansible_port: {port}\n")
        };
        let inside = |path: &Path| self.new.inside(path).display().to_string();
        let inventory = format!(
            "---
all:
  vars:
    ansible_user: root
    ansible_python_interpreter: /usr/bin/python3
    uidl_keep_helper: {helper}
  children:
    old_servers:
      hosts:
        {old1}\
         \x20         uidl_keep_capture_args: [courier, --pattern,
            '/srv/{{domain}}/{{local}}/Maildir']
        {old2}\
         \x20         uidl_keep_secret_files: [{names}]
          uidl_keep_capture_args: [dovecot, --format, '%08Xu%08Xv', --pattern,
            '/srv/{{local}}@{{domain}}/Maildir', --rename, '{{{{ uidl_keep_home }}}}/secret/names']
    new_servers:
      hosts:
        {new}\
         \x20         uidl_keep_program: /root/uidl-keep-program
          uidl_keep_dovecot_args: [--doveadm-args, '-c {conf}']
",
            helper = env!("CARGO_BIN_EXE_uidl-keep"),
            old1 = host(0, "old1"),
            old2 = host(1, "old2"),
            new = host(2, "new"),
            names = dir.join("names").display(),
            conf = inside(&self.new.conf()),
        );
        fs::write(dir.join("inventory.yml"), inventory).expect("our directory");
    }

    /// What ssh has to know here, beside what the role's own configuration tells it.
    fn ssh_arguments(&self) -> Vec<String> {
        let dir = self.control.path().display();
        let options = [
            "IdentitiesOnly=yes".to_owned(),
            format!("UserKnownHostsFile={dir}/known_hosts"),
            format!("ControlPath={dir}/%h:%p"),
        ];
        let options = options.into_iter().map(|option| format!("-o{option}"));
        ["-F", "none"].map(str::to_owned).into_iter().chain(options).collect()
    }

    /// Runs playbooks as an operator does.
    fn play(&self, arguments: &[&str]) -> Played {
        let dir = self.control.path();
        let ran = tool(&self.tools, "ansible-playbook", dir)
            .env("ANSIBLE_SSH_COMMON_ARGS", self.ssh_arguments().join(" "))
            .env("ANSIBLE_PRIVATE_KEY_FILE", dir.join("key"))
            .arg("-i")
            .arg(dir.join("inventory.yml"))
            .args(["-v", "--diff"])
            .args(arguments)
            .output()
            .expect("it is installed");
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let said = text(&ran.stdout) + &text(&ran.stderr);
        assert!(said.contains("PLAY RECAP"), "{arguments:?}: {said}");
        assert!(!said.contains(SECRET), "a secret is shown: {said}");
        for machine in &self.machines {
            assert!(!machine.root_home().join("uidl-keep/secret").exists(), "a secret is left");
        }
        Played { is_well: ran.status.success(), said }
    }

    /// The user's Maildir on the old server.
    fn old_maildir(&self, user: &str) -> Maildir {
        match user {
            CAROL => Maildir::create(self.old.mail(CAROLINE)),
            user => self.courier.maildir(user),
        }
    }

    /// Delivers a message on the old server.
    fn deliver(&self, user: &str, number: u32) {
        let naming = if user == CAROL { Naming::Dovecot } else { Naming::Courier };
        self.old_maildir(user).deliver(&Message::plain(number), naming, number);
    }

    /// What the old server tells clients.
    fn told(&self, user: &str) -> Vec<String> {
        match user {
            CAROL => self.old.uidl(CAROLINE),
            user => self.courier.uidl(user),
        }
    }

    /// Copies the mail of everybody that is not there yet, as rsync does, except this file.
    fn copy(&self, except: Option<&Path>) {
        for user in [ALICE, BOB, CAROL, DAVE] {
            let mail = self.new.mail(user);
            if mail.exists() {
                fs::remove_dir_all(&mail).expect("root");
            }
            let copy = self.old_maildir(user).copy_mail_to(&mail);
            let name = except.and_then(Path::file_name);
            for file in copy.files().iter().filter(|file| file.file_name() == name) {
                fs::remove_file(file).expect("root");
            }
        }
    }

    /// Insists that a client finds each message as the old server told it.
    #[track_caller]
    fn serves(&self, user: &str) {
        assert_eq!(self.new.uidl(user), self.told(user), "{user}");
    }

    #[track_caller]
    fn holds(&self, user: &str) {
        let mut session = self.new.login(user).expect("+OK comes before the mailbox is opened");
        assert_eq!(session.uidl().err(), Some(Refused(MOVING.into())), "{user}");
    }
}

impl Drop for Night {
    /// Ends the connections that ssh keeps for the next run.
    fn drop(&mut self) {
        for machine in &self.machines {
            let (ip, port) = (machine.address().ip(), machine.address().port());
            let mut exit = Command::new("ssh");
            exit.args(self.ssh_arguments()).args(["-q", "-O", "exit", "-p", &port.to_string()]);
            let _ = exit.arg(format!("root@{ip}")).output();
        }
    }
}

#[test]
fn two_servers_move_domain_by_domain_and_stop_at_the_first_difference() {
    let Some(night) = Night::begin() else { return };
    let everybody = [ALICE, BOB, CAROL, DAVE];
    // Clients have polled the old servers.
    everybody.iter().for_each(|user| assert_eq!(night.told(user).len(), 4, "{user}"));

    let first = night.play(&["capture.yml", "build.yml"]);
    assert!(first.is_well, "{}", first.said);
    for host in ["old1", "old2", "new"] {
        assert!(first.recap(host, "changed") > Some(0), "{host}: {}", first.said);
    }
    everybody.iter().for_each(|user| night.holds(user));
    let again = night.play(&["capture.yml", "build.yml"]);
    assert!(again.is_well, "{}", again.said);
    for host in ["old1", "old2", "new"] {
        assert_eq!(again.recap(host, "changed"), Some(0), "{host}: {}", again.said);
    }

    // Mail comes in until the last capture, and one message is not copied.
    night.deliver(ALICE, 50);
    night.told(ALICE);
    let forgotten = night.old_maildir(CAROL).files().remove(1);
    night.copy(Some(&forgotten));
    let forecast = night.play(&["site.yml"]);
    assert!(!forecast.is_well, "{}", forecast.said);
    forecast.says("too few of the captured messages would be kept");
    forecast.says("carol@example.net: 3 of 4 kept");
    assert_eq!(forecast.recap("example.com@new", "ok"), None, "{}", forecast.said);
    everybody.iter().for_each(|user| night.holds(user));

    // The operator goes on, and is stopped at that domain.
    let stopped = night.play(&["site.yml", "-e", "uidl_keep_fail_under=50"]);
    assert!(!stopped.is_well, "{}", stopped.said);
    stopped.says(&night.told(CAROL)[1]);
    assert_eq!(stopped.recap("example.com@new", "changed"), Some(2), "{}", stopped.said);
    assert_eq!(stopped.recap("example.net@new", "failed"), Some(1), "{}", stopped.said);
    assert_eq!(stopped.recap("example.org@new", "ok"), None, "{}", stopped.said);
    [ALICE, BOB].iter().for_each(|user| night.serves(user));
    [CAROL, DAVE].iter().for_each(|user| night.holds(user));

    // All that differ are found in one run, and nobody is released.
    let all = ["uidl_keep_serial=100%", "uidl_keep_max_fail_percentage=100"];
    let rehearsed = night.play(&["rehearse.yml", "-e", all[0], "-e", all[1]]);
    assert!(!rehearsed.is_well, "{}", rehearsed.said);
    assert_eq!(rehearsed.recap("example.com@new", "ok"), None, "{}", rehearsed.said);
    assert_eq!(rehearsed.recap("example.net@new", "failed"), Some(1), "{}", rehearsed.said);
    assert_eq!(rehearsed.recap("example.org@new", "changed"), Some(1), "{}", rehearsed.said);
    [CAROL, DAVE].iter().for_each(|user| night.holds(user));

    // It is copied, and what would be done is not done.
    let copied = night.new.mail(CAROL).join("cur").join(forgotten.file_name().unwrap());
    fs::copy(&forgotten, &copied).unwrap();
    crate::support::maildir::give_to_owner(&copied);
    let checked = night.play(&["site.yml", "--check"]);
    assert!(checked.is_well, "{}", checked.said);
    assert_eq!(checked.recap("example.net@new", "changed"), Some(1), "{}", checked.said);
    assert_eq!(checked.recap("new", "changed"), Some(0), "{}", checked.said);
    [CAROL, DAVE].iter().for_each(|user| night.holds(user));

    let moved = night.play(&["site.yml"]);
    assert!(moved.is_well, "{}", moved.said);
    assert_eq!(moved.recap("example.net@new", "changed"), Some(2), "{}", moved.said);
    assert_eq!(moved.recap("example.org@new", "changed"), Some(1), "{}", moved.said);
    everybody.iter().for_each(|user| night.serves(user));
    let again = night.play(&["site.yml"]);
    assert!(again.is_well, "{}", again.said);
    for host in ["old1", "old2", "new"] {
        assert_eq!(again.recap(host, "changed"), Some(0), "{host}: {}", again.said);
    }
    everybody.iter().for_each(|user| night.serves(user));
}

#[test]
fn nothing_is_built_where_an_old_server_was_not_captured() {
    let Some(night) = Night::begin() else { return };
    [ALICE, BOB, CAROL, DAVE].iter().for_each(|user| assert_eq!(night.told(user).len(), 4));
    // The file system of one is not there.
    fs::rename(night.old.home(CAROLINE), night.old.dir().join("gone")).unwrap();
    let played = night.play(&["site.yml"]);
    assert!(!played.is_well, "{}", played.said);
    assert_eq!(played.recap("old1", "failed"), Some(0), "{}", played.said);
    assert_eq!(played.recap("old2", "failed"), Some(1), "{}", played.said);
    played.says("not captured: old2.");
    let built = fs::read_dir(night.new.site()).unwrap().count();
    assert_eq!(built, 0, "nothing is built");
}

#[test]
fn playbooks_and_role_are_clean() {
    let Some(tools) = tools() else { return };
    let home = tempfile::tempdir().unwrap();
    for (name, arguments) in
        [("yamllint", &["--strict", "."][..]), ("ansible-lint", &["--offline", "--nocolor"])]
    {
        let ran = tool(&tools, name, home.path()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{name}: {said}");
    }
}
