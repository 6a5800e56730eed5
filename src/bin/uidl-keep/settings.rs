//! `uidl-keep settings`: what counts for whom.

use std::io::{self, Write};
use std::path::PathBuf;

use uidl_keep::site::{Site, SiteSettings};

use crate::output::{Completion, Trouble};

/// Prints the settings of the site: what counts for all, or for one user or domain.
///
///   uidl-keep settings alice@example.com
///
/// The plugin and the helper read them from the file `settings` of the site, which need not be
/// there. Without a name, this prints the whole in the form of that file, with the defaults where
/// it says nothing. So one changes a setting, seen by the next login:
///
///   cd /var/lib/uidl-keep && uidl-keep settings > settings.new
///   vi settings.new && chmod 644 settings.new
///   uidl-keep settings --file settings.new > /dev/null && mv settings.new settings
///
/// Exit status 0: printed. 2: the file cannot be understood, and POP3 refuses who was migrated.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct SettingsArgs {
    /// A user, or a domain.
    #[arg(value_name = "USER|DOMAIN")]
    name: Option<String>,
    /// The site directory.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    /// Read this file, before it becomes that of the site.
    #[arg(long, value_name = "FILE", conflicts_with = "site")]
    file: Option<PathBuf>,
}

pub fn run(args: &SettingsArgs) -> Result<Completion, Trouble> {
    let settings = match &args.file {
        Some(path) => SiteSettings::read(path),
        None => Site::new(&args.site).settings(),
    };
    let settings = settings.map_err(Trouble::new)?;
    let text = match &args.name {
        None => settings.with_defaults().to_text(),
        Some(name) => match name.rsplit_once('@') {
            Some((local, _)) if !local.is_empty() => settings.of(name).to_lines(),
            Some((_, domain)) => settings.of_domain(Some(domain)).to_lines(),
            None => settings.of_domain(Some(name)).to_lines(),
        },
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Completion::Done)
}
