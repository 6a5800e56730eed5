//! Options that say where a password comes from: [`PasswordArgs`].

use std::fmt::Display;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use uidl_keep::capture::fleet::{self, first_line, read_secrets, read_secrets_of};
use uidl_keep::capture::pop3::{Credential, Secret, TokenCommand};
use zeroize::Zeroizing;

use crate::output::Trouble;

/// As [`fleet::guard_memory`].
pub fn guard_memory() -> Result<(), Trouble> {
    fleet::guard_memory().map_err(|error| Trouble::at("keeping passwords out of core files", error))
}

/// Everything in a file that holds secrets; - is standard input.
pub fn secrets_in(path: &Path) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    if path == Path::new("-") {
        return secrets_on_stdin();
    }
    read_secrets(path).map_err(|error| Trouble::at(path.display(), error))
}

/// All of standard input.
pub fn secrets_on_stdin() -> Result<Zeroizing<Vec<u8>>, Trouble> {
    read_secrets_of(io::stdin().lock()).map_err(|error| Trouble::at("standard input", error))
}

/// The password that is the first line of a file.
pub fn password_in(path: &Path) -> Result<Secret, Trouble> {
    let at = |error: &dyn Display| Trouble::at(path.display(), error);
    let text = read_secrets(path).map_err(|error| at(&error))?;
    first_line(&text).map_err(|error| at(&error))
}

/// Where the one password comes from.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct PasswordArgs {
    /// The password is the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
    /// The password is the first line of this file, which nobody else may be able to read.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The password is in this environment variable. Root can read it there as long as this runs.
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// In place of a password an access token, which this command prints as its first line, for
    /// servers that take no passwords any more: '/usr/local/bin/token {user}'. {user} is the login
    /// name, the last argument where it is not named. No shell reads it. It is run for each
    /// account, and once more where its token is refused: it may have expired.
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
}

impl PasswordArgs {
    /// Whether one is named at all.
    pub fn is_given(&self) -> bool {
        self.password_stdin || self.password_file.is_some() || self.password_env.is_some()
    }

    /// Who gives tokens, where that is named.
    pub fn tokens(&self, patience: Duration) -> Result<Option<Credential>, Trouble> {
        let Some(words) = &self.token_command else { return Ok(None) };
        let command = TokenCommand::named(words, patience)
            .ok_or_else(|| Trouble::at("--token-command", "it is empty"))?;
        Ok(Some(Credential::Token(Arc::new(command))))
    }

    /// Whether it is read from standard input.
    pub fn is_stdin(&self) -> bool {
        self.password_stdin
    }

    /// Reads it.
    pub fn read(&self) -> Result<Secret, Trouble> {
        if self.password_stdin {
            let text = secrets_on_stdin()?;
            return first_line(&text).map_err(|error| Trouble::at("standard input", error));
        }
        if let Some(path) = &self.password_file {
            return password_in(path);
        }
        if let Some(name) = &self.password_env {
            let at = |error: &dyn Display| Trouble::at(format!("--password-env {name}"), error);
            let value = std::env::var_os(name).ok_or_else(|| at(&"no such variable"))?;
            return first_line(&Zeroizing::new(value.into_vec())).map_err(|error| at(&error));
        }
        Err(Trouble::new(
            "no password: say --password-stdin, --password-file or --password-env, or \
             --token-command where the server wants a token; there is no way to give it on the \
             command line, where every user of this machine can read it",
        ))
    }
}
