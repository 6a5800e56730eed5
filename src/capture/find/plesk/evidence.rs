//! The decision which server answers on a Plesk machine: [`Evidence`] gives a [`Verdict`].
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::capture::find::traces::{Left, Traces};

/// The servers that Plesk installs for POP3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Courier: the package is `psa-courier-imap`.
    Courier,
    /// Dovecot: `plesk-dovecot`.
    Dovecot,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Courier => "Courier",
            Self::Dovecot => "Dovecot",
        })
    }
}

/// The kinds of signs, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A process has the port open.
    Listens,
    /// It is started with the machine.
    Enabled,
    /// It is installed.
    Installed,
    /// It also stays behind when a server goes, so it decides nothing.
    Seen,
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listens => "listens",
            Self::Enabled => "enabled",
            Self::Installed => "installed",
            Self::Seen => "seen",
        })
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSign {
    /// Its kind.
    pub rank: Rank,
    /// The service that it is a sign of; `None` for neither of the two, or where nobody can tell.
    pub of: Option<Service>,
    /// The thing that was found, printable.
    pub what: String,
}

impl fmt::Display for ServiceSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rank, self.what)
    }
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The signs, in the order in which they were looked for.
    pub signs: Vec<ServiceSign>,
    /// The state files in the maildrops.
    pub traces: Traces,
    /// How many maildrops could not be looked into.
    pub unread: usize,
}

/// How much younger a message may be than the youngest state file, where only one server has left
/// any. A younger one means that another server may have answered since.
const MOST_IDLE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Who answers POP3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Which of the two.
    pub service: Service,
    /// The kind of signs that decided; `None` when only state files say so, and there is no file of
    /// the other server's.
    pub by: Option<Rank>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, by } = self;
        match by {
            Some(Rank::Listens) => write!(f, "{service} answers POP3: it alone listens"),
            Some(Rank::Enabled) => {
                write!(f, "{service} answers POP3: it alone starts with the machine")
            }
            Some(_) => write!(f, "{service} answers POP3: it alone is installed"),
            None => write!(
                f,
                "{service} answers POP3, as far as state files can tell: no maildrop has a file of \
                 another server's. This is not true of a copy from which such files were left out"
            ),
        }
    }
}

/// Why nobody can tell who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// The ports are held by both, by something else, or by who cannot be told.
    #[error("what listens is not Courier alone, nor Dovecot alone")]
    Listeners,
    /// Files of both servers, and no service.
    #[error(
        "both servers have left files in the maildrops, and which one is the service is unknown"
    )]
    Both,
    /// No sign of any.
    #[error("there is no sign of either server, and no state file")]
    Neither,
    /// State files alone, and not all could be looked for.
    #[error("the service is unknown, and not every maildrop could be looked into for state files")]
    Unread,
    /// State files alone, and nobody has logged in for long.
    #[error(
        "the service is unknown, and mail is more than 30 days younger than the youngest state \
         file: another server may have answered since"
    )]
    Stale,
}

impl Evidence {
    /// Who answers POP3.
    ///
    /// # Errors
    ///
    /// [`Unknown`]: to take one of the two then would be to guess.
    pub fn verdict(&self) -> Result<Verdict, Unknown> {
        for rank in [Rank::Listens, Rank::Enabled, Rank::Installed] {
            let mut of = self.signs.iter().filter(|sign| sign.rank == rank).map(|sign| sign.of);
            let Some(first) = of.next() else { continue };
            return match first.filter(|_| of.all(|other| other == first)) {
                Some(service) => Ok(Verdict { service, by: Some(rank) }),
                // Files do not tell who it is that clients reach.
                None if rank == Rank::Listens => Err(Unknown::Listeners),
                None => self.by_state_files(),
            };
        }
        self.by_state_files()
    }

