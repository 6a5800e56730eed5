//! The rules of `resolve`, by example: which claims are made and which must not be, a few messages
//! each.
//!
//! The numbers are those of `docs/design.md`. The random histories in `histories.rs` look for what
//! no example thinks of.

mod contents;
mod guards;
mod listed;
mod memory;
mod names;
mod order;
mod rehearsed;
mod settled;
mod spent;
mod stored;
mod stragglers;

use crate::support::rules::{Mail, Server, captured, mail, uidl};
use uidl_keep::ledger::Provenance;
use uidl_keep::maildrop::Maildrop;
use uidl_keep::resolve::{Resolution, Undecidable};
use uidl_keep::uidl::Uidl;

/// So many messages, alike in nothing.
fn several(count: u8) -> Vec<Mail> {
    (0..count).map(|n| mail(&format!("m{n}"), n, n)).collect()
}

/// The capture of an old server that called them `U0`, `U1` and so on.
fn captured_all(mails: &[Mail]) -> Maildrop {
    let names: Vec<String> = (0..mails.len()).map(|n| format!("U{n}")).collect();
    captured(&names.iter().map(String::as_str).zip(mails).collect::<Vec<_>>())
}

/// The UIDL that Dovecot alone gives the message with this UID.
fn native(uid: u32) -> String {
    format!("{uid:08x}00000063")
}

/// Three old messages, of which only the first two are copied, by file and by content.
fn listed_once() -> (Server, [Mail; 3]) {
    let old = [mail("a", 1, 1), mail("b", 2, 2), mail("c", 3, 3)];
    let mut server = Server::new(captured(&[("U1", &old[0]), ("U2", &old[1]), ("U3", &old[2])]));
    server.copy(&old[0], true);
    server.copy(&old[1], false);
    assert_eq!(server.uidls(), ["U1", "U2"]);
    (server, old)
}

fn refused(server: &mut Server) -> Undecidable {
    server.try_to_list().map(|_| ()).unwrap_err()
}

/// The way in which the message with this UID came by its UIDL.
fn provenance(resolution: &Resolution, uid: u32) -> Provenance {
    resolution.ledger.records.iter().find(|record| record.uid == uid).unwrap().provenance
}

fn is_derived(text: &str) -> bool {
    text.starts_with('~')
}

/// A UIDL of ours, as a listing long ago derived it.
fn derived_uidl() -> Uidl {
    uidl(&format!("~{}~", "0123456789abcdef".repeat(2)))
}
