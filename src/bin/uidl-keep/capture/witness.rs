//! Who tells what the old server lists of a maildrop, for a proof: [`Witness`].

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::fleet::LoginTemplate;
use uidl_keep::capture::pop3::{self, Account, Learnt, Listed, Secret, Server};
use uidl_keep::capture::prove::program::Program;
use uidl_keep::text::printable;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who tells what the old server lists.
pub enum Witness {
    /// Its own program.
    Program(Program),
    /// Itself, to these accounts, by user name on the new server.
    Accounts(HashMap<String, (Server, Account)>),
    /// Itself, to a master user.
    Master { server: Server, login: LoginTemplate, password: Secret },
}

impl Witness {
    /// Whether it can be asked about this maildrop.
    pub fn can_tell(&self, source: &Source) -> bool {
        match self {
            Self::Program(_) | Self::Master { .. } => true,
            Self::Accounts(accounts) => accounts.contains_key(source.user()),
        }
    }

    /// What the old server lists, in its order. The error is for people.
    pub fn listing(&self, source: &Source) -> Result<Vec<Box<[u8]>>, String> {
        let listed = match self {
            Self::Program(program) => {
                program.listing(source, PATIENCE).map_err(|error| error.to_string())?
            }
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

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(program) => f.write_str(&program.name()),
            Self::Accounts(_) => f.write_str("POP3"),
            Self::Master { server, .. } => {
                write!(f, "POP3 at {}:{}", printable(server.host.as_bytes()), server.port)
            }
        }
    }
}
