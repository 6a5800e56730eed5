//! `uidl-keep plugin`: whether the plugin fits this Dovecot, and who is kept out while none does.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use indicatif::HumanCount;
use serde_json::{Value, json};
use uidl_keep::abi::{self, Module};
use uidl_keep::doctor::Machine;
use uidl_keep::doctor::included;
use uidl_keep::dovecot::fit::{Fit, FitVerdict, Lying};
use uidl_keep::dovecot::guard::{Unguarded, auth_process, start_of_process};
use uidl_keep::dovecot::{Dovecot, DovecotError};
use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::roster::{Gate, is_domain};
use uidl_keep::site::{Scope, Site};
use uidl_keep::text::on_one_line;

use crate::accounts::DoveadmProgram;
use crate::hold::wait_for_lock;
use crate::output::{Completion, Trouble, remark, summary};
use crate::site_files;
use crate::stop::{Guard, StopFile};

/// Says whether the plugin fits this Dovecot, and keeps migrated users out while none does.
///
/// A plugin is for one ABI of Dovecot, which an upgrade of Dovecot can change.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(clap::Subcommand)]
enum PluginCommand {
    Status(PluginStatusArgs),
    Guard(GuardArgs),
}

/// Says for which Dovecot the plugin must be, which are at hand, and which POP3 loads.
///
/// Example: uidl-keep plugin status
///
/// The first line says whether POP3 loads a plugin that fits. Then come the ABI of the server, out
/// of its libdovecot.so.0; what lies in Dovecot's directory of modules, the plugin or the loader;
/// the plugins that are at hand for the loader; what POP3 loads, by doveconf; whether the guard is
/// on; and what to run. It changes nothing. Exit status 0: it fits, and POP3 loads it. 1: it does
/// not fit, or POP3 does not load it. 2: could not tell.
#[derive(clap::Args)]
pub struct PluginStatusArgs {
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    #[command(flatten)]
    doveadm: DoveadmProgram,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Lets Dovecot's auth refuse everybody who was migrated, while no plugin fits.
///
/// Example: uidl-keep plugin guard
///
/// Where no plugin fits, POP3 refuses everybody, also customers who were never migrated. With the
/// guard on, auth/stop-pop3 in the site directory names all users of the rosters who do not
/// download again. A first passdb that reads it, as for `hold --auth`, refuses them and nobody
/// else, and the loader lets all others in. The guard is on only if Dovecot's configuration and the
/// running auth prove that they are refused: nothing is changed otherwise. Each later change of the
/// site keeps the file so. The migrated are refused until --off, whether a plugin fits or not.
///
/// It is proven for the auth that runs: once that was started anew, by a reload of Dovecot for
/// example, POP3 refuses everybody until this is said again. It takes up to half a minute, until
/// nobody is left whom auth has let in before; where nothing has changed, it only asks.
///
/// Who logs in by another name than that of his roster, an alias that auth resolves say, or as a
/// master user, is not known to the file: log in once by each kind of name that you use.
///
/// Exit status 2: the guard could not be turned on, or off.
#[derive(clap::Args)]
pub struct GuardArgs {
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    #[command(flatten)]
    doveadm: DoveadmProgram,
    /// Let the plugin answer for the migrated again. Refused while POP3 loads none that fits.
    #[arg(long)]
    off: bool,
}

pub fn run(args: &PluginArgs) -> Result<Completion, Trouble> {
    match &args.command {
        PluginCommand::Status(args) => status(args),
        PluginCommand::Guard(args) if args.off => guard_off(args),
        PluginCommand::Guard(args) => guard_on(args),
    }
}

/// Whether auth keeps the migrated out.
enum GuardState {
    Off,
    On,
    /// On, but the file does not name everybody.
    NotWhole,
    /// On, but not proven for the auth that runs, for this reason.
    NotProven(String),
    /// The file cannot be read.
    CouldNotTell(String),
}

impl GuardState {
    fn of(site: &Site) -> Self {
        match StopFile::of(site) {
            Ok(Some(stop)) => match stop.guard() {
                Some(guard) => match (&guard.process, auth_process(&guard.socket)) {
                    (None, _) => Self::NotProven("it was ended on its way".to_owned()),
                    (_, Err(error)) => Self::NotProven(error.to_string()),
                    (Some(proven), Ok(running)) if *proven != running => {
                        Self::NotProven("Dovecot's auth was started anew since".to_owned())
                    }
                    _ if stop.is_whole() => Self::On,
                    _ => Self::NotWhole,
                },
                None => Self::Off,
            },
            Ok(None) => Self::Off,
            Err(trouble) => Self::CouldNotTell(trouble.to_string()),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::NotWhole => "not_whole",
            Self::NotProven(_) => "not_proven",
            Self::CouldNotTell(_) => "could_not_tell",
        }
    }
}

impl fmt::Display for GuardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On => f.write_str("on: auth refuses the migrated at POP3"),
            Self::NotWhole => f.write_str("on, and auth/stop-pop3 does not name everybody"),
            Self::NotProven(why) => {
                write!(f, "on, and the loader does not believe it: {why}; `uidl-keep plugin guard`")
            }
            Self::CouldNotTell(why) => write!(f, "could not tell: {why}"),
        }
    }
}

