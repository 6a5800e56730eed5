//! The table that `make bench` prints: a row for each figure, with its goal, in Markdown.

use std::fmt;
use std::time::Duration;

/// One figure, as it is now.
pub struct Row {
    name: String,
    what: String,
    unit: Unit,
    goal: Goal,
    now: Vec<(String, f64)>,
    beside: Vec<String>,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A proportion of two measurements of this run.
    Ratio,
    /// Microseconds.
    Microseconds,
    /// Octets a message.
    OctetsAMessage,
    /// 1: it worked; 0: it did not.
    Works,
}

impl Unit {
    /// As it is printed, and so as it is held against the goal.
    fn rounded(self, value: f64) -> f64 {
        let scale = match self {
            Self::Ratio => 100.0,
            Self::Microseconds | Self::OctetsAMessage => 10.0,
            Self::Works => 1.0,
        };
        (value * scale).round() / scale
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{value:.2}"),
            Self::Microseconds => format!("{value:.1} us"),
            Self::OctetsAMessage => format!("{value:.1} octets"),
            Self::Works => if value >= 1.0 { "works" } else { "does not" }.to_owned(),
        }
    }
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// So much or less.
    AtMost(f64),
    /// So much or more.
    AtLeast(f64),
    /// Nothing: it stands beside another.
    None,
}

impl Row {
    /// A row without a value yet. `FIGURE` asks for it by that name.
    pub fn new(name: impl Into<String>, what: impl Into<String>, unit: Unit, goal: Goal) -> Self {
        let (name, what) = (name.into(), what.into());
        Self { name, what, unit, goal, now: Vec::new(), beside: Vec::new() }
    }

    /// The proportion of two times, ours and the other.
    pub fn of_times(
        name: impl Into<String>,
        what: impl Into<String>,
        goal: Goal,
        (ours, other): (Duration, Duration),
    ) -> Self {
        let mut row = Self::new(name, what, Unit::Ratio, goal);
        row.add("", ours.as_secs_f64() / other.as_secs_f64());
        row.beside(format!("{} / {} s", seconds(ours), seconds(other)));
        row
    }

    /// Whether it has that name.
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Adds a value, and says of what it is: the version of a Dovecot, say.
    pub fn add(&mut self, of: impl Into<String>, value: f64) {
        self.now.push((of.into(), self.unit.rounded(value)));
    }

    /// Adds what the value was made of.
    pub fn beside(&mut self, said: impl Into<String>) {
        self.beside.push(said.into());
    }

    /// Prints it, if there is a value.
    pub fn print(&self) {
        if !self.now.is_empty() {
            println!("{self}");
        }
    }

    /// Whether all values are as good as the goal.
    fn verdict(&self) -> &'static str {
        let is_met = |value: f64| match self.goal {
            Goal::AtMost(most) => value <= most,
            Goal::AtLeast(least) => value >= least,
            Goal::None => true,
        };
        match (self.goal, self.now.iter().all(|(_, value)| is_met(*value))) {
            (Goal::None, _) => "",
            (_, true) => "met",
            (_, false) => "missed",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = match self.goal {
            Goal::AtMost(most) if self.unit != Unit::Works => {
                format!("<= {}", self.unit.text(most))
            }
            Goal::AtLeast(least) if self.unit != Unit::Works => {
                format!(">= {}", self.unit.text(least))
            }
            Goal::AtMost(value) | Goal::AtLeast(value) => self.unit.text(value),
            Goal::None => String::new(),
        };
        let value = |(of, value): &(String, f64)| match of.is_empty() {
            true => self.unit.text(*value),
            false => format!("{} ({of})", self.unit.text(*value)),
        };
        let now: Vec<String> = self.now.iter().map(value).collect();
        write!(
            out,
            "| `{}` | {} | {goal} | {} | {} | {} |",
            self.name,
            self.what,
            now.join(", "),
            self.verdict(),
            self.beside.join("; ")
        )
    }
}

/// A time as the table has it.
fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

/// Prints the lines above the first row, with what counts where a row says nothing else.
pub fn print_head(messages: u32, rounds: usize) {
    println!("{messages} messages, {rounds} turns of each side, where a row says nothing else:\n");
    println!("| figure | is | goal | now | | with us beside without |");
    println!("|---|---|---|---|---|---|");
}
