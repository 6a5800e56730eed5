//! What clients may hold only grows, and no new mail can have what an entry is claimed on: each history
//! in which a mail was hidden once, on a real Dovecot.
//!
//! The rules that the tests name are those of `docs/design.md`.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod copies;
mod guard;
mod names;
mod older;
mod order;
mod travelled;

use support::story;
