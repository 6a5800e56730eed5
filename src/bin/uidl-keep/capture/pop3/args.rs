//! Options of `capture pop3`: [`Pop3Args`].

use std::path::PathBuf;
use std::time::Duration;

use uidl_keep::capture::fleet::{Accounts, FleetOptions};
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::Retrieve;

use super::accounts::AccountsArgs;
use super::line::{LineArgs, PaceArgs};
use crate::output::Trouble;

/// Captures any server over POP3, by logging in to its accounts.
///
///   uidl-keep capture pop3 --host mail.old.example --user alice@example.com --password-file pw
///
///   uidl-keep capture pop3 --accounts accounts.csv -o old.listing
///
/// The first asks for one account. The second asks for each account in a CSV file, whose first line
/// names its columns: host,user,password,new_user. With --users and --login-template a master user
/// opens all accounts. Nothing is deleted, and messages are only read whole where their headers say
/// too little, by TOP where that does and by RETR where it is allowed (--retrieve).
/// docs/capture-pop3.md tells of servers, panels and master users.
///
/// Before you ask for many accounts: panels ban addresses that log in too often or fail to. Have
/// the address of this machine allowed there first (fail2ban, cPHulk, firewalls), or say
/// --logins-per-minute. A server that refuses the first accounts is asked no more (--max-refusals).
///
/// With many accounts FILE.journal grows beside FILE. When the run is killed, the same command goes
/// on where it was. When all accounts are settled, FILE is written as a whole and the journal
/// removed; accounts that failed are in FILE as such, with the reason. The same command then takes
/// the others from FILE and asks only for those that failed or are new in the list. Where none
/// failed, or FILE is older than a day, it asks for all again, for clients have had new mail since:
/// --afresh and --retry say which of the two you want.
///
/// Passwords are never given on the command line. Files that hold them must be readable by their
/// owner only.
///
/// Exit status 0: all is captured. 1: some account failed, or something of it was lost; stderr and
/// the listing say which and why. 2: there is no new listing.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
pub struct Pop3Args {
    #[command(flatten)]
    pub accounts: AccountsArgs,
    #[command(flatten)]
    line: LineArgs,
    /// What to recognise messages by: file, header, message, origin. POP3 tells no file names, but
    /// for those that qmail-pop3d gives as unique-ids; message retrieves each message whole.
    #[arg(long, value_name = "KEYS", default_value = "file,header")]
    keys: Keys,
    /// Whether to retrieve messages whole (RETR): never, where a server hides or marks what was
    /// retrieved; needed, where the header alone says too little and TOP does not bring the rest;
    /// always.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "needed")]
    retrieve: RetrieveArg,
    /// How long to wait for a connection or an answer.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
    /// How long one account may take in all: a server that sends and sends is left then.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "12h",
        value_parser = humantime::parse_duration
    )]
    most_time: Duration,
    /// How many octets may come for one account in all: by default, 64 GiB.
    #[arg(long, value_name = "N", default_value = "68719476736")]
    most_octets: u64,
    #[command(flatten)]
    pace: PaceArgs,
    /// Take what was captured from FILE as it is, and ask only for accounts that it lacks or has as
    /// failed: the default where there are such, and FILE is no older than a day.
    #[arg(long, requires = "output", conflicts_with = "afresh")]
    pub retry: bool,
    /// Ask for all accounts, whatever FILE has.
    #[arg(long, requires = "output")]
    pub afresh: bool,
    /// Write the listing there, as a whole or not at all, in place of stdout. Many accounts need
    /// it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RetrieveArg {
    Never,
    Needed,
    Always,
}

impl RetrieveArg {
    fn retrieve(self) -> Retrieve {
        match self {
            Self::Never => Retrieve::Never,
            Self::Needed => Retrieve::Needed,
            Self::Always => Retrieve::Always,
        }
    }
}

impl Pop3Args {
    /// The accounts that are asked for.
    pub fn accounts(&self) -> Result<Accounts, Trouble> {
        self.accounts.accounts(self.line.security(), self.line.trust(), self.timeout)
    }

    /// How they are captured.
    pub fn options(&self) -> FleetOptions {
        FleetOptions {
            keys: self.keys,
            retrieve: self.retrieve.retrieve(),
            timeout: self.timeout,
            most_time: self.most_time,
            most_octets: self.most_octets,
            command_gap: self.pace.command_gap(),
            login_gap: self.pace.login_gap(),
            limits: self.pace.limits(),
            jobs: self.pace.jobs(),
        }
    }

    /// What a journal says of how its blocks were captured.
    pub fn settings(&self) -> String {
        let Keys { file, header, message, origin } = self.keys;
        let words = [(file, "file"), (header, "header"), (message, "message"), (origin, "origin")];
        let words: Vec<_> =
            words.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| *word).collect();
        let retrieve = match self.retrieve {
            RetrieveArg::Never => "never",
            RetrieveArg::Needed => "needed",
            RetrieveArg::Always => "always",
        };
        format!("--keys {} --retrieve {retrieve}", words.join(","))
    }
}
