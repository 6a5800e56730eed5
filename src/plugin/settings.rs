//! What a process is told from outside: where the site is, and which rehearsal it is run for. All
//! else is said by files of the site.

use std::ffi::CStr;
use std::path::Path;
use std::sync::OnceLock;

use super::host::User;
use crate::site::{Root, Site};

/// The root directory before any chroot. The site is looked up from there for each user whom the
/// process serves: it may have been replaced.
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

/// The site. This looks at nothing yet.
pub fn site() -> Site {
    match ROOT.get() {
        Some(root) => Site::below(root, Site::DEFAULT_DIR),
        None => Site::new(Site::DEFAULT_DIR),
    }
}

/// The settings that Dovecot's configuration or user database had for earlier versions. In its
/// configuration Dovecot 2.4 itself refuses them by now.
const NO_LONGER_READ: [&CStr; 4] =
    [c"uidl_keep_dir", c"uidl_keep_match", c"uidl_keep_bake", c"uidl_keep_order"];

/// Insists that nobody relies on a setting that is not read any more. It must be called for every
/// user, migrated or not: the rosters may lie where such a setting says.
///
/// # Errors
///
/// What stands in its place.
pub fn check_nothing_is_overlooked(user: User) -> Result<(), String> {
    // Userdb fields cannot say otherwise than by an empty value that it is not set.
    let value = |name| user.plugin_setting(name).filter(|value| !value.is_empty());
    let Some((name, value)) = NO_LONGER_READ.iter().find_map(|&name| Some((name, value(name)?)))
    else {
        return Ok(());
    };
    let name = name.to_string_lossy();
    let place = Site::DEFAULT_DIR;
    let instead = match name.strip_prefix("uidl_keep_").filter(|word| *word != "dir") {
        Some(word) => format!("its place is {place}/settings, as `{word} ...`: say it there"),
        None => format!("the site is {place} now: make that a link to it"),
    };
    Err(format!(
        "Dovecot sets {name} = {value:?} in plugin {{}} or in the user database, and that is not \
         read any more; {instead}, take {name} out and reload Dovecot"
    ))
}
