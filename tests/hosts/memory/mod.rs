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

use crate::support::dovecot::Store;
use crate::support::host::Line;
use crate::support::scenario;

/// Every store, and on 2.4 those that panels have.
const EVERY_STORE: [(Line, Store); 5] = [
    (Line::V23, Store::Maildir),
    (Line::V23, Store::Mdbox),
    (Line::V23, Store::Sdbox),
    (Line::V24, Store::Maildir),
    (Line::V24, Store::Mdbox),
];

/// Those whose messages have no names of their own.
const DBOXES: [(Line, Store); 3] =
    [(Line::V23, Store::Mdbox), (Line::V23, Store::Sdbox), (Line::V24, Store::Mdbox)];
