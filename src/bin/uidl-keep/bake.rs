//! `uidl-keep bake`: Dovecot alone tells the kept UIDLs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use uidl_keep::bake::into::Copier;
use uidl_keep::bake::{
    self, BakeOutcome, BakePlace, BakeRun, BakedMaildrop, Unbaked, UndoneRecord,
};
use uidl_keep::capture::find::doveconf;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::workers::{self, Next, Schedule};
use uidl_keep::dovecot::{Dovecot, InboxPath};
use uidl_keep::file::safe_open;
use uidl_keep::forecast::Terms;
use uidl_keep::format::UidlFormat;
use uidl_keep::resolve::Match;
use uidl_keep::site::Site;
use uidl_keep::site::roster::Gate;
use uidl_keep::text::on_one_line;

use crate::background;
use crate::capture::progress::Progress;
use crate::output::{Completion, Trouble, remark};
use crate::who::{self, MaildropsArgs, Wanted};

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
    /// Where the Maildirs lie, such as '/srv/vmail/{domain}/{local}/Maildir'; may be repeated.
    /// [default: Dovecot is asked].
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["into", "undo"])]
    maildir: Vec<Pattern>,
    /// Where dovecot-uidlist lies, if not in the Maildir, such as '/srv/control/{domain}/{local}'.
    #[arg(long, value_name = "PATTERN", requires = "maildir")]
    control: Vec<Pattern>,
    #[command(flatten)]
    who: MaildropsArgs,
    /// The pop3_uidl_format of this server [default: what doveconf says].
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The keys that may match, as in uidl_keep_match.
    #[arg(long = "match", value_name = "KEYS", default_value = "file,message,header")]
    keys: Keys,
    /// How many maildrops to bake at a time.
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZeroUsize,
    /// Write nothing, and say what would be written.
    #[arg(long)]
    dry_run: bool,
    /// Note in this file what is changed, before it is; it goes on after what is there.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["undo", "into"])]
    undo_file: Option<PathBuf>,
    /// Take back what this file says.
    #[arg(long, value_name = "FILE")]
    undo: Option<PathBuf>,
    /// Stop after the maildrops at hand when this file is there.
    #[arg(long, value_name = "FILE")]
    stop_file: Option<PathBuf>,
    /// Have Dovecot copy each mailbox to this place, such as mdbox:~/mdbox, and compare.
    #[arg(long, value_name = "LOCATION", conflicts_with = "undo")]
    into: Option<String>,
    /// The doveadm program of the Dovecot that serves the mail.
    #[arg(long, value_name = "PATH", default_value = "doveadm")]
    doveadm: PathBuf,
    /// Arguments for doveadm, separated by blanks: `-c /etc/dovecot/other.conf`.
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    doveadm_args: String,
}

pub fn run(args: &BakeArgs) -> Result<Completion, Trouble> {
    background::let_others_go_first();
    if let Some(file) = &args.undo {
        return undo(args, file);
    }
    let who = MaildropsArgs {
        user_template: args.who.user_template.clone(),
        only: args.who.only.iter().chain(&args.users).cloned().collect(),
        domains: args.who.domains.clone(),
    };
    if !args.all && who.only.is_empty() && who.domains.is_none() {
        return Err(Trouble::new(
            "name users or domains, or say --all for everybody on the rosters",
        ));
    }
    let wanted = Wanted::of(&who)?;
    let site = Site::new(&args.site);
    let users: Vec<String> = who::users_on_rosters(&site, &wanted)?.into_iter().collect();
    if users.is_empty() {
        return Err(Trouble::at(
            args.site.display(),
            "nobody who is asked for is on a roster; is that the site, and are these the names \
             that Dovecot has for its users?",
        ));
    }
    let dovecot =
        Dovecot::new(&args.doveadm, args.doveadm_args.split_whitespace().map(str::to_owned));
    let done = match &args.into {
        Some(location) => copy_all(args, &dovecot, &users, location)?,
        None => bake_all(args, &who, &wanted, site, &dovecot, &users)?,
    };
    let unmet = wanted.unmet(users.iter().map(String::as_str));
    for name in &unmet {
        remark(format_args!("{name}: nobody of that name is on a roster"));
    }
    Ok(if unmet.is_empty() { done } else { Completion::Partial })
}

// --- Maildirs

