//! The traits that all maildrops of a server have: [`DiskTraits`], which each server's module
//! fills.
#![forbid(unsafe_code)]

use crate::capture::find::source::Holds;

/// The traits that all maildrops of a server have. The server's `plan` says the rest.
#[derive(Debug, Clone, Copy)]
pub(in crate::capture) struct DiskTraits {
    /// The server's name, as on the command line.
    pub name: &'static str,
    /// The kind of place that its maildrops are.
    pub holds: Holds,
    /// The name of its state file, where it has one.
    pub state: Option<&'static str>,
    /// Whether every message in the state file has a file, unless somebody took that away: the
    /// server strikes a message off before it deletes the file.
    pub lists_only_what_is_there: bool,
    /// Whether the order of its listing is that of the messages' mtimes.
    pub orders_by_mtime: bool,
    /// Whether it may have our plugin, and a ledger beside its state file.
    pub has_our_plugin: bool,
    /// Where its POP3 program usually lies, where that program needs no password.
    pub programs: &'static [&'static str],
    /// The arguments of that program, with variables as in
    /// [`Program`](crate::capture::prove::program::Program).
    pub arguments: &'static [&'static str],
}

impl DiskTraits {
    /// A server that keeps a file a maildrop, and no state beside it.
    pub const fn of_mbox(name: &'static str) -> Self {
        Self {
            name,
            holds: Holds::File,
            state: None,
            lists_only_what_is_there: false,
            orders_by_mtime: false,
            has_our_plugin: false,
            programs: &[],
            arguments: &[],
        }
    }

    /// A server that keeps Maildirs; its state file is lines of text.
    pub const fn of_maildir(name: &'static str, state: Option<&'static str>) -> Self {
        Self { holds: Holds::Directory, state, ..Self::of_mbox(name) }
    }

    /// Whether the names of its message files mean something on another server.
    pub fn has_file_names(&self) -> bool {
        self.holds == Holds::Directory
    }
}
