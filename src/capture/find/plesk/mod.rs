//! Which server answers POP3 on a Plesk machine.
//!
//! Plesk has either Courier or Dovecot, and an admin can put one in the place of the other at any
//! time. The state files of the one before stay in the Maildirs, so these cannot tell. The service
//! that runs tells, or, where none runs, the one that is started with the machine, or the one that
//! is installed. The strongest rank that says anything decides, and only if all of it says the
//! same.
//!
//! [`machine`] looks at the system, [`files`] reads what it finds there, and [`evidence`] decides.
#![forbid(unsafe_code)]

pub mod evidence;
pub mod files;
pub mod machine;
pub mod short_names;
