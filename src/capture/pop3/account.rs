//! Whose maildrop is captured, and who logs in for it: [`Account`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::capture::pop3::secret::Secret;
use crate::capture::pop3::server::Server;
use crate::capture::pop3::token::Tokens;
use crate::text::printable;

/// Whose maildrop is captured, and who logs in for it.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user name on the new server, as in [`Maildrop::user`](crate::maildrop::Maildrop::user).
    pub user: String,
    /// Who logs in at the old server: the user, or a master user.
    pub login: String,
    /// Whom a master user logs in for: the authorization identity of SASL PLAIN (RFC 4616).
    pub authorize: Option<String>,
    /// The password of `login`, or who gives tokens for it.
    pub credential: Credential,
}

/// The proof by which somebody logs in.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A password.
    Password(Secret),
    /// An access token: SASL OAUTHBEARER or XOAUTH2.
    Token(Arc<dyn Tokens>),
}

impl From<Secret> for Credential {
    fn from(password: Secret) -> Self {
        Self::Password(password)
    }
}

/// The [`Maildrop::source`](crate::maildrop::Maildrop::source) of an account's block: the server,
/// and the login name there.
pub fn source(server: &Server, account: &Account) -> String {
    let login = account.authorize.as_ref().unwrap_or(&account.login);
    let host = printable(server.host.as_bytes());
    format!("pop3 {host}:{} {}", server.port, printable(login.as_bytes()))
}
