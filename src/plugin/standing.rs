//! What a user is to us: nobody, somebody whose UIDLs are kept, or one who must be refused.

use std::fs::File;

use super::events::Reason;
use super::host::User;
use super::settings;
use crate::ledger::LedgerHead;
use crate::maildrop::State;
use crate::resolve::Stamps;
use crate::site::remedy::Remedy;
use crate::site::roster::{self, Gate, RosterError, RosterLine};
use crate::site::{Settings, Site};

/// A POP3 client is told this when it must come back later. Paths and reasons are for the log.
pub const LATER: &str = "Mailbox is temporarily not available, please try again later.";
const MOVING: &str = "Mailbox is being moved, please try again later.";

/// What a user is to us.
pub enum Standing {
    /// All goes on as if the plugin were not there: the user downloads again, or Dovecot has no
    /// name for him.
    Inert,
    /// He is on no roster under this name. It may be another name of a mailbox that was migrated.
    /// Then POP3 finds a ledger in it.
    Stranger(Stranger),
    /// He is on the roster, and is served.
    Kept(Box<Kept>),
    /// He is on the roster, or may be, and what the old server had of him is not known. POP3
    /// refuses him, and a copy of his mail goes on.
    Uncaptured(Box<Uncaptured>),
    /// He is on the roster, or may be, and is not served: a file cannot tell, until it is mended.
    Refused(RefusedLogin),
}

/// A user of whom nothing that holds was captured.
pub struct Uncaptured {
    /// The user name.
    pub user: String,
    /// What the operator has said of the maildrop, if anything of him alone.
    pub stamps: Stamps,
    /// Why POP3 does not serve him.
    pub refusal: RefusedLogin,
}

/// A user who is on no roster.
pub struct Stranger {
    /// The user name.
    pub name: String,
    site: Site,
    /// Whether the whole domain is held, and he with it.
    is_held: bool,
}

impl Stranger {
    /// Why no POP3 client may list the mailbox now, whatever is in it.
    pub fn held(&self) -> Option<RefusedLogin> {
        let (_, domain) = self.name.rsplit_once('@').filter(|_| self.is_held)?;
        let log = format!(
            "{} is on no roster, and {domain} is held: `uidl-keep release {domain}` when the \
             mailboxes have been moved",
            self.name
        );
        Some(RefusedLogin { log, client: MOVING, reason: Reason::Held })
    }

    /// Looks up the user whose ledger lies in the stranger's INBOX. `Ok(None)`: he is none of our
    /// business either, for he downloads again.
    ///
    /// # Errors
    ///
    /// Why he is refused himself, or why the roster cannot tell.
    pub fn owner(&self, owner: &str) -> Result<Option<Owner>, RefusedLogin> {
        if owner == self.name {
            return Ok(Some(Owner { forgotten: 0 }));
        }
        let fault = |why: String| RefusedLogin::fault(Reason::Site, why);
        let line = look_up(&self.site, owner).map_err(fault)?;
        let Some(line) = line else { return Ok(Some(Owner { forgotten: 0 })) };
        match refusal_of(&line) {
            Some(refusal) => Err(refusal),
            None if line.gate == Gate::Redownload => Ok(None),
            None if line.gate == Gate::Held => Err(held(owner)),
            None => Ok(Some(Owner { forgotten: line.forgotten })),
        }
    }
}

/// The user whose ledger lies in a stranger's INBOX.
pub struct Owner {
    /// A ledger that was begun before is void.
    pub forgotten: u64,
}

/// What is needed to serve a user who is on the roster.
pub struct Kept {
    /// The user name.
    pub user: String,
    /// The site that has the index.
    pub site: Site,
    /// What counts for him.
    pub settings: Settings,
    /// Held, guarded or released. Only POP3 heeds it: the mailbox of a held user is being moved,
    /// perhaps by the very doveadm that asks.
    pub gate: Gate,
    /// What the operator has said of the maildrop.
    pub stamps: Stamps,
    /// The stamp of the rehearsal that this session is, while no client can list the maildrop. 0: a
    /// client lists it.
    pub rehearsal: u64,
    /// Rehearsals that began then or before were undone.
    pub undone: u64,
}

impl Kept {
    /// Why no POP3 client may list the mailbox now, whatever is in it.
    pub fn held(&self) -> Option<RefusedLogin> {
        (self.gate == Gate::Held && self.rehearsal == 0).then(|| held(&self.user))
    }

    /// Says whether a ledger whose head says this is void: it was forgotten, or only rehearsed, and
    /// that was undone.
    pub fn voids(&self, head: LedgerHead) -> bool {
        head.begun_after < self.stamps.forgotten || (1..=self.undone).contains(&head.rehearsal)
    }
}

fn held(user: &str) -> RefusedLogin {
    let log = format!("{user} is held: `uidl-keep release {user}` when the mailbox has been moved");
    RefusedLogin { log, client: MOVING, reason: Reason::Held }
}

