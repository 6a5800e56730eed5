//! `uidl-keep hold`, `release` and `forget` set whether migrated users are served. `listed` and
//! `restored` note facts that the operator knows and that the mailboxes do not show. `rehearse`
//! shares how users are named and how rosters are changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use indicatif::HumanCount;
use uidl_keep::file::lock::{SiteLock, lock};
use uidl_keep::file::publish::{Access, Sealed, Staged};
use uidl_keep::maildrop::{State, is_everybody};
use uidl_keep::site::change::Change;
use uidl_keep::site::roster::{
    Gate, Roster, RosterEdit, RosterError, RosterLine, is_domain, name_of_domain,
};
use uidl_keep::site::{Scope, Site};
use uidl_keep::text::on_one_line;

use crate::accounts::{Checked, Doveadm};
use crate::apart;
use crate::changes::ChangesLog;
use crate::effect::{DryRunArgs, Effect};
use crate::output::{Completion, Trouble, remark, summary};
use crate::site_files;
use crate::stop::StopFile;

/// Refuses migrated users at POP3, with a text that says that the mailbox is being moved.
///
/// Example: uidl-keep hold alice@example.com example.net
///
/// It takes effect at the next login; sessions that are open go on. A domain that is held also
/// refuses users who are on no roster yet, and users who are built later, until it is released.
/// Prints each domain with the number of gates that changed, and each named user whose gate
/// changed, with the gate now. changes.log in the site directory names each user, and who did it.
/// Exit status 1: somebody named is on no roster.
#[derive(clap::Args)]
pub struct HoldArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Hold all users of the site.
    #[arg(long, conflicts_with_all = ["who", "list"])]
    all: bool,
    #[command(flatten)]
    doveadm: Doveadm,
    /// Let Dovecot's auth refuse all held users before any process of theirs starts. A first passdb
    /// that reads auth/stop-pop3 in the site directory does this. From then on every change of a
    /// gate writes that file.
    #[arg(long)]
    auth: bool,
}

/// Serves migrated users again.
///
/// Example: uidl-keep release alice@example.com
///
/// A user who was held is guarded again: a first listing is still refused while fewer than half of
/// the captured messages are there. A guarded user who is named is released from that as well. A
/// held user whose UIDLs were captured must be rehearsed before, or he stays held; --unrehearsed
/// and --redownload go without.
/// Prints each domain with the number of gates that changed, and each named user whose gate
/// changed, with the gate now. changes.log in the site directory names each user, and who did it.
/// Exit status 1: not for all of them.
#[derive(clap::Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Release all users of the site.
    #[arg(long, conflicts_with_all = ["who", "list", "redownload"])]
    all: bool,
    #[command(flatten)]
    doveadm: Doveadm,
    /// Release them from everything, whole domains too. A named user may be listed at the next
    /// login although many of the messages there before are missing: once, for what is missing now.
    #[arg(long, conflicts_with = "redownload")]
    unguarded: bool,
    /// Give their UIDLs up. They are served as if they had never been migrated, and their clients
    /// download everything again.
    #[arg(long)]
    redownload: bool,
    /// Release also who was not rehearsed: nobody has seen before what his client is told.
    #[arg(long, conflicts_with = "redownload")]
    unrehearsed: bool,
}

/// Takes back everything that uidl-keep has told the clients of these users, because it was wrong.
///
/// Example: uidl-keep forget alice@example.com
///
/// These users are refused at POP3, as held users are, until `build` upon this site gets a listing
/// that has them. Then they are served by that listing alone, and no message gets a UIDL that they
/// were given before. Use it, for example, for an index that was built with a wrong format. Only
/// the roster is changed, in one step. Prints each domain with the number of users forgotten, and
/// each named user with the gate now. changes.log in the site directory names each user, and who
/// did it. Exit status 1: somebody named is on no roster.
#[derive(clap::Args)]
pub struct ForgetArgs {
    #[command(flatten)]
    who: WhoArgs,
}

