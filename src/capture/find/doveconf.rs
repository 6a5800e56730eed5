//! How Dovecot makes UIDLs, by its own configuration: this machine's, or a copy's.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::format::{BadFormat, UidlFormat};
use crate::text::printable;

/// The command that says what Dovecot's clients were told.
pub const ASK: &str = "doveconf -f protocol=pop3 -h pop3_uidl_format";

/// Why nobody knows what Dovecot's clients were told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoveconfError {
    /// A `pop3_uidl_format` is none.
    #[error("pop3_uidl_format {format}: {error}")]
    Format {
        /// The format, printable.
        format: String,
        /// What is wrong with it.
        error: BadFormat,
    },
    /// UIDLs come from a header.
    #[error(
        "pop3_reuse_xuidl is on: unique-ids come from X-UIDL headers, which is not known from \
         disk; capture over POP3"
    )]
    ReusesHeader,
    /// doveconf could not be run.
    #[error("doveconf: {0}; give --format what \"{ASK}\" prints on the old server")]
    NotRun(io::Error),
    /// doveconf failed.
    #[error("doveconf: {0}; give --format what \"{ASK}\" prints on the old server")]
    Failed(String),
    /// A file of the copy cannot be read.
    #[error(
        "{}: {error}; give --format what \"{ASK}\" prints on the old server", .place.display()
    )]
    Io {
        /// Where it lies.
        place: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Something in the copy leads out of it.
    #[error("{}: {what}; give --format what \"{ASK}\" prints on the old server", .place.display())]
    LeadsOut {
        /// Where it lies.
        place: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

/// Parses a `pop3_uidl_format` as an admin or Dovecot spells it.
///
/// # Errors
///
/// [`DoveconfError::Format`].
pub fn parse(text: &str) -> Result<UidlFormat, DoveconfError> {
    UidlFormat::parse(text)
        .map_err(|error| DoveconfError::Format { format: printable(text.as_bytes()), error })
}

/// Asks doveconf for the `pop3_uidl_format` of this machine, or of the copy of an `/etc/dovecot`.
/// `tell` hears a sentence that somebody should read.
///
/// # Errors
///
/// [`DoveconfError`].
pub fn ask(copy: Option<&Path>, tell: &mut dyn FnMut(&str)) -> Result<UidlFormat, DoveconfError> {
    if let Some(dir) = copy {
        stay_inside(dir)?;
    }
    // These two settings change UIDLs in ways that state files do not tell.
    if ask_doveconf(copy, "pop3_reuse_xuidl")? == "yes" {
        return Err(DoveconfError::ReusesHeader);
    }
    if ask_doveconf(copy, "pop3_uidl_duplicates")? == "rename" {
        tell(
            "pop3_uidl_duplicates is \"rename\": where a listing says that messages share a \
             unique-id, capture over POP3",
        );
    }
    parse(&ask_doveconf(copy, "pop3_uidl_format")?)
}

/// Asks doveconf for the value of `setting` in POP3.
fn ask_doveconf(copy: Option<&Path>, setting: &str) -> Result<String, DoveconfError> {
    let mut command = Command::new("doveconf");
    if let Some(dir) = copy {
        command.arg("-c").arg(dir.join("dovecot.conf"));
    }
    let asked = command.args(["-f", "protocol=pop3", "-h", setting]).output();
    match asked {
        Ok(said) if said.status.success() => {
            Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
        }
        Ok(said) => Err(DoveconfError::Failed(printable(said.stderr.trim_ascii()))),
        Err(error) => Err(DoveconfError::NotRun(error)),
    }
}

/// Makes sure that nothing in the copy of a configuration leads doveconf to this machine's own.
fn stay_inside(dir: &Path) -> Result<(), DoveconfError> {
    let at = |path: &Path, error| DoveconfError::Io { place: path.to_owned(), error };
    let out = |path: &Path, what| DoveconfError::LeadsOut { place: path.to_owned(), what };
    let mut directories = vec![dir.to_owned()];
    while let Some(dir) = directories.pop() {
        for entry in fs::read_dir(&dir).map_err(|error| at(&dir, error))? {
            let path = entry.map_err(|error| at(&dir, error))?.path();
            let kind = path.symlink_metadata().map_err(|error| at(&path, error))?.file_type();
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_symlink() {
                return Err(out(&path, "a link in a copy may lead to this machine"));
            } else if kind.is_file() {
                let text = fs::read(&path).map_err(|error| at(&path, error))?;
                if leads_out(&text) {
                    return Err(out(&path, "includes a file by its whole path"));
                }
            }
        }
    }
    Ok(())
}

/// Whether a configuration file includes another by a path that is not below its own directory.
pub fn leads_out(conf: &[u8]) -> bool {
    String::from_utf8_lossy(conf).lines().any(|line| {
        let included = line.trim_start().strip_prefix("!include");
        let path = included.and_then(|rest| rest.split_ascii_whitespace().last());
        path.is_some_and(|path| path.starts_with('/') || path.contains(".."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_include_that_leads_out_is_told_from_one_that_stays() {
        for conf in
            ["!include /etc/x", " \t!include_try /x", "!include ../x", "a\n!include a/../../x"]
        {
            assert!(leads_out(conf.as_bytes()), "{conf}");
        }
        for conf in ["!include conf.d/*.conf", "#!include /etc/x", "path = /etc/x", "!include", ""]
        {
            assert!(!leads_out(conf.as_bytes()), "{conf}");
        }
        assert!(leads_out(b"\xff\n!include \xff/../x"));
    }

    #[test]
    fn nothing_in_a_copy_leads_doveconf_out_of_it() {
        let copy = tempfile::tempdir().unwrap();
        let dir = copy.path();
        fs::create_dir(dir.join("conf.d")).unwrap();
        fs::write(dir.join("conf.d/10-mail.conf"), "mail_location = maildir:~/Maildir\n").unwrap();
        assert!(stay_inside(dir).is_ok());
        fs::write(dir.join("conf.d/x.conf"), "!include /etc/passwd\n").unwrap();
        let error = stay_inside(dir).unwrap_err().to_string();
        assert!(
            error.contains("x.conf: includes a file by its whole path; give --format"),
            "{error}"
        );
        fs::remove_file(dir.join("conf.d/x.conf")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("conf.d/link")).unwrap();
        let error = stay_inside(dir).unwrap_err().to_string();
        assert!(error.contains("link: a link in a copy may lead to this machine; give"), "{error}");
    }

    #[test]
    fn a_format_that_is_none_is_named() {
        assert!(parse("%v.%u").is_ok());
        let error = parse("%q\n").unwrap_err().to_string();
        assert!(error.starts_with("pop3_uidl_format %q"), "{error}");
        assert!(!error.contains('\n'));
    }
}
