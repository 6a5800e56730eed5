//! Whether Dovecot's auth refuses at POP3 whom a file of ours names: [`Unguarded`].
//!
//! The file guards nobody unless the first passdb that POP3 asks is made of it: one that stands
//! before it takes the password and lets the user in.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::{Dovecot, DovecotError, no_answer, output_of};

/// The reason why auth does not refuse at POP3 whom the file names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unguarded {
    /// Another passdb is asked before, or there is none.
    #[error(
        "the first passdb of `doveconf -f protocol=pop3 passdb` is {first}, and should be a \
         passwd-file of {}: put it before every other passdb, as docs/dovecot.md shows, and reload \
         Dovecot",
        file.display()
    )]
    NotFirst {
        /// What the first is.
        first: String,
        /// The file that it should be made of.
        file: PathBuf,
    },
    /// It is made of the file, and this setting makes an exception.
    #[error(
        "the first passdb has {setting} = {value}, so that it does not refuse everybody whom its \
         file names: take that out, and reload Dovecot"
    )]
    Exception {
        /// The setting.
        setting: String,
        /// Its value.
        value: String,
    },
    /// Some logins have no password that a passdb could be asked about.
    #[error(
        "auth_mechanisms has {mechanism}, and only logins by plain and login are known to be \
         refused by the file: take it out while the guard is on"
    )]
    Mechanism {
        /// The mechanism.
        mechanism: String,
    },
    /// Auth was asked about a user whom the file names, and did not refuse him.
    #[error(
        "`doveadm auth test -x service=pop3 {user}` does not say nologin and reason=[SYS/TEMP], \
         but: {said}; reload Dovecot, and look whether auth may read the file, and whether \
         auth_username_format makes names small"
    )]
    NotRefused {
        /// The user.
        user: String,
        /// What doveadm said.
        said: String,
    },
    /// The auth that runs may have read another configuration than the one that was looked at.
    #[error(
        "{} was changed after Dovecot's auth was started, which may go by what it said before: \
         reload Dovecot",
        file.display()
    )]
    Older {
        /// The file.
        file: PathBuf,
    },
    /// The process that answered before is not the one that answered after.
    #[error("Dovecot's auth was started anew while it was asked: run this again")]
    Restarted,
}

/// Settings of a passdb that let somebody past it, each with the value that lets nobody.
const EXCEPTIONS: [(&str, &str); 9] = [
    ("deny", "no"),
    ("pass", "no"),
    ("skip", "never"),
    ("mechanisms", ""),
    ("mechanisms_filter", ""),
    ("username_filter", ""),
    ("result_success", "return-ok"),
    ("override_fields", ""),
    ("passwd_file_username_format", ""),
];

impl Dovecot {
    /// The fault, when the configuration does not let auth refuse at POP3 everybody whom a
    /// passwd-file names. `file` is named `stop-pop3`; the configuration may say `stop-%s` and the
    /// like.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn fault_of_guard(&self, file: &Path) -> Result<Option<Unguarded>, DovecotError> {
        let said = self.doveconf(&["-f", "protocol=pop3", "passdb"])?;
        let mechanisms = self.doveconf(&["-f", "protocol=pop3", "auth_mechanisms"])?;
        Ok(fault_in(&said, file).or_else(|| fault_of_mechanisms(&mechanisms)))
    }

    /// The fault, when the running auth does not refuse one of these users at POP3, whom the file
    /// names. Cost: a run of `doveadm` for each.
    ///
    /// # Errors
    ///
    /// [`DovecotError`], for example when Dovecot does not run.
    pub fn fault_of_refusal(&self, users: &[&str]) -> Result<Option<Unguarded>, DovecotError> {
        for user in users {
            let mut command = Command::new(&self.doveadm);
            command.args(&self.args).args([
                "auth",
                "test",
                "-x",
                "service=pop3",
                "--",
                user,
                "any",
            ]);
            let output = output_of(&mut command, self.patience)?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let fields: Vec<&str> = said.split_whitespace().collect();
            // 2.4.1 gives it an empty value, and 2.4.5 that of the file.
            let refusals = ["nologin", "nologin=", "nologin=y"];
            let is_refused = fields.iter().any(|field| refusals.contains(field));
            if !is_refused || !fields.contains(&"reason=[SYS/TEMP]") {
                let said = match fields[..] {
                    [] => return Err(no_answer(&command, &output)),
                    _ => fields.join(" ").chars().take(300).collect(),
                };
                return Ok(Some(Unguarded::NotRefused { user: (*user).to_owned(), said }));
            }
        }
        Ok(None)
    }

    /// The socket at which auth answers clients.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn auth_socket(&self) -> Result<PathBuf, DovecotError> {
        let setting = "base_dir";
        let dir = self.setting(&[setting], setting)?.filter(|dir| !dir.is_empty());
        Ok(PathBuf::from(dir.as_deref().unwrap_or("/run/dovecot")).join("auth-client"))
    }
}

