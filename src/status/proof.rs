//! The proof that Dovecot alone tells a user's clients the same: [`prove`].
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::bake::{BakePlace, baked_listing};
use crate::capture::find::source::Source;
use crate::dovecot::{Dovecot, InboxPath, PLUGIN};
use crate::forecast::Terms;
use crate::ledger::Epoch;
use crate::maildrop::{CapturedMaildrop, State, is_everybody};
use crate::rehearsal::Pop3Program;
use crate::resolve::{self, Memory, Outcome, Purpose, Situation, Stamps};
use crate::site::roster::{Gate, RosterLine, is_domain};
use crate::status::ledger::{Bake, LedgerSeen, ListedHere, StoreKind, look};
use crate::status::tally::{MaildropStatus, Refused};
use crate::text::printable;

/// No mailbox's next UID is raised so far: see rule 6.
const NEVER_REACHED: u32 = 1 << 31;

/// Why a user's domain cannot be retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unproven {
    /// The user, or the whole domain, is held.
    Held,
    /// POP3 refuses him.
    Refused(Refused),
    /// No client has listed the maildrop yet.
    Waiting {
        /// Whether a rehearsal has.
        is_rehearsed: bool,
        /// Why Dovecot alone does not tell him the same, as far as that could be found out.
        why: String,
    },
    /// Messages lack their UIDL in `dovecot-uidlist`.
    Unbaked {
        /// How many.
        messages: usize,
        /// The UID of the first.
        uid: u32,
        /// The UIDL that clients know it by, printable.
        uidl: String,
    },
    /// New mail may get a UIDL that a client holds.
    NextUid {
        /// What it is.
        next_uid: u32,
        /// What it must be at least.
        first_unspent: u32,
    },
    /// A client would be told something else.
    Differs {
        /// The message-number.
        number: usize,
        /// The UIDL there now, printable; empty: there is none.
        with: String,
        /// The UIDL there without the plugin, printable; empty: there is none.
        without: String,
        /// Where the mail lies.
        store: StoreKind,
    },
    /// Could not tell, for this reason.
    CouldNotTell(String),
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |uidl: &String| match uidl.is_empty() {
            true => "nothing".to_owned(),
            false => uidl.clone(),
        };
        match self {
            Self::Held => f.write_str("is held: release first"),
            Self::Refused(why) => write!(
                f,
                "is refused, for {}: capture it again and build upon this site, or `uidl-keep \
                 release --redownload`",
                why.because()
            ),
            Self::Waiting { is_rehearsed, why } => write!(
                f,
                "was listed by no client yet{} ({why}): wait, `uidl-keep bake` it, or give it up \
                 by `uidl-keep release --redownload`",
                if *is_rehearsed { ", only rehearsed" } else { "" }
            ),
            Self::Unbaked { messages, uid, uidl } => write!(
                f,
                "{messages} messages lack their UIDL in dovecot-uidlist, the first is UID {uid} \
                 ({uidl}): `uidl-keep bake` the user"
            ),
            Self::NextUid { next_uid, first_unspent } => write!(
                f,
                "its next UID is {next_uid}, and clients may hold UIDLs of numbers below \
                 {first_unspent}: a POP3 login raises it; if the log says that it cannot, keep the \
                 plugin"
            ),
            Self::Differs { number, with, without, store } => {
                write!(
                    f,
                    "without the plugin message {number} has {}, and with it {}",
                    shown(without),
                    shown(with)
                )?;
                match store {
                    StoreKind::Mdbox | StoreKind::Sdbox => f.write_str(
                        ": its UIDLs are in the ledger alone; `uidl-keep bake --into` a new \
                         location carries them over",
                    ),
                    StoreKind::Maildir | StoreKind::Other => f.write_str(
                        ": `uidl-keep bake`, and look at `bake` and `order` in the site's settings",
                    ),
                }
            }
            Self::CouldNotTell(why) => write!(f, "could not tell: {why}"),
        }
    }
}

