//! Says of one mailbox how it stands, why, and what to do next.
#![forbid(unsafe_code)]

use crate::report::input::{
    ForecastOfMailbox, NamedUidls, RehearsalOfMailbox, RehearsalOutcome, has_failed,
};
use crate::report::words::{counted, grouped};
use crate::site::roster::{Gate, RosterLine};

/// How a mailbox stands, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outlook {
    /// Could not tell, or POP3 refuses the user: `!`.
    CouldNotTell,
    /// Messages are there that clients will not recognise, or in another order: `*`.
    Changed,
    /// Captured messages are missing: `-`.
    Missing,
    /// Nothing that was read speaks of it: `?`.
    NotSeen,
    /// All is kept, and there is new mail: `+`.
    New,
    /// All is kept: `=`.
    Whole,
}

impl Outlook {
    /// All, the worst first.
    pub const ALL: [Self; 6] =
        [Self::CouldNotTell, Self::Changed, Self::Missing, Self::NotSeen, Self::New, Self::Whole];

    /// The one for a sign of a forecast; `None`: no forecast has that sign.
    pub fn of_sign(sign: &str) -> Option<Self> {
        let signs = Self::ALL.into_iter().filter(|outlook| *outlook != Self::NotSeen);
        signs.into_iter().find(|outlook| sign.len() == 1 && sign.starts_with(outlook.sign()))
    }

    /// Its sign.
    pub fn sign(self) -> char {
        match self {
            Self::CouldNotTell => '!',
            Self::Changed => '*',
            Self::Missing => '-',
            Self::NotSeen => '?',
            Self::New => '+',
            Self::Whole => '=',
        }
    }

    /// Its name, a word or a few.
    pub fn words(self) -> &'static str {
        match self {
            Self::CouldNotTell => "could not tell",
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::NotSeen => "not seen",
            Self::New => "new mail",
            Self::Whole => "whole",
        }
    }

    /// Its meaning, a sentence for who has not read the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::CouldNotTell => {
                "It could not be told what clients will see, or POP3 refuses the user."
            }
            Self::Changed => {
                "Messages are here that clients will not recognise, or that stand in another \
                 order. Clients may download them again."
            }
            Self::Missing => "Messages of the old server are not here. They were not copied.",
            Self::NotSeen => "Nothing that was read for this page speaks of the mailbox.",
            Self::New => "Clients keep all that they have, and get new mail.",
            Self::Whole => "Clients keep all that they have, and find nothing else.",
        }
    }

    /// Whether the customer may notice. A mailbox that was not seen is no such one by itself.
    pub fn is_at_risk(self) -> bool {
        matches!(self, Self::CouldNotTell | Self::Changed | Self::Missing)
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The deed, in words.
    pub what: String,
    /// A command for it; words in capitals in it are to be filled in.
    pub command: Option<String>,
}

/// What is said of one mailbox.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub outlook: Outlook,
    /// Why it is no better.
    pub reasons: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// The messages that reasons speak of.
    pub named: Vec<(&'static str, NamedUidls)>,
}

impl Judged {
    fn worsen(&mut self, outlook: Outlook, reason: String) {
        self.outlook = self.outlook.min(outlook);
        self.reasons.push(reason);
    }

    fn name(&mut self, what: &'static str, uidls: &NamedUidls) {
        if !uidls.first.is_empty() {
            self.named.push((what, uidls.clone()));
        }
    }
}

/// Judges a mailbox by all that is known of it. Where two disagree, the worse counts.
pub(super) fn judge(
    forecast: Option<&ForecastOfMailbox>,
    rehearsal: Option<&RehearsalOfMailbox>,
    roster: Option<&RosterLine>,
    troubled: &[&str],
) -> Judged {
    let outlook = match (forecast, rehearsal) {
        (None, None) => Outlook::NotSeen,
        (Some(forecast), _) => forecast.outlook,
        (None, Some(rehearsal)) if rehearsal.has_new => Outlook::New,
        (None, Some(_)) => Outlook::Whole,
    };
    let mut judged = Judged { outlook, reasons: Vec::new(), notes: Vec::new(), named: Vec::new() };
    for why in troubled {
        judged.worsen(Outlook::CouldNotTell, (*why).to_owned());
    }
    if let Some(line) = roster {
        judge_by_roster(&mut judged, line, troubled.is_empty());
    }
    if let Some(forecast) = forecast {
        judge_by_forecast(&mut judged, forecast);
    }
    if let Some(rehearsal) = rehearsal {
        judge_by_rehearsal(&mut judged, rehearsal);
        let is_bad = forecast.is_some_and(|forecast| forecast.outlook.is_at_risk());
        if is_bad && rehearsal.outcome == RehearsalOutcome::Agrees {
            judged.reasons.push(
                "the rehearsal found all as it was captured; if it is the later one, make the \
                 forecast again"
                    .to_owned(),
            );
        }
    }
    judged
}

