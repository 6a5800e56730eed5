//! Many accounts at several servers over POP3: in which order, how fast, and what is kept of them
//! until the listing is whole.
//!
//! | module | knows |
//! |---|---|
//! | `accounts`, `account_fault` | which accounts there are, from a list or a table |
//! | `template` | how login names are made |
//! | `secrets` | where passwords come from, and how they go nowhere else |
//! | `addresses` | which names of servers are of one address |
//! | `queue` | whose turn it is |
//! | `pace` | so many commands a second, so many logins a minute |
//! | `run` | the accounts, several at a time |
//! | `journal` | what has been captured so far, in a file |
//!
//! Nothing here prints: [`Watch`] is told how far a run is, and errors are types.
#![forbid(unsafe_code)]

mod account_fault;
mod accounts;
mod addresses;
mod journal;
mod pace;
mod queue;
mod run;
mod secrets;
mod template;

pub use account_fault::{AccountFault, AccountsError, HostError};
pub use accounts::{Accounts, ServerOptions, server};
pub use journal::{
    BlockAt, Journal, JournalError, JournalFault, Resumed, WantedAccounts, listed_in, read_journal,
};
pub use queue::{AddressLimits, StopReason};
pub use run::{Event, FleetOptions, Settled, Watch, capture, list};
pub use secrets::{SecretError, first_line, guard_memory, read_secrets, read_secrets_of};
pub use template::{LoginTemplate, TemplateError};
