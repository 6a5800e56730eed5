//! docs/metrics.md, played: Dovecot's own statistics count what the plugin does, on both lines.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::dovecot::{Config, Dovecot, free_port};
use crate::support::helper;
use crate::support::host::Line;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{MOVING, Scenario, USER, uidl_of};

const PAGE: &str = include_str!("../../docs/metrics.md");
const RULES: &str = include_str!("../../contrib/prometheus/uidl-keep.rules.yml");

/// The port of the page's examples.
const PORT: &str = "9900";

/// The longest time that an event may take to be counted.
const PATIENCE: Duration = Duration::from_secs(20);

/// The configuration that the page gives for a release line, with another port.
fn configuration(line: Line, port: u16) -> String {
    let heading = match line {
        Line::V23 => "\n## Dovecot 2.3\n",
        Line::V24 => "\n## Dovecot 2.4\n",
    };
    let section = PAGE.split(heading).nth(1).expect("the heading");
    let block = section.split("```\n").nth(1).expect("a block");
    assert!(block.contains(PORT), "{block}");
    block.replace(PORT, &port.to_string())
}

/// A server that counts.
struct Counting {
    server: Scenario,
    http: SocketAddr,
}

impl Counting {
    fn migrated(line: Line, count: u32) -> Option<Self> {
        let http = free_port();
        let mut config = Config::default().with_plugin();
        config.extra = configuration(line, http.port());
        Some(Self { server: Scenario::migrated_on(line, count, config)?, http })
    }

    fn dovecot(&self) -> &Dovecot {
        &self.server.dovecot
    }

    /// The lines that Prometheus gets of ours.
    fn metrics(&self) -> Vec<String> {
        let mut to = TcpStream::connect(self.http).expect("the listener of the page");
        to.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        to.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let ours = answer.lines().filter(|line| line.starts_with("dovecot_uidl_keep_"));
        ours.map(str::to_owned).collect()
    }

