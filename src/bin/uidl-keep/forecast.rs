//! `uidl-keep forecast`: what POP3 clients of the new server will see.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use serde_json::{Value, json};
use uidl_keep::capture::find::doveconf;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::workers::{self, AsTheyCome};
use uidl_keep::dovecot::{Dovecot, InboxPath};
use uidl_keep::forecast::{
    self, Forecast, ForecastSign, Foretold, MailPlace, MissingBecause, Terms,
};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::Provenance;
use uidl_keep::site::Site;
use uidl_keep::text::on_one_line;

use crate::background;
use crate::capture::progress::Progress;
use crate::names::{NamesArgs, users_on_rosters};
use crate::output::{Completion, Trouble, remark};
use crate::places::{AskedPlaces, PlaceArgs, Places};
use crate::signs::{SignCounts, Signed, SignedMaildrop};

/// Says what POP3 clients will see, before anybody logs in; changes nothing.
///
///   uidl-keep forecast
///
/// Compares the mail of the new server with what was captured, by the rules of the plugin, also
/// while mail is copied. Asks Dovecot where the mail of everybody on the rosters lies. Reads
/// Maildirs straight, and has doveadm read anything else. With --maildir, it does without Dovecot:
///
///   uidl-keep forecast --maildir '/srv/vmail/{domain}/{local}/Maildir'
///
/// Prints a line for each maildrop on the rosters, the worst first, and a
/// total. Each line begins with a sign:
///
/// "=" whole: all that was captured is kept, and nothing else is there;
/// "+" whole, and new messages beside it;
/// "-" captured messages are missing: they were not copied;
/// "*" captured messages are there and not recognised (changed on the way, or ambiguous), had
/// another UIDL in an earlier capture, or stand in another order;
/// "!" could not tell, or POP3 refuses the user.
///
/// Exit status 0: all is whole, or with new messages beside it. 1: something else is there; with
/// --fail-under, a maildrop could not be told, or too few messages are kept; or nobody has a name
/// that is asked for. 2: trouble.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ForecastArgs {
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    names: NamesArgs,
    /// The pop3_uidl_format of this server [default: what doveconf says].
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The keys that may match, such as file,message,header [default: as the site's settings say].
    #[arg(long = "match", value_name = "KEYS")]
    keys: Option<Keys>,
    /// How many maildrops to read at a time [default: one a processor; 2 where doveadm reads].
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Print a JSON object a line: one for each maildrop, and one for the total.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Add to each object what each message gets: [UID, UIDL] of those that keep their UIDL, in the
    /// order of a listing, and the UIDs of those that are downloaded.
    #[arg(long, requires = "json")]
    uidls: bool,
    /// Print a table with commas, without a total.
    #[arg(long)]
    csv: bool,
    /// Do not mind what is missing or changed while so many of a hundred captured messages are
    /// kept.
    #[arg(long, value_name = "PERCENT")]
    fail_under: Option<Percent>,
}

/// A share of the captured messages.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| (0.0..=100.0).contains(number));
        number.map(Self).ok_or_else(|| "not a number from 0 to 100".to_owned())
    }
}

/// What is said of one maildrop.
type Line = SignedMaildrop<Box<Forecast>>;

/// What is said of all.
#[derive(Default)]
struct Total {
    signs: SignCounts,
    messages: usize,
    captured: usize,
    kept: usize,
    not_copied: usize,
    again: usize,
    new: usize,
    /// Users whose clients download everything again, as the operator said.
    redownload: usize,
    /// Maildrops of users who are on no roster.
    strangers: usize,
}

