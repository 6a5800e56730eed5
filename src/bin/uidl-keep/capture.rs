//! `uidl-keep capture`: what an old server's POP3 clients know, as a listing.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use uidl_keep::capture::layout::{self, Naming, Panel, Pattern, Source};
use uidl_keep::capture::{self, Captured, Keys, Server, printable};
use uidl_keep::format::UidlFormat;
use uidl_keep::index::publish::{Access, Sealed, Staged};
use uidl_keep::listing;
use uidl_keep::maildrop::State;

use crate::output::{Outcome, Trouble, remark};

/// Writes a listing of what an old server's POP3 clients know; changes nothing there.
///
///   uidl-keep capture courier --user alice@example.com Maildir > alice.listing
///
/// One subcommand a kind of server: take the one that answers POP3, whatever else lies in the
/// Maildirs. For a whole server say --layout or --pattern in place of --user and a path.
///
/// Exit status 0: all is captured. 1: some maildrop failed, or something of it was lost; stderr and
/// the listing say which and why. 2: there is no listing.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(clap::Subcommand)]
enum From {
    /// Captures Courier's POP3 by its courierpop3dsizelist, of any version.
    ///
    ///   uidl-keep capture courier --layout plesk -o plesk.listing
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Courier(What),
    /// Captures Dovecot's POP3 on Maildirs by dovecot-uidlist and pop3_uidl_format.
    ///
    ///   uidl-keep capture dovecot --format auto --layout cpanel -o cpanel.listing
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Dovecot {
        /// The old server's pop3_uidl_format, as `doveconf -f protocol=pop3 -h pop3_uidl_format`
        /// prints it there: '%08Xu%08Xv' or '%{uid | hex(8)}%{uidvalidity | hex(8)}'. "auto" asks
        /// doveconf here: only right on the old server itself.
        #[arg(long, value_name = "FORMAT", alias = "uidl-format")]
        format: Option<String>,
        #[command(flatten)]
        what: What,
    },
    /// Captures qmail-pop3d by base file name, in the order of modification times.
    ///
    ///   uidl-keep capture qmail --root /mnt/old --layout vpopmail -o vpopmail.listing
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Qmail(What),
}

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("where").args(["path", "layout", "pattern"]).required(true)))]
struct What {
    /// One Maildir, of --user.
    #[arg(requires = "user")]
    path: Option<PathBuf>,
    /// The user name of that Maildir on the new server.
    #[arg(long, requires = "path")]
    user: Option<String>,
    /// Every Maildir of this kind of server.
    #[arg(long, value_enum)]
    layout: Option<Layout>,
    /// Every Maildir that fits, such as '/srv/vmail/{domain}/{local}/Maildir'; may be repeated. A name
    /// of * stands for any, of ? for any of one character.
    #[arg(long, value_name = "PATTERN")]
    pattern: Vec<Pattern>,
    /// Look for them in the copy of a server below this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    root: Option<PathBuf>,
    /// User names on the new server, by the variables of the pattern [default: {local}@{domain}, or
    /// {local}, {user} or {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "path")]
    user_template: Option<String>,
    /// Users whose name changes: a file with an old and a new name on each line.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    rename: Option<PathBuf>,
    /// Only this user or domain, as on the new server; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN", conflicts_with = "path")]
    only: Vec<String>,
    /// What to recognise messages by: file, header, message, origin. With header, a message is read
    /// up to the end of its header, and whole where its header repeats within the maildrop.
    #[arg(long, value_name = "KEYS", default_value = "file,header")]
    keys: Keys,
    /// How many maildrops to read at a time [default: one a processor].
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Write the listing there, as a whole or not at all, in place of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Layout {
    /// /var/qmail/mailnames/DOMAIN/USER/Maildir
    Plesk,
    /// /home/ACCOUNT/mail/DOMAIN/USER, and /home/ACCOUNT/mail of the account itself
    Cpanel,
    /// ~vpopmail/domains/DOMAIN/USER/Maildir, hash directories included
    Vpopmail,
}

impl Layout {
    fn panel(self) -> Panel {
        match self {
            Self::Plesk => Panel::Plesk,
            Self::Cpanel => Panel::Cpanel,
            Self::Vpopmail => Panel::Vpopmail,
        }
    }
}

/// Captures, and writes the listing.
pub fn run(args: &Args) -> Result<Outcome, Trouble> {
    let (server, what) = match &args.from {
        From::Courier(what) => (Server::Courier, what),
        From::Qmail(what) => (Server::Qmail, what),
        From::Dovecot { format, what } => {
            let format = dovecot_format(format.as_deref(), what.root.is_some())?;
            (Server::Dovecot { format }, what)
        }
    };
    let (sources, mut all_well) = sources(what)?;
    let jobs = what.jobs.map_or_else(
        || thread::available_parallelism().map_or(1, NonZeroUsize::get),
        NonZeroUsize::get,
    );
    let mut output = Output::open(what.output.as_deref())?;
    let progress = Progress::new(sources.len(), what.path.is_some(), what.output.is_some());
    all_well &= in_order(&server, what.keys, &sources, jobs, &progress, &mut output)?;
    output.publish()?;
    progress.finish();
    Ok(if all_well { Outcome::Done } else { Outcome::Short })
}

/// The maildrops that are asked for, and whether those are all.
fn sources(what: &What) -> Result<(Vec<Source>, bool), Trouble> {
    if let (Some(path), Some(user)) = (&what.path, &what.user) {
        // The listing is kept and read elsewhere: a relative path would say nothing there.
        let place = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let source = Source::named(user, place);
        if user.is_empty() {
            return Err(Trouble::new("--user is empty; give the user name on the new server"));
        }
        // A mistyped path is not a maildrop that failed.
        source.open().map_err(|error| Trouble::new(error.to_string()))?;
        return Ok((vec![source], true));
    }
    let patterns = match what.layout {
        Some(layout) => layout.panel().patterns(what.root.as_deref()),
        None => what.pattern.clone(),
    };
    let mut naming = Naming::new(what.user_template.as_deref())
        .map_err(|error| Trouble::at("--user-template", error))?;
    if let Some(path) = &what.rename {
        read_renames(path, &mut naming)?;
    }
    let found = layout::find(&patterns, what.root.as_deref(), &naming)
        .map_err(|error| Trouble::new(error.to_string()))?;
    let mut all_well = found.losses.is_empty();
    found.losses.iter().for_each(remark);
    let mut sources = found.sources;
    if !what.only.is_empty() {
        let only: HashSet<&str> = what.only.iter().map(String::as_str).collect();
        let mut met = HashSet::new();
        sources.retain(|source| {
            let domain = source.user().rsplit_once('@').map(|(_, domain)| domain);
            let by = only.get(source.user()).or_else(|| only.get(domain?));
            by.is_some_and(|by| {
                met.insert(*by);
                true
            })
        });
        for name in what.only.iter().filter(|name| !met.contains(name.as_str())) {
            remark(format_args!("--only {}: no such maildrop", printable(name.as_bytes())));
            all_well = false;
        }
    }
    if sources.is_empty() {
        return Err(Trouble::new(
            "no maildrop found; is that the layout of this server, and --root the top of its copy?",
        ));
    }
    Ok((sources, all_well))
}

/// Takes "old new" on each line; blank lines and those that begin with # are skipped.
fn read_renames(path: &Path, naming: &mut Naming) -> Result<(), Trouble> {
    let text = fs::read_to_string(path).map_err(|error| Trouble::at(path.display(), error))?;
    for (at, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (None, ..) => {}
            (Some(word), ..) if word.starts_with('#') => {}
            (Some(old), Some(new), None) => {
                if !naming.rename(old, new) {
                    let place = format!("{}:{at}", path.display());
                    return Err(Trouble::at(
                        place,
                        format!("{} is renamed a second time", printable(old.as_bytes())),
                    ));
                }
            }
            _ => {
                let place = format!("{}:{at}", path.display());
                return Err(Trouble::at(
                    place,
                    format!("not an old and a new name: {}", printable(line.as_bytes())),
                ));
            }
        }
    }
    Ok(())
}