    fn by_state_files(&self) -> Result<Verdict, Unknown> {
        let Traces { courier, dovecot, newest_mail } = self.traces;
        let (service, state) = match (courier, dovecot) {
            _ if courier.maildrops > 0 && dovecot.maildrops > 0 => return Err(Unknown::Both),
            (Left { newest: Some(state), .. }, _) => (Service::Courier, state),
            (_, Left { newest: Some(state), .. }) => (Service::Dovecot, state),
            _ => return Err(Unknown::Neither),
        };
        if self.unread > 0 {
            return Err(Unknown::Unread);
        }
        let is_stale = newest_mail.is_some_and(|mail| {
            mail.duration_since(state).is_ok_and(|younger| younger > MOST_IDLE)
        });
        if is_stale { Err(Unknown::Stale) } else { Ok(Verdict { service, by: None }) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn sign(rank: Rank, of: impl Into<Option<Service>>) -> ServiceSign {
        ServiceSign { rank, of: of.into(), what: String::new() }
    }

    fn left(days: u64) -> Left {
        Left { maildrops: 1, newest: Some(day(days)) }
    }

    fn day(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 60 * 60)
    }

    #[test]
    fn what_runs_outweighs_what_is_enabled_and_that_what_is_installed() {
        use Service::{Courier, Dovecot};
        let mut evidence = Evidence {
            signs: vec![sign(Rank::Seen, Courier), sign(Rank::Installed, Courier)],
            traces: Traces { courier: left(9), dovecot: left(1), newest_mail: None },
            unread: 1,
        };
        let verdict = |evidence: &Evidence| evidence.verdict().map(|v| (v.service, v.by));
        assert_eq!(verdict(&evidence), Ok((Courier, Some(Rank::Installed))));
        evidence.signs.push(sign(Rank::Enabled, Dovecot));
        assert_eq!(verdict(&evidence), Ok((Dovecot, Some(Rank::Enabled))));
        evidence.signs.push(sign(Rank::Listens, Courier));
        evidence.signs.push(sign(Rank::Listens, Courier));
        assert_eq!(verdict(&evidence), Ok((Courier, Some(Rank::Listens))));
        evidence.signs.push(sign(Rank::Listens, Dovecot));
        assert_eq!(verdict(&evidence), Err(Unknown::Listeners));
    }

    #[test]
    fn a_stranger_who_listens_is_never_explained_by_files() {
        let signs = vec![sign(Rank::Listens, None), sign(Rank::Enabled, Service::Courier)];
        let traces = Traces { courier: left(9), ..Traces::default() };
        let evidence = Evidence { signs, traces, unread: 0 };
        assert_eq!(evidence.verdict(), Err(Unknown::Listeners));
    }

    #[test]
    fn state_files_alone_decide_only_where_there_is_one_kind_and_it_is_fresh() {
        let mut evidence = Evidence::default();
        evidence.traces.courier = left(100);
        evidence.traces.newest_mail = Some(day(130));
        let only = Verdict { service: Service::Courier, by: None };
        assert_eq!(evidence.verdict(), Ok(only));
        evidence.traces.newest_mail = Some(day(131));
        assert_eq!(evidence.verdict(), Err(Unknown::Stale));
        evidence.traces.newest_mail = None;
        evidence.unread = 1;
        assert_eq!(evidence.verdict(), Err(Unknown::Unread));
        evidence.unread = 0;
        // Not even a uidlist: something else of Dovecot's is enough for a doubt.
        evidence.traces.dovecot = Left { maildrops: 1, newest: None };
        assert_eq!(evidence.verdict(), Err(Unknown::Both));
        evidence.traces.courier = Left::default();
        assert_eq!(evidence.verdict(), Err(Unknown::Neither));
        evidence.signs =
            vec![sign(Rank::Installed, Service::Courier), sign(Rank::Installed, Service::Dovecot)];
        evidence.traces.dovecot = left(1);
        let only = Verdict { service: Service::Dovecot, by: None };
        assert_eq!(evidence.verdict(), Ok(only));
    }
}