/// Proves that clients of a user are told the same, octet for octet and in the same order, once the
/// plugin is gone, and that no new message will get a UIDL that they hold. Dovecot's own POP3
/// program is asked with and without the plugin; the first is a session as any other, so that it is
/// asked only where a client has listed the maildrop. A Maildir that nobody has listed is proven
/// where it is baked whole. `dir` is the control directory of the INBOX.
///
/// # Errors
///
/// [`Unproven`].
pub fn prove(
    terms: &Terms,
    dovecot: &Dovecot,
    line: &RosterLine,
    dir: &Path,
    patience: Duration,
) -> Result<(), Unproven> {
    let user = &line.user;
    prove_line(line)?;
    if line.gate == Gate::Redownload {
        return Ok(());
    }
    let status = MaildropStatus { line: line.clone(), seen: look(user, dir) };
    match (&status.seen, status.is_listed()) {
        (LedgerSeen::CouldNotTell(why), _) => return Err(Unproven::CouldNotTell(why.clone())),
        (_, Some(true)) => {}
        _ => {
            let is_rehearsed = status.is_only_rehearsed();
            return prove_baked(terms, dovecot, user, dir, patience, is_rehearsed);
        }
    }
    let with = told(dovecot, user, Plugins::OfPop3, patience)?;
    // New mail is in the ledger now.
    let listed = match look(user, dir) {
        LedgerSeen::Listed(listed) => listed,
        LedgerSeen::CouldNotTell(why) => return Err(Unproven::CouldNotTell(why)),
        LedgerSeen::Nothing | LedgerSeen::NotLooked => {
            return Err(Unproven::CouldNotTell("its ledger went while it was looked at".into()));
        }
    };
    if !is_listing_of(&listed, &with, terms.settings_of(user).order) {
        return Err(Unproven::CouldNotTell(
            "POP3 lists it otherwise than the ledger says: some message cannot be read, or POP3 \
             does not load uidl_keep for this user"
                .into(),
        ));
    }
    match &listed.bake {
        Bake::InList { needed, baked, first_unbaked: Some((uid, uidl)) } => {
            return Err(Unproven::Unbaked {
                messages: needed - baked,
                uid: *uid,
                uidl: printable(uidl.as_bytes()),
            });
        }
        Bake::CouldNotTell(why) => return Err(Unproven::CouldNotTell(why.clone())),
        Bake::InList { .. } | Bake::LedgerAlone { .. } => {}
    }
    prove_next_uid(terms, dovecot, line, &listed)?;
    let without = told(dovecot, user, Plugins::OfPop3WithoutUs, patience)?;
    prove_equal(&with, &without, listed.store)
}

/// The mail plugins of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugins {
    /// Those that POP3 loads.
    OfPop3,
    /// The same without ours.
    OfPop3WithoutUs,
}

/// The listing of a user with these plugins.
fn told(
    dovecot: &Dovecot,
    user: &str,
    plugins: Plugins,
    patience: Duration,
) -> Result<Vec<Box<[u8]>>, Unproven> {
    let without: &[&str] = match plugins {
        Plugins::OfPop3 => &[],
        Plugins::OfPop3WithoutUs => &[PLUGIN],
    };
    let cannot = |why: &dyn fmt::Display| Unproven::CouldNotTell(why.to_string());
    let program = Pop3Program::of(dovecot, without).map_err(|error| cannot(&error))?;
    program.uidls(user, 0, patience).map_err(|error| cannot(&error))
}

/// As [`prove`], of a Maildir that no client has listed: it is baked whole. The plugin is not
/// asked, for it would take that for a first listing.
fn prove_baked(
    terms: &Terms,
    dovecot: &Dovecot,
    user: &str,
    dir: &Path,
    patience: Duration,
    is_rehearsed: bool,
) -> Result<(), Unproven> {
    let waiting = |why: String| Unproven::Waiting { is_rehearsed, why };
    if terms.native.is_none() {
        return Err(waiting("pop3_uidl_format is not known: say --format".to_owned()));
    }
    let path = |directory| dovecot.inbox_path(user, directory);
    let mailbox = path(InboxPath::Mailbox).map_err(|error| waiting(error.to_string()))?;
    let index = path(InboxPath::Index).map_err(|error| waiting(error.to_string()))?;
    let place = BakePlace {
        mailbox: Source::named(user, mailbox),
        control: Some(Source::named(user, dir)),
        index: Some(Source::named(user, index)),
    };
    let baked = baked_listing(terms, user, &place).map_err(|why| waiting(why.to_string()))?;
    let baked: Vec<Box<[u8]>> = baked.iter().map(|uidl| uidl.as_bytes().into()).collect();
    let without = told(dovecot, user, Plugins::OfPop3WithoutUs, patience)?;
    prove_equal(&baked, &without, StoreKind::Maildir)
}

