//! Which panel or image this server is of, and which file of Dovecot's configuration survives its
//! updates: [`KnownPanel`].
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::doctor::finding::DoctorFinding;
use crate::doctor::included::{files, names_plugin};
use crate::doctor::machine::Machine;
use crate::doctor::subject::Subject;

const PANEL: &str = "panel";

/// A panel or an image, and its ways with Dovecot's configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownPanel {
    /// Its name.
    pub name: &'static str,
    /// It is this one where all files of one of these rows are there.
    evidence: &'static [&'static [&'static str]],
    /// The names with which a file begins that its updates leave alone.
    survives: &'static [&'static str],
    /// The same, with Dovecot 2.4 alone.
    survives_on_2_4: &'static [&'static str],
    /// Files that it makes its configuration from. What stands there comes back.
    sources: &'static [&'static str],
    /// What to do so that our lines stay.
    advice: &'static str,
}

/// The panels, images and setups that are known; docs/doctor.md says from where.
const PANELS: &[KnownPanel] = &[
    KnownPanel {
        name: "cPanel",
        evidence: &[&["/usr/local/cpanel/version"]],
        survives: &[],
        survives_on_2_4: &[],
        sources: &[
            "/var/cpanel/templates/dovecot/main.local",
            "/var/cpanel/templates/dovecot2.3/main.local",
            "/var/cpanel/templates/dovecot2.4/main.local",
        ],
        advice: "copy main.default to main.local in /var/cpanel/templates/dovecot and write the \
                 lines there; then /usr/local/cpanel/scripts/builddovecotconf and \
                 /usr/local/cpanel/scripts/restartsrv_dovecot",
    },
    KnownPanel {
        name: "Plesk",
        evidence: &[&["/usr/local/psa/version"]],
        survives: &["/etc/dovecot/conf.d/9", "/etc/dovecot/local.conf"],
        survives_on_2_4: &[],
        sources: &[],
        advice: "write the lines to /etc/dovecot/conf.d/99-uidl-keep.conf; then doveadm reload",
    },
    KnownPanel {
        name: "DirectAdmin",
        evidence: &[&["/usr/local/directadmin/conf"], &["/usr/local/directadmin/custombuild"]],
        survives: &["/etc/dovecot/conf.d/9"],
        survives_on_2_4: &[],
        sources: &["/usr/local/directadmin/custombuild/custom/dovecot/conf/dovecot.conf"],
        advice: "write the lines to /etc/dovecot/conf.d/99-uidl-keep.conf, and look for them after \
                 each `./build dovecot`; then doveadm reload",
    },
    KnownPanel {
        name: "mailcow",
        evidence: &[
            &["/etc/dovecot/auth/mailcowauth.php"],
            &["/opt/mailcow-dockerized/mailcow.conf"],
        ],
        survives: &["/etc/dovecot/extra.conf"],
        survives_on_2_4: &[],
        sources: &["/opt/mailcow-dockerized/data/conf/dovecot/extra.conf"],
        advice: "write the lines to data/conf/dovecot/extra.conf, with the whole list of plugins \
                 and no $mail_plugins; then docker compose restart dovecot-mailcow",
    },
    KnownPanel {
        name: "Mailu",
        evidence: &[&["/conf/dovecot.conf", "/start.py"]],
        survives: &["/overrides/"],
        survives_on_2_4: &[],
        sources: &["/overrides/dovecot.conf"],
        advice: "write the lines to overrides/dovecot.conf, and start the container anew",
    },
    KnownPanel {
        name: "docker-mailserver",
        evidence: &[&["/usr/local/bin/start-mailserver.sh"], &["/tmp/docker-mailserver"]],
        survives: &[],
        survives_on_2_4: &[],
        sources: &["/tmp/docker-mailserver/dovecot.cf"],
        advice: "write the lines to config/dovecot.cf, and start the container anew",
    },
    KnownPanel {
        name: "iRedMail",
        evidence: &[&["/etc/iredmail-release"], &["/opt/iredmail/custom"]],
        survives: &["/etc/dovecot/iredmail/", "/opt/iredmail/custom/dovecot/"],
        survives_on_2_4: &["/etc/dovecot/dovecot.conf"],
        sources: &[],
        advice: "write the lines to a file in /etc/dovecot/iredmail (iRedMail Easy: \
                 /opt/iredmail/custom/dovecot/conf-enabled); with Dovecot 2.4 nothing includes \
                 that directory: write them at the end of dovecot.conf; then doveadm reload",
    },
    KnownPanel {
        name: "Virtualmin",
        evidence: &[&["/etc/webmin/virtual-server"]],
        survives: &["/etc/dovecot/conf.d/9", "/etc/dovecot/local.conf"],
        survives_on_2_4: &[],
        sources: &[],
        advice: "write the lines to /etc/dovecot/conf.d/95-uidl-keep.conf; then doveadm reload",
    },
    KnownPanel {
        name: "ISPConfig",
        evidence: &[&["/usr/local/ispconfig/server"]],
        survives: &["/etc/dovecot/conf.d/9"],
        survives_on_2_4: &[],
        sources: &[
            "/usr/local/ispconfig/server/conf-custom/install/debian_dovecot2.conf.master",
            "/usr/local/ispconfig/server/conf-custom/install/debian_dovecot.conf.master",
        ],
        advice: "write the lines to /etc/dovecot/conf.d/95-uidl-keep.conf if dovecot.conf includes \
                 that directory, and else to a copy of its master in \
                 /usr/local/ispconfig/server/conf-custom/install; then doveadm reload",
    },
];