/// How long auth may be silent when it greets a client.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than auth says to greet a client.
const MOST_OCTETS: u64 = 1 << 16;

/// The process of auth that answers at a socket, by a [name](name_of_process) that no other process
/// has. A reload of Dovecot starts another, which may read another configuration.
///
/// # Errors
///
/// [`DovecotError`], for example when Dovecot does not run.
pub fn auth_process(socket: &Path) -> Result<String, DovecotError> {
    let at = |error| DovecotError::Program { program: socket.to_owned(), error };
    let mut stream = UnixStream::connect(socket).map_err(at)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(at)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(at)?;
    let greeting = format!("VERSION\t1\t1\nCPID\t{}\n", std::process::id());
    stream.write_all(greeting.as_bytes()).map_err(at)?;
    for line in BufReader::new(stream.take(MOST_OCTETS)).lines() {
        let line = line.map_err(at)?;
        if let Some(pid) = line.strip_prefix("SPID\t").and_then(|pid| pid.parse().ok()) {
            return name_of_process(pid).map_err(at);
        }
    }
    Err(at(io::Error::other("auth does not say which process it is")))
}

/// A name that no other process has, also after another boot: its number, when it was started
/// (field 22 of its `stat`, proc(5)), and the boot. The loader makes the same
/// (`dovecot-plugin/loader.c`).
///
/// # Errors
///
/// The system's, when no such process can be seen.
pub fn name_of_process(pid: u32) -> io::Result<String> {
    let path = format!("/proc/{pid}/stat");
    let named = |path: &str| {
        let name = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        fs::read(path).map_err(name).map(|octets| String::from_utf8_lossy(&octets).into_owned())
    };
    let (stat, boot) = (named(&path)?, named("/proc/sys/kernel/random/boot_id")?);
    // The name of the program stands in parentheses, and may have blanks.
    let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(20));
    let started = started.ok_or_else(|| io::Error::other(format!("{path}: too short")))?;
    Ok(format!("{pid}:{started}:{}", boot.trim_end()))
}

/// When that process was started, by its [name](name_of_process) of this boot: to some hundredths
/// of a second.
///
/// # Errors
///
/// It is no such name, or the system does not say how long it is up.
pub fn start_of_process(name: &str) -> io::Result<SystemTime> {
    /// How many of the units of proc(5) are a second, on every Linux.
    const PER_SECOND: f64 = 100.0;
    let odd = || io::Error::other(format!("{name}: no process of this boot"));
    let started: f64 = name.split(':').nth(1).and_then(|it| it.parse().ok()).ok_or_else(odd)?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let up: f64 = uptime.split(' ').next().and_then(|it| it.parse().ok()).ok_or_else(odd)?;
    let age = Duration::try_from_secs_f64((up - started / PER_SECOND).max(0.0));
    SystemTime::now().checked_sub(age.map_err(|_| odd())?).ok_or_else(odd)
}

/// Whether no client of this Dovecot is between its login and its mail process, for certain: no
/// login process holds a connection, be it to auth or to a mail process. False where none of the
/// sockets can be seen. `socket` is that of [`Dovecot::auth_socket`].
pub fn nobody_is_logging_in(socket: &Path) -> bool {
    let Some(dir) = socket.parent() else { return false };
    fs::read_to_string("/proc/net/unix").is_ok_and(|sockets| is_quiet(&sockets, &dir.join("login")))
}

/// The same, of `/proc/net/unix` and the directory of the sockets of login processes. One that is
/// listened at has the flag 10000, and each connection to it is another line.
fn is_quiet(sockets: &str, dir: &Path) -> bool {
    let (mut listening, mut connected) = (0, 0);
    for line in sockets.lines() {
        let mut words = line.split_ascii_whitespace();
        let (flags, path) = (words.nth(3), words.nth(3));
        if path.is_some_and(|path| Path::new(path).starts_with(dir)) {
            match flags {
                Some("00010000") => listening += 1,
                _ => connected += 1,
            }
        }
    }
    listening > 0 && connected == 0
}

