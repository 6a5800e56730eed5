//! Several threads at work on what a schedule gives out, and one that writes what comes of it:
//! [`run`].
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How much of what is done may wait to be written: bounds what waits in memory.
pub const AHEAD: usize = 64;

/// The time after which a thread that was stopped looks whether all others have ended.
const STOP_LOOK: Duration = Duration::from_millis(100);

/// What is to be done, in which order, and in which order it is written.
pub trait Schedule {
    /// What a thread makes of one piece of the work.
    type Done;
    /// What is written.
    type Finished;

    /// Whether nothing is left that a thread could take, now or later, unless a thread gives back a
    /// piece that it has now.
    fn is_over(&self) -> bool;

    /// The next piece of the work.
    fn next(&mut self, now: Instant) -> Next;

    /// Takes back what a thread made of a piece.
    fn settle(&mut self, at: usize, done: Self::Done, now: Instant);

    /// What is to be written next, if it is known yet.
    fn finished(&mut self) -> Option<Self::Finished>;
}

/// What a thread may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This piece.
    Go(usize),
    /// Nothing until then, or until something is settled or written.
    Wait(Option<Instant>),
}

/// A number of pieces in their order, until the work is to end early. Each is written when it is
/// done, with its place.
pub struct AsTheyCome<T, S = fn() -> bool> {
    len: usize,
    taken: usize,
    is_stopped: S,
    done: Vec<(usize, T)>,
}

impl<T> AsTheyCome<T> {
    /// So many pieces, all of which are done.
    pub fn new(len: usize) -> Self {
        Self::until(len, || false)
    }
}

impl<T, S: Fn() -> bool> AsTheyCome<T, S> {
    /// So many pieces. None is begun once `is_stopped` says so.
    pub fn until(len: usize, is_stopped: S) -> Self {
        Self { len, taken: 0, is_stopped, done: Vec::new() }
    }
}

impl<T, S: Fn() -> bool> Schedule for AsTheyCome<T, S> {
    type Done = T;
    type Finished = (usize, T);

    fn is_over(&self) -> bool {
        self.taken == self.len || (self.is_stopped)()
    }

    fn next(&mut self, now: Instant) -> Next {
        if self.taken == self.len {
            return Next::Wait(None);
        }
        if (self.is_stopped)() {
            // Nobody rings when that comes.
            return Next::Wait(Some(now + STOP_LOOK));
        }
        self.taken += 1;
        Next::Go(self.taken - 1)
    }

    fn settle(&mut self, at: usize, done: T, _now: Instant) {
        self.done.push((at, done));
    }

    fn finished(&mut self) -> Option<(usize, T)> {
        self.done.pop()
    }
}

/// A thread panicked: its piece of the work is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread stopped; nothing is to be trusted")]
pub struct ThreadStopped;

/// What the threads share.
struct Shared<S> {
    work: Mutex<Work<S>>,
    /// Rung when a piece is settled or written.
    bell: Condvar,
}

struct Work<S> {
    schedule: S,
    /// Pieces that threads have.
    running: usize,
    state: WorkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkState {
    Open,
    /// Nobody takes another piece: the work cannot be finished.
    Closed,
}

impl<S: Schedule> Work<S> {
    fn is_over(&self) -> bool {
        self.running == 0 && self.schedule.is_over()
    }
}

/// Works with `jobs` threads until the schedule is over, and writes what is finished, one at a
/// time, in this thread. Calls `tick` about once a second while there is nothing to write.
///
/// # Errors
///
/// That of `write`, which ends the work when the threads have finished their pieces; and
/// [`ThreadStopped`].
pub fn run<S: Schedule + Send, E: From<ThreadStopped>>(
    schedule: S,
    jobs: usize,
    tick: impl Fn(),
    do_one: impl Fn(usize) -> S::Done + Sync,
    mut write: impl FnMut(S::Finished) -> Result<(), E>,
) -> Result<(), E> {
    let work = Work { schedule, running: 0, state: WorkState::Open };
    let shared = Shared { work: Mutex::new(work), bell: Condvar::new() };
    thread::scope(|scope| {
        let closing = CloseOnDrop(&shared);
        for _ in 0..jobs {
            scope.spawn(|| {
                // Also closes when a thread panics, or the writer would wait for its piece.
                let closing = CloseOnDrop(&shared);
                while let Some(at) = shared.take() {
                    let done = do_one(at);
                    let mut work = shared.lock();
                    work.running -= 1;
                    work.schedule.settle(at, done, Instant::now());
                    drop(work);
                    shared.bell.notify_all();
                }
                std::mem::forget(closing);
            });
        }
        while let Some(finished) = shared.finished(&tick)? {
            shared.bell.notify_all();
            write(finished)?;
        }
        std::mem::forget(closing);
        Ok(())
    })
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Work<S>> {
        self.work.lock()
    }
}

impl<S: Schedule> Shared<S> {
    /// The next piece for a thread; `None` when there is nothing left to do.
    fn take(&self) -> Option<usize> {
        let mut work = self.lock();
        loop {
            if work.state == WorkState::Closed || work.is_over() {
                return None;
            }
            let now = Instant::now();
            match work.schedule.next(now) {
                Next::Go(at) => {
                    work.running += 1;
                    return Some(at);
                }
                Next::Wait(None) => self.bell.wait(&mut work),
                Next::Wait(Some(until)) => {
                    self.bell.wait_for(&mut work, until.saturating_duration_since(now));
                }
            }
        }
    }

