//! `uidl-keep look`: what clients of one user will see.

use std::io::{self, Write};

use serde_json::json;
use uidl_keep::text::printable;

use crate::accounts::DoveadmProgram;
use crate::output::{Completion, Trouble, remark, summary};

/// Shows what POP3 clients of a user will see: the UIDL of each message, in the order of a listing.
///
///   uidl-keep look alice@example.com
///
/// Run it as root on the new server. It has doveadm load the plugin for one command, beside the
/// plugins that doveadm loads anyway, so that Dovecot's configuration need not load it there. It
/// writes nothing: to look is no login. Prints a line for each message:
///
/// "NUMBER UIDL uid=UID order=ORDER"
///
/// An order is there where one is known. A UIDL of "-" is that of a message that no client was told
/// of and that was not captured: the next login gives it one. Who is held is shown, too.
///
/// Exit status 0: shown. 2: could not tell; POP3 would refuse the user, among others.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct LookArgs {
    /// The user name, as Dovecot sees it at login.
    user: String,
    #[command(flatten)]
    doveadm: DoveadmProgram,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &LookArgs) -> Result<Completion, Trouble> {
    let dovecot = args.doveadm.dovecot().with_plugin();
    let told = dovecot.and_then(|dovecot| dovecot.told(&args.user));
    let mut told = told.map_err(|error| {
        Trouble::new(format!("{error}; the log of Dovecot may say more, and so may `explain`"))
    })?;
    // Dovecot puts what has no order behind all that has one.
    told.sort_by_key(|message| (message.order.unwrap_or(u32::MAX), message.uid));
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (number, message) in (1..).zip(&told) {
        let (uid, uidl) = (message.uid, printable(message.uidl.as_bytes()));
        if args.json {
            let uidl = (!uidl.is_empty()).then_some(uidl);
            let order = message.order;
            let line = json!({ "number": number, "uidl": uidl, "uid": uid, "order": order });
            writeln!(out, "{line}")?;
            continue;
        }
        let uidl = if uidl.is_empty() { "-" } else { &uidl };
        let order = message.order.map(|order| format!(" order={order}")).unwrap_or_default();
        writeln!(out, "{number} {uidl} uid={uid}{order}")?;
    }
    out.flush()?;
    let untold = told.iter().filter(|message| message.uidl.is_empty()).count();
    if untold > 0 {
        remark(format_args!(
            "{untold} messages of {} have no UIDL yet: the next login gives them one",
            args.user
        ));
    }
    summary(format_args!("look: {} messages, {untold} of them without a UIDL", told.len()));
    Ok(Completion::Done)
}
