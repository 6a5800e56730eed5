//! The helper: captures the old server's UIDLs, builds the index, and looks after the site.

mod accounts;
mod apart;
mod as_account;
mod background;
mod bake;
mod build;
mod capture;
mod changes;
mod check;
mod copy_late;
mod doctor;
mod documents;
mod dump;
mod effect;
mod explain;
mod forecast;
mod formats;
mod get;
mod hold;
mod inspect;
mod install;
mod interrupt;
mod look;
mod manners;
mod names;
mod output;
mod places;
mod plugin;
mod rehearse;
mod report;
mod retire;
mod settings;
mod signs;
mod site_files;
mod status;
mod stop;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use output::{Completion, Trouble};

/// Keeps POP3 UIDLs across a mail-server migration.
#[derive(Parser)]
#[command(
    name = "uidl-keep",
    version,
    long_version = formats::long_version(),
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    manners: manners::MannersArgs,
}

#[derive(Subcommand)]
enum Command {
    Bake(bake::BakeArgs),
    Build(build::BuildArgs),
    Capture(Box<capture::CaptureArgs>),
    Check(check::CheckArgs),
    CopyLate(copy_late::CopyLateArgs),
    Doctor(doctor::DoctorArgs),
    #[command(hide = true)]
    DoctorAsOwner(as_account::DoctorAsOwnerArgs),
    #[command(hide = true)]
    Documents(documents::DocumentsArgs),
    Dump(dump::DumpArgs),
    Explain(explain::ExplainArgs),
    Forecast(forecast::ForecastArgs),
    Forget(hold::ForgetArgs),
    Get(get::GetArgs),
    Hold(hold::HoldArgs),
    Inspect(inspect::InspectArgs),
    Listed(hold::ListedArgs),
    Look(look::LookArgs),
    Plugin(plugin::PluginArgs),
    #[command(hide = true)]
    ReadAsAccount(as_account::ReadArgs),
    Rehearse(rehearse::RehearseArgs),
    Release(hold::ReleaseArgs),
    Report(report::ReportArgs),
    Restored(hold::RestoredArgs),
    Retire(retire::RetireArgs),
    Settings(settings::SettingsArgs),
    #[command(hide = true)]
    StartAsAccount(as_account::StartArgs),
    Status(status::StatusArgs),
    Verify(Box<verify::VerifyArgs>),
}

fn main() -> ExitCode {
    let Cli { command, manners } = Cli::parse();
    manners.take();
    let outcome: Result<Completion, Trouble> = match command {
        Command::Bake(args) => bake::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Check(args) => check::run(&args),
        Command::CopyLate(args) => copy_late::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::DoctorAsOwner(args) => as_account::doctor(&args),
        Command::Documents(args) => documents::run(&args, &Cli::command()),
        Command::Dump(args) => dump::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Forecast(args) => forecast::run(&args),
        Command::Forget(args) => hold::forget(&args),
        Command::Get(args) => get::run(&args),
        Command::Hold(args) => hold::hold(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Listed(args) => hold::listed(&args),
        Command::Look(args) => look::run(&args),
        Command::Plugin(args) => plugin::run(&args),
        Command::ReadAsAccount(args) => as_account::read(&args),
        Command::Rehearse(args) => rehearse::run(&args),
        Command::Release(args) => hold::release(&args),
        Command::Report(args) => report::run(&args),
        Command::Restored(args) => hold::restored(&args),
        Command::Retire(args) => retire::run(&args),
        Command::Settings(args) => settings::run(&args),
        Command::StartAsAccount(args) => as_account::start(&args),
        Command::Status(args) => status::run(&args),
        Command::Verify(args) => verify::run(&args),
    };
    output::exit_code(outcome)
}
