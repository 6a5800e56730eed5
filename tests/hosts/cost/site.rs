//! The helper on a site of very many users: what a login looks up there, and what it costs to build
//! and to change.

use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::Bench;
use super::measure::{Spent, median, run};
use super::table::{Goal, Row, Unit};
use crate::support::helper;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use uidl_keep::file::map::Mapped;
use uidl_keep::index::Index;
use uidl_keep::site::Site;
use uidl_keep::site::roster;

/// The messages of each user.
const MESSAGES: u32 = 20;

/// Everything that is done with a site.
pub fn all(bench: &Bench) {
    let names = ["lookup-index", "lookup-roster", "build", "delta", "hold"];
    if names.iter().any(|name| bench.asks(name)) {
        let dir = tempfile::tempdir().expect("a directory");
        let block = block(dir.path());
        let many = bench.messages * 5;
        let sites = [many / 100, many].map(|users| built(dir.path(), &block, users));
        look_up(bench, &sites);
        build(bench, &sites[1]);
        change(bench, &sites, &block);
    }
    if bench.asks("build-domains") {
        domains(bench);
    }
}

/// A site of one domain, with the listing of which it was built.
struct Built {
    users: u32,
    listing: PathBuf,
    site: PathBuf,
    spent: Spent,
}

/// The block of a user, as it is captured.
fn block(dir: &Path) -> String {
    let maildir = Maildir::create(dir.join("Maildir"));
    for number in 0..MESSAGES {
        maildir.deliver(&Message::plain(number), Naming::Courier, number);
    }
    let mut capture = helper::uidl_keep();
    capture.args(["capture", "qmail", "--user", "user@example.com"]).arg(maildir.path());
    String::from_utf8(helper::run(&mut capture)).expect("a listing is ASCII")
}

fn built(dir: &Path, block: &str, users: u32) -> Built {
    let listing = dir.join(format!("{users}.listing"));
    write_listing(&listing, block, users, |user| format!("user{user}@example.com"));
    let site = dir.join(format!("site-{users}"));
    let spent =
        run(helper::uidl_keep().args(["build", "--no-check", "-o"]).arg(&site).arg(&listing));
    Built { users, listing, site, spent }
}

fn write_listing(listing: &Path, block: &str, users: u32, name: impl Fn(u32) -> String) {
    let mut out = std::io::BufWriter::new(fs::File::create(listing).expect("our directory"));
    for user in 0..users {
        let of_user = block.replace("user@example.com", &name(user));
        out.write_all(of_user.as_bytes()).expect("room");
    }
    out.flush().expect("room");
}

/// What a login looks up: a line of the roster, and the block of an index.
fn look_up(bench: &Bench, sites: &[Built]) {
    let whats = ["roster look-up: open, and find a user", "index look-up: open, and read a user"];
    let [mut of_roster, mut of_index] = [("lookup-roster", whats[0]), ("lookup-index", whats[1])]
        .map(|(name, what)| Row::new(name, what, Unit::Microseconds, Goal::AtMost(15.0)));
    for built in sites {
        let site = Site::new(&built.site);
        let users = (0..999).map(|round| format!("user{}@example.com", round * 617 % built.users));
        let (rosters, indexes): (Vec<Duration>, Vec<Duration>) = users
            .map(|user| {
                let started = Instant::now();
                let roster = site.open_roster(&user).expect("a roster").expect("a roster");
                black_box(roster::lookup(&roster, &user).expect("sound").expect("on it"));
                let found = Instant::now();
                let index = site.open_index(&user).expect("an index").expect("an index");
                let index = Index::open(Mapped::new(index).expect("a map")).expect("sound");
                black_box(index.maildrop(&user).expect("sound").expect("in it"));
                (found - started, found.elapsed())
            })
            .unzip();
        for (row, times) in [(&mut of_roster, rosters), (&mut of_index, indexes)] {
            row.add(format!("{} users", built.users), median(times).as_secs_f64() * 1e6);
        }
    }
    for (row, name) in [(of_roster, "lookup-roster"), (of_index, "lookup-index")] {
        if bench.asks(name) {
            row.print();
        }
    }
}