/// Notes that POP3 clients listed these users' maildrops before, on the old layout of this server.
///
/// Example: uidl-keep listed example.com
///
/// Use it before a conversion that does not take uidl-keep's own files along (for example Maildir
/// to mdbox by dsync). Then the first login after it is not refused when a client has deleted more
/// than half meanwhile. Do not use it for users who have not logged in since they were migrated:
/// they would be served from a half-copied maildrop too. Prints each domain with the number of
/// users for whom it is new, and each named user for whom it is. Exit status 1: somebody named is
/// on no roster.
#[derive(clap::Args)]
pub struct ListedArgs {
    #[command(flatten)]
    who: WhoArgs,
}

/// Says that these users' mailboxes were restored from a backup, together with everything that
/// records what clients were told.
///
/// Example: uidl-keep restored alice@example.com example.net
///
/// Clients may hold UIDLs that were given after that backup, and nothing on the server knows of
/// them. So the next login raises the mailbox's next UID by 65,536, past all of them. Use it before
/// the first login, once for each time that mail was restored. Prints each domain with the number
/// of its users, and each named user. Exit status 1: somebody named is on no roster.
#[derive(clap::Args)]
pub struct RestoredArgs {
    #[command(flatten)]
    who: WhoArgs,
}

#[derive(clap::Args)]
pub struct WhoArgs {
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    pub site: PathBuf,
    /// Users, or domains as `example.com` or `@example.com`.
    #[arg(value_name = "USER|DOMAIN")]
    who: Vec<String>,
    /// A file with one user or domain on each line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    #[command(flatten)]
    pub dry: DryRunArgs,
}

/// Users, or the whole domain, selected in one roster.
#[derive(Default)]
pub struct NamedUsers {
    /// Everybody is selected.
    all: bool,
    /// Users who were named, however often.
    users: BTreeSet<String>,
}

impl NamedUsers {
    /// The lines of those who are selected, without those of nobody in particular.
    pub fn lines_of<'a>(&'a self, roster: &'a Roster) -> impl Iterator<Item = &'a RosterLine> {
        let is_user = |line: &&RosterLine| !is_domain(&line.user) && !is_everybody(&line.user);
        let is_meant = |line: &&RosterLine| self.all || self.users.contains(&line.user);
        roster.lines().filter(is_user).filter(is_meant)
    }

    /// The lines of those who are selected, and perhaps others.
    fn lines_in(&self, roster: &RosterEdit<File>) -> Result<Roster, RosterError> {
        match self.all {
            true => roster.whole(),
            false => roster.lines_of(self.users.iter().map(String::as_str)),
        }
    }

    /// As [`NamedUsers::lines_in`], of the roster of a scope.
    pub fn read(&self, site: &Site, scope: &Scope) -> Result<Option<Roster>, Trouble> {
        let Some(roster) = site_files::edit_roster(site, scope)? else { return Ok(None) };
        let lines = self.lines_in(&roster);
        lines.map(Some).map_err(|error| Trouble::at(site.paths_of(scope).roster.display(), error))
    }

    /// Says who of those who were named is not on the roster, and returns how many.
    pub fn missing_on(&self, roster: &Roster, path: &Path) -> u64 {
        let missing = self.users.iter().filter(|user| roster.get(user).is_none());
        missing.map(|user| remark(format_args!("{}: {user} is not on it", path.display()))).count()
            as u64
    }
}

/// Whether a release minds that a user was not rehearsed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unrehearsed {
    StayHeld,
    AreReleased,
}

pub fn hold(args: &HoldArgs) -> Result<Completion, Trouble> {
    let who = (&args.who, args.all);
    change_gates(who, Some(&args.doveadm), Change::Hold, args.auth, Unrehearsed::AreReleased)
}

pub fn release(args: &ReleaseArgs) -> Result<Completion, Trouble> {
    let change_to = if args.redownload {
        Change::Redownload
    } else if args.unguarded {
        Change::Unguard
    } else {
        Change::Release
    };
    // Users who are to download again need not be guarded.
    let doveadm = Some(&args.doveadm).filter(|_| !args.redownload);
    let unrehearsed = match args.unrehearsed || args.redownload {
        true => Unrehearsed::AreReleased,
        false => Unrehearsed::StayHeld,
    };
    change_gates((&args.who, args.all), doveadm, change_to, false, unrehearsed)
}

