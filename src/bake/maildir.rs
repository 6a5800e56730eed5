//! Bakes one Maildir: [`bake`].
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::bake::control::ListDir;
use crate::bake::dotlock::{Dotlock, DotlockError};
use crate::bake::uidlist::{BadList, BakedList, StoredUidl};
use crate::bake::undo::{UndoneMessage, UndoneRecord};
use crate::capture::disk::dovecot::STATE_FILE;
use crate::capture::disk::maildir::{Folder, Maildir};
use crate::capture::error::CaptureError;
use crate::capture::find::source::Source;
use crate::forecast::{ControlPlace, FirstListing, Terms, Unbegun, Unsurveyed, Untold};
use crate::ledger::{FIRST_ORDER, MAX_NEXT_ORDER, Provenance, Record};
use crate::maildrop::Entry;
use crate::resolve::Message;
use crate::text::printable;
use crate::uidl::Uidl;

/// Where the mail of a user lies.
#[derive(Debug, Clone)]
pub struct BakePlace {
    /// The Maildir.
    pub mailbox: Source,
    /// The directory of `dovecot-uidlist`. `None`: the Maildir itself.
    pub control: Option<Source>,
    /// The directory of Dovecot's index. `None`: the Maildir, or the control directory.
    pub index: Option<Source>,
}

/// How a bake is done.
pub struct BakeRun<'a> {
    /// What it goes by.
    pub terms: &'a Terms,
    /// Whether nothing is to be written.
    pub is_dry: bool,
    /// Hears what is going to be changed, before it is. Where it fails, nothing is.
    pub note: &'a (dyn Fn(&UndoneRecord) -> io::Result<()> + Sync),
}

/// What became of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BakeOutcome {
    /// It was written.
    Written,
    /// It would be.
    Would,
    /// It says all that it has to say already.
    Already,
}

/// What Dovecot alone tells of a maildrop from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakedMaildrop {
    /// What became of the list.
    pub outcome: BakeOutcome,
    /// How many messages there are.
    pub messages: usize,
    /// How many of them keep a UIDL; not counted where all was baked before.
    pub kept: usize,
    /// How many have a UIDL of ours, for the native one is spent; not counted either.
    pub derived: usize,
    /// How many of them got another UIDL or place in the list than it had.
    pub changed: usize,
}

