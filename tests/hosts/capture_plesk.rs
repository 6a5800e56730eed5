//! `uidl-keep capture plesk`: on trees built like Plesk's, and beside servers that listen.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::shared::capture::{Ran, make, message};
use crate::support::dovecot::{Config, Dovecot};
use crate::support::host::{Host, Line, Unfit, mounting};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Pop3;

/// The directories of a Plesk machine that matter here.
struct Plesk {
    root: tempfile::TempDir,
}

/// One message, which Courier's clients know as UID7-17.
const COURIER: (&str, &str) = ("courierpop3dsizelist", "/3 9 17\n100.a:2,S 10 7:17:0\n");
/// The same message, which Dovecot's clients know by UID 1 and UIDVALIDITY 23.
const DOVECOT: (&str, &str) = ("dovecot-uidlist", "3 V23 N2\n1 :100.a\n");

impl Plesk {
    /// Makes one with a maildrop for each user; every maildrop has these state files.
    fn of(users: &[&str], states: &[(&str, &str)]) -> Self {
        let plesk = Self { root: tempfile::tempdir().unwrap() };
        for user in users {
            let (local, domain) = user.split_once('@').unwrap();
            let maildir = plesk.path(&format!("var/qmail/mailnames/{domain}/{local}/Maildir"));
            make(&maildir);
            fs::write(maildir.join("cur/100.a:2,S"), message("a")).unwrap();
            for (name, text) in states {
                fs::write(maildir.join(name), text).unwrap();
            }
        }
        plesk
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Does as `systemctl enable`.
    fn enable(&self, unit: &str) {
        self.write(&format!("lib/systemd/system/{unit}"), "[Service]\n");
        let wants = self.path("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        symlink(format!("/lib/systemd/system/{unit}"), wants.join(unit)).unwrap();
    }

    /// Does as `systemctl mask`.
    fn mask(&self, unit: &str) {
        symlink("/dev/null", self.path("etc/systemd/system").join(unit)).unwrap();
    }

    /// Writes what dpkg says of packages: the name and the state of each.
    fn packages(&self, states: &[(&str, &str)]) {
        let stanza = |(name, state): &(&str, &str)| {
            format!("Package: {name}\nStatus: {state}\nPriority: optional\n\n")
        };
        let status: String = states.iter().map(stanza).collect();
        self.write("var/lib/dpkg/status", &status);
    }

    fn capture(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
        command.args(["capture", "plesk", "--root"]).arg(self.root.path()).args(arguments);
        Ran::of(command)
    }

    /// Captures as on that machine itself: its `/etc` is in the place of ours, for that process
    /// alone. `None` if that cannot be.
    fn capture_live(&self, arguments: &[&str]) -> Option<Ran> {
        let mail = self.path("var/qmail/mailnames");
        self.write("etc/psa/psa.conf", &format!("PLESK_MAILNAMES_D {}\n", mail.display()));
        for file in ["passwd", "group"] {
            fs::copy(Path::new("/etc").join(file), self.path("etc").join(file)).unwrap();
        }
        let mut command = mounting(&self.path("etc"), Path::new("/etc"))?;
        command.arg(env!("CARGO_BIN_EXE_uidl-keep")).args(["capture", "plesk"]).args(arguments);
        Some(Ran::of(command))
    }
}

#[test]
fn what_starts_with_the_machine_decides_however_fresh_the_other_ones_state_is() {
    for (unit, format, uidl) in [
        ("courier-pop3d.service", None, "UID7-17"),
        ("courier-imap.service", None, "UID7-17"),
        ("dovecot.service", Some("UID%u-%v"), "UID1-23"),
    ] {
        let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
        plesk.enable(unit);
        plesk.packages(&[
            ("psa-courier-imap", "install ok installed"),
            ("plesk-dovecot", "install ok installed"),
        ]);
        let format: Vec<&str> = format.iter().flat_map(|format| ["--format", format]).collect();
        let ran = plesk.capture(&format);
        assert_eq!(ran.uidl(), uidl, "{unit}");
        ran.says(&format!("enabled: /etc/systemd/system/multi-user.target.wants/{unit}"));
        ran.says(
            "seen: maildrops with files of Courier: 1, the youngest courierpop3dsizelist of 20",
        );
        ran.says("seen: maildrops with files of Dovecot: 1, the youngest dovecot-uidlist of 20");
        // The listing tells its later reader on what it rests.
        let listing = String::from_utf8(ran.stdout.clone()).unwrap();
        assert!(listing.starts_with("# enabled: /etc/systemd"), "{listing}");
    }
}

#[test]
fn init_scripts_start_with_the_machine_too() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    plesk.write("etc/init.d/courier-imap", "#!/bin/sh\n");
    fs::create_dir_all(plesk.path("etc/rc3.d")).unwrap();
    symlink("../init.d/courier-imap", plesk.path("etc/rc3.d/S20courier-imap")).unwrap();
    symlink("../init.d/dovecot", plesk.path("etc/rc3.d/K80dovecot")).unwrap();
    assert_eq!(plesk.capture(&[]).uidl(), "UID7-17");
}

#[test]
fn a_unit_that_is_masked_or_gone_starts_nothing() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    for unit in ["dovecot.service", "dovecot.socket"] {
        plesk.enable(unit);
    }
    plesk.mask("dovecot.service");
    fs::remove_file(plesk.path("lib/systemd/system/dovecot.socket")).unwrap();
    plesk.packages(&[
        ("psa-courier-imap", "install ok installed"),
        ("plesk-dovecot", "deinstall ok config-files"),
    ]);
    let ran = plesk.capture(&[]);
    assert_eq!(ran.uidl(), "UID7-17");
    ran.says("installed: psa-courier-imap");
    ran.says("Courier answers POP3: it alone is installed");
    assert!(!ran.stderr.contains("enabled"), "{}", ran.stderr);
}

