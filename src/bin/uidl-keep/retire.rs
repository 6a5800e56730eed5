//! `uidl-keep retire`: takes the files of a domain away, once Dovecot alone tells its clients the
//! same.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use uidl_keep::capture::workers::{self, AsTheyCome};
use uidl_keep::dovecot::Dovecot;
use uidl_keep::forecast::Terms;
use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::roster::{Gate, Roster, RosterLine, is_domain};
use uidl_keep::site::{Scope, Site};
use uidl_keep::status::away::Away;
use uidl_keep::status::proof::{Unproven, prove, prove_line};
use uidl_keep::status::{Plugin, remove};
use uidl_keep::text::on_one_line;

use crate::accounts::DoveadmProgram;
use crate::background;
use crate::capture::progress::Progress;
use crate::changes::ChangesLog;
use crate::effect::{DryRunArgs, Effect};
use crate::explain::TermsArgs;
use crate::hold::wait_for_lock;
use crate::names::SelectedNames;
use crate::output::{Completion, Trouble, remark, summary};
use crate::places::{InboxPlace, Inboxes, USERS_AT_A_TIME};
use crate::site_files;
use crate::status::plugin_of;
use crate::stop::StopFile;

/// Takes domains out of the site, once Dovecot alone tells their clients the same: by proof.
///
/// Example: uidl-keep retire --check example.com
///
/// For each user it proves that all UIDLs are where Dovecot itself looks, that the next UID is past
/// every number that a client may hold, and that Dovecot's own POP3 program tells the same listing
/// without the plugin. Who is held, refused, or was never listed by a client is no proof. With
/// --check that is all, and for every domain unless some are named. Without, the named domains are
/// checked again; where all is proven, their rosters and indexes go to retired/ in the site
/// directory, and their ledgers away from the mail. Run it as root on the new server, with the
/// plugin loaded. Exit status 1: not proven, or not for all of them.
#[derive(clap::Args)]
pub struct RetireArgs {
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    /// Domains as `example.com` or `@example.com`, or users who have no domain.
    #[arg(value_name = "DOMAIN", required_unless_present = "check")]
    who: Vec<String>,
    /// Only prove; take nothing away.
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    doveadm: DoveadmProgram,
    #[command(flatten)]
    terms: TermsArgs,
    /// How many users to ask Dovecot about at a time.
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: NonZeroUsize,
    /// How long to wait for one listing.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: humantime::Duration,
    /// Print a JSON object a line: one for each domain.
    #[arg(long)]
    json: bool,
}

/// The rosters of a domain, and what was proven of its users.
struct Retiring {
    rosters: Vec<(Scope, Roster)>,
    /// Users of whom it was proven, or who need no proof.
    proven: usize,
    unproven: Vec<(String, Unproven)>,
    /// Users whom Dovecot does not know any more.
    unknown: Vec<String>,
}

/// How long to wait for a login that holds the lock of a ledger.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many users are named for each domain.
const MOST_NAMED: usize = 10;

pub fn run(args: &RetireArgs) -> Result<Completion, Trouble> {
    let site = Site::new(&args.site);
    let names = SelectedNames::of(&args.who);
    args.dry.find(&site)?;
    if let Some(user) = args.who.iter().find(|name| name.trim_start_matches('@').contains('@')) {
        return Err(Trouble::at(
            user,
            "a user, and only whole domains are retired: name the domain",
        ));
    }
    let dovecot = args.doveadm.dovecot();
    // Without the plugin there is nothing to compare with.
    match plugin_of(&site, &dovecot) {
        Plugin::Loaded => {}
        plugin => {
            return Err(Trouble::at(
                site.dir().display(),
                format_args!(
                    "nothing can be proven (the plugin: {plugin}); name the Dovecot of this site \
                     with --doveadm and --doveadm-args"
                ),
            ));
        }
    }
    background::let_others_go_first();
    let terms = args.terms.of(site.clone(), &dovecot)?;
    let mut domains = BTreeMap::new();
    for (domain, scopes) in names.scopes(&site)? {
        domains.insert(domain, Retiring::begin(&site, scopes)?);
    }
    let users = domains.values().flat_map(Retiring::users).map(|line| &*line.user);
    let scopes = domains.values().flat_map(|domain| &domain.rosters);
    let there = users.chain(scopes.map(|(scope, _)| scope.name()));
    let unmet: Vec<String> = names.unmet(there).into_iter().cloned().collect();
    for name in &unmet {
        remark(format_args!("{name}: no roster has that domain"));
    }
    let users = domains.values().map(|domain| domain.users().count()).sum();
    let progress = Progress::new(users, users < 2, true);
    let mut places = BTreeMap::new();
    for domain in domains.values_mut() {
        places.extend(domain.prove(args, &dovecot, &terms, &progress)?);
    }
    progress.finish();
    let mut is_all = unmet.is_empty();
    let (mut done, mut counts) = (Ok(()), RetireCounts::default());
    for (name, domain) in &domains {
        let is_proven = domain.unproven.is_empty();
        is_all &= is_proven;
        let effect = match is_proven && !args.check {
            // The proof may take long: meanwhile others may change gates, and build.
            true => Some(Effect::of(args.dry, || wait_for_lock(&site))?),
            false => None,
        };
        if let Some(effect) = &effect {
            done = effect.really(|| take_away(&site, name, domain, &places)).map(drop);
        }
        if done.is_err() {
            break;
        }
        let is_retired = matches!(effect, Some(Effect::Real { .. }));
        counts.retired += u64::from(is_retired);
        counts.proven += u64::from(is_proven);
        counts.unproven += u64::from(!is_proven);
        let becomes = match &effect {
            Some(effect) => format!("{} retired", effect.is()),
            None => "can be retired".to_owned(),
        };
        print(args, name, domain, &becomes)?;
    }
    let RetireCounts { retired, proven, unproven } = counts;
    summary(format_args!("retire: {proven} domains proven, {unproven} not, {retired} taken away"));
    done?;
    say_what_is_left(args, &site)?;
    Ok(if is_all { Completion::Done } else { Completion::Partial })
}

