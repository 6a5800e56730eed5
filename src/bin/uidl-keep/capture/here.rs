//! The server that is captured, where uidl-keep itself serves it: its site and its ledgers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::dovecot::{Dovecot, InboxPath};
use uidl_keep::site::Site;
use uidl_keep::way_back::{self, ControlDirectory};

use crate::output::{Trouble, remark};

/// What to know of a server that uidl-keep serves.
#[derive(clap::Args)]
pub struct HereArgs {
    /// The site directory of the server that is captured, where uidl-keep serves it: whom no client
    /// has listed there is then taken from its index. "none" says that it is not the server of a
    /// site on this machine.
    #[arg(long, value_name = "SITE|none")]
    site: Option<PathBuf>,
    /// Where Dovecot keeps the control files of INBOX (CONTROL=), ledgers among them, such as
    /// '/srv/control/{domain}/{local}'; may be repeated [default: the Maildir; with --site, what
    /// doveadm says].
    #[arg(long, value_name = "PATTERN")]
    control: Vec<Pattern>,
    /// The doveadm program that knows the users, with --site.
    #[arg(long, value_name = "PATH", default_value = "doveadm")]
    doveadm: PathBuf,
    /// Arguments for doveadm, separated by blanks: `-c /etc/dovecot/other.conf`.
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    doveadm_args: String,
}

/// The same, found out.
pub struct Here {
    site: Option<Site>,
    /// Whether somebody said that the site is this server's.
    is_said: bool,
    /// The control directories by user, as far as they are not the maildrop.
    pub control: BTreeMap<String, Source>,
    directory: ControlDirectory,
}

impl HereArgs {
    /// Finds out where the ledgers of these users are, each by his name on this server. `root` says
    /// that a copy is captured.
    pub fn here(
        &self,
        root: Option<&std::path::Path>,
        naming: &Naming,
        logins: &[String],
    ) -> Result<Here, Trouble> {
        let (site, is_said) = match &self.site {
            Some(none) if none.as_os_str() == "none" => (None, false),
            Some(dir) if dir.is_dir() => (Some(Site::new(dir)), true),
            Some(dir) => {
                return Err(Trouble::at(dir.display(), "not a directory; is --site right?"));
            }
            // A copy is of another machine.
            None if root.is_some() => (None, false),
            None => {
                let site = Site::new(Site::DEFAULT_DIR);
                (Some(site).filter(|site| site.dir().join("domain").is_dir()), false)
            }
        };
        let mut control = BTreeMap::new();
        let mut directory = ControlDirectory::Known;
        if !self.control.is_empty() {
            let found = search::find(&self.control, root, naming, Holds::Directory)
                .map_err(|error| Trouble::at("--control", error))?;
            found.losses.iter().for_each(remark);
            let sources = found.sources.into_iter().filter(|source| !source.is_gap());
            control.extend(sources.map(|source| (source.user().to_owned(), source)));
        } else if is_said {
            match self.asked(root.is_some(), logins) {
                Ok(asked) => control = asked,
                Err(why) => directory = ControlDirectory::NotKnown(why),
            }
        }
        Ok(Here { site, is_said, control, directory })
    }

    fn asked(&self, is_copy: bool, logins: &[String]) -> Result<BTreeMap<String, Source>, String> {
        if is_copy {
            return Err("no Dovecot can be asked of a copy".to_owned());
        }
        let args = self.doveadm_args.split_whitespace().map(str::to_owned);
        let dovecot = Dovecot::new(&self.doveadm, args);
        let paths = dovecot.inbox_paths(logins, InboxPath::Control);
        let paths = paths.map_err(|error| error.to_string())?;
        let source = |(user, path): (String, PathBuf)| (user.clone(), Source::named(user, path));
        Ok(paths.into_iter().map(source).collect())
    }
}

impl Here {
    /// The maildrop, with the control directory that is known of it.
    pub fn with_control(&self, source: Source) -> Source {
        let control = self.control.get(source.user()).or_else(|| self.control.get(source.login()));
        match control {
            Some(control) => source.with_control(control.clone()),
            None => source,
        }
    }

    /// What clients of this server know, where its site says more than the capture. `login` is the
    /// user's name here.
    pub fn judge(&self, login: &str, captured: Captured) -> Captured {
        let Some(site) = &self.site else { return captured };
        if !self.is_said {
            return match way_back::doubt(site, login, &captured) {
                Some(why) => {
                    let maildrop = captured.maildrop;
                    Captured::failed(maildrop.user, maildrop.source, why)
                }
                None => captured,
            };
        }
        let is_told = self.control.contains_key(login);
        let directory = match &self.directory {
            ControlDirectory::Known if !is_told => {
                ControlDirectory::NotKnown("Dovecot does not tell, nor a pattern".to_owned())
            }
            directory => directory.clone(),
        };
        way_back::judge(site, login, &directory, captured)
    }
}