/// What to run where things stand so.
fn next(verdict: &FitVerdict, fit: &Fit, guard: &GuardState) -> Option<String> {
    let is_proven = matches!(guard, GuardState::On | GuardState::NotWhole);
    let is_on = is_proven || matches!(guard, GuardState::NotProven(_));
    match verdict {
        FitVerdict::Fits if is_on => Some("uidl-keep plugin guard --off".to_owned()),
        FitVerdict::Fits => None,
        FitVerdict::NotLoaded => Some(
            "name uidl_keep in mail_plugins of the last `protocol pop3`, and reload Dovecot"
                .to_owned(),
        ),
        FitVerdict::DoesNotFit(_) => {
            let server = fit.server.as_ref().map_or("this Dovecot", |abi| abi.as_str());
            let install = match (&fit.lying, fit.at_hand_for_server()) {
                (Lying::Module(_, Module::Loader), _) => format!(
                    "install the package that has the plugin for {server}, or build it from source \
                     and install it as {}",
                    fit.server.as_ref().map(abi::Abi::plugin_at_hand).unwrap_or_default().display()
                ),
                (_, Some(at_hand)) if at_hand.fault.is_none() => format!(
                    "install the package again, which puts the loader at {}",
                    fit.module_dir.join(abi::PLUGIN_FILE).display()
                ),
                _ => format!(
                    "`make plugin` and `make install` in the source, with the headers of {server}; \
                     or install the package"
                ),
            };
            let until = if is_proven { "" } else { "; until then: uidl-keep plugin guard" };
            Some(format!("{install}{until}"))
        }
        FitVerdict::CouldNotTell(_) => None,
    }
}

fn status(args: &PluginStatusArgs) -> Result<Completion, Trouble> {
    let site = Site::new(&args.site);
    let fit = args.doveadm.dovecot().fit().map_err(unasked)?;
    let (verdict, guard) = (fit.verdict(), GuardState::of(&site));
    let next = next(&verdict, &fit, &guard);
    if args.json {
        writeln!(io::stdout(), "{}", json_of(&fit, &verdict, &guard, next.as_deref()))?;
    } else {
        print(&fit, &verdict, &guard, next.as_deref())?;
    }
    match verdict {
        FitVerdict::CouldNotTell(why) => Err(Trouble::new(why)),
        _ if matches!(guard, GuardState::CouldNotTell(_)) => {
            Err(Trouble::new(format!("the guard: {guard}")))
        }
        FitVerdict::Fits => Ok(Completion::Done),
        FitVerdict::NotLoaded | FitVerdict::DoesNotFit(_) => Ok(Completion::Partial),
    }
}

fn unasked(error: DovecotError) -> Trouble {
    Trouble::new(format!("{error}; name this Dovecot's doveadm with --doveadm"))
}

fn server(fit: &Fit) -> &str {
    fit.server.as_ref().map_or("unknown", |abi| abi.as_str())
}

