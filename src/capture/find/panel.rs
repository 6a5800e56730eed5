//! Where panels, and mail systems like them, keep maildrops: [`Panel`].
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use crate::capture::find::pattern::Pattern;
use crate::capture::users_files;

/// A panel, or a mail system, whose directories are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// `/var/qmail/mailnames/DOMAIN/USER/Maildir`, or where its `psa.conf` says.
    Plesk,
    /// `/home/ACCOUNT/mail/DOMAIN/USER` is the Maildir itself, `/home/ACCOUNT/mail` that of the
    /// account; accounts are also in `/home2` and so on, one a disk.
    Cpanel,
    /// `~vpopmail/domains/DOMAIN/USER/Maildir`, with vpopmail's hash directories `0` to `z` above
    /// the domain, above the user, or both.
    Vpopmail,
}

impl Panel {
    /// Its patterns; `root` is asked for Plesk's `etc/psa/psa.conf`, for cPanel's homes, and for
    /// the home of `vpopmail` in its `etc/passwd`.
    pub fn patterns(self, root: Option<&Path>) -> Vec<Pattern> {
        match self {
            Self::Plesk => {
                let conf = read_below(root, &["etc", "psa"], "psa.conf");
                let named = conf.as_deref().and_then(mailnames).filter(|path| is_plain(path));
                let start = named.unwrap_or("/var/qmail/mailnames").trim_end_matches('/');
                vec![Pattern::panel(&format!("{start}/{{domain}}/{{local}}/Maildir"))]
            }
            Self::Cpanel => {
                let of_home = |home| {
                    ["{account}/mail/{domain}/{local}", "{account}/mail"]
                        .map(|names| Pattern::panel(&format!("/{home}/{names}")))
                };
                homes(root).into_iter().flat_map(of_home).collect()
            }
            Self::Vpopmail => {
                let passwd = read_below(root, &["etc"], "passwd");
                let home = passwd.and_then(|text| home_of(&text));
                let start = home.unwrap_or_else(|| "/home/vpopmail".to_owned());
                [
                    "{domain}/{local}",
                    "?/{domain}/{local}",
                    "{domain}/?/{local}",
                    "?/{domain}/?/{local}",
                ]
                .map(|names| Pattern::panel(&format!("{start}/domains/{names}/Maildir")))
                .to_vec()
            }
        }
    }
}

/// `home`, and the directories `home2` and so on beside it. A link among them would show the
/// accounts of another again.
fn homes(root: Option<&Path>) -> Vec<String> {
    let top = users_files::open_operators(root.unwrap_or(Path::new("/"))).ok();
    let is_home = |name: &str| {
        let number = name.strip_prefix("home").filter(|number| !number.is_empty());
        number.is_some_and(|number| number.bytes().all(|octet| octet.is_ascii_digit()))
    };
    let further = top.iter().flat_map(|top| {
        let names = users_files::names(top.as_fd()).unwrap_or_default().into_iter();
        let names = names.filter_map(|(name, _)| String::from_utf8(name.into_vec()).ok());
        let is_directory =
            |name: &String| users_files::open_directory(top.as_fd(), OsStr::new(name)).is_ok();
        names.filter(|name| is_home(name)).filter(is_directory).collect::<Vec<_>>()
    });
    ["home".to_owned()].into_iter().chain(further).collect()
}

/// A text file of the server, where there is one that can be read.
fn read_below(root: Option<&Path>, dirs: &[&str], name: &str) -> Option<String> {
    let mut at = users_files::open_operators(root.unwrap_or(Path::new("/"))).ok()?;
    for dir in dirs {
        at = users_files::open_directory(at.as_fd(), OsStr::new(dir)).ok()?;
    }
    users_files::read_text(at.as_fd(), name).ok()
}

/// Whether a path of the server's own can be part of a pattern.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['{', '}', '*', '?'])
        && !path.split('/').any(|name| name == "." || name == "..")
}

/// The home of `vpopmail`, where that can be part of a pattern.
fn home_of(passwd: &str) -> Option<String> {
    let line = passwd.lines().find(|line| line.starts_with("vpopmail:"))?;
    let home = line.split(':').nth(5)?;
    is_plain(home).then(|| home.to_owned())
}

/// The directory of all mail, as `PLESK_MAILNAMES_D` in Plesk's `psa.conf` says.
fn mailnames(psa_conf: &str) -> Option<&str> {
    psa_conf.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_it = words.next() == Some("PLESK_MAILNAMES_D");
        words.next().filter(|path| is_it && path.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vpopmail_is_looked_for_where_the_password_file_says() {
        let passwd = "root:x:0:0::/root:/bin/sh\nvpopmail:x:89:89::/var/vpopmail:/bin/false\n";
        assert_eq!(home_of(passwd).unwrap(), "/var/vpopmail");
        assert_eq!(home_of("vpopmail:x:89:89::relative:/bin/false\n"), None);
    }

    #[test]
    fn plesks_mail_is_where_its_configuration_says() {
        let conf = "# comment\nPLESK_MAILNAMES_DX /no\nPLESK_MAILNAMES_D\t /srv/mailnames\n";
        assert_eq!(mailnames(conf), Some("/srv/mailnames"));
        assert_eq!(mailnames("PLESK_MAILNAMES_D relative\n"), None);
    }
}
