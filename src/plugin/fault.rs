//! Faults on request, so that tests see what a bug of ours does to a session. Not in release
//! builds.

use std::env;
use std::fs;
use std::hint::black_box;

/// It names a file that says which fault to have, and where: `panic search_init`, `memory uidl 3`.
/// Dovecot hands it on where `import_environment` names it.
const REQUEST: &str = "UIDL_KEEP_FAULT";

/// Has the fault that is asked for at this door.
pub fn at(door: &str) {
    let Some(file) = env::var_os(REQUEST) else { return };
    let Ok(asked) = fs::read_to_string(file) else { return };
    match asked.trim_end().split_once(' ') {
        Some(("panic", at)) if at == door => panic!("{REQUEST} asks for it"),
        Some(("memory", at)) if at == door => {
            black_box(Vec::<u8>::with_capacity(isize::MAX as usize));
        }
        _ => {}
    }
}
