//! `uidl-keep rehearse`: the first login of each user, made by us before any client's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use uidl_keep::capture::workers::{self, AsTheyCome};
use uidl_keep::file::lock::{SiteLock, lock};
use uidl_keep::index::Index;
use uidl_keep::maildrop::State;
use uidl_keep::rehearsal::{Disagreement, Pop3Program, compare};
use uidl_keep::site::change::Change;
use uidl_keep::site::roster::{Gate, RosterLine};
use uidl_keep::site::{Scope, Site, SiteSettings};
use uidl_keep::text::on_one_line;

use crate::accounts::{Checked, Doveadm};
use crate::background;
use crate::capture::progress::Progress;
use crate::changes::ChangesLog;
use crate::effect::Effect;
use crate::hold::{self, NamedUsers, WhoArgs};
use crate::interrupt::Interrupt;
use crate::output::{Completion, Trouble, remark, summary};
use crate::site_files;

/// Makes the first POP3 listing of users, before any client's, and compares it with what was
/// captured.
///
/// Example: uidl-keep rehearse --all
///
/// Runs Dovecot's own pop3 program for each user, as root on two pipes, while he is held. It
/// leaves what a first login leaves, so that the client's is a quick one. Each captured message
/// must be listed under its UIDL, in the old order, before all new ones. Then the roster notes
/// `rehearsed`, and `release` lets him go. Else he stays held. Only where the index is final, and
/// only users who are held.
///
/// Prints a line for each user whose listing differs, with the messages, or who could not be
/// rehearsed, and in the end how many were. Users who were rehearsed before are left out, so that
/// the same command goes on where it was interrupted. Does without last_login, which would count
/// it.
///
/// A rehearsal does not pass: the passdb and the login process, with all rules that go by the
/// client's address; `local {}` and `remote {}` blocks; post-login scripts.
///
/// Exit status 0: all agree, or agreed before. 1: somebody's listing differs, or he could not be
/// rehearsed, or not all were tried. 2: trouble. A dry run cannot know who differs.
#[derive(clap::Args)]
pub struct RehearseArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Rehearse all users of the site.
    #[arg(long, conflicts_with_all = ["who", "list"])]
    all: bool,
    #[command(flatten)]
    doveadm: Doveadm,
    /// How many users to rehearse at a time.
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: NonZeroUsize,
    /// How long to wait for each answer of the program. The first login may read all mail.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "15m",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
    /// Do without this plugin, too, for it acts on logins; may be repeated.
    #[arg(long, value_name = "PLUGIN")]
    without: Vec<String>,
    /// Rehearse also who was rehearsed before.
    #[arg(long)]
    again: bool,
    /// Begin no other user once this file is there. SIGINT and SIGTERM do the same.
    #[arg(long, value_name = "FILE")]
    stop_file: Option<PathBuf>,
    /// Print a JSON object a line: one for each user, and one for the total.
    #[arg(long)]
    json: bool,
    /// Take rehearsals back. What they have written counts no longer at the next login, and no UIDL
    /// is spent for it. Only for users who were held ever since.
    #[arg(long, conflicts_with_all = ["again", "stop_file", "json", "without"])]
    undo: bool,
}

/// So many results are noted in the rosters at once.
const BATCH: usize = 100;
/// The longest time that a result waits for that.
const BATCH_TIME: Duration = Duration::from_secs(10);

