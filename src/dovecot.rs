//! What a Dovecot at hand decides of users, whatever a roster says: [`Dovecot`].
//!
//! A roster guards a user under the one name that Dovecot gives him. Dovecot's own tools tell it; they
//! are run, and change nothing.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A Dovecot, asked through its `doveadm`.
#[derive(Debug, Clone)]
pub struct Dovecot {
    doveadm: PathBuf,
    args: Vec<String>,
}

/// What Dovecot calls users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Those whom it does not know.
    pub unknown: Vec<String>,
    /// Those whom it calls otherwise, and how: the first few of them.
    pub renamed: Vec<(String, String)>,
}

/// Why Dovecot could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program could not be run.
    #[error("{}: {error}", program.display())]
    Program {
        /// Which.
        program: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It gave no answer.
    #[error("{}: {said}", program.display())]
    Answer {
        /// Which.
        program: PathBuf,
        /// The first line that it said.
        said: String,
    },
}

/// Users asked about at one time: an argument list has its limits.
const USERS_AT_A_TIME: usize = 200;
/// Once so many are called otherwise, it is a setting, and no matter of one of them.
const MOST_RENAMED: usize = 3;
/// `EX_NOUSER`: a user was asked for whom Dovecot does not know.
const NO_USER: i32 = 67;

impl Dovecot {
    /// The one of this `doveadm`, run with these arguments first.
    pub fn new(doveadm: impl Into<PathBuf>, args: impl IntoIterator<Item = String>) -> Self {
        Self { doveadm: doveadm.into(), args: args.into_iter().collect() }
    }

    /// What the running Dovecot calls these users. Cost: one run of `doveadm` for 200 users that it
    /// calls as they are spelled here, and a few for each whom it does not.
    ///
    /// # Errors
    ///
    /// [`Error`]: its authentication does not run, say.
    pub fn names(&self, users: &[String]) -> Result<Names, Error> {
        let mut names = Names::default();
        for users in users.chunks(USERS_AT_A_TIME) {
            self.ask(&users.iter().collect::<Vec<_>>(), &mut names)?;
        }
        Ok(names)
    }

    fn ask(&self, users: &[&String], names: &mut Names) -> Result<(), Error> {
        if users.is_empty() {
            return Ok(());
        }
        let mut command = Command::new(&self.doveadm);
        command.args(&self.args).args(["user", "-f", "user", "--"]).args(users);
        let output = output_of(&mut command)?;
        let all_known = match output.status.code() {
            Some(0) => true,
            Some(NO_USER) => false,
            _ => return Err(no_answer(&command, &output)),
        };
        // A name is printed only where it is another than was asked for, or a user database says it.
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
        // Which of several it means stands in its complaints only.
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

fn output_of(command: &mut Command) -> Result<Output, Error> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Program { program: program_of(command), error })
}

fn no_answer(command: &Command, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    let said = match line {
        Some(line) => {
            line.chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect()
        }
        None => output.status.to_string(),
    };
    Error::Answer { program: program_of(command), said }
}

fn program_of(command: &Command) -> PathBuf {
    PathBuf::from(command.get_program())
}