fn print(
    fit: &Fit,
    verdict: &FitVerdict,
    guard: &GuardState,
    next: Option<&str>,
) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    let mut line = |what: &str, said: &str| writeln!(out, "{what:<10} {}", on_one_line(said));
    let server = server(fit);
    match verdict {
        FitVerdict::Fits => line("fits", &format!("POP3 loads uidl_keep, for Dovecot {server}")),
        FitVerdict::NotLoaded => {
            line("not loaded", "the plugin fits, and POP3 does not load uidl_keep")
        }
        FitVerdict::DoesNotFit(why) => line("no fit", why),
        FitVerdict::CouldNotTell(why) => line("unknown", why),
    }?;
    let library =
        fit.library.as_ref().map_or(abi::LIBRARY.into(), |path| path.display().to_string());
    line("server", &format!("{server}, by {library}"))?;
    match &fit.lying {
        Lying::Nothing => line("module", &format!("none in {}", fit.module_dir.display())),
        Lying::Module(path, Module::Loader) => {
            line("module", &format!("the loader, {}", path.display()))
        }
        Lying::Module(path, Module::Plugin(abi)) => {
            line("module", &format!("the plugin for {abi}, {}", path.display()))
        }
        Lying::Fault(path, why) => line("module", &format!("{}: {why}", path.display())),
    }?;
    let hand: Vec<String> = fit.at_hand.iter().map(at_hand).collect();
    let hand = if hand.is_empty() { "none".to_owned() } else { hand.join(", ") };
    line("at hand", &format!("{hand}, in {}", abi::AT_HAND))?;
    let plugins = fit.mail_plugins.join(" ");
    line("pop3 loads", if plugins.is_empty() { "no plugin" } else { &plugins })?;
    line("guard", &guard.to_string())?;
    if let Some(next) = next {
        line("next", next)?;
    }
    Ok(())
}

fn at_hand(at_hand: &uidl_keep::dovecot::fit::AtHand) -> String {
    match &at_hand.fault {
        None => at_hand.abi.to_string(),
        Some(fault) => format!("{} ({fault})", at_hand.abi),
    }
}

fn json_of(fit: &Fit, verdict: &FitVerdict, guard: &GuardState, next: Option<&str>) -> Value {
    let (state, why) = match verdict {
        FitVerdict::Fits => ("fits", None),
        FitVerdict::NotLoaded => ("not_loaded", None),
        FitVerdict::DoesNotFit(why) => ("does_not_fit", Some(why)),
        FitVerdict::CouldNotTell(why) => ("could_not_tell", Some(why)),
    };
    let module = match &fit.lying {
        Lying::Nothing => Value::Null,
        Lying::Module(path, Module::Loader) => json!({ "path": path, "is": "loader" }),
        Lying::Module(path, Module::Plugin(abi)) => {
            json!({ "path": path, "is": "plugin", "abi": abi.as_str() })
        }
        Lying::Fault(path, why) => json!({ "path": path, "is": "unknown", "fault": why }),
    };
    let at_hand = fit.at_hand.iter();
    let at_hand = at_hand.map(|it| json!({ "abi": it.abi.as_str(), "fault": it.fault }));
    json!({
        "state": state,
        "why": why,
        "server": fit.server.as_ref().ok().map(abi::Abi::as_str),
        "library": fit.library,
        "module_dir": fit.module_dir,
        "module": module,
        "at_hand": at_hand.collect::<Vec<_>>(),
        "mail_plugins": fit.mail_plugins,
        "guard": guard.word(),
        "next": next,
    })
}

/// All users of the rosters who do not download again, and a domain of theirs, if they have one.
fn migrated(site: &Site) -> Result<(Vec<String>, Option<String>), Trouble> {
    let (mut users, mut domain) = (Vec::new(), None);
    for scope in site_files::scopes(site)? {
        let Some(roster) = site_files::read_roster(site, &scope)? else { continue };
        let lines = roster.lines().filter(|line| line.gate != Gate::Redownload);
        let named = lines.filter(|line| !is_everybody(&line.user) && !is_domain(&line.user));
        users.extend(named.map(|line| line.user.clone()));
        if let Scope::Domain(name) = &scope {
            domain.get_or_insert_with(|| name.clone());
        }
    }
    let of_user = users.iter().find_map(|user| user.rsplit_once('@'));
    let domain = domain.or_else(|| of_user.map(|(_, domain)| domain.to_owned()));
    Ok((users, domain))
}

