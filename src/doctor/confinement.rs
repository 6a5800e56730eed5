//! What keeps Dovecot's processes from files: chroot, systemd, mounts, SELinux, AppArmor.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::doctor::access::SeenMail;
use crate::doctor::finding::{DoctorFinding, Weight};
use crate::doctor::machine::Machine;
use crate::doctor::subject::Subject;
use crate::site::Site;
use crate::text::printable;

const CHROOT: &str = "chroot";
const MOUNTS: &str = "mounts";
const LEDGER: &str = "ledger";
const SYSTEMD: &str = "systemd";
const SELINUX: &str = "selinux";
const APPARMOR: &str = "apparmor";

/// Looks at all of them. What keeps the plugin from the site refuses nobody as long as POP3 does
/// not load it.
pub fn check(subject: &Subject<'_>, loads: Option<bool>, found: &mut Vec<DoctorFinding>) {
    let before = found.len();
    check_chroot(subject, found);
    // A site that is not there was told.
    if let Ok(real) = subject.real_site() {
        check_view(subject, found);
        check_unit(subject, &real, found);
        check_selinux(subject, &real, found);
        check_apparmor(subject, &real, found);
    }
    let is_trouble = |finding: &&mut DoctorFinding| finding.weight == Weight::Trouble;
    if loads == Some(false) {
        for finding in found[before..].iter_mut().filter(is_trouble) {
            finding.weight = Weight::Notice;
            finding.why =
                format!("POP3 does not load the plugin now; once it does: {}", finding.why);
        }
    }
}

/// A user who is shut up is served from a site outside. Only a link on the way may be in the way.
fn check_chroot(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) {
    let setting = |name| subject.dovecot.setting_of_pop3(name).map(Option::unwrap_or_default);
    let dirs = setting("mail_chroot").and_then(|one| Ok((one, setting("valid_chroot_dirs")?)));
    let (mail_chroot, valid_dirs) = match dirs {
        Ok(dirs) => dirs,
        Err(error) => {
            let run = "doveconf mail_chroot valid_chroot_dirs";
            found.push(DoctorFinding::could_not_tell(CHROOT, error, run));
            return;
        }
    };
    if mail_chroot.is_empty() && valid_dirs.is_empty() {
        found.push(DoctorFinding::fine(CHROOT, "no user is shut up by chroot"));
        return;
    }
    let is_linked = subject.real_site().is_ok_and(|real| real != subject.site.dir());
    if is_linked && !finds_links() {
        found.push(DoctorFinding::trouble(
            CHROOT,
            format_args!(
                "users may be shut up by chroot (mail_chroot = {mail_chroot}, valid_chroot_dirs = \
                 {valid_dirs}), there is a link on the way to {}, and this kernel has no openat2",
                subject.site.dir().display()
            ),
            "POP3 may find no site from within, and refuses everybody who is shut up",
            "mount the site there in place of the link",
        ));
        return;
    }
    found.push(DoctorFinding::fine(
        CHROOT,
        "users may be shut up by chroot; the plugin takes hold of the site's root before",
    ));
}

/// Whether the kernel follows links below a root that is not the process's own.
fn finds_links() -> bool {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    root.is_ok_and(|root| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(&root, ".", flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
    })
}

/// What the running Dovecot sees in the place where the plugin looks. It can be something else than
/// the site: of another name, of a mount that came later, of a container, of PrivateTmp.
fn check_view(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) {
    let Some(pid) = subject.master else { return };
    let run = "run doctor as root, beside Dovecot";
    let place = Path::new(Site::DEFAULT_DIR);
    let root = match root_of(subject, pid) {
        Ok(root) => root,
        Err(error) => {
            let what = format!("root directory of process {pid}: {}", io::Error::from(error));
            found.push(DoctorFinding::could_not_tell(MOUNTS, what, run));
            return;
        }
    };
    let (dir, place_shown) = (subject.site.dir(), place.display());
    let finding = match (seen_from(&root, place), identity(dir)) {
        (Ok(theirs), Ok(ours)) if theirs == ours => {
            let what = format!("the running Dovecot finds {} as {place_shown}", dir.display());
            DoctorFinding::fine(MOUNTS, what)
        }
        (Ok(_), Ok(_)) => DoctorFinding::trouble(
            MOUNTS,
            format_args!(
                "{place_shown}, as the running Dovecot sees it, is another directory than {}",
                dir.display()
            ),
            "POP3 goes by other rosters than those that are looked at and changed here",
            format_args!(
                "stat {} /proc/{pid}/root{place_shown}; let the one be the other, and start \
                 Dovecot again",
                dir.display()
            ),
        ),
        (Err(Errno::NOENT | Errno::NOTDIR), Ok(_)) => DoctorFinding::trouble(
            MOUNTS,
            format_args!("the running Dovecot sees no {place_shown}"),
            "with the plugin loaded POP3 refuses everybody: a site that is not there says nothing \
             of anybody",
            format_args!(
                "ls -ld /proc/{pid}/root{place_shown}; then start Dovecot again, where its unit or \
                 container lets it see the site"
            ),
        ),
        (Err(error), _) | (_, Err(error)) => {
            let what = format!("{place_shown}: {}", io::Error::from(error));
            DoctorFinding::could_not_tell(MOUNTS, what, run)
        }
    };
    found.push(finding);
}

