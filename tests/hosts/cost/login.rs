//! Measures how much uidl-keep costs a POP3 login, as ratios within one run: `make bench`.
//!
//! The figures are processor time of Dovecot's own `pop3` process on a socket pair, from its start,
//! as the kernel counts it (`/proc/PID/schedstat`). They include neither the client's waiting nor
//! its work. The two sides, with and without the plugin, take turns on equal mailboxes; each figure
//! is the median. The page cache is warm. Nothing is asserted: the aims are printed beside the
//! figures.

use std::cell::Cell;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::lacking;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Pop3;
use uidl_keep::file::map::Mapped;
use uidl_keep::index::Index;
use uidl_keep::site::Site;
use uidl_keep::site::roster;

const USER: &str = "alice@example.com";
const MESSAGES: u32 = 20_000;
const ROUNDS: usize = 9;

#[test]
#[ignore = "a measurement: make bench"]
fn what_a_login_costs() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    if !Path::new("/proc/self/schedstat").exists() {
        lacking("this kernel has no /proc/PID/schedstat (CONFIG_SCHED_INFO)");
        return;
    }
    println!(
        "{MESSAGES} messages, Maildir, medians of {ROUNDS}; processor time of the pop3 process\n"
    );
    println!("{:<46} {:>10} {:>10} {:>7}  aim", "", "without", "with", "ratio");

    let Some(sides) = Sides::new(&host, Naming::Dovecot, "file") else { return };
    sides.first_login("first login, file key, sizes in file names");
    sides.warm();
    sides.login_with_one_new_message();
    drop(sides);

    let Some(sides) = Sides::new(&host, Naming::Qmail, "header") else { return };
    sides.first_login("first login, header key, each read for its size");
    sides.index_size();
    drop(sides);

    users();
}

/// Equal mailboxes on two servers; one server has the plugin.
struct Sides {
    with: Dovecot,
    without: Dovecot,
}

/// The cost of one session.
struct Cost {
    login: Duration,
    uidl: Duration,
    memory_kib: i64,
}

impl Sides {
    fn new(host: &Host, naming: Naming, keys: &str) -> Option<Self> {
        let with = Dovecot::start(host, Config::default().with_plugin())?;
        let without = Dovecot::start(host, Config::default())?;
        for server in [&with, &without] {
            let maildir = Maildir::create(server.mail(USER));
            for number in 0..MESSAGES {
                maildir.deliver(&Message::everyday(number), naming, number);
            }
        }
        build_site_with_keys(&with, &with.site(), keys);
        Some(Self { with, without })
    }

    /// Makes every login the first: all files that we wrote beside the mail are removed before it.
    fn first_login(&self, what: &str) {
        let (with, without) = self.take_turns(|server| {
            forget_all_but_mail(&server.mail(USER));
            session(server, 0).login
        });
        print_line(what, without, with, 1.2);
        assert!(self.with.uidl(USER)[0].contains(".old.example.com"), "the plugin is at work");
    }

    fn warm(&self) {
        let (with, without) = self.take_turns(|server| session(server, 5));
        let median_of = |costs: &[Cost], of: fn(&Cost) -> Duration| median(costs.iter().map(of));
        let of_login: fn(&Cost) -> Duration = |cost| cost.login;
        let of_uidl: fn(&Cost) -> Duration = |cost| cost.uidl;
        print_line_of("warm login", median_of(&without, of_login), median_of(&with, of_login), 1.1);
        print_line_of("warm UIDL", median_of(&without, of_uidl), median_of(&with, of_uidl), 0.8);
        let memory = |costs: &[Cost]| median(costs.iter().map(|cost| cost.memory_kib));
        let (with, without) = (memory(&with), memory(&without));
        println!(
            "{:<46} {without:>6} KiB {with:>6} KiB {:>+7}  < +1024 KiB",
            "memory, warm",
            with - without
        );
    }

    /// The most common login: a client that leaves its mail asks for new mail.
    fn login_with_one_new_message(&self) {
        let next = Cell::new(MESSAGES);
        let (with, without) = self.take_turns(|server| {
            let number = next.replace(next.get() + 1);
            let maildir = Maildir::create(server.mail(USER));
            maildir.deliver(&Message::everyday(number), Naming::Dovecot, number);
            session(server, 0).login
        });
        print_line("login with one new message", without, with, 1.2);
    }

    fn index_size(&self) {
        let site = self.with.dir().join("both-keys");
        build_site_with_keys(&self.with, &site, "file,header");
        let index = fs::metadata(site.join("domain/example.com.idx")).expect("built").len();
        let uidls: usize = self.with.uidl(USER).iter().map(String::len).sum();
        println!(
            "{:<46} {:>21.1} octets   <= 48",
            "index, a message beside its UIDL",
            (index - uidls as u64) as f64 / f64::from(MESSAGES)
        );
    }

    /// The costs of the two sides in turns. The first turn is left out: it warms the page cache.
    fn take_turns<T>(&self, cost: impl Fn(&Dovecot) -> T) -> (Vec<T>, Vec<T>) {
        let turn = || (cost(&self.with), cost(&self.without));
        turn();
        (0..ROUNDS).map(|_| turn()).unzip()
    }
}

