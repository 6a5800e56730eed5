//! Joins all that was read by mailbox and by domain: [`MigrationReport`].
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::maildrop::{State, everybody_of, is_everybody};
use crate::report::input::{InputKind, NamedUidls, ReadInput, ReportInputs, StatusOfDomain};
use crate::report::judged::{Advice, Judged, Outlook, judge};
use crate::report::words::{command, counted, domain_of, shell_word};
use crate::site::roster::{Gate, RosterLine, is_domain, name_of_domain};

/// All that a page says.
#[derive(Debug)]
pub struct MigrationReport {
    /// Its title.
    pub title: String,
    /// When it was made.
    pub made: SystemTime,
    /// What it was made of.
    pub read: Vec<ReadInput>,
    /// What was missing from that, in sentences.
    pub gaps: Vec<String>,
    /// All mailboxes together.
    pub totals: ReportTotals,
    /// The domains, those with most mailboxes at risk first.
    pub domains: Vec<ReportDomain>,
    /// What to do next, in its order.
    pub next: Vec<Advice>,
    /// What statuses say of the whole; empty where a part was asked for.
    pub status: Vec<StatusOfDomain>,
    /// What they say of the plugin.
    pub plugin: Vec<String>,
    /// Mailboxes here that are on no roster.
    pub on_no_roster: u64,
}

/// The mailboxes of one domain.
#[derive(Debug)]
pub struct ReportDomain {
    /// Its name; empty for logins without one.
    pub name: String,
    /// Its mailboxes, the worst first.
    pub mailboxes: Vec<ReportMailbox>,
    /// Their numbers.
    pub totals: ReportTotals,
    /// What is to be known of the domain as a whole.
    pub notes: Vec<String>,
    /// What a status says of it.
    pub status: Option<StatusOfDomain>,
    /// What to do next.
    pub next: Advice,
}

/// One mailbox.
#[derive(Debug)]
pub struct ReportMailbox {
    /// The user, as Dovecot names him.
    pub user: String,
    /// How it stands.
    pub outlook: Outlook,
    /// Why it is no better.
    pub reasons: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// Messages that the reasons speak of, by what they have in common.
    pub named: Vec<(&'static str, NamedUidls)>,
    /// Its messages; `None`: nobody has said.
    pub messages: Option<ReportMessages>,
    /// Whether it is served, in the roster's word.
    pub gate: Option<&'static str>,
    /// What to do next; `None`: nothing, for this mailbox alone.
    pub next: Option<Advice>,
}

/// Numbers of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportMessages {
    /// Captured on the old server.
    pub captured: u64,
    /// How many of them keep their UIDL.
    pub kept: u64,
    /// Captured, and not here.
    pub missing: u64,
    /// Captured, here, and not recognised, or with another UIDL in an earlier capture.
    pub changed: u64,
    /// Here, and to be downloaded although clients have them.
    pub again: u64,
    /// Here, and new to everybody.
    pub new: u64,
}

/// Numbers of mailboxes and messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportTotals {
    /// Mailboxes, by how they stand.
    pub by_outlook: BTreeMap<Outlook, u64>,
    /// The messages of those mailboxes whose messages are known.
    pub messages: ReportMessages,
    /// The number of these mailboxes.
    pub told: u64,
    /// Mailboxes that were rehearsed as captured, by this rehearsal.
    pub rehearsed: u64,
    /// Users who are held, as the rosters say.
    pub held: u64,
    /// How many of these can be rehearsed, and were not.
    pub unrehearsed: u64,
}

impl ReportTotals {
    /// How many mailboxes stand so.
    pub fn count(&self, outlook: Outlook) -> u64 {
        self.by_outlook.get(&outlook).copied().unwrap_or_default()
    }

    /// All mailboxes.
    pub fn mailboxes(&self) -> u64 {
        self.by_outlook.values().sum()
    }

    /// Mailboxes whose owners may notice something.
    pub fn at_risk(&self) -> u64 {
        let at_risk = Outlook::ALL.into_iter().filter(|outlook| outlook.is_at_risk());
        at_risk.map(|outlook| self.count(outlook)).sum()
    }

    fn add(&mut self, mailbox: &ReportMailbox) {
        *self.by_outlook.entry(mailbox.outlook).or_default() += 1;
        if let Some(messages) = &mailbox.messages {
            self.messages.add(messages);
            self.told += 1;
        }
    }

    fn join(&mut self, other: &Self) {
        for (outlook, count) in &other.by_outlook {
            *self.by_outlook.entry(*outlook).or_default() += count;
        }
        self.messages.add(&other.messages);
        self.told += other.told;
        self.rehearsed += other.rehearsed;
        self.held += other.held;
        self.unrehearsed += other.unrehearsed;
    }
}

