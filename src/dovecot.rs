//! Asks the Dovecot of this machine how it treats users, whatever a roster says: [`Dovecot`].
//!
//! A roster guards a user only under the name that Dovecot gives him, and only while POP3 loads the
//! plugin. Dovecot's own tools tell both. They are run, and change nothing. [`NotGuarded`] says
//! which of the two is wrong.
#![forbid(unsafe_code)]

mod configuration;
#[cfg(feature = "helper")]
pub mod fit;
pub mod guard;
mod mail;
pub(crate) mod watched;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

pub use mail::ToldMessage;

pub use configuration::{AboutDovecot, Pop3Plugins};

/// A Dovecot, asked through its `doveadm` and `doveconf`.
#[derive(Debug, Clone)]
pub struct Dovecot {
    doveadm: PathBuf,
    args: Vec<String>,
    /// How long a program may be silent.
    patience: Duration,
}

/// The names that Dovecot gives users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNames {
    /// The users that it does not know.
    pub unknown: Vec<String>,
    /// The first few users that have another name in Dovecot, each with that name.
    pub renamed: Vec<(String, String)>,
}

/// The reason why POP3 users of a site are served as if there were no site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotGuarded {
    /// POP3 does not load the plugin.
    #[error(
        "POP3 does not load uidl_keep, so that nobody is guarded: `doveconf -f protocol=pop3 \
         mail_plugins` says \"{mail_plugins}\"; a `protocol pop3` block that comes later may have \
         dropped it: name it in the last one, and reload Dovecot"
    )]
    NotLoaded {
        /// The plugins that it loads.
        mail_plugins: String,
    },
    /// Dovecot has other names for users than the rosters.
    #[error(
        "Dovecot calls {user} {name:?}, so that nobody asks for {user}: {}name users on the \
         rosters as Dovecot does",
        cause(format)
    )]
    Renamed {
        /// The first of them, as the roster calls him.
        user: String,
        /// The name that Dovecot has for him.
        name: String,
        /// `auth_username_format`, when that can be the cause.
        format: Option<String>,
    },
}

fn cause(format: &Option<String>) -> String {
    let advice = |format| {
        format!(
            "the cause is auth_username_format = {format}, or the user database; change that, or "
        )
    };
    format.as_ref().map_or_else(|| "look at the user database, or ".to_owned(), advice)
}

/// The reason why Dovecot could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DovecotError {
    /// The program could not be run.
    #[error("{}: {error}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// It gave no answer.
    #[error("{}: {said}", program.display())]
    Answer {
        /// The program.
        program: PathBuf,
        /// The first line that it said.
        said: String,
    },
    /// It said nothing for too long, and was ended.
    #[error("{}: said nothing for {} seconds", program.display(), patience.as_secs())]
    Silent {
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
}

/// Which directory of a user's INBOX is asked for, by Dovecot's own word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxPath {
    /// Where its messages lie.
    Mailbox,
    /// Where its control files lie: `dovecot-uidlist`, and the ledger.
    Control,
    /// Where its index files lie.
    Index,
}

impl InboxPath {
    fn word(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::Control => "control",
            Self::Index => "index",
        }
    }
}

/// The users in one question: an argument list has its limits.
const USERS_AT_A_TIME: usize = 200;
/// When so many users have another name, a setting is the cause, and not one of the users.
const MOST_RENAMED: usize = 3;
/// A program that says nothing for so long will never say anything.
const PATIENCE: Duration = Duration::from_secs(600);
/// The name of the plugin in `mail_plugins`.
pub const PLUGIN: &str = "uidl_keep";
/// `EX_NOUSER`: Dovecot does not know one of the users in the question.
const NO_USER: i32 = 67;

impl Dovecot {
    /// The Dovecot of this `doveadm`, which is run with these arguments first.
    pub fn new(doveadm: impl Into<PathBuf>, args: impl IntoIterator<Item = String>) -> Self {
        let args = args.into_iter().collect();
        Self { doveadm: doveadm.into(), args, patience: PATIENCE }
    }

