//! Where the mail of users lies: by patterns, or as Dovecot says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::dovecot::{Dovecot, DovecotError, InboxPath};
use uidl_keep::forecast::{ControlPlace, MailPlace};
use uidl_keep::maildrop::everybody_of;

use crate::names::SelectedNames;
use crate::output::{Trouble, remark};

/// Where the mail lies.
#[derive(clap::Args)]
pub struct PlaceArgs {
    /// Where the Maildirs lie, such as '/srv/vmail/{domain}/{local}/Maildir' or
    /// '/home/{user}/Maildir'; may be repeated. A name of * stands for any, of ? for any of one
    /// character [default: where Dovecot says].
    #[arg(long, value_name = "PATTERN")]
    pub maildir: Vec<Pattern>,
    /// Where Dovecot keeps dovecot-uidlist and the ledger of INBOX, if not in the Maildir
    /// (CONTROL=); may be repeated.
    #[arg(long, value_name = "PATTERN", requires = "maildir")]
    pub control: Vec<Pattern>,
    /// User names by the variables of the pattern [default: {local}@{domain}, or {local}, {user} or
    /// {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE")]
    pub user_template: Option<String>,
    /// The doveadm program that knows the users.
    #[arg(long, value_name = "PATH", default_value = "doveadm")]
    pub doveadm: PathBuf,
    /// Arguments for doveadm, separated by blanks: `-c /etc/dovecot/other.conf`.
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub doveadm_args: String,
    /// How many seconds a doveadm may say nothing before it is ended.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
}

impl PlaceArgs {
    /// Searches by the patterns, for these users.
    pub fn search(&self, names: &SelectedNames) -> Result<FoundPlaces, Trouble> {
        let template = self.user_template.as_deref();
        FoundPlaces::search(&self.maildir, &self.control, template, names)
    }

    /// The Dovecot that serves the mail.
    pub fn dovecot(&self) -> Dovecot {
        let args = self.doveadm_args.split_whitespace().map(str::to_owned);
        Dovecot::new(&self.doveadm, args).within(Duration::from_secs(self.timeout.max(1)))
    }
}

/// Where mail lies, for a server without a Dovecot that runs.
#[derive(clap::Args)]
pub struct InboxArgs {
    /// Where the Maildirs lie, such as '/srv/vmail/{domain}/{local}/Maildir', in place of what
    /// Dovecot says; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    maildir: Vec<Pattern>,
    /// User names by the variables of the pattern [default: {local}@{domain}, or {local}, {user} or
    /// {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE", requires = "maildir")]
    user_template: Option<String>,
}

/// What was found where Maildirs should lie.
pub struct FoundPlaces {
    /// The Maildirs by user.
    mail: BTreeMap<String, Source>,
    /// The control directories by user; `None`: they are the Maildirs.
    control: Option<BTreeMap<String, Source>>,
    /// The places that could not be searched.
    gaps: Vec<Source>,
    /// Whether each pattern had a directory to search, and each maildrop a user.
    pub are_all_searched: bool,
}

impl FoundPlaces {
    /// Searches by the patterns of Maildirs and, where they are elsewhere, of control directories.
    fn search(
        maildir: &[Pattern],
        control: &[Pattern],
        user_template: Option<&str>,
        names: &SelectedNames,
    ) -> Result<Self, Trouble> {
        let naming =
            Naming::new(user_template).map_err(|error| Trouble::at("--user-template", error))?;
        let (mut gaps, mut are_all_searched) = (Vec::new(), true);
        let mut find = |option: &str, patterns: &[Pattern]| {
            let found = search::find(patterns, None, &naming, Holds::Directory)
                .map_err(|error| Trouble::at(option, error))?;
            found.losses.iter().for_each(remark);
            are_all_searched &= found.losses.is_empty();
            let (not_searched, sources): (Vec<Source>, Vec<Source>) =
                found.sources.into_iter().partition(Source::is_gap);
            gaps.extend(not_searched);
            let sources = sources.into_iter().filter(|source| names.has(source.user()));
            Ok::<_, Trouble>(sources.map(|source| (source.user().to_owned(), source)).collect())
        };
        let mail = find("--maildir", maildir)?;
        let control = (!control.is_empty()).then(|| find("--control", control));
        let control = control.transpose()?;
        Ok(Self { mail, control, gaps, are_all_searched })
    }

    /// The INBOX of a user, which is his Maildir.
    fn inbox(&self, user: &str) -> InboxPlace {
        match self.place(user) {
            MailPlace::Maildir { mail, .. } => Ok(mail.place().to_owned()),
            MailPlace::Unknown(why) => Err(why.to_owned()),
            _ => Err("no Maildir that --maildir finds is this user's".to_owned()),
        }
    }

    /// The users whose Maildirs were found.
    pub fn users(&self) -> impl Iterator<Item = &String> {
        self.mail.keys()
    }

    pub fn place(&self, user: &str) -> MailPlace<'_> {
        let gap = self.gaps.iter().find(|gap| may_be_of(gap, user));
        let mail = self.mail.get(user);
        let control = self.control.as_ref().map(|control| control.get(user));
        match (mail, control, gap) {
            (None, _, Some(gap)) | (_, Some(None), Some(gap)) => {
                MailPlace::Unknown(gap.fault().unwrap_or_default())
            }
            (None, _, None) => MailPlace::Nowhere,
            (Some(mail), control, _) => MailPlace::Maildir {
                mail,
                control: match control {
                    None => ControlPlace::Beside,
                    Some(Some(control)) => ControlPlace::At(control),
                    Some(None) => ControlPlace::Nowhere,
                },
            },
        }
    }
}