impl Retiring {
    fn begin(site: &Site, scopes: Vec<Scope>) -> Result<Self, Trouble> {
        let mut rosters = Vec::new();
        for scope in scopes {
            let roster = site_files::read_roster(site, &scope)?.ok_or_else(|| {
                Trouble::at(
                    site.paths_of(&scope).roster.display(),
                    "not there, but its index is: put it back, or build and install both again",
                )
            })?;
            rosters.push((scope, roster));
        }
        Ok(Self { rosters, proven: 0, unproven: Vec::new(), unknown: Vec::new() })
    }

    fn lines(&self) -> impl Iterator<Item = &RosterLine> {
        self.rosters.iter().flat_map(|(_, roster)| roster.lines())
    }

    /// The lines that are users'.
    fn users(&self) -> impl Iterator<Item = &RosterLine> {
        self.lines().filter(|line| !is_domain(&line.user) && !is_everybody(&line.user))
    }

    /// Proves it of everybody. Returns where the INBOXes lie.
    fn prove(
        &mut self,
        args: &RetireArgs,
        dovecot: &Dovecot,
        terms: &Terms,
        progress: &Progress,
    ) -> Result<BTreeMap<String, InboxPlace>, Trouble> {
        let lines: Vec<RosterLine> = self.lines().cloned().collect();
        let users: Vec<String> = self.users().map(|line| line.user.clone()).collect();
        let inboxes = Inboxes::Dovecot(dovecot.clone());
        let mut places = BTreeMap::new();
        for users in users.chunks(USERS_AT_A_TIME) {
            places.extend(inboxes.of(users).map_err(Trouble::new)?);
        }
        let lost = users.iter().filter(|user| places.get(*user).is_some_and(Result::is_err));
        let lost: Vec<String> = lost.cloned().collect();
        let names = dovecot.names(&lost).map_err(|error| Trouble::new(error.to_string()))?;
        self.unknown = names.unknown;
        let queue = AsTheyCome::new(lines.len());
        let jobs = args.jobs.get().min(lines.len());
        let prove_one = |at: usize| -> Result<(), Unproven> {
            let line = &lines[at];
            match places.get(&line.user) {
                _ if self.unknown.contains(&line.user) => Ok(()),
                // The name of a domain, or of whoever may be missing in it.
                None => prove_line(line),
                Some(_) if line.gate == Gate::Redownload => Ok(()),
                Some(Ok(dir)) => prove(terms, dovecot, line, dir, args.timeout.into()),
                Some(Err(why)) => prove_line(line).and(Err(Unproven::CouldNotTell(why.clone()))),
            }
        };
        let (mut proven, mut unproven) = (0, Vec::new());
        let tick = || progress.tick();
        workers::run(queue, jobs, tick, prove_one, |(at, outcome)| {
            progress.count_maildrop(outcome.is_err());
            match outcome {
                Ok(()) => proven += 1,
                Err(why) => unproven.push((lines[at].user.clone(), why)),
            }
            Ok::<_, Trouble>(())
        })?;
        unproven.sort_by(|(one, _), (other, _)| one.cmp(other));
        let no_user = |line: &&RosterLine| is_domain(&line.user) || is_everybody(&line.user);
        self.proven = proven - lines.iter().filter(no_user).count().min(proven);
        self.unproven = unproven;
        Ok(places)
    }
}

/// How many domains.
#[derive(Default)]
struct RetireCounts {
    retired: u64,
    proven: u64,
    unproven: u64,
}

