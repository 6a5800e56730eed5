//! Options that name accounts: [`AccountsArgs`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uidl_keep::capture::fleet::{self, Accounts, AccountsError, LoginTemplate, ServerOptions};
use uidl_keep::capture::pop3::{Credential, Security, Trust};

use super::password::{PasswordArgs, secrets_in, secrets_on_stdin};
use crate::output::Trouble;

/// Whose maildrops to capture, and where.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("whose").args(["user", "users", "accounts"]).required(true)))]
pub struct AccountsArgs {
    /// The old server, by name or address. With --accounts, of lines that name none.
    #[arg(long)]
    host: Option<String>,
    /// Its port [default: 995 with TLS, 110 with --starttls and --clear].
    #[arg(long)]
    port: Option<u16>,
    /// One account: its login name at the old server.
    #[arg(long, value_name = "LOGIN", requires = "host")]
    user: Option<String>,
    /// The user name of that account on the new server [default: LOGIN].
    #[arg(long, value_name = "NAME", requires = "user")]
    new_user: Option<String>,
    /// Accounts that a master user opens: a file with a login name, and perhaps the user name on
    /// the new server, on each line. - is standard input.
    #[arg(long, value_name = "FILE", requires_all = ["host", "output"])]
    users: Option<PathBuf>,
    /// Accounts with a password each: a CSV file whose first line names its columns, of host, user,
    /// password and new_user. - is standard input. With --token-command there is no password in it.
    #[arg(
        long,
        value_name = "FILE",
        requires = "output",
        conflicts_with_all = ["login_template", "authorize"]
    )]
    accounts: Option<PathBuf>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Who logs in, by {user}, {local} and {domain} of the account: '{user}*master' of a master
    /// user on Dovecot [default: {user}].
    #[arg(long, value_name = "TEMPLATE")]
    login_template: Option<String>,
    /// Log in as the template says on behalf of each account: its login name is the authorization
    /// identity of SASL PLAIN.
    #[arg(long, requires = "login_template", conflicts_with = "token_command")]
    authorize: bool,
}

impl AccountsArgs {
    /// Whether one account is named, and no list.
    pub fn is_single(&self) -> bool {
        self.user.is_some()
    }

    /// All that are asked for, on servers that are spoken to in this way. A command that prints a
    /// token may take as long as `patience`.
    pub fn accounts(
        &self,
        security: Security,
        trust: Trust,
        patience: Duration,
    ) -> Result<Accounts, Trouble> {
        let options = ServerOptions { security, trust, port: self.port };
        let template =
            LoginTemplate { text: self.login_template.clone(), authorizes: self.authorize };
        if let Some(path) = &self.accounts {
            if self.password.is_given() {
                return Err(Trouble::new(
                    "--accounts has a password for each account: leave the other one out, or say \
                     --users",
                ));
            }
            let tokens = self.password.tokens(patience)?;
            return table(path, self.host.as_deref(), &options, tokens.as_ref());
        }
        let host = self.host.as_deref().expect("required with --user and --users");
        let server = fleet::server(host, &options).map_err(|e| Trouble::at("--host", e))?;
        let credential = self.credential(patience)?;
        match (&self.user, &self.users) {
            (Some(user), _) => {
                let new = self.new_user.as_ref().unwrap_or(user);
                Accounts::one(server, (user, new), credential, &template)
                    .map_err(|error| Trouble::at("--user", error))
            }
            (None, Some(path)) => {
                let text = if path == Path::new("-") {
                    secrets_on_stdin()?.to_vec()
                } else {
                    fs::read(path).map_err(|error| Trouble::at(path.display(), error))?
                };
                Accounts::of_users(&text, server, &credential, &template)
                    .map_err(|error| in_file(path, error))
            }
            (None, None) => unreachable!("clap requires one of them"),
        }
    }

    fn credential(&self, patience: Duration) -> Result<Credential, Trouble> {
        if let Some(tokens) = self.password.tokens(patience)? {
            return Ok(tokens);
        }
        if self.users.as_deref() == Some(Path::new("-")) && self.password.is_stdin() {
            return Err(Trouble::new(
                "--users - and --password-stdin: standard input is only one of the two",
            ));
        }
        self.password.read().map(Credential::Password)
    }
}

/// The accounts of a table; those of lines without a host are on this one.
pub fn table(
    path: &Path,
    host: Option<&str>,
    options: &ServerOptions,
    tokens: Option<&Credential>,
) -> Result<Accounts, Trouble> {
    let text = secrets_in(path)?;
    Accounts::of_table(&text, host, options, tokens, &LoginTemplate::default())
        .map_err(|error| in_file(path, error))
}

/// Names the file that an error is of, and the line.
pub fn in_file(path: &Path, AccountsError { line, fault }: AccountsError) -> Trouble {
    match line {
        Some(line) => Trouble::at(format!("{}:{line}", path.display()), fault),
        None => Trouble::at(path.display(), fault),
    }
}
