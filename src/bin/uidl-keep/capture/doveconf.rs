//! The argument `--format` of Dovecot's captures.

use std::path::Path;

use uidl_keep::capture::find::doveconf::{self, ASK};
use uidl_keep::format::UidlFormat;

use crate::output::{Trouble, remark};

/// The `pop3_uidl_format` that is given, or that is asked for with "auto".
pub fn format(given: Option<&str>, is_copy: bool) -> Result<UidlFormat, Trouble> {
    match given {
        None => Err(Trouble::new(format!(
            "no --format: give what \"{ASK}\" prints on the old server, or --format auto if this \
             is the old server"
        ))),
        Some("auto") if is_copy => Err(Trouble::new(format!(
            "--format auto asks the Dovecot of this machine, and --root is a copy of another: give \
             what \"{ASK}\" prints on the old server"
        ))),
        Some("auto") => ask(None),
        Some(text) => parse(text),
    }
}

/// A `pop3_uidl_format` as an admin or Dovecot spells it.
pub fn parse(text: &str) -> Result<UidlFormat, Trouble> {
    doveconf::parse(text).map_err(|error| Trouble::new(error.to_string()))
}

/// Asks doveconf: for this machine's, or for what it makes of the copy of an `/etc/dovecot`.
pub fn ask(copy: Option<&Path>) -> Result<UidlFormat, Trouble> {
    doveconf::ask(copy, &mut |sentence| remark(sentence))
        .map_err(|error| Trouble::new(error.to_string()))
}