/// Where the mail of each user lies, or why nobody knows.
type BakePlaces = BTreeMap<String, Result<BakePlace, String>>;

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
    who: &MaildropsArgs,
    wanted: &Wanted,
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
    let Keys { file, message, header, origin } = args.keys;
    let terms = Terms { site, native: Some(native), keys: Match { file, message, header, origin } };
    let (places, are_all_searched) = match args.maildir.is_empty() {
        true => (places_of_dovecot(dovecot, users)?, true),
        false => places_of_patterns(args, who, wanted, users)?,
    };
    let undo_file = args.undo_file.as_deref().filter(|_| !args.dry_run);
    let undo_file = undo_file.map(UndoFile::open).transpose()?;
    let note = |record: &UndoneRecord| undo_file.as_ref().map_or(Ok(()), |file| file.note(record));
    let run = BakeRun { terms: &terms, is_dry: args.dry_run, note: &note };
    // Only a Dovecot that was asked where the lists are is asked to open a mailbox.
    let opener = Some(dovecot).filter(|_| args.maildir.is_empty() && !args.dry_run);
    let bake_one = |at: usize| match &places[&users[at]] {
        Ok(place) => bake_opened(&run, &users[at], place, opener),
        Err(why) => Err(Unbaked::CouldNotTell(why.clone())),
    };

    let progress = Progress::new(users.len(), users.len() < 2, true);
    let mut total = BakeTotal::default();
    let queue = BakeQueue::new(users.len(), args.stop_file.as_deref());
    let jobs = args.jobs.get().min(users.len());
    let (would, is_dry) = (if args.dry_run { "would bake" } else { "baked" }, args.dry_run);
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
    remark(total.sentence(is_dry, left));
    let is_whole = total.failed == 0 && left == 0 && are_all_searched;
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
            let opened = dovecot.open_inbox(user);
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

/// The maildrops of users, by where Dovecot has them.
fn places_of_dovecot(dovecot: &Dovecot, users: &[String]) -> Result<BakePlaces, Trouble> {
    let ask = |path| {
        dovecot.inbox_paths(users, path).map_err(|error| {
            Trouble::new(format!(
                "{error}; name the Dovecot of this mail with --doveadm and --doveadm-args, or say \
                 --maildir"
            ))
        })
    };
    let mailboxes = ask(InboxPath::Mailbox)?;
    let (controls, indexes) = (ask(InboxPath::Control)?, ask(InboxPath::Index)?);
    let place = |user: &String| {
        let mailbox = mailboxes.get(user).filter(|path| path.is_absolute());
        let mailbox = mailbox.ok_or_else(|| {
            "Dovecot does not know this user, or cannot open his mail: `doveadm mailbox path` says \
             why"
            .to_owned()
        })?;
        let other = |paths: &BTreeMap<String, PathBuf>| {
            let path = paths.get(user).filter(|path| path.is_absolute() && *path != mailbox);
            path.map(|path| Source::named(user.clone(), path.clone()))
        };
        let mailbox = Source::named(user.clone(), mailbox.clone());
        Ok(BakePlace { mailbox, control: other(&controls), index: other(&indexes) })
    };
    Ok(users.iter().map(|user| (user.clone(), place(user))).collect())
}

/// The maildrops of users, by patterns, and whether every pattern was searched.
fn places_of_patterns(
    args: &BakeArgs,
    who: &MaildropsArgs,
    wanted: &Wanted,
    users: &[String],
) -> Result<(BakePlaces, bool), Trouble> {
    let found = who::find_maildrops(&args.maildir, "--maildir", who, wanted)?;
    let controls = match args.control.is_empty() {
        true => None,
        false => Some(who::find_maildrops(&args.control, "--control", who, wanted)?),
    };
    let of = |places: &who::Places, user: &String, what: &str| {
        let gap = places.gaps.iter().find(|gap| who::may_be_of(gap, user));
        let why = gap.and_then(|gap| gap.fault().map(str::to_owned));
        let absent = || why.unwrap_or_else(|| format!("no {what} of this user is here yet"));
        places.sources.get(user).cloned().ok_or_else(absent)
    };
    let place = |user: &String| {
        let mailbox = of(&found, user, "Maildir")?;
        let control = controls.as_ref().map(|it| of(it, user, "control directory")).transpose()?;
        Ok(BakePlace { mailbox, control, index: None })
    };
    let are_all_searched =
        found.are_all_searched && controls.as_ref().is_none_or(|it| it.are_all_searched);
    let places = users.iter().map(|user| (user.clone(), place(user))).collect();
    Ok((places, are_all_searched))
}

