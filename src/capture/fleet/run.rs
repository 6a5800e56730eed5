//! Accounts at several servers, several at a time: [`capture`].
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::capture::draft::Captured;
use crate::capture::fleet::accounts::Accounts;
use crate::capture::fleet::addresses;
use crate::capture::fleet::pace::SteadyPace;
use crate::capture::fleet::queue::{
    AccountFate, AccountQueue, AddressLimits, LoginResult, ServerStopped, StopReason,
};
use crate::capture::keys::Keys;
use crate::capture::pop3::{
    self, Account, CaptureOptions, Fault, Learnt, Listed, Pace, Retrieve, Retry, Server, Session,
    Stream,
};
use crate::capture::workers::{self, AHEAD, Next, Schedule, ThreadStopped};
use crate::text::printable;

/// How accounts are captured.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// As in [`CaptureOptions::keys`].
    pub keys: Keys,
    /// As in [`CaptureOptions::retrieve`].
    pub retrieve: Retrieve,
    /// As in [`CaptureOptions::timeout`].
    pub timeout: Duration,
    /// As in [`CaptureOptions::most_time`], for one account in all.
    pub most_time: Duration,
    /// As in [`CaptureOptions::most_octets`], for one account in all.
    pub most_octets: u64,
    /// The time from one command to the next at one address.
    pub command_gap: Duration,
    /// The time from one login to the next at one address.
    pub login_gap: Duration,
    /// How hard an address may be asked.
    pub limits: AddressLimits,
    /// Connections to all servers together.
    pub jobs: usize,
}

/// An account that is done with in this run.
#[derive(Debug)]
pub struct Settled<B> {
    /// Its number.
    pub at: usize,
    /// What the caller made of its capture.
    pub block: B,
}

/// Is told how far a run is.
pub trait Watch: Sync {
    /// So many more messages were asked about and answered.
    fn messages(&self, more: u64);

    /// So many accounts wait to be tried again.
    fn waiting(&self, accounts: usize);

    /// Something happened that an operator wants to know.
    fn event(&self, event: &Event<'_>);

    /// About a second has passed.
    fn tick(&self);
}

/// What an operator wants to know at once.
#[derive(Debug)]
pub enum Event<'a> {
    /// An account is tried again for the first time.
    Again {
        /// Its user name on the new server.
        user: &'a str,
        /// Why it could not be captured now.
        why: &'a str,
        /// When it is tried again.
        pause: Duration,
    },
    /// A server is asked no more.
    Stopped {
        /// Which, and why.
        why: &'a str,
        /// How many accounts are not tried for that.
        left: usize,
    },
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again { user, why, pause } => write!(
                f,
                "{}: {why}; tried again in {}",
                printable(user.as_bytes()),
                humantime::format_duration(*pause)
            ),
            Self::Stopped { why, left } => write!(f, "{why}; {left} accounts are not tried"),
        }
    }
}

/// Captures the accounts that are `wanted`, by number. `block` makes of each capture what is
/// written, in the thread that captured it; `write` is given that when the account is settled:
/// soon, and in no order.
///
/// # Errors
///
/// Those of `write`, and [`ThreadStopped`].
pub fn capture<B: Send, E: From<ThreadStopped>>(
    accounts: &Accounts,
    wanted: impl IntoIterator<Item = usize>,
    options: &FleetOptions,
    watch: &dyn Watch,
    block: impl Fn(Captured) -> B + Sync,
    write: impl FnMut(Settled<B>) -> Result<(), E>,
) -> Result<(), E> {
    let capture_one = |at: usize, turn: &Turn<'_>| {
        let count = |messages| watch.messages(messages);
        let options = CaptureOptions {
            keys: options.keys,
            retrieve: options.retrieve,
            timeout: options.timeout,
            most_time: options.most_time,
            most_octets: options.most_octets,
            learnt: Some(turn.learnt),
            ..CaptureOptions::new(turn.commands, &count)
        };
        let began = SystemTime::now();
        // One account may take more than one login, where the line breaks.
        let log_in = || turn.log_in();
        let source = accounts.source(at);
        let captured = pop3::capture_over(log_in, &turn.account.user, source, &options)?;
        Ok(block(captured.taken_at(began)))
    };
    let failed = |at: usize, why, said| block(failure(accounts, at, why, said));
    ask_each(accounts, wanted, options, watch, capture_one, &failed, write)
}

