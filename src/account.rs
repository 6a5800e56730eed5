//! A child of root's that becomes an account: [`AccountIds::take`].
//!
//! Who has the uid of a process that an exec has started can trace it: he answers in its place, and
//! types at the terminal of whoever started it. So such a child is started as root, leaves our
//! session and with it the terminal, and gives root up by itself. Nobody but root can trace it
//! then, until it starts another program. Its owner can still stop it, or end it: whoever waits for
//! it needs patience that has an end.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use rustix::process::{
    DumpableBehavior, Gid, Uid, getegid, geteuid, set_dumpable_behavior, setsid,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The command of the helper that becomes an account and starts a program.
pub const START: &str = "start-as-account";

/// The running program, where that is the helper. It can be run also where no other account may go,
/// for example in /root.
pub const HELPER: &str = "/proc/self/exe";

/// The uid and gid of an account, written `UID:GID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountIds {
    /// Its uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
}

impl AccountIds {
    /// Those of this process.
    pub fn ours() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    /// Makes this process the account's, in a session of its own and with no other group.
    ///
    /// # Errors
    ///
    /// This process is neither root's nor the account's, leads a process group, or has several
    /// threads; or what the system says.
    pub fn take(self) -> io::Result<()> {
        let Self { uid, gid } = self;
        if uid == u32::MAX || gid == u32::MAX {
            return Err(io::Error::other(format!("{self} is no account")));
        }
        // Each thread has ids of its own.
        if fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other("it has several threads"));
        }
        setsid()?;
        if self == Self::ours() {
            return Ok(());
        }
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        // It is so already, unless fs.suid_dumpable says otherwise.
        Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
    }

    /// How the helper is called to start a program as this account, in a session of its own and in
    /// that directory. The program and its arguments come behind. The account can trace it, and has
    /// no terminal of ours then.
    pub fn start(self, helper: &Path, dir: &Path) -> Command {
        let mut command = Command::new(helper);
        command.args([START, "--account", &self.to_string(), "--directory"]).arg(dir).arg("--");
        command
    }
}

impl fmt::Display for AccountIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for AccountIds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ids = text
            .split_once(':')
            .and_then(|(uid, gid)| Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? }));
        ids.ok_or("not UID:GID")
    }
}
