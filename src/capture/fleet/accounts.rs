//! Which accounts to capture: one, a list of logins, or a table with their passwords: [`Accounts`].
#![forbid(unsafe_code)]

use std::collections::HashMap;

use zeroize::Zeroizing;

use crate::capture::fleet::account_fault::{AccountFault, AccountsError, HostError};
use crate::capture::fleet::template::LoginTemplate;
use crate::capture::pop3::{self, Account, Credential, Secret, Security, Server, Trust};
use crate::text::printable;

/// What is to be captured.
#[derive(Debug, Default)]
pub struct Accounts {
    /// The servers that they are on, each once.
    pub servers: Vec<Server>,
    /// All accounts, in the order of the list; no user twice.
    pub all: Vec<Account>,
    /// For each account, which server it is on.
    pub server_of: Vec<usize>,
    by_server: HashMap<Server, usize>,
}

/// How all servers are spoken to.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// How the line is kept secret.
    pub security: Security,
    /// Whose certificate is taken.
    pub trust: Trust,
    /// The port of servers that name none; `None` is the usual one.
    pub port: Option<u16>,
}

impl Accounts {
    /// The one account of a login name, which is `new` on the new server.
    ///
    /// # Errors
    ///
    /// [`AccountFault`].
    pub fn one(
        server: Server,
        (login, new): (&str, &str),
        credential: Credential,
        template: &LoginTemplate,
    ) -> Result<Self, AccountFault> {
        let mut accounts = Self::default();
        let at = accounts.at_server(server);
        accounts.add(at, account(login, new, credential, template)?);
        Ok(accounts)
    }

    /// Accounts that a master user opens: "login" or "login new" on each line.
    ///
    /// # Errors
    ///
    /// [`AccountsError`].
    pub fn of_users(
        text: &[u8],
        server: Server,
        credential: &Credential,
        template: &LoginTemplate,
    ) -> Result<Self, AccountsError> {
        let mut accounts = Self::default();
        let server = accounts.at_server(server);
        let text = std::str::from_utf8(text).map_err(|_| of_all(AccountFault::NotUtf8))?;
        let mut seen = Seen::default();
        for (number, line) in lines(text.as_bytes()) {
            let at = |fault: AccountFault| in_line(number, fault);
            let line = std::str::from_utf8(line).expect("all of it is");
            let mut words = line.split_whitespace();
            let (login, new) = match (words.next(), words.next(), words.next()) {
                (Some(login), new, None) => (login, new.unwrap_or(login)),
                _ => return Err(at(AccountFault::NotLogins(printable(line.as_bytes())))),
            };
            let account = account(login, new, credential.clone(), template).map_err(at)?;
            seen.note(&account, number).map_err(at)?;
            accounts.add(server, account);
        }
        accounts.insist_on_some()
    }

    /// A table: each line of CSV is an account, and the first line names the columns. Lines that
    /// name no host are of `host`. With `tokens` there is no password in it.
    ///
    /// RFC 4180, but for line ends within quotes: neither a password nor a name can have one in
    /// POP3, and so every error is of one line.
    ///
    /// # Errors
    ///
    /// [`AccountsError`], which holds nothing of the line: that may be a password.
    pub fn of_table(
        text: &[u8],
        host: Option<&str>,
        options: &ServerOptions,
        tokens: Option<&Credential>,
        template: &LoginTemplate,
    ) -> Result<Self, AccountsError> {
        let mut accounts = Self::default();
        let mut lines = lines(text);
        let (number, first) = lines.next().ok_or_else(|| of_all(AccountFault::NoLine))?;
        let columns = fields(first)
            .and_then(|header| Columns::of(&header, tokens.is_some()))
            .map_err(|fault| in_line(number, fault))?;
        let mut seen = Seen::default();
        for (number, line) in lines {
            let at = |fault: AccountFault| in_line(number, fault);
            let row = fields(line).map_err(at)?;
            let (host, login, new) = columns.names(&row, host).map_err(at)?;
            let credential = columns.credential(&row, tokens).map_err(at)?;
            let server = server(host, options).map_err(|error| at(error.into()))?;
            let server = accounts.at_server(server);
            let account = account(login, new, credential, template).map_err(at)?;
            seen.note(&account, number).map_err(at)?;
            accounts.add(server, account);
        }
        accounts.insist_on_some()
    }

    /// The same users on another server, by their names there, which the template makes login names
    /// of. Each has the credential that it had.
    ///
    /// # Errors
    ///
    /// [`AccountFault`].
    pub fn moved_to(&self, server: Server, template: &LoginTemplate) -> Result<Self, AccountFault> {
        let mut moved = Self::default();
        let at = moved.at_server(server);
        for Account { user, credential, .. } in &self.all {
            moved.add(at, account(user, user, credential.clone(), template)?);
        }
        Ok(moved)
    }

