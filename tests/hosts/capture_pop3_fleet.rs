//! Many accounts of a real Dovecot over POP3: killed, refused, in use, tried again.
//! tests/hosts/capture_pop3.rs tests what one account gives.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use uidl_keep::listing;
use uidl_keep::maildrop::{Maildrop, State};

use crate::support::PASSWORD;
use crate::support::dovecot::{Config, Dovecot, passdb};
use crate::support::helper::uidl_keep;
use crate::support::host::{Host, Line, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::tls::{certificates_in, fingerprint, shown_by_dovecot};

/// Longer than anything here takes, so that a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// A password that is found wherever it appears.
const SECRET: &str = "hunter2-secret";

/// Dovecot waits before it says that a password is wrong, longer each time; here nobody has to be
/// slowed down.
const AT_ONCE: &str = "auth_failure_delay = 0\n\
    service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}\n";

/// An old server, and a directory for the lists and the listing.
struct Old {
    server: Dovecot,
    here: TempDir,
}

/// A capture that has ended.
struct Ran {
    status: i32,
    said: String,
}

/// A capture that is under way. It is killed when it is dropped.
struct Running {
    child: Child,
    said: PathBuf,
}

/// Whether a line of the log says that somebody has logged in, in the words of 2.3 or of 2.4.
fn is_login(line: &str) -> bool {
    ["Login: user=<", "Logged in: user=<"].iter().any(|words| line.contains(words))
}

impl Old {
    fn start(extra: &str) -> Option<Self> {
        let host = Host::dovecot(Line::subject())?;
        let extra = format!("{AT_ONCE}{extra}");
        let server = Dovecot::start(&host, Config { extra, ..Config::default() })?;
        Some(Self { server, here: tempfile::tempdir().expect("a directory") })
    }

    /// Makes maildrops of no, one and two messages in turn.
    fn fill(&self, users: &[String]) {
        for (number, user) in (0..).zip(users) {
            let maildir = Maildir::create(self.server.mail(user));
            for message in 0..number % 3 {
                maildir.deliver(&Message::plain(10 * number + message), Naming::Dovecot, message);
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// Writes a file that nobody else may read.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).expect("ours");
        fs::set_permissions(self.file(name), unix_mode(0o600)).expect("ours");
    }

    /// Writes accounts.csv.
    fn table<'a>(&self, accounts: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut text = "user,password\n".to_owned();
        for (user, password) in accounts {
            text.push_str(&format!("{user},{password}\n"));
        }
        self.write("accounts.csv", &text);
    }

    /// The helper, with the arguments that every capture here needs, in the directory of the lists.
    fn capture(&self, args: &[&str]) -> Command {
        self.capture_at(self.server.pop3().port(), &[&["--clear"], args].concat())
    }

    fn capture_at(&self, port: u16, args: &[&str]) -> Command {
        let mut command = uidl_keep();
        command
            .args(["capture", "pop3", "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(args)
            .current_dir(self.here.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        ran(&mut self.capture(args))
    }

    /// Captures accounts.csv into x.
    fn run_table(&self, more: &[&str]) -> Ran {
        self.run(&[&["--accounts", "accounts.csv", "-o", "x"], more].concat())
    }

    fn spawn(&self, args: &[&str]) -> Running {
        let said = self.file("said");
        let stderr = fs::File::create(&said).expect("ours");
        let child = self.capture(args).stderr(stderr).spawn().expect("the helper");
        Running { child, said }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect(name)
    }

    /// The maildrops of a listing, without the times of their captures.
    fn maildrops(&self, name: &str) -> Vec<Maildrop> {
        let file = BufReader::new(fs::File::open(self.file(name)).expect(name));
        let mut maildrops: Vec<Maildrop> =
            listing::Reader::new(file).collect::<Result<_, _>>().expect("a listing");
        for maildrop in &mut maildrops {
            let captures = maildrop.captures.iter_mut();
            captures.for_each(|capture| assert!(capture.taken.take().is_some()));
        }
        maildrops
    }

    /// Returns how often each user was let in so far, once all sessions have ended.
    fn logins(&self) -> BTreeMap<String, usize> {
        let mut logins = BTreeMap::new();
        until("all sessions ended", || {
            let log = self.server.log();
            logins.clear();
            let mut ended = 0;
            for line in log.lines() {
                if is_login(line) {
                    let (_, user) = line.split_once("user=<").expect("whose");
                    let (user, _) = user.split_once('>').expect("its end");
                    *logins.entry(user.to_owned()).or_default() += 1;
                }
                ended += usize::from(line.contains(" pop3(") && line.contains("Disconnected: "));
            }
            ended >= logins.values().sum()
        });
        logins
    }

    /// Returns how many logins were refused so far for a wrong password. It waits for at least
    /// `wanted`: the log says it a moment after the client was told.
    fn refusals(&self, wanted: usize) -> usize {
        let count = || {
            let log = self.server.log();
            log.lines().filter(|line| line.contains("(auth failed, ")).count()
        };
        until("the log says so", || count() >= wanted);
        count()
    }
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(&self.said).expect("its stderr")
    }

    fn wait_until_it_says(&self, what: &str) {
        until(what, || self.said().contains(what));
    }

    fn end(mut self) -> Ran {
        until("the capture ended", || self.child.try_wait().expect("our child").is_some());
        let status = self.child.wait().expect("our child").code().expect("an exit status");
        Ran { status, said: self.said() }
    }

    /// Kills it at once, as kill -9 does.
    fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// Insists on this exit status.
    fn ends(self, status: i32) -> String {
        assert_eq!(self.status, status, "{}", self.said);
        self.said
    }
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the helper");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    Ran { status: output.status.code().expect("an exit status"), said }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("user{number:04}")).collect()
}

fn with_password(users: &[String]) -> impl Iterator<Item = (&str, &str)> {
    users.iter().map(|user| (user.as_str(), PASSWORD))
}

#[test]
fn a_killed_run_is_gone_on_with_and_gives_what_an_undisturbed_one_does() {
    let Some(old) = Old::start("") else { return };
    let users = names(60);
    old.fill(&users);
    old.table(with_password(&users));
    assert_eq!(old.run(&["--accounts", "accounts.csv", "-o", "undisturbed"]).status, 0);
    let before = old.logins();
    assert!(users.iter().all(|user| before[user] == 1), "{before:?}");

    let whole_blocks = || {
        let journal = fs::read_to_string(old.file("x.journal")).unwrap_or_default();
        journal.lines().filter(|line| *line == ".").count()
    };
    // It is slowed down, so that there is a middle to be killed in, however fast the machine is.
    let args = ["--accounts", "accounts.csv", "-o", "x", "--rate", "200"];
    for done in [12, 36] {
        let running = old.spawn(&args);
        until("some accounts are captured", || whole_blocks() >= done);
        running.kill();
        assert!(!old.file("x").exists(), "half of a listing");
        assert!(whole_blocks() < users.len(), "killed in the middle");
        assert_eq!(old.file("x.journal").metadata().unwrap().mode() & 0o7777, 0o600);
    }
    let captured = whole_blocks();
    let said = old.run(&args).ends(0);
    assert!(
        said.contains(&format!("and {captured} of 60 accounts are captured: going on")),
        "{said}"
    );
    assert!(said.contains(&format!("{} logins at 1 servers follow", 60 - captured)), "{said}");
    assert_eq!(old.maildrops("x"), old.maildrops("undisturbed"));
    assert!(!old.file("x.journal").exists());

    let after = old.logins();
    let again = |user: &String| after[user] - before[user] - 1;
    // Only the accounts under way when it was killed are asked again: three connections, twice.
    assert!(users.iter().map(again).sum::<usize>() <= 6, "{after:?}");
}

#[test]
fn what_failed_is_said_and_listed_and_alone_tried_again() {
    let Some(old) = Old::start("") else { return };
    let users = names(8);
    old.fill(&users);
    old.table(with_password(&users));
    old.run(&["--accounts", "accounts.csv", "-o", "undisturbed"]).ends(0);

    let password = |at| if at == 4 { "wrong" } else { PASSWORD };
    old.table((0..).zip(&users).map(|(at, user)| (user.as_str(), password(at))));
    let said = old.run_table(&[]).ends(1);
    assert!(said.contains("uidl-keep: user0004: it refused the login: [AUTH] "), "{said}");
    assert!(
        said.contains(
            "x: 7 accounts are captured, 1 failed; the same command asks for these again"
        )
    );
    let maildrops = old.maildrops("x");
    let found: Vec<_> = maildrops.iter().map(|maildrop| maildrop.user.as_str()).collect();
    assert_eq!(found, users, "in the order of the list");
    let failed: Vec<_> = maildrops.iter().filter(|one| one.state == State::Failed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].user, "user0004");
    assert!(failed[0].remarks[0].starts_with("it refused the login: [AUTH] "));

    // The list is mended; one account has gone from it, another has come.
    let before = old.logins();
    let now: Vec<String> = users[1..].iter().chain(&["newcomer".to_owned()]).cloned().collect();
    old.table(with_password(&now));
    let said = old.run_table(&[]).ends(0);
    assert!(said.contains("x: has 6 of 8 accounts, the last of them captured 2"), "{said}");
    assert!(said.contains("these are not asked again; --afresh asks for all"), "{said}");
    assert!(said.contains("1 maildrops that were captured are not in the list"), "{said}");
    let after = old.logins();
    let asked: Vec<_> =
        after.iter().filter(|(user, count)| before.get(*user) != Some(*count)).collect();
    assert_eq!(asked, [(&"newcomer".to_owned(), &1), (&"user0004".to_owned(), &2)]);
    let found = old.maildrops("x");
    assert_eq!(found[..7], old.maildrops("undisturbed")[1..]);
    assert_eq!((found[7].user.as_str(), found[7].state), ("newcomer", State::Empty));

    // Now none has failed, and all are asked again.
    let said = old.run_table(&[]).ends(0);
    assert!(said.contains("x: has 8 of 8 accounts, the last of them captured 2"), "{said}");
    assert!(now.iter().all(|user| old.logins()[user] == after[user] + 1));
}

#[test]
fn what_an_earlier_day_captured_is_kept_only_where_that_is_said() {
    let Some(old) = Old::start("") else { return };
    let users = names(4);
    old.fill(&users);
    old.table(with_password(&users[..3]));
    old.run_table(&[]).ends(0);
    let taken = old.read("x").lines().find(|line| line.starts_with("taken ")).unwrap().to_owned();
    let seconds: u64 = taken["taken ".len()..].parse().unwrap();
    let lines = old
        .read("x")
        .lines()
        .map(|line| match line.starts_with("taken ") {
            true => format!("taken {}\n", seconds - 2 * 24 * 60 * 60),
            false => format!("{line}\n"),
        })
        .collect::<String>();
    old.table(with_password(&users));
    let asked = |args: &[&str]| {
        fs::write(old.file("x"), &lines).unwrap();
        let before = old.logins();
        let said = old.run_table(args).ends(0);
        let after = old.logins();
        (users.iter().filter(|user| before.get(*user) != after.get(*user)).count(), said)
    };
    let (count, said) = asked(&[]);
    assert_eq!(count, 4, "{said}");
    assert!(said.contains("x: has 3 of 4 accounts"), "{said}");
    assert!(
        said.contains("all are asked again, for mail that has come since; --retry keeps"),
        "{said}"
    );
    let (count, said) = asked(&["--retry"]);
    assert_eq!(count, 1, "{said}");
    // A young journal is gone on with, unless that is not wanted.
    old.table(with_password(&users[..3]));
    old.run_table(&["--afresh"]).ends(0);
    old.table(with_password(&users));
    let before = old.logins();
    old.run_table(&["--afresh"]).ends(0);
    assert!(users.iter().all(|user| old.logins()[user] == before[user] + 1));
}

#[test]
fn an_account_in_use_is_tried_again_until_it_is_free() {
    let Some(old) = Old::start("protocol pop3 {\n  pop3_lock_session = yes\n}\n") else { return };
    let users = names(6);
    old.fill(&users);
    old.table(with_password(&users));
    let session = old.server.login("user0002").expect("a session");
    let running = old.spawn(&["--accounts", "accounts.csv", "-o", "x"]);
    running.wait_until_it_says("user0002: it refused the login: [IN-USE] ");
    // The others are captured meanwhile; and nobody else writes there.
    until("the others are captured", || old.read("x.journal").matches("\n.\n").count() == 5);
    let said = old.run_table(&[]).ends(2);
    assert!(said.contains("x.journal: another uidl-keep writes it"), "{said}");
    session.quit().expect("its end");
    let said = running.end().ends(0);
    assert!(said.contains("; tried again in 5s"), "{said}");
    let states: Vec<_> = old.maildrops("x").iter().map(|maildrop| maildrop.state).collect();
    let (empty, captured) = (State::Empty, State::Captured);
    assert_eq!(states, [empty, captured, captured, empty, captured, captured]);

    // Without patience it is given up: but not in the place of a listing that has it.
    let session = old.server.login("user0002").expect("a session");
    let before = old.read("x");
    let said = old.run_table(&["--patience", "0s"]).ends(2);
    assert!(said.contains("user0002: it refused the login: [IN-USE] "), "{said}");
    assert!(said.contains("x: not replaced: it has 1 accounts that could not be captured now"));
    assert_eq!(old.read("x"), before);
    // The maildrops captured now come from the journal, and that one from the listing.
    old.run_table(&["--patience", "0s", "--retry"]).ends(0);
    assert_eq!(old.maildrops("x")[2].state, State::Captured);

    // If there is none, it has failed for this run only.
    fs::remove_file(old.file("x")).unwrap();
    old.run_table(&["--patience", "0s"]).ends(1);
    assert_eq!(old.maildrops("x")[2].state, State::Failed);
    session.quit().expect("its end");
    old.run_table(&["--retry"]).ends(0);
}

#[test]
fn three_connections_of_an_address_are_enough() {
    let limit = "protocol pop3 {\n  mail_max_userip_connections = 3\n}\n";
    let Some(old) = Old::start(limit) else { return };
    let users = names(1);
    old.fill(&users);
    // Dovecot counts by user and address: this is one user, of whom many are captured.
    let mut text = "user,password,new_user\n".to_owned();
    for number in 0..30 {
        text.push_str(&format!("user0000,{PASSWORD},new{number}\n"));
    }
    old.write("accounts.csv", &text);
    // It is slowed down, so that there are always as many sessions as there may be.
    let said = old.run_table(&["--rate", "60"]).ends(0);
    assert!(!said.contains("refused") && !said.contains("again"), "{said}");
    let too_many = "Maximum number of connections";
    assert!(!old.server.log().contains(too_many));
    assert_eq!(old.logins()["user0000"], 30);

    // More would have been refused.
    let sessions: Vec<_> = (0..3).map(|_| old.server.login("user0000").expect("one")).collect();
    assert!(old.server.login("user0000").is_err());
    until("Dovecot says why", || old.server.log().contains(too_many));
    drop(sessions);
}

#[test]
fn a_server_that_refuses_everybody_is_asked_three_times_and_the_listing_stays() {
    let Some(old) = Old::start("listen = 127.0.0.1, 127.0.0.2\n") else { return };
    let users = names(12);
    old.fill(&users);
    old.write("x", "the listing of yesterday\n");
    old.table(users.iter().map(|user| (user.as_str(), "wrong")));
    let said = old.run_table(&[]).ends(2);
    assert_eq!(old.refusals(3), 3);
    assert!(said.contains("refused 3 accounts in a row, the last with: it refused the login"));
    assert!(said.contains("; 9 accounts are not tried"), "{said}");
    assert!(said.contains("x: not written: no account could be captured"), "{said}");
    assert_eq!(old.read("x"), "the listing of yesterday\n");
    assert!(!old.file("x.journal").exists());

    // Another server in the same list is none the worse for it.
    let port = old.server.pop3().port();
    let mut text = "host,user,password\n".to_owned();
    for user in &users[..6] {
        text.push_str(&format!("127.0.0.1,{user},wrong\n"));
    }
    for user in &users[6..] {
        text.push_str(&format!("127.0.0.2:{port},{user},{PASSWORD}\n"));
    }
    old.write("accounts.csv", &text);
    old.run_table(&[]).ends(1);
    assert_eq!(old.refusals(6), 6);
    let maildrops = old.maildrops("x");
    let failed = |maildrop: &Maildrop| maildrop.state == State::Failed;
    assert!(maildrops[..6].iter().all(failed) && !maildrops[6..].iter().any(failed));
    assert!(maildrops[2].remarks[0].starts_with("it refused the login"));
    let not_tried = format!("not tried: 127.0.0.1:{port} refused 3 accounts in a row");
    assert!(maildrops[3..6].iter().all(|one| one.remarks[0].starts_with(&not_tried)));

    // It goes on if it is told to.
    old.table(users.iter().map(|user| (user.as_str(), "wrong")));
    old.run_table(&["--max-refusals", "0"]).ends(2);
    assert_eq!(old.refusals(6 + 12), 6 + 12);
}

#[test]
fn a_server_that_does_not_answer_costs_its_accounts_and_not_the_run() {
    let Some(old) = Old::start("") else { return };
    let users = names(2);
    old.fill(&users);
    // Nobody answers at this port.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    old.write(
        "accounts.csv",
        &format!("host,user,password\n{nobody},a,x\n,user0000,{PASSWORD}\n{nobody},b,x\n"),
    );
    let said = old.run_table(&["--patience", "0s"]).ends(1);
    assert!(said.contains(&format!("a: cannot connect to {nobody}: ")), "{said}");
    let states: Vec<_> = old.maildrops("x").iter().map(|maildrop| maildrop.state).collect();
    assert_eq!(states, [State::Failed, State::Empty, State::Failed]);
}

#[test]
fn one_account_or_a_master_user_gives_what_a_table_does() {
    let master = format!(
        "auth_master_user_separator = *\n\
         {}",
        passdb(Line::subject(), "static", SECRET, "  master = yes\n")
    );
    let Some(old) = Old::start(&master) else { return };
    let users = names(4);
    old.fill(&users);
    old.table(with_password(&users));
    old.run_table(&[]).ends(0);
    let without_source = |name: &str| {
        let mut maildrops = old.maildrops(name);
        for maildrop in &mut maildrops {
            maildrop.source.clear();
            maildrop.captures.iter_mut().for_each(|capture| capture.source.clear());
        }
        maildrops
    };
    let table = without_source("x");

    // This is one account; its password comes from each place.
    old.write("pw", &format!("{PASSWORD}\n"));
    let one = |more: &[&str]| {
        let mut command = old.capture(&[&["--user", "user0002", "-o", "one"], more].concat());
        command.env("OLD_PASSWORD", PASSWORD).stdin(fs::File::open(old.file("pw")).unwrap());
        ran(&mut command).ends(0);
        without_source("one").remove(0)
    };
    for from in
        [&["--password-file", "pw"][..], &["--password-stdin"], &["--password-env", "OLD_PASSWORD"]]
    {
        assert_eq!(one(from), table[2]);
    }
    let renamed = one(&["--password-file", "pw", "--new-user", "u2@example.com"]);
    assert_eq!(renamed.user, "u2@example.com");
    assert_eq!(renamed.entries, table[2].entries);

    // A wrong password leaves the listing as it was.
    let before = old.read("one");
    old.write("other", "wrong");
    let args = ["--user", "user0002", "--password-file", "other"];
    let said = old.run(&[&args[..], &["-o", "one"]].concat()).ends(2);
    assert!(said.contains("user0002: it refused the login"), "{said}");
    assert!(said.contains("one: not written: the account could not be captured"), "{said}");
    assert_eq!(old.read("one"), before);
    old.run(&args).ends(1);

    // A master user logs in, in both ways.
    old.write("master", SECRET);
    old.write("users", "# all\nuser0000\nuser0001 u1@example.com\n\nuser0002\nuser0003\n");
    for how in
        [&["--login-template", "{user}*boss"][..], &["--login-template", "boss", "--authorize"]]
    {
        let args = ["--users", "users", "--password-file", "master", "-o", "m"];
        let said = old.run(&[&args[..], how].concat()).ends(0);
        assert!(!said.contains(SECRET), "{said}");
        let mut found = without_source("m");
        assert_eq!(found[1].user, "u1@example.com");
        found[1].user = "user0001".to_owned();
        assert_eq!(found, table);
    }
}

#[test]
fn tls_is_spoken_unless_told_otherwise_and_a_certificate_is_asked_for_once() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let certificates = certificates_in(&host);
    let pin = fingerprint(certificates.path());
    let implicit = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(old) = Old::start(&shown_by_dovecot(&host, &certificates, implicit)) else {
        return;
    };
    let users = names(6);
    old.fill(&users);
    old.table(with_password(&users));
    old.run_table(&[]).ends(0);
    let entries = || -> Vec<_> {
        old.maildrops("x").into_iter().map(|maildrop| (maildrop.user, maildrop.entries)).collect()
    };
    let in_the_clear = entries();

    let at = |port: u16, how: &[&str]| {
        let args = [&["--accounts", "accounts.csv", "-o", "x", "--patience", "0s"], how].concat();
        ran(&mut old.capture_at(port, &args))
    };
    let said = at(implicit, &[]).ends(2);
    assert!(said.contains("its certificate is not trusted"), "{said}");
    assert!(said.contains(&pin.replace(':', "").to_lowercase()), "{said}");
    assert!(said.contains("; 5 accounts are not tried"), "{said}");
    assert_eq!(entries(), in_the_clear, "the listing stays");
    let plain = old.server.pop3().port();
    at(plain, &["--starttls"]).ends(2);
    for (port, how) in [
        (implicit, &["--pin", &pin][..]),
        (implicit, &["--tls", "--insecure"]),
        (plain, &["--starttls", "--pin", &pin]),
    ] {
        at(port, how).ends(0);
        assert_eq!(entries(), in_the_clear, "{how:?}");
    }
    old.logins();
    let log = old.server.log();
    let secured = |line: &&str| is_login(line) && line.contains(", TLS, ");
    assert_eq!(log.lines().filter(secured).count(), 3 * users.len(), "{log}");
}

#[test]
fn a_password_is_nowhere_but_at_the_server() {
    let extra = format!(
        "protocol pop3 {{\n  pop3_lock_session = yes\n}}\n\
         {}",
        passdb(Line::subject(), "static", SECRET, "")
    );
    let Some(old) = Old::start(&extra) else { return };
    let users = names(3);
    old.fill(&users);
    // The server refuses one for it, one has to wait, and one is well.
    old.table([("user0000", SECRET), ("user0001", SECRET), ("user0002", "hunter2-secret-wrong")]);
    let session = old.server.login("user0001").expect("a session");
    // The helper runs as a user who is not root, to see what his other processes can see.
    let owner = crate::support::OWNER.to_string();
    for name in [".", "accounts.csv"] {
        std::os::unix::fs::chown(
            old.file(name),
            Some(crate::support::OWNER),
            Some(crate::support::OWNER),
        )
        .expect("root");
    }
    let said = old.file("said");
    let helper = old.capture(&["--accounts", "accounts.csv", "-o", "x"]);
    let child = Command::new("setpriv")
        .args(["--reuid", &owner, "--regid", &owner, "--clear-groups"])
        .arg(helper.get_program())
        .args(helper.get_args())
        .current_dir(old.here.path())
        .stdin(Stdio::null())
        .stderr(fs::File::create(&said).expect("ours"))
        .spawn()
        .expect("setpriv");
    let running = Running { child, said };
    running.wait_until_it_says("[IN-USE]");

    let process = PathBuf::from(format!("/proc/{}", running.child.id()));
    let read = |name: &str| fs::read(process.join(name)).expect(name);
    let has_it = |octets: &[u8]| octets.windows(SECRET.len()).any(|at| at == SECRET.as_bytes());
    assert!(!has_it(&read("cmdline")) && !has_it(&read("environ")));
    let limits = String::from_utf8(read("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // Root owns the file there, so its own user cannot read it: it is not dumpable.
    assert_eq!(process.join("environ").metadata().unwrap().uid(), 0);
    assert!(!has_it(old.read("x.journal").as_bytes()));

    session.quit().expect("its end");
    let said = running.end().ends(1);
    assert!(!said.contains(SECRET), "{said}");
    assert!(!old.read("x").contains(SECRET));
    assert_eq!(old.maildrops("x")[2].state, State::Failed);
}
