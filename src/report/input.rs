//! Reads what `forecast`, `rehearse` and `status` print with `--json`, and rosters:
//! [`ReportInputs`].
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::maildrop::State;
use crate::report::judged::Outlook;
use crate::site::roster::{Roster, RosterLine};
use crate::text::on_one_line;

/// The command that printed an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputKind {
    /// `uidl-keep forecast --json`.
    Forecast,
    /// `uidl-keep rehearse --json`.
    Rehearsal,
    /// `uidl-keep status --json`.
    Status,
    /// The rosters of a site.
    Site,
}

impl InputKind {
    /// The command, or the thing that was read.
    pub fn made_by(self) -> &'static str {
        match self {
            Self::Forecast => "uidl-keep forecast --json",
            Self::Rehearsal => "uidl-keep rehearse --json",
            Self::Status => "uidl-keep status --json",
            Self::Site => "the rosters of a site",
        }
    }
}

/// One input that was read.
#[derive(Debug, Clone)]
pub struct ReadInput {
    /// What it is.
    pub kind: InputKind,
    /// The name that the operator gave.
    pub name: String,
    /// When it was last written. `None`: the system does not say.
    pub modified: Option<SystemTime>,
    /// How many mailboxes or, in a status, domains it speaks of.
    pub entries: u64,
}

/// The reason why an input could not be read. The file's name is not in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line that nobody can read. The first line is 1.
    #[error("{line}: {fault}")]
    Line {
        /// Its number.
        line: usize,
        /// What is wrong with it, and what to do.
        fault: String,
    },
    /// It speaks of nobody and has no total.
    #[error("nothing of `{command}` is in it; write the output of that command to the file again")]
    Nothing {
        /// The command that should have printed it.
        command: &'static str,
    },
}

/// UIDLs, of which the first few are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedUidls {
    /// How many there are.
    pub count: u64,
    /// The first of them, at most [`NamedUidls::MOST_NAMED`].
    pub first: Vec<String>,
}

impl NamedUidls {
    /// So many are kept by name.
    pub const MOST_NAMED: usize = 10;
}

/// What a forecast says of one mailbox.
#[derive(Debug, Clone)]
pub(super) struct ForecastOfMailbox {
    pub outlook: Outlook,
    pub why: Option<String>,
    pub captured: u64,
    pub kept: u64,
    pub not_copied: NamedUidls,
    pub changed: NamedUidls,
    pub ambiguous: NamedUidls,
    pub again: u64,
    pub new: u64,
    pub listed: u64,
    pub other_uidl: u64,
    pub repeated: u64,
    pub unreadable: u64,
    pub is_in_order: bool,
    pub is_refused: bool,
}

/// How the rehearsal of a mailbox went.
#[derive(Debug, Clone)]
pub(super) struct RehearsalOfMailbox {
    pub outcome: RehearsalOutcome,
    /// Whether more was listed than was captured.
    pub has_new: bool,
    pub missing: NamedUidls,
    pub misplaced: NamedUidls,
    pub repeated: NamedUidls,
    pub spent: NamedUidls,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RehearsalOutcome {
    Agrees,
    Differs,
    CouldNot(String),
}

/// What a status says of one domain, or of all.
#[derive(Debug, Clone, Default)]
pub struct StatusOfDomain {
    /// Numbers of mailboxes, by the words of the status.
    pub counts: Vec<(&'static str, u64)>,
    /// Who is refused, or could not be told, with the reason.
    pub troubled: Vec<(String, String)>,
    /// What could not be read.
    pub faults: Vec<String>,
    /// The next command, as the status says it.
    pub next: Option<String>,
}

impl StatusOfDomain {
    /// The counts that a page shows: the field of the status, and the words for it.
    const COUNTS: [(&str, &str); 11] = [
        ("held", "held"),
        ("rehearsed", "of these rehearsed"),
        ("guarded", "guarded"),
        ("released", "released"),
        ("redownload", "given up (redownload)"),
        ("listed", "listed by clients"),
        ("only_rehearsed", "only rehearsed"),
        ("waiting", "waiting for a first listing"),
        ("not_looked_at", "not looked at"),
        ("baked", "baked whole"),
        ("not_baked", "not baked"),
    ];

