//! `uidl-keep capture`: what an old server's POP3 clients know, as a listing.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use uidl_keep::capture::layout::{Found, Layout, Names, Source};
use uidl_keep::capture::{Captured, Keys, Server, capture};
use uidl_keep::format::UidlFormat;
use uidl_keep::listing::write_maildrop;
use uidl_keep::maildrop::State;

use crate::output::{Outcome, Trouble, remark};

/// Captures what POP3 clients know of an old server's Maildirs, reading only.
///
/// uidl-keep capture courier --layout plesk -o old.uidl
///
/// Exit status 1: the listing is written, and stderr names what could not be captured.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What answers POP3 there.
    server: ServerName,
    /// One Maildir; needs --user.
    #[arg(requires = "user", conflicts_with_all = ["layout", "pattern"])]
    maildir: Option<PathBuf>,
    /// The user of the one Maildir, as he will log in at the new server.
    #[arg(long, requires = "maildir")]
    user: Option<String>,
    /// A whole server, laid out as a panel does it.
    #[arg(long, value_parser = ["plesk", "cpanel", "vpopmail"], conflicts_with = "pattern")]
    layout: Option<String>,
    /// A whole server: /srv/vmail/{domain}/{local}/Maildir. A component is a name, a placeholder,
    /// {account} or * for any, ? for any of one character.
    #[arg(long)]
    pattern: Option<String>,
    /// Where the server's root is: a copied tree, for one.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// How users are called at the new server [default: {local}@{domain}].
    #[arg(long)]
    user_template: Option<String>,
    /// A file of lines "OLDNAME NEWNAME", for those who are called otherwise.
    #[arg(long, value_name = "FILE")]
    rename: Option<PathBuf>,
    /// Only this user, or all of this domain; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN")]
    only: Vec<String>,
    /// Keys to take, of file, header, message and origin. Where a header repeats, message is taken
    /// as well.
    #[arg(long, default_value = "file,header")]
    keys: Keys,
    /// Dovecot's pop3_uidl_format there; auto asks its doveconf.
    #[arg(long, default_value = "auto")]
    uidl_format: String,
    /// How many maildrops are read at once [default: one a processor].
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Where the listing goes; without it, to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ServerName {
    /// Courier's courierpop3d.
    Courier,
    /// Dovecot.
    Dovecot,
    /// qmail-pop3d, netqmail's and notqmail's too.
    Qmail,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Outcome, Trouble> {
    let server = server(args)?;
    let Found { mut sources, faults } = sources(args)?;
    for fault in &faults {
        remark(fault);
    }
    if !args.only.is_empty() {
        sources.retain(|source| args.only.iter().any(|only| selects(only, source.user())));
    }
    let mut users = HashSet::new();
    if let Some(twice) = sources.iter().find(|source| !users.insert(source.user())) {
        return Err(Trouble::new(format!(
            "two maildrops are called {}, one of them {}: tell them apart with --user-template or \
             --rename",
            twice.user(),
            twice.place().display(),
        )));
    }
    if sources.is_empty() {
        return Err(Trouble::new("no maildrop found: check --root, --only and the layout"));
    }
    let short = match &args.output {
        None => write_all(BufWriter::new(io::stdout().lock()), args, &server, &sources)?.1,
        Some(path) => write_file(path, args, &server, &sources)?,
    };
    Ok(if short || !faults.is_empty() { Outcome::Short } else { Outcome::Done })
}

fn selects(only: &str, user: &str) -> bool {
    user == only || user.rsplit_once('@').is_some_and(|(_, domain)| domain == only)
}

fn server(args: &Args) -> Result<Server, Trouble> {
    Ok(match args.server {
        ServerName::Courier => Server::Courier,
        ServerName::Qmail => Server::Qmail,
        ServerName::Dovecot => {
            let text = match &args.uidl_format[..] {
                "auto" => ask_doveconf()?,
                given => given.to_owned(),
            };
            let format = UidlFormat::parse(&text)
                .map_err(|bad| Trouble::at(format!("pop3_uidl_format {text:?}"), bad))?;
            Server::Dovecot { format }
        }
    })
}

/// The format that POP3 goes by: where it is set in `protocol pop3`, as cPanel does, plain
/// `doveconf` tells another one.
fn ask_doveconf() -> Result<String, Trouble> {
    let how = "name it with --uidl-format, as `doveconf -f protocol=pop3 -h pop3_uidl_format` prints it \
               on the old server";
    let asked = Command::new("doveconf")
        .args(["-f", "protocol=pop3", "-h", "pop3_uidl_format"])
        .output()
        .map_err(|error| Trouble::new(format!("doveconf does not run here ({error}): {how}")))?;
    let text = String::from_utf8_lossy(&asked.stdout).trim_end().to_owned();
    if !asked.status.success() || text.is_empty() {
        return Err(Trouble::new(format!("doveconf tells no pop3_uidl_format: {how}")));
    }
    Ok(text)
}

fn sources(args: &Args) -> Result<Found, Trouble> {
    if let (Some(user), Some(path)) = (&args.user, &args.maildir) {
        return Ok(Found { sources: vec![Source::named(user, path)], faults: Vec::new() });
    }
    let layout = match (&args.layout, &args.pattern) {
        (Some(word), _) => Layout::named(word).expect("clap takes no other word"),
        (None, Some(pattern)) => {
            Layout::pattern(pattern).map_err(|bad| Trouble::new(bad.to_string()))?
        }
        (None, None) => {
            return Err(Trouble::new(
                "which maildrops? name --layout, --pattern, or --user and one Maildir",
            ));
        }
    };
    let rename = match &args.rename {
        Some(path) => std::fs::read_to_string(path).map_err(|e| Trouble::at(path.display(), e))?,
        None => String::new(),
    };
    let names =
        Names::new(args.user_template.clone(), &rename).map_err(|bad| match &args.rename {
            Some(path) => Trouble::at(path.display(), bad),
            None => Trouble::new(bad.to_string()),
        })?;
    layout.find(&args.root, &names).map_err(|error| Trouble::new(error.to_string()))
}

/// Writes the listing beside itself and puts it in place when it is whole.
fn write_file(
    path: &Path,
    args: &Args,
    server: &Server,
    sources: &[Source],
) -> Result<bool, Trouble> {
    let at = |error: io::Error| Trouble::at(path.display(), error);
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut unfinished_name = path.file_name().unwrap_or_default().to_owned();
    unfinished_name.push(".unfinished");
    let unfinished = directory.join(unfinished_name);
    let file = File::create(&unfinished).map_err(at)?;
    let written =
        write_all(BufWriter::new(file), args, server, sources).and_then(|(out, short)| {
            let file = out.into_inner().map_err(|error| at(error.into_error()))?;
            file.sync_all().map_err(at)?;
            drop(file);
            std::fs::rename(&unfinished, path).map_err(at)?;
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(at)?;
            Ok(short)
        });
    if written.is_err() {
        // The first error is the one to tell of.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

/// Captures the maildrops in parallel and writes their blocks in order. Returns whether anything was
/// lost.
fn write_all<W: Write>(
    mut out: W,
    args: &Args,
    server: &Server,
    sources: &[Source],
) -> Result<(W, bool), Trouble> {
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let mut progress = Progress::start(sources.len());
    let mut short = false;
    thread::scope(|scope| {
        // A bounded queue: a slow disk for the listing must not fill memory with blocks.
        let (send, receive) = mpsc::sync_channel::<(usize, Captured)>(2 * jobs);
        for _ in 0..jobs.min(sources.len()) {
            let send = send.clone();
            let next = &next;
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(source) = sources.get(at) else { return };
                    if send.send((at, capture(server, args.keys, source))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut waiting = std::collections::BTreeMap::new();
        let mut written = 0;
        for (at, captured) in receive {
            waiting.insert(at, captured);
            while let Some(captured) = waiting.remove(&written) {
                short |= tell_losses(&captured, &sources[written], &progress);
                write_maildrop(&mut out, &captured.maildrop)?;
                written += 1;
                progress.done(written, captured.maildrop.entries.len());
            }
        }
        out.flush()?;
        Ok::<_, Trouble>(())
    })?;
    progress.end();
    Ok((out, short))
}

fn tell_losses(captured: &Captured, source: &Source, progress: &Progress) -> bool {
    let failed = captured.maildrop.state == State::Failed;
    for loss in &captured.losses {
        let what = if failed { "not captured: " } else { "" };
        progress.say(&format!(
            "{} ({}): {what}{loss}",
            captured.maildrop.user,
            source.place().display()
        ));
    }
    failed || !captured.losses.is_empty()
}

/// A bar on a terminal, a line now and then in a log, and nothing for what is over at once.
struct Progress {
    bar: ProgressBar,
    total: usize,
    messages: usize,
    last_line: Instant,
}

impl Progress {
    const LINE_EVERY: Duration = Duration::from_secs(10);

    fn start(total: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        let template = "{bar:30} {pos}/{len} maildrops, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, total, messages: 0, last_line: Instant::now() }
    }

    fn done(&mut self, maildrops: usize, messages: usize) {
        self.messages += messages;
        self.bar.set_position(maildrops as u64);
        if !io::stderr().is_terminal() && self.last_line.elapsed() >= Self::LINE_EVERY {
            self.last_line = Instant::now();
            remark(format!(
                "{maildrops} of {} maildrops, {} messages with a unique-id",
                self.total, self.messages
            ));
        }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| remark(line));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