fn prove_equal(
    with: &[Box<[u8]>],
    without: &[Box<[u8]>],
    store: StoreKind,
) -> Result<(), Unproven> {
    for number in 1..=with.len().max(without.len()) {
        let [one, other] = [with, without].map(|listing| listing.get(number - 1));
        if one != other {
            let shown =
                |uidl: Option<&Box<[u8]>>| uidl.map(|uidl| printable(uidl)).unwrap_or_default();
            let (with, without) = (shown(one), shown(other));
            return Err(Unproven::Differs { number, with, without, store });
        }
    }
    Ok(())
}

/// As far as the roster alone tells: for the whole domain, and who may be missing in it, too.
///
/// # Errors
///
/// [`Unproven::Held`], [`Unproven::Refused`].
pub fn prove_line(line: &RosterLine) -> Result<(), Unproven> {
    if line.gate == Gate::Redownload {
        return Ok(());
    }
    if line.gate == Gate::Held {
        return Err(Unproven::Held);
    }
    match line {
        line if line.awaits_capture() => Err(Unproven::Refused(Refused::Forgotten)),
        line if line.state != State::Failed => Ok(()),
        line if is_everybody(&line.user) => Err(Unproven::Refused(Refused::MayBeMissing)),
        line if is_domain(&line.user) => Ok(()),
        _ => Err(Unproven::Refused(Refused::CaptureFailed)),
    }
}

/// Whether a listing is what the ledger says of the messages that are there, in its order where the
/// old order is kept.
fn is_listing_of(listed: &ListedHere, listing: &[Box<[u8]>], has_order: bool) -> bool {
    let mut records: Vec<_> = listed.here().collect();
    if !has_order {
        let mut left: Vec<&[u8]> = records.iter().map(|record| record.uidl.as_bytes()).collect();
        return listing.iter().all(|uidl| {
            let at = left.iter().position(|left| *left == &**uidl);
            at.map(|at| left.swap_remove(at)).is_some()
        });
    }
    records.sort_by_key(|record| record.order);
    // What went since is in the ledger until the next listing that is recorded.
    let mut records = records.into_iter();
    listing.iter().all(|uidl| records.any(|record| record.uidl.as_bytes() == &**uidl))
}

/// Rule 6: the mailbox must give no UID any more whose native UIDL is spent.
fn prove_next_uid(
    terms: &Terms,
    dovecot: &Dovecot,
    line: &RosterLine,
    listed: &ListedHere,
) -> Result<(), Unproven> {
    let cannot = |why: String| Unproven::CouldNotTell(why);
    if terms.native.is_none() {
        return Err(cannot(
            "pop3_uidl_format is not known, or it is one that we cannot follow, so that nobody \
             knows which numbers are spent: say --format"
                .to_owned(),
        ));
    }
    let (captured, is_final) = terms.captured(&line.user).map_err(cannot)?;
    let epoch = dovecot.inbox_epoch(&line.user).map_err(|error| cannot(error.to_string()))?;
    let (uidvalidity, next_uid) = epoch;
    let &RosterLine { forgotten, listed: is_listed, restored, unguarded, .. } = line;
    let captured = CapturedMaildrop::from(&captured);
    let situation = Situation {
        captured: Some(&captured),
        basis: [0; 16],
        is_final,
        memory: Memory { ledger: Some(&listed.ledger), mark: listed.mark.as_ref() },
        stamps: Stamps { forgotten, restored, unguarded, listed: is_listed },
        epoch: Epoch { uidvalidity, next_uid, index_id: listed.ledger.epoch.index_id },
        is_maildir: listed.store == StoreKind::Maildir,
        native: terms.native.as_ref(),
        keys: terms.settings_of(&line.user).keys,
        purpose: Purpose::Preview,
        rehearsal: 0,
    };
    // Which numbers are spent does not depend on the messages.
    match resolve::resolve(&line.user, &situation, &[]) {
        Outcome::Resolved(resolution) => {
            let first_unspent = resolution.first_unspent_uid;
            let is_proven = next_uid >= first_unspent && first_unspent < NEVER_REACHED;
            is_proven.then_some(()).ok_or(Unproven::NextUid { next_uid, first_unspent })
        }
        Outcome::Refused(why) => Err(cannot(why.to_string())),
        Outcome::Ask(_) | Outcome::AskCaptured => {
            Err(cannot("the rules ask of messages where there are none".to_owned()))
        }
    }
}
