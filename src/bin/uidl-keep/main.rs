//! The helper: captures the old server's UIDLs, builds the index, and looks after the site.

mod capture;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps POP3 UIDLs across a mail-server migration.
#[derive(Parser)]
#[command(name = "uidl-keep", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Capture(Box<capture::Args>),
}

fn main() -> ExitCode {
    output::exit_code(match Cli::parse().command {
        Command::Capture(args) => capture::run(&args),
    })
}
