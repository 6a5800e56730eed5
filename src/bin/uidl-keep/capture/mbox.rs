//! Which server answers POP3 from mboxes.

use uidl_keep::capture::disk::mbox::Server;

use super::doveconf;
use super::sources::What;
use crate::output::Trouble;

/// What to capture from mboxes.
#[derive(clap::Args)]
pub struct Args {
    /// What answers POP3.
    #[arg(long, value_enum)]
    server: Which,
    /// Dovecot's pop3_uidl_format, as for "capture dovecot".
    #[arg(long, value_name = "FORMAT", required_if_eq("server", "dovecot"))]
    format: Option<String>,
    #[command(flatten)]
    pub what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// by X-UID and X-IMAPbase headers, with --format
    Dovecot,
    /// by X-UIDL headers
    Mailutils,
    /// by X-UIDL headers
    Qpopper,
    /// computed from each header
    Popa3d,
}

impl Args {
    /// The server that is named.
    pub fn server(&self) -> Result<Server, Trouble> {
        if self.format.is_some() && self.server != Which::Dovecot {
            return Err(Trouble::new("--format is for --server dovecot"));
        }
        Ok(match self.server {
            Which::Dovecot => {
                let is_copy = self.what.whole.root.is_some();
                Server::Dovecot { format: doveconf::format(self.format.as_deref(), is_copy)? }
            }
            Which::Mailutils => Server::Mailutils,
            Which::Qpopper => Server::Qpopper,
            Which::Popa3d => Server::Popa3d,
        })
    }
}
