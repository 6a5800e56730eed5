//! `uidl-keep status`: how far each domain has come, and what is next.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use uidl_keep::dovecot::Dovecot;
use uidl_keep::file::map::Mapped;
use uidl_keep::index::Index;
use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::roster::{Gate, RosterLine, is_domain};
use uidl_keep::site::{Scope, Site, open_trusted};
use uidl_keep::status::{
    LedgerSeen, MaildropStatus, NextStep, Plugin, Refused, StatusTally, look, next_step,
};
use uidl_keep::text::on_one_line;

use crate::accounts::Doveadm;
use crate::capture::progress::Progress;
use crate::names::SelectedNames;
use crate::output::{Completion, Trouble, remark};
use crate::places::{InboxArgs, Inboxes, USERS_AT_A_TIME};
use crate::site_files;

/// Says how far each domain has come, and which command is next; changes nothing.
///
/// Example: uidl-keep status example.com
///
/// Prints a line for each domain, one for the whole, and whether POP3 loads the plugin. "listed"
/// has been listed by a POP3 client here; "waiting" is served, and not listed yet; "baked" is what
/// Dovecot can tell without the plugin. Ledgers lie with the mail, where Dovecot says, so that root
/// alone can look at them all; what was not looked at is said to be unknown. Run it on the new
/// server. Exit status 1: some file could not be read, or a name is nobody's.
#[derive(clap::Args)]
pub struct StatusArgs {
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    /// Users, or domains as `example.com` or `@example.com` [default: all].
    #[arg(value_name = "USER|DOMAIN")]
    who: Vec<String>,
    #[command(flatten)]
    doveadm: Doveadm,
    #[command(flatten)]
    inboxes: InboxArgs,
    /// Look at rosters and indexes alone, and not at the mail of each user.
    #[arg(long)]
    no_ledgers: bool,
    /// Print a JSON object a line: one for each domain, and one for the total.
    #[arg(long)]
    json: bool,
}

/// What is known of a domain.
#[derive(Default)]
struct Domain {
    lines: Vec<RosterLine>,
    tally: StatusTally,
    /// Files that could not be read.
    faults: Vec<String>,
}

/// So many users are named in a line.
const MOST_NAMED: usize = 3;

pub fn run(args: &StatusArgs) -> Result<Completion, Trouble> {
    let site = Site::new(&args.site);
    let selection = SelectedNames::of(&args.who);
    let mut domains: BTreeMap<String, Domain> = BTreeMap::new();
    for (name, scopes) in selection.scopes(&site)? {
        let domain = domains.entry(name).or_default();
        for scope in &scopes {
            read_scope(&site, scope, &selection, domain);
        }
    }
    let inboxes = match args.no_ledgers {
        true => None,
        false => Some(args.inboxes.inboxes(args.doveadm.dovecot())?),
    };
    look_at_all(inboxes.as_ref(), &mut domains);
    let mut total = Domain::default();
    for domain in domains.values() {
        total.tally.join(&domain.tally);
        total.faults.extend(domain.faults.iter().cloned());
    }
    let plugin = match args.doveadm.is_checking() {
        true => plugin_of(&site, &args.doveadm.dovecot()),
        false => Plugin::NotAsked,
    };
    print(args, &domains, &total, &plugin)?;
    let users = domains.values().flat_map(|domain| &domain.lines).map(|line| &*line.user);
    let unmet = selection.unmet(users);
    for name in &unmet {
        remark(format_args!("{name}: nobody of that name is on a roster"));
    }
    for fault in &total.faults {
        remark(fault);
    }
    let is_told = total.faults.is_empty() && total.tally.not_told.is_empty() && unmet.is_empty();
    Ok(if is_told { Completion::Done } else { Completion::Partial })
}

/// Whether there is a ledger to look for: Dovecot alone answers whoever downloads again.
fn is_asked_for(line: &RosterLine) -> bool {
    !is_domain(&line.user) && !is_everybody(&line.user) && line.gate != Gate::Redownload
}

