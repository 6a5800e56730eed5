//! Reading a maildrop that is in use, until two readings agree.
#![forbid(unsafe_code)]

use std::thread;
use std::time::Duration;

use crate::capture::error::CaptureError;

/// How often a maildrop is read before it is called unstable.
pub const TRIES: u32 = 6;

/// The pause after the first try, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Retries with doubling pauses until two readings agree. The argument is true on the last try.
///
/// # Errors
///
/// Errors of a try, and [`CaptureError::Unstable`] when no try had a result.
pub(super) fn until_steady<T>(
    mut attempt: impl FnMut(bool) -> Result<Option<T>, CaptureError>,
) -> Result<T, CaptureError> {
    let mut pause = FIRST_PAUSE;
    for left in (0..TRIES).rev() {
        if let Some(steady) = attempt(left == 0)? {
            return Ok(steady);
        }
        if left > 0 {
            thread::sleep(pause);
            pause *= 2;
        }
    }
    Err(CaptureError::Unstable { tries: TRIES })
}
