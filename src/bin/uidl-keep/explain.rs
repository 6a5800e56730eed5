//! `uidl-keep explain`: what became of one user's messages, for whoever has him on the telephone.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uidl_keep::capture::find::doveconf;
use uidl_keep::capture::keys::Keys;
use uidl_keep::dovecot::Dovecot;
use uidl_keep::forecast::{Forecast, MissingBecause, Terms};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::Provenance;
use uidl_keep::maildrop::{Entry, Maildrop};
use uidl_keep::site::Site;
use uidl_keep::status::{
    Bake, HereBefore, LedgerSeen, ListedHere, MessageStory, Plugin, StatusTally, Story, WasThere,
    next_step,
};
use uidl_keep::text::on_one_line;

use crate::accounts::Doveadm;
use crate::output::{Completion, Trouble, remark};
use crate::places::InboxArgs;

/// Says what the old server told a user's clients, what they are told here, and what to run.
///
/// Example: uidl-keep explain alice@example.com UID2-1714990000
///
/// Run it as root on the new server; it changes nothing. With a UIDL, or with the UID of a message
/// here, it says of that message why it is kept, new, missing or refused. The text can be pasted
/// into a mail. Exit status 1: nobody has that name on a roster, or nobody knows that message.
#[derive(clap::Args)]
pub struct ExplainArgs {
    /// The user name, as Dovecot sees it at login.
    user: String,
    /// A UIDL of the old server or of this one, or a UID of this one.
    #[arg(value_name = "UIDL|UID")]
    message: Option<String>,
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    #[command(flatten)]
    doveadm: Doveadm,
    #[command(flatten)]
    inboxes: InboxArgs,
    #[command(flatten)]
    terms: TermsArgs,
    /// Print also every UIDL that clients were told here: a line a message, with its place, UID,
    /// UIDL and evidence; a place of `-` is that of a message that has gone.
    #[arg(long)]
    told: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How this server makes UIDLs, and what may match.
#[derive(clap::Args)]
pub struct TermsArgs {
    /// The pop3_uidl_format of this server [default: what doveconf says].
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The keys that may match, such as file,message,header [default: as the site's settings say].
    #[arg(long = "match", value_name = "KEYS")]
    keys: Option<Keys>,
}

impl TermsArgs {
    /// The terms of a site. Where doveconf does not tell the format, it is not known.
    pub fn of(&self, site: Site, dovecot: &Dovecot) -> Result<Terms, Trouble> {
        let native = match &self.format {
            Some(format) => {
                Some(doveconf::parse(format).map_err(|error| Trouble::at("--format", error))?)
            }
            None => {
                let asked = dovecot.pop3_setting("pop3_uidl_format").ok();
                asked.and_then(|format| UidlFormat::parse(&format).ok())
            }
        };
        Terms::of(site, native, self.keys.map(Keys::into)).map_err(Trouble::new)
    }
}

pub fn run(args: &ExplainArgs) -> Result<Completion, Trouble> {
    let dovecot = args.doveadm.dovecot();
    let terms = args.terms.of(Site::new(&args.site), &dovecot)?;
    let users = [args.user.clone()];
    let inbox = match args.inboxes.inboxes(dovecot)?.of(&users) {
        Ok(mut found) => found.remove(&args.user).unwrap_or_else(|| Err("not found".to_owned())),
        Err(why) => Err(why),
    };
    if let Err(why) = &inbox {
        remark(format_args!("not looked at the mailbox of {}: {why}", args.user));
    }
    let story = Story::of(&terms, &args.user, inbox.as_deref().ok()).map_err(Trouble::new)?;
    let message = args.message.as_ref().map(|asked| story.message(asked));
    let told = if args.told { story.told() } else { Vec::new() };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_of(args, &story, message.as_ref(), &told))?;
    } else {
        out.write_all(text_of(args, &story, message.as_ref(), &told).as_bytes())?;
    }
    let is_known = story.status.is_some() && message.is_none_or(|message| !message.is_unknown());
    Ok(if is_known { Completion::Done } else { Completion::Partial })
}

/// Lines, each fit for a terminal and for a mail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: impl std::fmt::Display) {
        self.0 += &on_one_line(line);
        self.0.push('\n');
    }
}

