//! What has been captured so far, beside the listing that it becomes: [`Journal`].
//!
//! A journal is itself a listing, with a first line that says how it was begun. Each block is
//! appended as it comes. What a killed run left of its last block, the next run cuts off.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::file::lock;
use crate::listing::{self, ListingFault};
use crate::maildrop::State;
use crate::text::printable;

/// What begins the first line.
const MAGIC: &str = "# journal 1 of uidl-keep capture pop3";

/// The longest first line.
const MAX_HEAD_OCTETS: u64 = 4096;

/// The most time and the most octets that a power cut may cost.
const SYNC_EVERY: Duration = Duration::from_secs(5);
const SYNC_OCTETS: u64 = 8 << 20;

/// A block in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockAt {
    /// The octet that it begins at.
    pub offset: u64,
    /// Its length.
    pub len_octets: u64,
}

/// The journal of one listing, which this process alone writes.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    len_octets: u64,
    synced: Instant,
    synced_octets: u64,
}

/// The accounts that a run is for.
pub struct WantedAccounts<'a> {
    /// Their numbers, by the user names of the new server.
    pub by_user: &'a HashMap<&'a str, usize>,
    /// What the block of each says of its source.
    pub sources: &'a dyn Fn(usize) -> String,
}

/// What earlier runs have captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resumed {
    /// The accounts that are captured, by number.
    pub captured: HashMap<usize, BlockAt>,
    /// When the last of these was captured, in seconds since 1970.
    pub newest: Option<u64>,
    /// How many blocks are of accounts that are not asked for any more.
    pub dropped: usize,
    /// When the journal was begun, as it says; `None` for one that begins now.
    pub begun: Option<String>,
    /// Whose block, the last one, is not whole: that account is captured again.
    pub cut_short: Option<String>,
    /// Where the last whole block ends.
    pub end: u64,
}

/// What is wrong with a journal, or with a listing that is taken over.
#[derive(Debug)]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: JournalFault,
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            // It begins with the line.
            JournalFault::Listing(error) => write!(f, "{}:{error}", self.path.display()),
            fault => write!(f, "{}: {fault}", self.path.display()),
        }
    }
}

impl std::error::Error for JournalError {}

/// See [`JournalError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalFault {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A listing without a name has no journal.
    #[error("not the name of a file; -o names the listing to be made")]
    NoName,
    /// Another process has it open.
    #[error("another uidl-keep writes it; wait for it, or name another listing with -o")]
    Busy,
    /// It begins with something else.
    #[error("not a journal of this uidl-keep; remove it to begin afresh")]
    NotOurs,
    /// Its blocks were captured otherwise.
    #[error(
        "begun {begun} with {with}, and this is {settings}: say the same again, or remove it to \
         begin afresh"
    )]
    OtherSettings {
        /// When it was begun, as it says.
        begun: String,
        /// How its blocks were captured.
        with: String,
        /// How they are to be captured.
        settings: String,
    },
    /// Something in it is no block.
    #[error("{0}")]
    Listing(listing::ListingError),
    /// A listing that is taken over ends within a block, or with something else.
    #[error("it does not end with a whole block{}; it was changed since", of_user(.cut_short))]
    NotWhole {
        /// Whose block that is, where it begins as one.
        cut_short: Option<String>,
    },
}

fn of_user(user: &Option<String>) -> String {
    user.as_ref().map_or_else(String::new, |user| format!(" of {}", printable(user.as_bytes())))
}

impl JournalFault {
    fn at(self, path: &Path) -> JournalError {
        JournalError { path: path.to_owned(), fault: self }
    }
}

