//! Captures over POP3 from servers that take tokens in the place of passwords, or passwords only by
//! their MD5. A real Dovecot checks the signature of a token itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::shared::capture::{Ran, uidls};
use crate::support::dovecot::{Config, Dovecot, free_port};
use crate::support::helper::uidl_keep;
use crate::support::host::{Host, Line, Scratch, Unfit};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::tls::{certificates_in, fingerprint, shown_by_dovecot};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::State;

/// Tokens are signed with this.
const KEY: &[u8] = b"a key that a test has made up, as long as it takes";

/// A Dovecot that takes tokens, by these mechanisms, and a directory for scripts.
struct Old {
    server: Dovecot,
    dir: tempfile::TempDir,
}

impl Old {
    fn start(mechanisms: &str) -> Option<Self> {
        if Unfit::Spelling.is_asked() {
            return None;
        }
        let host = Host::dovecot(Line::V23)?;
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let keys = dir.path().join("keys/default/HS256");
        fs::create_dir_all(&keys).expect("ours");
        fs::write(keys.join("default"), STANDARD.encode(KEY)).expect("ours");
        let oauth2 = dir.path().join("oauth2.conf");
        let text = format!(
            "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={}/\n\
             username_attribute = sub\n",
            dir.path().join("keys").display()
        );
        fs::write(&oauth2, text).expect("ours");
        let extra = format!(
            "auth_mechanisms = {mechanisms}\npassdb {{\n  driver = oauth2\n  \
             mechanisms = xoauth2 oauthbearer\n  args = {}\n}}\n",
            oauth2.display()
        );
        let server = Dovecot::start(&host, Config { extra, ..Config::default() })?;
        Some(Self { server, dir })
    }