/// Reads roster and index of a scope. A fault of one costs no other domain its line.
fn read_scope(site: &Site, scope: &Scope, selection: &SelectedNames, domain: &mut Domain) {
    let paths = site.paths_of(scope);
    let is_whole = |line: &RosterLine| selection.has(&line.user);
    match site_files::read_roster(site, scope) {
        Ok(Some(roster)) => {
            domain.lines.extend(roster.lines().filter(|line| is_whole(line)).cloned());
        }
        Ok(None) => domain.faults.push(format!(
            "{}: not there, but its index is: put it back, or build and install both again",
            paths.roster.display()
        )),
        Err(trouble) => domain.faults.push(trouble.to_string()),
    }
    let mut read = || -> Result<bool, String> {
        let file = open_trusted(&paths.index, u64::MAX).map_err(|error| error.to_string())?;
        let file = file.ok_or("not there, but its roster is: build and install both again")?;
        let mapped = Mapped::new(file).map_err(|error| error.to_string())?;
        let index = Index::open(mapped).map_err(|error| error.to_string())?;
        for captured in index.maildrops() {
            let captured = captured.map_err(|error| error.to_string())?;
            if selection.has(&captured.user) {
                domain.tally.add_captured(&captured);
            }
        }
        Ok(index.is_final())
    };
    match read() {
        Ok(is_final) => domain.tally.add_index(Some(is_final)),
        Err(why) => {
            domain.tally.add_index(None);
            domain.faults.push(format!("{}: {why}", paths.index.display()));
        }
    }
}