impl Journal {
    /// Opens the journal of the listing `output`, with what an earlier run left in it.
    ///
    /// `settings` says how blocks are captured: what was captured otherwise is not gone on with.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; the file is left as it was.
    pub fn open(
        output: &Path,
        settings: &str,
        wanted: &WantedAccounts<'_>,
    ) -> Result<(Self, Resumed), JournalError> {
        let name = output.file_name().ok_or_else(|| JournalFault::NoName.at(output))?;
        let mut name = OsString::from(name);
        name.push(".journal");
        let path = output.with_file_name(name);
        let at = |fault: JournalFault| fault.at(&path);
        let opened = lock::open_alone(&path).map_err(|error| at(error.into()))?;
        let file = opened.ok_or_else(|| at(JournalFault::Busy))?;
        let resumed = read_journal(&file, settings, wanted).map_err(at)?;
        let mut journal =
            Self { file, path, len_octets: 0, synced: Instant::now(), synced_octets: 0 };
        let Some(resumed) = resumed else {
            let now = humantime::format_rfc3339_seconds(SystemTime::now());
            journal.cut_to(0)?;
            journal.write(format!("{MAGIC}: {settings}, begun {now}\n").as_bytes())?;
            return Ok((journal, Resumed::default()));
        };
        journal.cut_to(resumed.end)?;
        Ok((journal, resumed))
    }

    /// Takes over what the listing `output` of an earlier run has of the accounts that are asked
    /// for. Failed accounts are left out, and so are those of which the journal has something
    /// `newer`.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub fn take_over(
        &mut self,
        output: &Path,
        wanted: &WantedAccounts<'_>,
        newer: &HashMap<usize, BlockAt>,
    ) -> Result<Resumed, JournalError> {
        let at = |fault: JournalFault| fault.at(output);
        let at_io = |error: io::Error| at(error.into());
        let file = File::open(output).map_err(at_io)?;
        let mut found = read_blocks(&file, wanted).map_err(at)?;
        if found.end < file.metadata().map_err(at_io)?.len() {
            return Err(at(JournalFault::NotWhole { cut_short: found.cut_short }));
        }
        found.captured.retain(|at, _| !newer.contains_key(at));
        let mut captured: Vec<_> = found.captured.iter_mut().collect();
        captured.sort_by_key(|(_, block)| block.offset);
        for (_, block) in captured {
            let mut from = &file;
            from.seek(SeekFrom::Start(block.offset)).map_err(at_io)?;
            let offset = self.len_octets;
            let copied = io::copy(&mut from.take(block.len_octets), &mut &self.file);
            self.len_octets += copied.map_err(|error| self.error(error))?;
            block.offset = offset;
        }
        self.sync()?;
        Ok(found)
    }

    /// Appends a block.
    ///
    /// # Errors
    ///
    /// [`JournalFault::Io`].
    pub fn append(&mut self, block: &[u8]) -> Result<BlockAt, JournalError> {
        let place = BlockAt { offset: self.len_octets, len_octets: block.len() as u64 };
        self.write(block)?;
        if self.synced.elapsed() >= SYNC_EVERY
            || self.len_octets - self.synced_octets >= SYNC_OCTETS
        {
            self.sync()?;
        }
        Ok(place)
    }

    /// Hands a block to `write`, in pieces.
    ///
    /// # Errors
    ///
    /// [`JournalFault::Io`], and those of `write`.
    pub fn copy<E: From<JournalError>>(
        &self,
        block: BlockAt,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = vec![0; 64 * 1024];
        let (mut offset, end) = (block.offset, block.offset + block.len_octets);
        while offset < end {
            let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let octets = &mut buffer[..len];
            self.file.read_exact_at(octets, offset).map_err(|error| self.error(error))?;
            write(octets)?;
            offset += len as u64;
        }
        Ok(())
    }

    /// Removes the journal: the listing is in its place.
    ///
    /// # Errors
    ///
    /// [`JournalFault::Io`].
    pub fn remove(self) -> Result<(), JournalError> {
        // Still locked: nobody has opened it meanwhile.
        fs::remove_file(&self.path).map_err(|error| self.error(error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), JournalError> {
        self.file.write_all(octets).map_err(|error| self.error(error))?;
        self.len_octets += octets.len() as u64;
        Ok(())
    }

    fn cut_to(&mut self, len_octets: u64) -> Result<(), JournalError> {
        let cut = self.file.set_len(len_octets);
        let cut = cut.and_then(|()| self.file.seek(SeekFrom::Start(len_octets)));
        cut.map_err(|error| self.error(error))?;
        self.len_octets = len_octets;
        self.synced_octets = len_octets;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|error| self.error(error))?;
        (self.synced, self.synced_octets) = (Instant::now(), self.len_octets);
        Ok(())
    }

    fn error(&self, error: io::Error) -> JournalError {
        JournalFault::from(error).at(&self.path)
    }
}

