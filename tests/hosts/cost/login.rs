//! The cost of logins: processor time of Dovecot's own `pop3` process on a socket pair, from its
//! start, and its user instructions.
//!
//! They include neither the client's waiting nor its work. The two sides take turns; each time is
//! the median. The page cache is warm.

use std::cell::Cell;

use super::Bench;
use super::sides::{
    Cost, Shape, Sides, USER, counted, forget_all_but_mail, middle, milliseconds, session,
};
use super::table::{Goal, Row, Unit};
use crate::support::dovecot::Dovecot;
use crate::support::helper;
use crate::support::host::{Host, Subject};
use crate::support::maildir::Naming;

/// The UIDLs that a session asks for where they are measured.
const UIDLS: u32 = 3;

/// A kind of login.
struct Kind {
    name: &'static str,
    what: &'static str,
    goal: f64,
    /// What is measured of the sessions.
    part: fn(&Cost) -> f64,
}

const FIRST: Kind =
    Kind { name: "login-first", what: "first login, file key", goal: 1.2, part: |c| c.login };
const FIRST_WHOLE: Kind = Kind {
    name: "session-first",
    what: "the same up to the end of the process",
    goal: 1.2,
    part: |c| c.whole,
};
const FIRST_HEADER: Kind = Kind {
    name: "login-first-header",
    what: "first login, header key, each read for its size",
    goal: 1.15,
    part: |c| c.login,
};
const REHEARSED: Kind = Kind {
    name: "login-rehearsed",
    what: "first login of a maildrop that was rehearsed",
    goal: 0.5,
    part: |c| c.login,
};
const WARM: Kind = Kind { name: "login-warm", what: "warm login", goal: 1.1, part: |c| c.login };
const BAKED: Kind = Kind {
    name: "login-baked",
    what: "warm login, beside Dovecot over the baked list",
    goal: 1.05,
    part: |c| c.login,
};
const UIDL: Kind = Kind { name: "uidl-warm", what: "warm UIDL", goal: 0.6, part: |c| c.uidl };
const NEW: Kind =
    Kind { name: "login-new", what: "login with one new message", goal: 1.15, part: |c| c.login };

/// The sessions of one kind on both sides.
struct Both {
    with: Vec<Cost>,
    without: Vec<Cost>,
    /// The same under callgrind.
    counted: Option<(Cost, Cost)>,
}

/// Rows of one kind of mailbox: the same figures on each Dovecot.
struct Rows<'a> {
    bench: &'a Bench,
    shape: Shape,
    rows: Vec<Row>,
}

