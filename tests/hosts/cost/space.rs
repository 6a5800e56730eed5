//! The address space that a login takes: `service pop3` has 256 MB of it, as Dovecot is delivered.

use super::Bench;
use super::sides::{Mail, Shape, Sides, USER, middle, session};
use super::table::{Goal, Row, Unit};
use crate::support::dovecot::Dovecot;
use crate::support::host::{Host, Line, Subject};
use crate::support::maildir::Naming;

/// `vsz_limit` as Dovecot is delivered.
const LIMIT: u64 = 256 << 20;

/// The space a message, and whether very large mailboxes can be listed.
pub fn all(bench: &Bench) {
    a_message(bench);
    within_the_limit(bench);
}

/// What one message more takes: two mailboxes are compared, so that what a process always has is
/// left out.
fn a_message(bench: &Bench) {
    let [mut first, mut warm] = ["first", "warm"].map(|which| {
        let what = format!("address space a message, {which} login; Maildir, named by Dovecot");
        Row::new(format!("space-{which}"), what, Unit::Ratio, Goal::AtMost(1.3))
    });
    if !bench.asks("space-first") && !bench.asks("space-warm") {
        return;
    }
    let sizes = [bench.messages, 5 * bench.messages];
    for host in bench.hosts() {
        let mut found = Vec::new();
        for messages in sizes {
            let Some(sides) = one_file(&host, messages) else { return };
            let peak = || {
                let (with, without) = sides.take_turns(1, |server| session(server, 1));
                [with, without].map(|costs| middle(&costs, |cost| cost.space_kib))
            };
            found.push([peak(), peak()]);
        }
        let version = Subject::of(host.line()).version;
        for (at, row) in [&mut first, &mut warm].into_iter().enumerate() {
            let more = |side: usize| {
                (found[1][at][side] - found[0][at][side]) / f64::from(sizes[1] - sizes[0])
            };
            row.add(version, more(0) / more(1));
            row.beside(format!("{:.2} / {:.2} KB a message", more(0), more(1)));
        }
    }
    first.print();
    warm.print();
}

/// Whether a login is served that has no more than Dovecot gives it.
fn within_the_limit(bench: &Bench) {
    for (which, messages) in [("first", 25 * bench.messages), ("warm", 50 * bench.messages)] {
        let name = format!("limit-{which}");
        if !bench.asks(&name) {
            continue;
        }
        let what = format!("{which} login of {messages} in {} MB", LIMIT >> 20);
        let mut row = Row::new(name, what, Unit::Works, Goal::AtLeast(1.0));
        for host in bench.hosts() {
            let Some(sides) = one_file(&host, messages) else { return };
            let (with, without) = sides.take_turns(1, |server| {
                if which == "warm" {
                    assert!(listed(server, u64::MAX).is_ok(), "{}", server.process_log());
                }
                listed(server, LIMIT)
            });
            row.add(Subject::of(host.line()).version, f64::from(u8::from(with[0].is_ok())));
            let said = |listed: &Result<(), String>| match listed {
                Ok(()) => "works".to_owned(),
                Err(why) => why.clone(),
            };
            row.beside(format!("{} / {}", said(&with[0]), said(&without[0])));
        }
        row.print();
    }
}

/// A structure that doubles shows here: entries in objects of their own made it twice as much.
#[test]
fn a_first_login_takes_at_most_half_as_much_space_again_as_dovecot_alone() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let sizes = [5_000, 25_000];
    let mut peaks = Vec::new();
    for messages in sizes {
        let Some(sides) = one_file(&host, messages) else { return };
        let (with, without) = sides.take_turns(1, |server| session(server, 1));
        peaks.push([with, without].map(|costs| middle(&costs, |cost| cost.space_kib)));
    }
    let [ours, theirs] = [0, 1].map(|side| peaks[1][side] - peaks[0][side]);
    assert!(theirs > 0.0, "{peaks:?}");
    assert!(ours <= 1.5 * theirs, "{ours} KiB and {theirs} KiB for 20,000 messages more");
}

fn one_file(host: &Host, messages: u32) -> Option<Sides> {
    let shape = Shape::Maildir(Naming::Dovecot);
    Sides::with_mail(host, shape, "file", messages, Mail::OneFile)
}

/// Lists a mailbox with that address space. If it cannot be, says what became of it.
fn listed(server: &Dovecot, space: u64) -> Result<(), String> {
    let (mut pop3, mut child) = match space {
        u64::MAX => server.process(USER),
        space => server.process_within(USER, space),
    };
    let answer = pop3.command("STAT");
    drop(pop3);
    let ended = child.wait().expect("our child");
    match answer {
        Ok(_) => Ok(()),
        Err(refused) if refused.0.starts_with("-ERR") => {
            let is_named = server.process_log().contains("vsz_limit");
            Err(if is_named { "refused, for vsz_limit" } else { "refused" }.to_owned())
        }
        Err(_) => Err(format!("ends: {ended}")),
    }
}