/// What the listing `output` has captured of these accounts; nothing where it is no listing, or not
/// there.
pub fn listed_in(output: &Path, wanted: &WantedAccounts<'_>) -> Resumed {
    let found = File::open(output).ok().and_then(|file| read_blocks(&file, wanted).ok());
    found.unwrap_or_default()
}

/// What a journal has; `None` where its first line was never written whole.
///
/// Cost: one pass. Memory: one block, and a place an account.
///
/// # Errors
///
/// [`JournalFault`].
pub fn read_journal<R: Read + Seek>(
    mut journal: R,
    settings: &str,
    wanted: &WantedAccounts<'_>,
) -> Result<Option<Resumed>, JournalFault> {
    let mut start = Vec::new();
    journal.by_ref().take(MAX_HEAD_OCTETS).read_to_end(&mut start)?;
    let Some((begun, head_octets)) = begun_with(&start, settings)? else { return Ok(None) };
    let found = read_blocks(journal, wanted)?;
    Ok(Some(Resumed { begun: Some(begun), end: found.end.max(head_octets), ..found }))
}

/// When a journal was begun, and the length of its first line; `None` when that was never written.
fn begun_with(start: &[u8], settings: &str) -> Result<Option<(String, u64)>, JournalFault> {
    let Some(end) = start.iter().position(|octet| *octet == b'\n') else {
        // Cut short in its first line, or not ours.
        let is_ours = MAGIC.as_bytes().starts_with(start) || start.starts_with(MAGIC.as_bytes());
        return if is_ours { Ok(None) } else { Err(JournalFault::NotOurs) };
    };
    let line = std::str::from_utf8(&start[..end]).map_err(|_| JournalFault::NotOurs)?;
    let rest = line.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(": "));
    let (with, begun) =
        rest.and_then(|rest| rest.split_once(", begun ")).ok_or(JournalFault::NotOurs)?;
    if with != settings {
        return Err(JournalFault::OtherSettings {
            begun: printable(begun.as_bytes()),
            with: printable(with.as_bytes()),
            settings: settings.to_owned(),
        });
    }
    Ok(Some((printable(begun.as_bytes()), end as u64 + 1)))
}

