//! Dovecot is upgraded in place, from 2.3 to 2.4 and back: what clients were told stays. The
//! commands of `docs/upgrade-2.3-to-2.4.md` are played as they stand there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::clients::{Client, Program};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::host::{Host, Line};
use crate::support::imap::Imap;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{Listing, Scenario, USER, uidl_of};

const DOCUMENT: &str = include_str!("../../docs/upgrade-2.3-to-2.4.md");

/// A second user, who first logs in after the upgrade.
const BOB: &str = "bob@example.com";

/// The format of a Dovecot that has replaced a Courier.
const FORMAT: &str = "UID%u-%v";

/// How many messages were there before the upgrade.
const COUNT: u32 = 12;

/// Gives all mail and the site to another Dovecot, as they lie: that is all of an upgrade in place
/// but for the packages.
fn upgrade(from: &mut Dovecot, to: &mut Dovecot) {
    from.pause();
    to.pause();
    for name in ["home", "lib/uidl-keep"] {
        let (from, to) = (from.dir().join(name), to.dir().join(name));
        fs::remove_dir_all(&to).expect("our directory");
        let moved = Command::new("mv").arg("-T").args([&from, &to]).status();
        assert!(moved.expect("mv").success(), "{} to {}", from.display(), to.display());
        // The other starts as a new machine does, if it ever starts again.
        fs::create_dir(&from).expect("our directory");
    }
    to.resume();
}

fn mail_arrives(at: &Dovecot, number: u32) {
    let mut session = Imap::login(at.imap(), USER);
    session.append(&Message::plain(number).on_the_wire());
    session.logout();
}

/// Two users, of whom one has listed and deleted before the upgrade, and one has not.
fn goes_there_and_back(store: Store) {
    let config = Config::default().store(store).with_plugin();
    let Some(mut before) = Scenario::begin_with(Line::V23, config.clone()) else { return };
    let Some(mut after) = Scenario::begin_with(Line::V24, config) else { return };
    let Some(client) = Client::new(Program::FetchmailByHalves, USER) else { return };
    let old = before.old_maildir(1..=6);
    before.copy_files(&old);
    if store == Store::Maildir {
        old.copy_mail_to(&before.dovecot.mail(BOB));
    } else {
        before.dovecot.import(BOB, old.path());
    }
    let listing = Listing::of_files(&old.files()).text();
    before.build(&(listing.clone() + &listing.replace(USER, BOB)));
    assert_eq!(before.uidls(), uidl_of(1..=6));
    assert_eq!(client.poll(before.dovecot.pop3()), 6, "it has never polled before");
    before.receive(&Message::plain(7));
    assert_eq!(client.poll(before.dovecot.pop3()), 1);
    before.delete(2);
    let told = before.uidls();
    let ledger = fs::read(before.ledger()).expect("a ledger");

    upgrade(&mut before.dovecot, &mut after.dovecot);
    assert_eq!(after.uidls(), told, "{store:?}: by 2.4");
    assert!(fs::read(after.ledger()).expect("a ledger") == ledger, "{store:?}: written anew");
    assert_eq!(client.poll(after.dovecot.pop3()), 0, "{store:?}");
    assert_eq!(after.dovecot.uidl(BOB), uidl_of(1..=6), "{store:?}: first listed by 2.4");
    after.receive(&Message::plain(8));
    assert_eq!(client.poll(after.dovecot.pop3()), 1, "{store:?}");
    after.delete(1);
    let told = after.uidls();
    assert_eq!(after.complaints(), [""; 0]);

    upgrade(&mut after.dovecot, &mut before.dovecot);
    assert_eq!(before.uidls(), told, "{store:?}: by 2.3 again");
    assert_eq!(client.poll(before.dovecot.pop3()), 0, "{store:?}");
    assert_eq!(before.dovecot.uidl(BOB), uidl_of(1..=6), "{store:?}: again");
    before.receive(&Message::plain(9));
    assert_eq!(client.poll(before.dovecot.pop3()), 1, "{store:?}");
    assert_eq!(before.complaints(), [""; 0]);
    if store == Store::Maildir {
        is_baked_for_both(&mut before, &mut after, &client);
    }
}