/// Lists the accounts that are `wanted`, by number, as a client does that downloads nothing: login,
/// UIDL, LIST and QUIT. `write` is given the messages of each, in the server's order, or a sentence
/// that says why they could not be listed. Of the options, the keys, what is retrieved, and the
/// most time and octets mean nothing here.
///
/// # Errors
///
/// Those of `write`, and [`ThreadStopped`].
pub fn list<E: From<ThreadStopped>>(
    accounts: &Accounts,
    wanted: impl IntoIterator<Item = usize>,
    options: &FleetOptions,
    watch: &dyn Watch,
    write: impl FnMut(Settled<Result<Vec<Listed>, String>>) -> Result<(), E>,
) -> Result<(), E> {
    let list_one = |_: usize, turn: &Turn<'_>| {
        let mut session = turn.log_in()?;
        turn.commands.commands(2);
        let listed = pop3::listing(&mut session)?;
        session.quit();
        watch.messages(listed.len() as u64);
        Ok(Ok(listed))
    };
    let failed = |_: usize, why, _: Said| Err(why);
    ask_each(accounts, wanted, options, watch, list_one, &failed, write)
}

/// An account whose turn it is.
struct Turn<'a> {
    account: &'a Account,
    server: &'a Server,
    learnt: &'a Learnt,
    commands: &'a SteadyPace,
    logins: &'a SteadyPace,
    timeout: Duration,
}

impl Turn<'_> {
    fn log_in(&self) -> Result<Session<Stream>, Fault> {
        self.logins.pass(1);
        pop3::log_in(self.server, self.account, self.timeout, self.learnt)
    }
}

/// Whether the operator was told already why an account was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Yes,
    No,
}

/// Has each account asked in its turn, and again where that may help.
fn ask_each<B: Send, E: From<ThreadStopped>>(
    accounts: &Accounts,
    wanted: impl IntoIterator<Item = usize>,
    options: &FleetOptions,
    watch: &dyn Watch,
    ask: impl Fn(usize, &Turn<'_>) -> Result<B, Fault> + Sync,
    failed: &(impl Fn(usize, String, Said) -> B + Sync),
    write: impl FnMut(Settled<B>) -> Result<(), E>,
) -> Result<(), E> {
    let address_of = addresses::of(&accounts.servers, options.jobs);
    let server_of = accounts.server_of.clone();
    let queue = AccountQueue::new(options.limits, address_of.clone(), server_of, wanted);
    let jobs = options.jobs.min(queue.most_connections());
    // There are no more addresses than servers.
    let steady = |gap| address_of.iter().map(|_| SteadyPace::new(gap)).collect();
    let (commands, logins): (Vec<_>, Vec<_>) =
        (steady(options.command_gap), steady(options.login_gap));
    let learnt: Vec<Learnt> = accounts.servers.iter().map(|_| Learnt::default()).collect();
    let ask_one = |at: usize| {
        let server = accounts.server_of[at];
        let address = address_of[server];
        let turn = Turn {
            account: &accounts.all[at],
            server: &accounts.servers[server],
            learnt: &learnt[server],
            commands: &commands[address],
            logins: &logins[address],
            timeout: options.timeout,
        };
        ask(at, &turn)
    };
    let fleet = Fleet { accounts, watch, queue, failed, settled: VecDeque::new() };
    workers::run(fleet, jobs, || watch.tick(), ask_one, write)
}

/// The capture of an account that could not be captured.
fn failure(accounts: &Accounts, at: usize, why: String, said: Said) -> Captured {
    let user = accounts.all[at].user.clone();
    let captured = Captured::failed(user, accounts.source(at), why);
    let mut captured = captured.taken_at(SystemTime::now());
    if said == Said::Yes {
        captured.losses.clear();
    }
    captured
}

/// The schedule by which the threads work.
struct Fleet<'a, B> {
    accounts: &'a Accounts,
    watch: &'a dyn Watch,
    queue: AccountQueue,
    failed: &'a (dyn Fn(usize, String, Said) -> B + Sync),
    settled: VecDeque<Settled<B>>,
}

