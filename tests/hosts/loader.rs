//! The loader in real Dovecots, at the places of the packages: with a plugin that fits, and with
//! none.

use std::fs;

use crate::hold_auth::example;
use crate::support::PASSWORD;
use crate::support::dovecot::Config;
use crate::support::host::{Host, Line};
use crate::support::loaded::{Loaded, STRANGER, put};
use crate::support::scenario::{USER, uidl_of};

/// Starts it on that line of Dovecot, with the loader, and none at hand.
fn start(line: Line, config: Config) -> Option<Loaded> {
    Loaded::start(&Host::dovecot(line)?, config).map(Loaded::with_loader)
}

const UNLOADED: &str = "uidl-keep: no plugin is loaded";

fn unloaded_in(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(UNLOADED)).collect()
}

#[test]
fn one_loader_serves_kept_uidls_on_both_lines_and_in_a_chroot() {
    for line in [Line::V23, Line::V24] {
        for config in [Config::default(), Config::default().chroot()] {
            let when = format!("{line:?}, chroot: {}", config.chroot);
            let Some(loaded) = start(line, config) else { continue };
            let Some(mut loaded) = loaded.with_plugin_at_hand() else { continue };
            for _ in 0..2 {
                assert_eq!(loaded.uidls_of(USER), Ok(uidl_of(1..=3)), "{when}");
                loaded.serves_the_stranger(&when);
            }
            assert!(loaded.server.ledger().exists(), "{when}");
            loaded.all_else_goes_on(&when);
            // For one command of doveadm.
            let plugins = match line {
                Line::V23 => "mail_plugins=uidl_keep",
                Line::V24 => "mail_plugins/uidl_keep=yes",
            };
            let fetch =
                ["-o", plugins, "fetch", "-u", USER, "pop3.uidl", "mailbox", "INBOX", "all"];
            let shown = loaded.server.dovecot.doveadm_ok(fetch);
            let shown = shown.lines().filter_map(|line| line.strip_prefix("pop3.uidl: "));
            assert_eq!(shown.collect::<Vec<_>>(), uidl_of(1..=3), "{when}");
            let log = loaded.server.dovecot.log();
            assert!(
                !log.contains("Fatal") && !log.contains("no plugin is loaded"),
                "{when}: {log}"
            );
            // One process that serves many has loaded it once.
            loaded.server.dovecot.reconfigure(|config| config.extra += &one_process(line));
            for _ in 0..2 {
                assert_eq!(loaded.uidls_of(USER), Ok(uidl_of(1..=3)), "{when}");
                loaded.serves_the_stranger(&when);
            }
            loaded.server.ends_well();
        }
    }
}

#[test]
fn where_no_plugin_fits_pop3_refuses_everybody_and_all_else_goes_on() {
    for line in [Line::V23, Line::V24] {
        let Some(mut loaded) = start(line, Config::default()) else { continue };
        let abi = loaded.abi();
        let when = format!("{line:?}");
        loaded.refuses(USER, &when);
        loaded.refuses(STRANGER, &when);
        loaded.all_else_goes_on(&when);
        let log = loaded.log_since(0, 2, &[UNLOADED]);
        let said = unloaded_in(&log);
        assert_eq!(said.len(), 2, "one a login: {log}");
        let wanted = ["Error: ", "POP3 refuses everybody", &abi, "/usr/lib/uidl-keep/abi/"];
        for word in wanted.iter().chain(&["No such file", "run: uidl-keep plugin status"]) {
            assert!(said.iter().all(|line| line.contains(word)), "no {word:?} in {said:#?}");
        }

        // Loaded where it has no work, it is told once in each process, and nothing ends.
        let everywhere = match line {
            Line::V23 => "mail_plugins = uidl_keep\n",
            Line::V24 => "mail_plugins {\n  uidl_keep = yes\n}\n",
        };
        loaded.server.dovecot.reconfigure(|config| config.extra += everywhere);
        let before = loaded.server.dovecot.log().len();
        loaded.all_else_goes_on(&format!("{when}, loaded everywhere"));
        let log = loaded.log_since(before, 2, &[UNLOADED]);
        let said = unloaded_in(&log);
        assert_eq!(said.len(), 2, "one for each IMAP process: {log}");
        assert!(said.iter().all(|line| line.contains("Warning: ")), "{said:#?}");
        loaded.refuses(USER, &when);

        // What is put at hand is taken at the next login, without a word to Dovecot.
        let Some(loaded) = loaded.with_plugin_at_hand() else { continue };
        assert_eq!(loaded.uidls_of(USER), Ok(uidl_of(1..=3)), "{when}");
        loaded.serves_the_stranger(&when);
        loaded.all_else_goes_on(&format!("{when}, loaded everywhere and at hand"));
    }
}