    /// The same Dovecot, whose programs are ended when they say nothing for so long.
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The names that the running Dovecot has for these users. Cost: one run of `doveadm` for 200
    /// users whose names are the same there, and a few more for each other user.
    ///
    /// # Errors
    ///
    /// [`DovecotError`], for example when Dovecot's authentication does not run.
    pub fn names(&self, users: &[String]) -> Result<UserNames, DovecotError> {
        let mut names = UserNames::default();
        for users in users.chunks(USERS_AT_A_TIME) {
            self.ask(&users.iter().collect::<Vec<_>>(), &mut names)?;
        }
        Ok(names)
    }

    /// The directory of each user's INBOX, whether it is there or not. A user who is missing in the
    /// answer is one that Dovecot does not know, or whose mail it cannot open. Cost: one run of
    /// `doveadm`, which opens each user's mail and makes nothing; where users are shut up by
    /// chroot, two more for each of them.
    ///
    /// # Errors
    ///
    /// [`DovecotError`], for example when Dovecot's authentication does not run.
    pub fn inbox_paths(
        &self,
        users: &[String],
        path: InboxPath,
    ) -> Result<BTreeMap<String, PathBuf>, DovecotError> {
        if users.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut command = Command::new(&self.doveadm);
        let not_run = |error| DovecotError::Program { program: self.doveadm.clone(), error };
        let mut names = tempfile::NamedTempFile::new().map_err(not_run)?;
        users.iter().try_for_each(|user| writeln!(names, "{user}")).map_err(not_run)?;
        command.args(&self.args).args(["-f", "json", "mailbox", "path", "-F"]).arg(names.path());
        let output = output_of(command.args(["-t", path.word(), "INBOX"]), self.patience)?;
        // One object for each of the users.
        let objects: Vec<BTreeMap<String, String>> =
            serde_json::from_slice(&output.stdout).map_err(|_| no_answer(&command, &output))?;
        if objects.is_empty() {
            return Err(no_answer(&command, &output));
        }
        let user_and_path = |mut object: BTreeMap<String, String>| {
            Some((object.remove("username")?, PathBuf::from(object.remove("path")?)))
        };
        let paths = objects.into_iter().filter_map(user_and_path);
        if !self.may_chroot()? {
            return Ok(paths.collect());
        }
        paths.map(|(user, path)| Ok((user.clone(), self.outside(&user, path)?))).collect()
    }

    /// The fault, when the user names are not those of the rosters.
    pub fn fault_of_names(&self, names: &UserNames) -> Option<NotGuarded> {
        let (user, name) = names.renamed.first().cloned()?;
        let setting = "auth_username_format";
        let format = self.setting(&[setting], setting).ok().flatten();
        Some(NotGuarded::Renamed { user, name, format: format.filter(|format| !format.is_empty()) })
    }

