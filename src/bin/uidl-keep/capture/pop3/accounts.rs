//! Which accounts to capture: one, a list of logins, or a table with their passwords.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uidl_keep::capture::pop3::{self, Account, Credential, Secret, Security, Server, Trust};
use uidl_keep::text::printable;
use zeroize::Zeroizing;

use super::secrets::{self, PasswordFrom};
use crate::output::Trouble;

/// Whose maildrops to capture, and where.
#[derive(clap::Args, Default)]
#[command(group(clap::ArgGroup::new("whose").args(["user", "users", "accounts"]).required(true)))]
pub struct Who {
    /// The old server, by name or address. With --accounts, of lines that name none.
    #[arg(long)]
    host: Option<String>,
    /// Its port [default: 995 with TLS, 110 with --starttls and --clear].
    #[arg(long)]
    port: Option<u16>,
    /// One account: its login name at the old server.
    #[arg(long, value_name = "LOGIN", requires = "host")]
    user: Option<String>,
    /// The user name of that account on the new server [default: LOGIN].
    #[arg(long, value_name = "NAME", requires = "user")]
    new_user: Option<String>,
    /// Accounts that a master user opens: a file with a login name, and perhaps the user name on
    /// the new server, on each line. - is standard input.
    #[arg(long, value_name = "FILE", requires_all = ["host", "output"])]
    users: Option<PathBuf>,
    /// Accounts with a password each: a CSV file whose first line names its columns, of host, user,
    /// password and new_user. - is standard input. With --token-command there is no password in it.
    #[arg(long, value_name = "FILE", requires = "output", conflicts_with_all = ["login_template", "authorize"])]
    accounts: Option<PathBuf>,
    #[command(flatten)]
    password: PasswordFrom,
    /// Who logs in, by {user}, {local} and {domain} of the account: '{user}*master' of a master
    /// user on Dovecot [default: {user}].
    #[arg(long, value_name = "TEMPLATE")]
    login_template: Option<String>,
    /// Log in as the template says on behalf of each account: its login name is the authorization
    /// identity of SASL PLAIN.
    #[arg(long, requires = "login_template", conflicts_with = "token_command")]
    authorize: bool,
}

/// What is to be captured.
pub struct Accounts {
    /// The servers that they are on, each once.
    pub servers: Vec<Server>,
    /// All accounts, in the order of the list; no user twice.
    pub all: Vec<Account>,
    /// For each account, which server it is on.
    pub server_of: Vec<usize>,
    /// Whether the one account was given on the command line.
    pub is_single: bool,
    by_server: HashMap<Server, usize>,
}

/// How all servers are spoken to.
pub struct Manner {
    pub security: Security,
    pub trust: Trust,
    /// How long a command may take that prints a token.
    pub patience: Duration,
}

impl Who {
    /// The accounts of a table, those of lines without a host on this one.
    pub fn of_table(path: &Path, host: &str) -> Self {
        Self { host: Some(host.to_owned()), accounts: Some(path.to_owned()), ..Self::default() }
    }

    /// All that are asked for.
    pub fn accounts(&self, manner: &Manner) -> Result<Accounts, Trouble> {
        let mut accounts = Accounts {
            servers: Vec::new(),
            all: Vec::new(),
            server_of: Vec::new(),
            is_single: self.user.is_some(),
            by_server: HashMap::new(),
        };
        if let Some(path) = &self.accounts {
            if self.password.is_given() {
                return Err(Trouble::new(
                    "--accounts has a password for each account: leave the other one out, or say \
                     --users",
                ));
            }
            let tokens = self.password.tokens(manner.patience)?;
            self.read_table(path, manner, tokens.as_ref(), &mut accounts)?;
        } else {
            let host = self.host.as_deref().expect("required with --user and --users");
            let server = server(host, self.port, manner).map_err(|e| Trouble::at("--host", e))?;
            let credential = self.credential_and(manner, self.users.as_deref())?;
            let at = accounts.at_server(server);
            if let Some(user) = &self.user {
                let new = self.new_user.as_ref().unwrap_or(user);
                let account = self.account(user, new, credential);
                accounts.add(at, account.map_err(|e| Trouble::at("--user", e))?);
            } else if let Some(path) = &self.users {
                self.read_users(path, at, &credential, &mut accounts)?;
            }
        }
        Ok(accounts)
    }

    fn credential_and(&self, manner: &Manner, users: Option<&Path>) -> Result<Credential, Trouble> {
        if let Some(tokens) = self.password.tokens(manner.patience)? {
            return Ok(tokens);
        }
        if users == Some(Path::new("-")) && self.password.is_stdin() {
            return Err(Trouble::new(
                "--users - and --password-stdin: standard input is only one of the two",
            ));
        }
        self.password.read().map(Credential::Password)
    }

