//! The one place of the site, and its settings, which are the same on both release lines.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::PathBuf;

use crate::support::dovecot::{Config, Dovecot};
use crate::support::host::{Host, Line, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Refused;
use crate::support::scenario::{LATER, Listing, Scenario, USER, uidl_of};
use crate::support::traced::{can_trace, lists_under_strace};

const STRANGER: &str = "bob@example.com";

/// A server whose old order is not that of the UIDs, and a user beside who was never migrated.
fn turned(line: Line, config: Config) -> Option<Scenario> {
    let mut server = Scenario::begin_with(line, config.with_plugin())?;
    (1..=5).for_each(|_| server.deliver());
    let mut files = server.maildir().files();
    files.reverse();
    server.capture(&Listing::of_files(&files));
    let maildir = Maildir::create(server.dovecot.mail(STRANGER));
    maildir.deliver(&Message::plain(1), Naming::Qmail, 1);
    Some(server)
}

/// Writes settings as an operator does: beside, and renamed.
fn set(server: &Scenario, lines: &str) -> PathBuf {
    let (path, beside) = (server.dovecot.site().join("settings"), server.dovecot.dir().join("new"));
    fs::write(&beside, format!("uidl-keep-settings 1\n{lines}")).unwrap();
    fs::set_permissions(&beside, unix_mode(0o644)).unwrap();
    fs::rename(beside, &path).unwrap();
    path
}

/// The line that a user is told instead of his listing.
fn refusal_of(dovecot: &Dovecot, user: &str) -> String {
    let mut session = dovecot.login(user).expect("+OK comes before the mailbox is opened");
    let Err(Refused(line)) = session.uidl() else { panic!("{user} is served") };
    line
}

fn is_own(uidls: &[String]) -> bool {
    uidls.len() == 1 && uidls[0].len() == 16
}

#[test]
fn settings_count_at_the_next_login_of_their_domain_and_of_no_other() {
    for line in [Line::V23, Line::V24] {
        for config in [Config::default(), Config::default().chroot()] {
            let way = format!("{line:?}, chroot: {}", config.chroot);
            let Some(server) = turned(line, config) else { continue };
            let (in_order, by_uid) = (uidl_of(1..=5), uidl_of((1..=5).rev()));
            set(&server, "bake no\n@example.net order no\n");
            assert_eq!(server.dovecot.uidl(USER), in_order, "{way}");
            let list = server.dovecot.mail(USER).join("dovecot-uidlist");
            assert!(!fs::read_to_string(&list).unwrap().contains(" P"), "{way}: not baked");
            set(&server, "bake no\n@example.com order no\n");
            assert_eq!(server.dovecot.uidl(USER), by_uid, "{way}");
            // Nothing of it is remembered.
            set(&server, "@example.com order yes\norder no\n");
            assert_eq!(server.dovecot.uidl(USER), in_order, "{way}");
            assert!(fs::read_to_string(&list).unwrap().contains(" P"), "{way}: baked now");
            assert_eq!(server.complaints(), [""; 0], "{way}");
            server.ends_well();
        }
    }
}

#[test]
fn settings_that_nobody_understands_refuse_who_was_migrated_and_nobody_else() {
    for line in [Line::V23, Line::V24] {
        for config in [Config::default(), Config::default().chroot()] {
            let Some(mut server) = turned(line, config) else { continue };
            let own = server.dovecot.uidl(STRANGER);
            assert!(is_own(&own), "{own:?}");
            let path = set(&server, "match file uid\n");
            let words = ["/var/lib/uidl-keep/settings: line 2: \"uid\" is no key", "; correct it"];
            server.refuses("an unknown key", &words);
            assert_eq!(server.dovecot.uidl(STRANGER), own);
            let asked = server.dovecot.doveadm_with_us([
                "fetch",
                "-u",
                USER,
                "pop3.uidl",
                "mailbox",
                "INBOX",
                "all",
            ]);
            assert_eq!(asked.status.code(), Some(75), "{asked:?}");
            set(&server, "order no");
            server.refuses("cut short", &["settings: line 2: the line has no end"]);
            set(&server, "");
            fs::set_permissions(&path, unix_mode(0o666)).unwrap();
            server.refuses("anybody may write it", &["settings: mode 0666 lets group or others"]);
            fs::set_permissions(&path, unix_mode(0o600)).unwrap();
            server.refuses("nobody may read it", &["settings: Permission denied"]);
            fs::remove_file(&path).unwrap();
            assert_eq!(server.dovecot.uidl(USER), uidl_of(1..=5));
            assert_eq!(server.dovecot.uidl(STRANGER), own);
            server.deliver();
            server.ends_well();
        }
    }
}

/// A match that the settings name is that of the helper, too.
#[test]
fn the_helper_goes_by_the_settings_of_the_site() {
    for line in [Line::V23, Line::V24] {
        let Some(server) = turned(line, Config::default()) else { continue };
        set(&server, "@example.com match header origin\n");
        let run = |words: &[&str]| {
            let mut helper = server.dovecot.helper();
            let conf = server.dovecot.inside(&server.dovecot.conf());
            helper.args(words);
            if !["check", "settings"].contains(&words[0]) {
                helper.arg("--doveadm-args").arg(format!("-c {}", conf.display()));
            }
            let ran = helper.output().unwrap();
            let text = |octets| String::from_utf8(octets).unwrap();
            (ran.status.code().unwrap(), text(ran.stdout) + &text(ran.stderr))
        };
        // They were captured by file alone.
        let (status, said) = run(&["forecast", "--only", USER]);
        assert!(status == 1 && said.contains("0 of 5 kept"), "{line:?}: {said}");
        let (status, said) = run(&["forecast", "--only", USER, "--match", "file"]);
        assert!(status == 0 && said.contains("5 of 5 kept"), "{line:?}: {said}");
        assert_eq!(
            run(&["settings", USER]),
            (0, "match header origin\nbake yes\norder yes\n".into())
        );
        set(&server, "@example.com bake no\n");
        let (status, said) = run(&["bake", USER]);
        assert!(
            status == 1 && said.contains("/var/lib/uidl-keep/settings says `bake no`"),
            "{said}"
        );
        let list = server.dovecot.mail(USER).join("dovecot-uidlist");
        assert!(!list.exists() || !fs::read_to_string(&list).unwrap().contains(" P"), "{line:?}");

        // Who does not want the old order is rehearsed, proven and baked without it.
        set(&server, "order no\n");
        let (status, said) = run(&["bake", USER]);
        assert_eq!(status, 0, "{line:?}: {said}");
        let text = fs::read_to_string(&list).unwrap();
        assert_eq!((text.matches(" PUID").count(), text.contains(" O")), (5, false), "{text}");
        let (status, said) = run(&["hold", USER]);
        assert_eq!(status, 0, "{line:?}: {said}");
        let (status, said) = run(&["rehearse", USER]);
        assert_eq!(status, 0, "{line:?}: {said}");
        let (status, said) = run(&["release", USER]);
        assert_eq!(status, 0, "{line:?}: {said}");
        crate::support::helper::give_to_reader(&server.dovecot.site());
        assert_eq!(server.dovecot.uidl(USER), uidl_of((1..=5).rev()));
        let (status, said) = run(&["retire", "--check"]);
        assert_eq!(status, 0, "{line:?}: {said}");

        set(&server, "order perhaps\n");
        for words in [&["check", "/var/lib/uidl-keep"][..], &["forecast"], &["bake", USER]] {
            let (status, said) = run(words);
            assert!(status == 2 && said.contains("order takes yes or no"), "{words:?}: {said}");
        }
    }
}

/// The settings of earlier versions are not looked past: a site may lie where one says, and a key
/// may be one that one names.
#[test]
fn a_setting_of_an_earlier_version_refuses_everybody_and_says_what_stands_in_its_place() {
    let Some(mut server) = turned(Line::V23, Config::default()) else { return };
    for (name, value, instead) in [
        (
            "uidl_keep_dir",
            "/srv/site",
            "the site is /var/lib/uidl-keep now: make that a link to it",
        ),
        ("uidl_keep_match", "file", "its place is /var/lib/uidl-keep/settings, as `match ...`"),
        ("uidl_keep_bake", "no", "its place is /var/lib/uidl-keep/settings, as `bake ...`"),
        ("uidl_keep_order", "yes", "its place is /var/lib/uidl-keep/settings, as `order ...`"),
    ] {
        server.dovecot.restart_with(&format!("plugin {{\n  {name} = {value}\n}}\n"));
        server.refuses(name, &[&format!("sets {name} = \"{value}\""), instead]);
        assert_eq!(refusal_of(&server.dovecot, STRANGER), LATER, "{name}");
    }
    server.dovecot.restart_with("plugin {\n  uidl_keep_bake =\n}\n");
    assert_eq!(server.dovecot.uidl(USER), uidl_of(1..=5));
    assert!(is_own(&server.dovecot.uidl(STRANGER)));
}

/// The user database may have them on either line.
#[test]
fn a_userdb_field_of_an_earlier_version_refuses_its_user() {
    let line = Line::V24;
    let Some(mut server) = turned(line, Config::default()) else { return };
    server
        .dovecot
        .restart_with("userdb static {\n  fields {\n    uidl_keep_match = file\n  }\n}\n");
    let instead = "its place is /var/lib/uidl-keep/settings, as `match ...`";
    server.refuses("a field", &["sets uidl_keep_match = \"file\"", instead]);
    assert_eq!(refusal_of(&server.dovecot, STRANGER), LATER);
}

/// 2.4 has no settings of a plugin that it was not told of, and starts nothing with one.
#[test]
fn dovecot_2_4_refuses_a_setting_of_an_earlier_version_itself() {
    let Some(server) = turned(Line::V24, Config::default()) else { return };
    let mut host = Host::dovecot(Line::V24).unwrap();
    // An earlier version may have left its module there.
    let modules = "/usr/lib/dovecot/modules/settings";
    let empty = server.dovecot.dir().join("empty");
    fs::create_dir(&empty).unwrap();
    if host.outside(modules).exists() {
        host = host.with(&empty, modules);
    }
    let conf = server.dovecot.conf();
    let text = fs::read_to_string(&conf).unwrap();
    for (more, status) in [("", 0), ("uidl_keep_bake = yes\n", 89)] {
        fs::write(&conf, format!("{text}{more}")).unwrap();
        let inside = server.dovecot.inside(&conf);
        let ran = host.command("doveconf").arg("-c").arg(inside).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{said}");
        assert_eq!(said.contains("Unknown setting: uidl_keep_bake"), status != 0, "{said}");
    }
}

/// Moves the site elsewhere and leaves a link in its place. Returns both.
fn link_site(server: &Scenario) -> (PathBuf, PathBuf) {
    let (site, elsewhere) = (server.dovecot.site(), server.dovecot.dir().join("elsewhere"));
    fs::rename(&site, &elsewhere).unwrap();
    symlink(server.dovecot.inside(&elsewhere), &site).unwrap();
    (site, elsewhere)
}

#[test]
fn a_site_behind_a_link_is_found_and_one_behind_a_doubtful_link_refuses_everybody() {
    for line in [Line::V23, Line::V24] {
        for config in [Config::default(), Config::default().chroot()] {
            let way = format!("{line:?}, chroot: {}", config.chroot);
            let Some(mut server) = turned(line, config) else { continue };
            let own = server.dovecot.uidl(STRANGER);
            let (link, elsewhere) = link_site(&server);
            assert_eq!(server.dovecot.uidl(USER), uidl_of(1..=5), "{way}");
            assert_eq!(server.dovecot.uidl(STRANGER), own, "{way}");
            let refuses = |server: &Scenario, fault: &str, words: &[&str]| {
                server.refuses(&format!("{way}: {fault}"), words);
                assert_eq!(refusal_of(&server.dovecot, STRANGER), LATER, "{way}: {fault}");
            };

            lchown(&link, Some(5000), None).unwrap();
            let words = ["/var/lib/uidl-keep is a symbolic link, and uid 5000 could put another"];
            refuses(&server, "the account's own link", &words);
            lchown(&link, Some(0), None).unwrap();
            let state = link.parent().unwrap();
            fs::set_permissions(state, unix_mode(0o777)).unwrap();
            refuses(&server, "anybody's directory", &["in a directory that others may write"]);
            fs::set_permissions(state, unix_mode(0o755)).unwrap();

            // Its file system is not mounted, and then not either, over an empty directory.
            let away = server.dovecot.dir().join("away");
            fs::rename(&elsewhere, &away).unwrap();
            refuses(&server, "it leads nowhere", &["no directory", "mount it"]);
            fs::create_dir(&elsewhere).unwrap();
            refuses(&server, "a bare directory", &["no directory", "mount it"]);
            fs::remove_dir(&elsewhere).unwrap();
            fs::rename(&away, &elsewhere).unwrap();
            server.deliver();
            assert_eq!(server.dovecot.uidl(USER)[..5], uidl_of(1..=5), "{way}");
            server.ends_well();
        }
    }
}

/// What Linux before 5.6 says, and what a container may say whose filter does not know the call.
#[test]
fn a_site_is_found_by_its_links_where_the_kernel_cannot_look_for_them() {
    if !can_trace() {
        return;
    }
    let Some(server) = Scenario::migrated(5) else { return };
    let trace = server.dovecot.home(USER).join("trace");
    for is_linked in [false, true] {
        if is_linked {
            link_site(&server);
        }
        for errno in ["ENOSYS", "EPERM"] {
            let inject = format!("inject=openat2:error={errno}");
            let options = ["-e", "trace=openat2", "-e", &inject];
            assert!(lists_under_strace(&server.dovecot, &trace, &options), "{errno}, {is_linked}");
            let traced = fs::read_to_string(&trace).unwrap();
            assert!(traced.contains("(INJECTED)"), "{traced}");
        }
    }
}