pub fn run(args: &RehearseArgs) -> Result<Completion, Trouble> {
    if args.undo {
        return hold::change(&args.who, args.all, Change::UndoRehearsal);
    }
    let site = Site::new(&args.who.site);
    let names = args.who.names(args.all, "rehearse")?;
    args.who.dry.find(&site)?;
    let (scopes, unfound) = hold::select(&site, &names, args.all)?;
    if args.doveadm.check_pop3(&site)? == Checked::No && !args.doveadm.is_unchecked() {
        return Err(Trouble::new(
            "nobody is rehearsed through a Dovecot that may not be this site's; name it with \
             --doveadm and --doveadm-args, or go on all the same with --no-check",
        ));
    }
    let dovecot = args.doveadm.dovecot();
    let without: Vec<&str> = args.without.iter().map(|name| &**name).collect();
    let program = Pop3Program::of(&dovecot, &without).map_err(|e| Trouble::new(e.to_string()))?;

    let mut total = RehearsalTotal::default();
    let effect = Effect::of(args.who.dry, || hold::wait_for_lock(&site))?;
    let (stage, all_are_there) = Stage::set(args, site, &scopes, &mut total, &effect)?;
    let all_are_there = all_are_there && unfound == 0;
    if let Effect::Dry = effect {
        summary(total.foretold(stage.rehearsals.len()));
        return Ok(completion(all_are_there && total.is_nobody_left_out()));
    }
    // Others may change the site meanwhile.
    drop(effect);
    let interrupt = Interrupt::new(args.stop_file.clone())?;
    background::let_others_go_first();
    let len = stage.rehearsals.len();
    let progress = Progress::new(len, len < 2, false);
    let queue = AsTheyCome::until(len, || interrupt.is_asked());
    let mut batch =
        Batch { stage: &stage, agreed: Vec::new(), since: Instant::now(), overtaken: 0 };
    let rehearse_one = |at: usize| stage.rehearse(at, &program, args.timeout);
    let worked = workers::run(
        queue,
        args.jobs.get().min(len),
        || progress.tick(),
        rehearse_one,
        |(at, outcome)| {
            total.add(&outcome);
            progress.count_messages(outcome.listed() as u64);
            progress.count_maildrop(!matches!(outcome, CameOf::Agrees { .. }));
            print(&described(args, &stage.rehearsals[at].line.user, &outcome))?;
            batch.add(at, &outcome)
        },
    );
    progress.finish();
    // What was found out counts, also when the work could not go on.
    let noted = hold::wait_for_lock(&stage.site).and_then(|lock| batch.write(&lock));
    worked.and(noted)?;
    total.overtaken = batch.overtaken;
    if args.json {
        print(&total.json(len).to_string())?;
    }
    summary(total.sentence(len));
    Ok(completion(all_are_there && total.is_all_well(len)))
}

fn completion(is_done: bool) -> Completion {
    if is_done { Completion::Done } else { Completion::Partial }
}

/// One user who is to be rehearsed.
struct Rehearsal {
    /// The place of his scope in [`Stage::indexes`].
    scope: usize,
    /// His line, which notes that the rehearsal begins.
    line: RosterLine,
}

/// All who are to be rehearsed, and what was captured of them.
struct Stage {
    site: Site,
    settings: SiteSettings,
    indexes: Vec<(Scope, Index<File>)>,
    rehearsals: Vec<Rehearsal>,
}

impl Stage {
    /// Notes in the rosters who is to be rehearsed. Says who is left out, and returns whether
    /// everybody who is named is on a roster, with a final index.
    fn set(
        args: &RehearseArgs,
        site: Site,
        scopes: &BTreeMap<Scope, NamedUsers>,
        total: &mut RehearsalTotal,
        effect: &Effect,
    ) -> Result<(Self, bool), Trouble> {
        let mut all_are_there = true;
        let (mut indexes, mut rosters, mut not_final) = (Vec::new(), Vec::new(), None);
        for (scope, named) in scopes {
            let paths = site.paths_of(scope);
            let lacks = |path: &Path| Trouble::at(path.display(), "gone meanwhile");
            let roster = named.read(&site, scope)?.ok_or_else(|| lacks(&paths.roster))?;
            all_are_there &= named.missing_on(&roster, &paths.roster) == 0;
            let index = site_files::open_index(&site, scope)?.ok_or_else(|| {
                Trouble::at(
                    paths.index.display(),
                    "not there, but its roster is: put it back, or build and install both again",
                )
            })?;
            if !index.is_final() && named.lines_of(&roster).next().is_some() {
                let why = format!(
                    "{}: not final: another capture may follow, and change what is rehearsed; \
                     build the last one with --final",
                    paths.index.display()
                );
                not_final.get_or_insert_with(|| why.clone());
                remark(why);
                all_are_there = false;
                continue;
            }
            indexes.push((scope.clone(), index));
            rosters.push(roster);
        }
        if let (Some(why), true) = (not_final, indexes.is_empty()) {
            return Err(Trouble::new(format!("nobody is rehearsed; {why}")));
        }
        let settings = site.settings().map_err(Trouble::new)?;
        let mut stage = Self { site, settings, indexes, rehearsals: Vec::new() };
        let mut users = Vec::new();
        for (at, roster) in rosters.iter().enumerate() {
            let (scope, _) = &stage.indexes[at];
            for line in scopes[scope].lines_of(roster) {
                if total.takes(line, args.again) {
                    users.push(line.user.clone());
                    stage.rehearsals.push(Rehearsal { scope: at, line: line.clone() });
                }
            }
        }
        total.say_left_out();
        args.doveadm.check_names(&users)?;
        effect.really(|| stage.note_begin())?;
        Ok((stage, all_are_there))
    }

