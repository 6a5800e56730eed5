//! What clients of one maildrop were told, read beside its mail: [`look`].
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::capture::disk::dovecot::{STATE_FILE, UidList};
use crate::capture::find::source::Source;
use crate::file::safe_open::{Unopened, regular};
use crate::key::FileKey;
use crate::ledger::{Ledger, MAX_OCTETS, Mark, Provenance, Record, control};
use crate::text::printable_path;
use crate::uidl::Uidl;

/// The largest `dovecot-uidlist` that is read, in octets.
const MOST_LIST_OCTETS: u64 = 256 << 20;

/// How Dovecot stores a mailbox, as far as its directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreKind {
    /// A file a message, and `dovecot-uidlist`.
    Maildir,
    /// Many messages a file.
    Mdbox,
    /// A file a message, without a name of its own.
    Sdbox,
    /// Something else, or it is not made yet.
    Other,
}

impl StoreKind {
    /// Dovecot's word for it, or `other`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Maildir => "maildir",
            Self::Mdbox => "mdbox",
            Self::Sdbox => "sdbox",
            Self::Other => "other",
        }
    }
}

/// What was seen of the memory of a maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerSeen {
    /// Nobody looked.
    NotLooked,
    /// Could not tell, for this reason.
    CouldNotTell(String),
    /// There is neither ledger nor mark: nobody has listed it here.
    Nothing,
    /// There is a ledger.
    Listed(Box<ListedHere>),
}

/// What a ledger says, and whether Dovecot has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedHere {
    /// The control directory that it lies in.
    pub dir: PathBuf,
    /// When it was written.
    pub written: SystemTime,
    /// How the mailbox is stored.
    pub store: StoreKind,
    /// The ledger.
    pub ledger: Ledger,
    /// Its mark; `None`: there is none.
    pub mark: Option<Mark>,
    /// Whether Dovecot can tell the same without the plugin.
    pub bake: Bake,
}

/// Whether what clients were told stands where Dovecot itself looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bake {
    /// On Maildir: in `dovecot-uidlist`.
    InList {
        /// How many messages are here that need it: those with a kept or a derived UIDL.
        needed: usize,
        /// How many of them have it.
        baked: usize,
        /// The first message that lacks it: its UID, and the UIDL that clients know it by.
        first_unbaked: Option<(u32, Uidl)>,
    },
    /// On mdbox and sdbox: so many messages have their UIDL in the ledger alone, as far as the
    /// ledger tells.
    LedgerAlone {
        /// How many.
        messages: usize,
    },
    /// Could not tell, for this reason.
    CouldNotTell(String),
}

impl Bake {
    /// Whether Dovecot can tell everything by itself.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::InList { needed, baked, .. } => needed == baked,
            Self::LedgerAlone { messages } => *messages == 0,
            Self::CouldNotTell(_) => false,
        }
    }
}

impl ListedHere {
    /// The messages that were there at the last listing.
    pub fn here(&self) -> impl Iterator<Item = &Record> {
        self.ledger.records.iter().filter(|record| record.uid != 0)
    }

    /// How many of them keep a UIDL from elsewhere.
    pub fn kept(&self) -> usize {
        self.here().filter(|record| record.provenance.is_kept()).count()
    }

    /// How many of them have a UIDL of that kind.
    pub fn count(&self, provenance: Provenance) -> usize {
        self.here().filter(|record| record.provenance == provenance).count()
    }

    /// How many entries of the index are claimed, those of messages that have gone too.
    pub fn claimed(&self) -> usize {
        self.ledger.records.iter().filter(|record| record.entry.is_some()).count()
    }
}

/// Looks at what lies in the control directory of a user's INBOX. It changes nothing.
pub fn look(user: &str, dir: &Path) -> LedgerSeen {
    let seen = ControlFiles::open(user, dir).and_then(|opened| match opened {
        Some(opened) => opened.look(user, dir),
        None => Ok(LedgerSeen::Nothing),
    });
    seen.unwrap_or_else(|why| LedgerSeen::CouldNotTell(format!("{}: {why}", printable_path(dir))))
}

