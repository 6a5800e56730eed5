//! `uidl-keep forecast`: what POP3 clients of the new server will see.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uidl_keep::capture::find::doveconf;
use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::workers::{self, Next, Schedule};
use uidl_keep::dovecot::{Dovecot, DovecotError, InboxPath};
use uidl_keep::forecast::{
    self, ControlPlace, Forecast, ForecastSign, Foretold, MailPlace, MissingBecause, Terms,
};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::Provenance;
use uidl_keep::maildrop::{everybody_of, is_everybody};
use uidl_keep::resolve::Match;
use uidl_keep::site::roster::is_domain;
use uidl_keep::site::{Scope, Site};
use uidl_keep::text::on_one_line;

use crate::capture::progress::Progress;
use crate::output::{Completion, Trouble, remark};
use crate::site_files;

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
    /// Where the Maildirs lie, such as '/srv/vmail/{domain}/{local}/Maildir' or
    /// '/home/{user}/Maildir'; may be repeated. A name of * stands for any, of ? for any of one
    /// character [default: where Dovecot says].
    #[arg(long, value_name = "PATTERN")]
    maildir: Vec<Pattern>,
    /// Where Dovecot keeps dovecot-uidlist and the ledger of INBOX, if not in the Maildir
    /// (CONTROL=); may be repeated.
    #[arg(long, value_name = "PATTERN", requires = "maildir")]
    control: Vec<Pattern>,
    /// The doveadm program that knows the users.
    #[arg(long, value_name = "PATH", default_value = "doveadm")]
    doveadm: PathBuf,
    /// Arguments for doveadm, separated by blanks: `-c /etc/dovecot/other.conf`.
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    doveadm_args: String,
    /// How many seconds a doveadm may say nothing before it is ended.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// User names by the variables of the pattern [default: {local}@{domain}, or {local}, {user} or
    /// {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE")]
    user_template: Option<String>,
    /// Only this user or domain; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN")]
    only: Vec<String>,
    /// Only the users and domains in this file, one a line.
    #[arg(long, value_name = "FILE")]
    domains: Option<PathBuf>,
    /// The pop3_uidl_format of this server [default: what doveconf says].
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The keys that may match, as in uidl_keep_match.
    #[arg(long = "match", value_name = "KEYS", default_value = "file,message,header")]
    keys: Keys,
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
struct Line {
    user: String,
    forecast: Result<Box<Forecast>, String>,
}

/// What is said of all.
#[derive(Default)]
struct Total {
    by_sign: BTreeMap<ForecastSign, usize>,
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
    let wanted = Wanted::of(args)?;
    let site = Site::new(&args.site);
    let mut users = users_on_rosters(&site, &wanted)?;
    lower_priority();
    let Keys { file, message, header, origin } = args.keys;
    let keys = Match { file, message, header, origin };
    let dovecot =
        Dovecot::new(&args.doveadm, args.doveadm_args.split_whitespace().map(str::to_owned))
            .within(Duration::from_secs(args.timeout.max(1)));
    let native = format(args, &dovecot)?;
    let terms = Terms { site, native, keys };
    let places = if args.maildir.is_empty() {
        let users: Vec<String> = users.iter().cloned().collect();
        Places::Asked(AskedPlaces::of(&dovecot, &users)?)
    } else {
        let found = FoundPlaces::of(args, &wanted)?;
        users.extend(found.mail.keys().cloned());
        Places::Found(found)
    };
    let users: Vec<String> = users.into_iter().collect();