/// Lines of dovecot.conf with which one process serves all, one after the other.
fn one_process(line: Line) -> String {
    let many = match line {
        Line::V23 => "service_count",
        Line::V24 => "restart_request_count",
    };
    format!("service pop3 {{\n  {many} = 100\n  process_limit = 1\n}}\n")
}

#[test]
fn a_process_without_a_plugin_serves_one_login_and_no_other() {
    for line in [Line::V23, Line::V24] {
        let config = Config { first: example(line), extra: one_process(line), ..Config::default() };
        let Some(loaded) = start(line, config) else { continue };
        says(&loaded, &["plugin", "guard"], 0, &[]);
        for _ in 0..3 {
            loaded.serves_the_stranger("guarded");
        }
        let Some(loaded) = loaded.with_plugin_at_hand() else { continue };
        says(&loaded, &["plugin", "guard", "--off"], 0, &[]);
        loaded.auth_has_seen_it();
        // The process that served the stranger would tell her other UIDLs.
        assert_eq!(loaded.uidls_of(USER), Ok(uidl_of(1..=3)), "{line:?}");

        // So would one in whose time nobody was on a roster.
        fs::remove_file(loaded.at_hand(&loaded.abi())).unwrap();
        let loaded = restarted(loaded);
        for part in ["domain/example.com.roster", "domain/example.com.idx"] {
            fs::rename(loaded.site().join(part), loaded.site().join(&part[7..])).unwrap();
        }
        loaded.serves_the_stranger("nobody was migrated");
        for part in ["domain/example.com.roster", "domain/example.com.idx"] {
            fs::rename(loaded.site().join(&part[7..]), loaded.site().join(part)).unwrap();
        }
        loaded.refuses(USER, "migrated since");
    }
}

/// The same with all its processes new.
fn restarted(mut loaded: Loaded) -> Loaded {
    loaded.server.dovecot.pause();
    loaded.server.dovecot.resume();
    loaded
}

#[test]
fn a_rehearsal_goes_through_the_loader() {
    for line in [Line::V23, Line::V24] {
        let first = example(line);
        let Some(loaded) = start(line, Config { first, ..Config::default() }) else { continue };
        says(&loaded, &["plugin", "guard"], 0, &[]);
        loaded.server.gate(&["hold"]);
        let rehearse = ["rehearse", "--site", "/var/lib/uidl-keep", USER];
        // No auth has kept her out of a program that is run for her.
        says(&loaded, &rehearse, 1, &[USER]);
        assert!(!loaded.server.ledger().exists());
        let Some(loaded) = loaded.with_plugin_at_hand() else { continue };
        says(&loaded, &rehearse, 0, &[]);
        assert!(loaded.server.ledger().exists(), "{line:?}");
    }
}

#[test]
fn where_nobody_was_migrated_no_plugin_is_missed() {
    for line in [Line::V23, Line::V24] {
        let Some(loaded) = start(line, Config::default()) else { continue };
        for part in ["domain/example.com.roster", "domain/example.com.idx"] {
            loaded.refuses(STRANGER, "somebody was");
            fs::remove_file(loaded.site().join(part)).unwrap();
        }
        loaded.serves_the_stranger("nobody was");
        fs::remove_dir(loaded.site().join("user")).unwrap();
        loaded.refuses(STRANGER, "half a site");
    }
}

/// Insists on the exit status, and on words in what was said.
#[track_caller]
fn says(loaded: &Loaded, args: &[&str], status: i32, words: &[&str]) {
    let ran = loaded.helper(args);
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(ran.status.code(), Some(status), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?}: no {word:?} in {said}");
    }
}