fn build_site_with_keys(server: &Dovecot, site: &Path, keys: &str) {
    let mut capture = helper::uidl_keep();
    capture.args(["capture", "qmail", "--keys", keys, "--user", USER]).arg(server.mail(USER));
    let listing = server.dir().join("listing");
    fs::write(&listing, helper::run(&mut capture)).expect("our directory");
    helper::build_site(site, &listing);
}

fn session(server: &Dovecot, uidls: u32) -> Cost {
    let (mut pop3, mut child) = server.process(USER);
    pop3.command("STAT").unwrap_or_else(|refused| panic!("{refused:?}\n{}", server.log()));
    let login = processor_time(&child);
    for _ in 0..uidls {
        pop3.uidl().expect("UIDL");
    }
    let all = processor_time(&child);
    let memory_kib = anonymous_memory_kib(&child);
    quit(pop3, &mut child);
    Cost { login, uidl: (all - login) / uidls.max(1), memory_kib }
}

fn quit(pop3: Pop3, child: &mut Child) {
    pop3.quit().expect("QUIT");
    assert!(child.wait().expect("our child").success(), "pop3");
}

/// The processor time so far, once the process waits for the next command.
fn processor_time(child: &Child) -> Duration {
    std::thread::sleep(Duration::from_millis(5));
    let schedstat = format!("/proc/{}/schedstat", child.id());
    let text = fs::read_to_string(&schedstat).expect("it is waiting for us");
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

/// The memory of the process itself, without file pages and shared memory.
fn anonymous_memory_kib(child: &Child) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it is waiting");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse().expect("kB")
}

fn forget_all_but_mail(maildir: &Path) {
    for entry in fs::read_dir(maildir).expect("a Maildir") {
        let entry = entry.expect("a Maildir");
        if entry.file_type().expect("a type").is_file() {
            fs::remove_file(entry.path()).expect("root");
        }
    }
}

// --- many users

/// The cost of building and opening for each user, in sites of few users and of many.
fn users() {
    let few = site_of(10);
    let many = site_of(100_000);
    println!();
    println!("{:<46} {:>10} {:>10} {:>7}  aim", "", "10 users", "100,000", "ratio");
    print_line_of("build, a user of 20 messages", few.build, many.build, 1.0);
    print_line_of("open and look up, a user", few.open, many.open, 1.0);
}

struct Costs {
    build: Duration,
    open: Duration,
}

fn site_of(users: u32) -> Costs {
    let dir = tempfile::tempdir().expect("a directory");
    let maildir = Maildir::create(dir.path().join("Maildir"));
    for number in 0..20 {
        maildir.deliver(&Message::plain(number), Naming::Courier, number);
    }
    let mut capture = helper::uidl_keep();
    capture.args(["capture", "qmail", "--user", "user@example.com"]).arg(maildir.path());
    let block = String::from_utf8(helper::run(&mut capture)).expect("a listing is ASCII");

    let build = |users: u32, rounds: usize| {
        let listing = dir.path().join(format!("{users}.listing"));
        let blocks = (0..users).map(|user| block.replace("user@", &format!("user{user}@")));
        fs::write(&listing, blocks.collect::<String>()).expect("room");
        let times = (0..rounds).map(|round| {
            let site = dir.path().join(format!("site-{users}-{round}"));
            let started = Instant::now();
            helper::build_site(&site, &listing);
            (started.elapsed(), site)
        });
        let (times, mut sites): (Vec<_>, Vec<_>) = times.unzip();
        (median(times), sites.pop().expect("one round at least"))
    };
    // The helper's own start and the two files are the same for any number of users.
    let rounds = if users > 1000 { 1 } else { 41 };
    let (start, _) = build(1, 41);
    let (all, site) = build(users, rounds);

    let site = Site::new(site);
    let open = median((0..999).map(|round| {
        let user = format!("user{}@example.com", round * 617 % users);
        let started = Instant::now();
        let roster = site.open_roster(&user).expect("a roster").expect("a roster");
        black_box(roster::lookup(&roster, &user).expect("sound").expect("on it"));
        let index = site.open_index(&user).expect("an index").expect("an index");
        let index = Index::open(Mapped::new(index).expect("a map")).expect("sound");
        black_box(index.maildrop(&user).expect("sound").expect("in it"));
        started.elapsed()
    }));
    Costs { build: all.saturating_sub(start) / (users - 1), open }
}

// --- figures

fn median<T: Ord + Copy>(of: impl IntoIterator<Item = T>) -> T {
    let mut sorted: Vec<T> = of.into_iter().collect();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn print_line(what: &str, without: Vec<Duration>, with: Vec<Duration>, aim: f64) {
    print_line_of(what, median(without), median(with), aim);
}

fn print_line_of(what: &str, one: Duration, other: Duration, aim: f64) {
    let ratio = other.as_secs_f64() / one.as_secs_f64();
    let (one, other) = (milliseconds(one), milliseconds(other));
    println!("{what:<46} {one:>10} {other:>10} {ratio:>7.2}  <= {aim}");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}