/// The `pop3_uidl_format` of this server. What is baked goes by it for good.
fn format(args: &BakeArgs, dovecot: &Dovecot) -> Result<UidlFormat, Trouble> {
    let asked = dovecot.pop3_setting("pop3_reuse_xuidl");
    if args.maildir.is_empty() && asked.as_ref().is_ok_and(|said| said == "yes") {
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

/// All users, until the stop file is there.
struct BakeQueue {
    len: usize,
    taken: usize,
    stop_file: Option<PathBuf>,
    is_stopped: bool,
    done: Vec<(usize, Result<BakedMaildrop, Unbaked>)>,
}

impl BakeQueue {
    fn new(len: usize, stop_file: Option<&Path>) -> Self {
        let stop_file = stop_file.map(Path::to_owned);
        Self { len, taken: 0, stop_file, is_stopped: false, done: Vec::new() }
    }
}

impl Schedule for BakeQueue {
    type Done = Result<BakedMaildrop, Unbaked>;
    type Finished = (usize, Result<BakedMaildrop, Unbaked>);

    fn is_over(&self) -> bool {
        self.is_stopped || self.taken == self.len
    }

    fn next(&mut self, now: Instant) -> Next {
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
        self.is_stopped = self.is_stopped || self.stop_file.as_ref().is_some_and(is_there);
        if self.is_over() {
            // The thread looks again at once, and ends.
            return Next::Wait(Some(now));
        }
        self.taken += 1;
        Next::Go(self.taken - 1)
    }

    fn settle(&mut self, at: usize, done: Self::Done, _now: Instant) {
        self.done.push((at, done));
    }

    fn finished(&mut self) -> Option<Self::Finished> {
        self.done.pop()
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
    let wanted = Wanted::of(&args.who)?;
    records.retain(|record| wanted.has(&record.user));
    let terms = Terms { site: Site::new(&args.site), native: None, keys: Match::default() };
    let (mut lists, mut failed, mut left) = (0, 0, 0);
    // What was baked last is taken back first.
    for record in records.iter().rev() {
        let user = on_one_line(&record.user);
        if args.stop_file.as_ref().is_some_and(|path| path.symlink_metadata().is_ok()) {
            left += 1;
            continue;
        }
        let undone = match may_be_undone(&terms, &record.user) {
            Ok(()) => bake::undo(record, args.dry_run).map_err(|why| why.to_string()),
            Err(why) => Err(why),
        };
        match undone {
            Ok(undone) => {
                lists += 1;
                let would = if args.dry_run { "would take back" } else { "took back" };
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
    let verb = if args.dry_run { "would be taken back" } else { "taken back" };
    remark(format_args!("{lists} bakes {verb}, {failed} not or not wholly, {left} left"));
    let is_whole = failed == 0 && left == 0;
    Ok(if is_whole { Completion::Done } else { Completion::Partial })
}

/// Without what was baked, Dovecot tells its own UIDLs, which clients may hold for other messages.
fn may_be_undone(terms: &Terms, user: &str) -> Result<(), String> {
    match terms.gate(user)? {
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
    dovecot: &Dovecot,
    users: &[String],
    location: &str,
) -> Result<Completion, Trouble> {
    let copier = Copier::new(dovecot).map_err(|error| Trouble::new(error.to_string()))?;
    let (mut copied, mut failed, mut left) = (0, 0, 0);
    let would = if args.dry_run { "would copy" } else { "copied" };
    for user in users {
        let shown = on_one_line(user);
        if args.stop_file.as_ref().is_some_and(|path| path.symlink_metadata().is_ok()) {
            left += 1;
            continue;
        }
        match copier.copy(user, location, args.dry_run) {
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
    remark(format_args!("{copied} mailboxes {would} to {location}, {failed} not, {left} left"));
    Ok(if failed == 0 && left == 0 { Completion::Done } else { Completion::Partial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_file_ends_the_work_after_what_is_at_hand() {
        let dir = tempfile::tempdir().unwrap();
        let stop = dir.path().join("stop");
        let mut queue = BakeQueue::new(3, Some(&stop));
        assert_eq!(queue.next(Instant::now()), Next::Go(0));
        fs::write(&stop, "").unwrap();
        let now = Instant::now();
        assert_eq!(queue.next(now), Next::Wait(Some(now)));
        assert!(queue.is_over());
    }
}