fn text_of(
    args: &ExplainArgs,
    story: &Story,
    message: Option<&MessageStory>,
    told: &[HereBefore],
) -> String {
    let mut text = Text::default();
    text.line(&story.user);
    text.line(format_args!("  roster: {}", roster_sentence(story)));
    match &story.captured {
        None => {}
        Some(Err(why)) => text.line(format_args!("  old server: could not tell: {why}")),
        Some(Ok((captured, is_final))) => {
            for line in capture_lines(captured, *is_final) {
                text.line(format_args!("  old server: {line}"));
            }
        }
    }
    text.line(format_args!("  here: {}", here_sentence(story)));
    if let Some(forecast) = &story.forecast {
        text.line(format_args!("  forecast: {}", forecast_sentence(forecast)));
    }
    if let (Some(asked), Some(message)) = (&args.message, message) {
        text.line(format_args!("message {asked}"));
        for line in message_lines(story, message) {
            text.line(format_args!("  {line}"));
        }
    }
    if !told.is_empty() {
        text.line("told here: place, UID, UIDL, evidence");
    }
    for told in told {
        let place = told.number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let (uid, uidl) = (told.record.uid, &told.record.uidl);
        text.line(format_args!("  {place} {uid} {uidl} {}", told.evidence()));
    }
    text.line(format_args!("next: {}", next(story)));
    text.0
}

fn roster_sentence(story: &Story) -> String {
    let Some(status) = &story.status else {
        return "no roster names this user: he was not migrated, or is called otherwise".to_owned();
    };
    let line = &status.line;
    let mut said = String::new();
    if line.user != story.user {
        // Writing to a String cannot fail.
        let _ = write!(said, "the user is on no roster, and it has {}: ", line.user);
    }
    let _ = write!(said, "{}, {}", line.state_word(), line.words());
    if let Some(refused) = status.refused() {
        let _ = write!(said, "; POP3 refuses the user, for {}", refused.because());
    }
    said
}

fn date(seconds: u64) -> String {
    date_of(UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
}

fn date_of(time: Option<SystemTime>) -> String {
    time.map_or_else(
        || "at no time".to_owned(),
        |t| humantime::format_rfc3339_seconds(t).to_string(),
    )
}

fn capture_lines(captured: &Maildrop, is_final: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, capture) in (1..).zip(&captured.captures) {
        let taken = capture.taken.map_or_else(|| "at a time that it does not say".to_owned(), date);
        let source = if capture.source.is_empty() { "unknown" } else { &capture.source };
        lines.push(format!("capture {number}, taken {taken}, of {source}"));
    }
    let last = captured.last_entries().count();
    let (entries, spent) = (captured.entries.len(), captured.spent.len());
    let mut all = format!("{entries} messages, {last} of them in the last capture");
    if spent > 0 {
        let _ = write!(all, ", {spent} UIDLs of messages that were gone");
    }
    if let Some(counter) = &captured.counter {
        let _ = write!(all, ", counted to {}", counter.next);
    }
    all.push_str(if is_final { "; no capture follows" } else { "; captures may follow" });
    lines.push(all);
    lines
}

fn here_sentence(story: &Story) -> String {
    let Some(status) = &story.status else { return "not looked at".to_owned() };
    match &status.seen {
        LedgerSeen::NotLooked => "not looked at".to_owned(),
        LedgerSeen::CouldNotTell(why) => format!("could not tell: {why}"),
        LedgerSeen::Nothing => "no POP3 client has listed it yet".to_owned(),
        LedgerSeen::Listed(listed) => {
            let mut said = listed_sentence(listed);
            if status.is_only_rehearsed() {
                said.push_str("; only a rehearsal has listed it");
            } else if status.is_listed() == Some(false) {
                said.push_str("; that was forgotten since, and no longer counts");
            }
            said
        }
    }
}

