//! Writes a [`MigrationReport`] as one HTML file: [`page`].
//!
//! Everything that comes from outside goes in as text of the templates, which escape it. The policy
//! in the head allows this style and this script, by their hashes, and nothing else: a text that
//! got through could still do nothing.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::report::input::{InputKind, NamedUidls, StatusOfDomain};
use crate::report::judged::{Advice, Outlook};
use crate::report::model::{
    MigrationReport, ReportDomain, ReportMailbox, ReportMessages, ReportTotals,
};
use crate::report::words::{counted, grouped, percent};
use crate::text::on_one_line;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const GENERATOR: &str = concat!("uidl-keep ", env!("CARGO_PKG_VERSION"));

/// The width of a bar in its own units, and the least of them that a part has.
const BAR: u64 = 1000;
const LEAST_OF_BAR: u64 = 6;

/// Whether a file begins as a page of [`page`]. Give it the first 200 octets or more.
pub fn is_page(start: &[u8]) -> bool {
    let mark = b"<meta name=\"generator\" content=\"uidl-keep ";
    start.starts_with(b"<!DOCTYPE html>") && start.windows(mark.len()).any(|octets| octets == mark)
}

/// The whole page.
pub fn page(report: &MigrationReport) -> String {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let at_risk = report.at_risk();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="generator" content=(GENERATOR);
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (shown(&report.title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#risk" { "Skip to the mailboxes at risk" }
                header {
                    h1 { (name(&report.title)) }
                    p.soft {
                        "Made " (time(report.made)) " by " (GENERATOR) ". A POP3 client knows each "
                        "message by an id, its UIDL. This page says which mailboxes keep these ids "
                        "on the new server, so that nobody downloads old mail again."
                    }
                }
                main {
                    (verdict(report))
                    (gaps(report))
                    (totals(report))
                    (next(report))
                    (finder(report))
                    (risk(report, &at_risk))
                    (domains(report))
                    (mailboxes(report))
                }
                (footer(report))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// Foreign text: on one line, and no direction of writing gets out of it.
fn name(text: &str) -> Markup {
    html! { bdi { (shown(text)) } }
}

/// A user. A name that is too long for its place is parted behind the `@` first.
fn user_name(user: &str) -> Markup {
    let shown = shown(user);
    html! {
        bdi {
            @match shown.rsplit_once('@') {
                Some((local, domain)) => { (local) "@" span { (domain) } }
                None => (shown),
            }
        }
    }
}

fn shown(text: &str) -> String {
    on_one_line(text)
}

fn time(time: SystemTime) -> Markup {
    // The formatter knows no time before 1970.
    let time = time.max(UNIX_EPOCH).min(UNIX_EPOCH + Duration::from_secs(253_402_300_799));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let words = text.replace('T', " ").replace('Z', " UTC");
    html! { time datetime=(text) { (words) } }
}

fn class(outlook: Outlook) -> &'static str {
    match outlook {
        Outlook::CouldNotTell => "s-worst",
        Outlook::Changed => "s-changed",
        Outlook::Missing => "s-missing",
        Outlook::NotSeen => "s-unseen",
        Outlook::New => "s-new",
        Outlook::Whole => "s-whole",
    }
}

/// What a state is sorted by: the worst is the highest.
fn severity(outlook: Outlook) -> usize {
    Outlook::ALL.iter().rev().position(|it| *it == outlook).unwrap_or_default()
}

fn sign(outlook: Outlook) -> Markup {
    // The words beside it, or in its place, say the same.
    html! { span class={ "sign " (class(outlook)) } aria-hidden="true" { (outlook.sign()) } }
}

fn verdict(report: &MigrationReport) -> Markup {
    let totals = &report.totals;
    let (all, at_risk) = (totals.mailboxes(), totals.at_risk());
    let unseen = totals.count(Outlook::NotSeen);
    let well = totals.count(Outlook::New) + totals.count(Outlook::Whole);
    html! {
        p.verdict {
            strong {
                @if at_risk > 0 {
                    (grouped(at_risk)) " of " (counted(all, "mailbox"))
                    @if at_risk == 1 { " needs attention." } @else { " need attention." }
                } @else if well == 0 {
                    "Nothing says yet what clients will see."
                } @else if unseen > 0 {
                    "Nothing is wrong with " (counted(well, "mailbox")) "; "
                    (grouped(unseen)) " were not looked at."
                } @else {
                    "Nothing is wrong with any of " (counted(all, "mailbox")) "."
                }
            }
            @if at_risk > 0 {
                " " (well_words(well))
                @if unseen > 0 { " " (counted(unseen, "mailbox")) " not looked at." }
            }
        }
    }
}

fn well_words(well: u64) -> String {
    match well {
        0 => "No other is known to be well.".to_owned(),
        1 => "1 is well.".to_owned(),
        _ => format!("{} are well.", grouped(well)),
    }
}

fn gaps(report: &MigrationReport) -> Markup {
    html! {
        @if !report.gaps.is_empty() {
            div.alarm role="note" {
                strong { "This page is not the whole." }
                ul { @for gap in &report.gaps { li { (name(gap)) } } }
            }
        }
    }
}

fn card(value: &str, words: &str) -> Markup {
    html! { div { dt { (words) } dd { (value) } } }
}

fn totals(report: &MigrationReport) -> Markup {
    let totals = &report.totals;
    let messages = &totals.messages;
    let has_forecast = report.has(InputKind::Forecast);
    html! {
        section aria-labelledby="totals" {
            h2 #totals { "The whole" }
            dl.cards {
                (card(&grouped(totals.mailboxes()), "mailboxes"))
                (card(&grouped(totals.at_risk()), "at risk"))
                @if has_forecast {
                    @if let Some(share) = percent(messages.kept, messages.captured) {
                        (card(&share, "of captured messages kept"))
                    }
                    (card(&grouped(messages.kept), "messages kept"))
                    (card(&grouped(messages.missing), "messages not copied"))
                    (card(&grouped(messages.again), "messages to download again"))
                    (card(&grouped(messages.new), "new messages"))
                }
                @if report.has(InputKind::Rehearsal) {
                    (card(&grouped(totals.rehearsed), "rehearsed well"))
                }
                @if report.has(InputKind::Site) {
                    (card(&grouped(totals.held), "held"))
                }
            }
            @if totals.mailboxes() > 0 {
                (bar(totals, "bar big"))
                (legend(totals))
            }
            @let untold = totals.mailboxes() - totals.told;
            @if has_forecast && untold > 0 {
                p {
                    "The messages of " (counted(untold, "mailbox"))
                    " are not known, and not counted."
                }
            }
            @for status in &report.status { p { "Status: " (status_words(status)) "." } }
            @for plugin in &report.plugin { p { "Plugin: " (name(plugin)) "." } }
            @if report.on_no_roster > 0 {
                p.soft {
                    (counted(report.on_no_roster, "mailbox"))
                    " on this server are on no roster, and are not counted here."
                }
            }
        }
    }
}

fn status_words(status: &StatusOfDomain) -> String {
    let counts = status.counts.iter().map(|(words, count)| format!("{} {words}", grouped(*count)));
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() { "nothing to count".to_owned() } else { counts.join(", ") }
}

/// Mailboxes by how they stand, in words: `3 changed, 37 whole`.
fn in_words(totals: &ReportTotals) -> String {
    let counts = Outlook::ALL.into_iter().filter(|outlook| totals.count(*outlook) > 0);
    let counts = counts.map(|it| format!("{} {}", grouped(totals.count(it)), it.words()));
    counts.collect::<Vec<_>>().join(", ")
}

/// A bar of all mailboxes, by how they stand. A part that is there is seen, however small.
fn bar(totals: &ReportTotals, class_of_bar: &str) -> Markup {
    let mut at = 0;
    let parts = widths(totals).into_iter().map(|(outlook, width)| {
        at += width;
        (outlook, at - width, width)
    });
    html! {
        svg class=(class_of_bar) viewBox={ "0 0 " (BAR) " 10" } preserveAspectRatio="none"
            role="img" aria-label=(in_words(totals)) {
            @for (outlook, at, width) in parts {
                rect class=(class(outlook)) x=(at) y="0" width=(width) height="10" {
                    title { (counted(totals.count(outlook), "mailbox")) " " (outlook.words()) }
                }
            }
        }
    }
}

/// The parts of a bar, the worst first. Together they are [`BAR`] wide.
fn widths(totals: &ReportTotals) -> Vec<(Outlook, u64)> {
    let all = totals.mailboxes().max(1);
    let counts = Outlook::ALL.into_iter().map(|outlook| (outlook, totals.count(outlook)));
    let mut widths: Vec<(Outlook, u64)> = counts
        .filter(|(_, count)| *count > 0)
        .map(|(outlook, count)| (outlook, (count * BAR / all).max(LEAST_OF_BAR)))
        .collect();
    let sum: u64 = widths.iter().map(|(_, width)| width).sum();
    // The widest has at least a sixth of the bar, and gives or takes what is left.
    if let Some((_, widest)) = widths.iter_mut().max_by_key(|(_, width)| *width) {
        *widest = (*widest + BAR).saturating_sub(sum);
    }
    widths
}

fn legend(totals: &ReportTotals) -> Markup {
    html! {
        ul.legend {
            @for outlook in Outlook::ALL {
                @if totals.count(outlook) > 0 {
                    li {
                        (sign(outlook)) " " (grouped(totals.count(outlook))) " " (outlook.words())
                    }
                }
            }
        }
    }
}

fn step(step: &Advice) -> Markup {
    html! {
        (step.what)
        @if let Some(command) = &step.command {
            " "
            code.command {
                @for (at, word) in shown(command).split(' ').enumerate() {
                    @if at > 0 { " " }
                    bdi { (word) }
                }
            }
        }
    }
}

fn next(report: &MigrationReport) -> Markup {
    html! {
        section aria-labelledby="next" {
            h2 #next { "What to do next" }
            ol.steps { @for it in &report.next { li { (step(it)) } } }
            p.soft {
                small {
                    "Words in capitals are to be filled in. Commands are for the new server, as "
                    "root."
                }
            }
        }
    }
}

/// The form to search with. The script shows it.
fn finder(report: &MigrationReport) -> Markup {
    html! {
        form #find .find role="search" hidden {
            label.grow for="words" {
                "Search for names and reasons"
                input #words type="search" autocomplete="off" spellcheck="false";
            }
            label for="sign" {
                "Show"
                select #sign {
                    option value="" { "all" }
                    @for outlook in Outlook::ALL {
                        @if report.totals.count(outlook) > 0 {
                            option value=(outlook.sign()) {
                                (outlook.words())
                            }
                        }
                    }
                }
            }
            button type="reset" { "Clear" }
            button #open type="button" { "Open all" }
            button #close type="button" { "Close all" }
            output #found for="words sign" aria-live="polite" {}
        }
    }
}

