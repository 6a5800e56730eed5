//! Captures what doveadm prints.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::SystemTime;

use uidl_keep::capture::doveadm::{self, DoveadmError, DoveadmRequest};
use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::keys::Keys;
use uidl_keep::text::printable;

use super::block::{Block, Unusual};
use super::doveconf;
use super::here::HereArgs;
use super::listing_file::{Asked, ListingFile};
use super::summary::CaptureSummary;
use crate::output::{Completion, Trouble, remark};

/// Whose maildrops doveadm was asked for, and how its UIDLs are made.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("whose").args(["user", "users"]).required(true)))]
pub struct DoveadmArgs {
    /// The one user that doveadm was asked for, by -u.
    #[arg(long)]
    user: Option<String>,
    /// Everybody that doveadm was asked for, by -A: a file with a user on each line, as "doveadm
    /// user '*'" prints them. Whoever is not in the input is listed as failed.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Dovecot's pop3_uidl_format, as for "capture dovecot".
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// What to recognise messages by: file (the GUID), header, message (needs text in place of
    /// hdr), origin.
    #[arg(long, value_name = "KEYS", default_value = "file,header")]
    keys: Keys,
    #[command(flatten)]
    here: HereArgs,
    /// Write the listing there, as a whole or not at all, in place of stdout; beside it, as
    /// FILE.worse, where a listing lies there that has maildrops which this one lacks.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Captures what comes on stdin, and writes the listing.
pub fn run(args: &DoveadmArgs) -> Result<Completion, Trouble> {
    let format = doveconf::format(args.format.as_deref(), false)?;
    let users: Vec<String> = match &args.users {
        Some(path) => {
            let text = fs::read_to_string(path);
            let text = text.map_err(|error| Trouble::at(path.display(), error))?;
            text.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect()
        }
        None => args.user.iter().cloned().collect(),
    };
    let here = args.here.here(None, &Naming::default(), &users)?;
    let (user, control) = (args.user.clone(), here.control.clone());
    let asked = DoveadmRequest { user, users, format, keys: args.keys, control };
    let mut output = ListingFile::open(args.output.as_deref())?;
    let (mut all_well, mut summary) = (true, CaptureSummary::default());
    let (mut noted, mut blocks, mut nameless, mut nameless_in) = (Unusual::default(), 0, 0, 0);
    let began = printed_at();
    doveadm::read(io::stdin().lock(), &asked, &mut |captured| {
        let user = printable(captured.maildrop.user.as_bytes());
        let login = captured.maildrop.user.clone();
        let block = Block::of(here.judge(&login, captured.taken_at(began)));
        block.losses.iter().for_each(|loss| remark(format_args!("{user}: {loss}")));
        all_well &= block.losses.is_empty();
        noted.add(&block);
        summary.add(&block);
        blocks += 1;
        nameless += block.nameless;
        nameless_in += usize::from(block.nameless > 0);
        output.write(&block.octets).map_err(|trouble| DoveadmError::Emit(trouble.to_string()))
    })
    .map_err(|error| Trouble::at("standard input", error))?;
    output.publish(if args.user.is_some() { Asked::Some } else { Asked::Everybody })?;
    if nameless > 0 {
        remark(format_args!(
            "{nameless} messages in {nameless_in} maildrops have a header that does not name \
             them: where GUIDs do not survive the move (IMAP), fetch text in place of hdr, or \
             they are downloaded again"
        ));
    }
    if let Some(said) = noted.said(blocks) {
        remark(said);
    }
    summary.say(args.output.as_deref());
    Ok(if all_well { Completion::Done } else { Completion::Partial })
}

/// When doveadm printed what comes on stdin: now, or when the file was written that it comes from.
fn printed_at() -> SystemTime {
    let now = SystemTime::now();
    let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let metadata = file.and_then(|file| file.metadata());
    let written = metadata.ok().filter(Metadata::is_file).and_then(|file| file.modified().ok());
    written.map_or(now, |written| written.min(now))
}
