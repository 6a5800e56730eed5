//! A list of accounts, or a table of them with their passwords.

use std::collections::HashSet;

use uidl_keep::capture::fleet::{
    AccountFault, Accounts, AccountsError, LoginTemplate, ServerOptions, server,
};
use uidl_keep::capture::pop3::{Credential, Secret, Security, Trust};

use super::check_message;

const OPTIONS: ServerOptions =
    ServerOptions { security: Security::Tls, trust: Trust::System, port: None };

/// A password in the corpus. No error may have it.
const PASSWORD: &str = "hunter2";

/// The input, as it is.
pub fn check(octets: &[u8]) {
    let template = LoginTemplate::default();
    let tokens = Credential::Password(Secret::new("t"));
    for tokens in [None, Some(&tokens)] {
        for host in [None, Some("here")] {
            let read = Accounts::of_table(octets, host, &OPTIONS, tokens, &template);
            let Some(accounts) = checked(read) else { continue };
            let text = table_of(&accounts);
            let again = Accounts::of_table(&text, Some("here"), &OPTIONS, None, &template);
            assert_eq!(names(&again.expect("a table")), names(&accounts));
        }
    }
    let here = server("here", &OPTIONS).expect("a host");
    for template in ["{user}*master", "{domain}\\{local}"] {
        let template = LoginTemplate::new(template);
        let credential = Credential::Password(Secret::new("t"));
        checked(Accounts::of_users(octets, here.clone(), &credential, &template));
    }
}

/// The same accounts, where there are any.
fn checked(read: Result<Accounts, AccountsError>) -> Option<Accounts> {
    let accounts = match read {
        Ok(accounts) => accounts,
        Err(error) => {
            check_message(&error);
            let names_it = matches!(
                error.fault,
                AccountFault::Host(_) | AccountFault::Twice { .. } | AccountFault::NotLogins(_)
            );
            assert!(names_it || !error.to_string().contains(PASSWORD), "{error}");
            return None;
        }
    };
    assert!(!accounts.all.is_empty());
    assert_eq!(accounts.all.len(), accounts.server_of.len());
    let users: HashSet<&str> = accounts.all.iter().map(|one| one.user.as_str()).collect();
    assert_eq!(users.len(), accounts.all.len(), "a user twice");
    let servers: HashSet<_> = accounts.servers.iter().collect();
    assert_eq!(servers.len(), accounts.servers.len(), "a server twice");
    for (at, account) in accounts.all.iter().enumerate() {
        assert!(accounts.server_of[at] < accounts.servers.len());
        check_message(accounts.source(at));
        let names = [&account.user, &account.login];
        assert!(names.iter().all(|name| !name.is_empty() && !name.contains(char::is_control)));
        let password = password(&account.credential);
        assert!(!password.is_empty() && !password.iter().any(|octet| b"\r\n\0".contains(octet)));
    }
    Some(accounts)
}

fn password(credential: &Credential) -> &[u8] {
    match credential {
        Credential::Password(password) => password.octets(),
        Credential::Token(_) => unreachable!("there are none here"),
    }
}

/// The table of these accounts, each field in quotes.
fn table_of(accounts: &Accounts) -> Vec<u8> {
    let mut text = b"new_user,password,user\n".to_vec();
    for account in &accounts.all {
        for (field, end) in [
            (account.user.as_bytes(), b','),
            (password(&account.credential), b','),
            (account.login.as_bytes(), b'\n'),
        ] {
            text.push(b'"');
            for &octet in field {
                text.extend(std::iter::repeat_n(octet, if octet == b'"' { 2 } else { 1 }));
            }
            text.extend([b'"', end]);
        }
    }
    text
}

fn names(accounts: &Accounts) -> Vec<(&str, &str, &[u8])> {
    let all = accounts.all.iter();
    all.map(|one| (&*one.user, &*one.login, password(&one.credential))).collect()
}
