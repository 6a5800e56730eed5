//! `uidl-keep capture ... --prove N`: some maildrops, chosen at random, are compared with what the
//! old server itself lists, before anything is written.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use uidl_keep::account::HELPER;
use uidl_keep::capture::disk::server::ServerKind;
use uidl_keep::capture::fleet::{self, LoginTemplate, ServerOptions};
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{Pin, Security, Trust};
use uidl_keep::capture::prove::program::Program;
use uidl_keep::capture::prove::sample::{self, Sample};
use uidl_keep::capture::prove::witness::Witness;

use super::job::Job;
use super::pop3::{accounts, password};
use super::witness::OverPop3;
use crate::output::{Trouble, remark};

/// Whether and how the capture is proven.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("over_pop3").args(["prove_accounts", "prove_password_file"])))]
pub struct ProofArgs {
    /// Before anything is written, compare so many maildrops, chosen at random, with the old
    /// server's own listing, UIDL by UIDL; stop at any difference. By its own POP3 program, run as
    /// the owner of the maildrop; or over POP3, with --prove-accounts or --prove-password-file.
    /// Either is a login, and leaves on the server what any login leaves.
    #[arg(long, value_name = "N")]
    prove: Option<NonZeroU32>,
    /// The old server's own POP3 program and its arguments, where it is not found by itself, with
    /// {home}, {maildir} and {user} for the maildrop's: '/opt/courier/pop3d {maildir}',
    /// '/usr/lib/dovecot/pop3
    /// -c /srv/dovecot.conf -o mail_home={home}'. It stands in {home}.
    #[arg(long, value_name = "PROGRAM", requires = "prove", conflicts_with = "over_pop3")]
    prove_program: Option<String>,
    /// Ask over POP3, with the passwords of a CSV file as `capture pop3 --accounts` has it: its
    /// first line names its columns, of host, user, password and new_user. Only its owner may be
    /// able to read it.
    #[arg(long, value_name = "FILE", requires = "prove")]
    prove_accounts: Option<PathBuf>,
    /// Ask over POP3, as a master user whose password is the first line of this file.
    #[arg(long, value_name = "FILE", requires_all = ["prove", "prove_login"])]
    prove_password_file: Option<PathBuf>,
    /// How that master user logs in, by {user}, {local} and {domain} of the maildrop's user at the
    /// old server: '{user}*master' on Dovecot.
    #[arg(long, value_name = "TEMPLATE", requires = "prove_password_file")]
    prove_login: Option<String>,
    /// Where POP3 is answered, as HOST or HOST:PORT.
    #[arg(long, value_name = "HOST", requires = "over_pop3", default_value = "127.0.0.1")]
    prove_server: String,
    /// How passwords are kept secret on the way [default: clear to this machine itself, else tls].
    #[arg(long, value_enum, value_name = "HOW", requires = "over_pop3")]
    prove_security: Option<SecurityArg>,
    /// Take the certificate with this SHA-256 and no other, as `openssl x509 -fingerprint -sha256`
    /// prints it.
    #[arg(long, value_name = "SHA256", requires = "over_pop3")]
    prove_pin: Option<Pin>,
    /// Choose those that a proof with this seed chose.
    #[arg(long, value_name = "SEED", requires = "prove")]
    prove_seed: Option<u64>,
}

/// How passwords are kept secret on the way.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SecurityArg {
    /// TLS from the first octet.
    Tls,
    /// TLS after STLS.
    Starttls,
    /// No TLS: everybody on the way can read them.
    Clear,
}

impl SecurityArg {
    /// What it means.
    pub fn security(self) -> Security {
        match self {
            Self::Tls => Security::Tls,
            Self::Starttls => Security::StartTls,
            Self::Clear => Security::Clear,
        }
    }
}

/// Compares as many maildrops as are asked for, if any. Returns the sentences for the head of the
/// listing.
pub fn prove(args: &ProofArgs, job: &Job, keys: Keys) -> Result<Vec<String>, Trouble> {
    let Some(wanted) = args.prove.map(|wanted| wanted.get() as usize) else {
        return Ok(Vec::new());
    };
    let witness = args.witness(&job.server, job.is_copy)?;
    let seed = args.prove_seed.unwrap_or_else(|| fastrand::u64(..));
    let sample = Sample { server: &job.server, sources: &job.sources, keys, wanted, seed };
    sample::prove(&sample, &*witness, &mut |sentence| remark(sentence))
        .map_err(|error| Trouble::new(error.to_string()))
}

impl ProofArgs {
    fn witness(&self, server: &ServerKind, is_copy: bool) -> Result<Box<dyn Witness>, Trouble> {
        if self.prove_accounts.is_some() || self.prove_password_file.is_some() {
            return self.over_pop3();
        }
        if let Some(words) = &self.prove_program {
            let program = Program::named(words, Path::new(HELPER));
            let program = program.ok_or_else(|| Trouble::new("--prove-program is empty"))?;
            return Ok(Box::new(program));
        }
        if is_copy {
            return Err(Trouble::new(
                "--prove: --root is a copy, and the server is elsewhere: say where with \
                 --prove-accounts and --prove-server, or which program to take with \
                 --prove-program",
            ));
        }
        let program = Program::of(server, Path::new(HELPER)).ok_or_else(|| {
            Trouble::new(format!(
                "--prove: no POP3 program of {} where it usually lies: name it with \
                 --prove-program, or say --prove-accounts",
                server.name()
            ))
        })?;
        Ok(Box::new(program))
    }

    fn over_pop3(&self) -> Result<Box<dyn Witness>, Trouble> {
        password::guard_memory()?;
        let options = self.server_options()?;
        let host = &self.prove_server;
        let server = fleet::server(host, &options).map_err(|e| Trouble::at("--prove-server", e))?;
        if let Some(file) = &self.prove_password_file {
            let login = LoginTemplate::new(self.prove_login.clone().expect("required with it"));
            // Nobody is asked with a template that is wrong.
            login.fill("").map_err(|error| Trouble::at("--prove-login", error))?;
            let password = password::password_in(file)?;
            return Ok(Box::new(OverPop3::Master { server, login, password }));
        }
        let table = self.prove_accounts.as_ref().expect("one of the two is there");
        let accounts = accounts::table(table, Some(host), &options, None)?;
        let servers = accounts.server_of.iter().map(|&at| accounts.servers[at].clone());
        let by_user = accounts.all.iter().zip(servers);
        let by_user = by_user.map(|(one, server)| (one.user.clone(), (server, one.clone())));
        Ok(Box::new(OverPop3::Accounts(by_user.collect())))
    }

    fn server_options(&self) -> Result<ServerOptions, Trouble> {
        let host = self.prove_server.split(':').next().unwrap_or_default();
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let usual = if is_here { SecurityArg::Clear } else { SecurityArg::Tls };
        let security = self.prove_security.unwrap_or(usual).security();
        if security == Security::Clear && self.prove_pin.is_some() {
            return Err(Trouble::new("--prove-pin: there is no certificate without TLS"));
        }
        let trust = self.prove_pin.map_or(Trust::System, Trust::Pinned);
        Ok(ServerOptions { security, trust, port: None })
    }
}
