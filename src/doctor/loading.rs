//! Whether POP3 loads the plugin, and whether anything else does.
#![forbid(unsafe_code)]

use crate::doctor::facts::SiteFacts;
use crate::doctor::finding::DoctorFinding;
use crate::doctor::panel;
use crate::doctor::subject::Subject;
use crate::dovecot::{InboxPath, Pop3Plugins};
use crate::site::Site;
use crate::site::roster::Gate;
use crate::status::{LedgerSeen, MaildropStatus, look};

const MAIL_PLUGINS: &str = "mail_plugins";
const SETTING: &str = "doveconf -f protocol=pop3 mail_plugins";

/// Users in one question: Dovecot opens the mail of each.
const USERS_AT_A_TIME: usize = 500;

/// What `mail_plugins` of POP3 says. `None`: could not tell.
pub fn ask(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) -> Option<Pop3Plugins> {
    match subject.dovecot.pop3_loads() {
        Ok(plugins) => Some(plugins),
        Err(error) => {
            found.push(DoctorFinding::could_not_tell(MAIL_PLUGINS, error, SETTING));
            None
        }
    }
}

/// Tells it, and who needs it.
pub fn check(
    subject: &Subject<'_>,
    plugins: &Pop3Plugins,
    facts: &SiteFacts,
    found: &mut Vec<DoctorFinding>,
) {
    check_others(subject, found);
    check_overlooked(subject, found);
    let lines = match subject.is_2_4() {
        true => "protocol pop3 { mail_plugins { uidl_keep = yes } }",
        false => "protocol pop3 { mail_plugins = $mail_plugins uidl_keep }",
    };
    let mut lines = lines.to_owned();
    let what = match plugins {
        Pop3Plugins::Loaded => {
            found.push(DoctorFinding::fine(MAIL_PLUGINS, "POP3 loads uidl_keep"));
            return;
        }
        Pop3Plugins::Without(said) => {
            format!("POP3 does not load uidl_keep: `{SETTING}` says \"{said}\"")
        }
        Pop3Plugins::Swallowed { said, names } => {
            lines = format!("protocol pop3 {{ mail_plugins = {} }}", names.join(" "));
            format!(
                "POP3 does not load uidl_keep: `{SETTING}` says \"{said}\", and the whole of it is \
                 taken for the name of a file, which is not there"
            )
        }
    };
    let run = format!("{}: {lines}", panel::advice(subject.machine));
    found.push(match depending(subject, facts) {
        Ok(None) if facts.migrated() == 0 => {
            let why = "nobody was migrated yet; load it before the first build is installed";
            DoctorFinding::notice(MAIL_PLUGINS, what, why, run)
        }
        Ok(None) => {
            let all = "and need not: Dovecot itself has the UIDLs of everybody on the rosters";
            DoctorFinding::fine(MAIL_PLUGINS, format_args!("{what}; {all}"))
        }
        Ok(Some(depending)) => DoctorFinding::trouble(MAIL_PLUGINS, what, depending, run),
        Err(why) => DoctorFinding::trouble(
            MAIL_PLUGINS,
            what,
            format_args!(
                "could not tell who depends on it ({why}); whoever is held is served, and whoever \
                 is not baked gets new UIDLs"
            ),
            run,
        ),
    });
}

/// A setting of ours that stands in Dovecot's configuration is not read there. The plugin does not
/// look past it: 2.3 takes any setting in `plugin {}`, and 2.4 does not start with it.
fn check_overlooked(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) {
    let mut lines = subject.about.changed.lines().map(str::trim);
    let Some(line) = lines.find(|line| line.starts_with("uidl_keep_")) else { return };
    let why = "POP3 refuses everybody whom the plugin is loaded for, for nothing reads it there";
    let run = format!(
        "take it out, and doveadm reload; the site is {0}, or a link there, and all else stands in \
         {0}/settings",
        Site::DEFAULT_DIR
    );
    let what = format!("Dovecot's configuration has {line}");
    found.push(DoctorFinding::trouble(MAIL_PLUGINS, what, why, run));
}

fn check_others(subject: &Subject<'_>, found: &mut Vec<DoctorFinding>) {
    let finding = match subject.dovecot.others_that_load() {
        Ok(others) if others.is_empty() => {
            DoctorFinding::fine(MAIL_PLUGINS, "nothing but POP3 loads uidl_keep")
        }
        Ok(others) => DoctorFinding::notice(
            MAIL_PLUGINS,
            format_args!("{} load uidl_keep, too", others.join(", ")),
            "after an upgrade of Dovecot a plugin that does not fit stops them, and every doveadm \
             command of a panel",
            "name uidl_keep in `protocol pop3` alone; then doveadm reload",
        ),
        Err(error) => DoctorFinding::could_not_tell(MAIL_PLUGINS, error, "doveconf mail_plugins"),
    };
    found.push(finding);
}

/// Who on the rosters would be told something else, or let in, without the plugin, in a sentence.
/// `None`: nobody.
fn depending(subject: &Subject<'_>, facts: &SiteFacts) -> Result<Option<String>, String> {
    let mut depending = 0;
    let mut first = None;
    let lines: Vec<_> = facts.lines().filter(|line| line.gate != Gate::Redownload).collect();
    for chunk in lines.chunks(USERS_AT_A_TIME) {
        let users: Vec<String> = chunk.iter().map(|line| line.user.clone()).collect();
        if subject.master.is_none() {
            return Err("Dovecot does not run".to_owned());
        }
        let places = subject.dovecot.inbox_paths(&users, InboxPath::Control);
        let mut places = places.map_err(|error| error.to_string())?;
        for line in chunk {
            let seen = match places.remove(&line.user) {
                Some(dir) => look(&line.user, &dir),
                None => LedgerSeen::NotLooked,
            };
            let status = MaildropStatus { line: (*line).clone(), seen };
            if !is_baked(&status) {
                depending += 1;
                first.get_or_insert_with(|| line.user.clone());
            }
        }
    }
    Ok(first.map(|first| {
        format!(
            "{depending} of {} maildrops depend on it; the first: {first}. Whoever of them is held \
             is served now, and the others get new UIDLs",
            lines.len()
        )
    }))
}

/// Whether Dovecot alone tells the same, and may.
fn is_baked(status: &MaildropStatus) -> bool {
    let LedgerSeen::Listed(listed) = &status.seen else { return false };
    status.is_served() && status.is_listed() == Some(true) && listed.bake.is_whole()
}