impl<B> Schedule for Fleet<'_, B> {
    type Done = Result<B, Fault>;
    type Finished = Settled<B>;

    fn is_over(&self) -> bool {
        self.queue.is_empty()
    }

    fn next(&mut self, now: Instant) -> Next {
        if self.settled.len() >= AHEAD { Next::Wait(None) } else { self.queue.next(now) }
    }

    fn settle(&mut self, at: usize, done: Result<B, Fault>, now: Instant) {
        let (block, result, why) = match done {
            Ok(block) => (Some(block), LoginResult::Well, String::new()),
            Err(fault) => (None, result_of(&fault), fault.to_string()),
        };
        let (verdict, stopped) = self.queue.settle(at, result, now);
        match verdict {
            AccountFate::Settled => {
                let block = block.unwrap_or_else(|| (self.failed)(at, why.clone(), Said::No));
                self.settled.push_back(Settled { at, block });
            }
            // A second and a third time need not be said.
            AccountFate::Again { pause, is_first: true } => {
                let user = &self.accounts.all[at].user;
                self.watch.event(&Event::Again { user, why: &why, pause });
            }
            AccountFate::Again { is_first: false, .. } => {}
        }
        if let Some(stopped) = stopped {
            self.stop(stopped, &why);
        }
        self.watch.waiting(self.queue.tried_again());
    }

    fn finished(&mut self) -> Option<Settled<B>> {
        self.settled.pop_front()
    }
}

impl<B> Fleet<'_, B> {
    /// Settles all accounts that are left at a server, which is said once and not of each.
    fn stop(&mut self, stopped: ServerStopped, last: &str) {
        let server = self.accounts.name_of(stopped.server);
        let why = match stopped.why {
            StopReason::Refusals(count) => format!(
                "{server} refused {count} accounts in a row, the last with: {last}; it may ban \
                 this address for more: look at names and passwords, or say --max-refusals"
            ),
            StopReason::Hopeless => format!("{server}: {last}"),
            StopReason::Silent => format!("{server} let nobody in for too long; the last: {last}"),
        };
        if !stopped.left.is_empty() {
            self.watch.event(&Event::Stopped { why: &why, left: stopped.left.len() });
        }
        for at in stopped.left {
            let block = (self.failed)(at, format!("not tried: {why}"), Said::Yes);
            self.settled.push_back(Settled { at, block });
        }
    }
}