fn guard_on(args: &GuardArgs) -> Result<Completion, Trouble> {
    let site = Site::new(&args.site);
    let dovecot = args.doveadm.dovecot();
    let refused = |fault: &dyn fmt::Display| Trouble::new(format!("{fault}; nothing is changed"));
    let absolute = std::path::absolute(site.dir())?;
    let path = absolute.join("auth/stop-pop3");
    if let Some(fault) = dovecot.fault_of_guard(&path).map_err(unasked)? {
        return Err(refused(&fault));
    }
    let _lock = wait_for_lock(&site)?;
    let (users, domain) = migrated(&site)?;
    if users.is_empty() {
        return Err(Trouble::at(
            site.dir().display(),
            "no roster names anybody who was migrated: there is nobody to guard",
        ));
    }
    let names = dovecot.names(&users).map_err(unasked)?;
    if let Some(fault) = dovecot.fault_of_names(&names) {
        return Err(refused(&fault));
    }
    let socket = dovecot.auth_socket().map_err(unasked)?;
    let guard = Guard::new(socket.clone(), domain.as_deref())?;
    let mut stop = StopFile::begin(&site)?;
    let named = stop.turn_on(guard, |users| prove(&dovecot, &socket, users))?;
    if dovecot.fit().is_ok_and(|fit| fit.verdict() == FitVerdict::Fits) {
        remark(
            "a plugin fits, and the migrated are refused at POP3 all the same, until `uidl-keep \
             plugin guard --off`",
        );
    }
    summary(format_args!(
        "guard: on; auth refuses {} users at POP3, by {}",
        HumanCount(named as u64),
        stop.path().display()
    ));
    Ok(Completion::Done)
}

/// The process of auth that refuses these.
fn prove(dovecot: &Dovecot, socket: &Path, users: &[&str]) -> Result<String, Trouble> {
    let before = auth_process(socket).map_err(unasked)?;
    let fault = dovecot.fault_of_refusal(users).map_err(unasked)?;
    let after = auth_process(socket).map_err(unasked)?;
    let fault = fault.map_or_else(|| fault_of_age(dovecot, &after), |fault| Ok(Some(fault)))?;
    match fault.or_else(|| (before != after).then_some(Unguarded::Restarted)) {
        Some(fault) => Err(Trouble::new(format!("{fault}; the guard is as it was"))),
        None => Ok(after),
    }
}

/// The fault, when a file of the configuration is newer than that process of auth.
fn fault_of_age(dovecot: &Dovecot, process: &str) -> Result<Option<Unguarded>, Trouble> {
    let conf = dovecot.about().map_err(unasked)?.conf;
    let at = |error: io::Error| Trouble::at(conf.display(), error);
    let started = start_of_process(process).map_err(at)?;
    let files = included::files(&Machine::at("/"), &conf).map_err(at)?;
    if files.is_empty() {
        return Err(Trouble::at(conf.display(), "no such file here; name this Dovecot's doveadm"));
    }
    for file in files {
        let metadata = file.metadata().map_err(|error| Trouble::at(file.display(), error))?;
        let since = Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec() as u32);
        if UNIX_EPOCH + since > started {
            return Ok(Some(Unguarded::Older { file }));
        }
    }
    Ok(None)
}

fn guard_off(args: &GuardArgs) -> Result<Completion, Trouble> {
    let site = Site::new(&args.site);
    let fit = args.doveadm.dovecot().fit().map_err(unasked)?;
    let why = match fit.verdict() {
        FitVerdict::Fits => None,
        FitVerdict::NotLoaded => Some("POP3 does not load uidl_keep".to_owned()),
        FitVerdict::DoesNotFit(why) | FitVerdict::CouldNotTell(why) => Some(why),
    };
    if let Some(why) = why {
        return Err(Trouble::new(format!(
            "{why}; the guard stays as it is: without a plugin that fits, the migrated would be \
             served as if they were not; run: uidl-keep plugin status"
        )));
    }
    let _lock = wait_for_lock(&site)?;
    match StopFile::of(&site)? {
        Some(mut stop) if stop.guard().is_some() => {
            stop.turn_off()?;
            summary("guard: off; the plugin answers for the migrated");
        }
        // Somebody may have written into it, or a roster was put in place by hand.
        Some(mut stop) => {
            stop.refresh()?;
            summary("guard: it was off");
        }
        None => summary("guard: it was off"),
    }
    Ok(Completion::Done)
}