pub fn run(args: &ForecastArgs) -> Result<Completion, Trouble> {
    let wanted = args.names.selected(&[])?;
    let site = Site::new(&args.site);
    let mut users = users_on_rosters(&site, &wanted)?;
    background::let_others_go_first();
    let dovecot = args.place.dovecot();
    let native = format(args, &dovecot)?;
    let terms = Terms::of(site, native, args.keys.map(Keys::into)).map_err(Trouble::new)?;
    let places = if args.place.maildir.is_empty() {
        let users: Vec<String> = users.iter().cloned().collect();
        Places::Asked(AskedPlaces::of(&dovecot, &users, &[InboxPath::Mailbox, InboxPath::Control])?)
    } else {
        let found = args.place.search(&wanted)?;
        users.extend(found.users().cloned());
        Places::Found(found)
    };
    let users: Vec<String> = users.into_iter().collect();

    let jobs = match args.jobs {
        Some(jobs) => jobs.get(),
        None if are_maildirs(&places) => {
            thread::available_parallelism().map_or(1, NonZeroUsize::get)
        }
        None => 2,
    };
    let progress = Progress::new(users.len(), users.len() < 2, true);
    let (mut lines, mut total) = (Vec::new(), Total::default());
    let forecast_one = |at: usize| match foretell(&places, &terms, &users[at]) {
        // What was read of the mail is of no more use.
        Foretold::Told { forecast, .. } => Foretold::Told { forecast, survey: None },
        other => other,
    };
    let (queue, tick) = (AsTheyCome::new(users.len()), || progress.tick());
    workers::run(queue, jobs.min(users.len()), tick, forecast_one, |(at, foretold)| {
        let user = users[at].clone();
        let mut has_failed = false;
        match foretold {
            Foretold::Told { forecast, survey: _ } => {
                progress.count_messages(forecast.messages as u64);
                lines.push(Line { user, found: Ok(forecast) });
            }
            Foretold::CouldNotTell(why) => {
                has_failed = true;
                lines.push(Line { user, found: Err(why) });
            }
            Foretold::Redownload => total.redownload += 1,
            Foretold::NotMigrated => total.strangers += 1,
        }
        progress.count_maildrop(has_failed);
        Ok::<_, Trouble>(())
    })?;
    progress.finish();
    if lines.is_empty() {
        return Err(Trouble::at(
            args.site.display(),
            "nobody who is asked for is on a roster; is that the site, and are these the names \
             that Dovecot has for its users?",
        ));
    }
    Line::sort(&mut lines);
    lines.iter().for_each(|line| total.add(line));
    print(args, &lines, &total)?;
    let unmet = wanted.unmet(lines.iter().map(|line| line.user.as_str()));
    for name in &unmet {
        remark(format_args!("{name}: nobody of that name is on a roster and forecast"));
    }
    let completion = total.completion(args.fail_under);
    let is_answered = unmet.is_empty() && places.are_all_searched();
    Ok(if is_answered { completion } else { Completion::Partial })
}

/// Forecasts a maildrop.
fn foretell(places: &Places, terms: &Terms, user: &str) -> Foretold {
    match places {
        Places::Found(found) => forecast::forecast(terms, user, found.place(user)),
        Places::Asked(asked) => foretell_asked(terms, asked, user),
    }
}

/// Whether all that is there can be read straight.
fn are_maildirs(places: &Places) -> bool {
    match places {
        Places::Found(_) => true,
        Places::Asked(asked) => asked
            .mailboxes()
            .all(|mailbox| matches!(kind_of(mailbox), MailboxKind::Absent | MailboxKind::Maildir)),
    }
}

fn foretell_asked(terms: &Terms, asked: &AskedPlaces, user: &str) -> Foretold {
    let path = |directory| asked.path(user, directory);
    let paths = path(InboxPath::Mailbox).and_then(|mail| Ok((mail, path(InboxPath::Control)?)));
    let (mailbox, control) = match paths {
        Ok(paths) => paths,
        Err(why) => {
            let why = format!("Dovecot does not say where the mail is: {why}");
            return forecast::forecast(terms, user, MailPlace::Unknown(&why));
        }
    };
    let kind = kind_of(&mailbox);
    let (mail, control) = (&Source::named(user, mailbox), &Source::named(user, control));
    let dovecot = &asked.dovecot;
    let inbox = match kind {
        MailboxKind::Absent => MailPlace::Nowhere,
        MailboxKind::Maildir => MailPlace::MaildirOrAsked { dovecot, mail, control },
        MailboxKind::Other => MailPlace::Asked { dovecot, control },
    };
    forecast::forecast(terms, user, inbox)
}

/// What lies at a place that Dovecot names.
enum MailboxKind {
    Absent,
    Maildir,
    /// Dovecot knows.
    Other,
}

fn kind_of(mailbox: &Path) -> MailboxKind {
    match mailbox.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => MailboxKind::Absent,
        Ok(_) if mailbox.join("cur").is_dir() => MailboxKind::Maildir,
        Ok(_) | Err(_) => MailboxKind::Other,
    }
}