    /// Writes the note `rehearsal` to the lines of all.
    fn note_begin(&mut self) -> Result<(), Trouble> {
        let at = SystemTime::now();
        let now = at.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let log = ChangesLog::new(&self.site, "rehearse", at);
        for (at, (scope, _)) in self.indexes.iter().enumerate() {
            let mut changed = Vec::new();
            for rehearsal in self.rehearsals.iter_mut().filter(|one| one.scope == at) {
                let before = rehearsal.line.clone();
                rehearsal.line = before.clone().rehearsing(now);
                if rehearsal.line != before {
                    changed.push((before.gate_word(), rehearsal.line.clone()));
                }
            }
            if !changed.is_empty() {
                publish(&self.site, scope, &log, &changed)?;
            }
        }
        Ok(())
    }

    /// Rehearses one user.
    fn rehearse(&self, at: usize, program: &Pop3Program, patience: Duration) -> CameOf {
        let Rehearsal { scope, line } = &self.rehearsals[at];
        let (scope, index) = &self.indexes[*scope];
        let index_path = || self.site.paths_of(scope).index.display().to_string();
        let captured = match index.maildrop(&line.user) {
            Ok(Some(captured)) => captured,
            Ok(None) => {
                let lacks = "its roster names the user, the index does not: build both again";
                return CameOf::CouldNot(format!("{}: {lacks}", index_path()));
            }
            Err(error) => return CameOf::CouldNot(format!("{}: {error}", index_path())),
        };
        let uidls = match program.uidls(&line.user, line.rehearsal, patience) {
            Ok(uidls) => uidls,
            Err(error) => return CameOf::CouldNot(error.to_string()),
        };
        let listed = uidls.len();
        let mut difference = compare(&captured, &uidls);
        if !self.settings.of(&line.user).order {
            difference.misplaced.clear();
        }
        match difference.is_none() {
            true => CameOf::Agrees { listed, captured: difference.captured },
            false => CameOf::Differs { listed, difference: Box::new(difference) },
        }
    }
}

/// Puts lines into the roster of a scope, and the roster in its place.
fn publish(
    site: &Site,
    scope: &Scope,
    log: &ChangesLog,
    changes: &[(&str, RosterLine)],
) -> Result<(), Trouble> {
    let path = site.paths_of(scope).roster;
    let roster = site_files::edit_roster(site, scope)?;
    let mut roster = roster.ok_or_else(|| Trouble::at(path.display(), "gone meanwhile"))?;
    for (_, line) in changes {
        roster.insert(line.clone()).map_err(|error| Trouble::at(path.display(), error))?;
    }
    hold::publish(&path, &roster, log, changes)
}

/// What came of a rehearsal.
enum CameOf {
    /// All that was captured is listed as it was.
    Agrees { listed: usize, captured: usize },
    /// It is not.
    Differs { listed: usize, difference: Box<Disagreement> },
    /// There is no listing, for this reason.
    CouldNot(String),
}

