//! Dovecot loads a plugin with RTLD_GLOBAL: anything else that it exported would be everybody's.

use std::fs;
use std::process::Command;

use crate::support::helper;
use crate::support::host::{Line, Subject};
use crate::support::lacking;

#[test]
fn the_plugin_exports_what_the_loader_asks_for_and_no_more() {
    for line in Line::asked() {
        let Some(plugin) = helper::plugin(line) else { continue };
        let Ok(nm) = Command::new("nm").args(["-D", "--defined-only"]).arg(&plugin).output() else {
            lacking("nm is not installed: run `make deps`");
            continue;
        };
        assert!(nm.status.success(), "{}", String::from_utf8_lossy(&nm.stderr));
        let listing = String::from_utf8(nm.stdout).expect("ASCII");
        let mut exported: Vec<&str> =
            listing.lines().filter_map(|symbol| symbol.split_whitespace().last()).collect();
        exported.sort_unstable();
        let wanted = ["deinit", "init", "preinit", "version"];
        let wanted = wanted.map(|name| format!("uidl_keep_plugin_{name}"));
        assert_eq!(exported, wanted, "{line:?}");
    }
}

/// Tests ask a debug build for faults. No process of a customer's may be asked for them.
#[test]
fn a_release_has_no_faults_on_request() {
    let has = |line| {
        let plugin = helper::plugin(line)?;
        let octets = fs::read(&plugin).expect("just built");
        Some(memchr::memmem::find(&octets, b"UIDL_KEEP_FAULT").is_some())
    };
    // `make test-plugins` builds 2.4's as a release is built, and this machine's as this test is.
    assert_ne!(has(Line::V24), Some(true));
    let is_built_here = Subject::of(Line::V23).build_dir().is_none();
    if is_built_here && std::env::var_os("UIDL_KEEP_PLUGIN").is_none() {
        assert_ne!(has(Line::V23), Some(!cfg!(debug_assertions)));
    }
}
