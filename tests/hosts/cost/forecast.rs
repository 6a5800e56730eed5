//! The time that a forecast takes beside the reading of the same mail.
//!
//! The figures are the time that the operator waits. `cat` reads all mail once, one file after the
//! other; the forecast reads as many maildrops at a time as there are processors. The two take
//! turns; each figure is the median, and the page cache is warm. Where Dovecot is asked, it is
//! compared with logging in once as each user.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Bench;
use super::table::{Goal, Row};
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::imap;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

const MAILDROPS: u32 = 300;
const MESSAGES: u32 = 300;
/// Asked through Dovecot: fewer, for each is filled by IMAP.
const ASKED: u32 = 30;
const ROUNDS: usize = 5;

/// Forecasts of Maildirs and of mdboxes.
pub fn all(bench: &Bench) {
    if !bench.asks("forecast") {
        return;
    }
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let Some(server) = Dovecot::start(&host, Config::default().with_plugin()) else { return };
    for user in (0..MAILDROPS).map(user) {
        let maildir = Maildir::create(server.mail(&user));
        for number in 0..MESSAGES {
            maildir.deliver(&Message::everyday(number), Naming::Qmail, number);
        }
    }
    let files = files_of(&server);
    for (keys, aim) in [("file", 0.2), ("header", 1.0), ("message", 2.0)] {
        build(&server, keys, MAILDROPS);
        let (cat, ours) = take_turns(|| cat(&files), || forecast(&server, MAILDROPS));
        let what =
            format!("forecast by {keys}, {MAILDROPS} Maildirs, elapsed, beside `cat` of all");
        Row::of_times(format!("forecast/{keys}"), what, Goal::AtMost(aim), (ours, cat)).print();
    }
    drop(server);
    asked(&host);
}

/// mdbox: Dovecot reads, and we beside it.
fn asked(host: &Host) {
    let config = Config::default().store(Store::Mdbox).with_plugin();
    let Some(server) = Dovecot::start(host, config) else { return };
    let wire: Vec<Vec<u8>> =
        (0..MESSAGES).map(|number| Message::everyday(number).on_the_wire()).collect();
    for user in (0..ASKED).map(user) {
        imap::append_old(server.imap(), &user, wire.iter().map(Vec::as_slice));
    }
    // A site by headers, of the same messages in Maildirs.
    for user in (0..ASKED).map(user) {
        let maildir = Maildir::create(server.home(&user).join("Maildir"));
        for number in 0..MESSAGES {
            maildir.deliver(&Message::everyday(number), Naming::Qmail, number);
        }
    }
    build(&server, "header", ASKED);
    let logins = || {
        let started = Instant::now();
        (0..ASKED).map(user).for_each(|user| drop(server.uidl(&user)));
        started.elapsed()
    };
    let ours = median(&mut (0..ROUNDS).map(|_| forecast(&server, ASKED)).collect::<Vec<_>>());
    let what = format!("forecast of {ASKED} mdboxes, elapsed, beside a login of each");
    Row::of_times("forecast/mdbox", what, Goal::AtMost(1.0), (ours, logins())).print();
}

fn user(number: u32) -> String {
    format!("user{number}@example.com")
}

fn build(server: &Dovecot, keys: &str, maildrops: u32) {
    let mut listing = Vec::new();
    for user in (0..maildrops).map(user) {
        let mut capture = helper::uidl_keep();
        capture.args(["capture", "qmail", "--keys", keys, "--user", &user]);
        capture.arg(server.home(&user).join("Maildir"));
        listing.extend(helper::run(&mut capture));
    }
    let file = server.dir().join("old.listing");
    fs::write(&file, listing).expect("our directory");
    let _ = fs::remove_dir_all(server.site());
    fs::create_dir(server.site()).expect("our directory");
    helper::build_site(&server.site(), &file);
}

fn files_of(server: &Dovecot) -> String {
    let mut names = String::new();
    for user in (0..MAILDROPS).map(user) {
        for file in Maildir::open(server.mail(&user)).files() {
            let _ = write!(names, "{}\0", file.display());
        }
    }
    let list = server.dir().join("files");
    fs::write(&list, names).expect("our directory");
    list.to_str().expect("UTF-8").to_owned()
}

fn cat(files: &str) -> Duration {
    let started = Instant::now();
    let mut cat = Command::new("xargs");
    cat.args(["-0", "-a", files, "cat", "--"]).stdout(Stdio::piped());
    let mut child = cat.spawn().expect("xargs");
    let mut said = child.stdout.take().expect("a pipe");
    std::io::copy(&mut said, &mut std::io::sink()).expect("cat");
    assert!(child.wait().expect("our child").success());
    started.elapsed()
}

fn forecast(server: &Dovecot, maildrops: u32) -> Duration {
    let mut command = server.forecast(&[]);
    let started = Instant::now();
    let said = String::from_utf8(helper::run(&mut command)).expect("text");
    let took = started.elapsed();
    assert!(said.contains(&format!("total: {maildrops} maildrops (0 !, 0 *, 0 -, 0 +,")), "{said}");
    took
}

/// The medians of two that take turns. The first turn is left out: it warms the page cache.
fn take_turns(one: impl Fn() -> Duration, other: impl Fn() -> Duration) -> (Duration, Duration) {
    let turn = || (one(), other());
    turn();
    let (mut ones, mut others): (Vec<Duration>, Vec<Duration>) =
        (0..ROUNDS).map(|_| turn()).unzip();
    (median(&mut ones), median(&mut others))
}

fn median(costs: &mut [Duration]) -> Duration {
    costs.sort_unstable();
    costs[costs.len() / 2]
}
