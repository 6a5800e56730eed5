//! Captures from disk: several maildrops at a time, written in their order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, fstat, statat};
use uidl_keep::capture;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::workers::{self, AHEAD, Next, Schedule};
use uidl_keep::text::printable;

use super::block::{Block, Unusual};
use super::job::Job;
use super::listing_file::ListingFile;
use super::progress::Progress;
use super::summary::CaptureSummary;
use crate::output::Trouble;

/// Captures with `jobs` threads and writes in the order of the sources. Returns whether nothing was
/// lost, and how much there was.
pub fn capture(
    job: &Job,
    keys: Keys,
    jobs: usize,
    progress: &Progress,
    output: &mut ListingFile,
) -> Result<(bool, CaptureSummary), Trouble> {
    let Job { server, sources, is_copy, here, .. } = job;
    let (mut all_well, mut noted) = (true, Unusual::default());
    let mut summary = CaptureSummary::default();
    let in_order = InOrder { len: sources.len(), taken: 0, written: 0, ready: BTreeMap::new() };
    let capture_one = |at: usize| {
        let (source, began) = (&sources[at], SystemTime::now());
        // A copy is as old as the last change before it was made.
        let changed = changed_at(source, server.holds()).filter(|_| *is_copy);
        let taken = changed.map_or(began, |changed| changed.min(began));
        let captured = capture::disk::server::capture(server, keys, source).taken_at(taken);
        Block::of(match here {
            Some(here) => here.judge(source.login(), captured),
            None => captured,
        })
    };
    let tick = || progress.tick();
    workers::run(in_order, jobs.min(sources.len()), tick, capture_one, |(at, block)| {
        for loss in &block.losses {
            progress.say(format_args!("{}: {loss}", printable(sources[at].user().as_bytes())));
        }
        all_well &= block.losses.is_empty();
        noted.add(&block);
        summary.add(&block);
        output.write(&block.octets)?;
        progress.count_messages(block.messages as u64);
        progress.count_maildrop(block.has_failed);
        Ok::<_, Trouble>(())
    })?;
    if let Some(said) = noted.said(sources.len()) {
        progress.say(said);
    }
    Ok((all_well, summary))
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

impl Schedule for InOrder {
    type Done = Block;
    type Finished = (usize, Block);

    fn is_over(&self) -> bool {
        self.taken == self.len
    }

    fn next(&mut self, _now: Instant) -> Next {
        if self.taken == self.len || self.taken == self.written + AHEAD {
            return Next::Wait(None);
        }
        self.taken += 1;
        Next::Go(self.taken - 1)
    }

    fn settle(&mut self, at: usize, block: Block, _now: Instant) {
        self.ready.insert(at, block);
    }

    fn finished(&mut self) -> Option<(usize, Block)> {
        let at = self.written;
        let block = self.ready.remove(&at)?;
        self.written += 1;
        Some((at, block))
    }
}