/// Whether the user may live at the place that could not be searched.
fn may_be_of(gap: &Source, user: &str) -> bool {
    let domain = user.rsplit_once('@').map(|(_, domain)| domain);
    gap.user() == everybody_of(None) || gap.user() == everybody_of(domain)
}

/// What Dovecot says of where mail lies.
pub struct AskedPlaces {
    /// It does not load our plugin.
    pub dovecot: Dovecot,
    /// What it has said of many users at once: by directory and user.
    paths: Vec<(InboxPath, BTreeMap<String, PathBuf>)>,
}

/// The users in one question of [`AskedPlaces`]. Where it fails, each is asked for alone.
const USERS_ASKED_AT_ONCE: usize = 200;

impl AskedPlaces {
    /// Asks for these directories.
    pub fn of(
        dovecot: &Dovecot,
        users: &[String],
        directories: &[InboxPath],
    ) -> Result<Self, Trouble> {
        let trouble = |error: DovecotError| {
            Trouble::new(format!(
                "{error}; is that the Dovecot of this server (--doveadm, --doveadm-args), and does \
                 it run? Where the store is a Maildir, --maildir does without it"
            ))
        };
        let dovecot = dovecot.without_plugin().map_err(trouble)?;
        let ask = |&directory: &InboxPath| {
            let chunks = users.chunks(USERS_ASKED_AT_ONCE);
            let said = chunks.filter_map(|users| dovecot.inbox_paths(users, directory).ok());
            (directory, said.flatten().collect::<BTreeMap<String, PathBuf>>())
        };
        let paths: Vec<_> = directories.iter().map(ask).collect();
        let is_silent = paths.iter().all(|(_, paths)| paths.is_empty());
        if let (true, Some(user)) = (is_silent, users.first()) {
            // It may know none of them. Then it says so.
            dovecot.names(std::slice::from_ref(user)).map_err(trouble)?;
        }
        Ok(Self { dovecot, paths })
    }

    /// The directory of a user, whether it is there or not.
    pub fn path(&self, user: &str, directory: InboxPath) -> Result<PathBuf, DovecotError> {
        let said = self.paths.iter().find(|(asked, _)| *asked == directory);
        match said.and_then(|(_, paths)| paths.get(user)) {
            Some(path) => Ok(path.clone()),
            None => self.dovecot.inbox_path(user, directory),
        }
    }

    /// Where the mail of those lies of whom all was told at once.
    pub fn mailboxes(&self) -> impl Iterator<Item = &PathBuf> {
        let asked = self.paths.iter().filter(|(asked, _)| *asked == InboxPath::Mailbox);
        asked.flat_map(|(_, paths)| paths.values())
    }
}

/// What is known of the place of an INBOX: its control directory, or why it is not known.
pub type InboxPlace = Result<PathBuf, String>;

/// Where mail lies.
pub enum Places {
    /// Where patterns say.
    Found(FoundPlaces),
    /// Where Dovecot has said.
    Asked(AskedPlaces),
}

impl Places {
    /// Whether each pattern had a directory to search, and each maildrop a user.
    pub fn are_all_searched(&self) -> bool {
        match self {
            Self::Found(found) => found.are_all_searched,
            Self::Asked(_) => true,
        }
    }
}

/// Finds the control directories of INBOXes, of some users at a time.
pub enum Inboxes {
    /// By patterns.
    Found(FoundPlaces),
    /// By Dovecot as it is, with our plugin.
    Dovecot(Dovecot),
}

/// Users in one question of [`Inboxes`]: Dovecot opens the mail of each.
pub const USERS_AT_A_TIME: usize = 500;

impl InboxArgs {
    /// Searches the Maildirs, where patterns are given.
    pub fn inboxes(&self, dovecot: Dovecot) -> Result<Inboxes, Trouble> {
        if self.maildir.is_empty() {
            return Ok(Inboxes::Dovecot(dovecot));
        }
        let (template, everybody) = (self.user_template.as_deref(), SelectedNames::default());
        FoundPlaces::search(&self.maildir, &[], template, &everybody).map(Inboxes::Found)
    }
}

impl Inboxes {
    /// The INBOX of each of these users.
    ///
    /// # Errors
    ///
    /// Dovecot cannot be asked.
    pub fn of(&self, users: &[String]) -> Result<BTreeMap<String, InboxPlace>, String> {
        let mut places = match self {
            Self::Found(found) => {
                let place = |user: &String| (user.clone(), found.inbox(user));
                return Ok(users.iter().map(place).collect());
            }
            Self::Dovecot(dovecot) => dovecot.inbox_paths(users, InboxPath::Control),
        }
        .map_err(|error| error.to_string())?;
        let found = users.iter().map(|user| {
            let unknown = || "Dovecot does not know the user, or cannot open the mail".to_owned();
            (user.clone(), places.remove(user).ok_or_else(unknown))
        });
        Ok(found.collect())
    }
}