/// The format that is given, or the one of this machine. The rules go by it only where messages
/// have a stored UIDL.
fn format(args: &ForecastArgs, dovecot: &Dovecot) -> Result<Option<UidlFormat>, Trouble> {
    if let Some(text) = &args.format {
        let parsed = doveconf::parse(text).map_err(|error| Trouble::at("--format", error))?;
        return Ok(Some(parsed));
    }
    let format =
        dovecot.pop3_setting("pop3_uidl_format").ok().and_then(|text| doveconf::parse(&text).ok());
    if format.is_none() {
        remark(format_args!(
            "pop3_uidl_format is not known, for doveconf does not tell it; where clients have \
             listed mailboxes here before, say --format what `{}` prints on the new server",
            doveconf::ASK
        ));
    }
    Ok(format)
}

/// Why messages are missing, as it is printed.
const REASONS: [(MissingBecause, &str); 3] = [
    (MissingBecause::Changed, "changed on the way"),
    (MissingBecause::Ambiguous, "ambiguous"),
    (MissingBecause::NotCopied, "not copied"),
];

/// By what messages are kept, as it is printed.
const EVIDENCE: [(Provenance, &str); 5] = [
    (Provenance::File, "file"),
    (Provenance::Message, "message"),
    (Provenance::Header, "header"),
    (Provenance::Origin, "origin"),
    (Provenance::Stored, "stored"),
];

impl Signed for Box<Forecast> {
    fn sign(&self) -> ForecastSign {
        Forecast::sign(self)
    }

    fn missing(&self) -> usize {
        self.missing.len()
    }

    fn sentence(&self) -> String {
        let forecast = self;
        let Forecast { captured, kept, listed, other_uidl, repeated, unreadable, .. } = **forecast;
        let mut said = format!("{kept} of {captured} kept");
        let by = EVIDENCE.iter().filter_map(|(provenance, word)| {
            Some(format!("{} {word}", forecast.by_provenance.get(provenance)?))
        });
        let by: Vec<String> = by.collect();
        // Writing to a String cannot fail.
        if !by.is_empty() {
            let _ = write!(said, " ({})", by.join(", "));
        }
        let mut add = |count: usize, what: &str| {
            if count > 0 {
                let _ = write!(said, ", {count} {what}");
            }
        };
        add(unreadable, "unreadable");
        for (because, what) in REASONS {
            add(forecast.missing_because(because), what);
        }
        add(forecast.new.len() - forecast.again(), "new");
        add(listed, "listed here before");
        add(other_uidl, "with another UIDL in an earlier capture");
        add(repeated, "share a UIDL");
        if !forecast.is_in_order {
            said.push_str(", in another order");
        }
        if forecast.is_refused {
            said.push_str("; a login is refused until half of them are here");
        }
        said
    }
}

/// The fields of a JSON object.
fn json_of(forecast: &Forecast, with_uidls: bool) -> Value {
    let by: serde_json::Map<String, Value> = EVIDENCE
        .iter()
        .map(|(provenance, word)| {
            let count = forecast.by_provenance.get(provenance).copied().unwrap_or_default();
            ((*word).to_owned(), count.into())
        })
        .collect();
    let missing = |because: MissingBecause| -> Vec<String> {
        let missing = forecast.missing.iter().filter(|missing| missing.because == because);
        missing.map(|missing| missing.uidl.to_string()).collect()
    };
    let mut object = json!({
        "messages": forecast.messages,
        "captured": forecast.captured,
        "kept": forecast.kept,
        "kept_by": by,
        "not_copied": missing(MissingBecause::NotCopied),
        "changed": missing(MissingBecause::Changed),
        "ambiguous": missing(MissingBecause::Ambiguous),
        "again": forecast.again(),
        "new": forecast.new.len() - forecast.again(),
        "listed": forecast.listed,
        "other_uidl": forecast.other_uidl,
        "repeated": forecast.repeated,
        "unreadable": forecast.unreadable,
        "in_order": forecast.is_in_order,
        "refused": forecast.is_refused,
    });
    if with_uidls {
        let kept = forecast.keeping.iter();
        object["kept_uidls"] = kept.map(|kept| json!([kept.uid, kept.uidl.to_string()])).collect();
        object["downloaded_uids"] = forecast.new.iter().map(|new| new.uid).collect();
    }
    object
}

