//! The look at a Plesk machine, or at a copy of one: [`look`].
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::capture::find::plesk::evidence::{Evidence, Rank, Service, ServiceSign};
use crate::capture::find::plesk::files;
use crate::text::printable;

/// Why the machine could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .place.display())]
pub struct MachineError {
    /// The path that could not be read.
    pub place: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

/// Looks for all signs of either server, on this machine or in the copy of one below `root`. In a
/// copy nobody listens; on a machine `ports` are those of POP3.
///
/// # Errors
///
/// [`MachineError`].
pub fn look(root: Option<&Path>, ports: &[u16]) -> Result<Evidence, MachineError> {
    let mut signs = Vec::new();
    if root.is_none() {
        signs.extend(
            listeners(ports).map_err(|error| MachineError { place: "/proc".into(), error })?,
        );
    }
    let (enabled, installed) = (enabled(root)?, installed(root)?);
    let is_installed = |sign: &ServiceSign| installed.iter().any(|other| other.of == sign.of);
    // A link that was left behind looks like any other where links cannot be followed.
    let is_stale =
        |sign: &ServiceSign| !has_units(root) && !installed.is_empty() && !is_installed(sign);
    signs.extend(enabled.into_iter().filter(|sign| !is_stale(sign)));
    signs.extend(installed);
    for (path, service) in [
        ("etc/courier-imap/pop3d", Service::Courier),
        ("etc/courier/pop3d", Service::Courier),
        ("etc/dovecot/dovecot.conf", Service::Dovecot),
    ] {
        if below(root, path).exists() {
            signs.push(ServiceSign {
                rank: Rank::Seen,
                of: Some(service),
                what: format!("/{path}"),
            });
        }
    }
    Ok(Evidence { signs, ..Evidence::default() })
}

fn below(root: Option<&Path>, path: &str) -> PathBuf {
    root.unwrap_or(Path::new("/")).join(path)
}

/// Who has these ports open on this machine.
fn listeners(ports: &[u16]) -> io::Result<Vec<ServiceSign>> {
    let mut open = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        // A machine without IPv6 has no such table.
        let table = match fs::read_to_string(Path::new("/proc/net").join(table)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        open.extend(files::listening(&table).into_iter().filter(|(port, _)| ports.contains(port)));
    }
    let mut signs = Vec::new();
    let idle = ports.iter().filter(|port| !open.iter().any(|(open, _)| open == *port));
    for port in idle {
        let what = format!("nobody listens on port {port}");
        signs.push(ServiceSign { rank: Rank::Seen, of: None, what });
    }
    let holders = holders(&open.iter().map(|&(_, inode)| inode).collect())?;
    for (port, inode) in open {
        let programs: Vec<&String> = holders.get(&inode).into_iter().flatten().collect();
        let services: HashSet<Service> =
            programs.iter().filter_map(|program| files::service_of_program(program)).collect();
        let shown = match &programs[..] {
            [] => "somebody whom only root can see".to_owned(),
            programs => programs
                .iter()
                .map(|program| printable(program.as_bytes()))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let what = format!("on port {port}: {shown}");
        let is_systemd = programs.iter().all(|program| program.ends_with("/systemd"));
        if !programs.is_empty() && is_systemd {
            // systemd waits for the first client; the enabled units tell which service it starts.
            signs.push(ServiceSign { rank: Rank::Seen, of: None, what });
            continue;
        }
        let single = if services.len() == 1 { services.into_iter().next() } else { None };
        signs.push(ServiceSign { rank: Rank::Listens, of: single, what });
    }
    signs.sort_by_key(|sign| sign.rank);
    Ok(signs)
}

/// The programs that have these sockets open, each once. Processes of others are seen only by root.
fn holders(inodes: &BTreeSet<u64>) -> io::Result<HashMap<u64, BTreeSet<String>>> {
    let mut holders: HashMap<u64, BTreeSet<String>> = HashMap::new();
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        // It is no process, or it is gone, or we may not see it.
        let Ok(open) = fs::read_dir(process.join("fd")) else { continue };
        for file in open.flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                holders.entry(inode).or_default().insert(program(&process));
            }
        }
    }
    Ok(holders)
}

/// The file of a process's program, also of one that an upgrade has replaced.
fn program(process: &Path) -> String {
    let exe = fs::read_link(process.join("exe")).unwrap_or_else(|_| PathBuf::from("unknown"));
    let exe = exe.to_string_lossy();
    exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned()
}

/// Whether the files of units are there: in a copy of /etc and /var alone every link to one hangs
/// in the air.
fn has_units(root: Option<&Path>) -> bool {
    root.is_none() || ["lib/systemd", "usr/lib/systemd"].iter().any(|dir| below(root, dir).exists())
}