/// Takes away what was ever told, once nothing asks for it any more: ledger, mark and what else the
/// plugin keeps beside them. Waits for whoever holds the lock. Returns whether there was anything.
///
/// # Errors
///
/// A sentence that names place and fault.
pub fn remove(user: &str, dir: &Path, patience: Duration) -> Result<bool, String> {
    let remove = || -> Result<bool, String> {
        let Some(opened) = ControlFiles::open(user, dir)? else { return Ok(false) };
        let lock = opened.open_file(control::LOCK, OFlags::RDWR)?;
        let until = Instant::now() + patience;
        if let Some(lock) = &lock {
            loop {
                match flock(lock, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => break,
                    Err(Errno::WOULDBLOCK) if Instant::now() >= until => {
                        return Err("a login holds its lock; try again when it is over".into());
                    }
                    Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(20)),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(io::Error::from(errno).to_string()),
                }
            }
        }
        // The mark goes last: while it is there, the ledger is known to have been.
        let names = [control::LEDGER, control::FINGERPRINTS, control::SAID, control::LOCK];
        let mut has_removed = false;
        for name in names {
            match rustix::fs::unlinkat(&opened.dir, name, AtFlags::empty()) {
                Ok(()) => has_removed = true,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(format!("{name}: {}", io::Error::from(errno))),
            }
        }
        Ok(has_removed)
    };
    remove().map_err(|why| format!("{}: {why}", printable_path(dir)))
}

/// A control directory that is open.
struct ControlFiles {
    dir: OwnedFd,
    owner: u32,
}

