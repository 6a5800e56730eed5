//! The tests that need no server: captures of files, the helper's commands, the site, and the
//! documentation.
//!
//! Nothing here changes what a process has once (environment, directory, umask, limits, signals): a
//! test that wants another gives it to the program that it starts.

#[path = "../shared/mod.rs"]
mod shared;
mod support;

mod as_account;
mod bake;
mod capture;
mod capture_cost;
mod capture_courier;
mod capture_cyrus;
mod capture_doc;
mod capture_dovecot;
mod capture_layouts;
mod capture_night;
mod capture_pop3_accounts;
mod capture_qmail;
mod cli;
mod copy_late;
mod crash;
mod delta;
mod design_doc;
mod doctor;
mod documents;
mod exit_status;
mod explain;
mod fits;
mod forecast;
mod forecast_doveadm;
mod gates;
mod guard;
mod hold_auth;
mod loader;
mod manners;
mod performance_doc;
mod planted;
mod platforms;
mod rehearse;
mod report;
mod retire;
mod settings;
mod site;
mod status;
mod two_captures;
mod verify;
mod way_back;