    /// The account of a login name, as the template has it.
    fn account(&self, login: &str, new: &str, credential: Credential) -> Result<Account, String> {
        if login.is_empty() || new.is_empty() {
            return Err("empty user name".into());
        }
        if login.chars().chain(new.chars()).any(char::is_control) {
            return Err("a control character in the user name".into());
        }
        let octets = match &credential {
            Credential::Password(password) => password.octets(),
            Credential::Token(_) => b"",
        };
        if octets.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
            return Err("a line end or NUL in the password, which POP3 cannot carry".into());
        }
        let template = self.login_template.as_deref().unwrap_or("{user}");
        let by_template =
            filled(template, login).map_err(|error| format!("--login-template: {error}"))?;
        if !self.authorize && by_template == template && template != login {
            return Err(format!(
                "--login-template {} is the same for all: put {{user}} in it, or say --authorize",
                printable(template.as_bytes())
            ));
        }
        Ok(Account {
            user: new.to_owned(),
            login: by_template,
            authorize: self.authorize.then(|| login.to_owned()),
            credential,
        })
    }

    /// Takes "login" or "login new" on each line.
    fn read_users(
        &self,
        path: &Path,
        server: usize,
        credential: &Credential,
        accounts: &mut Accounts,
    ) -> Result<(), Trouble> {
        let text = if path == Path::new("-") {
            secrets::read_stdin()?.to_vec()
        } else {
            fs::read(path).map_err(|error| Trouble::at(path.display(), error))?
        };
        let text = utf8(&text).map_err(|error| Trouble::at(path.display(), error))?;
        let mut seen = Seen::default();
        for (number, line) in lines(text.as_bytes()) {
            let at = |error: String| Trouble::at(format!("{}:{number}", path.display()), error);
            let line = std::str::from_utf8(line).expect("all of it is");
            let mut words = line.split_whitespace();
            let (login, new) = match (words.next(), words.next(), words.next()) {
                (Some(login), new, None) => (login, new.unwrap_or(login)),
                _ => {
                    let shown = printable(line.as_bytes());
                    return Err(at(format!("not a login name and perhaps a new one: {shown}")));
                }
            };
            let account = self.account(login, new, credential.clone()).map_err(at)?;
            seen.note(&account, number).map_err(at)?;
            accounts.add(server, account);
        }
        accounts.insist_on_some(path)
    }

    /// Takes a line of CSV an account, the first of which names the columns.
    ///
    /// RFC 4180, but for line ends within quotes: neither a password nor a name can have one in
    /// POP3, and so every error is of one line. What it says holds nothing of the line: it may be a
    /// password.
    fn read_table(
        &self,
        path: &Path,
        manner: &Manner,
        tokens: Option<&Credential>,
        accounts: &mut Accounts,
    ) -> Result<(), Trouble> {
        let text =
            if path == Path::new("-") { secrets::read_stdin()? } else { secrets::read_file(path)? };
        let place = |number: u64| format!("{}:{number}", path.display());
        let mut lines = lines(&text);
        let (number, first) = lines
            .next()
            .ok_or_else(|| Trouble::at(path.display(), "no line in it; the first names columns"))?;
        let columns = fields(first)
            .and_then(|header| Columns::of(&header, tokens.is_some()))
            .map_err(|error| Trouble::at(place(number), error))?;
        let mut seen = Seen::default();
        for (number, line) in lines {
            let at = |error: String| Trouble::at(place(number), error);
            let row = fields(line).map_err(at)?;
            if row.len() != columns.count {
                return Err(at(format!(
                    "{} fields, and the first line names {}; is there a comma in one that is not in \
                     quotes?",
                    row.len(),
                    columns.count
                )));
            }
            let name = |column: Option<usize>, what: &str| {
                let Some(column) = column else { return Ok("") };
                let text = std::str::from_utf8(row.get(column));
                text.map(str::trim).map_err(|_| at(format!("{what} is not UTF-8")))
            };
            let host = match (name(columns.host, "host")?, &self.host) {
                ("", None) => {
                    return Err(at("no host; name it in a column \"host\", or say --host".into()));
                }
                ("", Some(host)) => host,
                (host, _) => host,
            };
            let login = name(Some(columns.user), "user")?;
            let new = match name(columns.new_user, "new_user")? {
                "" => login,
                new => new,
            };
            let credential = match (columns.password.map(|column| row.get(column)), tokens) {
                (None, Some(tokens)) => tokens.clone(),
                (None | Some(b""), _) => return Err(at("no password".into())),
                (Some(password), _) => Secret::new(password).into(),
            };
            let server = accounts.at_server(server(host, self.port, manner).map_err(at)?);
            let account = self.account(login, new, credential).map_err(at)?;
            seen.note(&account, number).map_err(at)?;
            accounts.add(server, account);
        }
        accounts.insist_on_some(path)
    }
}

