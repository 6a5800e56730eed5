//! The files that this package builds: the helper, and the plugin in the place where it was built.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::host::{Line, Subject, unix_mode};
use super::{OWNER, lacking};

pub use crate::shared::uidl_keep;

/// The module for that release line of Dovecot; `None`, having said why, when it was not built.
///
/// `make test-plugins` builds both, and `make test-platforms` those of other releases.
/// `UIDL_KEEP_PLUGIN` names another module for 2.3 in the place of
/// the one that it puts beside the helper, and `UIDL_KEEP_PLUGIN_24` another directory for 2.4 in
/// the place of the one that it fills.
pub fn plugin(line: Line) -> Option<PathBuf> {
    let module = match line {
        Line::V23 => {
            let named = std::env::var_os("UIDL_KEEP_PLUGIN").map(PathBuf::from);
            if named.is_none() && !cfg!(feature = "plugin") {
                lacking("this test was built without `--features plugin`");
                return None;
            }
            let beside = || match Subject::of(line).build_dir() {
                Some(dir) => built_in(dir).join("lib95_uidl_keep_plugin.so"),
                None => target().join("libuidl_keep.so"),
            };
            named.unwrap_or_else(beside)
        }
        Line::V24 => {
            let dir = std::env::var_os("UIDL_KEEP_PLUGIN_24").map_or_else(
                || built_in(Subject::of(line).build_dir().expect("it is in a tree")),
                PathBuf::from,
            );
            dir.join("lib95_uidl_keep_plugin.so")
        }
    };
    if module.exists() {
        return Some(module);
    }
    let (module, make) = (module.display(), Subject::of(line).make());
    lacking(&format!("no plugin at {module}: run `make {make}`"));
    None
}

/// Runs the helper and insists on exit status 0. Returns what it printed.
pub fn run(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().expect("the helper");
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Builds a final site from a listing, and lets only the owner of the mail read it.
pub fn build_site(site: &Path, listing: &Path) {
    run(uidl_keep().args(["build", "--final", "-o"]).arg(site).arg(listing));
    give_to_reader(site);
}

/// Lets only the owner of the mail read what is there.
pub fn give_to_reader(path: &Path) {
    chown(path, Some(0), Some(OWNER)).expect("root");
    let mode = if path.is_dir() { 0o750 } else { 0o640 };
    std::fs::set_permissions(path, unix_mode(mode)).expect("root");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("the site") {
            give_to_reader(&entry.expect("the site").path());
        }
    }
}

/// The helper that runs in every tree: the one for an old glibc, where a Dovecot is named that
/// comes with that.
pub fn for_trees() -> PathBuf {
    match Subject::named() {
        Some(subject) if subject.version == "2.3.13" => built_in("portable").join("uidl-keep"),
        _ => PathBuf::from(env!("CARGO_BIN_EXE_uidl-keep")),
    }
}

fn built_in(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(dir)
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_uidl-keep")).parent().expect("in a directory")
}