#[test]
fn with_the_guard_on_strangers_are_served_and_the_migrated_refused_by_no_plugin() {
    for line in [Line::V23, Line::V24] {
        let first = example(line);
        let Some(mut loaded) = start(line, Config { first, ..Config::default() }) else { continue };
        let (on, off) = (["plugin", "guard"], ["plugin", "guard", "--off"]);
        let stop = loaded.site().join("auth/stop-pop3");
        loaded.refuses(STRANGER, "no guard");
        says(&loaded, &on, 0, &[]);
        let text = fs::read_to_string(&stop).unwrap();
        assert!(text.starts_with("# uidl-keep-guard 1 ") && text.contains("\nalice@example.com:"));
        loaded.serves_the_stranger("guarded");
        loaded.refuses(USER, "guarded");
        loaded.all_else_goes_on("guarded");
        assert!(!loaded.server.ledger().exists(), "nobody was told anything");
        loaded.log_since(0, 1, &["Warning: ", UNLOADED, "auth refuses the migrated"]);
        says(&loaded, &["plugin", "status"], 1, &["no fit", "guard      on", "there is none"]);
        says(&loaded, &off, 2, &["the guard stays as it is", "uidl-keep plugin status"]);
        loaded.refuses(USER, "still guarded");

        // Whoever is held, released or built meanwhile is guarded all the same.
        loaded.server.gate(&["hold"]);
        loaded.server.gate(&["release", "--unrehearsed"]);
        loaded.auth_has_seen_it();
        loaded.refuses(USER, "released");
        loaded.serves_the_stranger("a change later");

        // Auth stops reading the file: the loader notices by itself.
        loaded.server.dovecot.reconfigure(|config| config.first.clear());
        loaded.refuses(STRANGER, "the passdb is gone");
        loaded.refuses(USER, "the passdb is gone");
        says(&loaded, &on, 2, &["the first passdb of", "is static", "nothing is changed"]);
        let behind = match line {
            Line::V23 => "passdb {\n  driver = static\n  args = password=other\n}\n",
            Line::V24 => "passdb other {\n  driver = static\n  passdb_static_password = other\n}\n",
        };
        loaded
            .server
            .dovecot
            .reconfigure(|config| config.first = [behind, &example(line)].concat());
        says(&loaded, &on, 2, &["the first passdb of", "nothing is changed"]);
        // It lets her in, and auth refuses the name of the file all the same.
        let lets_in = behind.replace("password=other", &format!("password={PASSWORD}"));
        let lets_in = lets_in.replace("password = other", &format!("password = {PASSWORD}"));
        loaded
            .server
            .dovecot
            .reconfigure(|config| config.first = [lets_in.as_str(), &example(line)].concat());
        loaded.refuses(USER, "a passdb stands before it");
        loaded.refuses(STRANGER, "a passdb stands before it");
        let unproven = ["guard      on, and the loader does not believe it", "anew since"];
        says(&loaded, &["plugin", "status"], 1, &unproven);
        loaded.server.dovecot.reconfigure(|config| config.first = example(line));
        loaded.refuses(STRANGER, "auth was started anew");
        says(&loaded, &on, 0, &[]);
        loaded.serves_the_stranger("the passdb is there again");
        // It is quick where nothing has changed, and after a reload it must be said again.
        let since = std::time::Instant::now();
        says(&loaded, &on, 0, &[]);
        assert!(since.elapsed() < std::time::Duration::from_secs(10), "{:?}", since.elapsed());
        loaded.serves_the_stranger("asked again");
        loaded.server.dovecot.doveadm_ok(["reload"]);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while loaded.uidls_of(STRANGER).is_ok() {
            assert!(std::time::Instant::now() < until, "no other auth after a reload");
        }
        says(&loaded, &on, 0, &[]);
        loaded.serves_the_stranger("said again");

        // It is taken back once a plugin is at hand, and not before.
        let Some(loaded) = loaded.with_plugin_at_hand() else { continue };
        loaded.auth_has_seen_it();
        loaded.refuses(USER, "the guard is on, and the plugin fits");
        // The helper looks for plugins where packages put them, and so does the loader.
        says(&loaded, &["plugin", "status"], 0, &["fits", "the loader", "plugin guard --off"]);
        says(&loaded, &off, 0, &[]);
        loaded.auth_has_seen_it();
        assert_eq!(loaded.uidls_of(USER), Ok(uidl_of(1..=3)), "{line:?}");
        loaded.serves_the_stranger("the guard is off");
        says(&loaded, &["plugin", "status"], 0, &["guard      off"]);
    }
}

