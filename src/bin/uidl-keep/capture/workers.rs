//! Several threads at work on what a plan gives out, and one that writes what comes of it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::output::Trouble;

/// How much of what is done may wait to be written: bounds what waits in memory.
pub const AHEAD: usize = 64;

/// What is to be done, in which order, and in which order it is written.
pub trait Plan {
    /// What a thread makes of one piece of the work.
    type Done;
    /// What is written.
    type Ready;

    /// Whether nothing is left that a thread could take, now or later, unless a piece comes back
    /// that a thread has now.
    fn is_over(&self) -> bool;

    /// The next piece of the work.
    fn take(&mut self, now: Instant) -> Take;

    /// Takes back what a thread made of a piece.
    fn settle(&mut self, at: usize, done: Self::Done, now: Instant);

    /// What is to be written next, if it is known yet.
    fn ready(&mut self) -> Option<Self::Ready>;
}

/// What a thread may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// This piece.
    Go(usize),
    /// Nothing until then, or until something is settled or written.
    Wait(Option<Instant>),
}

/// What the threads share.
struct Desk<P> {
    plan: P,
    /// Pieces that threads have.
    running: usize,
    /// Nobody shall take another piece: the work cannot be finished.
    is_closed: bool,
}

impl<P: Plan> Desk<P> {
    fn is_over(&self) -> bool {
        self.running == 0 && self.plan.is_over()
    }
}

type Shared<P> = (Mutex<Desk<P>>, Condvar);

/// Works with `jobs` threads until the plan is over, and writes what is ready, one at a time.
pub fn run<P: Plan + Send>(
    plan: P,
    jobs: usize,
    progress: &Progress,
    do_one: impl Fn(usize) -> P::Done + Sync,
    mut write: impl FnMut(P::Ready) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let desk: Shared<P> = (Mutex::new(Desk { plan, running: 0, is_closed: false }), Condvar::new());
    thread::scope(|scope| {
        let closing = CloseOnDrop(&desk);
        for _ in 0..jobs {
            scope.spawn(|| {
                // Also closes when a thread panics, or the writer would wait for its piece.
                let closing = CloseOnDrop(&desk);
                while let Some(at) = take(&desk) {
                    let done = do_one(at);
                    let mut guard = lock(&desk.0);
                    guard.running -= 1;
                    guard.plan.settle(at, done, Instant::now());
                    drop(guard);
                    desk.1.notify_all();
                }
                std::mem::forget(closing);
            });
        }
        while let Some(ready) = next_ready(&desk, progress)? {
            desk.1.notify_all();
            write(ready)?;
        }
        std::mem::forget(closing);
        Ok(())
    })
}

/// What a thread does next; `None` when there is nothing left to do.
fn take<P: Plan>(desk: &Shared<P>) -> Option<usize> {
    let mut guard = lock(&desk.0);
    loop {
        if guard.is_closed || guard.is_over() {
            return None;
        }
        let now = Instant::now();
        guard = match guard.plan.take(now) {
            Take::Go(at) => {
                guard.running += 1;
                return Some(at);
            }
            Take::Wait(None) => desk.1.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Take::Wait(Some(until)) => wait(&desk.1, guard, until.saturating_duration_since(now)),
        };
    }
}

/// What is to be written next; `None` at the end.
fn next_ready<P: Plan>(desk: &Shared<P>, progress: &Progress) -> Result<Option<P::Ready>, Trouble> {
    let mut guard = lock(&desk.0);
    loop {
        if let Some(ready) = guard.plan.ready() {
            return Ok(Some(ready));
        }
        if guard.is_closed {
            return Err(Trouble::new("a thread stopped; nothing is to be trusted"));
        }
        if guard.is_over() {
            return Ok(None);
        }
        guard = wait(&desk.1, guard, Duration::from_secs(1));
        progress.tick();
    }
}

fn lock<P>(desk: &Mutex<Desk<P>>) -> MutexGuard<'_, Desk<P>> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, P>(
    bell: &Condvar,
    guard: MutexGuard<'a, Desk<P>>,
    pause: Duration,
) -> MutexGuard<'a, Desk<P>> {
    bell.wait_timeout(guard, pause).unwrap_or_else(PoisonError::into_inner).0
}

/// Closes the desk when it goes, unless it is forgotten.
struct CloseOnDrop<'a, P>(&'a Shared<P>);

impl<P> Drop for CloseOnDrop<'_, P> {
    fn drop(&mut self) {
        lock(&self.0.0).is_closed = true;
        self.0.1.notify_all();
    }
}
