//! `uidl-keep bake`: Dovecot alone tells the kept UIDLs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use uidl_keep::bake::into::Copier;
use uidl_keep::bake::{
    self, BakeOutcome, BakePlace, BakeRun, BakedMaildrop, Unbaked, UndoneRecord,
};
use uidl_keep::capture::find::doveconf;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::workers::{self, AsTheyCome};
use uidl_keep::dovecot::{Dovecot, DovecotError, InboxPath};
use uidl_keep::file::safe_open;
use uidl_keep::forecast::{ControlPlace, MailPlace, Terms};
use uidl_keep::format::UidlFormat;
use uidl_keep::site::roster::Gate;
use uidl_keep::site::{Site, SiteSettings};
use uidl_keep::text::on_one_line;

use crate::background;
use crate::capture::progress::Progress;
use crate::effect::DryRunArgs;
use crate::interrupt::Interrupt;
use crate::names::{NamesArgs, SelectedNames, users_on_rosters};
use crate::output::{Completion, Trouble, remark, summary};
use crate::places::{AskedPlaces, PlaceArgs, Places};

/// Writes the kept UIDLs where Dovecot keeps such things, so that it needs no plugin.
///
///   uidl-keep bake --all --undo-file /root/bake.undo
///
/// Finds out what the plugin would tell at the next POP3 login of each user on the rosters whose
/// mail is a Maildir, and writes that into dovecot-uidlist: a UIDL (P) and a place (O) for every
/// message, new ones too, and a next UID that no client can hold. Dovecot may run, and clients may
/// be logged in. Dovecot is asked where each list lies; with --maildir it is not. Who is baked
/// already is passed over, so that an interrupted run goes on where it was. Prints a line for each
/// maildrop that is written; stderr names those that cannot be:
///
/// "baked USER: N messages (K kept, D with a UIDL of ours)"; with --dry-run, "would bake".
///
/// A bake is for good: the index must be final. To take one back, hold the users and run
///
///   uidl-keep bake --undo /root/bake.undo
///
/// which restores what was there before, of each message that is still as it was baked. For mdbox
/// and sdbox, Dovecot copies a mailbox that was listed already to another place, with the plugin
/// loaded for that command alone, and the copy is compared with the mailbox:
///
///   uidl-keep bake --into mdbox:~/mdbox alice@example.com
///
/// Exit status 0: all is baked. 1: all but the maildrops that stderr names, or the run was stopped.
/// 2: trouble.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
pub struct BakeArgs {
    /// Only these users or domains.
    #[arg(value_name = "USER|DOMAIN", conflicts_with = "undo")]
    users: Vec<String>,
    /// Everybody on the rosters.
    #[arg(long, conflicts_with_all = ["users", "undo"])]
    all: bool,
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
    /// How many maildrops to bake at a time.
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZeroUsize,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// Note in this file what is changed, before it is; it goes on after what is there.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["undo", "into"])]
    undo_file: Option<PathBuf>,
    /// Take back what this file says.
    #[arg(long, value_name = "FILE", conflicts_with = "maildir")]
    undo: Option<PathBuf>,
    /// Stop after the maildrops at hand when this file is there.
    #[arg(long, value_name = "FILE")]
    stop_file: Option<PathBuf>,
    /// Have Dovecot copy each mailbox to this place, such as mdbox:~/mdbox, and compare.
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["maildir", "undo"])]
    into: Option<String>,
}

pub fn run(args: &BakeArgs) -> Result<Completion, Trouble> {
    background::let_others_go_first();
    if let Some(file) = &args.undo {
        return undo(args, file);
    }
    let wanted = args.names.selected(&args.users)?;
    if !args.all && wanted.is_all() {
        return Err(Trouble::new(
            "name users or domains, or say --all for everybody on the rosters",
        ));
    }
    let site = Site::new(&args.site);
    let users: Vec<String> = users_on_rosters(&site, &wanted)?.into_iter().collect();
    if users.is_empty() {
        return Err(Trouble::at(
            args.site.display(),
            "nobody who is asked for is on a roster; is that the site, and are these the names \
             that Dovecot has for its users?",
        ));
    }
    let dovecot = args.place.dovecot();
    let done = match &args.into {
        Some(location) => copy_all(args, &site, &dovecot, &users, location)?,
        None => bake_all(args, &wanted, site, &dovecot, &users)?,
    };
    let unmet = wanted.unmet(users.iter().map(String::as_str));
    for name in &unmet {
        remark(format_args!("{name}: nobody of that name is on a roster"));
    }
    Ok(if unmet.is_empty() { done } else { Completion::Partial })
}

