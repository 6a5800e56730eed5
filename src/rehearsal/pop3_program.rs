//! Dovecot's own `pop3`, run by root for a user: [`Pop3Program`].
//!
//! Run with `-u`, it asks the user database itself for uid, home and place of the mail, and loads
//! the plugins of `protocol pop3`. It refuses root on a socket, so it gets two pipes. Nothing of a
//! login comes before it: no password database, no post-login script, and no address of a client,
//! by which a `remote {}` block could go.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::account::{AccountIds, HELPER};
use crate::capture::child::{RunningProgram, complaint};
use crate::capture::pop3::{Fault, Pipes, Session, listing};
use crate::dovecot::{Dovecot, DovecotError, PLUGIN};

/// Plugins of Dovecot's that act on a login, and on nothing else. A session of ours is no login.
const LOGIN_PLUGINS: [&str; 1] = ["last_login"];
/// How long a program that gave no listing may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a maildrop could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotListed {
    /// The program could not be started.
    #[error("{}: {error}", program.display())]
    NotStarted {
        /// Its path.
        program: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It gave no listing.
    #[error("{}: {fault}{said}", program.display())]
    Fault {
        /// Its path.
        program: PathBuf,
        /// What went wrong.
        fault: Fault,
        /// Why, as it said on stderr, after a `; `, or nothing.
        said: String,
    },
}

/// Dovecot's `pop3`, with the arguments that all sessions have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pop3Program {
    program: PathBuf,
    args: Vec<String>,
}

impl Pop3Program {
    /// The environment variable by which the plugin knows that a session is a rehearsal. It
    /// believes it only in a process that root started.
    const REHEARSAL: &str = "UIDL_KEEP_REHEARSAL";

    /// The program of a Dovecot, which loads all plugins of POP3 but those `without`, and but those
    /// that act on logins.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn of(dovecot: &Dovecot, without: &[&str]) -> Result<Self, DovecotError> {
        let mut args = dovecot.configuration();
        let plugins = dovecot.pop3_plugins()?;
        let left: Vec<&str> = plugins
            .iter()
            .map(|name| &**name)
            .filter(|name| !without.contains(name) && !LOGIN_PLUGINS.contains(name))
            .collect();
        if without.contains(&PLUGIN) {
            // Dovecot's own UIDLs would be stored for good where ours belong.
            args.extend(["-o".to_owned(), "pop3_save_uidl=no".to_owned()]);
        }
        // Both release lines take this for the whole list. In 2.4 `mail_plugins/NAME=no` unloads
        // nothing that `protocol pop3` loads.
        if left.len() < plugins.len() {
            args.extend(["-o".to_owned(), format!("mail_plugins={}", left.join(" "))]);
        }
        Ok(Self { program: dovecot.pop3_program()?, args })
    }

    /// Asks for the UIDLs of a user, by message-number, in one session from its first answer to its
    /// QUIT. `rehearsal` is the note of the user's line in the roster, in seconds since 1970; 0
    /// where there is none, and the session is a login as any other. `patience` is how long an
    /// answer may take.
    ///
    /// # Errors
    ///
    /// [`NotListed`]. The program has ended in any case.
    pub fn uidls(
        &self,
        user: &str,
        rehearsal: u64,
        patience: Duration,
    ) -> Result<Vec<Box<[u8]>>, NotListed> {
        let not_started = |error| NotListed::NotStarted { program: self.program.clone(), error };
        let mut said = tempfile::tempfile().map_err(not_started)?;
        let mut command = self.command(user, rehearsal);
        command.stderr(said.try_clone().map_err(not_started)?);
        let mut child = command.spawn().map_err(not_started)?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let running = RunningProgram::new(child);
        let (to, from) = (to.expect("a pipe was asked for"), from.expect("a pipe was asked for"));
        let pipes = Pipes::new(from, to, patience).map_err(not_started)?;
        let listed = Session::join_logged_in(pipes, patience).and_then(|mut session| {
            let listed = listing(&mut session)?;
            session.quit();
            Ok(listed)
        });
        match &listed {
            Ok(_) => running.end(patience, true),
            Err(Fault::Stalled { .. }) => running.end(patience, false),
            // It may be about to say why.
            Err(_) => running.end(patience.min(LAST_WORDS), true),
        }
        let listed = listed.map_err(|fault| NotListed::Fault {
            program: self.program.clone(),
            fault,
            said: complaint(&mut said),
        })?;
        Ok(listed.into_iter().map(|message| message.uidl).collect())
    }

    /// How it is called for a user. A signal for our own process group does not reach it. Dovecot
    /// lets the user trace it once it is his, so it must not have a terminal of root's.
    fn command(&self, user: &str, rehearsal: u64) -> Command {
        let mut command = AccountIds::ours().start(Path::new(HELPER), Path::new("/"));
        command
            .arg(&self.program)
            .args(&self.args)
            .args(["-u", user])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env(Self::REHEARSAL, rehearsal.to_string())
            // Dovecot clears the rest away when it reads its configuration.
            .env("DOVECOT_PRESERVE_ENVS", Self::REHEARSAL)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }
}
