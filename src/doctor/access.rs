//! Whether users can be served: their names as Dovecot spells them, and their files opened by the
//! very account that will open them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::account::AccountIds;
use crate::doctor::as_owner::{OwnerAnswer, OwnerQuestion, questions};
use crate::doctor::facts::SiteFacts;
use crate::doctor::finding::DoctorFinding;
use crate::doctor::subject::Subject;
use crate::dovecot::{DovecotError, InboxPath};

const ACCESS: &str = "access";
const NAMES: &str = "names";
const LEDGER: &str = "ledger";

/// The mail of a user who was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMail {
    /// The user.
    pub user: String,
    /// The uid and gid that POP3 serves him with.
    pub account: (u32, u32),
    /// Where his ledger lies, or will lie.
    pub control: PathBuf,
}

/// Looks at a sample of the users. Returns their mail.
pub fn check(
    subject: &Subject<'_>,
    facts: &SiteFacts,
    found: &mut Vec<DoctorFinding>,
) -> Vec<SeenMail> {
    let sample = facts.sample(subject.most_users);
    let users: Vec<String> = sample.iter().map(|line| line.user.clone()).collect();
    if users.is_empty() {
        return Vec::new();
    }
    let seen =
        check_names(subject, &users, found).and_then(|known| mail_of(subject, &known, found));
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let run = "start Dovecot, or name it with --doveadm and --doveadm-args";
            found.push(DoctorFinding::could_not_tell(ACCESS, error, run));
            return Vec::new();
        }
    };
    check_files(subject, facts, &seen, found);
    seen
}

/// Returns the users whom Dovecot knows by the same name.
fn check_names(
    subject: &Subject<'_>,
    users: &[String],
    found: &mut Vec<DoctorFinding>,
) -> Result<Vec<String>, DovecotError> {
    let names = subject.dovecot.names(users)?;
    if let Some(fault) = subject.dovecot.fault_of_names(&names) {
        found.push(DoctorFinding::trouble(
            NAMES,
            fault,
            "under that name nobody is on a roster: POP3 gives him new UIDLs",
            "capture again with --rename, or with names as Dovecot has them, and build",
        ));
    }
    if let Some(first) = names.unknown.first() {
        found.push(DoctorFinding::notice(
            NAMES,
            format_args!(
                "Dovecot does not know {} of {} users who are on a roster; the first: {first}",
                names.unknown.len(),
                users.len()
            ),
            "under another name POP3 would give new UIDLs to whoever this is",
            format_args!("doveadm user '{first}'"),
        ));
    }
    if names.unknown.is_empty() && names.renamed.is_empty() {
        let what = format!("Dovecot has the same names for {} users", users.len());
        found.push(DoctorFinding::fine(NAMES, what));
    }
    let is_known = |user: &&String| {
        !names.unknown.contains(user) && !names.renamed.iter().any(|(known, _)| known == *user)
    };
    Ok(users.iter().filter(is_known).cloned().collect())
}

/// Asks Dovecot for account and place of each user's mail.
fn mail_of(
    subject: &Subject<'_>,
    users: &[String],
    found: &mut Vec<DoctorFinding>,
) -> Result<Vec<SeenMail>, DovecotError> {
    // doveadm takes these for wildcards.
    let users: Vec<String> =
        users.iter().filter(|user| !user.contains(['*', '?'])).cloned().collect();
    let mut places = subject.dovecot.inbox_paths(&users, InboxPath::Control)?;
    let accounts = subject.dovecot.accounts_of(&users)?;
    let (mut seen, mut unopened) = (Vec::new(), Vec::new());
    let mut ids = Ids::default();
    for user in &users {
        let account = accounts
            .get(user)
            .and_then(|(uid, gid)| Some((ids.of("passwd", uid)?, ids.of("group", gid)?)));
        match (account, places.remove(user)) {
            (Some(account), Some(control)) => {
                seen.push(SeenMail { user: user.clone(), account, control });
            }
            _ => unopened.push(user.as_str()),
        }
    }
    if let Some(first) = unopened.first() {
        found.push(DoctorFinding::could_not_tell(
            ACCESS,
            format_args!(
                "Dovecot names no account or no INBOX of {} users; the first: {first}",
                unopened.len()
            ),
            format_args!("doveadm user '{first}'; doveadm mailbox path -u '{first}' INBOX"),
        ));
    }
    Ok(seen)
}