fn uidls(uidls: &NamedUidls) -> Markup {
    let more = uidls.count.saturating_sub(uidls.first.len() as u64);
    html! {
        @for (at, uidl) in uidls.first.iter().enumerate() {
            @if at > 0 { ", " }
            code { (name(uidl)) }
        }
        @if more > 0 { ", and " (grouped(more)) " more" }
    }
}

fn reasons(mailbox: &ReportMailbox) -> Markup {
    html! {
        @match &mailbox.reasons[..] {
            [] => {}
            [reason] => (name(reason)),
            reasons => { ul { @for reason in reasons { li { (name(reason)) } } } }
        }
        @if !mailbox.notes.is_empty() {
            div.soft { (name(&mailbox.notes.join("; "))) }
        }
        @if !mailbox.named.is_empty() {
            details {
                summary { "Which messages" }
                @for (what, those) in &mailbox.named {
                    p { (what) ": " (uidls(those)) }
                }
            }
        }
    }
}

fn risk(report: &MigrationReport, at_risk: &[&ReportMailbox]) -> Markup {
    html! {
        section aria-labelledby="risk" {
            h2 #risk tabindex="-1" { "Mailboxes at risk" }
            @if at_risk.is_empty() {
                p {
                    @if report.has(InputKind::Forecast) || report.has(InputKind::Rehearsal) {
                        "None, as far as was looked."
                    } @else {
                        "Nothing was looked at that could tell: give a forecast."
                    }
                }
            } @else {
                p.soft {
                    "The worst first. Their owners may find messages missing, or download messages "
                    "again."
                }
                table.stack {
                    thead { tr {
                        th scope="col" data-sort="number" { "State" }
                        th scope="col" data-sort="text" { "Mailbox" }
                        th scope="col" { "Why" }
                        th.number scope="col" data-sort="number" { "Kept" }
                        th scope="col" { "Next" }
                    } }
                    tbody { @for mailbox in at_risk { (risk_row(mailbox)) } }
                }
            }
        }
    }
}

