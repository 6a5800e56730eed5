//! Whether the plugin that lies where Dovecot looks is one for this Dovecot.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::abi::{Abi, Module};
use crate::doctor::finding::DoctorFinding;
use crate::doctor::subject::Subject;
use crate::dovecot::fit::{Fit, FitVerdict, Lying};

const ABI: &str = "abi";
const PLUGIN_FILE: &str = "plugin_file";
const HEADERS: &str = "headers";
const STATUS: &str = "uidl-keep plugin status";

/// The directories in which distributions, and those who build it, have Dovecot's headers.
const INCLUDE_DIRS: [&str; 2] = ["/usr/include/dovecot", "/usr/local/include/dovecot"];

/// What was found out about the plugin's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFile {
    /// The ABI of the server, if it is known.
    pub abi: Option<Abi>,
    /// Whether POP3 can load it.
    pub fits: bool,
}

/// Looks at the server's ABI, and at what lies in its module directory, as `plugin status` does. A
/// plugin that does not fit is no trouble as long as POP3 does not load it.
pub fn check(
    subject: &Subject<'_>,
    loads: Option<bool>,
    found: &mut Vec<DoctorFinding>,
) -> PluginFile {
    check_running(subject, found);
    let fit = match subject.dovecot.fit() {
        Ok(fit) => fit,
        Err(error) => {
            found.push(DoctorFinding::could_not_tell(PLUGIN_FILE, error, STATUS));
            return PluginFile { abi: None, fits: false };
        }
    };
    if let Ok(abi) = &fit.server {
        let what = format!("Dovecot {} has {abi}", subject.about.version);
        found.push(DoctorFinding::fine(ABI, what));
    }
    let abi = fit.server.as_ref().ok();
    check_headers(subject, abi, found);
    let verdict = fit.verdict();
    found.push(match &verdict {
        FitVerdict::Fits | FitVerdict::NotLoaded => {
            DoctorFinding::fine(PLUGIN_FILE, format_args!("POP3 can load {}", shown(&fit)))
        }
        FitVerdict::CouldNotTell(why) => DoctorFinding::could_not_tell(ABI, why, STATUS),
        FitVerdict::DoesNotFit(why) if loads == Some(false) => {
            let reason = "it must fit before POP3 loads it: else POP3 refuses everybody";
            DoctorFinding::notice(PLUGIN_FILE, why, reason, STATUS)
        }
        FitVerdict::DoesNotFit(why) => {
            let reason = "POP3 is to load uidl_keep and cannot: it refuses everybody, those too \
                          who were never migrated; with `plugin guard`, whoever is on a roster";
            DoctorFinding::trouble(PLUGIN_FILE, why, reason, STATUS)
        }
    });
    let fits = matches!(verdict, FitVerdict::Fits | FitVerdict::NotLoaded);
    PluginFile { abi: fit.server.ok(), fits }
}

/// Whether the Dovecot that runs is the one that is installed.
fn check_running(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) {
    let maps = subject.master.map(|pid| subject.machine.text(format!("/proc/{pid}/maps")));
    let is_replaced = |line: &str| line.contains("libdovecot.so") && line.ends_with("(deleted)");
    if maps.and_then(Result::ok).flatten().is_some_and(|maps| maps.lines().any(is_replaced)) {
        found.push(DoctorFinding::notice(
            ABI,
            "Dovecot was upgraded, and what runs is the one before",
            "which plugin fits is decided when it is started again",
            "doveadm stop; then start Dovecot as this system does",
        ));
    }
}

/// What POP3 loads, in words.
fn shown(fit: &Fit) -> String {
    match &fit.lying {
        Lying::Module(path, Module::Plugin(abi)) => format!("{}, for {abi}", path.display()),
        Lying::Module(path, Module::Loader) => {
            let plugin = fit.server.as_ref().map(|abi| abi.plugin_at_hand());
            let plugin = plugin.map_or_else(|_| String::new(), |path| path.display().to_string());
            format!("{}, and by that {plugin}", path.display())
        }
        Lying::Nothing | Lying::Fault(..) => fit.module_dir.display().to_string(),
    }
}

fn check_headers(subject: &Subject<'_>, abi: Option<&Abi>, found: &mut Vec<DoctorFinding>) {
    let run = "install the headers of this very Dovecot before you build";
    for dir in INCLUDE_DIRS {
        if !subject.machine.has(Path::new(dir).join("config.h")) {
            continue;
        }
        found.push(match (Abi::of_headers(&subject.machine.path(dir)), abi) {
            (Ok(headers), Some(abi)) if headers == *abi => {
                DoctorFinding::fine(HEADERS, format_args!("{dir} has {headers}, too"))
            }
            (Ok(headers), Some(abi)) => DoctorFinding::notice(
                HEADERS,
                format_args!("{dir} is of {headers}, and Dovecot has {abi}"),
                "a plugin that is built with these headers does not fit this Dovecot",
                run,
            ),
            // What cannot be told of Dovecot was said.
            (Ok(_), None) => continue,
            (Err(error), _) => DoctorFinding::notice(
                HEADERS,
                format_args!("{dir}: {error}"),
                "nobody can tell for which Dovecot a plugin would be that is built with them",
                run,
            ),
        });
    }
}