    fn of(object: &Map<String, Value>) -> Self {
        let counted = Self::COUNTS.map(|(field, words)| (words, count(object, field)));
        let pairs = |field: &str| -> Vec<(String, String)> {
            let pairs = object.get(field).and_then(Value::as_array).into_iter().flatten();
            pairs
                .filter_map(|pair| Some((pair.get("user")?.as_str()?, pair.get("why")?.as_str()?)))
                .map(|(user, why)| (user.to_owned(), on_one_line(why)))
                .collect()
        };
        let mut troubled = Vec::new();
        for (user, why) in pairs("refused") {
            troubled.push((user, format!("POP3 refuses the user: {why}")));
        }
        for (user, why) in pairs("could_not_tell") {
            troubled.push((user, format!("could not tell what clients were told: {why}")));
        }
        let faults = object.get("faults").and_then(Value::as_array).into_iter().flatten();
        let next = object.get("next").and_then(|next| next.get("command"));
        Self {
            counts: counted.into_iter().filter(|(_, count)| *count > 0).collect(),
            troubled,
            faults: faults.filter_map(Value::as_str).map(on_one_line).collect(),
            next: next.and_then(Value::as_str).map(on_one_line),
        }
    }
}

/// All that a report is made of.
#[derive(Debug, Default)]
pub struct ReportInputs {
    pub(super) read: Vec<ReadInput>,
    pub(super) forecast: BTreeMap<String, ForecastOfMailbox>,
    pub(super) rehearsal: BTreeMap<String, RehearsalOfMailbox>,
    pub(super) status: BTreeMap<String, StatusOfDomain>,
    pub(super) status_of_all: Vec<StatusOfDomain>,
    pub(super) plugin: Vec<String>,
    pub(super) rosters: BTreeMap<String, RosterLine>,
    pub(super) on_no_roster: u64,
    pub(super) gaps: Vec<String>,
}

impl ReportInputs {
    /// Whether the rehearsal of a user found all as it was captured.
    pub(super) fn rehearsal_agrees(&self, user: &str) -> bool {
        let rehearsal = self.rehearsal.get(user);
        rehearsal.is_some_and(|rehearsal| rehearsal.outcome == RehearsalOutcome::Agrees)
    }

    /// What is missing from the inputs, in sentences that name the file and the next step. The page
    /// shows them, too.
    pub fn gaps(&self) -> &[String] {
        &self.gaps
    }

    /// Reads JSON lines. Fields and objects that are not known are ignored. A file may be several
    /// outputs, one after the other: of a user who was rehearsed twice the later line counts.
    ///
    /// # Errors
    ///
    /// [`InputError`]: a line that is no JSON object, or not one of that command, or a mailbox or
    /// domain that a forecast or a status has twice.
    pub fn add(
        &mut self,
        kind: InputKind,
        name: &str,
        modified: Option<SystemTime>,
        mut input: impl BufRead,
    ) -> Result<(), InputError> {
        let (mut octets, mut number, mut entries) = (Vec::new(), 0, 0);
        // How many mailboxes came since the last total; `None`: that total was the last line.
        let mut since_total = Some(0);
        let mut has_total = false;
        loop {
            octets.clear();
            if input.read_until(b'\n', &mut octets)? == 0 {
                break;
            }
            number += 1;
            if octets.trim_ascii().is_empty() {
                continue;
            }
            let at = |fault: String| InputError::Line { line: number, fault };
            let object: Map<String, Value> = serde_json::from_slice(&octets).map_err(|error| {
                at(format!(
                    "no JSON object ({error}); give what `{}` prints, one object a line",
                    kind.made_by()
                ))
            })?;
            if let Some(total) = object.get("total").and_then(Value::as_object) {
                has_total = true;
                let lines = since_total.take().unwrap_or(0);
                self.add_total(kind, name, number, lines, total, &object);
                continue;
            }
            if self.add_entry(kind, &object).map_err(at)? {
                entries += 1;
                since_total = Some(since_total.unwrap_or(0) + 1);
            }
        }
        if entries == 0 && !has_total {
            return Err(InputError::Nothing { command: kind.made_by() });
        }
        if since_total.is_some() {
            self.gaps.push(format!(
                "{name}: no total at its end: it was cut short; write the output of `{}` to it \
                 again",
                kind.made_by()
            ));
        }
        self.read.push(ReadInput { kind, name: name.to_owned(), modified, entries });
        Ok(())
    }