impl Rows<'_> {
    /// Whether anybody asks for that figure.
    fn wants(&self, kind: &Kind) -> bool {
        self.bench.asks(&self.name(kind))
    }

    fn name(&self, kind: &Kind) -> String {
        format!("{}/{}", kind.name, self.shape.word())
    }

    /// Adds what was measured on that Dovecot, if somebody asks.
    fn add(&mut self, kind: &Kind, host: &Host, both: &Both) {
        if !self.wants(kind) {
            return;
        }
        let name = self.name(kind);
        let at = self.rows.iter().position(|row| row.is(&name));
        let at = at.unwrap_or_else(|| {
            let what = format!("{}; {}", kind.what, self.shape.words());
            self.rows.push(Row::new(&name, what, Unit::Ratio, Goal::AtMost(kind.goal)));
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        let version = Subject::of(host.line()).version;
        let (with, without) = (middle(&both.with, kind.part), middle(&both.without, kind.part));
        row.add(version, with / without);
        row.beside(format!("{} / {} ms", milliseconds(with), milliseconds(without)));
        if let Some((with, without)) = &both.counted {
            let (with, without) = ((kind.part)(with), (kind.part)(without));
            row.add(format!("{version} Ir"), with / without);
            let each = |all: f64| all / f64::from(self.bench.messages) / 1e3;
            row.beside(format!("{:.2} / {:.2} k Ir a message", each(with), each(without)));
        }
    }
}

/// All kinds of login on all kinds of mailbox.
pub fn all(bench: &Bench) {
    for shape in Shape::ALL {
        by_file(bench, shape);
    }
    for shape in [Shape::Maildir(Naming::Qmail), Shape::Mdbox] {
        by_header(bench, shape);
    }
}

/// The mail was captured by file names.
fn by_file(bench: &Bench, shape: Shape) {
    let mut rows = Rows { bench, shape, rows: Vec::new() };
    let kinds = [&FIRST, &FIRST_WHOLE, &REHEARSED, &WARM, &BAKED, &UIDL, &NEW];
    if !kinds.iter().any(|kind| rows.wants(kind)) {
        return;
    }
    for host in bench.hosts() {
        let Some(sides) = Sides::new(&host, shape, "file", bench.messages) else { return };
        if rows.wants(&FIRST) || rows.wants(&FIRST_WHOLE) {
            let both = both(bench, &sides, 0, forget_all_but_mail);
            rows.add(&FIRST, &host, &both);
            rows.add(&FIRST_WHOLE, &host, &both);
        }
        // What follows is warm, however the mailbox was left.
        sides.take_turns(1, |server| session(server, 0));
        assert!(sides.with.uidl(USER)[0].contains(".old.example.com"), "the plugin is at work");
        if rows.wants(&WARM) || rows.wants(&UIDL) {
            let both = both(bench, &sides, UIDLS, |_| {});
            rows.add(&WARM, &host, &both);
            rows.add(&UIDL, &host, &both);
        }
        if rows.wants(&NEW) {
            let next = Cell::new(bench.messages);
            let deliver = |server: &Dovecot| {
                sides.deliver(server, next.replace(next.get() + 1));
            };
            rows.add(&NEW, &host, &both(bench, &sides, 0, deliver));
        }
        if rows.wants(&BAKED) && shape != Shape::Mdbox {
            sides.bake_without();
            sides.take_turns(1, |server| session(server, 0));
            rows.add(&BAKED, &host, &both(bench, &sides, 0, |_| {}));
        }
        if rows.wants(&REHEARSED) {
            rows.add(&REHEARSED, &host, &both(bench, &sides, 0, rehearsed));
        }
    }
    rows.rows.iter().for_each(Row::print);
}

/// The mail was captured by fingerprints of headers.
fn by_header(bench: &Bench, shape: Shape) {
    let mut rows = Rows { bench, shape, rows: Vec::new() };
    if !rows.wants(&FIRST_HEADER) {
        return;
    }
    for host in bench.hosts() {
        let Some(sides) = Sides::new(&host, shape, "header", bench.messages) else { return };
        rows.add(&FIRST_HEADER, &host, &both(bench, &sides, 0, forget_all_but_mail));
        assert!(sides.with.uidl(USER)[0].contains(".old.example.com"), "the plugin is at work");
    }
    rows.rows.iter().for_each(Row::print);
}

/// The costs of sessions on both sides, each after `before`. The first turn is left out: it warms
/// the page cache.
fn both(bench: &Bench, sides: &Sides, uidls: u32, before: impl Fn(&Dovecot)) -> Both {
    let turns = sides.take_turns(bench.rounds + 1, |server| {
        before(server);
        session(server, uidls)
    });
    let (mut with, mut without) = turns;
    (with.remove(0), without.remove(0));
    let counted = bench.counts.then(|| {
        let (with, without) = sides.take_turns(1, |server| {
            before(server);
            counted(server, uidls)
        });
        (with[0], without[0])
    });
    Both { with, without, counted }
}

/// Makes the next login the first that a client sees, after a rehearsal where there is a plugin.
fn rehearsed(server: &Dovecot) {
    forget_all_but_mail(server);
    if server.has_plugin() {
        for words in [&["hold", USER][..], &["rehearse", "--again", USER], &["release", USER]] {
            let mut command = server.helper();
            command.args(words).arg(server.doveadm_args());
            helper::run(&mut command);
        }
    }
}