pub fn forget(args: &ForgetArgs) -> Result<Completion, Trouble> {
    change(&args.who, false, Change::Forget)
}

pub fn listed(args: &ListedArgs) -> Result<Completion, Trouble> {
    change(&args.who, false, Change::Listed)
}

pub fn restored(args: &RestoredArgs) -> Result<Completion, Trouble> {
    change(&args.who, false, Change::Restored)
}

/// Makes a change that asks nothing of Dovecot.
pub fn change(who: &WhoArgs, all: bool, change: Change) -> Result<Completion, Trouble> {
    change_gates((who, all), None, change, false, Unrehearsed::AreReleased)
}

/// Changes gates. With `is_auth`, Dovecot's auth refuses the held users from now on.
fn change_gates(
    (who, all): (&WhoArgs, bool),
    doveadm: Option<&Doveadm>,
    change: Change,
    is_auth: bool,
    unrehearsed: Unrehearsed,
) -> Result<Completion, Trouble> {
    let site = Site::new(&who.site);
    let names = who.names(all, change.command())?;
    who.dry.find(&site)?;
    let effect = Effect::of(who.dry, || wait_for_lock(&site))?;
    let begin = || if is_auth { StopFile::begin(&site).map(Some) } else { StopFile::of(&site) };
    let mut stop = effect.really(begin)?.flatten();
    let (scopes, unfound) = select(&site, &names, all)?;
    let mut outcome = if unfound == 0 { Completion::Done } else { Completion::Partial };
    let mut counts = GateCounts { not_done: unfound, ..GateCounts::default() };
    if let Some(doveadm) = doveadm.filter(|_| !scopes.is_empty()) {
        check(doveadm, &site, &scopes)?;
    }
    if let (Some(stop), Change::Hold | Change::Forget) = (&mut stop, change) {
        cover(stop, &site, &scopes, change)?;
    }
    let now = SystemTime::now();
    let run = GateChange { effect: &effect, site: &site, change, now, unrehearsed };
    let mut printed = BTreeMap::new();
    let mut changed = Ok(());
    for (scope, named) in &scopes {
        match run.change_scope(scope, named, &mut printed, &mut counts) {
            Ok(true) => {}
            Ok(false) => outcome = Completion::Partial,
            Err(trouble) => {
                changed = Err(trouble);
                break;
            }
        }
    }
    if !counts.left.is_empty() {
        remark(as_left(change, &counts.left, &effect));
        outcome = Completion::Partial;
    }
    // The work is done, also when nobody reads this.
    let printed = print(&printed, effect.would_be());
    // This is done also after a partial change: the rosters are what counts.
    let refreshed = stop.map_or(Ok(()), |mut stop| stop.refresh());
    changed.and(refreshed)?;
    if matches!(change, Change::Restored) && counts.changed > 0 {
        remark(format_args!(
            "{} maildrops: at the next POP3 login of each, the next UID {} raised by 65,536",
            counts.changed,
            effect.is()
        ));
    }
    let GateCounts { changed, already, not_done, left: _ } = counts;
    let [changed, already, not_done] = [changed, already, not_done].map(HumanCount);
    summary(format_args!(
        "{}: {changed} {}changed, {already} already were so, {not_done} not done",
        change.command(),
        effect.would_be()
    ));
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(outcome),
    }
}

/// Names in auth's file who is selected and downloads again, before the rosters take that back, and
/// tells it of the lines of nobody in particular that are to come.
fn cover(
    stop: &mut StopFile,
    site: &Site,
    scopes: &BTreeMap<Scope, NamedUsers>,
    change: Change,
) -> Result<(), Trouble> {
    if stop.guard().is_none() {
        return Ok(());
    }
    let mut users = Vec::new();
    for (scope, named) in scopes {
        // A roster that cannot be read is not changed either.
        if let Ok(Some(roster)) = named.read(site, scope) {
            users.extend(named.lines_of(&roster).map(|line| line.user.clone()));
            let everybody = named.users.iter().filter(|user| is_everybody(user));
            users.extend(everybody.filter(|user| roster.get(user).is_some()).cloned());
        }
        if let (Scope::Domain(domain), Change::Hold, true) = (scope, change, named.all) {
            users.push(name_of_domain(domain));
        }
    }
    stop.cover(users.iter().map(String::as_str))
}

