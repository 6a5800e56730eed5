//! The rules of `resolve`, on a real Dovecot, each beside what goes wrong without it.
//!
//! Where a Dovecot without the plugin, or a site that was built otherwise, shows the wrong by
//! itself, the test begins with that.

mod again;
mod back;
mod moved;
mod order;
mod recognised;
mod spent;
mod stays;
mod unwritten;

use crate::support::scenario;
