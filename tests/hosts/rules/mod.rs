//! The rules of `resolve`, on a real Dovecot, each beside the fault that appears without it.
//!
//! A test begins with that fault if a Dovecot without the plugin, or a site that was built
//! otherwise, shows it by itself.

mod again;
mod back;
mod moved;
mod order;
mod recognised;
mod spent;
mod stays;
mod unwritten;

use crate::support::scenario;