    /// What is to be written next; `None` at the end.
    fn finished(&self, tick: &impl Fn()) -> Result<Option<S::Finished>, ThreadStopped> {
        let mut work = self.lock();
        loop {
            if let Some(finished) = work.schedule.finished() {
                return Ok(Some(finished));
            }
            if work.state == WorkState::Closed {
                return Err(ThreadStopped);
            }
            if work.is_over() {
                return Ok(None);
            }
            self.bell.wait_for(&mut work, Duration::from_secs(1));
            tick();
        }
    }
}

/// Closes the work when it goes, unless it is forgotten.
struct CloseOnDrop<'a, S>(&'a Shared<S>);

impl<S> Drop for CloseOnDrop<'_, S> {
    fn drop(&mut self) {
        self.0.lock().state = WorkState::Closed;
        self.0.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn written(jobs: usize, len: usize) -> Result<Vec<usize>, ThreadStopped> {
        let mut written = Vec::new();
        run(
            AsTheyCome::new(len),
            jobs,
            || (),
            |at| at * 2,
            |(at, number)| {
                assert_eq!(at * 2, number);
                written.push(number);
                Ok(())
            },
        )
        .map(|()| written)
    }

    #[test]
    fn each_piece_is_written_once_by_however_many_threads() {
        for jobs in [1, 3, 8] {
            let mut written = written(jobs, 3).unwrap();
            written.sort_unstable();
            assert_eq!(written, [0, 2, 4], "{jobs}");
        }
        assert_eq!(written(0, 0), Ok(Vec::new()));
    }

    #[test]
    fn no_piece_is_begun_once_the_work_is_to_end_and_those_at_hand_are_written() {
        let is_stopped = AtomicBool::new(false);
        let mut written = Vec::new();
        let queue = AsTheyCome::until(9, || is_stopped.load(Ordering::Relaxed));
        let do_one = |at| match at {
            // The other thread has time to take one more.
            0 => {
                while !is_stopped.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                thread::sleep(STOP_LOOK);
            }
            _ => is_stopped.store(true, Ordering::Relaxed),
        };
        let write = |(at, ())| {
            written.push(at);
            Ok::<_, ThreadStopped>(())
        };
        assert_eq!(run(queue, 2, || (), do_one, write), Ok(()));
        written.sort_unstable();
        assert_eq!(written, [0, 1]);
    }

    #[test]
    fn an_error_of_the_writer_ends_the_work() {
        let mut count = 0;
        let result = run(
            AsTheyCome::new(1000),
            2,
            || (),
            |at| at * 2,
            |_| {
                count += 1;
                if count == 3 { Err(ThreadStopped) } else { Ok(()) }
            },
        );
        assert_eq!((result, count), (Err(ThreadStopped), 3));
    }

    #[test]
    fn a_thread_that_panics_ends_the_work() {
        let run = || {
            run(
                AsTheyCome::new(9),
                1,
                || (),
                |at| if at == 1 { panic!("as asked") } else { at * 2 },
                |_| Ok::<_, ThreadStopped>(()),
            )
        };
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