impl WhoArgs {
    /// All names that are given; none is needed with `all`.
    ///
    /// # Errors
    ///
    /// Nobody is named, or the list cannot be read.
    pub fn names(&self, all: bool, command: &str) -> Result<Vec<String>, Trouble> {
        if self.who.is_empty() && self.list.is_none() && !all {
            return Err(Trouble::new(format!(
                "nobody is named; name users or domains: uidl-keep {command} example.com"
            )));
        }
        let mut names = self.who.clone();
        if let Some(list) = &self.list {
            names.extend(read_list(list)?);
        }
        Ok(names)
    }
}

/// The users that names stand for, by scope; those of all scopes with `all`. Says which names have
/// no roster, and returns how many.
pub fn select(
    site: &Site,
    names: &[String],
    all: bool,
) -> Result<(BTreeMap<Scope, NamedUsers>, u64), Trouble> {
    let mut unfound = 0;
    let mut scopes: BTreeMap<Scope, NamedUsers> = BTreeMap::new();
    let apart = apart::by_domain(site)?;
    for name in names {
        let found = scopes_of(site, &apart, name)?;
        if found.is_empty() {
            remark(format_args!("{}: no roster for {name}", site.dir().display()));
            unfound += 1;
        }
        for (scope, is_all) in found {
            let named = scopes.entry(scope).or_default();
            if is_all {
                named.all = true;
            } else {
                named.users.insert(name.clone());
            }
        }
    }
    if all {
        let everywhere = site_files::scopes(site)?.into_iter();
        scopes.extend(
            everywhere.map(|scope| (scope, NamedUsers { all: true, ..NamedUsers::default() })),
        );
    }
    Ok((scopes, unfound))
}

/// Refuses to go on when Dovecot would not follow the rosters.
fn check(
    doveadm: &Doveadm,
    site: &Site,
    scopes: &BTreeMap<Scope, NamedUsers>,
) -> Result<(), Trouble> {
    if doveadm.check_pop3(site)? == Checked::No {
        return Ok(());
    }
    let mut users = Vec::new();
    for (scope, named) in scopes {
        let Some(roster) = named.read(site, scope)? else { continue };
        users.extend(named.lines_of(&roster).map(|line| line.user.clone()));
    }
    doveadm.check_names(&users)
}

/// The scopes that a name stands for, each with whether all of it is meant; none when the name has
/// no roster. A domain also stands for the scopes of its users who have files of their own.
fn scopes_of(
    site: &Site,
    apart: &BTreeMap<String, Vec<Scope>>,
    name: &str,
) -> Result<Vec<(Scope, bool)>, Trouble> {
    let with_roster = |scope: Option<Scope>| -> Result<Option<Scope>, Trouble> {
        match scope {
            Some(scope) if site_files::has_roster(site, &scope)? => Ok(Some(scope)),
            _ => Ok(None),
        }
    };
    let domain = name.trim_start_matches('@');
    if domain.contains('@') {
        let scope = match with_roster(Scope::own(name))? {
            None => with_roster(Scope::of(name))?,
            own => own,
        };
        return Ok(scope.map(|scope| (scope, false)).into_iter().collect());
    }
    let mut scopes: Vec<(Scope, bool)> = Vec::new();
    scopes.extend(with_roster(Scope::of(&format!("@{domain}")))?.map(|scope| (scope, true)));
    scopes.extend(apart.get(domain).into_iter().flatten().map(|scope| (scope.clone(), true)));
    let user = if name.starts_with('@') { None } else { with_roster(Scope::of(name))? };
    match user {
        Some(_) if !scopes.is_empty() => {
            Err(Trouble::new(format!("{name} is a domain and a user here; @{name} is the domain")))
        }
        user => {
            scopes.extend(user.map(|user| (user, false)));
            Ok(scopes)
        }
    }
}