/// How to find out what Dovecot's clients were told.
const ASK: &str = "doveconf -f protocol=pop3 -h pop3_uidl_format";

fn dovecot_format(given: Option<&str>, is_copy: bool) -> Result<UidlFormat, Trouble> {
    let text = match given {
        None => {
            return Err(Trouble::new(format!(
                "no --format: give what \"{ASK}\" prints on the old server, or --format auto if this \
                 is the old server"
            )));
        }
        Some("auto") if is_copy => {
            return Err(Trouble::new(format!(
                "--format auto asks the Dovecot of this machine, and --root is a copy of another: \
                 give what \"{ASK}\" prints on the old server"
            )));
        }
        Some("auto") => {
            // These two change UIDLs in ways that state files do not tell.
            if ask_doveconf("pop3_reuse_xuidl")? == "yes" {
                return Err(Trouble::new(
                    "pop3_reuse_xuidl is on: unique-ids come from X-UIDL headers, which is not \
                     known from disk; capture over POP3",
                ));
            }
            if ask_doveconf("pop3_uidl_duplicates")? == "rename" {
                remark(
                    "pop3_uidl_duplicates is \"rename\": where a listing says that messages share a \
                     unique-id, capture over POP3",
                );
            }
            ask_doveconf("pop3_uidl_format")?
        }
        Some(text) => text.to_owned(),
    };
    UidlFormat::parse(&text).map_err(|error| {
        Trouble::at(format!("pop3_uidl_format {}", printable(text.as_bytes())), error)
    })
}

