//! Accounts at several servers, several at a time: [`capture`].

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{self, CaptureOptions, Fault, Learnt, Retrieve, Retry};
use uidl_keep::text::printable;

use super::accounts::Accounts;
use super::addresses;
use super::pace::Steady;
use super::queue::{Limits, Next, Queue, Stop, Went, Why};
use crate::capture::block::Block;
use crate::capture::progress::Progress;
use crate::capture::workers::{self, AHEAD, Plan, Take};
use crate::output::Trouble;

/// How accounts are captured.
pub struct Manner {
    pub keys: Keys,
    pub retrieve: Retrieve,
    pub timeout: Duration,
    /// For one account in all.
    pub most_time: Duration,
    pub most_octets: u64,
    /// The time from one command to the next at one address, and from one login to the next.
    pub command_gap: Duration,
    pub login_gap: Duration,
    pub limits: Limits,
    /// Connections to all servers together.
    pub jobs: usize,
}

/// An account that is done with in this run.
pub struct Settled {
    pub at: usize,
    pub block: Block,
}

/// Captures the accounts that are `wanted`, by number, and has each written when it is settled:
/// soon, and in no order.
pub fn capture(
    accounts: &Accounts,
    wanted: impl IntoIterator<Item = usize>,
    manner: &Manner,
    progress: &Progress,
    write: impl FnMut(Settled) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let address_of = addresses::of(&accounts.servers, manner.jobs);
    let server_of = accounts.server_of.clone();
    let queue = Queue::new(manner.limits, address_of.clone(), server_of, wanted);
    let jobs = manner.jobs.min(queue.most_connections());
    // There are no more addresses than servers.
    let steady = |gap| address_of.iter().map(|_| Steady::new(gap)).collect();
    let (commands, logins): (Vec<_>, Vec<_>) =
        (steady(manner.command_gap), steady(manner.login_gap));
    let learnt: Vec<Learnt> = accounts.servers.iter().map(|_| Learnt::default()).collect();
    let capture_one = |at: usize| {
        let server = accounts.server_of[at];
        let address = address_of[server];
        let count = |messages| progress.count_messages(messages);
        let how = CaptureOptions {
            keys: manner.keys,
            retrieve: manner.retrieve,
            timeout: manner.timeout,
            most_time: manner.most_time,
            most_octets: manner.most_octets,
            learnt: Some(&learnt[server]),
            ..CaptureOptions::new(&commands[address], &count)
        };
        let (account, source) = (&accounts.all[at], accounts.source(at));
        let began = SystemTime::now();
        // One account may take more than one login, where the line breaks.
        let log_in = || {
            logins[address].pass(1);
            pop3::log_in(&accounts.servers[server], account, how.timeout, &learnt[server])
        };
        let captured = pop3::capture_over(log_in, &account.user, source, &how)?;
        Ok(Block::of(captured.taken_at(began)))
    };
    let fleet = Fleet { accounts, progress, queue, ready: VecDeque::new() };
    workers::run(fleet, jobs, progress, capture_one, write)
}

/// The plan by which the threads work.
struct Fleet<'a> {
    accounts: &'a Accounts,
    progress: &'a Progress,
    queue: Queue,
    ready: VecDeque<Settled>,
}

impl Plan for Fleet<'_> {
    type Done = Result<Block, Fault>;
    type Ready = Settled;

    fn is_over(&self) -> bool {
        self.queue.is_empty()
    }

    fn take(&mut self, now: Instant) -> Take {
        if self.ready.len() >= AHEAD { Take::Wait(None) } else { self.queue.take(now) }
    }

    fn settle(&mut self, at: usize, done: Result<Block, Fault>, now: Instant) {
        let (block, went, why) = match done {
            Ok(block) => (Some(block), Went::Well, String::new()),
            Err(fault) => (None, went(&fault), fault.to_string()),
        };
        let (next, stop) = self.queue.settle(at, went, now);
        match next {
            Next::Settled => {
                let block = block.unwrap_or_else(|| self.failed(at, why.clone()));
                self.ready.push_back(Settled { at, block });
            }
            // What is tried a third time need not be said a second.
            Next::Again { pause, is_first: true } => self.progress.say(format_args!(
                "{}: {why}; tried again in {}",
                printable(self.accounts.all[at].user.as_bytes()),
                humantime::format_duration(pause)
            )),
            Next::Again { is_first: false, .. } => {}
        }
        if let Some(stop) = stop {
            self.stop(stop, &why);
        }
        self.progress.set_waiting(self.queue.tried_again());
    }

    fn ready(&mut self) -> Option<Settled> {
        self.ready.pop_front()
    }
}

impl Fleet<'_> {
    /// The block of an account that could not be captured.
    fn failed(&self, at: usize, why: String) -> Block {
        let user = self.accounts.all[at].user.clone();
        let failed = Captured::failed(user, self.accounts.source(at), why);
        Block::of(failed.taken_at(SystemTime::now()))
    }

    /// Settles all accounts that are left at a server, which is said once and not of each.
    fn stop(&mut self, stop: Stop, last: &str) {
        let server = self.accounts.name_of(stop.server);
        let why = match stop.why {
            Why::Refusals(count) => format!(
                "{server} refused {count} accounts in a row, the last with: {last}; it may ban this \
                 address for more: look at names and passwords, or say --max-refusals"
            ),
            Why::Hopeless => format!("{server}: {last}"),
            Why::Silent => format!("{server} let nobody in for too long; the last: {last}"),
        };
        if !stop.left.is_empty() {
            self.progress.say(format_args!("{why}; {} accounts are not tried", stop.left.len()));
        }
        for at in stop.left {
            let mut block = self.failed(at, format!("not tried: {why}"));
            block.losses.clear();
            self.ready.push_back(Settled { at, block });
        }
    }
}

/// What a fault says of the account, and of its server.
fn went(fault: &Fault) -> Went {
    match fault {
        Fault::NoRoots { .. }
        | Fault::Untrusted { .. }
        | Fault::OtherCertificate { .. }
        | Fault::OldTls
        | Fault::Tls { .. }
        | Fault::NoStartTls { .. }
        | Fault::NoPlain
        | Fault::NoBearer
        | Fault::WeakLogin { .. } => Went::Hopeless,
        Fault::Unlike { .. } | Fault::Endless { .. } => Went::Unfit,
        _ => match fault.next_step() {
            Retry::Later => Went::Later,
            Retry::Never => Went::Refused,
        },
    }
}