#[test]
fn a_copy_without_the_unit_files_still_tells_which_were_wanted() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    plesk.enable("courier-pop3s.service");
    fs::remove_dir_all(plesk.path("lib")).unwrap();
    let ran = plesk.capture(&[]);
    assert_eq!(ran.uidl(), "UID7-17");
    ran.says("1 of 1 maildrops have something unusual about them");
}

#[test]
fn a_wanted_unit_of_what_is_not_installed_was_left_behind() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    plesk.enable("courier-pop3s.service");
    plesk.packages(&[("plesk-dovecot", "install ok installed")]);
    fs::remove_dir_all(plesk.path("lib")).unwrap();
    let ran = plesk.capture(&["--format", "%08Xu%08Xv"]);
    assert_eq!(ran.uidl(), "0000000100000017");
}

#[test]
fn programs_tell_what_is_installed_where_packages_cannot_be_read() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    plesk.write("usr/libexec/dovecot/pop3", "");
    let ran = plesk.capture(&["--format", "%08Xu%08Xv"]);
    assert_eq!(ran.uidl(), "0000000100000017");
    ran.says("installed: /usr/libexec/dovecot/pop3");
}

#[test]
fn files_of_both_servers_and_no_service_are_refused_with_all_that_was_found() {
    let plesk = Plesk::of(&["al@ex.com", "bo@ex.com"], &[COURIER, DOVECOT]);
    plesk.write("etc/dovecot/dovecot.conf", "protocols = pop3\n");
    let place = plesk.path("listing");
    let output = ["--format", "UID%u-%v", "-o", place.to_str().unwrap()];
    let both = "both servers have left files in the maildrops";
    let ran = plesk.capture(&output);
    ran.is_refused(both);
    for said in [
        "seen: /etc/dovecot/dovecot.conf",
        "seen: maildrops with files of Courier: 2",
        "seen: maildrops with files of Dovecot: 2",
        "\"capture courier --layout plesk\" or \"capture dovecot --format FORMAT --layout plesk\"",
    ] {
        ran.says(said);
    }
    assert!(!place.exists());
    // No more is known if both start with the machine, or both are installed.
    plesk.packages(&[
        ("psa-courier-imap", "install ok installed"),
        ("plesk-dovecot", "install ok installed"),
    ]);
    plesk.capture(&output).is_refused(both);
    plesk.enable("dovecot.service");
    plesk.enable("courier-pop3d.service");
    plesk.capture(&output).is_refused(both);
    // Each maildrop has one kind of state, and the machine has both kinds.
    let plesk = Plesk::of(&["al@ex.com", "bo@ex.com"], &[COURIER]);
    let bo = plesk.path("var/qmail/mailnames/ex.com/bo/Maildir");
    fs::rename(bo.join(COURIER.0), bo.join("dovecot.index.log")).unwrap();
    plesk.capture(&[]).is_refused(both);
}