/// Why a maildrop is not baked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unbaked {
    /// The user is on no roster.
    #[error("on no roster")]
    NotMigrated,
    /// The operator lets his clients download everything again.
    #[error("set to redownload")]
    Redownload,
    /// The operator does not want it baked.
    #[error("{} says `bake no` for this user: change that first", settings.display())]
    NotWanted {
        /// The settings of the site.
        settings: PathBuf,
    },
    /// The mail is not in a Maildir.
    #[error(
        "no Maildir lies there: where the mail is mdbox or sdbox, `uidl-keep bake --into` has \
         Dovecot copy it"
    )]
    NotMaildir,
    /// Captures may follow.
    #[error(
        "its index is not final, and a bake is for good: build the last capture with `uidl-keep \
         build --final`"
    )]
    NotFinal,
    /// Only Dovecot can say which UIDs the messages get.
    #[error(
        "{why}: let Dovecot open the mailbox first (`doveadm mailbox status -u {user} uidnext \
         INBOX`)"
    )]
    NeedsDovecot {
        /// Whose it is, printable.
        user: String,
        /// Why.
        why: String,
    },
    /// It was to be baked already, and is not.
    #[error(
        "not baked whole: {messages} messages lack their UIDL or place, or the next UID is low"
    )]
    NotWhole {
        /// How many messages a bake would change; 0: only the next UID.
        messages: usize,
    },
    /// The next UID would have to jump too far.
    #[error(
        "the next UID must be {first} for no new mail to get a spent UIDL, and no mailbox should \
         count so far: serve this user with the plugin"
    )]
    TooFar {
        /// The first UID that is not spent.
        first: u32,
    },
    /// A message cannot be read, so that nobody knows what it is told.
    #[error("{count} messages cannot be read{}: mend the mailbox", because(why))]
    Unreadable {
        /// How many.
        count: usize,
        /// What the system says of the first.
        why: Option<String>,
    },
    /// It changes while we look.
    #[error("it changed while it was read; bake it again when nothing is copied into it")]
    Changed,
    /// Somebody holds the lock.
    #[error("{0}")]
    Locked(#[from] DotlockError),
    /// The list could not be written. The old one is in its place.
    #[error("{STATE_FILE}: {0}")]
    Unwritten(#[from] io::Error),
    /// Could not tell.
    #[error("{0}")]
    CouldNotTell(String),
}

fn because(why: &Option<String>) -> String {
    why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
}

impl From<CaptureError> for Unbaked {
    fn from(error: CaptureError) -> Self {
        Self::CouldNotTell(error.to_string())
    }
}

impl From<Unsurveyed> for Unbaked {
    fn from(error: Unsurveyed) -> Self {
        match error {
            Unsurveyed::Changed => Self::Changed,
            error => Self::CouldNotTell(error.to_string()),
        }
    }
}

/// How often a maildrop is read that changes meanwhile.
const TRIES: u32 = 3;
/// How long another's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// No next UID is raised further, as in the plugin: no mailbox counts so far in its life.
const HIGHEST_NEXT_UID: u32 = 1 << 31;

/// Writes what a first listing of the user would tell, or the next one, into the `dovecot-uidlist`
/// of his Maildir: `P` and `O` of each message, and a next UID that is not spent. Dovecot and its
/// clients may be at work there meanwhile.
///
/// # Errors
///
/// [`Unbaked`]: nothing was written, and no lock is left.
pub fn bake(run: &BakeRun<'_>, user: &str, place: &BakePlace) -> Result<BakedMaildrop, Unbaked> {
    let mut tries = 1;
    loop {
        match bake_once(run, user, place) {
            Err(Unbaked::Changed) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

fn bake_once(run: &BakeRun<'_>, user: &str, place: &BakePlace) -> Result<BakedMaildrop, Unbaked> {
    if !run.terms.settings_of(user).bake {
        return Err(Unbaked::NotWanted { settings: run.terms.site.settings_path() });
    }
    let mut prepared = Prepared::of(run.terms, user, place)?;
    let messages = prepared.begun.survey.messages.len();
    if prepared.is_baked_whole() {
        let outcome = BakeOutcome::Already;
        return Ok(BakedMaildrop { outcome, messages, kept: 0, derived: 0, changed: 0 });
    }
    let decided = prepared.decide()?;
    let Decided { octets, changed, kept, derived, .. } = decided;
    let counts =
        |outcome| BakedMaildrop { outcome, messages, kept, derived, changed: changed.len() };
    if prepared.begun.survey.list.as_ref() == Some(&octets) {
        return Ok(counts(BakeOutcome::Already));
    }
    if run.is_dry {
        return Ok(counts(BakeOutcome::Would));
    }
    let done = counts(BakeOutcome::Written);
    let undone = UndoneRecord {
        user: user.to_owned(),
        directory: place.control.as_ref().unwrap_or(&place.mailbox).place().to_owned(),
        uidvalidity: prepared.list.uidvalidity(),
        messages: changed,
    };
    write(&prepared.begun, &octets, || (run.note)(&undone))?;
    Ok(done)
}

/// The listing that Dovecot alone tells of a maildrop that is baked whole: UIDLs by message-number.
/// The rules are asked about every message, also where all was baked before.
///
/// # Errors
///
/// [`Unbaked::NotWhole`]: a bake would change something. Else: a bake would be refused.
pub fn baked_listing(terms: &Terms, user: &str, place: &BakePlace) -> Result<Vec<Uidl>, Unbaked> {
    let mut prepared = Prepared::of(terms, user, place)?;
    // The next UID is raised by each bake of a maildrop of which nothing was captured: once does.
    let has_next = prepared.is_baked_whole();
    let mut decided = prepared.decide()?;
    let is_same = prepared.begun.survey.list.as_ref() == Some(&decided.octets);
    if !(is_same || has_next && decided.changed.is_empty()) {
        return Err(Unbaked::NotWhole { messages: decided.changed.len() });
    }
    decided.told.sort_by_key(|(order, _)| *order);
    Ok(decided.told.into_iter().map(|(_, uidl)| uidl).collect())
}

/// A maildrop before its bake, with the list that it has, or will have.
struct Prepared<'a> {
    begun: FirstListing<'a>,
    list: BakedList,
    is_new: bool,
    /// Whether the old order is kept.
    has_order: bool,
}

/// What a bake would make of it.
struct Decided {
    /// The list.
    octets: Vec<u8>,
    /// What changes in it.
    changed: Vec<UndoneMessage>,
    kept: usize,
    derived: usize,
    /// The UIDL of each message, and its place.
    told: Vec<(u32, Uidl)>,
}

impl<'a> Prepared<'a> {
    fn of(terms: &'a Terms, user: &'a str, place: &BakePlace) -> Result<Self, Unbaked> {
        let needs_dovecot =
            |why: String| Unbaked::NeedsDovecot { user: printable(user.as_bytes()), why };
        let control = place.control.as_ref().map_or(ControlPlace::Beside, ControlPlace::At);
        let begun = terms.begin(user, &place.mailbox, control);
        let mut begun = begun.map_err(|unbegun| match unbegun {
            Unbegun::NotMigrated => Unbaked::NotMigrated,
            Unbegun::Redownload => Unbaked::Redownload,
            Unbegun::CouldNotTell(why) => Unbaked::CouldNotTell(why),
            Unbegun::Unsurveyed(Unsurveyed::BadList { line }) => {
                needs_dovecot(format!("{STATE_FILE}:{line} is not a message"))
            }
            Unbegun::Unsurveyed(Unsurveyed::Disordered { line }) => {
                needs_dovecot(format!("{STATE_FILE}:{line} repeats a UID or a name, or goes back"))
            }
            Unbegun::Unsurveyed(Unsurveyed::NoList) => {
                needs_dovecot(format!("there is an index without a {STATE_FILE}"))
            }
            Unbegun::Unsurveyed(Unsurveyed::Twice { file }) => {
                needs_dovecot(format!("two files are called {file}"))
            }
            Unbegun::Unsurveyed(Unsurveyed::Nameless { file }) => {
                needs_dovecot(format!("{file} has no name before the colon"))
            }
            Unbegun::Unsurveyed(Unsurveyed::Capture(CaptureError::NotMaildir)) => {
                Unbaked::NotMaildir
            }
            Unbegun::Unsurveyed(error) => error.into(),
        })?;
        if !begun.is_final {
            return Err(Unbaked::NotFinal);
        }
        if begun.survey.maildir().control().is_none() {
            return Err(needs_dovecot(format!("the directory of {STATE_FILE} is not there yet")));
        }
        let mut list = match &begun.survey.list {
            Some(octets) if octets.last().is_some_and(|&last| last != b'\n') => {
                return Err(Unbaked::Changed);
            }
            Some(octets) if !octets.is_empty() => BakedList::parse(octets, random_octets()?)
                .map_err(|BadList { line, what }| {
                    needs_dovecot(format!("{STATE_FILE}:{line}: {what}"))
                })?,
            Some(_) | None => BakedList::new(begun.survey.epoch.uidvalidity, random_octets()?),
        };
        let is_new = list.lines().is_empty() && !has_list(&begun);
        add_unlisted(&begun, &mut list, is_new, place).map_err(|why| why.into(needs_dovecot))?;
        begun.find_names()?;
        Ok(Self { begun, list, is_new, has_order: terms.settings_of(user).order })
    }

    /// Whether every message was baked, and the next UID is not spent. Then no mail is read.
    fn is_baked_whole(&self) -> bool {
        !self.is_new && is_baked_whole(&self.begun, &self.list)
    }

    /// Asks the rules, and puts their answers on the list.
    fn decide(&mut self) -> Result<Decided, Unbaked> {
        let Self { begun, list, has_order, .. } = self;
        let resolution = begun.resolve().map_err(|untold| match untold {
            Untold::Unsurveyed(error) => error.into(),
            Untold::Undecidable(why) => Unbaked::CouldNotTell(why),
        })?;
        if !resolution.passing.is_empty() {
            let why = begun.survey.first_fault.take();
            return Err(Unbaked::Unreadable { count: resolution.passing.len(), why });
        }
        let first = resolution.first_unspent_uid;
        if first > HIGHEST_NEXT_UID {
            return Err(Unbaked::TooFar { first });
        }
        let records = resolution.ledger.records.iter().filter(|record| record.uid != 0);
        let records: HashMap<u32, &Record> = records.map(|record| (record.uid, record)).collect();
        let (mut changed, mut told, mut kept, mut derived) = (Vec::new(), Vec::new(), 0, 0);
        for (at, message) in begun.survey.messages.iter().enumerate() {
            let (uid, file) = (message.uid, begun.survey.file_name(at));
            let record = records.get(&uid);
            let record = record.ok_or_else(|| {
                Unbaked::CouldNotTell(format!("the rules have no answer for UID {uid}"))
            })?;
            kept += usize::from(record.provenance.is_kept());
            derived += usize::from(record.provenance == Provenance::Derived);
            let was = list.find(uid, file).map(|line| line.stored()).unwrap_or_default();
            let baked = match *has_order {
                true => StoredUidl::baked(record.uidl.as_bytes(), record.order),
                false => was.with_uidl(record.uidl.as_bytes()),
            };
            told.push((baked.place(), record.uidl.clone()));
            if was != baked {
                list.set(uid, file, &baked);
                changed.push(UndoneMessage { uid, file: file.into(), was, baked });
            }
        }
        list.raise_next(first);
        Ok(Decided { octets: list.encode(), changed, kept, derived, told })
    }
}

/// Writes the list under the locks, if all is still as it was.
fn write(
    begun: &FirstListing<'_>,
    octets: &[u8],
    note: impl FnOnce() -> io::Result<()>,
) -> Result<(), Unbaked> {
    let maildir = begun.survey.maildir();
    let dir = ListDir(maildir.control().expect("bake_once has seen it"));
    let access = dir.access()?;
    // The plugin takes them in this order, too.
    let _logins = dir.keep_logins_waiting()?;
    let lock = Dotlock::take(dir.0, access.owner.unwrap_or_default(), PATIENCE)?;
    if maildir.read_beside(STATE_FILE)? != begun.survey.list || !begun.is_memory_the_same()? {
        return Err(Unbaked::Changed);
    }
    note()?;
    dir.publish(&lock, octets, access)?;
    has_dovecot_look(maildir).map_err(|error| {
        io::Error::other(format!(
            "{STATE_FILE} is written, and Dovecot may not see its next UID until mail comes: cur \
             cannot be given a time of change: {error}"
        ))
    })?;
    Ok(())
}

/// Has Dovecot read the list at its next look at the mailbox. Its index has a next UID of its own,
/// which a dsync hands on, and is brought in line with the list only after a directory of mail has
/// changed (`maildir-sync.c`, `maildir_sync_quick_check`).
fn has_dovecot_look(maildir: &Maildir) -> io::Result<()> {
    let cur = maildir.folder(Folder::Cur).expect("nothing is a Maildir without it");
    let time = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let now = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
    Ok(rustix::fs::futimens(cur, &now)?)
}

fn has_list(begun: &FirstListing<'_>) -> bool {
    begun.survey.list.as_ref().is_some_and(|octets| !octets.is_empty())
}

/// Whether every message was baked, and the next UID is not spent. Then no mail is read.
fn is_baked_whole(begun: &FirstListing<'_>, list: &BakedList) -> bool {
    let is_ours = |order| (FIRST_ORDER..MAX_NEXT_ORDER / 2).contains(&order);
    let is_baked = |m: &Message| m.stored().is_some() && m.stored_order().is_some_and(is_ours);
    let messages = &begun.survey.messages;
    if begun.may_have_void_answers() {
        return false;
    }
    let captured = &begun.captured;
    if captured.entries.is_empty() && captured.spent.is_empty() && captured.counter.is_none() {
        // There is nothing to keep, and each first listing would spend more numbers (rule 6): one
        // has done so.
        return messages.iter().any(is_baked);
    }
    // Half a copy is refused, whatever it has stored (rule 10).
    let stored: HashSet<&Uidl> = messages.iter().filter_map(Message::stored).collect();
    let is_there = |entry: &&Entry| entry.uidls().any(|uidl| stored.contains(uidl));
    let (there, last) =
        (captured.last_entries().filter(is_there).count(), captured.last_entries().count());
    there * 2 >= last && messages.iter().all(is_baked) && list.next() >= begun.first_unspent_uid()
}

/// Why messages that have no UID yet get none from us.
enum Unlisted {
    NeedsDovecot(String),
    Other(Unbaked),
}

impl Unlisted {
    fn into(self, needs_dovecot: impl Fn(String) -> Unbaked) -> Unbaked {
        match self {
            Self::NeedsDovecot(why) => needs_dovecot(why),
            Self::Other(unbaked) => unbaked,
        }
    }
}

/// Adds the messages that the list lacks, with the UIDs that the survey gave them. Dovecot gave
/// them none. Where it has an index, that may have counted further than the list, and a message
/// would get another UID than ours.
fn add_unlisted(
    begun: &FirstListing<'_>,
    list: &mut BakedList,
    is_new: bool,
    place: &BakePlace,
) -> Result<(), Unlisted> {
    let survey = &begun.survey;
    let mut unlisted = Vec::new();
    for (at, message) in survey.messages.iter().enumerate() {
        let file = survey.file_name(at);
        if list.find(message.uid, file).is_none() {
            unlisted.push((message.uid, file));
        }
    }
    if unlisted.is_empty() && !is_new {
        return Ok(());
    }
    if has_index(survey.maildir(), place).map_err(Unlisted::Other)? {
        return Err(Unlisted::NeedsDovecot(match is_new {
            true => format!("there is an index without a {STATE_FILE}"),
            false => format!("{} messages are not in {STATE_FILE} yet", unlisted.len()),
        }));
    }
    for (uid, file) in unlisted {
        list.push(uid, file);
    }
    Ok(())
}

/// Whether Dovecot has an index of the mailbox.
fn has_index(maildir: &Maildir, place: &BakePlace) -> Result<bool, Unbaked> {
    let named = match &place.index {
        Some(source) => match source.open() {
            Ok(directory) => Some(directory),
            Err(error) if error.is_absence() => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let own = [Some(maildir.top()), maildir.control()];
    let mut directories = own.into_iter().chain([named.as_ref().map(AsFd::as_fd)]).flatten();
    let has = |directory: BorrowedFd<'_>, name| {
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    };
    Ok(directories.any(|dir| has(dir, "dovecot.index.log") || has(dir, "dovecot.index")))
}

/// Octets that nobody can foretell: the GUID of a mailbox.
fn random_octets() -> io::Result<[u8; 16]> {
    let mut octets = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(octets)
}
