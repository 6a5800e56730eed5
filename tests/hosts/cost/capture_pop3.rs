//! The time that a capture over POP3 takes from a far old server.
//!
//! A private Dovecot plays the old server. A relay before it holds back all octets, either way, for
//! half a round trip. The figures are medians of the time that the operator waits. Ours is compared
//! with a client that asks for one header at a time, and with Dovecot's own pop3-migration plugin,
//! which asks over its pop3c storage.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Bench;
use super::table::{Goal, Row};
use crate::support::PASSWORD;
use crate::support::dovecot::{Config, Dovecot};
use crate::support::helper;
use crate::support::host::{Host, Line, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::pop3::Pop3;

const USER: &str = "alice@example.com";
const MESSAGES: u32 = 2_000;
const ROUND_TRIP: Duration = Duration::from_millis(20);
const ROUNDS: usize = 3;

/// Captures, beside two others.
pub fn all(bench: &Bench) {
    if !bench.asks("capture-pop3") {
        return;
    }
    let Some(host) = Host::dovecot(Line::V23) else { return };
    let Some(old) = Dovecot::start(&host, Config::default()) else { return };
    let maildir = Maildir::create(old.mail(USER));
    for number in 0..MESSAGES {
        maildir.deliver(&Message::everyday(number), Naming::Dovecot, number);
    }
    let uidls = old.uidl(USER);
    let far = relay(old.pop3(), ROUND_TRIP / 2);
    let Some(new) = migrating(&host, &maildir, far) else { return };

    let ours = median(|| capture(&old, far, &uidls));
    let what = |beside| {
        let round_trip = ROUND_TRIP.as_millis();
        format!("capture pop3 of {MESSAGES}, round trip {round_trip} ms, elapsed, beside {beside}")
    };
    let top = median(|| one_at_a_time(far));
    let row = what("one TOP at a time");
    Row::of_times("capture-pop3/top", row, Goal::AtMost(0.12), (ours, top)).print();
    let row = what("pop3-migration over pop3c");
    let pop3c = median(|| migrate(&new, &uidls));
    Row::of_times("capture-pop3/pop3c", row, Goal::AtMost(1.0), (ours, pop3c)).print();
}

// --- the three

/// Captures with our helper; the start of the program is included.
fn capture(old: &Dovecot, far: SocketAddr, uidls: &[String]) -> Duration {
    let (password, listing) = (old.dir().join("password"), old.dir().join("listing"));
    fs::write(&password, PASSWORD).expect("our directory");
    fs::set_permissions(&password, unix_mode(0o600)).expect("ours");
    let mut command = helper::uidl_keep();
    command.args(["capture", "pop3", "--clear", "--host", "127.0.0.1", "--port"]);
    command.arg(far.port().to_string()).args(["--user", USER, "--password-file"]).arg(password);
    command.arg("-o").arg(&listing);
    let started = Instant::now();
    helper::run(&mut command);
    let took = started.elapsed();
    let listing = fs::read_to_string(&listing).expect("a listing");
    let captured = listing.lines().filter(|line| line.contains(" header=")).count();
    assert_eq!(captured, uidls.len(), "all are captured");
    took
}

/// A client that waits for each answer.
fn one_at_a_time(far: SocketAddr) -> Duration {
    let started = Instant::now();
    let mut session = Pop3::login(far, USER).expect("a login");
    let uidls = session.uidl().expect("UIDL");
    session.lines("LIST").expect("LIST");
    for number in 1..=uidls.len() {
        session.lines(&format!("TOP {number} 0")).expect("TOP");
    }
    session.quit().expect("QUIT");
    started.elapsed()
}

/// The new server asks the old one itself, for a mailbox that has been copied. Sizes are not
/// compared, because they rarely agree between two servers: then it asks for headers, as we do.
fn migrate(new: &Dovecot, uidls: &[String]) -> Duration {
    // These keep the results of its last run.
    for entry in fs::read_dir(new.mail(USER)).expect("a Maildir") {
        let path = entry.expect("a Maildir").path();
        if path.is_file() {
            fs::remove_file(path).expect("root");
        }
    }
    let started = Instant::now();
    let fetched = new.doveadm(["fetch", "-u", USER, "pop3.uidl", "mailbox", "INBOX"]);
    let took = started.elapsed();
    let fetched = String::from_utf8_lossy(&fetched.stdout).into_owned();
    let kept = uidls.iter().filter(|uidl| fetched.contains(uidl.as_str())).count();
    assert_eq!(kept, uidls.len(), "pop3-migration knows all:\n{}", new.log());
    took
}

/// A new server with the same mail, whose pop3-migration knows the old server's POP3.
fn migrating(host: &Host, mail: &Maildir, far: SocketAddr) -> Option<Dovecot> {
    let extra = format!(
        "pop3c_host = 127.0.0.1\npop3c_port = {}\npop3c_user = %u\npop3c_password = {PASSWORD}\n\
         namespace old {{\n  prefix = OLD/\n  location = pop3c:\n  \
         list = no\n  hidden = yes\n  separator = /\n}}\n\
         protocol doveadm {{\n  mail_plugins = $mail_plugins pop3_migration\n}}\n\
         plugin {{\n  pop3_migration_mailbox = OLD/INBOX\n  \
         pop3_migration_skip_size_check = yes\n}}\n",
        far.port()
    );
    let new = Dovecot::start(host, Config { extra, ..Config::default() })?;
    mail.copy_mail_to(&new.mail(USER));
    Some(new)
}

// --- the way there

/// Takes connections for `server`, and holds back all octets for `delay` each way.
fn relay(server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let here = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            // The handshake takes a round trip too.
            thread::sleep(2 * delay);
            let server = TcpStream::connect(server).expect("the server");
            for socket in [&client, &server] {
                socket.set_nodelay(true).expect("TCP");
            }
            pass_on(
                client.try_clone().expect("a socket"),
                server.try_clone().expect("a socket"),
                delay,
            );
            pass_on(server, client, delay);
        }
    });
    here
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut octets = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from.read(&mut octets) {
            if sender.send((Instant::now() + delay, octets[..len].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, octets) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&octets).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

// --- figures

fn median(mut once: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| once()).collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}