/// A passdb, as `doveconf` prints it.
struct Passdb {
    /// Its name, on 2.4, and what is said there in place of a driver.
    name: String,
    settings: Vec<(String, String)>,
}

impl Passdb {
    fn value(&self, name: &str) -> &str {
        let mut values = self.settings.iter().filter(|(its, _)| its == name);
        values.next_back().map_or("", |(_, value)| value.as_str())
    }

    fn driver(&self) -> &str {
        Some(self.value("driver")).filter(|driver| !driver.is_empty()).unwrap_or(&self.name)
    }
}

/// The first passdb that is asked about a user himself.
fn first_passdb(said: &str) -> Option<Passdb> {
    let mut passdb: Option<Passdb> = None;
    let mut depth = 0_usize;
    for line in said.lines().map(str::trim) {
        let opened = line.strip_suffix('{').map(str::trim);
        match (depth, opened, &mut passdb) {
            (0, Some(name), _) => {
                depth = 1;
                let name = name.strip_prefix("passdb")?.trim().to_owned();
                passdb = Some(Passdb { name, settings: Vec::new() });
            }
            (1, None, Some(open)) if line == "}" => {
                depth = 0;
                if open.value("master") != "yes" {
                    return passdb;
                }
            }
            (_, Some(name), Some(open)) => {
                depth += 1;
                open.settings.push((name.to_owned(), "{ ... }".to_owned()));
            }
            (_, None, Some(_)) if line == "}" => depth = depth.saturating_sub(1),
            (1, None, Some(open)) => {
                if let Some((name, value)) = line.split_once('=') {
                    open.settings.push((name.trim().to_owned(), value.trim().to_owned()));
                }
            }
            _ => {}
        }
    }
    None
}

/// The names that lead auth to `stop-pop3` when it is asked for POP3.
const SPELLED: [&str; 5] =
    ["stop-pop3", "stop-%s", "stop-%Ls", "stop-%{service}", "stop-%{protocol}"];

