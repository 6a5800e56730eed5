//! Which server answers POP3 from mboxes.

use uidl_keep::capture::disk::mbox::server::MboxServer;

use super::doveconf;
use super::sources::ServerArgs;
use crate::output::Trouble;

/// What to capture from mboxes.
#[derive(clap::Args)]
pub struct MboxArgs {
    /// What answers POP3.
    #[arg(long, value_enum)]
    server: MboxServerArg,
    /// Dovecot's pop3_uidl_format, as for "capture dovecot".
    #[arg(long, value_name = "FORMAT", required_if_eq("server", "dovecot"))]
    format: Option<String>,
    #[command(flatten)]
    pub what: ServerArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MboxServerArg {
    /// by X-UID and X-IMAPbase headers, with --format
    Dovecot,
    /// by X-UIDL headers
    Mailutils,
    /// by X-UIDL headers
    Qpopper,
    /// computed from each header
    Popa3d,
}

impl MboxArgs {
    /// The server that is named.
    pub fn server(&self) -> Result<MboxServer, Trouble> {
        if self.format.is_some() && self.server != MboxServerArg::Dovecot {
            return Err(Trouble::new("--format is for --server dovecot"));
        }
        Ok(match self.server {
            MboxServerArg::Dovecot => {
                let is_copy = self.what.whole.root.is_some();
                MboxServer::Dovecot { format: doveconf::format(self.format.as_deref(), is_copy)? }
            }
            MboxServerArg::Mailutils => MboxServer::Mailutils,
            MboxServerArg::Qpopper => MboxServer::Qpopper,
            MboxServerArg::Popa3d => MboxServer::Popa3d,
        })
    }
}