impl ControlFiles {
    /// Opens it, through no link that a user made. `None`: it is not there.
    fn open(user: &str, dir: &Path) -> Result<Option<Self>, String> {
        let dir = match Source::named(user, dir).open() {
            Ok(dir) => dir,
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let stat = rustix::fs::fstat(&dir).map_err(|errno| io::Error::from(errno).to_string())?;
        Ok(Some(Self { dir, owner: stat.st_uid }))
    }

    /// Opens a file of the mailbox's owner, or of root. `None`: there is none.
    fn open_file(&self, name: &str, access: OFlags) -> Result<Option<File>, String> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.dir, name, flags, Mode::empty());
        let (file, metadata) = match regular(opened.map(File::from).map_err(io::Error::from)) {
            Ok(opened) => opened,
            Err(Unopened::Absent) => return Ok(None),
            Err(Unopened::Link) => return Err(format!("{name}: a symbolic link; remove it")),
            Err(unopened) => return Err(format!("{name}: {}", io::Error::from(unopened))),
        };
        if ![0, self.owner].contains(&metadata.uid()) {
            return Err(format!(
                "{name}: it belongs to uid {}, and the mailbox to uid {}; give it back, or remove \
                 it",
                metadata.uid(),
                self.owner
            ));
        }
        Ok(Some(file))
    }

    /// Reads one of at most so many octets, and when it was written.
    fn read(&self, name: &str, most: u64) -> Result<Option<(Vec<u8>, SystemTime)>, String> {
        let Some(file) = self.open_file(name, OFlags::RDONLY)? else { return Ok(None) };
        let at = |error: io::Error| format!("{name}: {error}");
        let written = file.metadata().and_then(|metadata| metadata.modified()).map_err(at)?;
        let mut octets = Vec::new();
        file.take(most + 1).read_to_end(&mut octets).map_err(at)?;
        if octets.len() as u64 > most {
            return Err(format!("{name}: longer than {most} octets"));
        }
        Ok(Some((octets, written)))
    }

    fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn store(&self, dir: &Path) -> StoreKind {
        if self.has(STATE_FILE) || self.has("cur") {
            return StoreKind::Maildir;
        }
        if !dir.ends_with("dbox-Mails") {
            return StoreKind::Other;
        }
        // PLACE/mailboxes/INBOX/dbox-Mails
        let root = dir.ancestors().nth(3);
        match root.map(|root| root.join("storage").symlink_metadata()) {
            Some(Ok(metadata)) if metadata.is_dir() => StoreKind::Mdbox,
            _ => StoreKind::Sdbox,
        }
    }

    fn look(&self, user: &str, dir: &Path) -> Result<LedgerSeen, String> {
        let mark = match self.read(control::LOCK, Mark::OCTETS as u64)? {
            Some((octets, _)) => Mark::of_file(&octets),
            None => None,
        };
        let Some((octets, written)) = self.read(control::LEDGER, MAX_OCTETS)? else {
            return match mark {
                None => Ok(LedgerSeen::Nothing),
                Some(_) => Err(format!(
                    "{} is not there, and {} says that it was: a login makes it again from what \
                     Dovecot has; restore it from a backup if there is one",
                    control::LEDGER,
                    control::LOCK
                )),
            };
        };
        let ledger = Ledger::decode(&octets).map_err(|why| {
            format!("{}: {why}; restore it from a backup, or take it away", control::LEDGER)
        })?;
        if ledger.user != user {
            return Err(format!("{}: it is the ledger of {:?}", control::LEDGER, ledger.user));
        }
        let store = self.store(dir);
        let bake = self.bake(&ledger, store);
        let dir = dir.to_owned();
        Ok(LedgerSeen::Listed(Box::new(ListedHere { dir, written, store, ledger, mark, bake })))
    }

    fn bake(&self, ledger: &Ledger, store: StoreKind) -> Bake {
        let baked = match store {
            StoreKind::Maildir => self.bake_in_list(ledger),
            StoreKind::Mdbox | StoreKind::Sdbox => {
                let is_alone = |record: &&Record| {
                    record.uid != 0 && needs_bake(record) && record.provenance != Provenance::Stored
                };
                let messages = ledger.records.iter().filter(is_alone).count();
                Ok(Bake::LedgerAlone { messages })
            }
            StoreKind::Other => Err("no Maildir, mdbox or sdbox lies here".to_owned()),
        };
        baked.unwrap_or_else(Bake::CouldNotTell)
    }

    fn bake_in_list(&self, ledger: &Ledger) -> Result<Bake, String> {
        let Some((octets, _)) = self.read(STATE_FILE, MOST_LIST_OCTETS)? else {
            return Err(format!("no {STATE_FILE}: let the user log in by POP3"));
        };
        let list = UidList::parse(&octets).map_err(|error| error.to_string())?;
        if let Some((line, _)) = list.odd.first() {
            return Err(format!(
                "{STATE_FILE}:{line} is not a message: Dovecot writes it at this moment, or it \
                 makes such a list anew"
            ));
        }
        if list.uidvalidity != ledger.epoch.uidvalidity {
            return Err(format!(
                "UIDVALIDITY is {} now, and was {} when it was listed: let the user log in by POP3",
                list.uidvalidity, ledger.epoch.uidvalidity
            ));
        }
        let (mut needed, mut baked, mut first_unbaked) = (0, 0, None);
        for record in ledger.records.iter().filter(|record| record.uid != 0) {
            let Some(there) = list.messages.get(&record.uid) else { continue };
            let name = Ledger::name_of_cut(&FileKey::cut_of(&there.file));
            if !record.names.is_empty() && !record.names.contains(&name) {
                continue;
            }
            // An empty `P` stands for the base file name.
            let stored = there.uidl.as_deref().map(|uidl| match uidl.is_empty() {
                true => &*there.file,
                false => uidl,
            });
            // Dovecot gives a native UIDL by itself, unless another one is stored.
            if !needs_bake(record) && stored.is_none() {
                continue;
            }
            needed += 1;
            if stored == Some(record.uidl.as_bytes()) {
                baked += 1;
            } else if first_unbaked.is_none() {
                first_unbaked = Some((record.uid, record.uidl.clone()));
            }
        }
        Ok(Bake::InList { needed, baked, first_unbaked })
    }
}

/// Whether Dovecot must be told the UIDL of a message to give it.
fn needs_bake(record: &Record) -> bool {
    record.provenance != Provenance::Native
}
