//! What goes wrong in the middle of a login: files that change under it, memory that ends, a bug of ours.
//! The listing is right, or there is none; no process ends by a signal; the next login is served.

mod support;

use std::fs;

use support::dovecot::Config;
use support::host::unix_mode;
use support::migrated::{Server, USER, complaints_in};

/// A directory that all may read, and the configuration that lets a file in it ask for faults: of a
/// debug build alone.
#[cfg(debug_assertions)]
fn requests() -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), unix_mode(0o755)).unwrap();
    let file = dir.path().join("fault");
    let extra = format!("import_environment = TZ UIDL_KEEP_FAULT={}\n", file.display());
    (dir, Config { extra, ..Config::default() }.with_plugin())
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_or_exhausted_memory_drops_the_session_by_exit_and_after_one_line() {
    let (dir, config) = requests();
    let Some(mut server) = Server::start_with(3, config) else { return };
    let request = dir.path().join("fault");
    for (kind, words) in [
        ("panic", "Fatal: uidl-keep: bug: UIDL_KEEP_FAULT asks for it at src/plugin/fault.rs:"),
        ("memory", "Fatal: uidl-keep: out of memory: cannot have 9223372036854775807 octets more"),
    ] {
        for door in ["mail_user_created", "search_init", "uidl 1", "uidl 3"] {
            server.deliver();
            fs::write(&request, format!("{kind} {door}\n")).unwrap();
            let before = server.dovecot.log().len();
            let listing = server.dovecot.login(USER).and_then(|mut session| session.uidl());
            assert!(listing.is_err(), "{kind} {door}: {listing:?}");
            let log = server.log_of_sessions(before, 1);
            let complaints = complaints_in(&log);
            assert_eq!(complaints.len(), 1, "{kind} {door}:\n{log}");
            assert!(complaints[0].contains(words), "{kind} {door}: {complaints:?}");
            assert!(!log.contains("panicked at"), "{log}");
            fs::remove_file(&request).unwrap();
            server.serves(3, &format!("after {kind} {door}"));
        }
    }
    server.dovecot.pause();
    let log = server.dovecot.log();
    assert!(!log.contains("killed with signal") && !log.contains("Panic: "), "{log}");
    assert!(log.contains("returned error 83"), "as Dovecot's own processes say it: {log}");
}