// --- Maildirs

/// What became of all maildrops.
#[derive(Default)]
struct BakeTotal {
    written: usize,
    already: usize,
    redownload: usize,
    failed: usize,
    messages: usize,
    kept: usize,
}

fn bake_all(
    args: &BakeArgs,
    wanted: &SelectedNames,
    site: Site,
    dovecot: &Dovecot,
    users: &[String],
) -> Result<Completion, Trouble> {
    let native = format(args, dovecot)?;
    if !(native.has_uidvalidity() || native.has_guid() || native.has_file_name()) {
        remark(
            "pop3_uidl_format has no UIDVALIDITY: where dovecot-uidlist is lost, new mail gets \
             UIDLs that clients hold for other mail; %08Xu%08Xv has one",
        );
    }
    let keys = args.keys.map(Keys::into);
    let terms = Terms::of(site, Some(native), keys).map_err(Trouble::new)?;
    let places = match args.place.maildir.is_empty() {
        true => Places::Asked(AskedPlaces::of(dovecot, users, &DIRECTORIES)?),
        false => Places::Found(args.place.search(wanted)?),
    };
    let is_dry = args.dry_run.is_dry();
    let undo_file = args.undo_file.as_deref().filter(|_| !is_dry);
    let undo_file = undo_file.map(UndoFile::open).transpose()?;
    let note = |record: &UndoneRecord| undo_file.as_ref().map_or(Ok(()), |file| file.note(record));
    let run = BakeRun { terms: &terms, is_dry, note: &note };
    let bake_one = |at: usize| {
        let place = place_of(&places, &users[at]).map_err(Unbaked::CouldNotTell)?;
        bake_opened(&run, &users[at], &place, opener(&places).filter(|_| !is_dry))
    };

    let progress = Progress::new(users.len(), users.len() < 2, true);
    let mut total = BakeTotal::default();
    let interrupt = Interrupt::new(args.stop_file.clone())?;
    let queue = AsTheyCome::until(users.len(), || interrupt.is_asked());
    let jobs = args.jobs.get().min(users.len());
    let would = if is_dry { "would bake" } else { "baked" };
    let mut done = 0;
    workers::run(
        queue,
        jobs,
        || progress.tick(),
        bake_one,
        |(at, baked)| {
            let user = on_one_line(&users[at]);
            let mut has_failed = false;
            done += 1;
            match baked {
                Ok(baked) => total.add(&user, &baked, would)?,
                Err(Unbaked::Redownload) => total.redownload += 1,
                Err(why) => {
                    has_failed = true;
                    total.failed += 1;
                    remark(format_args!("{user}: not baked: {why}"));
                }
            }
            progress.count_maildrop(has_failed);
            Ok::<_, Trouble>(())
        },
    )?;
    progress.finish();
    let left = users.len() - done;
    summary(total.sentence(is_dry, left));
    let is_whole = total.failed == 0 && left == 0 && places.are_all_searched();
    Ok(if is_whole { Completion::Done } else { Completion::Partial })
}

/// Bakes a maildrop, once Dovecot has opened it where only Dovecot can say which UIDs there are.
fn bake_opened(
    run: &BakeRun<'_>,
    user: &str,
    place: &BakePlace,
    opener: Option<&Dovecot>,
) -> Result<BakedMaildrop, Unbaked> {
    match (bake::bake(run, user, place), opener) {
        (Err(Unbaked::NeedsDovecot { .. }), Some(dovecot)) => {
            // It gives each message a UID by that.
            let opened = dovecot.inbox_epoch(user);
            opened.map_err(|error| Unbaked::CouldNotTell(error.to_string()))?;
            bake::bake(run, user, place)
        }
        (baked, _) => baked,
    }
}