/// The lines that are printed for a domain, or for a user without one.
#[derive(Default)]
struct Printed {
    /// The domain's gate now, when the domain was held before or is held now.
    domain: Option<&'static str>,
    /// The number of its users for each outcome.
    of_domain: BTreeMap<&'static str, usize>,
    /// A line for each user who was named.
    by_name: String,
}

fn print(printed: &BTreeMap<Scope, Printed>, would_be: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (scope, Printed { domain, of_domain, by_name }) in printed {
        let mut outcomes: Vec<String> =
            of_domain.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        if let Some(outcome) = domain.filter(|_| outcomes.is_empty()) {
            outcomes.push(format!("{outcome} 0"));
        }
        if !outcomes.is_empty() {
            let name = name_of_domain(scope.name());
            let line = format!("{name} {would_be}{}", outcomes.join(", "));
            writeln!(out, "{}", on_one_line(line))?;
        }
        out.write_all(by_name.as_bytes())?;
    }
    Ok(())
}

/// How many users a command has changed.
#[derive(Default)]
struct GateCounts {
    changed: u64,
    /// Those who were as they were to be.
    already: u64,
    /// Those who are not as they were to be, or are on no roster.
    not_done: u64,
    /// Those of them who are left as they were, because of what is known of their rehearsals.
    left: BTreeSet<String>,
}

/// One run of a command.
struct GateChange<'a> {
    effect: &'a Effect,
    site: &'a Site,
    change: Change,
    now: SystemTime,
    unrehearsed: Unrehearsed,
}

