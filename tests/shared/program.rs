//! Programs that a test makes, for somebody to run.
//!
//! Another process writes them. A file that this one had open for writing could be inherited, for a
//! moment, by whatever another thread starts, and to run it would fail: "Text file busy".

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a program of that text, in the place of one that is there.
pub fn write_program(path: &Path, text: &str) {
    install(OsStr::new("/dev/stdin"), path, text);
}

/// Makes a program that is a copy of the helper.
pub fn copy_helper(path: &Path) {
    install(OsStr::new(env!("CARGO_BIN_EXE_uidl-keep")), path, "");
}

fn install(from: &OsStr, to: &Path, stdin: &str) {
    let mut install = Command::new("install")
        .args(["-m", "755"])
        .arg(from)
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .expect("install");
    let mut pipe = install.stdin.take().expect("a pipe");
    pipe.write_all(stdin.as_bytes()).expect("install reads");
    drop(pipe);
    assert!(install.wait().expect("our child").success(), "{}", to.display());
}
