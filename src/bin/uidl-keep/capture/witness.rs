//! The listing that the old server gives over POP3, for a proof: [`OverPop3`].

use std::collections::HashMap;
use std::fmt;

use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::fleet::LoginTemplate;
use uidl_keep::capture::pop3::{self, Account, Learnt, Listed, Secret, Server};
use uidl_keep::capture::prove::witness::{PATIENCE, Witness};
use uidl_keep::text::printable;

/// The old server itself, asked over POP3.
pub enum OverPop3 {
    /// Each account with its own password, by user name on the new server.
    Accounts(HashMap<String, (Server, Account)>),
    /// A master user.
    Master { server: Server, login: LoginTemplate, password: Secret },
}

impl Witness for OverPop3 {
    fn can_tell(&self, source: &Source) -> bool {
        match self {
            Self::Master { .. } => true,
            Self::Accounts(accounts) => accounts.contains_key(source.user()),
        }
    }

    fn listing(&self, source: &Source) -> Result<Vec<Box<[u8]>>, String> {
        let listed = match self {
            Self::Accounts(accounts) => {
                let (server, account) = accounts.get(source.user()).ok_or("no password")?;
                over_pop3(server, account)?
            }
            Self::Master { server, login, password } => {
                let account = Account {
                    user: source.user().to_owned(),
                    login: login.fill(source.login()).map_err(|error| error.to_string())?,
                    authorize: None,
                    credential: password.clone().into(),
                };
                over_pop3(server, &account)?
            }
        };
        Ok(listed.into_iter().map(|listed| listed.uidl).collect())
    }
}

fn over_pop3(server: &Server, account: &Account) -> Result<Vec<Listed>, String> {
    let listed =
        pop3::log_in(server, account, PATIENCE, &Learnt::default()).and_then(|mut session| {
            let listed = pop3::listing(&mut session)?;
            session.quit();
            Ok(listed)
        });
    listed.map_err(|fault| fault.to_string())
}

impl fmt::Display for OverPop3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accounts(_) => f.write_str("POP3"),
            Self::Master { server, .. } => {
                write!(f, "POP3 at {}:{}", printable(server.host.as_bytes()), server.port)
            }
        }
    }
}
