//! The plugin's settings: the same names on Dovecot 2.3 and 2.4; and which rehearsal this is.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::host::User;
use crate::resolve::Match;
use crate::site::{Root, Site};

/// The root directory before any chroot. We must take hold of it before any setting is known, and
/// each user whom the process serves may have another site, or one that was replaced.
static ROOT: OnceLock<Root> = OnceLock::new();

/// Takes hold of the root directory, before privileges are dropped and users are chrooted.
pub fn hold_root() {
    // Where it cannot be opened, a chrooted user finds no site, and is refused.
    if let Ok(root) = Root::hold(Path::new("/")) {
        // A second call says nothing new.
        let _ = ROOT.set(root);
    }
}

/// The variable in which `uidl-keep rehearse` hands its stamp to the POP3 program that it runs.
pub const REHEARSAL: &str = "UIDL_KEEP_REHEARSAL";

/// The stamp of the rehearsal that this process is run for.
static REHEARSED_AT: OnceLock<u64> = OnceLock::new();

/// Notes the stamp of the rehearsal that this process is run for, if root says that it is. It must
/// be called before privileges are dropped: afterwards nothing tells who has set a variable.
pub fn note_rehearsal() {
    let stamp = std::env::var(REHEARSAL).ok().and_then(|stamp| stamp.parse().ok());
    if let Some(stamp) = stamp.filter(|_| rustix::process::geteuid().is_root()) {
        // A second call says nothing new.
        let _ = REHEARSED_AT.set(stamp);
    }
}

/// The stamp of the rehearsal that this process is run for; `None`: it serves a client.
pub fn rehearsal() -> Option<u64> {
    REHEARSED_AT.get().copied()
}

/// Opens the site in `uidl_keep_dir`. It is the first setting that is read, for every user.
///
/// # Errors
///
/// What Dovecot says where its settings cannot be read.
pub fn site(user: User) -> Result<Site, String> {
    let dir = text(user, c"uidl_keep_dir")?;
    let dir = PathBuf::from(dir.unwrap_or_else(|| Site::DEFAULT_DIR.to_owned()));
    Ok(match ROOT.get().filter(|root| root.is_left()) {
        Some(root) => Site::below(root, dir),
        None => Site::new(dir),
    })
}

/// The settings that matter once a user is on the roster.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// `uidl_keep_match`: the keys that may match.
    pub keys: Match,
    /// `uidl_keep_bake`: whether a first listing is also written where Dovecot keeps such things.
    pub bake: bool,
    /// `uidl_keep_order`: whether the old order is kept.
    pub order: bool,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// Which setting has a value that it cannot have.
    pub fn read(user: User) -> Result<Self, String> {
        Ok(Self {
            keys: text(user, c"uidl_keep_match")?
                .map_or(Ok(Match::default()), |words| keys(&words))?,
            bake: yes(user, c"uidl_keep_bake")?,
            order: yes(user, c"uidl_keep_order")?,
        })
    }
}

/// Takes an empty setting for one that is not set: userdb fields cannot say it otherwise.
fn text(user: User, name: &CStr) -> Result<Option<String>, String> {
    Ok(user.setting(name)?.filter(|value| !value.is_empty()))
}

fn keys(words: &str) -> Result<Match, String> {
    let mut keys = Match { file: false, message: false, header: false, origin: false };
    for word in words.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        match word {
            "file" => keys.file = true,
            "message" => keys.message = true,
            "header" => keys.header = true,
            "origin" => keys.origin = true,
            _ => {
                return Err(format!(
                    "uidl_keep_match has {word:?}: it takes file, message, header and origin"
                ));
            }
        }
    }
    Ok(keys)
}

fn yes(user: User, name: &CStr) -> Result<bool, String> {
    match text(user, name)?.as_deref() {
        None | Some("yes" | "y" | "true" | "1") => Ok(true),
        Some("no" | "n" | "false" | "0") => Ok(false),
        Some(other) => Err(format!("{} is {other:?}: it takes yes or no", name.to_string_lossy())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn match_takes_the_four_keys_and_no_other_word() {
        let all = Match { file: true, message: true, header: true, origin: true };
        assert_eq!(keys("origin, header message\tfile"), Ok(all));
        assert_eq!(keys("file message header"), Ok(Match::default()));
        assert!(keys("file uid").unwrap_err().contains("\"uid\""));
    }
}