impl Accounts {
    /// A server, for people.
    pub fn name_of(&self, server: usize) -> String {
        let Server { host, port, .. } = &self.servers[server];
        printable(format!("{host}:{port}").as_bytes())
    }

    /// What the block of an account says of its source. By it a later run knows whether a block is
    /// of the account that it is asked for.
    pub fn source(&self, at: usize) -> String {
        pop3::source(&self.servers[self.server_of[at]], &self.all[at])
    }

    fn at_server(&mut self, server: Server) -> usize {
        let next = self.servers.len();
        let at = *self.by_server.entry(server.clone()).or_insert(next);
        if at == next {
            self.servers.push(server);
        }
        at
    }

    fn add(&mut self, server: usize, account: Account) {
        self.all.push(account);
        self.server_of.push(server);
    }

    fn insist_on_some(&self, path: &Path) -> Result<(), Trouble> {
        if self.all.is_empty() {
            return Err(Trouble::at(path.display(), "no account in it"));
        }
        Ok(())
    }
}

/// The lines at which new user names stand: a listing has one maildrop of each.
#[derive(Default)]
struct Seen(HashMap<String, u64>);

impl Seen {
    fn note(&mut self, account: &Account, line: u64) -> Result<(), String> {
        match self.0.insert(account.user.clone(), line) {
            None => Ok(()),
            Some(first) => Err(format!(
                "a second account for {} on the new server, the first is in line {first}: one maildrop \
                 is of one account",
                printable(account.user.as_bytes())
            )),
        }
    }
}

/// Where in a row the columns are.
struct Columns {
    host: Option<usize>,
    user: usize,
    /// There is one, unless tokens are taken in the place of passwords.
    password: Option<usize>,
    new_user: Option<usize>,
    count: usize,
}

impl Columns {
    fn of(header: &Row, has_tokens: bool) -> Result<Self, String> {
        // What is no header may be an account: its fields are not shown.
        let how = "the first line names the columns: host,user,password,new_user";
        let (mut host, mut user, mut password, mut new_user) = (None, None, None, None);
        for at in 0..header.len() {
            let column = match header.get(at).trim_ascii() {
                b"host" => &mut host,
                b"user" => &mut user,
                b"password" => &mut password,
                b"new_user" => &mut new_user,
                _ => return Err(format!("column {} is none that is known; {how}", at + 1)),
            };
            if column.replace(at).is_some() {
                return Err(format!("column {} is there twice; {how}", at + 1));
            }
        }
        match (user, password) {
            (_, Some(_)) if has_tokens => {
                Err("a column \"password\" beside --token-command: leave one of the two out".into())
            }
            (Some(user), _) if password.is_some() || has_tokens => {
                Ok(Self { host, user, password, new_user, count: header.len() })
            }
            _ => Err(format!("no column \"user\" or no column \"password\"; {how}")),
        }
    }
}

/// The fields of one line, overwritten when dropped.
struct Row {
    octets: Zeroizing<Vec<u8>>,
    ends: Vec<usize>,
}

impl Row {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.octets[start..self.ends[at]]
    }
}

/// Most fields that a line is looked at for.
const MAX_FIELDS: usize = 64;

/// Splits a line of CSV. By csv-core and not csv: that one keeps buffers of its own, with passwords
/// in them, and does not overwrite them.
fn fields(line: &[u8]) -> Result<Row, String> {
    if line.iter().filter(|octet| **octet == b'"').count() % 2 != 0 {
        return Err(
            "an odd number of quotes; a field with a quote in it is put in quotes, and the \
                    quote itself doubled"
                .into(),
        );
    }
    let mut row = Row { octets: Zeroizing::new(vec![0; line.len()]), ends: vec![0; MAX_FIELDS] };
    let mut reader = csv_core::Reader::new();
    let (mut taken, mut written, mut ended) = (0, 0, 0);
    loop {
        // At its end the reader is told so by being given nothing.
        let (result, read, wrote, ends) =
            reader.read_record(&line[taken..], &mut row.octets[written..], &mut row.ends[ended..]);
        (taken, written, ended) = (taken + read, written + wrote, ended + ends);
        match result {
            csv_core::ReadRecordResult::InputEmpty => {}
            csv_core::ReadRecordResult::Record => break,
            csv_core::ReadRecordResult::OutputFull | csv_core::ReadRecordResult::OutputEndsFull => {
                return Err(format!("more than {MAX_FIELDS} fields"));
            }
            csv_core::ReadRecordResult::End => break,
        }
    }
    row.ends.truncate(ended);
    Ok(row)
}

/// Lines with their numbers, from 1; without blank ones and those that begin with #, and without
/// the mark that some programs put before UTF-8.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    (1..)
        .zip(text.split(|octet| *octet == b'\n'))
        .map(|(number, line)| (number, line.strip_suffix(b"\r").unwrap_or(line)))
        .filter(|(_, line)| !line.trim_ascii().is_empty() && !line.starts_with(b"#"))
}

