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
    login: LoginArgs,
}

/// How accounts log in.
#[derive(clap::Args)]
pub struct LoginArgs {
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

impl LoginArgs {
    /// Who logs in.
    pub fn template(&self) -> LoginTemplate {
        LoginTemplate { text: self.login_template.clone(), authorizes: self.authorize }
    }
}

/// What names accounts: one of the three is there.
pub struct NamedAccounts<'a> {
    /// A login name, and the user name on the new server.
    pub user: Option<(&'a String, &'a String)>,
    /// A file of login names.
    pub users: Option<&'a Path>,
    /// A table with a password for each.
    pub accounts: Option<&'a Path>,
}

impl NamedAccounts<'_> {
    /// All of them, on the host that an option names, with what a command that prints a token gives
    /// within `patience`. Lines of the table may name other hosts.
    pub fn on(
        &self,
        (option, host): (&str, Option<&str>),
        options: &ServerOptions,
        (login, template): (&LoginArgs, &LoginTemplate),
        patience: Duration,
    ) -> Result<Accounts, Trouble> {
        let password = &login.password;
        if let Some(path) = self.accounts {
            if password.is_given() {
                return Err(Trouble::new(
                    "--accounts has a password for each account: leave the other one out, or say \
                     --users",
                ));
            }
            let tokens = password.tokens(patience)?;
            return table(path, host, options, tokens.as_ref());
        }
        let host = host.expect("required with --user and --users");
        let server = fleet::server(host, options).map_err(|e| Trouble::at(option, e))?;
        let credential = self.credential(password, patience)?;
        if let Some((user, new)) = self.user {
            return Accounts::one(server, (user, new), credential, template)
                .map_err(|error| Trouble::at("--user", error));
        }
        let path = self.users.expect("clap requires one of the three");
        let text = if path == Path::new("-") {
            secrets_on_stdin()?.to_vec()
        } else {
            fs::read(path).map_err(|error| Trouble::at(path.display(), error))?
        };
        Accounts::of_users(&text, server, &credential, template)
            .map_err(|error| in_file(path, error))
    }

    fn credential(
        &self,
        password: &PasswordArgs,
        patience: Duration,
    ) -> Result<Credential, Trouble> {
        if let Some(tokens) = password.tokens(patience)? {
            return Ok(tokens);
        }
        if self.users == Some(Path::new("-")) && password.is_stdin() {
            return Err(Trouble::new(
                "--users - and --password-stdin: standard input is only one of the two",
            ));
        }
        password.read().map(Credential::Password)
    }
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
        let named = NamedAccounts {
            user: self.user.as_ref().map(|user| (user, self.new_user.as_ref().unwrap_or(user))),
            users: self.users.as_deref(),
            accounts: self.accounts.as_deref(),
        };
        let login = (&self.login, &self.login.template());
        named.on(("--host", self.host.as_deref()), &options, login, patience)
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
fn in_file(path: &Path, AccountsError { line, fault }: AccountsError) -> Trouble {
    match line {
        Some(line) => Trouble::at(format!("{}:{line}", path.display()), fault),
        None => Trouble::at(path.display(), fault),
    }
}