impl ReportMessages {
    fn add(&mut self, other: &Self) {
        let Self { captured, kept, missing, changed, again, new } = other;
        self.captured += captured;
        self.kept += kept;
        self.missing += missing;
        self.changed += changed;
        self.again += again;
        self.new += new;
    }
}

impl MigrationReport {
    /// Joins what was read. `only` names the users and domains that it is about; empty: all. `site`
    /// is what commands say to find the site, empty or ` --site SITE`.
    pub fn of(
        inputs: ReportInputs,
        title: &str,
        only: &BTreeSet<String>,
        site: &str,
        made: SystemTime,
    ) -> Self {
        let is_wanted = |user: &str| {
            let domain = domain_of(user);
            only.is_empty() || only.contains(user) || !domain.is_empty() && only.contains(domain)
        };
        let users = inputs.forecast.keys().chain(inputs.rehearsal.keys());
        let on_rosters = inputs.rosters.keys().filter(|user| !is_domain(user));
        let mut troubled: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (user, why) in inputs.status.values().flat_map(|status| &status.troubled) {
            troubled.entry(user).or_default().push(why);
        }
        let users: BTreeSet<&str> = users
            .chain(on_rosters)
            .map(String::as_str)
            .chain(troubled.keys().copied())
            .filter(|user| !is_everybody(user) && is_wanted(user))
            .collect();
        let mut domains: BTreeMap<String, Vec<ReportMailbox>> = BTreeMap::new();
        for domain in inputs.status.keys() {
            // A domain may have nobody at risk, and no other input.
            if only.is_empty() || only.contains(domain) {
                domains.entry(domain.clone()).or_default();
            }
        }
        let commands = Commands { site, only };
        for user in users {
            let (forecast, rehearsal) = (inputs.forecast.get(user), inputs.rehearsal.get(user));
            let roster = inputs.rosters.get(user);
            let of_status = troubled.get(user).map_or(&[][..], Vec::as_slice);
            let judged = judge(forecast, rehearsal, roster, of_status);
            let messages = match (forecast, rehearsal) {
                (Some(forecast), _) if forecast.why.is_none() => Some(ReportMessages {
                    captured: forecast.captured,
                    kept: forecast.kept,
                    missing: forecast.not_copied.count,
                    changed: forecast.changed.count + forecast.ambiguous.count,
                    again: forecast.again,
                    new: forecast.new,
                }),
                _ => None,
            };
            let Judged { outlook, reasons, notes, named } = judged;
            let is_forecast_bad = forecast.is_some_and(|it| it.outlook.is_at_risk());
            let is_by_rehearsal = rehearsal.is_some() && !is_forecast_bad;
            let next = commands.of_mailbox(user, outlook, roster, is_by_rehearsal);
            let gate = roster.map(RosterLine::gate_word);
            let user = user.to_owned();
            let of_domain = domains.entry(domain_of(&user).to_owned()).or_default();
            of_domain.push(ReportMailbox {
                user,
                outlook,
                reasons,
                notes,
                named,
                messages,
                gate,
                next,
            });
        }
        let domains = domains.into_iter();
        let mut domains: Vec<ReportDomain> = domains
            .map(|(name, mailboxes)| ReportDomain::of(name, mailboxes, &inputs, &commands))
            .collect();
        domains.sort_by_cached_key(|domain| {
            let totals = &domain.totals;
            (Reverse(totals.at_risk()), Reverse(totals.mailboxes()), domain.name.clone())
        });
        let mut totals = ReportTotals::default();
        domains.iter().for_each(|domain| totals.join(&domain.totals));
        let is_whole = only.is_empty();
        let status = if is_whole { inputs.status_of_all.clone() } else { Vec::new() };
        let next = commands.of_all(&inputs, &totals, &domains, &status);
        Self {
            title: title.to_owned(),
            made,
            read: inputs.read,
            gaps: inputs.gaps,
            totals,
            domains,
            next,
            status,
            plugin: inputs.plugin,
            on_no_roster: if is_whole { inputs.on_no_roster } else { 0 },
        }
    }

    /// The mailboxes at risk, the worst first.
    pub fn at_risk(&self) -> Vec<&ReportMailbox> {
        let mailboxes = self.domains.iter().flat_map(|domain| &domain.mailboxes);
        let mut at_risk: Vec<_> =
            mailboxes.filter(|mailbox| mailbox.outlook.is_at_risk()).collect();
        at_risk.sort_by_cached_key(|mailbox| mailbox.rank());
        at_risk
    }

    /// Whether something of that kind was read.
    pub fn has(&self, kind: InputKind) -> bool {
        self.read.iter().any(|read| read.kind == kind)
    }