/// What the Dovecot of this machine has for `setting` in POP3.
fn ask_doveconf(setting: &str) -> Result<String, Trouble> {
    let asked = Command::new("doveconf").args(["-f", "protocol=pop3", "-h", setting]).output();
    let next = format!("give --format what \"{ASK}\" prints on the old server");
    match asked {
        Ok(said) if said.status.success() => {
            Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
        }
        Ok(said) => {
            let why = printable(said.stderr.trim_ascii());
            Err(Trouble::new(format!("doveconf: {why}; {next}")))
        }
        Err(error) => Err(Trouble::new(format!("doveconf: {error}; {next}"))),
    }
}

/// One block, ready to be written.
struct Block {
    octets: Vec<u8>,
    losses: Vec<String>,
    messages: usize,
}

impl Block {
    fn of(captured: Captured) -> Self {
        let Captured { mut maildrop, mut losses } = captured;
        let mut octets = Vec::new();
        if let Err(error) = listing::write_maildrop(&mut octets, &maildrop) {
            // It would make the whole listing unreadable.
            octets.clear();
            let fault = format!("no listing can hold this maildrop: {error}");
            maildrop.state = State::Failed;
            (maildrop.uidvalidity, maildrop.counter) = (None, None);
            maildrop.entries.clear();
            maildrop.spent.clear();
            maildrop.remarks = vec![fault.clone()];
            losses.push(fault);
            if listing::write_maildrop(&mut octets, &maildrop).is_err() {
                octets.clear();
            }
        }
        Self { octets, losses, messages: maildrop.entries.len() }
    }
}

/// What the threads share.
#[derive(Default)]
struct Desk {
    taken: usize,
    written: usize,
    ready: BTreeMap<usize, Block>,
    /// Nobody shall take another maildrop: the work cannot be finished.
    is_closed: bool,
}

/// How far a thread may be ahead of what is written: bounds what waits in memory.
const AHEAD: usize = 64;

/// Captures with `jobs` threads and writes in the order of `sources`. Returns whether nothing was lost.
fn in_order(
    server: &Server,
    keys: Keys,
    sources: &[Source],
    jobs: usize,
    progress: &Progress,
    output: &mut Output,
) -> Result<bool, Trouble> {
    let desk = (Mutex::new(Desk::default()), Condvar::new());
    thread::scope(|scope| {
        let closing = CloseOnDrop(&desk);
        for _ in 0..jobs.min(sources.len()) {
            scope.spawn(|| {
                // Also closes when a thread panics, or the writer would wait for its block.
                let closing = CloseOnDrop(&desk);
                while let Some(at) = take(&desk, sources.len()) {
                    let block = Block::of(capture::capture(server, keys, &sources[at]));
                    lock(&desk.0).ready.insert(at, block);
                    desk.1.notify_all();
                }
                std::mem::forget(closing);
            });
        }
        let mut all_well = true;
        for (at, source) in sources.iter().enumerate() {
            let mut guard = lock(&desk.0);
            let block = loop {
                if let Some(block) = guard.ready.remove(&at) {
                    break block;
                }
                if guard.is_closed {
                    return Err(Trouble::new("a thread stopped; nothing is to be trusted"));
                }
                guard = wait(&desk.1, guard, progress);
            };
            guard.written = at + 1;
            drop(guard);
            desk.1.notify_all();
            for loss in &block.losses {
                progress.say(format_args!("{}: {loss}", printable(source.user().as_bytes())));
            }
            all_well &= block.losses.is_empty();
            output.write(&block.octets)?;
            progress.count(block.messages);
        }
        std::mem::forget(closing);
        Ok(all_well)
    })
}

