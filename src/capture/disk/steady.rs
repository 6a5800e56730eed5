//! Reading a maildrop that is in use, until two readings agree.
#![forbid(unsafe_code)]

use std::thread;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::capture::error::CaptureError;

/// How often a maildrop is read before it is called unstable.
pub const TRIES: u32 = 6;

/// The pauses between tries.
const PAUSES: Backoff = Backoff::without_end(Duration::from_millis(20));

/// Retries with doubling pauses until two readings agree. The argument is true on the last try.
///
/// # Errors
///
/// Errors of a try, and [`CaptureError::Unstable`] when no try had a result.
pub(super) fn until_steady<T>(
    mut attempt: impl FnMut(bool) -> Result<Option<T>, CaptureError>,
) -> Result<T, CaptureError> {
    for before in 0..TRIES {
        if let Some(steady) = attempt(before + 1 == TRIES)? {
            return Ok(steady);
        }
        if before + 1 < TRIES {
            thread::sleep(PAUSES.pause(before));
        }
    }
    Err(CaptureError::Unstable { tries: TRIES })
}
