//! What Dovecot tells its POP3 clients, by its own configuration: this machine's, or a copy's.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use uidl_keep::format::UidlFormat;
use uidl_keep::text::printable;

use crate::output::{Trouble, remark};

/// How to find out what Dovecot's clients were told.
const ASK: &str = "doveconf -f protocol=pop3 -h pop3_uidl_format";

/// The `pop3_uidl_format` that is given, or that is asked for with "auto".
pub fn format(given: Option<&str>, is_copy: bool) -> Result<UidlFormat, Trouble> {
    match given {
        None => Err(Trouble::new(format!(
            "no --format: give what \"{ASK}\" prints on the old server, or --format auto if this is the \
             old server"
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
    UidlFormat::parse(text).map_err(|error| {
        Trouble::at(format!("pop3_uidl_format {}", printable(text.as_bytes())), error)
    })
}

/// Asks doveconf: for this machine's, or for what it makes of the copy of an `/etc/dovecot`.
pub fn ask(copy: Option<&Path>) -> Result<UidlFormat, Trouble> {
    if let Some(dir) = copy {
        stay_inside(dir)?;
    }
    // These two change UIDLs in ways that state files do not tell.
    if ask_doveconf(copy, "pop3_reuse_xuidl")? == "yes" {
        return Err(Trouble::new(
            "pop3_reuse_xuidl is on: unique-ids come from X-UIDL headers, which is not known from \
             disk; capture over POP3",
        ));
    }
    if ask_doveconf(copy, "pop3_uidl_duplicates")? == "rename" {
        remark(
            "pop3_uidl_duplicates is \"rename\": where a listing says that messages share a unique-id, \
             capture over POP3",
        );
    }
    parse(&ask_doveconf(copy, "pop3_uidl_format")?)
}

/// What doveconf says of `setting` in POP3.
fn ask_doveconf(copy: Option<&Path>, setting: &str) -> Result<String, Trouble> {
    let mut command = Command::new("doveconf");
    if let Some(dir) = copy {
        command.arg("-c").arg(dir.join("dovecot.conf"));
    }
    let asked = command.args(["-f", "protocol=pop3", "-h", setting]).output();
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

/// Makes sure that nothing in the copy of a configuration leads doveconf to this machine's own.
fn stay_inside(dir: &Path) -> Result<(), Trouble> {
    let next = format!("give --format what \"{ASK}\" prints on the old server");
    let at =
        |path: &Path, error: io::Error| Trouble::at(path.display(), format!("{error}; {next}"));
    let mut directories = vec![dir.to_owned()];
    while let Some(dir) = directories.pop() {
        for entry in fs::read_dir(&dir).map_err(|error| at(&dir, error))? {
            let path = entry.map_err(|error| at(&dir, error))?.path();
            let kind = path.symlink_metadata().map_err(|error| at(&path, error))?.file_type();
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_symlink() {
                let what = format!("a link in a copy may lead to this machine; {next}");
                return Err(Trouble::at(path.display(), what));
            } else if kind.is_file() {
                let text = fs::read(&path).map_err(|error| at(&path, error))?;
                if leads_out(&text) {
                    let what = format!("includes a file by its whole path; {next}");
                    return Err(Trouble::at(path.display(), what));
                }
            }
        }
    }
    Ok(())
}

/// Whether a configuration file includes another by a path that is not below its own directory.
fn leads_out(conf: &[u8]) -> bool {
    String::from_utf8_lossy(conf).lines().any(|line| {
        let included = line.trim_start().strip_prefix("!include");
        let path = included.and_then(|rest| rest.split_ascii_whitespace().last());
        path.is_some_and(|path| path.starts_with('/') || path.contains(".."))
    })
}
