//! All checks of a server, in their order: [`Examination`].
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::doctor::facts::SiteFacts;
use crate::doctor::finding::{DoctorFinding, Weight};
use crate::doctor::machine::Machine;
use crate::doctor::programs::PluginFile;
use crate::doctor::subject::Subject;
use crate::doctor::{
    access, clock, confinement, facts, formats, limits, loading, panel, programs, second_names,
};
use crate::dovecot::{Dovecot, Pop3Plugins};
use crate::site::Site;

const DOVECOT: &str = "dovecot";

/// What is looked at, and how far.
#[derive(Debug)]
pub struct Examination {
    /// The Dovecot that serves the users.
    pub dovecot: Dovecot,
    /// The machine that it runs on.
    pub machine: Machine,
    /// The site.
    pub site: Site,
    /// The most users of whom is asked one by one; `usize::MAX`: all.
    pub most_users: usize,
    /// Whether only that is looked at which changes by itself, and costs little.
    pub is_short: bool,
    /// The helper, to be run as others: it has [`as_owner::COMMAND`](super::as_owner::COMMAND).
    pub helper: PathBuf,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Where things stand, in one line.
    pub stands: String,
    /// Everything that was looked at, in the order of the checks.
    pub findings: Vec<DoctorFinding>,
}

impl Diagnosis {
    /// How much the worst of it matters.
    pub fn worst(&self) -> Weight {
        self.findings.iter().map(|finding| finding.weight).max().unwrap_or(Weight::Fine)
    }
}

impl Examination {
    /// Looks at everything. Cost: some runs of `doveconf`, and about one run of `doveadm` for each
    /// user of the sample; the indexes are read from end to end, unless it is short.
    pub fn examine(&self) -> Diagnosis {
        let mut found = Vec::new();
        let about = match self.dovecot.about() {
            Ok(about) => about,
            Err(error) => {
                let run = "install Dovecot, or name it with --doveadm and --doveadm-args";
                found.push(DoctorFinding::could_not_tell(DOVECOT, error, run));
                let stands = format!("no Dovecot, site {}", self.site.dir().display());
                return stand(stands, found);
            }
        };
        if let Some(fault) = &about.fault {
            found.push(DoctorFinding::trouble(
                DOVECOT,
                fault,
                "Dovecot does not start or reload with this configuration",
                "doveconf -n > /dev/null",
            ));
            // With some faults it still answers questions.
            if self.dovecot.setting_of_pop3("base_dir").is_err() {
                let site = self.site.dir().display();
                let stands = format!("Dovecot {} does not start, site {site}", about.version);
                return stand(stands, found);
            }
        }
        let mut subject = Subject {
            dovecot: &self.dovecot,
            about,
            machine: &self.machine,
            site: &self.site,
            master: None,
            most_users: self.most_users,
            helper: &self.helper,
        };
        subject.master = master(&subject, &mut found);
        let plugins = loading::ask(&subject, &mut found);
        let loads = plugins.as_ref().map(|plugins| *plugins == Pop3Plugins::Loaded);
        let file = programs::check(&subject, loads, &mut found);
        let facts = facts::read(&subject, loads, !self.is_short, &mut found);
        if let Some(plugins) = &plugins {
            loading::check(&subject, plugins, &facts, &mut found);
        }
        panel::check(&subject, &mut found);
        confinement::check(&subject, loads, &mut found);
        let mut seen = Vec::new();
        // Of users only a Dovecot that runs can say something.
        if subject.master.is_some() && (loads != Some(false) || !self.is_short) {
            seen = access::check(&subject, &facts, &mut found);
            confinement::check_ledgers(&subject, &seen, &mut found);
        }
        if subject.master.is_some() && !self.is_short {
            second_names::check(&subject, &facts, &mut found);
        }
        if !self.is_short {
            limits::check(&subject, &facts, &seen, &mut found);
        }
        formats::check(&subject, &facts, &mut found);
        clock::check(&facts, SystemTime::now(), &mut found);
        stand(first_line(&subject, &file, loads, &facts), found)
    }
}

/// The process of Dovecot that has started all others.
fn master(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) -> Option<u32> {
    let base_dir = match subject.dovecot.setting_of_pop3("base_dir") {
        Ok(dir) => dir.unwrap_or_else(|| "/run/dovecot".to_owned()),
        Err(error) => {
            found.push(DoctorFinding::could_not_tell(DOVECOT, error, "doveconf base_dir"));
            return None;
        }
    };
    let pid_file = Path::new(&base_dir).join("master.pid");
    let text = subject.machine.text(&pid_file).ok().flatten().unwrap_or_default();
    let pid = text.trim().parse::<u32>().ok();
    let runs = |pid: &u32| fs::metadata(subject.machine.path(format!("/proc/{pid}"))).is_ok();
    let running = pid.filter(runs);
    found.push(match running {
        Some(pid) => DoctorFinding::fine(
            DOVECOT,
            format_args!("Dovecot {} runs as process {pid}", subject.about.version),
        ),
        None => DoctorFinding::could_not_tell(
            DOVECOT,
            format_args!("Dovecot does not run: {} names no process", pid_file.display()),
            "start Dovecot, and run doctor again: users can be asked of only then",
        ),
    });
    running
}

fn first_line(
    subject: &Subject<'_>,
    file: &PluginFile,
    loads: Option<bool>,
    facts: &SiteFacts,
) -> String {
    let abi = file.abi.as_ref().map_or("ABI not known".to_owned(), |abi| abi.to_string());
    let loads = match (loads, file.fits) {
        (Some(true), true) => "pop3 loads uidl_keep",
        (Some(true), false) => "pop3 is to load uidl_keep and cannot",
        (Some(false), _) => "pop3 does not load uidl_keep",
        (None, _) => "pop3 loads what could not be told",
    };
    format!(
        "Dovecot {} ({abi}), {loads}, site {}: {} domains, {} migrated",
        subject.about.version,
        subject.site.dir().display(),
        facts.domains,
        facts.migrated()
    )
}

fn stand(stands: String, findings: Vec<DoctorFinding>) -> Diagnosis {
    let count = findings.iter().filter(|finding| finding.weight != Weight::Fine).count();
    Diagnosis { stands: format!("{stands}, {count} findings"), findings }
}
