//! Named events, which Dovecot's own statistics can count: one for each POP3 login of a migrated
//! user, `uidl_keep_listed` or `uidl_keep_refused`. docs/metrics.md says what their fields mean.

use std::ffi::CStr;
use std::time::Instant;

use super::host::{Mailbox, NamedEvent};
use super::settings;
use crate::ledger::Provenance;
use crate::resolve::{Report, Undecidable};

/// How a listing was made, and what was found out for it.
#[derive(Debug)]
pub enum ListingKind {
    /// The ledger had all of it.
    Warm,
    /// So many new messages came to a settled maildrop.
    Grown(usize),
    /// The rules looked.
    Cold(Report),
    /// The INBOX is that of another user, whose ledger had all of it (rule 12).
    OtherName,
}

impl ListingKind {
    /// The field `listing`.
    fn word(&self) -> &'static CStr {
        match self {
            Self::Warm => c"warm",
            Self::Grown(_) => c"grown",
            Self::Cold(report) if report.is_first => c"first",
            Self::Cold(_) => c"cold",
            Self::OtherName => c"other_name",
        }
    }
}

/// A listing that is being made.
pub struct ListingEvent {
    event: NamedEvent,
    begun: Instant,
}

impl ListingEvent {
    /// Begins the event of a listing, and its time.
    pub fn begin(mailbox: Mailbox) -> Self {
        Self { event: mailbox.begin_event(), begun: Instant::now() }
    }

    /// Says that a listing of so many messages is ready. Messages are counted by the first listing
    /// that tells them, so that a sum over listings counts each once.
    pub fn send(self, kind: &ListingKind, messages: u32) {
        if !is_clients() {
            return;
        }
        let Self { event, begun } = self;
        event.add_word(c"listing", kind.word());
        event.add_count(c"messages", u64::from(messages));
        let add = |field: &CStr, count: usize| event.add_count(field, count as u64);
        match kind {
            ListingKind::Warm | ListingKind::OtherName => {}
            ListingKind::Grown(new) => add(c"unknown", *new),
            ListingKind::Cold(report) => {
                let count = |provenance| report.count(provenance);
                add(c"kept_file", count(Provenance::File));
                add(c"kept_message", count(Provenance::Message));
                add(c"kept_header", count(Provenance::Header));
                add(c"kept_origin", count(Provenance::Origin));
                add(c"kept_stored", count(Provenance::Stored));
                add(c"unknown", count(Provenance::Native) + count(Provenance::Derived));
                add(c"unknown_derived", count(Provenance::Derived));
                add(c"unreadable", report.undecided.len());
                add(c"missing", report.unclaimed);
            }
        }
        let microseconds = begun.elapsed().as_micros();
        event.add_count(c"microseconds", u64::try_from(microseconds).unwrap_or(u64::MAX));
        event.send(c"uidl_keep_listed", c"a POP3 listing is ready");
    }
}

/// Why a login is refused, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The user is held, or his domain.
    Held,
    /// The user was forgotten.
    Forgotten,
    /// What was captured of the user failed.
    CaptureFailed,
    /// The user may be one of those whom no capture could find.
    NotSearched,
    /// The site, its roster or its settings cannot be read.
    Site,
    /// The index cannot be read.
    Index,
    /// The ledger cannot be read, or another user's lies in its place.
    Ledger,
    /// There is a ledger, and the user is on no roster.
    NoRoster,
    /// The INBOX is that of another user, who must list its new messages first.
    OtherName,
    /// Another login has the lock of the ledger.
    Busy,
    /// Dovecot cannot read `dovecot-uidlist`, or has no control directory.
    Mailbox,
    /// Fewer than half of what was captured are here.
    HalfCopied,
    /// The mailbox was made anew, and most of what was listed is gone.
    MostAreGone,
    /// Too many messages cannot be read.
    Unreadable,
    /// The index is older than the one that clients were told from.
    OlderIndex,
    /// All order numbers are used up.
    OrderExhausted,
    /// A message went while it was looked at, or a client is served already. No client hears that.
    Overtaken,
}

impl Reason {
    /// The field `reason`.
    fn word(self) -> &'static CStr {
        match self {
            Self::Held => c"held",
            Self::Forgotten => c"forgotten",
            Self::CaptureFailed => c"capture_failed",
            Self::NotSearched => c"not_searched",
            Self::Site => c"site",
            Self::Index => c"index",
            Self::Ledger => c"ledger",
            Self::NoRoster => c"no_roster",
            Self::OtherName => c"other_name",
            Self::Busy => c"busy",
            Self::Mailbox => c"mailbox",
            Self::HalfCopied => c"half_copied",
            Self::MostAreGone => c"most_are_gone",
            Self::Unreadable => c"unreadable",
            Self::OlderIndex => c"older_index",
            Self::OrderExhausted => c"order_exhausted",
            Self::Overtaken => c"overtaken",
        }
    }
}

impl From<&Undecidable> for Reason {
    fn from(why: &Undecidable) -> Self {
        match why {
            Undecidable::HalfCopied { .. } => Self::HalfCopied,
            Undecidable::MostAreGone { .. } => Self::MostAreGone,
            Undecidable::Unreadable { .. } => Self::Unreadable,
            Undecidable::OlderIndex { .. } => Self::OlderIndex,
            Undecidable::OrderExhausted => Self::OrderExhausted,
        }
    }
}

/// Says that a login is refused.
pub fn send_refused(mailbox: Mailbox, reason: Reason) {
    if !mailbox.is_pop3() || !is_clients() {
        return;
    }
    let event = mailbox.begin_event();
    event.add_word(c"reason", reason.word());
    event.send(c"uidl_keep_refused", c"a POP3 login is refused");
}

/// Says whether this process serves a client: nobody hears what a rehearsal lists.
fn is_clients() -> bool {
    settings::rehearsal().is_none_or(|stamp| stamp == 0)
}
