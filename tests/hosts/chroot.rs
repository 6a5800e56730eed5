//! The site is outside of the chroot that a user is shut up in, not there yet, or gone.

use std::collections::BTreeSet;
use std::fs;

use crate::support::dovecot::Config;
use crate::support::host::{Line, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{LATER, MOVING, Scenario, USER};

/// Users who were never migrated: one beside a user who was, and one in a domain of which nobody
/// was.
const STRANGERS: [&str; 2] = ["bob@example.com", "bob@example.net"];

fn deliver_to(server: &Scenario, user: &str) {
    let maildir = Maildir::create(server.dovecot.mail(user));
    maildir.deliver(&Message::plain(1), Naming::Dovecot, 1);
}

/// The line that a client of theirs is told in the place of a listing.
#[track_caller]
fn refusal_of(server: &Scenario, user: &str) -> String {
    let heard = server.dovecot.login(user).unwrap().hear_out();
    let heard = heard.unwrap_or_else(|why| panic!("{user}: served: {why:?}"));
    String::from_utf8(heard).unwrap().trim_end().to_owned()
}

/// Serves many logins in one process, as a large server does.
fn many_in_one(line: Line) -> String {
    let (many, most) = match line {
        Line::V23 => ("service_count", "process_limit"),
        Line::V24 => ("restart_request_count", "process_limit"),
    };
    format!("service pop3 {{\n  {many} = 100\n  {most} = 1\n}}\n")
}

/// Returns how many processes have served POP3 sessions.
fn processes(server: &Scenario) -> usize {
    let log = server.dovecot.settled_log();
    let ends = log.lines().filter(|line| line.contains(" pop3(") && line.contains("Disconnected"));
    let pids = ends.filter_map(|line| line.split(")<").nth(1)?.split('>').next());
    pids.collect::<BTreeSet<&str>>().len()
}

#[test]
fn a_chrooted_user_is_served_as_any_other_migrated_or_not() {
    for line in Line::asked() {
        for extra in [String::new(), many_in_one(line)] {
            let (way, is_one) = (format!("{line:?} {extra}"), !extra.is_empty());
            let config = Config { extra, ..Config::default() }.with_plugin().chroot();
            let Some(mut server) = Scenario::migrated_on(line, 3, config) else { continue };
            // The directory that has its name in the chroot is the user's.
            let named = server.dovecot.dir().join("home/var/lib/uidl-keep");
            fs::create_dir_all(named.join("domain")).unwrap();
            STRANGERS.iter().for_each(|user| deliver_to(&server, user));
            let own = STRANGERS.map(|user| server.dovecot.uidl(user));
            assert!(own.iter().all(|uidls| uidls.len() == 1 && uidls[0].len() == 16), "{own:?}");
            server.serves(3, &way);
            server.deliver();
            server.serves(3, &way);
            assert!(server.ledger().exists(), "{way}");
            assert_eq!(server.complaints(), [""; 0], "{way}");
            assert_eq!(processes(&server) == 1, is_one, "{way}: {}", server.dovecot.log());

            server.gate(&["hold"]);
            assert_eq!(server.refusal(), MOVING);
            server.gate(&["release", "--unrehearsed"]);
            server.serves(3, &way);

            // Modes protect one account from another there too.
            fs::set_permissions(server.roster(), unix_mode(0o600)).unwrap();
            server.refuses("a mode", &["example.com.roster", "Permission denied"]);
            fs::set_permissions(server.roster(), unix_mode(0o640)).unwrap();

            // The directory is another, and gone, while processes live on.
            let (site, away) = (server.dovecot.site(), server.dovecot.dir().join("away"));
            fs::rename(&site, &away).unwrap();
            server.refuses("not mounted", &["example.com.roster", "no directory", "mount it"]);
            assert_eq!(refusal_of(&server, STRANGERS[1]), LATER);
            fs::rename(&away, &site).unwrap();
            server.deliver();
            server.capture_first(3);
            server.serves(3, &way);
            assert_eq!(STRANGERS.map(|user| server.dovecot.uidl(user)), own);
            server.ends_well();
        }
    }
}

#[test]
fn nobody_is_refused_for_a_site_in_which_nothing_was_ever_put() {
    for line in Line::asked() {
        for config in [Config::default(), Config::default().chroot()] {
            let way = format!("{line:?}, chroot: {}", config.chroot);
            let Some(server) = Scenario::migrated_on(line, 3, config.with_plugin()) else {
                continue;
            };
            let mut users = STRANGERS.to_vec();
            users.push("bob");
            users.iter().for_each(|user| deliver_to(&server, user));
            let site = server.dovecot.site();
            for empty in ["domain", "user"] {
                fs::remove_dir_all(site.join(empty)).unwrap();
            }
            for entry in fs::read_dir(&site).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            let own: Vec<_> = users.iter().map(|user| server.dovecot.uidl(user)).collect();
            assert!(own.iter().all(|uidls| uidls.len() == 1 && uidls[0].len() == 16), "{own:?}");
            assert_eq!(server.complaints(), [""; 0], "{way}");

            // Something was there, and is lost.
            for left in ["domain", "user", "changes.log", ".lock"] {
                let is_file = !["domain", "user"].contains(&left);
                let left = site.join(left);
                if is_file { fs::write(&left, "") } else { fs::create_dir(&left) }.unwrap();
                fs::set_permissions(&left, unix_mode(0o711)).unwrap();
                let refused = if left.ends_with("domain") { "bob" } else { USER };
                assert_eq!(refusal_of(&server, refused), LATER, "{way}: {}", left.display());
                if is_file { fs::remove_file(&left) } else { fs::remove_dir(&left) }.unwrap();
            }
            assert_eq!(server.dovecot.uidl(users[1]), own[1], "{way}: there again");
            fs::remove_dir(&site).unwrap();
            for user in &users {
                assert_eq!(refusal_of(&server, user), LATER, "{way}: {user}");
            }
            server.ends_well();
        }
    }
}