impl BakeTotal {
    fn add(&mut self, user: &str, baked: &BakedMaildrop, would: &str) -> Result<(), Trouble> {
        let BakedMaildrop { messages, kept, derived, .. } = *baked;
        self.messages += messages;
        self.kept += kept;
        if baked.outcome == BakeOutcome::Already {
            self.already += 1;
            return Ok(());
        }
        self.written += 1;
        let mut out = io::stdout().lock();
        let ours = match derived {
            0 => String::new(),
            derived => format!(", {derived} with a UIDL of ours"),
        };
        writeln!(out, "{would} {user}: {messages} messages ({kept} kept{ours})")?;
        Ok(())
    }

    fn sentence(&self, is_dry: bool, left: usize) -> String {
        let Self { written, already, redownload, failed, .. } = self;
        let verb = if is_dry { "would be baked" } else { "baked" };
        let mut said = format!("{written} maildrops {verb}, {already} were baked before");
        for (count, what) in
            [(redownload, "set to redownload"), (failed, "not baked"), (&left, "left: stopped")]
        {
            if *count > 0 {
                said += &format!(", {count} {what}");
            }
        }
        said
    }
}

/// What a bake asks Dovecot for.
const DIRECTORIES: [InboxPath; 3] = [InboxPath::Mailbox, InboxPath::Control, InboxPath::Index];

/// The Dovecot that may be asked to open a mailbox: only one that was asked where they are.
fn opener(places: &Places) -> Option<&Dovecot> {
    match places {
        Places::Found(_) => None,
        Places::Asked(asked) => Some(&asked.dovecot),
    }
}

/// The Maildir of a user, or why nobody knows which it is.
fn place_of(places: &Places, user: &str) -> Result<BakePlace, String> {
    let found = match places {
        Places::Found(found) => found,
        Places::Asked(asked) => {
            let [mailbox, control, index] = DIRECTORIES.map(|directory| {
                let path = asked.path(user, directory).map_err(|why| why.to_string())?;
                match path.is_absolute() {
                    true => Ok(Source::named(user, path)),
                    false => Err(format!("it has no directory: {}", path.display())),
                }
            });
            return Ok(BakePlace {
                mailbox: mailbox?,
                control: Some(control?),
                index: Some(index?),
            });
        }
    };
    match found.place(user) {
        MailPlace::Maildir { mail, control } => {
            let control = match control {
                ControlPlace::Beside => None,
                ControlPlace::At(control) => Some(control.clone()),
                ControlPlace::Nowhere => {
                    return Err("no control directory of this user is here yet".to_owned());
                }
            };
            Ok(BakePlace { mailbox: mail.clone(), control, index: None })
        }
        MailPlace::Unknown(why) => Err(why.to_owned()),
        _ => Err("no Maildir of this user is here yet".to_owned()),
    }
}

/// The `pop3_uidl_format` of this server. What is baked goes by it for good.
fn format(args: &BakeArgs, dovecot: &Dovecot) -> Result<UidlFormat, Trouble> {
    let asked = dovecot.pop3_setting("pop3_reuse_xuidl");
    if args.place.maildir.is_empty() && asked.as_ref().is_ok_and(|said| said == "yes") {
        return Err(Trouble::new(
            "pop3_reuse_xuidl is on, so that POP3 tells what X-UIDL headers say and not what is \
             baked: turn it off",
        ));
    }
    let said = match &args.format {
        Some(format) => format.clone(),
        None => dovecot.pop3_setting("pop3_uidl_format").map_err(|error| {
            Trouble::new(format!(
                "{error}; say --format what `doveconf -f protocol=pop3 pop3_uidl_format` prints on \
                 this server"
            ))
        })?,
    };
    doveconf::parse(&said).map_err(|error| Trouble::at("--format", error))
}

/// The file that says what was changed.
struct UndoFile {
    file: File,
    path: PathBuf,
}

impl UndoFile {
    fn open(path: &Path) -> Result<Self, Trouble> {
        let mut options: OpenOptions = safe_open::options();
        std::os::unix::fs::OpenOptionsExt::mode(options.append(true).create(true), 0o600);
        let file = options.open(path).map_err(|error| Trouble::at(path.display(), error))?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Trouble::at(path.display(), "not a file"));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Adds a line, and waits until it is on the disk.
    fn note(&self, record: &UndoneRecord) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let written = (&self.file).write_all(record.line().as_bytes());
        written.and_then(|()| self.file.sync_data()).map_err(|error| {
            // Half a line would spoil the next one.
            let _ = self.file.set_len(before);
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        })
    }
}