    /// Takes one object that is no total. Returns whether it speaks of a mailbox or a domain.
    fn add_entry(&mut self, kind: InputKind, object: &Map<String, Value>) -> Result<bool, String> {
        let twice = |name: &str| {
            format!(
                "{} has a line before; give one {} of each",
                on_one_line(name),
                match kind {
                    InputKind::Status => "status",
                    _ => "forecast",
                }
            )
        };
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        let stranger = |field: &str| {
            format!("no {field:?} that is known; give what `{}` prints", kind.made_by())
        };
        match kind {
            InputKind::Site => return Ok(false),
            InputKind::Status => {
                let Some(domain) = text("domain") else {
                    return if object.contains_key("user") {
                        Err(stranger("domain"))
                    } else {
                        Ok(false)
                    };
                };
                let status = StatusOfDomain::of(object);
                if self.status.insert(domain.to_owned(), status).is_some() {
                    return Err(twice(domain));
                }
            }
            InputKind::Forecast => {
                let Some(user) = text("user") else {
                    return if object.contains_key("domain") {
                        Err(stranger("user"))
                    } else {
                        Ok(false)
                    };
                };
                let sign = text("sign").and_then(Outlook::of_sign);
                let outlook = sign.ok_or_else(|| stranger("sign"))?;
                let forecast = forecast_of(object, outlook);
                if self.forecast.insert(user.to_owned(), forecast).is_some() {
                    return Err(twice(user));
                }
            }
            InputKind::Rehearsal => {
                let Some(user) = text("user") else {
                    return if object.contains_key("domain") {
                        Err(stranger("user"))
                    } else {
                        Ok(false)
                    };
                };
                let outcome = match text("outcome") {
                    Some("rehearsed") => RehearsalOutcome::Agrees,
                    Some("differs") => RehearsalOutcome::Differs,
                    Some("could_not") => {
                        RehearsalOutcome::CouldNot(on_one_line(text("why").unwrap_or_default()))
                    }
                    _ => return Err(stranger("outcome")),
                };
                let rehearsal = RehearsalOfMailbox {
                    outcome,
                    has_new: count(object, "listed") > count(object, "captured"),
                    missing: named(object, "missing"),
                    misplaced: named(object, "misplaced"),
                    repeated: named(object, "repeated"),
                    spent: named(object, "spent"),
                };
                self.rehearsal.insert(user.to_owned(), rehearsal);
            }
        }
        Ok(true)
    }

    fn add_total(
        &mut self,
        kind: InputKind,
        name: &str,
        number: usize,
        lines: u64,
        total: &Map<String, Value>,
        object: &Map<String, Value>,
    ) {
        match kind {
            InputKind::Forecast => {
                self.on_no_roster += count(total, "on_no_roster");
                let Some(signs) = total.get("maildrops").and_then(Value::as_object) else { return };
                let told: u64 = signs.values().filter_map(Value::as_u64).sum();
                if told != lines {
                    self.gaps.push(format!(
                        "{name}:{number}: the total is of {told} mailboxes, and {lines} stand \
                         before it: write the output of `{}` to it again",
                        kind.made_by()
                    ));
                }
            }
            InputKind::Status => {
                self.status_of_all.push(StatusOfDomain::of(total));
                let said = object.get("plugin").and_then(|plugin| plugin.get("said"));
                self.plugin.extend(said.and_then(Value::as_str).map(on_one_line));
            }
            InputKind::Rehearsal | InputKind::Site => {}
        }
    }

    /// Takes a site's rosters.
    pub fn add_site<'a>(&mut self, name: &str, rosters: impl IntoIterator<Item = &'a Roster>) {
        let before = self.rosters.len();
        for line in rosters.into_iter().flat_map(Roster::lines) {
            self.rosters.insert(line.user.clone(), line.clone());
        }
        let entries = (self.rosters.len() - before) as u64;
        let (kind, name) = (InputKind::Site, name.to_owned());
        self.read.push(ReadInput { kind, name, modified: None, entries });
    }
}

fn forecast_of(object: &Map<String, Value>, outlook: Outlook) -> ForecastOfMailbox {
    let is = |field: &str, otherwise: bool| {
        object.get(field).and_then(Value::as_bool).unwrap_or(otherwise)
    };
    ForecastOfMailbox {
        outlook,
        why: object.get("why").and_then(Value::as_str).map(on_one_line),
        captured: count(object, "captured"),
        kept: count(object, "kept"),
        not_copied: named(object, "not_copied"),
        changed: named(object, "changed"),
        ambiguous: named(object, "ambiguous"),
        again: count(object, "again"),
        new: count(object, "new"),
        listed: count(object, "listed"),
        other_uidl: count(object, "other_uidl"),
        repeated: count(object, "repeated"),
        unreadable: count(object, "unreadable"),
        is_in_order: is("in_order", true),
        is_refused: is("refused", false),
    }
}

/// A number, or the number of things in a list. A field that is not there counts nothing.
fn count(object: &Map<String, Value>, field: &str) -> u64 {
    match object.get(field) {
        Some(Value::Array(list)) => list.len() as u64,
        Some(value) => value.as_u64().unwrap_or_default(),
        None => 0,
    }
}

fn named(object: &Map<String, Value>, field: &str) -> NamedUidls {
    let uidls = object.get(field).and_then(Value::as_array).into_iter().flatten();
    let uidls = uidls.filter_map(Value::as_str).take(NamedUidls::MOST_NAMED);
    NamedUidls { count: count(object, field), first: uidls.map(on_one_line).collect() }
}

/// Whether a roster says that nobody knows what a client of the user's saw.
pub(super) fn has_failed(line: &RosterLine) -> bool {
    line.state == State::Failed
}
