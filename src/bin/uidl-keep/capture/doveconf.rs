//! What the Dovecot of this machine tells its POP3 clients.

use std::process::Command;

use uidl_keep::capture::printable;
use uidl_keep::format::UidlFormat;

use crate::output::{Trouble, remark};

/// How to find out what Dovecot's clients were told.
const ASK: &str = "doveconf -f protocol=pop3 -h pop3_uidl_format";

/// The `pop3_uidl_format` that is given, or that is asked for with "auto".
pub fn format(given: Option<&str>, is_copy: bool) -> Result<UidlFormat, Trouble> {
    let text = match given {
        None => {
            return Err(Trouble::new(format!(
                "no --format: give what \"{ASK}\" prints on the old server, or --format auto if this \
                 is the old server"
            )));
        }
        Some("auto") if is_copy => {
            return Err(Trouble::new(format!(
                "--format auto asks the Dovecot of this machine, and --root is a copy of another: \
                 give what \"{ASK}\" prints on the old server"
            )));
        }
        Some("auto") => {
            // These two change UIDLs in ways that state files do not tell.
            if ask_doveconf("pop3_reuse_xuidl")? == "yes" {
                return Err(Trouble::new(
                    "pop3_reuse_xuidl is on: unique-ids come from X-UIDL headers, which is not \
                     known from disk; capture over POP3",
                ));
            }
            if ask_doveconf("pop3_uidl_duplicates")? == "rename" {
                remark(
                    "pop3_uidl_duplicates is \"rename\": where a listing says that messages share a \
                     unique-id, capture over POP3",
                );
            }
            ask_doveconf("pop3_uidl_format")?
        }
        Some(text) => text.to_owned(),
    };
    UidlFormat::parse(&text).map_err(|error| {
        Trouble::at(format!("pop3_uidl_format {}", printable(text.as_bytes())), error)
    })
}

/// What the Dovecot of this machine has for `setting` in POP3.
fn ask_doveconf(setting: &str) -> Result<String, Trouble> {
    let asked = Command::new("doveconf").args(["-f", "protocol=pop3", "-h", setting]).output();
    let next = format!("give --format what \"{ASK}\" prints on the old server");
    match asked {
        Ok(said) if said.status.success() => {
            Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
        }
        Ok(said) => {
            let why = printable(said.stderr.trim_ascii());
            Err(Trouble::new(format!("doveconf: {why}; {next}")))
        }
        Err(error) => Err(Trouble::new(format!("doveconf: {error}; {next}"))),
    }
}
