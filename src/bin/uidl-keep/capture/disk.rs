//! Captures from disk: several maildrops at a time, written in their order.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use uidl_keep::capture::layout::Source;
use uidl_keep::capture::{self, Keys, Server, printable};

use super::block::Block;
use super::desk::{self, AHEAD, Plan, Take};
use super::listing_file::ListingFile;
use super::progress::Progress;
use crate::output::Trouble;

/// Captures with `jobs` threads and writes in the order of `sources`. Returns whether nothing was lost.
pub fn capture(
    server: &Server,
    keys: Keys,
    sources: &[Source],
    jobs: usize,
    progress: &Progress,
    output: &mut ListingFile,
) -> Result<bool, Trouble> {
    let (mut all_well, mut remarked) = (true, 0);
    let plan = InOrder { len: sources.len(), taken: 0, written: 0, ready: BTreeMap::new() };
    let capture_one = |at: usize| {
        let began = SystemTime::now();
        Block::of(capture::capture(server, keys, &sources[at]).taken_at(began))
    };
    desk::run(plan, jobs.min(sources.len()), progress, capture_one, |(at, block)| {
        for loss in &block.losses {
            progress.say(format_args!("{}: {loss}", printable(sources[at].user().as_bytes())));
        }
        all_well &= block.losses.is_empty();
        remarked += usize::from(block.remarks > block.losses.len());
        output.write(&block.octets)?;
        progress.count_messages(block.messages as u64);
        progress.count_maildrop(block.has_failed);
        Ok(())
    })?;
    if remarked > 0 {
        progress.say(format_args!(
            "{remarked} of {} maildrops have something unusual about them: see the lines \"remark\" of the \
             listing",
            sources.len()
        ));
    }
    Ok(all_well)
}

/// All in their order.
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
