//! What has been captured so far, beside the listing that it becomes: [`Journal`].
//!
//! A journal is itself a listing, with a first line that says how it was begun. Each block is
//! appended as it comes; what a killed run left of its last block is cut off by the next.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use uidl_keep::file::lock;
use uidl_keep::listing::{self, ListingFault};
use uidl_keep::maildrop::State;

use crate::capture::listing_file::ListingFile;
use crate::output::{Trouble, remark};

/// What begins the first line.
const MAGIC: &str = "# journal 1 of uidl-keep capture pop3";

/// The most time and the most octets that a power cut may cost.
const SYNC_EVERY: Duration = Duration::from_secs(5);
const SYNC_OCTETS: u64 = 8 << 20;

/// A block in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    offset: u64,
    len_octets: u64,
}

/// The journal of one listing, which this process alone writes.
pub struct Journal {
    file: File,
    path: PathBuf,
    len_octets: u64,
    synced: Instant,
    synced_octets: u64,
}

/// The accounts that a run is for, by the user names of the new server: their number, and what the
/// block of each says of its source.
pub struct Wanted<'a> {
    pub by_user: &'a HashMap<&'a str, usize>,
    pub sources: &'a dyn Fn(usize) -> String,
}

/// What was found of earlier runs.
#[derive(Debug, Default)]
pub struct Found {
    /// The accounts that are captured, by number.
    pub captured: HashMap<usize, Place>,
    /// When the last of these was captured, in seconds since 1970.
    pub newest: Option<u64>,
    /// How many blocks are of accounts that are not asked for any more.
    pub dropped: usize,
    /// When the journal was begun, as it says; `None` for one that begins now.
    pub begun: Option<String>,
}

impl Journal {
    /// Opens the journal of the listing `output`, with what an earlier run left in it.
    ///
    /// `settings` says how blocks are captured: what was captured otherwise is not gone on with.
    pub fn open(output: &Path, settings: &str, wanted: &Wanted) -> Result<(Self, Found), Trouble> {
        let mut name = OsString::from(output.file_name().ok_or_else(|| {
            Trouble::at(output.display(), "not the name of a file; -o names the listing to be made")
        })?);
        name.push(".journal");
        let path = output.with_file_name(name);
        let at = |error: &dyn std::fmt::Display| Trouble::at(path.display(), error);
        let opened = lock::open_alone(&path).map_err(|error| at(&error))?;
        let file = opened.ok_or_else(|| {
            at(&"another uidl-keep writes it; wait for it, or name another listing with -o")
        })?;
        let begun = begun_with(&file, settings).map_err(|error| at(&error))?;
        let mut journal = Self {
            file,
            path: path.clone(),
            len_octets: 0,
            synced: Instant::now(),
            synced_octets: 0,
        };
        let Some((begun, head_octets)) = begun else {
            let now = humantime::format_rfc3339_seconds(SystemTime::now());
            journal.cut_to(0)?;
            journal.write(format!("{MAGIC}: {settings}, begun {now}\n").as_bytes())?;
            return Ok((journal, Found::default()));
        };
        let (mut found, end) = read_blocks(&journal.file, &path, wanted)?;
        journal.cut_to(end.max(head_octets))?;
        found.begun = Some(begun);
        Ok((journal, found))
    }

    /// Takes over what the listing `output` of an earlier run has of the accounts that are asked
    /// for, but for failed ones, and for those of which the journal itself has something newer.
    pub fn take_over(
        &mut self,
        output: &Path,
        wanted: &Wanted,
        newer: &HashMap<usize, Place>,
    ) -> Result<Found, Trouble> {
        let at = |error: &dyn std::fmt::Display| Trouble::at(output.display(), error);
        let file = File::open(output).map_err(|error| at(&error))?;
        let (mut found, end) = read_blocks(&file, output, wanted)?;
        if end < file.metadata().map_err(|error| at(&error))?.len() {
            return Err(at(&"it does not end with a whole block; it was changed since"));
        }
        found.captured.retain(|at, _| !newer.contains_key(at));
        let mut captured: Vec<_> = found.captured.iter_mut().collect();
        captured.sort_by_key(|(_, place)| place.offset);
        for (_, place) in captured {
            let mut from = &file;
            from.seek(SeekFrom::Start(place.offset)).map_err(|error| at(&error))?;
            let offset = self.len_octets;
            let copied = io::copy(&mut from.take(place.len_octets), &mut &self.file);
            self.len_octets += copied.map_err(|error| self.trouble(&error))?;
            *place = Place { offset, len_octets: place.len_octets };
        }
        self.sync()?;
        Ok(found)
    }

    /// Appends a block.
    pub fn append(&mut self, block: &[u8]) -> Result<Place, Trouble> {
        let place = Place { offset: self.len_octets, len_octets: block.len() as u64 };
        self.write(block)?;
        if self.synced.elapsed() >= SYNC_EVERY
            || self.len_octets - self.synced_octets >= SYNC_OCTETS
        {
            self.sync()?;
        }
        Ok(place)
    }

    /// Writes a block into the listing.
    pub fn copy(&self, place: Place, output: &mut ListingFile) -> Result<(), Trouble> {
        let mut buffer = vec![0; 64 * 1024];
        let (mut offset, end) = (place.offset, place.offset + place.len_octets);
        while offset < end {
            let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let octets = &mut buffer[..len];
            self.file.read_exact_at(octets, offset).map_err(|error| self.trouble(&error))?;
            output.write(octets)?;
            offset += len as u64;
        }
        Ok(())
    }