#[test]
fn a_guard_that_auth_does_not_heed_is_not_turned_on() {
    for line in [Line::V23, Line::V24] {
        let first = example(line);
        let Some(mut loaded) = start(line, Config { first, ..Config::default() }) else { continue };
        let guard = ["plugin", "guard"];
        let stop = loaded.site().join("auth/stop-pop3");
        loaded.server.dovecot.reconfigure(|config| {
            config.extra += "auth_mechanisms = plain login cram-md5\n";
        });
        says(&loaded, &guard, 2, &["auth_mechanisms has cram-md5", "nothing is changed"]);
        assert!(!stop.exists());
        loaded.server.dovecot.reconfigure(|config| {
            config.extra += "auth_mechanisms = plain login\n";
        });
        // Auth may not look into the directory.
        let auth = stop.parent().unwrap();
        fs::create_dir(auth).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        fs::set_permissions(auth, mode(0o700)).unwrap();
        says(&loaded, &guard, 2, &["does not say nologin", "the guard is as it was"]);
        assert!(!fs::read_to_string(&stop).unwrap().contains("alice"));
        loaded.refuses(STRANGER, "not guarded");
        fs::remove_dir_all(auth).unwrap();
        // Auth takes names as clients write them, and the file has one way to write each.
        let as_written = match line {
            Line::V23 => "auth_username_format = %u\n",
            Line::V24 => "auth_username_format = %{user}\n",
        };
        loaded.server.dovecot.reconfigure(|config| config.extra += as_written);
        says(&loaded, &guard, 2, &["@EXAMPLE.COM` does not say nologin"]);
        loaded.server.dovecot.reconfigure(|config| {
            config.extra = config.extra.replace(as_written, "");
        });
        // Nobody is at the socket of auth.
        loaded.server.dovecot.pause();
        says(&loaded, &guard, 2, &["name this Dovecot's doveadm"]);
        assert!(!fs::read_to_string(&stop).unwrap().contains("alice"));
        loaded.server.dovecot.resume();
        says(&loaded, &guard, 0, &[]);
        loaded.serves_the_stranger("guarded");
    }
}

#[test]
fn status_tells_what_pop3_loads_and_whether_it_fits() {
    for line in [Line::V23, Line::V24] {
        let Some(loaded) =
            Host::dovecot(line).and_then(|host| Loaded::start(&host, Config::default()))
        else {
            continue;
        };
        let (abi, status) = (loaded.abi(), ["plugin", "status"]);
        says(&loaded, &status, 1, &["no fit", &abi, "module     none in", "next       "]);
        let loaded = loaded.with_loader();
        says(&loaded, &status, 1, &["no fit", "the loader", "at hand    none"]);
        let Some(mut loaded) = loaded.with_plugin_at_hand() else { continue };
        says(&loaded, &status, 0, &["fits", "libdovecot.so.0", &format!("at hand    {abi}")]);
        let json = loaded.helper(&["plugin", "status", "--json"]);
        let said: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((&said["state"], &said["server"]), (&"fits".into(), &abi.as_str().into()));
        assert_eq!((&said["module"]["is"], &said["guard"]), (&"loader".into(), &"off".into()));
        // Another one is where this one should be.
        let other = match line {
            Line::V23 => Line::V24,
            Line::V24 => Line::V23,
        };
        if let Some(plugin) = crate::support::helper::plugin(other) {
            put(&plugin, &loaded.at_hand(&abi));
            says(&loaded, &status, 1, &["no fit", "it is for Dovecot 2."]);
            loaded.refuses(STRANGER, "another plugin");
            put(&plugin, &loaded.module());
            says(&loaded, &status, 1, &["no fit", "the plugin for 2.", "make install"]);
        }
        let Some(again) = loaded.with_plugin() else { continue };
        loaded = again;
        says(&loaded, &status, 0, &["fits", "module     the plugin for"]);
        loaded.server.dovecot.reconfigure(|config| {
            config.extra += match line {
                Line::V23 => "protocol pop3 {\n  mail_plugins =\n}\n",
                Line::V24 => "protocol pop3 {\n  mail_plugins {\n    uidl_keep = no\n  }\n}\n",
            };
        });
        says(&loaded, &status, 1, &["not loaded", "pop3 loads no plugin", "name uidl_keep in"]);
        let ran = loaded.helper(&["plugin", "status", "--doveadm", "/nonexistent/doveadm"]);
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    }
}
