//! The boundary that no panic crosses into C.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::host;

/// Runs the body of a callback. A panic in it ends the process by exit, after a line in the log: the
/// client sees a dropped session and tries again, and no half answer was sent.
///
/// It cannot go on instead: for some callbacks there is no value that Dovecot takes for a failure,
/// and a POP3 process whose `get_special` fails invents a UIDL (`pop3_get_uid` in
/// `pop3-commands.c`).
pub fn boundary<T>(body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let said = (panic.downcast_ref::<&str>().copied())
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        host::die(&format!("bug: {said}; please report it with this line"))
    })
}
