//! What Dovecot's configuration says of itself: [`Dovecot::about`], and single questions.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::{
    Dovecot, DovecotError, NO_USER, PLUGIN, USERS_AT_A_TIME, no_answer, output_of, plugins_in,
};

/// A Dovecot, and the file that configures it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AboutDovecot {
    /// Its version: `2.3.19.1`, `2.4.1-4`.
    pub version: String,
    /// The file that configures it, which may include others.
    pub conf: PathBuf,
    /// What Dovecot has against the configuration: with that it does not start.
    pub fault: Option<String>,
    /// All settings that differ from the defaults, as `doveconf -n` prints them.
    pub changed: String,
}

/// How `mail_plugins` is set for POP3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pop3Plugins {
    /// POP3 loads the plugin.
    Loaded,
    /// It does not. `mail_plugins` says this.
    Without(String),
    /// `mail_plugins` is the content of a file, `<FILE`, and what stands behind that name was taken
    /// for a part of it: there is no such file.
    Swallowed {
        /// What `mail_plugins` says.
        said: String,
        /// The plugins that all protocols load, and ours.
        names: Vec<String>,
    },
}

/// What `doveconf` prints of Dovecot 2.3 for a service that has no limit of its own.
const DEFAULT_LIMIT: u64 = u64::MAX;

impl Dovecot {
    /// Its version, and the file that configures it. Cost: one run of `doveconf`.
    ///
    /// # Errors
    ///
    /// [`DovecotError`]: there is no `doveconf`, or it does not say these.
    pub fn about(&self) -> Result<AboutDovecot, DovecotError> {
        let mut command = Command::new(self.doveadm.with_file_name("doveconf"));
        command.args(self.configuration()).arg("-n");
        let output = output_of(&mut command, self.patience)?;
        let said = String::from_utf8_lossy(&output.stdout);
        // "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf"
        let first = said.lines().next().and_then(|line| line.strip_prefix("# "));
        let named = first.and_then(|line| {
            let (version, conf) = line.split_once(": ")?;
            Some((version.split_whitespace().next()?.to_owned(), PathBuf::from(conf.trim())))
        });
        let (version, conf) = named.ok_or_else(|| no_answer(&command, &output))?;
        let fault = (!output.status.success()).then(|| complaint(&output.stderr));
        Ok(AboutDovecot { version, conf, fault, changed: said.into_owned() })
    }

