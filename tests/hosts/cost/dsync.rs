//! A whole migration beside Dovecot's own: `doveadm backup` over IMAP with its pop3-migration
//! plugin, which asks the old server's POP3 for UIDLs.
//!
//! Ours is capture, build, a copy of the files, and the first login. The figures are processor time
//! of all processes on both servers, but for what listens.

use std::process::Command;
use std::time::Duration;

use super::Bench;
use super::measure::{run, wait_for};
use super::sides::{USER, session};
use super::table::{Goal, Row, Unit};
use crate::support::PASSWORD;
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming, make_owned};

/// Mailboxes of two sizes.
pub fn all(bench: &Bench) {
    if !bench.asks("migration") {
        return;
    }
    let Some(host) = Host::dovecot(Line::V23) else { return };
    for messages in [bench.messages / 10, bench.messages] {
        let Some(old) = Dovecot::start(&host, Config::default()) else { return };
        let maildir = Maildir::create(old.mail(USER));
        for number in 0..messages {
            maildir.deliver(&Message::everyday(number), Naming::Dovecot, number);
        }
        // Its clients have listed it before, so that it has its index.
        let uidls = old.uidl(USER);
        assert_eq!(uidls.len(), messages as usize);
        let Some((ours, parts)) = ours(&host, &old, &maildir) else { return };
        let theirs = theirs(&host, &old, &uidls);
        let what = format!(
            "capture, build, copy and first login of {messages}, beside pop3-migration's backup"
        );
        let goal = Goal::AtMost(1.0);
        let mut row = Row::new(format!("migration/{messages}"), what, Unit::Ratio, goal);
        row.add("", ours.as_secs_f64() / theirs.as_secs_f64());
        row.beside(format!("{:.2} ({parts}) / {:.2} s", ours.as_secs_f64(), theirs.as_secs_f64()));
        row.print();
    }
}

fn ours(host: &Host, old: &Dovecot, maildir: &Maildir) -> Option<(Duration, String)> {
    let new = Dovecot::start(host, Config::default().with_plugin())?;
    let listing = new.dir().join("listing");
    let mut capture = helper::uidl_keep();
    capture.args(["capture", "dovecot", "--format", "%08Xu%08Xv", "--user", USER]);
    let captured = run(capture.arg(maildir.path()).arg("-o").arg(&listing)).processor;
    let mut build = helper::uidl_keep();
    build.args(["build", "--final", "--no-check", "-o"]).arg(new.site()).arg(&listing);
    let built = run(&mut build).processor;
    helper::give_to_reader(&new.site());
    let target = new.mail(USER);
    make_owned(&target);
    let mut copy = Command::new("cp");
    copy.arg("-a").args(["cur", "new", "tmp"].map(|sub| maildir.path().join(sub))).arg(&target);
    let copied = run(&mut copy).processor;
    let login = Duration::from_secs_f64(session(&new, 0).whole);
    assert_eq!(new.uidl(USER), old.uidl(USER), "all are kept");
    let parts = [captured, built, copied, login].map(|part| format!("{:.2}", part.as_secs_f64()));
    Some((captured + built + copied + login, parts.join(" + ")))
}

fn theirs(host: &Host, old: &Dovecot, uidls: &[String]) -> Duration {
    let extra = format!(
        "imapc_host = 127.0.0.1\nimapc_port = {}\nimapc_user = %u\nimapc_password = {PASSWORD}\n\
         imapc_features = rfc822.size fetch-headers\n\
         pop3c_host = 127.0.0.1\npop3c_port = {}\npop3c_user = %u\npop3c_password = {PASSWORD}\n\
         namespace old {{\n  prefix = OLD/\n  location = pop3c:\n  \
         list = no\n  hidden = yes\n  separator = /\n}}\n\
         protocol doveadm {{\n  mail_plugins = $mail_plugins pop3_migration\n}}\n\
         plugin {{\n  pop3_migration_mailbox = OLD/INBOX\n}}\n",
        old.imap().port(),
        old.pop3().port()
    );
    let config = Config { extra, ..Config::default() };
    let new = Dovecot::start(host, config).expect("it needs no plugin of ours");
    new.home(USER);
    let before = old.time_of_children();
    let mut backup = new.program("doveadm");
    backup.args(["backup", "-R", "-u", USER, "imapc:"]);
    let child = backup.spawn().expect("doveadm");
    let here = wait_for(child).processor;
    // The old server's processes end a moment after their clients.
    std::thread::sleep(Duration::from_millis(500));
    let there = old.time_of_children() - before;
    assert_eq!(new.uidl(USER), uidls, "all are kept");
    here + there
}