fn listed_sentence(listed: &ListedHere) -> String {
    let (native, derived) = (listed.count(Provenance::Native), listed.count(Provenance::Derived));
    let gone = listed.ledger.records.iter().filter(|record| record.uid == 0).count();
    let baked = match &listed.bake {
        Bake::InList { needed, baked, .. } if needed == baked => {
            "Dovecot can tell it without the plugin".to_owned()
        }
        Bake::InList { needed, baked, .. } => {
            format!("{} of {needed} are not in dovecot-uidlist", needed - baked)
        }
        Bake::LedgerAlone { messages: 0 } => "Dovecot has stored all that is kept".to_owned(),
        Bake::LedgerAlone { messages } => format!("{messages} are in the ledger alone"),
        Bake::CouldNotTell(why) => format!("baked or not: could not tell: {why}"),
    };
    format!(
        "{}, {} messages at the last listing that was recorded, {}: {} kept, {} new, {gone} that \
         were kept have gone; {baked}",
        listed.store.word(),
        listed.here().count(),
        date_of(Some(listed.written)),
        listed.kept(),
        native + derived,
    )
}

fn forecast_sentence(forecast: &Result<Box<Forecast>, String>) -> String {
    let forecast = match forecast {
        Ok(forecast) => forecast,
        Err(why) => return format!("could not tell: {why}"),
    };
    let missing = |because| forecast.missing_because(because);
    let mut said = format!(
        "{} of {} captured messages will be kept, {} were not copied, {} changed on the way, {} \
         are ambiguous; {} are new",
        forecast.kept,
        forecast.captured,
        missing(MissingBecause::NotCopied),
        missing(MissingBecause::Changed),
        missing(MissingBecause::Ambiguous),
        forecast.new.len(),
    );
    if forecast.is_refused {
        said.push_str("; a login is refused until half of them are here");
    }
    said
}

fn keys_of(entry: &Entry) -> Vec<&'static str> {
    let keys = [
        (entry.file.is_some(), "file"),
        (entry.guid.is_some(), "guid"),
        (entry.header.is_some(), "header"),
        (entry.message.is_some(), "message"),
        (entry.origin.is_some(), "origin"),
    ];
    keys.iter().filter(|(has, _)| *has).map(|(_, key)| *key).collect()
}

fn was_sentence(was: &WasThere, captured: &Maildrop) -> String {
    let WasThere { place, entry } = was;
    let mut said = format!(
        "old server: {}, place {place} of {}, in capture {}",
        entry.uidl,
        captured.entries.len(),
        entry.first_capture + 1
    );
    // Writing to a String cannot fail.
    if entry.last_capture != entry.first_capture {
        let _ = write!(said, " to {}", entry.last_capture + 1);
    }
    if let Some(octets) = entry.octets {
        let _ = write!(said, ", {octets} octets");
    }
    let _ = write!(said, ", known by {}", keys_of(entry).join(", "));
    for earlier in &entry.earlier {
        let _ = write!(said, "; in an earlier capture it had {earlier}");
    }
    said
}

fn message_lines(story: &Story, message: &MessageStory) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(captured) = story.maildrop() {
        lines.extend(message.was.iter().map(|was| was_sentence(was, captured)));
        if captured.captures.len() > 1 {
            let last = captured.captures.len() as u32 - 1;
            let gone = message.was.iter().filter(|was| was.entry.last_capture < last);
            lines.extend(gone.map(|_| "it was gone before the last capture".to_owned()));
        }
    }
    if message.is_spent {
        lines.push(
            "old server: it had this UIDL for a message that was gone when it was captured: no \
             message gets it"
                .to_owned(),
        );
    }
    for told in &message.here {
        let uidl = &told.record.uidl;
        lines.push(match told.number {
            Some(number) => {
                format!("here: {uidl}, UID {}, place {number}; {}", told.record.uid, told.because())
            }
            None => format!(
                "here: {uidl} was told, and the message was gone at the last listing: it was \
                 deleted, or moved out of the INBOX; if it comes back, it is kept"
            ),
        });
    }
    if message.here.is_empty() {
        lines.push(verdict(story, message));
    }
    lines
}