#[test]
fn state_files_of_one_server_are_enough_and_said_to_be_all_there_is() {
    for (state, format, uidl) in
        [(COURIER, None, "UID7-17"), (DOVECOT, Some("UID%u-%v"), "UID1-23")]
    {
        let plesk = Plesk::of(&["al@ex.com"], &[state]);
        let format: Vec<&str> = format.iter().flat_map(|format| ["--format", format]).collect();
        let ran = plesk.capture(&format);
        assert_eq!(ran.uidl(), uidl);
        ran.says("as far as state files can tell");
    }
    Plesk::of(&["al@ex.com"], &[]).capture(&[]).is_refused("there is no sign of either server");
}

#[test]
fn a_state_that_is_older_than_the_mail_by_more_than_a_month_is_nobodys_word() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER]);
    let maildir = plesk.path("var/qmail/mailnames/ex.com/al/Maildir");
    fs::write(maildir.join("new/1714990000.b"), message("b")).unwrap();
    let month = SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_990_000 - 31 * 24 * 60 * 60);
    let state = fs::File::options().write(true).open(maildir.join(COURIER.0)).unwrap();
    state.set_modified(month + Duration::from_secs(2 * 24 * 60 * 60)).unwrap();
    assert_eq!(plesk.capture(&[]).uidl(), "UID7-17");
    state.set_modified(month).unwrap();
    plesk.capture(&[]).is_refused("another server may have answered since");
    plesk.enable("courier-pop3d.service");
    assert_eq!(plesk.capture(&[]).uidl(), "UID7-17");
}

#[test]
fn mail_is_looked_for_where_plesks_own_configuration_says() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER]);
    fs::create_dir_all(plesk.path("srv")).unwrap();
    fs::rename(plesk.path("var/qmail/mailnames"), plesk.path("srv/mail")).unwrap();
    plesk.write(
        "etc/psa/psa.conf",
        "# Plesk\nHTTPD_VHOSTS_D /srv/www\nPLESK_MAILNAMES_D /srv/mail\n",
    );
    assert_eq!(plesk.capture(&[]).uidl(), "UID7-17");
}

#[test]
fn a_copys_format_is_what_doveconf_makes_of_its_own_files_and_of_no_others() {
    // It is this machine's doveconf that is asked.
    if Unfit::ThisMachine.is_asked() || Host::dovecot(Line::V23).is_none() {
        return;
    }
    let plesk = Plesk::of(&["al@ex.com"], &[DOVECOT]);
    plesk.enable("dovecot.service");
    plesk.write("etc/dovecot/dovecot.conf", "protocols = pop3\n!include conf.d/*.conf\n");
    let conf = "protocol pop3 {\n  pop3_uidl_format = UID%u-%v\n}\n";
    plesk.write("etc/dovecot/conf.d/90-plesk-pop3.conf", conf);
    let ran = plesk.capture(&[]);
    assert_eq!(ran.uidl(), "UID1-23");
    ran.says("pop3_uidl_format: UID%u-%v");

    // This machine's files may lie at the same paths.
    let ask = "give --format what \"doveconf -f protocol=pop3 -h pop3_uidl_format\" prints";
    for include in ["!include /etc/dovecot/conf.d/*.conf", "  !include_try ../other/x.conf"] {
        plesk.write("etc/dovecot/conf.d/local.conf", &format!("{include}\n"));
        let ran = plesk.capture(&[]);
        ran.is_refused(ask);
        ran.says("conf.d/local.conf: includes a file by its whole path");
    }
    fs::remove_file(plesk.path("etc/dovecot/conf.d/local.conf")).unwrap();
    symlink("/etc/dovecot/local.conf", plesk.path("etc/dovecot/conf.d/local.conf")).unwrap();
    plesk.capture(&[]).is_refused("conf.d/local.conf: a link in a copy may lead to this machine");
    assert_eq!(plesk.capture(&["--format", "%v.%u"]).uidl(), "23.1");
    fs::remove_dir_all(plesk.path("etc/dovecot")).unwrap();
    plesk.capture(&[]).is_refused(ask);
}

