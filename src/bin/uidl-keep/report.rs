//! `uidl-keep report`: one HTML page out of forecast, rehearsal, status and rosters.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uidl_keep::file::publish::{Access, Sealed, Staged};
use uidl_keep::file::safe_open::{self, Unopened};
use uidl_keep::report::{InputKind, MigrationReport, ReportInputs, is_page, page};
use uidl_keep::site::Site;

use crate::output::{Completion, Trouble, remark};
use crate::site_files;

/// Makes one HTML page for people: who is at risk and why, and what to do next.
///
/// Example: uidl-keep report -o report.html --forecast forecast.json
///
/// Joins what other commands have printed with --json, and the rosters of a site; at least one of
/// them is needed. The page has totals, a bar for each domain, the mailboxes at risk with reasons,
/// the next commands, and all mailboxes to search, sort and print. It is one file that needs no
/// network, and it can be read without scripts. With --only it is about one customer's domains
/// alone, to be handed on. Only its owner may read the file.
///
/// Where two inputs disagree on a mailbox, the worse counts. Prints a summary on standard error.
///
/// Exit status 0: the page is there, whatever it says. 1: it is there, and an input was cut short,
/// or nobody has a name of --only; standard error and the page name it. 2: trouble, and no page was
/// written.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
#[command(group(
    clap::ArgGroup::new("input")
        .required(true)
        .multiple(true)
        .args(["forecast", "rehearsal", "status", "site"])
))]
pub struct ReportArgs {
    /// The page to write; - is standard output. An earlier page is replaced, and nothing else.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What `uidl-keep forecast --json` has printed; may be repeated; - is standard input.
    #[arg(long, value_name = "FILE")]
    forecast: Vec<PathBuf>,
    /// What `uidl-keep rehearse --json` has printed; may be repeated. Of a user who was rehearsed
    /// twice the later line counts.
    #[arg(long, value_name = "FILE")]
    rehearsal: Vec<PathBuf>,
    /// What `uidl-keep status --json` has printed; may be repeated.
    #[arg(long, value_name = "FILE")]
    status: Vec<PathBuf>,
    /// The site directory, whose rosters say who was migrated, held and rehearsed.
    #[arg(long, value_name = "SITE")]
    site: Option<PathBuf>,
    /// Only this user or domain; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN")]
    only: Vec<String>,
    /// The title of the page.
    #[arg(long, value_name = "TEXT", default_value = "Migration of mailboxes")]
    title: String,
}

const ACCESS: Access = Access { mode: 0o600, owner: None };
/// So much of a file shows whether it is a page.
const START_OF_PAGE: u64 = 4096;

pub fn run(args: &ReportArgs) -> Result<Completion, Trouble> {
    let files = [
        (InputKind::Forecast, &args.forecast),
        (InputKind::Rehearsal, &args.rehearsal),
        (InputKind::Status, &args.status),
    ];
    let files = || files.iter().flat_map(|(kind, paths)| paths.iter().map(|path| (*kind, path)));
    if files().filter(|(_, path)| is_stdio(path)).count() > 1 {
        return Err(Trouble::new("only one input can be standard input; name a file for the rest"));
    }
    let is_stdout = is_stdio(&args.output);
    if !is_stdout {
        check_place(&args.output)?;
    }
    let mut inputs = ReportInputs::default();
    for (kind, path) in files() {
        add(&mut inputs, kind, path)?;
    }
    if let Some(dir) = &args.site {
        add_site(&mut inputs, dir)?;
    }
    inputs.gaps().iter().for_each(remark);
    let mut completion =
        if inputs.gaps().is_empty() { Completion::Done } else { Completion::Partial };
    let only = args.only.iter().map(|name| name.strip_prefix('@').unwrap_or(name).to_owned());
    let only: BTreeSet<String> = only.collect();
    let report =
        MigrationReport::of(inputs, &args.title, &only, &site_words(args), SystemTime::now());
    if report.totals.mailboxes() == 0 && report.domains.is_empty() {
        return Err(Trouble::new(
            "nobody who is asked for is in what was read; are these the right files and names?",
        ));
    }
    for name in report.unmet(&only) {
        remark(format_args!("{name}: nobody of that name is in what was read"));
        completion = Completion::Partial;
    }
    let text = page(&report);
    if is_stdout {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
    } else {
        write(&args.output, &text)?;
    }
    let totals = &report.totals;
    remark(format_args!(
        "{}: {} mailboxes in {} domains, {} at risk",
        if is_stdout { "standard output".into() } else { args.output.display().to_string() },
        totals.mailboxes(),
        report.domains.len(),
        totals.at_risk()
    ));
    Ok(completion)
}

