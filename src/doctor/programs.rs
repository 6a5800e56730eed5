//! Whether the plugin that lies where Dovecot looks is one for this Dovecot.
#![forbid(unsafe_code)]

use std::env;
use std::path::{Path, PathBuf};

use crate::abi::{Abi, Module, library_of};
use crate::doctor::finding::DoctorFinding;
use crate::doctor::subject::Subject;

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

/// Looks at the server's ABI, and at what lies in its module directory. What does not fit is no
/// trouble as long as POP3 does not load it.
pub fn check(
    subject: &Subject<'_>,
    loads: Option<bool>,
    found: &mut Vec<DoctorFinding>,
) -> PluginFile {
    let abi = server_abi(subject, found);
    check_headers(subject, abi.as_ref(), found);
    let fits = check_file(subject, abi.as_ref(), loads, found);
    PluginFile { abi, fits }
}

fn server_abi(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) -> Option<Abi> {
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
    let library = match library_of(&program_of(subject)) {
        Ok(Some(library)) => library,
        Ok(None) => {
            found.push(DoctorFinding::could_not_tell(
                ABI,
                "no libdovecot.so.0 lies where Dovecot's programs look, so that the ABI of this \
                 Dovecot is not known",
                STATUS,
            ));
            return None;
        }
        Err(error) => {
            let what = format!("{}: {error}", program_of(subject).display());
            found.push(DoctorFinding::could_not_tell(ABI, what, STATUS));
            return None;
        }
    };
    match Abi::of_library(&library) {
        Ok(abi) => {
            found.push(DoctorFinding::fine(
                ABI,
                format_args!("Dovecot {} has {abi}", subject.about.version),
            ));
            Some(abi)
        }
        Err(error) => {
            let what = format!("{}: {error}", library.display());
            found.push(DoctorFinding::could_not_tell(ABI, what, STATUS));
            None
        }
    }
}

/// The `doveadm` that is asked, by the name of its file.
fn program_of(subject: &Subject<'_>) -> PathBuf {
    let named = subject.dovecot.program();
    if named.components().count() > 1 {
        return named.to_owned();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|dir| dir.join(named));
    places.find(|place| place.is_file()).unwrap_or_else(|| named.to_owned())
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

/// Returns whether POP3 can load the plugin.
fn check_file(
    subject: &Subject<'_>,
    abi: Option<&Abi>,
    loads: Option<bool>,
    found: &mut Vec<DoctorFinding>,
) -> bool {
    let unfit = |what: String| unfit(loads, what);
    let dir = match subject.dovecot.setting_of_pop3("mail_plugin_dir") {
        Ok(dir) => PathBuf::from(dir.unwrap_or_else(|| "/usr/lib/dovecot/modules".to_owned())),
        Err(error) => {
            found.push(DoctorFinding::could_not_tell(PLUGIN_FILE, error, STATUS));
            return false;
        }
    };
    let names = match subject.machine.names(&dir, "_uidl_keep_plugin.so") {
        Ok(names) => names.into_iter().filter(|name| is_module(name)).collect::<Vec<_>>(),
        Err(error) => {
            let what = format!("{}: {error}", dir.display());
            found.push(DoctorFinding::could_not_tell(PLUGIN_FILE, what, STATUS));
            return false;
        }
    };
    let [name] = names.as_slice() else {
        let what = match names.as_slice() {
            [] => format!("{} has no plugin of uidl-keep", dir.display()),
            names => format!("{} has several: {}", dir.display(), names.join(", ")),
        };
        found.push(unfit(what));
        return false;
    };
    let path = dir.join(name);
    let finding = match (Module::of(&subject.machine.path(&path)), abi) {
        (Err(error), _) => unfit(format!("{}: {error}", path.display())),
        // What cannot be told of Dovecot was said.
        (Ok(_), None) => return false,
        (Ok(Module::Plugin(of)), Some(abi)) if of != *abi => {
            unfit(format!("{} is for {of}, and Dovecot has {abi}", path.display()))
        }
        (Ok(Module::Plugin(of)), Some(_)) => {
            DoctorFinding::fine(PLUGIN_FILE, format_args!("{} is for {of}", path.display()))
        }
        (Ok(Module::Loader), Some(abi)) => {
            let plugin = abi.plugin_at_hand();
            match Abi::of_plugin(&subject.machine.path(&plugin)) {
                Ok(of) if of == *abi => DoctorFinding::fine(
                    PLUGIN_FILE,
                    format_args!(
                        "{} is the loader, and {} is there",
                        path.display(),
                        plugin.display()
                    ),
                ),
                Ok(of) => unfit(format!("{} is for {of}, and Dovecot has {abi}", plugin.display())),
                Err(error) => unfit(format!(
                    "{} is the loader, and the plugin that it loads: {}: {error}",
                    path.display(),
                    plugin.display()
                )),
            }
        }
    };
    let fits = finding.why.is_empty();
    found.push(finding);
    fits
}

fn unfit(loads: Option<bool>, what: String) -> DoctorFinding {
    match loads {
        Some(false) => {
            let why = "it must fit before POP3 loads it: else POP3 refuses everybody";
            DoctorFinding::notice(PLUGIN_FILE, what, why, STATUS)
        }
        _ => {
            let why = "POP3 is to load uidl_keep and cannot: it refuses everybody, those too who \
                       were never migrated; with `plugin guard`, whoever is on a roster";
            DoctorFinding::trouble(PLUGIN_FILE, what, why, STATUS)
        }
    }
}

/// Whether Dovecot takes a file of this name for the plugin: it passes over the number.
fn is_module(name: &str) -> bool {
    let rest = name.strip_prefix("lib").and_then(|rest| rest.strip_suffix("_uidl_keep_plugin.so"));
    rest.is_some_and(|number| number.chars().all(|char| char.is_ascii_digit()))
}
