//! The helper: captures the old server's UIDLs, builds the index, and looks after the site.

mod capture;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{Outcome, Trouble};

/// Keeps POP3 UIDLs across a mail-server migration.
#[derive(Parser)]
#[command(name = "uidl-keep", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Capture(capture::Args),
}

fn main() -> ExitCode {
    let outcome: Result<Outcome, Trouble> = match Cli::parse().command {
        Command::Capture(args) => capture::run(args),
    };
    output::exit_code(outcome)
}
