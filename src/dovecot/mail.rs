//! What Dovecot has of a user's INBOX, as `doveadm` prints it: [`Dovecot::fetch`].
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use super::watched::{self, Ended};
use super::{Dovecot, DovecotError, InboxPath, PLUGIN, no_answer, output_of};

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
        let said = self.doveconf(&["-f", "protocol=doveadm", "mail_plugins"])?;
        // 2.3: one line. 2.4: blocks, and that of a protocol adds to the global one.
        let global = self.doveconf(&["mail_plugins"])?;
        let is_line = said.trim_start().starts_with("mail_plugins =");
        let said = if is_line { said } else { [global, said].concat() };
        let mut names: Vec<&str> = said.lines().flat_map(names_in).collect();
        names.retain(|name| *name != PLUGIN);
        names.dedup();
        let mut dovecot = self.clone();
        dovecot.args.extend(["-o".to_owned(), format!("mail_plugins={}", names.join(" "))]);
        Ok(dovecot)
    }

    /// The `pop3_uidl_format`, as POP3 has it, unread.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn uidl_format(&self) -> Result<String, DovecotError> {
        // Dovecot 2.4 refuses `-h` for a single setting.
        let name = "pop3_uidl_format";
        Ok(self.setting(&["-f", "protocol=pop3", name], name)?.unwrap_or_default())
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

/// The plugins in one line of `doveconf`: `mail_plugins = a b` on 2.3, `a = yes` on 2.4.
fn names_in(line: &str) -> Vec<&str> {
    match line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
        Some(("mail_plugins", value)) => value.split_whitespace().collect(),
        Some((name, "yes")) => vec![name],
        Some(_) | None => Vec::new(),
    }
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
    fn a_set_of_uids_is_written_in_ranges() {
        assert_eq!(search_of(&[7]), "7");
        assert_eq!(search_of(&[1, 2, 3, 5, 8, 9]), "1:3,5,8:9");
        assert_eq!(search_of(&[u32::MAX - 1, u32::MAX]), "4294967294:4294967295");
    }

    #[test]
    fn plugins_are_named_as_both_lines_of_dovecot_name_them() {
        assert_eq!(names_in("mail_plugins = quota zlib uidl_keep"), ["quota", "zlib", "uidl_keep"]);
        assert_eq!(names_in("  mail_crypt = yes"), ["mail_crypt"]);
        for line in ["mail_plugins =", "mail_plugins {", "  acl = no", "}", ""] {
            assert!(names_in(line).is_empty(), "{line}");
        }
    }
}
