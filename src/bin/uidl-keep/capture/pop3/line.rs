//! Options of how servers are spoken to over POP3, and how hard: [`LineArgs`] and [`PaceArgs`].

use std::num::NonZeroU32;
use std::time::Duration;

use uidl_keep::capture::fleet::AddressLimits;
use uidl_keep::capture::pop3::{Pin, Security, Trust};

/// How the line is kept secret, and whose certificate is taken.
#[derive(clap::Args)]
pub struct LineArgs {
    /// Speak TLS from the first octet; the default.
    #[arg(long, group = "security")]
    tls: bool,
    /// Begin without TLS and change to it before anything is said (STLS).
    #[arg(long, group = "security")]
    starttls: bool,
    /// No TLS: everybody on the way can read the passwords. For a server on this machine, or
    /// through a tunnel.
    #[arg(long, group = "security", conflicts_with_all = ["pin", "insecure"])]
    clear: bool,
    /// Take the certificate with this SHA-256 and no other, as `openssl x509 -fingerprint -sha256`
    /// prints it: for a server that signed its own.
    #[arg(long, value_name = "SHA256")]
    pin: Option<Pin>,
    /// Take any certificate: whoever stands between can read the passwords.
    #[arg(long, conflicts_with = "pin")]
    insecure: bool,
}

impl LineArgs {
    /// How the line is kept secret.
    pub fn security(&self) -> Security {
        match (self.starttls, self.clear) {
            (true, _) => Security::StartTls,
            (_, true) => Security::Clear,
            _ => Security::Tls,
        }
    }

    /// Whose certificate is taken.
    pub fn trust(&self) -> Trust {
        match self.pin {
            Some(pin) => Trust::Pinned(pin),
            None if self.insecure => Trust::Anything,
            None => Trust::System,
        }
    }
}

/// How hard servers are asked.
#[derive(clap::Args)]
pub struct PaceArgs {
    /// How long to try again, with growing pauses, where an account is in use or a server does not
    /// answer.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "15m",
        value_parser = humantime::parse_duration
    )]
    patience: Duration,
    /// Connections to one address at a time, whatever names it has. 3 is what cPanel allows.
    #[arg(long, value_name = "N", default_value = "3")]
    connections: NonZeroU32,
    /// Connections to all addresses together.
    #[arg(long, value_name = "N", default_value = "32")]
    jobs: NonZeroU32,
    /// Commands a second to one address, at most.
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Logins a minute at one address, at most.
    #[arg(long, value_name = "N")]
    logins_per_minute: Option<NonZeroU32>,
    /// Ask an address no more when it refuses so many accounts before it took one, or three times
    /// as many in a row after that; 0 is never.
    #[arg(long, value_name = "N", default_value = "3")]
    max_refusals: u32,
}

impl PaceArgs {
    /// The time from one command to the next at one address.
    pub fn command_gap(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get())
    }

    /// The time from one login to the next at one address.
    pub fn login_gap(&self) -> Duration {
        self.logins_per_minute.map_or(Duration::ZERO, |n| Duration::from_secs(60) / n.get())
    }

    /// How hard an address may be asked.
    pub fn limits(&self) -> AddressLimits {
        AddressLimits {
            connections: self.connections.get(),
            max_refusals: self.max_refusals,
            patience: self.patience,
        }
    }

    /// Connections to all addresses together.
    pub fn jobs(&self) -> usize {
        usize::try_from(self.jobs.get()).unwrap_or(usize::MAX)
    }
}
