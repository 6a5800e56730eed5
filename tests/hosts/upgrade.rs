//! An upgrade of Dovecot beneath what was installed: IMAP, delivery and doveadm go on, and POP3 of
//! the migrated is refused or right.
//!
//! The plugins are of the Dovecots that all tests have, 2.3.19 and 2.4.1; the servers are newer. So
//! these tests need trees that `make deps` does not make.

use std::fs;

use crate::hold_auth::example;
use crate::support::dovecot::Config;
use crate::support::host::{Host, Line};
use crate::support::loaded::{Loaded, STRANGER};
use crate::support::scenario::USER;

/// The newer Dovecots, each with the ABI of the plugin before.
const NEWER: [(&str, &str); 2] = [("dovecot2321", "2.3.ABIv19"), ("dovecot245", "2.4.ABIv1")];

fn start(tree: &str, guarded: bool) -> Option<Loaded> {
    let host = Host::dovecot_of(tree)?;
    let first = if guarded { example(host.line()) } else { String::new() };
    Loaded::start(&host, Config { first, extra: Loaded::lmtp(&host), ..Config::default() })
}

#[test]
#[ignore = "needs the trees of `make test-platforms`"]
fn the_plugin_of_before_refuses_pop3_and_nothing_else() {
    for (tree, before) in NEWER {
        let Some(loaded) = start(tree, false).and_then(Loaded::with_plugin) else { continue };
        assert_ne!(loaded.abi(), before, "{tree}");
        loaded.all_else_goes_on(tree);
        loaded.refuses(USER, tree);
        loaded.refuses(STRANGER, tree);
        loaded.log_since(0, 2, &["different ABI version"]);
        // Nor does one that is gone end more than POP3.
        fs::remove_file(loaded.module()).unwrap();
        loaded.all_else_goes_on(tree);
        loaded.refuses(USER, tree);
        loaded.refuses(STRANGER, tree);
        assert!(!loaded.server.ledger().exists(), "nobody was told anything");
    }
}

#[test]
#[ignore = "needs the trees of `make test-platforms`"]
fn the_loader_refuses_pop3_until_the_guard_lets_strangers_in() {
    for (tree, before) in NEWER {
        let Some(loaded) = start(tree, true) else { continue };
        let Some(loaded) = loaded.with_loader().with_plugin_at_hand() else { continue };
        assert!(loaded.at_hand(before).exists(), "{tree}");
        loaded.all_else_goes_on(tree);
        loaded.refuses(USER, tree);
        loaded.refuses(STRANGER, tree);
        let said = loaded.helper(&["plugin", "status"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        assert!(text.contains(&loaded.abi()) && text.contains(before), "{text}");
        let guard = loaded.helper(&["plugin", "guard"]);
        assert!(guard.status.success(), "{guard:?}");
        loaded.serves_the_stranger(tree);
        loaded.refuses(USER, tree);
        loaded.all_else_goes_on(tree);
        assert!(!loaded.server.ledger().exists(), "nobody was told anything");
        // The old one in the place of the new one is known by its version.
        let newer = loaded.at_hand(&loaded.abi());
        crate::support::loaded::put(&loaded.at_hand(before), &newer);
        fs::remove_file(loaded.site().join("auth/stop-pop3")).unwrap();
        loaded.auth_has_seen_it();
        loaded.refuses(USER, tree);
        loaded.log_since(0, 1, &["Error: uidl-keep: ", &format!("is for Dovecot {before}")]);
    }
}

#[test]
#[ignore = "needs the trees of `make test-platforms`"]
fn without_a_site_pop3_alone_is_refused() {
    for (tree, _) in NEWER {
        let Some(loaded) = start(tree, false).map(Loaded::with_loader) else { continue };
        for part in ["domain", "user"] {
            fs::rename(loaded.site().join(part), loaded.site().join("away")).unwrap();
            loaded.all_else_goes_on(tree);
            loaded.refuses(USER, tree);
            loaded.refuses(STRANGER, tree);
            fs::rename(loaded.site().join("away"), loaded.site().join(part)).unwrap();
        }
    }
}

/// What the examples of today say to a Dovecot of before, where the loader is not installed.
#[test]
#[ignore = "needs the trees of `make test-platforms`"]
fn todays_configuration_under_a_dovecot_of_before_refuses_pop3_alone() {
    for (tree, line) in [("dovecot2321", Line::V23), ("dovecot24", Line::V24)] {
        let Some(loaded) = start(tree, true) else { continue };
        assert_eq!(Host::dovecot_of(tree).map(|host| host.line()), Some(line));
        loaded.all_else_goes_on(tree);
        loaded.refuses(USER, tree);
        loaded.refuses(STRANGER, tree);
        loaded.log_since(0, 2, &["not found"]);
    }
}
