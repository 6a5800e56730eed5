//! Which maildrops a capture from disk is of.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::capture::find::naming::{BadRename, Naming};
use uidl_keep::capture::find::panel::Panel;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search;
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::capture::keys::Keys;
use uidl_keep::maildrop::everybody_of;

use super::job::Job;
use super::listing_file::Asked;
use super::prove::ProofArgs;
use crate::output::{Trouble, remark};

/// Which maildrops to capture, and how.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("where").args(["path", "layout", "pattern"]).required(true)))]
pub struct ServerArgs {
    /// One maildrop, of --user: a Maildir, or what this server has in its place.
    #[arg(requires = "user", conflicts_with_all = ["root", "user_template", "rename", "only"])]
    pub path: Option<PathBuf>,
    /// The user name of that maildrop on the new server.
    #[arg(long, requires = "path")]
    user: Option<String>,
    /// Every Maildir of this kind of panel.
    #[arg(long, value_enum)]
    layout: Option<PanelArg>,
    /// Every maildrop that fits, such as '/srv/vmail/{domain}/{local}/Maildir'; may be repeated. A
    /// name of * stands for any, of ? for any of one character. A variable may have a form, a
    /// regular expression for all that it stands for: '{local}-{stamp:[0-9.]+}'.
    #[arg(long, value_name = "PATTERN")]
    pattern: Vec<Pattern>,
    #[command(flatten)]
    pub whole: WholeServerArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Whose maildrops of a whole server, and by what names.
#[derive(clap::Args)]
pub struct WholeServerArgs {
    /// Look for them in the copy of a server below this directory.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// User names on the new server, by the variables of the pattern [default: {local}@{domain}, or
    /// {local}, {user} or {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE")]
    user_template: Option<String>,
    /// Users whose name changes: a file with an old and a new name on each line.
    #[arg(long, value_name = "FILE")]
    rename: Option<PathBuf>,
    /// Only this user or domain, as on the new server; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN")]
    only: Vec<String>,
}

/// How maildrops are captured, and where to.
#[derive(clap::Args)]
pub struct CommonArgs {
    /// What to recognise messages by: file, header, message, origin. With header, a message is read
    /// up to the end of its header, and whole where its header repeats within the maildrop.
    #[arg(long, value_name = "KEYS", default_value = "file,header")]
    pub keys: Keys,
    /// How many maildrops to read at a time [default: one a processor].
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Write the listing there, as a whole or not at all, in place of stdout; beside it, as
    /// FILE.worse, where a listing lies there that has maildrops which this one lacks.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub proof: ProofArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum PanelArg {
    /// /var/qmail/mailnames/DOMAIN/USER/Maildir
    Plesk,
    /// /home/ACCOUNT/mail/DOMAIN/USER, and /home/ACCOUNT/mail of the account itself; /home2 and so
    /// on
    Cpanel,
    /// ~vpopmail/domains/DOMAIN/USER/Maildir, hash directories included
    Vpopmail,
}

impl PanelArg {
    fn panel(self) -> Panel {
        match self {
            Self::Plesk => Panel::Plesk,
            Self::Cpanel => Panel::Cpanel,
            Self::Vpopmail => Panel::Vpopmail,
        }
    }
}

impl ServerArgs {
    /// The maildrops that are asked for, of that server.
    pub fn job(&self, server: ServerKind) -> Result<Job, Trouble> {
        let Keys { header, message, origin, .. } = self.common.keys;
        let reads_mail = header || message || origin;
        if !reads_mail && !server.has_file_names() {
            return Err(Trouble::new(
                "--keys file: the files of this server have no names that outlive the move; take \
                 header",
            ));
        }
        let (sources, all_well) = self.sources(&server)?;
        let is_copy = self.whole.root.is_some();
        let asked = if self.path.is_some() { Asked::Some } else { self.whole.asked() };
        Ok(Job { server, sources, asked, all_well, is_copy, here: None, evidence: Vec::new() })
    }

    fn sources(&self, server: &ServerKind) -> Result<(Vec<Source>, bool), Trouble> {
        if let (Some(path), Some(user)) = (&self.path, &self.user) {
            // The listing is kept and read elsewhere: a relative path would say nothing there.
            let place = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let source = Source::named(user, place);
            if user.is_empty() {
                return Err(Trouble::new("--user is empty; give the user name on the new server"));
            }
            // A mistyped path is not a maildrop that failed.
            server.look_for(&source).map_err(|error| Trouble::new(error.to_string()))?;
            return Ok((vec![source], true));
        }
        let patterns = match self.layout {
            Some(layout) => layout.panel().patterns(self.whole.root.as_deref()),
            None => self.pattern.clone(),
        };
        self.whole.sources(&patterns, &self.whole.naming()?, server.holds())
    }
}

impl WholeServerArgs {
    /// Whether it asks for everybody or for some users.
    pub fn asked(&self) -> Asked {
        if self.only.is_empty() { Asked::Everybody } else { Asked::Some }
    }

    /// How users are called on the new server.
    pub fn naming(&self) -> Result<Naming, Trouble> {
        let mut naming = Naming::new(self.user_template.as_deref())
            .map_err(|error| Trouble::at("--user-template", error))?;
        if let Some(path) = &self.rename {
            read_renames(path, &mut naming)?;
        }
        Ok(naming)
    }

    /// The maildrops of `patterns` that are asked for, and whether those are all.
    pub fn sources(
        &self,
        patterns: &[Pattern],
        naming: &Naming,
        holds: Holds,
    ) -> Result<(Vec<Source>, bool), Trouble> {
        let found = search::find(patterns, self.root.as_deref(), naming, holds)
            .map_err(|error| Trouble::new(error.to_string()))?;
        let found = found.select(naming, &self.only);
        found.losses.iter().for_each(remark);
        let (sources, all_well) = (found.sources, found.losses.is_empty());
        if sources.iter().all(|source| source.user() == everybody_of(None)) {
            sources.iter().filter_map(Source::fault).for_each(remark);
            return Err(Trouble::new(
                "no maildrop found; is that the layout of this server, and --root the top of its \
                 copy?",
            ));
        }
        Ok((sources, all_well))
    }
}

/// Takes "old new" on each line; blank lines and those that begin with # are skipped.
fn read_renames(path: &Path, naming: &mut Naming) -> Result<(), Trouble> {
    let text = fs::read_to_string(path).map_err(|error| Trouble::at(path.display(), error))?;
    naming.read_renames(&text).map_err(|BadRename { line, why }| {
        Trouble::at(format_args!("{}:{line}", path.display()), why)
    })
}
