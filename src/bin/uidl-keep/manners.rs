//! Options that every command has: how much it says, and how it shows how far it is.

use std::sync::OnceLock;

/// How much is said on stderr beside errors and remarks.
#[derive(clap::Args, Clone, Copy, Default)]
pub struct MannersArgs {
    /// Leave out the closing summary, and how far the work is. Errors and remarks are printed.
    #[arg(short, long, global = true, display_order = 900)]
    quiet: bool,
    /// How to show on stderr how far the work is [default: bar, with --quiet none].
    #[arg(long, value_enum, value_name = "HOW", global = true, display_order = 901)]
    progress: Option<ProgressForm>,
}

/// How it is shown how far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressForm {
    /// A bar on a terminal, with the time left; elsewhere a line now and then.
    Bar,
    /// A JSON object a line, at most one a second, and a last one: done, total and failed of
    /// maildrops, messages, rate (messages a second) and seconds_remaining (null: not known).
    Json,
    /// Not at all.
    None,
}

static MANNERS: OnceLock<MannersArgs> = OnceLock::new();

impl MannersArgs {
    /// Makes them those of this run. Later calls change nothing.
    pub fn take(self) {
        let _ = MANNERS.set(self);
    }
}

fn taken() -> MannersArgs {
    MANNERS.get().copied().unwrap_or_default()
}

/// Whether closing summaries are left out.
pub fn is_quiet() -> bool {
    taken().quiet
}

/// How this run shows how far it is.
pub fn progress() -> ProgressForm {
    let MannersArgs { quiet, progress } = taken();
    progress.unwrap_or(if quiet { ProgressForm::None } else { ProgressForm::Bar })
}
