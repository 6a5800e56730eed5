//! `uidl-keep capture plesk`: what there is to see of who answers POP3, on this machine or in a
//! copy.

use std::path::Path;

use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::capture::disk::{courier, dovecot};
use uidl_keep::capture::find::panel::Panel;
use uidl_keep::capture::find::plesk::evidence::{Service, Unknown, Verdict};
use uidl_keep::capture::find::plesk::{machine, short_names};
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::capture::find::traces::Left;

use super::doveconf;
use super::here::HereArgs;
use super::job::Job;
use super::sources::{CommonArgs, WholeServerArgs};
use crate::output::{Trouble, remark};

/// Whose maildrops, and what is known of who answers.
#[derive(clap::Args)]
pub struct PleskArgs {
    /// The old server's pop3_uidl_format, where it is Dovecot's and cannot be asked for: in a copy,
    /// when no doveconf here reads its configuration.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Where POP3 is answered on this machine; may be repeated. Behind a proxy give the port of
    /// what it hands connections to.
    #[arg(long = "port", value_name = "PORT", default_values = ["110", "995"])]
    ports: Vec<u16>,
    /// Call users by what stands before the @, where no other domain has it: for a new server whose
    /// own user names have no domain. The others keep theirs, and are named.
    #[arg(long, conflicts_with_all = ["user_template", "rename", "only"])]
    short_names: bool,
    #[command(flatten)]
    whole: WholeServerArgs,
    #[command(flatten)]
    here: HereArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

impl PleskArgs {
    /// Finds out who answers, and says by what.
    pub fn job(&self) -> Result<Job, Trouble> {
        let root = self.whole.root.as_deref();
        let patterns = Panel::Plesk.patterns(root);
        let naming = self.whole.naming()?;
        let (mut sources, mut all_well) =
            self.whole.sources(&patterns, &naming, Holds::Directory)?;
        let looked = machine::look(root, &self.ports);
        let mut evidence = looked.map_err(|error| Trouble::new(error.to_string()))?;
        for source in &sources {
            // Why not, its capture will say.
            evidence.unread += usize::from(evidence.traces.add(source).is_err());
        }

        let mut said: Vec<String> = evidence.signs.iter().map(ToString::to_string).collect();
        said.push(left(courier::STATE_FILE, "Courier", evidence.traces.courier));
        said.push(left(dovecot::STATE_FILE, "Dovecot", evidence.traces.dovecot));
        let verdict = match evidence.verdict() {
            Ok(verdict) => verdict,
            Err(unknown) => {
                said.iter().for_each(remark);
                return Err(refusal(unknown, root.is_none()));
            }
        };
        said.push(verdict.to_string());
        let server = self.server(verdict, root).inspect_err(|_| said.iter().for_each(remark))?;
        if let ServerKind::Dovecot { format } = &server {
            said.push(format!("pop3_uidl_format: {format}"));
        }
        said.iter().for_each(remark);

        if self.short_names {
            all_well &= shorten(&mut sources);
        } else if verdict.service == Service::Courier && machine::short_names_are_on(root) {
            remark(
                "clients may log in here without their domain (SHORTNAMES=1): let the new server's \
                 passdb give them their full name, see docs/capture-plesk.md",
            );
        }
        let asked = self.whole.asked();
        let is_copy = root.is_some();
        let job = Job { server, sources, asked, all_well, is_copy, here: None, evidence: said };
        match &job.server {
            ServerKind::Dovecot { .. } => job.served(&self.here, &self.whole),
            _ => Ok(job),
        }
    }

    fn server(&self, verdict: Verdict, root: Option<&Path>) -> Result<ServerKind, Trouble> {
        let given = self.format.as_deref().filter(|&format| format != "auto");
        if verdict.service == Service::Courier {
            return match given {
                Some(_) => Err(Trouble::new(format!(
                    "--format is Dovecot's, and {verdict}; if that is wrong, use \"capture \
                     dovecot\""
                ))),
                None => Ok(ServerKind::Courier),
            };
        }
        let format = match (given, root) {
            (Some(given), None) => {
                let format = doveconf::parse(given)?;
                let own = doveconf::ask(None)?;
                if own != format {
                    return Err(Trouble::new(format!(
                        "--format is {format}, and doveconf says {own}: leave it out, or use \
                         \"capture dovecot\" if clients were told another"
                    )));
                }
                format
            }
            (Some(given), Some(_)) => doveconf::parse(given)?,
            (None, None) => doveconf::ask(None)?,
            (None, Some(root)) => doveconf::ask(Some(&root.join("etc/dovecot")))?,
        };
        Ok(ServerKind::Dovecot { format })
    }
}

fn refusal(unknown: Unknown, is_live: bool) -> Trouble {
    let ports = match unknown {
        Unknown::Listeners if is_live => {
            "; behind a proxy name the ports of the server itself with --port"
        }
        _ => "",
    };
    Trouble::new(format!(
        "{unknown}; find out who answered clients to the last{ports}, and use \"capture courier \
         --layout plesk\" or \"capture dovecot --format FORMAT --layout plesk\""
    ))
}

/// Takes the domain off every name that is not another's then. Returns whether that was all of
/// them.
fn shorten(sources: &mut Vec<Source>) -> bool {
    let clashes = short_names::shorten(sources);
    clashes.iter().for_each(remark);
    clashes.is_empty()
}

/// The sentence on what one server has left. It decides nothing where there is any other sign.
fn left(state: &str, server: &str, left: Left) -> String {
    match left {
        Left { maildrops: 0, .. } => format!("seen: no file of {server} in any maildrop"),
        Left { maildrops, newest: None } => {
            format!("seen: maildrops with files of {server}: {maildrops}, and no {state}")
        }
        Left { maildrops, newest: Some(newest) } => format!(
            "seen: maildrops with files of {server}: {maildrops}, the youngest {state} of {}",
            humantime::format_rfc3339_seconds(newest)
        ),
    }
}