    /// The fault, when POP3 does not load the plugin.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn fault_of_pop3(&self) -> Result<Option<NotGuarded>, DovecotError> {
        Ok(match self.pop3_loads()? {
            Pop3Plugins::Loaded => None,
            Pop3Plugins::Without(mail_plugins)
            | Pop3Plugins::Swallowed { said: mail_plugins, .. } => {
                Some(NotGuarded::NotLoaded { mail_plugins })
            }
        })
    }

    /// The program that serves a POP3 user once he has logged in: the one beside `doveadm`, where
    /// there is one, and else that of `libexec_dir`.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn pop3_program(&self) -> Result<PathBuf, DovecotError> {
        let beside = self.doveadm.with_file_name("pop3");
        if beside.is_absolute() && beside.is_file() {
            return Ok(beside);
        }
        let setting = "libexec_dir";
        let named = self.setting(&[setting], setting)?.filter(|dir| !dir.is_empty());
        Ok(PathBuf::from(named.as_deref().unwrap_or("/usr/lib/dovecot")).join("pop3"))
    }

    /// The arguments for any program of this Dovecot that choose the configuration.
    pub fn configuration(&self) -> Vec<String> {
        let mut chosen = Vec::new();
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            if arg == "-c" {
                chosen.push(arg.clone());
                chosen.extend(args.next().cloned());
            }
        }
        chosen
    }

    /// A setting, as `doveconf` prints it: `NAME = VALUE`.
    fn setting(&self, args: &[&str], name: &str) -> Result<Option<String>, DovecotError> {
        let said = self.doveconf(args)?;
        let value = said.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim().rsplit('/').next() == Some(name)).then(|| value.trim().to_owned())
        });
        Ok(value)
    }

    fn doveconf(&self, args: &[&str]) -> Result<String, DovecotError> {
        let mut command = Command::new(self.doveadm.with_file_name("doveconf"));
        // `doveconf` understands no other of doveadm's arguments.
        command.args(self.configuration()).args(args);
        let output = output_of(&mut command, self.patience)?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(no_answer(&command, &output))
        }
    }

    fn ask(&self, users: &[&String], names: &mut UserNames) -> Result<(), DovecotError> {
        if users.is_empty() {
            return Ok(());
        }
        let mut command = Command::new(&self.doveadm);
        command.args(&self.args).args(["user", "-f", "user", "--"]).args(users);
        let output = output_of(&mut command, self.patience)?;
        let all_known = match output.status.code() {
            Some(0) => true,
            Some(NO_USER) => false,
            _ => return Err(no_answer(&command, &output)),
        };
        // doveadm prints a name only when it differs from the one in the question, or when a user
        // database gives one.
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.trim();
        if all_known && said.is_empty() {
            return Ok(());
        }
        if let [user] = users {
            if !all_known {
                names.unknown.push((*user).clone());
            } else if said != *user && names.renamed.len() < MOST_RENAMED {
                names.renamed.push(((*user).clone(), said.to_owned()));
            }
            return Ok(());
        }
        // Only the complaints say which of several users is unknown.
        let complaints = String::from_utf8_lossy(&output.stderr);
        let is_complained_of = |user: &&&String| {
            let complaint = format!(" user {user} doesn't exist");
            complaints.lines().any(|line| line.trim_end().ends_with(&complaint))
        };
        let (unknown, rest): (Vec<&String>, Vec<&String>) =
            users.iter().partition(is_complained_of);
        if !unknown.is_empty() {
            names.unknown.extend(unknown.into_iter().cloned());
            return self.ask(&rest, names);
        }
        let (one_half, other_half) = users.split_at(users.len() / 2);
        self.ask(one_half, names)?;
        self.ask(other_half, names)
    }
}

/// The plugins that `doveconf mail_plugins` names. 2.3: `mail_plugins = quota uidl_keep`. 2.4: a
/// block with a line `uidl_keep = yes`.
fn plugins_in(said: &str) -> Vec<&str> {
    let lines = said.lines().filter_map(|line| line.split_once('='));
    let named = lines.flat_map(|(name, value)| match (name.trim(), value.trim()) {
        ("mail_plugins", names) => names.split_whitespace().collect(),
        (name, "yes") => vec![name],
        _ => Vec::new(),
    });
    named.collect()
}

fn output_of(command: &mut Command, patience: Duration) -> Result<Output, DovecotError> {
    let not_run = |program, error| DovecotError::Program { program, error };
    let (stdout, ended) = watched::read(command, patience, |stdout| {
        let mut octets = Vec::new();
        stdout.read_to_end(&mut octets).map(|_| octets)
    })
    .map_err(|error| not_run(program_of(command), error))?;
    if ended.was_silent {
        return Err(DovecotError::Silent { program: program_of(command), patience });
    }
    let stdout = stdout.map_err(|error| not_run(program_of(command), error))?;
    Ok(Output { status: ended.status, stdout, stderr: ended.stderr })
}

fn no_answer(command: &Command, output: &Output) -> DovecotError {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    let said = match line {
        Some(line) => {
            line.chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect()
        }
        None => output.status.to_string(),
    };
    DovecotError::Answer { program: program_of(command), said }
}

fn program_of(command: &Command) -> PathBuf {
    PathBuf::from(command.get_program())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_named_in_the_form_of_either_line() {
        assert_eq!(plugins_in("mail_plugins =  last_login quota\n"), ["last_login", "quota"]);
        let said = "mail_plugins {\n  acl = no\n  last_login = yes\n  uidl_keep = yes\n}\n";
        assert_eq!(plugins_in(said), ["last_login", "uidl_keep"]);
        assert_eq!(plugins_in("mail_plugins =\n"), Vec::<&str>::new());
    }

    #[test]
    fn only_the_configuration_is_chosen_for_other_programs() {
        let args = ["-o", "a=b", "-c", "/x.conf", "-D"].map(str::to_owned);
        assert_eq!(Dovecot::new("doveadm", args).configuration(), ["-c", "/x.conf"]);
    }
}
