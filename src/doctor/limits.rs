//! Whether there is room: address space for the largest maildrop, and files and octets for ledgers.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::doctor::access::SeenMail;
use crate::doctor::facts::SiteFacts;
use crate::doctor::finding::DoctorFinding;
use crate::doctor::machine::Machine;
use crate::doctor::subject::Subject;

const VSZ_LIMIT: &str = "vsz_limit";
const ROOM: &str = "room";
const QUOTA: &str = "quota";

/// Address space that a POP3 process takes before it looks at a message: programs, libraries and
/// plugins.
const BASE_OCTETS: u64 = 24 << 20;
/// Address space for each message of a first listing: 0.78 KB were measured, where headers tell
/// which message is which.
const OCTETS_A_MESSAGE: u64 = 820;

/// What a ledger has for each message, at most: a record, a UIDL and an alias for it.
const LEDGER_OCTETS_A_MESSAGE: u64 = 200;
/// What a maildrop takes beside: the lock with the mark, and the ends of blocks.
const LEDGER_OCTETS: u64 = 16 << 10;
/// Files that are there at once: ledger, the next one beside it, lock, fingerprints.
const LEDGER_FILES: u64 = 4;

/// Looks at the limits of a process, and at the file systems that the mail lies on.
pub fn check(
    subject: &Subject<'_>,
    facts: &SiteFacts,
    seen: &[SeenMail],
    found: &mut Vec<DoctorFinding>,
) {
    check_address_space(subject, facts, found);
    let mut file_systems: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for dir in seen.iter().map(|mail| mail.control.as_path()) {
        if let Some((device, place)) = device_of(dir) {
            file_systems.entry(device).or_insert(place);
        }
    }
    let mut is_quota_asked = false;
    for (device, place) in &file_systems {
        check_room(facts, place, found);
        if !is_quota_asked && has_quota(subject.machine, *device) {
            is_quota_asked = true;
            check_quota(seen, place, found);
        }
    }
}

fn check_address_space(subject: &Subject<'_>, facts: &SiteFacts, found: &mut Vec<DoctorFinding>) {
    let run = "doveconf service/pop3/vsz_limit default_vsz_limit";
    let most = match subject.dovecot.pop3_address_space() {
        Ok(most) => most,
        Err(error) => {
            found.push(DoctorFinding::could_not_tell(VSZ_LIMIT, error, run));
            return;
        }
    };
    let Some(most) = most else {
        found.push(DoctorFinding::fine(VSZ_LIMIT, "POP3 has no limit of address space"));
        return;
    };
    let Some((user, count)) = &facts.largest else { return };
    let needed = (*count as u64).saturating_mul(OCTETS_A_MESSAGE).saturating_add(BASE_OCTETS);
    let mega = |octets: u64| octets.div_ceil(1 << 20);
    let what = format!(
        "vsz_limit of POP3 is {} MB; {user} has {count} messages, whose first listing takes about \
         {} MB",
        mega(most),
        mega(needed)
    );
    found.push(if needed <= most {
        DoctorFinding::fine(VSZ_LIMIT, what)
    } else {
        let why = "Dovecot ends the process at the limit: the login fails, each time again";
        let run = format!("write: service pop3 {{ vsz_limit = {} M }}", mega(needed) * 3 / 2);
        DoctorFinding::trouble(VSZ_LIMIT, what, why, run)
    });
}

/// The device that a directory is on, or the next one above it that is there, and its place.
fn device_of(dir: &Path) -> Option<(u64, PathBuf)> {
    dir.ancestors().find_map(|dir| Some((fs::metadata(dir).ok()?.dev(), dir.to_owned())))
}

fn check_room(facts: &SiteFacts, place: &Path, found: &mut Vec<DoctorFinding>) {
    let free = match rustix::fs::statvfs(place) {
        Ok(free) => free,
        Err(error) => {
            let what = format!("{}: {}", place.display(), std::io::Error::from(error));
            let run = format!("df {}", place.display());
            found.push(DoctorFinding::could_not_tell(ROOM, what, run));
            return;
        }
    };
    let users = facts.migrated() as u64;
    let octets = facts.entries * LEDGER_OCTETS_A_MESSAGE + users * LEDGER_OCTETS;
    let files = users * LEDGER_FILES;
    let free_octets = free.f_bavail.saturating_mul(free.f_frsize);
    // A file system that makes files as they are wanted has no number of them.
    let lacks_files = free.f_files > 0 && free.f_favail < files;
    if free_octets >= octets && !lacks_files {
        let what = format!("the file system of {} has room for all ledgers", place.display());
        found.push(DoctorFinding::fine(ROOM, what));
        return;
    }
    found.push(DoctorFinding::notice(
        ROOM,
        format_args!(
            "the file system of {} has {} MB and {} files left; the ledgers of {users} users take \
             up to {} MB and {files} files",
            place.display(),
            free_octets >> 20,
            free.f_favail,
            octets.div_ceil(1 << 20)
        ),
        "without a ledger all are served, and what they are told is not remembered",
        format_args!("df {0}; df -i {0}", place.display()),
    ));
}

/// The words by which a mount says that it counts what each user has.
const QUOTA_WORDS: [&str; 8] =
    ["usrquota", "grpquota", "prjquota", "uquota", "gquota", "pquota", "quota", "uqnoenforce"];

/// Whether a file system is mounted with quotas.
fn has_quota(machine: &Machine, device: u64) -> bool {
    let mounts = machine.text("/proc/self/mountinfo").ok().flatten().unwrap_or_default();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let numbers = format!("{major}:{minor}");
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        let is_it = fields.nth(2) == Some(&numbers);
        let options = line.rsplit(' ').next().unwrap_or_default();
        let is_word = |word: &str| {
            let name = word.split('=').next().unwrap_or_default();
            QUOTA_WORDS.contains(&name) || ["usrjquota", "grpjquota"].contains(&name)
        };
        is_it && options.split(',').any(is_word)
    })
}

/// Asks the system's own program which of the accounts are over their quota.
fn check_quota(seen: &[SeenMail], place: &Path, found: &mut Vec<DoctorFinding>) {
    let accounts: BTreeSet<u32> = seen.iter().map(|mail| mail.account.0).collect();
    let mut over = Vec::new();
    for uid in &accounts {
        let mut quota = Command::new("quota");
        // It prints nothing, and exits by 0, for whoever is not over.
        let asked = quota.args(["-q", "-u", &uid.to_string()]).stdin(Stdio::null()).output();
        match asked {
            Ok(output) if output.status.success() && output.stdout.trim_ascii().is_empty() => {}
            Ok(_) => over.push(*uid),
            Err(error) => {
                found.push(DoctorFinding::notice(
                    QUOTA,
                    format_args!(
                        "{} has quotas, and `quota` cannot be run: {error}",
                        place.display()
                    ),
                    "a ledger counts for its owner; whoever is over quota is served without one",
                    "repquota -a, once the quota tools are installed",
                ));
                return;
            }
        }
    }
    let Some(first) = over.first() else {
        let what = format!("{} has quotas, and nobody of the sample is over his", place.display());
        found.push(DoctorFinding::fine(QUOTA, what));
        return;
    };
    let user = seen.iter().find(|mail| mail.account.0 == *first).map(|mail| mail.user.as_str());
    found.push(DoctorFinding::notice(
        QUOTA,
        format_args!(
            "{} accounts are over their quota on {}; the first: uid {first}, {}",
            over.len(),
            place.display(),
            user.unwrap_or_default()
        ),
        "they are served, and without a ledger what they are told is not remembered",
        format_args!("quota -u {first}"),
    ));
}
