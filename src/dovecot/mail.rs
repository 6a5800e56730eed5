//! What Dovecot has of a user's INBOX, as `doveadm` prints it: [`Dovecot::fetch`].
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::watched::{self, Ended};
use super::{Dovecot, DovecotError, InboxPath, PLUGIN, no_answer, output_of};

/// What clients are told of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldMessage {
    /// Its UID.
    pub uid: u32,
    /// Its UIDL. Empty: there is none that is stored or kept.
    pub uidl: String,
    /// The number by which Dovecot sorts it; it comes last where there is none.
    pub order: Option<u32>,
}

/// The longest time that a copy of one user's mail may take.
const COPY_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// The longest list of UIDs in one question: an argument has its limits.
const MOST_SEARCH_OCTETS: usize = 100_000;

impl Dovecot {
    /// The same Dovecot, whose `doveadm` does not load our plugin, and what else it loads. So it
    /// says what its storage has, and not what clients will be told.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn without_plugin(&self) -> Result<Self, DovecotError> {
        let mut names = self.plugins_of_doveadm()?;
        names.retain(|name| name != PLUGIN);
        Ok(self.loading(&names))
    }

    /// The same Dovecot, whose `doveadm` loads our plugin, and what else it loads: without quota,
    /// compression or encryption, mail would be copied wrong or not at all.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn with_plugin(&self) -> Result<Self, DovecotError> {
        let mut names = self.plugins_of_doveadm()?;
        if !names.iter().any(|name| name == PLUGIN) {
            names.push(PLUGIN.to_owned());
        }
        Ok(self.loading(&names))
    }

    /// The mail plugins that doveadm loads.
    fn plugins_of_doveadm(&self) -> Result<Vec<String>, DovecotError> {
        // `-x`: a list may be the content of a file, `</etc/dovecot/mail_plugins`. A name that is
        // put behind that would be one of the file's own.
        self.plugins_of("doveadm", &["-x"])
    }

    /// The mail plugins that a protocol loads.
    pub(super) fn plugins_of(
        &self,
        protocol: &str,
        args: &[&str],
    ) -> Result<Vec<String>, DovecotError> {
        // 2.4 shows only what the block itself says; what it adds to comes before.
        let ask = |more: &[&str]| self.doveconf(&[args, more, &["mail_plugins"]].concat());
        let global = ask(&[])?;
        let own = ask(&["-f", &format!("protocol={protocol}")])?;
        Ok(plugins_in(&[&global, &own]))
    }

    /// The mail plugins that POP3 loads, in Dovecot's order.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn pop3_plugins(&self) -> Result<Vec<String>, DovecotError> {
        self.plugins_of("pop3", &[])
    }

    /// Both release lines take this for the whole list.
    fn loading(&self, plugins: &[String]) -> Self {
        self.with_settings([format!("mail_plugins={}", plugins.join(" "))])
    }

    fn with_settings(&self, settings: impl IntoIterator<Item = String>) -> Self {
        let mut dovecot = self.clone();
        let args = settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]);
        dovecot.args.extend(args);
        dovecot
    }

    /// The same Dovecot, whose `doveadm` looks for mail at that place, which is written as in
    /// `mail_location` of 2.3: `mdbox:~/mdbox:INDEX=/var/index/%u`. Where a namespace has a place
    /// of its own, that stays.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: among others, it is 2.4, and has no setting for a part of the location.
    pub fn at(&self, location: &str) -> Result<Self, DovecotError> {
        let said = self.doveconf(&["-n"])?;
        let version = said.lines().next().and_then(|line| line.strip_prefix("# "));
        if !version.is_some_and(|version| version.starts_with("2.4")) {
            return Ok(self.with_settings([format!("mail_location={location}")]));
        }
        let mut parts = location.split(':');
        let (driver, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut settings = vec![format!("mail_driver={driver}"), format!("mail_path={path}")];
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let setting = match key {
                "CONTROL" => "mail_control_path",
                "INDEX" => "mail_index_path",
                "ALT" => "mail_alt_path",
                _ => {
                    let said = format!("{location}: there is no setting for {part} here");
                    return Err(DovecotError::Answer { program: self.doveadm.clone(), said });
                }
            };
            settings.push(format!("{setting}={value}"));
        }
        Ok(self.with_settings(settings))
    }

    /// Copies a user's mail to that place, so that it is there what it is here.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: then what was copied is of no use.
    pub fn backup(&self, user: &str, location: &str) -> Result<(), DovecotError> {
        let mut command = self.doveadm_of(user, &["backup"])?;
        command.arg(location);
        // It says nothing until it is done.
        let patient = self.clone().within(COPY_PATIENCE);
        patient
            .read_of(command, |said| std::io::copy(said, &mut std::io::sink()))?
            .map(drop)
            .map_err(|error| DovecotError::Program { program: self.doveadm.clone(), error })
    }

    /// A setting as POP3 has it, unread.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]; also where there is no such setting.
    pub fn pop3_setting(&self, name: &str) -> Result<String, DovecotError> {
        // Dovecot 2.4 refuses `-h` for a single setting.
        let value = self.setting(&["-f", "protocol=pop3", name], name)?;
        value.ok_or_else(|| DovecotError::Answer {
            program: self.doveadm.with_file_name("doveconf"),
            said: format!("it does not tell {name}"),
        })
    }

    /// One directory of one user's INBOX, whether it is there or not: see
    /// [`Dovecot::inbox_paths`].
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: Dovecot does not know the user, or cannot open his mail, among others.
    pub fn inbox_path(&self, user: &str, path: InboxPath) -> Result<PathBuf, DovecotError> {
        let mut command = self.doveadm_of(user, &["mailbox", "path"])?;
        command.args(["-t", path.word(), "INBOX"]);
        let output = output_of(&mut command, self.patience)?;
        let objects: Vec<BTreeMap<String, String>> =
            serde_json::from_slice(&output.stdout).unwrap_or_default();
        let path = objects.into_iter().find_map(|mut object| object.remove("path"));
        let path = path.map(PathBuf::from).ok_or_else(|| no_answer(&command, &output))?;
        if self.may_chroot()? { self.outside(user, path) } else { Ok(path) }
    }

    /// Whether Dovecot may shut users up in a directory, in which their paths begin.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub(super) fn may_chroot(&self) -> Result<bool, DovecotError> {
        let said = self.doveconf(&["mail_chroot", "valid_chroot_dirs"])?;
        Ok(said
            .lines()
            .filter_map(|line| line.split_once('='))
            .any(|(_, dir)| !dir.trim().is_empty()))
    }

    /// The path of a user who may be shut up, as it is for others.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub(super) fn outside(&self, user: &str, path: PathBuf) -> Result<PathBuf, DovecotError> {
        let field = |field| {
            let mut command = Command::new(&self.doveadm);
            command.args(&self.args).args(["user", "-u", "-f", field, "--", user]);
            let output = output_of(&mut command, self.patience)?;
            if !output.status.success() {
                return Err(no_answer(&command, &output));
            }
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        // `home=/srv/mail/./alice` shuts him up in /srv/mail.
        let chroot = match field("home")?.split_once("/./") {
            Some((chroot, _)) => chroot.to_owned(),
            None => match field("chroot")? {
                chroot if chroot.is_empty() => {
                    self.setting(&["mail_chroot"], "mail_chroot")?.unwrap_or_default()
                }
                chroot => chroot,
            },
        };
        if chroot.contains('%') {
            return Err(DovecotError::Answer {
                program: self.doveadm.clone(),
                said: format!("the chroot of {user} is {chroot}, and only Dovecot knows which"),
            });
        }
        // 2.3 does not shut up users that it is asked of by a list.
        Ok(match path.starts_with(&chroot) || chroot.is_empty() {
            true => path,
            false => PathBuf::from(chroot).join(path.strip_prefix("/").unwrap_or(&path)),
        })
    }

    /// UIDVALIDITY and next UID of the user's INBOX, as Dovecot itself says.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn inbox_epoch(&self, user: &str) -> Result<(u32, u32), DovecotError> {
        let mut command = Command::new(&self.doveadm);
        command.args(&self.args);
        command.args(["mailbox", "status", "-u", user, "uidvalidity uidnext", "INBOX"]);
        let output = output_of(&mut command, self.patience)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let number = |key: &str| {
            let word = said.split_whitespace().find_map(|word| word.strip_prefix(key));
            word.and_then(|digits| digits.parse::<u32>().ok())
        };
        match (number("uidvalidity="), number("uidnext=")) {
            (Some(uidvalidity), Some(next_uid)) => Ok((uidvalidity, next_uid)),
            _ => Err(no_answer(&command, &output)),
        }
    }
    /// Hands on, as JSON, how many messages are in a user's INBOX, its UIDVALIDITY and the next
    /// UID.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: then what was read is of no use.
    pub fn status<T>(
        &self,
        user: &str,
        read: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, DovecotError> {
        let mut command = self.doveadm_of(user, &["mailbox", "status"])?;
        command.args(["messages uidvalidity uidnext", "INBOX"]);
        self.read_of(command, read)
    }

    /// Hands on, as JSON, these fields of the messages of a user's INBOX that have these UIDs;
    /// `None`: of all. It may be more messages. UIDs ascend. Where a message has no such field or
    /// cannot be read, that is an error of all of them.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: then what was read is of no use.
    pub fn fetch<T>(
        &self,
        user: &str,
        fields: &str,
        uids: Option<&[u32]>,
        read: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, DovecotError> {
        let mut command = self.doveadm_of(user, &["fetch"])?;
        command.args([fields, "mailbox", "INBOX"]);
        match uids.map(search_of).filter(|search| search.len() <= MOST_SEARCH_OCTETS) {
            Some(search) => command.args(["uid", &search]),
            None => command.arg("all"),
        };
        self.read_of(command, read)
    }

    /// What this Dovecot says that clients of a user are told of each message, by UID: what they
    /// will see, where it [loads our plugin](Dovecot::with_plugin).
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: could not tell.
    pub fn told(&self, user: &str) -> Result<Vec<ToldMessage>, DovecotError> {
        let fields = "uid pop3.uidl pop3.order";
        let read: Result<Vec<BTreeMap<String, String>>, _> =
            self.fetch(user, fields, None, |said| serde_json::from_reader(said))?;
        let lacking = |what: &str| DovecotError::Answer {
            program: self.doveadm.clone(),
            said: format!("gives no {what} of the messages of {user}"),
        };
        let read = read.map_err(|_| lacking("JSON"))?.into_iter().map(|mut message| {
            let mut field = |name| message.remove(name).ok_or_else(|| lacking(name));
            let (uid, uidl, order) = (field("uid")?, field("pop3.uidl")?, field("pop3.order")?);
            let uid = uid.parse().map_err(|_| lacking("uid"))?;
            Ok(ToldMessage { uid, uidl, order: order.parse().ok().filter(|order| *order > 0) })
        });
        read.collect()
    }

    /// Hands on the text of one message, octet by octet, behind `text=` and before one more line
    /// end.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: then what was read is of no use.
    pub fn fetch_raw<T>(
        &self,
        user: &str,
        uid: u32,
        read: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, DovecotError> {
        let mut command = self.doveadm_of(user, &["fetch"])?;
        command.args(["text", "mailbox", "INBOX", "uid", &uid.to_string()]);
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut raw = Command::new(&self.doveadm);
        // No two messages are printed, so that none can pretend to be two.
        raw.args(args.into_iter().map(|arg| if arg == "json" { "flow".into() } else { arg }));
        self.read_of(raw, read)
    }

    /// A question of one user.
    fn doveadm_of(&self, user: &str, words: &[&str]) -> Result<Command, DovecotError> {
        if user.contains(['*', '?']) {
            return Err(DovecotError::Answer {
                program: self.doveadm.clone(),
                said: "takes * and ? in a user name for wildcards".to_owned(),
            });
        }
        let mut command = Command::new(&self.doveadm);
        command.args(&self.args).args(["-f", "json"]).args(words).args(["-u", user]);
        Ok(command)
    }

    fn read_of<T>(
        &self,
        mut command: Command,
        read: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, DovecotError> {
        let program = || self.doveadm.clone();
        let (value, ended) = watched::read(&mut command, self.patience, read)
            .map_err(|error| DovecotError::Program { program: program(), error })?;
        let Ended { status, stderr, was_silent } = ended;
        if was_silent {
            return Err(DovecotError::Silent { program: program(), patience: self.patience });
        }
        if !status.success() {
            let output = std::process::Output { status, stdout: Vec::new(), stderr };
            return Err(no_answer(&command, &output));
        }
        Ok(value)
    }
}

/// The plugins that `doveconf mail_plugins` names: `mail_plugins = a b` on 2.3, a line `a = yes` on
/// 2.4. What a later one says goes for what an earlier one has said.
fn plugins_in(said: &[&str]) -> Vec<String> {
    let mut plugins: Vec<String> = Vec::new();
    for line in said.iter().flat_map(|said| said.lines()) {
        let Some((name, value)) = line.split_once('=') else { continue };
        match (name.trim(), value.trim()) {
            // 2.3, where the later list is the whole one.
            ("mail_plugins", list) => {
                plugins = list.split_whitespace().map(str::to_owned).collect();
            }
            (name, "yes") if !plugins.iter().any(|plugin| plugin == name) => {
                plugins.push(name.to_owned());
            }
            (name, "no") => plugins.retain(|plugin| plugin != name),
            _ => {}
        }
    }
    plugins
}

/// UIDs that ascend, as IMAP writes a set of them: `1:4,7`.
fn search_of(uids: &[u32]) -> String {
    let ranges = uids.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let range = |range: &[u32]| match range {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}:{last}"),
        [] => unreachable!("no chunk is empty"),
    };
    ranges.map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_named_as_both_lines_of_dovecot_name_them() {
        let named = ["mail_plugins = quota\n", "mail_plugins = quota zlib uidl_keep\n"];
        assert_eq!(plugins_in(&named), ["quota", "zlib", "uidl_keep"]);
        assert!(plugins_in(&["mail_plugins = quota\n", "mail_plugins =\n"]).is_empty());
        let global = "mail_plugins {\n  mail_crypt = yes\n  acl = yes\n}\n";
        let own = "mail_plugins {\n  acl = no\n  uidl_keep = yes\n  mail_crypt = yes\n}\n";
        assert_eq!(plugins_in(&[global, own]), ["mail_crypt", "uidl_keep"]);
    }

    #[test]
    fn a_set_of_uids_is_written_in_ranges() {
        assert_eq!(search_of(&[7]), "7");
        assert_eq!(search_of(&[1, 2, 3, 5, 8, 9]), "1:3,5,8:9");
        assert_eq!(search_of(&[u32::MAX - 1, u32::MAX]), "4294967294:4294967295");
    }
}