    /// Whether POP3 loads the plugin.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn pop3_loads(&self) -> Result<Pop3Plugins, DovecotError> {
        let question = ["-f", "protocol=pop3", "mail_plugins"];
        let said = self.doveconf(&question)?;
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        // Only 2.3 has the content of a file for a value.
        let Some(file) = words.strip_prefix("mail_plugins = <") else {
            let is_loaded = plugins_in(&said).contains(&PLUGIN);
            return Ok(if is_loaded { Pop3Plugins::Loaded } else { Pop3Plugins::Without(words) });
        };
        match self.doveconf(&["-x", question[0], question[1], question[2]]) {
            // The file may end with the line, so that there are more.
            Ok(content) if content.split_whitespace().any(|name| name == PLUGIN) => {
                Ok(Pop3Plugins::Loaded)
            }
            Ok(_) => Ok(Pop3Plugins::Without(words)),
            Err(_) if file.split_whitespace().nth(1).is_some() => {
                let global = self.doveconf(&["-x", question[2]])?;
                let names = global.split_whitespace().skip_while(|word| *word != "=").skip(1);
                let names = names.chain([PLUGIN]).map(str::to_owned).collect();
                Ok(Pop3Plugins::Swallowed { said: words, names })
            }
            Err(error) => Err(error),
        }
    }

    /// The protocols beside POP3 that load the plugin, too: `imap`, `lmtp`, `lda`, `doveadm`.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn others_that_load(&self) -> Result<Vec<&'static str>, DovecotError> {
        let mut loading = Vec::new();
        for protocol in ["imap", "lmtp", "lda", "doveadm"] {
            if self.plugins_of(protocol, &[])?.iter().any(|name| name == PLUGIN) {
                loading.push(protocol);
            }
        }
        Ok(loading)
    }

    /// How many octets of address space a process of POP3 may have. `None`: as many as there are.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn pop3_address_space(&self) -> Result<Option<u64>, DovecotError> {
        let of_pop3 = self.setting(&["service/pop3/vsz_limit"], "vsz_limit")?;
        let of_pop3 = of_pop3.as_deref().and_then(octets_of).filter(|most| *most != DEFAULT_LIMIT);
        let most = match of_pop3 {
            Some(most) => Some(most),
            None => {
                let name = "default_vsz_limit";
                self.setting(&[name], name)?.as_deref().and_then(octets_of)
            }
        };
        Ok(most.filter(|most| *most != 0 && *most != u64::MAX))
    }

    /// A setting that POP3 has, or another of this Dovecot's; `None`: it knows none of that name.
    ///
    /// # Errors
    ///
    /// [`DovecotError`].
    pub fn setting_of_pop3(&self, name: &str) -> Result<Option<String>, DovecotError> {
        self.setting(&["-f", "protocol=pop3", name], name)
    }

    /// The fields that the user database gives a user, by their names; `uid`, `gid` and `home` are
    /// among them. `None`: Dovecot does not know him. Cost: one run of `doveadm`.
    ///
    /// # Errors
    ///
    /// [`DovecotError`], for example when Dovecot's authentication does not run.
    pub fn fields_of(&self, user: &str) -> Result<Option<Vec<(String, String)>>, DovecotError> {
        let Some(said) = self.said_of_users(&["--", user])? else { return Ok(None) };
        let fields = said.lines().filter_map(|line| {
            let (name, value) = line.split_once('\t')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        });
        Ok(Some(fields.collect()))
    }

    /// The uid and gid of each of these users, by number or by name, as the user database gives
    /// them. A user who is missing in the answer is one that Dovecot does not know. Cost: two runs
    /// of `doveadm` for 200 users, and one more for each of them where somebody is unknown.
    ///
    /// # Errors
    ///
    /// [`DovecotError`], for example when Dovecot's authentication does not run.
    pub fn accounts_of(
        &self,
        users: &[String],
    ) -> Result<BTreeMap<String, (String, String)>, DovecotError> {
        let mut accounts = BTreeMap::new();
        for users in users.chunks(USERS_AT_A_TIME) {
            let (uids, gids) = (self.field_of(users, "uid")?, self.field_of(users, "gid")?);
            if let (Some(uids), Some(gids)) = (uids, gids) {
                accounts.extend(users.iter().cloned().zip(uids.into_iter().zip(gids)));
                continue;
            }
            for user in users {
                let fields = self.fields_of(user)?.unwrap_or_default();
                let value = |name: &str| {
                    let field = fields.iter().find(|(field, _)| field == name);
                    field.map(|(_, value)| value.clone())
                };
                if let Some(account) = value("uid").zip(value("gid")) {
                    accounts.insert(user.clone(), account);
                }
            }
        }
        Ok(accounts)
    }

    /// What `doveadm user` says. `None`: Dovecot does not know one of them.
    fn said_of_users(&self, args: &[&str]) -> Result<Option<String>, DovecotError> {
        let mut command = Command::new(&self.doveadm);
        command.args(&self.args).arg("user").args(args);
        let output = output_of(&mut command, self.patience)?;
        match output.status.code() {
            Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
            Some(NO_USER) => Ok(None),
            _ => Err(no_answer(&command, &output)),
        }
    }

    /// One field of each of these users, in their order. `None`: of some there is none.
    fn field_of(&self, users: &[String], field: &str) -> Result<Option<Vec<String>>, DovecotError> {
        let args = ["-f", field, "--"].into_iter().chain(users.iter().map(String::as_str));
        let Some(said) = self.said_of_users(&args.collect::<Vec<_>>())? else { return Ok(None) };
        // An empty line stands between two of them, too.
        let values: Vec<String> =
            said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ok(Some(values).filter(|values| values.len() == users.len()))
    }

    /// All users that the user database can list, by a mask such as `*@example.com`. `None`: it
    /// lists none, or cannot list any, which Dovecot's log then says.
    ///
    /// # Errors
    ///
    /// [`DovecotError`], for example when Dovecot's authentication does not run.
    pub fn users(&self, mask: &str) -> Result<Option<Vec<String>>, DovecotError> {
        let mut command = Command::new(&self.doveadm);
        command.args(&self.args).args(["user", "--", mask]);
        let output = output_of(&mut command, self.patience)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let users: Vec<String> =
            said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let complaints = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(Some(users).filter(|users| !users.is_empty())),
            // Of users one by one the same database may tell all.
            false if complaints.contains("User listing returned failure") => Ok(None),
            false => Err(no_answer(&command, &output)),
        }
    }
}

/// The last fault that a program names.
fn complaint(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    let fatal = said.lines().rev().find(|line| line.contains("Fatal: "));
    let line = fatal.or_else(|| said.lines().rev().find(|line| !line.trim().is_empty()));
    let line = line.unwrap_or("it says nothing").trim();
    line.chars().map(|c| if c.is_control() { '?' } else { c }).take(400).collect()
}

/// A size as Dovecot writes it: `100 M`, `256M`, `18446744073709551615 B`.
fn octets_of(text: &str) -> Option<u64> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().chars().next().map(|unit| unit.to_ascii_lowercase()) {
        None | Some('b') => 0,
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        Some(_) => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_both_lines_of_dovecot_write_them() {
        assert_eq!(octets_of("100 M"), Some(100 << 20));
        assert_eq!(octets_of("256M"), Some(256 << 20));
        assert_eq!(octets_of("2 GB"), Some(2 << 30));
        assert_eq!(octets_of("18446744073709551615 B"), Some(u64::MAX));
        assert_eq!(octets_of("0"), Some(0));
        assert_eq!(octets_of("18446744073709551615 G"), None);
        assert_eq!(octets_of("unlimited"), None);
        assert_eq!(octets_of(""), None);
    }

    #[test]
    fn the_last_fault_is_told_and_nothing_that_acts_on_a_terminal() {
        let said = b"doveconf: Error: one\ndoveconf: Fatal: two\x1b[1m\nmore\n";
        assert_eq!(complaint(said), "doveconf: Fatal: two?[1m");
        assert_eq!(complaint(b"one\n\n"), "one");
        assert_eq!(complaint(b""), "it says nothing");
    }
}