fn judge_by_roster(judged: &mut Judged, line: &RosterLine, is_refusal_new: bool) {
    if line.gate == Gate::Redownload {
        judged.worsen(
            Outlook::Changed,
            "given up (redownload): clients download everything again".to_owned(),
        );
        return;
    }
    if is_refusal_new && line.awaits_capture() {
        judged.worsen(
            Outlook::CouldNotTell,
            "POP3 refuses the user: the mailbox was forgotten, and awaits a capture".to_owned(),
        );
    }
    if is_refusal_new && has_failed(line) {
        judged.worsen(
            Outlook::CouldNotTell,
            "POP3 refuses the user: the capture of the mailbox failed".to_owned(),
        );
    }
    if line.gate == Gate::Held {
        let rehearsed = if line.rehearsed { ", and rehearsed" } else { ", and not rehearsed" };
        judged.notes.push(format!("held{rehearsed}"));
    }
}

fn judge_by_forecast(judged: &mut Judged, forecast: &ForecastOfMailbox) {
    let ForecastOfMailbox { outlook, not_copied, changed, ambiguous, .. } = forecast;
    // Each of these has made the sign; the sign alone decides.
    let mut reason = |text: String| judged.reasons.push(text);
    if let Some(why) = &forecast.why {
        reason(format!("could not tell: {why}"));
    }
    if forecast.is_refused {
        reason(
            "POP3 refuses the first login until half of the captured messages are here".to_owned(),
        );
    }
    if forecast.unreadable > 0 {
        reason(format!("{} cannot be read", counted(forecast.unreadable, "message")));
    }
    if changed.count > 0 {
        reason(format!(
            "{} changed on the way: clients download them again",
            counted(changed.count, "message")
        ));
    }
    if ambiguous.count > 0 {
        reason(format!(
            "{} cannot be told from others: clients download them again",
            counted(ambiguous.count, "message")
        ));
    }
    if not_copied.count > 0 {
        reason(format!("{} not copied", counted(not_copied.count, "message")));
    }
    if forecast.other_uidl > 0 {
        reason(format!(
            "{} had another UIDL in an earlier capture: a client that has not asked since \
             downloads them again",
            counted(forecast.other_uidl, "message")
        ));
    }
    if !forecast.is_in_order {
        reason("messages stand in another order".to_owned());
    }
    if outlook.is_at_risk() && judged.reasons.is_empty() {
        judged.reasons.push(format!(
            "the forecast has the sign {}, and gives no reason that this version knows",
            outlook.sign()
        ));
    }
    if forecast.new > 0 {
        judged.notes.push(counted(forecast.new, "new message"));
    }
    if forecast.listed > 0 {
        judged.notes.push(format!("{} of these listed here before", grouped(forecast.listed)));
    }
    if forecast.repeated > 0 {
        let repeated = counted(forecast.repeated, "message");
        judged.notes.push(format!("{repeated} share a UIDL, as on the old server"));
    }
    judged.name("Changed on the way", changed);
    judged.name("Ambiguous", ambiguous);
    judged.name("Not copied", not_copied);
}

fn judge_by_rehearsal(judged: &mut Judged, rehearsal: &RehearsalOfMailbox) {
    let RehearsalOfMailbox { outcome, missing, misplaced, repeated, spent, .. } = rehearsal;
    match outcome {
        RehearsalOutcome::Agrees => {
            judged.notes.push("the rehearsal found all as it was captured".to_owned());
        }
        RehearsalOutcome::CouldNot(why) => {
            judged.worsen(Outlook::CouldNotTell, format!("could not be rehearsed: {why}"));
        }
        RehearsalOutcome::Differs => {
            let parts = [
                (Outlook::Missing, missing, "not listed under the captured UIDL"),
                (Outlook::Changed, misplaced, "in another place than before"),
                (Outlook::Changed, repeated, "with a UIDL that another message has, too"),
                (Outlook::Changed, spent, "with a UIDL that clients may hold for another message"),
            ];
            let parts = parts.into_iter().filter(|(_, uidls, _)| uidls.count > 0);
            let mut is_named = false;
            for (outlook, uidls, what) in parts {
                is_named = true;
                let count = counted(uidls.count, "message");
                judged.worsen(outlook, format!("rehearsal: {count} {what}"));
            }
            if !is_named {
                judged.worsen(Outlook::Changed, "rehearsal: the listing differs".to_owned());
            }
            judged.name("Not listed in the rehearsal", missing);
            judged.name("In another place in the rehearsal", misplaced);
            judged.name("Repeated in the rehearsal", repeated);
            judged.name("Spent, and listed in the rehearsal", spent);
        }
    }
}