    /// The names of those that were asked for of whom nothing was read.
    pub fn unmet<'a>(&self, only: &'a BTreeSet<String>) -> Vec<&'a String> {
        let is_met = |name: &str| {
            self.domains.iter().any(|domain| {
                domain.name == name || domain.mailboxes.iter().any(|mailbox| mailbox.user == name)
            })
        };
        only.iter().filter(|name| !is_met(name)).collect()
    }
}

impl ReportMailbox {
    /// The worst first, and among them those with most messages that a client notices.
    fn rank(&self) -> (Outlook, Reverse<u64>, String) {
        let noticed = self.messages.map_or(0, |messages| messages.missing + messages.changed);
        (self.outlook, Reverse(noticed), self.user.clone())
    }
}

impl ReportDomain {
    fn of(
        name: String,
        mut mailboxes: Vec<ReportMailbox>,
        inputs: &ReportInputs,
        commands: &Commands,
    ) -> Self {
        mailboxes.sort_by_cached_key(ReportMailbox::rank);
        let mut totals = ReportTotals::default();
        for mailbox in &mailboxes {
            totals.add(mailbox);
            let line = inputs.rosters.get(&mailbox.user);
            let held = line.filter(|line| line.gate == Gate::Held);
            totals.held += u64::from(held.is_some());
            let can_be = |line: &&RosterLine| !line.rehearsed && !line.awaits_capture();
            totals.unrehearsed += u64::from(held.filter(can_be).is_some());
            totals.rehearsed += u64::from(inputs.rehearsal_agrees(&mailbox.user));
        }
        let mut notes = Vec::new();
        let of_domain = inputs.rosters.get(&name_of_domain(&name)).filter(|_| !name.is_empty());
        if of_domain.is_some_and(|line| line.gate == Gate::Held) {
            notes.push("the whole domain is held".to_owned());
        }
        let status = inputs.status.get(&name).cloned();
        let everybody = everybody_of(Some(&*name).filter(|name| !name.is_empty()));
        let of_roster = inputs.rosters.get(&everybody);
        let troubled = status.iter().flat_map(|status| &status.troubled);
        let is_missing = of_roster.is_some_and(|line| line.gate != Gate::Redownload)
            || troubled.clone().any(|(user, _)| *user == everybody);
        if is_missing {
            notes.push(
                "the old server could not be searched for all of the domain: who is on no roster \
                 is refused"
                    .to_owned(),
            );
        }
        let faults = status.iter().flat_map(|status| &status.faults);
        notes.extend(faults.map(|fault| format!("could not tell: {fault}")));
        let next = commands.of_domain(&name, &mailboxes, &totals, status.as_ref());
        Self { name, mailboxes, totals, notes, status, next }
    }
}

/// Makes the next steps.
struct Commands<'a> {
    /// Empty, or ` --site SITE`.
    site: &'a str,
    /// Who the page is about; empty: all.
    only: &'a BTreeSet<String>,
}