fn utf8(text: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(text).map_err(|_| "not UTF-8; Dovecot knows users by UTF-8 names")
}

/// Host and port of `host`, `host:port`, `[address]:port` or an address.
fn split_host(text: &str) -> Result<(&str, Option<u16>), String> {
    let shown = || printable(text.as_bytes());
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None if text.matches(':').count() == 1 => text.split_at(text.find(':').expect("one is")),
        None => (text, ""),
    };
    if host.is_empty() || host.chars().any(|char| char.is_control() || char.is_whitespace()) {
        return Err(format!("not a host: {}", shown()));
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some(digits) => match digits.parse() {
            Ok(port) if port != 0 => Ok((host, Some(port))),
            _ => Err(format!("not a port: {}", shown())),
        },
        None => Err(format!("not a host: {}", shown())),
    }
}

/// The server of a host, which may have its port behind it.
pub fn server(text: &str, port: Option<u16>, manner: &Manner) -> Result<Server, String> {
    let (host, own_port) = split_host(text)?;
    let usual = if manner.security == Security::Tls { 995 } else { 110 };
    Ok(Server {
        host: host.to_owned(),
        port: own_port.or(port).unwrap_or(usual),
        security: manner.security,
        trust: manner.trust.clone(),
    })
}

/// The template with the login name in it.
pub fn filled(template: &str, login: &str) -> Result<String, String> {
    let (local, domain) = login.rsplit_once('@').unwrap_or((login, ""));
    let mut text = String::with_capacity(template.len() + login.len());
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        text.push_str(before);
        let (name, behind) =
            behind.split_once('}').ok_or_else(|| "a { without its }".to_owned())?;
        text.push_str(match name {
            "user" => login,
            "local" => local,
            "domain" => domain,
            _ => {
                return Err(format!(
                    "no such variable: {{{}}}; there are {{user}}, {{local}} and \
                     {{domain}}",
                    printable(name.as_bytes())
                ));
            }
        });
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<String>, String> {
        let row = fields(line.as_bytes())?;
        let field = |at| String::from_utf8(row.get(at).to_vec()).unwrap();
        Ok((0..row.len()).map(field).collect())
    }

    #[test]
    fn a_line_of_csv_is_split_as_rfc_4180_says() {
        assert_eq!(split("a,b,c").unwrap(), ["a", "b", "c"]);
        assert_eq!(split("a,,").unwrap(), ["a", "", ""]);
        assert_eq!(split(r#"a,"b,c"" d",'e'"#).unwrap(), ["a", "b,c\" d", "'e'"]);
        assert_eq!(split(r#"a, b ,"""""#).unwrap(), ["a", " b ", "\""]);
        assert_eq!(split("\u{e4},#").unwrap(), ["\u{e4}", "#"]);
        for (odd, why) in [("a,\"b,c", "quotes"), (&",".repeat(MAX_FIELDS), "fields")] {
            assert!(split(odd).unwrap_err().contains(why), "{odd}");
        }
        assert_eq!(split(&",".repeat(MAX_FIELDS - 1)).unwrap().len(), MAX_FIELDS);
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does() {
        let text = b"\xef\xbb\xbf# accounts\r\n\r\nfirst\r\n  \n#no\nsecond\nthird#\n";
        let lines: Vec<_> = lines(text).collect();
        assert_eq!(lines, [(3, &b"first"[..]), (6, b"second"), (7, b"third#")]);
    }

    #[test]
    fn a_host_may_have_its_port_behind_it() {
        for (text, host, port) in [
            ("mail.example", "mail.example", None),
            ("mail.example:1995", "mail.example", Some(1995)),
            ("192.0.2.1:110", "192.0.2.1", Some(110)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:995", "2001:db8::1", Some(995)),
        ] {
            assert_eq!(split_host(text), Ok((host, port)), "{text}");
        }
        for bad in ["", ":110", "a:", "a:0", "a:65536", "a:pop3", "[::1]x", "a b", "a\x1b"] {
            assert!(split_host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_template_knows_the_login_name_and_its_parts() {
        let fill = |template| filled(template, "alice@example.com");
        assert_eq!(fill("{user}*master").unwrap(), "alice@example.com*master");
        assert_eq!(fill("{domain}/{local}").unwrap(), "example.com/alice");
        assert_eq!(filled("{local}+{domain}", "bob").unwrap(), "bob+");
        assert!(fill("{mailbox}").unwrap_err().contains("{mailbox}"));
        assert!(fill("{user").unwrap_err().contains("without its }"));
        // A name that looks like a template is not one.
        assert_eq!(filled("{user}", "{domain}").unwrap(), "{domain}");
    }
}
