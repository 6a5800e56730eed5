//! The boundary that no panic crosses into C.

use std::panic::PanicHookInfo;
use std::sync::Once;

use super::{host, memory};

/// Runs the body of a callback. A panic in it, and memory that it cannot have, end the process by
/// exit after one line in the log: the client sees a dropped session and tries again, and no half
/// answer was sent.
///
/// It cannot go on instead. Some callbacks have no value that Dovecot takes for a failure, and a
/// POP3 process whose `get_special` fails invents a UIDL (`pop3_get_uid` in `pop3-commands.c`). It
/// does not unwind either. Drops on the way would call into a Dovecot that is in the middle of
/// something, and a second panic there would be a SIGABRT.
pub fn boundary<T>(body: impl FnOnce() -> T) -> T {
    static ARMED: Once = Once::new();
    ARMED.call_once(|| {
        // The hook is ours alone, for the standard library is linked into this module.
        std::panic::set_hook(Box::new(exit));
        memory::exit_when_it_ends();
    });
    body()
}

fn exit(panic: &PanicHookInfo) {
    let said = (panic.payload().downcast_ref::<&str>().copied())
        .or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    host::die(&format!("bug: {said}{place}; please report it with this line"))
}