/// Opens roster and index as each of them.
fn check_files(
    subject: &Subject<'_>,
    facts: &SiteFacts,
    seen: &[SeenMail],
    found: &mut Vec<DoctorFinding>,
) {
    let mut accounts: BTreeMap<(u32, u32), Vec<OwnerQuestion>> = BTreeMap::new();
    for mail in seen {
        let question =
            OwnerQuestion { user: mail.user.clone(), control: Some(mail.control.clone()) };
        accounts.entry(mail.account).or_default().push(question);
    }
    let mut answers = Vec::new();
    for (account, asked) in &accounts {
        let ids = AccountIds { uid: account.0, gid: account.1 };
        match questions(subject.helper, subject.site.dir(), ids, asked) {
            Ok(answered) => answers.extend(answered.into_iter().map(|one| (*account, one))),
            Err(error) => {
                let what = format!("could not open files as their reader: {error}");
                let run = "run doctor as root, on the server itself";
                found.push(DoctorFinding::could_not_tell(ACCESS, what, run));
            }
        }
    }
    let place = |(uid, gid): (u32, u32), user: &str| format!("{user} (uid {uid}, gid {gid})");
    let all = answers.len();
    let mut is_fine = all > 0;
    let mut tell = |about, weigh: Weigher, count: usize, first: String, what: &str, why, run| {
        let what = format!("{count} of {all} users that were tried {what}; the first: {first}");
        found.push(weigh(about, what, why, run));
    };
    let faults: Vec<(&(u32, u32), &OwnerAnswer, &String)> = answers
        .iter()
        .filter_map(|(account, answer)| Some((account, answer, answer.fault.as_ref()?)))
        .collect();
    if let Some((account, answer, fault)) = faults.first() {
        is_fine = false;
        let first = format!("{}: {fault}", place(**account, &answer.user));
        let why = "POP3 refuses them: could not tell what they were told before";
        let run = "uidl-keep check SITE; then look at modes and owners: namei -l FILE";
        let what = "cannot be looked up by the account that POP3 serves them with";
        tell(ACCESS, trouble, faults.len(), first, what, why, run);
    }
    let denied: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_map_denied).collect();
    if let Some((account, answer)) = denied.first() {
        let first = place(*account, &answer.user);
        let why = "they are served; an index is read then, which costs a little";
        let run = "ls -Z SITE: the context of a file that Dovecot may map is dovecot_spool_t";
        tell(ACCESS, notice, denied.len(), first, "have an index that cannot be mapped", why, run);
    }
    let unwritable: Vec<_> = answers
        .iter()
        .filter_map(|(account, answer)| Some((account, answer, answer.unwritable.as_ref()?)))
        .collect();
    if let Some((account, answer, why)) = unwritable.first() {
        let first = format!("{}: {why}", place(**account, &answer.user));
        let why = "they are served, and what they are told is not remembered";
        let run = "chown the directory to the owner of the mail";
        tell(LEDGER, notice, unwritable.len(), first, "have no place for a ledger", why, run);
    }
    if is_fine {
        found.push(DoctorFinding::fine(
            ACCESS,
            format_args!(
                "roster and index were opened for {all} of {} users, by {} accounts of theirs",
                facts.migrated(),
                accounts.len()
            ),
        ));
    }
}

type Weigher = fn(&'static str, String, &'static str, &'static str) -> DoctorFinding;

fn trouble(about: &'static str, what: String, why: &str, run: &str) -> DoctorFinding {
    DoctorFinding::trouble(about, what, why, run)
}

fn notice(about: &'static str, what: String, why: &str, run: &str) -> DoctorFinding {
    DoctorFinding::notice(about, what, why, run)
}

/// Ids by the names that the system has for them.
#[derive(Default)]
struct Ids(BTreeMap<String, Option<u32>>);

impl Ids {
    /// The id that a number, or a name in that database of the system's, says.
    fn of(&mut self, database: &str, value: &str) -> Option<u32> {
        if let Ok(id) = value.parse() {
            return Some(id);
        }
        let key = format!("{database} {value}");
        *self.0.entry(key).or_insert_with(|| {
            let mut getent = Command::new("getent");
            let output = getent.args([database, value]).stdin(Stdio::null()).output().ok()?;
            let line = String::from_utf8_lossy(&output.stdout).into_owned();
            line.split(':').nth(2)?.trim().parse().ok()
        })
    }
}