/// The root directory of a process.
fn root_of(subject: &Subject<'_>, pid: u32) -> Result<OwnedFd, Errno> {
    let root = subject.machine.path(format!("/proc/{pid}/root"));
    rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory below a root.
fn below(root: &OwnedFd, dir: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, dir, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        // No link is followed then that begins at another root.
        Err(Errno::NOSYS | Errno::PERM) => {
            let below = dir.strip_prefix("/").unwrap_or(dir);
            rustix::fs::openat(root, below, flags | OFlags::NOFOLLOW, Mode::empty())
        }
        opened => opened,
    }
}

/// Device and number of a directory below a root.
fn seen_from(root: &OwnedFd, dir: &Path) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(below(root, dir)?)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Whether the running Dovecot can write where ledgers lie: ProtectSystem of its unit, and mounts
/// of a container, can make that read-only for it alone.
pub fn check_ledgers(subject: &Subject<'_>, seen: &[SeenMail], found: &mut Vec<DoctorFinding>) {
    let Some(root) = subject.master.and_then(|pid| root_of(subject, pid).ok()) else { return };
    let mut looked_at = BTreeSet::new();
    for mail in seen {
        // A directory that is not made yet will be made in the next one above.
        let mut places = mail.control.ancestors();
        let opened = places.find_map(|dir| Some((dir, below(&root, dir).ok()?)));
        let Some((dir, opened)) = opened else { continue };
        let Ok(mounted) = rustix::fs::fstatvfs(&opened) else { continue };
        if !looked_at.insert(mounted.f_fsid) || !mounted.f_flag.contains(StatVfsMountFlags::RDONLY)
        {
            continue;
        }
        found.push(DoctorFinding::notice(
            LEDGER,
            format_args!("{} of {} is read-only for the running Dovecot", dir.display(), mail.user),
            "no ledger can be written there: what users are told is not remembered",
            "systemctl cat dovecot: ReadWritePaths beside ProtectSystem; or mount it to be written",
        ));
    }
}

fn identity(dir: &Path) -> Result<(u64, u64), Errno> {
    rustix::fs::stat(dir).map(|stat| (stat.st_dev, stat.st_ino))
}

/// The places of units, those that count more before.
const UNIT_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What the unit of Dovecot hides, unless something else has started the Dovecot that runs.
fn check_unit(subject: &Subject<'_>, real: &Path, found: &mut Vec<DoctorFinding>) {
    let group = subject.master.map(|pid| subject.machine.text(format!("/proc/{pid}/cgroup")));
    let is_other = |text: &String| !text.contains("/dovecot.service");
    if group.and_then(Result::ok).flatten().as_ref().is_some_and(is_other) {
        found.push(DoctorFinding::fine(SYSTEMD, "no unit of systemd has started this Dovecot"));
        return;
    }
    let unit = match unit(subject.machine) {
        Ok(Some(unit)) => unit,
        Ok(None) => return,
        Err(error) => {
            let run = "systemctl cat dovecot";
            found.push(DoctorFinding::could_not_tell(SYSTEMD, error, run));
            return;
        }
    };
    let is_set = |name: &str, words: &[&str]| {
        unit.get(name).is_some_and(|values| {
            values.last().is_some_and(|value| words.contains(&value.to_lowercase().as_str()))
        })
    };
    let yes = ["yes", "true", "on", "1"];
    let mut hidden: Vec<(String, &str)> = Vec::new();
    if is_set("PrivateTmp", &yes) || is_set("PrivateTmp", &["disconnected"]) {
        hidden.extend(["/tmp", "/var/tmp"].map(|dir| ("PrivateTmp".to_owned(), dir)));
    }
    if is_set("ProtectHome", &yes) || is_set("ProtectHome", &["tmpfs"]) {
        hidden.extend(["/home", "/root", "/run/user"].map(|dir| ("ProtectHome".to_owned(), dir)));
    }
    for name in ["InaccessiblePaths", "InaccessibleDirectories", "TemporaryFileSystem"] {
        let values = unit.get(name).map(Vec::as_slice).unwrap_or_default();
        let dirs = values.iter().flat_map(|value| value.split_whitespace());
        let dirs = dirs.map(|dir| dir.trim_start_matches(['-', '+']));
        let dirs = dirs.map(|dir| dir.split(':').next().unwrap_or_default());
        hidden.extend(dirs.filter(|dir| dir.starts_with('/')).map(|dir| (name.to_owned(), dir)));
    }
    let hides = |(_, dir): &&(String, &str)| real.starts_with(dir);
    found.push(match hidden.iter().find(hides) {
        Some((setting, dir)) => DoctorFinding::trouble(
            SYSTEMD,
            format_args!(
                "the site lies in {}, and {setting} of dovecot.service hides {dir}",
                real.display()
            ),
            "POP3 finds no site, and refuses everybody whom the plugin is loaded for",
            "move the site to a file system below /var or /srv, and let /var/lib/uidl-keep be a \
             link to it",
        ),
        None => DoctorFinding::fine(
            SYSTEMD,
            format_args!(
                "dovecot.service hides nothing of {}, which POP3 only reads",
                real.display()
            ),
        ),
    });
}

