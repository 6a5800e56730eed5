//! How the cost of logins grows with the mailbox: ten times the messages, ten times the cost.

use super::Bench;
use super::sides::{Cost, Mail, Shape, Sides, forget_all_but_mail, milliseconds, session};
use super::table::{Goal, Row, Unit};
use crate::support::dovecot::Dovecot;
use crate::support::host::{Host, Line, Subject};
use crate::support::mail::Message;

/// The kinds of login, in the order in which they are measured.
const KINDS: [&str; 3] = ["first", "warm", "new"];

/// All kinds of mailbox, on one Dovecot.
pub fn all(bench: &Bench) {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    for shape in Shape::ALL {
        let name = |kind: &str| format!("growth-{kind}/{}", shape.word());
        if !KINDS.iter().any(|kind| bench.asks(&name(kind))) {
            continue;
        }
        let sizes = [bench.messages / 20, bench.messages / 2, bench.messages * 5];
        let found: Vec<_> =
            sizes.into_iter().filter_map(|messages| logins(&host, shape, messages)).collect();
        let [_, half, all] = &found[..] else { return };
        for (at, kind) in KINDS.into_iter().enumerate() {
            let what = format!(
                "growth of a {kind} login from {} to {} messages; {}",
                sizes[1],
                sizes[2],
                shape.words()
            );
            let mut row = Row::new(name(kind), what, Unit::Ratio, Goal::AtMost(11.0));
            row.add(Subject::of(host.line()).version, all[at].0 / half[at].0);
            let each = |side: fn(&(f64, f64)) -> f64| {
                let times = found.iter().map(|found| milliseconds(side(&found[at])));
                times.collect::<Vec<_>>().join(", ")
            };
            row.beside(format!("{} / {} ms", each(|cost| cost.0), each(|cost| cost.1)));
            row.print();
        }
    }
}

/// The times of the three kinds of login, with the plugin and without: the better of two.
fn logins(host: &Host, shape: Shape, messages: u32) -> Option<[(f64, f64); 3]> {
    let sides = Sides::with_mail(host, shape, "file", messages, Mail::Each(Message::plain))?;
    let best = |before: &dyn Fn(&Dovecot)| {
        let (with, without) = sides.take_turns(2, |server| {
            before(server);
            session(server, 0)
        });
        let least =
            |costs: Vec<Cost>| costs.iter().map(|cost| cost.login).fold(f64::INFINITY, f64::min);
        (least(with), least(without))
    };
    let first = best(&forget_all_but_mail);
    let warm = best(&|_| {});
    let new = best(&|server| sides.receive(server));
    Some([first, warm, new])
}