fn risk_row(mailbox: &ReportMailbox) -> Markup {
    let outlook = mailbox.outlook;
    html! {
        tr data-sign=(outlook.sign()) {
            td.state.plain data-value=(severity(outlook)) { (sign(outlook)) " " (outlook.words()) }
            th.user scope="row" { (user_name(&mailbox.user)) }
            td.wide.plain data-name="Why" { (reasons(mailbox)) }
            td.number data-name="Kept" data-value=[mailbox.messages.map(|it| it.kept)] {
                @match &mailbox.messages {
                    Some(messages) => {
                        (grouped(messages.kept)) " of " (grouped(messages.captured))
                    }
                    None => "unknown",
                }
            }
            td.wide data-name="Next" {
                @if let Some(it) = &mailbox.next { (step(it)) }
            }
        }
    }
}

fn domain_name(domain: &ReportDomain) -> Markup {
    html! { @if domain.name.is_empty() { "(no domain)" } @else { (name(&domain.name)) } }
}

fn domains(report: &MigrationReport) -> Markup {
    let has_forecast = report.has(InputKind::Forecast);
    html! {
        section aria-labelledby="domains" {
            h2 #domains { "Domains" }
            table.stack {
                thead { tr {
                    th scope="col" data-sort="text" { "Domain" }
                    th.wide scope="col" { "How its mailboxes stand" }
                    th.number scope="col" data-sort="number" { "Mailboxes" }
                    th.number scope="col" data-sort="number" { "At risk" }
                    @if has_forecast {
                        th.number scope="col" data-sort="number" { "Kept" }
                        th.number scope="col" data-sort="number" { "Again" }
                    }
                    th scope="col" { "Next" }
                } }
                tbody {
                    @for (at, domain) in report.domains.iter().enumerate() {
                        (domain_row(at, domain, has_forecast))
                    }
                }
            }
        }
    }
}

