//! Commands that the helper calls itself by: they become an account, which [`AccountIds`] says
//! how.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use uidl_keep::account::AccountIds;
use uidl_keep::doctor::as_owner;
use uidl_keep::site::Site;

use crate::check::{self, CheckArgs};
use crate::inspect::{self, InspectArgs};
use crate::output::{Completion, Trouble};

/// The command that opens files as their reader does.
pub const READ: &str = "read-as-account";

/// The account that a command becomes.
#[derive(clap::Args)]
struct AccountArgs {
    /// Its uid and gid.
    #[arg(long, value_name = "UID:GID")]
    account: AccountIds,
}

impl AccountArgs {
    fn take(&self) -> Result<(), Trouble> {
        let account = self.account;
        account.take().map_err(|error| Trouble::at(format_args!("account {account}"), error))
    }
}

/// Opens files of a site for users who are named on standard input, and answers.
#[derive(clap::Args)]
pub struct DoctorAsOwnerArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// The site directory.
    #[arg(long, value_name = "SITE")]
    site: PathBuf,
}

/// Opens indexes and rosters, as `inspect` and `check` do.
#[derive(clap::Args)]
pub struct ReadArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// Check every octet.
    #[arg(long)]
    whole: bool,
    /// Indexes or rosters.
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,
}

/// Starts a program.
#[derive(clap::Args)]
pub struct StartArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// Where it starts.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// The program and its arguments.
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    words: Vec<OsString>,
}

pub fn doctor(args: &DoctorAsOwnerArgs) -> Result<Completion, Trouble> {
    args.account.take()?;
    let (questions, answers) = (io::stdin().lock(), io::stdout().lock());
    as_owner::answers(&Site::new(&args.site), questions, answers)?;
    Ok(Completion::Done)
}

pub fn read(args: &ReadArgs) -> Result<Completion, Trouble> {
    args.account.take()?;
    let paths = args.paths.clone();
    if args.whole { check::run(&CheckArgs { paths }) } else { inspect::run(&InspectArgs { paths }) }
}

pub fn start(args: &StartArgs) -> Result<Completion, Trouble> {
    args.account.take()?;
    // The account itself must be able to go there.
    std::env::set_current_dir(&args.directory)
        .map_err(|error| Trouble::at(args.directory.display(), error))?;
    let program = &args.words[0];
    let error = Command::new(program).args(&args.words[1..]).exec();
    Err(Trouble::at(Path::new(program).display(), error))
}
