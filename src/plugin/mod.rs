//! The Dovecot side: the only place that knows Dovecot.
//!
//! Dovecot calls [`hooks`]; each callback is a few lines over [`session`], which answers from a
//! [`answer_table`]. That is made from the ledger, or by the rules of [`resolve`](crate::resolve)
//! with what a [`survey`] can find out about the mails.

mod answer_table;
mod bake;
mod events;
#[cfg(debug_assertions)]
mod fault;
mod hooks;
mod host;
mod memory;
mod panic;
mod session;
mod settings;
mod standing;
mod survey;

/// Dovecot's own types and functions, made from its headers by `build.rs`.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    dead_code,
    unsafe_op_in_unsafe_fn,
    unknown_lints,
    unnecessary_transmutes,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod dovecot {
    include!(concat!(env!("OUT_DIR"), "/dovecot.rs"));
}
