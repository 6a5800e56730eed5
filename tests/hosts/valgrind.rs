//! The plugin under valgrind, in a real Dovecot: a login that resolves, a warm one, a refused one.
//!
//! The test counts every error and every block lost that has the plugin in its stack; Dovecot's
//! own, and memory still reachable when the process ends, are not ours to judge.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line, Unfit};
use crate::support::lacking;
use crate::support::mail;
use crate::support::maildir::{Maildir, Naming, make_owned};
use crate::support::pop3::Refused;

const USER: &str = "alice@example.com";

/// The number of messages. The capture has the key of each that makes the plugin read it, and its
/// body if the header repeats.
const MESSAGES: u32 = 30;

#[test]
fn a_login_makes_no_memory_error_of_ours_and_leaves_nothing_of_ours_behind() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return lacking("valgrind is not installed: run `make deps`");
    }
    if Unfit::NoTools.is_asked() {
        return;
    }
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let Some(dovecot) = Dovecot::start(&host, Config::default().with_plugin()) else { return };
    let maildir = Maildir::create(dovecot.mail(USER));
    for (number, message) in (1..).zip(mail::maildrop(MESSAGES)) {
        maildir.deliver(&message, Naming::Qmail, number);
    }
    capture(&dovecot, &maildir);

    let first = listing(&dovecot, "first").expect("resolved");
    assert_eq!(first.len(), MESSAGES as usize);
    assert!(first.iter().all(|uidl| uidl.ends_with(".old.example.com")), "{first:?}");
    assert_eq!(listing(&dovecot, "warm").as_ref(), Ok(&first));

    let ledger = maildir.path().join("uidl-keep.ledger");
    assert!(ledger.metadata().unwrap().uid() == crate::support::OWNER);
    fs::File::options().write(true).open(&ledger).unwrap().set_len(100).unwrap();
    let refused = listing(&dovecot, "refused").expect_err("half a ledger");
    assert!(refused.0.starts_with("-ERR [SYS/TEMP] "), "{refused:?}");
}

/// Builds a site from the helper's capture; then gives other file names, so that only the content
/// of the messages tells which is which.
fn capture(dovecot: &Dovecot, maildir: &Maildir) {
    let listing = dovecot.dir().join("listing");
    let captured = helper::run(
        helper::uidl_keep()
            .args(["capture", "qmail", "--keys", "header", "--user", USER])
            .arg(maildir.path()),
    );
    fs::write(&listing, captured).unwrap();
    helper::build_site(&dovecot.site(), &listing);
    for file in maildir.files() {
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::rename(&file, file.with_file_name(name.replace(".old.", ".new."))).unwrap();
    }
}

/// Runs a session under valgrind up to its listing. Returns that, and valgrind's report.
fn listing(dovecot: &Dovecot, what: &str) -> Result<Vec<String>, Refused> {
    let dir = dovecot.dir().join("valgrind");
    make_owned(&dir);
    let report = dir.join(what);
    // Dovecot runs itself once more, by way of doveconf: the last of the three writes the report.
    let log = format!("--log-file={}", report.display());
    let valgrind = [
        "valgrind",
        "--trace-children=yes",
        "--vgdb=no",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect,possible",
        // Stacks must reach from malloc to the plugin, also when it has been unloaded.
        "--num-callers=100",
        "--keep-debuginfo=yes",
        &log,
    ];
    let (mut session, mut child) = dovecot.process_under(&valgrind, USER);
    let listing = session.uidl();
    if listing.is_ok() {
        session.quit().unwrap();
    } else {
        drop(session);
    }
    let status = child.wait().unwrap();
    assert!(status.code().is_some(), "{what}: {status}\n{}", dovecot.process_log());
    let report = fs::read_to_string(&report).unwrap();
    assert!(report.contains("Command: /usr/lib/dovecot/pop3"), "{what}: {report}");
    assert!(report.contains("ERROR SUMMARY"), "{what}: {report}");
    assert_eq!(ours(&report), [""; 0], "{what}");
    listing
}

/// The records of a report that have our code in their stacks: an empty line ends each.
fn ours(report: &str) -> Vec<String> {
    let lines = report.lines().map(|line| line.splitn(3, "==").last().unwrap_or_default().trim());
    let text: Vec<&str> = lines.collect();
    let records = text.split(|line| line.is_empty()).map(|lines| lines.join("\n"));
    records.filter(|record| record.contains("uidl_keep")).collect()
}
