//! The things that tests with and without servers have in common.

pub mod capture;
pub mod program;
pub mod tree;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Says why a test does not run here. Fails it if the hosts were promised.
pub fn lacking(what: &str) {
    if std::env::var_os("UIDL_KEEP_REQUIRE_HOST").is_some_and(|value| value == "1") {
        panic!("UIDL_KEEP_REQUIRE_HOST=1, but {what}");
    }
    eprintln!("skipped: {what}");
}

/// Whether this process may start servers and give mail away.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The helper, ready for its arguments. It leaves closing summaries out.
pub fn uidl_keep() -> Command {
    let mut helper = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
    helper.arg("-q");
    helper
}
