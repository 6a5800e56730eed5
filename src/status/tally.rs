//! Counts how far the maildrops of a domain have come: [`StatusTally`].
#![forbid(unsafe_code)]

use crate::maildrop::{Maildrop, State, is_everybody};
use crate::resolve::Memory;
use crate::site::roster::{Gate, RosterLine, is_domain};
use crate::status::ledger::{Bake, LedgerSeen};

/// How far one maildrop has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaildropStatus {
    /// What the roster says.
    pub line: RosterLine,
    /// What was seen beside the mail.
    pub seen: LedgerSeen,
}

impl MaildropStatus {
    /// Whether a POP3 client was told anything here. `None`: not looked at, or could not tell. What
    /// a rehearsal alone was told does not count.
    pub fn is_listed(&self) -> Option<bool> {
        match &self.seen {
            LedgerSeen::NotLooked | LedgerSeen::CouldNotTell(_) => None,
            LedgerSeen::Nothing => Some(false),
            LedgerSeen::Listed(listed) if self.is_void(listed.ledger.begun_after) => Some(false),
            LedgerSeen::Listed(_) => Some(!self.is_only_rehearsed()),
        }
    }

    /// Whether a ledger that began after that stamp was forgotten since.
    fn is_void(&self, begun_after: u64) -> bool {
        begun_after < self.line.forgotten
    }

    /// Whether the ledger is that of a rehearsal, and no client has listed the maildrop since.
    pub fn is_only_rehearsed(&self) -> bool {
        let LedgerSeen::Listed(listed) = &self.seen else { return false };
        let (ledger, mark) = (Some(&listed.ledger), listed.mark.as_ref());
        Memory { ledger, mark }.is_rehearsal()
    }

    /// Whether POP3 serves the user by what was captured.
    pub fn is_served(&self) -> bool {
        matches!(self.line.gate, Gate::Guarded | Gate::Released) && self.refused().is_none()
    }

    /// Why POP3 refuses the user whatever is in the mailbox, apart from being held.
    pub fn refused(&self) -> Option<Refused> {
        match &self.line {
            line if line.gate == Gate::Redownload => None,
            line if line.awaits_capture() => Some(Refused::Forgotten),
            line if line.state == State::Failed && is_everybody(&line.user) => {
                Some(Refused::MayBeMissing)
            }
            line if line.state == State::Failed => Some(Refused::CaptureFailed),
            _ => None,
        }
    }
}

/// Why POP3 refuses a user until the operator does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The capture failed.
    CaptureFailed,
    /// The user was forgotten, and awaits a capture.
    Forgotten,
    /// Somebody of the domain may have been missed by the capture: everybody who is on no roster is
    /// refused.
    MayBeMissing,
}

impl Refused {
    /// The reason in words, without the user.
    pub fn because(self) -> &'static str {
        match self {
            Self::CaptureFailed => "its capture failed",
            Self::Forgotten => "it was forgotten, and awaits a capture",
            Self::MayBeMissing => "the old server could not be searched for all of the domain",
        }
    }
}

/// How many maildrops of a domain, or of all, have come how far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusTally {
    /// Users on the roster.
    pub maildrops: usize,
    /// Maildrops that were captured with messages.
    pub captured: usize,
    /// Maildrops of which no client holds a UIDL.
    pub empty: usize,
    /// Maildrops whose capture failed.
    pub failed: usize,
    /// Messages that were captured.
    pub messages: usize,
    /// When the first of the captures was taken, in seconds since 1970; `None`: no listing says.
    pub oldest: Option<u64>,
    /// When the last of them was.
    pub newest: Option<u64>,
    /// Rosters whose index says that no capture follows.
    pub final_indexes: usize,
    /// Rosters whose index says that one may.
    pub open_indexes: usize,
    /// Rosters whose index was not looked at.
    pub unread_indexes: usize,
    /// Users who are held.
    pub held: usize,
    /// How many of these were told by the last rehearsal what was captured.
    pub rehearsed: usize,
    /// How many of these can be rehearsed, and were not.
    pub unrehearsed: usize,
    /// Users who are served, and guarded.
    pub guarded: usize,
    /// Users who are served, and released from the guard.
    pub released: usize,
    /// Users whose clients download everything again.
    pub redownload: usize,
    /// Domains that are held as a whole.
    pub held_domains: usize,
    /// Maildrops that a client has listed here.
    pub listed: usize,
    /// Maildrops that only a rehearsal has listed.
    pub only_rehearsed: usize,
    /// Maildrops that are served, and that no client has listed yet.
    pub waiting: usize,
    /// The first of these.
    pub first_waiting: Option<String>,
    /// Maildrops whose ledger was not looked at.
    pub not_looked: usize,
    /// Maildrops of whose ledger it could not tell, and why.
    pub not_told: Vec<(String, String)>,
    /// Maildrops that have a ledger, and of which Dovecot can tell everything by itself.
    pub baked: usize,
    /// Maildrops of which Dovecot cannot; on Maildir.
    pub unbaked: Vec<String>,
    /// Maildrops of which nobody can say so, and why.
    pub bake_not_told: Vec<(String, String)>,
    /// Maildrops on mdbox and sdbox that have kept UIDLs in the ledger alone.
    pub ledger_alone: Vec<String>,
    /// How many UIDLs these have.
    pub ledger_alone_uidls: usize,
    /// Who is refused, and why.
    pub refused: Vec<(String, Refused)>,
}

