//! Who a user is to us: nobody, somebody whose UIDLs are kept, or one who must be refused.

use super::host::User;
use super::settings::{self, Settings};
use crate::maildrop::State;
use crate::remedy::Remedy;
use crate::resolve::Stamps;
use crate::roster::{self, Gate};
use crate::site::Site;

/// What a POP3 client is told when it must come back later. Paths and reasons are for the log.
pub const LATER: &str = "Mailbox is temporarily not available, please try again later.";
const MOVING: &str = "Mailbox is being moved, please try again later.";

/// What a user is to us.
pub enum Standing {
    /// Everything goes on as if the plugin were not there: the user downloads again, or Dovecot has no
    /// name for him.
    Inert,
    /// On no roster, under this name. It may be another name of a mailbox that was migrated: then POP3
    /// finds a ledger in it.
    Stranger(String),
    /// On the roster, and to be served.
    Kept(Box<Kept>),
    /// On the roster, or perhaps on it, and not to be served.
    Refused(Refusal),
}

/// What is needed to serve a user who is on the roster.
pub struct Kept {
    /// The user name.
    pub user: String,
    /// The site that has the index.
    pub site: Site,
    /// The plugin's settings.
    pub settings: Settings,
    /// Held, guarded or released: what that means is for POP3 alone. The mailbox of a held user is
    /// being moved, perhaps by the very doveadm that asks.
    pub gate: Gate,
    /// What the operator has said of the maildrop.
    pub stamps: Stamps,
}

impl Kept {
    /// Why no POP3 client may list the mailbox now, whatever is in it.
    pub fn held(&self) -> Option<Refusal> {
        let log = || {
            let user = &self.user;
            format!("{user} is held: `uidl-keep release {user}` when the mailbox has been moved")
        };
        (self.gate == Gate::Held).then(|| Refusal { log: log(), client: MOVING })
    }
}

/// A refused login.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// For the log: place, fact and next step.
    pub log: String,
    /// For the client.
    pub client: &'static str,
}

impl Refusal {
    /// Could not tell.
    pub fn fault(log: impl Into<String>) -> Self {
        Self { log: log.into(), client: LATER }
    }
}

impl Standing {
    /// Looks the user up: one failed open for somebody who is in no site, and another in POP3.
    pub fn of(user: User) -> Self {
        let Some(name) = user.name() else { return Self::Inert };
        match Self::find(user, name) {
            Ok(standing) => standing,
            Err(log) => Self::Refused(Refusal::fault(log)),
        }
    }

    fn find(user: User, name: String) -> Result<Self, String> {
        let dir = settings::site_dir(user)?;
        let site = Site::new(dir);
        let Some(line) = look_up(&site, &name)? else { return Ok(Self::Stranger(name)) };
        if line.gate == Gate::Redownload {
            return Ok(Self::Inert);
        }
        if line.awaits_capture() {
            let log = format!(
                "{name} was forgotten: capture it again and build upon this site, or `uidl-keep \
                 release --redownload {name}`"
            );
            return Ok(Self::Refused(Refusal { log, client: MOVING }));
        }
        if line.state == State::Failed {
            return Err(format!(
                "the capture of {name} failed: capture it again and build upon the old site, or \
                 `uidl-keep release --redownload {name}`"
            ));
        }
        let settings = Settings::read(user)?;
        let roster::Line { gate, forgotten, listed, restored, unguarded, .. } = line;
        let stamps = Stamps { forgotten, restored, unguarded, listed };
        Ok(Self::Kept(Box::new(Kept { user: name, site, settings, gate, stamps })))
    }
}

fn look_up(site: &Site, name: &str) -> Result<Option<roster::Line>, String> {
    let Some(paths) = site.paths(name) else { return Ok(None) };
    let place = paths.roster.display().to_string();
    let opened = site.open_roster(name);
    let Some(file) = opened.map_err(|e| {
        format!("{place}: {e}; {}: until then nobody can be told from a migrated user", e.remedy())
    })?
    else {
        return Ok(None);
    };
    roster::lookup(&file, name).map_err(|e| format!("{place}: {e}; {}", e.remedy()))
}