/// Prints what was proven of a domain, and what becomes of one of which all was.
fn print(args: &RetireArgs, name: &str, domain: &Retiring, becomes: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let shown = if name.is_empty() { "(no domain)" } else { name };
    let users = domain.users().count();
    if args.json {
        let unproven = domain
            .unproven
            .iter()
            .map(|(user, why)| json!({ "user": user, "why": word(why), "said": on_one_line(why) }));
        let unproven: Vec<Value> = unproven.collect();
        let object = json!({
            "domain": name,
            "maildrops": users,
            "proven": domain.proven,
            "unknown": domain.unknown,
            "unproven": unproven,
        });
        return writeln!(out, "{object}");
    }
    if domain.unproven.is_empty() {
        let unknown = match domain.unknown.len() {
            0 => String::new(),
            count => format!(" ({count} of them are no users of Dovecot any more)"),
        };
        return writeln!(
            out,
            "{}",
            on_one_line(format_args!(
                "{shown}: {becomes}: Dovecot alone tells clients of {users} maildrops the same\
                 {unknown}"
            ))
        );
    }
    let count = domain.unproven.len();
    writeln!(
        out,
        "{}",
        on_one_line(format_args!("{shown}: not yet: {count} of {users} maildrops are not proven"))
    )?;
    for (user, why) in domain.unproven.iter().take(MOST_NAMED) {
        writeln!(out, "{}", on_one_line(format_args!("  {user} {why}")))?;
    }
    match count.saturating_sub(MOST_NAMED) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more; --json names all"),
    }
}

/// The stable name of a reason.
fn word(why: &Unproven) -> &'static str {
    match why {
        Unproven::Held => "held",
        Unproven::Refused(_) => "refused",
        Unproven::Waiting { .. } => "waiting",
        Unproven::Unbaked { .. } => "not_baked",
        Unproven::NextUid { .. } => "next_uid",
        Unproven::Differs { .. } => "differs",
        Unproven::CouldNotTell(_) => "could_not_tell",
    }
}

/// Takes the files of a domain away that was proven just now.
fn take_away(
    site: &Site,
    name: &str,
    domain: &Retiring,
    places: &BTreeMap<String, InboxPlace>,
) -> Result<(), Trouble> {
    for (scope, roster) in &domain.rosters {
        if site_files::read_roster(site, scope)?.as_ref() != Some(roster) {
            return Err(Trouble::at(
                site.paths_of(scope).roster.display(),
                "it was changed while it was proven; nothing is taken away of it: retire it again",
            ));
        }
    }
    let now = SystemTime::now();
    let away = Away::at(site, now);
    let log = ChangesLog::new(site, "retire", now);
    let lines = domain.users().map(|line| log.line(&line.user, line.gate_word(), "retired"));
    log.append(&lines.collect::<String>())?;
    for (scope, roster) in &domain.rosters {
        let path = site.paths_of(scope).roster;
        let at = |error: io::Error| {
            // That nothing was done is in the log, or nowhere.
            let _ = log.append(&log.line_of_failure(&path, &error));
            Trouble::at(path.display(), format_args!("{error}; retire it again"))
        };
        away.keep_roster(scope, roster).map_err(at)?;
        away.leave_to_dovecot(scope, roster).map_err(at)?;
    }
    // A login that read the roster before may write a ledger once more.
    for _ in 0..2 {
        for line in domain.users() {
            let Some(Ok(dir)) = places.get(&line.user) else { continue };
            remove(&line.user, dir, PATIENCE).map_err(|why| {
                Trouble::new(format!(
                    "{why}: {name} is left to Dovecot, and its ledgers are not all away; retire it \
                     again"
                ))
            })?;
        }
    }
    for (scope, _) in &domain.rosters {
        let path = site.paths_of(scope).roster;
        away.take(scope).map_err(|error| {
            Trouble::at(path.display(), format_args!("{error}; retire it again"))
        })?;
    }
    // The guard names whoever is on a roster, and nobody else.
    if let Some(mut stop) = StopFile::of(site)? {
        stop.refresh()?;
    }
    remark(format_args!("{name}: its roster and index are in {}", away.dir().display()));
    Ok(())
}

/// Says when the last of it may go.
fn say_what_is_left(args: &RetireArgs, site: &Site) -> Result<(), Trouble> {
    if args.check {
        return Ok(());
    }
    let left = site_files::scopes(site)?;
    match left.first() {
        None => remark(format_args!(
            "{}: nobody is left here: take uidl_keep out of mail_plugins of `protocol pop3`, \
             reload Dovecot, and remove the plugin's module when you like",
            site.dir().display()
        )),
        Some(first) => remark(format_args!(
            "{}: {} rosters are left (the first: {}): the plugin stays loaded for them",
            site.dir().display(),
            left.len(),
            first.name()
        )),
    }
    Ok(())
}
