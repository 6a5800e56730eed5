//! The cost of logins: processor time of Dovecot's own `pop3` process on a socket pair, from its
//! start, and its user instructions.
//!
//! They include neither the client's waiting nor its work. The two sides take turns; each time is
//! the median. The page cache is warm.

use super::Bench;
use super::sides::{
    Cost, Mail, Shape, Sides, USER, counted, forget_all_but_mail, middle, milliseconds, session,
};
use super::table::{Goal, Row, Unit};
use crate::support::dovecot::Dovecot;
use crate::support::helper;
use crate::support::host::{Host, Subject};
use crate::support::mail::Message;
use crate::support::maildir::Naming;

/// The UIDLs that a session asks for where they are measured.
const UIDLS: u32 = 3;

/// A kind of login.
struct Kind {
    name: &'static str,
    what: &'static str,
    goal: Goal,
    /// What is measured of the sessions.
    part: fn(&Cost) -> f64,
}

const FIRST: Kind = Kind {
    name: "login-first",
    what: "first login, file key",
    goal: Goal::AtMost(1.2),
    part: |c| c.login,
};
const FIRST_WHOLE: Kind = Kind {
    name: "session-first",
    what: "the same up to the end of the process",
    goal: Goal::AtMost(1.2),
    part: |c| c.whole,
};
const FIRST_HEADER: Kind = Kind {
    name: "login-first-header",
    what: "first login, header key",
    goal: Goal::AtMost(1.15),
    part: |c| c.login,
};
/// Nothing else has to read the messages there.
const FIRST_HEADER_UNREAD: Kind = Kind { goal: Goal::None, ..FIRST_HEADER };
const REHEARSED: Kind = Kind {
    name: "login-rehearsed",
    what: "first login of a maildrop that was rehearsed",
    goal: Goal::AtMost(0.5),
    part: |c| c.login,
};
/// The goal is 1.05 beside Dovecot over the baked list, which itself costs 1.1.
const WARM: Kind =
    Kind { name: "login-warm", what: "warm login", goal: Goal::AtMost(1.16), part: |c| c.login };
const BAKED: Kind = Kind {
    name: "login-baked",
    what: "warm login, beside Dovecot over the baked list",
    goal: Goal::AtMost(1.05),
    part: |c| c.login,
};
const UIDL: Kind =
    Kind { name: "uidl-warm", what: "warm UIDL", goal: Goal::AtMost(0.6), part: |c| c.uidl };
const NEW: Kind = Kind {
    name: "login-new",
    what: "login with one new message, all that was captured is there",
    goal: Goal::AtMost(1.15),
    part: |c| c.login,
};
const NEW_OPEN: Kind = Kind {
    name: "login-new-open",
    what: "login with one new message, 1 % of what was captured is gone",
    goal: Goal::AtMost(1.15),
    part: |c| c.login,
};

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

    fn memory_name(&self) -> String {
        format!("memory-warm/{}", self.shape.word())
    }

    fn name(&self, kind: &Kind) -> String {
        format!("{}/{}", kind.name, self.shape.word())
    }

    /// Adds the memory that a warm login takes.
    fn add_memory(&mut self, host: &Host, both: &Both) {
        let name = self.memory_name();
        if !self.bench.asks(&name) {
            return;
        }
        let what = format!(
            "memory of a warm login, above Dovecot over the baked list; {}",
            self.shape.words()
        );
        let row = self.row(name, what, Unit::OctetsAMessage, Goal::AtMost(24.0));
        let [with, without] =
            [&both.with, &both.without].map(|costs| middle(costs, |cost| cost.anonymous_kib));
        let each = (with - without) * 1024.0 / f64::from(self.bench.messages);
        let row = &mut self.rows[row];
        row.add(Subject::of(host.line()).version, each);
        row.beside(format!("{with} / {without} KiB"));
    }

    /// The place of the row of that name, which is made if it is not there.
    fn row(&mut self, name: String, what: String, unit: Unit, goal: Goal) -> usize {
        let at = self.rows.iter().position(|row| row.is(&name));
        at.unwrap_or_else(|| {
            self.rows.push(Row::new(name, what, unit, goal));
            self.rows.len() - 1
        })
    }

    /// Adds what was measured on that Dovecot, if somebody asks.
    fn add(&mut self, kind: &Kind, host: &Host, both: &Both) {
        if !self.wants(kind) {
            return;
        }
        let what = format!("{}; {}", kind.what, self.shape.words());
        let row = self.row(self.name(kind), what, Unit::Ratio, kind.goal);
        let row = &mut self.rows[row];
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
        with_gone(bench, shape);
    }
    for shape in [Shape::Maildir(Naming::Qmail), Shape::Mdbox] {
        by_header(bench, shape);
    }
}

/// The mail was captured by file names.
fn by_file(bench: &Bench, shape: Shape) {
    let mut rows = Rows { bench, shape, rows: Vec::new() };
    let kinds = [&FIRST, &FIRST_WHOLE, &REHEARSED, &WARM, &BAKED, &UIDL, &NEW];
    if !kinds.iter().any(|kind| rows.wants(kind)) && !wants_memory(&rows) {
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
            rows.add(&NEW, &host, &both(bench, &sides, 0, |server| sides.receive(server)));
        }
        if (rows.wants(&BAKED) || wants_memory(&rows)) && shape != Shape::Mdbox {
            sides.bake_without();
            sides.take_turns(1, |server| session(server, 0));
            let both = both(bench, &sides, 0, |_| {});
            rows.add(&BAKED, &host, &both);
            rows.add_memory(&host, &both);
        }
        if rows.wants(&REHEARSED) {
            rows.add(&REHEARSED, &host, &both(bench, &sides, 0, rehearsed));
        }
    }
    rows.rows.iter().for_each(Row::print);
}

/// Users have deleted some of what was captured, before the first login on the new server.
fn with_gone(bench: &Bench, shape: Shape) {
    let mut rows = Rows { bench, shape, rows: Vec::new() };
    if !rows.wants(&NEW_OPEN) {
        return;
    }
    for host in bench.hosts() {
        let (messages, mail) = (bench.messages, Mail::Each(Message::everyday));
        let sides = Sides::with_gone(&host, shape, "file", messages, mail, messages / 100);
        let Some(sides) = sides else { return };
        sides.take_turns(1, |server| session(server, 0));
        rows.add(&NEW_OPEN, &host, &both(bench, &sides, 0, |server| sides.receive(server)));
    }
    rows.rows.iter().for_each(Row::print);
}

fn wants_memory(rows: &Rows) -> bool {
    rows.bench.asks(&rows.memory_name())
}

/// The mail was captured by fingerprints of headers.
fn by_header(bench: &Bench, shape: Shape) {
    let mut rows = Rows { bench, shape, rows: Vec::new() };
    let kind = match shape {
        Shape::Maildir(_) => &FIRST_HEADER,
        Shape::Mdbox => &FIRST_HEADER_UNREAD,
    };
    if !rows.wants(kind) {
        return;
    }
    for host in bench.hosts() {
        let Some(sides) = Sides::new(&host, shape, "header", bench.messages) else { return };
        rows.add(kind, &host, &both(bench, &sides, 0, forget_all_but_mail));
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
    with.remove(0);
    without.remove(0);
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
