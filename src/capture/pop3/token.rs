//! Access tokens in the place of passwords: who gives them, [`Tokens`], and one who does,
//! [`TokenCommand`].
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::capture::pop3::secret::Secret;
use crate::text::printable;

/// Gives access tokens for the accounts of servers that take no passwords (RFC 6750, RFC 7628).
pub trait Tokens: fmt::Debug + Send + Sync {
    /// A token for a login name; another one than `refused`, where the server takes that no more.
    ///
    /// # Errors
    ///
    /// A sentence for people, with nothing secret in it.
    fn token(&self, login: &str, refused: Option<&Secret>) -> Result<Secret, String>;
}

/// A command that prints a token, as mail programs have one: the token is the first line. It is run
/// once for each login name, and again when a token is refused, for tokens expire.
pub struct TokenCommand {
    words: Vec<String>,
    patience: Duration,
    /// The last token of each login name.
    known: Mutex<HashMap<String, Secret>>,
}

/// The longest token, in octets.
const MAX_TOKEN_OCTETS: usize = 64 << 10;

impl TokenCommand {
    /// The command of these words, separated by blanks; no shell reads it. `{user}` in a word
    /// stands for the login name, which is the last argument where no word has it. The command is
    /// ended after `patience`. `None` when there is no word.
    pub fn named(words: &str, patience: Duration) -> Option<Self> {
        let mut words: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return None;
        }
        if !words[1..].iter().any(|word| word.contains(USER)) {
            words.push(USER.to_owned());
        }
        Some(Self { words, patience, known: Mutex::new(HashMap::new()) })
    }

    fn run(&self, login: &str) -> Result<Secret, String> {
        let name = printable(self.words[0].as_bytes());
        let failed = |error: io::Error| format!("{name}: {error}");
        let arguments = self.words[1..].iter().map(|word| word.replace(USER, login));
        let mut command = Command::new(&self.words[0]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = TokenChild(command.spawn().map_err(failed)?);
        let out = running.0.stdout.take().expect("it is piped");
        let (done, printed) = mpsc::channel();
        thread::spawn(move || done.send(read_some(out)));
        let octets = match printed.recv_timeout(self.patience) {
            Ok(printed) => printed.map_err(failed)?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let patience = humantime::format_duration(self.patience);
                return Err(format!("{name} prints no token within {patience}"));
            }
        };
        let status = running.0.wait().map_err(failed)?;
        if !status.success() {
            return Err(format!("{name}: {status}; what it says is above"));
        }
        let line = octets.split(|&octet| octet == b'\n').next().unwrap_or_default().trim_ascii();
        // RFC 6750 section 2.1: a token has neither blanks nor control characters.
        if line.is_empty() || !line.iter().all(u8::is_ascii_graphic) {
            return Err(format!("{name} prints no token as its first line"));
        }
        Ok(Secret::new(line))
    }
}

/// Stands for the login name.
const USER: &str = "{user}";

impl Tokens for TokenCommand {
    fn token(&self, login: &str, refused: Option<&Secret>) -> Result<Secret, String> {
        let known = self.known.lock().get(login).cloned();
        if let Some(known) = known {
            if refused.is_none_or(|refused| refused.octets() != known.octets()) {
                return Ok(known);
            }
        }
        let token = self.run(login)?;
        self.known.lock().insert(login.to_owned(), token.clone());
        Ok(token)
    }
}

impl fmt::Debug for TokenCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenCommand({:?})", self.words)
    }
}

/// Reads all that is printed into one buffer, which is overwritten when dropped.
fn read_some(mut out: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut octets = Zeroizing::new(vec![0; MAX_TOKEN_OCTETS]);
    let mut len = 0;
    loop {
        match out.read(&mut octets[len..]) {
            Ok(0) if len == MAX_TOKEN_OCTETS => {
                return Err(io::Error::other("it prints more than any token has"));
            }
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    octets.truncate(len);
    Ok(octets)
}

/// A child that does not outlive us.
struct TokenChild(Child);

impl Drop for TokenChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &str) -> TokenCommand {
        TokenCommand::named(words, Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_command_is_told_the_user_and_run_again_only_for_what_was_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("token");
        // Each run adds a line, and prints how many there are.
        let text = format!("echo \"$@\" >> {0}.log\necho T$(wc -l < {0}.log)\n", script.display());
        std::fs::write(&script, text).unwrap();
        let command = command(&format!("/bin/sh {} for", script.display()));
        let token = |login: &str, refused: Option<&str>| {
            let refused = refused.map(Secret::new);
            let token = command.token(login, refused.as_ref()).unwrap();
            String::from_utf8(token.octets().to_vec()).unwrap()
        };
        assert_eq!(token("alice b", None), "T1");
        assert_eq!(token("alice b", None), "T1");
        assert_eq!(token("bob", None), "T2");
        assert_eq!(token("alice b", Some("T1")), "T3");
        assert_eq!(token("alice b", Some("T1")), "T3", "another session had it refused, too");
        let log = std::fs::read_to_string(format!("{}.log", script.display())).unwrap();
        assert_eq!(log, "for alice b\nfor bob\nfor alice b\n");
        assert_eq!(format!("{:?}", command.known.lock().get("bob")), "Some(Secret)");
    }

    #[test]
    fn what_is_no_token_is_said_and_not_what_it_is() {
        let said = |words: &str| command(words).token("al", None).unwrap_err();
        assert_eq!(said("/bin/false"), "/bin/false: exit status: 1; what it says is above");
        assert!(said("/nonexistent/x").starts_with("/nonexistent/x: "));
        assert_eq!(said("/bin/echo secret token"), "/bin/echo prints no token as its first line");
        assert_eq!(said("/bin/true"), "/bin/true prints no token as its first line");
        assert_eq!(said("/usr/bin/yes"), "/usr/bin/yes: it prints more than any token has");
        let slow = TokenCommand::named("/bin/sleep", Duration::from_millis(20)).unwrap();
        assert!(slow.token("600", None).unwrap_err().contains("no token within 20ms"));
        assert!(TokenCommand::named(" ", Duration::ZERO).is_none());
    }
}