impl CameOf {
    /// How many messages were listed.
    fn listed(&self) -> usize {
        match self {
            Self::Agrees { listed, .. } | Self::Differs { listed, .. } => *listed,
            Self::CouldNot(_) => 0,
        }
    }
}

/// Results that are not in the rosters yet.
struct Batch<'a> {
    stage: &'a Stage,
    /// The places of users whose listing agreed.
    agreed: Vec<usize>,
    since: Instant,
    /// How many users could not be noted, because something changed meanwhile.
    overtaken: usize,
}

impl Batch<'_> {
    fn add(&mut self, at: usize, outcome: &CameOf) -> Result<(), Trouble> {
        if matches!(outcome, CameOf::Agrees { .. }) {
            self.agreed.push(at);
        }
        if self.agreed.len() >= BATCH || self.since.elapsed() >= BATCH_TIME {
            let site = &self.stage.site;
            let lock = lock(site.dir());
            let lock = lock.map_err(|error| Trouble::at(site.dir().display(), error))?;
            // Where another run changes the site, the next result or the end is early enough.
            lock.map_or(Ok(()), |lock| self.write(&lock))?;
        }
        Ok(())
    }

    /// Notes in the rosters who is rehearsed, where nothing has changed meanwhile.
    fn write(&mut self, _lock: &SiteLock) -> Result<(), Trouble> {
        let agreed = mem::take(&mut self.agreed);
        self.since = Instant::now();
        if agreed.is_empty() {
            return Ok(());
        }
        let Stage { site, indexes, rehearsals, .. } = self.stage;
        let log = ChangesLog::new(site, "rehearsed", SystemTime::now());
        for (at, (scope, index)) in indexes.iter().enumerate() {
            let of_scope = agreed.iter().map(|&one| &rehearsals[one]).filter(|it| it.scope == at);
            let lines: Vec<&RosterLine> = of_scope.map(|rehearsal| &rehearsal.line).collect();
            if lines.is_empty() {
                continue;
            }
            let now = site_files::open_index(site, scope)?;
            let is_same = now.is_some_and(|now| now.build_id() == index.build_id());
            let users = lines.iter().map(|line| line.user.as_str());
            let roster = site_files::read_lines_of(site, scope, users)?.unwrap_or_default();
            let (still, changed): (Vec<&RosterLine>, Vec<&RosterLine>) =
                lines.into_iter().partition(|line| is_same && roster.get(&line.user) == Some(line));
            self.overtaken += changed.len();
            for line in changed {
                remark(format_args!(
                    "{}: index or roster changed while it was rehearsed; rehearse it again",
                    line.user
                ));
            }
            let noted = still.into_iter().map(|line| {
                let mut noted = line.clone();
                noted.rehearsed = true;
                (line.gate_word(), noted)
            });
            let noted: Vec<(&str, RosterLine)> = noted.collect();
            if !noted.is_empty() {
                publish(site, scope, &log, &noted)?;
            }
        }
        Ok(())
    }
}

/// What is said of all.
#[derive(Default)]
struct RehearsalTotal {
    rehearsed: usize,
    differ: usize,
    could_not: usize,
    /// Those of `rehearsed` whose index or roster changed meanwhile.
    overtaken: usize,
    /// Users who were rehearsed before.
    before: usize,
    /// Users whose capture failed.
    failed: Vec<String>,
    /// Users who are forgotten.
    forgotten: Vec<String>,
    /// Users who are served: their clients make the first listing.
    served: Vec<String>,
    /// Users who download again.
    redownload: usize,
}

impl RehearsalTotal {
    /// Whether a user is to be rehearsed. Counts him where he is left out.
    fn takes(&mut self, line: &RosterLine, again: bool) -> bool {
        if line.gate == Gate::Redownload {
            self.redownload += 1;
        } else if line.awaits_capture() {
            self.forgotten.push(line.user.clone());
        } else if line.state == State::Failed {
            self.failed.push(line.user.clone());
        } else if line.rehearsed && !again {
            self.before += 1;
        } else if line.gate != Gate::Held {
            self.served.push(line.user.clone());
        } else {
            return true;
        }
        false
    }