fn domain_row(at: usize, domain: &ReportDomain, has_forecast: bool) -> Markup {
    let ReportTotals { messages, .. } = &domain.totals;
    html! {
        tr {
            th.user scope="row" { a href={ "#d" (at) } { (domain_name(domain)) } }
            td.wide.plain data-name="State" {
                @if domain.totals.mailboxes() > 0 {
                    (bar(&domain.totals, "bar"))
                    (legend(&domain.totals))
                }
                @if let Some(status) = &domain.status {
                    div.soft { "Status: " (status_words(status)) }
                }
                @for note in &domain.notes { div { (name(note)) } }
            }
            td.number data-name="Mailboxes" { (grouped(domain.totals.mailboxes())) }
            td.number data-name="At risk" { (grouped(domain.totals.at_risk())) }
            @if has_forecast {
                td.number data-name="Kept" data-value=(share_value(messages)) {
                    (percent(messages.kept, messages.captured).unwrap_or("-".to_owned()))
                }
                td.number data-name="Again" { (grouped(messages.again)) }
            }
            td.wide data-name="Next" { (step(&domain.next)) }
        }
    }
}

/// What a share is sorted by.
fn share_value(messages: &ReportMessages) -> String {
    percent(messages.kept, messages.captured).map_or("-1".to_owned(), |text| text.replace(" %", ""))
}

fn mailboxes(report: &MigrationReport) -> Markup {
    html! {
        section aria-labelledby="all" {
            h2 #all { "All mailboxes" }
            @for (at, domain) in report.domains.iter().enumerate() {
                @if !domain.mailboxes.is_empty() { (mailboxes_of(report, at, domain)) }
            }
        }
    }
}