/// Whether two names are of one directory, also where a link leads to it.
fn is_same(one: Option<&Path>, other: Option<&Path>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let real = |path: &Path| path.canonicalize().ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

fn fault_in(said: &str, file: &Path) -> Option<Unguarded> {
    let file = file.to_owned();
    let Some(passdb) = first_passdb(said) else {
        return Some(Unguarded::NotFirst { first: "none".to_owned(), file });
    };
    let is_ours = |path: &str| {
        let path = Path::new(path);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        SPELLED.contains(&name) && is_same(path.parent(), file.parent())
    };
    let made_of = [passdb.value("args"), passdb.value("passwd_file_path")];
    if passdb.driver() != "passwd-file" || !made_of.into_iter().any(is_ours) {
        let made_of = made_of.concat();
        let made_of = if passdb.driver() == "passwd-file" { made_of } else { String::new() };
        let first = format!("{} {made_of}", passdb.driver()).trim().to_owned();
        return Some(Unguarded::NotFirst { first, file });
    }
    EXCEPTIONS.into_iter().find_map(|(setting, harmless)| {
        let value = passdb.value(setting);
        let is_exception = !value.is_empty() && value != harmless;
        is_exception.then(|| Unguarded::Exception { setting: setting.into(), value: value.into() })
    })
}

fn fault_of_mechanisms(said: &str) -> Option<Unguarded> {
    let (_, value) = said.split_once('=')?;
    let mut names = value.split([' ', '\t', '\n', ',']).filter(|word| !word.is_empty());
    let other = names.find(|name| !["plain", "login"].contains(&name.to_lowercase().as_str()))?;
    Some(Unguarded::Mechanism { mechanism: other.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/var/lib/uidl-keep/auth/stop-pop3";

    fn fault(said: &str) -> Option<String> {
        fault_in(said, Path::new(FILE)).map(|fault| fault.to_string())
    }

    const OURS_23: &str = "passdb {\n  args = /var/lib/uidl-keep/auth/stop-%s\n  deny = no\n  \
        driver = passwd-file\n  master = no\n  mechanisms = \n  skip = never\n}\n";
    const OURS_24: &str = "passdb uidl_keep {\n  driver = passwd-file\n  passwd_file_path = \
        /var/lib/uidl-keep/auth/stop-%{protocol}\n}\n";
    const OTHER: &str = "passdb sql {\n  driver = sql\n  fields {\n    nologin = yes\n  }\n}\n";

    #[test]
    fn only_the_first_passdb_guards() {
        for ours in [OURS_23, OURS_24] {
            assert_eq!(fault(&[ours, OTHER].concat()), None, "{ours}");
            let behind = fault(&[OTHER, ours].concat()).unwrap();
            assert!(behind.contains("is sql, and should be") && behind.contains(FILE), "{behind}");
            // Masters log in as somebody else, and are asked about elsewhere.
            let master = "passdb {\n  driver = ldap\n  master = yes\n}\n";
            assert_eq!(fault(&[master, ours].concat()), None, "{ours}");
            for other in ["/etc/stop-pop3", "/var/lib/uidl-keep/auth/stop-imap"] {
                let moved = ours.replace("/var/lib/uidl-keep/auth/stop-%s", other);
                let moved = moved.replace("/var/lib/uidl-keep/auth/stop-%{protocol}", other);
                assert!(fault(&moved).unwrap().contains(&format!("passwd-file {other}")));
            }
        }
        assert!(fault("").unwrap().contains("is none"), "no passdb");
        // 2.4 prints no driver where the name says it.
        let named =
            OURS_24.replace("uidl_keep", "passwd-file").replace("  driver = passwd-file\n", "");
        assert_eq!(fault(&named), None);
        let other =
            fault("passdb static {\n  password = # hidden, use -P to show it\n}\n").unwrap();
        assert!(other.contains("is static, and should be"), "{other}");
    }

    #[test]
    fn what_lets_somebody_past_it_is_named() {
        for (line, named) in [
            ("deny = yes", "deny = yes"),
            ("pass = yes", "pass = yes"),
            ("skip = authenticated", "skip = authenticated"),
            ("mechanisms = cram-md5", "mechanisms = cram-md5"),
            ("username_filter = *@example.net", "username_filter = *@example.net"),
            ("result_success = continue", "result_success = continue"),
            ("override_fields = nologin=", "override_fields = nologin="),
            ("mechanisms_filter {\n    plain = yes\n  }", "mechanisms_filter = { ... }"),
        ] {
            let said = OURS_24.replace("  driver", &format!("  {line}\n  driver"));
            let said = fault(&said).unwrap_or_else(|| panic!("{line}"));
            assert!(said.contains(named), "{said}");
        }
    }

    #[test]
    fn a_client_that_logs_in_is_seen_at_the_sockets_of_login_processes() {
        let line = |flags: &str, path: &str| {
            format!("ffff8a1c: 00000002 00000000 {flags} 0001 01 31415 {path}\n")
        };
        let listened = line("00010000", "/run/dovecot/login/login");
        let dir = Path::new("/run/dovecot/login");
        assert!(is_quiet(&listened, dir));
        assert!(!is_quiet("", dir), "nothing can be seen");
        let other = line("00000000", "/run/dovecot/auth-master") + &line("00000000", "");
        assert!(is_quiet(&[listened.as_str(), &other].concat(), dir));
        for path in ["/run/dovecot/login/login", "/run/dovecot/login/pop3"] {
            let connected = line("00000000", path);
            assert!(!is_quiet(&[listened.as_str(), &connected].concat(), dir), "{path}");
        }
    }

    #[test]
    fn a_process_has_the_same_name_as_long_as_it_lives() {
        let own = name_of_process(std::process::id()).unwrap();
        assert_eq!(own, name_of_process(std::process::id()).unwrap());
        let words: Vec<&str> = own.split(':').collect();
        assert_eq!((words.len(), words[2].len()), (3, 36), "{own}");
        let started: u64 = words[1].parse().unwrap();
        let parent = name_of_process(std::os::unix::process::parent_id()).unwrap();
        let of_parent: u64 = parent.split(':').nth(1).unwrap().parse().unwrap();
        assert!(of_parent <= started && of_parent > 0, "{parent} {own}");
        assert!(name_of_process(u32::MAX).is_err());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let start = start_of_process(&name_of_process(child.id()).unwrap()).unwrap();
        let age = SystemTime::now().duration_since(start).unwrap_or_default();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(age < Duration::from_secs(5), "{age:?}");
        assert!(start_of_process(&own).unwrap() < start);
        assert!(start_of_process("1").is_err());
    }

    #[test]
    fn only_mechanisms_with_a_password_are_known_to_be_refused() {
        let fault = |said: &str| fault_of_mechanisms(said).map(|fault| fault.to_string());
        assert_eq!(fault("auth_mechanisms = plain login\n"), None);
        assert_eq!(fault("auth_mechanisms = PLAIN\n"), None);
        let other = fault("auth_mechanisms = plain cram-md5\n").unwrap();
        assert!(other.contains("has cram-md5"), "{other}");
    }
}
