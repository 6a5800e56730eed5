//! `uidl-keep documents` writes the documents that `make install` puts beside the helper, made from
//! the commands and options that the helper takes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;

use crate::output::{Completion, Trouble};

/// Writes a man page for each command, and completions for shells.
#[derive(clap::Args)]
pub struct DocumentsArgs {
    /// The directory to write them to, which must be there.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Each page is named for its command, as `uidl-keep-capture-pop3.1`. That of `uidl-keep` itself is
/// written by hand, docs/uidl-keep.1.
pub fn run(args: &DocumentsArgs, helper: &Command) -> Result<Completion, Trouble> {
    let at = |error: io::Error| Trouble::at(args.dir.display(), error);
    let shown = helper.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let everywhere = helper.get_arguments().filter(|argument| argument.is_global_set()).cloned();
    let mut helper = Command::new("uidl-keep")
        .version(env!("CARGO_PKG_VERSION"))
        .args(everywhere)
        .subcommands(shown);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut helper, "uidl-keep", &args.dir).map_err(at)?;
    }
    helper.build();
    write_pages(&args.dir, "uidl-keep", &helper).map_err(at)?;
    Ok(Completion::Done)
}

fn write_pages(dir: &Path, parent: &str, of: &Command) -> io::Result<()> {
    for command in of.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("{parent}-{}", command.get_name());
        write_pages(dir, &name, command)?;
        let mut page = Vec::new();
        let command = command.clone().display_name(&name).disable_help_subcommand(true);
        let man = clap_mangen::Man::new(command).title(&name);
        man.source("uidl-keep").manual("User Commands").render(&mut page)?;
        fs::write(dir.join(format!("{name}.1")), page)?;
    }
    Ok(())
}