    fn fill(&self, user: &str, count: u32) {
        let maildir = Maildir::create(self.server.mail(user));
        for number in 0..count {
            maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A script that prints the next of the tokens of its last argument, and the last of them for
    /// ever.
    fn command(&self, tokens: &[(&str, &[String])]) -> String {
        for (user, tokens) in tokens {
            for (number, token) in (1..).zip(*tokens) {
                fs::write(self.path(&format!("{user}.{number}")), token).expect("ours");
            }
        }
        let script = self.path("token");
        let text = "#!/bin/sh\ncd $(dirname $0)\necho $1 >> log\nat=$(grep -cx $1 log)\n\
                    while [ ! -e $1.$at ] && [ $at -gt 0 ]; do at=$((at - 1)); done\ncat $1.$at\n";
        fs::write(&script, text).expect("ours");
        format!("/bin/sh {}", script.display())
    }

    /// The users for whom the script was run, sorted.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let mut log: Vec<String> = log.lines().map(str::to_owned).collect();
        log.sort();
        log
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = uidl_keep();
        let at = self.server.pop3();
        command.args(["capture", "pop3"]).args(args).current_dir(self.dir.path());
        command.args([format!("--host={}", at.ip()), format!("--port={}", at.port())]);
        Ran::of(command)
    }
}

/// A token for a user that runs out so many seconds from now.
fn token(user: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let now = i64::try_from(now).expect("a clock");
    let (begun, ends) = (now - 7200, now + seconds);
    // It is as long as those of the large providers, so that it does not fit into a command.
    let padding = "x".repeat(600);
    let claims =
        format!(r#"{{"sub":"{user}","iat":{begun},"nbf":{begun},"exp":{ends},"pad":"{padding}"}}"#);
    let parts =
        [r#"{"alg":"HS256","typ":"JWT"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = parts.join(".");
    let mut hmac = Hmac::<Sha256>::new_from_slice(KEY).expect("any key");
    hmac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac.finalize().into_bytes()))
}

#[test]
fn a_token_opens_an_account_by_either_mechanism_and_one_that_expired_is_asked_for_anew() {
    for mechanism in ["xoauth2", "oauthbearer", "plain xoauth2 oauthbearer"] {
        let Some(old) = Old::start(mechanism) else { return };
        old.fill("alice", 12);
        old.fill("bob", 6);
        let command = old.command(&[
            ("alice", &[token("alice", -60), token("alice", 3600)]),
            ("bob", &[token("bob", 3600)]),
            // His token is another's, and stays so.
            ("carol", &[token("dave", 3600)]),
        ]);
        fs::write(old.path("users"), "alice alice@example.com\nbob\ncarol\n").unwrap();
        let args = ["--clear", "--users", "users", "--token-command", &command, "--output", "x"];
        let ran = old.run(&args);
        assert_eq!(ran.status, 1, "{mechanism}: {}", ran.stderr);
        let blocks: Vec<_> =
            Reader::new(&fs::read(old.path("x")).unwrap()[..]).map(|one| one.unwrap()).collect();
        let found: Vec<_> =
            blocks.iter().map(|one| (&one.user[..], one.state, one.entries.len())).collect();
        assert_eq!(
            found,
            [
                ("alice@example.com", State::Captured, 12),
                ("bob", State::Captured, 6),
                ("carol", State::Failed, 0)
            ],
            "{mechanism}: {}",
            ran.stderr
        );
        ran.says("carol: it refused the login: ");
        assert_eq!(old.log(), ["alice", "alice", "bob", "carol", "carol"], "{mechanism}");
        let said = ran.stderr + &fs::read_to_string(old.path("x")).unwrap();
        assert!(!said.contains(&token("bob", 3600)[..40]), "{said}");
    }
}

#[test]
fn a_table_has_no_passwords_where_tokens_are_taken() {
    let Some(old) = Old::start("xoauth2") else { return };
    old.fill("alice", 3);
    let command = old.command(&[("alice", &[token("alice", 3600)])]);
    let table = |text: &str| {
        fs::write(old.path("t.csv"), text).unwrap();
        fs::set_permissions(old.path("t.csv"), fs::Permissions::from_mode(0o600)).unwrap();
        old.run(&["--clear", "--accounts=t.csv", "--output=x", "--token-command", &command])
    };
    table("user,password\nalice,x\n").is_refused("a column \"password\" beside --token-command");
    let ran = table("user,new_user\nalice,a@example.com\n");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}

#[test]
fn a_server_without_tokens_and_a_command_without_one_are_called_that() {
    let Some(old) = Old::start("plain") else { return };
    old.fill("alice", 3);
    let command = old.command(&[("alice", &[token("alice", 3600)])]);
    let ran = old.run(&["--clear", "--user=alice", "--output=x", "--token-command", &command]);
    ran.is_refused("alice: it offers neither AUTH OAUTHBEARER nor AUTH XOAUTH2");
    let ran = old.run(&["--clear", "--user=alice", "--output=x", "--token-command=/bin/false"]);
    ran.is_refused("alice: no token: /bin/false: exit status: 1");
    let ran = old.run(&["--clear", "--user=alice", "--token-command= "]);
    ran.is_refused("--token-command: it is empty");
}

/// A Dovecot that takes no password as it is, with TLS on a port of its own.
fn with_tls(host: &Host, mechanisms: &str, certificates: &Scratch) -> Option<(Dovecot, u16)> {
    let tls = free_port().port();
    let shown = shown_by_dovecot(host, certificates, tls);
    let extra = format!("auth_mechanisms = {mechanisms}\n{shown}");
    Some((Dovecot::start(host, Config { extra, ..Config::default() })?, tls))
}

#[test]
fn a_password_is_said_by_its_md5_where_nothing_else_is_offered_and_the_line_is_secret() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let dir = certificates_in(&host);
    for (mechanisms, name) in [("cram-md5", "AUTH CRAM-MD5"), ("apop", "APOP")] {
        let Some((server, tls)) = with_tls(&host, mechanisms, &dir) else { return };
        let maildir = Maildir::create(server.mail("alice"));
        for number in 0..5 {
            maildir.deliver(&Message::plain(number), Naming::Dovecot, number);
        }
        let password = dir.path().join("pw");
        fs::write(&password, crate::support::PASSWORD).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let run = |port: u16, args: &[&str]| {
            let mut command: Command = uidl_keep();
            command.args(["capture", "pop3", "--host=127.0.0.1", "--user=alice"]).args(args);
            command.arg(format!("--port={port}")).arg("--password-file").arg(&password);
            Ran::of(command)
        };
        let pin = format!("--pin={}", fingerprint(dir.path()));
        for (port, how) in [(tls, "--tls"), (server.pop3().port(), "--starttls")] {
            let ran = run(port, &[how, &pin]);
            assert_eq!(ran.status, 0, "{mechanisms} {how}: {}", ran.stderr);
            assert_eq!(uidls(&ran.blocks()[0]).len(), 5);
        }
        let ran = run(server.pop3().port(), &["--clear", "--output=/nonexistent/x"]);
        assert_eq!(ran.status, 2);
        let ran = run(server.pop3().port(), &["--clear"]);
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        ran.says(&format!("it offers only {name} without TLS"));
    }
}
