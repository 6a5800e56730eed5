//! Captures from disk: several maildrops at a time, written in their order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, fstat, statat};
use uidl_keep::capture;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::capture::keys::Keys;
use uidl_keep::text::printable;

use super::block::{Block, Unusual};
use super::job::Job;
use super::listing_file::ListingFile;
use super::progress::Progress;
use super::workers::{self, AHEAD, Plan, Take};
use crate::output::Trouble;

/// Captures with `jobs` threads and writes in the order of the sources. Returns whether nothing was
/// lost.
pub fn capture(
    job: &Job,
    keys: Keys,
    jobs: usize,
    progress: &Progress,
    output: &mut ListingFile,
) -> Result<bool, Trouble> {
    let Job { server, sources, is_copy, .. } = job;
    let (mut all_well, mut noted) = (true, Unusual::default());
    let plan = InOrder { len: sources.len(), taken: 0, written: 0, ready: BTreeMap::new() };
    let capture_one = |at: usize| {
        let (source, began) = (&sources[at], SystemTime::now());
        // A copy is as old as the last change before it was made.
        let changed = changed_at(source, server.holds()).filter(|_| *is_copy);
        let taken = changed.map_or(began, |changed| changed.min(began));
        Block::of(capture::disk::server::capture(server, keys, source).taken_at(taken))
    };
    workers::run(plan, jobs.min(sources.len()), progress, capture_one, |(at, block)| {
        for loss in &block.losses {
            progress.say(format_args!("{}: {loss}", printable(sources[at].user().as_bytes())));
        }
        all_well &= block.losses.is_empty();
        noted.add(&block);
        output.write(&block.octets)?;
        progress.count_messages(block.messages as u64);
        progress.count_maildrop(block.has_failed);
        Ok(())
    })?;
    if let Some(said) = noted.said(sources.len()) {
        progress.say(said);
    }
    Ok(all_well)
}

/// The time of a maildrop's last change: messages came or went, or its state or its file was
/// written anew.
fn changed_at(source: &Source, holds: Holds) -> Option<SystemTime> {
    let (dir, parts) = match holds {
        Holds::File => {
            let (dir, name) = source.open_holder().ok()?;
            return at(statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mtime);
        }
        Holds::Directory => (source.open().ok()?, &["cur", "new"][..]),
        Holds::CyrusMailbox => (source.open().ok()?, &[][..]),
    };
    let of_part = |part: &&str| statat(&dir, *part, AtFlags::SYMLINK_NOFOLLOW).ok();
    let stats = fstat(&dir).ok().into_iter().chain(parts.iter().filter_map(of_part));
    at(stats.map(|stat| stat.st_mtime).max()?)
}

fn at(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?))
}

/// All maildrops, in their order.
struct InOrder {
    len: usize,
    taken: usize,
    written: usize,
    ready: BTreeMap<usize, Block>,
}

impl Plan for InOrder {
    type Done = Block;
    type Ready = (usize, Block);

    fn is_over(&self) -> bool {
        self.taken == self.len
    }

    fn take(&mut self, _now: Instant) -> Take {
        if self.taken == self.len || self.taken == self.written + AHEAD {
            return Take::Wait(None);
        }
        self.taken += 1;
        Take::Go(self.taken - 1)
    }

    fn settle(&mut self, at: usize, block: Block, _now: Instant) {
        self.ready.insert(at, block);
    }

    fn ready(&mut self) -> Option<(usize, Block)> {
        let at = self.written;
        let block = self.ready.remove(&at)?;
        self.written += 1;
        Some((at, block))
    }
}