    /// The listing is in its place: the journal has served.
    pub fn remove(self) -> Result<(), Trouble> {
        // Still locked: nobody has opened it meanwhile.
        fs::remove_file(&self.path).map_err(|error| self.trouble(&error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        self.file.write_all(octets).map_err(|error| self.trouble(&error))?;
        self.len_octets += octets.len() as u64;
        Ok(())
    }

    fn cut_to(&mut self, len_octets: u64) -> Result<(), Trouble> {
        let cut = self.file.set_len(len_octets);
        let cut = cut.and_then(|()| self.file.seek(SeekFrom::Start(len_octets)));
        cut.map_err(|error| self.trouble(&error))?;
        self.len_octets = len_octets;
        self.synced_octets = len_octets;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        self.file.sync_data().map_err(|error| self.trouble(&error))?;
        (self.synced, self.synced_octets) = (Instant::now(), self.len_octets);
        Ok(())
    }

    fn trouble(&self, error: &io::Error) -> Trouble {
        Trouble::at(self.path.display(), error)
    }
}

/// What the listing `output` has captured of these accounts; nothing where it is no listing, or not
/// there.
pub fn listed_in(output: &Path, wanted: &Wanted) -> Found {
    let found = File::open(output).ok().and_then(|file| read_blocks(&file, output, wanted).ok());
    found.map(|(found, _)| found).unwrap_or_default()
}

/// When a journal was begun, and the length of its first line; `None` when that was never written.
fn begun_with(file: &File, settings: &str) -> Result<Option<(String, u64)>, String> {
    let mut start = Vec::new();
    file.take(4096).read_to_end(&mut start).map_err(|error| error.to_string())?;
    let Some(end) = start.iter().position(|octet| *octet == b'\n') else {
        // Cut short in its first line, or not ours.
        let is_ours = MAGIC.as_bytes().starts_with(&start) || start.starts_with(MAGIC.as_bytes());
        return if is_ours { Ok(None) } else { Err(not_ours()) };
    };
    let line = std::str::from_utf8(&start[..end]).map_err(|_| not_ours())?;
    let rest = line.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(": "));
    let (with, begun) = rest.and_then(|rest| rest.split_once(", begun ")).ok_or_else(not_ours)?;
    if with != settings {
        return Err(format!(
            "begun {begun} with {with}, and this is {settings}: say the same again, or remove it to \
             begin afresh"
        ));
    }
    Ok(Some((begun.to_owned(), end as u64 + 1)))
}

fn not_ours() -> String {
    "not a journal of this uidl-keep; remove it to begin afresh".into()
}

/// The blocks of a listing, and where the last of them ends.
fn read_blocks(file: &File, path: &Path, wanted: &Wanted) -> Result<(Found, u64), Trouble> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0)).map_err(|error| Trouble::at(path.display(), error))?;
    let (mut found, mut end) = (Found::default(), 0);
    for block in listing::scan(reader).with_heads() {
        let (block, head) = match block {
            Ok(block) => block,
            Err(listing::ListingError { fault: ListingFault::Empty, .. }) => break,
            Err(listing::ListingError { fault: ListingFault::CutShort { user }, .. }) => {
                remark(format_args!(
                    "{}: the last block, of {user}, is not whole: that account is captured again",
                    path.display()
                ));
                break;
            }
            Err(error) => {
                return Err(Trouble::new(format!("{}:{error}", path.display())));
            }
        };
        end = block.offset + block.len_octets;
        if head.state == State::Failed {
            continue;
        }
        match wanted.by_user.get(head.user.as_str()) {
            Some(&at) if (wanted.sources)(at) == head.source => {
                let place = Place { offset: block.offset, len_octets: block.len_octets };
                found.captured.insert(at, place);
                let taken = head.captures.iter().filter_map(|capture| capture.taken).max();
                found.newest = found.newest.max(taken);
            }
            _ => found.dropped += 1,
        }
    }
    Ok((found, end))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use uidl_keep::capture::draft::Captured;

    use super::*;
    use crate::capture::block::Block;

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

        fn with<T>(&self, ask: impl FnOnce(&Wanted) -> T) -> T {
            let by_user = (0..).zip(&self.users).map(|(at, user)| (*user, at)).collect();
            let sources = |at: usize| format!("pop3 {}", self.users[at]);
            ask(&Wanted { by_user: &by_user, sources: &sources })
        }

        fn open(&self) -> Result<(Journal, Found), String> {
            self.with(|wanted| Journal::open(&self.output(), SETTINGS, wanted))
                .map_err(|trouble| trouble.to_string())
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
        Block::of(failed).octets
    }

    #[test]
    fn a_run_finds_what_those_before_it_captured_and_cuts_off_what_is_not_whole() {
        let here = Here::new(&["alice", "bob", "carol"]);
        let (mut journal, found) = here.open().unwrap();
        assert_eq!((found.begun, found.captured.len()), (None, 0));
        let carol = journal.append(&block("carol")).unwrap();
        assert!(here.open().err().unwrap().contains("another uidl-keep writes it"));
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
        let listing = [block("carol"), Block::of(failed).octets, block("alice"), block("dave")];
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
