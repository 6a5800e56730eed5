//! Reading a maildrop that is in use, until two readings agree.
#![forbid(unsafe_code)]

use std::thread;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::capture::error::Error;

/// How often a maildrop is read before it is called unstable.
pub const TRIES: u32 = 6;

/// The pauses between tries.
const PAUSES: Backoff = Backoff::without_end(Duration::from_millis(20));

/// Reads what is in use until something comes of it, with pauses that double; is told when a try is
/// the last one.
///
/// # Errors
///
/// Those of a try, and [`Error::Unstable`] when nothing has come of any.
pub(super) fn until_steady<T>(
    mut attempt: impl FnMut(bool) -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    for before in 0..TRIES {
        if let Some(steady) = attempt(before + 1 == TRIES)? {
            return Ok(steady);
        }
        if before + 1 < TRIES {
            thread::sleep(PAUSES.pause(before));
        }
    }
    Err(Error::Unstable { tries: TRIES })
}