/// Why POP3 refuses a user whose roster line says this, whatever is in the mailbox.
fn refusal_of(line: &RosterLine) -> Option<RefusedLogin> {
    let name = &line.user;
    if line.gate == Gate::Redownload {
        return None;
    }
    if line.awaits_capture() {
        let log = format!(
            "{name} was forgotten: capture it again and build upon this site, or `uidl-keep \
             release --redownload {name}`"
        );
        return Some(RefusedLogin { log, client: MOVING, reason: Reason::Forgotten });
    }
    (line.state == State::Failed).then(|| {
        let log = format!(
            "the capture of {name} failed: capture it again and build upon the old site, or \
             `uidl-keep release --redownload {name}`"
        );
        RefusedLogin::fault(Reason::CaptureFailed, log)
    })
}

/// Why a user is refused whom the roster does not name, where it names `everybody` of his domain.
fn missed(name: &str, everybody: &str) -> RefusedLogin {
    let log = format!(
        "{name} may be one of {everybody}, who lived at the old server where it could not be \
         searched: capture that domain again and build upon the old site; then, or if nobody of \
         it is missing, `uidl-keep release --redownload '{everybody}'`"
    );
    RefusedLogin::fault(Reason::NotSearched, log)
}

/// A refused login.
#[derive(Debug, Clone)]
pub struct RefusedLogin {
    /// For the log: place, fact and next step.
    pub log: String,
    /// For the client.
    pub client: &'static str,
    /// For Dovecot's statistics.
    pub reason: Reason,
}

impl RefusedLogin {
    /// A refusal because we could not tell.
    pub fn fault(reason: Reason, log: impl Into<String>) -> Self {
        Self { log: log.into(), client: LATER, reason }
    }

    /// Says whether the operator meant it. Then clients come again and again, and nothing is wrong.
    pub fn is_meant(&self) -> bool {
        self.client == MOVING
    }
}

impl Standing {
    /// Looks the user up. A user on no roster costs one failed open, and another in POP3.
    pub fn of(user: User) -> Self {
        let Some(name) = user.name() else { return Self::Inert };
        match Self::find(user, name) {
            Ok(standing) => standing,
            Err(log) => Self::Refused(RefusedLogin::fault(Reason::Site, log)),
        }
    }

    fn find(user: User, name: String) -> Result<Self, String> {
        settings::check_nothing_is_overlooked(user)?;
        let site = settings::site();
        let Some(line) = read_roster(&site, &name, roster::lookup_or_everybody)? else {
            return Ok(Self::Stranger(Stranger { name, site, is_held: false }));
        };
        if line.user != name {
            return Ok(match refusal_of(&line) {
                Some(_) => {
                    let (stamps, refusal) = (Stamps::default(), missed(&name, &line.user));
                    Self::Uncaptured(Box::new(Uncaptured { user: name, stamps, refusal }))
                }
                None => {
                    let is_held = line.gate == Gate::Held;
                    Self::Stranger(Stranger { name, site, is_held })
                }
            });
        }
        if line.gate == Gate::Redownload {
            return Ok(Self::Inert);
        }
        let refusal = refusal_of(&line);
        let RosterLine { gate, forgotten, listed, restored, unguarded, undone, .. } = line;
        let stamps = Stamps { forgotten, restored, unguarded, listed };
        if let Some(refusal) = refusal {
            let uncaptured = Uncaptured { user: name, stamps, refusal };
            return Ok(Self::Uncaptured(Box::new(uncaptured)));
        }
        let settings = site.settings()?.of(&name);
        // Only the rehearsal that the roster speaks of passes, and only while he is held.
        let is_held = gate == Gate::Held;
        let asked = settings::rehearsal().filter(|stamp| *stamp != 0);
        if asked.is_some() && !is_held {
            // Listed as a client, new mail that no client has seen would have its place for ever.
            let log = format!("{name} is served by now: his client makes the first listing");
            return Ok(Self::Refused(RefusedLogin::fault(Reason::Overtaken, log)));
        }
        let named = asked.filter(|stamp| is_held && *stamp == line.rehearsal);
        let rehearsal = named.unwrap_or(0);
        let kept = Kept { user: name, site, settings, gate, stamps, rehearsal, undone };
        Ok(Self::Kept(Box::new(kept)))
    }
}

fn look_up(site: &Site, name: &str) -> Result<Option<RosterLine>, String> {
    read_roster(site, name, roster::lookup)
}

fn read_roster(
    site: &Site,
    name: &str,
    lookup: fn(&File, &str) -> Result<Option<RosterLine>, RosterError>,
) -> Result<Option<RosterLine>, String> {
    // There is no roster for a name that no file can have, and it is no fault either.
    let path = || site.paths(name).map(|paths| paths.roster).unwrap_or_default();
    let place = || path().display().to_string();
    let opened = site.open_roster(name).map_err(|e| {
        let until = "until then nobody can be told from a migrated user";
        format!("{}: {e}; {}: {until}", place(), e.remedy())
    })?;
    let Some(file) = opened else { return Ok(None) };
    lookup(&file, name).map_err(|e| format!("{}: {e}; {}", place(), e.remedy()))
}
