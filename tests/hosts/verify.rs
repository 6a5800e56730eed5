//! `verify` between two real Dovecots, and what real clients then fetch.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::shared::capture::Ran;
use crate::support::PASSWORD;
use crate::support::client_state::ClientState;
use crate::support::clients::{Client, Program};
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper::{self, uidl_keep};
use crate::support::host::{Host, Line, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

const USERS: [&str; 3] = ["alice@example.com", "bob@example.com", "carol@example.com"];
const ALICE: &str = USERS[0];
const BOB: &str = USERS[1];
const CAROL: &str = USERS[2];

/// Two servers with the same mail, and the listing of the old one.
struct Move {
    old: Dovecot,
    new: Dovecot,
    here: TempDir,
}

impl Move {
    /// Moves three maildrops of five messages by files, to a server with or without the plugin.
    fn to(line: Line, config: Config) -> Option<Self> {
        let old = Config::default().uidl_format("UID%u-%v");
        let old = Dovecot::start(&Host::dovecot(Line::subject())?, old)?;
        let new = Dovecot::start(&Host::dovecot(line)?, config)?;
        for user in USERS {
            let maildir = Maildir::create(old.mail(user));
            (1..=5).for_each(|number| {
                maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
            });
            old.uidl(user);
            maildir.copy_mail_to(&new.mail(user));
        }
        let moved = Self { old, new, here: tempfile::tempdir().expect("a directory") };
        let lines: String = USERS.iter().map(|user| format!("{user},{PASSWORD}\n")).collect();
        let accounts = moved.path("accounts.csv");
        fs::write(&accounts, format!("user,password\n{lines}")).expect("ours");
        fs::set_permissions(&accounts, unix_mode(0o600)).expect("ours");
        let mut capture = uidl_keep();
        capture.args(["capture", "pop3", "--clear", "--host", &moved.old.pop3().to_string()]);
        helper::run(capture.arg("--accounts").arg(accounts).arg("-o").arg(moved.listing()));
        Some(moved)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    fn listing(&self) -> PathBuf {
        self.path("old.listing")
    }

    fn build(&self) {
        helper::build_site(&self.new.site(), &self.listing());
    }

    /// Verifies the new server with one of the three.
    fn verify(&self, known: &[&str]) -> Ran {
        let mut verify = uidl_keep();
        verify.args(["verify", "--clear", "--patience", "0s", "--new"]);
        verify.arg(self.new.pop3().to_string()).arg("--accounts").arg(self.path("accounts.csv"));
        verify.args(known);
        Ran::of(verify)
    }

    fn verify_listing(&self) -> Ran {
        self.verify(&[self.listing().to_str().expect("ASCII")])
    }
}

fn lines(ran: &Ran) -> Vec<String> {
    String::from_utf8(ran.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

/// How many messages of a Maildir are marked as seen.
fn seen(maildir: &Maildir) -> usize {
    let is_seen = |file: &PathBuf| file.display().to_string().ends_with('S');
    maildir.files().iter().filter(|file| is_seen(file)).count()
}

#[test]
fn a_new_server_is_compared_with_the_listing_the_site_and_the_old_server() {
    let Some(moved) = Move::to(Line::V24, Config::default().with_plugin()) else { return };
    moved.build();
    let (site, old) = (moved.new.site(), moved.old.pop3().to_string());
    for known in [
        [moved.listing().to_str().unwrap(), "-q"],
        ["--site", site.to_str().unwrap()],
        ["--old", &old],
    ] {
        let ran = moved.verify(&known);
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{known:?}");
        let whole = USERS.map(|user| format!("= {user}: 5 of 5 kept"));
        assert_eq!(lines(&ran)[..3], whole, "{known:?}");
    }

    // New mail comes, one message is deleted, and one user is held.
    let maildir = Maildir::open(moved.new.mail(ALICE));
    maildir.deliver(&Message::plain(9), Naming::Dovecot, 9);
    let mut session = moved.new.login(BOB).expect("served");
    session.dele(2).expect("DELE");
    session.quit().expect("QUIT");
    let second = &moved.old.uidl(BOB)[1];
    let mut hold = uidl_keep();
    helper::run(hold.args(["hold", "--no-check", CAROL, "--site"]).arg(&site));
    let before = seen(&maildir);
    let ran = moved.verify_listing();
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let said = lines(&ran);
    let held = format!("! {CAROL}: could not tell: ");
    assert!(said[0].starts_with(&held) && said[0].contains("being moved"), "{said:?}");
    assert_eq!(said[1], format!("- {BOB}: 4 of 5 kept, 1 missing ({second})"));
    assert_eq!(said[2], format!("+ {ALICE}: 5 of 5 kept, 1 new"));
    // Nothing is downloaded, so no message is seen that was not.
    assert_eq!(seen(&maildir), before);
}

#[test]
fn what_a_clients_own_file_foretells_is_what_it_then_fetches() {
    for config in [Config::default().with_plugin(), Config::default()] {
        let is_kept = config.plugin.is_some();
        let Some(moved) = Move::to(Line::V23, config) else { continue };
        if is_kept {
            moved.build();
        }
        let programs =
            [Program::Fetchmail, Program::Mpop, Program::Getmail, Program::GetmailWithTraces];
        let clients = programs.into_iter().filter_map(|it| Some((it, Client::new(it, ALICE)?)));
        let clients: Vec<(Program, Client)> = clients.collect();
        for (program, client) in &clients {
            assert_eq!(client.poll(moved.old.pop3()), 5, "{program:?}");
            assert_eq!(client.state(moved.old.pop3()).len(), 5, "{program:?}");
        }
        // One message comes that nobody has; those who lost their UIDLs fetch all again.
        let maildir = Maildir::open(moved.new.mail(ALICE));
        maildir.deliver(&Message::plain(9), Naming::Dovecot, 9);
        let wanted = if is_kept { 1 } else { 6 };
        let listing = moved.new.uidl(ALICE);
        for (program, client) in &clients {
            let foretold = client.state(moved.new.pop3()).would_fetch(&listing);
            assert_eq!(foretold, Some(wanted), "{program:?}");
            assert_eq!(client.poll(moved.new.pop3()), wanted, "{program:?}");
            let again = client.state(moved.new.pop3()).would_fetch(&listing);
            assert_eq!(again, Some(0), "{program:?}");
        }
        let ran = moved.verify_listing();
        let said = lines(&ran);
        let (status, alice) = match is_kept {
            true => (0, format!("+ {ALICE}: 5 of 5 kept, 1 new")),
            false => (1, format!("- {ALICE}: 0 of 5 kept, 5 missing (")),
        };
        assert_eq!(ran.status, status, "{said:?}");
        assert!(said.iter().any(|line| line.starts_with(&alice)), "{said:?}");
    }
}

#[test]
fn a_clients_file_is_of_a_user_and_a_server_and_getmail_refuses_repeated_uidls() {
    let listing: Vec<String> = ["a", "b", "b", "c"].map(str::to_owned).into();
    let thunderbird = "# POP3 State File\n# This is a generated file!  Do not edit.\n\n\
                       *mail.example.com bob\nk b 1\n*mail.example.com alice\nk a 1714990000\n\
                       d c 1714990000\n";
    let popstate =
        |user| ClientState::thunderbird(thunderbird.as_bytes(), user, "mail.example.com");
    assert_eq!(popstate("alice").would_fetch(&listing), Some(2));
    assert_eq!(popstate("bob").would_fetch(&listing), Some(2));
    assert_eq!(popstate("carol").would_fetch(&listing), Some(4));
    let of = |program, text: &str| ClientState::of(program, text.as_bytes(), "alice", "old");
    let fetchids = of(Program::Fetchmail, "alice@old a\nalice@new b\nbob@old c\n");
    assert_eq!((fetchids.len(), fetchids.would_fetch(&listing)), (1, Some(3)));
    let uidls = of(Program::Mpop, " 1 old bob\na\n 2 old alice\nb\nc\n 1 new alice\na\n");
    assert_eq!(uidls.would_fetch(&listing), Some(1));
    let oldmail = of(Program::Getmail, "a\x001714990000\nb\x001714990000\n");
    assert_eq!(oldmail.would_fetch(&listing), None);
    assert_eq!(oldmail.would_fetch(&listing[..2]), Some(0));
}