/// The settings of Dovecot's unit and of what is dropped in, each with its values in their order.
/// `None`: there is no such unit.
///
/// # Errors
///
/// A sentence that names file and fact.
fn unit(machine: &Machine) -> Result<Option<BTreeMap<String, Vec<String>>>, String> {
    let named = UNIT_DIRS.map(|dir| Path::new(dir).join("dovecot.service"));
    let Some(unit) = named.iter().find(|path| machine.has(path)) else { return Ok(None) };
    let mut drop_ins: BTreeMap<String, PathBuf> = BTreeMap::new();
    for dir in UNIT_DIRS.iter().rev() {
        let dir = Path::new(dir).join("dovecot.service.d");
        let names = machine.names(&dir, ".conf");
        for name in names.map_err(|error| format!("{}: {error}", dir.display()))? {
            drop_ins.insert(name.clone(), dir.join(name));
        }
    }
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in std::iter::once(unit).chain(drop_ins.values()) {
        let text = machine.text(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for line in text.unwrap_or_default().lines().map(str::trim) {
            let Some((name, value)) = line.split_once('=') else { continue };
            if line.starts_with(['#', ';']) {
                continue;
            }
            let values = settings.entry(name.trim().to_owned()).or_default();
            match value.trim() {
                // An empty value takes back those before.
                "" => values.clear(),
                value => values.push(value.to_owned()),
            }
        }
    }
    Ok(Some(settings))
}

/// Types of files that dovecot_t may read and map.
const MAPPED_TYPES: [&str; 3] = ["dovecot_spool_t", "dovecot_var_lib_t", "uidl_keep_site_t"];
/// Types of files that it may read.
const READ_TYPES: [&str; 5] = ["var_lib_t", "mail_spool_t", "etc_t", "usr_t", "nfs_t"];
/// Types of files that it may not read.
const CLOSED_TYPES: [&str; 8] =
    ["default_t", "unlabeled_t", "tmp_t", "user_tmp_t", "admin_home_t", "root_t", "var_t", "mnt_t"];

/// The context of the site's files, where SELinux decides.
fn check_selinux(subject: &Subject<'_>, real: &Path, found: &mut Vec<DoctorFinding>) {
    match subject.machine.text("/sys/fs/selinux/enforce") {
        Ok(Some(text)) if text.trim() == "1" => {}
        Ok(_) => return,
        Err(error) => {
            let what = format!("/sys/fs/selinux/enforce: {error}");
            found.push(DoctorFinding::could_not_tell(SELINUX, what, "getenforce"));
            return;
        }
    }
    let mut context = [0_u8; 512];
    let read = rustix::fs::getxattr(real, "security.selinux", &mut context[..]);
    let context = match read {
        Ok(len) => printable(context[..len].strip_suffix(b"\0").unwrap_or(&context[..len])),
        Err(error) => {
            let what = format!("context of {}: {}", real.display(), io::Error::from(error));
            let run = format!("ls -Zd {}", real.display());
            found.push(DoctorFinding::could_not_tell(SELINUX, what, run));
            return;
        }
    };
    let kind = context.split(':').nth(2).unwrap_or_default();
    let is_of = |types: &[&str]| types.contains(&kind);
    let relabel = format!(
        "semanage fcontext -a -t dovecot_spool_t '{0}(/.*)?'; restorecon -R {0}",
        real.display()
    );
    let what = format!("SELinux is enforcing, and {} is {kind}", real.display());
    found.push(if is_of(&MAPPED_TYPES) {
        DoctorFinding::fine(SELINUX, what)
    } else if is_of(&READ_TYPES) {
        let why = "Dovecot may read such files and not map them: all are served, and each look-up \
                   reads a little more";
        DoctorFinding::notice(SELINUX, what, why, relabel)
    } else if is_of(&CLOSED_TYPES) {
        let why = "Dovecot may not read such files: POP3 refuses whoever is on a roster";
        DoctorFinding::trouble(SELINUX, what, why, relabel)
    } else {
        let what = format!("{what}: whether Dovecot may read that is not known here");
        let run = format!("sesearch --allow -s dovecot_t -t {kind} -c file; or: {relabel}");
        DoctorFinding::could_not_tell(SELINUX, what, run)
    });
}

/// Whether profiles of AppArmor's let POP3 read the site, and auth what `hold --auth` writes there.
fn check_apparmor(subject: &Subject<'_>, real: &Path, found: &mut Vec<DoctorFinding>) {
    let run = "aa-status";
    let profiles = match subject.machine.text("/sys/kernel/security/apparmor/profiles") {
        Ok(Some(profiles)) => profiles,
        Ok(None) => return,
        Err(error) => {
            let what = format!("/sys/kernel/security/apparmor/profiles: {error}");
            found.push(DoctorFinding::could_not_tell(APPARMOR, what, run));
            return;
        }
    };
    let auth = real.join("auth");
    let mut programs = vec![("pop3", real)];
    if auth.is_dir() {
        programs.push(("auth", &auth));
    }
    for (program, place) in programs {
        let is_it = |line: &&str| {
            let name = line.split(" (").next().unwrap_or_default();
            name.contains("dovecot") && name.ends_with(program)
        };
        let confines = |line: &&str| line.ends_with("(enforce)") || line.ends_with("(kill)");
        let Some(profile) = profiles.lines().filter(is_it).find(confines) else {
            let what = format!("no profile confines Dovecot's {program}");
            found.push(DoctorFinding::fine(APPARMOR, what));
            continue;
        };
        let file = format!("usr.lib.dovecot.{program}");
        let (whole, local) =
            (format!("/etc/apparmor.d/{file}"), format!("/etc/apparmor.d/local/{file}"));
        let read = |path: &str| match subject.machine.text(path) {
            Ok(text) => Ok(text.unwrap_or_default()),
            Err(error) => Err(format!("{path}: {error}")),
        };
        let rules = match read(&whole).and_then(|rules| Ok(rules + &read(&local)?)) {
            Ok(rules) => rules,
            Err(what) => {
                found.push(DoctorFinding::could_not_tell(APPARMOR, what, run));
                continue;
            }
        };
        let shown = place.display().to_string();
        let allows = |line: &str| {
            let rule = line.split('#').next().unwrap_or_default().trim();
            let rest = rule.strip_prefix(&shown).and_then(|rest| rest.strip_prefix("/**"));
            rest.is_some_and(|rest| rest.contains('r'))
        };
        found.push(if rules.lines().any(allows) {
            DoctorFinding::fine(APPARMOR, format_args!("{profile}: it may read {shown}"))
        } else {
            let why = match program {
                "pop3" => "POP3 finds no site, and refuses everybody whom the plugin is loaded for",
                _ => "Dovecot's auth cannot read who is held: the plugin alone refuses them",
            };
            DoctorFinding::trouble(
                APPARMOR,
                format_args!("{profile} confines Dovecot's {program}, and has no rule for {shown}"),
                why,
                format_args!(
                    "write \"{shown}/ r,\" and \"{shown}/** r,\" to {local}; then \
                     apparmor_parser -r {whole}"
                ),
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_dropped_in_counts_in_its_order_and_an_empty_value_takes_back() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let machine = Machine::at(root.path());
        assert_eq!(unit(&machine), Ok(None));
        write("lib/systemd/system/dovecot.service", "[Service]\nPrivateTmp=true\n#ProtectHome=1\n");
        write("lib/systemd/system/dovecot.service.d/10-a.conf", "InaccessiblePaths=/a\n");
        write(
            "run/systemd/system/dovecot.service.d/20-b.conf",
            "InaccessiblePaths=\nPrivateTmp=no",
        );
        write("etc/systemd/system/dovecot.service.d/10-a.conf", "InaccessiblePaths=/c\n");
        write("etc/systemd/system/dovecot.service.d/30-c.conf", "InaccessiblePaths=-/d /e\n");
        let settings = unit(&machine).unwrap().unwrap();
        assert_eq!(settings["PrivateTmp"], ["true", "no"]);
        assert_eq!(settings["InaccessiblePaths"], ["-/d /e"]);
        assert!(!settings.contains_key("ProtectHome"), "{settings:?}");
    }
}
