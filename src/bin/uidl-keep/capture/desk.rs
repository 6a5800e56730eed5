//! Several maildrops at a time, written in their order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use uidl_keep::capture::layout::Source;
use uidl_keep::capture::{self, Captured, Keys, Server, printable};
use uidl_keep::listing;
use uidl_keep::maildrop::State;

use super::listing_file::ListingFile;
use super::progress::Progress;
use crate::output::Trouble;

/// One block, ready to be written.
struct Block {
    octets: Vec<u8>,
    losses: Vec<String>,
    messages: usize,
}

impl Block {
    fn of(captured: Captured) -> Self {
        let Captured { mut maildrop, mut losses } = captured;
        let mut octets = Vec::new();
        if let Err(error) = listing::write_maildrop(&mut octets, &maildrop) {
            // It would make the whole listing unreadable.
            octets.clear();
            let fault = format!("no listing can hold this maildrop: {error}");
            maildrop.state = State::Failed;
            (maildrop.uidvalidity, maildrop.counter) = (None, None);
            maildrop.entries.clear();
            maildrop.spent.clear();
            maildrop.remarks = vec![fault.clone()];
            losses.push(fault);
            if listing::write_maildrop(&mut octets, &maildrop).is_err() {
                octets.clear();
            }
        }
        Self { octets, losses, messages: maildrop.entries.len() }
    }
}

/// What the threads share.
#[derive(Default)]
struct Desk {
    taken: usize,
    written: usize,
    ready: BTreeMap<usize, Block>,
    /// Nobody shall take another maildrop: the work cannot be finished.
    is_closed: bool,
}

/// How far a thread may be ahead of what is written: bounds what waits in memory.
const AHEAD: usize = 64;

/// Captures with `jobs` threads and writes in the order of `sources`. Returns whether nothing was lost.
pub fn capture(
    server: &Server,
    keys: Keys,
    sources: &[Source],
    jobs: usize,
    progress: &Progress,
    output: &mut ListingFile,
) -> Result<bool, Trouble> {
    let desk = (Mutex::new(Desk::default()), Condvar::new());
    thread::scope(|scope| {
        let closing = CloseOnDrop(&desk);
        for _ in 0..jobs.min(sources.len()) {
            scope.spawn(|| {
                // Also closes when a thread panics, or the writer would wait for its block.
                let closing = CloseOnDrop(&desk);
                while let Some(at) = take(&desk, sources.len()) {
                    let block = Block::of(capture::capture(server, keys, &sources[at]));
                    lock(&desk.0).ready.insert(at, block);
                    desk.1.notify_all();
                }
                std::mem::forget(closing);
            });
        }
        let mut all_well = true;
        for (at, source) in sources.iter().enumerate() {
            let mut guard = lock(&desk.0);
            let block = loop {
                if let Some(block) = guard.ready.remove(&at) {
                    break block;
                }
                if guard.is_closed {
                    return Err(Trouble::new("a thread stopped; nothing is to be trusted"));
                }
                guard = wait(&desk.1, guard, progress);
            };
            guard.written = at + 1;
            drop(guard);
            desk.1.notify_all();
            for loss in &block.losses {
                progress.say(format_args!("{}: {loss}", printable(source.user().as_bytes())));
            }
            all_well &= block.losses.is_empty();
            output.write(&block.octets)?;
            progress.count(block.messages);
        }
        std::mem::forget(closing);
        Ok(all_well)
    })
}

/// The next maildrop to capture, when there is one left and the writer can keep pace.
fn take(desk: &(Mutex<Desk>, Condvar), len: usize) -> Option<usize> {
    let mut guard = lock(&desk.0);
    loop {
        if guard.is_closed || guard.taken == len {
            return None;
        }
        if guard.taken < guard.written + AHEAD {
            guard.taken += 1;
            return Some(guard.taken - 1);
        }
        guard = desk.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a>(
    bell: &Condvar,
    guard: MutexGuard<'a, Desk>,
    progress: &Progress,
) -> MutexGuard<'a, Desk> {
    let (guard, _) =
        bell.wait_timeout(guard, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner);
    progress.tick();
    guard
}

/// Closes the desk when it goes, unless it is forgotten.
struct CloseOnDrop<'a>(&'a (Mutex<Desk>, Condvar));

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).is_closed = true;
        self.0.1.notify_all();
    }
}