// --- the way back

fn undo(args: &BakeArgs, path: &Path) -> Result<Completion, Trouble> {
    let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
    let text = fs::read_to_string(path).map_err(|error| at(&error))?;
    let mut records = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let record = UndoneRecord::parse(line);
        records.push(record.map_err(|error| at(&format_args!("line {number}: {error}")))?);
    }
    let wanted = args.names.selected(&[])?;
    let (interrupt, is_dry) = (Interrupt::new(args.stop_file.clone())?, args.dry_run.is_dry());
    records.retain(|record| wanted.has(&record.user));
    let settings = SiteSettings::default();
    let terms = Terms { site: Site::new(&args.site), native: None, settings, keys: None };
    let (mut lists, mut failed, mut left) = (0, 0, 0);
    // What was baked last is taken back first.
    for record in records.iter().rev() {
        let user = on_one_line(&record.user);
        if interrupt.is_asked() {
            left += 1;
            continue;
        }
        let undone = match may_be_undone(&terms, &record.user) {
            Ok(()) => bake::undo(record, is_dry).map_err(|why| why.to_string()),
            Err(why) => Err(why),
        };
        match undone {
            Ok(undone) => {
                lists += 1;
                let would = if is_dry { "would take back" } else { "took back" };
                let mut out = io::stdout().lock();
                writeln!(out, "{would} {user}: {} messages, {} gone", undone.back, undone.gone)?;
                if undone.changed > 0 {
                    failed += 1;
                    remark(format_args!(
                        "{user}: {} messages have got another UIDL or place since, and keep it",
                        undone.changed
                    ));
                }
            }
            Err(why) => {
                failed += 1;
                remark(format_args!("{user}: not taken back: {why}"));
            }
        }
    }
    let verb = if is_dry { "would be taken back" } else { "taken back" };
    summary(format_args!("{lists} bakes {verb}, {failed} not or not wholly, {left} left"));
    let is_whole = failed == 0 && left == 0;
    Ok(if is_whole { Completion::Done } else { Completion::Partial })
}

/// Without what was baked, Dovecot tells its own UIDLs, which clients may hold for other messages.
fn may_be_undone(terms: &Terms, user: &str) -> Result<(), String> {
    let line = terms.roster_line(user)?.filter(|line| line.user == user);
    match line.map(|line| line.gate) {
        Some(Gate::Held | Gate::Redownload) => Ok(()),
        Some(Gate::Guarded | Gate::Released) => Err(
            "the user is served, and Dovecot would tell him UIDLs that his clients hold for other \
             messages: `uidl-keep hold` him first"
                .to_owned(),
        ),
        None => Err("he is on no roster any more".to_owned()),
    }
}

// --- other stores

fn copy_all(
    args: &BakeArgs,
    site: &Site,
    dovecot: &Dovecot,
    users: &[String],
    location: &str,
) -> Result<Completion, Trouble> {
    let trouble = |error: DovecotError| Trouble::new(error.to_string());
    let settings = site.settings().map_err(Trouble::new)?;
    let copier = Copier::new(dovecot, location).map_err(trouble)?;
    let (interrupt, is_dry) = (Interrupt::new(args.stop_file.clone())?, args.dry_run.is_dry());
    let (mut copied, mut failed, mut left) = (0, 0, 0);
    let would = if is_dry { "would copy" } else { "copied" };
    for user in users {
        let shown = on_one_line(user);
        if interrupt.is_asked() {
            left += 1;
            continue;
        }
        match copier.copy(user, settings.of(user).order, is_dry) {
            Ok(messages) => {
                copied += 1;
                writeln!(io::stdout().lock(), "{would} {shown}: {messages} messages")?;
            }
            Err(why) => {
                failed += 1;
                remark(format_args!("{shown}: not copied: {why}"));
            }
        }
    }
    let would = if is_dry { "would be copied" } else { "copied" };
    summary(format_args!("{copied} mailboxes {would} to {location}, {failed} not, {left} left"));
    Ok(if failed == 0 && left == 0 { Completion::Done } else { Completion::Partial })
}