fn mailboxes_of(report: &MigrationReport, at: usize, domain: &ReportDomain) -> Markup {
    let has_forecast = report.has(InputKind::Forecast);
    let has_site = report.has(InputKind::Site);
    html! {
        details.domain id={ "d" (at) } {
            summary {
                (domain_name(domain)) " "
                span.soft { (counted(domain.totals.mailboxes(), "mailbox")) ": "
                    (in_words(&domain.totals)) }
            }
            div.scroll role="region" tabindex="0"
                aria-label={ "Mailboxes of " (shown(&domain.name)) } {
                table {
                    thead { tr {
                        th scope="col" data-sort="number" { "State" }
                        th scope="col" data-sort="text" { "Mailbox" }
                        @if has_forecast {
                            th.number scope="col" data-sort="number" { "Captured" }
                            th.number scope="col" data-sort="number" { "Kept" }
                            th.number scope="col" data-sort="number" { "Not copied" }
                            th.number scope="col" data-sort="number" { "Changed" }
                            th.number scope="col" data-sort="number" { "Again" }
                            th.number scope="col" data-sort="number" { "New" }
                        }
                        @if has_site { th scope="col" data-sort="text" { "Gate" } }
                        th scope="col" { "Notes" }
                    } }
                    tbody {
                        @for mailbox in &domain.mailboxes {
                            (row(mailbox, has_forecast, has_site))
                        }
                    }
                }
            }
        }
    }
}

fn row(mailbox: &ReportMailbox, has_forecast: bool, has_site: bool) -> Markup {
    let outlook = mailbox.outlook;
    html! {
        tr data-sign=(outlook.sign()) {
            td.state data-value=(severity(outlook)) { (sign(outlook)) " " (outlook.words()) }
            th.user scope="row" { (user_name(&mailbox.user)) }
            @if has_forecast {
                @match &mailbox.messages {
                    Some(it) => {
                        @for count in [
                            it.captured, it.kept, it.missing, it.changed, it.again, it.new
                        ] {
                            td.number { (grouped(count)) }
                        }
                    }
                    None => { @for _ in 0..6 { td.number { "?" } } }
                }
            }
            @if has_site { td { (mailbox.gate.unwrap_or("on no roster")) } }
            @let said = [&mailbox.reasons[..], &mailbox.notes].concat();
            td.wide { (name(&said.join("; "))) }
        }
    }
}

fn footer(report: &MigrationReport) -> Markup {
    html! {
        footer {
            section aria-labelledby="words-mean" {
                h2 #words-mean { "What the signs mean" }
                dl.words {
                    @for outlook in Outlook::ALL {
                        dt { (sign(outlook)) " " (outlook.words()) }
                        dd { (outlook.meaning()) }
                    }
                }
                p {
                    "Captured: a message that POP3 clients knew on the old server. Kept: clients "
                    "know it here by the same id, and do not download it again. Again: clients "
                    "have it, and download it once more. Shares are rounded down: 100 % means all."
                }
            }
            section aria-labelledby="read" {
                h2 #read { "What was read" }
                div.scroll {
                    table {
                        thead { tr {
                            th scope="col" { "Name" }
                            th scope="col" { "What it is" }
                            th scope="col" { "Written" }
                            th.number scope="col" { "Entries" }
                        } }
                        tbody {
                            @for read in &report.read {
                                tr {
                                    th scope="row" { (name(&read.name)) }
                                    td { (read.kind.made_by()) }
                                    td {
                                        @match read.modified {
                                            Some(modified) => (time(modified)),
                                            None => "as it was when this page was made",
                                        }
                                    }
                                    td.number { (grouped(read.entries)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(counts: &[(Outlook, u64)]) -> ReportTotals {
        ReportTotals { by_outlook: counts.iter().copied().collect(), ..ReportTotals::default() }
    }

    #[test]
    fn one_mailbox_among_thousands_is_seen_and_the_bar_is_full() {
        let all: Vec<(Outlook, u64)> = Outlook::ALL.map(|outlook| (outlook, 1)).into();
        for counts in [
            vec![(Outlook::CouldNotTell, 1), (Outlook::Whole, 2_999)],
            vec![(Outlook::Changed, 1), (Outlook::New, 1), (Outlook::Whole, 1)],
            vec![(Outlook::Whole, 7)],
            all,
        ] {
            let widths = widths(&totals(&counts));
            assert_eq!(widths.len(), counts.len());
            assert_eq!(widths.iter().map(|(_, width)| width).sum::<u64>(), BAR, "{counts:?}");
            assert!(widths.iter().all(|(_, width)| *width >= LEAST_OF_BAR), "{widths:?}");
        }
    }
}