    /// Insists that Prometheus gets this line before long: an event is on its way while the client
    /// is answered already.
    #[track_caller]
    fn counts(&self, line: &str) {
        let asked = Instant::now();
        loop {
            let metrics = self.metrics();
            if metrics.iter().any(|metric| metric == line) {
                return;
            }
            let is_late = asked.elapsed() > PATIENCE;
            assert!(!is_late, "no {line:?} in {metrics:#?}\n{}", self.dovecot().log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The sum of a field over all events of a metric, as `doveadm stats dump` prints it.
    #[track_caller]
    fn sum(&self, metric: &str, field: &str) -> u64 {
        let dump = self.dovecot().doveadm_ok(["stats", "dump"]);
        let mut lines = dump.lines().map(|line| line.split('\t').collect::<Vec<&str>>());
        let names = lines.next().expect("a head");
        let column = |name| names.iter().position(|other| *other == name).expect("a column");
        let (of, sum) = ((column("metric_name"), column("field")), column("sum"));
        let line = lines.find(|line| line[of.0] == metric && line[of.1] == field);
        let line = line.unwrap_or_else(|| panic!("no {field} of {metric}:\n{dump}"));
        line[sum].parse().unwrap_or_else(|_| panic!("{line:?}"))
    }
}

#[test]
fn dovecots_statistics_count_what_was_kept_what_is_unknown_and_what_is_missing() {
    for line in Line::asked() {
        let Some(mut counting) = Counting::migrated(line, 6) else { continue };
        // One of the six was not copied, and one that nobody captured came.
        let files = counting.server.maildir().files();
        std::fs::remove_file(&files[5]).unwrap();
        counting.server.delivered += 1;
        counting.server.deliver();
        let uidls = counting.server.uidls();
        assert_eq!((&uidls[..5], uidls.len()), (&uidl_of(1..=5)[..], 6));

        counting.counts("dovecot_uidl_keep_listed_total{listing=\"first\"} 1");
        counting.counts("dovecot_uidl_keep_missing_total 1");
        let sums = |field| counting.sum("uidl_keep_listed_first", field);
        assert_eq!(sums("messages"), 6);
        assert_eq!((sums("kept_file"), sums("unknown"), sums("missing")), (5, 1, 1), "{line:?}");
        for none in ["kept_message", "kept_header", "kept_origin", "kept_stored", "unknown_derived"]
        {
            assert_eq!(sums(none), 0, "{line:?}: {none}");
        }
        assert_eq!(sums("unreadable"), 0);
        // The duration that Dovecot finds is of the same time.
        let (ours, dovecots) = (sums("microseconds"), sums("duration"));
        assert!(0 < ours && ours <= dovecots, "{line:?}: {ours}, {dovecots}");

        // All is in the ledger now: the next listing finds out nothing.
        assert_eq!(counting.server.uidls(), uidls);
        counting.counts("dovecot_uidl_keep_listed_total{listing=\"warm\"} 1");
        assert_eq!(counting.sum("uidl_keep_listed", "kept_file"), 5, "counted once");
        assert_eq!(counting.sum("uidl_keep_listed", "messages"), 12);
        assert!(!counting.metrics().iter().any(|line| line.contains("refused_total{")));
    }
}

#[test]
fn new_mail_of_a_settled_maildrop_is_counted_as_unknown() {
    for line in Line::asked() {
        let Some(mut counting) = Counting::migrated(line, 3) else { continue };
        assert_eq!(counting.server.uidls().len(), 3);
        counting.server.deliver();
        counting.server.deliver();
        assert_eq!(counting.server.uidls().len(), 5);
        counting.counts("dovecot_uidl_keep_listed_total{listing=\"grown\"} 1");
        assert_eq!(counting.sum("uidl_keep_listed_grown", "unknown"), 2, "{line:?}");
        assert_eq!(counting.sum("uidl_keep_listed", "unknown"), 2, "{line:?}");
    }
}

#[test]
fn dovecots_statistics_count_refused_logins_by_their_reason() {
    for line in Line::asked() {
        let Some(counting) = Counting::migrated(line, 4) else { continue };
        let server = &counting.server;
        for file in &server.maildir().files()[..3] {
            std::fs::rename(file, server.dovecot.dir().join("away")).unwrap();
        }
        server.refusal();
        counting.counts("dovecot_uidl_keep_refused_total{reason=\"half_copied\"} 1");

        // The log has one line for all logins of a user who is held: each counts.
        server.gate(&["hold"]);
        for _ in 0..3 {
            assert_eq!(server.refusal(), MOVING);
        }
        counting.counts("dovecot_uidl_keep_refused_total{reason=\"held\"} 3");

        std::fs::write(server.index(), b"").unwrap();
        server.gate(&["release", "--unrehearsed", "--unguarded"]);
        server.refusal();
        counting.counts("dovecot_uidl_keep_refused_total{reason=\"index\"} 1");
        assert!(!counting.metrics().iter().any(|line| line.contains("listed_total{")));
    }
}

#[test]
fn a_user_who_was_never_migrated_and_doveadm_are_not_counted() {
    for line in Line::asked() {
        let Some(counting) = Counting::migrated(line, 2) else { continue };
        let stranger = Maildir::create(counting.dovecot().mail("bob@example.com"));
        stranger.deliver(&Message::plain(1), Naming::Qmail, 1);
        assert_eq!(counting.dovecot().uidl("bob@example.com").len(), 1);
        assert_eq!(counting.server.shown_by_doveadm(), uidl_of(1..=2));
        counting.dovecot().settled_log();
        assert_eq!(counting.server.uidls(), uidl_of(1..=2));
        // The one event that there was came last.
        counting.counts("dovecot_uidl_keep_listed_total{listing=\"first\"} 1");
        assert_eq!(counting.sum("uidl_keep_listed", "messages"), 2, "{line:?}: of {USER} alone");
    }
}

#[test]
fn a_rehearsal_is_not_counted_for_no_client_hears_it() {
    for line in Line::asked() {
        let Some(counting) = Counting::migrated(line, 3) else { continue };
        let dovecot = counting.dovecot();
        counting.server.gate(&["hold"]);
        let doveadm_args = format!("-c {}", dovecot.inside(&dovecot.conf()).display());
        let mut rehearse = dovecot.helper();
        rehearse.args(["rehearse", "--no-check", "--doveadm-args", &doveadm_args, "--site"]);
        helper::run(rehearse.arg(dovecot.inside(&dovecot.site())).arg(USER));
        assert!(counting.server.ledger().exists(), "{line:?}: rehearsed");
        counting.server.gate(&["release"]);
        assert_eq!(counting.server.uidls(), uidl_of(1..=3));
        counting.counts("dovecot_uidl_keep_listed_total{listing=\"warm\"} 1");
        assert_eq!(counting.sum("uidl_keep_listed", "messages"), 3, "{line:?}");
    }
}

#[test]
fn the_alert_rules_name_metrics_that_there_are() {
    for line in Line::asked() {
        let Some(counting) = Counting::migrated(line, 2) else { continue };
        assert_eq!(counting.server.uidls(), uidl_of(1..=2));
        counting.server.gate(&["hold"]);
        assert_eq!(counting.server.refusal(), MOVING);
        counting.counts("dovecot_uidl_keep_listed_total{listing=\"first\"} 1");
        counting.counts("dovecot_uidl_keep_refused_total{reason=\"held\"} 1");
        let metrics = counting.metrics();
        let name = |text: &str| -> String {
            let is_name = |char: &char| char.is_ascii_alphanumeric() || *char == '_';
            text.chars().take_while(is_name).collect()
        };
        let there: Vec<String> = metrics.iter().map(|metric| name(metric)).collect();
        let asked = RULES.match_indices("dovecot_").map(|(at, _)| name(&RULES[at..]));
        let asked: Vec<String> = asked.collect();
        assert!(asked.len() > 5, "{asked:?}");
        for metric in asked {
            assert!(there.contains(&metric), "{line:?}: no {metric} in {there:#?}");
        }
    }
}

#[test]
fn the_page_has_every_field_and_every_reason() {
    let source = include_str!("../../src/plugin/events.rs");
    let words = source.split("c\"").skip(1).filter_map(|rest| rest.split('"').next());
    let words: Vec<&str> =
        words.filter(|word| !word.contains(' ') && *word != "overtaken").collect();
    assert!(words.len() > 30, "{words:?}");
    for word in words {
        assert!(PAGE.contains(&format!("`{word}`")), "docs/metrics.md has no `{word}`");
    }
    for word in ["held", "forgotten"] {
        assert!(RULES.contains(word));
    }
}