/// The next maildrop to capture, when there is one left and the writer can keep pace.
fn take(desk: &(Mutex<Desk>, Condvar), len: usize) -> Option<usize> {
    let mut guard = lock(&desk.0);
    loop {
        if guard.is_closed || guard.taken == len {
            return None;
        }
        if guard.taken < guard.written + AHEAD {
            guard.taken += 1;
            return Some(guard.taken - 1);
        }
        guard = desk.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a>(
    bell: &Condvar,
    guard: MutexGuard<'a, Desk>,
    progress: &Progress,
) -> MutexGuard<'a, Desk> {
    let (guard, _) =
        bell.wait_timeout(guard, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner);
    progress.tick();
    guard
}

/// Closes the desk when it goes, unless it is forgotten.
struct CloseOnDrop<'a>(&'a (Mutex<Desk>, Condvar));

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).is_closed = true;
        self.0.1.notify_all();
    }
}

/// Where the listing goes.
enum Output {
    Stdout(BufWriter<io::StdoutLock<'static>>),
    /// A file that is written beside its place, and put there when it is whole.
    File(Staged, PathBuf),
}

impl Output {
    fn open(place: Option<&Path>) -> Result<Self, Trouble> {
        let Some(place) = place.filter(|place| *place != Path::new("-")) else {
            return Ok(Self::Stdout(BufWriter::new(io::stdout().lock())));
        };
        let at = |error: &dyn std::fmt::Display| Trouble::at(place.display(), error);
        if place.file_name().is_none() {
            return Err(at(&"not the name of a file"));
        }
        match Staged::create_alone(place).map_err(|error| at(&error))? {
            Some(staged) => Ok(Self::File(staged, place.to_path_buf())),
            None => Err(at(&"another uidl-keep writes it; wait for it, or name another file")),
        }
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        match self {
            Self::Stdout(out) => out.write_all(octets).map_err(|error| cut_short(&error)),
            Self::File(staged, place) => {
                staged.file().write_all(octets).map_err(|e| Trouble::at(place.display(), e))
            }
        }
    }

    /// The listing is whole: flushed, on disk, and in its place.
    fn publish(self) -> Result<(), Trouble> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(|error| cut_short(&error)),
            Self::File(staged, place) => {
                let sealed = staged.seal(Access { mode: 0o600, owner: None });
                let published = sealed.and_then(Sealed::publish);
                published.map_err(|error| Trouble::at(place.display(), error))
            }
        }
    }
}

/// An error of stdout. Cut between two maildrops a listing looks whole: that nobody read on is no way
/// to end it well.
fn cut_short(error: &io::Error) -> Trouble {
    Trouble::at("standard output", format_args!("{error}: the listing is cut short"))
}

/// How far the work is: a bar on a terminal, a line now and then in a log, nothing for one maildrop.
struct Progress {
    bar: Option<ProgressBar>,
    log: Option<Mutex<Log>>,
}

struct Log {
    maildrops: usize,
    done: usize,
    messages: usize,
    said: Instant,
}

/// The time between two lines of a log.
const LOG_PAUSE: Duration = Duration::from_secs(5);

impl Progress {
    fn new(maildrops: usize, is_single: bool, has_file: bool) -> Self {
        // A bar and a listing on one terminal would overwrite each other.
        let on_terminal = io::stderr().is_terminal() && (has_file || !io::stdout().is_terminal());
        let bar = (!is_single && on_terminal).then(|| {
            let style = ProgressStyle::with_template(
                "{bar:40} {pos} of {len} maildrops, {msg} messages, {eta} left",
            );
            let bar = ProgressBar::new(maildrops as u64);
            bar.set_style(style.expect("the template is written here"));
            bar.with_message("0")
        });
        let log = (!is_single)
            .then(|| Mutex::new(Log { maildrops, done: 0, messages: 0, said: Instant::now() }));
        Self { bar, log }
    }

    fn log(&self) -> Option<MutexGuard<'_, Log>> {
        self.log.as_ref().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One maildrop of `messages` is written.
    fn count(&self, messages: usize) {
        if let Some(mut log) = self.log() {
            log.done += 1;
            log.messages += messages;
            if let Some(bar) = &self.bar {
                bar.set_message(log.messages.to_string());
                bar.set_position(log.done as u64);
            }
        }
        self.tick();
    }

    /// Time has passed.
    fn tick(&self) {
        if let Some(bar) = &self.bar {
            bar.tick();
        } else if let Some(mut log) = self.log().filter(|log| log.said.elapsed() >= LOG_PAUSE) {
            log.said = Instant::now();
            remark(format_args!(
                "{} of {} maildrops, {} messages",
                log.done, log.maildrops, log.messages
            ));
        }
    }

    /// A remark that the bar makes room for.
    fn say(&self, sentence: impl std::fmt::Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| remark(&sentence)),
            None => remark(sentence),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