/// What is written, and where, on a server without a panel.
const PLAIN_ADVICE: &str =
    "write the lines to /etc/dovecot/conf.d/95-uidl-keep.conf; then doveadm reload";

impl KnownPanel {
    /// The panel of a machine. `None`: none that is known.
    pub fn of(machine: &Machine) -> Option<&'static Self> {
        let is_there = |row: &[&str]| row.iter().all(|path| machine.has(path));
        PANELS.iter().find(|panel| panel.evidence.iter().any(|row| is_there(row)))
    }

    fn leaves_alone(&self, file: &Path, is_2_4: bool) -> bool {
        let file = file.to_string_lossy();
        let on_2_4 = if is_2_4 { self.survives_on_2_4 } else { &[] };
        self.survives.iter().chain(on_2_4).any(|start| file.starts_with(start))
    }

    /// The first of its sources that names the plugin.
    fn source(&self, machine: &Machine) -> Option<&'static str> {
        let names = |path: &&&str| {
            machine.text(path).ok().flatten().is_some_and(|text| names_plugin(&text))
        };
        self.sources.iter().find(names).copied()
    }
}

/// What to do so that the plugin is loaded, and stays so.
pub fn advice(machine: &Machine) -> &'static str {
    KnownPanel::of(machine).map_or(PLAIN_ADVICE, |panel| panel.advice)
}

/// Looks where the lines stand that load the plugin.
pub fn check(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) {
    let machine = subject.machine;
    let panel = KnownPanel::of(machine);
    let name = panel.map_or_else(|| system(machine), |panel| panel.name.to_owned());
    let ours = match naming(machine, &subject.about.conf) {
        Ok(ours) => ours,
        Err(why) => {
            let what = format!("could not read which file loads the plugin: {why}");
            let run = "doveconf -n | head -n 1";
            found.push(DoctorFinding::could_not_tell(PANEL, what, run));
            return;
        }
    };
    let Some(panel) = panel else {
        let place = ours
            .first()
            .map_or_else(String::new, |file| format!("; {} names the plugin", file.display()));
        found.push(DoctorFinding::fine(
            PANEL,
            format_args!("no panel that is known: {name}{place}"),
        ));
        return;
    };
    if let Some(source) = panel.source(machine) {
        let what = format!("{name}: {source} names the plugin, and comes back with each update");
        found.push(DoctorFinding::fine(PANEL, what));
        return;
    }
    found.push(match ours.iter().find(|file| !panel.leaves_alone(file, subject.is_2_4())) {
        Some(file) => DoctorFinding::notice(
            PANEL,
            format_args!(
                "{name}: {} names the plugin, and an update of {name} writes it anew",
                file.display()
            ),
            "after that POP3 does not load the plugin, and whoever is not baked gets new UIDLs",
            panel.advice,
        ),
        None if ours.is_empty() => {
            DoctorFinding::fine(PANEL, format_args!("{name}: no file names the plugin yet"))
        }
        None => DoctorFinding::fine(
            PANEL,
            format_args!(
                "{name}: {} names the plugin, and updates leave it alone",
                ours[0].display()
            ),
        ),
    });
}

/// The files of a configuration that name the plugin.
fn naming(machine: &Machine, conf: &Path) -> Result<Vec<PathBuf>, String> {
    let mut ours = Vec::new();
    for file in files(machine, conf).map_err(|error| error.to_string())? {
        let at = |error: std::io::Error| format!("{}: {error}", file.display());
        if machine.text(&file).map_err(at)?.is_some_and(|text| names_plugin(&text)) {
            ours.push(file);
        }
    }
    Ok(ours)
}

/// The name of the system, by its own word.
fn system(machine: &Machine) -> String {
    let release = machine.text("/etc/os-release").ok().flatten().unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("a system without os-release", |name| name.trim_matches('"')).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_panel_is_known_by_its_own_files_and_no_other() {
        for panel in PANELS {
            for row in panel.evidence {
                let root = tempfile::tempdir().unwrap();
                for path in *row {
                    let path = root.path().join(path.trim_start_matches('/'));
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, "").unwrap();
                }
                let machine = Machine::at(root.path());
                assert_eq!(KnownPanel::of(&machine).map(|panel| panel.name), Some(panel.name));
                let advice = advice(&machine);
                assert!(advice.contains('/'), "{advice}");
            }
        }
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::at(root.path());
        assert_eq!(KnownPanel::of(&machine), None);
        assert_eq!(advice(&machine), PLAIN_ADVICE);
    }
}
