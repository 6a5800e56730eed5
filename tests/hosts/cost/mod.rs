//! What uidl-keep costs, as the table that `make bench` prints. Nothing is asserted but that what
//! was measured did its work.
//!
//! A figure is a proportion of two things that this run did, one beside the other, wherever there
//! are two: machines differ, and are busy with other things. `BENCH` has words: `quick` for small
//! mailboxes, a number for another size, `callgrind` to count the instructions of logins as well.
//! `FIGURE` has words too, with which the names begin of the figures that are measured.

mod capture_disk;
mod capture_pop3;
mod dsync;
mod forecast;
mod growth;
mod login;
mod measure;
mod rehearsal;
mod resolve;
mod sides;
mod site;
mod space;
mod table;

use std::path::Path;

use crate::support::host::{Host, Line};
use crate::support::lacking;

/// What this run is asked for.
struct Bench {
    /// The messages of a large mailbox.
    messages: u32,
    /// How often each side of a comparison has its turn.
    rounds: usize,
    /// Whether instructions are counted too.
    counts: bool,
    /// How the names begin of the figures that are wanted; all of them where there are none.
    figures: Vec<String>,
}

impl Bench {
    fn asked() -> Self {
        let bench = std::env::var("BENCH").unwrap_or_default();
        let is_asked = |word| bench.split_whitespace().any(|asked| asked == word);
        let (messages, rounds) = if is_asked("quick") { (2_000, 3) } else { (20_000, 5) };
        let number = bench.split_whitespace().find_map(|word| word.parse().ok());
        let figures = std::env::var("FIGURE").unwrap_or_default();
        let figures = figures.split_whitespace().map(str::to_owned).collect();
        let (messages, counts) = (number.unwrap_or(messages), is_asked("callgrind"));
        Self { messages, rounds, counts, figures }
    }

    /// Whether a figure of that name is asked for, or one of those that it is the group of.
    fn asks(&self, name: &str) -> bool {
        let is_asked = |figure: &String| {
            let of_group = figure.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
            name.starts_with(figure) || of_group
        };
        self.figures.is_empty() || self.figures.iter().any(is_asked)
    }

    /// The Dovecots that logins are measured on.
    fn hosts(&self) -> impl Iterator<Item = Host> {
        Line::asked().into_iter().filter_map(Host::dovecot)
    }
}

#[test]
#[ignore = "a measurement: make bench"]
fn figures() {
    if !Path::new("/proc/self/schedstat").exists() {
        lacking("this kernel has no /proc/PID/schedstat (CONFIG_SCHED_INFO)");
        return;
    }
    let bench = Bench::asked();
    table::print_head(bench.messages, bench.rounds);
    let figures: [fn(&Bench); 10] = [
        login::all,
        growth::all,
        space::all,
        site::all,
        resolve::all,
        capture_disk::all,
        capture_pop3::all,
        forecast::all,
        rehearsal::all,
        dsync::all,
    ];
    // One that cannot be measured leaves the others their rows.
    let measured = figures.map(|measure| std::panic::catch_unwind(|| measure(&bench)));
    let failed = measured.iter().filter(|measured| measured.is_err()).count();
    assert_eq!(failed, 0, "groups of figures that could not be measured: see above");
}