impl GateChange<'_> {
    /// Whether the user is left as he is, because of what is known of his rehearsals: he was not
    /// rehearsed before a release, or clients may have listed the maildrop since the rehearsal that
    /// is to be undone.
    fn leaves(&self, before: &RosterLine, after: &RosterLine) -> bool {
        match self.change {
            Change::Release | Change::Unguard => {
                self.unrehearsed == Unrehearsed::StayHeld && awaits_rehearsal(before)
            }
            Change::UndoRehearsal => {
                (before.rehearsed || before.rehearsal > 0) && after.undone == before.undone
            }
            _ => false,
        }
    }

    /// Rewrites the roster of a scope. Returns whether all named users are on it and could be
    /// changed.
    fn change_scope(
        &self,
        scope: &Scope,
        named: &NamedUsers,
        printed: &mut BTreeMap<Scope, Printed>,
        counts: &mut GateCounts,
    ) -> Result<bool, Trouble> {
        let path = self.site.paths_of(scope).roster;
        let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
        let Some(mut edit) = site_files::edit_roster(self.site, scope)? else {
            return Err(at(&"gone meanwhile"));
        };
        let mut roster = named.lines_in(&edit).map_err(|error| at(&error))?;
        let missing = named.missing_on(&roster, &path);
        counts.not_done += missing;
        let mut all_done = missing == 0;
        let (mut still_forgotten, mut still_served) = (Vec::new(), Vec::new());
        let mut changed = Vec::new();
        for before in roster.lines().filter(|line| !is_domain(&line.user)) {
            let is_named = named.users.contains(&before.user);
            if !is_named && !named.all {
                continue;
            }
            let after = self.change.after(before, is_named, self.now);
            let mut is_done = self.change.is_done(&after);
            if self.leaves(before, &after) {
                counts.not_done += 1;
                counts.left.insert(before.user.clone());
                // A rehearsal that cannot be undone says nothing of what is served now.
                if self.change == Change::UndoRehearsal && after != *before {
                    changed.push((before.gate_word(), after));
                }
                continue;
            }
            match (self.change, after.gate) {
                _ if is_named => {
                    tell(self.change, before, &after, self.effect);
                    all_done &= is_done;
                }
                (Change::Hold | Change::Forget, Gate::Redownload) => {
                    still_served.push(after.user.clone());
                    is_done = false;
                }
                (Change::Release | Change::Unguard, gate)
                    if gate != Gate::Redownload && after.awaits_capture() =>
                {
                    still_forgotten.push(after.user.clone());
                }
                _ => {}
            }
            *match (is_done, after != *before) {
                (false, _) => &mut counts.not_done,
                (true, false) => &mut counts.already,
                (true, true) => &mut counts.changed,
            } += 1;
            if after != *before {
                changed.push((before.gate_word(), after));
            }
        }
        let of_scope = |users: &[String], what: &str| {
            if let Some(first) = users.first() {
                let (scope, count) = (scope.name(), users.len());
                remark(format_args!("{scope}: {count} of its users {what} (the first: {first})"));
            }
        };
        of_scope(&still_forgotten, &format!("are {FORGOTTEN}"));
        of_scope(&still_served, "download again, as told before, and are served on");
        all_done &= still_forgotten.is_empty();
        let log = ChangesLog::new(self.site, self.change.command(), self.now);
        let of_domain = if named.all { self.change_domain(scope, &mut roster) } else { None };
        if changed.is_empty() && of_domain.is_none() {
            return Ok(all_done);
        }
        let changes: Vec<(&str, RosterLine)> = of_domain.iter().chain(&changed).cloned().collect();
        for (_, after) in &changes {
            match is_domain(&after.user) && roster.get(&after.user).is_none() {
                true => edit.remove(&after.user),
                false => edit.insert(after.clone()).map_err(|error| at(&error))?,
            }
        }
        self.effect.really(|| publish(&path, &edit, &log, &changes))?;
        // A user who has files of his own still counts as one of his domain.
        let of = apart::domain_of(scope).unwrap_or_else(|| scope.clone());
        let is_printed_by_name =
            |line: &RosterLine| matches!(of, Scope::User(_)) || named.users.contains(&line.user);
        let printed = printed.entry(of.clone()).or_default();
        for (_, after) in changed.iter().filter(|(_, after)| !counts.left.contains(&after.user)) {
            let outcome = self.change.outcome(after);
            if is_printed_by_name(after) {
                printed.by_name +=
                    &on_one_line(format!("{} {}{outcome}", after.user, self.effect.would_be()));
                printed.by_name.push('\n');
            } else {
                *printed.of_domain.entry(outcome).or_default() += 1;
            }
        }
        if let Some((_, line)) = of_domain {
            printed.domain = Some(self.change.outcome(&line));
        }
        Ok(all_done)
    }

    /// Changes the line of a whole domain: it also covers users who are not on its roster, or not
    /// yet. Returns the gate before and the line, when that changes anything.
    fn change_domain(
        &self,
        scope: &Scope,
        roster: &mut Roster,
    ) -> Option<(&'static str, RosterLine)> {
        let Scope::Domain(domain) = scope else { return None };
        let name = name_of_domain(domain);
        match self.change {
            Change::Hold if roster.get(&name).is_none() => {
                let line = RosterLine::new(name, State::Empty, Gate::Held);
                roster.insert(line.clone()).ok()?;
                Some((NOT_HELD, line))
            }
            Change::Release | Change::Unguard | Change::Redownload => {
                let line = roster.remove(&name)?;
                Some((line.gate_word(), line.with_gate(Gate::Guarded, false)))
            }
            Change::Hold
            | Change::Forget
            | Change::Listed
            | Change::Restored
            | Change::UndoRehearsal => None,
        }
    }
}

/// Whether a user is to be rehearsed before he is released.
fn awaits_rehearsal(line: &RosterLine) -> bool {
    line.gate == Gate::Held
        && line.state == State::Captured
        && !line.rehearsed
        && !line.awaits_capture()
}

/// How many users are named who could not be changed.
const MOST_NAMED: usize = 3;

/// Why these users are left as they were.
fn as_left(change: Change, users: &BTreeSet<String>, effect: &Effect) -> String {
    let first: Vec<&str> = users.iter().take(MOST_NAMED).map(String::as_str).collect();
    let (count, first, is) = (users.len(), first.join(", "), effect.is());
    match change {
        Change::UndoRehearsal => format!(
            "for {count} users nothing {is} undone (the first: {first}): clients may have listed \
             these maildrops since, for they were not held all the time; to take back what clients \
             were told: uidl-keep forget"
        ),
        _ => format!(
            "{count} users stay held, for they are not rehearsed (the first: {first}): `uidl-keep \
             rehearse` them, or release them with --unrehearsed"
        ),
    }
}