impl Commands<'_> {
    fn named(&self, words: &str, name: &str) -> Option<String> {
        command(&format!("{words}{}", self.site), name)
    }

    /// A command for everybody whom the page is about.
    fn for_all(&self, words: &str) -> String {
        let names: Vec<String> = self.only.iter().filter_map(|name| shell_word(name)).collect();
        let who = if self.only.is_empty() { "--all".to_owned() } else { names.join(" ") };
        let dashes = if names.iter().any(|name| name.starts_with('-')) { "-- " } else { "" };
        format!("uidl-keep {words}{} {dashes}{who}", self.site)
    }

    fn forecast(&self, only: &str) -> Option<String> {
        let only = shell_word(only)?;
        Some(format!("uidl-keep forecast{} --only={only}", self.site))
    }

    /// Names what to do for one mailbox. What goes for its whole domain is said there.
    fn of_mailbox(
        &self,
        user: &str,
        outlook: Outlook,
        roster: Option<&RosterLine>,
        is_by_rehearsal: bool,
    ) -> Option<Advice> {
        if roster.is_some_and(|line| line.gate == Gate::Redownload) {
            let what = "Tell the customer: clients download everything again.".to_owned();
            return Some(Advice { what, command: None });
        }
        let is_captured = |line: &RosterLine| line.state != State::Failed && !line.awaits_capture();
        let build = "uidl-keep build --install LISTING".to_owned();
        let (what, command) = match outlook {
            Outlook::CouldNotTell if !roster.is_none_or(is_captured) => {
                ("Capture the mailbox again, and build.", Some(build))
            }
            Outlook::CouldNotTell if is_by_rehearsal => {
                ("Mend what the reason names, and rehearse again.", self.named("rehearse", user))
            }
            Outlook::CouldNotTell => {
                ("Mend what the reason names, and forecast again.", self.forecast(user))
            }
            Outlook::Missing if is_by_rehearsal => {
                ("See which messages, and what is told now.", self.named("explain", user))
            }
            Outlook::Changed => {
                ("See which messages, and what is told now.", self.named("explain", user))
            }
            Outlook::Missing => ("Copy the mail again, then forecast.", self.forecast(user)),
            Outlook::NotSeen | Outlook::New | Outlook::Whole => return None,
        };
        Some(Advice { what: what.to_owned(), command })
    }

    fn of_domain(
        &self,
        name: &str,
        mailboxes: &[ReportMailbox],
        totals: &ReportTotals,
        status: Option<&StatusOfDomain>,
    ) -> Advice {
        let first = mailboxes.first().map_or("", |mailbox| &*mailbox.user);
        // Logins without a domain are named one by one.
        let who = if name.is_empty() { first } else { name };
        let step = |what: &str, command| Advice { what: what.to_owned(), command };
        if totals.at_risk() > 0 {
            let at_risk = counted(totals.at_risk(), "mailbox");
            let what = format!("Mend {at_risk} first, then forecast again.");
            return Advice { what, command: self.forecast(who) };
        }
        if let Some(command) = status.and_then(|status| status.next.clone()) {
            return step("As the status says:", Some(command));
        }
        if totals.count(Outlook::NotSeen) > 0 {
            return step("Forecast it.", self.forecast(who));
        }
        if totals.unrehearsed > 0 {
            return step(
                "Rehearse it, once the last capture is built.",
                self.named("rehearse", who),
            );
        }
        if totals.held > 0 {
            return step("Release it.", self.named("release", who));
        }
        step("See how far it is.", self.named("status", who))
    }

    fn of_all(
        &self,
        inputs: &ReportInputs,
        totals: &ReportTotals,
        domains: &[ReportDomain],
        status: &[StatusOfDomain],
    ) -> Vec<Advice> {
        let mut steps = Vec::new();
        let mut step = |what: String, command: Option<String>| steps.push(Advice { what, command });
        if !inputs.gaps.is_empty() {
            step("Make again what is incomplete: see above.".to_owned(), None);
        }
        let only = self.only.iter().filter_map(|name| shell_word(name));
        let only: String = only.map(|name| format!(" --only={name}")).collect();
        let forecast = format!("uidl-keep forecast{} --json{only}", self.site);
        let mailboxes = |outlook| counted(totals.count(outlook), "mailbox");
        let first = |outlook| {
            let all = domains.iter().flat_map(|domain| &domain.mailboxes);
            let mut all = all.filter(|mailbox| mailbox.outlook == outlook);
            all.next().map_or("", |mailbox| &*mailbox.user)
        };
        if totals.count(Outlook::CouldNotTell) > 0 {
            step(
                format!(
                    "Mend {} of which it could not be told what clients will see, or which POP3 \
                     refuses. The reason stands with each.",
                    mailboxes(Outlook::CouldNotTell)
                ),
                None,
            );
        }
        if totals.count(Outlook::Missing) > 0 {
            let what = format!("Copy the mail of {} again.", mailboxes(Outlook::Missing));
            step(what, None);
        }
        if totals.count(Outlook::Changed) > 0 {
            step(
                format!(
                    "Look at {} whose messages clients may download again, and tell their owners \
                     where it cannot be mended.",
                    mailboxes(Outlook::Changed)
                ),
                self.named("explain", first(Outlook::Changed)),
            );
        }
        if totals.at_risk() > 0 {
            step("Forecast again, and make this page anew.".to_owned(), Some(forecast));
        } else if totals.count(Outlook::NotSeen) > 0 {
            let what = format!("Forecast {}.", mailboxes(Outlook::NotSeen));
            step(what, Some(forecast));
        } else if totals.unrehearsed > 0 {
            step(
                "Rehearse the first login of everybody, once the last capture is built.".to_owned(),
                Some(self.for_all("rehearse")),
            );
        } else if totals.held > 0 {
            step(
                "Release everybody, and let the server's name point here.".to_owned(),
                Some(self.for_all("release")),
            );
        }
        for command in status.iter().filter_map(|status| status.next.clone()) {
            let is_first = totals.at_risk() == 0;
            let what =
                if is_first { "As the status says:" } else { "After that, says the status:" };
            step(what.to_owned(), Some(command));
        }
        if steps.is_empty() {
            let status = format!("uidl-keep status{}", self.site);
            steps.push(Advice { what: "See how far it is.".to_owned(), command: Some(status) });
        }
        steps
    }
}