    /// A server, for people.
    pub fn name_of(&self, server: usize) -> String {
        let Server { host, port, .. } = &self.servers[server];
        printable(format!("{host}:{port}").as_bytes())
    }

    /// The source that the block of an account names. A later run sees by it whether a block is of
    /// the account that it is asked for.
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

    fn insist_on_some(self) -> Result<Self, AccountsError> {
        if self.all.is_empty() { Err(of_all(AccountFault::NoAccount)) } else { Ok(self) }
    }
}

fn of_all(fault: AccountFault) -> AccountsError {
    AccountsError { line: None, fault }
}

fn in_line(line: u64, fault: AccountFault) -> AccountsError {
    AccountsError { line: Some(line), fault }
}

/// The account of a login name, as the template has it.
fn account(
    login: &str,
    new: &str,
    credential: Credential,
    template: &LoginTemplate,
) -> Result<Account, AccountFault> {
    if login.is_empty() || new.is_empty() {
        return Err(AccountFault::EmptyName);
    }
    if login.chars().chain(new.chars()).any(char::is_control) {
        return Err(AccountFault::ControlInName);
    }
    let octets = match &credential {
        Credential::Password(password) => password.octets(),
        Credential::Token(_) => b"",
    };
    if octets.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
        return Err(AccountFault::UnspeakablePassword);
    }
    Ok(Account {
        user: new.to_owned(),
        login: template.login(login)?,
        authorize: template.authorizes.then(|| login.to_owned()),
        credential,
    })
}

/// The server of a host, which may have its port behind it.
///
/// # Errors
///
/// [`HostError`].
pub fn server(text: &str, options: &ServerOptions) -> Result<Server, HostError> {
    let (host, named_port) = split_host(text)?;
    let usual = if options.security == Security::Tls { 995 } else { 110 };
    Ok(Server {
        host: host.to_owned(),
        port: named_port.or(options.port).unwrap_or(usual),
        security: options.security,
        trust: options.trust.clone(),
    })
}

/// Host and port of `host`, `host:port`, `[address]:port` or an address.
fn split_host(text: &str) -> Result<(&str, Option<u16>), HostError> {
    let shown = || printable(text.as_bytes());
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None if text.matches(':').count() == 1 => text.split_at(text.find(':').expect("one is")),
        None => (text, ""),
    };
    if host.is_empty() || host.chars().any(|char| char.is_control() || char.is_whitespace()) {
        return Err(HostError::NotHost(shown()));
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some(digits) => match digits.parse() {
            Ok(port) if port != 0 => Ok((host, Some(port))),
            _ => Err(HostError::NotPort(shown())),
        },
        None => Err(HostError::NotHost(shown())),
    }
}

/// The lines at which new user names stand: a listing has one maildrop of each.
#[derive(Default)]
struct Seen(HashMap<String, u64>);

impl Seen {
    fn note(&mut self, account: &Account, line: u64) -> Result<(), AccountFault> {
        match self.0.insert(account.user.clone(), line) {
            None => Ok(()),
            Some(first) => {
                Err(AccountFault::Twice { user: printable(account.user.as_bytes()), first })
            }
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
    fn of(header: &Row, has_tokens: bool) -> Result<Self, AccountFault> {
        let (mut host, mut user, mut password, mut new_user) = (None, None, None, None);
        for at in 0..header.len() {
            let column = match header.get(at).trim_ascii() {
                b"host" => &mut host,
                b"user" => &mut user,
                b"password" => &mut password,
                b"new_user" => &mut new_user,
                _ => return Err(AccountFault::UnknownColumn(at + 1)),
            };
            if column.replace(at).is_some() {
                return Err(AccountFault::ColumnTwice(at + 1));
            }
        }
        match (user, password) {
            (_, Some(_)) if has_tokens => Err(AccountFault::PasswordBesideTokens),
            (Some(user), _) if password.is_some() || has_tokens => {
                Ok(Self { host, user, password, new_user, count: header.len() })
            }
            _ => Err(AccountFault::NoColumn),
        }
    }

    /// The host of a row, the login name, and the new user name.
    fn names<'a>(
        &self,
        row: &'a Row,
        host: Option<&'a str>,
    ) -> Result<(&'a str, &'a str, &'a str), AccountFault> {
        if row.len() != self.count {
            return Err(AccountFault::FieldCount { found: row.len(), named: self.count });
        }
        let name = |column: Option<usize>, what: &'static str| {
            let Some(column) = column else { return Ok("") };
            let text = std::str::from_utf8(row.get(column));
            text.map(str::trim).map_err(|_| AccountFault::FieldNotUtf8(what))
        };
        let host = match (name(self.host, "host")?, host) {
            ("", host) => host.ok_or(AccountFault::NoHost)?,
            (host, _) => host,
        };
        let login = name(Some(self.user), "user")?;
        let new = match name(self.new_user, "new_user")? {
            "" => login,
            new => new,
        };
        Ok((host, login, new))
    }

