//! A capture from disk beside `cat` of the same files: processor time.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::Bench;
use super::measure::{median, run};
use super::table::{Goal, Row};
use crate::support::helper;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};

/// One large Maildir, and many small ones.
pub fn all(bench: &Bench) {
    for (name, maildirs) in [("capture-disk/one", 1), ("capture-disk/many", bench.messages / 20)] {
        if !bench.asks(name) {
            continue;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let each = bench.messages / maildirs;
        let mut names = String::new();
        for user in 0..maildirs {
            let maildir = Maildir::create(dir.path().join(format!("user{user}/Maildir")));
            for number in 0..each {
                let file = maildir.deliver(&Message::everyday(number), Naming::Courier, number);
                let _ = write!(names, "{}\0", file.display());
            }
        }
        let list = dir.path().join("files");
        fs::write(&list, names).expect("our directory");
        let turns = (0..bench.rounds).map(|_| (capture(dir.path()), cat(&list)));
        let (ours, cats): (Vec<_>, Vec<_>) = turns.unzip();
        let what = format!("capture by file,header of {maildirs} Maildirs of {each}, beside `cat`");
        Row::of_times(name, what, Goal::AtMost(1.0), (median(ours), median(cats))).print();
    }
}

fn capture(dir: &Path) -> std::time::Duration {
    let mut capture = helper::uidl_keep();
    capture.args(["capture", "qmail", "--pattern"]);
    capture.arg(format!("{}/{{local}}/Maildir", dir.display()));
    run(capture.arg("-o").arg(dir.join("listing"))).processor
}

fn cat(list: &Path) -> std::time::Duration {
    run(Command::new("xargs").args(["-0", "-a"]).arg(list).args(["cat", "--"])).processor
}