/// Looks at the ledgers of all users, chunk by chunk, and counts what was seen. One ledger is in
/// memory at a time.
fn look_at_all(inboxes: Option<&Inboxes>, domains: &mut BTreeMap<String, Domain>) {
    let mut asked: Vec<(String, RosterLine)> = Vec::new();
    for (name, domain) in domains.iter_mut() {
        for line in &domain.lines {
            match inboxes.is_some() && is_asked_for(line) {
                true => asked.push((name.clone(), line.clone())),
                false => domain.tally.add(&unseen(line)),
            }
        }
    }
    let progress = Progress::new(asked.len(), asked.len() < 2, true);
    let mut can_ask = true;
    // One chunk has the users of many small domains.
    for chunk in asked.chunks(USERS_AT_A_TIME) {
        let users: Vec<String> = chunk.iter().map(|(_, line)| line.user.clone()).collect();
        let places = inboxes.filter(|_| can_ask).map(|inboxes| inboxes.of(&users));
        let mut places = match places {
            Some(Ok(places)) => places,
            Some(Err(why)) => {
                // The next chunk would hear the same.
                can_ask = false;
                progress.say(format_args!(
                    "not looked at ledgers: {why}; start Dovecot, name it with --doveadm and \
                     --doveadm-args, or say --maildir or --no-ledgers"
                ));
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        for (name, line) in chunk {
            let seen = match places.remove(&line.user) {
                Some(Ok(dir)) => look(&line.user, &dir),
                Some(Err(why)) => LedgerSeen::CouldNotTell(why),
                None => LedgerSeen::NotLooked,
            };
            progress.count_maildrop(matches!(seen, LedgerSeen::CouldNotTell(_)));
            let domain = domains.get_mut(name).expect("it is one of them");
            domain.tally.add(&MaildropStatus { line: line.clone(), seen });
        }
    }
    progress.finish();
}

fn unseen(line: &RosterLine) -> MaildropStatus {
    MaildropStatus { line: line.clone(), seen: LedgerSeen::NotLooked }
}

/// Whether POP3 loads the plugin, for this site.
pub fn plugin_of(site: &Site, dovecot: &Dovecot) -> Plugin {
    match dovecot.fault_of_pop3() {
        Err(error) => Plugin::CouldNotTell(error.to_string()),
        Ok(Some(fault)) => Plugin::NotLoaded(fault.to_string()),
        Ok(None) if !site.is_of_plugin() => Plugin::OtherSite(Site::DEFAULT_DIR.into()),
        Ok(None) => Plugin::Loaded,
    }
}

fn print(
    args: &StatusArgs,
    domains: &BTreeMap<String, Domain>,
    total: &Domain,
    plugin: &Plugin,
) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (name, domain) in domains {
        let shown = if name.is_empty() { "(no domain)" } else { name };
        let next = NextCommand::of(plugin, domain, who(name, domain));
        if args.json {
            let mut object = json_of(&domain.tally, &next);
            object["domain"] = json!(name);
            object["faults"] = json!(domain.faults);
            writeln!(out, "{object}")?;
        } else {
            let mut line = format!("{shown}: {}", sentence(&domain.tally));
            if let Some(fault) = domain.faults.first() {
                let _ = write!(line, "; could not tell: {fault}");
            }
            let _ = write!(line, "; next: {}", next.command);
            writeln!(out, "{}", on_one_line(line))?;
        }
    }
    let next = next_of_total(domains, total, plugin);
    if args.json {
        let object = json_of(&total.tally, &next);
        let plugin = json!({ "state": plugin_word(plugin), "said": on_one_line(plugin) });
        writeln!(out, "{}", json!({ "total": object, "plugin": plugin }))?;
    } else {
        let line = format!("total: {}; next: {}", sentence(&total.tally), next.command);
        writeln!(out, "{}", on_one_line(line))?;
        writeln!(out, "plugin: {}", on_one_line(plugin))?;
    }
    out.flush()
}

/// What is to be done next, and how.
struct NextCommand {
    step: NextStep,
    command: String,
}

impl NextCommand {
    fn of(plugin: &Plugin, domain: &Domain, who: &str) -> Self {
        let (step, first) = next_step(plugin, &domain.tally);
        Self { step, command: step.command(who, first) }
    }
}

/// How a command names a domain, or the users who have none.
fn who<'a>(name: &'a str, domain: &'a Domain) -> &'a str {
    match domain.lines.first() {
        Some(line) if name.is_empty() => &line.user,
        _ => name,
    }
}

/// The first domain's step of those that come first.
fn next_of_total(
    domains: &BTreeMap<String, Domain>,
    total: &Domain,
    plugin: &Plugin,
) -> NextCommand {
    let each =
        domains.iter().map(|(name, domain)| NextCommand::of(plugin, domain, who(name, domain)));
    let first = each.min_by_key(|next| next.step);
    first.unwrap_or_else(|| NextCommand::of(plugin, total, ""))
}

/// What is counted, by parts of a sentence. What is 0 has no word, except for the number of
/// maildrops.
fn sentence(tally: &StatusTally) -> String {
    let counts = |counts: &[(usize, &str)]| -> String {
        let counted = counts.iter().filter(|(count, _)| *count > 0);
        counted.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    };
    let StatusTally { captured, empty, failed, messages, .. } = *tally;
    let states = counts(&[(captured, "captured"), (empty, "empty"), (failed, "failed")]);
    let mut parts = vec![format!("{} maildrops ({states}), {messages} messages", tally.maildrops)];
    let date = |seconds: u64| {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        time.map_or_else(String::new, |time| humantime::format_rfc3339_seconds(time).to_string())
    };
    parts.push(match (tally.oldest, tally.newest) {
        (Some(oldest), Some(newest)) if oldest == newest => format!("captured {}", date(oldest)),
        (Some(oldest), Some(newest)) => format!("captured {} to {}", date(oldest), date(newest)),
        _ => "captured at a time that no listing says".to_owned(),
    });
    parts.push(match (tally.final_indexes, tally.open_indexes, tally.unread_indexes) {
        (_, 0, 0) => "final".to_owned(),
        (0, _, 0) => "not final".to_owned(),
        (0, 0, _) => "final or not: unknown".to_owned(),
        (some_final, open, unread) => {
            let more = counts(&[(open, "not final"), (unread, "unknown")]);
            format!("{some_final} indexes final, {more}")
        }
    });
    parts.push(counts(&[
        (tally.held_domains, "domains held"),
        (tally.held, "held"),
        (tally.rehearsed, "of these rehearsed"),
        (tally.guarded, "guarded"),
        (tally.released, "released"),
        (tally.redownload, "redownload"),
    ]));
    parts.push(counts(&[
        (tally.listed, "listed"),
        (tally.only_rehearsed, "only rehearsed"),
        (tally.waiting, "waiting"),
        (tally.not_looked, "not looked at"),
        (tally.not_told.len(), "could not tell"),
    ]));
    parts.push(counts(&[
        (tally.baked, "baked whole"),
        (tally.unbaked.len(), "not baked"),
        (tally.bake_not_told.len(), "baked or not: could not tell"),
    ]));
    if let Some(first) = tally.ledger_alone.first() {
        parts.push(format!(
            "{} maildrops on mdbox or sdbox have {} UIDLs in the ledger alone (the first: \
             {first}): a panel's dsync, the replicator and capture doveadm without the plugin \
             lose them",
            tally.ledger_alone.len(),
            tally.ledger_alone_uidls
        ));
    }
    let named = |refused: &[(String, String)]| -> String {
        let first = refused.iter().take(MOST_NAMED);
        let first: Vec<String> = first.map(|(user, why)| format!("{user} ({why})")).collect();
        let more = refused.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        format!("{}{more}", first.join(", "))
    };
    let words = |(user, why): &(String, Refused)| (user.clone(), why.because().to_owned());
    let refused: Vec<(String, String)> = tally.refused.iter().map(words).collect();
    if !refused.is_empty() {
        parts.push(format!("{} refused: {}", refused.len(), named(&refused)));
    }
    if !tally.not_told.is_empty() {
        parts.push(format!("could not tell: {}", named(&tally.not_told)));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

fn plugin_word(plugin: &Plugin) -> &'static str {
    match plugin {
        Plugin::NotAsked => "not_asked",
        Plugin::CouldNotTell(_) => "could_not_tell",
        Plugin::Loaded => "loaded",
        Plugin::NotLoaded(_) => "not_loaded",
        Plugin::OtherSite(_) => "other_site",
    }
}

fn json_of(tally: &StatusTally, next: &NextCommand) -> Value {
    let refused: Vec<Value> = tally
        .refused
        .iter()
        .map(|(user, why)| json!({ "user": user, "why": why.because() }))
        .collect();
    let pairs = |pairs: &[(String, String)]| -> Vec<Value> {
        pairs.iter().map(|(user, why)| json!({ "user": user, "why": on_one_line(why) })).collect()
    };
    json!({
        "maildrops": tally.maildrops,
        "captured": tally.captured,
        "empty": tally.empty,
        "failed": tally.failed,
        "messages": tally.messages,
        "oldest_capture": tally.oldest,
        "newest_capture": tally.newest,
        "final": match (tally.open_indexes, tally.unread_indexes) {
            (0, 0) => Some(true),
            (0, _) => None,
            _ => Some(false),
        },
        "held": tally.held,
        "held_domains": tally.held_domains,
        "rehearsed": tally.rehearsed,
        "guarded": tally.guarded,
        "released": tally.released,
        "redownload": tally.redownload,
        "forgotten": tally.refused.iter().filter(|(_, why)| *why == Refused::Forgotten).count(),
        "listed": tally.listed,
        "only_rehearsed": tally.only_rehearsed,
        "waiting": tally.waiting,
        "not_looked_at": tally.not_looked,
        "could_not_tell": pairs(&tally.not_told),
        "baked": tally.baked,
        "not_baked": tally.unbaked,
        "bake_not_told": pairs(&tally.bake_not_told),
        "ledger_alone": tally.ledger_alone,
        "ledger_alone_uidls": tally.ledger_alone_uidls,
        "refused": refused,
        "next": { "step": next.step.word(), "command": next.command },
    })
}
