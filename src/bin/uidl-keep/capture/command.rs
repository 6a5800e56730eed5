//! The command `uidl-keep capture`, and which server it captures.

use std::num::NonZeroUsize;
use std::thread;

use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::text::on_one_line;

use super::here::HereArgs;
use super::listing_file::ListingFile;
use super::progress::Progress;
use super::sources::ServerArgs;
use super::{cyrus, disk, doveadm, doveconf, mbox, plesk, pop3, prove};
use crate::output::{Completion, Trouble};

/// Writes a listing of what an old server's POP3 clients know; changes nothing there.
///
///   uidl-keep capture courier --user alice@example.com Maildir > alice.listing
///
/// One subcommand a kind of server: take the one that answers POP3, whatever else lies in the
/// Maildirs. For a whole server say --layout or --pattern in place of --user and a path.
///
/// Exit status 0: all is captured. 1: some maildrop failed, or something of it was lost; stderr and
/// the listing say which and why. 2: there is no listing.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
pub struct CaptureArgs {
    #[command(subcommand)]
    from: CaptureFrom,
}

#[derive(clap::Subcommand)]
enum CaptureFrom {
    /// Captures Courier's POP3 by its courierpop3dsizelist, of any version.
    ///
    ///   uidl-keep capture courier --layout plesk -o plesk.listing
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Courier(ServerArgs),
    /// Captures Cyrus's POP3 by the cyrus.index of each INBOX, of Cyrus 2.2 to 3.12.
    ///
    ///   uidl-keep capture cyrus --pattern '/var/spool/cyrus/mail/uuid/?/?/*'
    ///     --pattern '/var/spool/cyrus/mail/?/user/{user}' -o cyrus.listing
    ///
    /// The first pattern is for mailboxes made by Cyrus 3.6 and later, which say whose they are;
    /// the second for older ones, with virtual domains
    /// /var/spool/cyrus/mail/domain/?/{domain}/?/user/{local}. --user and a path take one:
    /// mbpath(8) prints it. Leave out the pattern of a directory that this server does not have.
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Cyrus {
        /// The uidl_format of the old server's imapd.conf.
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "cyrus")]
        format: cyrus::UidlFormatArg,
        #[command(flatten)]
        what: ServerArgs,
    },
    /// Captures Dovecot's POP3 on Maildirs by dovecot-uidlist and pop3_uidl_format.
    ///
    ///   uidl-keep capture dovecot --format auto --layout cpanel -o cpanel.listing
    ///
    /// Where uidl-keep serves this server, its ledgers say what clients were told. Name its site
    /// then, so that whoever has not logged in since is taken from what was captured before:
    ///
    ///   uidl-keep capture dovecot --format auto --site /var/lib/uidl-keep
    ///     --pattern '/srv/vmail/{domain}/{local}/Maildir' -o next.listing
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Dovecot {
        /// The old server's pop3_uidl_format, as `doveconf -f protocol=pop3 -h pop3_uidl_format`
        /// prints it there: '%08Xu%08Xv' or '%{uid | hex(8)}%{uidvalidity | hex(8)}'. "auto" asks
        /// doveconf here: only right on the old server itself.
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
        #[command(flatten)]
        what: ServerArgs,
        #[command(flatten)]
        here: HereArgs,
    },
    /// Captures Dovecot's POP3 on mdbox, sdbox or anything else by what doveadm prints, on stdin.
    ///
    ///   doveadm user '*' > users
    ///   { doveadm -f json mailbox status -A 'messages uidvalidity uidnext' INBOX &&
    /// doveadm -f json fetch -A 'uid guid pop3.uidl pop3.order size.virtual hdr' mailbox INBOX; } |
    ///     uidl-keep capture doveadm --users users --format auto -o dbox.listing
    ///
    /// For one user -u in place of -A, and --user in place of --users.
    ///
    /// Where uidl-keep serves this server, its ledgers say what clients were told: name its site
    /// with --site, and give doveadm the plugin, beside those that it loads anyway. Dovecot 2.3: -o
    /// "mail_plugins=$(doveconf -f protocol=doveadm -h mail_plugins) uidl_keep" before -f. 2.4: -o
    /// mail_plugins/uidl_keep=yes.
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Doveadm(doveadm::DoveadmArgs),
    /// Captures POP3 from mboxes: Dovecot, mailutils, Qpopper or popa3d.
    ///
    ///   uidl-keep capture mbox --server popa3d --pattern '/var/mail/{user}' -o mbox.listing
    ///
    /// Take the server that answers POP3: each keeps its unique-ids in another place. UW ipop3d is
    /// --server dovecot --format '%08Xv%08Xu'.
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Mbox(mbox::MboxArgs),
    /// Captures a Plesk machine, by Courier or Dovecot: whichever answers POP3, which it finds out.
    ///
    ///   uidl-keep capture plesk -o plesk.listing
    ///
    /// Goes by what listens on the POP3 ports, else by what starts with the machine, else by what
    /// is installed; never by files that the server before has left behind. Says what it found on
    /// stderr and at the head of the listing, and refuses where that does not tell.
    #[command(verbatim_doc_comment)]
    Plesk(plesk::PleskArgs),
    /// Captures qmail-pop3d by base file name, in the order of modification times.
    ///
    ///   uidl-keep capture qmail --root /mnt/old --layout vpopmail -o vpopmail.listing
    #[command(arg_required_else_help = true, verbatim_doc_comment)]
    Qmail(ServerArgs),
    Pop3(Box<pop3::Pop3Args>),
}

/// Captures, and writes the listing.
pub fn run(args: &CaptureArgs) -> Result<Completion, Trouble> {
    let (job, common) = match &args.from {
        CaptureFrom::Doveadm(args) => return doveadm::run(args),
        CaptureFrom::Pop3(args) => return pop3::run(args),
        CaptureFrom::Courier(what) => (what.job(ServerKind::Courier)?, &what.common),
        CaptureFrom::Mbox(args) => {
            (args.what.job(ServerKind::Mbox(args.server()?))?, &args.what.common)
        }
        CaptureFrom::Cyrus { format, what } => {
            (what.job(ServerKind::Cyrus { format: format.spelled() })?, &what.common)
        }
        CaptureFrom::Qmail(what) => (what.job(ServerKind::Qmail)?, &what.common),
        CaptureFrom::Dovecot { format, what, here } => {
            let format = doveconf::format(format.as_deref(), what.whole.root.is_some())?;
            let job = what.job(ServerKind::Dovecot { format })?;
            (job.served(here, &what.whole)?, &what.common)
        }
        CaptureFrom::Plesk(plesk) => (plesk.job()?, &plesk.common),
    };
    let jobs = common.jobs.map_or_else(
        || thread::available_parallelism().map_or(1, NonZeroUsize::get),
        NonZeroUsize::get,
    );
    let mut output = ListingFile::open(common.output.as_deref())?;
    for line in job.evidence.iter().chain(&prove::prove(&common.proof, &job, common.keys)?) {
        output.write(format!("# {}\n", on_one_line(line)).as_bytes())?;
    }
    let progress =
        Progress::new(job.sources.len(), job.sources.len() == 1, common.output.is_some());
    let (captured, summary) = disk::capture(&job, common.keys, jobs, &progress, &mut output)?;
    output.publish(job.asked)?;
    progress.finish();
    summary.say(common.output.as_deref());
    Ok(if job.all_well && captured { Completion::Done } else { Completion::Partial })
}
