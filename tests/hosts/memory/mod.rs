//! The UIDLs that clients may hold only grow, and no new mail can have what an entry is claimed on:
//! each history in which a mail was hidden once, on a real Dovecot.
//!
//! The rules that the tests name are those of `docs/design.md`.

mod aliases;
mod client;
mod copies;
mod counted;
mod equal;
mod front_ends;
mod guard;
mod later;
mod names;
mod new_mail;
mod older;
mod order;
mod travelled;
mod unrecorded;
mod warm;

use crate::support::scenario;