fn is_stdio(path: &Path) -> bool {
    path == Path::new("-")
}

fn add(inputs: &mut ReportInputs, kind: InputKind, path: &Path) -> Result<(), Trouble> {
    let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
    if is_stdio(path) {
        let stdin = io::stdin().lock();
        let added = inputs.add(kind, "standard input", None, stdin);
        return added.map_err(|error| Trouble::at("standard input", error));
    }
    let file = File::open(path).map_err(|error| at(&error))?;
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let name = path.display().to_string();
    let added = inputs.add(kind, &name, modified, BufReader::new(file));
    added.map_err(|error| match error {
        // As compilers write it, FILE:LINE.
        uidl_keep::report::InputError::Line { line, fault } => {
            Trouble::at(format_args!("{name}:{line}"), fault)
        }
        error => at(&error),
    })
}

fn add_site(inputs: &mut ReportInputs, dir: &Path) -> Result<(), Trouble> {
    let site = Site::new(dir);
    let mut rosters = Vec::new();
    for scope in site_files::scopes(&site)? {
        let Some(roster) = site_files::read_roster(&site, &scope)? else {
            return Err(Trouble::at(
                site.paths_of(&scope).roster.display(),
                "not there, but its index is: put it back, or build and install both again",
            ));
        };
        rosters.push(roster);
    }
    if rosters.is_empty() {
        return Err(Trouble::at(dir.display(), "it has no roster; is that the site?"));
    }
    inputs.add_site(&dir.display().to_string(), &rosters);
    Ok(())
}

/// What a command says to find the site, where it is not at the place that all look in.
fn site_words(args: &ReportArgs) -> String {
    match args.site.as_deref().filter(|site| *site != Path::new(Site::DEFAULT_DIR)) {
        Some(site) => {
            let absolute = std::path::absolute(site).unwrap_or_else(|_| site.to_owned());
            format!(" --site '{}'", absolute.display().to_string().replace('\'', r"'\''"))
        }
        None => String::new(),
    }
}

/// Makes sure that nothing but an earlier page is replaced.
fn check_place(place: &Path) -> Result<(), Trouble> {
    let at = |fault: &dyn std::fmt::Display| Trouble::at(place.display(), fault);
    if place.file_name().is_none() {
        return Err(at(&"not the name of a file"));
    }
    let (file, metadata) = match safe_open::regular(safe_open::options().read(true).open(place)) {
        Ok(opened) => opened,
        Err(Unopened::Absent) => return Ok(()),
        Err(Unopened::Link) => return Err(at(&"a symbolic link; name the file itself")),
        Err(unopened) => return Err(at(&io::Error::from(unopened))),
    };
    let mut start = Vec::new();
    file.take(START_OF_PAGE).read_to_end(&mut start).map_err(|error| at(&error))?;
    if metadata.size() > 0 && !is_page(&start) {
        return Err(at(&"not replaced: it is no page of uidl-keep; name another file"));
    }
    Ok(())
}

fn write(place: &Path, text: &str) -> Result<(), Trouble> {
    let at = |error: io::Error| Trouble::at(place.display(), error);
    let Some(staged) = Staged::create_alone(place).map_err(at)? else {
        let why = "another uidl-keep writes it; wait for it, or name another file";
        return Err(Trouble::at(place.display(), why));
    };
    staged.file().write_all(text.as_bytes()).map_err(at)?;
    staged.seal(ACCESS).and_then(Sealed::publish).map_err(at)
}