/// Puts a roster in its place. `changes` are the lines that differ, each with the gate before.
///
/// # Errors
///
/// Nothing is changed, then.
pub fn publish(
    path: &Path,
    roster: &RosterEdit<File>,
    log: &ChangesLog,
    changes: &[(&str, RosterLine)],
) -> Result<(), Trouble> {
    let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
    let line =
        |(before, after): &(&str, RosterLine)| log.line(&after.user, before, after.gate_word());
    let lines: String = changes.iter().map(line).collect();
    let sealed = seal_roster(path, roster).map_err(|error| at(&error))?;
    // Every change is in the log. So the log is written first, when only the last step is left.
    log.append(&lines)?;
    sealed.publish().map_err(|error| {
        let _ = log.append(&log.line_of_failure(path, &error));
        at(&error)
    })
}

const FORGOTTEN: &str = "still refused, as forgotten: capture again and build upon this site, or \
    `release --redownload`";

/// The gate of a domain whose roster has no line for it.
const NOT_HELD: &str = "guarded";

/// Prints a remark about a named user when the gate alone does not tell all.
fn tell(change: Change, before: &RosterLine, after: &RosterLine, effect: &Effect) {
    let RosterLine { user, state, gate, .. } = after;
    let (is_done, is) = (change.is_done(after), effect.is());
    let takes_back = before.gate == Gate::Redownload && *gate != Gate::Redownload;
    if takes_back {
        remark(format_args!("{user} was to download again; that {is} taken back"));
    }
    let awaits_capture = after.awaits_capture();
    match (is_done, gate) {
        (true, Gate::Held) if awaits_capture && matches!(change, Change::Hold | Change::Forget) => {
            remark(format_args!(
                "{user} {is} forgotten and held: to be served, it must be captured again, built \
                 upon this site, and released"
            ))
        }
        (true, _) => {}
        (false, Gate::Redownload) if *state == State::Failed => remark(format_args!(
            "{user} downloads again, as told before, and the capture failed; to have kept \
             unique-ids served: capture it again, build upon this site, `hold`, then `release`"
        )),
        (false, Gate::Redownload) => remark(format_args!(
            "{user} downloads again, as told before; to go back to the kept unique-ids: `hold`, \
             then `release`"
        )),
        (false, _) if awaits_capture => remark(format_args!("{user} is {FORGOTTEN}")),
        (false, _) if *state == State::Failed => remark(format_args!(
            "{user} is still refused, because the capture failed: capture it again and build upon \
             this site, or `release --redownload`"
        )),
        (false, _) => {}
    }
}

/// A roster that will replace the old one, with the same owner and permissions.
fn seal_roster(path: &Path, roster: &RosterEdit<File>) -> Result<Sealed, RosterError> {
    let metadata = fs::symlink_metadata(path)?;
    let staged = Staged::create(path)?;
    let mut out = BufWriter::new(staged.file());
    roster.write(&mut out)?;
    out.flush()?;
    drop(out);
    let mode = metadata.mode() & 0o7777;
    Ok(staged.seal(Access { mode, owner: Some((metadata.uid(), metadata.gid())) })?)
}

/// Waits a short time while another run of uidl-keep changes the site.
pub fn wait_for_lock(site: &Site) -> Result<SiteLock, Trouble> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let taken = lock(site.dir());
        match taken.map_err(|error| Trouble::at(site.dir().join(".lock").display(), error))? {
            Some(lock) => return Ok(lock),
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
            None => {
                return Err(Trouble::at(
                    site.dir().display(),
                    "another uidl-keep changes this site; try again when it is done",
                ));
            }
        }
    }
}

fn read_list(path: &Path) -> Result<Vec<String>, Trouble> {
    let at = |error: io::Error| Trouble::at(path.display(), error);
    let text = if path == Path::new("-") {
        io::read_to_string(io::stdin().lock()).map_err(at)?
    } else {
        io::read_to_string(File::open(path).map_err(at)?).map_err(at)?
    };
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(names.filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}