/// What a fault says of the account, and of its server.
fn result_of(fault: &Fault) -> LoginResult {
    match fault {
        Fault::NoRoots { .. }
        | Fault::Untrusted { .. }
        | Fault::OtherCertificate { .. }
        | Fault::OldTls
        | Fault::Tls { .. }
        | Fault::NoStartTls { .. }
        | Fault::NoPlain
        | Fault::NoBearer
        | Fault::WeakLogin { .. } => LoginResult::Hopeless,
        Fault::Unlike { .. } | Fault::Endless { .. } => LoginResult::Unfit,
        _ => match fault.next_step() {
            Retry::Later => LoginResult::Later,
            Retry::Never => LoginResult::Refused,
        },
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::capture::fleet::accounts::ServerOptions;
    use crate::capture::fleet::template::LoginTemplate;
    use crate::capture::pop3::{Security, Trust};

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Watch for Heard {
        fn messages(&self, _more: u64) {}

        fn waiting(&self, accounts: usize) {
            self.0.lock().push(accounts.to_string());
        }

        fn event(&self, event: &Event<'_>) {
            self.0.lock().push(event.to_string());
        }

        fn tick(&self) {}
    }

    fn accounts(count: usize) -> Accounts {
        let lines: String = (0..count).map(|at| format!("user{at},secret\n")).collect();
        let text = format!("user,password\n{lines}");
        let options =
            ServerOptions { security: Security::Tls, trust: Trust::System, port: Some(1995) };
        let template = LoginTemplate::default();
        Accounts::of_table(text.as_bytes(), Some("old"), &options, None, &template).unwrap()
    }

    /// What is heard and written when the first accounts end like this.
    fn settled(count: usize, faults: &[fn() -> Fault]) -> (Vec<String>, Vec<(usize, Captured)>) {
        let (accounts, watch) = (accounts(count), Heard::default());
        let limits =
            AddressLimits { connections: 3, max_refusals: 2, patience: Duration::from_secs(60) };
        let queue = AccountQueue::new(limits, vec![0], accounts.server_of.clone(), 0..count);
        let failed = &|at, why, said| failure(&accounts, at, why, said);
        let mut fleet =
            Fleet { accounts: &accounts, watch: &watch, queue, failed, settled: VecDeque::new() };
        let now = Instant::now();
        for fault in faults {
            let Next::Go(at) = fleet.next(now) else { panic!("an account is left") };
            fleet.settle(at, Err(fault()), now);
        }
        let mut written = Vec::new();
        while let Some(Settled { at, block }) = fleet.finished() {
            written.push((at, block));
        }
        (watch.0.into_inner(), written)
    }

    #[test]
    fn a_server_that_cannot_be_spoken_to_is_said_once_and_its_accounts_are_not_tried() {
        let (heard, written) = settled(3, &[|| Fault::OldTls]);
        let why = format!("old:1995: {}", Fault::OldTls);
        assert_eq!(heard, [format!("{why}; 2 accounts are not tried"), "0".into()]);
        let all: Vec<usize> = written.iter().map(|(at, _)| *at).collect();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!(written[0].1.losses, [Fault::OldTls.to_string()]);
        for (at, captured) in &written[1..] {
            assert!(captured.losses.is_empty(), "it was said already");
            assert_eq!(captured.maildrop.user, format!("user{at}"));
            assert_eq!(captured.maildrop.source, format!("pop3 old:1995 user{at}"));
            assert_eq!(captured.maildrop.remarks, [format!("not tried: {why}")]);
            assert!(captured.maildrop.captures[0].taken.is_some());
        }
    }

    #[test]
    fn an_account_is_said_to_be_tried_again_and_refusals_end_the_asking() {
        let later = || Fault::Dropped { command: "LIST" };
        let refused = || Fault::Unspeakable { what: "password" };
        let (heard, written) = settled(4, &[later, refused, refused]);
        assert_eq!(
            heard[..2],
            ["user0: it closed the connection instead of answering LIST; tried again in 5s", "1"]
        );
        assert!(heard[3].starts_with("old:1995 refused 2 accounts in a row, the last with: the"));
        assert!(heard[3].ends_with("; 2 accounts are not tried"), "{heard:?}");
        assert_eq!(written.len(), 4);
    }

    #[test]
    fn a_fault_is_of_the_account_or_of_its_server() {
        for (fault, result) in [
            (Fault::OldTls, LoginResult::Hopeless),
            (Fault::NoBearer, LoginResult::Hopeless),
            (Fault::NoPlain, LoginResult::Hopeless),
            (Fault::WeakLogin { offered: "APOP" }, LoginResult::Hopeless),
            (Fault::Changing { tries: 3 }, LoginResult::Later),
            (Fault::Injected, LoginResult::Refused),
            (
                Fault::Endless { command: "RETR", limit: "1 octets".into(), option: "--most" },
                LoginResult::Unfit,
            ),
        ] {
            assert_eq!(result_of(&fault), result, "{fault}");
        }
    }
}
