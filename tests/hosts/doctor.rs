//! `doctor` beside a real Dovecot of either line: what it finds is so, and on a server that is
//! ready it finds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::dovecot::Config;
use crate::support::host::{Host, Line, unix_mode};
use crate::support::maildir::make_owned;
use crate::support::scenario::{Listing, Scenario, USER};
use crate::support::{OWNER, helper};

/// What was found, and how the helper ended.
struct Found {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Found {
    fn of(output: Output) -> Self {
        let text = |octets| String::from_utf8(octets).expect("text");
        Self {
            status: output.status.code().expect("not killed"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn objects(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// All that is not fine.
    fn bad(&self) -> Vec<String> {
        let findings = self.objects();
        let bad = findings.iter().skip(1).filter(|finding| finding["level"] != "fine");
        bad.map(Value::to_string).collect()
    }

    /// Insists that this was found about something.
    #[track_caller]
    fn has(&self, about: &str, level: &str, words: &[&str]) {
        let findings = self.objects();
        let ours = findings.iter().filter(|it| it["about"] == about && it["level"] == level);
        let said: Vec<String> = ours.map(Value::to_string).collect();
        let has = said.iter().any(|said| words.iter().all(|word| said.contains(word)));
        assert!(has, "no {level} of {about} with {words:?}: {}{}", self.stdout, self.stderr);
        let is_bad = ["trouble", "could_not_tell"].contains(&level);
        assert!(!is_bad || self.status == 2, "{}", self.stdout);
    }
}

/// The host of a Dovecot, with /proc, through which the helper runs itself as others.
fn host(line: Line) -> Host {
    let host = Host::dovecot(line).expect("there a moment ago");
    match host.outside("/proc/self").exists() {
        true => host,
        false => host.with(Path::new("/proc"), "/proc"),
    }
}

/// Runs doctor in the place of the Dovecot.
fn run_in(host: &Host, server: &Scenario, words: &[&str]) -> Found {
    let beside = server.dovecot.dir().join("uidl-keep");
    if !beside.exists() {
        crate::shared::program::copy_helper(&beside);
    }
    let inside = |path: &Path| server.dovecot.inside(path);
    let mut command = host.command(inside(&beside).to_str().expect("ASCII"));
    command.arg("doctor").args(words).arg("--site").arg(inside(&server.dovecot.site()));
    let conf = inside(&server.dovecot.conf());
    command.arg(format!("--doveadm-args=-c {}", conf.display()));
    Found::of(command.output().expect("the helper"))
}

/// Does so where the site lies at its place, as it does for the Dovecot.
fn run(server: &Scenario, line: Line, words: &[&str]) -> Found {
    run_in(&host(line).with(&server.dovecot.site(), "/var/lib/uidl-keep"), server, words)
}

fn doctor(server: &Scenario, line: Line) -> Found {
    run(server, line, &["--json"])
}

/// Lines of dovecot.conf by which doveadm does not load the plugin.
fn pop3_alone(line: Line) -> String {
    let plugins = match line {
        Line::V23 => "mail_plugins =",
        Line::V24 => "mail_plugins {\n    uidl_keep = no\n  }",
    };
    format!("protocol doveadm {{\n  {plugins}\n}}\n")
}

/// A server of three messages that were captured, and are there. Its user database knows everybody,
/// and lists nobody.
fn migrated(line: Line, config: Config) -> Option<Scenario> {
    let config = Config { extra: format!("{}{}", pop3_alone(line), config.extra), ..config };
    Scenario::migrated_on(line, 3, config.with_plugin())
}

/// Has Dovecot list the users of a file, each with the home of another or with his own, before the
/// database that knows everybody.
fn list_users(server: &mut Scenario, line: Line, users: &[(&str, &str)]) {
    let file = server.dovecot.dir().join("users");
    let entry = |(user, of): &(&str, &str)| {
        let home = server.dovecot.inside(&server.dovecot.home(of));
        format!("{user}::{OWNER}:{OWNER}::{}::\n", home.display())
    };
    let is_read = file.exists();
    fs::write(&file, users.iter().map(entry).collect::<String>()).unwrap();
    if is_read {
        // Dovecot looks once in each second of its clock whether the file has changed.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        return;
    }
    let place = server.dovecot.inside(&file);
    let first = match line {
        Line::V23 => format!("driver = passwd-file\n  args = {}", place.display()),
        Line::V24 => format!("passwd_file_path = {}", place.display()),
    };
    let name = if line == Line::V24 { " passwd-file" } else { "" };
    let first = format!("userdb{name} {{\n  {first}\n}}\n");
    server.dovecot.reconfigure(|config| config.first = first);
}

fn a_server_that_is_ready_is_fine(line: Line) {
    for config in [Config::default(), Config::default().chroot()] {
        let is_chroot = config.chroot;
        let Some(mut server) = migrated(line, config) else { return };
        if !is_chroot {
            list_users(&mut server, line, &[(USER, USER)]);
        }
        let found = doctor(&server, line);
        if is_chroot {
            assert_eq!((found.status, found.bad().len()), (1, 1), "{}", found.stdout);
            found.has("chroot", "fine", &["users may be shut up"]);
            found.has("access", "fine", &["opened for 1 of 1 users, by 1 accounts"]);
            continue;
        }
        assert_eq!((found.status, found.bad()), (0, Vec::new()), "{}", found.stderr);
        let stands = found.objects()[0]["stands"].as_str().unwrap().to_owned();
        let (version, abi) = match line {
            Line::V23 => ("Dovecot 2.3.", "(2.3.ABIv"),
            Line::V24 => ("Dovecot 2.4.", "(2.4.ABIv"),
        };
        assert!(stands.starts_with(version) && stands.contains(abi), "{stands}");
        let rest = "1 domains, 1 migrated, 0 findings";
        assert!(stands.contains("), pop3 loads uidl_keep, site /"), "{stands}");
        assert!(stands.ends_with(rest), "{stands}");
        found.has("chroot", "fine", &["no user is shut up"]);
        found.has("access", "fine", &["opened for 1 of 1 users, by 1 accounts"]);
        found.has("mounts", "fine", &["the running Dovecot finds"]);
        found.has("room", "fine", &["has room for all ledgers"]);
        let quiet = run(&server, line, &["--cron"]);
        assert_eq!((quiet.status, &*quiet.stdout, &*quiet.stderr), (0, "", ""));
        // It has listed for nobody.
        assert!(!server.ledger().exists());
        server.serves(3, "as foretold");
        assert_eq!(doctor(&server, line).bad(), Vec::<String>::new(), "after a login");
    }
}

#[test]
fn a_2_3_that_is_ready_is_fine() {
    a_server_that_is_ready_is_fine(Line::V23);
}

#[test]
fn a_2_4_that_is_ready_is_fine() {
    a_server_that_is_ready_is_fine(Line::V24);
}

fn files_are_opened_by_their_reader(line: Line) {
    let Some(server) = migrated(line, Config::default()) else { return };
    let mode = |path: PathBuf, mode: u32| fs::set_permissions(path, unix_mode(mode)).unwrap();
    let (roster, index) = (server.roster(), server.index());
    for path in [&roster, &index] {
        mode(path.clone(), 0o600);
        let name = path.file_name().unwrap().to_str().unwrap();
        doctor(&server, line).has("access", "trouble", &[USER, name, "Permission denied"]);
        server.refuses("a mode", &[name, "Permission denied"]);
        mode(path.clone(), 0o640);
    }
    // Others may write it, which root does not mind and the plugin does.
    mode(roster.clone(), 0o660);
    doctor(&server, line).has("site", "trouble", &["example.com.roster", "lets group or others"]);
    mode(roster, 0o640);
    let domain = server.dovecot.site().join("domain");
    mode(domain.clone(), 0o700);
    doctor(&server, line).has("access", "trouble", &[USER, "Permission denied"]);
    mode(domain.clone(), 0o777);
    doctor(&server, line).has("site", "notice", &["mode 0777"]);
    mode(domain, 0o711);

    // A home in which its owner makes nothing has no place for a ledger.
    let mail = server.dovecot.mail(USER);
    std::os::unix::fs::chown(&mail, Some(0), Some(0)).unwrap();
    mode(mail.clone(), 0o755);
    doctor(&server, line).has("ledger", "notice", &[USER, "Permission denied"]);
    std::os::unix::fs::chown(&mail, Some(OWNER), Some(OWNER)).unwrap();
    assert_eq!(doctor(&server, line).bad().len(), 1, "second names alone");
    server.serves(3, "all is mended");
}

/// Each user is tried with the account that is his own, whoever else is asked of with him.
fn each_user_is_tried_with_his_own_account(line: Line) {
    let Some(mut server) = migrated(line, Config::default()) else { return };
    let other = "bob@example.org";
    let listing = "uidl-keep-listing 1\nmaildrop bob@example.org\nstate empty\n.\n";
    let alice = Listing::of_files(&server.maildir().files()).text();
    server.build(&format!("{alice}{listing}"));
    let users = server.dovecot.dir().join("users");
    let entry = |user: &str, id: u32| {
        let home = server.dovecot.inside(&server.dovecot.home(user));
        format!("{user}::{id}:{id}::{}::\n", home.display())
    };
    let own = OWNER + 1;
    let entries = [entry(USER, OWNER), entry(other, own)].concat();
    list_users(&mut server, line, &[(USER, USER)]);
    fs::write(users, entries).unwrap();
    let files = |name: &str| {
        ["idx", "roster"].map(|end| server.dovecot.site().join(format!("domain/{name}.{end}")))
    };
    for (name, gid) in [("example.com", OWNER), ("example.org", own)] {
        for file in files(name) {
            std::os::unix::fs::chown(&file, Some(0), Some(gid)).unwrap();
            fs::set_permissions(&file, unix_mode(0o640)).unwrap();
        }
    }
    for dir in ["", "domain", "user"] {
        fs::set_permissions(server.dovecot.site().join(dir), unix_mode(0o711)).unwrap();
    }
    let mail = server.dovecot.mail(other);
    make_owned(&mail);
    std::os::unix::fs::chown(&mail, Some(own), Some(own)).unwrap();
    let found = doctor(&server, line);
    found.has("access", "fine", &["opened for 2 of 2 users, by 2 accounts"]);
    // With the group of the first, the second reads nothing.
    let [_, roster] = files("example.org");
    std::os::unix::fs::chown(&roster, Some(0), Some(OWNER)).unwrap();
    let words = ["1 of 2 users", &format!("{other} (uid {own}, gid {own})"), "Permission denied"];
    doctor(&server, line).has("access", "trouble", &words);
}

#[test]
fn each_user_of_2_3_is_tried_with_his_own_account() {
    each_user_is_tried_with_his_own_account(Line::V23);
}

#[test]
fn each_user_of_2_4_is_tried_with_his_own_account() {
    each_user_is_tried_with_his_own_account(Line::V24);
}

#[test]
fn files_are_opened_by_their_reader_on_2_3() {
    files_are_opened_by_their_reader(Line::V23);
}

#[test]
fn files_are_opened_by_their_reader_on_2_4() {
    files_are_opened_by_their_reader(Line::V24);
}

fn a_server_that_no_longer_loads_the_plugin_is_trouble_until_all_is_baked(line: Line) {
    let Some(mut server) = migrated(line, Config::default()) else { return };
    server.take_the_plugin_out();
    let found = doctor(&server, line);
    let words = ["POP3 does not load uidl_keep", "1 of 1 maildrops depend on it", USER];
    found.has("mail_plugins", "trouble", &words);
    let stands = found.objects()[0]["stands"].as_str().unwrap().to_owned();
    assert!(stands.contains("pop3 does not load uidl_keep"), "{stands}");
    let cron = run(&server, line, &["--cron"]);
    assert_eq!(cron.status, 2, "{}", cron.stdout);
    assert!(cron.stdout.contains("1 of 1 maildrops depend on it"), "{}", cron.stdout);

    // Its first listing bakes it, and then it needs no plugin.
    let Some(mut server) = migrated(line, Config::default()) else { return };
    server.serves(3, "the first listing");
    server.take_the_plugin_out();
    doctor(&server, line).has("mail_plugins", "fine", &["and need not"]);
    let cron = run(&server, line, &["--cron"]);
    assert_eq!((cron.status, &*cron.stdout, &*cron.stderr), (0, "", ""));
    // Whoever is held is held by the plugin alone.
    server.gate(&["hold", "--no-check"]);
    doctor(&server, line).has("mail_plugins", "trouble", &["Whoever of them is held is served"]);
}

#[test]
fn a_2_3_that_no_longer_loads_the_plugin_is_trouble_until_all_is_baked() {
    a_server_that_no_longer_loads_the_plugin_is_trouble_until_all_is_baked(Line::V23);
}

#[test]
fn a_2_4_that_no_longer_loads_the_plugin_is_trouble_until_all_is_baked() {
    a_server_that_no_longer_loads_the_plugin_is_trouble_until_all_is_baked(Line::V24);
}

fn a_plugin_that_does_not_fit_is_trouble(line: Line) {
    let Some(mut server) = migrated(line, Config::default()) else { return };
    let other = match line {
        Line::V23 => Line::V24,
        Line::V24 => Line::V23,
    };
    let Some(plugin) = helper::plugin(other) else { return };
    let module = server.dovecot.dir().join("modules/lib95_uidl_keep_plugin.so");
    let away = server.dovecot.dir().join("away.so");
    fs::rename(&module, &away).unwrap();
    doctor(&server, line).has(
        "plugin_file",
        "trouble",
        &["no lib95_uidl_keep_plugin.so there", "refuses everybody"],
    );
    fs::copy(&plugin, &module).unwrap();
    let found = doctor(&server, line);
    found.has(
        "plugin_file",
        "trouble",
        &["it is for Dovecot 2.", "and this is 2.", "plugin status"],
    );
    let stands = found.objects()[0]["stands"].as_str().unwrap().to_owned();
    assert!(stands.contains("pop3 is to load uidl_keep and cannot"), "{stands}");
    // So it is: everybody is refused.
    let heard = server.dovecot.login("bob@example.net").and_then(|mut session| session.uidl());
    assert!(heard.is_err(), "{heard:?}");
    // There is one too many.
    fs::rename(&away, module.with_file_name("lib20_uidl_keep_plugin.so")).unwrap();
    doctor(&server, line).has("plugin_file", "trouble", &["loads neither of two"]);
    server.take_the_plugin_out();
}

#[test]
fn a_plugin_that_does_not_fit_2_3_is_trouble() {
    a_plugin_that_does_not_fit_is_trouble(Line::V23);
}

#[test]
fn a_plugin_that_does_not_fit_2_4_is_trouble() {
    a_plugin_that_does_not_fit_is_trouble(Line::V24);
}

fn settings_of_dovecot_are_read(line: Line) {
    let extra = "pop3_uidl_duplicates = rename\npop3_reuse_xuidl = yes\n\
                 maildir_very_dirty_syncs = yes\nservice pop3 {\n  vsz_limit = 30 M\n}\n";
    let Some(mut server) = migrated(line, Config { extra: extra.into(), ..Config::default() })
    else {
        return;
    };
    let many = Listing::of_files(&server.maildir().files()).text().replace("\n.\n", "\n");
    let more = (10..20_010).map(|n| format!("{n} more-{n} file=more.{n}\n")).collect::<String>();
    server.build(&format!("{many}{more}.\n"));
    let found = doctor(&server, line);
    found.has("pop3_uidl_duplicates", "notice", &["downloaded again"]);
    found.has("pop3_reuse_xuidl", "notice", &["X-UIDL"]);
    found.has("maildir_very_dirty_syncs", "notice", &["cur/"]);
    found.has("vsz_limit", "trouble", &["is 30 MB", "20003 messages", "the login fails"]);
    // doveadm loads the plugin, too.
    server.dovecot.restart_with(match line {
        Line::V23 => "protocol imap {\n  mail_plugins = $mail_plugins uidl_keep\n}\n",
        Line::V24 => "protocol imap {\n  mail_plugins {\n    uidl_keep = yes\n  }\n}\n",
    });
    let found = doctor(&server, line);
    found.has("mail_plugins", "notice", &["imap", "load uidl_keep, too"]);
    found.has("vsz_limit", "fine", &["256 MB"]);
}

#[test]
fn settings_of_a_dovecot_2_3_are_read() {
    settings_of_dovecot_are_read(Line::V23);
}

#[test]
fn settings_of_a_dovecot_2_4_are_read() {
    settings_of_dovecot_are_read(Line::V24);
}

#[test]
fn a_format_in_the_other_lines_spelling_is_told_and_how_to_spell_it() {
    let (old, new) = ("%08Xu%08Xv", "%{uid | hex(8)}%{uidvalidity | hex(8)}");
    for (line, right, wrong) in [(Line::V23, old, new), (Line::V24, new, old)] {
        let Some(mut server) = migrated(line, Config::default()) else { return };
        server.dovecot.pause();
        let conf = fs::read_to_string(server.dovecot.conf()).unwrap();
        fs::write(server.dovecot.conf(), format!("{conf}pop3_uidl_format = {wrong}\n")).unwrap();
        let found = doctor(&server, line);
        found.has("dovecot", "trouble", &["pop3_uidl_format", "does not start"]);
        let write = format!("write: pop3_uidl_format = {right}");
        found.has("pop3_uidl_format", "trouble", &["does not start", &write]);
        found.has("dovecot", "could_not_tell", &["Dovecot does not run"]);
        // With another fault it says nothing at all.
        fs::write(server.dovecot.conf(), format!("{conf}no_such_setting = 1\n")).unwrap();
        let found = doctor(&server, line);
        found.has("dovecot", "trouble", &["no_such_setting", "does not start"]);
        assert_eq!(found.bad().len(), 1, "{}", found.stdout);
        fs::write(server.dovecot.conf(), conf).unwrap();
    }
}

fn names_are_those_of_the_user_database(line: Line) {
    let Some(mut server) = migrated(line, Config::default()) else { return };
    doctor(&server, line).has("second_names", "notice", &["the user database lists nobody"]);
    list_users(&mut server, line, &[(USER, USER), ("alice@example.net", "bob")]);
    assert_eq!(doctor(&server, line).bad(), Vec::<String>::new());

    // It is another name of hers.
    list_users(&mut server, line, &[(USER, USER), ("alice@example.net", USER)]);
    let words = ["alice@example.net reads that of alice@example.com"];
    doctor(&server, line).has("second_names", "trouble", &words);
    // It is so: she is told what no client of hers knows.
    let told = server.dovecot.uidl("alice@example.net");
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|uidl| uidl.len() == 16), "{told:?}");
}

#[test]
fn names_are_those_of_the_user_database_of_2_3() {
    names_are_those_of_the_user_database(Line::V23);
}

#[test]
fn names_are_those_of_the_user_database_of_2_4() {
    names_are_those_of_the_user_database(Line::V24);
}

/// Where only the doctor sees a directory that was mounted after Dovecot had started.
#[test]
fn a_site_that_the_running_dovecot_does_not_see_is_trouble() {
    let line = Line::V23;
    let Some(server) = migrated(line, Config::default()) else { return };
    let other = server.dovecot.dir().join("other");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(server.dovecot.site()).arg(&other).status();
    assert!(copied.expect("cp").success());
    let place = server.dovecot.inside(&server.dovecot.site());
    let host = host(line).with(&other, place.to_str().expect("ASCII"));
    let found = run_in(&host, &server, &["--json"]);
    found.has("mounts", "trouble", &["is another directory"]);
}
