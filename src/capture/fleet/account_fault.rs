//! What is wrong with a list of accounts: [`AccountsError`]. Nothing in it is a password.
#![forbid(unsafe_code)]

use std::fmt;

use crate::capture::fleet::template::TemplateError;

/// Why a list of accounts cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountsError {
    /// The line, from 1; `None` where it is the whole.
    pub line: Option<u64>,
    /// What is wrong there.
    pub fault: AccountFault,
}

/// With its line before it, where it has one.
impl fmt::Display for AccountsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{line}: {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

impl std::error::Error for AccountsError {}

/// What is wrong with an account, or with a list of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountFault {
    /// No octet in it that is not a blank or a comment.
    #[error("no line in it; the first names columns")]
    NoLine,
    /// Nobody is in it.
    #[error("no account in it")]
    NoAccount,
    /// A list of logins in another charset.
    #[error("not UTF-8; Dovecot knows users by UTF-8 names")]
    NotUtf8,
    /// A field in another charset.
    #[error("{0} is not UTF-8")]
    FieldNotUtf8(&'static str),
    /// A line of a list of logins.
    #[error("not a login name and perhaps a new one: {0}")]
    NotLogins(String),
    /// A login name, or a new one, of no octets.
    #[error("empty user name")]
    EmptyName,
    /// A login name, or a new one, that no listing can hold.
    #[error("a control character in the user name")]
    ControlInName,
    /// A password that no command can carry.
    #[error("a line end or NUL in the password, which POP3 cannot carry")]
    UnspeakablePassword,
    /// A line without one.
    #[error("no password")]
    NoPassword,
    /// No login name can be made.
    #[error("--login-template: {0}")]
    Template(#[from] TemplateError),
    /// The login name is the same for all accounts, and nobody is authorized.
    #[error("--login-template {0} is the same for all: put {{user}} in it, or say --authorize")]
    SameForAll(String),
    /// Two lines of one user.
    #[error(
        "a second account for {user} on the new server, the first is in line {first}: one maildrop \
         is of one account"
    )]
    Twice {
        /// The user name on the new server, printable.
        user: String,
        /// The line of the first.
        first: u64,
    },
    /// A line that names no host.
    #[error("no host; name it in a column \"host\", or say --host")]
    NoHost,
    /// A host that is none.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A first line that is none.
    #[error("column {0} is none that is known; {HEADER}")]
    UnknownColumn(usize),
    /// A column that is named twice.
    #[error("column {0} is there twice; {HEADER}")]
    ColumnTwice(usize),
    /// A column that is needed.
    #[error("no column \"user\" or no column \"password\"; {HEADER}")]
    NoColumn,
    /// Two sources of what is secret.
    #[error("a column \"password\" beside --token-command: leave one of the two out")]
    PasswordBesideTokens,
    /// A line that is longer or shorter than the first.
    #[error(
        "{found} fields, and the first line names {named}; is there a comma in one that is not in \
         quotes?"
    )]
    FieldCount {
        /// Its fields.
        found: usize,
        /// The columns.
        named: usize,
    },
    /// More fields than anybody has columns.
    #[error("more than {0} fields")]
    ManyFields(usize),
    /// A quote that does not close.
    #[error(
        "an odd number of quotes; a field with a quote in it is put in quotes, and the quote \
         itself doubled"
    )]
    OddQuotes,
}

/// The fields of a line that is no header are not shown: they may be an account.
const HEADER: &str = "the first line names the columns: host,user,password,new_user";

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No host, or something behind it.
    #[error("not a host: {0}")]
    NotHost(String),
    /// No port behind it.
    #[error("not a port: {0}")]
    NotPort(String),
}