/// A line of the table.
fn csv(line: &Line) -> String {
    let (user, sign) = (csv_field(&line.user), line.sign().as_char());
    let forecast = match &line.found {
        Ok(forecast) => forecast,
        Err(why) => {
            let empty = ",".repeat(CSV_COLUMNS.len() - 3);
            return format!("{sign},{user}{empty},{}", csv_field(&on_one_line(why)));
        }
    };
    let missing = |because| forecast.missing_because(because);
    let counts = [
        forecast.messages,
        forecast.captured,
        forecast.kept,
        missing(MissingBecause::NotCopied),
        missing(MissingBecause::Changed),
        missing(MissingBecause::Ambiguous),
        forecast.again(),
        forecast.new.len() - forecast.again(),
        forecast.listed,
        forecast.other_uidl,
        forecast.repeated,
        forecast.unreadable,
    ];
    let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
    let [order, refused] =
        [forecast.is_in_order, forecast.is_refused].map(|is_so| if is_so { "yes" } else { "no" });
    format!("{sign},{user},{},{order},{refused},", counts.join(","))
}

const CSV_COLUMNS: [&str; 17] = [
    "sign",
    "user",
    "messages",
    "captured",
    "kept",
    "not_copied",
    "changed",
    "ambiguous",
    "again",
    "new",
    "listed",
    "other_uidl",
    "repeated",
    "unreadable",
    "in_order",
    "refused",
    "why",
];

fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

impl Total {
    fn add(&mut self, line: &Line) {
        self.signs.add(line.sign());
        let Ok(forecast) = &line.found else { return };
        self.messages += forecast.messages;
        self.captured += forecast.captured;
        self.kept += forecast.kept;
        self.not_copied += forecast.missing_because(MissingBecause::NotCopied);
        self.again += forecast.again();
        self.new += forecast.new.len() - forecast.again();
    }

    /// How many of a hundred captured messages are kept.
    fn percent(&self) -> f64 {
        match self.captured {
            0 => 100.0,
            captured => self.kept as f64 * 100.0 / captured as f64,
        }
    }

    fn completion(&self, fail_under: Option<Percent>) -> Completion {
        let count = |signs: &[ForecastSign]| signs.iter().map(|sign| self.signs.of(*sign)).sum();
        let is_bad = match fail_under {
            Some(Percent(least)) => {
                self.signs.of(ForecastSign::Unknown) > 0 || self.percent() < least
            }
            None => {
                let bad: usize =
                    count(&[ForecastSign::Unknown, ForecastSign::Changed, ForecastSign::Missing]);
                bad > 0
            }
        };
        if is_bad { Completion::Partial } else { Completion::Done }
    }

    fn sentence(&self) -> String {
        let Self { captured, kept, not_copied, again, new, .. } = self;
        let mut said = format!(
            "{}: {kept} of {captured} messages kept ({}), {not_copied} not copied, {again} to be \
             downloaded again, {new} new",
            self.signs.sentence(),
            self.shown_percent(),
        );
        // Writing to a String cannot fail.
        if self.redownload > 0 {
            let _ = write!(said, "; left out: {} set to redownload", self.redownload);
        }
        if self.strangers > 0 {
            let _ = write!(said, "; {} maildrops here are on no roster", self.strangers);
        }
        said
    }

    /// The share that is kept, rounded down: 100 % means all.
    fn shown_percent(&self) -> String {
        format!("{:.2} %", (self.percent() * 100.0).floor() / 100.0)
    }

    fn json(&self) -> Value {
        json!({
            "total": {
                "maildrops": self.signs.json(),
                "messages": self.messages,
                "captured": self.captured,
                "kept": self.kept,
                "percent": self.percent(),
                "not_copied": self.not_copied,
                "again": self.again,
                "new": self.new,
                "redownload": self.redownload,
                "on_no_roster": self.strangers,
            }
        })
    }
}

fn print(args: &ForecastArgs, lines: &[Line], total: &Total) -> Result<(), Trouble> {
    let mut out = BufWriter::new(io::stdout().lock());
    if args.csv {
        writeln!(out, "{}", CSV_COLUMNS.join(","))?;
    }
    for line in lines {
        match (args.json, args.csv) {
            (true, _) => writeln!(out, "{}", line.json(|found| json_of(found, args.uidls)))?,
            (_, true) => writeln!(out, "{}", csv(line))?,
            _ => writeln!(out, "{}", line.line())?,
        }
    }
    match (args.json, args.csv) {
        (true, _) => writeln!(out, "{}", total.json())?,
        (_, true) => {}
        _ => writeln!(out, "{}", total.sentence())?,
    }
    out.flush()?;
    Ok(())
}