/// How many messages are built in a second of a processor, beside those that `sort` sorts.
fn build(bench: &Bench, built: &Built) {
    if !bench.asks("build") {
        return;
    }
    let messages = f64::from(built.users * MESSAGES) / 1e6;
    let a_second = |spent: Spent| messages / spent.processor.as_secs_f64();
    let mut sort = Command::new("sort");
    sort.env("LC_ALL", "C").arg("-o").arg("/dev/null").arg(&built.listing);
    let sorted = run(&mut sort);
    let what = format!("build of {} users: messages a second, beside `sort`", built.users);
    // Two million messages a second, where `sort` has 1.3.
    let mut row = Row::new("build", what, Unit::Ratio, Goal::AtLeast(1.54));
    let (ours, sorted) = (a_second(built.spent), a_second(sorted));
    row.add("", ours / sorted);
    row.beside(format!("{ours:.2} M / {sorted:.2} M a second of a processor"));
    row.print();
}

/// Something that the helper does to a site.
type Change<'a> = &'a dyn Fn(&Built) -> Spent;

/// What it costs to change one user, in a domain of many beside one of few.
fn change(bench: &Bench, sites: &[Built; 2], block: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let listing = dir.path().join("delta.listing");
    write_listing(&listing, block, 1, |_| "user7@example.com".to_owned());
    let delta = |built: &Built| {
        let site = dir.path().join("with-delta");
        let _ = fs::remove_dir_all(&site);
        let mut build = helper::uidl_keep();
        build.args(["build", "--no-check", "--base"]).arg(&built.site).arg("-o").arg(&site);
        run(build.arg(&listing))
    };
    let hold = |built: &Built| {
        let mut hold = helper::uidl_keep();
        run(hold.args(["hold", "--no-check", "--site"]).arg(&built.site).arg("user7@example.com"))
    };
    let changes: [(&str, &str, Change<'_>); 2] =
        [("delta", "a later capture of one user", &delta), ("hold", "hold of one user", &hold)];
    for (name, what, change) in changes {
        if !bench.asks(name) {
            continue;
        }
        let [few, many] = [0, 1].map(|which| {
            let costs = [(); 3].map(|()| change(&sites[which]));
            let best = costs.into_iter().min_by_key(|spent| spent.processor);
            best.expect("three")
        });
        let users = format!("{} users beside {}", sites[1].users, sites[0].users);
        let rows = [
            ("processor", many.processor.as_secs_f64(), few.processor.as_secs_f64(), "s"),
            ("memory", many.peak_kib as f64 / 1024.0, few.peak_kib as f64 / 1024.0, "MB"),
        ];
        for (of, many, few, unit) in rows {
            let what = format!("{what}, {of}: {users}");
            let name = format!("{name}/{of}");
            let mut row = Row::new(name, what, Unit::Ratio, Goal::AtMost(2.0));
            row.add("", many / few);
            row.beside(format!("{many:.2} / {few:.2} {unit}"));
            row.print();
        }
    }
}

/// How long a build of many domains takes beside the writing of its files, one after the other,
/// each safe on the disk before the next.
fn domains(bench: &Bench) {
    let dir = tempfile::tempdir().expect("a directory");
    let (listing, site) = (dir.path().join("listing"), dir.path().join("site"));
    let domains = bench.messages / 20;
    let block = block(dir.path());
    write_listing(&listing, &block, domains, |domain| format!("user@domain{domain}.example"));
    let started = Instant::now();
    helper::run(helper::uidl_keep().args(["build", "--no-check", "-o"]).arg(&site).arg(&listing));
    let ours = started.elapsed();
    let copies = dir.path().join("copies");
    fs::create_dir(&copies).expect("our directory");
    let directory = fs::File::open(&copies).expect("our directory");
    let started = Instant::now();
    for entry in fs::read_dir(site.join("domain")).expect("the site") {
        let entry = entry.expect("the site");
        let (beside, copy) = (copies.join(".new"), copies.join(entry.file_name()));
        fs::copy(entry.path(), &beside).expect("room");
        fs::File::open(&beside).expect("ours").sync_all().expect("a disk");
        fs::rename(&beside, copy).expect("ours");
        directory.sync_all().expect("a disk");
    }
    let one_by_one = started.elapsed();
    let what = format!("build of {domains} domains, elapsed, beside its files synced one by one");
    let goal = Goal::AtMost(0.33);
    Row::of_times("build-domains", what, goal, (ours, one_by_one)).print();
}