/// Signs of services that start with the machine: units that are wanted and not masked, and init
/// scripts.
fn enabled(root: Option<&Path>) -> Result<Vec<ServiceSign>, MachineError> {
    let is_there = |link: &Path| !has_units(root) || leads_somewhere(root, link);
    let units = below(root, "etc/systemd/system");
    let mut masked = HashSet::new();
    let mut links = Vec::new();
    for name in names(&units)? {
        let path = units.join(&name);
        if path.read_link().is_ok_and(|target| target == Path::new("/dev/null")) {
            masked.insert(name);
        } else if [OsStr::new("wants"), OsStr::new("requires")]
            .iter()
            .any(|extension| path.extension() == Some(extension))
        {
            links.extend(names(&path)?.into_iter().map(|name| (path.join(&name), name)));
        }
    }
    for (base, level) in ["etc", "etc/rc.d"].iter().flat_map(|base| (2..=5).map(move |n| (base, n)))
    {
        let dir = below(root, &format!("{base}/rc{level}.d"));
        for name in names(&dir)? {
            // S20courier-imap: started, at the place 20.
            let script = name.as_bytes().strip_prefix(b"S").and_then(|rest| rest.get(2..));
            if let Some(script) = script {
                links.push((dir.join(&name), OsStr::from_bytes(script).to_owned()));
            }
        }
    }
    let mut signs = Vec::new();
    for (link, name) in links {
        let Some(service) = name.to_str().and_then(files::service_of_unit) else { continue };
        let mut unit = name.clone();
        if !name.as_bytes().contains(&b'.') {
            unit.push(".service");
        }
        if !masked.contains(&unit) && is_there(&link) {
            let shown = link.strip_prefix(root.unwrap_or(Path::new("/"))).unwrap_or(&link);
            let what = format!("/{}", printable(shown.as_os_str().as_bytes()));
            signs.push(ServiceSign { rank: Rank::Enabled, of: Some(service), what });
        }
    }
    signs.sort_by(|a, b| a.what.cmp(&b.what));
    Ok(signs)
}

/// Whether the target of a link is there, in the copy if this is one. A file is its own target.
fn leads_somewhere(root: Option<&Path>, link: &Path) -> bool {
    let end = match link.read_link() {
        Ok(target) => match target.strip_prefix("/") {
            Ok(inside) => root.unwrap_or(Path::new("/")).join(inside),
            Err(_) => link.with_file_name(target),
        },
        Err(_) => link.to_owned(),
    };
    end.symlink_metadata().is_ok()
}

/// The names in a directory, none where it is not there.
fn names(dir: &Path) -> Result<Vec<OsString>, MachineError> {
    let at = |error| MachineError { place: dir.to_owned(), error };
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed
            .map_err(at)?
            .map(|entry| entry.map(|entry| entry.file_name()).map_err(at))
            .collect(),
    }
}

/// The places of the POP3 programs, for a machine whose package database is not text.
const PROGRAMS: [(&str, Service); 8] = [
    ("usr/lib/dovecot/pop3", Service::Dovecot),
    ("usr/libexec/dovecot/pop3", Service::Dovecot),
    ("usr/lib/courier-imap/couriertcpd", Service::Courier),
    ("usr/lib64/courier-imap/couriertcpd", Service::Courier),
    ("usr/libexec/courier-imap/couriertcpd", Service::Courier),
    ("usr/lib/courier-imap/bin/pop3d", Service::Courier),
    ("usr/lib/courier/courier/courierpop3d", Service::Courier),
    ("usr/sbin/couriertcpd", Service::Courier),
];

fn installed(root: Option<&Path>) -> Result<Vec<ServiceSign>, MachineError> {
    let mut signs = Vec::new();
    let mut push = |service, what| {
        signs.push(ServiceSign { rank: Rank::Installed, of: Some(service), what });
    };
    let status = below(root, "var/lib/dpkg/status");
    match fs::read(&status) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            for (service, package) in files::installed_packages(&text) {
                push(service, package.to_owned());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(MachineError { place: status, error }),
    }
    for (path, service) in PROGRAMS {
        if below(root, path).is_file() {
            push(service, format!("/{path}"));
        }
    }
    Ok(signs)
}

/// Whether Courier lets clients log in without their domain.
pub fn short_names_are_on(root: Option<&Path>) -> bool {
    let pop3d = below(root, "etc/courier-imap/pop3d");
    fs::read_to_string(pop3d).is_ok_and(|text| files::takes_short_names(&text))
}