impl StatusTally {
    /// Counts one line of a roster with what was seen of the maildrop.
    pub fn add(&mut self, status: &MaildropStatus) {
        let line = &status.line;
        if is_domain(&line.user) {
            self.held_domains += usize::from(line.gate == Gate::Held);
            return;
        }
        if let Some(refused) = status.refused() {
            self.refused.push((line.user.clone(), refused));
        }
        if is_everybody(&line.user) {
            return;
        }
        self.maildrops += 1;
        *match line.state {
            State::Captured => &mut self.captured,
            State::Empty => &mut self.empty,
            State::Failed => &mut self.failed,
        } += 1;
        *match line.gate {
            Gate::Held => &mut self.held,
            Gate::Guarded => &mut self.guarded,
            Gate::Released => &mut self.released,
            Gate::Redownload => &mut self.redownload,
        } += 1;
        if line.gate == Gate::Held {
            self.rehearsed += usize::from(line.rehearsed);
            // Whoever knows the listing already needs no rehearsal.
            let is_first = status.is_listed() != Some(true);
            let can_be = status.refused().is_none() && is_first;
            self.unrehearsed += usize::from(!line.rehearsed && can_be);
        }
        // Dovecot alone answers these users.
        if line.gate == Gate::Redownload {
            return;
        }
        match &status.seen {
            LedgerSeen::NotLooked => self.not_looked += 1,
            LedgerSeen::CouldNotTell(why) => self.not_told.push((line.user.clone(), why.clone())),
            LedgerSeen::Nothing | LedgerSeen::Listed(_) => self.add_seen(status),
        }
    }

    fn add_seen(&mut self, status: &MaildropStatus) {
        self.only_rehearsed += usize::from(status.is_only_rehearsed());
        match status.is_listed() {
            Some(true) => self.listed += 1,
            Some(false) | None if status.is_served() => {
                self.waiting += 1;
                self.first_waiting.get_or_insert_with(|| status.line.user.clone());
            }
            Some(false) | None => {}
        }
        let LedgerSeen::Listed(listed) = &status.seen else { return };
        let user = || status.line.user.clone();
        match &listed.bake {
            bake if bake.is_whole() => self.baked += 1,
            Bake::InList { .. } => self.unbaked.push(user()),
            Bake::LedgerAlone { messages } => {
                self.ledger_alone.push(user());
                self.ledger_alone_uidls += messages;
            }
            Bake::CouldNotTell(why) => self.bake_not_told.push((user(), why.clone())),
        }
    }

    /// Counts what an index has of one maildrop.
    pub fn add_captured(&mut self, captured: &Maildrop) {
        self.messages += captured.entries.len();
        for taken in captured.captures.iter().filter_map(|capture| capture.taken) {
            self.oldest = Some(self.oldest.map_or(taken, |oldest| oldest.min(taken)));
            self.newest = Some(self.newest.map_or(taken, |newest| newest.max(taken)));
        }
    }

    /// Counts an index; `None`: it was not looked at.
    pub fn add_index(&mut self, is_final: Option<bool>) {
        *match is_final {
            Some(true) => &mut self.final_indexes,
            Some(false) => &mut self.open_indexes,
            None => &mut self.unread_indexes,
        } += 1;
    }

    /// Adds another count.
    pub fn join(&mut self, other: &Self) {
        let Self {
            oldest, newest, not_told, unbaked, bake_not_told, ledger_alone, refused, ..
        } = other;
        for (sum, more) in [
            (&mut self.maildrops, other.maildrops),
            (&mut self.captured, other.captured),
            (&mut self.empty, other.empty),
            (&mut self.failed, other.failed),
            (&mut self.messages, other.messages),
            (&mut self.final_indexes, other.final_indexes),
            (&mut self.open_indexes, other.open_indexes),
            (&mut self.unread_indexes, other.unread_indexes),
            (&mut self.held, other.held),
            (&mut self.rehearsed, other.rehearsed),
            (&mut self.unrehearsed, other.unrehearsed),
            (&mut self.guarded, other.guarded),
            (&mut self.released, other.released),
            (&mut self.redownload, other.redownload),
            (&mut self.held_domains, other.held_domains),
            (&mut self.listed, other.listed),
            (&mut self.only_rehearsed, other.only_rehearsed),
            (&mut self.waiting, other.waiting),
            (&mut self.not_looked, other.not_looked),
            (&mut self.baked, other.baked),
            (&mut self.ledger_alone_uidls, other.ledger_alone_uidls),
        ] {
            *sum += more;
        }
        self.oldest = self.oldest.into_iter().chain(*oldest).min();
        self.newest = self.newest.max(*newest);
        if self.first_waiting.is_none() {
            self.first_waiting.clone_from(&other.first_waiting);
        }
        self.not_told.extend(not_told.iter().cloned());
        self.unbaked.extend(unbaked.iter().cloned());
        self.bake_not_told.extend(bake_not_told.iter().cloned());
        self.ledger_alone.extend(ledger_alone.iter().cloned());
        self.refused.extend(refused.iter().cloned());
    }
}
