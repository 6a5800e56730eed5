//! The tests that need a server; each says why it skips if there is none: Dovecot with and without
//! the plugin, the servers that are left behind, made-up ones, and real clients.
//!
//! Nothing here changes what a process has once (environment, directory, umask, limits, signals): a
//! test that wants another gives it to the program that it starts.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
#[path = "../shared/mod.rs"]
mod shared;
mod support;

mod ansible;
mod apart;
mod bake;
mod capture_dbox;
mod capture_mbox;
mod capture_mbox_odd;
mod capture_packed;
mod capture_plesk;
mod capture_pop3;
mod capture_pop3_faults;
mod capture_pop3_fleet;
mod capture_pop3_tokens;
mod chroot;
mod cluster;
mod concurrent;
mod copiers;
mod cost;
mod doctor;
mod dovecot;
mod dsync;
mod exports;
mod failing_closed;
mod failing_midway;
mod failing_open;
mod forecast;
mod forecast_odd;
mod forged;
mod fuzz_corpus;
mod gates_dovecot;
mod hold_auth;
mod install;
mod killed_login;
mod loader;
mod look;
mod map_denied;
mod memory;
mod metrics;
mod old_servers;
mod old_servers_moved;
mod prove;
mod rehearse;
mod report;
mod rules;
mod runbook;
mod settings;
mod site;
mod status;
mod stragglers;
mod themselves;
mod twin;
mod upgrade;
mod upgrade_in_place;
mod valgrind;
mod verify;
mod way_back;