    fn say_left_out(&self) {
        let capture = "capture them again and build upon this site";
        let hold = "their clients list at any time; hold them first";
        for (users, what, next) in [
            (&self.failed, "whose capture failed", capture),
            (&self.forgotten, "forgotten", capture),
            (&self.served, "who are served", hold),
        ] {
            if let Some(first) = users.first() {
                let count = users.len();
                remark(format_args!("left out: {count} {what} (the first: {first}): {next}"));
            }
        }
        if self.redownload > 0 {
            remark(format_args!("left out: {} who download everything again", self.redownload));
        }
    }

    fn add(&mut self, outcome: &CameOf) {
        let count = match outcome {
            CameOf::Agrees { .. } => &mut self.rehearsed,
            CameOf::Differs { .. } => &mut self.differ,
            CameOf::CouldNot(_) => &mut self.could_not,
        };
        *count += 1;
    }

    /// How many of so many were not tried.
    fn not_tried(&self, len: usize) -> usize {
        len - self.rehearsed - self.differ - self.could_not
    }

    fn is_all_well(&self, len: usize) -> bool {
        self.rehearsed == len && self.overtaken == 0 && self.is_nobody_left_out()
    }

    /// Whether nobody is left out who has to be held, or captured again.
    fn is_nobody_left_out(&self) -> bool {
        [&self.failed, &self.forgotten, &self.served].iter().all(|users| users.is_empty())
    }

    /// What a dry run says of so many.
    fn foretold(&self, len: usize) -> String {
        format!("{len} would be rehearsed, {} were rehearsed before", self.before)
    }

    fn sentence(&self, len: usize) -> String {
        let Self { rehearsed, differ, could_not, before, .. } = self;
        let mut said =
            format!("{rehearsed} rehearsed, {differ} differ, {could_not} could not be rehearsed");
        if *before > 0 {
            said += &format!(", {before} were rehearsed before");
        }
        match self.not_tried(len) {
            0 => {}
            left => {
                said += &format!(", {left} not tried; the same command goes on where it stopped");
            }
        }
        said
    }

    fn json(&self, len: usize) -> serde_json::Value {
        json!({
            "total": {
                "rehearsed": self.rehearsed,
                "differ": self.differ,
                "could_not": self.could_not,
                "not_tried": self.not_tried(len),
                "before": self.before,
                "failed": self.failed.len(),
                "forgotten": self.forgotten.len(),
                "served": self.served.len(),
                "redownload": self.redownload,
            }
        })
    }
}

/// Prints a line, or nothing. The work is done, also when nobody reads this.
fn print(line: &str) -> Result<(), Trouble> {
    if line.is_empty() {
        return Ok(());
    }
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What is printed of a user; nothing where he agrees and nobody wants JSON.
fn described(args: &RehearseArgs, user: &str, outcome: &CameOf) -> String {
    if args.json {
        let texts = |uidls: &[Box<[u8]>]| -> Vec<String> {
            uidls.iter().map(|uidl| String::from_utf8_lossy(uidl).into_owned()).collect()
        };
        let object = match outcome {
            CameOf::Agrees { listed, captured } => json!({
                "user": user, "outcome": "rehearsed", "listed": listed, "captured": captured,
            }),
            CameOf::Differs { listed, difference } => json!({
                "user": user,
                "outcome": "differs",
                "listed": listed,
                "captured": difference.captured,
                "missing": texts(&difference.missing),
                "misplaced": texts(&difference.misplaced),
                "repeated": texts(&difference.repeated),
                "spent": texts(&difference.spent),
            }),
            CameOf::CouldNot(why) => json!({ "user": user, "outcome": "could_not", "why": why }),
        };
        return object.to_string();
    }
    on_one_line(match outcome {
        CameOf::Agrees { .. } => String::new(),
        CameOf::Differs { difference, .. } => format!("{user} differs: {difference}"),
        CameOf::CouldNot(why) => format!("{user} could not be rehearsed: {why}"),
    })
}