/// Neither line needs the plugin for what is baked.
fn is_baked_for_both(before: &mut Scenario, after: &mut Scenario, client: &Client) {
    let told = before.uidls();
    before.take_the_plugin_out();
    assert_eq!(before.dovecot.uidl(USER), told);
    after.take_the_plugin_out();
    upgrade(&mut before.dovecot, &mut after.dovecot);
    assert_eq!(after.dovecot.uidl(USER), told);
    assert_eq!(after.dovecot.uidl(BOB), uidl_of(1..=6));
    assert_eq!(client.poll(after.dovecot.pop3()), 0);
}

#[test]
fn a_maildir_is_told_the_same_by_both_lines_with_the_plugin_and_by_its_bake() {
    goes_there_and_back(Store::Maildir);
}

#[test]
fn an_mdbox_is_told_the_same_by_both_lines() {
    goes_there_and_back(Store::Mdbox);
}

#[test]
fn an_sdbox_is_told_the_same_by_both_lines() {
    goes_there_and_back(Store::Sdbox);
}

/// A Dovecot 2.3 that has never heard of us, whose client has all mail of its one user.
fn polled(store: Store) -> Option<(Dovecot, Client)> {
    let client = Client::new(Program::Fetchmail, USER)?;
    let config = Config::default().store(store).uidl_format(FORMAT);
    let before = Dovecot::start(&Host::dovecot(Line::V23)?, config)?;
    let old = Maildir::create(before.dir().join("old/Maildir"));
    for number in 1..=COUNT {
        old.deliver(&Message::plain(number), Naming::Dovecot, number);
    }
    if store == Store::Maildir {
        old.copy_mail_to(&before.mail(USER));
    } else {
        before.home(USER);
        before.import(USER, old.path());
    }
    assert_eq!(client.poll(before.pop3()), COUNT as usize);
    assert_eq!(client.poll(before.pop3()), 0);
    Some((before, client))
}

#[test]
fn without_us_a_client_downloads_all_again_where_the_format_is_lost_and_nothing_else() {
    for store in [Store::Maildir, Store::Mdbox] {
        let Some((mut before, client)) = polled(store) else { return };
        let Some(host) = Host::dovecot(Line::V24) else { return };
        let right = Config::default().store(store).uidl_format(FORMAT);
        let Some(mut after) = Dovecot::start(&host, right) else { return };
        upgrade(&mut before, &mut after);
        assert_eq!(client.poll(after.pop3()), 0, "{store:?}: spelled as 2.4 spells it");

        let conf = after.dir().join("old-spelling.conf");
        let text = fs::read_to_string(after.conf()).expect("ours");
        fs::write(&conf, text + "pop3_uidl_format = UID%u-%v\n").expect("ours");
        let mut doveconf = host.command("doveconf");
        doveconf.arg("-c").arg(after.inside(&conf));
        let said = doveconf.args(["-f", "protocol=pop3", "pop3_uidl_format"]).output();
        let said = String::from_utf8(said.expect("doveconf").stderr).expect("text");
        let words = "pop3_uidl_format setting doesn't contain any %{variables}";
        assert!(said.contains(words) && DOCUMENT.contains(words), "{said}");

        after.reconfigure(|config| config.uidl_format = None);
        assert_eq!(client.poll(after.pop3()), COUNT as usize, "{store:?}: the format is lost");
    }
}

/// Runs a line of the document on that Dovecot, and insists that it succeeds.
fn run(at: &Dovecot, host: &Host, line: &str) {
    let work = at.inside(at.dir());
    let helper = at.helper_program();
    let bin = helper.parent().expect("in a directory").display();
    let homes = at.inside(&at.dir().join("home")).display().to_string();
    let typed = line
        .replace("/srv/vmail/{domain}/{local}", &format!("{homes}/{{local}}@{{domain}}"))
        // A static user database names nobody.
        .replace("doveadm user '*'", &format!("echo {USER}"));
    let (state, place) = at.state();
    let host = host
        .clone()
        .with(&state, place)
        .with(&at.conf(), "/etc/dovecot/dovecot.conf")
        .with(Path::new("/proc"), "/proc");
    let script = format!("cd {} && {typed}", work.display());
    let path = format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin");
    let ran = host.command("sh").args(["-c", &script]).env("PATH", path).output();
    let Output { status, stdout, stderr } = ran.expect("sh");
    let said = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    println!("# {line}\n{said}");
    assert!(status.success(), "{line}: {said}\n{}", at.log());
}