/// What is to be said of a message that this server has not told.
fn verdict(story: &Story, message: &MessageStory) -> String {
    if message.is_unknown() {
        let captured = match story.maildrop() {
            Some(_) => "the captures do not have it",
            None => "what was captured is not known",
        };
        let here = match story.listed() {
            Some(_) => ", and it was not told here",
            None => ", and nobody has listed the mailbox here, as far as could be told",
        };
        return format!(
            "{captured}{here}: if a client has it, it came to the old server after the last \
             capture, or is of another mailbox or server"
        );
    }
    match (story.listed(), &story.forecast, message.foretold_missing) {
        (Some(_), _, _) if !message.was.is_empty() => {
            "here: no message was recognised as this one at the last listing: it was not copied, \
             was changed on the way, or was deleted before; copy it, and the next login keeps it"
                .to_owned()
        }
        (Some(_), _, _) => "here: no message has it".to_owned(),
        (None, Some(Ok(_)), Some(MissingBecause::NotCopied)) => {
            "here: missing: no message here has a key of it: it was not copied".to_owned()
        }
        (None, Some(Ok(_)), Some(MissingBecause::Changed)) => {
            "here: missing: a message shares a key with it, and another key differs: it was \
             changed on the way, and clients will download it again"
                .to_owned()
        }
        (None, Some(Ok(_)), Some(MissingBecause::Ambiguous)) => {
            "here: missing: a message shares a key with it, and that is no evidence, for a new \
             mail may have it, too: clients will download it again"
                .to_owned()
        }
        (None, Some(Ok(_)), None) if !message.was.is_empty() => {
            "here: it is there, and the first login will keep it, unless it was gone before the \
             last capture"
                .to_owned()
        }
        _ => "here: not told yet".to_owned(),
    }
}

/// What to run for this user.
fn next(story: &Story) -> String {
    let Some(status) = &story.status else {
        return "nothing: POP3 serves the user as if uidl-keep were not there".to_owned();
    };
    if status.line.user == story.user && status.line.gate_word() == "redownload" {
        return "nothing: the operator lets his clients download everything again".to_owned();
    }
    let mut tally = StatusTally::default();
    tally.add(status);
    if let Some(Ok((captured, is_final))) = &story.captured {
        tally.add_captured(captured);
        tally.add_index(Some(*is_final));
    }
    let (step, first) = next_step(&Plugin::NotAsked, &tally);
    step.command(&story.user, first)
}

fn json_of(
    args: &ExplainArgs,
    story: &Story,
    message: Option<&MessageStory>,
    told: &[HereBefore],
) -> Value {
    let told_of = |told: &HereBefore| {
        json!({
            "place": told.number,
            "uid": told.record.uid,
            "uidl": told.record.uidl.to_string(),
            "evidence": told.evidence(),
        })
    };
    let was_of = |was: &WasThere| {
        json!({
            "place": was.place,
            "uidl": was.entry.uidl.to_string(),
            "earlier": was.entry.earlier.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "octets": was.entry.octets,
            "first_capture": was.entry.first_capture + 1,
            "last_capture": was.entry.last_capture + 1,
            "keys": keys_of(&was.entry),
        })
    };
    let message = message.map(|message| {
        let said: Vec<String> =
            message_lines(story, message).into_iter().map(on_one_line).collect();
        json!({
            "asked": args.message,
            "was": message.was.iter().map(was_of).collect::<Vec<_>>(),
            "here": message.here.iter().map(told_of).collect::<Vec<_>>(),
            "spent": message.is_spent,
            "known": !message.is_unknown(),
            "said": said,
        })
    });
    let listed = story.listed();
    let captured = match &story.captured {
        Some(Ok((captured, is_final))) => json!({
            "captures": captured.captures.iter().map(|capture| json!({
                "taken": capture.taken,
                "source": capture.source,
            })).collect::<Vec<_>>(),
            "messages": captured.entries.len(),
            "spent": captured.spent.len(),
            "final": is_final,
        }),
        Some(Err(why)) => json!({ "could_not_tell": on_one_line(why) }),
        None => Value::Null,
    };
    let roster = story.status.as_ref().map(|status| {
        let line = &status.line;
        json!({ "user": line.user, "state": line.state_word(), "says": line.words() })
    });
    json!({
        "user": story.user,
        "roster": roster,
        "captured": captured,
        "here": {
            "said": on_one_line(here_sentence(story)),
            "listed": story.status.as_ref().and_then(|status| status.is_listed()),
            "messages": listed.map(|listed| listed.here().count()),
            "kept": listed.map(ListedHere::kept),
            "baked": listed.map(|listed| listed.bake.is_whole()),
        },
        "forecast": story.forecast.as_ref().map(|it| on_one_line(forecast_sentence(it))),
        "message": message,
        "told": args.told.then(|| told.iter().map(told_of).collect::<Vec<_>>()),
        "next": next(story),
    })
}