#[test]
fn a_format_is_no_answer_where_courier_is_the_one() {
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    plesk.enable("courier-pop3d.service");
    plesk
        .capture(&["--format", "UID%u-%v"])
        .is_refused("--format is Dovecot's, and Courier answers");
}

#[test]
fn short_names_are_taken_by_those_who_share_them_with_nobody() {
    let plesk = Plesk::of(&["al@a.example", "al@b.example", "bo@b.example"], &[COURIER]);
    plesk.write("etc/courier-imap/pop3d", "MAXDAEMONS=40\nSHORTNAMES=1\n");
    let users = |ran: &Ran| -> Vec<String> { ran.blocks().into_iter().map(|b| b.user).collect() };
    let ran = plesk.capture(&[]);
    assert_eq!(users(&ran), ["al@a.example", "al@b.example", "bo@b.example"]);
    assert_eq!(ran.status, 0);
    ran.says("clients may log in here without their domain (SHORTNAMES=1)");
    let ran = plesk.capture(&["--short-names"]);
    assert_eq!(users(&ran), ["al@a.example", "al@b.example", "bo"]);
    // The operator has to find out whose clients log in as "al".
    assert_eq!(ran.status, 1);
    ran.says("al may be any of al@a.example, al@b.example: they keep their full names");
}

#[test]
fn a_running_dovecot_outweighs_all_that_is_installed_and_is_asked_for_its_format() {
    if Unfit::ThisMachine.is_asked() {
        return;
    }
    let Some(host) = Host::dovecot(Line::V23) else { return };
    let dovecot = Dovecot::start(&host, Config::default().uidl_format("UID%u-%v")).unwrap();
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    plesk.enable("courier-pop3d.service");
    plesk.packages(&[("psa-courier-imap", "install ok installed")]);
    let conf = fs::read_to_string(dovecot.conf()).unwrap();
    plesk.write("etc/dovecot/dovecot.conf", &conf);
    let port = dovecot.pop3().port().to_string();
    let Some(ran) = plesk.capture_live(&["--port", &port]) else { return };
    assert_eq!(ran.uidl(), "UID1-23");
    // In a chroot the system names the program by the path that leads there from outside.
    ran.says(&format!("listens: on port {port}: /"));
    ran.says("/usr/sbin/dovecot\n");
    ran.says("Dovecot answers POP3: it alone listens");
    let with = |format| plesk.capture_live(&["--port", &port, "--format", format]).unwrap();
    assert_eq!(with("UID%u-%v").uidl(), "UID1-23");
    let ran = with("%v-%u");
    ran.is_refused("--format is %v-%u, and doveconf says UID%u-%v");
}

/// A process of a test, which ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_running_courier_outweighs_an_enabled_dovecot() {
    let Some(host) = Host::courier() else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut tcpd = host.command("/usr/sbin/couriertcpd");
    tcpd.args(["-address=127.0.0.1", &port, "/bin/true"]).stdin(Stdio::null());
    let mut tcpd = Running(tcpd.stderr(Stdio::null()).spawn().unwrap());
    let asked = Instant::now();
    while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(tcpd.0.try_wait().unwrap().is_none() && asked.elapsed().as_secs() < 60);
        std::thread::sleep(Duration::from_millis(10));
    }
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER, DOVECOT]);
    plesk.enable("dovecot.service");
    let Some(ran) = plesk.capture_live(&["--port", &port]) else { return };
    assert_eq!(ran.uidl(), "UID7-17");
    ran.says("/usr/sbin/couriertcpd");
    ran.says("Courier answers POP3: it alone listens");
}