/// The commands of the document's blocks for that line and those words, in their order.
fn commands(line: &str, words: &[&str]) -> Vec<String> {
    let mut commands = Vec::new();
    let mut is_ours = false;
    for text in DOCUMENT.lines() {
        if let Some(block) = text.strip_prefix("```") {
            let mut block = block.split(' ').skip(1);
            is_ours = block.next() == Some(line) && block.all(|word| words.contains(&word));
        } else if is_ours {
            commands.push(text.strip_prefix("# ").expect("a command of root's").to_owned());
        }
    }
    commands
}

#[test]
fn with_us_a_client_downloads_nothing_again_though_the_format_is_lost() {
    for (store, word) in [(Store::Maildir, "maildir"), (Store::Mdbox, "mdbox")] {
        let Some((mut before, client)) = polled(store) else { return };
        let (Some(old), Some(new)) = (Host::dovecot(Line::V23), Host::dovecot(Line::V24)) else {
            return;
        };
        let config = Config::default().store(store).with_plugin();
        let Some(mut after) = Dovecot::start(&new, config) else { return };
        let typed = commands("2.3", &[word]);
        assert!(typed.len() >= 3, "{typed:?}");
        typed.iter().for_each(|line| run(&before, &old, line));

        upgrade(&mut before, &mut after);
        after.login(USER).expect("+OK").uidl().expect_err("held");
        commands("2.4", &[]).iter().for_each(|line| run(&after, &new, line));
        assert_eq!(client.poll(after.pop3()), 0, "{store:?}");
        mail_arrives(&after, 1001);
        assert_eq!(client.poll(after.pop3()), 1, "{store:?}");
        assert_eq!(client.poll(after.pop3()), 0, "{store:?}");
        if store == Store::Maildir {
            after.reconfigure(|config| config.plugin = None);
            assert_eq!(client.poll(after.pop3()), 0, "baked");
        }
    }
}

#[test]
fn a_bake_before_the_upgrade_needs_no_plugin_on_either_line() {
    let Some((mut before, client)) = polled(Store::Maildir) else { return };
    let (Some(old), Some(new)) = (Host::dovecot(Line::V23), Host::dovecot(Line::V24)) else {
        return;
    };
    let Some(mut after) = Dovecot::start(&new, Config::default()) else { return };
    let typed = commands("2.3", &["bake"]);
    let last = &typed[typed.len() - 3..];
    assert!(last[2].starts_with("uidl-keep bake "), "{typed:?}");
    last.iter().for_each(|line| run(&before, &old, line));
    assert_eq!(client.poll(before.pop3()), 0, "2.3 itself says the same");

    upgrade(&mut before, &mut after);
    assert_eq!(client.poll(after.pop3()), 0);
    mail_arrives(&after, 1001);
    assert_eq!(client.poll(after.pop3()), 1);
    assert!(after.uidl(USER)[COUNT as usize].starts_with("0001"), "the next UID was raised");
}

#[test]
fn each_format_of_the_table_gives_the_same_on_both_lines() {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `") && line.contains("%{"));
    let formats: Vec<(String, String)> = rows
        .map(|row| {
            let row = row.replace("\\|", "\u{1}");
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (old, new) = (cells.nth(1).expect("2.3's"), cells.next().expect("2.4's"));
            (old.to_owned(), new.replace('\u{1}', "|"))
        })
        .collect();
    assert!(formats.len() >= 8, "{formats:?}");
    let start = |line| Dovecot::start(&Host::dovecot(line)?, Config::default());
    let (Some(mut before), Some(mut after)) = (start(Line::V23), start(Line::V24)) else { return };
    let maildir = Maildir::create(before.mail(USER));
    for number in 1..=3 {
        maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
    }
    // Both have one list, with its UIDVALIDITY.
    before.uidl(USER);
    let copied = Command::new("cp").arg("-a").arg(maildir.path()).arg(after.home(USER)).status();
    assert!(copied.expect("cp").success());
    for (old, new) in formats {
        before.restart_with(&format!("pop3_uidl_format = {old}\n"));
        after.restart_with(&format!("pop3_uidl_format = {new}\n"));
        assert_eq!(before.uidl(USER), after.uidl(USER), "{old} and {new}");
    }
}