    let jobs = match args.jobs {
        Some(jobs) => jobs.get(),
        None if places.are_maildirs() => {
            thread::available_parallelism().map_or(1, NonZeroUsize::get)
        }
        None => 2,
    };
    let progress = Progress::new(users.len(), users.len() < 2, true);
    let (mut lines, mut total) = (Vec::new(), Total::default());
    let queue = ForecastQueue { len: users.len(), taken: 0, done: Vec::new() };
    let forecast_one = |at: usize| places.foretell(&terms, &users[at]);
    let tick = || progress.tick();
    workers::run(queue, jobs.min(users.len()), tick, forecast_one, |(at, foretold)| {
        let user = users[at].clone();
        let mut has_failed = false;
        match foretold {
            Foretold::Told { forecast, survey: _ } => {
                progress.count_messages(forecast.messages as u64);
                lines.push(Line { user, forecast: Ok(forecast) });
            }
            Foretold::CouldNotTell(why) => {
                has_failed = true;
                lines.push(Line { user, forecast: Err(why) });
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
    lines.sort_by(|a, b| a.rank().cmp(&b.rank()));
    lines.iter().for_each(|line| total.add(line));
    print(args, &lines, &total)?;
    let unmet = wanted.unmet(&lines);
    for name in &unmet {
        remark(format_args!("{name}: nobody of that name is on a roster and forecast"));
    }
    let completion = total.completion(args.fail_under);
    let is_answered = unmet.is_empty() && places.are_all_searched();
    Ok(if is_answered { completion } else { Completion::Partial })
}

/// The users and domains that are asked for.
struct Wanted {
    /// `None`: everybody.
    names: Option<BTreeSet<String>>,
}

impl Wanted {
    fn of(args: &ForecastArgs) -> Result<Self, Trouble> {
        let mut names: BTreeSet<String> = args.only.iter().cloned().collect();
        if let Some(path) = &args.domains {
            let text =
                fs::read_to_string(path).map_err(|error| Trouble::at(path.display(), error))?;
            let lines = text.lines().map(str::trim);
            names.extend(
                lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(ToOwned::to_owned),
            );
            if names.is_empty() {
                return Err(Trouble::at(path.display(), "it names no user and no domain"));
            }
        }
        let names = names.into_iter().map(|name| match name.strip_prefix('@') {
            Some(domain) => domain.to_owned(),
            None => name,
        });
        let names: BTreeSet<String> = names.collect();
        Ok(Self { names: (!names.is_empty()).then_some(names) })
    }

    fn has(&self, user: &str) -> bool {
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        self.names.as_ref().is_none_or(|names| {
            names.contains(user) || domain.is_some_and(|domain| names.contains(domain))
        })
    }

    /// The names that are those of nobody who was forecast.
    fn unmet(&self, lines: &[Line]) -> Vec<&String> {
        let mut met: BTreeSet<&str> = lines.iter().map(|line| line.user.as_str()).collect();
        let domain = |line: &Line| line.user.rsplit_once('@').map(|(_, domain)| domain.to_owned());
        let domains: BTreeSet<String> = lines.iter().filter_map(domain).collect();
        met.extend(domains.iter().map(String::as_str));
        self.names.iter().flatten().filter(|name| !met.contains(name.as_str())).collect()
    }

    /// Whether somebody who is asked for may be in a scope.
    fn may_meet(&self, scope: &Scope) -> bool {
        let Scope::Domain(domain) = scope else { return self.has(scope.name()) };
        let is_of = |name: &String| {
            name == domain || name.rsplit_once('@').is_some_and(|(_, of)| of == domain)
        };
        self.names.as_ref().is_none_or(|names| names.iter().any(is_of))
    }
}

fn users_on_rosters(site: &Site, wanted: &Wanted) -> Result<BTreeSet<String>, Trouble> {
    let mut users = BTreeSet::new();
    for scope in site_files::scopes(site)?.iter().filter(|scope| wanted.may_meet(scope)) {
        let Some(roster) = site_files::read_roster(site, scope)? else {
            return Err(Trouble::at(
                site.paths_of(scope).roster.display(),
                "not there, but its index is: put it back, or build and install both again",
            ));
        };
        let named = roster.lines().map(|line| &line.user);
        let named = named.filter(|user| !is_domain(user) && !is_everybody(user));
        users.extend(named.filter(|user| wanted.has(user)).cloned());
    }
    Ok(users)
}

/// Lets others go first. Programs that are started inherit it, and the disk goes by it, too.
fn lower_priority() {
    // It goes on as well without.
    let _ = rustix::process::nice(NICE);
}

/// As for background work that may take its time.
const NICE: i32 = 10;

/// Where mail lies.
enum Places {
    Found(FoundPlaces),
    Asked(AskedPlaces),
}

impl Places {
    fn foretell(&self, terms: &Terms, user: &str) -> Foretold {
        match self {
            Self::Found(found) => found.foretell(terms, user),
            Self::Asked(asked) => asked.foretell(terms, user),
        }
    }

    /// Whether each pattern had a directory to search, and each maildrop a user.
    fn are_all_searched(&self) -> bool {
        match self {
            Self::Found(found) => found.are_all_searched,
            Self::Asked(_) => true,
        }
    }

    /// Whether all that is there can be read straight.
    fn are_maildirs(&self) -> bool {
        match self {
            Self::Found(_) => true,
            Self::Asked(asked) => asked.paths.values().all(|paths| {
                matches!(kind_of(&paths.mailbox), MailboxKind::Absent | MailboxKind::Maildir)
            }),
        }
    }
}

/// What was found where Maildirs should lie.
struct FoundPlaces {
    /// The Maildirs by user.
    mail: BTreeMap<String, Source>,
    /// The control directories by user; `None`: they are the Maildirs.
    control: Option<BTreeMap<String, Source>>,
    /// The places that could not be searched.
    gaps: Vec<Source>,
    are_all_searched: bool,
}

impl FoundPlaces {
    fn of(args: &ForecastArgs, wanted: &Wanted) -> Result<Self, Trouble> {
        let naming = Naming::new(args.user_template.as_deref())
            .map_err(|error| Trouble::at("--user-template", error))?;
        let (mut gaps, mut are_all_searched) = (Vec::new(), true);
        let mut find = |option: &str, patterns: &[Pattern]| {
            let found = search::find(patterns, None, &naming, Holds::Directory)
                .map_err(|error| Trouble::at(option, error))?;
            found.losses.iter().for_each(remark);
            are_all_searched &= found.losses.is_empty();
            let (not_searched, sources): (Vec<Source>, Vec<Source>) =
                found.sources.into_iter().partition(Source::is_gap);
            gaps.extend(not_searched);
            let sources = sources.into_iter().filter(|source| wanted.has(source.user()));
            Ok::<_, Trouble>(sources.map(|source| (source.user().to_owned(), source)).collect())
        };
        let mail = find("--maildir", &args.maildir)?;
        let control = (!args.control.is_empty()).then(|| find("--control", &args.control));
        let control = control.transpose()?;
        Ok(Self { mail, control, gaps, are_all_searched })
    }

    fn foretell(&self, terms: &Terms, user: &str) -> Foretold {
        let gap = self.gaps.iter().find(|gap| may_be_of(gap, user));
        let mail = self.mail.get(user);
        let control = self.control.as_ref().map(|control| control.get(user));
        let inbox = match (mail, control, gap) {
            (None, _, Some(gap)) | (_, Some(None), Some(gap)) => {
                MailPlace::Unknown(gap.fault().unwrap_or_default())
            }
            (None, _, None) => MailPlace::Nowhere,
            (Some(mail), control, _) => MailPlace::Maildir {
                mail,
                control: match control {
                    None => ControlPlace::Beside,
                    Some(Some(control)) => ControlPlace::At(control),
                    Some(None) => ControlPlace::Nowhere,
                },
            },
        };
        forecast::forecast(terms, user, inbox)
    }
}

/// Whether the user may live at the place that could not be searched.
fn may_be_of(gap: &Source, user: &str) -> bool {
    let domain = user.rsplit_once('@').map(|(_, domain)| domain);
    gap.user() == everybody_of(None) || gap.user() == everybody_of(domain)
}

/// What Dovecot says of where mail lies.
struct AskedPlaces {
    /// It does not load our plugin.
    dovecot: Dovecot,
    /// Those of whom it has said that, by user.
    paths: BTreeMap<String, InboxPaths>,
}

#[derive(Clone)]
struct InboxPaths {
    mailbox: PathBuf,
    control: PathBuf,
}

/// The users in one question. Where it fails, each is asked for alone.
const USERS_AT_A_TIME: usize = 200;

impl AskedPlaces {
    fn of(dovecot: &Dovecot, users: &[String]) -> Result<Self, Trouble> {
        let trouble = |error: DovecotError| {
            Trouble::new(format!(
                "{error}; is that the Dovecot of this server (--doveadm, --doveadm-args), and does \
                 it run? Where the store is a Maildir, --maildir does without it"
            ))
        };
        let dovecot = dovecot.without_plugin().map_err(trouble)?;
        let mut paths = BTreeMap::new();
        for users in users.chunks(USERS_AT_A_TIME) {
            let of = |path| dovecot.inbox_paths(users, path);
            let (Ok(mailboxes), Ok(mut controls)) =
                (of(InboxPath::Mailbox), of(InboxPath::Control))
            else {
                continue;
            };
            paths.extend(mailboxes.into_iter().filter_map(|(user, mailbox)| {
                let control = controls.remove(&user)?;
                Some((user, InboxPaths { mailbox, control }))
            }));
        }
        if let (true, Some(user)) = (paths.is_empty(), users.first()) {
            // It may know none of them. Then it says so.
            dovecot.names(std::slice::from_ref(user)).map_err(trouble)?;
        }
        Ok(Self { dovecot, paths })
    }

    fn foretell(&self, terms: &Terms, user: &str) -> Foretold {
        let paths = match self.paths.get(user) {
            Some(paths) => Ok(paths.clone()),
            None => self.ask_alone(user),
        };
        let InboxPaths { mailbox, control } = match paths {
            Ok(paths) => paths,
            Err(why) => {
                let why = format!("Dovecot does not say where the mail is: {why}");
                return forecast::forecast(terms, user, MailPlace::Unknown(&why));
            }
        };
        let kind = kind_of(&mailbox);
        let (mail, control) = (&Source::named(user, mailbox), &Source::named(user, control));
        let dovecot = &self.dovecot;
        let inbox = match kind {
            MailboxKind::Absent => MailPlace::Nowhere,
            MailboxKind::Maildir => MailPlace::MaildirOrAsked { dovecot, mail, control },
            MailboxKind::Other => MailPlace::Asked { dovecot, control },
        };
        forecast::forecast(terms, user, inbox)
    }

    fn ask_alone(&self, user: &str) -> Result<InboxPaths, DovecotError> {
        let mailbox = self.dovecot.inbox_path(user, InboxPath::Mailbox)?;
        Ok(InboxPaths { mailbox, control: self.dovecot.inbox_path(user, InboxPath::Control)? })
    }
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
    let format = dovecot.uidl_format().ok().and_then(|text| doveconf::parse(&text).ok());
    if format.is_none() {
        remark(format_args!(
            "pop3_uidl_format is not known, for doveconf does not tell it; where clients have \
             listed mailboxes here before, say --format what `{}` prints on the new server",
            doveconf::ASK
        ));
    }
    Ok(format)
}

/// All users. They are done in their order, and written as they come.
struct ForecastQueue {
    len: usize,
    taken: usize,
    done: Vec<(usize, Foretold)>,
}

impl Schedule for ForecastQueue {
    type Done = Foretold;
    type Finished = (usize, Foretold);

    fn is_over(&self) -> bool {
        self.taken == self.len
    }

    fn next(&mut self, _now: Instant) -> Next {
        if self.taken == self.len {
            return Next::Wait(None);
        }
        self.taken += 1;
        Next::Go(self.taken - 1)
    }

    fn settle(&mut self, at: usize, done: Foretold, _now: Instant) {
        // What was read of the mail is of no more use.
        let done = match done {
            Foretold::Told { forecast, .. } => Foretold::Told { forecast, survey: None },
            other => other,
        };
        self.done.push((at, done));
    }

    fn finished(&mut self) -> Option<(usize, Foretold)> {
        self.done.pop()
    }
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

impl Line {
    fn sign(&self) -> ForecastSign {
        self.forecast.as_ref().map_or(ForecastSign::Unknown, |forecast| forecast.sign())
    }

    /// The worst first.
    fn rank(&self) -> (ForecastSign, std::cmp::Reverse<usize>, &str) {
        let missing = self.forecast.as_ref().map_or(0, |forecast| forecast.missing.len());
        (self.sign(), std::cmp::Reverse(missing), &self.user)
    }

    fn sentence(&self) -> String {
        let forecast = match &self.forecast {
            Ok(forecast) => forecast,
            Err(why) => return format!("could not tell: {why}"),
        };
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

    fn json(&self, with_uidls: bool) -> Value {
        let (user, sign) = (&self.user, self.sign().as_char().to_string());
        let forecast = match &self.forecast {
            Ok(forecast) => forecast,
            Err(why) => return json!({ "user": user, "sign": sign, "why": on_one_line(why) }),
        };
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
            "user": user,
            "sign": sign,
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
            object["kept_uidls"] =
                kept.map(|kept| json!([kept.uid, kept.uidl.to_string()])).collect();
            object["downloaded_uids"] = forecast.new.iter().map(|new| new.uid).collect();
        }
        object
    }

    fn csv(&self) -> String {
        let (user, sign) = (csv_field(&self.user), self.sign().as_char());
        let forecast = match &self.forecast {
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
        let [order, refused] = [forecast.is_in_order, forecast.is_refused]
            .map(|is_so| if is_so { "yes" } else { "no" });
        format!("{sign},{user},{},{order},{refused},", counts.join(","))
    }
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
        *self.by_sign.entry(line.sign()).or_default() += 1;
        let Ok(forecast) = &line.forecast else { return };
        self.messages += forecast.messages;
        self.captured += forecast.captured;
        self.kept += forecast.kept;
        self.not_copied += forecast.missing_because(MissingBecause::NotCopied);
        self.again += forecast.again();
        self.new += forecast.new.len() - forecast.again();
    }

    fn count(&self, sign: ForecastSign) -> usize {
        self.by_sign.get(&sign).copied().unwrap_or_default()
    }

    /// How many of a hundred captured messages are kept.
    fn percent(&self) -> f64 {
        match self.captured {
            0 => 100.0,
            captured => self.kept as f64 * 100.0 / captured as f64,
        }
    }

    fn completion(&self, fail_under: Option<Percent>) -> Completion {
        let count = |signs: &[ForecastSign]| signs.iter().map(|sign| self.count(*sign)).sum();
        let is_bad = match fail_under {
            Some(Percent(least)) => self.count(ForecastSign::Unknown) > 0 || self.percent() < least,
            None => {
                let bad: usize =
                    count(&[ForecastSign::Unknown, ForecastSign::Changed, ForecastSign::Missing]);
                bad > 0
            }
        };
        if is_bad { Completion::Partial } else { Completion::Done }
    }

    fn sentence(&self) -> String {
        let signs =
            ForecastSign::ALL.map(|sign| format!("{} {}", self.count(sign), sign.as_char()));
        let Self { captured, kept, not_copied, again, new, .. } = self;
        let mut said = format!(
            "total: {} maildrops ({}): {kept} of {captured} messages kept ({}), {not_copied} not \
             copied, {again} to be downloaded again, {new} new",
            self.by_sign.values().sum::<usize>(),
            signs.join(", "),
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
        let signs = ForecastSign::ALL
            .iter()
            .map(|sign| (sign.as_char().to_string(), self.count(*sign).into()))
            .collect::<serde_json::Map<String, Value>>();
        json!({
            "total": {
                "maildrops": signs,
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
            (true, _) => writeln!(out, "{}", line.json(args.uidls))?,
            (_, true) => writeln!(out, "{}", line.csv())?,
            _ => {
                let user = on_one_line(&line.user);
                writeln!(
                    out,
                    "{} {user}: {}",
                    line.sign().as_char(),
                    on_one_line(line.sentence())
                )?;
            }
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