#[test]
fn a_stranger_on_the_port_is_no_server_of_plesks_whatever_is_enabled() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let plesk = Plesk::of(&["al@ex.com"], &[COURIER]);
    // This is a unit of the admin's own, as this machine has none of Courier's.
    let units = plesk.path("etc/systemd/system");
    fs::create_dir_all(units.join("multi-user.target.wants")).unwrap();
    fs::write(units.join("courier-pop3d.service"), "[Service]\n").unwrap();
    let link = units.join("multi-user.target.wants/courier-pop3d.service");
    symlink("../courier-pop3d.service", link).unwrap();
    let Some(ran) = plesk.capture_live(&["--port", &port]) else { return };
    ran.is_refused("what listens is not Courier alone, nor Dovecot alone");
    ran.says("behind a proxy name the ports of the server itself with --port");
    let own = std::env::current_exe().unwrap();
    ran.says(own.file_name().and_then(OsStr::to_str).unwrap());
    // POP3 is stopped for the last capture: then the services that start with the machine tell.
    let ran = plesk.capture_live(&["--port", "1"]).unwrap();
    assert_eq!(ran.uidl(), "UID7-17");
    ran.says("seen: nobody listens on port 1\n");
}

#[test]
fn a_short_name_becomes_the_full_one_as_the_documentation_says() {
    if Unfit::Spelling.is_asked() {
        return;
    }
    let Some(host) = Host::dovecot(Line::V23) else { return };
    let mut dovecot = Dovecot::start(&host, Config::default()).unwrap();
    let docs = include_str!("../../docs/capture-plesk.md");
    let passdb = docs.lines().skip_while(|line| line.trim() != "passdb {").take(4);
    let place = dovecot.dir().join("short-names");
    let passdb: String = passdb.map(|line| format!("{}\n", line.trim())).collect();
    let line = docs.split('`').find(|code| code.starts_with("alice:{PLAIN}")).unwrap();
    fs::write(&place, format!("{line}\n")).unwrap();
    let extra = passdb.replace("/etc/dovecot/short-names", place.to_str().unwrap());
    assert!(extra.contains("short-names") && extra.ends_with("}\n"), "{extra}");
    dovecot.restart_with(&extra);
    let maildir = Maildir::create(dovecot.mail("alice@example.com"));
    maildir.deliver(&Message::plain(1), Naming::Dovecot, 1);
    let mut session = Pop3::connect(dovecot.pop3()).unwrap();
    session.command("USER alice").unwrap();
    session.command("PASS secret").unwrap();
    assert_eq!(session.uidl().unwrap(), dovecot.uidl("alice@example.com"));
}

#[test]
fn the_manual_names_every_option_of_plesk_and_of_a_proof() {
    let mut help = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
    help.args(["capture", "plesk", "--help"]);
    let help = String::from_utf8(Ran::of(help).stdout).unwrap();
    let manual = include_str!("../../docs/uidl-keep.1").replace("\\-", "-");
    let is_of_name = |char: char| char.is_ascii_lowercase() || char == '-';
    let mut options = Vec::new();
    for line in help.lines().map(str::trim_start).filter(|line| line.starts_with("--")) {
        let option = &line[..line.find(|char| !is_of_name(char)).unwrap_or(line.len())];
        if option.starts_with("--prove")
            || ["--port", "--format", "--short-names"].contains(&option)
        {
            assert!(manual.contains(option), "{option} is not in docs/uidl-keep.1");
            options.push(option);
        }
    }
    assert_eq!(options.len(), 12, "{options:?}");
}
