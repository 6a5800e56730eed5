//! `uidl-keep doctor`: finds what would make POP3 refuse somebody, or tell him something wrong.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde_json::json;
use uidl_keep::account::HELPER;
use uidl_keep::doctor::{Diagnosis, DoctorFinding, Examination, Machine, Weight};
use uidl_keep::site::Site;
use uidl_keep::text::on_one_line;

use crate::accounts::DoveadmProgram;
use crate::output::{Completion, Trouble};

/// Finds what would make POP3 refuse somebody, or tell him something wrong; changes nothing.
///
/// Example: uidl-keep doctor
///
/// Prints where things stand, then a finding each: what was found, why it matters, and what to run.
/// "trouble": POP3 refuses somebody, or tells something wrong. "could not tell": run what it says.
/// "notice": something to look at. Run it as root on the new server before the cut-over, with
/// Dovecot running; it opens files of the site by the very accounts that POP3 will open them by.
/// Exit status 0: nothing was found. 1: there are notices. 2: there is trouble, or it could not
/// tell.
#[derive(clap::Args)]
pub struct DoctorArgs {
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    #[command(flatten)]
    program: DoveadmProgram,
    /// Look at all users one by one, and not at a sample.
    #[arg(long)]
    all: bool,
    /// Look at so many users one by one: some of as many domains as possible.
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "all")]
    sample: usize,
    /// Print what is fine, too.
    #[arg(long)]
    verbose: bool,
    /// Print a JSON object a line: where things stand, then each finding, what is fine, too.
    #[arg(long)]
    json: bool,
    /// Look only at what changes by itself, and print nothing unless there is trouble or it could
    /// not tell. Notices are left out, and do not count.
    #[arg(long, conflicts_with = "verbose")]
    cron: bool,
    /// The root directory of the machine whose /etc, /proc and /sys are looked at.
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    machine: PathBuf,
}

pub fn run(args: &DoctorArgs) -> Result<Completion, Trouble> {
    let examination = Examination {
        dovecot: args.program.dovecot(),
        machine: Machine::at(&args.machine),
        site: Site::new(&args.site),
        most_users: if args.all { usize::MAX } else { args.sample },
        is_short: args.cron,
        helper: PathBuf::from(HELPER),
    };
    let diagnosis = examination.examine();
    print(args, &diagnosis)?;
    match diagnosis.worst() {
        Weight::Trouble | Weight::CouldNotTell => {
            let is_bad = |finding: &&DoctorFinding| finding.weight >= Weight::CouldNotTell;
            let count = diagnosis.findings.iter().filter(is_bad).count();
            Err(Trouble::new(format!(
                "doctor: {count} findings are trouble, or could not be told; mend them and run it \
                 again"
            )))
        }
        Weight::Notice if !args.cron => Ok(Completion::Partial),
        Weight::Notice | Weight::Fine => Ok(Completion::Done),
    }
}

fn print(args: &DoctorArgs, diagnosis: &Diagnosis) -> io::Result<()> {
    let least = match args {
        _ if args.cron => Weight::CouldNotTell,
        _ if args.verbose || args.json => Weight::Fine,
        _ => Weight::Notice,
    };
    if args.cron && diagnosis.worst() < least {
        return Ok(());
    }
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        let stands = on_one_line(&diagnosis.stands);
        writeln!(out, "{}", json!({ "stands": stands, "worst": diagnosis.worst().word() }))?;
    } else {
        writeln!(out, "{}", on_one_line(&diagnosis.stands))?;
    }
    let mut findings: Vec<_> =
        diagnosis.findings.iter().filter(|finding| finding.weight >= least).collect();
    // The worst first; the sort keeps the order of the checks.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    for finding in findings {
        let DoctorFinding { about, weight, what, why, run } = finding;
        if args.json {
            let object = json!({
                "about": about,
                "level": weight.word(),
                "what": on_one_line(what),
                "why": on_one_line(why),
                "run": on_one_line(run),
            });
            writeln!(out, "{object}")?;
            continue;
        }
        let level = weight.word().replace('_', " ");
        writeln!(out, "{level}: {about}: {}", on_one_line(what))?;
        for (word, text) in [("why", why), ("run", run)] {
            if !text.is_empty() {
                writeln!(out, "    {word}: {}", on_one_line(text))?;
            }
        }
    }
    out.flush()
}