    /// The password of a row, or who gives tokens.
    fn credential(
        &self,
        row: &Row,
        tokens: Option<&Credential>,
    ) -> Result<Credential, AccountFault> {
        match (self.password.map(|column| row.get(column)), tokens) {
            (None, Some(tokens)) => Ok(tokens.clone()),
            (None | Some(b""), _) => Err(AccountFault::NoPassword),
            (Some(password), _) => Ok(Secret::new(password).into()),
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

/// The most fields that a line may have.
const MAX_FIELDS: usize = 64;

/// Splits a line of CSV by csv-core. The crate csv would keep buffers of its own, with passwords in
/// them, and would not overwrite them.
fn fields(line: &[u8]) -> Result<Row, AccountFault> {
    if line.iter().filter(|octet| **octet == b'"').count() % 2 != 0 {
        return Err(AccountFault::OddQuotes);
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
                return Err(AccountFault::ManyFields(MAX_FIELDS));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<String>, String> {
        let row = fields(line.as_bytes()).map_err(|fault| fault.to_string())?;
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

    const OPTIONS: ServerOptions =
        ServerOptions { security: Security::Tls, trust: Trust::System, port: None };

    fn table(text: &str) -> Result<Accounts, String> {
        Accounts::of_table(text.as_bytes(), Some("here"), &OPTIONS, None, &LoginTemplate::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_names_its_columns_in_any_order() {
        let text = "password, user ,new_user,host\np1,a,,\n\"p,2\",b,c,there:1995\np3,d,d,here\n";
        let accounts = table(text).unwrap();
        let names: Vec<_> = accounts.all.iter().map(|one| (&*one.login, &*one.user)).collect();
        assert_eq!(names, [("a", "a"), ("b", "c"), ("d", "d")]);
        assert_eq!(accounts.server_of, [0, 1, 0]);
        assert_eq!(
            (accounts.name_of(0), accounts.name_of(1)),
            ("here:995".into(), "there:1995".into())
        );
        assert_eq!(accounts.source(1), "pop3 there:1995 b");
        let Credential::Password(password) = &accounts.all[1].credential else {
            panic!("a password")
        };
        assert_eq!(password.octets(), b"p,2");
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said_with_its_line_and_without_its_fields() {
        for (text, said) in [
            ("", "no line in it; the first names columns"),
            ("user,password\n", "no account in it"),
            ("secret,user\n", "1: column 1 is none that is known"),
            ("user,user\n", "1: column 2 is there twice"),
            ("user,host\n", "1: no column \"user\" or no column \"password\""),
            ("user,password\na,secret,b\n", "2: 3 fields, and the first line names 2"),
            ("user,password\n\na,\n", "3: no password"),
            ("user,password\n,secret\n", "2: empty user name"),
            ("user,password\na\x07,secret\n", "2: a control character in the user name"),
            ("user,password\na,\"secret\n", "2: an odd number of quotes"),
            ("user,password\na,sec\0ret\n", "2: a line end or NUL in the password"),
            ("user,password,host\na,secret,x:y\n", "2: not a port: x:y"),
            (
                "user,password\na,secret\na,secret\n",
                "3: a second account for a on the new server, the first is in line 2",
            ),
        ] {
            let error = table(text).unwrap_err();
            assert!(error.starts_with(said) && !error.contains("secret"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_list_of_logins_may_have_new_names_beside_them() {
        let here = server("here", &OPTIONS).unwrap();
        let master = Secret::new("m").into();
        let template = LoginTemplate::new("{user}*master");
        let read = |text: &[u8]| Accounts::of_users(text, here.clone(), &master, &template);
        let accounts = read(b"# all\na@x\nb@x  c@y\n").unwrap();
        let names: Vec<_> = accounts.all.iter().map(|one| (&*one.login, &*one.user)).collect();
        assert_eq!(names, [("a@x*master", "a@x"), ("b@x*master", "c@y")]);
        for (text, said) in [
            (&b"\xff"[..], "not UTF-8; Dovecot knows users by UTF-8 names"),
            (b"#\n", "no account in it"),
            (b"a b c", "1: not a login name and perhaps a new one: a b c"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), said);
        }
    }
}