/// The blocks of a listing, and where the last of them ends.
fn read_blocks<R: Read + Seek>(
    mut from: R,
    wanted: &WantedAccounts<'_>,
) -> Result<Resumed, JournalFault> {
    from.seek(SeekFrom::Start(0))?;
    let mut found = Resumed::default();
    for block in listing::scan(BufReader::new(from)).with_heads() {
        let (block, head) = match block {
            Ok(block) => block,
            Err(listing::ListingError { fault: ListingFault::Empty, .. }) => break,
            Err(listing::ListingError { fault: ListingFault::CutShort { user }, .. }) => {
                found.cut_short = Some(user.to_string());
                break;
            }
            Err(error) => return Err(JournalFault::Listing(error)),
        };
        found.end = block.offset + block.len_octets;
        if head.state == State::Failed {
            continue;
        }
        match wanted.by_user.get(head.user.as_str()) {
            Some(&at) if (wanted.sources)(at) == head.source => {
                let place = BlockAt { offset: block.offset, len_octets: block.len_octets };
                found.captured.insert(at, place);
                let taken = head.captures.iter().filter_map(|capture| capture.taken).max();
                found.newest = found.newest.max(taken);
            }
            _ => found.dropped += 1,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::capture::draft::Captured;
    use crate::file::lock::once_free;
    use crate::listing::write_maildrop;

    const SETTINGS: &str = "--keys header";

    /// A directory, and the accounts that a run is for.
    struct Here {
        dir: TempDir,
        users: Vec<&'static str>,
    }

    impl Here {
        fn new(users: &[&'static str]) -> Self {
            Self { dir: tempfile::tempdir().unwrap(), users: users.to_vec() }
        }

        fn output(&self) -> PathBuf {
            self.dir.path().join("x")
        }

        fn journal(&self) -> PathBuf {
            self.dir.path().join("x.journal")
        }

        fn with<T>(&self, ask: impl FnOnce(&WantedAccounts<'_>) -> T) -> T {
            let by_user = (0..).zip(&self.users).map(|(at, user)| (*user, at)).collect();
            let sources = |at: usize| format!("pop3 {}", self.users[at]);
            ask(&WantedAccounts { by_user: &by_user, sources: &sources })
        }

        fn open(&self) -> Result<(Journal, Resumed), String> {
            once_free(|| match self.try_to_open() {
                Err(JournalError { fault: JournalFault::Busy, .. }) => None,
                opened => Some(opened.map_err(|trouble| trouble.to_string())),
            })
        }

        fn try_to_open(&self) -> Result<(Journal, Resumed), JournalError> {
            self.with(|wanted| Journal::open(&self.output(), SETTINGS, wanted))
        }

        /// The accounts that a run finds captured.
        fn found(&self) -> (Vec<&str>, usize) {
            let (_, found) = self.open().unwrap();
            let mut users: Vec<_> = found.captured.keys().map(|at| self.users[*at]).collect();
            users.sort_unstable();
            (users, found.dropped)
        }
    }

    fn block(user: &str) -> Vec<u8> {
        let mut failed = Captured::failed(user.into(), format!("pop3 {user}"), "x".into());
        failed.maildrop.state = State::Empty;
        octets_of(failed)
    }

    fn octets_of(captured: Captured) -> Vec<u8> {
        let mut octets = Vec::new();
        write_maildrop(&mut octets, &captured.maildrop).unwrap();
        octets
    }

    #[test]
    fn a_run_finds_what_those_before_it_captured_and_cuts_off_what_is_not_whole() {
        let here = Here::new(&["alice", "bob", "carol"]);
        let (mut journal, found) = here.open().unwrap();
        assert_eq!((found.begun, found.captured.len()), (None, 0));
        let carol = journal.append(&block("carol")).unwrap();
        let said = here.try_to_open().err().unwrap().to_string();
        assert!(said.contains("another uidl-keep writes it"), "{said}");
        drop(journal);

        // As a kill leaves it, at each octet.
        let whole = fs::read(here.journal()).unwrap();
        for cut in 0..block("alice").len() {
            fs::write(here.journal(), [&whole[..], &block("alice")[..cut]].concat()).unwrap();
            let (mut journal, found) = here.open().unwrap();
            assert!(found.begun.is_some());
            assert_eq!(found.captured, HashMap::from([(2, carol)]), "{cut}");
            journal.append(&block("bob")).unwrap();
            drop(journal);
            assert_eq!(here.found(), (vec!["bob", "carol"], 0), "{cut}");
        }
        let (journal, _) = here.open().unwrap();
        journal.remove().unwrap();
        assert!(!here.journal().exists());
    }

    #[test]
    fn a_first_line_that_is_not_whole_is_written_again() {
        let here = Here::new(&["alice"]);
        drop(here.open().unwrap());
        let line = fs::read(here.journal()).unwrap();
        for cut in 0..line.len() {
            fs::write(here.journal(), &line[..cut]).unwrap();
            let (mut journal, found) = here.open().unwrap();
            assert!(found.begun.is_none());
            journal.append(&block("alice")).unwrap();
            drop(journal);
            assert_eq!(here.found(), (vec!["alice"], 0), "{cut}");
        }
    }

    #[test]
    fn what_was_captured_in_another_manner_or_by_somebody_else_is_not_gone_on_with() {
        let here = Here::new(&["alice"]);
        let (mut journal, _) = here.open().unwrap();
        journal.append(&block("alice")).unwrap();
        drop(journal);
        let other = here.with(|wanted| Journal::open(&here.output(), "--keys file", wanted));
        let said = other.err().unwrap().to_string();
        assert!(said.contains("with --keys header, and this is --keys file"), "{said}");
        for text in ["my notes\n", "my notes", "# mine\n", "uidl-keep-listing 1\n"] {
            fs::write(here.journal(), text).unwrap();
            let said = here.open().err().unwrap();
            assert!(said.contains("not a journal of this uidl-keep"), "{text}: {said}");
            assert_eq!(fs::read_to_string(here.journal()).unwrap(), text);
        }
    }

    #[test]
    fn what_stands_in_the_middle_and_is_no_block_is_left_to_be_looked_at() {
        let here = Here::new(&["alice"]);
        let (mut journal, _) = here.open().unwrap();
        journal.append(&block("alice")).unwrap();
        journal.append(b"what is this\n").unwrap();
        drop(journal);
        let before = fs::read(here.journal()).unwrap();
        let said = here.open().err().unwrap();
        assert!(said.contains("x.journal:8: found \"what is this\""), "{said}");
        assert_eq!(fs::read(here.journal()).unwrap(), before);
    }

    #[test]
    fn who_is_not_in_the_list_any_more_is_dropped_and_so_is_who_is_elsewhere_now() {
        let mut here = Here::new(&["alice", "bob"]);
        let (mut journal, _) = here.open().unwrap();
        for user in ["alice", "bob"] {
            journal.append(&block(user)).unwrap();
        }
        let moved = String::from_utf8(block("carol")).unwrap();
        journal.append(moved.replace("pop3 carol", "pop3 elsewhere").as_bytes()).unwrap();
        drop(journal);
        here.users = vec!["carol", "alice"];
        assert_eq!(here.found(), (vec!["alice"], 2));
    }

    #[test]
    fn a_listing_is_taken_over_but_for_what_failed_in_it() {
        let here = Here::new(&["alice", "bob", "carol"]);
        let failed = Captured::failed("bob".into(), "pop3 bob".into(), "x".into());
        let listing = [block("carol"), octets_of(failed), block("alice"), block("dave")];
        fs::write(here.output(), listing.concat()).unwrap();
        let (mut journal, _) = here.open().unwrap();
        let newer = HashMap::new();
        let take_over = |journal: &mut Journal| {
            here.with(|wanted| journal.take_over(&here.output(), wanted, &newer))
                .map_err(|t| t.to_string())
        };
        let found = take_over(&mut journal).unwrap();
        assert_eq!((found.captured.len(), found.dropped), (2, 1));
        journal.append(&block("bob")).unwrap();
        for (at, place) in found.captured {
            let mut copied = vec![0; usize::try_from(place.len_octets).unwrap()];
            journal.file.read_exact_at(&mut copied, place.offset).unwrap();
            assert_eq!(copied, block(here.users[at]));
        }
        drop(journal);
        assert_eq!(here.found(), (vec!["alice", "bob", "carol"], 0));

        fs::write(here.output(), &listing.concat()[1..]).unwrap();
        let (mut journal, _) = here.open().unwrap();
        assert!(take_over(&mut journal).is_err());
    }

    #[test]
    fn what_the_journal_has_is_newer_than_the_listing() {
        let here = Here::new(&["alice", "bob"]);
        fs::write(here.output(), [block("alice"), block("bob")].concat()).unwrap();
        let (mut journal, _) = here.open().unwrap();
        let place = journal.append(&block("alice")).unwrap();
        let newer = HashMap::from([(0, place)]);
        let found = here.with(|wanted| journal.take_over(&here.output(), wanted, &newer));
        assert_eq!(found.unwrap().captured.keys().copied().collect::<Vec<_>>(), [1]);
        drop(journal);
        let text = fs::read_to_string(here.journal()).unwrap();
        assert_eq!(text.matches("maildrop alice").count(), 1, "{text}");
        assert_eq!(here.found(), (vec!["alice", "bob"], 0));
    }
}
