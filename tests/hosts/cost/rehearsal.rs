//! The time that a rehearsal takes beside first logins without us.
//!
//! Equal mailboxes lie on two servers, and one of these has the plugin. On that one `rehearse`
//! lists all of them, two at a time; on the other the same program lists each, two at a time, for
//! a client that takes UIDL and LIST. Both are first logins.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Bench;
use super::table::{Goal, Row};
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

const USERS: usize = 100;
const MESSAGES: u32 = 300;

fn user(number: usize) -> String {
    format!("user{number}@example.com")
}

/// Fills all mailboxes; gives the listing of what the old server had.
fn fill(server: &Dovecot) -> String {
    let mut listing = String::new();
    for number in 0..USERS {
        let maildir = Maildir::create(server.mail(&user(number)));
        listing += &format!("uidl-keep-listing 1\nmaildrop {}\nstate captured\n", user(number));
        for message in 0..MESSAGES {
            let file = maildir.deliver(&Message::everyday(message), Naming::Dovecot, message);
            let name = file.file_name().unwrap().to_str().unwrap().split(':').next().unwrap();
            listing += &format!("{} kept-{message} file={name}\n", message + 1);
        }
        listing += ".\n";
    }
    listing
}

/// How long the same program takes for a plain client of each user, two at a time.
fn without(server: &Dovecot) -> Duration {
    let conf = server.conf();
    let one = format!(
        "printf 'NOOP\\r\\nCAPA\\r\\nUIDL\\r\\nLIST\\r\\nQUIT\\r\\n' | \
         /usr/lib/dovecot/pop3 -c {} -u \"$1\" 2>&1 | cat >/dev/null",
        conf.display()
    );
    let users: Vec<String> = (0..USERS).map(user).collect();
    let file = server.dir().join("users");
    fs::write(&file, users.join("\n") + "\n").unwrap();
    let begun = Instant::now();
    let mut xargs = Command::new("xargs");
    xargs.args(["-P", "2", "-n", "1", "sh", "-c", &one, "-"]);
    let ran = xargs.stdin(fs::File::open(&file).unwrap()).stdout(Stdio::null()).status();
    assert!(ran.expect("xargs").success());
    begun.elapsed()
}

/// A rehearsal of all, and one more.
pub fn all(bench: &Bench) {
    if !bench.asks("rehearse") {
        return;
    }
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let Some(with) = Dovecot::start(&host, Config::default().with_plugin()) else { return };
    let Some(bare) = Dovecot::start(&host, Config::default()) else { return };
    let listing = with.dir().join("listing");
    fs::write(&listing, fill(&with)).unwrap();
    fill(&bare);
    helper::build_site(&with.site(), &listing);
    let say = |words: &[&str]| {
        let mut command = with.helper();
        command.args(words).arg("--doveadm-args");
        let begun = Instant::now();
        helper::run(command.arg(format!("-c {}", with.conf().display())));
        begun.elapsed()
    };
    say(&["hold", "--all"]);
    let first = without(&bare);
    let rehearsed = say(&["rehearse", "--all"]);
    let again = say(&["rehearse", "--again", "--all"]);
    let warm = without(&bare);
    let what = |words: &str, beside: &str| {
        format!("{words}, {USERS} maildrops of {MESSAGES}, elapsed, beside {beside} logins")
    };
    let first_row = what("rehearse --all", "their first");
    Row::of_times("rehearse/first", first_row, Goal::None, (rehearsed, first)).print();
    let again_row = what("rehearse --again --all", "warm");
    Row::of_times("rehearse/again", again_row, Goal::None, (again, warm)).print();
}
